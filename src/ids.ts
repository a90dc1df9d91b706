// The names and secrets of sessions: where they come from and what shape they have.
import { createHash, createHmac, hash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'
import { v4 as uuid, v7 as uuidOfTime } from 'uuid'

const SLOT_DIGITS = 4

/**
 * A new session ID, a UUID v4 (RFC 9562).
 *
 * With `previous`, the new ID keeps that ID's first four hex digits. They are the part a sharded store may place
 * records by (`slotOf`), so that ending the old session and starting the new one is one atomic step even in a cluster;
 * 106 random bits remain, and the ID is a name, not a credential.
 */
export function newSessionId(previous?: string): string {
  const id = uuid()
  return previous === undefined ? id : previous.slice(0, SLOT_DIGITS) + id.slice(SLOT_DIGITS)
}

/** The part of a session ID that stays the same when the session is regenerated. */
export function slotOf(id: string): string {
  return id.slice(0, SLOT_DIGITS)
}

/** A new logical ID, a UUID v4. */
export function newLogicalId(): string {
  return uuid()
}

/**
 * A new activity ID, a UUID v7 (RFC 9562): it is no secret, and sorts by time; of one millisecond, in the order that this
 * process made them.
 */
export function newActivityId(at: Date): string {
  const msecs = at.getTime()
  if (msecs === lastActivity.msecs) lastActivity.seq += 1
  // From the lower half of the 32 bits, so that it cannot run over within a millisecond.
  else lastActivity = { msecs, seq: randomInt(2 ** 31) }
  return uuidOfTime(lastActivity)
}

let lastActivity = { msecs: Number.NaN, seq: 0 }

/**
 * The logical ID that follows from a session ID or another logical ID, in the shape of a UUID v4: what requests that begin
 * one at the same time agree on without asking each other.
 */
export function derivedLogicalId(from: string): string {
  const hex = hash('sha256', `logical ID after ${from}`, 'hex')
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 3) | 8).toString(16)
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    variant + hex.slice(17, 20),
    hex.slice(20, 32),
  ].join('-')
}

/** A token, and the hash of it that a store keeps. */
export interface IssuedToken {
  readonly token: string
  readonly tokenHash: string
}

/** A new token: 256 bits from the system's secure random source (OWASP ASVS 7.2.3), and the hash that a store may keep. */
export function newToken(): IssuedToken {
  const token = randomBytes(32).toString('base64url')
  return { token, tokenHash: hashToken(token) }
}

/** SHA-256 of a token in base64url, 43 characters. A plain hash is enough for a 256-bit random secret (ASVS 6.5.2). */
export function hashToken(token: string): string {
  return hash('sha256', token, 'base64url')
}

/** A token as only who has the one before it can read it: a store that keeps this can still log nobody in. */
export function sealToken(token: string, previous: string): string {
  return xored(Buffer.from(token, 'base64url'), previous).toString('base64url')
}

/** What `sealToken()` sealed, when it was under this token: `tokenHash` says so. */
export function openToken(sealed: string, previous: string, tokenHash: string): string | undefined {
  const token = xored(Buffer.from(sealed, 'base64url'), previous).toString('base64url')
  return sameHash(hashToken(token), tokenHash) ? token : undefined
}

/** With a pad of its own: a token is sealed under another one once, since it can be renewed but once. */
function xored(bytes: Buffer, previous: string): Buffer {
  const pad = createHmac('sha256', previous).update('the token after this one').digest()
  return Buffer.from(bytes.map((byte, index) => byte ^ (pad[index % pad.length] as number)))
}

/**
 * The name that a store's index knows a user by: letters, digits, `-` and `_`, whatever the user ID holds. A number and
 * the text of it are two users. UTF-16, since UTF-8 has one and the same text for all ill-formed ones.
 */
export function userKey(userId: string | number): string {
  return createHash('sha256')
    .update(`${typeof userId}:${userId}`, 'utf16le')
    .digest('base64url')
}

/** The name that a store knows a note by, whatever text its key is. */
export function noteKey(key: string): string {
  return hash('sha256', key, 'base64url')
}

/** Compares two hashes in constant time. */
export function sameHash(a: string, b: string): boolean {
  const left = Buffer.from(a)
  const right = Buffer.from(b)
  return left.length === right.length && timingSafeEqual(left, right)
}
