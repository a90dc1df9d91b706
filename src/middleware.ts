// The request path, from top to bottom: read the cookie, load, attach, let the handler run, commit, set the cookie.
import { type IncomingMessage, ServerResponse } from 'node:http'
import { type Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import { runWithSession, type SessionHolder } from './context.js'
import { clearCookie, hasCookie, isInScope, readCookie, writeCookie } from './cookie.js'
import { isSessionError, SessionError } from './errors.js'
import { type SessionEvents, warn } from './events.js'
import { SessionManager } from './manager.js'
import { resolveOptions, type SessionOptions } from './options.js'
import { HeldResponse, type HttpResponse, type ResponseHooks } from './response.js'
import { isSession, type Session, sessionOf } from './session.js'
import { type SessionHost, type SessionOrigin, SessionState } from './session-state.js'
import type { SessionStore } from './store.js'

/** A request of `node:http`, `node:https` or the compatibility API of `node:http2`. */
export type HttpRequest = IncomingMessage | Http2ServerRequest

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
}

declare global {
  namespace Express {
    interface Request {
      session: Session
    }
  }
}

/**
 * Server-side sessions: `app.use(session({ secret }))` gives every request a `req.session`.
 *
 * What a response does, by what became of the session:
 *
 * | status                | store                            | cookie                              |
 * | --------------------- | -------------------------------- | ----------------------------------- |
 * | new, nothing set      | nothing                          | nothing                             |
 * | new, with fields      | `create`                         | set                                 |
 * | unchanged             | `touch`, when a touch is due     | only when the cookie itself must move |
 * | changed               | `update` with the changed fields | only when the cookie itself must move |
 * | renewed, regenerated  | one atomic step, at the call     | set                                 |
 * | destroyed, logged out | `end`, at the call               | cleared with the same attributes    |
 *
 * A cookie must move when its token changed, when it was signed with an older secret, when its attributes were chosen
 * anew, and, if it is persistent, when the session's end has moved.
 *
 * @throws {SessionError} `INVALID_OPTION`
 */
export function session(options: SessionOptions): SessionMiddleware {
  const manager = new SessionManager(resolveOptions(options))
  const { cookie, trustProxy, onStoreError } = manager.options
  const isProduction = process.env['NODE_ENV'] === 'production'
  const needsHttps = cookie.secure === true || (cookie.secure === 'auto' && isProduction)

  function sessionMiddleware(req: HttpRequest, res: HttpResponse | object, next: Next): void {
    const request = req as SessionRequest
    if (isSession(request.session) || !isInScope(cookie, request.originalUrl ?? req.url)) {
      next()
      return
    }
    if (request.session !== undefined) {
      next(new SessionError('INVALID_OPTION', 'req.session is taken: another session middleware runs before this one.'))
      return
    }

    // Read the cookie.
    const isSecure = cookie.secure !== false && isEncrypted(request, trustProxy)
    const mayUseCookie = isSecure || !needsHttps
    const cookieName = isSecure ? cookie.secureName : cookie.plainName
    const cookieHeader = mayUseCookie ? req.headers.cookie : undefined
    const { claims, rejected } = readCookie(cookieHeader, cookieName, cookie.keys)
    if (rejected !== null) manager.events.emit('badCookie', { reason: rejected })
    const exchange = new Exchange(manager, request, res, next, { isSecure, mayUseCookie, cookieName, cookieHeader })
    if (claims.length === 0) {
      exchange.begin('new')
      return
    }

    // Load.
    manager.find(claims).then(
      (found) => exchange.begin(found ?? 'new'),
      (error) => {
        // Who this is cannot be known now. The cookie stays as it is: the next request may fare better.
        if (onStoreError === 'anonymous') exchange.begin('unavailable')
        else exchange.refuse(error)
      },
    )
  }

  return Object.freeze(Object.assign(sessionMiddleware, { events: manager.events, store: manager.options.store }))
}

/** What the request says of its cookie. */
interface CookieFacts {
  readonly isSecure: boolean
  /** `false` when the cookie must be Secure and the connection is not. */
  readonly mayUseCookie: boolean
  readonly cookieName: string
  readonly cookieHeader: string | undefined
}

/** One request and its response, from the loaded session to the cookie. */
class Exchange implements SessionHost, ResponseHooks {
  readonly #manager: SessionManager
  readonly #req: SessionRequest
  readonly #res: HttpResponse | object
  readonly #next: Next
  readonly #facts: CookieFacts
  #state!: SessionState
  #holder!: SessionHolder
  /** The response, held until the commit when there may be one; a WebSocket upgrade has none. */
  #held: HeldResponse | null = null
  #areHeadersDecided = false
  #isResponded = false

  constructor(
    manager: SessionManager,
    req: SessionRequest,
    res: HttpResponse | object,
    next: Next,
    facts: CookieFacts,
  ) {
    this.#manager = manager
    this.#req = req
    this.#res = res
    this.#next = next
    this.#facts = facts
  }

  // --- Attach, and let the handler run ---

  begin(origin: SessionOrigin): void {
    if (isResponse(this.#res) && !isPlain(this.#res)) {
      keepInDictionary(this.#req, 'url')
      keepInDictionary(this.#res, 'req')
    }
    this.#attach(origin)
    if (isResponse(this.#res)) {
      this.#held = new HeldResponse(this.#res, this)
      if (isPlain(this.#res) || this.#state.mayCommit()) this.#held.hold()
    }
    if (this.#manager.options.context) runWithSession(this.#holder, this.#next)
    else this.#next()
  }

  /** The session cannot be loaded. Error handlers get an empty one that cannot be written. */
  refuse(error: unknown): void {
    this.#attach('unavailable')
    this.#answer(error)
  }

  #attach(origin: SessionOrigin): void {
    this.#state = new SessionState(this.#manager, this, origin)
    this.#holder = { session: sessionOf(this.#state) }
    this.#req.session = this.#holder.session
  }

  // --- While the handler runs ---

  replace(successor: SessionState): void {
    this.#state = successor
    this.#holder.session = sessionOf(successor)
    this.#req.session = this.#holder.session
  }

  /**
   * The session was looked at: the response depends on the cookie. Said at once where the response is not held; where it
   * is, with the other headers, when nobody can take it back any more.
   */
  onUse(): void {
    const res = this.#res as HttpResponse
    if (this.#held && !this.#held.isHolding && !res.headersSent) varyByCookie(res)
  }

  /** From now on a commit may have something to do. */
  onSuspect(): void {
    if (!this.#held || this.#held.isHolding) return
    this.#held.hold()
    // A head that left before the session was touched has nothing to say of it.
    if (this.#held.isHeadOut) this.#areHeadersDecided = true
  }

  cookieOutlook(): 'open' | 'headers-sent' | 'insecure' | 'no-response' {
    if (!this.#facts.mayUseCookie) return 'insecure'
    if (this.#held === null) return 'no-response'
    return this.#areHeadersDecided || this.#isResponded ? 'headers-sent' : 'open'
  }

  isResponded(): boolean {
    return this.#isResponded
  }

  // --- Commit ---

  beforeHead(isLast: boolean): Promise<void> | undefined {
    if (this.#manager.options.commit === 'before-response') return this.#commit(isLast)
    if (this.#state.plan().status === 'new') this.#state.promiseCookie()
    this.#decideHeaders()
    if (isLast) this.#commitLater()
    return undefined
  }

  beforeEnd(): Promise<void> | undefined {
    if (this.#manager.options.commit === 'before-response') return this.#commit(true)
    this.#commitLater()
    return undefined
  }

  /** Brings the store up to date. Returns nothing when there is nothing to wait for. */
  #commit(isLast: boolean): Promise<void> | undefined {
    const state = this.#state
    // Something that the handler did not wait for is under way: what it leaves behind is what counts, a failure too.
    if (state.running) return state.running.then(() => this.#commit(isLast))
    const writing = this.#write(state)
    if (writing) return writing.then(() => this.#finish(isLast))
    this.#finish(isLast)
    return undefined
  }

  #write(state: SessionState): Promise<void> | undefined {
    const plan = state.plan()
    switch (plan.status) {
      case 'empty':
      case 'destroyed':
        return undefined
      case 'new':
        if (state.canBeCreated()) return state.commit(plan)
        state.tellLateChange('headers-sent')
        return undefined
      case 'unchanged':
        return state.isTouchDue() ? state.touch().catch(ignoreTouchFailure) : undefined
      case 'changed':
        return state.commit(plan)
    }
  }

  #finish(isLast: boolean): void {
    this.#decideHeaders()
    if (isLast) this.#isResponded = true
  }

  #commitLater(): void {
    const written = new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#commit(true))
    written.catch((error) => {
      // A store error has been told as an event.
      if (!isStoreError(error)) warn(`A session was not stored: ${messageOf(error)}`, 'commit')
    })
  }

  // --- Set the cookie ---

  #decideHeaders(): void {
    if (this.#areHeadersDecided) return
    this.#areHeadersDecided = true
    this.#held?.changeHead(() => {
      const res = this.#res as HttpResponse
      const setCookie = this.#setCookie()
      if (setCookie !== null) {
        res.appendHeader('Set-Cookie', setCookie)
        if (!NO_STORE.test(String(res.getHeader('Cache-Control')))) res.setHeader('Cache-Control', 'no-store')
      }
      if (this.#state.hasStoreFailed && res.statusCode === 503 && !res.hasHeader('Retry-After')) {
        res.setHeader('Retry-After', '1')
      }
      if (setCookie !== null || this.#state.wasUsed) varyByCookie(res)
    })
  }

  #setCookie(): string | null {
    const { cookie } = this.#manager.options
    const { isSecure, cookieHeader, cookieName } = this.#facts
    const attributes = this.#state.cookieAttributes
    if (this.#state.cookie === 'clear' && hasCookie(cookieHeader, cookieName)) {
      return clearCookie(cookie, isSecure, attributes)
    }
    const content = this.#state.cookie === 'set' ? this.#state.cookieContent() : null
    if (content === null) return null
    if (!isSecure && cookie.secure === 'auto') warnOfPlainHttp(this.#manager)
    return writeCookie(cookie, { ...content, isSecure, attributes })
  }

  // --- When it fails ---

  onError(error: unknown, canAnswer: boolean): void {
    this.#isResponded = true
    if (canAnswer) this.#answer(error)
    else if (!isStoreError(error)) warn(`A response was cut off: ${messageOf(error)}`, 'commit')
  }

  #answer(error: unknown): void {
    if (isResponse(this.#res) && !this.#res.headersSent) {
      // An error handler that chooses no status must not turn this into a success.
      this.#res.statusCode = isSessionError(error) ? error.status : 500
      if (isStoreError(error)) this.#res.setHeader('Retry-After', '1')
    }
    this.#next(error)
  }
}

type Next = (error?: unknown) => void

type SessionRequest = HttpRequest & RequestExtras

interface RequestExtras {
  session?: Session | undefined
  /** Express and Connect keep the whole URL here. */
  originalUrl?: string
  /** Express's judgement, which honours `trust proxy`. */
  secure?: boolean
}

function isEncrypted(req: SessionRequest, trustProxy: boolean): boolean {
  if ((req.socket as { encrypted?: boolean }).encrypted) return true
  if (typeof req.secure === 'boolean') return req.secure
  if (!trustProxy) return false
  const forwarded = req.headers['x-forwarded-proto']
  const [first] = String(forwarded ?? '').split(',')
  return first?.trim().toLowerCase() === 'https'
}

/** A WebSocket upgrade has no response, or a stand-in that cannot wait. */
function isResponse(res: HttpResponse | object): res is HttpResponse {
  return res instanceof ServerResponse || res instanceof Http2ServerResponse
}

/** Under plain Node holding costs next to nothing, and handlers like to call `writeHead` before they touch the session. */
function isPlain(res: HttpResponse): boolean {
  const prototype: unknown = Object.getPrototypeOf(res)
  return prototype === ServerResponse.prototype || prototype === Http2ServerResponse.prototype
}

const V8_MAJOR = Number.parseInt(process.versions.v8, 10)

/**
 * Express gives every request and response another prototype. Up to V8 12 (Node 22) such an object gets a hidden class of
 * its own, with a copy of all descriptors, for each property that anybody adds: 3 us, and 1 KB that lives until the next
 * full collection. Adding to an object that V8 keeps as a dictionary costs nothing of that. Changing an attribute of any
 * property makes it one; changing it back leaves no trace.
 */
function keepInDictionary(object: object, property: string): void {
  if (V8_MAJOR > 12 || !Object.prototype.propertyIsEnumerable.call(object, property)) return
  if (Reflect.defineProperty(object, property, { enumerable: false })) {
    Reflect.defineProperty(object, property, { enumerable: true })
  }
}

/** The directive as a whole, in any case (RFC 9111 5.2). */
const NO_STORE = /(^|,)\s*no-store\s*(,|$)/i

function varyByCookie(res: HttpResponse): void {
  const vary = res.getHeader('Vary')
  if (vary === undefined) res.setHeader('Vary', 'Cookie')
  else if (!/(^|,)\s*(\*|cookie)\s*(,|$)/i.test(String(vary))) res.setHeader('Vary', `${String(vary)}, Cookie`)
}

const warnedOfPlainHttp = new WeakSet<SessionManager>()

function warnOfPlainHttp(manager: SessionManager): void {
  if (warnedOfPlainHttp.has(manager)) return
  warnedOfPlainHttp.add(manager)
  warn('Session cookies go without Secure, because requests come over plain HTTP.', 'plain_http')
}

/** That the session ended, or that the touch failed and was told, does not spoil a response that changed nothing. */
function ignoreTouchFailure(error: unknown): void {
  if (!isStoreError(error) && !isSessionError(error, 'SESSION_ENDED')) throw error
}

function isStoreError(error: unknown): boolean {
  return isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT', 'SESSION_READ_ONLY')
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
