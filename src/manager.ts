// What stands between sessions and their store: one deadline for every call, one place where times are decided, where
// tokens are made and checked, and where events are told. The middleware stands on it, and so will scripts.
import type { CookieClaim } from './cookie.js'
import { isSessionError, SessionError } from './errors.js'
import { SessionEvents } from './events.js'
import { hashToken, newSessionId, newToken, sameHash } from './ids.js'
import type { ResolvedSessionOptions } from './options.js'
import {
  applyChange,
  type MetadataChange,
  type Regeneration,
  type SessionChange,
  SessionData,
  type UpdateResult,
} from './session-data.js'
import { secondsLeft } from './store.js'

/** A session that a cookie gave the right to. */
export interface FoundSession {
  readonly record: SessionData
  readonly claim: CookieClaim
  /** `false` when the cookie holds the token before the last renewal, during its grace. */
  readonly isCurrentToken: boolean
}

/** A record and the token that opens it, on their way to a cookie. */
export interface IssuedSession {
  readonly record: SessionData
  readonly token: string
}

/** What a new session begins with. */
export interface NewSession {
  readonly id: string
  readonly fields: ReadonlyMap<string, string>
  /** A token that was promised to the client already. */
  readonly token?: { readonly token: string; readonly tokenHash: string } | undefined
  readonly metadata?: MetadataChange
}

/** What a change is made of, before times and generation are added. */
export type ChangeParts = Pick<SessionChange, 'set' | 'delete' | 'expect' | 'renew' | 'metadata'>

/** What goes over when a session is regenerated. */
export interface RegenerationParts {
  readonly keep: Regeneration['keep']
  readonly set?: ReadonlyMap<string, string> | undefined
  readonly delete?: readonly string[] | undefined
  readonly userId?: string | number | undefined
  /** Whether the absolute timeout starts afresh: at login, when somebody proved who they are. */
  readonly restartsLife: boolean
}

const MAX_ID_ATTEMPTS = 3
/** Requests that merge may exceed the size limit together; a record beyond so many times the limit was not made by us. */
const OVERSIZE_FACTOR = 4

/** Runs sessions on a store. Rejects with `SessionError` only; a missing or ended session is a value. */
export class SessionManager {
  readonly options: ResolvedSessionOptions
  readonly events = new SessionEvents()

  constructor(options: ResolvedSessionOptions) {
    this.options = options
  }

  /** The present, in whole milliseconds since the epoch. */
  now(): number {
    return Math.floor(this.options.clock())
  }

  newId(): string {
    return newSessionId()
  }

  /** The first of these claims that opens a live session. Each failing one is told as an event. */
  async find(claims: readonly CookieClaim[]): Promise<FoundSession | null> {
    for (const claim of claims) {
      const record = await this.#load(claim.id)
      if (record === 'corrupt') continue
      if (record === null) {
        this.events.emit('unknownSession', { id: claim.id })
        continue
      }
      const match = matchToken(record, hashToken(claim.token), this.now())
      if (match === null) {
        this.events.emit('tokenMismatch', { id: claim.id })
        continue
      }
      if (this.#isAlive(record)) return { record, claim, isCurrentToken: match === 'current' }
    }
    return null
  }

  /** The live record of a session, for a reader that has proved its right already. */
  async reload(id: string): Promise<SessionData | null> {
    const record = await this.#load(id)
    return record !== null && record !== 'corrupt' && this.#isAlive(record) ? record : null
  }

  /** Stores a new session under a new token. */
  async create({ id, fields, token: promised, metadata = {} }: NewSession): Promise<IssuedSession> {
    const now = this.now()
    const { token, tokenHash } = promised ?? newToken()
    let record = new SessionData({
      id,
      tokenHash,
      generation: 1,
      createdAt: now,
      updatedAt: now,
      lastAccessedAt: now,
      absoluteExpiresAt: now + this.options.absoluteTimeoutMs,
      ...metadata,
      expiresAt: 0,
      fields,
    })
    record = record.with({ expiresAt: this.#nextEnd(record, now) })
    for (let attempt = 1; attempt <= MAX_ID_ATTEMPTS; attempt++) {
      const candidate = record
      const ttl = secondsLeft(candidate, now)
      if (await this.#call('create', candidate.id, () => this.options.store.create(candidate.id, candidate, ttl))) {
        this.events.emit('created', { id: candidate.id, userId: candidate.userId })
        return { record: candidate, token }
      }
      // The cookie that was promised names this ID: another one will not do.
      if (promised) break
      record = record.with({ id: newSessionId() })
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The store says that every new session ID is taken.')
  }

  /** A change to `record`, made now. */
  change(record: SessionData, parts: ChangeParts): SessionChange {
    const at = record.effectiveNow(this.now())
    const changed = parts.metadata ? record.with(parts.metadata) : record
    // Members one by one: this is on the path of every write, and a spread is slow.
    const { set, delete: remove, metadata } = parts
    const change = {
      generation: record.generation,
      at,
      expiresAt: this.#nextEnd(changed, at),
      set,
      delete: remove,
      metadata,
    }
    if (parts.expect === undefined && parts.renew === undefined) return change
    return { ...change, ...(parts.expect && { expect: parts.expect }), ...(parts.renew && { renew: parts.renew }) }
  }

  /** Applies a change. That the session has ended is told as `lateWrite`. */
  async update(record: SessionData, change: SessionChange): Promise<UpdateResult> {
    const ttl = secondsLeft(change, change.at)
    const result = await this.#call('update', record.id, () => this.options.store.update(record.id, change, ttl))
    if (result.status === 'ended') this.events.emit('lateWrite', { id: record.id })
    return result
  }

  /** Whether the recorded last access is old enough to be moved. */
  isTouchDue(record: SessionData): boolean {
    return this.now() - record.lastAccessedAt >= this.#touchIntervalMs(record)
  }

  /**
   * Whether a write from `before` to `after` has to move a persistent cookie, too. A write moves the last access, so no
   * touch comes due while a session is written to; the cookie then moves with one write in each touch interval.
   */
  movesCookie(before: SessionData, after: SessionData): boolean {
    const intervalMs = this.#touchIntervalMs(after)
    const nth = (at: number): number => Math.floor((at - after.createdAt) / intervalMs)
    return intervalMs === 0 || nth(after.lastAccessedAt) > nth(before.lastAccessedAt)
  }

  /** Moves the idle timeout forward. Resolves to the record as it then is, or to `null` when it has ended. */
  async touch(record: SessionData): Promise<SessionData | null> {
    const at = record.effectiveNow(this.now())
    const expiresAt = this.#nextEnd(record, at)
    const ttl = secondsLeft({ expiresAt }, at)
    const touched = await this.#call('touch', record.id, () => this.options.store.touch(record.id, ttl, at))
    return touched ? record.with({ lastAccessedAt: at, expiresAt: Math.max(record.expiresAt, expiresAt) }) : null
  }

  /** Gives the session a new token. Resolves to `null` when another request has just done so. */
  async renew(record: SessionData): Promise<IssuedSession | 'ended' | null> {
    const { token, tokenHash } = newToken()
    const graceUntil = this.now() + this.options.renewGraceMs
    const change = this.change(record, { renew: { from: record.tokenHash, to: tokenHash, graceUntil } })
    const result = await this.update(record, change)
    if (result.status !== 'updated') return result.status === 'ended' ? 'ended' : null
    this.events.emit('renewed', { id: record.id })
    return { record: applyChange(record, change).record ?? record, token }
  }

  /** Ends `record` and begins a session in its place, in one step. Resolves to `null` when it had ended already. */
  async regenerate(record: SessionData, parts: RegenerationParts): Promise<IssuedSession | null> {
    const now = record.effectiveNow(this.now())
    const { token, tokenHash } = newToken()
    const keepsSettings = parts.keep === 'all' || parts.keep.length > 0
    const idleTimeoutMs = keepsSettings ? record.idleTimeoutMs : undefined
    let next = new SessionData({
      id: newSessionId(record.id),
      tokenHash,
      generation: record.generation + 1,
      createdAt: parts.restartsLife ? now : record.createdAt,
      updatedAt: now,
      lastAccessedAt: now,
      expiresAt: 0,
      absoluteExpiresAt: parts.restartsLife
        ? now + Math.max(this.options.absoluteTimeoutMs, idleTimeoutMs ?? 0)
        : record.absoluteExpiresAt,
      idleTimeoutMs,
      persistent: keepsSettings ? record.persistent : undefined,
      userId: parts.userId,
      fields: parts.set ?? [],
    })
    next = next.with({ expiresAt: this.#nextEnd(next, now) })
    const { keep, delete: remove = [] } = parts
    for (let attempt = 1; attempt <= MAX_ID_ATTEMPTS; attempt++) {
      const regeneration: Regeneration = { generation: record.generation, at: now, next, keep, delete: remove }
      const result = await this.#call('regenerate', record.id, () =>
        this.options.store.regenerate(record.id, regeneration, secondsLeft(next, now)),
      )
      if (result.status === 'regenerated') return { record: result.record, token }
      if (result.status === 'ended') {
        this.events.emit('lateWrite', { id: record.id })
        return null
      }
      next = next.with({ id: newSessionId(record.id) })
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The store says that every new session ID is taken.')
  }

  /** Ends a session for good. Ending one that is over already is no error. */
  async end(id: string): Promise<void> {
    await this.#call('end', id, () => this.options.store.end(id))
  }

  /** `'corrupt'` has been told as an event. */
  async #load(id: string): Promise<SessionData | 'corrupt' | null> {
    let record: SessionData | null | undefined
    try {
      record = await this.#call('get', id, () => this.options.store.get(id))
    } catch (error) {
      if (!isSessionError(error, 'CORRUPT_RECORD')) throw error
      this.events.emit('corruptRecord', { id, cause: error })
      return 'corrupt'
    }
    if (record === null || record === undefined) return null
    const problem = problemOf(record, id, this.options.limits.maxBytes)
    if (problem === null) return record
    this.events.emit('corruptRecord', { id, cause: new SessionError('CORRUPT_RECORD', problem) })
    return 'corrupt'
  }

  /** By the record's own times, and by the idle timeout in force, which may be shorter than when it was written. */
  #isAlive(record: SessionData): boolean {
    const now = this.now()
    const idleMs = record.idleTimeoutMs ?? this.options.idleTimeoutMs
    const reason = record.expiryReason(now) ?? (now - record.lastAccessedAt >= idleMs ? 'idle' : null)
    if (reason !== null) this.events.emit('expired', { id: record.id, reason })
    return reason === null
  }

  /** A session whose own idle timeout is short is touched more often, or activity would not keep it alive. */
  #touchIntervalMs(record: SessionData): number {
    return Math.min(this.options.touchIntervalMs, (record.idleTimeoutMs ?? Number.POSITIVE_INFINITY) / 10)
  }

  /** When this session would end if it were used now. */
  endAfter(record: SessionData): number {
    return this.#nextEnd(record, record.effectiveNow(this.now()))
  }

  #nextEnd(record: SessionData, at: number): number {
    return Math.min(at + (record.idleTimeoutMs ?? this.options.idleTimeoutMs), record.absoluteExpiresAt)
  }

  /** One store call with its deadline. What the store does after the deadline is nobody's answer any more. */
  #call<T>(operation: string, id: string, start: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const timeoutMs = this.options.storeTimeoutMs
      const fail = (error: unknown): void => {
        clearTimeout(timer)
        if (timer === undefined) return
        timer = undefined
        reject(this.#storeError(operation, id, error))
      }
      let timer: NodeJS.Timeout | undefined = setTimeout(() => {
        fail(
          new SessionError(
            'STORE_TIMEOUT',
            `The session store did not answer "${operation}" within ${timeoutMs} ms; whether it was done is unknown.`,
          ),
        )
      }, timeoutMs)
      try {
        start().then((value) => {
          clearTimeout(timer)
          timer = undefined
          resolve(value)
        }, fail)
      } catch (error) {
        fail(error)
      }
    })
  }

  #storeError(operation: string, id: string, error: unknown): SessionError {
    if (isSessionError(error, 'CORRUPT_RECORD')) return error
    const told = isSessionError(error)
      ? error
      : new SessionError('STORE_UNAVAILABLE', `The session store failed at "${operation}".`, { cause: error })
    this.events.emit('storeError', { id, operation, error: told })
    return told
  }
}

/** Compares in constant time; the previous token counts only during its grace. */
function matchToken(record: SessionData, tokenHash: string, now: number): 'current' | 'previous' | null {
  if (sameHash(record.tokenHash, tokenHash)) return 'current'
  const previous = record.previousToken
  if (previous && now < previous.until && sameHash(previous.hash, tokenHash)) return 'previous'
  return null
}

/** What is wrong with a record that a store returned, if anything. */
function problemOf(record: SessionData, id: string, maxBytes: number): string | null {
  // By shape, not by class: the store may come from the package's other build.
  if (typeof record.expiryReason !== 'function') return 'The store returned something that is not a SessionData.'
  if (record.id !== id) return 'The store returned the record of another session.'
  if (typeof record.tokenHash !== 'string') return 'The record has no token hash.'
  const { createdAt, lastAccessedAt, expiresAt, absoluteExpiresAt, idleTimeoutMs = 0 } = record
  const times = [createdAt, lastAccessedAt, expiresAt, absoluteExpiresAt, idleTimeoutMs]
  if (!times.every(Number.isFinite)) return 'The record has a time that is not a number.'
  let length = 0
  for (const [name, text] of record.fields) {
    if (typeof text !== 'string') return 'The record has a field that is not text.'
    length += name.length + text.length
  }
  return length > OVERSIZE_FACTOR * maxBytes
    ? `The record is more than ${OVERSIZE_FACTOR} times as large as the limit of ${maxBytes} bytes.`
    : null
}
