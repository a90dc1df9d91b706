// The signals of the SQL store on PostgreSQL: what the conformance suite cannot ask, since it is of the connection.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import pg from 'pg'
import postgres from 'postgres'
import { SessionManager } from 'sojourn'
import { watchEndings } from 'sojourn/live'
import { SqlSessionStore, sqlStore } from 'sojourn/sql'
import { until as becomes, SECRET } from '../../support/http.js'
import { PostgresServer } from '../../support/postgres.js'

const PATIENT = { cleanupInterval: 0, timeout: 20_000 }
let server: PostgresServer
let admin: pg.Pool
beforeAll(async () => {
  server = await PostgresServer.start()
  admin = new pg.Pool({ connectionString: server.url })
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

/** However busy the machine is. */
const until = (condition: () => boolean | Promise<boolean>): Promise<void> => becomes(condition, 20_000)

function signalsOf({ signals }: SqlSessionStore): NonNullable<SqlSessionStore['signals']> {
  if (signals === undefined) throw new Error('The store has no signals.')
  return signals
}

/** The connections that listen to something. */
async function listening(): Promise<number[]> {
  const { rows } = await admin.query(
    "select pid from pg_stat_activity where pid <> pg_backend_pid() and (query like 'listen %' or query = 'select 1')",
  )
  return rows.map(({ pid }: { pid: number }) => pid)
}

describe.each([
  ['a Pool of pg', () => new pg.Pool({ connectionString: server.url })],
  ['postgres.js', () => postgres(server.url, { onnotice: () => {} })],
])('through %s', (_name, open) => {
  let database: ReturnType<typeof open>
  let store: SqlSessionStore
  beforeAll(() => {
    database = open()
    store = new SqlSessionStore({ database, ...PATIENT })
  })
  afterAll(async () => {
    await store.close()
    await database.end()
  })

  test('a text of any length comes whole', async () => {
    const texts = ['', 'x'.repeat(7_798), 'x'.repeat(7_799), '🍪é\u0000\n'.repeat(10_000), '"1 2 3 4"']
    const heard: string[] = []
    const stop = await signalsOf(store).listen('long', (text) => heard.push(text))
    for (const text of texts) await signalsOf(store).send('long', text)
    await until(async () => heard.length === texts.length)
    expect(heard).toEqual(texts)
    await stop()
  })

  test('a connection that was lost comes back, and hears again', async () => {
    const heard: string[] = []
    const stop = await signalsOf(store).listen('lost', (text) => heard.push(text))
    const lost = await listening()
    expect(lost.length).toBeGreaterThan(0)
    for (const pid of lost) await admin.query('select pg_terminate_backend($1)', [pid])
    await until(async () => {
      await signalsOf(store).send('lost', 'again')
      return heard.length > 0
    })
    expect(new Set(heard)).toEqual(new Set(['again']))
    await stop()
  })
})

test('a store on other tables hears nothing of it', async () => {
  const pool = new pg.Pool({ connectionString: server.url })
  const [store, same, other] = ['one_', 'one_', 'other_'].map(
    (prefix) => new SqlSessionStore({ database: pool, prefix, ...PATIENT }),
  ) as [SqlSessionStore, SqlSessionStore, SqlSessionStore]
  const heard: string[] = []
  await signalsOf(other).listen('channel', (text) => heard.push(`other ${text}`))
  await signalsOf(same).listen('channel', (text) => heard.push(`same ${text}`))
  await signalsOf(store).send('channel', 'text')
  await signalsOf(other).send('channel', 'last')
  await until(async () => heard.length === 2)
  expect(heard.sort()).toEqual(['other last', 'same text'])
  for (const each of [store, same, other]) await each.close()
  await pool.end()
})

test('the connection is there while somebody listens, and is none of the pool', async () => {
  const pool = new pg.Pool({ connectionString: server.url, max: 1 })
  const store = new SqlSessionStore({ database: pool, ...PATIENT })
  await until(async () => (await listening()).length === 0)
  const stops = [
    await signalsOf(store).listen('a', () => {}),
    await signalsOf(store).listen('a', () => {}),
    await signalsOf(store).listen('b', () => {}),
  ]
  expect(await store.get('x')).toBeNull()
  expect((await listening()).length).toBe(1)
  for (const stop of stops) await stop()
  await until(async () => (await listening()).length === 0)
  await signalsOf(store).listen('a', () => {})
  await store.close()
  await until(async () => (await listening()).length === 0)
  await pool.end()
})

test('who cannot have them, or does not want them, has none', async () => {
  const pool = new pg.Pool({ connectionString: server.url })
  expect(new SqlSessionStore({ database: pool, signals: false, ...PATIENT }).signals).toBeUndefined()
  expect(sqlStore('sqlite::memory:', PATIENT).signals).toBeUndefined()
  expect(sqlStore(server.url, PATIENT).signals).toBeDefined()
  await pool.end()
})

test('an ending in one process is heard in another', async () => {
  const [here, there] = [1, 2].map(() => {
    const store = sqlStore(server.url, { prefix: 'live_', ...PATIENT })
    return { store, manager: new SessionManager({ secret: SECRET, store, cleanupInterval: 0, storeTimeout: 20 }) }
  }) as [Watching, Watching]
  const heard: object[] = []
  there.manager.events.on('ended', ({ id, reason, isRemote }) => heard.push({ id, reason, isRemote }))
  for (const { manager } of [here, there]) await watchEndings(manager, { heartbeat: '1h' })
  const { id } = await here.manager.create({ userId: 'ann' })
  await here.manager.revoke(id)
  await until(() => heard.length > 0)
  expect(heard).toEqual([{ id, reason: 'revoked', isRemote: true }])
  for (const { manager, store } of [here, there]) {
    await manager.close()
    await store.close()
  }
})

interface Watching {
  readonly store: SqlSessionStore
  readonly manager: SessionManager
}
