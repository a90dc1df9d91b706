// What archives that look for activities themselves have in common: the checks of a query, what it matches, and the place
// where a page ends.
import { isDate } from 'node:util/types'
import { invalidArgument } from '../../errors.js'
import type { Activity } from '../../events/activity-hook.js'
import type { ActivityPageQuery, ActivityQuery } from './sinks/sink.js'

const DEFAULT_LIMIT = 100
const MAX_LIMIT = 1_000

/** The place of an activity among all others: by time, and by ID within one millisecond. */
export interface Position {
  readonly at: number
  readonly id: string
}

/** A query after its checks: every condition in the form that it is compared in. */
export interface Selection {
  readonly logicalId: string | undefined
  readonly sessionId: string | undefined
  readonly userId: string | number | undefined
  readonly types: ReadonlySet<string> | undefined
  /** In ms since the epoch; `-Infinity` when there is none. */
  readonly since: number
  /** In ms since the epoch; `Infinity` when there is none. */
  readonly until: number
}

/** A query for a page after its checks. */
export interface PageSelection extends Selection {
  readonly limit: number
  readonly after: Position | undefined
  readonly isNewestFirst: boolean
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function selectionOf({ logicalId, sessionId, userId, type, since, until }: ActivityQuery): Selection {
  for (const [name, value] of Object.entries({ logicalId, sessionId })) {
    if (value !== undefined && typeof value !== 'string') throw invalidArgument(`${name} is not text.`)
  }
  if (userId !== undefined && typeof userId !== 'string' && typeof userId !== 'number') {
    throw invalidArgument('userId is neither text nor a number.')
  }
  const types: readonly unknown[] | undefined = type === undefined || Array.isArray(type) ? type : [type]
  if (types?.some((one) => typeof one !== 'string')) throw invalidArgument('type is neither text nor a list of texts.')
  return {
    logicalId,
    sessionId,
    userId,
    types: types && new Set(types as readonly string[]),
    since: since === undefined ? Number.NEGATIVE_INFINITY : timeOf(since, 'since'),
    until: until === undefined ? Number.POSITIVE_INFINITY : timeOf(until, 'until'),
  }
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function pageSelectionOf(query: ActivityPageQuery): PageSelection {
  const { limit = DEFAULT_LIMIT, after, order = 'oldest-first' } = query
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
    throw invalidArgument(`limit is not a whole number from 1 to ${MAX_LIMIT}.`)
  }
  if (order !== 'oldest-first' && order !== 'newest-first') {
    throw invalidArgument(`order is neither 'oldest-first' nor 'newest-first'.`)
  }
  return {
    ...selectionOf(query),
    limit,
    after: after === undefined ? undefined : positionOf(after),
    isNewestFirst: order === 'newest-first',
  }
}

/** Whether an activity is meant. */
export function matches({ logicalId, sessionId, userId, types, since, until }: Selection, activity: Activity): boolean {
  const at = activity.at.getTime()
  return (
    at >= since &&
    at < until &&
    (logicalId === undefined || activity.logicalId === logicalId) &&
    (sessionId === undefined || activity.sessionId === sessionId) &&
    (userId === undefined || activity.userId === userId) &&
    (types === undefined || types.has(activity.type))
  )
}

/** Less than 0 when `a` comes before `b`. IDs compare by UTF-16 code units, which for UUIDs is by their bytes. */
export function compare(a: Position, b: Position): number {
  if (a.at !== b.at) return a.at - b.at
  if (a.id === b.id) return 0
  return a.id < b.id ? -1 : 1
}

/** The text of a place, for `after`. */
export function cursorOf({ at, id }: Position): string {
  return Buffer.from(JSON.stringify([at, id])).toString('base64url')
}

function positionOf(cursor: unknown): Position {
  try {
    const [at, id]: unknown[] = JSON.parse(Buffer.from(String(cursor), 'base64url').toString())
    if (Number.isSafeInteger(at) && typeof id === 'string') return { at: at as number, id }
  } catch {
    // Told below.
  }
  throw invalidArgument('after is not the `next` of a page.')
}

/** Counts by type, as own members whatever the types are called. */
export function countsOf(counts: Iterable<readonly [type: string, count: number]>): Record<string, number> {
  return Object.fromEntries(counts)
}

/** @throws {SessionError} `INVALID_ARGUMENT` when it is no valid date. */
export function timeOf(date: unknown, name: string): number {
  const time = isDate(date) ? date.getTime() : Number.NaN
  if (Number.isNaN(time)) throw invalidArgument(`${name} is not a valid Date.`)
  return time
}
