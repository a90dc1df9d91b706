// Endings that are heard everywhere: each process tells the others what it ended, and hears what they did.
//
// A signal may be lost: with its connection, or with the process before it was sent. So each watch sends itself a sign of life, and
// when that does not arrive, whoever holds sessions at hand is told to ask about them.
import { randomUUID } from 'node:crypto'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument } from '../../errors.js'
import type { SessionEvent, SessionEvents } from '../../events/events.js'
import type { SessionManager } from '../../manager/manager.js'
import type { SessionSignals } from '../../record/signals.js'
import { warnOfFailure } from '../../warn.js'
import { OpenSockets } from './open-sockets.js'

/** What `watchEndings()` takes. */
export interface WatchOptions {
  /**
   * How often to make sure that signals arrive. What was lost is made up at most two of these later.
   * @default '1s'
   */
  heartbeat?: Duration | undefined
  /**
   * On a store without signals, as SQLite and MariaDB are: how often it is asked about the sessions whose sockets are open. No event
   * comes from other processes then, but their endings close the sockets.
   * @default '5s'
   */
  pollInterval?: Duration | undefined
  /** Told when the watch cannot listen, or signals are lost: once for each outage. Default: a process warning. */
  onError?: ((error: unknown) => void) | undefined
}

/** What `watchEndings()` resolves to. */
export interface EndingsWatch {
  /** Stops hearing and telling. Sockets that are open stay open. */
  stop(): Promise<void>
}

const CHANNEL = 'ended'
const SHORTEST_MS = 10
/** How many endings one signal tells of: what ends in one turn goes out together. */
const MAX_BATCH = 200

/** An ending as a signal has it. */
type Told =
  | Pick<SessionEvent<'ended'>, 'id' | 'userId' | 'reason' | 'successor' | 'goesOn'>
  | { readonly all: true; readonly by?: string | undefined; readonly detail?: string | undefined }

const watches = new WeakMap<SessionEvents, Watch>()

/**
 * From now on this process hears of every ending in any process on the same store, as the event `ended` with `isRemote: true`
 * (and `allRevoked` likewise), some milliseconds after it happened. And it tells the others of its own. `closeOnEnd()` stands on it.
 *
 * ```ts
 * const sessions = session({ secret, store })
 * await watchEndings(sessions.manager)
 * sessions.events.on('ended', ({ id, isRemote }) => …)
 * ```
 *
 * Takes one connection to Redis and one signal for each turn in which sessions end, however many are at hand. While Redis is away,
 * endings are made up when it is back.
 *
 * @throws {SessionError} `INVALID_ARGUMENT` when it is called twice for a manager; `INVALID_OPTION`; `STORE_UNAVAILABLE` when it cannot
 *   listen.
 */
export async function watchEndings(manager: SessionManager, options: WatchOptions = {}): Promise<EndingsWatch> {
  if (watches.has(manager.events)) throw invalidArgument('watchEndings() has been called for this manager already.')
  const watch = new Watch(manager, {
    heartbeatMs: milliseconds(options.heartbeat ?? '1s', 'heartbeat', SHORTEST_MS),
    pollMs: milliseconds(options.pollInterval ?? '5s', 'pollInterval', SHORTEST_MS),
    onError: options.onError ?? ((error) => warnOfFailure('watchEndings()', error)),
  })
  watches.set(manager.events, watch)
  try {
    await watch.start()
  } catch (error) {
    await watch.stop()
    throw error
  }
  return watch
}

/** The sockets of the manager whose events these are. */
export function openSocketsOf(events: SessionEvents): OpenSockets {
  const watch = watches.get(events)
  if (watch === undefined) throw invalidArgument('closeOnEnd() needs await watchEndings(sessions.manager) before it.')
  return watch.sockets
}

interface WatchSettings {
  readonly heartbeatMs: number
  readonly pollMs: number
  readonly onError: (error: unknown) => void
}

class Watch implements EndingsWatch {
  readonly sockets: OpenSockets
  readonly #manager: SessionManager
  readonly #heartbeatMs: number
  readonly #pollMs: number
  readonly #onError: (error: unknown) => void
  /** Its own name: what it tells itself it has heard already. */
  readonly #name = randomUUID()
  readonly #stops: (() => unknown)[] = []
  #outbox: Told[] = []
  #timer: NodeJS.Timeout | undefined
  #heardAt = 0
  #isLost = false
  #isStopped = false

  constructor(manager: SessionManager, { heartbeatMs, pollMs, onError }: WatchSettings) {
    this.#manager = manager
    this.#heartbeatMs = heartbeatMs
    this.#pollMs = pollMs
    this.#onError = onError
    this.sockets = new OpenSockets(manager)
  }

  async start(): Promise<void> {
    const { events, store } = this.#manager
    const hasSignals = store.signals !== undefined
    if (hasSignals) await this.#listen(this.#manager.signals)
    this.#stops.push(
      events.on('ended', (event) => {
        this.sockets.ended(event)
        if (event.isRemote || !hasSignals) return
        const { id, userId, reason, successor, goesOn } = event
        this.#tell({ id, userId, reason, successor, goesOn })
      }),
      events.on('allRevoked', ({ by, detail, isRemote }) => {
        this.sockets.allRevoked()
        if (!isRemote && hasSignals) this.#tell({ all: true, by, detail })
      }),
    )
    this.#timer = hasSignals
      ? setInterval(() => this.#checkBeat(), this.#heartbeatMs)
      : setInterval(() => this.sockets.askAll(), this.#pollMs)
    this.#timer.unref()
  }

  async #listen(signals: SessionSignals): Promise<void> {
    // One after the other: what was begun is known when the next fails.
    this.#stops.push(await signals.listen(CHANNEL, (text) => this.#hear(text)))
    this.#stops.push(await signals.listen(`beat.${this.#name}`, () => this.#hearBeat()))
    this.#heardAt = performance.now()
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    clearInterval(this.#timer)
    watches.delete(this.#manager.events)
    this.sockets.stop()
    await Promise.all(this.#stops.splice(0).map((stop) => stop()))
  }

  /** What ends in one turn is told at once. */
  #tell(told: Told): void {
    this.#outbox.push(told)
    if (this.#outbox.length === 1) setImmediate(() => void this.#send())
  }

  async #send(): Promise<void> {
    const outbox = this.#outbox
    this.#outbox = []
    for (let index = 0; index < outbox.length; index += MAX_BATCH) {
      const text = JSON.stringify([this.#name, ...outbox.slice(index, index + MAX_BATCH)])
      // A failure is told by the event `storeError`; the others find out by their own means.
      await this.#manager.signals.send(CHANNEL, text).catch(() => {})
    }
  }

  #hear(text: string): void {
    const message = parsed(text)
    if (message === null || message[0] === this.#name) return
    for (const told of message.slice(1) as (Told | null)[]) {
      // Others may send to the channel what is none of ours.
      if (typeof told !== 'object' || told === null) continue
      if ('all' in told) {
        this.#manager.events.emit('allRevoked', { by: told.by, detail: told.detail, isRemote: true })
      } else this.#manager.events.emit('ended', { ...told, successor: told.successor, isRemote: true })
    }
  }

  #hearBeat(): void {
    this.#heardAt = performance.now()
    if (!this.#isLost) return
    this.#isLost = false
    // What was told in between has been missed.
    this.sockets.askAll()
  }

  #checkBeat(): void {
    if (!this.#isLost && performance.now() - this.#heardAt > 2 * this.#heartbeatMs) {
      this.#isLost = true
      this.sockets.askAll()
      this.#onError(new Error('Signals of endings do not arrive. They are made up when they do again.'))
    }
    // A failure is told by the event `storeError`.
    this.#manager.signals.send(`beat.${this.#name}`, '').catch(() => {})
  }
}

/** Another version of this package may tell what this one does not know. */
function parsed(text: string): unknown[] | null {
  try {
    const message: unknown = JSON.parse(text)
    return Array.isArray(message) ? message : null
  } catch {
    return null
  }
}
