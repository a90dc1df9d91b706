// What Redis answers, read strictly: an answer that we do not know is a failure, never a yes. Numbers may come as text, from a
// client that was made with `stringNumbers`.
import { SessionError } from '../../errors.js'

/** Whether a script says 1 or 0. */
export function isYes(reply: unknown, operation: string): boolean {
  const answer = textOf(reply)
  if (answer === '1') return true
  if (answer === '0') return false
  throw unknownReply(operation)
}

/** A whole number of at least 0. */
export function countOf(reply: unknown, operation: string): number {
  const text = textOf(reply)
  if (text === null || !/^\d{1,16}$/.test(text)) throw unknownReply(operation)
  return Number(text)
}

/** A list whose first member is one of the words `known`. */
export function statusOf<Status extends string>(
  reply: unknown,
  known: readonly Status[],
  operation: string,
): [status: Status, ...rest: unknown[]] {
  if (!Array.isArray(reply) || !known.includes(reply[0])) throw unknownReply(operation)
  return reply as [Status, ...unknown[]]
}

export function textOrNull(reply: unknown, operation: string): string | null {
  if (typeof reply !== 'string' && reply !== null) throw unknownReply(operation)
  return reply
}

/** Of no kind that we know: what we asked for may have been done or not. */
export function unknownReply(operation: string): SessionError {
  return new SessionError(
    'STORE_UNAVAILABLE',
    `Redis answered "${operation}" with something unknown; whether it was done is unknown, too. ` +
      'A proxy, or a client that alters replies, may stand in between.',
  )
}

function textOf(reply: unknown): string | null {
  return typeof reply === 'string' || typeof reply === 'number' ? String(reply) : null
}

/** A list of texts. */
export function textsOf(reply: unknown, operation: string): string[] {
  if (!Array.isArray(reply) || !reply.every((each) => typeof each === 'string')) throw unknownReply(operation)
  return reply
}
