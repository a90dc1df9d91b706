// Several processes behind one port, on one Redis: a session belongs to none of them. A worker that dies is replaced, and
// whichever answers next goes on with the session. story.ts plays that through.
//
//   npx tsx examples/cluster/server.ts
//   npx tsx examples/cluster/story.ts http://127.0.0.1:3000
import cluster, { type Address } from 'node:cluster'
import { randomBytes } from 'node:crypto'
import express from 'express'
import { openSessions } from './sessions.js'

const WORKERS = 3
/** Requests that take longer than this are cut off when the process ends. Supervisors often kill after 30 seconds. */
const DRAIN_MS = 25_000
/** How a worker ends that could not listen, so that it is said once and not by each. */
const PORT_TAKEN = 2

if (cluster.isPrimary) lead()
else work()

/** The first process: starts the workers, and another one for each that dies. */
function lead(): void {
  // One secret for all workers. A random one makes every cookie void at the next start; in production set one that stays.
  const SESSION_SECRET = process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64')
  const listening = new Set<number>()
  let isReady = false
  let isStopping = false

  cluster.on('listening', ({ id }, { address, port }: Address) => {
    listening.add(id)
    if (isReady || listening.size < WORKERS) return
    isReady = true
    console.log(`http://${address}:${port}`)
  })
  cluster.on('exit', ({ id, process: { pid } }, code, signal) => {
    if (isStopping) return
    if (code === PORT_TAKEN) {
      isStopping = true
      process.exitCode = 1
      console.error('The port is taken. Choose another one: PORT=3001')
      return
    }
    console.log(`Worker ${pid} has ended (${signal ?? code}).`)
    // One that never got as far would only fail again.
    if (listening.has(id)) cluster.fork({ SESSION_SECRET })
    else process.exitCode = 1
  })
  process.on('SIGTERM', () => {
    isStopping = true
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGTERM')
  })
  for (let count = 0; count < WORKERS; count++) cluster.fork({ SESSION_SECRET })
}

/** One of the processes that answer. */
function work(): void {
  const { SESSION_SECRET: secret = '' } = process.env
  const sessions = openSessions(secret)
  const app = express()
  app.use(sessions.middleware())
  app.use(express.json())

  app.get('/', async (req, res) => {
    const visits = await req.session.update('visits', (count = 0) => count + 1)
    const { id, metadata } = req.session
    // previousEnd: how the session that the cookie named has ended, when this is a new one for that reason.
    res.json({ worker: process.pid, session: id, user: metadata.userId, visits, previousEnd: metadata.previousEnd })
  })

  app.post('/login', async (req, res) => {
    const { name } = (req.body ?? {}) as { name?: unknown }
    if (typeof name !== 'string' || name === '' || name.length > 40) {
      res.status(400).json({ error: 'A name of at most 40 characters is needed.' })
      return
    }
    // A demo: an application checks a password first.
    await req.session.login(name)
    res.json({ worker: process.pid, session: req.session.id, user: name })
  })

  // What users should find in their account: where they are logged in, and a way to end that.
  app.get('/sessions', async (req, res) => {
    const { userId } = req.session.metadata
    if (userId === undefined) res.sendStatus(401)
    else res.json(await sessions.sessionsOf(userId, { current: req.session }))
  })
  app.post('/logout-elsewhere', async (req, res) => {
    const { userId } = req.session.metadata
    if (userId === undefined) res.sendStatus(401)
    else res.json({ ended: await sessions.revokeUser(userId, { except: req.session, by: String(userId) }) })
  })
  app.post('/logout', async (req, res) => {
    await req.session.logout()
    res.sendStatus(204)
  })

  const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
    if (error && 'code' in error && error.code === 'EADDRINUSE') process.exit(PORT_TAKEN)
    if (error) throw error
  })

  let isDraining = false
  // Not once(): a supervisor may send the signal to every process, too, and the second one must not end this at once.
  process.on('SIGTERM', () => {
    if (!isDraining) void drain()
  })

  /** Answers what was asked, with all of it stored, and ends. */
  async function drain(): Promise<void> {
    isDraining = true
    // No new connections from here on, and a connection that has answered waits for no further request.
    const closed = new Promise((resolve) => server.close(resolve))
    server.keepAliveTimeout = 1
    const late = setTimeout(() => server.closeAllConnections(), DRAIN_MS)
    await closed
    clearTimeout(late)
    // After the server: requests need the store until they are answered.
    await sessions.close()
    cluster.worker?.disconnect()
  }
}
