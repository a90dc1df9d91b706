// Sessions in the PostgreSQL that an application has anyway, through its own pool: the tables of sessions stand beside the
// others. Any number of these processes share the sessions.
//
//   DATABASE_URL=postgres://me@localhost/app SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/postgres/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express from 'express'
import pg from 'pg'
import { SessionManager } from 'sojourn'
import { SqlSessionStore } from 'sojourn/sql'

const { DATABASE_URL, PORT = '3000', SESSION_SECRET } = process.env
const secret = SESSION_SECRET ?? randomBytes(32).toString('base64')

const pool = new pg.Pool({ connectionString: DATABASE_URL })
// Without a listener, a connection that is lost while nobody uses it ends the process.
pool.on('error', (error) => console.error(error.message))
const store = new SqlSessionStore({ database: pool })
const sessions = new SessionManager({ secret, store })

const app = express()
app.use(sessions.middleware())
app.use(express.urlencoded({ extended: false }))

app.get('/', async (req, res) => {
  // Atomic: pages that load at once, in one process or several, all count.
  const views = await req.session.update('views', (n) => Number(n ?? 0) + 1)
  res.json({ pid: process.pid, user: req.session.metadata.userId ?? 'nobody', views })
})

app.post('/login', async (req, res) => {
  const { name } = req.body as { name?: unknown }
  // A demo: an application checks a password first.
  await req.session.login(String(name))
  res.redirect(303, '/')
})

// Ends the sessions of a user in all processes: an application asks who wants that.
app.post('/end', async (req, res) => {
  const { name } = req.body as { name?: unknown }
  const ended = await sessions.revokeUser(String(name))
  res.json({ ended })
})

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) stop(error)
  if (!SESSION_SECRET) console.warn('No SESSION_SECRET: each process makes its own, and cookies end with it.')
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void sessions.close().then(() => pool.end()))
  server.closeIdleConnections()
})

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
