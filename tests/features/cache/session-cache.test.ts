// Values in namespaces: who sees what, how often a loader is called, and what happens when the storage or a loader does not do.
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import express from 'express'
import { Redis } from 'ioredis'
import { session } from 'sojourn'
import {
  type CacheEntry,
  type CachePlace,
  type CacheStorage,
  type CacheTrouble,
  FileCacheStorage,
  keyvCacheStorage,
  MemoryCacheStorage,
  RedisCacheStorage,
  SessionCache,
  type SessionCacheOptions,
} from 'sojourn/cache'
import { FakeClock } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer, until as untilInTime } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'

/** For a machine that does much else at the same time. */
const until = (condition: () => boolean | Promise<boolean>): Promise<void> => untilInTime(condition, 20_000)

const running: TestServer[] = []
const directory = mkdtempSync(join(tmpdir(), 'sojourn-session-cache-'))
afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function make(options: SessionCacheOptions = {}): {
  cache: SessionCache
  clock: FakeClock
  troubles: (CacheTrouble & { error: unknown })[]
} {
  const clock = new FakeClock()
  const troubles: (CacheTrouble & { error: unknown })[] = []
  const cache = new SessionCache({
    jitter: 0,
    clock: clock.now,
    // A machine under load must not look like a storage that is away.
    storageTimeout: '10s',
    onError: (error, trouble) => troubles.push({ ...trouble, error }),
    ...options,
  })
  return { cache, clock, troubles }
}

/** A loader that counts. */
function counting(): { load: () => Promise<number>; loads: () => number } {
  let count = 0
  return {
    load: async () => {
      const number = ++count
      await nextTurn()
      return number
    },
    loads: () => count,
  }
}

function deferred<T>(): {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: Error) => void
} {
  let resolve: (value: T) => void = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

describe('namespaces', () => {
  test('what is kept in one is not seen in another; blocks nest, and are left on a throw', async () => {
    const { cache } = make()
    await cache.set('k', 'outside')
    const seen = await cache.within('a', async () => {
      const before = await cache.get('k')
      await cache.set('k', 'in a')
      const inner = await cache.within('b', async () => [cache.namespace, await cache.get('k')])
      await cache.within('b', async () => Promise.reject(new Error('thrown'))).catch(() => {})
      return [before, inner, cache.namespace, await cache.get('k')]
    })
    expect(seen).toEqual([undefined, ['b', undefined], 'a', 'in a'])
    expect(() =>
      cache.within('a', () => {
        throw new Error('thrown')
      }),
    ).toThrow('thrown')
    expect([cache.namespace, await cache.get('k')]).toEqual(['default', 'outside'])
  })

  test('a block does not leak into what began outside of it, nor into another cache', async () => {
    const { cache } = make()
    const other = make().cache
    let seenByTimer: string | undefined
    const timer = new Promise<void>((resolve) => {
      setImmediate(() => {
        seenByTimer = cache.namespace
        resolve()
      })
    })
    const inBlock = await cache.within('a', async () => {
      await timer
      return [cache.namespace, other.namespace]
    })
    expect([seenByTimer, inBlock]).toEqual(['default', ['a', 'default']])
  })

  test('a request has its own, looked up at each use, and a block in it another', async () => {
    const { cache } = make()
    const app = express()
    app.set('env', 'test')
    app.use(session({ secret: SECRET }))
    app.use(cache.forRequest((req) => (req as express.Request).session.get('tenant') as string | undefined))
    app.get('/', async (req, res) => {
      const before = cache.namespace
      req.session.set('tenant', req.query['tenant'] as string)
      const { load } = counting()
      await cache.set('k', req.query['tenant'])
      await cache.getOrLoad('other', load)
      const block = cache.within('block', () => cache.namespace)
      res.json([before, cache.namespace, block, await cache.get('k')])
    })
    const server = await listen(app)
    running.push(server)
    const names = Array.from({ length: 30 }, (_, n) => `tenant_${n}`)
    const answers = await Promise.all(names.map((name) => new Client(server).get(`/?tenant=${name}`)))
    expect(answers.map((answer) => answer.json())).toEqual(names.map((name) => ['default', name, 'block', name]))
    expect(cache.namespace).toBe('default')
  })

  test('a function for requests that throws, or names none, goes to the error handler', async () => {
    const { cache } = make()
    const errors: unknown[] = []
    const middleware = cache.forRequest((req: { name?: string }) => {
      if (req.name === undefined) throw new Error('no name')
      return req.name
    })
    middleware({}, {}, (error) => errors.push(error))
    middleware({ name: '' }, {}, (error) => errors.push(error))
    expect(errors.map(String)).toEqual([
      'Error: no name',
      'SessionError: A namespace must be text of 1 to 500 characters, not text of 0.',
    ])
    expect(() => cache.forRequest('tenant' as never)).toThrow('needs a function')
  })

  test('the process has one by SOJOURN_CACHE_NAMESPACE', () => {
    process.env['SOJOURN_CACHE_NAMESPACE'] = 'staging'
    try {
      expect([new SessionCache().namespace, new SessionCache({ namespace: 'own' }).namespace]).toEqual([
        'staging',
        'own',
      ])
      process.env['SOJOURN_CACHE_NAMESPACE'] = 'x'.repeat(501)
      expect(() => new SessionCache()).toThrow('SOJOURN_CACHE_NAMESPACE must be text of 1 to 500 characters')
    } finally {
      delete process.env['SOJOURN_CACHE_NAMESPACE']
    }
  })

  test.each([[''], ['x'.repeat(501)], [7], [null], [{}]])('%p is no namespace', (name) => {
    const { cache } = make()
    expect(() => cache.within(name as never, () => 1)).toThrow('A namespace must be text of 1 to 500 characters')
  })

  test('clear() leaves the others; a domain is cleared alone', async () => {
    const { cache } = make()
    for (const name of ['a', 'b']) await cache.within(name, () => cache.set('k', name))
    await cache.within('a', () => cache.clear())
    await cache.clear({ domain: 'API.example.com' })
    expect(await cache.within('a', () => cache.get('k'))).toBeUndefined()
    expect(await cache.within('b', () => cache.get('k'))).toBe('b')
    await expect(cache.clear({ domain: '' })).rejects.toThrow('domain must be a host')
    await expect(cache.clear({ url: 'nowhere' })).rejects.toThrow('a whole URL')
  })

  test('size(), namespaces() and removeOlderThan()', async () => {
    const { cache, clock } = make({ ttl: '30d' })
    await cache.within('old', () => cache.set('k', 1))
    clock.advance(691_200_000)
    await cache.within('new', () => cache.set('k', 1))
    expect((await cache.namespaces()).map(({ name }) => name)).toEqual(['old', 'new'])
    expect((await cache.size('old')).entries).toBe(1)
    expect(await cache.removeOlderThan('7d')).toEqual(['old'])
    expect((await cache.namespaces()).map(({ name }) => name)).toEqual(['new'])
    await expect(cache.removeOlderThan('soon')).rejects.toThrow('removeOlderThan() is "soon"')
  })

  test('a pool keeps the namespaces that were used last', async () => {
    const { cache, clock } = make({ maxNamespaces: 2 })
    const put = async (name: string): Promise<void> => {
      clock.advance(1)
      await cache.within(name, () => cache.getOrLoad('k', () => name))
    }
    await put('a')
    await put('b')
    await put('a')
    await put('c')
    expect((await cache.namespaces()).map(({ name }) => name)).toEqual(['a', 'c'])
    await put('b')
    expect((await cache.namespaces()).map(({ name }) => name)).toEqual(['c', 'b'])
  })

  test('a storage that cannot list them has no pool, and says so', async () => {
    const storage = keyvCacheStorage(new Map() as never)
    expect(() => new SessionCache({ storage, maxNamespaces: 2 })).toThrow('maxNamespaces needs a storage that can list')
    const cache = new SessionCache({ storage })
    await expect(cache.size()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
    await expect(cache.namespaces()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  })
})

describe('getOrLoad()', () => {
  test('a thousand askers at once make one load, and who asks later has it kept, until its TTL is over', async () => {
    const { cache, clock } = make()
    const { load, loads } = counting()
    const found = await Promise.all(Array.from({ length: 1_000 }, () => cache.getOrLoad('k', load, { ttl: '1m' })))
    expect([new Set(found), loads()]).toEqual([new Set([1]), 1])
    clock.advance(59_000)
    expect(await cache.getOrLoad('k', load)).toBe(1)
    clock.advance(1_000)
    expect(await cache.getOrLoad('k', load)).toBe(2)
  })

  test('a stale value is given at once, and one load in the background replaces it', async () => {
    const { cache, clock } = make({ ttl: '1m', staleFor: '1h' })
    const { load, loads } = counting()
    await cache.getOrLoad('k', load)
    clock.advance(120_000)
    expect(await Promise.all([cache.getOrLoad('k', load), cache.getOrLoad('k', load)])).toEqual([1, 1])
    await until(async () => (await cache.get('k')) === 2)
    expect(loads()).toBe(2)
    clock.advance(3_720_000)
    expect(await cache.getOrLoad('k', load)).toBe(3)
  })

  test('a load in the background that fails is told, and the stale value stays', async () => {
    const { cache, clock, troubles } = make({ ttl: '1m', staleFor: '1h' })
    await cache.getOrLoad('k', () => 'old')
    clock.advance(120_000)
    const failing = (): never => {
      throw new Error('the database is away')
    }
    expect(await cache.getOrLoad('k', failing)).toBe('old')
    await until(() => troubles.length > 0)
    expect(troubles).toEqual([{ operation: 'load', namespace: 'default', error: new Error('the database is away') }])
    expect(await cache.getOrLoad('k', failing)).toBe('old')
  })

  test('refreshAhead reloads in the background before the end', async () => {
    const { cache, clock } = make({ ttl: '100s', refreshAhead: 0.2 })
    const { load } = counting()
    await cache.getOrLoad('k', load)
    clock.advance(79_000)
    expect(await cache.getOrLoad('k', load)).toBe(1)
    clock.advance(2_000)
    expect(await cache.getOrLoad('k', load)).toBe(1)
    await until(async () => (await cache.get('k')) === 2)
  })

  test('what a loader did not find is kept only if that is wanted', async () => {
    const { cache, clock } = make({ ttl: '1h' })
    let loads = 0
    const nothing = (): undefined => {
      loads++
    }
    await cache.getOrLoad('k', nothing)
    await cache.getOrLoad('k', nothing)
    expect(loads).toBe(2)
    await cache.getOrLoad('k', nothing, { negativeTtl: '10s' })
    expect(await cache.getOrLoad('k', nothing)).toBeUndefined()
    expect(loads).toBe(3)
    clock.advance(10_000)
    await cache.getOrLoad('k', nothing)
    expect(loads).toBe(4)
    expect(await cache.getOrLoad('null', () => null, { negativeTtl: '10s' })).toBeNull()
    expect(await cache.get('null')).toBeNull()
  })

  test('jitter takes a part off each TTL', async () => {
    const { cache, clock } = make({ ttl: '100s', jitter: 0.5 })
    await Promise.all(Array.from({ length: 200 }, (_, n) => cache.set(`${n}`, n)))
    const left = async (): Promise<number> => {
      const found = await Promise.all(Array.from({ length: 200 }, (_, n) => cache.get(`${n}`)))
      return found.filter((value) => value !== undefined).length
    }
    clock.advance(50_000)
    const before = await left()
    clock.advance(25_000)
    const between = await left()
    clock.advance(25_000)
    expect([before > 190, between > 40 && between < 160, await left()]).toEqual([true, true, 0])
  })

  test('a load that fails fails all who share it, and is not kept', async () => {
    const { cache } = make()
    let loads = 0
    const load = (): number => {
      loads++
      if (loads === 1) throw new Error('the database is away')
      return loads
    }
    const shared = await Promise.allSettled([cache.getOrLoad('k', load), cache.getOrLoad('k', load)])
    expect(shared.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(await cache.getOrLoad('k', load)).toBe(2)
  })

  test('a loader that hangs fails after loadTimeout, and the next asker loads afresh', async () => {
    const { cache } = make({ loadTimeout: '20ms' })
    await expect(cache.getOrLoad('k', () => new Promise(() => {}))).rejects.toMatchObject({
      code: 'LOAD_TIMEOUT',
      status: 504,
    })
    expect(await cache.getOrLoad('k', () => 1)).toBe(1)
  })

  test.each([
    ['set', (cache: SessionCache) => cache.set('k', 'newer'), 'newer'],
    ['deleted', (cache: SessionCache) => cache.delete('k'), undefined],
    ['cleared', (cache: SessionCache) => cache.clear(), undefined],
  ] as const)('what was %s during a load stays so', async (_what, act, expected) => {
    const { cache } = make()
    const gate = deferred<string>()
    const begun = deferred<void>()
    const under = cache.getOrLoad('k', () => {
      begun.resolve()
      return gate.promise
    })
    await begun.promise
    await act(cache)
    gate.resolve('from before')
    expect([await under, await cache.get('k')]).toEqual(['from before', expected])
  })

  test('a value that the storage cannot keep is given, told, and not kept', async () => {
    const storage = new FileCacheStorage({ directory: join(directory, 'unkeepable') })
    const { cache, troubles } = make({ storage })
    const ring: Record<string, unknown> = {}
    ring['self'] = ring
    for (const value of [() => 1, 1n, new Map(), Number.NaN, ring]) {
      expect(await cache.getOrLoad('k', () => value)).toBe(value)
      expect(await cache.get('k')).toBeUndefined()
    }
    expect(troubles.map(({ error }) => (error as { code: string }).code)).toEqual(Array(5).fill('INVALID_VALUE'))
    expect(await cache.set('k', new Map())).toBe(false)
    expect(await cache.set('k', 'text')).toBe(true)
    expect(String(troubles.at(-1)?.error)).toContain('A cache entry cannot be kept as JSON: value holds a Map')
  })

  test('bad arguments are refused', async () => {
    const { cache } = make()
    await expect(cache.set('k', undefined)).rejects.toThrow('cache.delete() removes one')
    expect(() => cache.get(7 as never)).toThrow('A key of the cache must be text, not number.')
    expect(() => cache.getOrLoad('k', 'value' as never)).toThrow('needs the function that loads')
    await expect(cache.getOrLoad('k', () => 1, { ttl: 'soon' })).rejects.toThrow('ttl is "soon"')
  })

  test.each([
    [{ ttl: 'soon' }, 'ttl is "soon"'],
    [{ jitter: 1 }, 'jitter must be a number from 0 to 0.9'],
    [{ refreshAhead: -1 }, 'refreshAhead must be'],
    [{ maxNamespaces: 0 }, 'maxNamespaces must be a whole number'],
    [{ namespace: '' }, 'namespace must be text'],
    [{ storage: {} as never }, 'storage has no get()'],
  ])('%p is refused', (options, message) => {
    expect(() => new SessionCache(options)).toThrow(message)
  })
})

describe('a storage that fails', () => {
  /** A storage in memory that fails, or hangs, while it is told to. */
  class Moody implements CacheStorage {
    readonly name = 'moody'
    readonly #inner = new MemoryCacheStorage()
    mood: 'well' | 'failing' | 'hanging' = 'well'
    calls = 0

    get = (place: CachePlace, now: number) => this.#do(() => this.#inner.get(place, now))
    set = (place: CachePlace, entry: CacheEntry, now: number) => this.#do(() => this.#inner.set(place, entry, now))
    delete = (place: CachePlace) => this.#do(() => this.#inner.delete(place))
    clear = (namespace: string) => this.#do(() => this.#inner.clear(namespace))

    async #do<T>(task: () => T | Promise<T>): Promise<T> {
      this.calls++
      if (this.mood === 'failing') throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
      if (this.mood === 'hanging') await new Promise(() => {})
      return task()
    }
  }

  test('a full disk: the loader is called, the failure is told, and the storage is left alone for a while', async () => {
    const storage = new Moody()
    const { cache, troubles } = make({ storage })
    storage.mood = 'failing'
    const { load, loads } = counting()
    for (let n = 1; n <= 5; n++) expect(await cache.getOrLoad('k', load)).toBe(n)
    expect([loads(), storage.calls, troubles.length]).toEqual([5, 1, 1])
    expect(troubles[0]).toMatchObject({ operation: 'get', namespace: 'default', error: { code: 'ENOSPC' } })
    expect(await cache.set('k', 1)).toBe(false)
  })

  test('one that hangs is waited for once, and used again when it answers', async () => {
    const storage = new Moody()
    const { cache } = make({ storage, storageTimeout: '20ms' })
    storage.mood = 'hanging'
    expect(await cache.getOrLoad('k', () => 1)).toBe(1)
    const { calls } = storage
    for (let n = 0; n < 100; n++) await cache.getOrLoad('k', () => n)
    expect(storage.calls).toBe(calls)
    storage.mood = 'well'
    await until(async () => {
      await cache.getOrLoad('k', () => 'kept')
      return (await cache.get('k')) === 'kept'
    })
  })

  test('what removes says that it could not', async () => {
    const storage = new Moody()
    const { cache } = make({ storage })
    storage.mood = 'failing'
    for (const call of [cache.delete('k'), cache.clear(), cache.clear({ url: 'https://api.example.com/' })]) {
      await expect(call).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', message: expect.stringContaining('moody') })
    }
  })

  test('without onError there is one warning for each operation', async () => {
    const emitted = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      const storage = new Moody()
      storage.mood = 'failing'
      const cache = new SessionCache({ storage })
      for (let n = 0; n < 3; n++) await cache.getOrLoad('k', () => n)
      expect(emitted.mock.calls.map(([message]) => message)).toEqual([
        expect.stringContaining('cache: get failed: no space left on device'),
      ])
    } finally {
      emitted.mockRestore()
    }
  })

  test('a folder that is a file is as good as away', async () => {
    const path = join(directory, 'a-file')
    writeFileSync(path, '')
    const { cache, troubles } = make({ storage: new FileCacheStorage({ directory: path }) })
    expect(await cache.getOrLoad('k', () => 1)).toBe(1)
    expect(troubles.length).toBeGreaterThan(0)
  })
})

describe('with several processes on one Redis', () => {
  let server: RedisServer
  const clients: Redis[] = []
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterAll(async () => {
    for (const client of clients) client.disconnect()
    await server.stop()
  })

  async function connected(options: SessionCacheOptions = {}): Promise<SessionCache> {
    const client = new Redis(server.url, {
      maxRetriesPerRequest: 0,
      retryStrategy: () => 20,
      enableOfflineQueue: false,
    })
    client.on('error', () => {})
    clients.push(client)
    // A call waits half a second for it, and goes without storage then.
    await once(client, 'ready')
    return new SessionCache({
      storage: new RedisCacheStorage({ client }),
      storageTimeout: '10s',
      onError: () => {},
      ...options,
    })
  }

  test('a thousand askers of one key make one load, by a lease', async () => {
    const caches = await Promise.all([connected(), connected(), connected(), connected()])
    const { load, loads } = counting()
    const askers = Array.from({ length: 1_000 }, (_, n) => (caches[n % 4] as SessionCache).getOrLoad('one', load))
    expect([new Set(await Promise.all(askers)), loads()]).toEqual([new Set([1]), 1])
  })

  test('a holder whose load fails makes room for the next one', async () => {
    const [one, two] = await Promise.all([connected(), connected()])
    const gate = deferred<string>()
    const begun = deferred<void>()
    const failing = one.getOrLoad('two', () => {
      begun.resolve()
      return gate.promise
    })
    failing.catch(() => {})
    await begun.promise
    const waiting = two.getOrLoad('two', () => 'loaded by the second')
    gate.reject(new Error('the database is away'))
    await expect(failing).rejects.toThrow('the database is away')
    expect(await waiting).toBe('loaded by the second')
  })

  test('Redis away: the loader is called and no request waits, and the cache is used again when Redis is back', async () => {
    const cache = await connected({ storageTimeout: '100ms' })
    await until(() => cache.set('three', 'kept'))
    await server.kill()
    expect(await cache.getOrLoad('three', () => 'loaded')).toBe('loaded')
    const begun = performance.now()
    for (let n = 0; n < 100; n++) expect(await cache.getOrLoad('three', () => n)).toBe(n)
    expect(performance.now() - begun).toBeLessThan(5_000)
    await server.restart()
    await until(async () => {
      await cache.getOrLoad('three', () => 'loaded')
      return (await cache.get('three')) === 'loaded'
    })
  })
})
