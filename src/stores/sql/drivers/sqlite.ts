// SQLite through a connection in this process: better-sqlite3, libsql, node:sqlite, bun:sqlite. Each call is done at once. A
// lock that another process holds is waited for in turns of the event loop, never inside of the client, which would hold it.
import { setTimeout as sleep } from 'node:timers/promises'
import { runStepsNow, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow, type SqlSteps } from '../driver.js'
import { isBusy } from '../faults.js'
import { fileOf, removeInWorker } from './sqlite-aside.js'

/** The members that are called. */
export interface SqliteDatabase {
  prepare(sql: string): SqliteStatement
  exec(sql: string): unknown
  close(): unknown
}

interface SqliteStatement {
  all(...values: never[]): unknown
  run(...values: never[]): unknown
}

/** The longest pause between two attempts. */
const LONGEST_PAUSE_MS = 16

/** What opens a file, and how its writes are kept. */
export interface SqliteSettings {
  /** Whether a commit is on the disk before it is acknowledged. Default: as the connection is. */
  readonly durability?: 'full' | 'relaxed' | undefined
  /** How long a lock of others is waited for. */
  readonly timeoutMs: number
}

export function isSqlite(database: object): database is SqliteDatabase {
  const { prepare, exec, close } = database as Partial<SqliteDatabase>
  return [prepare, exec, close].every((member) => typeof member === 'function')
}

export function sqliteDriver(database: SqliteDatabase, { durability, timeoutMs }: SqliteSettings): SqlDriver {
  const statements = new Map<string, SqliteStatement>()
  // The client must not wait by itself.
  for (const pragma of ['busy_timeout = 0', ...(durability ? [SYNCHRONOUS[durability]] : [])]) {
    database.exec(`pragma ${pragma}`)
  }

  const run = ({ sql, values }: SqlQuery): SqlResult => {
    let statement = statements.get(sql)
    if (statement === undefined) {
      statement = database.prepare(sql)
      statements.set(sql, statement)
    }
    try {
      if (READS.test(sql)) {
        const rows = statement.all(...(values as never[])) as SqlRow[]
        return { rows, count: rows.length }
      }
      const { changes } = statement.run(...(values as never[])) as { changes: number | bigint }
      return { rows: NO_ROWS, count: Number(changes) }
    } catch (error) {
      // libsql does not reset a statement that has failed.
      statements.delete(sql)
      throw error
    }
  }
  const now = <T>(steps: () => SqlSteps<T>): T => {
    database.exec('begin immediate')
    try {
      const result = runStepsNow(steps(), run)
      database.exec('commit')
      return result
    } catch (error) {
      rollback(database)
      throw error
    }
  }
  // In libsql a statement that met a lock keeps its transaction open. Nothing but "begin" meets one this way.
  const begins = isLibsql(database)
  const once = (query: SqlQuery): SqlResult => {
    if (!begins || query.sql.startsWith('select')) return run(query)
    return now(function* (): SqlSteps<SqlResult> {
      return yield query
    })
  }
  return {
    dialect: 'sqlite',
    query: (sql, values) => patiently(() => once({ sql, values }), timeoutMs),
    queryNow(sql, values) {
      try {
        return once({ sql, values })
      } catch (error) {
        if (isBusy(error)) return undefined
        throw error
      }
    },
    transaction: (steps) => patiently(() => now(steps), timeoutMs),
    async removeAside(removals, signal) {
      const file = fileOf(database)
      return file === null ? null : removeInWorker(file, removals, signal)
    },
    async close() {
      statements.clear()
      database.close()
    },
  }
}

const SYNCHRONOUS = { full: 'synchronous = full', relaxed: 'synchronous = normal' }
const READS = /^select|\breturning\b/
const NO_ROWS: readonly SqlRow[] = []

/** Does it now, and later again as long as others hold the lock. */
function patiently<T>(task: () => T, timeoutMs: number): Promise<T> {
  try {
    return Promise.resolve(task())
  } catch (error) {
    return isBusy(error) ? later(task, { timeoutMs, first: error }) : Promise.reject(error)
  }
}

async function later<T>(task: () => T, { timeoutMs, first }: { timeoutMs: number; first: unknown }): Promise<T> {
  const end = performance.now() + timeoutMs
  let failure = first
  for (let pause = 1; performance.now() < end; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    await sleep(pause * (0.5 + Math.random()))
    try {
      return task()
    } catch (error) {
      if (!isBusy(error)) throw error
      failure = error
    }
  }
  throw failure
}

function rollback(database: SqliteDatabase): void {
  try {
    database.exec('rollback')
  } catch {
    // SQLite may have done so itself. The error that led here is the one to tell.
  }
}

function isLibsql(database: object): boolean {
  return typeof (database as { syncUntil?: unknown }).syncUntil === 'function'
}
