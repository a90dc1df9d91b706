// The suite that every storage of `SessionCache` must pass, ours and yours: what is kept comes back whole, in its own place and no
// other, and is gone when it is over, deleted or cleared. Free of any test runner.
import { isDeepStrictEqual } from 'node:util'
import type { CacheEntry, CachePlace, CacheStorage } from '../features/cache/storage.js'
import { newSessionId } from '../ids.js'
import { concurrently, equal, HOSTILE, HOUR_MS } from './samples.js'

/** One check of the suite for storages of a cache. Run it with any test runner: `test(check.name, check.run)`. */
export interface CacheStorageCheck {
  readonly name: string
  /** The ability that is checked: `run()` does nothing when the storage lacks it. */
  readonly ability?: 'size' | 'namespaces' | 'move' | 'lease' | undefined
  /** Rejects, saying what was expected and what was found, when the storage breaks the promise. */
  readonly run: () => Promise<void>
}

/** What the suite needs of a storage. */
export interface CacheStorageCheckOptions {
  /** Makes a storage; called once a check. The data may be shared: the suite uses fresh namespaces. */
  readonly createStorage: () => CacheStorage | Promise<CacheStorage>
  /** Makes a second storage on the same data, as another process would have it. Without it nothing is checked across processes. */
  readonly createPeer?: ((storage: CacheStorage) => CacheStorage | Promise<CacheStorage>) | undefined
  /** Called after each check with every storage made for it. Default: `storage.close()`. */
  readonly destroyStorage?: ((storage: CacheStorage) => Promise<void>) | undefined
}

type Check = (storage: CacheStorage, peer: CacheStorage) => Promise<void>

/** The checks, for a test runner that wants them one by one. */
export function cacheStorageChecks(options: CacheStorageCheckOptions): CacheStorageCheck[] {
  const destroy = options.destroyStorage ?? (async (storage: CacheStorage) => storage.close?.())
  const of = (
    checks: Record<string, Check>,
    { ability, isShared = false }: { ability?: CacheStorageCheck['ability']; isShared?: boolean } = {},
  ): CacheStorageCheck[] =>
    Object.entries(checks).map(([name, check]) => ({
      name: (isShared ? 'across processes: ' : '') + name,
      ability,
      async run() {
        const storage = await options.createStorage()
        try {
          if (ability !== undefined && storage[ability] === undefined) return
          const peer = isShared && options.createPeer ? await options.createPeer(storage) : storage
          try {
            await check(storage, peer)
          } finally {
            if (peer !== storage) await destroy(peer)
          }
        } finally {
          await destroy(storage)
        }
      },
    }))
  const all = [
    ...of(KEEPING),
    ...of(SIZES, { ability: 'size' }),
    ...of(LISTS, { ability: 'namespaces' }),
    ...of(MOVES, { ability: 'move' }),
    ...of(LEASES, { ability: 'lease' }),
  ]
  if (options.createPeer === undefined) return all
  return [...all, ...of(SHARED, { isShared: true }), ...of(LEASES, { ability: 'lease', isShared: true })]
}

const KEEPING: Record<string, Check> = {
  'what is kept comes back whole': async (storage) => {
    const place = somewhere()
    const values = [null, 0, '', false, HOSTILE, [1, [2]], { a: { b: [null, 'ü'] }, ['__proto__']: 1 }]
    for (const value of values) {
      const entry = entryOf(value)
      await storage.set(place, entry, NOW)
      sameEntry(await storage.get(place, NOW), entry)
    }
  },
  'a value of undefined is kept, and is not the absence of one': async (storage) => {
    const place = somewhere()
    equal(await storage.get(place, NOW), undefined, 'what was never kept')
    await storage.set(place, entryOf(undefined), NOW)
    sameEntry(await storage.get(place, NOW), entryOf(undefined))
  },
  'bytes beside a value come back as they were': async (storage) => {
    const place = somewhere({ domain: 'api.example.com' })
    for (const body of [Buffer.from([0, 255, 10, 13, 128]), Buffer.alloc(70_000, 7), Buffer.alloc(0)]) {
      const entry = { ...entryOf({ status: 200 }), body }
      await storage.set(place, entry, NOW)
      sameEntry(await storage.get(place, NOW), entry)
    }
    await storage.set(place, entryOf('no bytes any more'), NOW)
    sameEntry(await storage.get(place, NOW), entryOf('no bytes any more'))
  },
  'an entry that is over is absent, by the time of the call': async (storage) => {
    const place = somewhere()
    await storage.set(place, { ...entryOf(1), freshUntil: NOW + 10, expiresAt: NOW + HOUR_MS }, NOW)
    equal((await storage.get(place, NOW + HOUR_MS - 1))?.value, 1, 'a stale one')
    equal(await storage.get(place, NOW + HOUR_MS), undefined, 'one that is over')
  },
  'places that look alike are not the same': async (storage) => {
    const namespace = `${newSessionId()}`
    const places = [
      { namespace, domain: '', key: 'a' },
      { namespace, domain: 'a', key: '' },
      { namespace, domain: 'a', key: 'a' },
      { namespace, domain: '', key: 'A' },
      { namespace: `${namespace}/a`, domain: '', key: 'a' },
      { namespace: `${namespace}:a`, domain: '', key: 'a' },
      { namespace: namespace.toUpperCase(), domain: '', key: 'a' },
      { namespace: `../${namespace}`, domain: '../x', key: '../../y' },
      { namespace: `${namespace}}{`, domain: '', key: 'a' },
      { namespace: `${namespace}.`, domain: '', key: 'a' },
      { namespace: `${namespace}\u0000`, domain: '', key: '\u0000' },
      { namespace: `${namespace}\ud800`, domain: '', key: '\ud800' },
      { namespace: `${namespace}\ud801`, domain: '', key: '\ud801' },
      { namespace: namespace.padEnd(500, 'ü'), domain: 'x'.repeat(250), key: 'k'.repeat(5_000) },
      { namespace: `${namespace}${HOSTILE}`, domain: '[::1]:3000', key: HOSTILE },
      { namespace: `%${namespace}`, domain: '%2e', key: '__proto__' },
    ]
    for (const [n, place] of places.entries()) await storage.set(place, entryOf(n), NOW)
    for (const [n, place] of places.entries()) equal((await storage.get(place, NOW))?.value, n, JSON.stringify(place))
    for (const { namespace: name } of places) await storage.clear(name)
    for (const place of places) equal(await storage.get(place, NOW), undefined, `${JSON.stringify(place)}, cleared,`)
  },
  'delete() removes one, clear() a domain or a namespace, and nothing else': async (storage) => {
    const [mine, other] = [newSessionId(), newSessionId()]
    const places = [
      { namespace: mine, domain: '', key: 'a' },
      { namespace: mine, domain: '', key: 'b' },
      { namespace: mine, domain: 'one.example', key: 'a' },
      { namespace: mine, domain: 'two.example', key: 'a' },
      { namespace: other, domain: 'one.example', key: 'a' },
    ] as const
    for (const place of places) await storage.set(place, entryOf(1), NOW)
    const left = async (): Promise<string> =>
      (await concurrently(places.length, async (n) => storage.get(places[n] as CachePlace, NOW)))
        .map((entry) => (entry ? 1 : 0))
        .join('')
    await storage.delete(places[0])
    await storage.delete(places[0])
    equal(await left(), '01111', 'what delete() leaves')
    await storage.clear(mine, 'one.example')
    equal(await left(), '01011', 'what clear() of a domain leaves')
    await storage.clear(mine)
    await storage.clear(newSessionId())
    equal(await left(), '00001', 'what clear() of a namespace leaves')
    await storage.set(places[0], entryOf(2), NOW)
    equal((await storage.get(places[0], NOW))?.value, 2, 'what is kept after clear()')
    await storage.clear(mine)
    await storage.clear(other)
  },
  'many writes of one place at once leave one of them, whole': async (storage) => {
    const place = somewhere({ domain: 'x.example' })
    await concurrently(20, async (n) => {
      await storage.set(place, { ...entryOf(n), body: Buffer.alloc(10_000, n) }, NOW)
    })
    const found = await storage.get(place, NOW)
    equal(
      found?.body?.every((byte) => byte === found.value),
      true,
      'whether the bytes are those of the value',
    )
    await storage.clear(place.namespace)
  },
}

const SIZES: Record<string, Check> = {
  'size() counts what one namespace holds': async (storage) => {
    const { namespace } = somewhere()
    equal((await storage.size?.(namespace, NOW))?.entries, 0, 'the entries of an empty one')
    for (const key of ['a', 'b']) await storage.set({ namespace, domain: '', key }, entryOf('x'.repeat(100)), NOW)
    await storage.set({ namespace, domain: 'x.example', key: 'c' }, { ...entryOf(1), body: Buffer.alloc(1_000) }, NOW)
    await storage.set({ ...somewhere(), key: 'd' }, entryOf(1), NOW)
    const size = await storage.size?.(namespace, NOW)
    equal(size?.entries, 3, 'the entries')
    equal((size?.bytes ?? 0) >= 1_200, true, `whether ${size?.bytes} bytes are enough`)
    await storage.clear(namespace)
    equal((await storage.size?.(namespace, NOW))?.entries, 0, 'the entries after clear()')
  },
}

const LISTS: Record<string, Check> = {
  'namespaces() names what has entries, and when it was used': async (storage) => {
    const names = [newSessionId(), `${newSessionId()}/../${HOSTILE}`, newSessionId().padEnd(400, 'Ü')]
    for (const [n, namespace] of names.entries()) {
      await storage.set({ namespace, domain: '', key: 'a' }, entryOf(1), NOW + n * HOUR_MS)
    }
    const found = new Map((await storage.namespaces?.())?.map(({ name, usedAt }) => [name, usedAt]))
    for (const [n, name] of names.entries()) {
      const offBy = Math.abs((found.get(name) ?? 0) - (NOW + n * HOUR_MS))
      equal(offBy <= 60_000, true, `whether ${JSON.stringify(name)} is listed with its time (off by ${offBy} ms)`)
    }
    for (const name of names) await storage.clear(name)
    const left = (await storage.namespaces?.())?.filter(({ name }) => names.includes(name))
    equal(left?.length, 0, 'the listed namespaces after clear()')
  },
}

const MOVES: Record<string, Check> = {
  'move() takes everything along, and leaves nothing': async (storage) => {
    const [from, to] = [newSessionId(), newSessionId()]
    const body = Buffer.from('bytes')
    await storage.set({ namespace: from, domain: '', key: 'a' }, entryOf('a'), NOW)
    await storage.set({ namespace: from, domain: 'x.example', key: 'b' }, { ...entryOf('b'), body }, NOW)
    await storage.move?.(from, to, NOW)
    await storage.move?.(newSessionId(), newSessionId(), NOW)
    sameEntry(await storage.get({ namespace: to, domain: '', key: 'a' }, NOW), entryOf('a'))
    sameEntry(await storage.get({ namespace: to, domain: 'x.example', key: 'b' }, NOW), { ...entryOf('b'), body })
    equal(await storage.get({ namespace: from, domain: '', key: 'a' }, NOW), undefined, 'what is left')
    const listed = (await storage.namespaces?.())?.map(({ name }) => name)
    if (listed) equal(listed.includes(to) && !listed.includes(from), true, 'whether the list has the new name alone')
    await storage.clear(to)
  },
}

const LEASES: Record<string, Check> = {
  'of many that want a lease, one has it, until it is released': async (storage, peer) => {
    const place = somewhere()
    const leases = await concurrently(10, async (n) => (n % 2 === 0 ? storage : peer).lease?.(place, 60_000) ?? null)
    const held = leases.filter((lease) => lease !== null)
    equal(held.length, 1, 'the number of leases')
    equal((await peer.lease?.({ ...place, key: 'another' }, 60_000)) !== null, true, 'whether another place is free')
    await held[0]?.prolong()
    equal(await peer.lease?.(place, 60_000), null, 'a second lease')
    await held[0]?.release()
    equal((await peer.lease?.(place, 60_000)) !== null, true, 'whether it is free after release()')
    await storage.clear(place.namespace)
  },
}

/** Checked with two storages on the same data. */
const SHARED: Record<string, Check> = {
  'what one keeps, deletes or clears, the other sees': async (storage, peer) => {
    const place = somewhere({ domain: 'x.example' })
    const entry = { ...entryOf({ a: 1 }), body: Buffer.from('bytes') }
    await storage.set(place, entry, NOW)
    sameEntry(await peer.get(place, NOW), entry)
    await peer.delete(place)
    equal(await storage.get(place, NOW), undefined, 'what the other one deleted')
    await peer.set(place, entry, NOW)
    await storage.clear(place.namespace)
    equal(await peer.get(place, NOW), undefined, 'what the other one cleared')
  },
  'who reads while another one writes and clears finds one of the entries, whole, or none': async (storage, peer) => {
    const place = somewhere({ domain: 'x.example' })
    await concurrently(40, async (n) => {
      if (n % 10 === 9) await storage.clear(place.namespace)
      else if (n % 2 === 0) await storage.set(place, { ...entryOf(n), body: Buffer.alloc(5_000, n) }, NOW)
      else {
        const found = await peer.get(place, NOW)
        equal(found?.body?.every((byte) => byte === found.value) ?? true, true, 'whether an entry is whole')
      }
    })
    await storage.clear(place.namespace)
  },
}

/** Present, since some storages have a clock of their own that ends entries. */
const NOW = Date.now()

function somewhere({ domain = '' }: { domain?: string } = {}): CachePlace {
  return { namespace: newSessionId(), domain, key: 'key' }
}

function entryOf(value: unknown): CacheEntry {
  return { value, storedAt: NOW, freshUntil: NOW + HOUR_MS, expiresAt: NOW + 48 * HOUR_MS }
}

function sameEntry(found: CacheEntry | undefined, expected: CacheEntry): void {
  const plain = (entry: CacheEntry | undefined): unknown =>
    entry && { ...entry, body: entry.body === undefined ? undefined : Buffer.from(entry.body).toString('hex') }
  if (isDeepStrictEqual(plain(found), plain({ ...expected, body: expected.body }))) return
  const [first, second] = [found, expected].map((entry) => JSON.stringify(plain(entry))?.slice(0, 300))
  throw new Error(`Expected the entry to be ${second}, found ${first}.`)
}
