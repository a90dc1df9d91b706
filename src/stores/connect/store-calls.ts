// Calls of a store that was written for express-session, made so that whatever such stores do is one answer.
import { sessionsInMemory } from './known-stores.js'
import type { LastWrites } from './last-writes.js'

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
  readonly #lastWrites: LastWrites | undefined
  readonly #inMemory: Readonly<Record<string, unknown>> | undefined
  /** The last call of each ID that has one under way. */
  readonly #last = new Map<string, AnyCall>()
  #ready: PromiseLike<unknown> | undefined
  /** One for all calls: a timer for each would cost every request two. */
  #watch: NodeJS.Timeout | undefined

  /** @param lastWrites is told of each write when it begins */
  constructor(store: ExpressStore, ready: PromiseLike<unknown> | undefined, lastWrites?: LastWrites) {
    this.#store = store
    this.#lastWrites = lastWrites
    this.#inMemory = sessionsInMemory(store)
    this.#ready = ready
  }

  /** Whether a call on this ID is under way, or waits for one. */
  isBusy(id: string): boolean {
    return this.#last.has(id)
  }

  /** What `read` makes of what the store has under this ID; `null` when there is nothing. It is told when the call began. */
  get<T>(id: string, read: (stored: unknown, begunAt: number) => T): Promise<T | null> {
    let begunAt = 0
    return this.#inTurn<T | null>(id, {
      start: (done) => {
        begunAt = performance.now()
        return this.#store.get(id, done)
      },
      take: (session) => (session === undefined || session === null ? null : read(session, begunAt)),
      // session-file-store says so of a file that is not there.
      forgive: (error) => (error as { code?: unknown } | null)?.code === 'ENOENT',
    })
  }

  set(id: string, session: object): Promise<void> {
    return this.#write(id, (done) => this.#store.set(id, session, done))
  }

  /** As `set()`, where that needs no waiting. Says whether it is done; if not, nothing has been. */
  setAtOnce(id: string, session: object): boolean {
    if (this.#inMemory === undefined || this.#ready !== undefined || this.isBusy(id)) return false
    const before = this.#inMemory[id]
    this.#lastWrites?.note(id)
    this.#store.set(id, session)
    return this.#inMemory[id] !== before
  }

  destroy(id: string): Promise<void> {
    return this.#write(id, (done) => this.#store.destroy(id, done))
  }

  #write(id: string, write: (done: Done) => unknown): Promise<void> {
    const start = (done: Done): unknown => {
      this.#lastWrites?.note(id)
      return write(done)
    }
    return this.#inTurn<void>(id, { start, take: ignore })
  }

  #inTurn<T>(id: string, task: Task<T>): Promise<T> {
    const before = this.#last.get(id)
    const call: Call<T> = new Call(task, () => {
      if (this.#last.get(id) === call) this.#last.delete(id)
    })
    this.#last.set(id, call)
    this.#watch ??= setInterval(() => this.#look(), PATIENCE_MS).unref()
    if (before === undefined && this.#ready === undefined) call.begin()
    else void this.#beginAfter(before, call)
    return call.answer
  }

  async #beginAfter<T>(before: AnyCall | undefined, call: Call<T>): Promise<void> {
    try {
      if (this.#ready !== undefined) {
        await this.#ready
        this.#ready = undefined
      }
    } catch (error) {
      call.fail(error)
      return
    }
    call.before = before
    await before?.answer.then(ignore, ignore)
    call.before = undefined
    call.begin()
  }

  /** What was there the last time, too, has had all patience. */
  #look(): void {
    for (const call of this.#last.values()) call.lookAt()
    if (this.#last.size > 0) return
    clearInterval(this.#watch)
    this.#watch = undefined
  }
}

type Done = (error?: unknown, session?: unknown) => void

interface Task<T> {
  start(done: Done): unknown
  /** What the answer is, of what the store called back with. */
  take(session: unknown): T
  /** Whether this error says that there is nothing. */
  forgive?(error: unknown): boolean
}

/** A call as those see it that wait for it. */
interface AnyCall {
  readonly answer: Promise<unknown>
  lookAt(): void
}

/** One call, and the first answer that it gives. */
class Call<T> implements AnyCall {
  readonly answer: Promise<T>
  /** The one that it waits for. */
  before: AnyCall | undefined
  readonly #task: Task<T>
  readonly #ended: () => void
  #resolve!: (value: T) => void
  #reject!: (error: unknown) => void
  #isOver = false
  #wasSeen = false

  constructor(task: Task<T>, ended: () => void) {
    this.#task = task
    this.#ended = ended
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  begin(): void {
    if (this.#isOver) return
    // Nothing is thrown in here: there are stores that call back again when the callback throws.
    const done: Done = (error, session) => {
      if (error === undefined || error === null || this.#task.forgive?.(error)) this.#succeed(session)
      else this.fail(error)
    }
    try {
      const returned = this.#task.start(done)
      // Some return a promise beside the callback, and reject it whatever they called back with.
      if (isThenable(returned)) returned.then(ignore, done)
    } catch (error) {
      done(error ?? new Error('The store threw nothing.'))
    }
  }

  #succeed(session: unknown): void {
    if (this.#isOver) return
    try {
      const value = this.#task.take(session)
      this.#end()
      this.#resolve(value)
    } catch (error) {
      this.fail(error)
    }
  }

  fail(error: unknown): void {
    if (this.#isOver) return
    this.#end()
    this.#reject(error)
  }

  /** Gives it up, if it was there the last time. */
  lookAt(): void {
    this.before?.lookAt()
    if (this.#wasSeen) this.fail(new Error('The store has not called back.'))
    this.#wasSeen = true
  }

  #end(): void {
    this.#isOver = true
    this.#ended()
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}

function ignore(): void {}
