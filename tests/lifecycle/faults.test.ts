// Processes that end, at a time of their choosing or in the middle of it, connections and servers that hang, and
// neighbours on the same Redis: applications, older versions, a Redis user with few rights.
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { sign } from 'cookie-signature'
import { Redis } from 'ioredis'
import type { SessionManager, SessionOptions, SessionStore } from 'sojourn'
import { type RedisClient, RedisSessionStore } from 'sojourn/redis'
import { newSessionId, newToken, userKey } from '../../src/ids.js'
import { testApp } from '../support/app.js'
import { Client, listen, SECRET, type TestServer, until } from '../support/http.js'
import { putLines } from '../support/lines.js'
import { Load } from '../support/load.js'
import { type Program, startProgram } from '../support/processes.js'
import { RedisServer } from '../support/redis.js'

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

let prefixes = 0

function newPrefix(): string {
  return `faults-${++prefixes}:`
}

function range<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_unused, index) => make(index))
}

/** One application in this process. */
interface App {
  readonly manager: SessionManager
  readonly store: SessionStore
  client(cookies?: Iterable<readonly [string, string]>): Client
  stop(): Promise<void>
}

async function startApp(prefix: string, options: Partial<SessionOptions> = {}): Promise<App> {
  const { store = new RedisSessionStore({ url: server.url, prefix }), ...rest } = options
  const { app, middleware } = testApp({ store, ...rest })
  const { manager } = middleware
  // What fails is seen in the answers.
  manager.events.on('storeError', () => {})
  const http: TestServer = await listen(app)
  return {
    manager,
    store,
    client: (cookies) => new Client(http, cookies),
    async stop() {
      await http.close()
      await manager.close()
    },
  }
}

async function withApps<T extends readonly App[]>(
  starting: { readonly [Index in keyof T]: Promise<T[Index]> },
  task: (...apps: T) => Promise<void>,
): Promise<void> {
  const apps = (await Promise.all(starting)) as unknown as T
  try {
    await task(...apps)
  } finally {
    await Promise.all(apps.map((app) => app.stop()))
  }
}

async function loggedIn(app: App, user: string, client = app.client()): Promise<{ client: Client; id: string }> {
  const answer = await client.post(`/login?user=${user}`)
  expect(answer.status).toBe(200)
  return { client, id: answer.json<{ id: string }>().id }
}

async function userOf({ cookies }: Client, app: App): Promise<string | null> {
  const answer = await app.client(cookies).get('/peek')
  expect(answer.status).toBe(200)
  return answer.json<{ userId: string | null }>().userId
}

/** The IDs on the list of a user, whatever became of their sessions. */
async function listed({ store }: App, user: string): Promise<string[]> {
  const entries = (await store.users?.list(userKey(user), Date.now())) ?? []
  return entries.map(({ id }) => id).sort()
}

/** The IDs of the sessions that are alive, by user. */
async function liveByUser({ store }: App): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  for await (const record of store.scan?.() ?? []) {
    if (record.isExpired() || record.userId === undefined) continue
    const user = String(record.userId)
    found.set(user, [...(found.get(user) ?? []), record.id].sort())
  }
  return found
}

describe('a process that gets SIGTERM under load', () => {
  test.each(['before-response', 'after-response'] as const)('has stored what it answered: %s', async (commit) => {
    const prefix = newPrefix()
    const limits = { maxFields: 1_000_000 }
    const program = await startProgram('tests/support/drain-process.ts', [
      server.url,
      prefix,
      JSON.stringify({ commit, limits }),
    ])
    const load = await Load.start({ newClient: () => new Client(program.url), writers: 5, visitors: 5 })
    try {
      await load.progress()
      program.process.kill('SIGTERM')
      await once(program.process, 'exit')
    } finally {
      program.process.kill('SIGKILL')
      await load.stop()
    }
    expect([program.process.exitCode, program.process.signalCode]).toEqual([0, null])
    // Nobody got half an answer, or one that says that something failed.
    expect(load.failures.map(({ path, answer }) => [path, answer.status, answer.isTruncated])).toEqual([])
    await withApps([startApp(prefix)], async (app) => {
      for (const { id, written } of load.writers) {
        const fields = (await app.manager.get(id))?.fields ?? {}
        expect(written.length).toBeGreaterThan(2)
        expect(written.filter((name) => !(name in fields))).toEqual([])
      }
      for (const { client, user } of load.open) expect(await userOf(client, app)).toBe(user)
      for (const { client } of load.over) expect(await userOf(client, app)).toBeNull()
    })
  })
})

/** Kills what runs on it: so many calls reach the store, and none after them. */
function mortal(store: RedisSessionStore, calls: number): { store: RedisSessionStore; isDead(): boolean } {
  let left = calls
  const wrap = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(object, name) {
        const member: unknown = Reflect.get(object, name, object)
        if (name === 'users') return wrap(member as object)
        if (typeof member !== 'function') return member
        if (name === 'close') return member.bind(object) as unknown
        return (...args: unknown[]) => {
          left--
          if (left < 0) return Promise.reject(new Error('killed'))
          return Reflect.apply(member, object, args) as unknown
        }
      },
    })
  return { store: wrap(store), isDead: () => left < 0 }
}

describe('a process that is killed between two steps', () => {
  interface Scene {
    /** Of the process that will be killed. */
    readonly manager: SessionManager
    /** Three sessions of `ann`, and one that is nobody's, in the process that will be killed. */
    readonly anns: readonly Client[]
    readonly nobody: Client
    readonly newcomer: Client
  }
  const OPERATIONS: Record<string, (scene: Scene) => Promise<unknown>> = {
    'a login that begins a session': ({ newcomer }) => newcomer.post('/login?user=ann'),
    'a login that takes the place of a session': ({ nobody }) => nobody.post('/login?user=ann'),
    'a login as another user': ({ anns }) => (anns[1] as Client).post('/login?user=bob'),
    'a login of the same user': ({ anns }) => (anns[1] as Client).post('/login?user=ann'),
    'a logout': ({ anns }) => (anns[1] as Client).post('/logout'),
    'a regeneration': ({ anns }) => (anns[1] as Client).post('/regenerate?keep=true'),
    'revoke()': async ({ manager }) => {
      const [first] = await manager.sessionsOf('ann')
      return manager.revoke(first?.id ?? '')
    },
    'revokeUser()': ({ manager }) => manager.revokeUser('ann'),
    'create()': ({ manager }) => manager.create({ userId: 'ann' }),
  }
  const LIMIT = 3

  test.each(Object.entries(OPERATIONS))('%s leaves no live session outside of its list', async (_what, operate) => {
    for (let calls = 0, isDone = false; !isDone; calls++) {
      const prefix = newPrefix()
      const dying = mortal(new RedisSessionStore({ url: server.url, prefix }), calls)
      const limits = { maxSessionsPerUser: LIMIT } as const
      // A while later: what was about to be stored will not come any more.
      const later = (): number => Date.now() + 60_000
      const apps = [
        startApp(prefix, limits),
        startApp(prefix, { store: dying.store, ...limits }),
        startApp(prefix, { ...limits, clock: later }),
      ] as const
      await withApps(apps, async (before, killed, after) => {
        const anns = []
        for (let index = 0; index < LIMIT; index++) anns.push((await loggedIn(before, 'ann')).client)
        const nobody = before.client()
        await nobody.post('/set?cart=1')
        const inKilled = ({ cookies }: Client): Client => killed.client(cookies)
        const scene = { manager: killed.manager, anns: anns.map(inKilled), nobody: inKilled(nobody) }
        await operate({ ...scene, newcomer: killed.client() }).catch(() => {})
        isDone = !dying.isDead()

        for (const [user, ids] of await liveByUser(before)) {
          expect(await listed(before, user)).toEqual(expect.arrayContaining(ids))
        }
        // A list leaves nothing behind that stands for no session.
        for (const user of ['ann', 'bob']) {
          const sessions = (await after.manager.sessionsOf(user)).map(({ id }) => id).sort()
          expect(sessions).toEqual((await liveByUser(before)).get(user) ?? [])
          expect(await listed(before, user)).toEqual(sessions)
        }
        // And a login makes room for itself, whatever was left undone.
        const last = await loggedIn(after, 'ann')
        const left = await after.manager.sessionsOf('ann')
        expect(left.length).toBeLessThanOrEqual(LIMIT)
        expect(left.map(({ id }) => id)).toContain(last.id)
      })
    }
  })

  test('under load by SIGKILL leaves no live session outside of its list', async () => {
    const prefix = newPrefix()
    const options = { maxSessionsPerUser: 2 }
    const programs: Program[] = await Promise.all(
      range(2, () => startProgram('tests/support/drain-process.ts', [server.url, prefix, JSON.stringify(options)])),
    )
    await withApps([startApp(prefix, options)], async (app) => {
      for (const { url, process } of programs) {
        const load = await Load.start({ newClient: () => new Client(url), writers: 0, visitors: 8 })
        try {
          // Ends what the others begin.
          while (load.over.length < 6)
            for (const index of range(8, (each) => each)) await app.manager.revokeUser(`visitor-${index}`)
          process.kill('SIGKILL')
          await once(process, 'exit')
        } finally {
          await load.stop()
        }
        const live = await liveByUser(app)
        for (const [user, ids] of live) expect(await listed(app, user)).toEqual(expect.arrayContaining(ids))
        for (const { client, user } of load.open) expect([user, null]).toContain(await userOf(client, app))
        for (const { client } of load.over) expect(await userOf(client, app)).toBeNull()
        for (const user of live.keys()) {
          await loggedIn(app, user)
          expect((await app.manager.sessionsOf(user)).length).toBeLessThanOrEqual(2)
          await app.manager.revokeUser(user)
          expect(await app.manager.sessionsOf(user)).toEqual([])
        }
      }
    }).finally(() => {
      for (const { process } of programs) process.kill('SIGKILL')
    })
  })
})

describe('a client that sends again what it got no reply to', () => {
  /** As ioredis does when a connection is lost: the first reply has gone with it. */
  function repeating(client: Redis): RedisClient {
    return new Proxy(client, {
      get(object, name) {
        const member: unknown = Reflect.get(object, name, object)
        if (typeof member !== 'function') return member
        if (name !== 'evalsha') return member.bind(object) as unknown
        return async (...args: unknown[]) => {
          await (Reflect.apply(member, object, args) as Promise<unknown>).catch(() => {})
          return Reflect.apply(member, object, args) as unknown
        }
      },
    }) as unknown as RedisClient
  }

  test('does nothing twice, and nothing by halves', async () => {
    const client = new Redis(server.url)
    const prefix = newPrefix()
    const store = new RedisSessionStore({ client: repeating(client), prefix })
    await withApps([startApp(prefix, { store }), startApp(prefix)], async (app, other) => {
      const browser = app.client()
      expect((await browser.post('/set?cart=1')).status).toBe(200)
      const { id } = await loggedIn(app, 'ann', browser)
      expect((await browser.post('/set?a=1')).status).toBe(200)
      for (const path of ['/renew', '/regenerate?keep=true']) {
        const answer = await browser.post(path)
        expect([path, answer.status, answer.setCookies.length]).toEqual([path, 200, 1])
      }
      expect((await browser.get('/peek')).json()).toMatchObject({ userId: 'ann', fields: { cart: '1', a: '1' } })
      expect(await other.manager.validate(id)).toMatchObject({ reason: 'ended', end: { reason: 'regenerated' } })
      const made = await app.manager.create({ userId: 'ann', fields: { made: true } })
      // Each session is there once, and on its list.
      expect(await other.manager.count()).toBe(2)
      const sessions = (await other.manager.sessionsOf('ann')).map((each) => each.id)
      expect(sessions).toContain(made.id)
      expect((await liveByUser(other)).get('ann')).toEqual(sessions.sort())
      expect(await listed(other, 'ann')).toEqual(sessions)

      const left = browser.clone()
      expect((await browser.post('/logout')).status).toBe(200)
      expect(await userOf(left, other)).toBeNull()
      await app.manager.revoke(made.id)
      expect(await app.manager.get(made.id)).toBeNull()
      expect(await listed(other, 'ann')).toEqual([])
    })
    client.disconnect()
  })
})

test('what goes through a Redis that hangs ends at the deadline', async () => {
  const frozen = await RedisServer.start()
  const store = new RedisSessionStore({ url: frozen.url })
  const app = await startApp('', { store, archive: () => {}, storeTimeout: '2s' })
  const { manager } = app
  try {
    await until(async () => (await manager.create().catch(() => null)) !== null)
    expect(await manager.count()).toBeGreaterThan(0)
    frozen.freeze()
    const asked = [manager.count(), manager.list().next(), manager.cleanUp(), manager.sessionsOf('ann')]
    const results = await Promise.allSettled(asked)
    expect(results).toEqual(asked.map(() => ({ status: 'rejected', reason: expect.objectContaining(LATE) as unknown })))
  } finally {
    await frozen.stop()
    await app.stop()
  }
})

const LATE = { code: 'STORE_TIMEOUT' }

describe('two applications on one Redis', () => {
  test.each([
    ['beside each other', 'shop:', 'blog:'],
    ['one below the other', 'shop:', 'shop:u:'],
    ['one named like a pattern', 'shop[1]*:', 'shop1-:'],
  ])('do not meet, their prefixes %s', async (_what, first, second) => {
    const place = newPrefix()
    const [prefix, otherPrefix] = [`${place}${first}`, `${place}${second}`]
    const options = { maxSessionsPerUser: 2, idleTimeout: '30m', archive: () => {} } as const
    let now = Date.now()
    const clock = (): number => now
    const apps = [startApp(prefix, { ...options, clock }), startApp(otherPrefix, { ...options, clock })] as const
    await withApps(apps, async (shop, blog) => {
      const inShop = await Promise.all([loggedIn(shop, 'ann'), loggedIn(shop, 'ann')])
      const inBlog = [await loggedIn(blog, 'ann'), await loggedIn(blog, 'ann')]
      // The same names, secrets and users, and neither knows the other's.
      for (const { client } of inShop) expect(await userOf(client, blog)).toBeNull()
      for (const app of [shop, blog]) {
        expect([await app.manager.count(), (await app.manager.sessionsOf('ann')).length]).toEqual([2, 2])
      }
      expect(await blog.manager.revoke(inShop[0].id)).toBe(false)
      expect(await blog.manager.revokeUser('ann')).toBe(2)
      for (const { client } of inBlog) expect(await userOf(client, blog)).toBeNull()
      for (const { client } of inShop) expect(await userOf(client, shop)).toBe('ann')

      // Leases: one cleans up while the other does.
      expect(await blog.store.lease?.('cleanup', 'somebody', 60_000)).toBe(true)
      now += 31 * 60_000
      expect(await blog.manager.cleanUp()).toBeNull()
      expect(await shop.manager.cleanUp()).toEqual({ removed: 2, failed: 0 })

      // How often all sessions were revoked.
      expect(await blog.store.epoch?.(7)).toBe(7)
      expect(await shop.store.epoch?.()).toBe(0)
    })
  })

  test('do not revoke the sessions of each other with revokeAll()', async () => {
    const place = newPrefix()
    await withApps([startApp(`${place}shop:`), startApp(`${place}blog:`)], async (shop, blog) => {
      const [inShop, inBlog] = [await loggedIn(shop, 'ann'), await loggedIn(blog, 'ann')]
      await blog.manager.revokeAll()
      expect([await userOf(inBlog.client, blog), await userOf(inShop.client, shop)]).toEqual([null, 'ann'])
    })
  })

  test('with one prefix are told apart by the names of their cookies', async () => {
    const prefix = newPrefix()
    const apps = [
      startApp(prefix, { cookie: { name: 'shop' } }),
      startApp(prefix, { cookie: { name: 'blog' } }),
    ] as const
    await withApps(apps, async (shop, blog) => {
      const { client } = await loggedIn(shop, 'ann')
      const value = client.cookies.get('shop') as string
      expect(await userOf(client, shop)).toBe('ann')
      const seen: unknown[] = []
      blog.manager.events.on('badCookie', ({ reason }) => seen.push(reason))
      expect(await userOf(blog.client([['blog', value]]), blog)).toBeNull()
      expect(seen).toEqual(['signature'])
    })
  })
})

describe('a session of the version before', () => {
  const HOUR_MS = 3_600_000

  /** As that version wrote it: no epoch, no context, and its user on no list. */
  async function before(prefix: string, user?: string): Promise<{ id: string; cookies: [string, string][] }> {
    const id = newSessionId()
    const { token, tokenHash } = newToken()
    const createdAt = Date.now() - 60_000
    const key = `${prefix}{${id.slice(0, 4)}}${id.slice(4)}`
    const times = [1, createdAt, 0, 0, HOUR_MS / 2, 12 * HOUR_MS, 1].map((count) => count.toString(36))
    await putLines(redis, key, {
      m: times.join(' '),
      t: tokenHash,
      ...(user !== undefined && { u: JSON.stringify(user) }),
      '.cart': '["book"]',
    })
    await redis.expire(key, HOUR_MS / 2 / 1000)
    return { id, cookies: [['sid', sign(`sid=${id}.${token}`, SECRET).slice('sid='.length)]] }
  }

  test('lives on: it is read, written, listed, renewed, and ended', async () => {
    const prefix = newPrefix()
    await withApps([startApp(prefix, { touchInterval: 0 })], async (app) => {
      const { id, cookies } = await before(prefix, 'ann')
      const client = app.client(cookies)
      expect((await client.get('/peek')).json()).toEqual({ id, userId: 'ann', fields: { cart: ['book'] } })
      const found = await app.manager.get(id)
      expect(found).toMatchObject({ userId: 'ann', context: {}, fields: { cart: ['book'] } })
      expect(found?.lastAccessedAt.getTime()).toBeGreaterThan((found?.createdAt.getTime() ?? 0) + 50_000)
      for (const path of ['/set?a=1', '/update', '/renew']) expect((await client.post(path)).status).toBe(200)
      expect(await app.manager.count()).toBe(1)
      expect((await client.get('/peek')).json()).toEqual({
        id,
        userId: 'ann',
        fields: { cart: ['book'], a: '1', n: 1 },
      })
      const left = client.clone()
      expect((await client.post('/logout')).status).toBe(200)
      expect(await userOf(left, app)).toBeNull()
      expect(await app.manager.validate(id)).toMatchObject({ reason: 'ended', end: { reason: 'logout' } })
    })
  })

  test('gets on the list of its user with the next login, and counts for the limit then', async () => {
    const prefix = newPrefix()
    await withApps([startApp(prefix, { maxSessionsPerUser: 1 })], async (app) => {
      const { id, cookies } = await before(prefix)
      const { client } = await loggedIn(app, 'ann', app.client(cookies))
      expect((await client.get('/peek')).json()).toMatchObject({ userId: 'ann', fields: { cart: ['book'] } })
      expect(await app.manager.validate(id)).toMatchObject({ reason: 'ended', end: { reason: 'regenerated' } })
      await loggedIn(app, 'ann')
      expect(await userOf(client, app)).toBeNull()
    })
  })

  test('is ended by revokeAll(), though it knows of no epoch', async () => {
    const prefix = newPrefix()
    await withApps([startApp(prefix), startApp(prefix)], async (app, other) => {
      const sessions = [await before(prefix, 'ann'), await before(prefix)]
      for (const { cookies } of sessions) expect((await app.client(cookies).get('/peek')).body).toContain('book')
      await other.manager.revokeAll()
      for (const { cookies } of sessions) expect((await app.client(cookies).get('/peek')).body).not.toContain('book')
      expect(await app.manager.count()).toBe(0)
    })
  })
})
