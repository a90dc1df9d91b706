// The options of session(): what they mean, their defaults, and the checks when the middleware is built.
import { jsonCodec, type SessionCodec } from './codec.js'
import { type CookieOptions, type ResolvedCookie, resolveCookie } from './cookie.js'
import { SessionError } from './errors.js'
import type { FieldLimits } from './fields.js'
import type { SessionStore } from './store.js'
import { MemorySessionStore } from './stores/memory.js'

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
   * A session ends after this time without a request. OWASP: 15–30 minutes for low-risk applications.
   * @default '30m'
   */
  idleTimeout?: Duration
  /**
   * A session ends this long after its creation or login, whatever its activity.
   * @default '12h'
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
  readonly touchIntervalMs: number
  readonly renewGraceMs: number
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
  storeTimeout: '1s',
  onStoreError: 'fail',
  commit: 'before-response',
  limits: { maxBytes: 1_000_000, maxFields: 1_000 },
  trustProxy: false,
  context: true,
} as const

const KNOWN = new Set<string>([
  'secret',
  'store',
  'cookie',
  'idleTimeout',
  'absoluteTimeout',
  'touchInterval',
  'renewGrace',
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
  const idleTimeoutMs = milliseconds(options.idleTimeout ?? DEFAULTS.idleTimeout, 'idleTimeout')
  if (options.store !== undefined) checkStore(options.store)
  const clock = withFunctions(options.clock ?? Date.now, [], 'clock')
  const resolved = {
    cookie: resolveCookie(options.secret, options.cookie ?? {}),
    idleTimeoutMs,
    absoluteTimeoutMs: milliseconds(options.absoluteTimeout ?? DEFAULTS.absoluteTimeout, 'absoluteTimeout'),
    touchIntervalMs:
      options.touchInterval === undefined
        ? Math.min(DEFAULTS.longestTouchIntervalMs, idleTimeoutMs / 10)
        : milliseconds(options.touchInterval, 'touchInterval', 0),
    renewGraceMs: milliseconds(options.renewGrace ?? DEFAULTS.renewGrace, 'renewGrace', 0),
    storeTimeoutMs: resolveDeadline(options.storeTimeout ?? DEFAULTS.storeTimeout),
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
function resolveDeadline(duration: Duration): number {
  const ms = milliseconds(duration, 'storeTimeout')
  if (ms > 86_400_000) throw invalid('storeTimeout is longer than a day; use a few seconds at most.')
  return ms
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
function checkStore(store: unknown): void {
  const methods = ['get', 'set', 'delete', 'create', 'update', 'touch', 'regenerate', 'end']
  const missing = methods.filter((name) => typeof (store as Record<string, unknown> | null)?.[name] !== 'function')
  if (missing.length > 0) {
    throw invalid(
      `store has no ${missing.join(', ')}: use a class that extends SessionStore. ` +
        'Stores written for express-session do not fit.',
    )
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
