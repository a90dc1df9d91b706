// Real stores that were written for express-session, each with what it stands on.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExpressStore } from 'sojourn/connect-store'
import { sharedMariadb } from './mariadb.js'
import { sharedPostgres } from './postgres.js'
import { sharedRedis } from './redis.js'

const require = createRequire(import.meta.url)

/** A store, and how to be done with it. */
export interface StartedStore {
  readonly store: ExpressStore
  stop(): Promise<void>
}

/** Which package a store comes from, what it keeps sessions in, and how one is made. */
export interface RealStore {
  readonly name: string
  readonly version: string
  readonly keptIn: string
  start(): Promise<StartedStore>
}

const nothing = async (): Promise<void> => {}

export const REAL_STORES: readonly RealStore[] = [
  {
    name: 'express-session MemoryStore',
    version: versionOf('express-session'),
    keptIn: 'memory',
    async start() {
      const { MemoryStore } = require('express-session')
      return { store: new MemoryStore(), stop: nothing }
    },
  },
  {
    name: 'memorystore',
    version: versionOf('memorystore'),
    keptIn: 'memory',
    async start() {
      const MemoryStore = require('memorystore')(require('express-session'))
      return { store: new MemoryStore(), stop: nothing }
    },
  },
  {
    name: 'session-memory-store',
    version: versionOf('session-memory-store'),
    keptIn: 'memory',
    async start() {
      const MemoryStore = require('session-memory-store')(require('express-session'))
      return { store: new MemoryStore({ expires: 86_400, checkperiod: 0 }), stop: nothing }
    },
  },
  {
    name: 'session-file-store',
    version: versionOf('session-file-store'),
    keptIn: 'files',
    async start() {
      const FileStore = require('session-file-store')(require('express-session'))
      const path = mkdtempSync(join(tmpdir(), 'sojourn-files-'))
      const store = new FileStore({ path, retries: 0, reapInterval: -1, logFn: () => {} })
      return { store, stop: async () => rmSync(path, { recursive: true, force: true }) }
    },
  },
  {
    name: 'connect-redis with node-redis',
    version: `${versionOf('connect-redis')}, ${versionOf('redis')}`,
    keptIn: 'Redis',
    async start() {
      const { RedisStore } = require('connect-redis')
      const { createClient } = require('redis')
      const redis = await sharedRedis()
      const client = await createClient({ url: redis.url }).connect()
      return {
        store: new RedisStore({ client, prefix: `test-${process.pid}-${Math.random()}:` }),
        async stop() {
          client.destroy()
          await redis.stop()
        },
      }
    },
  },
  {
    name: 'connect-pg-simple',
    version: versionOf('connect-pg-simple'),
    keptIn: 'PostgreSQL',
    async start() {
      const PgStore = require('connect-pg-simple')(require('express-session'))
      const { Pool } = require('pg')
      const postgres = await sharedPostgres()
      const pool = new Pool({ connectionString: postgres.url, max: 4 })
      const store = new PgStore({ pool, createTableIfMissing: true, pruneSessionInterval: false })
      return {
        store,
        async stop() {
          await store.close()
          await pool.end()
          await postgres.stop()
        },
      }
    },
  },
  {
    name: 'express-mysql-session with mysql2',
    version: `${versionOf('express-mysql-session')}, ${versionOf('mysql2')}`,
    keptIn: 'MariaDB',
    async start() {
      const MySqlStore = require('express-mysql-session')(require('express-session'))
      const { createPool } = require('mysql2/promise')
      const mariadb = await sharedMariadb()
      const pool = createPool({ uri: mariadb.url, connectionLimit: 4 })
      const schema = { tableName: `sessions_${process.pid}` }
      const store = new MySqlStore({ createDatabaseTable: true, clearExpired: false, schema }, pool)
      await store.onReady()
      return {
        store,
        async stop() {
          await pool.query(`DROP TABLE ${schema.tableName}`)
          await pool.end()
          await mariadb.stop()
        },
      }
    },
  },
]

function versionOf(name: string): string {
  const path = join(import.meta.dirname, '../../node_modules', name, 'package.json')
  return JSON.parse(readFileSync(path, 'utf8')).version
}
