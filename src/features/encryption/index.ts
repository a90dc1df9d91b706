// Fields that only the application can read: `sojourn/encryption`, a codec that encrypts what another one has encoded.
//
//   session({ secret, codec: encrypted({ keys: process.env.SESSION_ENCRYPTION_KEYS }) })
//
// A text in the store is "e1.KEY.BODY": the ID of the key, and in base64url the nonce, the ciphertext and the tag of
// AES-256-GCM (NIST SP 800-38D). What it is bound to, as additional data, is its field's name and its session.
import { createCipheriv, createDecipheriv, type KeyObject, randomFillSync } from 'node:crypto'
import { invalidOption, SessionError } from '../../errors.js'
import { jsonCodec, type SessionCodec } from '../../record/codec.js'
import { type EncryptionKeys, keysOf, type NamedKey } from './keys.js'

export type { EncryptionKey, EncryptionKeys } from './keys.js'

/** What `encrypted()` takes. */
export interface EncryptionOptions {
  /**
   * Keys of 256 random bits, newest first: the first encrypts, all decrypt. Each as base64, base64url or hex text, such as
   * `openssl rand -base64 32` prints, as bytes, or as a `KeyObject`. A text may hold several, with commas or white space
   * between, as an environment variable does.
   */
  keys: EncryptionKeys
  /**
   * What turns values into the texts that are encrypted.
   * @default jsonCodec()
   */
  codec?: SessionCodec | undefined
  /**
   * Whether what is kept of the client (address, user agent, referrer, language) is encrypted, too.
   * @default false
   */
  clientContext?: boolean | undefined
  /**
   * Until when fields are read that are not encrypted, from before the switch. Afterwards such a field reads as absent, as
   * any that cannot be decrypted: who can write to the store must not pass off texts of his own.
   * @default never
   */
  readPlainUntil?: Date | undefined
}

const FORMAT = 'e1'
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Before the body: format, key ID, and a dot behind each. */
const ID_LENGTH = 6
const HEAD_LENGTH = FORMAT.length + 1 + ID_LENGTH + 1

/**
 * A codec that encrypts each field on its own, by AES-256-GCM with a fresh nonce, bound to the field's name and to a random value
 * of the session: a text that is moved to another field or session, or altered, reads as absent, and `corruptRecord` is told.
 * Only a field that has changed is encrypted, only one that is read is decrypted.
 *
 * The store still sees names of fields, lengths of texts, times and the user's ID.
 * @throws {SessionError} `INVALID_OPTION` for keys that are missing, too short, guessable or given twice
 */
export function encrypted(options: EncryptionOptions): SessionCodec {
  const { keys, codec = jsonCodec(), clientContext = false, readPlainUntil, ...others } = options ?? {}
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw invalidOption(`encrypted() has no option "${unknown}".`)
  if (codec.seal !== undefined) throw invalidOption('encrypted() takes a codec that does not seal by itself.')
  if (readPlainUntil !== undefined && Number.isNaN((readPlainUntil as Date | null)?.getTime?.() ?? Number.NaN)) {
    throw invalidOption('readPlainUntil is not a valid Date.')
  }
  if (clientContext !== true && clientContext !== false) throw invalidOption('clientContext is not true or false.')
  return new EncryptingCodec({ inner: codec, seal: new Sealer(keysOf(keys), readPlainUntil), clientContext }, '')
}

interface Parts {
  readonly inner: SessionCodec
  readonly seal: Sealer
  readonly clientContext: boolean
}

class EncryptingCodec implements SessionCodec {
  readonly #parts: Parts
  readonly #binding: string
  readonly isDeterministic: boolean
  readonly sealsContext: boolean

  constructor(parts: Parts, binding: string) {
    this.#parts = parts
    this.#binding = binding
    this.isDeterministic = parts.inner.isDeterministic ?? false
    this.sealsContext = parts.clientContext
  }

  encode(value: unknown, name: string): string {
    return this.#parts.inner.encode(value, name)
  }

  decode(text: string, name: string): unknown {
    return this.#parts.inner.decode(text, name)
  }

  seal(text: string, name: string): string {
    return this.#parts.seal.seal(text, placeOf(this.#binding, name))
  }

  open(text: string, name: string): string {
    return this.#parts.seal.open(text, placeOf(this.#binding, name))
  }

  isCurrent(text: string): boolean {
    return this.#parts.seal.isCurrent(text)
  }

  forSession(binding: string): SessionCodec {
    return new EncryptingCodec(this.#parts, binding)
  }
}

/** Where a text belongs. No binding has a dot in it. */
function placeOf(binding: string, name: string): Buffer {
  return Buffer.from(`${binding}.${name}`)
}

class Sealer {
  readonly #newest: NamedKey
  readonly #keys: ReadonlyMap<string, KeyObject>
  readonly #head: string
  readonly #plainUntil: number

  constructor(keys: readonly [NamedKey, ...NamedKey[]], readPlainUntil: Date | undefined) {
    this.#newest = keys[0]
    this.#keys = new Map(keys.map(({ id, key }) => [id, key]))
    this.#head = `${FORMAT}.${keys[0].id}.`
    this.#plainUntil = readPlainUntil?.getTime() ?? Number.NEGATIVE_INFINITY
  }

  seal(text: string, place: Buffer): string {
    const nonce = freshNonce()
    const cipher = createCipheriv('aes-256-gcm', this.#newest.key, nonce).setAAD(place)
    const body = cipher.update(text, 'utf8')
    cipher.final()
    return this.#head + Buffer.concat([nonce, body, cipher.getAuthTag()]).toString('base64url')
  }

  open(sealed: string, place: Buffer): string {
    if (!sealed.startsWith(`${FORMAT}.`) || sealed[HEAD_LENGTH - 1] !== '.') return this.#plain(sealed)
    const key = this.#keys.get(sealed.slice(FORMAT.length + 1, HEAD_LENGTH - 1))
    if (key === undefined) throw unreadable('it was encrypted with a key that is not among the keys')
    const bytes = Buffer.from(sealed.slice(HEAD_LENGTH), 'base64url')
    if (bytes.length < NONCE_BYTES + TAG_BYTES) throw unreadable('it is cut off')
    const end = bytes.length - TAG_BYTES
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
    decipher.setAAD(place).setAuthTag(bytes.subarray(end))
    const text = decipher.update(bytes.subarray(NONCE_BYTES, end), undefined, 'utf8')
    try {
      return text + decipher.final('utf8')
    } catch {
      throw unreadable('it was altered, or moved here from another field or session')
    }
  }

  isCurrent(sealed: string): boolean {
    return sealed.startsWith(this.#head)
  }

  #plain(text: string): string {
    if (Date.now() < this.#plainUntil) return text
    throw unreadable('it is not encrypted')
  }
}

/** Random bytes are drawn for many nonces at once: each is used once. */
const pool = Buffer.alloc(NONCE_BYTES * 256)
let used = pool.length

function freshNonce(): Buffer {
  if (used === pool.length) {
    // Before the place is moved: when this fails, no nonce is used again.
    randomFillSync(pool)
    used = 0
  }
  const nonce = pool.subarray(used, used + NONCE_BYTES)
  used += NONCE_BYTES
  return nonce
}

function unreadable(why: string): SessionError {
  return new SessionError('CORRUPT_RECORD', `A field cannot be decrypted: ${why}.`)
}
