// What was seen last, and is likely to be asked for again: a page makes many requests with one session.

const MAX_ENTRIES = 1_000

/** A map of at most 1,000 entries: one more, and the one that was set longest ago goes. */
export class Recent<V> {
  readonly #entries = new Map<string, V>()

  get(key: string): V | undefined {
    return this.#entries.get(key)
  }

  set(key: string, value: V): void {
    this.#entries.delete(key)
    this.#entries.set(key, value)
    if (this.#entries.size <= MAX_ENTRIES) return
    const [oldest] = this.#entries.keys()
    this.#entries.delete(oldest as string)
  }

  clear(): void {
    this.#entries.clear()
  }

  delete(key: string): void {
    this.#entries.delete(key)
  }
}
