// What features may do with a session that applications do not: `inside(req.session)`.
//
// For code that extends sessions, in this package or another. An application has no use for it: what it keeps is fields.

import type { KeyObject } from 'node:crypto'
import { invalidArgument } from '../errors.js'
import type { Activity, ActivityRequest } from '../events/activity-hook.js'
import type { SessionEvents } from '../events/events.js'

/**
 * Where a session has its inside. The same symbol in every copy of this package, since a program may load both builds: a
 * feature need not come from the copy that made the session.
 */
export const INSIDE: unique symbol = Symbol.for('sojourn.inside')

/** The inside of one session in one request, as `inside()` gives it. */
export interface Inside {
  /**
   * A value that this feature keeps in the session, under its own name, beside the application's fields: stored, merged and
   * ended as a field is, and counted by `limits`, but seen by nobody else. `Object.keys`, spread, JSON, `keys()`, lists
   * and archives do not show it, and `clear()` and `restart()` leave it. It goes where all fields go: with
   * `regenerate({ keep: true })`, `login()` and `reauthenticate()`, but not with a `regenerate()` that keeps none or some,
   * and it ends with the session.
   *
   * `staysBehind: true` (default `false`) is for what protects, such as a secret of forms: it goes nowhere, not with `login()`
   * either. Who planted the session knows it. `endsWithLogin: true` (default `false`) is for what belongs to one login, such as a key
   * that was registered after it: it goes over with all but `login()`.
   * @param name of the feature and what it keeps, such as `'acme.flash'`: text of 1 to 100 characters
   * @throws {SessionError} `INVALID_ARGUMENT`
   */
  drawer<T = unknown>(
    name: string,
    options?: { staysBehind?: boolean | undefined; endsWithLogin?: boolean | undefined },
  ): Drawer<T>

  /**
   * Reads, changes and writes a group of drawers as one atomic step, at once: the drawer `group`, and those whose names begin with
   * `group` and a dot. All is stored or nothing, and only if the drawer `group` is still the one that `change` has read: so every step that
   * writes changes that one, too, and nobody writes to the group but by such steps. `change` is called again after each race
   * that it loses, as the function of `session.update()` is. Where it changes nothing, nothing is written.
   * @throws {SessionError} as `session.update()`.
   */
  updateGroup<T>(group: string, change: (drawers: DrawerGroup) => T | Promise<T>): Promise<T>

  /** The present by the manager's clock, in milliseconds since the epoch. */
  now(): number

  /** The application's fields as they are now, each in the text that the codec makes of it. No drawers. */
  texts(): ReadonlyMap<string, string>

  /**
   * Sets fields to what `texts()` gave, of this session or another; other fields stay. Nothing is set when one of them
   * cannot be decoded.
   * @throws {SessionError} `CORRUPT_RECORD` or what the codec throws; and as `session.set()`.
   */
  restore(texts: ReadonlyMap<string, string>): void

  /**
   * What goes over to another session, as the store keeps it: the application's fields but for those that protect forms, and the drawers of
   * these groups (see `updateGroup()`).
   */
  carried(groups?: readonly string[]): ReadonlyMap<string, string>

  /**
   * Puts another session in the place of this one, under a new ID and token, at once: `req.session` is that one afterwards. It
   * holds what `carried()` gave, of whichever session, and `drawers`, and of this one only what belongs to the login of the same user.
   *
   * Of the user who is logged in here it is a session as this one is, with the same timeouts. Of another `userId` it is a new one, in which
   * that user has proved nothing: `metadata.authenticatedAt` is `undefined`, and `requireRecentAuth()` asks. Whether whoever
   * sends the request may have it is for the feature to know.
   * @throws {SessionError} as `session.login()`.
   */
  replaceWith(next: {
    readonly texts: ReadonlyMap<string, string>
    readonly userId: string | number | undefined
    /** The logical ID that goes on in it; default: it has its own. */
    readonly logicalId?: string | undefined
    readonly drawers?: Readonly<Record<string, unknown>>
  }): Promise<void>

  /**
   * Keys for a purpose of this feature, one for each cookie secret, newest first: sign with the first, verify with any.
   * 256 bits each, derived from the secret by HKDF-SHA-256 (RFC 5869) for this purpose and this session ID. So what one
   * session was given is worth nothing in another, and nothing after `login()`, `reauthenticate()` or `regenerate()`.
   * Deriving takes some microseconds.
   * @param purpose of the feature and what the keys are for, such as `'acme.form-token'`: text of 1 to 100 characters
   * @throws {SessionError} `INVALID_ARGUMENT`
   */
  keys(purpose: string): readonly KeyObject[]

  /**
   * Keys for a purpose that are the same in every session, in all processes with the same secrets; else as those of `keys()`.
   * Bind what you make with them to `session.id` yourself. They are kept, so that asking again costs next to nothing: the
   * purpose is a text of the feature's own, never made of what a client says.
   * @throws {SessionError} `INVALID_ARGUMENT`
   */
  sharedKeys(purpose: string): readonly KeyObject[]

  /** What is told of sessions: a feature tells its own events here. */
  readonly events: SessionEvents

  /** What may be told of the request: its method, its path, and the client's address if that is recorded. */
  request(): ActivityRequest

  /** Whether the client came over HTTPS, by the connection or by a proxy that is trusted. */
  isHttps(): boolean

  /**
   * Calls `listener` once, when the handler has answered and before what the request has changed is stored: it may set drawers.
   * Not where there is no response, such as an upgrade.
   */
  beforeCommit(listener: () => void): void

  /**
   * Calls `listener` once, when all is stored and before the head of the response leaves: it may set headers. Not for a response
   * whose head has left already.
   */
  beforeHead(listener: () => void): void

  /** This request is no activity of its session, as one of `passivePaths`: to be called before anything is written. */
  passive(): void

  /**
   * Reads the session, for the rest of this request, as if its user had not proved lately who they are: `requireRecentAuth()` and
   * `requireLevel()` ask for it, `metadata.authenticatedAt` is `undefined`. Until `login()` or `reauthenticate()`.
   */
  doubtProof(): void

  /**
   * Revokes the session, at once, and says who did it and why. The request goes on with an empty one, as after `logout()`.
   * @throws {SessionError} as `session.logout()`.
   */
  revoke(why: { readonly by: string; readonly detail: string }): Promise<void>

  /** The logical ID, for logs and answers: the same as `session.logicalId`, but no session is stored for it. */
  showLogicalId(): string

  /**
   * Tells the activity hook of something that happened in this session. Returns `undefined` when there is no hook.
   * `keepsLogicalId: false`: no session is stored for it (default `true`).
   * @throws {SessionError} `INVALID_ARGUMENT` when the type is not text of 1 to 200 characters, or the details are no object.
   */
  recordActivity(
    type: string,
    details?: Record<string, unknown>,
    options?: { keepsLogicalId: boolean },
  ): Activity | undefined
}

/** The drawers of a group within one atomic step. Their names are whole ones: `'acme.cart'` and `'acme.cart.goods'`. */
export interface DrawerGroup {
  get(name: string): unknown
  set(name: string, value: unknown): void
  delete(name: string): void
}

/** One value that a feature keeps in a session. Reading and writing it work as with a field. */
export interface Drawer<T> {
  /** The value, `undefined` when there is none. A change inside of it is noticed. */
  get(): T | undefined
  /**
   * Whether there is a value that cannot be read, such as one that was encrypted with a key that is gone: `get()` says `undefined`. For
   * what protects, that is not the same as none.
   */
  isUnreadable(): boolean
  /**
   * With `ttlMs` (milliseconds, from now) the value is gone after that time.
   * @throws {SessionError} as `session.set()`.
   */
  set(value: T | undefined, options?: { ttlMs?: number | undefined }): void
  /** Returns whether there was a value. */
  delete(): boolean
  /** Reads, changes and writes the value as one atomic step, at once: see `session.update()`. */
  update<U extends T | undefined>(modify: (value: T | undefined) => U | Promise<U>): Promise<U>
}

/**
 * The inside of a session, for features.
 * @throws {SessionError} `INVALID_ARGUMENT` for what is no session of this package.
 */
export function inside(session: object): Inside {
  const found = (session as { [INSIDE]?: Inside } | null | undefined)?.[INSIDE]
  if (found === undefined) throw invalidArgument('inside() needs a session, such as req.session.')
  return found
}
