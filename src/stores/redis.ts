// Sessions in Redis or Valkey, for programs that run as several processes. Needs ioredis only to open a connection of
// its own; a client of yours is described by the few members that are called.
//
// A session is one hash. Metadata sits under one-letter names, the application's field `x` under `.x`:
//   t  token hash
//   m  "generation createdAt updatedAt lastAccessedAt expiresAt absoluteExpiresAt", the last four relative to createdAt,
//      and behind them the epoch when it is not 0
//   p  "hash until" of the token before the last renewal     u  user ID as JSON
//   i  this session's own idle timeout in ms                  s  this session's own persistence, 0 or 1
//   c  context as JSON                                        x  the end as JSON: the record is a tombstone
// Each operation is one command or one script on one slot: the key's hash tag is the part of the session ID that
// regenerating keeps. No other key has a brace behind the prefix: users are at `u:{user}`, leases at `lease:{name}`, the
// epoch at `epoch`.
import { isSessionError, SessionError } from '../errors.js'
import { slotOf } from '../ids.js'
import {
  type EndResult,
  endOfRegenerated,
  type RegenerateResult,
  type Regeneration,
  readContext,
  readEnd,
  type SessionChange,
  type SessionContext,
  SessionData,
  type SessionEnd,
  type UpdateResult,
} from '../session-data.js'
import { SessionStore, type UserIndex } from '../store.js'
import { END, EPOCH, LEASE, REGENERATE, type Script, SET, TOUCH, UPDATE } from './redis-scripts.js'
import { redisUserIndex } from './redis-users.js'

/** The members of an ioredis `Redis` or `Cluster` that are called. */
export interface RedisClient {
  /** `'ready'` when commands can be sent. A client without it is taken to be always ready. */
  readonly status?: string
  hgetall(key: string): Promise<Record<string, string>>
  del(key: string): Promise<number>
  evalsha(sha: string, keys: number, ...args: (string | number)[]): Promise<unknown>
  eval(script: string, keys: number, ...args: (string | number)[]): Promise<unknown>
  once(event: 'ready', listener: () => void): unknown
  connect?(): Promise<void>
  /** The primaries of a cluster, each of which `scan()` has to ask. */
  nodes?(role: 'master'): readonly RedisScanner[]
  /** What the client puts before every key, but not into a pattern. */
  readonly options?: { readonly keyPrefix?: string | undefined }
  scan?: RedisScanner['scan']
}

/** The one member of an ioredis `Redis` that `scan()` needs. */
export interface RedisScanner {
  scan(cursor: string, match: 'MATCH', pattern: string, count: 'COUNT', n: number): Promise<[string, string[]]>
}

/** A client that the store opened itself. */
interface OwnClient extends RedisClient {
  on(event: 'error', listener: (error: Error) => void): unknown
  quit(): Promise<unknown>
  disconnect(): void
}

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
}

/** How long a call waits for a connection that is being made; less than any sensible deadline. */
const READY_WAIT_MS = 500
/** A connection that owes answers and gives none for so long is replaced. */
const SILENCE_MS = 5_000
/** How often a connection to a server that refuses writes is replaced. */
const RECONNECT_EVERY_MS = 1_000
/** How many keys one `SCAN` looks at, and how many records are read at a time. */
const SCAN_COUNT = 500
const SCAN_BATCH = 50
const CLOSED = 'the store has been closed.'

/**
 * Keeps sessions in Redis 7 or later, or Valkey. Every operation is atomic across processes.
 *
 * While Redis cannot be reached a call fails within half a second, nothing is queued without bound, and the store works
 * again by itself when Redis does.
 */
export class RedisSessionStore extends SessionStore {
  readonly #prefix: string
  readonly #maxPending: number
  readonly #opening: Promise<OwnClient> | null
  #client: RedisClient | null
  #lastError: Error | null = null
  /** Calls that wait for the connection. */
  readonly #waiting = new Set<(failure?: string) => void>()
  #awaitsReady = false
  #pending = 0
  #isClosed = false

  /** @throws {SessionError} `INVALID_OPTION` when there is not exactly one of `url` and `client`. */
  constructor(options: RedisSessionStoreOptions) {
    super()
    const { url, client, prefix = 'soj:', maxPending = 10_000 } = options ?? {}
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
    const missing = ['hgetall', 'del', 'evalsha', 'eval', 'once'].filter(
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
    this.#client = client ?? null
    this.#opening = url === undefined ? null : this.#open(url)
    // A failure is told to every call; here it must only not count as unhandled.
    this.#opening?.catch(() => {})
  }

  async get(id: string): Promise<SessionData | null> {
    let hash: Record<string, string>
    try {
      hash = await this.#read((client) => client.hgetall(this.#key(id)))
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
    await this.#run((client) => client.del(this.#key(id)))
  }

  override async touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    return (await this.#script(TOUCH, [this.#key(id)], [Math.floor(now), ttlSeconds * 1000, retainSeconds])) === 1
  }

  override async create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    return (await this.#script(SET, [this.#key(id)], ['create', ttlSeconds, ...encodeRecord(data)])) === 1
  }

  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    const reply = await this.#script(UPDATE, [this.#key(id)], encodeChange(change, ttlSeconds))
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
    const record = decodeRecord(next.id, Object.fromEntries(pairs(flat as string[])))
    return { status, record: record as SessionData }
  }

  /** Works also when Redis is out of memory. */
  override async end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    const reply = await this.#script(END, [this.#key(id)], [encodeEnd(ended), tombstoneSeconds])
    const [status, before] = reply as ['ended' | 'removed' | 'over', string?]
    if (status !== 'over') return { status: 'ended' }
    return { status, successor: decodeEnd(before)?.successor }
  }

  /**
   * Every record, by `SCAN` on every primary, a few at a time. In a cluster, what moves to another node meanwhile may be
   * missed.
   */
  override async *scan(): AsyncGenerator<SessionData, void, undefined> {
    const ids = this.#scanIds()
    for await (const batch of ids) {
      for (const record of await Promise.all(batch.map((id) => this.get(id).catch(nullIfCorrupt)))) {
        if (record !== null) yield record
      }
    }
  }

  /** The IDs that have a key, in batches. */
  async *#scanIds(): AsyncGenerator<string[], void, undefined> {
    const scanners = await this.#run(async (client) => {
      if (client.nodes) return client.nodes('master')
      if (client.scan) return [client as RedisScanner]
      throw new SessionError('INVALID_OPTION', 'RedisSessionStore: client has no scan, which listing sessions needs.')
    })
    if (scanners.length === 0) throw unavailable('no primary of the cluster is known.', this.#lastError)
    const prefix = `${this.#client?.options?.keyPrefix ?? ''}${this.#prefix}`
    const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}{*}*`
    const batchSize = Math.max(1, Math.min(SCAN_BATCH, Math.floor(this.#maxPending / 2)))
    for (const scanner of scanners) {
      let cursor = '0'
      do {
        const [next, keys] = await this.#run(() => scanner.scan(cursor, 'MATCH', pattern, 'COUNT', SCAN_COUNT))
        cursor = next
        const ids = keys.map((key) => key.slice(prefix.length).replace(/^\{(.*?)\}/, '$1'))
        for (let index = 0; index < ids.length; index += batchSize) yield ids.slice(index, index + batchSize)
      } while (cursor !== '0')
    }
  }

  override readonly users: UserIndex = redisUserIndex((user) => `${this.#prefix}u:{${user}}`, {
    run: (script, key, args) => this.#script(script, [key], args),
    read: (key) => this.#read((client) => client.hgetall(key)),
  })

  override async epoch(atLeast?: number): Promise<number> {
    return (await this.#script(EPOCH, [`${this.#prefix}epoch`], [atLeast ?? ''])) as number
  }

  override async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return (await this.#script(LEASE, [`${this.#prefix}lease:{${name}}`], [owner, Math.ceil(ttlMs)])) === 1
  }

  /** Closes the connection if the store opened it. A client that was handed in is left alone. */
  override async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const go of this.#waiting) go(CLOSED)
    if (this.#opening === null) return
    const client = await this.#opening.catch(() => null)
    if (client === null) return
    // Lets the answers under way come in, but not for longer than a call would wait.
    const timer = setTimeout(() => client.disconnect(), READY_WAIT_MS)
    if (client.status === 'ready') await client.quit().catch(() => {})
    clearTimeout(timer)
    client.disconnect()
  }

  #key(id: string): string {
    const slot = slotOf(id)
    return `${this.#prefix}{${slot}}${id.slice(slot.length)}`
  }

  async #open(url: string): Promise<OwnClient> {
    const { Redis } = await import('ioredis').catch((cause) => {
      const message = 'RedisSessionStore with a url needs ioredis: npm install ioredis'
      throw new SessionError('MISSING_DEPENDENCY', message, { cause })
    })
    let reconnectedAt = 0
    const client: OwnClient = new Redis(url.replace(/^valkey/, 'redis'), {
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
    client.on('error', (error) => {
      this.#lastError = withoutArguments(error)
    })
    this.#client = client
    return client
  }

  async #script(script: Script, keys: string[], args: (string | number)[]): Promise<unknown> {
    return this.#run(async (client) => {
      try {
        return await client.evalsha(script.sha, keys.length, ...keys, ...args)
      } catch (error) {
        // The server has been restarted, or its scripts flushed.
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        return client.eval(script.lua, keys.length, ...keys, ...args)
      }
    }).catch((error) => {
      if (error instanceof Error && /CORRUPT|WRONGTYPE/.test(error.message)) throw corrupt('unreadable metadata', error)
      throw error
    })
  }

  /** Runs an operation that may be done twice: again, when our connection was lost under it. */
  async #read<T>(operation: (client: RedisClient) => Promise<T>): Promise<T> {
    return this.#run((client) =>
      operation(client).catch(async (error) => {
        // A reply is an answer. Another failure of our client, which queues nothing, means a lost connection.
        if (this.#opening === null || this.#isClosed || (error as Error).name === 'ReplyError') throw error
        await this.#becomesReady(client)
        return operation(client)
      }),
    )
  }

  /** Runs one operation once the connection is ready, within the bounds on waiting and on open calls. */
  async #run<T>(operation: (client: RedisClient) => Promise<T>): Promise<T> {
    if (this.#pending >= this.#maxPending) throw unavailable(`${this.#pending} calls are without an answer.`)
    this.#pending++
    try {
      if (this.#isClosed) throw unavailable(CLOSED)
      const client = this.#client ?? (await (this.#opening as Promise<OwnClient>))
      if (client.status !== undefined && client.status !== 'ready') await this.#becomesReady(client)
      return await operation(client)
    } catch (error) {
      throw withoutArguments(error)
    } finally {
      this.#pending--
    }
  }

  async #becomesReady(client: RedisClient): Promise<void> {
    if (this.#isClosed) throw unavailable(CLOSED)
    if (client.status === 'end') throw unavailable('the connection has been closed.', this.#lastError)
    if (client.status === 'wait') client.connect?.().catch(() => {})
    if (!this.#awaitsReady) {
      this.#awaitsReady = true
      client.once('ready', () => {
        this.#awaitsReady = false
        for (const go of this.#waiting) go()
      })
    }
    // Not Promise.race: against a promise that outlives an outage it would keep every call of that outage in memory.
    await new Promise<void>((resolve, reject) => {
      const go = (failure?: string): void => {
        clearTimeout(timer)
        this.#waiting.delete(go)
        if (failure === undefined) resolve()
        else reject(unavailable(failure, this.#lastError))
      }
      const timer = setTimeout(() => go('there is no connection.'), READY_WAIT_MS)
      this.#waiting.add(go)
    })
  }
}

function fieldKey(name: string): string {
  return `.${name}`
}

/** Names and texts of a record's hash fields, in turn. */
function encodeRecord(data: SessionData): string[] {
  const { createdAt } = data
  const times = [data.updatedAt, data.lastAccessedAt, data.expiresAt, data.absoluteExpiresAt]
  const flat = ['t', data.tokenHash]
  const epoch = data.epoch === 0 ? '' : ` ${data.epoch}`
  flat.push(
    'm',
    `${data.generation} ${createdAt} ${times.map((time) => Math.max(0, time - createdAt)).join(' ')}${epoch}`,
  )
  if (data.previousToken) flat.push('p', `${data.previousToken.hash} ${data.previousToken.until}`)
  if (data.userId !== undefined) flat.push('u', JSON.stringify(data.userId))
  if (data.idleTimeoutMs !== undefined) flat.push('i', String(data.idleTimeoutMs))
  if (data.persistent !== undefined) flat.push('s', data.persistent ? '1' : '0')
  if (data.context) flat.push('c', JSON.stringify(data.context))
  if (data.ended) flat.push('x', encodeEnd(data.ended))
  for (const [name, text] of data.fields) flat.push(fieldKey(name), text)
  return flat
}

function encodeEnd({ reason, at, by, detail, successor }: SessionEnd): string {
  return JSON.stringify({ reason, at, by, detail, successor })
}

function encodeChange(change: SessionChange, ttlSeconds: number): (string | number)[] {
  const { expect, renew, metadata = {} } = change
  const write: string[] = []
  const remove: string[] = []
  for (const [key, value] of [
    ['u', metadata.userId === undefined ? undefined : JSON.stringify(metadata.userId)],
    ['i', metadata.idleTimeoutMs === undefined ? undefined : String(metadata.idleTimeoutMs)],
    ['s', metadata.persistent === undefined ? undefined : metadata.persistent ? '1' : '0'],
  ] as const) {
    if (value !== undefined) write.push(key, value)
    else if (METADATA_OF[key] in metadata) remove.push(key)
  }
  for (const [name, text] of change.set ?? []) write.push(fieldKey(name), text)
  for (const name of change.delete ?? []) remove.push(fieldKey(name))
  return [
    change.generation,
    change.at,
    change.expiresAt,
    `${change.isPassive ? 'passive' : 'active'} ${'idleTimeoutMs' in metadata ? 'set' : ''}`,
    ttlSeconds,
    metadata.absoluteExpiresAt ?? '',
    renew?.from ?? '',
    renew?.to ?? '',
    renew ? `${renew.from} ${renew.graceUntil}` : '',
    expect === undefined ? 'any' : expect.text === undefined ? 'absent' : 'text',
    expect ? fieldKey(expect.field) : '',
    expect?.text ?? '',
    write.length / 2,
    ...write,
    ...remove,
  ]
}

const METADATA_OF = { u: 'userId', i: 'idleTimeoutMs', s: 'persistent' } as const

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
    context: decodeContext(hash['c']),
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

function decodeContext(text: string | undefined): SessionContext | undefined {
  return text === undefined ? undefined : readContext(parse(text))
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

/** ioredis puts the command on its errors, passwords and session data and all, and error logs print it. */
function withoutArguments<T>(error: T): T {
  if (error instanceof Error && 'command' in error) Reflect.deleteProperty(error, 'command')
  return error
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

function unavailable(reason: string, cause?: unknown): SessionError {
  if (isSessionError(cause)) return cause
  return new SessionError('STORE_UNAVAILABLE', `Redis cannot be used: ${reason}`, { cause })
}
