// What the SQL store asks of a database: one statement, or several as one transaction. An adapter for each client stands in
// drivers/.

/** The databases that are spoken to: `mysql` is MySQL and MariaDB. */
export type SqlDialect = 'sqlite' | 'postgres' | 'mysql'

/** What a parameter may be: each client binds these alike. */
export type SqlValue = string | number | null

/** A row, its columns by name. */
export type SqlRow = Readonly<Record<string, unknown>>

/** One statement and its parameters. */
export interface SqlQuery {
  readonly sql: string
  readonly values: readonly SqlValue[]
}

/** What a statement did. */
export interface SqlResult {
  readonly rows: readonly SqlRow[]
  /** How many rows it wrote or removed. */
  readonly count: number
}

/**
 * What is done in one transaction: it yields statements and is given their results. It may be run again from the beginning,
 * so nothing else must happen in it.
 */
export type SqlSteps<T> = Generator<SqlQuery, T, SqlResult>

/** Rows of one table of SQLite that are to be removed a few at a time. */
export interface Removal {
  /** Where a step ends that begins behind a row: `rowid` as `last`. */
  readonly end: string
  /** Whether there are any behind a row, up to another. */
  readonly some: string
  /** Removes those. */
  readonly all: string
}

/** A database, as the store uses it. Write one for a client that is not known: `new SqlSessionStore({ database: driver })`. */
export interface SqlDriver {
  readonly dialect: SqlDialect
  /** Runs one statement, which is a transaction of its own. Parameters stand as `?`, in PostgreSQL as `$1`, `$2` … */
  query(sql: string, values: readonly SqlValue[]): Promise<SqlResult>
  /**
   * The same within this call, where nothing has to be waited for: with SQLite in this process. `undefined`: nothing was done, since
   * others hold a lock; then `query()` is called, which waits for it. Throws where that rejects.
   */
  queryNow?(sql: string, values: readonly SqlValue[]): SqlResult | undefined
  /** Runs statements as one transaction, which can write from its beginning. When anything throws, nothing of it stays. */
  transaction<T>(steps: () => SqlSteps<T>): Promise<T>
  /**
   * PostgreSQL: hears what is sent to a channel by `pg_notify()`, from when this resolves to what stops it. A connection that is lost
   * comes back by itself. Without it the store has no signals.
   */
  listen?(channel: string, listener: (payload: string) => void): Promise<() => Promise<void>>
  /**
   * SQLite: removes rows beside this thread. Resolves to how many of each, or to `null` where that cannot be; then the store does it
   * here.
   */
  removeAside?(removals: readonly Removal[], signal: AbortSignal): Promise<readonly number[] | null>
  /** Closes the connections. Called only for a database that the store opened itself. */
  close?(): Promise<void>
}

/** Carries out steps, one statement after the other. */
export async function runSteps<T>(steps: SqlSteps<T>, run: (query: SqlQuery) => Promise<SqlResult>): Promise<T> {
  let step = steps.next()
  while (!step.done) step = steps.next(await run(step.value))
  return step.value
}

/** The same at once. */
export function runStepsNow<T>(steps: SqlSteps<T>, run: (query: SqlQuery) => SqlResult): T {
  let step = steps.next()
  while (!step.done) step = steps.next(run(step.value))
  return step.value
}

/** Lets tasks wait for each other: for clients that are one connection. */
export class Turn {
  #last: Promise<unknown> = Promise.resolve()

  take<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#last.then(task)
    this.#last = run.then(ignore, ignore)
    return run
  }
}

export function ignore(): void {}
