// What the SQL store has acknowledged is there after `kill -9` of the process and of the server, whole; and what several
// processes do at once holds. A thread of its own cleans up. SQL_KILLS=1000 kills as often as that; the usual number keeps the suite short.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type Acknowledged, problemsOf, readLines } from '../../support/acknowledged.js'
import { MariadbServer } from '../../support/mariadb.js'
import { PostgresServer } from '../../support/postgres.js'
import { kill, sqlProgram } from '../../support/sql-processes.js'

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
