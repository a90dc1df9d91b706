// An Express app whose routes do what there is to do with a logical ID, for this process and for others (logical-process.ts).
import express, { type Express } from 'express'
import {
  bindSession,
  getSession,
  getSessionId,
  type SessionEvent,
  type SessionMiddleware,
  type SessionOptions,
  session,
} from 'sojourn'
import { inside } from 'sojourn/inside'
import { FakeClock } from 'sojourn/testing'
import { SECRET } from './http.js'

export interface LogicalApp {
  readonly app: Express
  readonly middleware: SessionMiddleware
  readonly clock: FakeClock
  /** What was told so far. */
  readonly boundaries: SessionEvent<'boundary'>[]
}

/**
 * Every route of a session answers `{ logicalId, id }`, with the logical ID as `peek` sees it, unless it asks for one. With
 * `?wait` a request waits, its session loaded: `GET /waiting?n=` answers once n of them do, and `POST /go` lets them go
 * on. These, `GET /boundaries` and `POST /advance?ms=` know nothing of sessions.
 */
export function logicalApp(options: Partial<SessionOptions> = {}): LogicalApp {
  const app = express()
  app.set('env', 'test')
  const clock = new FakeClock()
  const boundaries: SessionEvent<'boundary'>[] = []
  const middleware = session({ secret: SECRET, clock: clock.now, ...options })
  middleware.events.on('boundary', (boundary) => boundaries.push(boundary))
  const waiting: (() => void)[] = []
  const gatherings: { size: number; answer: () => void }[] = []

  app.get('/boundaries', (_req, res) => {
    res.json(boundaries)
  })
  app.post('/advance', (req, res) => {
    clock.advance(Number(req.query['ms']))
    res.json({})
  })
  app.get('/waiting', (req, res) => {
    const size = Number(req.query['n'])
    if (waiting.length >= size) res.json({})
    else gatherings.push({ size, answer: () => res.headersSent || res.json({}) })
  })
  app.post('/go', (_req, res) => {
    for (const go of waiting.splice(0)) go()
    res.json({})
  })
  app.use(middleware)
  app.use((req, _res, next) => {
    if (req.query['wait'] === undefined) {
      next()
      return
    }
    waiting.push(bindSession(() => next()))
    for (const { size, answer } of gatherings) if (waiting.length >= size) answer()
  })
  app.get('/plain', (_req, res) => {
    res.json({})
  })
  app.get('/id', (req, res) => {
    res.json({ logicalId: getSessionId(), id: req.session.id })
  })
  app.get('/peek', (_req, res) => {
    res.json({ logicalId: peek() })
  })
  app.post('/set', (req, res) => {
    for (const [name, value] of Object.entries(req.query)) if (name !== 'wait') req.session.set(name, value)
    answer(req, res)
  })
  app.post('/login', async (req, res) => {
    const before = peek()
    await req.session.login('ann')
    res.json({ before, logicalId: peek(), id: req.session.id })
  })
  app.post('/logout', async (req, res) => {
    await req.session.logout()
    if (req.query['flash'] !== undefined) req.session.set('flash', 'Goodbye')
    answer(req, res)
  })
  app.post('/renew', async (req, res) => {
    await req.session.renew()
    answer(req, res)
  })
  app.post('/regenerate', async (req, res) => {
    const { keep } = req.query
    const before = peek()
    await req.session.regenerate({ keep: keep === 'true' || (typeof keep === 'string' && [keep]) })
    res.json({ before, logicalId: peek(), id: req.session.id })
  })
  app.post('/restart', async (req, res) => {
    await req.session.restart()
    answer(req, res)
  })
  app.post('/complete', async (req, res) => {
    res.json({ logicalId: await req.session.completeWorkflow(), id: req.session.id, peeked: peek() })
  })
  app.post('/update', async (req, res) => {
    await req.session.update('n', (n) => Number(n ?? 0) + 1)
    answer(req, res)
  })
  app.get('/fields', (req, res) => {
    res.json({ ...req.session })
  })
  return { app, middleware, clock, boundaries }

  function answer(req: express.Request, res: express.Response): void {
    res.json({ logicalId: peek(), id: req.session.id })
  }
}

/** What a logger sees: the logical ID of the current request, without anything being done for it. */
export function peek(): string | undefined {
  const current = getSession()
  return current && inside(current).showLogicalId()
}
