// `session.typed(schema)`: the fields through a Standard Schema, of zod and of valibot.
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type Response } from 'express'
import {
  isSessionError,
  MemorySessionStore,
  type Session,
  type SessionError,
  type StandardSchema,
  session,
  type TypedSession,
} from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import * as v from 'valibot'
import { z } from 'zod'
import { Client, listen, SECRET } from '../support/http.js'

interface Preferences {
  theme: 'light' | 'dark'
  visited: string[]
  lastSeen?: Date | undefined
  address?: { city: string; zip?: string | undefined } | undefined
}

/** The same shape in both libraries: defaults, a coercion, an optional object. */
const SCHEMAS: [library: string, schema: StandardSchema<unknown, Preferences>][] = [
  [
    'zod',
    z.object({
      theme: z.enum(['light', 'dark']).default('light'),
      visited: z.array(z.string()).default([]),
      lastSeen: z.coerce.date().optional(),
      address: z.object({ city: z.string(), zip: z.string().optional() }).optional(),
    }) as StandardSchema<unknown, Preferences>,
  ],
  [
    'valibot',
    v.object({
      theme: v.optional(v.picklist(['light', 'dark']), 'light'),
      visited: v.optional(v.array(v.string()), () => []),
      lastSeen: v.optional(
        v.pipe(
          v.union([v.string(), v.date()]),
          v.transform((at) => new Date(at)),
        ),
      ),
      address: v.optional(v.object({ city: v.string(), zip: v.optional(v.string()) })),
    }) as StandardSchema<unknown, Preferences>,
  ],
]

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

/** Runs each handler in one request of the same client; rejects with what reached the error handler. */
async function start(): Promise<{
  store: FaultyStore
  ask<T>(handler: (session: Session) => T | Promise<T>): Promise<T>
  stored(): Promise<Record<string, unknown>>
}> {
  const memory = new MemorySessionStore({ cleanupInterval: 0 })
  const store = new FaultyStore(memory)
  const app = express()
  let handle: (session: Session, res: Response) => Promise<void>
  let failure: unknown
  let id = ''
  app.use(session({ secret: SECRET, store }))
  app.get('/', async (req, res) => {
    id = req.session.id
    await handle(req.session, res)
  })
  app.use((error: unknown, _req: unknown, res: Response, _next: unknown) => {
    failure = error
    res.status(500).end()
  })
  const server = await listen(app)
  closers.push(() => server.close())
  const client = new Client(server)
  return {
    store,
    async ask<T>(handler: (session: Session) => T | Promise<T>) {
      let result: T | undefined
      failure = undefined
      handle = async (session, res) => {
        result = await handler(session)
        res.end()
      }
      await client.get('/')
      if (failure !== undefined) throw failure
      return result as T
    },
    async stored() {
      const record = await memory.get(id)
      return Object.fromEntries([...(record?.fields ?? [])].map(([name, text]) => [name, JSON.parse(text) as unknown]))
    },
  }
}

function errorOf(act: () => unknown): SessionError {
  try {
    act()
  } catch (error) {
    if (isSessionError(error)) return error
    throw error
  }
  throw new Error('Nothing was thrown.')
}

/** An assignment that the type forbids. */
function assign(view: object, name: string, value: unknown): void {
  ;(view as Record<string, unknown>)[name] = value
}

describe.each(SCHEMAS)('with %s', (_library, schema) => {
  test('reads are what the schema makes of the fields: defaults and coercions', async () => {
    const { ask } = await start()
    await ask((session) => session.set('lastSeen', '2026-01-02T03:04:05.000Z').set('visited', ['a']))
    await ask((session) => {
      const view = session.typed(schema)
      expect(view.theme).toBe('light')
      expect(view.lastSeen).toEqual(new Date('2026-01-02T03:04:05.000Z'))
      expect(view.visited).toEqual(['a'])
      expect(view.address).toBeUndefined()
      // In any order, any number of times, through any number of views.
      expect(view.lastSeen).toEqual(new Date('2026-01-02T03:04:05.000Z'))
      expect(session.typed(schema).visited).toBe(view.visited)
    })
  })

  test('reading alone stores nothing, whatever the schema makes of it', async () => {
    const { ask, store, stored } = await start()
    await ask((session) => {
      expect(session.typed(schema).theme).toBe('light')
      expect(session.isModified).toBe(false)
    })
    expect(store.totalCalls).toBe(0)
    await ask((session) => session.set('lastSeen', '2026-01-02'))
    await ask((session) => {
      const view = session.typed(schema)
      expect([view.theme, view.visited, view.lastSeen]).toEqual(['light', [], new Date('2026-01-02')])
      expect(session.isModified).toBe(false)
    })
    expect(store.calls.update).toBe(0)
    expect(await stored()).toEqual({ lastSeen: '2026-01-02' })
  })

  test('a stored field that does not fit is refused on reading, with the issues', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('theme', 'purple'))
    await ask((session) => {
      const error = errorOf(() => session.typed(schema).theme)
      expect(error.code).toBe('VALIDATION_FAILED')
      expect(error.message).toBe('The session does not fit its schema at theme.')
      expect(error.issues).toHaveLength(1)
      expect(error.issues?.[0]?.message).toEqual(expect.any(String))
      expect(session.get('theme')).toBe('purple')
    })
    expect(await stored()).toEqual({ theme: 'purple' })
  })

  test('an assignment is stored', async () => {
    const { ask, stored } = await start()
    await ask((session) => {
      const view = session.typed(schema)
      view.theme = 'dark'
      view.lastSeen = new Date(0)
      view.address = { city: 'Bern' }
      expect(view.theme).toBe('dark')
      expect(view.lastSeen).toEqual(new Date(0))
      expect(session.get('theme')).toBe('dark')
    })
    expect(await stored()).toEqual({
      theme: 'dark',
      lastSeen: '1970-01-01T00:00:00.000Z',
      address: { city: 'Bern' },
    })
    expect(await ask((session) => session.typed(schema).lastSeen)).toEqual(new Date(0))
  })

  test('an assignment that does not fit is refused, with the issues, and the old value stays', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('theme', 'dark').set('address', { city: 'Bern' }))
    await ask((session) => {
      const view = session.typed(schema)
      for (const [name, value, path] of [
        ['theme', 'purple', 'theme'],
        ['address', { city: 5 }, 'address.city'],
        ['visited', [1], 'visited.0'],
      ] as const) {
        const error = errorOf(() => assign(view, name, value))
        expect(error.code).toBe('VALIDATION_FAILED')
        expect(error.message).toContain(`at ${path}.`)
        expect(error.issues?.length).toBeGreaterThan(0)
      }
      expect([view.theme, view.address, view.visited]).toEqual(['dark', { city: 'Bern' }, []])
    })
    expect(await stored()).toEqual({ theme: 'dark', address: { city: 'Bern' } })
  })

  test('a nested change through the view is stored', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('address', { city: 'Bern' }))
    await ask((session) => {
      const view = session.typed(schema)
      view.visited.push('home')
      if (view.address) view.address.zip = '3000'
      expect(session.isModified).toBe(true)
      expect(session.get('visited')).toEqual(['home'])
    })
    expect(await stored()).toEqual({ visited: ['home'], address: { city: 'Bern', zip: '3000' } })
  })

  test('the view and the session hold the same object, whichever was asked first', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('visited', ['a']))
    await ask((session) => {
      const before = session.get('visited') as string[]
      const view = session.typed(schema)
      expect(view.visited).toBe(before)
      before.push('b')
      view.visited.push('c')
      ;(session.get('visited') as string[]).push('d')
    })
    expect(await stored()).toEqual({ visited: ['a', 'b', 'c', 'd'] })
  })

  test('what is set past the view is validated at the next read', async () => {
    const { ask } = await start()
    await ask((session) => {
      const view = session.typed(schema)
      expect(view.theme).toBe('light')
      session.set('theme', 'purple')
      expect(errorOf(() => view.theme).code).toBe('VALIDATION_FAILED')
      session.set('theme', 'dark')
      expect(view.theme).toBe('dark')
    })
  })

  test('what reload() brings is validated', async () => {
    const { ask } = await start()
    await ask((session) => session.set('lastSeen', '2026-01-02'))
    await ask(async (session) => {
      const view = session.typed(schema)
      expect(view.lastSeen).toBeInstanceOf(Date)
      await session.reload()
      expect(view.lastSeen).toBeInstanceOf(Date)
    })
  })

  test('fields outside of the schema are untouched and not to be set', async () => {
    const { ask, stored, store } = await start()
    await ask((session) => session.set('other', { deep: [1] }))
    await ask((session) => {
      const view = session.typed(schema)
      expect((view as unknown as Record<string, unknown>)['other']).toBeUndefined()
      expect('other' in view).toBe(false)
      const error = errorOf(() => assign(view, 'other', 1))
      expect(error.code).toBe('VALIDATION_FAILED')
      expect(session.get('other')).toEqual({ deep: [1] })
    })
    expect(store.calls.update).toBe(0)
    await ask((session) => {
      session.typed(schema).theme = 'dark'
    })
    expect(await stored()).toEqual({ other: { deep: [1] }, theme: 'dark' })
  })

  test('delete and undefined remove a field, when the schema can do without', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('theme', 'dark').set('address', { city: 'Bern' }))
    await ask((session) => {
      const view = session.typed(schema)
      delete (view as Partial<Preferences>).theme
      view.address = undefined
      expect(view.theme).toBe('light')
      expect(session.has('address')).toBe(false)
    })
    expect(await stored()).toEqual({})
  })

  test('in, Object.keys, spread and JSON see the fields of the schema', async () => {
    const { ask } = await start()
    await ask((session) => session.set('theme', 'dark').set('other', 1))
    await ask((session) => {
      const view: TypedSession<Preferences> = session.typed(schema)
      expect('theme' in view).toBe(true)
      expect('toString' in view).toBe(false)
      expect(Object.keys(view).sort()).toEqual(['theme', 'visited'])
      expect({ ...view }).toEqual({ theme: 'dark', visited: [] })
      expect(JSON.parse(JSON.stringify(view))).toEqual({ theme: 'dark', visited: [] })
      expect(Object.prototype.toString.call(view)).toBe('[object Object]')
      expect(String(view as unknown)).toBe('[object Object]')
      expect(() => Object.defineProperty(view, 'theme', { value: 'light' })).toThrow(TypeError)
      expect(() => Object.freeze(view)).toThrow(TypeError)
      expect(session.isModified).toBe(false)
    })
  })

  test('assigning to a session that has ended is an error', async () => {
    const { ask } = await start()
    await ask((session) => session.set('theme', 'dark'))
    await ask(async (session) => {
      const view = session.typed(schema)
      await session.destroy()
      expect(errorOf(() => assign(view, 'theme', 'light')).code).toBe('SESSION_ENDED')
    })
  })
})

describe('a schema that transforms', () => {
  const schema = z.object({
    tags: z.string().transform((text) => text.split(',')),
    count: z.number().default(0),
  })

  test('sees what was stored, not what it made of it', async () => {
    const { ask, store } = await start()
    await ask((session) => session.set('tags', 'a,b'))
    await ask((session) => {
      const view = session.typed(schema)
      expect(view.tags).toEqual(['a', 'b'])
      expect(view.count).toBe(0)
      expect(session.typed(schema).tags).toEqual(['a', 'b'])
      expect(session.isModified).toBe(false)
    })
    expect(store.calls.update).toBe(0)
  })

  test('beside an assignment to another field', async () => {
    const { ask, stored } = await start()
    await ask((session) => session.set('tags', 'a,b'))
    await ask((session) => {
      const view = session.typed(schema)
      expect(view.tags).toEqual(['a', 'b'])
      view.count = 5
      expect(view.tags).toEqual(['a', 'b'])
    })
    expect(await stored()).toEqual({ tags: 'a,b', count: 5 })
  })
})

describe('two schemas on one session', () => {
  test('each sees its own view of what was stored', async () => {
    const { ask, store } = await start()
    await ask((session) => session.set('at', '2026-01-02'))
    await ask((session) => {
      const asDate = session.typed(z.object({ at: z.string().transform((at) => new Date(at)) }))
      const asText = session.typed(z.object({ at: z.string() }))
      expect(asDate.at).toEqual(new Date('2026-01-02'))
      expect(asText.at).toBe('2026-01-02')
      expect(asDate.at).toEqual(new Date('2026-01-02'))
    })
    expect(store.calls.update).toBe(0)
  })
})

describe('what is no schema for this', () => {
  test.each([
    ['undefined', undefined],
    ['a class', class {}],
    ['a JSON schema', { type: 'object' }],
    ['another standard', { '~standard': {} }],
  ])('%s is refused', async (_kind, schema) => {
    const { ask } = await start()
    await ask((session) => {
      const error = errorOf(() => session.typed(schema as unknown as StandardSchema))
      expect(error.code).toBe('INVALID_ARGUMENT')
      expect(error.message).toContain('Standard Schema')
    })
  })

  test.each([
    ['zod', z.object({ a: z.string().refine(async () => true) }) as StandardSchema],
    [
      'valibot',
      v.objectAsync({
        a: v.pipeAsync(
          v.string(),
          v.checkAsync(async () => true),
        ),
      }) as StandardSchema,
    ],
    [
      'one that rejects',
      { '~standard': { version: 1, vendor: 'own', validate: () => Promise.reject(new Error('no')) } } as StandardSchema,
    ],
  ])('an asynchronous schema is refused: %s', async (_kind, schema) => {
    const { ask, stored } = await start()
    await ask((session) => session.set('a', 'old'))
    await ask((session) => {
      const view = session.typed(schema) as { a: string }
      for (const act of [() => view.a, () => assign(view, 'a', 'new')]) {
        const error = errorOf(act)
        expect(error.code).toBe('INVALID_ARGUMENT')
        expect(error.message).toContain('synchronously')
      }
    })
    expect(await stored()).toEqual({ a: 'old' })
  })
})
