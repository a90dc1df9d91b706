// Who ends sessions and why, in texts that a store and a log can take.
import { SessionError } from '../errors.js'

export function checkReason({ by, detail }: { by?: string | undefined; detail?: string | undefined }): {
  by: string | undefined
  detail: string | undefined
} {
  checkTexts({ by, detail })
  return { by, detail }
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function checkTexts(texts: Record<string, unknown>): void {
  for (const [name, text] of Object.entries(texts)) {
    if (text !== undefined && (typeof text !== 'string' || text.length > MAX_REASON)) {
      throw new SessionError('INVALID_ARGUMENT', `${name} is not text of at most ${MAX_REASON} characters.`)
    }
  }
}

const MAX_REASON = 500
