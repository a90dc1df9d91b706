// Calls that take too long: what can be cancelled is, so that nobody's write comes long after its 503.

/** A call under way. */
export interface Watched {
  readonly endsAt: number
  readonly cancel: () => void
}

/** How many times in a deadline it is looked. */
const LOOKS = 4

/** Looks after calls with one timer for all of them, since a timer for each would be on the path of every request. */
export class Overdue {
  readonly #timeoutMs: number
  readonly #underWay = new Set<Watched>()
  #timer: NodeJS.Timeout | undefined

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  /** `cancel` is called once if the call has not ended in time. It must not throw. */
  begin(cancel: () => void): Watched {
    const watched = { endsAt: performance.now() + this.#timeoutMs, cancel }
    this.#underWay.add(watched)
    if (this.#timer === undefined) {
      this.#timer = setInterval(() => this.#look(), this.#timeoutMs / LOOKS)
      this.#timer.unref()
    }
    return watched
  }

  end(watched: Watched): void {
    this.#underWay.delete(watched)
  }

  #look(): void {
    const now = performance.now()
    for (const watched of this.#underWay) {
      if (now < watched.endsAt) continue
      this.#underWay.delete(watched)
      watched.cancel()
    }
    if (this.#underWay.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
