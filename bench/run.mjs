// The benchmarks, all of them or some. `node run.mjs --help` says how.
import { execFileSync, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildCommit, nodeBinaries, removeBuilds } from './builds.mjs'
import { CONTENDERS, mainContenders, takesPart } from './contenders.mjs'
import { copyInRedis } from './fill.mjs'
import { checkGoals, FEATURES } from './goals.mjs'
import { findLoad, outputOf } from './load.mjs'
import { compare, endServers, measure, Server, warmUp } from './measure.mjs'
import { profile } from './profile.mjs'
import { startRedis } from './redis.mjs'
import { report } from './report.mjs'
import { PEERS } from './sql-report.mjs'
import { startDatabases } from './sql-servers.mjs'
import { countTrips } from './trips.mjs'

const HELP = `Measures what a session costs, beside bare Express and the peers. Needs redis-server, for the part sql PostgreSQL and
MariaDB; wrk makes steadier load.

npm run bench -- [options]       (needs a built package: npm run bench builds it)

Everything runs on each version of Node, one after another, and the goals met and missed are told for each.

  --quick              a first look in about a minute, with more noise
  --only a,b           parts: matrix, trips, micro, protection, space, growth, users, context, features, live, cache, sql, sql-purge (default: all)
  --profile            nothing but where the µs of a request go, for each contender, by file and by function
  --contenders a,b     of the matrix and of profiles: ${Object.keys(CONTENDERS).join(', ')}
  --tasks a,b          of the matrix and of profiles, as work:KB: ${'none:0.2, read:20, write:200, all:20'} …
  --processes n        how often every contender is started afresh           (default: 3)
  --rounds n           slices of each contender in each process              (default: 3)
  --slice ms           length of a slice                                     (default: 350)
  --nodes a,b          versions of Node, or paths of binaries          (default: 20,24,26)
  --against ref        another commit of this project as contenders: its own build, in a temporary folder
  --load wrk|autocannon
  --package directory  the built package to measure                          (default: the one around bench/)
  --out file           write the report there as well;  --json file: the numbers
`

const { values: flags } = parseArgs({
  options: {
    help: { type: 'boolean' },
    quick: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    only: { type: 'string' },
    contenders: { type: 'string' },
    tasks: { type: 'string' },
    processes: { type: 'string' },
    rounds: { type: 'string' },
    slice: { type: 'string' },
    nodes: { type: 'string', default: '20,24,26' },
    against: { type: 'string' },
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
  processes: Number(flags.processes ?? (quick ? 2 : 3)),
  rounds: Number(flags.rounds ?? (quick ? 2 : 3)),
  sliceMs: Number(flags.slice ?? (quick ? 150 : 350)),
  warmUpRequests: quick ? 5_000 : 20_000,
  tool: load.tool,
}
const SESSIONS = 64
const CACHES = ['lru-cache', 'keyv', 'cacheable', 'cache-manager', 'undici', 'make-fetch-happen']
const TASKS = ['none:0.2', 'read:0.2', 'write:0.2', 'read:20', 'write:20', 'all:20', 'read:200', 'write:200']
const QUICK_TASKS = ['none:0.2', 'read:0.2', 'write:0.2', 'read:20', 'read:200']
const PROFILED = ['bare', 'sojourn-memory', 'express-session', 'sojourn-redis', 'connect-redis', 'raw']
const PROFILED_TASKS = ['read:0.2', 'write:0.2']
const PROFILE_MS = quick ? 1_000 : 3_000
const PARTS = {
  matrix,
  trips,
  micro,
  protection,
  space,
  growth,
  users,
  context,
  features,
  live,
  cache,
  sql,
  'sql-purge': sqlPurge,
}

const started = Date.now()
if (flags.profile) PARTS.profiles = profiles
const parts = flags.profile ? ['profiles'] : (flags.only?.split(',') ?? Object.keys(PARTS))
for (const part of parts) if (!PARTS[part]) throw new Error(`There is no part "${part}". See --help.`)
/** The binary that the servers and scripts run on now. */
let execPath
let againstDirectory
const redis = await startRedis()
const runs = []
try {
  const binaries = nodeBinaries(flags.nodes.split(','))
  if (flags.against) againstDirectory = buildCommit(flags.against)
  for (const binary of binaries) {
    execPath = binary
    runs.push(await runOn(execFileSync(binary, ['--version'], { encoding: 'utf8' }).trim().slice(1)))
  }
} finally {
  await redis.stop()
  removeBuilds()
}
const text = runs.map((results) => report(results, checkGoals(results))).join('\n')
console.log(text)
if (flags.out) writeFileSync(flags.out, text)
if (flags.json) writeFileSync(flags.json, JSON.stringify(runs))

async function runOn(version) {
  const begun = Date.now()
  const results = { node: version }
  for (const part of parts) {
    try {
      results[part] = await PARTS[part]()
      say(`Node ${version}, ${part}: done after ${secondsSince(started)} s`)
    } catch (error) {
      // What the other parts found is still worth its minutes.
      process.exitCode = 1
      console.error(`Node ${version}, ${part}: failed`, error)
      endServers()
    }
  }
  results.environment = await environment(version, secondsSince(begun))
  return results
}

/** Every contender at every piece of work, each in several processes: one process can be lucky for all of its life. */
async function matrix() {
  const names = flags.contenders?.split(',') ?? mainContenders({ isAgainst: flags.against !== undefined })
  const tasks = tasksOf(quick ? QUICK_TASKS : TASKS)
  const measured = []
  // In processes of their own: what a process did with large sessions shows in what small ones cost it later.
  for (const size of new Set(tasks.map((task) => task.size))) {
    const ofSize = tasks.filter((task) => task.size === size)
    const taking = names.filter((name) => ofSize.some((task) => takesPart(name, task)))
    measured.push(
      ...(await inGenerations({
        what: `matrix, ${size} KB`,
        tasks: ofSize,
        start: () => startAll(taking, [size]),
        takesPart: (server, task) => takesPart(server.name, task),
      })),
    )
  }
  return measured
}

/** Those of the command line, or these. */
function tasksOf(usual) {
  return (flags.tasks?.split(',') ?? usual).map((text) => {
    const [work, size = '0.2'] = text.split(':')
    return { work, size }
  })
}

/** Where the processor time of each contender goes. */
async function profiles() {
  const against = flags.against === undefined ? [] : ['against-memory', 'against-redis']
  const names = flags.contenders?.split(',') ?? [...PROFILED, ...against]
  const profiled = []
  for (const task of tasksOf(PROFILED_TASKS)) {
    const taking = (names.includes('bare') ? names : ['bare', ...names]).filter((name) => takesPart(name, task))
    const servers = await startAll(taking, [task.size])
    try {
      await warmUp(servers, pace)
      profiled.push({ ...task, profiles: await profile(servers, task, { tool: pace.tool, ms: PROFILE_MS }) })
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
    }
  }
  return profiled
}

/** Measures the tasks, and starts the servers afresh in between. */
async function inGenerations({ what, tasks, start, takesPart = () => true, processes = pace.processes }) {
  const measured = tasks.map((task) => ({ ...task, samples: {} }))
  for (let process = 1; process <= processes; process++) {
    say(`${what}: process ${process} of ${processes}`)
    const servers = await start()
    try {
      await warmUp(servers, pace)
      for (const task of measured) {
        const taking = servers.filter((server) => takesPart(server, task))
        for (const [name, samples] of Object.entries(await measure(taking, task, { ...pace, redis }))) {
          task.samples[name] ??= []
          task.samples[name].push(...samples)
        }
      }
    } finally {
      await Promise.all(servers.map((server) => server.stop()))
    }
  }
  return measured.map((task) => ({ ...task, rows: compare(task.samples) }))
}

async function trips() {
  const counted = {}
  for (const name of flags.contenders?.split(',') ?? mainContenders({ isAgainst: flags.against !== undefined })) {
    if (CONTENDERS[name].kind !== 'bare') counted[name] = await countTrips(name, { redis, setting: setting() })
  }
  return counted
}

async function micro() {
  return JSON.parse(await node('micro.mjs', [packageDirectory, quick ? 50 : 400]))
}

async function protection() {
  return JSON.parse(await node('protection.mjs', [packageDirectory, quick ? 200 : 1_500]))
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
    const server = await Server.start(name, setting(own.url))
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
  const tasks = ['read', 'write'].map((work) => ({ work, size: '0.2' }))
  const start = async () => {
    const name = `sojourn-${kind}`
    const bare = await Server.start('bare', setting())
    const small = await Server.start(name, setting(), 'small')
    const large = await Server.start(name, setting(crowded.url), 'large')
    await Promise.all([bare.seed('0.2', few), small.seed('0.2', few)])
    // The sessions in use lie scattered among the others.
    const CHUNKS = 20
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      await large.seed('0.2', few / CHUNKS)
      if (kind === 'memory') await large.fill((many - few) / CHUNKS)
      else if ((await crowded.client.dbsize()) < many) await fillRedis(crowded.client, (many - few) / CHUNKS)
    }
    return [bare, small, large]
  }
  try {
    const measured = await inGenerations({
      what: `growth, ${kind}`,
      tasks,
      start,
      // Filling the store takes most of the time.
      processes: Math.min(2, pace.processes),
    })
    return measured.map(({ work, rows }) => ({
      kind,
      work,
      bareUs: rows.bare.cpuUs,
      small: { count: few, ...rows.small },
      large: { count: many, ...rows.large },
    }))
  } finally {
    if (crowded !== redis) await crowded.stop()
  }
}

/** What the sessions of one user cost among few and among many others. */
async function users() {
  const counts = [1_000, quick ? 20_000 : 1_000_000]
  const measured = []
  for (const kind of ['memory', 'redis']) {
    for (const count of counts) {
      say(`users: ${kind}, ${count}`)
      const own = kind === 'redis' ? await startRedis() : null
      try {
        const medians = JSON.parse(await node('users.mjs', [packageDirectory, kind, count, own?.url ?? '']))
        measured.push({ kind, count, medians })
      } finally {
        await own?.stop()
      }
    }
  }
  return measured
}

async function fillRedis(client, count) {
  await copyInRedis(client, await client.randomkey(), count)
}

/** The price of `getSession()` without a request: Node carries the context, and each version does it in its own way. */
function context() {
  return inGenerations({
    what: 'context',
    tasks: ['read', 'write'].map((work) => ({ work, size: '0.2' })),
    start: () => startAll(['bare', 'sojourn-memory', 'sojourn-no-context'], ['0.2']),
  })
}

/** The price of what is switched on most, each beside the same server without it. */
function features() {
  const names = Object.keys(CONTENDERS).filter((name) => FEATURES.includes(name))
  return inGenerations({
    what: 'features',
    tasks: ['read', 'write'].map((work) => ({ work, size: '0.2' })),
    start: () => startAll(['bare', 'sojourn-memory', ...names], ['0.2']),
  })
}

/** How soon endings are heard elsewhere, and how soon sockets are closed. */
async function live() {
  const own = await startRedis()
  const [sockets, endings] = quick ? [1_000, 200] : [10_000, 1_000]
  try {
    return JSON.parse(await node('live.mjs', [packageDirectory, own.url, sockets, endings]))
  } finally {
    await own.stop()
  }
}

/** The caches of `sojourn/cache`, beside others. */
async function cache() {
  const own = await startRedis()
  try {
    return JSON.parse(await node('cache.mjs', [packageDirectory, quick ? 'quick' : 'full', own.url]))
  } finally {
    await own.stop()
  }
}

/** The SQL store beside raw statements, and requests on it beside the stores for express-session on the same databases. */
async function sql() {
  const own = await startDatabases()
  try {
    const databases = JSON.stringify(own.databases)
    const inProcess = JSON.parse(await node('sql.mjs', [packageDirectory, quick ? 'quick' : 'full', databases]))
    say(`sql: in process, done after ${secondsSince(started)} s`)
    // What is compiled for one version of Node is not there on the others.
    const names = Object.entries(PEERS)
      .flat()
      .filter((name) => inProcess.clients['better-sqlite3'] || !name.includes('sqlite'))
    const requests = []
    for (const size of ['0.2', '20']) {
      const measured = await inGenerations({
        what: `sql, ${size} KB`,
        tasks: ['read', 'write'].map((work) => ({ work, size })),
        start: () => startAll(['bare', ...names], [size], { ...setting(), databases: own.databases }),
      })
      requests.push(...measured)
    }
    return { inProcess, requests, users: await usersOfSql(own.databases) }
  } finally {
    await own.stop()
  }
}

/** Whether the SQL store is in anybody's way: writers of one file, clean-ups, and what touches make of a table. */
async function sqlPurge() {
  const own = await startDatabases()
  try {
    const databases = JSON.stringify(own.databases)
    return JSON.parse(await node('sql-purge.mjs', [packageDirectory, quick ? 'quick' : 'full', databases]))
  } finally {
    await own.stop()
  }
}

/** What the sessions of one user cost in databases. */
async function usersOfSql(databases) {
  const measured = []
  for (const kind of ['pg', 'mysql2', 'better-sqlite3']) {
    for (const count of [1_000, quick ? 20_000 : 1_000_000]) {
      say(`users: ${kind}, ${count}`)
      const medians = JSON.parse(await node('users.mjs', [packageDirectory, kind, count, JSON.stringify(databases)]))
      measured.push({ kind, count, medians })
    }
  }
  return measured
}

/** What a server is started with. */
function setting(redisUrl = redis.url) {
  return { redisUrl, packageDirectory, againstDirectory, execPath }
}

async function startAll(names, sizes, ofServers = setting()) {
  const servers = await Promise.all(names.map((name) => Server.start(name, ofServers)))
  for (const server of servers) {
    for (const size of sizes) if (takesPart(server.name, { work: 'read', size })) await server.seed(size, SESSIONS)
  }
  return servers
}

function node(file, args, ...nodeArgs) {
  const script = fileURLToPath(new URL(file, import.meta.url))
  const all = ['--max-old-space-size=8192', ...nodeArgs, script, ...args.map(String)]
  return outputOf(spawn(execPath, all, { env: { ...process.env, NODE_ENV: 'production' } }))
}

async function environment(node, seconds) {
  const peers = [
    'express',
    'express-session',
    'memorystore',
    'connect-redis',
    'redis',
    'cookie-session',
    'ioredis',
    ...CACHES,
  ]
  const versions = { sojourn: versionIn(`${packageDirectory}/package.json`) }
  for (const name of peers) {
    versions[name] = versionIn(fileURLToPath(new URL(`node_modules/${name}/package.json`, import.meta.url)))
  }
  return {
    command: ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' '),
    date: new Date().toISOString().slice(0, 10),
    seconds,
    against: flags.against,
    cpu: cpus()[0]?.model ?? 'unknown CPU',
    cores: cpus().length,
    node,
    versions,
    load: load.version,
    redis: /redis_version:(\S+)/.exec(await redis.client.info('server'))[1],
    rounds: pace.rounds,
    processes: pace.processes,
    sliceMs: pace.sliceMs,
    warmUpRequests: pace.warmUpRequests,
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
