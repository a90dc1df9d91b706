// Recovery points as they are kept: notes beside the sessions. The store has the hash of a token, and of what it stands for only what
// nobody but who has the token can read.
import { createCipheriv, createDecipheriv, createHmac, type KeyObject, randomBytes, randomUUID } from 'node:crypto'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { SessionError } from '../../errors.js'
import { userKey } from '../../ids.js'
import type { SessionNotes } from '../../record/notes.js'

/** What a token stands for. */
export interface Point {
  readonly how: 'recovery' | 'hand-off'
  /** The session that it was made of. */
  readonly from: string
  /** What that session and those that it became have in common: they end together. */
  readonly line: string
  readonly userId: string | number | undefined
  /** What went on in it goes on under the same name. */
  readonly logicalId?: string | undefined
  /** In milliseconds since the epoch. */
  readonly savedAt: number
  readonly until: number
  /** What the application noted. */
  readonly info: unknown
  /** What went over. */
  readonly texts: readonly (readonly [string, string])[]
  readonly standing: Standing
}

/** What a revocation takes away: the point counts as long as these are still what they were. */
export interface Standing {
  readonly period: number
  readonly all: string
  readonly user?: string | undefined
}

/** The line of a session, as it is found by its ID. */
export interface Line {
  readonly line: string
  /** The notes of its points. */
  readonly keys: readonly string[]
}

/** A token that was redeemed. */
export interface Redeemed {
  readonly line: string
  /** The session that it became. */
  readonly as: string
}

const POINTS = 'recovery'
const LINES = 'recovery-line'
const ENDED = 'recovery-ended'
const STANDINGS = 'recovery-standing'
const REDEEMED = 'recovery-used'
const GUESSES = 'recovery-guess'

const TOKEN_BYTES = 32
const TOKEN = /^[\w-]{43}$/
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** What a note may be. */
const MOST_CHARACTERS = 100_000
const GUESS_SECONDS = 600

/** A new token: 256 bits from the system's secure random source (OWASP ASVS 6.5.3). */
export function newRecoveryToken(): string {
  return randomBytes(TOKEN_BYTES).toString('base64url')
}

/** Whether a text can be a token at all. */
export function isRecoveryToken(token: unknown): token is string {
  return typeof token === 'string' && TOKEN.test(token)
}

export class Points {
  readonly #notes: () => SessionNotes
  readonly #application: string
  /** How long what is known of a point may matter: until after it can be told that it came too late. */
  readonly #ttlSeconds: number
  readonly #periodMs: number

  constructor(options: { notes: () => SessionNotes; application: string; longestWindowMs: number }) {
    this.#notes = options.notes
    this.#application = options.application
    this.#periodMs = options.longestWindowMs
    this.#ttlSeconds = Math.ceil((2 * options.longestWindowMs) / 1000)
  }

  /** The name of a token's note. It is no secret. */
  keyOf(token: string, key: KeyObject): string {
    return createHmac('sha256', key).update(`note ${this.#application} ${token}`).digest('base64url')
  }

  // --- Points ---

  async put(token: string, key: KeyObject, point: Point): Promise<void> {
    const text = this.#seal(token, key, JSON.stringify(point))
    if (text.length > MOST_CHARACTERS) {
      throw new SessionError(
        'SESSION_TOO_LARGE',
        `A recovery point of this session takes ${text.length} characters, and ${MOST_CHARACTERS} are possible: leave large fields out by the option fields.`,
      )
    }
    await this.#put(POINTS, this.keyOf(token, key), text)
  }

  /** The point of a token and the key that it was made with, or `null`. */
  async find(token: string, keys: readonly KeyObject[]): Promise<{ point: Point; key: KeyObject } | null> {
    for (const key of keys) {
      const text = await this.#notes().get(POINTS, this.keyOf(token, key))
      const point = text === null ? null : this.#open(token, key, text)
      if (point !== null) return { point, key }
    }
    return null
  }

  /** Takes a point: of all who do so at once, one. Notes what it was redeemed as. */
  async redeem(token: string, key: KeyObject): Promise<boolean> {
    return (await this.#notes().take(POINTS, this.keyOf(token, key))) !== null
  }

  async forget(keys: readonly string[]): Promise<void> {
    await Promise.all(keys.map((key) => this.#notes().delete(POINTS, key)))
  }

  async noteRedeemed(token: string, key: KeyObject, redeemed: Redeemed): Promise<void> {
    await this.#put(REDEEMED, this.keyOf(token, key), JSON.stringify(redeemed))
  }

  async redeemed(token: string, keys: readonly KeyObject[]): Promise<Redeemed | null> {
    for (const key of keys) {
      const text = await this.#notes().get(REDEEMED, this.keyOf(token, key))
      if (text !== null) return JSON.parse(text) as Redeemed
    }
    return null
  }

  // --- Lines ---

  async putLine(sessionId: string, line: Line): Promise<void> {
    await this.#put(LINES, sessionId, JSON.stringify(line))
  }

  async takeLine(sessionId: string): Promise<Line | null> {
    const text = await this.#notes().take(LINES, sessionId)
    return text === null ? null : (JSON.parse(text) as Line)
  }

  /** The line goes on as that of another session, which may have noted it itself. */
  async moveLine(line: Line, successor: string): Promise<void> {
    const options = { ttlSeconds: this.#ttlSeconds, ifAbsent: true }
    await this.#notes().put(LINES, successor, JSON.stringify(line), options)
  }

  /** No point of the line counts from now on. */
  async endLine({ line, keys }: Line): Promise<void> {
    await this.#put(ENDED, line, 'ended')
    await this.forget(keys)
  }

  async isEnded(line: string): Promise<boolean> {
    return (await this.#notes().get(ENDED, line)) !== null
  }

  // --- Standing ---

  /** What a point of this user stands on if it is made now. */
  async standing(userId: string | number | undefined, now: number): Promise<Standing> {
    const period = Math.floor(now / this.#periodMs)
    const [all, user] = await Promise.all([
      this.#standingOf('all', period),
      userId === undefined ? undefined : this.#standingOf(userKey(userId), period),
    ])
    return { period, all, user }
  }

  /** Whether nothing that a point stands on was revoked. */
  async stillStands({ standing, userId }: Point): Promise<boolean> {
    const { period, all, user } = standing
    const notes = this.#notes()
    const [presentAll, presentUser] = await Promise.all([
      notes.get(STANDINGS, `all ${period}`),
      userId === undefined ? null : notes.get(STANDINGS, `${userKey(userId)} ${period}`),
    ])
    return presentAll === all && (userId === undefined || presentUser === user)
  }

  /** What was made before counts no more: the points of a user, or all. */
  async revoke(userId: string | number | undefined, now: number): Promise<void> {
    const name = userId === undefined ? 'all' : userKey(userId)
    const period = Math.floor(now / this.#periodMs)
    // Those of the period before may still count, and another process's clock may be ahead.
    await Promise.all([-2, -1, 0, 1].map((step) => this.#notes().delete(STANDINGS, `${name} ${period + step}`)))
  }

  async #standingOf(name: string, period: number): Promise<string> {
    const key = `${name} ${period}`
    for (let attempt = 1; attempt <= 3; attempt++) {
      const found = await this.#notes().get(STANDINGS, key)
      if (found !== null) return found
      // Never prolonged, since that could undo a revocation: it outlasts every point of its period.
      await this.#notes().put(STANDINGS, key, randomUUID(), { ttlSeconds: 2 * this.#ttlSeconds, ifAbsent: true })
    }
    // Revoked each time: what stands on nothing counts nowhere.
    return randomUUID()
  }

  // --- Guesses ---

  /** Whether a client has tried too many unknown tokens. */
  async isLocked(client: string, most: number): Promise<boolean> {
    return (await this.#notes().get(GUESSES, `${client} ${most}`)) !== null
  }

  /** Counts an unknown token: each takes the first place that is free, so that no two share one. */
  async countGuess(client: string, most: number): Promise<void> {
    for (let place = 1; place <= most; place++) {
      const options = { ttlSeconds: GUESS_SECONDS, ifAbsent: true }
      if (await this.#notes().put(GUESSES, `${client} ${place}`, '1', options)) return
    }
  }

  // --- How it is written ---

  async #put(purpose: string, key: string, text: string): Promise<void> {
    await this.#notes().put(purpose, key, text, { ttlSeconds: this.#ttlSeconds })
  }

  #seal(token: string, key: KeyObject, text: string): string {
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#sealKey(token, key), nonce)
    const body = Buffer.concat([cipher.update(deflateRawSync(text)), cipher.final()])
    return Buffer.concat([nonce, body, cipher.getAuthTag()]).toString('base64url')
  }

  /** What cannot be read is no point: only a store that was written to by somebody else has such. */
  #open(token: string, key: KeyObject, text: string): Point | null {
    try {
      const bytes = Buffer.from(text, 'base64url')
      const decipher = createDecipheriv('aes-256-gcm', this.#sealKey(token, key), bytes.subarray(0, NONCE_BYTES))
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
      const body = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()])
      return JSON.parse(inflateRawSync(body).toString()) as Point
    } catch {
      return null
    }
  }

  /** Of the token itself, so that a store that is read gives nothing away. */
  #sealKey(token: string, key: KeyObject): Buffer {
    return createHmac('sha256', key).update(`seal ${this.#application} ${token}`).digest()
  }
}
