// CSRF tokens: made from the session's ID and keys, kept nowhere.
//   16 random bytes, HMAC-SHA256(key, session ID + random) and, for a visitor without a stored session, HMAC(key, 'visitor' +
//   random): whether that session will be stored is not known when the page is made. In base64url.
import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto'
import { inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'

const PURPOSE = 'csrf'
const VISITOR = 'visitor'
const RANDOM_BYTES = 16
const MAC_BYTES = 32
/** In characters of base64url. */
const OF_SESSION_LENGTH = Math.ceil(((RANDOM_BYTES + MAC_BYTES) * 4) / 3)
const OF_VISITOR_LENGTH = Math.ceil(((RANDOM_BYTES + 2 * MAC_BYTES) * 4) / 3)

/** A token of this session: each time another, so that a compressed page tells nothing of it (BREACH). */
export function issueToken(session: Session): string {
  const key = inside(session).sharedKeys(PURPOSE)[0] as KeyObject
  const random = randomBytes(RANDOM_BYTES)
  const parts = [random, mac(key, session.id, random)]
  if (session.isNew) parts.push(mac(key, VISITOR, random))
  return Buffer.concat(parts).toString('base64url')
}

/** Whose token it is. One of visitors is good where there is no session, and says nothing where there is one. */
export function judgeToken(session: Session, token: unknown): 'of-session' | 'of-visitors' | 'wrong' {
  if (typeof token !== 'string') return 'wrong'
  if (token.length !== OF_SESSION_LENGTH && token.length !== OF_VISITOR_LENGTH) return 'wrong'
  const bytes = Buffer.from(token, 'base64url')
  const random = bytes.subarray(0, RANDOM_BYTES)
  const ofSession = bytes.subarray(RANDOM_BYTES, RANDOM_BYTES + MAC_BYTES)
  const ofVisitor = bytes.subarray(RANDOM_BYTES + MAC_BYTES)
  const keys = inside(session).sharedKeys(PURPOSE)
  if (keys.some((key) => isMac(ofSession, mac(key, session.id, random)))) return 'of-session'
  return keys.some((key) => isMac(ofVisitor, mac(key, VISITOR, random))) ? 'of-visitors' : 'wrong'
}

/** The two subjects have lengths of their own, so that no text stands for both. */
function mac(key: KeyObject, subject: string, random: Buffer): Buffer {
  return createHmac('sha256', key).update(subject).update(random).digest()
}

function isMac(given: Buffer, expected: Buffer): boolean {
  return given.length === expected.length && timingSafeEqual(given, expected)
}
