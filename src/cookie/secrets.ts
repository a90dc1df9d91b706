// The secrets that sign cookies, checked before they count, and followed while the process runs: a list that is changed in
// place, or a function that is asked again.
import { createSecretKey, type KeyObject } from 'node:crypto'
import { invalidOption, isSessionError, type SessionError } from '../errors.js'

/** One secret, or several, newest first; or a function that gives them. */
export type Secret = string | readonly string[] | (() => string | readonly string[])

/** Who hears of other secrets. */
export interface SecretsListener {
  /** Others hold from now on: so many. `isNewest`: whether cookies are signed with another. */
  changed(facts: { count: number; isNewest: boolean }): void
  /** The others are no good: those of before go on. */
  refused(error: SessionError): void
}

/** How often a function is asked, at most. */
const ASK_EVERY_MS = 1_000

/** The secrets of now. */
export class Secrets {
  readonly #source: Secret
  readonly #mayChange: boolean
  /** What was given last, whether it was taken or not. */
  #given: readonly string[]
  /** What holds. */
  #texts: readonly string[]
  #keys: readonly KeyObject[]
  #nextAskAt: number
  #listener: SecretsListener | undefined

  /** @throws {SessionError} `INVALID_OPTION`, and what a function throws. */
  constructor(source: Secret) {
    this.#source = source
    this.#mayChange = typeof source !== 'string' && !Object.isFrozen(source)
    this.#given = listOf(typeof source === 'function' ? source() : source)
    this.#texts = this.#given
    this.#keys = keysOf(this.#given)
    this.#nextAskAt = performance.now() + ASK_EVERY_MS
  }

  listen(listener: SecretsListener): void {
    this.#listener = listener
  }

  /** The keys, newest first: the same list for as long as they are the same. */
  get keys(): readonly KeyObject[] {
    if (this.#mayChange) this.#look()
    return this.#keys
  }

  #look(): void {
    const source = this.#source
    if (typeof source === 'function') {
      const now = performance.now()
      if (now < this.#nextAskAt) return
      this.#nextAskAt = now + ASK_EVERY_MS
      try {
        this.#compare(source())
      } catch (cause) {
        this.#listener?.refused(errorOf(cause))
      }
    } else this.#compare(source)
  }

  #compare(given: string | readonly string[]): void {
    const list = typeof given === 'string' ? [given] : given
    if (isSame(list, this.#given)) return
    // A copy: the list itself goes on changing. Whether it is good or not, it is looked at once.
    this.#given = Array.isArray(list) ? [...list] : []
    try {
      const texts = listOf(given)
      const keys = keysOf(texts)
      const isNewest = texts[0] !== this.#texts[0]
      this.#texts = texts
      this.#keys = keys
      this.#listener?.changed({ count: keys.length, isNewest })
    } catch (cause) {
      this.#listener?.refused(errorOf(cause))
    }
  }
}

function errorOf(cause: unknown): SessionError {
  return isSessionError(cause)
    ? cause
    : invalidOption('The function that gives the secrets failed; those of before go on.')
}

function isSame(one: unknown, other: readonly string[]): boolean {
  if (!Array.isArray(one) || one.length !== other.length) return false
  for (let index = 0; index < other.length; index++) if (one[index] !== other[index]) return false
  return true
}

/** A copy of what is given, as a list. */
function listOf(given: unknown): readonly string[] {
  if (typeof given === 'string') return [given]
  if (Array.isArray(given) && given.length > 0) return [...(given as string[])]
  // Nobody waits for it, nor for its failure.
  if (given instanceof Promise) given.catch(() => {})
  const kind =
    given === undefined
      ? 'missing'
      : given instanceof Promise
        ? 'a promise, and nobody waits for it: fetch it before, and give a function that returns what was fetched'
        : 'not text or a list of texts'
  throw invalidOption(`secret is ${kind}; ${SECRET_ADVICE}`)
}

const MIN_SECRET_BYTES = 32
const MIN_DISTINCT_CHARACTERS = 8
const WELL_KNOWN =
  /keyboard.?cat|change.?(me|this|it)|your.{0,12}secret|my.{0,4}secret|super.?secret|secret.?(key|here)|default.?secret|placeholder|password|0123456789abcdef|abcdefghijklmnop/i

function keysOf(secrets: readonly string[]): readonly KeyObject[] {
  return Object.freeze(
    secrets.map((text: unknown, index) => {
      if (typeof text !== 'string') throw invalidOption(`secret ${index} is of type ${typeof text}; ${SECRET_ADVICE}`)
      const bytes = Buffer.byteLength(text)
      if (bytes < MIN_SECRET_BYTES)
        throw invalidOption(`secret ${index} is ${bytes} characters; use at least 32. ${SECRET_ADVICE}`)
      if (new Set(text).size < MIN_DISTINCT_CHARACTERS || WELL_KNOWN.test(text) || isRepetition(text)) {
        throw invalidOption(`secret ${index} is well known or has a pattern; ${SECRET_ADVICE}`)
      }
      return createSecretKey(text, 'utf8')
    }),
  )
}

/** Whether a text is a shorter one again and again. */
function isRepetition(text: string): boolean {
  for (let period = 1; period < MIN_SECRET_BYTES && 2 * period <= text.length; period++) {
    if (text.startsWith(text.slice(period))) return true
  }
  return false
}

const SECRET_ADVICE = 'make one with `openssl rand -base64 32` and keep it out of the code.'
