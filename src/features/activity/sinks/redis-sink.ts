// The Redis stream sink: activities in one stream, for consumers to follow, and in indexes, to be found by ID and by time.
// It needs no package of its own: the client is yours.
//
// Keys, behind the prefix:
//   act:{log}       the stream; an entry has the fields activity (JSON), logical and session (the IDs as in the keys below)
//   act:{log}:at    a sorted set of "place:entry ID" for each entry, by the alphabet: all activities in order
//   act:{log}:n:…   sums by the quarter of an hour, and act:{log}:s:…: see redis-sums.ts
//   act:l:{ID}      a sorted set of the places of a logical ID's activities
//   act:s:{ID}      the same of a session
// A place is "time:activity ID", 17 digits for the time. Each script touches one slot. A timeline is read in two steps: its
// places, then their entries, which are found by place; so a place whose entry is gone is nothing. An activity is added to its
// timelines first and to the log last: what was written in part is not there, and a second attempt completes it.
import { createHash } from 'node:crypto'
import { type Duration, milliseconds } from '../../../duration.js'
import { invalidOption, isSessionError, SessionError } from '../../../errors.js'
import type { Activity } from '../../../events/activity-hook.js'
import { clientOf } from '../../../stores/redis/clients.js'
import { type RedisClient, RedisConnection } from '../../../stores/redis/connection.js'
import type { NodeRedisClient } from '../../../stores/redis/node-redis.js'
import { type Script, script } from '../../../stores/redis/scripts.js'
import {
  countsOf,
  cursorOf,
  matches,
  type PageSelection,
  type Position,
  pageSelectionOf,
  selectionOf,
  timeOf,
} from '../query.js'
import { sumsOfPages } from '../sums.js'
import {
  countsFrom,
  DROPPING,
  keysOfQuarter,
  QUARTER_MS,
  quarterOf,
  READ_COUNTS,
  SCAN_SESSIONS,
  SUMMED_ARGS,
  SUMMING,
  sessionsFrom,
  summedArgsOf,
} from './redis-sums.js'
import type { ActivityArchive, ActivityPage, ActivityPageQuery, ActivityQuery, ActivitySums } from './sink.js'

/** What `redisStreamSink()` takes. */
export interface RedisStreamSinkOptions {
  /** Your client of ioredis, iovalkey or node-redis, as `RedisSessionStore` takes it. The sink never closes it. */
  readonly client: RedisClient | NodeRedisClient
  /**
   * What every key begins with. The keys of `RedisSessionStore` are others, also with the same prefix.
   * @default 'soj:'
   */
  readonly prefix?: string | undefined
  /**
   * How many activities are kept; the oldest make room. One takes about 0.7 KB and its details.
   * @default 1_000_000
   */
  readonly maxLength?: number | undefined
  /**
   * How old activities may get, by the clock of Redis; older ones go with each write, and all of them when nothing is
   * written any more.
   * @default none: `maxLength` and `log.prune()` remove them
   */
  readonly retention?: Duration | undefined
}

const DEFAULT_MAX_LENGTH = 1_000_000
/** Calls under way before further ones are refused. A batch makes so many of them at once, one for each of its timelines. */
const MAX_PENDING = 10_000
const AT_ONCE = 1_000
/** How many activities one script reads or removes: some milliseconds of Redis's time. */
const PORTION = 500
/** Makes every time a positive number with 17 digits, also before 1970. */
const TIME_OFFSET = 8.64e15
/** The character after the one that stands between the parts of a place. */
const BEHIND = ';'

/**
 * An archive in Redis 7 or later, or Valkey, in a Cluster, too: the log is one slot, each timeline another.
 *
 * The stream `<prefix>act:{log}` is for whoever wants to follow what happens (`XREAD`, consumer groups); the field
 * `activity` of an entry is JSON. A batch is two round trips. What is written twice is kept once.
 *
 * While Redis cannot be reached, calls fail within half a second with `STORE_UNAVAILABLE`, which is also the code of what it
 * refuses.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function redisStreamSink(options: RedisStreamSinkOptions): ActivityArchive {
  const { client: given, prefix = 'soj:', maxLength = DEFAULT_MAX_LENGTH, retention } = options ?? {}
  const client = clientOf(given, 'redisStreamSink', ['evalsha', 'eval', 'once'])
  if (typeof prefix !== 'string' || /[{}]/.test(prefix)) throw invalidOption('prefix must be text without { and }.')
  if (!Number.isSafeInteger(maxLength) || maxLength < 1) {
    throw invalidOption('maxLength must be a whole number of at least 1.')
  }
  const retentionMs = retention === undefined ? 0 : milliseconds(retention, 'retention', 1_000)
  const connection = new RedisConnection({ client, maxPending: MAX_PENDING })
  const log = { stream: `${prefix}act:{log}`, places: `${prefix}act:{log}:at` }
  const logKeys = [log.stream, log.places]

  const archive: ActivityArchive = {
    name: 'redis-stream',

    async write(activities) {
      if (activities.length === 0) return
      const entries = activities.map(entryOf)
      const timelines = new Map<string, string[]>()
      for (const { place, keys } of entries) {
        for (const key of keysOf(keys)) timelines.set(key, [...(timelines.get(key) ?? []), place])
      }
      await eachOf(timelines, (key, places) => run(ADD_PLACES, [key], [retentionMs, ...places]))
      for (let start = 0; start < entries.length; start += PORTION) {
        const args = entries
          .slice(start, start + PORTION)
          .flatMap(({ place, json, keys, summed }) => [place, json, keys.logical, keys.session, ...summed])
        const removed = await run(APPEND, logKeys, [maxLength, retentionMs, ...args])
        await forget(removed as string[])
      }
    },

    async page(query: ActivityPageQuery): Promise<ActivityPage> {
      const { limit, ...selection } = pageSelectionOf(query)
      const found: Activity[] = []
      for await (const activity of activitiesOf(selection, limit + 1)) {
        if (found.length === limit) {
          const last = found[limit - 1] as Activity
          return { activities: found, next: cursorOf({ at: last.at.getTime(), id: last.id }) }
        }
        found.push(activity)
      }
      return { activities: found, next: undefined }
    },

    async countByType(query: ActivityQuery) {
      const selection = { ...selectionOf(query), after: undefined, isNewestFirst: false }
      const { logicalId, sessionId, userId, types } = selection
      const counts = new Map<string, number>()
      const add = (type: string, count: number): void => {
        if (types === undefined || types.has(type)) counts.set(type, (counts.get(type) ?? 0) + count)
      }
      if ([logicalId, sessionId, userId].some((id) => id !== undefined)) {
        for await (const { type } of activitiesOf(selection, PORTION)) add(type, 1)
        return countsOf(counts)
      }
      for await (const { window, summed } of quartersOf(selection)) {
        if (summed !== undefined) for (const [type, count] of summed.counts) add(type, count)
        else for await (const { type } of activitiesOf({ ...selection, ...window }, PORTION)) add(type, 1)
      }
      return countsOf(counts)
    },

    async *sums(query): AsyncGenerator<ActivitySums, void, undefined> {
      for await (const { window, quarter, summed } of quartersOf(query)) {
        const isWithin = query.everyMs === undefined || query.everyMs % QUARTER_MS === 0
        const sessions = summed && isWithin ? await sessionsOf(quarter, summed.total) : undefined
        if (sessions === undefined) yield* sumsOfPages(archive, { ...query, ...window })
        else yield { at: window.since, counts: (summed as Summed).counts, ...sessions }
      }
    },

    async prune(before: Date) {
      const end = `(${timeText(timeOf(before, 'before'))}`
      let count = 0
      while (true) {
        const removed = (await run(REMOVE, logKeys, [end, PORTION])) as string[]
        await forget(removed)
        count += removed.length / 3
        if (removed.length === 0) return count
      }
    },
  }
  return archive

  async function run(program: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    try {
      return await connection.script(program, keys, args)
    } catch (cause) {
      if (isSessionError(cause)) throw cause
      throw new SessionError('STORE_UNAVAILABLE', 'Redis refused what the activity sink asked; see the cause.', {
        cause,
      })
    }
  }

  /** The quarters of a window that hold anything, with their counts where those are of all that the window has of them. */
  async function* quartersOf({ since, until }: Window): AsyncGenerator<Quarter, void, undefined> {
    const [low, high] = boundsOf({ since, until, after: undefined, isNewestFirst: false })
    let [place] = (await run(READ_PLACES, [log.places], [low, high, 1, 0])) as string[]
    while (place !== undefined && place !== '' && timeIn(place) < until) {
      const quarter = quarterOf(timeIn(place))
      const window = {
        since: Math.max(since, quarter * QUARTER_MS),
        until: Math.min(until, (quarter + 1) * QUARTER_MS),
      }
      const [from, to] = boundsOf({ ...window, after: undefined, isNewestFirst: false })
      const keys = [log.places, keysOfQuarter(log.stream, quarter).counts]
      const [flat, next] = (await run(READ_COUNTS, keys, [from, to, `[${to.slice(1)}`])) as [string[], string]
      yield { quarter, window, summed: countsFrom(flat) }
      place = next
    }
  }

  /** `undefined`: some of them have been removed meanwhile. */
  async function sessionsOf(
    quarter: number,
    total: number,
  ): Promise<Pick<ActivitySums, 'sessions' | 'turns'> | undefined> {
    const { counts, sessions } = keysOfQuarter(log.stream, quarter)
    const fields = new Map<string, string>()
    let cursor = '0'
    do {
      const [n, next, flat] = (await run(SCAN_SESSIONS, [counts, sessions], [cursor])) as [string, string, string[]]
      if (Number(n) < total) return undefined
      for (let index = 0; index < flat.length; index += 2) fields.set(flat[index] as string, flat[index + 1] as string)
      cursor = next
    } while (cursor !== '0')
    return sessionsFrom(fields)
  }

  /** What a query means, in its order. Reads so many at a time, but no more than a portion. */
  async function* activitiesOf(
    selection: Omit<PageSelection, 'limit'>,
    atOnce: number,
  ): AsyncGenerator<Activity, void, undefined> {
    const { logicalId, sessionId, isNewestFirst, types } = selection
    if (types?.size === 0) return
    const id = sessionId ?? logicalId
    const timeline =
      id === undefined ? undefined : `${prefix}act:${sessionId === undefined ? 'l' : 's'}:{${keyText(id)}}`
    const count = Math.min(atOnce, PORTION)
    let [low, high] = boundsOf(selection)
    while (true) {
      const range = isNewestFirst ? [high, low, count, 1] : [low, high, count, 0]
      const places = timeline === undefined ? undefined : ((await run(READ_PLACES, [timeline], range)) as string[])
      if (places?.length === 0) return
      const flat = (await (places === undefined
        ? run(READ_LOG, logKeys, range)
        : run(FETCH, logKeys, places))) as string[]
      for (let index = 1; index < flat.length; index += 2) {
        const activity = decode(flat[index] as string)
        if (activity !== undefined && matches(selection, activity)) yield activity
      }
      const last = places === undefined ? flat.at(-2) : places.at(-1)
      if (last === undefined || (places ?? flat).length < (places === undefined ? 2 * count : count)) return
      if (isNewestFirst) high = `(${last}`
      else low = `(${last}${BEHIND}`
    }
  }

  /** Takes what is gone from the log off its timelines. `removed`: place, logical and session key of each. */
  async function forget(removed: readonly string[]): Promise<void> {
    const timelines = new Map<string, string[]>()
    for (let index = 0; index < removed.length; index += 3) {
      const [place, logical, session] = removed.slice(index, index + 3) as [string, string, string]
      for (const key of keysOf({ logical, session })) timelines.set(key, [...(timelines.get(key) ?? []), place])
    }
    await eachOf(timelines, (key, places) => run(REMOVE_PLACES, [key], places))
  }

  function keysOf({ logical, session }: { logical: string; session: string }): string[] {
    return [
      ...(logical === '' ? [] : [`${prefix}act:l:{${logical}}`]),
      ...(session === '' ? [] : [`${prefix}act:s:{${session}}`]),
    ]
  }
}

/** A stretch of time, in ms since the epoch. */
type Window = Pick<PageSelection, 'since' | 'until'>
type Summed = NonNullable<ReturnType<typeof countsFrom>>

/** What a window has of one quarter of an hour. */
interface Quarter {
  readonly quarter: number
  readonly window: Window
  readonly summed: Summed | undefined
}

/** Many at once, in one write to each server; rejects when all of them are done, so that nothing is under way any more. */
async function eachOf(
  timelines: ReadonlyMap<string, string[]>,
  call: (key: string, places: string[]) => Promise<unknown>,
): Promise<void> {
  const all = [...timelines]
  for (let start = 0; start < all.length; start += AT_ONCE) {
    const calls = all.slice(start, start + AT_ONCE).map(([key, places]) => call(key, places))
    for (const result of await Promise.allSettled(calls)) if (result.status === 'rejected') throw result.reason
  }
}

// --- Text in Redis ---

/** An activity as it is written. */
interface Entry {
  readonly place: string
  readonly json: string
  readonly keys: { readonly logical: string; readonly session: string }
  /** What sums are made of. */
  readonly summed: readonly (string | number)[]
}

function entryOf(activity: Activity): Entry {
  const { id, at, type, logicalId, sessionId, userId, details, request } = activity
  const time = timeOf(at, 'at')
  return {
    place: placeText({ at: time, id }),
    json: jsonOf({ id, at: time, type, logicalId, sessionId, userId, details, request }),
    keys: {
      logical: logicalId === undefined ? '' : keyText(logicalId),
      session: sessionId === undefined ? '' : keyText(sessionId),
    },
    summed: summedArgsOf(activity),
  }
}

function jsonOf(value: object): string {
  try {
    return JSON.stringify(value)
  } catch (cause) {
    throw new SessionError('INVALID_ARGUMENT', 'The details of an activity are not data that JSON can hold.', { cause })
  }
}

/** `undefined`: somebody else has put something there. */
function decode(json: string): Activity | undefined {
  try {
    const { id, at, type, logicalId, sessionId, userId, details, request } = JSON.parse(json) as Activity
    if (typeof id !== 'string' || typeof type !== 'string' || typeof at !== 'number') return undefined
    return {
      id,
      at: new Date(at),
      type,
      logicalId,
      sessionId,
      userId,
      details,
      request: request && { ...request, ip: request.ip },
    }
  } catch {
    return undefined
  }
}

function timeText(time: number): string {
  return String(Math.max(0, time + TIME_OFFSET)).padStart(17, '0')
}

function timeIn(place: string): number {
  return Number(BigInt(place.slice(0, 17)) - BigInt(TIME_OFFSET))
}

function placeText({ at, id }: Position): string {
  return `${timeText(at)}:${keyText(id)}`
}

/** An ID as a part of a key: itself, or its hash when it is none of ours. UTF-16, since UTF-8 has one text for all ill-formed ones. */
function keyText(id: string): string {
  return /^[\w-]{1,64}$/.test(id) ? id : `~${createHash('sha256').update(id, 'utf16le').digest('base64url')}`
}

/** Where the places of a selection begin and end, as ranges by the alphabet are written. */
function boundsOf({
  since,
  until,
  after,
  isNewestFirst,
}: Pick<PageSelection, 'since' | 'until' | 'after' | 'isNewestFirst'>): [low: string, high: string] {
  let low = since === Number.NEGATIVE_INFINITY ? '-' : `[${timeText(since)}`
  let high = until === Number.POSITIVE_INFINITY ? '+' : `(${timeText(until)}`
  if (after === undefined) return [low, high]
  const place = placeText(after)
  if (isNewestFirst) {
    if (high === '+' || place < high.slice(1)) high = `(${place}`
  } else if (low === '-' || place >= low.slice(1)) low = `(${place}${BEHIND}`
  return [low, high]
}

// --- What happens inside Redis ---

/** `expired(ms)`: where what is too old ends. By the clock of Redis, so that a wrong one elsewhere removes nothing. */
const EXPIRED = `
local function expired(ms)
  local time = redis.call('TIME')
  return '(' .. string.format('%017.0f', tonumber(time[1]) * 1000 - ms + ${TIME_OFFSET})
end
`

/** `remove(members)` takes activities out of the log, and adds place, logical and session key of each to what it returns. */
const REMOVING = `${DROPPING}
local gone = {}
local function remove(members)
  local times = {}
  for _, member in ipairs(members) do
    local place, entry = string.match(member, '^(.*):([^:]*)$')
    local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
    local facts = {}
    if found then
      for i = 1, #found[2], 2 do facts[found[2][i]] = found[2][i + 1] end
      redis.call('XDEL', KEYS[1], entry)
    end
    redis.call('ZREM', KEYS[2], member)
    times[tonumber(string.sub(place, 1, 17)) - ${TIME_OFFSET}] = true
    gone[#gone + 1] = place
    gone[#gone + 1] = facts.logical or ''
    gone[#gone + 1] = facts.session or ''
  end
  dropSums(times)
end
`

/** Arguments for one activity. */
const ARGS_OF_ONE = 4 + SUMMED_ARGS

/** KEYS: stream, places. ARGV: longest log, retention in ms or 0, then place, JSON, logical and session key of each activity, and what it adds to sums. */
const APPEND: Script = script(`${EXPIRED}${REMOVING}${SUMMING}
local retention = tonumber(ARGV[2])
for i = 3, #ARGV, ${ARGS_OF_ONE} do
  local place = ARGV[i]
  if #redis.call('ZRANGEBYLEX', KEYS[2], '[' .. place .. ':', '(' .. place .. '${BEHIND}', 'LIMIT', 0, 1) == 0 then
    local entry = redis.call('XADD', KEYS[1], '*', 'activity', ARGV[i + 1], 'logical', ARGV[i + 2], 'session', ARGV[i + 3])
    redis.call('ZADD', KEYS[2], 0, place .. ':' .. entry)
    sum(i + 4, place)
  end
end
keepSums(retention)
local room = (#ARGV - 2) / ${ARGS_OF_ONE} * 2
local excess = math.min(redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1]), room)
if excess > 0 then remove(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) end
if retention > 0 then
  remove(redis.call('ZRANGEBYLEX', KEYS[2], '-', expired(retention), 'LIMIT', 0, room))
  redis.call('PEXPIRE', KEYS[1], retention)
  redis.call('PEXPIRE', KEYS[2], retention)
end
return gone
`)

/** KEYS: stream, places. ARGV: end, how many. */
const REMOVE: Script = script(`${REMOVING}
remove(redis.call('ZRANGEBYLEX', KEYS[2], '-', ARGV[1], 'LIMIT', 0, ARGV[2]))
return gone
`)

/** KEYS: a timeline. ARGV: retention in ms or 0, then places. */
const ADD_PLACES: Script = script(`${EXPIRED}
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 0, ARGV[i]) end
local retention = tonumber(ARGV[1])
if retention > 0 then
  redis.call('ZREMRANGEBYLEX', KEYS[1], '-', expired(retention))
  redis.call('PEXPIRE', KEYS[1], retention)
end
return 1
`)

/** KEYS: a timeline. ARGV: places. */
const REMOVE_PLACES: Script = script(`
for _, place in ipairs(ARGV) do redis.call('ZREM', KEYS[1], place) end
return 1
`)

/** A range of a sorted set. ARGV: from, to, how many, 1 for backwards. */
const RANGE = `
local command = ARGV[4] == '1' and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
local function range(key) return redis.call(command, key, ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3]) end
`

/** KEYS: a timeline. Replies places. */
const READ_PLACES: Script = script(`${RANGE}
return range(KEYS[1])
`)

/** `tell(member)` adds place and JSON of an entry to what is replied, the JSON as '' when the entry is gone. */
const TELLING = `
local told = {}
local function tell(member)
  local place, entry = string.match(member, '^(.*):([^:]*)$')
  local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  local json = ''
  if found then
    for i = 1, #found[2], 2 do if found[2][i] == 'activity' then json = found[2][i + 1] end end
  end
  told[#told + 1] = place
  told[#told + 1] = json
end
`

/** KEYS: stream, places. Replies place and JSON in turn. */
const READ_LOG: Script = script(`${RANGE}${TELLING}
for _, member in ipairs(range(KEYS[2])) do tell(member) end
return told
`)

/** KEYS: stream, places. ARGV: places. Replies place and JSON of those that are there. */
const FETCH: Script = script(`${TELLING}
for _, place in ipairs(ARGV) do
  local member = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. place .. ':', '(' .. place .. '${BEHIND}', 'LIMIT', 0, 1)[1]
  if member then tell(member) end
end
return told
`)
