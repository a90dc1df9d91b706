// What a change of a session makes of its row.
import { applyChange, type SessionChange, type UpdateResult } from '../../record/changes.js'
import type { SessionData } from '../../record/session-data.js'
import { secondsLeft } from '../../record/store.js'
import type { Decide } from './row-changes.js'
import { StoredRow } from './rows.js'

/** For how many milliseconds a row is kept. */
export type Retention = number

const UPDATED: UpdateResult = { status: 'updated' }

export function decisionOf(change: SessionChange, ttlSeconds: number): Decide<SessionData, Retention, UpdateResult> {
  return (before) => {
    const { result, record } = applyChange(before, change)
    if (result.status !== 'updated' || record === null) return { result: () => result }
    const isAsRead = before === change.madeOn
    return {
      result: (stored) => (isAsRead && stored ? { status: 'updated', record: stored } : UPDATED),
      next: record,
      how: 1000 * Math.max(ttlSeconds, secondsLeft(record, change.at)),
      isExact: isExact(change),
    }
  }
}

/** The record that a change was made on, where its row need not be read again. */
export function knownFor(change: SessionChange): SessionData | undefined {
  return StoredRow.of(change.madeOn) === null || isExact(change) ? undefined : change.madeOn
}

/** These may move an end back, over what a touch has written meanwhile. */
function isExact({ metadata, settlesClock }: SessionChange): boolean {
  return settlesClock || (metadata !== undefined && ('idleTimeoutMs' in metadata || 'absoluteExpiresAt' in metadata))
}
