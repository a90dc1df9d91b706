// Who changes one thing by what it was takes turns in this process, instead of racing in the store: of n racers all but one lose
// each time, and n² attempts are made. Processes race with each other still, one racer each, with growing pauses.

import { isStoreFault } from '../errors.js'

/** What one left behind for the next, who need not ask the store: a guess, since other processes write as well. */
export interface Left {
  readonly text: string | undefined
  /** All fields, where more than one was changed. */
  readonly fields?: ReadonlyMap<string, string> | undefined
}

interface Line {
  /** Those who wait, the first one first. */
  readonly waiting: { begin(): void; fail(error: unknown): void }[]
  left: Left | undefined
  /** Whose turn it is. */
  holder: object
  timer: NodeJS.Timeout | undefined
}

const LONGEST_PAUSE_MS = 64

/** Lines of those who wait for a turn, by key. Who comes when nobody is there waits for nothing. */
export class Turns {
  readonly #longestMs: number
  readonly #lines = new Map<string, Line>()

  /** @param longestMs how long a turn may hold up the next: what waits for something else must not stop everybody */
  constructor(longestMs: number) {
    this.#longestMs = longestMs
  }

  /**
   * Runs `task` in its turn, with what the one before it has left. When the store fails one, those who wait fail with it: a
   * request does not wait for as many deadlines as there are others.
   */
  async run<T>(
    key: string,
    task: (left: Left | undefined) => Promise<{ value: T; left: Left | undefined }>,
  ): Promise<T> {
    const holder = {}
    let line = this.#lines.get(key)
    if (line === undefined) {
      line = { waiting: [], left: undefined, holder, timer: undefined }
      this.#lines.set(key, line)
    } else {
      await this.#wait(key, line)
      line.holder = holder
    }
    let left: Left | undefined
    try {
      const done = await task(line.left)
      left = done.left
      return done.value
    } catch (error) {
      // The store is the same for all of them: one who waits would find it as it is, only later.
      if (isStoreFault(error)) for (const { fail } of line.waiting.splice(0)) fail(error)
      throw error
    } finally {
      // One that took too long has lost its turn already.
      if (line.holder === holder) this.#next(key, line, left)
    }
  }

  #wait(key: string, line: Line): Promise<void> {
    line.timer ??= setTimeout(() => this.#next(key, line, undefined), this.#longestMs).unref()
    return new Promise((begin, fail) => line.waiting.push({ begin, fail }))
  }

  #next(key: string, line: Line, left: Left | undefined): void {
    line.left = left
    const next = line.waiting.shift()
    if (next === undefined) {
      clearTimeout(line.timer)
      this.#lines.delete(key)
      return
    }
    line.timer?.refresh()
    // Nobody's, until the next one begins.
    line.holder = line
    next.begin()
  }
}

/** Waits before the next attempt of one who has lost so many races in a row: the more, the longer, and not all alike. */
export async function pauseAfter(losses: number): Promise<void> {
  // One loss is no sign of a crowd: the session had been written to since it was read.
  if (losses < 2) return
  const ms = Math.random() * Math.min(LONGEST_PAUSE_MS, 2 ** (losses - 1))
  await new Promise((resolve) => setTimeout(resolve, ms))
}
