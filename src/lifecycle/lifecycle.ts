// How sessions begin, change and end: where tokens are made and checked, and what happens to a session is told. The middleware
// and the manager both stand on it. Times, endings, the users' lists and the store's deadline have files of their own.

import type { CookieClaim } from '../cookie/cookie.js'
import { SessionError } from '../errors.js'
import { type ActivitySource, recordEvents } from '../events/activity-hook.js'
import type { SessionEvents } from '../events/events.js'
import { eventsWith } from '../events/secret-events.js'
import { type IssuedToken, newSessionId, newToken, sameHash, sealToken } from '../ids.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import { contextAfter, keptWithBinding, sealedContext, withBinding } from '../record/binding.js'
import {
  applyChange,
  type MetadataChange,
  type Regeneration,
  type SessionChange,
  type UpdateResult,
} from '../record/changes.js'
import { tooLarge } from '../record/limits.js'
import { type SessionContext, SessionData, type SessionEnd } from '../record/session-data.js'
import { secondsLeft } from '../record/store.js'
import { after, type Soon } from '../soon.js'
import { type Ending, Endings, MAX_SUCCESSORS, nameOf } from './endings.js'
import { EPOCH_LEASE_MS, Epoch } from './epoch.js'
import { type Claimant, type Finding, type FindingParts, findSession, settleClock } from './finding.js'
import { GuardedStore, notSupported } from './guarded-store.js'
import { LateWork } from './late-work.js'
import { type Expiry, Times } from './times.js'
import { Turns } from './turns.js'
import { Users } from './users.js'

/** A record and the token that opens it, on their way to a cookie. */
export interface IssuedSession {
  readonly record: SessionData
  readonly token: string
}

/** What a new session begins with. */
export interface NewSession {
  readonly id: string
  readonly fields: ReadonlyMap<string, string>
  /** What they are bound to, where the codec binds texts. */
  readonly binding?: string | undefined
  /** A token that was promised to the client already. */
  readonly token?: IssuedToken | undefined
  readonly metadata?: MetadataChange | undefined
  readonly context?: SessionContext | undefined
}

/** What a change is made of, before times and generation are added. */
export type ChangeParts = Pick<SessionChange, 'set' | 'delete' | 'expect' | 'renew' | 'metadata' | 'isPassive'>

/** What goes over when a session is regenerated. */
export interface RegenerationParts {
  /** The ID of the new session, when that comes from outside. */
  readonly id?: string | undefined
  readonly keep: Regeneration['keep']
  readonly set?: ReadonlyMap<string, string> | undefined
  readonly delete?: readonly string[] | undefined
  readonly userId?: string | number | undefined
  /** Whether somebody proved who they are: the absolute timeout starts afresh then, and the user's limit applies. */
  readonly isLogin: boolean
  /** Of a new session: whether its user has proved nothing. */
  readonly unproven?: true | undefined
  /** Whether it is a new session in all but its place: times start afresh, nothing of the client is taken over. */
  readonly isFresh?: boolean
  /** The logical ID, when it is to be another one. */
  readonly logicalId?: string | undefined
  /** The client of a login. */
  readonly context?: SessionContext | undefined
  /** What the request chose for the session that follows. Where fields go over, so do all settings of the one before. */
  readonly settings?: SessionSettings | undefined
}

/** What a session has of its own instead of the options. */
export type SessionSettings = Pick<MetadataChange, 'idleTimeoutMs' | 'persistent'> & {
  /** Counted from creation or login. */
  readonly absoluteTimeoutMs?: number | undefined
}

/** What became of a change; of one that was applied, the record that it made. */
export type Update =
  | Exclude<UpdateResult, { status: 'updated' | 'too-large' }>
  | { readonly status: 'updated'; readonly record: SessionData }

const MAX_ID_ATTEMPTS = 3

/** Runs sessions on a store. Rejects with `SessionError` only; a missing or ended session is a value. */
export class Lifecycle implements ActivitySource {
  readonly options: ResolvedSessionOptions
  readonly events: SessionEvents
  readonly times: Times
  readonly epoch: Epoch
  readonly users: Users
  readonly late = new LateWork()
  readonly turns: Turns
  readonly #store: GuardedStore
  readonly endings: Endings
  readonly #finding: FindingParts
  readonly #token: IssuedToken | undefined
  /**
   * Whether anybody in this process has looked at a logical ID: only then one that was seen, and not kept, is worth its bytes
   * when the session ID that it follows from changes.
   */
  usesLogicalIds: boolean

  /** @param token the one that all sessions have, where the signature of the cookie alone proves the right to them */
  constructor(options: ResolvedSessionOptions, token?: IssuedToken) {
    this.options = options
    this.#token = token
    this.events = eventsWith(options.cookie.secrets, options.clock)
    this.times = new Times(options)
    this.#store = new GuardedStore(options, this.events)
    this.epoch = new Epoch(this.#store)
    this.turns = new Turns(options.storeTimeoutMs)
    const { events, times, epoch, late } = this
    const store = this.#store
    this.endings = new Endings({ store, times, events, options })
    const endOf = (record: SessionData): SessionEnd | null => this.endOf(record)
    this.#finding = { store, epoch, events, times, endOf }
    this.users = new Users({ options, store, times, epoch, events, late, endings: this.endings, endOf })
    this.usesLogicalIds = options.activity !== undefined
    recordEvents(this, events)
  }

  /** What takes activities, if anything does. */
  get recorder(): ActivitySource['recorder'] {
    return this.options.activity
  }

  /** The present, in whole milliseconds since the epoch. */
  now(): number {
    return this.times.now()
  }

  newId(): string {
    return newSessionId()
  }

  newToken(): IssuedToken {
    return this.#token ?? newToken()
  }

  /** Which session these claims open; see `findSession()`. */
  find(claims: readonly CookieClaim[], client: Claimant): Soon<Finding> {
    return findSession(this.#finding, claims, client)
  }

  /** The record of a session, live or not, for a reader that has proved its right or needs none. */
  async peek(id: string): Promise<SessionData | 'corrupt' | null> {
    const epoch = this.epoch.refresh()
    const record = await this.#store.get(id, true)
    if (epoch !== null) await epoch
    if (record === null || record === 'corrupt' || !this.times.isAhead(record, this.now())) return record
    return this.endOf(record) === null ? settleClock(this.#finding, record) : record
  }

  /** The live record of a session, for the same readers. */
  async reload(id: string): Promise<SessionData | null> {
    const record = await this.peek(id)
    return record !== null && record !== 'corrupt' && this.endOf(record) === null ? record : null
  }

  /** The live session that a session became through regenerations, or `null`. */
  async successorOf(id: string): Promise<SessionData | null> {
    let record = await this.peek(id)
    for (let step = 0; step < MAX_SUCCESSORS && record !== null && record !== 'corrupt'; step++) {
      const end = this.endOf(record)
      if (end === null) return record.id === id ? null : record
      if (end.reason !== 'regenerated' || end.successor === undefined) return null
      record = await this.peek(end.successor)
    }
    return null
  }

  /** How a session has ended, or `null` while it is alive: also by the timeouts in force now, and by `revokeAll()`. */
  endOf(record: SessionData): SessionEnd | null {
    if (record.ended) return record.ended
    if (record.epoch < this.epoch.current) return { reason: 'revoked', at: record.lastAccessedAt }
    return this.times.expiryOf(record)
  }

  /** Stores a new session under a new token. */
  async create(session: NewSession): Promise<IssuedSession> {
    const { token: promised, metadata = {} } = session
    const fields = withBinding(session.fields, session.binding)
    // A session that begins with too old an epoch is over before it is used.
    await this.epoch.refresh()
    const now = this.now()
    const { token, tokenHash } = promised ?? this.newToken()
    const first = new SessionData({
      id: session.id,
      tokenHash,
      generation: 1,
      createdAt: now,
      updatedAt: now,
      lastAccessedAt: now,
      absoluteExpiresAt: this.times.absoluteEnd(now),
      ...metadata,
      context: sealedContext(session.context, this.options.codec, fields),
      epoch: this.epoch.current,
      expiresAt: 0,
      fields,
    })
    const record = first.with({ expiresAt: this.times.nextEnd(first, now) })
    const ttl = this.times.ttlSeconds(record, now)
    // A cookie that was promised names this ID: another one will not do.
    const attempts = promised ? 1 : MAX_ID_ATTEMPTS
    return this.#underFreeId(record, attempts, async (candidate) => {
      const placed = await this.users.place({ record: candidate, isLogin: true, previous: null }, async () => ({
        isStored: (await this.#store.create(candidate, ttl)) || (await this.#isStored(candidate)),
        value: undefined,
      }))
      if (placed.status === 'evicted') throw evicted()
      if (placed.status === 'not stored') return null
      this.events.emit('created', nameOf(candidate))
      return { record: candidate, token }
    })
  }

  /** Tries `store` under this record's ID, and under others when it resolves to `null`: the ID is taken. */
  async #underFreeId<T>(
    record: SessionData,
    attempts: number,
    store: (candidate: SessionData) => Promise<T | null>,
    newId = newSessionId,
  ): Promise<T> {
    let candidate = record
    for (let attempt = 1; attempt <= attempts; attempt++) {
      const stored = await store(candidate)
      if (stored !== null) return stored
      candidate = candidate.with({ id: newId() })
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The store says that every new session ID is taken.')
  }

  /** A client that lost a reply with its connection may send the call again, and find its own record in the way. */
  async #isStored({ id, tokenHash }: SessionData): Promise<boolean> {
    // By the token of all sessions, nobody's record can be told from another's.
    if (this.#token !== undefined) return false
    const found = await this.#store.get(id, true)
    return found !== null && found !== 'corrupt' && sameHash(found.tokenHash, tokenHash)
  }

  /** A change to `record`, made now. */
  change(record: SessionData, parts: ChangeParts): SessionChange {
    const at = record.effectiveNow(this.now())
    const changed = parts.metadata ? record.with(parts.metadata) : record
    // Members one by one: this is on the path of every write, and a spread is slow.
    const { set, delete: remove, metadata, isPassive } = parts
    const change = {
      generation: record.generation,
      at,
      expiresAt: this.times.nextEnd(changed, at),
      set,
      delete: remove,
      metadata,
      isPassive,
      limits: this.options.limits,
      madeOn: record,
    }
    if (parts.expect === undefined && parts.renew === undefined) return change
    return { ...change, ...(parts.expect && { expect: parts.expect }), ...(parts.renew && { renew: parts.renew }) }
  }

  /**
   * Applies a change. That the session has ended is told as `lateWrite`.
   * @throws {SessionError} `SESSION_TOO_LARGE` when the session would be; nothing has changed then.
   */
  update(record: SessionData, change: SessionChange): Soon<Update> {
    const end = change.metadata?.absoluteExpiresAt
    if (end !== undefined && end > record.absoluteExpiresAt) return this.#prolong(record, change, end)
    const result = this.#store.update(record.id, change, this.times.ttlSeconds(change, change.at))
    return after(result, (known) => this.#updated(record, change, known))
  }

  /** A change by which the session may live longer than its user's list of sessions knows. */
  async #prolong(record: SessionData, change: SessionChange, end: number): Promise<Update> {
    await this.users.prolong(record, end)
    const result = await this.#store.update(record.id, change, this.times.ttlSeconds(change, change.at))
    const update = this.#updated(record, change, result)
    if (update.status === 'ended') await this.users.forget(record.userId, [record.id])
    return update
  }

  #updated(record: SessionData, change: SessionChange, result: UpdateResult): Update {
    if (result.status === 'ended') this.events.emit('lateWrite', nameOf(record))
    if (result.status === 'too-large') throw tooLarge(result, this.options.limits)
    if (result.status !== 'updated') return result
    if (change.renew === undefined && this.events.isHeard('committed')) this.events.emit('committed', nameOf(record))
    if (result.record !== undefined) return { status: 'updated', record: result.record }
    // What was stored was within the limits; what this request has read and changed need not be.
    const applied = { ...change, limits: undefined }
    return { status: 'updated', record: applyChange(record, applied).record ?? record }
  }

  /**
   * Moves the idle timeout forward; `isTold` says whether the client's cookie moves with it. Resolves to the record as it then
   * is, or to `null` when it has ended.
   */
  async touch(record: SessionData, isTold: boolean): Promise<SessionData | null> {
    const metadata = this.cookieNote(record, isTold)
    if (metadata !== undefined) {
      const change = this.change(record, { metadata })
      const result = await this.#store.update(record.id, change, this.times.ttlSeconds(change, change.at))
      if (result.status !== 'updated') return null
      return result.record ?? applyChange(record, change).record
    }
    const at = record.effectiveNow(this.now())
    const expiresAt = this.times.nextEnd(record, at)
    const ttl = secondsLeft({ expiresAt }, at)
    const isTouched = await this.#store.touch(record.id, ttl, at, this.options.retentionSeconds)
    return isTouched ? record.with({ lastAccessedAt: at, expiresAt: Math.max(record.expiresAt, expiresAt) }) : null
  }

  /**
   * What is to be noted when the session's end moves, so that the next response knows whether the client's persistent cookie
   * lags behind; mostly nothing.
   */
  cookieNote(record: SessionData, isTold: boolean): Pick<MetadataChange, 'cookieEndsAt'> | undefined {
    const { cookieEndsAt, expiresAt, persistent } = record
    if (isTold) return cookieEndsAt === undefined ? undefined : { cookieEndsAt: undefined }
    const isPersistent = persistent ?? this.options.cookie.persistent
    return isPersistent && cookieEndsAt === undefined ? { cookieEndsAt: expiresAt } : undefined
  }

  /**
   * Gives the session a new token in the place of `token`, which stays good until the client has shown that it has the new
   * one, and for the grace after that: whoever loses the response is not logged out. Resolves to `null` when another request
   * has just done so.
   */
  async renew(record: SessionData, token: string, isPassive: boolean): Promise<IssuedSession | 'ended' | null> {
    if (this.#token !== undefined) {
      throw new SessionError(
        'NOT_SUPPORTED',
        'Cookies of this middleware carry no token that could be renewed: use regenerate().',
      )
    }
    const next = newToken()
    const renew = {
      from: record.tokenHash,
      to: next.tokenHash,
      graceUntil: record.absoluteExpiresAt,
      sealed: sealToken(next.token, token),
    }
    const change = this.change(record, { renew, metadata: { tokenSince: this.now() }, isPassive })
    const result = await this.update(record, change)
    if (result.status !== 'updated') return result.status === 'ended' ? 'ended' : null
    this.events.emit('renewed', nameOf(record))
    return { record: result.record, token: next.token }
  }

  /**
   * The client has shown that it has the present token: the one before is good for the grace and no longer. Resolves to the
   * record as it then is; to the same one when the token has been renewed in the meantime.
   */
  async confirmToken(record: SessionData, isPassive: boolean): Promise<SessionData | 'ended'> {
    const { previousToken, tokenHash } = record
    if (previousToken === undefined) return record
    const metadata = { previousToken: { hash: previousToken.hash, until: this.times.graceUntil(this.now()) } }
    const change = this.change(record, { expect: { tokenHash }, metadata, isPassive })
    const result = await this.update(record, change)
    if (result.status === 'ended') return 'ended'
    return result.status === 'updated' ? result.record : record
  }

  /** Ends `record` and begins a session in its place, in one step. Resolves to `null` when it had ended already. */
  async regenerate(record: SessionData, parts: RegenerationParts): Promise<IssuedSession | null> {
    await this.epoch.refresh()
    if (record.epoch < this.epoch.current) {
      // The new session would begin after revokeAll(), and so outlive it.
      this.events.emit('lateWrite', nameOf(record))
      return null
    }
    const now = record.effectiveNow(this.now())
    const { token, next } = this.#successor(record, parts, now)
    const { delete: remove = [], isLogin } = parts
    const keep = keptWithBinding(parts, this.options.codec)
    const { retentionSeconds: tombstoneSeconds, limits, archiveEnded } = this.options
    // What goes on is not over.
    const unarchived = archiveEnded && keep !== 'all' ? (true as const) : undefined
    const ending = { generation: record.generation, at: now, tombstoneSeconds, unarchived }
    const ttl = this.times.ttlSeconds(next, now)
    const store = async (candidate: SessionData): Promise<SessionData | 'ended' | null> => {
      const regeneration = { ...ending, next: candidate, keep, delete: remove, limits }
      const placed = await this.users.place({ record: candidate, isLogin, previous: record }, async () => {
        const result = await this.#store.regenerate(record.id, regeneration, ttl)
        if (result.status === 'too-large') throw tooLarge(result, limits)
        if (result.status === 'regenerated') this.endings.tellRegenerated(record, candidate.id, keep === 'all')
        return { isStored: result.status === 'regenerated', value: result }
      })
      if (placed.status === 'evicted') throw evicted()
      const { value } = placed
      return value.status === 'regenerated' ? value.record : value.status === 'ended' ? 'ended' : null
    }
    const stored = await this.#underFreeId(next, MAX_ID_ATTEMPTS, store, () => newSessionId(record.id))
    if (stored !== 'ended') return { record: stored, token }
    this.events.emit('lateWrite', nameOf(record))
    return null
  }

  /** The session that takes the place of `record`, as far as that can be said before the store has merged the fields. */
  #successor(record: SessionData, parts: RegenerationParts, now: number): { token: string; next: SessionData } {
    const { token, tokenHash } = this.newToken()
    const startsAfresh = parts.isLogin || parts.isFresh === true
    const keepsSettings = parts.keep === 'all' || parts.keep.length > 0
    const { idleTimeoutMs, persistent, absoluteTimeoutMs }: SessionSettings = keepsSettings
      ? record
      : (parts.settings ?? {})
    const next = new SessionData({
      id: parts.id ?? newSessionId(record.id),
      tokenHash,
      tokenSince: startsAfresh ? undefined : now,
      generation: record.generation + 1,
      createdAt: startsAfresh ? now : record.createdAt,
      updatedAt: now,
      lastAccessedAt: now,
      expiresAt: 0,
      absoluteExpiresAt: !startsAfresh
        ? record.absoluteExpiresAt
        : keepsSettings
          ? this.times.absoluteEndLike(record, now)
          : this.times.absoluteEnd(now, absoluteTimeoutMs),
      idleTimeoutMs,
      persistent,
      userId: parts.userId,
      unproven: startsAfresh ? parts.unproven : record.unproven,
      logicalId: parts.logicalId ?? (parts.isFresh || parts.keep === 'all' ? undefined : record.logicalId),
      context: contextAfter(record, parts, this.options.codec),
      epoch: this.epoch.current,
      fields: parts.set ?? [],
    })
    return { token, next: next.with({ expiresAt: this.times.nextEnd(next, now) }) }
  }

  /**
   * Ends a session for good, and what it became if it was regenerated in the meantime. Ending one that is over already is
   * no error. Resolves to whether this call ended anything.
   */
  async end({ id, userId }: Pick<SessionData, 'id' | 'userId'>, ending: Ending): Promise<boolean> {
    const { hasEnded, ids } = await this.endings.end({ id, userId }, ending)
    await this.users.forget(userId, ids)
    return hasEnded
  }

  /**
   * Ends a session that ran out, but not what it became in its last moment. Resolves to whether this call ended it.
   */
  async expire(record: SessionData, end: Expiry): Promise<boolean> {
    const hasEnded = await this.endings.expire(record, end)
    await this.users.forget(record.userId, [record.id])
    return hasEnded
  }

  /** Ends every session there is, whatever their number: none that began before counts any more. */
  async revokeAll(by: string | undefined, detail: string | undefined): Promise<void> {
    await this.epoch.raise()
    this.events.emit('allRevoked', { by, detail })
    // By then every process has asked.
    await new Promise((resolve) => setTimeout(resolve, EPOCH_LEASE_MS))
  }

  // --- The whole store ---

  /** Every record of the store, tombstones included; each step has its deadline. */
  async *scan(): AsyncGenerator<SessionData, void, undefined> {
    await this.epoch.refresh()
    yield* this.#store.scan()
  }

  /** What the store may be able to do beside sessions, each call with its deadline. */
  ability<Name extends 'notes' | 'signals'>(name: Name): NonNullable<GuardedStore[Name]> {
    return this.#store[name] ?? raise(notSupported(`This needs a store with ${name} ("${name}")`))
  }

  get canScan(): boolean {
    return this.#store.canScan
  }

  /** Whether this process may do alone what `name` stands for; always, on a store without leases. */
  lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return this.#store.lease(name, owner, ttlMs)
  }

  clearExpired(): Promise<number> {
    return this.#store.clearExpired()
  }
}

function raise(error: Error): never {
  throw error
}

function evicted(): SessionError {
  return new SessionError(
    'SESSION_ENDED',
    'The session was ended as it began: by another login over the limit, or by a revocation of all sessions of the user.',
  )
}
