// Which sessions each user has, for the memory store.
import { SessionError } from '../errors.js'
import type { UserEntry, UserIndex } from '../store.js'
import { ShardedMap, type Slices } from './sharded-map.js'

/** An entry, linked to the others of its user. */
interface Link {
  readonly user: User
  entry: UserEntry
  older: Link | null
  newer: Link | null
  /** The entry of the same session under another user: no caller of ours makes one. */
  sameId: Link | null
}

/** A user with at least one entry. */
interface User {
  readonly key: string
  oldest: Link | null
  newest: Link | null
}

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
  readonly #users = new ShardedMap<User>(endOf)
  readonly #byId = new ShardedMap<Link>(beginningOf)

  constructor({ maxEntries, hasSession }: MemoryUserIndexOptions) {
    this.#maxEntries = maxEntries
    this.#hasSession = hasSession
  }

  /** How many entries there are, at most one a session but for those under several users. */
  get size(): number {
    return this.#byId.size
  }

  /** How many users have an entry. */
  get users(): number {
    return this.#users.size
  }

  /** @throws {SessionError} `STORE_UNAVAILABLE` when the entries of sessions that never came fill the index. */
  async add(...[user, entry, options]: Parameters<UserIndex['add']>): ReturnType<UserIndex['add']> {
    const { now, max = Number.POSITIVE_INFINITY, evictsOldest = false } = options
    this.#prune(user, now)
    const others = this.#links(user).filter((link) => link.entry.id !== entry.id)
    const active = others.filter((link) => !link.entry.isEvicted)
    const excess = active.length + (entry.isEvicted ? 0 : 1) - max
    if (excess > 0 && !evictsOldest) return { status: 'full', entries: this.#entries(user) }
    if (this.#byId.size >= this.#maxEntries && !this.#byId.get(entry.id)) {
      throw new SessionError(
        'STORE_UNAVAILABLE',
        `The memory store has ${this.#maxEntries} logins, most of them unfinished; it takes no more until its clean-up.`,
      )
    }

    if (excess > 0) {
      active.sort((a, b) => a.entry.since - b.entry.since)
      for (const link of active.slice(0, excess)) link.entry = copy(link.entry, { isEvicted: true })
    }
    this.#put(user, copy(entry))
    return { status: 'added', evicted: others.filter(isEvicted).map(entryOf) }
  }

  async settle(user: string, id: string, remove: readonly string[] = []): Promise<boolean> {
    const link = this.#find(user, id)
    const isGood = link !== null && !link.entry.isEvicted
    if (isGood) link.entry = copy(link.entry, { pendingUntil: 0 })
    await this.remove(user, remove)
    return isGood
  }

  async list(user: string, now: number): Promise<readonly UserEntry[]> {
    this.#prune(user, now)
    return this.#entries(user)
  }

  async evict(...[user, { now, except }]: Parameters<UserIndex['evict']>): ReturnType<UserIndex['evict']> {
    this.#prune(user, now)
    const links = this.#links(user)
    for (const link of links) {
      if (link.entry.id !== except && !link.entry.isEvicted) link.entry = copy(link.entry, { isEvicted: true })
    }
    return links.filter(isEvicted).map(entryOf)
  }

  async remove(user: string, ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const link = this.#find(user, id)
      if (link) this.#drop(link)
    }
  }

  /** Removes the entries of a session that is no longer kept. */
  forget(id: string): void {
    for (let link = this.#byId.get(id) ?? null; link; link = link.sameId) this.#drop(link)
  }

  /** Removes the entries of sessions that never came, once they cannot come any more. The others go with their session. */
  async clearStale(now: number, slices: Slices): Promise<void> {
    for (const shard of this.#byId.shards()) {
      for (const first of shard.values()) {
        for (let link: Link | null = first; link; link = link.sameId) {
          const { id, endsAt, pendingUntil } = link.entry
          const isStale = now >= endsAt || (pendingUntil > 0 && now >= pendingUntil)
          if (isStale && !this.#hasSession(id)) this.#drop(link)
        }
        if (slices.isOver(LINKS_BETWEEN_CLOCK_READS)) await slices.next()
      }
    }
  }

  clear(): void {
    this.#users.clear()
    this.#byId.clear()
  }

  #links(user: string): Link[] {
    const links: Link[] = []
    for (let link = this.#users.get(user)?.oldest ?? null; link; link = link.newer) links.push(link)
    return links
  }

  #entries(user: string): UserEntry[] {
    return this.#links(user).map(entryOf)
  }

  #find(user: string, id: string): Link | null {
    let link = this.#byId.get(id) ?? null
    while (link && link.user.key !== user) link = link.sameId
    return link
  }

  #prune(user: string, now: number): void {
    for (let link = this.#users.get(user)?.oldest ?? null; link; link = link.newer) {
      if (now >= link.entry.endsAt) this.#drop(link)
    }
  }

  #put(key: string, entry: UserEntry): void {
    const present = this.#find(key, entry.id)
    if (present) {
      present.entry = entry
      return
    }
    let user = this.#users.get(key)
    if (!user) {
      user = { key, oldest: null, newest: null }
      this.#users.set(key, user)
    }
    const link: Link = { user, entry, older: user.newest, newer: null, sameId: this.#byId.get(entry.id) ?? null }
    if (user.newest) user.newest.newer = link
    else user.oldest = link
    user.newest = link
    this.#byId.set(entry.id, link)
  }

  #drop(link: Link): void {
    const { user, entry, older, newer } = link
    if (older) older.newer = newer
    else user.oldest = newer
    if (newer) newer.older = older
    else user.newest = older
    if (!user.oldest) this.#users.delete(user.key)

    const first = this.#byId.get(entry.id)
    if (first !== link) {
      let before = first
      while (before && before.sameId !== link) before = before.sameId ?? undefined
      if (before) before.sameId = link.sameId
    } else if (link.sameId) this.#byId.set(entry.id, link.sameId)
    else this.#byId.delete(entry.id)
  }
}

/** How many links a clean-up looks at before it looks at the time. */
const LINKS_BETWEEN_CLOCK_READS = 64

/** A copy that nobody can change, so that it can be handed out. */
function copy(entry: UserEntry, members?: Partial<UserEntry>): UserEntry {
  const { id, since, endsAt, pendingUntil, isEvicted } = entry
  return Object.freeze({ id, since, endsAt, pendingUntil, isEvicted, ...members })
}

function isEvicted(link: Link): boolean {
  return link.entry.isEvicted
}

function entryOf(link: Link): UserEntry {
  return link.entry
}

/** Users by their last characters: what is put before them to tell kinds apart is the same for many. */
function endOf(user: string): string {
  return user.slice(-2)
}

function beginningOf(id: string): string {
  return id.slice(0, 2)
}
