// PostgreSQL through postgres.js: what `postgres()` gives.

import { runSteps, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow } from '../driver.js'
import { Overdue } from '../overdue.js'

/** The members of `sql` that are called. */
export interface PostgresJs {
  unsafe(sql: string, values: unknown[], options: { prepare: boolean }): PromiseLike<unknown> & { cancel?(): unknown }
  begin(task: (sql: PostgresJs) => Promise<unknown>): Promise<unknown>
  listen?(channel: string, listener: (payload: string) => void): Promise<{ unlisten(): Promise<unknown> }>
  end?(options?: { timeout?: number }): Promise<void>
}

export function isPostgresJs(database: object): database is PostgresJs {
  const { unsafe, begin } = database as Partial<PostgresJs>
  return typeof unsafe === 'function' && typeof begin === 'function'
}

export function postgresJsDriver(
  database: PostgresJs,
  { prepare, timeoutMs }: { prepare: boolean; timeoutMs: number },
): SqlDriver {
  const overdue = new Overdue(timeoutMs)
  const run = async (sql: PostgresJs, query: SqlQuery): Promise<SqlResult> => {
    const call = sql.unsafe(query.sql, [...query.values], { prepare })
    // One that waits for a connection is taken out of the line.
    const watched = overdue.begin(() => call.cancel?.())
    try {
      const rows = (await call) as SqlRow[] & { count: number | null }
      return { rows, count: rows.count ?? 0 }
    } finally {
      overdue.end(watched)
    }
  }
  return {
    dialect: 'postgres',
    query: (sql, values) => run(database, { sql, values }),
    async transaction(steps) {
      let result: unknown
      await database.begin(async (sql) => {
        result = await runSteps(steps(), (query) => run(sql, query))
      })
      return result as never
    },
    ...(database.listen && {
      // Over a connection of its own, which comes back by itself.
      async listen(channel: string, heard: (payload: string) => void) {
        let isStopped = false
        // One that was taken over to another connection cannot be taken back.
        const listening = await database.listen?.(channel, (payload) => {
          if (!isStopped) heard(payload)
        })
        return async () => {
          isStopped = true
          await listening?.unlisten()
        }
      },
    }),
    close: async () => database.end?.({ timeout: 1 }),
  }
}
