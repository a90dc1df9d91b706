// What Sojourn tells about: one typed event map, delivered so that no listener can harm a request.
import { type Channel, channel } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import type { SessionError, SessionErrorCode } from '../errors.js'
import type { EndReason, ExpiryReason, SessionEnd } from '../record/session-data.js'
import { warn, warnOfFailure } from '../warn.js'

type UserId = string | number | undefined
/** The logical ID, when the application has asked for it. */
type LogicalId = string | undefined
/** What the login said of itself, if it did. */
type Proof = { methods?: readonly string[]; level?: number }

/**
 * Everything that is told, by event name. No event carries a token, a cookie value, a key or a field's value; `id` is
 * the public session ID, `ip` the client's address, when that is recorded.
 */
export interface SessionEventMap {
  /** A new session was stored. */
  created: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A request's cookie opened a session. */
  loaded: { id: string; userId: UserId; logicalId?: LogicalId }
  /** Changes of a session were stored: by the commit of a request, `save()`, `update()` or the manager. */
  committed: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A session got a new token. */
  renewed: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A session got a new ID and token; `previousId` is over. */
  regenerated: { id: string; previousId: string; userId: UserId; logicalId?: LogicalId }
  /** A user logged in: `id` is the new session, `previousId` the one it replaced, if there was one. */
  login: { id: string; previousId: string | undefined; userId: string | number; logicalId?: LogicalId } & Proof
  /** The user of a session proved again who they are; `previousId` is over. */
  reauthenticated: { id: string; previousId: string; userId: string | number; logicalId?: LogicalId } & Proof
  /**
   * A guard asked the user of a session for proof, by `requireRecentAuth()` or `requireLevel()`: nobody is logged in (`'nobody'`), the
   * proof is too old or its time unknown (`'age'`), or it was of a lower level (`'level'`). `id` is that of the session, if there is
   * one. `path` is without its query.
   */
  reauthenticationRequired: {
    id: string | undefined
    userId: UserId
    reason: 'nobody' | 'age' | 'level'
    method: string
    path: string
    ip: string | undefined
  }
  /**
   * A session got another logical ID: its first (`'start'`; `from` is then that of the session that the client had before, if
   * it had one), by `logicalIdTimeout`, by `restart()` or by `completeWorkflow()`.
   */
  boundary: {
    id: string
    userId: UserId
    from: string | undefined
    to: string
    cause: 'start' | 'timeout' | 'restart' | 'completed'
  }
  /** A user logged out; the session `id` is over. */
  logout: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A session was ended from inside its request. */
  destroyed: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A session was ended from outside, `by` whom and why (`detail`) as the caller said. */
  revoked: { id: string; userId: UserId; logicalId?: LogicalId; by: string | undefined; detail: string | undefined }
  /** All sessions were ended at once; with `isRemote` by another process (`watchEndings()` of `sojourn/live`). */
  allRevoked: { by: string | undefined; detail: string | undefined; isRemote?: boolean }
  /** A login met the limit of sessions per user: `ended` are the sessions that had to go, none when it was refused. */
  limit: {
    id: string
    userId: string | number
    logicalId?: LogicalId
    outcome: 'ended-oldest' | 'refused'
    ended: readonly string[]
  }
  /**
   * The ID of a session counts no more: told once, by the process that ended it, whatever event says more of it. Of one that
   * ran out it is told when a clean-up removes it, of one that the store had no room for it is
   * not (`forgotten` is).
   *
   * With `goesOn`, the session is not over: it goes on, with its fields, as `successor`, after `login()`, `reauthenticate()` or
   * `regenerate({ keep: true })`; what is kept elsewhere for `id` is to follow it. Without it the session is over, even if
   * another one, `successor`, took its place: after any other `regenerate()`.
   *
   * With `isRemote` another process ended it: told where `watchEndings()` of `sojourn/live` listens.
   */
  ended: {
    id: string
    userId: UserId
    reason: EndReason
    successor: string | undefined
    goesOn: boolean
    isRemote?: boolean
  }
  /** A session ran out; told each time that a cookie names it, and when a clean-up removes it. */
  expired: { id: string; userId: UserId; logicalId?: LogicalId; reason: ExpiryReason }
  /**
   * The store had no room and forgot a live session to make some: `MemorySessionStore`, by `maxSessions` or `maxBytes`. Told by
   * each manager of that store.
   */
  forgotten: { id: string; userId: UserId; logicalId?: LogicalId }
  /** A cookie that was good once named a session that has been ended. */
  usedAfterEnd: { id: string; userId: UserId; logicalId?: LogicalId; end: SessionEnd; ip: string | undefined }
  /** A cookie that we did not issue, or that was altered: wrong shape or wrong signature. */
  badCookie: { reason: 'malformed' | 'signature'; ip: string | undefined }
  /** A well-signed cookie named a session that the store does not have: forgotten, or lost. */
  unknownSession: { id: string; ip: string | undefined }
  /** A well-signed cookie held a token that is not, or no longer, this session's. */
  tokenMismatch: { id: string; userId: UserId; ip: string | undefined }
  /**
   * A request had cookies of two live sessions under a name that other hosts of the domain can set, too. Neither was believed;
   * see `cookie.onConflict`.
   */
  cookieConflict: { ids: readonly string[]; ip: string | undefined }
  /**
   * A request was refused by `csrf()`, by what `reason` says; `id` is that of its session, if it has one. `path` is without its
   * query.
   */
  csrfRefused: {
    id: string | undefined
    userId: UserId
    reason: 'fetch-metadata' | 'origin' | 'referer' | 'token-missing' | 'token-wrong'
    method: string
    path: string
    ip: string | undefined
  }
  /** The response to a login offered the browser to register a key, by `sojourn/device-bound`. */
  deviceOffered: { id: string; userId: UserId }
  /** A browser registered a key: from now on the session `id` takes a proof that a request comes from there. */
  deviceBound: { id: string; userId: UserId; algorithm: 'ES256' | 'RS256' }
  /** A browser proved that it has the key of its session, and got another bound cookie. */
  deviceProved: { id: string }
  /**
   * A request was refused by `sojourn/device-bound`. Of a request as any other: its session has a key, and it came without the bound
   * cookie (`'no-proof'`), or `requireDevice()` met a session without a key (`'unbound'`). Of a registration or a refresh: the
   * proof is none (`'malformed'`), was signed by another key (`'signature'`), or for a challenge that was not given to it
   * (`'challenge'`), the session has a key already (`'second-key'`), or nobody is logged in (`'no-login'`). `path` is without its
   * query. Of a refresh without the session cookie, `userId` is not known.
   */
  deviceRefused: {
    id: string | undefined
    userId: UserId
    reason: 'no-proof' | 'unbound' | 'malformed' | 'signature' | 'challenge' | 'second-key' | 'no-login'
    method: string
    path: string
    ip: string | undefined
  }
  /**
   * A session was used by another client than it is bound to, by `clientBinding()`: in what it differs, and what followed. Told once
   * for each such client of a session, and of each session that is ended. `path` is without its query.
   */
  clientChanged: {
    id: string
    userId: UserId
    logicalId?: LogicalId
    changed: readonly ('network' | 'browser' | 'language')[]
    outcome: 'told' | 'challenged' | 'ended'
    method: string
    path: string
    ip: string | undefined
  }
  /**
   * A recovery point or a hand-off was redeemed: the session `id` began with what the session `from` held at `savedAt`
   * (milliseconds since the epoch).
   */
  recovered: { id: string; userId: UserId; from: string; savedAt: number; how: 'recovery' | 'hand-off' }
  /**
   * A recovery token was refused, in the session `id`. `'unknown'`: never issued, forgotten, or of another application; `'used'`: redeemed
   * before, as the session `redeemedAs`; `'expired'`; `'foreign'`: of another user than who asks; `'ended'`: of a session that was
   * logged out, or of a user who was revoked; `'malformed'`; `'locked'`: after too many unknown ones.
   */
  recoveryRefused: {
    id: string
    userId: UserId
    reason: 'unknown' | 'used' | 'expired' | 'foreign' | 'ended' | 'malformed' | 'locked'
    redeemedAs: string | undefined
    ip: string | undefined
  }
  /**
   * The secrets were changed at run time: `count` of them hold now, and with `isNewest` cookies are signed with another one.
   */
  secretsChanged: { count: number; isNewest: boolean }
  /** Secrets that were to hold from now on are no good, or the function that gives them failed: those of before go on. */
  secretsRefused: { error: SessionError }
  /** A record or one field of it could not be read and was set aside. */
  corruptRecord: { id: string; field?: string | undefined; cause: unknown }
  /**
   * A session was written by a clock that ran ahead of this one by `aheadMs`, more than a minute, or this one was set back. It
   * goes on, by this clock, and for `requireRecentAuth()` its user has proved nothing.
   */
  clockSkew: { id: string; userId: UserId; logicalId?: LogicalId; aheadMs: number }
  /**
   * What is kept beside the sessions could not be read: the epoch of `revokeAll()`, the list of a user, a lease or a note, as
   * `operation` says. The message of `cause` names the key. Told each time.
   */
  corruptKey: { operation: string; cause: SessionError }
  /** `update()` has to run its function again, because another request wrote the field in between. */
  conflict: { id: string; userId: UserId; field: string }
  /** A write was dropped because the session had ended in the meantime. */
  lateWrite: { id: string; userId: UserId; logicalId?: LogicalId }
  /** Fields were changed when it was too late to store them, or a new session when it was too late for its cookie. */
  lateChange: { id: string; reason: 'after-response' | 'headers-sent' }
  /** A store call failed or missed its deadline. */
  storeError: { id?: string | undefined; operation: string; error: SessionError }
  /**
   * A store call is done, or failed with the code `error`: for measuring, since there are one or two in most requests. A
   * scan is one call, without the time of who reads from it. Not made when nobody listens.
   */
  storeCall: { operation: string; durationMs: number; error?: SessionErrorCode | undefined }
  /** `archive` failed for a session, which is kept for the next clean-up. */
  archiveFailed: { id: string; userId: UserId; cause: unknown }
  /** A clean-up went through the store and removed so many sessions. */
  cleaned: { removed: number; failed: number }
}

/** The name of an event, as `events.on()` takes it. */
export type SessionEventName = keyof SessionEventMap

/** Once each: the compiler asks for new ones. */
const NAMES: Readonly<Record<SessionEventName, true>> = {
  created: true,
  loaded: true,
  committed: true,
  renewed: true,
  regenerated: true,
  login: true,
  reauthenticated: true,
  reauthenticationRequired: true,
  logout: true,
  destroyed: true,
  revoked: true,
  allRevoked: true,
  limit: true,
  expired: true,
  forgotten: true,
  usedAfterEnd: true,
  badCookie: true,
  unknownSession: true,
  tokenMismatch: true,
  cookieConflict: true,
  csrfRefused: true,
  deviceOffered: true,
  deviceBound: true,
  deviceProved: true,
  deviceRefused: true,
  clientChanged: true,
  recovered: true,
  recoveryRefused: true,
  secretsChanged: true,
  secretsRefused: true,
  corruptRecord: true,
  corruptKey: true,
  clockSkew: true,
  conflict: true,
  lateWrite: true,
  lateChange: true,
  storeError: true,
  archiveFailed: true,
  cleaned: true,
  boundary: true,
  ended: true,
  storeCall: true,
}

/** The names of all events. */
export const ALL_EVENT_NAMES = Object.keys(NAMES) as readonly SessionEventName[]

/** An event as a listener gets it: `at` is its time, in milliseconds since the epoch. */
export type SessionEvent<Name extends SessionEventName = SessionEventName> = Readonly<SessionEventMap[Name]> & {
  readonly at: number
}

type Listener<Name extends SessionEventName> = (event: SessionEvent<Name>) => void

/** Events that must not go unnoticed: without a listener they become process warnings. */
const WARN_UNHEARD: ReadonlySet<SessionEventName> = new Set([
  'lateChange',
  'corruptRecord',
  'corruptKey',
  'cookieConflict',
  'clientChanged',
  'forgotten',
  'clockSkew',
  'secretsRefused',
  'storeError',
  'archiveFailed',
])

/**
 * Hands events to listeners, synchronously and in order. A listener that throws or rejects becomes a process warning
 * (`SojournWarning`); it never reaches the request that caused the event.
 *
 * The same events go to the channels `sojourn:<name>` of `node:diagnostics_channel`, for observers that know nothing of
 * this object: those of all managers of the process. What a subscriber throws there is an uncaught exception, as Node has
 * it, though not in the request.
 */
export class SessionEvents {
  readonly #clock: () => number
  readonly #emitter = new EventEmitter()
  readonly #warned = new Set<SessionEventName>()
  readonly #watchers = new WeakSet<object>()

  /** @param clock the time of events, in milliseconds since the epoch; default `Date.now` */
  constructor(clock: () => number = () => Date.now()) {
    this.#clock = clock
    // Listeners are the application's business; a leak of them shows elsewhere.
    this.#emitter.setMaxListeners(0)
  }

  /** Calls `listener` for each event of that name. Returns a function that stops it. */
  on<Name extends SessionEventName>(name: Name, listener: Listener<Name>): () => void {
    this.#emitter.on(name, listener)
    return () => this.#emitter.off(name, listener)
  }

  /**
   * As `on()`, for who only counts: an event that must not go unnoticed becomes a process warning all the same when nobody else
   * listens.
   */
  watch<Name extends SessionEventName>(name: Name, listener: Listener<Name>): () => void {
    this.#watchers.add(listener)
    return this.on(name, listener)
  }

  /** Stops calling `listener`. */
  off<Name extends SessionEventName>(name: Name, listener: Listener<Name>): void {
    this.#emitter.off(name, listener)
  }

  /** Whether anybody listens: for events on the path of every request, which are not made for nobody. */
  isHeard(name: SessionEventName): boolean {
    return this.#emitter.listenerCount(name) > 0 || channelOf(name).hasSubscribers
  }

  /** Tells an event. For the package itself; yours to use in tests. */
  emit<Name extends SessionEventName>(name: Name, facts: SessionEventMap[Name]): void {
    const listeners = this.#emitter.listeners(name)
    const observers = channelOf(name)
    if (WARN_UNHEARD.has(name) && listeners.every((listener) => this.#watchers.has(listener))) {
      this.#warnUnheard(name, facts)
    }
    if (listeners.length === 0 && !observers.hasSubscribers) return
    const event = Object.freeze({ ...facts, at: this.#clock() })
    for (const listener of listeners) {
      try {
        const returned: unknown = listener(event)
        if (returned instanceof Promise) returned.catch((error) => warnOfFailure(`A listener for "${name}"`, error))
      } catch (error) {
        warnOfFailure(`A listener for "${name}"`, error)
      }
    }
    observers.publish(event)
  }

  /** Once a name: a fault that repeats must not flood the log. */
  #warnUnheard<Name extends SessionEventName>(name: Name, event: SessionEventMap[Name]): void {
    if (this.#warned.has(name)) return
    this.#warned.add(name)
    warn(`${describe(name, event)} Further events of this kind are silent; listen with events.on('${name}', …).`, name)
  }
}

/** Kept: a channel that nobody holds may be collected with its subscribers. */
const channels = new Map<SessionEventName, Channel>()

function channelOf(name: SessionEventName): Channel {
  let found = channels.get(name)
  if (found === undefined) {
    found = channel(`sojourn:${name}`)
    channels.set(name, found)
  }
  return found
}

// From the beginning: in Bun it is collected although it has subscribers, and they may come long before the first event.
for (const name of ALL_EVENT_NAMES) channelOf(name)

function describe(name: SessionEventName, event: object): string {
  if (name === 'corruptKey' && 'cause' in event) return `${name}: ${(event.cause as Error).message}`
  if ('error' in event && event.error instanceof Error) return `${name}: ${event.error.message}`
  if ('reason' in event) {
    return event.reason === 'headers-sent'
      ? `${name}: a new session was filled after the response headers had been sent, so it got no cookie and was not stored.`
      : `${name}: session fields were changed after the response; call save() to store them.`
  }
  if (name === 'cookieConflict') {
    return `${name}: a request came with cookies of two live sessions, and neither was believed: see the option cookie.onConflict.`
  }
  if (name === 'clientChanged') {
    return `${name}: a session was used by another client than it is bound to, and nobody listens.`
  }
  if (name === 'forgotten') {
    return `${name}: the store is full, and forgot a live session to make room for another; raise its maxSessions or maxBytes.`
  }
  if (name === 'clockSkew') {
    return `${name}: a session was written by a clock that runs ahead of this one, or this one was set back: check the time of all machines.`
  }
  if (name === 'archiveFailed') return `${name}: a session could not be archived; the next clean-up tries again.`
  return `${name}: a session record could not be read and was set aside.`
}
