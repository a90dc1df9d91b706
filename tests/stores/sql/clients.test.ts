// Each client of a database that the SQL store knows, found by its shape: what is handed in is used and never closed.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { CamelCasePlugin, Kysely, ParseJSONResultsPlugin, PostgresDialect, SqliteDialect } from 'kysely'
import Libsql from 'libsql'
import pg from 'pg'
import postgres from 'postgres'
import { type SqlDatabase, SqlSessionStore, sqlStore } from 'sojourn/sql'
import { conformanceChecks } from 'sojourn/testing'
import { sharedPostgres } from '../../support/postgres.js'

const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-clients-'))
let server: Awaited<ReturnType<typeof sharedPostgres>>
beforeAll(async () => {
  server = await sharedPostgres()
})
afterAll(async () => {
  await server.stop()
  rmSync(DIRECTORY, { recursive: true, force: true })
})

interface Opened {
  readonly database: SqlDatabase
  close(): Promise<unknown> | unknown
}

const CLIENTS: Record<string, () => Promise<Opened> | Opened> = {
  'a Client of pg': async () => {
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    return { database: client, close: () => client.end() }
  },
  'postgres.js': () => {
    const sql = postgres(server.url, { onnotice: () => {} })
    return { database: sql, close: () => sql.end() }
  },
  PGlite: async () => {
    // Its own types need those of a browser.
    const name = '@electric-sql/pglite'
    const { PGlite } = (await import(name)) as { PGlite: { create(): Promise<{ close(): Promise<void> }> } }
    const database = await PGlite.create()
    return { database, close: () => database.close() }
  },
  'Kysely on PostgreSQL': () => {
    const pool = new pg.Pool({ connectionString: server.url })
    const database = new Kysely({
      dialect: new PostgresDialect({ pool }),
      plugins: [new CamelCasePlugin(), new ParseJSONResultsPlugin()],
    })
    return { database, close: () => database.destroy() }
  },
  'Kysely on SQLite': () => {
    const file = openLibsql('kysely.db')
    const database = new Kysely({ dialect: new SqliteDialect({ database: file }), plugins: [new CamelCasePlugin()] })
    return { database, close: () => database.destroy() }
  },
  libsql: () => {
    const database = openLibsql('libsql.db')
    return { database, close: () => database.close() }
  },
}

function openLibsql(name: string): Libsql.Database {
  const database = new Libsql(join(DIRECTORY, name))
  database.pragma('journal_mode = wal')
  database.pragma('synchronous = off')
  return database
}

/**
 * Texts, numbers, transactions and counts of rows; the rest is a matter of statements, which all clients send alike.
 */
const OF_A_CLIENT =
  /any field name and text|never overwrites|writes and removes metadata|touch\(\) moves|100 concurrent changes|20 concurrent regenerations|all fields$|leave exactly 3$|epoch\(\) is a count|one owner|comes back as it was written|20 who want a lease|of 50 who|misses no session/

// Node 20 has none.
const nodeSqlite = process.getBuiltinModule?.('node:sqlite') as
  | { DatabaseSync: new (path: string) => { exec(sql: string): void; close(): void } }
  | undefined
if (nodeSqlite) {
  CLIENTS['node:sqlite'] = () => {
    const database = new nodeSqlite.DatabaseSync(join(DIRECTORY, 'node.db'))
    database.exec('pragma journal_mode = wal; pragma synchronous = off')
    return { database, close: () => database.close() }
  }
}

describe.each(Object.entries(CLIENTS))('%s', (name, open) => {
  let opened: Opened
  beforeAll(async () => {
    opened = await open()
  })
  afterAll(async () => {
    await opened.close()
  })
  const createStore = (): SqlSessionStore =>
    new SqlSessionStore({
      database: opened.database,
      prefix: `${name.replace(/\W/g, '_')}_`,
      cleanupInterval: 0,
      durability: 'relaxed',
      // A busy machine is no fault of a client.
      timeout: 20_000,
    })

  test('keeps the promises that are a matter of the client', async () => {
    const failed: string[] = []
    for (const { name, guarantee, run } of conformanceChecks({ createStore })) {
      if (!OF_A_CLIENT.test(name) || guarantee === 'shared') continue
      await run().catch((error: unknown) => failed.push(`${name}: ${String(error)}`))
    }
    expect(failed).toEqual([])
  })
})

test.each([
  ['nothing', null],
  ['an object', {}],
  ['a client of Redis', { get: () => {}, eval: () => {} }],
  ['a path', './sessions.db'],
])('%s is no database', (_what, database) => {
  expect(() => new SqlSessionStore({ database: database as object })).toThrow('database is none that is known')
})

test.each([
  ['a scheme that is not known', 'redis://localhost', 'url must begin with'],
  ['no scheme', './sessions.db', 'url must begin with'],
])('a url with %s is refused', (_what, url, message) => {
  expect(() => sqlStore(url)).toThrow(message)
})

test('either a database or a url', () => {
  expect(() => new SqlSessionStore({})).toThrow('needs either database or url')
  expect(() => new SqlSessionStore({ url: 'sqlite:a.db', database: {} })).toThrow('needs either database or url')
})
