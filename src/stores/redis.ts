// Sessions in Redis or Valkey, for programs that run as several processes. Needs ioredis only to open a connection of
// its own; a client of yours is described by the few members that are called.
//
// How a session is written stands in redis/records.ts. Each operation is one command or one script on one slot: the key's
// hash tag is the part of the session ID that regenerating keeps. No other key has a brace behind the prefix: users are at
// `u:{user}`, notes at `n:purpose:{key}`, leases at `lease:{name}`, the epoch at `epoch`.
import { isSessionError, SessionError } from '../errors.js'
import { slotOf } from '../ids.js'
import { answersAtOnce } from '../record/at-once.js'
import {
  applyChange,
  changesFields,
  type EndResult,
  type Expectation,
  endOfRegenerated,
  type MetadataChange,
  type RegenerateResult,
  type Regeneration,
  replacedToken,
  type SessionChange,
  type UpdateResult,
} from '../record/changes.js'
import { loadableUnder, type SessionLimits } from '../record/limits.js'
import type { SessionNotes } from '../record/notes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import { SessionStore, secondsLeft } from '../record/store.js'
import type { UserIndex } from '../record/user-index.js'
import { clientOf, subscriberOf } from './redis/clients.js'
import {
  type RedisClient,
  RedisConnection,
  type RedisReplicationClient,
  type RedisScanner,
  type RedisSubscriber,
  unavailable,
} from './redis/connection.js'
import { ScriptsInTime } from './redis/in-time.js'
import { ioredisLine, LINE_OPTIONS, type TrackingClient } from './redis/near-cache/ioredis-line.js'
import { NearCache, type NearCacheFacts } from './redis/near-cache/near-cache.js'
import { oneServer } from './redis/near-cache/one-server.js'
import { type RedisNearCacheOptions, resolveNearCache } from './redis/near-cache/options.js'
import { serversOf } from './redis/near-cache/servers.js'
import type { NodeRedisClient } from './redis/node-redis.js'
import { redisNotes } from './redis/notes.js'
import {
  corrupt,
  corruptKey,
  decodeEnd,
  decodeRecord,
  encodeEnd,
  encodePrevious,
  escaped,
  type LargeFields,
  layOut,
  layOutChange,
  lineName,
  linesOf,
  RecentRecords,
  StoredData,
  textOf,
  unescaped,
} from './redis/records.js'
import { nodeOf, RedisReplication, type RedisWaitOptions } from './redis/replication.js'
import { countOf, isYes, statusOf, unknownReply } from './redis/replies.js'
import {
  CREATE,
  END,
  EPOCH,
  LEASE,
  MERGE,
  REGENERATE,
  REPLACE,
  REPLACE_FRONT,
  REWRITE_END,
  type Script,
  SET,
  TOUCH,
} from './redis/scripts.js'
import { warnOfEviction, warnOfPlainText, warnOfSilence } from './redis/setup.js'
import { RedisSignals } from './redis/signals.js'
import { redisUserIndex } from './redis/users.js'

export type {
  OwnClient as RedisOwnClient,
  RedisClient,
  RedisPipeline,
  RedisReplicationClient,
  RedisScanner,
  RedisSubscriber,
} from './redis/connection.js'
export type { NearCacheFacts } from './redis/near-cache/near-cache.js'
export type { RedisNearCacheOptions } from './redis/near-cache/options.js'
export type { NodeRedisClient } from './redis/node-redis.js'
export type { RedisWaitOptions } from './redis/replication.js'

/** What `new RedisSessionStore()` takes: a `url`, or a `client`. */
export interface RedisSessionStoreOptions {
  /** Where to connect: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS. Closed by `close()`. */
  url?: string | undefined
  /**
   * Your `Redis` or `Cluster` of ioredis 5 or 6 or of iovalkey, or your client, cluster or Sentinel of node-redis 5 or 6. The
   * store never opens or closes it. One of node-redis gets its `error` listener and its `connect()` from you.
   */
  client?: RedisClient | NodeRedisClient | undefined
  /**
   * What every key begins with. Give each application on one Redis its own. Up to five characters cost no memory.
   * @default 'soj:'
   */
  prefix?: string | undefined
  /**
   * How many calls may be without an answer before further ones are refused at once.
   * @default 10_000
   */
  maxPending?: number | undefined
  /**
   * Makes every ending (`end`, `regenerate`, and what raises the epoch) wait until so many replicas have it, so that no
   * failover brings an ended session back. When too few have it in time the call rejects with `STORE_UNAVAILABLE`: the
   * session has ended, but a failover may undo that; the same call again waits again. Opens a second connection. Redis
   * never promises that the replica that has it is the one that is promoted, unless all of them have it.
   * @default no waiting
   */
  wait?: RedisWaitOptions | undefined
  /**
   * Answers reads of sessions that this process has read lately from memory, without a round trip: at most `maxAge` old, as a
   * rule some milliseconds. Writes promise what they promise without it. Opens one more connection to each server.
   * @default none: every read asks Redis
   */
  nearCache?: RedisNearCacheOptions | undefined
  /**
   * Print a warning when NODE_ENV is "production" and a `url` leads to another host without TLS, or to a Redis whose
   * `maxmemory-policy` drops sessions. Asked once, in the background, with `INFO memory`.
   * @default true
   */
  warnInProduction?: boolean | undefined
}

/** What is called of a client. */
const CALLED = ['get', 'getrange', 'strlen', 'hgetall', 'del', 'evalsha', 'eval', 'once'] as const
/** A connection that owes answers and gives none for so long is replaced. */
const SILENCE_MS = 5_000
/** The longest that `wait` may wait: a connection is silent meanwhile. */
const LONGEST_WAIT_MS = 4_000
/** How often a server that loads its data is asked whether it is done. */
const LOADING_RETRY_MS = 250
/** How often a connection to a server that refuses writes is replaced. */
const RECONNECT_EVERY_MS = 1_000
/** What a string in JavaScript may be at most: as good as no bound. */
const LONGEST_STRING = 512 * 1024 * 1024
const UNBOUNDED: SessionLimits = { maxBytes: Number.MAX_SAFE_INTEGER, maxFields: Number.MAX_SAFE_INTEGER }
const CREATE_STATUSES = ['created', 'taken'] as const
const UPDATE_STATUSES = ['updated', 'ended', 'conflict', 'renewed', 'too-large'] as const
const REGENERATE_STATUSES = ['regenerated', 'ended', 'taken', 'too-large'] as const
/** How many keys one `SCAN` looks at, and how many records are read at a time. */
const SCAN_COUNT = 500
const SCAN_BATCH = 50

/**
 * Keeps sessions in Redis 7 or later, or Valkey. Every operation is atomic across processes.
 *
 * While Redis cannot be reached a call fails within half a second, nothing is queued without bound, and the store works
 * again by itself when Redis does.
 */
export class RedisSessionStore extends SessionStore {
  readonly #prefix: string
  readonly #maxPending: number
  readonly #connection: RedisConnection
  readonly #replication: RedisReplication | null
  readonly #recent = new RecentRecords()
  readonly #near: NearCache | null
  override readonly signals: RedisSignals
  override readonly getFresh: SessionStore['getFresh']

  /** @throws {SessionError} `INVALID_OPTION` when there is not exactly one of `url` and `client`. */
  constructor(options: RedisSessionStoreOptions) {
    super()
    const { url, client: given, prefix = 'soj:', maxPending = 10_000, wait, nearCache } = options ?? {}
    const { warnInProduction = true } = options ?? {}
    if ((url === undefined) === (given === undefined)) {
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore needs either url or client.')
    }
    if (url !== undefined && !/^(redis|rediss|valkey|valkeys):\/\//.test(url)) {
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore: url must begin with redis:// or rediss://.')
    }
    if (typeof prefix !== 'string' || /[{}]/.test(prefix)) {
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore: prefix must be text without { and }.')
    }
    if (!Number.isSafeInteger(maxPending) || maxPending < 1) {
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore: maxPending must be a whole number of at least 1.')
    }
    if (
      wait !== undefined &&
      !(isWhole(wait?.replicas, 1, 1_000) && isWhole(wait.timeoutMs ?? 1, 1, LONGEST_WAIT_MS))
    ) {
      throw new SessionError(
        'INVALID_OPTION',
        `RedisSessionStore: wait must be { replicas, timeoutMs? }: at least 1, and 1 to ${LONGEST_WAIT_MS} ms.`,
      )
    }
    const client = given === undefined ? undefined : clientOf(given, 'RedisSessionStore', CALLED)
    if (wait !== undefined && client !== undefined && client.duplicate === undefined) {
      throw new SessionError(
        'INVALID_OPTION',
        'RedisSessionStore: wait needs a second connection of which the commands keep their order: take ioredis, or a ' +
          'node-redis client of one server.',
      )
    }
    this.#prefix = prefix
    this.#maxPending = maxPending
    const near = nearCache === undefined ? null : this.#nearCache(nearCache, url, client)
    this.#near = near
    this.getFresh = near === null ? undefined : (id, bounds) => near.load(id, () => this.#load(id, bounds))
    const open = url === undefined ? undefined : () => openClient(url)
    const warns = warnInProduction && process.env['NODE_ENV'] === 'production'
    if (warns && url !== undefined) warnOfPlainText(url)
    this.#connection = new RedisConnection({ client, open, maxPending, onReady: warns ? warnOfEviction : undefined })
    const openSubscriber = async (): Promise<RedisSubscriber> =>
      client === undefined ? openClient(url as string) : subscriberOf(client)
    this.signals = new RedisSignals(prefix, this.#connection, openSubscriber)
    const openSecond = open ?? (async () => (client as Required<RedisClient>).duplicate())
    this.#replication =
      wait === undefined
        ? null
        : new RedisReplication(new RedisConnection<RedisReplicationClient>({ open: openSecond, maxPending }), wait)
  }

  // A session that is near is not waited for.
  static {
    answersAtOnce(RedisSessionStore.prototype.get, function (this: RedisSessionStore, id) {
      return this.#near?.read(id)
    })
  }

  get(id: string, bounds?: SessionLimits): Promise<SessionData | null> {
    const near = this.#near
    if (near === null) return this.#load(id, bounds)
    const record = near.read(id)
    return record === undefined ? near.load(id, () => this.#load(id, bounds)) : Promise.resolve(record)
  }

  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    const args = [ttlSeconds, encodeRecord(data)]
    const reply = await this.#changing(id, () => this.#script(SET, [this.#key(id)], args))
    if (!isYes(reply, 'set')) throw unknownReply('set')
  }

  async delete(id: string): Promise<void> {
    const reply = await this.#changing(id, () => this.#connection.run((client) => client.del(this.#key(id))))
    countOf(reply, 'delete')
  }

  override async touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    const args = [Math.floor(now), ttlSeconds * 1000, retainSeconds]
    return isYes(await this.#changing(id, () => this.#script(TOUCH, [this.#key(id)], args)), 'touch')
  }

  override async create(id: string, data: SessionData, ttlSeconds: number, notAfter?: number): Promise<boolean> {
    const call = { operation: 'create', script: CREATE, keys: [this.#key(id)], args: [ttlSeconds, encodeRecord(data)] }
    const [status] = await this.#changing(id, () => this.#inTime.call({ ...call, statuses: CREATE_STATUSES, notAfter }))
    return status === 'created'
  }

  override update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    if (this.#near === null) return this.#update(id, change, ttlSeconds)
    return this.#near.write(id, () => this.#update(id, change, ttlSeconds), recordOf)
  }

  async #update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    const ttl = Math.ceil(ttlSeconds)
    const next = successorOf(change, ttl)
    const { script, args } = next ?? { script: MERGE, args: [] }
    const reply = await this.#script(script, [this.#key(id)], [...args, encodeChange(change, ttl)])
    if (next !== null && !Array.isArray(reply)) {
      if (!isYes(reply, 'update')) throw unknownReply('update')
      this.#recent.add(next.record)
      return { status: 'updated', record: next.record }
    }
    const [status, first, second] = statusOf(reply, UPDATE_STATUSES, 'update')
    switch (status) {
      case 'conflict':
        return { status, text: typeof first === 'string' ? unescaped(first) : undefined }
      case 'too-large':
        return { status, bytes: countOf(first, 'update'), fields: countOf(second, 'update') }
      default:
        return { status }
    }
  }

  override async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const { generation, at, next, keep, delete: remove = [], tombstoneSeconds, limits, notAfter } = regeneration
    const kept = keep === 'all' ? [] : keep.map(lineName)
    const call = {
      operation: 'regenerate',
      script: REGENERATE,
      keys: [this.#key(id), this.#key(next.id)],
      args: [
        `${generation} ${encodeLimits(limits)}`,
        at,
        ttlSeconds,
        encodeEnd(endOfRegenerated(regeneration)),
        tombstoneSeconds,
        keep === 'all' ? 'all' : 'some',
        kept.length,
        ...kept,
        remove.length,
        ...remove.map(lineName),
        ...linesOf(next),
      ],
      statuses: REGENERATE_STATUSES,
      notAfter,
    }
    const [status, first, second] = await this.#changing(id, () => this.#inTime.call(call))
    switch (status) {
      case 'regenerated':
        if (typeof first !== 'string') throw unknownReply('regenerate')
        await this.#confirmEnd(this.#key(id))
        return { status, record: decodeRecord(next.id, first) }
      case 'too-large':
        return { status, bytes: countOf(first, 'regenerate'), fields: countOf(second, 'regenerate') }
      default:
        return { status }
    }
  }

  /** Works also when Redis is out of memory. */
  override async end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    const key = this.#key(id)
    const args = [encodeEnd(ended), tombstoneSeconds]
    const reply = await this.#changing(id, () => this.#script(END, [key], args))
    const [status, before] = statusOf(reply, ['ended', 'removed', 'over'], 'end')
    switch (status) {
      case 'ended':
        await this.#confirmEnd(key)
        return { status }
      case 'removed':
        // What was removed could not be read, and cannot be on a replica either.
        return { status: 'ended' }
      case 'over':
        if (before === undefined) return { status, successor: undefined }
        if (typeof before !== 'string') throw unknownReply('end')
        await this.#confirmEnd(key)
        return { status, successor: decodeEnd(before)?.successor }
    }
  }

  /**
   * Every record, by `SCAN` on every primary, a few at a time. In a cluster, what moves to another node meanwhile may be
   * missed.
   */
  override async *scan(
    progress?: () => void,
    bounds: SessionLimits = UNBOUNDED,
  ): AsyncGenerator<SessionData, void, undefined> {
    const readOne = (id: string): Promise<SessionData | null> =>
      this.#read(id, bounds, (text) => decodeRecord(id, text, bounds.maxFields)).catch(nullIfCorrupt)
    for await (const batch of this.#scanIds(progress)) {
      for (const record of await Promise.all(batch.map(readOne))) if (record !== null) yield record
    }
  }

  #load(id: string, bounds: SessionLimits = UNBOUNDED): Promise<SessionData | null> {
    return this.#read(id, bounds, (text) => this.#recent.decode(id, text, bounds.maxFields))
  }

  /**
   * To ask for the length of a text first would cost everybody a round trip: so all of it is asked for, up to half of what it may
   * be, which very few are longer than. No promise more than it takes: this is on the path of every request.
   */
  #read(id: string, { maxBytes }: SessionLimits, decode: (text: string) => SessionData): Promise<SessionData | null> {
    const key = this.#key(id)
    const most = Math.min(maxBytes, LONGEST_STRING)
    const half = Math.ceil(most / 2)
    return this.#connection
      .read((client) => client.getrange(key, 0, half))
      .then((text) => {
        if (typeof text !== 'string') throw unknownReply('get')
        if (text === '') return null
        // An UTF-16 unit takes at most three bytes.
        const isWhole = text.length * 3 <= half || Buffer.byteLength(text) <= half
        return isWhole ? decode(text) : this.#longText(key, most).then(decode, corruptUnlessText)
      }, corruptUnlessText)
  }

  async #longText(key: string, most: number): Promise<string> {
    const bytes = countOf(await this.#connection.read((client) => client.strlen(key)), 'get')
    if (bytes > most) throw corrupt(`it has ${bytes} bytes, and none that is stored here has more than ${most}`)
    const all = await this.#connection.read((client) => client.getrange(key, 0, most))
    if (typeof all !== 'string') throw unknownReply('get')
    return all
  }

  /** The IDs that have a key, in batches. */
  async *#scanIds(progress?: () => void): AsyncGenerator<string[], void, undefined> {
    const { scanners, keyPrefix } = await this.#connection.run(async (client) => ({
      scanners: client.nodes?.('master') ?? (client.scan ? [client as RedisScanner] : null),
      keyPrefix: client.options?.keyPrefix ?? '',
    }))
    if (scanners === null) {
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore: client has no scan, which listing sessions needs.')
    }
    if (scanners.length === 0) throw unavailable('no primary of the cluster is known.')
    const prefix = `${keyPrefix}${this.#prefix}`
    const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}{*}*`
    const batchSize = Math.max(1, Math.min(SCAN_BATCH, Math.floor(this.#maxPending / 2)))
    for (const scanner of scanners) {
      let cursor = '0'
      do {
        const [next, keys] = await this.#connection.run(() =>
          scanner.scan(cursor, 'MATCH', pattern, 'COUNT', SCAN_COUNT),
        )
        cursor = next
        // In a database that others fill, ours may be far apart.
        progress?.()
        const ids = keys.map((key) => key.slice(prefix.length).replace(/^\{(.*?)\}/, '$1'))
        for (let index = 0; index < ids.length; index += batchSize) yield ids.slice(index, index + batchSize)
      } while (cursor !== '0')
    }
  }

  readonly #inTime = new ScriptsInTime({
    run: (script, keys, args) => this.#script(script, keys, args),
    serverOf: (key) => this.#connection.run(async (client) => nodeOf(client, key)),
  })

  override readonly users: UserIndex = redisUserIndex((user) => `${this.#prefix}u:{${user}}`, {
    run: (script, key, args) => this.#script(script, [key], args),
    read: (key) =>
      this.#connection
        .read((client) => client.hgetall(key))
        .catch((error) => {
          throw error instanceof Error && error.message.startsWith('WRONGTYPE') ? corruptKey(key, error) : error
        }),
  })

  override readonly notes: SessionNotes = redisNotes((purpose, key) => `${this.#prefix}n:${purpose}:{${key}}`, {
    run: (script, key, args) => this.#script(script, [key], args),
    get: (key) => this.#connection.read((client) => client.get(key)),
    delete: (key) => this.#connection.run((client) => client.del(key)),
  })

  override async epoch(atLeast?: number): Promise<number> {
    const key = `${this.#prefix}epoch`
    const epoch = countOf(await this.#script(EPOCH, [key], [atLeast ?? '']), 'epoch')
    if (atLeast !== undefined) {
      const isThere = (reply: unknown): boolean => Number(reply) >= atLeast
      await this.#replication?.confirm({ key, script: EPOCH.lua, args: [atLeast], isThere })
    }
    return epoch
  }

  override async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    const key = `${this.#prefix}lease:{${name}}`
    return isYes(await this.#script(LEASE, [key], [owner, Math.ceil(ttlMs)]), 'lease')
  }

  /** Closes the connections that the store opened. A client that was handed in is left alone. */
  override async close(): Promise<void> {
    this.#near?.close()
    await Promise.all([this.#connection.close(), this.#replication?.close(), this.signals.close()])
  }

  /**
   * How the near cache fares since the store was made: reads answered from memory (`hits`) and by Redis (`misses`), `sessions` in
   * memory, and about how many `bytes` they take; and what they are bound by. `undefined` without the option `nearCache`.
   */
  get nearCache(): NearCacheFacts | undefined {
    return this.#near?.facts
  }

  #nearCache(options: RedisNearCacheOptions, url: string | undefined, client: RedisClient | undefined): NearCache {
    const prefix = `${client?.options?.keyPrefix ?? ''}${this.#prefix}`
    // Of all keys that begin with it, only sessions go on so.
    const told = `${prefix}{`
    const openOwn = (): Promise<TrackingClient> => openClient(url as string, LINE_OPTIONS)
    return new NearCache({
      ...resolveNearCache(options),
      prefix,
      keyOf: (id) => this.#key(id),
      servers: client === undefined ? oneServer(ioredisLine(openOwn, told)) : serversOf(client, told),
      failed: (error) => warnOfSilence(this, error),
    })
  }

  /** A write to a session: what was read of it before does not answer any more. */
  #changing<T>(id: string, write: () => Promise<T>): Promise<T> {
    return this.#near === null ? write() : this.#near.write(id, write)
  }

  #key(id: string): string {
    const slot = slotOf(id)
    return `${this.#prefix}{${slot}}${id.slice(slot.length)}`
  }

  #script(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    return this.#connection.script(script, keys, args, (error) => {
      if (!(error instanceof Error && /CORRUPT|WRONGTYPE/.test(error.message))) return error
      const [key = ''] = keys
      // Of a session the caller knows the ID; of what is no session's, only the key says what to look at.
      return key.startsWith(`${this.#prefix}{`) ? corrupt('unreadable metadata', error) : corruptKey(key, error)
    })
  }

  /** Waits until a tombstone is on replicas, if that is wanted. */
  async #confirmEnd(key: string): Promise<void> {
    await this.#replication?.confirm({ key, script: REWRITE_END, args: [], isThere: (reply) => isYes(reply, 'end') })
  }
}

async function openClient(
  url: string,
  options: object = {},
): Promise<RedisReplicationClient & RedisSubscriber & TrackingClient> {
  const { Redis } = await import('ioredis').catch((cause) => {
    const message = 'RedisSessionStore with a url needs ioredis: npm install ioredis'
    throw new SessionError('MISSING_DEPENDENCY', message, { cause })
  })
  let reconnectedAt = 0
  return new Redis(url.replace(/^valkey/, 'redis'), {
    // No command outlives the connection it was sent on, and none waits without bound for the next one.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: SILENCE_MS,
    disconnectTimeout: 100,
    socketTimeout: SILENCE_MS,
    retryStrategy: (attempt: number) => Math.min(50 * attempt, 1_000),
    // While Redis loads its data it is asked again so often: its own guess how long it takes may be seconds too long.
    maxLoadingRetryTime: LOADING_RETRY_MS,
    // After a failover the old primary refuses writes: look for the new one, but let reads through in between.
    reconnectOnError(error: Error) {
      if (!error.message.startsWith('READONLY') || Date.now() - reconnectedAt < RECONNECT_EVERY_MS) return false
      reconnectedAt = Date.now()
      return true
    },
    ...options,
  })
}

/** What a change made, if it is known to be all that there is now. */
function recordOf(result: UpdateResult): SessionData | undefined {
  return result.status === 'updated' ? result.record : undefined
}

function isWhole(value: unknown, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
}

function encodeRecord(data: SessionData): string {
  return textOf(data, layOut(data))
}

/** What a change makes of the record that it was made on, and what puts it there if that record is still what is stored. */
interface Successor {
  readonly record: SessionData
  readonly script: Script
  readonly args: readonly (string | number)[]
}

/** `null` when the record was not read here, or is not one that the change applies to. */
function successorOf(change: SessionChange, ttlSeconds: number): Successor | null {
  const { madeOn } = change
  const before = StoredData.layoutOf(madeOn)
  if (before === null) return null
  const { result, record } = applyChange(madeOn as SessionData, change)
  if (result.status !== 'updated' || record === null) return null
  const after = layOutChange(record, before, change)
  const ttl = Math.max(ttlSeconds, secondsLeft(record, change.at))
  const [script, text] = leavesAlone(before.large, after.large, change)
    ? [REPLACE_FRONT, after.front]
    : [REPLACE, textOf(record, after)]
  return { record: new StoredData(record, after), script, args: [before.line, text, ttl] }
}

/** Whether the large fields stay as they are, and where they are. */
function leavesAlone(
  before: LargeFields | null,
  after: LargeFields | null,
  { set, delete: removed }: SessionChange,
): boolean {
  if (before === null || before.at !== after?.at || before.names.size !== after.names.size) return false
  for (const name of after.names) {
    if (!before.names.has(name) || set?.has(name) || removed?.includes(name)) return false
  }
  return true
}

/** A change of whatever is stored, as `MERGE` takes it. */
function encodeChange(change: SessionChange, ttlSeconds: number): string {
  const { expect, renew, metadata = NO_METADATA, isPassive } = change
  let flags = ''
  let rare = ''
  if (expect !== undefined || renew !== undefined || metadata.absoluteExpiresAt !== undefined) {
    const tokens = renew ? [renew.from, renew.to, encodePrevious(replacedToken(renew))].map(escaped) : ['', '', '']
    flags += 'r'
    rare = `${[metadata.absoluteExpiresAt ?? '', ...tokens, ...encodeExpectation(expect)].join('\t')}\n`
  }
  if (changesFields(change)) flags += 'f'
  if (isPassive || change.settlesClock) flags += 'p'
  if ('idleTimeoutMs' in metadata) flags += 's'
  if (change.settlesClock) flags += 'sw'

  const limits = encodeLimits(change.limits)
  let text = `${change.generation} ${change.at} ${change.expiresAt} ${ttlSeconds} ${flags} ${limits}\n${rare}`
  if (metadata !== NO_METADATA) text += encodeMetadata(metadata)
  if (change.set) for (const [name, value] of change.set) text += `${lineName(name)}\t${escaped(value)}\n`
  if (change.delete) for (const name of change.delete) text += `${lineName(name)}\n`
  return text
}

/** What scripts know of limits: bytes of a record that is worth reading, bytes of all fields, and their number. */
function encodeLimits(limits = UNBOUNDED): string {
  const most = limits === UNBOUNDED ? UNBOUNDED : loadableUnder(limits)
  return `${most.maxBytes} ${limits.maxBytes} ${limits.maxFields}`
}

function encodeExpectation(expect: Expectation | undefined): string[] {
  if (expect === undefined) return ['any', '', '']
  const [name, text] = expectedLine(expect)
  return text === undefined ? ['absent', name, ''] : ['text', name, escaped(text)]
}

/** The name of the line that a change stands on, and the text that it must have. */
function expectedLine(expect: Expectation): [name: string, text: string | undefined] {
  if ('field' in expect) return [lineName(expect.field), expect.text]
  return 'tokenHash' in expect ? ['t', expect.tokenHash] : ['l', expect.logicalId]
}

const NO_METADATA: MetadataChange = {}
const METADATA_OF = {
  u: 'userId',
  v: 'unproven',
  i: 'idleTimeoutMs',
  s: 'persistent',
  l: 'logicalId',
  p: 'previousToken',
  k: 'tokenSince',
  o: 'cookieEndsAt',
} as const

function encodeMetadata(metadata: MetadataChange): string {
  const { userId, unproven, idleTimeoutMs, persistent, logicalId, previousToken, tokenSince, cookieEndsAt } = metadata
  const texts = {
    u: userId === undefined ? undefined : JSON.stringify(userId),
    v: unproven ? '1' : undefined,
    i: idleTimeoutMs === undefined ? undefined : String(idleTimeoutMs),
    s: persistent === undefined ? undefined : persistent ? '1' : '0',
    o: cookieEndsAt === undefined ? undefined : String(cookieEndsAt),
    l: logicalId === undefined ? undefined : escaped(logicalId),
    p: previousToken === undefined ? undefined : escaped(encodePrevious(previousToken)),
    k: tokenSince === undefined ? undefined : String(tokenSince),
  }
  let lines = ''
  for (const key of ['u', 'v', 'i', 's', 'l', 'p', 'k', 'o'] as const) {
    const text = texts[key]
    if (text !== undefined) lines += `${key}\t${text}\n`
    else if (METADATA_OF[key] in metadata) lines += `${key}\n`
  }
  return lines
}

/** @throws `CORRUPT_RECORD` for a key that holds something else than a text, else the error. */
function corruptUnlessText(error: unknown): never {
  if (error instanceof Error && error.message.startsWith('WRONGTYPE')) throw corrupt('it is no text', error)
  throw error
}

function nullIfCorrupt(error: unknown): null {
  if (isSessionError(error, 'CORRUPT_RECORD')) return null
  throw error
}
