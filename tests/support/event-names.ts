// The names of all events, once: the compiler asks for new ones.
import type { SessionEventName } from 'sojourn'

const NAMES: Readonly<Record<SessionEventName, true>> = {
  created: true,
  loaded: true,
  committed: true,
  renewed: true,
  regenerated: true,
  login: true,
  reauthenticated: true,
  logout: true,
  destroyed: true,
  revoked: true,
  allRevoked: true,
  limit: true,
  expired: true,
  forgotten: true,
  usedAfterEnd: true,
  badCookie: true,
  unknownSession: true,
  tokenMismatch: true,
  cookieConflict: true,
  csrfRefused: true,
  corruptRecord: true,
  corruptKey: true,
  clockSkew: true,
  conflict: true,
  lateWrite: true,
  lateChange: true,
  storeError: true,
  archiveFailed: true,
  cleaned: true,
  boundary: true,
  ended: true,
  storeCall: true,
}

export const ALL_EVENT_NAMES = Object.keys(NAMES) as SessionEventName[]
