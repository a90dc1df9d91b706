// What is told of a session to those who do not hold it: lists, pages and jobs. Nothing here opens a session.
import { type Authentication, authenticationOf } from './authentication.js'
import { codecOf, contextOf } from './binding.js'
import { decodeStored, type SessionCodec } from './codec.js'
import { DEVICE, isHiddenField } from './hidden-fields.js'
import { endOf, isPast } from './lifetime.js'
import type { SessionContext, SessionData, SessionEnd } from './session-data.js'

/** A session that is over, as far as it is remembered. */
export interface EndedSession {
  readonly id: string
  readonly userId: string | number | undefined
  readonly logicalId: string | undefined
  readonly end: SessionEnd
}

/** What the manager tells of a session. Nothing in it opens the session. */
export interface SessionInfo {
  readonly id: string
  readonly userId: string | number | undefined
  /** The application's own correlation ID, once it has been asked for. */
  readonly logicalId: string | undefined
  /** When the session was created or last logged in. */
  readonly createdAt: Date
  /** When fields last changed. */
  readonly updatedAt: Date
  /** The last recorded activity, to within `touchInterval`. */
  readonly lastAccessedAt: Date
  /** When the session ends if nothing more happens. */
  readonly expiresAt: Date
  /** When the session ends whatever happens. */
  readonly absoluteExpiresAt: Date
  /** The client that began it: address, user agent, referrer and language, as far as they are recorded. */
  readonly context: SessionContext
  /** What proved who its user is; `undefined` when nobody is logged in. */
  readonly authentication: Authentication | undefined
  /** Whether a key of the client's device is bound to it, by `sojourn/device-bound`. */
  readonly isDeviceBound: boolean
  /** How it ended, when it is over; by a timeout, by somebody, or with all sessions. */
  readonly end: SessionEnd | undefined
}

/** A session with its fields. */
export interface StoredSession extends SessionInfo {
  /** The decoded fields; those that cannot be decoded are left out. */
  readonly fields: Readonly<Record<string, unknown>>
}

/** One session in the list of its user. */
export interface UserSession extends SessionInfo {
  /** Whether it is the one that `current` named. */
  readonly isCurrent: boolean
}

export function infoOf(record: SessionData, end: SessionEnd | null, codec: SessionCodec): SessionInfo {
  return {
    id: record.id,
    userId: record.userId,
    logicalId: record.logicalId,
    createdAt: new Date(record.createdAt),
    updatedAt: new Date(record.updatedAt),
    lastAccessedAt: new Date(record.lastAccessedAt),
    expiresAt: new Date(record.expiresAt),
    absoluteExpiresAt: new Date(record.absoluteExpiresAt),
    context: contextOf(record, codec),
    authentication: authenticationOf(record),
    isDeviceBound: record.fields.has(DEVICE),
    end: end ?? undefined,
  }
}

/** With the fields that it has at `now`; `onCorrupt` is told of those that cannot be decoded. */
export function storedSessionOf(
  record: SessionData,
  end: SessionEnd | null,
  { codec, now }: { codec: SessionCodec; now: number },
  onCorrupt: (field: string, cause: unknown) => void,
): StoredSession {
  const own = codecOf(codec, record.fields)
  const fields: [string, unknown][] = []
  for (const [name, text] of record.fields) {
    if (isHiddenField(name) || isPast(endOf(text), now)) continue
    try {
      fields.push([name, decodeStored(own, text, name)])
    } catch (cause) {
      onCorrupt(name, cause)
    }
  }
  // Object.fromEntries defines: a field "__proto__" becomes a property like any other.
  return { ...infoOf(record, end, codec), fields: Object.fromEntries(fields) }
}
