// Deadlines of calls that all may take the same time: the first to begin is the first to be due. So they stand in one list, in
// the order of their beginning, and one timer waits for the first. A timer for each would cost every request two.

/** One call under way, in the list between its neighbours. */
export interface Deadline {
  /** Begins again: what takes long shows that it goes on. */
  refresh(): void
  /** The call is done. Returns whether it was in time. */
  end(): boolean
}

/** The times are those of a monotonic clock: setting the time of the machine moves no deadline. */
export class Deadlines {
  readonly #ms: number
  /** The ends of the list: before the first stands the last. */
  readonly #ring = new Entry()
  #timer: NodeJS.Timeout | undefined

  constructor(ms: number) {
    this.#ms = ms
  }

  /** Calls `missed` when that call has not ended in time. While one is under way the process stays alive. */
  begin(missed: () => void): Deadline {
    const entry = new Entry(this, missed)
    this.append(entry)
    return entry
  }

  append(entry: Entry): void {
    const isFirst = this.#ring.next === this.#ring
    entry.startedAt = performance.now()
    entry.insertBefore(this.#ring)
    if (!isFirst) return
    if (this.#timer === undefined) this.#wait(this.#ms)
    else this.#timer.ref()
  }

  remove(entry: Entry): void {
    entry.takeOut()
    // The timer stays for the next call, which will come soon: making one is what costs.
    if (this.#ring.next === this.#ring) this.#timer?.unref()
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => this.#look(), ms)
  }

  #look(): void {
    this.#timer = undefined
    const now = performance.now()
    for (let first = this.#ring.next; first !== this.#ring; first = this.#ring.next) {
      const leftMs = first.startedAt + this.#ms - now
      if (leftMs > 0) {
        this.#wait(Math.max(1, leftMs))
        return
      }
      first.takeOut()
      first.missed()
    }
  }
}

class Entry implements Deadline {
  readonly #list: Deadlines | null
  readonly missed: () => void
  startedAt = 0
  next: Entry = this
  previous: Entry = this

  constructor(list: Deadlines | null = null, missed: () => void = () => {}) {
    this.#list = list
    this.missed = missed
  }

  insertBefore(other: Entry): void {
    this.previous = other.previous
    this.next = other
    this.previous.next = this
    other.previous = this
  }

  takeOut(): void {
    this.previous.next = this.next
    this.next.previous = this.previous
    this.next = this
    this.previous = this
  }

  get isUnderWay(): boolean {
    return this.next !== this
  }

  refresh(): void {
    if (!this.isUnderWay) return
    this.takeOut()
    this.#list?.append(this)
  }

  end(): boolean {
    const isInTime = this.isUnderWay
    if (isInTime) this.#list?.remove(this)
    return isInTime
  }
}
