// The SQL sink on MariaDB, through Kysely and mysql2: what is different there from SQLite and PostgreSQL.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type CompiledQuery, Kysely, MysqlDialect } from 'kysely'
import { createPool } from 'mysql2'
import { type Activity, ActivityLog, activityMigration, memorySink, migrateActivities, sqlSink } from 'sojourn/activity'
import { sinkChecks } from 'sojourn/testing'
import { sharedMariadb } from '../../../support/mariadb.js'

const RUN = randomBytes(4).toString('hex')
const NOON = Date.UTC(2026, 0, 5, 12)
let mariadb: Awaited<ReturnType<typeof sharedMariadb>>
let db: Kysely<object>
const asked: CompiledQuery[] = []
const tables: string[] = []
let count = 0

beforeAll(async () => {
  mariadb = await sharedMariadb()
  const pool = createPool({ uri: mariadb.url, connectionLimit: 10 })
  db = new Kysely<object>({ dialect: new MysqlDialect({ pool }), log: ({ query }) => void asked.push(query) })
}, 120_000)

afterAll(async () => {
  for (const table of tables) await activityMigration({ table }).down(db)
  await db.destroy()
  await mariadb.stop()
})

function newTable(): string {
  const table = `t${RUN}_${tables.length}`
  tables.push(table)
  return table
}

async function newSink(): Promise<ReturnType<typeof sqlSink>> {
  const table = newTable()
  await migrateActivities(db, { table })
  return sqlSink({ db, table })
}

function activity(given: Partial<Activity> = {}): Activity {
  const facts = { logicalId: 'logical-1', sessionId: 'session-1', userId: 'ann', details: { n: 1 }, request: undefined }
  return { id: `id-${++count}`, at: new Date(NOON), type: 'order.placed', ...facts, ...given }
}

describe('the suite for sinks', () => {
  let made: { sink: ReturnType<typeof sqlSink>; table: string }
  beforeAll(async () => {
    made = { sink: await newSink(), table: tables.at(-1) as string }
  })
  const checks = sinkChecks({
    createSink: () => made.sink,
    createPeer: () => sqlSink({ db, table: made.table }),
  })
  for (const { name, run } of checks) test(name, run)
})

test('texts are told apart by their bytes: capitals, accents and spaces at the end', async () => {
  const sink = await newSink()
  const texts = ['a', 'A', 'ä', 'a ', 'a\u0000', '🙂', 'x'.repeat(255), 'x'.repeat(256)]
  await sink.write(texts.map((text) => activity({ id: text, sessionId: text, type: text })))
  for (const text of texts) {
    const { activities } = await sink.page({ sessionId: text })
    expect(activities.map(({ id, type }) => [id, type])).toEqual([[text, text]])
  }
  const sorted = [...texts].filter((text) => text.length < 255 && !text.includes('\u0000'))
  const { activities } = await sink.page({})
  const ids = activities.map(({ id }) => id).filter((id) => sorted.includes(id))
  expect(ids).toEqual(sorted.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
})

test('a batch that comes again leaves each activity once, as it came first, and what is too long is no silent cut', async () => {
  const sink = await newSink()
  const first = activity({ id: 'one' })
  await sink.write([first, activity({ id: 'one', type: 'other' })])
  await sink.write([activity({ id: 'one', type: 'other' })])
  expect((await sink.page({})).activities).toEqual([first])
  const long = activity({ id: 'two', at: new Date(NOON + 1), details: { text: 'x'.repeat(100_000) } })
  await sink.write([long])
  expect((await sink.page({})).activities[1]).toEqual(long)
})

test('many make one table at once, and where it is there, the catalogue is read and nothing else', async () => {
  const table = newTable()
  await Promise.all(Array.from({ length: 10 }, () => migrateActivities(db, { table })))
  asked.length = 0
  await migrateActivities(db, { table })
  expect(asked.map(({ sql }) => /information_schema/.test(sql))).toEqual([true])
})

test('pages go on without gaps, and pruning goes in portions, of which none takes more than is old', async () => {
  const sink = await newSink()
  const rows = Array.from({ length: 600 }, (_, n) => activity({ at: new Date(NOON + Math.floor(n / 7)), id: `p${n}` }))
  await sink.write(rows)
  const seen: string[] = []
  let after: string | undefined
  do {
    const page = await sink.page({ limit: 100, after })
    seen.push(...page.activities.map(({ id }) => id))
    after = page.next
  } while (after !== undefined)
  const expected = rows.toSorted((a, b) => Number(a.at) - Number(b.at) || (a.id < b.id ? -1 : 1)).map(({ id }) => id)
  expect(seen).toEqual(expected)
  expect(await sink.prune?.(new Date(NOON + 50))).toBe(350)
  expect((await sink.page({ limit: 1 })).activities[0]?.id).toBe(expected[350])
})

test('totals are those that memory counts', async () => {
  const [here, there] = [memorySink(), await newSink()]
  const rows = Array.from({ length: 300 }, (_, n) =>
    activity({
      at: new Date(NOON + n * 60_000),
      type: n % 3 === 0 ? 'page.viewed' : 'api.called',
      sessionId: `s${n % 7}`,
      userId: n % 2 === 0 ? n % 5 : String(n % 5),
    }),
  )
  const totals = await Promise.all(
    [here, there].map(async (sink) => {
      await sink.write(rows)
      const log = new ActivityLog({ sinks: [sink] })
      const found = await log.totals({ since: new Date(NOON), until: new Date(NOON + 6 * 3_600_000), by: 'hour' })
      await log.close()
      return found
    }),
  )
  expect(totals[1]).toEqual(totals[0])
})

test('a table that is missing is told with what to do', async () => {
  const sink = sqlSink({ db, table: 'nowhere' })
  await expect(sink.write([activity()])).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  await expect(sink.write([activity()])).rejects.toThrow(/^There is no table nowhere: run migrateActivities/)
})
