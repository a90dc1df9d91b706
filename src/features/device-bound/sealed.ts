// What the server gives a browser and takes back: challenges to sign, and the bound cookie. Both are a time and an HMAC-SHA256 over
// it and what they are for, so that none of them is kept anywhere.
import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto'
import { Recent } from '../../recent.js'

/** The purpose of the keys, see `inside(session).sharedKeys()`. */
export const PURPOSE = 'device-bound'

/** What a text is for: nothing that was given for one is taken for another. */
type Use = 'registration' | 'refresh' | 'cookie'

type Keys = readonly KeyObject[]

const NONCE_BYTES = 12
const NONCE_LENGTH = 16
const MAC_LENGTH = 43
const CHALLENGE = /^([0-9a-z]{1,10})\.[\w-]{16}\.[\w-]{43}$/
const COOKIE = /^([0-9a-z]{1,10})\.[\w-]{43}$/

/** A challenge to sign, issued at `at`, for one session or one registration (`about`). */
export function issueChallenge(keys: Keys, use: 'registration' | 'refresh', about: string, at: number): string {
  const text = `${at.toString(36)}.${randomBytes(NONCE_BYTES).toString('base64url').slice(0, NONCE_LENGTH)}`
  return `${text}.${mac(keys[0] as KeyObject, use, about, text)}`
}

/** When a challenge was issued, in milliseconds since the epoch; `null` for one that is not ours, or for something else. */
export function issueOf(keys: Keys, use: 'registration' | 'refresh', about: string, challenge: string): number | null {
  const [, at] = CHALLENGE.exec(challenge) ?? []
  return at !== undefined && isOurs(keys, use, about, challenge) ? Number.parseInt(at, 36) : null
}

/** The value of the bound cookie of a registration, good until `until`. */
export function boundCookieValue(keys: Keys, id: string, until: number): string {
  const text = until.toString(36)
  return `${text}.${mac(keys[0] as KeyObject, 'cookie', id, text)}`
}

/**
 * Tells whether values are those of bound cookies. A browser sends the same one for minutes: of the last ones it is remembered whose
 * they are and until when, so that they are not computed anew for each request.
 */
export class BoundCookies {
  readonly #known = new Recent<{ readonly id: string; readonly until: number }>()
  #keys: Keys | undefined

  /** Whether a value is that of the bound cookie of a registration, and good at `now`. */
  isGood(keys: Keys, id: string, value: string, now: number): boolean {
    // What was seen under other secrets is forgotten.
    if (this.#keys !== keys) this.#known.clear()
    this.#keys = keys
    const known = this.#known.get(value)
    if (known !== undefined) return known.id === id && now < known.until
    const [, end] = COOKIE.exec(value) ?? []
    if (end === undefined || !isOurs(keys, 'cookie', id, value)) return false
    const until = Number.parseInt(end, 36)
    // A copy: the text itself is a part of the request's header, and would keep all of it.
    this.#known.set(Buffer.from(value).toString(), { id, until })
    return now < until
  }
}

function isOurs(keys: Keys, use: Use, about: string, text: string): boolean {
  const given = Buffer.from(text.slice(-MAC_LENGTH))
  const said = text.slice(0, -MAC_LENGTH - 1)
  for (const key of keys) if (timingSafeEqual(given, Buffer.from(mac(key, use, about, said)))) return true
  return false
}

/** None of the parts has a line break in it. */
function mac(key: KeyObject, use: Use, about: string, text: string): string {
  return createHmac('sha256', key).update(`${use}\n${about}\n${text}`).digest('base64url')
}
