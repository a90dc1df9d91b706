// The SQL store on databases that are slow, away, full of others or damaged: what it says, and that it goes on afterwards.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import Libsql from 'libsql'
import pg from 'pg'
import postgres from 'postgres'
import type { SessionData } from 'sojourn'
import { SqlSessionStore, sqlStore } from 'sojourn/sql'
import { PostgresServer } from '../../support/postgres.js'
import { recordOf } from '../../support/records.js'

const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-faults-'))
const VALUE = 'a-value-that-nobody-may-see'
let server: PostgresServer
let admin: pg.Client
beforeAll(async () => {
  server = await PostgresServer.start()
  admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
})
afterAll(async () => {
  await admin.end()
  await server.stop()
  rmSync(DIRECTORY, { recursive: true, force: true })
})

/** A record that a store on the same database has made, as soon as `store` works: a busy machine may be slow at first. */
async function stored(database: object, store: SqlSessionStore): Promise<SessionData> {
  const record = recordOf()
  await new SqlSessionStore({ database, cleanupInterval: 0, timeout: 20_000 }).create(record.id, record, 60)
  while ((await store.get(record.id).catch(() => null)) === null);
  return record
}

const change = (text: string) => {
  const at = Date.now()
  return { generation: 1, at, expiresAt: at + 3_600_000, set: new Map([['a', text]]) }
}

describe('on PostgreSQL', () => {
  test.each([
    ['pg', (url: string) => new pg.Pool({ connectionString: url })],
    ['postgres.js', (url: string) => postgres(url, { onnotice: () => {} })],
  ])('a call that misses its deadline is cancelled in the database, through %s', async (_name, open) => {
    const database = open(server.url)
    const store = new SqlSessionStore({ database, cleanupInterval: 0, timeout: 200 })
    const record = await stored(database, store)
    await admin.query('begin')
    await admin.query('select 1 from sojourn_sessions where id = $1 for update', [record.id])
    await expect(store.update(record.id, change('late'), 60)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    await admin.query('commit')
    expect((await store.get(record.id))?.fields.has('a')).toBe(false)
    await database.end()
  })

  test('a pool without a free connection counts into the deadline: what waited for one is not done', async () => {
    const pool = new pg.Pool({ connectionString: server.url, max: 1 })
    const store = new SqlSessionStore({ database: pool, cleanupInterval: 0, timeout: 200 })
    const record = await stored(pool, store)
    const lent = await pool.connect()
    const waiting = store.update(record.id, change('late'), 60)
    waiting.catch(() => {})
    const since = performance.now()
    while (performance.now() < since + 210) await new Promise((resolve) => setImmediate(resolve))
    lent.release()
    await expect(waiting).rejects.toMatchObject({ code: 'STORE_TIMEOUT' })
    expect((await store.get(record.id))?.fields.has('a')).toBe(false)
    await pool.end()
  })

  test('what arrives after its deadline by the clock of the database is not done', async () => {
    const pool = new pg.Pool({ connectionString: server.url })
    const store = new SqlSessionStore({ database: pool, cleanupInterval: 0, timeout: 20_000 })
    const fresh = recordOf()
    // Its pool hands connections out late from now on: as a packet that was held up.
    const connect = pool.connect.bind(pool) as () => Promise<pg.PoolClient>
    const notAfter = performance.now() + 100
    await store.create(recordOf().id, recordOf(), 60, notAfter + 60_000)
    Object.assign(pool, {
      async connect() {
        while (performance.now() < notAfter + 10) await new Promise((resolve) => setImmediate(resolve))
        return connect()
      },
    })
    await expect(store.create(fresh.id, fresh, 60, notAfter)).rejects.toMatchObject({ code: 'STORE_TIMEOUT' })
    expect(await store.get(fresh.id)).toBeNull()
    await pool.end()
  })

  test('a server that was killed is an error that says so, and the same store works when it is back', async () => {
    const store = sqlStore(server.url, { cleanupInterval: 0, timeout: 20_000 })
    const record = recordOf()
    await store.create(record.id, record, 60)
    await admin.end()
    await server.kill()
    await expect(store.get(record.id)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    await server.restart()
    admin = new pg.Client({ connectionString: server.url })
    await admin.connect()
    expect((await store.get(record.id))?.id).toBe(record.id)
    await store.close()
  })

  test.each([
    ['no user of that name', (url: URL) => Object.assign(url, { username: 'nobody' }), /error 28000|does not/],
    ['no database of that name', (url: URL) => Object.assign(url, { pathname: '/none' }), /no database of that name/],
    ['nothing that listens', (url: URL) => Object.assign(url, { port: '1' }), /nothing listens there/],
  ])('%s is said', async (_what, alter, message) => {
    const store = sqlStore(alter(new URL(server.url)).href, { cleanupInterval: 0 })
    await expect(store.get('x')).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(message),
    })
    await store.close()
  })

  test('a connection that is lost as soon as it is there ends no process: somebody listens at every moment', async () => {
    const pool = new pg.Pool({ connectionString: server.url })
    new SqlSessionStore({ database: pool, cleanupInterval: 0 })
    const client = await pool.connect()
    expect(client.listenerCount('error')).toBeGreaterThan(0)
    client.release()
    await pool.end()
  })

  test('no error holds a value', async () => {
    const pool = new pg.Pool({ connectionString: server.url })
    const store = new SqlSessionStore({ database: pool, prefix: 'faulty_', cleanupInterval: 0, timeout: 20_000 })
    const record = recordOf({ fields: [['a', VALUE]], tokenHash: VALUE })
    await store.migrate()
    // The database tells the whole row that a rule refuses.
    await pool.query('alter table faulty_sessions add constraint refusal check (length(fields) < 3)')
    const error = await store.create(record.id, record, 60).catch((failure: unknown) => failure)
    expect(error).toMatchObject({ code: 'STORE_UNAVAILABLE', message: 'The database failed: error 23514.' })
    expect(inspect(error, { depth: 9 })).not.toContain(VALUE)
    await pool.end()
  })
})

describe('on SQLite', () => {
  test('a lock of another process is waited for while the event loop goes on', async () => {
    const path = join(DIRECTORY, 'locked.db')
    const store = sqlStore(`sqlite:${path}`, { cleanupInterval: 0, durability: 'relaxed', timeout: 20_000 })
    const record = recordOf()
    await store.create(record.id, record, 60)
    const other = new Libsql(path)
    other.exec('begin immediate')
    let turns = 0
    let isDone = false
    const waiting = store.update(record.id, change('1'), 60).finally(() => {
      isDone = true
    })
    while (turns < 50) {
      await new Promise((resolve) => setImmediate(resolve))
      turns++
    }
    expect(isDone).toBe(false)
    other.exec('commit')
    expect(await waiting).toMatchObject({ status: 'updated' })
    other.close()
    await store.close()
  })

  test('a lock that is not given up in time is an error, and nothing is done', async () => {
    const path = join(DIRECTORY, 'busy.db')
    const store = sqlStore(`sqlite:${path}`, { cleanupInterval: 0, durability: 'relaxed', timeout: 50 })
    const record = recordOf()
    await store.migrate()
    const other = new Libsql(path)
    other.exec('begin immediate')
    await expect(store.create(record.id, record, 60)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining('locked by others'),
    })
    other.exec('commit')
    expect(await store.get(record.id)).toBeNull()
    other.close()
    await store.close()
  })

  test('with full durability each commit waits for the disk', () => {
    for (const [durability, level] of [
      ['full', 2],
      ['relaxed', 1],
    ] as const) {
      const database = new Libsql(join(DIRECTORY, 'full.db'))
      new SqlSessionStore({ database, durability, cleanupInterval: 0 })
      expect(database.prepare('pragma synchronous').get()).toMatchObject({ synchronous: level })
      database.close()
    }
  })

  test.each([
    ['a directory that is not there', () => join(DIRECTORY, 'none/sessions.db'), /./],
    [
      'a file that is no database',
      () => {
        const path = join(DIRECTORY, 'text.db')
        writeFileSync(path, 'not a database, but long enough to be looked at as if it were one'.repeat(50))
        return path
      },
      /not a database/,
    ],
  ])('%s is said', async (_what, pathOf, message) => {
    const store = sqlStore(`sqlite:${pathOf()}`, { cleanupInterval: 0 })
    await expect(store.get('x')).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(message),
    })
    await store.close()
  })

  test('a store that was closed says so', async () => {
    const store = sqlStore('sqlite::memory:')
    await store.get('x')
    await store.close()
    await store.close()
    await expect(store.get('x')).rejects.toMatchObject({ message: 'The store has been closed.' })
  })
})
