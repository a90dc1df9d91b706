// What the memory store is built of: maps that stay small, and loops that let the event loop breathe.

/**
 * Many small maps in the place of one: a large `Map` stops the process for tens of milliseconds each time it grows or
 * shrinks. `shardOf` names the map that a key is in; a thousand of them make about 1,000 a map of a million.
 */
export class ShardedMap<V> {
  readonly #shardOf: (key: string) => string
  readonly #shards = new Map<string, Map<string, V>>()
  #size = 0

  constructor(shardOf: (key: string) => string) {
    this.#shardOf = shardOf
  }

  get size(): number {
    return this.#size
  }

  get(key: string): V | undefined {
    return this.#shards.get(this.#shardOf(key))?.get(key)
  }

  set(key: string, value: V): void {
    const slot = this.#shardOf(key)
    let shard = this.#shards.get(slot)
    if (!shard) {
      shard = new Map()
      this.#shards.set(slot, shard)
    }
    const before = shard.size
    shard.set(key, value)
    this.#size += shard.size - before
  }

  delete(key: string): void {
    const slot = this.#shardOf(key)
    const shard = this.#shards.get(slot)
    if (!shard?.delete(key)) return
    this.#size--
    if (shard.size === 0) this.#shards.delete(slot)
  }

  clear(): void {
    // Each of them: a loop that is under way in one must not go on in what is gone.
    for (const shard of this.#shards.values()) shard.clear()
    this.#shards.clear()
    this.#size = 0
  }

  /** The maps, for loops; what is added meanwhile may come or not. */
  shards(): IterableIterator<ReadonlyMap<string, V>> {
    return this.#shards.values()
  }
}

/** How long one slice of a long loop may block the event loop. */
const SLICE_MS = 2

/** Cuts a long loop into slices: `if (slices.isOver(64)) await slices.next()`. */
export class Slices {
  #end = performance.now() + SLICE_MS
  #calls = 0

  /** Whether the event loop is due; looks at the clock at every so many calls. */
  isOver(everyCalls = 1): boolean {
    this.#calls++
    return this.#calls % everyCalls === 0 && performance.now() >= this.#end
  }

  /** Lets the event loop turn, and begins the next slice. */
  async next(): Promise<void> {
    await new Promise(setImmediate)
    this.#end = performance.now() + SLICE_MS
  }
}
