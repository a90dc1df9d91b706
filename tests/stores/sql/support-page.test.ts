// The statements of the page for support, each run on the database that it is for.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import Libsql from 'libsql'
import { createPool } from 'mysql2/promise'
import pg from 'pg'
import { SessionManager } from 'sojourn'
import { SqlSessionStore } from 'sojourn/sql'
import { sharedMariadb } from '../../support/mariadb.js'
import { readPage } from '../../support/pages.js'
import { sharedPostgres } from '../../support/postgres.js'

interface Console {
  readonly database: object
  run(sql: string): Promise<readonly Record<string, unknown>[]>
  close(): Promise<void>
}

async function postgres(): Promise<Console> {
  const server = await sharedPostgres()
  const pool = new pg.Pool({ connectionString: server.url })
  return {
    database: pool,
    run: async (sql) => (await pool.query<Record<string, unknown>>(sql)).rows,
    async close() {
      await pool.end()
      await server.stop()
    },
  }
}

async function sqlite(): Promise<Console> {
  const database = new Libsql(':memory:')
  return {
    database,
    run: async (sql) => {
      if (sql.startsWith('select')) return database.prepare(sql).all() as Record<string, unknown>[]
      database.exec(sql)
      return []
    },
    close: async () => void database.close(),
  }
}

async function mariadb(): Promise<Console> {
  const server = await sharedMariadb()
  const pool = createPool({ uri: server.url })
  return {
    database: pool,
    run: async (sql) => {
      const [rows] = await pool.query(sql)
      return Array.isArray(rows) ? (rows as Record<string, unknown>[]) : []
    },
    async close() {
      await pool.end()
      await server.stop()
    },
  }
}

const { text } = readPage('docs/operations/sql-support.md')

/** The statements below a heading. */
function statementsOf(heading: string): string[] {
  const section = text.slice(text.indexOf(`\n## ${heading}`)).split('\n## ')[1] ?? ''
  return [...section.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql = '']) => sql.trim())
}

describe.each([
  ['PostgreSQL', postgres, 6],
  ['SQLite', sqlite, 2],
  ['MariaDB and MySQL', mariadb, 2],
])('for %s', (heading, open, count) => {
  let opened: Console
  beforeAll(async () => {
    opened = await open()
  })
  afterAll(() => opened.close())

  test('they say who is logged in, and end the sessions of a user for good', async () => {
    const statements = statementsOf(heading)
    expect(statements).toHaveLength(count)
    const store = new SqlSessionStore({ database: opened.database, cleanupInterval: 0, timeout: 20_000 })
    const sessions = new SessionManager({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja', store, storeTimeout: 20 })
    const made = []
    for (const userId of ['ann', 'ann', 'ben', 42, undefined]) {
      made.push(
        await sessions.create({ ...(userId !== undefined && { userId }), fields: { large: 'x'.repeat(9_000) } }),
      )
    }
    const first = made[0] as (typeof made)[number]
    const rows = await opened.run(statements[0] as string)
    expect(Object.fromEntries(rows.map(({ user_id, sessions }) => [user_id, Number(sessions)]))).toEqual({
      '"ann"': 2,
      '"ben"': 1,
      '42': 1,
    })
    for (const statement of statements) await opened.run(statement)
    expect(await sessions.sessionsOf('ann')).toEqual([])
    expect(await sessions.sessionsOf('ben')).toHaveLength(1)
    expect(await sessions.validate(first.id)).toMatchObject({ isValid: false })
    expect((await store.get(first.id))?.ended).toMatchObject({ reason: 'revoked', by: 'support' })
    await sessions.close()
    await store.close()
  })
})
