// Long loops that let the event loop breathe.

/** How long one slice of a long loop may block the event loop. */
const SLICE_MS = 2

/** The clock is looked at once in so many calls. */
const CALLS_BETWEEN_LOOKS = 16

/** Cuts a long loop into slices: `if (slices.isOver()) await slices.next()`. */
export class Slices {
  #end = performance.now() + SLICE_MS
  #calls = 0

  /** Whether the event loop is due. */
  isOver(): boolean {
    this.#calls++
    return this.#calls % CALLS_BETWEEN_LOOKS === 0 && performance.now() >= this.#end
  }

  /** Lets the event loop turn, and begins the next slice. */
  async next(): Promise<void> {
    await new Promise(setImmediate)
    this.#end = performance.now() + SLICE_MS
  }
}
