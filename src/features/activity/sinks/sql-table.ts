// The table of the SQL sink: its name and columns, the dialects that are spoken, and the migration that makes it.
import { setTimeout as sleep } from 'node:timers/promises'
import type { CompiledQuery, Expression, Kysely } from 'kysely'
import { SessionError } from '../../../errors.js'

/** What is asked of a Kysely instance, 0.28 or later; `Kysely<YourTables>` is one, whatever its tables. */
export interface SqlDatabase {
  readonly isTransaction: boolean
  readonly schema: object
  withoutPlugins(): object
  transaction(): object
  getExecutor(): object
  selectFrom(...from: never[]): object
  insertInto(table: never): object
  deleteFrom(from: never): object
}

/** The name of the table, for the sink and for its migration. */
export interface SqlTableOptions {
  /**
   * Letters, digits and `_`, at most 40 characters; in PostgreSQL and MySQL after the schema if need be: `'audit.activities'`.
   * @default 'session_activities'
   */
  readonly table?: string | undefined
}

/** A migration of Kysely's: give it to a `Migrator`, or export its two functions from a file in your folder. */
export interface SqlMigration {
  /** Makes the table and its indexes, those that are missing. */
  up(db: SqlDatabase): Promise<void>
  /** Drops the table with all that it holds. */
  down(db: SqlDatabase): Promise<void>
}

/** A row as it is stored. Text columns hold what `storedText()` makes of a text. */
export interface ActivityRow {
  readonly id: string
  /** Milliseconds since 1970: the same order and precision in every database. The `pg` driver gives text. */
  readonly at: number | string | bigint
  readonly type: string
  readonly logical_id: string | null
  readonly session_id: string | null
  readonly user_id: string | null
  /** `'string'` or `'number'`. */
  readonly user_id_type: string | null
  /** JSON. */
  readonly details: string | null
  /** JSON. */
  readonly request: string | null
  /** JSON: the columns above that could not be stored as they are, as they are. */
  readonly originals: string | null
}

/** The tables as Kysely sees them. The one table is called `activities` here, whatever its name. */
export interface Tables {
  activities: ActivityRow
}

/**
 * The table in its database.
 * @internal The types of an optional peer must not reach those who do not have it.
 */
export interface ActivityTable {
  readonly db: Kysely<Tables>
  readonly dialect: SqlDialect
  /** Its name, for messages. */
  readonly label: string
  /** Its name, for queries. */
  readonly name: 'activities'
}

type SqlDialect = 'postgres' | 'sqlite' | 'mysql'

/** Each index ends in what pages are ordered by, so that a page is read from where it begins, without sorting. */
const INDEXES = {
  by_logical_id: ['logical_id', 'at', 'id'],
  by_session_id: ['session_id', 'at', 'id'],
  by_user_id: ['user_id', 'at', 'id'],
  // With the type, counts need nothing but the index.
  by_time: ['at', 'id', 'type'],
} as const

/** In SQLite, whose rows of an index may be of any length, totals need nothing but the index as well. */
const SUMMED = ['session_id', 'user_id', 'user_id_type'] as const

/** An index of PostgreSQL takes 2,704 bytes for all columns of a row, one of MySQL 3,072; a character up to three, or four. */
export const MAX_TEXT_LENGTH = 255
const DEFAULT_TABLE = 'session_activities'
/** PostgreSQL cuts names at 63 characters; those of the indexes are longer than the table's. */
const TABLE_NAME = /^(?:[a-z_][a-z0-9_]{0,39}\.)?[a-z_][a-z0-9_]{0,39}$/i
/** Any number that nobody else takes; Kysely's own lock has another. */
const ADVISORY_LOCK = 5_076_824_981_316
const BUSY_LIMIT_MS = 10_000

/**
 * Makes the table of the SQL sink and its indexes, unless they are there. Run it at deployment or when the application
 * starts, in as many processes at once as you like: the table is made once and all of them go on. Where everything is
 * there, nothing but the catalogue is read, so the role then needs no right to create.
 * @throws {SessionError} `INVALID_OPTION`; `STORE_UNAVAILABLE` with the database's error as its `cause`
 */
export async function migrateActivities(db: SqlDatabase, options: SqlTableOptions = {}): Promise<void> {
  const table = activityTable(db, options)
  await explained(table, 'be made', () => MAKERS[table.dialect](table))
}

const MAKERS: Readonly<Record<SqlDialect, (table: ActivityTable) => Promise<void>>> = {
  postgres: makeInPostgres,
  sqlite: makeInSqlite,
  mysql: makeInMysql,
}

/**
 * The same as a Kysely `Migration`, for those who keep theirs together:
 *
 * ```ts
 * export const { up, down } = activityMigration()
 * ```
 */
export function activityMigration(options: SqlTableOptions = {}): SqlMigration {
  return {
    up: (db) => migrateActivities(db, options),
    async down(db) {
      const table = activityTable(db, options)
      await explained(table, 'be dropped', () => table.db.schema.dropTable(table.name).ifExists().execute())
    },
  }
}

/**
 * Finds the table in a user's database; nothing is asked of the database yet.
 * @throws {SessionError} `INVALID_OPTION`
 * @internal
 */
export function activityTable(db: SqlDatabase, { table = DEFAULT_TABLE }: SqlTableOptions): ActivityTable {
  if (typeof table !== 'string' || !TABLE_NAME.test(table)) {
    throw new SessionError(
      'INVALID_OPTION',
      'table is not a name of letters, digits and _ with at most 40 characters, or two of them as schema.table.',
    )
  }
  // The user's plugins are for the user's tables: one that renames columns would rename ours.
  const plain = isKysely(db) ? (db.withoutPlugins() as unknown as Kysely<Tables>) : undefined
  const dialect = plain === undefined ? undefined : dialectOf(plain)
  if (plain === undefined || dialect === undefined) {
    throw new SessionError(
      'INVALID_OPTION',
      'db is not a Kysely instance for PostgreSQL, MySQL or SQLite; hand in new Kysely({ dialect }).',
    )
  }
  if (dialect === 'sqlite' && table.includes('.')) {
    throw new SessionError(
      'INVALID_OPTION',
      'table has a schema, which SQLite does not know; leave out what is before the dot.',
    )
  }
  return { db: plain, dialect, label: table, name: table as 'activities' }
}

/**
 * Runs what is done with the table; what the database throws becomes an error of ours, without SQL or values.
 * @internal
 */
export async function explained<T>(table: ActivityTable, verb: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof SessionError) throw cause
    const { label } = table
    const message = isMissingTable(cause)
      ? `There is no table ${label}: run migrateActivities(db) once, before the application starts.`
      : `The table ${label} could not ${verb}${codeOf(cause)}.`
    throw new SessionError('STORE_UNAVAILABLE', message, { cause })
  }
}

/** Under a lock, since `if not exists` alone fails when two do it at once, and in a transaction: all of it or nothing. */
async function makeInPostgres(table: ActivityTable): Promise<void> {
  if (await isInPostgres(table)) return
  const make = async (db: Kysely<Tables>): Promise<void> => {
    await db.selectNoFrom(({ fn, val }) => fn('pg_advisory_xact_lock', [val(ADVISORY_LOCK)]).as('lock')).execute()
    if (!(await isInPostgres({ ...table, db }))) await create({ ...table, db })
  }
  await (table.db.isTransaction ? make(table.db) : table.db.transaction().execute(make))
}

/** Not in one transaction: every step can be done again. Another process may hold the lock, and few drivers wait for it. */
async function makeInSqlite(table: ActivityTable): Promise<void> {
  const end = performance.now() + BUSY_LIMIT_MS
  let wasLocked = false
  while (true) {
    try {
      if (!(await isInSqlite(table))) await create(table)
      // libsql 0.5 commits nothing while a statement that met a lock is not garbage yet, and does not say so. The end of a
      // transaction tells, and undoes what was made.
      if (wasLocked && !table.db.isTransaction) await table.db.transaction().execute(nothing)
      return
    } catch (error) {
      if (!isBusy(error) || performance.now() > end) throw error
      wasLocked = true
      await sleep(5 + Math.random() * 45)
    }
  }
}

/** In one statement, which MySQL does whole and once, whoever else does it at the same time. */
async function makeInMysql({ db, name }: ActivityTable): Promise<void> {
  if (await isInMysql(db, name)) return
  const { version } = await db.selectNoFrom(({ fn }) => fn<string>('version').as('version')).executeTakeFirstOrThrow()
  // By the bytes, spaces at the end included.
  const collation = /mariadb/i.test(version) ? 'utf8mb4_nopad_bin' : 'utf8mb4_0900_bin'
  const text = `varchar(${MAX_TEXT_LENGTH}) character set utf8mb4 collate ${collation}`
  const long = 'mediumtext character set utf8mb4 collate utf8mb4_bin'
  const parts = [
    `id ${text} not null primary key`,
    'at bigint not null',
    `type ${text} not null`,
    ...['logical_id', 'session_id', 'user_id'].map((column) => `${column} ${text}`),
    'user_id_type varchar(10)',
    ...['details', 'request', 'originals'].map((column) => `${column} ${long}`),
    ...Object.entries(INDEXES).map(([index, columns]) => `index ${indexName(name, index)} (${columns.join(', ')})`),
  ]
  const quoted = name.split('.').map((part) => `\`${part}\``)
  await db.executeQuery(statement(`create table if not exists ${quoted.join('.')} (${parts.join(', ')})`))
}

async function isInMysql(db: Kysely<Tables>, name: string): Promise<boolean> {
  const catalogue = db as unknown as Kysely<{
    'information_schema.tables': { table_schema: string; table_name: string }
  }>
  const schema = name.includes('.') ? name.split('.')[0] : undefined
  const found = await catalogue
    .selectFrom('information_schema.tables')
    .select('table_name as name')
    .where('table_name', '=', unqualified(name))
    .where('table_schema', '=', ({ fn, val }) => (schema === undefined ? fn<string>('database') : val(schema)))
    .executeTakeFirst()
  return found !== undefined
}

async function nothing(): Promise<void> {}

async function create({ db, dialect, name }: ActivityTable): Promise<void> {
  // By the bytes, as in SQLite; by the rules of a language, order would differ from one database to the next.
  const text = dialect === 'postgres' ? raw('text collate "C"') : 'text'
  await db.schema
    .createTable(name)
    .ifNotExists()
    .addColumn('id', text, (column) => column.notNull().primaryKey())
    .addColumn('at', 'bigint', (column) => column.notNull())
    .addColumn('type', text, (column) => column.notNull())
    .addColumn('logical_id', text)
    .addColumn('session_id', text)
    .addColumn('user_id', text)
    .addColumn('user_id_type', 'text')
    .addColumn('details', 'text')
    .addColumn('request', 'text')
    .addColumn('originals', 'text')
    .execute()
  for (const [index, columns] of Object.entries(INDEXES)) {
    await db.schema
      .createIndex(indexName(name, index))
      .ifNotExists()
      .on(name)
      .columns(dialect === 'sqlite' && index === 'by_time' ? [...columns, ...SUMMED] : [...columns])
      .execute()
  }
}

async function isInPostgres({ db, name }: ActivityTable): Promise<boolean> {
  const schema = name.includes('.') ? `"${name.split('.')[0]}".` : ''
  const all = [unqualified(name), ...Object.keys(INDEXES).map((index) => indexName(name, index))]
  const found = await db
    .selectNoFrom(({ fn, val }) => all.map((one) => fn('to_regclass', [val(`${schema}"${one}"`)]).as(one)))
    .executeTakeFirstOrThrow()
  return Object.values(found).every((one) => one !== null)
}

async function isInSqlite({ db, name }: ActivityTable): Promise<boolean> {
  const catalogue = db as unknown as Kysely<{ sqlite_master: { name: string } }>
  const all = [name, ...Object.keys(INDEXES).map((index) => indexName(name, index))]
  const found = await catalogue.selectFrom('sqlite_master').select('name').where('name', 'in', all).execute()
  return found.length === all.length
}

/** An index lies in the schema of its table. */
function indexName(table: string, index: string): string {
  return `${unqualified(table)}_${index}`
}

function unqualified(table: string): string {
  return table.slice(table.indexOf('.') + 1)
}

/** A statement without parameters. */
function statement(text: string): CompiledQuery {
  const query = { kind: 'RawNode', sqlFragments: [text], parameters: [] } as const
  return { sql: text, parameters: [], query, queryId: { queryId: text } }
}

/** What Kysely's `sql` would make: an optional peer is not imported at run time. */
function raw(text: string): Expression<string> {
  const node = { kind: 'RawNode', sqlFragments: [text], parameters: [] } as const
  return { expressionType: undefined, toOperationNode: () => node }
}

function isKysely(db: unknown): db is SqlDatabase {
  const { selectFrom, insertInto, withoutPlugins } = (db ?? {}) as Partial<SqlDatabase>
  return [selectFrom, insertInto, withoutPlugins].every((member) => typeof member === 'function')
}

/** By what Kysely would send: anybody may write a dialect for these databases, under any name. */
function dialectOf(db: Kysely<Tables>): SqlDialect | undefined {
  const { sql } = db.selectFrom('activities').select('id').where('id', '=', '').limit(1).compile()
  if (sql.includes('"id" = $1')) return 'postgres'
  if (sql.includes('`id` = ?')) return 'mysql'
  return sql.includes('"id" = ?') ? 'sqlite' : undefined
}

function isMissingTable(error: unknown): boolean {
  const { code, message } = factsOf(error)
  return code === '42P01' || code === 'ER_NO_SUCH_TABLE' || message.startsWith('no such table')
}

function isBusy(error: unknown): boolean {
  const { code, message } = factsOf(error)
  return /^SQLITE_(?:BUSY|LOCKED)/.test(code) || /is locked/.test(message)
}

/** An SQLSTATE, or the name of an error of SQLite or of the connection: these never hold a value. */
function codeOf(error: unknown): string {
  const { code } = factsOf(error)
  return /^[A-Z0-9_]{3,40}$/.test(code) ? ` (${code})` : ''
}

function factsOf(error: unknown): { code: string; message: string } {
  const { code = '', message = '' } = (error ?? {}) as { code?: unknown; message?: unknown }
  return { code: String(code), message: String(message) }
}
