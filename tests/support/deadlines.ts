// Deadlines of store calls that come when a test says so: however slow the machine is, no other call misses its own.

/** No timer of another kind is as long, or half as long. */
const DEADLINE_MS = 4_321
/** For how long `revokeAll()` waits for other processes: no time here. */
const LEASE_MS = 1_000

export class Deadlines {
  /** For the option of that name, in seconds. */
  static readonly storeTimeout = DEADLINE_MS / 1_000
  readonly #timers = new Map<object, () => void>()
  readonly #real = { setTimeout, clearTimeout, now: performance.now.bind(performance) }
  #laterMs = 0

  /** From now on timers of that length wait for `pass()`, and `performance.now()` is moved by `advance()`. */
  install(): void {
    const { setTimeout: setReal, clearTimeout: clearReal, now } = this.#real
    const set = (run: (...args: unknown[]) => void, ms?: number, ...args: unknown[]): unknown => {
      if (ms === LEASE_MS) return setReal(run, 0, ...args)
      if (ms === undefined || ms < DEADLINE_MS / 2 || ms > DEADLINE_MS) return setReal(run, ms, ...args)
      const timer = { refresh: () => timer, ref: () => timer, unref: () => timer, hasRef: () => true }
      this.#timers.set(timer, () => run(...args))
      return timer
    }
    globalThis.setTimeout = Object.assign(set, setReal) as unknown as typeof setTimeout
    globalThis.clearTimeout = ((timer: object) => {
      if (!this.#timers.delete(timer)) clearReal(timer as NodeJS.Timeout)
    }) as typeof clearTimeout
    performance.now = () => now() + this.#laterMs
  }

  /** By how much time has been moved on. */
  get laterMs(): number {
    return this.#laterMs
  }

  /** Time goes on, but no deadline comes. */
  advance(ms: number): void {
    this.#laterMs += ms
  }

  /** Time goes on until the deadline of every call that is under way has come. */
  pass(): void {
    this.advance(DEADLINE_MS)
    const due = [...this.#timers.values()]
    this.#timers.clear()
    for (const run of due) run()
  }

  restore(): void {
    globalThis.setTimeout = this.#real.setTimeout
    globalThis.clearTimeout = this.#real.clearTimeout
    Reflect.deleteProperty(performance, 'now')
    this.#timers.clear()
    this.#laterMs = 0
  }
}
