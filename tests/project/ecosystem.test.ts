// Sessions beside the middleware that applications have: whichever comes first, answers are whole and commits in place.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { afterAll, afterEach, describe, expect, test } from '@jest/globals'
import compression from 'compression'
import flash from 'connect-flash'
import express, { type RequestHandler } from 'express'
import { rateLimit } from 'express-rate-limit'
import helmet from 'helmet'
import multer from 'multer'
import passportModule from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { pinoHttp } from 'pino-http'
import { Server as SocketServer } from 'socket.io'
import { type Socket as ClientSocket, io as connectSocket } from 'socket.io-client'
import { MemorySessionStore, type Session, type SessionEnd, type SessionMiddleware, session } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer, until } from '../support/http.js'
import { callsOf, endOf, fieldsOf } from '../support/records.js'

/** Its own types name express-session, which is not here. */
interface CsrfSync {
  readonly csrfSynchronisedProtection: RequestHandler
  readonly generateToken: (req: express.Request) => string
}
interface CsrfCsrf {
  readonly doubleCsrfProtection: RequestHandler
  generateCsrfToken(req: express.Request, res: express.Response): string
}
const { doubleCsrf } = createRequire(import.meta.url)('csrf-csrf') as { doubleCsrf(options: object): CsrfCsrf }
const cookieParser = createRequire(import.meta.url)('cookie-parser') as () => RequestHandler
const { csrfSync } = createRequire(import.meta.url)('csrf-sync') as { csrfSync(options?: object): CsrfSync }

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

const directory = mkdtempSync(join(tmpdir(), 'sojourn-ecosystem-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
/** Half of it compresses, so that a compressed stream comes in many parts. */
const LARGE = randomBytes(150_000).toString('hex')
writeFileSync(join(directory, 'file.txt'), LARGE)

interface Rig {
  readonly server: TestServer
  readonly client: Client
  readonly middleware: SessionMiddleware
  readonly store: FaultyStore
  /** The fields that the store keeps for the session of this cookie; `null` when there is none. */
  stored(cookie: string | undefined): Promise<Record<string, unknown> | null>
  /** How the session of this cookie has ended. */
  ended(cookie: string): Promise<SessionEnd | null>
}

async function serve(build: (app: express.Express, middleware: SessionMiddleware) => void): Promise<Rig> {
  const memory = new MemorySessionStore({ cleanupInterval: 0 })
  const store = new FaultyStore(memory)
  // Calls are held back for as long as a slow machine needs.
  const middleware = session({ secret: SECRET, store, storeTimeout: '10s' })
  middleware.events.on('storeError', () => {})
  const app = express()
  app.set('env', 'test')
  build(app, middleware)
  const server = await listen(app)
  closers.push(server.close)
  return {
    server,
    client: new Client(server),
    middleware,
    store,
    stored: (cookie) => fieldsOf(memory, cookie && idOf(cookie)),
    ended: (cookie) => endOf(memory, idOf(cookie)),
  }
}

function idOf(cookie: string): string {
  return cookie.slice(cookie.indexOf('=') + 1, cookie.indexOf('.'))
}

function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

describe('common middleware', () => {
  const NEIGHBOURS: Record<string, () => RequestHandler> = {
    compression: () => compression({ threshold: 0 }),
    helmet: () => helmet(),
    'pino-http': () => pinoHttp({}, new Writable({ write: (_chunk, _encoding, done) => done() })) as RequestHandler,
    'express.static': () => express.static(directory),
    multer: () => multer().any(),
    'express-rate-limit': () => rateLimit({ windowMs: 60_000, limit: 1000 }),
    'all of them': () => {
      const all = Object.entries(NEIGHBOURS).filter(([name]) => name !== 'all of them')
      const router = express.Router()
      for (const [, make] of all) router.use(make())
      return router
    },
  }

  const ROUTES: Record<string, { answer: RequestHandler; status?: number; body: string }> = {
    json: { answer: (_req, res) => void res.json({ a: 1 }), body: '{"a":1}' },
    'a large body': { answer: (_req, res) => void res.type('text').send(LARGE), body: LARGE },
    'a stream': {
      answer: (_req, res) => {
        res.type('text')
        Readable.from(LARGE.match(/.{1,20000}/g) as string[]).pipe(res)
      },
      body: LARGE,
    },
    'a stream of small parts': {
      answer: (_req, res) => {
        res.type('text')
        Readable.from(LARGE.match(/.{1,3000}/g) as string[]).pipe(res)
      },
      body: LARGE,
    },
    'writes with time between': {
      answer: async (_req, res) => {
        res.type('text')
        for (const part of ['one ', 'two ', 'three']) {
          res.write(part)
          await tick()
        }
        res.end()
      },
      body: 'one two three',
    },
    'a file': { answer: (_req, res) => res.sendFile(join(directory, 'file.txt')), body: LARGE },
    'a redirect': {
      answer: (_req, res) => res.redirect('/elsewhere'),
      status: 302,
      body: 'Found. Redirecting to /elsewhere',
    },
  }

  async function serveBeside(position: string, neighbour: () => RequestHandler): Promise<Rig> {
    return serve((app, middleware) => {
      if (position === 'before') app.use(neighbour())
      app.use(middleware)
      if (position === 'after') app.use(neighbour())
      app.all('/answer/:route', (req, res, next) => {
        req.session.set('at', req.params.route)
        return ROUTES[req.params.route]?.answer(req, res, next)
      })
      app.post('/upload', (req, res) => {
        req.session.set('uploaded', (req.files as Express.Multer.File[] | undefined)?.[0]?.originalname ?? 'nothing')
        res.json(req.session)
      })
    })
  }

  const PLACES = ['before', 'after'].flatMap((position) =>
    Object.entries(NEIGHBOURS).map(([name, make]) => [name, position, make] as const),
  )
  describe.each(PLACES)('%s %s session()', (_name, position, neighbour) => {
    test.each(Object.entries(ROUTES))('%s comes whole, after the commit, with the cookie', async (route, expected) => {
      const { server, store, stored } = await serveBeside(position, neighbour)
      store.fail({ kind: 'delay', operations: ['create'] })
      let isAnswered = false
      const answering = fetch(`${server.url}/answer/${encodeURIComponent(route)}`, { redirect: 'manual' }).then(
        (res) => {
          isAnswered = true
          return res
        },
      )
      await until(() => store.heldCalls === 1)
      await fetch(`${server.url}/nowhere`).then((res) => res.text())
      expect(isAnswered).toBe(false)
      store.release()
      const answer = await answering
      const [cookie] = answer.headers.getSetCookie().map((line) => line.split(';')[0])
      expect(answer.status).toBe(expected.status ?? 200)
      expect((await answer.text()) === expected.body).toBe(true)
      expect(await stored(cookie)).toEqual({ at: route })
    })

    test.each(Object.entries(ROUTES))('%s whose commit fails is answered with 503', async (route, { body }) => {
      const { server, store } = await serveBeside(position, neighbour)
      store.fail({ kind: 'error', operations: ['create'] })
      const answer = await fetch(`${server.url}/answer/${encodeURIComponent(route)}`, { redirect: 'manual' })
      const text = await answer.text()
      expect(answer.status).toBe(503)
      expect(answer.headers.get('retry-after')).toBe('1')
      expect(answer.headers.getSetCookie()).toEqual([])
      expect(answer.headers.get('location')).toBeNull()
      expect(text).toMatch(/SessionError|Service Unavailable/)
      expect(text).not.toContain(body.slice(0, 40))
      // What is left of the answer given up must not harm the process.
      for (let count = 0; count < 20; count++) await tick()
      expect((await fetch(`${server.url}/nowhere`)).status).toBe(404)
    })
  })

  test.each(['before', 'after'])('compression %s session() does compress', async (position) => {
    const { client } = await serveBeside(position, NEIGHBOURS['compression'] as () => RequestHandler)
    const answer = await client.get('/answer/a%20large%20body', { 'accept-encoding': 'gzip' })
    expect(answer.headers).toMatchObject({ 'content-encoding': 'gzip' })
    expect(answer.headers.vary?.split(', ').sort()).toEqual(['Accept-Encoding', 'Cookie'])
    expect(answer.setCookies).toHaveLength(1)
  })

  test('compression inside a commit that fails: the error is answered whole, however late', async () => {
    const { server, store } = await serve((app, middleware) => {
      app.use(middleware, compression({ threshold: 0 }))
      app.get('/', (req, res) => {
        req.session.set('n', 1)
        res.type('text').send(LARGE)
      })
      app.use((_error: unknown, _req: express.Request, res: express.Response, _next: express.NextFunction) => {
        setTimeout(() => res.send('sorry'), 30)
      })
    })
    store.fail({ kind: 'error', operations: ['create'] })
    const answer = await fetch(server.url, { headers: { 'accept-encoding': 'gzip' } })
    expect(answer.status).toBe(503)
    expect(answer.headers.getSetCookie()).toEqual([])
    expect(await answer.text()).toBe('sorry')
  })

  test.each(['before', 'after'])('helmet %s session(): its headers stand beside the cookie', async (position) => {
    const { client, store } = await serveBeside(position, NEIGHBOURS['helmet'] as () => RequestHandler)
    const answer = await client.get('/answer/json')
    expect(answer.headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'x-frame-options': 'SAMEORIGIN' })
    expect(answer.setCookies).toHaveLength(1)
    store.fail({ kind: 'error' })
    const failed = await client.get('/answer/json')
    if (position === 'before') expect(failed.headers).toMatchObject({ 'x-frame-options': 'SAMEORIGIN' })
  })

  test.each(['before', 'after'])('multer %s session(): an upload is seen and its change stored', async (position) => {
    const { server, stored } = await serveBeside(position, NEIGHBOURS['multer'] as () => RequestHandler)
    const body = new FormData()
    body.set('file', new Blob([LARGE]), 'large.txt')
    const answer = await fetch(`${server.url}/upload`, { method: 'POST', body })
    expect(await answer.json()).toEqual({ uploaded: 'large.txt' })
    expect(await stored(answer.headers.getSetCookie()[0])).toEqual({ uploaded: 'large.txt' })
  })

  test.each(['before', 'after'])(
    'express.static %s session(): files come whole and cost no store call',
    async (position) => {
      const { client, store } = await serveBeside(position, NEIGHBOURS['express.static'] as () => RequestHandler)
      const answer = await client.get('/file.txt')
      expect(answer).toMatchObject({ status: 200, setCookies: [], isTruncated: false })
      expect(answer.body === LARGE).toBe(true)
      expect(answer.headers).not.toHaveProperty('vary')
      expect(await client.get('/file.txt', { 'if-none-match': String(answer.headers.etag) })).toMatchObject({
        status: 304,
      })
      expect(store.totalCalls).toBe(0)
    },
  )

  test('a static file behind a handler that changed the session comes with the cookie', async () => {
    const { client, store } = await serve((app, middleware) => {
      app.use(middleware, (req, _res, next) => {
        req.session.set('seen', req.path)
        next()
      })
      app.use(express.static(directory))
    })
    const answer = await client.get('/file.txt')
    expect(answer.body === LARGE).toBe(true)
    expect(answer.setCookies).toHaveLength(1)
    store.fail({ kind: 'error' })
    expect(await client.get('/other')).toMatchObject({ status: 503 })
  })

  test.each(['before', 'after'])('express-rate-limit %s session(): who is refused costs no write', async (position) => {
    const { client, store } = await serveBeside(position, () => rateLimit({ windowMs: 60_000, limit: 1 }))
    expect(await client.get('/answer/json')).toMatchObject({ status: 200, setCookies: [expect.any(String)] })
    const calls = callsOf(store)
    expect(await client.get('/answer/json')).toMatchObject({ status: 429, setCookies: [] })
    expect(callsOf(store)).toEqual({ ...calls, get: calls.get + (position === 'after' ? 1 : 0) })
  })

  test.each(['before', 'after'])(
    'pino-http %s session() logs each response once, with its status',
    async (position) => {
      const lines: { res?: { statusCode: number } }[] = []
      const sink = new Writable({
        write(chunk, _encoding, done) {
          lines.push(JSON.parse(String(chunk)))
          done()
        },
      })
      const { client, store } = await serveBeside(position, () => pinoHttp({}, sink) as RequestHandler)
      await client.get('/answer/json')
      store.fail({ kind: 'error', operations: ['update'] })
      await client.get('/answer/a%20redirect')
      await until(() => lines.length >= 2)
      expect(lines.map((line) => line.res?.statusCode)).toEqual([200, 503])
    },
  )
})

test('connect-flash: a message is there once, behind a redirect', async () => {
  const { client } = await serve((app, middleware) => {
    app.use(middleware, flash())
    app.post('/', (req, res) => {
      req.flash('info', 'saved')
      req.flash('info', 'twice')
      res.redirect('/')
    })
    app.get('/', (req, res) => void res.json(req.flash('info')))
  })
  expect((await client.post('/')).status).toBe(302)
  expect((await client.get('/')).json()).toEqual(['saved', 'twice'])
  expect((await client.get('/')).json()).toEqual([])
})

test('csrf-sync: a token belongs to its session and dies with it', async () => {
  const { csrfSynchronisedProtection, generateToken } = csrfSync()
  const { client, server } = await serve((app, middleware) => {
    app.use(middleware)
    app.get('/token', (req, res) => void res.send(generateToken(req)))
    app.post('/login', csrfSynchronisedProtection, async (req, res) => {
      await req.session.regenerate()
      req.session.set('user', 'ann')
      res.send('done')
    })
    app.post('/act', csrfSynchronisedProtection, (_req, res) => void res.send('done'))
  })
  const token = (await client.get('/token')).body
  expect((await client.post('/act')).status).toBe(403)
  expect((await client.post('/act', {}, { 'x-csrf-token': token })).status).toBe(200)
  const stranger = new Client(server)
  await stranger.get('/token')
  expect((await stranger.post('/act', {}, { 'x-csrf-token': token })).status).toBe(403)
  expect((await client.post('/login', {}, { 'x-csrf-token': token })).status).toBe(200)
  expect((await client.post('/act', {}, { 'x-csrf-token': token })).status).toBe(403)
  const next = (await client.get('/token')).body
  expect((await client.post('/act', {}, { 'x-csrf-token': next })).status).toBe(200)
})

test('csrf-csrf: a token that is bound to the session ID dies with it', async () => {
  const { doubleCsrfProtection, generateCsrfToken } = doubleCsrf({
    getSecret: () => SECRET,
    getSessionIdentifier: (req: express.Request) => req.session.id,
    cookieName: 'csrf',
    cookieOptions: { secure: false },
  })
  const { client } = await serve((app, middleware) => {
    app.use(middleware, cookieParser())
    app.get('/token', (req, res) => {
      req.session.set('seen', true)
      res.send(generateCsrfToken(req, res))
    })
    app.post('/login', doubleCsrfProtection, async (req, res) => {
      await req.session.login('ann')
      res.send('done')
    })
    app.post('/act', doubleCsrfProtection, (_req, res) => void res.send('done'))
  })
  const token = (await client.get('/token')).body
  expect((await client.post('/act')).status).toBe(403)
  expect((await client.post('/act', {}, { 'x-csrf-token': token })).status).toBe(200)
  expect((await client.post('/login', {}, { 'x-csrf-token': token })).status).toBe(200)
  expect((await client.post('/act', {}, { 'x-csrf-token': token })).status).toBe(403)
})

describe('Passport with passport-local', () => {
  async function servePassport(keepSessionInfo: boolean): Promise<Rig> {
    const passport = new passportModule.Passport()
    passport.use(new LocalStrategy((name, password, done) => done(null, password === 'right' ? { id: name } : false)))
    passport.serializeUser((user, done) => done(null, (user as { id: string }).id))
    passport.deserializeUser((id, done) => done(null, { id }))
    return serve((app, middleware) => {
      app.use(express.json(), middleware, passport.session())
      app.post('/basket', (req, res) => {
        req.session.set('basket', ['book'])
        res.send('done')
      })
      app.post('/login', passport.authenticate('local', { keepSessionInfo }), (_req, res) => res.redirect('/me'))
      app.post('/logout', (req, res, next) => {
        req.logout({ keepSessionInfo }, (error) => (error ? next(error) : res.redirect('/me')))
      })
      app.get('/me', (req, res) => {
        res.json({ user: req.user ?? null, basket: req.session.get('basket') ?? null, id: req.session.id })
      })
    })
  }
  const right = { username: 'ann', password: 'right' }

  describe.each([false, true])('with keepSessionInfo: %s', (keepSessionInfo) => {
    const basket = keepSessionInfo ? ['book'] : null

    test('a login gives a new session; the one that an attacker may know is dead', async () => {
      const { client, ended } = await servePassport(keepSessionInfo)
      await client.post('/basket')
      const attacker = client.clone()
      const before = client.cookieHeader
      const login = await client.post('/login', right)
      expect(login).toMatchObject({ status: 302, setCookies: [expect.any(String)] })
      expect(client.cookieHeader).not.toBe(before)
      expect(client.cookieHeader.split('.')[0]).not.toBe(before.split('.')[0])
      expect((await client.get('/me')).json()).toMatchObject({ user: { id: 'ann' }, basket })
      expect(await ended(before)).toMatchObject({ reason: 'regenerated' })
      expect((await attacker.get('/me')).json()).toMatchObject({ user: null, basket: null })
    })

    test('a logout ends the session; its cookie is dead', async () => {
      const { client, ended } = await servePassport(keepSessionInfo)
      await client.post('/login', right)
      await client.post('/basket')
      const thief = client.clone()
      const before = client.cookieHeader
      expect((await client.post('/logout')).status).toBe(302)
      expect((await client.get('/me')).json()).toMatchObject({ user: null, basket })
      expect(await ended(before)).toMatchObject({ reason: 'regenerated' })
      expect((await thief.get('/me')).json()).toMatchObject({ user: null, basket: null })
    })

    test('a second login as somebody else ends the first', async () => {
      const { client } = await servePassport(keepSessionInfo)
      await client.post('/login', right)
      const first = client.clone()
      await client.post('/login', { username: 'bob', password: 'right' })
      expect((await client.get('/me')).json()).toMatchObject({ user: { id: 'bob' } })
      expect((await first.get('/me')).json()).toMatchObject({ user: null })
    })

    test('a login that the store cannot keep is no login', async () => {
      const { client, store } = await servePassport(keepSessionInfo)
      await client.post('/basket')
      store.fail({ kind: 'error', operations: ['regenerate', 'create', 'update'] })
      expect(await client.post('/login', right)).toMatchObject({ status: 503, setCookies: [] })
      store.repair()
      expect((await client.get('/me')).json()).toMatchObject({ user: null, basket: ['book'] })
    })
  })

  test('a wrong password logs nobody in and leaves the session as it was', async () => {
    const { client } = await servePassport(false)
    await client.post('/basket')
    const before = client.cookieHeader
    expect(await client.post('/login', { username: 'ann', password: 'wrong' })).toMatchObject({
      status: 401,
      setCookies: [],
    })
    expect(client.cookieHeader).toBe(before)
    expect((await client.get('/me')).json()).toMatchObject({ user: null, basket: ['book'] })
  })
})

describe.each(['websocket', 'polling'] as const)('Socket.IO over %s', (transport) => {
  interface SocketRig {
    readonly client: Client
    readonly store: FaultyStore
    connect(): ClientSocket
  }

  async function serveSockets(): Promise<SocketRig> {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const middleware = session({ secret: SECRET, store })
    middleware.events.on('storeError', () => {})
    const app = express()
    app.use(middleware)
    app.post('/set/:n', (req, res) => {
      req.session.set('n', Number(req.params.n))
      res.send('done')
    })
    app.post('/logout', async (req, res) => {
      await req.session.logout()
      res.send('done')
    })
    app.get('/', (req, res) => void res.json(req.session))
    const server = createServer(app)
    const io = new SocketServer(server)
    io.engine.use(middleware)
    io.on('connection', (socket) => {
      const { session: shared } = socket.request as IncomingMessage & { session: Session }
      socket.on('read', (reply) => reply(shared.get('n') ?? null))
      socket.on('bump', (reply) => {
        shared.reload((reloadError) => {
          if (reloadError) {
            reply({ code: (reloadError as { code: string }).code })
            return
          }
          shared.set('n', (shared.get('n') as number) + 1)
          shared.save((error) => reply(error ? { code: (error as { code: string }).code } : shared.get('n')))
        })
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const sockets: ClientSocket[] = []
    const client = new Client(url)
    closers.push(async () => {
      // By the server: a polling client that closes by itself, or under which the server goes, still sends requests after
      // the test is over.
      const gone = sockets
        .filter((socket) => socket.connected)
        .map((socket) => new Promise((resolve) => socket.once('disconnect', resolve)))
      io.disconnectSockets(true)
      await Promise.all(gone)
      for (const socket of sockets) socket.disconnect()
      await new Promise((resolve) => setTimeout(resolve, 20))
      await io.close()
    })
    return {
      client,
      store,
      connect() {
        const socket = connectSocket(url, {
          transports: [transport],
          reconnection: false,
          extraHeaders: { cookie: client.cookieHeader },
        })
        sockets.push(socket)
        return socket
      },
    }
  }

  function connected(socket: ClientSocket): Promise<ClientSocket> {
    return new Promise((resolve, reject) => {
      socket.once('connect', () => resolve(socket))
      socket.once('connect_error', reject)
    })
  }

  test('a socket and the pages of one browser share a session', async () => {
    const { client, connect } = await serveSockets()
    await client.post('/set/5')
    const socket = await connected(connect())
    expect(await socket.emitWithAck('read')).toBe(5)
    await client.post('/set/10')
    expect(await socket.emitWithAck('bump')).toBe(11)
    expect((await client.get('/')).json()).toEqual({ n: 11 })
  })

  test('a logout on a page ends the session of the socket', async () => {
    const { client, connect } = await serveSockets()
    await client.post('/set/5')
    const socket = await connected(connect())
    await client.post('/logout')
    expect(await socket.emitWithAck('bump')).toEqual({ code: 'SESSION_ENDED' })
  })

  test('without a cookie the socket has an empty session of its own', async () => {
    const { connect, store } = await serveSockets()
    const socket = await connected(connect())
    expect(await socket.emitWithAck('read')).toBeNull()
    expect(store.totalCalls).toBe(0)
  })

  test('a store that fails refuses the connection', async () => {
    const { client, store, connect } = await serveSockets()
    await client.post('/set/5')
    store.fail({ kind: 'error' })
    await expect(connected(connect())).rejects.toThrow()
    store.repair()
    expect(await (await connected(connect())).emitWithAck('read')).toBe(5)
  })
})
