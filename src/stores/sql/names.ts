// What the SQL store keeps under a name: the epoch, leases, notes. One row each.
import { SessionError } from '../../errors.js'
import type { SessionNotes } from '../../record/notes.js'
import type { SqlDialect, SqlDriver, SqlResult, SqlSteps, SqlValue } from './driver.js'
import { isDuplicate } from './faults.js'
import { numberOf } from './rows.js'
import type { Statements } from './statements.js'

/** The database, as soon as it is ready. */
export interface Calls {
  readonly dialect: SqlDialect
  readonly statements: Statements
  query(sql: string, values: readonly SqlValue[]): Promise<SqlResult>
  readonly queryNow: SqlDriver['queryNow']
  transaction<T>(steps: () => SqlSteps<T>): Promise<T>
  removeAside: Exclude<SqlDriver['removeAside'], undefined>
}

const EPOCH = 'epoch'

/** How often all sessions have been revoked. */
export async function epochOf({ query, statements, dialect }: Calls, atLeast: number | undefined): Promise<number> {
  if (atLeast !== undefined) {
    const { rows } = await query(statements.raise, [EPOCH, atLeast])
    const [row] = dialect === 'mysql' ? [] : rows
    if (row !== undefined) return numberOf(row, 'n')
  }
  const { rows } = await query(statements.number, [EPOCH])
  return rows[0] === undefined ? 0 : numberOf(rows[0], 'n')
}

/** Takes or prolongs a lease. */
export async function leaseOf(
  { query, statements, dialect }: Calls,
  { name, owner, ttlMs }: { name: string; owner: string; ttlMs: number },
): Promise<boolean> {
  const key = `lease:${name}`
  const { count } = await query(statements.lease, [key, owner, Math.ceil(ttlMs)])
  if (dialect !== 'mysql') return count === 1
  const { rows } = await query(statements.owner, [key])
  return rows[0]?.['owner'] === owner
}

/** The notes: each text as JSON, which databases keep whatever is in it. */
export function sqlNotes(calls: () => Promise<Calls> | Calls): SessionNotes {
  return {
    async put(purpose, key, text, { ttlSeconds, ifAbsent = false }) {
      const { query, statements, dialect } = await calls()
      const name = nameOf(purpose, key)
      const values = [name, JSON.stringify(text), ttlSeconds * 1000]
      if (!ifAbsent) {
        await query(statements.putNote, values)
        return true
      }
      if (dialect !== 'mysql') return (await query(statements.addNote, values)).count === 1
      await query(statements.clearNote, [name])
      return query(statements.addNote, values).then(() => true, falseIfDuplicate)
    },
    async get(purpose, key) {
      const { query, statements } = await calls()
      return textOf(await query(statements.note, [nameOf(purpose, key)]))
    },
    async take(purpose, key) {
      const { query, transaction, statements, dialect } = await calls()
      const name = nameOf(purpose, key)
      if (dialect !== 'mysql') return textOf(await query(statements.takeNote, [name]))
      return transaction(function* () {
        const text = textOf(yield { sql: statements.lockNote, values: [name] })
        if (text !== null) yield { sql: statements.removeNote, values: [name] }
        return text
      })
    },
    async delete(purpose, key) {
      const { query, statements } = await calls()
      await query(statements.removeNote, [nameOf(purpose, key)])
    },
  }
}

function nameOf(purpose: string, key: string): string {
  return `note:${purpose}:${key}`
}

function textOf({ rows }: SqlResult): string | null {
  const [row] = rows
  if (row === undefined) return null
  try {
    const text: unknown = JSON.parse(String(row['text']))
    if (typeof text === 'string') return text
  } catch {
    // Told below.
  }
  throw new SessionError('CORRUPT_RECORD', 'A note in the table of names cannot be read: its text is no JSON text.')
}

export function falseIfDuplicate(error: unknown): false {
  if (isDuplicate(error)) return false
  throw error
}
