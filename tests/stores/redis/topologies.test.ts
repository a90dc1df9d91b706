// The Redis store on a cluster and behind Sentinel: the conformance suite, and a failover that it lives through.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { RedisSessionStore } from 'sojourn/redis'
import { conformanceChecks } from 'sojourn/testing'
import { testApp } from '../../support/app.js'
import { type Answer, Client, listen, until } from '../../support/http.js'
import type { RedisServer } from '../../support/redis.js'
import {
  ask,
  type RedisCluster,
  type RedisSentinel,
  startCluster,
  startSentinel,
} from '../../support/redis-topologies.js'

let cluster: RedisCluster
let sentinel: RedisSentinel
beforeAll(async () => {
  ;[cluster, sentinel] = await Promise.all([startCluster(), startSentinel()])
})
afterAll(async () => {
  await Promise.all([cluster.stop(), sentinel.stop()])
})

const PREFIX = 'topologies:'

function keyOf(id: string): string {
  return `${PREFIX}{${id.slice(0, 4)}}${id.slice(4)}`
}

describe('a cluster of six nodes', () => {
  let store: RedisSessionStore
  let peer: RedisSessionStore
  beforeAll(async () => {
    store = new RedisSessionStore({ client: await cluster.connect() })
    peer = new RedisSessionStore({ client: await cluster.connect() })
  })
  const suite = { createStore: () => store, createPeer: () => peer, destroyStore: async () => {} }
  for (const { name, run } of conformanceChecks(suite)) test(name, run)

  test('goes on with its sessions when a primary is lost', async () => {
    await expectFailover(new RedisSessionStore({ client: await cluster.connect(), prefix: PREFIX }), async (id) => {
      const { primary, replicas } = await cluster.holdersOf(keyOf(id))
      await hasCopy(replicas[0] as RedisServer, id)
      return primary
    })
  })
})

describe('a primary behind Sentinel', () => {
  let store: RedisSessionStore
  let peer: RedisSessionStore
  beforeAll(async () => {
    store = new RedisSessionStore({ client: await sentinel.connect() })
    peer = new RedisSessionStore({ client: await sentinel.connect() })
  })
  const suite = { createStore: () => store, createPeer: () => peer, destroyStore: async () => {} }
  for (const { name, run } of conformanceChecks(suite)) test(name, run)

  test('goes on with its sessions when the primary is lost', async () => {
    await expectFailover(new RedisSessionStore({ client: await sentinel.connect(), prefix: PREFIX }), async (id) => {
      await hasCopy(sentinel.replica, id)
      return sentinel.primary
    })
  })
})

async function hasCopy(replica: RedisServer, id: string): Promise<void> {
  await until(() =>
    ask(replica, async (redis) => {
      // A replica in a cluster answers only who says that it may be stale.
      await redis.readonly().catch(() => {})
      return ((await redis.get(keyOf(id))) ?? '').includes('\n.kept\t')
    }),
  )
}

/** Kills the server that `primaryOf` names once a session is copied; in the end the same app, over HTTP, goes on with it. */
async function expectFailover(
  store: RedisSessionStore,
  primaryOf: (id: string) => Promise<RedisServer>,
): Promise<void> {
  const server = await listen(testApp({ store }).app)
  try {
    const client = new Client(server)
    const { id } = (await client.post('/set?kept=1')).json<{ id: string }>()
    const primary = await primaryOf(id)
    await primary.kill()
    const answers: Answer[] = []
    await until(async () => {
      const answer = await client.post('/set?after=1')
      answers.push(answer)
      return answer.status === 200
    }, 15_000)
    for (const answer of answers.slice(0, -1)) {
      expect([answer.status, answer.setCookies, answer.headers['retry-after']]).toEqual([503, [], '1'])
      expect(answer.headAfterMs).toBeLessThan(2_000 + 100)
    }
    expect((await client.get('/peek')).json()).toMatchObject({ id, fields: { kept: '1', after: '1' } })
    const left = client.clone()
    expect((await client.post('/logout')).status).toBe(200)
    expect((await left.get('/peek')).json()).toMatchObject({ fields: {} })
    expect((await client.post('/login')).status).toBe(200)
    await primary.restart()
  } finally {
    await server.close()
  }
}
