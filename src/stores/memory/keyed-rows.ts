// A table outside of the JavaScript heap: rows of numbers in typed arrays, found by a text.
//
// V8 visits every page of its heap each time it collects young objects, many times a second under load, whether or not
// something has changed there: a million sessions as objects would make every request dearer.
import { TextSlabs } from './text-slabs.js'

/** No row, or no text: both are numbered from 1. */
export const NONE = 0

/** What `new KeyedRows()` takes. */
export interface KeyedRowsOptions {
  /** For about so many rows; with more it gets slower. */
  readonly expected: number
  /** How many columns hold integers of 32 bits. */
  readonly integerColumns: number
  /** How many columns hold any number. */
  readonly numberColumns: number
}

/** The table's own columns, before those of its user. */
const KEY = 0
const HASH = 1
/** The next row whose key falls in the same bucket; of a free row, the next free one. */
const CHAIN = 2
const OWN = 3

/** The first row of any table. */
export const FIRST_ROW = 1
/** Rows come in chunks, so that nothing is ever copied. */
const CHUNK = 4_096
const MAX_BUCKETS = 2 ** 20
/** Of an empty table. */
const NO_BUCKETS = new Int32Array(1)

interface Chunk {
  readonly integers: Int32Array
  readonly numbers: Float64Array
}

/** Rows are small integers; the one of a row that was deleted is given to another. Several rows may have the same key. */
export class KeyedRows {
  readonly #integerColumns: number
  readonly #numberColumns: number
  readonly #bucketCount: number
  #buckets = NO_BUCKETS
  #keys = new TextSlabs()
  readonly #chunks: Chunk[] = []
  #size = 0
  /** Rows from here on have never been used. */
  #fresh = FIRST_ROW
  /** The first of those that were given back. */
  #free = NONE

  constructor({ expected, integerColumns, numberColumns }: KeyedRowsOptions) {
    this.#integerColumns = OWN + integerColumns
    this.#numberColumns = numberColumns
    this.#bucketCount = 2 ** Math.ceil(Math.log2(Math.min(expected, MAX_BUCKETS)))
  }

  get size(): number {
    return this.#size
  }

  /** The newest row with this key, or `NONE`. */
  find(key: string): number {
    const hash = hashOf(key)
    return this.#search(this.#buckets[this.#bucketOf(hash)] as number, hash, key)
  }

  /** The row with the same key that was added before this one, or `NONE`. */
  findNext(row: number): number {
    return this.#search(this.#own(row, CHAIN), this.#own(row, HASH), this.keyOf(row))
  }

  /** Adds a row. Its columns hold what was there before. */
  add(key: string): number {
    // What can fail comes first.
    if (this.#buckets === NO_BUCKETS) this.#buckets = new Int32Array(this.#bucketCount)
    const text = this.#keys.add(key)
    const row = this.#take()
    const hash = hashOf(key)
    const bucket = this.#bucketOf(hash)
    this.#setOwn(row, KEY, text)
    this.#setOwn(row, HASH, hash)
    this.#setOwn(row, CHAIN, this.#buckets[bucket] as number)
    this.#buckets[bucket] = row
    return row
  }

  delete(row: number): void {
    this.#unchain(row)
    this.#keys.delete(this.#own(row, KEY))
    this.#setOwn(row, KEY, NONE)
    this.#setOwn(row, CHAIN, this.#free)
    this.#free = row
    this.#size--
    if (this.#size === 0) this.#dropChunks()
  }

  clear(): void {
    this.#buckets = NO_BUCKETS
    this.#keys = new TextSlabs()
    this.#size = 0
    this.#dropChunks()
  }

  /** The end of the rows: they go from `FIRST_ROW` to here, those that `has()` says are there. */
  get endRow(): number {
    return this.#fresh
  }

  has(row: number): boolean {
    return this.#own(row, KEY) !== NONE
  }

  /** Helps to give memory back after many rows have gone; for each row now and then. */
  tidy(row: number): void {
    this.#setOwn(row, KEY, this.#keys.tidy(this.#own(row, KEY)))
  }

  keyOf(row: number): string {
    return this.#keys.get(this.#own(row, KEY))
  }

  integer(row: number, column: number): number {
    return this.#own(row, OWN + column)
  }

  setInteger(row: number, column: number, value: number): void {
    this.#setOwn(row, OWN + column, value)
  }

  number(row: number, column: number): number {
    return this.#chunkOf(row).numbers[(row % CHUNK) * this.#numberColumns + column] as number
  }

  setNumber(row: number, column: number, value: number): void {
    this.#chunkOf(row).numbers[(row % CHUNK) * this.#numberColumns + column] = value
  }

  #search(from: number, hash: number, key: string): number {
    let row = from
    while (row !== NONE && !(this.#own(row, HASH) === hash && this.keyOf(row) === key)) row = this.#own(row, CHAIN)
    return row
  }

  #unchain(row: number): void {
    const bucket = this.#bucketOf(this.#own(row, HASH))
    const next = this.#own(row, CHAIN)
    let before = this.#buckets[bucket] as number
    if (before === row) {
      this.#buckets[bucket] = next
      return
    }
    while (this.#own(before, CHAIN) !== row) before = this.#own(before, CHAIN)
    this.#setOwn(before, CHAIN, next)
  }

  #take(): number {
    const row = this.#free
    if (row !== NONE) {
      this.#free = this.#own(row, CHAIN)
      this.#size++
      return row
    }
    if (this.#fresh >= this.#chunks.length * CHUNK) {
      this.#chunks.push({
        integers: new Int32Array(CHUNK * this.#integerColumns),
        numbers: new Float64Array(CHUNK * this.#numberColumns),
      })
    }
    this.#size++
    return this.#fresh++
  }

  #dropChunks(): void {
    this.#chunks.splice(1)
    this.#fresh = FIRST_ROW
    this.#free = NONE
  }

  #bucketOf(hash: number): number {
    return hash & (this.#buckets.length - 1)
  }

  #chunkOf(row: number): Chunk {
    return this.#chunks[Math.floor(row / CHUNK)] as Chunk
  }

  #own(row: number, column: number): number {
    return this.#chunkOf(row).integers[(row % CHUNK) * this.#integerColumns + column] as number
  }

  #setOwn(row: number, column: number, value: number): void {
    this.#chunkOf(row).integers[(row % CHUNK) * this.#integerColumns + column] = value
  }
}

/**
 * FNV-1a over UTF-16 code units, folded so that its lower bits depend on all of them. It needs no secret: session IDs are
 * random, and what stands for a user is a hash.
 */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5 | 0
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193)
  return hash ^ (hash >>> 15)
}
