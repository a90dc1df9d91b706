// What `deviceBound()` takes, checked, and the names that follow from the cookie of the sessions.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidOption } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'

/** A request that `deviceBound()` looks at. */
export type DeviceRequest = IncomingMessage | Http2ServerRequest

/** What `deviceBound()` takes. */
export interface DeviceBoundOptions {
  /**
   * How long the bound cookie is good: as long as a thief with all cookies is in, at most. From 5 minutes, below which browsers stop
   * to refresh it in time, to a day.
   * @default '10m'
   */
  lifetime?: Duration | undefined
  /**
   * What becomes of a request whose session has a key, and which does not come with the bound cookie. `'refuse'`: an error
   * `DEVICE_UNPROVEN` (401) goes to `next`. `'pass'`: it goes on, but for routes behind `requireDevice()`.
   * @default 'refuse'
   */
  unproven?: 'refuse' | 'pass' | undefined
  /**
   * Requests that are not refused: their paths, matched by whole segments, or a function that says so. Name the pages here by which
   * one logs in and out: who has lost the key has no other way back.
   * @default none
   */
  except?: readonly string[] | ((req: DeviceRequest) => boolean) | undefined
  /**
   * Called instead of `next(error)` when a request is refused, to answer it. It may be `async`.
   * @default an error `DEVICE_UNPROVEN` with status 401 goes to `next`
   */
  // A method, so that Express's own type of request fits.
  onRefused?(req: DeviceRequest, res: object, next: (error?: unknown) => void): unknown
  /**
   * Where the two routes are that browsers ask, under the path of the session cookie.
   * @default 'device-bound' under the path of the session cookie: '/device-bound/registration' and '/device-bound/refresh'
   */
  path?: string | undefined
  /**
   * For sessions of all hosts of a site (`cookie.domain`): the origins where users log in, such as
   * `['https://example.com', 'https://accounts.example.com']`. A login anywhere else is not offered a key. `cookie.domain` has to be the
   * registrable domain of the site then: browsers bind one host, or all of a site. What is mounted at that domain tells browsers of these
   * origins, by `/.well-known/device-bound-sessions`.
   * @default none: `cookie.domain` is refused
   */
  registeringOrigins?: readonly string[] | undefined
}

/** `DeviceBoundOptions` after checks, and what follows from them. */
export interface DeviceRules {
  readonly lifetimeMs: number
  readonly refuses: boolean
  readonly isExcepted: (req: DeviceRequest) => boolean
  readonly onRefused: DeviceBoundOptions['onRefused']
  readonly registrationPath: string
  readonly refreshPath: string
  readonly cookieName: string
  /** What is in scope of a key, in the terms of the protocol. */
  readonly scope: { readonly origin?: string; readonly include_site: boolean }
  /** Where a login is offered a key; `undefined` where that is everywhere. */
  readonly origins: ReadonlySet<string> | undefined
  /** The attributes of the bound cookie, as they stand in `Set-Cookie` and in what the browser is told to look for. */
  readonly attributes: string
}

/** Of a shorter one Chromium 156 left requests without the cookie: it makes so many signatures in so many minutes. */
const SHORTEST_MS = 5 * 60_000
const LONGEST_MS = 24 * 60 * 60_000
const OPTIONS = [
  'lifetime',
  'unproven',
  'except',
  'onRefused',
  'path',
  'registeringOrigins',
] as const satisfies (keyof DeviceBoundOptions)[]

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveRules(options: DeviceBoundOptions, manager: SessionManager): DeviceRules {
  for (const name of Object.keys(options)) {
    if (!(OPTIONS as readonly string[]).includes(name)) {
      throw invalidOption(`deviceBound() has no option "${name}".${didYouMean(name, OPTIONS)}`)
    }
  }
  const { unproven = 'refuse', except = [], onRefused } = options
  if (unproven !== 'refuse' && unproven !== 'pass') {
    throw invalidOption(`unproven is ${JSON.stringify(unproven)}; use 'refuse' or 'pass'.`)
  }
  if (onRefused !== undefined && typeof onRefused !== 'function') throw invalidOption('onRefused is not a function.')
  const cookie = manager.describe()['cookie'] as SessionCookie
  const path = pathOf(options.path, cookie.path)
  return Object.freeze({
    lifetimeMs: lifetimeOf(options.lifetime ?? '10m'),
    refuses: unproven === 'refuse',
    isExcepted: exceptionOf(except),
    onRefused,
    registrationPath: `${path}/registration`,
    refreshPath: `${path}/refresh`,
    ...scopeOf(cookie.domain, options.registeringOrigins),
    ...boundCookie(cookie),
  })
}

/** What `describe()` says of the session cookie, as far as it matters here. */
interface SessionCookie {
  readonly secureName: string
  readonly path: string
  readonly domain: string | undefined
  readonly sameSite: 'strict' | 'lax' | 'none' | false
}

function lifetimeOf(lifetime: Duration): number {
  const ms = milliseconds(lifetime, 'lifetime')
  if (ms >= SHORTEST_MS && ms <= LONGEST_MS) return ms
  throw invalidOption(
    `lifetime is ${ms / 1000} seconds; use '5m' to '24h'. Browsers make a few signatures in ten minutes at most: with a shorter one ` +
      'requests come without the cookie.',
  )
}

function exceptionOf(except: NonNullable<DeviceBoundOptions['except']>): DeviceRules['isExcepted'] {
  if (typeof except === 'function') return except
  if (!Array.isArray(except) || !except.every((path) => typeof path === 'string' && path.startsWith('/'))) {
    throw invalidOption('except is neither a list of paths that begin with "/" nor a function of the request.')
  }
  const paths = except.map(withoutSlash)
  return (req) => {
    const asked = pathnameOf(req)
    if (WALKS_UP.test(asked)) return false
    return paths.some((path) => asked === path || asked.startsWith(`${path}/`))
  }
}

/** What is behind may go elsewhere by it than where the path begins. */
const WALKS_UP = /\.\.|%2e|\\|%5c/i

function pathOf(path: string | undefined, cookiePath: string): string {
  const root = withoutSlash(cookiePath)
  if (path === undefined) return `${root}/device-bound`
  const isPath = typeof path === 'string' && /^(\/[\w.~-]+)+\/?$/.test(path)
  if (!isPath)
    throw invalidOption("path is no path of letters, digits, '-', '_', '.' and '~', such as '/device-bound'.")
  if (!path.startsWith(`${root}/`)) {
    throw invalidOption(
      `path is not under ${cookiePath}, the path of the session cookie, so that no session would come.`,
    )
  }
  return withoutSlash(path)
}

function withoutSlash(path: string): string {
  return path.endsWith('/') ? path.slice(0, -1) : path
}

/**
 * A key is for one host, or for all of a site. For other subdomains than that which registered it no browser would refresh the cookie,
 * else.
 */
function scopeOf(
  cookieDomain: string | undefined,
  registeringOrigins: DeviceBoundOptions['registeringOrigins'],
): Pick<DeviceRules, 'scope' | 'origins'> {
  if (cookieDomain === undefined) {
    if (registeringOrigins === undefined) return { scope: { include_site: false }, origins: undefined }
    throw invalidOption(
      'registeringOrigins is for sessions of all hosts of a site: set cookie.domain, or leave it out.',
    )
  }
  const domain = withoutDot(cookieDomain)
  if (registeringOrigins === undefined) {
    throw invalidOption(
      `deviceBound() needs to know of sessions with cookie.domain where users log in. If ${domain} is the registrable domain of your site, ` +
        `set registeringOrigins: ['https://${domain}']. If it is not, leave cookie.domain out: browsers bind one host, or all of a site.`,
    )
  }
  if (!Array.isArray(registeringOrigins) || registeringOrigins.length === 0) {
    throw invalidOption(`registeringOrigins is no list of origins, such as ['https://${domain}'].`)
  }
  for (const [index, origin] of registeringOrigins.entries()) {
    if (isOriginUnder(domain, origin)) continue
    throw invalidOption(
      `registeringOrigins[${index}] is no origin at ${domain} or below it, such as 'https://${domain}'.`,
    )
  }
  return { scope: { origin: `https://${domain}`, include_site: true }, origins: new Set(registeringOrigins) }
}

function isOriginUnder(domain: string, origin: unknown): boolean {
  if (typeof origin !== 'string' || !URL.canParse(origin)) return false
  const { protocol, hostname, origin: written } = new URL(origin)
  return written === origin && protocol === 'https:' && `.${hostname}`.endsWith(`.${domain}`)
}

function withoutDot(domain: string): string {
  return domain.replace(/^\./, '').toLowerCase()
}

/** The origin that a request over HTTPS was sent to, as far as it says so. */
export function originOf({ headers }: DeviceRequest): string | undefined {
  const url = `https://${headers.host ?? (headers as { ':authority'?: string })[':authority']}`
  return URL.canParse(url) ? new URL(url).origin : undefined
}

/**
 * Browsers look for it under the very name and attributes with which it was set. Chromium 156 finds none whose name begins with
 * `__Host-Http-`.
 */
function boundCookie({
  secureName,
  path,
  domain,
  sameSite,
}: SessionCookie): Pick<DeviceRules, 'cookieName' | 'attributes'> {
  const prefix = path === '/' && domain === undefined ? '__Host-' : '__Secure-'
  const name = secureName.replace(/^__(host-http|http|host|secure)-/i, '')
  const where = domain === undefined ? '' : `Domain=${withoutDot(domain)}; `
  const written = sameSite === false ? '' : `; SameSite=${sameSite.charAt(0).toUpperCase()}${sameSite.slice(1)}`
  return { cookieName: `${prefix}${name}-bound`, attributes: `${where}Path=${path}; Secure; HttpOnly${written}` }
}

/** The path of a request, without its query, also where it was mounted under another one. */
export function pathnameOf(req: DeviceRequest): string {
  const { originalUrl, url } = req as { originalUrl?: string; url?: string }
  const target = originalUrl ?? url ?? '/'
  const end = target.search(/[?#]/)
  return end === -1 ? target : target.slice(0, end)
}
