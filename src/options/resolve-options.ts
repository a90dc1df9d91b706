// The options of session() when the middleware is built: their checks and defaults. What they mean stands in `options.ts`.
import { isUnder } from '../cookie/cookie.js'
import { resolveCookie } from '../cookie/cookie-options.js'
import { didYouMean } from '../did-you-mean.js'
import { type Duration, milliseconds, textOfMs } from '../duration.js'
import { invalidOption } from '../errors.js'
import type { ActivityHook, ActivityRecorder } from '../events/activity-hook.js'
import { jsonCodec } from '../record/codec.js'
import type { SessionLimits } from '../record/limits.js'
import type { SessionContext } from '../record/session-data.js'
import type { SessionStore } from '../record/store.js'
import { warnOfFailure } from '../warn.js'
import type { ResolvedSessionOptions, SessionOptions } from './options.js'

const DEFAULTS = {
  idleTimeout: '30m',
  absoluteTimeout: '12h',
  longestTouchIntervalMs: 60_000,
  renewGrace: '10s',
  onSessionLimit: 'end-oldest',
  endedRetention: '15m',
  archiveRetentionMs: 86_400_000,
  archiveInterval: '1m',
  archiveEnded: false,
  storeTimeout: '1s',
  onStoreError: 'fail',
  cacheControl: 'private',
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
  'fresh',
  'maxSessionsPerUser',
  'onSessionLimit',
  'clientContext',
  'initialFields',
  'endedRetention',
  'onEnded',
  'clearSiteData',
  'cacheControl',
  'archive',
  'archiveEnded',
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

/** Options of express-session, cookie-session and their like, and what to write instead. */
const FOREIGN: Record<string, string> = {
  name: 'cookie: { name }',
  rolling: 'nothing: activity always moves the idle timeout, and a persistent cookie with it',
  resave: 'nothing: only changed fields are written',
  saveUninitialized: 'nothing: an empty session is never stored',
  unset: 'await req.session.destroy()',
  genid: 'nothing: session IDs are UUIDs',
  proxy: "app.set('trust proxy', …), or trustProxy: true without Express",
  maxAge: 'idleTimeout and absoluteTimeout',
  ttl: 'idleTimeout and absoluteTimeout',
  key: 'cookie: { name }',
  keys: 'secret: [newest, older]',
  secrets: 'secret: [newest, older]',
  secure: 'cookie: { secure }',
  sameSite: 'cookie: { sameSite }',
  httpOnly: 'cookie: { httpOnly }',
  domain: 'cookie: { domain }',
  path: 'cookie: { path }',
}

/**
 * Checks options and fills in defaults.
 * @param defaultStore makes the store when none is given: last, so that a refused option leaves no clean-up timer behind.
 * @throws {SessionError} `INVALID_OPTION`, saying which option, what is wrong and what to do.
 */
export function resolveOptions(
  options: SessionOptions,
  defaultStore: (clock: () => number) => SessionStore,
): ResolvedSessionOptions {
  if (typeof options !== 'object' || options === null) {
    throw invalidOption('session() needs an options object: session({ secret }).')
  }
  if (isRequest(options)) {
    throw invalidOption('session was called with a request: write app.use(session({ secret })), not app.use(session).')
  }
  for (const name of Object.keys(options)) {
    if (KNOWN.has(name)) continue
    const instead = FOREIGN[name]
    throw invalidOption(
      `There is no option "${name}".${instead === undefined ? didYouMean(name, KNOWN) : ` Use ${instead}.`}`,
    )
  }
  const { idleTimeoutMs, absoluteTimeoutMs } = resolveTimeouts(options)
  const { store, archive } = options
  if (store !== undefined) checkStore(store, options)
  const clock = withFunctions(options.clock ?? presentTime, [], 'clock')
  const resolved = {
    cookie: resolveCookie(options.secret, options.cookie ?? {}),
    idleTimeoutMs,
    absoluteTimeoutMs,
    ...longestOf(options.preset, idleTimeoutMs, absoluteTimeoutMs),
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
    isPassive: resolvePaths(options.passivePaths, 'passivePaths'),
    isFresh: resolveFresh(options.fresh),
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
    cacheControl: oneOf(options.cacheControl ?? DEFAULTS.cacheControl, ['private', 'none'], 'cacheControl'),
    archive: optionalFunction(archive, 'archive'),
    archiveEnded: resolveArchiving(options),
    cleanupIntervalMs: timerMs(
      options.cleanupInterval ?? (archive === undefined ? 0 : DEFAULTS.archiveInterval),
      'cleanupInterval',
      0,
    ),
    storeTimeoutMs: resolveStoreTimeout(options.storeTimeout ?? DEFAULTS.storeTimeout),
    onStoreError: oneOf(options.onStoreError ?? DEFAULTS.onStoreError, ['fail', 'anonymous'], 'onStoreError'),
    commit: oneOf(options.commit ?? DEFAULTS.commit, ['before-response', 'after-response'], 'commit'),
    codec: withFunctions(options.codec ?? jsonCodec(), ['encode', 'decode'], 'codec'),
    limits: resolveLimits(options.limits ?? {}),
    trustProxy: oneOf(options.trustProxy ?? DEFAULTS.trustProxy, [true, false], 'trustProxy'),
    context: oneOf(options.context ?? DEFAULTS.context, [true, false], 'context'),
    clock,
  }
  return Object.freeze({ ...resolved, store: store ?? defaultStore(clock) })
}

/** Beyond 24.8 days a Node timer fires at once. */
function timerMs(duration: Duration, name: string, leastMs = 1): number {
  const ms = milliseconds(duration, name, leastMs)
  if (ms > 86_400_000) throw invalidOption(`${name} is longer than a day.`)
  return ms
}

function resolveTimeouts(options: SessionOptions): { idleTimeoutMs: number; absoluteTimeoutMs: number } {
  const { preset } = options
  if (preset !== undefined) oneOf(preset, ['aal1', 'aal2', 'aal3'], 'preset')
  const defaults = preset === undefined ? DEFAULTS : PRESETS[preset]
  const absoluteTimeoutMs = milliseconds(options.absoluteTimeout ?? defaults.absoluteTimeout, 'absoluteTimeout')
  // A default gives way to a shorter absolute timeout; who says both gets both, or is told.
  const idleTimeoutMs =
    options.idleTimeout === undefined
      ? Math.min(milliseconds(defaults.idleTimeout, 'idleTimeout'), absoluteTimeoutMs)
      : milliseconds(options.idleTimeout, 'idleTimeout')
  if (preset === 'aal3') {
    for (const [name, ms] of [
      ['idleTimeout', idleTimeoutMs],
      ['absoluteTimeout', absoluteTimeoutMs],
    ] as const) {
      const longest = PRESETS.aal3[name]
      if (ms > milliseconds(longest, name)) {
        throw invalidOption(
          `${name} is longer than ${longest}, the most for AAL3 by NIST SP 800-63B-4: choose a shorter one.`,
        )
      }
    }
  }
  if (idleTimeoutMs > absoluteTimeoutMs) {
    throw invalidOption(
      `idleTimeout (${textOfMs(idleTimeoutMs)}) is longer than absoluteTimeout (${textOfMs(absoluteTimeoutMs)}), which ` +
        'ends a session whatever happens: choose a shorter idleTimeout, or an absoluteTimeout that is as long.',
    )
  }
  return { idleTimeoutMs, absoluteTimeoutMs }
}

/** A session may choose no more than its preset has, or than the options that go before it. */
function longestOf(
  preset: SessionOptions['preset'],
  idleTimeoutMs: number,
  absoluteTimeoutMs: number,
): Pick<ResolvedSessionOptions, 'longestIdleMs' | 'longestAbsoluteMs'> {
  if (preset === undefined)
    return { longestIdleMs: Number.POSITIVE_INFINITY, longestAbsoluteMs: Number.POSITIVE_INFINITY }
  const { idleTimeout, absoluteTimeout } = PRESETS[preset]
  return {
    // The standard has no idle timeout for the first.
    longestIdleMs:
      preset === 'aal1' ? Number.POSITIVE_INFINITY : Math.max(milliseconds(idleTimeout, 'preset'), idleTimeoutMs),
    longestAbsoluteMs: Math.max(milliseconds(absoluteTimeout, 'preset'), absoluteTimeoutMs),
  }
}

/** A number beyond a minute was meant as milliseconds. */
function resolveStoreTimeout(timeout: Duration): number {
  const ms = timerMs(timeout, 'storeTimeout')
  if (typeof timeout !== 'number' || timeout <= 60) return ms
  throw invalidOption(
    `storeTimeout is ${timeout}, and numbers are seconds: write ${timeout / 1000} for ${timeout} milliseconds, or text ` +
      "such as '2m' for a deadline that is so long.",
  )
}

function resolvePaths(paths: SessionOptions['passivePaths'], name: string): ResolvedSessionOptions['isPassive'] {
  if (paths === undefined || typeof paths === 'function') return paths
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === 'string' && path.startsWith('/'))) {
    throw invalidOption(`${name} is not a list of paths that begin with "/", nor a function.`)
  }
  return (req) => {
    const url = (req as { originalUrl?: string }).originalUrl ?? req.url
    return paths.some((path: string) => isUnder(path, url))
  }
}

/** Where it cannot be told, nothing but the truth will do. */
function resolveFresh(paths: SessionOptions['fresh']): ResolvedSessionOptions['isFresh'] {
  const isFresh = resolvePaths(paths, 'fresh')
  if (isFresh === undefined) return undefined
  return (req) => {
    try {
      return isFresh(req)
    } catch (error) {
      warnOfFailure('fresh', error)
      return true
    }
  }
}

function resolveActivity(hook: ActivityHook | undefined): ActivityRecorder | undefined {
  if (hook === undefined) return undefined
  if (typeof hook === 'function') return { record: hook }
  return withFunctions(hook, ['record'], 'activity')
}

function resolveMaximum(max: number | undefined): number | undefined {
  if (max === undefined || (Number.isSafeInteger(max) && max >= 1)) return max
  throw invalidOption(`maxSessionsPerUser is ${String(max)}; use a whole number of at least 1.`)
}

function resolveContext(
  wanted: NonNullable<SessionOptions['clientContext']>,
): Readonly<Record<keyof SessionContext, boolean>> {
  const facts: Record<keyof SessionContext, boolean> = { ip: true, userAgent: true, referrer: true, locale: true }
  if (wanted === false) return Object.freeze({ ip: false, userAgent: false, referrer: false, locale: false })
  if (wanted === true) return Object.freeze(facts)
  for (const [name, isWanted] of Object.entries(wanted)) {
    if (!Object.hasOwn(facts, name)) {
      throw invalidOption(`There is no option clientContext.${name}.${didYouMean(name, Object.keys(facts))}`)
    }
    if (isWanted === undefined) continue
    facts[name as keyof SessionContext] = oneOf(isWanted, [true, false], `clientContext.${name}`)
  }
  return Object.freeze(facts)
}

function resolveRetention({ endedRetention = DEFAULTS.endedRetention, archive }: SessionOptions): number {
  const ms = milliseconds(endedRetention, 'endedRetention', 1000)
  return Math.ceil(Math.max(ms, archive === undefined ? 0 : DEFAULTS.archiveRetentionMs) / 1000)
}

function resolveArchiving({ archive, archiveEnded = DEFAULTS.archiveEnded }: SessionOptions): boolean {
  if (oneOf(archiveEnded, [true, false], 'archiveEnded') && archive === undefined) {
    throw invalidOption('archiveEnded needs archive: a function that is given each session that is over.')
  }
  return archiveEnded
}

function resolveClearing(types: NonNullable<SessionOptions['clearSiteData']>): string | null {
  if (types === false) return null
  const known = ['cache', 'storage', 'executionContexts'] as const
  const wanted = types === true ? known.slice(0, 2) : types
  if (!Array.isArray(wanted) || wanted.length === 0)
    throw invalidOption('clearSiteData is not true, false or a list of types.')
  return wanted.map((type) => `"${oneOf(type, known, 'clearSiteData')}"`).join(', ')
}

function optionalFunction<T>(value: T, name: string): T {
  if (value !== undefined && typeof value !== 'function') throw invalidOption(`${name} is not a function.`)
  return value
}

function resolveLimits({ maxBytes, maxFields }: NonNullable<SessionOptions['limits']>): SessionLimits {
  const resolved = { maxBytes: maxBytes ?? DEFAULTS.limits.maxBytes, maxFields: maxFields ?? DEFAULTS.limits.maxFields }
  for (const name of ['maxBytes', 'maxFields'] as const) {
    if (!Number.isSafeInteger(resolved[name]) || resolved[name] < 1) {
      throw invalidOption(`limits.${name} is ${String(resolved[name])}; use a whole number of at least 1.`)
    }
  }
  return Object.freeze(resolved)
}

/** By shape, not by class: the store may come from the package's other build. */
function checkStore(store: unknown, options: SessionOptions): void {
  const methods = ['get', 'set', 'delete', 'create', 'update', 'touch', 'regenerate', 'end']
  const missing = methods.filter((name) => typeof (store as Record<string, unknown> | null)?.[name] !== 'function')
  if (missing.length > 0) {
    throw invalidOption(
      `store has no ${missing.join(', ')}: use a class that extends SessionStore. ` +
        'Stores written for express-session do not fit.',
    )
  }
  const { users, scan } = store as SessionStore
  if (options.maxSessionsPerUser !== undefined && users === undefined) {
    throw invalidOption('maxSessionsPerUser needs a store with an index of users; this one has no "users".')
  }
  if (options.archive !== undefined && scan === undefined) {
    throw invalidOption('archive needs a store that can be gone through; this one has no "scan".')
  }
}

/** Asked for each time: tests put another function in its place. */
function presentTime(): number {
  return Date.now()
}

/** What Express hands to `app.use(session)`, where `app.use(session({ … }))` was meant. */
function isRequest(options: object): boolean {
  return 'headers' in options && 'socket' in options
}

/** A function, or an object with these methods. */
function withFunctions<T>(value: T, methods: readonly (keyof T & string)[], name: string): T {
  if (methods.length === 0 && typeof value !== 'function') throw invalidOption(`${name} is not a function.`)
  const missing = methods.filter((method) => typeof value[method] !== 'function')
  if (missing.length > 0) throw invalidOption(`${name} has no function ${missing.join(', ')}.`)
  return value
}

function oneOf<const T extends string | boolean>(value: unknown, allowed: readonly T[], name: string): T {
  if (!allowed.includes(value as T))
    throw invalidOption(`${name} is ${String(value)}; use one of ${allowed.join(', ')}.`)
  return value as T
}
