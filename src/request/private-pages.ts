// Middleware for pages that only who is logged in may see: also when somebody presses Back after the logout.

import { invalidOption } from '../errors.js'
import { isSession, Session } from '../session/session.js'
import { STATE } from '../session/state.js'
import type { HttpRequest } from './http-request.js'

/** What `privatePages()` takes. */
export interface PrivatePagesOptions {
  /**
   * Whether the answer to a logout has the browser empty its cache of this site (`Clear-Site-Data: "cache"`), for what was sent
   * with a `Cache-Control` of its own. The option `clearSiteData` of `session()` goes before it.
   * @default true
   */
  clearCache?: boolean | undefined
}

/**
 * Keeps pages that were made for a logged-in user from whoever sits at the browser afterwards. Mount it behind `session()`, and
 * behind what serves files that are the same for everybody.
 *
 * ```ts
 * app.use(session({ secret }), privatePages())
 * ```
 *
 * While a user is logged in, each response has `Cache-Control: no-store` (OWASP ASVS 14.3.2), unless its handler says
 * something else. Browsers keep such a page for Back as well, as long as no cookie changes: the logout changes ours, so that
 * Back asks the server. The answer to the logout empties the browser's cache of this site, too.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function privatePages({
  clearCache = true,
}: PrivatePagesOptions = {}): (req: HttpRequest, res: object, next: (error?: unknown) => void) => void {
  if (typeof clearCache !== 'boolean') throw invalidOption('clearCache is not true or false.')
  return function privatePagesMiddleware(req, res, next) {
    const { session } = req as { session?: unknown }
    if (!isSession(session)) {
      next(invalidOption('privatePages() runs behind session(); req.session is not there.'))
      return
    }
    const { userId, previousEnd } = session.metadata
    const response = res as { headersSent?: boolean; setHeader?: (name: string, value: string) => unknown }
    if (userId !== undefined && !response.headersSent) response.setHeader?.('Cache-Control', 'no-store')
    // Nothing was made for who is nobody, and was nobody before.
    const wasSomebody = userId !== undefined || previousEnd !== undefined
    if (clearCache && wasSomebody && session instanceof Session) session[STATE].host.clearAfterLogout = '"cache"'
    next()
  }
}
