// The totals of a time window: sessions, users and figures, from sums that the archive makes.
//
// What counts:
// - `session.timed-out`, `session.used-after-end` and `session.forgotten` are told when somebody meets what is over. They
//   never make a session longer: it was last active at its last other activity.
// - One session goes on under other IDs after login, reauthentication and regeneration, by `details.previousSessionId`. It
//   begins at the first of its activities and ends at the last one, or where it was ended. So its duration is as exact as
//   what is logged: with `requests: true`, to the request.

import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument } from '../../errors.js'
import type { ActivityFigures, Figures } from './figures.js'
import { timeOf } from './query.js'
import type { ActivityArchive, SessionSums, SessionTurn } from './sinks/sink.js'
import { earlier, later, sumsOf } from './sums.js'

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

/** Sessions, users and figures of a stretch of time. */
export interface PeriodTotals extends ActivityFigures {
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
  /** All activities in it. */
  readonly activities: number
}

/** Sessions, users and figures of a time window. */
export interface ActivityTotals extends PeriodTotals {
  /** Sessions that have no end, and were active within `activeWithin` before the end of the window. */
  readonly activeNow: number
  /** With `by`: every hour or day that the window touches, oldest first; the first and last are cut to the window. */
  readonly periods: readonly PeriodTotals[]
}

const MAX_PERIODS = 10_000
const HOUR_MS = 3_600_000
const PERIOD_MS = { hour: HOUR_MS, day: 24 * HOUR_MS } as const
const DEFAULT_WINDOW_MS = { hour: 24 * HOUR_MS, day: 30 * 24 * HOUR_MS } as const
const DEFAULT_ACTIVE = '30m'

/** What totals are made with. */
export interface TotalsContext {
  /** In ms since the epoch. */
  readonly now: number
  readonly figuresOf: Figures
}

/**
 * What it holds meanwhile grows with the sessions and users of the window, not with its activities.
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export async function totalsOf(
  archive: ActivityArchive,
  query: TotalsQuery,
  { now, figuresOf }: TotalsContext,
): Promise<ActivityTotals> {
  const { by, activeWithin = DEFAULT_ACTIVE } = query ?? {}
  if (by !== undefined && by !== 'hour' && by !== 'day') throw invalidArgument(`by is neither 'hour' nor 'day'.`)
  const activeWithinMs = milliseconds(activeWithin, 'activeWithin')
  const until = query.until === undefined ? now : timeOf(query.until, 'until')
  const since = query.since === undefined ? until - DEFAULT_WINDOW_MS[by ?? 'hour'] : timeOf(query.since, 'since')
  if (since >= until) throw invalidArgument('since is not before until.')
  const everyMs = by && PERIOD_MS[by]
  const periods = everyMs === undefined ? [] : periodsOf(since, until, everyMs)

  const visits = new Visits()
  const whole = new Tally()
  const tallies = periods.map(() => new Tally())
  for await (const sums of sumsOf(archive, { since, until, everyMs })) {
    const nth = everyMs === undefined ? 0 : Math.floor(sums.at / everyMs) - Math.floor(since / everyMs)
    for (const tally of [whole, tallies[nth]]) tally?.add(sums)
    for (const one of sums.sessions) visits.add(one)
    for (const turn of sums.turns) visits.turns.push(turn)
  }

  const all = visits.resolved()
  const [summary, ...parts] = summarise(all, [{ since, until }, ...periods])
  const activeSince = until - activeWithinMs
  return {
    ...datesOf({ since, until }),
    ...(summary as Summary),
    ...whole.told(figuresOf),
    activeNow: all.filter(({ hasEnded, lastAt }) => !hasEnded && lastAt >= activeSince).length,
    periods: periods.map((period, index) => ({
      ...datesOf(period),
      ...(parts[index] as Summary),
      ...(tallies[index] as Tally).told(figuresOf),
    })),
  }
}

/** What is counted in a stretch, but for its sessions. */
class Tally {
  readonly #counts = new Map<string, number>()
  readonly #users = new Set<string | number>()

  add({ counts, sessions }: { counts: ReadonlyMap<string, number>; sessions: readonly SessionSums[] }): void {
    for (const [type, count] of counts) this.#counts.set(type, (this.#counts.get(type) ?? 0) + count)
    for (const { userId, lastAt } of sessions) if (userId !== undefined && lastAt !== undefined) this.#users.add(userId)
  }

  told(figuresOf: Figures): Pick<PeriodTotals, 'uniqueUsers' | 'activities' | keyof ActivityFigures> {
    let activities = 0
    for (const count of this.#counts.values()) activities += count
    return { uniqueUsers: this.#users.size, activities, ...figuresOf(this.#counts) }
  }
}

/** A session, whatever IDs it had. */
interface Visit {
  readonly firstAt: number
  readonly lastAt: number
  /** Whether its beginning is in the window. */
  readonly isWhole: boolean
  readonly hasEnded: boolean
}

type Seen = Pick<SessionSums, 'begunAt' | 'lastAt' | 'isStarted' | 'endedAt'>

/** The sessions of a window, put together from what is known of each ID. */
class Visits {
  readonly turns: SessionTurn[] = []
  readonly #seen = new Map<string, Seen>()

  add({ sessionId, begunAt, lastAt, isStarted, endedAt }: SessionSums): void {
    if (sessionId === undefined) return
    const before = this.#seen.get(sessionId)
    this.#seen.set(
      sessionId,
      before === undefined
        ? { begunAt, lastAt, isStarted, endedAt }
        : {
            begunAt: earlier(before.begunAt, begunAt),
            lastAt: later(before.lastAt, lastAt),
            isStarted: before.isStarted || isStarted,
            endedAt: earlier(before.endedAt, endedAt),
          },
    )
  }

  /** In the order of their beginning. */
  resolved(): Visit[] {
    const previous = this.#applyTurns()
    const goesOn = new Set(previous.values())
    const visits = new Map<string, Visit>()
    for (const [id, { begunAt, lastAt = begunAt, isStarted, endedAt }] of this.#seen) {
      // What only tells of an end is no sign of life.
      if (begunAt === undefined || lastAt === undefined) continue
      // Where it goes on, it has not ended; and what ended before it was seen was another time.
      const hasEnded = !goesOn.has(id) && endedAt !== undefined && endedAt >= begunAt
      const root = rootOf(id, previous)
      const known = visits.get(root)
      const endAt = hasEnded ? Math.min(lastAt, endedAt) : lastAt
      visits.set(root, {
        firstAt: Math.min(known?.firstAt ?? begunAt, begunAt),
        lastAt: Math.max(known?.lastAt ?? endAt, endAt),
        isWhole: (known?.isWhole ?? false) || isStarted,
        hasEnded: (known?.hasEnded ?? false) || hasEnded,
      })
    }
    return [...visits.values()].sort((a, b) => a.firstAt - b.firstAt)
  }

  /** Notes what had to make room. Returns the ID that each one goes on for, as far as it was seen alive. */
  #applyTurns(): ReadonlyMap<string, string> {
    const previous = new Map<string, string>()
    for (const { at, sessionId, previousSessionId, ended } of this.turns) {
      for (const id of ended) {
        const seen = this.#seen.get(id)
        if (seen !== undefined) this.#seen.set(id, { ...seen, endedAt: earlier(seen.endedAt, at) })
      }
      if (sessionId === undefined || previousSessionId === undefined || previousSessionId === sessionId) continue
      if (this.#seen.get(previousSessionId)?.begunAt !== undefined) previous.set(sessionId, previousSessionId)
    }
    return previous
  }
}

/** The first ID of a session. What somebody has logged may name IDs in a circle. */
function rootOf(id: string, previous: ReadonlyMap<string, string>): string {
  let root = id
  const passed = new Set<string>()
  for (let next = previous.get(root); next !== undefined && !passed.has(next); next = previous.get(root)) {
    passed.add(root)
    root = next
  }
  return root
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

type Summary = Omit<PeriodTotals, 'since' | 'until' | 'uniqueUsers' | 'activities' | keyof ActivityFigures>

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
