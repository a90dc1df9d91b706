// What can be chosen of the session cookie, checked before the first request: a browser drops a cookie that breaks its rules
// without a word (RFC 6265bis), so we refuse to build one. Secrets are checked here, too.
import { didYouMean } from '../did-you-mean.js'
import { invalidOption, SessionError } from '../errors.js'
import {
  type Priority,
  prefixesOf,
  priorityOf,
  type ResolvedCookie,
  type SameSite,
  sameSiteOf,
  writeCookie,
} from './cookie.js'
import { type Secret, Secrets } from './secrets.js'

/** Name and attributes of the session cookie. */
export interface CookieOptions {
  /**
   * The cookie's name. A name that begins with `__Host-`, `__Secure-`, `__Http-` or `__Host-Http-` has that prefix only over
   * HTTPS. Browsers that know the latter two take such a cookie from a response alone, never from a script; to others they are
   * a part of the name, so that `__Http-` keeps nothing there, and `__Host-Http-` what `__Host-` does.
   * @default '__Host-sid' over HTTPS ('__Secure-sid' with a domain or path), 'sid' over plain HTTP
   */
  name?: string | undefined
  /**
   * `'auto'`: Secure over HTTPS; over plain HTTP without it outside production, and an error in production. `true`: an
   * error over plain HTTP anywhere. `'when-https'`: as `'auto'` outside of production, there without a warning and in
   * production, too, for who serves plain HTTP on purpose; anyone on the path of such a request can take its session over,
   * and so with every session when a proxy fails to send `X-Forwarded-Proto`. `false`: never Secure, with the same risk for
   * all sessions. express-session's `'auto'` is our `'when-https'`.
   * @default 'auto'
   */
  secure?: boolean | 'auto' | 'when-https' | undefined
  /**
   * Keeps the cookie from scripts. `false` lets any injected script take over the session.
   * @default true
   */
  httpOnly?: boolean | undefined
  /**
   * Whether other sites' requests carry the cookie, in any case. `true` is `'strict'`. `'none'` needs Secure, and CSRF
   * protection of your own, and so does `false`, which leaves the attribute out: each browser does what it thinks best then.
   * @default 'lax'
   */
  sameSite?: SameSite | undefined
  /**
   * The path under which the middleware works and the cookie is sent, matched by whole segments.
   * @default '/'
   */
  path?: string | undefined
  /**
   * Share the cookie with subdomains of this domain. Every one of them can then set it.
   * @default none: this host only
   */
  domain?: string | undefined
  /**
   * Partitioned (CHIPS): a separate cookie for each top-level site that embeds this one. Needs Secure.
   * @default false
   */
  partitioned?: boolean | undefined
  /**
   * Which cookies a browser that knows the attribute (Chromium) drops last when a host has too many: a session cookie of the
   * default priority goes however lately it was used. `false` leaves the attribute out.
   * @default 'high'
   */
  priority?: Priority | undefined
  /**
   * `true`: the cookie outlives the browser window and ends with the session. `false`: it ends with the window.
   * @default false
   */
  persistent?: boolean | undefined
  /**
   * What to do when a request has cookies of two live sessions. Whoever can set cookies for the domain, such as a
   * neighbouring subdomain, may have planted one of them, to have a user work in a session of theirs. `'new-session'`:
   * believe neither, tell the event `cookieConflict` and begin a new session. `'first'`: take the first one in the header,
   * which is that of the longest path; for two middlewares that share name, secret and store under paths inside each other.
   * Over HTTPS a name with the prefix `__Host-`, the default, cannot be planted: the first one is taken then.
   * @default 'new-session'
   */
  onConflict?: 'new-session' | 'first' | undefined
}

/**
 * Checks the cookie options and the secrets.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function resolveCookie(secret: Secret, options: CookieOptions): ResolvedCookie {
  checkTypes(options)
  const secure = options.secure ?? 'auto'
  const path = options.path ?? '/'
  const { domain } = options
  const isHostOnly = path === '/' && domain === undefined
  const name = options.name ?? (secure === false ? 'sid' : isHostOnly ? '__Host-sid' : '__Secure-sid')
  const secrets = new Secrets(secret)
  const resolved: ResolvedCookie = Object.freeze({
    secureName: name,
    plainName: prefixesOf(name).rest,
    secure,
    httpOnly: options.httpOnly ?? true,
    sameSite: known(sameSiteOf(options.sameSite ?? 'lax'), 'sameSite is not "strict", "lax", "none", true or false'),
    path,
    domain,
    partitioned: options.partitioned ?? false,
    priority: known(priorityOf(options.priority ?? 'high'), 'priority is not "low", "medium", "high" or false'),
    persistent: options.persistent ?? false,
    onConflict: options.onConflict ?? 'new-session',
    secrets,
    get keys() {
      return secrets.keys
    },
  })
  checkAttributes(resolved)
  return resolved
}

function known<T>(value: T | undefined, problem: string): T {
  if (value === undefined) throw invalidOption(`cookie.${problem}.`)
  return value
}

const MAX_COOKIE_BYTES = 4096
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
  onConflict: 'any',
} as const satisfies Record<keyof CookieOptions, string>

function checkTypes(options: CookieOptions): void {
  if (typeof options !== 'object') throw invalidOption('cookie is not an object of cookie options.')
  for (const [name, value] of Object.entries(options)) {
    const type = Object.hasOwn(TYPES, name) ? TYPES[name as keyof CookieOptions] : undefined
    if (type === undefined) {
      const instead =
        name === 'maxAge' || name === 'expires'
          ? ' Use idleTimeout and cookie: { persistent: true }.'
          : didYouMean(name, Object.keys(TYPES))
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
  const { isHost, isHttp, isSecure } = prefixesOf(name)
  if (isSecure && cookie.secure === false) {
    throw invalidOption(
      `cookie.name ${name} needs Secure: leave cookie.secure out, or choose a name without the prefix.`,
    )
  }
  if (isHost && (cookie.path !== '/' || cookie.domain !== undefined)) {
    throw invalidOption(
      `cookie.name ${name} needs path "/" and no domain: use the prefix ${isHttp ? '__Http-' : '__Secure-'} instead.`,
    )
  }
  if (isHttp && !cookie.httpOnly) {
    throw invalidOption(
      `cookie.name ${name} needs httpOnly: leave cookie.httpOnly out, or choose a name without "Http-".`,
    )
  }
  if (![true, false, 'auto', 'when-https'].includes(cookie.secure)) {
    throw invalidOption('cookie.secure is not true, false, "auto" or "when-https".')
  }
  if (cookie.sameSite === 'none' && cookie.secure === false) {
    throw invalidOption('cookie.sameSite "none" needs Secure: browsers drop the cookie otherwise.')
  }
  if (!['new-session', 'first'].includes(cookie.onConflict)) {
    throw invalidOption('cookie.onConflict is not "new-session" or "first".')
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
