// How the tables of the SQL store come to be, on each database.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { SqlSessionStore, sessionMigration, sessionSchema, sqlStore } from 'sojourn/sql'
import { sharedPostgres } from '../../support/postgres.js'
import { recordOf as record } from '../../support/records.js'

let server: Awaited<ReturnType<typeof sharedPostgres>>
let pool: pg.Pool
beforeAll(async () => {
  server = await sharedPostgres()
  pool = new pg.Pool({ connectionString: server.url })
})
afterAll(async () => {
  await pool.end()
  await server.stop()
})

let count = 0
const newPrefix = (): string => `schema_${process.pid}_${++count}_`
const storeOf = (options: object): SqlSessionStore =>
  new SqlSessionStore({ database: pool, cleanupInterval: 0, ...options })

describe('in PostgreSQL', () => {
  test('twenty stores make the tables once, all at once', async () => {
    const prefix = newPrefix()
    const stores = Array.from({ length: 20 }, () => storeOf({ prefix }))
    const session = record()
    const results = await Promise.all(stores.map((store) => store.create(session.id, session, 60)))
    expect(results.filter(Boolean)).toHaveLength(1)
  })

  test('a store that may not make them says what to do, and works as soon as they are there', async () => {
    const prefix = newPrefix()
    const store = storeOf({ prefix, migrate: false })
    await expect(store.get('x')).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringContaining('call migrate()'),
    })
    await storeOf({ prefix }).migrate()
    expect(await store.get('x')).toBeNull()
  })

  test('a role with least rights works on tables that are there, and makes none', async () => {
    const prefix = newPrefix()
    const role = `least_${process.pid}_${count}`
    await storeOf({ prefix }).migrate()
    await pool.query(`create role ${role} login`)
    await pool.query(
      `grant select, insert, update, delete on ${prefix}sessions, ${prefix}users, ${prefix}names to ${role}`,
    )
    const url = new URL(server.url)
    url.username = role
    const store = sqlStore(url.href, { prefix, cleanupInterval: 0, timeout: 20_000 })
    const other = sqlStore(url.href, { prefix: newPrefix(), cleanupInterval: 0, timeout: 20_000 })
    try {
      const session = record()
      expect(await store.create(session.id, session, 60)).toBe(true)
      expect(await store.clearExpired()).toBe(0)
      await expect(other.get('x')).rejects.toMatchObject({
        code: 'STORE_UNAVAILABLE',
        message: expect.stringContaining('lacks rights'),
      })
    } finally {
      await Promise.all([store.close(), other.close()])
      await pool.query(`drop owned by ${role}; drop role ${role}`)
    }
  })

  test('tables of a later version that says it can be read are used, others are left alone', async () => {
    const prefix = newPrefix()
    await storeOf({ prefix }).migrate()
    await pool.query(`update ${prefix}names set n = 99 where name = 'schema'`)
    const session = record()
    expect(await storeOf({ prefix }).create(session.id, session, 60)).toBe(true)

    await pool.query(`update ${prefix}names set text = '98' where name = 'schema'`)
    await expect(storeOf({ prefix }).get(session.id)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('version 99'),
    })
    const { rows } = await pool.query(`select n, text from ${prefix}names where name = 'schema'`)
    expect(rows).toEqual([{ n: '99', text: '98' }])
  })

  test('what a later version writes into a record is still there after a change by this one', async () => {
    const prefix = newPrefix()
    const store = storeOf({ prefix })
    const session = record()
    await store.create(session.id, session, 60)
    await pool.query(`update ${prefix}sessions set version = version + 1, meta = replace(meta, '{', '{"novelty":[1],')`)
    const read = await store.get(session.id)
    const at = Date.now()
    const change = { generation: 1, at, expiresAt: at + 1_000, set: new Map([['a', '1']]), madeOn: read ?? undefined }
    expect(await store.update(session.id, change, 60)).toMatchObject({ status: 'updated' })
    const { rows } = await pool.query(`select meta::json -> 'novelty' as novelty from ${prefix}sessions`)
    expect(rows).toEqual([{ novelty: [1] }])
  })

  test('a migration of Kysely makes and drops them, inside of its transaction', async () => {
    const prefix = newPrefix()
    const db = new Kysely<Record<string, Record<string, unknown>>>({
      dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: server.url }) }),
    })
    const migration = sessionMigration({ prefix })
    const tables = async (): Promise<number> => {
      const { rows } = await sql<{
        n: string
      }>`select count(*) as n from pg_tables where tablename like ${`${prefix}%`}`.execute(db)
      return Number(rows[0]?.n)
    }
    await expect(
      db.transaction().execute(async (transaction) => {
        await migration.up(transaction)
        throw new Error('undone')
      }),
    ).rejects.toThrow('undone')
    expect(await tables()).toBe(0)
    await db.transaction().execute((transaction) => migration.up(transaction))
    expect(await tables()).toBe(3)
    await migration.up(db)
    await migration.down(db)
    expect(await tables()).toBe(0)
    await db.destroy()
  })

  test('the statements can be run by hand, in a schema', async () => {
    const schema = `s_${process.pid}`
    await pool.query(`create schema ${schema}`)
    for (const statement of sessionSchema('postgres', { schema, prefix: 'my_' })) await pool.query(statement)
    const store = storeOf({ schema, prefix: 'my_', migrate: false })
    const session = record()
    expect(await store.create(session.id, session, 60)).toBe(true)
    expect(await store.clearExpired()).toBe(0)
    await pool.query(`drop schema ${schema} cascade`)
  })
})

test.each([
  ['prefix', 'a-b'],
  ['prefix', '1a'],
  ['prefix', ''],
  ['prefix', 'a'.repeat(41)],
  ['prefix', 'x"; drop table customers; --'],
  ['schema', 'a.b'],
])('a %s that is called %j is refused', (option, name) => {
  expect(() => storeOf({ [option]: name })).toThrow(`${option} must be letters, digits and _`)
})
