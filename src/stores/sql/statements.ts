// The statements of the SQL store in each dialect. What is not said of a dialect is alike in all three.
import type { SqlDialect } from './driver.js'

/** The names of the tables, ready for a statement. */
export interface SqlTables {
  readonly sessions: string
  readonly users: string
  readonly names: string
}

/** A table that forgets, and when. */
export interface Forgetting {
  readonly table: string
  readonly key: string
  readonly when: string
}

export type Statements = ReturnType<typeof statementsFor>

/** Statements that take nothing but their parameters. */
export type PlainStatement = {
  [Name in keyof Statements]: Statements[Name] extends string ? Name : never
}[keyof Statements]

/** What a record is read from. */
const RECORD = 'version, last_accessed_at, expires_at, ended, meta, fields, large'

/** The columns of a record in the order of their parameters; `large` comes last, and `forget_at` is a time from now. */
const COLUMNS = [
  'version',
  'user_id',
  'created_at',
  'updated_at',
  'last_accessed_at',
  'expires_at',
  'absolute_expires_at',
  'idle_timeout_ms',
  'ended',
  'meta',
  'fields',
  'forget_at',
] as const

const TEXTS: ReadonlySet<string> = new Set(['id', 'user_id', 'ended', 'meta', 'fields', 'large'])

export function statementsFor(dialect: SqlDialect, { sessions, users, names }: SqlTables) {
  const isSqlite = dialect === 'sqlite'
  const isMysql = dialect === 'mysql'
  const [greatest, least] = isSqlite ? ['max', 'min'] : ['greatest', 'least']
  const now = nowOf(dialect)
  const forUpdate = isSqlite ? '' : ' for update'
  const sql = (text: string): string => (dialect === 'postgres' ? numbered(text) : text)
  /** What an insert does when the key is there: nothing. MySQL rejects then, since its `ignore` also shortens texts. */
  const orNothing = isMysql ? '' : ' on conflict do nothing'
  /** What an insert does when the key is there: the same as an update. */
  const orUpdate = (key: string, sets: readonly string[]): string =>
    isMysql ? ` on duplicate key update ${sets.join(', ')}` : ` on conflict (${key}) do update set ${sets.join(', ')}`
  /** The value that an insert would have written. */
  const given = (column: string): string => (isMysql ? `values(${column})` : `excluded.${column}`)
  const returning = (columns: string): string => (isMysql ? '' : ` returning ${columns}`)
  /** The value that is there, in an upsert. */
  const held = (column: string): string => (isMysql ? column : `${names}.${column}`)

  const insert = `insert into ${sessions} (id, ${COLUMNS.join(', ')}, large) values (?, ${COLUMNS.map((column) =>
    column === 'forget_at' ? `${now} + ?` : '?',
  ).join(', ')}, ?)`
  /** A parameter that is like a column: PostgreSQL takes those of a select for texts. */
  const typed = (column: string): string =>
    dialect === 'postgres' ? `cast(? as ${TEXTS.has(column) ? 'text' : 'bigint'})` : '?'
  /** The same as a select, which a condition can be put on. */
  const insertSelect = (source: string): string => {
    const selected = COLUMNS.map((column) => (column === 'forget_at' ? `${now} + ${typed(column)}` : typed(column)))
    const list = [typed('id'), ...selected, typed('large')].join(', ')
    return `insert into ${sessions} (id, ${COLUMNS.join(', ')}, large) select ${list} from ${source}`
  }
  const setOf = (column: string, keepsLater: boolean): string => {
    if (column === 'forget_at') return `forget_at = ${now} + ?`
    const isTouched = column === 'last_accessed_at' || column === 'expires_at'
    return isTouched && keepsLater ? `${column} = ${greatest}(${sessions}.${column}, ?)` : `${column} = ?`
  }
  const swap = (keepsLater: boolean, withLarge: boolean): string => {
    const sets = COLUMNS.map((column) => setOf(column, keepsLater))
    if (withLarge) sets.push('large = ?')
    return sql(`update ${sessions} set ${sets.join(', ')} where id = ? and version = ?`)
  }
  /** The columns of a tombstone; 1 if `large` stays, else 0; what it is else. */
  const tombstone = [
    ...COLUMNS.map((column) => setOf(column, true)),
    `large = case when ${typed('version')} = 1 then large else ${typed('large')} end`,
  ].join(', ')
  const touched = `${greatest}(expires_at, ${least}(${greatest}(last_accessed_at, ?) + ?, absolute_expires_at))`
  const alive =
    'ended is null and absolute_expires_at > ? and expires_at > ? and (idle_timeout_ms is null or last_accessed_at + idle_timeout_ms > ?)'
  /** Of one owner, or over. A lease that lapsed while the statement waited is taken the next time. */
  const isFree = `${held('owner')} = ${given('owner')} or ${held('until')} <= ${now}`

  return {
    /** Version that is known, in PostgreSQL once, else three times; ID: what is known does not come again. */
    get: `select version, last_accessed_at, expires_at, ended, ${['meta', 'fields', 'large']
      .map(
        (column) =>
          `case when version = ${dialect === 'postgres' ? '$1' : '?'} then null else ${column} end as ${column}`,
      )
      .join(', ')} from ${sessions} where id = ${dialect === 'postgres' ? '$2' : '?'}`,
    read: sql(`select ${RECORD} from ${sessions} where id = ?`),
    lock: sql(`select ${RECORD} from ${sessions} where id = ?${forUpdate}`),
    exists: sql(`select 1 as found from ${sessions} where id = ? and ${alive}`),
    create: sql(insert + orNothing),
    /** Until when, by the clock of the database, comes last. */
    createInTime: sql(`${insertSelect(isMysql ? 'dual' : '(select 1) as one')} where ${now} <= ?${orNothing}`),
    set: sql(
      insert +
        orUpdate(
          'id',
          [...COLUMNS, 'large'].map((column) => `${column} = ${given(column)}`),
        ),
    ),
    swap: swap(true, false),
    swapAll: swap(true, true),
    replace: swap(false, true),
    /** The tombstone; ID, version, until when. */
    endInTime: sql(`update ${sessions} set ${tombstone} where id = ? and version = ? and ${now} <= ?`),
    /**
     * Ends one session and begins another in one statement: both, or none when the old one has changed, the new ID is in use,
     * or it is too late. Old ID, its version, until when; the new session; the tombstone; old ID, until when.
     */
    succeed: sql(
      `with old as (select id from ${sessions} where id = ? and version = ? and ${now} <= ? for update), ` +
        `begun as (${insertSelect('old')} on conflict do nothing returning id), ` +
        `ended as (update ${sessions} set ${tombstone} ` +
        `from begun where ${sessions}.id = ? returning ${sessions}.id) ` +
        `select (select count(*) from old) as found, (select count(*) from ended) as done, ${now} > ? as late`,
    ),
    time: `select ${now} as time`,
    remove: sql(`delete from ${sessions} where id = ?`),
    // In MySQL a later assignment sees what an earlier one has made: this order gives the same in all three.
    touch: sql(
      `update ${sessions} set expires_at = ${touched}, ` +
        `forget_at = ${now} + ${greatest}(1000, ${touched} - ?) + ?, ` +
        `last_accessed_at = ${greatest}(last_accessed_at, ?) where id = ? and ${alive}`,
    ),
    page: sql(`select id, ${RECORD} from ${sessions} where id > ? order by id limit ?`),

    user: sql(`select version, entries from ${users} where id = ?`),
    lockUser: sql(`select version, entries from ${users} where id = ?${forUpdate}`),
    addUser: sql(`insert into ${users} (id, version, entries, forget_at) values (?, ?, ?, ${now} + ?)${orNothing}`),
    swapUser: sql(
      `update ${users} set version = ?, entries = ?, forget_at = ${greatest}(forget_at, ${now} + ?) where id = ? and version = ?`,
    ),

    number: sql(`select n from ${names} where name = ?`),
    raise: sql(
      `insert into ${names} (name, n) values (?, ?)` +
        orUpdate('name', [`n = ${greatest}(${held('n')}, ${given('n')})`]) +
        returning('n'),
    ),
    lease: sql(
      `insert into ${names} (name, owner, until) values (?, ?, ${now} + ?)` +
        (isMysql
          ? orUpdate('name', [
              `owner = if(${isFree}, values(owner), owner)`,
              'until = if(owner = values(owner), values(until), until)',
            ])
          : `${orUpdate('name', ['owner = excluded.owner', 'until = excluded.until'])} where ${isFree}`),
    ),
    owner: sql(`select owner from ${names} where name = ? and until > ${now}`),
    putNote: sql(
      `insert into ${names} (name, text, until) values (?, ?, ${now} + ?)` +
        orUpdate('name', [`text = ${given('text')}`, `until = ${given('until')}`]),
    ),
    /** In MySQL behind `clearNote`. */
    addNote: sql(
      `insert into ${names} (name, text, until) values (?, ?, ${now} + ?)` +
        (isMysql
          ? ''
          : `${orUpdate('name', ['text = excluded.text', 'until = excluded.until'])} where ${held('until')} <= ${now}`),
    ),
    clearNote: sql(`delete from ${names} where name = ? and until <= ${now}`),
    note: sql(`select text from ${names} where name = ? and until > ${now}`),
    lockNote: sql(`select text from ${names} where name = ? and until > ${now}${forUpdate}`),
    takeNote: sql(`delete from ${names} where name = ? and until > ${now} returning text`),
    removeNote: sql(`delete from ${names} where name = ?`),

    ...purgeStatements(dialect, now),
  }
}

/** What goes through a table in steps, and removes what is to be forgotten. */
function purgeStatements(dialect: SqlDialect, now: string) {
  const sql = (text: string): string => (dialect === 'postgres' ? numbered(text) : text)
  const over = ({ when }: Forgetting): string => `${when} <= ${now}`
  if (dialect === 'postgres') {
    return {
      pages: ({ table }: Forgetting) =>
        `select pg_relation_size('${table}')::bigint / current_setting('block_size')::bigint as pages`,
      /** Page to begin with, page to end before. The condition stands in the delete itself, so that it sees a touch. */
      purge: (of: Forgetting) =>
        sql(`delete from ${of.table} where ctid >= ?::text::tid and ctid < ?::text::tid and ${over(of)}`),
      purgeEnd: () => '',
      purgeSome: () => '',
      size: () => '',
    }
  }
  const key = (of: Forgetting): string => (dialect === 'sqlite' ? 'rowid' : of.key)
  const range = (of: Forgetting): string => `${key(of)} > ? and ${key(of)} <= ? and ${over(of)}`
  return {
    pages: () => '',
    /** Whether a step has anything to remove, and how many rows there are, up to so many. */
    purgeSome: (of: Forgetting) => `select 1 as found from ${of.table} where ${range(of)} limit 1`,
    size: (of: Forgetting) => `select count(*) as size from (select 1 from ${of.table} limit ?)`,
    purge: (of: Forgetting) => `delete from ${of.table} where ${range(of)}`,
    /** Where a step ends that begins behind a key. */
    purgeEnd: (of: Forgetting) =>
      `select ${key(of)} as last from ${of.table} where ${key(of)} > ? order by ${key(of)} limit 1 offset ?`,
  }
}

/** The present by the clock of the database, in milliseconds, as it is when the row is looked at. */
function nowOf(dialect: SqlDialect): string {
  switch (dialect) {
    case 'sqlite':
      return "cast(unixepoch('subsec') * 1000 as integer)"
    case 'postgres':
      // now() is that of the transaction's beginning.
      return 'cast(extract(epoch from clock_timestamp()) * 1000 as bigint)'
    case 'mysql':
      // Of the statement's beginning, but not a matter of time zones.
      return "timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000"
  }
}

/** `?` as `$1`, `$2` …: no statement here has one in a text. */
function numbered(text: string): string {
  let count = 0
  return text.replace(/\?/g, () => `$${++count}`)
}
