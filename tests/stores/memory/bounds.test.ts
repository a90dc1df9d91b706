// How much the memory store takes at most: a flood of sessions costs the oldest ones, never the process.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@jest/globals'
import { MemorySessionStore, SessionData, type SessionDataInit, SessionManager } from 'sojourn'
import { SECRET } from '../../support/http.js'

const START = 1_700_000_000_000

function createStore(maxBytes: number): MemorySessionStore {
  return new MemorySessionStore({ maxBytes, cleanupInterval: 0, clock: () => START })
}

function record(id: string, members: Partial<SessionDataInit> = {}): SessionData {
  const times = { createdAt: START, updatedAt: START, lastAccessedAt: START, expiresAt: START + 1_000_000 }
  const made = { id, tokenHash: 'hash', generation: 1, ...times, absoluteExpiresAt: START + 2_000_000 }
  return new SessionData({ ...made, fields: [['a', 'x'.repeat(10_000)]], ...members })
}

async function kept(store: MemorySessionStore, ids: string[]): Promise<string> {
  const found: string[] = []
  for (const id of ids) if (await store.exists(id)) found.push(id)
  return found.join(' ')
}

const add = (store: MemorySessionStore, id: string, members?: Partial<SessionDataInit>): Promise<boolean> =>
  store.create(id, record(id, members), 60)

test('what is over goes first, then who has not logged in, then who was used least recently', async () => {
  // Room for four, and not for a tombstone more.
  const store = createStore(41_200)
  await add(store, 'user1', { userId: 1 })
  await add(store, 'user2', { userId: 2 })
  await add(store, 'anonymous')
  await add(store, 'over')
  await store.end('over', { reason: 'logout', at: START }, 60)
  await add(store, 'new1', { userId: 3 })
  expect([await kept(store, ['user1', 'user2', 'anonymous', 'new1']), (await store.get('over'))?.id]).toEqual([
    'user1 user2 anonymous new1',
    undefined,
  ])
  await add(store, 'new2', { userId: 4 })
  expect(await kept(store, ['user1', 'user2', 'anonymous', 'new1', 'new2'])).toBe('user1 user2 new1 new2')
  await store.touch('user1', 600, START)
  await add(store, 'new3', { userId: 5 })
  expect(await kept(store, ['user1', 'user2', 'new1', 'new2', 'new3'])).toBe('user1 new1 new2 new3')
})

test('a session that grows makes others go, and never itself', async () => {
  const store = createStore(45_000)
  for (const id of ['a', 'b', 'c', 'd']) await add(store, id, { userId: id })
  await add(store, 'small', { fields: [] })
  const set = new Map([['b', 'x'.repeat(20_000)]])
  await store.update('small', { generation: 1, at: START, expiresAt: START + 1_000_000, set }, 60)
  expect(await kept(store, ['a', 'b', 'c', 'd', 'small'])).toBe('c d small')
  await add(store, 'huge', { fields: [['a', 'x'.repeat(100_000)]] })
  expect(await kept(store, ['c', 'd', 'small', 'huge'])).toBe('huge')
})

test('what is counted is what is there, whatever was done', async () => {
  const store = createStore(1_000_000)
  await add(store, 'a')
  const one = store.bytes
  expect(one).toBeGreaterThan(10_000)
  const at = { generation: 1, at: START, expiresAt: START + 1_000_000 }
  await store.update('a', { ...at, set: new Map([['b', 'é'.repeat(500)]]) }, 60)
  expect(store.bytes - one).toBeGreaterThanOrEqual(1_000)
  await store.touch('a', 600, START)
  await store.update('a', { ...at, delete: ['b'] }, 60)
  expect(store.bytes).toBe(one)
  await add(store, 'b')
  expect(store.bytes).toBe(2 * one)
  await store.delete('b')
  await store.end('a', { reason: 'logout', at: START }, 60)
  expect(store.bytes).toBeLessThan(1_000)
  await store.delete('a')
  expect(store.bytes).toBe(0)
})

test('a live session that had to go is told to who asks, one that is over is not', async () => {
  const store = createStore(25_000)
  const told: unknown[] = []
  const stop = store.onForgotten((session) => told.push(session))
  await add(store, 'over')
  await store.end('over', { reason: 'logout', at: START }, 60)
  await add(store, 'a', { userId: 1, logicalId: 'logical' })
  await add(store, 'b', { userId: 2 })
  await add(store, 'c', { userId: 3 })
  expect(told).toEqual([{ id: 'a', userId: 1, logicalId: 'logical' }])
  stop()
  await add(store, 'd', { userId: 4 })
  expect(told).toHaveLength(1)
})

test.each([0, -1, 1.5, Number.NaN])('maxBytes %s is refused', (maxBytes) => {
  expect(() => createStore(maxBytes)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
})

test('a manager goes on when sessions are forgotten under it', async () => {
  const store = new MemorySessionStore({ maxBytes: 100_000, cleanupInterval: 0 })
  const manager = new SessionManager({ secret: SECRET, store })
  const ids: string[] = []
  for (let n = 0; n < 50; n++) ids.push((await manager.create({ fields: { text: 'x'.repeat(10_000) } })).id)
  expect(store.bytes).toBeLessThanOrEqual(100_000)
  expect(await manager.get(ids.at(-1) as string)).not.toBeNull()
  expect(await manager.get(ids[0] as string)).toBeNull()
  await manager.close()
})

test('by default, 2,000 sessions of 200 KB end no process that has a heap of 300 MB', async () => {
  const program = `
    import { MemorySessionStore, SessionManager } from './src/index.ts'
    const store = new MemorySessionStore({ warnInProduction: false })
    const manager = new SessionManager({ secret: '${SECRET}', store })
    const used = []
    for (let n = 1; n <= 2000; n++) {
      await manager.create({ fields: { text: 'x'.repeat(199_990) + n } })
      if (n % 500 === 0) {
        gc()
        used.push(process.memoryUsage().heapUsed / 1e6)
      }
    }
    console.log(JSON.stringify({ used, size: store.size }))`
  const { NODE_OPTIONS: _jestOptions, ...env } = process.env
  const flags = ['--max-old-space-size=300', '--expose-gc', '--import', 'tsx', '--input-type=module', '--eval', program]
  const child = spawn(process.execPath, flags, {
    cwd: fileURLToPath(new URL('../../..', import.meta.url)),
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 60_000,
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  const [code] = (await once(child, 'close')) as [number | null]
  expect(code).toBe(0)
  const { used } = JSON.parse(output) as { used: number[] }
  expect(used).toHaveLength(4)
  // Full after the first quarter, and flat from then on: each quarter is 100 MB of text, and collections come when they like.
  for (const each of used) expect(Math.abs(each - (used[0] as number))).toBeLessThan(45)
}, 60_000)
