// The queue of one sink: bounded, written in batches, one at a time, tried again for a while, and never in anybody's way.
import { setImmediate as turn } from 'node:timers/promises'
import { SessionError } from '../../errors.js'
import type { Activity } from '../../events/activity-hook.js'
import type { ActivitySink } from './sinks/sink.js'

/** How the queue of a sink behaves; times in milliseconds. */
export interface QueueRules {
  readonly batchSize: number
  readonly flushIntervalMs: number
  readonly maxQueue: number
  readonly writeTimeoutMs: number
  readonly maxRetries: number
  readonly retryDelayMs: number
}

/** Why activities were dropped: the queue was full, their batch was tried too often, or the log was closed. */
export type DropReason = 'full' | 'failed' | 'closed'

/** What a queue tells. */
export interface QueueListener {
  failed(queue: SinkQueue, failure: { error: unknown; attempt: number; willRetry: boolean }): void
  dropped(queue: SinkQueue, drop: { count: number; reason: DropReason; error: unknown }): void
}

/** No wait between two attempts is longer than the first one times this. */
const LONGEST_DELAY_FACTOR = 100
/** With `'wait'`, a queue may be this many times as long as `maxQueue`: not everybody can wait. */
const WAITING_FACTOR = 2

export class SinkQueue {
  readonly sink: ActivitySink
  readonly name: string
  readonly #rules: QueueRules
  readonly #listener: QueueListener
  #items: Activity[] = []
  /** The batch that is being written; it counts as queued. */
  #batch: readonly Activity[] = []
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | null = null
  /** Ends the wait between two attempts. */
  #hurry: (() => void) | undefined
  /** Ends the wait for the sink. */
  #giveUp: (() => void) | undefined
  #deadline = Number.POSITIVE_INFINITY
  #isClosed = false
  /** Who waits for room. */
  #waiting: (() => void)[] = []
  /** Who waits until so many have been settled. */
  #flushes: { readonly until: number; readonly done: () => void }[] = []
  /** Activities that were ever put in, and that were written or dropped. */
  #taken = 0
  #settled = 0
  #untold = 0
  written = 0
  dropped = 0
  failures = 0

  constructor(sink: ActivitySink, name: string, { rules, listener }: { rules: QueueRules; listener: QueueListener }) {
    this.sink = sink
    this.name = name
    this.#rules = rules
    this.#listener = listener
  }

  /** Activities that are not written yet. */
  get length(): number {
    return this.#items.length + this.#batch.length
  }

  /** Takes an activity. `'wait'` gives it room where others find none. */
  push(activity: Activity, onFull: 'drop' | 'wait'): void {
    const { maxQueue, batchSize } = this.#rules
    if (this.#isClosed) {
      this.#drop(1, 'closed')
      return
    }
    if (this.length >= (onFull === 'wait' ? maxQueue * WAITING_FACTOR : maxQueue)) {
      this.dropped++
      // Told with the next batch, since it may be one of thousands.
      this.#untold++
      return
    }
    this.#items.push(activity)
    this.#taken++
    if (this.#running !== null) return
    if (this.#items.length >= batchSize || this.sink.isImmediate) this.#start()
    // It keeps the process alive: what has been logged is written before it ends by itself.
    else this.#timer ??= setTimeout(() => this.#start(), this.#rules.flushIntervalMs)
  }

  /** A promise of room, or `null` when there is some. Resolves when the log is closed, too. */
  room(): Promise<void> | null {
    if (this.length < this.#rules.maxQueue || this.#isClosed) return null
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** Resolves when all that is queued now has been written or dropped. */
  flush(): Promise<void> {
    if (this.#settled === this.#taken) return Promise.resolve()
    this.#start()
    return new Promise((done) => this.#flushes.push({ until: this.#taken, done }))
  }

  /** Writes what it can within `timeoutMs`, drops the rest, and closes the sink. */
  async close(timeoutMs: number): Promise<void> {
    this.#deadline = performance.now() + timeoutMs
    this.#isClosed = true
    const timer = setTimeout(() => this.#abandon(), timeoutMs)
    this.#hurry?.()
    await this.flush()
    clearTimeout(timer)
    this.#tellFull()
    this.#makeRoom()
    try {
      const left = Math.max(this.#deadline - performance.now(), Math.min(timeoutMs, this.#rules.writeTimeoutMs))
      await this.#withDeadline(() => this.sink.close?.(), left)
    } catch (error) {
      this.failures++
      this.#listener.failed(this, { error, attempt: 1, willRetry: false })
    }
  }

  #start(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#running ??= this.#run().finally(() => {
      this.#running = null
      if (this.#items.length > 0) this.#start()
    })
  }

  async #run(): Promise<void> {
    // Out of the way of whoever has put them in, and all of one turn together.
    await turn()
    while (this.#items.length > 0) {
      this.#batch = Object.freeze(this.#items.splice(0, this.#rules.batchSize))
      await this.#write(this.#batch)
      this.#tellFull()
      this.#makeRoom()
    }
  }

  async #write(batch: readonly Activity[]): Promise<void> {
    const { maxRetries, writeTimeoutMs } = this.#rules
    for (let attempt = 1; ; attempt++) {
      try {
        const left = this.#deadline - performance.now()
        await this.#withDeadline(() => this.sink.write(batch), Math.min(writeTimeoutMs, Math.max(1, left)))
        if (this.#batch !== batch) return
        this.written += batch.length
        this.#settle(batch.length)
        return
      } catch (error) {
        if (this.#batch !== batch) return
        this.failures++
        const willRetry = attempt <= maxRetries && performance.now() < this.#deadline
        this.#listener.failed(this, { error, attempt, willRetry })
        this.#tellFull()
        if (!willRetry) {
          this.#settle(batch.length)
          this.#drop(batch.length, this.#isClosed ? 'closed' : 'failed', error)
          return
        }
      }
      await this.#pause(attempt)
      if (this.#batch !== batch) return
    }
  }

  /** Longer from attempt to attempt, and not the same for all processes. */
  #pause(attempt: number): Promise<void> {
    const factor = Math.min(2 ** (attempt - 1), LONGEST_DELAY_FACTOR)
    const ms = this.#rules.retryDelayMs * factor * (0.5 + Math.random() / 2)
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#hurry?.(), ms)
      // A sink that is gone must not keep the process: close() says what is lost.
      if (!this.#isClosed) timer.unref()
      this.#hurry = () => {
        clearTimeout(timer)
        this.#hurry = undefined
        resolve()
      }
    })
  }

  /** The time of close() is over: whatever is under way does not count any more. */
  #abandon(): void {
    const count = this.length
    this.#items = []
    this.#batch = []
    this.#hurry?.()
    this.#giveUp?.()
    if (count === 0) return
    this.#settle(count)
    const error = new SessionError('STORE_TIMEOUT', 'The log was closed before the sink had taken everything.')
    this.#drop(count, 'closed', error)
  }

  #settle(count: number): void {
    this.#batch = []
    this.#settled += count
    while (this.#flushes[0] !== undefined && this.#flushes[0].until <= this.#settled) this.#flushes.shift()?.done()
  }

  #drop(count: number, reason: DropReason, error?: unknown): void {
    this.dropped += count
    this.#listener.dropped(this, { count, reason, error })
  }

  #tellFull(): void {
    const count = this.#untold
    this.#untold = 0
    if (count > 0) this.#listener.dropped(this, { count, reason: 'full', error: undefined })
  }

  #makeRoom(): void {
    if (this.length >= this.#rules.maxQueue && !this.#isClosed) return
    for (const go of this.#waiting.splice(0)) go()
  }

  /** Settles as the task does, or rejects when it takes too long. */
  async #withDeadline(task: () => Promise<void> | void, ms: number): Promise<void> {
    const done: unknown = task()
    if (typeof (done as PromiseLike<void> | undefined)?.then !== 'function') return
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      this.#giveUp = () => {
        reject(new SessionError('STORE_TIMEOUT', `The sink did not answer within ${Math.ceil(ms)} ms.`))
      }
      timer = setTimeout(this.#giveUp, ms)
    })
    try {
      await Promise.race([done, late])
    } finally {
      clearTimeout(timer)
    }
  }
}
