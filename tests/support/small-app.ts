// An Express app with one page of the test's own, for what one handler does.
import express, { type RequestHandler } from 'express'
import { MemorySessionStore, type SessionOptions, session } from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { Client, listen, SECRET } from './http.js'

/** What is to be closed after the test. */
export const closers: (() => Promise<void>)[] = []

export async function closeApps(): Promise<void> {
  await Promise.all(closers.splice(0).map((close) => close()))
}

/** An app whose `/` is `answer`, whose `/peek` shows the fields, and whose `/fill` begins a session. */
export async function serve(answer: RequestHandler, options: Partial<SessionOptions> = {}) {
  const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
  const clock = new FakeClock()
  const middleware = session({ secret: SECRET, store, clock: clock.now, ...options })
  const late: string[] = []
  middleware.events.on('lateChange', ({ reason }) => late.push(reason))
  middleware.events.on('storeError', () => {})
  const app = express()
  app.use(middleware)
  app.get('/', answer)
  app.get('/peek', (req, res) => void res.json(req.session))
  app.get('/fill', (req, res) => {
    req.session.set('filled', true)
    res.end()
  })
  const server = await listen(app)
  closers.push(server.close)
  return { app, store, clock, late, middleware, server, client: new Client(server) }
}
