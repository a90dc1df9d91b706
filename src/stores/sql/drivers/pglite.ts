// PostgreSQL in this process through PGlite: for tests. It holds the event loop while it works.
import { runSteps, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow } from '../driver.js'

interface PGliteQueries {
  query(sql: string, values: unknown[]): Promise<{ rows: unknown[]; affectedRows?: number }>
}

/** The members of a `PGlite` that are called. */
export interface PGliteDatabase extends PGliteQueries {
  transaction(task: (transaction: PGliteQueries) => Promise<unknown>): Promise<unknown>
  readonly waitReady: Promise<void>
}

export function isPGlite(database: object): database is PGliteDatabase {
  const { query, transaction, waitReady } = database as Partial<PGliteDatabase>
  return typeof query === 'function' && typeof transaction === 'function' && waitReady instanceof Promise
}

export function pgliteDriver(database: PGliteDatabase): SqlDriver {
  const run = async (client: PGliteQueries, { sql, values }: SqlQuery): Promise<SqlResult> => {
    const { rows, affectedRows = 0 } = await client.query(sql, [...values])
    return { rows: rows as SqlRow[], count: affectedRows }
  }
  return {
    dialect: 'postgres',
    query: (sql, values) => run(database, { sql, values }),
    async transaction(steps) {
      let result: unknown
      await database.transaction(async (client) => {
        result = await runSteps(steps(), (query) => run(client, query))
      })
      return result as never
    },
  }
}
