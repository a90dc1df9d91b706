// Storages on what knows keys, texts and times to live, and nothing else: any Keyv store, and the notes of a session store.
//
// Nothing there can list the keys of a namespace. So each namespace has a generation, and so has a domain in it that was cleared. Entries
// carry both, and clearing makes a new one: an entry of another generation is absent, and goes when its time is over. None is ever
// written again, so that nothing brings back what was cleared. All is read at the same time.
import { createHash, randomUUID } from 'node:crypto'
import { invalidOption } from '../../../errors.js'
import type { SessionNotes } from '../../../record/notes.js'
import { type CacheLease, type CachePlace, type CacheStorage, decodeEntry, encodeEntry, VALUES } from '../storage.js'

/** The members of a Keyv, or of a Keyv store adapter, that are called. */
export interface KeyvLike {
  get(key: string): unknown
  /** `ttl` is in milliseconds. */
  set(key: string, value: string, ttl?: number): unknown
  delete(key: string): unknown
}

/** What both have in common. */
interface Texts {
  get(key: string): Promise<string | undefined>
  set(key: string, text: string, ttlMs: number): Promise<void>
  delete(key: string): Promise<void>
  setIfAbsent?(key: string, text: string, ttlMs: number): Promise<boolean>
}

/**
 * Keeps entries in a Keyv store: `keyvCacheStorage(new Keyv(…))`, or in a store adapter of Keyv without it. It has no list of
 * namespaces: a pool, `size()`, `removeOlderThan()` and `follow()` need another storage.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function keyvCacheStorage(keyv: KeyvLike): CacheStorage {
  for (const name of ['get', 'set', 'delete'] as const) {
    if (typeof keyv?.[name] !== 'function')
      throw invalidOption(`keyvCacheStorage() needs a Keyv or a store of Keyv: it has no ${name}().`)
  }
  return keyValueStorage('keyv', {
    async get(key) {
      const text = await keyv.get(key)
      return typeof text === 'string' ? text : undefined
    },
    set: async (key, text, ttlMs) => void (await keyv.set(key, text, ttlMs)),
    delete: async (key) => void (await keyv.delete(key)),
  })
}

/**
 * Keeps entries in the notes of the session store, whichever it is: `notesCacheStorage(manager.notes)`. Entries of more than 100,000
 * characters are not kept. Otherwise as `keyvCacheStorage()`, with leases.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function notesCacheStorage(notes: SessionNotes): CacheStorage {
  if (typeof notes?.put !== 'function')
    throw invalidOption('notesCacheStorage() needs the notes of a manager: manager.notes.')
  const put = (key: string, text: string, ttlMs: number, ifAbsent: boolean): Promise<boolean> =>
    notes.put(PURPOSE, key, text, { ttlSeconds: Math.max(1, Math.ceil(ttlMs / 1000)), ifAbsent })
  return keyValueStorage('notes', {
    get: async (key) => (await notes.get(PURPOSE, key)) ?? undefined,
    set: async (key, text, ttlMs) => void (await put(key, text, ttlMs, false)),
    delete: (key) => notes.delete(PURPOSE, key),
    setIfAbsent: (key, text, ttlMs) => put(key, text, ttlMs, true),
  })
}

const PURPOSE = 'cache'
/** How long a generation is kept. That of a namespace is replaced when half of it is over, and no entry is kept for longer than the rest. */
const GENERATION_MS = 60 * 86_400_000

function keyValueStorage(name: string, texts: Texts): CacheStorage {
  const { setIfAbsent } = texts
  const storage: CacheStorage = {
    name,

    async get(place, now) {
      const [ofNamespace, ofDomain, text] = await Promise.all([
        generationOf(place.namespace),
        markOf(place),
        texts.get(entryKey(place)),
      ])
      const end = text?.indexOf('\n') ?? -1
      if (ofNamespace === undefined || text?.slice(0, end) !== ofNamespace.mark + ofDomain) return undefined
      return decodeEntry(text.slice(end + 1), now)
    },

    async set(place, entry, now) {
      const encoded = encodeEntry(entry)
      const [known, ofDomain] = await Promise.all([generationOf(place.namespace), markOf(place)])
      const isOfUse = known !== undefined && now - known.writtenAt <= GENERATION_MS / 2
      const { mark } = isOfUse ? known : await newGeneration(place.namespace, now)
      const ttlMs = Math.min(entry.expiresAt - now, GENERATION_MS / 2)
      await texts.set(entryKey(place), `${mark}${ofDomain}\n${encoded}`, Math.max(1, Math.ceil(ttlMs)))
    },

    delete: (place) => texts.delete(entryKey(place)),

    async clear(namespace, domain) {
      // Values have no generation of their own: to clear them alone is to clear all.
      if (domain === undefined || domain === VALUES) await newGeneration(namespace, Date.now())
      else await texts.set(domainKey(namespace, domain), `.${randomUUID()}`, GENERATION_MS)
    },
  }
  if (setIfAbsent === undefined) return storage
  return {
    ...storage,
    async lease(place, ttlMs): Promise<CacheLease | null> {
      const key = `lease-${entryKey(place)}`
      if (!(await setIfAbsent(key, 'taken', ttlMs))) return null
      return { prolong: () => texts.set(key, 'taken', ttlMs), release: () => texts.delete(key) }
    },
  }

  async function generationOf(namespace: string): Promise<Generation | undefined> {
    const text = await texts.get(generationKey(namespace))
    const [mark, writtenAt] = text?.split(' ') ?? []
    return mark === undefined ? undefined : { mark, writtenAt: Number(writtenAt) }
  }

  async function newGeneration(namespace: string, writtenAt: number): Promise<Generation> {
    const mark = randomUUID()
    await texts.set(generationKey(namespace), `${mark} ${writtenAt}`, GENERATION_MS)
    return { mark, writtenAt }
  }

  /** `''` for a domain that was never cleared, and for values, which have none. */
  async function markOf({ namespace, domain }: CachePlace): Promise<string> {
    return domain === VALUES ? '' : ((await texts.get(domainKey(namespace, domain))) ?? '')
  }
}

/** The generation of a namespace. */
interface Generation {
  readonly mark: string
  readonly writtenAt: number
}

function generationKey(namespace: string): string {
  return `namespace-${digest(namespace)}`
}

function domainKey(namespace: string, domain: string): string {
  return `domain-${digest(JSON.stringify([namespace, domain]))}`
}

function entryKey({ namespace, domain, key }: CachePlace): string {
  return `entry-${digest(JSON.stringify([namespace, domain, key]))}`
}

function digest(text: string): string {
  return createHash('sha256').update(text, 'utf16le').digest('base64url')
}
