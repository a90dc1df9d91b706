// PostgreSQL through pg: a `Pool`, or one `Client`.
import { isSessionError } from '../../../errors.js'
import {
  ignore,
  runSteps,
  type SqlDriver,
  type SqlQuery,
  type SqlResult,
  type SqlRow,
  type SqlSteps,
  Turn,
} from '../driver.js'
import { noConnection } from '../faults.js'
import { Overdue } from '../overdue.js'
import { type ListeningClient, PgListener } from './pg-listener.js'

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

interface PooledClient extends PgClient {
  readonly processID?: number | null
  on?(event: 'error', listener: () => void): unknown
  off?(event: 'error', listener: () => void): unknown
  release(error?: unknown): void
}

export interface PgPool extends PgClient {
  connect(): Promise<PooledClient>
  readonly totalCount: number
  on?(event: 'connect', listener: (client: PooledClient) => void): unknown
  /** What its connections are made of, and with which settings. */
  readonly Client?: new (
    options: object,
  ) => ListeningClient
  readonly options?: object
  end?(): Promise<void>
}

/** How statements are sent. */
export interface PgSettings {
  /** Whether each statement is prepared once on each connection. A pooler between transactions may not know of it later. */
  readonly prepare: boolean
  /** How long a call may take before it is cancelled in the database. */
  readonly timeoutMs: number
}

export function isPgPool(database: object): database is PgPool {
  const { query, connect, totalCount } = database as Partial<PgPool>
  return typeof query === 'function' && typeof connect === 'function' && typeof totalCount === 'number'
}

export function isPgClient(database: object): database is PgClient {
  const { query, connect, escapeIdentifier } = database as Record<string, unknown>
  return [query, connect, escapeIdentifier].every((member) => typeof member === 'function')
}

export function pgDriver(database: PgPool | PgClient, { prepare, timeoutMs }: PgSettings): SqlDriver {
  const names = new Map<string, string>()
  const nameOf = (sql: string): string => {
    let name = names.get(sql)
    if (name === undefined) {
      name = `sojourn_${names.size}_${sql.length}`
      names.set(sql, name)
    }
    return name
  }
  const run = (client: PgClient, { sql, values }: SqlQuery): Promise<SqlResult> =>
    client.query(prepare ? { text: sql, values, name: nameOf(sql) } : { text: sql, values }).then(resultOf)
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
  guard(database)
  const overdue = new Overdue(timeoutMs)
  const { Client, options } = database
  // One that listens does nothing else: it is none of the pool's, which may be small.
  const listener = Client && options ? new PgListener(() => new Client(options)) : undefined
  const onConnection = async <T>(task: (client: PgClient, asks: (sql: string) => void) => Promise<T>): Promise<T> => {
    let sql = ''
    let connection: PooledClient | undefined
    // A pool without a free connection makes everybody wait without a bound.
    const watched = overdue.begin(() => {
      if (connection?.processID) cancel(database, connection.processID, sql)
    })
    let failure: unknown
    try {
      connection = await database.connect()
      // While it is lent, the listener of its pool is off, and its loss would end this process.
      connection.on?.('error', ignore)
      if (performance.now() >= watched.endsAt) throw noConnection()
      return await task(connection, (asked) => {
        sql = asked
      })
    } catch (error) {
      failure = error
      throw error
    } finally {
      overdue.end(watched)
      connection?.off?.('error', ignore)
      // A connection of which nobody knows how far it came is closed.
      connection?.release(isLost(failure) ? true : undefined)
    }
  }
  return {
    dialect: 'postgres',
    query: (sql, values) =>
      onConnection((client, asks) => {
        asks(sql)
        return run(client, { sql, values })
      }),
    transaction: (steps) =>
      onConnection((client, asks) =>
        transaction(client, function* () {
          const inner = steps()
          let step = inner.next()
          while (!step.done) {
            asks(step.value.sql)
            step = inner.next(yield step.value)
          }
          return step.value
        }),
      ),
    ...(listener && { listen: (channel, heard) => listener.listen(channel, heard) }),
    close: async () => database.end?.(),
  }
}

/** Pools that have been seen to. */
const guarded = new WeakSet<PgPool>()

/**
 * The end of a server may come with the answer that a new connection is ready. Its pool no longer listens to errors then, and who
 * asked for it does not yet, which would end this process.
 */
function guard(pool: PgPool): void {
  if (guarded.has(pool)) return
  guarded.add(pool)
  pool.on?.('connect', (client) => client.on?.('error', ignore))
}

/**
 * Cancels a statement that is still under way, by the server's own word on what the process does: behind a pooler its number
 * would be another one.
 */
function cancel(pool: PgPool, pid: number, sql: string): void {
  const text = 'select pg_cancel_backend(pid) from pg_stat_activity where pid = $1 and query = $2'
  pool.query({ text, values: [pid, sql] }).catch(ignore)
}

function resultOf({ rows, rowCount }: { rows: unknown[]; rowCount: number | null }): SqlResult {
  return { rows: rows as SqlRow[], count: rowCount ?? 0 }
}

/** Not an answer of the server, which has a class of SQLSTATE. */
function isLost(error: unknown): boolean {
  if (error === undefined || isSessionError(error)) return false
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || code.startsWith('57P')
}
