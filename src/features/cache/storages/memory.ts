// The storage in memory: one bounded LRU over all namespaces, and a map of its own for each, so that clearing one takes time by
// its own size. The LRU is the package lru-cache, an optional peer.
import { invalidOption, SessionError } from '../../../errors.js'
import {
  type CacheEntry,
  type CacheNamespace,
  type CachePlace,
  type CacheSize,
  type CacheStorage,
  VALUES,
} from '../storage.js'

/** What `new MemoryCacheStorage()` takes. */
export interface MemoryCacheStorageOptions {
  /** How many entries are kept, over all namespaces. @default 10_000 */
  maxEntries?: number | undefined
  /** How many bytes they may take, by an estimate from their contents. An entry that is larger is not kept. @default 64 MiB */
  maxBytes?: number | undefined
}

/** What is called of lru-cache. */
interface Lru {
  get(slot: Slot): Slot | undefined
  set(slot: Slot, value: Slot, options: { size: number }): unknown
  delete(slot: Slot): boolean
}

interface Slot {
  readonly space: Space
  readonly domain: string
  readonly key: string
  entry: CacheEntry
  bytes: number
  usedAt: number
}

/** One namespace. */
interface Space {
  readonly name: string
  readonly values: Map<string, Slot>
  readonly domains: Map<string, Map<string, Slot>>
  entries: number
  bytes: number
  usedAt: number
}

/**
 * Keeps entries in the memory of this process, the least recently used of all namespaces going first. Needs lru-cache.
 *
 * It keeps the very values: who changes one that came from the cache changes it for all who get it later.
 */
export class MemoryCacheStorage implements CacheStorage {
  readonly name = 'memory'
  readonly #maxEntries: number
  readonly #maxBytes: number
  readonly #spaces = new Map<string, Space>()
  #lru: Lru | undefined
  #opening: Promise<void> | undefined
  /** The namespace that was asked for last, and is likely to be asked for again. */
  #recent: Space | undefined

  /** @throws {SessionError} `INVALID_OPTION`; calls reject with `MISSING_DEPENDENCY` when lru-cache is not installed */
  constructor({ maxEntries = 10_000, maxBytes = 64 * 1024 * 1024 }: MemoryCacheStorageOptions = {}) {
    this.#maxEntries = atLeastOne(maxEntries, 'maxEntries')
    this.#maxBytes = atLeastOne(maxBytes, 'maxBytes')
  }

  get(place: CachePlace, now: number): CacheEntry | undefined | Promise<CacheEntry | undefined> {
    const lru = this.#lru
    if (lru === undefined) return this.#open().then(() => this.get(place, now))
    const space = this.#spaceOf(place.namespace)
    if (space === undefined) return undefined
    const slots = place.domain === VALUES ? space.values : space.domains.get(place.domain)
    const slot = slots?.get(place.key)
    if (slot === undefined) return undefined
    const { entry } = slot
    if (entry.expiresAt <= now) {
      lru.delete(slot)
      return undefined
    }
    // Once a millisecond: a key in use is asked for more often than that.
    if (slot.usedAt !== now) {
      slot.usedAt = now
      space.usedAt = now
      lru.get(slot)
    }
    return entry
  }

  set(place: CachePlace, entry: CacheEntry, now: number): void | Promise<void> {
    const lru = this.#lru
    if (lru === undefined) return this.#open().then(() => this.set(place, entry, now))
    const bytes = ENTRY_BYTES + 2 * place.key.length + bytesOf(entry.value) + (entry.body?.byteLength ?? 0)
    const known = this.#slotsOf(place)?.get(place.key)
    if (bytes > this.#maxBytes) {
      if (known !== undefined) lru.delete(known)
      return
    }
    const slot = known ?? this.#slot(place, entry)
    slot.space.bytes += bytes - slot.bytes
    slot.space.usedAt = now
    slot.entry = entry
    slot.bytes = bytes
    lru.set(slot, slot, { size: bytes })
  }

  delete(place: CachePlace): void {
    const slot = this.#slotsOf(place)?.get(place.key)
    if (slot !== undefined) this.#lru?.delete(slot)
  }

  clear(namespace: string, domain?: string): void {
    const space = this.#spaces.get(namespace)
    if (space === undefined) return
    const all =
      domain === undefined
        ? [space.values, ...space.domains.values()]
        : [domain === VALUES ? space.values : space.domains.get(domain)]
    for (const slots of all) for (const slot of slots?.values() ?? []) this.#lru?.delete(slot)
  }

  size(namespace: string): CacheSize {
    const { entries = 0, bytes = 0 } = this.#spaces.get(namespace) ?? {}
    return { entries, bytes }
  }

  namespaces(): CacheNamespace[] {
    return Array.from(this.#spaces.values(), ({ name, usedAt }) => ({ name, usedAt }))
  }

  move(from: string, to: string, now: number): void {
    const space = this.#spaces.get(from)
    if (space === undefined || from === to) return
    for (const slots of [space.values, ...space.domains.values()]) {
      // Where there is a namespace, the LRU is there: nothing is waited for.
      for (const { domain, key, entry } of slots.values()) void this.set({ namespace: to, domain, key }, entry, now)
    }
    this.clear(from)
  }

  #spaceOf(namespace: string): Space | undefined {
    if (this.#recent?.name === namespace) return this.#recent
    const space = this.#spaces.get(namespace)
    this.#recent = space
    return space
  }

  #slotsOf({ namespace, domain }: CachePlace): Map<string, Slot> | undefined {
    const space = this.#spaces.get(namespace)
    return domain === VALUES ? space?.values : space?.domains.get(domain)
  }

  #slot({ namespace, domain, key }: CachePlace, entry: CacheEntry): Slot {
    let space = this.#spaces.get(namespace)
    if (space === undefined) {
      space = { name: namespace, values: new Map(), domains: new Map(), entries: 0, bytes: 0, usedAt: 0 }
      this.#spaces.set(namespace, space)
    }
    let slots = domain === VALUES ? space.values : space.domains.get(domain)
    if (slots === undefined) {
      slots = new Map()
      space.domains.set(domain, slots)
    }
    const slot = { space, domain, key, entry, bytes: 0, usedAt: 0 }
    slots.set(key, slot)
    space.entries++
    return slot
  }

  /** Called by the LRU for every entry that goes, whatever the reason. A namespace goes with its last entry. */
  readonly #forget = (slot: Slot): void => {
    const { space, domain, key } = slot
    const slots = domain === VALUES ? space.values : space.domains.get(domain)
    if (slots?.get(key) !== slot) return
    slots.delete(key)
    if (slots.size === 0 && domain !== VALUES) space.domains.delete(domain)
    space.entries--
    space.bytes -= slot.bytes
    if (space.entries > 0) return
    this.#spaces.delete(space.name)
    if (this.#recent === space) this.#recent = undefined
  }

  #open(): Promise<void> {
    this.#opening ??= import('lru-cache').then(
      ({ LRUCache }) => {
        this.#lru = new LRUCache<Slot, Slot>({
          max: this.#maxEntries,
          maxSize: this.#maxBytes,
          noDisposeOnSet: true,
          dispose: this.#forget,
        })
      },
      (cause) => {
        const message = 'MemoryCacheStorage needs lru-cache: npm install lru-cache'
        throw new SessionError('MISSING_DEPENDENCY', message, { cause })
      },
    )
    return this.#opening
  }
}

/** What an entry takes besides its contents. */
const ENTRY_BYTES = 200
/** As many parts of a value are looked at; the rest is taken to be like them. */
const MOST_PARTS = 10_000

/** An estimate: two bytes a character, eight a number, some for every object. */
function bytesOf(value: unknown): number {
  const seen = new Set<object>()
  const open: unknown[] = [value]
  let bytes = 0
  let parts = 0
  while (open.length > 0) {
    const part = open.pop()
    if (typeof part === 'string') bytes += 2 * part.length + 16
    else if (typeof part !== 'object' || part === null) bytes += 8
    else if (ArrayBuffer.isView(part)) bytes += part.byteLength + 64
    else if (!seen.has(part)) {
      seen.add(part)
      bytes += 32
      if (part instanceof Map) open.push(...part.keys(), ...part.values())
      else if (part instanceof Set) open.push(...part)
      else {
        for (const [name, inner] of Object.entries(part)) {
          bytes += 16 + name.length
          open.push(inner)
        }
      }
    }
    parts++
    if (parts === MOST_PARTS) return Math.ceil(bytes + (bytes / parts) * open.length)
  }
  return bytes
}

function atLeastOne(value: number, name: string): number {
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw invalidOption(`MemoryCacheStorage: ${name} must be a whole number of at least 1.`)
}
