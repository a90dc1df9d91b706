// `SessionManager`: sessions without a request, for scripts, jobs and admin pages, and the middleware made of the same.

import type { Duration } from '../duration.js'
import { invalidOption, SessionError } from '../errors.js'
import type { SessionEvents } from '../events/events.js'
import { Lifecycle } from '../lifecycle/lifecycle.js'
import { type ExpiryOptions, resolveExpiry } from '../options/expiry-options.js'
import type { SessionOptions } from '../options/options.js'
import { resolveOptions } from '../options/resolve-options.js'
import { contextOf, newBinding } from '../record/binding.js'
import type { SessionNotes } from '../record/notes.js'
import type { SessionContext, SessionData, SessionEnd } from '../record/session-data.js'
import {
  infoOf,
  type SessionInfo,
  type StoredSession,
  storedSessionOf,
  type UserSession,
} from '../record/session-info.js'
import type { SessionSignals } from '../record/signals.js'
import { abilitiesOf, type SessionStore } from '../record/store.js'
import { type ClientFacts, cleanContext, differenceOf } from '../request/client.js'
import { getSession } from '../request/current-session.js'
import type { Face } from '../request/face.js'
import type { HttpRequest } from '../request/http-request.js'
import type { HttpResponse } from '../request/http-response.js'
import { requestPath } from '../request/middleware.js'
import { Fields } from '../session/fields.js'
import { checkUserId } from '../session/life.js'
import { isSession, leaveIf, type Session } from '../session/session.js'
import { MemorySessionStore } from '../stores/memory.js'
import { CleanUp, type CleanUpResult } from './cleanup.js'
import { drawersOf, type SessionDrawers } from './drawers.js'
import { matcherOf, type SessionFilter } from './filter.js'
import { checkReason, checkTexts } from './reasons.js'
import { type ReencryptOptions, type ReencryptResult, reencrypt } from './reencrypt.js'

/** The middleware that `session()` returns, for Express, Connect and plain Node servers. */
export interface SessionMiddleware {
  /**
   * Attaches `req.session` and calls `next()`, or calls `next(error)`: before the handler when the session cannot be
   * loaded, after it when the changes cannot be stored. `res` may be a bare object for a WebSocket upgrade; changes are
   * then stored by `save()` only.
   */
  (req: HttpRequest, res: HttpResponse | object, next: (error?: unknown) => void): void
  /** What happens to sessions, for logs and counters. */
  readonly events: SessionEvents
  /** Where the sessions are kept. */
  readonly store: SessionStore
  /** The same sessions without a request: list, revoke, clean up. */
  readonly manager: SessionManager
}

/**
 * Server-side sessions: `app.use(session({ secret }))` gives every request a `req.session`. The short form of
 * `new SessionManager(options).middleware()`.
 *
 * What a response stores, and whether it sends a cookie, is told by a table in the documentation.
 *
 * @throws {SessionError} `INVALID_OPTION`
 */
export function session(options: SessionOptions): SessionMiddleware {
  return new SessionManager(options).middleware()
}

/** What a session that is made without a request begins with. */
export interface CreateOptions {
  /** Whose session it is; it counts towards the user's limit. */
  userId?: string | number | undefined
  /** @default none; `initialFields` is for requests */
  fields?: Record<string, unknown> | undefined
  /** What to note of the client, cut and cleaned as it is for requests. */
  context?: { readonly [Name in keyof SessionContext]: SessionContext[Name] | undefined } | undefined
}

/** Who ends sessions and why, for events, for `validate()`, and for the user when the session is used again. */
export interface RevokeOptions {
  /** Who does it, in at most 500 characters. */
  by?: string | undefined
  /** Why, in your words, at most 500 characters. */
  detail?: string | undefined
}

/** What `validate()` found. */
export type Validation =
  | { readonly isValid: true; readonly session: StoredSession }
  /** Never there, or forgotten. */
  | { readonly isValid: false; readonly reason: 'not-found' }
  /** Ran into its absolute timeout (`'expired'`) or its idle timeout (`'idle'`). */
  | { readonly isValid: false; readonly reason: 'expired' | 'idle'; readonly end: SessionEnd }
  /** Ended by somebody: `end` says how, when, by whom and why. */
  | { readonly isValid: false; readonly reason: 'ended'; readonly end: SessionEnd }
  /** Alive, but the client is not the one that began it, or the record cannot be read. */
  | {
      readonly isValid: false
      readonly reason: 'security-violation'
      readonly violation: 'ip' | 'user-agent' | 'corrupt-record'
    }

/**
 * What stands behind the middleware, for whoever has no request. `app.use(sessions.middleware())` and the manager share
 * store, events and limits; so do all processes that are given the same store and options.
 *
 * Nothing here hands out a token: no call makes a session that could be used with a cookie. Every call that reaches the
 * store rejects with `SessionError` `STORE_UNAVAILABLE` or `STORE_TIMEOUT` when that fails, and with `NOT_SUPPORTED` when
 * the store lacks what it needs.
 */
export class SessionManager {
  readonly #engine: Lifecycle
  readonly #cleanUp: CleanUp
  readonly #middleware: SessionMiddleware
  readonly #stopHearing: (() => void) | undefined
  readonly #revocations = new Set<(userId: string | number | undefined) => Promise<void>>()

  /**
   * @param face for who builds another middleware on the same sessions; most do not
   * @throws {SessionError} `INVALID_OPTION`
   */
  constructor(options: SessionOptions, face?: Face) {
    const resolved = resolveOptions(options, (clock) => new MemorySessionStore({ clock }))
    this.#engine = new Lifecycle(resolved, face?.token)
    this.#cleanUp = new CleanUp(this.#engine)
    this.#stopHearing = this.store.onForgotten?.((session) => this.events.emit('forgotten', session))
    const facts = { events: this.events, store: this.store, manager: this }
    this.#middleware = Object.freeze(Object.assign(requestPath(this.#engine, face), facts))
  }

  /** @internal What stands behind a manager, for features that begin sessions under a token of their own. */
  static lifecycleOf(manager: SessionManager): Lifecycle {
    return manager.#engine
  }

  /** The middleware: gives every request a `req.session`. Always the same one; mounting it twice is harmless. */
  middleware(): SessionMiddleware {
    // Mounted without being called, it has no `this`.
    if (!(this instanceof SessionManager)) {
      throw invalidOption('middleware was called without its manager: write app.use(manager.middleware()).')
    }
    return this.#middleware
  }

  /** What happens to sessions, for logs and counters. */
  get events(): SessionEvents {
    return this.#engine.events
  }

  /** Where the sessions are kept. */
  get store(): SessionStore {
    return this.#engine.options.store
  }

  /**
   * Small texts beside the sessions, for what is used once or forgotten soon: each for a purpose (1 to 40 letters, digits, `-`
   * and `_`) and under a key, any text, which the store gets as a hash. At most 100,000 characters a note.
   * @throws {SessionError} `NOT_SUPPORTED` when the store has no notes; on a call `INVALID_ARGUMENT`, `STORE_UNAVAILABLE` and
   *   `STORE_TIMEOUT`
   */
  get notes(): SessionNotes {
    return this.#engine.ability('notes')
  }

  /** What features keep in sessions, without a request. For features: what an application keeps is fields. */
  get drawers(): SessionDrawers {
    return drawersOf(this.#engine)
  }

  /**
   * Short texts that all processes on the same data hear: each on a channel (1 to 80 letters, digits, `-`, `_` and `.`). Nothing
   * is kept for who does not listen.
   * @throws {SessionError} `NOT_SUPPORTED` when the store has no signals; on a call `INVALID_ARGUMENT`, `STORE_UNAVAILABLE` and
   *   `STORE_TIMEOUT`
   */
  get signals(): SessionSignals {
    return this.#engine.ability('signals')
  }

  // --- One session ---

  /**
   * Makes a session that no cookie opens: for tests, imports and jobs.
   * @throws {SessionError} `INVALID_ARGUMENT`, `INVALID_VALUE`, `SESSION_TOO_LARGE`, `SESSION_LIMIT`.
   */
  async create({ userId, fields = {}, context }: CreateOptions = {}): Promise<StoredSession> {
    if (userId !== undefined) checkUserId(userId)
    requireObject(fields, 'fields')
    const binding = newBinding(this.#engine.options.codec)
    const { record } = await this.#engine.create({
      id: this.#engine.newId(),
      fields: new Map(this.#encode(fields, { binding }).set),
      binding,
      metadata: userId === undefined ? {} : { userId },
      context: context === undefined ? undefined : checkContext(context),
    })
    return this.#stored(record, null)
  }

  /** The live session of this ID with its fields, or `null`. */
  async get(id: string): Promise<StoredSession | null> {
    const record = await this.#engine.reload(checkId(id))
    return record && this.#stored(record, null)
  }

  /**
   * Whether a session is alive, and if not, why. With what is known of a client, also whether that looks like the client
   * that began the session: by its network (/24 of IPv4, /48 of IPv6) and its user agent, versions aside.
   */
  async validate(id: string, client: ClientFacts = {}): Promise<Validation> {
    const record = await this.#engine.peek(checkId(id))
    if (record === null) return { isValid: false, reason: 'not-found' }
    if (record === 'corrupt') return { isValid: false, reason: 'security-violation', violation: 'corrupt-record' }
    const end = this.#engine.endOf(record)
    if (end?.reason === 'idle') return { isValid: false, reason: 'idle', end }
    if (end?.reason === 'absolute') return { isValid: false, reason: 'expired', end }
    if (end !== null) return { isValid: false, reason: 'ended', end }
    const violation = differenceOf(contextOf(record, this.#engine.options.codec), client)
    if (violation !== null) return { isValid: false, reason: 'security-violation', violation }
    return { isValid: true, session: this.#stored(record, null) }
  }

  /**
   * Sets fields of a live session, as a request of it would: others stay, `undefined` deletes. Resolves to whether the
   * session was alive.
   * @throws {SessionError} `INVALID_VALUE`, `SESSION_TOO_LARGE`.
   */
  async update(id: string, fields: Record<string, unknown>): Promise<boolean> {
    requireObject(fields, 'fields')
    const record = await this.#engine.reload(checkId(id))
    if (record === null) return false
    const changes = this.#encode(fields, { stored: record.fields })
    // What happens behind the user's back is no activity of theirs.
    const change = this.#engine.change(record, { ...changes, isPassive: true })
    return (await this.#engine.update(record, change)).status === 'updated'
  }

  /** Moves the idle timeout of a live session forward from now. Resolves to whether it was alive. */
  async refresh(id: string): Promise<boolean> {
    const record = await this.#engine.reload(checkId(id))
    return record !== null && (await this.#engine.touch(record, false)) !== null
  }

  /**
   * Gives a live session its own idle timeout, and with `absoluteTimeout` its own absolute one, as `session.setExpiry()` does.
   * Resolves to whether it was alive. A persistent cookie follows with a later response.
   * @throws {SessionError} `INVALID_ARGUMENT` for an idle timeout beyond the absolute one, and for what the preset forbids.
   */
  async setExpiry(id: string, idleTimeout: Duration, options: ExpiryOptions = {}): Promise<boolean> {
    const { idleMs, absoluteMs, persistent } = resolveExpiry(idleTimeout, options)
    const record = await this.#engine.reload(checkId(id))
    if (record === null) return false
    const timeouts = this.#engine.times.ownTimeouts(record, idleMs, absoluteMs)
    const metadata = persistent === undefined ? timeouts : { ...timeouts, persistent }
    const change = this.#engine.change(record, { metadata, isPassive: true })
    return (await this.#engine.update(record, change)).status === 'updated'
  }

  /**
   * Ends a session for good, with what it became if it was regenerated in the meantime: its next request begins a new
   * one. Called for the session of the request that is being handled, that goes on as after `logout()`, which is so for
   * `revokeUser()` and `revokeAll()`, too. Resolves to whether it was alive.
   */
  async revoke(id: string, options: RevokeOptions = {}): Promise<boolean> {
    const reason = checkReason(options)
    const record = await this.#engine.peek(checkId(id))
    const { userId, logicalId } = record === null || record === 'corrupt' ? NOBODY : record
    const isOver = record !== null && record !== 'corrupt' && !record.ended && this.#engine.endOf(record) !== null
    const hasEnded = (await this.#engine.end({ id, userId }, { reason: 'revoked', ...reason })) && !isOver
    if (hasEnded) this.events.emit('revoked', { id, userId, logicalId, ...reason })
    await leaveIf(getSession(), this.#engine, (own) => own.id === id)
    return hasEnded
  }

  /** As `revoke()`, with the reason in your words. */
  async terminate(id: string, reason?: string): Promise<boolean> {
    checkTexts({ reason })
    return this.revoke(id, reason === undefined ? {} : { detail: reason })
  }

  // --- Many sessions ---

  /**
   * Goes through the sessions, in no order and without loading all at once. One that begins or ends meanwhile may be missed,
   * and one may come twice. Takes time in proportion to the whole store; with `userId`, for live sessions, to that user's.
   * @throws {SessionError} `INVALID_ARGUMENT`.
   */
  async *list(filter: SessionFilter = {}): AsyncGenerator<SessionInfo, void, undefined> {
    const matches = matcherOf(filter)
    const { userId, status = 'live' } = filter
    if (userId !== undefined) checkUserId(userId)
    // The index names live sessions only.
    const records = userId !== undefined && status === 'live' ? await this.#recordsOf(userId) : this.#engine.scan()
    for await (const record of records) {
      const info = infoOf(record, this.#engine.endOf(record), this.#engine.options.codec)
      if (matches(info)) yield info
    }
  }

  /** How many sessions match, live ones by default. Takes as long as `list()`. */
  async count(filter: SessionFilter = {}): Promise<number> {
    let count = 0
    for await (const _ of this.list(filter)) count++
    return count
  }

  // --- The sessions of a user ---

  /**
   * The live sessions of a user, the last active first. Takes time in proportion to their number.
   * @param options `current`: the session that asks, or its ID, to be marked as such
   */
  async sessionsOf(userId: string | number, options: { current?: Session | string } = {}): Promise<UserSession[]> {
    const current = idOf(options.current)
    const records = await this.#recordsOf(userId)
    return records
      .map((record) => ({ ...infoOf(record, null, this.#engine.options.codec), isCurrent: record.id === current }))
      .sort((a, b) => b.lastAccessedAt.getTime() - a.lastAccessedAt.getTime())
  }

  /**
   * Ends the sessions of a user: all of them, or all but one (OWASP ASVS 7.4.3). Resolves to how many it ended.
   *
   * A `Session` as `except` goes on under a new ID and token, so that a copy of its old cookie is of no use either; an ID
   * leaves that session as it is. A session that begins while this runs is ended or not.
   */
  async revokeUser(
    userId: string | number,
    { except, ...options }: RevokeOptions & { except?: Session | string } = {},
  ): Promise<number> {
    checkUserId(userId)
    const reason = checkReason(options)
    if (isSession(except)) await except.regenerate({ keep: true })
    const spared = idOf(except)
    const revoke = (): Promise<number> => this.#engine.users.revoke(userId, spared, { reason: 'revoked', ...reason })
    const count = await this.#tellingOf(userId, revoke)
    await leaveIf(getSession(), this.#engine, (own) => own.userId === userId && own.id !== spared)
    return count
  }

  /**
   * Ends every session there is, that of the caller included. Takes a second and two store calls, whatever their number:
   * each process asks once a second whether it was called, so when it resolves no session that began before counts in any; in
   * one that cannot ask, though it can read sessions, within a minute.
   * Who did it and why is told by the event `allRevoked`; of the single sessions, only that they were revoked.
   */
  async revokeAll(options: RevokeOptions = {}): Promise<void> {
    const { by, detail } = checkReason(options)
    await this.#tellingOf(undefined, () => this.#engine.revokeAll(by, detail))
    await leaveIf(getSession(), this.#engine, () => true)
  }

  /**
   * Calls `listener` when the sessions of a user are to be ended, or those of all (`undefined`), and waits for it: what else must end
   * with them, such as tokens that open a session later, is over when `revokeUser()` or `revokeAll()` resolves. When it fails, the
   * sessions are ended all the same, and the call rejects. Returns what stops that.
   */
  onRevocation(listener: (userId: string | number | undefined) => Promise<void>): () => void {
    this.#revocations.add(listener)
    return () => this.#revocations.delete(listener)
  }

  // --- The house ---

  /**
   * Archives and removes the sessions that ran out, and whatever refers to them. Runs by itself at `cleanupInterval`.
   * Resolves to `null` when another process is at it. A session for which it fails is kept for the next time.
   */
  cleanUp(): Promise<CleanUpResult | null> {
    return this.#cleanUp.run()
  }

  /**
   * Seals anew, in all sessions, each field that the codec would seal otherwise now: after a change of keys. `null`: another
   * process is at it.
   * @throws {SessionError} `NOT_SUPPORTED` when the codec does not say what is due, or the store cannot be gone through.
   */
  reencrypt(options: ReencryptOptions = {}): Promise<ReencryptResult | null> {
    return reencrypt(this.#engine, options)
  }

  /** The settings in force, times in milliseconds: for a page or a log at start. No secret is among them. */
  describe(): Readonly<Record<string, unknown>> {
    const { store, cookie, isPassive, isFresh, archive, ...others } = this.#engine.options
    const { codec: _codec, clock: _clock, initialFields: _fields, onEnded: _onEnded, ...settings } = others
    const { keys, ...attributes } = cookie
    return Object.freeze({
      ...settings,
      store: store.constructor.name,
      abilities: abilitiesOf(store),
      cookie: { ...attributes, secrets: keys.length },
      hasPassivePaths: isPassive !== undefined,
      hasFreshPaths: isFresh !== undefined,
      archives: archive !== undefined,
    })
  }

  /**
   * For the end of the process, after the server has closed: stops the clean-up, waits until what was answered is stored
   * (`commit: 'after-response'`), and closes the store. A Redis client of your own stays open.
   */
  async close(): Promise<void> {
    await Promise.all([this.#cleanUp.stop(), this.#engine.late.drain()])
    this.#stopHearing?.()
    await this.store.close()
  }

  async #tellingOf<T>(userId: string | number | undefined, revoke: () => Promise<T>): Promise<T> {
    const told = await Promise.allSettled([...this.#revocations].map(async (listener) => listener(userId)))
    const revoked = await revoke()
    const failed = told.find(({ status }) => status === 'rejected')
    if (failed?.status === 'rejected') throw failed.reason
    return revoked
  }

  async #recordsOf(userId: string | number): Promise<SessionData[]> {
    checkUserId(userId)
    return this.#engine.users.sessionsOf(userId)
  }

  #stored(record: SessionData, end: SessionEnd | null): StoredSession {
    const reader = { codec: this.#engine.options.codec, now: this.#engine.now() }
    const { id } = record
    return storedSessionOf(record, end, reader, (field, cause) =>
      this.events.emit('corruptRecord', { id, field, cause }),
    )
  }

  #encode(
    values: Record<string, unknown>,
    of: { stored: SessionData['fields'] } | { binding: string | undefined },
  ): { set?: ReadonlyMap<string, string>; delete?: readonly string[] } {
    const { codec, limits } = this.#engine.options
    const fields = new Fields({ codec, limits, ...of, clock: this.#engine, onCorrupt: () => {} })
    fields.setAll(values)
    return fields.changes() ?? {}
  }
}

/** An ID comes from pages and scripts; anything but text would reach the store as it is. */
function checkId(id: unknown): string {
  if (typeof id === 'string' && id !== '') return id
  throw new SessionError('INVALID_ARGUMENT', 'A session ID is text, such as session.id.')
}

function idOf(session: Session | string | undefined): string | undefined {
  return isSession(session) ? session.id : session === undefined ? undefined : checkId(session)
}

const NOBODY = { userId: undefined, logicalId: undefined }

/** What is no text could be stored, and never be read again. */
function checkContext(context: NonNullable<CreateOptions['context']>): SessionContext | undefined {
  requireObject(context, 'context')
  const { ip, userAgent, referrer, locale } = context
  for (const [name, text] of Object.entries({ ip, userAgent, referrer, locale })) {
    if (text === undefined || typeof text === 'string') continue
    throw new SessionError('INVALID_ARGUMENT', `context.${name} is not text.`)
  }
  return cleanContext(context)
}

function requireObject(value: unknown, name: string): void {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return
  throw new SessionError('INVALID_ARGUMENT', `${name} is not an object.`)
}
