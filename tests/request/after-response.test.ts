// What comes late: first uses after the answer, changes while the commit is under way, failures nobody waits for.
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import { getSession, MemorySessionStore, type SessionOptions, session } from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { Client, listen, SECRET, until } from '../support/http.js'
import { countCalls } from '../support/records.js'

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()))
})

const MINUTE = 60_000

/** An app whose `/` is `answer`, whose `/peek` shows the fields, and whose `/fill` begins a session. */
async function serve(answer: RequestHandler, options: Partial<SessionOptions> = {}) {
  const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
  const clock = new FakeClock()
  const middleware = session({ secret: SECRET, store, clock: clock.now, ...options })
  const late: string[] = []
  middleware.events.on('lateChange', ({ reason }) => late.push(reason))
  middleware.events.on('storeError', () => {})
  const app = express()
  app.use(middleware)
  app.get('/', answer)
  app.get('/peek', (req, res) => void res.json(req.session))
  app.get('/fill', (req, res) => {
    req.session.set('filled', true)
    res.end()
  })
  const server = await listen(app)
  closers.push(server.close)
  return { app, store, clock, late, middleware, server, client: new Client(server) }
}

describe('a change after the answer', () => {
  test('is told, even when the session was not looked at before', async () => {
    const { client, late, store } = await serve((req, res) => {
      res.send('answered')
      req.session.set('a', 1)
    })
    expect((await client.get('/')).body).toBe('answered')
    await until(() => late.length > 0)
    expect(late).toEqual(['after-response'])
    expect(store.calls.create).toBe(0)
  })

  test('is stored all the same while the commit is under way', async () => {
    const { client, late } = await serve((req, res) => {
      req.session.set('a', 1)
      res.send('answered')
      req.session.set('b', 2)
    })
    await client.get('/')
    expect((await client.get('/peek')).json()).toEqual({ a: 1, b: 2 })
    expect(late).toEqual([])
  })
})

describe('a codec that gives other text each time', () => {
  test('costs a few writes, and the response comes', async () => {
    let count = 0
    const codec = {
      encode: (value: unknown) => `${count++} ${JSON.stringify(value)}`,
      decode: (text: string): unknown => JSON.parse(text.slice(text.indexOf(' '))),
    }
    const { client, store } = await serve(
      (req, res) => {
        req.session.set('list', [1])
        res.send('answered')
      },
      { codec },
    )
    expect((await client.get('/')).body).toBe('answered')
    expect(countCalls(store)).toBeLessThan(5)
    expect((await client.get('/peek')).json()).toEqual({ list: [1] })
  })
})

describe('a body of known length', () => {
  test('does not come whole before the commit, also when the session is first looked at half-way', async () => {
    let isStored = false
    const { client, store } = await serve((req, res) => {
      res.set('Content-Length', '10')
      res.write('12345')
      req.session.set('b', 2)
      res.write('67890')
      res.end()
    })
    await client.get('/fill')
    store.fail({ kind: 'delay', operations: ['update'] })
    const answer = client.get('/').then((got) => ({ ...got, wasStored: isStored }))
    await until(() => store.heldCalls === 1)
    isStored = true
    store.release()
    expect(await answer).toMatchObject({ body: '1234567890', isTruncated: false, wasStored: true })
    expect((await client.get('/peek')).json()).toEqual({ filled: true, b: 2 })
  })
})

describe('Vary', () => {
  test.each<[string, (res: express.Response) => void]>([
    ['set()', (res) => void res.set('Vary', 'Accept').end()],
    ['writeHead()', (res) => void res.writeHead(200, { Vary: 'Accept' }).end()],
  ])('has Cookie also when the handler sets it by %s after it read the session', async (_how, answer) => {
    const { client } = await serve((req, res) => {
      req.session.get('filled')
      answer(res)
    })
    await client.get('/fill')
    expect((await client.get('/')).headers.vary).toBe('Accept, Cookie')
  })
})

describe("commit: 'after-response'", () => {
  test('a persistent cookie moves with the session, also with one that was chosen in the request', async () => {
    const { client, clock } = await serve(
      (req, res) => {
        if (req.query['days']) req.session.cookie.maxAge = Number(req.query['days']) * 86_400_000
        res.end()
      },
      { commit: 'after-response', cookie: { persistent: true }, idleTimeout: '30m', absoluteTimeout: '2d' },
    )
    const first = await client.get('/fill')
    expect(first.setCookies[0]).toMatch(/Max-Age=1800/)
    for (let request = 0; request < 4; request++) {
      clock.advance(20 * MINUTE)
      expect((await client.get('/')).setCookies[0]).toMatch(/Max-Age=1800/)
    }
    expect((await client.get('/')).setCookies).toEqual([])
    // Two days from now would be beyond the absolute timeout: two days from the creation of the session, 80 minutes ago.
    expect((await client.get('/?days=2')).setCookies[0]).toMatch(/Max-Age=168000/)
  })
})

describe('the absolute timeout', () => {
  test('is not pushed on by a maxAge that is set in every request', async () => {
    const { client, clock } = await serve(
      (req, res) => {
        req.session.cookie.maxAge = 30 * MINUTE
        res.json(req.session)
      },
      { absoluteTimeout: '2h' },
    )
    await client.get('/fill')
    for (let elapsed = 0; elapsed < 110; elapsed += 10) {
      clock.advance(10 * MINUTE)
      expect((await client.get('/')).json()).toEqual({ filled: true })
    }
    clock.advance(10 * MINUTE)
    expect((await client.get('/')).json()).toEqual({})
  })

  test('starts afresh with the empty session that regenerate() begins', async () => {
    const { client, clock } = await serve(
      async (req, res) => {
        await req.session.regenerate()
        req.session.set('again', true)
        res.end()
      },
      { absoluteTimeout: '1h', idleTimeout: '1h' },
    )
    await client.get('/fill')
    clock.advance(50 * MINUTE)
    await client.get('/')
    clock.advance(50 * MINUTE)
    expect((await client.get('/peek')).json()).toEqual({ again: true })
  })
})

describe('an operation that nobody waits for', () => {
  test.each(['logout', 'regenerate', 'setExpiry'] as const)(
    '%s fails the response and not the process',
    async (name) => {
      const unhandled: unknown[] = []
      const notice = (error: unknown): void => void unhandled.push(error)
      process.on('unhandledRejection', notice)
      const { client, store } = await serve((req, res) => {
        if (name === 'setExpiry') void req.session.setExpiry('1h')
        else void req.session[name]()
        res.send('done')
      })
      await client.get('/fill')
      store.fail({ kind: 'error', operations: ['end', 'regenerate', 'update'] })
      const answer = await client.get('/')
      await new Promise((resolve) => setImmediate(resolve))
      process.off('unhandledRejection', notice)
      expect(answer.status).toBe(503)
      expect(unhandled).toEqual([])
    },
  )
})

describe('update() of a session that is not stored', () => {
  test('after the response is told as late', async () => {
    const { client, late } = await serve((req, res) => {
      res.send('answered')
      setImmediate(() => {
        req.session.update('n', () => 1).catch(() => late.push('refused'))
      })
    })
    await client.get('/')
    await until(() => late.length > 0)
    expect(late).toEqual(['refused'])
  })
})

describe('a session that cannot be loaded', () => {
  test('is there, empty, for the error handler, by req and by getSession()', async () => {
    const { app, client, store } = await serve((_req, res) => void res.end())
    const onError: ErrorRequestHandler = (_error, req, res, _next) => {
      res.status(503).json({ same: getSession() === req.session, fields: req.session })
    }
    app.use(onError)
    await client.get('/fill')
    store.fail({ kind: 'error' })
    expect((await client.get('/')).json()).toEqual({ same: true, fields: {} })
  })
})

describe('a req.session of somebody else', () => {
  test.each([{ a: 1 }, Object.create(null)])('is an error, not an exception', async (foreign) => {
    const middleware = session({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
    const server = await listen((req, res) => {
      Object.assign(req, { session: foreign })
      middleware(req, res, (error) => res.end((error as { code: string }).code))
    })
    closers.push(server.close)
    expect((await new Client(server).get('/')).body).toBe('INVALID_OPTION')
  })
})
