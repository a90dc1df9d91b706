// Calls of a store that was written for express-session, made so that whatever such stores do is one answer.

/** The members that are called of a store written for express-session. */
export interface ExpressStore {
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for sessions
  get(sid: string, callback: (error?: any, session?: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for sessions
  set(sid: string, session: any, callback?: (error?: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for errors
  destroy(sid: string, callback?: (error?: any) => void): unknown
}

/** Who waits longer than this for a call goes on without it; the caller's deadline has passed long before. */
const PATIENCE_MS = 30_000

/**
 * The three calls as promises. The first answer counts, whether by callback, throw or rejection; what comes after it is nobody's.
 * Calls on one ID wait for each other: there are stores that drop the second of two writes that are under way.
 */
export class StoreCalls {
  readonly #store: ExpressStore
  readonly #last = new Map<string, Promise<unknown>>()
  #ready: PromiseLike<unknown> | undefined

  constructor(store: ExpressStore, ready: PromiseLike<unknown> | undefined) {
    this.#store = store
    this.#ready = ready
  }

  /** What the store has under this ID, `null` when there is nothing. */
  async get(id: string): Promise<unknown> {
    try {
      const session = await this.#inTurn(id, (done) => this.#store.get(id, done))
      return session ?? null
    } catch (error) {
      // session-file-store says so of a file that is not there.
      if ((error as { code?: unknown } | null)?.code === 'ENOENT') return null
      throw error
    }
  }

  async set(id: string, session: object): Promise<void> {
    await this.#inTurn(id, (done) => this.#store.set(id, session, done))
  }

  async destroy(id: string): Promise<void> {
    await this.#inTurn(id, (done) => this.#store.destroy(id, done))
  }

  #inTurn(id: string, start: (done: Done) => unknown): Promise<unknown> {
    const before = this.#last.get(id)
    const turn =
      before === undefined && this.#ready === undefined
        ? answerOf(start)
        : this.#after(before).then(() => answerOf(start))
    const settled = turn.then(ignore, ignore).then(() => {
      if (this.#last.get(id) === settled) this.#last.delete(id)
    })
    this.#last.set(id, settled)
    return turn
  }

  async #after(before: Promise<unknown> | undefined): Promise<void> {
    if (this.#ready !== undefined) {
      await this.#ready
      this.#ready = undefined
    }
    await before
  }
}

type Done = (error?: unknown, session?: unknown) => void

/** One call, and the first answer that it gives. */
function answerOf(start: (done: Done) => unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('The store has not called back.')), PATIENCE_MS)
    timer.unref()
    // Nothing is thrown in here: there are stores that call back again when the callback throws.
    const done: Done = (error, session) => {
      clearTimeout(timer)
      if (error !== undefined && error !== null) reject(error)
      else resolve(session)
    }
    try {
      const returned = start(done)
      // Some return a promise beside the callback, and reject it whatever they called back with.
      if (isThenable(returned)) returned.then(ignore, done)
    } catch (error) {
      done(error ?? new Error('The store threw nothing.'))
    }
  })
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}

function ignore(): void {}
