// The epoch: how often all sessions have been revoked. A session that began in an earlier one is over.
import type { GuardedStore } from './guarded-store.js'
import { notSupported } from './guarded-store.js'

/** How long a process goes by the last epoch that it read. `revokeAll()` waits it out. */
export const EPOCH_LEASE_MS = 1_000

/** The epoch as this process knows it. */
export class Epoch {
  readonly #store: GuardedStore
  #current = 0
  #readAt = Number.NEGATIVE_INFINITY
  #reading: Promise<void> | null = null

  constructor(store: GuardedStore) {
    this.#store = store
  }

  /** How often all sessions have been revoked, as far as this process knows. */
  get current(): number {
    return this.#current
  }

  /** Reads the epoch anew when the last reading is too old: what to wait for, or `null`. */
  refresh(): Promise<void> | null {
    if (!this.#store.hasEpoch || performance.now() - this.#readAt < EPOCH_LEASE_MS) return null
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
    let epoch = await this.#store.epoch()
    // A store that has lost it must not bring revoked sessions back.
    if (epoch < this.#current) epoch = await this.#store.epoch(this.#current)
    this.#set(epoch)
    this.#readAt = askedAt
  }

  #set(epoch: number): void {
    this.#current = Math.max(this.#current, epoch)
  }
}
