// Whether the SQL store is in anybody's way: how long SQLite holds the event loop while four processes write, what calls wait for beside
// a clean-up, and what touches make of a table. Prints JSON.
//   argv: directory of the package, 'quick' or 'full', JSON of the databases
//   argv of one of the writers: directory of the package, 'writer', path of the file, client, milliseconds
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { load } from './contenders.mjs'
import { newRecord } from './fill.mjs'
import { isThere, openClient, whereOf } from './sql-clients.mjs'
import { quantile } from './statistics.mjs'

const [, , packageDirectory, pace, ...rest] = process.argv
const isQuick = pace === 'quick'
const library = await load(packageDirectory)
const { SqlSessionStore } = await load(packageDirectory, './sql')
const HOUR_MS = 3_600_000
const LIVE = 1_000

if (pace === 'writer') await write(...rest)
else await measureAll(JSON.parse(rest[0]))
process.exit(0)

async function measureAll(databases) {
  const sqlite = (await isThere('better-sqlite3')) ? 'better-sqlite3' : 'node:sqlite'
  const found = {
    client: sqlite,
    writers: await fourWriters(sqlite, databases),
    sqlite: await purgeOfSqlite(sqlite, databases),
    postgres: await purgeOfPostgres(databases),
    touches: await touches(databases),
  }
  console.log(JSON.stringify(found))
}

/**
 * How long one call into the client took, in four processes that write to one file: so long the event loop was held. Beside it, what is
 * the client's of it, its CPU, and what is the disk's.
 */
async function fourWriters(kind, databases) {
  const where = whereOf(kind, databases, 'writers')
  const client = await openClient(kind, where)
  await new SqlSessionStore({ database: client.database, cleanupInterval: 0 }).migrate()
  const file = fileURLToPath(import.meta.url)
  const children = Array.from({ length: 4 }, () =>
    fork(file, [packageDirectory, 'writer', where, kind, isQuick ? 3_000 : 20_000].map(String)),
  )
  await Promise.all(children.map((child) => once(child, 'message')))
  const answers = children.map((child) => once(child, 'message'))
  for (const child of children) child.send('go')
  let areDone = false
  const all = Promise.all(answers).finally(() => {
    areDone = true
  })
  const disk = await syncs(`${where}-sync`, () => areDone)
  const told = (await all).map(([answer]) => answer)
  await client.close()
  const held = told.flatMap((answer) => answer.held)
  return {
    writes: told.reduce((sum, { writes }) => sum + writes, 0),
    p99Ms: quantile(held, 0.99),
    longestMs: Math.max(...held),
    mostCpuMs: Math.max(...told.map((answer) => answer.mostCpuMs)),
    disk: { p99Ms: quantile(disk, 0.99), longestMs: Math.max(...disk) },
  }
}

/** How long the disk takes for 4 KB, again and again until something is done. */
async function syncs(path, isDone) {
  const file = openSync(path, 'w')
  const block = Buffer.alloc(4_096, 1)
  const tookMs = []
  while (!isDone()) {
    const began = performance.now()
    writeSync(file, block, 0, block.length, 0)
    fsyncSync(file)
    tookMs.push(performance.now() - began)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  closeSync(file)
  return tookMs
}

async function write(where, kind, ms) {
  const held = []
  const cpu = []
  const client = await openClient(kind, where)
  const store = new SqlSessionStore({
    database: timed(client.database, held, cpu),
    cleanupInterval: 0,
    timeout: 10_000,
  })
  const records = await live(store, 8)
  process.send('ready')
  await once(process, 'message')
  held.length = 0
  cpu.length = 0
  const end = performance.now() + Number(ms)
  let writes = 0
  await Promise.all(
    records.map(async ({ id }) => {
      while (performance.now() < end) {
        await change(store, id)
        writes++
      }
    }),
  )
  await new Promise((sent) => process.send({ held, writes, mostCpuMs: Math.max(...cpu) }, sent))
}

/** The same connection, which notes how many milliseconds each call into it takes, and how many of CPU. */
function timed(database, held, cpu = []) {
  const time = (call) => {
    const began = performance.now()
    const before = process.cpuUsage()
    try {
      return call()
    } finally {
      const { user, system } = process.cpuUsage(before)
      held.push(performance.now() - began)
      cpu.push((user + system) / 1_000)
    }
  }
  const { exec, prepare } = database
  return Object.assign(database, {
    exec: (sql) => time(() => exec.call(database, sql)),
    prepare(sql) {
      const statement = prepare.call(database, sql)
      return {
        all: (...values) => time(() => statement.all(...values)),
        run: (...values) => time(() => statement.run(...values)),
      }
    },
  })
}

async function live(store, count) {
  const records = Array.from({ length: count }, () => newRecord(library))
  for (const record of records) await store.create(record.id, record, HOUR_MS / 1000)
  return records
}

async function change(store, id) {
  const record = await store.get(id)
  const at = Date.now()
  const set = new Map([['views', String(at)]])
  const { generation } = record
  const change = { generation, at, expiresAt: at + HOUR_MS, set, madeOn: record }
  await store.update(id, change, HOUR_MS / 1000)
}

/** Many sessions that are to be forgotten, beside some that are not. */
async function forgotten(client, { prefix, id, count, numbers, uuid }) {
  const columns =
    'version, user_id, created_at, updated_at, last_accessed_at, expires_at, absolute_expires_at, idle_timeout_ms, ended, meta, fields, large'
  await client.write(
    `insert into ${prefix}sessions (id, ${columns}, forget_at) select ${uuid}, ${columns}, 1 from ${prefix}sessions, ${numbers(count)} where id = '${id}'`,
  )
}

async function purgeOfSqlite(kind, databases) {
  const held = []
  const client = await openClient(kind, whereOf(kind, databases, 'purge'))
  const store = new SqlSessionStore({ database: timed(client.database, held), cleanupInterval: 0, timeout: 10_000 })
  const records = await live(store, LIVE)
  await forgotten(client, {
    prefix: 'sojourn_',
    id: records[0].id,
    count: isQuick ? 100_000 : 1_000_000,
    uuid: 'lower(hex(randomblob(16)))',
    numbers: (count) =>
      `(with recursive many (n) as (select 1 union all select n + 1 from many where n < ${count}) select n from many) as numbers`,
  })
  await client.rows('pragma wal_checkpoint(truncate)')
  const pause = new Promise((done) => setTimeout(done, isQuick ? 1_000 : 5_000))
  const before = await callsDuring(store, { records, held }, pause)
  const began = performance.now()
  const purge = store.clearExpired()
  const during = await callsDuring(store, { records, held }, purge)
  const result = { removed: await purge, tookMs: performance.now() - began, before, during }
  await client.close()
  return result
}

/** What reads, and writes, wait for until something is done: one of each, some milliseconds apart. */
async function callsDuring(store, { records, held }, task) {
  const reads = []
  const writes = []
  held.length = 0
  let isDone = false
  task.then(() => {
    isDone = true
  })
  for (let n = 0; !isDone; n++) {
    const { id } = records[n % records.length]
    const began = performance.now()
    await store.get(id)
    const read = performance.now()
    reads.push(read - began)
    await change(store, id)
    writes.push(performance.now() - read)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const [readP99Ms, writeP99Ms, heldP99Ms] = [reads, writes, held].map((all) => quantile(all, 0.99))
  return { calls: reads.length, readP99Ms, writeP99Ms, heldP99Ms }
}

async function purgeOfPostgres(databases) {
  const steps = []
  const client = await openClient('pg', databases.postgres)
  const query = client.database.connect.bind(client.database)
  const prefix = 'purge_'
  const pool = Object.assign(Object.create(client.database), {
    async connect() {
      const connection = await query()
      const timedQuery = async (asked) => {
        const began = performance.now()
        const result = await connection.query(asked)
        if (asked.text.startsWith('delete')) steps.push(performance.now() - began)
        return result
      }
      return { query: timedQuery, release: (error) => connection.release(error) }
    },
  })
  const store = new SqlSessionStore({ database: pool, prefix, cleanupInterval: 0, timeout: 10_000 })
  const [record] = await live(store, LIVE)
  await forgotten(client, {
    prefix,
    id: record.id,
    count: isQuick ? 50_000 : 500_000,
    uuid: 'gen_random_uuid()::text',
    numbers: (count) => `generate_series(1, ${count}) as numbers (n)`,
  })
  const began = performance.now()
  const removed = await store.clearExpired()
  const tookMs = performance.now() - began
  await client.close()
  return { removed, tookMs, steps: steps.length, stepP99Ms: quantile(steps, 0.99) }
}

/** How large the table is after so many touches, beside before; and how many of them moved no index. */
async function touches(databases) {
  const client = await openClient('pg', databases.postgres)
  const prefix = 'touches_'
  const store = new SqlSessionStore({ database: client.database, prefix, cleanupInterval: 0, timeout: 10_000 })
  const records = await live(store, isQuick ? LIVE : 10 * LIVE)
  const count = isQuick ? 10_000 : 100_000
  const size = async () =>
    Number((await client.rows(`select pg_total_relation_size('${prefix}sessions') as size`))[0].size)
  await client.write(`vacuum ${prefix}sessions`)
  const before = await size()
  await Promise.all(
    Array.from({ length: 8 }, async (_unused, who) => {
      for (let n = who; n < count; n += 8) {
        await store.touch(records[n % records.length].id, HOUR_MS / 1000, Date.now() + n, 60)
      }
    }),
  )
  const after = await size()
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  const [{ all, hot }] = await client.rows(
    `select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables where relname = '${prefix}sessions'`,
  )
  await client.close()
  return { count, before, after, hotShare: Number(hot) / Number(all) }
}
