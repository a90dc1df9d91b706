// The sessions of each user: the list that knows them, the limit on their number, and the ends that come from both.
import { SessionError } from '../errors.js'
import type { SessionEvents } from '../events/events.js'
import { userKey } from '../ids.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import { isForLists } from '../record/hidden-fields.js'
import type { SessionData } from '../record/session-data.js'
import type { UserEntry, UserIndex } from '../record/user-index.js'
import { type Ending, type Endings, nameOf } from './endings.js'
import type { Epoch } from './epoch.js'
import { type GuardedStore, notSupported } from './guarded-store.js'
import { inParallel } from './in-parallel.js'
import type { LateWork } from './late-work.js'
import { CLOCK_SKEW_MS, type Expiry, type Times } from './times.js'

/** Rounds of making room in a user's list. */
const MAX_ROUNDS = 10

/** What became of a session that was to be stored: `'not stored'` when its ID is taken or the one before it has ended. */
export type Placement<T> =
  | { readonly status: 'stored'; readonly value: T }
  | { readonly status: 'not stored'; readonly value: T }
  /** Another login or a revocation has ended it in the meantime. */
  | { readonly status: 'evicted' }

/** A session that begins, and what the rules for its user depend on. */
export interface Arrival {
  readonly record: SessionData
  /** Whether somebody proved who they are, so that the user's limit applies. */
  readonly isLogin: boolean
  /** The session in whose place it comes. */
  readonly previous: SessionData | null
}

type UserOptions = Pick<
  ResolvedSessionOptions,
  'maxSessionsPerUser' | 'onSessionLimit' | 'storeTimeoutMs' | 'archive' | 'activity'
>

/** The sessions of users, on a store with an index of them; without one, what needs it is refused. */
export class Users {
  readonly #options: UserOptions
  readonly #store: GuardedStore
  readonly #times: Times
  readonly #epoch: Epoch
  readonly #endings: Endings
  readonly #events: SessionEvents
  readonly #late: LateWork
  readonly #isOver: (record: SessionData) => Expiry | SessionData['ended'] | null

  constructor(parts: {
    options: UserOptions
    store: GuardedStore
    times: Times
    epoch: Epoch
    endings: Endings
    events: SessionEvents
    late: LateWork
    endOf: (record: SessionData) => Expiry | SessionData['ended'] | null
  }) {
    this.#options = parts.options
    this.#store = parts.store
    this.#times = parts.times
    this.#epoch = parts.epoch
    this.#endings = parts.endings
    this.#events = parts.events
    this.#late = parts.late
    this.#isOver = parts.endOf
  }

  /** The live sessions of a user. What the list still names and is over is taken off it. */
  async sessionsOf(userId: string | number): Promise<SessionData[]> {
    const index = this.#index()
    const epoch = this.#epoch.refresh()
    const entries = await index.list(userKey(userId), this.#times.now())
    if (epoch !== null) await epoch
    const { live, dead } = await this.#sortOut(entries)
    await this.forget(userId, dead)
    return live.filter((record) => record.userId === userId)
  }

  /** Ends the sessions of a user, but for one. Resolves to how many that were. */
  async revoke(userId: string | number, except: string | undefined, ending: Ending): Promise<number> {
    const entries = await this.#index().evict(userKey(userId), { now: this.#times.now(), except })
    return this.#endEntries(userId, entries, async (id) => {
      const record = this.#options.activity && (await this.#store.get(id))
      const logicalId = record && record !== 'corrupt' ? record.logicalId : undefined
      const { hasEnded } = await this.#endings.end({ id, userId }, ending)
      if (hasEnded) this.#events.emit('revoked', { id, userId, logicalId, by: ending.by, detail: ending.detail })
      return hasEnded
    })
  }

  /**
   * Stores a session with its place in the list of its user's sessions. The place is taken before, so that no crash leaves
   * a session that the list does not know; what the list must then lose is ended after.
   */
  async place<T>(
    { record, isLogin, previous }: Arrival,
    store: () => Promise<{ readonly isStored: boolean; readonly value: T }>,
  ): Promise<Placement<T>> {
    const index = this.#store.users
    const { userId } = record
    const isSameUser = previous !== null && previous.userId === userId
    if (index === undefined || userId === undefined) {
      const { isStored, value } = await store()
      if (isStored && previous?.userId !== undefined) await this.forget(previous.userId, [previous.id])
      return { status: isStored ? 'stored' : 'not stored', value }
    }
    // One that replaces another of the same user makes them no more.
    const evicted = await this.#takePlace(index, record, isLogin && !isSameUser)
    const { isStored, value } = await store().catch((error) => {
      // If it is there, nobody will ever hold its token, and it must not count as one of the user's.
      this.#late.track(this.#endPlaced(record, userId, 'destroyed').catch(ignore))
      throw error
    })
    if (!isStored) {
      await this.forget(userId, [record.id])
      return { status: 'not stored', value }
    }
    // It is there, and the one before it is over: no fault may keep its token from the client now. What cannot be done is tried
    // again behind the response; the list knows of it until it is done.
    const remove = isSameUser ? [previous.id] : []
    const isSettled = await this.#orLater(true, () => this.#settle(index, record, remove))
    await this.#orLater(undefined, () => this.#endEvicted(record, userId, evicted))
    if (!isSameUser && previous?.userId !== undefined) await this.forget(previous.userId, [previous.id])
    return isSettled ? { status: 'stored', value } : { status: 'evicted' }
  }

  /** Does it now, or else once more when nobody waits for it; the failure has been told as an event. */
  async #orLater<T>(meanwhile: T, task: () => Promise<T>): Promise<T> {
    try {
      return await task()
    } catch {
      this.#late.track(task().catch(ignore))
      return meanwhile
    }
  }

  /** Says that a session is there. One that has been evicted meanwhile is ended, and `false` then. */
  async #settle(index: UserIndex, record: SessionData, remove: readonly string[]): Promise<boolean> {
    const userId = record.userId as string | number
    const isGood = await index.settle(userKey(userId), record.id, remove)
    if (isGood || (await this.#wentOn(record.id))) return true
    await this.#endPlaced(record, userId, 'limit')
    return false
  }

  /** Whether a session that is off its list has become another one, which has taken its place there as well. */
  async #wentOn(id: string): Promise<boolean> {
    const record = await this.#store.get(id, true)
    return record !== null && record !== 'corrupt' && record.ended?.reason === 'regenerated'
  }

  /** An entry must not be forgotten before its session ends. */
  async prolong(record: SessionData, endsAt: number): Promise<void> {
    const { id, userId, createdAt: since } = record
    if (this.#store.users === undefined || userId === undefined) return
    const entry: UserEntry = { id, since, endsAt, pendingUntil: 0, isEvicted: false }
    await this.#store.users.add(userKey(userId), entry, { now: this.#times.now() })
  }

  /** Takes sessions off a user's list. What is left there by a failure is found to be dead by whoever reads it next. */
  async forget(userId: string | number | undefined, ids: readonly string[]): Promise<void> {
    if (this.#store.users === undefined || userId === undefined || ids.length === 0) return
    // A failure has been told as an event.
    await this.#store.users.remove(userKey(userId), ids).catch(ignore)
  }

  /** Puts a session that is about to be stored on its user's list. Resolves to the entries that have to go for it. */
  async #takePlace(index: UserIndex, record: SessionData, isLimited: boolean): Promise<readonly UserEntry[]> {
    const { maxSessionsPerUser, onSessionLimit, storeTimeoutMs } = this.#options
    const userId = record.userId as string | number
    const now = this.#times.now()
    const entry: UserEntry = {
      id: record.id,
      since: record.createdAt,
      endsAt: record.absoluteExpiresAt,
      pendingUntil: now + 5 * storeTimeoutMs,
      isEvicted: false,
    }
    const max = isLimited ? maxSessionsPerUser : undefined
    let evictsOldest = false
    for (let round = 1; round <= MAX_ROUNDS; round++) {
      const added = await index.add(userKey(userId), entry, { now, max, evictsOldest }).catch((error) => {
        // If it is on the list, it must not take the place of the next attempt.
        this.#late.track(this.forget(userId, [record.id]))
        throw error
      })
      if (added.status === 'added') return added.evicted
      // Some of them may be over without the list knowing.
      const { dead } = await this.#sortOut(added.entries)
      if (dead.length > 0) await this.forget(userId, dead)
      else if (onSessionLimit === 'refuse') break
      else evictsOldest = true
    }
    this.#events.emit('limit', { ...nameOf(record), userId, outcome: 'refused', ended: [] })
    throw new SessionError(
      'SESSION_LIMIT',
      `This user has ${maxSessionsPerUser} sessions already: end one of them (sessionsOf(), revoke()) before the next login.`,
    )
  }

  /** Ends what had to go for a login. */
  async #endEvicted(login: SessionData, userId: string | number, entries: readonly UserEntry[]): Promise<void> {
    const ended: string[] = []
    try {
      await this.#endEntries(userId, entries, async (id) => {
        const { hasEnded } = await this.#endings.end({ id, userId }, { reason: 'limit' })
        if (hasEnded) ended.push(id)
        return hasEnded
      })
    } finally {
      if (ended.length > 0) this.#events.emit('limit', { ...nameOf(login), userId, outcome: 'ended-oldest', ended })
    }
  }

  async #endPlaced(record: SessionData, userId: string | number, reason: 'limit' | 'destroyed'): Promise<void> {
    const { ids } = await this.#endings.end(record, { reason })
    await this.forget(userId, ids)
  }

  /** The live sessions of a list, and the IDs of entries that stand for nothing: not even for one about to be stored. */
  async #sortOut(entries: readonly UserEntry[]): Promise<{ live: SessionData[]; dead: string[] }> {
    const now = this.#times.now()
    const live: SessionData[] = []
    const dead: string[] = []
    const records = await this.#loadAll(entries.map(({ id }) => id))
    await inParallel(entries, async ({ id, pendingUntil }) => {
      const record = records.get(id)
      const end = record && this.#isOver(record)
      if (record === undefined) {
        if (now >= pendingUntil) dead.push(id)
      } else if (!end) live.push(record)
      else if (record.ended || end.reason !== 'idle' || (await this.#isIdleForAll(record, end.at))) dead.push(id)
    })
    return { live, dead }
  }

  /** The records of these IDs that can be read, with no fields but those that lists need: a list must not take the memory of them all. */
  async #loadAll(ids: readonly string[]): Promise<Map<string, SessionData>> {
    const found = new Map<string, SessionData>()
    await inParallel(ids, async (id) => {
      const record = await this.#store.get(id, true)
      if (record !== null && record !== 'corrupt')
        found.set(id, record.with({ fields: [...record.fields].filter(([name]) => isForLists(name)) }))
    })
    return found
  }

  /**
   * Sees to it that a session which is idle for too long here is so for every process: one whose clock is behind could go on
   * with it, and it would be on no list then. Resolves to `false` if that cannot be said.
   */
  async #isIdleForAll(record: SessionData, at: number): Promise<boolean> {
    // What is to be archived keeps its fields until then.
    if (this.#options.archive !== undefined) return this.#times.now() - at >= CLOCK_SKEW_MS
    await this.#endings.expire(record, { reason: 'idle', at })
    return true
  }

  /** Ends the sessions of entries and takes them off the list. Resolves to how many ended; rejects if any could not. */
  async #endEntries(
    userId: string | number,
    entries: readonly UserEntry[],
    end: (id: string) => Promise<boolean>,
  ): Promise<number> {
    if (entries.length === 0) return 0
    const over: string[] = []
    const now = this.#times.now()
    let ended = 0
    try {
      await inParallel(entries, async ({ id, pendingUntil }) => {
        if (await end(id)) ended++
        // It may be stored yet, by a process that ends before it looks at the list.
        else if (now < pendingUntil) return
        over.push(id)
      })
    } finally {
      await this.forget(userId, over)
    }
    return ended
  }

  #index(): UserIndex {
    const { users } = this.#store
    if (users === undefined) throw notSupported('This needs a store with an index of users ("users")')
    return users
  }
}

function ignore(): void {}
