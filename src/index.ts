// The public face of the core, nothing else.
export { jsonCodec, type SessionCodec } from './codec.js'
export { getSession, requireSession } from './context.js'
export type { CookieAttributes, CookieOptions } from './cookie.js'
export { isSessionError, SessionError, type SessionErrorCode, type ValidationIssue } from './errors.js'
export type { SessionEventMap, SessionEventName, SessionEvents } from './events.js'
export type { FieldLimits } from './fields.js'
export { type HttpRequest, type SessionMiddleware, session, session as default } from './middleware.js'
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
  applyRegeneration,
  applyTouch,
  type ExpiryReason,
  type MetadataChange,
  type Regeneration,
  type SessionChange,
  SessionData,
  type SessionDataInit,
  type SessionDataJSON,
  type UpdateResult,
} from './session-data.js'
export { SessionStore } from './store.js'
export { MemorySessionStore, type MemorySessionStoreOptions } from './stores/memory.js'
export type { InferSchemaOutput, StandardSchema, TypedSession } from './typed.js'
