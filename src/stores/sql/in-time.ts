// What hands out a token: done by its deadline or not at all. The database judges by its own clock in the statement that
// writes, since what stood still on the way may arrive late; SQLite, which is in this process, by ours.
import { cameTooLate, requireInTime } from '../../record/store.js'
import { ServerClocks } from '../server-clocks.js'
import type { SqlResult, SqlSteps, SqlValue } from './driver.js'
import { isDuplicate } from './faults.js'
import { type Calls, falseIfDuplicate } from './names.js'
import { numberOf } from './rows.js'

/** One session in the place of another. */
export interface Succession {
  readonly id: string
  /** The version of the session that ends. */
  readonly version: number
  /** The columns of its tombstone; 1 if `large` stays as it is, else 0; what it is else. */
  readonly ended: readonly SqlValue[]
  /** All columns of the session that begins. */
  readonly begun: readonly SqlValue[]
  readonly notAfter: number | undefined
}

/** Undoes a transaction whose new ID is in use. */
export class Taken extends Error {}

/** There is one server. */
const SERVER = ''
/** As good as never. */
const WHENEVER = Number.MAX_SAFE_INTEGER

/** Runs what must not come late. */
export class InTime {
  readonly #clocks = new ServerClocks()

  /** Whether a new row was written; `false` when the ID is taken. */
  async create(calls: Calls, values: readonly SqlValue[], notAfter: number | undefined): Promise<boolean> {
    const { query, transaction, statements, dialect } = calls
    requireInTime('create', notAfter)
    if (notAfter === undefined) return query(statements.create, values).then(isOne, falseIfDuplicate)
    if (dialect === 'sqlite') {
      return transaction(function* (): SqlSteps<SqlResult> {
        // It may have waited for a lock of others.
        requireInTime('create', notAfter)
        return yield { sql: statements.create, values }
      }).then(isOne, falseIfDuplicate)
    }
    for (let isSecond = false; ; isSecond = true) {
      const until = await this.#timeAt(calls, notAfter, isSecond)
      const isDone = await query(statements.createInTime, [...values, until]).then(isOne, falseIfDuplicate)
      if (isDone) return true
      const { rows } = await query(statements.read, values.slice(0, 1))
      if (rows.length > 0) return false
      // Its clock may have been set since it last told us the time.
      if (isSecond) throw cameTooLate('create')
      requireInTime('create', notAfter)
    }
  }

  /** `'changed'`: the session is no longer as it was. */
  async succeed(calls: Calls, succession: Succession): Promise<'done' | 'changed' | 'taken'> {
    requireInTime('regenerate', succession.notAfter)
    return calls.dialect === 'postgres'
      ? this.#inOneStatement(calls, succession)
      : this.#inTransaction(calls, succession)
  }

  async #inOneStatement(calls: Calls, succession: Succession): Promise<'done' | 'changed' | 'taken'> {
    const { id, version, ended, begun, notAfter } = succession
    for (let isSecond = false; ; isSecond = true) {
      const until = notAfter === undefined ? WHENEVER : await this.#timeAt(calls, notAfter, isSecond)
      const values = [id, version, until, ...begun, ...ended, id, until]
      const { rows } = await calls.query(calls.statements.succeed, values)
      const [row] = rows
      if (row !== undefined && numberOf(row, 'done') === 1) return 'done'
      if (row !== undefined && numberOf(row, 'found') === 1) return 'taken'
      if (row?.['late'] !== true) return 'changed'
      if (isSecond) throw cameTooLate('regenerate')
      requireInTime('regenerate', notAfter)
    }
  }

  async #inTransaction(calls: Calls, succession: Succession): Promise<'done' | 'changed' | 'taken'> {
    const { transaction, statements, dialect } = calls
    const { id, version, ended, begun, notAfter } = succession
    const isHere = dialect === 'sqlite' || notAfter === undefined
    const until = isHere ? WHENEVER : await this.#timeAt(calls, notAfter, false)
    // Of many at once one finds the version. What it does is done whole, or undone when the new ID is taken.
    return transaction(function* (): SqlSteps<'done' | 'changed'> {
      requireInTime('regenerate', notAfter)
      const old = yield { sql: statements.endInTime, values: [...ended, id, version, until] }
      if (old.count !== 1) return 'changed'
      const created = yield { sql: statements.create, values: begun }
      if (created.count !== 1) throw new Taken()
      requireInTime('regenerate', notAfter)
      return 'done'
    }).catch((error) => {
      if (error instanceof Taken || isDuplicate(error)) return 'taken' as const
      throw error
    })
  }

  /** The time over there when it is `moment` here: that or later. */
  async #timeAt({ query, statements }: Calls, moment: number, isAnew: boolean): Promise<number> {
    const known = isAnew ? null : this.#clocks.timeAt(SERVER, moment)
    if (known !== null) return known
    const sentAt = performance.now()
    const { rows } = await query(statements.time, [])
    if (rows[0] !== undefined) this.#clocks.note(SERVER, { time: numberOf(rows[0], 'time'), sentAt })
    // When that took most of the time that there was, what is left is not worth asking again for.
    return this.#clocks.timeAt(SERVER, moment) ?? 0
  }
}

function isOne({ count }: SqlResult): boolean {
  return count === 1
}
