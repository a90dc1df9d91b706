// CSRF tokens: made from the session's ID and keys, kept nowhere.
//   16 random bytes, HMAC-SHA256(key, session ID + random) and, for a visitor without a stored session, HMAC(key, 'visitor' +
//   random): whether that session will be stored is not known when the page is made. Each in base64url, one behind the other.
import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto'
import { inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'

const PURPOSE = 'csrf'
const VISITOR = 'visitor'
const RANDOM_BYTES = 16
/** In characters of base64url. */
const RANDOM_LENGTH = 22
const MAC_LENGTH = 43
const OF_SESSION_LENGTH = RANDOM_LENGTH + MAC_LENGTH
const OF_VISITOR_LENGTH = OF_SESSION_LENGTH + MAC_LENGTH

/** A token of this session: each time another, so that a compressed page tells nothing of it (BREACH). */
export function issueToken(session: Session): string {
  const key = inside(session).sharedKeys(PURPOSE)[0] as KeyObject
  const random = randomBytes(RANDOM_BYTES).toString('base64url')
  const token = random + mac(key, session.id, random)
  return session.isNew ? token + mac(key, VISITOR, random) : token
}

/** Whose token it is. One of visitors is good where there is no session, and says nothing where there is one. */
export function judgeToken(session: Session, token: unknown): 'of-session' | 'of-visitors' | 'wrong' {
  if (typeof token !== 'string') return 'wrong'
  if (token.length !== OF_SESSION_LENGTH && token.length !== OF_VISITOR_LENGTH) return 'wrong'
  const random = token.slice(0, RANDOM_LENGTH)
  const keys = inside(session).sharedKeys(PURPOSE)
  const { id } = session
  const ofSession = Buffer.from(token.slice(RANDOM_LENGTH, OF_SESSION_LENGTH))
  for (const key of keys) if (isSame(ofSession, mac(key, id, random))) return 'of-session'
  const ofVisitor = Buffer.from(token.slice(OF_SESSION_LENGTH))
  for (const key of keys) if (isSame(ofVisitor, mac(key, VISITOR, random))) return 'of-visitors'
  return 'wrong'
}

/** The two subjects have lengths of their own, so that no text stands for both. */
function mac(key: KeyObject, subject: string, random: string): string {
  return createHmac('sha256', key)
    .update(subject + random)
    .digest('base64url')
}

/** What is no base64url may have more bytes than characters. */
function isSame(given: Buffer, expected: string): boolean {
  return given.length === MAC_LENGTH && timingSafeEqual(given, Buffer.from(expected))
}
