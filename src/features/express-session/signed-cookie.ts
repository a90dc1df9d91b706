// The cookie of express-session on the wire: `s:`, the ID, a dot, and its signature, in percent codes.
import { sign, unsign } from 'cookie-signature'
import type { CookieReading } from '../../cookie/cookie.js'
import type { IssuedToken } from '../../ids.js'
import { Recent } from '../../recent.js'

/** A key as express-session takes it. */
export type Secret = string | Buffer

/** Cookies of our name that are tried before the rest is ignored. */
const MAX_CANDIDATES = 10
/** No ID is longer than what a cookie can hold. */
const MAX_LENGTH = 4096
/** A client sends the same header with each request, unless it has a cookie that changes; longer ones are not kept. */
const LONGEST_KEPT = 1_024
const NOTHING: CookieReading = { claims: [], rejected: null }

/** Reads and writes the values of cookies of one name, under a list of secrets, of which the first signs. */
export class SignedCookies {
  readonly #name: string
  readonly #secrets: readonly Secret[]
  /** That of all sessions. */
  readonly #token: IssuedToken
  /** The IDs of the last values whose signature was found to be good: verifying it is the dearest part of reading. */
  readonly #verified = new Recent<string>()
  /** What whole headers said: those with one cookie of that name, which was ours. */
  readonly #headers = new Recent<CookieReading>()
  /** The last values that were written, by ID. */
  readonly #values = new Recent<string>()

  constructor(name: string, secrets: readonly Secret[], token: IssuedToken) {
    this.#name = name
    this.#secrets = secrets
    this.#token = token
  }

  /** What the cookies of that name say that we signed, in their order; and whether one of them was not. */
  read(header: string | undefined): CookieReading {
    if (header === undefined) return NOTHING
    const known = this.#headers.get(header)
    if (known !== undefined) return known
    const reading = this.#readHeader(header)
    const isPlain = reading.claims.length === 1 && reading.rejected === null
    if (isPlain && header.length <= LONGEST_KEPT) this.#headers.set(header, reading)
    return reading
  }

  #readHeader(header: string): CookieReading {
    const ids = new Set<string>()
    let rejected: CookieReading['rejected'] = null
    for (const value of valuesOf(header, this.#name)) {
      const id = this.#verified.get(value) ?? this.#verify(value)
      if (id === undefined) rejected = 'signature'
      else ids.add(id)
    }
    return ids.size === 0 && rejected === null
      ? NOTHING
      : { claims: [...ids].map((id) => ({ id, ...this.#token, isCurrent: true })), rejected }
  }

  /** What the ID of a cookie says that somebody else has verified. */
  readingOf(id: string): CookieReading {
    return { claims: [{ id, ...this.#token, isCurrent: true }], rejected: null }
  }

  /** The ID that a value stands for, if it is signed by one of our secrets. */
  idOf(value: string): string | undefined {
    if (!value.startsWith('s:')) return undefined
    for (const secret of this.#secrets) {
      const id = unsign(value.slice(2), secret as string)
      if (id !== false && id !== '') return id
    }
    return undefined
  }

  valueOf(id: string): string {
    const known = this.#values.get(id)
    if (known !== undefined) return known
    const value = `s:${sign(id, this.#secrets[0] as string)}`
    this.#values.set(id, value)
    return value
  }

  #verify(value: string): string | undefined {
    const id = this.idOf(decoded(value))
    // A copy: the value is a part of the request's header, and would keep all of it.
    if (id !== undefined) this.#verified.set(Buffer.from(value).toString(), Buffer.from(id).toString())
    return id
  }
}

function valuesOf(header: string, name: string): string[] {
  const values: string[] = []
  const needle = `${name}=`
  for (let at = header.indexOf(needle); at !== -1; at = header.indexOf(needle, at + needle.length)) {
    if (at > 0 && !/[;\s]/.test(header[at - 1] as string)) continue
    const end = header.indexOf(';', at)
    const value = header.slice(at + needle.length, end === -1 ? undefined : end).trim()
    if (value.length <= MAX_LENGTH) values.push(value.startsWith('"') ? value.slice(1, -1) : value)
    if (values.length === MAX_CANDIDATES) break
  }
  return values
}

function decoded(value: string): string {
  try {
    return value.includes('%') ? decodeURIComponent(value) : value
  } catch {
    return value
  }
}
