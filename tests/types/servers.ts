// The middleware fits Express, Connect and plain servers, and handlers see `req.session`, without casts.
import { createServer } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import { createServer as createHttpsServer } from 'node:https'
import connect from 'connect'
import express, { type NextFunction, type Request, type RequestHandler, type Response, Router } from 'express'
import sessionByDefault, {
  asyncHandler,
  getSession,
  requireRecentAuth,
  requireSession,
  type Session,
  type SessionMiddleware,
  type SessionOptions,
  type SessionStore,
  session,
} from 'sojourn'
import type { RedisSessionStore } from 'sojourn/redis'
import { exactly } from './assert.js'

declare const store: RedisSessionStore
const sessions = session({ secret: ['new', 'old'], store, idleTimeout: '30m', absoluteTimeout: 43_200 })
exactly<SessionMiddleware>()(sessions)
exactly<SessionStore>()(sessions.store)
exactly<typeof session>()(sessionByDefault)

const app = express()
app.use(sessions)
app.use('/admin', session({ secret: 'other', cookie: { path: '/admin', sameSite: 'strict' } }))
app.get('/', (req, res) => {
  exactly<Session>()(req.session)
  exactly<number | undefined>()(req.session.userId)
  res.json(req.session.get('theme', 'light'))
})
app.get('/:id', sessions, async (req, res) => {
  exactly<string>()(req.params.id)
  await req.session.login(req.params.id)
  res.redirect('/')
})
app.get(
  '/wrapped/:id',
  asyncHandler(async (req, res) => {
    exactly<string>()(req.params.id)
    await req.session.login(req.params.id)
    res.redirect('/')
  }),
)
app.post('/password', requireRecentAuth('10m'), (_req, res) => void res.sendStatus(204))
const toLogin = (_req: Request, res: Response): void => res.redirect('/login')
app.post('/email', requireRecentAuth('10m', { onRequired: toLogin }), (_req, res) => void res.sendStatus(204))
app.use((_error: unknown, req: Request, _res: Response, next: NextFunction) => {
  exactly<Session>()(req.session)
  next()
})
Router()
  .use(sessions)
  .get('/', (req) => void req.session.id)

export const handler: RequestHandler = (req, _res, next) => {
  req.session.set('userId', 1)
  next()
}

connect().use(sessions)
connect().use('/path', sessions)

createServer((req, res) => {
  sessions(req, res, (error) => {
    exactly<unknown>()(error)
    exactly<Session | undefined>()(getSession(req))
    res.end(requireSession(req).id)
  })
})
createHttpsServer((req, res) => sessions(req, res, () => res.end()))
createHttp2Server((req, res) => sessions(req, res, () => res.end()))
// A WebSocket upgrade has no response.
createServer().on('upgrade', (req) => sessions(req, {}, () => {}))

sessions.events.on('login', (event) => exactly<string | number>()(event.userId))
// @ts-expect-error there is no such event
sessions.events.on('signIn', () => {})

// @ts-expect-error a secret is needed
session({})
// @ts-expect-error an option of express-session
session({ secret: 'a', resave: false })
// @ts-expect-error no such value
export const options: SessionOptions = { secret: 'a', commit: 'sometimes' }
