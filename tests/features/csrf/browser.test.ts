// What a real browser sends, and what csrf() makes of it.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express from 'express'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { type SessionEvent, session } from 'sojourn'
import { csrf, csrfField, csrfMeta } from 'sojourn/csrf'
import { startBrowser } from '../../support/browser.js'
import { SECRET, type TestServer } from '../../support/http.js'

let browser: Browser
let context: BrowserContext
let site: TestServer & { readonly hits: Hit[]; readonly refused: SessionEvent<'csrfRefused'>[] }

interface Hit {
  readonly method: string
  readonly path: string
  readonly hasSession: boolean
  readonly fetchSite: string | undefined
  readonly origin: string | undefined
  readonly purpose: string | undefined
}

beforeAll(async () => {
  // A host that is neither HTTPS nor local gets no Fetch Metadata.
  browser = await startBrowser(['--host-resolver-rules=MAP *.example 127.0.0.1'])
  site = await startSite()
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.close()
})
afterEach(async () => {
  await context?.close()
  site.hits.length = 0
  site.refused.length = 0
})

/** One server for all sites: a page's own, and those that attack it. What it is called says which. */
async function startSite(): Promise<typeof site> {
  const hits: Hit[] = []
  const refused: SessionEvent<'csrfRefused'>[] = []
  // Without the attribute a young cookie goes along with a POST from another site, too.
  const sessions = session({ secret: SECRET, cookie: { sameSite: false } })
  sessions.events.on('csrfRefused', (event) => void refused.push(event))
  const app = express()
  app.get('/evil/*rest', (req, res) => {
    const target = req.query['target'] as string
    const kind = req.path.slice('/evil/'.length)
    if (kind === 'link') res.send(`<a id="go" href="${target}/account">x</a>`)
    else if (kind === 'prefetch')
      res.send(`<script type="speculationrules">{"prefetch":[{"urls":["${target}/account"]}]}</script>`)
    else res.send(`<form id="form" method="post" action="${target}/act"><button id="go">x</button></form>`)
  })
  app.use(sessions, express.urlencoded({ extended: false }))
  app.use((req, _res, next) => {
    hits.push({
      method: req.method,
      path: req.path,
      hasSession: !req.session.isNew,
      fetchSite: req.headers['sec-fetch-site'] as string | undefined,
      origin: req.headers.origin,
      purpose: req.headers['sec-purpose'] as string | undefined,
    })
    next()
  })
  app.use(csrf())
  app.get('/page', (req, res) => {
    req.session.set('visits', Number(req.session.get('visits') ?? 0) + 1)
    const policy = req.query['policy']
    if (typeof policy === 'string') res.setHeader('Referrer-Policy', policy)
    const field = req.query['token'] === undefined ? '' : csrfField(req)
    res.send(`<!doctype html>${csrfMeta(req)}
      <form id="form" method="post" action="/act">${field}<button id="go">x</button></form>`)
  })
  app.get('/account', (_req, res) => void res.send('account'))
  app.post('/act', (_req, res) => void res.send('done'))
  app.post('/login', async (req, res) => {
    await req.session.login('ann')
    res.redirect(303, '/page')
  })
  app.use(((error, _req, res, _next) => {
    res.status(error.status ?? 500).send(`refused: ${error.message}`)
  }) as express.ErrorRequestHandler)
  const server = createServer(app)
  server.on('upgrade', (req, socket) => {
    const end = (status: string): void => void socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`)
    sessions(req, {}, (error) => {
      if (error !== undefined) return end('500 Error')
      hits.push({
        method: 'UPGRADE',
        path: req.url ?? '',
        hasSession: !req.session.isNew,
        fetchSite: req.headers['sec-fetch-site'] as string | undefined,
        origin: req.headers.origin,
        purpose: undefined,
      })
      // A status that is neither 101 nor 403 tells that it would have been let in.
      csrf()(req, {}, (refusal) => end(refusal === undefined ? '404 Passed' : '403 Forbidden'))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return { url: `http://localhost:${port}`, port, server, close, hits, refused }
}

const at = (host: string): string => `http://${host}:${site.port}`

async function newPage(): Promise<Page> {
  context = await browser.newContext()
  return context.newPage()
}

async function submit(page: Page): Promise<string> {
  await Promise.all([page.waitForNavigation(), page.click('#go')])
  return page.innerText('body')
}

const lastHit = (method: string): Hit | undefined => site.hits.filter((hit) => hit.method === method).at(-1)

describe('a form', () => {
  test('of the page itself passes, with a token and without', async () => {
    const page = await newPage()
    for (const query of ['', '?token']) {
      await page.goto(`${at('localhost')}/page${query}`)
      expect(await submit(page)).toBe('done')
      expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: 'same-origin' })
    }
  })

  test('of a page that sends no referrer passes, though its Origin is null', async () => {
    const page = await newPage()
    await page.goto(`${at('localhost')}/page?policy=no-referrer`)
    expect(await submit(page)).toBe('done')
    expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: 'same-origin', origin: 'null' })
  })

  test('of another site is refused, with the cookie that it carries', async () => {
    const page = await newPage()
    await page.goto(`${at('localhost')}/page`)
    await page.goto(`${at('127.0.0.1')}/evil/form?target=${at('localhost')}`)
    expect(await submit(page)).toContain('refused: Sec-Fetch-Site')
    expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: 'cross-site' })
    expect(site.refused).toMatchObject([{ reason: 'fetch-metadata', path: '/act' }])
  })

  test('of a sibling subdomain is refused', async () => {
    const page = await newPage()
    await page.goto(`${at('shop.localhost')}/page`)
    await page.goto(`${at('evil.shop.localhost')}/evil/form?target=${at('shop.localhost')}`)
    expect(await submit(page)).toContain('refused: Sec-Fetch-Site')
    expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: 'same-site' })
  })

  test('is judged by its Origin where the browser sends no Fetch Metadata', async () => {
    const page = await newPage()
    await page.goto(`${at('shop.example')}/page`)
    expect(await submit(page)).toBe('done')
    expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: undefined, origin: at('shop.example') })
    await page.goto(`${at('evil.example')}/evil/form?target=${at('shop.example')}`)
    expect(await submit(page)).toContain('refused: Origin')
    expect(lastHit('POST')).toMatchObject({ fetchSite: undefined, origin: at('evil.example') })
  })

  test('needs its token where the browser sends neither Fetch Metadata nor an Origin', async () => {
    const page = await newPage()
    await page.goto(`${at('shop.example')}/page?policy=no-referrer`)
    expect(await submit(page)).toContain('no CSRF token')
    expect(lastHit('POST')).toMatchObject({ hasSession: true, fetchSite: undefined, origin: 'null' })
    await page.goto(`${at('shop.example')}/page?policy=no-referrer&token`)
    expect(await submit(page)).toBe('done')
  })

  test('from before a login in another tab is refused by its token, and told to be loaded again', async () => {
    const page = await newPage()
    const other = await context.newPage()
    await other.goto(`${at('localhost')}/page`)
    await page.goto(`${at('localhost')}/page?token`)
    await other.evaluate("fetch('/login', { method: 'POST' })")
    expect(await submit(page)).toContain('Load it again')
    await page.goto(`${at('localhost')}/page?token`)
    expect(await submit(page)).toBe('done')
  })

  test('whose answer is loaded again is sent again, and passes again', async () => {
    const page = await newPage()
    await page.goto(`${at('localhost')}/page?token`)
    await submit(page)
    await page.reload()
    expect(await page.innerText('body')).toBe('done')
    expect(site.hits.filter(({ method }) => method === 'POST')).toHaveLength(2)
    expect(lastHit('POST')).toMatchObject({ fetchSite: 'same-origin' })
  })
})

describe('a script', () => {
  test('of the page passes, with X-CSRF-Token from the page and without', async () => {
    const page = await newPage()
    await page.goto(`${at('localhost')}/page`)
    const statuses = await page.evaluate(`Promise.all([{}, {
      'X-CSRF-Token': document.querySelector('meta[name=csrf-token]').content
    }, { 'X-CSRF-Token': 'wrong' }].map((headers) => fetch('/act', { method: 'POST', headers }).then(({ status }) => status)))`)
    expect(statuses).toEqual([200, 200, 403])
  })

  test('of another site is refused, whatever type it says its body is of', async () => {
    const page = await newPage()
    await page.goto(`${at('localhost')}/page`)
    await page.goto(`${at('127.0.0.1')}/evil/form?target=${at('localhost')}`)
    site.hits.length = 0
    for (const type of ['text/plain', 'application/x-www-form-urlencoded; x', 'multipart/form-data', '']) {
      const headers = type === '' ? '{}' : `{ 'Content-Type': '${type}' }`
      await page.evaluate(
        `fetch('${at('localhost')}/act', { method: 'POST', mode: 'no-cors', credentials: 'include', headers: ${headers} })`,
      )
    }
    expect(site.hits.map(({ fetchSite }) => fetchSite)).toEqual(Array(4).fill('cross-site'))
    expect(site.refused).toHaveLength(4)
  })
})

describe('what changes nothing', () => {
  test('a page that is reached from another site, and loaded again, is shown', async () => {
    const page = await newPage()
    await page.goto(`${at('127.0.0.1')}/evil/link?target=${at('localhost')}`)
    expect(await submit(page)).toBe('account')
    await page.reload()
    expect(await page.innerText('body')).toBe('account')
    expect(site.hits.map(({ fetchSite }) => fetchSite)).toEqual(['cross-site', 'cross-site'])
  })

  test('a page that another site has fetched ahead says none, as if the user had asked for it', async () => {
    const page = await newPage()
    const seen = new Promise<void>((resolve) => {
      site.server.on('request', (req) => {
        if (req.url === '/account') resolve()
      })
    })
    await page.goto(`${at('127.0.0.1')}/evil/prefetch?target=${at('localhost')}`)
    await seen
    expect(site.hits).toMatchObject([{ method: 'GET', fetchSite: 'none', purpose: 'prefetch' }])
  })
})

test('a WebSocket is judged by its Origin: the browser sends no Fetch Metadata with its handshake', async () => {
  const page = await newPage()
  const handshake = async (): Promise<unknown> => {
    const count = site.refused.length
    await page.evaluate(
      `new Promise((done) => { new WebSocket('${at('localhost').replace('http', 'ws')}/socket').onclose = () => done() })`,
    )
    return { ...lastHit('UPGRADE'), isRefused: site.refused.length > count }
  }
  await page.goto(`${at('localhost')}/page`)
  expect(await handshake()).toMatchObject({ fetchSite: undefined, hasSession: true, isRefused: false })
  await page.goto(`${at('127.0.0.1')}/evil/form?target=x`)
  expect(await handshake()).toMatchObject({ fetchSite: undefined, origin: at('127.0.0.1'), isRefused: true })
})
