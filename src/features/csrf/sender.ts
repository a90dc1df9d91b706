// Which site sent a request, as far as the browser says.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { invalidOption } from '../../errors.js'

/** Whether pages of this origin may send requests as those of the site itself do. */
export type IsTrusted = (origin: string) => boolean

/** This site, or one that is trusted; a header that names another; or nobody says. */
export type Sender = 'own' | 'unknown' | 'fetch-metadata' | 'origin' | 'referer'

/**
 * Who sent a request. The first header that is there decides.
 *
 * `Sec-Fetch-Site` (W3C Fetch Metadata) is what the browser knows, whatever proxies make of `Host`: `same-origin` is this site,
 * `none` the user, and any other value another site, a sibling subdomain included. `Origin: null` says nothing: a page without
 * a referrer sends it to its own site, too.
 */
export function whoSent(
  req: IncomingMessage | Http2ServerRequest,
  isHttps: () => boolean,
  isTrusted: IsTrusted,
): Sender {
  const { headers } = req
  const { origin, referer } = headers
  const site = headers['sec-fetch-site']
  if (site === 'same-origin' || site === 'none') return 'own'
  if (site !== undefined) return origin !== undefined && isTrusted(origin) ? 'own' : 'fetch-metadata'
  const named = origin ?? originOf(referer)
  if (named === undefined || named === 'null') return 'unknown'
  const host = headers.host ?? (headers as { ':authority'?: string })[':authority']
  if (isSame(named, `${isHttps() ? 'https' : 'http'}://${host}`) || isTrusted(named)) return 'own'
  return origin === undefined ? 'referer' : 'origin'
}

/** Scheme, host and port, all three. The default port may be written or not. */
function isSame(one: string, other: string): boolean {
  return one === other || plain(one) === plain(other)
}

function plain(origin: string): string {
  return origin.toLowerCase().replace(/^(https:\/\/.*):443$|^(http:\/\/.*):80$/, '$1$2')
}

/** The origin of a URL; `undefined` for what is none. */
function originOf(url: string | undefined): string | undefined {
  return url !== undefined && URL.canParse(url) ? new URL(url).origin : undefined
}

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveTrusted(origins: readonly string[] | IsTrusted): IsTrusted {
  if (typeof origins === 'function') return (origin) => origin !== 'null' && origins(origin)
  if (!Array.isArray(origins)) throw invalidOption('trustedOrigins is not a list of origins, nor a function.')
  const trusted = new Set(origins.map(checkedOrigin))
  return trusted.size === 0 ? () => false : (origin) => trusted.has(plain(origin))
}

function checkedOrigin(text: unknown, index: number): string {
  const origin = typeof text === 'string' ? originOf(text) : undefined
  if (origin !== undefined && origin !== 'null' && /^https?:\/\/[^/?#@*]+\/?$/i.test(text as string))
    return plain(origin)
  throw invalidOption(
    `trustedOrigins[${index}] is no origin: write scheme, host and port, such as 'https://admin.example.com'.`,
  )
}
