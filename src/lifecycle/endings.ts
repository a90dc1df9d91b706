// How one session ends for good, with what it became through regenerations. Knows no users: whoever ends a session takes it
// off their lists.
import type { SessionEvents } from '../events/events.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import { applyEnd, type EndResult } from '../record/changes.js'
import type { EndReason, SessionData, SessionEnd } from '../record/session-data.js'
import type { GuardedStore } from './guarded-store.js'
import type { Expiry, Times } from './times.js'

/** How a session is ended; the time is that of the call. */
export type Ending = Omit<SessionEnd, 'at' | 'reason'> & { readonly reason: Exclude<EndReason, 'regenerated'> }

/** What one ending came to. */
export interface Ended {
  /** Whether this call ended anything. */
  readonly hasEnded: boolean
  /** The session and its successors: none of them is alive any more. */
  readonly ids: readonly string[]
}

/** Sessions that one end leads to through regenerations, until it gives up. */
export const MAX_SUCCESSORS = 20

/** Ends sessions in the store, and tells so. */
export class Endings {
  readonly #store: GuardedStore
  readonly #times: Times
  readonly #events: SessionEvents
  readonly #retentionSeconds: number
  /** Whether what somebody ends waits with its fields for a clean-up to archive it. */
  readonly #archives: boolean

  constructor(parts: {
    store: GuardedStore
    times: Times
    events: SessionEvents
    options: Pick<ResolvedSessionOptions, 'retentionSeconds' | 'archiveEnded'>
  }) {
    this.#store = parts.store
    this.#times = parts.times
    this.#events = parts.events
    this.#retentionSeconds = parts.options.retentionSeconds
    this.#archives = parts.options.archiveEnded
  }

  /** Ends a session, and what it became if it was regenerated in the meantime. One that is over already is no error. */
  async end(session: Pick<SessionData, 'id' | 'userId'>, ending: Ending): Promise<Ended> {
    const at = this.#times.now()
    const end: SessionEnd = this.#archives ? { ...ending, at, unarchived: true } : { ...ending, at }
    const ids: string[] = []
    let next: string | undefined = session.id
    let hasEnded = false
    while (next !== undefined && ids.length < MAX_SUCCESSORS) {
      const id: string = next
      // What a session became may be another user's.
      const userId = ids.length === 0 ? session.userId : await this.#userOf(id)
      ids.push(id)
      const result = await this.#endOne({ id, userId }, end)
      hasEnded ||= result.status === 'ended'
      next = result.status === 'over' ? result.successor : undefined
    }
    return { hasEnded, ids }
  }

  /** Ends a session that ran out, but not what it became in its last moment. Resolves to whether this call ended it. */
  async expire(record: SessionData, end: Expiry): Promise<boolean> {
    const { status } = await this.#endOne(record, end)
    if (status === 'ended') this.#events.emit('expired', { ...nameOf(record), reason: end.reason })
    return status === 'ended'
  }

  /** Leaves a bare tombstone of what has been archived. */
  archived(record: SessionData, end: SessionEnd): Promise<void> {
    return this.#store.set(record.id, applyEnd(record, end), this.#retentionSeconds)
  }

  /** Tells that a session gave way to another one, to whoever listens. */
  tellRegenerated({ id, userId }: SessionData, successor: string, goesOn: boolean): void {
    if (!this.#events.isHeard('ended')) return
    this.#events.emit('ended', { id, userId, reason: 'regenerated', successor, goesOn })
  }

  async #endOne({ id, userId }: Pick<SessionData, 'id' | 'userId'>, end: SessionEnd): Promise<EndResult> {
    const result = await this.#store.end(id, end, this.#retentionSeconds)
    if (result.status === 'ended' && this.#events.isHeard('ended')) {
      this.#events.emit('ended', { id, userId, reason: end.reason, successor: undefined, goesOn: false })
    }
    return result
  }

  /** Whose session this is, for who listens. */
  async #userOf(id: string): Promise<string | number | undefined> {
    if (!this.#events.isHeard('ended')) return undefined
    // A failure has been told as an event, and must not keep the session alive.
    try {
      const record = await this.#store.get(id)
      return record === null || record === 'corrupt' ? undefined : record.userId
    } catch {
      return undefined
    }
  }
}

/** What events tell a session by. */
export function nameOf({ id, userId, logicalId }: SessionData): Pick<SessionData, 'id' | 'userId' | 'logicalId'> {
  return { id, userId, logicalId }
}
