// Names of files: which are safe on every system, and what a client's name becomes. No path of ours is made of anything else.

import { SessionError } from '../../errors.js'

/** Of UTF-8; file systems take 255. */
const MAX_BYTES = 200
/** What a shortened name keeps of its end. */
const MAX_EXTENSION_BYTES = 20
const FALLBACK = 'file'

/** Separators, drives and streams, wildcards, control characters, and what turns the direction of text. */
const FORBIDDEN = /[/\\:*?"<>|\p{Cc}\p{Bidi_Control}]/u
const ALL_FORBIDDEN = new RegExp(FORBIDDEN, 'gu')
/** Devices of Windows, with any extension. */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?$/i

/**
 * A safe name made of any text, such as the name that a client gave its file: the part behind the last slash, what is not safe
 * replaced by `_`, at most 200 bytes. `'../../etc/passwd'` becomes `'passwd'`, and what has nothing left `'file'`.
 */
export function safeFileName(name: string): string {
  const last = String(name).toWellFormed().normalize('NFC').split(/[/\\]/).at(-1) ?? ''
  const cleaned = trimmed(last.replace(ALL_FORBIDDEN, '_'))
  const kept = DEVICE.test(cleaned) ? `_${cleaned}` : cleaned
  return kept === '' ? FALLBACK : shortened(kept)
}

/**
 * A name as it is kept, in Unicode's form NFC.
 * @throws {SessionError} `INVALID_FILE_NAME`
 */
export function checkFileName(name: unknown): string {
  if (typeof name !== 'string') throw refused('it is no text')
  const composed = name.normalize('NFC')
  const problem = problemOf(composed)
  if (problem !== null) throw refused(problem)
  return composed
}

/**
 * The parts of a path in a workspace: separated by `/`, each a name.
 * @throws {SessionError} `INVALID_FILE_NAME` for absolute paths, `..`, and names that are not safe
 */
export function partsOfPath(path: unknown): string[] {
  if (typeof path !== 'string' || path === '') throw refused('it is no text, or empty')
  const parts = path.split('/')
  for (const part of parts) {
    // What an archive unpacks may be hidden, and is not renamed.
    const problem = part === '.' || part === '..' || part === '' ? 'it leads elsewhere' : problemOf(part, true)
    if (problem !== null) throw refused(problem)
  }
  return parts
}

/** Names that some file system takes for one and the same have the same key. */
export function nameKey(name: string): string {
  return name.normalize('NFC').toLowerCase()
}

/** `'photo.png'` as `'photo (2).png'`. */
export function numbered(name: string, number: number): string {
  const dot = name.lastIndexOf('.')
  const [stem, extension] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  const mark = ` (${number})`
  return cut(stem, MAX_BYTES - Buffer.byteLength(mark + extension)) + mark + extension
}

export function refused(problem: string): SessionError {
  return new SessionError('INVALID_FILE_NAME', `The file name or path is refused: ${problem}.`)
}

function problemOf(name: string, mayBeHidden = false): string | null {
  if (name === '') return 'it is empty'
  if (!name.isWellFormed()) return 'it is no well-formed text'
  if (Buffer.byteLength(name) > MAX_BYTES) return `it is longer than ${MAX_BYTES} bytes`
  if (FORBIDDEN.test(name)) return 'it has a character that is not safe in names'
  if (name.startsWith('.') && !mayBeHidden) return 'it begins with a dot'
  if (/^\s|[\s.]$/.test(name)) return 'it begins or ends with a space, or ends with a dot'
  return DEVICE.test(name) ? 'it is the name of a device' : null
}

function trimmed(name: string): string {
  return name.replace(/^[\s.]+|[\s.]+$/g, '')
}

function shortened(name: string): string {
  if (Buffer.byteLength(name) <= MAX_BYTES) return name
  const dot = name.lastIndexOf('.')
  const end = dot > 0 ? name.slice(dot) : ''
  const extension = Buffer.byteLength(end) <= MAX_EXTENSION_BYTES ? end : ''
  const stem = extension === '' ? name : name.slice(0, dot)
  return trimmed(cut(stem, MAX_BYTES - Buffer.byteLength(extension))) + extension
}

/** By whole characters. */
function cut(text: string, bytes: number): string {
  let kept = ''
  let size = 0
  for (const character of text) {
    size += Buffer.byteLength(character)
    if (size > bytes) break
    kept += character
  }
  return kept
}
