// What the Redis store does to a session in one step: scripts that run inside Redis. Each touches one slot.
//
// Redis refuses writes when it is out of memory, but not those that can only free some, and not what a script writes
// after one of these. So a script that must work then, because it ends sessions, begins with a `DEL` or `HDEL`.
import { createHash } from 'node:crypto'

/** The text of a script, and the hash that calls it. */
export interface Script {
  readonly lua: string
  readonly sha: string
}

export function script(lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}

/**
 * `live(key, now)` reads a record's metadata if it is alive at `now` (ms since the epoch), with times relative to its
 * creation; `write(key, record, ttl, ...)` puts the times back, with further names and texts, and keeps the key for `ttl`
 * seconds.
 */
const PRELUDE = `
local TIMES = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)( ?%d*)$'
local function live(key, now)
  local stored = redis.call('HMGET', key, 'm', 't', 'i', 'x')
  if not stored[1] then
    if redis.call('EXISTS', key) == 1 then error({err = 'CORRUPT session record'}) end
    return nil
  end
  local g, c, u, a, e, z, rest = string.match(stored[1], TIMES)
  if not g or not stored[2] then error({err = 'CORRUPT session record'}) end
  if stored[4] then return nil end
  local r = { generation = g, created = tonumber(c), updated = tonumber(u), accessed = tonumber(a),
              expires = tonumber(e), absolute = tonumber(z), rest = rest, token = stored[2] }
  r.at = tonumber(now) - r.created
  if r.at >= r.expires or r.at >= r.absolute then return nil end
  if stored[3] then
    local idle = tonumber(stored[3])
    if not idle then error({err = 'CORRUPT session record'}) end
    if r.at - r.accessed >= idle then return nil end
  end
  r.now = math.max(r.at, r.accessed)
  return r
end
local function left(r)
  return math.max(1, math.ceil((r.expires - r.at) / 1000))
end
local function write(key, r, ttl, ...)
  redis.call('HSET', key, 'm', string.format('%s %.0f %.0f %.0f %.0f %.0f%s',
    r.generation, r.created, r.updated, r.accessed, r.expires, r.absolute, r.rest), ...)
  redis.call('EXPIRE', key, ttl)
end
`

/**
 * Where the context is kept, in pieces: a text of more than 64 bytes would make Redis keep the whole hash in a form that takes
 * three times the memory (`hash-max-listpack-value`).
 */
export const CONTEXT_KEYS: readonly string[] = ['c', ...Array.from({ length: 15 }, (_, index) => `c${index + 1}`)]

/** `bury(key, texts, ended, ttl)` leaves a tombstone of what a record was, where there is none any more. */
const BURY = `
local LASTING = { 't', 'm', 'u', 'i', 's' }
local function bury(key, texts, ended, ttl)
  redis.call('HSET', key, 'x', ended)
  for i, name in ipairs(LASTING) do
    if texts[i] then redis.call('HSET', key, name, texts[i]) end
  end
  redis.call('EXPIRE', key, ttl)
end
`

/** ARGV: 'set' or 'create', ttl in seconds, then name and text of every hash field. */
export const SET = script(`
if ARGV[1] == 'create' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
else
  redis.call('DEL', KEYS[1])
end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
`)

/** ARGV: now, ms to the new end, seconds to keep the record beyond it. */
export const TOUCH = script(`${PRELUDE}
local r = live(KEYS[1], ARGV[1])
if not r then return 0 end
r.accessed = r.now
r.expires = math.max(r.expires, math.min(r.now + tonumber(ARGV[2]), r.absolute))
write(KEYS[1], r, left(r) + tonumber(ARGV[3]))
return 1
`)

/**
 * ARGV: "generation now end ttl count flags", then, with the flag `r`, seven that are rare: new absolute end or '', token to
 * replace or '', token to set, 'p' to set, expectation ('any', 'absent' or 'text'), its field, its text. Then names and
 * texts of `count` hash fields to write, and the names of those to remove. Each argument and each command costs, so the
 * usual change has as few as there can be.
 *
 * Flags: `f` a field of the application is written or removed, `p` the change is no activity, `s` the end may move back.
 *
 * The usual change of a session that nobody else has written to begins otherwise, and is done in a third of the time: with
 * `=`, the metadata that the caller has read, those that follow from it, and the ttl; then comes what is above.
 */
export const UPDATE = script(`
local base = 0
if ARGV[1] == '=' then
  local held = redis.call('HMGET', KEYS[1], 'm', 'x')
  if held[1] == ARGV[2] and not held[2] then
    redis.call('HSET', KEYS[1], 'm', ARGV[3], unpack(ARGV, 6))
    redis.call('EXPIRE', KEYS[1], ARGV[4])
    return 1
  end
  base = 4
end
${PRELUDE}
local generation, now, ends, ttl, count, flags = string.match(ARGV[base + 1], '^(%d+) (%S+) (%S+) (%d+) (%d+) (%a*)$')
local key, first = KEYS[1], base + 2
local r = live(key, now)
if not r or r.generation ~= generation then return {'ended'} end
if string.find(flags, 'r', 1, true) then
  first = 9
  if ARGV[6] ~= 'any' then
    local held = redis.call('HGET', key, ARGV[7])
    if ARGV[6] == 'absent' and held then return {'conflict', held} end
    if ARGV[6] == 'text' and held ~= ARGV[8] then
      if held then return {'conflict', held} end
      return {'conflict'}
    end
  end
  if ARGV[3] ~= '' then
    if r.token ~= ARGV[3] and r.token ~= ARGV[4] then return {'renewed'} end
    redis.call('HSET', key, 't', ARGV[4], 'p', ARGV[5])
  end
  if ARGV[2] ~= '' then r.absolute = tonumber(ARGV[2]) - r.created end
end
local last = first + 2 * tonumber(count) - 1
while last - first >= 200 do
  redis.call('HSET', key, unpack(ARGV, first, first + 199))
  first = first + 200
end
for i = last + 1, #ARGV do redis.call('HDEL', key, ARGV[i]) end
if string.find(flags, 'f', 1, true) then r.updated = r.now end
local isPassive = string.find(flags, 'p', 1, true)
if not isPassive then r.accessed = r.now end
local expires = tonumber(ends) - r.created
if string.find(flags, 's', 1, true) or (not isPassive and expires > r.expires) then r.expires = expires end
r.expires = math.min(r.expires, r.absolute)
write(key, r, math.max(left(r), tonumber(ttl)), unpack(ARGV, first, last))
return {'updated'}
`)

/**
 * KEYS: old, new. ARGV: generation, now, ttl in seconds, the end of the old one as JSON, ttl of its tombstone, 'all' or
 * 'some', number of fields to keep, their names, number of fields to leave behind, their names, then name and text of
 * every hash field of the new record.
 *
 * A client that lost the reply with its connection may send the same once more: no other end names this successor.
 */
export const REGENERATE = script(`${PRELUDE}${BURY}
local r = live(KEYS[1], ARGV[2])
if not r or r.generation ~= ARGV[1] then
  if redis.call('HGET', KEYS[1], 'x') == ARGV[4] and redis.call('EXISTS', KEYS[2]) == 1 then
    return {'regenerated', redis.call('HGETALL', KEYS[2])}
  end
  return {'ended'}
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'taken'} end
local lasting = redis.call('HMGET', KEYS[1], unpack(LASTING))
local kept = tonumber(ARGV[7])
local next = 8 + kept
local removed = tonumber(ARGV[next])
if ARGV[6] == 'all' then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('HDEL', KEYS[2], 'p', 'u', 'i', 's', ${CONTEXT_KEYS.map((key) => `'${key}'`).join(', ')})
else
  local texts = {}
  for i = 8, 7 + kept do texts[i] = redis.call('HGET', KEYS[1], ARGV[i]) end
  redis.call('DEL', KEYS[1])
  for i = 8, 7 + kept do
    if texts[i] then redis.call('HSET', KEYS[2], ARGV[i], texts[i]) end
  end
end
bury(KEYS[1], lasting, ARGV[4], ARGV[5])
for i = next + 1, next + removed do redis.call('HDEL', KEYS[2], ARGV[i]) end
for i = next + removed + 1, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {'regenerated', redis.call('HGETALL', KEYS[2])}
`)

/** ARGV: the end as JSON, ttl of the tombstone. Replies 'ended', 'removed' (unreadable) or 'over', perhaps with the end. */
export const END = script(`${PRELUDE}${BURY}
local function fromJson(text)
  -- What JavaScript writes of a lone surrogate is more than cjson reads.
  text = string.gsub(string.gsub(text, '\\\\\\\\', ''), '\\\\u[dD][89a-fA-F]%x%x', '')
  return pcall(cjson.decode, text)
end
local held = redis.pcall('HMGET', KEYS[1], 'x', unpack(LASTING))
if held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  redis.call('DEL', KEYS[1])
  return {'removed'}
end
if not held[1] and not held[2] and not held[3] and redis.call('EXISTS', KEYS[1]) == 0 then return {'over'} end
local isReadable = held[2] and held[3] and string.match(held[3], TIMES)
if held[4] then isReadable = isReadable and fromJson(held[4]) end
if held[1] then
  local isJson, before = fromJson(held[1])
  if isReadable and isJson and type(before) == 'table' then return {'over', held[1]} end
  isReadable = false
end
redis.call('DEL', KEYS[1])
if not isReadable then return {'removed'} end
table.remove(held, 1)
bury(KEYS[1], held, ARGV[1], ARGV[2])
return {'ended'}
`)

/** Writes a tombstone again, as it is, for replicas to acknowledge. Replies whether there is one. */
export const REWRITE_END = `
if not redis.call('HGET', KEYS[1], 'x') then return 0 end
local ttl = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ttl > 0 and ttl or 60000)
return 1
`

/** ARGV: the number that it is to be at least, or ''. Never goes back, never expires. */
export const EPOCH = script(`
local epoch = tonumber(redis.call('GET', KEYS[1]) or '0')
if not epoch then return redis.error_reply('CORRUPT epoch') end
if ARGV[1] == '' then return epoch end
epoch = math.max(epoch, tonumber(ARGV[1]))
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], string.format('%.0f', epoch))
return epoch
`)

/** ARGV: owner, ms. */
export const LEASE = script(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)
