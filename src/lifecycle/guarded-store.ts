// The store as everybody else calls it: under its own verbs, each call with a deadline, each failure told, each record that
// comes back looked at once. Nothing above this file calls a store by itself.
import { isSessionError, SessionError, type SessionErrorCode } from '../errors.js'
import type { SessionEvents } from '../events/events.js'
import { noteKey, sameHash } from '../ids.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import { twinOf } from '../record/at-once.js'
import type { EndResult, RegenerateResult, Regeneration, SessionChange, UpdateResult } from '../record/changes.js'
import { loadableUnder, type SessionLimits } from '../record/limits.js'
import type { SessionNotes } from '../record/notes.js'
import { type SessionData, type SessionEnd, unitsOfFields } from '../record/session-data.js'
import type { SessionSignals } from '../record/signals.js'
import type { SessionStore } from '../record/store.js'
import type { UserIndex } from '../record/user-index.js'
import { runWithoutSession } from '../request-scope.js'
import { isPromise, type Soon } from '../soon.js'
import { type Deadline, Deadlines } from './deadlines.js'
import { ListRepair } from './list-repair.js'
import { settledWithin } from './settled-within.js'

/** One call of the store. What takes longer, and shows that it goes on, may refresh the deadline. */
type StoreCall<T> = (deadline: Deadline) => Promise<T>

type GuardOptions = Pick<ResolvedSessionOptions, 'store' | 'storeTimeoutMs' | 'limits' | 'clock'>

/** Rejects with `SessionError` only: `STORE_TIMEOUT`, `STORE_UNAVAILABLE`, or what the store itself said in our terms. */
export class GuardedStore {
  readonly #store: SessionStore
  readonly #timeoutMs: number
  readonly #deadlines: Deadlines
  readonly #clock: () => number
  readonly #loadable: SessionLimits
  readonly #events: SessionEvents
  /** The index of users, if the store has one, guarded like the rest. */
  readonly users: UserIndex | undefined
  /** Its notes, likewise. */
  readonly notes: SessionNotes | undefined
  /** Its signals, likewise. */
  readonly signals: SessionSignals | undefined

  constructor({ store, storeTimeoutMs, limits, clock }: GuardOptions, events: SessionEvents) {
    this.#store = store
    this.#timeoutMs = storeTimeoutMs
    this.#deadlines = new Deadlines(storeTimeoutMs)
    this.#clock = clock
    this.#loadable = loadableUnder(limits)
    this.#events = events
    this.users = store.users && this.#guardUsers(store.users)
    this.notes = store.notes && this.#guardNotes(store.notes)
    this.signals = store.signals && this.#guardSignals(store.signals)
  }

  /**
   * The record of a session. `'corrupt'`: there is one that cannot be read, which has been told as an event. What is there at once,
   * and not `isFresh`, may be a copy.
   */
  get(id: string, isFresh = false): Soon<SessionData | 'corrupt' | null> {
    let record: Soon<SessionData | null>
    try {
      record = this.#answer('get', id, (isFresh && this.#store.getFresh) || this.#store.get, [id, this.#loadable])
    } catch (error) {
      return this.#corruptUnlessFailed(id, error)
    }
    if (!isPromise(record)) return this.#checked(id, record)
    return record.then(
      (answer) => this.#checked(id, answer),
      (error) => this.#corruptUnlessFailed(id, error),
    )
  }

  /** Whether what the store answers may be a copy. What is one comes at once, unless somebody has wrapped `get`. */
  isCopy(answer: Soon<unknown>): boolean {
    if (this.#store.getFresh === undefined) return false
    return !isPromise(answer) || twinOf(this.#store.get) === undefined
  }

  #checked(id: string, record: SessionData | null | undefined): SessionData | 'corrupt' | null {
    if (record === null || record === undefined) return null
    // By shape, not by class: the store may come from the package's other build.
    if (typeof record !== 'object' || typeof record.expiryReason !== 'function') {
      throw this.#storeError('get', id, unknownAnswer('get'))
    }
    const problem = problemOf(record, id, this.#loadable)
    if (problem === null) return record
    return this.#tellCorrupt(id, new SessionError('CORRUPT_RECORD', problem))
  }

  #corruptUnlessFailed(id: string, error: unknown): 'corrupt' {
    if (!isSessionError(error, 'CORRUPT_RECORD')) throw error
    return this.#tellCorrupt(id, error)
  }

  #tellCorrupt(id: string, cause: SessionError): 'corrupt' {
    this.#events.emit('corruptRecord', { id, cause })
    return 'corrupt'
  }

  create(record: SessionData, ttlSeconds: number): Promise<boolean> {
    const notAfter = performance.now() + this.#timeoutMs
    return this.#call('create', record.id, () => this.#store.create(record.id, record, ttlSeconds, notAfter), isYesOrNo)
  }

  update(id: string, change: SessionChange, ttlSeconds: number): Soon<UpdateResult> {
    return this.#answer('update', id, this.#store.update, [id, change, ttlSeconds], isUpdate)
  }

  touch(id: string, ttlSeconds: number, at: number, retainSeconds: number): Promise<boolean> {
    return this.#call('touch', id, () => this.#store.touch(id, ttlSeconds, at, retainSeconds), isYesOrNo)
  }

  /**
   * Of a call whose answer was lost, what is stored tells whether it was done: then nobody must lose the session for it. To
   * ask takes half a deadline at most. What was not done by the deadline is not done later.
   */
  async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const inTime = { ...regeneration, notAfter: performance.now() + this.#timeoutMs }
    try {
      return await this.#call('regenerate', id, () => this.#store.regenerate(id, inTime, ttlSeconds), isRegeneration)
    } catch (error) {
      const { next } = regeneration
      const found = await settledWithin(this.#timeoutMs / 2, () => this.get(next.id, true))
      if (found === null || found === 'corrupt' || !sameHash(found.tokenHash, next.tokenHash)) throw error
      return { status: 'regenerated', record: found }
    }
  }

  set(id: string, record: SessionData, ttlSeconds: number): Promise<void> {
    return this.#call('set', id, () => this.#store.set(id, record, ttlSeconds))
  }

  end(id: string, end: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    return this.#call('end', id, () => this.#store.end(id, end, tombstoneSeconds), isEnding)
  }

  clearExpired(): Promise<number> {
    return this.#call('clearExpired', undefined, () => this.#store.clearExpired())
  }

  get hasEpoch(): boolean {
    return this.#store.epoch !== undefined
  }

  /** How often all sessions have been revoked; 0 on a store that cannot say. */
  epoch(atLeast?: number): Promise<number> {
    return this.#call('epoch', undefined, () => this.#store.epoch?.(atLeast) ?? Promise.resolve(atLeast ?? 0), isCount)
  }

  /** Whether this process may do alone what `name` stands for; always, on a store without leases. */
  lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    if (this.#store.lease === undefined) return Promise.resolve(true)
    return this.#call(
      'lease',
      undefined,
      () => this.#store.lease?.(name, owner, ttlMs) ?? Promise.resolve(true),
      isYesOrNo,
    )
  }

  get canScan(): boolean {
    return this.#store.scan !== undefined
  }

  /** Every record of the store, tombstones included; each step has its deadline. */
  async *scan(): AsyncGenerator<SessionData, void, undefined> {
    if (!this.#store.scan) throw notSupported('This needs a store that can be gone through ("scan")')
    let startedAt = 0
    let durationMs = 0
    let error: SessionErrorCode | undefined
    let step: Deadline | undefined
    const records = this.#store.scan(() => step?.refresh(), this.#loadable)[Symbol.asyncIterator]()
    try {
      for (;;) {
        startedAt = performance.now()
        const { done, value } = await this.#withinDeadline('scan', undefined, (deadline) => {
          step = deadline
          return records.next()
        })
        step = undefined
        durationMs += performance.now() - startedAt
        if (done) return
        yield value
      }
    } catch (failure) {
      durationMs += performance.now() - startedAt
      error = codeOf(failure)
      throw failure
    } finally {
      // Once, not for each record.
      if (this.#events.isHeard('storeCall')) this.#events.emit('storeCall', { operation: 'scan', durationMs, error })
      step = undefined
      // Nobody waits for it: behind a step that missed its deadline it would come as late.
      records.return?.().catch(() => {})
    }
  }

  #guardUsers(users: UserIndex): UserIndex {
    const calls = this.#callsOf(users)
    const restore = users.restore?.bind(users)
    if (restore === undefined || !this.canScan) return calls
    const repair = new ListRepair({
      scan: () => this.scan(),
      restore: (user, entries) =>
        this.#call('users.restore', undefined, () => restore(user, entries, Math.floor(this.#clock()))),
      patienceMs: this.#timeoutMs,
    })
    return {
      add: (user, ...args) => repair.try(user, () => calls.add(user, ...args)),
      settle: (user, ...args) => repair.try(user, () => calls.settle(user, ...args)),
      list: (user, ...args) => repair.try(user, () => calls.list(user, ...args)),
      evict: (user, ...args) => repair.try(user, () => calls.evict(user, ...args)),
      remove: (user, ...args) => repair.try(user, () => calls.remove(user, ...args)),
    }
  }

  #callsOf(users: UserIndex): UserIndex {
    return {
      add: (user, entry, options) =>
        this.#call('users.add', entry.id, () => users.add(user, entry, options), isAddition),
      settle: (user, id, remove) => this.#call('users.settle', id, () => users.settle(user, id, remove), isYesOrNo),
      list: (user, now) => this.#call('users.list', undefined, () => users.list(user, now), Array.isArray),
      evict: (user, options) => this.#call('users.evict', undefined, () => users.evict(user, options), Array.isArray),
      remove: (user, ids) => this.#call('users.remove', ids[0], () => users.remove(user, ids)),
    }
  }

  /** Takes any text as a key: the store gets its hash, so that it may be a secret. */
  #guardNotes(notes: SessionNotes): SessionNotes {
    return {
      put: async (purpose, key, text, options) => {
        checkNote(purpose, key, text)
        checkTtl(options)
        return this.#call('notes.put', undefined, () => notes.put(purpose, noteKey(key), text, options))
      },
      get: async (purpose, key) => {
        checkNote(purpose, key)
        return this.#call('notes.get', undefined, () => notes.get(purpose, noteKey(key)))
      },
      take: async (purpose, key) => {
        checkNote(purpose, key)
        return this.#call('notes.take', undefined, () => notes.take(purpose, noteKey(key)))
      },
      delete: async (purpose, key) => {
        checkNote(purpose, key)
        return this.#call('notes.delete', undefined, () => notes.delete(purpose, noteKey(key)))
      },
    }
  }

  #guardSignals(signals: SessionSignals): SessionSignals {
    return {
      send: async (channel, text) => {
        checkChannel(channel)
        return this.#call('signals.send', undefined, () => signals.send(channel, text))
      },
      // May take as long as a connection does; what it leaves behind is stopped by what it resolves to.
      listen: async (channel, listener) => {
        checkChannel(channel)
        return signals.listen(channel, listener)
      },
    }
  }

  /** What a method of the store answers: at once, if it can. */
  #answer<Args extends unknown[], T>(
    operation: string,
    id: string | undefined,
    method: (...args: Args) => Promise<T>,
    args: Args,
    isAnswer?: IsAnswer,
  ): Soon<T> {
    const twin = twinOf(method)
    if (twin === undefined) return this.#call(operation, id, () => method.apply(this.#store, args), isAnswer)
    const isHeard = this.#events.isHeard('storeCall')
    const startedAt = isHeard ? performance.now() : 0
    let answer: T | undefined
    let failure: SessionError | undefined
    try {
      answer = twin.apply(this.#store, args)
    } catch (error) {
      failure = this.#storeError(operation, id, error)
    }
    if (answer === undefined && failure === undefined) {
      return this.#call(operation, id, () => method.apply(this.#store, args), isAnswer)
    }
    if (isHeard)
      this.#events.emit('storeCall', { operation, durationMs: performance.now() - startedAt, error: failure?.code })
    if (failure !== undefined) throw failure
    return answer as T
  }

  /**
   * One store call with its deadline, told as `storeCall` if anybody listens: this is on the path of every request. An answer
   * that is none is a failure, never a yes.
   */
  #call<T>(operation: string, id: string | undefined, start: StoreCall<T>, isAnswer?: IsAnswer): Promise<T> {
    return this.#events.isHeard('storeCall')
      ? this.#timed(operation, id, start, isAnswer)
      : this.#withinDeadline(operation, id, start, isAnswer)
  }

  async #timed<T>(operation: string, id: string | undefined, start: StoreCall<T>, isAnswer?: IsAnswer): Promise<T> {
    const startedAt = performance.now()
    let error: SessionErrorCode | undefined
    try {
      return await this.#withinDeadline(operation, id, start, isAnswer)
    } catch (failure) {
      error = codeOf(failure)
      throw failure
    } finally {
      this.#events.emit('storeCall', { operation, durationMs: performance.now() - startedAt, error })
    }
  }

  /** What the store does after the deadline is nobody's answer any more. */
  #withinDeadline<T>(operation: string, id: string | undefined, start: StoreCall<T>, isAnswer?: IsAnswer): Promise<T> {
    const isHeard = this.#events.isHeard('storeError')
    const answer = new Promise<T>((resolve, reject) => {
      const fail = (error: unknown): void => reject(this.#storeError(operation, id, error))
      const deadline = this.#deadlines.begin(() => (isHeard ? reject(MISSED) : fail(this.#tooLate(operation))))
      try {
        runWithoutSession(start, deadline).then(
          (value) => {
            if (!deadline.end()) return
            if (isAnswer === undefined || isAnswer(value)) resolve(value)
            else fail(unknownAnswer(operation))
          },
          (error) => {
            if (deadline.end()) fail(error)
          },
        )
      } catch (error) {
        deadline.end()
        fail(error)
      }
    })
    if (!isHeard) return answer
    // A deadline is missed in no context, and a listener is to hear of it in the context of the caller.
    return answer.catch((error) => {
      throw error === MISSED ? this.#storeError(operation, id, this.#tooLate(operation)) : error
    })
  }

  #tooLate(operation: string): SessionError {
    return new SessionError(
      'STORE_TIMEOUT',
      `The session store did not answer "${operation}" within ${this.#timeoutMs} ms; whether it was done is unknown.`,
    )
  }

  #storeError(operation: string, id: string | undefined, error: unknown): SessionError {
    const isCorrupt = isSessionError(error, 'CORRUPT_RECORD')
    const isBeside = operation === 'epoch' || operation === 'lease' || /^(users|notes|signals)\./.test(operation)
    if (isCorrupt && !isBeside) return error
    if (isCorrupt) this.#events.emit('corruptKey', { operation, cause: error })
    const told =
      isSessionError(error) && !isCorrupt
        ? error
        : new SessionError('STORE_UNAVAILABLE', `The session store failed at "${operation}".`, { cause: error })
    this.#events.emit('storeError', { id, operation, error: told })
    return told
  }
}

/** What a call is rejected with first whose deadline is missed. */
const MISSED = new Error('missed')

/** Whether what a store resolved to is an answer to the question. */
type IsAnswer = (value: unknown) => boolean

function isYesOrNo(value: unknown): boolean {
  return typeof value === 'boolean'
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isOneOf<Answer extends { readonly status: string }>(...statuses: Answer['status'][]): IsAnswer {
  return (value) => statuses.includes((value as Answer | null | undefined)?.status as Answer['status'])
}

const isUpdate = isOneOf<UpdateResult>('updated', 'ended', 'conflict', 'renewed', 'too-large')
const isEnding = isOneOf<EndResult>('ended', 'over')
const isRegeneration = isOneOf<RegenerateResult>('regenerated', 'ended', 'taken', 'too-large')
const isAddition = isOneOf<Awaited<ReturnType<UserIndex['add']>>>('added', 'full')

function unknownAnswer(operation: string): SessionError {
  return new SessionError(
    'STORE_UNAVAILABLE',
    `The session store answered "${operation}" with something unknown; whether it was done is unknown, too.`,
  )
}

function checkNote(purpose: unknown, key: unknown, text: unknown = ''): void {
  if (typeof purpose !== 'string' || !/^[\w-]{1,40}$/.test(purpose)) {
    throw new SessionError('INVALID_ARGUMENT', 'The purpose of a note is 1 to 40 letters, digits, - and _.')
  }
  if (typeof key !== 'string' || key === '') {
    throw new SessionError('INVALID_ARGUMENT', 'The key of a note is text that is not empty.')
  }
  if (typeof text !== 'string' || text.length > LONGEST_NOTE) {
    throw new SessionError('INVALID_ARGUMENT', `A note is text of at most ${LONGEST_NOTE} characters.`)
  }
}

function checkChannel(channel: unknown): void {
  if (typeof channel === 'string' && /^[\w.-]{1,80}$/.test(channel)) return
  throw new SessionError('INVALID_ARGUMENT', 'The channel of signals is 1 to 80 letters, digits, -, _ and dots.')
}

function checkTtl(options: { ttlSeconds: number } | undefined): void {
  if (Number.isSafeInteger(options?.ttlSeconds) && (options?.ttlSeconds ?? 0) >= 1) return
  throw new SessionError('INVALID_ARGUMENT', 'The ttlSeconds of a note is a whole number of at least 1.')
}

/** In UTF-16 units. Notes are small: what is large has a place of its own and its key in a note. */
const LONGEST_NOTE = 100_000

/** The error of an application that asks for what its store does not have. */
export function notSupported(what: string): SessionError {
  return new SessionError(
    'NOT_SUPPORTED',
    `${what}: MemorySessionStore, RedisSessionStore and SqlSessionStore have it.`,
  )
}

function codeOf(error: unknown): SessionErrorCode | undefined {
  return isSessionError(error) ? error.code : undefined
}

/** What is wrong with a record that a store returned, if anything. */
function problemOf(record: SessionData, id: string, loadable: SessionLimits): string | null {
  if (record.id !== id) return 'The store returned the record of another session.'
  if (typeof record.tokenHash !== 'string') return 'The record has no token hash.'
  const { createdAt, lastAccessedAt, expiresAt, absoluteExpiresAt, idleTimeoutMs = 0 } = record
  const areNumbers =
    Number.isFinite(createdAt) &&
    Number.isFinite(lastAccessedAt) &&
    Number.isFinite(expiresAt) &&
    Number.isFinite(absoluteExpiresAt) &&
    Number.isFinite(idleTimeoutMs)
  if (!areNumbers) return 'The record has a time that is not a number.'
  const length = unitsOfFields(record.fields)
  if (Number.isNaN(length)) return 'The record has a field that is not text.'
  return length > loadable.maxBytes || record.fields.size > loadable.maxFields
    ? `The record has more than ${loadable.maxBytes} bytes or ${loadable.maxFields} fields, which none does that is stored here.`
    : null
}
