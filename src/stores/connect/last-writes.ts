// Whether a record that was read is still what the store has, as far as one process can know.
import type { SessionData } from '../../record/session-data.js'

/** How long a record counts as read just now: what somebody else writes in between is overwritten. */
const FRESH_MS = 1_000
/** Of so many IDs it is known when they were written last. */
const MAX_IDS = 1_000

const known = new WeakMap<object, LastWrites>()

/** That of a store: all adapters on one store share it. */
export function lastWritesOf(store: object): LastWrites {
  const found = known.get(store) ?? new LastWrites()
  known.set(store, found)
  return found
}

/** When records were read, and sessions written, in this process. */
export class LastWrites {
  readonly #readAt = new WeakMap<SessionData, number>()
  readonly #writtenAt = new Map<string, number>()
  /** What was read until then may have been written since. */
  #forgottenUntil = Number.NEGATIVE_INFINITY

  /** @param begunAt when the call that read it began: a write that began later may have come first */
  noteRead(record: SessionData, begunAt: number): void {
    this.#readAt.set(record, begunAt)
  }

  /** To be called when a write begins: whether it is done may never be known. */
  note(id: string): void {
    this.#writtenAt.delete(id)
    this.#writtenAt.set(id, performance.now())
    if (this.#writtenAt.size <= MAX_IDS) return
    for (const [oldest, at] of this.#writtenAt) {
      this.#forgottenUntil = at
      this.#writtenAt.delete(oldest)
      return
    }
  }

  /** Whether this record was read a moment ago, and no write of its session has begun since. */
  isCurrent(record: SessionData): boolean {
    const readAt = this.#readAt.get(record)
    if (readAt === undefined || readAt <= this.#forgottenUntil) return false
    const writtenAt = this.#writtenAt.get(record.id)
    return (writtenAt === undefined || writtenAt < readAt) && performance.now() - readAt < FRESH_MS
  }
}
