// The request path, from top to bottom: read the cookie, load, attach, let the handler run, commit, set the cookie.
import { ServerResponse, STATUS_CODES } from 'node:http'
import { Http2ServerResponse } from 'node:http2'
import {
  believesFirst,
  clearCookie,
  hasCookie,
  isInScope,
  readCookie,
  VerifiedCookies,
  writeCookie,
} from '../cookie/cookie.js'
import { invalidArgument, isSessionError, isStoreFault, SessionError } from '../errors.js'
import { type ActivityRequest, recordActivity, type SessionActivityType } from '../events/activity-hook.js'
import type { Finding } from '../lifecycle/finding.js'
import type { Lifecycle } from '../lifecycle/lifecycle.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import type { SessionContext } from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { runForRequest, runWithSession } from '../request-scope.js'
import { mayCommit, promiseNextStep, renewBeforeHead, takeNextStep } from '../session/commit.js'
import { Fields } from '../session/fields.js'
import { tellUncalled, WATCHES_MEMBERS } from '../session/misread-members.js'
import { cookieContent } from '../session/response-cookie.js'
import { belongsTo, isSession, sessionOf } from '../session/session.js'
import { type SessionHost, type SessionOrigin, SessionState } from '../session/state.js'
import { isPromise, type Soon } from '../soon.js'
import { warn, warnOfFailure, warnOnce } from '../warn.js'
import { whenUnhandled } from './abandoned.js'
import { contextOf, ipOf } from './client.js'
import type { SessionHolder } from './current-session.js'
import type { Face } from './face.js'
import { type HttpRequest, isEncrypted, type SessionRequest, trustsProxy } from './http-request.js'
import type { HttpResponse } from './http-response.js'
import { forbidStoring, setPageHeaders } from './page-headers.js'
import { HeldResponse, type ResponseHooks } from './response.js'

/** Attaches the session and calls `next`; see `SessionMiddleware` in manager.ts. */
type RequestHandler = (req: HttpRequest, res: HttpResponse | object, next: Next) => void

/** The request path of sessions on `engine`. `session()` in manager.ts says what a response does. */
export function requestPath(engine: Lifecycle, face?: Face): RequestHandler {
  const { cookie, trustProxy, onStoreError, clientContext, isFresh } = engine.options
  const isProduction = process.env['NODE_ENV'] === 'production'
  const verified = new VerifiedCookies()
  const needsHttps = cookie.secure === true || (cookie.secure === 'auto' && isProduction)

  const attach: RequestHandler = function sessionMiddleware(
    req: HttpRequest,
    res: HttpResponse | object,
    next: Next,
  ): void {
    const request = req as SessionRequest
    const isOurs = isSession(request.session) && belongsTo(request.session, engine)
    if (isOurs || !isInScope(cookie, request.originalUrl ?? req.url)) {
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
    const { claims, rejected } =
      face === undefined ? readCookie(cookieHeader, cookieName, cookie.keys, verified) : face.readCookie(req)
    if (rejected !== null) engine.events.emit('badCookie', { reason: rejected, ip: ipOf(request, clientContext) })
    if (!isSecure && cookie.secureName !== cookie.plainName && hasCookie(req.headers.cookie, cookie.secureName)) {
      warnOnce(engine, 'untrusted_proxy', UNTRUSTED_PROXY)
    }
    const exchange = new Exchange(engine, request, res, next, {
      isSecure,
      mayUseCookie,
      cookieName,
      cookieHeader,
      face,
    })
    if (claims.length === 0) {
      exchange.begin('new')
      return
    }

    // Load.
    const begin = (found: Finding): void => exchange.begin(found ?? 'new')
    const goWithout = (error: unknown): void => {
      // Who this is cannot be known now. The cookie stays as it is: the next request may fare better.
      if (onStoreError === 'anonymous') exchange.begin('unavailable')
      else exchange.refuse(error)
    }
    let finding: Soon<Finding>
    try {
      const ip = (): string | undefined => ipOf(request, clientContext)
      const isFirst = claims.length === 1 || believesFirst(cookie, cookieName)
      finding = engine.find(claims, { ip, believesFirst: isFirst, isFresh: isFresh?.(request) })
    } catch (error) {
      goWithout(error)
      return
    }
    if (isPromise(finding)) finding.then(begin, goWithout)
    else begin(finding)
  }
  if (engine.options.activity === undefined) return attach

  const sessionMiddleware: RequestHandler = (req, res, next) => {
    runForRequest(
      () => activityRequestOf(req, clientContext),
      () => attach(req, res, next),
    )
  }
  return sessionMiddleware
}

/** What the request says of its cookie. */
interface CookieFacts {
  readonly isSecure: boolean
  /** `false` when the cookie must be Secure and the connection is not. */
  readonly mayUseCookie: boolean
  readonly cookieName: string
  readonly cookieHeader: string | undefined
  /** Of a middleware that has one. */
  readonly face: Face | undefined
}

/** One request and its response, from the loaded session to the cookie. */
class Exchange implements SessionHost, ResponseHooks {
  readonly #engine: Lifecycle
  readonly #req: SessionRequest
  readonly #res: HttpResponse | object
  readonly #next: Next
  readonly #facts: CookieFacts
  #state!: SessionState
  #holder!: SessionHolder
  /** The response, held until the commit; a WebSocket upgrade has none. */
  #held: HeldResponse | null = null
  isPassive = false
  headListeners: (() => void)[] | undefined
  declare commitListeners?: (() => void)[] | undefined
  declare clearAfterLogout?: string
  #endedBefore: EndedSession | null = null
  #areHeadersDecided = false
  #isResponded = false
  /** Writes of the commit under way. */
  #writes = 0

  constructor(engine: Lifecycle, req: SessionRequest, res: HttpResponse | object, next: Next, facts: CookieFacts) {
    this.#engine = engine
    this.#req = req
    this.#res = res
    this.#next = next
    this.#facts = facts
  }

  // --- Attach, and let the handler run ---

  begin(origin: SessionOrigin): void {
    if (typeof origin === 'object' && 'ended' in origin) this.#tellEnd(origin.ended)
    try {
      this.isPassive = this.#engine.options.isPassive?.(this.#req) ?? false
      this.#attach(origin)
    } catch (error) {
      // A function of the application failed: passivePaths or initialFields.
      this.refuse(error)
      return
    }
    if (isResponse(this.#res)) this.#hold(this.#res)
    if (this.#engine.options.activity?.wantsRequests && this.#held) this.#recordRequest(this.#res as HttpResponse)
    this.#enter(this.#next)
  }

  /** The session cannot be loaded. Error handlers get an empty one that cannot be written. */
  refuse(error: unknown): void {
    this.#attach('unavailable')
    this.#enter(() => this.#answer(error))
  }

  #enter(task: () => void): void {
    if (this.#engine.options.context) runWithSession(this.#holder, task)
    else task()
  }

  #tellEnd(ended: EndedSession): void {
    this.#endedBefore = ended
    try {
      const returned: unknown = this.#engine.options.onEnded?.(ended, this.#req, this.#res)
      if (returned instanceof Promise) returned.catch((error) => warnOfFailure('onEnded', error))
    } catch (error) {
      warnOfFailure('onEnded', error)
    }
  }

  #hold(res: HttpResponse): void {
    if (res.writableEnded) this.#isResponded = true
    else this.#held = new HeldResponse(res, this)
    // A head that left before has nothing to say of the session.
    this.#areHeadersDecided = res.headersSent
  }

  /** When the response is over, whole or not. */
  #recordRequest(res: HttpResponse): void {
    const startedAt = performance.now()
    res.once('close', () => {
      const state = this.#state
      recordActivity(this.#engine, {
        type: 'session.request' satisfies SessionActivityType,
        // An empty session is not stored: its ID names nothing.
        sessionId: state.record?.id,
        logicalId: state.record?.logicalId,
        userId: state.record?.userId,
        details: {
          status: res.statusCode,
          durationMs: Math.round(performance.now() - startedAt),
          isWhole: res.writableFinished && !this.#held?.isWaiting,
        },
        request: this.activityRequest(),
      })
    })
  }

  #attach(origin: SessionOrigin): void {
    this.#state = new SessionState(this.#engine, this, origin)
    this.#holder = { session: sessionOf(this.#state), request: this.#req }
    this.#show()
  }

  #show(): void {
    const { face } = this.#facts
    if (face === undefined) this.#req.session = this.#holder.session
    else face.show(this.#state, this.#req)
  }

  // --- While the handler runs ---

  replace(successor: SessionState): void {
    this.#state = successor
    this.#holder.session = sessionOf(successor)
    this.#show()
  }

  newId(): string | undefined {
    return this.#facts.face?.newId?.(this.#req)
  }

  /** The handler looks at the session: from now on the response depends on it, whoever has put methods on it meanwhile. */
  onUse(): void {
    this.#held?.coverWrappers()
  }

  get isSecure(): boolean {
    return this.#facts.isSecure
  }

  isHttps(): boolean {
    return isEncrypted(this.#req, this.#engine.options.trustProxy)
  }

  cookieOutlook(): ReturnType<SessionHost['cookieOutlook']> {
    if (!this.#facts.mayUseCookie) {
      return trustsProxy(this.#req, this.#engine.options.trustProxy) ? 'insecure-by-proxy' : 'insecure'
    }
    if (this.#areHeadersDecided || this.#isResponded) return 'headers-sent'
    return this.#held === null ? 'no-response' : 'open'
  }

  isResponded(): boolean {
    return this.#isResponded
  }

  clientContext(): SessionContext | undefined {
    return contextOf(this.#req, this.#engine.options.clientContext)
  }

  activityRequest(): ActivityRequest {
    return activityRequestOf(this.#req, this.#engine.options.clientContext)
  }

  initialFields(binding?: string): ReadonlyMap<string, string> {
    const { initialFields, codec, limits } = this.#engine.options
    if (initialFields === undefined) return NO_FIELDS
    const fields = new Fields({ codec, limits, binding, onCorrupt: () => {} })
    fields.setAll(initialFields(this.#req))
    return fields.changes()?.set ?? NO_FIELDS
  }

  // --- Commit ---

  beforeHead(isLast: boolean): Promise<void> | undefined {
    const assigned = this.#assigned()
    if (assigned) return assigned.then(() => this.beforeHead(isLast))
    for (const listener of this.commitListeners?.splice(0) ?? []) listener()
    if (this.#engine.options.commit === 'before-response') return this.#commit(isLast)
    // The one store call that the head has to wait for: whether the client gets another token.
    const renewal = renewBeforeHead(this.#state)
    if (renewal) return renewal.then(() => this.#answerFirst(isLast))
    this.#answerFirst(isLast)
    return undefined
  }

  #answerFirst(isLast: boolean): void {
    promiseNextStep(this.#state)
    this.#decideHeaders()
    if (isLast) this.#commitLater()
  }

  beforeEnd(): Promise<void> | undefined {
    const assigned = this.#assigned()
    if (assigned) return assigned.then(() => this.beforeEnd())
    if (this.#engine.options.commit === 'before-response') return this.#commit(true)
    this.#commitLater()
    return undefined
  }

  /** What the handler did to `req.session` itself, when that is to be done first. */
  #assigned(): Promise<void> | undefined {
    const { face } = this.#facts
    if (face !== undefined) return face.settle(this.#state, this.#req)
    return this.#req.session === this.#holder.session ? undefined : this.#takeAssigned()
  }

  /**
   * The handler has assigned `req.session`, or deleted it. `null` ends the session, as in cookie-session.
   * @throws {SessionError} `INVALID_ARGUMENT` for anything else; and as `logout()`.
   */
  #takeAssigned(): Promise<void> {
    const assigned: unknown = this.#req.session
    this.#req.session = this.#holder.session
    if (assigned === null) return this.#holder.session.logout()
    throw invalidArgument(
      'req.session was replaced or deleted, so that nobody knows what the session is to be. To end it, write await ' +
        'req.session.logout(), or req.session = null; to empty it, req.session.clear(); for a field, req.session.name = value.',
    )
  }

  /** Brings the store up to date. Returns nothing when there is nothing to wait for. */
  #commit(isLast: boolean): Promise<void> | undefined {
    for (;;) {
      const state = this.#state
      // Something that the handler did not wait for is under way: what it leaves behind is what counts, a failure too.
      const step = state.running ?? (this.#writes++ < MAX_WRITES ? takeNextStep(state) : 'last')
      if (step === 'last') break
      // While that went on, so may have the handler.
      if (isPromise(step)) return step.then(() => this.#commit(isLast))
    }
    this.#writes = 0
    this.#decideHeaders()
    if (isLast) {
      this.#isResponded = true
      if (WATCHES_MEMBERS && this.#held !== null && (this.#res as HttpResponse).statusCode < 400) tellUncalled(this)
    }
    return undefined
  }

  #commitLater(): void {
    if (!this.#state.wasUsed && !mayCommit(this.#state)) {
      this.#isResponded = true
      return
    }
    const written = new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#commit(true))
    this.#engine.late.track(written)
    written.catch((error) => {
      // A store error has been told as an event.
      if (!isStoreFault(error)) warn(`A session was not stored: ${messageOf(error)}`, 'commit')
    })
  }

  // --- Set the cookie ---

  #decideHeaders(): void {
    if (this.#areHeadersDecided) return
    this.#areHeadersDecided = true
    this.#held?.changeHead(() => {
      for (const listener of this.headListeners ?? []) listener()
      const res = this.#res as HttpResponse
      const { cacheControl, clearSiteData } = this.#engine.options
      const isOver = this.#state.isAfterLogout || this.#endedBefore?.end.reason === 'revoked'
      const setCookie = this.#setCookie()
      // Listeners for the head (on-headers) come later than this, and may say what they like of caches.
      if (setCookie !== null) this.#held?.whenHeadIsRendered(() => res.hasHeader('Set-Cookie') && forbidStoring(res))
      setPageHeaders(res, {
        setCookie,
        wasUsed: this.#state.wasUsed,
        cacheControl: this.#facts.face?.isForStranger?.(this.#state, this.#req) ? 'none' : cacheControl,
        clearSiteData: isOver ? (clearSiteData ?? this.clearAfterLogout ?? null) : null,
      })
      if (this.#state.hasStoreFailed && res.statusCode === 503 && !res.hasHeader('Retry-After')) {
        res.setHeader('Retry-After', '1')
      }
    })
  }

  #setCookie(): string | null {
    const { cookie } = this.#engine.options
    const { isSecure, cookieHeader, cookieName, face } = this.#facts
    if (face !== undefined) return face.setCookie(this.#state, this.#req)
    const attributes = this.#state.cookieAttributes
    if (this.#state.cookie === 'clear' && hasCookie(cookieHeader, cookieName)) {
      return clearCookie(cookie, isSecure, attributes)
    }
    const content = this.#state.cookie === 'set' ? cookieContent(this.#state) : null
    if (content === null) return null
    if (!isSecure && cookie.secure === 'auto') warnOnce(this.#engine, 'plain_http', PLAIN_HTTP)
    return writeCookie(cookie, { ...content, isSecure, attributes })
  }

  // --- When it fails ---

  onError(error: unknown, canAnswer: boolean): void {
    this.#isResponded = true
    if (canAnswer) {
      this.#answer(error)
      this.#answerIfNobodyDoes(this.#res as HttpResponse)
    } else if (!isStoreFault(error)) warn(`A response was cut off: ${messageOf(error)}`, 'commit')
  }

  #answer(error: unknown): void {
    if (isResponse(this.#res) && !this.#res.headersSent) {
      // What the store has confirmed is true however the request ends: nobody is logged out by a fault after it.
      if (this.#held) this.#decideHeaders()
      // An error handler that chooses no status must not turn this into a success.
      this.#res.statusCode = isSessionError(error) ? error.status : 500
      if (isStoreFault(error)) this.#res.setHeader('Retry-After', '1')
    }
    try {
      this.#next(error)
    } catch (failure) {
      this.#answerInstead(failure)
    }
  }

  /** Who had to answer an error threw: Polka 0.5 takes `code` for the status, whatever it is. */
  #answerInstead(failure: unknown): void {
    const res = this.#res
    if (!isResponse(res) || res.headersSent) throw failure
    warnOfFailure('What answers errors', failure)
    const { statusCode } = res
    if (!Number.isInteger(statusCode) || statusCode < 400) res.statusCode = 503
    res.end(`${STATUS_CODES[res.statusCode] ?? 'Error'}\n`)
  }

  /** A handler may die of it where nobody looks at its promise. Then the error is handed on as Express 5 does it. */
  onFailure(error: unknown): void {
    const res = this.#res
    if (this.#held === null || !isResponse(res) || res.writableEnded) return
    whenUnhandled(error, res, () => {
      if (res.headersSent || res.writableEnded) return
      try {
        this.#next(error)
      } catch (failure) {
        this.#answerInstead(failure)
      }
      this.#answerIfNobodyDoes(res)
    })
  }

  /** Whoever has made a promise of `next` (koa-connect, h3, middie) does not hear of a second call, and the client would wait. */
  #answerIfNobodyDoes(res: HttpResponse): void {
    if (res.headersSent || res.writableEnded) return
    const timer = setTimeout(() => {
      if (res.headersSent || res.writableEnded) return
      if (res.statusCode < 400) res.statusCode = 503
      res.setHeader('Content-Type', 'text/plain; charset=utf-8')
      res.end(STATUS_CODES[res.statusCode] ?? 'Error')
    }, this.#engine.options.storeTimeoutMs)
    res.once('close', () => clearTimeout(timer))
  }
}

/** A commit ends after so many writes, even if a codec gives other text for the same value each time. */
const MAX_WRITES = 3

type Next = (error?: unknown) => void
const NO_FIELDS: ReadonlyMap<string, string> = new Map()

function activityRequestOf(
  req: SessionRequest,
  clientContext: ResolvedSessionOptions['clientContext'],
): ActivityRequest {
  const { method = '', originalUrl, url = '' } = req
  const [path = ''] = (originalUrl ?? url).split('?', 1)
  return { method, path, ip: ipOf(req, clientContext) }
}

/** A WebSocket upgrade has no response, or a stand-in that cannot wait. */
function isResponse(res: HttpResponse | object): res is HttpResponse {
  return res instanceof ServerResponse || res instanceof Http2ServerResponse
}

const PLAIN_HTTP = 'Session cookies go without Secure, because requests come over plain HTTP.'
const UNTRUSTED_PROXY =
  'A session cookie for HTTPS came with a request that seems to be plain HTTP, and was ignored. Behind a proxy that ends ' +
  "TLS, set app.set('trust proxy', 1); for requests without Express, such as WebSocket upgrades, trustProxy: true."

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
