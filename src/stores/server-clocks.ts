// What the clock of a server shows when ours shows something: known by its answers that tell its time. It told it after the
// question was sent and before the answer came. So no wall clock of ours takes part, and none is asked for.

/** How much one clock may run faster than the other: what NTP allows itself. */
const DRIFT = 0.0005
/** An estimate that may be wrong by more than this part of the time that is left is no good any more. */
const LARGEST_PART = 0.5

/** By how much the clock of a server is ahead of `performance.now()`, in ms. */
interface Estimate {
  /** It is no less. */
  readonly least: number
  /** When that was found. */
  readonly foundAt: number
}

/** What is known of the clocks of servers. */
export class ServerClocks {
  readonly #estimates = new Map<string, Estimate>()

  /** The time there when it is `moment` here: that or later. `null` when that cannot be said well enough. */
  timeAt(server: string, moment: number): number | null {
    const estimate = this.#estimates.get(server)
    if (estimate === undefined) return null
    const now = performance.now()
    const doubt = (now - estimate.foundAt) * DRIFT
    if (doubt > (moment - now) * LARGEST_PART) return null
    return Math.floor(moment + estimate.least - doubt)
  }

  /** The server has told its time, between then and now. */
  note(server: string, { time, sentAt }: { time: number; sentAt: number }): void {
    const now = performance.now()
    const least = time - now
    const most = time + 1 - sentAt
    const before = this.#estimates.get(server)
    // The closer one counts, as long as they agree: a clock may have been set.
    const known = before && before.least - (now - before.foundAt) * DRIFT
    if (known !== undefined && least < known && known <= most) return
    this.#estimates.set(server, { least, foundAt: now })
  }
}
