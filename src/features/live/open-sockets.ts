// Sockets and streams that are open under a session, and what closes them: an ending, wherever it was, and a time that is over.
import type { SessionEvent } from '../../events/events.js'
import type { SessionManager } from '../../manager/manager.js'

/** How many sessions are asked about at a time. */
const ASKED_AT_ONCE = 50
/** How long until a store that did not answer is asked again. */
const RETRY_MS = 1_000
/** How long another process may take sessions for live after all were revoked: its second, and what its own clock is off. */
const REVOKED_WITHIN_MS = 1_100
/** Timers take no longer. */
const LONGEST_TIMER_MS = 2_147_483_647

/** One socket: the session that it belongs to now, and what closes it. */
interface OpenSocket {
  id: string
  readonly close: () => void
}

interface Entry {
  readonly sockets: Set<OpenSocket>
  /** When the session has to be asked about at the latest, in milliseconds since the epoch. */
  dueAt: number
}

export class OpenSockets {
  readonly #manager: SessionManager
  /** By session ID. */
  readonly #entries = new Map<string, Entry>()
  #timer: NodeJS.Timeout | undefined
  #timerAt = Number.POSITIVE_INFINITY
  #isStopped = false

  constructor(manager: SessionManager) {
    this.#manager = manager
  }

  /** `close` is called once, when the session is over. Returns what takes it back. */
  add(id: string, close: () => void): () => void {
    const socket: OpenSocket = { id, close }
    this.#entryOf(id).sockets.add(socket)
    // It may have ended between the request that opened the socket and now.
    void this.#ask([id])
    return () => {
      const entry = this.#entries.get(socket.id)
      if (entry?.sockets.delete(socket) && entry.sockets.size === 0) this.#entries.delete(socket.id)
    }
  }

  ended({ id, successor, goesOn }: Pick<SessionEvent<'ended'>, 'id' | 'successor' | 'goesOn'>): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    if (!goesOn || successor === undefined) {
      for (const { close } of entry.sockets) close()
      return
    }
    const next = this.#entryOf(successor)
    for (const socket of entry.sockets) {
      socket.id = successor
      next.sockets.add(socket)
    }
    void this.#ask([successor])
  }

  /** Asks about every session at hand. */
  askAll(): void {
    void this.#ask([...this.#entries.keys()])
  }

  /** All have been revoked, which a process may find out as late as this: asks about every session at hand then. */
  allRevoked(): void {
    const dueAt = Date.now() + REVOKED_WITHIN_MS
    for (const entry of this.#entries.values()) entry.dueAt = Math.min(entry.dueAt, dueAt)
    this.#wakeAt(dueAt)
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#entries.clear()
  }

  #entryOf(id: string): Entry {
    const known = this.#entries.get(id)
    if (known) return known
    const entry: Entry = { sockets: new Set(), dueAt: Number.POSITIVE_INFINITY }
    this.#entries.set(id, entry)
    return entry
  }

  async #ask(ids: readonly string[]): Promise<void> {
    for (let index = 0; index < ids.length; index += ASKED_AT_ONCE) {
      await Promise.all(ids.slice(index, index + ASKED_AT_ONCE).map((id) => this.#askOne(id)))
    }
  }

  async #askOne(id: string): Promise<void> {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    try {
      const found = await this.#manager.get(id)
      if (this.#entries.get(id) !== entry) return
      if (found === null) {
        // What it became, if it goes on under another ID, was told by the event; here it is only known to be over.
        this.ended({ id, successor: undefined, goesOn: false })
      } else entry.dueAt = found.expiresAt.getTime()
    } catch {
      // The store is away: nobody knows.
      entry.dueAt = Date.now() + RETRY_MS
    }
    this.#wakeAt(entry.dueAt)
  }

  /** One timer, for the session that is due first. */
  #wakeAt(dueAt: number): void {
    if (this.#isStopped || dueAt >= this.#timerAt) return
    clearTimeout(this.#timer)
    this.#timerAt = dueAt
    const delayMs = Math.min(Math.max(dueAt - Date.now(), 1), LONGEST_TIMER_MS)
    this.#timer = setTimeout(() => this.#askDue(), delayMs).unref()
  }

  #askDue(): void {
    const now = Date.now()
    const due: string[] = []
    let next = Number.POSITIVE_INFINITY
    for (const [id, entry] of this.#entries) {
      if (entry.dueAt <= now) due.push(id)
      else if (entry.dueAt < next) next = entry.dueAt
    }
    this.#timerAt = Number.POSITIVE_INFINITY
    this.#wakeAt(next)
    void this.#ask(due)
  }
}
