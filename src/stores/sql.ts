// Sessions in SQLite, PostgreSQL, MySQL or MariaDB: in one file for one machine, in a database for many. What is acknowledged
// is on the disk.
//
// Sessions are rows of one table (sql/rows.ts), changed by compare-and-set on their version (sql/row-changes.ts). The users'
// lists are rows of a second one (sql/users.ts); epoch, leases and notes of a third (sql/names.ts). Each database client is
// two calls (sql/driver.ts, sql/drivers).
import { randomUUID } from 'node:crypto'
import { invalidOption, isSessionError, SessionError } from '../errors.js'
import { Recent } from '../recent.js'
import { answersAtOnce } from '../record/at-once.js'
import {
  applyEnd,
  applyRegeneration,
  type EndResult,
  endOfRegenerated,
  type RegenerateResult,
  type Regeneration,
  type SessionChange,
  type UpdateResult,
} from '../record/changes.js'
import type { SessionLimits } from '../record/limits.js'
import type { SessionNotes } from '../record/notes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import { SessionStore } from '../record/store.js'
import type { UserIndex } from '../record/user-index.js'
import { warnOfFailure } from '../warn.js'
import { driverOf, locationOf, openDatabase, type SqlDatabase, type SqlUse } from './sql/database.js'
import type { SqlDialect, SqlDriver, SqlResult, SqlRow, SqlValue } from './sql/driver.js'
import { explained, isDuplicate, isUndone } from './sql/faults.js'
import { InTime, Taken } from './sql/in-time.js'
import { type Calls, epochOf, falseIfDuplicate, leaseOf, sqlNotes } from './sql/names.js'
import { purge } from './sql/purge.js'
import { type Outcome, RowChanges, type Write } from './sql/row-changes.js'
import { decodeRow, encodeRow, StoredRow } from './sql/rows.js'
import { dropStatements, isCurrent, migrate, type SqlNaming, tablesOf } from './sql/schema.js'
import { decisionOf, knownFor, type Retention } from './sql/session-changes.js'
import { SqlSignals } from './sql/signals.js'
import { type PlainStatement, type SqlTables, type Statements, statementsFor } from './sql/statements.js'
import { decodeUserRow, encodeEntries, sqlUserIndex, type UserRetention, type UserRow } from './sql/users.js'

export type { SqlDatabase } from './sql/database.js'
export type { SqlDialect, SqlDriver, SqlQuery, SqlResult, SqlRow, SqlSteps, SqlValue } from './sql/driver.js'
export type { SqlNaming } from './sql/schema.js'
export { sessionSchema } from './sql/schema.js'

/** What `sqlStore()` takes besides a URL. */
export interface SqlStoreOptions extends SqlNaming {
  /**
   * Whether the store makes its tables, or brings them up to date, before its first call. With `false` that is for you:
   * by `migrate()`, `sessionMigration()` or `sessionSchema()`.
   * @default true
   */
  readonly migrate?: boolean | undefined
  /**
   * `'full'`: what is acknowledged is on the disk, and survives `kill -9` and a loss of power as far as the disk keeps its word.
   * `'relaxed'` is faster and may lose the last writes, though none in part: with SQLite those since its last checkpoint
   * when the power fails, with PostgreSQL those of the last fraction of a second when the server does. In SQLite it sets
   * `synchronous` of the connection, in PostgreSQL `synchronous_commit` of connections that the store opens; MySQL has
   * `innodb_flush_log_at_trx_commit` for it, which is a setting of the server.
   * @default 'full'
   */
  readonly durability?: 'full' | 'relaxed' | undefined
  /**
   * Whether statements are prepared once on each connection of PostgreSQL, which takes less of the client and of the server. Leave
   * it off behind a pooler that gives each transaction another connection, unless that one knows prepared statements
   * (pgbouncer 1.21 and later).
   * @default false
   */
  readonly prepare?: boolean | undefined
  /**
   * Whether the store has signals, by LISTEN and NOTIFY of PostgreSQL, over one more connection while somebody listens. Switch it off
   * behind a pooler that gives each transaction another connection, where nothing would arrive. SQLite and MariaDB have
   * none.
   * @default true
   */
  readonly signals?: boolean | undefined
  /**
   * How many milliseconds a call may take. What has not got a connection by then is not done; what the database is still at is
   * cancelled there, through pg and postgres.js. Choose it no longer than `storeTimeout`, after which nobody waits for it.
   * @default 1_000
   */
  readonly timeout?: number | undefined
  /**
   * Seconds between clean-ups of what is to be forgotten, by one process at a time; `0` starts none. The timer does not keep the
   * process alive.
   * @default 300
   */
  readonly cleanupInterval?: number | undefined
}

/** What `new SqlSessionStore()` takes: a `database`, or a `url`. */
export interface SqlSessionStoreOptions extends SqlStoreOptions {
  /** Your database. It is used and never closed. A connection to SQLite is best one that only the store uses. */
  readonly database?: SqlDatabase | undefined
  /** `sqlite:./sessions.db`, `postgres://…` or `mysql://…`: opened when first used, and closed by `close()`. */
  readonly url?: string | undefined
}

type SessionOutcome<T> = Outcome<SessionData, Retention, T>

/** Making tables may wait for others who make them. */
const MIGRATION_MS = 30_000
/** So often a session is regenerated that others change meanwhile. */
const REGENERATION_TRIES = 20
/** So often a transaction is tried that another one has undone. */
const TRANSACTION_TRIES = 10
/** How many records one step of a scan reads. */
const SCAN_BATCH = 50
/** The turn to clean up, for part of the interval: less than the whole, so that the next timer finds it free. */
const TURN_SHARE = 0.9
/** A timer set for longer would fire at once, and again and again. */
const LONGEST_TIMER_MS = 2 ** 31 - 1
/** Longer records are not kept to spare their reading. */
const LONGEST_RECENT = 64 * 1024

/**
 * Opens a store on a database of its own: `sqlite:./sessions.db`, `postgres://user@host/database` or `mysql://…`. Needs a client:
 * for SQLite better-sqlite3, libsql, Bun, or Node 22.13 and later; pg or postgres; mysql2 or mariadb.
 *
 * ```ts
 * app.use(session({ secret, store: sqlStore('sqlite:./sessions.db') }))
 * ```
 * @throws {SessionError} `INVALID_OPTION`; a call rejects with `MISSING_DEPENDENCY` when there is no client
 */
export function sqlStore(url: string, options: SqlStoreOptions = {}): SqlSessionStore {
  return new SqlSessionStore({ ...options, url })
}

/**
 * Keeps sessions in SQLite 3.42 or later, PostgreSQL 14 or later, MariaDB 10.6 or later or MySQL 8. Every operation is atomic
 * across processes, and what is acknowledged is stored for good.
 */
export class SqlSessionStore extends SessionStore {
  /** With PostgreSQL, through a `Pool` of pg or postgres.js, and unless it was switched off. */
  declare readonly signals?: SqlSignals

  readonly #tables: SqlTables
  readonly #use: SqlUse
  readonly #migrates: boolean
  readonly #open: () => Promise<SqlDriver>
  readonly #isOwn: boolean
  readonly #recent = new Recent<SessionData>()
  readonly #inTime = new InTime()
  #driver: SqlDriver | null = null
  #opening: Promise<Calls> | null = null
  #calls: Calls | null = null
  #isClosed = false
  readonly #closing = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #cleaning: Promise<number> | null = null

  /** @throws {SessionError} `INVALID_OPTION` when there is not exactly one of `database` and `url`, or an option is wrong. */
  constructor(options: SqlSessionStoreOptions) {
    super()
    const {
      database,
      url,
      durability = 'full',
      prepare = false,
      signals = true,
      timeout = 1_000,
      cleanupInterval = 300,
      ...rest
    } = options ?? {}
    if ((database === undefined) === (url === undefined)) {
      throw invalidOption('SqlSessionStore needs either database or url.')
    }
    if (durability !== 'full' && durability !== 'relaxed') {
      throw invalidOption("SqlSessionStore: durability must be 'full' or 'relaxed'.")
    }
    if (!(timeout >= 1 && timeout <= LONGEST_TIMER_MS)) {
      throw invalidOption(`SqlSessionStore: timeout is ${String(timeout)}; use milliseconds, at least 1.`)
    }
    if (!Number.isFinite(cleanupInterval) || cleanupInterval < 0) {
      throw invalidOption(`SqlSessionStore: cleanupInterval is ${String(cleanupInterval)}; use seconds, or 0 for none.`)
    }
    this.#tables = tablesOf(rest)
    this.#migrates = rest.migrate ?? true
    this.#use = { durability, prepare, timeoutMs: timeout }
    this.#isOwn = url !== undefined
    let canListen: boolean
    if (database !== undefined) {
      const driver = driverOf(database, this.#use)
      this.#open = async () => driver
      canListen = driver.dialect === 'postgres' && driver.listen !== undefined
    } else {
      const location = locationOf(url)
      this.#open = () => openDatabase(location, this.#use)
      canListen = location.kind === 'postgres'
    }
    if (signals && canListen) {
      this.signals = new SqlSignals({
        calls: () => this.#calls ?? this.#ready(),
        driver: () => this.#connect(),
        table: this.#tables.names,
      })
    }
    if (cleanupInterval > 0) this.#startCleanup(Math.min(cleanupInterval * 1000, LONGEST_TIMER_MS))
  }

  /**
   * Makes the tables that are missing, as the first call does by itself unless `migrate` is `false`. In many processes at
   * once, if need be. The role needs the right to create only when something is missing.
   * @throws {SessionError} `INVALID_OPTION` when a later version has made tables that this one cannot work with
   */
  async migrate(): Promise<void> {
    try {
      await migrate(await this.#connect(), this.#tables)
    } catch (error) {
      throw explained(error)
    }
    await this.#ready()
  }

  // With SQLite in this process a request waits for neither of these, unless others hold the lock.
  static {
    answersAtOnce(SqlSessionStore.prototype.get, function (this: SqlSessionStore, id, bounds) {
      return this.#getNow(id, bounds)
    })
    answersAtOnce(SqlSessionStore.prototype.update, function (this: SqlSessionStore, id, change, ttlSeconds) {
      return this.#updateNow(id, change, ttlSeconds)
    })
  }

  async get(id: string, bounds?: SessionLimits): Promise<SessionData | null> {
    const known = this.#recent.get(id)
    const calls = this.#calls ?? (await this.#ready())
    return this.#found(id, await calls.query(calls.statements.get, getValues(calls.dialect, id, known)), known, bounds)
  }

  #getNow(id: string, bounds: SessionLimits | undefined): SessionData | null | undefined {
    const calls = this.#calls
    if (calls?.queryNow === undefined) return undefined
    const known = this.#recent.get(id)
    const found = calls.queryNow(calls.statements.get, getValues(calls.dialect, id, known))
    return found && this.#found(id, found, known, bounds)
  }

  #found(
    id: string,
    { rows: [row] }: SqlResult,
    known: SessionData | undefined,
    bounds: SessionLimits | undefined,
  ): SessionData | null {
    if (row === undefined) return null
    const record = decodeRow(id, row, { known, bounds })
    if (record !== known) this.#keepRecent(record)
    return record
  }

  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    const { columns, large } = encodeRow(data)
    await this.#run('set', [id, ...columns, ttlSeconds * 1000, large])
  }

  async delete(id: string): Promise<void> {
    await this.#run('remove', [id])
  }

  override async exists(id: string): Promise<boolean> {
    const now = Date.now()
    const { rows } = await this.#run('exists', [id, now, now, now])
    return rows.length > 0
  }

  override async create(id: string, data: SessionData, ttlSeconds: number, notAfter?: number): Promise<boolean> {
    const encoded = encodeRow(data)
    const calls = this.#calls ?? (await this.#ready())
    const values = [id, ...encoded.columns, ttlSeconds * 1000, encoded.large]
    if (!(await this.#inTime.create(calls, values, notAfter))) return false
    this.#keepRecent(encoded.record)
    return true
  }

  override async touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    const at = Math.floor(now)
    const end = [at, ttlSeconds * 1000]
    const { count } = await this.#run('touch', [...end, ...end, at, retainSeconds * 1000, at, id, at, at, at])
    if (count > 0 || this.#calls?.dialect !== 'mysql') return count > 0
    // A connection may be told to count only what has changed, and a touch of the same millisecond changes nothing.
    const { rows } = await this.#run('exists', [id, at, at, at])
    return rows.length > 0
  }

  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return this.#changes.run(id, decisionOf(change, ttlSeconds), knownFor(change))
  }

  #updateNow(id: string, change: SessionChange, ttlSeconds: number): UpdateResult | undefined {
    if (this.#calls?.queryNow === undefined) return undefined
    const known = knownFor(change)
    return known && this.#changes.runNow(id, decisionOf(change, ttlSeconds), known)
  }

  override async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const calls = this.#calls ?? (await this.#ready())
    const { notAfter, tombstoneSeconds } = regeneration
    for (let attempt = 1; attempt <= REGENERATION_TRIES; attempt++) {
      const before = await this.#read(id)
      const result = applyRegeneration(before, regeneration)
      if (before === null || result.status !== 'regenerated') return result
      const next = encodeRow(result.record)
      const tombstone = encodeRow(applyEnd(before, endOfRegenerated(regeneration)), before)
      const outcome = await this.#inTime.succeed(calls, {
        id,
        version: versionOf(before),
        ended: [...tombstone.columns, tombstoneSeconds * 1000, tombstone.keepsLarge ? 1 : 0, tombstone.large],
        begun: [result.record.id, ...next.columns, ttlSeconds * 1000, next.large],
        notAfter,
      })
      if (outcome === 'taken') return { status: 'taken' }
      if (outcome === 'done') return { status: 'regenerated', record: next.record }
    }
    throw new SessionError('STORE_UNAVAILABLE', 'The session was changed by others all the time.')
  }

  override async end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    const decide = (before: SessionData | null): SessionOutcome<EndResult> => {
      if (before === null || before.ended) {
        return { result: () => ({ status: 'over', successor: before?.ended?.successor }) }
      }
      return { result: () => ENDED, next: applyEnd(before, ended), how: tombstoneSeconds * 1000 }
    }
    try {
      return await this.#changes.run(id, decide)
    } catch (error) {
      if (!isSessionError(error, 'CORRUPT_RECORD')) throw error
      await this.delete(id)
      return ENDED
    }
  }

  /** Every record, in the order of the IDs, a few at a time. */
  override async *scan(progress?: () => void, bounds?: SessionLimits): AsyncGenerator<SessionData, void, undefined> {
    let last = ''
    while (true) {
      const { rows } = await this.#run('page', [last, SCAN_BATCH])
      progress?.()
      for (const row of rows) {
        last = String(row['id'])
        const record = readable(last, row, bounds)
        if (record !== null) yield record
      }
      if (rows.length < SCAN_BATCH) return
    }
  }

  readonly #changes = new RowChanges<SessionData, Retention>({
    read: (id) => this.#read(id),
    swap: async (id, before, write) => {
      const { query, statements } = this.#calls ?? (await this.#ready())
      const { record, sql, values } = swapOf(statements, before, write)
      const { count } = await query(sql, [...values, id, versionOf(before)])
      if (count !== 1) return null
      this.#keepRecent(record)
      return record
    },
    swapNow: (id, before, write) => {
      const { queryNow, statements } = this.#calls as Calls
      const { record, sql, values } = swapOf(statements, before, write)
      if (queryNow?.(sql, [...values, id, versionOf(before)])?.count !== 1) return undefined
      this.#keepRecent(record)
      return record
    },
    lock: async (id, decide) => {
      const { transaction, statements } = this.#calls ?? (await this.#ready())
      return transaction(function* () {
        const { rows } = yield { sql: statements.lock, values: [id] }
        const before = rows[0] === undefined ? null : decodeRow(id, rows[0])
        const write = decide(before)
        if (before === null || write === null) return true
        const { columns, large } = encodeRow(write.next)
        const values = [...columns, write.how ?? 0, large, id, versionOf(before)]
        const { count } = yield { sql: statements.replace, values }
        return count === 1
      })
    },
    join: (_first, second) => second,
  })

  readonly #userChanges = new RowChanges<UserRow, UserRetention>({
    read: (user) => this.#readUser(user),
    swap: async (user, before, { next, how = 0 }) => {
      const { query, statements } = this.#calls ?? (await this.#ready())
      const entries = encodeEntries(next)
      const { count } = await (before === null
        ? query(statements.addUser, [user, next.version, entries, how]).catch(noneIfDuplicate)
        : query(statements.swapUser, [next.version, entries, how, user, before.version]))
      return count === 1 ? next : null
    },
    lock: async (user, decide) => {
      const { transaction, statements } = this.#calls ?? (await this.#ready())
      return transaction(function* () {
        const { rows } = yield { sql: statements.lockUser, values: [user] }
        const before = rows[0] === undefined ? null : decodeUserRow(user, rows[0])
        const write = decide(before)
        if (write === null) return true
        const [version, entries, how] = [write.next.version, encodeEntries(write.next), write.how ?? 0]
        const { count } =
          before === null
            ? yield { sql: statements.addUser, values: [user, version, entries, how] }
            : yield { sql: statements.swapUser, values: [version, entries, how, user, before.version] }
        return count === 1
      })
    },
    join: (first = 0, second = 0) => Math.max(first, second),
  })

  override readonly users: UserIndex = sqlUserIndex(this.#userChanges, (user) => this.#readUser(user))

  override readonly notes: SessionNotes = sqlNotes(() => this.#calls ?? this.#ready())

  override async epoch(atLeast?: number): Promise<number> {
    return epochOf(this.#calls ?? (await this.#ready()), atLeast)
  }

  override async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return leaseOf(this.#calls ?? (await this.#ready()), { name, owner, ttlMs })
  }

  /**
   * Removes what is to be forgotten, in small steps. Resolves to how many sessions were removed. A call during a clean-up
   * joins it.
   */
  override clearExpired(): Promise<number> {
    this.#cleaning ??= this.#clean().finally(() => {
      this.#cleaning = null
    })
    return this.#cleaning
  }

  /** Stops the clean-up, and closes the database if the store has opened it. */
  override async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#closing.abort()
    clearInterval(this.#timer)
    await this.#cleaning?.catch(() => {})
    await this.#opening?.catch(() => {})
    await this.signals?.close()
    if (this.#isOwn) await this.#driver?.close?.()
  }

  async #clean(): Promise<number> {
    return purge(this.#calls ?? (await this.#ready()), this.#tables, this.#closing.signal)
  }

  #startCleanup(intervalMs: number): void {
    this.#timer = setInterval(() => {
      // Of a store that was never used there is nothing to clean up.
      if (this.#calls === null) return
      this.lease('purge', randomUUID(), TURN_SHARE * intervalMs)
        .then((isOurs) => (isOurs ? this.clearExpired() : 0))
        .catch((error) => {
          if (!this.#isClosed) warnOfFailure('The clean-up of SqlSessionStore', error)
        })
    }, intervalMs)
    this.#timer.unref()
  }

  async #read(id: string): Promise<SessionData | null> {
    const { rows } = await this.#run('read', [id])
    return rows[0] === undefined ? null : decodeRow(id, rows[0])
  }

  async #readUser(user: string): Promise<UserRow | null> {
    const { rows } = await this.#run('user', [user])
    return rows[0] === undefined ? null : decodeUserRow(user, rows[0])
  }

  /** Runs one statement by its name. */
  async #run(name: PlainStatement, values: readonly SqlValue[]): Promise<SqlResult> {
    const { query, statements } = this.#calls ?? (await this.#ready())
    return query(statements[name], values)
  }

  /** Opens the database, and sees to its tables, once. What failed is tried again by the next call. */
  #ready(): Promise<Calls> {
    if (this.#isClosed) return Promise.reject(closed())
    this.#opening ??= this.#prepare().catch((error) => {
      this.#opening = null
      throw explained(error)
    })
    return this.#opening
  }

  async #prepare(): Promise<Calls> {
    const driver = await this.#connect()
    if (this.#migrates) await migrate(driver, this.#tables)
    else if (!(await isCurrent(driver, this.#tables))) throw noTables()
    this.#calls = {
      dialect: driver.dialect,
      statements: statementsFor(driver.dialect, this.#tables),
      query: (sql, values) => (this.#isClosed ? Promise.reject(closed()) : driver.query(sql, values).catch(raise)),
      queryNow:
        driver.queryNow &&
        ((sql, values) => {
          if (this.#isClosed) return undefined
          try {
            return driver.queryNow?.(sql, values)
          } catch (error) {
            raise(error)
          }
        }),
      transaction: (steps) => again(() => driver.transaction(steps)).catch(raise),
      removeAside: async (removals, signal) => (await driver.removeAside?.(removals, signal).catch(raise)) ?? null,
    }
    return this.#calls
  }

  async #connect(): Promise<SqlDriver> {
    this.#driver ??= await this.#open()
    return this.#driver
  }

  #keepRecent(record: SessionData): void {
    let length = 0
    for (const text of record.fields.values()) length += text.length
    if (length <= LONGEST_RECENT && !record.ended) this.#recent.set(record.id, record)
    else this.#recent.delete(record.id)
  }
}

/** What `sessionMigration()` gives: give it to a `Migrator` of Kysely, or call it from a migration of yours. */
export interface SessionMigration {
  /** Makes the tables that are missing. */
  up(database: SqlDatabase): Promise<void>
  /** Removes the tables with all sessions in them. */
  down(database: SqlDatabase): Promise<void>
}

/**
 * The tables as a migration, for those who keep theirs together. It works in a transaction of Kysely, too.
 *
 * ```ts
 * export const { up, down } = sessionMigration()
 * ```
 * @throws {SessionError} `INVALID_OPTION`
 */
export function sessionMigration(naming: SqlNaming = {}): SessionMigration {
  const tables = tablesOf(naming)
  return {
    async up(database) {
      const driver = driverOf(database, AS_IT_IS)
      await migrate(driver, tables).catch(raise)
    },
    async down(database) {
      const driver = driverOf(database, AS_IT_IS)
      for (const { sql, values } of dropStatements(tables)) await driver.query(sql, values).catch(raise)
    },
  }
}

const AS_IT_IS: SqlUse = { durability: undefined, prepare: false, timeoutMs: MIGRATION_MS }
const ENDED: EndResult = { status: 'ended' }

/** What is read of a session is only what is not `known` of it. */
function getValues(dialect: SqlDialect, id: string, known: SessionData | undefined): SqlValue[] {
  const version = versionOf(known)
  return dialect === 'postgres' ? [version, id] : [version, version, version, id]
}

/** The statement that writes a successor of what is stored, without the large fields where those stay. */
function swapOf(
  statements: Statements,
  before: SessionData | null,
  { next, how: keptMs = 0 }: Write<SessionData, Retention>,
): { record: SessionData; sql: string; values: SqlValue[] } {
  const { record, columns, large, keepsLarge } = encodeRow(next, before)
  return keepsLarge
    ? { record, sql: statements.swap, values: [...columns, keptMs] }
    : { record, sql: statements.swapAll, values: [...columns, keptMs, large] }
}

function versionOf(record: SessionData | null | undefined): number {
  return StoredRow.of(record)?.version ?? 0
}

/** A record of a scan, unless it cannot be read. */
function readable(id: string, row: SqlRow, bounds: SessionLimits | undefined): SessionData | null {
  try {
    return decodeRow(id, row, { bounds })
  } catch (error) {
    if (isSessionError(error, 'CORRUPT_RECORD')) return null
    throw error
  }
}

/** Tries again what another transaction has undone. */
async function again<T>(task: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await task()
    } catch (error) {
      if (attempt === TRANSACTION_TRIES || !isUndone(error)) throw error
    }
  }
}

function noneIfDuplicate(error: unknown): { count: number } {
  falseIfDuplicate(error)
  return { count: 0 }
}

function raise(error: unknown): never {
  throw isDuplicate(error) || error instanceof Taken ? error : explained(error)
}

function noTables(): SessionError {
  return new SessionError(
    'STORE_UNAVAILABLE',
    'The tables of sessions are missing, or of an earlier version: call migrate() of the store once.',
  )
}

function closed(): SessionError {
  return new SessionError('STORE_UNAVAILABLE', 'The store has been closed.')
}
