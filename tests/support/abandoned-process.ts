// An application on Express 4 whose async handlers are not wrapped. Argument: which events of the process it listens to.
import { createRequire } from 'node:module'
import type express5 from 'express'
import { MemorySessionStore, SessionManager } from '../../src/index.js'
import { FaultyStore } from '../../src/testing/index.js'
import { SECRET } from './http.js'

const express = createRequire(import.meta.url)('express4') as typeof express5
const store = new FaultyStore(new MemorySessionStore())
const manager = new SessionManager({ secret: SECRET, store })
for (const name of process.argv.slice(2)) {
  process.on(name, (error: Error) => console.log(`heard ${name}: ${error.message}`))
}
const app = express()
app.use(manager.middleware())
app.get('/login', async (req, res) => {
  store.fail({ kind: 'error', operations: ['create', 'regenerate'], times: 1 })
  await req.session.login('ann')
  res.end('logged in')
})
/** Handles the failure, and takes its time. */
app.get('/slow', async (req, res) => {
  store.fail({ kind: 'error', operations: ['create', 'regenerate'], times: 1 })
  await req.session.login('ann').catch(() => {})
  setTimeout(() => res.end('in the end'), 100)
})
app.get('/fine', (_req, res) => {
  res.end(
    `fine, ${process.listenerCount('unhandledRejection')} and ${process.listenerCount('uncaughtExceptionMonitor')}`,
  )
})
const server = app.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as { port: number }
  console.log(`http://127.0.0.1:${port}`)
})
