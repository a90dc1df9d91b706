// PostgreSQL through pg: a `Pool`, or one `Client`.
import { runSteps, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow, type SqlSteps, Turn } from '../driver.js'

/** What a query is to pg. */
interface PgQuery {
  readonly text: string
  readonly values: readonly unknown[]
  readonly name?: string | undefined
}

/** The members of a `Pool` or `Client` that are called. */
export interface PgClient {
  query(query: PgQuery): Promise<{ rows: unknown[]; rowCount: number | null }>
}

export interface PgPool extends PgClient {
  connect(): Promise<PgClient & { release(error?: unknown): void }>
  readonly totalCount: number
  end?(): Promise<void>
}

/** How statements are sent. */
export interface PgSettings {
  /** Whether each statement is prepared once on each connection. A pooler between transactions may not know of it later. */
  readonly prepare: boolean
}

export function isPgPool(database: object): database is PgPool {
  const { query, connect, totalCount } = database as Partial<PgPool>
  return typeof query === 'function' && typeof connect === 'function' && typeof totalCount === 'number'
}

export function isPgClient(database: object): database is PgClient {
  const { query, connect, escapeIdentifier } = database as Record<string, unknown>
  return [query, connect, escapeIdentifier].every((member) => typeof member === 'function')
}

export function pgDriver(database: PgPool | PgClient, { prepare }: PgSettings): SqlDriver {
  const names = new Map<string, string>()
  const nameOf = (sql: string): string => {
    const name = names.get(sql) ?? `sojourn_${names.size}_${sql.length}`
    names.set(sql, name)
    return name
  }
  const run = async (client: PgClient, { sql, values }: SqlQuery): Promise<SqlResult> => {
    const query = prepare ? { text: sql, values, name: nameOf(sql) } : { text: sql, values }
    const { rows, rowCount } = await client.query(query)
    return { rows: rows as SqlRow[], count: rowCount ?? 0 }
  }
  const transaction = async <T>(client: PgClient, steps: () => SqlSteps<T>): Promise<T> => {
    await client.query({ text: 'begin', values: [] })
    try {
      const result = await runSteps(steps(), (query) => run(client, query))
      await client.query({ text: 'commit', values: [] })
      return result
    } catch (error) {
      await client.query({ text: 'rollback', values: [] })
      throw error
    }
  }

  if (!isPgPool(database)) {
    // One connection: nobody else's statement may come into a transaction of ours.
    const turn = new Turn()
    return {
      dialect: 'postgres',
      query: (sql, values) => turn.take(() => run(database, { sql, values })),
      transaction: (steps) => turn.take(() => transaction(database, steps)),
    }
  }
  return {
    dialect: 'postgres',
    query: (sql, values) => run(database, { sql, values }),
    async transaction(steps) {
      const client = await database.connect()
      let failure: unknown
      try {
        return await transaction(client, steps)
      } catch (error) {
        failure = error
        throw error
      } finally {
        // A connection of which nobody knows how far it came is closed.
        client.release(isLost(failure) ? true : undefined)
      }
    },
    close: async () => database.end?.(),
  }
}

/** Not an answer of the server, which has a class of SQLSTATE. */
function isLost(error: unknown): boolean {
  if (error === undefined) return false
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || code.startsWith('57P')
}
