// What features do with a session that applications do not.
import { type Activity, checkActivity, recordActivity } from '../events/activity-hook.js'
import { askLogicalId, showLogicalId } from './logical-id.js'
import type { SessionState } from './state.js'

/** Tells the activity hook. Without `keepsLogicalId`, nothing is stored for it. */
export function recordActivityOf(
  state: SessionState,
  type: string,
  details: Record<string, unknown> | undefined,
  { keepsLogicalId } = { keepsLogicalId: true },
): Activity | undefined {
  checkActivity(type, details)
  const { lifecycle, host, record } = state
  if (lifecycle.options.activity === undefined) return undefined
  return recordActivity(lifecycle, {
    type,
    sessionId: state.id,
    logicalId: keepsLogicalId ? askLogicalId(state) : showLogicalId(state),
    userId: record?.userId,
    details,
    request: host.activityRequest(),
  })
}
