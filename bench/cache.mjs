// What the caches cost, beside lru-cache, keyv, cacheable, cache-manager and the HTTP caches of undici and make-fetch-happen. Prints JSON.
//   argv: directory of the package, 'quick' or 'full', URL of a Redis, which is emptied
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createCache } from 'cache-manager'
import { Cacheable } from 'cacheable'
import { Redis } from 'ioredis'
import { Keyv } from 'keyv'
import { LRUCache } from 'lru-cache'
import makeFetchHappen from 'make-fetch-happen'
import { Agent, interceptors, fetch as undiciFetch } from 'undici'
import { load } from './contenders.mjs'
import { exchange } from './in-process.mjs'
import { median } from './statistics.mjs'

const [, , packageDirectory, pace, redisUrl] = process.argv
const isQuick = pace === 'quick'
const { perRequest, requestContext, SessionCache, MemoryCacheStorage, RedisCacheStorage } = await load(
  packageDirectory,
  './cache',
)
const ROUNDS = isQuick ? 7 : 25
const TTL_MS = 600_000

console.log(
  JSON.stringify({
    perRequest: await onePerRequest(),
    hit: await memoryHits(),
    redisHit: await redisHits(),
    stampede: await stampede(),
    clear: [...(await clearing('memory')), ...(await clearing('redis'))],
    fetch: await fetching(),
  }),
)
process.exit(0)

/** Ten askers of a load of 50 ms, one after the other; and what a hit costs beside a Map. */
async function onePerRequest() {
  const counted = { loads: 0 }
  const slow = async () => {
    counted.loads++
    await delay(50)
    return counted
  }
  const shared = perRequest(slow)
  const tenAskers = async (ask) => {
    counted.loads = 0
    const started = performance.now()
    await inRequest(async () => {
      for (let asker = 0; asker < 10; asker++) await ask()
    })
    return { loads: counted.loads, ms: performance.now() - started }
  }
  // A hundred requests a second, for half a second.
  const many = async (ask) => {
    const requests = Array.from({ length: 50 }, async (_, n) => {
      await delay(n * 10)
      return tenAskers(ask)
    })
    counted.loads = 0
    const all = await Promise.all(requests)
    return { ms: median(all.map(({ ms }) => ms)) }
  }
  const without = await tenAskers(slow)
  const once = await tenAskers(shared)
  const underLoad = { without: await many(slow), with: await many(shared) }
  const hits = await inRequest(async () => {
    const value = perRequest(() => 1)
    const ofKey = perRequest((key) => key)
    const map = new Map([['key', Promise.resolve(1)]])
    await value()
    await ofKey('key')
    return interleaved({
      map: async () => map.get('key'),
      'perRequest()': () => value(),
      'perRequest(key)': () => ofKey('key'),
    })
  })
  return { without, with: once, underLoad, hits }
}

function inRequest(task) {
  return new Promise((resolve, reject) => {
    exchange(requestContext, { handler: () => task().then(resolve, reject) }).catch(reject)
  })
}

/** Nanoseconds of CPU for a hit among 1,000 keys, everybody with a TTL and awaited. */
async function memoryHits() {
  const keys = Array.from({ length: 1_000 }, (_, n) => `key ${n}`)
  const value = { id: 1, name: 'ann', roles: ['admin'] }
  const lru = new LRUCache({ max: 10_000, ttl: TTL_MS, fetchMethod: () => value })
  const keyv = new Keyv({ store: new Map(), ttl: TTL_MS })
  const cacheable = new Cacheable({ ttl: TTL_MS })
  const manager = createCache({ ttl: TTL_MS })
  const ours = new SessionCache({ storage: new MemoryCacheStorage(), ttl: TTL_MS / 1000 })
  for (const key of keys) {
    lru.set(key, value)
    await Promise.all([keyv.set(key, value), cacheable.set(key, value), manager.set(key, value), ours.set(key, value)])
  }
  const each = (get) => {
    let n = 0
    return () => get(keys[n++ % keys.length])
  }
  const load = () => value
  return interleaved({
    'lru-cache get()': each(async (key) => lru.get(key)),
    'lru-cache fetch()': each((key) => lru.fetch(key)),
    'sojourn get()': each((key) => ours.get(key)),
    'sojourn getOrLoad()': each((key) => ours.getOrLoad(key, load)),
    keyv: each((key) => keyv.get(key)),
    cacheable: each((key) => cacheable.get(key)),
    'cache-manager': each((key) => manager.get(key)),
    'cache-manager wrap()': each((key) => manager.wrap(key, load)),
  })
}

/** Hits a second over one connection, 64 at once, all on the same client library. */
async function redisHits() {
  const client = new Redis(redisUrl)
  await client.flushall()
  const value = { id: 1, name: 'ann', roles: ['admin'] }
  const store = () => ({
    get: async (key) => (await client.get(key)) ?? undefined,
    set: (key, text, ttl) => client.set(key, text, 'PX', ttl ?? TTL_MS),
    delete: (key) => client.del(key),
    clear: () => client.flushall(),
    on() {},
  })
  const keyv = new Keyv({ store: store(), ttl: TTL_MS })
  const cacheable = new Cacheable({ primary: new Keyv({ store: store() }), ttl: TTL_MS })
  const manager = createCache({ stores: [new Keyv({ store: store() })], ttl: TTL_MS })
  const ours = new SessionCache({
    storage: new RedisCacheStorage({ client }),
    ttl: TTL_MS / 1000,
    storageTimeout: '10s',
  })
  const keys = Array.from({ length: 500 }, (_, n) => `key ${n}`)
  for (const key of keys) {
    await client.set(`raw:${key}`, JSON.stringify(value))
    await Promise.all([
      keyv.set(key, value),
      cacheable.set(`c${key}`, value),
      manager.set(`m${key}`, value),
      ours.set(key, value),
    ])
  }
  const gets = {
    'raw GET': async (key) => JSON.parse(await client.get(`raw:${key}`)),
    sojourn: (key) => ours.get(key),
    keyv: (key) => keyv.get(key),
    cacheable: (key) => cacheable.get(`c${key}`),
    'cache-manager': (key) => manager.get(`m${key}`),
  }
  const rates = Object.fromEntries(Object.keys(gets).map((name) => [name, []]))
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, get] of rotated(Object.entries(gets), round)) {
      const started = performance.now()
      let left = isQuick ? 4_000 : 12_000
      const count = left
      await Promise.all(
        Array.from({ length: 64 }, async () => {
          while (left-- > 0) await get(keys[left % keys.length])
        }),
      )
      rates[name].push((count / (performance.now() - started)) * 1000)
    }
  }
  client.disconnect()
  const ofRaw = (name) => median(rates[name].map((rate, round) => rate / rates['raw GET'][round]))
  return Object.fromEntries(
    Object.keys(rates).map((name) => [name, { perSecond: median(rates[name]), ofRaw: ofRaw(name) }]),
  )
}

/** How many loads a thousand askers of one key make. */
async function stampede() {
  const counts = {}
  const askers = {
    sojourn: (() => {
      const cache = new SessionCache({ storage: new MemoryCacheStorage() })
      return (load) => cache.getOrLoad('key', load)
    })(),
    'lru-cache fetch()': (() => {
      let loader
      const cache = new LRUCache({ max: 10, fetchMethod: () => loader() })
      return (load) => {
        loader = load
        return cache.fetch('key')
      }
    })(),
    cacheable: (() => {
      const cache = new Cacheable()
      return (load) => cache.getOrSet('key', load)
    })(),
    'cache-manager': (() => {
      const cache = createCache()
      return (load) => cache.wrap('key', load)
    })(),
    keyv: (() => {
      const cache = new Keyv()
      return async (load) => {
        const found = await cache.get('key')
        if (found !== undefined) return found
        const value = await load()
        await cache.set('key', value)
        return value
      }
    })(),
  }
  for (const [name, ask] of Object.entries(askers)) {
    let loads = 0
    const load = async () => {
      loads++
      await delay(20)
      return 'value'
    }
    await Promise.all(Array.from({ length: 1_000 }, () => ask(load)))
    counts[name] = loads
  }
  return counts
}

/** Milliseconds to clear one of 10,000 namespaces of 100 entries, with few and with many entries elsewhere. */
async function clearing(kind) {
  const found = []
  for (const entries of [1_000, isQuick ? 100_000 : 1_000_000]) {
    const client = kind === 'redis' ? new Redis(redisUrl) : null
    await client?.flushall()
    const storage = client
      ? new RedisCacheStorage({ client })
      : new MemoryCacheStorage({ maxEntries: 2e6, maxBytes: 4e9 })
    const now = Date.now()
    const put = (namespace, key) =>
      storage.set(
        { namespace, domain: '', key },
        { value: 1, storedAt: now, freshUntil: now + TTL_MS, expiresAt: now + TTL_MS },
        now,
      )
    for (let n = 0; n < entries; ) {
      const batch = []
      for (; batch.length < 5_000 && n < entries; n++) batch.push(put(`tenant ${n % 10_000}`, `key ${n}`))
      await Promise.all(batch)
    }
    const times = []
    for (let round = 0; round < ROUNDS; round++) {
      for (let n = 0; n < 100; n++) await put('mine', `key ${n}`)
      const started = performance.now()
      await storage.clear('mine')
      times.push(performance.now() - started)
    }
    found.push({ kind, entries, ms: median(times) })
    client?.disconnect()
  }
  return found
}

/** Requests to the origin and CPU for the same 1,000 requests, eight at once, of ten URLs of 10 KB that are fresh for a minute. */
async function fetching() {
  let asked = 0
  const body = 'x'.repeat(10_000)
  const server = createServer((_req, res) => {
    asked++
    res.writeHead(200, { 'cache-control': 'max-age=60', etag: '"one"', 'content-type': 'text/plain' })
    res.end(body)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${server.address().port}`
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-bench-'))
  const contenders = {
    fetch: () => (to) => fetch(to),
    'sojourn, memory': () => {
      const cache = new SessionCache({ storage: new MemoryCacheStorage() })
      return (to) => cache.fetch(to)
    },
    'undici cache, memory': () => {
      const dispatcher = new Agent().compose(interceptors.cache())
      return (to) => undiciFetch(to, { dispatcher })
    },
    'make-fetch-happen, files': (round) => {
      const cached = makeFetchHappen.defaults({ cachePath: join(directory, `${round}`) })
      return (to) => cached(to)
    },
  }
  const samples = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]))
  const rounds = isQuick ? 4 : 12
  for (let round = 0; round < rounds; round++) {
    for (const [name, make] of rotated(Object.entries(contenders), round)) {
      const get = make(round)
      asked = 0
      const before = process.cpuUsage()
      let left = 1_000
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          while (left-- > 0) await (await get(`${url}/${left % 10}`)).text()
        }),
      )
      const { user, system } = process.cpuUsage(before)
      samples[name].push({ cpuUs: (user + system) / 1_000, origin: asked })
    }
  }
  server.closeAllConnections()
  server.close()
  rmSync(directory, { recursive: true, force: true })
  return Object.fromEntries(
    Object.entries(samples).map(([name, all]) => [
      name,
      { cpuUs: median(all.map(({ cpuUs }) => cpuUs)), origin: median(all.map(({ origin }) => origin)) },
    ]),
  )
}

/** Nanoseconds of CPU for each, in turns, so that what else the machine does meets all of them. */
async function interleaved(steps) {
  const samples = Object.fromEntries(Object.keys(steps).map((name) => [name, []]))
  const count = isQuick ? 20_000 : 50_000
  const batch = async (step) => {
    const before = process.cpuUsage()
    for (let n = 0; n < count; n++) await step()
    const { user, system } = process.cpuUsage(before)
    return ((user + system) * 1000) / count
  }
  for (const step of Object.values(steps)) await batch(step)
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, step] of rotated(Object.entries(steps), round)) samples[name].push(await batch(step))
  }
  return Object.fromEntries(Object.entries(samples).map(([name, all]) => [name, median(all)]))
}

function rotated(list, by) {
  const at = by % list.length
  return [...list.slice(at), ...list.slice(0, at)]
}
