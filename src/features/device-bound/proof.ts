// What a browser sends as `Secure-Session-Response`: a JWT (RFC 7519) in the compact serialization (RFC 7515) that the key of the
// device has signed. Two algorithms, one header, one signature: `node:crypto` checks that, and a library for all of JOSE would add
// nothing but its own weight.
import { createPublicKey, type KeyObject, verify } from 'node:crypto'

/** The algorithms that browsers are offered. RS256 is for devices whose secure hardware knows no elliptic curves. */
export type DeviceAlgorithm = 'ES256' | 'RS256'

/** A proof that has its form. Whether the signature is right, `isSignedBy()` says. */
export interface Proof {
  readonly algorithm: DeviceAlgorithm
  /** The challenge that was signed. */
  readonly challenge: string
  /** The public key, as it is stored, with which a registration comes; `undefined` in a refresh, which has none. */
  readonly key: string | undefined
  readonly signed: string
  readonly signature: Buffer
}

/** Longer ones are no proofs: the key of an RSA of 4,096 bits and its signature take less than half of it. */
const MAX_LENGTH = 4_000
const FORM = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/
const LEAST_RSA_BITS = 2_048
const MOST_RSA_BITS = 4_096
const LEAST_EXPONENT = 65_537n

/** The proof in a header, or `null` for what is none: of another form or algorithm, or with a key that is no good. */
export function readProof(header: string | readonly string[] | undefined): Proof | null {
  // A header in the form of structured fields (RFC 8941) may have its text in quotes.
  const text = typeof header === 'string' ? unquoted(header) : ''
  const [, head = '', body = '', signature = ''] = (text.length <= MAX_LENGTH && FORM.exec(text)) || []
  const { alg, typ, jwk } = objectOf(head)
  const { jti } = objectOf(body)
  if ((alg !== 'ES256' && alg !== 'RS256') || typ !== 'dbsc+jwt' || typeof jti !== 'string') return null
  const key = jwk === undefined ? undefined : keyOf(jwk, alg)
  if (key === null) return null
  return {
    algorithm: alg,
    challenge: jti,
    key,
    signed: `${head}.${body}`,
    signature: Buffer.from(signature, 'base64url'),
  }
}

/** Whether a proof was signed by the private half of a stored key, which is one of its algorithm. */
export function isSignedBy({ algorithm, signed, signature }: Proof, key: string): boolean {
  const publicKey = createPublicKey({ key: Buffer.from(key, 'base64url'), format: 'der', type: 'spki' })
  // A signature of JOSE is r and s, 32 bytes each (RFC 7518, 3.4), not the DER that OpenSSL writes.
  const options = algorithm === 'ES256' ? { key: publicKey, dsaEncoding: 'ieee-p1363' as const } : publicKey
  return verify('sha256', Buffer.from(signed), options, signature)
}

/** The text of a header without its quotes, if it has some. */
export function unquoted(text: string): string {
  const plain = text.trim()
  return plain.length > 1 && plain.startsWith('"') && plain.endsWith('"') ? plain.slice(1, -1) : plain
}

/** A key as it is stored: the DER of its `SubjectPublicKeyInfo` in base64url. `null` for one that is no good. */
function keyOf(jwk: unknown, algorithm: DeviceAlgorithm): string | null {
  const { kty, crv, x, y, n, e } = (jwk ?? {}) as Record<string, unknown>
  // Members of another kind, a private one among them, are not looked at.
  const key = algorithm === 'ES256' ? { kty, crv, x, y } : { kty, n, e }
  try {
    const publicKey = createPublicKey({ key: key as Record<string, string>, format: 'jwk' })
    return isOf(publicKey, algorithm) ? publicKey.export({ format: 'der', type: 'spki' }).toString('base64url') : null
  } catch {
    return null
  }
}

function isOf({ asymmetricKeyType, asymmetricKeyDetails = {} }: KeyObject, algorithm: DeviceAlgorithm): boolean {
  const { namedCurve, modulusLength = 0, publicExponent = 0n } = asymmetricKeyDetails
  if (algorithm === 'ES256') return asymmetricKeyType === 'ec' && namedCurve === 'prime256v1'
  const isLong = modulusLength >= LEAST_RSA_BITS && modulusLength <= MOST_RSA_BITS
  return asymmetricKeyType === 'rsa' && isLong && publicExponent >= LEAST_EXPONENT
}

function objectOf(part: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
