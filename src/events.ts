// What Sojourn tells about: one typed event map, delivered so that no listener can harm a request.
import { EventEmitter } from 'node:events'
import type { SessionError } from './errors.js'
import type { ExpiryReason } from './session-data.js'

/**
 * Everything that is told, by event name. No event carries a token, a cookie value, a key or a field's value; `id` is
 * the public session ID.
 */
export interface SessionEventMap {
  /** A new session was stored. */
  created: { id: string; userId?: string | number | undefined }
  /** A user logged in: `id` is the new session, `previousId` the one it replaced, if there was one. */
  login: { id: string; previousId?: string | undefined; userId: string | number }
  /** A user logged out; the session `id` is over. */
  logout: { id: string; userId?: string | number | undefined }
  /** A session got a new ID and token; `previousId` is over. */
  regenerated: { id: string; previousId: string }
  /** A session got a new token. */
  renewed: { id: string }
  /** A session was ended from inside its request. */
  destroyed: { id: string }
  /** A cookie named a session that ran out. */
  expired: { id: string; reason: ExpiryReason }
  /** A cookie that we did not issue, or that was altered: wrong shape or wrong signature. */
  badCookie: { reason: 'malformed' | 'signature' }
  /** A well-signed cookie named a session that the store does not have: ended, expired and swept, or lost. */
  unknownSession: { id: string }
  /** A well-signed cookie held a token that is not, or no longer, this session's. */
  tokenMismatch: { id: string }
  /** A record or one field of it could not be read and was set aside. */
  corruptRecord: { id: string; field?: string | undefined; cause: unknown }
  /** A write was dropped because the session had ended in the meantime. */
  lateWrite: { id: string }
  /** Fields were changed when it was too late to store them, or a new session when it was too late for its cookie. */
  lateChange: { id: string; reason: 'after-response' | 'headers-sent' }
  /** A store call failed or missed its deadline. */
  storeError: { id?: string | undefined; operation: string; error: SessionError }
}

/** The name of an event, as `events.on()` takes it. */
export type SessionEventName = keyof SessionEventMap
type Listener<Name extends SessionEventName> = (event: SessionEventMap[Name]) => void

/** Events that must not go unnoticed: without a listener they become process warnings. */
const WARN_UNHEARD: ReadonlySet<SessionEventName> = new Set(['lateChange', 'corruptRecord', 'storeError'])

/**
 * Hands events to listeners, synchronously and in order. A listener that throws or rejects becomes a process warning
 * (`SojournWarning`); it never reaches the request that caused the event.
 */
export class SessionEvents {
  readonly #emitter = new EventEmitter()
  readonly #warned = new Set<SessionEventName>()

  /** Calls `listener` for each event of that name. Returns a function that stops it. */
  on<Name extends SessionEventName>(name: Name, listener: Listener<Name>): () => void {
    this.#emitter.on(name, listener)
    return () => this.#emitter.off(name, listener)
  }

  /** Stops calling `listener`. */
  off<Name extends SessionEventName>(name: Name, listener: Listener<Name>): void {
    this.#emitter.off(name, listener)
  }

  /** Tells an event. For the package itself; yours to use in tests. */
  emit<Name extends SessionEventName>(name: Name, event: SessionEventMap[Name]): void {
    const listeners = this.#emitter.listeners(name)
    if (listeners.length === 0) this.#warnUnheard(name, event)
    for (const listener of listeners) {
      try {
        const returned: unknown = listener(event)
        if (returned instanceof Promise) returned.catch((error) => warnOfListener(name, error))
      } catch (error) {
        warnOfListener(name, error)
      }
    }
  }

  /** Once a name: a fault that repeats must not flood the log. */
  #warnUnheard<Name extends SessionEventName>(name: Name, event: SessionEventMap[Name]): void {
    if (!WARN_UNHEARD.has(name) || this.#warned.has(name)) return
    this.#warned.add(name)
    warn(`${describe(name, event)} Further events of this kind are silent; listen with events.on('${name}', …).`, name)
  }
}

/** A process warning of ours; `code` tells them apart. */
export function warn(message: string, code: string): void {
  process.emitWarning(message, { type: 'SojournWarning', code: `SOJOURN_${code.toUpperCase()}` })
}

function describe(name: SessionEventName, event: object): string {
  if ('error' in event && event.error instanceof Error) return `${name}: ${event.error.message}`
  if ('reason' in event) {
    return event.reason === 'headers-sent'
      ? `${name}: a new session was filled after the response headers had been sent, so it got no cookie and was not stored.`
      : `${name}: session fields were changed after the response; call save() to store them.`
  }
  return `${name}: a session record could not be read and was set aside.`
}

function warnOfListener(name: string, error: unknown): void {
  warn(`A listener for "${name}" failed: ${error instanceof Error ? error.message : String(error)}`, 'listener')
}
