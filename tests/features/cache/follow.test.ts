// What belongs to a session or a user goes with it, wherever it ends, at least once; and follows a session that goes on.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express from 'express'
import { Redis } from 'ioredis'
import { MemorySessionStore, SessionManager, session } from 'sojourn'
import {
  type CacheStorage,
  type CacheTrouble,
  keyvCacheStorage,
  MemoryCacheStorage,
  RedisCacheStorage,
  SessionCache,
  sessionNamespace,
  userNamespace,
} from 'sojourn/cache'
import { FakeClock } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer, until as untilInTime } from '../../support/http.js'
import { sharedRedis } from '../../support/redis.js'

/** For a machine that does much else at the same time. */
const until = (condition: () => boolean | Promise<boolean>): Promise<void> => untilInTime(condition, 20_000)

let server: Awaited<ReturnType<typeof sharedRedis>>
let client: Redis
const managers: SessionManager[] = []
const caches: SessionCache[] = []
const running: TestServer[] = []

beforeAll(async () => {
  server = await sharedRedis()
  client = new Redis(server.url)
})
afterEach(async () => {
  for (const one of running.splice(0)) await one.close()
  for (const cache of caches.splice(0)) await cache.close()
  for (const manager of managers.splice(0)) await manager.close()
})
afterAll(async () => {
  client.disconnect()
  await server.stop()
})

const STORAGES: [string, () => CacheStorage][] = [
  ['memory', () => new MemoryCacheStorage()],
  ['Redis', () => new RedisCacheStorage({ client })],
]

function make(
  storage: CacheStorage,
  { sweepInterval }: { sweepInterval?: string } = {},
): {
  cache: SessionCache
  manager: SessionManager
  clock: FakeClock
  troubles: CacheTrouble[]
  has(namespace: string): Promise<boolean>
} {
  const clock = new FakeClock()
  const troubles: CacheTrouble[] = []
  const manager = new SessionManager({
    secret: SECRET,
    store: new MemorySessionStore({ clock: clock.now }),
    clock: clock.now,
  })
  const cache = new SessionCache({
    storage,
    ttl: '30d',
    storageTimeout: '10s',
    onError: (_e, trouble) => troubles.push(trouble),
  })
  managers.push(manager)
  caches.push(cache)
  cache.follow(manager, { sweepInterval })
  return {
    cache,
    manager,
    clock,
    troubles,
    has: (namespace) => cache.within(namespace, async () => (await cache.get('k')) !== undefined),
  }
}

const fill = (cache: SessionCache, ...namespaces: string[]): Promise<unknown> =>
  Promise.all(namespaces.map((namespace) => cache.within(namespace, () => cache.set('k', namespace))))

describe.each(STORAGES)('in %s', (_name, createStorage) => {
  test('a session takes its own along, and that of its user with the last session of the user', async () => {
    const { cache, manager, has } = make(createStorage())
    const userId = `ann ${Math.random()}`
    const [one, two] = [await manager.create({ userId }), await manager.create({ userId })]
    const [ofOne, ofTwo, ofUser] = [sessionNamespace(one.id), sessionNamespace(two.id), userNamespace(userId)]
    await fill(cache, ofOne, ofTwo, ofUser)
    await manager.revoke(one.id)
    await until(async () => !(await has(ofOne)))
    expect([await has(ofTwo), await has(ofUser)]).toEqual([true, true])
    await manager.revokeUser(userId)
    await until(async () => !(await has(ofTwo)) && !(await has(ofUser)))
  })

  test('a session that goes on takes its own along; one that is over does not', async () => {
    const { cache, manager, has } = make(createStorage())
    const app = express()
    app.set('env', 'test')
    app.use(manager.middleware())
    app.use(cache.forRequest((req) => sessionNamespace((req as express.Request).session)))
    app.post('/begin', async (req, res) => {
      req.session.set('n', 1)
      await req.session.save()
      await cache.set('k', 'from before')
      res.json(req.session.id)
    })
    app.post('/login', async (req, res) => {
      await req.session.login('bob')
      res.json(req.session.id)
    })
    app.post('/regenerate', async (req, res) => {
      await req.session.regenerate()
      res.json(req.session.id)
    })
    const listening = await listen(app)
    running.push(listening)
    const browser = new Client(listening)
    const first = (await browser.post('/begin')).json<string>()
    const second = (await browser.post('/login')).json<string>()
    await until(async () => (await has(sessionNamespace(second))) && !(await has(sessionNamespace(first))))
    const third = (await browser.post('/regenerate')).json<string>()
    await until(async () => !(await has(sessionNamespace(second))))
    expect(await has(sessionNamespace(third))).toBe(false)
  })

  test('what no event has removed, a later look does; others stay', async () => {
    const { cache, manager, has, troubles } = make(createStorage(), { sweepInterval: '20ms' })
    const userId = `eve ${Math.random()}`
    const alive = await manager.create({ userId })
    const [gone, ofNobody] = [
      sessionNamespace('00000000-0000-4000-8000-000000000000'),
      userNamespace(`nobody ${Math.random()}`),
    ]
    await fill(cache, gone, ofNobody, userNamespace(7), sessionNamespace(alive.id), userNamespace(userId), 'tenant_7')
    await until(async () => !(await has(gone)) && !(await has(ofNobody)) && !(await has(userNamespace(7))))
    expect([await has(sessionNamespace(alive.id)), await has(userNamespace(userId)), await has('tenant_7')]).toEqual([
      true,
      true,
      true,
    ])
    expect(troubles).toEqual([])
  })
})

test('a removal that the storage refuses is told, and done by a later look', async () => {
  const storage = new MemoryCacheStorage()
  const { cache, manager, has, troubles } = make(storage, { sweepInterval: '20ms' })
  const one = await manager.create()
  await fill(cache, sessionNamespace(one.id))
  const clear = storage.clear.bind(storage)
  storage.clear = () => {
    throw new Error('away')
  }
  await manager.revoke(one.id)
  await until(() => troubles.length > 0)
  expect(troubles[0]).toEqual({ operation: 'follow', namespace: sessionNamespace(one.id) })
  expect(await has(sessionNamespace(one.id))).toBe(true)
  storage.clear = clear
  await until(async () => !(await has(sessionNamespace(one.id))))
})

test('a session that ran out is over', async () => {
  const { cache, manager, clock, has } = make(new MemoryCacheStorage(), { sweepInterval: '20ms' })
  const one = await manager.create()
  await fill(cache, sessionNamespace(one.id))
  clock.advance(400 * 86_400_000)
  await until(async () => !(await has(sessionNamespace(one.id))))
})

test('it can be stopped, and needs a storage that lists its namespaces', async () => {
  const manager = new SessionManager({ secret: SECRET })
  managers.push(manager)
  const cache = new SessionCache()
  const stop = cache.follow(manager)
  const one = await manager.create()
  await fill(cache, sessionNamespace(one.id))
  stop()
  await manager.revoke(one.id)
  expect(await cache.within(sessionNamespace(one.id), () => cache.get('k'))).toBeDefined()
  const keyv = new SessionCache({ storage: keyvCacheStorage(new Map() as never) })
  expect(() => keyv.follow(manager)).toThrow('follow() needs a storage that can list its namespaces')
})

test('session() has the manager that is followed', async () => {
  const cache = new SessionCache()
  caches.push(cache)
  expect(() => cache.follow(session({ secret: SECRET }).manager)()).not.toThrow()
})
