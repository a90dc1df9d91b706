#!/bin/sh
# A guess: a cookie whose session is gone costs a server less than one whose session is there, since there is nothing to read. With
# session-file-store it is the other way round by a factor of fifty or so: a file that is not there is asked for again, five times with
# pauses, so each request with the cookie of a session that has ended waits a quarter of a second or more, for a new session in the end.
# Who comes back after the timeout is one of these, and so is a crawler that keeps cookies. The option retries: 0 does away with that.
#
# Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts express-session@1.19.0 session-file-store@1.5.0
cat >try.cjs <<'EOF'
const { once } = require('node:events')
const { createServer } = require('node:http')
const session = require('express-session')
const FileStore = require('session-file-store')(session)

/** The quickest of a few answers for a session that is there, and for the same one when it has ended, in milliseconds. */
async function answerTimes(options) {
  const store = new FileStore({ path: './sessions', logFn() {}, ...options })
  const middleware = session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja', resave: false, saveUninitialized: false, store })
  const server = createServer((req, res) => {
    middleware(req, res, () => {
      if (req.url === '/login') req.session.user = 'ann'
      if (req.url === '/logout') req.session.destroy(() => res.end())
      else res.end(String(req.session.user))
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${server.address().port}`
  const login = await fetch(`${url}/login`)
  await login.text()
  const [cookie] = login.headers.getSetCookie()[0].split(';')
  const quickest = async (expected) => {
    let least = Number.POSITIVE_INFINITY
    for (let time = 0; time < 5; time++) {
      const start = performance.now()
      const user = await (await fetch(url, { headers: { cookie } })).text()
      if (user !== expected) throw new Error(`${user} instead of ${expected}`)
      least = Math.min(least, performance.now() - start)
    }
    return Math.round(least)
  }
  const there = await quickest('ann')
  await (await fetch(`${url}/logout`, { headers: { cookie } })).text()
  const gone = await quickest('undefined')
  server.closeAllConnections()
  server.close()
  return { there, gone }
}

async function main() {
  const byDefault = await answerTimes({})
  const withoutRetries = await answerTimes({ retries: 0 })
  console.log('session-file-store', require('session-file-store/package.json').version)
  console.log('by default, ms:', byDefault)
  console.log('with retries: 0, ms:', withoutRetries)
  process.exit(byDefault.gone > 200 && byDefault.gone > 5 * byDefault.there && withoutRetries.gone < byDefault.gone / 2 ? 0 : 1)
}
main()
EOF
node try.cjs
