// Where sessions come from that are taken over: the cookies of express-session, cookie-session and iron-session, each proved to be
// of who signed or sealed it, and what they stand for.
import { createDecipheriv, createHmac, pbkdf2Sync, timingSafeEqual } from 'node:crypto'
import { unsign } from 'cookie-signature'

/** A key of the session library that is left, as it takes it. */
export type OldSecret = string | Buffer

/** A session that a request's old cookie stands for. */
export interface OldSession {
  /** What no other session has, to derive the ID of the new one from. Secret. */
  readonly key: string
  /** Its ID in the old store, where it has one. */
  readonly sid?: string | undefined
  /** Its fields, where the cookie itself holds them. */
  readonly fields?: Record<string, unknown> | undefined
}

/** Reads the old cookie of a request; `null` for what is none, or not ours. */
export type OldSource = (header: string) => OldSession | null

/** The cookie `s:sid.signature`. */
export function expressSource(name: string, secrets: readonly OldSecret[]): OldSource {
  return (header) => {
    const value = cookieOf(header, name)
    if (value === undefined || !value.startsWith('s:')) return null
    for (const secret of secrets) {
      const sid = unsign(value.slice(2), secret as string)
      if (sid !== false && sid !== '') return { key: sid, sid }
    }
    return null
  }
}

/** Two cookies: the session as JSON in base64, and the signature of Keygrip (HMAC-SHA-1). */
export function cookieSessionSource(name: string, secrets: readonly OldSecret[]): OldSource {
  return (header) => {
    const value = cookieOf(header, name)
    const signature = cookieOf(header, `${name}.sig`)
    if (value === undefined || signature === undefined) return null
    const isSigned = secrets.some((secret) => {
      const expected = createHmac('sha1', secret).update(`${name}=${value}`).digest('base64url')
      return isSame(signature, expected)
    })
    const fields = isSigned ? objectOf(Buffer.from(value, 'base64').toString()) : null
    return fields && { key: value, fields }
  }
}

/** The session sealed by Iron (Fe26.2: AES-256-CBC, HMAC-SHA-256, keys by PBKDF2). */
export function ironSource(name: string, passwords: readonly OldSecret[], now: () => number): OldSource {
  return (header) => {
    const value = cookieOf(header, name)
    if (value === undefined) return null
    const [sealed = '', version] = value.split('~', 2)
    const parts = sealed.split('*')
    if (parts.length !== 8 || parts[0] !== 'Fe26.2') return null
    for (const password of passwords) {
      const text = unsealed(parts, password, now())
      const read = text === undefined ? null : objectOf(text)
      // Before version 2, what is kept stood one level deeper.
      const fields = read && version === undefined ? ((read['persistent'] as Record<string, unknown>) ?? read) : read
      if (fields !== null) return { key: sealed, fields }
    }
    return null
  }
}

function unsealed(parts: readonly string[], password: OldSecret, now: number): string | undefined {
  const [, , salt = '', iv = '', encrypted = '', expiration = '', macSalt = '', mac = ''] = parts
  if (expiration !== '' && Number(expiration) <= now) return undefined
  const keyOf = (ownSalt: string): Buffer => pbkdf2Sync(password, ownSalt, 1, 32, 'sha1')
  const expected = createHmac('sha256', keyOf(macSalt)).update(parts.slice(0, 6).join('*')).digest('base64url')
  if (!isSame(mac, expected)) return undefined
  const decipher = createDecipheriv('aes-256-cbc', keyOf(salt), Buffer.from(iv, 'base64url'))
  return Buffer.concat([decipher.update(Buffer.from(encrypted, 'base64url')), decipher.final()]).toString()
}

function objectOf(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : null
  } catch {
    return null
  }
}

/** The first cookie of that name, as it was before it was written into a header. */
function cookieOf(header: string, name: string): string | undefined {
  for (const pair of header.split(';')) {
    const at = pair.indexOf('=')
    if (pair.slice(0, at).trim() !== name) continue
    const value = pair.slice(at + 1).trim()
    try {
      return decodeURIComponent(value)
    } catch {
      return value
    }
  }
  return undefined
}

function isSame(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}
