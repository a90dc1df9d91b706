// Sessions that are bound to a device, on each kind of connection: TLS of Node's own, HTTP/2, and handshakes of WebSockets, which have no
// response.
import { once } from 'node:events'
import { ServerResponse } from 'node:http'
import { connect, createSecureServer, type Http2ServerRequest } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from '@jest/globals'
import { MemorySessionStore, type SessionMiddleware, type SessionOptions, session } from 'sojourn'
import { type DeviceBoundOptions, type DeviceRequest, deviceBound, deviceOf, requireDevice } from 'sojourn/device-bound'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { BOUND, DeviceBrowser, HTTPS, REFRESH, REGISTRATION } from '../../support/device.js'
import { type Answer, Client, listen, SECRET, send, type TestServer } from '../../support/http.js'
import { type Handler, TEST_CERTIFICATE, WIRES, type WireServer } from '../../support/wires.js'

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close()
})

interface Site {
  readonly sessions: SessionMiddleware
  readonly store: FaultyStore
  readonly clock: FakeClock
}

function siteOf(devices: DeviceBoundOptions = {}, options: Partial<SessionOptions> = {}): Site {
  const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
  const clock = new FakeClock()
  const sessions = deviceBound(session({ secret: SECRET, store, clock: clock.now, ...options }), {
    except: ['/login'],
    ...devices,
  })
  sessions.events.on('storeError', () => {})
  closers.push(() => sessions.manager.close())
  return { sessions, store, clock }
}

/** Without Express, as HTTP/2 is. */
function answerBy({ sessions }: Site): Handler {
  return (req, res) => {
    const fail = (error: unknown): void => {
      res.statusCode = (error as { status?: number }).status ?? 500
      res.end()
    }
    const show = (): void => void res.end(JSON.stringify(deviceOf(req as DeviceRequest)))
    sessions(req, res, (error) => {
      if (error !== undefined) fail(error)
      else if (req.url === '/login') req.session.login('ann').then(show, fail)
      else if (req.url === '/logout') req.session.logout().then(show, fail)
      else if (req.url === '/strict') {
        requireDevice()(req as DeviceRequest, res, (refused) => (refused === undefined ? show() : fail(refused)))
      } else show()
    })
  }
}

/** A client on one of the connections of `WIRES`. */
class WireClient extends Client {
  readonly #server: WireServer
  readonly #isHttp2: boolean

  constructor(server: WireServer, isHttp2: boolean, cookies?: Iterable<readonly [string, string]>) {
    super('', cookies)
    this.#server = server
    this.#isHttp2 = isHttp2
  }

  override clone(): WireClient {
    return new WireClient(this.#server, this.#isHttp2, this.cookies)
  }

  override async request(
    method: string,
    path: string,
    { headers = {} }: { headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    // Browsers send each cookie as a field of its own there (RFC 9113, 8.2.3).
    const pairs = [...this.cookies].map(([name, value]) => `${name}=${value}`)
    const cookie = (this.#isHttp2 ? pairs : pairs.join('; ')) as string
    const got = await this.#server.request({ path, method, headers, ...(pairs.length > 0 && { cookie }) })
    this.keep(got.setCookies)
    const { status, setCookies, body, isTruncated } = got
    const json = <T>(): T => JSON.parse(body) as T
    return { status, headers: got.headers as Answer['headers'], setCookies, body, headAfterMs: 0, isTruncated, json }
  }
}

const SECURE = WIRES.filter(([, { cookieName }]) => cookieName === '__Host-sid')

test('there is a secure connection of both kinds', () => {
  expect(SECURE.map(([name]) => name)).toEqual(['https', 'HTTP/2'])
})

describe.each(SECURE)('over %s', (_name, wire) => {
  async function start(): Promise<Site & { client(): WireClient }> {
    const site = siteOf()
    const server = await wire.listen(answerBy(site))
    closers.push(() => server.close())
    return { ...site, client: () => new WireClient(server, wire.isHttp2) }
  }
  const statusOf = ({ status, body, json }: Answer): unknown => (body === '' ? status : json()['status'])

  test('a browser registers, refreshes, keeps a thief out, and forgets its key after the logout', async () => {
    const { clock, store, client } = await start()
    const browser = new DeviceBrowser(client())
    const offer = await browser.get('/login')
    const registered = await browser.register(offer)
    expect(registered).toMatchObject({ status: 200, isTruncated: false })
    expect(registered.setCookies.map((line) => line.split('=')[0])).toContain(BOUND)
    expect(registered.headers['cache-control']).toBe('no-store')
    clock.advance(11_000)
    expect(statusOf(await browser.get('/strict'))).toBe('bound')
    const thief = browser.client.clone()
    thief.cookies.delete(BOUND)
    const refused = await thief.get('/')
    expect([refused.status, refused.headers['www-authenticate']]).toEqual([401, 'Session error="device_unproven"'])

    browser.forgetChallenge()
    browser.loseCookie()
    expect(statusOf(await browser.get('/'))).toBe('bound')
    store.fail({ kind: 'error' })
    expect(await browser.refresh()).toBe('tries later')
    store.repair()
    expect(await browser.refresh()).toBe('goes on')
    await browser.client.get('/logout')
    expect(await browser.refresh()).toBe('forgets')
  })
})

describe('a handshake of a WebSocket', () => {
  /** A server that answers a handshake by what is known of its device, or by the status of the error. */
  async function start(site: Site): Promise<TestServer> {
    const server = await listen(answerBy(site) as never)
    closers.push(() => server.close())
    server.server.on('upgrade', (req, socket) => {
      const answer = (status: number, text: string): void =>
        void socket.end(`HTTP/1.1 ${status} x\r\nConnection: close\r\n\r\n${text}`)
      // Some hand over a stand-in.
      const res = req.headers['x-stand-in'] === undefined ? {} : new ServerResponse(req)
      site.sessions(req, res, (error) => {
        if (error !== undefined) return answer((error as { status?: number }).status ?? 500, '')
        requireDevice({ unbound: 'pass' })(req, res, (refused) =>
          refused === undefined ? answer(200, deviceOf(req).status) : answer(401, 'guard'),
        )
      })
    })
    return server
  }

  async function bound(server: TestServer, { clock }: Site): Promise<DeviceBrowser> {
    const browser = new DeviceBrowser(new Client(server))
    await browser.register(await browser.get('/login'))
    clock.advance(11_000)
    return browser
  }

  const handshake = (
    server: TestServer,
    cookie: string,
    {
      path = '/',
      method = 'GET',
      headers = {},
    }: { path?: string; method?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer> =>
    send(`${server.url}${path}`, {
      method,
      headers: { ...HTTPS, ...headers, connection: 'Upgrade', upgrade: 'websocket', ...(cookie && { cookie }) },
    })

  test('is judged as any request: with the bound cookie it goes on, without it is refused', async () => {
    const site = siteOf({}, { trustProxy: true })
    const server = await start(site)
    const browser = await bound(server, site)
    expect((await handshake(server, '')).body).toBe('unbound')
    expect((await handshake(server, browser.client.cookieHeader)).body).toBe('bound')
    browser.loseCookie()
    const refused: unknown[] = []
    site.sessions.events.on('deviceRefused', ({ reason, path }) => void refused.push([reason, path]))
    expect(await handshake(server, browser.client.cookieHeader, { path: '/socket?a=1' })).toMatchObject({
      status: 401,
      body: '',
    })
    expect(refused).toEqual([['no-proof', '/socket']])
  })

  test('meets the guard where requests without proof pass', async () => {
    const site = siteOf({ unproven: 'pass' }, { trustProxy: true })
    const server = await start(site)
    const browser = await bound(server, site)
    browser.loseCookie()
    expect(await handshake(server, browser.client.cookieHeader)).toMatchObject({ status: 401, body: 'guard' })
  })

  test('to one of the two routes, with whatever method, is a handshake as any other', async () => {
    const site = siteOf({}, { trustProxy: true })
    const server = await start(site)
    const browser = await bound(server, site)
    for (const path of [REFRESH, REGISTRATION]) {
      for (const headers of [{}, { 'x-stand-in': '1' }]) {
        const answer = await handshake(server, browser.client.cookieHeader, { path, method: 'POST', headers })
        expect([path, answer.status, answer.body, answer.setCookies]).toEqual([path, 200, 'bound', []])
      }
    }
  })

  test('over HTTP/2 (RFC 8441) is judged as well', async () => {
    const site = siteOf()
    const { cookies } = await boundOverHttp2(site)
    const server = createSecureServer({ ...TEST_CERTIFICATE, settings: { enableConnectProtocol: true } })
    // Without one, Node makes no requests of streams, and tells of no `connect`.
    server.on('request', (_req, res) => void res.end())
    server.on('connect', (req: Http2ServerRequest, res) => {
      site.sessions(req, res, (error) => {
        res.stream.respond({ ':status': error === undefined ? 200 : (error as { status: number }).status })
        res.stream.end(error === undefined ? deviceOf(req).status : '')
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const client = connect(`https://127.0.0.1:${(server.address() as AddressInfo).port}`, { rejectUnauthorized: false })
    closers.push(async () => {
      client.destroy()
      server.close()
      await once(server, 'close')
    })
    await once(client, 'remoteSettings')
    const handshakeOf = async (cookie: string): Promise<string> => {
      const stream = client.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/', cookie })
      stream.end()
      let body = ''
      stream.setEncoding('utf8').on('data', (text: string) => {
        body += text
      })
      const [[head]] = await Promise.all([once(stream, 'response'), once(stream, 'close')])
      return `${head[':status']} ${body}`
    }
    expect(await handshakeOf(cookies)).toBe('200 bound')
    expect(await handshakeOf(cookies.replace(BOUND, 'x'))).toBe('401 ')
  })

  async function boundOverHttp2(site: Site): Promise<{ cookies: string }> {
    const [, wire] = SECURE.find(([, { isHttp2 }]) => isHttp2) as (typeof SECURE)[number]
    const server = await wire.listen(answerBy(site))
    closers.push(() => server.close())
    const browser = new DeviceBrowser(new WireClient(server, true))
    await browser.register(await browser.get('/login'))
    site.clock.advance(11_000)
    return { cookies: browser.client.cookieHeader }
  }
})
