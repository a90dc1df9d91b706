// The contract of a session store. Three methods make a working one; the rest have defaults that are atomic within one
// process, and a store that several processes share overrides them to be atomic across processes.
import { SessionError } from '../errors.js'
import { Recent } from '../recent.js'
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
} from './changes.js'
import type { SessionLimits } from './limits.js'
import type { SessionNotes } from './notes.js'
import type { SessionData, SessionEnd } from './session-data.js'

/** What a store may be able to do beyond keeping sessions: the optional members of `SessionStore`. */
export type StoreAbility = 'scan' | 'users' | 'epoch' | 'lease' | 'notes' | 'signals'

const ABILITIES: readonly StoreAbility[] = ['scan', 'users', 'epoch', 'lease', 'notes', 'signals']

/** Which abilities a store has. */
export function abilitiesOf(store: SessionStore): StoreAbility[] {
  return ABILITIES.filter((ability) => store[ability] !== undefined)
}

import type { SessionSignals } from './signals.js'
import type { UserIndex } from './user-index.js'

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
  readonly #made = new Recent<true>()

  /**
   * The record of `id`, or `null` when there is none. A record that has expired, or the tombstone of one that was ended,
   * may be returned: the caller checks.
   *
   * No record that is worth loading is larger than `bounds`: bytes as they are stored, and number of fields. A store that
   * can tell how large one is before it loads it, or takes it apart, rejects with `CORRUPT_RECORD` instead, and spares
   * everybody the wait. One that cannot may ignore them: the caller looks at what it gets.
   */
  abstract get(id: string, bounds?: SessionLimits): Promise<SessionData | null>

  /**
   * Writes the whole record, and lets it be forgotten after `ttlSeconds` (a whole number, at least 1). That may be
   * later than the record's own end: until then its end can be told, and the record archived.
   */
  abstract set(id: string, data: SessionData, ttlSeconds: number): Promise<void>

  /** Removes the record; nothing happens when there is none. */
  abstract delete(id: string): Promise<void>

  /** Whether there is a record of `id` that is not over. */
  async exists(id: string): Promise<boolean> {
    const record = await this.#read(id)
    return record !== null && !record.isExpired()
  }

  /**
   * Moves the idle timeout to `ttlSeconds` from `now` (milliseconds, default: the present) without writing fields.
   * The record is kept `retainSeconds` longer than it lives. Resolves to `false`, and changes nothing, when there is no
   * live record.
   */
  touch(id: string, ttlSeconds: number, now = Date.now(), retainSeconds = 0): Promise<boolean> {
    return this.#exclusively([id], async () => {
      const touched = applyTouch(await this.#read(id), ttlSeconds, now)
      if (touched === null) return false
      await this.set(id, touched, secondsLeft(touched, now) + retainSeconds)
      return true
    })
  }

  /** Removes records whose time to be forgotten has come, and resolves to their number. Default: nothing, a TTL does it. */
  async clearExpired(): Promise<number> {
    return 0
  }

  /**
   * Writes a new record. Never overwrites: resolves to `false` when the ID is taken. The default reads first only where this
   * process has lately made a session of that ID: no other has made up the same UUID. What has not begun at `notAfter` is not
   * done any more: see `requireInTime()`.
   */
  create(id: string, data: SessionData, ttlSeconds: number, notAfter?: number): Promise<boolean> {
    return this.#exclusively([id], async () => {
      if (await this.#isTaken(id)) return false
      requireInTime('create', notAfter)
      await this.set(id, data, ttlSeconds)
      return true
    })
  }

  /**
   * Applies a change to a live record of the same generation, field by field, in one atomic step. Never creates, and never
   * makes a session larger than `change.limits`: that is decided in the same step, on what is stored then.
   * The record is kept for `ttlSeconds`, or as long as it lives when that is longer.
   */
  update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return this.#exclusively([id], async () => {
      const { result, record } = applyChange(await this.#read(id), change)
      if (result.status === 'updated' && record !== null) {
        await this.set(id, record, Math.max(ttlSeconds, secondsLeft(record, change.at)))
      }
      return result
    })
  }

  /**
   * Ends the session `id` and begins `regeneration.next` in its place, so that at every instant exactly one is live. The
   * old one leaves a tombstone that names its successor. The default is atomic towards calls in this process, but a crash
   * between its two writes can leave both. What has not begun at `regeneration.notAfter` is not done any more.
   */
  regenerate(id: string, regeneration: Regeneration, ttlSeconds: number): Promise<RegenerateResult> {
    const nextId = regeneration.next.id
    return this.#exclusively([id, nextId], async () => {
      const record = await this.#read(id)
      const result = applyRegeneration(record, regeneration)
      if (record === null || result.status !== 'regenerated') return result
      if (await this.#isTaken(nextId)) return { status: 'taken' }
      requireInTime('regenerate', regeneration.notAfter)
      await this.set(nextId, result.record, ttlSeconds)
      await this.set(id, applyEnd(record, endOfRegenerated(regeneration)), regeneration.tombstoneSeconds)
      return result
    })
  }

  /**
   * Ends a session for good: no `update`, `touch` or `regenerate` that began earlier brings it back. A record that was not
   * ended yet, expired ones included, becomes a tombstone for `tombstoneSeconds`; one that cannot be read is removed. The
   * default waits for the calls on this session that are under way in this process.
   */
  end(id: string, ended: SessionEnd, tombstoneSeconds: number): Promise<EndResult> {
    return this.#exclusively([id], async () => {
      const record = await this.#read(id).catch(unreadable)
      if (record === 'unreadable') {
        await this.delete(id)
        return { status: 'ended' }
      }
      if (record === null || record.ended) return { status: 'over', successor: record?.ended?.successor }
      await this.set(id, applyEnd(record, ended), tombstoneSeconds)
      return { status: 'ended' }
    })
  }

  // --- Abilities: what a store may add. Without one, what needs it is refused when it is asked for. ---

  /**
   * Every record, expired ones and tombstones included, in no order. One that is made, ended or replaced meanwhile may be
   * missed or come twice; one that cannot be read, or is larger than `bounds`, is passed over. What may take long until it finds one calls `progress`
   * on its way, or the caller takes it for a store that does not answer.
   */
  scan?(progress?: () => void, bounds?: SessionLimits): AsyncIterable<SessionData>

  /** Which sessions a user has. */
  readonly users?: UserIndex

  /**
   * How often all sessions have been revoked, from 0. With `atLeast` the number first becomes that, if it was less. The
   * number never goes back and never expires.
   */
  epoch?(atLeast?: number): Promise<number>

  /**
   * Takes a lease for `ttlMs`, or prolongs it, unless another owner has it. Resolves to whether `owner` has it now.
   */
  lease?(name: string, owner: string, ttlMs: number): Promise<boolean>

  /** Small texts with a time to live, beside the sessions. */
  readonly notes?: SessionNotes

  /** Short texts that all processes on the same data hear. */
  readonly signals?: SessionSignals

  /**
   * As `get()`, from where the sessions are. Only a store has it that may answer `get()` from a copy of its own, at once: whoever
   * must know asks this.
   */
  readonly getFresh?: ((id: string, bounds?: SessionLimits) => Promise<SessionData | null>) | undefined

  /**
   * Calls `listener` for each live session that the store forgets to make room for others; returns what stops that. Only a store
   * that forgets has it. A listener must not throw.
   */
  onForgotten?(listener: (session: ForgottenSession) => void): () => void

  /** Gives back what the store holds: connections, timers. Default: nothing. */
  async close(): Promise<void> {}

  /** Whether one of the default methods is at work on this session in this store instance, or waits to be. */
  protected isAtWorkOn(id: string): boolean {
    return this.#waiting.has(id)
  }

  /** What `get()` says, also when it says `undefined` for what it does not have, as a `Map` does. */
  async #read(id: string): Promise<SessionData | null> {
    return (await this.get(id)) ?? null
  }

  async #isTaken(id: string): Promise<boolean> {
    const isTaken = this.#made.get(id) === true && (await this.#read(id)) !== null
    this.#made.set(id, true)
    return isTaken
  }

  /** Runs `task` when no other task on any of `ids` is under way in this store instance. */
  async #exclusively<T>(ids: readonly string[], task: () => Promise<T>): Promise<T> {
    const others = ids.flatMap((id) => this.#lastOf(id) ?? [])
    const run = (others.length === 0 ? DONE : Promise.all(others)).then(task)
    for (const id of ids) this.#enter(id, run)
    try {
      return await run
    } finally {
      for (const id of ids) this.#leave(id)
    }
  }

  #enter(id: string, run: Promise<unknown>): void {
    const queue = this.#waiting.get(id)
    if (queue === undefined) this.#waiting.set(id, { last: run, count: 1 })
    else {
      queue.last = run
      queue.count++
    }
  }

  #leave(id: string): void {
    const queue = this.#waiting.get(id)
    if (queue !== undefined && --queue.count === 0) this.#waiting.delete(id)
  }

  /** The end of the last task on this session, whichever way it ends. */
  #lastOf(id: string): Promise<unknown> | undefined {
    const queue = this.#waiting.get(id)
    if (queue === undefined) return undefined
    if (queue.count >= MAX_WAITING) {
      throw new SessionError(
        'STORE_UNAVAILABLE',
        `${MAX_WAITING} calls already wait for one session; the store does not answer.`,
      )
    }
    return queue.last.then(ignore, ignore)
  }
}

/**
 * Refuses what its caller does not wait for any more. The client of a login that is done after it was answered with 503 would
 * be logged out: its old token opens nothing then, and nobody has told it the new one. A store in another process compares with
 * the clock over there, in the step that writes.
 *
 * @param notAfter by `performance.now()`; `undefined`: whenever
 * @throws {SessionError} `STORE_TIMEOUT` when it is too late: nothing has been done, and nothing may be
 */
export function requireInTime(operation: string, notAfter: number | undefined): void {
  if (notAfter !== undefined && performance.now() >= notAfter) throw cameTooLate(operation)
}

export function cameTooLate(operation: string): SessionError {
  return new SessionError(
    'STORE_TIMEOUT',
    `"${operation}" came to the session store after its deadline, and was not done.`,
  )
}

/** What is told of a session that a store has forgotten. */
export type ForgottenSession = Pick<SessionData, 'id' | 'userId' | 'logicalId'>

/** The whole seconds until a record ends, at least 1: the TTL that goes with it. */
export function secondsLeft(record: Pick<SessionData, 'expiresAt'>, now: number): number {
  return Math.max(1, Math.ceil((record.expiresAt - now) / 1000))
}

function unreadable(error: unknown): 'unreadable' {
  if (error instanceof Error && 'code' in error && error.code === 'CORRUPT_RECORD') return 'unreadable'
  throw error
}

function ignore(): void {}

const DONE: Promise<unknown> = Promise.resolve()
