// The tables of the SQL store, and how they come to be. A version of the tables that older programs can work with says so, so
// that a deployment can roll forward and back.
import { setTimeout as sleep } from 'node:timers/promises'
import { invalidOption, SessionError } from '../../errors.js'
import type { SqlDialect, SqlDriver, SqlQuery, SqlSteps } from './driver.js'
import { isBusy, isMissingTable, isUndone } from './faults.js'
import { numberOf } from './rows.js'
import type { SqlTables } from './statements.js'

/** What tables are called. */
export interface SqlNaming {
  /**
   * What the names of the three tables begin with: letters, digits and `_`, at most 40 characters.
   * @default 'sojourn_'
   */
  readonly prefix?: string | undefined
  /**
   * The schema of PostgreSQL, or the database of MySQL, that they stand in.
   * @default that of the connection
   */
  readonly schema?: string | undefined
}

/** The version of the tables that this program makes. */
const VERSION = 1
/** The oldest program that can work with them, by the version of the tables that it makes. */
const READABLE_FROM = 1

const NAME = /^[a-z_][a-z0-9_]{0,39}$/i
const SCHEMA_ROW = 'schema'
/** Any number that nobody else takes. */
const ADVISORY_LOCK = 5_076_824_981_317
const BUSY_LIMIT_MS = 10_000

/** @throws {SessionError} `INVALID_OPTION` */
export function tablesOf({ prefix = 'sojourn_', schema }: SqlNaming): SqlTables {
  if (typeof prefix !== 'string' || !NAME.test(prefix)) {
    throw invalidOption('prefix must be letters, digits and _, at most 40 characters, and begin with no digit.')
  }
  if (schema !== undefined && (typeof schema !== 'string' || !NAME.test(schema))) {
    throw invalidOption('schema must be letters, digits and _, at most 40 characters, and begin with no digit.')
  }
  const start = schema === undefined ? prefix : `${schema}.${prefix}`
  return { sessions: `${start}sessions`, users: `${start}users`, names: `${start}names` }
}

/**
 * The statements that make the tables, for those who run them by themselves. They can be run again: what is there stays.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function sessionSchema(
  dialect: SqlDialect,
  naming: SqlNaming & {
    /** MySQL 8 rather than MariaDB: their collations have different names. */
    readonly isMySql8?: boolean | undefined
  } = {},
): readonly string[] {
  return createStatements(dialect, tablesOf(naming), naming.isMySql8 ? 'utf8mb4_0900_bin' : 'utf8mb4_nopad_bin')
}

/**
 * Makes the tables that are missing. In all processes at once, if need be: they are made once. Where everything is there, one
 * row is read, so that the role needs no right to create.
 */
export async function migrate(driver: SqlDriver, tables: SqlTables): Promise<void> {
  const end = performance.now() + BUSY_LIMIT_MS
  while (true) {
    try {
      if (await isCurrent(driver, tables)) return
      await create(driver, tables)
      return
    } catch (error) {
      // Others are at it.
      if (!(isBusy(error) || isUndone(error)) || performance.now() > end) throw error
      await sleep(5 + Math.random() * 45)
    }
  }
}

/**
 * Whether the tables are there and as new as this program.
 * @throws {SessionError} `INVALID_OPTION` when they are of a later version that this program cannot work with
 */
export async function isCurrent(driver: SqlDriver, tables: SqlTables): Promise<boolean> {
  const found = await versionOf(driver, tables)
  if (found === null) return false
  if (found.readableFrom > VERSION) {
    throw invalidOption(
      `The tables of sessions are of version ${found.version}, made by a later version of Sojourn; this one knows ` +
        `${VERSION}. Nothing was changed. Use the later version, or other tables (prefix).`,
    )
  }
  return found.version >= VERSION
}

async function versionOf(
  driver: SqlDriver,
  { names }: SqlTables,
): Promise<{ version: number; readableFrom: number } | null> {
  // To ask a table that is not there would undo a transaction of PostgreSQL that this is part of.
  if (driver.dialect === 'postgres') {
    const { rows } = await driver.query(`select to_regclass('${names}') is not null as found`, [])
    if (rows[0]?.['found'] !== true) return null
  }
  try {
    const { rows } = await driver.query(`select n, text from ${names} where name = '${SCHEMA_ROW}'`, [])
    const [row] = rows
    if (row === undefined) return null
    const version = numberOf(row, 'n')
    const readableFrom = Number(row['text'])
    if (!Number.isSafeInteger(readableFrom)) {
      throw new SessionError('STORE_UNAVAILABLE', 'The version of the tables of sessions cannot be read.')
    }
    return { version, readableFrom }
  } catch (error) {
    if (isMissingTable(error)) return null
    throw error
  }
}

async function create(driver: SqlDriver, tables: SqlTables): Promise<void> {
  const { dialect } = driver
  const collation = dialect === 'mysql' ? await collationOf(driver) : ''
  const statements = createStatements(dialect, tables, collation).map(queryOf)
  // MySQL commits each of them by itself, whatever one says, and lets others wait meanwhile.
  if (dialect === 'mysql') {
    for (const { sql, values } of statements) await driver.query(sql, values)
    return
  }
  await driver.transaction(function* (): SqlSteps<void> {
    // `if not exists` alone fails when two do it at once.
    if (dialect === 'postgres') yield queryOf(`select pg_advisory_xact_lock(${ADVISORY_LOCK})`)
    for (const statement of statements) yield statement
  })
}

async function collationOf(driver: SqlDriver): Promise<string> {
  const { rows } = await driver.query('select version() as version', [])
  return /mariadb/i.test(String(rows[0]?.['version'])) ? 'utf8mb4_nopad_bin' : 'utf8mb4_0900_bin'
}

/** The statements that remove the tables with all that they hold. */
export function dropStatements({ sessions, users, names }: SqlTables): readonly SqlQuery[] {
  return [sessions, users, names].map((table) => queryOf(`drop table if exists ${table}`))
}

function createStatements(dialect: SqlDialect, { sessions, users, names }: SqlTables, collation: string): string[] {
  const { key, text, integer, end, options } = TYPES[dialect]
  const [id, words] = [key.replace('?', collation), text.replace('?', collation)]
  const table = (name: string, columns: readonly string[], ending = end): string =>
    `create table if not exists ${name} (${columns.join(', ')})${ending.replaceAll('?', collation)}`
  return [
    table(
      sessions,
      [
        `id ${id} not null primary key`,
        `version ${integer} not null`,
        `user_id ${words}`,
        `created_at ${integer} not null`,
        `updated_at ${integer} not null`,
        `last_accessed_at ${integer} not null`,
        `expires_at ${integer} not null`,
        `absolute_expires_at ${integer} not null`,
        `idle_timeout_ms ${integer}`,
        `forget_at ${integer} not null`,
        `ended ${words}`,
        `meta ${words} not null`,
        `fields ${words} not null`,
        `large ${words}`,
      ],
      options,
    ),
    table(users, [
      `id ${id} not null primary key`,
      `version ${integer} not null`,
      `entries ${words} not null`,
      `forget_at ${integer} not null`,
    ]),
    table(names, [
      `name ${id} not null primary key`,
      `text ${words}`,
      `owner ${id}`,
      `n ${integer}`,
      `until ${integer}`,
    ]),
    // Texts are JSON, which does not get smaller by much, and what is not compressed is not copied to change a part of the row.
    ...(dialect === 'postgres' ? [`alter table ${sessions} alter column large set storage external`] : []),
    dialect === 'mysql'
      ? `insert into ${names} (name, n, text) values ('${SCHEMA_ROW}', ${VERSION}, '${READABLE_FROM}') on duplicate key update n = n`
      : `insert into ${names} (name, n, text) values ('${SCHEMA_ROW}', ${VERSION}, '${READABLE_FROM}') on conflict do nothing`,
  ]
}

const TYPES: Record<SqlDialect, { key: string; text: string; integer: string; end: string; options: string }> = {
  sqlite: { key: 'text', text: 'text', integer: 'integer', end: ' strict', options: ' strict' },
  // By bytes, whatever the language of the database. The room is for the next version of a row on the same page.
  postgres: {
    key: 'text collate "C"',
    text: 'text',
    integer: 'bigint',
    end: '',
    options: ' with (fillfactor = 70)',
  },
  // Trailing spaces and upper case count: by the usual collations "abc", "ABC" and "abc " are one ID.
  mysql: {
    key: 'varchar(160) character set utf8mb4 collate ?',
    text: 'longtext character set utf8mb4 collate ?',
    integer: 'bigint',
    end: ' engine = InnoDB',
    options: ' engine = InnoDB',
  },
}

function queryOf(sql: string): SqlQuery {
  return { sql, values: [] }
}
