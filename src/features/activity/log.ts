// `ActivityLog`: takes activities, makes them safe to keep, and hands them to its sinks. What reads them back is in
// reports.ts; how a sink is written to, in queue.ts.

import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, SessionError } from '../../errors.js'
import {
  type Activity,
  type ActivityRecorder,
  type ActivityRequest,
  checkActivity,
} from '../../events/activity-hook.js'
import { newActivityId } from '../../ids.js'
import type { DetailsCleaner } from './details.js'
import type { Figures } from './figures.js'
import { type ActivityLogOptions, resolveOptions, timerMs } from './log-options.js'
import { activitiesOf } from './pages.js'
import { timeOf } from './query.js'
import { SinkQueue } from './queue.js'
import { noteRecorded, type RecordedActivity, recorded } from './recorded.js'
import { type ActivityReport, type ReportQuery, reportOf } from './reports.js'
import { type ActivityDrop, type SinkFailure, SinkTrouble } from './sink-trouble.js'
import {
  type ActivityArchive,
  type ActivityPage,
  type ActivityPageQuery,
  type ActivityQuery,
  isArchive,
} from './sinks/sink.js'
import { type ActivityTotals, type TotalsQuery, totalsOf } from './totals.js'

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
  readonly #figuresOf: Figures
  readonly #trouble: SinkTrouble
  readonly #queues: readonly SinkQueue[]
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
    this.#figuresOf = resolved.figuresOf
    const trouble = new SinkTrouble(options)
    this.#trouble = trouble
    const listener = {
      failed: ({ name }: SinkQueue, failure: Omit<SinkFailure, 'sink'>) => trouble.failed({ sink: name, ...failure }),
      dropped: ({ name }: SinkQueue, drop: Omit<ActivityDrop, 'sink'>) => trouble.dropped({ sink: name, ...drop }),
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
    return reportOf(await this.#readable(), query, this.#figuresOf)
  }

  /** Sessions, users and figures of a time window, in total and by hour or day. */
  async totals(query: TotalsQuery = {}): Promise<ActivityTotals> {
    return totalsOf(await this.#readable(), query, { now: this.#clock(), figuresOf: this.#figuresOf })
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
        this.#trouble.failed({ sink: name, error, attempt: 1, willRetry: false })
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
