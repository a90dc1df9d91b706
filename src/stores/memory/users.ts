// Which sessions each user has, for the memory store.
import { SessionError } from '../../errors.js'
import type { UserEntry, UserIndex } from '../../record/user-index.js'
import { FIRST_ROW, KeyedRows, NONE } from './keyed-rows.js'
import { LIST_COLUMNS, RowLists } from './row-lists.js'
import type { Slices } from './slices.js'

/** Number columns of an entry; its integer columns are the links of its user's list. */
const SINCE = 0
const ENDS_AT = 1
const PENDING_UNTIL = 2
const IS_EVICTED = 3

/** What the index asks of the store that it belongs to. */
export interface MemoryUserIndexOptions {
  /** How many entries there may be, of all users together. */
  readonly maxEntries: number
  /** Whether the store keeps a session. */
  readonly hasSession: (id: string) => boolean
}

/** The user index of `MemorySessionStore`. Every operation is atomic, because nothing in it waits. */
export class MemoryUserIndex implements UserIndex {
  readonly #maxEntries: number
  readonly #hasSession: (id: string) => boolean
  /** By session ID, newest first: no caller of ours makes one session of several users. */
  readonly #entries: KeyedRows
  /** The entries of each user, from the oldest to the newest. A user has at least one. */
  readonly #users: RowLists

  constructor({ maxEntries, hasSession }: MemoryUserIndexOptions) {
    this.#maxEntries = maxEntries
    this.#hasSession = hasSession
    this.#entries = new KeyedRows({ expected: maxEntries, integerColumns: LIST_COLUMNS, numberColumns: 4 })
    this.#users = new RowLists(this.#entries, maxEntries)
  }

  /** How many entries there are. */
  get size(): number {
    return this.#entries.size
  }

  /** How many users have an entry. */
  get users(): number {
    return this.#users.size
  }

  /** @throws {SessionError} `STORE_UNAVAILABLE` when the entries of sessions that never came fill the index. */
  async add(...[user, entry, options]: Parameters<UserIndex['add']>): ReturnType<UserIndex['add']> {
    const { now, max = Number.POSITIVE_INFINITY, evictsOldest = false } = options
    this.#prune(user, now)
    const rows = this.#rowsOf(user)
    const present = this.#find(user, entry.id)
    const active = rows.filter((row) => row !== present && !this.#isEvicted(row))
    const excess = active.length + (entry.isEvicted ? 0 : 1) - max
    if (excess > 0 && !evictsOldest) return { status: 'full', entries: this.#entriesOf(user) }
    if (this.#entries.size >= this.#maxEntries && this.#entries.find(entry.id) === NONE) {
      throw new SessionError(
        'STORE_UNAVAILABLE',
        `The memory store has ${this.#maxEntries} logins, most of them unfinished; it takes no more until its clean-up.`,
      )
    }

    if (excess > 0) {
      active.sort((a, b) => this.#entries.number(a, SINCE) - this.#entries.number(b, SINCE))
      for (const row of active.slice(0, excess)) this.#markEvicted(row)
    }
    this.#put(user, entry)
    const evicted = rows.filter((row) => row !== present && this.#isEvicted(row))
    return { status: 'added', evicted: evicted.map((row) => this.#entryOf(row)) }
  }

  async settle(user: string, id: string, remove: readonly string[] = []): Promise<boolean> {
    const row = this.#find(user, id)
    const isGood = row !== NONE && !this.#isEvicted(row)
    if (isGood) this.#entries.setNumber(row, PENDING_UNTIL, 0)
    await this.remove(user, remove)
    return isGood
  }

  async list(user: string, now: number): Promise<readonly UserEntry[]> {
    this.#prune(user, now)
    return this.#entriesOf(user)
  }

  async evict(...[user, { now, except }]: Parameters<UserIndex['evict']>): ReturnType<UserIndex['evict']> {
    this.#prune(user, now)
    for (const row of this.#rowsOf(user)) if (this.#entries.keyOf(row) !== except) this.#markEvicted(row)
    return this.#entriesOf(user).filter(({ isEvicted }) => isEvicted)
  }

  async remove(user: string, ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const row = this.#find(user, id)
      if (row !== NONE) this.#drop(row)
    }
  }

  /** Removes the entries of a session that is no longer kept. */
  forget(id: string): void {
    for (let row = this.#entries.find(id); row !== NONE; row = this.#entries.find(id)) this.#drop(row)
  }

  /** Removes the entries of sessions that never came, once they cannot come any more. The others go with their session. */
  async clearStale(now: number, slices: Slices): Promise<void> {
    for (let row = FIRST_ROW; row < this.#entries.endRow; row++) {
      if (this.#entries.has(row)) this.#clearIfStale(row, now)
      if (slices.isOver()) await slices.next()
    }
  }

  clear(): void {
    this.#entries.clear()
    this.#users.clear()
  }

  #clearIfStale(row: number, now: number): void {
    const pendingUntil = this.#entries.number(row, PENDING_UNTIL)
    const isStale = now >= this.#entries.number(row, ENDS_AT) || (pendingUntil > 0 && now >= pendingUntil)
    if (isStale && !this.#hasSession(this.#entries.keyOf(row))) {
      this.#drop(row)
      return
    }
    this.#entries.tidy(row)
    this.#users.tidy(this.#users.listOf(row))
  }

  #rowsOf(user: string): number[] {
    const rows: number[] = []
    const list = this.#users.find(user)
    if (list === NONE) return rows
    for (let row = this.#users.oldest(list); row !== NONE; row = this.#users.newer(row)) rows.push(row)
    return rows
  }

  #entriesOf(user: string): UserEntry[] {
    return this.#rowsOf(user).map((row) => this.#entryOf(row))
  }

  #entryOf(row: number): UserEntry {
    return {
      id: this.#entries.keyOf(row),
      since: this.#entries.number(row, SINCE),
      endsAt: this.#entries.number(row, ENDS_AT),
      pendingUntil: this.#entries.number(row, PENDING_UNTIL),
      isEvicted: this.#isEvicted(row),
    }
  }

  #isEvicted(row: number): boolean {
    return this.#entries.number(row, IS_EVICTED) === 1
  }

  #markEvicted(row: number): void {
    this.#entries.setNumber(row, IS_EVICTED, 1)
  }

  #find(user: string, id: string): number {
    const list = this.#users.find(user)
    let row = list === NONE ? NONE : this.#entries.find(id)
    while (row !== NONE && this.#users.listOf(row) !== list) row = this.#entries.findNext(row)
    return row
  }

  #prune(user: string, now: number): void {
    for (const row of this.#rowsOf(user)) if (now >= this.#entries.number(row, ENDS_AT)) this.#drop(row)
  }

  #put(user: string, { id, since, endsAt, pendingUntil, isEvicted }: UserEntry): void {
    let row = this.#find(user, id)
    if (row === NONE) {
      const present = this.#users.find(user)
      const list = present === NONE ? this.#users.add(user) : present
      row = this.#entries.add(id)
      this.#users.append(list, row)
    }
    this.#entries.setNumber(row, SINCE, since)
    this.#entries.setNumber(row, ENDS_AT, endsAt)
    this.#entries.setNumber(row, PENDING_UNTIL, pendingUntil)
    this.#entries.setNumber(row, IS_EVICTED, Number(isEvicted))
  }

  #drop(row: number): void {
    const list = this.#users.listOf(row)
    this.#users.remove(row)
    if (this.#users.oldest(list) === NONE) this.#users.delete(list)
    this.#entries.delete(row)
  }
}
