// How a session is written in Redis: one string of lines, each a name, a tab and a text. Metadata has names of one letter, the
// application's field `x` the name `.x`. What would break a line is escaped, which no JSON needs.
//   m  "generation createdAt updatedAt lastAccessedAt expiresAt absoluteExpiresAt revision", in base 36, the four in the
//      middle relative to createdAt; behind them the epoch when it is not 0. The first line of a live record
//   t  token hash                                            p  "hash until" of the token before the last renewal,
//                                                             and the present one sealed until the client has shown it
//   k  when the present token was issued, in ms, if later than the session
//   u  user ID as JSON                                       l  logical ID
//   v  1 when it cannot be told any more when the user proved who they are
//   i  this session's own idle timeout in ms                 s  this session's own persistence, 0 or 1
//   c  context as JSON                                       x  the end as JSON: a tombstone, and its first line
//   b  bytes from the beginning to the large fields: the second line where there are any
//
// In a session of more than `SMALL_RECORD` characters the texts above `SMALL_TEXT` are large fields. They come last, behind
// some empty lines, so that the others have room to grow and a change of those is not a matter of the session's size. What a
// script has merged or regenerated may have them anywhere, without `b`, until the next change from here lays it out again.
//
// Who edits a record by hand changes its revision as well, or a request under way may overwrite that.
import { SessionError } from '../../errors.js'
import { Recent } from '../../recent.js'
import type { SessionChange } from '../../record/changes.js'
import {
  type PreviousToken,
  readContext,
  readEnd,
  type SessionContext,
  SessionData,
  type SessionDataInit,
  type SessionEnd,
} from '../../record/session-data.js'

/** Up to so many characters, a session is written as a whole each time. */
const SMALL_RECORD = 4_096
/** The longest text that is no large field in a session above that. */
const SMALL_TEXT = 256

/** How a record is written. */
export interface Layout {
  /** The line of times. With its revision it is that of one write and no other. */
  readonly line: string
  /** What comes before the large fields, or everything. Of a record that was read it may be left out. */
  readonly front: string
  /** The large fields; `null` when there are none. */
  readonly large: LargeFields | null
  /** Lines that say nothing to us: a later version may have written them. */
  readonly others: string
}

export interface LargeFields {
  readonly names: ReadonlySet<string>
  /** Bytes from the beginning of the record to them; `NaN` when that is not where the record says. */
  readonly at: number
}

/** A record as it was read or written, with what it takes to do a change made on it quickly. */
export class StoredData extends SessionData {
  readonly #layout: Layout

  constructor(init: SessionDataInit, layout: Layout) {
    super(init)
    this.#layout = layout
  }

  /** Of the instance alone: a copy by `with()` is not what is stored. */
  static layoutOf(record: SessionData | undefined): Layout | null {
    return record !== undefined && #layout in record ? record.#layout : null
  }
}

/** The small records that were read or written last. While the text of one is the same, it is not taken apart again. */
export class RecentRecords {
  readonly #records = new Recent<SessionData>()

  /** @throws {SessionError} `CORRUPT_RECORD` */
  decode(id: string, text: string, maxFields?: number): SessionData {
    const recent = this.#records.get(id)
    if (StoredData.layoutOf(recent)?.front === text) return recent as SessionData
    const record = decodeRecord(id, text, maxFields)
    this.add(record)
    return record
  }

  add(record: SessionData): void {
    const layout = StoredData.layoutOf(record)
    const isSmall = layout?.large === null && layout.front.length <= SMALL_RECORD
    if (isSmall) this.#records.set(record.id, record)
    else this.#records.delete(record.id)
  }
}

/** Lays out what a change of `before` has made of it. */
export function layOutChange(data: SessionData, before: Layout, change: SessionChange): Layout {
  return spliced(data, before, change) ?? layOut(data, before)
}

/** A small record with some of its fields changed: the lines of the others are taken as they are. */
function spliced(
  data: SessionData,
  before: Layout,
  { metadata, renew, set, delete: removed }: SessionChange,
): Layout | null {
  if (metadata || renew || before.large !== null || !before.front.startsWith(before.line)) return null
  const line = timesLine(data)
  let front = line + before.front.slice(before.line.length)
  if (removed) for (const name of removed) front = withLine(front, lineName(name), '')
  if (set)
    for (const [name, text] of set) front = withLine(front, lineName(name), `${lineName(name)}\t${escaped(text)}\n`)
  return front.length <= SMALL_RECORD ? { ...before, line, front } : null
}

/** The text with another line in the place of the one of that name, or at the end when there is none. */
function withLine(text: string, name: string, line: string): string {
  const from = text.indexOf(`\n${name}\t`) + 1
  return from === 0 ? text + line : text.slice(0, from) + line + text.slice(text.indexOf('\n', from) + 1)
}

/** Lays out a record, with the large fields at the place where they were if that still serves. */
export function layOut(data: SessionData, before: Layout | null = null): Layout {
  const line = timesLine(data)
  const others = before?.others ?? ''
  let front = others
  for (const [name, text] of metadataLines(data)) front += `${name}\t${text}\n`
  // A tombstone is never written in part.
  const names = data.ended === undefined && sizeOf(data) > SMALL_RECORD ? namesOfLarge(data) : null
  for (const [name, text] of data.fields) if (!names?.has(name)) front += `${lineName(name)}\t${escaped(text)}\n`
  if (data.ended) return { line, front: `x\t${encodeEnd(data.ended)}\n${line}${front}`, large: null, others }
  if (names === null) return { line, front: line + front, large: null, others }

  const length = Buffer.byteLength(line) + Buffer.byteLength(front)
  const least = length + 'b\t000000000\n\n'.length
  const isRoomLeft = before?.large && least <= before.large.at
  const at = isRoomLeft ? before.large.at : least + ROOM + (least >> 3)
  const reserved = `b\t${at}\n`
  const room = '\n'.repeat(at - length - reserved.length)
  return { line, front: `${line}${reserved}${front}${room}`, large: { names, at }, others }
}

/** The least that is left free before large fields, in bytes. */
const ROOM = 128

function namesOfLarge({ fields }: SessionData): ReadonlySet<string> | null {
  const names = new Set<string>()
  for (const [name, text] of fields) if (text.length > SMALL_TEXT) names.add(name)
  return names.size === 0 ? null : names
}

/** All of a record that is laid out so. */
export function textOf(data: SessionData, { front, large }: Layout): string {
  if (large === null) return front
  let text = front
  for (const name of large.names) text += `${lineName(name)}\t${escaped(data.fields.get(name) as string)}\n`
  return text
}

/** Names and texts of a live record, in turn. */
export function linesOf(data: SessionData): string[] {
  const lines = ['m', encodeTimes(data)]
  for (const [name, text] of metadataLines(data)) lines.push(name, text)
  for (const [name, text] of data.fields) lines.push(lineName(name), escaped(text))
  return lines
}

function sizeOf({ fields }: SessionData): number {
  let size = 0
  for (const [name, text] of fields) size += name.length + text.length
  return size
}

/** Names and texts of the metadata, but for the times and the end. */
function metadataLines(data: SessionData): [string, string][] {
  const lines: [string, string][] = [['t', escaped(data.tokenHash)]]
  if (data.previousToken) lines.push(['p', escaped(encodePrevious(data.previousToken))])
  if (data.tokenSince !== undefined) lines.push(['k', String(data.tokenSince)])
  if (data.userId !== undefined) lines.push(['u', JSON.stringify(data.userId)])
  if (data.unproven) lines.push(['v', '1'])
  if (data.idleTimeoutMs !== undefined) lines.push(['i', String(data.idleTimeoutMs)])
  if (data.persistent !== undefined) lines.push(['s', data.persistent ? '1' : '0'])
  if (data.cookieEndsAt !== undefined) lines.push(['o', String(data.cookieEndsAt)])
  if (data.logicalId !== undefined) lines.push(['l', escaped(data.logicalId)])
  if (data.context) lines.push(['c', encodeContext(data.context)])
  return lines
}

/** The name of a field's line. */
export function lineName(name: string): string {
  return `.${escaped(name)}`
}

/** The same text in a line: what ends a name or a line, and the mark itself, as a mark and a letter. */
export function escaped(text: string): string {
  return BREAKS.test(text) ? text.replace(ALL_BREAKS, (character) => MARK + ESCAPES[character]) : text
}

export function unescaped(text: string): string {
  return text.includes(MARK) ? text.replace(ALL_ESCAPES, (_all, letter: string) => UNESCAPES[letter] ?? '') : text
}

const MARK = '\u001b'
const ESCAPES: Record<string, string> = { '\n': 'n', '\t': 't', [MARK]: 'e' }
const UNESCAPES: Record<string, string> = { n: '\n', t: '\t', e: MARK }
const BREAKS = new RegExp(`[\n\t${MARK}]`)
const ALL_BREAKS = new RegExp(BREAKS, 'g')
const ALL_ESCAPES = new RegExp(`${MARK}(.?)`, 'gs')

function timesLine(data: SessionData): string {
  return `m\t${encodeTimes(data)}\n`
}

/** What stands under `m`. */
function encodeTimes(data: SessionData): string {
  const { createdAt, epoch } = data
  const since = (time: number): string => base36(time - createdAt)
  const times = `${since(data.updatedAt)} ${since(data.lastAccessedAt)} ${since(data.expiresAt)} ${since(data.absoluteExpiresAt)}`
  const revision = base36(REVISIONS * (1 + Math.random()))
  return `${base36(data.generation)} ${base36(createdAt)} ${times} ${revision}${epoch === 0 ? '' : ` ${base36(epoch)}`}`
}

/** Two writes that come from one and the same reading, in one millisecond, agree in this once in so many times. */
const REVISIONS = 36 ** 4 * 17

/** @throws {SessionError} `CORRUPT_RECORD` for what could not be read again. */
function base36(count: number): string {
  const whole = Math.max(0, Math.round(count))
  if (!(whole < 36 ** 10)) throw corrupt('a time or count is beyond all bounds')
  return whole.toString(36)
}

/** A list, shorter than an object. */
function encodeContext({ ip, userAgent, referrer, locale }: SessionContext): string {
  const texts = [ip, userAgent, referrer, locale].map((text) => text ?? null)
  while (texts.at(-1) === null) texts.pop()
  return JSON.stringify(texts)
}

export function encodeEnd({ reason, at, by, detail, successor, unarchived }: SessionEnd): string {
  return JSON.stringify({ reason, at, by, detail, successor, unarchived })
}

/** @throws {SessionError} `CORRUPT_RECORD`, also for more than `maxFields` lines of fields. */
export function decodeRecord(id: string, text: string, maxFields = Number.POSITIVE_INFINITY): SessionData {
  const metadata: Metadata = {}
  const fields = new Map<string, string>()
  const { largeNames, largeAt, others, isPlain } = decodeLines(text, { metadata, fields, maxFields })
  const [generation, createdAt, updated, accessed, expires, absolute, , epoch] = decodeTimes(metadata.m)
  if (metadata.t === undefined) throw corrupt('metadata is missing')
  const init: SessionDataInit = {
    id,
    tokenHash: metadata.t,
    generation,
    createdAt,
    updatedAt: createdAt + updated,
    lastAccessedAt: createdAt + accessed,
    expiresAt: createdAt + expires,
    absoluteExpiresAt: createdAt + absolute,
    previousToken: decodePrevious(metadata.p),
    tokenSince: metadata.k === undefined ? undefined : Number(metadata.k),
    userId: decodeUser(metadata.u),
    unproven: metadata.v === undefined ? undefined : true,
    idleTimeoutMs: metadata.i === undefined ? undefined : Number(metadata.i),
    persistent: metadata.s === undefined ? undefined : metadata.s === '1',
    cookieEndsAt: metadata.o === undefined ? undefined : Number(metadata.o),
    logicalId: metadata.l,
    context: decodeContext(metadata.c),
    epoch: epoch ?? 0,
    ended: decodeEnd(metadata.x),
    fields,
  }
  const isWhereItSays = largeNames !== null && Buffer.byteLength(text.slice(0, largeAt)) === Number(metadata.b)
  const large = largeNames && { names: largeNames, at: isWhereItSays ? Number(metadata.b) : Number.NaN }
  return new StoredData(init, { line: `m\t${metadata.m}\n`, front: isPlain ? text : '', large, others })
}

type Metadata = { [name in Letter]?: string }
type Letter = 'm' | 't' | 'p' | 'k' | 'o' | 'u' | 'v' | 'i' | 's' | 'l' | 'c' | 'b' | 'x'
const LETTERS: ReadonlySet<string> = new Set<Letter>(['m', 't', 'p', 'k', 'o', 'u', 'v', 'i', 's', 'l', 'c', 'b', 'x'])

/** What `decodeLines()` finds besides metadata and fields. */
interface Findings {
  /** The fields behind the empty lines; `null` when there are no such lines. */
  largeNames: Set<string> | null
  /** Where they begin, in characters. */
  largeAt: number
  others: string
  /** Whether there are no large fields, and no field comes twice: what we write, but not what anybody may have. */
  isPlain: boolean
}

/** Takes lines apart. Of two of one name the later one counts. */
function decodeLines(
  text: string,
  { metadata, fields, maxFields }: { metadata: Metadata; fields: Map<string, string>; maxFields: number },
): Findings {
  let largeNames: Set<string> | null = null
  let largeAt = 0
  let others = ''
  let count = 0
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at)
    if (end === at) {
      while (text.charCodeAt(at) === 10 /* \n */) at++
      largeNames ??= new Set()
      largeAt ||= at
      continue
    }
    const tab = text.indexOf('\t', at)
    if (end === -1 || tab === -1 || tab > end) throw corrupt('a line is broken')
    const name = text.slice(at, tab)
    const value = unescaped(text.slice(tab + 1, end))
    if (text.charCodeAt(at) === 46 /* . */) {
      const field = unescaped(name.slice(1))
      fields.set(field, value)
      largeNames?.add(field)
      count++
      if (count > maxFields) throw corrupt(`it has more than ${maxFields} fields`)
    } else if (LETTERS.has(name)) metadata[name as Letter] = value
    else others += text.slice(at, end + 1)
    at = end + 1
  }
  return { largeNames, largeAt, others, isPlain: largeNames === null && count === fields.size }
}

const TIMES = /^[\da-z]{1,10}( [\da-z]{1,10}){6,7}$/

type Times = [number, number, number, number, number, number, number, number?]

function decodeTimes(text: string | undefined): Times {
  if (text === undefined || !TIMES.test(text)) throw corrupt('metadata is missing')
  return text.split(' ').map((digits) => Number.parseInt(digits, 36)) as Times
}

/** What stands under `p`. */
export function encodePrevious({ hash, until, sealed }: PreviousToken): string {
  return sealed === undefined ? `${hash} ${until}` : `${hash} ${until} ${sealed}`
}

function decodePrevious(text: string | undefined): PreviousToken | undefined {
  const [hash, until, sealed] = text?.split(' ') ?? []
  if (hash === undefined || until === undefined) return undefined
  return sealed === undefined ? { hash, until: Number(until) } : { hash, until: Number(until), sealed }
}

function decodeUser(text: string | undefined): string | number | undefined {
  if (text === undefined) return undefined
  const userId = parse(text)
  if (typeof userId !== 'string' && typeof userId !== 'number') throw corrupt('the user ID is not a string or number')
  return userId
}

function decodeContext(text: string | undefined): SessionContext | undefined {
  if (text === undefined) return undefined
  const texts = parse(text)
  if (!Array.isArray(texts)) throw corrupt('the context is not a list')
  const [ip, userAgent, referrer, locale] = texts.map((each: unknown) => each ?? undefined)
  return readContext({ ip, userAgent, referrer, locale })
}

export function decodeEnd(text: string | undefined): SessionEnd | undefined {
  return text === undefined ? undefined : readEnd(parse(text))
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    throw corrupt('what should be JSON is not')
  }
}

/** Of what is no record, but kept beside them. */
export function corruptKey(key: string, cause: unknown): SessionError {
  return new SessionError('CORRUPT_RECORD', `What Redis has under the key ${key} cannot be read: mend or delete it.`, {
    cause,
  })
}

export function corrupt(reason: string, cause?: unknown): SessionError {
  return new SessionError('CORRUPT_RECORD', `The session record in Redis cannot be read: ${reason}.`, { cause })
}
