// The gate on a response, whoever else has methods on it, and whatever is called twice or too late.
import { once } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { Socket } from 'node:net'
import { Writable } from 'node:stream'
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type Request, type RequestHandler, type Response } from 'express'
import { MemorySessionStore, type SessionMiddleware, type SessionOptions, session } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { SECRET, until } from '../support/http.js'
import { fieldsOf } from '../support/records.js'
import { type Handler, HTTP, WIRES, type Wire, type WireServer } from '../support/wires.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

interface Rig extends WireServer {
  readonly store: FaultyStore
  stored(setCookies: readonly string[]): Promise<unknown>
}

/** A server whose handler gets requests with a session; `next` is what the middleware is given. */
async function serve(
  wire: Wire,
  handler: (req: Request, res: Response) => unknown,
  {
    next = (error, res) => {
      if (error) res.writeHead(503).end(`error ${(error as { code: string }).code}`)
    },
    ...options
  }: Partial<SessionOptions> & { next?: (error: unknown, res: Response) => void } = {},
): Promise<Rig> {
  return rig(wire, options, (middleware) => (req, res) => {
    middleware(req as Request, res as Response, (error?: unknown) => {
      if (error) next(error, res as Response)
      else handler(req as Request, res as Response)
    })
  })
}

async function rig(
  wire: Wire,
  options: Partial<SessionOptions>,
  build: (middleware: SessionMiddleware) => Handler,
): Promise<Rig> {
  const memory = new MemorySessionStore({ cleanupInterval: 0 })
  const store = new FaultyStore(memory)
  const middleware = session({ secret: SECRET, store, storeTimeout: '10s', ...options })
  const server = await wire.listen(build(middleware))
  closers.push(server.close)
  return {
    ...server,
    store,
    stored: ([cookie = '']) => fieldsOf(memory, cookie.slice(cookie.indexOf('=') + 1, cookie.indexOf('.'))),
  }
}

/** Answers, lets `then` act while the answer is held, and lets it go. */
async function whileHeld(wire: Wire, then: (res: Response) => void) {
  let response: Response | undefined
  const { start, store } = await serve(wire, (req, res) => {
    response = res
    req.session.set('changed', true)
    res.statusCode = 201
    res.end('first')
  })
  store.fail({ kind: 'delay', operations: ['create'] })
  const exchange = start()
  await until(() => store.heldCalls === 1)
  then(response as Response)
  store.release()
  const got = await exchange.done
  await new Promise((resolve) => setImmediate(resolve))
  return got
}

describe.each(WIRES)('while an answer that has ended is held, on %s', (_name, wire) => {
  const WHOLE = { status: 201, body: 'first', isTruncated: false }

  test('it is ended to everybody', async () => {
    const seen: unknown[] = []
    const got = await whileHeld(wire, (res) => {
      seen.push(res.headersSent, res.writableEnded, res.finished)
      if (!res.writableEnded) res.end('second')
    })
    expect(seen).toEqual([true, true, true])
    expect(got).toMatchObject(WHOLE)
  })

  test('a second answer is ignored, and its callbacks are called', async () => {
    const seen: unknown[] = []
    const errors: unknown[] = []
    const got = await whileHeld(wire, (res) => {
      res.on('error', (error) => errors.push(error))
      seen.push(
        res.write('second', (error) => seen.push((error as { code?: string } | null)?.code)),
        res.end('second') === res,
        res.end() === res,
      )
      res.flushHeaders()
      res.end(() => seen.push('end'))
    })
    expect(got).toMatchObject(WHOLE)
    await until(() => seen.length === 5)
    expect(seen.slice(0, 3)).toEqual([false, true, true])
    expect(seen).toEqual(expect.arrayContaining(['ERR_STREAM_WRITE_AFTER_END', 'end']))
    expect(errors).toEqual([])
  })

  test('whoever destroys the response comes after it', async () => {
    const got = await whileHeld(wire, (res) => void res.destroy())
    expect(got).toMatchObject(WHOLE)
  })

  test.each<unknown>([null, undefined, 5, {}])(
    'a write of %p to an open response throws what Node throws',
    async (chunk) => {
      const attempt = (res: Response): unknown => {
        try {
          return res.write(chunk)
        } catch (error) {
          return (error as { code: string }).code
        } finally {
          res.end('whole')
        }
      }
      const seen: unknown[] = []
      const { request } = await serve(wire, (req, res) => {
        req.session.set('changed', true)
        seen.push(attempt(res))
      })
      const plain = await wire.listen((_req, res) => void seen.push(attempt(res as Response)))
      closers.push(plain.close)
      expect(await request()).toMatchObject({ status: 200, body: 'whole' })
      await plain.request()
      expect(seen).toHaveLength(2)
      expect(seen[0]).toBe(seen[1])
    },
  )
})

test('while an answer is held, an error that the final handler of Express meets closes the connection after it', async () => {
  const { request, store } = await rig(HTTP, {}, (middleware) => {
    const app = express().set('env', 'test').use(middleware)
    app.get('/', (req, res) => {
      req.session.set('changed', true)
      res.send('first')
      throw new Error('afterthought')
    })
    return app as unknown as Handler
  })
  store.fail({ kind: 'delay', delayMs: 10, operations: ['create'] })
  expect(await request()).toMatchObject({ status: 200, body: 'first', isTruncated: false })
})

describe('a response that changes its prototype on the way', () => {
  const parts = (): readonly (readonly [string, RequestHandler])[] => {
    const answer: RequestHandler = (req, res) => {
      req.session.set('sub', true)
      res.status(201).send('of the other copy')
    }
    const other = express4()
    other.get('/', answer)
    return [
      ['router.use(sub)', express.Router().use(other)],
      ['a function', (req, res) => void other(req, res, () => {})],
      [
        'a framework that sets it on the response',
        (req, res, next) => {
          Object.setPrototypeOf(res, Object.create(ServerResponse.prototype))
          req.session.set('sub', true)
          res.statusCode = 201
          res.end('of the other copy')
          void next
        },
      ],
    ]
  }
  test.each(parts())('by %s, after the session was read: it is stored', async (_how, handler) => {
    const { request, store, stored } = await rig(HTTP, {}, (middleware) => {
      const app = express().set('env', 'test').use(middleware)
      app.use((req, _res, next) => {
        req.session.get('anything')
        next()
      }, handler)
      return app as unknown as Handler
    })
    const got = await request()
    expect(got).toMatchObject({ status: 201, body: 'of the other copy', isTruncated: false })
    expect(await stored(got.setCookies)).toEqual({ sub: true })
    store.fail({ kind: 'error', operations: ['create'] })
    expect(await request()).toMatchObject({ status: 503, setCookies: [] })
  })
})

test('methods that a framework puts below Express, as those that inject requests do, are called after real requests too', async () => {
  class Injected extends ServerResponse {
    readonly written: string[] = []
  }
  Object.assign(Injected.prototype, {
    write(this: Injected, chunk: string | Buffer) {
      this.written.push(String(chunk))
      return ServerResponse.prototype.write.call(this, chunk, 'utf8', () => {})
    },
    end(this: Injected, chunk?: string | Buffer) {
      if (chunk) this.write(chunk)
      return ServerResponse.prototype.end.call(this, undefined, 'utf8', () => {})
    },
  })
  let app = express()
  const { request } = await rig(HTTP, {}, (middleware) => {
    app = express().set('env', 'test').use(middleware)
    app.get('/', (req, res) => {
      req.session.set('changed', true)
      res.send('whole')
    })
    return app as unknown as Handler
  })
  expect(await request()).toMatchObject({ body: 'whole' })
  Object.setPrototypeOf(express.response, Injected.prototype)
  try {
    const req = Object.assign(new IncomingMessage(new Socket()), { method: 'GET', url: '/', httpVersionMajor: 1 })
    const res = new Injected(req)
    res.assignSocket(new Writable({ write: (_chunk, _encoding, written) => written() }) as unknown as Socket)
    ;(app as unknown as Handler)(req, res)
    await once(res, 'finish')
    expect(res.written).toEqual(['whole'])
  } finally {
    Object.setPrototypeOf(express.response, ServerResponse.prototype)
  }
})

test('the session may be first read in the arguments of the call that answers', async () => {
  const { request, stored } = await rig(HTTP, {}, (middleware) => {
    const app = express().set('env', 'test').use(middleware)
    return app.get(
      '/',
      (req, res) => void res.end(JSON.stringify(req.session.set('changed', true))),
    ) as unknown as Handler
  })
  const got = await request()
  expect(got).toMatchObject({ status: 200, isTruncated: false })
  expect(await stored(got.setCookies)).toEqual({ changed: true })
})

describe.each(WIRES)('on %s', (_name, wire) => {
  /** As the package on-headers does. */
  const onHeaders = (res: Response, listener: () => void): void => {
    const { writeHead } = res
    res.writeHead = ((...args: Parameters<typeof writeHead>) => {
      if (!res.headersSent) listener()
      return writeHead.apply(res, args)
    }) as typeof writeHead
  }

  test.each(['before', 'after'])(
    'no-store goes with Set-Cookie though a listener put on %s says public',
    async (when) => {
      const { request } = await rig(wire, {}, (middleware) => (request, response) => {
        const [req, res] = [request as Request, response as Response]
        const listen = (): void => onHeaders(res, () => void res.setHeader('Cache-Control', 'public, max-age=60'))
        if (when === 'before') listen()
        middleware(req, res, () => {
          if (when === 'after') listen()
          if (req.url === '/change') req.session.set('changed', true)
          res.end()
        })
      })
      const { headers, setCookies } = await request({ path: '/change' })
      expect([headers['cache-control'], setCookies.length]).toEqual(['no-store', 1])
      expect((await request()).headers['cache-control']).toBe('public, max-age=60')
    },
  )

  test('the status may be text', async () => {
    const { request } = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      res.writeHead('403' as unknown as number).end()
    })
    expect(await request()).toMatchObject({ status: 403, isTruncated: false })
  })

  test.each([99, 1000, 'text'])('writeHead(%p) throws, and the response waits for another', async (status) => {
    const { request } = await serve(wire, (req, res) => {
      req.session.set('changed', true)
      try {
        res.writeHead(status as number)
      } catch (error) {
        res.setHeader('x-code', String((error as { code?: string }).code))
      }
      res.statusCode = 202
      res.end()
    })
    const { status: got, headers } = await request()
    expect(got).toBe(202)
    expect(headers['x-code']).toBe(wire.isHttp2 ? 'ERR_HTTP2_STATUS_INVALID' : 'ERR_HTTP_INVALID_STATUS_CODE')
  })

  test('a failed commit that nobody answers is answered within the deadline of the store', async () => {
    const { request, store } = await serve(
      wire,
      async (req, res) => {
        req.session.set('changed', true)
        res.setHeader('x-one', '1')
        res.end('whole')
      },
      { next: () => {}, storeTimeout: '40ms' },
    )
    store.fail({ kind: 'error', operations: ['create'] })
    const got = await request()
    expect(got).toMatchObject({ status: 503, body: 'Service Unavailable', setCookies: [], isTruncated: false })
    expect(got.headers).toMatchObject({ 'retry-after': '1' })
    expect(got.headers).not.toHaveProperty('x-one')
  })
})

test('a header list that was there before is not added to by an answer that was given up', async () => {
  const { request, store } = await rig(HTTP, {}, (middleware) => (request, response) => {
    const [req, res] = [request as Request, response as Response]
    res.setHeader('Set-Cookie', ['theme=dark'])
    middleware(req, res, (error?: unknown) => {
      if (!error) {
        req.session.set('changed', true)
        res.appendHeader('Set-Cookie', 'of=the-app')
      }
      res.end()
    })
  })
  store.fail({ kind: 'error', operations: ['create'] })
  expect((await request()).setCookies).toEqual(['theme=dark'])
})
