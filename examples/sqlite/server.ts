// Sessions in one file of SQLite: nothing to install on Node 22.13 and later, or with better-sqlite3. Kill this process in any
// way, start it again, and every session is where it was.
//
//   SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/sqlite/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { SessionManager } from 'sojourn'
import { sqlStore } from 'sojourn/sql'

// The types of req.session's fields.
declare module 'sojourn' {
  interface SessionFields {
    notes?: string[]
  }
}

const { PORT = '3000', SESSION_FILE = 'sessions.db', SESSION_SECRET } = process.env
const secret = SESSION_SECRET ?? randomBytes(32).toString('base64')

// What is acknowledged is on the disk. `durability: 'relaxed'` is faster, and loses nothing when the process is killed either.
const store = sqlStore(`sqlite:${SESSION_FILE}`)
const sessions = new SessionManager({ secret, store, maxSessionsPerUser: 3 })

const app = express()
app.use(sessions.middleware())
app.use(express.urlencoded({ extended: false }))

app.get('/', (req, res) => {
  const { userId = 'nobody' } = req.session.metadata
  res.json({ user: userId, notes: req.session.get('notes', []) })
})

app.post('/notes', async (req, res) => {
  const { note } = req.body as { note?: unknown }
  // Atomic: notes of two tabs at once are both kept. The answer comes when they are on the disk.
  await req.session.update('notes', (notes = []) => [...notes, String(note)])
  res.redirect(303, '/')
})

app.post('/login', async (req, res) => {
  const { name } = req.body as { name?: unknown }
  // A demo: an application checks a password first.
  await req.session.login(String(name))
  res.redirect(303, '/')
})

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) stop(error)
  if (!SESSION_SECRET) console.warn('No SESSION_SECRET: cookies end with this program.')
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void sessions.close().then(() => store.close()))
  server.closeIdleConnections()
})

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
