// The options of express-session, each as it is there.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import { sign } from 'cookie-signature'
import session, { Cookie, MemoryStore } from 'sojourn/express-session'
import { FakeClock } from 'sojourn/testing'
import { cookieIn, dropIn } from '../../support/express-session.js'
import { OTHER_SECRET, SECRET } from '../../support/http.js'

afterEach(() => void jest.restoreAllMocks())

const count = (req: { session: { n?: number } }, res: { end(text: string): unknown }): void => {
  req.session.n = (req.session.n ?? 0) + 1
  res.end(String(req.session.n))
}

describe('secret', () => {
  test('signs the cookie as express-session does', async () => {
    await using app = await dropIn({}, count)
    const cookie = cookieIn(await app.client.get('/'))
    const id = (cookie?.['value'] ?? '').slice(2, 38)
    expect(cookie?.['value']).toBe(`s:${sign(id, SECRET)}`)
    expect(cookie).toMatchObject({ path: '/', httponly: '' })
  })

  test('a list: the first signs, all verify', async () => {
    const store = new MemoryStore()
    await using before = await dropIn({ secret: SECRET, store }, count)
    await before.client.get('/')
    await using after = await dropIn({ secret: [OTHER_SECRET, SECRET], store }, count)
    expect((await after.client.get('/', { cookie: before.client.cookieHeader })).body).toBe('2')
    await using unknown = await dropIn({ secret: OTHER_SECRET, store }, count)
    expect((await unknown.client.get('/', { cookie: before.client.cookieHeader })).body).toBe('1')
  })

  test('a Buffer, and a short text with one warning', async () => {
    await using app = await dropIn({ secret: Buffer.from(SECRET) }, count)
    await app.client.get('/')
    expect((await app.client.get('/')).body).toBe('2')
    const warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await using weak = await dropIn({ secret: 'cat' }, count)
    session({ secret: 'dog', resave: false, saveUninitialized: false })
    await weak.client.get('/')
    expect((await weak.client.get('/')).body).toBe('2')
    expect(warning.mock.calls.filter(([text]) => String(text).includes('32 bytes'))).toHaveLength(1)
  })

  test('none: that of cookie-parser on the request, or an error', async () => {
    await using parsed = await dropIn({ secret: undefined }, count, (req) => Object.assign(req, { secret: SECRET }))
    await parsed.client.get('/')
    expect((await parsed.client.get('/')).body).toBe('2')
    await using none = await dropIn({ secret: undefined }, count)
    expect(await none.client.get('/')).toMatchObject({ status: 500, body: 'secret option required for sessions' })
  })

  test.each([
    ['no secrets', { secret: [] }, /one or more/],
    ['a number', { secret: 1 as never }, /text or a Buffer/],
    ['genid that is no function', { genid: 'x' as never }, /genid option must be a function/],
    ['another unset', { unset: 'x' as never }, /unset option/],
    ['a maxAge that is text', { cookie: { maxAge: '1' as never } }, /maxAge/],
    ['an end that is no time', { cookie: { expires: new Date(Number.NaN) } }, /invalid Date/],
    ['an option that nobody has', { resaves: true } as never, /no option "resaves"/],
  ])('refuses %s when it is built', (_name, options, message) => {
    expect(() => session({ secret: SECRET, ...options })).toThrow(message)
  })
})

describe('name, key and genid', () => {
  test.each([{ name: 'sid' }, { key: 'sid' }])('%j is the name of the cookie', async (options) => {
    await using app = await dropIn(options, count)
    expect(cookieIn(await app.client.get('/'), 'sid')).toBeDefined()
  })

  test('genid makes the ID, also of a session that is regenerated', async () => {
    let made = 0
    await using app = await dropIn({ genid: (req) => `${req.url.slice(1)}-${++made}` }, async (req, res) => {
      req.session.a = 1
      if (req.url === '/again') await req.session.regenerate()
      res.end(`${req.sessionID} ${req.session.id}`)
    })
    expect((await app.client.get('/apple')).body).toBe('apple-1 apple-1')
    const again = (await app.client.get('/again')).body
    expect(again).toMatch(/^(again-\d) \1$/)
    expect((await app.client.get('/')).body).toBe(again)
  })

  test('an ID that is taken is not taken over', async () => {
    await using app = await dropIn({ genid: () => 'one' }, count)
    await app.client.get('/')
    const other = await app.client.clone().get('/', { cookie: '' })
    expect(other.body).toBe('1')
    expect(cookieIn(other)?.['value']).not.toMatch(/^s:one\./)
    expect((await app.client.get('/')).body).toBe('2')
  })
})

describe('saveUninitialized and resave', () => {
  test('an empty session is stored or not', async () => {
    for (const saveUninitialized of [true, false]) {
      const store = new MemoryStore()
      await using app = await dropIn({ saveUninitialized, store }, (_req, res) => res.end())
      const answer = await app.client.get('/')
      expect(cookieIn(answer) !== undefined).toBe(saveUninitialized)
      expect(await store.length()).toBe(saveUninitialized ? 1 : 0)
    }
  })

  test('a session that did not change is written once or not at all', async () => {
    for (const resave of [true, false]) {
      const store = new MemoryStore()
      const writes = jest.spyOn(store, 'set')
      await using app = await dropIn({ resave, store, cookie: { maxAge: 60_000 } }, (req, res) => {
        req.session.a = 1
        res.end()
      })
      await app.client.get('/')
      expect(writes).toHaveBeenCalledTimes(1)
      await app.client.get('/')
      expect(writes).toHaveBeenCalledTimes(resave ? 2 : 1)
    }
  })
})

describe('cookie', () => {
  test('maxAge in milliseconds is how long session and cookie live', async () => {
    const clock = new FakeClock(Date.now())
    await using app = await dropIn({ cookie: { maxAge: 60_000 }, clock: clock.now }, count)
    const { expires } = cookieIn(await app.client.get('/')) ?? {}
    expect(Math.abs(Date.parse(expires ?? '') - clock.now() - 60_000)).toBeLessThan(2000)
    clock.advance(59_000)
    expect((await app.client.get('/')).body).toBe('2')
    clock.advance(61_000)
    expect((await app.client.get('/')).body).toBe('1')
  })

  test('without maxAge the cookie ends with the window', async () => {
    await using app = await dropIn({}, count)
    expect(cookieIn(await app.client.get('/'))).not.toHaveProperty('expires')
    expect(cookieIn(await app.client.get('/'))).toBeUndefined()
  })

  test('rolling sends it with each response', async () => {
    await using app = await dropIn({ rolling: true, cookie: { maxAge: 60_000 } }, (req, res) => {
      req.session.a = 1
      res.end()
    })
    await app.client.get('/')
    expect(cookieIn(await app.client.get('/'))).toHaveProperty('expires')
    await using still = await dropIn({ cookie: { maxAge: 60_000 } }, (req, res) => {
      req.session.a = 1
      res.end()
    })
    await still.client.get('/')
    expect(cookieIn(await still.client.get('/'))).toBeUndefined()
  })

  test.each([
    ['true over plain HTTP: no cookie', { secure: true }, undefined],
    ["'auto' over plain HTTP", { secure: 'auto' }, { secure: undefined }],
    ["'auto' over HTTPS", { secure: 'auto' }, { secure: '' }, true],
    ["sameSite 'auto' over HTTPS is none, with Secure", { sameSite: 'auto' }, { samesite: 'None', secure: '' }, true],
    ["sameSite 'auto' over plain HTTP is lax", { sameSite: 'auto' }, { samesite: 'Lax', secure: undefined }],
    ['sameSite in any case', { sameSite: 'Strict' }, { samesite: 'Strict' }],
    ['None without Secure, which browsers drop, is lax', { sameSite: 'none' }, { samesite: 'Lax' }],
    ['Partitioned without Secure, which browsers drop, is left out', { partitioned: true }, { partitioned: undefined }],
    ['Partitioned over HTTPS', { partitioned: true, sameSite: 'none' }, { partitioned: '', secure: '' }, true],
    [
      'what else there is',
      { domain: 'a.test', priority: 'high', httpOnly: false },
      { domain: 'a.test', priority: 'High' },
    ],
  ] as const)('%s', async (_name, cookie, expected, isSecure: boolean = false) => {
    await using app = await dropIn({ cookie, proxy: true }, count)
    const answer = await app.client.get('/', isSecure ? { 'x-forwarded-proto': 'https, http' } : {})
    const sent = cookieIn(answer)
    if (expected === undefined) expect(sent).toBeUndefined()
    else for (const [name, value] of Object.entries(expected)) expect(sent?.[name]).toBe(value)
  })

  test('a function gives it for each request, path and maxAge too', async () => {
    await using app = await dropIn({ cookie: (req) => ({ path: req.url, maxAge: 5000 }) }, count)
    expect(cookieIn(await app.client.get('/a'))).toMatchObject({ path: '/a', expires: expect.any(String) })
  })

  test('outside of its path there is no session', async () => {
    await using app = await dropIn({ cookie: { path: '/in' } }, (req, res) => res.end(typeof req.session))
    expect((await app.client.get('/in/side')).body).toBe('object')
    expect((await app.client.get('/out')).body).toBe('undefined')
  })

  test.each([
    ['proxy: false believes the connection alone', { proxy: false }, undefined],
    ['without proxy the word of Express counts', {}, ''],
  ])('%s', async (_name, options, secure) => {
    await using app = await dropIn({ ...options, cookie: { secure: 'auto' } }, count, (req) =>
      Object.assign(req, { secure: true }),
    )
    expect(cookieIn(await app.client.get('/'))?.['secure']).toBe(secure)
  })
})

describe('new Cookie()', () => {
  test('has the members and defaults of express-session', () => {
    const cookie = new Cookie()
    expect(cookie.data).toMatchObject({ path: '/', httpOnly: true, expires: null, originalMaxAge: null })
    expect(Object.keys(cookie)).toEqual(['path', '_expires', 'originalMaxAge', 'httpOnly'])
    cookie.maxAge = 60_000
    expect(cookie.maxAge).toBeGreaterThan(59_000)
    expect(JSON.parse(JSON.stringify(cookie))).toMatchObject({ originalMaxAge: 60_000, expires: expect.any(String) })
    for (const none of [false, null, undefined] as const) {
      cookie.maxAge = none
      expect(cookie.expires).toBeNull()
      cookie.expires = none
      expect(cookie.maxAge).toBeNull()
    }
    expect(() => new Cookie('x' as never)).toThrow('argument options')
  })
})
