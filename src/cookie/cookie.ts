// The session cookie: finding it in a request, proving that we issued it, and writing it to a response.
// Follows RFC 6265bis (attributes, name prefixes) and OWASP ASVS 5.0 chapter 3.3.
import type { KeyObject } from 'node:crypto'
import { stringifySetCookie } from 'cookie'
import { sign, unsign } from 'cookie-signature'
import { hashToken } from '../ids.js'
import { Recent } from '../recent.js'
import type { Secrets } from './secrets.js'

/** `SameSite`, in any case; `true` is strict, `false` leaves the attribute out, as in express-session. */
export type SameSite = 'strict' | 'lax' | 'none' | 'Strict' | 'Lax' | 'None' | boolean

/** What browsers drop first, in any case; `false` leaves the attribute out. */
export type Priority = 'low' | 'medium' | 'high' | 'Low' | 'Medium' | 'High' | false

/** The attributes that one response may choose for itself, through `req.session.cookie`. */
export interface CookieAttributes {
  readonly sameSite?: 'strict' | 'lax' | 'none' | false
  readonly priority?: 'low' | 'medium' | 'high' | false
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
  readonly secure: boolean | 'auto' | 'when-https'
  readonly httpOnly: boolean
  readonly sameSite: 'strict' | 'lax' | 'none' | false
  readonly path: string
  readonly domain: string | undefined
  readonly partitioned: boolean
  readonly priority: 'low' | 'medium' | 'high' | false
  readonly persistent: boolean
  readonly onConflict: 'new-session' | 'first'
  readonly secrets: Secrets
  /** Newest first, those of now. Key objects print as `SecretKeyObject {}`, never as the secret. */
  readonly keys: readonly KeyObject[]
}

/** Cookies of our name that are tried before the rest is ignored. */
const MAX_CANDIDATES = 10
const ID_AND_TOKEN = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.[\w-]{43}\./
/** The signature in base64url, as we write it: a client that encodes the value leaves it as it is. */
const VALUE = new RegExp(`${ID_AND_TOKEN.source}[\\w-]{43}$`)
/** The signature in standard base64, as it was written once. */
const OLDER_VALUE = new RegExp(`${ID_AND_TOKEN.source}[A-Za-z0-9+/]{43}$`)
const SIGNATURE_LENGTH = 43
const VALUE_LENGTH = 36 + 1 + 43 + 1 + SIGNATURE_LENGTH
const NOTHING: CookieReading = { claims: [], rejected: null }

/**
 * The claims of the last cookies, `name=value`, whose signature was found to be ours: verifying it is the dearest part of
 * reading a cookie. What a claim gives the right to is checked each time all the same, so that a cookie may stay here after
 * its session has ended.
 */
export class VerifiedCookies extends Recent<CookieClaim> {
  /** What whole headers said, by the name of the cookie: those with one cookie of that name, which was ours. */
  readonly #headers = new Map<string, Recent<CookieReading>>()
  #keys: readonly KeyObject[] | undefined

  /** What was verified under other keys is forgotten. */
  under(keys: readonly KeyObject[]): void {
    if (this.#keys === keys) return
    this.#keys = keys
    this.clear()
    this.#headers.clear()
  }

  reading(header: string, name: string): CookieReading | undefined {
    return this.#headers.get(name)?.get(header)
  }

  keepReading(header: string, name: string, reading: CookieReading): void {
    if (header.length > LONGEST_KEPT || reading.claims.length !== 1 || reading.rejected !== null) return
    let ofName = this.#headers.get(name)
    if (ofName === undefined) {
      ofName = new Recent()
      this.#headers.set(name, ofName)
    }
    ofName.set(header, reading)
  }
}

/** A client sends the same header with each request, unless it has a cookie that changes; longer ones are not kept. */
const LONGEST_KEPT = 1_024

/**
 * Reads every cookie of that name. Anything that is not exactly of our shape and signed by us, for this name, is
 * passed over without an exception; the work is bounded whatever the header holds. One that comes again counts once.
 *
 * A value may come in quotes, and in percent codes, once: clients that forward cookies write them so. Whatever the writing,
 * it is one value.
 */
export function readCookie(
  header: string | undefined,
  name: string,
  keys: readonly KeyObject[],
  verified?: VerifiedCookies,
): CookieReading {
  if (header === undefined) return NOTHING
  verified?.under(keys)
  const known = verified?.reading(header, name)
  if (known !== undefined) return known
  const reading = readHeader(header, name, keys, verified)
  verified?.keepReading(header, name, reading)
  return reading
}

function readHeader(
  header: string,
  name: string,
  keys: readonly KeyObject[],
  verified: VerifiedCookies | undefined,
): CookieReading {
  const needle = `${name}=`
  let at = header.indexOf(needle)
  if (at === -1) return NOTHING
  const claims: CookieClaim[] = []
  let rejected: CookieReading['rejected'] = null
  let candidates = 0
  for (; at !== -1 && candidates < MAX_CANDIDATES; at = header.indexOf(needle, at + needle.length)) {
    if (!startsPair(header, at)) continue
    const value = canonical(valueAt(header, at + needle.length))
    if (value === null) {
      rejected ??= 'malformed'
      continue
    }
    candidates++
    const cookie = bound(name, value)
    const claim = verified?.get(cookie) ?? verify(cookie, keys, verified)
    if (claim === null) rejected = 'signature'
    else if (claims.length === 0 || !claims.some((other) => isSameClaim(other, claim))) claims.push(claim)
  }
  return { claims, rejected }
}

/** The one writing of a value that has our shape, or `null`. */
function canonical(value: string): string | null {
  if (value.length === VALUE_LENGTH && VALUE.test(value)) return value
  // In percent codes, a character takes three.
  if (value.length < VALUE_LENGTH || value.length > 3 * VALUE_LENGTH) return null
  const plain = value.replace(/%([0-7][0-9a-f])/gi, (_code, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  if (plain.length !== VALUE_LENGTH) return null
  if (VALUE.test(plain)) return plain
  return OLDER_VALUE.test(plain) ? withSignature(plain, toUrl) : null
}

function verify(cookie: string, keys: readonly KeyObject[], verified: VerifiedCookies | undefined): CookieClaim | null {
  const signed = withSignature(cookie, toStandard)
  const key = keys.findIndex((secret) => unsign(signed, secret as never) !== false)
  if (key === -1) return null
  // A copy: the text itself is a part of the request's header, and would keep all of it.
  const own = Buffer.from(cookie).toString()
  const [id, token] = own.slice(-VALUE_LENGTH).split('.') as [string, string]
  const claim = { id, token, tokenHash: hashToken(token), isCurrent: key === 0 }
  verified?.set(own, claim)
  return claim
}

function isSameClaim(a: CookieClaim, b: CookieClaim): boolean {
  return a.id === b.id && a.token === b.token
}

/**
 * Whether the first of two session cookies is believed: because the options say so, or because nobody but this host can have
 * set a cookie of that name (RFC 6265bis 4.1.3.2).
 */
export function believesFirst(cookie: ResolvedCookie, name: string): boolean {
  return cookie.onConflict === 'first' || name.startsWith('__Host-')
}

/** What a cookie's name promises, by the prefixes of RFC 6265bis and of its layered successor; the name itself is the rest. */
export function prefixesOf(name: string): { isHost: boolean; isHttp: boolean; isSecure: boolean; rest: string } {
  const prefix = /^__(?:host-http|http|host|secure)-/i.exec(name)?.[0] ?? ''
  return {
    isHost: /host/i.test(prefix),
    isHttp: /http/i.test(prefix),
    isSecure: prefix !== '',
    rest: name.slice(prefix.length),
  }
}

/** `SameSite` as it is written, or `undefined` for what is none. */
export function sameSiteOf(value: unknown): 'strict' | 'lax' | 'none' | false | undefined {
  if (value === true) return 'strict'
  return value === false ? false : oneOfTexts(['strict', 'lax', 'none'], value)
}

/** `Priority` as it is written, or `undefined` for what is none. */
export function priorityOf(value: unknown): 'low' | 'medium' | 'high' | false | undefined {
  return value === false ? false : oneOfTexts(['low', 'medium', 'high'], value)
}

function oneOfTexts<const T extends string>(texts: readonly T[], value: unknown): T | undefined {
  const written = typeof value === 'string' ? value.toLowerCase() : undefined
  return texts.find((text) => text === written)
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
  return serialize(cookie, { ...content, name, value: withSignature(signed.slice(name.length + 1), toUrl) })
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

/** A cookie, or its value, with the signature written otherwise: `cookie-signature` knows standard base64 only. */
function withSignature(signed: string, write: (signature: string) => string): string {
  return signed.slice(0, -SIGNATURE_LENGTH) + write(signed.slice(-SIGNATURE_LENGTH))
}

function toUrl(base64: string): string {
  return base64.replaceAll('+', '-').replaceAll('/', '_')
}

function toStandard(base64url: string): string {
  return base64url.replaceAll('-', '+').replaceAll('_', '/')
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
      ...(priority !== false && { priority }),
      // Expires besides Max-Age only to clear, for agents that know no Max-Age.
      ...(maxAgeSeconds !== undefined && { maxAge: maxAgeSeconds }),
      ...(maxAgeSeconds === 0 && { expires: new Date(0) }),
    },
    { encode: String },
  )
}
