// Which database was handed in, found by its shape, and databases that the store opens itself.
import { invalidOption, SessionError } from '../../errors.js'
import type { SqlDriver } from './driver.js'
import { isKysely, kyselyDriver } from './drivers/kysely.js'
import { isMysqlPool, type MysqlPool, mysqlDriver } from './drivers/mysql.js'
import { isPgClient, isPgPool, type PgPool, pgDriver } from './drivers/pg.js'
import { isPGlite, pgliteDriver } from './drivers/pglite.js'
import { isPostgresJs, type PostgresJs, postgresJsDriver } from './drivers/postgres-js.js'
import { isSqlite, type SqliteDatabase, sqliteDriver } from './drivers/sqlite.js'

/**
 * A database of yours: a `Pool` or `Client` of pg, what `postgres()` of postgres.js gives, a `PGlite`, a `Database` of
 * better-sqlite3, libsql or bun:sqlite, a `DatabaseSync` of node:sqlite, a pool of mysql2 or mariadb, a Kysely instance, or
 * an `SqlDriver` for what else there is.
 */
export type SqlDatabase = object

/** How a database is used. */
export interface SqlUse {
  /** Default: as the connections are. */
  readonly durability: 'full' | 'relaxed' | undefined
  readonly prepare: boolean
  readonly timeoutMs: number
}

/** @throws {SessionError} `INVALID_OPTION` when it is none that is known */
export function driverOf(database: unknown, use: SqlUse): SqlDriver {
  const isObject = (typeof database === 'object' && database !== null) || typeof database === 'function'
  if (isObject) {
    if (isDriver(database)) return database
    if (isKysely(database)) return kyselyDriver(database)
    if (isPostgresJs(database)) return postgresJsDriver(database, use)
    if (isPGlite(database)) return pgliteDriver(database)
    if (isMysqlPool(database)) return mysqlDriver(database)
    if (isPgPool(database) || isPgClient(database)) return pgDriver(database, use)
    if (isSqlite(database)) return sqliteDriver(database, use)
  }
  throw invalidOption(
    'database is none that is known. Hand in a Pool of pg, what postgres() gives, a Database of better-sqlite3, libsql or ' +
      'bun:sqlite, a DatabaseSync of node:sqlite, a pool of mysql2 or mariadb, a Kysely instance, or an SqlDriver.',
  )
}

function isDriver(database: object): database is SqlDriver {
  const { dialect, query, transaction } = database as Partial<SqlDriver>
  return (
    (dialect === 'sqlite' || dialect === 'postgres' || dialect === 'mysql') &&
    typeof query === 'function' &&
    typeof transaction === 'function'
  )
}

/** What a URL says. */
export interface SqlLocation {
  readonly kind: 'sqlite' | 'postgres' | 'mysql'
  readonly url: string
}

/** @throws {SessionError} `INVALID_OPTION` */
export function locationOf(url: unknown): SqlLocation {
  const scheme = typeof url === 'string' ? /^(\w+):/.exec(url)?.[1] : undefined
  switch (scheme) {
    case 'sqlite':
    case 'file':
      return { kind: 'sqlite', url: url as string }
    case 'postgres':
    case 'postgresql':
      return { kind: 'postgres', url: url as string }
    case 'mysql':
    case 'mariadb':
      return { kind: 'mysql', url: url as string }
    default:
      throw invalidOption('url must begin with sqlite:, postgres:// or mysql://, as in sqlite:./sessions.db.')
  }
}

/** Opens a database with whichever client is installed. */
export function openDatabase({ kind, url }: SqlLocation, use: SqlUse): Promise<SqlDriver> {
  switch (kind) {
    case 'sqlite':
      return openSqlite(pathOf(url), use)
    case 'postgres':
      return openPostgres(url, use)
    case 'mysql':
      return openMysql(url)
  }
}

/** `sqlite:./a.db`, `sqlite:///a.db`, `file:a.db`; behind `?` there is nothing for us. */
function pathOf(url: string): string {
  const path = url.replace(/^\w+:(\/\/)?/, '').replace(/\?.*$/, '')
  if (path === '') throw invalidOption('url has no path; write sqlite:./sessions.db, or sqlite::memory: for a test.')
  return decodeURIComponent(path)
}

type Constructor = new (path: string, options?: object) => SqliteDatabase

async function openSqlite(path: string, use: SqlUse): Promise<SqlDriver> {
  const Database = await sqliteConstructor()
  const database = new Database(path)
  // A file that several processes write to, and readers that wait for nobody.
  await patientPragma(database, 'journal_mode = wal')
  return sqliteDriver(database, use)
}

/** To change the mode of a file takes it alone. It is done once in the life of a file. */
async function patientPragma(database: SqliteDatabase, pragma: string): Promise<void> {
  database.exec('pragma busy_timeout = 5000')
  database.exec(`pragma ${pragma}`)
}

/** The clients in the order in which they are tried: what somebody has installed is there for a reason. Bun loads none of them. */
async function sqliteConstructor(): Promise<Constructor> {
  const isBun = 'bun' in process.versions
  for (const name of isBun ? [] : ['better-sqlite3', 'libsql']) {
    const found = await load(name)
    if (found !== null) return defaultOf(found) as Constructor
  }
  const [name, member] = isBun ? ['bun:sqlite', 'Database'] : ['node:sqlite', 'DatabaseSync']
  const found = await load(name as string)
  if (found !== null) return (found as Record<string, Constructor>)[member as string] as Constructor
  throw missing(
    'a url of SQLite needs Node 22.13 or later, Bun, or one of the packages better-sqlite3 and libsql: npm install better-sqlite3',
  )
}

async function openPostgres(url: string, use: SqlUse): Promise<SqlDriver> {
  // On is how a server is; and a pooler in between may refuse to be told.
  const isRelaxed = use.durability === 'relaxed'
  const pg = await load('pg')
  if (pg !== null) {
    const { Pool } = defaultOf(pg) as unknown as { Pool: new (options: object) => PgPool & Emitter }
    const pool = new Pool({
      connectionString: url,
      connectionTimeoutMillis: CONNECT_MS,
      allowExitOnIdle: true,
      ...(isRelaxed && { options: '-c synchronous_commit=off' }),
    })
    // A connection that is lost while nobody uses it is replaced when somebody does.
    pool.on('error', () => {})
    return pgDriver(pool, use)
  }
  const postgres = await load('postgres')
  if (postgres !== null) {
    const open = defaultOf(postgres) as unknown as (url: string, options: object) => PostgresJs
    const sql = open(url, {
      connect_timeout: CONNECT_MS / 1000,
      onnotice: () => {},
      ...(isRelaxed && { connection: { synchronous_commit: 'off' } }),
    })
    return postgresJsDriver(sql, use)
  }
  throw missing('a url of PostgreSQL needs one of the packages pg and postgres: npm install pg')
}

async function openMysql(url: string): Promise<SqlDriver> {
  const mysql2 = await load('mysql2/promise')
  if (mysql2 !== null) {
    const { createPool } = defaultOf(mysql2) as unknown as { createPool: (options: object) => MysqlPool }
    return mysqlDriver(createPool({ uri: url.replace(/^mariadb:/, 'mysql:'), connectTimeout: CONNECT_MS }))
  }
  const mariadb = await load('mariadb')
  if (mariadb !== null) {
    const { createPool } = defaultOf(mariadb) as unknown as { createPool: (url: string) => MysqlPool }
    return mysqlDriver(
      createPool(`${url.replace(/^mysql:/, 'mariadb:')}${url.includes('?') ? '&' : '?'}logParam=false`),
    )
  }
  throw missing('a url of MySQL or MariaDB needs one of the packages mysql2 and mariadb: npm install mysql2')
}

/** How long a connection may take. */
const CONNECT_MS = 5_000

interface Emitter {
  on(event: 'error', listener: () => void): unknown
}

/** A module that may not be there. The names are not written as imports, so that bundlers leave them alone. */
async function load(name: string): Promise<object | null> {
  try {
    return (await import(name)) as object
  } catch (error) {
    const { code } = (error ?? {}) as { code?: unknown }
    const isMissing = [
      'ERR_MODULE_NOT_FOUND',
      'MODULE_NOT_FOUND',
      'ERR_UNKNOWN_BUILTIN_MODULE',
      'ERR_UNSUPPORTED_ESM_URL_SCHEME',
    ]
    if (typeof code === 'string' && isMissing.includes(code)) return null
    // Bun and bundlers have errors of their own for what is not there.
    if (/cannot find|could not resolve|no such built-in/i.test(String(error))) return null
    throw error
  }
}

/** What a module of CommonJS exports. */
function defaultOf(module: object): unknown {
  return (module as { default?: unknown }).default ?? module
}

function missing(what: string): SessionError {
  return new SessionError('MISSING_DEPENDENCY', `SqlSessionStore: ${what}.`)
}
