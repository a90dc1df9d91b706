// The request path of session(): what each request costs the store, where it works, and what happens when it cannot.
import { EventEmitter, once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import { type AddressInfo, connect as connectSocket } from 'node:net'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import connect from 'connect'
import express from 'express'
import {
  getSession,
  isSessionError,
  MemorySessionStore,
  requireSession,
  type Session,
  type SessionEnd,
  type SessionMiddleware,
  type SessionOptions,
  session,
} from 'sojourn'
import { FakeClock, FaultyStore, type StoreOperation } from 'sojourn/testing'
import { Client, listen, OTHER_SECRET, SECRET, send, type TestServer, until } from '../support/http.js'
import { callsOf, endOf, fieldsOf } from '../support/records.js'
import { RawClient } from '../support/wires.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express
const MINUTE = 60_000

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

interface Rig {
  readonly server: TestServer
  readonly client: Client
  readonly middleware: SessionMiddleware
  readonly memory: MemorySessionStore
  readonly store: FaultyStore
  readonly clock: FakeClock
  /** Store calls since the last look, by operation, without the zeros and without those for the epoch. */
  newCalls(): Partial<Record<StoreOperation, number>>
  /** The fields of a session; `null` when there is none. */
  stored(id: string | undefined): Promise<Record<string, unknown> | null>
  /** How a session has ended. */
  ended(id: string | undefined): Promise<SessionEnd | null>
}

type Handler = (req: express.Request, res: express.Response, next: express.NextFunction) => unknown

/** An Express app with session() in front of `handler`, and errors answered by Express. */
async function serve(handler: Handler, options: Partial<SessionOptions> = {}): Promise<Rig> {
  return rig(options, (middleware) => {
    const app = express()
    app.set('env', 'test')
    app.use(middleware)
    app.use((req, res, next) => handler(req, res, next))
    return app
  })
}

async function rig(
  options: Partial<SessionOptions>,
  build: (middleware: SessionMiddleware) => RequestListener,
): Promise<Rig> {
  const clock = new FakeClock()
  const memory = new MemorySessionStore({ cleanupInterval: 0, clock: clock.now })
  const store = new FaultyStore(memory)
  const middleware = session({ secret: SECRET, store, clock: clock.now, ...options })
  middleware.events.on('storeError', () => {})
  const server = await listen(build(middleware))
  closers.push(server.close)
  let seen = callsOf(store)
  return {
    server,
    client: new Client(server),
    middleware,
    memory,
    store,
    clock,
    newCalls() {
      const before = seen
      seen = callsOf(store)
      const names = Object.keys(seen) as (keyof typeof seen)[]
      return Object.fromEntries(
        names.map((name) => [name, seen[name] - before[name]]).filter(([, count]) => count !== 0),
      )
    },
    stored: (id) => fieldsOf(memory, id),
    ended: (id) => endOf(memory, id),
  }
}

function idIn(client: Client): string | undefined {
  return client.cookies.get('sid')?.split('.')[0]
}

describe('the commit table', () => {
  /** One request to an app whose whole handler is `act`; `known` ones come with the cookie of a stored session. */
  interface Row {
    readonly known: boolean
    /** What else was done with the known session. */
    readonly before?: (session: Session) => unknown
    readonly act: (session: Session) => unknown
    /** Time that passes before the request. */
    readonly afterMs?: number
    readonly options?: Partial<SessionOptions>
    readonly calls: Partial<Record<StoreOperation, number>>
    readonly cookie: 'none' | 'set' | 'cleared'
  }
  const nothing = (): void => {}
  const login = (s: Session): Promise<void> => s.login('ann')
  const renewal = { renewAfter: '5m' } as const
  const ROWS: Record<string, Row> = {
    'new, not looked at': { known: false, act: nothing, calls: {}, cookie: 'none' },
    'new, nothing set, only read': { known: false, act: (s) => s.get('n'), calls: {}, cookie: 'none' },
    'new, set and deleted again': {
      known: false,
      act: (s) => {
        s.set('n', 1)
        s.delete('n')
      },
      calls: {},
      cookie: 'none',
    },
    'new, with fields': { known: false, act: (s) => s.set('n', 1), calls: { create: 1 }, cookie: 'set' },
    'new, saved before the response': {
      known: false,
      act: async (s) => {
        s.set('n', 1)
        await s.save()
      },
      calls: { create: 1 },
      cookie: 'set',
    },
    'new, logged in': {
      known: false,
      act: login,
      calls: { create: 1, 'users.add': 1, 'users.settle': 1 },
      cookie: 'set',
    },
    'new, destroyed': { known: false, act: (s) => s.destroy(), calls: {}, cookie: 'none' },
    'new, logged out': { known: false, act: (s) => s.logout(), calls: {}, cookie: 'none' },
    'new, regenerated': { known: false, act: (s) => s.regenerate(), calls: {}, cookie: 'none' },
    'unchanged, not looked at': { known: true, act: nothing, calls: { get: 1 }, cookie: 'none' },
    'unchanged, read': { known: true, act: (s) => s.get('begun'), calls: { get: 1 }, cookie: 'none' },
    'unchanged, set to the value it has': {
      known: true,
      act: (s) => s.set('begun', { at: [1] }),
      calls: { get: 1 },
      cookie: 'none',
    },
    'unchanged, before a touch is due': {
      known: true,
      act: nothing,
      afterMs: MINUTE - 1,
      calls: { get: 1 },
      cookie: 'none',
    },
    'unchanged, when a touch is due': {
      known: true,
      act: nothing,
      afterMs: MINUTE,
      calls: { get: 1, touch: 1 },
      cookie: 'none',
    },
    'unchanged, when a touch is due, with a persistent cookie': {
      known: true,
      act: nothing,
      afterMs: MINUTE,
      options: { cookie: { persistent: true } },
      calls: { get: 1, touch: 1 },
      cookie: 'set',
    },
    'unchanged, with a persistent cookie, before a touch is due': {
      known: true,
      act: nothing,
      options: { cookie: { persistent: true } },
      calls: { get: 1 },
      cookie: 'none',
    },
    'unchanged, with cookie attributes chosen anew': {
      known: true,
      act: (s) => {
        s.cookie.sameSite = 'strict'
      },
      calls: { get: 1 },
      cookie: 'set',
    },
    changed: { known: true, act: (s) => s.set('n', 1), calls: { get: 1, update: 1 }, cookie: 'none' },
    'changed inside a value': {
      known: true,
      act: (s) => (s.get('begun') as { at: number[] }).at.push(2),
      calls: { get: 1, update: 1 },
      cookie: 'none',
    },
    'changed, when a touch would be due': {
      known: true,
      act: (s) => s.set('n', 1),
      afterMs: MINUTE,
      calls: { get: 1, update: 1 },
      cookie: 'none',
    },
    'changed, when a touch would be due, with a persistent cookie': {
      known: true,
      act: (s) => s.set('n', 1),
      afterMs: MINUTE,
      options: { cookie: { persistent: true } },
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    'changed by update()': {
      known: true,
      act: (s) => s.update('n', () => 1),
      calls: { get: 1, update: 1 },
      cookie: 'none',
    },
    'saved, then changed again': {
      known: true,
      act: async (s) => {
        s.set('n', 1)
        await s.save()
        s.set('n', 2)
      },
      calls: { get: 1, update: 2 },
      cookie: 'none',
    },
    'field deleted': { known: true, act: (s) => s.delete('begun'), calls: { get: 1, update: 1 }, cookie: 'none' },
    renewed: { known: true, act: (s) => s.renew(), calls: { get: 1, update: 1 }, cookie: 'set' },
    regenerated: { known: true, act: (s) => s.regenerate(), calls: { get: 1, regenerate: 1 }, cookie: 'set' },
    'regenerated, keeping fields': {
      known: true,
      act: (s) => s.regenerate({ keep: true }),
      calls: { get: 1, regenerate: 1 },
      cookie: 'set',
    },
    'changed and logged in': {
      known: true,
      act: (s) => {
        s.set('n', 1)
        return s.login('ann')
      },
      calls: { get: 1, regenerate: 1, 'users.add': 1, 'users.settle': 1 },
      cookie: 'set',
    },
    'logged in as somebody else': {
      known: true,
      before: login,
      act: (s) => s.login('bob'),
      calls: { get: 1, regenerate: 1, 'users.add': 1, 'users.settle': 1, 'users.remove': 1 },
      cookie: 'set',
    },
    reauthenticated: {
      known: true,
      before: login,
      act: (s) => s.reauthenticate(),
      calls: { get: 1, regenerate: 1, 'users.add': 1, 'users.settle': 1 },
      cookie: 'set',
    },
    'regenerated, by a user who goes': {
      known: true,
      before: login,
      act: (s) => s.regenerate(),
      calls: { get: 1, regenerate: 1, 'users.remove': 1 },
      cookie: 'set',
    },
    'regenerated, keeping fields, by a user who stays': {
      known: true,
      before: login,
      act: (s) => s.regenerate({ keep: true }),
      calls: { get: 1, regenerate: 1, 'users.add': 1, 'users.settle': 1 },
      cookie: 'set',
    },
    'unchanged, before a renewal is due': {
      known: true,
      act: nothing,
      afterMs: 5 * MINUTE - 1,
      options: renewal,
      calls: { get: 1, touch: 1 },
      cookie: 'none',
    },
    'due to be renewed, not looked at': {
      known: true,
      act: nothing,
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    'due to be renewed, read': {
      known: true,
      act: (s) => s.get('begun'),
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    'due to be renewed, of a user': {
      known: true,
      before: login,
      act: nothing,
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    'due to be renewed, and changed': {
      known: true,
      act: (s) => s.set('n', 1),
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, update: 2 },
      cookie: 'set',
    },
    'due to be renewed, and renewed by the handler': {
      known: true,
      act: (s) => s.renew(),
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    'due to be renewed, and regenerated': {
      known: true,
      act: (s) => s.regenerate({ keep: true }),
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, regenerate: 1 },
      cookie: 'set',
    },
    'due to be renewed, and destroyed': {
      known: true,
      act: (s) => s.destroy(),
      afterMs: 5 * MINUTE,
      options: renewal,
      calls: { get: 1, end: 1 },
      cookie: 'cleared',
    },
    'on a passive path, when a touch would be due': {
      known: true,
      act: nothing,
      afterMs: MINUTE,
      options: { passivePaths: ['/'], cookie: { persistent: true } },
      calls: { get: 1 },
      cookie: 'none',
    },
    'on a passive path, changed': {
      known: true,
      act: (s) => s.set('n', 1),
      afterMs: MINUTE,
      options: { passivePaths: ['/'], cookie: { persistent: true } },
      calls: { get: 1, update: 1 },
      cookie: 'none',
    },
    'on a passive path, due to be renewed': {
      known: true,
      act: nothing,
      afterMs: 5 * MINUTE,
      options: { ...renewal, passivePaths: ['/'] },
      calls: { get: 1, update: 1 },
      cookie: 'set',
    },
    destroyed: { known: true, act: (s) => s.destroy(), calls: { get: 1, end: 1 }, cookie: 'cleared' },
    'changed, then destroyed': {
      known: true,
      act: (s) => {
        s.set('n', 1)
        return s.destroy()
      },
      calls: { get: 1, end: 1 },
      cookie: 'cleared',
    },
    'logged out': { known: true, act: (s) => s.logout(), calls: { get: 1, end: 1 }, cookie: 'cleared' },
    'destroyed, of a user': {
      known: true,
      before: login,
      act: (s) => s.destroy(),
      calls: { get: 1, end: 1, 'users.remove': 1 },
      cookie: 'cleared',
    },
    'logged out, of a user': {
      known: true,
      before: login,
      act: (s) => s.logout(),
      calls: { get: 1, end: 1, 'users.remove': 1 },
      cookie: 'cleared',
    },
  }

  test.each(Object.entries(ROWS))('%s', async (_status, row) => {
    const { known, before = nothing, act, afterMs = 0, options, calls, cookie } = row
    const { client, clock, newCalls } = await serve(async (req, res) => {
      if (req.path === '/begin') {
        req.session.set('begun', { at: [1] })
        await before(req.session)
      } else await act(req.session)
      res.send('done')
    }, options)
    if (known) await client.get('/begin')
    newCalls()
    clock.advance(afterMs)
    const answer = await client.get('/')
    expect(answer).toMatchObject({ status: 200, body: 'done' })
    expect(newCalls()).toEqual(calls)
    const kinds = answer.setCookies.map((line) => (/max-age=0/i.test(line) ? 'cleared' : 'set'))
    expect(kinds).toEqual(cookie === 'none' ? [] : [cookie])
  })

  test('logged out and filled again: the new session takes the place of the old one', async () => {
    const { client, newCalls, stored, ended } = await serve(async (req, res) => {
      if (req.path === '/begin') req.session.set('begun', true)
      else {
        await req.session.logout()
        req.session.set('message', 'bye')
      }
      res.send('done')
    })
    await client.get('/begin')
    const before = idIn(client)
    newCalls()
    const answer = await client.get('/')
    expect(newCalls()).toEqual({ get: 1, end: 1, create: 1 })
    expect(answer.setCookies).toHaveLength(1)
    expect(idIn(client)).not.toBe(before)
    expect(await ended(before)).toMatchObject({ reason: 'logout' })
    expect(await stored(idIn(client))).toEqual({ message: 'bye' })
  })

  describe('due to be renewed', () => {
    const handler: Handler = (req, res) => {
      if (req.path === '/begin') req.session.set('begun', true)
      res.json(req.session)
    }

    test('the session has a new token and its old ID, told once; a request that was under way changes nothing', async () => {
      const { client, clock, middleware, newCalls } = await serve(handler, { renewAfter: '5m', renewGrace: '10s' })
      const renewed: unknown[] = []
      middleware.events.on('renewed', (event) => renewed.push(event))
      await client.get('/begin')
      const before = client.clone()
      clock.advance(5 * MINUTE)
      expect((await client.get('/')).json()).toEqual({ begun: true })
      expect(client.cookieHeader).not.toBe(before.cookieHeader)
      expect(idIn(client)).toBe(idIn(before))
      newCalls()
      expect(await client.get('/')).toMatchObject({ body: '{"begun":true}', setCookies: [] })
      expect(newCalls()).toEqual({ get: 1, update: 1 })
      expect(await before.get('/')).toMatchObject({ body: '{"begun":true}', setCookies: [] })
      expect(await client.get('/')).toMatchObject({ body: '{"begun":true}', setCookies: [] })
      expect(newCalls()).toEqual({ get: 2 })
      expect(renewed).toEqual([{ at: clock.now(), id: idIn(client), userId: undefined }])
      clock.advance(10_000)
      expect((await before.get('/')).json()).toEqual({})
    })

    test('a response that goes before the commit carries the new token, too', async () => {
      const { client, clock } = await serve(handler, { renewAfter: '5m', commit: 'after-response' })
      await client.get('/begin')
      const before = client.clone()
      clock.advance(5 * MINUTE)
      expect((await client.get('/')).json()).toEqual({ begun: true })
      expect(client.cookieHeader).not.toBe(before.cookieHeader)
      expect((await client.get('/')).json()).toEqual({ begun: true })
      clock.advance(10_000)
      expect((await before.get('/')).json()).toEqual({})
    })

    test('a token that regenerate() made is as young as that', async () => {
      const { client, clock } = await serve(
        async (req, res) => {
          if (req.path === '/begin') req.session.set('begun', true)
          if (req.path === '/regenerate') await req.session.regenerate({ keep: true })
          res.json(req.session)
        },
        { renewAfter: '5m' },
      )
      await client.get('/begin')
      clock.advance(4 * MINUTE)
      await client.get('/regenerate')
      const before = client.cookieHeader
      clock.advance(5 * MINUTE - 1)
      await client.get('/')
      expect(client.cookieHeader).toBe(before)
      clock.advance(1)
      await client.get('/')
      expect(client.cookieHeader).not.toBe(before)
    })

    test('of requests that come at once, one gets a new token, and all are answered', async () => {
      const { client, clock } = await serve(handler, { renewAfter: '5m' })
      await client.get('/begin')
      clock.advance(5 * MINUTE)
      const others = Array.from({ length: 10 }, () => client.clone())
      const answers = await Promise.all(others.map((other) => other.get('/')))
      expect(answers.map(({ body }) => body)).toEqual(answers.map(() => '{"begun":true}'))
      expect(new Set(answers.flatMap(({ setCookies }) => setCookies)).size).toBe(1)
    })

    test('a store that fails at it does not spoil the response, and the old token stays the good one', async () => {
      const { client, clock, store } = await serve(handler, { renewAfter: '5m' })
      await client.get('/begin')
      clock.advance(5 * MINUTE)
      store.fail({ kind: 'error', operations: ['update'] })
      expect(await client.get('/')).toMatchObject({ status: 200, body: '{"begun":true}', setCookies: [] })
      store.repair()
      expect(await client.get('/')).toMatchObject({ body: '{"begun":true}', setCookies: [expect.any(String)] })
    })

    test('a response whose head left before session() leaves it to the next one', async () => {
      const { client, clock } = await rig({ renewAfter: '5m' }, (middleware) => {
        const app = express()
        app.get('/stream', (_req, res, next) => {
          res.write('{"stream":')
          next()
        })
        app.use(middleware)
        app.get('/stream', (req, res) => void res.end(`${JSON.stringify(req.session)}}`))
        app.use((req, res, next) => handler(req, res, next))
        return app
      })
      await client.get('/begin')
      clock.advance(5 * MINUTE)
      const streamed = await client.get('/stream')
      expect(streamed).toMatchObject({ body: '{"stream":{"begun":true}}', setCookies: [], isTruncated: false })
      expect(await client.get('/')).toMatchObject({ body: '{"begun":true}', setCookies: [expect.any(String)] })
    })

    test('a stream carries the new cookie in its head', async () => {
      const { client, clock } = await serve(
        async (req, res, next) => {
          if (req.path === '/stream') res.flushHeaders()
          await new Promise((resolve) => setImmediate(resolve))
          return handler(req, res, next)
        },
        { renewAfter: '5m' },
      )
      await client.get('/begin')
      clock.advance(5 * MINUTE)
      const before = client.clone()
      expect((await client.get('/stream')).setCookies).toHaveLength(1)
      expect((await client.get('/')).json()).toEqual({ begun: true })
      clock.advance(MINUTE)
      expect((await client.get('/')).json()).toEqual({ begun: true })
      expect((await before.get('/')).json()).toEqual({})
    })

    test('on a passive path a new token keeps nothing alive', async () => {
      const { client, clock, ended, middleware } = await serve(handler, {
        idleTimeout: '15m',
        renewAfter: '4m',
        passivePaths: ['/poll'],
      })
      const expired: unknown[] = []
      middleware.events.on('expired', (event) => expired.push(event))
      await client.get('/begin')
      const id = idIn(client)
      let cookies = 0
      for (let minute = 1; minute < 15; minute++) {
        clock.advance(MINUTE)
        const answer = await client.get('/poll')
        expect(answer.json()).toEqual({ begun: true })
        cookies += answer.setCookies.length
      }
      expect(cookies).toBe(3)
      clock.advance(MINUTE)
      expect((await client.get('/poll')).json()).toEqual({})
      expect(expired).toEqual([{ at: clock.now(), id, userId: undefined, reason: 'idle' }])
      expect(await ended(id)).toBeNull()
    })
  })

  test('a cookie signed with an older secret is reissued under the newest, and opens the same session', async () => {
    const memory = new MemorySessionStore({ cleanupInterval: 0 })
    const handler: Handler = (req, res) => {
      if (req.path === '/begin') req.session.set('begun', true)
      res.json(req.session)
    }
    const old = await serve(handler, { store: memory, secret: OTHER_SECRET })
    await old.client.get('/begin')
    const { server } = await serve(handler, { store: memory, secret: [SECRET, OTHER_SECRET] })
    const client = new Client(server, old.client.cookies)
    const answer = await client.get('/')
    expect(answer.json()).toEqual({ begun: true })
    expect(answer.setCookies).toHaveLength(1)
    expect((await client.get('/')).setCookies).toEqual([])
    const onlyNew = await serve(handler, { store: memory, secret: SECRET })
    expect((await new Client(onlyNew.server, client.cookies).get('/')).json()).toEqual({ begun: true })
  })

  test.each(['sid=x', 'sid=', `sid=${'x'.repeat(8000)}`, 'sid=a.b.c; sid=d', 'other=1', 'sid'])(
    'a cookie that we did not issue (%#) costs no store call',
    async (cookie) => {
      const { server, store } = await serve((req, res) => {
        req.session.get('n')
        res.send('done')
      })
      expect(await send(server.url, { headers: { cookie } })).toMatchObject({ status: 200, setCookies: [] })
      expect(store.totalCalls).toBe(0)
    },
  )
})

describe('headers for caches', () => {
  const cases: readonly (readonly [string, Handler, object])[] = [
    ['a session that was not used', (_req, res) => res.send('x'), { vary: undefined, 'cache-control': undefined }],
    [
      'a session that was read',
      (req, res) => {
        req.session.get('n')
        res.send('x')
      },
      { vary: 'Cookie', 'cache-control': 'private' },
    ],
    [
      'a session that was set',
      (req, res) => {
        req.session.set('n', 1)
        res.send('x')
      },
      { vary: 'Cookie', 'cache-control': 'no-store' },
    ],
    [
      'a session that was set, by an app with headers of its own',
      (req, res) => {
        req.session.set('n', 1)
        res.set({ vary: 'Accept', 'cache-control': 'public, max-age=600' }).send('x')
      },
      { vary: 'Accept, Cookie', 'cache-control': 'no-store' },
    ],
    [
      'a session that was set, by an app that is stricter',
      (req, res) => {
        req.session.set('n', 1)
        res.set({ vary: '*', 'cache-control': 'private, no-store, max-age=0' }).send('x')
      },
      { vary: '*', 'cache-control': 'private, no-store, max-age=0' },
    ],
  ]
  test.each(cases)('%s', async (_what, handler, headers) => {
    const { client } = await serve(handler)
    expect({ vary: undefined, 'cache-control': undefined, ...(await client.get('/')).headers }).toMatchObject(headers)
  })
})

describe('a slow store', () => {
  /** Calls are held back for as long as a slow machine needs. */
  const SLOW: Partial<SessionOptions> = { storeTimeout: '10s' }

  test('no byte of the answer leaves before the commit', async () => {
    const { server, store } = await serve((req, res) => {
      req.session.set('n', 1)
      res.redirect('/next')
    }, SLOW)
    store.fail({ kind: 'delay', operations: ['create'] })
    const client = new RawClient(server.port)
    client.send('/')
    await until(() => store.heldCalls === 1)
    store.repair()
    // Whatever had been sent would have arrived by the time another request is answered.
    await send(server.url)
    expect(client.received).toBe('')
    store.release()
    await until(() => client.received.includes('/next'))
    expect(client.received).toMatch(/^HTTP\/1\.1 302 /)
    client.destroy()
  })

  test('who follows a redirect on its first byte sees the data, 100 of 100', async () => {
    const { server, store } = await serve((req, res) => {
      if (req.method !== 'POST') {
        res.json(req.session)
        return
      }
      req.session.set('seen', req.query['value'])
      res.redirect('/')
    }, SLOW)
    // Every write takes its time, 50 ms; the slow requests overlap, so that the test is not slow.
    store.fail({ kind: 'delay', delayMs: 50, operations: ['create', 'update'] })
    const clients = await Promise.all(
      Array.from({ length: 10 }, async () => {
        const client = new Client(server)
        await client.post('/?value=first')
        return client
      }),
    )
    const results = await Promise.all(
      clients.map(async (client) => {
        const seen: boolean[] = []
        for (let round = 0; round < 10; round++) {
          const raw = new RawClient(server.port)
          raw.send(`/?value=${round}`, { method: 'POST', cookie: client.cookieHeader })
          await until(() => raw.received !== '')
          const { seen: value } = (await client.get('/')).json()
          seen.push(value === String(round))
          raw.destroy()
        }
        return seen
      }),
    )
    expect(results.flat().filter(Boolean)).toHaveLength(100)
  })
})

describe('where it is mounted', () => {
  test('mounted twice it works once', async () => {
    const { client, newCalls } = await rig({}, (middleware) => {
      const app = express()
      app.use(middleware, middleware)
      app.get('/', (req, res) => {
        req.session.set('n', ((req.session.get('n') as number | undefined) ?? 0) + 1)
        res.json(req.session)
      })
      return app
    })
    const first = await client.get('/')
    expect(first.setCookies).toHaveLength(1)
    expect(newCalls()).toEqual({ create: 1 })
    expect((await client.get('/')).json()).toEqual({ n: 2 })
    expect(newCalls()).toEqual({ get: 1, update: 1 })
  })

  test('behind another session() it says that req.session is taken', async () => {
    const { client } = await rig({}, (middleware) => {
      const app = express()
      app.use(middleware, session({ secret: OTHER_SECRET, store: middleware.store }))
      app.use((error: unknown, _req: express.Request, res: express.Response, _next: express.NextFunction) => {
        res.status(500).json(error)
      })
      return app
    })
    expect((await client.get('/')).json()).toMatchObject({ code: 'INVALID_OPTION' })
  })

  test.each([
    ['/admin', true],
    ['/admin/', true],
    ['/admin/users?x=1', true],
    ['/admin?x=/', true],
    ['/administrator', false],
    ['/Admin', false],
    ['/', false],
    ['//admin', false],
    ['/admin%2f..%2fpublic', false],
    ['/%61dmin', false],
    ['/public/admin', false],
  ])('with cookie path /admin, %s has a session: %s', async (path, hasSession) => {
    const { client } = await serve((req, res) => void res.json((req.session as unknown) !== undefined), {
      cookie: { path: '/admin' },
    })
    expect((await client.get(path)).json()).toBe(hasSession)
  })

  test('the path counts from the root of the site, also where it is mounted deeper', async () => {
    const { client } = await rig({ cookie: { path: '/admin' } }, (middleware) => {
      const app = express()
      app.use('/admin', middleware, (req, res) => {
        req.session.set('n', 1)
        res.send(req.url)
      })
      return app
    })
    const answer = await client.get('/admin/users')
    expect(answer.body).toBe('/users')
    expect(answer.setCookies[0]).toMatch(/Path=\/admin(;|$)/)
  })

  test('behind another session middleware it says so', async () => {
    const { client, store } = await rig({}, (middleware) => {
      const app = express()
      app.use((req, _res, next) => {
        Object.assign(req, { session: {} })
        next()
      })
      app.use(middleware)
      app.use((error: Error, _req: express.Request, res: express.Response, _next: express.NextFunction) => {
        res.status(500).send(error.message)
      })
      return app
    })
    const answer = await client.get('/')
    expect(answer.status).toBe(500)
    expect(answer.body).toMatch(/req\.session is taken: another session middleware/)
    expect(store.totalCalls).toBe(0)
  })

  type Build = (middleware: SessionMiddleware) => RequestListener
  const count = (req: { session: Session }): string => {
    req.session.set('n', ((req.session.get('n') as number | undefined) ?? 0) + 1)
    return JSON.stringify(req.session)
  }
  const HOSTS: Record<string, Build> = {
    'plain http': (middleware) => (req, res) => {
      middleware(req, res, (error) => {
        res.statusCode = error === undefined ? 200 : 503
        res.end(error === undefined ? count(req as IncomingMessage & { session: Session }) : 'sorry')
      })
    },
    Connect: (middleware) => {
      const app = connect()
      app.use(middleware)
      app.use((req, res) => void res.end(count(req as IncomingMessage & { session: Session })))
      return app
    },
    'Express 4': (middleware) => {
      const app = express4()
      app.set('env', 'test')
      app.use(middleware)
      app.get('/', (req, res) => void res.send(count(req)))
      return app
    },
    'Express 5': (middleware) => {
      const app = express()
      app.set('env', 'test')
      app.use(middleware)
      app.get('/', (req, res) => void res.send(count(req)))
      return app
    },
  }
  test.each(Object.entries(HOSTS))('works under %s, and a failed commit is answered with 503', async (_host, build) => {
    const { client, store } = await rig({}, build)
    for (const n of [1, 2, 3]) expect((await client.get('/')).json()).toEqual({ n })
    store.fail({ kind: 'error', operations: ['update'] })
    const failed = await client.get('/')
    expect(failed).toMatchObject({ status: 503, setCookies: [], isTruncated: false })
    expect(failed.headers['retry-after']).toBe('1')
    store.repair()
    expect((await client.get('/')).json()).toEqual({ n: 4 })
    store.fail({ kind: 'error', operations: ['get'] })
    expect(await client.get('/')).toMatchObject({ status: 503, setCookies: [] })
  })
})

describe('a WebSocket upgrade', () => {
  /** Sends one upgrade request to a server that runs it through the middleware, and returns what `act` made of it. */
  async function upgrade(
    { middleware, client }: Rig,
    standIn: object,
    act: (session: Session) => unknown,
  ): Promise<unknown> {
    const server = createServer()
    const result = new Promise((resolve, reject) => {
      server.on('upgrade', (req, socket) => {
        middleware(req, standIn, (error) => {
          socket.destroy()
          if (error !== undefined) reject(error)
          else
            new Promise((done) => done(act((req as IncomingMessage & { session: Session }).session))).then(
              resolve,
              reject,
            )
        })
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    closers.push(async () => void server.close())
    const socket = connectSocket((server.address() as AddressInfo).port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write(
      `GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: ${client.cookieHeader}\r\n\r\n`,
    )
    return result.finally(() => socket.destroy())
  }

  const begin: Handler = (req, res) => {
    req.session.set('n', 1)
    res.send('begun')
  }
  /** What engine.io hands to the middleware: a response that records what is written to it. */
  const engineResponse = (): object => ({
    _header: '',
    headers: {} as Record<string, unknown>,
    setHeader() {},
    getHeader() {},
    hasHeader: () => false,
    getHeaders: () => ({}),
    writeHead() {},
    write() {},
    end() {},
    on() {},
    once() {},
    emit() {},
  })

  test.each([
    ['an empty object', () => ({})],
    ['a stand-in such as engine.io’s', engineResponse],
  ])('with %s as response: reads the session and stores changes by save()', async (_what, standIn) => {
    const made = await serve(begin)
    await made.client.get('/')
    expect(await upgrade(made, standIn(), (s) => s.get('n'))).toBe(1)
    await upgrade(made, standIn(), async (s) => {
      s.set('n', 2)
      await s.save()
      await s.update('m', () => 3)
    })
    expect(await made.stored(idIn(made.client))).toEqual({ n: 2, m: 3 })
  })

  test('without a cookie it has an empty session, and one that cannot be stored for want of a cookie', async () => {
    const made = await serve(begin)
    const save = async (s: Session): Promise<void> => {
      s.set('n', 1)
      await s.save()
    }
    await expect(upgrade(made, {}, save)).rejects.toMatchObject({ code: 'HEADERS_SENT' })
    await expect(upgrade(made, {}, (s) => s.login('ann'))).rejects.toMatchObject({ code: 'HEADERS_SENT' })
    expect(made.store.totalCalls).toBe(0)
  })

  test('when the store fails, next gets the error and no header is needed', async () => {
    const made = await serve(begin)
    await made.client.get('/')
    made.store.fail({ kind: 'error' })
    await expect(upgrade(made, {}, () => {})).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  })
})

describe('a store that cannot be asked', () => {
  const touchAll: Handler = (req, res) => {
    req.session.set('n', 1)
    res.send('done')
  }

  test('fails the request with 503 and Retry-After, leaves the cookie alone, and works again by itself', async () => {
    let handled = 0
    const { client, store, stored } = await serve((req, res, next) => {
      handled++
      return touchAll(req, res, next)
    })
    await client.get('/')
    store.fail({ kind: 'error', operations: ['get'] })
    const answer = await client.get('/')
    expect(answer).toMatchObject({ status: 503, setCookies: [] })
    expect(answer.headers['retry-after']).toBe('1')
    expect(handled).toBe(1)
    store.repair()
    expect((await client.get('/')).status).toBe(200)
    expect(await stored(idIn(client))).toEqual({ n: 1 })
  })

  test.each(['get', 'create', 'update'] as const)(
    'one that hangs at %s is given up at the deadline',
    async (operation) => {
      const { client, store, middleware } = await serve(
        (req, res) => {
          req.session.set('n', Math.random())
          res.send('done')
        },
        { storeTimeout: '100ms' },
      )
      if (operation !== 'create') await client.get('/')
      store.fail({ kind: 'hang', operations: [operation] })
      const missed: unknown[] = []
      middleware.events.on('storeError', (event) =>
        missed.push([event.operation, event.error.code, event.error.message]),
      )
      const answer = await client.get('/')
      expect(answer).toMatchObject({ status: 503, setCookies: [] })
      expect(answer.headers['retry-after']).toBe('1')
      // One deadline and no more. How late a busy machine is told of it is not ours.
      expect(missed).toEqual([[operation, 'STORE_TIMEOUT', expect.stringContaining('within 100 ms')]])
      expect(answer.headAfterMs).toBeGreaterThanOrEqual(95)
    },
  )

  test('whose epoch is unknown opens no session and begins none', async () => {
    const memory = new MemorySessionStore({ cleanupInterval: 0 })
    const begun = await serve(touchAll, { store: memory })
    await begun.client.get('/')
    let handled = 0
    // A process that has not read the epoch yet.
    const fresh = new FaultyStore(memory)
    const { server } = await serve(
      (req, res, next) => {
        handled++
        return touchAll(req, res, next)
      },
      { store: fresh },
    )
    fresh.fail({ kind: 'error', operations: ['epoch'] })
    expect(await new Client(server, begun.client.cookies).get('/')).toMatchObject({ status: 503, setCookies: [] })
    expect(handled).toBe(0)
    expect(await new Client(server).get('/')).toMatchObject({ status: 503, setCookies: [] })
    expect(fresh.calls.create).toBe(0)
    fresh.repair()
    expect((await new Client(server, begun.client.cookies).get('/')).status).toBe(200)
  })

  test('a touch that fails does not spoil a response that changed nothing', async () => {
    const { client, store, clock } = await serve((req, res) => {
      if (req.path === '/begin') req.session.set('n', 1)
      res.json(req.session)
    })
    await client.get('/begin')
    clock.advance(2 * MINUTE)
    store.fail({ kind: 'error', operations: ['touch'] })
    expect((await client.get('/')).json()).toEqual({ n: 1 })
  })

  describe("with onStoreError: 'anonymous'", () => {
    const options: Partial<SessionOptions> = { onStoreError: 'anonymous', storeTimeout: '100ms' }

    test('goes on with an empty session and leaves the cookie alone', async () => {
      const { client, store } = await serve((req, res) => {
        if (req.path === '/begin') req.session.set('n', 1)
        res.json({ fields: req.session, userId: req.session.metadata.userId ?? null })
      }, options)
      await client.get('/begin')
      for (const kind of ['error', 'hang'] as const) {
        store.fail({ kind })
        const answer = await client.get('/')
        expect(answer).toMatchObject({ status: 200, setCookies: [] })
        expect(answer.json()).toEqual({ fields: {}, userId: null })
        store.repair()
      }
      expect((await client.get('/')).json()).toMatchObject({ fields: { n: 1 } })
    })

    const WRITES: Record<string, (s: Session) => unknown> = {
      'a property': (s) => Object.assign(s, { n: 1 }),
      'set()': (s) => s.set('n', 1),
      'delete()': (s) => s.delete('n'),
      'clear()': (s) => s.clear(),
      'update()': (s) => s.update('n', () => 1),
      'save()': (s) => s.save(),
      'touch()': (s) => s.touch(),
      'renew()': (s) => s.renew(),
      'regenerate()': (s) => s.regenerate(),
      'regenerate({ keep })': (s) => s.regenerate({ keep: true }),
      'login()': (s) => s.login('ann'),
      'reauthenticate()': (s) => s.reauthenticate(),
      'logout()': (s) => s.logout(),
      'setExpiry()': (s) => s.setExpiry('1h'),
    }
    test.each(Object.entries(WRITES))('refuses %s with SESSION_READ_ONLY', async (_name, write) => {
      const { client, store } = await serve(async (req, res) => {
        if (req.path === '/begin') req.session.set('n', 1)
        else await write(req.session)
        res.send('done')
      }, options)
      await client.get('/begin')
      let code = ''
      const seen = await rig({ ...options, store }, (middleware) => {
        const app = express()
        app.use(middleware)
        app.use(async (req, res) => {
          await Promise.resolve()
            .then(() => write(req.session))
            .catch((error: { code: string }) => {
              code = error.code
            })
          res.send('done')
        })
        return app
      })
      store.fail({ kind: 'error' })
      const answer = await new Client(seen.server, client.cookies).get('/')
      expect(answer).toMatchObject({ status: 200, setCookies: [] })
      expect(code).toBe('SESSION_READ_ONLY')
    })
  })
})

describe('the current session without a request', () => {
  async function observe(
    act: (req: express.Request) => unknown,
    options: Partial<SessionOptions> = {},
  ): Promise<unknown> {
    let seen: unknown
    const { client } = await serve(async (req, res) => {
      seen = await act(req)
      res.send('done')
    }, options)
    await client.get('/')
    return seen
  }

  const WAYS: Record<string, (req: express.Request) => Promise<unknown> | unknown> = {
    'at once': () => getSession(),
    'after await': async () => {
      await Promise.resolve()
      return getSession()
    },
    'in a timer': () => new Promise((resolve) => setTimeout(() => resolve(getSession()), 1)),
    'in setImmediate': () => new Promise((resolve) => setImmediate(() => resolve(getSession()))),
    'in nextTick': () => new Promise((resolve) => process.nextTick(() => resolve(getSession()))),
    'in a listener of an emitter': () => {
      const emitter = new EventEmitter()
      const heard = new Promise((resolve) => emitter.on('event', () => resolve(getSession())))
      emitter.emit('event')
      return heard
    },
    'by requireSession()': async () => {
      await Promise.resolve()
      return requireSession()
    },
    'with the request at hand': (req) => getSession(req),
  }
  test.each(Object.entries(WAYS))('%s it is that of the request', async (_how, act) => {
    expect(await observe(async (req) => (await act(req)) === req.session)).toBe(true)
  })

  test('after regenerate() and logout() it is the new one', async () => {
    const seen = await observe(async (req) => {
      const first = req.session
      first.set('n', 1)
      await first.save()
      await first.regenerate()
      const second = getSession()
      await second?.logout()
      const third = getSession()
      return [second !== first, third !== second, third === req.session, requireSession() === req.session]
    })
    expect(seen).toEqual([true, true, true, true])
  })

  test('requests that run at the same time each have their own', async () => {
    let waiting: (() => void)[] = []
    const { server } = await serve(async (req, res) => {
      const asked = new Promise<void>((resolve) => waiting.push(resolve))
      await asked
      res.json([getSession()?.id, req.session.id])
    })
    const answers = Array.from({ length: 5 }, () => send(server.url))
    await until(() => waiting.length === 5)
    const all = waiting
    waiting = []
    for (const go of all.reverse()) go()
    const pairs = (await Promise.all(answers)).map((answer) => answer.json<string[]>())
    for (const [current, own] of pairs) expect(current).toBe(own)
    expect(new Set(pairs.map(([id]) => id)).size).toBe(5)
  })

  test('outside of a request there is none', () => {
    expect(getSession()).toBeUndefined()
    expect(() => requireSession()).toThrow(/no session here.*behind the session\(\) middleware/)
    expect(getSession({})).toBeUndefined()
    expect(() => requireSession({})).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })

  test('context: false leaves only the way by the request', async () => {
    const seen = await observe((req) => [getSession(), getSession(req) === req.session], { context: false })
    expect(seen).toEqual([undefined, true])
  })

  test('with the store out of reach it is the read-only one', async () => {
    const { client, store } = await serve(
      (req, res) => {
        if (req.path === '/begin') req.session.set('n', 1)
        res.json(getSession() === req.session)
      },
      { onStoreError: 'anonymous' },
    )
    await client.get('/begin')
    store.fail({ kind: 'error' })
    expect((await client.get('/')).json()).toBe(true)
  })
})

describe('options', () => {
  const valid = { secret: SECRET }
  class NotAStore {
    get(): void {}
    set(): void {}
    destroy(): void {}
  }
  const INVALID: Record<string, readonly [options: unknown, message: RegExp]> = {
    'none at all': [undefined, /needs an options object: session\(\{ secret \}\)/],
    null: [null, /needs an options object/],
    'no secret': [{}, /secret is missing.*openssl rand/],
    'an empty list of secrets': [{ secret: [] }, /secret is.*openssl rand/],
    'a secret that is no text': [{ secret: [SECRET, 42] }, /secret 1 is of type number/],
    'a short secret': [{ secret: 'tooshort' }, /secret 0 is 8 characters; use at least 32/],
    'a short older secret': [{ secret: [SECRET, 'x'.repeat(31)] }, /secret 1 is 31 characters/],
    'a well-known secret': [{ secret: 'keyboard cat keyboard cat keyboard cat' }, /secret 0 is well known/],
    'a repeated secret': [{ secret: 'ab'.repeat(20) }, /secret 0 is well known or has a pattern/],
    'an unknown option': [{ ...valid, idletimeout: 5 }, /There is no option "idletimeout"/],
    resave: [{ ...valid, resave: false }, /no option "resave".*only changed fields are written/],
    saveUninitialized: [{ ...valid, saveUninitialized: false }, /an empty session is never stored/],
    rolling: [{ ...valid, rolling: true }, /activity always moves the idle timeout/],
    name: [{ ...valid, name: 'sid' }, /Use cookie: \{ name \}/],
    proxy: [{ ...valid, proxy: true }, /trust proxy/],
    unset: [{ ...valid, unset: 'destroy' }, /req\.session\.destroy\(\)/],
    genid: [{ ...valid, genid: () => 'x' }, /session IDs are UUIDs/],
    maxAge: [{ ...valid, maxAge: 5 }, /idleTimeout and absoluteTimeout/],
    'a store of another kind': [
      { ...valid, store: new NotAStore() },
      /store has no delete, create.*extends SessionStore/,
    ],
    'a store that is null': [{ ...valid, store: 5 }, /store has no get/],
    'an idle timeout of 0': [{ ...valid, idleTimeout: 0 }, /idleTimeout is 0; use seconds as a number, or text/],
    'a negative absolute timeout': [{ ...valid, absoluteTimeout: -1 }, /absoluteTimeout is -1/],
    'a duration without a unit': [{ ...valid, idleTimeout: '30' }, /idleTimeout is "30"; use seconds.*'30m'/],
    'a duration of another unit': [{ ...valid, idleTimeout: '3 weeks' }, /idleTimeout is "3 weeks"/],
    'an endless duration': [{ ...valid, idleTimeout: Number.POSITIVE_INFINITY }, /idleTimeout is Infinity/],
    'a duration that is not a number': [{ ...valid, touchInterval: Number.NaN }, /touchInterval is NaN/],
    'a duration of another type': [{ ...valid, renewGrace: {} }, /renewGrace is \[object Object\]/],
    'a store deadline of 0': [{ ...valid, storeTimeout: 0 }, /storeTimeout is 0/],
    'an unknown onStoreError': [
      { ...valid, onStoreError: 'ignore' },
      /onStoreError is ignore; use one of fail, anonymous/,
    ],
    'an unknown commit': [{ ...valid, commit: 'never' }, /commit is never; use one of before-response, after-response/],
    'a limit of 0': [{ ...valid, limits: { maxBytes: 0 } }, /limits\.maxBytes is 0; use a whole number/],
    'a limit that is no whole number': [{ ...valid, limits: { maxFields: 1.5 } }, /limits\.maxFields is 1\.5/],
    'a cookie name with a space': [{ ...valid, cookie: { name: 'a b' } }, /cookie\.name is not a valid cookie name/],
    'a cookie name that is only a prefix': [{ ...valid, cookie: { name: '__Host-' } }, /not a valid cookie name/],
    '__Host- with a path': [{ ...valid, cookie: { name: '__Host-sid', path: '/a' } }, /__Host-sid needs path "\/"/],
    '__Host- with a domain': [{ ...valid, cookie: { name: '__Host-sid', domain: 'example.org' } }, /and no domain/],
    'a prefix without Secure': [{ ...valid, cookie: { name: '__Secure-sid', secure: false } }, /needs Secure/],
    'an unknown secure': [{ ...valid, cookie: { secure: 'yes' } }, /cookie\.secure is not/],
    'an unknown sameSite': [{ ...valid, cookie: { sameSite: 'sometimes' as 'lax' } }, /cookie\.sameSite is not/],
    'sameSite none without Secure': [{ ...valid, cookie: { sameSite: 'none', secure: false } }, /"none" needs Secure/],
    'partitioned without Secure': [
      { ...valid, cookie: { partitioned: true, secure: false } },
      /partitioned needs Secure/,
    ],
    'a path without a slash': [{ ...valid, cookie: { path: 'admin' } }, /cookie\.path must begin with "\/"/],
    'a path that breaks the header': [{ ...valid, cookie: { path: '/a;b' } }, /cannot be written in a header/],
    'a domain that breaks the header': [{ ...valid, cookie: { domain: 'a b' } }, /cannot be written in a header/],
    'an unknown priority': [{ ...valid, cookie: { priority: 'urgent' } }, /cannot be written in a header|priority/],
    'a cookie that is too long': [{ ...valid, cookie: { name: 's'.repeat(4000) } }, /browsers keep at most 4096/],
    'a cookie option that does not exist': [{ ...valid, cookie: { maxAge: 5 } }, /maxAge/],
    'cookie options of another type': [{ ...valid, cookie: 'sid' }, /cookie/],
    'a codec that is none': [{ ...valid, codec: {} }, /codec/],
    'a clock that is none': [{ ...valid, clock: 5 }, /clock/],
    'trustProxy that is no boolean': [{ ...valid, trustProxy: 1 }, /trustProxy/],
    'context that is no boolean': [{ ...valid, context: 'no' }, /context/],
  }
  test('an option that is undefined is as one that is not given', () => {
    const cookie = { name: undefined, secure: undefined, domain: undefined, path: undefined, priority: undefined }
    const options: SessionOptions = {
      ...valid,
      cookie,
      store: undefined,
      idleTimeout: undefined,
      touchInterval: undefined,
      clientContext: { ip: undefined },
      limits: { maxBytes: undefined, maxFields: undefined },
      passivePaths: undefined,
      clock: undefined,
    }
    expect(session(options)).toBeInstanceOf(Function)
  })

  test.each(Object.entries(INVALID))('%s is refused with a message that helps', (_what, [options, message]) => {
    let thrown: unknown
    try {
      session(options as SessionOptions)
    } catch (error) {
      thrown = error
    }
    expect(isSessionError(thrown, 'INVALID_OPTION')).toBe(true)
    expect((thrown as Error).message).toMatch(message)
    expect((thrown as Error).message).not.toContain(SECRET)
  })

  test.each([
    ['seconds', 90],
    ['text', '90s'],
    ['text with a fraction', '1.5m'],
    ['text with a space', '90 s'],
    ['milliseconds', '90000ms'],
  ])('a duration may be %s', async (_how, idleTimeout) => {
    const { client, clock } = await serve(
      (req, res) => {
        if (req.path === '/begin') req.session.set('n', 1)
        res.json(req.session)
      },
      { idleTimeout, touchInterval: '1h' },
    )
    await client.get('/begin')
    clock.advance(89_999)
    expect((await client.get('/')).json()).toEqual({ n: 1 })
    clock.advance(1)
    expect((await client.get('/')).json()).toEqual({})
  })

  test('the middleware has a name, its store and its events, and cannot be changed', () => {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const middleware = session({ secret: SECRET, store })
    expect(middleware.name).toBe('sessionMiddleware')
    expect(middleware).toHaveLength(3)
    expect(middleware.store).toBe(store)
    expect(Object.isFrozen(middleware)).toBe(true)
  })
})

describe('events', () => {
  const act: Handler = async (req, res) => {
    switch (req.path) {
      case '/begin':
        req.session.set('n', 1)
        break
      case '/login':
        await req.session.login('ann')
        break
      case '/renew':
        await req.session.renew()
        break
      case '/regenerate':
        await req.session.regenerate({ keep: true })
        break
      case '/logout':
        await req.session.logout()
        break
      case '/destroy':
        await req.session.destroy()
        break
    }
    res.json({ id: req.session.id })
  }

  test('tell the life of a session by its public IDs', async () => {
    const { client, middleware, clock } = await serve(act)
    const told: unknown[] = []
    for (const name of ['created', 'login', 'renewed', 'regenerated', 'logout', 'destroyed'] as const) {
      middleware.events.on(name, (event) => told.push([name, event]))
    }
    const ids: Record<string, string> = {}
    for (const path of ['/begin', '/renew', '/login', '/regenerate', '/logout']) {
      ids[path] = (await client.get(path)).json<{ id: string }>().id
    }
    await client.get('/begin')
    const last = idIn(client)
    await client.get('/destroy')
    const at = clock.now()
    expect(told).toEqual([
      ['created', { at, id: ids['/begin'], userId: undefined }],
      ['renewed', { at, id: ids['/begin'], userId: undefined }],
      ['login', { at, id: ids['/login'], previousId: ids['/begin'], userId: 'ann' }],
      ['regenerated', { at, id: ids['/regenerate'], previousId: ids['/login'], userId: 'ann' }],
      ['logout', { at, id: ids['/regenerate'], userId: 'ann' }],
      ['created', { at, id: last, userId: undefined }],
      ['destroyed', { at, id: last, userId: undefined }],
    ])
  })

  test('a listener that throws or rejects harms no request and no other listener', async () => {
    const { client, middleware } = await serve(act)
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const heard: string[] = []
    for (const name of ['created', 'login', 'logout', 'badCookie'] as const) {
      middleware.events.on(name, () => {
        throw new Error(`${name} thrown`)
      })
      middleware.events.on(name, () => Promise.reject(new Error(`${name} rejected`)) as unknown as void)
      middleware.events.on(name, () => new Promise<void>(() => {}) as unknown as void)
      middleware.events.on(name, () => void heard.push(name))
    }
    for (const path of ['/begin', '/login', '/logout']) {
      expect(await client.get(path)).toMatchObject({ status: 200, setCookies: [expect.any(String)] })
    }
    await client.get('/', { cookie: 'sid=junk' })
    expect(heard).toEqual(['created', 'login', 'logout', 'badCookie'])
    const warnings = warned.mock.calls.map(([message]) => String(message))
    warned.mockRestore()
    for (const name of ['created', 'login', 'logout', 'badCookie']) {
      expect(warnings).toContainEqual(`A listener for "${name}" failed: ${name} thrown`)
      expect(warnings).toContainEqual(`A listener for "${name}" failed: ${name} rejected`)
    }
  })

  test('a listener can be taken off again, in two ways', async () => {
    const { client, middleware } = await serve(act)
    const heard: string[] = []
    const first = (): void => void heard.push('first')
    middleware.events.on('created', first)
    const stop = middleware.events.on('created', () => heard.push('second'))
    await client.get('/begin')
    middleware.events.off('created', first)
    stop()
    client.cookies.clear()
    await client.get('/begin')
    expect(heard).toEqual(['first', 'second'])
  })
})
