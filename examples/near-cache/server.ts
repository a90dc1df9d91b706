// A near cache before the Redis of REDIS_URL. Start it twice, log in at one, read at both, log out at one: the other hears of it in
// milliseconds, though it asks Redis nothing.
//
//   SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/near-cache/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { SessionManager } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'

const { PORT = '3000', REDIS_URL, SESSION_SECRET } = process.env
const secret = SESSION_SECRET ?? randomBytes(32).toString('base64')

// An answer from memory is a second old at most, whatever happens to servers and networks.
const store = new RedisSessionStore({ url: REDIS_URL || 'redis://localhost:6379', nearCache: { maxAge: '1s' } })
const sessions = new SessionManager({ secret, store })

const app = express()
app.use(sessions.middleware())
app.use(express.urlencoded({ extended: false }))

app.get('/', (req, res) => {
  const { userId = 'nobody' } = req.session.metadata
  res.json({ user: userId, memory: store.nearCache })
})

app.post('/login', async (req, res) => {
  const { name } = req.body as { name?: unknown }
  // A demo: an application checks a password first.
  await req.session.login(String(name))
  res.redirect(303, '/')
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) stop(error)
  if (!SESSION_SECRET) console.warn('No SESSION_SECRET: cookies end with this program.')
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void sessions.close())
  server.closeIdleConnections()
})

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
