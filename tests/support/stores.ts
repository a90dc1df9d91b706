// The stores that a promise is tested on, for describe.each(STORES).
import { MemorySessionStore, type SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { sharedRedis } from './redis.js'

/** Starts what a store needs and makes stores on it. */
export interface StoreKit {
  start(): Promise<void>
  /** A new store, on the same data as the others of this kit where the kind allows it. */
  create(): SessionStore
  stop(): Promise<void>
}

export const STORES: readonly (readonly [name: string, kit: () => StoreKit])[] = [
  ['memory', memoryKit],
  ['Redis', redisKit],
]

export function memoryKit(): StoreKit {
  return {
    start: async () => {},
    create: () => new MemorySessionStore({ cleanupInterval: 0 }),
    stop: async () => {},
  }
}

export function redisKit(): StoreKit {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  const made: SessionStore[] = []
  return {
    async start() {
      redis = await sharedRedis()
    },
    create() {
      const store = new RedisSessionStore({ url: redis.url, prefix: `test-${process.pid}:` })
      made.push(store)
      return store
    },
    async stop() {
      await Promise.all(made.map((store) => store.close()))
      await redis.stop()
    },
  }
}
