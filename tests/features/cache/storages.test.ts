// The storages of the cache: one suite for all of them, and what is peculiar to each.
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { Keyv } from 'keyv'
import { createClient } from 'redis'
import { MemorySessionStore, SessionManager } from 'sojourn'
import {
  type CacheEntry,
  type CacheStorage,
  FileCacheStorage,
  keyvCacheStorage,
  MemoryCacheStorage,
  notesCacheStorage,
  RedisCacheStorage,
} from 'sojourn/cache'
import { RedisSessionStore } from 'sojourn/redis'
import { cacheStorageChecks } from 'sojourn/testing'
import { SECRET } from '../../support/http.js'
import { sharedRedis } from '../../support/redis.js'

const directory = mkdtempSync(join(tmpdir(), 'sojourn-cache-'))
let server: Awaited<ReturnType<typeof sharedRedis>>
let client: Redis
let nodeRedis: ReturnType<typeof createClient>
const managers: SessionManager[] = []

beforeAll(async () => {
  server = await sharedRedis()
  client = new Redis(server.url)
  nodeRedis = createClient({ url: server.url })
  await nodeRedis.connect()
})
afterAll(async () => {
  for (const manager of managers) await manager.close()
  client.disconnect()
  nodeRedis.destroy()
  await server.stop()
  rmSync(directory, { recursive: true, force: true })
})

/** A storage on the notes of a session store. */
function onNotes(store: MemorySessionStore | RedisSessionStore): CacheStorage {
  const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '10s' })
  managers.push(manager)
  return notesCacheStorage(manager.notes)
}

const keyvMap = new Map<string, unknown>()
const notesStore = new MemorySessionStore()

describe.each<[string, () => CacheStorage, boolean]>([
  ['memory', () => new MemoryCacheStorage(), false],
  ['files', () => new FileCacheStorage({ directory: join(directory, 'sessions') }), true],
  ['Redis', () => new RedisCacheStorage({ client }), true],
  ['Redis, by node-redis', () => new RedisCacheStorage({ client: nodeRedis, prefix: 'node:' }), true],
  ['a Keyv', () => keyvCacheStorage(new Keyv({ store: keyvMap })), true],
  ['notes in memory', () => onNotes(notesStore), true],
  ['notes in Redis', () => onNotes(new RedisSessionStore({ client })), true],
])('%s', (_name, createStorage, isShared) => {
  const options = isShared ? { createStorage, createPeer: createStorage } : { createStorage }
  test.each(cacheStorageChecks(options).map((check) => [check.name, check] as const))('%s', async (_check, check) => {
    await check.run()
  })
})

const NOW = Date.now()
const entryOf = (value: unknown, body?: Uint8Array): CacheEntry => ({
  value,
  storedAt: NOW,
  freshUntil: NOW + 60_000,
  expiresAt: NOW + 60_000,
  ...(body && { body }),
})
const placeOf = (namespace: string, key: string) => ({ namespace, domain: '', key })

describe('in memory', () => {
  test('entries and bytes are bounded over all namespaces, the least recently used going first', async () => {
    const storage = new MemoryCacheStorage({ maxEntries: 3 })
    for (const name of ['a', 'b', 'c']) await storage.set(placeOf(name, 'k'), entryOf(name), NOW)
    await storage.get(placeOf('a', 'k'), NOW)
    await storage.set(placeOf('d', 'k'), entryOf('d'), NOW)
    expect(storage.namespaces().map(({ name }) => name)).toEqual(['a', 'c', 'd'])

    const small = new MemoryCacheStorage({ maxBytes: 10_000 })
    for (let n = 0; n < 20; n++) await small.set(placeOf('a', `${n}`), entryOf('x'.repeat(500)), NOW)
    expect(small.size('a').bytes).toBeLessThanOrEqual(10_000)
    expect(small.size('a').entries).toBeGreaterThan(5)
    await small.set(placeOf('a', '19'), entryOf('x'.repeat(10_000)), NOW)
    expect(await small.get(placeOf('a', '19'), NOW)).toBeUndefined()
  })

  test('a value comes back as itself', async () => {
    const storage = new MemoryCacheStorage()
    const value = new Map([[1, () => 2]])
    await storage.set(placeOf('a', 'k'), entryOf(value), NOW)
    expect((await storage.get(placeOf('a', 'k'), NOW))?.value).toBe(value)
  })

  test('the size of a value with cycles and of a very large one is told', async () => {
    const storage = new MemoryCacheStorage()
    const ring: Record<string, unknown> = { text: 'x'.repeat(1_000) }
    ring['self'] = ring
    await storage.set(placeOf('ring', 'k'), entryOf(ring), NOW)
    await storage.set(placeOf('large', 'k'), entryOf(Array.from({ length: 100_000 }, (_, n) => `${n}`)), NOW)
    expect(storage.size('ring').bytes).toBeGreaterThan(2_000)
    expect(storage.size('ring').bytes).toBeLessThan(3_000)
    expect(storage.size('large').bytes).toBeGreaterThan(1_000_000)
  })

  test.each([
    ['maxEntries', 0],
    ['maxBytes', 1.5],
  ])('%s of %d is refused', (name, value) => {
    expect(() => new MemoryCacheStorage({ [name]: value })).toThrow(`${name} must be a whole number`)
  })
})

describe('in files', () => {
  test('everything is under <namespace>/<domain>/<hash>, for this user alone, whatever the names are', async () => {
    const root = join(directory, 'layout')
    const storage = new FileCacheStorage({ directory: root })
    for (const namespace of ['tenant_7', '../../escape', '/etc/passwd', '..', '.', 'CON', 'a/b\\c', 'nul\0l']) {
      await storage.set({ namespace, domain: 'api.example.com', key: '../../../x' }, entryOf(1), NOW)
      await storage.set({ namespace, domain: '../..', key: 'x' }, entryOf(1), NOW)
    }
    expect(readdirSync(directory)).toEqual(expect.not.arrayContaining(['escape']))
    const [sample, ...others] = readdirSync(join(root, 'tenant_7', 'api.example.com'))
    expect([sample, others]).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.json$/), []])
    expect(statSync(join(root, 'tenant_7')).mode & 0o777).toBe(0o700)
    expect(statSync(join(root, 'tenant_7', 'api.example.com', sample as string)).mode & 0o777).toBe(0o600)
    expect(readdirSync(root)).toHaveLength(8)
  })

  test('a body that was replaced, deleted or torn leaves no file, and what cannot be read is absent', async () => {
    const root = join(directory, 'bodies')
    const storage = new FileCacheStorage({ directory: root })
    const place = { namespace: 'n', domain: 'x.example', key: 'k' }
    const files = (): string[] => readdirSync(join(root, 'n', 'x.example'))
    for (let n = 0; n < 3; n++) await storage.set(place, entryOf(n, Buffer.alloc(10, n)), NOW)
    expect(files()).toHaveLength(2)
    writeFileSync(join(root, 'n', 'x.example', files().find((name) => name.endsWith('.json')) as string), '../x\n{}')
    expect(await storage.get(place, NOW)).toBeUndefined()
    await storage.set(place, entryOf(1), NOW)
    await storage.delete(place)
    expect(files().filter((name) => name.endsWith('.json'))).toEqual([])
  })

  test('an entry that is over goes with its body when it is asked for', async () => {
    const root = join(directory, 'over')
    const storage = new FileCacheStorage({ directory: root })
    const place = { namespace: 'n', domain: 'x.example', key: 'k' }
    await storage.set(place, entryOf(1, Buffer.alloc(10)), NOW)
    expect(await storage.get(place, NOW + 60_000)).toBeUndefined()
    expect(readdirSync(join(root, 'n', 'x.example'))).toEqual([])
  })

  test('a folder that cannot be read is told, and is not an empty one', async () => {
    const root = join(directory, 'no-folder')
    writeFileSync(root, '')
    const storage = new FileCacheStorage({ directory: root })
    await expect(storage.namespaces()).rejects.toThrow('ENOTDIR')
    await expect(storage.size('n')).rejects.toThrow('ENOTDIR')
  })

  test('a lease whose holder is gone can be taken', async () => {
    const storage = new FileCacheStorage({ directory: join(directory, 'leases') })
    const place = { namespace: 'n', domain: '', key: 'k' }
    expect(await storage.lease(place, 60_000)).not.toBeNull()
    expect(await storage.lease(place, 60_000)).toBeNull()
    expect(await storage.lease(place, 0)).not.toBeNull()
  })

  test('a folder is needed', () => {
    expect(() => new FileCacheStorage({ directory: '' })).toThrow('needs the folder')
  })
})

describe('in Redis', () => {
  test('every key has a time to live, and those of a namespace are in one slot', async () => {
    const storage = new RedisCacheStorage({ client, prefix: 'ttl:' })
    await storage.set({ namespace: 'tenant}7', domain: 'x.example', key: 'k' }, entryOf(1), NOW)
    await storage.lease({ namespace: 'tenant}7', domain: '', key: 'k' }, 5_000)
    const keys = (await client.keys('ttl:*')).filter((key) => !key.endsWith('namespaces'))
    expect(keys).toHaveLength(3)
    // What stands in the first braces decides the slot.
    expect(new Set(keys.map((key) => /\{(.*?)\}/.exec(key)?.[1])).size).toBe(1)
    for (const key of await client.keys('ttl:*')) expect(await client.pttl(key)).toBeGreaterThan(0)
  })

  test('a text of another version, or none of ours, is absent', async () => {
    const storage = new RedisCacheStorage({ client, prefix: 'version:' })
    const place = { namespace: 'n', domain: '', key: 'k' }
    await storage.set(place, entryOf(1), NOW)
    const [key] = (await client.keys('version:{n}:?*')) as [string]
    for (const text of ['{"v":2,"s":1,"f":1,"e":99999999999999}', 'junk', '[]', 'null']) {
      await client.set(key, text)
      expect(await storage.get(place, NOW)).toBeUndefined()
    }
  })

  test('a large namespace is cleared in portions, and its index does not grow with what is over', async () => {
    const storage = new RedisCacheStorage({ client, prefix: 'large:' })
    const many = Array.from({ length: 2_500 }, (_, n) => n)
    await Promise.all(
      many.map((n) => storage.set({ namespace: 'n', domain: n % 2 ? 'a.b' : '', key: `${n}` }, entryOf(n), NOW)),
    )
    expect((await storage.size('n')).entries).toBe(2_500)
    await storage.clear('n', 'a.b')
    expect((await storage.size('n')).entries).toBe(1_250)
    await storage.clear('n')
    expect(await client.keys('large:{n}*')).toEqual([])
    await client.zadd('large:{n}:', 1, 'of an entry that is over')
    await storage.set(placeOf('n', 'k'), entryOf(1), NOW)
    expect(await client.zcard('large:{n}:')).toBe(1)
  })

  test('what is no client is refused', () => {
    expect(() => new RedisCacheStorage({ client: {} as never })).toThrow('client has no get, evalsha, eval, once')
    expect(() => new RedisCacheStorage({ client, prefix: '{a}' })).toThrow('without { and }')
  })
})

test('on keys and values, no removal undoes another at the same time, nor does a set', async () => {
  const storage = keyvCacheStorage(new Keyv())
  const domains = ['', 'a.example', 'b.example']
  const place = (domain: string) => ({ namespace: 'n', domain, key: 'k' })
  const kept = async (): Promise<string[]> => {
    const entries = await Promise.all(domains.map(async (domain) => storage.get(place(domain), NOW)))
    return domains.filter((_domain, index) => entries[index] !== undefined)
  }
  const fill = async (): Promise<void> => {
    for (const domain of domains) await storage.set(place(domain), entryOf(1), NOW)
    expect(await kept()).toEqual(domains)
  }
  await fill()
  await Promise.all([storage.clear('n', 'a.example'), storage.clear('n', 'b.example')])
  expect(await kept()).toEqual([''])
  await fill()
  await Promise.all([storage.clear('n', 'a.example'), storage.clear('n')])
  expect(await kept()).toEqual([])
  await fill()
  // So late that what the namespace is cleared by is written anew.
  const later = { ...entryOf(1), expiresAt: NOW + 86_400_000_000 }
  await Promise.all([storage.set(place('a.example'), later, NOW + 40 * 86_400_000), storage.clear('n')])
  expect(await kept()).not.toContain('b.example')
})

test('what is no Keyv and no notes is refused', () => {
  expect(() => keyvCacheStorage({} as never)).toThrow('it has no get()')
  expect(() => notesCacheStorage({} as never)).toThrow('manager.notes')
})
