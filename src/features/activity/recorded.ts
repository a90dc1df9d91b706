// What recording gives back: the activity as it is kept, which can be awaited; and how it gets from `record()`, which returns
// nothing of it, to `logActivity()`.

import type { Activity } from '../../events/activity-hook.js'

/**
 * An activity that was recorded. Awaiting it waits until there is room in the queues (with `onFull: 'wait'`; else it does
 * not wait), resolves to the activity, and never rejects.
 */
export type RecordedActivity = Activity & PromiseLike<Activity>

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

/** Leaves the note. */
export function noteRecorded(note: RecordNote): void {
  shared[LAST] = note
}

/** The note of an activity that has just been recorded; `undefined` when no log has taken it. */
export function takeNote(given: Activity): RecordNote | undefined {
  const note = shared[LAST]
  shared[LAST] = undefined
  return note?.given === given ? note : undefined
}
