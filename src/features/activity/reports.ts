// What can be told from an archive: the report of one session or logical ID, and the totals of a time window. Over any
// `ActivityArchive`, page by page.
//
// What counts:
// - An error is an activity whose type ends in `error` or in `.failed`, or whose details have an `error` that is not null,
//   false or ''.
// - `session.timed-out` and `session.used-after-end` are told when somebody meets what is over. They never make a session
//   longer: it was last active at its last other activity.
// - One session goes on under other IDs after login, reauthentication and regeneration, by `details.previousSessionId`.
//   It begins at the first of its activities and ends at the last one. So its duration is as exact as what is logged:
//   with `requests: true`, to the request.

import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument } from '../../errors.js'
import type { Activity } from '../../events/activity-hook.js'
import { countsOf, timeOf } from './query.js'
import type { ActivityArchive, ActivityQuery } from './sinks/sink.js'

/** What is asked for: one logical ID, or one session. */
export interface ReportQuery {
  readonly logicalId?: string | undefined
  readonly sessionId?: string | undefined
  /**
   * How many activities the report lists, from the first on, and how many errors; all of them are counted.
   * @default 500
   */
  readonly limit?: number | undefined
}

/** A change of the logical ID. */
export interface ReportedBoundary {
  readonly at: Date
  readonly from: string | undefined
  readonly to: string
  /** As in the event `boundary`: `'start'`, `'timeout'`, `'restart'` or `'completed'`. */
  readonly cause: string
}

/** A file of a session, by what `sojourn/workspace` told of it. */
export interface ReportedFile {
  readonly name: string
  /** As it was saved last. */
  readonly bytes: number
  /** When it was saved last. */
  readonly savedAt: Date
  /** When it was removed, unless it was saved again. Files that went with their session are not told one by one. */
  readonly removedAt: Date | undefined
}

/** Everything about one session or one logical ID. */
export interface ActivityReport {
  readonly logicalId: string | undefined
  readonly sessionId: string | undefined
  /** The first `limit` activities, oldest first. `log.timeline()` and `log.activities()` have all of them. */
  readonly activities: readonly Activity[]
  /** How many activities there are. */
  readonly total: number
  readonly counts: Readonly<Record<string, number>>
  /** The time of the first activity; `undefined` when there is none. */
  readonly startedAt: Date | undefined
  /** The time of the last activity; `session.timed-out` and `session.used-after-end` do not count. */
  readonly lastActivityAt: Date | undefined
  /** From the one to the other, in milliseconds. */
  readonly durationMs: number
  /** The activity that ended it: a logout, a revocation, a time-out …; for a logical ID, what it continued as, too. */
  readonly end: Activity | undefined
  /** The first `limit` activities that are errors. */
  readonly errors: readonly Activity[]
  readonly errorCount: number
  /** Where the logical ID began, changed and went on: the way to the reports before and after this one. */
  readonly boundaries: readonly ReportedBoundary[]
  /** The first `limit` files that were saved in its workspace, in the order in which they first were. */
  readonly files: readonly ReportedFile[]
  /** Those that were replaced by these, as at a login, and the sessions that the activities were in, as they appeared. */
  readonly sessionIds: readonly string[]
  /** The logical IDs of the activities, and those of the boundaries, in the order of their appearance. */
  readonly logicalIds: readonly string[]
  readonly userIds: readonly (string | number)[]
}

/** What `log.totals()` is asked. */
export interface TotalsQuery {
  /** The beginning of the window. Default: a day before its end, with `by: 'day'` 30 days. */
  readonly since?: Date | undefined
  /** The end of the window, which is not in it. Default: now. */
  readonly until?: Date | undefined
  /** Tells each hour or day of the window, in UTC, besides. Default: only the whole. */
  readonly by?: 'hour' | 'day' | undefined
  /**
   * A session without an end is active when its last activity is not longer ago than this: the `idleTimeout` of your sessions.
   * @default '30m'
   */
  readonly activeWithin?: Duration | undefined
}

/** Sessions and users of a stretch of time. */
export interface PeriodTotals {
  readonly since: Date
  readonly until: Date
  /** Sessions that began in it. */
  readonly started: number
  /** Sessions that had an activity in it, or before and after it. */
  readonly active: number
  /** The most sessions that were between their first and last activity at one time. */
  readonly peakConcurrent: number
  /** Mean duration in milliseconds of the sessions that began in it; `undefined` when none did. */
  readonly averageDurationMs: number | undefined
  /** The duration that half of them did not exceed. */
  readonly medianDurationMs: number | undefined
  /** Users with an activity in it. */
  readonly uniqueUsers: number
}

/** Sessions and users of a time window. */
export interface ActivityTotals extends PeriodTotals {
  /** Sessions that have no end, and were active within `activeWithin` before the end of the window. */
  readonly activeNow: number
  /** All activities of the window. */
  readonly activities: number
  /** With `by`: every hour or day that the window touches, oldest first; the first and last are cut to the window. */
  readonly periods: readonly PeriodTotals[]
}

const PAGE_SIZE = 1_000
const DEFAULT_LIMIT = 500
const MAX_LIMIT = 10_000
const MAX_PERIODS = 10_000
const HOUR_MS = 3_600_000
const PERIOD_MS = { hour: HOUR_MS, day: 24 * HOUR_MS } as const
const DEFAULT_WINDOW_MS = { hour: 24 * HOUR_MS, day: 30 * 24 * HOUR_MS } as const
const DEFAULT_ACTIVE = '30m'

/** Told later than what they tell of. */
const TOLD_LATE: ReadonlySet<string> = new Set(['session.timed-out', 'session.used-after-end', 'session.forgotten'])
const ENDINGS: ReadonlySet<string> = new Set([
  'session.logout',
  'session.destroyed',
  'session.revoked',
  'session.timed-out',
  'session.forgotten',
])

/** Whether an activity is an error: its type ends in `error` or `.failed`, or its details have an `error`. */
export function isErrorActivity({ type, details }: Activity): boolean {
  if (/(error|\.failed)$/.test(type)) return true
  const error = details?.['error']
  return error !== undefined && error !== null && error !== false && error !== ''
}

/** All activities that a query means, oldest first, a page in memory at a time. */
export async function* activitiesOf(
  archive: ActivityArchive,
  query: ActivityQuery,
): AsyncGenerator<Activity, void, undefined> {
  let after: string | undefined
  do {
    const page: Awaited<ReturnType<ActivityArchive['page']>> = await archive.page({
      ...query,
      limit: PAGE_SIZE,
      after,
      order: 'oldest-first',
    })
    yield* page.activities
    after = page.next
  } while (after !== undefined)
}

/** @throws {SessionError} `INVALID_ARGUMENT` when not exactly one ID is given. */
export async function reportOf(archive: ActivityArchive, query: ReportQuery): Promise<ActivityReport> {
  const { logicalId, sessionId, limit = DEFAULT_LIMIT } = query ?? {}
  if ((logicalId === undefined) === (sessionId === undefined)) {
    throw invalidArgument('report() takes either a logicalId or a sessionId.')
  }
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    throw invalidArgument(`limit is not a whole number from 1 to ${MAX_LIMIT}.`)
  }
  const activities: Activity[] = []
  const errors: Activity[] = []
  const boundaries: ReportedBoundary[] = []
  const counts = new Map<string, number>()
  const files = new Map<string, ReportedFile>()
  const previousIds = new Set<string>()
  const sessionIds = new Set<string>()
  const logicalIds = new Set<string>()
  const userIds = new Set<string | number>()
  let total = 0
  let errorCount = 0
  let startedAt: Date | undefined
  let lastActivityAt: Date | undefined
  let end: Activity | undefined

  for await (const activity of activitiesOf(archive, { logicalId, sessionId })) {
    const { at, type, details } = activity
    total++
    counts.set(type, (counts.get(type) ?? 0) + 1)
    if (activities.length < limit) activities.push(activity)
    if (isErrorActivity(activity)) {
      errorCount++
      if (errors.length < limit) errors.push(activity)
    }
    startedAt ??= at
    if (!TOLD_LATE.has(type)) lastActivityAt = at
    const boundary = boundaryOf(activity)
    if (boundary !== undefined && boundaries.length < limit) boundaries.push(boundary)
    noteFile(files, activity, limit)
    if (ENDINGS.has(type) || (boundary !== undefined && boundary.from === logicalId)) end ??= activity
    addText(previousIds, details?.['previousSessionId'])
    addText(sessionIds, activity.sessionId)
    addText(logicalIds, boundary?.from)
    addText(logicalIds, activity.logicalId)
    addText(logicalIds, boundary?.to)
    if (activity.userId !== undefined) userIds.add(activity.userId)
  }
  lastActivityAt ??= startedAt
  return {
    logicalId,
    sessionId,
    activities,
    total,
    counts: countsOf(counts),
    startedAt,
    lastActivityAt,
    durationMs: startedAt && lastActivityAt ? lastActivityAt.getTime() - startedAt.getTime() : 0,
    end,
    errors,
    errorCount,
    boundaries,
    files: [...files.values()],
    sessionIds: [...[...previousIds].filter((id) => !sessionIds.has(id)), ...sessionIds],
    logicalIds: [...logicalIds],
    userIds: [...userIds],
  }
}

function boundaryOf({ at, type, details }: Activity): ReportedBoundary | undefined {
  if (type !== 'session.boundary' && type !== 'session.continued') return undefined
  const { from, to, cause } = details ?? {}
  if (typeof to !== 'string') return undefined
  return { at, from: typeof from === 'string' ? from : undefined, to, cause: String(cause) }
}

function noteFile(files: Map<string, ReportedFile>, { at, type, details }: Activity, limit: number): void {
  if (type !== 'file.saved' && type !== 'file.removed') return
  const name = String(details?.['name'])
  const known = files.get(name)
  if (type === 'file.removed') {
    if (known !== undefined) files.set(name, { ...known, removedAt: at })
  } else if (known !== undefined || files.size < limit) {
    files.set(name, { name, bytes: Number(details?.['bytes']), savedAt: at, removedAt: undefined })
  }
}

function addText(set: Set<string>, text: unknown): void {
  if (typeof text === 'string') set.add(text)
}

/** A session in the making, whatever IDs it had. */
interface Visit {
  readonly firstAt: number
  lastAt: number
  /** Whether its beginning is in the window. */
  isWhole: boolean
  hasEnded: boolean
}

/**
 * Reads the window once. What it holds meanwhile grows with the sessions and users of the window, not with its activities.
 * @param now in ms since the epoch
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export async function totalsOf(archive: ActivityArchive, query: TotalsQuery, now: number): Promise<ActivityTotals> {
  const { by, activeWithin = DEFAULT_ACTIVE } = query ?? {}
  if (by !== undefined && by !== 'hour' && by !== 'day') throw invalidArgument(`by is neither 'hour' nor 'day'.`)
  const activeWithinMs = milliseconds(activeWithin, 'activeWithin')
  const until = query.until === undefined ? now : timeOf(query.until, 'until')
  const since = query.since === undefined ? until - DEFAULT_WINDOW_MS[by ?? 'hour'] : timeOf(query.since, 'since')
  if (since >= until) throw invalidArgument('since is not before until.')
  const periods = by === undefined ? [] : periodsOf(since, until, PERIOD_MS[by])

  /** In the order of their beginning. */
  const begun = new Set<Visit>()
  const visitOf = new Map<string, Visit>()
  const users = new Set<string | number>()
  const usersOfPeriod = periods.map(() => new Set<string | number>())
  let period = 0
  let activities = 0

  for await (const activity of activitiesOf(archive, { since: new Date(since), until: new Date(until) })) {
    const { sessionId, userId, type, details } = activity
    const at = activity.at.getTime()
    activities++
    const isLate = TOLD_LATE.has(type)
    if (userId !== undefined && !isLate) {
      users.add(userId)
      while (at >= (periods[period]?.until ?? Number.POSITIVE_INFINITY)) period++
      usersOfPeriod[period]?.add(userId)
    }
    // Those that had to make room for this login.
    if (type === 'session.limit') endAll(details?.['ended'])
    if (sessionId === undefined) continue

    const visit = visitAt(at, activity)
    if (visit === undefined) continue
    // It is stored, and told of, when its first request ends: what that one has logged comes before.
    if (type === 'session.started') visit.isWhole = true
    if (!isLate && !visit.hasEnded) visit.lastAt = Math.max(visit.lastAt, at)
    if (ENDINGS.has(type)) visit.hasEnded = true
  }

  const whole = { since, until }
  const visits = [...begun]
  const [total, ...parts] = summarise(visits, [whole, ...periods])
  const activeSince = until - activeWithinMs
  return {
    ...(total as Summary),
    ...datesOf(whole),
    uniqueUsers: users.size,
    activeNow: visits.filter(({ hasEnded, lastAt }) => !hasEnded && lastAt >= activeSince).length,
    activities,
    periods: parts.map((part, index) => ({
      ...datesOf(periods[index] as Stretch),
      ...part,
      uniqueUsers: (usersOfPeriod[index] as Set<unknown>).size,
    })),
  }

  /** The visit that an activity belongs to, a new one if need be. */
  function visitAt(at: number, { sessionId, type, details }: Activity): Visit | undefined {
    if (sessionId === undefined) return undefined
    const own = visitOf.get(sessionId)
    const previousId = details?.['previousSessionId']
    const previous = typeof previousId === 'string' ? visitOf.get(previousId) : undefined
    if (previous !== undefined && previous !== own) {
      // It goes on under this ID, which may have been seen already.
      if (own !== undefined) begun.delete(own)
      visitOf.delete(String(previousId))
      visitOf.set(sessionId, previous)
      return previous
    }
    // What only tells of an end is no sign of life.
    if (own !== undefined || TOLD_LATE.has(type) || ENDINGS.has(type)) return own
    const visit = { firstAt: at, lastAt: at, isWhole: false, hasEnded: false }
    begun.add(visit)
    visitOf.set(sessionId, visit)
    return visit
  }

  function endAll(ids: unknown): void {
    if (!Array.isArray(ids)) return
    for (const id of ids) {
      const visit = visitOf.get(String(id))
      if (visit !== undefined) visit.hasEnded = true
    }
  }
}

interface Stretch {
  readonly since: number
  readonly until: number
}

function datesOf({ since, until }: Stretch): { since: Date; until: Date } {
  return { since: new Date(since), until: new Date(until) }
}

/** The hours or days that a window touches, cut to it. */
function periodsOf(since: number, until: number, lengthMs: number): Stretch[] {
  // The epoch is a midnight of UTC, which has no leap seconds in a computer.
  const first = Math.floor(since / lengthMs) * lengthMs
  const count = Math.ceil((until - first) / lengthMs)
  if (count > MAX_PERIODS)
    throw invalidArgument(`The window has ${count} periods; choose one of ${MAX_PERIODS} at most.`)
  return Array.from({ length: count }, (_, n) => ({
    since: Math.max(since, first + n * lengthMs),
    until: Math.min(until, first + (n + 1) * lengthMs),
  }))
}

type Summary = Omit<PeriodTotals, 'since' | 'until' | 'uniqueUsers'>

/** Sums up visits, which are in the order of their beginning, by stretches of time. */
function summarise(visits: readonly Visit[], stretches: readonly Stretch[]): Summary[] {
  const beginnings = visits.map(({ firstAt }) => firstAt)
  const ends = visits.map(({ lastAt }) => lastAt).sort((a, b) => a - b)
  return stretches.map(({ since, until }) => {
    const [first, behind] = [countBelow(beginnings, since), countBelow(beginnings, until)]
    const begun = visits.slice(first, behind).filter(({ isWhole }) => isWhole)
    const durations = begun.map(({ firstAt, lastAt }) => lastAt - firstAt).sort((a, b) => a - b)
    const before = first - countBelow(ends, since)
    return {
      started: begun.length,
      active: before + behind - first,
      peakConcurrent: peakOf({ before, beginnings: beginnings.slice(first, behind), ends, since }),
      averageDurationMs:
        durations.length === 0 ? undefined : durations.reduce((sum, ms) => sum + ms, 0) / durations.length,
      medianDurationMs: medianOf(durations),
    }
  })
}

/** A session that ends when another begins was there at the same time. */
function peakOf(stretch: {
  before: number
  beginnings: readonly number[]
  ends: readonly number[]
  since: number
}): number {
  let { before: present } = stretch
  let peak = present
  let next = countBelow(stretch.ends, stretch.since)
  for (const at of stretch.beginnings) {
    while ((stretch.ends[next] ?? Number.POSITIVE_INFINITY) < at) {
      next++
      present--
    }
    present++
    peak = Math.max(peak, present)
  }
  return peak
}

function medianOf(sorted: readonly number[]): number | undefined {
  if (sorted.length === 0) return undefined
  const middle = sorted.length >> 1
  const upper = sorted[middle] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2
}

/** How many of some sorted numbers are below another. */
function countBelow(sorted: readonly number[], limit: number): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sorted[middle] as number) < limit) low = middle + 1
    else high = middle
  }
  return low
}
