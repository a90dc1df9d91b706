// `Session`: what a handler holds as `req.session`. Fields are plain properties; everything else is a member below.

import { didYouMean } from '../did-you-mean.js'
import { type Duration, milliseconds } from '../duration.js'
import { invalidOption } from '../errors.js'
import type { SessionEventMap } from '../events/events.js'
import type { ExpiryOptions } from '../options/expiry-options.js'
import type { Authentication, ProofOptions } from '../record/authentication.js'
import { contextOf, NO_CONTEXT } from '../record/binding.js'
import { hiddenFieldError, isHiddenField } from '../record/hidden-fields.js'
import type { SessionContext, SessionEnd } from '../record/session-data.js'
import { updateField } from './atomic-update.js'
import type { FieldProperties, FieldValue, SessionFields } from './field-types.js'
import { freezeMethods } from './inherited.js'
import { INSIDE, type Inside } from './inside.js'
import { Insider } from './insider.js'
import * as life from './life.js'
import { askLogicalId } from './logical-id.js'
import { login } from './login.js'
import { proofIn, provedAt } from './proof.js'
import { propertiesOf } from './properties.js'
import { expiresAt } from './response-cookie.js'
import { SessionCookie } from './session-cookie.js'
import { type SessionState, STATE } from './state.js'
import { type InferSchemaOutput, type StandardSchema, type TypedSession, typedSession } from './typed.js'

/** A field name: the declared ones are suggested, any other text is allowed. */
export type FieldName = (keyof SessionFields & string) | (string & {})

/** Called by the members of `Session` that take a Node callback, with the error if there was one. */
export type SessionCallback = (error?: unknown) => void

/** How long a field lives. */
export interface SetOptions {
  /**
   * How long, from now.
   * @default as long as the session
   */
  ttl?: Duration | undefined
}

/** What is known of a session besides its fields. */
export interface SessionMetadata {
  /** Who is logged in, as given to `login()`. */
  readonly userId: string | number | undefined
  /** The logical ID, when it has been asked for before. */
  readonly logicalId: string | undefined
  /**
   * When the user last proved who they are: at `login()` or `reauthenticate()`. `undefined` also when that cannot be told any
   * more, because a clock was wrong: see the event `clockSkew`.
   */
  readonly authenticatedAt: Date | undefined
  /** What proved it, as `login()` and `reauthenticate()` were told; `undefined` when nobody is logged in. */
  readonly authentication: Authentication | undefined
  /** The client that began the session: address, user agent, referrer and language, as far as they are recorded. */
  readonly context: SessionContext
  /** How the session that this request's cookie names has ended, when this is a new one for that reason. */
  readonly previousEnd: SessionEnd | undefined
  /** When the session was created or last logged in. */
  readonly createdAt: Date
  /** When fields last changed. */
  readonly updatedAt: Date
  /** The last recorded activity, to within `touchInterval`. */
  readonly lastAccessedAt: Date
  /** When the session ends if nothing more happens. */
  readonly expiresAt: Date
  /** When the session ends whatever happens. */
  readonly absoluteExpiresAt: Date
}

/** On the prototype of sessions, shared by all copies of this package. */
const BRAND: unique symbol = Symbol.for('sojourn.session')

/**
 * The session of one request.
 *
 * Fields are properties: `req.session.cart ??= []` stores, `req.session.cart.push(x)` is noticed, `delete` removes.
 * `in`, `Object.keys`, `for…in`, spread and `JSON.stringify` see the fields and nothing else. The names of the members
 * below are not field names by property; `get()` and `set()` take any name.
 *
 * Changes are stored before the response leaves, field by field, so that parallel requests do not undo each other.
 * Members of the life group act at once: when the promise resolves, the store has confirmed it.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the proxy provides the declared fields
export class Session {
  declare readonly [STATE]: SessionState

  get [BRAND](): true {
    return true
  }

  constructor(state: SessionState) {
    const target = Object.create(new.target.prototype) as { [STATE]: SessionState }
    target[STATE] = state
    // biome-ignore lint/correctness/noConstructorReturn: a session is its proxy
    return new Proxy(target, fieldsAsProperties) as unknown as Session
  }

  // --- Fields ---

  /** The value of a field, or `fallback` (default `undefined`) when there is none. The fallback is not stored. */
  get<K extends FieldName>(name: K): FieldValue<K> | undefined
  get<K extends FieldName>(name: K, fallback: FieldValue<K>): FieldValue<K>
  get<K extends FieldName, D>(name: K, fallback: D): FieldValue<K> | D
  get(name: string, fallback?: unknown): unknown {
    return this[STATE].get(name) ?? (this[STATE].has(name) ? null : fallback)
  }

  /**
   * Sets a field. `undefined` deletes it. With `ttl` the field is gone after that time, counted from now: it reads as absent
   * everywhere, and goes along with the session until then. `update()` and changes inside of the value leave its end as it is; to
   * set or assign it again without `ttl` makes it stay.
   * @throws {SessionError} `INVALID_VALUE` for what cannot be stored, naming the path; `SESSION_TOO_LARGE`;
   *   `SESSION_ENDED`; `SESSION_READ_ONLY`; `INVALID_OPTION` for a `ttl` that is no duration. The old value stays.
   */
  set<K extends FieldName>(name: K, value: FieldValue<K> | undefined, options?: SetOptions): this {
    this[STATE].set(name, value, options && endsAtOf(options, this[STATE].lifecycle))
    return this
  }

  /** Removes a field. Returns whether there was one. */
  delete(name: FieldName): boolean {
    return this[STATE].delete(name)
  }

  /** Whether there is a field of that name. */
  has(name: FieldName): boolean {
    return this[STATE].has(name)
  }

  /** Removes every field that this request knows of. Ends nothing: ID, token and login stay. */
  clear(): void {
    this[STATE].clear()
  }

  /** The names of the fields. Decodes none of them. */
  keys(): string[] {
    return this[STATE].fields.names()
  }

  /** The values of the fields. Decodes all of them. */
  values(): unknown[] {
    return this.keys().map((name) => this[STATE].fields.get(name))
  }

  /** Names and values of the fields. Decodes all of them. */
  entries(): [string, unknown][] {
    return this.keys().map((name) => [name, this[STATE].fields.get(name)])
  }

  /**
   * Changes one field by a function of its value, atomically across requests and processes, and at once. `modify` may
   * be called several times, so it must do nothing else; what waits for another operation on this session in it waits
   * for ever. Resolves to the new value; `undefined` deletes the field.
   *
   * ```ts
   * await req.session.update('views', (n = 0) => n + 1)
   * ```
   * @throws {SessionError} `SESSION_ENDED` when the session has ended in the meantime; as `set()` and the store do.
   */
  update<K extends FieldName, T extends FieldValue<K> | undefined>(
    name: K,
    modify: (value: FieldValue<K> | undefined) => T | Promise<T>,
  ): Promise<T> {
    if (isHiddenField(name)) return unlessIgnored(Promise.reject(hiddenFieldError()))
    return updateField(this[STATE], name, modify as (value: unknown) => unknown) as Promise<T>
  }

  /**
   * The fields through a Standard Schema (zod, valibot, arktype …) of an object: what is read has been validated, and
   * what is assigned is validated first.
   * @throws {SessionError} on access, `VALIDATION_FAILED` with the schema's `issues`.
   */
  typed<S extends StandardSchema>(schema: S): TypedSession<InferSchemaOutput<S>> {
    return typedSession(this[STATE], schema)
  }

  // --- Facts ---

  /** The public session ID, a UUID: safe in logs, useless as a credential. */
  get id(): string {
    return this[STATE].id
  }

  /**
   * The logical session ID, a UUID: the application's own name for what goes on, safe in logs and no credential. It is made
   * when first asked for and kept in the session, which is stored for it; requests that ask at the same time get the same.
   * It stays at `login()` and `renew()`, and changes by `restart()`, `completeWorkflow()` and `logicalIdTimeout`. In a new
   * session whose cookie cannot be sent any more it is not kept.
   */
  get logicalId(): string {
    return askLogicalId(this[STATE])
  }

  /** When the session was created or logged in; for one that is not stored yet, now. */
  get createdAt(): Date {
    return new Date(this[STATE].record?.createdAt ?? this[STATE].lifecycle.now())
  }

  /** When the session ends if nothing more happens. */
  get expiresAt(): Date {
    return new Date(expiresAt(this[STATE]))
  }

  /** Whether the session began with this request. */
  get isNew(): boolean {
    return this[STATE].isNew
  }

  /** Whether fields differ from what is stored, nested changes included. */
  get isModified(): boolean {
    return this[STATE].fields.isModified()
  }

  /** What else is known: user, times, and the client. */
  get metadata(): SessionMetadata {
    const { record, lifecycle, previousEnd } = this[STATE]
    const now = lifecycle.now()
    const proved = provedAt(this[STATE])
    return Object.freeze({
      userId: record?.userId,
      logicalId: record?.logicalId,
      context: record === null ? NO_CONTEXT : contextOf(record, lifecycle.options.codec),
      previousEnd: previousEnd?.end,
      authenticatedAt: proved === undefined ? undefined : new Date(proved),
      authentication: proofIn(this[STATE]),
      createdAt: this.createdAt,
      updatedAt: new Date(record?.updatedAt ?? now),
      lastAccessedAt: new Date(record?.lastAccessedAt ?? now),
      expiresAt: this.expiresAt,
      absoluteExpiresAt: new Date(record?.absoluteExpiresAt ?? now + lifecycle.options.absoluteTimeoutMs),
    })
  }

  /** The cookie of this session, with the members that express-session users know. */
  get cookie(): SessionCookie {
    return new SessionCookie(this[STATE])
  }

  // --- Life ---

  /**
   * Stores changed fields now rather than with the response; does nothing when nothing changed.
   * @throws {SessionError} `SESSION_ENDED`, `SESSION_TOO_LARGE`, `INVALID_VALUE`, `STORE_UNAVAILABLE`, `STORE_TIMEOUT`.
   */
  save(): Promise<void>
  save(callback: SessionCallback): void
  save(callback?: SessionCallback): Promise<void> | void {
    return settle(life.save(this[STATE]), callback)
  }

  /**
   * Reads the session from the store again and forgets changes that were not saved.
   * @throws {SessionError} `SESSION_ENDED`, `STORE_UNAVAILABLE`, `STORE_TIMEOUT`.
   */
  reload(): Promise<void>
  reload(callback: SessionCallback): void
  reload(callback?: SessionCallback): Promise<void> | void {
    return settle(life.reload(this[STATE]), callback)
  }

  /**
   * Records activity now, where no response does: moves the idle timeout, at most once in `touchInterval`, so that it may be
   * called for each packet of a socket. `force: true` (default `false`) records it whenever it is called.
   * @throws {SessionError} when there is something to record, `SESSION_ENDED`, `STORE_UNAVAILABLE`, `STORE_TIMEOUT`.
   */
  touch(options?: { force?: boolean | undefined }): Promise<void>
  touch(callback: SessionCallback): void
  touch(first?: { force?: boolean | undefined } | SessionCallback): Promise<void> | void {
    if (typeof first === 'function') return settle(this.touch(), first)
    return life.touch(this[STATE], first?.force ?? false)
  }

  /**
   * Gives the same session a new token. The old one stays good until the client has shown that it has the new one, and for
   * `renewGrace` after that, so that requests under way do not fail. Of several requests that renew at once, one does,
   * and a token that the client has not shown yet is sent again instead.
   * @throws {SessionError} `HEADERS_SENT` when the cookie cannot be sent any more, `INSECURE_CONNECTION`, `SESSION_ENDED`,
   *   `STORE_UNAVAILABLE`, `STORE_TIMEOUT`; the old token then stays the good one.
   */
  renew(): Promise<void> {
    return life.renew(this[STATE])
  }

  /**
   * Ends this session and goes on with a new ID and token: what protects from session fixation (OWASP). There is no
   * grace, and writes that began before are dropped.
   *
   * Without `keep`, `req.session` is a new, empty session afterwards; the object at hand keeps its fields to read. With
   * `keep: true`, or a list of field names, this object goes on with all or those fields. The user stays logged in only
   * with `keep: true`. Resolves to the session to go on with.
   * @throws {SessionError} as `renew()`.
   */
  regenerate(options?: { keep?: boolean | readonly string[] }): Promise<Session>
  regenerate(callback: SessionCallback): void
  regenerate(first?: { keep?: boolean | readonly string[] } | SessionCallback): Promise<Session> | void {
    if (typeof first === 'function') return settle(this.regenerate(), first)
    const keep = first?.keep ?? false
    if (keep === false) return unlessIgnored(life.replaceWithEmpty(this[STATE]).then(sessionOf))
    return unlessIgnored(life.regenerate(this[STATE], keep === true ? 'all' : keep).then(() => this))
  }

  /**
   * Ends this session and has the browser forget the cookie. Writing to it afterwards is an error; ending it again is not.
   * @throws {SessionError} `STORE_UNAVAILABLE`, `STORE_TIMEOUT`: whether it has ended is then unknown.
   */
  destroy(): Promise<void>
  destroy(callback: SessionCallback): void
  destroy(callback?: SessionCallback): Promise<void> | void {
    return settle(life.destroy(this[STATE]), callback)
  }

  /**
   * This session's own idle timeout, and with `absoluteTimeout` its own absolute one, which nothing else moves. For "remember
   * me": `setExpiry('30d', { absoluteTimeout: '30d', persistent: true })`. Both go over at login and are stored at once
   * when the session is.
   * @throws {SessionError} `INVALID_ARGUMENT` for an idle timeout beyond the absolute one, and for what the preset forbids;
   *   `INVALID_OPTION` for what is no duration; and as `save()`.
   */
  setExpiry(idleTimeout: Duration, options: ExpiryOptions = {}): Promise<void> {
    return unlessIgnored(life.setExpiry(this[STATE], idleTimeout, options))
  }

  /**
   * Binds the session to a user in one atomic step: new ID, new token, and the old token is dead when the promise resolves.
   * The absolute timeout starts afresh.
   *
   * Of an anonymous session, and of one of the same user, the fields go over: all but what protects forms (the tokens and
   * secrets of csrf-sync, csurf, lusca and their like), or with `keep` those that it names (`false`: none). Of another user's
   * session nothing does, whatever `keep` says. `fields` are set in the same step, and go over in any case.
   *
   * `methods` and `level` say what proved who the user is, for `requireLevel()`, `metadata.authentication` and lists.
   * @param userId a text that is not empty, or a finite number; it keeps its type
   * @throws {SessionError} `INVALID_ARGUMENT`; `SESSION_LIMIT` when the user has too many sessions and the policy is to
   *   refuse; and as `renew()`.
   */
  login(
    userId: string | number,
    options: {
      keep?: boolean | readonly string[] | undefined
      fields?: { [Name in keyof SessionFields]?: SessionFields[Name] } & Record<string, unknown>
    } & ProofOptions = {},
  ): Promise<void> {
    const { keep = true, fields = {}, methods, level } = options
    return login(this[STATE], { userId, keep: keep === true ? 'all' : keep || [], fields, proof: { methods, level } })
  }

  /**
   * The user has proved again who they are, by password or another factor. A new ID and token, the same user and fields,
   * and both timeouts start afresh (NIST SP 800-63B-4). `requireRecentAuth()` and `requireLevel()` ask for it.
   *
   * `methods` are added to those of before, and the level is that of all together, never less than before. `level` says another.
   * @throws {SessionError} `INVALID_ARGUMENT` when nobody is logged in, and as `renew()`.
   */
  reauthenticate(options: ProofOptions = {}): Promise<void> {
    return unlessIgnored(life.reauthenticate(this[STATE], options))
  }

  /**
   * Ends the session for good. `req.session` is a new, empty one afterwards; unless that is filled, the cookie goes.
   * @throws {SessionError} as `destroy()`.
   */
  logout(): Promise<void> {
    return unlessIgnored(life.logout(this[STATE]))
  }

  /**
   * Begins again: the fields that this request knows of go, `initialFields` are set anew, and the logical ID is a new one. ID,
   * token and user stay. When it fails, everything is as it was.
   * @throws {SessionError} as `save()`; in a session that is not stored yet, `HEADERS_SENT` or `INSECURE_CONNECTION` when it
   *   can get no cookie.
   */
  restart(): Promise<void> {
    return unlessIgnored(life.restart(this[STATE]))
  }

  /**
   * Ends what the logical ID stands for, such as an order that was placed: what comes next has a new one, in the same session
   * with the same fields. Of several requests that do so at once, one does. Resolves to the new logical ID.
   * @throws {SessionError} as `restart()`.
   */
  completeWorkflow(): Promise<string> {
    return unlessIgnored(life.completeWorkflow(this[STATE]))
  }

  /** For features, which may be of another copy of this package. */
  get [INSIDE](): Inside {
    return new Insider(this[STATE])
  }

  /** What `console.log` shows: the ID and the names of the fields, no values. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Session ${this.id} { ${this.keys().join(', ')} }`
  }
}

export interface Session extends FieldProperties {}

/** Whether this is a `Session`, of this copy of the package or another: a program may load both builds. */
export function isSession(value: unknown): value is Session {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return typeof prototype === 'object' && prototype !== null && BRAND in prototype
}

/** Whether a session of this `lifecycle` is at hand, as far as this copy of the package can tell. */
export function belongsTo(session: Session, lifecycle: object): boolean {
  return !(session instanceof Session) || session[STATE].lifecycle === lifecycle
}

/** Makes sure that a session is as it is stored: what to wait for, if anything. As `life.refresh()`. */
export function refreshed(session: Session): Promise<void> | undefined {
  // A session of another copy of this package has no state that this one could read.
  return session instanceof Session ? life.refresh(session[STATE]) : undefined
}

/** How long ago the user of a session proved who they are; `null` when nobody is logged in, or that is not known. */
export function secondsSinceAuthentication(session: Session): number | null {
  const at = session.metadata.authenticatedAt
  // A session of another copy of this package has no state that this one could read.
  const now = session instanceof Session ? session[STATE].lifecycle.now() : Date.now()
  return at === undefined ? null : Math.max(0, now - at.getTime()) / 1000
}

/** Tells that the user of a session was asked for proof. */
export function tellReauthenticationRequired(
  session: Session,
  reason: SessionEventMap['reauthenticationRequired']['reason'],
): void {
  // A session of another copy of this package has no state that this one could read.
  if (!(session instanceof Session)) return
  const { lifecycle, host } = session[STATE]
  const id = session.isNew ? undefined : session.id
  const { userId } = session.metadata
  lifecycle.events.emit('reauthenticationRequired', { id, userId, reason, ...host.activityRequest() })
}

/** For who has ended sessions by ID or user: whether the session at hand is one of them is for `isOver` to say. */
export async function leaveIf(
  session: Session | undefined,
  lifecycle: object,
  isOver: (session: { readonly id: string; readonly userId: string | number | undefined }) => boolean,
): Promise<void> {
  if (!(session instanceof Session)) return
  const state = session[STATE]
  const { id, record } = state
  if (state.lifecycle === lifecycle && record !== null && isOver({ id, userId: record.userId })) await life.leave(state)
}

/** The public session that belongs to a state; always the same object. */
export function sessionOf(state: SessionState): Session {
  // Kept on the state: a WeakMap entry for each request costs more in garbage collection than all the rest of it.
  state.session ??= new Session(state)
  return state.session as Session
}

/** One handler serves all sessions. */
const fieldsAsProperties = propertiesOf(Session.prototype)
freezeMethods(Session.prototype)

function endsAtOf({ ttl, ...others }: SetOptions, clock: { now(): number }): number | undefined {
  for (const name of Object.keys(others)) {
    throw invalidOption(`There is no option "${name}" of set().${didYouMean(name, ['ttl'])}`)
  }
  return ttl === undefined ? undefined : clock.now() + milliseconds(ttl, 'ttl')
}

/** A promise that nobody waits for must not end the process: the response fails with it. */
function unlessIgnored<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore)
  return promise
}

/** Serves both habits: a promise, or a Node callback that is called outside of the promise's error handling. */
function settle<T>(promise: Promise<T>, callback: SessionCallback): void
function settle<T>(promise: Promise<T>, callback: SessionCallback | undefined): Promise<T> | void
function settle<T>(promise: Promise<T>, callback?: SessionCallback): Promise<T> | void {
  if (callback === undefined) return promise
  promise.then(
    () => process.nextTick(callback),
    (error) => process.nextTick(callback, error),
  )
}

function ignore(): void {}
