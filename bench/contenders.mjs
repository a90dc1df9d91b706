// The contenders: the same Express app around each, and nothing but the session differs.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { sessionData } from './data.mjs'
import { openClient, whereOf } from './sql-clients.mjs'

const SECRET = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
/** A cookie like ours, for those who have none: parsing the header costs the same. */
const DUMMY_COOKIE = `sid=${'x'.repeat(124)}`
const IDLE_SECONDS = 1_800

/**
 * @typedef {object} Contender
 * @property {Function} [middleware]
 * @property {object} [store] the store, to count its calls
 * @property {Handlers} handlers
 * @property {(count: number) => Promise<void>} [fill] puts so many more sessions of 0.2 KB in the store
 * @typedef {Record<'read' | 'write' | 'all' | 'seed', import('express').Handler>} Handlers
 * @typedef {{ redisUrl: string, packageDirectory: string, againstDirectory?: string, databases?: import('./sql-servers.mjs').Databases }} Setting
 */

/** By name, in the order of the tables. @type {Record<string, { label: string, kind: string, create: (setting: Setting) => Promise<Contender> }>} */
export const CONTENDERS = {
  bare: { label: 'bare Express', kind: 'bare', create: bare },
  // What our middleware does for Express besides the session, up to Node 22: see keepInDictionary() there.
  'bare-dictionary': { label: 'bare Express, objects kept as dictionaries', kind: 'bare', create: bareDictionary },
  'sojourn-memory': { label: 'Sojourn, memory', kind: 'memory', create: (setting) => sojournMemory(setting) },
  'drop-in-memory': { label: 'sojourn/express-session, memory', kind: 'memory', create: dropInMemory },
  'express-session': { label: 'express-session, MemoryStore', kind: 'memory', create: expressSessionMemory },
  memorystore: { label: 'express-session, memorystore', kind: 'memory', create: memorystore },
  'against-memory': {
    label: 'Sojourn before, memory',
    kind: 'memory',
    isAgainst: true,
    create: (setting) => sojournMemory({ ...setting, packageDirectory: setting.againstDirectory }),
  },
  'sojourn-redis': { label: 'Sojourn, Redis', kind: 'redis', create: (setting) => sojournRedis(setting) },
  'sojourn-near': {
    label: 'Sojourn, Redis with a near cache',
    kind: 'redis',
    create: (setting) => sojournRedis(setting, { nearCache: {} }),
  },
  'against-redis': {
    label: 'Sojourn before, Redis',
    kind: 'redis',
    isAgainst: true,
    create: (setting) => sojournRedis({ ...setting, packageDirectory: setting.againstDirectory }),
  },
  'drop-in-redis': { label: 'sojourn/express-session, Redis', kind: 'redis', create: dropInRedis },
  'connect-redis': { label: 'express-session, connect-redis', kind: 'redis', create: connectRedis },
  raw: { label: 'raw ioredis GET / GET+SET', kind: 'raw', create: raw },
  'cookie-session': { label: 'cookie-session', kind: 'cookie', create: cookieSession },
  // In databases.
  'sojourn-postgres': { label: 'Sojourn, PostgreSQL', kind: 'sql', create: (setting) => sojournSql(setting, 'pg') },
  'connect-pg-simple': { label: 'express-session, connect-pg-simple', kind: 'sql', create: connectPgSimple },
  'sojourn-mariadb': { label: 'Sojourn, MariaDB', kind: 'sql', create: (setting) => sojournSql(setting, 'mysql2') },
  'express-mysql-session': {
    label: 'express-session, express-mysql-session',
    kind: 'sql',
    create: expressMysqlSession,
  },
  'sojourn-sqlite': {
    label: 'Sojourn, SQLite',
    kind: 'sql',
    create: (setting) => sojournSql(setting, 'better-sqlite3'),
  },
  'better-sqlite3-session-store': {
    label: 'express-session, better-sqlite3-session-store',
    kind: 'sql',
    create: betterSqlite3SessionStore,
  },
  // For single parts.
  'connect-redis-max-age': {
    label: 'express-session, connect-redis, cookie with a maxAge',
    kind: 'extra',
    create: (setting) => connectRedis(setting, { maxAge: IDLE_SECONDS * 1000 }),
  },
  'sojourn-no-context': {
    label: 'Sojourn, memory, context: false',
    kind: 'extra',
    create: (setting) => sojournMemory(setting, { context: false }),
  },
  // What is switched on most, each by itself.
  'sojourn-activity': { label: 'activity log', kind: 'extra', create: (setting) => withActivity(setting, {}) },
  'sojourn-requests': {
    label: 'activity log, each request an activity',
    kind: 'extra',
    create: (setting) => withActivity(setting, { requests: true }),
  },
  'sojourn-metrics': { label: 'metrics', kind: 'extra', create: withMetrics },
  'sojourn-no-client': {
    label: 'clientContext: false',
    kind: 'extra',
    create: (setting) => sojournMemory(setting, { clientContext: false }),
  },
  'sojourn-renewing': {
    label: 'renewAfter',
    kind: 'extra',
    create: (setting) => sojournMemory(setting, { renewAfter: '1h' }),
  },
}

/** Those of the main table; with another commit of this project only when there is one to measure against. */
export function mainContenders({ isAgainst }) {
  return Object.keys(CONTENDERS).filter(
    (name) => !['extra', 'sql'].includes(CONTENDERS[name].kind) && (isAgainst || !CONTENDERS[name].isAgainst),
  )
}

/** Whether a contender can do a piece of work. */
export function takesPart(name, { work, size }) {
  if (CONTENDERS[name].kind === 'raw') return work === 'read' || work === 'write'
  // A cookie holds 4 KB.
  if (CONTENDERS[name].kind === 'cookie') return size === '0.2'
  return true
}

/** What every application does with `req.session`. @type {Handlers} */
const withSession = {
  read(req, res) {
    res.json({ views: req.session.views ?? 0 })
  },
  write(req, res) {
    req.session.views = (req.session.views ?? 0) + 1
    res.json({ views: req.session.views })
  },
  all(req, res) {
    let count = 0
    for (const name of Object.keys(req.session)) if (req.session[name] !== null) count++
    res.json({ views: count })
  },
  seed(req, res) {
    Object.assign(req.session, sessionData(req.query.size, Number(req.query.n)))
    res.json({})
  },
}

async function bare() {
  const answer = (_req, res) => res.json({ views: 1 })
  return { handlers: { read: answer, write: answer, all: answer, seed: seedWith(() => {}) } }
}

async function bareDictionary() {
  const keep = (object, property) => {
    Object.defineProperty(object, property, { enumerable: false })
    Object.defineProperty(object, property, { enumerable: true })
  }
  const middleware = (req, res, next) => {
    if (Number.parseInt(process.versions.v8, 10) <= 12) {
      keep(req, 'url')
      keep(res, 'req')
    }
    next()
  }
  return { ...(await bare()), middleware }
}

async function sojournMemory({ packageDirectory }, options = {}) {
  const { session, MemorySessionStore } = await load(packageDirectory)
  const store = new MemorySessionStore({ maxSessions: 2_000_000, warnInProduction: false })
  const { fill } = await import('./fill.mjs')
  return {
    middleware: session({ secret: SECRET, store, cookie: { secure: false }, ...options }),
    store,
    handlers: withSession,
    // Two sessions a user, as a computer and a phone make.
    fill: async (count) => fill(store, await load(packageDirectory), count, { perUser: 2 }),
  }
}

/** With a sink that takes the time of none. */
async function withActivity(setting, options) {
  const { ActivityLog, functionSink } = await load(setting.packageDirectory, './activity')
  const activity = new ActivityLog({ ...options, sinks: [functionSink(() => {})] })
  return sojournMemory(setting, { activity })
}

async function withMetrics(setting) {
  const { prometheusMetrics } = await load(setting.packageDirectory, './metrics')
  const contender = await sojournMemory(setting)
  // A development dependency of the package.
  const client = createRequire(join(setting.packageDirectory, 'package.json'))('prom-client')
  prometheusMetrics(contender.middleware, { client })
  return contender
}

async function sojournRedis({ packageDirectory, redisUrl }, options = {}) {
  const { session } = await load(packageDirectory)
  const { RedisSessionStore } = await load(packageDirectory, './redis')
  const store = new RedisSessionStore({ url: redisUrl, ...options })
  return {
    // The deadline is not what is measured, and a machine may be busy.
    middleware: session({ secret: SECRET, store, cookie: { secure: false }, storeTimeout: '10s' }),
    store,
    handlers: withSession,
  }
}

async function dropInMemory({ packageDirectory }) {
  const { MemorySessionStore } = await load(packageDirectory)
  return dropIn(packageDirectory, new MemorySessionStore({ maxSessions: 2_000_000, warnInProduction: false }))
}

async function dropInRedis({ packageDirectory, redisUrl }) {
  const { RedisSessionStore } = await load(packageDirectory, './redis')
  return dropIn(packageDirectory, new RedisSessionStore({ url: redisUrl }))
}

/** With the options that express-session has here. */
async function dropIn(packageDirectory, store) {
  const { default: session } = await load(packageDirectory, './express-session')
  const options = { secret: SECRET, resave: false, saveUninitialized: false, storeTimeout: '10s' }
  return { middleware: session({ ...options, store }), store, handlers: withSession }
}

async function expressSession(store, cookie = {}) {
  const { default: session } = await import('express-session')
  return {
    middleware: session({ secret: SECRET, resave: false, saveUninitialized: false, cookie, store: store(session) }),
    handlers: withSession,
  }
}

async function expressSessionMemory() {
  let store
  const contender = await expressSession((session) => {
    store = new session.MemoryStore()
    return store
  })
  return { ...contender, store }
}

async function memorystore() {
  const { default: create } = await import('memorystore')
  let store
  const contender = await expressSession((session) => {
    store = new (create(session))({ checkPeriod: 60_000 })
    return store
  })
  return { ...contender, store }
}

async function connectRedis({ redisUrl }, cookie) {
  const { RedisStore } = await import('connect-redis')
  const { createClient } = await import('redis')
  const client = await createClient({ url: redisUrl }).connect()
  const store = new RedisStore({ client, ttl: IDLE_SECONDS })
  return { ...(await expressSession(() => store, cookie)), store }
}

async function sojournSql({ packageDirectory, databases }, kind) {
  const { session } = await load(packageDirectory)
  const { SqlSessionStore } = await load(packageDirectory, './sql')
  const { database } = await openClient(kind, whereOf(kind, databases, `sojourn-${process.pid}`))
  const store = new SqlSessionStore({ database, prepare: true, cleanupInterval: 0, timeout: 10_000 })
  await store.migrate()
  return {
    middleware: session({ secret: SECRET, store, cookie: { secure: false }, storeTimeout: '10s' }),
    store,
    handlers: withSession,
  }
}

async function connectPgSimple({ databases }) {
  const { default: create } = await import('connect-pg-simple')
  const { database: pool } = await openClient('pg', databases.postgres)
  return expressSession(
    (session) => new (create(session))({ pool, createTableIfMissing: true, pruneSessionInterval: false }),
  )
}

async function expressMysqlSession({ databases }) {
  const { default: create } = await import('express-mysql-session')
  const { database: pool } = await openClient('mysql2', databases.mariadb)
  let store
  const contender = await expressSession((session) => {
    store = new (create(session))({ clearExpired: false }, pool)
    return store
  })
  await store.onReady()
  return contender
}

async function betterSqlite3SessionStore({ databases }) {
  const { default: create } = await import('better-sqlite3-session-store')
  const where = whereOf('better-sqlite3', databases, `peer-${process.pid}`)
  const { database: client } = await openClient('better-sqlite3', where)
  return expressSession((session) => new (create(session))({ client, expired: { clear: false } }))
}

async function cookieSession() {
  const { default: session } = await import('cookie-session')
  return { middleware: session({ keys: [SECRET], maxAge: IDLE_SECONDS * 1000 }), handlers: withSession }
}

/** The physical limit: what any session in Redis has to do, and nothing else. The cookie header is the key. */
async function raw({ redisUrl }) {
  const { Redis } = await import('ioredis')
  const redis = new Redis(redisUrl)
  return {
    handlers: {
      async read(req, res) {
        await redis.get(req.headers.cookie)
        res.json({ views: 1 })
      },
      async write(req, res) {
        await redis.set(req.headers.cookie, await redis.get(req.headers.cookie))
        res.json({ views: 1 })
      },
      all: (_req, res) => res.json({ views: 1 }),
      seed: seedWith((cookie, data) => redis.set(cookie, JSON.stringify(data), 'EX', IDLE_SECONDS)),
    },
  }
}

function seedWith(keep) {
  return async (req, res) => {
    const unique = randomBytes(16).toString('hex')
    const cookie = `${DUMMY_COOKIE.slice(0, -unique.length)}${unique}`
    await keep(cookie, sessionData(req.query.size, Number(req.query.n)))
    res.append('Set-Cookie', cookie)
    res.json({})
  }
}

/** An entry point of a built package, wherever that commit keeps the file. */
export function load(packageDirectory, entry = '.') {
  const { exports } = JSON.parse(readFileSync(join(packageDirectory, 'package.json'), 'utf8'))
  const { default: file } = exports[entry].import
  return import(pathToFileURL(join(packageDirectory, file)).href)
}
