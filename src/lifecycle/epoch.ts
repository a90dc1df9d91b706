// The epoch: how often all sessions have been revoked. A session that began in an earlier one is over.
import type { GuardedStore } from './guarded-store.js'
import { notSupported } from './guarded-store.js'

/** How long a process goes by the last epoch that it read. `revokeAll()` waits it out. */
export const EPOCH_LEASE_MS = 1_000

/**
 * How long a process goes on by the epoch that it knows while it cannot be read, though sessions can: what stands there is junk,
 * or Redis refuses this one key. Long enough to be told and to mend it without an outage; and `revokeAll()` may come so much
 * later to this process, as it says.
 */
export const EPOCH_PATIENCE_MS = 60_000

/** The epoch as this process knows it. */
export class Epoch {
  readonly #store: GuardedStore
  #current = 0
  /** When it was last asked for, and when it was last told. */
  #askedAt = Number.NEGATIVE_INFINITY
  #knownAt = Number.NEGATIVE_INFINITY
  #reading: Promise<void> | null = null

  constructor(store: GuardedStore) {
    this.#store = store
  }

  /** How often all sessions have been revoked, as far as this process knows. */
  get current(): number {
    return this.#current
  }

  /**
   * Reads the epoch anew when the last reading is too old: what to wait for, or `null`. Rejects when it was never read, or not
   * for `EPOCH_PATIENCE_MS`: then nobody can say who is still logged in.
   */
  refresh(): Promise<void> | null {
    if (!this.#store.hasEpoch || performance.now() - this.#askedAt < EPOCH_LEASE_MS) return null
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null
    })
    // Whoever waits for it gets the failure; nobody may.
    this.#reading.catch(() => {})
    return this.#reading
  }

  /** Raises it by one: everything that began before is over, here at once, elsewhere within `EPOCH_LEASE_MS`. */
  async raise(): Promise<void> {
    if (!this.#store.hasEpoch) throw notSupported('revokeAll() needs a store with an epoch')
    const before = await this.#store.epoch()
    const next = Math.max(before, this.#current) + 1
    this.#set(await this.#store.epoch(next))
  }

  async #read(): Promise<void> {
    const askedAt = performance.now()
    try {
      let epoch = await this.#store.epoch()
      // A store that has lost it must not bring revoked sessions back.
      if (epoch < this.#current) epoch = await this.#store.epoch(this.#current)
      this.#set(epoch)
      this.#knownAt = askedAt
      this.#askedAt = askedAt
    } catch (error) {
      // It has been told as an event.
      this.#askedAt = performance.now()
      if (this.#askedAt - this.#knownAt < EPOCH_PATIENCE_MS) return
      // Whoever comes next asks again.
      this.#askedAt = Number.NEGATIVE_INFINITY
      throw error
    }
  }

  #set(epoch: number): void {
    this.#current = Math.max(this.#current, epoch)
  }
}
