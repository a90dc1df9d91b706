// Sessions that this process has read, kept in memory for as long as they may be answered from there.
//
// An answer is never older than `maxAge`, whatever servers, networks and trackers do: a record is kept for so long from the moment
// in which Redis was asked for it. Within that, it goes as soon as a tracker tells that it has changed, or cannot be believed.
//
// A reading that overlaps a change is not kept. It has a ticket, which is good until something is told of its session, or this
// process writes to it.
import { type SessionData, unitsOfFields } from '../../../record/session-data.js'
import type { Watch } from './tracker.js'
import { type Servers, Trackers } from './trackers.js'

export interface NearCacheOptions {
  readonly maxAgeMs: number
  readonly maxBytes: number
  /** What the keys of sessions begin with, in Redis. */
  readonly prefix: string
  /** The key of a session, as the client is told it. */
  readonly keyOf: (id: string) => string
  readonly servers: Servers
  /** Called when a tracker is lost, or cannot begin. */
  readonly failed: (error: unknown) => void
  /**
   * By a clock that never goes back, in ms.
   * @default performance.now()
   */
  readonly now?: (() => number) | undefined
}

/** How a near cache fares. */
export interface NearCacheFacts {
  /** Reads answered from memory. */
  readonly hits: number
  /** Reads answered by Redis. */
  readonly misses: number
  /** How many sessions are in memory. */
  readonly sessions: number
  /** About how many bytes they take. */
  readonly bytes: number
  /** How old an answer may be, in ms, as the option says. */
  readonly maxAgeMs: number
  /** How many bytes they may take, as the option says. */
  readonly maxBytes: number
}

interface Entry {
  readonly record: SessionData
  readonly bytes: number
  readonly watch: Watch
  readonly until: number
  /** Written by this process just now: what is told of it may be that. */
  readonly isOwn: boolean
}

interface Ticket {
  readonly watch: Watch
  isGood: boolean
  readers: number
}

interface Writing {
  count: number
  /** Nothing else has been done to the session meanwhile. */
  isAlone: boolean
}

/** How long a record counts that this process has written itself, from when it was sent: until it is told what it has done. */
const OWN_WRITE_MS = 50
/** How long ago a tracker must have been proven alive, if `maxAge` is longer. */
const PROVEN_FOR_MS = 2_000
const HEARTBEAT_MS = 250
/** After so long without an answer the connection of a tracker is replaced. */
const SILENCE_MS = 3_000
/** What a record takes besides its fields, about. */
const ENTRY_BYTES = 1_000

export class NearCache {
  readonly #maxAgeMs: number
  readonly #maxBytes: number
  readonly #prefix: string
  readonly #keyOf: (id: string) => string
  readonly #now: () => number
  readonly #trackers: Trackers
  readonly #heartbeatMs: number
  /** From the one that was read longest ago. */
  readonly #entries = new Map<string, Entry>()
  readonly #tickets = new Map<string, Ticket>()
  readonly #writing = new Map<string, Writing>()
  #bytes = 0
  #hits = 0
  #misses = 0
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor({ maxAgeMs, maxBytes, prefix, keyOf, servers, failed, now }: NearCacheOptions) {
    this.#maxAgeMs = maxAgeMs
    this.#maxBytes = maxBytes
    this.#prefix = prefix
    this.#keyOf = keyOf
    this.#now = now ?? (() => performance.now())
    this.#heartbeatMs = Math.min(HEARTBEAT_MS, Math.ceil(maxAgeMs / 4))
    this.#trackers = new Trackers(servers, {
      changed: (keys) => this.#changed(keys),
      failed,
      now: this.#now,
      provenForMs: Math.min(maxAgeMs, PROVEN_FOR_MS),
      patience: Math.ceil(SILENCE_MS / this.#heartbeatMs),
    })
  }

  /** How it fares, and its bounds. */
  get facts(): NearCacheFacts {
    const fares = { hits: this.#hits, misses: this.#misses, sessions: this.#entries.size, bytes: this.#bytes }
    return { ...fares, maxAgeMs: this.#maxAgeMs, maxBytes: this.#maxBytes }
  }

  /** The record of a session, if memory may answer for it. */
  read(id: string): SessionData | undefined {
    const entry = this.#entries.get(id)
    if (entry === undefined) return undefined
    const now = this.#now()
    if (now >= entry.until || !entry.watch.isProven(now)) return undefined
    this.#hits++
    return entry.record
  }

  /** What Redis says, kept if nothing changes meanwhile. */
  async load(id: string, ask: () => Promise<SessionData | null>): Promise<SessionData | null> {
    this.#misses++
    const askedAt = this.#now()
    const ticket = this.#takeTicket(id, askedAt)
    if (ticket === null) return ask()
    try {
      const record = await ask()
      // The key may have moved to another server meanwhile, which nobody listens to yet.
      const isWatched = ticket.isGood && this.#trackers.watchOf(this.#keyOf(id)) === ticket.watch
      if (record !== null && isWatched) {
        this.#keep(id, { record, watch: ticket.watch, until: askedAt + this.#maxAgeMs, isOwn: false })
      }
      return record
    } finally {
      if (--ticket.readers === 0 && this.#tickets.get(id) === ticket) this.#tickets.delete(id)
    }
  }

  /**
   * A write of this process: nothing that was read before, or meanwhile, answers after it. `recordOf` is the record that it has
   * made, if that is known to be all that it made of what was there.
   */
  async write<T>(id: string, write: () => Promise<T>, recordOf?: (result: T) => SessionData | undefined): Promise<T> {
    const sentAt = this.#now()
    const writing = this.#writing.get(id) ?? { count: 0, isAlone: true }
    if (writing.count++ === 0) this.#writing.set(id, writing)
    else writing.isAlone = false
    this.#forget(id)
    let record: SessionData | undefined
    try {
      const result = await write()
      record = recordOf?.(result)
      return result
    } finally {
      this.#forget(id)
      if (--writing.count === 0) {
        this.#writing.delete(id)
        if (record !== undefined && writing.isAlone) this.#keepOwn(id, record, sentAt)
      }
    }
  }

  /** What is done now and then: asks the trackers whether they live, and drops what is too old. The timer calls it. */
  beat(): void {
    this.#trackers.beat()
    const now = this.#now()
    // The oldest come first; one of our own that lies behind them has a little more time to stay, not to count.
    for (const [id, { until }] of this.#entries) {
      if (now < until) break
      this.#drop(id)
    }
  }

  close(): void {
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#trackers.close()
    this.#changed(null)
  }

  // --- Tickets ---

  #takeTicket(id: string, now: number): Ticket | null {
    this.#start()
    if (this.#writing.has(id)) return null
    const known = this.#tickets.get(id)
    if (known !== undefined) {
      known.readers++
      return known
    }
    const watch = this.#trackers.watchOf(this.#keyOf(id))
    if (watch === null || !watch.isProven(now)) return null
    const ticket = { watch, isGood: true, readers: 1 }
    this.#tickets.set(id, ticket)
    return ticket
  }

  /** With the first reading: who reads nothing holds no connection. */
  #start(): void {
    if (this.#timer !== undefined || this.#isClosed) return
    this.#timer = setInterval(() => this.beat(), this.#heartbeatMs)
    this.#timer.unref()
    this.beat()
  }

  // --- What is told ---

  #changed(keys: readonly string[] | null): void {
    if (keys === null) {
      for (const ticket of this.#tickets.values()) ticket.isGood = false
      for (const writing of this.#writing.values()) writing.isAlone = false
      this.#tickets.clear()
      this.#entries.clear()
      this.#bytes = 0
      return
    }
    for (const key of keys) {
      const id = this.#idOf(key)
      if (id === null) continue
      this.#voidTicket(id)
      if (this.#entries.get(id)?.isOwn === false) this.#drop(id)
    }
  }

  #idOf(key: string): string | null {
    const open = this.#prefix.length
    const close = key.indexOf('}', open)
    if (close === -1 || key.charCodeAt(open) !== 123 /* { */ || !key.startsWith(this.#prefix)) return null
    return key.slice(open + 1, close) + key.slice(close + 1)
  }

  // --- Entries ---

  #keepOwn(id: string, record: SessionData, sentAt: number): void {
    const until = sentAt + Math.min(OWN_WRITE_MS, this.#maxAgeMs)
    const now = this.#now()
    const watch = now < until ? this.#trackers.watchOf(this.#keyOf(id)) : null
    if (watch !== null) this.#keep(id, { record, watch, until, isOwn: true })
  }

  #keep(id: string, entry: Omit<Entry, 'bytes'>): void {
    const bytes = ENTRY_BYTES + 2 * unitsOfFields(entry.record.fields)
    this.#drop(id)
    // Once closed, nobody would sweep it.
    if (bytes > this.#maxBytes || this.#isClosed) return
    this.#entries.set(id, { ...entry, bytes })
    this.#bytes += bytes
    for (const [oldest] of this.#entries) {
      if (this.#bytes <= this.#maxBytes) break
      this.#drop(oldest)
    }
  }

  #forget(id: string): void {
    this.#voidTicket(id)
    this.#drop(id)
  }

  #voidTicket(id: string): void {
    const ticket = this.#tickets.get(id)
    if (ticket === undefined) return
    ticket.isGood = false
    this.#tickets.delete(id)
  }

  #drop(id: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    this.#bytes -= entry.bytes
  }
}
