// What the ways over from express-session cost: CPU time of a request in this process, interleaved, as ratios. Run by
// `node bench/drop-in.mjs` after `npm run build`.
import { createRequire } from 'node:module'
import session from '../dist/esm/features/express-session/index.js'
import { session as core } from '../dist/esm/index.js'
import { connectStore } from '../dist/esm/stores/connect.js'
import { exchange } from './in-process.mjs'
import { median } from './statistics.mjs'

const expressSession = createRequire(import.meta.url)('express-session')
const secret = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
const ROUNDS = Number(process.env.ROUNDS ?? 15)
const REQUESTS = Number(process.env.REQUESTS ?? 1500)
const express = { secret, resave: false, saveUninitialized: false }

const WAYS = {
  core: () => core({ secret }),
  'drop-in': () => session(express),
  'core, connectStore(MemoryStore)': () => core({ secret, store: connectStore(new expressSession.MemoryStore()) }),
  'express-session, MemoryStore': () => expressSession(express),
  bare: () => (_req, _res, next) => next(),
}
const SIZES = { 0.2: 200, 20: 20_000 }
const WORK = {
  read: (req) => (req.session?.get ? req.session.get('user') : req.session?.user),
  write: (req) => {
    if (req.session) req.session.n = (req.session.n ?? 0) + 1
  },
}

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
    const ways = await Promise.all(
      Object.entries(WAYS).map(async ([name, make]) => [name, await prepared(make, bytes)]),
    )
    const found = Object.fromEntries(ways.map(([name]) => [name, []]))
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, way] of ways) found[name].push(await cpuUs(way, handler))
    }
    const bare = median(found.bare.slice(3))
    const added = Object.fromEntries(Object.entries(found).map(([name, us]) => [name, median(us.slice(3)) - bare]))
    const share = (ours, theirs) => (added[ours] / added[theirs]).toFixed(2)
    console.log(
      `${work}, ${size} KB: drop-in / core ${share('drop-in', 'core')}, ` +
        `connectStore(MemoryStore) / express-session ${share('core, connectStore(MemoryStore)', 'express-session, MemoryStore')}`,
      Object.fromEntries(Object.entries(added).map(([name, us]) => [name, Number(us.toFixed(1))])),
    )
  }
}
