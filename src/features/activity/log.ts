// `ActivityLog`: takes activities, makes them safe to keep, and hands them to its sinks. What reads them back is in
// reports.ts; how a sink is written to, in queue.ts.

import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption, SessionError } from '../../errors.js'
import {
  type Activity,
  type ActivityRecorder,
  type ActivityRequest,
  checkActivity,
} from '../../events/activity-hook.js'
import { newActivityId } from '../../ids.js'
import { warn } from '../../warn.js'
import { type DetailsCleaner, detailsCleaner } from './details.js'
import { timeOf } from './query.js'
import { type DropReason, type QueueRules, SinkQueue } from './queue.js'
import {
  type ActivityReport,
  type ActivityTotals,
  activitiesOf,
  type ReportQuery,
  reportOf,
  type TotalsQuery,
  totalsOf,
} from './reports.js'
import { functionSink } from './sinks/function-sink.js'
import {
  type ActivityArchive,
  type ActivityPage,
  type ActivityPageQuery,
  type ActivityQuery,
  type ActivitySink,
  isArchive,
} from './sinks/sink.js'

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

/** A failure of a sink. */
export interface SinkFailure {
  /** The sink's name. */
  readonly sink: string
  readonly error: unknown
  /** 1 for the first attempt. */
  readonly attempt: number
  readonly willRetry: boolean
}

/** Activities that a sink did not get. */
export interface ActivityDrop {
  /** The sink's name. */
  readonly sink: string
  readonly count: number
  /** `'full'`: the queue was. `'failed'`: the batch was tried too often. `'closed'`: the log was, or `close()` ran out of time. */
  readonly reason: DropReason
  /** Of the last attempt, if there was one. */
  readonly error: unknown
}

/** Counts of one sink since the log was made. */
export interface SinkStats {
  readonly name: string
  /** Activities that wait, those being written included. */
  readonly queued: number
  readonly written: number
  readonly dropped: number
  /** Writes that failed, attempts that were repeated included. */
  readonly failures: number
}

/** Counts since the log was made. */
export interface ActivityLogStats {
  /** Activities that were taken, automatic ones included. */
  readonly recorded: number
  readonly sinks: readonly SinkStats[]
}

/** Whom an activity of a job is about. */
export interface ActivitySubject {
  readonly logicalId?: string | undefined
  readonly sessionId?: string | undefined
  readonly userId?: string | number | undefined
}

/**
 * An activity that was recorded. Awaiting it waits until there is room in the queues (with `onFull: 'wait'`; else it does
 * not wait), resolves to the activity, and never rejects.
 */
export type RecordedActivity = Activity & PromiseLike<Activity>

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
  'onError',
  'onDropped',
  'clock',
] satisfies (keyof ActivityLogOptions)[])

/** What a timer can hold, and more than any of these should be. */
const LONGEST_TIMER_MS = 86_400_000
const MAX_ID_LENGTH = 1_000
const MAX_PATH_LENGTH = 1_024
const MAX_FACT_LENGTH = 100
/** How long a report waits for what is still queued. */
const BEFORE_READING_MS = 1_000
const CLOSE_TIMEOUT = '10s'

/**
 * Keeps what happens under sessions.
 *
 * ```ts
 * const log = new ActivityLog({ sinks: [pinoSink(logger), redisStreamSink({ client })] })
 * app.use(session({ secret, activity: log }))
 * ```
 *
 * Recording never fails or delays a request: details are made plain data at once, and are written in batches later. On
 * shutdown, `await log.close()` writes what is queued.
 */
export class ActivityLog implements ActivityRecorder {
  readonly wantsRequests: boolean
  readonly #clean: DetailsCleaner
  readonly #hasRequestFacts: boolean
  readonly #onFull: 'drop' | 'wait'
  readonly #clock: () => number
  readonly #onError: ActivityLogOptions['onError']
  readonly #onDropped: ActivityLogOptions['onDropped']
  readonly #queues: readonly SinkQueue[]
  readonly #warned = new Set<string>()
  readonly #pruneTimer: NodeJS.Timeout | undefined
  #recorded = 0
  #closing: Promise<void> | null = null

  /** @throws {SessionError} `INVALID_OPTION`, saying which option, what is wrong and what to do. */
  constructor(options: ActivityLogOptions) {
    const resolved = resolveOptions(options)
    this.wantsRequests = resolved.requests
    this.#clean = resolved.clean
    this.#hasRequestFacts = resolved.requestFacts
    this.#onFull = resolved.onFull
    this.#clock = resolved.clock
    this.#onError = options.onError
    this.#onDropped = options.onDropped
    const listener = {
      failed: ({ name }: SinkQueue, failure: Omit<SinkFailure, 'sink'>) => this.#failed({ sink: name, ...failure }),
      dropped: ({ name }: SinkQueue, drop: Omit<ActivityDrop, 'sink'>) => this.#dropped({ sink: name, ...drop }),
    }
    const names = new Map<string, number>()
    this.#queues = resolved.sinks.map((sink) => {
      const count = (names.get(sink.name) ?? 0) + 1
      names.set(sink.name, count)
      return new SinkQueue(sink, count === 1 ? sink.name : `${sink.name}-${count}`, { rules: resolved.rules, listener })
    })
    const { retentionMs, pruneIntervalMs } = resolved
    if (retentionMs === undefined) return
    this.#pruneTimer = setInterval(() => {
      // A failure has been told.
      this.prune(new Date(this.#clock() - retentionMs)).catch(() => {})
    }, pruneIntervalMs)
    this.#pruneTimer.unref()
  }

  // --- Writing ---

  /**
   * Records an activity that happened outside of a request, such as in a job. In a request use `logActivity()`, which
   * knows the session.
   * @throws {SessionError} `INVALID_ARGUMENT` when the type is not text of 1 to 200 characters, the details are no object,
   *   or an ID is not one.
   */
  log(type: string, details?: Record<string, unknown>, about: ActivitySubject = {}): RecordedActivity {
    checkActivity(type, details)
    const { logicalId, sessionId, userId } = about
    checkId(logicalId, 'logicalId')
    checkId(sessionId, 'sessionId')
    if (typeof userId === 'number') {
      if (!Number.isFinite(userId)) throw invalidArgument('userId is not a finite number.')
    } else checkId(userId, 'userId')
    const at = new Date(this.#clock())
    const id = newActivityId(at)
    const activity = this.#safe({ id, at, type, logicalId, sessionId, userId, details, request: undefined })
    return recorded(activity, this.#take(activity))
  }

  /**
   * Takes one activity: what `session({ activity: log })` calls. Under `onFull: 'wait'` it returns a promise of room when a
   * queue is full, which never rejects.
   * @throws {SessionError} `INVALID_ARGUMENT` when it is no activity.
   */
  record(activity: Activity): Promise<void> | undefined {
    checkActivity(activity?.type, activity.details)
    checkId(activity.id, 'id')
    timeOf(activity.at, 'at')
    const safe = this.#safe(activity)
    const room = this.#take(safe)
    noteRecorded({ given: activity, kept: safe, room })
    return room ?? undefined
  }

  /** Resolves when everything that is queued now has been written or, after all its attempts, dropped. Never rejects. */
  async flush(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.flush()))
  }

  /**
   * Writes what is queued, for `timeout` at most, and closes the sinks. What could not be written is told as dropped, and so
   * is what is recorded afterwards. Never rejects; a second call waits for the first.
   * @param timeout default `'10s'`
   */
  close({ timeout = CLOSE_TIMEOUT }: { timeout?: Duration } = {}): Promise<void> {
    const ms = timerMs(timeout, 'timeout', 0)
    clearInterval(this.#pruneTimer)
    this.#closing ??= Promise.all(this.#queues.map((queue) => queue.close(ms))).then(() => {})
    return this.#closing
  }

  /** What was recorded, written and dropped so far. */
  get stats(): ActivityLogStats {
    const sinks = this.#queues.map(({ name, length, written, dropped, failures }) => ({
      name,
      queued: length,
      written,
      dropped,
      failures,
    }))
    return { recorded: this.#recorded, sinks }
  }

  // --- Reading ---

  /** The first sink that is an archive, which reports read; `undefined` when there is none. */
  get archive(): ActivityArchive | undefined {
    return this.#queues.map(({ sink }) => sink).find(isArchive)
  }

  /**
   * One page of what happened: of a logical ID, a session, or all. What is still queued is written first, as far as that
   * takes no longer than a second; the same holds for everything below.
   * @throws {SessionError} `INVALID_ARGUMENT`; `NOT_SUPPORTED` when no sink is an archive; what the archive fails with.
   */
  async timeline(query: ActivityPageQuery): Promise<ActivityPage> {
    return (await this.#readable()).page(query)
  }

  /** All activities that are meant, one after the other, without holding more than a page of them. */
  async *activities(query: ActivityQuery = {}): AsyncGenerator<Activity, void, undefined> {
    yield* activitiesOf(await this.#readable(), query)
  }

  /** How many activities there are of each type. */
  async countByType(query: ActivityQuery = {}): Promise<Readonly<Record<string, number>>> {
    return (await this.#readable()).countByType(query)
  }

  /** All that support needs to know of one logical ID or one session, in one call. */
  async report(query: ReportQuery): Promise<ActivityReport> {
    return reportOf(await this.#readable(), query)
  }

  /** Sessions and users of a time window, in total and by hour or day. */
  async totals(query: TotalsQuery = {}): Promise<ActivityTotals> {
    return totalsOf(await this.#readable(), query, this.#clock())
  }

  /**
   * Removes activities older than a time, or than a duration, from every sink that is an archive. Resolves to their number;
   * one that is in two archives counts twice.
   * @throws {SessionError} `INVALID_ARGUMENT` or, for a duration, `INVALID_OPTION`; and what an archive failed with, after the
   *   others have been pruned.
   */
  async prune(olderThan: Date | Duration): Promise<number> {
    const before =
      typeof olderThan === 'object' ? olderThan : new Date(this.#clock() - milliseconds(olderThan, 'olderThan', 0))
    timeOf(before, 'olderThan')
    let count = 0
    const failures: unknown[] = []
    for (const { sink, name } of this.#queues) {
      if (!isArchive(sink)) continue
      try {
        count += await sink.prune(before)
      } catch (error) {
        failures.push(error)
        this.#failed({ sink: name, error, attempt: 1, willRetry: false })
      }
    }
    if (failures.length > 0) throw failures[0]
    return count
  }

  // --- Inside ---

  /** The activity as it is kept: nothing in it can change any more. */
  #safe({ id, at, type, logicalId, sessionId, userId, details, request }: Activity): Activity {
    return Object.freeze({
      id,
      at: new Date(at),
      type,
      logicalId,
      sessionId,
      userId,
      details: details === undefined ? undefined : this.#clean(details),
      request: request === undefined || !this.#hasRequestFacts ? undefined : boundedRequest(request),
    })
  }

  /** Hands it to all queues. `null`: there is room for more. */
  #take(activity: Activity): Promise<void> | null {
    this.#recorded++
    for (const queue of this.#queues) queue.push(activity, this.#onFull)
    const continued = continuation(activity)
    if (continued !== undefined) for (const queue of this.#queues) queue.push(continued, this.#onFull)
    if (this.#onFull === 'drop') return null
    const rooms = this.#queues.map((queue) => queue.room()).filter((room) => room !== null)
    return rooms.length === 0 ? null : Promise.all(rooms).then(() => {})
  }

  async #readable(): Promise<ActivityArchive> {
    const queue = this.#queues.find(({ sink }) => isArchive(sink))
    if (queue === undefined) {
      throw new SessionError(
        'NOT_SUPPORTED',
        'This needs a sink that can be read: memorySink(), redisStreamSink() or sqlSink().',
      )
    }
    let timer: NodeJS.Timeout | undefined
    const enough = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, BEFORE_READING_MS)
    })
    await Promise.race([queue.flush(), enough])
    clearTimeout(timer)
    return queue.sink as ActivityArchive
  }

  #failed(failure: SinkFailure): void {
    if (this.#onError !== undefined) {
      this.#tell('onError', () => this.#onError?.(failure))
      return
    }
    const { sink, error } = failure
    const message = error instanceof Error ? error.message : String(error)
    this.#warnOnce(`failed ${sink}`, `The activity sink "${sink}" failed: ${message}`, 'onError')
  }

  #dropped(drop: ActivityDrop): void {
    if (this.#onDropped !== undefined) {
      this.#tell('onDropped', () => this.#onDropped?.(drop))
      return
    }
    const { sink, count, reason } = drop
    const why = { full: 'its queue is full', failed: 'it failed too often', closed: 'the log is closed' }[reason]
    const what = `The activity sink "${sink}" did not get ${count} activities: ${why}.`
    this.#warnOnce(`dropped ${sink} ${reason}`, what, 'onDropped')
  }

  /** Once a name: a fault that repeats must not flood the log. */
  #warnOnce(key: string, message: string, option: string): void {
    if (this.#warned.has(key)) return
    this.#warned.add(key)
    warn(`${message} The next time is silent; give ActivityLog an ${option}, and see log.stats.`, 'activity')
  }

  #tell(name: string, call: () => unknown): void {
    const tellFailure = (error: unknown): void => {
      warn(`${name} of the activity log failed: ${error instanceof Error ? error.message : String(error)}`, 'listener')
    }
    try {
      const returned = call()
      if (returned instanceof Promise) returned.catch(tellFailure)
    } catch (error) {
      tellFailure(error)
    }
  }
}

/** An activity that can be awaited. */
export function recorded(activity: Activity, room: Promise<void> | null): RecordedActivity {
  const done = room === null ? Promise.resolve(activity) : room.then(() => activity)
  const awaitable = Object.create(Object.prototype, Object.getOwnPropertyDescriptors(activity)) as RecordedActivity
  // Not enumerable: it is no part of what is printed, copied or compared.
  // oxlint-disable-next-line unicorn/no-thenable -- that it can be awaited is what it is for
  Object.defineProperty(awaitable, 'then', { value: done.then.bind(done) })
  return Object.freeze(awaitable)
}

/** What a log made of an activity that the core gave it. */
export interface RecordNote {
  readonly given: Activity
  readonly kept: Activity
  readonly room: Promise<void> | null
}

/** The last note: for `logActivity()`, right after it had the core call `record()`. One for all copies of this package. */
const LAST: unique symbol = Symbol.for('sojourn.lastRecorded')
const shared = globalThis as { [LAST]?: RecordNote | undefined }

function noteRecorded(note: RecordNote): void {
  shared[LAST] = note
}

/** The note of an activity that has just been recorded; `undefined` when no log has taken it. */
export function takeNote(given: Activity): RecordNote | undefined {
  const note = shared[LAST]
  shared[LAST] = undefined
  return note?.given === given ? note : undefined
}

/**
 * A boundary is told under the new logical ID. So that the timeline of the old one says where it goes on, that one gets an
 * activity `'session.continued'`, without a session: the new one may belong to another.
 */
function continuation({ type, at, userId, details }: Activity): Activity | undefined {
  if (type !== 'session.boundary' || typeof details?.['from'] !== 'string') return undefined
  const { from, to, cause } = details
  return Object.freeze({
    id: newActivityId(at),
    at,
    type: 'session.continued',
    logicalId: from as string,
    sessionId: undefined,
    userId,
    details: Object.freeze({ from, to, cause }),
    request: undefined,
  })
}

/** A server may be told longer paths than anybody wants to read. */
function boundedRequest({ method, path, ip }: ActivityRequest): ActivityRequest {
  return Object.freeze({
    method: bounded(method, MAX_FACT_LENGTH),
    path: bounded(path, MAX_PATH_LENGTH),
    ip: ip === undefined ? undefined : bounded(ip, MAX_FACT_LENGTH),
  })
}

function bounded(text: unknown, length: number): string {
  const whole = String(text)
  return whole.length <= length ? whole : `${whole.slice(0, length)}…`
}

function checkId(id: unknown, name: string): void {
  if (id === undefined || (typeof id === 'string' && id !== '' && id.length <= MAX_ID_LENGTH)) return
  throw invalidArgument(`${name} is not text of 1 to ${MAX_ID_LENGTH} characters.`)
}

interface ResolvedOptions {
  readonly sinks: readonly ActivitySink[]
  readonly requests: boolean
  readonly requestFacts: boolean
  readonly clean: DetailsCleaner
  readonly onFull: 'drop' | 'wait'
  readonly rules: QueueRules
  readonly retentionMs: number | undefined
  readonly pruneIntervalMs: number
  readonly clock: () => number
}

function resolveOptions(options: ActivityLogOptions): ResolvedOptions {
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

function timerMs(duration: Duration, name: string, leastMs = 1): number {
  const ms = milliseconds(duration, name, leastMs)
  if (ms > LONGEST_TIMER_MS) throw invalidOption(`${name} is longer than a day.`)
  return ms
}
