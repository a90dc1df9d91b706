// The cookie of express-session on the wire: `s:`, the ID, a dot, and its signature, in percent codes.
import { sign, unsign } from 'cookie-signature'
import { Recent } from '../../recent.js'

/** A key as express-session takes it. */
export type Secret = string | Buffer

/** Cookies of our name that are tried before the rest is ignored. */
const MAX_CANDIDATES = 10
/** No ID is longer than what a cookie can hold. */
const MAX_LENGTH = 4096

/** Reads and writes the values of cookies under a list of secrets, of which the first signs. */
export class SignedCookies {
  readonly #secrets: readonly Secret[]
  /** The IDs of the last values whose signature was found to be good: verifying it is the dearest part of reading. */
  readonly #verified = new Recent<string>()

  constructor(secrets: readonly Secret[]) {
    this.#secrets = secrets
  }

  /** The IDs of all cookies of that name that we signed, in their order; and whether one of them was not. */
  read(header: string | undefined, name: string): { ids: readonly string[]; hasForged: boolean } {
    const ids: string[] = []
    let hasForged = false
    for (const value of valuesOf(header, name)) {
      const id = this.#verified.get(value) ?? this.#verify(value)
      if (id === undefined) hasForged = true
      else if (!ids.includes(id)) ids.push(id)
    }
    return { ids, hasForged }
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
    return `s:${sign(id, this.#secrets[0] as string)}`
  }

  #verify(value: string): string | undefined {
    const id = this.idOf(decoded(value))
    // A copy: the value is a part of the request's header, and would keep all of it.
    if (id !== undefined) this.#verified.set(Buffer.from(value).toString(), Buffer.from(id).toString())
    return id
  }
}

function valuesOf(header: string | undefined, name: string): string[] {
  const values: string[] = []
  if (header === undefined) return values
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
