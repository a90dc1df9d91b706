#!/bin/sh
# A guess: req.session.cookie.maxAge is the time that a session has left, as the documentation of express-session says, with any store.
# So it is with its MemoryStore. With connect-redis a request that changes nothing moves the end of the key and not the text in it, and
# a handler is given the end that the session had when it was last written: a session in constant use has no time left, and then less
# than none, and lives. A countdown to the logout that is made of it logs out whoever only reads. (connect-pg-simple is alike.)
#
# Needs redis-server on the PATH. Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts express-session@1.19.0 connect-redis@10.0.0 redis@6.3.1
cat >try.mjs <<'EOF'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisStore } from 'connect-redis'
import session from 'express-session'
import { createClient } from 'redis'

const MAX_AGE_MS = 8_000

async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server.address().port
}

/** What a handler sees of the session of a visitor who comes three times, five seconds apart, and writes the first time. */
async function visits(store) {
  const middleware = session({
    secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja',
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: MAX_AGE_MS },
    store,
  })
  const server = createServer((req, res) => {
    middleware(req, res, () => {
      const { user, cookie } = req.session
      const seen = { user, secondsLeft: Math.round(cookie.maxAge / 1000) }
      req.session.user ??= 'ann'
      res.end(JSON.stringify(seen))
    })
  })
  const url = `http://127.0.0.1:${await listening(server)}`
  const first = await fetch(url)
  await first.text()
  const [cookie] = first.headers.getSetCookie()[0].split(';')
  const seen = []
  for (let visit = 0; visit < 2; visit++) {
    await sleep(5_000)
    seen.push(await (await fetch(url, { headers: { cookie } })).json())
  }
  server.closeAllConnections()
  server.close()
  return seen
}

const probe = createServer()
const port = await listening(probe)
probe.close()
await once(probe, 'close')
const redisServer = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', ''], { stdio: 'ignore' })
const client = createClient({ url: `redis://127.0.0.1:${port}` }).on('error', () => {})
await client.connect()
const [memory, redis] = await Promise.all([visits(new session.MemoryStore()), visits(new RedisStore({ client }))])
client.destroy()
redisServer.kill('SIGKILL')

for (const name of ['express-session', 'connect-redis', 'redis']) {
  console.log(name, JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')).version)
}
console.log('MemoryStore, after 5 and 10 s of', MAX_AGE_MS / 1000, memory)
console.log('connect-redis, likewise', redis)
const isAlive = [...memory, ...redis].every(({ user }) => user === 'ann')
process.exit(isAlive && memory[1].secondsLeft > 0 && redis[1].secondsLeft < 0 ? 0 : 1)
EOF
node try.mjs
