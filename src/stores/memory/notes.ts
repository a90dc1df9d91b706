// The notes of the memory store.
import type { NoteOptions, SessionNotes } from '../../record/notes.js'

interface Note {
  readonly text: string
  readonly until: number
}

/** Notes in a `Map`, at most so many: one more, and the one that was written longest ago goes. */
export class MemoryNotes implements SessionNotes {
  readonly #notes = new Map<string, Note>()
  readonly #maxNotes: number
  readonly #clock: () => number

  constructor({ maxNotes, clock }: { maxNotes: number; clock: () => number }) {
    this.#maxNotes = maxNotes
    this.#clock = clock
  }

  async put(purpose: string, key: string, text: string, { ttlSeconds, ifAbsent }: NoteOptions): Promise<boolean> {
    const name = nameOf(purpose, key)
    if (ifAbsent && this.#find(name) !== null) return false
    this.#notes.delete(name)
    if (this.#notes.size >= this.#maxNotes) this.#notes.delete(this.#notes.keys().next().value as string)
    this.#notes.set(name, { text, until: this.#clock() + ttlSeconds * 1000 })
    return true
  }

  async get(purpose: string, key: string): Promise<string | null> {
    return this.#find(nameOf(purpose, key))
  }

  async take(purpose: string, key: string): Promise<string | null> {
    const name = nameOf(purpose, key)
    const text = this.#find(name)
    this.#notes.delete(name)
    return text
  }

  async delete(purpose: string, key: string): Promise<void> {
    this.#notes.delete(nameOf(purpose, key))
  }

  /** Forgets those whose time is over. */
  clearStale(now: number): void {
    for (const [name, { until }] of this.#notes) if (now >= until) this.#notes.delete(name)
  }

  clear(): void {
    this.#notes.clear()
  }

  #find(name: string): string | null {
    const note = this.#notes.get(name)
    if (note === undefined) return null
    if (this.#clock() < note.until) return note.text
    this.#notes.delete(name)
    return null
  }
}

function nameOf(purpose: string, key: string): string {
  return `${purpose} ${key}`
}
