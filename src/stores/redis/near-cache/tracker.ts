// One connection to one server, which tells every change of our keys. What it tells and its answers come in order: the answer to a
// heartbeat proves that all has been told which was written before that heartbeat was sent.

/** What is heard on a line. */
export interface LineListener {
  /** These keys have changed; `null`: any may have. */
  changed(keys: readonly string[] | null): void
  /** The connection is gone, and with it what it would have told. */
  lost(error: unknown): void
}

/** A connection that tells of changes, for as long as its socket lives. */
export interface Line {
  /** Connects. Resolves once every further change is told. */
  open(): Promise<unknown>
  /** Resolves with the answer of the server. */
  heartbeat(): Promise<unknown>
  close(): void
}

/** Makes a line to one server. */
export type MakeLine = (listener: LineListener) => Line

/** What an answer from memory stands on: whoever would tell that it has changed. */
export interface Watch {
  /** Whether all that was written until lately has been told. */
  isProven(now: number): boolean
}

export interface TrackerOptions {
  readonly makeLine: MakeLine
  /** These keys have changed; `null`: any may have. */
  readonly changed: (keys: readonly string[] | null) => void
  readonly failed: (error: unknown) => void
  /** By a clock that never goes back, in ms. */
  readonly now: () => number
  /** How long ago the last heartbeat that was answered may have been sent. */
  readonly provenForMs: number
  /** How many heartbeats may be due while one is without an answer, before the connection is replaced. */
  readonly patience: number
}

const FIRST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 1_000

export class Tracker implements Watch {
  readonly #options: TrackerOptions
  #line: Line | null = null
  #provenAt = Number.NEGATIVE_INFINITY
  #isWaiting = false
  /** Heartbeats that were due while it waited. Not time: of a process that stood still, no server knows anything. */
  #missed = 0
  #retryAt = Number.NEGATIVE_INFINITY
  #pauseMs = FIRST_PAUSE_MS
  #isClosed = false

  constructor(options: TrackerOptions) {
    this.#options = options
  }

  isProven(now: number): boolean {
    return now - this.#provenAt <= this.#options.provenForMs
  }

  /** To be called now and then: connects, or sends a heartbeat. */
  beat(): void {
    const now = this.#options.now()
    const line = this.#line
    if (this.#isClosed) return
    if (line === null) {
      if (now >= this.#retryAt) this.#open()
    } else if (!this.#isWaiting) this.#heartbeat(line)
    else if (++this.#missed > this.#options.patience) this.#lose(line, undefined)
  }

  close(): void {
    this.#isClosed = true
    const line = this.#line
    this.#line = null
    this.#provenAt = Number.NEGATIVE_INFINITY
    line?.close()
  }

  #open(): void {
    const line: Line = this.#options.makeLine({
      changed: (keys) => {
        if (this.#line === line) this.#options.changed(keys)
      },
      lost: (error) => this.#lose(line, error),
    })
    this.#line = line
    this.#waitFor(line, line.open(), () => this.#heartbeat(line))
  }

  #heartbeat(line: Line): void {
    const sentAt = this.#options.now()
    this.#waitFor(line, line.heartbeat(), () => {
      this.#provenAt = sentAt
      this.#pauseMs = FIRST_PAUSE_MS
    })
  }

  #waitFor(line: Line, answer: Promise<unknown>, take: () => void): void {
    this.#isWaiting = true
    this.#missed = 0
    answer.then(
      () => {
        if (this.#line !== line) return
        this.#isWaiting = false
        take()
      },
      (error) => this.#lose(line, error),
    )
  }

  #lose(line: Line, error: unknown): void {
    if (this.#line !== line) return
    this.#line = null
    this.#provenAt = Number.NEGATIVE_INFINITY
    this.#retryAt = this.#options.now() + this.#pauseMs
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS)
    line.close()
    this.#options.changed(null)
    this.#options.failed(error)
  }
}
