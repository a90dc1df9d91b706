// What a request costs where that can be counted: store calls, round trips, headers, encodings, bytes. Times are for bench/.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals'
import express from 'express'
import { Redis } from 'ioredis'
import {
  jsonCodec,
  MemorySessionStore,
  type SessionCodec,
  type SessionOptions,
  type SessionStore,
  session,
} from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { Client, listen, OTHER_SECRET, SECRET, type TestServer, until } from '../support/http.js'
import { commandsWhile } from '../support/monitor.js'
import { RedisServer } from '../support/redis.js'

const MINUTE_MS = 60_000

/** An application with a page that ignores the session, one that reads a field, and one that changes one. */
async function startApp(options: Partial<SessionOptions> = {}): Promise<TestServer> {
  const app = express()
  app.set('env', 'test')
  app.use(session({ secret: SECRET, ...options }))
  app.get('/ignore', (_req, res) => {
    res.send('nothing')
  })
  app.get('/read', (req, res) => {
    res.json({ views: req.session.get('views', 0) })
  })
  app.get('/write', (req, res) => {
    req.session.set('views', Number(req.session.get('views', 0)) + 1)
    res.json({})
  })
  app.get('/same', (req, res) => {
    req.session.set('views', req.session.get('views'))
    res.json({})
  })
  app.get('/fill', (req, res) => {
    const [n, bytes] = [Number(req.query['n']), Number(req.query['bytes'])]
    const data = req.query['shape'] === 'one text' ? { data: 'x'.repeat(bytes) } : sessionOf(n, bytes)
    for (const [name, value] of Object.entries(data)) req.session.set(name, value)
    res.json({})
  })
  app.get('/login', async (req, res) => {
    await req.session.login(typeof req.query['user'] === 'string' ? req.query['user'] : 'ann')
    res.json({})
  })
  app.get('/destroy', async (req, res) => {
    await req.session.destroy()
    res.json({})
  })
  app.get('/regenerate', async (req, res) => {
    await req.session.regenerate({ keep: req.query['keep'] === 'true' })
    res.json({})
  })
  app.get('/renew', async (req, res) => {
    await req.session.renew()
    res.json({})
  })
  app.get('/logout', async (req, res) => {
    await req.session.logout()
    res.json({})
  })
  return listen(app)
}

/** Fields as applications have them: a few small ones, and from 1 KB on nested objects in three more. */
function sessionOf(n: number, bytes: number): Record<string, unknown> {
  const small = {
    userId: 100_000 + n,
    views: 1,
    locale: 'en-GB',
    csrfToken: `c${n}`.padEnd(43, 'x7Yk'),
    returnTo: `/account/orders/${10_000 + n}`,
    isAdmin: false,
  }
  const left = bytes - JSON.stringify(small).length
  if (bytes < 1_000) return { ...small, lastSearch: `s${n}`.padEnd(Math.max(2, left - 16), 'search ') }
  return { ...small, results: items(n, left * 0.5), recent: items(n + 1, left * 0.3), cart: items(n + 2, left * 0.2) }
}

function items(n: number, bytes: number): unknown[] {
  const list: unknown[] = []
  for (let length = 2; length < bytes - 40; ) {
    const item = { sku: `SKU-${n}-${list.length}`, title: 'A thing to buy', price: { amount: 1999, currency: 'EUR' } }
    list.push(item)
    length += JSON.stringify(item).length + 1
  }
  return list
}

/** Who sends a request: a new client, one with a session, or one that is logged in as ann. */
type Visitor = 'nobody' | 'somebody' | 'ann'

/** One request of each kind, as an application sees it, and what each may cost, but for the epoch. */
const COSTS: readonly { what: string; path: string; as: Visitor; memory: string[]; redis: string[] }[] = [
  { what: 'without a cookie, ignored', path: '/ignore', as: 'nobody', memory: [], redis: [] },
  { what: 'without a cookie, read', path: '/read', as: 'nobody', memory: [], redis: [] },
  { what: 'without a cookie, filled', path: '/write', as: 'nobody', memory: ['create'], redis: ['session'] },
  { what: 'a session, ignored', path: '/ignore', as: 'somebody', memory: ['get'], redis: ['read'] },
  { what: 'a session, read', path: '/read', as: 'somebody', memory: ['get'], redis: ['read'] },
  { what: 'a session, set to what it is', path: '/same', as: 'somebody', memory: ['get'], redis: ['read'] },
  { what: 'a session, changed', path: '/write', as: 'somebody', memory: ['get', 'update'], redis: ['read', 'session'] },
  { what: 'a session, renewed', path: '/renew', as: 'somebody', memory: ['get', 'update'], redis: ['read', 'session'] },
  { what: "a user's session, read", path: '/read', as: 'ann', memory: ['get'], redis: ['read'] },
  {
    what: "a user's session, changed",
    path: '/write',
    as: 'ann',
    memory: ['get', 'update'],
    redis: ['read', 'session'],
  },
  {
    what: 'a login without a session',
    path: '/login',
    as: 'nobody',
    memory: ['create', 'users.add', 'users.settle'],
    redis: ['user', 'session', 'user'],
  },
  {
    what: 'a login',
    path: '/login',
    as: 'somebody',
    memory: ['get', 'regenerate', 'users.add', 'users.settle'],
    redis: ['read', 'user', 'session', 'user'],
  },
  {
    what: 'a login of the same user',
    path: '/login',
    as: 'ann',
    memory: ['get', 'regenerate', 'users.add', 'users.settle'],
    redis: ['read', 'user', 'session', 'user'],
  },
  {
    what: 'a login of another user',
    path: '/login?user=bob',
    as: 'ann',
    memory: ['get', 'regenerate', 'users.add', 'users.settle', 'users.remove'],
    redis: ['read', 'user', 'session', 'user', 'user'],
  },
  { what: 'a logout without a session', path: '/logout', as: 'nobody', memory: [], redis: [] },
  {
    what: 'a logout without a user',
    path: '/logout',
    as: 'somebody',
    memory: ['get', 'end'],
    redis: ['read', 'session'],
  },
  {
    what: 'a logout',
    path: '/logout',
    as: 'ann',
    memory: ['get', 'end', 'users.remove'],
    redis: ['read', 'session', 'user'],
  },
  {
    what: 'destroy() without a user',
    path: '/destroy',
    as: 'somebody',
    memory: ['get', 'end'],
    redis: ['read', 'session'],
  },
  {
    what: 'destroy()',
    path: '/destroy',
    as: 'ann',
    memory: ['get', 'end', 'users.remove'],
    redis: ['read', 'session', 'user'],
  },
  {
    what: 'regenerate() without a user',
    path: '/regenerate',
    as: 'somebody',
    memory: ['get', 'regenerate'],
    redis: ['read', 'session'],
  },
  {
    what: 'regenerate({ keep: true }) without a user',
    path: '/regenerate?keep=true',
    as: 'somebody',
    memory: ['get', 'regenerate'],
    redis: ['read', 'session'],
  },
  {
    what: 'regenerate(), which leaves the user behind',
    path: '/regenerate',
    as: 'ann',
    memory: ['get', 'regenerate', 'users.remove'],
    redis: ['read', 'session', 'user'],
  },
  {
    what: 'regenerate({ keep: true })',
    path: '/regenerate?keep=true',
    as: 'ann',
    memory: ['get', 'regenerate', 'users.add', 'users.settle'],
    redis: ['read', 'user', 'session', 'user'],
  },
]

/** A client as what it is to send its next request. */
async function visitor(server: TestServer, as: Visitor): Promise<Client> {
  const client = new Client(server)
  if (as !== 'nobody') await client.get('/write')
  if (as === 'ann') await client.get('/login')
  return client
}

describe('store calls in one process', () => {
  let server: TestServer
  let store: FaultyStore
  let clock: FakeClock

  beforeEach(async () => {
    clock = new FakeClock()
    store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0, clock: clock.now }))
    server = await startApp({ store, clock: clock.now })
  })
  afterEach(() => server.close())

  test.each(COSTS)('$what: $memory', async ({ path, as, memory }) => {
    const client = await visitor(server, as)
    const before = calls(store)
    const answer = await client.get(path)
    expect(answer.status).toBe(200)
    expect(newCalls(before, calls(store))).toEqual(memory)
  })

  test.each([
    ['malformed', 'sid=abc'],
    ['forged', `sid=3b241101-e2bb-4255-8caf-4136c566a962.${'A'.repeat(43)}.${'B'.repeat(43)}`],
    ['of another application', 'other=1; theme=dark'],
  ])('a cookie that is %s: none', async (_kind, cookie) => {
    await new Client(server).get('/read', { cookie })
    expect(store.totalCalls).toBe(0)
  })

  test('a touch comes only when one is due, once, and never beside a write', async () => {
    const client = new Client(server)
    await client.get('/write')
    const callsOf = async (path: string): Promise<string[]> => {
      const before = calls(store)
      await client.get(path)
      return newCalls(before, calls(store))
    }
    clock.advance(MINUTE_MS - 1)
    expect(await callsOf('/read')).toEqual(['get'])
    clock.advance(1)
    expect(await callsOf('/read')).toEqual(['get', 'touch'])
    expect(await callsOf('/read')).toEqual(['get'])
    clock.advance(MINUTE_MS)
    expect(await callsOf('/write')).toEqual(['get', 'update'])
    expect(await callsOf('/read')).toEqual(['get'])
  })
})

describe('round trips to Redis', () => {
  let redis: RedisServer
  let store: SessionStore
  let server: TestServer
  let observer: Redis

  beforeAll(async () => {
    redis = await RedisServer.start()
    store = new RedisSessionStore({ url: redis.url })
    server = await startApp({ store, touchInterval: '10m' })
    observer = new Redis(redis.url)
    // Scripts are sent in full the first time only.
    const client = new Client(server)
    for (const path of ['/write', '/write', '/login', '/logout']) await client.get(path)
  })
  afterAll(async () => {
    observer.disconnect()
    await server.close()
    await store.close()
    await redis.stop()
  })

  test.each(COSTS)('$what: $redis', async ({ path, as, redis: expected }) => {
    const client = await visitor(server, as)
    const trips = await tripsDuring(observer, async () => {
      expect((await client.get(path)).status).toBe(200)
    })
    expect(trips.filter(isNotEpoch)).toEqual(expected)
  })

  test('a touch that is due: one more than a read', async () => {
    const eager = await startApp({ store, touchInterval: 0 })
    try {
      const client = new Client(eager)
      await client.get('/write')
      await client.get('/read')
      const trips = await tripsDuring(observer, () => client.get('/read'))
      expect(trips.filter(isNotEpoch)).toEqual(['read', 'session'])
    } finally {
      await eager.close()
    }
  })

  test('100 reads and 100 changes are 200 reads and 100 scripts, none of them sent in full', async () => {
    const client = new Client(server)
    await client.get('/write')
    const trips = await tripsDuring(observer, async () => {
      for (let index = 0; index < 100; index++) {
        await client.get('/read')
        await client.get('/write')
      }
    })
    const others = trips.filter(isNotEpoch)
    expect(others.filter((trip) => trip === 'read')).toHaveLength(200)
    expect(others.filter((trip) => trip === 'session')).toHaveLength(100)
    expect(others).toHaveLength(300)
  })
})

describe('the epoch', () => {
  const SECOND_MS = 1_000
  let passed: number

  beforeEach(() => {
    // A whole number, so that sums are exact.
    passed = Math.ceil(performance.now())
    jest.spyOn(performance, 'now').mockImplementation(() => passed)
  })
  afterEach(() => {
    jest.restoreAllMocks()
  })

  /** Many requests of all kinds, some at once. */
  async function traffic(server: TestServer): Promise<void> {
    const client = await visitor(server, 'ann')
    await Promise.all(Array.from({ length: 20 }, () => client.get('/read')))
    await Promise.all(Array.from({ length: 20 }, () => visitor(server, 'somebody')))
    for (const path of ['/write', '/renew', '/regenerate?keep=true', '/login', '/logout']) await client.get(path)
  }

  test('is asked at most once a second, however many requests there are', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const server = await startApp({ store })
    try {
      for (let second = 1; second <= 3; second++) {
        for (const step of [0, SECOND_MS - 1]) {
          passed += step
          await traffic(server)
          expect(store.calls.epoch).toBe(second)
        }
        passed += 1
      }
    } finally {
      await server.close()
    }
  })

  test('is one command to Redis', async () => {
    const redis = await RedisServer.start()
    const observer = new Redis(redis.url)
    const store = new RedisSessionStore({ url: redis.url })
    const server = await startApp({ store })
    try {
      await traffic(server)
      passed += SECOND_MS
      const trips = await tripsDuring(observer, () => traffic(server))
      expect(trips.filter((trip) => trip === 'epoch')).toHaveLength(1)
      expect(trips.length).toBeGreaterThan(60)
    } finally {
      await server.close()
      await store.close()
      observer.disconnect()
      await redis.stop()
    }
  })

  test('is not asked by a request that has no use for it', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const server = await startApp({ store })
    try {
      const forged = `sid=3b241101-e2bb-4255-8caf-4136c566a962.${'A'.repeat(43)}.${'B'.repeat(43)}`
      for (const path of ['/ignore', '/read', '/logout', '/destroy']) {
        await new Client(server).get(path)
        await new Client(server).get(path, { cookie: forged })
      }
      expect(store.totalCalls).toBe(0)
    } finally {
      await server.close()
    }
  })

  test('takes a request no time of its own, and is asked once for all that wait: beside the session', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const server = await startApp({ store })
    try {
      const client = await visitor(server, 'somebody')
      passed += SECOND_MS
      const before = calls(store)
      store.fail({ kind: 'delay', operations: ['epoch'] })
      const answers = Array.from({ length: 20 }, () => client.get('/read'))
      await until(() => store.calls.get - Number(before['get']) === 20)
      const asked = store.calls.epoch - Number(before['epoch'])
      store.release()
      for (const answer of await Promise.all(answers)) expect(answer.json()).toEqual({ views: 1 })
      expect(asked).toBe(1)
    } finally {
      await server.close()
    }
  })
})

describe('Set-Cookie', () => {
  const clock = new FakeClock()
  let store: SessionStore

  beforeEach(() => {
    store = new MemorySessionStore({ cleanupInterval: 0, clock: clock.now })
  })

  test('comes once, and not again for reads, changes and touches', async () => {
    const server = await startApp({ store, clock: clock.now })
    try {
      const client = new Client(server)
      expect((await client.get('/read')).setCookies).toHaveLength(0)
      expect((await client.get('/write')).setCookies).toHaveLength(1)
      for (const path of ['/ignore', '/read', '/write']) {
        expect((await client.get(path)).setCookies).toHaveLength(0)
        clock.advance(2 * MINUTE_MS)
        expect((await client.get(path)).setCookies).toHaveLength(0)
      }
    } finally {
      await server.close()
    }
  })

  test('of a persistent cookie comes again when the end of the session moved, and only then', async () => {
    const server = await startApp({ store, clock: clock.now, cookie: { persistent: true } })
    try {
      const client = new Client(server)
      await client.get('/write')
      expect((await client.get('/read')).setCookies).toHaveLength(0)
      clock.advance(MINUTE_MS)
      expect((await client.get('/read')).setCookies).toHaveLength(1)
      expect((await client.get('/read')).setCookies).toHaveLength(0)
    } finally {
      await server.close()
    }
  })

  test('comes once more after the secret was replaced', async () => {
    const before = await startApp({ store, clock: clock.now })
    const after = await startApp({ store, clock: clock.now, secret: [OTHER_SECRET, SECRET] })
    try {
      const old = new Client(before)
      await old.get('/write')
      const client = new Client(after, old.cookies)
      expect((await client.get('/read')).setCookies).toHaveLength(1)
      expect((await client.get('/read')).setCookies).toHaveLength(0)
    } finally {
      await before.close()
      await after.close()
    }
  })
})

describe('only what is touched is decoded and encoded', () => {
  const decoded: string[] = []
  const encoded: string[] = []
  const json = jsonCodec()
  const counting: SessionCodec = {
    isDeterministic: true,
    encode(value, path) {
      encoded.push(path)
      return json.encode(value, path)
    },
    decode(text) {
      decoded.push(text)
      return json.decode(text)
    },
  }
  let server: TestServer
  let client: Client

  beforeAll(async () => {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    server = await startApp({ store, codec: counting })
    client = new Client(server)
    await client.get('/fill?n=1&bytes=100000')
  })
  afterAll(() => server.close())
  beforeEach(() => {
    decoded.length = 0
    encoded.length = 0
  })

  test('a request that ignores the session: nothing', async () => {
    await client.get('/ignore')
    expect({ decoded, encoded }).toEqual({ decoded: [], encoded: [] })
  })

  test('a request that reads one small field of 100 KB: that field', async () => {
    await client.get('/read')
    expect(decoded).toEqual(['1'])
    expect(encoded).toEqual([])
  })

  test('a request that changes one small field of 100 KB: that field', async () => {
    await client.get('/write')
    expect(decoded).toHaveLength(1)
    expect(new Set(encoded)).toEqual(new Set(['views']))
  })
})

describe('bytes a session takes in Redis', () => {
  const SESSIONS = 1_000
  let redis: RedisServer
  let observer: Redis

  beforeAll(async () => {
    redis = await RedisServer.start()
    observer = new Redis(redis.url)
  })
  afterAll(async () => {
    observer.disconnect()
    await redis.stop()
  })

  /** The mean of many sessions, each made by a client with these headers. */
  async function oursWith(
    bytes: number,
    shape: string,
    options: Partial<SessionOptions> = {},
    headers: Record<string, string> = {},
  ): Promise<number> {
    const store = new RedisSessionStore({ url: redis.url })
    const server = await startApp({ store, ...options })
    try {
      await observer.flushall()
      await inParallel(SESSIONS, (n) => new Client(server).get(`/fill?n=${n}&bytes=${bytes}&shape=${shape}`, headers))
      return await meanBytes(observer, SESSIONS)
    } finally {
      await server.close()
      await store.close()
    }
  }

  // It keeps nothing of the client; we do, and take no more with it.
  test.each([
    [200, 'fields'],
    [200, 'one text'],
    [2_000, 'fields'],
    [2_000, 'one text'],
  ])(
    'with %i bytes of data as %s, and what we keep of the client: no more than connect-redis',
    async (bytes, shape) => {
      const ours = await oursWith(bytes, shape)
      await observer.flushall()
      await inParallel(SESSIONS, (n) => {
        const data = shape === 'one text' ? { data: 'x'.repeat(bytes) } : sessionOf(n, bytes)
        const [key, text] = asConnectRedis(n, data)
        return observer.set(key, text, 'EX', 1800)
      })
      expect(ours).toBeLessThanOrEqual(await meanBytes(observer, SESSIONS))
    },
  )

  const BROWSER = {
    'user-agent':
      'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36',
    referer: 'https://www.example.org/some/page/of/a/shop?query=1',
    'accept-language': 'en-GB,en;q=0.9,de;q=0.8',
  }
  const GIANT = {
    'user-agent': 'u'.repeat(4_000),
    referer: `https://www.example.org/${'r'.repeat(4_000)}`,
    'accept-language': `${'l'.repeat(4_000)},en`,
  }

  test.each([
    { client: 'an address', headers: {}, bound: 64 },
    { client: 'a browser', headers: BROWSER, bound: 350 },
    { client: 'headers of 4 KB each', headers: GIANT, bound: 800 },
  ])('for what is kept of $client: at most $bound more', async ({ headers, bound }) => {
    const without = await oursWith(200, 'fields', { clientContext: false }, headers)
    const added = (await oursWith(200, 'fields', {}, headers)) - without
    expect(added).toBeGreaterThanOrEqual(0)
    expect(added).toBeLessThanOrEqual(bound)
  })
})

/** What connect-redis stores: express-session's JSON under `sess:` and the session ID of 32 characters. */
function asConnectRedis(n: number, data: Record<string, unknown>): [key: string, text: string] {
  const key = `sess:${String(n).padStart(32, 'q')}`
  // By default; with a maxAge it is longer.
  const cookie = { originalMaxAge: null, expires: null, httpOnly: true, path: '/' }
  return [key, JSON.stringify({ cookie, ...data })]
}

async function meanBytes(redis: Redis, expectedKeys: number): Promise<number> {
  const keys = await redis.keys('*')
  expect(keys).toHaveLength(expectedKeys)
  let bytes = 0
  for (const used of await Promise.all(keys.map((key) => redis.memory('USAGE', key, 'SAMPLES', 0)))) bytes += used ?? 0
  return bytes / keys.length
}

async function inParallel(count: number, task: (n: number) => Promise<unknown>): Promise<void> {
  const WIDTH = 20
  for (let n = 0; n < count; n += WIDTH) {
    await Promise.all(Array.from({ length: Math.min(WIDTH, count - n) }, (_unused, index) => task(n + index)))
  }
}

function calls(store: FaultyStore): Record<string, number> {
  return { ...store.calls }
}

/** The names of the calls between two counts, but for the epoch, in the order of the contract. */
function newCalls(before: Record<string, number>, after: Record<string, number>): string[] {
  return Object.keys(after)
    .filter(isNotEpoch)
    .flatMap((name) => Array(Number(after[name]) - Number(before[name])).fill(name) as string[])
}

/**
 * What clients send meanwhile, one word a command: `read` for the record, `session`, `user` or `epoch` for a script on that,
 * and the name of any other command. What scripts call inside of Redis is no round trip.
 */
async function tripsDuring(observer: Redis, task: () => Promise<unknown>): Promise<string[]> {
  const commands = await commandsWhile(observer, task)
  return commands.filter(({ source }) => source !== 'lua').map(({ args }) => tripOf(args))
}

function tripOf([command = '', , , key = '']: readonly string[]): string {
  const name = command.toLowerCase()
  if (name === 'getrange') return 'read'
  if (name !== 'evalsha') return name
  if (key === 'soj:epoch') return 'epoch'
  return key.startsWith('soj:u:') ? 'user' : 'session'
}

/** The epoch belongs to no request: it is asked once a second, by whichever comes first. */
function isNotEpoch(trip: string): boolean {
  return trip !== 'epoch'
}
