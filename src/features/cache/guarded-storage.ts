// Every call of a storage, so that a request never waits for one that is away: with a deadline, and not at all for a while after it
// was missed.
import { isSessionError, SessionError } from '../../errors.js'
import { Deadlines } from './deadlines.js'
import type { CacheEntry, CacheLease, CachePlace, CacheStorage } from './storage.js'

/** What failed, for `onError`. */
export interface CacheTrouble {
  /** `'get'`, `'set'` … of the storage, `'load'` of a background load, `'follow'` of a removal with a session. */
  readonly operation: string
  readonly namespace: string
}

/** For so long after a failure nobody waits for the storage. */
const PAUSE_MS = 1_000

export interface GuardOptions {
  readonly storage: CacheStorage
  readonly timeoutMs: number
  readonly onError: (error: unknown, trouble: CacheTrouble) => void
}

export class GuardedStorage {
  readonly storage: CacheStorage
  readonly #timeoutMs: number
  readonly #deadlines: Deadlines
  readonly #onError: GuardOptions['onError']
  /** By `performance.now()`: until then the storage is taken to be away. */
  #awayUntil = 0
  #isProbed = false

  constructor({ storage, timeoutMs, onError }: GuardOptions) {
    this.storage = storage
    this.#timeoutMs = timeoutMs
    this.#deadlines = new Deadlines(timeoutMs)
    this.#onError = onError
  }

  /** The entry, or `undefined`: also when the storage is away. A storage in memory answers at once, and so does this. */
  get(place: CachePlace, now: number): CacheEntry | undefined | Promise<CacheEntry | undefined> {
    if (this.#awayUntil !== 0 && this.#isAway()) return undefined
    let found: CacheEntry | undefined | Promise<CacheEntry | undefined>
    try {
      found = this.storage.get(place, now)
    } catch (error) {
      this.#failed(error, 'get', place.namespace)
      return undefined
    }
    return found instanceof Promise ? this.#within(found, 'get', place.namespace) : found
  }

  /** Whether the entry has been kept. */
  async set(place: CachePlace, entry: CacheEntry, now: number): Promise<boolean> {
    if (this.#isAway()) return false
    return (
      (await this.#within(
        toPromise(() => this.storage.set(place, entry, now)).then(() => true),
        'set',
        place.namespace,
      )) ?? false
    )
  }

  /** A lease, `null` when another process has it, `undefined` when there are none. */
  async lease(place: CachePlace, ttlMs: number): Promise<CacheLease | null | undefined> {
    if (this.storage.lease === undefined || this.#isAway()) return undefined
    const { lease } = this.storage
    return this.#within(
      toPromise(() => lease.call(this.storage, place, ttlMs)),
      'lease',
      place.namespace,
    )
  }

  /** What must not be left out in silence: fails when the storage does, or has not answered in time. */
  async must<T>(operation: string, task: () => T | Promise<T>): Promise<T> {
    const answer = await this.#inTime(toPromise(task), SLOW_FACTOR * this.#timeoutMs).catch((cause) => {
      if (isSessionError(cause) && cause.code !== 'STORE_TIMEOUT') throw cause
      const message = `The cache's storage (${this.storage.name}) failed: ${operation}. What was to be removed may still be there.`
      throw new SessionError('STORE_UNAVAILABLE', message, { cause })
    })
    return answer
  }

  /** A call that comes while it is away and due for a look is let through for its own sake: nobody waits for it. */
  #isAway(): boolean {
    if (this.#awayUntil === 0) return false
    if (performance.now() < this.#awayUntil || this.#isProbed) return true
    this.#isProbed = true
    const nowhere = { namespace: 'default', domain: '', key: '' }
    const look = this.#within(
      toPromise(() => this.storage.get(nowhere, Date.now())),
      'get',
      'default',
    )
    void look.then(() => {
      this.#isProbed = false
    })
    return true
  }

  /** The answer, or `undefined` when there is none in time. On the path of each hit: no more promises and timers than it takes. */
  #within<T>(call: Promise<T>, operation: string, namespace: string): Promise<T | undefined> {
    return new Promise((resolve) => {
      const late = (): void => {
        this.#failed(this.#lateness(this.#timeoutMs), operation, namespace)
        resolve(undefined)
      }
      const batch = this.#deadlines.begin(late)
      call.then(
        (answer) => {
          batch.delete(late)
          this.#awayUntil = 0
          resolve(answer)
        },
        (error) => {
          // What fails after its deadline has been told.
          if (batch.delete(late)) this.#failed(error, operation, namespace)
          resolve(undefined)
        },
      )
    })
  }

  #inTime<T>(call: Promise<T>, timeoutMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(this.#lateness(timeoutMs)), timeoutMs)
      call.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  #lateness(timeoutMs: number): SessionError {
    return new SessionError(
      'STORE_TIMEOUT',
      `The cache's storage (${this.storage.name}) gave no answer in ${timeoutMs} ms.`,
    )
  }

  #failed(error: unknown, operation: string, namespace: string): void {
    // A value that cannot be kept, or a package that is missing, says nothing of the place.
    if (!isSessionError(error, 'INVALID_VALUE', 'MISSING_DEPENDENCY')) this.#awayUntil = performance.now() + PAUSE_MS
    this.#onError(error, { operation, namespace })
  }
}

/** Who clears waits longer than who reads. */
const SLOW_FACTOR = 20

async function toPromise<T>(task: () => T | Promise<T>): Promise<T> {
  return task()
}
