// The session cookie: finding it in a request, proving that we issued it, and writing it to a response.
// Follows RFC 6265bis (attributes, name prefixes) and OWASP ASVS 5.0 chapter 3.3.
import type { KeyObject } from 'node:crypto'
import { stringifySetCookie } from 'cookie'
import { sign, unsign } from 'cookie-signature'
import { hashToken } from '../ids.js'
import { Recent } from '../recent.js'

/** The attributes that one response may choose for itself, through `req.session.cookie`. */
export interface CookieAttributes {
  readonly sameSite?: 'strict' | 'lax' | 'none'
  readonly priority?: 'low' | 'medium' | 'high'
  readonly partitioned?: boolean
  readonly httpOnly?: boolean
}

/** What a verified cookie holds. */
export interface CookieClaim {
  readonly id: string
  readonly token: string
  readonly tokenHash: string
  /** Whether it is signed with the newest secret; if not, it is due to be reissued. */
  readonly isCurrent: boolean
}

/** What a request's cookies say. */
export interface CookieReading {
  /** Cookies that we issued, in the order of the header. */
  readonly claims: readonly CookieClaim[]
  /** What was wrong with the others of that name, if anything. */
  readonly rejected: 'malformed' | 'signature' | null
}

/** Checked options, and the two names that the cookie goes by. */
export interface ResolvedCookie {
  readonly secureName: string
  readonly plainName: string
  readonly secure: boolean | 'auto'
  readonly httpOnly: boolean
  readonly sameSite: 'strict' | 'lax' | 'none'
  readonly path: string
  readonly domain: string | undefined
  readonly partitioned: boolean
  readonly priority: 'low' | 'medium' | 'high' | undefined
  readonly persistent: boolean
  /** Newest first. Key objects print as `SecretKeyObject {}`, never as the secret. */
  readonly keys: readonly KeyObject[]
}

/** Cookies of our name that are tried before the rest is ignored. */
const MAX_CANDIDATES = 10
const VALUE = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.[\w-]{43}\.[A-Za-z0-9+/]{43}$/
const VALUE_LENGTH = 36 + 1 + 43 + 1 + 43
const NOTHING: CookieReading = { claims: [], rejected: null }

/**
 * The claims of the last cookies, `name=value`, whose signature was found to be ours: verifying it is the dearest part of
 * reading a cookie. What a claim gives the right to is checked each time all the same, so that a cookie may stay here after
 * its session has ended.
 */
export class VerifiedCookies extends Recent<CookieClaim> {}

/**
 * Reads every cookie of that name. Anything that is not exactly of our shape and signed by us, for this name, is
 * passed over without an exception; the work is bounded whatever the header holds.
 */
export function readCookie(
  header: string | undefined,
  name: string,
  keys: readonly KeyObject[],
  verified?: VerifiedCookies,
): CookieReading {
  if (header === undefined) return NOTHING
  const needle = `${name}=`
  let at = header.indexOf(needle)
  if (at === -1) return NOTHING
  const claims: CookieClaim[] = []
  let rejected: CookieReading['rejected'] = null
  let candidates = 0
  for (; at !== -1 && candidates < MAX_CANDIDATES; at = header.indexOf(needle, at + needle.length)) {
    if (!startsPair(header, at)) continue
    const value = valueAt(header, at + needle.length)
    if (value.length !== VALUE_LENGTH || !VALUE.test(value)) {
      rejected ??= 'malformed'
      continue
    }
    candidates++
    const cookie = bound(name, value)
    const claim = verified?.get(cookie) ?? verify(cookie, keys, verified)
    if (claim === null) rejected = 'signature'
    else claims.push(claim)
  }
  return { claims, rejected }
}

function verify(cookie: string, keys: readonly KeyObject[], verified: VerifiedCookies | undefined): CookieClaim | null {
  const key = keys.findIndex((secret) => unsign(cookie, secret as never) !== false)
  if (key === -1) return null
  // A copy: the text itself is a part of the request's header, and would keep all of it.
  const own = Buffer.from(cookie).toString()
  const [id, token] = own.slice(-VALUE_LENGTH).split('.') as [string, string]
  const claim = { id, token, tokenHash: hashToken(token), isCurrent: key === 0 }
  verified?.set(own, claim)
  return claim
}

/** Whether the header has any cookie of that name, of whatever content. */
export function hasCookie(header: string | undefined, name: string): boolean {
  if (header === undefined) return false
  for (let at = header.indexOf(`${name}=`); at !== -1; at = header.indexOf(`${name}=`, at + 1)) {
    if (startsPair(header, at)) return true
  }
  return false
}

/** The `Set-Cookie` value that carries a session. `maxAgeSeconds` is left out for a cookie that ends with the browser. */
export function writeCookie(
  cookie: ResolvedCookie,
  content: {
    id: string
    token: string
    isSecure: boolean
    maxAgeSeconds?: number | undefined
    attributes?: CookieAttributes | undefined
  },
): string {
  const name = content.isSecure ? cookie.secureName : cookie.plainName
  const signed = sign(bound(name, `${content.id}.${content.token}`), cookie.keys[0] as never)
  return serialize(cookie, { ...content, name, value: signed.slice(name.length + 1) })
}

/** The `Set-Cookie` value that makes a browser forget the cookie: the same attributes, already expired. */
export function clearCookie(
  cookie: ResolvedCookie,
  isSecure: boolean,
  attributes?: CookieAttributes | undefined,
): string {
  const name = isSecure ? cookie.secureName : cookie.plainName
  return serialize(cookie, { name, value: '', isSecure, attributes, maxAgeSeconds: 0 })
}

/** Whether a request's path lies under the cookie's path, by whole segments (RFC 6265 5.1.4, without decoding). */
export function isInScope(cookie: ResolvedCookie, url: string | undefined): boolean {
  return isUnder(cookie.path, url)
}

/** Whether the path of `url` is `path` or lies under it, by whole segments. */
export function isUnder(path: string, url: string | undefined): boolean {
  if (path === '/') return true
  const target = url ?? '/'
  const end = target.search(/[?#]/)
  const pathname = end === -1 ? target : target.slice(0, end)
  return pathname === path || pathname.startsWith(path.endsWith('/') ? path : `${path}/`)
}

/** Binds a value to the cookie's name, so that a value signed for another name or purpose is refused (ASVS 9.2.2). */
function bound(name: string, value: string): string {
  return `${name}=${value}`
}

/** Whether a cookie pair starts at this place: at the beginning, or after `;` and white space. */
function startsPair(header: string, at: number): boolean {
  let before = at - 1
  while (before >= 0 && (header.charCodeAt(before) === 32 || header.charCodeAt(before) === 9)) before--
  return before < 0 || header.charCodeAt(before) === 59 /* ; */
}

function valueAt(header: string, start: number): string {
  const semicolon = header.indexOf(';', start)
  const value = header.slice(start, semicolon === -1 ? undefined : semicolon).trim()
  return value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
}

function serialize(
  cookie: ResolvedCookie,
  content: {
    name: string
    value: string
    isSecure: boolean
    maxAgeSeconds?: number | undefined
    attributes?: CookieAttributes | undefined
  },
): string {
  const { isSecure, maxAgeSeconds, attributes } = content
  const sameSite = attributes?.sameSite ?? cookie.sameSite
  const priority = attributes?.priority ?? cookie.priority
  return stringifySetCookie(
    {
      name: content.name,
      value: content.value,
      path: cookie.path,
      ...(cookie.domain !== undefined && { domain: cookie.domain }),
      httpOnly: attributes?.httpOnly ?? cookie.httpOnly,
      secure: isSecure,
      // Browsers drop SameSite=None and Partitioned without Secure: over plain HTTP the cookie is Lax and shared.
      sameSite: sameSite === 'none' && !isSecure ? 'lax' : sameSite,
      partitioned: isSecure && (attributes?.partitioned ?? cookie.partitioned),
      ...(priority !== undefined && { priority }),
      // Expires besides Max-Age only to clear, for agents that know no Max-Age.
      ...(maxAgeSeconds !== undefined && { maxAge: maxAgeSeconds }),
      ...(maxAgeSeconds === 0 && { expires: new Date(0) }),
    },
    { encode: String },
  )
}
