// What a handler does with a session as a whole. Each operation acts at once, in the order of the calls: when its promise
// resolves, the store has confirmed it.

import type { Duration } from '../duration.js'
import { invalidArgument, isSessionError } from '../errors.js'
import { newLogicalId } from '../ids.js'
import type { IssuedSession, RegenerationParts } from '../lifecycle/lifecycle.js'
import { type ExpiryOptions, resolveExpiry } from '../options/expiry-options.js'
import { PROOF, type ProofOptions, proofText, raised, storedProof } from '../record/authentication.js'
import { newBinding, resealed, withBinding } from '../record/binding.js'
import { decodeStored } from '../record/codec.js'
import type { SessionData } from '../record/session-data.js'
import { NO_CHANGES, storeChanges, touchNow } from './commit.js'
import {
  crossBoundary,
  keepLogicalId,
  knownLogicalId,
  lastLogicalId,
  logicalIdOf,
  tellBoundary,
  turnLogicalId,
  unkeptLogicalId,
} from './logical-id.js'
import { believeProof } from './proof.js'
import { fieldsLeftBehind, keptOf } from './protection.js'
import { chooseExpiry, settingsOf, takeIssued, takeRenewed } from './response-cookie.js'
import { MAX_RACES, NO_METADATA, SessionState } from './state.js'

/** Stores what has changed, now. */
export function save(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    await storeChanges(state)
  })
}

/** Reads the session again and forgets what was changed since. */
export function reload(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    const before = state.record
    const record = before && (await state.lifecycle.reload(before.id))
    if (before !== null && record === null) throw state.ended()
    takeStored(state, record)
    state.metadata = NO_METADATA
    state.fields.reset(record?.fields ?? new Map())
  })
}

/**
 * Reads a session again whose record may be a copy, and keeps what was changed since. `undefined`: there is nothing to wait for.
 * @throws {SessionError} `SESSION_ENDED`
 */
export function refresh(state: SessionState): Promise<void> | undefined {
  if (!state.isCopy) return undefined
  return state.inTurn(async () => {
    state.requireWritable()
    const before = state.record
    const record = before && (await state.lifecycle.reload(before.id))
    if (record === null) throw state.ended()
    takeStored(state, record)
    const { fields } = state
    for (const name of fields.allNames()) {
      // What is the same stays the same object: who has it may alter it yet.
      const isSame = before?.fields.get(name) === record.fields.get(name)
      if (!isSame && !fields.isChanged(name)) fields.refresh(name, record.fields)
    }
    fields.committed(NO_CHANGES, record.fields)
  })
}

function takeStored(state: SessionState, record: SessionData | null): void {
  if (record?.tokenHash !== state.record?.tokenHash) state.setToken(undefined)
  state.record = record
  state.isCopy = false
  const stored = record?.logicalId
  const { logical } = state
  // What this request was about to do, another one has done.
  if (logical !== null && stored !== undefined && stored !== logical.boundaries[0]?.from) logical.boundaries = []
}

/** Records activity, when that is due or is to be done in any case. */
export function touch(state: SessionState, isForced: boolean): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    const { record, lifecycle } = state
    if (isForced || (record !== null && lifecycle.times.isTouchDue(record))) await touchNow(state)
  })
}

export async function setExpiry(state: SessionState, duration: Duration, options: ExpiryOptions): Promise<void> {
  chooseExpiry(state, resolveExpiry(duration, options))
  return save(state)
}

export function renew(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    const token = state.token()
    if (state.record === null || token === undefined) return
    // The client has not shown that it has this token: if its response is lost, the one before must still be good. So of
    // several that renew at once all get the same.
    if (state.record.previousToken?.sealed !== undefined && !state.confirmsToken) return
    state.requireCookie()
    await storeChanges(state)
    const renewed = await state.lifecycle.renew(state.record, token, state.host.isPassive)
    if (renewed === 'ended') throw state.ended()
    takeRenewed(state, renewed)
  })
}

// --- Another session in its place ---

/** Gives this session a new ID and token, with all or some of its fields. */
export function regenerate(state: SessionState, keep: 'all' | readonly string[]): Promise<void> {
  return state.inTurn(async () => {
    state.requireCookie()
    state.requireWritable()
    const { fields, id: previousId, lifecycle, record } = state
    if (record === null) {
      if (keep !== 'all') for (const name of fields.allNames()) if (!keep.includes(name)) fields.delete(name)
      state.id = state.host.newId() ?? lifecycle.newId()
      return
    }
    await succeed(state, { keep, userId: keep === 'all' ? record.userId : undefined, isLogin: false })
    lifecycle.events.emit('regenerated', { ...namesOf(state), previousId })
  })
}

/**
 * Ends this session, or what it became meanwhile, and puts an empty one with a new ID and token in its place. When all is over,
 * the empty one is not stored: nothing of what is over goes on in it.
 */
export function replaceWithEmpty(state: SessionState): Promise<SessionState> {
  return state.inTurn(async () => {
    state.requireCookie()
    const { host, lifecycle, record } = state
    const next = new SessionState(lifecycle, host, 'new')
    if (state.standing !== 'ended') state.requireWritable()
    const choice = state.expiryChoice
    if (record === null || state.standing === 'ended') {
      if (choice !== null) chooseExpiry(next, choice)
      next.cookie = state.cookie
      handOver(state, next)
      return next
    }
    const issued = await overSuccessors(state, () => regenerateAfresh(state, { isLogin: false }))
    if (issued === null) {
      // It is over, and so is all that it became: there is nothing to end.
      if (choice !== null) chooseExpiry(next, choice)
      handOver(state, next)
      return next
    }
    next.expiryChoice = choice
    takeIssued(next, issued)
    next.fields.reset(issued.record.fields)
    lifecycle.events.emit('regenerated', { ...namesOf(next), previousId: state.id })
    tellStart(next, issued.previous)
    handOver(state, next)
    return next
  })
}

/**
 * Ends this session and puts one with these fields in its place. Of the same user it is as this one was; of another, they have proved
 * nothing in it.
 */
export function replaceWith(
  state: SessionState,
  {
    userId,
    logicalId,
    fields,
  }: { userId: string | number | undefined; logicalId: string | undefined; fields: ReadonlyMap<string, string> },
): Promise<void> {
  return state.inTurn(async () => {
    if (userId !== undefined) checkUserId(userId)
    state.requireCookie()
    state.requireWritable()
    const { host, lifecycle, record } = state
    const next = new SessionState(lifecycle, host, 'new')
    const context = host.clientContext()
    const unproven = userId === undefined ? undefined : (true as const)
    let issued: IssuedSession | null
    if (record === null) {
      const metadata = { userId, unproven, ...(logicalId !== undefined && { logicalId }) }
      issued = await lifecycle.create({ id: next.id, fields, metadata, context })
    } else if (userId !== undefined && record.userId === userId) {
      const { idleTimeoutMs, persistent } = record
      const parts = { userId, logicalId, isLogin: false, settings: { idleTimeoutMs, persistent } }
      issued = await lifecycle.regenerate(record, { ...parts, keep: [], set: fields })
    } else {
      const parts = { userId, logicalId, isLogin: userId !== undefined, isFresh: true, unproven, context }
      issued = await lifecycle.regenerate(record, { ...parts, keep: [], set: fields })
    }
    if (issued === null) throw state.ended()
    takeIssued(next, issued)
    next.fields.reset(issued.record.fields)
    if (record !== null) lifecycle.events.emit('regenerated', { ...namesOf(next), previousId: state.id })
    handOver(state, next)
  })
}

/** The user has proved again who they are. */
export function reauthenticate(state: SessionState, added: ProofOptions): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    state.requireCookie()
    const previousId = state.id
    const userId = state.record?.userId
    if (userId === undefined) {
      throw invalidArgument('reauthenticate() needs a user who is logged in; call login() first.')
    }
    const proof = raised(storedProof(state.record?.fields ?? new Map()), added)
    const set = proof && new Map([[PROOF, proofText(proof)]])
    await succeed(state, { keep: 'all', userId, isLogin: true, context: state.host.clientContext(), set })
    believeProof(state)
    state.lifecycle.events.emit('reauthenticated', { ...namesOf(state), previousId, userId, ...proof })
  })
}

/** Ends this session and begins its successor, under a new ID and token, in one step. */
async function succeed(state: SessionState, parts: Omit<RegenerationParts, 'delete'>): Promise<void> {
  if (!(await trySucceed(state, parts))) throw state.ended()
}

/**
 * The same, but resolves to `false` when the session was over already. Of all that is kept, what protects forms is not, unless
 * it is named.
 */
export async function trySucceed(
  state: SessionState,
  parts: Omit<RegenerationParts, 'delete'>,
  alsoLeft: readonly string[] = [],
): Promise<boolean> {
  try {
    await keepLogicalId(state)
  } catch (error) {
    if (!isSessionError(error, 'SESSION_ENDED')) throw error
    state.standing = 'live'
    return false
  }
  const changes = state.fields.changes() ?? NO_CHANGES
  const { keep } = parts
  const left = [...(keep === 'all' ? fieldsLeftBehind() : []), ...alsoLeft]
  // What was proved before is worth nothing to another login.
  if (parts.isLogin && !parts.set?.has(PROOF)) left.push(PROOF)
  const own = [...keptOf(changes, keep).set].filter(([name]) => !alsoLeft.includes(name))
  const set = new Map([...own, ...(parts.set ?? [])])
  const record = (state.record as SessionData).with(state.metadata)
  const logicalId = unkeptLogicalId(state, record)
  const settings = state.expiryChoice === null ? undefined : settingsOf(state.expiryChoice)
  const issued = await state.lifecycle.regenerate(record, {
    ...parts,
    id: state.host.newId(),
    set,
    delete: [...changes.delete, ...left],
    logicalId,
    settings,
  })
  if (issued === null) return false
  state.metadata = NO_METADATA
  takeIssued(state, issued)
  if (logicalId !== undefined) tellBoundary(state, { from: state.logical?.previous, to: logicalId, cause: 'start' })
  if (keep === 'all') {
    state.fields.committed(changes, issued.record.fields)
    for (const name of left) state.fields.refresh(name, issued.record.fields)
  } else state.fields.reset(issued.record.fields)
  return true
}

/**
 * Ends this session and begins one of another user in its place, in one step: nothing of it goes over, and it has the fields that
 * every session begins with. Resolves to `false` when it was over already.
 */
export async function succeedAfresh(
  state: SessionState,
  parts: Pick<RegenerationParts, 'userId' | 'set'>,
): Promise<boolean> {
  const issued = await regenerateAfresh(state, { ...parts, isLogin: true })
  if (issued === null) return false
  state.metadata = NO_METADATA
  takeIssued(state, issued)
  state.logical = null
  if (issued.previous !== undefined) state.logicalNotes().previous = issued.previous
  state.fields.reset(issued.record.fields)
  tellStart(state, issued.previous)
  return true
}

interface FreshSession extends IssuedSession {
  /** The logical ID of the session before. */
  readonly previous: string | undefined
}

/** Another session in the place of this one, which has nothing of it but what this request chose for its end. */
async function regenerateAfresh(
  state: SessionState,
  parts: Pick<RegenerationParts, 'userId' | 'isLogin' | 'set'>,
): Promise<FreshSession | null> {
  const { host, lifecycle, record, expiryChoice } = state
  const previous = lastLogicalId(state)
  const { codec } = lifecycle.options
  const binding = newBinding(codec)
  const own =
    binding === undefined
      ? parts.set
      : resealed(parts.set ?? [], state.fields.codec, codec.forSession?.(binding) ?? codec)
  const issued = await lifecycle.regenerate(record as SessionData, {
    ...parts,
    id: host.newId(),
    keep: [],
    set: withBinding(new Map([...host.initialFields(binding), ...(own ?? [])]), binding),
    isFresh: true,
    logicalId: previous && newLogicalId(),
    context: host.clientContext(),
    settings: expiryChoice === null ? undefined : settingsOf(expiryChoice),
  })
  return issued && { ...issued, previous }
}

function tellStart(state: SessionState, from: string | undefined): void {
  const to = state.record?.logicalId
  if (from !== undefined && to !== undefined) tellBoundary(state, { from, to, cause: 'start' })
}

// --- The end ---

/** Ends this session for good and puts an empty one, not stored, in its place. */
export function logout(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    const isOver = state.standing === 'ended'
    if (!isOver) state.requireWritable()
    const next = new SessionState(state.lifecycle, state.host, 'new')
    next.cookie = 'clear'
    next.isAfterLogout = true
    if (!isOver) await end(state, 'logout')
    handOver(state, next)
  })
}

/** Ends this session for good. Ending it again is no error. */
export function destroy(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    if (state.standing === 'ended') return
    state.requireWritable()
    await end(state, 'destroyed')
    state.standing = 'ended'
    state.cookie = 'clear'
    state.isAfterLogout = true
  })
}

/** A feature ends the session: who does it and why is told. What follows is as after `logout()`. */
export function revoke(state: SessionState, why: { readonly by: string; readonly detail: string }): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    const { lifecycle, host, record } = state
    if (record !== null) {
      const names = namesOf(state)
      if (await lifecycle.end(record, { reason: 'revoked', ...why }))
        lifecycle.events.emit('revoked', { ...names, ...why })
    }
    const next = new SessionState(lifecycle, host, 'new')
    next.cookie = 'clear'
    next.isAfterLogout = true
    handOver(state, next)
  })
}

/** The session was ended by its own request, by its ID: what follows is as after `logout()`. */
export function leave(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    if (state.standing !== 'live') return
    const next = new SessionState(state.lifecycle, state.host, 'new')
    next.cookie = 'clear'
    next.isAfterLogout = true
    handOver(state, next)
  })
}

async function end(state: SessionState, reason: 'logout' | 'destroyed'): Promise<void> {
  const { lifecycle, record, previousEnd } = state
  if (record !== null) {
    const names = namesOf(state)
    await lifecycle.end(record, { reason })
    lifecycle.events.emit(reason, names)
    return
  }
  // Who asks again may have been told that it failed: a store that waits for replicas says only now that they have it.
  const before = previousEnd?.end.reason
  if (previousEnd && (before === 'logout' || before === 'destroyed'))
    await lifecycle.end(previousEnd, { reason: before })
}

/** Tries `operation`, which resolves to `null` when the session is over, on it and on what it became by regeneration. */
async function overSuccessors<T>(state: SessionState, operation: () => Promise<T | null>): Promise<T | null> {
  for (let attempt = 1; attempt <= MAX_RACES; attempt++) {
    const done = await operation()
    if (done !== null) return done
    const successor = await state.lifecycle.successorOf(state.id)
    if (successor === null) return null
    state.record = successor
    state.id = successor.id
  }
  return null
}

function handOver(state: SessionState, next: SessionState): void {
  next.use()
  next.cookieAttributes = state.cookieAttributes
  next.isAfterLogout ||= state.isAfterLogout
  const previous = lastLogicalId(state)
  if (previous !== undefined) next.logicalNotes().previous = previous
  state.standing = 'replaced'
  state.host.replace(next)
}

// --- What the logical ID stands for ---

/** A new logical ID for a session that begins again: its fields go, the user stays. */
export function restart(state: SessionState): Promise<void> {
  return state.inTurn(async () => {
    state.requireWritable()
    const { fields, host, lifecycle } = state
    const initial = host.initialFields()
    const { codec } = lifecycle.options
    if (state.record === null) state.requireCookie()
    else await keepLogicalId(state)
    fields.clear()
    for (const [name, text] of initial) fields.set(name, decodeStored(codec, text, name))
    if (state.record === null) {
      turnLogicalId(state, 'restart')
      return
    }
    try {
      const changes = fields.changes() ?? NO_CHANGES
      await crossBoundary(state, { from: logicalIdOf(state), to: newLogicalId(), cause: 'restart' }, changes)
      fields.committed(changes, state.record.fields)
    } catch (error) {
      // The commit may store this session yet, and must not begin it again by half.
      fields.reset(state.record.fields)
      throw error
    }
  })
}

/** A new logical ID for what comes next. When another request has just done the same, it is that one's. */
export function completeWorkflow(state: SessionState): Promise<string> {
  return state.inTurn(async () => {
    state.requireWritable()
    if (state.record === null) {
      state.requireCookie()
      return turnLogicalId(state, 'completed')
    }
    const from = logicalIdOf(state)
    await storeChanges(state)
    await crossBoundary(state, { from, to: newLogicalId(), cause: 'completed' })
    return logicalIdOf(state)
  })
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function checkUserId(userId: unknown): void {
  const isValid =
    (typeof userId === 'string' && userId !== '') || (typeof userId === 'number' && Number.isFinite(userId))
  if (!isValid) {
    throw invalidArgument('A user ID is text that is not empty, or a finite number.')
  }
}

/** What events say of a session. */
export function namesOf(state: SessionState): {
  id: string
  userId: string | number | undefined
  logicalId: string | undefined
} {
  return { id: state.id, userId: state.record?.userId, logicalId: knownLogicalId(state) }
}
