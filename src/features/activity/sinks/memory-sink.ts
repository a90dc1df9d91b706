// The memory sink: activities of this process, for development, tests and small programs.

import { SessionError } from '../../../errors.js'
import type { Activity } from '../../../events/activity-hook.js'
import { compare, countsOf, cursorOf, matches, type Position, pageSelectionOf, selectionOf, timeOf } from '../query.js'
import type { ActivityArchive, ActivityPage, ActivityPageQuery, ActivityQuery } from './sink.js'

/** What `memorySink()` takes. */
export interface MemorySinkOptions {
  /**
   * How many activities are kept; the oldest make room.
   * @default 50_000
   */
  readonly maxActivities?: number | undefined
}

/** An archive in the memory of this process. */
export interface MemorySink extends ActivityArchive {
  /** How many activities it holds. */
  readonly size: number
  /** Forgets all of them. */
  clear(): void
}

const DEFAULT_MAX = 50_000

/**
 * An archive in the memory of this process, gone when it ends. It is bounded by number: an activity takes about 0.5 KB and
 * its details (`maxDetailsBytes`).
 * @throws {SessionError} `INVALID_OPTION`
 */
export function memorySink({ maxActivities = DEFAULT_MAX }: MemorySinkOptions = {}): MemorySink {
  if (!Number.isSafeInteger(maxActivities) || maxActivities < 1) {
    throw new SessionError('INVALID_OPTION', 'memorySink: maxActivities must be a whole number of at least 1.')
  }
  const all = new Timeline()
  const byLogicalId = new Map<string, Timeline>()
  const bySessionId = new Map<string, Timeline>()

  return {
    name: 'memory',
    isImmediate: true,

    get size() {
      return all.length
    },

    write(activities) {
      for (const activity of activities) {
        timeOf(activity.at, 'at')
        if (!all.insert(activity)) continue
        insertUnder(byLogicalId, activity.logicalId, activity)
        insertUnder(bySessionId, activity.sessionId, activity)
        if (all.length > maxActivities) removeOldest()
      }
    },

    async page(query: ActivityPageQuery): Promise<ActivityPage> {
      const { limit, after, isNewestFirst, ...selection } = pageSelectionOf(query)
      const found: Activity[] = []
      for (const activity of activitiesOf(selection, { after, isNewestFirst })) {
        if (!matches(selection, activity)) continue
        if (found.length === limit) return { activities: found, next: cursorOf(placeOf(found[limit - 1] as Activity)) }
        found.push(activity)
      }
      return { activities: found, next: undefined }
    },

    async countByType(query: ActivityQuery) {
      const selection = selectionOf(query)
      const counts = new Map<string, number>()
      for (const activity of activitiesOf(selection, { after: undefined, isNewestFirst: false })) {
        if (matches(selection, activity)) counts.set(activity.type, (counts.get(activity.type) ?? 0) + 1)
      }
      return countsOf(counts)
    },

    async prune(before: Date) {
      const end = timeOf(before, 'before')
      let count = 0
      while (all.length > 0 && (all.at(0) as Activity).at.getTime() < end) {
        removeOldest()
        count++
      }
      return count
    },

    clear() {
      all.clear()
      byLogicalId.clear()
      bySessionId.clear()
    },
  }

  /** The oldest of all is also the oldest of its timelines. */
  function removeOldest(): void {
    const oldest = all.shift() as Activity
    for (const [index, key] of [
      [byLogicalId, oldest.logicalId],
      [bySessionId, oldest.sessionId],
    ] as const) {
      const timeline = key === undefined ? undefined : index.get(key)
      timeline?.shift()
      if (timeline?.length === 0) index.delete(key as string)
    }
  }

  /** The shortest timeline that holds what is asked for, from the first place in question to the last. */
  function* activitiesOf(
    { logicalId, sessionId, since, until }: ReturnType<typeof selectionOf>,
    { after, isNewestFirst }: { after: Position | undefined; isNewestFirst: boolean },
  ): Generator<Activity> {
    const candidates = [all]
    if (logicalId !== undefined) candidates.push(byLogicalId.get(logicalId) ?? NOTHING)
    if (sessionId !== undefined) candidates.push(bySessionId.get(sessionId) ?? NOTHING)
    const timeline = candidates.reduce((shortest, each) => (each.length < shortest.length ? each : shortest))

    let first = timeline.countBefore({ at: since, id: '' })
    let end = timeline.countBefore({ at: until, id: '' })
    if (after !== undefined && isNewestFirst) end = Math.min(end, timeline.countBefore(after))
    else if (after !== undefined) first = Math.max(first, timeline.countUpTo(after))
    if (isNewestFirst) for (let index = end - 1; index >= first; index--) yield timeline.at(index) as Activity
    else for (let index = first; index < end; index++) yield timeline.at(index) as Activity
  }
}

function insertUnder(index: Map<string, Timeline>, key: string | undefined, activity: Activity): void {
  if (key === undefined) return
  let timeline = index.get(key)
  if (timeline === undefined) {
    timeline = new Timeline()
    index.set(key, timeline)
  }
  timeline.insert(activity)
}

function placeOf({ at, id }: Activity): Position {
  return { at: at.getTime(), id }
}

/** What is removed at the front is cut off when it is so many, and half of the list. */
const SLACK = 1_000

/** Activities in order. Adding at the end and removing at the front cost the same however long it is. */
class Timeline {
  #items: (Activity | undefined)[] = []
  #start = 0

  get length(): number {
    return this.#items.length - this.#start
  }

  at(index: number): Activity | undefined {
    return this.#items[this.#start + index]
  }

  /** Puts an activity in its place. `false`: it is there already. */
  insert(activity: Activity): boolean {
    const place = placeOf(activity)
    const last = this.#items.at(-1)
    if (this.length === 0 || last === undefined || compare(placeOf(last), place) < 0) {
      this.#items.push(activity)
      return true
    }
    const index = this.countBefore(place)
    if (this.at(index)?.id === activity.id && this.at(index)?.at.getTime() === place.at) return false
    this.#items.splice(this.#start + index, 0, activity)
    return true
  }

  shift(): Activity | undefined {
    if (this.length === 0) return undefined
    const first = this.#items[this.#start]
    this.#items[this.#start++] = undefined
    if (this.#start >= SLACK && this.#start * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#start)
      this.#start = 0
    }
    return first
  }

  clear(): void {
    this.#items = []
    this.#start = 0
  }

  /** How many activities come before a place. */
  countBefore(place: Position): number {
    return this.#count((activity) => compare(placeOf(activity), place) < 0)
  }

  /** How many come before a place or are at it. */
  countUpTo(place: Position): number {
    return this.#count((activity) => compare(placeOf(activity), place) <= 0)
  }

  /** By halving: `isBefore` holds for the first so many. */
  #count(isBefore: (activity: Activity) => boolean): number {
    let [low, high] = [0, this.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (isBefore(this.at(middle) as Activity)) low = middle + 1
      else high = middle
    }
    return low
  }
}

const NOTHING = new Timeline()
