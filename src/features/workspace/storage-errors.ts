// What a file system says, in our terms.

import { SessionError } from '../../errors.js'

/** The code of an error of Node's, such as `'ENOENT'`. */
export function codeOf(error: unknown): string {
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code === 'string' ? code : ''
}

/** `undefined` when there is nothing under that path; rejects with anything else. */
export async function unlessMissing<T>(task: Promise<T>): Promise<T | undefined> {
  try {
    return await task
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined
    throw error
  }
}

/** An error of the file system as ours; others as they are. Its message names no path of a user's. */
export function explained(error: unknown): unknown {
  switch (codeOf(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return full(error)
    case 'EROFS':
      return unavailable('the disk is read-only', error)
    case 'EACCES':
    case 'EPERM':
      return unavailable('the process may not write there', error)
    case 'EIO':
    case 'ESTALE':
    case 'ENXIO':
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOTDIR':
      return unavailable(`the file system says ${codeOf(error)}`, error)
    default:
      return error
  }
}

/** The folder of all workspaces is not there. */
export function vanished(cause?: unknown): SessionError {
  return unavailable('its root is not there any more: was a disk unmounted, or the folder removed?', cause)
}

function full(cause: unknown): SessionError {
  return new SessionError('STORAGE_FULL', 'There is no room left on the disk of the workspaces.', { cause })
}

function unavailable(why: string, cause: unknown): SessionError {
  return new SessionError('STORAGE_UNAVAILABLE', `The storage of the workspaces cannot be used: ${why}.`, { cause })
}
