// Which session the cookies of a request open: the records behind their claims, whether a token is the right one, and what is
// told when none is.
import type { CookieClaim } from '../cookie/cookie.js'
import type { SessionEvents } from '../events/events.js'
import { openToken, sameHash } from '../ids.js'
import { applyChange, type SessionChange } from '../record/changes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import type { EndedSession } from '../record/session-info.js'
import { after, type Soon } from '../soon.js'
import { nameOf } from './endings.js'
import type { Epoch } from './epoch.js'
import type { GuardedStore } from './guarded-store.js'
import type { Times } from './times.js'

/** A session that a cookie gave the right to. */
export interface FoundSession {
  readonly record: SessionData
  readonly claim: CookieClaim
  /** Whether the record may be a copy, and another one be stored by now. */
  readonly isCopy: boolean
  /** `false` when the cookie holds the token before the last renewal. */
  readonly isCurrentToken: boolean
  /** The present token, when the cookie holds the one before it and the client has not shown yet that it has this one. */
  readonly nextToken?: string | undefined
}

/** What the claims of a request led to: a live session, or at least the end of one. */
export type Finding = FoundSession | { readonly ended: EndedSession } | null

/** Who comes with claims. */
export interface Claimant {
  /** The client's address, when that is recorded; asked for only where something is told of the client. */
  ip(): string | undefined
  /** Whether the first of two live sessions counts. */
  readonly believesFirst: boolean
  /** Whether no copy will do. */
  readonly isFresh?: boolean | undefined
}

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
export function findSession(parts: FindingParts, claims: readonly CookieClaim[], claimant: Claimant): Soon<Finding> {
  return new Search(parts, claims, claimant).goOn(0)
}

/** The way through the claims of one request, which waits only where the store has it wait. */
class Search {
  readonly #parts: FindingParts
  readonly #claims: readonly CookieClaim[]
  readonly #claimant: Claimant
  readonly #refreshing: Promise<void> | null
  #found: FoundSession | null = null
  #ended: EndedSession | null = null

  constructor(parts: FindingParts, claims: readonly CookieClaim[], claimant: Claimant) {
    this.#parts = parts
    this.#claims = claims
    this.#claimant = claimant
    this.#refreshing = parts.epoch.refresh()
  }

  /** Looks at the claims from this one on. */
  goOn(at: number): Soon<Finding> {
    const claim = this.#claims[at]
    if (claim === undefined) return this.#outcome()
    const { store } = this.#parts
    const { isFresh } = this.#claimant
    const answer = store.get(claim.id, isFresh)
    const isCopy = !isFresh && store.isCopy(answer)
    return after(this.#withEpoch(answer), (record) =>
      after(this.#judge(claim, record, isCopy), (isLast) => (isLast ? this.#outcome() : this.goOn(at + 1))),
    )
  }

  #withEpoch(record: ReturnType<GuardedStore['get']>): ReturnType<GuardedStore['get']> {
    const refreshing = this.#refreshing
    if (refreshing === null) return record
    return Promise.resolve(record).then((loaded) => refreshing.then(() => loaded))
  }

  /** Takes in what a claim leads to. Says whether the rest need not be looked at. */
  #judge(claim: CookieClaim, record: SessionData | 'corrupt' | null, isCopy: boolean): Soon<boolean> {
    const { events, store, times, endOf } = this.#parts
    if (record === 'corrupt') return false
    if (record === null) {
      events.emit('unknownSession', { id: claim.id, ip: this.#claimant.ip() })
      return false
    }
    const now = times.now()
    const match = matchToken(record, claim.tokenHash, now)
    // Nobody is refused, or given another token, by what may have changed.
    if (isCopy && (match !== 'current' || endOf(record) !== null)) {
      return after(store.get(claim.id, true), (fresh) => this.#judge(claim, fresh, false))
    }
    if (match === null) {
      events.emit('tokenMismatch', { id: claim.id, userId: record.userId, ip: this.#claimant.ip() })
      return false
    }
    const end = endOf(record)
    if (end !== null) {
      this.#takeEnd(record, end)
      return false
    }
    if (this.#found !== null && this.#found.record.id !== record.id) {
      events.emit('cookieConflict', { ids: [this.#found.record.id, record.id], ip: this.#claimant.ip() })
      this.#found = null
      this.#ended = null
      return true
    }
    if (!times.isAhead(record, now)) return this.#take(claim, { record, match, isCopy })
    return settleClock(this.#parts, record).then((settled) => this.#take(claim, { record: settled, match, isCopy }))
  }

  #take(claim: CookieClaim, loaded: Loaded): boolean {
    if (this.#found === null || loaded.match === 'current') this.#found = foundSession(claim, loaded)
    return this.#claimant.believesFirst
  }

  #takeEnd(record: SessionData, end: SessionEnd): void {
    const { events } = this.#parts
    if (end.reason === 'idle' || end.reason === 'absolute') {
      events.emit('expired', { ...nameOf(record), reason: end.reason })
    } else events.emit('usedAfterEnd', { ...nameOf(record), end, ip: this.#claimant.ip() })
    this.#ended ??= { ...nameOf(record), end }
  }

  #outcome(): Finding {
    const { events } = this.#parts
    if (this.#found === null) return this.#ended && { ended: this.#ended }
    if (events.isHeard('loaded')) events.emit('loaded', nameOf(this.#found.record))
    return this.#found
  }
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
  try {
    await store.update(id, change, times.ttlSeconds(change, change.at))
  } catch {}
  return applyChange(record, change).record ?? record
}

/** A record behind a claim, and which of its tokens the claim has. */
interface Loaded {
  readonly record: SessionData
  readonly match: 'current' | 'previous'
  readonly isCopy: boolean
}

function foundSession(claim: CookieClaim, { record, match, isCopy }: Loaded): FoundSession {
  if (match === 'current') return { record, claim, isCopy, isCurrentToken: true }
  const sealed = record.previousToken?.sealed
  const nextToken = sealed === undefined ? undefined : openToken(sealed, claim.token, record.tokenHash)
  return { record, claim, isCopy, isCurrentToken: false, nextToken }
}

/** Compares in constant time; the previous token counts until the client has the present one, and during its grace. */
function matchToken(record: SessionData, tokenHash: string, now: number): 'current' | 'previous' | null {
  if (sameHash(record.tokenHash, tokenHash)) return 'current'
  const previous = record.previousToken
  if (previous && now < previous.until && sameHash(previous.hash, tokenHash)) return 'previous'
  return null
}
