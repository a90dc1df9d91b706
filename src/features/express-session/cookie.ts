// `session.Cookie`: what express-session users know as `req.session.cookie`.
import { stringifySetCookie } from 'cookie'
import { priorityOf, sameSiteOf } from '../../cookie/cookie.js'

/** Attributes of the cookie, as express-session takes them; times in milliseconds. */
export interface CookieOptions {
  /** Milliseconds that the session and its cookie live after the last use; a Date is the time itself. Without it, or with `null`, the cookie ends with the browser window. */
  maxAge?: number | Date | null | false | undefined
  /** The time at which both end. `maxAge` goes before it. */
  expires?: Date | null | false | undefined
  /** @default '/' */
  path?: string | undefined
  domain?: string | undefined
  /** @default true */
  httpOnly?: boolean | undefined
  /** `'auto'`: Secure where there is HTTPS. `true`: the cookie is not sent over plain HTTP. */
  secure?: boolean | 'auto' | undefined
  /** In any case. `true` is strict; `'auto'` is none over HTTPS and lax over plain HTTP. */
  sameSite?: boolean | 'lax' | 'strict' | 'none' | 'Lax' | 'Strict' | 'None' | 'auto' | undefined
  partitioned?: boolean | undefined
  priority?: 'low' | 'medium' | 'high' | undefined
  /** How the value is written. @default encodeURIComponent */
  encode?: ((value: string) => string) | undefined
  /** Not heeded, as in express-session: the cookie is signed. */
  signed?: boolean | undefined
}

/** The members that make a cookie what it is. */
export type CookieData = Omit<CookieOptions, 'maxAge' | 'expires' | 'encode' | 'signed'> & {
  originalMaxAge: number | null
  expires: Date | null
}

/** A cookie of express-session: plain data, and the members that set its time. */
export class Cookie {
  path = '/'
  _expires: Date | null = null
  originalMaxAge: number | null = null
  httpOnly = true
  declare domain?: string | undefined
  declare secure?: boolean | 'auto' | undefined
  declare sameSite?: CookieOptions['sameSite']
  declare partitioned?: boolean | undefined
  declare priority?: CookieOptions['priority']
  declare encode?: CookieOptions['encode']

  /** @throws {TypeError} for what is no object, and for a `maxAge` or `expires` that is no time. */
  constructor(options?: CookieOptions) {
    if (options === undefined || options === null) return
    if (typeof options !== 'object') throw new TypeError('argument options must be an object of cookie options')
    const { maxAge, expires, originalMaxAge, ...attributes } = options as CookieOptions & {
      originalMaxAge?: number | null
    }
    for (const [name, value] of Object.entries(attributes)) {
      if (ATTRIBUTES.has(name)) Object.assign(this, { [name]: value })
    }
    if (expires !== undefined) this.expires = expires
    if (maxAge !== undefined) this.maxAge = maxAge
    if (originalMaxAge !== undefined) this.originalMaxAge = originalMaxAge
  }

  /** The time at which cookie and session end, or `null` for the end of the browser window. */
  get expires(): Date | null {
    return this._expires
  }
  set expires(date: Date | null | false | undefined) {
    if (date && !(date instanceof Date)) throw new TypeError('expires must be a Date, or null')
    if (date && Number.isNaN(date.getTime())) throw new TypeError('expires is an invalid Date')
    this._expires = date || null
    this.originalMaxAge = this.maxAge
  }

  /** Milliseconds that are left, or `null`. Set it to a number, to a Date, or to `null` or `false` for none. */
  get maxAge(): number | null {
    return this._expires === null ? null : this._expires.getTime() - Date.now()
  }
  set maxAge(ms: number | Date | null | false | undefined) {
    if (ms === null || ms === undefined || ms === false) this.expires = null
    else if (ms instanceof Date) this.expires = ms
    else if (typeof ms === 'number' && !Number.isNaN(ms)) {
      this._expires = new Date(Math.min(Date.now() + ms, LATEST))
      this.originalMaxAge = ms
    } else throw new TypeError('maxAge must be a number or Date')
  }

  /** What is written, and what a store keeps. */
  get data(): CookieData {
    return {
      originalMaxAge: this.originalMaxAge,
      partitioned: this.partitioned,
      priority: this.priority,
      expires: this._expires,
      secure: this.secure,
      httpOnly: this.httpOnly,
      domain: this.domain,
      path: this.path,
      sameSite: this.sameSite,
    }
  }

  /** The `Set-Cookie` value of a cookie with these attributes. */
  serialize(name: string, value: string): string {
    return serialized(this, { name, value, isSecure: this.secure === true })
  }

  toJSON(): CookieData {
    return this.data
  }
}

const ATTRIBUTES = new Set(['path', 'domain', 'httpOnly', 'secure', 'sameSite', 'partitioned', 'priority', 'encode'])

/** The last moment that a Date can hold. */
const LATEST = 8_640_000_000_000_000

/** Which attributes a session may have of its own, beside its time. */
export const OWN_ATTRIBUTES = ['domain', 'httpOnly', 'partitioned', 'path', 'priority', 'sameSite', 'secure'] as const

/**
 * The `Set-Cookie` value. Browsers drop SameSite=None and Partitioned without Secure: without it the cookie is Lax and shared.
 */
export function serialized(cookie: Cookie, content: { name: string; value: string; isSecure: boolean }): string {
  const { name, value, isSecure } = content
  const sameSite = cookie.sameSite === undefined ? false : sameSiteOf(cookie.sameSite)
  const priority = priorityOf(cookie.priority) || undefined
  return stringifySetCookie(
    {
      name,
      value,
      path: cookie.path,
      ...(cookie.domain !== undefined && cookie.domain !== null && { domain: cookie.domain }),
      httpOnly: cookie.httpOnly,
      secure: isSecure,
      ...(sameSite !== undefined && { sameSite: sameSite === 'none' && !isSecure ? 'lax' : sameSite }),
      partitioned: isSecure && cookie.partitioned === true,
      ...(priority !== undefined && { priority }),
      ...(cookie._expires !== null && { expires: cookie._expires }),
    },
    { encode: cookie.encode ?? encodeURIComponent },
  )
}
