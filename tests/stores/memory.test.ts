// What the memory store promises beyond the conformance suite: its bound, its clean-up, its warning.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import fc from 'fast-check'
import {
  MemorySessionStore,
  type MemorySessionStoreOptions,
  type Regeneration,
  SessionData,
  type SessionDataInit,
  type SessionEnd,
  type UserEntry,
} from 'sojourn'
import { FakeClock } from 'sojourn/testing'
import { MemoryUserIndex } from '../../src/stores/memory/users.js'
import { bytesOfBuffers, bytesOfHeap } from '../support/garbage.js'

const clock = new FakeClock()
const MINUTE = 60_000

const stores: MemorySessionStore[] = []
afterEach(async () => {
  for (const store of stores.splice(0)) {
    store.clear()
    await store.close()
  }
})

function createStore(options: MemorySessionStoreOptions = {}): MemorySessionStore {
  const store = new MemorySessionStore({ cleanupInterval: 0, clock: clock.now, ...options })
  stores.push(store)
  return store
}

function record(id: string, members: Partial<SessionDataInit> = {}): SessionData {
  const now = clock.now()
  return new SessionData({
    id,
    tokenHash: 'hash',
    generation: 1,
    createdAt: now,
    updatedAt: now,
    lastAccessedAt: now,
    expiresAt: now + 30 * MINUTE,
    absoluteExpiresAt: now + 720 * MINUTE,
    fields: [['a', '1']],
    ...members,
  })
}

function entry(id: string, parts: Partial<UserEntry> = {}): UserEntry {
  const now = clock.now()
  return { id, since: now, endsAt: now + 720 * MINUTE, pendingUntil: 0, isEvicted: false, ...parts }
}

function ended(parts: Partial<SessionEnd> = {}): SessionEnd {
  return { reason: 'revoked', at: clock.now(), ...parts }
}

function regeneration(next: SessionData, parts: Partial<Regeneration> = {}): Regeneration {
  return { generation: 1, at: clock.now(), next, keep: 'all', tombstoneSeconds: 300, ...parts }
}

const add = (store: MemorySessionStore, id: string, members?: Partial<SessionDataInit>): Promise<boolean> =>
  store.create(id, record(id, members), 1800)

async function kept(store: MemorySessionStore, ids: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const id of ids) if (await store.exists(id)) found.push(id)
  return found
}

/** Those of which the store has a record, alive or not. */
async function known(store: MemorySessionStore, ids: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const id of ids) if ((await store.get(id)) !== null) found.push(id)
  return found
}

async function scanned(store: MemorySessionStore): Promise<string[]> {
  const ids: string[] = []
  for await (const { id } of store.scan()) ids.push(id)
  return ids
}

describe('maxSessions', () => {
  test('the oldest session without a user goes first', async () => {
    const store = createStore({ maxSessions: 3 })
    await add(store, 'u1', { userId: 1 })
    await add(store, 'a1')
    await add(store, 'a2')
    await add(store, 'a3')
    expect(await kept(store, ['u1', 'a1', 'a2', 'a3'])).toEqual(['u1', 'a2', 'a3'])
    await add(store, 'u2', { userId: 'two' })
    await add(store, 'u3', { userId: 3 })
    expect(await kept(store, ['u1', 'a2', 'a3', 'u2', 'u3'])).toEqual(['u1', 'u2', 'u3'])
    expect(store.size).toBe(3)
  })

  test('when all have a user, the oldest of them goes', async () => {
    const store = createStore({ maxSessions: 2 })
    for (const id of ['u1', 'u2', 'u3']) await add(store, id, { userId: id })
    expect(await kept(store, ['u1', 'u2', 'u3'])).toEqual(['u2', 'u3'])
  })

  test('user 0 and user "" are users', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'u0', { userId: 0 })
    await add(store, 'a1')
    await add(store, 'a2')
    expect(await kept(store, ['u0', 'a1', 'a2'])).toEqual(['u0', 'a2'])
  })

  test('activity makes young again: touch, update and set, but not get', async () => {
    const store = createStore({ maxSessions: 4 })
    for (const id of ['a1', 'a2', 'a3', 'a4']) await add(store, id)
    const at = clock.now()
    await store.touch('a1', 1800)
    await store.update('a2', { generation: 1, at, expiresAt: at + MINUTE, set: new Map([['a', '2']]) }, 60)
    await store.get('a3')
    await store.set('a4', record('a4'), 1800)
    await add(store, 'a5')
    expect(await kept(store, ['a1', 'a2', 'a3', 'a4', 'a5'])).toEqual(['a1', 'a2', 'a4', 'a5'])
    await add(store, 'a6')
    expect(await kept(store, ['a1', 'a2', 'a4', 'a5', 'a6'])).toEqual(['a2', 'a4', 'a5', 'a6'])
  })

  test('who logs in counts as a user from then on', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    const at = clock.now()
    await store.update('a1', { generation: 1, at, expiresAt: at + MINUTE, metadata: { userId: 1 } }, 60)
    await add(store, 'a3')
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a1', 'a3'])
  })

  test('a regeneration at the bound evicts nobody', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    const next = record('a3', { generation: 2, userId: 1 })
    await store.regenerate('a2', regeneration(next), 1800)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a1', 'a3'])
    expect(store.size).toBe(2)
  })

  test('tombstones go first, the oldest of them before the others', async () => {
    const store = createStore({ maxSessions: 4 })
    await add(store, 'a1')
    for (const id of ['e1', 'e2', 'u1']) await add(store, id, { userId: 1 })
    await store.end('e2', ended(), 300)
    await store.end('e1', ended(), 300)
    await add(store, 'u2', { userId: 1 })
    expect(await known(store, ['a1', 'e1', 'e2', 'u1', 'u2'])).toEqual(['a1', 'e1', 'u1', 'u2'])
    await add(store, 'u3', { userId: 1 })
    expect(await known(store, ['a1', 'e1', 'u1', 'u2', 'u3'])).toEqual(['a1', 'u1', 'u2', 'u3'])
    await add(store, 'u4', { userId: 1 })
    expect(await known(store, ['a1', 'u1', 'u2', 'u3', 'u4'])).toEqual(['u1', 'u2', 'u3', 'u4'])
  })

  test('ending a session at the bound evicts nobody', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    await store.end('a1', ended(), 300)
    expect(await known(store, ['a1', 'a2'])).toEqual(['a1', 'a2'])
  })

  test('writing an existing session at the bound evicts nobody', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    await store.set('a1', record('a1'), 1800)
    expect(await add(store, 'a2')).toBe(false)
    expect(store.size).toBe(2)
  })

  test('the default is 100,000', async () => {
    const store = createStore()
    for (let index = 0; index < 100_050; index++) await add(store, index.toString(16).padStart(8, '0'))
    expect(store.size).toBe(100_000)
    expect(await store.exists('00000031')).toBe(false)
    expect(await store.exists('00000032')).toBe(true)
  })
})

describe('size, clear and isolation', () => {
  test('size follows what comes and goes', async () => {
    const store = createStore()
    expect(store.size).toBe(0)
    await add(store, 'a1')
    await add(store, 'a1')
    await add(store, 'a2', { userId: 1 })
    expect(store.size).toBe(2)
    await store.delete('a1')
    await store.delete('a1')
    await store.delete('absent')
    expect(store.size).toBe(1)
    await store.end('a2', ended(), 300)
    expect(store.size).toBe(1)
    await add(store, 'a3')
    await store.regenerate('a3', regeneration(record('a4')), 1800)
    expect(store.size).toBe(3)
    store.clear()
    expect(store.size).toBe(0)
    expect(await store.get('a2')).toBeNull()
  })

  test('after clear() the store works as a new one', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    store.clear()
    for (const id of ['a1', 'a2', 'a3']) expect(await add(store, id)).toBe(true)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a2', 'a3'])
    expect(await store.clearExpired()).toBe(0)
  })

  test('nothing that a caller holds alters what the store keeps', async () => {
    const store = createStore()
    const fields = new Map([['a', '1']])
    await store.create('a1', record('a1', { fields }), 1800)
    fields.set('a', '2')
    const got = (await store.get('a1')) as SessionData
    expect(() => (got.fields as Map<string, string>).set('a', '3')).toThrow(TypeError)
    expect(() => Object.assign(got, { userId: 'mallory' })).toThrow(TypeError)
    expect((await store.get('a1'))?.fields.get('a')).toBe('1')
    expect((await store.get('a1'))?.userId).toBeUndefined()
  })

  test('two stores share nothing', async () => {
    const [one, two] = [createStore(), createStore()]
    await add(one, 'a1')
    expect(await two.get('a1')).toBeNull()
    expect(two.size).toBe(0)
  })
})

describe('a store of many sessions', () => {
  test('gives back each one exactly, those that have rested for long as well', async () => {
    const store = createStore()
    const made = Array.from({ length: 3_000 }, (_unused, n) =>
      record(`${n.toString(16).padStart(8, '0')}`, {
        userId: n % 3 === 0 ? `user ${n}` : n % 3 === 1 ? n : undefined,
        idleTimeoutMs: n % 5 === 0 ? n + 1 : undefined,
        persistent: n % 7 === 0 ? n % 2 === 0 : undefined,
        previousToken: n % 11 === 0 ? { hash: 'previous', until: n } : undefined,
        context: n % 13 === 0 ? { ip: '::1', userAgent: 'line\nfeed \u0000 "ü\u{1F36A}', referrer: '' } : undefined,
        epoch: n % 17 === 0 ? n : undefined,
        fields: [
          ['', '""'],
          ['__proto__', `{"n":${n}}`],
          ['line\nfeed', JSON.stringify('\n\u0000\u{1F36A}')],
          ['long', JSON.stringify('x'.repeat(n % 2 === 0 ? 10 : 5_000))],
        ],
      }),
    )
    for (const one of made) await store.create(one.id, one, 60)
    for (const one of made) expect((await store.get(one.id))?.toJSON()).toEqual(one.toJSON())
    const found = new Map<string, SessionData>()
    for await (const one of store.scan()) found.set(one.id, one)
    for (const one of made) expect(found.get(one.id)?.toJSON()).toEqual(one.toJSON())

    for (const [n, { id }] of made.entries()) {
      const by = n % 2 === 0 ? 'line\nfeed \u0000 "ü\u{1F36A}' : undefined
      await store.end(id, ended({ by, detail: n % 3 === 0 ? '' : undefined, successor: `${n}` }), 300)
    }
    for (const [n, { id, userId, tokenHash }] of made.entries()) {
      const tombstone = (await store.get(id)) as SessionData
      expect({ ...tombstone.ended }).toEqual({
        ...ended({ successor: `${n}` }),
        ...(n % 2 === 0 && { by: 'line\nfeed \u0000 "ü\u{1F36A}' }),
        ...(n % 3 === 0 && { detail: '' }),
      })
      expect([tombstone.userId, tombstone.tokenHash, tombstone.fields.size]).toEqual([userId, tokenHash, 0])
    }
  })
})

describe('a session without end', () => {
  test('stays so among many', async () => {
    const store = createStore()
    await add(store, 'endless', { expiresAt: Number.POSITIVE_INFINITY, absoluteExpiresAt: Number.POSITIVE_INFINITY })
    for (let n = 0; n < 1_500; n++) await add(store, `${n}`)
    expect((await store.get('endless'))?.absoluteExpiresAt).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('a store of very many sessions', () => {
  test('keeps them where the garbage collector does not look, their users too', async () => {
    const SESSIONS = 25_000
    const store = createStore()
    const make = async (from: number, to: number): Promise<void> => {
      for (let n = from; n < to; n++) {
        const userId = n % 2 === 0 ? `user ${n}` : undefined
        await store.create(`session ${n}`, record(`session ${n}`, { userId }), 60)
        if (userId) await store.users.add(userId, entry(`session ${n}`), { now: clock.now() })
      }
    }
    // The first ones bring what the store has once, and what it keeps ready to be handed out.
    await make(0, 5_000)
    const before = bytesOfHeap()
    await make(5_000, SESSIONS)
    expect((bytesOfHeap() - before) / SESSIONS).toBeLessThan(20)
    expect([store.size, (await store.get(`session ${SESSIONS - 2}`))?.userId]).toEqual([
      SESSIONS,
      `user ${SESSIONS - 2}`,
    ])
  })
})

describe('how long a record is kept', () => {
  test('for its TTL, by the store’s own clock, whether or not a clean-up comes by', async () => {
    const store = createStore()
    await store.create('a1', record('a1', { expiresAt: clock.now() + MINUTE }), 600)
    clock.advance(10 * MINUTE - 1)
    expect(await store.exists('a1')).toBe(false)
    expect((await store.get('a1'))?.fields.get('a')).toBe('1')
    expect(await store.clearExpired()).toBe(0)
    clock.advance(1)
    expect(await scanned(store)).toEqual([])
    expect(await store.get('a1')).toBeNull()
    expect(await add(store, 'a1')).toBe(true)
    clock.advance(30 * MINUTE)
    expect(await store.clearExpired()).toBe(1)
    expect(store.size).toBe(0)
  })

  test('at least as long as it lives, whatever the TTL', async () => {
    const store = createStore()
    await store.set('a1', record('a1'), 1)
    await store.set('a2', record('a2', { idleTimeoutMs: 5 * MINUTE }), 1)
    clock.advance(5 * MINUTE - 1)
    expect(await known(store, ['a1', 'a2'])).toEqual(['a1', 'a2'])
    clock.advance(1)
    expect(await known(store, ['a1', 'a2'])).toEqual(['a1'])
    clock.advance(25 * MINUTE)
    expect(await known(store, ['a1'])).toEqual([])
  })

  test('an update says for how long from then, and a touch how much longer than the session lives', async () => {
    const store = createStore()
    for (const id of ['updated', 'touched', 'plain']) await add(store, id)
    const at = clock.now()
    await store.update('updated', { generation: 1, at, expiresAt: at }, 40 * 60)
    expect(await store.touch('touched', 1800, at, 600)).toBe(true)
    expect(await store.touch('plain', 1800, at)).toBe(true)
    clock.advance(40 * MINUTE - 1)
    expect(await known(store, ['updated', 'touched', 'plain'])).toEqual(['updated', 'touched'])
    clock.advance(1)
    expect(await known(store, ['updated', 'touched'])).toEqual([])
  })

  test('a tombstone for the time that the end names, not for what was left of the session', async () => {
    const store = createStore()
    for (const id of ['short', 'long', 'old']) await add(store, id)
    await store.end('short', ended(), 60)
    await store.end('long', ended(), 7_200)
    await store.regenerate('old', regeneration(record('new'), { tombstoneSeconds: 60 }), 1800)
    clock.advance(MINUTE - 1)
    expect(await known(store, ['short', 'long', 'old', 'new'])).toEqual(['short', 'long', 'old', 'new'])
    clock.advance(1)
    expect(await known(store, ['short', 'long', 'old', 'new'])).toEqual(['long', 'new'])
    clock.advance(60 * MINUTE)
    expect(await known(store, ['long', 'new'])).toEqual(['long'])
  })
})

describe('a scan', () => {
  test('has what is kept: live sessions, expired ones and tombstones', async () => {
    const store = createStore()
    await add(store, 'live')
    await store.create('expired', record('expired', { expiresAt: clock.now() }), 600)
    await add(store, 'ended')
    await store.end('ended', ended(), 300)
    await add(store, 'deleted')
    await store.delete('deleted')
    expect((await scanned(store)).sort()).toEqual(['ended', 'expired', 'live'])
  })

  test('goes on while sessions come and go, and tells nothing of what clear() removed', async () => {
    const store = createStore()
    const ids = Array.from({ length: 50 }, (_unused, n) => `s${n}`)
    for (const id of ids) await add(store, id)
    const found: string[] = []
    for await (const { id } of store.scan()) {
      found.push(id)
      if (found.length === 10) await store.delete('s49')
      await add(store, `t${found.length % 50}`)
    }
    expect(ids.filter((id) => !found.includes(id))).toEqual(['s49'])

    let seen = 0
    for await (const _record of store.scan()) {
      seen++
      if (seen === 3) store.clear()
    }
    expect(seen).toBe(3)
  })

  test('makes no session younger', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    await scanned(store)
    await add(store, 'a3')
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a2', 'a3'])
  })
})

describe('the users of the store', () => {
  const index = (store: MemorySessionStore): MemoryUserIndex => store.users as MemoryUserIndex

  async function login(store: MemorySessionStore, id: string, user = 'user'): Promise<void> {
    const now = clock.now()
    await store.users.add(user, entry(id, { pendingUntil: now + MINUTE }), { now })
    await add(store, id, { userId: user })
    expect(await store.users.settle(user, id)).toBe(true)
  }

  const idsOf = async (store: MemorySessionStore, user = 'user'): Promise<string[]> =>
    (await store.users.list(user, clock.now())).map(({ id }) => id)

  test('an entry goes with the session that the store drops: deleted, forgotten, evicted, cleared', async () => {
    const store = createStore({ maxSessions: 4 })
    for (const id of ['u1', 'u2', 'u3', 'u4']) await login(store, id)
    await store.delete('u1')
    expect(await idsOf(store)).toEqual(['u2', 'u3', 'u4'])
    await store.touch('u2', 3_600)
    await login(store, 'u5')
    await login(store, 'u6')
    expect(await idsOf(store)).toEqual(['u2', 'u4', 'u5', 'u6'])
    clock.advance(30 * MINUTE)
    expect(await store.get('u4')).toBeNull()
    expect(await idsOf(store)).toEqual(['u2', 'u5', 'u6'])
    expect(await store.clearExpired()).toBe(2)
    expect(await idsOf(store)).toEqual(['u2'])
    store.clear()
    expect(await idsOf(store)).toEqual([])
    expect([index(store).size, index(store).users]).toEqual([0, 0])
  })

  test('an ended session keeps its entry until the tombstone goes, and the successor keeps its own', async () => {
    const store = createStore()
    await login(store, 'old')
    await store.users.add('user', entry('new', { pendingUntil: clock.now() + MINUTE }), { now: clock.now() })
    await store.regenerate('old', regeneration(record('new', { generation: 2 })), 1800)
    expect(await idsOf(store)).toEqual(['old', 'new'])
    clock.advance(5 * MINUTE)
    await store.clearExpired()
    expect(await idsOf(store)).toEqual(['new'])
    expect(await store.exists('new')).toBe(true)
  })

  test('a session that was evicted before its login was done is not settled', async () => {
    const store = createStore({ maxSessions: 1 })
    await store.users.add('user', entry('u1', { pendingUntil: clock.now() + MINUTE }), { now: clock.now() })
    await add(store, 'u1', { userId: 1 })
    await add(store, 'u2', { userId: 2 })
    expect(await store.users.settle('user', 'u1')).toBe(false)
  })

  test('the entry of a login that never came to its end goes with the clean-up, once it cannot any more', async () => {
    const store = createStore()
    const now = clock.now()
    await store.users.add('user', entry('pending', { pendingUntil: now + MINUTE }), { now })
    await store.users.add('user', entry('ends', { endsAt: now + 2 * MINUTE }), { now })
    await login(store, 'settled')
    clock.advance(MINUTE - 1)
    await store.clearExpired()
    expect(await idsOf(store)).toEqual(['pending', 'ends', 'settled'])
    clock.advance(1)
    await store.clearExpired()
    expect(await idsOf(store)).toEqual(['ends', 'settled'])
    clock.advance(MINUTE)
    await store.clearExpired()
    expect(await idsOf(store)).toEqual(['settled'])
    expect([index(store).size, index(store).users]).toEqual([1, 1])
  })

  test('there is an end to how many logins may be unfinished, until the next clean-up', async () => {
    const store = createStore({ maxSessions: 10 })
    const now = clock.now()
    const pendingUntil = now + MINUTE
    let added = 0
    const fill = async (): Promise<void> => {
      for (; added < 100_000; added++) {
        await store.users.add(`user${added % 50}`, entry(`p${added}`, { pendingUntil }), { now })
      }
    }
    await expect(fill()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    expect(added).toBe(index(store).size)
    expect(added).toBeLessThan(2_000)
    // One that is there can still be replaced.
    expect(await store.users.add('user0', entry('p0'), { now })).toMatchObject({ status: 'added' })
    clock.advance(MINUTE)
    await store.clearExpired()
    expect([index(store).size, index(store).users]).toEqual([1, 1])
    await login(store, 'u1')
  })

  test('do as the contract says, whatever the order of calls', () => {
    const id = fc.constantFrom('a', 'b', 'c', 'd', 'e')
    const user = fc.constantFrom('user-1', 'user-2', 'x')
    const time = fc.integer({ min: 0, max: 20 })
    const calls = fc.array(
      fc.oneof(
        fc.record({
          call: fc.constant('add' as const),
          user,
          id,
          now: time,
          since: time,
          life: fc.integer({ min: 1, max: 20 }),
          max: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
          evictsOldest: fc.boolean(),
        }),
        fc.record({ call: fc.constant('settle' as const), user, id, remove: fc.array(id, { maxLength: 2 }) }),
        fc.record({ call: fc.constant('list' as const), user, now: time }),
        fc.record({ call: fc.constant('evict' as const), user, now: time, except: fc.option(id, { nil: undefined }) }),
        fc.record({ call: fc.constant('remove' as const), user, ids: fc.array(id, { maxLength: 3 }) }),
        fc.record({ call: fc.constant('forget' as const), id }),
      ),
      { maxLength: 60, size: 'max' },
    )
    return fc.assert(
      fc.asyncProperty(calls, async (steps) => {
        const users = new MemoryUserIndex({ maxEntries: 100, hasSession: () => false })
        // The same in the plainest way: entries by user and ID, in the order in which they came.
        const model = new Map<string, UserEntry>()
        const keyOf = (user: string, id: string): string => `${user} ${id}`
        const entriesOf = (user: string): UserEntry[] =>
          [...model].filter(([key]) => key.startsWith(`${user} `)).map(([, entry]) => entry)
        const prune = (user: string, now: number): void => {
          for (const { id, endsAt } of entriesOf(user)) if (endsAt <= now) model.delete(keyOf(user, id))
        }
        const mark = (user: string, entry: UserEntry): void =>
          void model.set(keyOf(user, entry.id), { ...entry, isEvicted: true })

        for (const step of steps) {
          switch (step.call) {
            case 'add': {
              const { user, now, since, max, evictsOldest } = step
              const made = entry(step.id, { since, endsAt: now + step.life, pendingUntil: now + 1 })
              prune(user, now)
              const result = await users.add(user, made, { now, max, evictsOldest })
              const active = entriesOf(user).filter(({ id, isEvicted }) => !isEvicted && id !== made.id)
              const excess = active.length + 1 - (max ?? 100)
              if (excess > 0 && !evictsOldest) {
                expect(result).toEqual({ status: 'full', entries: entriesOf(user) })
                break
              }
              const oldest = active.sort((a, b) => a.since - b.since).slice(0, Math.max(0, excess))
              for (const one of oldest) mark(user, one)
              model.set(keyOf(user, made.id), made)
              expect(result).toEqual({ status: 'added', evicted: entriesOf(user).filter((one) => one.isEvicted) })
              break
            }
            case 'settle': {
              const key = keyOf(step.user, step.id)
              const present = model.get(key)
              const isGood = present?.isEvicted === false
              if (isGood) model.set(key, { ...present, pendingUntil: 0 })
              for (const one of step.remove) model.delete(keyOf(step.user, one))
              expect(await users.settle(step.user, step.id, step.remove)).toBe(isGood)
              break
            }
            case 'list':
              prune(step.user, step.now)
              expect(await users.list(step.user, step.now)).toEqual(entriesOf(step.user))
              break
            case 'evict': {
              prune(step.user, step.now)
              for (const one of entriesOf(step.user)) if (one.id !== step.except) mark(step.user, one)
              const marked = entriesOf(step.user).filter((one) => one.isEvicted)
              expect(await users.evict(step.user, { now: step.now, except: step.except })).toEqual(marked)
              break
            }
            case 'remove':
              for (const one of step.ids) model.delete(keyOf(step.user, one))
              await users.remove(step.user, step.ids)
              break
            case 'forget':
              users.forget(step.id)
              for (const key of model.keys()) if (key.endsWith(` ${step.id}`)) model.delete(key)
              break
          }
          for (const user of ['user-1', 'user-2', 'x']) expect(await users.list(user, -1)).toEqual(entriesOf(user))
        }
        expect(users.size).toBe(model.size)
        expect(users.users).toBe(new Set([...model.keys()].map((key) => key.split(' ')[0])).size)
        for (const one of ['a', 'b', 'c', 'd', 'e']) users.forget(one)
        expect([users.size, users.users]).toEqual([0, 0])
      }),
    )
  })

  test('what a caller holds of them is a copy', async () => {
    const store = createStore()
    const own = { ...entry('u1') }
    await store.users.add('user', own, { now: clock.now() })
    own.isEvicted = true
    const [listed] = await store.users.list('user', clock.now())
    expect(listed?.isEvicted).toBe(false)
    Object.assign(listed as object, { isEvicted: true })
    expect((await store.users.list('user', clock.now()))[0]?.isEvicted).toBe(false)
  })
})

describe('epoch and leases', () => {
  test('the epoch begins at 0, rises, and outlives clear()', async () => {
    const store = createStore()
    expect(await store.epoch()).toBe(0)
    expect(await store.epoch(3)).toBe(3)
    store.clear()
    expect(await store.epoch(2)).toBe(3)
    expect(await createStore().epoch()).toBe(0)
  })

  test('a lease lasts for its time by the store’s clock, from when it was taken or prolonged last', async () => {
    const store = createStore()
    expect(await store.lease('clean-up', 'a', 1_000)).toBe(true)
    clock.advance(999)
    expect(await store.lease('clean-up', 'b', 1_000)).toBe(false)
    expect(await store.lease('clean-up', 'a', 1_000)).toBe(true)
    clock.advance(999)
    expect(await store.lease('clean-up', 'b', 1_000)).toBe(false)
    expect(await store.lease('other', 'b', 1_000)).toBe(true)
    clock.advance(1)
    expect(await store.lease('clean-up', 'b', 1_000)).toBe(true)
    expect(await store.lease('clean-up', 'a', 1_000)).toBe(false)
    // A clean-up forgets those that are over, and no other.
    await store.clearExpired()
    expect(await store.lease('clean-up', 'a', 1_000)).toBe(false)
  })
})

describe('clean-up', () => {
  test('removes what has expired, and nothing else', async () => {
    const store = createStore()
    await store.create('a1', record('a1', { expiresAt: clock.now() - 1 }), 1)
    await store.create('a2', record('a2', { absoluteExpiresAt: clock.now() }), 1)
    await add(store, 'a3')
    expect(store.size).toBe(3)
    clock.advance(1_000)
    expect(await store.clearExpired()).toBe(2)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a3'])
    expect(store.size).toBe(1)
  })

  test('a second call joins the one that is under way', async () => {
    const store = createStore()
    const expired = record('all', { expiresAt: clock.now() })
    for (let index = 0; index < 100; index++) await store.set(`a${index}`, expired, 1)
    clock.advance(1_000)
    const [first, second] = [store.clearExpired(), store.clearExpired()]
    expect(second).toBe(first)
    expect(await first).toBe(100)
    expect(await store.clearExpired()).toBe(0)
  })

  test('runs by itself while it is started, by the store’s own clock', async () => {
    jest.useFakeTimers()
    try {
      const own = new FakeClock(clock.now())
      const store = createStore({ cleanupInterval: 60, clock: own.now })
      await add(store, 'a1')
      await jest.advanceTimersByTimeAsync(10 * MINUTE)
      expect(store.size).toBe(1)
      own.advance(30 * MINUTE)
      await jest.advanceTimersByTimeAsync(MINUTE - 1)
      await jest.advanceTimersByTimeAsync(1)
      expect(store.size).toBe(0)

      store.stopCleanup()
      expect(jest.getTimerCount()).toBe(0)
      store.startCleanup()
      store.startCleanup()
      expect(jest.getTimerCount()).toBe(1)
      await store.close()
      expect(jest.getTimerCount()).toBe(0)
    } finally {
      jest.useRealTimers()
    }
  })

  test('cleanupInterval 0 starts none, and a very long one does not fire at once', async () => {
    jest.useFakeTimers()
    try {
      createStore({ cleanupInterval: 0 }).startCleanup()
      expect(jest.getTimerCount()).toBe(0)
      const own = new FakeClock(clock.now())
      const store = createStore({ cleanupInterval: 10_000_000, clock: own.now })
      await add(store, 'a1')
      own.advance(999 * MINUTE)
      await jest.advanceTimersByTimeAsync(60 * MINUTE)
      expect(store.size).toBe(1)
    } finally {
      jest.useRealTimers()
    }
  })

  test('the timer does not hold the process', async () => {
    const program = `
      import { MemorySessionStore } from './src/index.ts'
      globalThis.store = new MemorySessionStore({ cleanupInterval: 3600 })
      console.log('made')`
    const { NODE_OPTIONS: _jestOptions, ...env } = process.env
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
    const [code] = (await once(child, 'close')) as [number | null]
    expect([output.trim(), code]).toEqual(['made', 0])
  })

  test('and a scan let the event loop turn after every few sessions, once their time is up', async () => {
    const SESSIONS = 20_000
    const store = createStore()
    for (let n = 0; n < SESSIONS; n++) await store.set(`${n}`, record('all'), 1)
    // Each look at the clock finds that the time of a slice is over. How long one takes is a figure of the bench.
    let time = 0
    const now = jest.spyOn(performance, 'now').mockImplementation(() => {
      time += 1_000
      return time
    })
    /** How many sessions are passed, at most, between two turns of the event loop. */
    async function mostInOneTurn(task: () => Promise<void>, passed: () => number): Promise<number> {
      let most = 0
      let last = passed()
      let isDone = false
      const running = task().finally(() => {
        isDone = true
      })
      while (!isDone) {
        await turn()
        most = Math.max(most, passed() - last)
        last = passed()
      }
      await running
      return most
    }

    try {
      let seen = 0
      const scan = async (): Promise<void> => {
        for await (const _record of store.scan()) seen++
      }
      expect(await mostInOneTurn(scan, () => seen)).toBeLessThan(100)
      expect(seen).toBe(SESSIONS)
      clock.advance(30 * MINUTE)
      const sweep = async (): Promise<void> => expect(await store.clearExpired()).toBe(SESSIONS)
      expect(await mostInOneTurn(sweep, () => SESSIONS - store.size)).toBeLessThan(100)
      expect(store.size).toBe(0)
    } finally {
      now.mockRestore()
    }
  })
})

describe('after a peak', () => {
  test('scan and clean-up pass what has gone in slices, too', async () => {
    const store = createStore()
    for (let n = 0; n < 3_000; n++) await add(store, `${n}`)
    for (let n = 0; n < 2_999; n++) await store.delete(`${n}`)
    // Each look at the clock sees a millisecond more.
    let looks = 0
    const now = jest.spyOn(performance, 'now').mockImplementation(() => looks++)
    try {
      expect(await scanned(store)).toEqual(['2999'])
      expect(looks).toBeGreaterThan(100)
      looks = 0
      expect(await store.clearExpired()).toBe(0)
      expect(looks).toBeGreaterThan(100)
    } finally {
      now.mockRestore()
    }
  })

  test('the clean-up gives memory back, and what is left stays as it was', async () => {
    const store = createStore()
    const SESSIONS = 60_000
    const text = (n: number): string => JSON.stringify('x'.repeat(300 + (n % 50)))
    const before = bytesOfBuffers()
    for (let n = 0; n < SESSIONS; n++) {
      const userId = n % 2 === 0 ? `user ${n}` : undefined
      const life = n % 100 === 0 ? 60 : 10
      const times = { expiresAt: clock.now() + life * MINUTE, userId, fields: [['text', text(n)]] as const }
      await store.create(`session ${n}`, record(`session ${n}`, times), 1)
      if (userId) await store.users.add(userId, entry(`session ${n}`), { now: clock.now() })
    }
    const peak = bytesOfBuffers() - before
    clock.advance(20 * MINUTE)
    expect(await store.clearExpired()).toBe(SESSIONS * 0.99)
    // The next one finds the rest alone.
    await store.clearExpired()
    expect((bytesOfBuffers() - before) / peak).toBeLessThan(0.35)
    for (let n = 0; n < SESSIONS; n += 100) {
      const kept = await store.get(`session ${n}`)
      expect([kept?.userId, kept?.fields.get('text')]).toEqual([`user ${n}`, text(n)])
      expect(await store.users.list(`user ${n}`, clock.now())).toHaveLength(1)
    }
  })
})

describe('the warning in production', () => {
  async function warningsOf(env: string | undefined, options?: MemorySessionStoreOptions): Promise<string[]> {
    const before = process.env['NODE_ENV']
    const emitted = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      if (env === undefined) delete process.env['NODE_ENV']
      else process.env['NODE_ENV'] = env
      const store = createStore(options)
      await add(store, 'a1')
      await store.clearExpired()
      store.startCleanup()
      return emitted.mock.calls.map(([, options]) => (options as { code: string }).code)
    } finally {
      emitted.mockRestore()
      process.env['NODE_ENV'] = before
    }
  }

  test('is given once by a store', async () => {
    expect(await warningsOf('production')).toEqual(['SOJOURN_MEMORY_STORE'])
  })

  test('can be turned off, and is not given elsewhere', async () => {
    expect(await warningsOf('production', { warnInProduction: false })).toEqual([])
    expect(await warningsOf('development')).toEqual([])
    expect(await warningsOf(undefined)).toEqual([])
  })
})

describe('options', () => {
  test.each([
    ['maxSessions', [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '10', null]],
    ['cleanupInterval', [-1, Number.NaN, Number.POSITIVE_INFINITY, '10', null]],
  ])('%s out of range is refused by name', (name, values) => {
    for (const value of values) {
      expect(() => createStore({ [name]: value })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
      expect(() => createStore({ [name]: value })).toThrow(`${name} is ${String(value)}; use`)
    }
  })
})
