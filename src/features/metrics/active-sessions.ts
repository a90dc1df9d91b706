// How many sessions are live: counted by going through the store, when somebody collects and the last count is too old.

import { isSessionError } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import { warnOfFailure } from '../../warn.js'

/** How long who collects is kept waiting for a count; then the last one has to do. */
const PATIENCE_MS = 1_000
/** Of the time, counting takes a tenth at most. */
const REST = 9

/** The number of live sessions, counted when it is asked for and the last count is too old. */
export class ActiveSessions {
  readonly #manager: SessionManager
  readonly #intervalMs: number
  readonly #max: number
  #count: number | undefined
  #dueAt = Number.NEGATIVE_INFINITY
  #counting: Promise<void> | null = null
  #isStopped = false

  constructor(manager: SessionManager, { intervalMs, max }: { intervalMs: number; max: number }) {
    this.#manager = manager
    this.#intervalMs = intervalMs
    this.#max = max
  }

  /** `undefined` when it could not be counted, or not yet. Never rejects. */
  async read(): Promise<number | undefined> {
    if (performance.now() >= this.#dueAt) {
      this.#counting ??= this.#recount().finally(() => {
        this.#counting = null
      })
    }
    if (this.#counting !== null) await atMost(PATIENCE_MS, this.#counting)
    return this.#count
  }

  /** A count that is under way ends with the session at hand. */
  stop(): void {
    this.#isStopped = true
  }

  async #recount(): Promise<void> {
    const startedAt = performance.now()
    try {
      let count = 0
      for await (const _ of this.#manager.list()) {
        count++
        if (count >= this.#max || this.#isStopped) break
      }
      this.#count = count
    } catch (error) {
      this.#count = undefined
      // A failure of the store has been told as an event.
      if (!isSessionError(error)) warnOfFailure('Counting the active sessions', error)
    }
    const endedAt = performance.now()
    this.#dueAt = endedAt + Math.max(this.#intervalMs, REST * (endedAt - startedAt))
  }
}

async function atMost(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([work, patience])
  clearTimeout(timer)
}
