// Log lines and error answers that carry the logical ID, with real pino and pino-http, on Express 4 and 5.
import { createRequire } from 'node:module'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals'
import express, { type Express, type Request } from 'express'
import createError from 'http-errors'
import { pino } from 'pino'
import { pinoHttp } from 'pino-http'
import { type Activity, MemorySessionStore, type SessionOptions, session } from 'sojourn'
import { sessionErrorHandler, sessionLogger, sessionMixin } from 'sojourn/activity'
import { FaultyStore } from 'sojourn/testing'
import { Client, listen, SECRET, send, type TestServer, until } from '../../support/http.js'
import { peek } from '../../support/logical-app.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express
const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

const running: TestServer[] = []
let text = ''

/** What a logger writes to. */
const stream = {
  write(line: string) {
    text += line
  },
}

interface Line {
  msg: string
  level: number
  sessionId?: string
  err?: Record<string, unknown>
  [name: string]: unknown
}

function lines(): Line[] {
  return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Line]))
}

function lineOf(msg: string): Line {
  const found = lines().filter((line) => line.msg === msg)
  expect({ msg, count: found.length }).toEqual({ msg, count: 1 })
  return found[0] as Line
}

beforeEach(() => {
  text = ''
})

afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})

async function start(
  routes: (app: Express) => void,
  {
    create = express,
    before = [],
    ...options
  }: Partial<SessionOptions> & { create?: typeof express; before?: express.RequestHandler[] } = {},
): Promise<Client> {
  const app = create()
  app.set('env', 'test')
  app.get('/healthz', (_req, res) => {
    res.end()
  })
  for (const handler of before) app.use(handler)
  app.use(session({ secret: SECRET, ...options }))
  routes(app)
  const server = await listen(app)
  running.push(server)
  return new Client(server)
}

describe('sessionMixin()', () => {
  test('each line of a request carries the logical ID of its session, and no line outside of one', async () => {
    const logger = pino({ mixin: sessionMixin() }, stream)
    const client = await start((app) => {
      app.get('/', async (req, res) => {
        logger.info('at once')
        await nextTurn()
        logger.child({ part: 'payment' }).warn({ order: 7 }, 'later')
        res.json({ id: req.session.logicalId })
      })
    })
    logger.info('before')
    const { id } = (await client.get('/')).json()
    expect(id).toMatch(UUID_V4)
    expect(lineOf('at once').sessionId).toBe(id)
    expect(lineOf('later')).toMatchObject({ sessionId: id, part: 'payment', order: 7 })
    expect(lineOf('before')).not.toHaveProperty('sessionId')
  })

  test('only looks: no session, no cookie, no Vary, no store call; the ID of a stored session is the one kept later', async () => {
    const logger = pino({ mixin: sessionMixin() }, stream)
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const client = await start(
      (app) => {
        app.get('/log', (req, res) => {
          logger.info(req.url)
          res.end()
        })
        app.get('/set', (req, res) => {
          req.session.set('a', 1)
          res.end()
        })
        app.get('/id', (req, res) => {
          res.json(req.session.logicalId)
        })
      },
      { store },
    )
    const answer = await client.get('/log?stranger')
    expect(answer.setCookies).toEqual([])
    expect(answer.headers['vary']).toBeUndefined()
    expect(store.totalCalls).toBe(0)
    await client.get('/set')
    await client.get('/log?guest')
    expect(lineOf('/log?guest').sessionId).toBe(JSON.parse((await client.get('/id')).body))
    expect(lineOf('/log?stranger').sessionId).not.toBe(lineOf('/log?guest').sessionId)
  })

  test('stays the same through login() and renew(), and follows restart() and logout()', async () => {
    const logger = pino({ mixin: sessionMixin() }, stream)
    const client = await start((app) => {
      app.get('/set', (req, res) => {
        logger.info('set')
        req.session.set('a', 1)
        res.end()
      })
      app.get('/', async (req, res) => {
        logger.info('begin')
        await req.session.login('ann')
        await req.session.renew()
        logger.info('logged in')
        await req.session.restart()
        logger.info('restarted')
        await req.session.logout()
        logger.info('logged out')
        res.end()
      })
    })
    await client.get('/set')
    await client.get('/')
    const ids = ['set', 'begin', 'logged in', 'restarted', 'logged out'].map((msg) => lineOf(msg).sessionId)
    expect(new Set(ids.slice(0, 3)).size).toBe(1)
    expect(new Set(ids).size).toBe(3)
  })

  test('a field of the line goes before it, and the line of one request does not leak into another', async () => {
    const mixin = sessionMixin()
    const logger = pino({ mixin }, stream)
    const client = await start((app) => {
      app.get('/', (_req, res) => {
        logger.info({ sessionId: 'mine', secret: 'x' }, 'own')
        logger.info('next')
        res.end()
      })
    })
    await client.get('/')
    expect(lineOf('own').sessionId).toBe('mine')
    expect(lineOf('next')).not.toHaveProperty('secret')
    expect(lineOf('next').sessionId).toMatch(UUID_V4)
  })

  test('logging a hostile object, or the session itself, neither throws nor makes the response depend on it', async () => {
    const mixin = sessionMixin()
    const hostile = {
      get req(): never {
        throw new Error('no')
      },
    }
    expect(mixin(hostile)).toStrictEqual({})
    for (const subject of [null, 'text', 7, { req: null, res: 7 }, { session: { logicalId: 'x' } }]) {
      expect(mixin(subject as object)).toStrictEqual({})
    }
    const client = await start((app) => {
      app.get('/', (req, res) => {
        res.json([mixin(req.session).sessionId === peek(), mixin({ req }).sessionId === peek()])
      })
    })
    const answer = await client.get('/')
    expect(answer.json()).toEqual([true, true])
    expect(answer.headers['vary']).toBeUndefined()
  })

  test('nothing is added with context: false, unless the line is about a request', async () => {
    const logger = pino({ mixin: sessionMixin() }, stream)
    const client = await start(
      (app) => {
        app.get('/', (req, res) => {
          logger.info('plain')
          logger.info({ res: Object.assign(Object.create({ req }), {}) }, 'about')
          res.json({ id: req.session.logicalId })
        })
      },
      { context: false },
    )
    const { id } = (await client.get('/')).json()
    expect(lineOf('plain')).not.toHaveProperty('sessionId')
    expect(lineOf('about').sessionId).toBe(id)
  })
})

describe.each([
  ['Express 5', express],
  ['Express 4', express4],
] as const)('pino-http on %s', (_name, create) => {
  const redact = ['req.headers.cookie', 'res.headers["set-cookie"]']

  const routes = (app: Express): void => {
    app.get('/', async (req: Request & { log?: pino.Logger }, res) => {
      req.log?.info('in the handler')
      await nextTurn()
      res.json({ id: req.session.logicalId })
    })
  }

  test('mixin: the lines of req.log and the line about the whole request carry it, once', async () => {
    const logger = pino({ mixin: sessionMixin(), redact }, stream)
    const client = await start(routes, { create, before: [pinoHttp({ logger })] })
    const { id } = (await client.get('/')).json()
    await until(() => lines().length === 2)
    expect(lineOf('in the handler').sessionId).toBe(id)
    expect(lineOf('request completed').sessionId).toBe(id)
    expect(text.match(/"sessionId"/g)).toHaveLength(2)
    for (const value of client.cookies.values()) expect(text).not.toContain(value)
  })

  test('mixin: the line about a request that the client gave up, too', async () => {
    const logger = pino({ mixin: sessionMixin(), redact }, stream)
    let id: string | undefined
    let arrived = (): void => {}
    const arrival = new Promise<void>((resolve) => {
      arrived = resolve
    })
    await start(
      (app) => {
        app.get('/', (req) => {
          id = req.session.logicalId
          arrived()
        })
      },
      { create, before: [pinoHttp({ logger })] },
    )
    const abort = new AbortController()
    const request = fetch(`${running[0]?.url}/`, { signal: abort.signal }).catch(() => {})
    await arrival
    abort.abort()
    await request
    await until(() => lines().length === 1)
    expect(lines()[0]?.sessionId).toBe(id)
  })

  test.each([true, false])(
    'customProps: the line about the whole request carries it, with context: %s',
    async (context) => {
      const logger = pino({ redact }, stream)
      const client = await start(routes, {
        create,
        context,
        before: [pinoHttp({ logger, customProps: sessionMixin() })],
      })
      const { id } = (await client.get('/')).json()
      await until(() => lines().length === 2)
      expect(lineOf('request completed').sessionId).toBe(id)
    },
  )

  test('sessionLogger() as its logger: all lines carry it', async () => {
    const logger = sessionLogger(pino({ redact }, stream))
    const client = await start(routes, { create, before: [pinoHttp({ logger })] })
    const { id } = (await client.get('/')).json()
    await until(() => lines().length === 2)
    expect(lines().map(({ sessionId }) => sessionId)).toEqual([id, id])
  })
})

describe('sessionLogger()', () => {
  test('each line of a request carries the ID, of children and own levels as well; outside of one, none does', async () => {
    const plain = pino({ customLevels: { audit: 35 }, level: 'info' }, stream)
    const logger = sessionLogger(plain)
    const client = await start((app) => {
      app.get('/', async (req, res) => {
        logger.info('one')
        logger.child({ part: 'payment' }).error({ order: 7 }, 'two %s', 'parts')
        logger.audit('three')
        logger.debug('never')
        await req.session.restart()
        logger.info('four')
        plain.info('plain')
        res.json({ id: req.session.logicalId })
      })
    })
    logger.info('outside')
    const { id } = (await client.get('/')).json()
    const [one, two, three] = ['one', 'two parts', 'three'].map(lineOf)
    expect(one?.sessionId).toMatch(UUID_V4)
    expect(two).toMatchObject({ sessionId: one?.sessionId, part: 'payment', order: 7, level: 50 })
    expect(three).toMatchObject({ sessionId: one?.sessionId, level: 35 })
    expect(lineOf('four').sessionId).toBe(id)
    expect(id).not.toBe(one?.sessionId)
    for (const msg of ['outside', 'plain']) expect(lineOf(msg)).not.toHaveProperty('sessionId')
    expect(text).not.toContain('never')
  })

  test('is the same logger in all else: levels, bindings, and what is set on it', async () => {
    const plain = pino({ level: 'warn' }, stream)
    const logger = sessionLogger(plain)
    logger.info('not yet')
    expect(logger.isLevelEnabled('info')).toBe(false)
    logger.level = 'debug'
    expect(plain.level).toBe('debug')
    const client = await start((app) => {
      app.get('/', (_req, res) => {
        logger.debug('now')
        res.end()
      })
    })
    await client.get('/')
    expect(lineOf('now').sessionId).toMatch(UUID_V4)
    expect(logger.child({ a: 1 }).bindings()).toEqual({ a: 1 })
    expect(text).not.toContain('not yet')
  })

  test('a logger that makes no children is refused', () => {
    for (const logger of [console, {}, undefined, null]) {
      expect(() => sessionLogger(logger as never)).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('child()') }),
      )
    }
  })
})

describe.each([
  ['Express 5', express],
  ['Express 4', express4],
] as const)('sessionErrorHandler() on %s', (_name, create) => {
  const MESSAGE = 'An error occurred. Please give the session ID when you report it.'
  let thrown: unknown
  let activities: Activity[]

  beforeEach(() => {
    thrown = new Error('The database at 10.0.0.7 refused password hunter2')
    activities = []
  })

  /** An app whose `/fail` fails with `thrown`. */
  function failing(
    handler: Parameters<typeof sessionErrorHandler>[0] = {},
    options: Parameters<typeof start>[1] = {},
  ): Promise<Client> {
    const logger = pino({ mixin: sessionMixin() }, stream)
    return start(
      (app) => {
        app.get('/set', (req, res) => {
          req.session.set('card', 'session data of card 4711-0815')
          res.json({ id: req.session.logicalId })
        })
        app.get('/fail', (_req, _res, next) => {
          logger.info('about to fail')
          next(thrown)
        })
        app.use(sessionErrorHandler({ logger, showInternals: false, ...handler }))
      },
      { create, activity: (activity) => activities.push(activity), ...options },
    )
  }

  test('answers JSON with the ID that the log lines of the request carry, logs the same, and records an activity', async () => {
    const client = await failing()
    const { id } = (await client.get('/set')).json()
    const answer = await client.get('/fail?password=hunter3')
    expect(answer.status).toBe(500)
    expect(answer.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    expect(answer.json()).toEqual({ error: 'Internal Server Error', sessionId: id, message: MESSAGE })
    expect(lineOf('about to fail').sessionId).toBe(id)
    expect(lineOf('request failed')).toMatchObject({
      level: 50,
      sessionId: id,
      status: 500,
      method: 'GET',
      path: '/fail',
      err: { type: 'Error', message: (thrown as Error).message, stack: expect.stringContaining('logging.test') },
    })
    expect(activities.filter(({ type }) => type === 'error')).toMatchObject([
      {
        logicalId: id,
        details: { status: 500, name: 'Error', message: (thrown as Error).message },
        request: { method: 'GET', path: '/fail' },
      },
    ])
  })

  test('a visitor without a session gets none for an error; answer, log and activity agree all the same', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const client = await failing({}, { store })
    const answer = await client.get('/fail')
    const { sessionId } = answer.json()
    expect(sessionId).toMatch(UUID_V4)
    expect(lines().map((line) => line.sessionId)).toEqual([sessionId, sessionId])
    expect(activities).toMatchObject([{ type: 'error', logicalId: sessionId }])
    expect(answer.setCookies).toEqual([])
    expect(store.totalCalls).toBe(0)
  })

  test.each([
    ['of http-errors', () => createError(404, 'No such order'), 404, 'No such order'],
    ['with a statusCode', () => Object.assign(new Error('Too big'), { statusCode: 413 }), 413, 'Too big'],
    ['below 500 that is not to be shown', () => createError(403, 'Secret rule', { expose: false }), 403, null],
    [
      'of status 500 that is to be shown',
      () => createError(503, 'Back at noon', { expose: true }),
      503,
      'Back at noon',
    ],
    ['with a status that is none', () => Object.assign(new Error('x'), { status: 200 }), 500, null],
    ['with a status that is text', () => Object.assign(new Error('x'), { status: '404' }), 500, null],
    ['that is text', () => 'text with hunter2', 500, null],
    ['that is a number', () => 7, 500, null],
    ['that is an empty object', () => ({}), 500, null],
    ['without a prototype', () => Object.create(null), 500, null],
    ['without a message', () => createError(400, ''), 400, expect.any(String)],
  ])('an error %s', async (_what, make, status, message) => {
    thrown = make()
    const answer = await (await failing()).get('/fail')
    expect(answer.status).toBe(status)
    expect(answer.json()).toMatchObject({ sessionId: expect.stringMatching(UUID_V4), message: message ?? MESSAGE })
    expect(lineOf('request failed')).toMatchObject({ status, level: status >= 500 ? 50 : 40 })
  })

  test('an error whose properties throw is answered, too', async () => {
    thrown = new Proxy(new Error('x'), {
      get() {
        throw new Error('no')
      },
    })
    expect((await (await failing()).get('/fail')).json()).toMatchObject({ message: MESSAGE })
  })

  test('headers of the error are sent, those of the answer that was under way are not', async () => {
    const refused = {
      'Transfer-Encoding': 'chunked',
      'Set-Cookie': 'sid=1',
      'set-cookie2': 'sid=1',
      Connection: 'X-Count',
      'Keep-Alive': '5',
      Upgrade: 'h2c',
      Trailer: 'X-Count',
    }
    const headersOfError = { 'Retry-After': '7', 'X-Bad': 'a\r\nb', 'X-Count': 3, ...refused }
    thrown = createError(429, 'Slow down', { headers: headersOfError })
    const client = await start(
      (app) => {
        app.get('/fail', (_req, res, next) => {
          res.set({
            'Content-Encoding': 'gzip',
            ETag: '"1"',
            'Content-Length': '3',
            'Cache-Control': 'public, max-age=60',
          })
          next(thrown)
        })
        app.use(sessionErrorHandler())
      },
      { create },
    )
    const { headers, body } = await client.get('/fail')
    expect(headers).toMatchObject({ 'retry-after': '7', 'x-count': '3', 'cache-control': 'no-store' })
    const left = [
      'content-encoding',
      'etag',
      'x-bad',
      'transfer-encoding',
      'set-cookie',
      'set-cookie2',
      'upgrade',
      'trailer',
    ]
    for (const name of left) expect(headers).not.toHaveProperty(name)
    expect(headers['connection']).not.toBe('X-Count')
    expect(JSON.parse(body)).toMatchObject({ error: 'Too Many Requests', message: 'Slow down' })
  })

  test.each([
    ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'text/html'],
    ['application/json', 'application/json'],
    ['text/plain', 'text/plain'],
    ['text/*;q=0.5, application/json;q=0.4', 'text/html'],
    ['*/*', 'application/json'],
    ['image/png', 'application/json'],
    ['', 'application/json'],
  ])('Accept: %s is answered as %s', async (accept, type) => {
    thrown = createError(400, 'Bad "input" <script>alert(1)</script> & more')
    const client = await failing()
    const { headers, body } = await client.get('/fail', { accept })
    expect(headers['content-type']).toBe(`${type}; charset=utf-8`)
    expect(body).toContain(lineOf('request failed').sessionId)
    if (type === 'text/html') {
      expect(body).not.toContain('<script>')
      expect(body).toContain('Bad &quot;input&quot; &lt;script&gt;alert(1)&lt;/script&gt; &amp; more')
    }
    if (type === 'text/plain') expect(body).toMatch(/^Bad Request\nBad "input".*\nSession ID: [\w-]{36}\n$/)
  })

  test('HEAD gets the head of it', async () => {
    const client = await failing()
    const [get, head] = [await client.get('/fail'), await client.request('HEAD', '/fail')]
    expect(head.status).toBe(500)
    expect(head.body).toBe('')
    expect(head.headers['content-length']).toBe(get.headers['content-length'])
  })

  test('a response that has begun is logged and left to Express, which cuts it off', async () => {
    const passedOn: unknown[] = []
    const client = await start(
      (app) => {
        app.get('/fail', (_req, res, next) => {
          res.write('half')
          next(thrown)
        })
        app.use(sessionErrorHandler({ logger: pino({}, stream) }))
        app.use(((error, _req, _res, next) => {
          passedOn.push(error)
          next(error)
        }) as express.ErrorRequestHandler)
      },
      { create },
    )
    const answer = await client.get('/fail')
    expect(answer).toMatchObject({ status: 200, isTruncated: true })
    expect(passedOn).toEqual([thrown])
    expect(lineOf('request failed').sessionId).toMatch(UUID_V4)
  })

  test('an error before the session middleware has no ID', async () => {
    const app = create()
    app.use((_req, _res, next) => next(createError(400, 'Early')))
    app.use(session({ secret: SECRET }), sessionErrorHandler({ logger: pino({}, stream) }))
    const server = await listen(app)
    running.push(server)
    expect((await new Client(server).get('/')).json()).toEqual({
      error: 'Bad Request',
      sessionId: null,
      message: 'Early',
    })
    expect(lineOf('request failed')).not.toHaveProperty('sessionId')
    expect((await new Client(server).get('/', { accept: 'text/html' })).body).not.toContain('Session ID')
  })

  test('a commit that fails is answered once, with 503, Retry-After and the ID', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const client = await failing({}, { store })
    const secret = `redis://10.0.0.7 says no to SET session:1 ${SECRET}`
    store.fail({ kind: 'error', operations: ['create'], error: new Error(secret) })
    const answer = await client.get('/set')
    expect(answer.status).toBe(503)
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.json()).toMatchObject({ error: 'Service Unavailable', message: MESSAGE })
    expect(answer.json()['sessionId']).toBe(lineOf('request failed').sessionId)
    // The operator is told what it was.
    expect(lineOf('request failed').err).toMatchObject({ message: expect.stringContaining('says no') })
  })

  test('no token, cookie or session data, and nothing that the error carries along, is in answers, lines or activities', async () => {
    thrown = Object.assign(createError(500, 'Broken', { cause: new TypeError('deeper') }), {
      body: '{"password":"hunter2"}',
      command: { name: 'set', args: ['hunter2'] },
      config: { headers: { authorization: 'Bearer hunter2' } },
    })
    const client = await failing()
    await client.get('/set')
    const cookie = [...client.cookies.values()].map(decodeURIComponent).join()
    const token = cookie.split('.')[1] as string
    expect(token).toMatch(/^[\w-]{43}$/)
    const answers = []
    for (const accept of ['application/json', 'text/html', 'text/plain']) {
      const { body, headers } = await client.get('/fail?token=hunter2', { accept, authorization: 'Bearer hunter2' })
      answers.push(body, JSON.stringify(headers))
    }
    const told = [...answers, text, JSON.stringify(activities)].join('\n')
    for (const secret of [token, cookie, 'hunter2', 'card 4711-0815', SECRET]) expect(told).not.toContain(secret)
    expect(told).toContain('Broken')
    expect(text).toContain('deeper')
    expect(answers.join()).not.toMatch(/Broken|deeper| at /)
  })

  test('outside of production the messages of the inside are shown, but no stack', async () => {
    const client = await failing({ showInternals: true })
    const answer = await client.get('/fail')
    expect(answer.json()['message']).toBe((thrown as Error).message)
    expect(answer.body).not.toContain('logging.test')
    thrown = createError(500, 'Never shown', { expose: false })
    expect((await client.get('/fail')).json()['message']).toBe(MESSAGE)
  })

  test('message replaces the general one', async () => {
    const client = await failing({ message: 'Es ist ein Fehler aufgetreten.' })
    expect((await client.get('/fail')).json()['message']).toBe('Es ist ein Fehler aufgetreten.')
  })

  test('logger may choose by the request, carries the ID once with sessionLogger(), and may throw', async () => {
    const plain = pino({}, stream)
    const client = await failing({ logger: (req: Request) => sessionLogger(plain).child({ host: req.hostname }) })
    await client.get('/fail')
    const line = text.split('\n').find((each) => each.includes('request failed')) ?? ''
    expect(line.match(/"sessionId"/g)).toHaveLength(1)
    expect(JSON.parse(line)).toMatchObject({ host: '127.0.0.1', sessionId: expect.stringMatching(UUID_V4) })

    const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const broken = await failing({
      logger: () => {
        throw new Error('disk full')
      },
    })
    expect((await broken.get('/fail')).json()).toMatchObject({ message: MESSAGE })
    expect(warning).toHaveBeenCalledWith(expect.stringContaining('disk full'), expect.anything())
    warning.mockRestore()
  })

  test('a path of 8 KB with everything in it is one line, and cut', async () => {
    const client = await failing()
    const answer = await send(`${running[0]?.url}/fail/%0d%0a%1b[31m${'x'.repeat(8_000)}`, {
      headers: { cookie: client.cookieHeader },
    })
    expect(answer.status).toBe(404)
    thrown = createError(400, 'a\r\nlevel: 60 \u001b[31m \u2028')
    await client.get(`/fail?${'x'.repeat(8_000)}`)
    expect(text.split('\n').filter((line) => line.includes('request failed'))).toHaveLength(1)
    expect(text).not.toContain('\u001b')
  })
})

test('options that are none are refused, saying what to do', () => {
  for (const options of [{ log: console }, { logger: {} }, { logger: 7 }, { message: '' }, { showInternals: 1 }]) {
    expect(() => sessionErrorHandler(options as never)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  }
  expect(sessionErrorHandler({ logger: console })).toHaveLength(4)
})
