// express-session's `session()` on sessions of ours: `sojourn/express-session`. What it takes and how `req.session` behaves is as
// there; what is promised of updates, logouts and responses is as everywhere here.
import { createHmac, randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { CookieReading } from '../../cookie/cookie.js'
import { LONGEST_MS } from '../../duration.js'
import { invalidArgument } from '../../errors.js'
import type { SessionEvents } from '../../events/events.js'
import { hashToken } from '../../ids.js'
import { SessionManager } from '../../manager/manager.js'
import type { SessionOptions } from '../../options/options.js'
import type { SessionStore } from '../../record/store.js'
import type { Face } from '../../request/face.js'
import type { HttpRequest } from '../../request/http-request.js'
import * as life from '../../session/life.js'
import { chooseExpiry, isPersistent } from '../../session/response-cookie.js'
import { type Session as SojournSession, sessionOf } from '../../session/session.js'
import type { SessionState } from '../../session/state.js'
import { ConnectStore, type ExpressStore } from '../../stores/connect.js'
import { MemorySessionStore } from '../../stores/memory.js'
import { warnOnce } from '../../warn.js'
import { lenientCodec } from './codec.js'
import { Cookie, type CookieOptions, serialized } from './cookie.js'
import { DetachedSession } from './detached-session.js'
import { fieldsFormat } from './record-format.js'
import {
  type Attachment,
  Parts,
  type RequestSession,
  requestSession,
  type SessionData,
  type SessionMembers,
  unwrapped,
} from './request-session.js'
import { SignedCookies } from './signed-cookie.js'
import { MemoryStore, Store } from './store.js'
import { StoreView } from './store-view.js'

/** A key as express-session takes it. */
export type Secret = string | Buffer

/**
 * The options of express-session, and those of ours that it has no other word for, such as `absoluteTimeout`, `storeTimeout`,
 * `limits` or `activity`.
 */
export interface ExpressSessionOptions extends Omit<SessionOptions, 'secret' | 'store' | 'cookie' | 'trustProxy'> {
  /** What signs cookies; of a list, the first signs and all verify. Without it, `req.secret` of cookie-parser does. */
  secret?: Secret | readonly Secret[] | undefined
  /** The name of the cookie. @default 'connect.sid' */
  name?: string | undefined
  /** An older word for `name`. */
  key?: string | undefined
  /** The attributes of the cookie, or a function that gives them for a request. */
  // biome-ignore lint/suspicious/noExplicitAny: a request of whatever framework
  cookie?: CookieOptions | ((req: any) => CookieOptions) | undefined
  /** Where sessions are kept: one of our stores, or one that was written for express-session. @default a new `MemorySessionStore()` */
  store?: SessionStore | ExpressStore | undefined
  /** Write sessions that did not change, with each response. @default true, as in express-session */
  resave?: boolean | undefined
  /** Store sessions that have no fields. @default true, as in express-session */
  saveUninitialized?: boolean | undefined
  /** Send the cookie with each response, so that its end moves. @default false */
  rolling?: boolean | undefined
  /** What `req.session = null` does: `'destroy'` ends the session, `'keep'` leaves what is stored as it is. @default 'keep' */
  unset?: 'destroy' | 'keep' | undefined
  /** `true` believes `X-Forwarded-Proto`; `false` only the connection; without it `req.secure` of Express counts. */
  proxy?: boolean | undefined
  /** Makes the ID of a new session, `req.sessionID`. @default a UUID */
  // biome-ignore lint/suspicious/noExplicitAny: a request of whatever framework
  genid?: ((req: any) => string) | undefined
}

/** The middleware that `session()` returns. */
export interface ExpressSessionMiddleware {
  // biome-ignore lint/suspicious/noExplicitAny: requests and responses of whatever framework, as in express-session
  (req: any, res: any, next: (error?: any) => void): void
  /** What happens to sessions, for logs and counters. */
  readonly events: SessionEvents
  /** The same sessions without a request: list, revoke, clean up. */
  readonly manager: SessionManager
}

/** How long a session lives that has no `maxAge`, after its last use: what connect-redis gives one. */
const WINDOW_MS = 86_400_000
/** The token of all sessions whose cookie is express-session's: the signature alone proves the right to one. */
const TOKEN = { token: 'express-session', tokenHash: hashToken('express-session') }

/** On a request, what the middleware notes of it. */
const NOTES: unique symbol = Symbol.for('sojourn.express-session')

interface Notes extends Attachment {
  readonly signed: SignedCookies
  /** The ID of the cookie that the request came with. */
  cookieId: string | undefined
  state: SessionState | undefined
  parts: Parts | undefined
  shown: RequestSession | undefined
  /** The fields of the session that the request began with, to tell whether it changed them. */
  fieldsBefore: ReadonlyMap<string, string> | undefined
  isUnset: boolean
}

/** A request with what express-session puts on it. */
type ExpressRequest = Omit<IncomingMessage, 'session'> & {
  [NOTES]?: Notes
  session?: unknown
  sessionID?: unknown
  sessionStore?: unknown
  secret?: Secret
  secure?: boolean
  originalUrl?: string
  cookies?: Record<string, unknown>
  signedCookies?: Record<string, unknown>
}

/**
 * express-session, with its options and habits, on sessions that lose no update and stay ended. See the page on moving from
 * express-session for the faults that it does not copy.
 * @throws {TypeError} for an option that express-session refuses, and `SessionError` `INVALID_OPTION` for one of ours
 */
export function session(options: ExpressSessionOptions = {}): ExpressSessionMiddleware {
  return new Middleware(options).handler()
}

class Middleware implements Face {
  readonly token = TOKEN
  readonly #name: string
  readonly #cookie: CookieOptions | ((req: HttpRequest) => CookieOptions)
  readonly #proxy: boolean | undefined
  readonly #rolling: boolean
  readonly #savesEmpty: boolean
  readonly #endsWhenUnset: boolean
  readonly #genid: ((req: HttpRequest) => string) | undefined
  readonly #signed: SignedCookies | undefined
  /** For the secrets of cookie-parser, which come with the request. */
  readonly #signedBy = new Map<Secret, SignedCookies>()
  readonly #idleMs: number
  readonly #manager: SessionManager
  readonly #store: object
  #isConnected = true

  constructor(options: ExpressSessionOptions) {
    const {
      secret,
      name,
      key,
      cookie = {},
      store,
      resave,
      saveUninitialized,
      rolling,
      unset,
      proxy,
      genid,
      ...ours
    } = options
    if (genid !== undefined && typeof genid !== 'function') throw new TypeError('genid option must be a function')
    if (unset !== undefined && unset !== 'destroy' && unset !== 'keep') {
      throw new TypeError('unset option must be "destroy" or "keep"')
    }
    const secrets = secretsOf(secret)
    this.#name = name ?? key ?? 'connect.sid'
    this.#signed = secrets && new SignedCookies(this.#name, secrets, TOKEN)
    this.#cookie = cookie
    this.#proxy = proxy
    this.#rolling = rolling === true
    this.#savesEmpty = saveUninitialized ?? true
    this.#endsWhenUnset = unset === 'destroy'
    this.#genid = genid
    const { originalMaxAge } = typeof cookie === 'function' ? new Cookie() : new Cookie(cookie)
    const isPersistent = originalMaxAge !== null
    this.#idleMs = Math.min(Math.max(1, Math.round(originalMaxAge ?? WINDOW_MS)), LONGEST_MS)
    const idleTimeout = ours.idleTimeout ?? `${this.#idleMs}ms`
    const writesAlways = this.#rolling || (resave ?? true)
    const codec = ours.codec ?? lenientCodec()
    const staticCookie = typeof cookie === 'function' ? {} : cookie
    const format = {
      token: TOKEN,
      cookie: staticCookie,
      isPersistent,
      idleTimeoutMs: this.#idleMs,
      absoluteTimeoutMs: LONGEST_MS,
      clock: ours.clock ?? Date.now,
    }
    // Shared in any case: the application calls it itself, as req.sessionStore.
    const sessionStore = isSessionStore(store)
      ? store
      : store && new ConnectStore(store, fieldsFormat(format), { shared: true })
    this.#manager = new SessionManager(
      {
        absoluteTimeout: `${LONGEST_MS}ms`,
        clientContext: false,
        ...(writesAlways && { touchInterval: 0 }),
        ...ours,
        secret: stretched(secrets),
        store: sessionStore ?? new MemorySessionStore(ours.clock && { clock: ours.clock }),
        idleTimeout,
        codec,
        cookie: { name: 'sid', secure: 'when-https', persistent: isPersistent, onConflict: 'first' },
      },
      this,
    )
    const view = { manager: this.#manager, codec, token: TOKEN, cookie: staticCookie, isPersistent }
    this.#store = isSessionStore(store) || !store ? new StoreView({ ...view, idleTimeoutMs: this.#idleMs }) : store
    this.#listen(this.#store as Store)
  }

  handler(): ExpressSessionMiddleware {
    const attach = this.#manager.middleware()
    const sessionMiddleware = (req: ExpressRequest, res: object, next: (error?: unknown) => void): void => {
      if (req.session || !this.#isConnected) {
        next()
        return
      }
      let notes: Notes | string
      try {
        notes = this.#notesOf(req)
      } catch (error) {
        next(error)
        return
      }
      if (typeof notes === 'string') {
        next(notes === '' ? undefined : new Error(notes))
        return
      }
      req[NOTES] = notes
      if (req.session !== undefined) req.session = undefined
      req.sessionStore = this.#store
      attach(req as never, res, (error) => {
        if (error === undefined) next()
        else next(unwrapped(error))
      })
    }
    return Object.freeze(Object.assign(sessionMiddleware, { events: this.#manager.events, manager: this.#manager }))
  }

  /** What is to be known of a request; a text when it is not for us, which is the error if it is not empty. */
  #notesOf(req: ExpressRequest): Notes | string {
    const cookie = typeof this.#cookie === 'function' ? this.#cookie(req as never) : this.#cookie
    if (!isInScope(req, cookie.path ?? '/')) return ''
    const signed = this.#signed ?? this.#signedOf(req.secret)
    if (signed === undefined) return 'secret option required for sessions'
    return {
      req,
      cookie,
      signed,
      windowMs: WINDOW_MS,
      isSecure: this.#isSecure(req),
      cookieId: undefined,
      state: undefined,
      parts: undefined,
      shown: undefined,
      fieldsBefore: undefined,
      isUnset: false,
    }
  }

  #signedOf(secret: Secret | undefined): SignedCookies | undefined {
    if (!secret) return undefined
    const known = this.#signedBy.get(secret) ?? new SignedCookies(this.#name, [secret], TOKEN)
    this.#signedBy.set(secret, known)
    return known
  }

  #isSecure({ socket, secure, headers }: ExpressRequest): boolean {
    if ((socket as { encrypted?: boolean } | undefined)?.encrypted) return true
    if (this.#proxy === false) return false
    if (this.#proxy !== true) return secure === true
    const [first = ''] = String(headers['x-forwarded-proto'] ?? '').split(',')
    return first.trim().toLowerCase() === 'https'
  }

  // --- The face ---

  readCookie(request: HttpRequest): CookieReading {
    const req = request as unknown as ExpressRequest
    const notes = req[NOTES] as Notes
    const reading = notes.signed.read(req.headers.cookie)
    notes.cookieId = reading.claims[0]?.id ?? idOfParser(req, this.#name, notes.signed)
    if (reading.claims.length > 0 || notes.cookieId === undefined) return reading
    return { ...notes.signed.readingOf(notes.cookieId), rejected: reading.rejected }
  }

  newId(req: HttpRequest): string | undefined {
    return this.#genid?.(req)
  }

  show(state: SessionState, request: HttpRequest): void {
    const req = request as unknown as ExpressRequest
    const notes = req[NOTES] as Notes
    const isFirst = notes.state === undefined
    notes.state = state
    notes.parts = new Parts(state, notes)
    notes.shown = requestSession(notes.parts)
    if (isFirst) notes.fieldsBefore = state.record?.fields
    if (state.record !== null && state.record.id === state.id && isFirst) notes.cookieId = state.id
    req.session = notes.shown
    req.sessionID = state.id
    if (state.record !== null || state.standing !== 'live') return
    // A session that was ended by its own ID is not begun again by itself.
    state.isWanted = this.#savesEmpty && !state.isAfterLogout
    this.#giveItsEnd(state, notes.cookie)
  }

  /** A new session whose request, or whose Date, gives it another end than that of the middleware. */
  #giveItsEnd(state: SessionState, cookie: CookieOptions): void {
    if (typeof this.#cookie !== 'function' && !(cookie.expires instanceof Date) && !(cookie.maxAge instanceof Date))
      return
    const { originalMaxAge } = new Cookie(cookie)
    if (originalMaxAge === null) return
    const idleMs = Math.min(Math.max(0, Math.round(originalMaxAge)), LONGEST_MS)
    chooseExpiry(state, { idleMs, persistent: true })
  }

  settle(state: SessionState, request: HttpRequest): Promise<void> | undefined {
    const req = request as unknown as ExpressRequest
    const { parts, shown } = req[NOTES] as Notes
    if (state.standing !== 'live' || parts === undefined) return undefined
    if (req.session !== shown) return this.#settleAssigned(state, req)
    if (typeof req.sessionID !== 'string') {
      leave(state)
      return undefined
    }
    parts.settleCookie()
    if (!parts.wantsTouch || state.record === null) return undefined
    parts.wantsTouch = false
    return life.touch(state, true)
  }

  #settleAssigned(state: SessionState, req: ExpressRequest): Promise<void> | undefined {
    if (req.session !== null && req.session !== undefined) {
      throw invalidArgument('req.session was replaced by another object: assign its fields, or null to unset it.')
    }
    if (!this.#endsWhenUnset) {
      leave(state)
      return undefined
    }
    return life.destroy(state)
  }

  setCookie(state: SessionState, request: HttpRequest): string | null {
    const req = request as unknown as ExpressRequest
    const { parts, cookieId, signed, fieldsBefore, isSecure } = req[NOTES] as Notes
    const isStored = state.record !== null || state.promised() !== undefined
    if (state.standing !== 'live' || !isStored || parts === undefined) return null
    const hasMoved = state.record?.fields !== fieldsBefore && isPersistent(state)
    if (cookieId === state.id && !hasMoved && !this.#rolling) return null
    const cookie = parts.finalCookie()
    if (cookie.secure === true && !isSecure) {
      warnOnce(this.#manager, 'express_session', PLAIN_HTTP)
      return null
    }
    const needsSecure = cookie.partitioned === true || String(cookie.sameSite).toLowerCase() === 'none'
    const isSent = cookie.secure === true || (cookie.secure === undefined && needsSecure && isSecure)
    return serialized(cookie, { name: this.#name, value: signed.valueOf(state.id), isSecure: isSent })
  }

  isForStranger(state: SessionState, request: HttpRequest): boolean {
    const { cookieId } = (request as unknown as ExpressRequest)[NOTES] as Notes
    return cookieId === undefined && state.record === null && state.fields.allNames().length === 0
  }

  // --- The store ---

  #listen(store: Store): void {
    store.generate = (req: ExpressRequest): void => {
      const { state } = req[NOTES] ?? {}
      if (state === undefined)
        throw invalidArgument('This request has no session of the middleware that the store belongs to.')
      void (state.standing === 'ended' ? life.logout(state) : life.leave(state))
      const next = req[NOTES]?.state
      if (next !== undefined) next.isWanted = this.#savesEmpty
    }
    if (typeof store.on !== 'function') return
    store.on('disconnect', () => {
      this.#isConnected = false
    })
    store.on('connect', () => {
      this.#isConnected = true
    })
  }
}

/** The response has nothing to do with the session any more: what is stored stays as it is. */
function leave(state: SessionState): void {
  state.standing = 'replaced'
  state.cookie = 'keep'
}

/** The session of a request with all members of ours: `login()`, `logout()`, `update()`, `id` … */
export function sojournOf(req: object): SojournSession {
  const { state } = (req as unknown as ExpressRequest)[NOTES] ?? {}
  if (state === undefined)
    throw invalidArgument('sojournOf() needs a request that the middleware of sojourn/express-session has seen.')
  followId(req as unknown as ExpressRequest)
  return sessionOf(state)
}

/** `login()` gives the session at hand another ID. */
function followId(req: ExpressRequest): void {
  Object.defineProperty(req, 'sessionID', {
    get: () => req[NOTES]?.state?.id,
    set(value: unknown) {
      Object.defineProperty(req, 'sessionID', { value, writable: true, configurable: true })
    },
    configurable: true,
    enumerable: true,
  })
}

/** Whether the path of a request begins as that of the cookie. */
function isInScope({ originalUrl, url }: ExpressRequest, path: string): boolean {
  const target = originalUrl ?? url ?? '/'
  if (path === '/' && target.startsWith('/')) return true
  const [pathname = ''] = target.split(/[?#]/, 1)
  return (pathname || '/').startsWith(path)
}

/** What cookie-parser has read, for who takes the cookie out of the header. */
function idOfParser(req: ExpressRequest, name: string, signed: SignedCookies): string | undefined {
  const verified = req.signedCookies?.[name]
  if (typeof verified === 'string' && verified !== '') return verified
  const raw = req.cookies?.[name]
  return typeof raw === 'string' ? signed.idOf(raw) : undefined
}

function isSessionStore(store: SessionStore | ExpressStore | undefined): store is SessionStore {
  const { create, update, end } = (store ?? {}) as Partial<SessionStore>
  return typeof create === 'function' && typeof update === 'function' && typeof end === 'function'
}

function secretsOf(secret: ExpressSessionOptions['secret']): readonly Secret[] | undefined {
  if (Array.isArray(secret) && secret.length === 0) {
    throw new TypeError('secret option array must contain one or more strings')
  }
  const secrets = (Array.isArray(secret) ? secret : [secret]) as (Secret | undefined)[]
  const given = secrets.filter((one): one is Secret => one !== undefined && one !== '' && one !== null)
  if (given.length === 0) return undefined
  for (const one of given) {
    if (typeof one === 'string' || Buffer.isBuffer(one)) continue
    throw new TypeError('secret option must be text or a Buffer, or a list of them')
  }
  if (given.some((one) => Buffer.byteLength(one as string) < MIN_SECRET_BYTES))
    warnOnce(WEAK, 'express_session', WEAK_SECRET)
  return given
}

const MIN_SECRET_BYTES = 32

/** The keys that features derive theirs from: of full length, whatever the secret is. Without one, of this process alone. */
function stretched(secrets: readonly Secret[] | undefined): string[] {
  if (secrets === undefined) return [randomBytes(48).toString('base64url')]
  return secrets.map((secret) => createHmac('sha512', 'sojourn express-session 1').update(secret).digest('base64url'))
}

const WEAK = {}
const WEAK_SECRET =
  'A secret has less than 32 bytes: who has seen one cookie can guess at it. Make a new one with `openssl rand -base64 32` and ' +
  'put it first in the list, so that the old one still verifies.'
const PLAIN_HTTP =
  'A session cookie was not sent: it is Secure, and the request came over plain HTTP. Behind a proxy that ends TLS, set ' +
  "app.set('trust proxy', 1), or proxy: true without Express."

session.Store = Store
session.MemoryStore = MemoryStore
session.Cookie = Cookie
session.Session = DetachedSession

/** The type of `req.session` without its fields, and the class of sessions outside of a request. */
export type Session = SessionMembers
/** For `instanceof`, which holds for `req.session`, too. */
export const Session = DetachedSession as unknown as new (...parts: never[]) => Session

export type { ExpressSessionOptions as SessionOptions, SessionData }
export { Cookie, type CookieOptions, MemoryStore, Store, session as default }
