// The current session for code that is handed no request, across what requests wait for and what loses it.
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { EventEmitter, once } from 'node:events'
import { createReadStream } from 'node:fs'
import { Agent, createServer, request as httpRequest } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { createRequire } from 'node:module'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, describe, expect, test } from '@jest/globals'
import connect from 'connect'
import express, { type Express, type Request, type Response } from 'express'
import multer from 'multer'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import {
  bindSession,
  getSession,
  getSessionId,
  MemorySessionStore,
  requireSession,
  requireSessionId,
  type SessionOptions,
  session,
  sessionContext,
  withSession,
} from 'sojourn'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const running: TestServer[] = []

afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})

/** Mounts the session and `routes`, and listens. */
async function start(
  routes: (app: Express) => void,
  { options = {}, app = express() }: { options?: Partial<SessionOptions>; app?: Express } = {},
): Promise<Client> {
  app.set('env', 'test')
  app.use(session({ secret: SECRET, ...options }))
  routes(app)
  const server = await listen(app)
  running.push(server)
  return new Client(server)
}

/** What `handler` answers to one request. */
async function answerOf(
  handler: (req: Request, res: Response) => unknown,
  options: Partial<SessionOptions> = {},
): Promise<unknown> {
  const client = await start(
    (app) =>
      app.get('/', async (req, res) => {
        res.json(await handler(req, res))
      }),
    { options },
  )
  const { status, body } = await client.get('/')
  expect({ status, body }).toMatchObject({ status: 200 })
  return JSON.parse(body)
}

/** Whether the current session, without a request, is that of the request. */
function isHere(req: object): boolean {
  return getSession() !== undefined && getSession() === getSession(req)
}

describe('with a request', () => {
  test('the session and its logical ID are those of the request', async () => {
    const [isSame, ofReq, ids] = (await answerOf((req) => [
      getSession(req) === req.session && requireSession(req) === req.session,
      getSessionId(req),
      [req.session.logicalId, requireSessionId(req), getSessionId(), requireSessionId()],
    ])) as [boolean, string, string[]]
    expect(isSame).toBe(true)
    expect(ofReq).toMatch(UUID)
    expect(new Set(ids)).toEqual(new Set([ofReq]))
  })

  test('without a session of ours there is none, whatever the request calls its session', () => {
    for (const req of [{}, { session: {} }, { session: null }, { session: { logicalId: 'x' } }]) {
      expect(getSession(req)).toBeUndefined()
      expect(getSessionId(req)).toBeUndefined()
      expect(() => requireSession(req)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
      expect(() => requireSessionId(req)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    }
  })
})

describe('outside of a request', () => {
  test('there is none, and the strict forms say what to do', () => {
    expect(getSession()).toBeUndefined()
    expect(getSessionId()).toBeUndefined()
    for (const strict of [requireSession, requireSessionId]) {
      expect(() => strict()).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('session() middleware') }),
      )
    }
  })

  test('nothing of a request stays behind for what the program does between two of them', async () => {
    let before: unknown
    const client = await start((app) => {
      app.get('/', (_req, res) => {
        res.json({ id: getSessionId() })
      })
    })
    running[0]?.server.on('request', () => {
      before ??= getSession() ?? 'none'
    })
    await client.get('/')
    expect(getSession()).toBeUndefined()
    await client.get('/')
    expect(before).toBe('none')
  })
})

describe('from anywhere in a request', () => {
  test('across await, promises, timers and the microtask queue', async () => {
    expect(
      await answerOf(async (req) => {
        const here: boolean[] = []
        const look = (): void => {
          here.push(isHere(req))
        }
        await Promise.resolve()
        look()
        await delay(1)
        look()
        await nextTurn()
        look()
        await new Promise<void>((resolve) => process.nextTick(resolve))
        look()
        await Promise.all([delay(1).then(look), Promise.reject(new Error('no')).catch(look)])
        await new Promise<void>((resolve) => queueMicrotask(() => resolve(look())))
        await new Promise<void>((resolve) => {
          let count = 0
          const timer = setInterval(() => {
            look()
            if (++count < 2) return
            clearInterval(timer)
            resolve()
          }, 1)
        })
        return here
      }),
    ).toEqual(Array(9).fill(true))
  })

  test('across streams and event emitters that the request makes', async () => {
    expect(
      await answerOf(async (req) => {
        const here: boolean[] = []
        const look = (): void => {
          here.push(isHere(req))
        }
        for await (const _chunk of createReadStream(new URL('../../package.json', import.meta.url))) look()
        const seen = new Transform({
          transform(chunk, _encoding, done) {
            look()
            done(null, chunk)
          },
        })
        await pipeline(Readable.from(['a', 'b']), seen.resume())
        const emitter = new EventEmitter()
        emitter.on('event', look)
        setTimeout(() => emitter.emit('event'), 1)
        await once(emitter, 'event')
        look()
        return here.includes(false) ? here : 'everywhere'
      }),
    ).toBe('everywhere')
  })

  test('reading the body of the request by await, and when the response is over', async () => {
    let over: boolean | undefined
    const client = await start((app) => {
      app.post('/', async (req, res) => {
        const here: boolean[] = []
        for await (const _chunk of req) here.push(isHere(req))
        here.push(isHere(req))
        res.on('finish', () => {
          over = isHere(req)
        })
        res.json(here)
      })
    })
    expect((await client.post('/', 'x'.repeat(100_000))).body).not.toContain('false')
    expect(over).toBe(true)
  })

  test('parallel requests each see their own, however their steps mix', async () => {
    const client = await start((app) => {
      app.get('/', async (req, res) => {
        const ids = [getSessionId()]
        for (let step = 0; step < 5; step++) {
          await delay(Math.random() * 3)
          ids.push(getSessionId())
        }
        res.json({ own: req.session.logicalId, ids })
      })
    })
    const answers = await Promise.all(Array.from({ length: 30 }, () => client.clone().get('/')))
    const own = answers.map((answer) => {
      const { own, ids } = answer.json<{ own: string; ids: string[] }>()
      expect(new Set(ids)).toEqual(new Set([own]))
      return own
    })
    expect(new Set(own).size).toBe(30)
  })

  test('requests on one kept-alive connection each see their own', async () => {
    const client = await start((app) => {
      app.get('/', async (req, res) => {
        await nextTurn()
        res.json({ isHere: isHere(req), id: req.session.id })
      })
    })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const bodies = await Promise.all(Array.from({ length: 5 }, () => bodyOf(`${running[0]?.url}/`, { agent })))
    agent.destroy()
    expect(client).toBeDefined()
    const answers = bodies.map((body) => JSON.parse(body) as { isHere: boolean; id: string })
    expect(answers.every((answer) => answer.isHere)).toBe(true)
    expect(new Set(answers.map(({ id }) => id)).size).toBe(5)
  })

  test('after regenerate(), login() and logout() it is the session to go on with', async () => {
    expect(
      await answerOf(async (req) => {
        const here: boolean[] = []
        const old = req.session
        await req.session.regenerate()
        here.push(isHere(req), getSession() !== old)
        await req.session.login('ann')
        here.push(isHere(req))
        const before = getSessionId()
        await req.session.logout()
        here.push(isHere(req), getSessionId() !== before)
        return here
      }),
    ).toEqual(Array(5).fill(true))
  })

  test('in an error handler, also when the store is out of reach', async () => {
    const client = await start((app) => {
      app.get('/', () => {
        throw new Error('no')
      })
      app.use(((_error, req, res, _next) => {
        res.status(500).json({ isHere: isHere(req) })
      }) as express.ErrorRequestHandler)
    })
    expect((await client.get('/')).json()).toEqual({ isHere: true })
  })

  test('under Connect, plain Node and HTTP/2', async () => {
    const middleware = session({ secret: SECRET })
    const app = connect()
    app.use(middleware)
    app.use((req: object, res: { end(text: string): void }) => {
      void nextTurn().then(() => res.end(String(isHere(req))))
    })
    const plain = createServer((req, res) => {
      middleware(req, res, () => {
        void nextTurn().then(() => res.end(String(isHere(req))))
      })
    })
    for (const handler of [app, plain.listeners('request')[0] as Parameters<typeof listen>[0]]) {
      const server = await listen(handler)
      running.push(server)
      expect((await new Client(server).get('/')).body).toBe('true')
    }

    const http2 = createHttp2Server((req, res) => {
      middleware(req, res, () => {
        void nextTurn().then(() => res.end(String(isHere(req))))
      })
    }).listen(0, '127.0.0.1')
    await once(http2, 'listening')
    const peer = connectHttp2(`http://127.0.0.1:${(http2.address() as { port: number }).port}`)
    const chunks: Buffer[] = []
    for await (const chunk of peer.request({ ':path': '/' })) chunks.push(chunk as Buffer)
    peer.close()
    http2.close()
    expect(Buffer.concat(chunks).toString()).toBe('true')
  })
})

describe.each([
  ['Express 5', express],
  ['Express 4', express4],
])('behind libraries, on %s', (_name, create) => {
  const here = (req: Request, res: Response): void => {
    res.json({ isHere: isHere(req), id: getSessionId() === req.session.logicalId })
  }

  test.each([
    ['express.json', create.json(), 'application/json', ['{"a":', '1}']],
    ['express.urlencoded', create.urlencoded({ extended: true }), 'application/x-www-form-urlencoded', ['a=1', '&b=2']],
    ['express.text', create.text(), 'text/plain', ['a', 'b']],
    ['express.raw', create.raw(), 'application/octet-stream', ['a', 'b']],
    ['multer in memory', multer().single('photo'), 'multipart/form-data; boundary=edge', upload()],
    ['multer without files', multer().none(), 'multipart/form-data; boundary=edge', upload('note')],
  ] as const)('the handler after %s has it, for a body that comes in pieces', async (_parser, parser, type, pieces) => {
    await start(
      (app) => {
        app.post('/plain', parser, here)
        app.post('/restored', parser, sessionContext, here)
      },
      { app: create() },
    )
    for (const path of ['plain', 'restored']) {
      const body = await bodyOf(`${running[0]?.url}/${path}`, { type, pieces })
      expect(JSON.parse(body)).toEqual({ isHere: true, id: true })
    }
  })

  test('callbacks of Passport have it, in its strategy, its (de)serializers and after', async () => {
    const seen: Record<string, boolean> = {}
    const look = (what: string): void => {
      seen[what] = (seen[what] ?? true) && getSessionId() !== undefined
    }
    const auth = new passport.Passport()
    auth.use(
      new LocalStrategy((username, _password, done) => {
        look('strategy')
        setTimeout(() => done(null, { username }), 1)
      }),
    )
    auth.serializeUser((user, done) => {
      look('serializeUser')
      done(null, (user as { username: string }).username)
    })
    auth.deserializeUser((name: string, done) => {
      look('deserializeUser')
      done(null, { username: name })
    })
    const client = await start(
      (app) => {
        app.use(create.json(), auth.initialize(), auth.session())
        app.post('/login', auth.authenticate('local'), (req, res) => {
          look('after login')
          here(req, res)
        })
        app.get('/me', here)
        app.post('/logout', (req, res, next) => {
          req.logout((error) => {
            look('after logout')
            if (error) next(error)
            else here(req, res)
          })
        })
      },
      { app: create() },
    )
    for (const request of [
      () => client.post('/login', { username: 'ann', password: 'x' }),
      () => client.get('/me'),
      () => client.post('/logout'),
    ]) {
      expect((await request()).json()).toEqual({ isHere: true, id: true })
    }
    expect(seen).toEqual({
      strategy: true,
      serializeUser: true,
      deserializeUser: true,
      'after login': true,
      'after logout': true,
    })
  })
})

describe('what loses it', () => {
  /** As a pool with its own connections does: whoever asks, the answer comes from where the pool was made. */
  function pool(): { query(done: () => void): void } {
    const home = new AsyncResource('pool')
    return { query: (done) => setImmediate(() => home.runInAsyncScope(done)) }
  }

  test('gets it back by sessionContext, withSession() and bindSession()', async () => {
    const { query } = pool()
    const client = await start((app) => {
      app.get('/lost', (req, res) => {
        query(() => {
          res.json({ isHere: isHere(req), id: getSessionId() ?? null })
        })
      })
      app.get(
        '/sessionContext',
        (_req, _res, next) => query(next),
        sessionContext,
        async (req, res) => {
          await nextTurn()
          res.json({ isHere: isHere(req) })
        },
      )
      app.get('/withSession', (req, res) => {
        query(() => {
          res.json({ isHere: withSession(req, () => isHere(req)), after: getSession() === undefined })
        })
      })
      app.get('/bindSession', (req, res) => {
        const answer = bindSession((...args: number[]) => {
          res.json({ isHere: isHere(req), args })
        })
        query(() => answer(1, 2))
      })
      app.get('/bound-before-login', (req, res) => {
        const answer = bindSession(() => {
          res.json({ isHere: isHere(req), userId: getSession()?.metadata.userId })
        })
        void req.session.regenerate().then(async (fresh) => {
          await fresh.login('ann')
          query(answer)
        })
      })
    })
    expect((await client.get('/lost')).json()).toEqual({ isHere: false, id: null })
    expect((await client.get('/sessionContext')).json()).toEqual({ isHere: true })
    expect((await client.get('/withSession')).json()).toEqual({ isHere: true, after: true })
    expect((await client.get('/bindSession')).json()).toEqual({ isHere: true, args: [1, 2] })
    expect((await client.get('/bound-before-login')).json()).toEqual({ isHere: true, userId: 'ann' })
  })

  test('listeners on the request itself, which Node calls from the connection, have it by bindSession()', async () => {
    await start((app) => {
      app.post('/', (req, res) => {
        const here: boolean[] = []
        const look = bindSession(() => {
          here.push(isHere(req))
        })
        req.on('data', look)
        req.on('end', () => {
          look()
          res.json(here)
        })
      })
    })
    const body = await bodyOf(`${running[0]?.url}/`, { type: 'text/plain', pieces: ['a', 'b', 'c'] })
    expect(JSON.parse(body)).toContain(true)
    expect(body).not.toContain('false')
  })

  test('withSession() passes results and errors on, goes by the request, and does nothing for one without a session', async () => {
    expect(
      await answerOf(async (req) => {
        const other = { session: req.session }
        const failure = new Error('no')
        let thrown: unknown
        try {
          withSession(req, () => {
            throw failure
          })
        } catch (error) {
          thrown = error
        }
        return [
          withSession(other, () => getSession() === req.session),
          await withSession(req, async () => {
            await nextTurn()
            return isHere(req)
          }),
          withSession({}, () => getSession() === req.session),
          thrown === failure,
        ]
      }),
    ).toEqual([true, true, true, true])
    expect(withSession({}, () => getSession() ?? 'none')).toBe('none')
  })

  test('bindSession() outside of a request binds to none, also when it is called in one', async () => {
    const look = bindSession(() => getSession() ?? 'none')
    expect(await answerOf(() => look())).toBe('none')
  })

  test('the session store is called without it, whose promises would keep the request; the handler and events have it', async () => {
    const seen: unknown[] = []
    const other = new AsyncLocalStorage<string>()
    class Watching extends MemorySessionStore {
      override update(...args: Parameters<MemorySessionStore['update']>): ReturnType<MemorySessionStore['update']> {
        seen.push(['update', getSession() !== undefined, other.getStore()])
        return super.update(...args)
      }
    }
    const store = new Watching()
    const middleware = session({ secret: SECRET, store })
    const app = express()
    app.use(middleware)
    app.get('/new', (req, res) => {
      req.session.set('views', 1)
      res.end()
    })
    app.get('/', (req, res) =>
      other.run('theirs', async () => {
        req.session.set('views', 2)
        await req.session.save()
        res.json(isHere(req))
      }),
    )
    middleware.manager.events.on('committed', () =>
      seen.push(['committed', getSession() !== undefined, other.getStore()]),
    )
    const server = await listen(app)
    running.push(server)
    const client = new Client(server)
    await client.get('/new')
    expect((await client.get('/')).body).toBe('true')
    expect(seen).toEqual([
      ['update', false, 'theirs'],
      ['committed', true, 'theirs'],
    ])
  })

  test("other libraries' contexts are left alone", async () => {
    const other = new AsyncLocalStorage<string>()
    expect(
      await answerOf((req) => other.run('theirs', () => withSession(req, () => [other.getStore(), isHere(req)]))),
    ).toEqual(['theirs', true])
  })
})

describe('with context: false', () => {
  test('only a request, or withSession() with one, leads to the session', async () => {
    expect(
      await answerOf(
        async (req) => [
          getSession() === undefined && getSessionId() === undefined,
          getSession(req) === req.session,
          getSessionId(req) === req.session.logicalId,
          withSession(req, () => getSession() === req.session),
        ],
        { context: false },
      ),
    ).toEqual([true, true, true, true])
  })
})

/** A multipart body in pieces that end in the middle of things. */
function upload(name = 'photo'): string[] {
  const file = name === 'photo' ? '; filename="a.png"\r\ncontent-type: image/png' : ''
  const body = `--edge\r\ncontent-disposition: form-data; name="${name}"${file}\r\n\r\n${'x'.repeat(5_000)}\r\n--edge--\r\n`
  return [body.slice(0, 60), body.slice(60, 3_000), body.slice(3_000)]
}

/** Sends a body in pieces, each of which the server has time to see alone. */
async function bodyOf(
  url: string,
  { agent, type, pieces = [] }: { agent?: Agent; type?: string; pieces?: readonly string[] },
): Promise<string> {
  const req = httpRequest(url, {
    agent: agent ?? false,
    method: pieces.length > 0 ? 'POST' : 'GET',
    headers: type === undefined ? {} : { 'content-type': type },
  })
  const answered = once(req, 'response') as Promise<[import('node:http').IncomingMessage]>
  req.setNoDelay(true)
  for (const piece of pieces) {
    req.write(piece)
    await delay(5)
  }
  req.end()
  const [res] = await answered
  const chunks: Buffer[] = []
  for await (const chunk of res) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
