// The session cookie: finding it in a request, proving that we issued it, and writing it to a response.
// Follows RFC 6265bis (attributes, name prefixes) and OWASP ASVS 5.0 chapter 3.3.
import { createSecretKey, type KeyObject } from 'node:crypto'
import { stringifySetCookie } from 'cookie'
import { sign, unsign } from 'cookie-signature'
import { invalidOption, SessionError } from '../errors.js'
import { hashToken } from '../ids.js'
import { Recent } from '../recent.js'

/** Name and attributes of the session cookie. */
export interface CookieOptions {
  /**
   * The cookie's name. A name that begins with `__Host-` or `__Secure-` has that prefix only over HTTPS.
   * @default '__Host-sid' over HTTPS ('__Secure-sid' with a domain or path), 'sid' over plain HTTP
   */
  name?: string
  /**
   * `'auto'`: Secure over HTTPS; over plain HTTP without it outside production, and an error in production. `true`: an
   * error over plain HTTP anywhere. `false`: never Secure, so anyone on the network path can take over sessions.
   * @default 'auto'
   */
  secure?: boolean | 'auto'
  /**
   * Keeps the cookie from scripts. `false` lets any injected script take over the session.
   * @default true
   */
  httpOnly?: boolean
  /**
   * Whether other sites' requests carry the cookie. `'none'` needs Secure, and CSRF protection of your own.
   * @default 'lax'
   */
  sameSite?: 'strict' | 'lax' | 'none'
  /**
   * The path under which the middleware works and the cookie is sent, matched by whole segments.
   * @default '/'
   */
  path?: string
  /**
   * Share the cookie with subdomains of this domain. Every one of them can then set it.
   * @default none: this host only
   */
  domain?: string
  /**
   * Partitioned (CHIPS): a separate cookie for each top-level site that embeds this one. Needs Secure.
   * @default false
   */
  partitioned?: boolean
  /**
   * Which cookies a browser drops first when it has too many.
   * @default none
   */
  priority?: 'low' | 'medium' | 'high'
  /**
   * `true`: the cookie outlives the browser window and ends with the session. `false`: it ends with the window.
   * @default false
   */
  persistent?: boolean
}

/** The attributes that one response may choose for itself, through `req.session.cookie`. */
export type CookieAttributes = Pick<CookieOptions, 'sameSite' | 'priority' | 'partitioned' | 'httpOnly'>

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
const MAX_COOKIE_BYTES = 4096
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

/**
 * Checks the cookie options and the secrets.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function resolveCookie(secret: string | readonly string[], options: CookieOptions): ResolvedCookie {
  checkTypes(options)
  const secure = options.secure ?? 'auto'
  const path = options.path ?? '/'
  const { domain } = options
  const isHostOnly = path === '/' && domain === undefined
  const name = options.name ?? (secure === false ? 'sid' : isHostOnly ? '__Host-sid' : '__Secure-sid')
  const resolved: ResolvedCookie = Object.freeze({
    secureName: name,
    plainName: name.replace(/^__(host|secure)-/i, ''),
    secure,
    httpOnly: options.httpOnly ?? true,
    sameSite: options.sameSite ?? 'lax',
    path,
    domain,
    partitioned: options.partitioned ?? false,
    priority: options.priority,
    persistent: options.persistent ?? false,
    keys: resolveSecrets(secret),
  })
  checkAttributes(resolved)
  return resolved
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

const MIN_SECRET_BYTES = 32
const MIN_DISTINCT_CHARACTERS = 8
const WELL_KNOWN =
  /keyboard.?cat|change.?(me|this|it)|your.{0,12}secret|my.{0,4}secret|super.?secret|secret.?(key|here)|default.?secret|placeholder|password|0123456789abcdef|abcdefghijklmnop/i

function resolveSecrets(secret: string | readonly string[]): readonly KeyObject[] {
  const secrets = typeof secret === 'string' ? [secret] : secret
  if (!Array.isArray(secrets) || secrets.length === 0) {
    throw invalidOption(
      `secret is ${secrets === undefined ? 'missing' : 'not text or a list of texts'}; ${SECRET_ADVICE}`,
    )
  }
  return Object.freeze(
    secrets.map((text: unknown, index) => {
      if (typeof text !== 'string') throw invalidOption(`secret ${index} is of type ${typeof text}; ${SECRET_ADVICE}`)
      const bytes = Buffer.byteLength(text)
      if (bytes < MIN_SECRET_BYTES)
        throw invalidOption(`secret ${index} is ${bytes} characters; use at least 32. ${SECRET_ADVICE}`)
      if (new Set(text).size < MIN_DISTINCT_CHARACTERS || WELL_KNOWN.test(text) || isRepetition(text)) {
        throw invalidOption(`secret ${index} is well known or has a pattern; ${SECRET_ADVICE}`)
      }
      return createSecretKey(text, 'utf8')
    }),
  )
}

/** Whether a text is a shorter one again and again. */
function isRepetition(text: string): boolean {
  for (let period = 1; period < MIN_SECRET_BYTES && 2 * period <= text.length; period++) {
    if (text.startsWith(text.slice(period))) return true
  }
  return false
}

const SECRET_ADVICE = 'make one with `openssl rand -base64 32` and keep it out of the code.'

const TYPES = {
  name: 'string',
  secure: 'any',
  httpOnly: 'boolean',
  sameSite: 'any',
  path: 'string',
  domain: 'string',
  partitioned: 'boolean',
  priority: 'any',
  persistent: 'boolean',
} as const satisfies Record<keyof CookieOptions, string>

function checkTypes(options: CookieOptions): void {
  if (typeof options !== 'object') throw invalidOption('cookie is not an object of cookie options.')
  for (const [name, value] of Object.entries(options)) {
    const type = Object.hasOwn(TYPES, name) ? TYPES[name as keyof CookieOptions] : undefined
    if (type === undefined) {
      const instead =
        name === 'maxAge' || name === 'expires' ? ' Use idleTimeout and cookie: { persistent: true }.' : ''
      throw invalidOption(`There is no option cookie.${name}.${instead}`)
    }
    if (type !== 'any' && value !== undefined && typeof value !== type)
      throw invalidOption(`cookie.${name} is not a ${type}.`)
  }
}

/** RFC 6265bis: a browser drops a cookie that breaks these rules without a word, so we refuse to build one. */
function checkAttributes(cookie: ResolvedCookie): void {
  const name = cookie.secureName
  if (typeof name !== 'string' || !/^[!#$%&'*+.^_`|~\w-]+$/.test(name) || cookie.plainName === '') {
    throw invalidOption('cookie.name is not a valid cookie name: use letters, digits, "-" and "_".')
  }
  const isHost = /^__host-/i.test(name)
  if ((isHost || /^__secure-/i.test(name)) && cookie.secure === false) {
    throw invalidOption(
      `cookie.name ${name} needs Secure: leave cookie.secure out, or choose a name without the prefix.`,
    )
  }
  if (isHost && (cookie.path !== '/' || cookie.domain !== undefined)) {
    throw invalidOption(`cookie.name ${name} needs path "/" and no domain: use the prefix __Secure- instead.`)
  }
  if (![true, false, 'auto'].includes(cookie.secure)) throw invalidOption('cookie.secure is not true, false or "auto".')
  if (!['strict', 'lax', 'none'].includes(cookie.sameSite)) {
    throw invalidOption('cookie.sameSite is not "strict", "lax" or "none".')
  }
  if (cookie.sameSite === 'none' && cookie.secure === false) {
    throw invalidOption('cookie.sameSite "none" needs Secure: browsers drop the cookie otherwise.')
  }
  if (cookie.priority !== undefined && !['low', 'medium', 'high'].includes(cookie.priority)) {
    throw invalidOption('cookie.priority is not "low", "medium" or "high".')
  }
  if (cookie.partitioned && cookie.secure === false) throw invalidOption('cookie.partitioned needs Secure.')
  if (typeof cookie.path !== 'string' || !cookie.path.startsWith('/')) {
    throw invalidOption('cookie.path must begin with "/".')
  }
  if (cookie.domain === '') throw invalidOption('cookie.domain is empty: leave it out for a cookie of this host only.')
  let sample: string
  try {
    const content = { id: '0'.repeat(36), token: '0'.repeat(43), isSecure: cookie.secure !== false, maxAgeSeconds: 1 }
    sample = writeCookie(cookie, content)
  } catch (cause) {
    throw new SessionError(
      'INVALID_OPTION',
      'cookie.path or cookie.domain cannot be written in a header: use letters, digits, "-", "." and "/".',
      { cause },
    )
  }
  if (sample.length > MAX_COOKIE_BYTES) {
    throw invalidOption(`The cookie takes ${sample.length} bytes; browsers keep at most ${MAX_COOKIE_BYTES}.`)
  }
}
