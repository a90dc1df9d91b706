// The deadline of many short calls: one timer for all that begin about the same time, since a timer of its own costs each hit more than
// the rest of it.

/** What is called when a deadline passes. */
type Late = () => void

/** The calls of one timer. */
type Batch = Set<Late>

export class Deadlines {
  readonly #timeoutMs: number
  /** How much later than it should a deadline may pass. */
  readonly #spreadMs: number
  #open: Batch | undefined

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
    this.#spreadMs = Math.max(1, timeoutMs / 10)
  }

  /** Calls `late` after the time-out, unless it is taken out of what this returns before. */
  begin(late: Late): Batch {
    this.#open ??= this.#batch()
    this.#open.add(late)
    return this.#open
  }

  #batch(): Batch {
    const batch: Batch = new Set()
    setTimeout(() => {
      if (this.#open === batch) this.#open = undefined
    }, this.#spreadMs).unref()
    setTimeout(() => {
      for (const late of batch) {
        batch.delete(late)
        late()
      }
    }, this.#timeoutMs + this.#spreadMs).unref()
    return batch
  }
}
