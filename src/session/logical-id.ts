// The logical ID of a session: which one it is, when it is kept, and how it gives way to the next.
//
// While none is stored it follows from the session ID, so that requests which ask at the same time agree without asking each
// other. Nothing is noted in a request that does not ask.
import { SessionError } from '../errors.js'
import { derivedLogicalId, newLogicalId } from '../ids.js'
import { type Left, pauseAfter } from '../lifecycle/turns.js'
import type { SessionData } from '../record/session-data.js'
import type { FieldChanges } from './fields.js'
import { moveCookie } from './response-cookie.js'
import { type Boundary, MAX_RACES, type SessionState } from './state.js'

/** The logical ID for the application. Asking for it keeps it, if need be in a session that would not be stored otherwise. */
export function askLogicalId(state: SessionState): string {
  if (knownLogicalId(state) === undefined && state.standing === 'live' && canKeep(state)) {
    state.use()
    startLogicalId(state)
  }
  return showLogicalId(state)
}

/**
 * The same logical ID for logs and error answers, kept or not. It is out then: from now on this process keeps it where the
 * session ID that it follows from changes.
 */
export function showLogicalId(state: SessionState): string {
  state.lifecycle.usesLogicalIds = true
  return logicalIdOf(state)
}

/** The logical ID. Changes nothing. */
export function logicalIdOf(state: SessionState): string {
  return knownLogicalId(state) ?? derivedOf(state)
}

/** The logical ID that is stored, or is to be. */
export function knownLogicalId({ logical, record }: SessionState): string | undefined {
  return logical?.boundaries.at(-1)?.to ?? record?.logicalId
}

/** The logical ID that the next session of this client follows. One that was never stored is told of by nothing. */
export function lastLogicalId({ logical, record }: SessionState): string | undefined {
  return record?.logicalId ?? logical?.previous ?? logical?.boundaries.at(-1)?.to
}

/** Whether a logical ID began with this request, in a session that is stored or not. */
export function hasBoundary({ logical }: SessionState): boolean {
  return logical !== null && logical.boundaries.length > 0
}

/** Makes the logical ID begin with this request. */
export function startLogicalId(state: SessionState): void {
  const notes = state.logicalNotes()
  notes.boundaries = [{ from: notes.previous, to: derivedOf(state), cause: 'start' }]
}

/** A new logical ID for a session that is not stored: its next write tells so. */
export function turnLogicalId(state: SessionState, cause: Boundary['cause']): string {
  if (!hasBoundary(state)) startLogicalId(state)
  const to = newLogicalId()
  const notes = state.logicalNotes()
  notes.boundaries = [...notes.boundaries, { from: logicalIdOf(state), to, cause }]
  return to
}

/** Begins one that nobody asked for, in a session to be created, where it must go on with what was, or is, known of. */
export function startIfKnown(state: SessionState): void {
  const { logical } = state
  if (logical === null || logical.boundaries.length > 0) return
  const { previous, derived } = logical
  // regenerate() may have changed the session ID since it was asked for.
  if (previous !== undefined || (derived !== undefined && derived !== derivedLogicalId(state.id))) startLogicalId(state)
}

/** The one to store with a new session ID, lest it change with that; `undefined` when it is stored, or nobody knows it. */
export function unkeptLogicalId(state: SessionState, record: SessionData): string | undefined {
  return record.logicalId === undefined && state.lifecycle.usesLogicalIds ? derivedOf(state) : undefined
}

/** Stores a logical ID that began with this request, unless another request was quicker: one store call more. */
export async function keepLogicalId(state: SessionState): Promise<void> {
  const { logical } = state
  const boundary = logical?.boundaries[0]
  if (logical === null || state.record === null || boundary === undefined) return
  await crossBoundary(state, boundary)
  logical.boundaries = []
}

/**
 * Changes the logical ID of the stored session, and tells so. Does nothing when another request has left `from` already;
 * with `changes` to fields, it leaves the one that this request went to.
 */
export function crossBoundary(state: SessionState, boundary: Boundary, changes?: FieldChanges): Promise<void> {
  const key = `${state.id} logical ID`
  return state.lifecycle.turns.run(key, async (left) => ({
    value: undefined,
    left: await cross(state, boundary, changes, left),
  }))
}

async function cross(
  state: SessionState,
  boundary: Boundary,
  changes: FieldChanges | undefined,
  before: Left | undefined,
): Promise<Left> {
  const { lifecycle } = state
  const { to, cause } = boundary
  let { from } = boundary
  const goOnWith = (text: string | undefined): void => {
    state.record = (state.record as SessionData).with({ logicalId: text })
    if (changes !== undefined) from = text ?? from
  }
  if (before !== undefined) goOnWith(before.text)
  for (let race = 1; race <= MAX_RACES; race++) {
    const record = state.record as SessionData
    const { logicalId: stored } = record
    if (changes === undefined && stored !== undefined && stored !== from) return { text: stored }
    const parts = { ...changes, metadata: { logicalId: to }, expect: { logicalId: stored } }
    const change = lifecycle.change(record, { ...parts, isPassive: state.host.isPassive })
    const result = await lifecycle.update(record, change)
    if (result.status === 'updated') {
      state.record = result.record
      if (lifecycle.times.movesCookie(record, result.record)) moveCookie(state)
      tellBoundary(state, { from, to, cause })
      return { text: to }
    }
    if (result.status !== 'conflict') throw state.ended()
    goOnWith(result.text)
    await pauseAfter(race)
  }
  throw new SessionError('UPDATE_CONFLICT', `The logical ID was changed ${MAX_RACES} times meanwhile.`)
}

export function tellBoundary({ lifecycle, id, record }: SessionState, boundary: Boundary): void {
  lifecycle.events.emit('boundary', { id, userId: record?.userId, ...boundary })
}

/** What all requests of one session agree on. */
function derivedOf(state: SessionState): string {
  const notes = state.logicalNotes()
  notes.derived ??= derivedLogicalId(state.id)
  return notes.derived
}

function canKeep({ record, host }: SessionState): boolean {
  return record === null ? host.cookieOutlook() === 'open' : !host.isResponded()
}
