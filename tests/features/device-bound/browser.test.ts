// Sessions that are bound to a device in a real Chromium, which makes its keys in software.
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:https'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express from 'express'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { isSessionError, type SessionMiddleware, session } from 'sojourn'
import { deviceBound, deviceOf } from 'sojourn/device-bound'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { type KeyEvent, registeredKeys, startBrowserWithKeys, watchKeys } from '../../support/browser.js'
import { BOUND, REFRESH, REGISTRATION } from '../../support/device.js'
import { SECRET, until } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'
import { TEST_CERTIFICATE } from '../../support/wires.js'

/** Long, since the machine may do much else: what is waited for comes at once, mostly. */
const PATIENCE_MS = 20_000
const HOST = 'shop.example'

const clock = new FakeClock()
let browser: Browser
let redis: RedisServer
let site: Site
let context: BrowserContext
let page: Page
/** What the browser says of its keys. */
let keys: readonly KeyEvent[] = []

interface Hit {
  readonly path: string
  readonly status: number
  readonly cookies: readonly string[]
}

beforeAll(async () => {
  ;[redis, browser] = await Promise.all([
    RedisServer.start('--appendonly', 'yes', '--appendfsync', 'always'),
    startBrowserWithKeys(),
  ])
  site = await Site.start()
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
  await redis?.stop()
})
afterEach(async () => {
  site.store.repair()
  site.store.release()
  await context?.close()
  keys = []
})

/** Without an icon of its own, a page has the browser ask for one, at some time. */
function html(text: string): string {
  return `<!doctype html><link rel="icon" href="data:,">${text}`
}

function namesIn({ headers }: IncomingMessage): string[] {
  return (headers.cookie ?? '').split('; ').map((pair) => pair.split('=')[0] as string)
}

class Site {
  readonly port: number
  readonly store: FaultyStore
  readonly sessions: SessionMiddleware
  readonly hits: Hit[]
  readonly refused: string[] = []
  readonly #server: Server

  private constructor(server: Server, { store, sessions, hits }: Pick<Site, 'store' | 'sessions' | 'hits'>) {
    this.#server = server
    this.port = (server.address() as { port: number }).port
    this.store = store
    this.sessions = sessions
    this.hits = hits
    sessions.events.on('deviceRefused', ({ reason }) => void this.refused.push(reason))
    sessions.events.on('storeError', () => {})
  }

  static async start(port = 0): Promise<Site> {
    const store = new FaultyStore(new RedisSessionStore({ url: redis.url }))
    const options = { secret: SECRET, store, clock: clock.now, idleTimeout: '5h', storeTimeout: '5s' } as const
    const sessions = deviceBound(session(options), { except: ['/login', '/logout'] })
    const app = express()
    const hits: Hit[] = []
    app.use((req, res, next) => {
      hits.push({
        path: req.path,
        cookies: namesIn(req),
        get status() {
          return res.statusCode
        },
      })
      next()
    })
    app.get('/link', (_req, res) => void res.send(html(`<a id="go" href="https://${HOST}:${site.port}/account">x</a>`)))
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
      const { userId } = req.session.metadata
      res.send(html(`${userId ?? 'nobody'}, ${deviceOf(req).status}`))
    })
    app.use(((error, _req, res, _next) => {
      res.status(error.status ?? 500).send(html(isSessionError(error) ? error.code : 'failed'))
    }) as express.ErrorRequestHandler)
    const server = createServer(TEST_CERTIFICATE, app).listen(port, '127.0.0.1')
    server.on('upgrade', (req, socket) => {
      sessions(req, {}, (error) => {
        hits.push({ path: '/socket', cookies: namesIn(req), status: error === undefined ? 101 : 401 })
        socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n')
      })
    })
    await once(server, 'listening')
    return new Site(server, { store, sessions, hits })
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
    await this.sessions.manager.close()
  }

  /** What was answered by one of the two routes. */
  answers(path: string): Hit[] {
    return this.hits.filter((hit) => hit.path === path)
  }
}

const at = (path: string, host = HOST): string => `https://${host}:${site.port}${path}`

/** A window with a profile of its own, whose keys are watched. */
async function openWindow(): Promise<void> {
  context = await browser.newContext()
  page = await context.newPage()
  keys = await watchKeys(page)
  site.hits.length = 0
  site.refused.length = 0
}

/** Logs in, and waits until the browser has its key. A little later what raced ahead is none of it any more. */
async function logIn(): Promise<void> {
  const before = registeredKeys(keys)
  await page.goto(at('/login'))
  await until(() => registeredKeys(keys) > before, PATIENCE_MS)
  clock.advance(11_000)
}

const isForgotten = (): boolean => keys.some((event) => event.terminationEventDetails !== undefined)

/** The bound cookie runs out, in the browser. */
async function loseCookie(): Promise<void> {
  await context.clearCookies({ name: BOUND })
}

async function account(): Promise<string> {
  await page.goto(at('/account'))
  return page.innerText('body')
}

describe('Chromium', () => {
  test('registers a key after a login, and proves that it has it when the bound cookie runs out', async () => {
    await openWindow()
    await logIn()
    expect(site.answers(REGISTRATION)).toMatchObject([{ status: 200 }])
    expect(await account()).toBe('ann, bound')
    expect(site.answers(REFRESH)).toEqual([])
    const [cookie] = (await context.cookies()).filter(({ name }) => name === BOUND)
    expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: 'Lax', path: '/' })
    for (let times = 1; times <= 3; times++) {
      await loseCookie()
      expect(await account()).toBe('ann, bound')
      // The challenge had been given with the answer before: one post is enough.
      expect(site.answers(REFRESH).map(({ status }) => status)).toEqual(Array(times).fill(200))
    }
    // One that it was given too long ago takes another one, and it goes on.
    clock.advance(12 * 60_000)
    await loseCookie()
    expect(await account()).toBe('ann, bound')
    expect(site.answers(REFRESH).map(({ status }) => status)).toEqual([200, 200, 200, 403, 200])
    expect(isForgotten()).toBe(false)
  }, 60_000)

  test('proves it also on the way from another site, with a refresh that has no cookie at all', async () => {
    await openWindow()
    await logIn()
    await loseCookie()
    await page.goto(at('/link', 'other.example'))
    await Promise.all([page.waitForNavigation(), page.click('#go')])
    expect(await page.innerText('body')).toBe('ann, bound')
    expect(site.answers(REFRESH)).toMatchObject([{ status: 200, cookies: [''] }])
    await page.reload()
    expect(await page.innerText('body')).toBe('ann, bound')
  }, 60_000)

  test('proves it before the handshake of a WebSocket', async () => {
    await openWindow()
    await logIn()
    await account()
    await loseCookie()
    await page.evaluate(
      (url) =>
        new Promise((resolve) => {
          const socket = new WebSocket(url)
          socket.addEventListener('close', resolve)
        }),
      at('/socket').replace('https:', 'wss:'),
    )
    expect(site.answers(REFRESH)).toMatchObject([{ status: 200 }])
    expect(site.answers('/socket')).toMatchObject([{ status: 101, cookies: expect.arrayContaining([BOUND]) }])
  }, 60_000)

  test('has a thief with all cookies in until the bound one is over, and out then', async () => {
    await openWindow()
    await logIn()
    const stolen = await context.cookies()
    expect(stolen.map(({ name }) => name).toSorted()).toEqual(['__Host-sid', BOUND])
    const thief = await browser.newContext()
    try {
      await thief.addCookies(stolen)
      const theirs = await thief.newPage()
      const seen = async (): Promise<string> => {
        await theirs.goto(at('/account'))
        return theirs.innerText('body')
      }
      expect(await seen()).toBe('ann, bound')
      clock.advance(11 * 60_000)
      expect(await seen()).toBe('DEVICE_UNPROVEN')
      expect(site.refused).toEqual(['no-proof'])
      await loseCookie()
      expect(await account()).toBe('ann, bound')
      expect(await seen()).toBe('DEVICE_UNPROVEN')
    } finally {
      await thief.close()
    }
  }, 60_000)

  test('goes on with the key of the last login, and forgets it after the logout', async () => {
    await openWindow()
    await logIn()
    await logIn()
    for (let times = 0; times < 3; times++) {
      await loseCookie()
      expect(await account()).toBe('ann, bound')
    }
    site.hits.length = 0
    await page.goto(at('/logout'))
    await loseCookie()
    await until(async () => {
      const before = site.answers(REFRESH).length
      expect(await account()).toBe('nobody, unbound')
      return isForgotten() && site.answers(REFRESH).length === before
    }, PATIENCE_MS)
    // Once for each key, at most.
    expect([[401], [401, 401]]).toContainEqual(site.answers(REFRESH).map(({ status }) => status))
  }, 60_000)

  test('logs out under a refresh: it is told to forget its key, and nothing brings the session back', async () => {
    await openWindow()
    await logIn()
    await loseCookie()
    const [old] = (await context.cookies()).filter(({ name }) => name === '__Host-sid')
    const before = site.store.calls.update
    site.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
    const shown = account()
    await until(() => site.store.calls.update > before, PATIENCE_MS)
    const id = old?.value.slice(0, 36) as string
    expect(await site.sessions.manager.revoke(id)).toBe(true)
    site.store.release()
    expect(await shown).toBe('nobody, unbound')
    await until(isForgotten, PATIENCE_MS)
    expect(site.answers(REFRESH)).toMatchObject([{ status: 401 }])
    expect(await site.sessions.manager.get(id)).toBeNull()
  }, 60_000)

  test('keeps its key while the store and the server are away, and goes on when they are back', async () => {
    await openWindow()
    await logIn()
    const { port } = site
    await site.stop()
    await loseCookie()
    // In a window of its own: the page that says so is a navigation, too.
    const other = await context.newPage()
    await expect(other.goto(at('/account'))).rejects.toThrow(/ERR_CONNECTION_REFUSED/)
    await other.close()
    await redis.kill()
    site = await Site.start(port)
    await page.goto(at('/account'))
    expect(await page.innerText('body')).toMatch(/^STORE_/)
    expect(site.answers(REFRESH)).toMatchObject([{ status: 503 }])
    await redis.restart()
    await until(
      async () =>
        site.sessions.manager.count().then(
          (count) => count > 0,
          () => false,
        ),
      PATIENCE_MS,
    )
    expect(await account()).toBe('ann, bound')
    expect(isForgotten()).toBe(false)
    expect(site.refused).toEqual([])
  }, 90_000)
})
