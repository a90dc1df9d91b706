// The public face of the core, nothing else.
export type {
  Activity,
  ActivityHook,
  ActivityRecorder,
  ActivityRequest,
  SessionActivityType,
} from './activity-hook.js'
export type { CleanUpResult } from './cleanup.js'
export type { ClientFacts } from './client-context.js'
export { jsonCodec, type SessionCodec } from './codec.js'
export {
  bindSession,
  getSession,
  getSessionId,
  requireSession,
  requireSessionId,
  sessionContext,
  withSession,
} from './context.js'
export type { CookieAttributes, CookieOptions } from './cookie.js'
export { isSessionError, SessionError, type SessionErrorCode, type ValidationIssue } from './errors.js'
export type { SessionEvent, SessionEventMap, SessionEventName, SessionEvents } from './events.js'
export type { FieldLimits } from './fields.js'
export { type RecentAuthOptions, requireRecentAuth } from './guards.js'
export {
  type CreateOptions,
  type RevokeOptions,
  type SessionFilter,
  SessionManager,
  type SessionMiddleware,
  session,
  session as default,
  type Validation,
} from './manager.js'
export type { HttpRequest } from './middleware.js'
export type { Duration, SessionOptions } from './options.js'
export type { HttpResponse } from './response.js'
export type {
  FieldName,
  FieldValue,
  Session,
  SessionCallback,
  SessionCookie,
  SessionFields,
  SessionMetadata,
} from './session.js'
export {
  applyChange,
  applyEnd,
  applyRegeneration,
  applyTouch,
  type EndReason,
  type EndResult,
  type Expectation,
  type ExpiryReason,
  endOfRegenerated,
  type MetadataChange,
  type RegenerateResult,
  type Regeneration,
  type SessionChange,
  type SessionContext,
  SessionData,
  type SessionDataInit,
  type SessionDataJSON,
  type SessionEnd,
  type UpdateResult,
} from './session-data.js'
export type { EndedSession, SessionInfo, StoredSession, UserSession } from './session-info.js'
export { SessionStore, type UserEntry, type UserIndex } from './store.js'
export { MemorySessionStore, type MemorySessionStoreOptions } from './stores/memory.js'
export type { InferSchemaOutput, StandardSchema, TypedSession } from './typed.js'
