// How the request path meets the outside where that is another way than ours: another cookie, another `req.session`. Sessions,
// commits and held responses stay what they are.
import type { CookieReading } from '../cookie/cookie.js'
import type { IssuedToken } from '../ids.js'
import type { SessionState } from '../session/state.js'
import type { HttpRequest } from './http-request.js'

/** What a middleware of its own face does instead of ours. One object serves all requests. */
export interface Face {
  /** The token of all sessions, for cookies that hold none: their signature alone proves the right to a session. */
  readonly token: IssuedToken
  /** Which session the cookies of a request are for. */
  readCookie(req: HttpRequest): CookieReading
  /** The `Set-Cookie` value of the response, or `null`. Called once, when all is stored. */
  setCookie(state: SessionState, req: HttpRequest): string | null
  /** Whether the visitor has no session, and has not begun one: what the response shows is nobody's, and caches may keep it. */
  isForStranger?(state: SessionState, req: HttpRequest): boolean
  /** The ID of a session that begins in this request; `undefined` for one of ours. */
  newId?(req: HttpRequest): string | undefined
  /** Puts what the handler is to hold on the request, for the first session of a request and for each that follows. */
  show(state: SessionState, req: HttpRequest): void
  /**
   * Called before each commit, to bring the session in line with what the handler did to what it holds. Returns what has to
   * be waited for, after which it is called again.
   */
  settle(state: SessionState, req: HttpRequest): Promise<void> | undefined
}
