// A record as one text: a line of metadata, and behind it the texts of the fields as they are. The store puts this text into JSON of
// its own and escapes each quotation mark of it, so the line is a list and not an object.
import { SessionError } from '../../errors.js'
import { readContext, readEnd, SessionData, type SessionDataInit } from '../../record/session-data.js'

/** The metadata of a record, beside its fields; times in milliseconds. */
export type Metadata = Omit<SessionDataInit, 'fields'>

/** Metadata that can be told from that of another version. */
const VERSION = 2

/** What each record has, in the order of the line. */
type Always =
  | 'id'
  | 'tokenHash'
  | 'generation'
  | 'createdAt'
  | 'updatedAt'
  | 'lastAccessedAt'
  | 'expiresAt'
  | 'absoluteExpiresAt'
  | 'epoch'
/** What few have. */
type Seldom = Omit<Metadata, Always>
/** Before the fields, of which each has its name and the length of its text in UTF-16 units. */
const FIELDS_AT = 11

/** The record as one text. */
export function packedText(data: SessionData): string {
  const seldom: { readonly [Name in keyof Required<Seldom>]: unknown } = {
    previousToken: data.previousToken,
    tokenSince: data.tokenSince,
    idleTimeoutMs: data.idleTimeoutMs,
    persistent: data.persistent,
    cookieEndsAt: data.cookieEndsAt,
    userId: data.userId,
    unproven: data.unproven,
    logicalId: data.logicalId,
    context: data.context,
    ended: data.ended,
  }
  const { id, tokenHash, generation, createdAt, updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt, epoch } = data
  const times = [createdAt, updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt]
  const line: unknown[] = [VERSION, id, tokenHash, generation, ...times, epoch, seldom]
  let texts = ''
  for (const [name, text] of data.fields) {
    line.push(name, text.length)
    texts += text
  }
  return `${JSON.stringify(line)}\n${texts}`
}

/**
 * The record of such a text.
 * @throws {SessionError} `CORRUPT_RECORD`
 */
export function unpackedText(text: string): SessionData {
  const end = text.indexOf('\n')
  const line = lineOf(end === -1 ? text : text.slice(0, end))
  const [version, id, tokenHash, generation, createdAt, updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt] = line
  const [epoch, seldom] = line.slice(FIELDS_AT - 2, FIELDS_AT)
  if (version !== VERSION) throw corrupt('it is of another version of this package')
  if (typeof seldom !== 'object' || seldom === null) throw corrupt('it has no metadata')
  const fields: [string, string][] = []
  let start = end + 1
  for (let at = FIELDS_AT; at < line.length; at += 2) {
    const name = line[at]
    const length = line[at + 1]
    if (typeof name !== 'string' || !isLength(length)) throw corrupt('a field has no length')
    fields.push([name, text.slice(start, start + length)])
    start += length
  }
  if (start !== text.length) throw corrupt('its fields are cut off')
  const always = {
    id,
    tokenHash,
    generation,
    createdAt,
    updatedAt,
    lastAccessedAt,
    expiresAt,
    absoluteExpiresAt,
    epoch,
  }
  return recordOf(Object.assign(seldom, always) as Metadata, fields)
}

function isLength(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/**
 * A record of metadata that was read from a text.
 * @throws {SessionError} `CORRUPT_RECORD`
 */
export function recordOf(metadata: Metadata, fields: Iterable<readonly [string, string]>): SessionData {
  const { id, tokenHash, generation, userId, context, ended, previousToken } = metadata
  if (typeof id !== 'string' || typeof tokenHash !== 'string') throw corrupt('it has no ID or no token hash')
  if (!Number.isSafeInteger(generation)) throw corrupt('it has no generation')
  for (const time of ['createdAt', 'updatedAt', 'lastAccessedAt', 'expiresAt', 'absoluteExpiresAt'] as const) {
    if (!Number.isFinite(metadata[time])) throw corrupt(`${time} is no time`)
  }
  // A session whose user cannot be read must not go on as nobody's.
  if (userId !== undefined && typeof userId !== 'string' && typeof userId !== 'number') {
    throw corrupt('userId is neither text nor a number')
  }
  if (previousToken !== undefined && typeof previousToken?.hash !== 'string') throw corrupt('previousToken has no hash')
  // What was just read is nobody else's: a copy of it would be the dearest part of reading a record.
  const init = metadata as { -readonly [Name in keyof SessionDataInit]: SessionDataInit[Name] }
  if (context !== undefined) init.context = readContext(context)
  if (ended !== undefined) init.ended = readEnd(ended)
  init.fields = fields
  return new SessionData(init)
}

function lineOf(text: string): unknown[] {
  let line: unknown
  try {
    line = JSON.parse(text)
  } catch {
    throw corrupt('its metadata is not JSON')
  }
  if (!Array.isArray(line)) throw corrupt('it has no metadata')
  return line
}

function corrupt(what: string): SessionError {
  return new SessionError('CORRUPT_RECORD', `The record of a session cannot be read: ${what}.`)
}
