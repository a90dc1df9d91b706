// The published conformance suite against our stores, against a store of three methods, and against broken ones.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import {
  applyChange,
  applyEnd,
  type EndResult,
  MemorySessionStore,
  type SessionChange,
  SessionData,
  type SessionEnd,
  type SessionNotes,
  SessionStore,
  type UpdateResult,
  type UserEntry,
  type UserIndex,
} from 'sojourn'
import { checkStore, conformanceChecks, FaultyStore, type StoreAbility, type StoreOperation } from 'sojourn/testing'
import { newSessionId } from '../../src/ids.js'
import { memoryKit, redisKit } from '../support/stores.js'

/** The least that is a store. */
class ThreeMethodStore extends SessionStore {
  readonly texts = new Map<string, string>()

  async get(id: string): Promise<SessionData | null> {
    await yieldToOthers()
    const text = this.texts.get(id)
    return text === undefined ? null : SessionData.fromJSON(text)
  }
  async set(id: string, data: SessionData): Promise<void> {
    await yieldToOthers()
    this.texts.set(id, JSON.stringify(data))
  }
  async delete(id: string): Promise<void> {
    await yieldToOthers()
    this.texts.delete(id)
  }
}

const EVERY_ABILITY: readonly StoreAbility[] = ['scan', 'users', 'epoch', 'lease', 'notes', 'signals']

const yieldToOthers = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('MemorySessionStore', () => {
  const kit = memoryKit()
  for (const { name, run } of conformanceChecks({ createStore: kit.create })) test.concurrent(name, run)

  test('has every ability', async () => {
    const report = await checkStore({ createStore: kit.create })
    expect(report).toMatchObject({ failed: [], guarantees: ['basic', 'atomic'], abilities: EVERY_ABILITY })
  })
})

describe('a store of three methods', () => {
  for (const { name, run, ability } of conformanceChecks({ createStore: () => new ThreeMethodStore() })) {
    if (ability === undefined) test.concurrent(name, run)
  }

  test('makes a session without reading first, since nobody else has its ID', async () => {
    class Silent extends ThreeMethodStore {
      override get(): Promise<never> {
        throw new Error('A new session was looked up.')
      }
    }
    const id = newSessionId()
    const store = new Silent()
    const at = Date.now()
    const times = {
      createdAt: at,
      updatedAt: at,
      lastAccessedAt: at,
      expiresAt: at + 1000,
      absoluteExpiresAt: at + 1000,
    }
    const record = new SessionData({ id, tokenHash: 'x', generation: 1, ...times, fields: [] })
    expect(await store.create(id, record, 60)).toBe(true)
  })

  test('is reported as atomic within one process, without abilities, and nothing is said of several', async () => {
    const report = await checkStore({ createStore: () => new ThreeMethodStore() })
    expect(report).toMatchObject({ failed: [], guarantees: ['basic', 'atomic'], abilities: [] })
    const checks = conformanceChecks({ createStore: () => new ThreeMethodStore() })
    expect(report.passed).toEqual(checks.filter(({ ability }) => ability === undefined).map(({ name }) => name))
  })

  test('is not reported as shared when two of them work on the same data', async () => {
    const report = await checkStore({
      createStore: () => new ThreeMethodStore(),
      createPeer: (store) => {
        const peer = new ThreeMethodStore()
        Object.assign(peer, { texts: (store as ThreeMethodStore).texts })
        return peer
      },
    })
    expect(report.guarantees).toEqual(['basic', 'atomic'])
    expect(report.failed.length).toBeGreaterThan(0)
  })
})

describe('RedisSessionStore', () => {
  const kit = redisKit()
  beforeAll(kit.start)
  afterAll(kit.stop)
  for (const { name, run } of conformanceChecks({ createStore: kit.create, createPeer: kit.create })) test(name, run)

  test('is reported as shared, with every ability', async () => {
    const report = await checkStore({ createStore: kit.create, createPeer: kit.create })
    expect(report).toMatchObject({ failed: [], guarantees: ['basic', 'atomic', 'shared'], abilities: EVERY_ABILITY })
  })
})

describe('the suite finds a store that', () => {
  class Careless extends ThreeMethodStore {
    /** Replaces the whole record, as most session stores do. */
    override async update(id: string, change: SessionChange): Promise<UpdateResult> {
      const record = await this.get(id)
      if (record === null) return { status: 'ended' }
      await this.set(id, record.with({ fields: new Map([...record.fields, ...(change.set ?? [])]) }))
      return { status: 'updated' }
    }
  }
  class Resurrecting extends ThreeMethodStore {
    /** Waits for nobody: what another call read before, it writes after. */
    override async end(id: string, ended: SessionEnd): Promise<EndResult> {
      const record = await this.get(id)
      if (record === null || record.ended) return { status: 'over', successor: record?.ended?.successor }
      await this.set(id, applyEnd(record, ended))
      return { status: 'ended' }
    }
  }

  test('loses updates', async () => {
    const report = await checkStore({ createStore: () => new Careless() })
    expect(report.failed.map(({ name }) => name)).toContain('100 concurrent changes of different fields all survive')
    expect(report.guarantees).toEqual([])
  })

  test('brings back what ended', async () => {
    const report = await checkStore({ createStore: () => new Resurrecting() })
    expect(report.failed.map(({ name }) => name)).toEqual([
      'of 20 concurrent end() exactly one ends the session, and its reason stands',
      'of an end and a regeneration at once one wins, and the end is told of the successor',
      'ended stays ended: no update, touch, renewal or regeneration brings a session back',
    ])
    expect(report.guarantees).toEqual(['basic'])
  })

  /** A memory store of which one promise is broken. */
  type Broken = (store: MemorySessionStore) => void

  function alterRecords(alter: (record: SessionData) => SessionData | null): Broken {
    return (store) => {
      const get = store.get.bind(store)
      store.get = async (id) => {
        const record = await get(id)
        return record && alter(record)
      }
    }
  }

  const broken: [what: string, failing: string, breakIt: Broken][] = [
    ['forgets users', 'a user ID keeps its type', alterRecords((record) => record.with({ userId: undefined }))],
    [
      'forgets the context',
      'context and epoch come back as they were, or not at all',
      alterRecords((record) => record.with({ context: undefined })),
    ],
    [
      'forgets the epoch',
      'context and epoch stay when a session changes',
      alterRecords((record) => (record.isExpired(record.lastAccessedAt) ? record : record.with({ epoch: 0 }))),
    ],
    [
      'leaves no tombstone',
      'end() leaves a tombstone: how it ended, whose it was, and no field',
      (store) => {
        store.end = async (id) => {
          const status = (await store.get(id)) === null ? 'over' : 'ended'
          await store.delete(id)
          return { status }
        }
      },
    ],
    [
      'leaves the fields in the tombstone',
      'end() leaves a tombstone: how it ended, whose it was, and no field',
      alterRecords((record) => (record.ended ? record.withField('a', '1') : record)),
    ],
    [
      'forgets who ended a session',
      'end() leaves a tombstone: how it ended, whose it was, and no field',
      alterRecords((record) => (record.ended ? record.with({ ended: { ...record.ended, by: undefined } }) : record)),
    ],
    [
      'calls every ending the same',
      'every reason of an end comes back, with nothing that was not said',
      alterRecords((record) =>
        record.ended ? record.with({ ended: { ...record.ended, reason: 'destroyed' } }) : record,
      ),
    ],
    [
      'ends twice',
      'a second end() is told that it is over, and by whom it was followed',
      (store) => {
        store.end = async (id, ended, ttlSeconds) => {
          const record = await store.get(id)
          if (record === null) return { status: 'over' }
          await store.set(id, applyEnd(record, ended), ttlSeconds)
          return { status: 'ended' }
        }
      },
    ],
    [
      'does not name the successor',
      'regenerate() leaves a tombstone that names the successor',
      (store) => {
        const end = store.end.bind(store)
        store.end = async (id, ended, ttlSeconds) => {
          const result = await end(id, ended, ttlSeconds)
          return result.status === 'over' ? { status: 'over' } : result
        }
      },
    ],
    [
      'removes the old session when it regenerates',
      'regenerate() leaves a tombstone that names the successor',
      (store) => {
        const regenerate = store.regenerate.bind(store)
        store.regenerate = async (id, regeneration, ttlSeconds) => {
          const result = await regenerate(id, regeneration, ttlSeconds)
          if (result.status === 'regenerated') await store.delete(id)
          return result
        }
      },
    ],
    [
      'writes over a tombstone',
      'nothing changes a tombstone but delete()',
      (store) => {
        const create = store.create.bind(store)
        store.create = async (id, data, ttlSeconds) => {
          if ((await store.get(id))?.ended) await store.delete(id)
          return create(id, data, ttlSeconds)
        }
      },
    ],
    [
      'removes tombstones when it cleans up',
      'clearExpired() removes nothing that is to be kept: live records, expired ones, tombstones',
      (store) => {
        store.clearExpired = async () => {
          for await (const record of store.scan()) if (record.ended) await store.delete(record.id)
          return 0
        }
      },
    ],
    [
      'forgets a session as soon as it has expired',
      'a record stays readable after its end, for as long as it was told to be kept',
      alterRecords((record) => (record.ended || !record.isExpired() ? record : null)),
    ],
    [
      'takes every update for activity',
      'update() that is no activity writes fields and metadata, and moves neither last access nor end',
      (store) => {
        const update = store.update.bind(store)
        store.update = (id, { isPassive: _isPassive, ...change }, ttlSeconds) => update(id, change, ttlSeconds)
      },
    ],
    [
      'knows no limits',
      'update() makes no session larger than its limits, and leaves it as it is instead',
      (store) => {
        const update = store.update.bind(store)
        store.update = (id, { limits: _limits, ...change }, ttlSeconds) => update(id, change, ttlSeconds)
      },
    ],
    [
      'looks at the limits before the step that writes',
      'of concurrent changes that do not fit together those that fit are applied, and the others change nothing',
      (store) => {
        const update = store.update.bind(store)
        store.update = async (id, { limits, ...change }, ttlSeconds) => {
          const { result } = applyChange(await store.get(id), { ...change, limits })
          await yieldToOthers()
          return result.status === 'too-large' ? result : update(id, change, ttlSeconds)
        }
      },
    ],
    [
      'knows no limits when it regenerates',
      'regenerate() makes no session larger than its limits, and ends nothing then',
      (store) => {
        const regenerate = store.regenerate.bind(store)
        store.regenerate = (id, { limits: _limits, ...regeneration }, ttlSeconds) =>
          regenerate(id, regeneration, ttlSeconds)
      },
    ],
    [
      'scans live sessions only',
      'scan() has every record whole: live ones, expired ones and tombstones',
      (store) => {
        const scan = store.scan.bind(store)
        store.scan = async function* () {
          for await (const record of scan()) if (!record.isExpired()) yield record
        }
      },
    ],
    [
      'counts logins and adds one in two steps',
      '20 concurrent logins with a limit of 3 that refuses leave exactly 3',
      alterUsers((users) => ({
        async add(user, entry, options) {
          const entries = await users.list(user, options.now)
          await yieldToOthers()
          if (entries.length >= (options.max ?? Number.POSITIVE_INFINITY)) return { status: 'full', entries }
          return users.add(user, entry, { now: options.now })
        },
      })),
    ],
    [
      'removes what it evicts',
      'evict() marks all but one, and tells every marked one until it is removed',
      alterUsers((users) => ({
        async evict(user, options) {
          const evicted = await users.evict(user, options)
          await users.remove(
            user,
            evicted.map(({ id }) => id),
          )
          return evicted
        },
      })),
    ],
    [
      'evicts in two steps',
      'no login slips past an eviction: it is marked and told, or came after',
      alterUsers((users) => ({
        async evict(user, options) {
          const told = await users.list(user, options.now)
          await yieldToOthers()
          await users.evict(user, options)
          return told.map((entry) => ({ ...entry, isEvicted: true }))
        },
      })),
    ],
    [
      'settles what was evicted',
      'settle() says that a session is there, removes others, and fails for what was evicted or removed',
      alterUsers((users) => ({
        async settle(user, id, remove) {
          await users.settle(user, id, remove)
          return true
        },
      })),
    ],
    [
      'keeps entries for ever',
      'an entry is there until its session can no longer be',
      alterUsers((users) => ({ list: (user) => users.list(user, 0) })),
    ],
    [
      'refuses at the limit whoever it is',
      'users do not meet, whatever letters they are made of',
      alterUsers((users) => ({ list: (user, now) => users.list(user.toLowerCase(), now) })),
    ],
    [
      'lets the epoch go back',
      'epoch() is a count that only rises, and is raised by being told',
      (store) => {
        let epoch = 0
        store.epoch = async (atLeast) => {
          epoch = atLeast ?? epoch
          return epoch
        }
      },
    ],
    [
      'raises the epoch in two steps',
      'of concurrent raises of the epoch the highest stands, and none is told a lower one',
      (store) => {
        let epoch = 0
        store.epoch = async (atLeast) => {
          const next = Math.max(epoch, atLeast ?? 0)
          await yieldToOthers()
          epoch = next
          return next
        }
      },
    ],
    [
      'leases to everyone',
      'a lease has one owner, who may prolong it',
      (store) => {
        store.lease = async () => true
      },
    ],
    [
      'does not prolong a lease',
      'a lease is over when its time is, counted from when it was prolonged',
      (store) => {
        const leases = new Map<string, { owner: string; until: number }>()
        store.lease = async (name, owner, ttlMs) => {
          const present = leases.get(name)
          if (present && Date.now() < present.until) return present.owner === owner
          leases.set(name, { owner, until: Date.now() + ttlMs })
          return true
        }
      },
    ],
    [
      'takes a note in two steps',
      'of 50 who take a note at once exactly one gets it',
      alterNotes((notes) => ({
        async take(purpose, key) {
          const text = await notes.get(purpose, key)
          await yieldToOthers()
          await notes.delete(purpose, key)
          return text
        },
      })),
    ],
    [
      'writes a note if it is absent in two steps',
      'of 50 who write a note if it is absent exactly one does',
      alterNotes((notes) => ({
        async put(purpose, key, text, options) {
          if (options.ifAbsent && (await notes.get(purpose, key)) !== null) return false
          await yieldToOthers()
          return notes.put(purpose, key, text, { ttlSeconds: options.ttlSeconds })
        },
      })),
    ],
    [
      'keeps the notes of all purposes together',
      'a note comes back as it was written, under its purpose and key alone',
      alterNotes((notes) => ({ get: (_purpose, key) => notes.get('a', key) })),
    ],
    [
      'leaves what was taken',
      'take() reads and removes, delete() removes, and both leave the rest',
      alterNotes((notes) => ({ take: (purpose, key) => notes.get(purpose, key) })),
    ],
    [
      'keeps notes for ever',
      'a note is gone when its time is over, counted from when it was last written',
      alterNotes((notes) => ({
        put: (purpose, key, text, options) => notes.put(purpose, key, text, { ...options, ttlSeconds: 1e6 }),
      })),
    ],
  ]

  function alterNotes(alter: (notes: SessionNotes) => Partial<SessionNotes>): Broken {
    return (store) => {
      const { notes } = store
      const methods: SessionNotes = {
        put: (...args) => notes.put(...args),
        get: (...args) => notes.get(...args),
        take: (...args) => notes.take(...args),
        delete: (...args) => notes.delete(...args),
      }
      Object.assign(store, { notes: { ...methods, ...alter(notes) } })
    }
  }

  function alterUsers(alter: (users: UserIndex) => Partial<UserIndex>): Broken {
    return (store) => {
      const { users } = store
      const methods: UserIndex = {
        add: (...args) => users.add(...args),
        settle: (...args) => users.settle(...args),
        list: (...args) => users.list(...args),
        evict: (...args) => users.evict(...args),
        remove: (...args) => users.remove(...args),
      }
      Object.assign(store, { users: { ...methods, ...alter(users) } })
    }
  }

  // Several at a time: most of their time they wait for something to expire.
  test.concurrent.each(broken)('%s', async (_what, failing, breakIt) => {
    const createStore = (): SessionStore => {
      const store = new MemorySessionStore({ cleanupInterval: 0 })
      breakIt(store)
      return store
    }
    const report = await checkStore({ createStore })
    expect(report.failed.map(({ name }) => name)).toContain(failing)
    const check = conformanceChecks({ createStore }).find(({ name }) => name === failing)
    expect(report.guarantees).not.toContain(check?.guarantee)
    expect(report.abilities).not.toContain(check?.ability)
  })
})

describe('FaultyStore', () => {
  for (const { name, run } of conformanceChecks({
    createStore: () => new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 })),
  })) {
    test.concurrent(`without faults: ${name}`, run)
  }

  test('has the abilities of the store in it, and no others', async () => {
    const around = (store: SessionStore): Promise<{ abilities: readonly string[] }> =>
      checkStore({ createStore: () => new FaultyStore(store) })
    expect((await around(new MemorySessionStore({ cleanupInterval: 0 }))).abilities).toEqual(EVERY_ABILITY)
    expect((await around(new ThreeMethodStore())).abilities).toEqual([])
    expect(new FaultyStore(new ThreeMethodStore()).users).toBeUndefined()
  })

  const abilityCalls: [StoreOperation, (store: FaultyStore) => Promise<unknown>][] = [
    ['scan', (store) => store.scan?.()[Symbol.asyncIterator]().next() ?? absent()],
    ['users.add', (store) => store.users?.add('u', ENTRY, { now: 0 }) ?? absent()],
    ['users.settle', (store) => store.users?.settle('u', 'id') ?? absent()],
    ['users.list', (store) => store.users?.list('u', 0) ?? absent()],
    ['users.evict', (store) => store.users?.evict('u', { now: 0 }) ?? absent()],
    ['users.remove', (store) => store.users?.remove('u', ['id']) ?? absent()],
    ['epoch', (store) => store.epoch?.(1) ?? absent()],
    ['lease', (store) => store.lease?.('name', 'owner', 1_000) ?? absent()],
    ['notes.put', (store) => store.notes?.put('a', 'k', '', { ttlSeconds: 1 }) ?? absent()],
    ['notes.get', (store) => store.notes?.get('a', 'k') ?? absent()],
    ['notes.take', (store) => store.notes?.take('a', 'k') ?? absent()],
    ['notes.delete', (store) => store.notes?.delete('a', 'k') ?? absent()],
  ]

  test.each(abilityCalls)('disturbs %s, and counts it', async (operation, call) => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    store.fail({ kind: 'error', operations: [operation], times: 1 })
    await expect(call(store)).rejects.toThrow(`FaultyStore: "${operation}" was told to fail.`)
    store.fail({ kind: 'delay', operations: [operation], times: 1 })
    let isDone = false
    const held = call(store).finally(() => {
      isDone = true
    })
    await yieldToOthers()
    expect([store.heldCalls, isDone]).toEqual([1, false])
    store.release()
    await held
    await call(store)
    expect([store.calls[operation], store.totalCalls]).toEqual([3, 3])
  })

  test('a lost reply is of a call that was done', async () => {
    const inner = new MemorySessionStore({ cleanupInterval: 0 })
    const store = new FaultyStore(inner)
    store.fail({ kind: 'lost-reply' })
    await expect(store.epoch?.(5)).rejects.toThrow('epoch')
    await expect(store.users?.add('u', ENTRY, { now: 0 })).rejects.toThrow('users.add')
    expect([await inner.epoch(), await inner.users.list('u', 0)]).toEqual([5, [ENTRY]])
  })
})

const ENTRY: UserEntry = { id: 'id', since: 1, endsAt: 2, pendingUntil: 0, isEvicted: false }

function absent(): never {
  throw new Error('The ability is absent.')
}
