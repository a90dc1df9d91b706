// Encryption keys as they are given, checked before the first session: a key that somebody can guess protects nothing.
import { createSecretKey, hkdfSync, KeyObject } from 'node:crypto'
import { invalidOption } from '../../errors.js'

/** One key of 256 random bits: base64, base64url or hex text, bytes, or a `KeyObject`. */
export type EncryptionKey = string | Uint8Array | KeyObject

/** One key, or several, newest first; a text may hold several, with commas or white space between. */
export type EncryptionKeys = EncryptionKey | readonly EncryptionKey[] | undefined

/** A key that texts name. */
export interface NamedKey {
  readonly id: string
  readonly key: KeyObject
}

const KEY_BYTES = 32
const MIN_DISTINCT_BYTES = 12
/** Room for other ways, without two of them ever having the same key. */
const VERSION = 'sojourn encryption 1'
const ADVICE = 'Make one with `openssl rand -base64 32`, and keep it apart from the store and from the cookie secret.'

/** @throws {SessionError} `INVALID_OPTION` */
export function keysOf(given: EncryptionKeys): readonly [NamedKey, ...NamedKey[]] {
  const list = Array.isArray(given) ? given : [given]
  const all = list.flatMap((key: unknown) => (typeof key === 'string' ? key.split(/[\s,]+/).filter(Boolean) : [key]))
  const bytes = all.map(bytesOf)
  bytes.forEach((key, index) => {
    if (bytes.findIndex((other) => other.equals(key)) !== index) {
      throw invalidOption(`keys[${index}] is there twice: each key once, newest first.`)
    }
  })
  const [newest, ...older] = bytes.map(named)
  if (newest === undefined) throw invalidOption(`keys is empty. ${ADVICE}`)
  return [newest, ...older]
}

/** The text's ID tells keys apart and nothing of them: both are derived (HKDF-SHA-256, RFC 5869). */
function named(bytes: Buffer): NamedKey {
  const derived = (info: string, length: number): Buffer =>
    Buffer.from(hkdfSync('sha256', bytes, VERSION, info, length))
  return { id: derived('id', 4).toString('base64url'), key: createSecretKey(derived('fields', KEY_BYTES)) }
}

function bytesOf(key: unknown, index: number): Buffer {
  const bytes = rawBytes(key)
  if (bytes === null) {
    const kind = key === undefined ? 'missing' : `of type ${key === null ? 'null' : typeof key}`
    throw invalidOption(`keys[${index}] is ${kind}. ${ADVICE}`)
  }
  if (bytes.length !== KEY_BYTES) {
    throw invalidOption(`keys[${index}] has ${bytes.length} bytes, where AES-256 takes 32. ${ADVICE}`)
  }
  if (isGuessable(bytes)) throw invalidOption(`keys[${index}] has a pattern that can be guessed. ${ADVICE}`)
  return bytes
}

function rawBytes(key: unknown): Buffer | null {
  if (typeof key === 'string') {
    if (/^[\da-f]{64}$/i.test(key)) return Buffer.from(key, 'hex')
    return /^[\w+/-]*={0,2}$/.test(key) ? Buffer.from(key, 'base64') : Buffer.from(key)
  }
  if (key instanceof Uint8Array) return Buffer.from(key)
  // By what it has, not by its class: there may be a Node of another realm, as in tests.
  if (key instanceof KeyObject || (typeof key === 'object' && key !== null && 'export' in key)) {
    return (key as KeyObject).type === 'secret' ? (key as KeyObject).export() : null
  }
  return null
}

/** Few different bytes, letters that somebody has typed, a step that repeats, or one part again and again. */
function isGuessable(bytes: Buffer): boolean {
  if (new Set(bytes).size < MIN_DISTINCT_BYTES) return true
  if (bytes.every((byte) => byte >= 0x20 && byte < 0x7f)) return true
  const step = (index: number): number => ((bytes[index + 1] as number) - (bytes[index] as number) + 256) % 256
  if (bytes.subarray(0, -1).every((_byte, index) => step(index) === step(0))) return true
  return bytes.subarray(0, KEY_BYTES / 2).equals(bytes.subarray(KEY_BYTES / 2))
}
