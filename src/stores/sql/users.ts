// Which sessions a user has, in SQL: one row a user, its entries as JSON: [ID, since, endsAt, pendingUntil, 1 when evicted].
import { SessionError } from '../../errors.js'
import type { UserEntry, UserIndex } from '../../record/user-index.js'
import type { SqlRow } from './driver.js'
import type { Outcome, RowChanges } from './row-changes.js'
import { newVersion, numberOf } from './rows.js'

/** The row of a user. */
export interface UserRow {
  readonly version: number
  readonly entries: readonly UserEntry[]
}

/** How many milliseconds from now a row is to be kept at least. */
export type UserRetention = number

type Told<T> = Outcome<UserRow, UserRetention, T>

/** A `UserIndex` on rows. */
export function sqlUserIndex(
  changes: RowChanges<UserRow, UserRetention>,
  read: (user: string) => Promise<UserRow | null>,
): UserIndex {
  return {
    add(user, entry, options) {
      return changes.run(user, (row) => add(row, entry, options))
    },
    settle(user, id, remove = []) {
      return changes.run(user, (row): Told<boolean> => {
        const held = row?.entries.find((entry) => entry.id === id)
        const isGood = held !== undefined && !held.isEvicted
        const left = (row?.entries ?? []).filter((entry) => !remove.includes(entry.id))
        const entries = isGood ? left.map((entry) => (entry === held ? { ...entry, pendingUntil: 0 } : entry)) : left
        const isChanged = (isGood && held.pendingUntil !== 0) || left.length < (row?.entries.length ?? 0)
        return { result: () => isGood, ...(isChanged && { next: rowOf(entries) }) }
      })
    },
    async list(user, now) {
      const row = await read(user)
      return present(row, now)
    },
    evict(user, { now, except }) {
      return changes.run(user, (row): Told<readonly UserEntry[]> => {
        const entries = present(row, now).map((entry) => (entry.id === except ? entry : marked(entry)))
        const evicted = entries.filter(({ isEvicted }) => isEvicted)
        const isChanged = evicted.length !== row?.entries.filter(({ isEvicted }) => isEvicted).length
        return { result: () => evicted, ...(row !== null && isChanged && { next: rowOf(entries) }) }
      })
    },
    async remove(user, ids) {
      if (ids.length === 0) return
      await changes.run(user, (row): Told<void> => {
        const left = (row?.entries ?? []).filter(({ id }) => !ids.includes(id))
        const isChanged = left.length < (row?.entries.length ?? 0)
        return { result: () => {}, ...(isChanged && { next: rowOf(left) }) }
      })
    },
  }
}

function add(
  row: UserRow | null,
  entry: UserEntry,
  { now, max = Number.POSITIVE_INFINITY, evictsOldest = false }: Parameters<UserIndex['add']>[2],
): Told<Awaited<ReturnType<UserIndex['add']>>> {
  const held = present(row, now)
  const others = held.filter(({ id }) => id !== entry.id)
  const active = others.filter(({ isEvicted }) => !isEvicted)
  const excess = active.length + (entry.isEvicted ? 0 : 1) - max
  if (excess > 0 && !evictsOldest) return { result: () => ({ status: 'full', entries: held }) }
  const oldestFirst = active.toSorted((a, b) => a.since - b.since || (a.id < b.id ? -1 : 1))
  const leaving = new Set(excess > 0 ? oldestFirst.slice(0, excess) : [])
  const entries = others.map((each) => (leaving.has(each) ? marked(each) : each))
  const evicted = entries.filter(({ isEvicted }) => isEvicted)
  const last = Math.max(entry.endsAt, ...entries.map(({ endsAt }) => endsAt))
  return {
    result: () => ({ status: 'added', evicted }),
    next: rowOf([...entries, entry]),
    how: Math.max(1_000, last - now),
  }
}

/** Entries whose session may still be. */
function present(row: UserRow | null, now: number): readonly UserEntry[] {
  return row === null ? [] : row.entries.filter(({ endsAt }) => now < endsAt)
}

function marked(entry: UserEntry): UserEntry {
  return { ...entry, isEvicted: true }
}

function rowOf(entries: readonly UserEntry[]): UserRow {
  return { version: newVersion(), entries }
}

/** What stands in the column. */
export function encodeEntries({ entries }: UserRow): string {
  return JSON.stringify(
    entries.map(({ id, since, endsAt, pendingUntil, isEvicted }) => {
      const entry = [id, Math.floor(since), Math.floor(endsAt), Math.floor(pendingUntil)]
      return isEvicted ? [...entry, 1] : entry
    }),
  )
}

/** @throws {SessionError} `CORRUPT_RECORD` */
export function decodeUserRow(user: string, row: SqlRow): UserRow {
  const entries = typeof row['entries'] === 'string' ? listOf(row['entries']) : null
  if (entries === null) {
    throw new SessionError(
      'CORRUPT_RECORD',
      `The row of the user ${user} in the table of users cannot be read: mend or delete it.`,
    )
  }
  return { version: numberOf(row, 'version'), entries }
}

function listOf(json: string): UserEntry[] | null {
  try {
    const list: unknown = JSON.parse(json)
    if (!Array.isArray(list)) return null
    return list.filter(isEntry).map(([id, since, endsAt, pendingUntil, mark]) => ({
      id,
      since,
      endsAt,
      pendingUntil,
      isEvicted: mark === 1,
    }))
  } catch {
    return null
  }
}

function isEntry(value: unknown): value is [string, number, number, number, number?] {
  if (!Array.isArray(value)) return false
  const [id, ...numbers] = value
  return typeof id === 'string' && numbers.length >= 3 && numbers.every((number) => typeof number === 'number')
}
