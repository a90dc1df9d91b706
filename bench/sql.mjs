// What the SQL store costs beside raw prepared statements of the same client, in one process; which statements a request sends; and
// what many writers of one session wait for. Prints JSON.
//   argv: directory of the package, 'quick' or 'full', JSON of the databases
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { load } from './contenders.mjs'
import { sessionData } from './data.mjs'
import { newRecord } from './fill.mjs'
import { exchange } from './in-process.mjs'
import { CLIENTS, isThere, openClient, whereOf } from './sql-clients.mjs'
import { median, quantile } from './statistics.mjs'

const [, , packageDirectory, pace, json] = process.argv
const databases = JSON.parse(json)
const isQuick = pace === 'quick'
const library = await load(packageDirectory)
const { SqlSessionStore } = await load(packageDirectory, './sql')

const ROUNDS = isQuick ? 7 : 21
const BATCH_MS = isQuick ? 60 : 120
const SESSIONS = 64
const HOUR_MS = 3_600_000
/** At once, where a client waits for its server. */
const AT_ONCE = 16
let changes = 0

const found = { clients: {}, statements: {}, writers: {} }
for (const kind of Object.keys(CLIENTS)) {
  if (!(await isThere(kind))) continue
  found.clients[kind] = await costs(kind)
  found.statements[kind] = await statements(kind)
}
for (const kind of ['pg', 'mysql2']) found.writers[kind] = await writers(kind)
console.log(JSON.stringify(found))
process.exit(0)

/** Microseconds of CPU of each operation, and medians of its ratios to a raw one. */
async function costs(kind) {
  const client = await openClient(kind, whereOf(kind, databases))
  const store = new SqlSessionStore({ database: client.database, prepare: true, cleanupInterval: 0 })
  const ids = await filled(store, '0.2')
  const largeIds = await filled(store, '20')
  const raw = await rawTable(client, ids, largeIds)
  const steps = {
    'raw read': (n) => raw.read(ids[n]),
    read: (n) => store.get(ids[n]),
    'raw write': (n) => raw.write(ids[n]),
    write: (n) => change(store, ids[n]),
    'raw write, 20 KB': (n) => raw.write(largeIds[n]),
    'small change, 20 KB': (n) => change(store, largeIds[n]),
  }
  if (kind === 'pg') {
    const unprepared = new SqlSessionStore({ database: client.database, cleanupInterval: 0 })
    steps['read, not prepared'] = (n) => unprepared.get(ids[n])
    steps['write, not prepared'] = (n) => change(unprepared, ids[n])
  }
  const us = await inTurns(steps, CLIENTS[kind] === 'sqlite' ? 1 : AT_ONCE)
  const beside = (step, rawStep) => median(us[step].map((value, round) => value / us[rawStep][round]))
  await client.close()
  return {
    us: Object.fromEntries(Object.entries(us).map(([step, values]) => [step, median(values)])),
    ratios: {
      read: beside('read', 'raw read'),
      write: beside('write', 'raw write'),
      'small change, 20 KB': beside('small change, 20 KB', 'raw write, 20 KB'),
      ...(kind === 'pg' && {
        'read, not prepared': beside('read, not prepared', 'raw read'),
        'write, not prepared': beside('write, not prepared', 'raw write'),
      }),
    },
  }
}

async function filled(store, size) {
  const ids = []
  for (let n = 0; n < SESSIONS; n++) {
    const record = newRecord(library)
    const fields = Object.entries(sessionData(size, n)).map(([name, value]) => [name, JSON.stringify(value)])
    const one = record.with({ fields: new Map(fields) })
    await store.create(one.id, one, HOUR_MS / 1000)
    ids.push(one.id)
  }
  return ids
}

/** As any application would keep sessions that knows of nothing better: one row, one text. */
async function rawTable(client, ...lists) {
  await client.write('drop table if exists raw_sessions')
  await client.write('create table raw_sessions (id varchar(64) primary key, data text, expires_at bigint)')
  for (const [index, ids] of lists.entries()) {
    for (const [n, id] of ids.entries()) {
      const data = JSON.stringify(sessionData(index === 0 ? '0.2' : '20', n))
      await client.write('insert into raw_sessions (id, data, expires_at) values (?, ?, ?)', [
        id,
        data,
        Date.now() + HOUR_MS,
      ])
    }
  }
  const read = (id) => client.rows('select data, expires_at from raw_sessions where id = ?', [id])
  return {
    read,
    async write(id) {
      const [{ data }] = await read(id)
      await client.write('update raw_sessions set data = ?, expires_at = ? where id = ?', [
        data,
        Date.now() + HOUR_MS,
        id,
      ])
    },
  }
}

/** What a request does that changes one small field. */
async function change(store, id) {
  const record = await store.get(id)
  const at = Date.now()
  const set = new Map([['views', String(++changes)]])
  const { generation } = record
  const result = await store.update(
    id,
    { generation, at, expiresAt: at + HOUR_MS, set, madeOn: record },
    HOUR_MS / 1000,
  )
  if (result.status !== 'updated') throw new Error(`The change was not made: ${result.status}`)
}

/** Microseconds of CPU of each step in each round, the steps in turn. */
async function inTurns(steps, atOnce) {
  const names = Object.keys(steps)
  const counts = {}
  for (const name of names) {
    await cpuOf(steps[name], isQuick ? 1_000 : 4_000, atOnce)
    const us = await cpuOf(steps[name], 300, atOnce)
    counts[name] = Math.max(50, Math.round((300 * BATCH_MS * 1000) / us))
  }
  const all = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round < ROUNDS; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round) % names.length]
      all[name].push((await cpuOf(steps[name], counts[name], atOnce)) / counts[name])
    }
  }
  return all
}

async function cpuOf(step, times, atOnce) {
  const before = process.cpuUsage()
  let next = 0
  // Each has sessions of its own: no two change one at the same time.
  const work = async (who) => {
    for (let n = who; next < times; n += atOnce) {
      next++
      await step(n % SESSIONS)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, (_, who) => work(who)))
  const { user, system } = process.cpuUsage(before)
  return user + system
}

/** How many statements a request sends that has no cookie, reads, and writes. */
async function statements(kind) {
  const sent = []
  const client = await openClient(kind, whereOf(kind, databases), (sql) => sent.push(sql))
  const store = new SqlSessionStore({ database: client.database, cleanupInterval: 0 })
  await store.migrate()
  const secret = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
  const middleware = library.session({ secret, store, cookie: { secure: false }, storeTimeout: '10s' })
  const cookie = await exchange(middleware, { handler: (req) => Object.assign(req.session, { views: 1 }) })
  const REQUESTS = 50
  const each = async (request) => {
    await exchange(middleware, request)
    sent.length = 0
    for (let n = 0; n < REQUESTS; n++) await exchange(middleware, request)
    // Asked for once a second, however many requests there are.
    return sent.filter((sql) => !/^select n from/.test(sql)).length / REQUESTS
  }
  const counts = {
    none: await each({ handler: () => {} }),
    read: await each({ cookie, handler: (req) => req.session.views }),
    write: await each({ cookie, handler: (req) => req.session.views++ }),
  }
  await middleware.manager.close()
  await client.close()
  return counts
}

/** One session that one writer changes, 32 in one process, and 32 in four. */
async function writers(kind) {
  const where = whereOf(kind, databases)
  return {
    one: await writing(kind, where, [1]),
    together: await writing(kind, where, [32]),
    apart: await writing(kind, where, [8, 8, 8, 8]),
  }
}

async function writing(kind, where, counts) {
  const client = await openClient(kind, where)
  const store = new SqlSessionStore({ database: client.database, cleanupInterval: 0 })
  const record = newRecord(library)
  await store.create(record.id, record, HOUR_MS / 1000)
  const file = fileURLToPath(new URL('sql-writers.mjs', import.meta.url))
  const children = counts.map((writersOfOne, index) =>
    fork(file, [packageDirectory, kind, where, record.id, index, writersOfOne, isQuick ? 1_000 : 4_000].map(String)),
  )
  await Promise.all(children.map((child) => once(child, 'message')))
  const answers = children.map((child) => once(child, 'message'))
  for (const child of children) child.send('go')
  const told = (await Promise.all(answers)).map(([answer]) => answer)
  const { fields } = await store.get(record.id)
  for (const [name, made] of told.flatMap(({ counters }) => Object.entries(counters))) {
    if (Number(fields.get(name)) !== made)
      throw new Error(`${made} changes were acknowledged, ${fields.get(name)} are there.`)
  }
  await client.close()
  const latencies = told.flatMap(({ latencies: ofOne }) => ofOne)
  return {
    changes: latencies.length,
    p99Ms: quantile(latencies, 0.99),
    statements: told.reduce((sum, { statements: sent }) => sum + sent, 0) / latencies.length,
  }
}
