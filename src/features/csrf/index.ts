// Cross-site request forgery: `sojourn/csrf`. Who sent a request is asked of the browser first (Fetch Metadata, then Origin and
// Referer); where it does not say, and wherever a token comes along, a token of the session decides.
import { invalidOption, SessionError } from '../../errors.js'
import { getSession } from '../../request/current-session.js'
import { inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { answerInstead } from '../../soon.js'
import { type CsrfOptions, type CsrfRefusal, type CsrfRequest, type CsrfRules, resolveCsrf } from './options.js'
import { whoSent } from './sender.js'
import { issueToken, judgeToken } from './tokens.js'

export type { CsrfOptions, CsrfRefusal, CsrfRequest } from './options.js'

// Express's request extends both of its own: they must say the same.
declare global {
  namespace Express {
    interface Request {
      /** A token for forms and scripts of this page, where `csrf()` ran. */
      csrfToken(): string
    }
  }
}

declare module 'http' {
  interface IncomingMessage {
    /** A token for forms and scripts of this page, where `csrf()` ran. */
    csrfToken(): string
  }
}

declare module 'http2' {
  interface Http2ServerRequest {
    /** A token for forms and scripts of this page, where `csrf()` ran. */
    csrfToken(): string
  }
}

/** The middleware that `csrf()` returns. */
export type CsrfMiddleware = (req: CsrfRequest, res: object, next: (error?: unknown) => void) => void

/**
 * Refuses requests that another site may have sent with the cookies of this one. Mount it behind `session()` and, for tokens in
 * forms, behind what parses bodies.
 *
 * ```ts
 * app.use(session({ secret }), express.urlencoded(), csrf())
 * ```
 *
 * Methods that change nothing (GET, HEAD, OPTIONS, TRACE) pass, but for handshakes of WebSockets, whose `Origin` is looked at.
 * Of the others, one passes when the browser says that this site sent it, or a trusted one did; or with a token of its
 * session; or when it comes without a session and nothing says that another site sent it. A token is an HMAC-SHA256 over the
 * session's ID and a random part, each time another: it costs no store call, dies with `login()`, `logout()` and every
 * `regenerate()`, and survives `renew()`.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function csrf(options: CsrfOptions = {}): CsrfMiddleware {
  const rules = resolveCsrf(options)
  return function csrfMiddleware(req, res, next) {
    req.csrfToken = tokenOfThis
    if (mayPass(req)) {
      next()
      return
    }
    const session = getSession(req)
    if (session === undefined) {
      next(invalidOption('csrf() runs behind session(), and under the same path; req.session is not there.'))
      return
    }
    const refusal = refusalOf(req, session, rules)
    if (refusal === null) {
      next()
      return
    }
    tell(session, refusal)
    const { onRefused } = rules
    if (onRefused !== undefined) answerInstead(() => onRefused(req, res, next, refusal), next)
    else next(new SessionError('CSRF_REFUSED', MESSAGES[refusal]))
  }
}

/**
 * A token for forms and scripts of the page that is made for this request: the same as `req.csrfToken()`, each time another
 * text. Put it into a hidden field `_csrf`, or send it as `X-CSRF-Token`.
 * @throws {SessionError} `INVALID_ARGUMENT` for a request without a session
 */
export function csrfToken(req: CsrfRequest): string {
  const session = getSession(req)
  if (session === undefined) {
    throw new SessionError('INVALID_ARGUMENT', 'csrfToken() needs a request behind session(), such as req.')
  }
  return issueToken(session)
}

/** A hidden field with a token, as HTML, for the forms of a page. */
export function csrfField(req: CsrfRequest): string {
  return `<input type="hidden" name="${FIELD}" value="${csrfToken(req)}">`
}

/** A `<meta name="csrf-token">` with a token, as HTML, for what scripts of a page send as `X-CSRF-Token`. */
export function csrfMeta(req: CsrfRequest): string {
  return `<meta name="csrf-token" content="${csrfToken(req)}">`
}

function tokenOfThis(this: CsrfRequest | undefined): string {
  if (this === undefined) {
    throw new SessionError(
      'INVALID_ARGUMENT',
      'Call it as req.csrfToken(), or import csrfToken and call csrfToken(req).',
    )
  }
  return csrfToken(this)
}

const FIELD = '_csrf'
const HEADER = 'x-csrf-token'

const SAFE: ReadonlySet<string | undefined> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/** Whether a request changes nothing, by its method as it was sent: method-override keeps that one. */
function mayPass(req: CsrfRequest): boolean {
  const { method, originalMethod } = req as { method?: string; originalMethod?: string }
  if (!SAFE.has(method) || (originalMethod !== undefined && !SAFE.has(originalMethod))) return false
  return !isSocketHandshake(req)
}

function isSocketHandshake({ headers }: CsrfRequest): boolean {
  return headers.upgrade !== undefined && headers.upgrade.toLowerCase() === 'websocket'
}

function refusalOf(
  req: CsrfRequest,
  session: Session,
  { isTrusted, needsToken, tokenOf = sentToken }: CsrfRules,
): CsrfRefusal | null {
  const sender = whoSent(req, () => inside(session).isHttps(), isTrusted)
  if (sender !== 'own' && sender !== 'unknown') return sender
  // Browsers name the origin of every handshake, and its request has no place for a token.
  if (isSocketHandshake(req) && SAFE.has(req.method)) return null
  const isOfVisitor = session.isNew
  // Without a session there is nothing that another site could use, and what it may begin, such as a login, it has no part in.
  const isNeeded = needsToken || (sender === 'unknown' && !isOfVisitor)
  if (isOfVisitor && !isNeeded) return null
  const token = tokenOf(req)
  if (token === undefined || token === '') return isNeeded ? 'token-missing' : null
  switch (judgeToken(session, token)) {
    case 'of-session':
      return null
    case 'of-visitors':
      return isNeeded && !isOfVisitor ? 'token-wrong' : null
    default:
      return 'token-wrong'
  }
}

/** One source, so that nobody reads another than we do. A field that came twice is no text, and no token. */
function sentToken(req: CsrfRequest): unknown {
  const header = req.headers[HEADER]
  if (header !== undefined) return header
  const { body } = req as { body?: unknown }
  return typeof body === 'object' && body !== null && Object.hasOwn(body, FIELD)
    ? (body as Record<string, unknown>)[FIELD]
    : undefined
}

function tell(session: Session, reason: CsrfRefusal): void {
  const own = inside(session)
  const id = session.isNew ? undefined : session.id
  own.events.emit('csrfRefused', { id, userId: session.metadata.userId, reason, ...own.request() })
}

const MESSAGES: Readonly<Record<CsrfRefusal, string>> = {
  'fetch-metadata':
    'Sec-Fetch-Site says that a page of another origin sent this request. If it is one of yours, name it in trustedOrigins.',
  origin: 'Origin names another site than this one. If it is one of yours, name it in trustedOrigins.',
  referer: 'Referer names another site than this one. If it is one of yours, name it in trustedOrigins.',
  'token-missing':
    'Nothing says which site sent this request, and it has no CSRF token: send one as X-CSRF-Token or in the field _csrf, ' +
    'and parse bodies before csrf().',
  'token-wrong':
    'The CSRF token is not one of this session: the form is from before a login or logout, or of somebody else. Load it again.',
}
