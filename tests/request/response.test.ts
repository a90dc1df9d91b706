// How a response is held back until its session is stored: on every kind of connection, for every way to answer.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, afterEach, describe, expect, test } from '@jest/globals'
import express from 'express'
import {
  type HttpRequest,
  MemorySessionStore,
  type Session,
  type SessionEnd,
  type SessionMiddleware,
  type SessionOptions,
  session,
} from 'sojourn'
import { FaultyStore, type StoreFault } from 'sojourn/testing'
import { SECRET, until } from '../support/http.js'
import { countCalls, endOf, fieldsOf } from '../support/records.js'
import { type Handler, HTTP, RawClient, WIRES, type Wire, type WireServer } from '../support/wires.js'

type Request = HttpRequest & { session: Session }
/** The compatibility API of HTTP/2 has the members that are used here. */
type Response = ServerResponse
type Route = (req: Request, res: Response) => unknown

/** A server with the middleware on a store that fails as told, and a record of what happened. */
interface Rig extends WireServer {
  readonly store: FaultyStore
  /** What `next` was called with, errors only. */
  readonly errors: unknown[]
  readonly lateChanges: string[]
  /** The store operations that failed. */
  readonly storeErrors: string[]
  /** The cookie of a new session with the field `begun`. */
  begin(): Promise<string>
  /** The fields that the store keeps for the session of this cookie; `null` when there is none. */
  stored(cookie: string | undefined): Promise<Record<string, unknown> | null>
  /** How the session of this cookie has ended. */
  ended(cookie: string): Promise<SessionEnd | null>
  /** How many sessions were stored. */
  created(): number
  /** Resolves when whatever was sent before has arrived. */
  roundTrip(): Promise<void>
}

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

async function serve(wire: Wire, route: Route, options: Partial<SessionOptions> = {}): Promise<Rig> {
  return rig(wire, options, (middleware, errors) => (req, response) => {
    const res = response as Response
    if (req.url === '/round-trip') {
      res.end()
      return
    }
    res.setHeader('x-frame-options', 'DENY')
    middleware(req, res, (error) => {
      if (error !== undefined) {
        errors.push(error)
        answerError(error, res)
        return
      }
      const request = req as Request
      if (req.url === '/begin') {
        request.session.set('begun', true)
        res.end()
        return
      }
      new Promise((resolve) => resolve(route(request, res))).catch((thrown) => answerError(thrown, res))
    })
  })
}

async function serveExpress(build: (app: express.Express) => void): Promise<Rig> {
  return rig(HTTP, {}, (middleware) => {
    const app = express()
    app.set('env', 'test')
    app.get('/round-trip', (_req, res) => void res.end())
    app.use(middleware)
    app.get('/begin', (req, res) => {
      req.session.set('begun', true)
      res.send('begun')
    })
    build(app)
    return app as unknown as Handler
  })
}

async function rig(
  wire: Wire,
  options: Partial<SessionOptions>,
  build: (middleware: SessionMiddleware, errors: unknown[]) => Handler,
): Promise<Rig> {
  const memory = new MemorySessionStore({ cleanupInterval: 0 })
  const store = new FaultyStore(memory)
  // Calls are held back for as long as a slow machine needs; tests of the deadline have one of their own.
  const middleware = session({ secret: SECRET, store, storeTimeout: '10s', ...options })
  const errors: unknown[] = []
  const lateChanges: string[] = []
  const storeErrors: string[] = []
  middleware.events.on('lateChange', ({ reason }) => lateChanges.push(reason))
  middleware.events.on('storeError', ({ operation }) => storeErrors.push(operation))
  const server = await wire.listen(build(middleware, errors))
  closers.push(server.close)
  return {
    ...server,
    store,
    errors,
    lateChanges,
    storeErrors,
    async begin() {
      const { setCookies } = await server.request({ path: '/begin' })
      return pairOf(setCookies) as string
    },
    stored: (cookie) => fieldsOf(memory, cookie && idOf(cookie)),
    ended: (cookie) => endOf(memory, idOf(cookie)),
    created: () => store.calls.create,
    async roundTrip() {
      await server.request({ path: '/round-trip' })
    },
  }
}

/** As Express's own: the error's status, and nothing when an answer is under way. */
function answerError(error: unknown, res: Response): void {
  if (res.headersSent) return
  const { status = 500, code = 'UNKNOWN' } = error as { status?: number; code?: string }
  res.statusCode = status
  res.end(`error ${code}`)
}

/** `name=value` of the first cookie set. */
function pairOf(setCookies: readonly string[]): string | undefined {
  return setCookies[0]?.split(';')[0]
}

function idOf(cookie: string): string {
  return cookie.slice(cookie.indexOf('=') + 1, cookie.indexOf('.'))
}

const LARGE = randomBytes(150_000).toString('hex')

function chunksOf(text: string, size = 20_000): string[] {
  return Array.from({ length: Math.ceil(text.length / size) }, (_, at) => text.slice(at * size, (at + 1) * size))
}

function headersSentCode({ isHttp2 }: Wire): string {
  return isHttp2 ? 'ERR_HTTP2_HEADERS_SENT' : 'ERR_HTTP_HEADERS_SENT'
}

function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Every way to answer, and what the client must see. Status 200 and the body 'whole' unless said otherwise. */
interface Way {
  readonly answer: (res: Response) => unknown
  readonly status?: number
  readonly body?: string
  readonly headers?: Record<string, string | readonly string[]>
  readonly trailers?: Record<string, string>
  readonly http1Only?: boolean
}

const WAYS: Record<string, Way> = {
  'end(chunk)': { answer: (res) => res.end('whole') },
  'end(buffer)': { answer: (res) => res.end(Buffer.from('whole')) },
  'end(chunk, encoding, callback)': {
    answer: (res) => new Promise<void>((resolve) => res.end('d2hvbGU=', 'base64', resolve)),
  },
  'end(chunk, callback)': { answer: (res) => new Promise<void>((resolve) => res.end('whole', resolve)) },
  'end(callback)': {
    answer: (res) => {
      res.write('whole')
      return new Promise<void>((resolve) => res.end(resolve))
    },
  },
  'end() alone': { answer: (res) => res.end(), body: '' },
  'write(chunk, encoding, callback), then end()': {
    answer: async (res) => {
      await new Promise<void>((resolve) => res.write('d2hv', 'base64', () => resolve()))
      res.end('le')
    },
  },
  'several writes in one go': {
    answer: (res) => {
      res.write('w')
      res.write(new Uint8Array(Buffer.from('ho')))
      res.write('l')
      res.end('e')
    },
  },
  'writes with time between': {
    answer: async (res) => {
      for (const chunk of 'whol') {
        res.write(chunk)
        await tick()
      }
      res.end('e')
    },
  },
  'writeHead(status, object)': {
    answer: (res) => res.writeHead(201, { 'x-one': '1', 'x-many': ['a', 'b'] }).end('whole'),
    status: 201,
    headers: { 'x-one': '1', 'x-many': 'a, b' },
  },
  'writeHead(status, flat array)': {
    answer: (res) => res.writeHead(201, ['x-one', '1', 'x-two', '2']).end('whole'),
    status: 201,
    headers: { 'x-one': '1', 'x-two': '2' },
  },
  'writeHead(status, reason, headers)': {
    answer: (res) => res.writeHead(202, 'Taken', { 'x-one': '1' }).end('whole'),
    status: 202,
    headers: { 'x-one': '1' },
  },
  'writeHead over setHeader': {
    answer: (res) => {
      res.setHeader('x-one', 'old')
      res.setHeader('x-two', '2')
      res.writeHead(200, { 'X-One': '1' })
      res.end('whole')
    },
    headers: { 'x-one': '1', 'x-two': '2' },
  },
  'flushHeaders, then the body': {
    answer: async (res) => {
      res.setHeader('x-one', '1')
      res.flushHeaders()
      await tick()
      res.end('whole')
    },
    headers: { 'x-one': '1' },
  },
  'writeHead, flushHeaders, write, end': {
    answer: (res) => {
      res.writeHead(203)
      res.flushHeaders()
      res.write('who')
      res.end('le')
    },
    status: 203,
  },
  'a content-length whose last byte comes in write()': {
    answer: async (res) => {
      res.setHeader('content-length', 5)
      res.write('who')
      await tick()
      res.write('le')
      await tick()
      res.end()
    },
    headers: { 'content-length': '5' },
  },
  pipe: {
    answer: (res) => {
      Readable.from(chunksOf(LARGE)).pipe(res)
    },
    body: LARGE,
  },
  'stream.pipeline': {
    // A response that is given up ends the pipeline early.
    answer: (res) => pipeline(Readable.from(chunksOf(LARGE)), res).catch(() => {}),
    body: LARGE,
  },
  'writes that respect back-pressure': {
    answer: async (res) => {
      for (const chunk of chunksOf(LARGE)) if (!res.write(chunk)) await once(res, 'drain')
      res.end()
    },
    body: LARGE,
  },
  trailers: {
    answer: (res) => {
      res.write('who')
      res.addTrailers({ 'x-sum': '42' })
      res.end('le')
    },
    trailers: { 'x-sum': '42' },
  },
  'status 204': { answer: (res) => res.writeHead(204).end(), status: 204, body: '' },
  'status 304': { answer: (res) => res.writeHead(304, { etag: '"a"' }).end(), status: 304, body: '' },
  redirect: {
    answer: (res) => res.writeHead(302, { location: '/next' }).end(),
    status: 302,
    headers: { location: '/next' },
    body: '',
  },
}

describe.each(WIRES)('on %s', (_name, wire) => {
  describe.each(Object.entries(WAYS))('%s', (_way, { answer, status = 200, body = 'whole', headers, trailers }) => {
    const route: Route = (req, res) => {
      if (req.url === '/change') req.session.set('changed', true)
      // A response whose session nobody looked at is Node's own affair.
      else req.session.get('changed')
      return answer(res)
    }

    test('comes whole with the cookie when the session was changed, and whole without when it was not', async () => {
      const rig = await serve(wire, route)
      for (const path of ['/change', '/leave']) {
        const got = await rig.request({ path })
        expect({ ...got, body: got.body === body }).toMatchObject({ status, body: true, isTruncated: false })
        if (headers) expect(got.headers).toMatchObject(headers)
        if (trailers) expect(got.trailers).toMatchObject(trailers)
        expect(got.setCookies).toHaveLength(path === '/change' ? 1 : 0)
        if (path === '/change') expect(await rig.stored(pairOf(got.setCookies))).toEqual({ changed: true })
      }
      expect(rig.errors).toEqual([])
    })

    test('shows nothing before the commit', async () => {
      const rig = await serve(wire, route)
      rig.store.fail({ kind: 'delay', operations: ['create'] })
      const exchange = rig.start({ path: '/change' })
      await until(() => rig.store.heldCalls === 1)
      await rig.roundTrip()
      expect(exchange.isAnswered()).toBe(false)
      rig.store.release()
      const got = await exchange.done
      expect(got).toMatchObject({ status, isTruncated: false })
      expect(got.body === body).toBe(true)
    })

    test('shows nothing of itself when the commit fails', async () => {
      const rig = await serve(wire, route)
      rig.store.fail({ kind: 'error', operations: ['create'] })
      const got = await rig.request({ path: '/change' })
      expect(got).toMatchObject({ status: 503, body: 'error STORE_UNAVAILABLE', isTruncated: false, setCookies: [] })
      expect(got.headers).toMatchObject({ 'x-frame-options': 'DENY', 'retry-after': '1' })
      for (const name of ['x-one', 'x-many', 'location', 'etag']) expect(got.headers).not.toHaveProperty(name)
      expect(rig.errors).toHaveLength(1)
    })

    test('answers HEAD without a body, with the cookie', async () => {
      const rig = await serve(wire, route)
      const got = await rig.request({ path: '/change', method: 'HEAD' })
      expect(got).toMatchObject({ status, body: '', isTruncated: false })
      expect(await rig.stored(pairOf(got.setCookies))).toEqual({ changed: true })
    })
  })

  test('1xx responses go ahead, and the final one comes with its cookie', async () => {
    const rig = await serve(wire, (req, res) => {
      res.writeContinue()
      res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' })
      req.session.set('changed', true)
      res.end('whole')
    })
    const got = await rig.request()
    expect(got).toMatchObject({ status: 200, body: 'whole', isTruncated: false })
    expect(got.interim).toEqual([100, 103])
    expect(got.setCookies).toHaveLength(1)
  })

  test('a second writeHead is the error that Node gives', async () => {
    let thrown: unknown
    const rig = await serve(wire, (_req, res) => {
      res.writeHead(201)
      try {
        res.writeHead(404, { 'x-late': '1' })
      } catch (error) {
        thrown = error
      }
      res.end('whole')
    })
    const got = await rig.request()
    expect(thrown).toMatchObject({ code: headersSentCode(wire) })
    expect(got).toMatchObject({ status: 201, body: 'whole' })
    expect(got.headers).not.toHaveProperty('x-late')
  })

  test('a held write() returns false beyond the high-water mark, and drain comes once the commit is done', async () => {
    const order: string[] = []
    const rig = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      res.on('drain', () => {
        order.push('drain')
        res.end()
      })
      order.push(`a little: ${res.write('whole')}`)
      order.push(`much: ${res.write(LARGE)}`)
    })
    rig.store.fail({ kind: 'delay', operations: ['create'] })
    const exchange = rig.start()
    await until(() => rig.store.heldCalls === 1)
    await rig.roundTrip()
    expect(order).toEqual(['a little: true', 'much: false'])
    rig.store.release()
    expect(await exchange.done).toMatchObject({ body: `whole${LARGE}`, isTruncated: false })
    expect(order).toEqual(['a little: true', 'much: false', 'drain'])
  })

  test('flushHeaders sends head and cookie while the body is still to come', async () => {
    let finish = (): void => {}
    const rig = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      res.flushHeaders()
      finish = () => void res.end('whole')
    })
    const exchange = rig.start()
    await until(exchange.isAnswered)
    expect(rig.created()).toBe(1)
    finish()
    const got = await exchange.done
    expect(got.setCookies).toHaveLength(1)
    expect(got.body).toBe('whole')
  })

  test('headersSent is true and a change of the head is refused as soon as the response is held', async () => {
    const seen: unknown[] = []
    const rig = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      seen.push(res.headersSent)
      res.statusCode = 201
      res.setHeader('x-one', '1')
      res.end('whole')
      seen.push(res.headersSent)
      res.statusCode = 500
      for (const change of [
        () => res.setHeader('x-one', '2'),
        () => res.appendHeader('x-one', '2'),
        () => res.removeHeader('x-one'),
        () => res.writeHead(404),
      ]) {
        try {
          change()
          seen.push('done')
        } catch (error) {
          seen.push((error as { code?: string }).code)
        }
      }
    })
    const got = await rig.request()
    expect(got).toMatchObject({ status: 201, body: 'whole', isTruncated: false })
    expect(got.headers).toMatchObject({ 'x-one': '1' })
    expect(seen).toEqual([false, true, ...Array(4).fill(headersSentCode(wire))])
  })

  describe('a commit that fails', () => {
    const FAULTS: readonly (readonly [string, StoreFault, number, string])[] = [
      ['with an error', { kind: 'error' }, 503, 'STORE_UNAVAILABLE'],
      ['with its reply lost', { kind: 'lost-reply' }, 503, 'STORE_UNAVAILABLE'],
      ['by missing the deadline', { kind: 'hang' }, 503, 'STORE_TIMEOUT'],
    ]
    test.each(FAULTS)(
      '%s is answered with 503, for a new and for a known session',
      async (_how, fault, status, code) => {
        const rig = await serve(
          wire,
          (req, res) => {
            req.session.set('changed', true)
            res.writeHead(200, { 'x-one': '1' }).end('whole')
          },
          { storeTimeout: '40ms' },
        )
        const cookie = await rig.begin()
        rig.store.fail({ operations: ['create', 'update'], ...fault })
        for (const parts of [{}, { cookie }]) {
          const got = await rig.request(parts)
          expect(got).toMatchObject({ status, body: `error ${code}`, isTruncated: false, setCookies: [] })
          expect(got.headers).toMatchObject({ 'retry-after': '1', 'x-frame-options': 'DENY' })
          expect(got.headers).not.toHaveProperty('x-one')
        }
        expect(rig.errors).toHaveLength(2)
        if (fault.kind === 'error') expect(await rig.stored(cookie)).toEqual({ begun: true })
      },
    )

    test('because the session has ended is answered with 409', async () => {
      const rig = await serve(wire, async (req, res) => {
        req.session.get('begun')
        await rig.store.end(req.session.id, { reason: 'revoked', at: Date.now() }, 60)
        req.session.set('changed', true)
        res.end('whole')
      })
      const cookie = await rig.begin()
      const got = await rig.request({ cookie })
      expect(got).toMatchObject({ status: 409, body: 'error SESSION_ENDED', setCookies: [] })
      expect(await rig.ended(cookie)).toMatchObject({ reason: 'revoked' })
    })

    test('leaves nothing of the app’s answer, however long the error is answered', async () => {
      const source = new Readable({
        read() {
          setImmediate(() => this.push('of the app'))
        },
      })
      const { store, request } = await rig(wire, {}, (middleware) => (req, response) => {
        const res = response as Response
        middleware(req, res, (error) => {
          if (error !== undefined) {
            // A long answer: 'drain' would wake up what was piped before.
            res.write(LARGE)
            res.once('drain', () => setTimeout(() => res.end(), 5))
            return
          }
          ;(req as Request).session.set('changed', true)
          source.pipe(res)
        })
      })
      store.fail({ kind: 'error', operations: ['create'] })
      const got = await request()
      source.destroy()
      // The error handler chose no status: a failure must not look like success all the same.
      expect(got).toMatchObject({ status: 503, setCookies: [], isTruncated: false })
      expect(got.body === LARGE).toBe(true)
    })

    test('leaves nothing of what a wrapper of write() and end() still has to say', async () => {
      const { store, request } = await rig(wire, {}, (middleware) => (req, response) => {
        const res = response as Response
        middleware(req, res, (error) => {
          if (error !== undefined) {
            setTimeout(() => res.end('sorry'), 5)
            return
          }
          ;(req as Request).session.set('changed', true)
          const { write, end } = res
          res.end = function slowEnd(this: Response): Response {
            write.call(this, 'of the app, ', 'utf8')
            setImmediate(() => {
              write.call(this, 'later', 'utf8')
              end.call(this, 'at last', 'utf8')
            })
            return this
          } as Response['end']
          res.end()
        })
      })
      store.fail({ kind: 'error', operations: ['create'] })
      const got = await request()
      expect(got).toMatchObject({ status: 503, body: 'sorry', setCookies: [], isTruncated: false })
    })

    test('after the head cuts the response off', async () => {
      const rig = await serve(wire, async (req, res) => {
        res.write('part one, ')
        await tick()
        req.session.set('changed', true)
        res.end('part two')
      })
      const cookie = await rig.begin()
      rig.store.fail({ kind: 'error', operations: ['update'] })
      const got = await rig.request({ cookie })
      expect(got.isTruncated).toBe(true)
      expect(got.body).not.toContain('part two')
      expect(rig.errors).toEqual([])
      expect(await rig.stored(cookie)).toEqual({ begun: true })
      await rig.roundTrip()
    })

    test('after the head cuts a response of known length off before its last byte', async () => {
      const rig = await serve(wire, async (req, res) => {
        res.setHeader('content-length', 18)
        res.write('part one, ')
        await tick()
        req.session.set('changed', true)
        res.write('part two')
        res.end()
      })
      const cookie = await rig.begin()
      rig.store.fail({ kind: 'error', operations: ['update'] })
      const got = await rig.request({ cookie })
      expect(got.isTruncated).toBe(true)
      expect(got.body).not.toContain('part two')
    })

    test.each([
      ['pipe', (source: Readable, res: Response) => void source.pipe(res)],
      ['pipeline', (source: Readable, res: Response) => void pipeline(source, res).catch(() => {})],
    ])('under a running %s does not end the process', async (_how, connect) => {
      let endless: Readable | undefined
      const rig = await serve(wire, (req, res) => {
        req.session.set('changed', true)
        endless = Readable.from(
          (async function* () {
            for (let count = 0; count < 50; count++) {
              yield 'of the app'.repeat(100)
              await tick()
            }
          })(),
        )
        connect(endless, res)
      })
      rig.store.fail({ kind: 'error', operations: ['create'] })
      const got = await rig.request()
      expect(got).toMatchObject({ status: 503, body: 'error STORE_UNAVAILABLE', isTruncated: false })
      for (let count = 0; count < 60; count++) await tick()
      await rig.roundTrip()
      endless?.destroy()
    })
  })

  describe('a response whose head left before session()', () => {
    const serveLate = (act: (session: Session) => void): Promise<Rig> =>
      rig(wire, {}, (middleware) => (req, response) => {
        const res = response as Response
        if (req.url === '/') res.write('early, ')
        middleware(req, res, () => {
          const request = req as Request
          if (req.url === '/begin') request.session.set('begun', true)
          if (req.url === '/') act(request.session)
          res.end('late')
        })
      })
    const ACTS: Record<string, (session: Session) => void> = {
      'does not look at it': () => {},
      reads: (s) => void s.get('begun'),
      changes: (s) => void s.set('changed', true),
    }

    test.each(Object.entries(ACTS))('comes whole when the handler %s', async (what, act) => {
      const rig = await serveLate(act)
      const cookie = await rig.begin()
      const got = await rig.request({ cookie })
      expect(got).toMatchObject({ status: 200, body: 'early, late', setCookies: [], isTruncated: false })
      expect(await rig.stored(cookie)).toEqual(what === 'changes' ? { begun: true, changed: true } : { begun: true })
      expect(rig.lateChanges).toEqual([])
    })

    test('cannot begin a session, and that is told', async () => {
      const rig = await serveLate((s) => void s.set('changed', true))
      const got = await rig.request({ path: '/' })
      expect(got).toMatchObject({ status: 200, body: 'early, late', setCookies: [], isTruncated: false })
      expect(rig.created()).toBe(0)
      expect(rig.lateChanges).toEqual(['headers-sent'])
    })
  })

  describe('a streamed response', () => {
    test('to a new session gets no cookie when fields come after the head; nothing is stored, and that is told', async () => {
      const rig = await serve(wire, async (req, res) => {
        res.write('part one, ')
        await tick()
        req.session.set('changed', true)
        res.end('part two')
      })
      const got = await rig.request()
      expect(got).toMatchObject({ status: 200, body: 'part one, part two', setCookies: [], isTruncated: false })
      expect(rig.store.totalCalls).toBe(0)
      expect(rig.lateChanges).toEqual(['headers-sent'])
    })

    test('stores the changes of a known session before its last byte', async () => {
      const rig = await serve(wire, async (req, res) => {
        res.write('part one, ')
        await tick()
        req.session.set('changed', true)
        res.end('part two')
      })
      const cookie = await rig.begin()
      rig.store.fail({ kind: 'delay', operations: ['update'] })
      const exchange = rig.start({ cookie })
      await until(() => rig.store.heldCalls === 1 && exchange.body() === 'part one, ')
      await rig.roundTrip()
      expect(exchange.body()).toBe('part one, ')
      rig.store.release()
      expect(await exchange.done).toMatchObject({ body: 'part one, part two', isTruncated: false })
      expect(await rig.stored(cookie)).toEqual({ begun: true, changed: true })
    })

    test('of known length stores before the byte that completes it, though end() comes later', async () => {
      const rig = await serve(wire, async (req, res) => {
        res.setHeader('content-length', 18)
        res.write('part one, ')
        await tick()
        req.session.set('changed', true)
        res.write('part two')
        await tick()
        res.end()
      })
      const cookie = await rig.begin()
      rig.store.fail({ kind: 'delay', operations: ['update'] })
      const exchange = rig.start({ cookie })
      await until(() => rig.store.heldCalls === 1 && exchange.body() === 'part one, ')
      await rig.roundTrip()
      expect(exchange.body()).toBe('part one, ')
      rig.store.release()
      expect(await exchange.done).toMatchObject({ body: 'part one, part two', isTruncated: false })
    })
  })

  test('changes after the response are told as an event, not stored', async () => {
    const rig = await serve(wire, (req, res) => {
      res.end('whole')
      req.session.set('changed', true)
    })
    const cookie = await rig.begin()
    const callsBefore = countCalls(rig.store)
    await rig.request({ cookie })
    expect(rig.lateChanges).toEqual(['after-response'])
    expect(await rig.stored(cookie)).toEqual({ begun: true })
    expect(countCalls(rig.store) - callsBefore).toBe(1)
  })

  test('a client that goes away mid-request harms nothing; its changes are stored when the handler answers', async () => {
    let go = (): void => {}
    const rig = await serve(wire, async (req, res) => {
      await new Promise<void>((resolve) => {
        go = resolve
      })
      req.session.set('changed', true)
      res.end('whole')
    })
    const cookie = await rig.begin()
    const exchange = rig.start({ cookie })
    const handling = go
    await until(() => go !== handling)
    exchange.abort()
    await exchange.done
    await rig.roundTrip()
    go()
    await until(async () => (await rig.stored(cookie))?.['changed'] === true)
    await rig.roundTrip()
    expect(rig.errors).toEqual([])
  })

  test('a client that goes away while the response is held harms nothing', async () => {
    const rig = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      Readable.from(chunksOf(LARGE)).pipe(res)
    })
    const cookie = await rig.begin()
    rig.store.fail({ kind: 'delay', operations: ['update'] })
    const exchange = rig.start({ cookie })
    await until(() => rig.store.heldCalls === 1)
    exchange.abort()
    await exchange.done
    await rig.roundTrip()
    rig.store.release()
    await until(async () => (await rig.stored(cookie))?.['changed'] === true)
    await rig.roundTrip()
  })

  describe("with commit: 'after-response'", () => {
    const route: Route = (req, res) => {
      req.session.set('changed', true)
      res.end('whole')
    }

    test('the answer with its promised cookie comes first, the commit after', async () => {
      const rig = await serve(wire, route, { commit: 'after-response' })
      rig.store.fail({ kind: 'delay', operations: ['create'] })
      const got = await rig.request()
      expect(got).toMatchObject({ status: 200, body: 'whole', isTruncated: false })
      const cookie = pairOf(got.setCookies)
      expect(await rig.stored(cookie)).toBeNull()
      await until(() => rig.store.heldCalls === 1)
      rig.store.release()
      await until(async () => (await rig.stored(cookie)) !== null)
      expect(await rig.stored(cookie)).toEqual({ changed: true })
      // The promised cookie opens the stored session.
      await rig.request({ cookie })
      await until(() => rig.store.calls.get > 0)
      expect(rig.store.calls.create).toBe(1)
    })

    test('a failed write is only an event', async () => {
      const { store, storeErrors, errors, request } = await serve(wire, route, { commit: 'after-response' })
      store.fail({ kind: 'error', operations: ['create'] })
      expect(await request()).toMatchObject({ status: 200, body: 'whole', isTruncated: false })
      await until(() => storeErrors.length > 0)
      expect(storeErrors).toEqual(['create'])
      expect(errors).toEqual([])
    })

    test('a streamed response stores what changed until its end', async () => {
      const rig = await serve(
        wire,
        async (req, res) => {
          res.write('part one, ')
          await tick()
          req.session.set('changed', true)
          res.end('part two')
        },
        { commit: 'after-response' },
      )
      const cookie = await rig.begin()
      const got = await rig.request({ cookie })
      expect(got).toMatchObject({ body: 'part one, part two', isTruncated: false })
      await until(async () => (await rig.stored(cookie))?.['changed'] === true)
    })
  })
})

describe('on one connection', () => {
  test('pipelined requests are answered in order, each after its own commit', async () => {
    const rig = await serve(HTTP, (req, res) => {
      req.session.set('at', req.url)
      res.setHeader('content-type', 'text/plain')
      res.end(`<${req.url}>`)
    })
    rig.store.fail({ kind: 'delay', operations: ['create'], times: 1 })
    const client = new RawClient(rig.port)
    for (const path of ['/1', '/2', '/3']) client.send(path)
    await until(() => rig.store.calls.create === 3)
    await rig.roundTrip()
    expect(client.received).toBe('')
    rig.store.release()
    await until(() => client.received.includes('</3>'))
    expect(client.received.match(/<\/\d>/g)).toEqual(['</1>', '</2>', '</3>'])
    expect(client.received.match(/set-cookie: sid=/gi)).toHaveLength(3)
    client.destroy()
  })

  test('a pipelined request whose commit fails spoils no other', async () => {
    const rig = await serve(HTTP, (req, res) => {
      req.session.set('at', req.url)
      res.end(`<${req.url}>`)
    })
    rig.store.fail({ kind: 'error', operations: ['create'], times: 1 })
    const client = new RawClient(rig.port)
    for (const path of ['/1', '/2']) client.send(path)
    await until(() => client.received.includes('</2>'))
    expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 503', 'HTTP/1.1 200'])
    expect(client.received).not.toContain('</1>')
    client.destroy()
  })

  test('not one byte goes to the socket before the commit', async () => {
    const rig = await serve(HTTP, (req, res) => {
      req.session.set('changed', true)
      res.writeHead(302, { location: '/next' })
      res.flushHeaders()
      res.end('moved')
    })
    rig.store.fail({ kind: 'delay', operations: ['create'] })
    const client = new RawClient(rig.port)
    client.send('/')
    await until(() => rig.store.heldCalls === 1)
    await rig.roundTrip()
    expect(client.received).toBe('')
    rig.store.release()
    await until(() => client.received.includes('moved'))
    client.destroy()
  })

  test('back-pressure of a slow reader reaches the source, also behind a commit', async () => {
    let produced = 0
    const total = 64 * 1024 * 1024
    const rig = await serve(HTTP, (req, res) => {
      req.session.set('changed', true)
      const chunk = Buffer.alloc(64 * 1024, 120)
      const source = new Readable({
        read() {
          produced += chunk.length
          this.push(produced > total ? null : chunk)
        },
      })
      source.pipe(res)
    })
    const client = new RawClient(rig.port)
    client.pause()
    client.send('/')
    await until(() => produced > 0)
    let before = -1
    await until(async () => {
      const isStill = before === produced
      before = produced
      for (let count = 0; count < 20; count++) await tick()
      return isStill
    })
    expect(produced).toBeLessThan(total / 2)
    client.destroy()
  })

  test('a response that is ended by closing the connection (HTTP/1.0) is reset when its commit fails, not closed', async () => {
    let finish = (): void => {}
    const rig = await serve(HTTP, (req, res) => {
      res.write('part one, ')
      finish = () => {
        req.session.set('changed', true)
        res.end('part two')
      }
    })
    const cookie = await rig.begin()
    rig.store.fail({ kind: 'error', operations: ['update'] })
    const client = new RawClient(rig.port)
    client.sendText(`GET / HTTP/1.0\r\nCookie: ${cookie}\r\n\r\n`)
    await until(() => client.received.endsWith('part one, '))
    finish()
    await until(() => client.isClosed)
    expect(client.received).not.toContain('part two')
    expect(client.errorCode).toBe('ECONNRESET')
  })
})

describe('under Express', () => {
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-response-'))
  const file = join(directory, 'large.txt')
  writeFileSync(file, LARGE)
  afterAll(() => rmSync(directory, { recursive: true, force: true }))

  test('sendFile comes whole, with the cookie, and 304 to whom has it', async () => {
    const { request, stored } = await serveExpress((app) => {
      app.get('/file', (req, res) => {
        req.session.set('changed', true)
        res.sendFile(file)
      })
    })
    const got = await request({ path: '/file' })
    expect(got).toMatchObject({ status: 200, isTruncated: false })
    expect(got.body === LARGE).toBe(true)
    expect(await stored(pairOf(got.setCookies))).toEqual({ changed: true })
    const etag = String(got.headers['etag'])
    const again = await request({ path: '/file', headers: { 'if-none-match': etag } })
    expect(again).toMatchObject({ status: 304, body: '', isTruncated: false })
    expect(again.setCookies).toHaveLength(1)
    const head = await request({ path: '/file', method: 'HEAD' })
    expect(head).toMatchObject({ status: 200, body: '', isTruncated: false })
    expect(head.headers['content-length']).toBe(String(LARGE.length))
  })

  test('sendFile whose commit fails is answered with 503, without the file', async () => {
    const { request, store } = await serveExpress((app) => {
      app.get('/file', (req, res) => {
        req.session.set('changed', true)
        res.sendFile(file)
      })
    })
    store.fail({ kind: 'error', operations: ['create'] })
    const got = await request({ path: '/file' })
    expect(got).toMatchObject({ status: 503, isTruncated: false, setCookies: [] })
    expect(got.headers).not.toHaveProperty('etag')
    expect(got.body).not.toContain(LARGE.slice(0, 20))
  })

  /** Answers are held whoever else has methods of that name, on the application or on the one response. */
  const METHODS_OF_OTHERS: readonly (readonly [string, (app: express.Express) => void])[] = [
    [
      'the application has an end() of its own',
      (app) => {
        const { end } = app.response
        app.response.end = function ownEnd(this: express.Response, ...args: unknown[]) {
          this.setHeader('x-own', 'end')
          return (end as (...args: unknown[]) => express.Response).apply(this, args)
        } as express.Response['end']
      },
    ],
    [
      'a middleware has wrapped end() and goes past every prototype',
      (app) =>
        app.use((_req, res, next) => {
          const { end } = ServerResponse.prototype
          res.end = ((...args: unknown[]) => {
            res.setHeader('x-own', 'end')
            return (end as (...args: unknown[]) => unknown).apply(res, args)
          }) as typeof res.end
          next()
        }),
    ],
  ]
  test.each(METHODS_OF_OTHERS)('where %s, that is called, and not before the commit', async (_what, prepare) => {
    const { request, start, store, stored, roundTrip } = await serveExpress((app) => {
      prepare(app)
      app.get('/', (req, res) => {
        req.session.set('changed', true)
        res.status(201).send('first')
      })
    })
    store.fail({ kind: 'delay', operations: ['create'] })
    const exchange = start()
    await until(() => store.heldCalls === 1)
    await roundTrip()
    expect(exchange.isAnswered()).toBe(false)
    store.release()
    const got = await exchange.done
    expect(got).toMatchObject({ status: 201, body: 'first', headers: { 'x-own': 'end' } })
    expect(await stored(pairOf(got.setCookies))).toEqual({ changed: true })
    store.repair()
    store.fail({ kind: 'error', operations: ['create'] })
    expect(await request()).toMatchObject({ status: 503, setCookies: [], isTruncated: false })
  })

  const AFTERTHOUGHTS: readonly (readonly [string, express.RequestHandler])[] = [
    ['calls next()', (_req, _res, next) => next()],
    ['sends another answer', (_req, res) => void res.status(500).json({ second: 'and longer than the first' })],
    [
      'sends another answer and only then notices',
      async (_req, res) => {
        await tick()
        res.status(500).send('second, and longer than the first')
      },
    ],
    [
      'throws',
      () => {
        throw new Error('afterthought')
      },
    ],
    [
      'rejects',
      async () => {
        await tick()
        throw new Error('afterthought')
      },
    ],
    ['calls next(error)', (_req, _res, next) => next(new Error('afterthought'))],
  ]
  test.each(AFTERTHOUGHTS)('a handler that has answered and then %s: the answer comes whole', async (_what, then) => {
    const { request, stored, store } = await serveExpress((app) => {
      app.get('/', (req, res, next) => {
        req.session.set('changed', true)
        res.status(201).send('first')
        return then(req, res, next)
      })
      app.use((_error: unknown, _req: express.Request, res: express.Response, _next: express.NextFunction) => {
        if (!res.headersSent) res.status(500).send('not answered yet?')
      })
    })
    store.fail({ kind: 'delay', delayMs: 10, operations: ['create'] })
    const got = await request()
    expect(got).toMatchObject({ status: 201, body: 'first', isTruncated: false })
    expect(got.headers).toMatchObject({ 'content-type': 'text/html; charset=utf-8' })
    expect(await stored(pairOf(got.setCookies))).toEqual({ changed: true })
  })

  const FAILURES: readonly (readonly [string, express.RequestHandler])[] = [
    [
      'throws',
      (req) => {
        req.session.set('changed', true)
        throw new Error('broken')
      },
    ],
    [
      'rejects',
      async (req) => {
        req.session.set('changed', true)
        await tick()
        throw new Error('broken')
      },
    ],
    [
      'calls next(error)',
      (req, _res, next) => {
        req.session.set('changed', true)
        next(new Error('broken'))
      },
    ],
  ]
  describe.each(FAILURES)('when a handler changes the session and %s', (_how, handler) => {
    test('the change is stored with the error response', async () => {
      const { request, stored, begin } = await serveExpress((app) => app.get('/', handler))
      const cookie = await begin()
      expect(await request({ cookie })).toMatchObject({ status: 500, isTruncated: false })
      expect(await stored(cookie)).toEqual({ begun: true, changed: true })
    })

    test('reload() in the error handler discards it', async () => {
      const { request, stored, begin } = await serveExpress((app) => {
        app.get('/', handler)
        app.use(async (_error: unknown, req: express.Request, res: express.Response, _next: express.NextFunction) => {
          await req.session.reload()
          res.status(500).send('sorry')
        })
      })
      const cookie = await begin()
      expect(await request({ cookie })).toMatchObject({ status: 500, body: 'sorry' })
      expect(await stored(cookie)).toEqual({ begun: true })
      expect((await request()).setCookies).toEqual([])
    })
  })

  test('an error handler gets a failed commit once and may answer in its own way', async () => {
    const seen: unknown[] = []
    const { request, store } = await serveExpress((app) => {
      app.get('/', (req, res) => {
        req.session.set('changed', true)
        res.json({ secret: 'of the app' })
      })
      app.use((error: unknown, req: express.Request, res: express.Response, _next: express.NextFunction) => {
        seen.push(error, res.headersSent)
        res.status(507).json({ sorry: req.path })
      })
    })
    store.fail({ kind: 'error', operations: ['create'] })
    const got = await request()
    expect(got).toMatchObject({ status: 507, body: '{"sorry":"/"}', setCookies: [], isTruncated: false })
    expect(seen).toEqual([expect.objectContaining({ code: 'STORE_UNAVAILABLE', status: 503 }), false])
  })
})
