// PostgreSQL through postgres.js: what `postgres()` gives.
import { runSteps, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow } from '../driver.js'

/** The members of `sql` that are called. */
export interface PostgresJs {
  unsafe(sql: string, values: unknown[], options: { prepare: boolean }): PromiseLike<unknown>
  begin(task: (sql: PostgresJs) => Promise<unknown>): Promise<unknown>
  end?(options?: { timeout?: number }): Promise<void>
}

export function isPostgresJs(database: object): database is PostgresJs {
  const { unsafe, begin } = database as Partial<PostgresJs>
  return typeof unsafe === 'function' && typeof begin === 'function'
}

export function postgresJsDriver(database: PostgresJs, { prepare }: { prepare: boolean }): SqlDriver {
  const run = async (sql: PostgresJs, query: SqlQuery): Promise<SqlResult> => {
    const rows = (await sql.unsafe(query.sql, [...query.values], { prepare })) as SqlRow[] & { count: number | null }
    return { rows, count: rows.count ?? 0 }
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
    close: async () => database.end?.({ timeout: 1 }),
  }
}
