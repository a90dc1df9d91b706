// Which session the cookies of a request open: the records behind their claims, whether a token is the right one, and what is
// told when none is.
import type { CookieClaim } from '../cookie/cookie.js'
import type { SessionEvents } from '../events/events.js'
import { openToken, sameHash } from '../ids.js'
import { applyChange, type SessionChange } from '../record/changes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { nameOf } from './endings.js'
import type { Epoch } from './epoch.js'
import type { GuardedStore } from './guarded-store.js'
import type { Times } from './times.js'

/** A session that a cookie gave the right to. */
export interface FoundSession {
  readonly record: SessionData
  readonly claim: CookieClaim
  /** `false` when the cookie holds the token before the last renewal. */
  readonly isCurrentToken: boolean
  /** The present token, when the cookie holds the one before it and the client has not shown yet that it has this one. */
  readonly nextToken?: string | undefined
}

/** What the claims of a request led to: a live session, or at least the end of one. */
export type Finding = FoundSession | { readonly ended: EndedSession } | null

/** What finding a session stands on. */
export interface FindingParts {
  readonly store: GuardedStore
  readonly epoch: Epoch
  readonly events: SessionEvents
  readonly times: Times
  endOf(record: SessionData): SessionEnd | null
}

/**
 * The live session that these claims open, or else what is known of one that is over. Each failing one is told as an event,
 * with the client's address. Of claims to two live sessions the first counts with `believesFirst`, and none without: one of
 * them may have been planted. Two tokens of one session, around a renewal, are no such conflict.
 */
export async function findSession(
  parts: FindingParts,
  claims: readonly CookieClaim[],
  { ip, believesFirst }: { ip: () => string | undefined; believesFirst: boolean },
): Promise<Finding> {
  const { store, epoch, events, times, endOf } = parts
  let found: FoundSession | null = null
  let ended: EndedSession | null = null
  const refreshing = epoch.refresh()
  for (const claim of claims) {
    let record = await store.get(claim.id)
    if (refreshing !== null) await refreshing
    if (record === 'corrupt') continue
    if (record === null) {
      events.emit('unknownSession', { id: claim.id, ip: ip() })
      continue
    }
    const now = times.now()
    const match = matchToken(record, claim.tokenHash, now)
    if (match === null) {
      events.emit('tokenMismatch', { id: claim.id, userId: record.userId, ip: ip() })
      continue
    }
    const end = endOf(record)
    if (end === null) {
      if (found !== null && found.record.id !== record.id) {
        events.emit('cookieConflict', { ids: [found.record.id, record.id], ip: ip() })
        return null
      }
      if (times.isAhead(record, now)) record = await settleClock(parts, record)
      if (found === null || match === 'current') found = foundSession(record, claim, match)
      if (believesFirst) break
      continue
    }
    if (end.reason === 'idle' || end.reason === 'absolute') {
      events.emit('expired', { ...nameOf(record), reason: end.reason })
    } else events.emit('usedAfterEnd', { ...nameOf(record), end, ip: ip() })
    ended ??= { ...nameOf(record), end }
  }
  if (found === null) return ended && { ended }
  if (events.isHeard('loaded')) events.emit('loaded', nameOf(found.record))
  return found
}

/**
 * A live record from the future is told, and brought back to our time in the store. Where that fails it is so for this reader
 * at least, and the next one tries again.
 */
export async function settleClock(
  { store, events, times }: Pick<FindingParts, 'store' | 'events' | 'times'>,
  record: SessionData,
): Promise<SessionData> {
  const { id, generation, tokenHash, createdAt, lastAccessedAt } = record
  const change: SessionChange = { generation, expect: { tokenHash }, madeOn: record, ...times.settlement(record) }
  const aheadMs = Math.max(createdAt, lastAccessedAt) - change.at
  events.emit('clockSkew', { ...nameOf(record), aheadMs })
  // A failure has been told as an event. One that has ended meanwhile is found to be so by whoever writes to it.
  await store.update(id, change, times.ttlSeconds(change, change.at)).catch(() => {})
  return applyChange(record, change).record ?? record
}

function foundSession(record: SessionData, claim: CookieClaim, match: 'current' | 'previous'): FoundSession {
  if (match === 'current') return { record, claim, isCurrentToken: true }
  const sealed = record.previousToken?.sealed
  const nextToken = sealed === undefined ? undefined : openToken(sealed, claim.token, record.tokenHash)
  return { record, claim, isCurrentToken: false, nextToken }
}

/** Compares in constant time; the previous token counts until the client has the present one, and during its grace. */
function matchToken(record: SessionData, tokenHash: string, now: number): 'current' | 'previous' | null {
  if (sameHash(record.tokenHash, tokenHash)) return 'current'
  const previous = record.previousToken
  if (previous && now < previous.until && sameHash(previous.hash, tokenHash)) return 'previous'
  return null
}
