#!/bin/sh
# A guess: a server that refuses the refresh of a device-bound session (DBSC) with 403 and no new challenge is asked once, and the
# browser forgets its key. A browser that was given a challenge ahead takes 403 as asking for a signature of that one, and signs it four
# times in a row before it forgets, of the six signatures or so that a site has in nine minutes: the next login may find none left.
# 401 is asked once. (403 is what the protocol has for "sign another challenge".)
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
const posts = []
let refusal = 0
const server = createServer({ key, cert }, (req, res) => {
  res.setHeader('Content-Type', 'text/html')
  if (req.url === '/login') res.setHeader('Secure-Session-Registration', '(ES256);path="/register";challenge="first"')
  if (req.url === '/refresh') {
    posts.push(req.headers['secure-session-response'] !== undefined)
    res.statusCode = refusal
  }
  if (req.url === '/register') {
    res.setHeader('Content-Type', 'application/json')
    res.setHeader('Set-Cookie', `bound=1; Max-Age=600; ${attributes}`)
    // Given ahead, for the first refresh.
    res.setHeader('Secure-Session-Challenge', '"ahead";id="one"')
    const credentials = [{ type: 'cookie', name: 'bound', attributes }]
    res.end(JSON.stringify({ session_identifier: 'one', refresh_url: '/refresh', scope: { include_site: false }, credentials }))
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
  args: ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP *.example 127.0.0.1', `--ignore-certificate-errors-spki-list=${pin}`, `--enable-features=${features}`],
})
const at = (path) => `https://shop.example:${server.address().port}${path}`

/** How many posts a refusal of this status takes until the browser has forgotten its key, and how many of them it signed. */
async function postsUntilForgotten(status) {
  const context = await browser.newContext()
  const tab = await context.newPage()
  refusal = status
  await tab.goto(at('/login'))
  for (let n = 0; n < 1_000 && !(await context.cookies()).some(({ name }) => name === 'bound'); n++) {
    await new Promise((next) => setTimeout(next, 20))
  }
  posts.length = 0
  // The registration may take a moment more.
  while (posts.length === 0) {
    await context.clearCookies({ name: 'bound' })
    await tab.goto(at('/page'))
  }
  const made = { posts: posts.length, signed: posts.filter(Boolean).length }
  posts.length = 0
  await tab.goto(at('/page'))
  await context.close()
  return { ...made, isForgotten: posts.length === 0 }
}

let isAsFound = true
for (const [status, expected] of [
  [403, 4],
  [401, 1],
]) {
  const { posts: count, signed, isForgotten } = await postsUntilForgotten(status)
  isAsFound &&= count === expected && signed === expected && isForgotten
  const end = isForgotten ? 'has forgotten its key' : 'keeps its key'
  console.log(`Chromium ${browser.version()}, refused with ${status} and no challenge: ${count} posts, ${signed} signed, then it ${end}`)
}
await browser.close()
server.close()
process.exit(isAsFound ? 0 : 1)
EOT
node try.mjs
