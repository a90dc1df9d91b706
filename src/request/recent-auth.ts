// Middleware that lets a request through only when its session allows it.

import { type Duration, milliseconds } from '../duration.js'
import { SessionError } from '../errors.js'
import { isSession, secondsSinceAuthentication } from '../session/session.js'
import type { HttpRequest } from './http-request.js'

/** What `requireRecentAuth()` does instead of an error. */
export interface RecentAuthOptions {
  /**
   * Called when the user has to prove who they are, or nobody is logged in: the place to send them to the login page.
   * @default an error with status 401 goes to `next`
   */
  // A method, so that Express's own types of request and response fit.
  onRequired?(req: HttpRequest, res: object, next: (error?: unknown) => void): void
}

/**
 * Lets a request through when the user of its session has proved who they are within `maxAge`, by `login()` or
 * `reauthenticate()` (step-up, OWASP ASVS 7.5.1 and 7.5.3). What `login()` proves is up to you: a cookie that remembers
 * the user is no proof. Mount it behind `session()`.
 *
 * Otherwise `next` gets a `SessionError` `REAUTHENTICATION_REQUIRED` with status 401, and the response a challenge in the
 * terms of RFC 9470: `WWW-Authenticate: Session error="insufficient_user_authentication", max_age="600"`.
 *
 * ```ts
 * app.post('/password', requireRecentAuth('10m'), changePassword)
 * ```
 * @throws {SessionError} `INVALID_OPTION`
 */
export function requireRecentAuth(
  maxAge: Duration,
  { onRequired }: RecentAuthOptions = {},
): (req: HttpRequest, res: object, next: (error?: unknown) => void) => void {
  const maxAgeSeconds = milliseconds(maxAge, 'requireRecentAuth()') / 1000
  if (onRequired !== undefined && typeof onRequired !== 'function') {
    throw new SessionError('INVALID_OPTION', 'onRequired is not a function.')
  }
  return function recentAuthGuard(req, res, next) {
    const { session } = req as { session?: unknown }
    if (!isSession(session)) {
      next(new SessionError('INVALID_OPTION', 'requireRecentAuth() runs behind session(); req.session is not there.'))
      return
    }
    const age = secondsSinceAuthentication(session)
    if (age !== null && age < maxAgeSeconds) {
      next()
      return
    }
    if (onRequired !== undefined) {
      onRequired(req, res, next)
      return
    }
    const response = res as { headersSent?: boolean; setHeader?: (name: string, value: string) => unknown }
    if (!response.headersSent) {
      response.setHeader?.(
        'WWW-Authenticate',
        `Session error="insufficient_user_authentication", max_age="${Math.floor(maxAgeSeconds)}"`,
      )
    }
    const message =
      age === null
        ? 'Nobody is logged in, or it is not known when they proved who they are.'
        : `The user proved who they are ${Math.floor(age)} seconds ago; ${maxAgeSeconds} are allowed here.`
    next(new SessionError('REAUTHENTICATION_REQUIRED', message))
  }
}
