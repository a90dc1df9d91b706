// Doubly linked lists whose links are integer columns of `KeyedRows`.
import { KeyedRows, NONE } from './keyed-rows.js'

/** The integers that a row in a list needs: the first ones of its table. */
export const LIST_COLUMNS = 3
const LIST = 0
const OLDER = 1
const NEWER = 2

/** Columns of a list. */
const OLDEST = 0
const NEWEST = 1

/** Lists with a key, of the rows of one table. A row is in one of them at most. */
export class RowLists {
  readonly #rows: KeyedRows
  readonly #lists: KeyedRows

  /** Lists of `rows`, for about so many of them. */
  constructor(rows: KeyedRows, expected: number) {
    this.#rows = rows
    this.#lists = new KeyedRows({ expected, integerColumns: 2, numberColumns: 0 })
  }

  get size(): number {
    return this.#lists.size
  }

  /** A list by its key, or `NONE`. */
  find(key: string): number {
    return this.#lists.find(key)
  }

  /** Adds an empty list. There must be none of that key. */
  add(key: string): number {
    const list = this.#lists.add(key)
    this.#lists.setInteger(list, OLDEST, NONE)
    this.#lists.setInteger(list, NEWEST, NONE)
    return list
  }

  /** Deletes an empty list. */
  delete(list: number): void {
    this.#lists.delete(list)
  }

  /** See `KeyedRows.tidy()`. */
  tidy(list: number): void {
    this.#lists.tidy(list)
  }

  clear(): void {
    this.#lists.clear()
  }

  /** The first row of a list, or `NONE`. */
  oldest(list: number): number {
    return this.#lists.integer(list, OLDEST)
  }

  /** The row after this one, or `NONE`. */
  newer(row: number): number {
    return this.#rows.integer(row, NEWER)
  }

  listOf(row: number): number {
    return this.#rows.integer(row, LIST)
  }

  /** Adds a row, which must be in no list, as the newest. */
  append(list: number, row: number): void {
    const newest = this.#lists.integer(list, NEWEST)
    this.#rows.setInteger(row, LIST, list)
    this.#rows.setInteger(row, OLDER, newest)
    this.#rows.setInteger(row, NEWER, NONE)
    if (newest === NONE) this.#lists.setInteger(list, OLDEST, row)
    else this.#rows.setInteger(newest, NEWER, row)
    this.#lists.setInteger(list, NEWEST, row)
  }

  /** Takes a row out of the list that it is in. */
  remove(row: number): void {
    const list = this.listOf(row)
    const older = this.#rows.integer(row, OLDER)
    const newer = this.newer(row)
    if (older === NONE) this.#lists.setInteger(list, OLDEST, newer)
    else this.#rows.setInteger(older, NEWER, newer)
    if (newer === NONE) this.#lists.setInteger(list, NEWEST, older)
    else this.#rows.setInteger(newer, OLDER, older)
  }
}
