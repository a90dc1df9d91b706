// Sums beside the log in Redis, kept by the script that appends: a count of each type and what each session and user did, by
// quarters of an hour. They say of how many activities they are. Where that is what the log holds of the quarter, they are
// right; where some of it is gone, outside of the window, or was written without them, the activities are read instead.
//
// Keys, behind that of the log:
//   :n:{quarter}   a hash: n, how many activities; t{type as JSON}, how many of each
//   :s:{quarter}   a hash: s{session and user as JSON} = first sign of life, last activity, 1 if it began, end; l{place} = a turn
import type { Activity } from '../../../events/activity-hook.js'
import { type Script, script } from '../../../stores/redis/scripts.js'
import { ENDINGS, NO_LIFE, TOLD_LATE, TURNS, turnOf } from '../sums.js'
import type { ActivitySums, SessionSums, SessionTurn } from './sink.js'

/** Hours and days are made of them. */
export const QUARTER_MS = 900_000
/** How many sessions one script reads: some milliseconds of Redis's time. */
const SESSIONS_AT_ONCE = 2_000

export function quarterOf(time: number): number {
  return Math.floor(time / QUARTER_MS)
}

export function keysOfQuarter(log: string, quarter: number): { counts: string; sessions: string } {
  return { counts: `${log}:n:${quarter}`, sessions: `${log}:s:${quarter}` }
}

/** What the script that appends is told of an activity for its sums: so many arguments. */
export const SUMMED_ARGS = 6

export function summedArgsOf(activity: Activity): (string | number)[] {
  const { at, type, sessionId, userId } = activity
  const time = at.getTime()
  const turn = TURNS.includes(type) ? JSON.stringify(turnOf(activity)) : ''
  const isOfNobody = sessionId === undefined && userId === undefined
  const facts = [!NO_LIFE.includes(type), !TOLD_LATE.includes(type), type === 'session.started', ENDINGS.includes(type)]
  return [
    quarterOf(time),
    time,
    JSON.stringify(type),
    isOfNobody ? '' : JSON.stringify([sessionId ?? null, userId ?? null]),
    facts.map(Number).join(''),
    turn,
  ]
}

/** `sum(i, place)` takes note of the activity whose arguments begin at ARGV[i]; `keepSums(retention)` writes down all of them. */
export const SUMMING = `
local quarters = {}
local function sum(i, place)
  local name, at, type, who, facts, turn = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local quarter = quarters[name]
  if not quarter then
    quarter = { n = 0, types = {}, sessions = {}, turns = {} }
    quarters[name] = quarter
  end
  quarter.n = quarter.n + 1
  quarter.types[type] = (quarter.types[type] or 0) + 1
  if turn ~= '' then quarter.turns['l' .. place] = turn end
  if who == '' then return end
  local s = quarter.sessions[who]
  if not s then
    s = {}
    quarter.sessions[who] = s
  end
  if string.sub(facts, 1, 1) == '1' then s.begun = math.min(s.begun or at, at) end
  if string.sub(facts, 2, 2) == '1' then s.last = math.max(s.last or at, at) end
  if string.sub(facts, 3, 3) == '1' then s.started = true end
  if string.sub(facts, 4, 4) == '1' then s.ended = math.min(s.ended or at, at) end
end
local function timeText(time) return time and string.format('%.0f', time) or '-' end
local function keepSums(retention)
  for name, quarter in pairs(quarters) do
    local counts, sessions = KEYS[1] .. ':n:' .. name, KEYS[1] .. ':s:' .. name
    redis.call('HINCRBY', counts, 'n', quarter.n)
    redis.call('HINCRBY', sessions, 'n', quarter.n)
    for type, count in pairs(quarter.types) do redis.call('HINCRBY', counts, 't' .. type, count) end
    for who, s in pairs(quarter.sessions) do
      local before = redis.call('HGET', sessions, 's' .. who)
      if before then
        local begun, last, started, ended = string.match(before, '^(%S+) (%S+) (%d) (%S+)$')
        begun, last, ended = tonumber(begun), tonumber(last), tonumber(ended)
        if begun then s.begun = math.min(s.begun or begun, begun) end
        if last then s.last = math.max(s.last or last, last) end
        if started == '1' then s.started = true end
        if ended then s.ended = math.min(s.ended or ended, ended) end
      end
      local text = timeText(s.begun) .. ' ' .. timeText(s.last) .. (s.started and ' 1 ' or ' 0 ') .. timeText(s.ended)
      redis.call('HSET', sessions, 's' .. who, text)
    end
    for field, turn in pairs(quarter.turns) do redis.call('HSET', sessions, field, turn) end
    if retention > 0 then
      redis.call('PEXPIRE', counts, retention)
      redis.call('PEXPIRE', sessions, retention)
    end
  end
end
`

/** `dropSums(times)` forgets the sums of the quarters that times are in, which are keys of a table. */
export const DROPPING = `
local function dropSums(times)
  local dropped = {}
  for time in pairs(times) do
    local name = string.format('%.0f', math.floor(time / ${QUARTER_MS}))
    if not dropped[name] then
      dropped[name] = true
      redis.call('UNLINK', KEYS[1] .. ':n:' .. name, KEYS[1] .. ':s:' .. name)
    end
  end
end
`

/** KEYS: places, counts. ARGV: from, to, behind. Replies the counts, none if they are not of all places; and the next place behind. */
export const READ_COUNTS: Script = script(`
local n = tonumber(redis.call('HGET', KEYS[2], 'n') or '-1')
local isRight = n == redis.call('ZLEXCOUNT', KEYS[1], ARGV[1], ARGV[2])
local after = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[3], '+', 'LIMIT', 0, 1)[1] or ''
return { isRight and redis.call('HGETALL', KEYS[2]) or {}, after }
`)

/** KEYS: counts, sessions. ARGV: where the last one ended. Replies how many both are of, -1 when one of them is not whole, where this ended, and fields. */
export const SCAN_SESSIONS: Script = script(`
local found = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ${SESSIONS_AT_ONCE})
local n, own = redis.call('HGET', KEYS[1], 'n'), redis.call('HGET', KEYS[2], 'n')
return { n and n == own and n or '-1', found[1], found[2] }
`)

/** What `READ_COUNTS` replied; `undefined`: the activities have to be read. */
export function countsFrom(flat: readonly string[]): { total: number; counts: Map<string, number> } | undefined {
  if (flat.length === 0) return undefined
  const counts = new Map<string, number>()
  let total = 0
  for (let index = 0; index < flat.length; index += 2) {
    const [field, count] = [flat[index] as string, Number(flat[index + 1])]
    if (field === 'n') total = count
    else counts.set(JSON.parse(field.slice(1)) as string, count)
  }
  return { total, counts }
}

/** What `SCAN_SESSIONS` replied of a quarter, each field once. */
export function sessionsFrom(fields: ReadonlyMap<string, string>): Pick<ActivitySums, 'sessions' | 'turns'> {
  const sessions: SessionSums[] = []
  const turns: SessionTurn[] = []
  for (const [field, text] of fields) {
    if (field === 'n') continue
    if (field.startsWith('l')) {
      const { at, sessionId, previousSessionId, ended } = JSON.parse(text) as SessionTurn
      turns.push({ at, sessionId, previousSessionId, ended })
      continue
    }
    const [sessionId, userId] = JSON.parse(field.slice(1)) as [string | null, string | number | null]
    const [begun, last, started, ended] = text.split(' ')
    sessions.push({
      sessionId: sessionId ?? undefined,
      userId: userId ?? undefined,
      begunAt: timeFrom(begun),
      lastAt: timeFrom(last),
      isStarted: started === '1',
      endedAt: timeFrom(ended),
    })
  }
  return { sessions, turns }
}

function timeFrom(text = '-'): number | undefined {
  return text === '-' ? undefined : Number(text)
}
