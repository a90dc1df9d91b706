// Sessions in Redis or Valkey, for programs that run as several processes. Needs ioredis only to open a connection of
// its own; a client of yours is described by the few members that are called.
//
// A session is one hash. Metadata sits under one-letter names, the application's field `x` under `.x`:
//   t  token hash
//   m  "generation createdAt updatedAt lastAccessedAt expiresAt absoluteExpiresAt", the last four relative to createdAt,
//      and behind them the epoch when it is not 0
//   p  "hash until" of the token before the last renewal     u  user ID as JSON
//   i  this session's own idle timeout in ms                  s  this session's own persistence, 0 or 1
//   c  context as JSON, in pieces: c, c1 …                  l  logical ID
//   x  the end as JSON: the record is a tombstone
// Each operation is one command or one script on one slot: the key's hash tag is the part of the session ID that
// regenerating keeps. No other key has a brace behind the prefix: users are at `u:{user}`, leases at `lease:{name}`, the
// epoch at `epoch`.
import { isSessionError, SessionError } from '../errors.js'
import { slotOf } from '../ids.js'
import {
  type EndResult,
  type Expectation,
  endOfRegenerated,
  type MetadataChange,
  type RegenerateResult,
  type Regeneration,
  readContext,
  readEnd,
  type SessionChange,
  type SessionContext,
  SessionData,
  type SessionEnd,
  timesAfter,
  type UpdateResult,
} from '../session-data.js'
import { SessionStore, secondsLeft, type UserIndex } from '../store.js'
import {
  type RedisClient,
  RedisConnection,
  type RedisReplicationClient,
  type RedisScanner,
  unavailable,
} from './redis-connection.js'
import { RedisReplication, type RedisWaitOptions } from './redis-replication.js'
import {
  CONTEXT_KEYS,
  END,
  EPOCH,
  LEASE,
  REGENERATE,
  REWRITE_END,
  type Script,
  SET,
  TOUCH,
  UPDATE,
} from './redis-scripts.js'
import { redisUserIndex } from './redis-users.js'

export type {
  OwnClient as RedisOwnClient,
  RedisClient,
  RedisPipeline,
  RedisReplicationClient,
  RedisScanner,
} from './redis-connection.js'
export type { RedisWaitOptions } from './redis-replication.js'

/** What `new RedisSessionStore()` takes: a `url`, or a `client`. */
export interface RedisSessionStoreOptions {
  /** Where to connect: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS. Closed by `close()`. */
  url?: string
  /** Your ioredis `Redis` or `Cluster`. The store never closes it. */
  client?: RedisClient
  /**
   * What every key begins with. Give each application on one Redis its own. Up to five characters cost no memory.
   * @default 'soj:'
   */
  prefix?: string
  /**
   * How many calls may be without an answer before further ones are refused at once.
   * @default 10_000
   */
  maxPending?: number
  /**
   * Makes every ending (`end`, `regenerate`, and what raises the epoch) wait until so many replicas have it, so that no
   * failover brings an ended session back. When too few have it in time the call rejects with `STORE_UNAVAILABLE`: the
   * session has ended, but a failover may undo that; the same call again waits again. Opens a second connection. Redis
   * never promises that the replica that has it is the one that is promoted, unless all of them have it.
   * @default no waiting
   */
  wait?: RedisWaitOptions
}

/** A connection that owes answers and gives none for so long is replaced. */
const SILENCE_MS = 5_000
/** The longest that `wait` may wait: a connection is silent meanwhile. */
const LONGEST_WAIT_MS = 4_000
/** How often a connection to a server that refuses writes is replaced. */
const RECONNECT_EVERY_MS = 1_000
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

  /** @throws {SessionError} `INVALID_OPTION` when there is not exactly one of `url` and `client`. */
  constructor(options: RedisSessionStoreOptions) {
    super()
    const { url, client, prefix = 'soj:', maxPending = 10_000, wait } = options ?? {}
    if ((url === undefined) === (client === undefined)) {
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
    const needed = ['hgetall', 'del', 'evalsha', 'eval', 'once', ...(wait === undefined ? [] : ['duplicate'])]
    const missing = needed.filter(
      (name) =>
        client !== undefined && typeof (client as unknown as Record<string, unknown> | null)?.[name] !== 'function',
    )
    if (missing.length > 0) {
      throw new SessionError(
        'INVALID_OPTION',
        `RedisSessionStore: client has no ${missing.join(', ')}; give an ioredis Redis or Cluster, not a client of node-redis.`,
      )
    }
    this.#prefix = prefix
    this.#maxPending = maxPending
    const open = url === undefined ? undefined : () => openClient(url)
    this.#connection = new RedisConnection({ client, open, maxPending })
    const openSecond = open ?? (async () => (client as Required<RedisClient>).duplicate())
    this.#replication =
      wait === undefined
        ? null
        : new RedisReplication(new RedisConnection<RedisReplicationClient>({ open: openSecond, maxPending }), wait)
  }

  async get(id: string): Promise<SessionData | null> {
    let hash: Record<string, string>
    try {
      hash = await this.#connection.read((client) => client.hgetall(this.#key(id)))
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('WRONGTYPE')) throw corrupt('not a hash', error)
      throw error
    }
    return decodeRecord(id, hash)
  }

  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    await this.#script(SET, [this.#key(id)], ['set', ttlSeconds, ...encodeRecord(data)])
  }

  async delete(id: string): Promise<void> {
    await this.#connection.run((client) => client.del(this.#key(id)))
  }

  override async touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    return (await this.#script(TOUCH, [this.#key(id)], [Math.floor(now), ttlSeconds * 1000, retainSeconds])) === 1
  }

  override async create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    return (await this.#script(SET, [this.#key(id)], ['create', ttlSeconds, ...encodeRecord(data)])) === 1
  }

  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    const reply = await this.#script(UPDATE, [this.#key(id)], encodeChange(change, ttlSeconds))
    if (reply === 1) return UPDATED
    const [status, text] = reply as [string, string?]
    return (status === 'conflict' ? { status, text: text ?? undefined } : { status }) as UpdateResult
  }

  override async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const { generation, at, next, keep, delete: remove = [], tombstoneSeconds } = regeneration
    const kept = keep === 'all' ? [] : keep.map(fieldKey)
    const reply = await this.#script(
      REGENERATE,
      [this.#key(id), this.#key(next.id)],
      [
        generation,
        at,
        ttlSeconds,
        encodeEnd(endOfRegenerated(regeneration)),
        tombstoneSeconds,
        keep === 'all' ? 'all' : 'some',
        kept.length,
        ...kept,
        remove.length,
        ...remove.map(fieldKey),
        ...encodeRecord(next),
      ],
    )
    const [status, flat] = reply as ['ended'] | ['taken'] | ['regenerated', string[]]
    if (status !== 'regenerated') return { status }
    await this.#confirmEnd(this.#key(id))
    const record = decodeRecord(next.id, Object.fromEntries(pairs(flat as string[])))
    return { status, record: record as SessionData }
  }

  /** Works also when Redis is out of memory. */
  override async end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    const key = this.#key(id)
    const reply = await this.#script(END, [key], [encodeEnd(ended), tombstoneSeconds])
    const [status, before] = reply as ['ended' | 'removed' | 'over', string?]
    // What was removed could not be read, and cannot be on a replica either.
    if (status === 'ended' || before !== undefined) await this.#confirmEnd(key)
    if (status !== 'over') return { status: 'ended' }
    return { status, successor: decodeEnd(before)?.successor }
  }

  /**
   * Every record, by `SCAN` on every primary, a few at a time. In a cluster, what moves to another node meanwhile may be
   * missed.
   */
  override async *scan(progress?: () => void): AsyncGenerator<SessionData, void, undefined> {
    const ids = this.#scanIds(progress)
    for await (const batch of ids) {
      for (const record of await Promise.all(batch.map((id) => this.get(id).catch(nullIfCorrupt)))) {
        if (record !== null) yield record
      }
    }
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

  override readonly users: UserIndex = redisUserIndex((user) => `${this.#prefix}u:{${user}}`, {
    run: (script, key, args) => this.#script(script, [key], args),
    read: (key) => this.#connection.read((client) => client.hgetall(key)),
  })

  override async epoch(atLeast?: number): Promise<number> {
    const key = `${this.#prefix}epoch`
    const epoch = (await this.#script(EPOCH, [key], [atLeast ?? ''])) as number
    if (atLeast !== undefined) {
      const isThere = (reply: unknown): boolean => Number(reply) >= atLeast
      await this.#replication?.confirm({ key, script: EPOCH.lua, args: [atLeast], isThere })
    }
    return epoch
  }

  override async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return (await this.#script(LEASE, [`${this.#prefix}lease:{${name}}`], [owner, Math.ceil(ttlMs)])) === 1
  }

  /** Closes the connections that the store opened. A client that was handed in is left alone. */
  override async close(): Promise<void> {
    await Promise.all([this.#connection.close(), this.#replication?.close()])
  }

  #key(id: string): string {
    const slot = slotOf(id)
    return `${this.#prefix}{${slot}}${id.slice(slot.length)}`
  }

  async #script(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    return this.#connection.script(script, keys, args).catch((error) => {
      if (error instanceof Error && /CORRUPT|WRONGTYPE/.test(error.message)) throw corrupt('unreadable metadata', error)
      throw error
    })
  }

  /** Waits until a tombstone is on replicas, if that is wanted. */
  async #confirmEnd(key: string): Promise<void> {
    await this.#replication?.confirm({ key, script: REWRITE_END, args: [], isThere: (reply) => reply === 1 })
  }
}

async function openClient(url: string): Promise<RedisReplicationClient> {
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
    // After a failover the old primary refuses writes: look for the new one, but let reads through in between.
    reconnectOnError(error: Error) {
      if (!error.message.startsWith('READONLY') || Date.now() - reconnectedAt < RECONNECT_EVERY_MS) return false
      reconnectedAt = Date.now()
      return true
    },
  })
}

function isWhole(value: unknown, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
}

function fieldKey(name: string): string {
  return `.${name}`
}

/** Names and texts of a record's hash fields, in turn. */
function encodeRecord(data: SessionData): string[] {
  const flat = ['t', data.tokenHash, 'm', encodeTimes(data, data)]
  if (data.previousToken) flat.push('p', `${data.previousToken.hash} ${data.previousToken.until}`)
  if (data.userId !== undefined) flat.push('u', JSON.stringify(data.userId))
  if (data.idleTimeoutMs !== undefined) flat.push('i', String(data.idleTimeoutMs))
  if (data.persistent !== undefined) flat.push('s', data.persistent ? '1' : '0')
  if (data.logicalId !== undefined) flat.push('l', data.logicalId)
  if (data.context) pushContext(flat, data.context)
  if (data.ended) flat.push('x', encodeEnd(data.ended))
  for (const [name, text] of data.fields) flat.push(fieldKey(name), text)
  return flat
}

/** In pieces when that saves memory: see `CONTEXT_KEYS`. */
function pushContext(flat: string[], context: SessionContext): void {
  const json = JSON.stringify(context)
  const pieces = Math.ceil(json.length / PIECE_BYTES)
  if (pieces > CONTEXT_KEYS.length || Buffer.byteLength(json) !== json.length) {
    flat.push('c', json)
    return
  }
  for (let index = 0; index < pieces; index++) {
    flat.push(CONTEXT_KEYS[index] as string, json.slice(index * PIECE_BYTES, (index + 1) * PIECE_BYTES))
  }
}

/** The longest text that Redis packs by default. */
const PIECE_BYTES = 64

type Times = Pick<SessionData, 'updatedAt' | 'lastAccessedAt' | 'expiresAt' | 'absoluteExpiresAt'>

/** What stands under `m`, with other times if need be. */
function encodeTimes({ generation, createdAt, epoch }: SessionData, times: Times): string {
  const since = (time: number): number => Math.max(0, Math.round(time - createdAt))
  const { updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt } = times
  const relative = `${since(updatedAt)} ${since(lastAccessedAt)} ${since(expiresAt)} ${since(absoluteExpiresAt)}`
  return `${generation} ${createdAt} ${relative}${epoch === 0 ? '' : ` ${epoch}`}`
}

function encodeEnd({ reason, at, by, detail, successor }: SessionEnd): string {
  return JSON.stringify({ reason, at, by, detail, successor })
}

function encodeChange(change: SessionChange, ttlSeconds: number): (string | number)[] {
  const { expect, renew, metadata = NO_METADATA, isPassive } = change
  const write: string[] = []
  const remove: string[] = []
  if (metadata !== NO_METADATA) encodeMetadata(metadata, write, remove)
  const ofMetadata = write.length + remove.length
  if (change.set) for (const [name, text] of change.set) write.push(fieldKey(name), text)
  if (change.delete) for (const name of change.delete) remove.push(fieldKey(name))

  const isRare = expect !== undefined || renew !== undefined || metadata.absoluteExpiresAt !== undefined
  const changesFields = write.length + remove.length > ofMetadata
  const flags = `${isRare ? 'r' : ''}${changesFields ? 'f' : ''}${isPassive ? 'p' : ''}${'idleTimeoutMs' in metadata ? 's' : ''}`
  const head = `${change.generation} ${change.at} ${change.expiresAt} ${ttlSeconds} ${write.length / 2} ${flags}`
  if (!isRare) {
    const { madeOn } = change
    // Few enough for one HSET, and nothing that the short way does not do.
    const isUsual = ofMetadata === 0 && remove.length === 0 && write.length > 0 && write.length <= SHORT_WRITE
    if (!isUsual || madeOn === undefined || madeOn.isExpired(change.at)) return [head, ...write, ...remove]
    const times = timesAfter(madeOn, change)
    const ttl = Math.max(ttlSeconds, secondsLeft(times, change.at))
    return ['=', encodeTimes(madeOn, madeOn), encodeTimes(madeOn, times), ttl, head, ...write]
  }
  return [
    head,
    metadata.absoluteExpiresAt ?? '',
    renew?.from ?? '',
    renew?.to ?? '',
    renew ? `${renew.from} ${renew.graceUntil}` : '',
    ...encodeExpectation(expect),
    ...write,
    ...remove,
  ]
}

function encodeExpectation(expect: Expectation | undefined): string[] {
  if (expect === undefined) return ['any', '', '']
  const [key, text] = 'field' in expect ? [fieldKey(expect.field), expect.text] : ['l', expect.logicalId]
  return text === undefined ? ['absent', key, ''] : ['text', key, text]
}

/** Names and texts that a change writes at once. */
const SHORT_WRITE = 200

const UPDATED: UpdateResult = { status: 'updated' }

const NO_METADATA: MetadataChange = {}
const METADATA_OF = { u: 'userId', i: 'idleTimeoutMs', s: 'persistent', l: 'logicalId' } as const

function encodeMetadata(metadata: MetadataChange, write: string[], remove: string[]): void {
  const { userId, idleTimeoutMs, persistent, logicalId } = metadata
  const texts = {
    u: userId === undefined ? undefined : JSON.stringify(userId),
    i: idleTimeoutMs === undefined ? undefined : String(idleTimeoutMs),
    s: persistent === undefined ? undefined : persistent ? '1' : '0',
    l: logicalId,
  }
  for (const key of ['u', 'i', 's', 'l'] as const) {
    const text = texts[key]
    if (text !== undefined) write.push(key, text)
    else if (METADATA_OF[key] in metadata) remove.push(key)
  }
}

const TIMES = /^(\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15})(?: (\d{1,15}))?$/

function decodeRecord(id: string, hash: Record<string, string>): SessionData | null {
  const names = Object.keys(hash)
  if (names.length === 0) return null
  const [, generation, created, updated, accessed, expires, absolute, epoch] = TIMES.exec(hash['m'] ?? '') ?? []
  const tokenHash = hash['t']
  if (generation === undefined || tokenHash === undefined) throw corrupt('metadata is missing')
  const createdAt = Number(created)
  const fields: [string, string][] = []
  for (const name of names) if (name.charCodeAt(0) === 46 /* . */) fields.push([name.slice(1), hash[name] as string])
  return new SessionData({
    id,
    tokenHash,
    generation: Number(generation),
    createdAt,
    updatedAt: createdAt + Number(updated),
    lastAccessedAt: createdAt + Number(accessed),
    expiresAt: createdAt + Number(expires),
    absoluteExpiresAt: createdAt + Number(absolute),
    previousToken: decodePrevious(hash['p']),
    userId: decodeUser(hash['u']),
    idleTimeoutMs: hash['i'] === undefined ? undefined : Number(hash['i']),
    persistent: hash['s'] === undefined ? undefined : hash['s'] === '1',
    logicalId: hash['l'],
    context: decodeContext(hash),
    epoch: epoch === undefined ? 0 : Number(epoch),
    ended: decodeEnd(hash['x']),
    fields,
  })
}

function decodePrevious(text: string | undefined): { hash: string; until: number } | undefined {
  const [hash, until] = text?.split(' ') ?? []
  return hash !== undefined && until !== undefined ? { hash, until: Number(until) } : undefined
}

function decodeUser(text: string | undefined): string | number | undefined {
  if (text === undefined) return undefined
  const userId = parse(text)
  if (typeof userId !== 'string' && typeof userId !== 'number') throw corrupt('the user ID is not a string or number')
  return userId
}

function decodeContext(hash: Record<string, string>): SessionContext | undefined {
  let json = hash['c']
  if (json === undefined) return undefined
  for (let index = 1; index < CONTEXT_KEYS.length; index++) {
    const piece = hash[CONTEXT_KEYS[index] as string]
    if (piece === undefined) break
    json += piece
  }
  return readContext(parse(json))
}

function decodeEnd(text: string | undefined): SessionEnd | undefined {
  return text === undefined ? undefined : readEnd(parse(text))
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    throw corrupt('what should be JSON is not')
  }
}

function nullIfCorrupt(error: unknown): null {
  if (isSessionError(error, 'CORRUPT_RECORD')) return null
  throw error
}

function pairs(flat: string[]): [string, string][] {
  const result: [string, string][] = []
  for (let index = 0; index < flat.length; index += 2) {
    result.push([flat[index] as string, flat[index + 1] as string])
  }
  return result
}

function corrupt(reason: string, cause?: unknown): SessionError {
  return new SessionError('CORRUPT_RECORD', `The session record in Redis cannot be read: ${reason}.`, { cause })
}
