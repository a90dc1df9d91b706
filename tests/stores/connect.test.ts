// Stores that were written for express-session as session stores: real ones through the conformance suite, and a model of each
// way in which they differ.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { type SessionChange, type SessionData, type SessionStore, session } from 'sojourn'
import { type ConnectStoreOptions, connectStore, type ExpressStore } from 'sojourn/connect-store'
import { MemoryStore } from 'sojourn/express-session'
import { checkStore } from 'sojourn/testing'
import { sample } from '../../src/testing/samples.js'
import { REAL_STORES, type StartedStore } from '../support/connect-stores.js'
import { Client, listen, SECRET } from '../support/http.js'

describe.each(REAL_STORES)('$name $version', ({ start }) => {
  let started: StartedStore
  beforeAll(async () => {
    started = await start()
  })
  afterAll(() => started.stop())

  test('gives the guarantees basic and atomic', async () => {
    const { failed, guarantees, abilities } = await checkStore({ createStore: () => connectStore(started.store) })
    expect(failed).toEqual([])
    expect({ guarantees, abilities }).toEqual({ guarantees: ['basic', 'atomic'], abilities: [] })
  })

  test('keeps sessions over HTTP: parallel changes, and a logout that stays', async () => {
    const middleware = session({ secret: SECRET, store: connectStore(started.store), storeTimeout: '10s' })
    const answer = async (req: IncomingMessage, res: ServerResponse, error: unknown): Promise<void> => {
      const name = req.url?.slice(1) ?? ''
      if (error) res.statusCode = 500
      else if (name === 'out') await req.session.logout()
      else req.session.set(name, 1)
      res.end(JSON.stringify(req.session.keys()))
    }
    const server = await listen((req, res) => middleware(req, res, (error) => void answer(req, res, error)))
    const client = new Client(server)
    await client.get('/first')
    await Promise.all(Array.from({ length: 10 }, (_, index) => client.get(`/f${index}`)))
    expect((await client.get('/last')).json()).toHaveLength(12)
    const cookie = client.cookieHeader
    await client.get('/out')
    expect((await client.get('/again', { cookie })).json()).toEqual(['again'])
    await server.close()
  })
})

interface Cookie {
  readonly maxAge: number
  readonly expires: Date
  readonly originalMaxAge: number
}

/** A store that answers as it is told to, and notes what it is called with. */
class Model implements ExpressStore {
  readonly kept = new Map<string, string>()
  readonly calls: string[] = []
  readonly cookies: Cookie[] = []
  answer: (done: (...args: unknown[]) => void, session: unknown) => unknown = (done, session) =>
    session === undefined ? done() : done(null, session)

  get(sid: string, callback: (error?: unknown, session?: unknown) => void): unknown {
    this.calls.push('get')
    const text = this.kept.get(sid)
    return this.answer(callback, text === undefined ? undefined : JSON.parse(text))
  }

  set(sid: string, stored: { cookie: Cookie }, callback: (error?: unknown) => void): unknown {
    this.calls.push('set')
    this.cookies.push(stored.cookie)
    this.kept.set(sid, JSON.stringify(stored))
    return this.answer(callback, null)
  }

  destroy(sid: string, callback: (error?: unknown) => void): unknown {
    this.calls.push('destroy')
    this.kept.delete(sid)
    return this.answer(callback, null)
  }

  touch(): never {
    throw new Error('touch() revives, or writes the whole session.')
  }

  all(): never {
    throw new Error('all() has no IDs.')
  }
}

const model = (): { model: Model; store: SessionStore; record: SessionData } => {
  const made = new Model()
  return { model: made, store: connectStore(made), record: sample() }
}

describe('an answer', () => {
  test.each([
    ['null, undefined', (done: Answer) => done(null, undefined)],
    ['null, null', (done: Answer) => done(null, null)],
    ['no arguments', (done: Answer) => done()],
    ['an error ENOENT', (done: Answer) => done(Object.assign(new Error('gone'), { code: 'ENOENT' }))],
    ['something that is none of ours', (done: Answer) => done(null, { cookie: {}, user: 'ann' })],
  ])('of %s is no session', async (_name, answer) => {
    const { model: made, store, record } = model()
    made.answer = answer
    expect(await store.get(record.id)).toBeNull()
  })

  test.each([
    ['an error', (done: Answer) => done(new Error('down'))],
    ['text for an error', (done: Answer) => done('down')],
    [
      'a throw',
      () => {
        throw new Error('down')
      },
    ],
    ['a promise that is rejected', () => Promise.reject(new Error('down'))],
  ])('of %s is a failure', async (_name, answer) => {
    const { model: made, store, record } = model()
    made.answer = answer
    await expect(store.get(record.id)).rejects.toBeDefined()
  })

  test.each([
    [
      'twice',
      (done: Answer) => {
        done(null, null)
        done(new Error('late'))
      },
    ],
    [
      'and then a throw',
      (done: Answer) => {
        done(null, null)
        throw new Error('late')
      },
    ],
    [
      'and then a rejection',
      (done: Answer) => {
        done(null, null)
        return Promise.reject(new Error('late'))
      },
    ],
  ])('%s: the first counts', async (_name, answer) => {
    const { model: made, store, record } = model()
    made.answer = answer
    expect(await store.get(record.id)).toBeNull()
    await store.delete(record.id)
  })
})

type Answer = (...args: unknown[]) => void

describe('what the store gets', () => {
  test('is one text beside the cookie', async () => {
    const { model: made, store, record } = model()
    const awkward = record.withField('a.b', '"{$c}"').withField('expires', '1').withField('__proto__', '{}')
    await store.set(awkward.id, awkward, 60)
    const kept = JSON.parse(made.kept.get(awkward.id) ?? '')
    expect(Object.keys(kept)).toEqual(['cookie', 'sojourn'])
    expect(typeof kept.sojourn).toBe('string')
    expect((await store.get(awkward.id))?.toJSON()).toEqual(awkward.toJSON())
  })

  test('has a cookie that says in every way how long to keep it, a second more than is needed', async () => {
    const { model: made, store, record } = model()
    await store.set(record.id, record, 1)
    const [cookie] = made.cookies
    expect(cookie?.originalMaxAge).toBe(2000)
    expect(cookie?.maxAge).toBeGreaterThan(1000)
    expect(cookie?.expires).toBeInstanceOf(Date)
    expect(JSON.parse(made.kept.get(record.id) ?? '').cookie).not.toHaveProperty('maxAge')
  })

  test('is told no longer time than it takes', async () => {
    const made = new Model()
    const record = sample()
    await connectStore(made, { longestTtl: '30d' }).set(record.id, record, 40 * 86_400)
    class MemcachedStore extends Model {}
    const known = new MemcachedStore()
    await connectStore(known).set(record.id, record, 40 * 86_400)
    for (const { cookies } of [made, known]) expect(cookies[0]?.originalMaxAge).toBe(30 * 86_400_000)
  })

  test('is forgotten by nobody but the record: an ended one is told, and a late write does not bring it back', async () => {
    const { store, record } = model()
    await store.create(record.id, record, 60)
    await store.end(record.id, { reason: 'destroyed', at: Date.now() }, 60)
    const change = { generation: 1, at: Date.now(), expiresAt: record.expiresAt, set: new Map([['a', '1']]) }
    expect(await store.update(record.id, change, 60)).toEqual({ status: 'ended' })
    expect(await store.touch(record.id, 60)).toBe(false)
    expect((await store.get(record.id))?.ended?.reason).toBe('destroyed')
  })

  test.each([
    ['cut off', (text: string) => text.slice(0, -1)],
    ['of a later version', (text: string) => text.replace('[2,', '[3,')],
    ['of no record', () => 'hello'],
    ['without its times', (text: string) => text.replace(/,1\d{12}/, ',null')],
  ])('is refused when it is %s', async (_name, damage) => {
    const { model: made, store, record } = model()
    await store.set(record.id, record.withField('a', '"text"'), 60)
    const kept = JSON.parse(made.kept.get(record.id) ?? '')
    made.kept.set(record.id, JSON.stringify({ ...kept, sojourn: damage(kept.sojourn) }))
    await expect(store.get(record.id)).rejects.toMatchObject({ code: 'CORRUPT_RECORD' })
  })
})

describe('the calls', () => {
  test('are get, set and destroy alone; a new session is not read first', async () => {
    const { model: made, store, record } = model()
    await store.create(record.id, record, 60)
    expect(made.calls).toEqual(['set'])
    await store.touch(record.id, 60)
    expect(made.calls).toEqual(['set', 'get', 'set'])
    await store.delete(record.id)
    expect(store.scan).toBeUndefined()
  })

  test('read before each change, since others may have written', async () => {
    const { model: made, store, record } = model()
    await store.create(record.id, record, 60)
    const madeOn = (await store.get(record.id)) as SessionData
    await store.update(record.id, changeOn(madeOn, 'a', '1'), 60)
    expect(made.calls).toEqual(['set', 'get', 'get', 'set'])
  })

  test('on one ID wait for each other, on others they do not', async () => {
    const { model: made, store, record } = model()
    const waiting: (() => void)[] = []
    made.answer = (done) => waiting.push(() => done(null, null))
    const other = sample()
    const all = [store.set(record.id, record, 60), store.get(record.id), store.set(other.id, other, 60)]
    expect(made.calls).toEqual(['set', 'set'])
    for (let answered = 0; answered < 3; ) {
      await new Promise((resolve) => setImmediate(resolve))
      for (const answer of waiting.splice(0)) {
        answer()
        answered++
      }
    }
    await Promise.all(all)
    expect(made.calls).toEqual(['set', 'set', 'get'])
  })

  test('wait for what has to be ready, and fail with it', async () => {
    const made = new Model()
    const { id } = sample()
    let open: () => void = () => {}
    const ready = new Promise<void>((resolve) => {
      open = resolve
    })
    const waiting = connectStore(made, { ready }).get(id)
    await new Promise((resolve) => setImmediate(resolve))
    expect(made.calls).toEqual([])
    open()
    expect(await waiting).toBeNull()
    const broken = Promise.reject(new Error('no connection'))
    await expect(connectStore(made, { ready: broken }).get(id)).rejects.toThrow('no connection')
  })

  test('do not heed that the store says disconnect: the deadline counts', async () => {
    const store = new MemoryStore()
    const middleware = session({ secret: SECRET, store: connectStore(store) })
    store.emit('disconnect')
    const server = await listen((req, res) => middleware(req, res, () => res.end(typeof req.session)))
    expect((await new Client(server).get('/')).body).toBe('object')
    await server.close()
  })
})

/** A change that a request makes which has read `madeOn`. */
function changeOn(madeOn: SessionData, field: string, text: string): SessionChange {
  const { generation, expiresAt } = madeOn
  return { generation, at: Date.now(), expiresAt, set: new Map([[field, text]]), madeOn }
}

describe('where nobody else writes', () => {
  class MemoryStore extends Model {}
  const begin = async (made: Model, options?: ConnectStoreOptions) => {
    const store = connectStore(made, options)
    const record = sample()
    await store.set(record.id, record, 60)
    const read = (await store.get(record.id)) as SessionData
    made.calls.length = 0
    return { made, store, read, id: record.id }
  }
  afterEach(() => {
    jest.restoreAllMocks()
  })

  test.each([
    ['a store in the memory of this process', () => new MemoryStore(), undefined],
    ['shared: false', () => new Model(), { shared: false }],
  ])('a change is made on what its request has read: %s', async (_name, make, options) => {
    const { made, store, read, id } = await begin(make(), options)
    const result = await store.update(id, changeOn(read, 'a', '1'), 60)
    expect(made.calls).toEqual(['set'])
    expect(result).toMatchObject({ status: 'updated', record: { id } })
    expect((await store.get(id))?.fields.get('a')).toBe('1')
  })

  test('two requests that have read the same lose nothing', async () => {
    const { made, store, read, id } = await begin(new MemoryStore())
    await Promise.all([store.update(id, changeOn(read, 'a', '1'), 60), store.update(id, changeOn(read, 'b', '2'), 60)])
    expect(made.calls).toEqual(['set', 'get', 'set'])
    expect([...((await store.get(id))?.fields.keys() ?? [])]).toEqual(expect.arrayContaining(['a', 'b']))
  })

  test('a session that ended meanwhile stays ended', async () => {
    const { store, read, id } = await begin(new MemoryStore())
    await store.end(id, { reason: 'logout', at: Date.now() }, 60)
    expect(await store.update(id, changeOn(read, 'a', '1'), 60)).toEqual({ status: 'ended' })
  })

  test('a session that was deleted meanwhile stays away', async () => {
    const { store, read, id } = await begin(new MemoryStore())
    await store.delete(id)
    expect(await store.update(id, changeOn(read, 'a', '1'), 60)).toEqual({ status: 'ended' })
  })

  test('a write that waits behind the reading of another request is not lost', async () => {
    const { made, store, read, id } = await begin(new MemoryStore())
    const waiting: (() => void)[] = []
    made.answer = (done, session) => waiting.push(() => (session === undefined ? done() : done(null, session)))
    const reading = store.get(id)
    const first = store.update(id, changeOn(read, 'a', '1'), 60)
    for (let answered = 0; answered < 3; ) {
      await new Promise((resolve) => setImmediate(resolve))
      for (const answer of waiting.splice(0)) {
        answer()
        answered++
      }
    }
    const late = (await reading) as SessionData
    await first
    made.answer = (done, session) => (session === undefined ? done() : done(null, session))
    await store.update(id, changeOn(late, 'b', '2'), 60)
    expect([...((await store.get(id))?.fields.keys() ?? [])]).toEqual(expect.arrayContaining(['a', 'b']))
  })

  test('what has been written since, among many others, is read again', async () => {
    const { made, store, read, id } = await begin(new MemoryStore())
    await store.update(id, changeOn(read, 'a', '1'), 60)
    for (let other = 0; other < 1_100; other++) await store.set(`${other}`, read, 60)
    made.calls.length = 0
    await store.update(id, changeOn(read, 'b', '2'), 60)
    expect(made.calls).toEqual(['get', 'set'])
    expect((await store.get(id))?.fields.get('a')).toBe('1')
  })

  test('what another adapter on the same store has written is read again', async () => {
    const { made, store, read, id } = await begin(new MemoryStore())
    await connectStore(made).update(id, changeOn(read, 'a', '1'), 60)
    await store.update(id, changeOn(read, 'b', '2'), 60)
    expect((await store.get(id))?.fields.get('a')).toBe('1')
  })

  test('a request that takes longer than a second reads again', async () => {
    const { made, store, read, id } = await begin(new MemoryStore())
    const later = performance.now() + 1_001
    jest.spyOn(performance, 'now').mockReturnValue(later)
    await store.update(id, changeOn(read, 'a', '1'), 60)
    expect(made.calls).toEqual(['get', 'set'])
  })

  test('but with shared: true each change reads', async () => {
    const { made, store, read, id } = await begin(new MemoryStore(), { shared: true })
    await store.update(id, changeOn(read, 'a', '1'), 60)
    expect(made.calls).toEqual(['get', 'set'])
  })
})

test('close() closes what it was told to', async () => {
  const close = jest.fn(async () => {})
  await connectStore(new Model(), { close }).close()
  expect(close).toHaveBeenCalledTimes(1)
  await connectStore(new Model()).close()
})

test.each([
  ['a store without destroy', () => connectStore({ get() {}, set() {} } as never), /has no destroy/],
  ['no store', () => connectStore(undefined as never), /written for express-session/],
  ['a time that is none', () => connectStore(new Model(), { longestTtl: 'x' }), /longestTtl/],
  ['shared that is no yes or no', () => connectStore(new Model(), { shared: 1 as never }), /shared must be/],
  ['close that is no function', () => connectStore(new Model(), { close: 1 as never }), /close is not a function/],
])('refuses %s', (_name, make, message) => {
  expect(make).toThrow(message)
})

test('says what has to be known of a store by name', () => {
  const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  class PrismaSessionStore extends Model {}
  connectStore(new PrismaSessionStore())
  expect(String(warning.mock.calls[0]?.[0])).toContain('PrismaSessionStore says that there is no session')
  warning.mockRestore()
})
