// SQLite in this process: what a request asks of the store is answered within the call, and where others hold a lock it waits for
// that in turns of the event loop, as every call does.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from '@jest/globals'
import Libsql from 'libsql'
import type { SessionChange, SessionData, UpdateResult } from 'sojourn'
import { type SqlDatabase, type SqlDriver, SqlSessionStore } from 'sojourn/sql'
import { twinOf } from '../../../src/record/at-once.js'
import { recordOf } from '../../support/records.js'

const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-at-once-'))
afterAll(() => rmSync(DIRECTORY, { recursive: true, force: true }))

interface Connection {
  exec(sql: string): void
  close(): void
}

let files = 0
const newPath = (): string => join(DIRECTORY, `${++files}.db`)

function changeOf(record: SessionData, text: string): SessionChange {
  const at = Date.now()
  return { generation: 1, at, expiresAt: at + 3_600_000, set: new Map([['a', text]]), madeOn: record }
}

/** What the twin of a method answers, `undefined` when nothing. */
function getNow(store: SqlSessionStore, id: string): SessionData | null | undefined {
  return twinOf(store.get)?.call(store, id)
}
function updateNow(store: SqlSessionStore, record: SessionData, text: string): UpdateResult | undefined {
  return twinOf(store.update)?.call(store, record.id, changeOf(record, text), 60)
}

async function begin(database: SqlDatabase): Promise<{ store: SqlSessionStore; record: SessionData }> {
  const store = new SqlSessionStore({ database, cleanupInterval: 0, durability: 'relaxed', timeout: 20_000 })
  const { id } = recordOf()
  await store.create(id, recordOf({ id }), 60)
  return { store, record: (await store.get(id)) as SessionData }
}

const CLIENTS: [string, (path: string) => Promise<SqlDatabase>][] = [['libsql', async (path) => new Libsql(path)]]
// Others have it only behind a flag, or not at all.
if (Number(process.versions.node.split('.')[0]) > 22) {
  CLIENTS.push([
    'node:sqlite',
    async (path) => {
      const name = 'node:sqlite'
      const { DatabaseSync } = (await import(name)) as { DatabaseSync: new (path: string) => SqlDatabase }
      return new DatabaseSync(path)
    },
  ])
}

describe.each(CLIENTS)('with %s', (_client, open) => {
  test('a session is read and changed within the call', async () => {
    const { store, record } = await begin(await open(newPath()))
    expect(getNow(store, record.id)).toBe(record)
    expect(getNow(store, 'unknown')).toBeNull()
    const result = updateNow(store, record, '"1"') as { record: SessionData }
    expect(result).toMatchObject({ status: 'updated' })
    expect(getNow(store, record.id)).toBe(result.record)
    expect((await store.get(record.id))?.fields.get('a')).toBe('"1"')
  })

  test('a change of what somebody else has changed meanwhile waits for the store, which merges it', async () => {
    const path = newPath()
    const { store, record } = await begin(await open(path))
    const other = new SqlSessionStore({ database: await open(path), cleanupInterval: 0, timeout: 20_000 })
    const at = Date.now()
    const others = { generation: 1, at, expiresAt: at + 3_600_000, set: new Map([['b', '"2"']]) }
    expect(await other.update(record.id, others, 60)).toMatchObject({ status: 'updated' })
    expect(updateNow(store, record, '"1"')).toBeUndefined()
    expect(await store.update(record.id, changeOf(record, '"1"'), 60)).toMatchObject({ status: 'updated' })
    expect(Object.fromEntries((getNow(store, record.id) as SessionData).fields)).toMatchObject({ a: '"1"', b: '"2"' })
  })

  test('nothing is done within the call while others hold the lock, and all is once they do not', async () => {
    const path = newPath()
    const { store, record } = await begin(await open(path))
    // Of the same client: two copies of SQLite in one process do not see each other's locks.
    const other = (await open(path)) as unknown as Connection
    // Without a log of writes beside the file a writer locks readers out, too.
    other.exec('begin exclusive')
    expect(getNow(store, record.id)).toBeUndefined()
    expect(updateNow(store, record, '"1"')).toBeUndefined()
    const waiting = Promise.all([store.get(record.id), store.update(record.id, changeOf(record, '"1"'), 60)])
    // The event loop goes on, and the lock is given up in it.
    await new Promise((resolve) => setImmediate(resolve))
    other.exec('commit')
    other.close()
    expect(await waiting).toMatchObject([{ id: record.id }, { status: 'updated' }])
    expect(getNow(store, record.id)?.fields.get('a')).toBe('"1"')
  })

  test('a store that was closed answers nothing', async () => {
    const { store, record } = await begin(await open(newPath()))
    await store.close()
    expect(getNow(store, record.id)).toBeUndefined()
    expect(updateNow(store, record, '"1"')).toBeUndefined()
    await expect(store.get(record.id)).rejects.toMatchObject({ message: 'The store has been closed.' })
  })

  test('what fails within the call says so as one that was waited for', async () => {
    const database = await open(newPath())
    const { store, record } = await begin(database)
    ;(database as unknown as Connection).exec('drop table sojourn_sessions')
    expect(() => getNow(store, record.id)).toThrow(/call migrate\(\)/)
    expect(() => updateNow(store, record, '"1"')).toThrow(/call migrate\(\)/)
  })
})

test('a driver that has only promises is waited for', async () => {
  const plain = await begin(new Libsql(newPath()))
  const rows = async (): Promise<never> => {
    throw new Error('Nobody asks.')
  }
  const driver: SqlDriver = { dialect: 'sqlite', query: rows, transaction: rows }
  const store = new SqlSessionStore({ database: driver, migrate: false, cleanupInterval: 0 })
  expect(getNow(store, plain.record.id)).toBeUndefined()
  expect(updateNow(store, plain.record, '"1"')).toBeUndefined()
})
