// The clients of databases that the benchmarks of SQL use, each with the few calls that they make of it.
import { createRequire } from 'node:module'
import { join } from 'node:path'

/**
 * @typedef {object} SqlClient
 * @property {object} database what a store takes
 * @property {(sql: string, values?: unknown[]) => Promise<object[]> | object[]} rows runs a prepared statement; parameters stand as `?`
 * @property {(sql: string, values?: unknown[]) => Promise<unknown> | unknown} write the same for one that gives no rows
 * @property {() => Promise<void>} close
 */

/** The clients, and which of the databases each is of. */
export const CLIENTS = { pg: 'postgres', mysql2: 'mariadb', 'better-sqlite3': 'sqlite', 'node:sqlite': 'sqlite' }

/** Where the database of a client is, of all of them. */
export function whereOf(kind, databases, name = 'sessions') {
  const where = databases[CLIENTS[kind]]
  return CLIENTS[kind] === 'sqlite' ? join(where, `${name}-${kind.replace(/\W/g, '-')}.db`) : where
}

/**
 * Opens a client; `onStatement` is told each statement that it sends.
 * @returns {Promise<SqlClient>}
 */
export function openClient(kind, where, onStatement = null) {
  switch (kind) {
    case 'pg':
      return openPg(where, onStatement)
    case 'mysql2':
      return openMysql(where, onStatement)
    default:
      return openSqlite(kind, where, onStatement)
  }
}

/** Whether a client can be loaded by this version of Node. */
export async function isThere(kind) {
  try {
    const client = await openClient(kind, CLIENTS[kind] === 'sqlite' ? ':memory:' : 'postgres://127.0.0.1:1/none')
    await client.close()
    return true
  } catch {
    return false
  }
}

async function openPg(url, onStatement) {
  const { default: pg } = await import('pg')
  const pool = new pg.Pool({ connectionString: url, max: 10 })
  if (onStatement) {
    pool.on('connect', (client) => {
      const query = client.query
      client.query = function counted(...args) {
        onStatement(args[0].text ?? args[0])
        return query.apply(client, args)
      }
    })
  }
  const prepared = new Map()
  const rows = async (sql, values = []) => {
    let query = prepared.get(sql)
    if (query === undefined) {
      let count = 0
      query = { name: `raw${prepared.size}`, text: sql.replace(/\?/g, () => `$${++count}`) }
      prepared.set(sql, query)
    }
    return (await pool.query({ ...query, values })).rows
  }
  return { database: pool, rows, write: rows, close: () => pool.end() }
}

async function openMysql(url, onStatement) {
  const { createPool } = await import('mysql2/promise')
  const pool = createPool({ uri: url })
  if (onStatement) {
    pool.pool.on('connection', (connection) => {
      for (const method of ['execute', 'query']) {
        const original = connection[method]
        connection[method] = function counted(...args) {
          onStatement(args[0].sql ?? args[0])
          return original.apply(connection, args)
        }
      }
    })
  }
  const rows = async (sql, values = []) => (await pool.execute(sql, values))[0]
  return { database: pool, rows, write: rows, close: () => pool.end() }
}

async function openSqlite(kind, path, onStatement) {
  const database = kind === 'node:sqlite' ? nodeSqlite(path) : new (createRequire(import.meta.url)(kind))(path)
  database.exec('pragma journal_mode = wal')
  // As the store has it, and its peers should: without it a commit is not on the disk when it is acknowledged.
  database.exec('pragma synchronous = full')
  if (onStatement) {
    const prepare = database.prepare
    database.prepare = function counted(sql) {
      const statement = prepare.call(database, sql)
      for (const method of ['all', 'get', 'run']) {
        const original = statement[method]
        statement[method] = (...args) => {
          onStatement(sql)
          return original.apply(statement, args)
        }
      }
      return statement
    }
  }
  const prepared = new Map()
  const statementOf = (sql) => {
    let statement = prepared.get(sql)
    if (statement === undefined) {
      statement = database.prepare(sql)
      prepared.set(sql, statement)
    }
    return statement
  }
  return {
    database,
    rows: (sql, values = []) => statementOf(sql).all(...values),
    write: (sql, values = []) => statementOf(sql).run(...values),
    close: async () => {
      prepared.clear()
      database.close()
    },
  }
}

function nodeSqlite(path) {
  const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
  return new DatabaseSync(path)
}
