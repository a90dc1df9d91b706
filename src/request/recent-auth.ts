// Middleware that lets a request through only when its session allows it.

import { type Duration, milliseconds } from '../duration.js'
import { isSessionError, SessionError } from '../errors.js'
import { checkLevel } from '../record/authentication.js'
import {
  isSession,
  refreshed,
  type Session,
  secondsSinceAuthentication,
  tellReauthenticationRequired,
} from '../session/session.js'
import { answerInstead } from '../soon.js'
import type { HttpRequest } from './http-request.js'

/** What `requireRecentAuth()` does instead of an error. */
export interface RecentAuthOptions {
  /**
   * Called when the user has to prove who they are, or nobody is logged in: the place to send them to the login page. It may be
   * `async`.
   * @default an error with status 401 goes to `next`
   */
  // A method, so that Express's own types of request and response fit.
  onRequired?(req: HttpRequest, res: object, next: (error?: unknown) => void): unknown
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
export function requireRecentAuth(maxAge: Duration, { onRequired }: RecentAuthOptions = {}): AuthGuard {
  const maxAgeSeconds = milliseconds(maxAge, 'requireRecentAuth()') / 1000
  checkFunction(onRequired)
  return function recentAuthGuard(req, res, next) {
    const session = sessionFor(req, next, 'requireRecentAuth()')
    if (session === undefined) return
    whenKnown(session, next, (isOver) => {
      const found = isOver ? OVER : judgeAge(session, maxAgeSeconds)
      if (found === null) {
        next()
        return
      }
      tellReauthenticationRequired(session, found.reason)
      if (onRequired !== undefined) answerInstead(() => onRequired(req, res, next), next)
      else refuse(res, next, found.message, `max_age="${Math.floor(maxAgeSeconds)}"`)
    })
  }
}

/** What `requireLevel()` takes. */
export interface LevelOptions extends RecentAuthOptions {
  /**
   * How long ago the user may have proved it at most.
   * @default any time
   */
  maxAge?: Duration | undefined
  /**
   * What the challenge calls the level (`acr_values` of RFC 9470), for clients that know your levels by other names.
   * @default the level as a number
   */
  acr?: string | undefined
}

/**
 * Lets a request through when the user of its session has proved who they are at this level or a higher one, as `login()` and
 * `reauthenticate()` were told by `methods` or `level`: 2 is two kinds of factor. Mount it behind `session()`.
 *
 * Otherwise `next` gets a `SessionError` `REAUTHENTICATION_REQUIRED` with status 401, and the response a challenge in the
 * terms of RFC 9470: `WWW-Authenticate: Session error="insufficient_user_authentication", acr_values="2"`.
 *
 * ```ts
 * app.post('/transfer', requireLevel(2, { maxAge: '10m' }), transfer)
 * ```
 * @throws {SessionError} `INVALID_OPTION`, `INVALID_ARGUMENT`
 */
export function requireLevel(level: number, { onRequired, maxAge, acr }: LevelOptions = {}): AuthGuard {
  checkLevel(level)
  checkFunction(onRequired)
  const maxAgeSeconds = maxAge === undefined ? undefined : milliseconds(maxAge, 'maxAge') / 1000
  const name = acr ?? String(level)
  if (typeof name !== 'string' || !/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(name)) {
    throw new SessionError('INVALID_OPTION', 'acr is text without spaces, quotes and backslashes, such as a URN.')
  }
  const challenge = `acr_values="${name}"${maxAgeSeconds === undefined ? '' : `, max_age="${Math.floor(maxAgeSeconds)}"`}`
  return function levelGuard(req, res, next) {
    const session = sessionFor(req, next, 'requireLevel()')
    if (session === undefined) return
    whenKnown(session, next, (isOver) => {
      const tooOld = (): Lack | null => (maxAgeSeconds === undefined ? null : judgeAge(session, maxAgeSeconds))
      const found = isOver ? OVER : (judgeLevel(session, level) ?? tooOld())
      if (found === null) {
        next()
        return
      }
      tellReauthenticationRequired(session, found.reason)
      if (onRequired !== undefined) answerInstead(() => onRequired(req, res, next), next)
      else refuse(res, next, found.message, challenge)
    })
  }
}

/** Middleware that lets a request through or does not. */
type AuthGuard = (req: HttpRequest, res: object, next: (error?: unknown) => void) => void

function checkFunction(onRequired: unknown): void {
  if (onRequired !== undefined && typeof onRequired !== 'function') {
    throw new SessionError('INVALID_OPTION', 'onRequired is not a function.')
  }
}

function sessionFor(req: HttpRequest, next: (error?: unknown) => void, who: string): Session | undefined {
  const { session } = req as { session?: unknown }
  if (isSession(session)) return session
  next(new SessionError('INVALID_OPTION', `${who} runs behind session(); req.session is not there.`))
  return undefined
}

/** A session that the store has answered from a copy is read again first: where proof is asked for, no old answer will do. */
function whenKnown(session: Session, next: (error?: unknown) => void, judge: (isOver: boolean) => void): void {
  const reading = refreshed(session)
  if (reading === undefined) judge(false)
  else void judgeAfter(reading, next, judge)
}

async function judgeAfter(
  reading: Promise<void>,
  next: (error?: unknown) => void,
  judge: (isOver: boolean) => void,
): Promise<void> {
  let isOver = false
  try {
    await reading
  } catch (error) {
    isOver = isSessionError(error, 'SESSION_ENDED')
    if (!isOver) {
      next(error)
      return
    }
  }
  // Nobody waits for this, and the answer to it may be the application's own.
  try {
    judge(isOver)
  } catch (error) {
    next(error)
  }
}

/** What is missing. */
interface Lack {
  readonly reason: 'nobody' | 'age' | 'level'
  readonly message: string
}

const OVER: Lack = { reason: 'nobody', message: 'Nobody is logged in: the session has ended.' }

/** What is wrong with how long ago the user proved who they are; `null` when nothing is. */
function judgeAge(session: Session, maxAgeSeconds: number): Lack | null {
  const age = secondsSinceAuthentication(session)
  if (age === null) {
    const reason = session.metadata.userId === undefined ? 'nobody' : 'age'
    return { reason, message: 'Nobody is logged in, or it is not known when they proved who they are.' }
  }
  if (age < maxAgeSeconds) return null
  const message = `The user proved who they are ${Math.floor(age)} seconds ago; ${maxAgeSeconds} are allowed here.`
  return { reason: 'age', message }
}

function judgeLevel(session: Session, level: number): Lack | null {
  const found = session.metadata.authentication
  if (found === undefined) return { reason: 'nobody', message: 'Nobody is logged in.' }
  if (found.level >= level) return null
  return { reason: 'level', message: `The user proved who they are at level ${found.level}; ${level} is needed here.` }
}

function refuse(res: object, next: (error?: unknown) => void, message: string, challenge: string): void {
  const response = res as { headersSent?: boolean; setHeader?: (name: string, value: string) => unknown }
  if (!response.headersSent) {
    response.setHeader?.('WWW-Authenticate', `Session error="insufficient_user_authentication", ${challenge}`)
  }
  next(new SessionError('REAUTHENTICATION_REQUIRED', message))
}
