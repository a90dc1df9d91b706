// `session.cookie`: the cookie of a session, with the members that express-session users know.
import {
  type CookieAttributes,
  type Priority,
  prefixesOf,
  priorityOf,
  type SameSite,
  sameSiteOf,
} from '../cookie/cookie.js'
import { LONGEST_MS } from '../duration.js'
import { invalidArgument, type SessionError } from '../errors.js'
import { chooseExpiry, expiresAt, idleTimeoutMs, isPersistent, resendCookie } from './response-cookie.js'
import type { SessionState } from './state.js'

/** The session's cookie as express-session users know it. Attributes hold for this response only. */
export class SessionCookie {
  readonly #state: SessionState

  constructor(state: SessionState) {
    this.#state = state
  }

  /**
   * Milliseconds that are left, or `null` for a cookie that ends with the browser window. Setting it makes the cookie
   * persistent and gives the session that idle timeout; `null` and `false` go back to the defaults. With 0, or a time that is
   * past, cookie and session end with this response. A Date is the time itself, as for `expires`. The choice goes over to the
   * session that `regenerate()` or `login()` makes in the same request.
   * @throws {SessionError} `INVALID_ARGUMENT` for anything else, and beyond ten years or what a preset allows.
   */
  get maxAge(): number | null {
    return isPersistent(this.#state) ? expiresAt(this.#state) - this.#state.lifecycle.now() : null
  }
  set maxAge(ms: number | Date | null | undefined | false) {
    if (ms === null || ms === undefined || ms === false) {
      chooseExpiry(this.#state, { idleMs: null, persistent: false })
      return
    }
    const left = ms instanceof Date ? ms.getTime() - this.#state.lifecycle.now() : ms
    if (!Number.isFinite(left) || left > LONGEST_MS) {
      throw invalidArgument(
        'cookie.maxAge is milliseconds as a number, at most ten years, or a Date; null ends the cookie with the browser window.',
      )
    }
    chooseExpiry(this.#state, { idleMs: left > 0 ? Math.max(1, Math.round(left)) : 0, persistent: true })
  }

  /** As `maxAge`, as a time. */
  get expires(): Date | null {
    return isPersistent(this.#state) ? new Date(expiresAt(this.#state)) : null
  }
  set expires(date: Date | null | undefined | false) {
    if (date && !(date instanceof Date)) {
      throw invalidArgument(
        'cookie.expires is a Date, or null or false for the end of the browser window; set cookie.maxAge for milliseconds.',
      )
    }
    this.maxAge = date
  }

  /** The idle timeout that `maxAge` was set to, in milliseconds, or `null`. Setting it is setting `maxAge`. */
  get originalMaxAge(): number | null {
    return isPersistent(this.#state) ? idleTimeoutMs(this.#state) : null
  }
  set originalMaxAge(ms: number | null | undefined | false) {
    this.maxAge = ms
  }

  /** In any case; `true` is `'strict'`, `false` leaves the attribute out. */
  get sameSite(): NonNullable<CookieAttributes['sameSite']> {
    return this.#state.cookieAttributes.sameSite ?? this.#state.lifecycle.options.cookie.sameSite
  }
  set sameSite(sameSite: SameSite) {
    this.#choose({ sameSite: known(sameSiteOf(sameSite), 'sameSite', "'strict', 'lax', 'none', true or false") })
  }

  get httpOnly(): boolean {
    return this.#state.cookieAttributes.httpOnly ?? this.#state.lifecycle.options.cookie.httpOnly
  }
  set httpOnly(httpOnly: boolean) {
    const { secureName } = this.#state.lifecycle.options.cookie
    if (!httpOnly && prefixesOf(secureName).isHttp) throw fixed('httpOnly', `browsers drop ${secureName} without it`)
    this.#choose({ httpOnly: known(booleanOf(httpOnly), 'httpOnly', 'true or false') })
  }

  get partitioned(): boolean {
    return this.#state.cookieAttributes.partitioned ?? this.#state.lifecycle.options.cookie.partitioned
  }
  set partitioned(partitioned: boolean) {
    this.#choose({ partitioned: known(booleanOf(partitioned), 'partitioned', 'true or false') })
  }

  get priority(): NonNullable<CookieAttributes['priority']> {
    return this.#state.cookieAttributes.priority ?? this.#state.lifecycle.options.cookie.priority
  }
  set priority(priority: Priority) {
    this.#choose({ priority: known(priorityOf(priority), 'priority', "'low', 'medium', 'high' or false") })
  }

  /**
   * Fixed by the options: a cookie of another path or domain would be another cookie, beside this one.
   * @throws {SessionError} `INVALID_ARGUMENT`, when another one is set.
   */
  get path(): string {
    return this.#state.lifecycle.options.cookie.path
  }
  set path(path: string) {
    if (path !== this.path) throw fixed('path', SECOND_COOKIE)
  }

  /** Fixed by the options, see `path`. */
  get domain(): string | undefined {
    return this.#state.lifecycle.options.cookie.domain
  }
  set domain(domain: string | null | undefined) {
    if ((domain ?? undefined) !== this.domain) throw fixed('domain', SECOND_COOKIE)
  }

  /**
   * Fixed by the options and the connection, see `path`. What this response's cookie is anyway may be set.
   */
  get secure(): boolean | 'auto' | 'when-https' {
    return this.#state.lifecycle.options.cookie.secure
  }
  set secure(secure: boolean | 'auto' | 'when-https') {
    if (secure === this.secure || secure === this.#state.host.isSecure) return
    throw fixed('secure', 'it follows from the connection, Secure over HTTPS and never over plain HTTP')
  }

  #choose(attributes: CookieAttributes): void {
    this.#state.cookieAttributes = { ...this.#state.cookieAttributes, ...attributes }
    resendCookie(this.#state)
  }
}

function known<T>(value: T | undefined, name: string, allowed: string): T {
  if (value === undefined) throw invalidArgument(`cookie.${name} must be ${allowed}.`)
  return value
}

function booleanOf(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined
}

function fixed(name: string, reason: string): SessionError {
  return invalidArgument(
    `cookie.${name} cannot be chosen for one response: ${reason}. It is an option: session({ cookie: { ${name} } }).`,
  )
}

const SECOND_COOKIE = 'the browser would keep a second cookie beside the first'
