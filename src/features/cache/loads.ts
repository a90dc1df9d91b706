// One load of an entry at a time: in this process by sharing it, across processes by a lease where the storage has them.
import { setTimeout as delay } from 'node:timers/promises'
import type { GuardedStorage } from './guarded-storage.js'
import type { CacheEntry, CacheLease, CachePlace } from './storage.js'

/**
 * Keeps what was loaded, in the place of the load unless another one is given, and resolves to whether it was kept: not when the
 * place of the load was set, deleted or cleared since it began.
 */
export type Keep = (entry: CacheEntry, place?: CachePlace) => Promise<boolean>

/** How one entry is loaded. */
export interface Loading<T> {
  readonly place: CachePlace
  load(keep: Keep): Promise<T>
  /** The value of what another process has loaded meanwhile; `undefined` for an entry that is not newer than what was known. */
  accept(entry: CacheEntry): { readonly value: T } | undefined
}

interface Flight {
  readonly place: CachePlace
  promise: Promise<unknown>
  /** Its place was set, deleted or cleared: what it brings is for who waits, and for nobody later. */
  isDropped: boolean
}

/** A process that dies is replaced after this. */
const LEASE_MS = 5_000
/** How often who waits for another process looks: each time a little later or earlier, so that not all come at once. */
const LOOK_EVERY_MS = 40

export class Loads {
  readonly #storage: GuardedStorage
  readonly #clock: () => number
  readonly #longestMs: number
  readonly #flights = new Map<string, Flight>()

  /** @param options `longestMs`: how long another process is waited for */
  constructor({ storage, clock, longestMs }: { storage: GuardedStorage; clock: () => number; longestMs: number }) {
    this.#storage = storage
    this.#clock = clock
    this.#longestMs = longestMs
  }

  /** Joins the load of this place that is under way, or begins one. */
  run<T>(loading: Loading<T>): Promise<T> {
    const id = JSON.stringify([loading.place.namespace, loading.place.domain, loading.place.key])
    const under = this.#flights.get(id)
    if (under !== undefined && !under.isDropped) return under.promise as Promise<T>
    const flight: Flight = { place: loading.place, promise: Promise.resolve(), isDropped: false }
    this.#flights.set(id, flight)
    const promise = this.#fly(flight, loading).finally(() => {
      if (this.#flights.get(id) === flight) this.#flights.delete(id)
    })
    flight.promise = promise
    return promise
  }

  /** What is under way for these places is not kept, and nobody joins it any more. */
  drop(namespace: string, domain?: string, key?: string): void {
    for (const flight of this.#flights.values()) {
      const { place } = flight
      if (place.namespace !== namespace) continue
      if (domain !== undefined && place.domain !== domain) continue
      if (key === undefined || place.key === key) flight.isDropped = true
    }
  }

  async #fly<T>(flight: Flight, { place, load, accept }: Loading<T>): Promise<T> {
    const turn = await this.#turn(place, accept)
    if (turn?.accepted !== undefined) return turn.accepted.value
    const lease = turn?.lease
    const timer = lease && setInterval(() => void lease.prolong().catch(() => {}), LEASE_MS / 3)
    try {
      return await load(async (entry, where = place) =>
        flight.isDropped ? false : this.#storage.set(where, entry, this.#clock()),
      )
    } finally {
      clearInterval(timer)
      await lease?.release().catch(() => {})
    }
  }

  /** Our turn to load, with a lease or, where there are none, without; or what another process has loaded meanwhile. */
  async #turn<T>(
    place: CachePlace,
    accept: Loading<T>['accept'],
  ): Promise<{ lease?: CacheLease; accepted?: { readonly value: T } } | undefined> {
    const giveUpAt = performance.now() + this.#longestMs
    while (performance.now() < giveUpAt) {
      const lease = await this.#storage.lease(place, LEASE_MS)
      if (lease === undefined) return undefined
      // Another process may have loaded between our look and our lease, or while we waited.
      const entry = await this.#storage.get(place, this.#clock())
      const accepted = entry && accept(entry)
      if (accepted !== undefined) {
        await lease?.release().catch(() => {})
        return { accepted }
      }
      if (lease !== null) return { lease }
      await delay(LOOK_EVERY_MS * (0.5 + Math.random()))
    }
    return undefined
  }
}
