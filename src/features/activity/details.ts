// The details of an activity as they are kept: plain data, made at once, bounded in size, with secrets blanked. Whatever
// is given, this never throws and never takes long.
import { types } from 'node:util'
import { SessionError } from '../../errors.js'

/** Bounds and blanks details. The result is frozen throughout, and its JSON is no longer than the limit. */
export type DetailsCleaner = (details: object) => Readonly<Record<string, unknown>>

export interface DetailsRules {
  /** Paths to blank besides what is blanked by its name; `false` blanks nothing. */
  readonly redact: readonly string[] | false
  /** The longest JSON, in bytes. */
  readonly maxBytes: number
}

/** What stands for a value that is blanked. */
export const REDACTED = '[redacted]'
export const MIN_DETAILS_BYTES = 256

/** Names in lower case without what is neither letter nor digit: secret when they contain, end in, or are one of these. */
const SECRET_PARTS =
  /password|passwd|passphrase|passcode|secret|authorization|cookie|apikey|accesskey|privatekey|credential|cardnumber|jwt/
const SECRET_ENDS = /tokens?$/
const SECRET_NAMES = new Set(
  'pass pwd pin otp totp cvv cvc csrf xsrf bearer auth sid sessid sessionkey connectsid ssn'.split(' '),
)

const MAX_DEPTH = 12
const MAX_KEY_LENGTH = 200
/** Longer lists are no headers. */
const MAX_PAIRS = 4_000
/** No text takes more than this share of the limit, so that what stands beside it is kept. */
const TEXT_SHARE = 0.5
/** What it takes to say that something was cut: `,"[cut]":"4294967295 more"`, or behind a text. */
const MARK_BYTES = 40
/** Less of a text says nothing. */
const LEAST_TEXT_BYTES = 16
/** Of an error, what says what went wrong; other properties of errors hold requests, commands and keys. */
const ERROR_PARTS = ['name', 'message', 'code', 'status', 'cause'] as const

/** @throws {SessionError} `INVALID_OPTION` */
export function detailsCleaner({ redact, maxBytes }: DetailsRules): DetailsCleaner {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < MIN_DETAILS_BYTES) {
    throw new SessionError(
      'INVALID_OPTION',
      `maxDetailsBytes is ${String(maxBytes)}; use a whole number of at least ${MIN_DETAILS_BYTES}.`,
    )
  }
  const redaction = redact === false ? null : new Redaction(redact)
  return (details) => {
    const cleaned = new Cleaning(redaction, maxBytes).clean(details)
    const isObject = typeof cleaned === 'object' && cleaned !== null && !Array.isArray(cleaned)
    return isObject ? (cleaned as Readonly<Record<string, unknown>>) : Object.freeze({ value: cleaned })
  }
}

/** A path to blank, as far as it has been followed: what is left of it. */
type PathRest = readonly string[]

const NO_PATHS: readonly PathRest[] = []

/** What has to be blanked. */
class Redaction {
  readonly paths: readonly PathRest[]
  /** What is blanked wherever it stands, in lower case. */
  readonly #names: ReadonlySet<string>

  constructor(paths: readonly string[]) {
    const isPath = (path: unknown): boolean => typeof path === 'string' && path.split('.').every((part) => part !== '')
    if (!Array.isArray(paths) || !paths.every(isPath)) {
      throw new SessionError(
        'INVALID_OPTION',
        "redact is neither false nor a list of names and paths, such as ['iban', 'card.number', '*.code'].",
      )
    }
    this.paths = paths.map((path: string) => path.split('.')).filter((path) => path.length > 1)
    // A path is also the name of a key that is written so.
    this.#names = new Set(paths.map((path: string) => path.toLowerCase()))
  }

  hasName(key: string): boolean {
    return this.#names.has(key.toLowerCase())
  }

  /** By its name alone. What says yes, no or nothing is no secret. */
  isSecret(key: string, value: unknown): boolean {
    if (value === null || value === undefined || typeof value === 'boolean') return false
    const name = key.toLowerCase().replace(/[^a-z0-9]/g, '')
    return SECRET_PARTS.test(name) || SECRET_ENDS.test(name) || SECRET_NAMES.has(name)
  }

  /**
   * The places of secrets in a list of names, each with its value behind it: a pair, or Node's `rawHeaders`. Words that merely
   * follow one another may be taken for that, and lose the one behind `password`.
   */
  secretsOfPairs(list: readonly unknown[]): ReadonlySet<number> {
    if (list.length % 2 !== 0 || list.length > MAX_PAIRS) return NONE_HIDDEN
    const hidden = new Set<number>()
    for (let index = 0; index < list.length; index += 2) {
      const name = list[index]
      if (typeof name !== 'string' || name.length > MAX_KEY_LENGTH) return NONE_HIDDEN
      if (this.hasName(name) || this.isSecret(name, list[index + 1])) hidden.add(index + 1)
    }
    return hidden
  }

  /** `{ name, value }` or `{ key, value }`, as lists of headers, fields and cookies are made of. */
  isSecretEntry({ name, key, value }: Readonly<Record<string, unknown>>): boolean {
    const called = typeof name === 'string' ? name : key
    return typeof called === 'string' && (this.hasName(called) || this.isSecret(called, value))
  }
}

const NONE_HIDDEN: ReadonlySet<number> = new Set()

/** There was no room for it. */
const OMITTED: unique symbol = Symbol('omitted')

/** One run over one object. */
class Cleaning {
  readonly #redaction: Redaction | null
  readonly #maxTextBytes: number
  /** Bytes of JSON that are left. */
  #left: number
  /** The objects that are being gone through, outermost first. */
  readonly #ancestors: object[] = []

  constructor(redaction: Redaction | null, maxBytes: number) {
    this.#redaction = redaction
    this.#left = maxBytes - '{"value":}'.length
    this.#maxTextBytes = Math.floor(maxBytes * TEXT_SHARE)
  }

  clean(details: object): unknown {
    const cleaned = this.#value(details, this.#redaction?.paths ?? NO_PATHS)
    return cleaned === OMITTED || cleaned === undefined ? {} : cleaned
  }

  #value(value: unknown, paths: readonly PathRest[]): unknown {
    switch (typeof value) {
      case 'string':
        return this.#text(value)
      case 'number':
        // JSON has neither NaN nor -0.
        return Number.isFinite(value) ? this.#plain(value + 0) : this.#text(String(value))
      case 'boolean':
        return this.#plain(value)
      case 'bigint':
        return this.#bigint(value)
      case 'function':
        return this.#text('[function]')
      case 'symbol':
        return this.#text('[symbol]')
      case 'undefined':
        return undefined
      default:
        return value === null ? this.#plain(null) : this.#object(value as object, paths)
    }
  }

  #plain(value: number | boolean | null): unknown {
    const bytes = String(value).length
    if (bytes > this.#left) return OMITTED
    this.#left -= bytes
    return value
  }

  /** The digits of a long one would take long to find. */
  #bigint(value: bigint): unknown {
    const isShort = BigInt.asIntN(1_024, value) === value
    return this.#text(isShort ? String(value) : '[bigint]')
  }

  #text(text: string): unknown {
    const room = Math.min(this.#left, this.#maxTextBytes)
    const bytes = text.length + 2 > room ? Number.POSITIVE_INFINITY : bytesOf(text)
    if (bytes <= room) {
      this.#left -= bytes
      return text
    }
    const start = startOf(text, room - MARK_BYTES)
    if (start === null) return OMITTED
    const cut = `${start}… [cut: ${text.length} characters]`
    this.#left -= bytesOf(cut)
    return cut
  }

  #object(value: object, paths: readonly PathRest[]): unknown {
    if (this.#ancestors.includes(value)) return this.#text('[circular]')
    if (this.#ancestors.length >= MAX_DEPTH) return this.#text('[too deep]')
    const before = this.#left
    const depth = this.#ancestors.length
    this.#ancestors.push(value)
    try {
      return this.#readable(value, paths)
    } catch {
      // A proxy, or a toJSON() that throws.
      this.#left = before
      return this.#text('[unreadable]')
    } finally {
      this.#ancestors.length = depth
    }
  }

  #readable(value: object, paths: readonly PathRest[]): unknown {
    if (Array.isArray(value)) {
      const hidden = this.#redaction?.secretsOfPairs(value) ?? NONE_HIDDEN
      return this.#list(value.length, (index) => (hidden.has(index) ? REDACTED : value[index]), paths)
    }
    if (types.isDate(value)) {
      const isValid = !Number.isNaN(Date.prototype.getTime.call(value))
      return this.#text(isValid ? Date.prototype.toISOString.call(value) : '[invalid date]')
    }
    if (types.isNativeError(value) || value instanceof Error) {
      const parts = ERROR_PARTS.filter((part) => part in value)
      return this.#members(parts, (part) => (value as unknown as Record<string, unknown>)[part], paths)
    }
    if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) return this.#text(`[${value.byteLength} bytes]`)
    if (types.isMap(value)) {
      const entries = new Map([...Map.prototype.entries.call(value)].map(([key, inner]) => [nameOf(key), inner]))
      return this.#members([...entries.keys()], (key) => entries.get(key), paths)
    }
    if (types.isSet(value)) {
      const items = [...Set.prototype.values.call(value)]
      return this.#list(items.length, (index) => items[index], paths)
    }
    if (types.isRegExp(value)) return this.#text(String(value))
    if (types.isPromise(value)) return this.#text('[promise]')
    if (types.isBoxedPrimitive(value)) return this.#value(value.valueOf(), paths)
    const { toJSON } = value as { toJSON?: unknown }
    if (typeof toJSON === 'function') {
      const json: unknown = toJSON.call(value, '')
      if (typeof json !== 'object' || json === null) return this.#value(json, paths)
      if (json !== value) return Array.isArray(json) ? this.#object(json, paths) : this.#plainObject(json, paths)
    }
    return this.#plainObject(value, paths)
  }

  /** Its own enumerable properties. What is named by a symbol is not data. */
  #plainObject(value: object, paths: readonly PathRest[]): unknown {
    const members = value as Record<string, unknown>
    const isHidden = this.#redaction?.isSecretEntry(members) ?? false
    const read = (key: string): unknown => (isHidden && key === 'value' ? REDACTED : members[key])
    return this.#members(Object.keys(value), read, paths)
  }

  #members(keys: readonly string[], read: (key: string) => unknown, paths: readonly PathRest[]): unknown {
    if (!this.#open()) return OMITTED
    const members: Record<string, unknown> = {}
    let rest = keys.length
    for (const key of keys) {
      const name = key.length > MAX_KEY_LENGTH ? `${key.slice(0, MAX_KEY_LENGTH)}…` : key
      const bytes = bytesOf(name) + 2
      if (bytes > this.#left) break
      this.#left -= bytes
      const value = this.#member(key, () => read(key), paths)
      if (value === OMITTED || value === undefined) this.#left += bytes
      if (value === OMITTED) break
      if (value !== undefined) define(members, name, value)
      rest--
    }
    if (rest > 0) define(members, '[cut]', `${rest} more`)
    else this.#left += MARK_BYTES
    return Object.freeze(members)
  }

  #list(length: number, read: (index: number) => unknown, paths: readonly PathRest[]): unknown {
    if (!this.#open()) return OMITTED
    const items: unknown[] = []
    for (let index = 0; index < length; index++) {
      if (this.#left < 1) break
      this.#left -= 1
      const value = this.#member(String(index), () => read(index), paths)
      const item = value === undefined ? this.#plain(null) : value
      if (item === OMITTED) break
      items.push(item)
    }
    if (items.length < length) items.push(`[cut: ${length - items.length} more]`)
    else this.#left += MARK_BYTES
    return Object.freeze(items)
  }

  /** Braces or brackets, and room to say that something was cut. */
  #open(): boolean {
    const bytes = 2 + MARK_BYTES
    if (bytes > this.#left) return false
    this.#left -= bytes
    return true
  }

  #member(key: string, read: () => unknown, paths: readonly PathRest[]): unknown {
    const redaction = this.#redaction
    const within = paths.length === 0 ? NO_PATHS : follow(paths, key)
    if (redaction !== null && (within === 'end' || redaction.hasName(key))) return this.#text(REDACTED)
    let value: unknown
    try {
      value = read()
    } catch {
      return this.#text('[unreadable]')
    }
    if (redaction?.isSecret(key, value)) return this.#text(REDACTED)
    return this.#value(value, within as readonly PathRest[])
  }
}

/** What is left of paths behind a key, or `'end'` when one of them ends there. */
function follow(paths: readonly PathRest[], key: string): readonly PathRest[] | 'end' {
  const within: PathRest[] = []
  for (const [first, ...rest] of paths) {
    if (first !== '*' && first !== key) continue
    if (rest.length === 0) return 'end'
    within.push(rest)
  }
  return within
}

/** Also for a key `__proto__`, which assigning would take for the prototype. */
function define(members: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(members, name, { value, enumerable: true, configurable: true, writable: true })
}

function nameOf(key: unknown): string {
  return typeof key === 'object' && key !== null ? '[object]' : String(key)
}

/** The bytes of a text's JSON. */
function bytesOf(text: string): number {
  return Buffer.byteLength(JSON.stringify(text))
}

/** As much of a text as its JSON may take, or `null` when that is next to nothing. */
function startOf(text: string, room: number): string | null {
  if (room < LEAST_TEXT_BYTES) return null
  let start = text.slice(0, room)
  for (let bytes = bytesOf(start); bytes > room; bytes = bytesOf(start)) {
    start = start.slice(0, Math.floor((start.length * room) / bytes))
  }
  // No half of a pair at the end.
  return /[\ud800-\udbff]$/.test(start) ? start.slice(0, -1) : start
}
