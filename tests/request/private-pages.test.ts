// Pages of who is logged in are nobody else's, also not by Back, in a real browser.
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import express, { type Express } from 'express'
import type { Browser } from 'playwright-core'
import { type PrivatePagesOptions, privatePages, SessionManager, type SessionOptions } from 'sojourn'
import { startBrowser } from '../support/browser.js'
import { Client, listen, SECRET, type TestServer, until } from '../support/http.js'

let browser: Browser
const open: TestServer[] = []
beforeAll(async () => {
  // Playwright turns off what this is about.
  browser = await startBrowser([], ['--disable-back-forward-cache'])
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await Promise.all(open.map((server) => server.close()))
})

async function site(
  options: PrivatePagesOptions = {},
  sessionOptions: Partial<SessionOptions> = {},
  extend: (app: Express) => void = () => {},
): Promise<{ client: Client; server: TestServer; sessions: SessionManager; asked: string[] }> {
  const asked: string[] = []
  const sessions = new SessionManager({ secret: SECRET, ...sessionOptions })
  const app = express()
  app.set('trust proxy', 1)
  app.use((req, _res, next) => {
    asked.push(req.url)
    next()
  })
  app.get('/shown', (_req, res) => void res.send(''))
  app.get('/same-for-all', (_req, res) => void res.set('Cache-Control', 'max-age=3600').send('a style sheet'))
  app.use(sessions.middleware(), privatePages(options))
  extend(app)
  app.get('/login', async (req, res) => {
    await req.session.login('ann')
    res.redirect('/account')
  })
  app.get('/account', (req, res) => {
    const { userId } = req.session.metadata
    if (userId === undefined) res.send('<!doctype html>Log in.')
    else
      res.send(`<!doctype html>
        <script>addEventListener('pageshow', () => fetch('/shown'))</script>
        Of ${userId}. <a id="out" href="/logout">Log out</a>`)
  })
  app.get('/orders', (_req, res) => void res.set('Cache-Control', 'private, max-age=3600').json(['one']))
  app.get('/logout', async (req, res) => {
    await req.session.logout()
    res.send('<!doctype html>Bye.')
  })
  app.get('/destroy', async (req, res) => {
    await req.session.destroy()
    res.send('')
  })
  const server = await listen(app)
  open.push(server)
  return { client: new Client(server), server, sessions, asked }
}

test("what a logged-in user gets is not stored, and a visitor's page may be", async () => {
  const { client } = await site()
  expect((await client.get('/account')).headers['cache-control']).not.toContain('no-store')
  expect((await client.get('/login')).headers['cache-control']).toBe('no-store')
  expect((await client.get('/account')).headers['cache-control']).toBe('no-store')
  expect((await client.get('/same-for-all')).headers['cache-control']).toBe('max-age=3600')
  // Who says otherwise for one page means it.
  expect((await client.get('/orders')).headers['cache-control']).toBe('private, max-age=3600')
})

test.each(['/logout', '/destroy'])('the answer to %s empties the cache, and no other does', async (path) => {
  const { client } = await site()
  expect((await client.get('/logout')).headers).not.toHaveProperty('clear-site-data')
  expect((await client.get('/login')).headers).not.toHaveProperty('clear-site-data')
  expect((await client.get('/account')).headers).not.toHaveProperty('clear-site-data')
  const { headers, setCookies } = await client.get(path)
  expect(headers['clear-site-data']).toBe('"cache"')
  // Without it, browsers would go on showing the page for Back.
  expect(setCookies).toEqual([expect.stringContaining('Max-Age=0')])
  expect((await client.get('/account')).headers).not.toHaveProperty('clear-site-data')
})

test('so does the first answer to a cookie that was revoked', async () => {
  const { client, sessions } = await site()
  await client.get('/login')
  await sessions.revokeUser('ann')
  expect((await client.get('/account')).headers['clear-site-data']).toBe('"cache"')
})

test('clearCache: false leaves the cache alone, and clearSiteData of session() goes before it', async () => {
  for (const [options, sessionOptions, expected] of [
    [{ clearCache: false }, {}, undefined],
    [{}, { clearSiteData: ['storage'] }, '"storage"'],
  ] as const) {
    const { client } = await site(options, sessionOptions as Partial<SessionOptions>)
    await client.get('/login')
    expect((await client.get('/logout')).headers['clear-site-data']).toBe(expected)
  }
})

test('it says where it belongs', async () => {
  const errors: unknown[] = []
  privatePages()({} as never, {}, (error) => void errors.push(error))
  expect(errors).toMatchObject([{ code: 'INVALID_OPTION', message: expect.stringContaining('behind session()') }])
  expect(() => privatePages({ clearCache: 'yes' as never })).toThrow(
    expect.objectContaining({ code: 'INVALID_OPTION' }),
  )
})

test('after the logout, Back asks the server, and the cache is empty', async () => {
  const { server, asked } = await site()
  const url = server.url.replace('127.0.0.1', 'localhost')
  const page = await (await browser.newContext()).newPage()
  page.setDefaultTimeout(60_000)
  const patiently = (condition: () => boolean): Promise<void> => until(condition, 60_000)
  const count = (path: string): number => asked.filter((one) => one === path).length
  await page.goto(`${url}/login`)
  await patiently(() => count('/shown') === 1)
  for (let n = 0; n < 2; n++) await page.evaluate(`fetch('/same-for-all').then((answer) => answer.text())`)
  expect(count('/same-for-all')).toBe(1)
  await Promise.all([page.waitForURL('**/logout'), page.click('#out')])
  await page.evaluate(`fetch('/same-for-all').then((answer) => answer.text())`)
  expect(count('/same-for-all')).toBe(2)
  const before = count('/account')
  await page.evaluate('setTimeout(() => history.back(), 0)')
  await patiently(() => count('/account') > before)
  await page.waitForSelector('text=Log in.')
  expect(count('/shown')).toBe(1)
})

test('a browser takes no cookie of the prefix __Host-Http- from a script, and keeps the one of the response', async () => {
  const { server } = await site({}, { cookie: { name: '__Host-Http-sid' } })
  const context = await browser.newContext({ extraHTTPHeaders: { 'x-forwarded-proto': 'https' } })
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  await page.goto(`${server.url.replace('127.0.0.1', 'localhost')}/login`)
  const named = async (): Promise<(string | boolean)[][]> =>
    (await context.cookies()).map(({ name, value, httpOnly, secure }) => [name, value.slice(0, 7), httpOnly, secure])
  const ours = await named()
  expect(ours).toEqual([['__Host-Http-sid', expect.any(String), true, true]])
  await page.evaluate(`document.cookie = '__Host-Http-sid=planted; Secure; Path=/'`)
  await page.evaluate(`document.cookie = '__Host-Http-other=planted; Secure; Path=/'`)
  await page.evaluate(`document.cookie = '__Host-other=planted; Secure; Path=/'`)
  expect(await named()).toEqual([...ours, ['__Host-other', 'planted', false, true]])
})
