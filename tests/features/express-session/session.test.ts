// `req.session` as express-session users know it, on sessions that keep their promises.
import type { ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { describe, expect, jest, test } from '@jest/globals'
import flash from 'connect-flash'
import cookieParser from 'cookie-parser'
import express, { type RequestHandler } from 'express'
import passportModule from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { MemorySessionStore } from 'sojourn'
import session, { MemoryStore, Session, Store, sojournOf } from 'sojourn/express-session'
import { FaultyStore } from 'sojourn/testing'
import { cookieIn, type DropInRequest, dropIn } from '../../support/express-session.js'
import { type Answer, Client, listen, SECRET } from '../../support/http.js'

const { csrfSync } = createRequire(import.meta.url)('csrf-sync')

describe('fields', () => {
  test('show the cookie beside them, and no member', async () => {
    await using app = await dropIn({}, (req, res) => {
      req.session.a = 1
      const seen: string[] = []
      for (const name in req.session) seen.push(name)
      res.end(JSON.stringify([seen, Object.keys(req.session), Object.keys(JSON.parse(JSON.stringify(req.session)))]))
    })
    expect((await app.client.get('/')).json()).toEqual(Array(3).fill(['cookie', 'a']))
  })

  test('may have the names of members of ours', async () => {
    const names = ['login', 'logout', 'renew', 'update', 'get', 'keys', 'metadata', 'userId', 'clear', 'logicalId']
    await using app = await dropIn({}, (req, res) => {
      for (const name of names) {
        if (req.session[name] === undefined) req.session[name] = name
      }
      res.end(JSON.stringify({ ...req.session, cookie: undefined }))
    })
    await app.client.get('/')
    expect((await app.client.get('/')).json()).toEqual(Object.fromEntries(names.map((name) => [name, name])))
  })

  test('that JSON bends are stored as JSON has them, with one warning for each', async () => {
    const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      await using app = await dropIn({}, (req, res) => {
        if (req.url === '/set')
          Object.assign(req.session, { n: Number.NaN, m: new Map([[1, 2]]), f: () => 1, deep: [undefined] })
        res.end(JSON.stringify({ ...req.session, cookie: undefined, here: typeof req.session.f }))
      })
      expect((await app.client.get('/set')).json()).toMatchObject({ here: 'function' })
      await app.client.get('/set')
      expect((await app.client.get('/')).json()).toEqual({ n: null, m: {}, deep: [null], here: 'undefined' })
      expect(warning.mock.calls.filter(([text]) => /^Field (n|m|deep)\b/.test(String(text)))).toHaveLength(3)
    } finally {
      warning.mockRestore()
    }
  })

  test('may stand beside members that are defined anew for good', async () => {
    await using app = await dropIn({}, (req, res) => {
      Object.defineProperty(req.session, 'id', { value: '1' })
      req.session.save = () => req.session
      req.session.cart = ['1']
      const kept: Record<string, unknown> = {}
      for (const name in req.session) kept[name] = req.session[name]
      res.end(JSON.stringify([req.session.id, Object.keys(req.session), kept['cart'], { ...req.session }.cart]))
    })
    expect((await app.client.get('/')).json()).toEqual(['1', ['cookie', 'cart'], ['1'], ['1']])
  })

  test('a change inside of one is noticed, `in` and delete work, and methods may be replaced', async () => {
    await using app = await dropIn({}, (req, res) => {
      if (req.url === '/begin') req.session.cart = { items: [] }
      if (req.url === '/add') req.session.cart.items.push(1)
      if (req.url === '/drop') delete req.session.cart
      req.session.touch = () => 'replaced'
      res.end(JSON.stringify([req.session.cart, 'cart' in req.session, 'save' in req.session, req.session.touch()]))
    })
    await app.client.get('/begin')
    await app.client.get('/add')
    expect((await app.client.get('/')).json()).toEqual([{ items: [1] }, true, true, 'replaced'])
    await app.client.get('/drop')
    expect((await app.client.get('/')).json()).toEqual([null, false, true, 'replaced'])
  })
})

describe('members', () => {
  test('save, reload, regenerate and destroy take a callback or give a promise', async () => {
    await using app = await dropIn({}, async (req, res) => {
      const by = (name: string): Promise<unknown> => new Promise((resolve) => req.session[name](resolve))
      const seen: unknown[] = [req.session instanceof Session]
      req.session.a = 1
      seen.push((await by('save')) ?? 'saved')
      req.session.a = 2
      seen.push((await by('reload')) ?? 'reloaded', req.session.a)
      const { id } = req.session
      const { session: before } = req
      seen.push(
        (await by('regenerate')) ?? 'regenerated',
        req.session.id !== id,
        req.session !== before,
        req.session.a ?? 'empty',
      )
      await req.session.save()
      await req.session.destroy()
      seen.push(typeof req.session)
      res.end(JSON.stringify(seen))
    })
    const answer = await app.client.get('/')
    expect(answer.json()).toEqual([true, 'saved', 'reloaded', 1, 'regenerated', true, true, 'empty', 'undefined'])
    expect(cookieIn(answer)).toBeUndefined()
  })

  test('reload of what is not there fails as in express-session', async () => {
    await using app = await dropIn({}, (req, res) => {
      req.session.reload((error: Error) => res.end(error.message))
    })
    expect((await app.client.get('/')).body).toBe('failed to load session')
  })

  test('destroy ends the session for requests that are under way, too', async () => {
    let go: () => void = () => {}
    const waiting = new Promise<void>((resolve) => {
      go = resolve
    })
    await using app = await dropIn({}, async (req, res) => {
      if (req.url === '/slow') {
        arrived()
        await waiting
        req.session.late = true
      } else if (req.url === '/out') await req.session.destroy()
      else req.session.user = 'ann'
      res.end()
    })
    let arrived: () => void = () => {}
    const arrival = new Promise<void>((resolve) => {
      arrived = resolve
    })
    await app.client.get('/')
    const cookie = app.client.cookieHeader
    const slow = app.client.get('/slow')
    await arrival
    await app.client.get('/out')
    go()
    expect((await slow).status).toBe(409)
    const after = await app.client.get('/', { cookie })
    expect(cookieIn(after)).toBeDefined()
    expect(await app.middleware.manager.count()).toBe(1)
  })

  test('req.session = null leaves what is stored, or ends it with unset: destroy', async () => {
    for (const unset of ['keep', 'destroy'] as const) {
      const store = new MemoryStore()
      await using app = await dropIn({ unset, store }, (req, res) => {
        if (req.url === '/null') {
          req.session.a = 2
          req.session = null
        } else req.session.a ??= 1
        res.end(String(req.session?.a))
      })
      await app.client.get('/')
      expect(cookieIn(await app.client.get('/null'))).toBeUndefined()
      expect(await store.length()).toBe(unset === 'keep' ? 1 : 0)
      expect((await app.client.get('/')).body).toBe('1')
    }
  })

  test('another object in its place is an error that says what to write', async () => {
    await using app = await dropIn({}, (req, res) => {
      req.session = { a: 1 }
      res.end()
    })
    expect((await app.client.get('/')).body).toContain('assign its fields')
  })

  test('parallel changes of different fields all survive', async () => {
    await using app = await dropIn({}, (req, res) => {
      req.session[req.url?.slice(1) ?? ''] = true
      res.end(JSON.stringify(Object.keys(req.session)))
    })
    await app.client.get('/first')
    await Promise.all(Array.from({ length: 20 }, (_, index) => app.client.get(`/f${index}`)))
    expect((await app.client.get('/last')).json<string[]>()).toHaveLength(23)
  })
})

describe('req.session.cookie', () => {
  test.each([
    ['maxAge', 5000, (cookie: Record<string, string>) => Date.parse(cookie['expires'] ?? '') - Date.now() < 6000],
    ['maxAge', false, (cookie: Record<string, string>) => cookie['expires'] === undefined],
    ['expires', new Date(0), (cookie: Record<string, string>) => cookie['expires'] === 'Thu, 01 Jan 1970 00:00:00 GMT'],
    ['expires', null, (cookie: Record<string, string>) => cookie['expires'] === undefined],
    ['originalMaxAge', undefined, (cookie: Record<string, string>) => cookie['expires'] !== undefined],
    ['domain', 'a.test', (cookie: Record<string, string>) => cookie['domain'] === 'a.test'],
    ['path', '/a', (cookie: Record<string, string>) => cookie['path'] === '/a'],
    ['httpOnly', false, (cookie: Record<string, string>) => cookie['httponly'] === undefined],
    ['secure', true, (cookie: Record<string, string>) => cookie['secure'] === ''],
    ['sameSite', 'none', (cookie: Record<string, string>) => cookie['samesite'] === 'None'],
    ['partitioned', true, (cookie: Record<string, string>) => cookie['partitioned'] === ''],
  ])('.%s = %s goes into the cookie of this response', async (name, value, holds) => {
    await using app = await dropIn({ cookie: { maxAge: 60_000 }, proxy: true }, (req, res) => {
      if (value !== undefined) req.session.cookie[name] = value
      req.session.a = 1
      res.end()
    })
    const sent = cookieIn(await app.client.get('/', { 'x-forwarded-proto': 'https' }))
    expect(sent && holds(sent)).toBe(true)
  })

  test('keeps what was chosen, and originalMaxAge, for the requests that follow', async () => {
    await using app = await dropIn({ cookie: { maxAge: 60_000 } }, (req, res) => {
      if (req.url === '/choose') Object.assign(req.session.cookie, { maxAge: 120_000, sameSite: 'strict' })
      req.session.n = (req.session.n ?? 0) + 1
      res.end(String(req.session.cookie.originalMaxAge))
    })
    await app.client.get('/choose')
    const later = await app.client.get('/')
    expect(later.body).toBe('120000')
    expect(cookieIn(later)).toMatchObject({ samesite: 'Strict' })
  })

  test('touch() moves the end with this response', async () => {
    const store = new MemoryStore()
    await using app = await dropIn({ store, cookie: { maxAge: 60_000 } }, (req, res) => {
      req.session.a = 1
      res.end(String(req.session.touch() === req.session))
    })
    await app.client.get('/')
    const [before] = Object.values((await store.all()) ?? {})
    await new Promise((resolve) => setTimeout(resolve, 2))
    expect((await app.client.get('/')).body).toBe('true')
    const [after] = Object.values((await store.all()) ?? {})
    expect(after?.cookie.expires).not.toBe(before?.cookie.expires)
  })
})

describe('req.sessionStore', () => {
  test('has the sessions by ID, with callbacks and promises', async () => {
    await using app = await dropIn({ store: new MemorySessionStore() }, async (req, res) => {
      const { sessionStore: store } = req
      if (req.url === '/begin') {
        req.session.a = 1
        await req.session.save()
      }
      const seen: unknown[] = [store instanceof Store]
      const got = await store.get(req.sessionID)
      seen.push(
        got.a,
        got.cookie.path,
        await new Promise((resolve) => store.get('none', (_e: unknown, s: unknown) => resolve(s))),
      )
      await store.set(req.sessionID, { ...got, b: 2, a: undefined })
      await store.set('made', { cookie: {}, c: 3 })
      await store.touch(req.sessionID, got)
      seen.push(Object.keys(await store.all()).length, (await store.ids()).length, await store.length())
      const loaded: { id: string; b: number } = await new Promise((resolve) =>
        store.load(req.sessionID, (_e: unknown, s: never) => resolve(s)),
      )
      seen.push(loaded.b, loaded.id === req.sessionID)
      await store.destroy('made')
      seen.push(await store.length())
      await store.clear()
      seen.push(await store.length())
      res.end(JSON.stringify(seen))
    })
    expect((await app.client.get('/begin')).json()).toEqual([true, 1, '/', null, 2, 2, 2, 2, true, 1, 0])
  })

  test('ending the request’s own session by its ID is a logout', async () => {
    await using app = await dropIn({ saveUninitialized: true }, async (req, res) => {
      if (req.url === '/out') await req.sessionStore.destroy(req.sessionID)
      else req.session.a = 1
      res.end(String(req.session.a))
    })
    await app.client.get('/')
    const out = await app.client.get('/out')
    expect([out.body, out.setCookies]).toEqual(['undefined', []])
    expect(await app.middleware.manager.count()).toBe(0)
  })

  test('regenerate(req) and generate(req) put a new session in its place', async () => {
    await using app = await dropIn({}, async (req, res) => {
      const before = req.sessionID
      req.session.a = 1
      await req.session.save()
      await new Promise((resolve) => req.sessionStore.regenerate(req, resolve))
      req.session.b = 1
      res.end(JSON.stringify([req.sessionID !== before, req.session.a ?? null]))
    })
    const answer = await app.client.get('/')
    expect(answer.json()).toEqual([true, null])
    expect(cookieIn(answer)).toBeDefined()
    expect(await app.middleware.manager.count()).toBe(1)
  })
})

describe('what caches are told of a page that looked at the session', () => {
  const page = (req: DropInRequest, res: ServerResponse): void => {
    if (req.url === '/set') req.session.a = 1
    if (req.url === '/passing') {
      req.session.b = 1
      delete req.session.b
    }
    res.end(JSON.stringify(req.session.a))
  }
  const told = ({ headers }: Answer): unknown[] => [headers['cache-control'], headers.vary]

  test('nothing, for a visitor without a session, so that pages for guests stay as cacheable as they were', async () => {
    await using app = await dropIn({}, page)
    expect(told(await app.client.get('/'))).toEqual([undefined, 'Cookie'])
    expect(told(await app.client.get('/passing'))).toEqual([undefined, 'Cookie'])
    expect(told(await app.client.get('/', { cookie: 'connect.sid=s%3Aforged.signature' }))).toEqual([
      undefined,
      'Cookie',
    ])
  })

  test('that it is private, with a session, one that is over, or the initial fields of one', async () => {
    await using app = await dropIn({}, page)
    expect(told(await app.client.get('/set'))).toEqual(['no-store', 'Cookie'])
    const { cookieHeader } = app.client
    expect(told(await app.client.get('/'))).toEqual(['private', 'Cookie'])
    for await (const { id } of app.middleware.manager.list()) await app.middleware.manager.revoke(id)
    expect(told(await new Client(app.url).get('/', { cookie: cookieHeader }))).toEqual(['private', 'Cookie'])
    await using begun = await dropIn({ initialFields: () => ({ a: 1 }) }, page)
    expect(told(await begun.client.get('/'))).toEqual(['private', 'Cookie'])
  })
})

describe('faults that are not copied', () => {
  test('a save that fails is no success: the error as the store threw it, no body, no cookie', async () => {
    const store = new MemoryStore()
    store.set = (_sid, _session, callback) => {
      callback?.(new Error('disk full'))
      return undefined
    }
    await using app = await dropIn({ store }, (req, res) => {
      req.session.a = 1
      res.end('stored')
    })
    expect(await app.client.get('/')).toMatchObject({ status: 500, body: 'disk full', setCookies: [] })
  })

  test('a redirect waits for the save', async () => {
    const store = new FaultyStore(new MemorySessionStore())
    store.fail({ kind: 'delay', delayMs: 30, operations: ['create'] })
    await using app = await dropIn({ store }, async (req, res) => {
      if (req.url === '/') {
        req.session.a = 1
        res.writeHead(302, { location: '/next' })
        res.end()
      } else res.end(String(req.session.a))
    })
    await app.client.get('/')
    expect((await app.client.get('/next')).body).toBe('1')
  })

  test('a record without a cookie is a session', async () => {
    const store = new MemoryStore()
    await using app = await dropIn({ store }, (req, res) => {
      req.session.a ??= 'mine'
      res.end(req.session.a)
    })
    await app.client.get('/')
    const [sid = ''] = (await store.ids()) ?? []
    await store.set(sid, { a: 'theirs' } as never)
    expect((await app.client.get('/')).body).toBe('theirs')
  })
})

describe('with what applications have beside it', () => {
  test('sojournOf(req) has the members of ours, and the ID follows', async () => {
    await using app = await dropIn({}, async (req, res) => {
      const before = req.sessionID
      if (req.url === '/begin') req.session.a = 1
      if (req.url === '/login') await sojournOf(req).login('ann')
      res.end(
        JSON.stringify([
          sojournOf(req).metadata.userId ?? null,
          req.sessionID === before,
          req.sessionID === req.session.id,
        ]),
      )
    })
    await app.client.get('/begin')
    const first = await app.client.get('/login')
    expect(first.json()).toEqual(['ann', false, true])
    expect((await app.client.get('/')).json()).toEqual(['ann', true, true])
    expect(await app.middleware.manager.sessionsOf('ann')).toHaveLength(1)
    await app.middleware.manager.revokeUser('ann')
    expect((await app.client.get('/')).json()).toEqual([null, true, true])
    expect(() => sojournOf({})).toThrow('has seen')
  })

  test('a store that says it is disconnected: no session until it is back, as in express-session', async () => {
    const store = new MemoryStore()
    await using app = await dropIn({ store }, (req, res) => res.end(typeof req.session))
    store.emit('disconnect')
    expect((await app.client.get('/')).body).toBe('undefined')
    store.emit('connect')
    expect((await app.client.get('/')).body).toBe('object')
  })

  test('cookie-parser reads the cookie, and may take it out of the header', async () => {
    const app = express()
    app.use(cookieParser(SECRET))
    app.use((req, _res, next) => {
      delete req.headers.cookie
      next()
    })
    app.use(session({ secret: SECRET, resave: false, saveUninitialized: false }))
    app.get('/', (req, res) => {
      const { session, sessionID } = req as unknown as { session: Record<string, number>; sessionID: string }
      session['n'] = (session['n'] ?? 0) + 1
      res.json([session['n'], req.signedCookies['connect.sid'] === sessionID])
    })
    const server = await listen(app)
    const client = new Client(server)
    expect((await client.get('/')).json()).toEqual([1, false])
    expect((await client.get('/')).json()).toEqual([2, true])
    await server.close()
  })

  test('Passport, connect-flash and csrf-sync work as they are', async () => {
    const passport = new passportModule.Passport()
    passport.use(new LocalStrategy((name, password, done) => done(null, password === 'right' ? { id: name } : false)))
    passport.serializeUser((user, done) => done(null, (user as { id: string }).id))
    passport.deserializeUser((id, done) => done(null, { id }))
    const { csrfSynchronisedProtection, generateToken } = csrfSync()
    const app = express()
    app.set('env', 'test')
    app.use(express.json(), session({ secret: SECRET, resave: false, saveUninitialized: false }) as RequestHandler)
    app.use(flash(), passport.session())
    app.get('/token', (req, res) => void res.json(generateToken(req)))
    app.post(
      '/login',
      passport.authenticate('local', { failureFlash: 'no', failureRedirect: '/failed' }),
      (req, res) => {
        res.json(req.user)
      },
    )
    app.get('/failed', (req, res) => void res.json(req.flash('error')))
    app.post('/guarded', csrfSynchronisedProtection, (req, res) => void res.json(req.user))
    app.post('/logout', (req, res, next) => req.logout((error) => (error ? next(error) : res.json('out'))))
    app.get('/me', (req, res) => void res.json(req.user ?? null))
    const server = await listen(app)
    const client = new Client(server)
    await client.post('/login', { username: 'ann', password: 'wrong' })
    expect((await client.get('/failed')).json()).toEqual(['no'])
    expect((await client.get('/failed')).json()).toEqual([])
    const before = client.cookieHeader
    expect((await client.post('/login', { username: 'ann', password: 'right' })).json()).toEqual({ id: 'ann' })
    expect(client.cookieHeader).not.toBe(before)
    const token = (await client.get('/token')).json() as unknown as string
    expect((await client.post('/guarded', {}, { 'x-csrf-token': token })).json()).toEqual({ id: 'ann' })
    expect((await client.post('/guarded', {})).status).toBe(403)
    expect((await client.post('/logout')).json()).toBe('out')
    expect((await client.get('/me')).json()).toBeNull()
    await server.close()
  })
})
