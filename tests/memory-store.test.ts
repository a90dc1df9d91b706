// What the memory store promises beyond the conformance suite: its bound, its clean-up, its warning.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import { MemorySessionStore, type MemorySessionStoreOptions, SessionData, type SessionDataInit } from 'sojourn'
import { FakeClock } from 'sojourn/testing'

const clock = new FakeClock()
const MINUTE = 60_000

const stores: MemorySessionStore[] = []
afterEach(async () => {
  for (const store of stores.splice(0)) {
    store.clear()
    await store.close()
  }
})

function createStore(options: MemorySessionStoreOptions = {}): MemorySessionStore {
  const store = new MemorySessionStore({ cleanupInterval: 0, clock: clock.now, ...options })
  stores.push(store)
  return store
}

function record(id: string, members: Partial<SessionDataInit> = {}): SessionData {
  const now = clock.now()
  return new SessionData({
    id,
    tokenHash: 'hash',
    generation: 1,
    createdAt: now,
    updatedAt: now,
    lastAccessedAt: now,
    expiresAt: now + 30 * MINUTE,
    absoluteExpiresAt: now + 720 * MINUTE,
    fields: [['a', '1']],
    ...members,
  })
}

const add = (store: MemorySessionStore, id: string, members?: Partial<SessionDataInit>): Promise<boolean> =>
  store.create(id, record(id, members), 1800)

async function kept(store: MemorySessionStore, ids: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const id of ids) if (await store.exists(id)) found.push(id)
  return found
}

function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

describe('maxSessions', () => {
  test('the oldest session without a user goes first', async () => {
    const store = createStore({ maxSessions: 3 })
    await add(store, 'u1', { userId: 1 })
    await add(store, 'a1')
    await add(store, 'a2')
    await add(store, 'a3')
    expect(await kept(store, ['u1', 'a1', 'a2', 'a3'])).toEqual(['u1', 'a2', 'a3'])
    await add(store, 'u2', { userId: 'two' })
    await add(store, 'u3', { userId: 3 })
    expect(await kept(store, ['u1', 'a2', 'a3', 'u2', 'u3'])).toEqual(['u1', 'u2', 'u3'])
    expect(store.size).toBe(3)
  })

  test('when all have a user, the oldest of them goes', async () => {
    const store = createStore({ maxSessions: 2 })
    for (const id of ['u1', 'u2', 'u3']) await add(store, id, { userId: id })
    expect(await kept(store, ['u1', 'u2', 'u3'])).toEqual(['u2', 'u3'])
  })

  test('user 0 and user "" are users', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'u0', { userId: 0 })
    await add(store, 'a1')
    await add(store, 'a2')
    expect(await kept(store, ['u0', 'a1', 'a2'])).toEqual(['u0', 'a2'])
  })

  test('activity makes young again: touch, update and set, but not get', async () => {
    const store = createStore({ maxSessions: 4 })
    for (const id of ['a1', 'a2', 'a3', 'a4']) await add(store, id)
    const at = clock.now()
    await store.touch('a1', 1800)
    await store.update('a2', { generation: 1, at, expiresAt: at + MINUTE, set: new Map([['a', '2']]) }, 60)
    await store.get('a3')
    await store.set('a4', record('a4'), 1800)
    await add(store, 'a5')
    expect(await kept(store, ['a1', 'a2', 'a3', 'a4', 'a5'])).toEqual(['a1', 'a2', 'a4', 'a5'])
    await add(store, 'a6')
    expect(await kept(store, ['a1', 'a2', 'a4', 'a5', 'a6'])).toEqual(['a2', 'a4', 'a5', 'a6'])
  })

  test('who logs in counts as a user from then on', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    const at = clock.now()
    await store.update('a1', { generation: 1, at, expiresAt: at + MINUTE, metadata: { userId: 1 } }, 60)
    await add(store, 'a3')
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a1', 'a3'])
  })

  test('a regeneration at the bound evicts nobody', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    const next = record('a3', { generation: 2, userId: 1 })
    await store.regenerate('a2', { generation: 1, at: clock.now(), next, keep: 'all' }, 1800)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a1', 'a3'])
  })

  test('writing an existing session at the bound evicts nobody', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    await add(store, 'a2')
    await store.set('a1', record('a1'), 1800)
    expect(await add(store, 'a2')).toBe(false)
    expect(store.size).toBe(2)
  })

  test('the default is 100,000', async () => {
    const store = createStore()
    for (let index = 0; index < 100_050; index++) await add(store, index.toString(16).padStart(8, '0'))
    expect(store.size).toBe(100_000)
    expect(await store.exists('00000031')).toBe(false)
    expect(await store.exists('00000032')).toBe(true)
  })
})

describe('size, clear and isolation', () => {
  test('size follows what comes and goes', async () => {
    const store = createStore()
    expect(store.size).toBe(0)
    await add(store, 'a1')
    await add(store, 'a1')
    await add(store, 'a2', { userId: 1 })
    expect(store.size).toBe(2)
    await store.end('a1')
    await store.end('a1')
    await store.delete('absent')
    expect(store.size).toBe(1)
    store.clear()
    expect(store.size).toBe(0)
    expect(await store.get('a2')).toBeNull()
  })

  test('after clear() the store works as a new one', async () => {
    const store = createStore({ maxSessions: 2 })
    await add(store, 'a1')
    store.clear()
    for (const id of ['a1', 'a2', 'a3']) expect(await add(store, id)).toBe(true)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a2', 'a3'])
    expect(await store.clearExpired()).toBe(0)
  })

  test('nothing that a caller holds alters what the store keeps', async () => {
    const store = createStore()
    const fields = new Map([['a', '1']])
    await store.create('a1', record('a1', { fields }), 1800)
    fields.set('a', '2')
    const got = (await store.get('a1')) as SessionData
    expect(() => (got.fields as Map<string, string>).set('a', '3')).toThrow(TypeError)
    expect(() => Object.assign(got, { userId: 'mallory' })).toThrow(TypeError)
    expect((await store.get('a1'))?.fields.get('a')).toBe('1')
    expect((await store.get('a1'))?.userId).toBeUndefined()
  })

  test('two stores share nothing', async () => {
    const [one, two] = [createStore(), createStore()]
    await add(one, 'a1')
    expect(await two.get('a1')).toBeNull()
    expect(two.size).toBe(0)
  })
})

describe('a store of many sessions', () => {
  test('gives back each one exactly, those that have rested for long as well', async () => {
    const store = createStore()
    const made = Array.from({ length: 3_000 }, (_unused, n) =>
      record(`${n.toString(16).padStart(8, '0')}`, {
        userId: n % 3 === 0 ? `user ${n}` : n % 3 === 1 ? n : undefined,
        idleTimeoutMs: n % 5 === 0 ? n + 1 : undefined,
        persistent: n % 7 === 0 ? n % 2 === 0 : undefined,
        previousToken: n % 11 === 0 ? { hash: 'previous', until: n } : undefined,
        fields: [
          ['', '""'],
          ['__proto__', `{"n":${n}}`],
          ['line\nfeed', JSON.stringify('\n\u0000\u{1F36A}')],
          ['long', JSON.stringify('x'.repeat(n % 2 === 0 ? 10 : 5_000))],
        ],
      }),
    )
    for (const one of made) await store.create(one.id, one, 60)
    for (const one of made) expect((await store.get(one.id))?.toJSON()).toEqual(one.toJSON())
  })
})

describe('clean-up', () => {
  test('removes what has expired, and nothing else', async () => {
    const store = createStore()
    await add(store, 'a1', { expiresAt: clock.now() - 1 })
    await add(store, 'a2', { absoluteExpiresAt: clock.now() })
    await add(store, 'a3')
    expect(store.size).toBe(3)
    expect(await store.clearExpired()).toBe(2)
    expect(await kept(store, ['a1', 'a2', 'a3'])).toEqual(['a3'])
    expect(store.size).toBe(1)
  })

  test('a second call joins the one that is under way', async () => {
    const store = createStore()
    for (let index = 0; index < 100; index++) await add(store, `a${index}`, { expiresAt: clock.now() })
    const [first, second] = [store.clearExpired(), store.clearExpired()]
    expect(second).toBe(first)
    expect(await first).toBe(100)
    expect(await store.clearExpired()).toBe(0)
  })

  test('runs by itself while it is started, by the store’s own clock', async () => {
    jest.useFakeTimers()
    try {
      const own = new FakeClock()
      const store = createStore({ cleanupInterval: 60, clock: own.now })
      await add(store, 'a1')
      await jest.advanceTimersByTimeAsync(10 * MINUTE)
      expect(store.size).toBe(1)
      own.advance(30 * MINUTE)
      await jest.advanceTimersByTimeAsync(MINUTE - 1)
      await jest.advanceTimersByTimeAsync(1)
      expect(store.size).toBe(0)

      store.stopCleanup()
      expect(jest.getTimerCount()).toBe(0)
      store.startCleanup()
      store.startCleanup()
      expect(jest.getTimerCount()).toBe(1)
      await store.close()
      expect(jest.getTimerCount()).toBe(0)
    } finally {
      jest.useRealTimers()
    }
  })

  test('cleanupInterval 0 starts none, and a very long one does not fire at once', async () => {
    jest.useFakeTimers()
    try {
      createStore({ cleanupInterval: 0 }).startCleanup()
      expect(jest.getTimerCount()).toBe(0)
      const own = new FakeClock()
      const store = createStore({ cleanupInterval: 10_000_000, clock: own.now })
      await add(store, 'a1')
      own.advance(999 * MINUTE)
      await jest.advanceTimersByTimeAsync(60 * MINUTE)
      expect(store.size).toBe(1)
    } finally {
      jest.useRealTimers()
    }
  })

  test('the timer does not hold the process', async () => {
    const program = `
      import { MemorySessionStore } from './src/index.ts'
      globalThis.store = new MemorySessionStore({ cleanupInterval: 3600 })
      console.log('made')`
    const { NODE_OPTIONS: _jestOptions, ...env } = process.env
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 20_000,
    })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
    const [code] = (await once(child, 'close')) as [number | null]
    expect([output.trim(), code]).toEqual(['made', 0])
  })

  test('of 1,000,000 expired sessions never stalls the event loop for 10 ms', async () => {
    const store = createStore({ maxSessions: 1_000_000 })
    const expired = record('all', { expiresAt: clock.now() })

    /** Fills the store, sweeps it, and returns how long each turn of the event loop took, in order of length. */
    async function sweep(): Promise<number[]> {
      // One record under a million IDs: the sweep looks at the times and at the ID only.
      for (let index = 0; index < 1_000_000; index++) {
        void store.set(((index * 2654435761) >>> 0).toString(16).padStart(8, '0'), expired, 1)
      }
      expect(store.size).toBe(1_000_000)
      // The garbage of the filling is not the sweep's: collecting it meanwhile would be taken for a stall.
      collectGarbage()
      const turns: number[] = []
      let isDone = false
      let last = performance.now()
      let used = process.cpuUsage()
      const sweeping = store.clearExpired().finally(() => {
        isDone = true
      })
      while (!isDone) {
        await turn()
        const now = performance.now()
        const { user, system } = process.cpuUsage(used)
        // On a busy machine a turn takes as long as the others please: what it used of the processor is its own.
        turns.push(Math.min(now - last, (user + system) / 1000))
        last = now
        used = process.cpuUsage()
      }
      expect(await sweeping).toBe(1_000_000)
      expect(store.size).toBe(0)
      return turns.sort((a, b) => a - b)
    }

    // A turn that garbage collection or another process prolongs is not the store's; there are few of them, a different
    // one each time. The longest turn of all is a figure of the bench.
    const longest: number[] = []
    while (longest.length < 3 && !longest.some((ms) => ms < 10)) {
      const turns = await sweep()
      expect(turns.length).toBeGreaterThan(20)
      expect(turns[Math.floor(turns.length / 2)]).toBeLessThan(5)
      longest.push(turns[Math.floor(turns.length * 0.98)] ?? Number.POSITIVE_INFINITY)
    }
    expect(Math.min(...longest)).toBeLessThan(10)
  })
})

describe('the warning in production', () => {
  async function warningsOf(env: string | undefined, options?: MemorySessionStoreOptions): Promise<string[]> {
    const before = process.env['NODE_ENV']
    const emitted = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      if (env === undefined) delete process.env['NODE_ENV']
      else process.env['NODE_ENV'] = env
      const store = createStore(options)
      await add(store, 'a1')
      await store.clearExpired()
      store.startCleanup()
      return emitted.mock.calls.map(([, options]) => (options as { code: string }).code)
    } finally {
      emitted.mockRestore()
      process.env['NODE_ENV'] = before
    }
  }

  test('is given once by a store', async () => {
    expect(await warningsOf('production')).toEqual(['SOJOURN_MEMORY_STORE'])
  })

  test('can be turned off, and is not given elsewhere', async () => {
    expect(await warningsOf('production', { warnInProduction: false })).toEqual([])
    expect(await warningsOf('development')).toEqual([])
    expect(await warningsOf(undefined)).toEqual([])
  })
})

describe('options', () => {
  test.each([
    ['maxSessions', [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '10', null]],
    ['cleanupInterval', [-1, Number.NaN, Number.POSITIVE_INFINITY, '10', null]],
  ])('%s out of range is refused by name', (name, values) => {
    for (const value of values) {
      expect(() => createStore({ [name]: value })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
      expect(() => createStore({ [name]: value })).toThrow(`${name} is ${String(value)}; use`)
    }
  })
})
