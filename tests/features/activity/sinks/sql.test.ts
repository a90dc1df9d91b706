// The SQL sink on SQLite (libsql, in memory and in a file) and on PostgreSQL (pg): what is SQL's of it.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { buildSync } from 'esbuild'
import fc from 'fast-check'
import {
  CamelCasePlugin,
  type CompiledQuery,
  DummyDriver,
  Kysely,
  type LogEvent,
  type Migration,
  Migrator,
  MssqlAdapter,
  MssqlIntrospector,
  MssqlQueryCompiler,
  PostgresDialect,
  SqliteDialect,
  sql,
} from 'kysely'
import Database from 'libsql'
import pg from 'pg'
import {
  type Activity,
  type ActivityArchive,
  activityMigration,
  isArchive,
  migrateActivities,
  sqlSink,
} from 'sojourn/activity'
import { sinkChecks } from 'sojourn/testing'
import { collectGarbage } from '../../../support/garbage.js'
import { namedPostgres, sharedPostgres } from '../../../support/postgres.js'

/** Tables of the application's, of which the sink knows nothing. */
interface AppTables {
  customers: { id: number; first_name: string }
}
type Db = Kysely<AppTables>
interface OpenOptions {
  readonly plugins?: CamelCasePlugin[]
  readonly types?: pg.CustomTypesConfig
}

const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-sql-'))
const RUN = randomBytes(4).toString('hex')
let postgres: Awaited<ReturnType<typeof sharedPostgres>>
const opened: Db[] = []
let count = 0

beforeAll(async () => {
  postgres = await sharedPostgres()
})

afterAll(async () => {
  if (namedPostgres() !== undefined) await dropTables()
  await closeFrom(0)
  await postgres.stop()
  rmSync(DIRECTORY, { recursive: true, force: true })
})

let before = 0
beforeEach(() => {
  before = opened.length
})
afterEach(() => closeFrom(before))

async function closeFrom(first: number): Promise<void> {
  for (const db of opened.splice(first)) await db.destroy()
}

/** A table that no other test uses. */
function newTable(): string {
  return `t${RUN}_${++count}`
}

async function dropTables(): Promise<void> {
  const db = openPostgres()
  const found = await sql<{
    name: string
  }>`select tablename as name from pg_tables where tablename like ${`t${RUN}%`}`.execute(db)
  for (const { name } of found.rows) await db.schema.dropTable(name).execute()
}

/** What each instance was asked, oldest first. */
const asked = new WeakMap<Db, CompiledQuery[]>()

function opens(dialect: SqliteDialect | PostgresDialect, { plugins = [] }: OpenOptions = {}): Db {
  const queries: CompiledQuery[] = []
  const log = (event: LogEvent): void => {
    queries.push(event.query)
  }
  const db: Db = new Kysely<AppTables>({ dialect, log, plugins })
  asked.set(db, queries)
  opened.push(db)
  return db
}

function openSqlite(path: string, options?: OpenOptions): Db {
  return opens(new SqliteDialect({ database: new Database(path) }), options)
}

function openPostgres(options: OpenOptions = {}): Db {
  const pool = new pg.Pool({
    connectionString: postgres.url,
    ...(options.types && { types: options.types }),
  })
  return opens(new PostgresDialect({ pool }), options)
}

/** What a function asks of the database. */
async function queriesOf(db: Db, work: () => unknown): Promise<readonly CompiledQuery[]> {
  const queries = asked.get(db) ?? []
  const before = queries.length
  await work()
  return queries.slice(before)
}

const DATABASES: readonly { readonly database: string; readonly open: (options?: OpenOptions) => Db }[] = [
  { database: 'SQLite in memory', open: (options) => openSqlite(':memory:', options) },
  { database: 'SQLite in a file', open: (options) => openSqlite(join(DIRECTORY, `${++count}.db`), options) },
  { database: 'PostgreSQL', open: (options) => openPostgres(options) },
]

const NOON = Date.UTC(2026, 0, 5, 12)

function activity(given: Partial<Activity> = {}): Activity {
  return {
    id: `id-${String(++count).padStart(8, '0')}`,
    at: new Date(NOON),
    type: 'order.placed',
    logicalId: 'logical-1',
    sessionId: 'session-1',
    userId: 'ann',
    details: { orderId: 7 },
    request: { method: 'POST', path: '/orders', ip: '192.0.2.1' },
    ...given,
  }
}

async function everything(
  sink: ActivityArchive,
  query: Parameters<ActivityArchive['page']>[0] = {},
): Promise<readonly Activity[]> {
  const all: Activity[] = []
  let after: string | undefined
  do {
    const page = await sink.page({ ...query, after })
    all.push(...page.activities)
    after = page.next
  } while (after !== undefined)
  return all
}

const ids = (activities: readonly Activity[]): string[] => activities.map(({ id }) => id)

/** Texts that something between here and the disk might take amiss. */
const HOSTILE: readonly [name: string, text: string][] = [
  ['quotes', `'"\`\\'' OR 1=1 --`],
  ['a command', `'); drop table session_activities; --`],
  ['placeholders', '$1 ? :a @b %s %'],
  ['nothing', ''],
  ['spaces', '  a  '],
  ['line ends', 'a\r\nb\u2028c'],
  ['an escape', '\u001b[31m'],
  ['NUL', 'a\0b'],
  ['only NUL', '\0'],
  ['an emoji', '👩‍💻🛒'],
  ['half of a pair', 'a\ud83d'],
  ['the other half', '\ude00b'],
  ['another half', 'a\ud83e'],
  ['the replacement character', 'a\ufffd'],
  ['not normalised', 'e\u0301'],
  ['normalised', '\u00e9'],
  ['a member of objects', '__proto__'],
  ['text of the greatest length that is kept as it is', 'ж'.repeat(255)],
  ['long text', 'x'.repeat(10_000)],
  ['other long text', `${'x'.repeat(9_999)}y`],
  ['long emoji', '🛒'.repeat(500)],
]

describe.each(DATABASES)('on $database', ({ open }) => {
  async function newSink(options?: OpenOptions): Promise<{ db: Db; sink: ActivityArchive; table: string }> {
    const db = open(options)
    const table = newTable()
    await migrateActivities(db, { table })
    return { db, sink: sqlSink({ db, table }), table }
  }

  describe('the suite for sinks', () => {
    let made: { db: Db; sink: ActivityArchive; table: string }
    beforeAll(async () => {
      made = await newSink()
    })
    const checks = sinkChecks({
      createSink: () => made.sink,
      createPeer: () => sqlSink({ db: made.db, table: made.table }),
    })
    for (const { name, run } of checks) test(name, run)
  })

  test('an activity comes back as it was written', async () => {
    const { sink } = await newSink()
    const full = activity({ details: { list: [1, null, { deep: 'x\0\ud83d' }], 'a\0': '', ['__proto__']: { a: 1 } } })
    const bare = activity({
      at: new Date(NOON + 1),
      logicalId: undefined,
      sessionId: undefined,
      userId: undefined,
      details: undefined,
      request: undefined,
    })
    const withoutIp = activity({ at: new Date(NOON + 2), request: { method: 'GET', path: '/\0', ip: undefined } })
    await sink.write([full, bare, withoutIp])
    const read = await everything(sink)
    expect(read).toStrictEqual([{ ...full, details: JSON.parse(JSON.stringify(full.details)) }, bare, withoutIp])
    expect(Object.hasOwn(read[0]?.details ?? {}, '__proto__')).toBe(true)
  })

  describe('hostile texts', () => {
    const at = (text: string): Activity =>
      activity({ id: text, type: text, logicalId: text, sessionId: text, userId: text })
    const written = HOSTILE.map(([, text], n) => ({ ...at(text), at: new Date(NOON + n) }))
    let sink: ActivityArchive

    beforeAll(async () => {
      sink = (await newSink()).sink
      await sink.write(written)
    })

    test('come back as they were, in order', async () => {
      expect(await everything(sink)).toStrictEqual(written)
    })

    test.each(HOSTILE.map(([name], n) => [name, n] as const))(
      '%s is found as any ID and as a type, and only that',
      async (_name, n) => {
        const [, text] = HOSTILE[n] as (typeof HOSTILE)[number]
        for (const query of [{ logicalId: text }, { sessionId: text }, { userId: text }, { type: text }]) {
          expect(await everything(sink, query)).toStrictEqual([written[n]])
          expect(await sink.countByType(query)).toEqual(Object.fromEntries([[text, 1]]))
        }
      },
    )
  })

  test('no two texts are taken for each other, also when one is what another is stored as', async () => {
    const { db, sink, table } = await newSink()
    await sink.write([activity({ logicalId: 'a\0b' })])
    const stored = await sql<{ id: string }>`select logical_id as id from ${sql.table(table)}`.execute(db)
    const imitation = String(stored.rows[0]?.id)
    expect(imitation).toMatch(/^a\ufffdb~sha256:/)
    expect(await everything(sink, { logicalId: imitation })).toEqual([])
    await sink.write([activity({ logicalId: imitation, at: new Date(NOON + 1) })])
    expect((await everything(sink)).map(({ logicalId }) => logicalId)).toEqual(['a\0b', imitation])
    expect(await everything(sink, { logicalId: imitation })).toHaveLength(1)
  })

  test('any text and any JSON comes back', async () => {
    const { sink } = await newSink()
    const text = fc.string({ unit: 'binary', maxLength: 300 })
    let n = 0
    await fc.assert(
      fc.asyncProperty(
        text,
        text,
        fc.oneof(text, fc.double({ noNaN: true })),
        fc.dictionary(text, fc.jsonValue()),
        async (type, logicalId, userId, details) => {
          const written = activity({ type, logicalId, userId, details, sessionId: `run-${++n}` })
          await sink.write([written])
          const [read] = await everything(sink, { sessionId: `run-${n}`, logicalId, userId, type })
          expect(read).toEqual({
            ...written,
            userId: Object.is(userId, -0) ? 0 : userId,
            details: JSON.parse(JSON.stringify(details)),
          })
        },
      ),
      { numRuns: 25 },
    )
  })

  test('a user ID keeps its type: a number and the text of it are two users', async () => {
    const { sink } = await newSink()
    const userIds = [1, '1', 1.5, -7, 0, 1e300, '', 'NaN']
    await sink.write(userIds.map((userId, n) => activity({ userId, at: new Date(NOON + n) })))
    expect((await everything(sink)).map(({ userId }) => userId)).toStrictEqual(userIds)
    for (const userId of userIds) {
      expect((await everything(sink, { userId })).map((found) => found.userId)).toStrictEqual([userId])
    }
  })

  test('the order is by time to the millisecond, then by the bytes of the ID, and pages have neither gaps nor repeats', async () => {
    const { sink } = await newSink()
    const times = [-1, 0, 1, NOON - 1, NOON, NOON, NOON, NOON, NOON + 1, 8_640_000_000_000_000]
    const names = ['b', 'a', 'B', '_', 'a-b', 'ab', 'é', 'Z', '10', '9']
    const sorted = times
      .map((time, n) => activity({ id: names[n] as string, at: new Date(time) }))
      .sort((a, b) => a.at.getTime() - b.at.getTime() || Buffer.compare(Buffer.from(a.id), Buffer.from(b.id)))
    await sink.write([...sorted].reverse())
    for (let limit = 1; limit <= times.length + 1; limit++) {
      expect(ids(await everything(sink, { limit }))).toEqual(ids(sorted))
      expect(ids(await everything(sink, { limit, order: 'newest-first' }))).toEqual(ids(sorted).reverse())
    }
    const exact = await sink.page({ limit: times.length })
    expect(exact.next).toBeUndefined()
    expect(exact.activities.map(({ at }) => at.getTime())).toEqual(times)
  })

  test('a page goes on where the one before ended, whatever was written or pruned since', async () => {
    const { sink } = await newSink()
    const at = (ms: number, id?: string): Activity => activity({ at: new Date(NOON + ms), ...(id && { id }) })
    const first = [at(10), at(20), at(30), at(40)]
    await sink.write(first)
    const page = await sink.page({ limit: 2 })
    const later = [at(5), at(35), at(50)]
    await sink.write(later)
    await sink.prune(new Date(NOON + 21))
    const rest = await everything(sink, { limit: 2, after: page.next } as { limit: number })
    expect(ids(rest)).toEqual(ids([...first.slice(2), ...later.slice(1)].sort((a, b) => +a.at - +b.at)))
  })

  test('pages go on behind an ID that cannot be stored as it is', async () => {
    const { sink } = await newSink()
    const hostile = HOSTILE.map(([, id]) => activity({ id }))
    await sink.write(hostile)
    const paged = await everything(sink, { limit: 1 })
    expect(paged).toHaveLength(hostile.length)
    expect(new Set(ids(paged))).toEqual(new Set(ids(hostile)))
  })

  test('conditions hold together, in pages and in counts', async () => {
    const { sink } = await newSink()
    const mine = activity({ type: 'a', at: new Date(NOON) })
    await sink.write([
      mine,
      activity({ type: 'b' }),
      activity({ type: 'a', logicalId: 'logical-2' }),
      activity({ type: 'a', sessionId: 'session-2' }),
      activity({ type: 'a', userId: 'bob' }),
      activity({ type: 'a', at: new Date(NOON - 1) }),
      activity({ type: 'a', at: new Date(NOON + 1) }),
    ])
    const window = { since: new Date(NOON), until: new Date(NOON + 1) }
    const query = { logicalId: 'logical-1', sessionId: 'session-1', userId: 'ann', type: ['a', 'c', 'a'], ...window }
    expect(ids(await everything(sink, query))).toEqual([mine.id])
    expect(await sink.countByType(query)).toEqual({ a: 1 })
    expect(await sink.countByType(window)).toEqual({ a: 4, b: 1 })
    expect(await sink.countByType({})).toEqual({ a: 6, b: 1 })
    for (const nothing of [
      { type: [] },
      { logicalId: 'unknown' },
      { since: new Date(NOON + 2) },
      { until: new Date(0) },
    ]) {
      expect(await sink.page(nothing)).toEqual({ activities: [], next: undefined })
      expect(await sink.countByType(nothing)).toEqual({})
    }
  })

  test('a batch is one insert', async () => {
    const { db, sink } = await newSink()
    const batch = Array.from({ length: 2001 }, () => activity())
    expect(await queriesOf(db, () => sink.write(batch.slice(0, 1000)))).toHaveLength(1)
    expect(await queriesOf(db, () => sink.write(batch))).toHaveLength(3)
    expect(await queriesOf(db, () => sink.write([]))).toHaveLength(0)
    expect(await sink.countByType({})).toEqual({ 'order.placed': 2001 })
  })

  test('a batch that comes again, or holds an activity twice, leaves each once, as it came first', async () => {
    const { sink } = await newSink()
    const [one, two, three] = [activity(), activity(), activity()]
    await sink.write([one, two, one])
    await sink.write([{ ...one, type: 'forged' }, two, three])
    expect(await everything(sink)).toStrictEqual([one, two, three])
  })

  test('pruning removes what is older, in portions between which others have their turn', async () => {
    const { db, sink } = await newSink()
    const old = Array.from({ length: 2500 }, (_, n) => activity({ at: new Date(NOON - 1 - (n % 3)) }))
    const kept = [activity(), activity({ at: new Date(NOON + 1) })]
    for (const batch of [old, kept]) await sink.write(batch)
    let turns = 0
    let isDone = false
    const other = (): void => {
      turns++
      if (!isDone) setImmediate(other)
    }
    setImmediate(other)
    let removed: number | undefined
    const queries = await queriesOf(db, async () => {
      removed = await sink.prune(new Date(NOON))
    })
    isDone = true
    expect(removed).toBe(2500)
    expect(queries.filter((query) => query.sql.startsWith('delete'))).toHaveLength(11)
    expect(turns).toBeGreaterThanOrEqual(10)
    expect(await everything(sink)).toStrictEqual(kept)
    expect(await sink.prune(new Date(NOON))).toBe(0)
  })

  test('prunes and writes at the same time do each other no harm, and all that is old is gone', async () => {
    const { sink } = await newSink()
    const old = Array.from({ length: 3000 }, () => activity({ at: new Date(NOON - 1) }))
    const fresh = Array.from({ length: 3000 }, () => activity())
    await sink.write(old)
    const [first, second, third] = await Promise.all([
      sink.prune(new Date(NOON)),
      sink.prune(new Date(NOON)),
      sink.prune(new Date(NOON)),
      ...[0, 1000, 2000].map((start) => sink.write(fresh.slice(start, start + 1000))),
    ])
    expect(Number(first) + Number(second) + Number(third)).toBe(3000)
    expect(await sink.countByType({})).toEqual({ 'order.placed': 3000 })
  })

  describe('migrateActivities()', () => {
    test('may run again: what is there stays, what is missing is made, and then nothing but the catalogue is read', async () => {
      const { db, sink, table } = await newSink()
      await sink.write([activity()])
      await db.schema.dropIndex(`${table}_by_user_id`).execute()
      const repair = await queriesOf(db, () => migrateActivities(db, { table }))
      expect(repair.map((query) => query.sql).join()).toMatch(/create index/)
      const again = await queriesOf(db, () => migrateActivities(db, { table }))
      expect(again.map((query) => query.sql)).toEqual([expect.stringMatching(/^select /)])
      expect(await everything(sink)).toHaveLength(1)
    })

    test('makes the default table, which the sink uses by default', async () => {
      const db = open()
      await db.schema.dropTable('session_activities').ifExists().execute()
      await migrateActivities(db)
      const sink = sqlSink({ db })
      const written = activity()
      await sink.write([written])
      expect(await everything(sink)).toStrictEqual([written])
      await activityMigration().down(db)
    })

    test('is a migration for a Migrator of Kysely, up and down', async () => {
      const db = open()
      const table = newTable()
      const migrations: Record<string, Migration> = { '2026-01-activities': activityMigration({ table }) }
      const [migrationTableName, migrationLockTableName] = [`${table}_m`, `${table}_l`]
      const provider = { getMigrations: async () => migrations }
      const migrator = new Migrator({ db, provider, migrationTableName, migrationLockTableName })
      const up = await migrator.migrateToLatest()
      expect(up).toMatchObject({ results: [{ status: 'Success' }] })
      const sink = sqlSink({ db, table })
      await sink.write([activity()])
      expect(await migrator.migrateDown()).toMatchObject({ results: [{ status: 'Success' }] })
      await expect(sink.write([activity()])).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    })

    test('inside of a transaction is part of it', async () => {
      const db = open()
      const table = newTable()
      const undone = db.transaction().execute(async (transaction) => {
        await migrateActivities(transaction, { table })
        await sqlSink({ db: transaction, table }).write([activity()])
        throw new Error('undone')
      })
      await expect(undone).rejects.toThrow('undone')
      await expect(sqlSink({ db, table }).page({})).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    })
  })

  test('plugins of the application neither rename columns nor change details', async () => {
    const { sink } = await newSink({ plugins: [new CamelCasePlugin()] })
    const written = activity({ details: { snake_case: { deep_down: 1 } } })
    await sink.write([written])
    expect(await everything(sink, { logicalId: 'logical-1' })).toStrictEqual([written])
    expect(await sink.countByType({})).toEqual({ 'order.placed': 1 })
  })

  test('two tables of one database are two archives', async () => {
    const { db, sink } = await newSink()
    const other = newTable()
    await migrateActivities(db, { table: other })
    await sink.write([activity()])
    expect(await everything(sqlSink({ db, table: other }))).toEqual([])
  })

  test('the database stays open when the sink is closed', async () => {
    const { sink } = await newSink()
    expect(isArchive(sink)).toBe(true)
    await sink.close?.()
    await sink.write([activity()])
    expect(await everything(sink)).toHaveLength(1)
  })

  test('a table that is missing is told with what to do', async () => {
    const db = open()
    const sink = sqlSink({ db, table: 'never_made' })
    for (const call of [
      () => sink.write([activity()]),
      () => sink.page({}),
      () => sink.countByType({}),
      () => sink.prune(new Date()),
    ]) {
      await expect(Promise.resolve(call())).rejects.toMatchObject({
        name: 'SessionError',
        code: 'STORE_UNAVAILABLE',
        message: 'There is no table never_made: run migrateActivities(db) once, before the application starts.',
        cause: expect.any(Error),
      })
    }
  })

  test('an error of the database is told without SQL and values, with the error as its cause', async () => {
    const { db, sink, table } = await newSink()
    await db.schema.alterTable(table).dropColumn('details').execute()
    const secret = 'no-one-may-read-this'
    const error: Error = await Promise.resolve(sink.write([activity({ details: { secret }, userId: secret })])).then(
      () => Promise.reject(new Error('nothing was thrown')),
      (thrown) => thrown,
    )
    expect(error).toMatchObject({ name: 'SessionError', code: 'STORE_UNAVAILABLE', cause: expect.any(Error) })
    expect(error.message).toMatch(new RegExp(`^The table ${table} could not be written( \\([A-Z0-9_]+\\))?\\.$`))
    expect(error.message).not.toMatch(/insert|values|no-one/i)
  })

  test('a Kysely instance that was destroyed is an error, not a crash', async () => {
    const { db, sink } = await newSink()
    await db.destroy()
    await expect(sink.write([activity()])).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    await expect(sink.page({})).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  })

  test.each([
    ['limit', { limit: 0 }],
    ['limit', { limit: 1001 }],
    ['limit', { limit: 1.5 }],
    ['limit', { limit: '10' }],
    ['limit', { limit: Number.NaN }],
    ['order', { order: 'sideways' }],
    ['order', { order: null }],
    ['after', { after: 'nonsense' }],
    ['after', { after: '' }],
    ['after', { after: 7 }],
    ['after', { after: Buffer.from('[1.5,"a"]').toString('base64url') }],
    ['after', { after: Buffer.from('[1,"\\u0000"]').toString('base64url') }],
    ['after', { after: Buffer.from('null').toString('base64url') }],
    ['since', { since: new Date(Number.NaN) }],
    ['since', { since: '2026-01-01' }],
    ['until', { until: null }],
    ['logicalId', { logicalId: ['a'] }],
    ['sessionId', { sessionId: { $ne: '' } }],
    ['userId', { userId: null }],
    ['type', { type: [1] }],
  ])('a %s that cannot be is refused before the database is asked (%#)', async (name, query) => {
    const db = open()
    const sink = sqlSink({ db })
    const message = expect.stringMatching(new RegExp(`^${name} is `))
    const queries = await queriesOf(db, async () => {
      await expect(sink.page(query as object)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message })
      const isOfPage = ['limit', 'order', 'after'].includes(name)
      if (!isOfPage) await expect(sink.countByType(query as object)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    })
    expect(queries).toEqual([])
  })

  test('what cannot be stored is refused: no time, or details that JSON cannot hold', async () => {
    const { sink } = await newSink()
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    for (const wrong of [{ at: new Date(Number.NaN) }, { details: cycle }, { details: { n: 1n } }]) {
      await expect(sink.write([activity(wrong)])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    }
    await expect(sink.prune(new Date(Number.NaN))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(await everything(sink)).toEqual([])
  })

  test('details that somebody else has changed are shown as they are', async () => {
    const { db, sink, table } = await newSink()
    const written = activity()
    await sink.write([written])
    for (const details of ['no JSON', '[1]', '7', 'null', '"x"', '', '['.repeat(50_000)]) {
      await sql`update ${sql.table(table)} set details = ${details}, originals = ${details}, request = ${details}`.execute(
        db,
      )
      expect(await everything(sink)).toStrictEqual([
        { ...written, details: { unreadable: details }, request: undefined },
      ])
    }
  })

  test('the columns are there to be queried by hand', async () => {
    const { db, sink, table } = await newSink()
    await sink.write([activity({ id: 'a', userId: 42 })])
    const { rows } = await sql<object>`select * from ${sql.table(table)} where logical_id = 'logical-1'`.execute(db)
    expect(rows).toEqual([
      {
        id: 'a',
        at: expect.anything(),
        type: 'order.placed',
        logical_id: 'logical-1',
        session_id: 'session-1',
        user_id: '42',
        user_id_type: 'number',
        details: '{"orderId":7}',
        request: '{"method":"POST","path":"/orders","ip":"192.0.2.1"}',
        originals: null,
      },
    ])
    expect(Number((rows[0] as { at: unknown }).at)).toBe(NOON)
  })
})

describe('no scan of the table', () => {
  const ROWS = 20_000
  const [SINCE, UNTIL] = [new Date(NOON + 100_000), new Date(NOON + 101_000)]

  /** Each use of the sink, and the index that answers it. */
  const USES: readonly [name: string, index: string, use: (sink: ActivityArchive) => Promise<unknown>][] = [
    ['a timeline by logical ID', 'by_logical_id', (sink) => sink.page({ logicalId: 'l7', limit: 5 })],
    ['its next page', 'by_logical_id', (sink) => secondPage(sink, { logicalId: 'l7', limit: 5 })],
    ['its newest page', 'by_logical_id', (sink) => sink.page({ logicalId: 'l7', limit: 5, order: 'newest-first' })],
    [
      'its page before',
      'by_logical_id',
      (sink) => secondPage(sink, { logicalId: 'l7', limit: 5, order: 'newest-first' }),
    ],
    ['its part in a window', 'by_logical_id', (sink) => sink.page({ logicalId: 'l7', since: SINCE, until: UNTIL })],
    ['its counts', 'by_logical_id', (sink) => sink.countByType({ logicalId: 'l7' })],
    ['a timeline by session ID', 'by_session_id', (sink) => sink.page({ sessionId: 's7', limit: 5 })],
    ['its next page', 'by_session_id', (sink) => secondPage(sink, { sessionId: 's7', limit: 5 })],
    ['its counts', 'by_session_id', (sink) => sink.countByType({ sessionId: 's7' })],
    ['a timeline of a user', 'by_user_id', (sink) => sink.page({ userId: 'u7', limit: 5 })],
    ['a page of a window', 'by_time', (sink) => sink.page({ since: SINCE, until: UNTIL, type: ['t1', 't2'] })],
    ['the next page of all', 'by_time', (sink) => secondPage(sink, {})],
    ['counts in a window', 'by_time', (sink) => sink.countByType({ since: SINCE, until: UNTIL })],
    ['counts of a type in a window', 'by_time', (sink) => sink.countByType({ since: SINCE, until: UNTIL, type: 't1' })],
    ['pruning', 'by_time', (sink) => sink.prune(new Date(NOON + 5000))],
  ]

  /** The second page alone is asked of the database: its cursor comes from an archive of two activities. */
  async function secondPage(sink: ActivityArchive, query: Parameters<ActivityArchive['page']>[0]): Promise<unknown> {
    return sink.page({ ...query, after: cursor })
  }
  let cursor: string | undefined

  beforeAll(async () => {
    const db = openSqlite(':memory:')
    await migrateActivities(db)
    const sink = sqlSink({ db })
    await sink.write([activity({ at: new Date(NOON + 50_000) }), activity({ at: new Date(NOON + 50_001) })])
    cursor = (await sink.page({ limit: 1 })).next
  })

  describe('in SQLite', () => {
    let db: Db
    beforeAll(async () => {
      db = openSqlite(':memory:')
      await migrateActivities(db)
      await sql`
        insert into session_activities (id, at, type, logical_id, session_id, user_id, user_id_type)
        with recursive n(i) as (select 0 union all select i + 1 from n where i < ${ROWS - 1})
        select 'id-' || i, ${NOON} + i * 10, 't' || i % 10, 'l' || i % 50, 's' || i % 40, 'u' || i % 20, 'string' from n
      `.execute(db)
    })

    async function planOf(query: CompiledQuery): Promise<string> {
      const explain = { ...query, sql: `explain query plan ${query.sql}` }
      const { rows } = await db.executeQuery<{ detail: string }>(explain)
      return rows.map(({ detail }) => detail).join('\n')
    }

    test.each(USES)('%s uses the index %s', async (_name, index, use) => {
      const queries = await queriesOf(db, () => use(sqlSink({ db })))
      expect(queries).not.toEqual([])
      for (const query of queries) {
        const plan = await planOf(query)
        expect(plan).toMatch(
          new RegExp(`SEARCH session_activities USING (COVERING )?INDEX session_activities_${index} `),
        )
        expect(plan).not.toMatch(/SCAN session_activities|ORDER BY/)
      }
    })

    test('counts in a window read nothing but the index', async () => {
      const [query] = await queriesOf(db, () => sqlSink({ db }).countByType({ since: SINCE, until: UNTIL }))
      expect(await planOf(query as CompiledQuery)).toMatch(/USING COVERING INDEX session_activities_by_time/)
    })
  })

  describe('in PostgreSQL', () => {
    let db: Db
    const table = `t${RUN}_plan`
    beforeAll(async () => {
      db = openPostgres()
      await migrateActivities(db, { table })
      await sql`
        insert into ${sql.table(table)} (id, at, type, logical_id, session_id, user_id, user_id_type)
        select 'id-' || i, ${NOON}::bigint + i * 10, 't' || i % 10, 'l' || i % 50, 's' || i % 40, 'u' || i % 20, 'string'
        from generate_series(0, ${ROWS}::int - 1) as i
      `.execute(db)
      await sql`analyze ${sql.table(table)}`.execute(db)
    })

    interface Plan {
      'Node Type': string
      'Index Name'?: string
      Plans?: Plan[]
    }

    async function planOf(query: CompiledQuery): Promise<readonly Plan[]> {
      const explain = { ...query, sql: `explain (format json) ${query.sql}` }
      const { rows } = await db.executeQuery<{ 'QUERY PLAN': { Plan: Plan }[] }>(explain)
      const nodes: Plan[] = []
      const visit = (plan: Plan): void => {
        nodes.push(plan)
        plan.Plans?.forEach(visit)
      }
      for (const { Plan: plan } of rows[0]?.['QUERY PLAN'] ?? []) visit(plan)
      return nodes
    }

    test.each(USES)('%s uses the index %s', async (_name, index, use) => {
      const queries = await queriesOf(db, () => use(sqlSink({ db, table })))
      expect(queries).not.toEqual([])
      for (const query of queries) {
        const plan = await planOf(query)
        const kinds = plan.map((node) => node['Node Type'])
        expect(kinds).not.toContain('Seq Scan')
        expect(plan.map((node) => node['Index Name'])).toContain(`${table}_${index}`)
        // The few rows of a window may be sorted; a timeline is read in order, or it would be read whole for a page of it.
        const isWindow = /group by|"at" >=/.test(query.sql)
        if (!isWindow) expect(kinds.filter((kind) => kind.endsWith('Sort'))).toEqual([])
      }
    })
  })
})

describe('at once', () => {
  test('ten processes at once make one table in a file of SQLite', async () => {
    // One program, so that ten processes start in the time of one under a loader for TypeScript.
    const program = join(DIRECTORY, 'migrate.mjs')
    const root = fileURLToPath(new URL('../../../..', import.meta.url))
    const libsql = pathToFileURL(join(root, 'node_modules/libsql/index.js')).href
    buildSync({
      stdin: {
        contents: `
          import { Kysely, SqliteDialect } from 'kysely'
          import { migrateActivities } from './src/features/activity/index.ts'
          const { default: Database } = await import('${libsql}')
          const db = new Kysely({ dialect: new SqliteDialect({ database: new Database(process.argv[2], { timeout: 5000 }) }) })
          process.stdout.write('ready')
          await new Promise((resolve) => process.stdin.once('data', resolve))
          await migrateActivities(db)
          process.stdout.write(' made')
          process.exit(0)`,
        resolveDir: root,
        loader: 'ts',
      },
      bundle: true,
      platform: 'node',
      format: 'esm',
      external: [libsql],
      outfile: program,
    })
    const path = join(DIRECTORY, 'ten.db')
    const { NODE_OPTIONS: _jestOptions, ...env } = process.env
    const children = Array.from({ length: 10 }, () => {
      const child = spawn(process.execPath, [program, path], { env, stdio: 'pipe' })
      let output = ''
      child.stderr.on('data', (chunk) => {
        output += chunk
      })
      const isReady = once(child.stdout, 'data')
      child.stdout.on('data', (chunk) => {
        output += chunk
      })
      return { child, isReady, hasEnded: once(child, 'close').then(() => output) }
    })
    await Promise.all(children.map(({ isReady, hasEnded }) => Promise.race([isReady, hasEnded])))
    for (const { child } of children) child.stdin.end('go')
    const outputs = await Promise.all(children.map(({ hasEnded }) => hasEnded))
    expect(outputs).toEqual(Array.from({ length: 10 }, () => 'ready made'))
    const db = openSqlite(path)
    const made = await queriesOf(db, () => migrateActivities(db))
    expect(made).toHaveLength(1)
  })

  test('a migration waits for another one that holds the lock of SQLite', async () => {
    const path = join(DIRECTORY, 'locked.db')
    const other = new Database(path)
    other.exec('create table customers (id integer)')
    other.exec('begin exclusive')
    const db = openSqlite(path)
    let isOver = false
    const migration = migrateActivities(db).finally(() => {
      isOver = true
    })
    while (!isOver && (asked.get(db) ?? []).length < 2) await Promise.race([migration, sleep(5)])
    expect(isOver).toBe(false)
    other.exec('commit')
    await migration
    await sqlSink({ db }).write([activity()])
    other.close()
  })

  test.each(['nobody else makes it', 'a second call on the same connection makes it'])(
    'what libsql did not commit after a lock is not taken for made, where %s',
    async (where) => {
      const path = join(DIRECTORY, `${where}.db`)
      const other = new Database(path)
      other.exec('pragma journal_mode = wal')
      other.exec('create table customers (id integer)')
      other.exec('begin immediate')
      const db = openSqlite(path)
      const queries = asked.get(db) ?? []
      const migration = migrateActivities(db)
      while (queries.length < 4) await sleep(1)
      other.exec('commit')
      if (where.startsWith('a second call')) await migrateActivities(db)
      // Until the statement that met the lock is garbage.
      const isOver = migration.then(() => true)
      while (!(await Promise.race([isOver, sleep(20, false)]))) collectGarbage()
      const found = other.prepare("select name from sqlite_master where name like 'session_activities%'").all()
      expect(found).toHaveLength(5)
      other.close()
    },
  )

  test('ten connections make one table in PostgreSQL', async () => {
    const table = newTable()
    const ten = Array.from({ length: 10 }, () => openPostgres())
    await Promise.all(ten.map((db) => migrateActivities(db, { table })))
    await Promise.all(ten.map(async (db) => sqlSink({ db, table }).write([activity()])))
    expect(await sqlSink({ db: ten[0] as Db, table }).countByType({})).toEqual({ 'order.placed': 10 })
  })

  test('in PostgreSQL nothing is made before the lock is held, all of it in one transaction', async () => {
    const db = openPostgres()
    const queries = await queriesOf(db, () => migrateActivities(db, { table: newTable() }))
    const steps = queries.map((query) => query.sql)
    expect(steps.map((step) => step.slice(0, 12))).toEqual([
      'select to_re',
      'begin',
      'select pg_ad',
      'select to_re',
      'create table',
      ...Array.from({ length: 4 }, () => 'create index'),
      'commit',
    ])
  })
})

describe('only in PostgreSQL', () => {
  test('the table may be in a schema', async () => {
    const db = openPostgres()
    const schema = `s${RUN}`
    await db.schema.createSchema(schema).execute()
    try {
      const table = `${schema}.activities`
      await migrateActivities(db, { table })
      const again = await queriesOf(db, () => migrateActivities(db, { table }))
      expect(again).toHaveLength(1)
      const sink = sqlSink({ db, table })
      const written = activity()
      await sink.write([written])
      expect(await everything(sink)).toStrictEqual([written])
      expect(await sink.prune(new Date(NOON + 1))).toBe(1)
      await activityMigration({ table }).down(db)
    } finally {
      await sql`drop schema ${sql.id(schema)} cascade`.execute(db)
    }
  })

  test.each([
    ['numbers', Number],
    ['BigInt', BigInt],
  ])('big integers may be parsed as %s', async (_name, parse) => {
    const types = {
      getTypeParser: (oid: number, format?: 'text') => (oid === 20 ? parse : pg.types.getTypeParser(oid, format)),
    } as pg.CustomTypesConfig
    const db = openPostgres({ types })
    const table = newTable()
    await migrateActivities(db, { table })
    const sink = sqlSink({ db, table })
    const written = [activity(), activity({ at: new Date(NOON + 1) })]
    await sink.write(written)
    expect(await everything(sink, { limit: 1 })).toStrictEqual(written)
    expect(await sink.countByType({})).toStrictEqual({ 'order.placed': 2 })
  })

  test('text is compared by its bytes, whatever the language of the database', async () => {
    const db = openPostgres()
    const table = newTable()
    await migrateActivities(db, { table })
    const { rows } = await sql<{ name: string }>`
      select column_name as name from information_schema.columns
      where table_name = ${table} and collation_name = 'C' order by 1`.execute(db)
    expect(rows.map(({ name }) => name)).toEqual(['id', 'logical_id', 'session_id', 'type', 'user_id'])
  })

  describe('with least rights', () => {
    const [writer, reader] = [`w${RUN}`, `r${RUN}`]
    let db: Db
    let table: string

    beforeAll(async () => {
      db = openPostgres()
      table = newTable()
      await migrateActivities(db, { table })
      const name = sql.table(table)
      for (const role of [writer, reader]) await sql`create role ${sql.id(role)}`.execute(db)
      await sql`grant insert on ${name} to ${sql.id(writer)}`.execute(db)
      await sql`grant insert, select, delete on ${name} to ${sql.id(reader)}`.execute(db)
    })

    afterAll(async () => {
      for (const role of [writer, reader]) {
        await sql`drop owned by ${sql.id(role)}`.execute(db)
        await sql`drop role ${sql.id(role)}`.execute(db)
      }
    })

    function as<T>(role: string, work: (sink: ActivityArchive, db: Db) => Promise<T>): Promise<T> {
      return db.transaction().execute(async (transaction) => {
        await sql`set local role ${sql.id(role)}`.execute(transaction)
        return work(sqlSink({ db: transaction, table }), transaction)
      })
    }

    test('a role that may only insert can write, also twice, and do nothing else', async () => {
      const written = [activity(), activity()]
      await as(writer, async (sink) => {
        await sink.write(written)
        await sink.write(written)
      })
      const denied = { code: 'STORE_UNAVAILABLE', message: expect.stringContaining('(42501)') }
      await expect(as(writer, (sink) => sink.page({}))).rejects.toMatchObject(denied)
      await expect(as(writer, (sink) => sink.prune(new Date()))).rejects.toMatchObject(denied)
    })

    test('a role without the right to create does everything at run time, and its migration finds nothing to do', async () => {
      await as(reader, async (sink, transaction) => {
        await migrateActivities(transaction, { table })
        const written = activity({ logicalId: 'least', at: new Date(NOON - 5000) })
        await sink.write([written])
        expect(await everything(sink, { logicalId: 'least' })).toStrictEqual([written])
        expect(await sink.countByType({ logicalId: 'least' })).toEqual({ 'order.placed': 1 })
        expect(await sink.prune(new Date(NOON - 4000))).toBe(1)
      })
      await expect(
        as(reader, (_sink, transaction) => activityMigration({ table }).down(transaction)),
      ).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    })
  })

  test('a server that cannot be reached is an error with the reason', async () => {
    const pool = new pg.Pool({ host: '127.0.0.1', port: 1, connectionTimeoutMillis: 2000 })
    const db = opens(new PostgresDialect({ pool }))
    await expect(sqlSink({ db }).write([activity()])).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: 'The table session_activities could not be written (ECONNREFUSED).',
    })
  })
})

describe('only in SQLite', () => {
  test('what was written to a file is there when it is opened again', async () => {
    const path = join(DIRECTORY, 'again.db')
    const first = openSqlite(path)
    await migrateActivities(first)
    const written = activity()
    await sqlSink({ db: first }).write([written])
    await first.destroy()
    expect(await everything(sqlSink({ db: openSqlite(path) }))).toStrictEqual([written])
  })

  test('times are integers', async () => {
    const db = openSqlite(':memory:')
    await migrateActivities(db)
    await sqlSink({ db }).write([activity()])
    const { rows } = await sql`select typeof(at) as type, at from session_activities`.execute(db)
    expect(rows).toEqual([{ type: 'integer', at: NOON }])
  })
})

describe('options', () => {
  test.each([
    '',
    'x"; drop table customers; --',
    "a'b",
    'a b',
    '1a',
    'a.b.c',
    '.a',
    'a.',
    'ä',
    'a\0',
    'a'.repeat(41),
    7,
    null,
    {},
  ])('a table that is called %j is refused', (table) => {
    const db = openSqlite(':memory:')
    const error = expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(/^table is not /) })
    const options = { table: table as string }
    expect(() => sqlSink({ db, ...options })).toThrow(error as unknown as Error)
  })

  test('SQLite has no schemas', () => {
    const db = openSqlite(':memory:')
    expect(() => sqlSink({ db, table: 'audit.activities' })).toThrow(/^table has a schema/)
  })

  test.each([undefined, null, {}, 'postgres://', new Database(':memory:')])(
    'what is no Kysely instance is refused (%#)',
    async (db) => {
      expect(() => sqlSink({ db: db as unknown as Db })).toThrow(/^db is not a Kysely instance/)
      await expect(migrateActivities(db as unknown as Db)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    },
  )

  test('a database of another kind is refused', () => {
    const db = new Kysely<AppTables>({
      dialect: {
        createAdapter: () => new MssqlAdapter(),
        createDriver: () => new DummyDriver(),
        createIntrospector: (instance) => new MssqlIntrospector(instance),
        createQueryCompiler: () => new MssqlQueryCompiler(),
      },
    })
    expect(() => sqlSink({ db })).toThrow(/^db is not a Kysely instance for PostgreSQL, MySQL or SQLite/)
  })
})
