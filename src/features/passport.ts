// Passport's user as the user of the session: `sojourn/passport`. Knows no strategy: it stands where Passport goes to when any of
// them has found a user.

import type { IncomingMessage } from 'node:http'
import { invalidArgument } from '../errors.js'
import { requireSession } from '../request/current-session.js'

/** What is called of Passport. */
export interface PassportLike {
  // biome-ignore lint/suspicious/noExplicitAny: Passport has one function for registering and for calling
  serializeUser: any
}

/** Who Passport's user is to the session. */
export interface PassportUsersOptions {
  /**
   * The user ID, for `req.session.login()`: text that is not empty, or a finite number.
   * @default what `passport.serializeUser()` gives
   */
  // biome-ignore lint/suspicious/noExplicitAny: the application's own type of users
  userId?: ((user: any) => string | number) | undefined
}

/** The field that Passport reads its user from. */
const FIELD = 'passport'

type Done = (error?: unknown) => void

interface LoginOptions {
  readonly session?: boolean | undefined
  readonly keepSessionInfo?: boolean | undefined
}

interface PassportRequest extends IncomingMessage {
  _userProperty?: string
  [property: string]: unknown
}

/**
 * Makes a login of Passport a login of the session, whatever the strategy: `sessionsOf()`, `revokeUser()`, the limit of sessions
 * and `requireRecentAuth()` know who it is. Mount it behind `session()`.
 *
 * ```ts
 * app.use(passportUsers(passport))
 * app.use(passport.session())
 * ```
 *
 * `req.login()`, which `passport.authenticate()` calls, then logs in by `session.login()`: one atomic step, with
 * `keepSessionInfo` for which fields go over, though of another user's session none do. When that is refused, nobody is logged
 * in, and the error, such as `SESSION_LIMIT`, goes where Passport's go. `req.logout()` is `session.logout()`, or, with
 * `keepSessionInfo`, a `regenerate()` that keeps the fields.
 */
export function passportUsers(
  passport: PassportLike,
  { userId }: PassportUsersOptions = {},
): (req: IncomingMessage, res: object, next: (error?: unknown) => void) => void {
  if (typeof passport?.serializeUser !== 'function') {
    throw invalidArgument('passportUsers() needs the object that is passport, with its serializeUser().')
  }

  async function bind(req: PassportRequest, user: unknown, keepSessionInfo: boolean): Promise<void> {
    const session = requireSession(req)
    const serialized = await new Promise<unknown>((resolve, reject) => {
      passport.serializeUser(user, req, (error: unknown, found: unknown) => (error ? reject(error) : resolve(found)))
    })
    const id = userId === undefined ? serialized : userId(user)
    if (typeof id !== 'string' && typeof id !== 'number') {
      throw invalidArgument(
        `passportUsers() has ${typeof id} for a user ID; say which it is: passportUsers(passport, { userId: (user) => user.id }).`,
      )
    }
    await session.login(id, { keep: keepSessionInfo, fields: { [FIELD]: { user: serialized } } })
  }

  async function release(req: PassportRequest, keepSessionInfo: boolean): Promise<void> {
    const session = requireSession(req)
    if (!keepSessionInfo) return session.logout()
    await session.regenerate({ keep: session.keys().filter((name) => name !== FIELD) })
  }

  function logIn(this: PassportRequest, user: unknown, second?: LoginOptions | Done, third?: Done): void {
    const { options, done } = argumentsOf(second, third)
    const property = this._userProperty ?? 'user'
    this[property] = user
    if (options.session === false) {
      done?.()
      return
    }
    const callback = required(done, 'req.login()')
    bind(this, user, options.keepSessionInfo === true).then(
      () => process.nextTick(callback),
      (error) => {
        this[property] = null
        process.nextTick(callback, error)
      },
    )
  }

  function logOut(this: PassportRequest, first?: LoginOptions | Done, second?: Done): void {
    const { options, done } = argumentsOf(first, second)
    const callback = required(done, 'req.logout()')
    this[this._userProperty ?? 'user'] = null
    release(this, options.keepSessionInfo === true).then(
      () => process.nextTick(callback),
      (error) => process.nextTick(callback, error),
    )
  }

  return function passportUsersMiddleware(req, _res, next) {
    // Passport puts its own there only where none are.
    Object.assign(req, { login: logIn, logIn, logout: logOut, logOut })
    next()
  }
}

function argumentsOf(
  first: LoginOptions | Done | undefined,
  second: Done | undefined,
): { options: LoginOptions; done: Done | undefined } {
  return typeof first === 'function' ? { options: {}, done: first } : { options: first ?? {}, done: second }
}

function required(done: Done | undefined, what: string): Done {
  if (typeof done === 'function') return done
  throw invalidArgument(`${what} needs a callback.`)
}
