// Tools for tests, yours and ours: the suite that every store must pass, a clock that stands still, and a store that
// fails on demand. Free of any test runner.
import { SessionError } from './errors.js'
import { newSessionId, newToken } from './ids.js'
import { type Regeneration, type SessionChange, SessionData, type UpdateResult } from './session-data.js'
import { SessionStore } from './store.js'

/** One check of the conformance suite. Run it with any test runner: `test(check.name, check.run)`. */
export interface ConformanceCheck {
  readonly name: string
  /** What a store that passes may claim. */
  readonly guarantee: StoreGuarantee
  /** Rejects, saying what was expected and what was found, when the store breaks the promise. */
  readonly run: () => Promise<void>
}

/**
 * `'basic'`: keeps and forgets records whole. `'atomic'`: concurrent operations of one process neither lose updates nor
 * bring back what ended. `'shared'`: the same across processes.
 */
export type StoreGuarantee = 'basic' | 'atomic' | 'shared'

/** What the suite needs of a store. */
export interface ConformanceOptions {
  /** Makes a store; called once a check. The suite uses fresh session IDs, so the data may be shared. */
  readonly createStore: () => SessionStore | Promise<SessionStore>
  /**
   * Makes a second store on the same data, as another process would have it. Without it nothing is checked across
   * processes, and the report says so.
   */
  readonly createPeer?: (store: SessionStore) => SessionStore | Promise<SessionStore>
  /** Called after each check with every store made for it. Default: `store.close()`. */
  readonly destroyStore?: (store: SessionStore) => Promise<void>
}

/** What `checkStore()` found. */
export interface ConformanceReport {
  readonly passed: readonly string[]
  readonly failed: readonly { readonly name: string; readonly error: unknown }[]
  /** The guarantees of which every check passed. `'shared'` appears only when `createPeer` was given. */
  readonly guarantees: readonly StoreGuarantee[]
}

/** Runs the whole suite and reports which guarantees the store gives. */
export async function checkStore(options: ConformanceOptions): Promise<ConformanceReport> {
  const checks = conformanceChecks(options)
  const passed: string[] = []
  const failed: { name: string; error: unknown }[] = []
  const broken = new Set<StoreGuarantee>()
  for (const { name, guarantee, run } of checks) {
    try {
      await run()
      passed.push(name)
    } catch (error) {
      failed.push({ name, error })
      broken.add(guarantee)
    }
  }
  const offered = new Set(checks.map((check) => check.guarantee))
  return { passed, failed, guarantees: [...offered].filter((guarantee) => !broken.has(guarantee)) }
}

/** The checks, for a test runner that wants them one by one. */
export function conformanceChecks(options: ConformanceOptions): ConformanceCheck[] {
  const checks: ConformanceCheck[] = []
  const withStores =
    (run: (store: SessionStore, peer: SessionStore) => Promise<void>, isShared: boolean) => async () => {
      const store = await options.createStore()
      const peer = isShared && options.createPeer ? await options.createPeer(store) : store
      const destroy = options.destroyStore ?? ((made: SessionStore) => made.close())
      try {
        await run(store, peer)
      } finally {
        if (peer !== store) await destroy(peer)
        await destroy(store)
      }
    }
  for (const [name, run] of Object.entries(BASIC)) {
    checks.push({ name, guarantee: 'basic', run: withStores(run, false) })
  }
  for (const [name, run] of Object.entries(ATOMIC)) {
    checks.push({ name, guarantee: 'atomic', run: withStores(run, false) })
  }
  if (options.createPeer) {
    for (const [name, run] of Object.entries(ATOMIC)) {
      checks.push({ name: `across processes: ${name}`, guarantee: 'shared', run: withStores(run, true) })
    }
  }
  return checks
}

type Check = (store: SessionStore, peer: SessionStore) => Promise<void>

const BASIC: Record<string, Check> = {
  'get() of an unknown ID is null': async (store) => {
    equal(await store.get(newSessionId()), null, 'get')
  },
  'what create() wrote, get() returns': async (store) => {
    const record = sample()
    equal(await store.create(record.id, record, 60), true, 'create')
    same(await store.get(record.id), record)
  },
  'what set() wrote, get() returns, whole': async (store) => {
    const first = sample({ fields: { a: '1', b: '2' }, userId: 7 })
    await store.set(first.id, first, 60)
    const second = first.with({ fields: [['c', '3']], userId: undefined })
    await store.set(first.id, second, 60)
    same(await store.get(first.id), second)
  },
  'metadata and any field name and text come back exactly': async (store) => {
    const record = sample({
      userId: 'ü "\\ \u0000',
      idleTimeoutMs: 5_000,
      persistent: true,
      previousToken: { hash: newToken().tokenHash, until: Date.now() + 1_000 },
      fields: {
        '': '""',
        constructor: '1',
        toString: '2',
        hasOwnProperty: '3',
        t: '4',
        m: '5',
        'user.name with {braces} * ? \r\n \u0000 \u{1F36A}': JSON.stringify('\u0000\uFFFF\u{1F36A}\n'),
        empty: '',
        long: 'x'.repeat(20_000),
      },
    })
    const withProto = record.withField('__proto__', '{"polluted":true}')
    await store.create(record.id, withProto, 60)
    same(await store.get(record.id), withProto)
    equal(({} as Record<string, unknown>)['polluted'], undefined, 'Object.prototype')
  },
  'a user ID keeps its type': async (store) => {
    for (const userId of [0, 42, -1.5, '42', '0']) {
      const record = sample({ userId })
      await store.create(record.id, record, 60)
      equal((await store.get(record.id))?.userId, userId, 'userId')
    }
  },
  'create() never overwrites': async (store) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    equal(await store.create(record.id, record.withField('a', '2'), 60), false, 'second create')
    same(await store.get(record.id), record)
  },
  'delete() forgets, and is harmless when there is nothing': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    await store.delete(record.id)
    equal(await store.get(record.id), null, 'get')
    await store.delete(record.id)
  },
  'end() forgets, and tells whether there was something': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    equal(await store.end(record.id), true, 'first end')
    equal(await store.end(record.id), false, 'second end')
    equal(await store.get(record.id), null, 'get')
  },
  'exists() tells live records from expired and absent ones': async (store) => {
    const live = sample()
    await store.create(live.id, live, 60)
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    equal(await store.exists(live.id), true, 'live')
    equal(await store.exists(expired.id), false, 'expired')
    equal(await store.exists(newSessionId()), false, 'absent')
  },
  'update() writes and removes fields and leaves the others': async (store) => {
    const record = sample({ fields: { keep: '1', change: '2', drop: '3' } })
    await store.create(record.id, record, 60)
    const change = changeOf(record, {
      set: new Map([
        ['change', '20'],
        ['add', '4'],
      ]),
      delete: ['drop'],
    })
    equal((await store.update(record.id, change, 60)).status, 'updated', 'status')
    const updated = await must(store, record.id)
    sameFields(updated, { keep: '1', change: '20', add: '4' })
    equal(updated.updatedAt, change.at, 'updatedAt')
    equal(updated.lastAccessedAt, change.at, 'lastAccessedAt')
    equal(updated.expiresAt, change.expiresAt, 'expiresAt')
    equal(updated.createdAt, record.createdAt, 'createdAt')
    equal(updated.tokenHash, record.tokenHash, 'tokenHash')
  },
  'update() writes and removes metadata': async (store) => {
    const record = sample({ userId: 1 })
    await store.create(record.id, record, 60)
    const metadata = { idleTimeoutMs: 5_000, persistent: true, absoluteExpiresAt: record.absoluteExpiresAt + 1_000 }
    await store.update(record.id, { ...changeOf(record), metadata, expiresAt: record.lastAccessedAt + 5_000 }, 5)
    let updated = await must(store, record.id)
    equal(updated.idleTimeoutMs, 5_000, 'idleTimeoutMs')
    equal(updated.persistent, true, 'persistent')
    equal(updated.absoluteExpiresAt, record.absoluteExpiresAt + 1_000, 'absoluteExpiresAt')
    equal(updated.expiresAt, record.lastAccessedAt + 5_000, 'expiresAt, which an own idle timeout may move back')
    equal(updated.userId, 1, 'userId')
    await store.update(record.id, changeOf(updated, { metadata: { userId: undefined, idleTimeoutMs: undefined } }), 60)
    updated = await must(store, record.id)
    equal(updated.userId, undefined, 'removed userId')
    equal(updated.idleTimeoutMs, undefined, 'removed idleTimeoutMs')
  },
  'update() never creates': async (store) => {
    const record = sample()
    equal((await store.update(record.id, changeOf(record, { set: ONE_FIELD }), 60)).status, 'ended', 'status')
    equal(await store.get(record.id), null, 'get')
  },
  'update() of another generation is not applied': async (store) => {
    const record = sample({ fields: { a: '1' }, generation: 2 })
    await store.create(record.id, record, 60)
    const stale = { ...changeOf(record, { set: ONE_FIELD }), generation: 1 }
    equal((await store.update(record.id, stale, 60)).status, 'ended', 'status')
    same(await store.get(record.id), record)
  },
  'update() and touch() of an expired record are not applied': async (store) => {
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    equal((await store.update(expired.id, changeOf(expired, { set: ONE_FIELD }), 60)).status, 'ended', 'update')
    equal(await store.touch(expired.id, 60), false, 'touch')
    equal(await store.exists(expired.id), false, 'exists')
  },
  'update() by an own idle timeout counts as expired when that has passed': async (store) => {
    const idle = sample({ age: 10_000, life: 60_000, idleTimeoutMs: 5_000 })
    await store.create(idle.id, idle, 60)
    equal((await store.update(idle.id, changeOf(idle, { set: ONE_FIELD }), 60)).status, 'ended', 'update')
    equal(await store.touch(idle.id, 60), false, 'touch')
  },
  'an end never moves back, nor beyond the absolute one': async (store) => {
    const record = sample({ life: 60_000 })
    await store.create(record.id, record, 60)
    await store.update(record.id, { ...changeOf(record), expiresAt: record.createdAt + 1_000 }, 1)
    equal((await must(store, record.id)).expiresAt, record.expiresAt, 'after an earlier end')
    await store.touch(record.id, 10 * 86_400, record.createdAt)
    equal((await must(store, record.id)).expiresAt, record.absoluteExpiresAt, 'after a far touch')
  },
  'a clock that was set back moves no time back': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const past = record.lastAccessedAt - 3_600_000
    await store.touch(record.id, 60, past)
    await store.update(record.id, { ...changeOf(record, { set: ONE_FIELD }), at: past }, 60)
    const after = await must(store, record.id)
    equal(after.lastAccessedAt, record.lastAccessedAt, 'lastAccessedAt')
    equal(after.updatedAt >= record.updatedAt, true, 'updatedAt')
  },
  'touch() moves the idle timeout and nothing else': async (store) => {
    const record = sample({ fields: { a: '1' }, userId: 3, age: 10_000, life: 20_000 })
    await store.create(record.id, record, 60)
    const now = record.lastAccessedAt + 10_000
    equal(await store.touch(record.id, 60, now), true, 'touch')
    same(await store.get(record.id), record.with({ lastAccessedAt: now, expiresAt: now + 60_000 }))
  },
  'an expectation that fails stops the whole change and tells the present text': async (store) => {
    const record = sample({ fields: { n: '1' } })
    await store.create(record.id, record, 60)
    const attempt = (field: string, text: string | undefined): Promise<UpdateResult> =>
      store.update(record.id, changeOf(record, { set: new Map([['n', '9']]), expect: { field, text } }), 60)
    sameResult(await attempt('n', '2'), { status: 'conflict', text: '1' })
    sameResult(await attempt('n', undefined), { status: 'conflict', text: '1' })
    sameResult(await attempt('absent', '1'), { status: 'conflict', text: undefined })
    sameFields(await must(store, record.id), { n: '1' })
    sameResult(await attempt('n', '1'), { status: 'updated' })
    sameFields(await must(store, record.id), { n: '9' })
    sameResult(await attempt('absent', undefined), { status: 'updated' })
  },
  'a renewal replaces the token it was made for, once, and keeps the old one for its grace': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 10_000 }
    equal((await store.update(record.id, changeOf(record, { renew }), 60)).status, 'updated', 'first')
    const again = { ...renew, to: newToken().tokenHash }
    equal((await store.update(record.id, changeOf(record, { renew: again }), 60)).status, 'renewed', 'second')
    const renewed = await must(store, record.id)
    equal(renewed.tokenHash, renew.to, 'tokenHash')
    sameResult(renewed.previousToken, { hash: renew.from, until: renew.graceUntil })
  },
  'regenerate() ends the old session and begins the new one with all fields': async (store) => {
    const record = sample({ fields: { a: '1', b: '2', c: '3' }, userId: 1, persistent: true, idleTimeoutMs: 9_000 })
    await store.create(record.id, record, 60)
    const next = successor(record, { fields: { b: '20' }, userId: 2 })
    const result = await store.regenerate(record.id, regenerationOf(record, next, { keep: 'all', delete: ['c'] }), 60)
    equal(result.status, 'regenerated', 'status')
    equal(await store.get(record.id), null, 'the old session')
    const expected = next.with({ fields: Object.entries({ a: '1', b: '20' }) })
    same(await store.get(next.id), expected)
    if (result.status === 'regenerated') same(result.record, expected)
  },
  'regenerate() keeps only the fields that it names': async (store) => {
    const record = sample({ fields: { a: '1', b: '2', c: '3' } })
    await store.create(record.id, record, 60)
    const next = successor(record, { fields: { d: '4' } })
    await store.regenerate(record.id, regenerationOf(record, next, { keep: ['a', 'absent'] }), 60)
    sameFields(await must(store, next.id), { a: '1', d: '4' })
    const last = successor(next)
    await store.regenerate(next.id, regenerationOf(next, last, { keep: [] }), 60)
    sameFields(await must(store, last.id), {})
  },
  'regenerate() of an ended session begins nothing': async (store) => {
    const record = sample()
    const next = successor(record)
    equal((await store.regenerate(record.id, regenerationOf(record, next), 60)).status, 'ended', 'status')
    equal(await store.get(next.id), null, 'the new session')
  },
  'regenerate() never overwrites': async (store) => {
    const record = sample()
    const other = successor(record, { fields: { other: '1' } })
    await store.create(record.id, record, 60)
    await store.create(other.id, other, 60)
    equal((await store.regenerate(record.id, regenerationOf(record, other), 60)).status, 'taken', 'status')
    same(await store.get(record.id), record)
    same(await store.get(other.id), other)
  },
  'records are isolated from what callers do with them': async (store) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const got = await must(store, record.id)
    attempt(() => (got.fields as Map<string, string>).set('a', '2'))
    attempt(() => Object.assign(got, { userId: 'intruder' }))
    same(await store.get(record.id), record)
  },
  'clearExpired() removes no live record': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    equal(typeof (await store.clearExpired()), 'number', 'result')
    same(await store.get(record.id), record)
  },
}

const ATOMIC: Record<string, Check> = {
  '100 concurrent changes of different fields all survive': async (store, peer) => {
    const record = sample()
    await store.create(record.id, record, 60)
    await concurrently(100, (index) =>
      pick(index, store, peer).update(record.id, changeOf(record, { set: new Map([[`f${index}`, `${index}`]]) }), 60),
    )
    const after = await must(peer, record.id)
    equal(after.fields.size, 100, 'number of fields')
  },
  '100 concurrent read-modify-writes of one field all count': async (store, peer) => {
    const record = sample({ fields: { n: '0' } })
    await store.create(record.id, record, 60)
    await concurrently(100, async (index) => {
      const mine = pick(index, store, peer)
      for (let text: string | undefined = '0'; ; ) {
        const change = changeOf(record, {
          set: new Map([['n', String(Number(text) + 1)]]),
          expect: { field: 'n', text },
        })
        const result = await mine.update(record.id, change, 60)
        if (result.status === 'updated') return
        if (result.status !== 'conflict') throw new Error(`update() of a live session resolved to ${result.status}`)
        text = result.text
      }
    })
    equal((await must(peer, record.id)).fields.get('n'), '100', 'n')
  },
  'of 20 concurrent create() of one ID exactly one wins': async (store, peer) => {
    const record = sample()
    const results = await concurrently(20, (index) =>
      pick(index, store, peer).create(record.id, record.withField('n', String(index)), 60),
    )
    equal(results.filter(Boolean).length, 1, 'winners')
    equal((await must(peer, record.id)).fields.get('n'), String(results.indexOf(true)), 'content')
  },
  'of 20 concurrent renewals exactly one wins': async (store, peer) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const results = await concurrently(20, (index) => {
      const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 1_000 }
      return pick(index, store, peer).update(record.id, changeOf(record, { renew }), 60)
    })
    equal(results.filter(({ status }) => status === 'updated').length, 1, 'winners')
  },
  'of 20 concurrent regenerations exactly one wins, and exactly one session is left': async (store, peer) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const successors = Array.from({ length: 20 }, () => successor(record))
    const results = await concurrently(20, (index) =>
      pick(index, store, peer).regenerate(record.id, regenerationOf(record, successors[index] as SessionData), 60),
    )
    equal(results.filter(({ status }) => status === 'regenerated').length, 1, 'winners')
    const left = await Promise.all([record, ...successors].map(({ id }) => peer.exists(id)))
    equal(left.filter(Boolean).length, 1, 'sessions')
    equal(left[0], false, 'the old session')
  },
  'ended stays ended: no update, touch, renewal or regeneration brings a session back': async (store, peer) => {
    for (let round = 0; round < 40; round++) {
      const record = sample({ fields: { a: '1' } })
      await store.create(record.id, record, 60)
      const next = successor(record)
      const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 1_000 }
      // The end comes at every distance from each of the others.
      await Promise.all([
        afterTurns(round % 8, () => store.end(record.id)),
        afterTurns((round >> 1) % 3, () => peer.update(record.id, changeOf(record, { set: ONE_FIELD }), 60)),
        afterTurns((round >> 2) % 3, () => peer.touch(record.id, 60)),
        afterTurns((round >> 3) % 3, () => peer.update(record.id, changeOf(record, { renew }), 60)),
        afterTurns((round >> 4) % 3, async () => {
          if (round % 2 === 0) await peer.regenerate(record.id, regenerationOf(record, next), 60)
        }),
      ])
      equal(await peer.get(record.id), null, `the session, round ${round}`)
    }
  },
}

const ONE_FIELD: ReadonlyMap<string, string> = new Map([['late', 'true']])
const HOUR_MS = 3_600_000

interface SampleOptions {
  fields?: Record<string, string>
  userId?: string | number | undefined
  generation?: number
  idleTimeoutMs?: number
  persistent?: boolean
  previousToken?: { hash: string; until: number }
  /** Milliseconds since it was made and last used. */
  age?: number
  /** Milliseconds from its making to its end. */
  life?: number
}

function sample({ fields = {}, generation = 1, age = 0, life = HOUR_MS, ...rest }: SampleOptions = {}): SessionData {
  const createdAt = Date.now() - age
  return new SessionData({
    ...rest,
    id: newSessionId(),
    tokenHash: newToken().tokenHash,
    generation,
    createdAt,
    updatedAt: createdAt,
    lastAccessedAt: createdAt,
    expiresAt: createdAt + life,
    absoluteExpiresAt: createdAt + 12 * HOUR_MS,
    fields: Object.entries(fields),
  })
}

function changeOf(record: SessionData, parts: Partial<SessionChange> = {}): SessionChange {
  const at = Date.now()
  return { generation: record.generation, at, expiresAt: at + HOUR_MS, ...parts }
}

function successor(record: SessionData, options: Pick<SampleOptions, 'fields' | 'userId'> = {}): SessionData {
  return sample({ ...options, generation: record.generation + 1 }).with({ id: newSessionId(record.id) })
}

function regenerationOf(record: SessionData, next: SessionData, parts: Partial<Regeneration> = {}): Regeneration {
  return { generation: record.generation, at: Date.now(), next, keep: 'all', ...parts }
}

function concurrently<T>(count: number, task: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_unused, index) => task(index)))
}

/** Runs `task` after the event loop has turned so often. */
async function afterTurns<T>(turns: number, task: () => Promise<T>): Promise<T> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
  return task()
}

function pick(index: number, store: SessionStore, peer: SessionStore): SessionStore {
  return index % 2 === 0 ? store : peer
}

async function must(store: SessionStore, id: string): Promise<SessionData> {
  const record = await store.get(id)
  if (record === null) throw new Error('Expected a record; get() resolved to null.')
  return record
}

function attempt(action: () => void): void {
  try {
    action()
  } catch {
    // Refusing is as good as ignoring.
  }
}

function equal(found: unknown, expected: unknown, what: string): void {
  if (!Object.is(found, expected)) {
    throw new Error(`Expected ${what} to be ${String(expected)}, found ${String(found)}.`)
  }
}

function sameResult(found: unknown, expected: unknown): void {
  equal(canonical(found), canonical(expected), 'the result')
}

function same(found: SessionData | null, expected: SessionData): void {
  equal(canonical(found?.toJSON()), canonical(expected.toJSON()), 'the record')
}

function sameFields(record: SessionData, expected: Record<string, string>): void {
  equal(canonical(Object.fromEntries(record.fields)), canonical(expected), 'the fields')
}

/** JSON with keys in order, since a store may return fields in any. */
function canonical(value: unknown): string {
  return JSON.stringify(value ?? null, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

/** A clock that moves only when it is told to. Give `clock.now` as the `clock` option. */
export class FakeClock {
  #now: number

  /** @param start milliseconds since the epoch, or a time; default: the present */
  constructor(start: number | Date = Date.now()) {
    this.#now = Number(start)
  }

  /** The present time in milliseconds since the epoch. Bound, so it can be handed on. */
  readonly now = (): number => this.#now

  /** Moves the clock by so many milliseconds; a negative number sets it back. */
  advance(ms: number): void {
    this.#now += ms
  }

  /** Sets the clock. */
  set(time: number | Date): void {
    this.#now = Number(time)
  }
}

/** The methods of a store that `FaultyStore` can disturb. */
export type StoreOperation =
  | 'get'
  | 'set'
  | 'delete'
  | 'exists'
  | 'touch'
  | 'clearExpired'
  | 'create'
  | 'update'
  | 'regenerate'
  | 'end'

/** What goes wrong. Without `operations` every one is disturbed. */
export interface StoreFault {
  /**
   * `'error'`: rejects, and the store does nothing. `'lost-reply'`: the store does it, and the call rejects all the same.
   * `'hang'`: never settles. `'delay'`: happens, but only after `delayMs`, or when `release()` is called.
   */
  readonly kind: 'error' | 'lost-reply' | 'hang' | 'delay'
  readonly operations?: readonly StoreOperation[]
  /** How many calls are disturbed before the fault passes. Default: all, until `repair()`. */
  readonly times?: number
  /** Only for `'delay'`. Default: until `release()`. */
  readonly delayMs?: number
  /** The error of `'error'` and `'lost-reply'`. */
  readonly error?: Error
}

/** A store around another one that fails as it is told to, and counts the calls. */
export class FaultyStore extends SessionStore {
  readonly #inner: SessionStore
  #faults: { fault: StoreFault; left: number }[] = []
  #held: (() => void)[] = []
  /** Calls so far, by operation. */
  readonly calls: Record<StoreOperation, number> = {
    get: 0,
    set: 0,
    delete: 0,
    exists: 0,
    touch: 0,
    clearExpired: 0,
    create: 0,
    update: 0,
    regenerate: 0,
    end: 0,
  }

  constructor(inner: SessionStore) {
    super()
    this.#inner = inner
  }

  /** Calls so far, of all operations. */
  get totalCalls(): number {
    return Object.values(this.calls).reduce((sum, count) => sum + count, 0)
  }

  /** Adds a fault. The first that fits a call disturbs it. */
  fail(fault: StoreFault): void {
    this.#faults.push({ fault, left: fault.times ?? Number.POSITIVE_INFINITY })
  }

  /** Removes all faults. Calls that hang or are delayed stay so. */
  repair(): void {
    this.#faults = []
  }

  /** How many calls are held back by a `'delay'` without `delayMs`. */
  get heldCalls(): number {
    return this.#held.length
  }

  /** Lets the held calls go on, in order. */
  release(): void {
    for (const go of this.#held.splice(0)) go()
  }

  get(id: string): Promise<SessionData | null> {
    return this.#disturb('get', () => this.#inner.get(id))
  }

  set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    return this.#disturb('set', () => this.#inner.set(id, data, ttlSeconds))
  }

  delete(id: string): Promise<void> {
    return this.#disturb('delete', () => this.#inner.delete(id))
  }

  override exists(id: string): Promise<boolean> {
    return this.#disturb('exists', () => this.#inner.exists(id))
  }

  override touch(id: string, ttlSeconds: number, now?: number): Promise<boolean> {
    return this.#disturb('touch', () => this.#inner.touch(id, ttlSeconds, now))
  }

  override clearExpired(): Promise<number> {
    return this.#disturb('clearExpired', () => this.#inner.clearExpired())
  }

  override create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    return this.#disturb('create', () => this.#inner.create(id, data, ttlSeconds))
  }

  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return this.#disturb('update', () => this.#inner.update(id, change, ttlSeconds))
  }

  override regenerate(
    id: string,
    regeneration: Regeneration,
    ttlSeconds: number,
  ): ReturnType<SessionStore['regenerate']> {
    return this.#disturb('regenerate', () => this.#inner.regenerate(id, regeneration, ttlSeconds))
  }

  override end(id: string): Promise<boolean> {
    return this.#disturb('end', () => this.#inner.end(id))
  }

  override close(): Promise<void> {
    return this.#inner.close()
  }

  async #disturb<T>(operation: StoreOperation, run: () => Promise<T>): Promise<T> {
    this.calls[operation]++
    const fault = this.#faultFor(operation)
    switch (fault?.kind) {
      case undefined:
        return run()
      case 'error':
        throw fault?.error ?? faultError(operation)
      case 'lost-reply':
        await run()
        throw fault?.error ?? faultError(operation)
      case 'hang':
        return new Promise<T>(() => {})
      case 'delay':
        await this.#delay(fault?.delayMs)
        return run()
    }
  }

  #faultFor(operation: StoreOperation): StoreFault | undefined {
    const found = this.#faults.find(({ fault, left }) => left > 0 && (fault.operations?.includes(operation) ?? true))
    if (found) found.left--
    return found?.fault
  }

  #delay(delayMs: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      if (delayMs === undefined) this.#held.push(resolve)
      else setTimeout(resolve, delayMs)
    })
  }
}

function faultError(operation: string): SessionError {
  return new SessionError('STORE_UNAVAILABLE', `FaultyStore: "${operation}" was told to fail.`)
}
