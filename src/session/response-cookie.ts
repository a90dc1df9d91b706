// What a response tells the client of its session: which token, until when, and when the cookie must be sent again.
import type { IssuedSession, SessionSettings } from '../lifecycle/lifecycle.js'
import type { ResolvedExpiry } from '../options/expiry-options.js'
import type { MetadataChange } from '../record/changes.js'
import type { SessionData } from '../record/session-data.js'
import type { SessionState } from './state.js'

/** What the cookie must hold, or `null` when this request does not know the token. */
export function cookieContent(state: SessionState): { id: string; token: string; maxAgeSeconds?: number } | null {
  const token = state.token()
  if (token === undefined) return null
  const content = { id: state.id, token }
  if (!isPersistent(state)) return content
  if (endsNow(state)) return { ...content, maxAgeSeconds: 0 }
  const left = Math.ceil(((state.promisedEnd ?? expiresAt(state)) - state.lifecycle.now()) / 1000)
  return { ...content, maxAgeSeconds: Math.max(1, left) }
}

/** Whether the cookie outlives the browser window. */
export function isPersistent({ metadata, record, lifecycle }: SessionState): boolean {
  return metadata.persistent ?? record?.persistent ?? lifecycle.options.cookie.persistent
}

/** Sends the cookie of a known session again, so that a change of its attributes takes effect. */
export function resendCookie(state: SessionState): void {
  if (state.record !== null && state.token() !== undefined && state.cookie === 'keep') state.cookie = 'set'
}

/** The session's end has moved: a persistent cookie has to move with it. */
export function moveCookie(state: SessionState): void {
  if (isPersistent(state)) resendCookie(state)
}

/** What a write that moves the session's end notes of the client's cookie, if anything. */
export function cookieNote(state: SessionState): Pick<MetadataChange, 'cookieEndsAt'> | undefined {
  const { record, host, lifecycle } = state
  return record === null || host.isPassive ? undefined : lifecycle.cookieNote(record, isTold(state))
}

/** Whether the client learns by this response when the session ends. */
export function isTold(state: SessionState): boolean {
  return state.promisedEnd !== undefined || (state.token() !== undefined && state.host.cookieOutlook() === 'open')
}

/** The session has a new token, which the response is to carry. */
export function takeIssued(state: SessionState, { record, token }: IssuedSession): void {
  state.record = record
  state.id = record.id
  state.setToken(token)
  state.mayRenew = false
  state.confirmsToken = false
  state.cookie = 'set'
  if (state.logical !== null) state.logical.derived = undefined
}

/** The outcome of a renewal; `null` when another request was quicker. */
export function takeRenewed(state: SessionState, issued: IssuedSession | null): void {
  if (issued !== null) takeIssued(state, issued)
  // Another request renewed it a moment ago, and its response carries the new cookie, which the old must not follow.
  else state.setToken(undefined)
}

// --- When the session ends ---

/** The idle timeout of this session, in ms. */
export function idleTimeoutMs({ metadata, record, lifecycle }: SessionState): number {
  const own = 'idleTimeoutMs' in metadata ? metadata.idleTimeoutMs : record?.idleTimeoutMs
  return own ?? lifecycle.options.idleTimeoutMs
}

/** When the session ends if nothing more happens, in ms since the epoch. */
export function expiresAt(state: SessionState): number {
  const { record, metadata, lifecycle } = state
  if (endsNow(state)) return lifecycle.now()
  if (record !== null && !('idleTimeoutMs' in metadata)) return record.expiresAt
  const now = lifecycle.now()
  const absolute = metadata.absoluteExpiresAt ?? record?.absoluteExpiresAt ?? now + lifecycle.options.absoluteTimeoutMs
  return Math.min(now + idleTimeoutMs(state), absolute)
}

/** Whether this request chose that the session is over with its response. */
function endsNow({ expiryChoice }: SessionState): boolean {
  return expiryChoice?.idleMs === 0
}

/**
 * Notes this session's own timeouts, to be stored with the next write. An idle timeout of `null` goes back to the default; with 0
 * the session is over as soon as the response can be made.
 * @throws {SessionError} `INVALID_ARGUMENT`, and what a session that cannot be written throws.
 */
export function chooseExpiry(state: SessionState, { idleMs, absoluteMs, persistent }: ResolvedExpiry): void {
  state.requireWritable()
  const { createdAt, absoluteExpiresAt } = state.record ?? newTimes(state)
  const times = { createdAt, absoluteExpiresAt: state.metadata.absoluteExpiresAt ?? absoluteExpiresAt }
  const timeouts = state.lifecycle.times.ownTimeouts(times, idleMs, absoluteMs)
  const before = state.expiryChoice
  state.expiryChoice = {
    idleMs,
    absoluteMs: absoluteMs ?? before?.absoluteMs,
    persistent: persistent ?? before?.persistent,
  }
  const { idleTimeoutMs, persistent: isKept } = settingsOf(state.expiryChoice)
  state.metadata = {
    ...state.metadata,
    ...timeouts,
    idleTimeoutMs,
    ...(isKept !== undefined && { persistent: isKept }),
  }
  state.noticeLateChange()
}

/** What a choice makes of a session's own settings. */
export function settingsOf({ idleMs, absoluteMs, persistent }: ResolvedExpiry): SessionSettings {
  return {
    idleTimeoutMs: idleMs === 0 ? LAST_MOMENT_MS : (idleMs ?? undefined),
    absoluteTimeoutMs: absoluteMs,
    ...(persistent !== undefined && { persistent }),
  }
}

/** How long a session that is to end with its response stays good: until the response has been made. */
const LAST_MOMENT_MS = 1_000

function newTimes({ lifecycle }: SessionState): Pick<SessionData, 'createdAt' | 'absoluteExpiresAt'> {
  const now = lifecycle.now()
  return { createdAt: now, absoluteExpiresAt: now + lifecycle.options.absoluteTimeoutMs }
}
