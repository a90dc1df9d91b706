// How a file is sent to a client: the part that it asks for, and the head that keeps a stranger's file from being run.

import { invalidArgument, SessionError } from '../../errors.js'

/** The first and the last byte of a part. */
export interface RangeOfFile {
  readonly start: number
  readonly end: number
}

/**
 * The part that is asked for; `undefined` for the whole.
 * @throws {SessionError} `RANGE_NOT_SATISFIABLE` when it begins behind the end
 */
export function rangeOf(
  asked: string | { readonly start: number; readonly end?: number | undefined } | undefined,
  bytes: number,
): RangeOfFile | undefined {
  if (asked === undefined) return undefined
  const wanted = typeof asked === 'string' ? parsed(asked, bytes) : checked(asked)
  if (wanted === undefined) return undefined
  const end = Math.min(wanted.end ?? bytes - 1, bytes - 1)
  if (wanted.start > end) {
    throw new SessionError(
      'RANGE_NOT_SATISFIABLE',
      `The file has ${bytes} bytes; the part that was asked for begins behind.`,
    )
  }
  return { start: wanted.start, end }
}

type Wanted = { readonly start: number; readonly end?: number | undefined }

/** RFC 9110, 14.2: what cannot be understood is as good as absent. */
function parsed(header: string, bytes: number): Wanted | undefined {
  const [, first = '', last = ''] = /^bytes=\s*(\d*)\s*-\s*(\d*)\s*$/.exec(header) ?? []
  if (first === '' && last === '') return undefined
  if (first === '') return last === '0' ? { start: bytes } : { start: Math.max(0, bytes - Number(last)) }
  if (last === '') return { start: Number(first) }
  return Number(last) < Number(first) ? undefined : { start: Number(first), end: Number(last) }
}

function checked({ start, end }: Wanted): Wanted {
  const isPosition = (value: number): boolean => Number.isSafeInteger(value) && value >= 0
  if (isPosition(start) && (end === undefined || (isPosition(end) && end >= start))) return { start, end }
  throw invalidArgument('A range has a start, and perhaps an end, counted in bytes from 0.')
}

/** The head of a response with a file. */
export function servingHeaders(file: {
  name: string
  bytes: number
  part: RangeOfFile | undefined
}): Record<string, string> {
  const { name, bytes, part } = file
  return {
    'Content-Type': 'application/octet-stream',
    'Content-Length': String(part === undefined ? bytes : part.end - part.start + 1),
    'Content-Disposition': disposition(name),
    'X-Content-Type-Options': 'nosniff',
    'Accept-Ranges': 'bytes',
    ...(part && { 'Content-Range': `bytes ${part.start}-${part.end}/${bytes}` }),
  }
}

/** RFC 6266: what is not plain ASCII goes percent-encoded, with a plain name for who does not know that form. */
function disposition(name: string): string {
  const plain = name.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  const encoded = encodeURIComponent(name.toWellFormed()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`
}
