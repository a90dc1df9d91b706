// Sessions in the memory of one process: for development, tests and programs that run as a single process.
import { totalmem } from 'node:os'
import { getHeapStatistics } from 'node:v8'
import { SessionError } from '../errors.js'
import { answersAtOnce } from '../record/at-once.js'
import {
  applyChange,
  applyEnd,
  applyRegeneration,
  applyTouch,
  type EndResult,
  endOfRegenerated,
  type RegenerateResult,
  type Regeneration,
  type SessionChange,
  type UpdateResult,
} from '../record/changes.js'
import type { SessionNotes } from '../record/notes.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import type { SessionSignals } from '../record/signals.js'
import { type ForgottenSession, requireInTime, SessionStore, secondsLeft } from '../record/store.js'
import type { UserIndex } from '../record/user-index.js'
import { warn } from '../warn.js'
import { FIRST_ROW, KeyedRows, NONE } from './memory/keyed-rows.js'
import { MemoryNotes } from './memory/notes.js'
import { pack, unpack } from './memory/packed-record.js'
import { LIST_COLUMNS, RowLists } from './memory/row-lists.js'
import { memorySignals } from './memory/signals.js'
import { Slices } from './memory/slices.js'
import { TextSlabs } from './memory/text-slabs.js'
import { MemoryUserIndex } from './memory/users.js'

/** What `new MemorySessionStore()` takes. */
export interface MemorySessionStoreOptions {
  /**
   * How many sessions are kept. One more makes the store forget one: the one that ended longest ago, else the least
   * recently used one that has no user, else the least recently used of all.
   * @default 100_000
   */
  maxSessions?: number | undefined
  /**
   * How many bytes all sessions together may take, about. When they would take more, the store forgets as many as it must, in
   * the same order as beyond `maxSessions`; the one that is being written always stays.
   * @default a quarter of what the heap may grow to, or of the machine's memory when that is less
   */
  maxBytes?: number
  /**
   * Seconds between clean-ups of expired sessions; `0` starts none. The timer does not keep the process alive.
   * @default 60
   */
  cleanupInterval?: number | undefined
  /**
   * Print one warning when NODE_ENV is "production".
   * @default true
   */
  warnInProduction?: boolean | undefined
  /**
   * The time in milliseconds since the epoch, for tests.
   * @default `Date.now()`, looked up each time
   */
  clock?: (() => number) | undefined
}

/** Number columns of a session; its integer columns are the links of its list by recency. */
const FORGET_AT = 0
/** Where the text of its record is, or `NONE`: then the record is loaded. */
const TEXT_AT = 1
/** About what it takes, in bytes. */
const BYTES = 2

interface RecencyLists {
  readonly ended: number
  readonly anonymous: number
  readonly withUser: number
}

/** A record that is kept as it is: in use, or too large to rest as a text. */
interface Loaded {
  readonly id: string
  readonly row: number
  record: SessionData
}

/** A timer set for longer would fire at once, and again and again. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/**
 * Keeps sessions in memory. Every operation is atomic, because nothing in it waits. What a caller gets is isolated from
 * what the store keeps: a copy, or a record that nobody can change.
 */
export class MemorySessionStore extends SessionStore {
  override readonly users: UserIndex
  override readonly notes: SessionNotes
  override readonly signals: SessionSignals = memorySignals()
  readonly #maxSessions: number
  readonly #maxBytes: number
  readonly #listeners = new Set<(session: ForgottenSession) => void>()
  /** About what all sessions take. */
  #bytes = 0
  readonly #cleanupIntervalMs: number
  readonly #clock: () => number
  readonly #users: MemoryUserIndex
  readonly #notes: MemoryNotes
  readonly #sessions: KeyedRows
  /** Sessions from the least to the most recently used, by what makes room first. */
  readonly #recency: RowLists
  #lists: RecencyLists
  /** The records that rest, as texts; of those in use, the ones that have not changed since. */
  #texts = new TextSlabs()
  readonly #loaded = new Map<string, Loaded>()
  /** Those that are loaded because they are in use. */
  readonly #inUse = new Set<Loaded>()
  readonly #leases = new Map<string, { readonly owner: string; readonly until: number }>()
  #epoch = 0
  #timer: NodeJS.Timeout | undefined
  #sweep: Promise<number> | null = null

  /** @throws {SessionError} `INVALID_OPTION` when an option is not a number in its range. */
  constructor(options: MemorySessionStoreOptions = {}) {
    super()
    const { maxSessions, maxBytes, cleanupInterval, warnInProduction, clock } = resolved(options)
    this.#maxSessions = maxSessions
    this.#maxBytes = maxBytes
    this.#cleanupIntervalMs = Math.min(cleanupInterval * 1000, LONGEST_TIMER_MS)
    this.#clock = clock
    this.#sessions = new KeyedRows({ expected: maxSessions, integerColumns: LIST_COLUMNS, numberColumns: 3 })
    this.#recency = new RowLists(this.#sessions, 3)
    this.#lists = this.#addLists()
    this.#users = new MemoryUserIndex({
      // A session that is there has one, and one that is about to be; further ones are logins that failed half way.
      maxEntries: 2 * maxSessions + MAX_PENDING,
      hasSession: (id) => this.#rowOf(id) !== NONE,
    })
    this.users = this.#users
    this.#notes = new MemoryNotes({ maxNotes: maxSessions + MAX_PENDING, clock: () => this.#clock() })
    this.notes = this.#notes
    if (warnInProduction && process.env['NODE_ENV'] === 'production') {
      warn(
        'MemorySessionStore in production: sessions end with the process and are not shared between processes. ' +
          'Use RedisSessionStore, or set warnInProduction: false.',
        'memory_store',
      )
    }
    this.startCleanup()
  }

  /** How many records are kept: of sessions, and of those that are over and not forgotten yet. */
  get size(): number {
    return this.#sessions.size
  }

  /** About how many bytes the records take. */
  get bytes(): number {
    return this.#bytes
  }

  override onForgotten(listener: (session: ForgottenSession) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  // A request waits for neither of these.
  static {
    answersAtOnce(MemorySessionStore.prototype.get, function (this: MemorySessionStore, id) {
      return this.#read(id)
    })
    answersAtOnce(MemorySessionStore.prototype.update, function (this: MemorySessionStore, id, change, ttlSeconds) {
      return this.#update(id, change, ttlSeconds)
    })
  }

  async get(id: string): Promise<SessionData | null> {
    return this.#read(id)
  }

  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    this.#put(id, data, ttlSeconds)
  }

  async delete(id: string): Promise<void> {
    this.#drop(id)
  }

  override async exists(id: string): Promise<boolean> {
    const record = this.#read(id)
    return record !== null && !record.isExpired(this.#clock())
  }

  override async touch(id: string, ttlSeconds: number, now = this.#clock(), retainSeconds = 0): Promise<boolean> {
    const touched = applyTouch(this.#read(id), ttlSeconds, now)
    if (touched !== null) this.#put(id, touched, secondsLeft(touched, now) + retainSeconds, this.#bytesOf(id))
    return touched !== null
  }

  override async create(id: string, data: SessionData, ttlSeconds: number, notAfter?: number): Promise<boolean> {
    if (this.#find(id) !== NONE) return false
    requireInTime('create', notAfter)
    this.#put(id, data, ttlSeconds)
    return true
  }

  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return this.#update(id, change, ttlSeconds)
  }

  #update(id: string, change: SessionChange, ttlSeconds: number): UpdateResult {
    const before = this.#read(id)
    const { result, record } = applyChange(before, change)
    if (result.status === 'updated' && record !== null && before !== null) {
      this.#put(id, record, ttlSeconds, this.#bytesOf(id) + growthBy(change, before, record))
    }
    return result
  }

  override async regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const record = this.#read(id)
    const result = applyRegeneration(record, regeneration)
    if (record === null || result.status !== 'regenerated') return result
    const next = result.record
    if (this.#find(next.id) !== NONE) return { status: 'taken' }
    requireInTime('regenerate', regeneration.notAfter)
    // First the tombstone: when the store is full, it makes room for the successor, and no other session does.
    this.#put(id, applyEnd(record, endOfRegenerated(regeneration)), regeneration.tombstoneSeconds)
    this.#put(next.id, next, ttlSeconds)
    return result
  }

  override async end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    const record = this.#read(id)
    if (record === null || record.ended) return { status: 'over', successor: record?.ended?.successor }
    this.#put(id, applyEnd(record, ended), tombstoneSeconds)
    return { status: 'ended' }
  }

  /** Reads in slices of a few milliseconds, with the event loop between them. */
  override async *scan(): AsyncGenerator<SessionData, void, undefined> {
    const slices = new Slices()
    for (let row = FIRST_ROW; row < this.#sessions.endRow; row++) {
      if (this.#sessions.has(row) && this.#clock() < this.#sessions.number(row, FORGET_AT)) yield this.#recordOf(row)
      if (slices.isOver()) await slices.next()
    }
  }

  override async epoch(atLeast = 0): Promise<number> {
    this.#epoch = Math.max(this.#epoch, atLeast)
    return this.#epoch
  }

  override async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    const now = this.#clock()
    const present = this.#leases.get(name)
    if (present && present.owner !== owner && now < present.until) return false
    this.#leases.set(name, { owner, until: now + ttlMs })
    return true
  }

  /**
   * Removes the records whose time has come, in slices of a few milliseconds with the event loop between them. Resolves
   * to how many were removed. A call during a clean-up joins it.
   */
  override clearExpired(): Promise<number> {
    this.#sweep ??= this.#sweepInSlices().finally(() => {
      this.#sweep = null
    })
    return this.#sweep
  }

  /** Forgets every session at once. What `epoch()` counts and the leases stay. */
  clear(): void {
    this.#sessions.clear()
    this.#recency.clear()
    this.#lists = this.#addLists()
    this.#bytes = 0
    this.#texts = new TextSlabs()
    this.#loaded.clear()
    this.#inUse.clear()
    this.#users.clear()
    this.#notes.clear()
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
    const slices = new Slices()
    let removed = 0
    for (let row = FIRST_ROW; row < this.#sessions.endRow; row++) {
      const isThere = this.#sessions.has(row)
      if (isThere && now >= this.#sessions.number(row, FORGET_AT)) {
        this.#remove(row)
        removed++
      } else if (isThere) this.#tidy(row)
      if (slices.isOver()) await slices.next()
    }
    await this.#users.clearStale(now, slices)
    this.#notes.clearStale(now)
    for (const [name, { until }] of this.#leases) if (now >= until) this.#leases.delete(name)
    return removed
  }

  #rowOf(id: string): number {
    return this.#loaded.get(id)?.row ?? this.#sessions.find(id)
  }

  /** The row of a session that is there and not forgotten, else `NONE`. */
  #find(id: string): number {
    const row = this.#rowOf(id)
    if (row === NONE || this.#clock() < this.#sessions.number(row, FORGET_AT)) return row
    this.#remove(row)
    return NONE
  }

  #read(id: string): SessionData | null {
    const row = this.#find(id)
    if (row === NONE) return null
    const loaded = this.#loaded.get(id)
    if (loaded) return loaded.record
    const record = this.#recordOf(row)
    // Those that are over are seldom asked for again.
    if (!record.ended) this.#keepInUse(this.#load(record.id, row, record))
    return record
  }

  #recordOf(row: number): SessionData {
    const id = this.#sessions.keyOf(row)
    const text = this.#sessions.number(row, TEXT_AT)
    return text === NONE ? (this.#loaded.get(id) as Loaded).record : unpack(id, this.#texts.get(text))
  }

  #load(id: string, row: number, record: SessionData): Loaded {
    const present = this.#loaded.get(id)
    if (present) {
      present.record = record
      return present
    }
    const loaded = { id, row, record }
    this.#loaded.set(id, loaded)
    return loaded
  }

  /** Keeps a record loaded, and puts the one that has been in use for longest to rest. */
  #keepInUse(loaded: Loaded): void {
    this.#inUse.add(loaded)
    if (this.#inUse.size <= MAX_IN_USE) return
    const [longest] = this.#inUse
    if (longest) this.#rest(longest)
  }

  #rest(loaded: Loaded): void {
    this.#inUse.delete(loaded)
    // One that was only read still has its text.
    if (this.#sessions.number(loaded.row, TEXT_AT) === NONE) {
      const text = pack(loaded.record)
      if (text === null) return
      this.#sessions.setNumber(loaded.row, TEXT_AT, this.#texts.add(text))
    }
    this.#loaded.delete(loaded.id)
  }

  #dropText(row: number): void {
    const text = this.#sessions.number(row, TEXT_AT)
    if (text !== NONE) this.#texts.delete(text)
    this.#sessions.setNumber(row, TEXT_AT, NONE)
  }

  #tidy(row: number): void {
    this.#sessions.tidy(row)
    const text = this.#sessions.number(row, TEXT_AT)
    if (text !== NONE) this.#sessions.setNumber(row, TEXT_AT, this.#texts.tidy(text))
  }

  #bytesOf(id: string): number {
    return this.#sessions.number(this.#rowOf(id), BYTES)
  }

  #put(id: string, record: SessionData, ttlSeconds: number, bytes = sizeInMemory(record)): void {
    let row = this.#find(id)
    if (row !== NONE) {
      this.#recency.remove(row)
      this.#bytes -= this.#sessions.number(row, BYTES)
    } else {
      if (this.#sessions.size >= this.#maxSessions) this.#evict()
      row = this.#sessions.add(id)
      this.#sessions.setNumber(row, TEXT_AT, NONE)
    }
    this.#recency.append(this.#listOf(record), row)
    this.#sessions.setNumber(row, FORGET_AT, Math.max(this.#clock() + ttlSeconds * 1000, endOf(record)))
    const loaded = this.#load(id, row, record)
    this.#dropText(row)
    if (record.ended) this.#rest(loaded)
    else this.#keepInUse(loaded)
    this.#sessions.setNumber(row, BYTES, bytes)
    this.#bytes += bytes
    while (this.#bytes > this.#maxBytes && this.#evict(row)) {}
  }

  #drop(id: string): void {
    const row = this.#rowOf(id)
    if (row !== NONE) this.#remove(row)
  }

  #remove(row: number): void {
    const id = this.#sessions.keyOf(row)
    const loaded = this.#loaded.get(id)
    if (loaded) {
      this.#loaded.delete(id)
      this.#inUse.delete(loaded)
    }
    this.#dropText(row)
    this.#recency.remove(row)
    this.#bytes -= this.#sessions.number(row, BYTES)
    this.#sessions.delete(row)
    this.#users.forget(id)
  }

  /** Forgets the session that is to go first, but not the one at `spared`. Returns whether there was one. */
  #evict(spared = NONE): boolean {
    const { ended, anonymous, withUser } = this.#lists
    for (const list of [ended, anonymous, withUser]) {
      // The spared one has just been used: it is the only one of its list, or not the oldest.
      const victim = this.#recency.oldest(list)
      if (victim === NONE || victim === spared) continue
      const forgotten = list === ended || this.#listeners.size === 0 ? null : this.#recordOf(victim)
      this.#remove(victim)
      if (forgotten && !forgotten.isExpired(this.#clock())) {
        const { id, userId, logicalId } = forgotten
        for (const tell of this.#listeners) tell({ id, userId, logicalId })
      }
      return true
    }
    return false
  }

  #listOf({ ended, userId }: SessionData): number {
    if (ended) return this.#lists.ended
    return userId === undefined ? this.#lists.anonymous : this.#lists.withUser
  }

  #addLists(): RecencyLists {
    const recency = this.#recency
    return { ended: recency.add('ended'), anonymous: recency.add('anonymous'), withUser: recency.add('with user') }
  }
}

/** @throws {SessionError} `INVALID_OPTION` */
function resolved({
  maxSessions = 100_000,
  maxBytes = defaultMaxBytes(),
  cleanupInterval = 60,
  warnInProduction = true,
  clock = () => Date.now(),
}: MemorySessionStoreOptions) {
  if (!Number.isSafeInteger(maxSessions) || maxSessions < 1) {
    throw new SessionError('INVALID_OPTION', `maxSessions is ${String(maxSessions)}; use a whole number of at least 1.`)
  }
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) {
    throw new SessionError('INVALID_OPTION', `maxBytes is ${String(maxBytes)}; use a whole number of at least 1.`)
  }
  if (!Number.isFinite(cleanupInterval) || cleanupInterval < 0) {
    throw new SessionError(
      'INVALID_OPTION',
      `cleanupInterval is ${String(cleanupInterval)}; use seconds, or 0 for none.`,
    )
  }
  return { maxSessions, maxBytes, cleanupInterval, warnInProduction, clock }
}

/** How many logins may be under way in a store that keeps few sessions. */
const MAX_PENDING = 1_000
/** How many records are kept as they are, ready to be handed out. */
const MAX_IN_USE = 1_000

/** What the store keeps of a session besides its fields: numbers, links, token hash, user and context. */
const RECORD_BYTES = 256
const FIELD_BYTES = 16

function sizeInMemory({ fields }: SessionData): number {
  let bytes = RECORD_BYTES
  for (const [name, text] of fields) bytes += fieldSize(name, text)
  return bytes
}

/** By how much a change has made a session larger: no text is looked at but those that it changes. */
function growthBy({ set, delete: removed }: SessionChange, before: SessionData, after: SessionData): number {
  let bytes = 0
  const look = (name: string): void => {
    bytes += fieldSize(name, after.fields.get(name)) - fieldSize(name, before.fields.get(name))
  }
  if (set) for (const name of set.keys()) look(name)
  if (removed?.length) for (const name of new Set(removed)) if (!set?.has(name)) look(name)
  return bytes
}

/** V8 keeps a character in one byte where all of a text are Latin-1, else in two; here those that are not ASCII count double. */
function fieldSize(name: string, text: string | undefined): number {
  if (text === undefined) return 0
  const width = Buffer.byteLength(text) === text.length ? 1 : 2
  return FIELD_BYTES + 2 * name.length + width * text.length
}

function defaultMaxBytes(): number {
  const heap = getHeapStatistics().heap_size_limit
  // What the container allows; 0 or more than there is when it says nothing.
  const allowed = process.constrainedMemory?.() || Number.POSITIVE_INFINITY
  return Math.floor(Math.min(heap, allowed, totalmem()) / 4)
}

/** When the session of a record is over, by whatever limit comes first. */
function endOf({ ended, expiresAt, absoluteExpiresAt, lastAccessedAt, idleTimeoutMs }: SessionData): number {
  if (ended) return 0
  return Math.min(expiresAt, absoluteExpiresAt, lastAccessedAt + (idleTimeoutMs ?? Number.POSITIVE_INFINITY))
}
