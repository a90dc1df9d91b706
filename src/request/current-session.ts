// The current session for code that is handed no request: services, callbacks, jobs started by a request.
import { AsyncResource } from 'node:async_hooks'
import { SessionError } from '../errors.js'
import { requestScope, runWithSession } from '../request-scope.js'
import { isSession, type Session } from '../session/session.js'

/** What of a request the context carries; `session` changes when the session is regenerated. */
export interface SessionHolder {
  session: Session
  /** Which request it is, for what is kept beside the session: the session changes. */
  readonly request?: object
}

/**
 * The session of the request that is being handled, or `undefined` outside of a request, where the middleware did not
 * run, or with `context: false`. With a request, the session of that one.
 */
export function getSession(req?: object): Session | undefined {
  if (req !== undefined) {
    const { session } = req as { session?: unknown }
    return isSession(session) ? session : undefined
  }
  return (requestScope() as SessionHolder | undefined)?.session
}

/**
 * As `getSession()`, for code that cannot go on without one.
 * @throws {SessionError} `INVALID_ARGUMENT` outside of a request.
 */
export function requireSession(req?: object): Session {
  const session = getSession(req)
  if (session === undefined) {
    throw new SessionError(
      'INVALID_ARGUMENT',
      'There is no session here: requireSession() works while a request is handled, behind the session() middleware.',
    )
  }
  return session
}

/**
 * The logical session ID of the request that is being handled, or of the given request; `undefined` outside of one. Made
 * when first asked for and kept in the session, as `session.logicalId` says.
 */
export function getSessionId(req?: object): string | undefined {
  return getSession(req)?.logicalId
}

/**
 * As `getSessionId()`, for code that cannot go on without one.
 * @throws {SessionError} `INVALID_ARGUMENT` outside of a request.
 */
export function requireSessionId(req?: object): string {
  return requireSession(req).logicalId
}

/**
 * Runs `task` with the session of `req` as the current one: for callbacks that lose it, such as those of connection pools.
 * Does nothing else when the request has no session.
 *
 * ```ts
 * upload(req, res, (error) => withSession(req, () => next(error)))
 * ```
 */
export function withSession<T>(req: object, task: () => T): T {
  return getSession(req) === undefined ? task() : runWithSession(req, task)
}

/**
 * A function that runs with the session that is the current one now, whoever calls it and when: for listeners on the request
 * itself, which Node calls from the connection.
 *
 * ```ts
 * req.on('end', bindSession(() => logger.info('the body is here')))
 * ```
 */
export function bindSession<Args extends unknown[], R>(fn: (...args: Args) => R): (...args: Args) => R {
  return AsyncResource.bind(fn)
}

/**
 * Middleware that makes the session of the request the current one again. Mount it behind a middleware that loses it.
 *
 * ```ts
 * app.post('/photos', upload.single('photo'), sessionContext, handler)
 * ```
 */
export function sessionContext(req: object, _res: object, next: () => void): void {
  withSession(req, next)
}
