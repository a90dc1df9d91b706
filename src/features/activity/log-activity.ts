// `logActivity()`: says from anywhere in a request that something happened.

import { getSession } from '../../request/current-session.js'
import { inside } from '../../session/inside.js'
import { warn } from '../../warn.js'
import { type RecordedActivity, recorded, takeNote } from './recorded.js'

let hasWarned = false

/**
 * Records that something happened under the session of the current request, or of `req`, for callbacks that lost it. The
 * activity carries the session's ID, its logical ID, which is made for it if need be, its user and the request.
 *
 * Returns the activity as it is kept, with secrets blanked; `undefined` when `session({ activity })` is not set. It can be
 * awaited: with `onFull: 'wait'` that slows down who logs faster than a sink can write. Outside of a request, or with
 * `context: false` and no `req`, nothing is recorded, and the first time is a process warning: use `log.log()` there.
 *
 * ```ts
 * logActivity('order.placed', { orderId: order.id, total: order.total })
 * ```
 * @param type text of 1 to 200 characters; names that begin with `session.` are the library's
 * @throws {SessionError} `INVALID_ARGUMENT` when the type is something else, or the details are no object.
 */
export function logActivity(
  type: string,
  details?: Record<string, unknown>,
  req?: object,
): RecordedActivity | undefined {
  const session = getSession(req)
  if (session === undefined) {
    warnOnce()
    return undefined
  }
  const given = inside(session).recordActivity(type, details)
  if (given === undefined) return undefined
  const note = takeNote(given)
  return recorded(note?.kept ?? given, note?.room ?? null)
}

function warnOnce(): void {
  if (hasWarned) return
  hasWarned = true
  warn(
    'logActivity() was called outside of a request, or in one without a session: nothing was recorded. ' +
      'Hand it the request, bind the callback with bindSession(), or use log.log() in jobs. The next time is silent.',
    'activity',
  )
}
