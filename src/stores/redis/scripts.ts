// What the Redis store does to a session in one step: scripts that run inside Redis. Each touches one slot. How a record
// is written stands at the top of records.ts.
//
// Redis refuses writes when it is out of memory, but not those that can only free some, and not what a script writes
// after one of these. So a script that must work then, because it ends sessions, has a `DEL` before its other
// writes.
import { createHash } from 'node:crypto'
import { END_REASONS } from '../../record/session-data.js'

/** The text of a script, and the hash that calls it. */
export interface Script {
  readonly lua: string
  readonly sha: string
}

export function script(lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}

/**
 * `read(key, most)` takes the lines of a record apart: `names` in their order, `texts` by name. Of one with large fields it
 * reads what stands before them, in the first `largeAt` bytes; `readAll(key)` reads those as well. `store(key, lines, ttl)`
 * writes either back, the metadata before the fields. A record of more than `most` bytes is not looked at.
 *
 * `live(lines, now)` is the times of a record if it is alive at `now` (ms since the epoch), relative to its creation;
 * `setTimes(lines, times)` puts them back, as those of the next revision.
 */
const PRELUDE = String.raw`
local function corrupt() error({err = 'CORRUPT session record'}) end
local function parse(text)
  local lines, at = { names = {}, texts = {} }, 1
  while at <= #text do
    local stop = string.find(text, '\n', at, true) or corrupt()
    if stop == at then
      at = string.find(text, '[^\n]', at) or #text + 1
    else
      local tab = string.find(text, '\t', at, true)
      if not tab or tab > stop then corrupt() end
      local name = string.sub(text, at, tab - 1)
      if not lines.texts[name] then table.insert(lines.names, name) end
      lines.texts[name] = string.sub(text, tab + 1, stop - 1)
      at = stop + 1
    end
  end
  return lines
end
local function readAll(key)
  local text = redis.call('GET', key)
  local lines = parse(text)
  lines.texts.b = nil
  lines.length = #text
  return lines
end
local function read(key, most)
  local length = most and redis.call('STRLEN', key)
  if most and length > most then corrupt() end
  local text = redis.call('GETRANGE', key, 0, 4095)
  if text == '' then
    if redis.call('EXISTS', key) == 1 then corrupt() end
    return nil
  end
  local largeAt = tonumber(string.match(text, '^[^\n]*\nb\t(%d+)\n'))
  if largeAt and largeAt <= #text then text = string.sub(text, 1, largeAt)
  elseif #text == 4096 then text = redis.call('GETRANGE', key, 0, largeAt and largeAt - 1 or -1) end
  -- Somebody has edited it by hand, and moved what it says.
  if largeAt and string.sub(text, -2) ~= '\n\n' then return readAll(key) end
  local lines = parse(text)
  lines.largeAt = largeAt
  lines.length = length
  return lines
end
local function put(lines, name, text)
  if text and not lines.texts[name] then table.insert(lines.names, name) end
  lines.texts[name] = text
end
local function textOf(lines)
  local text, fields, seen = {}, {}, {}
  for _, name in ipairs(lines.names) do
    if lines.texts[name] and not seen[name] then
      seen[name] = true
      table.insert(string.byte(name) == 46 and fields or text, name .. '\t' .. lines.texts[name] .. '\n')
    end
  end
  return table.concat(text) .. table.concat(fields)
end
local function store(key, lines, ttl)
  local text, largeAt = textOf(lines), lines.largeAt
  ttl = math.max(1, tonumber(ttl))
  if largeAt and #text < largeAt then
    redis.call('SETRANGE', key, 0, text .. string.rep('\n', largeAt - #text))
    redis.call('EXPIRE', key, ttl)
    return
  end
  if largeAt then
    lines.texts.b = nil
    text = textOf(lines) .. redis.call('GETRANGE', key, largeAt, -1)
  end
  redis.call('SET', key, text, 'EX', ttl)
end
local TIMES = '^' .. string.rep('([%da-z]+) ', 6) .. '([%da-z]+)( ?[%da-z]*)$'
local function number(text)
  return #text <= 10 and tonumber(text, 36) or corrupt()
end
local DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'
local function base36(n)
  local text = ''
  n = math.max(0, math.floor(n + 0.5))
  if not (n < 36 ^ 10) then corrupt() end
  repeat
    local digit = n % 36
    text = string.sub(DIGITS, digit + 1, digit + 1) .. text
    n = (n - digit) / 36
  until n == 0
  return text
end
local function timesOf(texts)
  local g, c, u, a, e, z, revision, epoch = string.match(texts.m or '', TIMES)
  if not g then corrupt() end
  if epoch ~= '' then number(string.sub(epoch, 2)) end
  return { generation = number(g), created = number(c), updated = number(u), accessed = number(a),
           expires = number(e), absolute = number(z), revision = number(revision), epoch = epoch }
end
local function live(lines, now)
  local texts = lines.texts
  local r = timesOf(texts)
  if not texts.t then corrupt() end
  if texts.x then return nil end
  r.at = tonumber(now) - r.created
  if r.at >= r.expires or r.at >= r.absolute then return nil end
  if texts.i then
    local idle = tonumber(texts.i)
    if not idle then corrupt() end
    if r.at - r.accessed >= idle then return nil end
  end
  r.now = math.max(r.at, r.accessed)
  return r
end
local function left(r)
  return math.max(1, math.ceil((r.expires - r.at) / 1000))
end
local function setTimes(lines, r)
  lines.texts.m = table.concat({ base36(r.generation), base36(r.created), base36(r.updated), base36(r.accessed),
    base36(r.expires), base36(r.absolute), base36(r.revision + 1) }, ' ') .. r.epoch
end
`

/** `excess(after, before, maxBytes, maxFields)` compares texts by name. What escaping adds counts for nothing. */
const SIZE = String.raw`
local function bytesOf(text)
  if not string.find(text, '\27', 1, true) then return #text end
  local _, marks = string.gsub(text, '\27', '')
  return #text - marks
end
local function sizeOf(texts)
  local bytes, fields = 0, 0
  for name, text in pairs(texts) do
    if string.byte(name) == 46 then
      bytes = bytes + bytesOf(name) - 1 + bytesOf(text)
      fields = fields + 1
    end
  end
  return bytes, fields
end
-- The reply that refuses a change, if it makes a session larger than its limits, and larger than it is.
local function excess(after, before, maxBytes, maxFields)
  local bytes, fields = sizeOf(after)
  if bytes <= maxBytes and fields <= maxFields then return nil end
  local bytesNow, fieldsNow = sizeOf(before)
  if bytes <= math.max(maxBytes, bytesNow) and fields <= math.max(maxFields, fieldsNow) then return nil end
  return {'too-large', string.format('%.0f', bytes), string.format('%.0f', fields)}
end
`

/**
 * `bury(key, lines, ended, ttl)` leaves a tombstone of what a record was, where there is none any more. What is to be archived
 * keeps its context and fields. In the texts of an end, quotes have a backslash before them.
 */
const BURY = `
local function isUnarchived(ended) return string.find(ended, '"unarchived":true', 1, true) ~= nil end
local function bury(key, lines, ended, ttl)
  local tombstone = { names = { 'x', 'm', 't', 'u', 'i', 's', 'l' }, texts = { x = ended } }
  if isUnarchived(ended) then
    for _, name in ipairs(lines.names) do
      if name == 'c' or string.byte(name) == 46 then table.insert(tombstone.names, name) end
    end
  end
  for i = 2, #tombstone.names do
    local name = tombstone.names[i]
    tombstone.texts[name] = lines.texts[name]
  end
  store(key, tombstone, ttl)
end
`

/** ARGV: ttl in seconds, text. */
export const SET = script(`
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
return 1
`)

/**
 * For what must not be done once the caller has given up: ARGV[1] is when that is by the clock of this server, in ms, or ''.
 * `answer(status, ...)` is what such a script replies, with the time of the server behind the status.
 */
const IN_TIME = `
local clock = redis.call('TIME')
clock = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function answer(status, ...) return {status, clock, ...} end
local function isLate() return ARGV[1] ~= '' and clock >= tonumber(ARGV[1]) end
`

/** The time of the server, as `IN_TIME` has it. */
export const TIME = script(`${IN_TIME}
return answer('now')
`)

/** ARGV: not after, ttl in seconds, text. Replies 'created', 'taken' or 'late'. */
export const CREATE = script(`${IN_TIME}
if redis.call('EXISTS', KEYS[1]) == 1 then return answer('taken') end
if isLate() then return answer('late') end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[2])
return answer('created')
`)

/** ARGV: now, ms to the new end, seconds to keep the record beyond it. */
export const TOUCH = script(`${PRELUDE}
local lines = read(KEYS[1])
local r = lines and live(lines, ARGV[1])
if not r then return 0 end
r.accessed = r.now
r.expires = math.max(r.expires, math.min(r.now + tonumber(ARGV[2]), r.absolute))
setTimes(lines, r)
store(KEYS[1], lines, left(r) + tonumber(ARGV[3]))
return 1
`)

/** No line of times is as long, in bytes. */
const LONGEST_LINE = 128
/** No text of a large field is shorter, in bytes: see `records.ts`. */
const LARGE_TEXT = 256

/**
 * A change of whatever is stored. Its text, the last of ARGV, is a line "generation now end ttl flags limits", where limits are
 * those of `limitsOf()`; with the flag `r` one of
 * seven that are rare, with tabs between: new absolute end or '', token to replace or '', token to set, 'p' to set,
 * expectation ('any', 'absent' or 'text'), its name, its text; then the lines to write, and the names of those to remove.
 * Flags: `f` a field of the application is written or removed, `p` the change is no activity, `s` the end may move back, `w` so
 * may all times: the clock that wrote them ran ahead.
 */
const MERGE_LUA = String.raw`${PRELUDE}${SIZE}
local change = ARGV[#ARGV]
local head, at = string.match(change, '^([^\n]*)\n()')
local generation, now, ends, ttl, flags, most, maxBytes, maxFields =
  string.match(head, '^(%d+) (%S+) (%S+) (%d+) (%a*) (%d+) (%d+) (%d+)$')
most, maxBytes, maxFields = tonumber(most), tonumber(maxBytes), tonumber(maxFields)
local lines = read(KEYS[1], most)
local r = lines and live(lines, now)
if not r or r.generation ~= tonumber(generation) then return {'ended'} end
if string.find(flags, 'w', 1, true) then
  local ahead = r.at < 0 and math.max(0, r.accessed) - r.at or 0
  r.created, r.at = r.created - ahead, r.at + ahead
  r.updated, r.accessed = math.min(r.updated, r.at), math.min(r.accessed, r.at)
  r.now = r.at
end
local isAllRead = true
local function reads(name)
  isAllRead = isAllRead and (lines.texts[name] or not lines.largeAt or string.sub(name, 1, 1) ~= '.')
end
local absolute, from, to, previous, kind, expected, wanted
if string.find(flags, 'r', 1, true) then
  absolute, from, to, previous, kind, expected, wanted, at =
    string.match(change, '^' .. string.rep('([^\t]*)\t', 6) .. '([^\n]*)\n()', at)
  reads(expected)
end
local names, texts = {}, {}
for name, tab, text in string.gmatch(string.sub(change, at), '([^\n\t]+)(\t?)([^\n]*)\n') do
  table.insert(names, name)
  texts[name] = tab ~= '' and text or nil
  reads(name)
end
if not isAllRead then lines = readAll(KEYS[1]) end
if absolute then
  local held = lines.texts[expected]
  if kind == 'absent' and held then return {'conflict', held} end
  if kind == 'text' and held ~= wanted then return held and {'conflict', held} or {'conflict'} end
  if from ~= '' then
    if lines.texts.t ~= from and lines.texts.t ~= to then return {'renewed'} end
    lines.texts.t = to
    put(lines, 'p', previous)
  end
  if absolute ~= '' then r.absolute = tonumber(absolute) - r.created end
end
if string.find(flags, 'f', 1, true) then
  r.updated = r.now
  -- No large field is as short as this.
  local mostLarge = lines.largeAt and (lines.length - lines.largeAt) / ${LARGE_TEXT} or 0
  if lines.length + #change > maxBytes or #lines.names + mostLarge + #names > maxFields then
    if lines.largeAt then lines = readAll(KEYS[1]) end
    local after = {}
    for name, text in pairs(lines.texts) do after[name] = text end
    for _, name in ipairs(names) do after[name] = texts[name] end
    local refusal = excess(after, lines.texts, maxBytes, maxFields)
    if refusal then return refusal end
  end
end
for _, name in ipairs(names) do put(lines, name, texts[name]) end
local isPassive = string.find(flags, 'p', 1, true)
if not isPassive then r.accessed = r.now end
local expires = tonumber(ends) - r.created
if string.find(flags, 's', 1, true) or (not isPassive and expires > r.expires) then r.expires = expires end
r.expires = math.min(r.expires, r.absolute)
setTimes(lines, r)
store(KEYS[1], lines, math.max(left(r), tonumber(ttl)))
return {'updated'}
`

/** ARGV: the change. */
export const MERGE = script(MERGE_LUA)

/**
 * The usual change is of a record that is as the caller has read it, and then the caller knows what it becomes. ARGV: the line
 * of times that was read, the text that follows, ttl in seconds, and the change, for when something else is stored. Replies 1
 * when the text is there.
 */
function replacing(commands: string): Script {
  return script(String.raw`
local held = redis.call('GETRANGE', KEYS[1], '0', '${LONGEST_LINE}')
if string.sub(held, 1, #ARGV[1]) == ARGV[1] then
  ${commands}
  return 1
end
-- A client that lost the reply with its connection may send the same once more, and nobody has written since.
local line = string.match(ARGV[2], '^[^\n]*\n')
if string.sub(held, 1, #line) == line then return 1 end
${MERGE_LUA}`)
}

/** With a text that is all of the record. */
export const REPLACE = replacing("redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])")
/** With a text that leaves the large fields behind it as they are. */
export const REPLACE_FRONT = replacing(`redis.call('SETRANGE', KEYS[1], '0', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])`)

/**
 * KEYS: old, new. ARGV: not after, "generation limits", now, ttl in seconds, the end of the old one as JSON, ttl of its
 * tombstone, 'all' or 'some', number of fields to keep, their names, number of fields to leave behind, their names, then name
 * and text of every line of the new record.
 *
 * A client that lost the reply with its connection may send the same once more: no other end names this successor.
 */
export const REGENERATE = script(`${IN_TIME}${PRELUDE}${SIZE}${BURY}
local generation, most, maxBytes, maxFields = string.match(ARGV[2], '^(%d+) (%d+) (%d+) (%d+)$')
maxBytes, maxFields = tonumber(maxBytes), tonumber(maxFields)
local old = read(KEYS[1], tonumber(most))
local r = old and live(old, ARGV[3])
if not r or r.generation ~= tonumber(generation) then
  if old and old.texts.x == ARGV[5] and redis.call('EXISTS', KEYS[2]) == 1 then
    return answer('regenerated', redis.call('GET', KEYS[2]))
  end
  return answer('ended')
end
if redis.call('EXISTS', KEYS[2]) == 1 then return answer('taken') end
if isLate() then return answer('late') end
if old.largeAt then old = readAll(KEYS[1]) end
local new = { names = { 'm' }, texts = {} }
local kept = tonumber(ARGV[8])
if ARGV[7] == 'all' then
  for _, name in ipairs(old.names) do
    if name == 'l' or string.sub(name, 1, 1) == '.' then put(new, name, old.texts[name]) end
  end
else
  for i = 9, 8 + kept do put(new, ARGV[i], old.texts[ARGV[i]]) end
end
local at = 9 + kept
local removed = tonumber(ARGV[at])
for i = at + 1, at + removed do put(new, ARGV[i], nil) end
for i = at + removed + 1, #ARGV, 2 do put(new, ARGV[i], ARGV[i + 1]) end
local text = textOf(new)
if #text > maxBytes or #new.names > maxFields then
  local refusal = excess(new.texts, old.texts, maxBytes, maxFields)
  if refusal then return answer(unpack(refusal)) end
end
redis.call('DEL', KEYS[1])
bury(KEYS[1], old, ARGV[5], ARGV[6])
redis.call('SET', KEYS[2], text, 'EX', math.max(1, tonumber(ARGV[4])))
return answer('regenerated', text)
`)

/** The fields of a record above so many bytes are not looked at by what only ends it. */
const LONG_RECORD = 128 * 1024

/** ARGV: the end as JSON, ttl of the tombstone. Replies 'ended', 'removed' (unreadable) or 'over', perhaps with the end. */
export const END = script(String.raw`${PRELUDE}${BURY}
local function fromJson(text)
  -- What JavaScript writes of a lone surrogate is more than cjson reads.
  text = string.gsub(string.gsub(text, '\\\\', ''), '\\u[dD][89a-fA-F]%x%x', '')
  return pcall(cjson.decode, text)
end
local REASONS = { ${END_REASONS.map((reason) => `${reason} = true`).join(', ')} }
local function removed()
  redis.call('DEL', KEYS[1])
  return {'removed'}
end
-- Of a long one, as much as it takes: metadata comes before the fields.
local function readMetadata(key)
  if redis.call('STRLEN', key) <= ${LONG_RECORD} then return read(key) end
  local text = redis.call('GETRANGE', key, 0, ${LONG_RECORD} - 1)
  local stop = string.find(text, '\n.', 1, true)
  return parse(string.sub(text, 1, stop or corrupt()))
end
local function readWhole(key)
  local front = read(key)
  return front and front.largeAt and readAll(key) or front
end
local isRead, lines = pcall(isUnarchived(ARGV[1]) and readWhole or readMetadata, KEYS[1])
if not isRead then
  -- What Redis refuses, such as a command that this account may not call, says nothing about the record.
  local failure = type(lines) == 'table' and lines.err or 'CORRUPT'
  if string.find(failure, '^CORRUPT') or string.find(failure, '^WRONGTYPE') then return removed() end
  return lines
end
if not lines then return {'over'} end
local texts = lines.texts
if not texts.t or not pcall(timesOf, texts) then return removed() end
if texts.u then
  local isJson, user = fromJson(texts.u)
  if not isJson or (type(user) ~= 'string' and type(user) ~= 'number') then return removed() end
end
if texts.x then
  local isJson, before = fromJson(texts.x)
  local isEnd = isJson and type(before) == 'table' and type(before.at) == 'number' and REASONS[before.reason]
  return isEnd and {'over', texts.x} or removed()
end
redis.call('DEL', KEYS[1])
bury(KEYS[1], lines, ARGV[1], ARGV[2])
return {'ended'}
`)

/** Writes a tombstone again, as it is, for replicas to acknowledge. Replies whether there is one. */
export const REWRITE_END = String.raw`
if redis.call('GETRANGE', KEYS[1], 0, 1) ~= 'x\t' then return 0 end
local ttl = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ttl > 0 and ttl or 60000)
return 1
`

/** ARGV: the number that it is to be at least, or ''. Never goes back, never expires. */
export const EPOCH = script(`
local text = redis.call('GET', KEYS[1]) or '0'
if #text > 15 or string.find(text, '%D') or text == '' then return redis.error_reply('CORRUPT epoch') end
local epoch = tonumber(text)
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
