// Log lines that say which session they belong to, without anyone passing it: for pino, pino-http and loggers like them.

import { SessionError } from '../../errors.js'
import { getSession } from '../../request/current-session.js'
import { inside } from '../../session/inside.js'
import { isSession, type Session } from '../../session/session.js'

/** What `sessionMixin()` adds to a log line. */
export interface SessionLogFields {
  /** The logical ID of the session, outside of a request absent. */
  sessionId?: string
}

/** A logger that can make another one whose lines carry more: of pino, bunyan, winston. */
export interface ChildLogger {
  child(bindings: { sessionId: string }): unknown
}

/**
 * For the option `mixin` of pino: each line that is logged while a request is handled carries `sessionId`, the logical ID
 * of its session. For `customProps` of pino-http, too, where the line about the whole request is all that needs it, or with
 * `context: false`. Use one of the two, or the line about the request carries it twice.
 *
 * It only looks: no session is stored for it, no store is asked, and the response does not come to depend on the cookie. A
 * session that is stored keeps the ID that was logged; a visitor without one has another ID in the next request.
 *
 * ```ts
 * const logger = pino({ mixin: sessionMixin() })
 * app.use(pinoHttp({ logger, redact: ['req.headers.cookie', 'res.headers["set-cookie"]'] }), session({ secret }))
 * ```
 */
export function sessionMixin(): (subject?: object) => SessionLogFields {
  return function sessionFields(subject) {
    const sessionId = peekLogicalId(sessionIn(subject) ?? getSession())
    // A new object each time: pino writes the line's own fields into it.
    return sessionId === undefined ? {} : { sessionId }
  }
}

/**
 * The same logger, but each line that is logged while a request is handled carries `sessionId`, the logical ID of its session, and
 * so do the lines of its children. For loggers without a `mixin` option, or that others have made.
 * @throws {SessionError} `INVALID_ARGUMENT` for a logger that makes no children.
 */
export function sessionLogger<L extends ChildLogger>(logger: L): L {
  if (typeof (logger as Partial<L> | undefined)?.child !== 'function') {
    throw new SessionError(
      'INVALID_ARGUMENT',
      'sessionLogger() needs a logger with child(), such as that of pino, bunyan or winston.',
    )
  }
  const children = new WeakMap<Session, { sessionId: string; child: Writers }>()
  const childFor = (session: Session): Writers => {
    const sessionId = peekLogicalId(session) as string
    const known = children.get(session)
    if (known?.sessionId === sessionId) return known.child
    const child = logger.child({ sessionId }) as Writers
    children.set(session, { sessionId, child })
    return child
  }
  const proxy = new Proxy(logger, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      if (name === 'child') {
        return (...args: unknown[]) => sessionLogger(Reflect.apply(value, target, args) as L)
      }
      if (typeof name !== 'string' || !isLevel(target, name)) return value
      return (...args: unknown[]) => {
        const session = getSession()
        const writer = session === undefined ? (target as unknown as Writers) : childFor(session)
        return writer[name]?.(...args)
      }
    },
  })
  plainLoggers.set(proxy, logger)
  return proxy
}

/** The logger that `sessionLogger()` was given, or the logger itself: for lines that carry the ID already. */
export function plainLogger<L extends object>(logger: L): L {
  return (plainLoggers.get(logger) as L | undefined) ?? logger
}

/** The logical ID of a session for logs and error answers, if there is a session. Changes nothing. */
export function peekLogicalId(session: Session | undefined): string | undefined {
  return session && inside(session).showLogicalId()
}

type Writers = Record<string, ((...args: unknown[]) => unknown) | undefined>

const plainLoggers = new WeakMap<object, object>()

/** Of pino, bunyan and winston (npm and syslog levels). */
const LEVELS: ReadonlySet<string> = new Set(
  'fatal error warn info debug trace silly verbose http log emerg alert crit warning notice'.split(' '),
)

/** pino knows levels of the application's own, too. */
function isLevel(logger: object, name: string): boolean {
  if (LEVELS.has(name)) return true
  const { levels } = logger as { levels?: { values?: Record<string, number> } }
  return typeof levels?.values === 'object' && Object.hasOwn(levels.values, name)
}

/** The session of what a line is about: a request, or pino-http's `{ req, res }`. Whatever else it is, it harms nothing. */
function sessionIn(subject: object | undefined): Session | undefined {
  if (typeof subject !== 'object' || subject === null) return undefined
  if (isSession(subject)) return subject
  try {
    const { req, res } = subject as { req?: unknown; res?: { req?: unknown } }
    for (const candidate of [subject, req, res?.req]) {
      const found = typeof candidate === 'object' && candidate !== null ? getSession(candidate) : undefined
      if (found !== undefined) return found
    }
  } catch {
    // A getter of the application's threw. Its logger will meet it again.
  }
  return undefined
}
