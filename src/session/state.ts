// The state of one session during one request: its record, its fields, and the queue of operations on it. What is done with it
// stands beside it, as functions of a state: commit.ts, life.ts, logical-id.ts, response-cookie.ts.

import type { CookieAttributes } from '../cookie/cookie.js'
import { isStoreFault, SessionError } from '../errors.js'
import type { ActivityRequest } from '../events/activity-hook.js'
import type { SessionEventMap } from '../events/events.js'
import { derivedLogicalId, type IssuedToken } from '../ids.js'
import type { FoundSession } from '../lifecycle/finding.js'
import type { Lifecycle } from '../lifecycle/lifecycle.js'
import type { ResolvedExpiry } from '../options/expiry-options.js'
import { newBinding } from '../record/binding.js'
import type { MetadataChange } from '../record/changes.js'
import { isHiddenField, requireOwnField } from '../record/hidden-fields.js'
import type { SessionContext, SessionData } from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { isPromise, type Soon } from '../soon.js'
import { Fields } from './fields.js'

/** What a session needs to know of the request it belongs to. */
export interface SessionHost {
  /** Whether a cookie can still reach the client, or why not. */
  cookieOutlook(): 'open' | 'headers-sent' | 'insecure' | 'insecure-by-proxy' | 'no-response'
  /** Whether a cookie of this response is Secure. */
  readonly isSecure: boolean
  /** Whether the client came over HTTPS. */
  isHttps(): boolean
  /** Whether the response is over and the commit with it. */
  isResponded(): boolean
  /** The ID of a session that begins, when that comes from outside; else `undefined`. */
  newId(): string | undefined
  /** Whether the request is no activity of the session. */
  isPassive: boolean
  /** Called before what the response has to store is decided. */
  commitListeners?: (() => void)[] | undefined
  /** Called when all is stored and before the head of the response leaves. */
  headListeners?: (() => void)[] | undefined
  /** What an activity tells of the request. */
  activityRequest(): ActivityRequest
  /** What is to be kept of the client, for a session that begins. */
  clientContext(): SessionContext | undefined
  /** The fields that a new session begins with, encoded. */
  /** @param binding what they are bound to, where the codec binds texts */
  initialFields(binding?: string): ReadonlyMap<string, string>
  /** Called when the handler looks at the session for the first time. */
  onUse(): void
  /** Called when an operation has failed: whoever waits for it gets the error. */
  onFailure(error: unknown): void
  /** Puts another session in the place of this one. */
  replace(next: SessionState): void
  /** The `Clear-Site-Data` of a response that ends the session, where the options say nothing. */
  clearAfterLogout?: string
}

/** How `SessionState` begins: from a loaded session, anew, after one that is over, or with the store out of reach. */
export type SessionOrigin = FoundSession | { readonly ended: EndedSession } | 'new' | 'unavailable'

/** A logical ID that gives way to the next; see the event of that name. */
export type Boundary = Pick<SessionEventMap['boundary'], 'from' | 'to' | 'cause'>

/** What this request knows of logical IDs besides the stored one. Most requests know nothing; see logical-id.ts. */
export interface LogicalIdNotes {
  /** Not yet stored; the last one leads to the logical ID of now. A stored session has one at most. */
  boundaries: readonly Boundary[]
  /** The logical ID of the session that the client had before this one. */
  previous: string | undefined
  /** The logical ID while none is stored, once it was asked for. */
  derived: string | undefined
  /** Whether storing it may be tried in passing. Once: if that fails, the next request begins the same one. */
  mayKeepInPassing: boolean
}

/** Where the state of a session is found behind its proxy. Not exported from the package. */
export const STATE: unique symbol = Symbol('sojourn.state')

/** Races for one value that an operation may lose in a row. */
export const MAX_RACES = 1000

/** No metadata to be stored. Always this object, so that asking costs one comparison. */
export const NO_METADATA: MetadataChange = Object.freeze({})

export class SessionState {
  readonly lifecycle: Lifecycle
  readonly host: SessionHost
  readonly fields: Fields
  readonly isNew: boolean
  id: string
  /** What is stored, as far as this request knows; `null` while nothing is. */
  record: SessionData | null = null
  /** Whether that may be a copy, and another one be stored by now: see `FoundSession`. */
  isCopy = false
  /** Metadata to be stored with the next write. */
  metadata: MetadataChange = NO_METADATA
  standing: 'live' | 'unavailable' | 'ended' | 'replaced' = 'live'
  /** The session that the request's cookie names, when that is over. */
  readonly previousEnd: EndedSession | null = null
  /** `null` until there is something to note. */
  logical: LogicalIdNotes | null = null

  /** What the response has to do about the cookie. */
  cookie: 'keep' | 'set' | 'clear' = 'keep'
  /** Attributes that this response chose for the cookie. */
  cookieAttributes: CookieAttributes = {}
  /** How long the session and its cookie live, when this request chose that (0: it is over): goes over to a session that follows. */
  expiryChoice: ResolvedExpiry | null = null
  /** Private, and behind methods: `inspect()` shows all else, also what getters give. */
  #token: string | undefined
  #promised: IssuedToken | undefined
  /** The end of the session that a response which does not wait has told the client. */
  promisedEnd: number | undefined

  /** Whether the handler looked at the session in any way. */
  wasUsed = false
  /** Whether this request's user ended a session, though another one may have begun since. */
  isAfterLogout = false
  /** Whether the store failed at something the handler asked for. */
  hasStoreFailed = false
  /** Whether a new session is to be stored although it is empty. */
  isWanted = false
  /** Whether this request has moved the idle timeout. The commit does so once in a response, however short the touch interval. */
  hasTouched = false
  /** Once in a request: not a token that has just been issued, nor again when another request was quicker. */
  mayRenew = true
  /** Whether this request is the first to show that the client has the token of the last renewal. */
  confirmsToken = false
  /** An operation that is under way, whether or not the handler waits for it. */
  running: Promise<unknown> | null = null
  /** What the handler holds of this, once it was asked for: see `sessionOf()`. */
  session: object | undefined
  /** An operation that waits for nothing is under way. */
  #isAtWork = false
  #hasToldLateChange = false

  constructor(lifecycle: Lifecycle, host: SessionHost, origin: SessionOrigin) {
    this.lifecycle = lifecycle
    this.host = host
    this.isNew = typeof origin === 'string' || 'ended' in origin
    if (typeof origin === 'string' || 'ended' in origin) {
      this.id = host.newId() ?? lifecycle.newId()
      if (origin === 'unavailable') this.standing = 'unavailable'
      else if (typeof origin === 'object') {
        this.previousEnd = origin.ended
        if (origin.ended.logicalId !== undefined) this.logicalNotes().previous = origin.ended.logicalId
      }
    } else {
      this.id = origin.record.id
      this.record = origin.record
      this.isCopy = origin.isCopy
      if (origin.isCurrentToken) {
        this.#token = origin.claim.token
        this.confirmsToken = origin.record.previousToken?.sealed !== undefined
        if (!origin.claim.isCurrent) this.cookie = 'set'
      } else if (origin.nextToken !== undefined) {
        // The response with the new cookie was lost, or is still on its way: either way this is the same one again.
        this.#token = origin.nextToken
        this.mayRenew = false
        this.cookie = 'set'
      }
      if (lifecycle.times.isLogicalIdOver(origin.record) && !host.isPassive) {
        const from = origin.record.logicalId ?? derivedLogicalId(this.id)
        this.logicalNotes().boundaries = [{ from, to: derivedLogicalId(from), cause: 'timeout' }]
      }
    }
    const { codec, limits } = lifecycle.options
    const binding = this.record === null ? newBinding(codec) : undefined
    this.fields = new Fields({
      codec,
      binding,
      limits,
      // Initial fields are as good as stored: reading them changes nothing, and only a change stores them.
      stored: this.record?.fields ?? (origin === 'unavailable' ? undefined : host.initialFields(binding)),
      clock: lifecycle,
      onCorrupt: (field, cause) => lifecycle.events.emit('corruptRecord', { id: this.id, field, cause }),
    })
  }

  /** The secret of the cookie to set; unknown once another request has renewed it. */
  token(): string | undefined {
    return this.#token
  }

  setToken(token: string | undefined): void {
    this.#token = token
  }

  /** The token of a session to be created that a response which does not wait has told the client. */
  promised(): IssuedToken | undefined {
    return this.#promised
  }

  promiseToken(): void {
    this.#promised ??= this.lifecycle.newToken()
    this.#token = this.#promised.token
  }

  /** The handler looks at the session. */
  use(): void {
    if (this.wasUsed) return
    this.wasUsed = true
    this.host.onUse()
  }

  logicalNotes(): LogicalIdNotes {
    this.logical ??= { boundaries: [], previous: undefined, derived: undefined, mayKeepInPassing: true }
    return this.logical
  }

  // --- Fields of the application ---

  get(name: string): unknown {
    return isHiddenField(name) ? undefined : this.fields.get(name)
  }

  has(name: string): boolean {
    return !isHiddenField(name) && this.fields.has(name)
  }

  set(name: string, value: unknown, endsAt?: number): void {
    requireOwnField(name)
    this.setAny(name, value, endsAt)
  }

  delete(name: string): boolean {
    requireOwnField(name)
    return this.deleteAny(name)
  }

  /** Of a field of the application's or of a feature. */
  setAny(name: string, value: unknown, endsAt?: number): void {
    this.requireWritable()
    this.fields.set(name, value, endsAt)
    this.noticeLateChange()
  }

  deleteAny(name: string): boolean {
    this.requireWritable()
    const existed = this.fields.delete(name)
    if (existed) this.noticeLateChange()
    return existed
  }

  clear(): void {
    this.requireWritable()
    this.fields.clear()
    this.noticeLateChange()
  }

  // --- Changes that come too late ---

  /** Tells of a change after the response, unless a save() that is called in the same turn stores it. */
  noticeLateChange(): void {
    if (this.host.isResponded()) setImmediate(() => void this.#tellUnlessStored())
  }

  async #tellUnlessStored(): Promise<void> {
    await this.running?.catch(ignore)
    const isModified = this.fields.isModified() || this.metadata !== NO_METADATA
    if (this.standing === 'live' && isModified) this.tellLateChange('after-response')
  }

  tellLateChange(reason: 'after-response' | 'headers-sent'): void {
    if (this.#hasToldLateChange) return
    this.#hasToldLateChange = true
    this.lifecycle.events.emit('lateChange', { id: this.id, reason })
  }

  // --- What operations begin and end with ---

  /** One operation after the other, in the order of the calls. */
  inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const before = this.running ?? (this.#isAtWork ? Promise.resolve() : null)
    return this.#follow(before === null ? operation() : before.then(operation, operation))
  }

  /** As `inTurn()`, for what may be done at once when nothing else is under way. Throws where that rejects. */
  inTurnOrAtOnce<T>(operation: () => Soon<T>): Soon<T> {
    if (this.running !== null || this.#isAtWork) return this.inTurn(async () => operation())
    this.#isAtWork = true
    try {
      const done = operation()
      return isPromise(done) ? this.#follow(done) : done
    } catch (error) {
      this.hasStoreFailed ||= isStoreFault(error)
      this.host.onFailure(error)
      throw error
    } finally {
      this.#isAtWork = false
    }
  }

  #follow<T>(turn: Promise<T>): Promise<T> {
    this.running = turn
    const settled = (): void => {
      if (this.running === turn) this.running = null
    }
    turn.then(settled, (error) => {
      this.hasStoreFailed ||= isStoreFault(error)
      settled()
      this.host.onFailure(error)
    })
    return turn
  }

  /** @throws {SessionError} `SESSION_READ_ONLY` or `SESSION_ENDED`. */
  requireWritable(): void {
    switch (this.standing) {
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

  /** @throws {SessionError} `HEADERS_SENT` or `INSECURE_CONNECTION`, when no cookie can reach the client. */
  requireCookie(): void {
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
            `app.set('trust proxy', 1) (without Express: trustProxy: true). ${PLAIN_HTTP_ADVICE}`,
        )
      case 'insecure-by-proxy':
        throw new SessionError(
          'INSECURE_CONNECTION',
          'The session cookie is Secure, but this request came over plain HTTP: no trusted proxy says otherwise, by ' +
            'X-Forwarded-Proto: https. Have the proxy send that header with what came to it over HTTPS, and see that its ' +
            `address is among those that are trusted. ${PLAIN_HTTP_ADVICE}`,
        )
    }
  }

  /** The session ended under this request. Its cookie is left alone: the client may hold a newer one by now. */
  ended(): SessionError {
    this.standing = 'ended'
    return new SessionError(
      'SESSION_ENDED',
      'The session ended while this request was under way; what the request changed was not stored.',
    )
  }
}

function ignore(): void {}

const PLAIN_HTTP_ADVICE =
  "For plain HTTP on purpose, such as a health probe or an intranet, set cookie: { secure: 'when-https' }, or false " +
  'where there is no HTTPS at all.'
