// A store that fails on demand, for tests of what stands on it.
import { SessionError } from '../errors.js'
import type { EndResult, RegenerateResult, Regeneration, SessionChange, UpdateResult } from '../record/changes.js'
import type { SessionLimits } from '../record/limits.js'
import type { SessionNotes } from '../record/notes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import type { SessionSignals } from '../record/signals.js'
import { SessionStore } from '../record/store.js'
import type { UserIndex } from '../record/user-index.js'

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
  | 'scan'
  | 'users.add'
  | 'users.settle'
  | 'users.list'
  | 'users.evict'
  | 'users.remove'
  | 'users.restore'
  | 'epoch'
  | 'lease'
  | 'notes.put'
  | 'notes.get'
  | 'notes.take'
  | 'notes.delete'
  | 'signals.send'

/** What goes wrong. Without `operations` every one is disturbed. */
export interface StoreFault {
  /**
   * `'error'`: rejects, and the store does nothing. `'lost-reply'`: the store does it, and the call rejects all the same.
   * `'hang'`: never settles. `'delay'`: happens, but only after `delayMs`, or when `release()` is called. `'unknown-answer'`: the
   * store does it, and the call resolves to what no store answers.
   */
  readonly kind: 'error' | 'lost-reply' | 'hang' | 'delay' | 'unknown-answer'
  readonly operations?: readonly StoreOperation[] | undefined
  /** How many calls are disturbed before the fault passes. Default: all, until `repair()`. */
  readonly times?: number | undefined
  /** Only for `'delay'`. Default: until `release()`. */
  readonly delayMs?: number | undefined
  /** The error of `'error'` and `'lost-reply'`. */
  readonly error?: Error | undefined
}

/** A store around another one that fails as it is told to, and counts the calls. It has the abilities of the other. */
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
    scan: 0,
    'users.add': 0,
    'users.settle': 0,
    'users.list': 0,
    'users.evict': 0,
    'users.remove': 0,
    'users.restore': 0,
    epoch: 0,
    lease: 0,
    'notes.put': 0,
    'notes.get': 0,
    'notes.take': 0,
    'notes.delete': 0,
    'signals.send': 0,
  }
  // What a store lacks is absent, so these are made in the constructor.
  declare readonly users?: UserIndex
  declare readonly notes?: SessionNotes
  declare readonly signals?: SessionSignals

  constructor(inner: SessionStore) {
    super()
    this.#inner = inner
    const { users, notes, signals } = inner
    if (users) {
      this.users = {
        add: (...args) => this.#disturb('users.add', () => users.add(...args)),
        settle: (...args) => this.#disturb('users.settle', () => users.settle(...args)),
        list: (...args) => this.#disturb('users.list', () => users.list(...args)),
        evict: (...args) => this.#disturb('users.evict', () => users.evict(...args)),
        remove: (...args) => this.#disturb('users.remove', () => users.remove(...args)),
        ...(users.restore && {
          restore: (...args) => this.#disturb('users.restore', async () => users.restore?.(...args)),
        }),
      }
    }
    if (signals) {
      this.signals = {
        send: (...args) => this.#disturb('signals.send', () => signals.send(...args)),
        listen: (...args) => signals.listen(...args),
      }
    }
    if (notes) {
      this.notes = {
        put: (...args) => this.#disturb('notes.put', () => notes.put(...args)),
        get: (...args) => this.#disturb('notes.get', () => notes.get(...args)),
        take: (...args) => this.#disturb('notes.take', () => notes.take(...args)),
        delete: (...args) => this.#disturb('notes.delete', () => notes.delete(...args)),
      }
    }
    const { scan, epoch, lease } = inner
    if (scan) this.scan = (...args) => this.#scan(() => scan.apply(inner, args))
    if (inner.onForgotten) this.onForgotten = inner.onForgotten.bind(inner)
    if (epoch) this.epoch = (...args) => this.#disturb('epoch', () => epoch.apply(inner, args))
    if (lease) this.lease = (...args) => this.#disturb('lease', () => lease.apply(inner, args))
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

  get(id: string, bounds?: SessionLimits): Promise<SessionData | null> {
    return this.#disturb('get', () => this.#inner.get(id, bounds))
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

  override touch(id: string, ttlSeconds: number, now?: number, retainSeconds?: number): Promise<boolean> {
    return this.#disturb('touch', () => this.#inner.touch(id, ttlSeconds, now, retainSeconds))
  }

  override clearExpired(): Promise<number> {
    return this.#disturb('clearExpired', () => this.#inner.clearExpired())
  }

  override create(id: string, data: SessionData, ttlSeconds: number, notAfter?: number): Promise<boolean> {
    return this.#disturb('create', () => this.#inner.create(id, data, ttlSeconds, notAfter))
  }

  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return this.#disturb('update', () => this.#inner.update(id, change, ttlSeconds))
  }

  override regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    return this.#disturb('regenerate', () => this.#inner.regenerate(id, regeneration, ttlSeconds))
  }

  override end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    return this.#disturb('end', () => this.#inner.end(id, ended, tombstoneSeconds))
  }

  override close(): Promise<void> {
    return this.#inner.close()
  }

  /** One call, which a fault disturbs at its beginning. */
  async *#scan(scan: () => AsyncIterable<SessionData>): AsyncGenerator<SessionData, void, undefined> {
    yield* await this.#disturb('scan', async () => scan())
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
      case 'unknown-answer':
        await run()
        return { status: 'unknown' } as T
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
