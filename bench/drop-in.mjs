// What the ways over from express-session cost: CPU time of a request in this process, interleaved, as ratios, beside their
// goals. `node bench/drop-in.mjs` after `npm run build`.
import { createRequire } from 'node:module'
import { exchange } from './in-process.mjs'
import { startRedis } from './redis.mjs'
import { median } from './statistics.mjs'

// What is only done in development is not measured.
process.env.NODE_ENV = 'production'
const { default: session } = await import('../dist/esm/features/express-session/index.js')
const { MemorySessionStore, session: core } = await import('../dist/esm/index.js')
const { connectStore } = await import('../dist/esm/stores/connect.js')
const { RedisSessionStore } = await import('../dist/esm/stores/redis.js')
const expressSession = createRequire(import.meta.url)('express-session')
const secret = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
const ROUNDS = Number(process.env.ROUNDS ?? 20)
const REQUESTS = Number(process.env.REQUESTS ?? 1500)
const WARM_UP = 3
const express = { secret, resave: false, saveUninitialized: false }

const redis = await startRedis()
const memoryStore = () => new MemorySessionStore({ warnInProduction: false })
const redisStore = () => new RedisSessionStore({ url: redis.url, warnInProduction: false })
const ours = { secret, cookie: { secure: false }, storeTimeout: '10s' }
const dropIn = { ...express, storeTimeout: '10s' }
const WAYS = {
  'core, memory': () => core({ ...ours, store: memoryStore() }),
  'drop-in, memory': () => session({ ...dropIn, store: memoryStore() }),
  'core, Redis': () => core({ ...ours, store: redisStore() }),
  'drop-in, Redis': () => session({ ...dropIn, store: redisStore() }),
  'core, connectStore(MemoryStore)': () => core({ ...ours, store: connectStore(new expressSession.MemoryStore()) }),
  'express-session, MemoryStore': () => expressSession(express),
  bare: () => (_req, _res, next) => next(),
}
const SIZES = { 0.2: 200, 20: 20_000 }
const WORK = {
  read: (req) => req.session?.user,
  write: (req) => {
    if (req.session) req.session.n = (req.session.n ?? 0) + 1
  },
}
/** What is beside what, and how much of it may it cost: at each piece of work, or at those named. */
const GOALS = [
  { ours: 'drop-in, memory', theirs: 'core, memory', most: 1.15 },
  { ours: 'drop-in, Redis', theirs: 'core, Redis', most: 1.15 },
  {
    ours: 'core, connectStore(MemoryStore)',
    theirs: 'express-session, MemoryStore',
    only: { 'write, 0.2 KB': 0.6, 'read, 20 KB': 0.3 },
  },
]

const text = (bytes) => 'x'.repeat(bytes)

async function prepared(make, bytes) {
  const middleware = make()
  const seed = (req) => {
    if (!req.session) return
    req.session.user = { name: 'ann' }
    req.session.data = { text: text(bytes), list: Array.from({ length: 10 }, (_, n) => ({ n })) }
  }
  const cookie = await exchange(middleware, { handler: seed })
  return { middleware, cookie }
}

async function cpuUs({ middleware, cookie }, handler) {
  const before = process.cpuUsage()
  for (let n = 0; n < REQUESTS; n++) await exchange(middleware, { cookie, handler })
  const { user, system } = process.cpuUsage(before)
  return (user + system) / REQUESTS
}

for (const [size, bytes] of Object.entries(SIZES)) {
  for (const [work, handler] of Object.entries(WORK)) {
    const task = `${work}, ${size} KB`
    const ways = await Promise.all(
      Object.entries(WAYS).map(async ([name, make]) => [name, await prepared(make, bytes)]),
    )
    const found = Object.fromEntries(ways.map(([name]) => [name, []]))
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, way] of ways) found[name].push(await cpuUs(way, handler))
    }
    const added = (name) => median(found[name].slice(WARM_UP).map((us, round) => us - found.bare[round + WARM_UP]))
    console.log(task)
    for (const name of Object.keys(WAYS)) {
      if (name !== 'bare') console.log(`  ${name}: ${added(name).toFixed(1)} µs added`)
    }
    for (const { ours, theirs, most, only } of GOALS) {
      const bound = most ?? only[task]
      const share = added(ours) / added(theirs)
      const goal = bound === undefined ? '' : `, goal ≤ ${bound}: ${share <= bound ? 'met' : 'MISSED'}`
      console.log(`  ${ours} / ${theirs}: ${share.toFixed(2)}${goal}`)
    }
  }
}
await redis.stop()
process.exit()
