// The SQL store in the report, and its goals.
import { CONTENDERS } from './contenders.mjs'

/** Each of ours, and the peer on the same database. */
export const PEERS = {
  'sojourn-postgres': 'connect-pg-simple',
  'sojourn-mariadb': 'express-mysql-session',
  'sojourn-sqlite': 'better-sqlite3-session-store',
}

const DATABASES = { pg: 'PostgreSQL', mysql2: 'MariaDB', 'better-sqlite3': 'SQLite', 'node:sqlite': 'SQLite' }

/** @param {object} found what run.mjs collected @param {(head: string[], lines: string[][]) => string} table */
export function sqlReport({ inProcess: { clients, statements, writers }, requests }, table) {
  const steps = [...new Set(Object.values(clients).flatMap(({ us }) => Object.keys(us)))]
  const ratios = [...new Set(Object.values(clients).flatMap((client) => Object.keys(client.ratios)))]
  const kinds = Object.keys(clients)
  const of = (kind) => `${DATABASES[kind]}, ${kind}`
  return [
    `CPU of the client in µs, in process, 16 at a time where there is a server. Raw: one prepared \`SELECT\`, or \`SELECT\` and
\`UPDATE\`, of one text by its key. A write of the store is what a request does: it reads, and changes one small field.`,
    table(
      ['µs', ...kinds.map(of)],
      steps.map((step) => [step, ...kinds.map((kind) => clients[kind].us[step]?.toFixed(1) ?? '')]),
    ),
    table(
      ['× raw', ...kinds.map(of)],
      ratios.map((step) => [step, ...kinds.map((kind) => clients[kind].ratios[step]?.toFixed(2) ?? '')]),
    ),
    'Requests, over bare Express:',
    ...requests.map(({ work, size, rows }) =>
      table(
        [`${work}, ${size} KB`, 'added CPU, µs', 'throughput', 'p99'],
        Object.entries(rows).map(([name, row]) => [
          CONTENDERS[name].label,
          name === 'bare' ? `(${row.cpuUs.toFixed(0)} in all)` : row.addedUs.toFixed(1),
          row.throughput.toFixed(2),
          row.p99.toFixed(2),
        ]),
      ),
    ),
    table(
      ['statements of a request', 'no cookie', 'read', 'write'],
      Object.entries(statements).map(([kind, { none, read, write }]) => [of(kind), none, read, write]),
    ),
    table(
      [
        'writers of one session',
        'one: p99, ms',
        '32 in one process',
        'statements a change',
        '32 in four processes',
        'statements a change',
      ],
      Object.entries(writers).map(([kind, { one, together, apart }]) => [
        of(kind),
        one.p99Ms.toFixed(1),
        together.p99Ms.toFixed(1),
        together.statements.toFixed(2),
        apart.p99Ms.toFixed(1),
        apart.statements.toFixed(2),
      ]),
    ),
  ].join('\n\n')
}

const OF_RAW = {
  pg: { read: 1.35, write: 1.4, 'small change, 20 KB': 0.6 },
  mysql2: { read: 1.35, write: 1.4, 'small change, 20 KB': 0.6 },
  'better-sqlite3': { read: 2, write: 1.4, 'small change, 20 KB': 0.6 },
  'node:sqlite': { read: 2, write: 1.4, 'small change, 20 KB': 0.6 },
}
const OF_PEER = { 'read 0.2': 0.3, 'write 0.2': 0.8, 'write 20': 0.5 }
const STATEMENTS = { none: 0, read: 1, write: 2 }
const MAX_WAIT_OF_MANY = 8
const MAX_STATEMENTS_OF_MANY = 5

/** @param {object | undefined} found what run.mjs collected */
export function* sqlGoals(found) {
  if (found === undefined) return
  const { inProcess, requests } = found
  for (const [kind, { ratios }] of Object.entries(inProcess.clients)) {
    for (const [step, bound] of Object.entries(OF_RAW[kind])) {
      const what = `${DATABASES[kind]}, ${kind}, ${step}: CPU of the client, × raw`
      yield goal(what, `≤ ${bound}`, ratios[step].toFixed(2), ratios[step] <= bound)
    }
  }
  for (const { work, size, rows } of requests) {
    const bound = OF_PEER[`${work} ${size}`]
    for (const [ours, theirs] of Object.entries(PEERS)) {
      if (bound === undefined || !rows[ours] || !rows[theirs]) continue
      const share = rows[ours].addedUs / rows[theirs].addedUs
      yield goal(
        `${CONTENDERS[ours].label}, ${work}, ${size} KB: added CPU, ÷ ${theirs}`,
        `≤ ${bound}`,
        `${share.toFixed(2)} (${rows[ours].addedUs.toFixed(1)} / ${rows[theirs].addedUs.toFixed(1)} µs)`,
        share <= bound,
      )
    }
  }
  for (const [kind, counts] of Object.entries(inProcess.statements)) {
    for (const [work, count] of Object.entries(STATEMENTS)) {
      yield goal(
        `${DATABASES[kind]}, ${kind}, ${work}: statements`,
        `${count}`,
        `${counts[work]}`,
        counts[work] === count,
      )
    }
  }
  for (const [kind, { one, apart }] of Object.entries(inProcess.writers)) {
    const share = apart.p99Ms / one.p99Ms
    yield goal(
      `${DATABASES[kind]}, 32 writers of one session in four processes: p99, ÷ one writer's`,
      `≤ ${MAX_WAIT_OF_MANY}`,
      `${share.toFixed(1)} (${apart.p99Ms.toFixed(1)} / ${one.p99Ms.toFixed(1)} ms)`,
      share <= MAX_WAIT_OF_MANY,
    )
    yield goal(
      `${DATABASES[kind]}, 32 writers of one session in four processes: statements a change`,
      `≤ ${MAX_STATEMENTS_OF_MANY}`,
      apart.statements.toFixed(2),
      apart.statements <= MAX_STATEMENTS_OF_MANY,
    )
  }
}

/** @param {object} found what sql-purge.mjs printed @param {(head: string[], lines: string[][]) => string} table */
export function purgeReport({ client, writers, sqlite, postgres, touches }, table) {
  const ms = (value) => value.toFixed(2)
  const { before, during } = sqlite
  return [
    `Four processes made ${writers.writes} writes to one file of SQLite through ${client}. One call into the client took ${ms(writers.p99Ms)} ms (p99), at most ${ms(writers.longestMs)}; of CPU no call took more than ${ms(writers.mostCpuMs)}. 4 KB and an fsync of another file took ${ms(writers.disk.p99Ms)} ms meanwhile (p99), at most ${ms(writers.disk.longestMs)}.`,
    `A clean-up of ${sqlite.removed.toLocaleString('en')} sessions in SQLite took ${(sqlite.tookMs / 1000).toFixed(1)} s; calls beside it, on the main thread:`,
    table(
      ['p99, ms', 'without it', 'beside it'],
      [
        ['read', ms(before.readP99Ms), ms(during.readP99Ms)],
        ['write', ms(before.writeP99Ms), ms(during.writeP99Ms)],
        ['one call into the client, commits included', ms(before.heldP99Ms), ms(during.heldP99Ms)],
      ],
    ),
    `One of ${postgres.removed.toLocaleString('en')} in PostgreSQL took ${(postgres.tookMs / 1000).toFixed(1)} s, in ${postgres.steps} steps of ${ms(postgres.stepP99Ms)} ms (p99).`,
    `${touches.count.toLocaleString('en')} touches made ${touches.before} bytes of a table ${touches.after}; ${(100 * touches.hotShare).toFixed(1)} % of them moved no index.`,
  ].join('\n\n')
}

const MAX_HELD_MS = 25
const MAX_READ_MS = 2
const MAX_STEP_MS = 5
const MAX_GROWTH = 1.05

/** @param {object | undefined} found what sql-purge.mjs printed */
export function* purgeGoals(found) {
  if (found === undefined) return
  const { writers, sqlite, postgres, touches } = found
  const most = (what, bound, value, unit = ' ms') =>
    goal(what, `≤ ${bound}${unit}`, `${value.toFixed(2)}${unit}`, value <= bound)
  yield most('SQLite, four processes that write: the longest hold of the event loop', MAX_HELD_MS, writers.longestMs)
  yield most('SQLite, clean-up: reads on the main thread, p99', MAX_READ_MS, sqlite.during.readP99Ms)
  yield most(
    'SQLite, clean-up: how long calls hold the main thread, commits included, p99',
    MAX_READ_MS,
    sqlite.during.heldP99Ms,
  )
  yield most('PostgreSQL, clean-up: its steps, p99', MAX_STEP_MS, postgres.stepP99Ms)
  yield most('PostgreSQL, touches: size of the table after / before', MAX_GROWTH, touches.after / touches.before, '')
}

function goal(what, bound, found, isMet) {
  return { what, goal: bound, found, isMet }
}
