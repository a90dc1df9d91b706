// The option `wait` of the Redis store: an ending counts when replicas have it.
import { createHash, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { type Regeneration, SessionData, type SessionEnd } from 'sojourn'
import { type RedisClient, RedisSessionStore } from 'sojourn/redis'
import { until } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'
import {
  ask,
  type RedisCluster,
  type RedisSentinel,
  startCluster,
  startSentinel,
} from '../../support/redis-topologies.js'

const HOUR_MS = 3_600_000
const LOGOUT: SessionEnd = { reason: 'logout', at: Date.now() }
const UNCONFIRMED = /not confirmed by its replicas/

function sample(id: string = randomUUID(), generation = 1): SessionData {
  const now = Date.now()
  return new SessionData({
    id,
    tokenHash: createHash('sha256').update(randomUUID()).digest('base64url'),
    generation,
    createdAt: now,
    updatedAt: now,
    lastAccessedAt: now,
    expiresAt: now + HOUR_MS,
    absoluteExpiresAt: now + 12 * HOUR_MS,
    fields: [['a', '1']],
  })
}

function regenerationOf(record: SessionData): Regeneration {
  const next = sample(record.id.slice(0, 4) + randomUUID().slice(4), record.generation + 1)
  return { generation: record.generation, at: Date.now(), next, keep: 'all', tombstoneSeconds: 60 }
}

function keyOf(id: string): string {
  return `soj:{${id.slice(0, 4)}}${id.slice(4)}`
}

async function begun(store: RedisSessionStore): Promise<SessionData> {
  const record = sample()
  expect(await store.create(record.id, record, 60)).toBe(true)
  return record
}

/** Whether a replica has the tombstone now, without waiting. */
function isEndedOn(replica: RedisServer, id: string): Promise<boolean> {
  return ask(replica, async (redis) => {
    // A replica in a cluster answers only who says that it may be stale.
    await redis.readonly().catch(() => {})
    return (await redis.getrange(keyOf(id), 0, 1)) === 'x\t'
  })
}

describe('one primary with one replica', () => {
  let primary: RedisServer
  let replica: RedisServer
  /** Waits for as long as it may take, and for no longer than it must. */
  let store: RedisSessionStore
  let impatient: RedisSessionStore
  beforeAll(async () => {
    primary = await RedisServer.start('--repl-diskless-sync-delay', '0')
    replica = await RedisServer.start('--replicaof', '127.0.0.1', String(primary.port))
    await until(
      () => ask(replica, async (redis) => /master_link_status:up/.test(await redis.info('replication'))),
      10_000,
    )
    store = new RedisSessionStore({ url: primary.url, wait: { replicas: 1, timeoutMs: 4_000 } })
    impatient = new RedisSessionStore({ url: primary.url, wait: { replicas: 1, timeoutMs: 100 } })
  })
  afterAll(async () => {
    await Promise.all([store.close(), impatient.close()])
    await Promise.all([primary.stop(), replica.stop()])
  })

  /** While the replica does not answer. */
  async function whileAway(action: () => Promise<void>): Promise<void> {
    replica.freeze()
    await action().finally(() => replica.thaw())
  }

  const unconfirmed = { code: 'STORE_UNAVAILABLE', message: expect.stringMatching(UNCONFIRMED) as unknown }

  test('an ending is on the replica when it is told', async () => {
    for (let round = 0; round < 20; round++) {
      const record = await begun(store)
      expect(await store.end(record.id, LOGOUT, 60)).toEqual({ status: 'ended' })
      expect(await isEndedOn(replica, record.id)).toBe(true)
    }
    const record = await begun(store)
    const regeneration = regenerationOf(record)
    expect((await store.regenerate(record.id, regeneration, 60)).status).toBe('regenerated')
    expect(await isEndedOn(replica, record.id)).toBe(true)
    expect(await ask(replica, (redis) => redis.exists(keyOf(regeneration.next.id)))).toBe(1)
  })

  test('an ending that the replica does not have in time is an error, and has happened', async () => {
    const [record, other] = [await begun(store), await begun(store)]
    await whileAway(async () => {
      await expect(impatient.end(record.id, LOGOUT, 60)).rejects.toMatchObject(unconfirmed)
      expect((await store.get(record.id))?.ended).toEqual(LOGOUT)
      // What is over already is no better than what is ended now.
      await expect(impatient.end(record.id, LOGOUT, 60)).rejects.toMatchObject(unconfirmed)
      await expect(impatient.regenerate(other.id, regenerationOf(other), 60)).rejects.toMatchObject(unconfirmed)
    })
    expect(await store.end(record.id, LOGOUT, 60)).toEqual({ status: 'over' })
    expect(await isEndedOn(replica, record.id)).toBe(true)
  })

  test('a raised epoch waits as well, one that is read does not', async () => {
    expect(await store.epoch(2)).toBe(2)
    expect(await ask(replica, (redis) => redis.get('soj:epoch'))).toBe('2')
    await whileAway(async () => {
      expect(await store.epoch()).toBe(2)
      await expect(impatient.epoch(3)).rejects.toMatchObject(unconfirmed)
    })
    expect(await store.epoch(3)).toBe(3)
  })

  test('what there is nothing to end of, or what cannot be read, waits for nobody', async () => {
    await ask(primary, (redis) => redis.set(keyOf('abcd-text'), 'no hash'))
    await whileAway(async () => {
      expect(await store.end(randomUUID(), LOGOUT, 60)).toEqual({ status: 'over' })
      expect(await store.end('abcd-text', LOGOUT, 60)).toEqual({ status: 'ended' })
    })
  })

  test('many endings share their waiting, and other calls do none', async () => {
    const slow = new RedisSessionStore({ url: primary.url, wait: { replicas: 1, timeoutMs: 1_000 } })
    const records = await Promise.all(Array.from({ length: 40 }, () => begun(slow)))
    await whileAway(async () => {
      const began = performance.now()
      const endings = records.map((record) => slow.end(record.id, LOGOUT, 60).catch((error: unknown) => error))
      const first = await Promise.race([...endings, slow.get(randomUUID())])
      expect(first).toBeNull()
      for (const result of await Promise.all(endings)) expect(result).toMatchObject(unconfirmed)
      // One after another they would take 40 s.
      expect(performance.now() - began).toBeLessThan(10_000)
    })
    await slow.close()
  })

  test('a handed-in client is duplicated for it, and the duplicate closed', async () => {
    const client = new Redis(primary.url, { keyPrefix: 'app:', connectionName: 'handed-in' })
    const own = new RedisSessionStore({ client, wait: { replicas: 1 } })
    const connections = async (): Promise<number> =>
      String(await ask(primary, (redis) => redis.client('LIST')))
        .split('\n')
        .filter((line) => line.includes('name=handed-in')).length
    const record = await begun(own)
    expect(await own.end(record.id, LOGOUT, 60)).toEqual({ status: 'ended' })
    expect(await ask(replica, (redis) => redis.getrange(`app:${keyOf(record.id)}`, 0, 1))).toBe('x\t')
    expect(await connections()).toBe(2)
    await own.close()
    await until(async () => (await connections()) === 1)
    expect(client.status).toBe('ready')
    client.disconnect()
  })

  test('without a connection to ask on, the session has ended all the same', async () => {
    const client = new Redis(primary.url)
    const nowhere = new Redis('redis://127.0.0.1:1', { retryStrategy: () => null, lazyConnect: true })
    nowhere.on('error', () => {})
    const away: RedisClient = {
      hgetall: (key) => client.hgetall(key),
      get: (key) => client.get(key),
      getrange: (key, start, end) => client.getrange(key, start, end),
      strlen: (key) => client.strlen(key),
      del: (key) => client.del(key),
      evalsha: (sha, keys, ...args) => client.evalsha(sha, keys, ...args),
      eval: (lua, keys, ...args) => client.eval(lua, keys, ...args),
      once: () => {},
      duplicate: () => nowhere,
    }
    const own = new RedisSessionStore({ client: away, wait: { replicas: 1 } })
    const record = await begun(own)
    await expect(own.end(record.id, LOGOUT, 60)).rejects.toMatchObject(unconfirmed)
    expect((await store.get(record.id))?.ended).toEqual(LOGOUT)
    await own.close()
    client.disconnect()
  })

  test.each([
    ['is there', 1, { status: 'ended' }],
    ['has been undone by a failover', 0, undefined],
  ])('an ending that %s when replicas are asked', async (_what, isThere, expected) => {
    const client = new Redis(primary.url)
    const second = Object.assign(client.duplicate(), {
      pipeline: () => ({ eval: () => {}, wait: () => {}, exec: async () => replies }),
    })
    const replies: [null, number][] = [
      [null, isThere],
      [null, 1],
    ]
    const asked: RedisClient = {
      hgetall: (key) => client.hgetall(key),
      get: (key) => client.get(key),
      getrange: (key, start, end) => client.getrange(key, start, end),
      strlen: (key) => client.strlen(key),
      del: (key) => client.del(key),
      evalsha: (sha, keys, ...args) => client.evalsha(sha, keys, ...args),
      eval: (lua, keys, ...args) => client.eval(lua, keys, ...args),
      once: () => {},
      duplicate: () => second,
    }
    const own = new RedisSessionStore({ client: asked, wait: { replicas: 1 } })
    const record = await begun(own)
    const ending = own.end(record.id, LOGOUT, 60)
    if (expected) expect(await ending).toEqual(expected)
    else await expect(ending).rejects.toMatchObject(unconfirmed)
    await own.close()
    client.disconnect()
  })
})

describe('a primary behind Sentinel', () => {
  let sentinel: RedisSentinel
  beforeAll(async () => {
    sentinel = await startSentinel()
  })
  afterAll(() => sentinel.stop())

  test('no session whose ending was confirmed comes back by a failover', async () => {
    const client = await sentinel.connect()
    const store = new RedisSessionStore({ client, wait: { replicas: 1, timeoutMs: 4_000 } })
    const records = await Promise.all(Array.from({ length: 20 }, () => begun(store)))
    await Promise.all(records.map(({ id }) => store.end(id, LOGOUT, 60)))
    await sentinel.primary.kill()
    await until(() => store.create(randomUUID(), sample(), 60).catch(() => false), 20_000)
    for (const { id } of records) expect((await store.get(id))?.ended).toEqual(LOGOUT)
    // Nobody is left to confirm.
    const record = await begun(store)
    const own = new RedisSessionStore({ client, wait: { replicas: 1, timeoutMs: 50 } })
    await expect(own.end(record.id, LOGOUT, 60)).rejects.toMatchObject({ message: expect.stringMatching(UNCONFIRMED) })
    await Promise.all([store.close(), own.close()])
  })
})

describe('a cluster', () => {
  let cluster: RedisCluster
  beforeAll(async () => {
    cluster = await startCluster()
  })
  afterAll(() => cluster.stop())

  async function expectOnReplica(id: string): Promise<void> {
    const { replicas } = await cluster.holdersOf(keyOf(id))
    expect(await Promise.all(replicas.map((replica) => isEndedOn(replica, id)))).toEqual([true])
  }

  test('endings on all nodes at once are on the replica of each', async () => {
    const store = new RedisSessionStore({ client: await cluster.connect(), wait: { replicas: 1, timeoutMs: 4_000 } })
    const records = await Promise.all(Array.from({ length: 40 }, () => begun(store)))
    const results = await Promise.all(records.map(({ id }) => store.end(id, LOGOUT, 60)))
    expect(results).toEqual(records.map(() => ({ status: 'ended' })))
    for (const { id } of records) await expectOnReplica(id)
    expect(await store.epoch(1)).toBe(1)
    await store.close()
  })

  test('an ending is confirmed by the right node when the client has a wrong one in mind', async () => {
    const client = await cluster.connect()
    const second = client.duplicate()
    client.duplicate = (() => second) as typeof client.duplicate
    const store = new RedisSessionStore({ client, wait: { replicas: 1, timeoutMs: 4_000 } })
    const record = await begun(store)
    await store.end(record.id, LOGOUT, 60)
    const other = await begun(store)
    const slot = await ask(cluster.nodes[0] as RedisServer, (redis) => redis.cluster('KEYSLOT', keyOf(other.id)))
    const { primary } = await cluster.holdersOf(keyOf(other.id))
    const wrong = second.nodes('master').find(({ options }) => options.port !== primary.port)
    second.slots[slot] = [`127.0.0.1:${wrong?.options.port}`]
    expect(await store.end(other.id, LOGOUT, 60)).toEqual({ status: 'ended' })
    await expectOnReplica(other.id)
    await store.close()
  })

  test('endings that wait for one node are confirmed each by its own when a slot moves while they wait', async () => {
    const client = await cluster.connect()
    const second = client.duplicate()
    client.duplicate = (() => second) as typeof client.duplicate
    const store = new RedisSessionStore({ client, wait: { replicas: 1, timeoutMs: 4_000 } })
    const { primary, replica, records } = await onOneNode(store, 3)
    const [first, moving, staying] = records as [SessionData, SessionData, SessionData]
    if (second.status !== 'ready') await new Promise((resolve) => second.once('ready', resolve))
    await cluster.moveSlotOf(keyOf(moving.id), async () => {})
    const { primary: movedTo } = await cluster.holdersOf(keyOf(moving.id))
    replica.freeze()
    const ends: Promise<unknown>[] = []
    try {
      ends.push(store.end(first.id, LOGOUT, 60))
      await until(() => ask(primary, async (redis) => /blocked_clients:1/.test(await redis.info('clients'))))
      ends.push(store.end(moving.id, LOGOUT, 60), store.end(staying.id, LOGOUT, 60))
      await until(() => isEndedOn(movedTo, moving.id))
      await until(() => isEndedOn(primary, staying.id))
      // What was answered on the connection before this is waiting now.
      await Promise.all(records.map(({ id }) => store.get(id)))
      // Only now the connection that asks replicas hears of it.
      await new Promise((resolve) => second.refreshSlotsCache(resolve))
    } finally {
      replica.thaw()
    }
    expect(await Promise.all(ends)).toEqual(ends.map(() => ({ status: 'ended' })))
    // The replica may have been taken for lost.
    await cluster.settled()
    for (const { id } of records) await expectOnReplica(id)
    await store.close()
  })

  /** As many sessions as asked for, each in a slot of its own, that are all on one node. */
  async function onOneNode(
    store: RedisSessionStore,
    count: number,
  ): Promise<{ primary: RedisServer; replica: RedisServer; records: SessionData[] }> {
    const found = new Map<RedisServer, SessionData[]>()
    for (;;) {
      const record = await begun(store)
      const { primary, replicas } = await cluster.holdersOf(keyOf(record.id))
      const records = [...(found.get(primary) ?? []), record]
      found.set(primary, records)
      if (records.length === count) return { primary, replica: replicas[0] as RedisServer, records }
    }
  }
})

describe('options', () => {
  test.each<[string, unknown, unknown]>([
    ['no replica', { replicas: 0 }, {}],
    ['half a replica', { replicas: 0.5 }, {}],
    ['no time', { replicas: 1, timeoutMs: 0 }, {}],
    ['more time than a connection may be silent', { replicas: 1, timeoutMs: 5_000 }, {}],
    ['nothing', null, {}],
  ])('to wait with %s are refused', (_what, wait, client) => {
    expect(() => new RedisSessionStore({ client, wait } as never)).toThrow(/wait must be/)
  })

  test('to wait need a client that can be duplicated', () => {
    const least = {
      hgetall: async () => ({}),
      get: async () => null,
      getrange: async () => '',
      strlen: async () => 0,
      del: async () => 0,
      evalsha: async () => 0,
      eval: async () => 0,
      once: () => {},
    }
    expect(() => new RedisSessionStore({ client: least, wait: { replicas: 1 } })).toThrow(
      /wait needs a second connection/,
    )
  })
})
