// A record as one text: half the memory of its objects, and nothing that the garbage collector has to visit.
import { SessionData, type SessionDataInit } from '../../record/session-data.js'

/** Records with more characters of fields than this never rest as a string: packing copies every character. */
const PACKED_UP_TO = 4_096

/** The small numbers of a packed record: times count from creation, lengths are of names and texts in turn. */
type PackedHead = [
  tokenHash: string,
  generation: number,
  createdAt: number,
  times: [updatedAt: number, lastAccessedAt: number, expiresAt: number, absoluteExpiresAt: number],
  lengths: number[],
  rest?: PackedRest,
]

/** What few records have. */
type PackedRest = Partial<
  Pick<
    SessionDataInit,
    | 'previousToken'
    | 'tokenSince'
    | 'idleTimeoutMs'
    | 'persistent'
    | 'cookieEndsAt'
    | 'userId'
    | 'unproven'
    | 'logicalId'
    | 'context'
    | 'epoch'
    | 'ended'
  >
>

/** A record as one string: a JSON head, a line feed, and the fields. `null` when it is too large for that, or endless. */
export function pack(record: SessionData): string | null {
  const { tokenHash, generation, createdAt, previousToken, tokenSince, idleTimeoutMs, persistent, userId, ended } =
    record
  const { cookieEndsAt, unproven, logicalId, context } = record
  const parts: string[] = ['', '\n']
  const lengths: number[] = []
  let total = 0
  for (const [name, text] of record.fields) {
    parts.push(name, text)
    lengths.push(name.length, text.length)
    total += name.length + text.length
    if (total > PACKED_UP_TO) return null
  }
  const times = [record.updatedAt, record.lastAccessedAt, record.expiresAt, record.absoluteExpiresAt]
  // JSON knows no infinity.
  if (!times.every(Number.isFinite)) return null
  const head: unknown[] = [tokenHash, generation, createdAt, times.map((time) => time - createdAt), lengths]
  const epoch = record.epoch === 0 ? undefined : record.epoch
  const rest: PackedRest = {
    previousToken,
    tokenSince,
    idleTimeoutMs,
    persistent,
    cookieEndsAt,
    userId,
    unproven,
    logicalId,
    context,
    epoch,
    ended,
  }
  if (Object.values(rest).some((member) => member !== undefined)) head.push(rest)
  parts[0] = JSON.stringify(head)
  // join() makes one flat string; what is added up stays a tree of strings.
  return parts.join('')
}

export function unpack(id: string, packed: string): SessionData {
  let at = packed.indexOf('\n')
  const head = JSON.parse(packed.slice(0, at)) as PackedHead
  const [tokenHash, generation, createdAt, [updatedAt, lastAccessedAt, expiresAt, absoluteExpiresAt], lengths] = head
  at++
  const fields: [string, string][] = []
  for (let index = 0; index < lengths.length; index += 2) {
    const middle = at + (lengths[index] as number)
    const end = middle + (lengths[index + 1] as number)
    fields.push([packed.slice(at, middle), packed.slice(middle, end)])
    at = end
  }
  return new SessionData({
    ...head[5],
    id,
    tokenHash,
    generation,
    createdAt,
    updatedAt: createdAt + updatedAt,
    lastAccessedAt: createdAt + lastAccessedAt,
    expiresAt: createdAt + expiresAt,
    absoluteExpiresAt: createdAt + absoluteExpiresAt,
    fields,
  })
}
