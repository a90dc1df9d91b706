// Many sessions in a store, past the request path.
import { createHash, randomUUID } from 'node:crypto'
import { sessionData } from './data.mjs'

const HOUR_MS = 3_600_000
let made = 0

/** A record such as the middleware makes, with the fields of a session of 0.2 KB. */
export function newRecord({ SessionData }, { now = Date.now(), life = HOUR_MS, userId } = {}) {
  const n = made++
  return new SessionData({
    id: randomUUID(),
    userId,
    tokenHash: createHash('sha256').update(String(n)).digest('base64url'),
    generation: 1,
    createdAt: now,
    updatedAt: now,
    lastAccessedAt: now,
    expiresAt: now + life,
    absoluteExpiresAt: now + 12 * HOUR_MS,
    fields: Object.entries(sessionData('0.2', n)).map(([name, value]) => [name, JSON.stringify(value)]),
  })
}

/** Adds `count` sessions to one of our stores; with `perUser`, each so many of one user. */
export async function fill(store, library, count, { perUser, ...options } = {}) {
  for (let index = 0; index < count; index++) {
    const userId = perUser === undefined ? undefined : `other-${Math.floor(made / perUser)}`
    const record = newRecord(library, { ...options, userId })
    await store.create(record.id, record, 3_600)
    if (userId === undefined) continue
    const entry = { id: record.id, since: 0, endsAt: record.absoluteExpiresAt, pendingUntil: 0, isEvicted: false }
    await store.users.add(userId, entry, { now: record.createdAt })
  }
}

/** Adds `count` copies of the session at `key` to Redis, under keys of the same form. */
export async function copyInRedis(redis, key, count) {
  const BATCH = 10_000
  const prefix = key.slice(0, key.indexOf('{'))
  for (let done = 0; done < count; done += BATCH) {
    const size = Math.min(BATCH, count - done)
    await redis.eval(COPY, 1, key, prefix, done, size)
  }
}

/** Adds `count` copies of the list of one user's sessions at `key` to Redis, under keys of the same form. */
export async function copyUsersInRedis(redis, key, count) {
  const BATCH = 10_000
  const prefix = key.slice(0, key.indexOf('{'))
  for (let done = 0; done < count; done += BATCH) {
    await redis.eval(COPY_USERS, 1, key, prefix, done, Math.min(BATCH, count - done))
  }
}

/** Adds copies of one of the sessions in a database, and of one user's list to each so many. */
export async function copyInSql({ rows, write }, { kind, prefix, count, perUser }) {
  const [{ id }] = await rows(`select id from ${prefix}sessions limit 1`)
  const columns =
    'version, user_id, created_at, updated_at, last_accessed_at, expires_at, absolute_expires_at, idle_timeout_ms, ended, meta, fields, forget_at, large'
  const { numbers, uuid, text } = NUMBERS[kind] ?? NUMBERS.sqlite
  await write(
    `insert into ${prefix}sessions (id, ${columns}) select ${uuid}, ${columns} from ${prefix}sessions, ${numbers(count)} where id = '${id}'`,
  )
  await write(
    `insert into ${prefix}users (id, version, entries, forget_at) select ${text}, version, entries, forget_at from ${prefix}users, ${numbers(count / perUser)} where id like '%pattern%'`,
  )
}

/** So many rows with a number `n`, a new ID, and the name of a user. */
const NUMBERS = {
  pg: {
    numbers: (count) => `generate_series(1, ${count}) as numbers (n)`,
    uuid: 'gen_random_uuid()::text',
    text: "'other-' || n",
  },
  mysql2: {
    numbers: (count) => `(select seq as n from seq_1_to_${count}) as numbers`,
    uuid: 'uuid()',
    text: "concat('other-', n)",
  },
  sqlite: {
    numbers: (count) =>
      `(with recursive many (n) as (select 1 union all select n + 1 from many where n < ${count}) select n from many) as numbers`,
    uuid: 'lower(hex(randomblob(16)))',
    text: "'other-' || n",
  },
}

const COPY_USERS = `
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, tonumber(ARGV[3]) do
  local key = ARGV[1] .. '{' .. redis.sha1hex(ARGV[2] + i) .. '}'
  redis.call('HSET', key, unpack(flat))
  redis.call('EXPIRE', key, 43200)
end
`

const COPY = `
local text = redis.call('GET', KEYS[1])
for i = 1, tonumber(ARGV[3]) do
  local hex = redis.sha1hex(ARGV[2] + i)
  local key = ARGV[1] .. '{' .. hex:sub(1, 4) .. '}' .. hex:sub(5, 8) .. '-' .. hex:sub(9, 12) .. '-4' .. hex:sub(13, 15) .. '-8' .. hex:sub(16, 18) .. '-' .. hex:sub(19, 30)
  redis.call('SET', key, text, 'EX', 3600)
end
`
