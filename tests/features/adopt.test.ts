// Sessions of express-session, cookie-session and iron-session, made by those packages themselves, taken over by ours.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { sealData } from 'iron-session'
import { MemorySessionStore, type SessionMiddleware, type SessionOptions, session } from 'sojourn'
import { type AdoptOptions, adopt, dryRun, redisSessions } from 'sojourn/adopt'
import { FakeClock } from 'sojourn/testing'
import { cookieIn } from '../support/express-session.js'
import { type Answer, Client, listen, SECRET, type TestServer } from '../support/http.js'
import { sharedRedis } from '../support/redis.js'

const require = createRequire(import.meta.url)
const expressSession = require('express-session')
const cookieSession = require('cookie-session')

const OLD_SECRET = 'keyboard cat'
const servers: TestServer[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()))
  jest.restoreAllMocks()
})

async function serve(handler: Parameters<typeof listen>[0]): Promise<TestServer> {
  const server = await listen(handler)
  servers.push(server)
  return server
}

/** The deployment that is left: `GET /login` logs in, `GET /` says who is there. */
async function oldDeployment(store: object): Promise<TestServer> {
  const middleware = expressSession({
    secret: OLD_SECRET,
    resave: false,
    saveUninitialized: false,
    store,
    cookie: { maxAge: 60_000 },
  })
  return serve((req, res) =>
    middleware(req, res, () => {
      const current = req.session as unknown as Record<string, unknown>
      if (req.url === '/login') Object.assign(current, { passport: { user: 'ann' }, cart: [1, 2] })
      res.end(JSON.stringify((current['passport'] as { user: string } | undefined)?.user ?? null))
    }),
  )
}

interface New {
  readonly server: TestServer
  readonly sessions: SessionMiddleware
}

/** The deployment that takes over: `GET /` shows ID, user and fields, `/logout` and `/login` do what they say. */
async function newDeployment(options: AdoptOptions, of: Partial<SessionOptions> = {}): Promise<New> {
  const sessions = session({ secret: SECRET, storeTimeout: '10s', ...of })
  const middleware = adopt(sessions, { userId: (fields) => fields.passport?.user, ...options })
  const answer = async (req: IncomingMessage, res: ServerResponse, error: unknown): Promise<void> => {
    if (error) {
      res.statusCode = (error as { status: number }).status
      res.end((error as Error).message)
      return
    }
    if (req.url === '/logout') await req.session.logout()
    if (req.url === '/login') await req.session.login('bob')
    if (req.url === '/again') await req.session.login('ann')
    const { id, metadata } = req.session
    const { userId = null, authenticatedAt: proved = null } = metadata
    res.end(JSON.stringify({ id, userId, proved, fields: { ...req.session } }))
  }
  const server = await serve((req, res) => middleware(req, res, (error) => void answer(req, res, error)))
  return { server, sessions }
}

const store = (): { get: never; destroy: never; all: never; length: (done: (e: unknown, n: number) => void) => void } =>
  new expressSession.MemoryStore()
const countOf = (old: ReturnType<typeof store>): Promise<number> =>
  new Promise((resolve) => old.length((_e, n) => resolve(n)))

async function loggedIn(old: object): Promise<{ server: TestServer; client: Client }> {
  const server = await oldDeployment(old)
  const client = new Client(server)
  await client.get('/login')
  return { server, client }
}

describe('a session of express-session', () => {
  test('goes on: fields and user, under a cookie and an ID of ours, and the old one ends', async () => {
    const old = store()
    const { client, server } = await loggedIn(old)
    const next = await newDeployment({ secret: OLD_SECRET, store: old })
    const there = new Client(next.server, client.cookies)
    const first = await there.get('/')
    expect(first.json()).toMatchObject({
      userId: 'ann',
      proved: null,
      fields: { cart: [1, 2], passport: { user: 'ann' } },
    })
    expect(cookieIn(first, 'sid')).toBeDefined()
    expect(cookieIn(first)).toMatchObject({ value: '', expires: 'Thu, 01 Jan 1970 00:00:00 GMT' })
    expect(await countOf(old)).toBe(0)
    expect((await there.get('/')).json()).toMatchObject({ id: first.json()['id'], userId: 'ann' })
    expect(await next.sessions.manager.sessionsOf('ann')).toHaveLength(1)
    expect((await new Client(server, client.cookies).get('/')).body).toBe('null')
  })

  test('is one session for all parallel first requests, also to several processes', async () => {
    const old = store()
    const { client } = await loggedIn(old)
    const shared = new MemorySessionStore()
    const processes = await Promise.all(
      [1, 2, 3].map(() => newDeployment({ secret: OLD_SECRET, store: old }, { store: shared })),
    )
    const answers: Answer[] = await Promise.all(
      Array.from({ length: 30 }, (_, index) =>
        new Client(processes[index % 3]?.server as TestServer, client.cookies).get('/'),
      ),
    )
    const ids = new Set(answers.map((answer) => answer.json()['id']))
    expect(ids.size).toBe(1)
    expect(new Set(answers.map((answer) => cookieIn(answer, 'sid')?.['value'])).size).toBe(1)
    expect(await processes[0]?.sessions.manager.count()).toBe(1)
  })

  test('is not opened again by its old cookie after a logout, now or when all is forgotten', async () => {
    const old = store()
    const clock = new FakeClock(Date.now())
    const { client } = await loggedIn(old)
    const next = await newDeployment(
      { secret: OLD_SECRET, store: old, sideBySideUntil: new Date(clock.now() + 30 * 86_400_000) },
      { clock: clock.now },
    )
    const there = new Client(next.server, client.cookies)
    await there.get('/')
    await there.get('/logout')
    expect((await new Client(next.server, client.cookies).get('/')).json()).toMatchObject({ userId: null })
    clock.advance(2 * 86_400_000)
    await next.sessions.manager.cleanUp()
    expect((await new Client(next.server, client.cookies).get('/')).json()).toMatchObject({ userId: null })
  })

  test.each([
    ['signed with another secret', { secret: 'nyan cat' }],
    ['of another name', { secret: OLD_SECRET, name: 'other' }],
  ])('%s is passed over', async (_name, options) => {
    const old = store()
    const { client } = await loggedIn(old)
    const next = await newDeployment({ store: old, ...options })
    expect((await new Client(next.server, client.cookies).get('/')).json()).toMatchObject({ userId: null })
    expect(await countOf(old)).toBe(1)
  })

  test('a store that fails: 503, and the cookie stays', async () => {
    const old = store()
    const { client } = await loggedIn(old)
    const broken = { get: (_sid: string, done: (e: Error) => void) => done(new Error('down')), destroy() {} }
    const next = await newDeployment({ secret: OLD_SECRET, store: broken })
    const answer = await new Client(next.server, client.cookies).get('/')
    expect([answer.status, answer.setCookies]).toEqual([503, []])
  })

  test('what is too large is not taken over, with a warning', async () => {
    const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const old = store()
    const { client } = await loggedIn(old)
    const next = await newDeployment({ secret: OLD_SECRET, store: old }, { limits: { maxBytes: 10 } })
    expect((await new Client(next.server, client.cookies).get('/')).json()).toMatchObject({ userId: null })
    expect(String(warning.mock.calls[0]?.[0])).toContain('could not be taken over')
    expect(await countOf(old)).toBe(1)
  })

  test('fields may be chosen, and a client with a cookie of ours keeps that', async () => {
    const old = store()
    const { client } = await loggedIn(old)
    const next = await newDeployment({ secret: OLD_SECRET, store: old, fields: ({ cart }) => ({ cart }) })
    const there = new Client(next.server)
    await there.get('/login')
    const { id } = (await there.get('/')).json()
    for (const [name, value] of client.cookies) there.cookies.set(name, value)
    expect((await there.get('/')).json()).toMatchObject({ id, userId: 'bob' })
    expect((await new Client(next.server, client.cookies).get('/')).json()['fields']).toEqual({ cart: [1, 2] })
  })
})

describe('side by side', () => {
  test('both deployments have the user, writes go to the new one, and the way back is open', async () => {
    const old = store()
    const { client, server } = await loggedIn(old)
    const next = await newDeployment({
      secret: OLD_SECRET,
      store: old,
      sideBySideUntil: new Date(Date.now() + 86_400_000),
    })
    const both = new Client(next.server, client.cookies)
    const first = await both.get('/')
    expect(first.json()).toMatchObject({ userId: 'ann' })
    expect(cookieIn(first)).toBeUndefined()
    expect((await new Client(server, both.cookies).get('/')).body).toBe('"ann"')
    expect((await both.get('/')).json()).toMatchObject({ id: first.json()['id'] })
  })

  test('a logout here ends the old session, also one after a login', async () => {
    const old = store()
    const { client } = await loggedIn(old)
    const next = await newDeployment({
      secret: OLD_SECRET,
      store: old,
      sideBySideUntil: new Date(Date.now() + 86_400_000),
    })
    const both = new Client(next.server, client.cookies)
    await both.get('/')
    await both.get('/again')
    expect(await countOf(old)).toBe(1)
    await both.get('/logout')
    expect(await countOf(old)).toBe(0)
  })

  test('a logout with the very first request ends the old session, too', async () => {
    const old = store()
    const { client } = await loggedIn(old)
    const next = await newDeployment({
      secret: OLD_SECRET,
      store: old,
      sideBySideUntil: new Date(Date.now() + 86_400_000),
    })
    await new Client(next.server, client.cookies).get('/logout')
    expect(await countOf(old)).toBe(0)
  })
})

describe('the cookie itself', () => {
  test('of cookie-session is moved into the store, and cleared', async () => {
    const middleware = cookieSession({ name: 'session', keys: ['newest', 'older'] })
    const server = await serve((req, res) =>
      middleware(req, res, () => {
        Object.assign(req.session as object, { passport: { user: 'ann' }, n: 'ü' })
        res.end()
      }),
    )
    const client = new Client(server)
    await client.get('/')
    const next = await newDeployment({ from: 'cookie-session', secret: ['newest', 'older'] })
    const answer = await new Client(next.server, client.cookies).get('/')
    expect(answer.json()).toMatchObject({ userId: 'ann', fields: { n: 'ü' } })
    expect(cookieIn(answer, 'session')).toMatchObject({ value: '' })
    expect(cookieIn(answer, 'session.sig')).toMatchObject({ value: '' })
    const forged = new Client(next.server, client.cookies)
    forged.cookies.set('session', Buffer.from('{"passport":{"user":"eve"}}').toString('base64'))
    expect((await forged.get('/')).json()).toMatchObject({ userId: null })
  })

  test('of iron-session is moved into the store', async () => {
    const password = 'p'.repeat(32)
    const sealed = await sealData({ passport: { user: 'ann' } }, { password })
    const next = await newDeployment({ from: 'iron-session', secret: ['x'.repeat(32), password], name: 'iron' })
    const client = new Client(next.server, [['iron', encodeURIComponent(sealed)]])
    expect((await client.get('/')).json()).toMatchObject({ userId: 'ann' })
    const other = await newDeployment({ from: 'iron-session', secret: 'y'.repeat(32), name: 'iron' })
    expect((await new Client(other.server, [['iron', sealed]]).get('/')).json()).toMatchObject({ userId: null })
  })
})

describe('the keys of connect-redis', () => {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let client: Redis
  beforeAll(async () => {
    redis = await sharedRedis()
    client = new Redis(redis.url)
  })
  afterAll(async () => {
    client.disconnect()
    await redis.stop()
  })

  test('are read and removed by an ioredis client, and counted', async () => {
    const { RedisStore } = require('connect-redis')
    const { createClient } = require('redis')
    const theirs = await createClient({ url: redis.url }).connect()
    const prefix = `old-${process.pid}:`
    const { client: browser } = await loggedIn(new RedisStore({ client: theirs, prefix }))
    const old = redisSessions(client, { prefix })
    const next = await newDeployment({ secret: OLD_SECRET, store: old })
    expect(await dryRun(next.sessions, { store: old })).toMatchObject({ total: 1, adoptable: 1 })
    expect((await new Client(next.server, browser.cookies).get('/')).json()).toMatchObject({ userId: 'ann' })
    expect(await client.keys(`${prefix}*`)).toEqual([])
    theirs.destroy()
  })

  test('are passed over and counted where a text is no JSON', async () => {
    const { RedisStore } = require('connect-redis')
    const { createClient } = require('redis')
    const theirs = await createClient({ url: redis.url }).connect()
    const prefix = `torn-${process.pid}:`
    const { client: browser } = await loggedIn(new RedisStore({ client: theirs, prefix }))
    theirs.destroy()
    const [key] = await client.keys(`${prefix}*`)
    await client.set(key as string, '{"cookie":{},"passport":{"user":"ann')
    const old = redisSessions(client, { prefix })
    const next = await newDeployment({ secret: OLD_SECRET, store: old })
    expect(await dryRun(next.sessions, { store: old })).toMatchObject({ total: 1, refused: { unreadable: 1 } })
    const answer = await new Client(next.server, browser.cookies).get('/')
    expect(answer.status).toBe(200)
    expect(answer.json()['userId']).not.toBe('ann')
    expect(await client.exists(key as string)).toBe(1)
  })
})

test('dryRun() counts what could be taken over and why not the rest, and changes nothing', async () => {
  const old = store()
  const put = (sid: string, fields: object): void =>
    (old as unknown as { set(sid: string, s: object): void }).set(sid, fields)
  put('a', { cookie: { expires: new Date(Date.now() + 60_000) }, passport: { user: 1 } })
  put('b', { cookie: {}, passport: { user: 1 } })
  put('c', { cookie: {}, passport: { user: 2 } })
  put('d', { cookie: {}, text: 'x'.repeat(2000) })
  const all = {
    get() {},
    destroy() {},
    all: (done: (e: null, all: unknown[]) => void) =>
      (old as unknown as { all(done: (e: null, all: object) => void): void }).all((_e, found) =>
        done(null, [...Object.values(found), 'junk', { cookie: { expires: new Date(0) } }]),
      ),
  }
  const sessions = session({ secret: SECRET, limits: { maxBytes: 1000 } })
  expect(await dryRun(sessions, { store: all, userId: ({ passport }) => passport?.user })).toEqual({
    total: 6,
    adoptable: 3,
    users: 2,
    refused: { expired: 1, unreadable: 1, 'too-large': 1 },
  })
  expect(await countOf(old)).toBe(4)
  expect(await sessions.manager.count()).toBe(0)
})

test.each([
  ['no secret', { secret: '' }, /needs the secret/],
  ['no store', { secret: 'x' }, /needs the store/],
  ['another library', { secret: 'x', from: 'x' as never }, /knows no cookies of "x"/],
  ['iron-session without a name', { secret: 'x', from: 'iron-session' as const }, /cookieName/],
  ['a name that is ours', { secret: 'x', store: store(), name: 'sid' }, /both named sid/],
  ['a day that is no Date', { secret: 'x', store: store(), sideBySideUntil: 1 as never }, /not a Date/],
])('refuses %s', (_name, options, message) => {
  expect(() => adopt(session({ secret: SECRET }), options)).toThrow(message)
})
