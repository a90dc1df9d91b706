// The cache for whoever a session belongs to, `SessionCache`: values and fetched responses, in namespaces that do not see each other.
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption, SessionError } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import { Recent } from '../../recent.js'
import { warn } from '../../warn.js'
import { type DomainPolicy, FetchCache } from './fetch.js'
import { Follower, type FollowOptions } from './follow.js'
import { type CacheTrouble, GuardedStorage } from './guarded-storage.js'
import { type Loading, Loads } from './loads.js'
import { checkNamespace, NamespaceScope } from './namespaces.js'
import {
  type CacheEntry,
  type CacheNamespace,
  type CachePlace,
  type CacheSize,
  type CacheStorage,
  VALUES,
} from './storage.js'
import { MemoryCacheStorage } from './storages/memory.js'

/** What `new SessionCache()` takes. */
export interface SessionCacheOptions {
  /** Where entries are kept. @default `new MemoryCacheStorage()`, which needs lru-cache */
  storage?: CacheStorage | undefined
  /** How long an entry is fresh. @default '5m' */
  ttl?: Duration | undefined
  /** How long a stale entry is still given while a new one is loaded in the background. @default 0 */
  staleFor?: Duration | undefined
  /** How long it is kept that a loader found nothing: `undefined` or `null`. @default 0: not at all */
  negativeTtl?: Duration | undefined
  /** What part of a TTL is taken off at random, so that what was loaded together is not reloaded together: 0 to 0.9. @default 0.1 */
  jitter?: number | undefined
  /** In which last part of its TTL an entry that is asked for is reloaded in the background: 0 to 0.9. @default 0: not before its end */
  refreshAhead?: number | undefined
  /** After this a loader has failed, with `LOAD_TIMEOUT`. @default '30s' */
  loadTimeout?: Duration | undefined
  /** How long a request waits for the storage. After a call that failed or took longer, none waits for a second. @default '250ms' */
  storageTimeout?: Duration | undefined
  /** How many namespaces there may be: one more, and the least recently used one goes. @default no limit */
  maxNamespaces?: number | undefined
  /** The namespace outside of blocks and requests. @default SOJOURN_CACHE_NAMESPACE, or 'default' */
  namespace?: string | undefined
  /** Milliseconds since the epoch. @default Date.now */
  clock?: (() => number) | undefined
  /** Told of what failed without failing a call: the storage, or a load in the background. @default a process warning, once for each operation */
  onError?: ((error: unknown, trouble: CacheTrouble) => void) | undefined
}

/** How one entry is kept; what is left out is as the cache's options say. */
export interface CacheSetOptions {
  ttl?: Duration | undefined
  staleFor?: Duration | undefined
}

/** How one entry is loaded and kept. */
export interface CacheLoadOptions extends CacheSetOptions {
  negativeTtl?: Duration | undefined
}

/** What `clear()` removes: all of a namespace, or one domain or one URL in it. */
export interface CacheSelection {
  /** @default the present namespace */
  namespace?: string | undefined
  /** A host that was fetched from, such as `'api.example.com'`, with its port if that is not the usual one. */
  domain?: string | undefined
  /** A URL that was fetched, in all its variants. */
  url?: string | URL | undefined
}

const NO_OPTIONS: CacheLoadOptions = {}

/**
 * A cache in namespaces: one for each session, user, tenant or whatever you name. An entry of one is never seen in another.
 *
 * ```ts
 * const cache = new SessionCache({ ttl: '10m' })
 * app.use(cache.forRequest((req) => userNamespace(req.session.userId ?? 'nobody')))
 * const report = await cache.getOrLoad('report', () => db.report())
 * ```
 *
 * No method fails because the storage does, but for those that remove or count: the loader is called, and nothing is kept.
 */
export class SessionCache {
  readonly #storage: GuardedStorage
  readonly #scope: NamespaceScope
  readonly #loads: Loads
  readonly #fetch: FetchCache
  readonly #clock: () => number
  readonly #defaults: { ttlMs: number; staleForMs: number; negativeTtlMs: number }
  readonly #jitter: number
  readonly #refreshAhead: number
  readonly #loadTimeoutMs: number
  readonly #maxNamespaces: number | undefined
  readonly #onError: (error: unknown, trouble: CacheTrouble) => void
  /** Namespaces that the pool has made room for. */
  #pooled = new Recent<true>()
  readonly #followers = new Set<Follower>()

  /** @throws {SessionError} `INVALID_OPTION` */
  constructor(options: SessionCacheOptions = {}) {
    const { storage = new MemoryCacheStorage(), maxNamespaces, clock = () => Date.now() } = options
    checkStorage(storage, maxNamespaces)
    this.#clock = clock
    this.#onError = options.onError ?? warnOnce()
    this.#defaults = {
      ttlMs: milliseconds(options.ttl ?? '5m', 'ttl'),
      staleForMs: milliseconds(options.staleFor ?? 0, 'staleFor', 0),
      negativeTtlMs: milliseconds(options.negativeTtl ?? 0, 'negativeTtl', 0),
    }
    this.#jitter = part(options.jitter ?? 0.1, 'jitter')
    this.#refreshAhead = part(options.refreshAhead ?? 0, 'refreshAhead')
    this.#loadTimeoutMs = milliseconds(options.loadTimeout ?? '30s', 'loadTimeout')
    this.#maxNamespaces = maxNamespaces
    this.#scope = new NamespaceScope(options.namespace)
    const timeoutMs = milliseconds(options.storageTimeout ?? '250ms', 'storageTimeout')
    this.#storage = new GuardedStorage({ storage, timeoutMs, onError: (...told) => this.#tell(...told) })
    this.#loads = new Loads({ storage: this.#storage, clock, longestMs: this.#loadTimeoutMs })
    this.#fetch = new FetchCache({
      storage: this.#storage,
      loads: this.#loads,
      clock,
      onError: (...told) => this.#tell(...told),
      onKept: (namespace) => this.#makeRoom(namespace),
    })
  }

  // --- Namespaces ---

  /** The namespace here and now: that of the innermost block, else of the request, else of the process. */
  get namespace(): string {
    return this.#scope.present
  }

  /**
   * Runs `task`, and all that it starts, in a namespace. Blocks nest, and what is outside is never touched.
   * @throws {SessionError} `INVALID_ARGUMENT` unless the namespace is text of 1 to 500 characters
   */
  within<T>(namespace: string, task: () => T): T {
    return this.#scope.within(namespace, task)
  }

  /**
   * Middleware that says which namespace a request is in. The function is called at each use, so that it may follow a login;
   * `undefined` is the namespace of the process. What it throws at the start goes to `next`.
   */
  forRequest<Req extends object>(
    namespaceOf: (req: Req) => string | undefined,
  ): (req: Req, res: object, next: (error?: unknown) => void) => void {
    return this.#scope.forRequest(namespaceOf)
  }

  // --- Values ---

  /** The value of a key in the present namespace, also a stale one within its `staleFor`; `undefined` when there is none. */
  get<T = unknown>(key: string): Promise<T | undefined> {
    const found = this.#storage.get(this.#place(key), this.#clock())
    if (found instanceof Promise) return found.then((entry) => entry?.value as T | undefined)
    return Promise.resolve(found?.value as T | undefined)
  }

  /**
   * Keeps a value in the present namespace. Resolves to whether it was kept: not when the storage is away, is full or cannot keep
   * such a value, which `onError` is told.
   * @throws {SessionError} `INVALID_ARGUMENT` for a value of `undefined`
   */
  async set(key: string, value: unknown, options: CacheSetOptions = NO_OPTIONS): Promise<boolean> {
    if (value === undefined) throw invalidArgument('cache.set() needs a value; cache.delete() removes one.')
    const place = this.#place(key)
    const entry = this.#entryOf(value, options)
    this.#loads.drop(place.namespace, VALUES, key)
    const isKept = await this.#storage.set(place, entry, this.#clock())
    if (isKept) await this.#makeRoom(place.namespace)
    return isKept
  }

  /**
   * The value of a key, or what `load` gives, which is kept then. Who asks while a load is under way shares it; a load that
   * fails is not kept. A stale value is given at once, and reloaded in the background.
   *
   * A value that the storage cannot keep is given all the same. What was set, deleted or cleared during a load stays so.
   * @throws what `load` throws; {SessionError} `LOAD_TIMEOUT` when it takes longer than `loadTimeout`
   */
  getOrLoad<T>(key: string, load: () => T | PromiseLike<T>, options: CacheLoadOptions = NO_OPTIONS): Promise<T> {
    if (typeof load !== 'function') throw invalidArgument('cache.getOrLoad() needs the function that loads.')
    const place = this.#place(key)
    const now = this.#clock()
    const found = this.#storage.get(place, now)
    if (found instanceof Promise)
      return found.then((entry) => this.#answer(entry, now, this.#loading(place, load, options, entry)))
    if (found !== undefined && now < this.#refreshAt(found)) return Promise.resolve(found.value as T)
    return this.#answer(found, now, this.#loading(place, load, options, found))
  }

  /**
   * Removes a key of the present namespace.
   * @throws {SessionError} `STORE_UNAVAILABLE` when the storage does: it may still be there
   */
  async delete(key: string): Promise<void> {
    const place = this.#place(key)
    this.#loads.drop(place.namespace, VALUES, key)
    await this.#storage.must('delete', () => this.#storage.storage.delete(place))
  }

  /**
   * Removes all of a namespace, the present one unless another is named, or one domain or URL in it; everything else stays.
   * @throws {SessionError} `STORE_UNAVAILABLE` when the storage does: something may still be there
   */
  async clear({ namespace, domain, url }: CacheSelection = {}): Promise<void> {
    const name = namespace === undefined ? this.namespace : checkNamespace(namespace)
    if (url !== undefined) {
      await this.#fetch.forget(name, url)
      return
    }
    if (domain !== undefined && (typeof domain !== 'string' || domain === '')) {
      throw invalidArgument("clear(): domain must be a host, such as 'api.example.com'.")
    }
    this.#loads.drop(name, domain?.toLowerCase())
    this.#pooled.delete(name)
    await this.#storage.must('clear', () => this.#storage.storage.clear(name, domain?.toLowerCase()))
  }

  // --- Fetched responses ---

  /**
   * As the global `fetch`, with a cache by HTTP's own rules (RFC 9111) and the policy of the URL's domain. Needs
   * http-cache-semantics. Only `GET` is cached; other methods go through, and an unsafe one that succeeds removes what is kept
   * for its URL. The header `Cache-Status` (RFC 9211) says where a response comes from, and why it is stale if it is.
   *
   * What a request carries to tell who asks (`Authorization`, `Cookie`) is part of what it is kept under, beside the namespace.
   * `private` responses are kept only in the namespaces of a session or a user.
   * @throws as `fetch`; {SessionError} `MISSING_DEPENDENCY`, `LOAD_TIMEOUT` when there is no answer within the policy's `timeout`
   */
  fetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    return this.#fetch.fetch(this.namespace, input, init)
  }

  /**
   * How responses of a host are cached: `'api.example.com'`, `'localhost:3000'`, `'*.example.com'` for all below it, `'*'` for all
   * others. The most exact one counts.
   * @throws {SessionError} `INVALID_ARGUMENT`, `INVALID_OPTION`
   */
  registerDomain(domain: string, policy: DomainPolicy): void {
    this.#fetch.register(domain, policy)
  }

  // --- Housekeeping ---

  /**
   * How much a namespace holds.
   * @throws {SessionError} `NOT_SUPPORTED` when the storage cannot tell; `STORE_UNAVAILABLE`
   */
  async size(namespace: string = this.namespace): Promise<CacheSize> {
    const { storage } = this.#storage
    if (storage.size === undefined) throw notSupported(storage, 'size()')
    const name = checkNamespace(namespace)
    return this.#storage.must('size', () => (storage as Required<CacheStorage>).size(name, this.#clock()))
  }

  /**
   * All namespaces, the least recently used first.
   * @throws {SessionError} `NOT_SUPPORTED` when the storage cannot tell; `STORE_UNAVAILABLE`
   */
  async namespaces(): Promise<CacheNamespace[]> {
    const { storage } = this.#storage
    if (storage.namespaces === undefined) throw notSupported(storage, 'namespaces()')
    const all = await this.#storage.must('namespaces', () => (storage as Required<CacheStorage>).namespaces())
    return all.toSorted((a, b) => a.usedAt - b.usedAt)
  }

  /**
   * Removes the namespaces that nobody has written or read for so long, and returns their names.
   * @throws {SessionError} `NOT_SUPPORTED`, `STORE_UNAVAILABLE`, `INVALID_OPTION` for what is no duration
   */
  async removeOlderThan(age: Duration): Promise<string[]> {
    const before = this.#clock() - milliseconds(age, 'removeOlderThan()', 0)
    const old = (await this.namespaces()).filter(({ usedAt }) => usedAt < before).map(({ name }) => name)
    for (const namespace of old) await this.clear({ namespace })
    return old
  }

  /**
   * Removes the namespace of a session (`sessionNamespace()`) when it ends, wherever it ends, and that of a user
   * (`userNamespace()`) with the last session; that of a session that goes on under another ID, after `login()`, goes with it.
   *
   * At least once: what an event could not remove, because the storage was away or the process ended, a look through all
   * namespaces finds at an interval. Returns a function that stops all of it.
   * @throws {SessionError} `NOT_SUPPORTED` when the storage has no list of namespaces
   */
  follow(manager: SessionManager, options: FollowOptions = {}): () => void {
    const { storage } = this.#storage
    if (storage.namespaces === undefined) throw notSupported(storage, 'follow()')
    const follower = new Follower({
      cache: this,
      manager,
      options,
      move: (from, to) => this.#move(from, to),
      onError: (...told) => this.#tell(...told),
    })
    this.#followers.add(follower)
    return () => {
      follower.stop()
      this.#followers.delete(follower)
    }
  }

  /** Stops what `follow()` began, and ends what the storage has opened. */
  async close(): Promise<void> {
    for (const follower of this.#followers) follower.stop()
    this.#followers.clear()
    await this.#storage.storage.close?.()
  }

  // --- Inside ---

  #place(key: string): CachePlace {
    if (typeof key !== 'string')
      throw invalidArgument(`A key of the cache must be text, not ${key === null ? 'null' : typeof key}.`)
    return { namespace: this.#scope.present, domain: VALUES, key }
  }

  #answer<T>(entry: CacheEntry | undefined, now: number, loading: Loading<T>): Promise<T> {
    if (entry === undefined) return this.#loads.run(loading)
    if (now >= this.#refreshAt(entry)) {
      const { namespace } = loading.place
      this.#loads.run(loading).catch((error) => this.#tell(error, { operation: 'load', namespace }))
    }
    return Promise.resolve(entry.value as T)
  }

  #refreshAt({ storedAt, freshUntil }: CacheEntry): number {
    return this.#refreshAhead === 0 ? freshUntil : freshUntil - this.#refreshAhead * (freshUntil - storedAt)
  }

  #loading<T>(
    place: CachePlace,
    load: () => T | PromiseLike<T>,
    options: CacheLoadOptions,
    known: CacheEntry | undefined,
  ): Loading<T> {
    return {
      place,
      load: async (keep) => {
        const value = await this.#inTime(load)
        const entry = this.#entryOf(value, options)
        if (entry.expiresAt > entry.storedAt) {
          await keep(entry)
          await this.#makeRoom(place.namespace)
        }
        return value
      },
      accept: (entry) => (entry.storedAt > (known?.storedAt ?? -1) ? { value: entry.value as T } : undefined),
    }
  }

  #entryOf(value: unknown, { ttl, staleFor, negativeTtl }: CacheLoadOptions): CacheEntry {
    const { ttlMs, staleForMs, negativeTtlMs } = this.#defaults
    const isAbsent = value === undefined || value === null
    let lifeMs = ttl === undefined ? ttlMs : milliseconds(ttl, 'ttl')
    let staleMs = staleFor === undefined ? staleForMs : milliseconds(staleFor, 'staleFor', 0)
    if (isAbsent) {
      lifeMs = negativeTtl === undefined ? negativeTtlMs : milliseconds(negativeTtl, 'negativeTtl', 0)
      staleMs = 0
    }
    const storedAt = this.#clock()
    const freshUntil = storedAt + lifeMs * (1 - this.#jitter * Math.random())
    return { value, storedAt, freshUntil, expiresAt: freshUntil + staleMs }
  }

  #inTime<T>(load: () => T | PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new SessionError('LOAD_TIMEOUT', `A loader of the cache gave nothing in ${this.#loadTimeoutMs} ms.`))
      }, this.#loadTimeoutMs)
      new Promise<T>((give) => give(load())).then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  /** The pool: one namespace too many, and the least recently used one goes. */
  async #makeRoom(namespace: string): Promise<void> {
    if (this.#maxNamespaces === undefined || this.#pooled.get(namespace)) return
    this.#pooled.set(namespace, true)
    try {
      const others = (await this.namespaces()).filter(({ name }) => name !== namespace)
      const excess = others.slice(0, Math.max(0, others.length + 1 - this.#maxNamespaces))
      for (const { name } of excess) await this.clear({ namespace: name })
    } catch (error) {
      this.#pooled.delete(namespace)
      this.#tell(error, { operation: 'namespaces', namespace })
    }
  }

  async #move(from: string, to: string): Promise<void> {
    const { storage } = this.#storage
    this.#loads.drop(from)
    this.#pooled.delete(from)
    if (storage.move === undefined) await this.clear({ namespace: from })
    else await this.#storage.must('move', () => (storage as Required<CacheStorage>).move(from, to, this.#clock()))
  }

  #tell(error: unknown, trouble: CacheTrouble): void {
    try {
      this.#onError(error, trouble)
    } catch (failure) {
      warn(`onError of a cache failed: ${messageOf(failure)}`, 'listener')
    }
  }
}

function checkStorage(storage: CacheStorage, maxNamespaces: number | undefined): void {
  for (const name of ['get', 'set', 'delete', 'clear'] as const) {
    if (typeof storage?.[name] !== 'function') {
      throw invalidOption(`SessionCache: storage has no ${name}(); give one such as new MemoryCacheStorage().`)
    }
  }
  if (maxNamespaces === undefined) return
  if (!Number.isSafeInteger(maxNamespaces) || maxNamespaces < 1) {
    throw invalidOption('SessionCache: maxNamespaces must be a whole number of at least 1.')
  }
  if (storage.namespaces === undefined) throw notSupported(storage, 'maxNamespaces')
}

function notSupported(storage: CacheStorage, what: string): SessionError {
  return new SessionError(
    'NOT_SUPPORTED',
    `${what} needs a storage that can list its namespaces, such as memory, files or Redis; ${storage.name} cannot.`,
  )
}

function part(value: number, name: string): number {
  if (typeof value === 'number' && value >= 0 && value <= 0.9) return value
  throw invalidOption(`SessionCache: ${name} must be a number from 0 to 0.9.`)
}

/** Once an operation: a fault that repeats must not flood the log. */
function warnOnce(): (error: unknown, trouble: CacheTrouble) => void {
  const warned = new Set<string>()
  return (error, { operation }) => {
    if (warned.has(operation)) return
    warned.add(operation)
    warn(
      `cache: ${operation} failed: ${messageOf(error)} Further failures are silent; give onError to hear of them.`,
      'cache',
    )
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
