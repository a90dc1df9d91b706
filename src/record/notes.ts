// Notes: small texts beside the sessions, each for a purpose and under a key, each with a time to live. What is to be used once
// (recovery tokens, hand-offs, challenges), replay guards and caches stand on them.

/**
 * The notes of a store. `purpose` and `key` are opaque text of letters, digits, `-` and `_`; whoever has other text hashes
 * it. Two purposes never meet. Each method is one atomic step, and a note whose time is over is absent.
 */
export interface SessionNotes {
  /**
   * Writes a note that is forgotten after `ttlSeconds` (a whole number, at least 1), over one that is there. With
   * `ifAbsent`, only where there is none. Resolves to whether it was written.
   */
  put(purpose: string, key: string, text: string, options: NoteOptions): Promise<boolean>
  /** The text of a note, or `null` when there is none. */
  get(purpose: string, key: string): Promise<string | null>
  /** Reads and removes a note: of all who take it at once, exactly one gets its text, and the others `null`. */
  take(purpose: string, key: string): Promise<string | null>
  /** Removes a note; nothing happens when there is none. */
  delete(purpose: string, key: string): Promise<void>
}

/** How a note is written. */
export interface NoteOptions {
  readonly ttlSeconds: number
  /** @default false */
  readonly ifAbsent?: boolean
}
