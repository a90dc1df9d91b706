// Stores that were written for express-session, as session stores: `sojourn/connect-store`. How such stores differ, and what is
// made of it, stands in the documentation.
import { type Duration, milliseconds } from '../duration.js'
import { invalidOption } from '../errors.js'
import { answersAtOnce } from '../record/at-once.js'
import { applyChange, type SessionChange, type UpdateResult } from '../record/changes.js'
import type { SessionData } from '../record/session-data.js'
import { SessionStore, secondsLeft } from '../record/store.js'
import { knowledgeOf } from './connect/known-stores.js'
import { type LastWrites, lastWritesOf } from './connect/last-writes.js'
import { packedText, unpackedText } from './connect/packed-text.js'
import { type ExpressStore, StoreCalls } from './connect/store-calls.js'

export type { ExpressStore } from './connect/store-calls.js'

/** How a store that was written for express-session is used. */
export interface ConnectStoreOptions {
  /**
   * The longest time to live that the store is told, for those that take a longer one for none: memcached's is 30 days. A
   * session that lives longer is forgotten by then unless it is used.
   * @default none; 30 days for stores on memcached that are known by name
   */
  longestTtl?: Duration | undefined
  /**
   * What has to be there before the first call, such as the promise of a connection or of `store.onReady()`.
   * @default nothing
   */
  ready?: PromiseLike<unknown> | undefined
  /**
   * Called by `close()`: a place to close the store's client, or to stop its timers. What it returns is waited for.
   * @default nothing: such stores have no method that all of them share
   */
  close?: (() => unknown) | undefined
  /**
   * Whether anybody writes to these sessions but this adapter: other processes, or the application through the store's own methods.
   * Where nobody does, a change costs no read of its own: it is made on the record that its request has read, when that
   * was less than a second ago and nothing here has written the session since.
   * @default false for express-session's MemoryStore, memorystore and session-memory-store; true for all others
   */
  shared?: boolean | undefined
}

/**
 * A store that was written for express-session (connect-redis, connect-pg-simple, session-file-store …), as a session store.
 *
 * It gives the guarantee `atomic`: within one process no update is lost and nothing that ended comes back. Several processes
 * on one such store have no more than what express-session has, since it can only be read and written whole. It has no
 * abilities: no lists of a user's sessions, and no `scan()`.
 *
 * Only the store's `get`, `set` and `destroy` are called, with the record as one text beside a `cookie` that says when it may be
 * forgotten. A store whose own option alone decides when a session is over needs one that is at least as long as the longest
 * session. That it says `disconnect` is not heeded: the deadline of a call counts.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function connectStore(store: ExpressStore, options: ConnectStoreOptions = {}): SessionStore {
  return new ConnectStore(store, TEXT, options)
}

/** What is written into such a store, and read from it. */
export interface RecordFormat {
  /** What is handed to the store, its `cookie` aside. */
  write(data: SessionData): object
  /** The cookie beside it, where that says more than until when the store has to keep it. */
  cookieOf?(data: SessionData, endsAt: number): object
  /** The record of what the store has, or `null` when it is none of ours. */
  read(stored: object, id: string): SessionData | null
}

/** The record as one text in one field. */
const TEXT: RecordFormat = {
  write: (data) => ({ sojourn: packedText(data) }),
  read(stored) {
    const text: unknown = (stored as { sojourn?: unknown }).sojourn
    return typeof text === 'string' ? unpackedText(text) : null
  },
}

/** A store that was written for express-session, in a format. */
export class ConnectStore extends SessionStore {
  readonly #calls: StoreCalls
  readonly #format: RecordFormat
  readonly #longestMs: number
  readonly #close: (() => unknown) | undefined
  /** Where nobody else writes. */
  readonly #lastWrites: LastWrites | undefined

  constructor(store: ExpressStore, format: RecordFormat, options: ConnectStoreOptions = {}) {
    super()
    const { close, longestTtl, ready, shared } = options
    const missing = (['get', 'set', 'destroy'] as const).filter((name) => typeof store?.[name] !== 'function')
    if (missing.length > 0) {
      throw invalidOption(
        `The store has no ${missing.join(', ')}: connectStore() takes one that was written for express-session.`,
      )
    }
    if (close !== undefined && typeof close !== 'function') throw invalidOption('close is not a function.')
    if (shared !== undefined && typeof shared !== 'boolean') throw invalidOption('shared must be true or false.')
    const { longestMs, isInProcess } = knowledgeOf(store)
    this.#longestMs = longestTtl === undefined ? longestMs : milliseconds(longestTtl, 'longestTtl', 1000)
    this.#lastWrites = (shared ?? !isInProcess) ? undefined : lastWritesOf(store)
    this.#calls = new StoreCalls(store, ready, this.#lastWrites)
    this.#format = format
    this.#close = close
  }

  get(id: string): Promise<SessionData | null> {
    return this.#calls.get(id, (stored, begunAt) => {
      if (typeof stored !== 'object' || stored === null) return null
      const record = this.#format.read(stored, id)
      if (record !== null) this.#lastWrites?.noteRead(record, begunAt)
      return record
    })
  }

  /** On the record that the change was made on, where that is known to be what the store has: nobody writes before this does. */
  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    const applied = this.#appliedToKnown(id, change)
    if (applied === null) return super.update(id, change, ttlSeconds)
    const { result, record } = applied
    if (result.status !== 'updated' || record === null) return Promise.resolve(result)
    return this.set(id, record, keptFor(record, change, ttlSeconds)).then(() => result)
  }

  static {
    answersAtOnce<[string, SessionChange, number], UpdateResult, ConnectStore>(
      ConnectStore.prototype.update,
      function updateAtOnce(id, change, ttlSeconds) {
        const applied = this.#appliedToKnown(id, change)
        if (applied === null) return undefined
        const { result, record } = applied
        if (result.status !== 'updated' || record === null) return result
        const stored = this.#storedOf(record, keptFor(record, change, ttlSeconds))
        return this.#calls.setAtOnce(id, stored) ? result : undefined
      },
    )
  }

  /** What becomes of a change where the store need not be asked for the record; else `null`. */
  #appliedToKnown(id: string, change: SessionChange): ReturnType<typeof applyChange> | null {
    const { madeOn } = change
    if (madeOn === undefined || this.#lastWrites === undefined) return null
    if (this.isAtWorkOn(id) || this.#calls.isBusy(id)) return null
    return this.#lastWrites.isCurrent(madeOn) ? applyChange(madeOn, change) : null
  }

  set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    return this.#calls.set(id, this.#storedOf(data, ttlSeconds))
  }

  #storedOf(data: SessionData, ttlSeconds: number): object {
    // Whole seconds and one more: some round down, and forget what has less than one.
    const ms = Math.min((Math.ceil(ttlSeconds) + 1) * 1000, this.#longestMs)
    const cookie = this.#format.cookieOf?.(data, Date.now() + ms) ?? new StoreCookie(ms)
    return { cookie, ...this.#format.write(data) }
  }

  delete(id: string): Promise<void> {
    return this.#calls.destroy(id)
  }

  override async close(): Promise<void> {
    await this.#close?.()
  }
}

/** How long a changed record is kept, in seconds. */
function keptFor(record: SessionData, { at }: SessionChange, ttlSeconds: number): number {
  return Math.max(ttlSeconds, secondsLeft(record, at))
}

/** The cookie that stores of all kinds take their time to live from: by `maxAge`, by `expires`, or by `originalMaxAge`. */
class StoreCookie {
  readonly originalMaxAge: number
  readonly expires: Date
  readonly httpOnly = true
  readonly path = '/'

  constructor(ms: number) {
    this.originalMaxAge = ms
    this.expires = new Date(Date.now() + ms)
  }

  get maxAge(): number {
    return this.expires.getTime() - Date.now()
  }
}
