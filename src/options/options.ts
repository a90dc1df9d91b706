// The options of session(): what they mean, their defaults, and the checks when the middleware is built.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { type CookieOptions, isUnder, type ResolvedCookie, resolveCookie } from '../cookie/cookie.js'
import { SessionError } from '../errors.js'
import type { ActivityHook, ActivityRecorder } from '../events/activity-hook.js'
import { jsonCodec, type SessionCodec } from '../record/codec.js'
import type { SessionContext } from '../record/session-data.js'
import type { EndedSession, StoredSession } from '../record/session-info.js'
import type { SessionStore } from '../record/store.js'
import type { FieldLimits } from '../session/fields.js'
import { MemorySessionStore } from '../stores/memory.js'

/** A length of time: a number of seconds, or text such as `'500ms'`, `'90s'`, `'30m'`, `'12h'`, `'7d'`. */
export type Duration = number | string

/** What `session()` takes. Only `secret` is required. */
export interface SessionOptions {
  /**
   * The key that signs cookies: at least 32 characters of random text, for example from `openssl rand -base64 32`. With
   * a list, the first signs and all verify; a cookie signed with an older one is reissued under the first.
   */
  secret: string | readonly string[]
  /**
   * Where sessions are kept.
   * @default a new `MemorySessionStore()`: one process only, gone when it ends
   */
  store?: SessionStore
  /** Name and attributes of the cookie. */
  cookie?: CookieOptions
  /**
   * Timeouts by the authenticator assurance level of NIST SP 800-63B-4: `'aal1'` 30 days overall (and 30 minutes idle,
   * our default: the standard asks for none), `'aal2'` 24 hours and 1 hour idle, `'aal3'` 12 hours and 15 minutes idle.
   * `idleTimeout` and `absoluteTimeout` go before it, but cannot be longer than those of `'aal3'`, where the standard
   * requires the 12 hours and recommends the 15 minutes.
   * @default none
   */
  preset?: 'aal1' | 'aal2' | 'aal3'
  /**
   * A session ends after this time without a request. OWASP: 15–30 minutes for low-risk applications.
   * @default '30m', or by the preset
   */
  idleTimeout?: Duration
  /**
   * A session ends this long after its creation or login, whatever its activity.
   * @default '12h', or by the preset
   */
  absoluteTimeout?: Duration
  /**
   * How old the recorded last access may grow before a request that changes nothing moves it forward, at the price of
   * one store call. A session may end this much earlier than `idleTimeout` after its last request.
   * @default a tenth of `idleTimeout`, at most '1m'
   */
  touchInterval?: Duration
  /**
   * How long the token before a `renew()` stays good, for requests that were under way. Never applies to `login()` or
   * `regenerate()`.
   * @default '10s'
   */
  renewGrace?: Duration
  /**
   * A token older than this is replaced with the next response that can carry a cookie; `renewGrace` says how long the old
   * one stays good. A client that loses that response and comes back after the grace is logged out.
   * @default none: tokens change at login and on `renew()`
   */
  renewAfter?: Duration
  /**
   * The logical ID of a session ends when the session was not used for this long: its next request gets another one.
   * @default none: it changes by `restart()` and `completeWorkflow()` only
   */
  logicalIdTimeout?: Duration
  /**
   * Told of each activity: what `logActivity()` says, and logins, logouts and other turns of a session by themselves. A
   * function, or an `ActivityLog` of `sojourn/activity`. It cannot delay or fail a request.
   * @default none
   */
  activity?: ActivityHook
  /**
   * Requests that are no activity, such as polling: their paths, matched by whole segments, or a function that says so.
   * They use the session, but do not keep it alive.
   * @default none
   */
  passivePaths?: readonly string[] | ((req: IncomingMessage | Http2ServerRequest) => boolean)
  /**
   * How many sessions one user may have at once, in all processes together: `login()` and `manager.create()` keep to it.
   * Needs a store with an index of users, as memory and Redis have.
   * @default none: any number
   */
  maxSessionsPerUser?: number
  /**
   * What a login does that would be one too many: `'end-oldest'` ends the session that logged in first, with the reason
   * `limit`; `'refuse'` rejects with `SESSION_LIMIT` (409), and the session goes on as it was.
   * @default 'end-oldest'
   */
  onSessionLimit?: 'end-oldest' | 'refuse'
  /**
   * What is kept of the client that begins a session: its address (by Express's `req.ip`, so by `trust proxy`), user agent,
   * referrer and preferred language. `false` keeps nothing; an object switches single facts off.
   * @default true
   */
  clientContext?: boolean | { ip?: boolean; userAgent?: boolean; referrer?: boolean; locale?: boolean }
  /**
   * The fields that a new session begins with. They are stored as soon as the handler sets any other.
   * @default none
   */
  initialFields?: (req: IncomingMessage | Http2ServerRequest) => Record<string, unknown>
  /**
   * How long the store remembers sessions that are over, so that the next use of their cookie is told apart from an unknown
   * one. With `archive`, at least a day.
   * @default '15m'
   */
  endedRetention?: Duration
  /**
   * Called when a request's cookie names a session that is over, before the handler: the place to note why, for the user.
   * Also when it was regenerated, as for a second tab that was asking while the first logged in: its next request has the
   * new cookie. Nobody waits for what it returns; what it throws or rejects with becomes a process warning.
   * `req.session.metadata.previousEnd` says the same.
   * @default none
   */
  onEnded?: (ended: EndedSession, req: IncomingMessage | Http2ServerRequest, res: object) => void
  /**
   * Send `Clear-Site-Data` with the response that ends a session, by `logout()` or `destroy()`, and with those to a cookie
   * whose session was revoked, until another begins: `true` for cache and storage, or the types of data. Browsers heed it
   * over HTTPS only.
   * @default false
   */
  clearSiteData?: boolean | readonly ('cache' | 'storage' | 'executionContexts')[]
  /**
   * Called with each session that ran out before it is removed, at least once, by whichever process cleans up. A session
   * for which it fails, or takes longer than 20 seconds, is kept for the next time, for a day at least. Sessions that
   * somebody ended do not come here: their fields are gone with them. Needs a store that can be gone through, as memory and
   * Redis can.
   * @default none
   */
  archive?: (session: StoredSession) => unknown
  /**
   * How often the store is cleaned up, at most a day, by whichever of the processes gets to it. 0 never does. The timer does
   * not keep the process alive.
   * @default '1m' with `archive`, else 0: stores forget by themselves
   */
  cleanupInterval?: Duration
  /**
   * The deadline of each store call. A call that misses it fails the request with 503.
   * @default '1s'
   */
  storeTimeout?: Duration
  /**
   * When the store cannot be asked who a request belongs to: `'fail'` hands an error with status 503 to `next`;
   * `'anonymous'` goes on with an empty session that cannot be written. The cookie is left alone in both cases.
   * @default 'fail'
   */
  onStoreError?: 'fail' | 'anonymous'
  /**
   * `'before-response'`: no byte of a response leaves before the session's changes are stored. `'after-response'`
   * answers first and stores then: faster by one store call, but the client may see old data, and a failed write is
   * only an event.
   * @default 'before-response'
   */
  commit?: 'before-response' | 'after-response'
  /**
   * How field values become text.
   * @default jsonCodec()
   */
  codec?: SessionCodec
  /**
   * Bounds of one session.
   * @default { maxBytes: 1_000_000, maxFields: 1_000 }
   */
  limits?: Partial<FieldLimits>
  /**
   * Believe `X-Forwarded-Proto` from any client. Only for servers without Express whose proxy sets that header; under
   * Express, use `app.set('trust proxy', …)`, which says whom to believe.
   * @default false
   */
  trustProxy?: boolean
  /**
   * Make the session available to code that is handed no request, through `getSession()`.
   * @default true
   */
  context?: boolean
  /**
   * The time in milliseconds since the epoch, for tests.
   * @default Date.now
   */
  clock?: () => number
}

/** `SessionOptions` after checks, with every default filled in. */
export interface ResolvedSessionOptions {
  readonly store: SessionStore
  readonly cookie: ResolvedCookie
  readonly idleTimeoutMs: number
  readonly absoluteTimeoutMs: number
  /** The longest idle timeout that a session may choose for itself; `Infinity` when there is none. */
  readonly longestExpiryMs: number
  readonly touchIntervalMs: number
  readonly renewGraceMs: number
  readonly renewAfterMs: number
  /** `Infinity` when there is none. */
  readonly logicalIdTimeoutMs: number
  readonly activity: ActivityRecorder | undefined
  readonly isPassive: ((req: IncomingMessage | Http2ServerRequest) => boolean) | undefined
  readonly maxSessionsPerUser: number | undefined
  readonly onSessionLimit: 'end-oldest' | 'refuse'
  readonly clientContext: Readonly<Record<keyof SessionContext, boolean>>
  readonly initialFields: SessionOptions['initialFields']
  readonly retentionSeconds: number
  readonly onEnded: SessionOptions['onEnded']
  /** The header's value, or `null`. */
  readonly clearSiteData: string | null
  readonly archive: SessionOptions['archive']
  readonly cleanupIntervalMs: number
  readonly storeTimeoutMs: number
  readonly onStoreError: 'fail' | 'anonymous'
  readonly commit: 'before-response' | 'after-response'
  readonly codec: SessionCodec
  readonly limits: FieldLimits
  readonly trustProxy: boolean
  readonly context: boolean
  readonly clock: () => number
}

const DEFAULTS = {
  idleTimeout: '30m',
  absoluteTimeout: '12h',
  longestTouchIntervalMs: 60_000,
  renewGrace: '10s',
  onSessionLimit: 'end-oldest',
  endedRetention: '15m',
  archiveRetentionMs: 86_400_000,
  archiveInterval: '1m',
  storeTimeout: '1s',
  onStoreError: 'fail',
  commit: 'before-response',
  limits: { maxBytes: 1_000_000, maxFields: 1_000 },
  trustProxy: false,
  context: true,
} as const

/** NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3. The first asks for no idle timeout: ours stays. */
const PRESETS = {
  aal1: { idleTimeout: '30m', absoluteTimeout: '30d' },
  aal2: { idleTimeout: '1h', absoluteTimeout: '24h' },
  aal3: { idleTimeout: '15m', absoluteTimeout: '12h' },
} as const

const KNOWN = new Set<string>([
  'secret',
  'store',
  'cookie',
  'idleTimeout',
  'absoluteTimeout',
  'touchInterval',
  'renewGrace',
  'preset',
  'renewAfter',
  'logicalIdTimeout',
  'activity',
  'passivePaths',
  'maxSessionsPerUser',
  'onSessionLimit',
  'clientContext',
  'initialFields',
  'endedRetention',
  'onEnded',
  'clearSiteData',
  'archive',
  'cleanupInterval',
  'storeTimeout',
  'onStoreError',
  'commit',
  'codec',
  'limits',
  'trustProxy',
  'context',
  'clock',
] satisfies (keyof SessionOptions)[])

/** Options of express-session, and what to write instead. */
const FOREIGN: Record<string, string> = {
  name: 'cookie: { name }',
  rolling: 'nothing: activity always moves the idle timeout, and a persistent cookie with it',
  resave: 'nothing: only changed fields are written',
  saveUninitialized: 'nothing: an empty session is never stored',
  unset: 'await req.session.destroy()',
  genid: 'nothing: session IDs are UUIDs',
  proxy: "app.set('trust proxy', …), or trustProxy: true without Express",
  maxAge: 'idleTimeout and absoluteTimeout',
}

/**
 * Checks options and fills in defaults.
 * @throws {SessionError} `INVALID_OPTION`, saying which option, what is wrong and what to do.
 */
export function resolveOptions(options: SessionOptions): ResolvedSessionOptions {
  if (typeof options !== 'object' || options === null) {
    throw invalid('session() needs an options object: session({ secret }).')
  }
  for (const name of Object.keys(options)) {
    if (KNOWN.has(name)) continue
    const instead = FOREIGN[name]
    throw invalid(`There is no option "${name}".${instead === undefined ? '' : ` Use ${instead}.`}`)
  }
  const { idleTimeoutMs, absoluteTimeoutMs } = resolveTimeouts(options)
  const { store, archive } = options
  if (store !== undefined) checkStore(store, options)
  const clock = withFunctions(options.clock ?? Date.now, [], 'clock')
  const resolved = {
    cookie: resolveCookie(options.secret, options.cookie ?? {}),
    idleTimeoutMs,
    absoluteTimeoutMs,
    longestExpiryMs:
      options.preset === 'aal3' ? milliseconds(PRESETS.aal3.idleTimeout, 'preset') : Number.POSITIVE_INFINITY,
    touchIntervalMs:
      options.touchInterval === undefined
        ? Math.min(DEFAULTS.longestTouchIntervalMs, idleTimeoutMs / 10)
        : milliseconds(options.touchInterval, 'touchInterval', 0),
    renewGraceMs: milliseconds(options.renewGrace ?? DEFAULTS.renewGrace, 'renewGrace', 0),
    renewAfterMs:
      options.renewAfter === undefined ? Number.POSITIVE_INFINITY : milliseconds(options.renewAfter, 'renewAfter'),
    logicalIdTimeoutMs:
      options.logicalIdTimeout === undefined
        ? Number.POSITIVE_INFINITY
        : milliseconds(options.logicalIdTimeout, 'logicalIdTimeout'),
    activity: resolveActivity(options.activity),
    isPassive: resolvePassive(options.passivePaths),
    maxSessionsPerUser: resolveMaximum(options.maxSessionsPerUser),
    onSessionLimit: oneOf(
      options.onSessionLimit ?? DEFAULTS.onSessionLimit,
      ['end-oldest', 'refuse'],
      'onSessionLimit',
    ),
    clientContext: resolveContext(options.clientContext ?? true),
    initialFields: optionalFunction(options.initialFields, 'initialFields'),
    retentionSeconds: resolveRetention(options),
    onEnded: optionalFunction(options.onEnded, 'onEnded'),
    clearSiteData: resolveClearing(options.clearSiteData ?? false),
    archive: optionalFunction(archive, 'archive'),
    cleanupIntervalMs: timerMs(
      options.cleanupInterval ?? (archive === undefined ? 0 : DEFAULTS.archiveInterval),
      'cleanupInterval',
      0,
    ),
    storeTimeoutMs: timerMs(options.storeTimeout ?? DEFAULTS.storeTimeout, 'storeTimeout'),
    onStoreError: oneOf(options.onStoreError ?? DEFAULTS.onStoreError, ['fail', 'anonymous'], 'onStoreError'),
    commit: oneOf(options.commit ?? DEFAULTS.commit, ['before-response', 'after-response'], 'commit'),
    codec: withFunctions(options.codec ?? jsonCodec(), ['encode', 'decode'], 'codec'),
    limits: resolveLimits(options.limits ?? {}),
    trustProxy: oneOf(options.trustProxy ?? DEFAULTS.trustProxy, [true, false], 'trustProxy'),
    context: oneOf(options.context ?? DEFAULTS.context, [true, false], 'context'),
    clock,
  }
  // Last, so that a refused option leaves no clean-up timer behind.
  return Object.freeze({ ...resolved, store: options.store ?? new MemorySessionStore({ clock }) })
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
/** What a timer and a cookie's Max-Age can hold, with room to spare: ten years. */
export const LONGEST_MS = 3_653 * 86_400_000

/**
 * A duration in milliseconds.
 * @throws {SessionError} `INVALID_OPTION` when it is not one, or shorter than `leastMs` or longer than ten years.
 */
export function milliseconds(duration: Duration, name: string, leastMs = 1): number {
  let ms = Number.NaN
  if (typeof duration === 'number') ms = duration * 1000
  else if (typeof duration === 'string') {
    const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(duration.trim()) ?? []
    if (amount !== undefined && unit !== undefined) ms = Number(amount) * (UNITS[unit] as number)
  }
  if (!Number.isFinite(ms) || ms < leastMs || ms > LONGEST_MS) {
    const shown = typeof duration === 'string' ? JSON.stringify(duration.slice(0, 40)) : String(duration)
    throw invalid(`${name} is ${shown}; use seconds as a number, or text such as '90s', '30m', '12h', '7d'.`)
  }
  return Math.round(ms)
}

/** Beyond 24.8 days a Node timer fires at once. */
function timerMs(duration: Duration, name: string, leastMs = 1): number {
  const ms = milliseconds(duration, name, leastMs)
  if (ms > 86_400_000) throw invalid(`${name} is longer than a day.`)
  return ms
}

function resolveTimeouts(options: SessionOptions): { idleTimeoutMs: number; absoluteTimeoutMs: number } {
  const { preset } = options
  if (preset !== undefined) oneOf(preset, ['aal1', 'aal2', 'aal3'], 'preset')
  const defaults = preset === undefined ? DEFAULTS : PRESETS[preset]
  const idleTimeoutMs = milliseconds(options.idleTimeout ?? defaults.idleTimeout, 'idleTimeout')
  const absoluteTimeoutMs = milliseconds(options.absoluteTimeout ?? defaults.absoluteTimeout, 'absoluteTimeout')
  if (preset === 'aal3') {
    for (const [name, ms] of [
      ['idleTimeout', idleTimeoutMs],
      ['absoluteTimeout', absoluteTimeoutMs],
    ] as const) {
      const longest = PRESETS.aal3[name]
      if (ms > milliseconds(longest, name)) {
        throw invalid(
          `${name} is longer than ${longest}, the most for AAL3 by NIST SP 800-63B-4: choose a shorter one.`,
        )
      }
    }
  }
  return { idleTimeoutMs, absoluteTimeoutMs }
}

function resolvePassive(paths: SessionOptions['passivePaths']): ResolvedSessionOptions['isPassive'] {
  if (paths === undefined || typeof paths === 'function') return paths
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === 'string' && path.startsWith('/'))) {
    throw invalid('passivePaths is not a list of paths that begin with "/", nor a function.')
  }
  return (req) => {
    const url = (req as { originalUrl?: string }).originalUrl ?? req.url
    return paths.some((path: string) => isUnder(path, url))
  }
}

function resolveActivity(hook: ActivityHook | undefined): ActivityRecorder | undefined {
  if (hook === undefined) return undefined
  if (typeof hook === 'function') return { record: hook }
  return withFunctions(hook, ['record'], 'activity')
}

function resolveMaximum(max: number | undefined): number | undefined {
  if (max === undefined || (Number.isSafeInteger(max) && max >= 1)) return max
  throw invalid(`maxSessionsPerUser is ${String(max)}; use a whole number of at least 1.`)
}

function resolveContext(
  wanted: NonNullable<SessionOptions['clientContext']>,
): Readonly<Record<keyof SessionContext, boolean>> {
  const facts = { ip: true, userAgent: true, referrer: true, locale: true }
  if (wanted === false) return Object.freeze({ ip: false, userAgent: false, referrer: false, locale: false })
  if (wanted === true) return Object.freeze(facts)
  for (const [name, isWanted] of Object.entries(wanted)) {
    if (!Object.hasOwn(facts, name)) throw invalid(`There is no option clientContext.${name}.`)
    oneOf(isWanted, [true, false], `clientContext.${name}`)
  }
  return Object.freeze({ ...facts, ...wanted })
}

function resolveRetention({ endedRetention = DEFAULTS.endedRetention, archive }: SessionOptions): number {
  const ms = milliseconds(endedRetention, 'endedRetention', 1000)
  return Math.ceil(Math.max(ms, archive === undefined ? 0 : DEFAULTS.archiveRetentionMs) / 1000)
}

function resolveClearing(types: NonNullable<SessionOptions['clearSiteData']>): string | null {
  if (types === false) return null
  const known = ['cache', 'storage', 'executionContexts'] as const
  const wanted = types === true ? known.slice(0, 2) : types
  if (!Array.isArray(wanted) || wanted.length === 0)
    throw invalid('clearSiteData is not true, false or a list of types.')
  return wanted.map((type) => `"${oneOf(type, known, 'clearSiteData')}"`).join(', ')
}

function optionalFunction<T>(value: T, name: string): T {
  if (value !== undefined && typeof value !== 'function') throw invalid(`${name} is not a function.`)
  return value
}

function resolveLimits(limits: Partial<FieldLimits>): FieldLimits {
  const resolved = { ...DEFAULTS.limits, ...limits }
  for (const name of ['maxBytes', 'maxFields'] as const) {
    if (!Number.isSafeInteger(resolved[name]) || resolved[name] < 1) {
      throw invalid(`limits.${name} is ${String(resolved[name])}; use a whole number of at least 1.`)
    }
  }
  return Object.freeze(resolved)
}

/** By shape, not by class: the store may come from the package's other build. */
function checkStore(store: unknown, options: SessionOptions): void {
  const methods = ['get', 'set', 'delete', 'create', 'update', 'touch', 'regenerate', 'end']
  const missing = methods.filter((name) => typeof (store as Record<string, unknown> | null)?.[name] !== 'function')
  if (missing.length > 0) {
    throw invalid(
      `store has no ${missing.join(', ')}: use a class that extends SessionStore. ` +
        'Stores written for express-session do not fit.',
    )
  }
  const { users, scan } = store as SessionStore
  if (options.maxSessionsPerUser !== undefined && users === undefined) {
    throw invalid('maxSessionsPerUser needs a store with an index of users; this one has no "users".')
  }
  if (options.archive !== undefined && scan === undefined) {
    throw invalid('archive needs a store that can be gone through; this one has no "scan".')
  }
}

/** A function, or an object with these methods. */
function withFunctions<T>(value: T, methods: readonly (keyof T & string)[], name: string): T {
  if (methods.length === 0 && typeof value !== 'function') throw invalid(`${name} is not a function.`)
  const missing = methods.filter((method) => typeof value[method] !== 'function')
  if (missing.length > 0) throw invalid(`${name} has no function ${missing.join(', ')}.`)
  return value
}

function oneOf<const T extends string | boolean>(value: unknown, allowed: readonly T[], name: string): T {
  if (!allowed.includes(value as T)) throw invalid(`${name} is ${String(value)}; use one of ${allowed.join(', ')}.`)
  return value as T
}

function invalid(message: string): SessionError {
  return new SessionError('INVALID_OPTION', message)
}
