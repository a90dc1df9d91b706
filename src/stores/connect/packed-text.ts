// A record as one text: a line of metadata, and behind it the texts of the fields as they are, so that nothing is escaped twice.
import { SessionError } from '../../errors.js'
import { readContext, readEnd, SessionData, type SessionDataInit } from '../../record/session-data.js'

/** The metadata of a record, beside its fields; times in milliseconds. */
export type Metadata = Omit<SessionDataInit, 'fields'>

/** Metadata that can be told from that of a later version. */
const VERSION = 1

interface Head extends Metadata {
  readonly version: number
  /** Names of the fields, each with the length of its text in UTF-16 units. */
  readonly lengths: readonly (readonly [string, number])[]
}

/** The record as one text. */
export function packedText(data: SessionData): string {
  const { fields, ...metadata } = data
  const lengths: [string, number][] = []
  let texts = ''
  for (const [name, text] of fields) {
    lengths.push([name, text.length])
    texts += text
  }
  return `${JSON.stringify({ version: VERSION, ...metadata, lengths })}\n${texts}`
}

/**
 * The record of such a text.
 * @throws {SessionError} `CORRUPT_RECORD`
 */
export function unpackedText(text: string): SessionData {
  const end = text.indexOf('\n')
  const { version, lengths, ...metadata } = headOf(end === -1 ? text : text.slice(0, end))
  if (version !== VERSION) throw corrupt('it is of another version of this package')
  if (!Array.isArray(lengths)) throw corrupt('it has no list of fields')
  const fields: [string, string][] = []
  let start = end + 1
  for (const [name, length] of lengths) {
    if (typeof name !== 'string' || !Number.isSafeInteger(length) || length < 0) throw corrupt('a field has no length')
    fields.push([name, text.slice(start, start + length)])
    start += length
  }
  if (start !== text.length) throw corrupt('its fields are cut off')
  return recordOf(metadata, fields)
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

function headOf(line: string): Head {
  let head: unknown
  try {
    head = JSON.parse(line)
  } catch {
    throw corrupt('its metadata is not JSON')
  }
  if (typeof head !== 'object' || head === null) throw corrupt('it has no metadata')
  return head as Head
}

function corrupt(what: string): SessionError {
  return new SessionError('CORRUPT_RECORD', `The record of a session cannot be read: ${what}.`)
}
