// What the manager and the middleware do, on each kind of Redis: one server, a primary behind Sentinel, a cluster. And
// what is left of it after a failover, while slots move, and when a primary is lost: under load, with `wait`.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { SessionManager, SessionOptions, StoredSession } from 'sojourn'
import { RedisCacheStorage } from 'sojourn/cache'
import { type RedisClient, RedisSessionStore, type RedisWaitOptions } from 'sojourn/redis'
import { cacheStorageChecks } from 'sojourn/testing'
import { userKey } from '../../src/ids.js'
import { testApp } from '../support/app.js'
import { type Answer, Client, listen, type TestServer, until } from '../support/http.js'
import { type Acknowledged, Load, type Visit } from '../support/load.js'
import { RedisServer } from '../support/redis.js'
import {
  ask,
  attach,
  detach,
  type RedisCluster,
  type RedisSentinel,
  replicated,
  startCluster,
  startSentinel,
} from '../support/redis-topologies.js'

let alone: RedisServer
let sentinel: RedisSentinel
let cluster: RedisCluster
beforeAll(async () => {
  ;[alone, sentinel, cluster] = await Promise.all([RedisServer.start(), startSentinel(), startCluster()])
})
afterAll(async () => {
  await Promise.all([alone.stop(), sentinel.stop(), cluster.stop()])
})

test('the storage of the cache passes its suite on a cluster', async () => {
  const client = await cluster.connect()
  const createStorage = (): RedisCacheStorage => new RedisCacheStorage({ client, prefix: 'cached:' })
  for (const { run } of cacheStorageChecks({ createStorage, createPeer: createStorage })) await run()
})

/** Every ending waits for the one replica there is. Nothing here is about deadlines, and the machine may be busy. */
const PATIENT: RedisWaitOptions = { replicas: 1, timeoutMs: 4_000 }
const PATIENCE = { storeTimeout: '10s' } as const

interface Topology {
  /** How a store is connected, by a client of its own, as the default user of Redis or another. */
  connection(login?: {
    username: string
    password: string
  }): Promise<{ url: string } | { client: RedisClient; wait: RedisWaitOptions }>
  servers(): readonly RedisServer[]
  /** What the page on Redis asks for, besides the rights that a store on one server needs. */
  readonly rights: readonly ('wait' | 'Cluster')[]
}

const TOPOLOGIES: readonly (readonly [string, Topology])[] = [
  [
    'Redis alone',
    {
      connection: async (login) => ({
        url: login ? alone.url.replace('//', `//${login.username}:${login.password}@`) : alone.url,
      }),
      servers: () => [alone],
      rights: [],
    },
  ],
  [
    'Sentinel, endings on the replica',
    {
      connection: async (login) => ({ client: await sentinel.connect(login), wait: PATIENT }),
      servers: () => [sentinel.primary, sentinel.replica],
      rights: ['wait'],
    },
  ],
  [
    'a cluster of six, endings on the replicas',
    {
      connection: async (login) => ({ client: await cluster.connect(login), wait: PATIENT }),
      servers: () => cluster.nodes,
      rights: ['wait', 'Cluster'],
    },
  ],
]

/** One process of an application, or as good as that: it shares nothing with others but Redis. */
interface Process {
  readonly manager: SessionManager
  readonly store: RedisSessionStore
  readonly server: TestServer
  /** A browser of this process. */
  client(cookies?: Cookies): Client
}

type Cookies = Iterable<readonly [string, string]>

interface Site {
  readonly prefix: string
  readonly processes: readonly [Process, Process]
  /** One more, as after a restart: it knows nothing of before. */
  start(): Promise<Process>
  /** Stopped with the site, if nobody else does. */
  readonly loads: Load[]
  stop(): Promise<void>
}

let sites = 0

/** Two processes on a topology, under a prefix of their own. `POST /spare` ends all other sessions of the user. */
async function startSite(
  { connection }: Pick<Topology, 'connection'>,
  options: Partial<SessionOptions> = {},
): Promise<Site> {
  const prefix = `site-${++sites}:`
  const started: Process[] = []
  const loads: Load[] = []
  const start = async (): Promise<Process> => {
    const store = new RedisSessionStore({ ...(await connection()), prefix })
    // A client connects when it can, and a call waits half a second for it.
    await until(
      () =>
        store.get(randomUUID()).then(
          () => true,
          () => false,
        ),
      20_000,
    )
    const { app, middleware } = testApp({ store, storeTimeout: undefined, ...options })
    const { manager } = middleware
    // What fails is seen in the answers.
    manager.events.on('storeError', () => {})
    app.post('/spare', async (req, res) => {
      const { userId } = req.session.metadata
      const ended = await manager.revokeUser(userId ?? '', { except: req.session })
      res.json({ id: req.session.id, ended })
    })
    const server = await listen(app)
    const process = { manager, store, server, client: (cookies?: Cookies) => new Client(server, cookies) }
    started.push(process)
    return process
  }
  const processes = await Promise.all([start(), start()])
  return {
    prefix,
    processes,
    start,
    loads,
    async stop() {
      await Promise.all(loads.map((load) => load.stop()))
      await Promise.all(started.map(({ server }) => server.close()))
      await Promise.all(started.map(({ manager }) => manager.close()))
    },
  }
}

async function withSite(
  topology: Pick<Topology, 'connection'>,
  options: Partial<SessionOptions>,
  task: (site: Site) => Promise<void>,
): Promise<void> {
  const site = await startSite(topology, options)
  try {
    await task(site)
  } finally {
    await site.stop()
  }
}

function range<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_unused, index) => make(index))
}

/** A browser in which `user` has logged in. */
async function loggedIn(process: Process, user: string): Promise<{ client: Client; id: string }> {
  const client = process.client()
  const answer = await client.post(`/login?user=${user}`)
  expect(answer.status).toBe(200)
  return { client, id: answer.json<{ id: string }>().id }
}

/** Whom a browser is taken for, by the process given. */
async function userOf({ cookies }: Client, process: Process): Promise<string | null> {
  const answer = await process.client(cookies).get('/peek')
  expect(answer.status).toBe(200)
  return answer.json<{ userId: string | null }>().userId
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

/** The IDs on the list of a user, whatever became of their sessions. */
async function listed({ store }: Process, user: string): Promise<string[]> {
  return (await store.users.list(userKey(user), Date.now())).map(({ id }) => id).sort()
}

describe.each(TOPOLOGIES)('%s', (_name, topology) => {
  test('a session is made, found, changed, kept alive and ended without a request', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const made = await Promise.all(
        range(12, (index) => here.manager.create({ userId: `u${index}`, fields: { index, kept: true } })),
      )
      for (const [index, { id, lastAccessedAt }] of made.entries()) {
        expect(await there.manager.get(id)).toMatchObject({ id, userId: `u${index}`, fields: { index, kept: true } })
        expect(await there.manager.update(id, { more: [index], kept: undefined })).toBe(true)
        expect(await here.manager.refresh(id)).toBe(true)
        const found = (await here.manager.get(id)) as StoredSession
        expect(found.fields).toEqual({ index, more: [index] })
        expect(found.lastAccessedAt.getTime()).toBeGreaterThanOrEqual(lastAccessedAt.getTime())
        expect(await there.manager.validate(id)).toMatchObject({ isValid: true, session: { id } })
      }
      const [first, second] = made as [StoredSession, StoredSession]
      expect(await here.manager.revoke(first.id, { by: 'admin', detail: 'stolen' })).toBe(true)
      expect(await there.manager.terminate(second.id, 'left')).toBe(true)
      for (const [{ id }, facts] of [
        [first, { by: 'admin', detail: 'stolen' }],
        [second, { detail: 'left' }],
      ] as const) {
        for (const { manager } of [here, there]) {
          expect(await manager.get(id)).toBeNull()
          expect(await manager.validate(id)).toMatchObject({
            isValid: false,
            reason: 'ended',
            end: { reason: 'revoked', ...facts },
          })
          expect([await manager.update(id, { more: 1 }), await manager.refresh(id)]).toEqual([false, false])
          expect(await manager.revoke(id)).toBe(false)
        }
      }
    }))

  test('lists and counts name every session once, wherever it is kept', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const made = await Promise.all(range(60, (index) => here.manager.create({ userId: `u${index % 3}` })))
      const ids = made.map(({ id }) => id).sort()
      expect((await all(there.manager.list())).map(({ id }) => id).sort()).toEqual(ids)
      expect(await there.manager.count()).toBe(60)
      const ended = ids.slice(0, 7)
      await Promise.all(ended.map((id) => there.manager.revoke(id)))
      expect(await here.manager.count()).toBe(53)
      expect((await all(here.manager.list({ status: 'ended' }))).map(({ id }) => id).sort()).toEqual(ended)
      expect(await here.manager.count({ status: 'all' })).toBe(60)
      const ofUser = made.filter(({ id, userId }) => userId === 'u1' && !ended.includes(id)).map(({ id }) => id)
      expect((await here.manager.sessionsOf('u1')).map(({ id }) => id).sort()).toEqual(ofUser.sort())
      expect(await here.manager.count({ userId: 'u1' })).toBe(ofUser.length)
      expect(await listed(here, 'u1')).toEqual(ofUser)
    }))

  test('who logs in is on their list, and off it after the logout', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const anonymous = here.client()
      const before = (await anonymous.post('/set?cart=1')).json<{ id: string }>().id
      const old = anonymous.clone()
      const { id } = (await anonymous.post('/login?user=ann')).json<{ id: string }>()
      const other = await loggedIn(there, 'ann')
      expect(await userOf(old, there)).toBeNull()
      expect(await there.manager.validate(before)).toMatchObject({ reason: 'ended', end: { reason: 'regenerated' } })
      const sessions = await there.manager.sessionsOf('ann', { current: other.id })
      const marks = Object.fromEntries(sessions.map((each) => [each.id, each.isCurrent]))
      expect(marks).toEqual({ [id]: false, [other.id]: true })
      expect((await there.manager.get(id))?.fields).toEqual({ cart: '1' })
      const left = anonymous.clone()
      expect((await anonymous.post('/logout')).status).toBe(200)
      expect([await userOf(left, here), await userOf(left, there)]).toEqual([null, null])
      expect(await there.manager.validate(id)).toMatchObject({ reason: 'ended', end: { reason: 'logout' } })
      expect(await userOf(other.client, here)).toBe('ann')
      expect(await listed(here, 'ann')).toEqual([other.id])
    }))

  test('revokeUser() ends the sessions of one user in all processes, and spares the one it is told to', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const anns = await Promise.all(range(5, (index) => loggedIn(index % 2 === 0 ? here : there, 'ann')))
      const bob = await loggedIn(here, 'bob')
      const [first, ...others] = anns as [(typeof anns)[0], ...typeof anns]
      const stolen = first.client.clone()
      const spared = (await first.client.post('/spare')).json<{ id: string; ended: number }>()
      expect(spared.ended).toBe(4)
      expect(spared.id).not.toBe(first.id)
      for (const { client } of [...others, { client: stolen }]) expect(await userOf(client, there)).toBeNull()
      expect([await userOf(first.client, there), await userOf(bob.client, there)]).toEqual(['ann', 'bob'])
      expect(await listed(there, 'ann')).toEqual([spared.id])

      const again = await loggedIn(there, 'ann')
      expect(await here.manager.revokeUser('ann', { except: again.id })).toBe(1)
      expect([await userOf(first.client, there), await userOf(again.client, here)]).toEqual([null, 'ann'])
      expect(await there.manager.revokeUser('ann')).toBe(1)
      expect([await userOf(again.client, here), await userOf(bob.client, here)]).toEqual([null, 'bob'])
      expect([await listed(here, 'ann'), await listed(here, 'bob')]).toEqual([[], [bob.id]])
    }))

  test.each(['end-oldest', 'refuse'] as const)(
    '20 logins at once in two processes leave the limit: %s',
    (onSessionLimit) =>
      withSite(topology, { ...PATIENCE, maxSessionsPerUser: 3, onSessionLimit }, async ({ processes }) => {
        const clients = range(20, (index) => (processes[index % 2] as Process).client())
        // Some have a session that the login takes the place of, some begin with it.
        await Promise.all(clients.slice(0, 10).map((client) => client.post('/set?cart=1')))
        const statuses = (await Promise.all(clients.map((client) => client.post('/login?user=ann')))).map(
          ({ status }) => status,
        )
        expect(statuses.filter((status) => status !== 200 && status !== 409)).toEqual([])
        const users = await Promise.all(clients.map((client, index) => userOf(client, processes[index % 2] as Process)))
        expect(users.filter((user) => user === 'ann')).toHaveLength(3)
        if (onSessionLimit === 'refuse') expect(statuses.filter((status) => status === 200)).toHaveLength(3)
        const sessions = await processes[0].manager.sessionsOf('ann')
        expect(sessions).toHaveLength(3)
        expect(await listed(processes[1], 'ann')).toEqual(sessions.map(({ id }) => id).sort())
        expect(await processes[1].manager.count({ userId: 'ann' })).toBe(3)
      }),
  )

  test('a clean-up in two processes archives each session that ran out once, and leaves nothing of it', () => {
    let now = Date.now()
    const archived: StoredSession[] = []
    const options: Partial<SessionOptions> = {
      ...PATIENCE,
      clock: () => now,
      idleTimeout: '30m',
      cleanupInterval: 0,
      archive: (session) => archived.push(session),
    }
    return withSite(topology, options, async ({ processes: [here, there] }) => {
      const old = await Promise.all(range(30, (index) => here.manager.create({ userId: 'ann', fields: { index } })))
      const gone = old.shift() as StoredSession
      await here.manager.revoke(gone.id)
      now += 31 * 60_000
      const young = await there.manager.create({ userId: 'ann', fields: { index: 'young' } })
      const results = await Promise.all(range(10, (index) => (index % 2 === 0 ? here : there).manager.cleanUp()))
      const removed = new Set(results.filter((result) => result !== null))
      expect([...removed].reduce((sum, each) => sum + each.removed, 0)).toBe(29)
      expect([...removed].reduce((sum, each) => sum + each.failed, 0)).toBe(0)
      const numbers = archived.map(({ fields }) => fields['index'] as number).sort((a, b) => a - b)
      expect(numbers).toEqual(range(29, (index) => index + 1))
      expect(archived[0]).toMatchObject({ userId: 'ann', end: { reason: 'idle' } })
      for (const { id } of old) {
        expect(await there.manager.validate(id)).toMatchObject({ isValid: false, reason: 'idle' })
        expect((await there.store.get(id))?.fields.size).toBe(0)
      }
      expect(await listed(here, 'ann')).toEqual([young.id])
      expect(await here.manager.count()).toBe(1)
      expect(await here.manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
    })
  })

  test('revokeAll() ends the sessions of all processes, and none that begins after it', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const [ann, bob] = [await loggedIn(here, 'ann'), await loggedIn(there, 'bob')]
      await here.manager.revokeAll()
      for (const process of [here, there]) {
        for (const { client } of [ann, bob]) expect(await userOf(client, process)).toBeNull()
        expect(await process.manager.count()).toBe(0)
      }
      const later = await loggedIn(there, 'ann')
      expect([await userOf(later.client, here), await userOf(later.client, there)]).toEqual(['ann', 'ann'])
      expect(await here.manager.cleanUp()).toEqual({ removed: 2, failed: 0 })
      expect(await there.manager.count({ status: 'ended' })).toBe(2)
      expect(await there.manager.count()).toBe(1)
    }))

  test('a Redis user with the documented rights may do it all, and nothing else is asked for', async () => {
    const servers = topology.servers()
    const login = await grant(servers, topology.rights)
    let now = Date.now()
    const archived: unknown[] = []
    const options: Partial<SessionOptions> = {
      ...PATIENCE,
      clock: () => now,
      maxSessionsPerUser: 2,
      idleTimeout: '30m',
      touchInterval: 0,
      cleanupInterval: 0,
      archive: (session) => archived.push(session),
    }
    await withSite({ connection: () => topology.connection(login) }, options, async ({ processes: [here, there] }) => {
      const { manager } = here
      const { id } = await manager.create({ userId: 'eve', fields: { a: 1 } })
      now += 31 * 60_000
      expect(await manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
      expect(archived).toMatchObject([{ id, fields: { a: 1 } }])

      const browser = here.client()
      for (const path of ['/set?a=1', '/update', '/login?user=ann', '/renew', '/regenerate?keep=true', '/spare']) {
        expect([path, (await browser.post(path)).status]).toEqual([path, 200])
      }
      now += 1_000
      const anns = [await loggedIn(there, 'ann'), await loggedIn(there, 'ann')] as const
      expect(await manager.sessionsOf('ann')).toHaveLength(2)
      expect(await manager.update(anns[0].id, { b: 2 })).toBe(true)
      expect(await manager.refresh(anns[0].id)).toBe(true)
      expect(await manager.validate(anns[1].id)).toMatchObject({ isValid: true })
      expect([await manager.count(), await manager.count({ userId: 'ann' })]).toEqual([2, 2])
      expect((await anns[0].client.post('/logout')).status).toBe(200)
      expect(await there.manager.revoke(anns[1].id)).toBe(true)
      await loggedIn(here, 'ann')
      expect(await there.manager.revokeUser('ann')).toBe(1)
      await there.manager.revokeAll()
      expect(await manager.count()).toBe(0)
    })
    expect(await refusedCommands(servers)).toEqual([])
  })

  test('what ends sessions works when every server is out of memory', () =>
    withSite(topology, PATIENCE, async ({ processes: [here, there] }) => {
      const anns = await Promise.all(range(6, () => loggedIn(here, 'ann')))
      const [bob, eve] = [await loggedIn(here, 'bob'), await loggedIn(here, 'eve')]
      const servers = topology.servers()
      const limit = (bytes: string): Promise<unknown> =>
        Promise.all(servers.map((server) => ask(server, (redis) => redis.config('SET', 'maxmemory', bytes))))
      await limit('1')
      try {
        expect((await here.client().post('/set?a=1')).status).toBe(503)
        const left = bob.client.clone()
        expect((await bob.client.post('/logout')).status).toBe(200)
        expect(await there.manager.revoke(eve.id)).toBe(true)
        expect(await there.manager.revokeUser('ann')).toBe(6)
        for (const client of [left, eve.client, ...anns.map((each) => each.client)]) {
          expect(await userOf(client, there)).toBeNull()
        }
        expect([await listed(here, 'ann'), await listed(here, 'bob'), await listed(here, 'eve')]).toEqual([[], [], []])
      } finally {
        await limit('0')
      }
    }))
})

type Login = Parameters<Topology['connection']>[0]

/** Makes a Redis user who may do what the page on Redis asks for, on the keys of the next site. */
async function grant(servers: readonly RedisServer[], features: Topology['rights']): Promise<NonNullable<Login>> {
  const page = readFileSync(new URL('../../docs/operations/redis.md', import.meta.url), 'utf8')
  const rightsFor = (use: string): string[] => {
    const [, cell = ''] = new RegExp(`^\\| ${use} \\| (\`\\+.*) \\|$`, 'm').exec(page) ?? []
    return cell.replaceAll('\\|', '|').match(/\+[a-z|]+/g) ?? []
  }
  const rights = { wait: rightsFor('`wait`'), Cluster: rightsFor('a Cluster') }
  const all = rightsFor('all')
  expect(all.length).toBeGreaterThan(5)
  const granted = [...all, ...features.flatMap((feature) => rights[feature])]
  const login = { username: `least-${sites}`, password: 'least-rights' }
  const rules = ['reset', 'on', `>${login.password}`, `~site-${sites + 1}:*`, '-@all', ...granted]
  await Promise.all(
    servers.map((server) =>
      ask(server, async (redis) => {
        await redis.acl('SETUSER', login.username, ...rules)
        await redis.acl('LOG', 'RESET')
      }),
    ),
  )
  return login
}

async function refusedCommands(servers: readonly RedisServer[]): Promise<string[]> {
  const logs = await Promise.all(servers.map((server) => ask(server, (redis) => redis.acl('LOG'))))
  const entries = logs.flat() as unknown[][]
  const commands = entries.map((entry) => String(entry[entry.indexOf('object') + 1]))
  // ioredis tells its name and what a connection is for, where it may.
  return commands.filter((command) => !/^client\|set(info|name)$/i.test(command))
}

/** Under load the deadline is the default, and an ending waits for less than that. */
const DEADLINE_MS = 1_000
const WAIT: RedisWaitOptions = { replicas: 1, timeoutMs: 200 }
/** A load may fill a session more than an application would. */
const LARGE = { limits: { maxFields: 1_000_000 } } as const

describe('what was acknowledged under load', () => {
  test('outlives the loss of a primary behind Sentinel, and no ended session comes back', () =>
    withSite({ connection: async () => ({ client: await sentinel.connect(), wait: WAIT }) }, LARGE, async (site) => {
      const { primary, replica } = await sentinel.roles()
      const load = await startLoad(site, 6)
      const story = await losePrimary(load, { primary, replica, slotKey: 'any' })
      await sentinel.rejoin(primary)
      await load.progress()
      await load.stop()
      // What is lost for certain, or nothing has been shown.
      expect(await expectOutlived(site, load, story)).toBeGreaterThan(0)
    }))

  test('does not count a logout whose ending only the primary has, however often it is asked for', () =>
    withSite({ connection: async () => ({ client: await sentinel.connect(), wait: WAIT }) }, PATIENCE, async (site) => {
      const [here, there] = site.processes
      const { client } = await loggedIn(here, 'ann')
      const left = client.clone()
      const { replica } = await sentinel.roles()
      await detach(replica)
      try {
        for (let time = 1; time <= 3; time++) expect([time, (await client.post('/logout')).status]).toEqual([time, 503])
        // It is over all the same.
        expect(await userOf(left, there)).toBeNull()
      } finally {
        await attach(replica)
      }
      await until(async () => (await client.post('/logout')).status === 200, 10_000)
      expect(client.cookies.size).toBe(0)
    }))

  test('outlives the loss of a primary of a cluster, and no ended session comes back', () =>
    withSite({ connection: async () => ({ client: await cluster.connect(), wait: WAIT }) }, LARGE, async (site) => {
      // The hardest to do without: each process reads the epoch once a second.
      const slotKey = `${site.prefix}epoch`
      const [{ manager }, { client }] = site.processes
      const revoked = client()
      await revoked.post('/login?user=revoked')
      await manager.revokeAll()
      const holders = await cluster.holdersOf(slotKey)
      const [primary, replica] = [holders.primary, holders.replicas[0] as RedisServer]
      const load = await startLoad(site, (id) =>
        cluster.holdersOf(keyOf(site, id)).then((found) => found.primary === primary),
      )
      const story = await losePrimary(load, { primary, replica, slotKey })
      await primary.restart()
      await cluster.settled()
      await load.progress()
      await load.stop()
      // What is lost for certain, or nothing has been shown.
      expect(await expectOutlived(site, load, story)).toBeGreaterThan(0)
      expect(await userOf(revoked, await site.start())).toBeNull()
    }))

  test('outlives a primary of a cluster that hangs, is replaced, and comes back', () => {
    // Without it nobody notices that a connection is silent.
    const connection = async (): ReturnType<Topology['connection']> => ({
      client: await cluster.connect({ socketTimeout: 700 }),
      wait: WAIT,
    })
    return withSite({ connection }, LARGE, async (site) => {
      const slotKey = `${site.prefix}epoch`
      const { primary, replicas } = await cluster.holdersOf(slotKey)
      const load = await startLoad(site, async (id) => (await cluster.holdersOf(keyOf(site, id))).primary === primary)
      await load.progress()
      const before = load.acknowledged()
      await replicated(primary, slotKey)
      primary.freeze()
      try {
        await load.progress('writers')
      } finally {
        primary.thaw()
      }
      const after = load.acknowledged()
      await cluster.settled()
      expect((await cluster.holdersOf(slotKey)).primary).toBe(replicas[0])
      await load.progress()
      await load.stop()
      await expectOutlived(site, load, { before, after })
    })
  })

  test('goes on, every session and every operation, while slots move', async () => {
    // With the rights that the page on Redis asks for: a slot that moves needs one of its own.
    const login = await grant(cluster.nodes, ['wait', 'Cluster'])
    const connection = async (): ReturnType<Topology['connection']> => ({
      client: await cluster.connect(login),
      wait: PATIENT,
    })
    await withSite({ connection }, { ...LARGE, ...PATIENCE }, async (site) => {
      const [here, there] = site.processes
      await here.store.epoch(1)
      const [leaving, entering, user] = await Promise.all([
        loggedIn(here, 'leaving'),
        loggedIn(here, 'entering'),
        loggedIn(here, 'user'),
      ])
      const load = await startLoad(site, 3)
      await load.progress()
      const before = load.acknowledged()
      const [left, old] = [leaving.client.clone(), entering.client.clone()]
      let login: Promise<Answer> | undefined
      /** What else is done about a key when it has moved, and its slot has not. */
      const moves: [key: string, action?: () => Promise<void>][] = [
        ...load.writers.map(({ id }): [string] => [keyOf(site, id)]),
        [`${site.prefix}epoch`],
        [
          `${site.prefix}u:{${userKey('user')}}`,
          async () => {
            expect(await there.manager.sessionsOf('user')).toMatchObject([{ id: user.id }])
            expect(await there.manager.revokeUser('user')).toBe(1)
          },
        ],
        [
          keyOf(site, leaving.id),
          async () => {
            expect((await leaving.client.post('/logout')).status).toBe(200)
          },
        ],
        [
          keyOf(site, entering.id),
          async () => {
            expect(await userOf(old, there)).toBe('entering')
            // Two keys of a slot that moves cannot be written together: that waits until it has moved.
            const refused = await refusals()
            login = entering.client.post('/login?user=entered')
            await until(async () => (await refusals()) > refused)
          },
        ],
      ]
      for (const [key, action] of moves) {
        await cluster.moveSlotOf(key, async ({ step, movedKeys }) => {
          // Other sessions may share the slot.
          if (step !== 'announced') expect(movedKeys).toBeGreaterThan(0)
          if (step === 'keys moved' && action) await action()
          // Every writer's session is read and written at every step, those that move among them.
          else await load.progress('writers')
        })
      }
      expect((await login)?.status).toBe(200)
      expect(await userOf(entering.client, there)).toBe('entered')
      for (const gone of [user.client, left, old]) expect(await userOf(gone, there)).toBeNull()
      await load.progress()
      const after = load.acknowledged()
      await load.stop()
      expect(await expectOutlived(site, load, { before, after })).toBe(0)
      expect(load.failures).toEqual([])
      expect(await refusedCommands(cluster.nodes)).toEqual([])
      await cluster.settled()
    })
  })
})

/** How often nodes of the cluster have said that a command has to wait until a slot has moved. */
async function refusals(): Promise<number> {
  const counts = cluster.nodes.map((node) =>
    ask(node, async (redis) => Number(/TRYAGAIN:count=(\d+)/.exec(await redis.info('errorstats'))?.[1] ?? 0)),
  )
  return (await Promise.all(counts)).reduce((sum, count) => sum + count)
}

function keyOf({ prefix }: Site, id: string): string {
  return `${prefix}{${id.slice(0, 4)}}${id.slice(4)}`
}

/** Browsers in both processes: so many writers, or as many as it takes until two are where they should be, two elsewhere. */
async function startLoad(
  { processes, loads }: Site,
  writers: number | ((id: string) => Promise<boolean>),
): Promise<Load> {
  let clients = 0
  const newClient = (): Client => (processes[clients++ % 2] as Process).client()
  const found = { there: 0, elsewhere: 0 }
  const load = await Load.start({
    newClient,
    visitors: 4,
    writers:
      typeof writers === 'number'
        ? writers
        : async (all) => {
            const last = all.at(-1)
            if (last !== undefined) found[(await writers(last.id)) ? 'there' : 'elsewhere']++
            return found.there >= 2 && found.elsewhere >= 2
          },
  })
  loads.push(load)
  return load
}

interface Story {
  /** What had been acknowledged, and was on the replica, before the fault. */
  readonly before: Acknowledged
  /** What had been acknowledged when the service was back. */
  readonly after: Acknowledged
}

/**
 * Kills a primary under load. Its replica is cut off a moment before, so that what is acknowledged in between is what
 * asynchronous replication loses, for certain. Resolves when the service is back.
 */
async function losePrimary(
  load: Load,
  { primary, replica, slotKey }: { primary: RedisServer; replica: RedisServer; slotKey: string },
): Promise<Story> {
  await load.progress()
  const before = load.acknowledged()
  await replicated(primary, slotKey)
  await detach(replica)
  const failures = load.failures.length
  await load.progress('writers')
  // Logouts and logins are not acknowledged that only the primary has.
  await until(() => load.failures.slice(failures).filter(({ path }) => /^.log(in|out)/.test(path)).length >= 12)
  await primary.kill()
  await load.progress('writers')
  const after = load.acknowledged()
  await attach(replica)
  return { before, after }
}

/** What a process that knows nothing finds of all that. Resolves to how many writes were lost in between. */
async function expectOutlived(site: Site, load: Load, { before, after }: Story): Promise<number> {
  const process = await site.start()
  const userOfVisit = ({ client }: Visit): Promise<string | null> => userOf(client, process)
  let lost = 0
  for (const [index, { client, written }] of load.writers.entries()) {
    const { fields } = (await process.client(client.cookies).get('/peek')).json<{ fields: object }>()
    const isThere = (name: string): boolean => name in fields
    const [first, second] = [before.written[index] as number, after.written[index] as number]
    expect(written.slice(0, first).filter((name) => !isThere(name))).toEqual([])
    expect(written.slice(second).filter((name) => !isThere(name))).toEqual([])
    lost += written.slice(first, second).filter((name) => !isThere(name)).length
  }
  const open = [...load.open.slice(0, before.open), ...load.open.slice(after.open)]
  for (const { user } of open) expect(await listed(process, user)).toEqual(expect.arrayContaining(idsOf(open, user)))
  expect(await Promise.all(open.map(userOfVisit))).toEqual(open.map(({ user }) => user))
  expect(await Promise.all(load.over.map(userOfVisit))).toEqual(load.over.map(() => null))
  expect(load.unclearFailures(DEADLINE_MS)).toEqual([])
  return lost
}

function idsOf(visits: readonly Visit[], user: string): string[] {
  return visits.filter((visit) => visit.user === user).map(({ id }) => id)
}
