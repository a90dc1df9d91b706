// The benchmarks, all of them or some. `node run.mjs --help` says how.
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CONTENDERS, MAIN, takesPart } from './contenders.mjs'
import { copyInRedis } from './fill.mjs'
import { checkGoals } from './goals.mjs'
import { findLoad, outputOf } from './load.mjs'
import { compare, measure, Server, warmUp } from './measure.mjs'
import { startRedis } from './redis.mjs'
import { report } from './report.mjs'
import { countTrips } from './trips.mjs'

const HELP = `Measures what a session costs, beside bare Express and the peers. Needs redis-server; wrk makes steadier load.

npm run bench -- [options]       (needs a built package: npm run bench builds it)

  --quick              a first look in about a minute, with more noise
  --only a,b           parts: matrix, trips, micro, space, growth, context   (default: all)
  --contenders a,b     of the matrix: ${Object.keys(CONTENDERS).join(', ')}
  --tasks a,b          of the matrix, as work:KB: ${'none:0.2, read:20, write:200, all:20'} …
  --rounds n           slices of each contender                              (default: 5)
  --slice ms           length of a slice                                     (default: 800)
  --load wrk|autocannon
  --package directory  the built package to measure                          (default: the one around bench/)
  --out file           write the report there as well;  --json file: the numbers
`

const { values: flags } = parseArgs({
  options: {
    help: { type: 'boolean' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    contenders: { type: 'string' },
    tasks: { type: 'string' },
    rounds: { type: 'string' },
    slice: { type: 'string' },
    load: { type: 'string' },
    package: { type: 'string', default: fileURLToPath(new URL('..', import.meta.url)) },
    out: { type: 'string' },
    json: { type: 'string' },
  },
})
if (flags.help) {
  console.log(HELP)
  process.exit(0)
}

const { quick } = flags
const packageDirectory = flags.package
const load = findLoad(flags.load)
const pace = {
  rounds: Number(flags.rounds ?? (quick ? 3 : 5)),
  sliceMs: Number(flags.slice ?? (quick ? 200 : 800)),
  warmUpMs: quick ? 200 : 600,
  tool: load.tool,
}
const SESSIONS = 64
const TASKS = ['none:0.2', 'read:0.2', 'write:0.2', 'read:20', 'write:20', 'all:20', 'read:200', 'write:200']
const QUICK_TASKS = ['none:0.2', 'read:0.2', 'write:0.2', 'read:20', 'read:200']
const PARTS = { matrix, trips, micro, space, growth, context }

const started = Date.now()
const redis = await startRedis()
const results = {}
try {
  for (const part of flags.only?.split(',') ?? Object.keys(PARTS)) {
    if (!PARTS[part]) throw new Error(`There is no part "${part}". See --help.`)
    results[part] = await PARTS[part]()
    say(`${part}: done after ${secondsSince(started)} s`)
  }
  results.environment = await environment()
} finally {
  await redis.stop()
}
const text = report(results, checkGoals(results))
console.log(text)
if (flags.out) writeFileSync(flags.out, text)
if (flags.json) writeFileSync(flags.json, JSON.stringify(results))

/** Every contender at every piece of work. */
async function matrix() {
  const names = flags.contenders?.split(',') ?? MAIN
  const tasks = (flags.tasks?.split(',') ?? (quick ? QUICK_TASKS : TASKS)).map((text) => {
    const [work, size = '0.2'] = text.split(':')
    return { work, size }
  })
  const servers = await startAll(names)
  try {
    for (const size of new Set(tasks.map((task) => task.size))) {
      for (const server of servers)
        if (takesPart(server.name, { work: 'read', size })) await server.seed(size, SESSIONS)
    }
    await warmUp(servers, pace)
    const measured = []
    for (const task of tasks) {
      say(`matrix: ${task.work}, ${task.size} KB`)
      const samples = await measure(
        servers.filter(({ name }) => takesPart(name, task)),
        task,
        { ...pace, redis },
      )
      measured.push({ ...task, samples, rows: compare(samples) })
    }
    return measured
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
  }
}

async function trips() {
  const counted = {}
  for (const name of flags.contenders?.split(',') ?? MAIN) {
    if (name !== 'bare') counted[name] = await countTrips(name, { redis, packageDirectory })
  }
  return counted
}

async function micro() {
  return JSON.parse(await node('micro.mjs', [packageDirectory, quick ? 50 : 400]))
}

async function space() {
  const count = quick ? 10_000 : 100_000
  const expired = quick ? 200_000 : 1_000_000
  const heapOf = async (who) => Number(await node('heap.mjs', [who, packageDirectory, count], '--expose-gc'))
  const sizes = ['0.2', '2']
  return {
    redis: await Promise.all(sizes.map((size) => bytesInRedis(size, quick ? 100 : 1_000))),
    heap: { count, ours: await heapOf('sojourn'), theirs: await heapOf('express-session') },
    sweep: JSON.parse(await node('sweep.mjs', [packageDirectory, expired], '--expose-gc')),
  }
}

/** `MEMORY USAGE` a session: the mean of so many sessions of each contender. */
async function bytesInRedis(size, count) {
  const bytes = {}
  for (const name of ['sojourn-redis', 'connect-redis', 'connect-redis-max-age']) {
    const own = await startRedis()
    const server = await Server.start(name, { redisUrl: own.url, packageDirectory })
    try {
      await server.seed(size, count)
      const keys = await own.client.keys('*')
      if (keys.length !== count) throw new Error(`${name} keeps ${count} sessions under ${keys.length} keys.`)
      const used = await Promise.all(keys.map((key) => own.client.memory('USAGE', key, 'SAMPLES', 0)))
      bytes[name] = Math.round(used.reduce((sum, each) => sum + each, 0) / count)
    } finally {
      await server.stop()
      await own.stop()
    }
  }
  return {
    size,
    ours: bytes['sojourn-redis'],
    theirs: bytes['connect-redis'],
    theirsWithMaxAge: bytes['connect-redis-max-age'],
  }
}

/** The cost of a request with few and with many sessions in the store. */
async function growth() {
  const many = quick ? 20_000 : 1_000_000
  return [...(await growthOf('memory', many)), ...(await growthOf('redis', many))]
}

async function growthOf(kind, many) {
  const few = 1_000
  const crowded = kind === 'redis' ? await startRedis() : redis
  const name = `sojourn-${kind}`
  const bare = await Server.start('bare', { packageDirectory })
  const small = await Server.start(name, { redisUrl: redis.url, packageDirectory })
  const large = await Server.start(name, { redisUrl: crowded.url, packageDirectory })
  small.name = 'small'
  large.name = 'large'
  const servers = [bare, small, large]
  try {
    await bare.seed('0.2', few)
    await small.seed('0.2', few)
    // The sessions in use lie scattered among the others.
    const CHUNKS = 20
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      await large.seed('0.2', few / CHUNKS)
      const count = (many - few) / CHUNKS
      if (kind === 'memory') await large.fill(count)
      else await copyInRedis(crowded.client, (await crowded.client.randomkey()) ?? '', count)
    }
    await warmUp(servers, pace)
    const found = []
    for (const work of ['read', 'write']) {
      say(`growth: ${kind}, ${work}`)
      const rows = compare(await measure(servers, { work, size: '0.2' }, pace))
      found.push({
        kind,
        work,
        bareUs: rows.bare.cpuUs,
        small: { count: few, ...rows.small },
        large: { count: many, ...rows.large },
      })
    }
    return found
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
    if (crowded !== redis) await crowded.stop()
  }
}

/** The price of `getSession()` without a request. */
async function context() {
  const servers = await startAll(['bare', 'sojourn-memory', 'sojourn-no-context'])
  try {
    for (const server of servers) await server.seed('0.2', SESSIONS)
    await warmUp(servers, pace)
    const found = []
    for (const work of ['read', 'write']) {
      say(`context: ${work}`)
      found.push({ work, rows: compare(await measure(servers, { work, size: '0.2' }, pace)) })
    }
    return found
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
  }
}

function startAll(names) {
  return Promise.all(names.map((name) => Server.start(name, { redisUrl: redis.url, packageDirectory })))
}

function node(file, args, ...nodeArgs) {
  const script = fileURLToPath(new URL(file, import.meta.url))
  const all = ['--max-old-space-size=8192', ...nodeArgs, script, ...args.map(String)]
  return outputOf(spawn(process.execPath, all, { env: { ...process.env, NODE_ENV: 'production' } }))
}

async function environment() {
  const peers = ['express', 'express-session', 'memorystore', 'connect-redis', 'redis', 'cookie-session', 'ioredis']
  const versions = { sojourn: versionIn(`${packageDirectory}/package.json`) }
  for (const name of peers) {
    versions[name] = versionIn(fileURLToPath(new URL(`node_modules/${name}/package.json`, import.meta.url)))
  }
  return {
    command: ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' '),
    date: new Date().toISOString().slice(0, 10),
    seconds: secondsSince(started),
    cpu: cpus()[0]?.model ?? 'unknown CPU',
    cores: cpus().length,
    node: process.version.slice(1),
    versions,
    load: load.version,
    redis: /redis_version:(\S+)/.exec(await redis.client.info('server'))[1],
    rounds: pace.rounds,
    sliceMs: pace.sliceMs,
  }
}

function versionIn(file) {
  return JSON.parse(readFileSync(file, 'utf8')).version
}

function secondsSince(time) {
  return Math.round((Date.now() - time) / 1000)
}

function say(progress) {
  console.error(progress)
}
