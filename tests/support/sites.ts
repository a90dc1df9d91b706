// The same app in one process or in two, on one set of sessions, for describe.each(SITES).
import { Redis } from 'ioredis'
import { MemorySessionStore, type Regeneration, type SessionData, type SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { testApp } from './app.js'
import { Client, listen, send } from './http.js'
import { type Program, startProgram } from './processes.js'
import { sharedRedis } from './redis.js'

export interface Site {
  /** The base URL of each process. */
  readonly urls: readonly string[]
  /** A look at the sessions past the app. */
  readonly store: SessionStore
  /** The IDs of the live sessions that descend from one session by regenerating: they share its first digits. */
  liveIds(slot: string): Promise<string[]>
  /** A client of one of the processes, with cookies or without. */
  client(index?: number, cookies?: Iterable<readonly [string, string]>): Client
  /** Resolves when the slow request of that gate waits at it. */
  arrived(index: number, gate: string): Promise<void>
  /** Lets the slow request of that gate go on. */
  open(index: number, gate: string): Promise<void>
  stop(): Promise<void>
}

export const SITES: readonly (readonly [name: string, start: () => Promise<Site>])[] = [
  ['memory, one process', memorySite],
  ['Redis, one process', redisSite],
  ['Redis, two processes', () => redisProcessesSite(2)],
]

/** Knows the sessions it was ever given. */
class ListingStore extends MemorySessionStore {
  readonly ids = new Set<string>()

  override create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    this.ids.add(id)
    return super.create(id, data, ttlSeconds)
  }

  override regenerate(
    id: string,
    regeneration: Regeneration,
    ttlSeconds: number,
  ): ReturnType<SessionStore['regenerate']> {
    this.ids.add(regeneration.next.id)
    return super.regenerate(id, regeneration, ttlSeconds)
  }
}

async function memorySite(): Promise<Site> {
  const store = new ListingStore({ cleanupInterval: 0 })
  const server = await listen(testApp({ store }).app)
  return siteOf([server.url], store, {
    async liveIds(slot) {
      const live: string[] = []
      for (const id of store.ids) if (id.startsWith(slot) && (await store.exists(id))) live.push(id)
      return live
    },
    stop: () => server.close(),
  })
}

let sites = 0

async function redisSite(): Promise<Site> {
  const redis = await sharedRedis()
  const look = lookAt(redis.url)
  const server = await listen(testApp({ store: look.store }).app)
  return siteOf([server.url], look.store, {
    liveIds: look.liveIds,
    async stop() {
      await server.close()
      await look.close()
      await redis.stop()
    },
  })
}

async function redisProcessesSite(count: number): Promise<Site> {
  const redis = await sharedRedis()
  const look = lookAt(redis.url)
  const programs = await startApps(count, redis.url, look.prefix)
  return siteOf(
    programs.map(({ url }) => url),
    look.store,
    {
      liveIds: look.liveIds,
      async stop() {
        await Promise.all(programs.map((program) => program.stop()))
        await look.close()
        await redis.stop()
      },
    },
  )
}

/** Nothing here is about deadlines, and the machine may be busy. */
const PATIENCE = JSON.stringify({ storeTimeout: '10s' })

/** So many processes with the test app. */
export function startApps(count: number, redisUrl: string, prefix: string): Promise<Program[]> {
  const start = (): Promise<Program> => startProgram('tests/support/app-process.ts', [redisUrl, prefix, PATIENCE])
  return Promise.all(Array.from({ length: count }, start))
}

/** ARGV: a pattern of keys. Tombstones hold their end in `x`. */
const COUNT_LIVE = `
local live = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do live = live + 1 - (redis.call('GETRANGE', key, 0, 0) == 'x' and 1 or 0) end
return live
`

/** The sessions on a Redis under a prefix of their own. */
export function lookAt(url: string): {
  readonly prefix: string
  readonly store: RedisSessionStore
  readonly redis: Redis
  liveIds(slot: string): Promise<string[]>
  /** How many of these sessions are not over, by one command: Redis runs nothing else meanwhile. */
  countAtOnce(slot: string): Promise<number>
  close(): Promise<void>
} {
  sites++
  const prefix = `site-${process.pid}-${sites}-${Date.now()}:`
  const store = new RedisSessionStore({ url, prefix })
  const redis = new Redis(url)
  return {
    prefix,
    store,
    redis,
    async liveIds(slot) {
      const keys: string[] = []
      for await (const found of redis.scanStream({ match: `${prefix}{${slot}}*`, count: 1000 })) {
        keys.push(...(found as string[]))
      }
      const ids = [...new Set(keys)].map((key) => key.slice(prefix.length).replace(/[{}]/g, ''))
      const records = await Promise.all(ids.map((id) => store.get(id)))
      return ids.filter((_id, index) => records[index]?.isExpired() === false)
    },
    async countAtOnce(slot) {
      return (await redis.eval(COUNT_LIVE, 0, `${prefix}{${slot}}*`)) as number
    },
    async close() {
      await store.close()
      redis.disconnect()
    },
  }
}

function siteOf(urls: readonly string[], store: SessionStore, rest: Pick<Site, 'liveIds' | 'stop'>): Site {
  const urlOf = (index: number): string => urls[index % urls.length] as string
  return {
    urls,
    store,
    ...rest,
    client: (index = 0, cookies = []) => new Client(urlOf(index), cookies),
    async arrived(index, gate) {
      await send(`${urlOf(index)}/gate/${gate}`)
    },
    async open(index, gate) {
      await send(`${urlOf(index)}/gate/${gate}`, { method: 'POST' })
    },
  }
}
