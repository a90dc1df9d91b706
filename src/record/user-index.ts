// Which sessions a user has: what a store promises of it.

/**
 * The sessions of each user: what finding, limiting and revoking them stands on. `user` is opaque text of letters, digits,
 * `-` and `_`; times are milliseconds since the epoch. Each method is one atomic step.
 */
export interface UserIndex {
  /**
   * Adds an entry, or replaces the one of that ID, after dropping those whose `endsAt` has come. `max` bounds how many
   * entries that are not evicted there may be then, the new one included. If there would be more, nothing is added
   * (`'full'`, with all entries); with `evictsOldest` the ones with the earliest `since` are marked as evicted instead, and
   * told together with those that were marked before.
   */
  add(
    user: string,
    entry: UserEntry,
    options: { readonly now: number; readonly max?: number | undefined; readonly evictsOldest?: boolean },
  ): Promise<
    | { readonly status: 'added'; readonly evicted: readonly UserEntry[] }
    | { readonly status: 'full'; readonly entries: readonly UserEntry[] }
  >
  /**
   * Says that the session of an entry exists now, and removes the entries `remove`. Resolves to `false` when the entry
   * has been evicted or removed in the meantime: the session must be ended.
   */
  settle(user: string, id: string, remove?: readonly string[]): Promise<boolean>
  /** All entries, evicted ones included, but for those whose `endsAt` has come. */
  list(user: string, now: number): Promise<readonly UserEntry[]>
  /** Marks all entries but one as evicted, and resolves to every marked one. Removes none: that is for when they are ended. */
  evict(
    user: string,
    options: { readonly now: number; readonly except?: string | undefined },
  ): Promise<readonly UserEntry[]>
  /** Removes entries. */
  remove(user: string, ids: readonly string[]): Promise<void>
  /**
   * Puts these entries in the place of a list that cannot be read, about which the other methods reject with `CORRUPT_RECORD`;
   * one that can be read by now stays as it is. Only an index whose data others can damage needs it.
   */
  restore?(user: string, entries: readonly UserEntry[], now: number): Promise<void>
}

/** One session in a `UserIndex`. */
export interface UserEntry {
  readonly id: string
  /** When the user logged in. */
  readonly since: number
  /** When the session is over whatever happens, and the entry with it. */
  readonly endsAt: number
  /** Until when the session may still be about to be stored; 0 once `settle()` has been called. */
  readonly pendingUntil: number
  readonly isEvicted: boolean
}
