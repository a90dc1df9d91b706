// The stores that a promise is tested on, for describe.each(STORES).

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createPool } from 'mysql2'
import { createPool as createPromisePool } from 'mysql2/promise'
import pg from 'pg'
import { MemorySessionStore, type SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { SqlSessionStore, sqlStore } from 'sojourn/sql'
import { sharedMariadb } from './mariadb.js'
import { sharedPostgres } from './postgres.js'
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

/** A busy machine is no fault of a store: none of its calls is given up while a test waits for it. */
const PATIENT = { cleanupInterval: 0, timeout: 20_000 }

/** A file of SQLite, through whichever client there is: each store has a connection of its own. */
export function sqliteKit(): StoreKit {
  let directory: string
  const made: SessionStore[] = []
  return {
    async start() {
      directory = mkdtempSync(join(tmpdir(), 'sojourn-sqlite-'))
    },
    create() {
      const store = sqlStore(`sqlite:${join(directory, 'sessions.db')}`, { ...PATIENT, durability: 'relaxed' })
      made.push(store)
      return store
    },
    async stop() {
      await Promise.all(made.map((store) => store.close()))
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** One database of PostgreSQL. */
export function postgresKit(): StoreKit {
  let postgres: Awaited<ReturnType<typeof sharedPostgres>>
  const pools: pg.Pool[] = []
  return {
    async start() {
      postgres = await sharedPostgres()
      // A pool for each of two processes: more of them would only take connections.
      for (let i = 0; i < 2; i++) pools.push(new pg.Pool({ connectionString: postgres.url }))
    },
    create() {
      const pool = pools.reverse()[0] as pg.Pool
      return new SqlSessionStore({ database: pool, prefix: `test_${process.pid}_`, ...PATIENT })
    },
    async stop() {
      await Promise.all(pools.map((pool) => pool.end()))
      await postgres.stop()
    },
  }
}

/** One database of MariaDB, through a pool that gives promises and one that takes callbacks. */
export function mariadbKit(): StoreKit {
  let mariadb: Awaited<ReturnType<typeof sharedMariadb>>
  const pools: { end(): unknown }[] = []
  return {
    async start() {
      mariadb = await sharedMariadb()
      pools.push(createPromisePool({ uri: mariadb.url }), createPool({ uri: mariadb.url }))
    },
    create() {
      const pool = pools.reverse()[0] as object
      return new SqlSessionStore({ database: pool, prefix: `test_${process.pid}_`, ...PATIENT })
    },
    async stop() {
      await Promise.all(pools.map((pool) => pool.end()))
      await mariadb.stop()
    },
  }
}
