// Where the shop keeps its sessions: in Redis when there is a REDIS_URL, else in a file of SQLite, so that they survive a restart
// with nothing to install, else in memory.
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isSessionError, MemorySessionStore, type SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { sqlStore } from 'sojourn/sql'

/** A store, what signs the cookies, and what the page says of it. */
export interface Keeping {
  readonly store: SessionStore
  readonly secret: string
  readonly name: string
  readonly survives: string
}

const { DATA_DIR = fileURLToPath(new URL('.data', import.meta.url)), REDIS_URL, SESSION_SECRET, STORE } = process.env

export async function openKeeping(): Promise<Keeping> {
  if (REDIS_URL) {
    const survives = SESSION_SECRET
      ? 'kept when the process ends'
      : 'but cookies end with the process; set SESSION_SECRET'
    return {
      store: new RedisSessionStore({ url: REDIS_URL }),
      secret: SESSION_SECRET ?? newSecret(),
      name: 'Redis',
      survives,
    }
  }
  const store = STORE === 'memory' ? null : await openSqlite()
  if (store !== null) {
    return { store, secret: SESSION_SECRET ?? keptSecret(), name: 'SQLite', survives: 'kept when the process ends' }
  }
  return {
    store: new MemorySessionStore(),
    secret: SESSION_SECRET ?? newSecret(),
    name: 'memory',
    survives: 'gone when the process ends; set REDIS_URL to keep sessions',
  }
}

/** `null` where neither the runtime nor an installed package has SQLite. */
async function openSqlite(): Promise<SessionStore | null> {
  mkdirSync(DATA_DIR, { recursive: true })
  const store = sqlStore(`sqlite:${join(DATA_DIR, 'sessions.db')}`)
  try {
    await store.migrate()
    return store
  } catch (error) {
    if (isSessionError(error, 'MISSING_DEPENDENCY')) return null
    throw error
  }
}

/** Signs the cookies beyond a restart. In production it comes from outside, the same for all processes. */
function keptSecret(): string {
  const file = join(DATA_DIR, 'secret')
  try {
    writeFileSync(file, newSecret(), { flag: 'wx', mode: 0o600 })
  } catch {
    // There is one.
  }
  return readFileSync(file, 'utf8')
}

function newSecret(): string {
  return randomBytes(32).toString('base64')
}
