// Sessions in Redis or Valkey, for programs that run as several processes. Needs ioredis only to open a connection of
// its own; a client of yours is described by the few members that are called.
//
// A session is one string: lines of a name, a tab and a text. Metadata has names of one letter, the application's field `x`
// the name `.x`. What would break a line is escaped (see `escaped`), which no JSON needs.
//   m  "generation createdAt updatedAt lastAccessedAt expiresAt absoluteExpiresAt revision", in base 36, the four in the
//      middle relative to createdAt; behind them the epoch when it is not 0. The first line of a live record, and another
//      one after each write.
//   t  token hash                                            p  "hash until" of the token before the last renewal
//   u  user ID as JSON                                       l  logical ID
//   i  this session's own idle timeout in ms                 s  this session's own persistence, 0 or 1
//   c  context as JSON                                       x  the end as JSON: the record is a tombstone
//   b  bytes from the beginning to the large fields; the second line where there are any
// In a session of more than `SMALL_RECORD` characters the texts above `SMALL_TEXT` are large fields. They come last, behind
// some empty lines, so that there is room for the others to grow and a change of those is not a matter of their size.
//
// Each operation is one command or one script on one slot: the key's hash tag is the part of the session ID that
// regenerating keeps. No other key has a brace behind the prefix: users are at `u:{user}`, leases at `lease:{name}`, the
// epoch at `epoch`.
import { randomInt } from 'node:crypto'
import { isSessionError, SessionError } from '../errors.js'
import { slotOf } from '../ids.js'
import {
  applyChange,
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
  type SessionDataInit,
  type SessionEnd,
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
import { END, EPOCH, LEASE, REGENERATE, REWRITE_END, type Script, SET, TOUCH, UPDATE } from './redis-scripts.js'
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
    const needed = ['get', 'hgetall', 'del', 'evalsha', 'eval', 'once', ...(wait === undefined ? [] : ['duplicate'])]
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
    let text: string | null
    try {
      text = await this.#connection.read((client) => client.get(this.#key(id)))
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('WRONGTYPE')) throw corrupt('it is no text', error)
      throw error
    }
    return text === null ? null : decodeRecord(id, text)
  }

  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    // What a process has read of the record before is not what it is then.
    const revision = randomInt(FIRST_REVISION, 2 * FIRST_REVISION)
    await this.#script(SET, [this.#key(id)], ['set', ttlSeconds, textOf(layOut(data, revision))])
  }

  async delete(id: string): Promise<void> {
    await this.#connection.run((client) => client.del(this.#key(id)))
  }

  override async touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    return (await this.#script(TOUCH, [this.#key(id)], [Math.floor(now), ttlSeconds * 1000, retainSeconds])) === 1
  }

  override async create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    return (await this.#script(SET, [this.#key(id)], ['create', ttlSeconds, textOf(layOut(data, 1))])) === 1
  }

  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    const keys = [this.#key(id)]
    const next = successorOf(change, ttlSeconds)
    if (next !== null) {
      const reply = await this.#script(UPDATE, keys, next.args)
      if (reply === 1) return { status: 'updated', record: next.record }
      if (!isStale(reply)) return decodeUpdate(reply)
    }
    return decodeUpdate(await this.#script(UPDATE, keys, encodeChange(change, ttlSeconds)))
  }

  override async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const { generation, at, next, keep, delete: remove = [], tombstoneSeconds } = regeneration
    const kept = keep === 'all' ? [] : keep.map(lineName)
    const lines = [['m', encodeTimes(next, 1)], ...metadataLines(next), ...fieldLines(next.fields)]
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
        ...remove.map(lineName),
        ...lines.flat(),
      ],
    )
    const [status, text] = reply as ['ended'] | ['taken'] | ['regenerated', string]
    if (status !== 'regenerated') return { status }
    await this.#confirmEnd(this.#key(id))
    return { status, record: decodeRecord(next.id, text as string) }
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

/** Up to so many characters, a session is written as a whole each time. */
const SMALL_RECORD = 4_096
/** The longest text that is no large field in a session above that. */
const SMALL_TEXT = 256
/** What `set()` begins to count revisions at, more or less. */
const FIRST_REVISION = 36 ** 6

/** How a record is written. */
interface Layout {
  /** The line of times, which is another one after each write. */
  readonly line: string
  readonly revision: number
  /** What comes before the large fields, or everything. */
  readonly front: string
  /** The large fields; `null` when there are none. */
  readonly large: LargeFields | null
}

interface LargeFields {
  readonly names: ReadonlySet<string>
  /** Bytes from the beginning of the record to them. */
  readonly offset: number
}

/** A record as it was read or written, with what it takes to do a change made on it quickly. */
class StoredData extends SessionData {
  readonly #layout: Omit<Layout, 'front'>

  constructor(init: SessionDataInit, layout: Omit<Layout, 'front'>) {
    super(init)
    this.#layout = layout
  }

  /** Of the instance alone: a copy by `with()` is not what is stored. */
  static layoutOf(record: SessionData | undefined): Omit<Layout, 'front'> | null {
    return record !== undefined && #layout in record ? record.#layout : null
  }
}

/** Lays out a record, with the large fields at the place where they are if that still serves. */
function layOut(
  data: SessionData,
  revision: number,
  before: LargeFields | null = null,
): Layout & { data: SessionData } {
  const line = `m\t${encodeTimes(data, revision)}\n`
  let front = ''
  for (const [name, text] of metadataLines(data)) front += `${name}\t${text}\n`
  const names = sizeOf(data) > SMALL_RECORD ? namesOfLarge(data) : null
  for (const [name, text] of data.fields) if (!names?.has(name)) front += `${lineName(name)}\t${escaped(text)}\n`
  // Of a tombstone the end comes first.
  if (data.ended) return { data, revision, line, front: `x\t${encodeEnd(data.ended)}\n${line}${front}`, large: null }
  if (names === null) return { data, revision, line, front: line + front, large: null }

  const length = Buffer.byteLength(line) + Buffer.byteLength(front)
  const least = length + 'b\t000000000\n\n'.length
  const isRoomLeft = before !== null && least <= before.offset
  const offset = isRoomLeft ? before.offset : least + ROOM + (least >> 3)
  const reserved = `b\t${offset}\n`
  return {
    data,
    revision,
    line,
    front: `${line}${reserved}${front}${'\n'.repeat(offset - length - reserved.length)}`,
    large: { names, offset },
  }
}

/** The least that is left free before large fields, in bytes. */
const ROOM = 128

function namesOfLarge({ fields }: SessionData): ReadonlySet<string> | null {
  const names = new Set<string>()
  for (const [name, text] of fields) if (text.length > SMALL_TEXT) names.add(name)
  return names.size === 0 ? null : names
}

/** All of a record. */
function textOf({ data, front, large }: Layout & { data: SessionData }): string {
  if (large === null) return front
  let text = front
  for (const name of large.names) text += `${lineName(name)}\t${escaped(data.fields.get(name) as string)}\n`
  return text
}

function sizeOf({ fields }: SessionData): number {
  let size = 0
  for (const [name, text] of fields) size += name.length + text.length
  return size
}

/** Names and texts of the metadata, but for the times and the end. */
function metadataLines(data: SessionData): [string, string][] {
  const lines: [string, string][] = [['t', escaped(data.tokenHash)]]
  if (data.previousToken) lines.push(['p', escaped(`${data.previousToken.hash} ${data.previousToken.until}`)])
  if (data.userId !== undefined) lines.push(['u', JSON.stringify(data.userId)])
  if (data.idleTimeoutMs !== undefined) lines.push(['i', String(data.idleTimeoutMs)])
  if (data.persistent !== undefined) lines.push(['s', data.persistent ? '1' : '0'])
  if (data.logicalId !== undefined) lines.push(['l', escaped(data.logicalId)])
  if (data.context) lines.push(['c', encodeContext(data.context)])
  return lines
}

function fieldLines(fields: Iterable<readonly [string, string]>): [string, string][] {
  return Array.from(fields, ([name, text]) => [lineName(name), escaped(text)])
}

function lineName(name: string): string {
  return `.${escaped(name)}`
}

/** The same text in a line: what ends a name or a line, and the mark itself, as a mark and a letter. */
function escaped(text: string): string {
  return BREAKS.test(text) ? text.replace(ALL_BREAKS, (character) => `\u001b${ESCAPES[character]}`) : text
}

function unescaped(text: string): string {
  return text.includes('\u001b') ? text.replace(ALL_ESCAPES, (_all, letter: string) => UNESCAPES[letter] ?? '') : text
}

const ESCAPES: Record<string, string> = { '\n': 'n', '\t': 't', '\u001b': 'e' }
const UNESCAPES: Record<string, string> = { n: '\n', t: '\t', e: '\u001b' }
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about.
const BREAKS = /[\n\t\u001b]/
const ALL_BREAKS = new RegExp(BREAKS.source, 'g')
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about.
const ALL_ESCAPES = /\u001b(.?)/gs

/** What stands under `m`. */
function encodeTimes(data: SessionData, revision: number): string {
  const { generation, createdAt, updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt, epoch } = data
  const since = (time: number): string => base36(time - createdAt)
  return `${base36(generation)} ${base36(createdAt)} ${since(updatedAt)} ${since(lastAccessedAt)} ${since(
    expiresAt,
  )} ${since(absoluteExpiresAt)} ${base36(revision)}${epoch === 0 ? '' : ` ${base36(epoch)}`}`
}

function base36(count: number): string {
  return Math.max(0, Math.round(count)).toString(36)
}

/** A list, shorter than an object. */
function encodeContext({ ip, userAgent, referrer, locale }: SessionContext): string {
  const texts = [ip, userAgent, referrer, locale].map((text) => text ?? null)
  while (texts.at(-1) === null) texts.pop()
  return JSON.stringify(texts)
}

function encodeEnd({ reason, at, by, detail, successor }: SessionEnd): string {
  return JSON.stringify({ reason, at, by, detail, successor })
}

/**
 * What a change makes of the record that it was made on, and what the script needs to put it there if that record is still
 * what is stored. `null` when the record was not read here, or is not one that the change applies to.
 */
function successorOf(
  change: SessionChange,
  ttlSeconds: number,
): { record: SessionData; args: (string | number)[] } | null {
  const { madeOn } = change
  const before = StoredData.layoutOf(madeOn)
  if (before === null) return null
  const { record } = applyChange(madeOn as SessionData, change)
  if (record === null || record === madeOn) return null
  const after = layOut(record, before.revision + 1, before.large)
  const isFront = leavesAlone(before.large, after.large, change)
  const ttl = Math.max(ttlSeconds, secondsLeft(record, change.at))
  const args = ['=', before.line, ttl, ...(isFront ? [after.front, 'front'] : [textOf(after), 'all'])]
  // Long texts are worth a second call in the rare case that another request was quicker.
  if (lengthOf(change.set) <= SMALL_RECORD) args.push(...encodeChange(change, ttlSeconds))
  return { record: new StoredData(record, after), args }
}

/** Whether the large fields stay as they are, and where they are. */
function leavesAlone(
  before: LargeFields | null,
  after: LargeFields | null,
  { set, delete: removed }: SessionChange,
): boolean {
  if (before === null || before.offset !== after?.offset || before.names.size !== after.names.size) return false
  for (const name of after.names) {
    if (!before.names.has(name) || set?.has(name) || removed?.includes(name)) return false
  }
  return true
}

function lengthOf(texts: ReadonlyMap<string, string> = new Map()): number {
  let length = 0
  for (const text of texts.values()) length += text.length
  return length
}

function isStale(reply: unknown): boolean {
  return Array.isArray(reply) && reply[0] === 'stale'
}

function decodeUpdate(reply: unknown): UpdateResult {
  const [status, text] = reply as [string, string?]
  return (
    status === 'conflict' ? { status, text: text == null ? undefined : unescaped(text) } : { status }
  ) as UpdateResult
}

/** A change of whatever is stored. */
function encodeChange(change: SessionChange, ttlSeconds: number): (string | number)[] {
  const { expect, renew, metadata = NO_METADATA, isPassive } = change
  const write: string[] = []
  const remove: string[] = []
  if (metadata !== NO_METADATA) encodeMetadata(metadata, write, remove)
  const ofMetadata = write.length + remove.length
  if (change.set) for (const [name, text] of change.set) write.push(lineName(name), escaped(text))
  if (change.delete) for (const name of change.delete) remove.push(lineName(name))

  const isRare = expect !== undefined || renew !== undefined || metadata.absoluteExpiresAt !== undefined
  const changesFields = write.length + remove.length > ofMetadata
  const flags = `${isRare ? 'r' : ''}${changesFields ? 'f' : ''}${isPassive ? 'p' : ''}${'idleTimeoutMs' in metadata ? 's' : ''}`
  const head = `${change.generation} ${change.at} ${change.expiresAt} ${ttlSeconds} ${write.length / 2} ${flags}`
  if (!isRare) return [head, ...write, ...remove]
  return [
    head,
    metadata.absoluteExpiresAt ?? '',
    renew ? escaped(renew.from) : '',
    renew ? escaped(renew.to) : '',
    renew ? escaped(`${renew.from} ${renew.graceUntil}`) : '',
    ...encodeExpectation(expect),
    ...write,
    ...remove,
  ]
}

function encodeExpectation(expect: Expectation | undefined): string[] {
  if (expect === undefined) return ['any', '', '']
  const [name, text] = 'field' in expect ? [lineName(expect.field), expect.text] : ['l', expect.logicalId]
  return text === undefined ? ['absent', name, ''] : ['text', name, escaped(text)]
}

const NO_METADATA: MetadataChange = {}
const METADATA_OF = { u: 'userId', i: 'idleTimeoutMs', s: 'persistent', l: 'logicalId' } as const

function encodeMetadata(metadata: MetadataChange, write: string[], remove: string[]): void {
  const { userId, idleTimeoutMs, persistent, logicalId } = metadata
  const texts = {
    u: userId === undefined ? undefined : JSON.stringify(userId),
    i: idleTimeoutMs === undefined ? undefined : String(idleTimeoutMs),
    s: persistent === undefined ? undefined : persistent ? '1' : '0',
    l: logicalId === undefined ? undefined : escaped(logicalId),
  }
  for (const key of ['u', 'i', 's', 'l'] as const) {
    const text = texts[key]
    if (text !== undefined) write.push(key, text)
    else if (METADATA_OF[key] in metadata) remove.push(key)
  }
}

function decodeRecord(id: string, text: string): SessionData {
  const metadata: Metadata = {}
  const fields = new Map<string, string>()
  const largeNames = decodeLines(text, metadata, fields)
  const [generation, createdAt, updated, accessed, expires, absolute, revision, epoch] = decodeTimes(metadata.m)
  if (metadata.t === undefined) throw corrupt('metadata is missing')
  const init: SessionDataInit = {
    id,
    tokenHash: metadata.t,
    generation,
    createdAt,
    updatedAt: createdAt + updated,
    lastAccessedAt: createdAt + accessed,
    expiresAt: createdAt + expires,
    absoluteExpiresAt: createdAt + absolute,
    previousToken: decodePrevious(metadata.p),
    userId: decodeUser(metadata.u),
    idleTimeoutMs: metadata.i === undefined ? undefined : Number(metadata.i),
    persistent: metadata.s === undefined ? undefined : metadata.s === '1',
    logicalId: metadata.l,
    context: decodeContext(metadata.c),
    epoch: epoch ?? 0,
    ended: decodeEnd(metadata.x),
    fields,
  }
  const large = largeNames && { names: largeNames, offset: Number(metadata.b) }
  return new StoredData(init, { line: `m\t${metadata.m}\n`, revision, large })
}

type Metadata = { [name in 'm' | 't' | 'p' | 'u' | 'i' | 's' | 'l' | 'c' | 'b' | 'x']?: string }

/** Takes lines apart. Returns the names of the fields behind the empty lines, or `null` when there are no such lines. */
function decodeLines(text: string, metadata: Metadata, fields: Map<string, string>): Set<string> | null {
  let large: Set<string> | null = null
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at)
    if (end === at) {
      large ??= new Set()
      while (text.charCodeAt(at) === 10 /* \n */) at++
      continue
    }
    const tab = text.indexOf('\t', at)
    if (end === -1 || tab === -1 || tab > end) throw corrupt('a line is broken')
    const value = unescaped(text.slice(tab + 1, end))
    if (text.charCodeAt(at) === 46 /* . */) {
      const name = unescaped(text.slice(at + 1, tab))
      fields.set(name, value)
      large?.add(name)
    } else metadata[text.slice(at, tab) as keyof Metadata] = value
    at = end + 1
  }
  return large
}

const TIMES = /^[\da-z]{1,10}( [\da-z]{1,10}){6,7}$/

type Times = [number, number, number, number, number, number, number, number?]

function decodeTimes(text: string | undefined): Times {
  if (text === undefined || !TIMES.test(text)) throw corrupt('metadata is missing')
  return text.split(' ').map((digits) => Number.parseInt(digits, 36)) as Times
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

function decodeContext(text: string | undefined): SessionContext | undefined {
  if (text === undefined) return undefined
  const texts = parse(text)
  if (!Array.isArray(texts)) throw corrupt('the context is not a list')
  const [ip, userAgent, referrer, locale] = texts.map((each: unknown) => each ?? undefined)
  return readContext({ ip, userAgent, referrer, locale })
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

function corrupt(reason: string, cause?: unknown): SessionError {
  return new SessionError('CORRUPT_RECORD', `The session record in Redis cannot be read: ${reason}.`, { cause })
}
