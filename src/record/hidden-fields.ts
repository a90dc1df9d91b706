// Fields that features keep in a session beside those of the application. In a store they are fields as any other: they merge,
// commit and end with them. The application does not see them.
import { SessionError } from '../errors.js'

const PREFIX = 'sojourn:'
const OWN_PREFIX = 'sojourn::'

/** The field that a feature's drawer of this name is kept in. */
export function hiddenField(drawer: string): string {
  return PREFIX + drawer
}

/** A field of the session's own, stored as plain text: no drawer has such a name. */
export function ownField(name: string): string {
  return OWN_PREFIX + name
}

/** Whether a field is the session's own. */
export function isOwnField(name: string): boolean {
  return name.startsWith(OWN_PREFIX)
}

/** The drawer of `sojourn/device-bound`: that a session has one, lists tell. */
export const DEVICE = hiddenField('device-bound')

/** Whether lists need a field of a session. */
export function isForLists(name: string): boolean {
  return isOwnField(name) || name === DEVICE
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
