// Seals the fields of all sessions anew that are not as they would be sealed now.
import { randomUUID } from 'node:crypto'
import { isSessionError, SessionError } from '../errors.js'
import type { Lifecycle } from '../lifecycle/lifecycle.js'
import { codecOf, resealed } from '../record/binding.js'
import type { SessionCodec } from '../record/codec.js'
import { isOwnField } from '../record/hidden-fields.js'
import { textOf } from '../record/lifetime.js'
import type { SessionData } from '../record/session-data.js'

/** How far `manager.reencrypt()` is. */
export interface ReencryptProgress {
  /** Live sessions that were looked at. */
  readonly sessions: number
  /** Fields that were written anew. */
  readonly rewritten: number
  /** Fields that cannot be opened, and are left as they are: each is told as `corruptRecord`. */
  readonly unreadable: number
  /** Fields that could not be written, because the store failed or they are too large now. Call it again for these. */
  readonly failed: number
}

/** What `manager.reencrypt()` has done. */
export interface ReencryptResult extends ReencryptProgress {
  /** Whether it went through the whole store: not after `signal` stopped it. */
  readonly isWhole: boolean
}

/** What `manager.reencrypt()` takes. */
export interface ReencryptOptions {
  /** Called after every 100 sessions, and at the end. What it throws ends the sweep. */
  readonly onProgress?: ((progress: ReencryptProgress) => void) | undefined
  /** Stops it, after the session at hand. */
  readonly signal?: AbortSignal | undefined
}

/** Names this process in the lease. */
const OWNER = randomUUID()
/** The right to do it, until this long after its last prolongation: a process that dies is replaced after it. */
const LEASE_MS = 30_000
const PROLONG_AFTER_MS = 5_000
const SESSIONS_A_STEP = 100

type Tally = { -readonly [Name in keyof ReencryptProgress]: number }

export async function reencrypt(
  engine: Lifecycle,
  { onProgress, signal }: ReencryptOptions,
): Promise<ReencryptResult | null> {
  const { codec } = engine.options
  if (codec.isCurrent === undefined) {
    throw new SessionError(
      'NOT_SUPPORTED',
      'reencrypt() needs a codec that says which texts are due (isCurrent), such as encrypted() of sojourn/encryption.',
    )
  }
  if (!(await engine.lease('reencrypt', OWNER, LEASE_MS))) return null
  const tally: Tally = { sessions: 0, rewritten: 0, unreadable: 0, failed: 0 }
  let isWhole = true
  let prolongAt = performance.now() + PROLONG_AFTER_MS
  try {
    for await (const record of engine.scan()) {
      if (signal?.aborted) {
        isWhole = false
        break
      }
      if (performance.now() >= prolongAt) {
        prolongAt = performance.now() + PROLONG_AFTER_MS
        if (!(await engine.lease('reencrypt', OWNER, LEASE_MS))) return null
      }
      if (engine.endOf(record) !== null) continue
      await resealRecord(engine, record, tally)
      tally.sessions++
      if (tally.sessions % SESSIONS_A_STEP === 0) onProgress?.({ ...tally })
    }
  } finally {
    await engine.lease('reencrypt', OWNER, 1).catch(() => {})
  }
  onProgress?.({ ...tally })
  return { ...tally, isWhole }
}

/** One field at a time, each only if it still is as it was read: what a request has written meanwhile is as new as can be. */
async function resealRecord(engine: Lifecycle, found: SessionData, tally: Tally): Promise<void> {
  const { codec } = engine.options
  const own = codecOf(codec, found.fields)
  let record = found
  for (const [field, text] of dueFields(found, codec)) {
    const set = resealed([[field, text]], own, own)
    if (set.size === 0) {
      tally.unreadable++
      const cause = new SessionError('CORRUPT_RECORD', 'A field cannot be opened, and was left as it is.')
      engine.events.emit('corruptRecord', { id: record.id, field, cause })
      continue
    }
    try {
      const change = engine.change(record, { set, expect: { field, text }, isPassive: true })
      const result = await engine.update(record, change)
      if (result.status === 'ended') return
      if (result.status !== 'updated') continue
      tally.rewritten++
      record = result.record
    } catch (error) {
      if (!isSessionError(error)) throw error
      tally.failed++
    }
  }
}

function dueFields({ fields }: SessionData, codec: SessionCodec): [string, string][] {
  return [...fields].filter(([name, text]) => !isOwnField(name) && codec.isCurrent?.(textOf(text)) === false)
}
