// How large a session may be, and how large it is: the names and texts of its fields, as UTF-8.
import { SessionError } from '../errors.js'
import { unitsOfFields } from './session-data.js'

/** The bounds of one session. */
export interface SessionLimits {
  /** Bytes of all field names and encoded values together. */
  readonly maxBytes: number
  /** Number of fields. */
  readonly maxFields: number
}

/** What `SessionLimits` bounds. */
export interface SessionSize {
  readonly bytes: number
  readonly fields: number
}

type Fields = ReadonlyMap<string, string>

/**
 * The size of what a session is to become, when it may not: it is over the limits, and larger than the session of `before`.
 * One that is over the limits already, because they were higher once, may still be made smaller. Else `null`.
 */
export function excessOf(after: Fields, before: Fields, limits: SessionLimits | undefined): SessionSize | null {
  if (limits === undefined) return null
  const { maxBytes, maxFields } = limits
  const size = sizeOf(after, maxBytes)
  if (size.bytes <= maxBytes && size.fields <= maxFields) return null
  const present = sizeOf(before, maxBytes)
  const isLarger = size.bytes > Math.max(maxBytes, present.bytes) || size.fields > Math.max(maxFields, present.fields)
  return isLarger ? size : null
}

/** Exact near and above `maxBytes`, and never less than that where it is more. */
export function sizeOf(fields: Fields, maxBytes = 0): SessionSize {
  const units = unitsOfFields(fields)
  // A UTF-16 unit takes at most three bytes.
  if (units * 3 <= maxBytes) return { bytes: units, fields: fields.size }
  let bytes = 0
  for (const [name, text] of fields) bytes += Buffer.byteLength(name) + Buffer.byteLength(text)
  return { bytes, fields: fields.size }
}

/**
 * What a record may be at most for a store to load it at all: some times the limits, for the metadata, for what a store's own
 * format adds, and for sessions of when the limits were higher. Nothing that was stored within them comes near it.
 */
export function loadableUnder({ maxBytes, maxFields }: SessionLimits): SessionLimits {
  return { maxBytes: 3 * maxBytes + METADATA_BYTES, maxFields: 4 * maxFields }
}

const METADATA_BYTES = 64 * 1024

/** The error for a change that would make a session too large. */
export function tooLarge({ bytes, fields }: SessionSize, limits: SessionLimits): SessionError {
  return sizeError(`The session would have ${fields} fields of ${bytes} bytes together`, limits)
}

/** @param what what takes too much, and how much that is */
export function sizeError(what: string, limits: SessionLimits): SessionError {
  return new SessionError(
    'SESSION_TOO_LARGE',
    `${what}; the limits are ${limits.maxBytes} bytes and ${limits.maxFields} fields a session. ` +
      'Keep large data elsewhere and its key in the session, or raise the limits option.',
  )
}
