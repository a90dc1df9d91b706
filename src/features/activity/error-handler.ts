// The last error handler of an Express application: answers with the session's logical ID, and logs the same.
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import { invalidOption } from '../../errors.js'
import { getSession } from '../../request/current-session.js'
import { inside } from '../../session/inside.js'
import { warnOfFailure } from '../../warn.js'
import { peekLogicalId, plainLogger } from './logging.js'

/** What `sessionErrorHandler()` takes. */
export interface SessionErrorHandlerOptions {
  /**
   * Gets one line for each error: `error()` for status 500 and above, `warn()` for the others. A function chooses by the
   * request, as with pino-http: `(req) => req.log`.
   * @default none: nothing is logged
   */
  logger?: ErrorLogger | ((req: never) => ErrorLogger) | undefined
  /**
   * What clients are told of an error whose own message is not for them.
   * @default 'An error occurred. Please give the session ID when you report it.'
   */
  message?: string | undefined
  /**
   * Whether clients see the messages of errors with status 500 and above, which may tell about the inside. Stacks are never
   * shown.
   * @default whether `NODE_ENV` is not `'production'`
   */
  showInternals?: boolean | undefined
}

/** What of a logger is called: that of pino, bunyan, winston, or `console`. */
export interface ErrorLogger {
  error(fields: object, message: string): unknown
  warn(fields: object, message: string): unknown
}

/** What a client is told of an error, as JSON. */
export interface ErrorAnswer {
  /** The name of the status, such as `'Not Found'`. */
  readonly error: string
  /** The logical ID of the session, as in the log lines of the request; `null` when the request has no session. */
  readonly sessionId: string | null
  readonly message: string
}

/** An error handler of Express 4 or 5. */
export type SessionErrorHandler = (
  error: unknown,
  req: IncomingMessage,
  res: ServerResponse,
  next: (error: unknown) => void,
) => void

const GENERAL_MESSAGE = 'An error occurred. Please give the session ID when you report it.'

/**
 * An error handler for Express 4 and 5, to be mounted last. It answers `{ error, sessionId, message }` as JSON, and as HTML or
 * plain text to who prefers that; `sessionId` is the logical ID, as in the log lines of the request. The status is that of
 * the error (`status` or `statusCode`, 400 to 599), else that of the response, else 500; `headers` of the error are sent. A
 * message is shown below 500, or as `error.expose` says (http-errors). A response that has begun is left to Express.
 *
 * The error is logged with the ID, and is an activity of type `'error'` when `session({ activity })` is set. Of an error,
 * name, message, code, stack and causes are logged, and no other properties: those carry request bodies and commands.
 *
 * No session is stored for an error.
 *
 * ```ts
 * app.use(sessionErrorHandler({ logger }))
 * ```
 * @throws {SessionError} `INVALID_OPTION`
 */
export function sessionErrorHandler(options: SessionErrorHandlerOptions = {}): SessionErrorHandler {
  const { logger, message, showInternals } = checkOptions(options)

  // Express knows error handlers by their four parameters.
  return function handleError(error, req, res, next) {
    const status = statusOf(error, res)
    const session = getSession(req) ?? getSession()
    const sessionId = peekLogicalId(session) ?? null
    const facts = factsOf(error)
    const line = {
      err: facts,
      status,
      method: req.method,
      path: pathOf(req),
      ...(sessionId !== null && { sessionId }),
    }
    try {
      const log = typeof logger === 'function' ? logger(req as never) : logger
      if (log) plainLogger(log)[status >= 500 ? 'error' : 'warn'](line, 'request failed')
    } catch (failure) {
      warnOfFailure('The logger of sessionErrorHandler()', failure)
    }
    if (session)
      inside(session).recordActivity(
        'error',
        { status, name: facts.name, message: facts.message, ...(facts.code !== undefined && { code: facts.code }) },
        { keepsLogicalId: false },
      )
    if (res.headersSent) {
      next(error)
      return
    }
    const name = STATUS_CODES[status] ?? String(status)
    const isShown = exposeOf(error) ?? (status < 500 || showInternals)
    send(
      req,
      res,
      status,
      { error: name, sessionId, message: isShown && facts.message !== '' ? facts.message : message },
      error,
    )
  }
}

/** What is told of an error in logs. Without a prototype, so that pino's serializer goes by `name`. */
interface ErrorFacts {
  name: string
  message: string
  code?: string | number
  stack?: string
  cause?: ErrorFacts
}

const MAX_CAUSES = 5
const MAX_PATH = 1_000

function factsOf(error: unknown, depth = 0): ErrorFacts {
  const facts = Object.create(null) as ErrorFacts
  facts.name = text(read(error, 'name')) ?? typeof error
  facts.message = text(read(error, 'message')) ?? text(error) ?? ''
  const code = read(error, 'code')
  if (typeof code === 'string' || typeof code === 'number') facts.code = code
  const stack = text(read(error, 'stack'))
  if (stack !== undefined) facts.stack = stack
  const cause = read(error, 'cause')
  if (cause instanceof Error && depth < MAX_CAUSES) facts.cause = factsOf(cause, depth + 1)
  return facts
}

function statusOf(error: unknown, res: ServerResponse): number {
  const candidates = [read(error, 'status'), read(error, 'statusCode'), res.statusCode]
  return candidates.find(isErrorStatus) ?? 500
}

function isErrorStatus(status: unknown): status is number {
  return typeof status === 'number' && Number.isInteger(status) && status >= 400 && status <= 599
}

function exposeOf(error: unknown): boolean | undefined {
  // Ours go by their status, too; what they say of the inside is for development.
  if (read(error, 'name') === 'SessionError') return undefined
  const expose = read(error, 'expose')
  return typeof expose === 'boolean' ? expose : undefined
}

/** Anything can be thrown, also what throws when it is looked at. */
function read(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  try {
    return (value as Record<string, unknown>)[name]
  } catch {
    return undefined
  }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Queries carry secrets of others. */
function pathOf(req: IncomingMessage & { originalUrl?: string }): string {
  const [path = ''] = (req.originalUrl ?? req.url ?? '').split('?', 1)
  return path.slice(0, MAX_PATH)
}

/** Headers of the response that was under way. */
const OF_THE_BODY = [
  'Content-Disposition',
  'Content-Encoding',
  'Content-Language',
  'Content-Length',
  'Content-Range',
  'ETag',
  'Last-Modified',
]

function send(req: IncomingMessage, res: ServerResponse, status: number, answer: ErrorAnswer, error: unknown): void {
  res.statusCode = status
  for (const name of OF_THE_BODY) res.removeHeader(name)
  setHeadersOf(error, res)
  const [type, body] = bodyFor(req, answer)
  res.setHeader('Content-Type', `${type}; charset=utf-8`)
  res.setHeader('Content-Length', Buffer.byteLength(body))
  // The ID is of this client; a shared cache must not give it to others.
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Content-Security-Policy', "default-src 'none'")
  res.setHeader('X-Content-Type-Options', 'nosniff')
  res.end(req.method === 'HEAD' ? undefined : body)
}

/** Of the connection (RFC 9110 7.6.1) or of the body that we send; a cookie is set by who holds the session. */
const NOT_OF_AN_ERROR = new Set(
  (
    'connection keep-alive proxy-connection te trailer transfer-encoding upgrade proxy-authenticate ' +
    'proxy-authorization set-cookie set-cookie2 content-length content-type content-encoding content-range'
  ).split(' '),
)

/** As http-errors has them, such as `Retry-After`. Those that Node refuses are left out. */
function setHeadersOf(error: unknown, res: ServerResponse): void {
  const headers = read(error, 'headers')
  if (typeof headers !== 'object' || headers === null) return
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== 'string' && typeof value !== 'number') continue
    if (NOT_OF_AN_ERROR.has(name.toLowerCase())) continue
    try {
      res.setHeader(name, value)
    } catch {
      // A header must not keep the answer from being sent.
    }
  }
}

function bodyFor(req: IncomingMessage, answer: ErrorAnswer): [type: string, body: string] {
  const { accepts } = req as { accepts?: (types: string[]) => string | false }
  switch (accepts?.call(req, ['json', 'html', 'text'])) {
    case 'html':
      return ['text/html', htmlOf(answer)]
    case 'text':
      return ['text/plain', textOf(answer)]
    default:
      return ['application/json', JSON.stringify(answer)]
  }
}

function textOf({ error, sessionId, message }: ErrorAnswer): string {
  return `${error}\n${message}\n${sessionId === null ? '' : `Session ID: ${sessionId}\n`}`
}

function htmlOf({ error, sessionId, message }: ErrorAnswer): string {
  const title = escapeHtml(error)
  const id = sessionId === null ? '' : `\n<p>Session ID: <code>${escapeHtml(sessionId)}</code></p>`
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<h1>${title}</h1>
<p>${escapeHtml(message)}</p>${id}
</html>
`
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

function escapeHtml(value: string): string {
  return value.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character)
}

function checkOptions(options: SessionErrorHandlerOptions): {
  logger: SessionErrorHandlerOptions['logger']
  message: string
  showInternals: boolean
} {
  const known = ['logger', 'message', 'showInternals'] satisfies (keyof SessionErrorHandlerOptions)[]
  for (const name of Object.keys(options)) {
    if (!(known as string[]).includes(name))
      throw invalidOption(`sessionErrorHandler(): There is no option "${name}"; there are ${known.join(', ')}.`)
  }
  const { logger, message = GENERAL_MESSAGE, showInternals = process.env['NODE_ENV'] !== 'production' } = options
  if (logger !== undefined && typeof logger !== 'function' && !isLogger(logger)) {
    throw invalidOption(
      'sessionErrorHandler(): logger needs error() and warn(), or is a function of the request that returns such a logger.',
    )
  }
  if (typeof message !== 'string' || message === '')
    throw invalidOption('sessionErrorHandler(): message is text for clients.')
  if (typeof showInternals !== 'boolean') throw invalidOption('sessionErrorHandler(): showInternals is true or false.')
  return { logger, message, showInternals }
}

function isLogger(value: unknown): value is ErrorLogger {
  const { error, warn } = value as Partial<ErrorLogger>
  return typeof error === 'function' && typeof warn === 'function'
}
