// Who is told when a sink fails, or does not get what it should have: the application, or else a process warning.

import { warn } from '../../warn.js'
import type { DropReason } from './queue.js'

/** A failure of a sink. */
export interface SinkFailure {
  /** The sink's name. */
  readonly sink: string
  readonly error: unknown
  /** 1 for the first attempt. */
  readonly attempt: number
  readonly willRetry: boolean
}

/** Activities that a sink did not get. */
export interface ActivityDrop {
  /** The sink's name. */
  readonly sink: string
  readonly count: number
  /** `'full'`: the queue was. `'failed'`: the batch was tried too often. `'closed'`: the log was, or `close()` ran out of time. */
  readonly reason: DropReason
  /** Of the last attempt, if there was one. */
  readonly error: unknown
}

/** Who is told, if anybody wants to be. */
export interface SinkListeners {
  readonly onError?: ((failure: SinkFailure) => void) | undefined
  readonly onDropped?: ((drop: ActivityDrop) => void) | undefined
}

/** Tells of sinks that fail. Nothing in it throws. */
export class SinkTrouble {
  readonly #onError: SinkListeners['onError']
  readonly #onDropped: SinkListeners['onDropped']
  readonly #warned = new Set<string>()

  constructor({ onError, onDropped }: SinkListeners) {
    this.#onError = onError
    this.#onDropped = onDropped
  }

  failed(failure: SinkFailure): void {
    if (this.#onError !== undefined) {
      this.#tell('onError', () => this.#onError?.(failure))
      return
    }
    const { sink, error } = failure
    const message = error instanceof Error ? error.message : String(error)
    this.#warnOnce(`failed ${sink}`, `The activity sink "${sink}" failed: ${message}`, 'onError')
  }

  dropped(drop: ActivityDrop): void {
    if (this.#onDropped !== undefined) {
      this.#tell('onDropped', () => this.#onDropped?.(drop))
      return
    }
    const { sink, count, reason } = drop
    const why = { full: 'its queue is full', failed: 'it failed too often', closed: 'the log is closed' }[reason]
    const what = `The activity sink "${sink}" did not get ${count} activities: ${why}.`
    this.#warnOnce(`dropped ${sink} ${reason}`, what, 'onDropped')
  }

  /** Once a name: a fault that repeats must not flood the log. */
  #warnOnce(key: string, message: string, option: string): void {
    if (this.#warned.has(key)) return
    this.#warned.add(key)
    warn(`${message} The next time is silent; give ActivityLog an ${option}, and see log.stats.`, 'activity')
  }

  #tell(name: string, call: () => unknown): void {
    const tellFailure = (error: unknown): void => {
      warn(`${name} of the activity log failed: ${error instanceof Error ? error.message : String(error)}`, 'listener')
    }
    try {
      const returned = call()
      if (returned instanceof Promise) returned.catch(tellFailure)
    } catch (error) {
      tellFailure(error)
    }
  }
}
