// The storage in files: `<directory>/<namespace>/<domain>/<hash>.json`, and the body of a response beside it.
//
// Every file is written aside and renamed, so that a reader in another process sees the old one or the new one. A body has a name
// of its own that its entry names. A namespace that is cleared is renamed first: who writes meanwhile begins a new one.
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidOption } from '../../../errors.js'
import { Recent } from '../../../recent.js'
import {
  type CacheEntry,
  type CacheLease,
  type CacheNamespace,
  type CachePlace,
  type CacheSize,
  type CacheStorage,
  decodeEntry,
  encodeEntry,
} from '../storage.js'

/** What `new FileCacheStorage()` takes. */
export interface FileCacheStorageOptions {
  /** The folder for all namespaces. It is made when it is missing, for this user alone (mode 700). */
  directory: string
}

/** How exact `usedAt` is. */
const USED_EVERY_MS = 60_000
const NAME_FILE = '.name'

/**
 * Keeps entries in files, which several processes of one machine may share. No name leads out of the folder: what is not a lower-case
 * letter, a digit, `-`, `_` or a dot within a name is percent-encoded, and long names are hashed.
 *
 * Entries that are over are removed when somebody asks for them; `removeOlderThan()`, a pool or `follow()` remove whole namespaces.
 */
export class FileCacheStorage implements CacheStorage {
  readonly name = 'files'
  readonly #directory: string
  readonly #used = new Recent<number>()

  /** @throws {SessionError} `INVALID_OPTION` */
  constructor({ directory }: FileCacheStorageOptions) {
    if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) {
      throw invalidOption('FileCacheStorage needs the folder that it may use: directory.')
    }
    this.#directory = directory
  }

  async get(place: CachePlace, now: number): Promise<CacheEntry | undefined> {
    const kept = await this.#read(place)
    if (kept === undefined) return undefined
    const entry = decodeEntry(kept.text, now)
    if (entry === undefined) {
      await this.delete(place)
      return undefined
    }
    await this.#use(place.namespace, now)
    if (kept.bodyFile === '') return entry
    // Missing when the entry has been replaced in between.
    const body = await readFile(join(this.#folderOf(place), kept.bodyFile)).catch(undefinedIfMissing)
    return body && { ...entry, body }
  }

  async set(place: CachePlace, { body, ...entry }: CacheEntry, now: number): Promise<void> {
    const folder = this.#folderOf(place)
    const bodyFile = body === undefined ? '' : `${hashOf(place.key)}.${randomUUID()}.body`
    const text = `${bodyFile}\n${encodeEntry(entry)}`
    const write = async (): Promise<void> => {
      await this.#make(place.namespace, folder)
      const before = await this.#read(place)
      if (body !== undefined) await writeAside(join(folder, bodyFile), body)
      await writeAside(this.#pathOf(place), text)
      if (before !== undefined) await this.#removeBody(place, before)
    }
    // The namespace may be cleared under the first attempt.
    await write().catch((error) => (isMissing(error) ? write() : Promise.reject(error)))
    await this.#use(place.namespace, now)
  }

  async delete(place: CachePlace): Promise<void> {
    const kept = await this.#read(place)
    if (kept === undefined) return
    await unlink(this.#pathOf(place)).catch(undefinedIfMissing)
    await this.#removeBody(place, kept)
  }

  async clear(namespace: string, domain?: string): Promise<void> {
    const folder = domain === undefined ? this.#spaceOf(namespace) : this.#folderOf({ namespace, domain })
    const aside = join(this.#directory, `.cleared-${randomUUID()}`)
    try {
      await rename(folder, aside)
    } catch (error) {
      if (isMissing(error)) return
      throw error
    }
    await rm(aside, { recursive: true, force: true })
  }

  async size(namespace: string): Promise<CacheSize> {
    const folder = this.#spaceOf(namespace)
    const files = (await namesIn(folder, true)).filter((name) => /\.(json|body)$/.test(name))
    let bytes = 0
    for (const name of files) bytes += (await stat(join(folder, name)).catch(undefinedIfMissing))?.size ?? 0
    return { entries: files.filter((name) => name.endsWith('.json')).length, bytes }
  }

  async namespaces(): Promise<CacheNamespace[]> {
    const found: CacheNamespace[] = []
    for (const folder of await namesIn(this.#directory, false)) {
      if (folder.startsWith('.')) continue
      const path = join(this.#directory, folder)
      const known = await stat(path).catch(undefinedIfMissing)
      const name = known?.isDirectory() ? ((await contentOf(join(path, NAME_FILE))) ?? nameOf(folder)) : undefined
      if (name !== undefined && known !== undefined) found.push({ name, usedAt: Math.round(known.mtimeMs) })
    }
    return found
  }

  async move(from: string, to: string, now: number): Promise<void> {
    try {
      await rename(this.#spaceOf(from), this.#spaceOf(to))
      await writeFile(join(this.#spaceOf(to), NAME_FILE), to, { mode: 0o600 })
    } catch (error) {
      if (isMissing(error)) return
      // The new namespace has entries already: they are newer.
      if (!['ENOTEMPTY', 'EEXIST'].includes((error as { code: string }).code)) throw error
      await this.clear(from)
    }
    await this.#use(to, now)
  }

  async lease(place: CachePlace, ttlMs: number): Promise<CacheLease | null> {
    const path = join(this.#folderOf(place), `${hashOf(place.key)}.lease`)
    await this.#make(place.namespace, this.#folderOf(place))
    const take = async (): Promise<boolean> => {
      const file = await open(path, 'wx', 0o600).catch((error) => {
        if ((error as { code?: string }).code === 'EEXIST') return undefined
        throw error
      })
      await file?.close()
      return file !== undefined
    }
    if (!(await take())) {
      const held = await stat(path).catch(undefinedIfMissing)
      if (held !== undefined && Date.now() - held.mtimeMs < ttlMs) return null
      // Its holder is gone. Of several who see that, the file of one may go as well: at worst there is a second load.
      await unlink(path).catch(undefinedIfMissing)
      if (!(await take())) return null
    }
    return {
      prolong: () => utimes(path, new Date(), new Date()).catch(undefinedIfMissing),
      release: () => unlink(path).catch(undefinedIfMissing),
    }
  }

  #spaceOf(namespace: string): string {
    return join(this.#directory, folderOf(namespace))
  }

  #folderOf({ namespace, domain }: Pick<CachePlace, 'namespace' | 'domain'>): string {
    return join(this.#spaceOf(namespace), domain === '' ? '_' : folderOf(domain))
  }

  #pathOf(place: CachePlace): string {
    return join(this.#folderOf(place), `${hashOf(place.key)}.json`)
  }

  async #read(place: CachePlace): Promise<KeptFile | undefined> {
    const content = await contentOf(this.#pathOf(place))
    const end = content?.indexOf('\n') ?? -1
    if (content === undefined || end === -1) return undefined
    const bodyFile = content.slice(0, end)
    if (bodyFile !== '' && !/^[\w-]+\.[\w-]+\.body$/.test(bodyFile)) return undefined
    return { bodyFile, text: content.slice(end + 1) }
  }

  async #removeBody(place: CachePlace, { bodyFile }: KeptFile): Promise<void> {
    if (bodyFile !== '') await unlink(join(this.#folderOf(place), bodyFile)).catch(undefinedIfMissing)
  }

  async #make(namespace: string, folder: string): Promise<void> {
    const made = await mkdir(folder, { recursive: true, mode: 0o700 })
    if (made !== undefined) await writeFile(join(this.#spaceOf(namespace), NAME_FILE), namespace, { mode: 0o600 })
  }

  /** The folder's time is when it was used last. */
  async #use(namespace: string, now: number): Promise<void> {
    if (now - (this.#used.get(namespace) ?? Number.NEGATIVE_INFINITY) < USED_EVERY_MS) return
    this.#used.set(namespace, now)
    const at = new Date(now)
    await utimes(this.#spaceOf(namespace), at, at).catch(undefinedIfMissing)
  }
}

/** The file of an entry: in its first line the name of the file with its body, if it has one; then its text. */
interface KeptFile {
  readonly bodyFile: string
  readonly text: string
}

/** More than a file system takes for one name, which is 255 bytes, less what we append. */
const LONGEST_NAME = 200

/** The folder of a name: no two names have the same, also where a file system does not tell capitals from small letters. */
function folderOf(name: string): string {
  const encoded = name.replace(/[^a-z0-9._-]|^[._]|[.]$/gu, percentEncoded)
  return encoded.length <= LONGEST_NAME && !RESERVED.test(encoded) ? encoded : `%_${hashOf(name)}`
}

function percentEncoded(char: string): string {
  return [...Buffer.from(char, 'utf16le')].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
}

/** The name of a folder, or `undefined` when it is none of ours. */
function nameOf(folder: string): string | undefined {
  const bytes = folder.replace(/[a-z0-9._-]/g, (char) => percentEncoded(char))
  if (!/^(%[0-9a-f]{2})+$/.test(bytes)) return undefined
  const name = Buffer.from(bytes.replaceAll('%', ''), 'hex').toString('utf16le')
  return folderOf(name) === folder ? name : undefined
}

/** Names that are devices on Windows. */
const RESERVED = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/

/** Names of files that no two keys share, also where capitals count for nothing. */
function hashOf(text: string): string {
  return createHash('sha256').update(text, 'utf16le').digest('hex')
}

async function writeAside(path: string, content: string | Uint8Array): Promise<void> {
  const aside = `${path}.${randomUUID()}.tmp`
  try {
    await writeFile(aside, content, { mode: 0o600 })
    await rename(aside, path)
  } catch (error) {
    await unlink(aside).catch(() => {})
    throw error
  }
}

function contentOf(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch(undefinedIfMissing)
}

/** The names in a folder, and below it. */
async function namesIn(folder: string, recursive: boolean): Promise<string[]> {
  return (await readdir(folder, { recursive }).catch(undefinedIfMissing)) ?? []
}

function isMissing(error: unknown): boolean {
  return (error as { code?: unknown }).code === 'ENOENT'
}

function undefinedIfMissing(error: unknown): undefined {
  if (!isMissing(error)) throw error
}
