// What can be chosen of `csrf()`, and the checks.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { didYouMean } from '../../did-you-mean.js'
import { invalidOption } from '../../errors.js'
import { type IsTrusted, resolveTrusted } from './sender.js'

/**
 * Which line refused a request: `Sec-Fetch-Site` (`'fetch-metadata'`), `Origin` or `Referer` named another site, or nothing said
 * who sent it and no token came along (`'token-missing'`), or the token was not one of this session (`'token-wrong'`).
 */
export type CsrfRefusal = 'fetch-metadata' | 'origin' | 'referer' | 'token-missing' | 'token-wrong'

/** A request that `csrf()` looks at. */
export type CsrfRequest = IncomingMessage | Http2ServerRequest

/** What `csrf()` takes. */
export interface CsrfOptions {
  /**
   * Other origins whose pages may send requests with this site's cookies, such as `'https://admin.example.com'`: scheme, host
   * and port, no path. Or a function of the origin.
   * @default none
   */
  trustedOrigins?: readonly string[] | ((origin: string) => boolean) | undefined
  /**
   * `'when-sent'`: a token that comes along has to be right, and one is needed where the browser does not say who sent the
   * request. `'always'`: every request that changes something needs one, too.
   * @default 'when-sent'
   */
  tokens?: 'when-sent' | 'always' | undefined
  /**
   * Where the token is, if it is elsewhere than in the header `X-CSRF-Token` or the field `_csrf` of `req.body`. Not from the
   * URL: that stands in logs and in the `Referer` of other sites.
   */
  // A method, so that Express's own type of request fits.
  tokenOf?(req: CsrfRequest): string | undefined
  /**
   * Called instead of `next(error)` when a request is refused, to answer it. What it throws, or rejects with, goes to `next`.
   * @default an error `CSRF_REFUSED` with status 403 goes to `next`
   */
  onRefused?(req: CsrfRequest, res: object, next: (error?: unknown) => void, refusal: CsrfRefusal): unknown
}

/** The options, checked. */
export interface CsrfRules {
  readonly isTrusted: IsTrusted
  readonly needsToken: boolean
  readonly tokenOf: ((req: CsrfRequest) => unknown) | undefined
  readonly onRefused: CsrfOptions['onRefused']
}

const NAMES = ['trustedOrigins', 'tokens', 'tokenOf', 'onRefused']

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveCsrf({
  trustedOrigins = [],
  tokens = 'when-sent',
  tokenOf,
  onRefused,
  ...others
}: CsrfOptions): CsrfRules {
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw invalidOption(`csrf() has no option "${unknown}".${didYouMean(unknown, NAMES)}`)
  if (tokens !== 'when-sent' && tokens !== 'always') {
    throw invalidOption(`tokens is ${String(tokens)}; use 'when-sent' or 'always'.`)
  }
  for (const [name, value] of Object.entries({ tokenOf, onRefused })) {
    if (value !== undefined && typeof value !== 'function') throw invalidOption(`${name} is not a function.`)
  }
  return {
    isTrusted: resolveTrusted(trustedOrigins),
    needsToken: tokens === 'always',
    tokenOf,
    onRefused,
  }
}
