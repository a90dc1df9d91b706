// Requests that another site may have sent are refused before the handler, by the first line that says so.
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type Express, type RequestHandler } from 'express'
import { type Activity, type SessionEvent, type SessionMiddleware, type SessionOptions, session } from 'sojourn'
import { type CsrfOptions, csrf, csrfField, csrfMeta, csrfToken } from 'sojourn/csrf'
import { Client, listen, OTHER_SECRET, SECRET, send, type TestServer } from '../../support/http.js'

const open: TestServer[] = []
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()))
})

interface Site {
  readonly client: Client
  readonly server: TestServer
  readonly middleware: SessionMiddleware
  readonly refused: SessionEvent<'csrfRefused'>[]
  /** How often a handler that changes something ran. */
  acts(): number
  readonly host: string
  stranger(): Client
}

async function site(
  options: CsrfOptions = {},
  sessionOptions: Partial<SessionOptions> = {},
  extend: (app: Express) => void = () => {},
): Promise<Site> {
  let acts = 0
  const refused: SessionEvent<'csrfRefused'>[] = []
  const middleware = session({ secret: SECRET, ...sessionOptions })
  middleware.events.on('csrfRefused', (event) => void refused.push(event))
  const app = express()
  app.set('env', 'test')
  app.set('trust proxy', 'loopback')
  extend(app)
  app.use(middleware, express.urlencoded({ extended: false }), express.json(), csrf(options))
  app.get('/token', (req, res) => {
    res.json({ token: req.csrfToken(), id: req.session.id })
  })
  app.get('/page', (req, res) => void res.send(csrfMeta(req) + csrfField(req)))
  app.get('/tokens', (req, res) => {
    res.json(Array.from({ length: 1_000 }, () => req.csrfToken()))
  })
  app.get('/first', (req, res) => {
    req.session.set('a', 1)
    res.json({ token: csrfToken(req) })
  })
  app.post('/begin', (req, res) => {
    req.session.set('a', 1)
    res.json({})
  })
  app.post('/login', async (req, res) => {
    await req.session.login('ann')
    res.json({ token: csrfToken(req) })
  })
  app.post('/logout', async (req, res) => {
    await req.session.logout()
    res.json({})
  })
  app.post('/renew', async (req, res) => {
    await req.session.renew()
    res.json({})
  })
  app.post('/regenerate', async (req, res) => {
    await req.session.regenerate({ keep: true })
    res.json({})
  })
  const act: RequestHandler = (_req, res) => {
    acts++
    res.json({ acts })
  }
  app.all('/act', act)
  app.use(((error: Error & { status?: number }, _req, res, _next) => {
    res.status(error.status ?? 500).send(error.message)
  }) as express.ErrorRequestHandler)
  const server = await listen(app)
  open.push(server)
  const client = new Client(server)
  const host = `127.0.0.1:${server.port}`
  return { client, server, middleware, refused, acts: () => acts, host, stranger: () => new Client(server) }
}

/** A site whose client has a session. */
async function visited(...args: Parameters<typeof site>): Promise<Site> {
  const there = await site(...args)
  expect((await there.client.post('/begin')).status).toBe(200)
  return there
}

async function tokenOf(client: Client): Promise<string> {
  return (await client.get('/token')).json<{ token: string }>().token
}

const withToken = (token: string): Record<string, string> => ({ 'x-csrf-token': token })

describe('where the browser says who sent a request', () => {
  const SITES = { 'same-origin': 200, none: 200, 'same-site': 403, 'cross-site': 403, 'something-new': 403 } as const
  const ORIGINS = ['same', 'other', 'null', undefined] as const

  test('Sec-Fetch-Site decides, whatever Origin and Referer are (ASVS 3.5.1)', async () => {
    const { client, host, acts, refused } = await visited()
    const originOf = { same: `http://${host}`, other: 'https://evil.example', null: 'null' }
    let passed = 0
    let others = 0
    for (const [fetchSite, status] of Object.entries(SITES)) {
      for (const origin of ORIGINS) {
        const headers = { 'sec-fetch-site': fetchSite, ...(origin && { origin: originOf[origin] }) }
        const answer = await client.post('/act', undefined, headers)
        expect({ fetchSite, origin, status: answer.status }).toEqual({ fetchSite, origin, status })
        if (status === 200) passed++
        else {
          others++
          expect(answer.body).toContain('Sec-Fetch-Site')
        }
      }
    }
    expect(acts()).toBe(passed)
    expect(refused).toHaveLength(others)
    expect(refused.every(({ reason }) => reason === 'fetch-metadata')).toBe(true)
  })

  test('else Origin does, else Referer: scheme, host and port, exactly; without both a token is needed (CVE-2025-24358)', async () => {
    const { client, host } = await visited()
    const own = `http://${host}`
    const wrong = ['https://evil.example', `https://${host}`, `http://${host}.evil.example`, `http://${host}0`]
    wrong.push('http://127.0.0.1', 'http://localhost', `http://127.0.0.1.:${host.split(':')[1]}`, 'http://xn--127-oz4b')
    const outcomes: (readonly [Record<string, string>, string])[] = [
      [{ origin: own }, 'done'],
      [{ origin: own.toUpperCase() }, 'done'],
      [{ origin: own, referer: 'https://evil.example/' }, 'done'],
      ...wrong.map((origin) => [{ origin }, 'Origin'] as const),
      ...wrong.map((origin) => [{ origin, referer: `${own}/page` }, 'Origin'] as const),
      [{ referer: `${own}/page?a=1` }, 'done'],
      ...wrong.slice(0, 2).map((origin) => [{ referer: `${origin}/page` }, 'Referer'] as const),
      [{ referer: `http://127.0.0.1.evil.example/page` }, 'Referer'],
      [{ referer: `${own.replace('127', '128')}/page` }, 'Referer'],
      [{ referer: `https://evil.example/${own}` }, 'Referer'],
      [{ referer: 'about:client' }, 'no CSRF token'],
      [{ referer: 'junk' }, 'no CSRF token'],
      [{ origin: 'null' }, 'no CSRF token'],
      [{ origin: 'null', referer: `${own}/page` }, 'no CSRF token'],
      [{}, 'no CSRF token'],
    ]
    const token = await tokenOf(client)
    for (const [headers, outcome] of outcomes) {
      const { status, body } = await client.post('/act', undefined, headers)
      expect({ headers, status, body }).toEqual(
        outcome === 'done'
          ? { headers, status: 200, body: expect.stringContaining('acts') }
          : { headers, status: 403, body: expect.stringContaining(outcome) },
      )
      // A token makes good for silence, and not for what a header says.
      const isSilent = outcome === 'done' || outcome === 'no CSRF token'
      expect((await client.post('/act', undefined, { ...headers, ...withToken(token) })).status).toBe(
        isSilent ? 200 : 403,
      )
    }
  })

  test('behind a proxy that ends TLS, the origin is that of HTTPS, with its default port written or not', async () => {
    const { server } = await site()
    const client = new Client(server)
    const https = { 'x-forwarded-proto': 'https', host: 'example.org' }
    await client.request('POST', '/begin', { headers: https })
    for (const [origin, status] of [
      ['https://example.org', 200],
      ['https://example.org:443', 200],
      ['http://example.org', 403],
      ['https://example.org:444', 403],
      ['https://www.example.org', 403],
      ['https://example.org.evil.example', 403],
    ] as const) {
      const answer = await client.request('POST', '/act', { headers: { ...https, origin } })
      expect({ origin, status: answer.status }).toEqual({ origin, status })
    }
  })

  test('a trusted origin passes, from another site, too; but no other, and never null', async () => {
    for (const trustedOrigins of [
      ['https://admin.example.com', 'http://localhost:8080/'],
      (origin: string) =>
        origin === 'https://admin.example.com' || origin === 'http://localhost:8080' || origin === 'null',
    ]) {
      const { client } = await visited({ trustedOrigins })
      for (const [origin, status] of [
        ['https://admin.example.com', 200],
        ['http://localhost:8080', 200],
        ['https://example.com', 403],
        ['http://admin.example.com', 403],
        ['https://admin.example.com.evil.example', 403],
        ['null', 403],
      ] as const) {
        for (const fetchSite of ['same-site', 'cross-site', undefined]) {
          const headers = { origin, ...(fetchSite && { 'sec-fetch-site': fetchSite }) }
          expect({ headers, status: (await client.post('/act', undefined, headers)).status }).toEqual({
            headers,
            status,
          })
        }
      }
    }
  })

  test('a handshake of a WebSocket is looked at though it is a GET: its Origin must be this site, if it has one', async () => {
    const { client, host } = await visited()
    const upgrade = { connection: 'Upgrade', upgrade: 'WebSocket' }
    for (const [origin, status] of [
      [`http://${host}`, 200],
      ['https://evil.example', 403],
      [undefined, 200],
    ] as const) {
      // What listens for upgrades is a server; one that does not takes it for a request.
      const answer = await client.get('/act', { ...upgrade, ...(origin && { origin }) })
      expect({ origin, status: answer.status }).toEqual({ origin, status })
    }
  })
})

describe('what changes nothing passes', () => {
  test('GET, HEAD, OPTIONS and TRACE, from wherever; all other methods are looked at', async () => {
    const { client } = await visited()
    const headers = { 'sec-fetch-site': 'cross-site' }
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) {
      expect((await client.request(method, '/act', { headers })).status).toBe(200)
    }
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'PROPFIND']) {
      expect((await client.request(method, '/act', { headers })).status).toBe(403)
    }
  })

  test('a method that is overridden counts as it was sent, and as what it became (ASVS 3.5.3)', async () => {
    const { client } = await visited({}, {}, (app) => {
      app.use((req, _res, next) => {
        const method = req.headers['x-http-method-override']
        if (typeof method === 'string') Object.assign(req, { originalMethod: req.method, method })
        next()
      })
    })
    const override = (method: string): Record<string, string> => ({
      'x-http-method-override': method,
      'sec-fetch-site': 'cross-site',
    })
    expect((await client.post('/act', undefined, override('GET'))).status).toBe(403)
    expect((await client.request('GET', '/act', { headers: override('DELETE') })).status).toBe(403)
    expect((await client.post('/act?_method=GET', undefined, { 'sec-fetch-site': 'cross-site' })).status).toBe(403)
  })

  test('a page without a token looks at no session, and stays good for caches', async () => {
    const { client } = await visited()
    expect((await client.get('/act')).headers['vary']).toBeUndefined()
    expect((await client.get('/token')).headers['vary']).toBe('Cookie')
  })
})

describe('a token', () => {
  test('is another each time, a thousand times, and each is good for its session and for no other', async () => {
    const { client, stranger } = await visited()
    const other = stranger()
    await other.post('/begin')
    const tokens = new Set((await client.get('/tokens')).json<string[]>())
    expect(tokens.size).toBe(1_000)
    for (const token of [...tokens].slice(0, 20)) {
      expect(token).toMatch(/^[\w-]{65}$/)
      expect((await client.post('/act', undefined, withToken(token))).status).toBe(200)
      const refused = await other.post('/act', undefined, withToken(token))
      expect([refused.status, refused.body]).toEqual([403, expect.stringContaining('not one of this session')])
    }
  })

  test('comes in X-CSRF-Token or in the field _csrf of a form or of JSON, and from nowhere else', async () => {
    const { client, server, acts } = await visited()
    const token = await tokenOf(client)
    const { cookieHeader: cookie } = client
    const form = { cookie, 'content-type': 'application/x-www-form-urlencoded' }
    const sent = await send(`${server.url}/act`, { method: 'POST', headers: form, payload: `a=1&_csrf=${token}` })
    expect(sent.status).toBe(200)
    expect((await client.post('/act', { _csrf: token })).status).toBe(200)
    const before = acts()
    expect((await client.post(`/act?_csrf=${token}`)).status).toBe(403)
    expect((await client.post('/act', { csrf: token })).status).toBe(403)
    expect((await client.post('/act', undefined, { cookie: `${cookie}; _csrf=${token}` })).status).toBe(403)
    expect((await client.post('/act', { _csrf: [token, token] })).status).toBe(403)
    expect((await client.post('/act', { _csrf: { toString: token } })).status).toBe(403)
    // The header goes first: nobody can pass by a field beside a wrong one.
    expect((await client.post('/act', { _csrf: token }, withToken('wrong'))).status).toBe(403)
    expect(acts()).toBe(before)
  })

  test('that is a planted cookie, and a field that equals it, is none (CVE-2021-29624)', async () => {
    const { client, acts } = await visited()
    const before = acts()
    for (const planted of ['x', 'A'.repeat(65), await tokenOf((await visited()).client)]) {
      const cookie = `_csrf=${planted}; csrf=${planted}; ${client.cookieHeader}`
      expect((await client.post('/act', { _csrf: planted }, { cookie })).status).toBe(403)
      expect((await client.post('/act', undefined, { cookie, ...withToken(planted) })).status).toBe(403)
    }
    expect(acts()).toBe(before)
  })

  test('or another proof is needed whatever type the body says it is of (ASVS 3.5.2)', async () => {
    const { client, server, acts } = await visited()
    const before = acts()
    const types = ['Text/Plain', 'application/x-www-form-urlencoded; x', 'multipart/form-data', 'application/json', '']
    for (const type of types) {
      const headers = { cookie: client.cookieHeader, ...(type !== '' && { 'content-type': type }) }
      expect((await send(`${server.url}/act`, { method: 'POST', headers, payload: '{}' })).status).toBe(403)
    }
    expect(acts()).toBe(before)
  })

  test('that is wrong is refused also where the browser names this site; one that is not sent is not missed there', async () => {
    const { client, stranger } = await visited()
    const other = stranger()
    await other.post('/begin')
    const foreign = await tokenOf(other)
    const token = await tokenOf(client)
    const own = { 'sec-fetch-site': 'same-origin' }
    const altered = `${token.slice(0, 20)}${token[20] === 'A' ? 'B' : 'A'}${token.slice(21)}`
    for (const wrong of [foreign, altered, 'x', token.slice(1), `${token}A`, token.toLowerCase(), '____proto____']) {
      const { status, body } = await client.post('/act', undefined, { ...own, ...withToken(wrong) })
      expect({ wrong, status, body }).toEqual({ wrong, status: 403, body: expect.stringContaining('token') })
      expect(body).not.toContain(wrong === 'x' ? token : wrong)
    }
    expect((await client.post('/act', undefined, { ...own, ...withToken(token) })).status).toBe(200)
    expect((await client.post('/act', undefined, { ...own, ...withToken('') })).status).toBe(200)
    expect((await client.post('/act', undefined, own)).status).toBe(200)
  })

  test('is dead after login(), logout() and regenerate(), and survives renew() (CVE-2022-24895)', async () => {
    for (const [path, status] of [
      ['/renew', 200],
      ['/regenerate', 403],
      ['/login', 403],
    ] as const) {
      const { client } = await visited()
      const token = await tokenOf(client)
      expect((await client.post(path, undefined, withToken(token))).status).toBe(200)
      expect({ path, status: (await client.post('/act', undefined, withToken(token))).status }).toEqual({
        path,
        status,
      })
      expect((await client.post('/act', undefined, withToken(await tokenOf(client)))).status).toBe(200)
    }
    const { client } = await visited()
    const token = await tokenOf(client)
    expect((await client.post('/logout', undefined, withToken(token))).status).toBe(200)
    await client.post('/begin')
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(403)
  })

  test('made in the request that logs in is good after it', async () => {
    const { client } = await site()
    const { token } = (await client.post('/login')).json<{ token: string }>()
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(200)
  })

  test('of a page that began the session is good for it, and costs no store call and no field', async () => {
    const calls: string[] = []
    const { client, middleware } = await site()
    const { token } = (await client.get('/first')).json<{ token: string }>()
    middleware.events.on('storeCall', ({ operation }) => void calls.push(operation))
    await client.get('/token')
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(200)
    expect(calls).toEqual(['get', 'get'])
    const id = client.cookies.get('sid')?.split('.')[0] as string
    expect([...((await middleware.store.get(id))?.fields.keys() ?? [])]).toEqual(['a'])
  })

  test('outlives the change of the secret for as long as the old one is in the list', async () => {
    const { client, middleware } = await visited()
    const token = await tokenOf(client)
    const over = async (secret: string | string[]): Promise<number> => {
      const next = await site({}, { secret, store: middleware.store })
      return (await new Client(next.server, client.cookies).post('/act', undefined, withToken(token))).status
    }
    expect(await over([OTHER_SECRET, SECRET])).toBe(200)
    // Without it the cookie opens nothing, and there is no session to protect.
    expect(await over(OTHER_SECRET)).toBe(200)
    expect(await over([SECRET, OTHER_SECRET])).toBe(200)
  })
})

describe('without a session', () => {
  test('a request passes, with a token of a visitor or without one, and is not stored for it', async () => {
    const { client } = await site()
    const token = await tokenOf(client)
    expect(client.cookies.size).toBe(0)
    expect(token).toMatch(/^[\w-]{108}$/)
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(200)
    expect((await client.post('/act')).status).toBe(200)
  })

  test('a login that another site sends is refused, since the browser says so', async () => {
    const { client } = await site()
    for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://evil.example' }]) {
      const answer = await client.post('/login', undefined, headers)
      expect([answer.status, answer.setCookies]).toEqual([403, []])
    }
  })

  test('a token of a visitor is no proof once there is a session, and no obstacle either', async () => {
    const { client } = await site()
    const token = await tokenOf(client)
    await client.post('/begin')
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(403)
    const own = { 'sec-fetch-site': 'same-origin' }
    expect((await client.post('/act', undefined, { ...own, ...withToken(token) })).status).toBe(200)
  })
})

describe("with tokens: 'always'", () => {
  test('every request that changes something needs one, with a session or without', async () => {
    const { client, stranger } = await site({ tokens: 'always' })
    const own = { 'sec-fetch-site': 'same-origin' }
    expect((await client.post('/begin', undefined, own)).status).toBe(403)
    expect((await client.post('/begin', undefined, { ...own, ...withToken(await tokenOf(client)) })).status).toBe(200)
    expect((await client.post('/act', undefined, own)).status).toBe(403)
    const token = await tokenOf(client)
    expect((await client.post('/act', undefined, { ...own, ...withToken(token) })).status).toBe(200)
    const ofVisitor = await tokenOf(stranger())
    expect((await client.post('/act', undefined, { ...own, ...withToken(ofVisitor) })).status).toBe(403)
    expect((await stranger().post('/act', undefined, { ...own, ...withToken(token) })).status).toBe(403)
  })
})

describe('a refusal', () => {
  test('is told as an event and an activity, with the session and the request, and no token', async () => {
    const activities: Activity[] = []
    const { client, refused } = await visited({}, { activity: (activity) => void activities.push(activity) })
    await client.post('/login', undefined, withToken(await tokenOf(client)))
    const token = await tokenOf(client)
    await client.post('/logout?secret=1', { _csrf: `${token}x` })
    await client.post('/act', undefined, { 'sec-fetch-site': 'cross-site', cookie: '' })
    const id = client.cookies.get('sid')?.split('.')[0] as string
    expect(refused).toEqual([
      {
        id,
        userId: 'ann',
        reason: 'token-wrong',
        method: 'POST',
        path: '/logout',
        ip: '127.0.0.1',
        at: expect.any(Number),
      },
      {
        id: undefined,
        userId: undefined,
        reason: 'fetch-metadata',
        method: 'POST',
        path: '/act',
        ip: '127.0.0.1',
        at: expect.any(Number),
      },
    ])
    expect(activities.filter(({ type }) => type === 'session.csrf-refused')).toMatchObject([
      { sessionId: id, userId: 'ann', details: { reason: 'token-wrong' }, request: { path: '/logout' } },
      { sessionId: undefined, details: { reason: 'fetch-metadata' } },
    ])
    expect(JSON.stringify([refused, activities])).not.toContain(token)
  })

  test('is an error CSRF_REFUSED that the client may see, or what onRefused answers', async () => {
    const errors: unknown[] = []
    const app = express()
    app.use(session({ secret: SECRET }), csrf())
    app.use(((error, _req, res, _next) => {
      errors.push(error)
      res.sendStatus(error.status)
    }) as express.ErrorRequestHandler)
    const server = await listen(app)
    open.push(server)
    await new Client(server).post('/', undefined, { origin: 'https://evil.example' })
    expect(errors).toEqual([expect.objectContaining({ code: 'CSRF_REFUSED', status: 403, expose: true })])

    const { client, acts } = await visited({
      onRefused: (_req, res, _next, refusal) => void (res as express.Response).status(418).send(refusal),
    })
    const { status, body } = await client.post('/act')
    expect([status, body, acts()]).toEqual([418, 'token-missing', 0])
  })

  test('is an error of the request when onRefused fails, at once or later', async () => {
    const fail = (): never => {
      throw new Error('failed')
    }
    for (const onRefused of [fail, async () => fail()]) {
      const { client, acts } = await visited({ onRefused })
      expect([(await client.post('/act')).status, acts()]).toEqual([500, 0])
    }
  })
})

describe('what is set up wrong is told', () => {
  test.each<[object, RegExp]>([
    [{ trustedOrigins: ['example.com'] }, /trustedOrigins\[0\] is no origin/],
    [{ trustedOrigins: ['https://a.example', 'https://b.example/path'] }, /trustedOrigins\[1\]/],
    [{ trustedOrigins: ['https://*.example.com'] }, /trustedOrigins\[0\]/],
    [{ trustedOrigins: ['null'] }, /trustedOrigins\[0\]/],
    [{ trustedOrigins: 'https://a.example' }, /not a list/],
    [{ tokens: 'never' }, /tokens is never/],
    [{ tokenOf: 'x-token' }, /tokenOf is not a function/],
    [{ ignoreMethods: [] }, /no option "ignoreMethods"/],
  ])('%j', (options, message) => {
    expect(() => csrf(options as CsrfOptions)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    expect(() => csrf(options as CsrfOptions)).toThrow(message)
  })

  test('csrf() without a session before it, and csrfToken() as well', async () => {
    const app = express()
    app.use(csrf())
    app.get('/', (req, res) => void res.send(req.csrfToken()))
    app.use(
      ((error, _req, res, _next) => void res.status(error.status).send(error.message)) as express.ErrorRequestHandler,
    )
    const server = await listen(app)
    open.push(server)
    expect((await new Client(server).post('/')).body).toMatch(/csrf\(\) runs behind session\(\)/)
    expect((await new Client(server).get('/')).body).toMatch(/needs a request behind session\(\)/)
  })

  test('req.csrfToken that is taken from its request', async () => {
    const { client } = await site({}, {}, (app) => {
      app.get('/loose', session({ secret: SECRET }), csrf(), (req, res) => {
        const { csrfToken: loose } = req
        try {
          res.send(loose())
        } catch (error) {
          res.send((error as Error).message)
        }
      })
    })
    expect((await client.get('/loose')).body).toMatch(/Call it as req\.csrfToken\(\)/)
  })
})

describe('helpers', () => {
  test('csrfField() and csrfMeta() are HTML with a good token', async () => {
    const { client } = await visited()
    const { body } = await client.get('/page')
    const [, meta, field] =
      /^<meta name="csrf-token" content="([\w-]+)"><input type="hidden" name="_csrf" value="([\w-]+)">$/.exec(body) ??
      []
    expect((await client.post('/act', undefined, withToken(meta as string))).status).toBe(200)
    expect((await client.post('/act', { _csrf: field })).status).toBe(200)
  })

  test('tokenOf says where else a token is', async () => {
    const { client } = await visited({ tokenOf: (req) => req.headers['x-xsrf-token'] as string | undefined })
    const token = await tokenOf(client)
    expect((await client.post('/act', undefined, { 'x-xsrf-token': token })).status).toBe(200)
    expect((await client.post('/act', undefined, withToken(token))).status).toBe(403)
  })
})
