// A process on a SQL store, for tests that kill it or race it against another. The database is the first argument, what to do
// the second. Each line that it prints is of something that the store has acknowledged.
import { writeSync } from 'node:fs'
import type { SessionData } from 'sojourn'
import { SessionManager } from 'sojourn'
import { type SqlSessionStore, sqlStore } from 'sojourn/sql'
import { recordOf } from './records.js'

const [url = '', task = ''] = process.argv.slice(2)
const store = sqlStore(url, { cleanupInterval: 0, timeout: 5_000 })
await store.migrate()

if (task === 'write') await Promise.all(Array.from({ length: 4 }, () => write(store)))
else if (task === 'purge') await purge()
else await login(JSON.parse(task) as LoginTask)

function say(...words: readonly string[]): void {
  // At once, whatever becomes of this process.
  writeSync(1, `${words.join(' ')}\n`)
}

/** Clean-ups of a few sessions and of many, and one that the end of the store stops. Tells in how many threads of their own. */
async function purge(): Promise<void> {
  const relaxed = sqlStore(url, { cleanupInterval: 0, timeout: 20_000, durability: 'relaxed' })
  let threads = 0
  process.on('worker', () => {
    threads++
  })
  for (const count of [10, 2_500]) {
    const staying = recordOf()
    await relaxed.create(staying.id, staying, 3_600)
    await forget(relaxed, count)
    say('removed', String(await relaxed.clearExpired()), 'in', String(threads))
    if ((await relaxed.get(staying.id)) === null) say('lost', staying.id)
  }
  await forget(relaxed, 2_500)
  const stopped = relaxed.clearExpired()
  await relaxed.close()
  say('stopped', String((await stopped) <= 2_500), 'in', String(threads))
  await store.close()
  // What still ran would keep the process.
}

async function forget(on: SqlSessionStore, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const record = recordOf()
    await on.create(record.id, record, 0)
  }
}

/** Sessions that are made, changed and replaced for ever. Both fields of one always say the same. */
async function write(on: SqlSessionStore): Promise<void> {
  while (true) {
    try {
      let record = recordOf({ fields: fieldsOf(0) })
      if (!(await on.create(record.id, record, 3_600))) throw new Error('taken')
      say('stored', record.id, '0')
      for (let count = 1; count <= 3; count++) {
        record = await change(on, record, count)
        say('stored', record.id, String(count))
      }
      const next = recordOf({ generation: record.generation + 1 })
      const result = await on.regenerate(
        record.id,
        { generation: record.generation, at: Date.now(), next, keep: 'all', tombstoneSeconds: 3_600 },
        3_600,
      )
      if (result.status === 'regenerated') say('replaced', record.id, next.id)
    } catch {
      // The server has been killed: what was not acknowledged is nobody's.
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

async function change(on: SqlSessionStore, record: SessionData, count: number): Promise<SessionData> {
  const at = Date.now()
  const { generation } = record
  const change = { generation, at, expiresAt: at + 3_600_000, set: new Map(fieldsOf(count)), madeOn: record }
  const result = await on.update(record.id, change, 3_600)
  if (result.status !== 'updated') throw new Error(result.status)
  return result.record ?? (await on.get(record.id)) ?? record
}

/** One of them is large, and stands in a column of its own. */
function fieldsOf(count: number): [string, string][] {
  return [
    ['count', String(count)],
    ['large', String(count).repeat(6_000)],
  ]
}

interface LoginTask {
  readonly secret: string
  readonly user: string
  readonly logins: number
  readonly limit: number
}

/** Logins of one user, all at once, as soon as the other process is there as well. */
async function login({ secret, user, logins, limit }: LoginTask): Promise<void> {
  const sessions = new SessionManager({ secret, store, maxSessionsPerUser: limit, storeTimeout: 20 })
  say('ready')
  await new Promise((resolve) => process.stdin.once('data', resolve))
  // Those that another one has evicted before they were there are refused.
  await Promise.allSettled(Array.from({ length: logins }, () => sessions.create({ userId: user })))
  const left = await sessions.sessionsOf(user)
  say('left', String(left.length))
  await sessions.close()
  await store.close()
  process.exit()
}
