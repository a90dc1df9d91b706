// Sessions in the memory of one process: for development, tests and programs that run as a single process.
import { SessionError } from '../errors.js'
import { warn } from '../events.js'
import {
  applyChange,
  applyRegeneration,
  applyTouch,
  type Regeneration,
  type SessionChange,
  SessionData,
  type SessionDataInit,
  type UpdateResult,
} from '../session-data.js'
import { SessionStore } from '../store.js'

/** What `new MemorySessionStore()` takes. */
export interface MemorySessionStoreOptions {
  /**
   * How many sessions are kept. One more ends the least recently active session that has no user, or, when all have
   * one, the least recently active of all.
   * @default 100_000
   */
  maxSessions?: number
  /**
   * Seconds between clean-ups of expired sessions; `0` starts none. The timer does not keep the process alive.
   * @default 60
   */
  cleanupInterval?: number
  /**
   * Print one warning when NODE_ENV is "production".
   * @default true
   */
  warnInProduction?: boolean
  /**
   * The time in milliseconds since the epoch, for tests.
   * @default Date.now
   */
  clock?: () => number
}

/** One kept session, linked to its neighbours by activity. */
interface Entry {
  readonly id: string
  /** A record in use as it is; a small one that rests as one string, which takes half the memory. */
  kept: string | SessionData
  /** When the session is over, by whatever limit comes first: all that a clean-up looks at. */
  endsAt: number
  hasUser: boolean
  older: Entry | null
  newer: Entry | null
}

/** Entries from the least to the most recently active. */
class ActivityList {
  oldest: Entry | null = null
  newest: Entry | null = null

  append(entry: Entry): void {
    entry.older = this.newest
    entry.newer = null
    if (this.newest) this.newest.newer = entry
    else this.oldest = entry
    this.newest = entry
  }

  remove(entry: Entry): void {
    if (entry.older) entry.older.newer = entry.newer
    else this.oldest = entry.newer
    if (entry.newer) entry.newer.older = entry.older
    else this.newest = entry.older
    entry.older = null
    entry.newer = null
  }
}

/** How long one slice of a clean-up may block the event loop. */
const SLICE_MS = 2
const ENTRIES_BETWEEN_CLOCK_READS = 64
/** A timer set for longer would fire at once, and again and again. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/**
 * Keeps sessions in memory. Every operation is atomic, because nothing in it waits. What a caller gets is isolated from
 * what the store keeps: a copy, or a record that nobody can change.
 *
 * Sessions live in many small maps rather than one: a large `Map` stops the process for tens of milliseconds each time
 * it grows or shrinks.
 */
export class MemorySessionStore extends SessionStore {
  readonly #maxSessions: number
  readonly #cleanupIntervalMs: number
  readonly #clock: () => number
  readonly #shards = new Map<string, Map<string, Entry>>()
  readonly #anonymous = new ActivityList()
  readonly #withUser = new ActivityList()
  readonly #inUse = new Set<Entry>()
  #size = 0
  #timer: NodeJS.Timeout | undefined
  #sweep: Promise<number> | null = null

  /** @throws {SessionError} `INVALID_OPTION` when an option is not a number in its range. */
  constructor(options: MemorySessionStoreOptions = {}) {
    super()
    const { maxSessions = 100_000, cleanupInterval = 60, warnInProduction = true, clock = Date.now } = options
    if (!Number.isSafeInteger(maxSessions) || maxSessions < 1) {
      throw new SessionError(
        'INVALID_OPTION',
        `maxSessions is ${String(maxSessions)}; use a whole number of at least 1.`,
      )
    }
    if (!Number.isFinite(cleanupInterval) || cleanupInterval < 0) {
      throw new SessionError(
        'INVALID_OPTION',
        `cleanupInterval is ${String(cleanupInterval)}; use seconds, or 0 for none.`,
      )
    }
    this.#maxSessions = maxSessions
    this.#cleanupIntervalMs = Math.min(cleanupInterval * 1000, LONGEST_TIMER_MS)
    this.#clock = clock
    if (warnInProduction && process.env['NODE_ENV'] === 'production') {
      warn(
        'MemorySessionStore in production: sessions end with the process and are not shared between processes. ' +
          'Use RedisSessionStore, or set warnInProduction: false.',
        'memory_store',
      )
    }
    this.startCleanup()
  }

  /** How many sessions are kept, expired ones that no clean-up has met yet included. */
  get size(): number {
    return this.#size
  }

  async get(id: string): Promise<SessionData | null> {
    return this.#read(id)
  }

  async set(id: string, data: SessionData, _ttlSeconds: number): Promise<void> {
    this.#put(id, data)
  }

  async delete(id: string): Promise<void> {
    this.#drop(id)
  }

  override async exists(id: string): Promise<boolean> {
    const record = this.#read(id)
    return record !== null && !record.isExpired(this.#clock())
  }

  override async touch(id: string, ttlSeconds: number, now = this.#clock()): Promise<boolean> {
    const touched = applyTouch(this.#read(id), ttlSeconds, now)
    if (touched !== null) this.#put(id, touched)
    return touched !== null
  }

  override async create(id: string, data: SessionData, _ttlSeconds: number): Promise<boolean> {
    if (this.#find(id)) return false
    this.#put(id, data)
    return true
  }

  override async update(id: string, change: SessionChange, _ttlSeconds: number): Promise<UpdateResult> {
    const { result, record } = applyChange(this.#read(id), change)
    if (result.status === 'updated' && record !== null) this.#put(id, record)
    return result
  }

  override async regenerate(
    id: string,
    regeneration: Regeneration,
    _ttlSeconds: number,
  ): Promise<{ status: 'regenerated'; record: SessionData } | { status: 'ended' } | { status: 'taken' }> {
    const next = applyRegeneration(this.#read(id), regeneration)
    if (next === null) return { status: 'ended' }
    if (this.#find(next.id)) return { status: 'taken' }
    this.#drop(id)
    this.#put(next.id, next)
    return { status: 'regenerated', record: next }
  }

  override async end(id: string): Promise<boolean> {
    return this.#drop(id)
  }

  /**
   * Removes expired sessions, in slices of a few milliseconds with the event loop between them. Resolves to how many
   * were removed. A call during a clean-up joins it.
   */
  override clearExpired(): Promise<number> {
    this.#sweep ??= this.#sweepInSlices().finally(() => {
      this.#sweep = null
    })
    return this.#sweep
  }

  /** Ends every session at once. */
  clear(): void {
    this.#shards.clear()
    this.#inUse.clear()
    for (const list of [this.#anonymous, this.#withUser]) {
      list.oldest = null
      list.newest = null
    }
    this.#size = 0
  }

  /** Starts the periodic clean-up, if `cleanupInterval` allows one and it does not run. */
  startCleanup(): void {
    if (this.#timer || this.#cleanupIntervalMs === 0) return
    this.#timer = setInterval(() => void this.clearExpired(), this.#cleanupIntervalMs)
    this.#timer.unref()
  }

  /** Stops the periodic clean-up. */
  stopCleanup(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  override async close(): Promise<void> {
    this.stopCleanup()
  }

  async #sweepInSlices(): Promise<number> {
    const now = this.#clock()
    let removed = 0
    let seen = 0
    let sliceEnd = performance.now() + SLICE_MS
    for (const shard of this.#shards.values()) {
      // Keys, not entries: a pair for each session would be garbage to collect on the way.
      for (const id of shard.keys()) {
        if (now >= (shard.get(id)?.endsAt ?? Number.POSITIVE_INFINITY)) {
          this.#drop(id)
          removed++
        }
        seen++
        if (seen % ENTRIES_BETWEEN_CLOCK_READS === 0 && performance.now() >= sliceEnd) {
          await new Promise(setImmediate)
          sliceEnd = performance.now() + SLICE_MS
        }
      }
    }
    return removed
  }

  #find(id: string): Entry | undefined {
    return this.#shards.get(shardOf(id))?.get(id)
  }

  #read(id: string): SessionData | null {
    const entry = this.#find(id)
    if (entry === undefined) return null
    if (typeof entry.kept === 'string') this.#keepInUse(entry, unpack(id, entry.kept))
    return entry.kept as SessionData
  }

  /** Keeps a record as it is, and puts the one that has been so for longest to rest. */
  #keepInUse(entry: Entry, record: SessionData): void {
    entry.kept = record
    this.#inUse.add(entry)
    if (this.#inUse.size <= MAX_IN_USE) return
    const [longest] = this.#inUse
    if (!longest) return
    this.#inUse.delete(longest)
    longest.kept = pack(longest.kept as SessionData) ?? longest.kept
  }

  #put(id: string, record: SessionData): void {
    let entry = this.#find(id)
    if (entry) this.#listOf(entry).remove(entry)
    else {
      if (this.#size >= this.#maxSessions) this.#evict()
      entry = { id, kept: '', endsAt: 0, hasUser: false, older: null, newer: null }
      const key = shardOf(id)
      let shard = this.#shards.get(key)
      if (!shard) {
        shard = new Map()
        this.#shards.set(key, shard)
      }
      shard.set(id, entry)
      this.#size++
    }
    this.#keepInUse(entry, record)
    entry.endsAt = endOf(record)
    entry.hasUser = record.userId !== undefined
    this.#listOf(entry).append(entry)
  }

  #drop(id: string): boolean {
    const slot = shardOf(id)
    const shard = this.#shards.get(slot)
    const entry = shard?.get(id)
    if (!shard || !entry) return false
    shard.delete(id)
    if (shard.size === 0) this.#shards.delete(slot)
    this.#listOf(entry).remove(entry)
    this.#inUse.delete(entry)
    this.#size--
    return true
  }

  #evict(): void {
    const victim = this.#anonymous.oldest ?? this.#withUser.oldest
    if (victim) this.#drop(victim.id)
  }

  #listOf(entry: Entry): ActivityList {
    return entry.hasUser ? this.#withUser : this.#anonymous
  }
}

/** How many records are kept as they are, ready to be handed out. */
const MAX_IN_USE = 1_000
/** Records with more characters of fields than this never rest as a string: packing copies every character. */
const PACKED_UP_TO = 4_096

function endOf({ expiresAt, absoluteExpiresAt, lastAccessedAt, idleTimeoutMs }: SessionData): number {
  return Math.min(expiresAt, absoluteExpiresAt, lastAccessedAt + (idleTimeoutMs ?? Number.POSITIVE_INFINITY))
}

/** The small numbers of a packed record: times count from creation, lengths are of names and texts in turn. */
type PackedHead = [
  tokenHash: string,
  generation: number,
  createdAt: number,
  times: [updatedAt: number, lastAccessedAt: number, expiresAt: number, absoluteExpiresAt: number],
  lengths: number[],
  rest?: Partial<Pick<SessionDataInit, 'previousToken' | 'idleTimeoutMs' | 'persistent' | 'userId'>>,
]

/** A record as one string, a JSON head, a line feed, and the fields; `null` when it is too large for that. */
function pack(record: SessionData): string | null {
  const { tokenHash, generation, createdAt, previousToken, idleTimeoutMs, persistent, userId } = record
  const parts: string[] = ['', '\n']
  const lengths: number[] = []
  let total = 0
  for (const [name, text] of record.fields) {
    parts.push(name, text)
    lengths.push(name.length, text.length)
    total += name.length + text.length
    if (total > PACKED_UP_TO) return null
  }
  const times = [record.updatedAt, record.lastAccessedAt, record.expiresAt, record.absoluteExpiresAt]
  const head: unknown[] = [tokenHash, generation, createdAt, times.map((time) => time - createdAt), lengths]
  const isPlain = previousToken === undefined && idleTimeoutMs === undefined && persistent === undefined
  if (!isPlain || userId !== undefined) head.push({ previousToken, idleTimeoutMs, persistent, userId })
  parts[0] = JSON.stringify(head)
  // join() makes one flat string; what is added up stays a tree of strings.
  return parts.join('')
}

function unpack(id: string, packed: string): SessionData {
  let at = packed.indexOf('\n')
  const head = JSON.parse(packed.slice(0, at)) as PackedHead
  const [tokenHash, generation, createdAt, [updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt], lengths] = head
  at++
  const fields: [string, string][] = []
  for (let index = 0; index < lengths.length; index += 2) {
    const middle = at + (lengths[index] as number)
    const end = middle + (lengths[index + 1] as number)
    fields.push([packed.slice(at, middle), packed.slice(middle, end)])
    at = end
  }
  return new SessionData({
    ...head[5],
    id,
    tokenHash,
    generation,
    createdAt,
    updatedAt: createdAt + updatedAt,
    lastAccessedAt: createdAt + lastAccessedAt,
    expiresAt: createdAt + expiresAt,
    absoluteExpiresAt: createdAt + absoluteExpiresAt,
    fields,
  })
}

/** 256 shards: a million sessions make about 4,000 a shard. */
function shardOf(id: string): string {
  return id.slice(0, 2)
}
