// The current session for code that is handed no request: services, callbacks, jobs started by a request.
import { AsyncLocalStorage } from 'node:async_hooks'
import { SessionError } from './errors.js'
import { isSession, type Session } from './session.js'

/** What of a request the context carries; `session` changes when the session is regenerated. */
export interface SessionHolder {
  session: Session
}

/** One for all copies of this package: a program may load both builds. */
const SHARED: unique symbol = Symbol.for('sojourn.context')
const shared = globalThis as { [SHARED]?: AsyncLocalStorage<SessionHolder> }
shared[SHARED] ??= new AsyncLocalStorage()
const current = shared[SHARED]

/** Runs `task`, and everything that it starts, with the holder's session as the current one. */
export function runWithSession<T>(holder: SessionHolder, task: () => T): T {
  return current.run(holder, task)
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
  return current.getStore()?.session
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
