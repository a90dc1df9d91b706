// What a session says of who proved to be its user, and when; and whether that counts in this request.
import { type Authentication, authenticationOf } from '../record/authentication.js'
import type { SessionState } from './state.js'

/** Those whose client is not the one that proved it. Few: most states are never asked for. */
const doubted = new WeakSet<SessionState>()

/** For the rest of the request the session is read as if nothing had been proved lately. */
export function doubtProof(state: SessionState): void {
  doubted.add(state)
}

/** The user has proved it anew, in this request. */
export function believeProof(state: SessionState): void {
  doubted.delete(state)
}

/** When the user proved who they are, in milliseconds since the epoch; `undefined` when nobody did, or nobody knows. */
export function provedAt(state: SessionState): number | undefined {
  const { record } = state
  return record?.userId === undefined || record.unproven || doubted.has(state) ? undefined : record.createdAt
}

/** What proved it; `undefined` when nobody is logged in. */
export function proofIn(state: SessionState): Authentication | undefined {
  const found = authenticationOf(state.record)
  return found !== undefined && doubted.has(state) ? NOTHING_LATELY : found
}

const NOTHING_LATELY: Authentication = Object.freeze({ methods: Object.freeze([]), level: 0, at: undefined })
