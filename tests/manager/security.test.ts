// Requirements of security on users, endings and clients, each a test of its own name. Those that are also a promise of
// the manager have their tests there: revocation and limits in manager-users and manager-processes, endings and clean-up
// in manager-endings, timeouts and guards in timeouts, one event for each cause in events.
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express, { type Express } from 'express'
import { requireRecentAuth, type SessionData, SessionManager, type SessionStore, session } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { hashToken, userKey } from '../../src/ids.js'
import { cookieOf } from '../support/cookies.js'
import { Client, listen, OTHER_SECRET, SECRET, type TestServer, until } from '../support/http.js'
import { closeRigs, collect, GROUNDS, idOf, partsOf, RedisGround, Rig, refusal } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
const CHROME = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36'

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  const servers: TestServer[] = []
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await Promise.all(servers.splice(0).map((server) => server.close()))
    await closeRigs()
    await ground.reset()
  })

  test('unknown and forged cookies are events that can be counted per address, without the cookie (OWASP SM)', async () => {
    const rig = await Rig.start(ground, { prepare: (app) => app.set('trust proxy', 1) })
    const perAddress = new Map<string, number>()
    const blocked: string[] = []
    const count = ({ ip = 'unknown' }: { ip: string | undefined }): void => {
      const sum = (perAddress.get(ip) ?? 0) + 1
      perAddress.set(ip, sum)
      if (sum === 40) blocked.push(ip)
    }
    for (const name of ['badCookie', 'unknownSession', 'tokenMismatch'] as const) rig.manager.events.on(name, count)
    const { id } = await rig.manager.create()
    const secrets: string[] = []
    const forge = async (n: number): Promise<void> => {
      const token = hashToken(`guess ${n}`)
      secrets.push(token)
      const cookies = [
        cookieOf(randomUUID(), token),
        cookieOf(id, token),
        cookieOf(id, token, OTHER_SECRET),
        `sid=${token}`,
        `sid=${encodeURIComponent(`${id}.${token}`)}`,
      ]
      const ip = n < 45 ? '203.0.113.5' : '203.0.113.6'
      const answer = await rig.client.get('/plain', {
        cookie: cookies[n % cookies.length] as string,
        'x-forwarded-for': ip,
      })
      expect(answer.status).toBe(200)
    }
    for (let n = 0; n < 50; n++) await forge(n)
    expect([...perAddress]).toEqual([
      ['203.0.113.5', 45],
      ['203.0.113.6', 5],
    ])
    expect(blocked).toEqual(['203.0.113.5'])
    const told = rig.heard('badCookie', 'unknownSession', 'tokenMismatch')
    expect(told).toHaveLength(50)
    for (const secret of secrets) expect(JSON.stringify(told)).not.toContain(secret)
  })

  describe('the address of a client comes from trusted hops only (ASVS 15.3.4, 4.1.3)', () => {
    const forwarded = { 'x-forwarded-for': '1.1.1.1', forwarded: 'for=1.1.1.1', 'x-real-ip': '1.1.1.1' }
    const addressWith = async (trust: unknown, headers: Record<string, string>): Promise<unknown[]> => {
      const rig = await Rig.start(ground, { prepare: (app: Express) => app.set('trust proxy', trust) })
      rig.client = await rig.login('ann', headers)
      await rig.client.get('/plain', { ...headers, cookie: 'sid=junk' })
      await rig.client.get('/plain', { ...headers, cookie: cookieOf(randomUUID(), hashToken('x')) })
      const [info] = await rig.manager.sessionsOf('ann')
      return [info?.context.ip, ...rig.heard('badCookie', 'unknownSession').map(({ ip }) => ip)]
    }

    test.each([
      ['without trust proxy what clients claim has no effect', false, forwarded, '127.0.0.1'],
      ['with one trusted hop it is what that one saw', 1, { 'x-forwarded-for': '1.1.1.1, 203.0.113.9' }, '203.0.113.9'],
      ['with trusted networks it is the first that is not one', 'loopback', forwarded, '1.1.1.1'],
      ['IPv4 in IPv6 is the same address', 1, { 'x-forwarded-for': '::ffff:203.0.113.9' }, '203.0.113.9'],
      ['a proxy that says nothing is the client', 1, {}, '127.0.0.1'],
    ])('%s', async (_what, trust, headers, ip) => {
      expect(await addressWith(trust, headers)).toEqual([ip, ip, ip])
    })

    test('a plain server never believes X-Forwarded-For, even with trustProxy', async () => {
      const store = ground.store()
      const attach = session({ secret: SECRET, store, trustProxy: true, cookie: { secure: false } })
      const server = createServer((req, res) => {
        attach(req, res, () => {
          ;(req as typeof req & { session: { n: number } }).session.n = 1
          res.end()
        })
      }).listen(0, '127.0.0.1')
      await new Promise((resolve) => server.once('listening', resolve))
      const client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
      await client.get('/', forwarded)
      expect((await store.get(idOf(client)))?.context?.ip).toBe('127.0.0.1')
      server.closeAllConnections()
      server.close()
    })

    test('what a trusted hop passes on is cut, and breaks no line', async () => {
      const rig = await Rig.start(ground, { prepare: (app) => app.set('trust proxy', true) })
      rig.client = await rig.login('ann', { 'x-forwarded-for': `a\tb\u0085c${'x'.repeat(500)}` })
      const { ip = '' } = (await rig.manager.sessionsOf('ann'))[0]?.context ?? {}
      expect(ip).toMatch(/^a b cx+$/)
      expect(ip).toHaveLength(64)
    })
  })

  describe('a change of the client is found, and what to do is policy (ASVS 8.2.4, NIST 5.3)', () => {
    const serve = async (policy: 'none' | 'log' | 'end') => {
      const found: string[] = []
      const manager = new SessionManager({ secret: SECRET, store: ground.store() })
      const app = express().set('env', 'test').set('trust proxy', 1)
      app.use(manager.middleware())
      app.use(async (req, _res, next) => {
        if (policy === 'none' || req.session.isNew) return next()
        const client = { ip: req.ip, userAgent: req.get('user-agent') }
        const validation = await manager.validate(req.session.id, client)
        if (!validation.isValid && validation.reason === 'security-violation') {
          found.push(validation.violation)
          if (policy === 'end') await req.session.logout()
        }
        return next()
      })
      app.post('/login', async (req, res) => {
        await req.session.login('ann')
        res.end()
      })
      app.get('/', (req, res) => {
        res.send(String(req.session.metadata.userId))
      })
      const server = await listen(app)
      servers.push(server)
      const client = new Client(server)
      const from = (ip: string, userAgent = FIREFOX) => ({ 'x-forwarded-for': ip, 'user-agent': userAgent })
      await client.post('/login', undefined, from('203.0.113.5'))
      const ask = async (ip: string, userAgent?: string): Promise<string> =>
        (await client.clone().get('/', from(ip, userAgent))).body
      return { ask, found }
    }

    test('by default nobody is logged out for another address or browser', async () => {
      const { ask } = await serve('none')
      expect(await ask('198.51.100.7', CHROME)).toBe('ann')
      expect(await ask('2001:db8::1')).toBe('ann')
    })

    test('small changes are none: the same network, a newer browser', async () => {
      const { ask, found } = await serve('log')
      for (const ip of ['203.0.113.5', '203.0.113.200', '::ffff:203.0.113.7']) expect(await ask(ip)).toBe('ann')
      expect(await ask('203.0.113.5', FIREFOX.replaceAll('140.0', '140.1.2'))).toBe('ann')
      expect(found).toEqual([])
    })

    test('another network or browser can be logged, or end the session', async () => {
      const logs = await serve('log')
      expect(await logs.ask('198.51.100.7')).toBe('ann')
      expect(await logs.ask('203.0.113.5', CHROME)).toBe('ann')
      expect(logs.found).toEqual(['ip', 'user-agent'])
      const ends = await serve('end')
      expect(await ends.ask('198.51.100.7')).toBe('undefined')
      expect(await ends.ask('203.0.113.5')).toBe('undefined')
    })
  })

  test('a user sees and ends own sessions, those of others are not found, and only after recent authentication (ASVS 7.5.2)', async () => {
    const clock = new FakeClock()
    const manager = new SessionManager({ secret: SECRET, store: ground.store(), clock: clock.now, idleTimeout: '2h' })
    const app = express().set('env', 'test').use(manager.middleware())
    app.post('/login/:user', async (req, res) => {
      await req.session.login(req.params.user)
      res.end()
    })
    app.post('/reauthenticate', async (req, res) => {
      await req.session.reauthenticate()
      res.end()
    })
    const ownSessions = async (req: express.Request) =>
      manager.sessionsOf(req.session.metadata.userId as string, { current: req.session })
    app.get('/sessions', async (req, res) => {
      res.json(await ownSessions(req))
    })
    app.delete('/sessions/:id', requireRecentAuth('10m'), async (req, res) => {
      const isOwn = (await ownSessions(req)).some(({ id }) => id === req.params['id'])
      const isEnded = isOwn && (await manager.revoke(String(req.params['id']), { by: 'user' }))
      res.status(isEnded ? 204 : 404).end()
    })
    const server = await listen(app)
    servers.push(server)

    const [phone, laptop, bob] = [new Client(server), new Client(server), new Client(server)]
    await phone.post('/login/ann', undefined, { 'user-agent': 'Phone' })
    await bob.post('/login/bob')
    clock.advance(HOUR)
    await laptop.post('/login/ann', undefined, { 'user-agent': 'Laptop' })
    const list = (await laptop.get('/sessions')).json<Record<string, unknown>[]>()
    expect(list).toEqual([
      expect.objectContaining({ id: idOf(laptop), isCurrent: true, createdAt: new Date(clock.now()).toISOString() }),
      expect.objectContaining({
        id: idOf(phone),
        isCurrent: false,
        context: { ip: '127.0.0.1', userAgent: 'Phone' },
        lastAccessedAt: new Date(clock.now() - HOUR).toISOString(),
      }),
    ])
    const text = JSON.stringify(list)
    for (const client of [phone, laptop, bob]) {
      const [, token, signature] = partsOf(client)
      for (const secret of [token, signature, hashToken(token)]) expect(text).not.toContain(secret)
    }

    const end = (client: Client, of: Client): Promise<number> =>
      client.request('DELETE', `/sessions/${idOf(of)}`).then(({ status }) => status)
    expect(await end(laptop, bob)).toBe(404)
    expect(await end(phone, laptop)).toBe(401)
    await phone.post('/reauthenticate')
    const survivor = phone.clone()
    expect(await end(phone, laptop)).toBe(204)
    expect(await end(phone, laptop)).toBe(404)
    expect((await survivor.get('/sessions')).json()).toHaveLength(1)
    expect(await manager.validate(idOf(laptop))).toMatchObject({ reason: 'ended', end: { by: 'user' } })
    expect((await bob.get('/sessions')).json()).toHaveLength(1)
    await manager.close()
  })

  test('a revocation that failed is an error, never an answer (ASVS 16.5.2)', async () => {
    const rig = await Rig.start(ground)
    const hasty = await Rig.start(ground, { storeTimeout: '50ms' }, rig.clock)
    const client = await rig.login('ann')
    const calls = {
      get: ({ manager }: Rig) => manager.validate(idOf(client)),
      end: ({ manager }: Rig) => manager.revoke(idOf(client)),
      'users.evict': ({ manager }: Rig) => manager.revokeUser('ann'),
      'users.list': ({ manager }: Rig) => manager.sessionsOf('ann'),
      epoch: ({ manager }: Rig) => manager.revokeAll(),
      scan: ({ manager }: Rig) => manager.count(),
    } as const
    for (const operation of Object.keys(calls) as (keyof typeof calls)[]) {
      rig.store.fail({ kind: 'error', operations: [operation], times: 1 })
      const failed = await refusal(calls[operation](rig))
      expect([operation, failed.code, failed.status]).toEqual([operation, 'STORE_UNAVAILABLE', 503])
      hasty.store.fail({ kind: 'hang', operations: [operation] })
      const late = await refusal(calls[operation](hasty))
      expect([operation, late.code, late.status]).toEqual([operation, 'STORE_TIMEOUT', 503])
      hasty.store.repair()
    }
    expect(await rig.whoIs(client)).toBe('ann')
  })

  test('every event is one line of JSON with its time, and nothing in it can break the line (ASVS 16.2, 16.4.1)', async () => {
    const rig = await Rig.start(ground, {
      maxSessionsPerUser: 1,
      archive: () => Promise.reject(new Error('line\nbreak')),
      prepare: (app) => app.set('trust proxy', true),
    })
    const nasty = 'a\r\n\u001b[31m\u2028\u0000\ud800'
    const headers = { 'x-forwarded-for': 'x\ty\u0085z', 'user-agent': 'A\u0085B' }
    rig.client = await rig.login(nasty, headers)
    await rig.login(nasty, headers)
    await rig.ask((session) => session.metadata.previousEnd, rig.client, { headers })
    await rig.manager.revokeUser(nasty, { by: nasty, detail: nasty })
    await rig.client.get('/plain', { ...headers, cookie: 'sid=junk' })
    await rig.login(nasty, headers)
    rig.clock.advance(HOUR)
    await rig.manager.cleanUp()
    const names = new Set(rig.told.map(({ name }) => name))
    for (const name of ['limit', 'usedAfterEnd', 'revoked', 'badCookie', 'archiveFailed'] as const) {
      expect(names).toContain(name)
    }
    for (const event of rig.told) {
      const line = JSON.stringify({ ...event, at: new Date(event.at).toISOString() })
      expect(line).not.toMatch(/[\p{Cc}\p{Cs}]/u)
      expect(JSON.parse(line)).toMatchObject({ at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) })
    }
    for (const { ip } of rig.heard('usedAfterEnd', 'badCookie')) expect(ip).toBe('x y z')
  })

  test('both timeouts and every other rule in force can be printed, without a secret (ASVS 7.1.1)', () => {
    const manager = new SessionManager({
      secret: [SECRET, OTHER_SECRET],
      store: ground.store(),
      preset: 'aal2',
      maxSessionsPerUser: 3,
      renewAfter: '15m',
      passivePaths: ['/poll'],
      archive: () => {},
      cleanupInterval: 0,
    })
    const described = manager.describe()
    expect(described).toMatchObject({
      idleTimeoutMs: HOUR,
      absoluteTimeoutMs: 24 * HOUR,
      renewAfterMs: 15 * MINUTE,
      renewGraceMs: 10 * SECOND,
      maxSessionsPerUser: 3,
      onSessionLimit: 'end-oldest',
      hasPassivePaths: true,
      archives: true,
      abilities: ['scan', 'users', 'epoch', 'lease', 'notes', 'signals'],
      cookie: expect.objectContaining({ httpOnly: true, sameSite: 'lax', secrets: 2 }),
    })
    const text = JSON.stringify(described)
    for (const secret of [SECRET, OTHER_SECRET, 'redis://']) expect(text).not.toContain(secret)
    expect(Object.isFrozen(described)).toBe(true)
  })

  test('what a session leaves dies with it, however it ended (ASVS 14.2.7)', async () => {
    type Act = (rig: Rig, client: Client, user: string) => Promise<unknown>
    const acts: Record<string, Act> = {
      logout: (rig, client) => rig.ask((session) => session.logout(), client),
      destroy: (rig, client) => rig.ask((session) => session.destroy(), client),
      revoke: (rig, client) => rig.manager.revoke(idOf(client)),
      'revoke the user': (rig, _client, user) => rig.manager.revokeUser(user),
      limit: async (rig, _client, user) => {
        const last = await rig.login(user)
        await rig.ask((session) => session.logout(), last)
      },
      'crash in the middle of a logout': async (rig, client, user) => {
        await rig.store.end(idOf(client), { reason: 'logout', at: rig.clock.now() }, 1)
        await rig.manager.sessionsOf(user)
      },
      'crash in the middle of a login': async (rig, client, user) => {
        await rig.manager.revoke(idOf(client))
        rig.store.fail({ kind: 'error', operations: ['create'], times: 1 })
        await refusal(rig.login(user))
        rig.clock.advance(MINUTE)
        await rig.manager.sessionsOf(user)
      },
      'time out': async (rig) => {
        rig.clock.advance(HOUR)
        await rig.manager.cleanUp()
      },
    }
    const rig = await Rig.start(ground, { endedRetention: '1s', maxSessionsPerUser: 1 })
    const ids: string[] = []
    for (const [user, act] of Object.entries(acts)) {
      const client = await rig.login(user)
      ids.push(idOf(client))
      await act(rig, client, user)
      expect([user, await rig.store.users?.list(userKey(user), 0)]).toEqual([user, []])
    }
    // Then comes the end of the retention.
    await until(async () => (await Promise.all(ids.map((id) => rig.store.get(id)))).every((record) => record === null))
    if (ground instanceof RedisGround) {
      await until(async () => (await ground.dump()).every(([key]) => /^rig:(epoch|lease:.*)$/.test(key)))
    }
  })

  test('the cost of list, revoke and limit is by user: the same calls with 100 and with 20,000 sessions', async () => {
    const costs: Record<string, unknown>[] = []
    for (const others of [100, 20_000]) {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 3 })
      const sample = await rig.login('somebody')
      await fill(rig.store, (await rig.store.get(idOf(sample))) as SessionData, others)
      const clients = await rig.logins('ann', 3)
      const cost: Record<string, unknown> = {}
      const count = async (name: string, act: () => Promise<unknown>): Promise<void> => {
        const before = { ...rig.store.calls }
        if (ground instanceof RedisGround) await ground.raw.config('RESETSTAT')
        await act()
        const calls = Object.entries(rig.store.calls).map(([call, n]) => [
          call,
          n - before[call as keyof typeof before],
        ])
        // The epoch is asked for once a second, whatever is done.
        cost[name] = Object.fromEntries(calls.filter(([call, n]) => n !== 0 && call !== 'epoch'))
        if (ground instanceof RedisGround) {
          cost[`${name} in Redis`] = await commandsOf(ground, rig.store.calls.epoch - before.epoch)
        }
      }
      // Otherwise the first one is counted here or there.
      await rig.manager.validate(idOf(sample))
      await count('sessionsOf', () => rig.manager.sessionsOf('ann'))
      await count('list', () => collect(rig.manager.list({ userId: 'ann' })))
      await count('count', () => rig.manager.count({ userId: 'ann' }))
      await count('a login over the limit', () => rig.login('ann'))
      await count('validate', () => rig.manager.validate(idOf(sample)))
      await count('revoke', () => rig.manager.revoke(idOf(clients[2] as Client)))
      await count('revokeUser', () => rig.manager.revokeUser('ann'))
      await count('revokeUser of nobody', () => rig.manager.revokeUser('nobody'))
      costs.push(cost)
      await rig.close()
      await ground.reset()
    }
    expect(costs[1]).toEqual(costs[0])
    expect(costs[0]).toMatchObject({
      sessionsOf: { 'users.list': 1, get: 3 },
      list: { 'users.list': 1, get: 3 },
      count: { 'users.list': 1, get: 3 },
      'a login over the limit': { 'users.add': 2, get: 3, create: 1, 'users.settle': 1, end: 1, 'users.remove': 1 },
      validate: { get: 1 },
      revoke: { get: 1, end: 1, 'users.remove': 1 },
      revokeUser: { 'users.evict': 1, end: 2, 'users.remove': 1 },
      'revokeUser of nobody': { 'users.evict': 1 },
    })
  })
})

describe('on Redis', () => {
  const ground = new RedisGround()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  test('revokeAll() sends two commands, whatever the number of sessions, and none that goes through keys (ASVS 7.4.5)', async () => {
    const rig = await Rig.start(ground)
    const client = await rig.login('ann')
    await fill(rig.store, (await rig.store.get(idOf(client))) as SessionData, 2_000)
    await ground.raw.config('RESETSTAT')
    await rig.manager.revokeAll()
    const commands = await commandsOf(ground)
    expect(commands['evalsha']).toBe(2)
    expect(Object.keys(commands).sort()).toEqual(['del', 'evalsha', 'get', 'set'])
  })

  test('an account with few rights is enough for all of it (ASVS 13.2.2)', async () => {
    const allowed =
      'info hgetall del evalsha eval hget hset hdel exists expire get getrange strlen set setrange hlen pttl pexpire scan time'.split(
        ' ',
      )
    await ground.raw.call(
      'ACL',
      'SETUSER',
      'sojourn',
      'on',
      '>password',
      '~rig:*',
      'nocommands',
      ...allowed.map((name) => `+${name}`),
    )
    const store = new RedisSessionStore({
      url: ground.server.url.replace('redis://', 'redis://sojourn:password@'),
      prefix: ground.prefix,
    })
    const clock = new FakeClock()
    const failures: unknown[] = []
    const manager = new SessionManager({
      secret: SECRET,
      store,
      clock: clock.now,
      maxSessionsPerUser: 2,
      archive: () => {},
      cleanupInterval: 0,
    })
    manager.events.on('storeError', ({ error }) => failures.push(error.cause ?? error))
    const first = await manager.create({ userId: 'ann', fields: { n: 1 } })
    clock.advance(SECOND)
    const second = await manager.create({ userId: 'ann' })
    clock.advance(SECOND)
    const third = await manager.create({ userId: 'ann' })
    expect(await manager.get(first.id)).toBeNull()
    expect(await manager.update(second.id, { n: 2, m: undefined })).toBe(true)
    expect(await manager.refresh(second.id)).toBe(true)
    expect(await manager.sessionsOf('ann')).toHaveLength(2)
    expect(await manager.count({ status: 'all' })).toBe(3)
    expect(await manager.revoke(third.id)).toBe(true)

    const app = express().set('env', 'test').use(manager.middleware())
    app.get('/', async (req, res) => {
      await req.session.login('bob')
      await req.session.renew()
      await req.session.update('n', (n) => Number(n ?? 0) + 1)
      await req.session.regenerate({ keep: ['n'] })
      await req.session.setExpiry('1h')
      await req.session.login('bob')
      await req.session.reauthenticate()
      await manager.revokeUser('bob', { except: req.session })
      await req.session.logout()
      res.end('all of it')
    })
    const server = await listen(app)
    expect((await new Client(server).get('/')).body).toBe('all of it')
    clock.advance(HOUR)
    expect(await manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
    await manager.revokeAll()
    expect(await manager.count()).toBe(0)
    expect(failures).toEqual([])
    await server.close()
    await manager.close()
    await ground.raw.call('ACL', 'DELUSER', 'sojourn')
  })

  test('two applications with prefixes of their own have users, lists and revocations of their own (ASVS 8.4.1)', async () => {
    const make = (prefix: string) => {
      const store = new FaultyStore(new RedisSessionStore({ url: ground.server.url, prefix }))
      return new SessionManager({ secret: SECRET, store, maxSessionsPerUser: 1 })
    }
    const [one, two] = [make('one:'), make('two:')]
    const [a, b] = [await one.create({ userId: 'ann' }), await two.create({ userId: 'ann' })]
    expect(await one.validate(b.id)).toMatchObject({ reason: 'not-found' })
    expect(await one.revoke(b.id)).toBe(false)
    expect((await one.sessionsOf('ann')).map(({ id }) => id)).toEqual([a.id])
    await one.revokeAll()
    expect(await one.revokeUser('ann')).toBe(1)
    expect(await two.get(b.id)).toMatchObject({ userId: 'ann' })
    expect([await one.count(), await two.count()]).toEqual([0, 1])
    await Promise.all([one.close(), two.close()])
  })
})

/** So many copies of a record under other IDs. */
async function fill(store: SessionStore, record: SessionData, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 1_000) {
    const ids = Array.from({ length: Math.min(left, 1_000) }, () => randomUUID())
    await Promise.all(ids.map((id) => store.create(id, record.with({ id, userId: `user ${id}` }), 3_600)))
  }
}

/**
 * How often Redis ran each command since the last reset of its statistics. Leaves out those of this test, and of so many
 * questions for the epoch.
 */
async function commandsOf(ground: RedisGround, epochs = 0): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const [, name = '', calls] of (await ground.raw.info('commandstats')).matchAll(/cmdstat_(\S+?):calls=(\d+)/g)) {
    if (!/^(config|info|ping|client|hello|auth|select|eval$)/.test(name)) counts[name] = Number(calls)
  }
  for (const name of ['evalsha', 'get']) counts[name] = (counts[name] ?? 0) - epochs
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count !== 0))
}
