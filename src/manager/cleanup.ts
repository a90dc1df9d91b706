// Clean-up: sessions that ran out are archived, ended and taken off their user's list, by one process at a time; those that
// somebody ended are archived, if that is asked for.
import { randomUUID } from 'node:crypto'
import { isSessionError, SessionError } from '../errors.js'
import type { Lifecycle } from '../lifecycle/lifecycle.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import { storedSessionOf } from '../record/session-info.js'
import { warnOfFailure } from '../warn.js'

/** What a clean-up did. */
export interface CleanUpResult {
  /** Sessions that were over, and whose data is gone now. */
  readonly removed: number
  /** Sessions that were kept for the next time, because `archive` or the store failed. */
  readonly failed: number
}

/** The right to clean up, until this long after its last prolongation: a process that dies is replaced after it. */
const LEASE_MS = 30_000
/** Less than the rest of the lease, by what one `archive` and the store may take. */
const PROLONG_AFTER_MS = 5_000
/** For what part of the interval the turn is taken: less than the whole, so that the next timer finds it free. */
const TURN_SHARE = 0.9
/** Sessions that are archived at once. */
const PARALLEL = 10
/** An `archive` that takes longer has failed. */
const ARCHIVE_TIMEOUT_MS = 20_000

/** Cleans up when asked and, with a `cleanupInterval`, by itself. */
export class CleanUp {
  readonly #engine: Lifecycle
  /** Names this process in the lease. */
  readonly #owner = randomUUID()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<CleanUpResult | null> | null = null
  #isStopped = false

  constructor(engine: Lifecycle) {
    this.#engine = engine
    const { cleanupIntervalMs } = engine.options
    if (cleanupIntervalMs === 0) return
    this.#timer = setInterval(() => {
      // A failure of the store has been told as an event.
      this.#runInTurn(cleanupIntervalMs).catch((error) => {
        if (!isSessionError(error)) warnOfFailure('The clean-up', error)
      })
    }, cleanupIntervalMs)
    this.#timer.unref()
  }

  /** Goes through the store once. `null`: another process is at it. Calls at the same time share one run. */
  run(): Promise<CleanUpResult | null> {
    this.#running ??= this.#run().finally(() => {
      this.#running = null
    })
    return this.#running
  }

  /** No run begins any more; one that is under way ends after the sessions at hand. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearInterval(this.#timer)
    await this.#running?.catch(() => {})
  }

  /** Once in an interval for all processes: the first to come has the turn, and nobody a second one. */
  async #runInTurn(intervalMs: number): Promise<void> {
    // Timers of two processes may be a little apart.
    if (await this.#engine.lease('cleanup-turn', randomUUID(), TURN_SHARE * intervalMs)) await this.run()
  }

  async #run(): Promise<CleanUpResult | null> {
    if (this.#isStopped || !(await this.#engine.lease('cleanup', this.#owner, LEASE_MS))) return null
    const tally = { removed: 0, failed: 0 }
    try {
      if (this.#engine.canScan) await this.#sweep(tally)
      await this.#engine.clearExpired()
    } finally {
      // Another process may go on at once.
      await this.#engine.lease('cleanup', this.#owner, 1).catch(() => {})
    }
    this.#engine.events.emit('cleaned', tally)
    return tally
  }

  async #sweep(tally: { removed: number; failed: number }): Promise<void> {
    const underWay = new Set<Promise<void>>()
    let prolongAt = performance.now() + PROLONG_AFTER_MS
    try {
      for await (const record of this.#engine.scan()) {
        if (this.#isStopped) break
        if (performance.now() >= prolongAt) {
          prolongAt = performance.now() + PROLONG_AFTER_MS
          if (!(await this.#engine.lease('cleanup', this.#owner, LEASE_MS))) break
        }
        const isDue = record.ended === undefined ? this.#engine.endOf(record) !== null : record.ended.unarchived
        if (!isDue) continue
        const task: Promise<void> = this.#remove(record.id)
          .then((isRemoved) => {
            if (isRemoved) tally.removed++
          })
          .catch(() => {
            tally.failed++
          })
          .finally(() => underWay.delete(task))
        underWay.add(task)
        if (underWay.size >= PARALLEL) await Promise.race(underWay)
      }
    } finally {
      await Promise.all(underWay)
    }
  }

  /** Archives first: whoever dies in between leaves the session for the next run. */
  async #remove(id: string): Promise<boolean> {
    // A store reads many at a time, and the session may have been used since.
    const record = await this.#findOver(id)
    if (record === null) return false
    if (record.ended !== undefined) return this.#archiveEnded(record, record.ended)
    // One that ran out may have done so before all sessions were revoked.
    const end = this.#engine.times.expiryOf(record)
    if (end === null) {
      const hasEnded = await this.#engine.end(record, { reason: 'revoked' })
      // With its fields, it is to be archived as one that somebody ended.
      return this.#engine.options.archiveEnded ? this.#remove(id) : hasEnded
    }
    if (this.#engine.options.archive !== undefined) {
      await this.#archive(record, end)
      // The request of the last moment may have been stored meanwhile.
      if ((await this.#findOver(id)) === null) return false
    }
    return this.#engine.expire(record, end)
  }

  /** Of what somebody ended, the fields are here until they are archived. */
  async #archiveEnded(record: SessionData, ended: SessionEnd): Promise<boolean> {
    const end = { ...ended, unarchived: undefined }
    await this.#archive(record, end)
    await this.#engine.endings.archived(record, end)
    return true
  }

  /** The record of a session that is over and not yet ended, or not yet archived. */
  async #findOver(id: string): Promise<SessionData | null> {
    const record = await this.#engine.peek(id)
    if (record === null || record === 'corrupt') return null
    if (record.ended) return record.ended.unarchived ? record : null
    return this.#engine.endOf(record) && record
  }

  async #archive(record: SessionData, end: SessionEnd): Promise<void> {
    const { archive, codec } = this.#engine.options
    if (archive === undefined) return
    const { events } = this.#engine
    const { id, userId } = record
    const stored = storedSessionOf(record, end, { codec, now: this.#engine.now() }, (field, cause) => {
      events.emit('corruptRecord', { id, field, cause })
    })
    try {
      await withinDeadline(async () => archive(stored))
    } catch (cause) {
      events.emit('archiveFailed', { id, userId, cause })
      throw cause
    }
  }
}

/** One that never ends must not hold up the others. */
async function withinDeadline(task: () => Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new SessionError('STORE_TIMEOUT', `archive did not end within ${ARCHIVE_TIMEOUT_MS} ms.`))
    }, ARCHIVE_TIMEOUT_MS)
    timer.unref()
  })
  try {
    await Promise.race([task(), deadline])
  } finally {
    clearTimeout(timer)
  }
}
