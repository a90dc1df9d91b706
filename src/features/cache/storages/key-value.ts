// Storages on what knows keys, texts and times to live, and nothing else: any Keyv store, and the notes of a session store.
//
// Nothing there can list the keys of a namespace. So each namespace has a generation, which its entries carry, and which clearing
// replaces: an entry of another generation is absent, and goes when its time is over. Both are read at the same time.
import { createHash, randomUUID } from 'node:crypto'
import { invalidOption } from '../../../errors.js'
import type { SessionNotes } from '../../../record/notes.js'
import { type CacheLease, type CachePlace, type CacheStorage, decodeEntry, encodeEntry } from '../storage.js'

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
/** How long a generation is kept after it was written; it is written anew when this is half over. */
const GENERATION_MS = 60 * 86_400_000

interface Generation {
  readonly all: string
  readonly domains: Readonly<Record<string, string>>
  readonly writtenAt: number
}

function keyValueStorage(name: string, texts: Texts): CacheStorage {
  const { setIfAbsent } = texts
  const storage: CacheStorage = {
    name,

    async get(place, now) {
      const [generation, text] = await Promise.all([generationOf(place.namespace), texts.get(entryKey(place))])
      const end = text?.indexOf('\n') ?? -1
      if (generation === undefined || text === undefined || text.slice(0, end) !== mark(generation, place))
        return undefined
      return decodeEntry(text.slice(end + 1), now)
    },

    async set(place, entry, now) {
      const encoded = encodeEntry(entry)
      let generation = await generationOf(place.namespace)
      if (generation === undefined || now - generation.writtenAt > GENERATION_MS / 2) {
        generation = await writeGeneration(place.namespace, generation ?? { all: randomUUID(), domains: {} }, now)
      }
      const ttlMs = Math.min(entry.expiresAt - now, GENERATION_MS / 2)
      await texts.set(entryKey(place), `${mark(generation, place)}\n${encoded}`, Math.max(1, Math.ceil(ttlMs)))
    },

    delete: (place) => texts.delete(entryKey(place)),

    async clear(namespace, domain) {
      if (domain === undefined) {
        await writeGeneration(namespace, { all: randomUUID(), domains: {} }, Date.now())
        return
      }
      const before = (await generationOf(namespace)) ?? { all: randomUUID(), domains: {} }
      await writeGeneration(
        namespace,
        { ...before, domains: { ...before.domains, [domain]: randomUUID() } },
        Date.now(),
      )
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
    if (text === undefined) return undefined
    try {
      const { all, domains, writtenAt } = JSON.parse(text)
      return { all, domains, writtenAt }
    } catch {
      return undefined
    }
  }

  async function writeGeneration(
    namespace: string,
    { all, domains }: Omit<Generation, 'writtenAt'>,
    writtenAt: number,
  ): Promise<Generation> {
    const generation = { all, domains, writtenAt }
    await texts.set(generationKey(namespace), JSON.stringify(generation), GENERATION_MS)
    return generation
  }
}

/** What entries of the present generation begin with. */
function mark({ all, domains }: Generation, { domain }: CachePlace): string {
  return `${all}.${Object.hasOwn(domains, domain) ? domains[domain] : ''}`
}

function generationKey(namespace: string): string {
  return `namespace-${digest(namespace)}`
}

function entryKey({ namespace, domain, key }: CachePlace): string {
  return `entry-${digest(JSON.stringify([namespace, domain, key]))}`
}

function digest(text: string): string {
  return createHash('sha256').update(text, 'utf16le').digest('base64url')
}
