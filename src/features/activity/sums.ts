// Sums of activities: what totals stand on. An archive that can count makes them where the activities are; of any other one
// all activities are read.

import { setImmediate as turn } from 'node:timers/promises'
import type { Activity } from '../../events/activity-hook.js'
import { pagesOf } from './pages.js'
import type { ActivityArchive, ActivitySums, SessionSums, SessionTurn, SumsQuery } from './sinks/sink.js'

/** Told later than what they tell of. */
export const TOLD_LATE: readonly string[] = ['session.timed-out', 'session.used-after-end', 'session.forgotten']
/** What a session ends with. */
export const ENDINGS: readonly string[] = [
  'session.logout',
  'session.destroyed',
  'session.revoked',
  'session.timed-out',
  'session.forgotten',
]
/** What a session goes on with under another ID: `details.previousSessionId` says from which. */
const CONTINUATIONS: readonly string[] = ['session.login', 'session.reauthenticated', 'session.regenerated']
/** What tells of other sessions than its own. */
export const TURNS: readonly string[] = [...CONTINUATIONS, 'session.limit']
/** Neither is a sign of life. */
export const NO_LIFE: readonly string[] = [...new Set([...TOLD_LATE, ...ENDINGS])]

/** Sums of what a query means: the archive's own, or else made of its pages. */
export async function* sumsOf(
  archive: ActivityArchive,
  query: SumsQuery,
): AsyncGenerator<ActivitySums, void, undefined> {
  if (archive.sums !== undefined) yield* archive.sums(query)
  else yield* sumsOfPages(archive, query)
}

/** Reads all activities, and holds a page of them at a time. */
export async function* sumsOfPages(
  archive: ActivityArchive,
  { since, until, everyMs }: SumsQuery,
): AsyncGenerator<ActivitySums, void, undefined> {
  const stretchOf = ({ at }: Activity): number => (everyMs === undefined ? 0 : Math.floor(at.getTime() / everyMs))
  for await (const page of pagesOf(archive, { since: new Date(since), until: new Date(until) })) {
    let start = 0
    while (start < page.length) {
      let end = start + 1
      const stretch = stretchOf(page[start] as Activity)
      while (end < page.length && stretchOf(page[end] as Activity) === stretch) end++
      yield summedUp(page.slice(start, end))
      start = end
    }
    // One in memory answers without a pause; requests get their turn here.
    await turn()
  }
}

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] }

/** What a type of activity says of its session. */
interface Kind {
  readonly isLife: boolean
  readonly isLate: boolean
  readonly isEnd: boolean
  readonly isStart: boolean
}

const OF_THE_APPLICATION = kindOf('')
const KINDS: ReadonlyMap<string, Kind> = new Map([...NO_LIFE, 'session.started'].map((type) => [type, kindOf(type)]))

function kindOf(type: string): Kind {
  return {
    isLife: !NO_LIFE.includes(type),
    isLate: TOLD_LATE.includes(type),
    isEnd: ENDINGS.includes(type),
    isStart: type === 'session.started',
  }
}

/** Activities of one type, of one user in one session: from the first to the last. */
export interface Alike {
  readonly type: string
  readonly sessionId: string | undefined
  readonly userId: string | number | undefined
  readonly firstAt: number
  readonly lastAt: number
  readonly count: number
}

/** Makes sums of one stretch. */
export class Summing {
  readonly sessions: Mutable<SessionSums>[] = []
  readonly counts = new Map<string, number>()
  readonly #bySession = new Map<string | undefined, Map<string | number | undefined, Mutable<SessionSums>>>()

  add({ type, sessionId, userId, firstAt, lastAt, count }: Alike): void {
    const kind = KINDS.get(type) ?? OF_THE_APPLICATION
    this.counts.set(type, (this.counts.get(type) ?? 0) + count)
    const sums = this.#sumsOf(sessionId, userId)
    if (kind.isLife) sums.begunAt = earlier(sums.begunAt, firstAt)
    if (!kind.isLate) sums.lastAt = later(sums.lastAt, lastAt)
    if (kind.isEnd) sums.endedAt = earlier(sums.endedAt, firstAt)
    if (kind.isStart) sums.isStarted = true
  }

  #sumsOf(sessionId: string | undefined, userId: string | number | undefined): Mutable<SessionSums> {
    let byUser = this.#bySession.get(sessionId)
    if (byUser === undefined) {
      byUser = new Map()
      this.#bySession.set(sessionId, byUser)
    }
    let sums = byUser.get(userId)
    if (sums === undefined) {
      sums = { sessionId, userId, begunAt: undefined, lastAt: undefined, isStarted: false, endedAt: undefined }
      byUser.set(userId, sums)
      this.sessions.push(sums)
    }
    return sums
  }
}

/** Sums of activities of one stretch, at least one. */
function summedUp(activities: readonly Activity[]): ActivitySums {
  const summing = new Summing()
  for (const { at: date, type, sessionId, userId } of activities) {
    const at = date.getTime()
    summing.add({ type, sessionId, userId, firstAt: at, lastAt: at, count: 1 })
  }
  const { sessions, counts } = summing
  const turns = activities.filter(({ type }) => TURNS.includes(type)).map(turnOf)
  return { at: (activities[0] as Activity).at.getTime(), sessions, counts, turns }
}

export function earlier(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.min(a, b)
}

export function later(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.max(a, b)
}

/** What an activity of one of the `TURNS` tells of other sessions. */
export function turnOf({ at, type, sessionId, details }: Activity): SessionTurn {
  const { previousSessionId, ended } = details ?? {}
  const goesOn = CONTINUATIONS.includes(type) && typeof previousSessionId === 'string'
  return {
    at: at.getTime(),
    sessionId,
    previousSessionId: goesOn ? previousSessionId : undefined,
    ended: type === 'session.limit' && Array.isArray(ended) ? ended.map(String) : [],
  }
}
