// Any of the three databases through a Kysely instance of the application's own, which it may share with other tables.
import { runSteps, type SqlDialect, type SqlDriver, type SqlQuery, type SqlResult, type SqlRow } from '../driver.js'

interface CompiledQuery {
  readonly sql: string
  readonly parameters: readonly unknown[]
  readonly query: object
  readonly queryId: { readonly queryId: string }
}

/** The members of a Kysely instance that are called. */
export interface KyselyDatabase {
  readonly isTransaction: boolean
  withoutPlugins(): object
  executeQuery(query: never): Promise<object>
  transaction(): object
  selectFrom(...from: never[]): object
}

interface Plain {
  readonly isTransaction: boolean
  executeQuery(query: CompiledQuery): Promise<{
    rows: unknown[]
    numAffectedRows?: bigint
  }>
  transaction(): { execute(task: (transaction: Plain) => Promise<unknown>): Promise<unknown> }
  selectFrom(table: string): { select(column: string): { where(...where: string[]): { compile(): { sql: string } } } }
}

export function isKysely(database: object): database is KyselyDatabase {
  const { withoutPlugins, executeQuery, selectFrom } = database as Partial<KyselyDatabase>
  return [withoutPlugins, executeQuery, selectFrom].every((member) => typeof member === 'function')
}

export function kyselyDriver(database: KyselyDatabase): SqlDriver {
  // The user's plugins are for the user's tables: some would rename our columns, or parse our JSON.
  const plain = database.withoutPlugins() as Plain
  const dialect = dialectOf(plain)
  return {
    dialect,
    query: (sql, values) => run(plain, { sql, values }),
    async transaction(steps) {
      const task = (db: Plain) => runSteps(steps(), (query) => run(db, query))
      if (plain.isTransaction) return task(plain)
      let result: unknown
      await plain.transaction().execute(async (db) => {
        result = await task(db)
      })
      return result as never
    },
  }
}

async function run(db: Plain, { sql, values }: SqlQuery): Promise<SqlResult> {
  const { rows, numAffectedRows } = await db.executeQuery({
    sql,
    parameters: values,
    query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
    queryId: { queryId: sql },
  })
  return { rows: rows as SqlRow[], count: Number(numAffectedRows ?? rows.length) }
}

/** By what Kysely would send: anybody may write a dialect for these databases, under any name. */
function dialectOf(db: Plain): SqlDialect {
  const { sql } = db.selectFrom('t').select('id').where('id', '=', '').compile()
  if (sql.includes('$1')) return 'postgres'
  return sql.includes('`') ? 'mysql' : 'sqlite'
}
