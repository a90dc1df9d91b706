// What stands between sessions and their store: one deadline for every call, one place where times are decided, where
// tokens are made and checked, users limited, and events told. The middleware and the manager both stand on it.

import type { CookieClaim } from '../cookie/cookie.js'
import { isSessionError, SessionError, type SessionErrorCode } from '../errors.js'
import { recordEvents } from '../events/activity-hook.js'
import { SessionEvents } from '../events/events.js'
import { newSessionId, newToken, sameHash, userKey } from '../ids.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import {
  applyChange,
  type EndReason,
  type EndResult,
  type ExpiryReason,
  type MetadataChange,
  type Regeneration,
  type SessionChange,
  type SessionContext,
  SessionData,
  type SessionEnd,
  type UpdateResult,
} from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { secondsLeft, type UserEntry, type UserIndex } from '../record/store.js'
import { runWithoutSession } from '../request/current-session.js'

/** A session that a cookie gave the right to. */
export interface FoundSession {
  readonly record: SessionData
  readonly claim: CookieClaim
  /** `false` when the cookie holds the token before the last renewal, during its grace. */
  readonly isCurrentToken: boolean
}

/** What the claims of a request led to: a live session, or at least the end of one. */
export type Finding = FoundSession | { readonly ended: EndedSession } | null

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
  readonly metadata?: MetadataChange | undefined
  readonly context?: SessionContext | undefined
}

/** What a change is made of, before times and generation are added. */
export type ChangeParts = Pick<SessionChange, 'set' | 'delete' | 'expect' | 'renew' | 'metadata' | 'isPassive'>

/** What goes over when a session is regenerated. */
export interface RegenerationParts {
  readonly keep: Regeneration['keep']
  readonly set?: ReadonlyMap<string, string> | undefined
  readonly delete?: readonly string[] | undefined
  readonly userId?: string | number | undefined
  /** Whether somebody proved who they are: the absolute timeout starts afresh then, and the user's limit applies. */
  readonly isLogin: boolean
  /** Whether it is a new session in all but its place: times start afresh, nothing of the client is taken over. */
  readonly isFresh?: boolean
  /** The logical ID, when it is to be another one. */
  readonly logicalId?: string | undefined
  /** The client of a login. */
  readonly context?: SessionContext | undefined
}

/** What became of a change; of one that was applied, the record that it made. */
export type Update =
  | Exclude<UpdateResult, { status: 'updated' }>
  | { readonly status: 'updated'; readonly record: SessionData }

/** How a session is ended; the time is that of the call. */
export type Ending = Omit<SessionEnd, 'at' | 'reason'> & { readonly reason: Exclude<EndReason, 'regenerated'> }

/** How a session ran out. */
export type Expiry = SessionEnd & { readonly reason: ExpiryReason }

/** One call of the store. What takes longer, and shows that it goes on, may refresh the deadline. */
type StoreCall<T> = (deadline: NodeJS.Timeout) => Promise<T>

const MAX_ID_ATTEMPTS = 3
/** Requests that merge may exceed the size limit together; a record beyond so many times the limit was not made by us. */
const OVERSIZE_FACTOR = 4

/** Sessions that one end leads to through regenerations, until it gives up. */
const MAX_SUCCESSORS = 20
/** Rounds of making room in a user's list. */
const MAX_ROUNDS = 10
/** How long a process goes by the last epoch that it read. `revokeAll()` waits it out. */
export const EPOCH_LEASE_MS = 1_000
/** How far the clocks of two processes may be apart. */
const CLOCK_SKEW_MS = 10_000
/** Store calls of one operation that are under way at once. */
const PARALLEL = 50

/** Runs sessions on a store. Rejects with `SessionError` only; a missing or ended session is a value. */
export class SessionEngine {
  readonly options: ResolvedSessionOptions
  readonly events: SessionEvents
  /** How often all sessions have been revoked, as far as this process knows. */
  #epoch = 0
  #epochReadAt = Number.NEGATIVE_INFINITY
  #epochReading: Promise<void> | null = null
  /**
   * Whether anybody in this process has looked at a logical ID: only then one that was seen, and not kept, is worth its bytes
   * when the session ID that it follows from changes.
   */
  usesLogicalIds: boolean
  /** Commits that go on after their response. */
  readonly #late = new Set<Promise<unknown>>()

  constructor(options: ResolvedSessionOptions) {
    this.options = options
    this.events = new SessionEvents(options.clock)
    this.usesLogicalIds = options.activity !== undefined
    recordEvents(this)
  }

  /** The present, in whole milliseconds since the epoch. */
  now(): number {
    return Math.floor(this.options.clock())
  }

  newId(): string {
    return newSessionId()
  }

  /**
   * The first of these claims that opens a live session, or else what is known of one that is over. Each failing one is told
   * as an event, with the client's address.
   */
  async find(claims: readonly CookieClaim[], ip: () => string | undefined): Promise<Finding> {
    let ended: EndedSession | null = null
    const epoch = this.#refreshEpoch()
    for (const claim of claims) {
      const record = await this.load(claim.id)
      if (epoch !== null) await epoch
      if (record === 'corrupt') continue
      if (record === null) {
        this.events.emit('unknownSession', { id: claim.id, ip: ip() })
        continue
      }
      const match = matchToken(record, claim.tokenHash, this.now())
      if (match === null) {
        this.events.emit('tokenMismatch', { id: claim.id, userId: record.userId, ip: ip() })
        continue
      }
      const end = this.endOf(record)
      if (end === null) {
        if (this.events.isHeard('loaded')) this.events.emit('loaded', nameOf(record))
        return { record, claim, isCurrentToken: match === 'current' }
      }
      if (end.reason === 'idle' || end.reason === 'absolute') {
        this.events.emit('expired', { ...nameOf(record), reason: end.reason })
      } else this.events.emit('usedAfterEnd', { ...nameOf(record), end, ip: ip() })
      ended ??= { ...nameOf(record), end }
    }
    return ended && { ended }
  }

  /** The record of a session, live or not, for a reader that has proved its right or needs none. */
  async peek(id: string): Promise<SessionData | 'corrupt' | null> {
    const epoch = this.#refreshEpoch()
    const record = await this.load(id)
    if (epoch !== null) await epoch
    return record
  }

  /** The live record of a session, for the same readers. */
  async reload(id: string): Promise<SessionData | null> {
    const record = await this.peek(id)
    return record !== null && record !== 'corrupt' && this.endOf(record) === null ? record : null
  }

  /** How a session has ended, or `null` while it is alive: also by the timeouts in force now, and by `revokeAll()`. */
  endOf(record: SessionData): SessionEnd | null {
    if (record.ended) return record.ended
    if (record.epoch < this.#epoch) return { reason: 'revoked', at: record.lastAccessedAt }
    return this.expiryOf(record)
  }

  /** How it ran out, by the record's own times and by the idle timeout in force, which may be shorter than when it was written. */
  expiryOf(record: SessionData): Expiry | null {
    const now = this.now()
    const idleMs = record.idleTimeoutMs ?? this.options.idleTimeoutMs
    const reason = record.expiryReason(now) ?? (now - record.lastAccessedAt >= idleMs ? 'idle' : null)
    if (reason === 'absolute') return { reason, at: record.absoluteExpiresAt }
    return reason && { reason, at: Math.min(record.expiresAt, record.lastAccessedAt + idleMs) }
  }

  /** Stores a new session under a new token. */
  async create(session: NewSession): Promise<IssuedSession> {
    const { token: promised, metadata = {} } = session
    await this.#firstEpoch()
    const now = this.now()
    const { token, tokenHash } = promised ?? newToken()
    let record = new SessionData({
      id: session.id,
      tokenHash,
      generation: 1,
      createdAt: now,
      updatedAt: now,
      lastAccessedAt: now,
      absoluteExpiresAt: now + this.options.absoluteTimeoutMs,
      ...metadata,
      context: session.context,
      epoch: this.#epoch,
      expiresAt: 0,
      fields: session.fields,
    })
    record = record.with({ expiresAt: this.#nextEnd(record, now) })
    for (let attempt = 1; attempt <= MAX_ID_ATTEMPTS; attempt++) {
      const candidate = record
      const ttl = this.#ttl(candidate, now)
      const isCreated = await this.#asUsers(candidate, { isLogin: true, previous: null }, async () =>
        (await this.#call('create', candidate.id, () => this.options.store.create(candidate.id, candidate, ttl))) ||
        (await this.#isStored(candidate))
          ? 'stored'
          : 'not stored',
      )
      if (isCreated === 'stored') {
        this.events.emit('created', nameOf(candidate))
        return { record: candidate, token }
      }
      if (isCreated === 'evicted') throw evicted()
      // The cookie that was promised names this ID: another one will not do.
      if (promised) break
      record = record.with({ id: newSessionId() })
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The store says that every new session ID is taken.')
  }

  /** A client that lost a reply with its connection may send the call again, and find its own record in the way. */
  async #isStored({ id, tokenHash }: SessionData): Promise<boolean> {
    const found = await this.load(id)
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
      expiresAt: this.#nextEnd(changed, at),
      set,
      delete: remove,
      metadata,
      isPassive,
      madeOn: record,
    }
    if (parts.expect === undefined && parts.renew === undefined) return change
    return { ...change, ...(parts.expect && { expect: parts.expect }), ...(parts.renew && { renew: parts.renew }) }
  }

  /** Applies a change. That the session has ended is told as `lateWrite`. */
  async update(record: SessionData, change: SessionChange): Promise<Update> {
    const end = change.metadata?.absoluteExpiresAt
    const isProlonged = end !== undefined && end > record.absoluteExpiresAt
    if (isProlonged) await this.#prolongEntry(record, end)
    const ttl = this.#ttl(change, change.at)
    const result = await this.#call('update', record.id, () => this.options.store.update(record.id, change, ttl))
    if (result.status === 'ended') {
      this.events.emit('lateWrite', nameOf(record))
      if (isProlonged && record.userId !== undefined) await this.#forgetEntries(record.userId, [record.id])
    }
    if (result.status !== 'updated') return result
    if (change.renew === undefined && this.events.isHeard('committed')) this.events.emit('committed', nameOf(record))
    return { status: 'updated', record: result.record ?? applyChange(record, change).record ?? record }
  }

  /** Whether the session was not used for so long that its logical ID has ended. */
  isLogicalIdOver({ lastAccessedAt }: SessionData): boolean {
    return this.now() - lastAccessedAt >= this.options.logicalIdTimeoutMs
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
    const { store, retentionSeconds } = this.options
    const touched = await this.#call('touch', record.id, () => store.touch(record.id, ttl, at, retentionSeconds))
    return touched ? record.with({ lastAccessedAt: at, expiresAt: Math.max(record.expiresAt, expiresAt) }) : null
  }

  /** Whether the token has reached the age at which it is replaced. */
  isRenewalDue({ previousToken, createdAt }: SessionData): boolean {
    const { renewAfterMs, renewGraceMs } = this.options
    // The grace of the last renewal began with the token of now.
    const since = previousToken === undefined ? createdAt : previousToken.until - renewGraceMs
    return this.now() - since >= renewAfterMs
  }

  /** A new token, and the part of a change that puts it in the place of the present one. */
  renewal(record: SessionData): { readonly token: string; readonly renew: NonNullable<SessionChange['renew']> } {
    const { token, tokenHash } = newToken()
    return {
      token,
      renew: { from: record.tokenHash, to: tokenHash, graceUntil: this.now() + this.options.renewGraceMs },
    }
  }

  /** Gives the session a new token. Resolves to `null` when another request has just done so. */
  async renew(record: SessionData, isPassive: boolean): Promise<IssuedSession | 'ended' | null> {
    const { token, renew } = this.renewal(record)
    const change = this.change(record, { renew, isPassive })
    const result = await this.update(record, change)
    if (result.status !== 'updated') return result.status === 'ended' ? 'ended' : null
    this.events.emit('renewed', nameOf(record))
    return { record: result.record, token }
  }

  /** Ends `record` and begins a session in its place, in one step. Resolves to `null` when it had ended already. */
  async regenerate(record: SessionData, parts: RegenerationParts): Promise<IssuedSession | null> {
    await this.#firstEpoch()
    if (record.epoch < this.#epoch) {
      // The new session would begin after revokeAll(), and so outlive it.
      this.events.emit('lateWrite', nameOf(record))
      return null
    }
    const now = record.effectiveNow(this.now())
    const { token, tokenHash } = newToken()
    const startsAfresh = parts.isLogin || parts.isFresh === true
    const keepsSettings = parts.keep === 'all' || parts.keep.length > 0
    const idleTimeoutMs = keepsSettings ? record.idleTimeoutMs : undefined
    const { renewAfterMs, renewGraceMs } = this.options
    // The age of a token is told by the one before it, and a new session's by its creation: this has neither.
    const isBornLater = !startsAfresh && Number.isFinite(renewAfterMs)
    let next = new SessionData({
      id: newSessionId(record.id),
      tokenHash,
      previousToken: isBornLater ? { hash: tokenHash, until: now + renewGraceMs } : undefined,
      generation: record.generation + 1,
      createdAt: startsAfresh ? now : record.createdAt,
      updatedAt: now,
      lastAccessedAt: now,
      expiresAt: 0,
      absoluteExpiresAt: startsAfresh
        ? now + Math.max(this.options.absoluteTimeoutMs, idleTimeoutMs ?? 0)
        : record.absoluteExpiresAt,
      idleTimeoutMs,
      persistent: keepsSettings ? record.persistent : undefined,
      userId: parts.userId,
      logicalId: parts.logicalId ?? (parts.isFresh || parts.keep === 'all' ? undefined : record.logicalId),
      context: parts.context ?? (parts.isFresh ? undefined : record.context),
      epoch: this.#epoch,
      fields: parts.set ?? [],
    })
    next = next.with({ expiresAt: this.#nextEnd(next, now) })
    const { keep, delete: remove = [] } = parts
    for (let attempt = 1; attempt <= MAX_ID_ATTEMPTS; attempt++) {
      const candidate = next
      const tombstoneSeconds = this.options.retentionSeconds
      const regeneration = { generation: record.generation, at: now, next, keep, delete: remove, tombstoneSeconds }
      let stored: SessionData | 'ended' | null = null
      const outcome = await this.#asUsers(candidate, { isLogin: parts.isLogin, previous: record }, async () => {
        const ttl = this.#ttl(candidate, now)
        const result = await this.#call('regenerate', record.id, () =>
          this.options.store.regenerate(record.id, regeneration, ttl),
        )
        stored = result.status === 'regenerated' ? result.record : result.status === 'ended' ? 'ended' : null
        if (result.status !== 'regenerated') return 'not stored'
        this.#tellEnded(record.id, 'regenerated')
        return 'stored'
      })
      if (outcome === 'evicted') throw evicted()
      if (stored === 'ended') {
        this.events.emit('lateWrite', nameOf(record))
        return null
      }
      if (stored !== null) return { record: stored, token }
      next = next.with({ id: newSessionId(record.id) })
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The store says that every new session ID is taken.')
  }

  /**
   * Ends a session for good, and what it became if it was regenerated in the meantime. Ending one that is over already is
   * no error. Resolves to whether this call ended anything.
   */
  async end(session: Pick<SessionData, 'id' | 'userId'>, ending: Ending): Promise<boolean> {
    const end: SessionEnd = { ...ending, at: this.now() }
    const ids: string[] = []
    let id: string | undefined = session.id
    let hasEnded = false
    for (let step = 0; id !== undefined && step < MAX_SUCCESSORS; step++) {
      const current: string = id
      ids.push(current)
      const result = await this.#endOne(current, end)
      hasEnded ||= result.status === 'ended'
      id = result.status === 'over' ? result.successor : undefined
    }
    if (session.userId !== undefined) await this.#forgetEntries(session.userId, ids)
    return hasEnded
  }

  /**
   * Ends a session that ran out, but not what it became in its last moment. Resolves to whether this call ended it.
   */
  async expire(record: SessionData, end: Expiry): Promise<boolean> {
    const hasEnded = await this.#expireOne(record, end)
    if (record.userId !== undefined) await this.#forgetEntries(record.userId, [record.id])
    return hasEnded
  }

  async #expireOne(record: SessionData, end: Expiry): Promise<boolean> {
    const { status } = await this.#endOne(record.id, end)
    if (status === 'ended') this.events.emit('expired', { ...nameOf(record), reason: end.reason })
    return status === 'ended'
  }

  async #endOne(id: string, end: SessionEnd): Promise<EndResult> {
    const { store, retentionSeconds } = this.options
    const result = await this.#call('end', id, () => store.end(id, end, retentionSeconds))
    if (result.status === 'ended') this.#tellEnded(id, end.reason)
    return result
  }

  #tellEnded(id: string, reason: EndReason): void {
    if (this.events.isHeard('ended')) this.events.emit('ended', { id, reason })
  }

  // --- The sessions of a user ---

  /** The live sessions of a user. What the list still names and is over is taken off it. */
  async sessionsOf(userId: string | number): Promise<SessionData[]> {
    const users = this.#users()
    const user = userKey(userId)
    const epoch = this.#refreshEpoch()
    const entries = await this.#call('users.list', undefined, () => users.list(user, this.now()))
    if (epoch !== null) await epoch
    const { live, dead } = await this.#sortOut(entries)
    if (dead.length > 0) await this.#forgetEntries(userId, dead)
    return live.filter((record) => record.userId === userId)
  }

  /** Ends the sessions of a user, but for one. Resolves to how many that were. */
  async revokeUser(userId: string | number, except: string | undefined, ending: Ending): Promise<number> {
    const users = this.#users()
    const entries = await this.#call('users.evict', undefined, () =>
      users.evict(userKey(userId), { now: this.now(), except }),
    )
    return this.#endEntries(userId, entries, async (id) => {
      const record = this.options.activity && (await this.load(id))
      const logicalId = record && record !== 'corrupt' ? record.logicalId : undefined
      const hasEnded = await this.end({ id, userId: undefined }, ending)
      if (hasEnded) this.events.emit('revoked', { id, userId, logicalId, by: ending.by, detail: ending.detail })
      return hasEnded
    })
  }

  /** Ends every session there is, whatever their number: none that began before counts any more. */
  async revokeAll(by: string | undefined, detail: string | undefined): Promise<void> {
    const { store } = this.options
    if (!store.epoch) throw notSupported('revokeAll() needs a store with an epoch')
    const before = await this.#call('epoch', undefined, () => store.epoch?.() ?? resolved(0))
    const next = Math.max(before, this.#epoch) + 1
    this.#setEpoch(await this.#call('epoch', undefined, () => store.epoch?.(next) ?? resolved(next)))
    this.events.emit('allRevoked', { by, detail })
    // By then every process has asked.
    await new Promise((resolve) => setTimeout(resolve, EPOCH_LEASE_MS))
  }

  /** The records of these IDs that can be read, without their fields: a list must not take the memory of them all. */
  async #loadAll(ids: readonly string[]): Promise<Map<string, SessionData>> {
    const found = new Map<string, SessionData>()
    await inParallel(ids, async (id) => {
      const record = await this.load(id)
      if (record !== null && record !== 'corrupt') found.set(id, record.with({ fields: [] }))
    })
    return found
  }

  /**
   * Stores a session with its place in the list of its user's sessions. The place is taken before, so that no crash leaves
   * a session that the list does not know; what the list must then lose is ended after. `'evicted'`: another login or a
   * revocation has ended the session in the meantime.
   */
  async #asUsers(
    record: SessionData,
    { isLogin, previous }: { isLogin: boolean; previous: SessionData | null },
    store: () => Promise<'stored' | 'not stored'>,
  ): Promise<'stored' | 'not stored' | 'evicted'> {
    const { users } = this.options.store
    const { userId } = record
    const isSameUser = previous !== null && previous.userId === userId
    if (users === undefined || userId === undefined) {
      const outcome = await store()
      if (outcome === 'stored' && previous?.userId !== undefined)
        await this.#forgetEntries(previous.userId, [previous.id])
      return outcome
    }
    const user = userKey(userId)
    const evictedEntries = await this.#takePlace(users, record, isLogin, isSameUser)
    try {
      const outcome = await store()
      if (outcome === 'not stored') {
        await this.#forgetEntries(userId, [record.id])
        return outcome
      }
      const replaced = isSameUser ? [previous.id] : []
      const isSettled = await this.#call('users.settle', record.id, () => users.settle(user, record.id, replaced))
      const ended: string[] = []
      await this.#endEntries(userId, evictedEntries, async (id) => {
        const hasEnded = await this.end({ id, userId: undefined }, { reason: 'limit' })
        if (hasEnded) ended.push(id)
        return hasEnded
      })
      if (ended.length > 0) this.events.emit('limit', { ...nameOf(record), userId, outcome: 'ended-oldest', ended })
      if (!isSameUser && previous?.userId !== undefined) await this.#forgetEntries(previous.userId, [previous.id])
      if (isSettled) return 'stored'
      await this.end(record, { reason: 'limit' })
      return 'evicted'
    } catch (error) {
      // If it is there, nobody will ever hold its token, and it must not count as one of the user's.
      this.track(this.end(record, { reason: 'destroyed' }).catch(() => {}))
      throw error
    }
  }

  /** Puts a session that is about to be stored on its user's list. Resolves to the entries that have to go for it. */
  async #takePlace(
    users: UserIndex,
    record: SessionData,
    isLogin: boolean,
    isSameUser: boolean,
  ): Promise<readonly UserEntry[]> {
    const { maxSessionsPerUser, onSessionLimit, storeTimeoutMs } = this.options
    const userId = record.userId as string | number
    const user = userKey(userId)
    const now = this.now()
    const entry: UserEntry = {
      id: record.id,
      since: record.createdAt,
      endsAt: record.absoluteExpiresAt,
      pendingUntil: now + 5 * storeTimeoutMs,
      isEvicted: false,
    }
    // One that replaces another of the same user makes them no more.
    const max = isLogin && !isSameUser ? maxSessionsPerUser : undefined
    let evictsOldest = false
    for (let round = 1; round <= MAX_ROUNDS; round++) {
      const added = await this.#call('users.add', record.id, () => users.add(user, entry, { now, max, evictsOldest }))
      if (added.status === 'added') return added.evicted
      // Some of them may be over without the list knowing.
      const { dead } = await this.#sortOut(added.entries)
      if (dead.length > 0) await this.#forgetEntries(userId, dead)
      else if (onSessionLimit === 'refuse') break
      else evictsOldest = true
    }
    this.events.emit('limit', { ...nameOf(record), userId, outcome: 'refused', ended: [] })
    throw new SessionError(
      'SESSION_LIMIT',
      `This user has ${maxSessionsPerUser} sessions already: end one of them (sessionsOf(), revoke()) before the next login.`,
    )
  }

  /** The live sessions of a list, and the IDs of entries that stand for nothing: not even for one about to be stored. */
  async #sortOut(entries: readonly UserEntry[]): Promise<{ live: SessionData[]; dead: string[] }> {
    const now = this.now()
    const live: SessionData[] = []
    const dead: string[] = []
    const records = await this.#loadAll(entries.map(({ id }) => id))
    await inParallel(entries, async ({ id, pendingUntil }) => {
      const record = records.get(id)
      const end = record && this.endOf(record)
      if (record === undefined) {
        if (now >= pendingUntil) dead.push(id)
      } else if (!end) live.push(record)
      else if (record.ended || end.reason !== 'idle' || (await this.#isIdleForAll(record, end.at))) dead.push(id)
    })
    return { live, dead }
  }

  /**
   * Sees to it that a session which is idle for too long here is so for every process: one whose clock is behind could go on
   * with it, and it would be on no list then. Resolves to `false` if that cannot be said.
   */
  async #isIdleForAll(record: SessionData, at: number): Promise<boolean> {
    // What is to be archived keeps its fields until then.
    if (this.options.archive !== undefined) return this.now() - at >= CLOCK_SKEW_MS
    await this.#expireOne(record, { reason: 'idle', at })
    return true
  }

  /** Ends the sessions of entries and takes them off the list. Resolves to how many ended; rejects if any could not. */
  async #endEntries(
    userId: string | number,
    entries: readonly UserEntry[],
    end: (id: string) => Promise<boolean>,
  ): Promise<number> {
    if (entries.length === 0) return 0
    const over: string[] = []
    const now = this.now()
    let ended = 0
    try {
      await inParallel(entries, async ({ id, pendingUntil }) => {
        if (await end(id)) ended++
        // It may be stored yet, by a process that ends before it looks at the list.
        else if (now < pendingUntil) return
        over.push(id)
      })
    } finally {
      await this.#forgetEntries(userId, over)
    }
    return ended
  }

  /** What is left on a list by a failure here is found to be dead by whoever reads it next. */
  async #forgetEntries(userId: string | number, ids: readonly string[]): Promise<void> {
    const { users } = this.options.store
    if (users === undefined || ids.length === 0) return
    // A failure has been told as an event.
    await this.#call('users.remove', ids[0], () => users.remove(userKey(userId), ids)).catch(() => {})
  }

  /** An entry must not be forgotten before its session ends. */
  async #prolongEntry(record: SessionData, endsAt: number): Promise<void> {
    const { users } = this.options.store
    const { id, userId, createdAt: since } = record
    if (users === undefined || userId === undefined) return
    const entry: UserEntry = { id, since, endsAt, pendingUntil: 0, isEvicted: false }
    await this.#call('users.add', id, () => users.add(userKey(userId), entry, { now: this.now() }))
  }

  #users(): UserIndex {
    const { users } = this.options.store
    if (users === undefined) throw notSupported('This needs a store with an index of users ("users")')
    return users
  }

  // --- The whole store ---

  /** Every record of the store, tombstones included; each step has its deadline. */
  async *scan(): AsyncGenerator<SessionData, void, undefined> {
    const { store } = this.options
    if (!store.scan) throw notSupported('This needs a store that can be gone through ("scan")')
    await this.#firstEpoch()
    let startedAt = 0
    let durationMs = 0
    let error: SessionErrorCode | undefined
    let step: NodeJS.Timeout | undefined
    const records = store.scan(() => step?.refresh())[Symbol.asyncIterator]()
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
      if (this.events.isHeard('storeCall')) this.events.emit('storeCall', { operation: 'scan', durationMs, error })
      step = undefined
      // Nobody waits for it: behind a step that missed its deadline it would come as late.
      records.return?.().catch(() => {})
    }
  }

  /** Whether this process may do alone what `name` stands for; always, on a store without leases. */
  async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    const { store } = this.options
    return !store.lease || this.#call('lease', undefined, () => store.lease?.(name, owner, ttlMs) ?? resolved(true))
  }

  clearExpired(): Promise<number> {
    return this.#call('clearExpired', undefined, () => this.options.store.clearExpired())
  }

  /** Notes work that goes on after its response. */
  track(work: Promise<unknown>): void {
    this.#late.add(work)
    const settled = (): boolean => this.#late.delete(work)
    work.then(settled, settled)
  }

  /** Waits for all that goes on after its response. */
  async drain(): Promise<void> {
    while (this.#late.size > 0) await Promise.allSettled(this.#late)
  }

  // --- The epoch ---

  /** Reads the epoch anew when the last reading is too old: what to wait for, or `null`. */
  #refreshEpoch(): Promise<void> | null {
    const { store } = this.options
    if (!store.epoch || performance.now() - this.#epochReadAt < EPOCH_LEASE_MS) return null
    this.#epochReading ??= this.#readEpoch().finally(() => {
      this.#epochReading = null
    })
    // Whoever waits for it gets the failure; nobody may.
    this.#epochReading.catch(() => {})
    return this.#epochReading
  }

  async #readEpoch(): Promise<void> {
    const { store } = this.options
    const askedAt = performance.now()
    let epoch = await this.#call('epoch', undefined, () => store.epoch?.() ?? resolved(0))
    // A store that has lost it must not bring revoked sessions back.
    if (epoch < this.#epoch) {
      epoch = await this.#call('epoch', undefined, () => store.epoch?.(this.#epoch) ?? resolved(0))
    }
    this.#setEpoch(epoch)
    this.#epochReadAt = askedAt
  }

  /** A session that begins with too old an epoch is over before it is used. */
  async #firstEpoch(): Promise<void> {
    const reading = this.#refreshEpoch()
    if (reading !== null) await reading
  }

  #setEpoch(epoch: number): void {
    this.#epoch = Math.max(this.#epoch, epoch)
  }

  /** `'corrupt'` has been told as an event. */
  async load(id: string): Promise<SessionData | 'corrupt' | null> {
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

  /** A session with a short timeout of its own or of its logical ID is touched more often, or activity would not count. */
  #touchIntervalMs(record: SessionData): number {
    const { touchIntervalMs, logicalIdTimeoutMs } = this.options
    const shortestMs = Math.min(record.idleTimeoutMs ?? Number.POSITIVE_INFINITY, logicalIdTimeoutMs)
    return Math.min(touchIntervalMs, shortestMs / 10)
  }

  /** When this session would end if it were used now. */
  endAfter(record: SessionData): number {
    return this.#nextEnd(record, record.effectiveNow(this.now()))
  }

  #nextEnd(record: SessionData, at: number): number {
    return Math.min(at + (record.idleTimeoutMs ?? this.options.idleTimeoutMs), record.absoluteExpiresAt)
  }

  /** How long the store keeps a record: so that its end can be told, longer than it lives. */
  #ttl(record: Pick<SessionData, 'expiresAt'>, now: number): number {
    return secondsLeft(record, now) + this.options.retentionSeconds
  }

  /** One store call with its deadline, told as `storeCall` if anybody listens: this is on the path of every request. */
  #call<T>(operation: string, id: string | undefined, start: StoreCall<T>): Promise<T> {
    return this.events.isHeard('storeCall')
      ? this.#timed(operation, id, start)
      : this.#withinDeadline(operation, id, start)
  }

  async #timed<T>(operation: string, id: string | undefined, start: StoreCall<T>): Promise<T> {
    const startedAt = performance.now()
    let error: SessionErrorCode | undefined
    try {
      return await this.#withinDeadline(operation, id, start)
    } catch (failure) {
      error = codeOf(failure)
      throw failure
    } finally {
      this.events.emit('storeCall', { operation, durationMs: performance.now() - startedAt, error })
    }
  }

  /** What the store does after the deadline is nobody's answer any more. */
  #withinDeadline<T>(operation: string, id: string | undefined, start: StoreCall<T>): Promise<T> {
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
        runWithoutSession(start, timer).then((value) => {
          clearTimeout(timer)
          timer = undefined
          resolve(value)
        }, fail)
      } catch (error) {
        fail(error)
      }
    })
  }

  #storeError(operation: string, id: string | undefined, error: unknown): SessionError {
    if (isSessionError(error, 'CORRUPT_RECORD')) return error
    const told = isSessionError(error)
      ? error
      : new SessionError('STORE_UNAVAILABLE', `The session store failed at "${operation}".`, { cause: error })
    this.events.emit('storeError', { id, operation, error: told })
    return told
  }
}

function codeOf(error: unknown): SessionErrorCode | undefined {
  return isSessionError(error) ? error.code : undefined
}

function resolved<T>(value: T): Promise<T> {
  return Promise.resolve(value)
}

function nameOf({ id, userId, logicalId }: SessionData): Pick<SessionData, 'id' | 'userId' | 'logicalId'> {
  return { id, userId, logicalId }
}

function evicted(): SessionError {
  return new SessionError(
    'SESSION_ENDED',
    'The session was ended as it began: by another login over the limit, or by a revocation of all sessions of the user.',
  )
}

function notSupported(what: string): SessionError {
  return new SessionError('NOT_SUPPORTED', `${what}: MemorySessionStore and RedisSessionStore have it.`)
}

/** Runs `task` for every item, so many at once. Runs all of them, and rejects with the first failure then. */
async function inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const failures: unknown[] = []
  const work = async (): Promise<void> => {
    while (next < items.length) {
      const item = items[next++] as T
      try {
        await task(item)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(PARALLEL, items.length) }, work))
  if (failures.length > 0) throw failures[0]
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
