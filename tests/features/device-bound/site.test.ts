// Sessions of all hosts of a site, bound to a device: in a real Chromium, and what the server says by itself.
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express, { type Express } from 'express'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { MemorySessionStore, type SessionMiddleware, session } from 'sojourn'
import { type DeviceBoundOptions, deviceBound, deviceOf } from 'sojourn/device-bound'
import { FakeClock } from 'sojourn/testing'
import { type KeyEvent, registeredKeys, startBrowserWithKeys, watchKeys } from '../../support/browser.js'
import { DeviceBrowser, HTTPS, REFRESH, REGISTRATION } from '../../support/device.js'
import { Client, listen, SECRET, type TestServer, until } from '../../support/http.js'
import { TEST_CERTIFICATE } from '../../support/wires.js'

/** Long, since the machine may do much else: what is waited for comes at once, mostly. */
const PATIENCE_MS = 20_000
const BOUND = '__Secure-sid-bound'
const WELL_KNOWN = '/.well-known/device-bound-sessions'
const SHOP = 'https://shop.example'
const ACCOUNTS = 'https://accounts.shop.example'

/** A site whose hosts are those of shop.example. */
interface Site {
  readonly app: Express
  readonly clock: FakeClock
  readonly sessions: SessionMiddleware
  /** What was asked for, of which host. */
  readonly hits: string[]
  readonly refused: string[]
}

function siteOf(devices: DeviceBoundOptions): Site {
  const clock = new FakeClock()
  const store = new MemorySessionStore({ cleanupInterval: 0 })
  const options = { secret: SECRET, store, clock: clock.now, idleTimeout: '5h' } as const
  const sessions = deviceBound(session({ ...options, cookie: { domain: 'shop.example' } }), {
    except: ['/login', '/logout'],
    ...devices,
  })
  const [hits, refused]: [string[], string[]] = [[], []]
  sessions.events.on('deviceRefused', ({ reason }) => void refused.push(reason))
  const app = express()
  app.set('trust proxy', true)
  app.use((req, res, next) => {
    res.on('finish', () => void hits.push(`${req.method} ${req.headers.host}${req.path} ${res.statusCode}`))
    next()
  })
  app.use(sessions)
  app.get('/login', async (req, res) => {
    await req.session.login('ann')
    res.send(html('logged in'))
  })
  app.get('/logout', async (req, res) => {
    await req.session.logout()
    res.send(html('logged out'))
  })
  app.get('/account', (req, res) => {
    res.send(html(`${req.session.metadata.userId ?? 'nobody'}, ${deviceOf(req).status}`))
  })
  app.use(((error, _req, res, _next) => {
    res.status(error.status ?? 500).send(html(error.code ?? 'failed'))
  }) as express.ErrorRequestHandler)
  return { app, clock, sessions, hits, refused }
}

/** Without an icon of its own, a page has the browser ask for one, at some time. */
function html(text: string): string {
  return `<!doctype html><link rel="icon" href="data:,">${text}`
}

describe('in Chromium', () => {
  let site: Site
  let server: Server
  let browser: Browser
  let context: BrowserContext
  let page: Page
  let keys: readonly KeyEvent[]
  beforeAll(async () => {
    server = createServer(TEST_CERTIFICATE, (req, res) => site.app(req, res)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    // Without a port in any URL: the registrable domain is asked at 443, whatever the port is of the host that registers.
    browser = await startBrowserWithKeys((server.address() as AddressInfo).port)
  }, 120_000)
  afterAll(async () => {
    await browser?.close()
    server?.closeAllConnections()
    server?.close()
  })
  afterEach(async () => {
    await context?.close()
    await site.sessions.manager.close()
  })

  async function open(devices: DeviceBoundOptions): Promise<void> {
    site = siteOf(devices)
    context = await browser.newContext()
    page = await context.newPage()
    keys = await watchKeys(page)
  }
  async function show(url: string): Promise<string> {
    await page.goto(url)
    return page.innerText('body')
  }
  const asked = (part: string): string[] => site.hits.filter((hit) => hit.includes(part))
  const boundCookies = async (): Promise<object[]> => (await context.cookies()).filter(({ name }) => name === BOUND)
  /** The bound cookie runs out, in the browser. */
  const loseCookie = (): Promise<void> => context.clearCookies({ name: BOUND })

  test.each([
    [SHOP, []],
    [ACCOUNTS, ['GET shop.example/.well-known/device-bound-sessions 200']],
  ])(
    'a key that is registered at %s is for all hosts of the site, until the logout',
    async (login, permitted) => {
      await open({ registeringOrigins: [SHOP, ACCOUNTS] })
      await show(`${login}/login`)
      await until(() => registeredKeys(keys) > 0, PATIENCE_MS)
      expect(asked(WELL_KNOWN)).toEqual(permitted)
      site.clock.advance(11_000)
      const refreshed = `POST ${new URL(login).host}${REFRESH} 200`
      for (const host of ['shop.example', 'accounts.shop.example', 'www.shop.example']) {
        await loseCookie()
        site.hits.length = 0
        expect(await show(`https://${host}/account`)).toBe('ann, bound')
        expect(site.hits).toEqual([refreshed, `GET ${host}/account 200`])
      }
      expect(await boundCookies()).toMatchObject([
        { domain: '.shop.example', path: '/', httpOnly: true, secure: true, sameSite: 'Lax' },
      ])
      expect(site.refused).toEqual([])

      await show('https://www.shop.example/logout')
      await loseCookie()
      await until(async () => {
        const before = asked(REFRESH).length
        expect(await show(`${SHOP}/account`)).toBe('nobody, unbound')
        return asked(REFRESH).length === before
      }, PATIENCE_MS)
    },
    60_000,
  )

  test('a login at a host that is not named goes on unbound, and never is refused', async () => {
    await open({ registeringOrigins: [SHOP] })
    await show(`${ACCOUNTS}/login`)
    site.clock.advance(11 * 60_000)
    for (const host of [SHOP, ACCOUNTS]) expect(await show(`${host}/account`)).toBe('ann, unbound')
    expect([asked(REGISTRATION), await boundCookies()]).toEqual([[], []])
  }, 60_000)
})

describe('by itself', () => {
  let site: Site
  let server: TestServer
  let client: Client
  async function open(devices: DeviceBoundOptions): Promise<void> {
    site = siteOf(devices)
    server = await listen(site.app)
    client = new Client(server)
  }
  afterEach(async () => {
    await server.close()
    await site.sessions.manager.close()
  })
  const at = (host: string): Record<string, string> => ({ ...HTTPS, host })

  test('it offers a key where users are said to log in, whatever the letters and the port that need not be said', async () => {
    await open({ registeringOrigins: [SHOP, 'https://accounts.shop.example:8443'] })
    const isOffered = async (host: string): Promise<boolean> => {
      const { headers } = await client.get('/login', at(host))
      return headers['secure-session-registration'] !== undefined
    }
    for (const host of ['shop.example', 'SHOP.example:443', 'accounts.shop.example:8443']) {
      expect([host, await isOffered(host)]).toEqual([host, true])
    }
    for (const host of ['accounts.shop.example', 'shop.example:8443', 'www.shop.example', 'x/y', '']) {
      expect([host, await isOffered(host)]).toEqual([host, false])
    }
  })

  test('it says which origins may register, without a session', async () => {
    await open({ registeringOrigins: [SHOP, ACCOUNTS] })
    const answer = await client.get(WELL_KNOWN, at('shop.example'))
    expect(answer).toMatchObject({ status: 200, setCookies: [] })
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.json()).toEqual({ registering_origins: [SHOP, ACCOUNTS] })
    expect((await client.post(WELL_KNOWN, undefined, at('shop.example'))).status).toBe(404)
  })

  test('the browser is told of the whole site, and of a cookie of the domain', async () => {
    await open({ registeringOrigins: [SHOP] })
    const { offer, browser } = await loggedIn()
    const answer = await browser.register(offer)
    const attributes = 'Domain=shop.example; Path=/; Secure; HttpOnly; SameSite=Lax'
    expect(answer.json()).toMatchObject({
      scope: { origin: SHOP, include_site: true },
      credentials: [{ type: 'cookie', name: BOUND, attributes }],
    })
    expect(answer.setCookies.join()).toMatch(new RegExp(`^${BOUND}=[\\w.-]+; Max-Age=600; ${attributes}$`))
  })

  test('a cookie of that name that another host of the site has planted does not stand before ours', async () => {
    await open({ registeringOrigins: [SHOP] })
    const { offer, browser } = await loggedIn()
    await browser.register(offer)
    const planted = new DeviceBrowser(new Client(server))
    await planted.register(await planted.client.get('/login', at('shop.example')))
    site.clock.advance(11_000)
    const [session, ours] = ['__Secure-sid', BOUND].map((name) => `${name}=${client.cookies.get(name)}`)
    const theirs = `${BOUND}=${planted.client.cookies.get(BOUND)}`
    const seen = async (cookies: readonly unknown[]): Promise<unknown> => {
      const { status, body } = await new Client(server).get('/account', { ...HTTPS, cookie: cookies.join('; ') })
      return status === 200 ? body.replace(/^.*>/, '') : status
    }
    expect(await seen([`${BOUND}=x`, theirs, session, ours])).toBe('ann, bound')
    expect(await seen([`${BOUND}=x`, theirs, session])).toBe(401)
  })

  async function loggedIn(): Promise<{ browser: DeviceBrowser; offer: Awaited<ReturnType<Client['get']>> }> {
    const offer = await client.get('/login', at('shop.example'))
    return { browser: new DeviceBrowser(client), offer }
  }
})

test.each<[string, string | undefined, unknown, RegExp]>([
  [
    'sessions of a site without a word',
    'shop.example',
    undefined,
    /registeringOrigins: \['https:\/\/shop\.example'\].*leave cookie.domain out/,
  ],
  ['origins of sessions of one host', undefined, [SHOP], /set cookie.domain/],
  ['no list', 'shop.example', SHOP, /no list/],
  ['an empty list', 'shop.example', [], /no list/],
  ['plain HTTP', 'shop.example', ['http://shop.example'], /registeringOrigins\[0\]/],
  ['an address', 'shop.example', [SHOP, `${SHOP}/login`], /registeringOrigins\[1\]/],
  ['another site', 'shop.example', ['https://shop.example.org'], /at shop.example or below/],
  ['a name that ends alike', 'shop.example', ['https://myshop.example'], /at shop.example or below/],
  ['what is no text', 'shop.example', [1], /registeringOrigins\[0\]/],
])('options refuse %s', (_what, domain, registeringOrigins, message) => {
  const sessions = session({ secret: SECRET, cookie: { domain } })
  expect(() => deviceBound(sessions, { registeringOrigins } as DeviceBoundOptions)).toThrow(message)
})

test('a domain that begins with a dot is that domain', () => {
  const sessions = session({ secret: SECRET, cookie: { domain: '.Shop.example' } })
  expect(() => deviceBound(sessions, { registeringOrigins: [SHOP] })).not.toThrow()
})
