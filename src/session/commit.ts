// What a response has to store of its session, and the one place where that is decided.

import { isSessionError, isStoreFault } from '../errors.js'
import type { Update } from '../lifecycle/lifecycle.js'
import type { SessionChange } from '../record/changes.js'
import type { SessionData } from '../record/session-data.js'
import { after, type Soon } from '../soon.js'
import type { FieldChanges, Fields } from './fields.js'
import { hasBoundary, keepLogicalId, startIfKnown, tellBoundary } from './logical-id.js'
import {
  cookieNote,
  isPersistent,
  isTold,
  moveCookie,
  resendCookie,
  takeIssued,
  takeRenewed,
} from './response-cookie.js'
import { NO_METADATA, type SessionState } from './state.js'

/** What the commit does next; `nextStep()` has the table. */
export type Step =
  | { readonly name: 'nothing' | 'too-late' | 'keep-logical-id' | 'renew' | 'confirm-token' | 'touch' }
  | { readonly name: 'create' | 'update'; readonly changes: FieldChanges | null }

const NOTHING: Step = { name: 'nothing' }
const TOO_LATE: Step = { name: 'too-late' }
const KEEP_LOGICAL_ID: Step = { name: 'keep-logical-id' }
const RENEW: Step = { name: 'renew' }
const CONFIRM_TOKEN: Step = { name: 'confirm-token' }
const TOUCH: Step = { name: 'touch' }

/** Of a set of fields that did not change. */
export const NO_CHANGES: FieldChanges = { set: new Map(), delete: [] }

/**
 * What the commit does next. After each step it is asked again, until there is nothing left to do.
 *
 * | session | step | store | cookie |
 * | --- | --- | --- | --- |
 * | new, nothing set | `nothing` | nothing | nothing |
 * | new, with fields | `create` | `create` | set |
 * | new, with fields, but the headers have left | `too-late` | nothing | nothing |
 * | changed | `update` | `update` with the changed fields | when it must move |
 * | unchanged, but its logical ID begins | `keep-logical-id` | `update` | when it must move |
 * | unchanged, but due to be renewed | `renew` | `update` | set |
 * | unchanged, but the first to use a renewed token | `confirm-token` | `update` | when it must move |
 * | unchanged, but a touch is due | `touch` | `touch` | when it must move |
 * | unchanged | `nothing` | nothing | when it must move |
 * | renewed, regenerated or logged in by the handler | `nothing` | one atomic step, at the call | set |
 * | destroyed or logged out by the handler | `nothing` | `end`, at the call | cleared |
 * | the store is out of reach | `nothing` | nothing | nothing |
 *
 * The cookie must move when it was signed with an older secret, when its attributes were chosen anew, and, if it is
 * persistent, when the session's end has moved. The documentation has the same table, and a test takes its rows from here.
 *
 * @throws {SessionError} `INVALID_VALUE` or `SESSION_TOO_LARGE`, when a field's value can no longer be stored.
 */
export function nextStep(state: SessionState): Step {
  if (state.standing !== 'live') return NOTHING
  const changes = state.fields.changes()
  if (state.record === null) {
    if (changes === null && !state.isWanted && !hasBoundary(state)) return NOTHING
    return canBeCreated(state) ? { name: 'create', changes } : TOO_LATE
  }
  if (changes !== null || state.metadata !== NO_METADATA) return { name: 'update', changes }
  if (isLogicalIdDue(state)) return KEEP_LOGICAL_ID
  if (isRenewalDue(state)) return RENEW
  if (state.confirmsToken) return CONFIRM_TOKEN
  if (isTouchDue(state)) return TOUCH
  return NOTHING
}

/**
 * Takes the next step. Returns `'last'` when there is none after it; else what to wait for before that, if the store has us
 * wait.
 */
export function takeNextStep(state: SessionState): Soon<void> | 'last' {
  const step = nextStep(state)
  switch (step.name) {
    case 'nothing':
      return 'last'
    case 'too-late':
      state.tellLateChange('headers-sent')
      return 'last'
    case 'create':
      return state.inTurn(() => create(state, step.changes))
    case 'update':
      return state.inTurnOrAtOnce(() => updateStored(state, step.changes))
    case 'keep-logical-id':
      state.logicalNotes().mayKeepInPassing = false
      return state.inTurn(() => keepLogicalId(state)).catch(forgiveInPassing)
    case 'renew':
      return state.inTurn(() => renewNow(state)).catch(forgiveInPassing)
    case 'confirm-token':
      state.confirmsToken = false
      return state.inTurn(() => confirmTokenNow(state)).catch(forgiveInPassing)
    case 'touch':
      state.hasTouched = true
      return state.inTurn(() => touchNow(state)).catch(forgiveInPassing)
  }
}

/** Whether the response has something to do even if the handler never looks at the session. */
export function mayCommit(state: SessionState): boolean {
  return (
    state.cookie !== 'keep' || isLogicalIdDue(state) || isTouchDue(state) || isRenewalDue(state) || state.confirmsToken
  )
}

// --- For a response that will not wait ---

/** Renews the token if that is due: the one step that such a response waits for, since the client is to get another cookie. */
export function renewBeforeHead(state: SessionState): Promise<void> | undefined {
  return isRenewalDue(state) ? state.inTurn(() => renewNow(state)).catch(forgiveInPassing) : undefined
}

/**
 * Decides on the cookie before the next step is taken.
 * @throws {SessionError} `HEADERS_SENT` or `INSECURE_CONNECTION`, when a new session's cookie cannot reach the client; and as
 *   `nextStep()`.
 */
export function promiseNextStep(state: SessionState): void {
  const step = nextStep(state)
  if (step.name === 'nothing') return
  if (state.record === null) {
    state.requireCookie()
    state.promiseToken()
    state.cookie = 'set'
  } else {
    state.promisedEnd = state.lifecycle.times.endAfter(state.record.with(state.metadata))
    if (isPersistent(state) || 'persistent' in state.metadata) resendCookie(state)
  }
}

// --- The steps ---

/** Stores what has changed, and nothing else. To be called in turn, of a session that is live. */
export function storeChanges(state: SessionState): Soon<void> {
  const step = nextStep(state)
  // Without a way for the cookie, create() says so.
  if (step.name === 'create' || step.name === 'too-late') return create(state)
  return step.name === 'update' ? updateStored(state, step.changes) : undefined
}

/** To be called in turn. */
export async function create(state: SessionState, changes = state.fields.changes()): Promise<void> {
  if (state.promised() === undefined) state.requireCookie()
  startIfKnown(state)
  const boundaries = state.logical?.boundaries ?? []
  const logicalId = boundaries.at(-1)?.to
  const written = changes ?? NO_CHANGES
  const issued = await state.lifecycle.create({
    id: state.id,
    fields: state.fields.all(written),
    binding: state.fields.binding,
    token: state.promised(),
    metadata: logicalId === undefined ? state.metadata : { ...state.metadata, logicalId },
    context: state.host.clientContext(),
  })
  state.metadata = NO_METADATA
  // The handler may have asked for one meanwhile.
  if (state.logical !== null) state.logical.boundaries = state.logical.boundaries.slice(boundaries.length)
  takeIssued(state, issued)
  state.hasTouched = true
  for (const boundary of boundaries) tellBoundary(state, boundary)
  state.fields.committed(written, issued.record.fields)
}

function updateStored(state: SessionState, changes: FieldChanges | null): Soon<void> {
  return hasBoundary(state)
    ? keepLogicalId(state).then(() => writeChanges(state, changes))
    : writeChanges(state, changes)
}

function writeChanges(state: SessionState, changes: FieldChanges | null): Soon<void> {
  if (changes === null && state.metadata === NO_METADATA) return
  const note = cookieNote(state)
  if (note !== undefined) state.metadata = { ...state.metadata, ...note }
  const metadata = state.metadata === NO_METADATA ? undefined : state.metadata
  const record = state.record as SessionData
  const { isPassive } = state.host
  const change = state.lifecycle.change(record, { set: changes?.set, delete: changes?.delete, metadata, isPassive })
  const take = (result: Update): Soon<void> => {
    if (result.status !== 'updated') throw state.ended()
    takeUpdated(state, change, result.record)
    const overdue = state.fields.overdue()
    return overdue.length === 0 ? undefined : dropOverdue(state, overdue)
  }
  return after(state.lifecycle.update(record, change), take)
}

/**
 * Removes fields whose end has come, where one that ends was met: unless another request has set them anew. In passing, and so many
 * at a time that nobody waits long.
 */
async function dropOverdue(state: SessionState, overdue: ReturnType<Fields['overdue']>): Promise<void> {
  for (const [field, text] of overdue.slice(0, MAX_DROPPED)) {
    const record = state.record as SessionData
    const change = state.lifecycle.change(record, { delete: [field], expect: { field, text }, isPassive: true })
    try {
      const result = await state.lifecycle.update(record, change)
      if (result.status === 'updated') takeUpdated(state, change, result.record)
    } catch (error) {
      forgiveInPassing(error)
    }
  }
}

const MAX_DROPPED = 4

/** Brings this request's view up to date with a change that the store has applied. */
export function takeUpdated(state: SessionState, change: SessionChange, after: SessionData): void {
  const before = state.record as SessionData
  state.record = after
  // A write is as good as a touch.
  state.hasTouched ||= change.isPassive !== true
  if (change.metadata === state.metadata) state.metadata = NO_METADATA
  const { set = NO_CHANGES.set, delete: removed = NO_CHANGES.delete } = change
  state.fields.committed({ set, delete: removed }, after.fields)
  // One that stops being persistent is sent as well, to take the end from the browser's copy.
  if (change.metadata && 'persistent' in change.metadata) resendCookie(state)
  else if (change.metadata || state.lifecycle.times.movesCookie(before, after)) moveCookie(state)
}

/** Gives the session a new token, because its time has come. Does nothing when another request has just done so. */
async function renewNow(state: SessionState): Promise<void> {
  state.mayRenew = false
  const renewed = await state.lifecycle.renew(
    state.record as SessionData,
    state.token() as string,
    state.host.isPassive,
  )
  if (renewed === 'ended') throw state.ended()
  takeRenewed(state, renewed)
}

/** The client has the token of the last renewal: the one before is good for a short while only. */
async function confirmTokenNow(state: SessionState): Promise<void> {
  const before = state.record as SessionData
  const confirmed = await state.lifecycle.confirmToken(before, state.host.isPassive)
  if (confirmed === 'ended') throw state.ended()
  state.record = confirmed
  if (state.lifecycle.times.movesCookie(before, confirmed)) moveCookie(state)
}

/** To be called in turn. */
export async function touchNow(state: SessionState): Promise<void> {
  // Before the touch: by the time of last access the next request tells whether the logical ID is over.
  await keepLogicalId(state)
  if (state.record === null) return
  const touched = await state.lifecycle.touch(state.record, isTold(state))
  if (touched === null) throw state.ended()
  state.record = touched
  state.hasTouched = true
  moveCookie(state)
}

/**
 * A step that the handler did not ask for is taken in passing: that the session ended, or that the store failed and was
 * told of, does not spoil a response that changed nothing.
 */
function forgiveInPassing(error: unknown): void {
  if (!isStoreFault(error) && !isSessionError(error, 'SESSION_ENDED')) throw error
}

// --- What is due ---

/** Whether a new session's cookie can reach the client, or was promised to it. An insecure connection throws later. */
function canBeCreated(state: SessionState): boolean {
  return state.promised() !== undefined || state.host.cookieOutlook() !== 'headers-sent'
}

/** Whether a logical ID began with this request and is to be stored in the session. */
function isLogicalIdDue(state: SessionState): boolean {
  return state.record !== null && hasBoundary(state) && state.logicalNotes().mayKeepInPassing
}

/** Whether the token has served its time, and the response can carry another one. */
function isRenewalDue(state: SessionState): boolean {
  const { record, mayRenew, lifecycle, host } = state
  return (
    record !== null &&
    state.token() !== undefined &&
    mayRenew &&
    lifecycle.times.isRenewalDue(record) &&
    host.cookieOutlook() === 'open'
  )
}

/** Whether activity has to be recorded that no other write records. */
function isTouchDue({ record, hasTouched, host, lifecycle }: SessionState): boolean {
  return record !== null && !hasTouched && !host.isPassive && lifecycle.times.isTouchDue(record)
}
