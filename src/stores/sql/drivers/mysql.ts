// MySQL and MariaDB through mysql2 (its promises or its callbacks) or mariadb: a pool of either.
import { runSteps, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow, type SqlSteps } from '../driver.js'

interface MysqlQueries {
  execute(query: object, values: readonly unknown[]): Promise<unknown>
}

interface MysqlConnection extends MysqlQueries {
  beginTransaction(): Promise<unknown>
  commit(): Promise<unknown>
  rollback(): Promise<unknown>
  release(): unknown
  destroy(): unknown
}

/** The members of a pool that are called. */
export interface MysqlPool extends MysqlQueries {
  getConnection(): Promise<MysqlConnection>
  end?(): Promise<unknown>
}

export function isMysqlPool(database: object): boolean {
  const { execute, getConnection } = database as Partial<MysqlPool>
  return typeof execute === 'function' && typeof getConnection === 'function'
}

export function mysqlDriver(given: object): SqlDriver {
  // A pool of mysql2 that takes callbacks has one that gives promises inside of it.
  const { promise } = given as { promise?: unknown }
  const database = (typeof promise === 'function' ? promise.call(given) : given) as MysqlPool

  const run = async (client: MysqlQueries, { sql, values }: SqlQuery): Promise<SqlResult> => {
    // mariadb would put parameters into messages, and give numbers as `bigint` beyond what is asked of it here.
    const answer = await client.execute({ sql, logParam: false, bigIntAsNumber: true, insertIdAsNumber: true }, values)
    // mysql2 gives a list of rows or a head, and the columns; mariadb the rows or the head alone.
    const isPair = Array.isArray(answer) && answer.length === 2 && (Array.isArray(answer[1]) || answer[1] === undefined)
    const found: unknown = isPair ? answer[0] : answer
    if (Array.isArray(found)) return { rows: found as SqlRow[], count: found.length }
    return { rows: [], count: Number((found as { affectedRows?: unknown }).affectedRows ?? 0) }
  }
  return {
    dialect: 'mysql',
    query: (sql, values) => run(database, { sql, values }),
    async transaction<T>(steps: () => SqlSteps<T>): Promise<T> {
      const client = await database.getConnection()
      try {
        await client.beginTransaction()
        const result = await runSteps(steps(), (query) => run(client, query))
        await client.commit()
        client.release()
        return result
      } catch (error) {
        // A connection of which nobody knows how far it came is closed.
        await client.rollback().then(
          () => client.release(),
          () => client.destroy(),
        )
        throw error
      }
    },
    close: async () => {
      await database.end?.()
    },
  }
}
