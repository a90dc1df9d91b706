// A user's list that cannot be read, because somebody else has put something under its key, would keep that user out until
// somebody deletes it. What belongs on it can be found: it is made anew from the sessions themselves.
import { isSessionError } from '../errors.js'
import { userKey } from '../ids.js'
import type { SessionData } from '../record/session-data.js'
import type { UserEntry } from '../record/user-index.js'
import { settledWithin } from './settled-within.js'

interface RepairParts {
  readonly scan: () => AsyncIterable<SessionData>
  readonly restore: (user: string, entries: readonly UserEntry[]) => Promise<void>
  /** How long a call waits for a repair, which goes on without it. */
  readonly patienceMs: number
}

/** Repairs lists of users as they are met. */
export class ListRepair {
  readonly #parts: RepairParts
  /** By user: many who meet one list repair it once. */
  readonly #underWay = new Map<string, Promise<true>>()

  constructor(parts: RepairParts) {
    this.#parts = parts
  }

  /** Makes a call on a user's list, and once more when the list could not be read and has been repaired in time. */
  async try<T>(user: string, call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      const { cause } = error as { cause?: unknown }
      if (!isSessionError(cause, 'CORRUPT_RECORD')) throw error
      if ((await settledWithin(this.#parts.patienceMs, () => this.#repair(user))) === null) throw error
      return call()
    }
  }

  #repair(user: string): Promise<true> {
    let repair = this.#underWay.get(user)
    if (repair === undefined) {
      repair = this.#restore(user).finally(() => this.#underWay.delete(user))
      // Who waits for it longer than it takes gets the failure; who does not has one of their own.
      repair.catch(() => {})
      this.#underWay.set(user, repair)
    }
    return repair
  }

  /** Meanwhile nobody can log in, since to be on the list comes first: none is missed. One that ends is found to be over. */
  async #restore(user: string): Promise<true> {
    const entries: UserEntry[] = []
    for await (const { id, userId, createdAt: since, absoluteExpiresAt: endsAt, ended } of this.#parts.scan()) {
      if (userId === undefined || ended !== undefined || userKey(userId) !== user) continue
      entries.push({ id, since, endsAt, pendingUntil: 0, isEvicted: false })
    }
    await this.#parts.restore(user, entries)
    return true
  }
}
