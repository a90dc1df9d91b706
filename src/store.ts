// The contract of a session store. Three methods make a working one; the rest have defaults that are atomic within one
// process, and a store that several processes share overrides them to be atomic across processes.
import { SessionError } from './errors.js'
import {
  applyChange,
  applyRegeneration,
  applyTouch,
  type Regeneration,
  type SessionChange,
  type SessionData,
  type UpdateResult,
} from './session-data.js'

/** How many calls may wait for one session in the default methods before further ones are refused. */
const MAX_WAITING = 1000

/**
 * Where sessions are kept. Extend it and write `get`, `set` and `delete`; `sojourn/testing` has the suite that says
 * what the result guarantees.
 *
 * A store knows neither cookies nor requests. It treats fields as opaque text, never compares tokens and needs no
 * deadline of its own: the caller has one. A method that cannot reach its data rejects; a record that is there but
 * cannot be read rejects with `SessionError` code `CORRUPT_RECORD`; a record that is absent is `null`.
 */
export abstract class SessionStore {
  #waiting = new Map<string, { last: Promise<unknown>; count: number }>()

  /** The record of `id`, or `null` when there is none. An expired record may be returned: the caller checks times. */
  abstract get(id: string): Promise<SessionData | null>

  /** Writes the whole record, and lets it be forgotten after `ttlSeconds` (a whole number, at least 1). */
  abstract set(id: string, data: SessionData, ttlSeconds: number): Promise<void>

  /** Removes the record; nothing happens when there is none. */
  abstract delete(id: string): Promise<void>

  /** Whether there is a record of `id` that has not expired. */
  async exists(id: string): Promise<boolean> {
    const record = await this.#read(id)
    return record !== null && !record.isExpired()
  }

  /**
   * Moves the idle timeout to `ttlSeconds` from `now` (milliseconds, default: the present) without writing fields.
   * Resolves to `false`, and changes nothing, when there is no live record.
   */
  touch(id: string, ttlSeconds: number, now = Date.now()): Promise<boolean> {
    return this.#exclusively([id], async () => {
      const touched = applyTouch(await this.#read(id), ttlSeconds, now)
      if (touched === null) return false
      await this.set(id, touched, secondsLeft(touched, now))
      return true
    })
  }

  /** Removes expired records and resolves to their number. Default: nothing, for stores whose TTL does it. */
  async clearExpired(): Promise<number> {
    return 0
  }

  /** Writes a new record. Never overwrites: resolves to `false` when the ID is taken. */
  create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    return this.#exclusively([id], async () => {
      if ((await this.#read(id)) !== null) return false
      await this.set(id, data, ttlSeconds)
      return true
    })
  }

  /**
   * Applies a change to a live record of the same generation, field by field, in one atomic step. Never creates.
   * `ttlSeconds` is the time to `change.expiresAt`; a record whose own end is later keeps that.
   */
  update(id: string, change: SessionChange, _ttlSeconds: number): Promise<UpdateResult> {
    return this.#exclusively([id], async () => {
      const { result, record } = applyChange(await this.#read(id), change)
      if (result.status === 'updated' && record !== null) await this.set(id, record, secondsLeft(record, change.at))
      return result
    })
  }

  /**
   * Ends the session `id` and begins `regeneration.next` in its place, so that at every instant exactly one is live.
   * Resolves to the new record, `'ended'` when the old session was over, or `'taken'` when the new ID is in use.
   * The default is atomic towards calls in this process, but a crash between its two writes can leave both.
   */
  regenerate(
    id: string,
    regeneration: Regeneration,
    ttlSeconds: number,
  ): Promise<{ status: 'regenerated'; record: SessionData } | { status: 'ended' } | { status: 'taken' }> {
    const nextId = regeneration.next.id
    return this.#exclusively([id, nextId], async () => {
      const next = applyRegeneration(await this.#read(id), regeneration)
      if (next === null) return { status: 'ended' }
      if ((await this.#read(nextId)) !== null) return { status: 'taken' }
      await this.set(nextId, next, ttlSeconds)
      await this.delete(id)
      return { status: 'regenerated', record: next }
    })
  }

  /**
   * Ends a session for good: no `update`, `touch` or `regenerate` that began earlier brings it back. Resolves to whether
   * there was a record. The default waits for the calls on this session that are under way in this process.
   */
  end(id: string): Promise<boolean> {
    return this.#exclusively([id], async () => {
      const existed = (await this.#read(id).catch(existsThoughUnreadable)) !== null
      await this.delete(id)
      return existed
    })
  }

  /** Gives back what the store holds: connections, timers. Default: nothing. */
  async close(): Promise<void> {}

  /** What `get()` says, also when it says `undefined` for what it does not have, as a `Map` does. */
  async #read(id: string): Promise<SessionData | null> {
    return (await this.get(id)) ?? null
  }

  /** Runs `task` when no other task on any of `ids` is under way in this store instance. */
  async #exclusively<T>(ids: readonly string[], task: () => Promise<T>): Promise<T> {
    const queues = ids.map((id) => this.#queueOf(id))
    const before = Promise.all(queues.map((queue) => queue.last))
    const run = before.then(task)
    // Later tasks wait for the end of this one, whichever way it ends.
    const settled = run.then(ignore, ignore)
    for (const queue of queues) {
      queue.last = settled
      queue.count++
    }
    try {
      return await run
    } finally {
      for (const [index, queue] of queues.entries()) {
        queue.count--
        if (queue.count === 0) this.#waiting.delete(ids[index] as string)
      }
    }
  }

  #queueOf(id: string): { last: Promise<unknown>; count: number } {
    let queue = this.#waiting.get(id)
    if (queue === undefined) {
      queue = { last: Promise.resolve(), count: 0 }
      this.#waiting.set(id, queue)
    }
    if (queue.count >= MAX_WAITING) {
      throw new SessionError(
        'STORE_UNAVAILABLE',
        `${MAX_WAITING} calls already wait for one session; the store does not answer.`,
      )
    }
    return queue
  }
}

/** The whole seconds until a record ends, at least 1: the TTL that goes with it. */
export function secondsLeft(record: Pick<SessionData, 'expiresAt'>, now: number): number {
  return Math.max(1, Math.ceil((record.expiresAt - now) / 1000))
}

function existsThoughUnreadable(error: unknown): 'unreadable' {
  if (error instanceof Error && 'code' in error && error.code === 'CORRUPT_RECORD') return 'unreadable'
  throw error
}

function ignore(): void {}
