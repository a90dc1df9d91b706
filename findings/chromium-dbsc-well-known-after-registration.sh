#!/bin/sh
# A guess: a browser that is to register a device-bound session (DBSC) for a whole site, at a subdomain of it, first asks the registrable
# domain whether it may, by /.well-known/device-bound-sessions, and does not register if not: the server hears nothing. It registers first,
# takes the answer and its cookie, and asks then. Where it may not, it throws its key away without a word: the server holds a key that
# nobody has, and who enforces it locks the user out when the bound cookie is over.
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
const attributes = 'Domain=shop.example; Path=/; Secure; HttpOnly; SameSite=Lax'
let seen = []
let mayRegister = false
const server = createServer({ key, cert }, (req, res) => {
  if (req.url !== '/login' && req.url !== '/page') seen.push(`${req.headers.host}${req.url}`)
  res.setHeader('Content-Type', 'text/html')
  if (req.url === '/login') res.setHeader('Secure-Session-Registration', '(ES256);path="/register";challenge="first"')
  if (req.url === '/.well-known/device-bound-sessions') {
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify({ registering_origins: mayRegister ? ['https://accounts.shop.example'] : [] }))
    return
  }
  if (req.url === '/register' || req.url === '/refresh') {
    res.setHeader('Content-Type', 'application/json')
    res.setHeader('Set-Cookie', `bound=1; Max-Age=600; ${attributes}`)
    res.setHeader('Secure-Session-Challenge', `"next ${seen.length}";id="one"`)
    const credentials = [{ type: 'cookie', name: 'bound', attributes }]
    const scope = { origin: 'https://shop.example', include_site: true }
    res.end(JSON.stringify({ session_identifier: 'one', refresh_url: '/refresh', scope, credentials }))
    return
  }
  res.end('<!doctype html><link rel="icon" href="data:,">')
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const { publicKey } = new X509Certificate(cert)
const pin = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64')
const features = 'DeviceBoundSessions:RefreshQuota/false,EnableBoundSessionCredentialsSoftwareKeysForManualTesting'
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH,
  args: ['--no-sandbox', '--disable-gpu', `--host-resolver-rules=MAP *.example 127.0.0.1:${server.address().port}`, `--ignore-certificate-errors-spki-list=${pin}`, `--enable-features=${features}`],
})

/** What the browser asks by itself after a login at accounts.shop.example, and whether it has a key then. */
async function registration() {
  const context = await browser.newContext()
  const tab = await context.newPage()
  const told = []
  const devtools = await context.newCDPSession(tab)
  await devtools.send('Network.enable')
  await devtools.send('Network.enableDeviceBoundSessions', { enable: true })
  devtools.on('Network.deviceBoundSessionEventOccurred', (event) => event.creationEventDetails && told.push(event))
  seen = []
  await tab.goto('https://accounts.shop.example/login')
  for (let n = 0; n < 1_500 && told.length === 0; n++) await new Promise((next) => setTimeout(next, 20))
  const asked = seen
  const hasCookie = (await context.cookies()).some(({ name }) => name === 'bound')
  await context.clearCookies({ name: 'bound' })
  seen = []
  await tab.goto('https://shop.example/page')
  const hasKey = seen.includes('accounts.shop.example/refresh')
  await context.close()
  return { asked: asked.join(', then '), hasCookie, hasKey }
}

const order = 'accounts.shop.example/register, then shop.example/.well-known/device-bound-sessions'
let isAsFound = true
for (mayRegister of [true, false]) {
  const { asked, hasCookie, hasKey } = await registration()
  isAsFound &&= asked === order && hasCookie && hasKey === mayRegister
  console.log(`Chromium ${browser.version()}, a subdomain that ${mayRegister ? 'may' : 'may not'} register: asks ${asked};`)
  console.log(`  it ${hasCookie ? 'takes' : 'leaves'} the bound cookie, and ${hasKey ? 'keeps its key' : 'keeps no key'}`)
}
await browser.close()
server.close()
process.exit(isAsFound ? 0 : 1)
EOT
node try.mjs
