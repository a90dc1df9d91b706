// PostgreSQL as it is run: behind a pooler, and with a standby that takes over.
import { expect, test } from '@jest/globals'
import pg from 'pg'
import { SqlSessionStore, sqlStore } from 'sojourn/sql'
import { conformanceChecks } from 'sojourn/testing'
import { type Acknowledged, problemsOf, readLines } from '../../support/acknowledged.js'
import { Pgbouncer, pgbouncerProgram } from '../../support/pgbouncer.js'
import { PostgresServer } from '../../support/postgres.js'
import { recordOf } from '../../support/records.js'
import { kill, sqlProgram } from '../../support/sql-processes.js'

const PATIENT = { cleanupInterval: 0, timeout: 20_000 }

test('what was acknowledged is there after a failover to a synchronous standby, and the standby goes on', async () => {
  const primary = await PostgresServer.start()
  const standby = await PostgresServer.standbyOf(primary)
  const program = sqlProgram()
  const acknowledged: Acknowledged = { counts: new Map(), successors: new Map() }
  const writer = program.start(primary.url, 'write')
  await readLines(writer, 200, acknowledged)
  await primary.kill()
  await kill(writer.process)
  await readLines(writer, Number.POSITIVE_INFINITY, acknowledged)

  await standby.promote()
  expect(acknowledged.counts.size).toBeGreaterThan(0)
  expect(await problemsOf(standby.url, acknowledged)).toEqual([])
  const store = sqlStore(standby.url, PATIENT)
  const record = recordOf()
  expect(await store.create(record.id, record, 60)).toBe(true)
  expect((await store.get(record.id))?.id).toBe(record.id)
  await store.close()
  program.remove()
  await Promise.all([primary.stop(), standby.stop()])
}, 120_000)

test('a replica refuses to write, and the error says so', async () => {
  const primary = await PostgresServer.start()
  await sqlStore(primary.url, PATIENT).migrate()
  const standby = await PostgresServer.standbyOf(primary)
  const store = sqlStore(standby.url, PATIENT)
  const record = recordOf()
  await expect(store.create(record.id, record, 60)).rejects.toMatchObject({
    code: 'STORE_UNAVAILABLE',
    message: expect.stringContaining('it is a replica'),
  })
  await store.close()
  await Promise.all([primary.stop(), standby.stop()])
}, 120_000)

test('every promise holds behind pgbouncer, which gives each transaction another connection', async () => {
  const program = pgbouncerProgram()
  if (program === undefined) {
    console.warn('pgbouncer is not installed, so nothing was tried behind it: apt-get install pgbouncer')
    return
  }
  const server = await PostgresServer.start()
  const bouncer = await Pgbouncer.start(program, { server: server.port, connections: 3 })
  const pools = [1, 2].map(() => new pg.Pool({ connectionString: bouncer.url }))
  const create = (): SqlSessionStore =>
    new SqlSessionStore({ database: pools.reverse()[0] as pg.Pool, prefix: 'bounced_', signals: false, ...PATIENT })
  const failed: string[] = []
  for (const { name, run } of conformanceChecks({ createStore: create, createPeer: create })) {
    await run().catch((error: unknown) => failed.push(`${name}: ${String(error)}`))
  }
  expect(failed).toEqual([])
  await Promise.all(pools.map((pool) => pool.end()))
  await bouncer.stop()
  await server.stop()
}, 120_000)
