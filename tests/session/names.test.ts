// Names: what a client's word may reach when an application names fields by it, and what is told of a member that was meant as a
// field.
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Session } from 'sojourn'
import { z } from 'zod'
import { closeRigs, MemoryGround, Rig } from '../support/rig.js'

afterEach(closeRigs)

type Bag = Record<string, Record<string, unknown>>

/** Everything that all sessions, or all objects, share, as it can be seen from outside. */
function shared(session: Session): Map<object, readonly PropertyKey[]> {
  const roots = [Object.prototype, Function.prototype, Object, Function, Object.getPrototypeOf(session) as object]
  const found = new Set<object>(roots)
  for (const root of roots) {
    for (const { value } of Object.values(Object.getOwnPropertyDescriptors(root))) {
      if (typeof value === 'function') found.add(value)
    }
  }
  return new Map([...found].map((object) => [object, Reflect.ownKeys(object)]))
}

describe('fields that are named by what a client sends', () => {
  const own = Object.getOwnPropertyNames(Object.prototype)
  const ofFunctions = Object.getOwnPropertyNames(Function.prototype)
  const members = (session: object): string[] => Object.getOwnPropertyNames(Object.getPrototypeOf(session))
  const views: Record<string, (session: Session) => object> = {
    'the session': (session) => session,
    'a typed view': (session) => session.typed(z.object({ theme: z.string().optional() })),
  }

  test.each(Object.entries(views))('reach nothing that others see, by two names on %s', async (_name, viewOf) => {
    const rig = await Rig.start(new MemoryGround())
    await rig.ask((session) => {
      const before = shared(session)
      const view = viewOf(session) as Bag
      for (const first of [...own, ...ofFunctions, ...members(session), '__proto__', 'prototype']) {
        for (const second of [...own, ...ofFunctions, '__proto__', 'prototype', 'isAdmin']) {
          try {
            ;(view[first] as Record<string, unknown>)[second] = 'polluted'
          } catch {
            // There is nothing to write to, or it cannot be written to.
          }
        }
      }
      for (const [object, keys] of before) expect(Reflect.ownKeys(object)).toEqual(keys)
      expect(({} as Record<string, unknown>)['isAdmin']).toBeUndefined()
    })
    await rig.ask((session) => {
      expect((session.login as unknown as Record<string, unknown>)['isAdmin']).toBeUndefined()
      expect(session.get('isAdmin')).toBeUndefined()
      expect(textOf(session)).toBe('[object Object]')
    })
  })

  test('find no prototype and no constructor', async () => {
    const rig = await Rig.start(new MemoryGround())
    await rig.ask((session) => {
      const bag = session as unknown as Record<string, unknown>
      // biome-ignore lint/suspicious/noProto: what a client may send
      expect(bag['__proto__']).toBeUndefined()
      expect(bag['constructor']).toBeUndefined()
      expect(bag['__defineGetter__']).toBeUndefined()
    })
  })

  test('a session is still text, a key of a template, and asked for its fields', async () => {
    const rig = await Rig.start(new MemoryGround())
    await rig.ask((session) => {
      session.set('list', ['tea'])
      expect(textOf(session)).toBe('[object Object]')
      expect(`${session as unknown as string}`).toBe('[object Object]')
      expect(Object.prototype.toString.call(session)).toBe('[object Object]')
      expect(session.valueOf()).toBe(session)
      // biome-ignore lint/suspicious/noPrototypeBuiltins: what older applications write
      expect([session.hasOwnProperty('list'), session.hasOwnProperty('login')]).toEqual([true, false])
      expect(JSON.stringify(session)).toBe('{"list":["tea"]}')
    })
  })
})

describe('a member that was meant as a field', () => {
  const MISREAD: Record<string, [code: string, warning: RegExp]> = {
    'a method as a flag': [
      'if (!session.login) throw new Error("out")',
      /^req\.session\.login was read, and not called/,
    ],
    'a field of a method’s name': ['session.set("touch", 1); void session.touch', /^req\.session\.touch is a member/],
    'a field of a fact’s name': ['session.set("id", 1); void session.id', /^req\.session\.id is a member/],
  }
  const RIGHT: Record<string, string> = {
    'a method that is called': 'session.set("a", session.get("b") ?? 1)',
    'a method that is called after a wait': 'session.set("a", await Promise.resolve(1)); await session.save()',
    'a method that is called by another name': 'const f = session.save.bind(session); await f()',
    'a fact that is read': 'void session.id; void session.metadata.userId; void session.isNew',
    'a field that is read': 'void session.user',
    'a session that is printed': 'session.set("a", 1); JSON.stringify([session, { ...session }]) + String(session)',
    'an error between reading a method and calling it': 'session.set("a", await Promise.reject(new Error("no")))',
  }

  /** What a program says that runs these pieces of code, each in two requests. */
  function warningsOf(pieces: readonly string[], env: string): string[][] {
    const { NODE_OPTIONS: _jest, ...inherited } = process.env
    const program = fileURLToPath(new URL('../support/misread.ts', import.meta.url))
    const output = execFileSync(process.execPath, ['--import', 'tsx', program, JSON.stringify(pieces)], {
      env: { ...inherited, NODE_ENV: env },
      encoding: 'utf8',
    })
    return JSON.parse(output) as string[][]
  }

  let told: Record<string, string[]>
  beforeAll(() => {
    const pieces = { ...RIGHT, ...Object.fromEntries(Object.entries(MISREAD).map(([name, [code]]) => [name, code])) }
    const warnings = warningsOf(Object.values(pieces), 'development')
    told = Object.fromEntries(Object.keys(pieces).map((name, index) => [name, warnings[index] ?? []]))
  }, 60_000)

  test.each(Object.entries(MISREAD))('%s is told in development, once, with the place', (name, [, warning]) => {
    expect(told[name]).toEqual([expect.stringMatching(warning)])
    expect(told[name]?.[0]).toMatch(/A field "\w+" is read by req\.session\.get\('\w+'\)\. Read at .*piece\.js/)
  })

  test('the word for login says where the user stands', () => {
    expect(told['a method as a flag']?.[0]).toContain('req.session.metadata.userId')
  })

  test.each(Object.keys(RIGHT))('of %s nothing is told', (name) => {
    expect(told[name]).toEqual([])
  })

  test('in production nothing is told', () => {
    const pieces = Object.values(MISREAD).map(([code]) => code)
    expect(warningsOf(pieces, 'production')).toEqual(pieces.map(() => []))
  }, 60_000)
})

function textOf(value: unknown): string {
  return String(value)
}
