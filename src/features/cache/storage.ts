// What a cache asks of the place that keeps its entries, and how entries become text.
import { SessionError } from '../../errors.js'
import { jsonCodec } from '../../record/codec.js'

/** Which entry is meant. */
export interface CachePlace {
  /** Any text that is not empty, as the application names its namespaces. */
  readonly namespace: string
  /** The host that an entry was fetched from, or `''` for values of the application. */
  readonly domain: string
  /** Any text. */
  readonly key: string
}

/** What is kept in one place. All times are milliseconds since the epoch. */
export interface CacheEntry {
  /** What JSON can keep; a storage in memory keeps the very value. `undefined` is a value that is kept, too. */
  readonly value: unknown
  /** Bytes beside the value: the body of a fetched response. */
  readonly body?: Uint8Array | undefined
  readonly storedAt: number
  /** From then on it is stale. */
  readonly freshUntil: number
  /** From then on it is gone. */
  readonly expiresAt: number
}

/** A namespace that has entries. */
export interface CacheNamespace {
  readonly name: string
  /** When it was last written or read, in milliseconds since the epoch. Storages other than memory are exact to a minute. */
  readonly usedAt: number
}

/** How much a namespace holds. */
export interface CacheSize {
  readonly entries: number
  /** As the storage counts them: bytes on disk, characters in Redis, an estimate in memory. */
  readonly bytes: number
}

/** The right to load an entry, while it lasts. */
export interface CacheLease {
  /** Makes it last longer, from now on for as long as it was asked for. */
  prolong(): Promise<void>
  release(): Promise<void>
}

type Awaitable<T> = T | Promise<T>

/**
 * Where a `SessionCache` keeps its entries. Names and keys are any text: a storage makes of them what is safe where it keeps them.
 * `now` is the time of the call, in milliseconds since the epoch. A method that fails rejects; the cache goes on without it.
 * `cacheStorageChecks()` of `sojourn/testing` is the suite that a storage of yours must pass.
 */
export interface CacheStorage {
  /** For messages: `'memory'`, `'files'` … */
  readonly name: string
  /** The entry of a place, or `undefined`: also when it is over at `now`, cannot be read, or is of another version. */
  get(place: CachePlace, now: number): Awaitable<CacheEntry | undefined>
  /** @throws {SessionError} `INVALID_VALUE` for a value that it cannot keep */
  set(place: CachePlace, entry: CacheEntry, now: number): Awaitable<void>
  delete(place: CachePlace): Awaitable<void>
  /** Removes all entries of a namespace, or those of one domain in it. No others, and in a time that does not depend on others. */
  clear(namespace: string, domain?: string): Awaitable<void>
  /** Ability: how much a namespace holds. */
  size?(namespace: string, now: number): Awaitable<CacheSize>
  /** Ability: all namespaces that have entries. Needed for a pool, for `removeOlderThan()` and for `follow()`. */
  namespaces?(): Awaitable<readonly CacheNamespace[]>
  /** Ability: renames a namespace. Without it a cache does not follow a session that goes on under another ID. */
  move?(from: string, to: string, now: number): Awaitable<void>
  /** Ability: the right to load this entry for `ttlMs`, or `null` when another process has it. */
  lease?(place: CachePlace, ttlMs: number): Promise<CacheLease | null>
  /** Ends what the storage itself has opened. */
  close?(): Awaitable<void>
}

/** The domain of values that were not fetched. No host has an empty name. */
export const VALUES = ''

const JSON_CODEC = jsonCodec()
const VERSION = 1

/**
 * The text of an entry.
 * @throws {SessionError} `INVALID_VALUE`
 */
export function encodeEntry({ value, body, storedAt, freshUntil, expiresAt }: CacheEntry): string {
  const times = `"v":${VERSION},"s":${storedAt},"f":${freshUntil},"e":${expiresAt}`
  const data = value === undefined ? '' : `,"d":${textOf(value)}`
  const bytes = body === undefined ? '' : `,"b":"${Buffer.from(body).toString('base64')}"`
  return `{${times}${data}${bytes}}`
}

/** The entry of a text, or `undefined` when it is none, is of another version, or is over. */
export function decodeEntry(text: string, now: number): CacheEntry | undefined {
  let found: { v?: unknown; s: number; f: number; e: number; d?: unknown; b?: string } | null
  try {
    found = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof found !== 'object' || found === null || found.v !== VERSION || !(found.e > now)) return undefined
  const { s: storedAt, f: freshUntil, e: expiresAt, d: value, b } = found
  return { value, storedAt, freshUntil, expiresAt, ...(b !== undefined && { body: Buffer.from(b, 'base64') }) }
}

function textOf(value: unknown): string {
  try {
    return JSON_CODEC.encode(value, 'value')
  } catch (cause) {
    const why = cause instanceof Error ? (/^Field (.*), which JSON cannot keep/.exec(cause.message)?.[1] ?? '') : ''
    throw new SessionError(
      'INVALID_VALUE',
      `A cache entry cannot be kept as JSON${why === '' ? '' : `: ${why}`}. Give data only, or keep it in memory.`,
      { cause },
    )
  }
}
