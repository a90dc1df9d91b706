// The near cache where Redis is several machines: who tells of changes, and that no answer is older than it may be while a primary is
// lost, frozen or replaced, and while a slot moves.
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { createCluster } from 'redis'
import { type NodeRedisClient, type RedisClient, RedisSessionStore } from 'sojourn/redis'
import { until } from '../../../support/http.js'
import { atOnce, keep, Race, sampleRecord } from '../../../support/near-cache.js'
import type { RedisServer } from '../../../support/redis.js'
import {
  ask,
  type RedisCluster,
  type RedisSentinel,
  replicated,
  startCluster,
  startSentinel,
} from '../../../support/redis-topologies.js'

jest.setTimeout(120_000)

const MAX_AGE_MS = 500
const LOGOUT = { reason: 'logout', at: 1_700_000_000_000 } as const

let cluster: RedisCluster
let sentinel: RedisSentinel
beforeAll(async () => {
  ;[cluster, sentinel] = await Promise.all([startCluster(), startSentinel()])
}, 60_000)
afterAll(async () => {
  await Promise.all([cluster.stop(), sentinel.stop()])
})

const stores: RedisSessionStore[] = []
const closing: (() => unknown)[] = []
afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all(stores.splice(0).map((store) => store.close()))
  for (const close of closing.splice(0)) close()
})

function keyOf(id: string): string {
  return `soj:{${id.slice(0, 4)}}${id.slice(4)}`
}

/** A process with a near cache that has a session in it, and one without. */
async function begin(
  connect: () => Promise<RedisClient | NodeRedisClient>,
): Promise<{ near: RedisSessionStore; other: RedisSessionStore; id: string }> {
  const near = new RedisSessionStore({ client: await connect(), nearCache: { maxAge: `${MAX_AGE_MS}ms` } })
  const other = new RedisSessionStore({ client: await connect() })
  stores.push(near, other)
  const record = sampleRecord()
  await until(() => other.create(record.id, record, 3_600).catch(() => false), 30_000)
  await keep(near, record.id)
  return { near, other, id: record.id }
}

/** A race during which `disturb` does something to the servers. */
async function expectInTime(
  connect: () => Promise<RedisClient | NodeRedisClient>,
  disturb: (id: string, race: Race) => Promise<unknown>,
): Promise<void> {
  const { near, other, id } = await begin(connect)
  const race = new Race({ near, other, id, maxAgeMs: MAX_AGE_MS })
  race.start()
  try {
    await race.goesOn()
    await disturb(id, race)
    await race.goesOn()
  } finally {
    await race.stop()
  }
  expect(race.late).toEqual([])
}

/** How many connections are told of changes by a server. */
async function trackersAt(server: RedisServer): Promise<number> {
  const list = await ask(server, (redis) => redis.client('LIST'))
  return String(list).match(/ redir=\d/g)?.length ?? 0
}

async function connectByNodeRedis(): Promise<NodeRedisClient> {
  const client = createCluster({ rootNodes: cluster.nodes.map(({ url }) => ({ url })), useReplicas: true })
  client.on('error', () => {})
  await client.connect()
  closing.push(() => client.destroy())
  return client
}

/** Resolves when every node tells this number of connections of changes. */
function listened(count: number): Promise<void> {
  return until(async () => {
    const counts = await Promise.all(cluster.nodes.map(trackersAt))
    return counts.every((each) => each === count)
  }, 30_000)
}

describe.each<[string, () => Promise<RedisClient | NodeRedisClient>]>([
  ['ioredis', () => cluster.connect()],
  ['node-redis', connectByNodeRedis],
])('a cluster of six nodes, by %s', (_name, connect) => {
  test('is listened to at every node, replicas included, and tells of a session that has ended elsewhere', async () => {
    const { near, other, id } = await begin(connect)
    await listened(1)
    // Its age does not do it.
    jest.spyOn(performance, 'now').mockReturnValue(performance.now())
    await other.end(id, LOGOUT, 60)
    await until(() => atOnce(near, id) === undefined, 30_000)
    expect((await near.get(id))?.ended).toMatchObject(LOGOUT)
  })

  test(
    'is never late while a slot moves to another primary',
    () => expectInTime(connect, (id) => cluster.moveSlotOf(keyOf(id), async () => {})),
    60_000,
  )
})

describe('a cluster of six nodes', () => {
  const connect = (): Promise<RedisClient> => cluster.connect()

  test('is listened to no more once the store is closed', async () => {
    const { near } = await begin(connect)
    await listened(1)
    await near.close()
    await listened(0)
  })

  test(
    'is never late while a primary is frozen and its replica takes over',
    () =>
      expectInTime(connect, async (id) => {
        await cluster.settled()
        const { primary } = await cluster.holdersOf(keyOf(id))
        await replicated(primary, id.slice(0, 4))
        primary.freeze()
        try {
          await until(async () => (await cluster.holdersOf(keyOf(id)).catch(() => null))?.primary !== primary, 30_000)
        } finally {
          primary.thaw()
        }
        await cluster.settled()
      }),
    120_000,
  )
})

describe('a primary behind Sentinel', () => {
  const connect = (): Promise<RedisClient> => sentinel.connect()

  test('tells of a session that has ended elsewhere', async () => {
    const { near, other, id } = await begin(connect)
    jest.spyOn(performance, 'now').mockReturnValue(performance.now())
    await other.end(id, LOGOUT, 60)
    await until(() => atOnce(near, id) === undefined, 30_000)
    expect((await near.get(id))?.ended).toMatchObject(LOGOUT)
  })

  test(
    'is never late while the primary is lost and its replica takes over',
    () =>
      expectInTime(connect, async (_id, race) => {
        const { primary, replica } = await sentinel.roles()
        await replicated(primary, 'any')
        await primary.kill()
        await until(
          () => ask(replica, async (redis) => (await redis.role())[0] === 'master').catch(() => false),
          30_000,
        )
        // Before it comes back: clients that find it as a primary then would stay with it as a replica.
        await race.goesOn()
        await sentinel.rejoin(primary)
      }),
    120_000,
  )
})
