// The near cache on a real Redis: what a read and a write cost, how soon another process's changes are heard, and what becomes of it
// when connections are cut, fall silent or are refused. A second store stands for another process.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import type { ErrorRequestHandler, RequestHandler } from 'express'
import { Redis } from 'ioredis'
import { Redis as Valkey } from 'iovalkey'
import { createClient, createClientPool, createSentinel } from 'redis'
import * as redis5 from 'redis5'
import {
  requireLevel,
  requireRecentAuth,
  requireSession,
  type SessionData,
  type SessionError,
  type SessionOptions,
} from 'sojourn'
import { type NodeRedisClient, RedisSessionStore, type RedisSessionStoreOptions } from 'sojourn/redis'
import { conformanceChecks } from 'sojourn/testing'
import { testApp } from '../../../support/app.js'
import { Client, listen, type TestServer, until } from '../../../support/http.js'
import { commandsWhile } from '../../../support/monitor.js'
import { atOnce, keep, pause, Race, sampleRecord, settingOf } from '../../../support/near-cache.js'
import { TcpProxy } from '../../../support/proxy.js'
import { RedisServer } from '../../../support/redis.js'

const LOGOUT = { reason: 'logout', at: 1_700_000_000_000 } as const

let server: RedisServer
let redis: Redis
/** Another process, without a near cache. */
let other: RedisSessionStore
beforeAll(async () => {
  server = await RedisServer.start()
  redis = new Redis(server.url)
  other = new RedisSessionStore({ url: server.url })
})
afterAll(async () => {
  redis.disconnect()
  await other.close()
  await server.stop()
})

const closing: (() => unknown)[] = []
afterEach(async () => {
  jest.restoreAllMocks()
  for (const close of closing.splice(0).reverse()) await close()
})

function nearStore(options: Partial<RedisSessionStoreOptions> = {}): RedisSessionStore {
  const url = options.client === undefined ? server.url : undefined
  const store = new RedisSessionStore({ url, nearCache: {}, ...options })
  closing.push(() => store.close())
  return store
}

/** A session that the store has in memory. */
async function keptIn(store: RedisSessionStore): Promise<SessionData> {
  const record = sampleRecord()
  await other.create(record.id, record, 3_600)
  await keep(store, record.id)
  return record
}

/** Commands that clients send meanwhile, but for heartbeats. */
async function sentWhile(action: () => Promise<unknown>): Promise<string[]> {
  const commands = await commandsWhile(redis, action)
  return commands
    .filter(({ source }) => source !== 'lua')
    .map(({ args: [name = ''] }) => name.toLowerCase())
    .filter((name) => name !== 'ping')
}

/** Time stands still, so that a busy machine makes nothing old. */
function stopClock(): { spy: { mockRestore(): void } } {
  return { spy: jest.spyOn(performance, 'now').mockReturnValue(performance.now()) }
}

describe('a session in memory', () => {
  test('is read without a round trip, and without a promise', async () => {
    const store = nearStore()
    const record = await keptIn(store)
    stopClock()
    const sent = await sentWhile(async () => {
      for (let i = 0; i < 50; i++) expect(await store.get(record.id)).toEqual(record)
    })
    expect(sent).toEqual([])
    expect(atOnce(store, record.id)).toEqual(record)
    expect(store.nearCache).toMatchObject({ sessions: 1 })
    expect(store.nearCache?.hits).toBeGreaterThan(50)
  })

  test('is written in one round trip, as often as one likes', async () => {
    const store = nearStore()
    const { id } = await keptIn(store)
    stopClock()
    // Told of what it is to call.
    const first = await store.get(id)
    await store.update(id, settingOf(first as SessionData, '0'), 3_600)
    const sent = await sentWhile(async () => {
      for (let n = 1; n <= 20; n++) {
        const read = await store.get(id)
        expect(read?.fields.get('n')).toBe(String(n - 1))
        expect(await store.update(id, settingOf(read as SessionData, String(n)), 3_600)).toMatchObject({
          status: 'updated',
        })
      }
    })
    expect(sent).toEqual(Array(20).fill('evalsha'))
    expect((await other.get(id))?.fields.get('n')).toBe('20')
  })

  test.each<[string, (record: SessionData) => Promise<unknown>]>([
    ['changes', (record) => other.update(record.id, settingOf(record, '1'), 3_600)],
    ['is kept alive', ({ id }) => other.touch(id, 7_200)],
    ['ends', ({ id }) => other.end(id, LOGOUT, 60)],
    ['is deleted', ({ id }) => other.delete(id)],
    ['is overwritten', (record) => other.set(record.id, record.withField('n', '1'), 60)],
    ['is deleted by hand', ({ id }) => redis.del(`soj:{${id.slice(0, 4)}}${id.slice(4)}`)],
    [
      'expires',
      async ({ id }) => {
        const key = `soj:{${id.slice(0, 4)}}${id.slice(4)}`
        await redis.pexpire(key, 1)
        await until(async () => (await redis.exists(key)) === 0)
      },
    ],
    ['is flushed', () => redis.flushall()],
  ])('is forgotten when it %s elsewhere', async (_what, change) => {
    const store = nearStore()
    const record = await keptIn(store)
    // Its age does not do it.
    stopClock()
    await change(record)
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    expect(await store.get(record.id)).toEqual(await other.get(record.id))
  })

  test('is forgotten when Redis makes room', async () => {
    const full = await RedisServer.start('--maxmemory', '3mb', '--maxmemory-policy', 'allkeys-random')
    closing.push(() => full.stop())
    const client = new Redis(full.url)
    closing.push(() => client.disconnect())
    const store = nearStore({ url: full.url })
    const record = sampleRecord()
    await store.create(record.id, record, 3_600)
    await keep(store, record.id)
    stopClock()
    for (let n = 0; (await client.exists(`soj:{${record.id.slice(0, 4)}}${record.id.slice(4)}`)) === 1; n++) {
      await client.set(`other:${n}`, 'x'.repeat(10_000))
    }
    await until(() => atOnce(store, record.id) === undefined, 20_000)
  })

  test.each<[string, (store: RedisSessionStore, record: SessionData) => Promise<unknown>]>([
    ['changes', (store, record) => store.update(record.id, settingOf(record, '1'), 3_600)],
    ['is kept alive', (store, { id }) => store.touch(id, 7_200)],
    ['ends', (store, { id }) => store.end(id, LOGOUT, 60)],
    ['is deleted', (store, { id }) => store.delete(id)],
    ['is overwritten', (store, record) => store.set(record.id, record.withField('n', '1'), 60)],
    [
      'is regenerated',
      (store, record) =>
        store.regenerate(
          record.id,
          { generation: 1, at: Date.now(), next: sampleRecord(), keep: 'all', tombstoneSeconds: 60 },
          3_600,
        ),
    ],
  ])('is read as it is at once when it %s here', async (_what, change) => {
    const store = nearStore()
    const record = await keptIn(store)
    await change(store, record)
    expect(await store.get(record.id)).toEqual(await other.get(record.id))
  })

  test('what is asked for afresh is asked of Redis', async () => {
    const store = nearStore()
    const { id } = await keptIn(store)
    stopClock()
    const sent = await sentWhile(async () => store.getFresh?.(id))
    expect(sent).toEqual(['getrange'])
    expect(other.getFresh).toBeUndefined()
    expect(other.nearCache).toBeUndefined()
  })
})

describe('the suite for stores', () => {
  let suiteServer: RedisServer
  const stores: RedisSessionStore[] = []
  beforeAll(async () => {
    suiteServer = await RedisServer.start()
    for (let i = 0; i < 2; i++) stores.push(new RedisSessionStore({ url: suiteServer.url, nearCache: {} }))
  })
  afterAll(async () => {
    await Promise.all(stores.map((store) => store.close()))
    await suiteServer.stop()
  })
  const [createStore, createPeer] = [0, 1].map((index) => () => stores[index] as RedisSessionStore) as [
    () => RedisSessionStore,
    () => RedisSessionStore,
  ]
  const checks = conformanceChecks({ createStore, createPeer, destroyStore: async () => {} })
  for (const { name, run } of checks) test(name, run)
})

describe('trackers', () => {
  /** A store behind a proxy, and a session in its memory. */
  async function beginBehindProxy(): Promise<{ store: RedisSessionStore; proxy: TcpProxy; record: SessionData }> {
    const proxy = await TcpProxy.start(server.port)
    closing.push(() => proxy.stop())
    const store = nearStore({ url: `redis://127.0.0.1:${proxy.port}` })
    return { store, proxy, record: await keptIn(store) }
  }

  test('that are cut off are opened anew, and all is forgotten in between', async () => {
    const { store, proxy, record } = await beginBehindProxy()
    stopClock()
    proxy.cut()
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    jest.restoreAllMocks()
    await keep(store, record.id)
  })

  test('that fall silent are not believed, and what ended meanwhile is refused', async () => {
    const { store, proxy, record } = await beginBehindProxy()
    proxy.swallowReplies()
    await other.end(record.id, LOGOUT, 60)
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    proxy.cut()
    await until(async () => (await store.get(record.id).catch(() => null))?.ended !== undefined, 20_000)
    await keep(store, record.id)
    expect(atOnce(store, record.id)?.ended).toMatchObject({ reason: 'logout' })
  })

  test('of a frozen server are not believed', async () => {
    const own = await RedisServer.start()
    closing.push(() => own.stop())
    const store = nearStore({ url: own.url })
    const record = sampleRecord()
    await store.create(record.id, record, 60)
    await keep(store, record.id)
    own.freeze()
    try {
      await until(() => atOnce(store, record.id) === undefined, 20_000)
    } finally {
      own.thaw()
    }
    await until(() => store.get(record.id).then(Boolean, () => false), 20_000)
    await keep(store, record.id)
  })

  test('that the server refuses are told once, and every read asks Redis', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await redis.acl('SETUSER', 'deaf', 'on', '>secret', '~soj:*', '+@all', '-client|tracking', '&*')
    closing.push(() => redis.acl('DELUSER', 'deaf'))
    const store = nearStore({ url: server.url.replace('//', '//deaf:secret@') })
    const record = sampleRecord()
    await other.create(record.id, record, 3_600)
    await until(async () => {
      expect(await store.get(record.id)).toEqual(record)
      return warnings.mock.calls.length > 0
    }, 20_000)
    for (let i = 0; i < 5; i++) await store.get(record.id)
    expect(atOnce(store, record.id)).toBeUndefined()
    expect(warnings.mock.calls.map(([text]) => String(text))).toEqual([
      expect.stringMatching(/nearCache has no effect, every read asks Redis: NOPERM/),
    ])
  })

  test('need no more rights than the page on Redis says', async () => {
    const page = readFileSync('docs/operations/redis.md', 'utf8')
    const rightsFor = (what: string): string[] => {
      const row = page.split('\n').findLast((line) => line.startsWith(`| ${what} |`)) ?? ''
      return row.replaceAll('\\|', '|').match(/[+&][\w|&:*]+/g) ?? []
    }
    const rights = [...rightsFor('all'), ...rightsFor('`nearCache`')]
    expect(rights).toEqual(expect.arrayContaining(['+getrange', '+client|tracking', '&__redis__:invalidate']))
    await redis.acl('SETUSER', 'least', 'on', '>secret', '~soj:*', '-@all', ...rights)
    closing.push(() => redis.acl('DELUSER', 'least'))
    const store = nearStore({ url: server.url.replace('//', '//least:secret@') })
    const record = await keptIn(store)
    stopClock()
    await other.end(record.id, LOGOUT, 60)
    await until(() => atOnce(store, record.id) === undefined, 20_000)
  })

  test('are gone when the store is closed', async () => {
    const count = async (): Promise<number> =>
      String(await redis.client('LIST'))
        .trim()
        .split('\n').length
    const before = await count()
    const store = nearStore()
    await keptIn(store)
    expect(await count()).toBe(before + 2)
    await store.close()
    await until(async () => (await count()) === before, 20_000)
    expect(await store.get(randomUUID()).catch(({ code }) => code)).toBe('STORE_UNAVAILABLE')
  })
})

test('no answer is older than maxAge, whatever the network does', async () => {
  const maxAgeMs = 200
  const proxy = await TcpProxy.start(server.port)
  closing.push(() => proxy.stop())
  const near = nearStore({ url: `redis://127.0.0.1:${proxy.port}`, nearCache: { maxAge: `${maxAgeMs}ms` } })
  const { id } = await keptIn(near)
  const swallow = (): void => proxy.swallowReplies()
  const faults = [
    () => proxy.delayReplies(30),
    swallow,
    () => proxy.cut(),
    () => proxy.refuse(),
    () => proxy.delayReplies(300),
  ]
  const race = new Race({ near, other, id, maxAgeMs })
  race.start()
  for (const fault of [...faults, ...faults]) {
    fault()
    await pause(60)
    proxy.repair()
    // Or the connection that was swallowed is replaced only after seconds.
    if (fault === swallow) proxy.cut()
    await race.goesOn()
  }
  await race.stop()
  expect(race.late).toEqual([])
}, 60_000)

describe('a client of the user', () => {
  /** Opened as its documentation says. */
  async function opened<
    T extends { on(event: 'error', listener: () => void): unknown; connect(): Promise<unknown>; destroy(): void },
  >(client: T): Promise<T> {
    client.on('error', () => {})
    await client.connect()
    closing.push(() => client.destroy())
    return client
  }

  test.each<[string, () => Promise<NodeRedisClient>]>([
    ['of node-redis 6', () => opened(createClient({ url: server.url }))],
    ['of node-redis 6 that speaks the second protocol', () => opened(createClient({ url: server.url, RESP: 2 }))],
    [
      'of node-redis 6 with a cache of its own',
      () => opened(createClient({ url: server.url, clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: 'LRU' } })),
    ],
    ['of node-redis 5', () => opened(redis5.createClient({ url: server.url }))],
  ])('%s is told of changes, and of being cut off', async (_what, connect) => {
    const store = nearStore({ client: await connect() })
    const record = await keptIn(store)
    const { spy } = stopClock()
    await other.end(record.id, LOGOUT, 60)
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    expect((await store.get(record.id))?.ended).toBeDefined()
    await keep(store, record.id)
    await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    spy.mockRestore()
    await keep(store, record.id)
    await redis.flushall()
    await until(() => atOnce(store, record.id) === undefined, 20_000)
  })

  test.each<[string, () => NodeRedisClient, RegExp]>([
    [
      'createSentinel()',
      () => createSentinel({ name: 'sessions', sentinelRootNodes: [{ host: '127.0.0.1', port: 1 }] }),
      /createSentinel\(\).*take ioredis/,
    ],
    ['createClientPool()', () => createClientPool({ url: server.url }), /createClientPool\(\).*take createClient\(\)/],
  ])('%s of node-redis is refused with a word why', (_what, create, message) => {
    const client = create()
    expect(() => new RedisSessionStore({ client, nearCache: {} })).toThrow(message)
  })

  test.each<[object | boolean, RegExp]>([
    [true, /nearCache is not an object: write nearCache: \{\}/],
    [{ maxage: 1 }, /no option "maxage", only maxAge and maxBytes/],
    [{ maxAge: '10ms' }, /maxAge is 10ms; use 50ms to 1m/],
    [{ maxAge: '2m' }, /maxAge is 2m; use 50ms to 1m/],
    [{ maxAge: 'soon' }, /maxAge is "soon"/],
    [{ maxBytes: 0 }, /maxBytes is 0; use a whole number/],
  ])('with %j is refused with what to write', (nearCache, message) => {
    const make = (): RedisSessionStore => new RedisSessionStore({ url: server.url, nearCache: nearCache as object })
    expect(make).toThrow(message)
  })

  test.each<[string, () => Redis | Valkey]>([
    ['of ioredis', () => new Redis(server.url)],
    ['of ioredis with a keyPrefix', () => new Redis(server.url, { keyPrefix: 'app:' })],
    ['of ioredis that speaks the second protocol', () => new Redis(server.url, { protocol: 2 })],
    [
      'of ioredis that is lazy and pipelines by itself',
      () => new Redis(server.url, { lazyConnect: true, enableAutoPipelining: true }),
    ],
    ['of iovalkey', () => new Valkey(server.url)],
  ])('%s is told of changes', async (_what, connect) => {
    const [client, far] = [connect(), connect()]
    closing.push(() => far.disconnect())
    closing.push(() => client.disconnect())
    const store = nearStore({ client: client as Redis })
    const writer = new RedisSessionStore({ client: far as Redis })
    const record = sampleRecord()
    await writer.create(record.id, record, 3_600)
    await keep(store, record.id)
    stopClock()
    await writer.end(record.id, LOGOUT, 60)
    await until(() => atOnce(store, record.id) === undefined, 20_000)
    expect((await store.get(record.id))?.ended).toBeDefined()
  })
})

describe('requests', () => {
  async function app(options: Partial<SessionOptions>): Promise<TestServer> {
    const { app } = testApp(options)
    // Something before the guard has looked at the session, and changed it.
    const before: RequestHandler = (req, _res, next) => {
      req.session.get('a')
      req.session.set('before', req.query['b'])
      next()
    }
    const answer: RequestHandler = (req, res) => {
      req.session.set('b', req.query['b'])
      res.json(req.session)
    }
    app.post('/recent', before, requireRecentAuth('10m'), requireRecentAuth('10m'), answer)
    const guard = requireRecentAuth('10m')
    app.post('/lists', (req, res, next) => {
      if (!req.session.has('list')) req.session.set('list', [])
      const list = req.session.get('list') as string[]
      guard(req, res, (error) => {
        list.push('later')
        if (error === undefined) res.json(list)
        else next(error)
      })
    })
    const goBack = requireRecentAuth('10m', { onRequired: (req) => void requireSession(req).set('to', '/') })
    app.post('/back', goBack, answer)
    app.post('/level', before, requireLevel(1), answer)
    const refuse: ErrorRequestHandler = (error: SessionError, _req, res, _next) => void res.status(error.status).end()
    app.use(refuse)
    const listening = await listen(app)
    closing.push(() => listening.close())
    return listening
  }

  /**
   * Two processes and one browser. The first has just written its session, and time stands still: so it is not told of anything
   * that the second does, for as long as the test takes.
   */
  async function begin(options: Partial<SessionOptions> = {}): Promise<{ here: Client; there: Client; id: string }> {
    const store = nearStore()
    const [first, second] = [await app({ ...options, store }), await app({ ...options, store: other })]
    const here = new Client(first)
    const { id } = (await here.post('/login?user=ann')).json<{ id: string }>()
    // Until its trackers live, it keeps nothing.
    await keep(store, id)
    stopClock()
    expect((await here.post('/set?a=1')).status).toBe(200)
    expect(atOnce(store, id)?.fields.get('a')).toBe('"1"')
    return { here, there: new Client(second, here.cookies), id }
  }

  test('on paths that are to be fresh read Redis, and no others do', async () => {
    const { here, there } = await begin({ fresh: ['/plain', '/peek'] })
    expect(await sentWhile(() => here.get('/plain'))).toEqual(['getrange'])
    expect(await sentWhile(() => here.post('/nothing'))).toEqual([])
    await there.post('/logout')
    expect(await userOf(here)).toBeNull()
  })

  test.each<[string, (req: IncomingMessage | Http2ServerRequest) => boolean]>([
    ['says so', () => true],
    [
      'fails',
      () => {
        throw new Error('no')
      },
    ],
  ])('that a function takes for fresh read Redis: it %s', async (_what, fresh) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { here, there } = await begin({ fresh })
    await there.post('/logout')
    expect(await userOf(here)).toBeNull()
  })

  test.each(['/recent', '/level'])('before which proof is asked for, at %s, read Redis', async (path) => {
    const { here, there } = await begin()
    expect(await sentWhile(() => here.post(`${path}?b=1`))).toEqual(['getrange', 'evalsha'])
    // Once in a request; and what was changed before it stays, on top of what is stored.
    await there.post('/set?a=2&c=3')
    expect((await here.post(`${path}?b=2`)).json()).toMatchObject({ a: '2', b: '2', c: '3', before: '2' })
    await there.post('/logout')
    expect((await here.post(`${path}?b=3`)).status).toBe(401)
  })

  test('that hold a value of a session which is read again alter what is stored', async () => {
    const { here, there } = await begin()
    expect((await here.post('/lists')).json()).toEqual(['later'])
    expect((await there.post('/set?c=3')).status).toBe(200)
    expect((await here.post('/lists')).json()).toEqual(['later', 'later'])
    expect((await there.get('/peek')).json()).toMatchObject({ fields: { list: ['later', 'later'] } })
  })

  test('of a session that is found to be over get an error where the application writes to it', async () => {
    const { here, there } = await begin()
    await there.post('/logout')
    expect((await here.post('/back')).status).toBe(409)
  })

  async function userOf(client: Client): Promise<string | null> {
    return (await client.get('/peek')).json<{ userId: string | null }>().userId
  }

  test('of a session that has ended elsewhere may read it for a moment, and change nothing', async () => {
    const { here, there, id } = await begin()
    expect((await there.post('/logout')).status).toBe(200)
    expect(await userOf(here)).toBe('ann')
    expect((await here.post('/set?a=2')).status).toBeGreaterThanOrEqual(400)
    expect((await other.get(id))?.ended).toMatchObject({ reason: 'logout' })
    // Whoever tried to write knows.
    expect(await userOf(here)).toBeNull()
  })

  test('with a token that another process has renewed are not refused', async () => {
    const { here, there, id } = await begin()
    expect((await there.post('/renew')).setCookies).toHaveLength(1)
    for (const [name, value] of there.cookies) here.cookies.set(name, value)
    const answer = await here.get('/peek')
    expect(answer.json()).toMatchObject({ id, userId: 'ann' })
    expect(answer.setCookies).toEqual([])
  })
})
