#!/bin/sh
# A guess: the refresh of a device-bound session (DBSC) has the cookies of the session, as the request has that waits for it, so that a
# server finds the session by them. Not when a page of another site has caused that request (allowed_refresh_initiators: ["*"]): the
# navigation itself brings its SameSite=Lax cookies, and the refresh before it none. A server that takes it for a stranger's, and
# refuses it, has the browser forget its key. What the refresh always has is Sec-Secure-Session-Id.
#
# Needs Chromium, by CHROMIUM_PATH or on the PATH, and openssl. Exits non-zero when that is no longer so.
set -eu
CHROMIUM_PATH="${CHROMIUM_PATH:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"
export CHROMIUM_PATH
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund playwright-core@1.65.0
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null
cat >try.mjs <<'EOT'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { chromium } from 'playwright-core'

const [key, cert] = [readFileSync('key.pem'), readFileSync('cert.pem')]
const attributes = 'Path=/; Secure; HttpOnly; SameSite=Lax'
const seen = []
const server = createServer({ key, cert }, (req, res) => {
  const cookies = (req.headers.cookie ?? '').split('; ').map((pair) => pair.split('=')[0]).filter(Boolean).sort().join(', ')
  const path = new URL(req.url, 'https://localhost').pathname
  seen.push({ path, cookies })
  res.setHeader('Content-Type', 'text/html')
  if (path === '/login') {
    res.setHeader('Set-Cookie', `session=1; ${attributes}`)
    res.setHeader('Secure-Session-Registration', '(ES256);path="/register";challenge="first"')
  } else if (path === '/register' || path === '/refresh') {
    res.setHeader('Content-Type', 'application/json')
    res.setHeader('Set-Cookie', `bound=1; Max-Age=600; ${attributes}`)
    res.setHeader('Secure-Session-Challenge', `"next ${seen.length}";id="one"`)
    const credentials = [{ type: 'cookie', name: 'bound', attributes }]
    const scope = { include_site: false }
    res.end(JSON.stringify({ session_identifier: 'one', refresh_url: '/refresh', scope, credentials, allowed_refresh_initiators: ['*'] }))
    return
  }
  res.end(`<!doctype html><link rel="icon" href="data:,"><a href="https://shop.example:${server.address().port}/page">x</a>`)
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const { publicKey } = new X509Certificate(cert)
const pin = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64')
const features = 'DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting'
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH,
  args: ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP *.example 127.0.0.1', `--ignore-certificate-errors-spki-list=${pin}`, `--enable-features=${features}`],
})
const context = await browser.newContext()
const tab = await context.newPage()
const at = (host, path) => `https://${host}.example:${server.address().port}${path}`
await tab.goto(at('shop', '/login'))
const until = async (condition) => {
  for (let n = 0; n < 1_000 && !(await condition()); n++) await new Promise((next) => setTimeout(next, 20))
}
await until(async () => (await context.cookies()).some(({ name }) => name === 'bound'))

/** What the refresh had, and the page that waited for it. */
async function cookiesOf(open) {
  for (;;) {
    await context.clearCookies({ name: 'bound' })
    seen.length = 0
    await open()
    const had = (path) => seen.find((request) => request.path === path)?.cookies
    // The registration may take a moment more.
    if (had('/refresh') !== undefined) return { refresh: had('/refresh'), page: had('/page') }
  }
}
const own = await cookiesOf(() => tab.goto(at('shop', '/page')))
const other = await cookiesOf(async () => {
  await tab.goto(at('other', '/'))
  await Promise.all([tab.waitForURL('**/page'), tab.click('a')])
})
const version = browser.version()
console.log(`Chromium ${version}, asked for by the user: the refresh has "${own.refresh}", the page "${own.page}"`)
console.log(`Chromium ${version}, by a link of another site: the refresh has "${other.refresh}", the page "${other.page}"`)
await browser.close()
server.close()
process.exit(own.refresh === 'session' && other.refresh === '' && other.page === 'bound, session' ? 0 : 1)
EOT
node try.mjs
