// What happens to sessions as metrics, for prom-client and for OpenTelemetry: the public face of `sojourn/metrics`. Neither
// library is imported. What is counted stands in one table, and both systems get the same names in their own spelling.

import { type Duration, milliseconds } from '../duration.js'
import { invalidOption, isSessionError, type SessionErrorCode } from '../errors.js'
import type { SessionManager, SessionMiddleware } from '../manager/manager.js'
import { END_REASONS } from '../record/session-data.js'
import { warnOfFailure } from '../warn.js'

/** Whose sessions are measured: a `SessionManager`, or the middleware that `session()` returns. */
export type MeasuredSessions = SessionManager | SessionMiddleware

/** What both adapters take. */
export interface MetricsOptions {
  /**
   * How the live sessions are counted: by going through the whole store, whatever the number of processes. `false` in all of
   * them but one spares the store. A store that cannot be gone through (`scan`) has no such metric.
   * @default { interval: '1m', max: 100_000 }
   */
  readonly activeSessions?: false | ActiveSessionsOptions | undefined
  /**
   * Upper bounds of the histogram of store calls, in seconds, ascending.
   * @default [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
   */
  readonly buckets?: readonly number[] | undefined
}

/** How live sessions are counted. */
export interface ActiveSessionsOptions {
  /**
   * How long a count is good for. A count that takes long is good for nine times as long as it took, at least. Nothing is
   * counted unless somebody collects.
   * @default '1m'
   */
  readonly interval?: Duration | undefined
  /**
   * Where counting stops: this number stands for itself and for all above it.
   * @default 100_000
   */
  readonly max?: number | undefined
}

/** What `prometheusMetrics()` takes. */
export interface PrometheusMetricsOptions extends MetricsOptions {
  /** The module: `import * as client from 'prom-client'`. */
  readonly client: PrometheusClient
  /**
   * Where the metrics are registered.
   * @default client.register
   */
  readonly register?: PrometheusRegistry | undefined
  /**
   * Begins each name: letters, digits and `_`.
   * @default 'sojourn_'
   */
  readonly prefix?: string | undefined
}

/** What is asked of prom-client, version 15. */
export interface PrometheusClient {
  readonly Counter: new (
    configuration: PrometheusConfiguration,
  ) => { inc(labels: Record<string, string>, value?: number): void }
  readonly Gauge: new (configuration: PrometheusConfiguration) => { set(value: number): void; remove(): void }
  readonly Histogram: new (
    configuration: PrometheusConfiguration,
  ) => { observe(labels: Record<string, string>, value: number): void }
  readonly register: PrometheusRegistry
}

/** What is asked of a registry of prom-client. */
export interface PrometheusRegistry {
  getSingleMetric(name: string): unknown
  removeSingleMetric(name: string): void
}

/** What a metric of prom-client is made from. */
export interface PrometheusConfiguration {
  name: string
  help: string
  labelNames?: readonly string[]
  /** Registries, of a class that is not known here. */
  registers?: never[]
  aggregator?: 'sum' | 'max' | 'omit' | 'first' | 'min' | 'average'
  buckets?: number[]
  collect?: () => void | Promise<void>
}

/** What `otelMetrics()` takes. */
export interface OtelMetricsOptions extends MetricsOptions {
  /** A meter of `@opentelemetry/api`: `metrics.getMeter('sojourn')`. Taken after the SDK has started, or it does nothing. */
  readonly meter: OtelMeter
  /**
   * Go with every data point: to tell several kinds of sessions on one meter apart.
   * @default none
   */
  readonly attributes?: Readonly<Record<string, string>> | undefined
}

/** What is asked of a `Meter` of `@opentelemetry/api`, version 1. */
export interface OtelMeter {
  createCounter(
    name: string,
    options?: OtelInstrumentOptions,
  ): { add(value: number, attributes?: Record<string, string>): void }
  createHistogram(
    name: string,
    options?: OtelInstrumentOptions,
  ): { record(value: number, attributes?: Record<string, string>): void }
  createObservableGauge(
    name: string,
    options?: OtelInstrumentOptions,
  ): { addCallback(callback: OtelCallback): void; removeCallback(callback: OtelCallback): void }
}

/** What an instrument of OpenTelemetry is made from. */
export interface OtelInstrumentOptions {
  description?: string
  unit?: string
  advice?: { explicitBucketBoundaries?: number[] }
}

/** Asked for a value whenever OpenTelemetry collects. */
export type OtelCallback = (result: {
  observe(value: number, attributes?: Record<string, string>): void
}) => void | Promise<void>

/**
 * Registers the metrics of sessions with prom-client: `sojourn_session_started_total` and the others that
 * docs/operations/metrics.md lists. No label holds the ID of a session or a user.
 *
 * Returns a function that stops counting and takes the metrics off the registry.
 * @throws {SessionError} `INVALID_OPTION`, also when the registry has a metric of such a name; nothing is registered then.
 */
export function prometheusMetrics(sessions: MeasuredSessions, options: PrometheusMetricsOptions): () => void {
  const manager = managerOf(sessions)
  const { buckets, active } = resolveOptions(manager, options)
  const { client, prefix = 'sojourn_' } = options
  if (![client?.Counter, client?.Gauge, client?.Histogram].every(isFunction)) {
    throw invalidOption("client is not prom-client; pass the module: import * as client from 'prom-client'.")
  }
  const { register = client.register } = options
  if (!isFunction(register?.getSingleMetric)) throw invalidOption('register is not a Registry of prom-client.')
  if (!/^([a-z_]\w*)?$/i.test(prefix))
    throw invalidOption("prefix is made of letters, digits and '_', such as 'sojourn_'.")

  const nameOf = (name: string, unit = ''): string => `${prefix}${name.replaceAll('.', '_')}${unit}`
  const names = [
    ...COUNTER_NAMES.map((key) => nameOf(COUNTERS[key].name, '_total')),
    nameOf(STORE_CALLS.name, '_seconds'),
    ...(active ? [nameOf(ACTIVE_SESSIONS.name)] : []),
  ]
  const taken = names.find((name) => register.getSingleMetric(name) !== undefined)
  if (taken !== undefined) {
    throw invalidOption(
      `The registry has a metric ${taken} already. For other sessions use another prefix or register; to register these ` +
        'again, first call the function that prometheusMetrics() returned.',
    )
  }

  const registers = [register as never]
  const counters = forEachCounter((key) => {
    const { name, help, labels } = COUNTERS[key]
    const labelNames = labels.map(({ label }) => label)
    const counter = new client.Counter({ name: nameOf(name, '_total'), help, labelNames, registers })
    // A series that begins at 0 shows its first step.
    for (const { label, values = [] } of labels) for (const value of values) counter.inc({ [label]: value }, 0)
    return counter
  })
  const durations = new client.Histogram({
    name: nameOf(STORE_CALLS.name, '_seconds'),
    help: STORE_CALLS.help,
    labelNames: ['operation'],
    buckets: [...buckets],
    registers,
  })
  if (active) {
    const gauge = new client.Gauge({
      name: nameOf(ACTIVE_SESSIONS.name),
      help: ACTIVE_SESSIONS.help,
      registers,
      // The workers of a cluster count the same store.
      aggregator: 'max',
      async collect() {
        const count = await active.read()
        if (count === undefined) gauge.remove()
        else gauge.set(count)
      },
    })
    // Unknown is not 0.
    gauge.remove()
  }

  const made = names.map((name) => register.getSingleMetric(name))
  const stop = listen(manager, {
    count(key, ...values) {
      const { labels } = COUNTERS[key]
      counters[key].inc(Object.fromEntries(labels.map(({ label }, index) => [label, values[index] as string])))
    },
    storeCall: (operation, seconds) => durations.observe({ operation }, seconds),
  })
  return once(() => {
    stop()
    active?.stop()
    for (const [index, name] of names.entries()) {
      if (register.getSingleMetric(name) === made[index]) register.removeSingleMetric(name)
    }
  })
}

/**
 * Registers the metrics of sessions with a meter of OpenTelemetry: `sojourn.session.started` and the others that
 * docs/operations/metrics.md lists. No attribute holds the ID of a session or a user.
 *
 * Returns a function that stops counting; a meter keeps what was counted.
 * @throws {SessionError} `INVALID_OPTION`, also when the meter has these sessions already.
 */
export function otelMetrics(sessions: MeasuredSessions, options: OtelMetricsOptions): () => void {
  const manager = managerOf(sessions)
  const { buckets, active } = resolveOptions(manager, options)
  const { meter, attributes = {} } = options
  if (![meter?.createCounter, meter?.createHistogram, meter?.createObservableGauge].every(isFunction)) {
    throw invalidOption("meter is not a Meter of @opentelemetry/api; pass metrics.getMeter('sojourn').")
  }
  const measured = measuredOn.get(meter) ?? new WeakSet()
  if (measured.has(manager)) {
    throw invalidOption(
      'The meter has these sessions already, and would count them twice. Call the function that otelMetrics() returned ' +
        'first, or use another meter.',
    )
  }
  measuredOn.set(meter, measured.add(manager))

  const counters = forEachCounter((key) => {
    const { name, help, unit } = COUNTERS[key]
    return meter.createCounter(`sojourn.${name}`, { description: help, unit })
  })
  const durations = meter.createHistogram(`sojourn.${STORE_CALLS.name}`, {
    description: STORE_CALLS.help,
    unit: 's',
    advice: { explicitBucketBoundaries: [...buckets] },
  })
  const gauge =
    active &&
    meter.createObservableGauge(`sojourn.${ACTIVE_SESSIONS.name}`, {
      description: ACTIVE_SESSIONS.help,
      unit: '{session}',
    })
  const observe: OtelCallback = async (result) => {
    const count = await active?.read()
    if (count !== undefined) result.observe(count, { ...attributes })
  }
  gauge?.addCallback(observe)

  const stop = listen(manager, {
    count(key, ...values) {
      const { labels } = COUNTERS[key]
      const own = labels.map(({ attribute }, index) => [attribute, values[index] as string])
      counters[key].add(1, { ...attributes, ...Object.fromEntries(own) })
    },
    storeCall(operation, seconds, error) {
      const outcome = error !== undefined && { [ERROR_TYPE]: error }
      durations.record(seconds, { ...attributes, [OPERATION]: operation, ...outcome })
    },
  })
  return once(() => {
    stop()
    active?.stop()
    gauge?.removeCallback(observe)
    measured.delete(manager)
  })
}

// --- What is counted ---

const OPERATION = 'sojourn.store.operation'
/** Of the general semantic conventions. */
const ERROR_TYPE = 'error.type'

interface CounterFacts {
  /** Below `sojourn.`, in the spelling of OpenTelemetry. */
  readonly name: string
  /** UCUM, as the conventions of OpenTelemetry want it. */
  readonly unit: string
  readonly help: string
  readonly labels: readonly {
    /** For Prometheus. */
    readonly label: string
    /** For OpenTelemetry. */
    readonly attribute: string
    /** All that there are, when that is known. */
    readonly values?: readonly string[]
  }[]
}

type CounterName =
  | 'started'
  | 'ended'
  | 'logins'
  | 'renewals'
  | 'commits'
  | 'conflicts'
  | 'lateWrites'
  | 'rejectedCookies'
  | 'storeErrors'

const COUNTERS: Readonly<Record<CounterName, CounterFacts>> = {
  started: {
    name: 'session.started',
    unit: '{session}',
    help: 'New sessions that were stored.',
    labels: [],
  },
  ended: {
    name: 'session.ended',
    unit: '{session}',
    help: 'Sessions that are over. A regenerated one goes on under another ID.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.session.end_reason',
        values: END_REASONS,
      },
    ],
  },
  logins: { name: 'session.logins', unit: '{login}', help: 'Logins of users.', labels: [] },
  renewals: {
    name: 'session.renewals',
    unit: '{renewal}',
    help: 'Tokens that were replaced by a new one.',
    labels: [],
  },
  commits: { name: 'session.commits', unit: '{commit}', help: 'Changes of sessions that were stored.', labels: [] },
  conflicts: {
    name: 'session.conflicts',
    unit: '{conflict}',
    help: 'Runs of update() that another request was quicker than.',
    labels: [],
  },
  lateWrites: {
    name: 'session.late_writes',
    unit: '{write}',
    help: 'Writes that were dropped because their session had ended.',
    labels: [],
  },
  rejectedCookies: {
    name: 'session.rejected_cookies',
    unit: '{cookie}',
    help: 'Session cookies that opened nothing, but for those of sessions that ran out.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.cookie.rejection_reason',
        values: ['malformed', 'signature', 'unknown-session', 'token-mismatch', 'used-after-end'],
      },
    ],
  },
  storeErrors: {
    name: 'store.errors',
    unit: '{error}',
    help: 'Store calls that failed or missed their deadline.',
    labels: [
      { label: 'operation', attribute: OPERATION },
      { label: 'code', attribute: ERROR_TYPE },
    ],
  },
}

const COUNTER_NAMES = Object.keys(COUNTERS) as readonly CounterName[]

const STORE_CALLS = { name: 'store.call.duration', help: 'How long store calls took.' }
const ACTIVE_SESSIONS = { name: 'active_sessions', help: 'Live sessions in the store.' }

const DEFAULT_BUCKETS: readonly number[] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** What a metrics system counts with. */
interface Instruments {
  count(key: CounterName, ...values: readonly string[]): void
  storeCall(operation: string, seconds: number, error: SessionErrorCode | undefined): void
}

/** Counts events, until the function that it returns is called. */
function listen(manager: SessionManager, { count, storeCall }: Instruments): () => void {
  const { events } = manager
  const noticed = new RecentIds()
  const stops = [
    events.on('created', () => count('started')),
    events.on('ended', ({ id, reason }) => {
      if (!noticed.has(id)) count('ended', reason)
    }),
    events.on('login', () => count('logins')),
    events.on('renewed', () => count('renewals')),
    events.on('committed', () => count('commits')),
    events.on('conflict', () => count('conflicts')),
    events.on('lateWrite', () => count('lateWrites')),
    events.on('badCookie', ({ reason }) => count('rejectedCookies', reason)),
    events.on('unknownSession', () => count('rejectedCookies', 'unknown-session')),
    events.on('tokenMismatch', () => count('rejectedCookies', 'token-mismatch')),
    events.on('usedAfterEnd', () => count('rejectedCookies', 'used-after-end')),
    // Not `storeError`: nobody would be warned of store errors any more, because of somebody who only counts them.
    events.on('storeCall', ({ operation, durationMs, error }) => {
      storeCall(operation, durationMs / 1000, error)
      if (error !== undefined) count('storeErrors', operation, error)
    }),
  ]
  // A clean-up ends each session that ran out, once. Without one only cookies tell, and the same one may come again.
  if (!(Number(manager.describe()['cleanupIntervalMs']) > 0)) {
    const stop = events.on('expired', ({ id, reason }) => {
      if (noticed.add(id)) count('ended', reason)
    })
    stops.push(stop)
  }
  return () => {
    for (const stop of stops) stop()
  }
}

/** The last IDs that were added. */
class RecentIds {
  static readonly #MAX = 10_000
  readonly #ids = new Set<string>()

  has(id: string): boolean {
    return this.#ids.has(id)
  }

  /** Whether it is a new one. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false
    this.#ids.add(id)
    if (this.#ids.size > RecentIds.#MAX) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest)
        break
      }
    }
    return true
  }
}

// --- Counting live sessions ---

/** How long who collects is kept waiting for a count; then the last one has to do. */
const PATIENCE_MS = 1_000
/** Of the time, counting takes a tenth at most. */
const REST = 9

/** The number of live sessions, counted when it is asked for and the last count is too old. */
class ActiveSessions {
  readonly #manager: SessionManager
  readonly #intervalMs: number
  readonly #max: number
  #count: number | undefined
  #dueAt = Number.NEGATIVE_INFINITY
  #counting: Promise<void> | null = null
  #isStopped = false

  constructor(manager: SessionManager, { intervalMs, max }: { intervalMs: number; max: number }) {
    this.#manager = manager
    this.#intervalMs = intervalMs
    this.#max = max
  }

  /** `undefined` when it could not be counted, or not yet. Never rejects. */
  async read(): Promise<number | undefined> {
    if (performance.now() >= this.#dueAt) {
      this.#counting ??= this.#recount().finally(() => {
        this.#counting = null
      })
    }
    if (this.#counting !== null) await atMost(PATIENCE_MS, this.#counting)
    return this.#count
  }

  /** A count that is under way ends with the session at hand. */
  stop(): void {
    this.#isStopped = true
  }

  async #recount(): Promise<void> {
    const startedAt = performance.now()
    try {
      let count = 0
      for await (const _ of this.#manager.list()) {
        count++
        if (count >= this.#max || this.#isStopped) break
      }
      this.#count = count
    } catch (error) {
      this.#count = undefined
      // A failure of the store has been told as an event.
      if (!isSessionError(error)) warnOfFailure('Counting the active sessions', error)
    }
    const endedAt = performance.now()
    this.#dueAt = endedAt + Math.max(this.#intervalMs, REST * (endedAt - startedAt))
  }
}

async function atMost(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([work, patience])
  clearTimeout(timer)
}

// --- Options ---

/** Which sessions a meter has. */
const measuredOn = new WeakMap<OtelMeter, WeakSet<SessionManager>>()

function managerOf(sessions: MeasuredSessions): SessionManager {
  const manager = 'manager' in sessions ? sessions.manager : sessions
  // By shape, not by class: the manager may come from the package's other build.
  if (!isFunction(manager?.events?.on) || !isFunction(manager.list)) {
    throw invalidOption('The sessions are a SessionManager, or the middleware that session() returned.')
  }
  return manager
}

function resolveOptions(
  manager: SessionManager,
  { activeSessions = {}, buckets = DEFAULT_BUCKETS }: MetricsOptions,
): { buckets: readonly number[]; active: ActiveSessions | null } {
  const areAscending =
    Array.isArray(buckets) && buckets.every((bound, index) => bound > (buckets[index - 1] ?? 0) && bound < Infinity)
  if (!areAscending) throw invalidOption('buckets are seconds above 0, ascending, such as [0.001, 0.01, 0.1, 1].')
  if (activeSessions === false) return { buckets, active: null }
  if (typeof activeSessions !== 'object' || activeSessions === null) {
    throw invalidOption("activeSessions is false, or an object such as { interval: '1m', max: 100_000 }.")
  }
  const { interval = '1m', max = 100_000 } = activeSessions
  const intervalMs = milliseconds(interval, 'activeSessions.interval')
  if (!Number.isSafeInteger(max) || max < 1) throw invalidOption('activeSessions.max is a whole number, at least 1.')
  if (manager.store.scan === undefined) return { buckets, active: null }
  return { buckets, active: new ActiveSessions(manager, { intervalMs, max }) }
}

function forEachCounter<T>(make: (key: CounterName) => T): Readonly<Record<CounterName, T>> {
  return Object.fromEntries(COUNTER_NAMES.map((key) => [key, make(key)])) as Record<CounterName, T>
}

function once(task: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    task()
  }
}

function isFunction(value: unknown): boolean {
  return typeof value === 'function'
}
