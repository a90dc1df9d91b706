// What is peculiar to the Redis store: keys, TTL, round trips, scripts, connections, rights.
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { inspect, promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type Cluster, Redis } from 'ioredis'
import type {
  Regeneration,
  SessionChange,
  SessionData,
  SessionDataInit,
  SessionEnd,
  SessionError,
  UserEntry,
} from 'sojourn'
import { type RedisClient, RedisSessionStore, type RedisSessionStoreOptions } from 'sojourn/redis'
import { checkStore } from 'sojourn/testing'
import { testApp } from '../support/app.js'
import { Client, listen, type TestServer, until } from '../support/http.js'
import { linesAt } from '../support/lines.js'
import { commandsWhile } from '../support/monitor.js'
import { recordOf } from '../support/records.js'
import { freePort, RedisServer } from '../support/redis.js'

const HOUR_MS = 3_600_000

function changeOf(record: SessionData, parts: Partial<SessionChange> = {}): SessionChange {
  const at = Date.now()
  return { generation: record.generation, at, expiresAt: at + HOUR_MS, set: new Map([['a', '1']]), ...parts }
}

function successorOf(record: SessionData, parts: Partial<SessionDataInit> = {}): SessionData {
  const id = record.id.slice(0, 4) + randomUUID().slice(4)
  return recordOf({ id, generation: record.generation + 1, ...parts })
}

function regenerationOf(record: SessionData, next: SessionData): Regeneration {
  return { generation: record.generation, at: Date.now(), next, keep: 'all', tombstoneSeconds: 60 }
}

const LOGOUT: SessionEnd = { reason: 'logout', at: 1_700_000_000_000 }

function keyOf(id: string, prefix = 'soj:'): string {
  return `${prefix}{${id.slice(0, 4)}}${id.slice(4)}`
}

/** What Redis was told while `action` ran: commands sent, and commands that scripts ran. */
async function commandsOf(
  redis: Redis,
  action: () => Promise<unknown>,
): Promise<{ sent: string[][]; byScripts: string[][] }> {
  const commands = await commandsWhile(redis, action)
  const named = (isByScript: boolean): string[][] =>
    commands
      .filter(({ source }) => (source === 'lua') === isByScript)
      .map(({ args: [name = '', ...args] }) => [name.toLowerCase(), ...args])
  return { sent: named(false), byScripts: named(true) }
}

let server: RedisServer
let redis: Redis
beforeAll(async () => {
  server = await RedisServer.start()
  redis = new Redis(server.url)
})
afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

/** Runs `action` with a store on the server, and closes it. */
async function withStore<T>(
  action: (store: RedisSessionStore) => Promise<T>,
  options: RedisSessionStoreOptions = { url: server.url },
): Promise<T> {
  const store = new RedisSessionStore(options)
  try {
    return await action(store)
  } finally {
    await store.close()
  }
}

describe('keys', () => {
  test('a session is one string, named by prefix, slot and ID, with its fields under a dot', () =>
    withStore(async (store) => {
      const record = recordOf({
        userId: 7,
        fields: [
          ['cart', '["pear"]'],
          ['m', '"mine"'],
        ],
      })
      await store.create(record.id, record, 60)
      const lines = await linesAt(redis, keyOf(record.id))
      expect(lines).toMatchObject({ t: record.tokenHash, u: '7', '.cart': '["pear"]', '.m': '"mine"' })
      expect(Object.keys(lines)).toEqual(['m', 't', 'u', '.cart', '.m'])
      expect(await store.get(record.id)).toEqual(record)
    }))

  test('two prefixes on one Redis do not meet', () =>
    withStore((one) =>
      withStore(
        async (other) => {
          const record = recordOf()
          await one.create(record.id, record, 60)
          expect(await other.get(record.id)).toBeNull()
          expect(await other.touch(record.id, 60)).toBe(false)
          expect(await other.update(record.id, changeOf(record), 60)).toEqual({ status: 'ended' })
          expect(await other.end(record.id, LOGOUT, 60)).toEqual({ status: 'over' })
          expect(await other.create(record.id, record.withField('a', '2'), 60)).toBe(true)
          expect((await one.get(record.id))?.fields.size).toBe(0)
          expect(await redis.exists(keyOf(record.id), keyOf(record.id, 'other:'))).toBe(2)
        },
        { url: server.url, prefix: 'other:' },
      ),
    ))

  test('each script touches one slot, the same before and after regenerating', async () => {
    const cluster = await RedisServer.start('--cluster-enabled', 'yes', '--cluster-port', String(await freePort()))
    const counter = new Redis(cluster.url)
    await withStore(async (store) => {
      const { sent } = await commandsOf(redis, async () => {
        for (let round = 0; round < 20; round++) {
          const record = recordOf()
          const next = successorOf(record)
          await store.create(record.id, record, 60)
          await store.update(record.id, changeOf(record), 60)
          await store.touch(record.id, 60)
          expect((await store.regenerate(record.id, regenerationOf(record, next), 60)).status).toBe('regenerated')
        }
      })
      const scripts = sent.filter(([name]) => name === 'evalsha')
      expect(scripts).toHaveLength(80)
      expect(scripts.filter(([, , keys]) => keys === '2')).toHaveLength(20)
      for (const [, , count, ...keys] of scripts) {
        const slots = await Promise.all(keys.slice(0, Number(count)).map((key) => counter.cluster('KEYSLOT', key)))
        expect(new Set(slots).size).toBe(1)
      }
    })
    counter.disconnect()
    await cluster.stop()
  })

  test('sessions spread over slots', () => {
    expect(new Set(Array.from({ length: 100 }, () => keyOf(randomUUID()).slice(0, 14))).size).toBeGreaterThan(90)
  })
})

describe('the TTL of a key', () => {
  async function expectEnd(id: string, end: number): Promise<void> {
    // The TTL is in whole seconds and rounded up.
    const expires = await redis.pexpiretime(keyOf(id))
    expect(expires).toBeGreaterThanOrEqual(end)
    expect(expires).toBeLessThan(end + 3_000)
  }

  test('follows the end of the session through create, update, touch and regenerate', () =>
    withStore(async (store) => {
      const record = recordOf({ expiresAt: Date.now() + 60_000 })
      await store.create(record.id, record, 60)
      await expectEnd(record.id, record.expiresAt)

      const change = changeOf(record, { expiresAt: Date.now() + 120_000 })
      await store.update(record.id, change, 120)
      await expectEnd(record.id, change.expiresAt)

      await store.touch(record.id, 180)
      await expectEnd(record.id, Date.now() + 179_000)
      // An end never moves back by a touch.
      await store.touch(record.id, 60)
      await expectEnd(record.id, Date.now() + 178_000)

      const next = successorOf(record, { expiresAt: Date.now() + 240_000 })
      await store.regenerate(record.id, regenerationOf(record, next), 240)
      await expectEnd(next.id, next.expiresAt)
      // The tombstone.
      await expectEnd(record.id, Date.now() + 59_000)
    }))

  test('is never beyond the absolute end, and shorter when the idle timeout is made shorter', () =>
    withStore(async (store) => {
      const record = recordOf({ absoluteExpiresAt: Date.now() + 90_000, expiresAt: Date.now() + 60_000 })
      await store.create(record.id, record, 60)
      await store.touch(record.id, 3600)
      await expectEnd(record.id, record.absoluteExpiresAt)
      const expiresAt = Date.now() + 10_000
      await store.update(record.id, changeOf(record, { expiresAt, metadata: { idleTimeoutMs: 10_000 } }), 10)
      await expectEnd(record.id, expiresAt)
    }))

  test('is there for every record that is written', () =>
    withStore(async (store) => {
      const record = recordOf()
      await store.set(record.id, record, 60)
      await redis.persist(keyOf(record.id))
      await store.update(record.id, changeOf(record), 60)
      expect(await redis.ttl(keyOf(record.id))).toBeGreaterThan(0)
    }))
})

describe('commands', () => {
  let store: RedisSessionStore
  let app: TestServer
  beforeAll(async () => {
    store = new RedisSessionStore({ url: server.url })
    app = await listen(testApp({ store, touchInterval: 3600 }).app)
    // Loads the scripts.
    const client = new Client(app)
    for (const path of ['/set?a=1', '/set?a=2', '/regenerate', '/set?a=1', '/login', '/logout']) await client.post(path)
    const record = recordOf()
    await store.touch(record.id, 60)
  })
  afterAll(async () => {
    await app.close()
    await store.close()
  })

  /** What was sent, by name and, for scripts, by what they are on. The epoch, which is asked once a second, is left out. */
  const withoutEpoch = (sent: string[][]): string[] =>
    sent
      .filter(([name = '', , , key]) => !(name.startsWith('eval') && key === 'soj:epoch'))
      .map(([name = '', , , key]) => (key?.startsWith('soj:u:') ? `${name} user` : name))

  test.each([
    ['reads', 'GET', '/peek', ['getrange']],
    ['leaves the session alone', 'GET', '/plain', ['getrange']],
    ['writes', 'POST', '/set?a=1', ['getrange', 'evalsha']],
    [
      'writes 50 fields',
      'POST',
      `/set?${Array.from({ length: 50 }, (_v, i) => `f${i}=1`).join('&')}`,
      ['getrange', 'evalsha'],
    ],
    ['updates', 'POST', '/update', ['getrange', 'evalsha']],
    ['logs in', 'POST', '/login', ['getrange', 'evalsha user', 'evalsha', 'evalsha user']],
    ['renews', 'POST', '/renew', ['getrange', 'evalsha']],
    ['regenerates', 'POST', '/regenerate?keep=true', ['getrange', 'evalsha']],
    ['logs out', 'POST', '/logout', ['getrange', 'evalsha']],
  ])('a request that %s', async (_what, method, path, expected) => {
    const client = new Client(app)
    await client.post('/set?kept=1')
    const { sent } = await commandsOf(redis, () => client.request(method, path))
    expect(withoutEpoch(sent)).toEqual(expected)
  })

  test('a first write is one, and a request without a cookie none', async () => {
    const first = await commandsOf(redis, () => new Client(app).post('/set?a=1'))
    expect(withoutEpoch(first.sent)).toEqual(['evalsha'])
    for (const path of ['/peek', '/plain']) {
      expect((await commandsOf(redis, () => new Client(app).get(path))).sent).toEqual([])
    }
    expect((await commandsOf(redis, () => new Client(app).post('/logout'))).sent).toEqual([])
  })

  const LARGE = JSON.stringify('x'.repeat(5_000))

  test('a touch moves times and TTL and leaves large fields alone', async () => {
    const record = recordOf({ fields: [['large', LARGE]] })
    await store.create(record.id, record, 60)
    const { byScripts } = await commandsOf(redis, () => store.touch(record.id, 7200))
    const key = keyOf(record.id)
    expect(JSON.stringify(byScripts)).not.toContain('xxxx')
    expect(byScripts.map((command) => command.slice(0, 2))).toEqual([
      ['getrange', key],
      ['setrange', key],
      ['expire', key],
    ])
  })

  test('a write sends no large field but the one that it changes', async () => {
    const record = recordOf({ fields: [['large', LARGE]] })
    await store.create(record.id, record, 60)
    const madeOn = (await store.get(record.id)) as SessionData
    const { sent, byScripts } = await commandsOf(redis, () => store.update(record.id, changeOf(record, { madeOn }), 60))
    expect(JSON.stringify([sent, byScripts])).not.toContain('xxxx')
    expect(byScripts.map(([name]) => name)).toEqual(['getrange', 'setrange', 'expire'])
    // The same of a record that another request has written to: that takes no second call.
    const again = await commandsOf(redis, () => store.update(record.id, changeOf(record, { madeOn }), 60))
    expect(again.sent.map(([name]) => name)).toEqual(['evalsha'])
    expect(JSON.stringify(again)).not.toContain('xxxx')
    expect(again.byScripts.map(([name]) => name)).toEqual(['getrange', 'strlen', 'getrange', 'setrange', 'expire'])
    expect((await store.get(record.id))?.fields.get('large')).toBe(LARGE)
  })

  test('a change made on a record that was read is two commands in Redis', async () => {
    const record = recordOf({ fields: [['kept', '1']] })
    await store.create(record.id, record, 60)
    for (const parts of [
      { set: new Map([['a', '2']]), delete: ['kept'] },
      { metadata: { userId: 'ann' } },
      { expect: { field: 'a', text: '1' } },
      { renew: { from: record.tokenHash, to: 'next', graceUntil: Date.now() + 1_000 } },
    ]) {
      const madeOn = (await store.get(record.id)) as SessionData
      const change = changeOf(record, { ...parts, madeOn })
      const { byScripts } = await commandsOf(redis, () => store.update(record.id, change, 60))
      expect(byScripts.map(([name]) => name)).toEqual(['getrange', 'set'])
    }
    expect(await store.get(record.id)).toMatchObject({ userId: 'ann', tokenHash: 'next' })
  })

  test.each([1, 199, 200, 201, 5_000])('a change of %i fields is written whole', async (count) => {
    const record = recordOf({ fields: [['kept', '1']] })
    await store.create(record.id, record, 60)
    const set = new Map(Array.from({ length: count }, (_v, index) => [`f${index}`, `${index}`]))
    expect(await store.update(record.id, changeOf(record, { set, delete: ['kept'] }), 60)).toEqual({
      status: 'updated',
    })
    const fields = (await store.get(record.id))?.fields ?? new Map<string, string>()
    expect(new Map(fields)).toEqual(set)
    const next = successorOf(record)
    expect((await store.regenerate(record.id, regenerationOf(record, next), 60)).status).toBe('regenerated')
    expect((await store.get(next.id))?.fields.size).toBe(count)
  })

  test('scripts survive SCRIPT FLUSH', async () => {
    const record = recordOf()
    const next = successorOf(record)
    const steps: readonly (() => Promise<unknown>)[] = [
      () => store.create(record.id, record, 60),
      () => store.update(record.id, changeOf(record), 60),
      () => store.touch(record.id, 60),
      () => store.regenerate(record.id, regenerationOf(record, next), 60),
    ]
    for (const step of steps) {
      await redis.script('FLUSH')
      await step()
    }
    expect((await store.get(next.id))?.fields.get('a')).toBe('1')
    expect(await store.end(next.id, LOGOUT, 60)).toEqual({ status: 'ended' })
  })

  test('20 first writes at once after SCRIPT FLUSH all count', async () => {
    const record = recordOf()
    await store.create(record.id, record, 60)
    await redis.script('FLUSH')
    const change = (index: number): SessionChange => changeOf(record, { set: new Map([[`f${index}`, '1']]) })
    await Promise.all(Array.from({ length: 20 }, (_v, index) => store.update(record.id, change(index), 60)))
    expect((await store.get(record.id))?.fields.size).toBe(20)
  })
})

test('scripts survive a restart of the server', async () => {
  const own = await RedisServer.start()
  await withStore(
    async (store) => {
      const record = recordOf()
      await store.create(record.id, record, 60)
      await own.kill()
      await own.restart()
      expect(await store.update(record.id, changeOf(record), 60)).toEqual({ status: 'ended' })
      expect(await store.create(record.id, record, 60)).toBe(true)
      expect(await store.update(record.id, changeOf(record), 60)).toEqual({ status: 'updated' })
    },
    { url: own.url },
  )
  await own.stop()
})

describe('a client that is handed in', () => {
  test('is not closed, and calls after close() say so', async () => {
    const client = new Redis(server.url)
    const store = new RedisSessionStore({ client })
    const record = recordOf()
    expect(await store.create(record.id, record, 60)).toBe(true)
    await store.close()
    await store.close()
    expect(client.status).toBe('ready')
    expect(await client.ping()).toBe('PONG')
    await expect(store.get(record.id)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(/closed/) as unknown,
    })
    client.disconnect()
  })

  test('keeps its keyPrefix', async () => {
    const client = new Redis(server.url, { keyPrefix: 'app:' })
    const store = new RedisSessionStore({ client })
    const record = recordOf()
    const next = successorOf(record)
    await store.create(record.id, record, 60)
    expect(await redis.exists(keyOf(record.id, 'app:soj:'))).toBe(1)
    expect(await store.update(record.id, changeOf(record), 60)).toEqual({ status: 'updated' })
    await store.regenerate(record.id, regenerationOf(record, next), 60)
    expect((await store.get(next.id))?.fields.get('a')).toBe('1')
    expect(await store.end(next.id, LOGOUT, 60)).toEqual({ status: 'ended' })
    expect(await redis.get(keyOf(next.id, 'app:soj:'))).toMatch(/^x\t/)
    client.disconnect()
  })

  test('that connects lazily is connected by the first call', async () => {
    const client = new Redis(server.url, { lazyConnect: true })
    const store = new RedisSessionStore({ client })
    expect(await store.get(randomUUID())).toBeNull()
    client.disconnect()
  })

  test('that was closed is an error at once', async () => {
    const client = new Redis(server.url)
    await Promise.all([once(client, 'end'), client.quit()])
    const store = new RedisSessionStore({ client })
    const began = performance.now()
    await expect(store.get(randomUUID())).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    expect(performance.now() - began).toBeLessThan(200)
  })

  test('may be an ioredis Redis or Cluster by type, or anything with the members that are called', async () => {
    const fromRedis = (client: Redis): RedisClient => client
    const fromCluster = (client: Cluster): RedisClient => client
    expect([fromRedis, fromCluster]).toHaveLength(2)
    const least: RedisClient = {
      hgetall: async () => ({}),
      get: async () => null,
      getrange: async () => '',
      strlen: async () => 0,
      del: async () => 0,
      evalsha: async () => 0,
      eval: async () => 0,
      once: () => {},
    }
    expect(await new RedisSessionStore({ client: least }).get(randomUUID())).toBeNull()
  })
})

test('what is sent in one turn of the event loop goes out in one write, and the next in another', async () => {
  const seen: string[] = []
  const client: RedisClient = {
    get: async () => null,
    getrange: async () => {
      seen.push('call')
      return ''
    },
    strlen: async () => 0,
    hgetall: async () => ({}),
    del: async () => 0,
    evalsha: async () => 0,
    eval: async () => 0,
    once: () => {},
    stream: { cork: () => seen.push('cork'), uncork: () => seen.push('uncork') },
  }
  const store = new RedisSessionStore({ client })
  await Promise.all([store.get(randomUUID()), store.get(randomUUID())])
  await new Promise(setImmediate)
  await store.get(randomUUID())
  await new Promise(setImmediate)
  expect(seen).toEqual(['cork', 'call', 'call', 'uncork', 'cork', 'call', 'uncork'])
})

describe('a connection by URL', () => {
  const nowhere = 'redis://127.0.0.1:1'

  test('is closed by close(), and calls after it say so', async () => {
    const own = await RedisServer.start()
    const observer = new Redis(own.url)
    const connections = async (): Promise<number> =>
      String(await observer.client('LIST'))
        .trim()
        .split('\n').length
    await until(async () => (await connections()) === 1)
    const store = new RedisSessionStore({ url: own.url })
    await store.get(randomUUID())
    expect(await connections()).toBe(2)
    await store.close()
    await until(async () => (await connections()) === 1)
    await expect(store.get(randomUUID())).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(/closed/) as unknown,
    })
    observer.disconnect()
    await own.stop()
  })

  test.each([
    ['after use', 'server', 'await store.get(id)'],
    ['at once', 'server', ''],
    ['while there is no server', 'nowhere', 'await store.get(id).catch(() => {})'],
    ['with a call under way', 'server', 'store.get(id).catch(() => {})'],
  ])('keeps no process alive when it is closed %s', async (_when, where, use) => {
    const url = where === 'server' ? server.url : nowhere
    const { stdout, stderr } = await runModule(`
      import { RedisSessionStore } from './src/stores/redis.ts'
      const store = new RedisSessionStore({ url: '${url}' })
      const id = '${randomUUID()}'
      ${use}
      await store.close()
      const closedAt = performance.now()
      process.on('exit', () => console.log(performance.now() - closedAt))
    `)
    expect(stderr).toBe('')
    expect(Number(stdout)).toBeLessThan(500)
  })

  test('is closed in time when the server is frozen', async () => {
    const own = await RedisServer.start()
    const store = new RedisSessionStore({ url: own.url })
    await store.get(randomUUID())
    own.freeze()
    const call = store.get(randomUUID()).catch((failure: SessionError) => failure)
    const began = performance.now()
    await store.close()
    expect(performance.now() - began).toBeLessThan(1_000)
    expect(await call).toBeInstanceOf(Error)
    await own.stop()
  })

  test('keeps nothing of the calls that fail during an outage', async () => {
    const { stdout, stderr } = await runModule(`
      import { setFlagsFromString } from 'node:v8'
      import { runInNewContext } from 'node:vm'
      import { RedisSessionStore } from './src/stores/redis.ts'
      setFlagsFromString('--expose-gc')
      const store = new RedisSessionStore({ url: '${nowhere}' })
      const id = '${randomUUID()}'
      const heapAfterManyCalls = async () => {
        await Promise.all(Array.from({ length: 9000 }, () => store.get(id).catch(() => {})))
        runInNewContext('gc')()
        return process.memoryUsage().heapUsed
      }
      const before = await heapAfterManyCalls()
      await heapAfterManyCalls()
      console.log(await heapAfterManyCalls() - before)
      await store.close()
    `)
    expect(stderr).toBe('')
    // 18 000 calls: a hundred bytes of each would be 1.8 MB.
    expect(Number(stdout)).toBeLessThan(1_800_000)
  })

  test('without ioredis says how to install it', async () => {
    const { stdout, stderr } = await runModule(`
      import module from 'node:module'
      function resolve(specifier, context, next) {
        if (specifier === 'ioredis') throw Object.assign(new Error('Cannot find it'), { code: 'ERR_MODULE_NOT_FOUND' })
        return next(specifier, context)
      }
      // Node 20 has the older call only, and Node 26 warns of it.
      if (module.registerHooks) module.registerHooks({ resolve })
      else module.register('data:text/javascript,' + encodeURIComponent('export ' + resolve))
      const { RedisSessionStore } = await import('./src/stores/redis.ts')
      const store = new RedisSessionStore({ url: '${server.url}' })
      const error = await store.get('${randomUUID()}').catch((error) => error)
      console.log(JSON.stringify({ code: error.code, message: error.message }))
      await store.close()
      const none = async () => 0
      const least = { get: async () => null,
      getrange: async () => '', strlen: none, hgetall: none, del: none, evalsha: none, eval: none, once: none }
      console.log(await new RedisSessionStore({ client: least }).get('${randomUUID()}'))
    `)
    expect(stderr).toBe('')
    const [failure = '', withClient] = stdout.trim().split('\n')
    expect(JSON.parse(failure)).toEqual({
      code: 'MISSING_DEPENDENCY',
      message: expect.stringContaining('npm install ioredis') as unknown,
    })
    expect(withClient).toBe('null')
  })
})

/** Runs the text of a module in a process of its own, in the repository. */
function runModule(text: string): Promise<{ stdout: string; stderr: string }> {
  const { NODE_OPTIONS: _jestOptions, ...env } = process.env
  const args = ['--import', 'tsx', '--input-type=module', '-e', text]
  const cwd = fileURLToPath(new URL('../..', import.meta.url))
  return promisify(execFile)(process.execPath, args, { cwd, env, timeout: 60_000 })
}

describe('options', () => {
  test.each([
    ['what has too little', { hGetAll: async () => ({}), del: async () => 0, eval: async () => 0, once: () => {} }],
    ['text', 'redis://127.0.0.1'],
    ['null', null],
  ])('with %s as client are refused, saying what fits', (_what, client) => {
    expect(() => new RedisSessionStore({ client: client as never })).toThrow(
      /client (has no|must be) .*Give an ioredis/,
    )
  })

  const client = {}

  test.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /either url or client/],
    ['neither url nor client', {}, /either url or client/],
    ['both url and client', { url: 'redis://127.0.0.1', client }, /either url or client/],
    ['a URL of another kind', { url: 'http://127.0.0.1' }, /url must begin with redis:/],
    ['a prefix with a brace', { client, prefix: 'a{b}' }, /prefix must be text without/],
    ['a prefix that is no text', { client, prefix: 7 }, /prefix must be text/],
    ['no calls at all', { client, maxPending: 0 }, /maxPending must be a whole number/],
    ['half a call', { client, maxPending: 1.5 }, /maxPending must be a whole number/],
  ])('with %s are refused', (_what, options, message) => {
    const build = (): unknown => new RedisSessionStore(options as RedisSessionStoreOptions)
    expect(build).toThrow(message)
    expect(build).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  })
})

describe('the end of a session', () => {
  test('leaves what lasts, without fields, for as long as it is told to', () =>
    withStore(async (store) => {
      const record = recordOf({
        userId: 'ann',
        idleTimeoutMs: 60_000,
        previousToken: { hash: 'old', until: Date.now() },
        context: { ip: '127.0.0.1' },
        fields: [['cart', '[]']],
      })
      await store.create(record.id, record, 60)
      const ended: SessionEnd = { reason: 'revoked', at: Date.now(), by: 'admin', detail: 'stolen' }
      expect(await store.end(record.id, ended, 600)).toEqual({ status: 'ended' })
      expect(Object.keys(await linesAt(redis, keyOf(record.id)))).toEqual(['x', 'm', 't', 'u', 'i'])
      expect(await store.get(record.id)).toEqual(
        record.with({ ended, previousToken: undefined, context: undefined, fields: [] }),
      )
      const ttl = await redis.ttl(keyOf(record.id))
      expect(ttl).toBeGreaterThan(590)
      expect(ttl).toBeLessThanOrEqual(600)
      expect(await store.end(record.id, LOGOUT, 9_000)).toEqual({ status: 'over' })
      expect((await store.get(record.id))?.ended).toEqual(ended)
      expect(await redis.ttl(keyOf(record.id))).toBeLessThanOrEqual(600)
    }))

  test.each([
    ['text', 'text'],
    ['a list', 'text'],
    ['lines without metadata', '.a\t1\n'],
    ['lines without a token', 'm\t1 zzzzzzzz 0 0 rs rs 1\n'],
    ['lines with broken times', 'm\t1 2 3\nt\thash\n'],
    ['a line without an end', 'm\t1 zzzzzzzz 0 0 rs rs 1\nt\thash\n.a\t1'],
    ['a line without a name', 'm\t1 zzzzzzzz 0 0 rs rs 1\nt\thash\nname\n.a\t1\n'],
    ['a tombstone that is no JSON', 'x\t{\nm\t1 zzzzzzzz 0 0 1 1 1\nt\th\n'],
    ['a user that is no JSON', 'm\t1 zzzzzzzz 0 0 1 1 1\nt\th\nu\t{\n'],
    ['a user that is an object', 'm\t1 zzzzzzzz 0 0 1 1 1\nt\th\nu\t{}\n'],
    ['times in capitals', 'm\t1 ZZZZZZZZ 0 0 1 1 1\nt\th\n'],
    ['a time beyond all bounds', 'm\t1 zzzzzzzzzzz 0 0 1 1 1\nt\th\n'],
    ['a tombstone without a reason', 'x\t{"at":1}\nm\t1 zzzzzzzz 0 0 1 1 1\nt\th\n'],
    ['a tombstone for an unknown reason', 'x\t{"at":1,"reason":"rain"}\nm\t1 zzzzzzzz 0 0 1 1 1\nt\th\n'],
  ])('of one that is unreadable, %s, removes it', async (what, text) => {
    const id = randomUUID()
    if (what === 'a list') await redis.rpush(keyOf(id), text)
    else await redis.set(keyOf(id), text)
    await withStore(async (store) => {
      await expect(store.get(id)).rejects.toMatchObject({ code: 'CORRUPT_RECORD' })
      expect(await store.end(id, LOGOUT, 60)).toEqual({ status: 'ended' })
      expect(await redis.exists(keyOf(id))).toBe(0)
      expect(await store.end(id, LOGOUT, 60)).toEqual({ status: 'over' })
    })
  })

  test('of an empty text, which no session is, removes it', async () => {
    const id = randomUUID()
    await redis.set(keyOf(id), '')
    await withStore(async (store) => {
      expect(await store.get(id)).toBeNull()
      expect(await store.end(id, LOGOUT, 60)).toEqual({ status: 'ended' })
      expect(await redis.exists(keyOf(id))).toBe(0)
    })
  })

  test('a record of before there were epochs, contexts and ends is read as ever', () =>
    withStore(async (store) => {
      const record = recordOf({ fields: [['a', '1']] })
      const times = [1, record.createdAt, 0, 0, HOUR_MS, 12 * HOUR_MS, 1].map((count) => count.toString(36)).join(' ')
      const text = `m\t${times}\nt\t${record.tokenHash}\n.a\t1\n`
      await redis.set(keyOf(record.id), text)
      expect(await store.get(record.id)).toEqual(record)
      // And takes no more room today.
      await store.delete(record.id)
      await store.create(record.id, record, 60)
      const revision = /(?<=ppxc0 )\w{5}/
      expect((await redis.get(keyOf(record.id)))?.replace(revision, '1')).toBe(text)
      expect(await store.update(record.id, changeOf(record), 60)).toEqual({ status: 'updated' })
      const later = record.with({ epoch: 12 })
      await store.set(record.id, later, 60)
      await store.touch(record.id, 60)
      expect((await store.get(record.id))?.epoch).toBe(12)
    }))
})

test('a change that a client sends twice, for a reply that got lost, counts once', async () => {
  const client = new Redis(server.url)
  const evalsha = client.evalsha.bind(client) as (...args: (string | number)[]) => Promise<unknown>
  const again: RedisClient['evalsha'] = async (...args) => {
    await evalsha(...args)
    return evalsha(...args)
  }
  const store = new RedisSessionStore({ client: Object.assign(client, { evalsha: again as never }) })
  const site = await listen(testApp({ store }).app)
  const visitor = new Client(site)
  for (let n = 0; n < 5; n++) await visitor.post('/update')
  expect((await visitor.get('/peek')).json()['fields']).toEqual({ n: 5 })
  await site.close()
  client.disconnect()
})

test('a record that was edited by hand is written as it is then', () =>
  withStore(async (store) => {
    const large = JSON.stringify('x'.repeat(5_000))
    for (const edit of [
      (text: string) => text.replace('\n.small\t"some text"\n', '\n.small\t1\n'),
      (text: string) => text.replace('\n.small\t"some text"\n', `\n.small\t"${'y'.repeat(200)}"\n`),
      (text: string) => text.replace('\n.small\t"some text"\n', '\n.small\t1\n.small\t2\n'),
      (text: string) => text.replace(/\nb\t.*/, '\nb\t99999'),
    ]) {
      for (const bulk of [large, '"small"']) {
        const record = recordOf({
          fields: [
            ['small', '"some text"'],
            ['bulk', bulk],
          ],
        })
        await store.create(record.id, record, 60)
        await redis.set(keyOf(record.id), edit((await redis.get(keyOf(record.id))) as string), 'EX', 60)
        const madeOn = (await store.get(record.id)) as SessionData
        const fields = Object.fromEntries(madeOn.fields)
        expect(await store.touch(record.id, 60)).toBe(true)
        for (const [n, made] of [madeOn, (await store.get(record.id)) as SessionData, undefined].entries()) {
          const change = changeOf(record, { set: new Map([[n === 0 ? 'small' : 'new', String(n)]]), madeOn: made })
          expect((await store.update(record.id, change, 60)).status).toBe('updated')
        }
        expect(Object.fromEntries((await store.get(record.id))?.fields ?? [])).toEqual({
          ...fields,
          small: '0',
          new: '2',
        })
      }
    }
  }))

test.each([Number.POSITIVE_INFINITY, 8.64e15])(
  'an end at %d is refused, and what is stored stays',
  (absoluteExpiresAt) =>
    withStore(async (store) => {
      const record = recordOf()
      await store.create(record.id, record, 60)
      for (const madeOn of [undefined, (await store.get(record.id)) as SessionData]) {
        const change = changeOf(record, { metadata: { absoluteExpiresAt }, madeOn })
        await expect(store.update(record.id, change, 60)).rejects.toMatchObject({ code: 'CORRUPT_RECORD' })
      }
      expect(await store.get(record.id)).toEqual(record)
    }),
)

test('the error of a record that cannot be read shows nothing of what was to be stored', () =>
  withStore(async (store) => {
    const record = recordOf()
    await store.create(record.id, record, 60)
    const madeOn = (await store.get(record.id)) as SessionData
    await redis.set(keyOf(record.id), 'junk')
    const change = changeOf(record, { set: new Map([['pin', '"0000 1111"']]), madeOn })
    const error = await store.update(record.id, change, 60).catch((failure) => failure)
    expect(error).toMatchObject({ code: 'CORRUPT_RECORD' })
    expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/0000 1111|evalsha/i)
  }))

test('a fraction of a second is rounded up', () =>
  withStore(async (store) => {
    const record = recordOf()
    await store.create(record.id, record, 60)
    for (const madeOn of [undefined, (await store.get(record.id)) as SessionData]) {
      expect((await store.update(record.id, changeOf(record, { madeOn }), 5_000.5)).status).toBe('updated')
      expect(await redis.ttl(keyOf(record.id))).toBeGreaterThan(4_900)
    }
  }))

test('a line that a later version may have written stays through a write, and is no field', () =>
  withStore(async (store) => {
    const record = recordOf({ fields: [['a', '1']] })
    await store.create(record.id, record, 60)
    await redis.append(keyOf(record.id), 'zz\tof tomorrow\n')
    const madeOn = (await store.get(record.id)) as SessionData
    expect(madeOn).toEqual(record)
    for (const change of [changeOf(record, { madeOn }), changeOf(record)]) {
      expect((await store.update(record.id, change, 60)).status).toBe('updated')
      expect((await linesAt(redis, keyOf(record.id)))['zz']).toBe('of tomorrow')
    }
  }))

describe('a record that comes again', () => {
  test('is the one that was read or written last, while Redis has the same text', () =>
    withStore((store) =>
      withStore(async (other) => {
        const record = recordOf({ fields: [['a', '"1"']] })
        await store.create(record.id, record, 60)
        const first = (await store.get(record.id)) as SessionData
        expect(await store.get(record.id)).toBe(first)

        const own = await store.update(
          record.id,
          changeOf(first, { set: new Map([['a', '"\\n2"']]), madeOn: first }),
          60,
        )
        const second = (await store.get(record.id)) as SessionData
        expect(own).toEqual({ status: 'updated', record: second })
        expect(await store.get(record.id)).toBe(second)
        expect((await other.get(record.id))?.toJSON()).toEqual(second.toJSON())

        await other.update(record.id, changeOf(second, { set: new Map([['a', '"3"']]) }), 60)
        expect((await store.get(record.id))?.fields.get('a')).toBe('"3"')
        // By hand, with the revision forgotten.
        await redis.set(keyOf(record.id), ((await redis.get(keyOf(record.id))) ?? '').replace('"3"', '"4"'), 'KEEPTTL')
        expect((await store.get(record.id))?.fields.get('a')).toBe('"4"')
        await other.end(record.id, LOGOUT, 60)
        expect((await store.get(record.id))?.ended?.reason).toBe('logout')
        await store.delete(record.id)
        expect(await store.get(record.id)).toBeNull()
      }),
    ))

  test('is remembered of 1,000 sessions, none of them large, whatever a scan passes', () =>
    withStore(async (store) => {
      await redis.flushdb()
      const large = recordOf({ fields: [['large', JSON.stringify('x'.repeat(5_000))]] })
      const many = Array.from({ length: 1_001 }, () => recordOf({}))
      for (const record of [large, ...many]) await store.create(record.id, record, 60)
      const once = await store.get(large.id)
      expect(await store.get(large.id)).not.toBe(once)

      const [first, ...others] = await Promise.all(many.map(({ id }) => store.get(id)))
      for await (const record of store.scan()) expect(record).not.toBe(first)
      for (const record of others) expect(await store.get(record?.id ?? '')).toBe(record)
      expect(await store.get(first?.id ?? '')).not.toBe(first)
    }))
})

describe('large fields', () => {
  const text = (length: number): string => JSON.stringify('x'.repeat(length))
  /** Names of the fields behind the empty lines. */
  const largeOf = async (id: string): Promise<string[]> => {
    const [, large = ''] = ((await redis.get(keyOf(id))) ?? '').split(/\n{2,}/)
    return Array.from(large.matchAll(/^\.(.*?)\t/gm), ([, name]) => name as string)
  }

  /** Writes fields on what is stored now, as a request would. */
  async function write(store: RedisSessionStore, id: string, fields: Record<string, string>, remove: string[] = []) {
    const madeOn = (await store.get(id)) as SessionData
    const change = changeOf(madeOn, { set: new Map(Object.entries(fields)), delete: remove, madeOn })
    expect(await store.update(id, change, 60)).toMatchObject({ status: 'updated' })
    // By one who has not written it.
    return (await withStore((other) => other.get(id))) as SessionData
  }

  test('come last in a session above 4 KB, and only there', () =>
    withStore(async (store) => {
      const record = recordOf({ fields: [['a', text(3_000)]] })
      await store.create(record.id, record, 60)
      expect(await largeOf(record.id)).toEqual([])
      await write(store, record.id, { b: text(3_000), c: '1', d: text(100) })
      expect(await largeOf(record.id)).toEqual(['a', 'b'])
      await write(store, record.id, { b: text(2_000), e: text(300) })
      expect(await largeOf(record.id)).toEqual(['a', 'b', 'e'])
      const last = await write(store, record.id, { c: '2' }, ['a'])
      expect(await largeOf(record.id)).toEqual([])
      expect(Object.fromEntries(last.fields)).toEqual({ b: text(2_000), c: '2', d: text(100), e: text(300) })
    }))

  test('stay as and where they are while the others grow, until there is no room', () =>
    withStore(async (store) => {
      const record = recordOf({ fields: [['large', text(100_000)]] })
      await store.create(record.id, record, 60)
      let moves = 0
      for (let n = 0; n < 40; n++) {
        const { byScripts } = await commandsOf(redis, () =>
          write(store, record.id, { [`n${n}`]: `"${'é'.repeat(n)}"` }),
        )
        if (byScripts.some(([name]) => name === 'set')) moves++
        expect(byScripts.some(([name]) => name === 'setrange')).toBe(byScripts.every(([name]) => name !== 'set'))
      }
      expect(moves).toBeGreaterThan(0)
      expect(moves).toBeLessThan(15)
      const { fields } = (await store.get(record.id)) as SessionData
      expect(fields.size).toBe(41)
      expect([fields.get('large'), fields.get('n39')]).toEqual([text(100_000), `"${'é'.repeat(39)}"`])
      expect(await redis.memory('USAGE', keyOf(record.id))).toBeLessThan(125_000)
    }))

  test('go over to the session that regenerating begins, and are laid out there by its next write', () =>
    withStore(async (store) => {
      const record = recordOf({
        fields: [
          ['a', text(5_000)],
          ['b', '1'],
        ],
      })
      await store.create(record.id, record, 60)
      const next = successorOf(record)
      await store.regenerate(record.id, regenerationOf(record, next), 60)
      expect(Object.fromEntries((await store.get(next.id))?.fields ?? [])).toEqual({ a: text(5_000), b: '1' })
      await write(store, next.id, { b: '2' })
      expect(await largeOf(next.id)).toEqual(['a'])
      const { byScripts } = await commandsOf(redis, () => write(store, next.id, { b: '3' }))
      expect(byScripts.map(([name]) => name)).toEqual(['getrange', 'setrange', 'expire'])
    }))

  test('of two requests at once are both kept, in one call each', () =>
    withStore(async (store) => {
      const record = recordOf({ fields: [['a', text(5_000)]] })
      await store.create(record.id, record, 60)
      const madeOn = (await store.get(record.id)) as SessionData
      const change = (name: string): SessionChange => changeOf(record, { set: new Map([[name, text(6_000)]]), madeOn })
      const { sent } = await commandsOf(redis, () =>
        Promise.all(['b', 'c'].map((name) => store.update(record.id, change(name), 60))),
      )
      expect(sent.filter(([name]) => name === 'evalsha')).toHaveLength(2)
      const fields = (await store.get(record.id))?.fields
      expect(Object.fromEntries(fields ?? [])).toEqual({ a: text(5_000), b: text(6_000), c: text(6_000) })
    }))
})

test('names and texts may hold what ends a line or a name', () =>
  withStore(async (store) => {
    const awkward = ['\n', '\t', '\u001b', 'a\nb\t\u001bn', '\u001be', 'b', 'm', '+', '']
    const record = recordOf({ fields: awkward.map((name) => [name, `${name}\n.evil\t${name}`]), logicalId: 'a\tb' })
    await store.create(record.id, record, 60)
    expect(await store.get(record.id)).toEqual(record)
    const change = changeOf(record, { set: new Map(awkward.map((name) => [name, `1${name}`])) })
    for (const expected of ['1\n.evil', '\n\n.evil\t\n']) {
      const expect1 = { field: '\n', text: expected }
      const result = await store.update(record.id, { ...change, expect: expect1 }, 60)
      if (expected === '1\n.evil') expect(result).toEqual({ status: 'conflict', text: '\n\n.evil\t\n' })
      else expect(result.status).toBe('updated')
    }
    const next = successorOf(record)
    const kept = regenerationOf(record, next)
    const regenerated = await store.regenerate(record.id, { ...kept, keep: awkward, delete: ['\t'] }, 60)
    expect(regenerated.status).toBe('regenerated')
    const wanted = awkward.filter((name) => name !== '\t').map((name) => [name, `1${name}`])
    expect(Object.fromEntries((await store.get(next.id))?.fields ?? [])).toEqual(Object.fromEntries(wanted))
  }))

describe('out of memory', () => {
  let full: RedisServer
  let admin: Redis
  beforeAll(async () => {
    full = await RedisServer.start('--maxmemory-policy', 'noeviction')
    admin = new Redis(full.url)
  })
  afterAll(async () => {
    admin.disconnect()
    await full.stop()
  })

  test('sessions are ended, users revoked and leases taken; what needs room for itself is refused', () =>
    withStore(
      async (store) => {
        const now = Date.now()
        const record = recordOf({ fields: [['a', '1']], userId: 7 })
        const other = recordOf({ fields: [['a', '1']] })
        await store.create(record.id, record, 60)
        await store.create(other.id, other, 60)
        for (const { id } of [record, other]) {
          await store.users.add('u7', { ...entryOf(id), pendingUntil: now + 60_000 }, { now })
        }
        await admin.config('SET', 'maxmemory', '1mb')
        await expect(admin.set('more', '1')).rejects.toThrow(/OOM/)

        const late = recordOf()
        await expect(store.create(late.id, late, 60)).rejects.toThrow(/OOM/)
        await expect(store.update(record.id, changeOf(record), 60)).rejects.toThrow(/OOM/)

        // Who revokes all other sessions gets a new one, which needs a place on the list.
        expect(await store.users.add('u7', entryOf(late.id), { now })).toEqual({ status: 'added', evicted: [] })
        await store.users.remove('u7', [late.id])
        expect(await store.users.settle('u7', record.id)).toBe(true)
        expect(await store.users.evict('u7', { now, except: other.id })).toMatchObject([
          { id: record.id, isEvicted: true, pendingUntil: 0 },
        ])
        expect(await store.end(record.id, LOGOUT, 60)).toEqual({ status: 'ended' })
        expect((await store.get(record.id))?.ended).toEqual(LOGOUT)
        await store.users.remove('u7', [record.id])
        expect(await store.users.list('u7', now)).toMatchObject([{ id: other.id, isEvicted: false }])
        const next = successorOf(other)
        expect((await store.regenerate(other.id, regenerationOf(other, next), 60)).status).toBe('regenerated')
        expect((await store.get(other.id))?.ended?.successor).toBe(next.id)
        expect(await store.epoch(4)).toBe(4)
        expect(await store.lease('sweep', 'me', 60_000)).toBe(true)
        expect(await store.lease('sweep', 'you', 60_000)).toBe(false)
        await store.delete(next.id)
        expect(await store.get(next.id)).toBeNull()
      },
      { url: full.url },
    ))
})

function entryOf(id: string, parts: Partial<UserEntry> = {}): UserEntry {
  const now = Date.now()
  return { id, since: now, endsAt: now + HOUR_MS, pendingUntil: 0, isEvicted: false, ...parts }
}

describe('the index of a user', () => {
  const keyOfUser = (user: string): string => `soj:u:{${user}}`

  test('is one hash, kept for as long as its last session may live, and not kept longer by a shorter one', () =>
    withStore(async (store) => {
      const user = randomUUID()
      const now = Date.now()
      const [long, short] = [entryOf(randomUUID(), { endsAt: now + 2 * HOUR_MS }), entryOf(randomUUID())]
      await store.users.add(user, long, { now })
      await store.users.add(user, short, { now })
      expect(await redis.hgetall(keyOfUser(user))).toEqual({
        [long.id]: `${long.since} ${long.endsAt} 0`,
        [short.id]: `${short.since} ${short.endsAt} 0`,
      })
      const ttl = await redis.pttl(keyOfUser(user))
      expect(ttl).toBeGreaterThan(HOUR_MS)
      expect(ttl).toBeLessThanOrEqual(2 * HOUR_MS)
      await store.users.evict(user, { now })
      expect(await redis.hget(keyOfUser(user), short.id)).toBe(`${short.since} ${short.endsAt} 0 e`)
      await store.users.remove(user, [long.id, short.id])
      expect(await redis.exists(keyOfUser(user))).toBe(0)
    }))

  test('is not read as a whole by each login without a limit, and yet keeps no more than it must', () =>
    withStore(async (store) => {
      const user = randomUUID()
      let now = Date.now()
      const { byScripts } = await commandsOf(redis, async () => {
        for (let login = 0; login < 500; login++) {
          now += 1_000
          // The digits decide when; these make it the same each time.
          const digits = (Math.imul(login, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0')
          const id = randomUUID().slice(0, -8) + digits
          await store.users.add(user, entryOf(id, { since: now, endsAt: now + 50_000 }), { now })
        }
      })
      const reads = byScripts.filter(([name]) => name === 'hgetall').length
      expect(reads).toBeGreaterThan(0)
      expect(reads).toBeLessThan(100)
      // 50 of them are alive.
      expect(await redis.hlen(keyOfUser(user))).toBeLessThan(250)
      expect(await store.users.list(user, now)).toHaveLength(50)
    }))

  test('passes over an entry that it cannot read', () =>
    withStore(async (store) => {
      const user = randomUUID()
      const now = Date.now()
      await redis.hset(keyOfUser(user), randomUUID(), 'nonsense')
      const entry = entryOf(randomUUID())
      expect(await store.users.add(user, entry, { now, max: 1 })).toEqual({ status: 'added', evicted: [] })
      expect(await store.users.list(user, now)).toEqual([entry])
    }))
})

describe('scan()', () => {
  const foundBy = async (store: RedisSessionStore): Promise<SessionData[]> => {
    const records: SessionData[] = []
    for await (const record of store.scan()) records.push(record)
    return records
  }

  test.each(['soj*:', '[s]?:', 'back\\slash^-:'])('finds the sessions under the prefix %s and no others', (prefix) =>
    withStore(
      async (store) => {
        const now = Date.now()
        const mine = recordOf({ fields: [['a', '1']] })
        await store.create(mine.id, mine, 60)
        await store.users.add('u1', entryOf(mine.id), { now })
        await store.epoch(1)
        await store.lease('sweep', 'me', 60_000)
        await redis.set(keyOf(randomUUID(), prefix), 'text')
        await redis.hset(keyOf(randomUUID(), prefix), 'm', 'another type')
        for (const other of ['sojourn:', 's:', 'sx:', `x${prefix}`, `${prefix}x:`]) {
          const theirs = recordOf()
          await withStore((second) => second.create(theirs.id, theirs, 60), { url: server.url, prefix: other })
        }
        expect(await foundBy(store)).toEqual([mine])
      },
      { url: server.url, prefix },
    ),
  )

  test('finds the sessions of a client with a keyPrefix', async () => {
    const client = new Redis(server.url, { keyPrefix: 'app[1]:' })
    const store = new RedisSessionStore({ client })
    const record = recordOf()
    await store.create(record.id, record, 60)
    expect(await foundBy(store)).toEqual([record])
    client.disconnect()
  })

  test('reads a few records at a time, also with a low maxPending', () =>
    withStore(
      async (store) => {
        const records = Array.from({ length: 4 }, () => recordOf())
        for (const record of records) await store.create(record.id, record, 60)
        expect(await foundBy(store)).toHaveLength(4)
      },
      { url: server.url, prefix: 'few:', maxPending: 2 },
    ))

  test('asks for a client that can scan', async () => {
    const least = {
      hgetall: async () => ({}),
      get: async () => null,
      getrange: async () => '',
      strlen: async () => 0,
      del: async () => 0,
      evalsha: async () => 0,
      eval: async () => 0,
      once: () => {},
    }
    await expect(foundBy(new RedisSessionStore({ client: least }))).rejects.toThrow(/client has no scan/)
  })
})

test('the epoch never expires and never goes back, also when what is there cannot be read', () =>
  withStore(
    async (store) => {
      expect(await store.epoch(3)).toBe(3)
      expect(await redis.ttl('epoch-test:epoch')).toBe(-1)
      expect(await store.epoch(2)).toBe(3)
      await redis.set('epoch-test:epoch', 'nonsense')
      const named = { code: 'CORRUPT_RECORD', message: expect.stringContaining('epoch-test:epoch') }
      for (const junk of ['-1', '1.5', '0x10', '', '9'.repeat(16)]) {
        await redis.set('epoch-test:epoch', junk)
        await expect(store.epoch()).rejects.toMatchObject(named)
      }
      await expect(store.epoch(1)).rejects.toMatchObject({ code: 'CORRUPT_RECORD' })
    },
    { url: server.url, prefix: 'epoch-test:' },
  ))

describe('rights and secrets', () => {
  // info: ioredis asks a new connection whether it is ready.
  const USED = [
    'info',
    'time',
    'publish',
    'subscribe',
    'unsubscribe',
    'hgetall',
    'del',
    'evalsha',
    'eval',
    'hget',
    'hset',
    'hdel',
    'exists',
    'expire',
    'get',
    'getrange',
    'set',
    'setrange',
    'strlen',
    'hlen',
    'pttl',
    'pexpire',
    'scan',
    'time',
  ]

  test('runs under a user that may run only the commands used, on keys of its prefix', async () => {
    const rights = ['on', '>least-rights', '~least:*', '&least:s:*', '-@all', ...USED.map((name) => `+${name}`)]
    await redis.acl('SETUSER', 'least', ...rights)
    const url = `redis://least:least-rights@127.0.0.1:${server.port}`
    const createStore = (): RedisSessionStore => new RedisSessionStore({ url, prefix: 'least:' })
    const report = await checkStore({ createStore, createPeer: createStore })
    expect(report.failed).toEqual([])
    expect(report.guarantees).toEqual(['basic', 'atomic', 'shared'])
    const refused = (await redis.acl('LOG')) as unknown[][]
    const commands = refused.map((entry) => String(entry[entry.indexOf('object') + 1]))
    // ioredis tells its name and version, where it may.
    expect(commands.filter((name) => !/^client\|setinfo$/i.test(name))).toEqual([])
  })

  test('an error carries neither field values nor hashes', async () => {
    await withStore(async (store) => {
      const record = recordOf({ fields: [['card', '"4111-1111"']] })
      await redis.config('SET', 'maxmemory', '1')
      const error: unknown = await store.create(record.id, record, 60).then(
        () => null,
        (failure: unknown) => failure,
      )
      await redis.config('SET', 'maxmemory', '0')
      expect(String(error)).toMatch(/OOM/)
      expect(everythingIn(error)).not.toContain('4111-1111')
      expect(everythingIn(error)).not.toContain(record.tokenHash)
    })
  })

  test('an error carries no password', async () => {
    for (const url of [`redis://ann:pass-xyzzy@127.0.0.1:${server.port}`, 'redis://ann:pass-xyzzy@127.0.0.1:1']) {
      await withStore(
        async (store) => {
          const error = (await store.get(randomUUID()).catch((failure: unknown) => failure)) as SessionError
          expect(error.code).toBe('STORE_UNAVAILABLE')
          expect(String(error.cause)).toMatch(/WRONGPASS|ECONNREFUSED/)
          expect(everythingIn(error)).not.toContain('xyzzy')
        },
        { url },
      )
    }
  })

  const everythingIn = (error: unknown): string => inspect(error, { depth: 9, showHidden: true })
})
