// The storage in Redis or Valkey. The client is yours.
//
// Keys, behind the prefix; the hash tag puts a namespace into one slot:
//   {namespace}:<hash>     an entry, as text, with its time to live
//   {namespace}:           a sorted set of the hashes, by when each is over; a hash begins with that of its domain
//   {namespace}:l:<hash>   a lease
//   namespaces             a sorted set of the namespaces, by when each was used last
import { hash as hashOf, randomUUID } from 'node:crypto'
import { invalidOption } from '../../../errors.js'
import { Recent } from '../../../recent.js'
import { clientOf } from '../../../stores/redis/clients.js'
import { type RedisClient, RedisConnection } from '../../../stores/redis/connection.js'
import type { NodeRedisClient } from '../../../stores/redis/node-redis.js'
import { script } from '../../../stores/redis/scripts.js'
import {
  type CacheEntry,
  type CacheLease,
  type CacheNamespace,
  type CachePlace,
  type CacheSize,
  type CacheStorage,
  decodeEntry,
  encodeEntry,
} from '../storage.js'

/** What `new RedisCacheStorage()` takes. */
export interface RedisCacheStorageOptions {
  /** Your client of ioredis, iovalkey or node-redis, as `RedisSessionStore` takes it. The storage never closes it. */
  client: RedisClient | NodeRedisClient
  /** What every key begins with. @default 'cache:' */
  prefix?: string | undefined
}

const MAX_PENDING = 10_000
/** How many entries one script looks at: some milliseconds of Redis's time. */
const PORTION = 1_000
/** How exact `usedAt` is. */
const USED_EVERY_MS = 60_000

/**
 * Keeps entries in Redis 7 or later, or Valkey, in a Cluster, too. Every key has a time to live. A read is one `GET`.
 *
 * While Redis cannot be reached, calls fail within half a second with `STORE_UNAVAILABLE`; the cache goes on without it.
 */
export class RedisCacheStorage implements CacheStorage {
  readonly name = 'redis'
  readonly #prefix: string
  readonly #connection: RedisConnection
  readonly #hashes = new Recent<string>()
  readonly #hashesOfValues = new Recent<string>()
  readonly #spaces = new Recent<Space>()

  /** @throws {SessionError} `INVALID_OPTION` */
  constructor({ client: given, prefix = 'cache:' }: RedisCacheStorageOptions) {
    const client = clientOf(given, 'RedisCacheStorage', ['get', 'evalsha', 'eval', 'once'])
    if (typeof prefix !== 'string' || /[{}]/.test(prefix)) {
      throw invalidOption('RedisCacheStorage: prefix must be text without { and }.')
    }
    this.#prefix = prefix
    this.#connection = new RedisConnection({ client, maxPending: MAX_PENDING })
  }

  get(place: CachePlace, now: number): Promise<CacheEntry | undefined> {
    const space = this.#spaceOf(place.namespace)
    if (now - space.usedAt >= USED_EVERY_MS) this.#use(place.namespace, space, now)
    const key = space.prefix + this.#hash(place)
    return this.#connection
      .read((client) => client.get(key))
      .then((text) => (text === null ? undefined : decodeEntry(text, now)))
  }

  async set(place: CachePlace, entry: CacheEntry, now: number): Promise<void> {
    const space = this.#space(place.namespace)
    const hash = this.#hash(place)
    const ttlMs = Math.max(1, Math.ceil(entry.expiresAt - now))
    const args = [encodeEntry(entry), ttlMs, hash]
    // The list is in another slot. It is written each time: another process may have cleared the namespace in between.
    await Promise.all([this.#connection.script(SET, [space + hash, space], args), this.#touch(place.namespace, now)])
  }

  async delete(place: CachePlace): Promise<void> {
    const space = this.#space(place.namespace)
    const hash = this.#hash(place)
    await this.#connection.script(DELETE, [space + hash, space], [hash])
  }

  async clear(namespace: string, domain?: string): Promise<void> {
    const space = this.#space(namespace)
    const from = domain === undefined ? '' : digest(domain)
    let place = 0
    do {
      place = Number(await this.#connection.script(CLEAR, [space], [from, place, PORTION]))
    } while (place >= 0)
    if (domain !== undefined) return
    this.#spaces.delete(namespace)
    await this.#connection.script(FORGET, [`${this.#prefix}namespaces`], [escaped(namespace)])
  }

  async size(namespace: string): Promise<CacheSize> {
    const space = this.#space(namespace)
    const size = { entries: 0, bytes: 0 }
    for (let place = 0; place >= 0; place += PORTION) {
      const [seen, entries, bytes] = (await this.#connection.script(SIZE, [space], [place, PORTION])) as number[]
      size.entries += Number(entries)
      size.bytes += Number(bytes)
      if (Number(seen) < PORTION) break
    }
    return size
  }

  async namespaces(): Promise<CacheNamespace[]> {
    const found: CacheNamespace[] = []
    const key = `${this.#prefix}namespaces`
    for (let place = 0; ; place += PORTION) {
      const rows = (await this.#connection.script(LIST, [key], [place, place + PORTION - 1])) as string[]
      for (let row = 0; row < rows.length; row += 2) {
        found.push({ name: unescaped(rows[row] as string), usedAt: Number(rows[row + 1]) })
      }
      if (rows.length < 2 * PORTION) return found
    }
  }

  async move(from: string, to: string, now: number): Promise<void> {
    const [source, target] = [this.#space(from), this.#space(to)]
    for (let place = 0; place >= 0; place += PORTION) {
      const rows = (await this.#connection.script(READ, [source], [place, PORTION])) as string[]
      for (let row = 0; row < rows.length; row += 3) {
        const [hash, ttlMs, text] = rows.slice(row, row + 3) as [string, string, string]
        await this.#connection.script(SET, [target + hash, target], [text, Number(ttlMs), hash])
      }
      if (rows.length === 0) break
    }
    await this.clear(from)
    await this.#touch(to, now)
  }

  async lease(place: CachePlace, ttlMs: number): Promise<CacheLease | null> {
    const key = `${this.#space(place.namespace)}l:${this.#hash(place)}`
    const owner = randomUUID()
    const take = (): Promise<unknown> => this.#connection.script(TAKE, [key], [owner, ttlMs])
    if (Number(await take()) !== 1) return null
    return {
      prolong: async () => void (await take()),
      release: async () => void (await this.#connection.script(RELEASE, [key], [owner])),
    }
  }

  #space(namespace: string): string {
    return this.#spaceOf(namespace).prefix
  }

  #spaceOf(namespace: string): Space {
    let space = this.#spaces.get(namespace)
    if (space === undefined) {
      space = { prefix: `${this.#prefix}{${escaped(namespace)}}:`, usedAt: Number.NEGATIVE_INFINITY }
      this.#spaces.set(namespace, space)
    }
    return space
  }

  /** The hash of a place: its first half is that of the domain, by which one domain can be cleared. */
  #hash({ domain, key }: CachePlace): string {
    // Values have no domain: for them the key is enough.
    const text = domain === '' ? key : `${domain}\n${key}`
    const hashes = domain === '' ? this.#hashesOfValues : this.#hashes
    let hash = hashes.get(text)
    if (hash === undefined) {
      hash = digest(domain) + digest(key)
      hashes.set(text, hash)
    }
    return hash
  }

  /** Notes now and then, and without anybody waiting, that a namespace is in use. */
  #use(namespace: string, space: Space, now: number): void {
    space.usedAt = now
    this.#connection.script(TOUCH, [`${this.#prefix}namespaces`], [now, escaped(namespace), 'XX']).catch(() => {})
  }

  /** Puts a namespace that has entries on the list. */
  async #touch(namespace: string, now: number): Promise<void> {
    this.#spaceOf(namespace).usedAt = now
    await this.#connection.script(TOUCH, [`${this.#prefix}namespaces`], [now, escaped(namespace), ''])
  }
}

/** What this process knows of a namespace. */
interface Space {
  /** What the keys of its entries begin with. */
  readonly prefix: string
  /** When it was last noted that it is in use. */
  usedAt: number
}

/** 22 characters for 132 bits. */
function digest(text: string): string {
  // UTF-8 has one and the same text for all ill-formed ones.
  const data = text.isWellFormed() ? text : Buffer.from(text, 'utf16le')
  return hashOf('sha256', data, 'base64url').slice(0, 22)
}

/** Text without braces, which make hash tags, and without what UTF-8 cannot hold. */
function escaped(name: string): string {
  return /^[\w.:@ -]+$/.test(name) ? name : `%${Buffer.from(name, 'utf16le').toString('base64url')}`
}

function unescaped(name: string): string {
  return name.startsWith('%') ? Buffer.from(name.slice(1), 'base64url').toString('utf16le') : name
}

const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`

/** KEYS: entry, index. ARGV: text, ttl in ms, hash. */
const SET = script(`${NOW}
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[3])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1`)

/** KEYS: entry, index. ARGV: hash. */
const DELETE = script(`
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('UNLINK', KEYS[1])`)

/**
 * Removes one portion. KEYS: index. ARGV: how hashes begin, where to go on, how many. Returns where to go on, or -1 when
 * there are no more.
 */
const CLEAR = script(`
local hashes = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[2] + ARGV[3] - 1)
local kept = 0
for _, hash in ipairs(hashes) do
  if string.sub(hash, 1, #ARGV[1]) == ARGV[1] then
    redis.call('UNLINK', KEYS[1] .. hash)
    redis.call('ZREM', KEYS[1], hash)
  else
    kept = kept + 1
  end
end
if #hashes < tonumber(ARGV[3]) then return -1 end
return ARGV[2] + kept`)

/** Counts one portion. KEYS: index. ARGV: where, how many. Returns: looked at, entries, bytes. */
const SIZE = script(`
local hashes = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
local entries, bytes = 0, 0
for _, hash in ipairs(hashes) do
  local length = redis.call('STRLEN', KEYS[1] .. hash)
  if length > 0 then
    entries = entries + 1
    bytes = bytes + length
  end
end
return {#hashes, entries, bytes}`)

/** Reads one portion. KEYS: index. ARGV: where, how many. Returns hash, ttl in ms and text of each. */
const READ = script(`
local rows = {}
for _, hash in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  local text = redis.call('GET', KEYS[1] .. hash)
  if text then
    rows[#rows + 1] = hash
    rows[#rows + 1] = tostring(math.max(1, redis.call('PTTL', KEYS[1] .. hash)))
    rows[#rows + 1] = text
  end
end
return rows`)

/** KEYS: namespaces. ARGV: ms, name, 'XX' to add none. They are forgotten when none has been used for a hundred days. */
const TOUCH = script(`
if ARGV[3] == 'XX' and not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], 'GT', ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], 8640000)`)

const FORGET = script(`return redis.call('ZREM', KEYS[1], ARGV[1])`)
const LIST = script(`return redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')`)

/** KEYS: lease. ARGV: owner, ms. Takes it, or prolongs one's own. */
const TAKE = script(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

const RELEASE = script(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)
