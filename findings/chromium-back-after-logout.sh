#!/bin/sh
# A guess: a page with "Cache-Control: no-store" is not kept for Back, and Clear-Site-Data: "cache" with the logout drops what is.
# Chromium keeps the page in the back/forward cache all the same, and Back shows it without a request, also after Clear-Site-Data. What
# makes Back ask the server is no-store on the page and a cookie that the logout changes, both together; one of them is not enough.
#
# Needs Chromium, by CHROMIUM_PATH or on the PATH. Exits non-zero when that is no longer so.
set -eu
CHROMIUM_PATH="${CHROMIUM_PATH:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"
export CHROMIUM_PATH
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund playwright-core@1.65.0
cat >try.mjs <<'EOT'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { chromium } from 'playwright-core'

const asked = []
const server = createServer((req, res) => {
  const { pathname, searchParams } = new URL(req.url, 'http://localhost')
  asked.push(pathname)
  res.setHeader('Content-Type', 'text/html')
  if (pathname === '/account') {
    const cacheControl = searchParams.get('page')
    if (cacheControl !== '') res.setHeader('Cache-Control', cacheControl)
    if (!req.headers.cookie) res.setHeader('Set-Cookie', 'sid=1; Path=/; HttpOnly')
    const query = new URLSearchParams(JSON.parse(searchParams.get('logout')))
    res.end(`<!doctype html><script>addEventListener('pageshow', (event) => fetch(event.persisted ? '/kept' : '/fresh'))</script>
      <a href="/logout?${query}">Log out</a>`)
    return
  }
  if (searchParams.has('cookie')) res.setHeader('Set-Cookie', 'sid=; Max-Age=0; Path=/; HttpOnly')
  if (searchParams.has('clear')) res.setHeader('Clear-Site-Data', '"cache"')
  res.end('<!doctype html>Bye.')
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH,
  ignoreDefaultArgs: ['--disable-back-forward-cache'],
  args: ['--no-sandbox', '--disable-gpu'],
})

/** Whether Back after the logout shows the page without asking for it. */
async function isKept(page, logout) {
  const tab = await (await browser.newContext()).newPage()
  const base = `http://localhost:${server.address().port}`
  const seen = async (path, from) => {
    for (let n = 0; n < 500 && !asked.slice(from).includes(path); n++) await new Promise((next) => setTimeout(next, 20))
  }
  const start = asked.length
  await tab.goto(`${base}/account?${new URLSearchParams({ page, logout: JSON.stringify(logout) })}`)
  await seen('/fresh', start)
  await Promise.all([tab.waitForURL('**/logout*'), tab.click('a')])
  const before = asked.length
  await tab.evaluate('setTimeout(() => history.back(), 0)')
  for (let n = 0; n < 500; n++) {
    const since = asked.slice(before)
    if (since.includes('/kept')) return true
    if (since.includes('/account')) return false
    await new Promise((next) => setTimeout(next, 20))
  }
  throw new Error('Nothing came of Back.')
}

let isAsFound = true
for (const [page, logout, expected] of [
  ['', { cookie: '' }, true],
  ['no-store', {}, true],
  ['no-store', { clear: '' }, true],
  ['no-store', { cookie: '' }, false],
]) {
  const kept = await isKept(page, logout)
  isAsFound &&= kept === expected
  const how = [page === '' ? 'page as it is' : `page with ${page}`]
  if ('cookie' in logout) how.push('the logout changes a cookie')
  if ('clear' in logout) how.push('the logout clears the cache')
  console.log(`Chromium ${browser.version()}, ${how.join(', ')}: Back ${kept ? 'shows the page without a request' : 'asks the server'}`)
}
await browser.close()
server.close()
process.exit(isAsFound ? 0 : 1)
EOT
node try.mjs
