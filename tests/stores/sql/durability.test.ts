// What the SQL store has acknowledged is there after `kill -9` of the process and of the server, whole; and what several
// processes do at once holds. A thread of its own cleans up. SQL_KILLS=1000 kills as often as that; the usual number keeps the suite short.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { SessionData } from 'sojourn'
import { sqlStore } from 'sojourn/sql'
import { MariadbServer } from '../../support/mariadb.js'
import { PostgresServer } from '../../support/postgres.js'
import { kill, type SqlProcess, sqlProgram } from '../../support/sql-processes.js'

const KILLS = Number(process.env['SQL_KILLS'] ?? 4)
const SECRET = 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja'
const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-durability-'))

let program: ReturnType<typeof sqlProgram>
let postgres: PostgresServer
let mariadb: MariadbServer
beforeAll(async () => {
  program = sqlProgram()
  ;[postgres, mariadb] = await Promise.all([PostgresServer.start(), MariadbServer.start()])
}, 60_000)
afterAll(async () => {
  program.remove()
  rmSync(DIRECTORY, { recursive: true, force: true })
  await Promise.all([postgres.stop(), mariadb.stop()])
})

const DATABASES = [
  ['SQLite', { url: () => `sqlite:${join(DIRECTORY, 'sessions.db')}`, server: () => null }],
  ['PostgreSQL', { url: () => postgres.url, server: () => postgres }],
  ['MariaDB', { url: () => mariadb.url, server: () => mariadb }],
] as const

/** What a process was told: the counter that each session has at least, and by which one it was replaced. */
interface Acknowledged {
  readonly counts: Map<string, number>
  readonly successors: Map<string, string>
}

async function readLines(writer: SqlProcess, lines: number, { counts, successors }: Acknowledged): Promise<void> {
  for (let n = 0; n < lines; n++) {
    const [word, id = '', rest = ''] = (await writer.line())?.split(' ') ?? []
    if (word === undefined) return
    if (word === 'stored') counts.set(id, Number(rest))
    else successors.set(id, rest)
  }
}

/** Each record is whole, and what was acknowledged of it holds. */
async function problemsOf(url: string, { counts, successors }: Acknowledged): Promise<string[]> {
  const store = sqlStore(url, { cleanupInterval: 0, timeout: 10_000 })
  const records = new Map<string, SessionData>()
  for await (const record of store.scan()) records.set(record.id, record)
  await store.close()
  const problems: string[] = []
  for (const [id, count] of counts) {
    const record = records.get(id)
    const found = Number(record?.fields.get('count') ?? -1)
    // One that is over may have been replaced after its last line.
    if (record === undefined || (!record.ended && found < count)) problems.push(`${id} is ${found}, was ${count}`)
  }
  for (const [id, next] of successors) {
    if (records.get(id)?.ended?.successor !== next || records.get(next)?.ended) problems.push(`${id} was replaced`)
  }
  for (const record of records.values()) {
    const count = record.fields.get('count')
    if (!record.ended && record.fields.get('large') !== count?.repeat(6_000)) problems.push(`${record.id} is torn`)
    const next = record.ended?.successor
    if (next !== undefined && !records.has(next)) problems.push(`${record.id} has no successor`)
  }
  return problems
}

describe.each(DATABASES)('on %s', (_name, { url, server }) => {
  test(
    'what was acknowledged is there after the process was killed, and nothing is torn',
    async () => {
      const acknowledged: Acknowledged = { counts: new Map(), successors: new Map() }
      for (let round = 0; round < KILLS; round++) {
        const writer = program.start(url(), 'write')
        await readLines(writer, 1 + Math.floor(Math.random() * 60), acknowledged)
        writer.process.kill('SIGKILL')
        await readLines(writer, Number.POSITIVE_INFINITY, acknowledged)
      }
      expect(acknowledged.counts.size).toBeGreaterThan(0)
      expect(await problemsOf(url(), acknowledged)).toEqual([])
    },
    60_000 + KILLS * 5_000,
  )

  test(
    'what was acknowledged is there after the server was killed',
    async () => {
      const killed = server()
      if (killed === null) return
      const acknowledged: Acknowledged = { counts: new Map(), successors: new Map() }
      const writer = program.start(url(), 'write')
      for (let round = 0; round < KILLS / 2; round++) {
        await readLines(writer, 1 + Math.floor(Math.random() * 100), acknowledged)
        await killed.kill()
        await killed.restart()
      }
      // It goes on by itself.
      await readLines(writer, 20, acknowledged)
      await kill(writer.process)
      await readLines(writer, Number.POSITIVE_INFINITY, acknowledged)
      expect(await problemsOf(url(), acknowledged)).toEqual([])
    },
    60_000 + KILLS * 10_000,
  )

  test('of 20 logins of one user at once, on two processes, the limit leaves exactly 3 sessions', async () => {
    const task = JSON.stringify({ secret: SECRET, user: 'ann', logins: 10, limit: 3 })
    const processes = [program.start(url(), task), program.start(url(), task)]
    for (const { line } of processes) expect(await line()).toBe('ready')
    for (const { process: child } of processes) child.stdin?.write('go\n')
    for (const { line } of processes) expect(await line()).toMatch(/^left/)
    const last = program.start(url(), JSON.stringify({ secret: SECRET, user: 'ann', logins: 0, limit: 3 }))
    expect(await last.line()).toBe('ready')
    last.process.stdin?.write('go\n')
    expect(await last.line()).toBe('left 3')
  }, 60_000)
})

test('a clean-up of SQLite that is long has a thread of its own, which ends with the store', async () => {
  const cleaning = program.start(`sqlite:${join(DIRECTORY, 'purge.db')}`, 'purge')
  expect(await cleaning.line()).toBe('removed 10 in 0')
  expect(await cleaning.line()).toBe('removed 2500 in 1')
  expect(await cleaning.line()).toBe('stopped true in 2')
  expect(await cleaning.line()).toBeNull()
}, 60_000)
