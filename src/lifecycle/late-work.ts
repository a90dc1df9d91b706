// Work that goes on after its response, so that the end of the process can wait for it.

/** Promises nobody waits for but the shutdown. */
export class LateWork {
  readonly #underWay = new Set<Promise<unknown>>()

  /** Notes work that goes on after its response. Its failure is its own business. */
  track(work: Promise<unknown>): void {
    this.#underWay.add(work)
    const settled = (): boolean => this.#underWay.delete(work)
    work.then(settled, settled)
  }

  /** Waits for all of it, and for what it starts. */
  async drain(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay)
  }
}
