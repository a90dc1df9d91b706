// The clean-up: what it ends and archives when clocks differ and requests cross, its lease, and its way through a large store.
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import {
  MemorySessionStore,
  type RegenerateResult,
  type SessionData,
  SessionManager,
  type StoredSession,
} from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { type Client, SECRET, until } from '../support/http.js'
import {
  closeRigs,
  collect,
  GROUNDS,
  type Ground,
  idOf,
  RedisGround,
  Rig,
  type RigOptions,
  refusal,
} from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground: Ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  describe('processes whose clocks differ', () => {
    /** Two processes, the clock of the second five seconds ahead. */
    async function twoProcesses(
      options: RigOptions = {},
    ): Promise<{ behind: Rig; ahead: Rig; advance(ms: number): void }> {
      const clock = new FakeClock()
      const behind = await Rig.start(ground, options, clock)
      const ahead = await Rig.start(ground, options, new FakeClock(clock.now() + 5 * SECOND))
      return {
        behind,
        ahead,
        advance(ms) {
          for (const rig of [behind, ahead]) rig.clock.advance(ms)
        },
      }
    }

    test.each([
      ['listed', (rig: Rig) => rig.manager.sessionsOf('ann').then(() => {})],
      ['looked at for the limit', (rig: Rig) => rig.login('ann').then(() => {})],
    ])(
      'agree on a session that is idle for too long for one of them when it is %s: it is on its list, or over',
      async (_what, look) => {
        const { behind, ahead, advance } = await twoProcesses({ maxSessionsPerUser: 1 })
        const client = await behind.login('ann')
        advance(30 * MINUTE - 2 * SECOND)
        await look(ahead)
        const who = await behind.whoIs(client)
        const { end } =
          (await collect(ahead.manager.list({ status: 'all' }))).find(({ id }) => id === idOf(client)) ?? {}
        expect(who).toBeNull()
        expect(end?.reason).toBe('idle')
        expect(ahead.heard('expired')).toMatchObject([{ id: expect.any(String), userId: 'ann', reason: 'idle' }])
      },
    )

    test('agree likewise when it is to be archived: it stays on the list, and is archived with its fields', async () => {
      const archived: unknown[] = []
      const archive = ({ fields }: { fields: unknown }): void => {
        archived.push(fields)
      }
      const { behind, ahead, advance } = await twoProcesses({ archive, cleanupInterval: 0 })
      const client = await behind.login('ann')
      await behind.ask((session) => session.set('note', 'kept'), client)
      advance(30 * MINUTE - 2 * SECOND)
      expect(await ahead.manager.sessionsOf('ann')).toEqual([])
      expect(await behind.whoIs(client)).toBe('ann')
      expect(await ahead.manager.sessionsOf('ann')).toHaveLength(1)

      advance(30 * MINUTE + 11 * SECOND)
      expect(await ahead.manager.sessionsOf('ann')).toEqual([])
      expect(await ahead.manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
      expect(archived).toEqual([{ note: 'kept' }])
    })
  })

  test('a clean-up does not end what a session became in its last moment', async () => {
    const rig = await Rig.start(ground)
    const client = await rig.login('ann')
    rig.clock.advance(30 * MINUTE - 1)
    const { store } = rig
    const { end, regenerate } = store
    let isAwaited = (): void => {}
    let goOn = (): void => {}
    const awaited = new Promise<void>((resolve) => {
      isAwaited = resolve
    })
    const isRegenerated = new Promise<void>((resolve) => {
      goOn = resolve
    })
    // The login's call is on its way when the clean-up looks, and gets to the store just before that of the clean-up.
    let regenerated: Promise<RegenerateResult> | undefined
    const gate = new Promise<void>((resolve) => {
      store.end = async (...args) => {
        resolve()
        await isRegenerated
        return end.apply(store, args)
      }
    })
    store.regenerate = async (...args) => {
      isAwaited()
      await gate
      regenerated = regenerate.apply(store, args)
      await regenerated
      goOn()
      return regenerated
    }
    const login = rig.ask((session) => session.reauthenticate(), client)
    await awaited
    rig.clock.advance(10)
    await rig.manager.cleanUp()
    await login
    expect(await rig.whoIs(client)).toBe('ann')
    expect(rig.heard('expired')).toEqual([])
  })

  test('what ran out before all sessions were revoked is archived with its fields', async () => {
    const before = await Rig.start(ground)
    const idle = await before.manager.create({ fields: { note: 'idle' } })
    before.clock.advance(31 * MINUTE)
    await before.manager.create({ fields: { note: 'revoked' } })
    await before.store.epoch?.(1)

    const archived: unknown[] = []
    const archive = ({ id, fields, end }: StoredSession): void => {
      archived.push({ id, fields, reason: end?.reason })
    }
    const rig = await Rig.start(ground, { archive, cleanupInterval: 0 }, before.clock)
    expect(await rig.manager.cleanUp()).toEqual({ removed: 2, failed: 0 })
    expect(archived).toEqual([{ id: idle.id, fields: { note: 'idle' }, reason: 'idle' }])
  })

  describe('what somebody ended, with archiveEnded', () => {
    interface Archived {
      readonly id: string
      readonly fields: unknown
      readonly reason: string | undefined
      readonly ip: string
    }

    /** A process that archives into `archived`. */
    async function archiving(archived: Archived[], clock?: FakeClock, options: RigOptions = {}): Promise<Rig> {
      const archive = ({ id, fields, end, context }: StoredSession): void => {
        archived.push({ id, fields, reason: end?.reason, ip: typeof context.ip })
      }
      return Rig.start(ground, { archive, archiveEnded: true, cleanupInterval: 0, ...options }, clock)
    }

    /** In its turn: the process before gives back its right to clean up a moment after it has done so. */
    async function cleanUp(rig: Rig): Promise<unknown> {
      let result: unknown = null
      await until(async () => {
        result = await rig.manager.cleanUp()
        return result !== null
      })
      return result
    }

    async function withField(rig: Rig, note: string, user: string): Promise<{ client: Client; id: string }> {
      const client = await rig.login(user)
      const id = await rig.ask((session) => session.set('note', note).id, client)
      return { client, id }
    }

    test('is over at once, and archived with its fields by the next clean-up, once: after a logout, an end, a revocation, the limit', async () => {
      const archived: Archived[] = []
      const rig = await archiving(archived, undefined, { maxSessionsPerUser: 1 })
      const large = 'x'.repeat(20_000)
      const out = await withField(rig, large, 'ann')
      const gone = await withField(rig, 'destroyed', 'bob')
      const revoked = await withField(rig, 'revoked', 'cid')
      const pushed = await withField(rig, 'limit', 'dan')
      await rig.ask((session) => session.logout(), out.client)
      await rig.ask((session) => session.destroy(), gone.client)
      await rig.manager.revokeUser('cid', { by: 'support', detail: 'says "unarchived":true' })
      const alive = await withField(rig, 'alive', 'dan')
      for (const { client } of [out, gone, revoked, pushed]) expect(await rig.whoIs(client)).toBeNull()
      expect(archived).toEqual([])

      expect(await cleanUp(rig)).toEqual({ removed: 4, failed: 0 })
      const found = archived.toSorted((a, b) => String(a.reason).localeCompare(String(b.reason)))
      expect(found).toEqual([
        { id: gone.id, fields: { note: 'destroyed' }, reason: 'destroyed', ip: 'string' },
        { id: pushed.id, fields: { note: 'limit' }, reason: 'limit', ip: 'string' },
        { id: out.id, fields: { note: large }, reason: 'logout', ip: 'string' },
        { id: revoked.id, fields: { note: 'revoked' }, reason: 'revoked', ip: 'string' },
      ])
      expect(await cleanUp(rig)).toEqual({ removed: 0, failed: 0 })
      expect(archived).toHaveLength(4)
      // How it ended is remembered, its fields are not.
      const tombstone = await ground.store().get(revoked.id)
      expect(tombstone?.ended).toMatchObject({ reason: 'revoked', by: 'support', detail: 'says "unarchived":true' })
      expect(tombstone?.ended?.unarchived).toBeUndefined()
      expect([tombstone?.fields.size, tombstone?.context]).toEqual([0, undefined])
      expect(await rig.whoIs(alive.client)).toBe('dan')
    })

    test('is archived by another process when the one that ended it is gone, and again when that dies in between', async () => {
      const archived: Archived[] = []
      const first = await archiving(archived)
      const { client, id } = await withField(first, 'kept', 'ann')
      await first.ask((session) => session.logout(), client)
      const second = await archiving(archived, first.clock)
      second.store.set = () => Promise.reject(new Error('gone'))
      expect(await cleanUp(second)).toEqual({ removed: 0, failed: 1 })
      const third = await archiving(archived, first.clock)
      expect(await cleanUp(third)).toEqual({ removed: 1, failed: 0 })
      expect(archived.map(({ id, fields }) => [id, fields])).toEqual([
        [id, { note: 'kept' }],
        [id, { note: 'kept' }],
      ])
    })

    test('waits for the next time when archive fails, beside others', async () => {
      const archived: unknown[] = []
      let failing = 'bad'
      const archive = ({ fields }: StoredSession): void => {
        if (fields['note'] === failing) throw new Error('no room')
        archived.push(fields['note'])
      }
      const rig = await Rig.start(ground, { archive, archiveEnded: true, cleanupInterval: 0 })
      for (const note of ['good', 'bad']) {
        const { client } = await withField(rig, note, note)
        await rig.ask((session) => session.logout(), client)
      }
      expect(await cleanUp(rig)).toEqual({ removed: 1, failed: 1 })
      expect(rig.heard('archiveFailed')).toMatchObject([{ userId: 'bad' }])
      failing = ''
      expect(await cleanUp(rig)).toEqual({ removed: 1, failed: 0 })
      expect(archived).toEqual(['good', 'bad'])
    })

    test('is what all were revoked with, too; what goes on as another session is not', async () => {
      const archived: Archived[] = []
      const rig = await archiving(archived)
      const { client } = await withField(rig, 'kept', 'ann')
      await rig.ask((session) => session.reauthenticate(), client)
      await rig.ask((session) => session.regenerate({ keep: true }), client)
      expect(await cleanUp(rig)).toEqual({ removed: 0, failed: 0 })
      const { id } = await rig.manager.create({ fields: { note: 'last' } })
      await rig.store.epoch?.(1)
      rig.clock.advance(2 * SECOND)
      const other = await archiving(archived, rig.clock)
      expect(await cleanUp(other)).toMatchObject({ failed: 0 })
      expect(archived.filter((one) => one.id === id)).toMatchObject([{ fields: { note: 'last' }, reason: 'revoked' }])
      expect(archived.filter(({ reason }) => reason === 'regenerated')).toEqual([])
    })

    test('is what regenerate() put another session in the place of, which goes on with what it kept', async () => {
      const archived: Archived[] = []
      const rig = await archiving(archived)
      const large = 'x'.repeat(20_000)
      const none = await withField(rig, large, 'ann')
      const some = await withField(rig, 'some', 'bob')
      await rig.ask((session) => session.set('more', 1).id, some.client)
      await rig.ask((session) => session.regenerate(), none.client)
      await rig.ask((session) => session.regenerate({ keep: ['more'] }), some.client)
      const successor = await rig.ask((session) => ({ id: session.id, fields: { ...session } }), some.client)
      expect(successor.fields).toEqual({ more: 1 })

      expect(await cleanUp(rig)).toEqual({ removed: 2, failed: 0 })
      expect(archived.toSorted((a, b) => JSON.stringify(a.fields).length - JSON.stringify(b.fields).length)).toEqual([
        { id: some.id, fields: { note: 'some', more: 1 }, reason: 'regenerated', ip: 'string' },
        { id: none.id, fields: { note: large }, reason: 'regenerated', ip: 'string' },
      ])
      expect(await cleanUp(rig)).toEqual({ removed: 0, failed: 0 })
      // What it became is remembered: an end of the old one ends that, too.
      const tombstone = await ground.store().get(some.id)
      expect([tombstone?.ended?.successor, tombstone?.fields.size]).toEqual([successor.id, 0])
      expect(await rig.manager.revoke(some.id)).toBe(true)
      expect((await rig.manager.validate(successor.id)).isValid).toBe(false)
    })

    test('takes its fields with it without that option', async () => {
      const archived: Archived[] = []
      const rig = await archiving(archived, undefined, { archiveEnded: false })
      const { client, id } = await withField(rig, 'gone', 'ann')
      const replaced = await withField(rig, 'gone', 'bob')
      await rig.ask((session) => session.logout(), client)
      await rig.ask((session) => session.regenerate(), replaced.client)
      expect((await ground.store().get(id))?.fields.size).toBe(0)
      expect((await ground.store().get(replaced.id))?.fields.size).toBe(0)
      expect(await cleanUp(rig)).toEqual({ removed: 0, failed: 0 })
      expect(archived).toEqual([])
    })
  })

  test('one that is over by a shorter idle timeout than it began with ended at that time, not later', async () => {
    const before = await Rig.start(ground, { idleTimeout: '30m' })
    const { id, lastAccessedAt } = await before.manager.create()
    before.clock.advance(6 * MINUTE)
    const rig = await Rig.start(ground, { idleTimeout: '5m' }, before.clock)
    const end = { reason: 'idle', at: lastAccessedAt.getTime() + 5 * MINUTE }
    expect(await rig.manager.validate(id)).toEqual({ isValid: false, reason: 'idle', end })
  })
})

test('what a full memory store forgets is told of, and does not come to archive', async () => {
  const store = new MemorySessionStore({ maxSessions: 3, cleanupInterval: 0 })
  const archived: string[] = []
  const archive = ({ id }: StoredSession): void => void archived.push(id)
  const manager = new SessionManager({ secret: SECRET, store, archive, archiveEnded: true, cleanupInterval: 0 })
  const forgotten: string[] = []
  manager.events.on('forgotten', ({ id }) => void forgotten.push(id))
  const created = async (): Promise<string> => (await manager.create({ fields: { note: 'here' } })).id
  const [out, alive] = [await created(), await created()]
  await manager.revoke(out)
  await created()
  // The one that is over makes room first, then the one that was alive.
  await created()
  expect(forgotten).toEqual([])
  await created()
  expect(forgotten).toEqual([alive])
  expect(await manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
  expect(archived).toEqual([])
  await manager.close()
})

test('a clean-up keeps its lease while it goes through a store in which nothing is over', async () => {
  let ms = 0
  class LargeStore extends MemorySessionStore {
    override async *scan(): AsyncGenerator<SessionData, void, undefined> {
      for await (const record of super.scan()) {
        ms += 7 * SECOND
        yield record
      }
    }
  }
  const store = new FaultyStore(new LargeStore({ cleanupInterval: 0 }))
  const lease = jest.spyOn(store, 'lease')
  const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '10s' })
  for (let count = 0; count < 10; count++) await manager.create()
  const now = jest.spyOn(performance, 'now').mockImplementation(() => ms)
  try {
    await manager.cleanUp()
  } finally {
    now.mockRestore()
    await manager.close()
  }
  // Taken, prolonged before it can run out, given back.
  expect(lease.mock.calls.map(([, , ttlMs]) => ttlMs)).toEqual([30_000, ...Array<number>(10).fill(30_000), 1])
})

describe('going through a store in which sessions are far apart', () => {
  /** Takes `pages` steps of `pageMs` to find its one session. */
  class SparseStore extends MemorySessionStore {
    pages = 10
    pageMs = 900
    tellsProgress = true

    override async *scan(progress?: () => void): AsyncGenerator<SessionData, void, undefined> {
      for (let page = 0; page < this.pages; page++) {
        jest.advanceTimersByTime(this.pageMs)
        await Promise.resolve()
        if (this.tellsProgress) progress?.()
      }
      yield* super.scan()
    }
  }

  async function countIn(store: SparseStore): Promise<number> {
    jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate', 'Date'] })
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '1s' })
    manager.events.on('storeError', () => {})
    await manager.create()
    try {
      return await manager.count()
    } finally {
      // A step that missed its deadline goes on behind it.
      store.pages = 0
      jest.useRealTimers()
      await manager.close()
    }
  }

  test('takes as long as it takes, while the store gets on', async () => {
    expect(await countIn(new SparseStore({ cleanupInterval: 0 }))).toBe(1)
  })

  test('fails when the store does not get on for longer than the deadline', async () => {
    const silent = new SparseStore({ cleanupInterval: 0 })
    silent.tellsProgress = false
    const slow = new SparseStore({ cleanupInterval: 0 })
    slow.pageMs = 1_100
    for (const store of [silent, slow]) {
      expect(await refusal(countIn(store))).toMatchObject({ code: 'STORE_TIMEOUT' })
    }
  })

  test('is told of by a Redis with nothing of ours, through FaultyStore, too', async () => {
    const ground = new RedisGround()
    await ground.start()
    try {
      const others = Array.from({ length: 3_000 }, (_, index) => [`other:${index}`, '1']).flat()
      await ground.raw.mset(others)
      let pages = 0
      const store = new FaultyStore(ground.store())
      for await (const _ of store.scan?.(() => pages++) ?? []) throw new Error('There is nothing.')
      expect(pages).toBeGreaterThan(3)
    } finally {
      await ground.reset()
      await ground.stop()
    }
  })
})
