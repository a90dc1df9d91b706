// What a database or its client throws, in our words. Texts of theirs may hold parameters, which are session values: of an
// error only its name, its codes and where it came from go on.
import { isSessionError, SessionError } from '../../errors.js'

/** The signs that an error of any client bears. */
export interface Fault {
  /** An SQLSTATE, a name such as `SQLITE_BUSY` or `ER_DUP_ENTRY`, or one of Node's. */
  readonly code: string
  /** The number that MySQL and MariaDB give. */
  readonly errno: number
}

export function faultOf(error: unknown): Fault {
  const { code, errno, errcode, errstr } = (error ?? {}) as Record<string, unknown>
  // node:sqlite has all of it in a number, of which the lower byte is the kind.
  if (typeof errcode === 'number' && typeof errstr === 'string') {
    return { code: NODE_SQLITE_CODES[errcode & 255] ?? `SQLITE_${errcode}`, errno: 0 }
  }
  return {
    code: typeof code === 'string' ? code : '',
    errno: typeof errno === 'number' ? errno : 0,
  }
}

const NODE_SQLITE_CODES: Record<number, string> = {
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
  19: 'SQLITE_CONSTRAINT',
  26: 'SQLITE_NOTADB',
}

/** Whether another connection to the SQLite file holds the lock. */
export function isBusy(error: unknown): boolean {
  const { code } = faultOf(error)
  return code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')
}

/** Whether a transaction was undone because of another one, and may be tried again. */
export function isUndone(error: unknown): boolean {
  const { code, errno } = faultOf(error)
  return code === '40001' || code === '40P01' || errno === 1213 || isBusy(error)
}

/** Whether a row of that key is there already. */
export function isDuplicate(error: unknown): boolean {
  const { code, errno } = faultOf(error)
  return code === '23505' || errno === 1062 || code.startsWith('SQLITE_CONSTRAINT')
}

export function isMissingTable(error: unknown): boolean {
  const { code, errno } = faultOf(error)
  const { message } = (error ?? {}) as { message?: unknown }
  return code === '42P01' || code === '3F000' || errno === 1146 || /no such table/.test(String(message))
}

const REASONS: readonly (readonly [sign: RegExp, reason: string])[] = [
  [/^28P01$|ER_ACCESS_DENIED/, 'the server does not know this user and password'],
  [/^28000$/, 'the server does not let this user in from here (pg_hba.conf)'],
  [/^42501$|ER_TABLEACCESS_DENIED/, 'the user lacks rights; the documentation lists what the store needs'],
  [/^3D000$|ER_BAD_DB/, 'there is no database of that name'],
  [/^53300$|ER_CON_COUNT|ER_TOO_MANY_USER/, 'the server has no room for another connection'],
  [/^25006$|ER_OPTION_PREVENTS|ER_READ_ONLY/, 'the server only reads: it is a replica. Connect to the primary'],
  [/^(57P0[123]|57014)$/, 'the server shut down, or cancelled the statement'],
  [/^(42P05|26000)$/, 'a pooler gives statements another connection than they were prepared on. Set prepare to false'],
  [/^53100$|SQLITE_FULL/, 'the disk is full'],
  [/^SQLITE_(BUSY|LOCKED)/, 'the file was locked by others all the time'],
  [/^SQLITE_CANTOPEN/, 'the file cannot be opened. Is the directory there, and may this process write to it?'],
  [/^SQLITE_READONLY/, 'the file, or its directory, cannot be written to'],
  [/^SQLITE_(NOTADB|CORRUPT)/, 'the file is not a database of SQLite, or is damaged'],
  [/^ECONNREFUSED$/, 'nothing listens there. Is the server running, and are host and port right?'],
  [/^(ENOTFOUND|EAI_AGAIN)$/, 'the host name is not known'],
  [/^(ETIMEDOUT|CONNECT_TIMEOUT)$/, 'the host does not answer. Is a firewall in between?'],
  [/^(EHOSTUNREACH|ENETUNREACH)$/, 'the host cannot be reached'],
  [/^(ECONNRESET|EPIPE|PROTOCOL_CONNECTION_LOST|CONNECTION_(CLOSED|ENDED|DESTROYED))$/, 'the connection was closed'],
]

/** What goes on of an error: `STORE_UNAVAILABLE` with the reason in words, and a cause without any value. */
export function explained(error: unknown): SessionError {
  if (isSessionError(error)) return error
  const cause = withoutValues(error)
  if (isMissingTable(error)) {
    return new SessionError(
      'STORE_UNAVAILABLE',
      'The database has no tables for sessions: call migrate() of the store once, by a role that may create tables.',
      { cause },
    )
  }
  const { code } = faultOf(error)
  const reason = REASONS.find(([sign]) => sign.test(code))?.[1]
  const why = reason === undefined ? named(code) : `${reason}${code === '' ? '' : ` (${code})`}`
  return new SessionError('STORE_UNAVAILABLE', `The database failed: ${why}.`, { cause })
}

/** No connection became free in time. Nothing was done. */
export function noConnection(): SessionError {
  return new SessionError(
    'STORE_TIMEOUT',
    'No connection to the database became free in time; nothing was done. Make the pool larger, or look for what keeps connections.',
  )
}

function named(code: string): string {
  return /^\w{2,40}$/.test(code) ? `error ${code}` : 'an error without a code'
}

/** An error in its place that says where it came from and what it was, but for words that may hold a value. */
function withoutValues(error: unknown): Error {
  const { code, errno } = faultOf(error)
  const { name, stack } = (error ?? {}) as { name?: unknown; stack?: unknown }
  const kind = typeof name === 'string' && /^\w{1,40}$/.test(name) ? name : 'Error'
  const clean = new Error(`${kind}: ${named(code)}`)
  const frames = typeof stack === 'string' ? stack.split('\n').filter((line) => /^\s+at /.test(line)) : []
  clean.stack = [`${clean.name}: ${clean.message}`, ...frames].join('\n')
  return Object.assign(clean, { code, ...(errno !== 0 && { errno }) })
}
