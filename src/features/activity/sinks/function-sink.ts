// Any function as a sink.

import { SessionError } from '../../../errors.js'
import type { Activity } from '../../../events/activity-hook.js'
import type { ActivitySink } from './sink.js'

/**
 * A sink that calls a function with each activity, one after the other, and waits for what it returns. When the function
 * fails, it is called again with the same activity, as `maxRetries` says, and not with those before it.
 *
 * ```ts
 * new ActivityLog({ sinks: [functionSink((activity) => queue.publish(activity), { name: 'queue' })] })
 * ```
 * @param options `name`: names the sink in errors and counters; default `'function'`
 * @throws {SessionError} `INVALID_OPTION`
 */
export function functionSink(
  call: (activity: Activity) => unknown,
  { name = 'function' }: { name?: string } = {},
): ActivitySink {
  if (typeof call !== 'function') throw new SessionError('INVALID_OPTION', 'functionSink() needs a function.')
  if (typeof name !== 'string' || name === '') throw new SessionError('INVALID_OPTION', 'name is not text.')
  /** How many of a batch have been taken. */
  const progress = new WeakMap<readonly Activity[], number>()
  return {
    name,
    isImmediate: true,
    async write(activities) {
      for (let index = progress.get(activities) ?? 0; index < activities.length; index++) {
        await call(activities[index] as Activity)
        progress.set(activities, index + 1)
      }
    },
  }
}
