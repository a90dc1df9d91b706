// The goals, and whether a run met them. A goal that was not measured is left out.
import { cacheGoals } from './cache-report.mjs'
import { CONTENDERS } from './contenders.mjs'
import { liveGoals } from './live-report.mjs'
import { purgeGoals, sqlGoals } from './sql-report.mjs'
import { median } from './statistics.mjs'

/**
 * @param {object} results what run.mjs collected
 * @returns {{ what: string, goal: string, found: string, isMet: boolean }[]}
 */
export function checkGoals(results) {
  return [
    ...costGoals(results.matrix ?? [], Number.parseInt(results.node, 10)),
    ...beforeGoals(results.matrix ?? [], Number.parseInt(results.node, 10)),
    ...nearGoals(results.matrix ?? [], Number.parseInt(results.node, 10)),
    ...dropInGoals(results.matrix ?? []),
    ...tripGoals(results.trips),
    ...protectionGoals(results.protection),
    ...spaceGoals(results.space),
    ...growthGoals(results.growth),
    ...usersGoals(results.users),
    ...featureGoals(results.features),
    ...liveGoals(results.live),
    ...cacheGoals(results.cache),
    ...sqlGoals(results.sql),
    ...usersGoals(results.sql?.users),
    ...purgeGoals(results['sql-purge']),
  ]
}

/** Our added CPU as a share of theirs, by work and size: the upper bound. The first four differ up to Node 22 and after. */
const SMALL_SHARES = {
  old: [
    ['memory', 'read', '0.2', 0.25],
    ['memory', 'write', '0.2', 0.25],
    ['redis', 'read', '0.2', 0.5],
    ['redis', 'write', '0.2', 0.5],
  ],
  current: [
    ['memory', 'read', '0.2', 0.2],
    ['memory', 'write', '0.2', 0.3],
    ['redis', 'read', '0.2', 0.3],
    ['redis', 'write', '0.2', 0.4],
  ],
}
const SHARES = [
  ['memory', 'read', '20', 0.1],
  ['memory', 'read', '200', 0.02],
  ['redis', 'read', '20', 0.3],
  ['redis', 'read', '200', 0.2],
  ['memory', 'none', '0.2', 0.3],
  ['redis', 'none', '0.2', 0.3],
]
const DROP_IN = { memory: 'drop-in-memory', redis: 'drop-in-redis' }
/** Added CPU of `sojourn/express-session` as a share of that of the core: the upper bound. */
const DROP_IN_SHARE = 1.15
const OURS = { memory: 'sojourn-memory', redis: 'sojourn-redis' }
const THEIRS = { memory: 'express-session', redis: 'connect-redis' }
/** Our throughput as a share of that of the bare calls of Redis: the lower bound. */
const THROUGHPUT_OF_RAW = { read: { old: 0.9, current: 0.9 }, write: { old: 1, current: 0.9 } }
/** Our added CPU as a share of that of the commit that `--against` names. */
const OF_BEFORE = [
  ['memory', 'write', 0.5],
  ['memory', 'read', 1],
  ['redis', 'read', 1],
  ['redis', 'write', 1],
]

function* costGoals(matrix, node) {
  const era = node <= 22 ? 'old' : 'current'
  for (const [kind, work, size, bound] of [...SMALL_SHARES[era], ...SHARES]) {
    const task = matrix.find((entry) => entry.work === work && entry.size === size)
    const ours = task?.rows[OURS[kind]]
    const theirs = task?.rows[THEIRS[kind]]
    if (!ours || !theirs) continue
    const share = ours.addedUs / theirs.addedUs
    const name = work === 'none' ? `${kind}, no cookie` : `${kind}, ${work}, ${size} KB`
    yield goal(
      `${name}: added CPU, ours / theirs`,
      `≤ ${bound}`,
      `${ratio(share)} (${us(ours.addedUs)} / ${us(theirs.addedUs)})`,
      share <= bound,
    )
    const least = THROUGHPUT_OF_RAW[work]?.[era]
    if (kind !== 'redis' || size !== '0.2' || !task.samples.raw || least === undefined) continue
    const throughput = throughputRatio(task.samples[OURS[kind]], task.samples.raw)
    const raw = work === 'read' ? 'the raw GET' : 'the raw GET + SET'
    yield goal(`${name}: throughput beside ${raw}`, `≥ ${least}`, ratio(throughput), throughput >= least)
  }
}

/** Beside another commit. The goal of the write is for the versions of Node whose handling of objects hides none of it. */
function* beforeGoals(matrix, node) {
  for (const [kind, work, bound] of OF_BEFORE) {
    const task = matrix.find((entry) => entry.work === work && entry.size === '0.2')
    const ours = task?.rows[OURS[kind]]
    const before = task?.rows[`against-${kind}`]
    if (!ours || !before) continue
    const share = ours.addedUs / before.addedUs
    // No worse: but for the noise of such a measurement.
    const most = node <= 22 || bound === 1 ? 1.1 : bound
    yield goal(
      `${kind}, ${work}, 0.2 KB: added CPU, now / before`,
      `≤ ${most}`,
      `${ratio(share)} (${us(ours.addedUs)} / ${us(before.addedUs)})`,
      share <= most,
    )
  }
}

function* dropInGoals(matrix) {
  for (const { work, size, rows } of matrix) {
    for (const [kind, name] of Object.entries(DROP_IN)) {
      const core = rows[OURS[kind]]
      const ours = rows[name]
      if (!core || !ours || (work !== 'read' && work !== 'write')) continue
      const share = ours.addedUs / core.addedUs
      // Up to Node 22 both may be below zero, and what they share says nothing then.
      const isMet = share <= DROP_IN_SHARE || ours.addedUs <= core.addedUs
      const found = `${ratio(share)} (${us(ours.addedUs)} / ${us(core.addedUs)})`
      yield goal(`drop-in, ${kind}, ${work}, ${size} KB: added CPU, drop-in / core`, `≤ ${DROP_IN_SHARE}`, found, isMet)
    }
  }
}

function throughputRatio(ours, theirs) {
  return median(ours.map(({ perSecond }, round) => perSecond / theirs[round].perSecond))
}

/** With a near cache, our added CPU and our throughput as shares of those of the bare calls of Redis, up to Node 22 and after. */
const NEAR = {
  read: { cpu: { old: 0.25, current: 1 }, throughput: { old: 1.35, current: 1 } },
  write: { cpu: { old: 0.75, current: 0.9 }, throughput: { old: 1.15, current: 1.05 } },
}
const MAX_OF_RAW_LARGE = 0.1

function* nearGoals(matrix, node) {
  const era = node <= 22 ? 'old' : 'current'
  for (const { work, size, rows, samples } of matrix) {
    const ours = rows['sojourn-near']
    if (!ours || !rows.raw) continue
    const share = ours.addedUs / rows.raw.addedUs
    const found = `${ratio(share)} (${us(ours.addedUs)} / ${us(rows.raw.addedUs)})`
    const name = `near cache, ${work}, ${size} KB`
    if (work === 'read' && size === '200') {
      yield goal(`${name}: added CPU, ours / raw`, `≤ ${MAX_OF_RAW_LARGE}`, found, share <= MAX_OF_RAW_LARGE)
    }
    if (size !== '0.2' || !NEAR[work]) continue
    const { cpu, throughput } = NEAR[work]
    yield goal(`${name}: added CPU, ours / raw`, `≤ ${cpu[era]}`, found, share <= cpu[era])
    const perSecond = throughputRatio(samples['sojourn-near'], samples.raw)
    yield goal(`${name}: throughput beside raw`, `≥ ${throughput[era]}`, ratio(perSecond), perSecond >= throughput[era])
  }
}

const TRIPS = { none: 0, read: 1, write: 2 }
/** As a rule: a session is asked for anew when it is too old. */
const NEAR_TRIPS = { none: 0, read: 0, write: 1 }
const NEAR_TOLERANCE = 0.1

function* tripGoals(trips) {
  for (const name of Object.values(OURS)) {
    if (!trips?.[name]) continue
    for (const [work, count] of Object.entries(TRIPS)) {
      const found = trips[name][work]
      yield goal(`${name}, ${work}: store round trips`, `${count}`, `${found}`, found === count)
    }
  }
  for (const [work, count] of Object.entries(trips?.['sojourn-near'] ? NEAR_TRIPS : {})) {
    const found = trips['sojourn-near'][work]
    const isMet = Math.abs(found - count) <= NEAR_TOLERANCE
    yield goal(`sojourn-near, ${work}: store round trips`, `about ${count}`, `${found}`, isMet)
  }
}

/** In microseconds. */
const PROTECTION = {
  'csrf(), by Fetch Metadata: added': 5,
  'csrf(), by a token: added': 5,
  'clientBinding(): added': 3,
  'deviceBound(), a bound cookie: added': 5,
  'encrypted(), to seal 200 bytes': 6,
  'encrypted(), to open 200 bytes': 6,
}
const MAX_OF_CIPHER = 1.5

function* protectionGoals(costs) {
  if (!costs) return
  for (const [what, bound] of Object.entries(PROTECTION)) {
    yield goal(what, `≤ ${us(bound)}`, us(costs[what]), costs[what] <= bound)
  }
  const share = costs['encrypted(), to seal 200 bytes'] / costs['createCipheriv alone, 200 bytes']
  yield goal(
    'encrypted(), to seal 200 bytes / createCipheriv alone',
    `≤ ${MAX_OF_CIPHER}`,
    ratio(share),
    share <= MAX_OF_CIPHER,
  )
}

const MAX_STALL_MS = 10

function* spaceGoals(space) {
  for (const { size, ours, theirs } of space?.redis ?? []) {
    yield goal(`Redis, ${size} KB: bytes a session, ours / connect-redis`, '≤ 1', `${ours} / ${theirs}`, ours <= theirs)
  }
  if (space?.heap) {
    const { ours, theirs } = space.heap
    yield goal(
      'memory: heap and buffers a session, ours / express-session',
      '≤ 1',
      `${ours} / ${theirs} bytes`,
      ours <= theirs,
    )
  }
  if (space?.sweep) {
    const { longestStallMs } = space.sweep
    const found = `${longestStallMs.toFixed(1)} ms`
    yield goal('memory: longest stall of a clean-up', `≤ ${MAX_STALL_MS} ms`, found, longestStallMs <= MAX_STALL_MS)
  }
}

/** Flat: within a tenth of the whole cost of a request, the noise of such a measurement. */
const FLAT = 0.1

function* growthGoals(growth) {
  for (const { kind, work, small, large, bareUs } of growth ?? []) {
    const change = large.addedUs - small.addedUs
    const found = `${us(small.addedUs)} → ${us(large.addedUs)}`
    const what = `${kind}, ${work}: added CPU, ${small.count.toLocaleString('en')} → ${large.count.toLocaleString('en')} sessions`
    yield goal(what, `flat: +${FLAT * 100} % of a request`, found, change <= FLAT * (bareUs + small.addedUs))
  }
}

/** The same, but for noise: no more than this much and half as long again. */
const SAME = { factor: 1.5, ms: 0.5 }

function* usersGoals(users = []) {
  for (const kind of new Set(users.map((measured) => measured.kind))) {
    const [small, large] = users.filter((measured) => measured.kind === kind)
    for (const [what, ms] of Object.entries(small.medians)) {
      const later = large.medians[what]
      const counts = [small, large].map(({ count }) => count.toLocaleString('en')).join(' → ')
      const found = `${ms.toFixed(2)} → ${later.toFixed(2)} ms`
      yield goal(`${kind}, ${what}: ${counts} sessions`, 'the same', found, later <= SAME.factor * ms + SAME.ms)
    }
  }
}

/** What may be switched on, by contender. `sojourn-no-client` is without what the others have. */
export const FEATURES = [
  'sojourn-activity',
  'sojourn-requests',
  'sojourn-metrics',
  'sojourn-no-client',
  'sojourn-renewing',
]
const MAX_FEATURE_US = 5

function* featureGoals(features = []) {
  for (const { work, rows } of features) {
    for (const name of FEATURES) {
      const isWithout = name === 'sojourn-no-client'
      const more = (rows[name].addedUs - rows['sojourn-memory'].addedUs) * (isWithout ? -1 : 1)
      const what = isWithout ? 'clientContext' : CONTENDERS[name].label
      yield goal(`${what}, ${work}: added CPU`, `≤ ${MAX_FEATURE_US} µs`, us(more), more <= MAX_FEATURE_US)
    }
  }
}

function goal(what, bound, found, isMet) {
  return { what, goal: bound, found, isMet }
}

function ratio(value) {
  return value.toFixed(2)
}

function us(value) {
  return `${value.toFixed(1)} µs`
}
