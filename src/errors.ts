// Every error that Sojourn throws or hands to `next`.

/** The stable name of what went wrong; compare `error.code` with it, not the message. */
export type SessionErrorCode =
  | 'INVALID_OPTION'
  | 'INVALID_ARGUMENT'
  | 'INVALID_FIELD'
  | 'INVALID_VALUE'
  | 'VALIDATION_FAILED'
  | 'SESSION_TOO_LARGE'
  | 'SESSION_ENDED'
  | 'SESSION_READ_ONLY'
  | 'SESSION_LIMIT'
  | 'REAUTHENTICATION_REQUIRED'
  | 'CSRF_REFUSED'
  | 'DEVICE_UNPROVEN'
  | 'UPDATE_CONFLICT'
  | 'HEADERS_SENT'
  | 'INSECURE_CONNECTION'
  | 'CORRUPT_RECORD'
  | 'STORE_UNAVAILABLE'
  | 'STORE_TIMEOUT'
  | 'LOAD_TIMEOUT'
  | 'MISSING_DEPENDENCY'
  | 'NOT_SUPPORTED'
  | 'INVALID_FILE_NAME'
  | 'INVALID_FORM'
  | 'FILE_EXISTS'
  | 'QUOTA_EXCEEDED'
  | 'RANGE_NOT_SATISFIABLE'
  | 'STORAGE_FULL'
  | 'STORAGE_UNAVAILABLE'

/** What a Standard Schema found wrong with one value. */
export interface ValidationIssue {
  readonly message: string
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined
}

/**
 * The one error class of Sojourn.
 *
 * `code` says what happened, `status` is the HTTP status that Express and Connect answer with when the error reaches
 * them, and `cause` holds the error underneath. Messages carry no token, cookie, key or session value.
 */
export class SessionError extends Error {
  override readonly name = 'SessionError'
  readonly code: SessionErrorCode
  /**
   * 503 when the store or the disk is at fault, 504 when what was to be cached did not come in time, 409 when the session ended
   * under the request or a user has too many, 401 when the user must prove who they are, or where the request comes from, 403 when the request may be another
   * site's, 500 otherwise; of files, what their rows in the documentation say.
   */
  readonly status: number
  /** The same as `status`, for NestJS and what else goes by the name of http-errors. */
  readonly statusCode: number
  /** Whether the message is for the client: below 500 only, as http-errors has it. */
  readonly expose: boolean
  /** Only for `VALIDATION_FAILED`: what the schema said. */
  readonly issues?: readonly ValidationIssue[]

  constructor(
    code: SessionErrorCode,
    message: string,
    options: { cause?: unknown; issues?: readonly ValidationIssue[] } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.status = statusOf(code)
    this.statusCode = this.status
    this.expose = this.status < 500
    if (options.issues) this.issues = options.issues
  }
}

/**
 * Whether `error` carries one of the given codes. Compares codes, not classes: a program that loads both the ESM and
 * the CommonJS build has two `SessionError` classes.
 */
export function isSessionError(error: unknown, ...codes: SessionErrorCode[]): error is SessionError {
  if (!(error instanceof Error) || error.name !== 'SessionError' || !('code' in error)) return false
  return codes.length === 0 || codes.includes(error.code as SessionErrorCode)
}

/** An option is wrong: the message says which, what is wrong with it and what to do. */
export function invalidOption(message: string): SessionError {
  return new SessionError('INVALID_OPTION', message)
}

/** An argument of a call is wrong. */
export function invalidArgument(message: string): SessionError {
  return new SessionError('INVALID_ARGUMENT', message)
}

/** Whether the store is at fault: it failed, gave no answer in time, or left a session that can only be read. */
export function isStoreFault(error: unknown): error is SessionError {
  return isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT', 'SESSION_READ_ONLY')
}

function statusOf(code: SessionErrorCode): number {
  switch (code) {
    case 'STORE_UNAVAILABLE':
    case 'STORE_TIMEOUT':
    case 'UPDATE_CONFLICT':
    case 'SESSION_READ_ONLY':
    case 'STORAGE_UNAVAILABLE':
      return 503
    case 'LOAD_TIMEOUT':
      return 504
    case 'SESSION_ENDED':
    case 'SESSION_LIMIT':
    case 'FILE_EXISTS':
      return 409
    case 'INVALID_FILE_NAME':
    case 'INVALID_FORM':
      return 400
    case 'QUOTA_EXCEEDED':
      return 413
    case 'RANGE_NOT_SATISFIABLE':
      return 416
    case 'STORAGE_FULL':
      return 507
    case 'REAUTHENTICATION_REQUIRED':
    case 'DEVICE_UNPROVEN':
      return 401
    case 'CSRF_REFUSED':
      return 403
    default:
      return 500
  }
}
