// A clock for tests.

/** A clock that moves only when it is told to. Give `clock.now` as the `clock` option. */
export class FakeClock {
  #now: number

  /** @param start milliseconds since the epoch, or a time; default: the present */
  constructor(start: number | Date = Date.now()) {
    this.#now = Number(start)
  }

  /** The present time in milliseconds since the epoch. Bound, so it can be handed on. */
  readonly now = (): number => this.#now

  /** Moves the clock by so many milliseconds; a negative number sets it back. */
  advance(ms: number): void {
    this.#now += ms
  }

  /** Sets the clock. */
  set(time: number | Date): void {
    this.#now = Number(time)
  }
}
