// The two servers of the trials: the same handlers behind two session middlewares, each with the store that its
// documentation names first for its place. With a redis-server both use that one, else both use memory.
import { createRequire } from 'node:module'
import { setTimeout as delay } from 'node:timers/promises'
import { type RequestHandler, Router } from 'express'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { MemorySessionStore, session } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { tellError, trialRoutes } from './trial.js'

/** The store of both sides answers so late: a database that has more to do. */
export const READ_MS = 20
export const WRITE_MS = 100

export interface Side {
  routes: Router
  close(): Promise<void>
}

export async function sojournSide({ secret, path, socket }: SideOptions): Promise<Side> {
  const redis = socket === undefined ? undefined : new Redis(socket).on('error', ignore)
  const store = redis ? new RedisSessionStore({ client: redis }) : new MemorySessionStore()
  const sessions = session({
    secret,
    store: slow(store, ['get'], ['create', 'update', 'touch', 'regenerate', 'end']),
    cookie: { name: 'trial', path },
  })
  return {
    routes: Router().use(sessions, trialRoutes(), tellError),
    async close() {
      await sessions.manager.close()
      redis?.disconnect()
    },
  }
}

export async function expressSessionSide({ secret, path, socket }: SideOptions): Promise<Side> {
  const redis = socket === undefined ? undefined : createClient({ url: `unix://${socket}` }).on('error', ignore)
  await redis?.connect()
  const store = redis ? new RedisStore({ client: redis }) : new expressSession.MemoryStore()
  const sessions = expressSession({
    secret,
    store: slow(store, ['get'], ['set', 'touch', 'destroy']),
    // As its documentation advises.
    resave: false,
    saveUninitialized: false,
    cookie: { path, sameSite: 'lax' },
  })
  return {
    routes: Router().use(sessions, trialRoutes(), tellError),
    async close() {
      redis?.destroy()
    },
  }
}

interface SideOptions {
  secret: string
  /** Where the side is mounted: its cookie goes there and nowhere else. */
  path: string
  /** The socket of a redis-server; `undefined`: memory. */
  socket: string | undefined
}

/** The same store, whose reads and writes come so much later. */
function slow<Store extends object>(store: Store, reads: readonly string[], writes: readonly string[]): Store {
  const calls = store as Record<string, (...args: unknown[]) => unknown>
  for (const name of [...reads, ...writes]) {
    const call = calls[name]?.bind(store)
    calls[name] = async (...args) => {
      await delay(reads.includes(name) ? READ_MS : WRITE_MS)
      return call?.(...args)
    }
  }
  return store
}

/** A call that fails says so itself. */
function ignore(): void {}

// express-session without its types: they give `req.session` a type of their own, and a program has one.
const load = createRequire(import.meta.url)
const expressSession = load('express-session') as {
  (options: object): RequestHandler
  MemoryStore: new () => object
}
const { RedisStore } = load('connect-redis') as { RedisStore: new (options: object) => object }
