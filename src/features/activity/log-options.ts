// What `new ActivityLog()` takes, with its defaults, and what is refused.

import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidOption } from '../../errors.js'
import type { Activity } from '../../events/activity-hook.js'
import { type DetailsCleaner, detailsCleaner } from './details.js'
import { type AnalyticsOptions, type Figures, figuresBy } from './figures.js'
import type { QueueRules } from './queue.js'
import type { ActivityDrop, SinkFailure } from './sink-trouble.js'
import { functionSink } from './sinks/function-sink.js'
import type { ActivitySink } from './sinks/sink.js'

/** What `new ActivityLog()` takes. Only `sinks` is required. */
export interface ActivityLogOptions {
  /**
   * Where activities go: sinks, or functions of one activity. Each has a queue of its own, so that one that fails, is slow
   * or hangs does not harm the others. Reports read the first one that is an archive.
   */
  sinks: readonly (ActivitySink | ((activity: Activity) => unknown))[]
  /**
   * Whether each finished request is an activity, too: `'session.request'`, with status and duration.
   * @default false
   */
  requests?: boolean | undefined
  /**
   * Whether activities tell of the request that they happened in: method, path without query, client address.
   * @default true
   */
  requestFacts?: boolean | undefined
  /**
   * What is blanked in details: names, wherever they stand (`'iban'`), and paths from the top (`'card.number'`), in which
   * `*` stands for any one name or index (`'*.code'`). Blanked besides is what has a telling name, at any depth: password,
   * secret, token, authorization, cookie, API key, credential, PIN, CVV and their like. `false` blanks nothing.
   * @default []
   */
  redact?: readonly string[] | false | undefined
  /**
   * How many bytes the details of one activity may take as JSON; what is longer is cut, and says so. At least 256.
   * @default 8_192
   */
  maxDetailsBytes?: number | undefined
  /**
   * How many activities a sink gets at once, at most. A full batch is written without waiting for `flushInterval`.
   * @default 100
   */
  batchSize?: number | undefined
  /**
   * How long an activity waits for others to be written with.
   * @default '500ms'
   */
  flushInterval?: Duration | undefined
  /**
   * How many activities may wait for one sink.
   * @default 10_000
   */
  maxQueue?: number | undefined
  /**
   * What happens to an activity that finds a queue full. `'drop'`: that sink does not get it, which is counted and told.
   * `'wait'`: it is queued all the same, and the promise of `await logActivity()`, `await log.log()` and `log.record()`
   * resolves when there is room again; beyond twice `maxQueue`, by callers that do not wait, it is dropped.
   * @default 'drop'
   */
  onFull?: 'drop' | 'wait' | undefined
  /**
   * The deadline of one write to a sink. A write that misses it counts as failed, and is tried again.
   * @default '5s'
   */
  writeTimeout?: Duration | undefined
  /**
   * How often a failed batch is tried again before it is dropped.
   * @default 8, which with `retryDelay` is about 20 seconds
   */
  maxRetries?: number | undefined
  /**
   * The wait before the first of these attempts; it doubles from one to the next, up to a hundred times this.
   * @default '100ms'
   */
  retryDelay?: Duration | undefined
  /**
   * Activities older than this are removed from the sinks that are archives, every `pruneInterval`. The timer does not keep
   * the process alive.
   * @default none: they are kept
   */
  retention?: Duration | undefined
  /**
   * How often `retention` is put into effect, up to once a day.
   * @default '1h', or `retention` when that is shorter
   */
  pruneInterval?: Duration | undefined
  /**
   * What figures of reports and totals are made of: which types are page views and API calls, and what an activity costs.
   * @default page views are `'page.viewed'`, API calls `'api.called'`, and nothing costs anything
   */
  analytics?: AnalyticsOptions | undefined
  /**
   * Called when a sink failed to take a batch, to be closed, or to be pruned. What it throws becomes a process warning.
   * @default a process warning, once a sink
   */
  onError?: ((failure: SinkFailure) => void) | undefined
  /**
   * Called when a sink did not get activities, with their number.
   * @default a process warning, once a sink and reason
   */
  onDropped?: ((drop: ActivityDrop) => void) | undefined
  /**
   * The time in milliseconds since the epoch, for tests.
   * @default `Date.now()`, looked up each time
   */
  clock?: (() => number) | undefined
}

const DEFAULTS = {
  maxDetailsBytes: 8_192,
  batchSize: 100,
  flushInterval: '500ms',
  maxQueue: 10_000,
  onFull: 'drop',
  writeTimeout: '5s',
  maxRetries: 8,
  retryDelay: '100ms',
  pruneIntervalMs: 3_600_000,
} as const

const KNOWN = new Set<string>([
  'sinks',
  'requests',
  'requestFacts',
  'redact',
  'maxDetailsBytes',
  'batchSize',
  'flushInterval',
  'maxQueue',
  'onFull',
  'writeTimeout',
  'maxRetries',
  'retryDelay',
  'retention',
  'pruneInterval',
  'analytics',
  'onError',
  'onDropped',
  'clock',
] satisfies (keyof ActivityLogOptions)[])

/** What a timer can hold, and more than any of these should be. */
const LONGEST_TIMER_MS = 86_400_000

interface ResolvedOptions {
  readonly sinks: readonly ActivitySink[]
  readonly requests: boolean
  readonly requestFacts: boolean
  readonly clean: DetailsCleaner
  readonly onFull: 'drop' | 'wait'
  readonly rules: QueueRules
  readonly retentionMs: number | undefined
  readonly pruneIntervalMs: number
  readonly figuresOf: Figures
  readonly clock: () => number
}

/** Checks the options and fills in the defaults. */
export function resolveOptions(options: ActivityLogOptions): ResolvedOptions {
  if (typeof options !== 'object' || options === null) throw invalidOption('ActivityLog needs options: { sinks: […] }.')
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw invalidOption(`There is no option "${name}".${didYouMean(name, KNOWN)}`)
  }
  const { requests = false, requestFacts = true, onFull = DEFAULTS.onFull, clock = () => Date.now() } = options
  for (const [name, value] of Object.entries({ requests, requestFacts })) {
    if (typeof value !== 'boolean') throw invalidOption(`${name} is neither true nor false.`)
  }
  if (onFull !== 'drop' && onFull !== 'wait') throw invalidOption(`onFull is neither 'drop' nor 'wait'.`)
  for (const [name, value] of Object.entries({ clock, onError: options.onError, onDropped: options.onDropped })) {
    if (value !== undefined && typeof value !== 'function') throw invalidOption(`${name} is not a function.`)
  }
  const retentionMs = options.retention === undefined ? undefined : milliseconds(options.retention, 'retention', 1_000)
  const pruneInterval = options.pruneInterval ?? Math.min(DEFAULTS.pruneIntervalMs, retentionMs ?? Infinity) / 1_000
  const maxQueue = whole(options.maxQueue ?? DEFAULTS.maxQueue, 'maxQueue', 1)
  return {
    sinks: resolveSinks(options.sinks),
    requests,
    requestFacts,
    clean: detailsCleaner({
      redact: options.redact ?? [],
      maxBytes: options.maxDetailsBytes ?? DEFAULTS.maxDetailsBytes,
    }),
    onFull,
    rules: {
      batchSize: whole(options.batchSize ?? Math.min(DEFAULTS.batchSize, maxQueue), 'batchSize', 1),
      flushIntervalMs: timerMs(options.flushInterval ?? DEFAULTS.flushInterval, 'flushInterval', 0),
      maxQueue,
      writeTimeoutMs: timerMs(options.writeTimeout ?? DEFAULTS.writeTimeout, 'writeTimeout'),
      maxRetries: whole(options.maxRetries ?? DEFAULTS.maxRetries, 'maxRetries', 0),
      retryDelayMs: timerMs(options.retryDelay ?? DEFAULTS.retryDelay, 'retryDelay'),
    },
    retentionMs,
    pruneIntervalMs: timerMs(pruneInterval, 'pruneInterval'),
    figuresOf: figuresBy(options.analytics),
    clock,
  }
}

function resolveSinks(sinks: unknown): ActivitySink[] {
  if (!Array.isArray(sinks) || sinks.length === 0) {
    throw invalidOption('sinks is not a list of at least one sink, such as [memorySink()].')
  }
  return sinks.map((sink: unknown, index) => {
    if (typeof sink === 'function') return functionSink(sink as (activity: Activity) => unknown)
    const { name, write } = (sink ?? {}) as Partial<ActivitySink>
    if (typeof write !== 'function' || typeof name !== 'string' || name === '') {
      throw invalidOption(`sinks[${index}] is neither a function nor a sink with a name and a function write.`)
    }
    return sink as ActivitySink
  })
}

function whole(value: unknown, name: string, least: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least) return value as number
  throw invalidOption(`${name} is ${String(value)}; use a whole number of at least ${least}.`)
}

/** A duration that a timer can hold, in milliseconds. */
export function timerMs(duration: Duration, name: string, leastMs = 1): number {
  const ms = milliseconds(duration, name, leastMs)
  if (ms > LONGEST_TIMER_MS) throw invalidOption(`${name} is longer than a day.`)
  return ms
}
