// The application that tests/runtimes.mjs drives, on whatever runtime. argv: the URL of a Redis, or that of a file of SQLite, or
// nothing for the store in memory. Prints its URL.
import { subscribe } from 'node:diagnostics_channel'
import { createServer } from 'node:http'
import express from 'express'
import { MemorySessionStore, session } from '../../dist/esm/index.js'
import { RedisSessionStore } from '../../dist/esm/stores/redis.js'
import { sqlStore } from '../../dist/esm/stores/sql.js'
import { FaultyStore } from '../../dist/esm/testing/index.js'

const url = process.argv[2]
const heard = []
subscribe('sojourn:login', ({ userId }) => heard.push(userId))

const inner = storeAt(url)
const store = new FaultyStore(inner)
const sessions = session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja', store, storeTimeout: '10s' })
sessions.events.on('storeError', () => {})

function storeAt(url) {
  if (!url) return new MemorySessionStore()
  if (url.startsWith('redis:')) return new RedisSessionStore({ url })
  return sqlStore(url, { cleanupInterval: 0, durability: 'relaxed', timeout: 10_000 })
}

/** Has collected what nobody holds, where the runtime lets itself be told to. */
function collect() {
  globalThis.Bun?.gc(true)
  globalThis.gc?.()
}
collect()

const app = express()
app.set('env', 'test')
app.use(sessions)
app.get('/set/:name', (req, res) => {
  req.session.set(req.params.name, 1)
  res.send('set')
})
app.get('/count', async (req, res) => {
  res.send(String(await req.session.update('count', (n = 0) => n + 1)))
})
app.get('/keys', (req, res) => {
  res.json(req.session.keys().sort())
})
app.get('/redirect', (req, res) => {
  req.session.set('redirected', true)
  res.redirect('/keys')
})
app.post('/login', async (req, res) => {
  await req.session.login('ann')
  res.send(req.session.id)
})
app.get('/me', (req, res) => {
  res.send(req.session.metadata.userId ?? 'nobody')
})
app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.send('bye')
})
app.post('/revoke', async (_req, res) => {
  await sessions.manager.revokeUser('ann')
  res.send('revoked')
})
app.post('/clean-up/:count', async (req, res) => {
  const record = await inner.get(req.session.id)
  for (let n = 0; n < Number(req.params.count); n++) await inner.set(`over-${n}`, record, -1)
  res.send(String(await inner.clearExpired()))
})
// Faults of handlers: each answers, and then fails.
app.get('/answers-then-throws', (req, res) => {
  req.session.set('thrown', true)
  res.send('answered')
  throw new Error('after the answer')
})
app.get('/answers-then-rejects', async (req, res) => {
  req.session.set('rejected', true)
  res.send('answered')
  throw new Error('after the answer')
})
app.get('/answers-then-next', (req, res, next) => {
  req.session.set('passed', true)
  res.send('answered')
  next(new Error('after the answer'))
})
app.get('/answers-twice', (req, res) => {
  req.session.set('twice', true)
  res.send('answered')
  try {
    res.send('again')
  } catch (error) {
    heard.push(error.code)
  }
})
app.get('/throws', (req) => {
  req.session.set('lost', true)
  throw new Error('no answer')
})
app.get('/streams', async (req, res) => {
  res.type('text/plain').flushHeaders()
  for (let part = 0; part < 3; part++) {
    res.write(`part ${part} `)
    await new Promise((resolve) => setImmediate(resolve))
  }
  req.session.set('streamed', true)
  res.end('end')
})
app.get('/stream-that-fails', (req, res) => {
  res.write('part one, ')
  setTimeout(() => {
    store.fail({ kind: 'error', operations: ['update'], times: 1 })
    req.session.set('never', true)
    res.end('part two')
  }, 50)
})
app.get('/store-fails', (req, res) => {
  store.fail({ kind: 'error', operations: ['update'], times: 1 })
  req.session.set('never', true)
  res.send('set')
})
app.get('/heard', (_req, res) => {
  res.json(heard)
})

process.on('SIGTERM', () => process.exit(0))
const server = createServer(app).listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
