// The public face of the core, nothing else.

export type { CookieAttributes } from './cookie/cookie.js'
export type { CookieOptions } from './cookie/cookie-options.js'
export type { Secret } from './cookie/secrets.js'
export type { Duration } from './duration.js'
export { isSessionError, SessionError, type SessionErrorCode, type ValidationIssue } from './errors.js'
export type {
  Activity,
  ActivityHook,
  ActivityRecorder,
  ActivityRequest,
  SessionActivityType,
} from './events/activity-hook.js'
export type { SessionEvent, SessionEventMap, SessionEventName, SessionEvents } from './events/events.js'
export type { CleanUpResult } from './manager/cleanup.js'
export type { FoundDrawer, SessionDrawers } from './manager/drawers.js'
export type { SessionFilter } from './manager/filter.js'
export {
  type CreateOptions,
  type RevokeOptions,
  SessionManager,
  type SessionMiddleware,
  session,
  session as default,
  type Validation,
} from './manager/manager.js'
export type { ReencryptOptions, ReencryptProgress, ReencryptResult } from './manager/reencrypt.js'
export type { ExpiryOptions } from './options/expiry-options.js'
export type { SessionOptions } from './options/options.js'
export type { Authentication, ProofOptions } from './record/authentication.js'
export {
  applyChange,
  applyEnd,
  applyRegeneration,
  applyTouch,
  type EndResult,
  type Expectation,
  endOfRegenerated,
  type MetadataChange,
  type RegenerateResult,
  type Regeneration,
  type SessionChange,
  type UpdateResult,
} from './record/changes.js'
export { jsonCodec, type SessionCodec } from './record/codec.js'
export type { SessionLimits, SessionSize } from './record/limits.js'
export type { NoteOptions, SessionNotes } from './record/notes.js'
export {
  type EndReason,
  type ExpiryReason,
  type SessionContext,
  SessionData,
  type SessionDataInit,
  type SessionDataJSON,
  type SessionEnd,
} from './record/session-data.js'
export type { EndedSession, SessionInfo, StoredSession, UserSession } from './record/session-info.js'
export { type ForgottenSession, requireInTime, SessionStore } from './record/store.js'
export type { UserEntry, UserIndex } from './record/user-index.js'
export { asyncHandler } from './request/async-handler.js'
export type { ClientFacts } from './request/client.js'
export {
  bindSession,
  getSession,
  getSessionId,
  requireSession,
  requireSessionId,
  sessionContext,
  withSession,
} from './request/current-session.js'
export type { HttpRequest } from './request/http-request.js'
export type { HttpResponse } from './request/http-response.js'
export { type PrivatePagesOptions, privatePages } from './request/private-pages.js'
export { type LevelOptions, type RecentAuthOptions, requireLevel, requireRecentAuth } from './request/recent-auth.js'
export type { ChangedByJson, CodecTypes, FieldValue, SessionFields } from './session/field-types.js'
export type {
  FieldName,
  Session,
  SessionCallback,
  SessionMetadata,
  SetOptions,
} from './session/session.js'
export type { SessionCookie } from './session/session-cookie.js'
export type { InferSchemaOutput, StandardSchema, TypedSession } from './session/typed.js'
export { MemorySessionStore, type MemorySessionStoreOptions } from './stores/memory.js'
