// What the head of a page says of the session behind it: to caches (Cache-Control and Vary, RFC 9111 and RFC 9110) and to the
// browser's storage (Clear-Site-Data). What is in the cookie is decided elsewhere.
import type { HttpResponse } from './http-response.js'

/** What the headers depend on. */
export interface PageFacts {
  /** The `Set-Cookie` value, if there is one. */
  readonly setCookie: string | null
  /** Whether the handler looked at the session: the page may show what is in it. */
  readonly wasUsed: boolean
  /** What the application chose for pages that the session was used for. */
  readonly cacheControl: 'private' | 'none'
  /** The `Clear-Site-Data` value, if there is one. */
  readonly clearSiteData: string | null
}

/** Sets the headers. What the application said itself is made stricter where it must be, and kept otherwise. */
export function setPageHeaders(
  res: HttpResponse,
  { setCookie, wasUsed, cacheControl, clearSiteData }: PageFacts,
): void {
  if (setCookie !== null) {
    res.appendHeader('Set-Cookie', setCookie)
    forbidStoring(res)
  } else if (wasUsed && cacheControl === 'private') keepFromSharedCaches(res)
  if (setCookie !== null || wasUsed || clearSiteData !== null) varyByCookie(res)
  if (clearSiteData !== null) res.setHeader('Clear-Site-Data', clearSiteData)
}

/** Directives as a whole, in any case (RFC 9111 5.2). */
const NO_STORE = /(^|,)\s*no-store\s*(,|$)/i
/** What says whether shared caches may keep a response. */
const SAYS_WHO_MAY_STORE = /(^|,)\s*(no-store|private|public|s-maxage)\s*(=|,|$)/i

/** A cookie that a cache hands out makes one user another. */
export function forbidStoring(res: HttpResponse): void {
  if (!NO_STORE.test(String(res.getHeader('Cache-Control')))) res.setHeader('Cache-Control', 'no-store')
}

/** There are shared caches that do not heed `Vary: Cookie`. */
function keepFromSharedCaches(res: HttpResponse): void {
  const own = res.getHeader('Cache-Control')
  if (own === undefined || own === '') res.setHeader('Cache-Control', 'private')
  else if (!SAYS_WHO_MAY_STORE.test(String(own))) res.setHeader('Cache-Control', `${String(own)}, private`)
}

function varyByCookie(res: HttpResponse): void {
  const vary = res.getHeader('Vary')
  if (vary === undefined) res.setHeader('Vary', 'Cookie')
  else if (!/(^|,)\s*(\*|cookie)\s*(,|$)/i.test(String(vary))) res.setHeader('Vary', `${String(vary)}, Cookie`)
}
