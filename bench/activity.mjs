// What it takes to read a session's activities among few and among many, and to sum up all of them: memory, Redis, SQLite and
// PostgreSQL. Sums are made where the activities are; beside them stands what it takes to read each activity.
// Needs redis-server and PostgreSQL.
//   node bench/activity.mjs [activities, default 1000000] [directory of the package, default the parent of this one]

import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { load } from './contenders.mjs'
import { startPostgres } from './postgres.mjs'
import { startRedis } from './redis.mjs'
import { median, quartiles } from './statistics.mjs'

const [, , many = '1000000', directory = fileURLToPath(new URL('..', import.meta.url))] = process.argv
const SIZES = [1_000, Number(many)]
const PER_SESSION = 20
const BATCH = 1_000
const SAMPLES = 500
const TYPES = ['session.request', 'page.viewed', 'form.sent', 'payment.failed']

const { memorySink, redisStreamSink, sqlSink, migrateActivities, ActivityLog } = await load(
  resolve(directory),
  './activity',
)
// Kysely and its driver are development dependencies of the package.
const require = createRequire(resolve(directory, 'package.json'))
const { Kysely, PostgresDialect, SqliteDialect } = await import(
  pathToFileURL(require.resolve('kysely')).href.replace('/cjs/', '/esm/')
)
const Database = require('libsql')
const pg = require('pg')

const scratch = mkdtempSync(join(tmpdir(), 'sojourn-bench-'))
const redis = await startRedis()
const database = new Database(join(scratch, 'activities.db'))
database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
const db = new Kysely({ dialect: new SqliteDialect({ database }) })
const postgres = await startPostgres()
const pool = new pg.Pool({ connectionString: postgres.url })
const postgresDb = new Kysely({ dialect: new PostgresDialect({ pool }) })
for (const each of [db, postgresDb]) await migrateActivities(each)

const archives = {
  memory: memorySink({ maxActivities: SIZES[1] }),
  Redis: redisStreamSink({ client: redis.client, maxLength: SIZES[1] }),
  SQLite: sqlSink({ db }),
  PostgreSQL: sqlSink({ db: postgresDb }),
}

console.log(`Timelines of ${PER_SESSION} activities, in milliseconds: median (middle half) of ${SAMPLES} sessions`)
for (const [name, archive] of Object.entries(archives)) {
  const log = new ActivityLog({ sinks: [archive] })
  const sessions = []
  let written = 0
  for (const size of SIZES) {
    const startedAt = performance.now()
    while (written < size) {
      await archive.write(batch(sessions))
      written += BATCH
    }
    const fillS = (performance.now() - startedAt) / 1_000
    const timeline = await timed(sessions, (sessionId) => archive.page({ sessionId }))
    const logical = await timed(sessions, (id) => archive.page({ logicalId: `l-${id}` }))
    const report = await timed(sessions, (sessionId) => log.report({ sessionId }))
    const cells = [
      `session ${timeline}`,
      `logical ID ${logical}`,
      `report ${report}`,
      `filled in ${fillS.toFixed(1)} s`,
    ]
    console.log(`${name.padEnd(10)} ${String(size).padStart(8)}: ${cells.join('   ')}`)
  }
  // As statistics are kept by any database in use.
  if (name === 'PostgreSQL') await pool.query('vacuum analyze session_activities')
  const window = { since: new Date(0), until: new Date(Date.now() + 60_000) }
  const byPage = new ActivityLog({ sinks: [{ ...archive, sums: undefined }] })
  const cells = [
    await best('totals by the hour', 5, () => log.totals({ by: 'hour', until: window.until })),
    await best('page by page', 1, () => byPage.totals({ by: 'hour', until: window.until })),
    await best('countByType', 5, () => log.countByType(window)),
    await best('page by page', 1, () => countByPage(log, window)),
  ]
  console.log(`${name.padEnd(10)} ${String(written).padStart(8)}: ${cells.join('   ')}`)
  await log.close()
}
const memory = /used_memory:(\d+)/.exec(await redis.client.info('memory'))[1]
console.log(`Redis holds ${Math.round(memory / SIZES[1])} bytes an activity.`)

await db.destroy()
await postgresDb.destroy()
await postgres.stop()
await redis.stop()
rmSync(scratch, { recursive: true, force: true })

/** The best of some, so that what else runs on this machine does not count. The event loop is watched meanwhile. */
async function best(what, times, work) {
  let [bestMs, leastCpuMs, longestMs] = [Infinity, Infinity, 0]
  for (let n = 0; n < times; n++) {
    let beat = performance.now()
    const timer = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - beat)
      beat = performance.now()
    }, 1)
    const [startedAt, cpuBefore] = [performance.now(), process.cpuUsage()]
    await work()
    bestMs = Math.min(bestMs, performance.now() - startedAt)
    const { user, system } = process.cpuUsage(cpuBefore)
    leastCpuMs = Math.min(leastCpuMs, (user + system) / 1_000)
    longestMs = Math.max(longestMs, performance.now() - beat)
    clearInterval(timer)
  }
  const [all, cpu, held] = [bestMs, leastCpuMs, longestMs].map(Math.round)
  return `${what} ${all} ms (${cpu} ms of this process's CPU, which is held for ${held} ms at most)`
}

async function countByPage(log, query) {
  const counts = {}
  for await (const { type } of log.activities(query)) counts[type] = (counts[type] ?? 0) + 1
  return counts
}

/** Activities of sessions that take turns, as they do in life. */
function batch(sessions) {
  const fresh = Array.from({ length: BATCH / PER_SESSION }, () => randomUUID())
  sessions.push(...fresh)
  const now = Date.now()
  return Array.from({ length: BATCH }, (_, n) => {
    const sessionId = fresh[n % fresh.length]
    return {
      id: randomUUID(),
      at: new Date(now + Math.floor(n / 10)),
      type: TYPES[n % TYPES.length],
      logicalId: `l-${sessionId}`,
      sessionId,
      userId: sessions.length,
      details: { step: n, product: `product-${n % 97}`, amount: n * 1.5 },
      request: { method: 'POST', path: `/orders/${n}`, ip: '203.0.113.7' },
    }
  })
}

async function timed(sessions, read) {
  const times = []
  for (let n = 0; n < SAMPLES; n++) {
    const sessionId = sessions[Math.floor(Math.random() * sessions.length)]
    const startedAt = performance.now()
    const { activities } = await read(sessionId)
    times.push(performance.now() - startedAt)
    if (activities.length !== PER_SESSION) throw new Error(`${activities.length} activities instead of ${PER_SESSION}`)
  }
  const [low, high] = quartiles(times)
  return `${median(times).toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
}
