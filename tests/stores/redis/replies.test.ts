// What Redis answers is read strictly: numbers may come as text, and what we do not know is a failure.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { SessionData, type SessionStore } from 'sojourn'
import { type RedisClient, RedisSessionStore } from 'sojourn/redis'
import { checkStore } from 'sojourn/testing'
import { RedisServer } from '../../support/redis.js'

let server: RedisServer
beforeAll(async () => {
  server = await RedisServer.start()
})
afterAll(() => server.stop())

test('a client that gives numbers as text keeps every promise', async () => {
  const client = new Redis(server.url, { stringNumbers: true })
  const createStore = (): SessionStore => new RedisSessionStore({ client })
  const report = await checkStore({ createStore, createPeer: createStore })
  expect(report.failed).toEqual([])
  expect(report.guarantees).toEqual(['basic', 'atomic', 'shared'])
  client.disconnect()
})

/** A client whose server, or something before it, says the same to whatever it is asked. */
function saying(reply: unknown): RedisSessionStore {
  const answer = async (): Promise<never> => reply as never
  const client: RedisClient = {
    get: answer,
    getrange: answer,
    strlen: answer,
    hgetall: answer,
    del: answer,
    evalsha: answer,
    eval: answer,
    once: () => {},
  }
  return new RedisSessionStore({ client })
}

describe('an answer that we do not know is a failure', () => {
  const at = Date.now()
  const id = randomUUID()
  const times = {
    createdAt: at,
    updatedAt: at,
    lastAccessedAt: at,
    expiresAt: at + 60_000,
    absoluteExpiresAt: at + 60_000,
  }
  const record = new SessionData({ id, tokenHash: 'hash', generation: 1, ...times, fields: [['a', '1']] })
  const next = record.with({ id: randomUUID(), generation: 2 })
  const change = { generation: 1, at, expiresAt: at + 60_000, set: new Map([['a', '2']]) }
  const entry = { id, since: at, endsAt: at + 60_000, pendingUntil: 0, isEvicted: false }

  const calls: [operation: string, call: (store: RedisSessionStore) => Promise<unknown>][] = [
    ['get', (store) => store.get(id)],
    ['exists', (store) => store.exists(id)],
    ['set', (store) => store.set(id, record, 60)],
    ['create', (store) => store.create(id, record, 60)],
    ['delete', (store) => store.delete(id)],
    ['touch', (store) => store.touch(id, 60)],
    ['update', (store) => store.update(id, change, 60)],
    ['regenerate', (store) => store.regenerate(id, { generation: 1, at, next, keep: 'all', tombstoneSeconds: 60 }, 60)],
    ['end', (store) => store.end(id, { reason: 'logout', at }, 60)],
    ['epoch', (store) => store.epoch()],
    ['lease', (store) => store.lease('name', 'owner', 1_000)],
    ['users.add', (store) => store.users.add('user', entry, { now: at })],
    ['users.settle', (store) => store.users.settle('user', id)],
    ['users.list', (store) => store.users.list('user', at)],
    ['users.evict', (store) => store.users.evict('user', { now: at })],
    ['users.remove', (store) => store.users.remove('user', [id])],
    ['notes.put', (store) => store.notes.put('purpose', 'key', 'text', { ttlSeconds: 60 })],
    ['notes.get', (store) => store.notes.get('purpose', 'key')],
    ['notes.take', (store) => store.notes.take('purpose', 'key')],
    ['notes.delete', (store) => store.notes.delete('purpose', 'key')],
  ]
  const unknown = [undefined, true, 7.5, ['QUEUED'], ['already', 'ended', 3], [7], { ok: 1 }, ['ok', {}]]
  // Texts are what a list that evict() made may hold.
  const mayBe = (operation: string, reply: unknown): boolean =>
    operation === 'users.evict' && Array.isArray(reply) && reply.every((each) => typeof each === 'string')
  test.each(calls)('%s', async (operation, call) => {
    for (const reply of unknown.filter((each) => !mayBe(operation, each))) {
      await expect(call(saying(reply))).rejects.toMatchObject({
        code: 'STORE_UNAVAILABLE',
        message: expect.stringContaining(`"${operation === 'exists' ? 'get' : operation}"`),
      })
    }
  })

  test('END: a transaction that somebody has opened on the connection ends no session', async () => {
    const client = new Redis(server.url)
    const store = new RedisSessionStore({ client })
    await store.create(id, record, 60)
    await client.call('MULTI')
    await expect(store.end(id, { reason: 'logout', at }, 60)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    await client.call('DISCARD')
    expect(await store.exists(id)).toBe(true)
    expect(await store.end(id, { reason: 'logout', at }, 60)).toEqual({ status: 'ended' })
    client.disconnect()
  })
})
