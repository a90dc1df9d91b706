// The state of one session during one request: its record, its fields, and the operations on it, one at a time.
// `Session` is what the handler sees of this; the middleware asks it for the commit.

import type { CookieAttributes } from '../cookie/cookie.js'
import { type Duration, milliseconds } from '../duration.js'
import { isSessionError, SessionError } from '../errors.js'
import { type Activity, type ActivityRequest, checkActivity, recordActivity } from '../events/activity-hook.js'
import type { SessionEventMap } from '../events/events.js'
import { derivedLogicalId, newLogicalId, newToken } from '../ids.js'
import type { FoundSession, IssuedSession, Lifecycle, RegenerationParts } from '../lifecycle/lifecycle.js'
import type { MetadataChange, SessionChange, SessionContext, SessionData } from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { type FieldChanges, Fields } from './fields.js'
import type { Session } from './session.js'

/** What a session needs to know of the request it belongs to. */
export interface SessionHost {
  /** Whether a cookie can still reach the client, or why not. */
  cookieOutlook(): 'open' | 'headers-sent' | 'insecure' | 'no-response'
  /** Whether the response is over and the commit with it. */
  isResponded(): boolean
  /** Whether the request is no activity of the session. */
  readonly isPassive: boolean
  /** What an activity tells of the request. */
  activityRequest(): ActivityRequest
  /** What is to be kept of the client, for a session that begins. */
  clientContext(): SessionContext | undefined
  /** The fields that a new session begins with, encoded. */
  initialFields(): ReadonlyMap<string, string>
  /** Called when the handler looks at the session for the first time. */
  onUse(): void
  /** Puts another session in the place of this one. */
  replace(next: SessionState): void
}

/** What the commit finds; the middleware's table says what it does about it. */
export type CommitPlan =
  | { readonly status: 'empty' }
  | { readonly status: 'new' }
  | { readonly status: 'unchanged' }
  | { readonly status: 'changed'; readonly changes: FieldChanges | null }
  | { readonly status: 'destroyed' }

/** How `SessionState` begins: from a loaded session, anew, after one that is over, or with the store out of reach. */
export type SessionOrigin = FoundSession | { readonly ended: EndedSession } | 'new' | 'unavailable'

/** A logical ID that gives way to the next; see the event of that name. */
type Boundary = Pick<SessionEventMap['boundary'], 'from' | 'to' | 'cause'>

const NO_CHANGES: FieldChanges = { set: new Map(), delete: [] }
const MAX_UPDATE_ATTEMPTS = 1000

export class SessionState {
  readonly engine: Lifecycle
  readonly host: SessionHost
  readonly fields: Fields
  readonly isNew: boolean
  id: string
  /** What is stored, as far as this request knows; `null` while nothing is. */
  record: SessionData | null = null
  /** What the response has to do about the cookie. */
  cookie: 'keep' | 'set' | 'clear' = 'keep'
  /** Attributes that this response chose for the cookie. */
  cookieAttributes: CookieAttributes = {}
  /** Whether the handler looked at the session in any way. */
  wasUsed = false
  /** The session that the request's cookie names, when that is over. */
  readonly previousEnd: EndedSession | null = null
  /** Whether this request's user ended a session, though another one may have begun since. */
  isAfterLogout = false
  /** Whether the store failed at something the handler asked for. */
  hasStoreFailed = false
  /** What the handler holds of this, once it was asked for: see `sessionOf()`. */
  session: Session | undefined

  /** The secret of the cookie to set; unknown once another request has renewed it. */
  #token: string | undefined
  #promised: ReturnType<typeof newToken> | undefined
  #promisedEnd: number | undefined
  #standing: 'live' | 'unavailable' | 'ended' | 'replaced' = 'live'
  #metadata: MetadataChange = {}
  #hasToldLateChange = false
  /** Once in a request: not a token that has just been issued, nor again when another request was quicker. */
  #mayRenew = true
  /** Not yet stored; the last one leads to the logical ID of now. A stored session has one at most. */
  #boundaries: readonly Boundary[] = []
  /** The logical ID of the session that the client had before this one. */
  #previousLogicalId: string | undefined
  /** The logical ID while none is stored, once it was asked for. */
  #derivedLogicalId: string | undefined
  #mayKeepLogicalId = true
  #running: Promise<unknown> | null = null

  constructor(engine: Lifecycle, host: SessionHost, origin: SessionOrigin) {
    this.engine = engine
    this.host = host
    this.isNew = typeof origin === 'string' || 'ended' in origin
    if (typeof origin === 'string' || 'ended' in origin) {
      this.id = engine.newId()
      if (origin === 'unavailable') this.#standing = 'unavailable'
      else if (typeof origin === 'object') {
        this.previousEnd = origin.ended
        this.#previousLogicalId = origin.ended.logicalId
      }
    } else {
      this.id = origin.record.id
      this.record = origin.record
      if (origin.isCurrentToken) {
        this.#token = origin.claim.token
        if (!origin.claim.isCurrent) this.cookie = 'set'
      }
    }
    if (this.record !== null && engine.times.isLogicalIdOver(this.record) && !host.isPassive) {
      const from = this.peekLogicalId()
      this.#boundaries = [{ from, to: derivedLogicalId(from), cause: 'timeout' }]
    }
    this.fields = new Fields({
      codec: engine.options.codec,
      limits: engine.options.limits,
      // Initial fields are as good as stored: reading them changes nothing, and only a change stores them.
      stored: this.record?.fields ?? (origin === 'unavailable' ? undefined : host.initialFields()),
      onCorrupt: (field, cause) => engine.events.emit('corruptRecord', { id: this.id, field, cause }),
    })
  }

  /** The handler looks at the session. */
  use(): void {
    if (this.wasUsed) return
    this.wasUsed = true
    this.host.onUse()
  }

  // --- Fields ---

  set(name: string, value: unknown): void {
    this.#requireWritable()
    this.fields.set(name, value)
    this.#noticeLateChange()
  }

  delete(name: string): boolean {
    this.#requireWritable()
    const existed = this.fields.delete(name)
    if (existed) this.#noticeLateChange()
    return existed
  }

  clear(): void {
    this.#requireWritable()
    this.fields.clear()
    this.#noticeLateChange()
  }

  /**
   * Reads, modifies and writes one field as one atomic step: when another request got in between, `modify` is called
   * again with what that one wrote.
   */
  update(name: string, modify: (value: unknown) => unknown): Promise<unknown> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      if (this.record === null) {
        this.#requireCookie()
        const value = await modify(this.fields.get(name))
        this.fields.set(name, value)
        this.#noticeLateChange()
        return value
      }
      if (this.fields.isChanged(name)) await this.#store()
      await this.#keepLogicalId()
      try {
        return await this.#updateStored(name, modify)
      } catch (error) {
        // What update() did not store, the commit must not store either: it would overwrite what others wrote.
        this.fields.refresh(name, this.record.fields)
        throw error
      }
    })
  }

  // --- The logical ID ---

  /** The logical ID. Asking for it keeps it, if need be in a session that would not be stored otherwise. */
  logicalId(): string {
    const isKept = this.#boundaries.length > 0 || this.record?.logicalId !== undefined
    if (!isKept && this.#standing === 'live' && this.#canKeepLogicalId()) {
      this.use()
      this.#startLogicalId()
    }
    return this.peekLogicalId()
  }

  /** As `logicalId()`, for those who must not change anything: the same ID, kept or not. */
  peekLogicalId(): string {
    this.engine.usesLogicalIds = true
    return this.#boundaries.at(-1)?.to ?? this.record?.logicalId ?? this.#derived()
  }

  /** A new logical ID for a session that begins again: its fields go, the user stays. */
  restart(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      const initial = this.host.initialFields()
      const { codec } = this.engine.options
      if (this.record === null) this.#requireCookie()
      else await this.#keepLogicalId()
      this.fields.clear()
      for (const [name, text] of initial) this.fields.set(name, codec.decode(text))
      if (this.record === null) {
        this.#turnLogicalId('restart')
        return
      }
      try {
        const changes = this.fields.changes() ?? NO_CHANGES
        await this.#crossBoundary({ from: this.peekLogicalId(), to: newLogicalId(), cause: 'restart' }, changes)
        this.fields.committed(changes, this.record.fields)
      } catch (error) {
        // The commit may store this session yet, and must not begin it again by half.
        this.fields.reset(this.record.fields)
        throw error
      }
    })
  }

  /** A new logical ID for what comes next. When another request has just done the same, it is that one's. */
  completeWorkflow(): Promise<string> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      if (this.record === null) {
        this.#requireCookie()
        return this.#turnLogicalId('completed')
      }
      const from = this.peekLogicalId()
      await this.#store()
      await this.#crossBoundary({ from, to: newLogicalId(), cause: 'completed' })
      return this.peekLogicalId()
    })
  }

  /** Tells the activity hook. Without `keepsLogicalId`, nothing is stored for it. */
  recordActivity(
    type: string,
    details: Record<string, unknown> | undefined,
    { keepsLogicalId } = { keepsLogicalId: true },
  ): Activity | undefined {
    checkActivity(type, details)
    const { engine, host, record } = this
    if (engine.options.activity === undefined) return undefined
    return recordActivity(engine, {
      type,
      sessionId: this.id,
      logicalId: keepsLogicalId ? this.logicalId() : this.peekLogicalId(),
      userId: record?.userId,
      details,
      request: host.activityRequest(),
    })
  }

  // --- Life ---

  /** Stores what has changed, now. */
  save(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      await this.#store()
    })
  }

  /** Reads the session again and forgets what was changed since. */
  reload(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      const record = this.record && (await this.engine.reload(this.record.id))
      if (this.record !== null && record === null) throw this.#ended()
      if (record?.tokenHash !== this.record?.tokenHash) this.#token = undefined
      this.record = record
      this.#metadata = {}
      const stored = record?.logicalId
      // What this request was about to do, another one has done.
      if (stored !== undefined && stored !== this.#boundaries[0]?.from) this.#boundaries = []
      this.fields.reset(record?.fields ?? new Map())
    })
  }

  touch(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      // Before the touch: by the time of last access the next request tells whether the logical ID is over.
      await this.#keepLogicalId()
      if (this.record !== null) await this.#touch(this.record)
    })
  }

  renew(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      // Who came with the token before the last renewal is one of several that renew at once, only later.
      if (this.record === null || this.#token === undefined) return
      this.#requireCookie()
      await this.#store()
      const renewed = await this.engine.renew(this.record, this.host.isPassive)
      if (renewed === 'ended') throw this.#ended()
      this.#renewed(renewed)
    })
  }

  /** Gives this session a new ID and token, with all or some of its fields. */
  regenerate(keep: 'all' | readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireCookie()
      this.#requireWritable()
      const previousId = this.id
      if (this.record === null) {
        if (keep !== 'all') for (const name of this.fields.names()) if (!keep.includes(name)) this.fields.delete(name)
        this.id = this.engine.newId()
        return
      }
      await this.#regenerate({ keep, userId: keep === 'all' ? this.record.userId : undefined, isLogin: false })
      this.engine.events.emit('regenerated', { ...this.#names(), previousId })
    })
  }

  /** Ends this session and puts an empty one with a new ID and token in its place. */
  replaceWithEmpty(): Promise<SessionState> {
    return this.#inTurn(async () => {
      this.#requireCookie()
      const next = new SessionState(this.engine, this.host, 'new')
      if (this.#standing === 'unavailable' || this.#standing === 'replaced') this.#requireWritable()
      const from = this.#storedLogicalId()
      if (this.record !== null && this.#standing === 'live') {
        const to = from && newLogicalId()
        const context = this.host.clientContext()
        const set = this.host.initialFields()
        const issued = await this.engine.regenerate(this.record, {
          keep: [],
          set,
          isLogin: false,
          isFresh: true,
          logicalId: to,
          context,
        })
        if (issued === null) throw this.#ended()
        next.#issued(issued)
        next.fields.reset(issued.record.fields)
        this.engine.events.emit('regenerated', { ...next.#names(), previousId: this.id })
        if (to !== undefined) next.#tellBoundary({ from, to, cause: 'start' })
      } else next.cookie = this.cookie
      this.#handOver(next)
      return next
    })
  }

  login(userId: string | number): Promise<void> {
    return this.#inTurn(async () => {
      checkUserId(userId)
      this.#requireWritable()
      this.#requireCookie()
      const previousId = this.record?.id
      if (this.record === null) {
        const before = this.#metadata
        this.#metadata = { ...before, userId }
        try {
          await this.#create()
        } catch (error) {
          // The commit may store this session yet, and must not log anyone in then.
          this.#metadata = before
          throw error
        }
      } else {
        await this.#regenerate({ keep: 'all', userId, isLogin: true, context: this.host.clientContext() })
      }
      this.engine.events.emit('login', { ...this.#names(), previousId, userId })
    })
  }

  reauthenticate(): Promise<void> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      this.#requireCookie()
      const previousId = this.id
      const userId = this.record?.userId
      if (userId === undefined) {
        throw new SessionError(
          'INVALID_ARGUMENT',
          'reauthenticate() needs a user who is logged in; call login() first.',
        )
      }
      await this.#regenerate({ keep: 'all', userId, isLogin: true, context: this.host.clientContext() })
      this.engine.events.emit('reauthenticated', { ...this.#names(), previousId, userId })
    })
  }

  logout(): Promise<SessionState> {
    return this.#inTurn(async () => {
      this.#requireWritable()
      const next = new SessionState(this.engine, this.host, 'new')
      next.cookie = 'clear'
      next.isAfterLogout = true
      if (this.record !== null) {
        const names = this.#names()
        await this.engine.end(this.record, { reason: 'logout' })
        this.engine.events.emit('logout', names)
      } else await this.#endAgain()
      this.#handOver(next)
      return next
    })
  }

  destroy(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#standing === 'replaced' || this.#standing === 'unavailable') this.#requireWritable()
      if (this.#standing !== 'live') return
      if (this.record !== null) {
        const names = this.#names()
        await this.engine.end(this.record, { reason: 'destroyed' })
        this.engine.events.emit('destroyed', names)
      } else await this.#endAgain()
      this.#standing = 'ended'
      this.cookie = 'clear'
      this.isAfterLogout = true
    })
  }

  /** Who asks again may have been told that it failed: a store that waits for replicas says only now that they have it. */
  async #endAgain(): Promise<void> {
    const reason = this.previousEnd?.end.reason
    if (this.previousEnd && (reason === 'logout' || reason === 'destroyed')) {
      await this.engine.end(this.previousEnd, { reason })
    }
  }

  async setExpiry(duration: Duration): Promise<void> {
    this.chooseExpiry(milliseconds(duration, 'setExpiry()'))
    return this.save()
  }

  /** Notes this session's own idle timeout, to be stored with the next write. `null` goes back to the default. */
  chooseExpiry(ms: number | null, persistent?: boolean): void {
    this.#requireWritable()
    const { longestExpiryMs } = this.engine.options
    if (ms !== null && ms > longestExpiryMs) {
      throw new SessionError(
        'INVALID_ARGUMENT',
        `setExpiry() and cookie.maxAge: the preset 'aal3' allows ${longestExpiryMs / 60_000} minutes at most.`,
      )
    }
    const { createdAt, absoluteExpiresAt } = this.record ?? this.#newTimes()
    // Counted from creation: asking for it in every request must not make a session that never ends.
    this.#metadata = {
      ...this.#metadata,
      idleTimeoutMs: ms ?? undefined,
      ...(ms !== null && { absoluteExpiresAt: Math.max(absoluteExpiresAt, createdAt + ms) }),
      ...(persistent !== undefined && { persistent }),
    }
    this.#noticeLateChange()
  }

  // --- For the middleware ---

  /** Whether an operation that the handler did not wait for is under way. */
  get running(): Promise<unknown> | null {
    return this.#running
  }

  /** @throws {SessionError} when a field's value can no longer be stored. */
  plan(): CommitPlan {
    switch (this.#standing) {
      case 'unavailable':
      case 'replaced':
        return { status: 'empty' }
      case 'ended':
        return { status: 'destroyed' }
      case 'live': {
        const changes = this.fields.changes()
        if (this.record === null) {
          return changes === null && this.#boundaries.length === 0 ? { status: 'empty' } : { status: 'new' }
        }
        const isChanged = changes !== null || Object.keys(this.#metadata).length > 0
        return isChanged ? { status: 'changed', changes } : { status: 'unchanged' }
      }
    }
  }

  /** Stores what `plan()` has just found. */
  commit(plan: CommitPlan): Promise<void> {
    return this.#inTurn(() => this.#store(plan))
  }

  /** Gives the session a new token, because its time has come. Does nothing when another request has just done so. */
  renewInPassing(): Promise<void> {
    return this.#inTurn(() => this.#renewInPassing())
  }

  /** Whether a logical ID began with this request and is to be stored in the session. */
  isLogicalIdDue(): boolean {
    return this.record !== null && this.#boundaries.length > 0 && this.#mayKeepLogicalId
  }

  /** Stores a logical ID that began with this request. Once: if that fails, the next request begins the same one. */
  keepLogicalIdInPassing(): Promise<void> {
    return this.#inTurn(() => {
      this.#mayKeepLogicalId = false
      return this.#keepLogicalId()
    })
  }

  /** Whether the response has something to do even if the handler never looks at the session. */
  mayCommit(): boolean {
    return this.cookie !== 'keep' || this.isLogicalIdDue() || this.isTouchDue() || this.isRenewalDue()
  }

  isTouchDue(): boolean {
    return this.record !== null && !this.host.isPassive && this.engine.times.isTouchDue(this.record)
  }

  /** Whether the token has served its time, and the response can carry another one. */
  isRenewalDue(): boolean {
    return (
      this.record !== null &&
      this.#token !== undefined &&
      this.#mayRenew &&
      this.engine.times.isRenewalDue(this.record) &&
      this.host.cookieOutlook() === 'open'
    )
  }

  /** Whether a new session's cookie can reach the client, or was promised to it. An insecure connection throws later. */
  canBeCreated(): boolean {
    return this.#promised !== undefined || this.host.cookieOutlook() !== 'headers-sent'
  }

  /** Decides on the cookie before anything is stored, for a response that will not wait. */
  promiseCookie(plan: CommitPlan): void {
    if (plan.status === 'new') {
      this.#requireCookie()
      this.#promised ??= newToken()
      this.#token = this.#promised.token
      this.cookie = 'set'
    } else if (this.record !== null && (plan.status === 'changed' || this.isLogicalIdDue() || this.isTouchDue())) {
      this.#promisedEnd = this.engine.times.endAfter(this.record.with(this.#metadata))
      if (this.isPersistent() || 'persistent' in this.#metadata) this.resendCookie()
    }
  }

  /** What the cookie must hold, or `null` when this request does not know the token. */
  cookieContent(): { id: string; token: string; maxAgeSeconds?: number } | null {
    if (this.#token === undefined) return null
    const content = { id: this.id, token: this.#token }
    if (!this.isPersistent()) return content
    const left = Math.ceil(((this.#promisedEnd ?? this.expiresAt()) - this.engine.now()) / 1000)
    return { ...content, maxAgeSeconds: Math.max(1, left) }
  }

  isPersistent(): boolean {
    return this.#metadata.persistent ?? this.record?.persistent ?? this.engine.options.cookie.persistent
  }

  /** The idle timeout of this session, in ms. */
  get idleTimeoutMs(): number {
    const own = 'idleTimeoutMs' in this.#metadata ? this.#metadata.idleTimeoutMs : this.record?.idleTimeoutMs
    return own ?? this.engine.options.idleTimeoutMs
  }

  /** When the session ends if nothing more happens, in ms since the epoch. */
  expiresAt(): number {
    if (this.record !== null && !('idleTimeoutMs' in this.#metadata)) return this.record.expiresAt
    const now = this.engine.now()
    const { absoluteTimeoutMs } = this.engine.options
    const absolute = this.#metadata.absoluteExpiresAt ?? this.record?.absoluteExpiresAt ?? now + absoluteTimeoutMs
    return Math.min(now + this.idleTimeoutMs, absolute)
  }

  /** Sends the cookie of a known session again, so that a change of its attributes takes effect. */
  resendCookie(): void {
    if (this.record !== null && this.#token !== undefined && this.cookie === 'keep') this.cookie = 'set'
  }

  tellLateChange(reason: 'after-response' | 'headers-sent'): void {
    if (this.#hasToldLateChange) return
    this.#hasToldLateChange = true
    this.engine.events.emit('lateChange', { id: this.id, reason })
  }

  // --- Inside ---

  #newTimes(): { createdAt: number; absoluteExpiresAt: number } {
    const now = this.engine.now()
    return { createdAt: now, absoluteExpiresAt: now + this.engine.options.absoluteTimeoutMs }
  }

  async #updateStored(name: string, modify: (value: unknown) => unknown): Promise<unknown> {
    let record = this.record as SessionData
    for (let attempt = 1; attempt <= MAX_UPDATE_ATTEMPTS; attempt++) {
      const value = await modify(this.fields.get(name))
      this.fields.set(name, value)
      const write = this.fields.changeOf(name)
      const expect = { field: name, text: record.fields.get(name) }
      const change = this.engine.change(record, { ...write, expect, isPassive: this.host.isPassive })
      const result = await this.engine.update(record, change)
      if (result.status === 'updated') {
        this.#applied(change, result.record)
        return value
      }
      if (result.status !== 'conflict') throw this.#ended()
      this.engine.events.emit('conflict', { id: record.id, userId: record.userId, field: name })
      record = record.withField(name, result.text)
      this.record = record
      this.fields.refresh(name, record.fields)
    }
    throw new SessionError('UPDATE_CONFLICT', `update() lost ${MAX_UPDATE_ATTEMPTS} races for one field in a row.`)
  }

  async #store(plan = this.plan()): Promise<void> {
    if (plan.status === 'new') return this.#create()
    if (plan.status !== 'changed' || this.record === null) return
    const { changes } = plan
    await this.#keepLogicalId()
    const metadata = Object.keys(this.#metadata).length > 0 ? this.#metadata : undefined
    if (changes === null && metadata === undefined) return
    const { isPassive } = this.host
    const change = this.engine.change(this.record, { set: changes?.set, delete: changes?.delete, metadata, isPassive })
    const result = await this.engine.update(this.record, change)
    if (result.status !== 'updated') throw this.#ended()
    this.#applied(change, result.record)
  }

  /** Stores a logical ID that began with this request, unless another request was quicker: one store call more. */
  async #keepLogicalId(): Promise<void> {
    const [boundary] = this.#boundaries
    if (this.record === null || boundary === undefined) return
    await this.#crossBoundary(boundary)
    this.#boundaries = []
  }

  /**
   * Changes the logical ID of the stored session, and tells so. Does nothing when another request has left `from` already;
   * with `changes` to fields, it leaves the one that this request went to.
   */
  async #crossBoundary(boundary: Boundary, changes?: FieldChanges): Promise<void> {
    const { to, cause } = boundary
    let { from } = boundary
    for (let attempt = 1; attempt <= MAX_UPDATE_ATTEMPTS; attempt++) {
      const record = this.record as SessionData
      const { logicalId: stored } = record
      if (changes === undefined && stored !== undefined && stored !== from) return
      const parts = { ...changes, metadata: { logicalId: to }, expect: { logicalId: stored } }
      const change = this.engine.change(record, { ...parts, isPassive: this.host.isPassive })
      const result = await this.engine.update(record, change)
      if (result.status === 'updated') {
        this.record = result.record
        if (this.engine.times.movesCookie(record, this.record)) this.#moveCookie()
        this.#tellBoundary({ from, to, cause })
        return
      }
      if (result.status !== 'conflict') throw this.#ended()
      this.record = record.with({ logicalId: result.text })
      if (changes !== undefined) from = result.text ?? from
    }
    throw new SessionError('UPDATE_CONFLICT', `The logical ID was changed ${MAX_UPDATE_ATTEMPTS} times meanwhile.`)
  }

  /** For a session that is not stored: its next write tells so. */
  #turnLogicalId(cause: Boundary['cause']): string {
    if (this.#boundaries.length === 0) this.#startLogicalId()
    const to = newLogicalId()
    this.#boundaries = [...this.#boundaries, { from: this.peekLogicalId(), to, cause }]
    return to
  }

  #startLogicalId(): void {
    this.#boundaries = [{ from: this.#previousLogicalId, to: this.#derived(), cause: 'start' }]
  }

  #tellBoundary(boundary: Boundary): void {
    this.engine.events.emit('boundary', { id: this.id, userId: this.record?.userId, ...boundary })
  }

  /** Whether a session that is created needs a logical ID that nobody asked for: to go on with what was, or is, known of. */
  #mustStartLogicalId(): boolean {
    if (this.#previousLogicalId !== undefined) return true
    // regenerate() has changed the session ID since.
    return this.#derivedLogicalId !== undefined && this.#derivedLogicalId !== derivedLogicalId(this.id)
  }

  /** What all requests of one session agree on. */
  #derived(): string {
    this.#derivedLogicalId ??= derivedLogicalId(this.id)
    return this.#derivedLogicalId
  }

  /** The logical ID that the next session of this client follows. One that was never stored is told of by nothing. */
  #storedLogicalId(): string | undefined {
    return this.record?.logicalId ?? this.#previousLogicalId ?? this.#boundaries.at(-1)?.to
  }

  #canKeepLogicalId(): boolean {
    return this.record === null ? this.host.cookieOutlook() === 'open' : !this.host.isResponded()
  }

  #names(): { id: string; userId: string | number | undefined; logicalId: string | undefined } {
    const logicalId = this.#boundaries.at(-1)?.to ?? this.record?.logicalId
    return { id: this.id, userId: this.record?.userId, logicalId }
  }

  async #renewInPassing(): Promise<void> {
    this.#mayRenew = false
    const renewed = await this.engine.renew(this.record as SessionData, this.host.isPassive)
    if (renewed === 'ended') throw this.#ended()
    this.#renewed(renewed)
  }

  #renewed(issued: IssuedSession | null): void {
    if (issued !== null) this.#issued(issued)
    // Another request renewed it a moment ago, and its response carries the new cookie, which the old must not follow.
    else this.#token = undefined
  }

  /** Brings this request's view up to date with a change that the store has applied. */
  #applied(change: SessionChange, after: SessionData): void {
    const before = this.record as SessionData
    this.record = after
    if (change.metadata === this.#metadata) this.#metadata = {}
    const { set = NO_CHANGES.set, delete: removed = NO_CHANGES.delete } = change
    this.fields.committed({ set, delete: removed }, this.record.fields)
    // One that stops being persistent is sent as well, to take the end from the browser's copy.
    if (change.metadata && 'persistent' in change.metadata) this.resendCookie()
    else if (change.metadata || this.engine.times.movesCookie(before, this.record)) this.#moveCookie()
  }

  async #create(): Promise<void> {
    if (this.#promised === undefined) this.#requireCookie()
    const changes = this.fields.changes() ?? NO_CHANGES
    if (this.#boundaries.length === 0 && this.#mustStartLogicalId()) this.#startLogicalId()
    const boundaries = this.#boundaries
    const logicalId = boundaries.at(-1)?.to
    const issued = await this.engine.create({
      id: this.id,
      fields: this.fields.all(changes),
      token: this.#promised,
      metadata: logicalId === undefined ? this.#metadata : { ...this.#metadata, logicalId },
      context: this.host.clientContext(),
    })
    this.#metadata = {}
    // The handler may have asked for one meanwhile.
    this.#boundaries = this.#boundaries.slice(boundaries.length)
    this.#issued(issued)
    for (const boundary of boundaries) this.#tellBoundary(boundary)
    this.fields.committed(changes, issued.record.fields)
  }

  async #regenerate(parts: Omit<RegenerationParts, 'set' | 'delete'>): Promise<void> {
    await this.#keepLogicalId()
    const changes = this.fields.changes() ?? NO_CHANGES
    const isKept = (name: string): boolean => parts.keep === 'all' || parts.keep.includes(name)
    const set = new Map([...changes.set].filter(([name]) => isKept(name)))
    const record = (this.record as SessionData).with(this.#metadata)
    // One that follows from the session ID would change with it.
    const isStarting = record.logicalId === undefined && this.engine.usesLogicalIds
    const logicalId = isStarting ? this.#derived() : undefined
    const issued = await this.engine.regenerate(record, { ...parts, set, delete: changes.delete, logicalId })
    if (issued === null) throw this.#ended()
    this.#metadata = {}
    this.#issued(issued)
    if (logicalId !== undefined) this.#tellBoundary({ from: this.#previousLogicalId, to: logicalId, cause: 'start' })
    if (parts.keep === 'all') this.fields.committed(changes, issued.record.fields)
    else this.fields.reset(issued.record.fields)
  }

  async #touch(record: SessionData): Promise<void> {
    const touched = await this.engine.touch(record)
    if (touched === null) throw this.#ended()
    this.record = touched
    this.#moveCookie()
  }

  #moveCookie(): void {
    if (this.isPersistent()) this.resendCookie()
  }

  #issued({ record, token }: IssuedSession): void {
    this.record = record
    this.id = record.id
    this.#derivedLogicalId = undefined
    this.#token = token
    this.#mayRenew = false
    this.cookie = 'set'
  }

  #handOver(next: SessionState): void {
    next.use()
    next.cookieAttributes = this.cookieAttributes
    next.isAfterLogout ||= this.isAfterLogout
    next.#previousLogicalId = this.#storedLogicalId()
    this.#standing = 'replaced'
    this.host.replace(next)
  }

  /** The session ended under this request. Its cookie is left alone: the client may hold a newer one by now. */
  #ended(): SessionError {
    this.#standing = 'ended'
    return new SessionError(
      'SESSION_ENDED',
      'The session ended while this request was under way; what the request changed was not stored.',
    )
  }

  #requireWritable(): void {
    switch (this.#standing) {
      case 'live':
        return
      case 'unavailable':
        throw new SessionError('SESSION_READ_ONLY', 'The session store cannot be reached, so the session is read-only.')
      case 'ended':
        throw new SessionError('SESSION_ENDED', 'This session has ended; regenerate() starts a new one.')
      case 'replaced':
        throw new SessionError('SESSION_ENDED', 'This session has been replaced; use req.session for the new one.')
    }
  }

  #requireCookie(): void {
    switch (this.host.cookieOutlook()) {
      case 'open':
        return
      case 'headers-sent':
        throw new SessionError(
          'HEADERS_SENT',
          'The response headers have been sent, so no session cookie can be set: do this, or call save(), before the first byte.',
        )
      case 'no-response':
        throw new SessionError(
          'HEADERS_SENT',
          'There is no response that could carry a session cookie: create the session in an HTTP request first.',
        )
      case 'insecure':
        throw new SessionError(
          'INSECURE_CONNECTION',
          'The session cookie is Secure, but this request came over plain HTTP. Behind a proxy that ends TLS, set ' +
            "app.set('trust proxy', 1) (without Express: trustProxy: true); for plain HTTP, set cookie: { secure: false }.",
        )
    }
  }

  /** Tells of a change after the response, unless a save() that is called in the same turn stores it. */
  #noticeLateChange(): void {
    if (this.host.isResponded()) setImmediate(() => void this.#tellUnlessStored())
  }

  async #tellUnlessStored(): Promise<void> {
    await this.#running?.catch(ignore)
    const isModified = this.fields.isModified() || Object.keys(this.#metadata).length > 0
    if (this.#standing === 'live' && isModified) this.tellLateChange('after-response')
  }

  /** One operation after the other, in the order of the calls. */
  #inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const turn = this.#running === null ? operation() : this.#running.then(operation, operation)
    this.#running = turn
    const settled = (): void => {
      if (this.#running === turn) this.#running = null
    }
    turn.then(settled, (error) => {
      this.hasStoreFailed ||= isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT')
      settled()
    })
    return turn
  }
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function checkUserId(userId: unknown): void {
  const isValid =
    (typeof userId === 'string' && userId !== '') || (typeof userId === 'number' && Number.isFinite(userId))
  if (!isValid) {
    throw new SessionError('INVALID_ARGUMENT', 'A user ID is text that is not empty, or a finite number.')
  }
}

function ignore(): void {}
