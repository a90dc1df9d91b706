// login(): binds a session to a user, under a new ID and token, and decides what of it goes over.
import { PROOF, type ProofOptions, proofOf, proofText } from '../record/authentication.js'
import { requireOwnField } from '../record/hidden-fields.js'
import { create, NO_CHANGES } from './commit.js'
import { Fields } from './fields.js'
import { checkUserId, namesOf, succeedAfresh, trySucceed } from './life.js'
import { believeProof } from './proof.js'
import { fieldsLeftBehind, fieldsOfLogin, type Kept, keptOf } from './protection.js'
import { takeIssued } from './response-cookie.js'
import { MAX_RACES, NO_METADATA, type SessionState } from './state.js'

/** Who logs in, and what the session has of before and from now on. */
export interface Login {
  readonly userId: string | number
  readonly keep: Kept
  /** To be set in the same step. */
  readonly fields: Readonly<Record<string, unknown>>
  /** What proved who the user is. */
  readonly proof?: ProofOptions
}

interface Step extends Omit<Login, 'fields' | 'proof'> {
  /** Encoded. */
  readonly set: ReadonlyMap<string, string>
}

/** Binds the session to a user, under a new ID and token. */
export function login(state: SessionState, { userId, keep, fields, proof = {} }: Login): Promise<void> {
  return state.inTurn(async () => {
    checkUserId(userId)
    state.requireWritable()
    state.requireCookie()
    const proved = proofOf(proof)
    const own = proved === undefined ? [] : [[PROOF, proofText(proved)] as const]
    const step = { userId, keep, set: new Map([...encoded(state, fields), ...own]) }
    const previousId = state.record?.id
    if (state.record === null) await loginAsNew(state, step)
    else await loginOver(state, step)
    believeProof(state)
    for (const name of step.set.keys()) state.fields.refresh(name, state.record?.fields ?? new Map())
    state.lifecycle.events.emit('login', { ...namesOf(state), previousId, userId, ...proved })
  })
}

function encoded({ lifecycle, fields: own }: SessionState, values: Login['fields']): ReadonlyMap<string, string> {
  const { codec, limits } = lifecycle.options
  const fields = new Fields({ codec, limits, binding: own.binding, onCorrupt: () => {} })
  for (const [name, value] of Object.entries(values)) {
    requireOwnField(name)
    fields.set(name, value)
  }
  return (fields.changes() ?? NO_CHANGES).set
}

/** A login in a session that is not stored yet. */
async function loginAsNew(state: SessionState, { userId, keep, set }: Step): Promise<void> {
  const before = state.metadata
  state.metadata = { ...before, userId }
  try {
    const kept = keptOf(state.fields.changes() ?? NO_CHANGES, keep)
    await create(state, { ...kept, set: new Map([...kept.set, ...set]) })
  } catch (error) {
    // The commit may store this session yet, and must not log anyone in then.
    state.metadata = before
    throw error
  }
  // What does not go over is gone for this request, too, and not stored by its commit.
  const stored = state.record?.fields ?? new Map()
  if (keep !== 'all') state.fields.reset(stored)
  else for (const name of fieldsLeftBehind()) state.fields.refresh(name, stored)
}

/**
 * A login over a session that went on in the meantime, by another login or a regeneration, is one over what it became: of two
 * that are sent at once, whichever answer comes last leaves the user logged in. Where another user has taken it, that one's is
 * left alone.
 */
async function loginOver(state: SessionState, step: Step): Promise<void> {
  const { host, lifecycle } = state
  const { userId, keep, set } = step
  const userBefore = state.record?.userId
  const parts = { keep, userId, isLogin: true, context: host.clientContext(), set } as const
  for (let attempt = 1; attempt <= MAX_RACES; attempt++) {
    const owner = state.record?.userId
    const isAnothers = owner !== undefined && owner !== userId
    const isDone = isAnothers
      ? await succeedAfresh(state, { userId, set })
      : await trySucceed(state, parts, fieldsOfLogin())
    if (isDone) return
    const successor = await lifecycle.successorOf(state.id)
    if (successor === null) throw state.ended()
    const isTaken = successor.userId !== undefined && successor.userId !== userId && successor.userId !== userBefore
    if (isTaken) return loginAfresh(state, isAnothers ? { ...step, keep: [] } : step)
    state.record = successor
    state.id = successor.id
  }
  throw state.ended()
}

/** A login that takes nothing along but what this request has set. */
async function loginAfresh(state: SessionState, { userId, keep, set }: Step): Promise<void> {
  const { host, lifecycle, fields } = state
  const kept = keptOf(fields.changes() ?? NO_CHANGES, keep)
  const issued = await lifecycle.create({
    id: lifecycle.newId(),
    fields: new Map([...host.initialFields(fields.binding), ...kept.set, ...set]),
    binding: fields.binding,
    metadata: { userId },
    context: host.clientContext(),
  })
  state.metadata = NO_METADATA
  state.logical = null
  takeIssued(state, issued)
  fields.reset(issued.record.fields)
}
