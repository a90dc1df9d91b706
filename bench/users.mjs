// What listing, limiting and revoking the sessions of one user takes among many other sessions. Prints JSON, in ms.
//   argv: directory of the package; memory, redis, or a client of SQL; number of other sessions; URL of a Redis of its own, or JSON
//   of the databases
import { Redis } from 'ioredis'
import { load } from './contenders.mjs'
import { copyInRedis, copyInSql, copyUsersInRedis, fill as fillStore } from './fill.mjs'
import { openClient, whereOf } from './sql-clients.mjs'
import { median } from './statistics.mjs'

const ROUNDS = 200
const SESSIONS_OF_ONE = 5

const [, , packageDirectory, kind, count, where] = process.argv
/** Of the tables in a database: those of each count are by themselves. */
const PREFIX = `users_${count}_`
const library = await load(packageDirectory)
let sql
const store = await openStore()
const options = { secret: 'a secret of the benchmark, long enough', store, cleanupInterval: 0 }
const sessions = new library.SessionManager(options)
const limited = new library.SessionManager({ ...options, maxSessionsPerUser: SESSIONS_OF_ONE })

await fill(Number(count))
const timed = {}
for (let round = 0; round < ROUNDS; round++) {
  const userId = `user ${round}`
  const made = []
  for (let n = 0; n < SESSIONS_OF_ONE; n++) made.push(await sessions.create({ userId }))
  await time('sessionsOf', () => sessions.sessionsOf(userId))
  await time('login at the limit', () => limited.create({ userId }))
  await time('revoke', () => sessions.revoke(made[1].id))
  await time('revokeUser', () => sessions.revokeUser(userId))
}
await time('revokeAll', () => sessions.revokeAll())
console.log(JSON.stringify(Object.fromEntries(Object.entries(timed).map(([what, ms]) => [what, median(ms)]))))
await sessions.close()
process.exit(0)

async function time(what, task) {
  const start = performance.now()
  await task()
  timed[what] ??= []
  timed[what].push(performance.now() - start)
}

async function openStore() {
  if (kind === 'memory') return new library.MemorySessionStore({ maxSessions: 3_000_000 })
  if (kind === 'redis') {
    const { RedisSessionStore } = await load(packageDirectory, './redis')
    return new RedisSessionStore({ url: where })
  }
  const { SqlSessionStore } = await load(packageDirectory, './sql')
  sql = await openClient(kind, whereOf(kind, JSON.parse(where), `users-${count}`))
  return new SqlSessionStore({ database: sql.database, prefix: PREFIX, cleanupInterval: 0 })
}

/** So many sessions of other users, each with as many as the one that is measured. */
async function fill(count) {
  if (kind === 'memory') return fillStore(store, library, count, { perUser: SESSIONS_OF_ONE })
  for (let n = 0; n < SESSIONS_OF_ONE; n++) await sessions.create({ userId: 'pattern' })
  if (sql) return copyInSql(sql, { kind, prefix: PREFIX, count, perUser: SESSIONS_OF_ONE })
  const redis = new Redis(where)
  const keys = await redis.keys('*')
  const index = keys.find((key) => key.includes('u:{'))
  await copyInRedis(
    redis,
    keys.find((key) => /:\{[0-9a-f]{4}\}/.test(key)),
    count,
  )
  await copyUsersInRedis(redis, index, count / SESSIONS_OF_ONE)
  redis.disconnect()
}
