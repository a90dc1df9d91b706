// What the memory store knows of every session, outside of the JavaScript heap: in typed arrays, one row a session.
//
// V8 visits every page of its heap each time it collects young objects, some fifty times a second under load, however
// little there is to do: a million sessions as objects would make each request a tenth dearer.
import { TextSlabs } from './text-slabs.js'

/** The lists that a session can be in, each from the least to the most recently active. */
export type ActivityList = (typeof LISTS)[keyof typeof LISTS]
export const LISTS = { ended: 0, anonymous: 1, withUser: 2 } as const

/** No row, or no text: both are numbered from 1. */
export const NONE = 0

/** Integers of a row, in this order. */
const ID = 0
const TEXT = 1
const HASH = 2
/** The next row whose ID falls in the same bucket; of a free row, the next free one. */
const CHAIN = 3
const LIST = 4
const OLDER = 5
const NEWER = 6
const COLUMNS = 7
type Column = typeof ID | typeof TEXT | typeof HASH | typeof CHAIN | typeof LIST | typeof OLDER | typeof NEWER

const FIRST = 1
/** Rows come in chunks, so that nothing is ever copied. */
const CHUNK = 4_096
/** A table with more sessions has longer chains. */
const MAX_BUCKETS = 2 ** 20

interface Chunk {
  readonly integers: Int32Array
  readonly forgetAt: Float64Array
}

/** Rows are numbers; one that was deleted is given to another session. */
export class SessionTable {
  readonly #buckets: Int32Array
  #texts = new TextSlabs()
  readonly #chunks: Chunk[] = []
  /** The ends of the lists. */
  readonly #oldest = [NONE, NONE, NONE]
  readonly #newest = [NONE, NONE, NONE]
  #size = 0
  /** Rows from here on have never been used. */
  #fresh = FIRST
  /** The first of those that were given back. */
  #free = NONE

  /** A table for about so many sessions. */
  constructor(sessions: number) {
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(Math.min(sessions, MAX_BUCKETS))))
  }

  get size(): number {
    return this.#size
  }

  /** The row of a session, or `NONE`. */
  find(id: string): number {
    const hash = hashOf(id)
    let row = this.#buckets[this.#bucketOf(hash)] as number
    while (row !== NONE && !(this.#get(row, HASH) === hash && this.idOf(row) === id)) row = this.#get(row, CHAIN)
    return row
  }

  /** Adds a session that is not there yet, with no text, as the most recently active of a list. */
  add(id: string, list: ActivityList): number {
    const row = this.#takeRow()
    const hash = hashOf(id)
    const bucket = this.#bucketOf(hash)
    this.#set(row, ID, this.#texts.add(id))
    this.#set(row, TEXT, NONE)
    this.#set(row, HASH, hash)
    this.#set(row, CHAIN, this.#buckets[bucket] as number)
    this.#buckets[bucket] = row
    this.#append(row, list)
    return row
  }

  delete(row: number): void {
    this.#unchain(row)
    this.#unlink(row)
    this.setText(row, null)
    this.#texts.delete(this.#get(row, ID))
    this.#giveBack(row)
  }

  clear(): void {
    this.#buckets.fill(NONE)
    this.#texts = new TextSlabs()
    this.#oldest.fill(NONE)
    this.#newest.fill(NONE)
    this.#size = 0
    this.#dropRows()
  }

  /** All rows; what is added meanwhile may come or not. */
  *rows(): Generator<number, void, undefined> {
    for (let row = FIRST; row < this.#fresh; row++) if (this.#get(row, ID) !== NONE) yield row
  }

  idOf(row: number): string {
    return this.#texts.get(this.#get(row, ID))
  }

  textOf(row: number): string | null {
    const place = this.#get(row, TEXT)
    return place === NONE ? null : this.#texts.get(place)
  }

  setText(row: number, text: string | null): void {
    const place = this.#get(row, TEXT)
    if (place !== NONE) this.#texts.delete(place)
    this.#set(row, TEXT, text === null ? NONE : this.#texts.add(text))
  }

  /** In milliseconds since the epoch. */
  forgetAt(row: number): number {
    return this.#chunkOf(row).forgetAt[row % CHUNK] as number
  }

  setForgetAt(row: number, time: number): void {
    this.#chunkOf(row).forgetAt[row % CHUNK] = time
  }

  /** The least recently active session of a list, or `NONE`. */
  oldest(list: ActivityList): number {
    return this.#oldest[list] as number
  }

  /** Makes a session the most recently active of a list. */
  moveTo(row: number, list: ActivityList): void {
    this.#unlink(row)
    this.#append(row, list)
  }

  #append(row: number, list: ActivityList): void {
    const newest = this.#newest[list] as number
    this.#set(row, LIST, list)
    this.#set(row, OLDER, newest)
    this.#set(row, NEWER, NONE)
    if (newest === NONE) this.#oldest[list] = row
    else this.#set(newest, NEWER, row)
    this.#newest[list] = row
  }

  #unlink(row: number): void {
    const list = this.#get(row, LIST)
    const older = this.#get(row, OLDER)
    const newer = this.#get(row, NEWER)
    if (older === NONE) this.#oldest[list] = newer
    else this.#set(older, NEWER, newer)
    if (newer === NONE) this.#newest[list] = older
    else this.#set(newer, OLDER, older)
  }

  #unchain(row: number): void {
    const bucket = this.#bucketOf(this.#get(row, HASH))
    const next = this.#get(row, CHAIN)
    let before = this.#buckets[bucket] as number
    if (before === row) {
      this.#buckets[bucket] = next
      return
    }
    while (this.#get(before, CHAIN) !== row) before = this.#get(before, CHAIN)
    this.#set(before, CHAIN, next)
  }

  #takeRow(): number {
    this.#size++
    const row = this.#free
    if (row !== NONE) {
      this.#free = this.#get(row, CHAIN)
      return row
    }
    if (this.#fresh >= this.#chunks.length * CHUNK) {
      this.#chunks.push({ integers: new Int32Array(CHUNK * COLUMNS), forgetAt: new Float64Array(CHUNK) })
    }
    return this.#fresh++
  }

  #giveBack(row: number): void {
    this.#size--
    this.#set(row, ID, NONE)
    this.#set(row, CHAIN, this.#free)
    this.#free = row
    if (this.#size === 0) this.#dropRows()
  }

  #dropRows(): void {
    this.#chunks.length = 0
    this.#fresh = FIRST
    this.#free = NONE
  }

  #bucketOf(hash: number): number {
    return hash & (this.#buckets.length - 1)
  }

  #chunkOf(row: number): Chunk {
    return this.#chunks[Math.floor(row / CHUNK)] as Chunk
  }

  #get(row: number, column: Column): number {
    return this.#chunkOf(row).integers[(row % CHUNK) * COLUMNS + column] as number
  }

  #set(row: number, column: Column, value: number): void {
    this.#chunkOf(row).integers[(row % CHUNK) * COLUMNS + column] = value
  }
}

/** FNV-1a over UTF-16 code units, folded so that its lower bits depend on all of them. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5 | 0
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193)
  return hash ^ (hash >>> 15)
}
