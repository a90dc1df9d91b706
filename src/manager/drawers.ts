// What features keep in sessions, read without a request: by session ID, or in all sessions at once.

import { SessionError } from '../errors.js'
import { MAX_SUCCESSORS } from '../lifecycle/endings.js'
import type { Lifecycle } from '../lifecycle/lifecycle.js'
import { codecOf } from '../record/binding.js'
import type { SessionChange } from '../record/changes.js'
import { decodeStored } from '../record/codec.js'
import { hiddenField } from '../record/hidden-fields.js'
import type { SessionData, SessionEnd } from '../record/session-data.js'
import { Fields } from '../session/fields.js'

/** What is known of a session and its drawer. */
export type FoundDrawer<T> =
  /** `id` is that of the session, or of what it became through regenerations. `value`: `undefined` when there is none. */
  | { readonly status: 'live'; readonly id: string; readonly value: T | undefined }
  /** It is over, and nothing brings it back. */
  | { readonly status: 'ended'; readonly end: SessionEnd }
  /** Never there, or forgotten. It may have become another session before. */
  | { readonly status: 'absent' }
  /** There is something that cannot be read. */
  | { readonly status: 'unreadable' }

/**
 * What features keep in sessions by `inside(session).drawer(name)`, without a request: for what they keep elsewhere and must
 * remove when the session is over. Rejects with `SessionError` when the store does not answer.
 */
export interface SessionDrawers {
  /**
   * The drawer of a session. A session that was regenerated is followed to what it became. One that ran out is ended for good
   * first, unless it is to be archived: then it counts as live until the clean-up has done so.
   */
  find<T = unknown>(id: string, name: string): Promise<FoundDrawer<T>>
  /**
   * Reads, changes and writes the drawer of a session as one atomic step, across processes. A session that was regenerated is
   * followed, and it is no activity of it. `modify` is called again after each race that it loses, and does nothing else. What it
   * returns is stored, unless that is `undefined` or what was there: `hasChanged` says so.
   * @throws {SessionError} `INVALID_VALUE`, `SESSION_TOO_LARGE`; `UPDATE_CONFLICT` after a hundred races that were lost
   */
  update<T = unknown>(
    id: string,
    name: string,
    modify: (value: T | undefined) => T | undefined,
  ): Promise<FoundDrawer<T> & { readonly hasChanged: boolean }>
  /**
   * The drawer of each session that has something in it. No session is missed that is alive all the while, also when it goes on
   * under another ID meanwhile; one may come twice, and one that has just run out may come, too.
   * @throws {SessionError} `NOT_SUPPORTED` when the store cannot be gone through; `CORRUPT_RECORD` when a drawer cannot be
   *   read; `STORE_TIMEOUT` when going through it took longer than endings are remembered (`endedRetention`), so that a session
   *   may have been missed.
   */
  scan<T = unknown>(name: string): AsyncGenerator<{ readonly id: string; readonly value: T }, void, undefined>
}

export function drawersOf(engine: Lifecycle): SessionDrawers {
  return {
    async find<T>(id: string, name: string): Promise<FoundDrawer<T>> {
      const found = await locate(engine, id)
      return 'record' in found ? opened<T>(engine, found.record, name) : found
    },

    async update<T>(id: string, name: string, modify: (value: T | undefined) => T | undefined) {
      for (let attempt = 1; attempt <= MAX_RACES; attempt++) {
        const found = await locate(engine, id)
        if (!('record' in found)) return { ...found, hasChanged: false }
        const before = opened<T>(engine, found.record, name)
        if (before.status !== 'live') return { ...before, hasChanged: false }
        const value = modify(before.value)
        const change = value === undefined ? null : changeOf(engine, found.record, name, value)
        if (change === null) return { ...before, hasChanged: false }
        const { status } = await engine.update(found.record, change)
        if (status === 'updated') return { ...before, value, hasChanged: true }
      }
      throw new SessionError('UPDATE_CONFLICT', `A change of a drawer lost ${MAX_RACES} races in a row.`)
    },

    async *scan<T>(name: string) {
      const field = hiddenField(name)
      const startedAt = performance.now()
      for await (const record of engine.scan()) {
        if (record.ended?.successor !== undefined) {
          // It may have been alive, and its successor not there yet, when the store was asked for the first time.
          const found = await this.find<T>(record.ended.successor, name)
          if (found.status === 'unreadable') throw unreadable()
          if (found.status === 'live' && found.value !== undefined) yield { id: found.id, value: found.value }
        } else if (!record.ended && record.fields.has(field)) {
          const found = opened<T>(engine, record, name)
          if (found.status !== 'live') throw unreadable()
          if (found.value !== undefined) yield { id: found.id, value: found.value }
        }
      }
      if (performance.now() - startedAt > engine.options.retentionSeconds * 1000) throw tooSlow()
    },
  }
}

/** Races that a change may lose in a row. */
const MAX_RACES = 100

/** The live record that a session is now, or what became of it. */
async function locate(
  engine: Lifecycle,
  id: string,
): Promise<{ readonly record: SessionData } | Exclude<FoundDrawer<never>, { status: 'live' }>> {
  let next = id
  for (let step = 0; step <= MAX_SUCCESSORS; step++) {
    const record = await engine.peek(next)
    if (record === null) return { status: 'absent' }
    if (record === 'corrupt') return { status: 'unreadable' }
    const end = await settledEnd(engine, record)
    if (end === null) return { record }
    if (end.reason !== 'regenerated' || end.successor === undefined) return { status: 'ended', end }
    next = end.successor
  }
  return { status: 'absent' }
}

/** What it takes to put a value into a drawer that is as it was read; `null` when it is that value already. */
function changeOf(engine: Lifecycle, record: SessionData, name: string, value: unknown): SessionChange | null {
  const { codec, limits } = engine.options
  const field = hiddenField(name)
  const fields = new Fields({ codec, limits, stored: record.fields, clock: engine, onCorrupt: () => {} })
  fields.set(field, value)
  const changes = fields.changes()
  if (changes === null) return null
  const expect = { field, text: record.fields.get(field) }
  return engine.change(record, { set: changes.set, delete: changes.delete, expect, isPassive: true })
}

/** How a session has ended, once nothing can bring it back; `null` while something can. */
async function settledEnd(engine: Lifecycle, record: SessionData): Promise<SessionEnd | null> {
  if (record.ended) return record.ended
  const end = engine.times.expiryOf(record)
  if (end === null) return engine.endOf(record)
  if (engine.options.archive !== undefined) return null
  // Only by this clock it ran out: another process must not go on with what is taken for over here.
  await engine.expire(record, end)
  const now = await engine.peek(record.id)
  return now === null || now === 'corrupt' ? end : (now.ended ?? null)
}

function opened<T>(engine: Lifecycle, record: SessionData, name: string): FoundDrawer<T> {
  const field = hiddenField(name)
  const text = record.fields.get(field)
  if (text === undefined) return { status: 'live', id: record.id, value: undefined }
  try {
    const codec = codecOf(engine.options.codec, record.fields)
    return { status: 'live', id: record.id, value: decodeStored(codec, text, field) as T }
  } catch (cause) {
    engine.events.emit('corruptRecord', { id: record.id, field, cause })
    return { status: 'unreadable' }
  }
}

function unreadable(): SessionError {
  return new SessionError('CORRUPT_RECORD', 'What a feature keeps in a session cannot be read.')
}

function tooSlow(): SessionError {
  return new SessionError(
    'STORE_TIMEOUT',
    'Going through the store took longer than endings are remembered, so that a session may have been missed: raise endedRetention.',
  )
}
