// The results as Markdown.
import { cacheReport } from './cache-report.mjs'
import { CONTENDERS } from './contenders.mjs'
import { liveReport } from './live-report.mjs'
import { aboveBare } from './profile.mjs'
import { purgeReport, sqlReport } from './sql-report.mjs'

/** @param {object} results what run.mjs collected @param {object[]} goals from checkGoals() */
export function report(results, goals) {
  const parts = [`# Node ${results.node}`, environment(results.environment)]
  if (results.matrix)
    parts.push('## Cost of a request', METHOD, ...results.matrix.map((task) => costs(task, results.trips)))
  if (results.profiles) parts.push('## Where the time goes', PROFILES, ...results.profiles.map(profilesOf))
  if (results.context) parts.push('## Cost of `context`', contextTable(results.context))
  if (results.features) parts.push('## What is switched on', ...results.features.map(featureTable))
  if (results.micro) parts.push('## Requests in process, without HTTP', microTable(results.micro))
  if (results.protection) parts.push('## Protection', protectionTable(results.protection))
  if (results.space) parts.push('## Space', spaceTable(results.space))
  if (results.growth) parts.push('## Growth', growthTable(results.growth))
  if (results.users) parts.push('## The sessions of one user, among many', usersTable(results.users))
  if (results.live) parts.push('## Endings that are heard elsewhere', liveReport(results.live, table))
  if (results.cache) parts.push('## Caches', cacheReport(results.cache, table))
  if (results.sql) parts.push('## SQL', sqlReport(results.sql, table), usersTable(results.sql.users))
  if (results['sql-purge']) parts.push("## SQL, in nobody's way", purgeReport(results['sql-purge'], table))
  if (goals.length > 0) parts.push('## Goals', goalTable(goals))
  return `${parts.join('\n\n')}\n`
}

const METHOD = `Added CPU is per request, over bare Express, from the server's own \`process.cpuUsage()\`: the median of the
differences within one round, and in brackets the middle half of the rounds. Throughput and p99 latency are ratios to bare
Express. Redis CPU is that of redis-server. Read and write touch one small field; a larger session holds its bulk in five
other fields (40, 30, 15, 10 and 5 %), the same for everyone. The session contenders answer \`res.json({ views })\`.
Below zero: up to Node 22 our middleware also makes Express's own work on a response cheaper; the second row is bare Express
with that alone.`

const WORK = {
  none: () => 'No cookie',
  read: (size) => `Read one small field, session of ${size} KB`,
  write: (size) => `Change one small field, session of ${size} KB`,
  all: (size) => `Read every field, session of ${size} KB`,
}

function environment(facts) {
  const { command, date, cpu, cores, node, versions, load, redis, seconds, against } = facts
  const { rounds, processes, sliceMs, warmUpRequests } = facts
  const list = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `\`${command}\`, ${date}, ${seconds} s: ${processes} times new processes, ${rounds} rounds of ${sliceMs} ms slices in each, after at least ${warmUpRequests} requests of each kind; 32 connections.`,
    `${cpu}, ${cores} cores; Node ${node}; Redis ${redis}; ${load}; ${list.join(', ')}${against ? `; before: commit ${against}` : ''}.`,
  ].join('\n')
}

function costs({ work, size, rows }, trips) {
  const lines = Object.entries(rows).map(([name, row]) => [
    CONTENDERS[name].label,
    name === 'bare' ? `(${row.cpuUs.toFixed(0)} in all)` : added(row),
    row.throughput.toFixed(2),
    row.p99.toFixed(2),
    row.redisUs >= 0.5 && ['redis', 'raw'].includes(CONTENDERS[name].kind) ? row.redisUs.toFixed(0) : '',
    trips?.[name]?.[work] ?? '',
  ])
  const head = ['contender', 'added CPU, µs', 'throughput', 'p99', 'Redis CPU, µs', 'round trips']
  return `### ${WORK[work](size)}\n\n${table(head, lines)}`
}

function added({ addedUs, addedRange: [low, high] }) {
  return `${addedUs.toFixed(1)} (${low.toFixed(1)}–${high.toFixed(1)})`
}

const PROFILES = `µs a request by where they are spent, those first that cost most above bare Express, from samples of V8's
profiler. The profiler makes everything dearer. What is native stands for itself: system calls, JSON, hashes, microtasks.`

function profilesOf({ work, size, profiles }) {
  const { bare, ...others } = profiles
  const lines = (profile, kind) =>
    aboveBare(profile, bare, kind).map(([name, us, above]) => [`\`${name}\``, above.toFixed(2), us.toFixed(2)])
  const parts = Object.entries(others).map(([name, profile]) => {
    const title = `#### ${CONTENDERS[name].label}: ${profile.cpuUs.toFixed(1)} µs, bare ${bare.cpuUs.toFixed(1)}`
    const [files, functions] = ['files', 'functions'].map((kind) => lines(profile, kind))
    return [
      title,
      table(['file', 'above bare', 'in all'], files),
      table(['function', 'above bare', 'in all'], functions),
    ]
  })
  return [`### ${WORK[work](size)}`, ...parts.flat()].join('\n\n')
}

function contextTable(tasks) {
  const lines = tasks.map(({ work, rows }) => [
    WORK[work]('0.2'),
    added(rows['sojourn-memory']),
    added(rows['sojourn-no-context']),
    (rows['sojourn-memory'].addedUs - rows['sojourn-no-context'].addedUs).toFixed(1),
  ])
  return table(['work', 'context: true, added µs', 'context: false', 'difference'], lines)
}

function featureTable({ work, rows }) {
  const { bare: _bare, ...others } = rows
  const lines = Object.entries(others).map(([name, row]) => [
    CONTENDERS[name].label,
    added(row),
    (row.addedUs - rows['sojourn-memory'].addedUs).toFixed(1),
  ])
  return `### ${WORK[work]('0.2')}\n\n${table(['on', 'added CPU, µs', 'above Sojourn, memory'], lines)}`
}

function protectionTable(costs) {
  const lines = Object.entries(costs).map(([what, us]) => [what, us.toFixed(2)])
  return `Microseconds of CPU, in process, beside the same without it.\n\n${table(['what', 'µs'], lines)}`
}

function microTable(micro) {
  const sizes = Object.keys(micro).sort((a, b) => a - b)
  const steps = Object.keys(micro[sizes[0]])
  const lines = steps.map((step) => [step, ...sizes.map((size) => (micro[size][step] / 1000).toFixed(2))])
  return table(['a request, µs', ...sizes.map((size) => `${size} KB`)], lines)
}

function spaceTable({ redis = [], heap, sweep }) {
  const lines = redis.map(({ size, ours, theirs, theirsWithMaxAge }) => [
    `bytes in Redis, ${size} KB of data`,
    ours,
    `${theirs} (${theirsWithMaxAge} with a maxAge)`,
  ])
  if (heap)
    lines.push([`bytes of memory, ${heap.count.toLocaleString('en')} sessions of 0.2 KB`, heap.ours, heap.theirs])
  const facts = table(['a session takes', 'Sojourn', 'express-session'], lines)
  if (!sweep) return facts
  const { removed, longestStallMs, tookMs } = sweep
  return `${facts}\n\nClean-up of ${removed.toLocaleString('en')} expired sessions in memory: ${tookMs.toFixed(0)} ms in all, longest stall ${longestStallMs.toFixed(1)} ms.`
}

function growthTable(growth) {
  const lines = growth.map(({ kind, work, small, large }) => [`${kind}, ${work}`, added(small), added(large)])
  const [{ small, large }] = growth
  const count = ({ count }) => `${count.toLocaleString('en')} sessions, added µs`
  return table(['store', count(small), count(large)], lines)
}

function usersTable(users) {
  const columns = users.map(({ kind, count }) => `${kind}, ${count.toLocaleString('en')} sessions, ms`)
  const steps = Object.keys(users[0].medians)
  const lines = steps.map((step) => [step, ...users.map(({ medians }) => medians[step].toFixed(2))])
  return `A user with five sessions; medians of 200, in process, one call at a time.\n\n${table(['call', ...columns], lines)}`
}

function goalTable(goals) {
  const lines = goals.map(({ what, goal, found, isMet }) => [what, goal, found, isMet ? 'yes' : '**no**'])
  const met = goals.filter(({ isMet }) => isMet).length
  return `${met} met, ${goals.length - met} missed.\n\n${table(['what', 'goal', 'found', 'met'], lines)}`
}

function table(head, lines) {
  const row = (cells) => `| ${cells.join(' | ')} |`
  return [row(head), row(head.map(() => '---')), ...lines.map(row)].join('\n')
}
