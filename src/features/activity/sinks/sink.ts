// The contract of a sink: where activities go, and of an archive: a sink that can be read.
import type { Activity } from '../../../events/activity-hook.js'

/** Where activities are written. The log hands over batches, one at a time, and waits for each. */
export interface ActivitySink {
  /** Names the sink in errors and counters. */
  readonly name: string
  /**
   * Whether it wants activities at the end of each turn of the event loop, rather than a batch or `flushInterval` later:
   * for what costs no more in small pieces.
   * @default false
   */
  readonly isImmediate?: boolean
  /**
   * Keeps activities. A batch that it rejects is written again as a whole, so what it kept of it must be recognised by
   * `activity.id`, or come twice.
   */
  write(activities: readonly Activity[]): Promise<void> | void
  /** Gives back what the sink opened itself. Called once, after the last `write()`. */
  close?(): Promise<void> | void
}

/** Which activities are meant; all conditions hold together. Unknown IDs match nothing. */
export interface ActivityQuery {
  readonly logicalId?: string | undefined
  readonly sessionId?: string | undefined
  readonly userId?: string | number | undefined
  /** One type, or any of several. */
  readonly type?: string | readonly string[] | undefined
  /** At this time or later. */
  readonly since?: Date | undefined
  /** Before this time. */
  readonly until?: Date | undefined
}

/** A query for one page. */
export interface ActivityPageQuery extends ActivityQuery {
  /**
   * How many activities at most, 1 to 1,000.
   * @default 100
   */
  readonly limit?: number | undefined
  /** Where the page before ended: its `next`. */
  readonly after?: string | undefined
  /**
   * By time, and by ID within one millisecond.
   * @default 'oldest-first'
   */
  readonly order?: 'oldest-first' | 'newest-first' | undefined
}

/** A page of activities. */
export interface ActivityPage {
  readonly activities: readonly Activity[]
  /** For `after` of the next page; `undefined` on the last one. */
  readonly next: string | undefined
}

/** What is asked of `ActivityArchive.sums()`. Times are milliseconds since the epoch. */
export interface SumsQuery {
  readonly since: number
  readonly until: number
  /** No sums are of two stretches of this length, the first of which begins at the epoch; `undefined`: one of any length. */
  readonly everyMs: number | undefined
}

/** Sums of some activities of one stretch. There may be several of a stretch, which then belong together. */
export interface ActivitySums {
  /** Any time in the stretch. */
  readonly at: number
  readonly sessions: readonly SessionSums[]
  /** How many there are of each type. */
  readonly counts: ReadonlyMap<string, number>
  readonly turns: readonly SessionTurn[]
}

/**
 * What one user did in one session, or outside of any; what nobody did in none may be left out. Times are milliseconds since the
 * epoch.
 */
export interface SessionSums {
  /** The ID; or another text, always the same and nobody else's, where the archive keeps that. */
  readonly sessionId: string | undefined
  readonly userId: string | number | undefined
  /** The first sign of life, which what only tells of an end is not; `undefined` when there is none. */
  readonly begunAt: number | undefined
  /** The last activity, but for what is told later; `undefined` when there is none. */
  readonly lastAt: number | undefined
  /** Whether its beginning is among them. */
  readonly isStarted: boolean
  /** The first end; `undefined` when there is none. */
  readonly endedAt: number | undefined
}

/** An activity that tells of other sessions: that this one goes on for another, or which had to make room. IDs as in `SessionSums`. */
export interface SessionTurn {
  readonly at: number
  readonly sessionId: string | undefined
  readonly previousSessionId: string | undefined
  readonly ended: readonly string[]
}

/** A sink that can be read: what timelines, reports and totals stand on. */
export interface ActivityArchive extends ActivitySink {
  /** One page. The cost of a page by `logicalId` or `sessionId` does not grow with the archive. */
  page(query: ActivityPageQuery): Promise<ActivityPage>
  /** How many activities there are of each type. */
  countByType(query: ActivityQuery): Promise<Readonly<Record<string, number>>>
  /** Removes activities that happened before a time. Resolves to their number. */
  prune(before: Date): Promise<number>
  /**
   * Sums of what happened from `since` on and before `until`, made where the activities are: what makes `log.totals()` fast. Without
   * it all activities of the window are read.
   */
  sums?(query: SumsQuery): AsyncIterable<ActivitySums>
}

/** Whether a sink can be read. */
export function isArchive(sink: ActivitySink): sink is ActivityArchive {
  const { page, countByType, prune } = sink as Partial<ActivityArchive>
  return [page, countByType, prune].every((method) => typeof method === 'function')
}
