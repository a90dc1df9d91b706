// Which sessions a list is of.
import { SessionError } from '../errors.js'
import type { SessionInfo } from '../record/session-info.js'

/** Which sessions to go through; all conditions hold together. */
export interface SessionFilter {
  /** Only sessions of this user. While only live ones are wanted, the index of users finds them. */
  userId?: string | number
  /**
   * `'live'`; `'ended'`, as long as they are remembered (`endedRetention`); or `'all'`.
   * @default 'live'
   */
  status?: 'live' | 'ended' | 'all' | undefined
  /** Created or logged in at this time or later. */
  createdSince?: Date | undefined
  /** Created or logged in before this time. */
  createdBefore?: Date | undefined
  /** Last active at this time or later. */
  activeSince?: Date | undefined
  /** Last active before this time. */
  activeBefore?: Date | undefined
}

/**
 * Whether a session is one that the filter asks for.
 *
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export function matcherOf(filter: SessionFilter): (info: SessionInfo) => boolean {
  const { userId, status = 'live', createdSince, createdBefore, activeSince, activeBefore, ...others } = filter
  // A condition that is passed over would let all sessions through, to whatever is done with them.
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw new SessionError('INVALID_ARGUMENT', `There is no filter "${unknown}".`)
  if (!['live', 'ended', 'all'].includes(status)) {
    throw new SessionError('INVALID_ARGUMENT', `status is ${String(status)}; use 'live', 'ended' or 'all'.`)
  }
  for (const [name, time] of Object.entries({ createdSince, createdBefore, activeSince, activeBefore })) {
    if (time === undefined || (time instanceof Date && !Number.isNaN(time.getTime()))) continue
    throw new SessionError('INVALID_ARGUMENT', `${name} is not a valid Date.`)
  }
  return ({ end, userId: owner, createdAt, lastAccessedAt }) =>
    (userId === undefined || owner === userId) &&
    (status === 'all' || (status === 'live') === (end === undefined)) &&
    (createdSince === undefined || createdAt >= createdSince) &&
    (createdBefore === undefined || createdAt < createdBefore) &&
    (activeSince === undefined || lastAccessedAt >= activeSince) &&
    (activeBefore === undefined || lastAccessedAt < activeBefore)
}
