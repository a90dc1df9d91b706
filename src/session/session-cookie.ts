// `session.cookie`: the cookie of a session, with the members that express-session users know.
import type { CookieAttributes } from '../cookie/cookie.js'
import { LONGEST_MS } from '../duration.js'
import { invalidArgument } from '../errors.js'
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
   * persistent and gives the session that idle timeout; `null` goes back to the defaults.
   */
  get maxAge(): number | null {
    return isPersistent(this.#state) ? expiresAt(this.#state) - this.#state.lifecycle.now() : null
  }
  set maxAge(ms: number | null | undefined) {
    if (ms === null || ms === undefined) {
      chooseExpiry(this.#state, null, false)
      return
    }
    if (!Number.isFinite(ms) || ms < 1 || ms > LONGEST_MS) {
      throw invalidArgument('cookie.maxAge must be milliseconds, above 0 and at most ten years, or null.')
    }
    chooseExpiry(this.#state, Math.round(ms), true)
  }

  /** As `maxAge`, as a time. */
  get expires(): Date | null {
    return isPersistent(this.#state) ? new Date(expiresAt(this.#state)) : null
  }
  set expires(date: Date | null | undefined | false) {
    this.maxAge = date instanceof Date ? date.getTime() - this.#state.lifecycle.now() : null
  }

  /** The idle timeout that `maxAge` was set to, in milliseconds, or `null`. */
  get originalMaxAge(): number | null {
    return isPersistent(this.#state) ? idleTimeoutMs(this.#state) : null
  }

  get sameSite(): CookieAttributes['sameSite'] {
    return this.#state.cookieAttributes.sameSite ?? this.#state.lifecycle.options.cookie.sameSite
  }
  set sameSite(sameSite: NonNullable<CookieAttributes['sameSite']>) {
    this.#choose({ sameSite })
  }

  get httpOnly(): boolean {
    return this.#state.cookieAttributes.httpOnly ?? this.#state.lifecycle.options.cookie.httpOnly
  }
  set httpOnly(httpOnly: boolean) {
    this.#choose({ httpOnly })
  }

  get partitioned(): boolean {
    return this.#state.cookieAttributes.partitioned ?? this.#state.lifecycle.options.cookie.partitioned
  }
  set partitioned(partitioned: boolean) {
    this.#choose({ partitioned })
  }

  get priority(): CookieAttributes['priority'] {
    return this.#state.cookieAttributes.priority ?? this.#state.lifecycle.options.cookie.priority
  }
  set priority(priority: NonNullable<CookieAttributes['priority']>) {
    this.#choose({ priority })
  }

  /** Fixed by the options: a cookie of another path or domain would be another cookie. */
  get path(): string {
    return this.#state.lifecycle.options.cookie.path
  }

  /** Fixed by the options, see `path`. */
  get domain(): string | undefined {
    return this.#state.lifecycle.options.cookie.domain
  }

  /** Fixed by the options and the connection. */
  get secure(): boolean | 'auto' | 'when-https' {
    return this.#state.lifecycle.options.cookie.secure
  }

  #choose(attributes: CookieAttributes): void {
    const allowed: Record<string, readonly unknown[]> = {
      sameSite: ['strict', 'lax', 'none'],
      priority: ['low', 'medium', 'high'],
      httpOnly: [true, false],
      partitioned: [true, false],
    }
    for (const [name, value] of Object.entries(attributes)) {
      if (allowed[name]?.includes(value)) continue
      throw invalidArgument(`cookie.${name} must be one of ${allowed[name]?.join(', ')}.`)
    }
    this.#state.cookieAttributes = { ...this.#state.cookieAttributes, ...attributes }
    resendCookie(this.#state)
  }
}
