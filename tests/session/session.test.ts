// What a handler holds as `req.session`: fields, facts and the life of a session, over HTTP.
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type Request, type Response } from 'express'
import {
  isSessionError,
  jsonCodec,
  MemorySessionStore,
  type Session,
  type SessionChange,
  type SessionCodec,
  type SessionEnd,
  type SessionError,
  type SessionEvent,
  type SessionEventName,
  type SessionMiddleware,
  type SessionOptions,
  session,
  type UpdateResult,
} from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { type Answer, Client, listen, SECRET, until } from '../support/http.js'
import { endOf, fieldsOf } from '../support/records.js'

/** The fields as properties, of the kinds that these tests put in them. */
interface Bag {
  [name: string]: unknown
  n: number
  list: number[]
  deep: { a: { b: number[]; c?: number } }
  map: Map<string, number>
}

type Handler<T> = (fields: Bag, session: Session, req: Request, res: Response) => T | Promise<T>

/** A store that keeps what it was asked to write. */
class SpyStore extends FaultyStore {
  readonly changes: SessionChange[] = []

  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    this.changes.push(change)
    return super.update(id, change, ttlSeconds)
  }

  get writes(): number {
    const { create, update, touch, regenerate, end, set } = this.calls
    return create + update + touch + regenerate + end + set
  }
}

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

/** A fresh app, store and client. `ask` runs one handler in one request. */
class Rig {
  readonly memory = new MemorySessionStore({ cleanupInterval: 0 })
  readonly store = new SpyStore(this.memory)
  readonly clock = new FakeClock()
  readonly middleware: SessionMiddleware
  /** The answer to the last request that ended. */
  answer: Answer | undefined
  client!: Client
  #handlers = new Map<string, (req: Request, res: Response) => Promise<void>>()
  #errors = new Map<string, unknown>()
  #url = ''

  private constructor(options: Partial<SessionOptions>) {
    this.middleware = session({ secret: SECRET, store: this.store, clock: this.clock.now, ...options })
  }

  static async start(options: Partial<SessionOptions> = {}): Promise<Rig> {
    const rig = new Rig(options)
    const app = express()
    app.use(rig.middleware)
    app.get('/:name', (req, res) => rig.#handlers.get(req.params.name)?.(req, res))
    app.use((error: unknown, req: Request, res: Response, _next: (error?: unknown) => void) => {
      rig.#errors.set(req.path.slice(1), error)
      res.status((error as Partial<SessionError>).status ?? 500).end('failed')
    })
    const server = await listen(app)
    closers.push(() => server.close())
    rig.#url = server.url
    rig.client = rig.stranger()
    return rig
  }

  /**
   * Sends one request, runs `handler` in it, and resolves to what the handler returned when the answer has arrived.
   * Rejects with what reached the error handler, from the handler or from the commit.
   */
  async ask<T>(handler: Handler<T>, client = this.client): Promise<T> {
    const name = String(this.#handlers.size)
    let result: T | undefined
    this.#handlers.set(name, async (req, res) => {
      result = await handler(req.session as unknown as Bag, req.session, req, res)
      if (!res.headersSent && !res.writableEnded) res.end('done')
    })
    this.answer = await client.get(`/${name}`)
    if (this.#errors.has(name)) throw this.#errors.get(name)
    return result as T
  }

  /** The stored fields of the client's session, decoded; `null` when there is none. */
  async stored(): Promise<Record<string, unknown> | null> {
    const [id = ''] = decodeURIComponent(this.client.cookies.get('sid') ?? '').split('.')
    return fieldsOf(this.memory, id.replace(/^s:/, ''))
  }

  /** How the session of this ID has ended. */
  ended(id: string): Promise<SessionEnd | null> {
    return endOf(this.memory, id)
  }

  /** A client without cookies. */
  stranger(): Client {
    return new Client(this.#url)
  }

  heard<Name extends SessionEventName>(name: Name): SessionEvent<Name>[] {
    const events: SessionEvent<Name>[] = []
    this.middleware.events.on(name, (event) => {
      events.push(event)
    })
    return events
  }
}

/** The error that `act` throws or rejects with; fails when it does not. */
function errorOf(act: () => unknown): SessionError {
  try {
    act()
  } catch (error) {
    if (isSessionError(error)) return error
    throw error
  }
  throw new Error('Nothing was thrown.')
}

describe('properties and accessors are one thing', () => {
  test('what one writes the other reads, in the same and in the next request', async () => {
    const rig = await Rig.start()
    await rig.ask((fields, session) => {
      fields['a'] = 1
      expect(session.get('a')).toBe(1)
      session.set('b', { c: 2 })
      expect(fields['b']).toEqual({ c: 2 })
      expect(fields['b']).toBe(session.get('b'))
    })
    await rig.ask((fields, session) => {
      expect(session.get('a')).toBe(1)
      expect(fields['b']).toBe(session.get('b'))
      delete fields['a']
      expect(session.has('a')).toBe(false)
      expect(session.delete('b')).toBe(true)
      expect(fields['b']).toBeUndefined()
    })
    expect(await rig.stored()).toEqual({})
  })

  test('get has a default for what is absent only, and does not store it', async () => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => {
      session.set('nothing', null).set('zero', 0).set('empty', '').set('no', false)
    })
    await rig.ask((_fields, session) => {
      expect(session.get('absent')).toBeUndefined()
      expect(session.get('absent', 'default')).toBe('default')
      expect(session.get('nothing', 'default')).toBeNull()
      expect(session.get('zero', 1)).toBe(0)
      expect(session.get('empty', 'default')).toBe('')
      expect(session.get('no', true)).toBe(false)
      expect(session.has('absent')).toBe(false)
    })
    expect(rig.store.calls.update).toBe(0)
  })

  test('set returns the session, delete whether there was a field', async () => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => {
      expect(session.set('a', 1)).toBe(session)
      expect(session.delete('a')).toBe(true)
      expect(session.delete('a')).toBe(false)
    })
    expect(rig.store.writes).toBe(0)
  })

  test('in, Object.keys, for…in, spread, entries and JSON see the fields and nothing else', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => {
      fields['a'] = 1
      fields['b'] = [2]
    })
    await rig.ask((fields, session) => {
      fields['c'] = null
      delete fields['a']
      const all = { b: [2], c: null }
      expect(Object.keys(session)).toEqual(['b', 'c'])
      expect(session.keys()).toEqual(['b', 'c'])
      expect(session.values()).toEqual([[2], null])
      expect(session.entries()).toEqual([
        ['b', [2]],
        ['c', null],
      ])
      expect(Object.entries(session)).toEqual(session.entries())
      expect(Reflect.ownKeys(session)).toEqual(['b', 'c'])
      const seen: string[] = []
      for (const name in session) seen.push(name)
      expect(seen).toEqual(['b', 'c'])
      expect({ ...session }).toEqual(all)
      expect(JSON.stringify(session)).toBe(JSON.stringify(all))
      expect('b' in session).toBe(true)
      expect('a' in session).toBe(false)
      expect('get' in session).toBe(false)
      expect('id' in session).toBe(false)
      expect('toString' in session).toBe(false)
      expect(Object.hasOwn(session, 'b')).toBe(true)
      expect(Object.assign({}, session)).toEqual(all)
      expect(structuredClone({ ...session })).toEqual(all)
    })
  })

  test('clear removes every field and ends nothing', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      fields['b'] = 2
      await session.login('ann')
    })
    const id = await rig.ask((fields, session) => {
      fields['c'] = 3
      session.clear()
      expect(session.keys()).toEqual([])
      expect(fields['a']).toBeUndefined()
      return session.id
    })
    expect(await rig.stored()).toEqual({})
    await rig.ask((_fields, session) => {
      expect(session.id).toBe(id)
      expect(session.metadata.userId).toBe('ann')
    })
  })

  test('undefined deletes, by property, set and update', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { a: 1, b: 1, c: 1, d: 1 }))
    await rig.ask(async (fields, session) => {
      fields['a'] = undefined
      session.set('b', undefined)
      expect(await session.update('c', () => undefined)).toBeUndefined()
      expect(session.keys()).toEqual(['d'])
    })
    expect(await rig.stored()).toEqual({ d: 1 })
  })

  test('awaiting or printing a session does no harm', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['secret'] = 'hidden'
      expect(await Promise.resolve(session)).toBe(session)
      expect(Object.prototype.toString.call(session)).toBe('[object Object]')
      const { inspect } = await import('node:util')
      expect(inspect(session)).toBe(`Session ${session.id} { secret }`)
    })
  })
})

describe('changes', () => {
  const start = { n: 1, list: [3, 1, 2], deep: { a: { b: [1], c: 1 } }, other: 'x' }
  const cases: [kind: string, change: (fields: Bag) => void, field: string, after: unknown][] = [
    ['push', ({ list }) => list.push(4), 'list', [3, 1, 2, 4]],
    ['sort in place', ({ list }) => list.sort((a, b) => a - b), 'list', [1, 2, 3]],
    ['assignment by index', ({ list }) => (list[0] = 9), 'list', [9, 1, 2]],
    ['length', ({ list }) => (list.length = 1), 'list', [3]],
    ['deep push', ({ deep }) => deep.a.b.push(2), 'deep', { a: { b: [1, 2], c: 1 } }],
    ['deep assignment', ({ deep }) => (deep.a = { b: [] }), 'deep', { a: { b: [] } }],
    ['delete inside', ({ deep }) => delete deep.a.c, 'deep', { a: { b: [1] } }],
    [
      'defineProperty inside',
      ({ deep }) => Object.defineProperty(deep.a, 'c', { value: 2 }),
      'deep',
      { a: { b: [1], c: 2 } },
    ],
    ['Object.assign', (fields) => Object.assign(fields, { n: 2 }), 'n', 2],
    ['defineProperty', (fields) => Object.defineProperty(fields, 'n', { value: 5 }), 'n', 5],
    ['increment', (fields) => fields.n++, 'n', 2],
    ['??=', (fields) => (fields['fresh'] ??= []), 'fresh', []],
  ]

  test.each(cases)('%s is noticed, and only that field is written', async (_kind, change, field, after) => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, start))
    await rig.ask((fields, session) => {
      change(fields)
      expect(session.isModified).toBe(true)
    })
    expect(await rig.stored()).toEqual({ ...start, [field]: after })
    expect(rig.store.changes).toHaveLength(1)
    expect([...(rig.store.changes[0]?.set?.keys() ?? [])]).toEqual([field])
    expect(rig.store.changes[0]?.delete ?? []).toEqual([])
  })

  test('a deleted field is written as deleted, and nothing else', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, start))
    await rig.ask((fields) => delete fields['other'])
    expect(rig.store.changes.map(({ set, delete: removed }) => [set?.size ?? 0, removed])).toEqual([[0, ['other']]])
  })

  test('an object held from a first read is the field, also after more reads and a save', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, start))
    await rig.ask(async (fields, session) => {
      const { list } = fields
      await session.save()
      list.push(4)
      await session.save()
      list.push(5)
      expect(session.get('list')).toBe(list)
    })
    expect(await rig.stored()).toEqual({ ...start, list: [3, 1, 2, 4, 5] })
  })

  test('an object altered after it was set is stored as it is at the end', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => {
      const list = [1]
      fields.list = list
      list.push(2)
    })
    expect(await rig.stored()).toEqual({ list: [1, 2] })
  })

  test('a rich value changes through a codec of the application', async () => {
    const plain = jsonCodec()
    const codec: SessionCodec = {
      encode: (value, path) => plain.encode(value instanceof Map ? { $map: [...value] } : value, path),
      decode(text) {
        const value = plain.decode(text) as { $map?: [string, number][] }
        return value.$map ? new Map(value.$map) : value
      },
    }
    const rig = await Rig.start({ codec })
    await rig.ask((fields) => {
      fields.map = new Map([['a', 1]])
    })
    await rig.ask((fields, session) => {
      expect(fields.map).toEqual(new Map([['a', 1]]))
      expect(session.isModified).toBe(false)
      fields.map.set('b', 2)
      expect(session.isModified).toBe(true)
    })
    await rig.ask((fields) =>
      expect([...fields.map]).toEqual([
        ['a', 1],
        ['b', 2],
      ]),
    )
    expect(rig.store.calls.update).toBe(1)
  })

  test('reading everything, setting the same again and changing back write nothing', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, start))
    const before = rig.store.writes
    await rig.ask((fields, session) => {
      JSON.stringify(session)
      fields.deep = { a: { b: [1], c: 1 } }
      fields.list.push(4)
      fields.list.pop()
      fields['fresh'] = 1
      delete fields['fresh']
      session.delete('absent')
      expect(session.isModified).toBe(false)
    })
    await rig.ask((_fields, session) => session.save())
    await rig.ask(() => {})
    expect(rig.store.writes).toBe(before)
    expect(rig.answer?.setCookies).toEqual([])
  })

  test('an empty new session is never stored', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      expect(session.get('a', 1)).toBe(1)
      fields['a'] = 1
      delete fields['a']
      await session.save()
      await session.touch()
      await session.reload()
      await session.setExpiry('1h')
      await session.renew()
    })
    expect(rig.store.totalCalls).toBe(0)
    expect(rig.answer?.setCookies).toEqual([])
  })
})

describe('you pay for what you touch', () => {
  test('one field of a big session decodes that one, and a change encodes that one', async () => {
    const plain = jsonCodec()
    const log: string[] = []
    const codec: SessionCodec = {
      isDeterministic: true,
      encode(value, path) {
        log.push(`encode ${path}`)
        return plain.encode(value, path)
      },
      decode(text) {
        log.push(`decode ${text.slice(0, 10)}`)
        return plain.decode(text)
      },
    }
    const rig = await Rig.start({ codec })
    await rig.ask((fields) => {
      for (let index = 0; index < 200; index++) fields[`big${index}`] = ['x'.repeat(500)]
      fields['small'] = { a: 1 }
      fields['text'] = 't'
    })

    log.length = 0
    await rig.ask(() => {})
    expect(log).toEqual([])

    await rig.ask((_fields, session) => {
      expect(session.keys()).toHaveLength(202)
      expect(session.has('big7')).toBe(true)
      expect('big8' in session).toBe(true)
      expect(session.isModified).toBe(false)
    })
    expect(log).toEqual([])

    await rig.ask((fields) => void (fields['small'] as object))
    expect(log).toEqual(['decode {"a":1}', 'encode small'])

    // What cannot be altered in place is not compared either.
    log.length = 0
    await rig.ask((fields) => expect(fields['text']).toBe('t'))
    expect(log).toEqual(['decode "t"'])

    log.length = 0
    await rig.ask((fields, session) => {
      fields['flag'] = true
      session.delete('big0')
    })
    expect(new Set(log)).toEqual(new Set(['encode flag']))
  })
})

describe('names', () => {
  const MEMBERS = (
    'get set delete has clear keys values entries update typed ' +
    'id createdAt expiresAt isNew isModified metadata cookie ' +
    'save reload touch renew regenerate destroy setExpiry login reauthenticate logout logicalId restart completeWorkflow'
  ).split(' ')
  /** What applications and libraries put in sessions today. */
  const FREE = (
    'user userId username passport flash csrfToken returnTo cart token state nonce ' + 'roles locale messages views'
  ).split(' ')
  const HOSTILE = (
    'constructor toString hasOwnProperty valueOf isPrototypeOf toJSON then length prototype __proto__ __defineGetter__ ' +
    '0 -1 a.b a:b \u0000 ключ 鍵 🔑 e\u0301 \u00e9'
  )
    .split(' ')
    .concat('', ' ')

  test('every member is named here', async () => {
    const rig = await Rig.start()
    const names = await rig.ask((_fields, session) => Object.getOwnPropertyNames(Object.getPrototypeOf(session)))
    expect(new Set(names)).toEqual(new Set([...MEMBERS, 'constructor']))
  })

  test.each(MEMBERS)('%s is no field name by property, and one by set()', async (name) => {
    const rig = await Rig.start()
    await rig.ask((fields, session) => {
      const member = typeof fields[name]
      for (const use of [
        () => (fields[name] = 1),
        () => delete fields[name],
        () => Object.defineProperty(fields, name, { value: 1 }),
        () => Object.assign(fields, { [name]: 1 }),
      ]) {
        const error = errorOf(use)
        expect(error.code).toBe('INVALID_FIELD')
        expect(error.message).toContain(`session.set('${name}', value)`)
      }
      session.set(name, { of: name })
      expect(session.get(name)).toEqual({ of: name })
      expect(typeof fields[name]).toBe(member)
    })
    await rig.ask((fields, session) => {
      expect(session.get(name)).toEqual({ of: name })
      expect(session.has(name)).toBe(true)
      expect(name in session).toBe(true)
      expect(session.keys()).toEqual([name])
      expect(fields[name]).not.toEqual({ of: name })
      expect(session.delete(name)).toBe(true)
    })
    expect(await rig.stored()).toEqual({})
  })

  test('the names that are in use today work by property', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => {
      for (const name of FREE) fields[name] = { of: name }
    })
    await rig.ask((fields, session) => {
      for (const name of FREE) {
        expect(fields[name]).toEqual({ of: name })
        expect(session.get(name)).toBe(fields[name])
      }
      delete fields['passport']
    })
    expect(Object.keys((await rig.stored()) ?? {})).toEqual(FREE.filter((name) => name !== 'passport'))
  })

  test('names that are special to JavaScript come back and pollute nothing', async () => {
    const rig = await Rig.start()
    const prototype = await rig.ask((_fields, session) => Object.getPrototypeOf(session) as object)
    await rig.ask((_fields, session) => {
      for (const name of HOSTILE) {
        expect(session.has(name)).toBe(false)
        expect(session.get(name)).toBeUndefined()
        session.set(name, { polluted: name })
        expect(session.get(name)).toEqual({ polluted: name })
      }
    })
    await rig.ask((fields, session) => {
      for (const name of HOSTILE) {
        expect(session.get(name)).toEqual({ polluted: name })
        expect(session.has(name)).toBe(true)
      }
      expect(new Set(session.keys())).toEqual(new Set(HOSTILE))
      expect(new Set(Object.keys(session))).toEqual(new Set(HOSTILE))
      expect(new Set(Object.keys({ ...session }))).toEqual(new Set(HOSTILE))
      expect(Object.keys(JSON.parse(JSON.stringify({ ...session, toJSON: 0 })) as object)).toContain('__proto__')
      expect(fields['polluted']).toBeUndefined()
      expect(({} as Bag)['polluted']).toBeUndefined()
      expect(Object.getPrototypeOf(session)).toBe(prototype)
      for (const name of HOSTILE) expect(session.delete(name)).toBe(true)
    })
    expect(await rig.stored()).toEqual({})
  })

  test('assigning __proto__ by property is refused', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => {
      const error = errorOf(() => {
        // biome-ignore lint/suspicious/noProto: what an attacker would have the application do
        fields['__proto__'] = { admin: true }
      })
      expect(error.code).toBe('INVALID_FIELD')
      expect(fields['admin']).toBeUndefined()
    })
    expect(rig.store.totalCalls).toBe(0)
  })

  test('a field with hostile keys inside comes back as it was', async () => {
    const text = '{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}},"toString":1,"":2}'
    const rig = await Rig.start()
    await rig.ask((_fields, session) => session.set('deep', JSON.parse(text)))
    await rig.ask((_fields, session) => {
      expect(JSON.stringify(session.get('deep'))).toBe(text)
      expect(({} as Bag)['admin']).toBeUndefined()
    })
  })

  test('a lone surrogate, a symbol, a getter and freezing are refused', async () => {
    const rig = await Rig.start()
    await rig.ask((fields, session) => {
      const refused: (() => unknown)[] = [
        () => session.set('a\uD800', 1),
        () => Reflect.set(fields, Symbol('s'), 1),
        () => Reflect.deleteProperty(fields, Symbol('s')),
        () => Object.defineProperty(fields, Symbol('s'), { value: 1 }),
        () => Object.defineProperty(fields, 'lazy', { get: () => 1 }),
        () => Object.freeze(session),
        () => Object.seal(session),
        () => Object.preventExtensions(session),
        () => Object.setPrototypeOf(session, null),
      ]
      for (const act of refused) expect(errorOf(act).code).toBe('INVALID_FIELD')
      expect(session.keys()).toEqual([])
      expect(Reflect.get(fields, Symbol('s'))).toBeUndefined()
    })
    expect(rig.store.totalCalls).toBe(0)
  })
})

describe('facts', () => {
  test('isNew and isModified tell the truth', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      expect([session.isNew, session.isModified]).toEqual([true, false])
      fields['a'] = { b: 1 }
      expect([session.isNew, session.isModified]).toEqual([true, true])
      await session.save()
      expect([session.isNew, session.isModified]).toEqual([true, false])
    })
    await rig.ask((fields, session) => {
      expect([session.isNew, session.isModified]).toEqual([false, false])
      const a = fields['a'] as { b: number }
      expect(session.isModified).toBe(false)
      a.b = 2
      expect(session.isModified).toBe(true)
      a.b = 1
      expect(session.isModified).toBe(false)
    })
  })

  test('the ID is a UUID, stays, and is not the token', async () => {
    const rig = await Rig.start()
    const first = await rig.ask((fields, session) => {
      fields['a'] = 1
      return session.id
    })
    expect(first).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(await rig.ask((_fields, session) => session.id)).toBe(first)
    expect(await rig.ask((_fields, session) => session.id, rig.stranger())).not.toBe(first)
  })

  test('times are those of the record', async () => {
    const rig = await Rig.start({ idleTimeout: '10m', absoluteTimeout: '1h', touchInterval: '1m' })
    const start = rig.clock.now()
    await rig.ask(async (fields, session) => {
      expect(session.createdAt).toEqual(new Date(start))
      expect(session.expiresAt).toEqual(new Date(start + 600_000))
      fields['a'] = 1
      await session.login(7)
    })
    rig.clock.advance(120_000)
    await rig.ask((fields) => {
      fields['a'] = 2
    })
    rig.clock.advance(30_000)
    await rig.ask((_fields, session) => {
      expect(session.metadata).toEqual({
        userId: 7,
        context: { ip: '127.0.0.1' },
        previousEnd: undefined,
        authenticatedAt: new Date(start),
        authentication: { methods: [], level: 1, at: new Date(start) },
        createdAt: new Date(start),
        updatedAt: new Date(start + 120_000),
        lastAccessedAt: new Date(start + 120_000),
        expiresAt: new Date(start + 720_000),
        absoluteExpiresAt: new Date(start + 3_600_000),
      })
      expect(session.createdAt).toEqual(new Date(start))
      expect(session.expiresAt).toEqual(new Date(start + 720_000))
      expect(Object.isFrozen(session.metadata)).toBe(true)
    })
  })

  test('facts cannot be assigned', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => {
      for (const name of ['id', 'createdAt', 'isNew', 'metadata']) {
        expect(errorOf(() => (fields[name] = 'x')).code).toBe('INVALID_FIELD')
      }
    })
  })
})

describe('save, reload, touch', () => {
  test('save stores at once, once, and only when something changed', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.save()
      expect(rig.store.calls.create).toBe(1)
      await session.save()
    })
    expect(rig.store.writes).toBe(1)
    await rig.ask(async (fields, session) => {
      fields['a'] = 2
      await session.save()
      expect(await rig.stored()).toEqual({ a: 2 })
      await session.save()
      fields['b'] = 3
    })
    expect(rig.store.changes.map(({ set }) => [...(set?.keys() ?? [])])).toEqual([['a'], ['b']])
  })

  test('reload forgets local changes and reads what others stored', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { a: 1, list: [1] }))
    await rig.ask(async (fields, session) => {
      fields['a'] = 'local'
      fields.list.push(2)
      fields['fresh'] = true
      await rig.ask((others) => (others['b'] = 2), rig.client.clone())
      await session.reload()
      expect({ ...session }).toEqual({ a: 1, list: [1], b: 2 })
      expect(session.isModified).toBe(false)
    })
    expect(await rig.stored()).toEqual({ a: 1, list: [1], b: 2 })
  })

  test('reload of a new session empties it', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.reload()
      expect(session.keys()).toEqual([])
    })
    expect(rig.store.totalCalls).toBe(0)
  })

  test('reload of a session that ended in the meantime is an error', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    await rig.ask(async (fields, session) => {
      await rig.ask((_others, other) => other.destroy(), rig.client.clone())
      await expect(session.reload()).rejects.toMatchObject({ code: 'SESSION_ENDED', status: 409 })
      expect(fields['a']).toBe(1)
      expect(errorOf(() => (fields['a'] = 2)).code).toBe('SESSION_ENDED')
    })
  })

  test('a forced touch moves the idle timeout at once and writes no field', async () => {
    const rig = await Rig.start({ idleTimeout: '10m', touchInterval: '5m' })
    await rig.ask((fields) => (fields['a'] = 1))
    rig.clock.advance(60_000)
    await rig.ask(async (_fields, session) => {
      await session.touch({ force: true })
      expect(session.expiresAt).toEqual(new Date(rig.clock.now() + 600_000))
    })
    expect([rig.store.calls.touch, rig.store.calls.update]).toEqual([1, 0])
  })

  test('touch for each packet of a socket writes once in touchInterval', async () => {
    const rig = await Rig.start({ idleTimeout: '10m', touchInterval: '1m' })
    await rig.ask((fields) => (fields['a'] = 1))
    await rig.ask(async (_fields, session) => {
      for (let second = 0; second < 180; second++) {
        rig.clock.advance(1_000)
        await session.touch()
        expect(session.expiresAt.getTime()).toBeGreaterThan(rig.clock.now() + 540_000)
      }
      expect(rig.store.calls.touch).toBe(3)
      await Promise.all([session.touch(), session.touch(), session.touch()])
      expect(rig.store.calls.touch).toBe(3)
      await session.touch({ force: true })
      expect(rig.store.calls.touch).toBe(4)
    })
    expect(rig.store.calls.update).toBe(0)
  })

  test('a save that is not awaited is waited for before the response', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    rig.store.fail({ kind: 'delay', operations: ['update'] })
    let isAnswered = false
    const answered = rig
      .ask((fields, session, _req, res) => {
        fields['a'] = 2
        void session.save()
        res.end('done')
      })
      .then(() => {
        isAnswered = true
      })
    await until(() => rig.store.heldCalls === 1)
    await new Promise((resolve) => setImmediate(resolve))
    expect(isAnswered).toBe(false)
    rig.store.release()
    await answered
    expect(await rig.stored()).toEqual({ a: 2 })
    expect(rig.store.calls.update).toBe(1)
  })

  test('a save that is not awaited and fails fails the response', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    rig.heard('storeError')
    rig.store.fail({ kind: 'error', operations: ['update'] })
    await expect(
      rig.ask((fields, session) => {
        fields['a'] = 2
        void session.save()
      }),
    ).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    expect(rig.answer?.status).toBe(503)
    expect(await rig.stored()).toEqual({ a: 1 })
  })
})

describe('callbacks', () => {
  const OPERATIONS = ['save', 'reload', 'touch', 'regenerate', 'destroy'] as const

  /** Calls with a callback and resolves to what it was called with, having left time for a second call. */
  async function called(session: Session, operation: (typeof OPERATIONS)[number]): Promise<unknown[][]> {
    const calls: unknown[][] = []
    const returned: unknown = session[operation]((...args: unknown[]) => {
      calls.push(args)
    })
    expect(returned).toBeUndefined()
    expect(calls).toEqual([])
    await until(() => calls.length > 0)
    await new Promise((resolve) => setImmediate(resolve))
    return calls
  }

  test.each(OPERATIONS)('%s calls back once, later, without an error', async (operation) => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    await rig.ask(async (_fields, session) => {
      expect(await called(session, operation)).toEqual([[]])
    })
  })

  test.each(OPERATIONS)('%s hands its error to the callback, and to nobody else', async (operation) => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    rig.heard('storeError')
    const unhandled: unknown[] = []
    const note = (reason: unknown): void => void unhandled.push(reason)
    process.on('unhandledRejection', note)
    try {
      await rig.ask(async (fields, session) => {
        fields['a'] = 2
        rig.clock.advance(120_000)
        rig.store.fail({ kind: 'error' })
        expect(await called(session, operation)).toEqual([[expect.objectContaining({ code: 'STORE_UNAVAILABLE' })]])
        rig.store.repair()
      })
      await new Promise((resolve) => setImmediate(resolve))
      expect(unhandled).toEqual([])
    } finally {
      process.off('unhandledRejection', note)
    }
  })

  test('the callback of regenerate finds the new session in req.session, as Passport expects', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    await rig.ask(
      (_fields, old, req) =>
        new Promise<void>((resolve, reject) => {
          old.regenerate((error) => {
            if (error) return reject(error as Error)
            req.session.set('passport', { user: 1 })
            req.session.save((failure) => (failure ? reject(failure as Error) : resolve()))
          })
        }),
    )
    expect(await rig.stored()).toEqual({ passport: { user: 1 } })
  })
})

describe('update', () => {
  const increment = (value: unknown): number => ((value as number | undefined) ?? 0) + 1

  test('100 parallel increments of one session make 100', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 1))
    const results = await Promise.all(
      Array.from({ length: 100 }, () =>
        rig.ask((_fields, session) => session.update('n', increment), rig.client.clone()),
      ),
    )
    expect(results.sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1))
    expect(await rig.stored()).toEqual({ a: 1, n: 100 })
  })

  test('is stored when the promise resolves, and the commit writes it no second time', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.n = 5))
    await rig.ask(async (fields, session) => {
      expect(await session.update('n', increment)).toBe(6)
      expect(fields.n).toBe(6)
      expect(session.isModified).toBe(false)
      expect(await rig.stored()).toEqual({ n: 6 })
    })
    expect(rig.store.calls.update).toBe(1)
  })

  test('calls modify again with what another request wrote', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.list = [1]))
    const seen: number[][] = []
    await rig.ask(async (fields, session) => {
      const result = await session.update('list', async (value) => {
        const list = value as number[]
        seen.push([...list])
        if (seen.length === 1) await rig.ask((others) => others.list.push(2), rig.client.clone())
        list.push(9)
        return list
      })
      expect(result).toEqual([1, 2, 9])
      expect(fields.list).toEqual([1, 2, 9])
    })
    expect(seen).toEqual([[1], [1, 2]])
    expect(await rig.stored()).toEqual({ list: [1, 2, 9] })
  })

  test('calls modify again when another request removed the field', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { n: 5, a: 1 }))
    const seen: unknown[] = []
    await rig.ask((_fields, session) =>
      session.update('n', async (value) => {
        seen.push(value)
        if (seen.length === 1) await rig.ask((_others, other) => other.delete('n'), rig.client.clone())
        return increment(value)
      }),
    )
    expect(seen).toEqual([5, undefined])
    expect(await rig.stored()).toEqual({ a: 1, n: 1 })
  })

  test('works on a new session, which the response then stores', async () => {
    const rig = await Rig.start()
    expect(await rig.ask((_fields, session) => session.update('n', increment))).toBe(1)
    expect(await rig.stored()).toEqual({ n: 1 })
    expect(rig.store.writes).toBe(1)
  })

  test('begins from a local change of the field', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.n = 1))
    await rig.ask(async (fields, session) => {
      fields.n = 10
      expect(await session.update('n', increment)).toBe(11)
    })
    expect(await rig.stored()).toEqual({ n: 11 })
  })

  test('leaves other local changes to the commit', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.n = 1))
    await rig.ask(async (fields, session) => {
      fields['a'] = 'local'
      await session.update('n', increment)
      expect(await rig.stored()).toEqual({ n: 2 })
    })
    expect(await rig.stored()).toEqual({ n: 2, a: 'local' })
  })

  test('several that are not awaited run one after the other, and the response waits for them', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.n = 0))
    await rig.ask((_fields, session) => {
      for (let count = 0; count < 20; count++) void session.update('n', async (n) => increment(n))
    })
    expect(await rig.stored()).toEqual({ n: 20 })
  })

  test('deletes with undefined, and may find nothing to delete', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { n: 1, a: 1 }))
    await rig.ask(async (_fields, session) => {
      await session.update('n', () => undefined)
      await session.update('absent', () => undefined)
    })
    expect(await rig.stored()).toEqual({ a: 1 })
  })

  test('that fails leaves the field as it was, also at the commit', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { n: 1, list: [1] }))
    rig.heard('storeError')
    await rig.ask(async (fields, session) => {
      const failing = session.update('list', (value) => {
        ;(value as number[]).push(2)
        throw new Error('changed my mind')
      })
      await expect(failing).rejects.toThrow('changed my mind')
      await expect(session.update('n', () => 1n)).rejects.toMatchObject({ code: 'INVALID_VALUE' })
      rig.store.fail({ kind: 'error', operations: ['update'], times: 1 })
      await expect(session.update('n', increment)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
      // Another request counts; what failed here must not overwrite it.
      await rig.ask((_others, other) => other.update('n', () => 50), rig.client.clone())
      expect(session.isModified).toBe(false)
      expect(fields.list).toEqual([1])
    })
    expect(await rig.stored()).toEqual({ n: 50, list: [1] })
  })

  test('keeps to the limits of the session', async () => {
    const rig = await Rig.start({ limits: { maxBytes: 1_000 } })
    await rig.ask((fields) => (fields['a'] = 'x'.repeat(600)))
    await rig.ask(async (_fields, session) => {
      const update = session.update('b', () => 'y'.repeat(600))
      await expect(update).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE' })
    })
    expect(await rig.ask((_fields, session) => session.keys())).toEqual(['a'])
  })

  test('of a session that ended in the meantime is an error and brings nothing back', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.n = 1))
    const late = rig.heard('lateWrite')
    const id = await rig.ask(async (_fields, session) => {
      await rig.ask((_others, other) => other.destroy(), rig.client.clone())
      await expect(session.update('n', increment)).rejects.toMatchObject({ code: 'SESSION_ENDED' })
      return session.id
    })
    expect(late).toEqual([{ at: rig.clock.now(), id, userId: undefined }])
    expect(await rig.ended(id)).toMatchObject({ reason: 'destroyed' })
  })
})

describe('the end of a session', () => {
  test.each([
    ['destroy', 'end', (session: Session) => session.destroy()],
    ['logout', 'end', (session: Session) => session.logout()],
    ['login', 'regenerate', (session: Session) => session.login('ann')],
    ['renew', 'update', (session: Session) => session.renew()],
  ] as const)('a %s that nobody waited for and that fails is no success', async (_name, operation, act) => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => void session.set('n', 1))
    rig.store.fail({ kind: 'error', operations: [operation] })
    const failing = rig.ask((_fields, session) => {
      // The handler's mistake; without the catch it would end the process as well.
      act(session).catch(() => {})
    })
    await expect(failing).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    expect(rig.answer?.status).toBe(503)
  })

  test('destroy ends it, and writing to it afterwards is an error', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => Object.assign(fields, { a: 1, list: [1] }))
    const id = await rig.ask(async (fields, session) => {
      await session.destroy()
      expect(await rig.ended(session.id)).toEqual({ reason: 'destroyed', at: rig.clock.now() })
      expect(fields['a']).toBe(1)
      for (const act of [
        () => (fields['a'] = 2),
        () => session.set('b', 1),
        () => delete fields['a'],
        () => session.delete('absent'),
        () => session.clear(),
      ]) {
        expect(errorOf(act).code).toBe('SESSION_ENDED')
      }
      for (const act of [
        () => session.save(),
        () => session.reload(),
        () => session.touch(),
        () => session.renew(),
        () => session.login('ann'),
        () => session.reauthenticate(),
        () => session.setExpiry('1h'),
        () => session.update('n', () => 1),
        () => session.regenerate({ keep: true }),
      ]) {
        await expect(act()).rejects.toMatchObject({ code: 'SESSION_ENDED' })
      }
      // Ending it again is none.
      await session.destroy()
      await session.logout()
      return session.id
    })
    expect(await rig.ended(id)).toMatchObject({ reason: 'destroyed' })
    expect(rig.memory.size).toBe(1)
    expect(rig.client.cookies.size).toBe(0)
    expect(rig.store.calls.end).toBe(1)
  })

  test('a nested change after destroy is not stored', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields.list = [1]))
    const id = await rig.ask(async (fields, session) => {
      const { list } = fields
      await session.destroy()
      list.push(2)
      return session.id
    })
    expect(await rig.ended(id)).toMatchObject({ reason: 'destroyed' })
  })

  test('destroy of a new session costs no store call and stores nothing', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.destroy()
    })
    expect(rig.store.totalCalls).toBe(0)
    expect(rig.answer?.setCookies).toEqual([])
  })

  test('destroy while the store cannot be reached is no success', async () => {
    const rig = await Rig.start({ onStoreError: 'anonymous' })
    await rig.ask((fields) => (fields['a'] = 1))
    rig.heard('storeError')
    rig.store.fail({ kind: 'error' })
    await rig.ask(async (_fields, session) => {
      await expect(session.destroy()).rejects.toMatchObject({ code: 'SESSION_READ_ONLY' })
      await expect(session.logout()).rejects.toMatchObject({ code: 'SESSION_READ_ONLY' })
    })
    expect(rig.answer?.setCookies).toEqual([])
    expect(rig.memory.size).toBe(1)
  })
})

describe('regenerate', () => {
  test('puts a new, empty session in req.session; the old object can be read and refuses writes', async () => {
    const rig = await Rig.start()
    const oldId = await rig.ask(async (fields, session) => {
      Object.assign(fields, { a: 1 })
      await session.login('ann')
      return session.id
    })
    const stale = rig.client.clone()
    const newId = await rig.ask(async (fields, old, req) => {
      const fresh = await old.regenerate()
      expect(req.session).toBe(fresh)
      expect(fresh).not.toBe(old)
      expect(fresh.id).not.toBe(oldId)
      expect(fresh.keys()).toEqual([])
      expect(fresh.metadata.userId).toBeUndefined()
      expect(fields['a']).toBe(1)
      const error = errorOf(() => (fields['a'] = 2))
      expect(error.code).toBe('SESSION_ENDED')
      expect(error.message).toContain('req.session')
      await expect(old.save()).rejects.toMatchObject({ code: 'SESSION_ENDED' })
      fresh.set('b', 2)
      return fresh.id
    })
    expect(await rig.ask((_fields, session) => [session.id, { ...session }])).toEqual([newId, { b: 2 }])
    expect(await rig.ask((_fields, session) => [session.isNew, session.keys()], stale)).toEqual([true, []])
    expect(await rig.ended(oldId)).toMatchObject({ reason: 'regenerated', successor: newId })
    expect(rig.memory.size).toBe(2)
  })

  test('keep: true goes on with this object, its fields and its user', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.login('ann')
    })
    const stale = rig.client.clone()
    await rig.ask(async (fields, session, req) => {
      const before = session.id
      fields['b'] = 2
      expect(await session.regenerate({ keep: true })).toBe(session)
      expect(req.session).toBe(session)
      expect(session.id).not.toBe(before)
      fields['c'] = 3
    })
    await rig.ask((_fields, session) => {
      expect({ ...session }).toEqual({ a: 1, b: 2, c: 3 })
      expect(session.metadata.userId).toBe('ann')
    })
    expect(await rig.ask((_fields, session) => session.keys(), stale)).toEqual([])
  })

  test('keep with names takes those fields along, and not the user', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session) => {
      Object.assign(fields, { a: 1, b: 2, c: 3 })
      await session.login('ann')
    })
    await rig.ask(async (fields, session) => {
      fields['d'] = 4
      fields['a'] = 10
      await session.regenerate({ keep: ['a', 'b', 'd', 'absent'] })
      expect({ ...session }).toEqual({ a: 10, b: 2, d: 4 })
    })
    await rig.ask((_fields, session) => {
      expect({ ...session }).toEqual({ a: 10, b: 2, d: 4 })
      expect(session.metadata.userId).toBeUndefined()
    })
  })

  test('of a new session costs no store call', async () => {
    const rig = await Rig.start()
    await rig.ask(async (fields, session, req) => {
      Object.assign(fields, { a: 1, b: 2 })
      await session.regenerate({ keep: ['b'] })
      expect({ ...session }).toEqual({ b: 2 })
      await session.regenerate()
      expect(req.session.keys()).toEqual([])
    })
    expect(rig.store.totalCalls).toBe(0)
  })

  test('after destroy starts a new session', async () => {
    const rig = await Rig.start()
    const oldId = await rig.ask((fields, session) => {
      fields['a'] = 1
      return session.id
    })
    await rig.ask(async (_fields, session, req) => {
      await session.destroy()
      await session.regenerate()
      req.session.set('b', 2)
    })
    expect(await rig.ask((_fields, session) => [session.id === oldId, { ...session }])).toEqual([false, { b: 2 }])
  })
})

describe('login and logout', () => {
  test('login keeps the fields, changes ID and token, and the old token is dead at once', async () => {
    const rig = await Rig.start()
    const before = await rig.ask((fields, session) => {
      fields['a'] = 1
      return session.id
    })
    const stale = rig.client.clone()
    const told = rig.heard('login')
    await rig.ask(async (fields, session, req) => {
      fields['b'] = 2
      await session.login('ann')
      expect(req.session).toBe(session)
      expect(session.metadata.userId).toBe('ann')
      expect(await rig.ask((_others, other) => other.keys(), stale)).toEqual([])
      expect(told).toEqual([{ at: rig.clock.now(), id: session.id, previousId: before, userId: 'ann' }])
      expect(await rig.ended(before)).toMatchObject({ reason: 'regenerated', successor: session.id })
    })
    await rig.ask((_fields, session) => {
      expect(session.id).not.toBe(before)
      expect({ ...session }).toEqual({ a: 1, b: 2 })
      expect(session.metadata.userId).toBe('ann')
    })
  })

  test('login of a new session stores it', async () => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => session.login(42))
    expect(await rig.ask((_fields, session) => session.metadata.userId)).toBe(42)
  })

  test('login takes text or a number, and nothing else', async () => {
    const rig = await Rig.start()
    await rig.ask(async (_fields, session) => {
      for (const userId of ['', Number.NaN, Number.POSITIVE_INFINITY, undefined, null, {}, true]) {
        const login = session.login(userId as string)
        await expect(login).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
      }
    })
    expect(rig.store.totalCalls).toBe(0)
  })

  test('a login that failed logs nobody in, whatever the commit stores', async () => {
    const rig = await Rig.start()
    rig.heard('storeError')
    rig.store.fail({ kind: 'error', operations: ['create'], times: 1 })
    await rig.ask(async (fields, session) => {
      await expect(session.login('ann')).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
      fields['tryAgain'] = true
    })
    await rig.ask((_fields, session) => {
      expect({ ...session }).toEqual({ tryAgain: true })
      expect(session.metadata.userId).toBeUndefined()
    })
  })

  test('logout ends the session for good and leaves an empty one', async () => {
    const rig = await Rig.start()
    const oldId = await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.login('ann')
      return session.id
    })
    const stale = rig.client.clone()
    await rig.ask(async (fields, old, req) => {
      await old.logout()
      expect(req.session).not.toBe(old)
      expect(req.session.keys()).toEqual([])
      expect(errorOf(() => (fields['a'] = 2)).code).toBe('SESSION_ENDED')
    })
    expect(await rig.ended(oldId)).toEqual({ reason: 'logout', at: rig.clock.now() })
    expect(rig.memory.size).toBe(1)
    expect(rig.client.cookies.size).toBe(0)
    expect(await rig.ask((_fields, session) => session.id === oldId, stale)).toBe(false)
  })

  test('what is set after logout makes a new session', async () => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => session.login('ann'))
    await rig.ask(async (_fields, session, req) => {
      await session.logout()
      req.session.set('notice', 'Goodbye')
    })
    await rig.ask((_fields, session) => {
      expect({ ...session }).toEqual({ notice: 'Goodbye' })
      expect(session.metadata.userId).toBeUndefined()
    })
  })

  test('logout without a session costs no store call', async () => {
    const rig = await Rig.start()
    await rig.ask((_fields, session) => session.logout())
    expect(rig.store.totalCalls).toBe(0)
    expect(rig.answer?.setCookies).toEqual([])
  })
})

describe('setExpiry', () => {
  test('gives this session its own timeouts', async () => {
    const rig = await Rig.start({ idleTimeout: '10m', absoluteTimeout: '1h' })
    await rig.ask(async (fields, session) => {
      fields['a'] = 1
      await session.setExpiry('30d', { absoluteTimeout: '30d' })
    })
    rig.clock.advance(29 * 86_400_000)
    expect(await rig.ask((_fields, session) => session.get('a'))).toBe(1)
    rig.clock.advance(31 * 86_400_000)
    expect(await rig.ask((_fields, session) => session.get('a'))).toBeUndefined()
  })

  test('may shorten, and is stored at once for a session that is stored', async () => {
    const rig = await Rig.start({ idleTimeout: '10m' })
    await rig.ask((fields) => (fields['a'] = 1))
    await rig.ask(async (_fields, session) => {
      await session.setExpiry(60)
      expect(rig.store.calls.update).toBe(1)
      expect(session.expiresAt).toEqual(new Date(rig.clock.now() + 60_000))
    })
    rig.clock.advance(60_000)
    expect(await rig.ask((_fields, session) => session.get('a'))).toBeUndefined()
  })

  test('rejects what is no duration', async () => {
    const rig = await Rig.start()
    await rig.ask(async (_fields, session) => {
      for (const duration of ['', 'soon', '-1s', 0, -1, Number.NaN, '99999d']) {
        await expect(session.setExpiry(duration)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
      }
    })
  })
})

describe('limits', () => {
  test('of two requests that would merge beyond the limit one is refused, and the other loses nothing', async () => {
    const rig = await Rig.start({ limits: { maxBytes: 1_000 } })
    await rig.ask((_fields, session) => void session.set('first', 1))
    let arrived = 0
    const writing = (name: string) => async (_fields: Bag, session: Session) => {
      // Each writes when the other has loaded the session, too.
      arrived++
      await until(() => arrived === 2)
      session.set(name, 'x'.repeat(600))
    }
    const both = await Promise.allSettled([rig.ask(writing('a')), rig.ask(writing('b'))])
    const [kept, refused] = both[0]?.status === 'fulfilled' ? ['a', both[1]] : ['b', both[0]]
    expect(refused).toMatchObject({ status: 'rejected', reason: { code: 'SESSION_TOO_LARGE' } })
    expect(await rig.ask((fields) => Object.keys(fields).sort())).toEqual([kept, 'first'])
    await rig.ask((_fields, session) => void session.set('c', 1))
    expect(await rig.ask((fields) => Object.keys(fields).sort())).toEqual([kept, 'c', 'first'])
  })

  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  const deep = (levels: number): unknown => (levels === 0 ? 1 : [deep(levels - 1)])
  const refused: [kind: string, value: unknown, path: string][] = [
    ['a BigInt', { list: [{ n: 1n }] }, 'target.list[0].n'],
    ['a function', { run: () => 1 }, 'target.run'],
    ['a cycle', cycle, 'target.self'],
    ['a Map', { deep: new Map() }, 'target.deep'],
    ['NaN', Number.NaN, 'target'],
    ['too much depth', deep(101), 'target'],
  ]

  test.each(refused)('set refuses %s, naming the path, and the old value stays', async (_kind, value, path) => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['target'] = 'old'))
    await rig.ask((fields, session) => {
      for (const act of [() => session.set('target', value), () => (fields['target'] = value)]) {
        const error = errorOf(act)
        expect(error.code).toBe('INVALID_VALUE')
        expect(error.message).toContain(`Field ${path}`)
      }
      expect(fields['target']).toBe('old')
      expect(session.isModified).toBe(false)
    })
    expect(rig.store.calls.update).toBe(0)
  })

  test.each(refused.filter(([, value]) => typeof value === 'object'))(
    'an object altered after set to hold %s fails the commit and leaves the stored state whole',
    async (_kind, value, path) => {
      const rig = await Rig.start()
      await rig.ask((fields) => Object.assign(fields, { target: { a: 1 }, other: 1 }))
      const act = rig.ask((fields, session) => {
        fields['other'] = 2
        Object.assign(fields['target'] as object, { inner: value })
        expect(session.isModified).toBe(true)
      })
      await expect(act).rejects.toMatchObject({
        code: 'INVALID_VALUE',
        message: expect.stringContaining(path.replace('target', 'target.inner')),
      })
      expect(rig.answer?.status).toBe(500)
      expect(rig.answer?.body).toBe('failed')
      expect(rig.store.calls.update).toBe(0)
      expect(await rig.stored()).toEqual({ target: { a: 1 }, other: 1 })
      expect(await rig.ask((fields) => fields['target'])).toEqual({ a: 1 })
    },
  )

  test('a new session that cannot be stored gets no cookie', async () => {
    const rig = await Rig.start()
    const act = rig.ask((fields) => {
      const target: { n?: bigint } = {}
      fields['target'] = target
      target.n = 1n
    })
    await expect(act).rejects.toMatchObject({ code: 'INVALID_VALUE' })
    expect(rig.answer?.setCookies).toEqual([])
    expect(rig.store.totalCalls).toBe(0)
  })

  test('a field beyond maxBytes is refused when it is set', async () => {
    const rig = await Rig.start({ limits: { maxBytes: 1_000 } })
    await rig.ask((fields) => (fields['a'] = 'old'))
    await rig.ask((fields) => {
      const error = errorOf(() => (fields['a'] = 'x'.repeat(1_000)))
      expect(error.code).toBe('SESSION_TOO_LARGE')
      expect(error.message).toMatch(/Field a takes 1003 bytes; the limits are 1000 bytes/)
      expect(fields['a']).toBe('old')
      // Bytes, not characters.
      expect(errorOf(() => (fields['b'] = '鍵'.repeat(400))).code).toBe('SESSION_TOO_LARGE')
    })
    expect(await rig.stored()).toEqual({ a: 'old' })
  })

  test('fields that are too large together fail the commit, and the stored state stays whole', async () => {
    const rig = await Rig.start({ limits: { maxBytes: 1_000 } })
    await rig.ask((fields) => (fields['a'] = 'x'.repeat(600)))
    const act = rig.ask((fields) => (fields['b'] = 'y'.repeat(600)))
    await expect(act).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE', status: 500 })
    expect(await rig.stored()).toEqual({ a: 'x'.repeat(600) })
    await rig.ask((fields) => {
      fields['b'] = 'y'.repeat(600)
      delete fields['a']
    })
    expect(await rig.stored()).toEqual({ b: 'y'.repeat(600) })
  })

  test('maxBytes counts the bytes of names and values exactly', async () => {
    const rig = await Rig.start({ limits: { maxBytes: 100 } })
    await rig.ask((fields) => Object.assign(fields, { a: 'x'.repeat(47), b: `${'鍵'.repeat(15)}yy` }))
    expect(Object.keys((await rig.stored()) ?? {})).toEqual(['a', 'b'])
    const act = rig.ask((fields) => (fields['a'] = 'x'.repeat(48)))
    await expect(act).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE' })
  })

  test('a field beyond maxFields is refused, and an old one can still be set', async () => {
    const rig = await Rig.start({ limits: { maxFields: 3 } })
    await rig.ask((fields) => Object.assign(fields, { a: 1, b: 1 }))
    await rig.ask((fields) => {
      fields['c'] = 1
      expect(errorOf(() => (fields['d'] = 1)).code).toBe('SESSION_TOO_LARGE')
      fields['a'] = 2
      delete fields['b']
      fields['d'] = 1
    })
    expect(await rig.stored()).toEqual({ a: 2, c: 1, d: 1 })
  })

  test('by default a session of 1 MB is kept, and a larger one refused', async () => {
    const rig = await Rig.start()
    await rig.ask((fields) => (fields['a'] = 'x'.repeat(999_997)))
    expect(await rig.ask((fields) => (fields['a'] as string).length)).toBe(999_997)
    await rig.ask((fields) => expect(errorOf(() => (fields['a'] = 'x'.repeat(999_998))).code).toBe('SESSION_TOO_LARGE'))
  })
})
