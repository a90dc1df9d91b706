// The report of one session or logical ID, over any `ActivityArchive`, page by page. Totals are in totals.ts.
//
// What counts:
// - An error is an activity whose type ends in `error` or in `.failed`, or whose details have an `error` that is not null,
//   false or ''.
// - `session.timed-out`, `session.used-after-end` and `session.forgotten` are told when somebody meets what is over. They
//   never make a session longer: it was last active at its last other activity.

import { invalidArgument } from '../../errors.js'
import type { Activity } from '../../events/activity-hook.js'
import type { ActivityFigures, Figures } from './figures.js'
import { activitiesOf } from './pages.js'
import type { ActivityArchive } from './sinks/sink.js'
import { ENDINGS, TOLD_LATE } from './sums.js'

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
export interface ActivityReport extends ActivityFigures {
  readonly logicalId: string | undefined
  readonly sessionId: string | undefined
  /** The first `limit` activities, oldest first. `log.timeline()` and `log.activities()` have all of them. */
  readonly activities: readonly Activity[]
  /** How many activities there are. */
  readonly total: number
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

const DEFAULT_LIMIT = 500
const MAX_LIMIT = 10_000

/** Whether an activity is an error: its type ends in `error` or `.failed`, or its details have an `error`. */
export function isErrorActivity({ type, details }: Activity): boolean {
  if (/(error|\.failed)$/.test(type)) return true
  const error = details?.['error']
  return error !== undefined && error !== null && error !== false && error !== ''
}

/** @throws {SessionError} `INVALID_ARGUMENT` when not exactly one ID is given. */
export async function reportOf(
  archive: ActivityArchive,
  query: ReportQuery,
  figuresOf: Figures,
): Promise<ActivityReport> {
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
    if (!TOLD_LATE.includes(type)) lastActivityAt = at
    const boundary = boundaryOf(activity)
    if (boundary !== undefined && boundaries.length < limit) boundaries.push(boundary)
    noteFile(files, activity, limit)
    if (ENDINGS.includes(type) || (boundary !== undefined && boundary.from === logicalId)) end ??= activity
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
    ...figuresOf(counts),
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
