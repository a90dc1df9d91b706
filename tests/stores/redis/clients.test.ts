// Clients that are handed in: which are taken, that the store is the same on each, and what a fault does on them.
import { randomUUID } from 'node:crypto'
import { getMaxListeners } from 'node:events'
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { Redis as Valkey, Cluster as ValkeyCluster } from 'iovalkey'
import { createClient, createClientPool, createCluster, createSentinel } from 'redis'
import * as redis5 from 'redis5'
import { SessionManager } from 'sojourn'
import { type RedisClient, RedisSessionStore, type RedisSessionStoreOptions } from 'sojourn/redis'
import { conformanceChecks } from 'sojourn/testing'
import { SECRET, until } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'
import {
  ask,
  type RedisCluster,
  type RedisSentinel,
  startCluster,
  startSentinel,
} from '../../support/redis-topologies.js'

type Client = NonNullable<RedisSessionStoreOptions['client']>

let server: RedisServer
let cluster: RedisCluster
let sentinel: RedisSentinel
const stores: RedisSessionStore[] = []
const closing: (() => unknown)[] = []
beforeAll(async () => {
  ;[server, cluster, sentinel] = await Promise.all([RedisServer.start(), startCluster(), startSentinel()])
}, 60_000)
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()))
  await Promise.all(closing.map((close) => close()))
  await Promise.all([server.stop(), cluster.stop(), sentinel.stop()])
})

interface NodeRedisLike {
  on(event: 'error', listener: () => void): unknown
  connect(): Promise<unknown>
  destroy(): unknown
}

/** A store that is closed at the end: it has connections of its own beside the client. */
function storeOn(options: RedisSessionStoreOptions): RedisSessionStore {
  const store = new RedisSessionStore(options)
  stores.push(store)
  return store
}

/** Opened as its documentation says. */
async function opened<T extends NodeRedisLike>(client: T): Promise<T> {
  client.on('error', () => {})
  closing.push(() => client.destroy())
  await client.connect()
  return client
}

function iovalkey(client: Valkey | ValkeyCluster): RedisClient {
  closing.push(() => client.disconnect())
  return client
}

const rootNodes = (): { url: string }[] => cluster.nodes.map(({ url }) => ({ url }))
const sentinels = (): { name: string; sentinelRootNodes: { host: string; port: number }[] } => ({
  name: sentinel.name,
  sentinelRootNodes: sentinel.ports.map((port) => ({ host: '127.0.0.1', port })),
})

const CLIENTS: readonly (readonly [string, () => Promise<Client>])[] = [
  ['node-redis 6', () => opened(createClient({ url: server.url }))],
  ['node-redis 5', () => opened(redis5.createClient({ url: server.url }))],
  ['a cluster of node-redis 6', () => opened(createCluster({ rootNodes: rootNodes() }))],
  ['a Sentinel of node-redis 6', () => opened(createSentinel(sentinels()))],
  ['iovalkey', async () => iovalkey(new Valkey(server.url))],
]

describe.each(CLIENTS)('%s', (_name, connect) => {
  let store: RedisSessionStore
  let peer: RedisSessionStore
  beforeAll(async () => {
    store = storeOn({ client: await connect() })
    peer = storeOn({ client: await connect() })
  })
  const suite = { createStore: () => store, createPeer: () => peer, destroyStore: async () => {} }
  for (const { name, run } of conformanceChecks(suite)) test(name, run)
})

test.each<[string, () => Promise<Client>]>([
  ['node-redis 6 that speaks the second protocol', () => opened(createClient({ url: server.url, RESP: 2 }))],
  [
    'node-redis 6 that replies with buffers',
    () => opened(createClient({ url: server.url, commandOptions: { typeMapping: { 36: Buffer } } })),
  ],
  ['a pool of node-redis 6', () => opened(createClientPool({ url: server.url }, { minimum: 1, maximum: 3 }))],
  [
    'a cluster of node-redis 5 that reads from replicas',
    () => opened(redis5.createCluster({ rootNodes: rootNodes(), useReplicas: true })),
  ],
  ['a Sentinel of node-redis 5', () => opened(redis5.createSentinel({ ...sentinels(), replicaPoolSize: 1 }))],
  [
    'a cluster of iovalkey',
    async () => iovalkey(new ValkeyCluster(cluster.nodes.map(({ port }) => ({ host: '127.0.0.1', port })))),
  ],
])('a login, a list, a note and a logout on %s', async (name, connect) => {
  const store = storeOn({ client: await connect(), prefix: `${name.length}:` })
  const manager = new SessionManager({ secret: SECRET, store })
  const { id } = await manager.create({ userId: 'ann', fields: { cart: ['tea'] } })
  expect((await manager.get(id))?.fields).toEqual({ cart: ['tea'] })
  expect(await manager.sessionsOf('ann')).toMatchObject([{ id, userId: 'ann' }])
  expect(await manager.count()).toBe(1)
  await manager.notes.put('purpose', 'key', 'text', { ttlSeconds: 60 })
  expect(await manager.notes.take('purpose', 'key')).toBe('text')
  expect(await manager.revokeUser('ann')).toBe(1)
  expect(await manager.get(id)).toBeNull()
})

test('replicas are never asked, whatever the client does with its other reads', async () => {
  const client = await opened(createCluster({ rootNodes: rootNodes(), useReplicas: true }))
  const store = storeOn({ client })
  const manager = new SessionManager({ secret: SECRET, store })
  const { id } = await manager.create({ fields: { a: 1 } })
  const { replicas } = await cluster.holdersOf(`soj:{${id.slice(0, 4)}}${id.slice(4)}`)
  const [replica] = replicas as [RedisServer]
  await ask(replica, (redis) => redis.config('RESETSTAT'))
  for (let time = 0; time < 20; time++) expect(await manager.get(id)).not.toBeNull()
  expect(await ask(replica, (redis) => redis.info('commandstats'))).not.toMatch(/cmdstat_(getrange|hgetall|evalsha)/)
})

describe('a client that has lost its server', () => {
  test.each<[string, (url: string) => Promise<Client>]>([
    ['node-redis 6', (url) => opened(createClient({ url, socket: { reconnectStrategy: 10 } }))],
    ['node-redis 5', (url) => opened(redis5.createClient({ url, socket: { reconnectStrategy: 10 } }))],
    [
      'a pool of node-redis 6',
      (url) => opened(createClientPool({ url, socket: { reconnectStrategy: 10 } }, { minimum: 1, maximum: 1 })),
    ],
  ])('%s: what was refused meanwhile is not done later, and the store works again', async (_name, connect) => {
    const own = await RedisServer.start()
    const store = storeOn({ client: await connect(own.url), prefix: '' })
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '2s' })
    await manager.create()
    await own.kill()
    const refused = await Promise.allSettled([1, 2, 3].map(() => manager.create()))
    expect(refused.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    await own.restart()
    await until(
      () =>
        manager.count().then(
          () => true,
          () => false,
        ),
      10_000,
    )
    expect(await manager.count()).toBe(0)
    await manager.create()
    expect(await manager.count()).toBe(1)
    await own.stop()
  })

  // Nothing is wrong with the server then, and what the process has not come to do is not late.
  test.each<[string, () => Promise<Client>]>([
    ['node-redis 6', () => opened(createClient({ url: server.url }))],
    ['node-redis 5', () => opened(redis5.createClient({ url: server.url }))],
  ])('%s: a call is made, however long the event loop stood still behind it', async (_name, connect) => {
    const store = storeOn({ client: await connect() })
    const call = await new Promise<{ answer: Promise<unknown> }>((resolve) => {
      setImmediate(() => {
        const answer = store.get('00000000-0000-4000-8000-000000000000')
        const end = performance.now() + 700
        while (performance.now() < end);
        resolve({ answer })
      })
    })
    expect(await call.answer).toBeNull()
  })

  // On Node 20 a signal with more listeners than it is said to have makes a process warning of a leak.
  test('no more calls of one turn share a signal than it may have listeners', async () => {
    const client = await opened(createClient({ url: server.url }))
    const sending = jest.spyOn(client, 'sendCommand')
    const store = storeOn({ client })
    await Promise.all(Array.from({ length: 60 }, () => store.get(randomUUID())))
    const signals = sending.mock.calls.map(([, options]) => options?.abortSignal as AbortSignal)
    expect(signals.length).toBeGreaterThanOrEqual(60)
    for (const signal of new Set(signals)) {
      const sharing = signals.filter((each) => each === signal).length
      expect(sharing).toBeLessThanOrEqual(getMaxListeners(signal) || Number.POSITIVE_INFINITY)
    }
  })

  test('one that was never opened says what to do', async () => {
    const client = createClient({ url: server.url })
    const store = storeOn({ client })
    await expect(store.get('00000000-0000-4000-8000-000000000000')).rejects.toThrow(/await client\.connect\(\)/)
  })
})

describe('wait', () => {
  test('works with a client of node-redis for one server', async () => {
    const client = await opened(createClient({ url: server.url }))
    const store = storeOn({ client, wait: { replicas: 1, timeoutMs: 50 } })
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '10s' })
    const { id } = await manager.create()
    // There is no replica, and the session has ended all the same.
    await expect(manager.revoke(id)).rejects.toThrow(/0 of 1 replicas/)
    expect(await manager.get(id)).toBeNull()
    await store.close()
    expect(client.isOpen).toBe(true)
  })

  test('is refused with clients of which commands may change their order', async () => {
    for (const client of [createCluster({ rootNodes: rootNodes() }), createSentinel(sentinels())]) {
      expect(() => new RedisSessionStore({ client, wait: { replicas: 1 } })).toThrow(/wait needs a second connection/)
    }
  })
})

test.each<[string, unknown, RegExp]>([
  ['a client of GLIDE', { invokeScript: () => {}, customCommand: () => {} }, /valkey-glide.*Give an ioredis/],
  ['a client of node-redis in its legacy mode', { legacyMode: true, sendCommand: () => {} }, /legacy mode/],
  ['a URL', 'redis://localhost', /client must be a client of Redis.*Give an ioredis/],
  ['something else', { get: () => {} }, /client has no getrange, .*Give an ioredis/],
])('%s is refused, with what to give instead', (_name, client, message) => {
  expect(() => new RedisSessionStore({ client: client as RedisClient })).toThrow(message)
})
