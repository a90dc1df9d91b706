// Changes of one row, across processes and within one: a row is read, changed in the process, and written if it still has the
// version that was read. Changes of a row that meet in this process travel together, so that contention costs statements
// by process, not by request. Where two processes keep getting in each other's way, the row is locked.

/** What one change makes of a row. */
export interface Outcome<Row, How, T> {
  /** What the caller is told; `stored` is the row as it was written, if this change was the last of those that travelled together. */
  readonly result: (stored?: Row) => T
  /** What the row becomes. Without it the row stays as it is. */
  readonly next?: Row | undefined
  /** How it is written. */
  readonly how?: How | undefined
  /** Written as it is, also where somebody has touched the row meanwhile. */
  readonly isExact?: boolean | undefined
}

/** Decides from a row, `null` when there is none. It may be asked more than once, and must do nothing else. */
export type Decide<Row, How, T> = (row: Row | null) => Outcome<Row, How, T>

/** What is to be written. */
export interface Write<Row, How> {
  readonly next: Row
  readonly how: How | undefined
}

/** The rows of one table. */
export interface RowAccess<Row, How> {
  read(key: string): Promise<Row | null>
  /** Writes if the row is still as `before`, and resolves to it as it is then; to `null` when it is not. */
  swap(key: string, before: Row | null, write: Write<Row, How>): Promise<Row | null>
  /** The same within this call, if that can be. `undefined`: nothing was done. */
  swapNow?(key: string, before: Row, write: Write<Row, How>): Row | undefined
  /** Locks the row, and writes what `decide` says of it, or nothing on `null`. Resolves to whether all that was done. */
  lock(key: string, decide: (row: Row | null) => Write<Row, How> | null): Promise<boolean>
  /** Of two changes that travel together. */
  join(first: How | undefined, second: How | undefined): How | undefined
}

type Result<Row> = (stored?: Row) => unknown

interface Job<Row, How> {
  readonly decide: Decide<Row, How, unknown>
  readonly resolve: (result: never) => void
  readonly reject: (error: unknown) => void
}

/** So often two processes may get in each other's way before the row is locked. */
const TRIES = 2
/** So often before that is a failure. */
const MOST_TRIES = 50

/** Carries out changes of rows. */
export class RowChanges<Row extends object, How> {
  readonly #rows: RowAccess<Row, How>
  /** Those who wait, by the row that a change of is under way. */
  readonly #waiting = new Map<string, Job<Row, How>[]>()

  constructor(rows: RowAccess<Row, How>) {
    this.#rows = rows
  }

  /** Changes a row. With what is `known` of it, it need not be read as long as that holds. */
  run<T>(key: string, decide: Decide<Row, How, T>, known?: Row): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const job: Job<Row, How> = { decide, resolve, reject }
      const waiting = this.#waiting.get(key)
      if (waiting !== undefined) waiting.push(job)
      else {
        this.#waiting.set(key, [])
        void this.#work(key, [job], known)
      }
    })
  }

  /** Changes a row that is as it is `known`, and waits for nothing. `undefined`: nothing was done, and `run()` is to do it. */
  runNow<T>(key: string, decide: Decide<Row, How, T>, known: Row): T | undefined {
    if (this.#rows.swapNow === undefined || this.#waiting.has(key)) return undefined
    const { result, next, how, isExact } = decide(known)
    if (next === undefined || isExact) return undefined
    const stored = this.#rows.swapNow(key, known, { next, how })
    return stored && result(stored)
  }

  async #work(key: string, first: Job<Row, How>[], known: Row | undefined): Promise<void> {
    let [jobs, row] = [first, known]
    while (jobs.length > 0) {
      try {
        row = await this.#apply(key, jobs, row)
      } catch (error) {
        row = undefined
        for (const { reject } of jobs) reject(error)
      }
      jobs = this.#waiting.get(key)?.splice(0) ?? []
    }
    this.#waiting.delete(key)
  }

  /** Carries out jobs together, and resolves to the row that they have made, if that is known. */
  async #apply(key: string, jobs: readonly Job<Row, How>[], assumed: Row | undefined): Promise<Row | undefined> {
    let known = assumed
    for (let attempt = 0; attempt < MOST_TRIES; attempt++) {
      const before = known ?? (await this.#rows.read(key))
      const decision = this.#decide(jobs, before)
      // What was only assumed may refuse a change no more than it may apply one.
      if (known === undefined && decision.write === null) return settle(jobs, decision.results)
      const isSure = known === undefined || decision.isUnanimous
      known = undefined
      if (!isSure) continue
      if (decision.isExact || attempt > TRIES) {
        let results: readonly Result<Row>[] = []
        const isDone = await this.#rows.lock(key, (row) => {
          const locked = this.#decide(jobs, row)
          results = locked.results
          return locked.write
        })
        if (isDone) return settle(jobs, results)
      } else if (decision.write !== null) {
        const after = await this.#rows.swap(key, before, decision.write)
        if (after !== null) {
          settle(jobs, decision.results, after)
          return after
        }
      }
    }
    throw new Error('One row was changed by others all the time.')
  }

  #decide(
    jobs: readonly Job<Row, How>[],
    before: Row | null,
  ): { results: Result<Row>[]; write: Write<Row, How> | null; isExact: boolean; isUnanimous: boolean } {
    let row = before
    let how: How | undefined
    let isExact = false
    let isUnanimous = true
    const results: Result<Row>[] = []
    for (const { decide } of jobs) {
      const outcome = decide(row)
      results.push(outcome.result)
      if (outcome.next === undefined) isUnanimous = false
      else {
        how = row === before ? outcome.how : this.#rows.join(how, outcome.how)
        row = outcome.next
        isExact ||= outcome.isExact ?? false
      }
    }
    return { results, write: row === before || row === null ? null : { next: row, how }, isExact, isUnanimous }
  }
}

function settle<Row, How>(jobs: readonly Job<Row, How>[], results: readonly Result<Row>[], stored?: Row): undefined {
  for (const [index, { resolve }] of jobs.entries()) {
    const isLast = index === jobs.length - 1
    resolve(results[index]?.(isLast ? stored : undefined) as never)
  }
}
