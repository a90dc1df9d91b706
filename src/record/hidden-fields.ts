// Fields that features keep in a session beside those of the application. In a store they are fields as any other: they merge,
// commit and end with them. The application does not see them.
import { SessionError } from '../errors.js'

const PREFIX = 'sojourn:'

/** The field that a feature's drawer of this name is kept in. */
export function hiddenField(drawer: string): string {
  return PREFIX + drawer
}

/** Whether a field is a feature's. */
export function isHiddenField(name: unknown): boolean {
  return typeof name === 'string' && name.startsWith(PREFIX)
}

/** @throws {SessionError} `INVALID_FIELD` for a name that the application cannot use. */
export function requireOwnField(name: unknown): void {
  if (isHiddenField(name)) throw hiddenFieldError()
}

export function hiddenFieldError(): SessionError {
  return new SessionError(
    'INVALID_FIELD',
    `Field names that begin with "${PREFIX}" are kept for features of the session; use another name.`,
  )
}
