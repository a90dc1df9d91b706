// Which sessions a user has, in Redis: one hash per user, a field per session.
//
// The field is the session ID, its text "since endsAt pendingUntil", with " e" behind it once the entry is evicted. The
// key lives until the last session in it is over. Entries that are over are dropped by whatever reads the whole hash;
// adding without a limit does not, and drops them now and then.
import type { UserEntry, UserIndex } from '../../record/user-index.js'
import { isYes, statusOf, textsOf, unknownReply } from './replies.js'
import { type Script, script } from './scripts.js'

/** Runs one script on one key. */
type RunScript = (script: Script, key: string, args: (string | number)[]) => Promise<unknown>

/** A `UserIndex` on hashes whose keys `keyOf` names. */
export function redisUserIndex(
  keyOf: (user: string) => string,
  { run, read }: { run: RunScript; read: (key: string) => Promise<Record<string, string>> },
): UserIndex {
  return {
    async add(user, entry, { now, max, evictsOldest = false }) {
      const args = [entry.id, encode(entry), now, entry.endsAt, max ?? '', evictsOldest ? 1 : 0]
      const [status, list] = statusOf(await run(ADD, keyOf(user), args), ['added', 'full'], 'users.add')
      const flat = textsOf(list, 'users.add')
      return status === 'added' ? { status, evicted: decodeAll(flat) } : { status, entries: decodeAll(flat) }
    },
    async settle(user, id, remove = []) {
      return isYes(await run(SETTLE, keyOf(user), [id, ...remove]), 'users.settle')
    },
    async list(user, now) {
      const hash: unknown = await read(keyOf(user))
      if (!isHash(hash)) throw unknownReply('users.list')
      const entries = Object.entries(hash).map(([id, text]) => decode(id, text))
      return entries.filter((entry): entry is UserEntry => entry !== null && now < entry.endsAt)
    },
    async evict(user, { now, except = '' }) {
      return decodeAll(textsOf(await run(EVICT, keyOf(user), [now, except]), 'users.evict'))
    },
    async remove(user, ids) {
      if (ids.length === 0) return
      const isDone = isYes(await run(REMOVE, keyOf(user), [...ids]), 'users.remove')
      if (!isDone) throw unknownReply('users.remove')
    },
    async restore(user, entries, now) {
      const last = entries.reduce((latest, { endsAt }) => Math.max(latest, endsAt), now)
      const texts = entries.flatMap((entry) => [entry.id, encode(entry)])
      isYes(await run(RESTORE, keyOf(user), [Math.max(1, Math.ceil(last - now)), ...texts]), 'users.restore')
    },
  }
}

/** `each(key, now, visit)` drops what is over or unreadable, and shows the rest to `visit(id, text, since, isEvicted)`. */
const PRELUDE = `
local function parse(text)
  local since, ends, pending, mark = string.match(text, '^(%d+) (%d+) (%d+)( ?e?)$')
  return since and { since = tonumber(since), ends = tonumber(ends), start = since .. ' ' .. ends, isEvicted = mark == ' e' }
end
local function each(key, now, visit)
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local entry = parse(flat[i + 1])
    if not entry or entry.ends <= now then redis.call('HDEL', key, flat[i])
    else visit(flat[i], flat[i + 1], entry) end
  end
end
`

/**
 * ARGV: ID, text, now, end of the entry, limit or '', 1 when the oldest make room. Replies 'added' with the entries that are
 * evicted, or 'full' with all. Without a limit the whole hash is read as rarely as it is large, by the digits of the ID.
 * Works when Redis is out of memory, by what it begins with: a user who revokes all other sessions gets a new one.
 */
export const ADD = script(`${PRELUDE}
redis.call('HDEL', KEYS[1], '')
local id, text, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local evicted = {}
if ARGV[5] ~= '' then
  local all, others = {}, {}
  each(KEYS[1], now, function(other, held, entry)
    all[#all + 1] = other
    all[#all + 1] = held
    if other == id then return end
    if entry.isEvicted then
      evicted[#evicted + 1] = other
      evicted[#evicted + 1] = held
    else
      others[#others + 1] = { id = other, text = held, since = entry.since }
    end
  end)
  local excess = #others - tonumber(ARGV[5])
  if not parse(text).isEvicted then excess = excess + 1 end
  if excess > 0 then
    if ARGV[6] ~= '1' then return {'full', all} end
    table.sort(others, function(a, b) return a.since < b.since or (a.since == b.since and a.id < b.id) end)
    for i = 1, math.min(excess, #others) do
      local marked = others[i].text .. ' e'
      redis.call('HSET', KEYS[1], others[i].id, marked)
      evicted[#evicted + 1] = others[i].id
      evicted[#evicted + 1] = marked
    end
  end
else
  local digits = tonumber(string.sub(id, -8), 16) or 0
  if digits % math.max(16, redis.call('HLEN', KEYS[1])) == 0 then each(KEYS[1], now, function() end) end
end
redis.call('HSET', KEYS[1], id, text)
local ttl = math.max(1, tonumber(ARGV[4]) - now)
if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
return {'added', evicted}
`)

/** ARGV: ID, then the IDs to remove. Works when Redis is out of memory, by what it begins with. */
export const SETTLE = script(`${PRELUDE}
redis.call('HDEL', KEYS[1], '')
local text = redis.call('HGET', KEYS[1], ARGV[1])
local entry = text and parse(text)
local isGood = entry and not entry.isEvicted
if isGood then redis.call('HSET', KEYS[1], ARGV[1], entry.start .. ' 0') end
for i = 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return isGood and 1 or 0
`)

/** ARGV: now, the ID to spare. Works when Redis is out of memory, by what it begins with. */
export const EVICT = script(`${PRELUDE}
redis.call('HDEL', KEYS[1], '')
local evicted = {}
each(KEYS[1], tonumber(ARGV[1]), function(id, text, entry)
  if id == ARGV[2] and not entry.isEvicted then return end
  if not entry.isEvicted then
    text = text .. ' e'
    redis.call('HSET', KEYS[1], id, text)
  end
  evicted[#evicted + 1] = id
  evicted[#evicted + 1] = text
end)
return evicted
`)

/** ARGV: the IDs. */
export const REMOVE = script(`
for i = 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1
`)

/** ARGV: ms to live, then ID and text of each entry. Replies whether there was something else than a list. */
const RESTORE = script(`
if type(redis.pcall('HLEN', KEYS[1])) == 'number' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
`)

function isHash(reply: unknown): reply is Record<string, string> {
  if (typeof reply !== 'object' || reply === null || Array.isArray(reply)) return false
  return Object.values(reply).every((text) => typeof text === 'string')
}

function encode({ since, endsAt, pendingUntil, isEvicted }: UserEntry): string {
  return `${Math.floor(since)} ${Math.floor(endsAt)} ${Math.floor(pendingUntil)}${isEvicted ? ' e' : ''}`
}

const ENTRY = /^(\d{1,16}) (\d{1,16}) (\d{1,16})( e)?$/

function decode(id: string, text: string): UserEntry | null {
  const [, since, endsAt, pendingUntil, mark] = ENTRY.exec(text) ?? []
  if (since === undefined) return null
  return {
    id,
    since: Number(since),
    endsAt: Number(endsAt),
    pendingUntil: Number(pendingUntil),
    isEvicted: mark !== undefined,
  }
}

function decodeAll(flat: readonly string[]): UserEntry[] {
  const entries: UserEntry[] = []
  for (let index = 0; index < flat.length; index += 2) {
    const entry = decode(flat[index] as string, flat[index + 1] as string)
    if (entry !== null) entries.push(entry)
  }
  return entries
}
