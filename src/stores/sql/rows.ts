// How a session is written in a row.
//
// `meta` is a JSON object of all that only a change writes; `fields` and `large` are JSON objects of the application's fields,
// each with the text that the codec made of it. JSON escapes what databases and their clients refuse, cut off or alter: NUL
// and halves of surrogate pairs. `version` is another number after each write but a touch, and a random one, so that no
// two writes share it, whatever a failover or a restore has undone.
//
// In a session of more than `SMALL_RECORD` characters the texts above `SMALL_TEXT` stand in `large`, which is written only
// when one of them changes. `user_id`, `created_at` and `updated_at` are copies for people who read the table.
import { SessionError } from '../../errors.js'
import type { SessionLimits } from '../../record/limits.js'
import {
  type PreviousToken,
  readContext,
  readEnd,
  SessionData,
  type SessionDataInit,
  type SessionEnd,
} from '../../record/session-data.js'
import type { SqlRow, SqlValue } from './driver.js'

/** Up to so many characters, a session is written as a whole each time. */
const SMALL_RECORD = 4_096
/** The longest text that does not stand in `large` in a session above that. */
const SMALL_TEXT = 256

interface Stored {
  readonly version: number
  readonly largeNames: ReadonlySet<string> | null
  /** Members of `meta` that say nothing to us: a later version may have written them. */
  readonly others: Readonly<Record<string, unknown>> | undefined
}

/** A record as it was read or written, with what it takes to write a change of it. */
export class StoredRow extends SessionData {
  readonly #stored: Stored

  constructor(init: SessionDataInit, stored: Stored) {
    super(init)
    this.#stored = stored
  }

  /** Of the instance alone: a copy by `with()` is not what is stored. */
  static of(record: SessionData | null | undefined): Stored | null {
    return record !== null && record !== undefined && #stored in record ? record.#stored : null
  }
}

/** A new number for a row that is written. Not 0, which stands for none. */
export function newVersion(): number {
  return 1 + Math.floor(Math.random() * (Number.MAX_SAFE_INTEGER - 1))
}

/** What is written of a record. */
export interface Encoded {
  readonly record: StoredRow
  /** The values of the columns but `forget_at` and `large`, in their order. */
  readonly columns: readonly SqlValue[]
  readonly large: string | null
  /** Whether `large` is as it was `before`. */
  readonly keepsLarge: boolean
}

/** Lays out a record, as the successor of what the row holds. */
export function encodeRow(record: SessionData, before: SessionData | null = null): Encoded {
  const held = StoredRow.of(before)
  const version = newVersion()
  const largeNames = namesOfLarge(record)
  const small: [string, string][] = []
  const large: [string, string][] = []
  for (const field of record.fields) (largeNames?.has(field[0]) ? large : small).push(field)
  const keepsLarge = held !== null && isSameLarge(large, held.largeNames, before)
  const stored = { version, largeNames, others: held?.others }
  return {
    record: new StoredRow(record, stored),
    columns: [
      version,
      record.userId === undefined ? null : JSON.stringify(record.userId),
      whole(record.createdAt),
      whole(record.updatedAt),
      whole(record.lastAccessedAt),
      whole(record.expiresAt),
      whole(record.absoluteExpiresAt),
      record.idleTimeoutMs === undefined ? null : whole(record.idleTimeoutMs),
      record.ended === undefined ? null : encodeEnd(record.ended),
      encodeMeta(record, held?.others),
      // Object.fromEntries defines: a field "__proto__" is a property like any other.
      JSON.stringify(Object.fromEntries(small)),
    ],
    large: keepsLarge || large.length === 0 ? null : JSON.stringify(Object.fromEntries(large)),
    keepsLarge,
  }
}

function isSameLarge(
  large: readonly (readonly [string, string])[],
  names: ReadonlySet<string> | null,
  before: SessionData | null,
): boolean {
  if (large.length !== (names?.size ?? 0)) return false
  return large.every(([name, text]) => names?.has(name) && before?.fields.get(name) === text)
}

function namesOfLarge({ fields }: SessionData): ReadonlySet<string> | null {
  let size = 0
  for (const [name, text] of fields) size += name.length + text.length
  if (size <= SMALL_RECORD) return null
  const names = new Set<string>()
  for (const [name, text] of fields) if (text.length > SMALL_TEXT) names.add(name)
  return names.size === 0 ? null : names
}

function encodeMeta(record: SessionData, others: Stored['others']): string {
  return JSON.stringify({
    ...others,
    tokenHash: record.tokenHash,
    generation: record.generation,
    createdAt: whole(record.createdAt),
    updatedAt: whole(record.updatedAt),
    absoluteExpiresAt: whole(record.absoluteExpiresAt),
    idleTimeoutMs: record.idleTimeoutMs,
    userId: record.userId,
    previousToken: record.previousToken,
    tokenSince: record.tokenSince,
    persistent: record.persistent,
    cookieEndsAt: record.cookieEndsAt,
    unproven: record.unproven,
    logicalId: record.logicalId,
    context: record.context,
    epoch: record.epoch === 0 ? undefined : record.epoch,
  })
}

function encodeEnd({ reason, at, by, detail, successor, unarchived }: SessionEnd): string {
  return JSON.stringify({ reason, at, by, detail, successor, unarchived })
}

/** @throws {SessionError} `CORRUPT_RECORD` for what could not be read again. */
function whole(time: number): number {
  const rounded = Math.round(time)
  if (!Number.isSafeInteger(rounded)) throw corrupt('a time is beyond all bounds')
  return rounded
}

/**
 * A record from a row. What is `known` of the same version need not have come with it.
 * @throws {SessionError} `CORRUPT_RECORD`, also when it is larger than `bounds`
 */
export function decodeRow(
  id: string,
  row: SqlRow,
  { known, bounds }: { known?: SessionData | undefined; bounds?: SessionLimits | undefined } = {},
): SessionData {
  const version = numberOf(row, 'version')
  const lastAccessedAt = numberOf(row, 'last_accessed_at')
  const expiresAt = numberOf(row, 'expires_at')
  const ended = row['ended'] === null ? undefined : readEnd(parsed(row, 'ended'))
  const held = StoredRow.of(known)
  if (known !== undefined && held !== null && held.version === version) {
    const isSame =
      known.lastAccessedAt === lastAccessedAt &&
      known.expiresAt === expiresAt &&
      (known.ended === undefined) === (ended === undefined)
    return isSame ? known : new StoredRow({ ...known, lastAccessedAt, expiresAt, ended }, held)
  }
  const texts = [row['meta'], row['fields'], row['large'] ?? '']
  const length = texts.reduce<number>((sum, text) => sum + String(text).length, 0)
  // A character takes at least one byte, and JSON at most six characters for one of a text.
  if (bounds !== undefined && length > 6 * bounds.maxBytes) throw corrupt(`it has ${length} characters`)
  const fields = new Map<string, string>()
  addFields(fields, objectOf(row, 'fields'))
  const large = row['large'] === null ? null : objectOf(row, 'large')
  if (large !== null) addFields(fields, large)
  if (bounds !== undefined && fields.size > bounds.maxFields) throw corrupt(`it has ${fields.size} fields`)
  const { others, ...meta } = decodeMeta(objectOf(row, 'meta'))
  const largeNames = large === null ? null : new Set(Object.keys(large))
  return new StoredRow({ ...meta, id, lastAccessedAt, expiresAt, ended, fields }, { version, largeNames, others })
}

type Meta = Omit<SessionDataInit, 'id' | 'lastAccessedAt' | 'expiresAt' | 'ended' | 'fields'>

function decodeMeta(meta: Record<string, unknown>): Meta & { others: Stored['others'] } {
  const {
    tokenHash,
    generation,
    createdAt,
    updatedAt,
    absoluteExpiresAt,
    idleTimeoutMs,
    userId,
    previousToken,
    tokenSince,
    persistent,
    cookieEndsAt,
    unproven,
    logicalId,
    context,
    epoch,
    ...rest
  } = meta
  if (typeof tokenHash !== 'string' || tokenHash === '') throw corrupt('it has no token hash')
  for (const time of [generation, createdAt, updatedAt, absoluteExpiresAt]) if (!isCount(time)) throw noCount()
  for (const time of [idleTimeoutMs, tokenSince, cookieEndsAt, epoch]) {
    if (time !== undefined && !isCount(time)) throw noCount()
  }
  // A session whose user cannot be read must not go on as nobody's.
  if (userId !== undefined && typeof userId !== 'string' && typeof userId !== 'number') {
    throw corrupt('the user ID is neither text nor a number')
  }
  return {
    tokenHash,
    generation: generation as number,
    createdAt: createdAt as number,
    updatedAt: updatedAt as number,
    absoluteExpiresAt: absoluteExpiresAt as number,
    idleTimeoutMs: idleTimeoutMs as number | undefined,
    userId,
    previousToken: previousToken === undefined ? undefined : decodePrevious(previousToken),
    tokenSince: tokenSince as number | undefined,
    persistent: typeof persistent === 'boolean' ? persistent : undefined,
    cookieEndsAt: cookieEndsAt as number | undefined,
    unproven: unproven === true ? true : undefined,
    logicalId: typeof logicalId === 'string' ? logicalId : undefined,
    context: context === undefined ? undefined : readContext(context),
    epoch: (epoch as number | undefined) ?? 0,
    others: Object.keys(rest).length === 0 ? undefined : rest,
  }
}

function decodePrevious(value: unknown): PreviousToken {
  const { hash, until, sealed } = (value ?? {}) as Record<string, unknown>
  if (typeof hash !== 'string' || !isCount(until)) throw corrupt('the previous token cannot be read')
  return typeof sealed === 'string' ? { hash, until, sealed } : { hash, until }
}

function addFields(fields: Map<string, string>, texts: Record<string, unknown>): void {
  for (const [name, text] of Object.entries(texts)) {
    if (typeof text !== 'string') throw corrupt('a field is not text')
    fields.set(name, text)
  }
}

function objectOf(row: SqlRow, column: string): Record<string, unknown> {
  const value = parsed(row, column)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corrupt(`${column} is not an object`)
  return value as Record<string, unknown>
}

function parsed(row: SqlRow, column: string): unknown {
  const text = row[column]
  if (typeof text !== 'string') throw corrupt(`${column} is not text`)
  try {
    return JSON.parse(text)
  } catch {
    throw corrupt(`${column} is not JSON`)
  }
}

/** A number of a row. Clients give large ones as numbers, as texts, or as `bigint`. */
export function numberOf(row: SqlRow, column: string): number {
  const value = row[column]
  const number =
    typeof value === 'number'
      ? value
      : typeof value === 'string' || typeof value === 'bigint'
        ? Number(value)
        : Number.NaN
  if (!Number.isSafeInteger(number)) throw corrupt(`${column} is not a whole number`)
  return number
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function noCount(): SessionError {
  return corrupt('a time or count is missing, or is none')
}

export function corrupt(reason: string): SessionError {
  return new SessionError('CORRUPT_RECORD', `The session record in the database cannot be read: ${reason}.`)
}
