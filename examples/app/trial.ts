// The handlers of the four trials. Both servers run this code, and use what both kinds of session have: fields as plain
// properties, and regenerate() and destroy() with a callback. Only the middleware before it differs.
import { setTimeout as delay } from 'node:timers/promises'
import { type ErrorRequestHandler, type NextFunction, type Request, type Response, Router } from 'express'

export const RACERS = 50
/** How long the slow request of the logout works. */
const WORK_MS = 600

/** What an express-session and a Sojourn session have in common. */
interface AnySession {
  [field: string]: unknown
  regenerate(done: (error?: unknown) => void): unknown
  destroy(done: (error?: unknown) => void): unknown
}

export function trialRoutes(): Router {
  const routes = Router()

  routes.post('/login', (req, res, next) => {
    sessionOf(req).regenerate((error) => {
      if (error) return next(error)
      sessionOf(req)['user'] = 'Ann'
      res.json({ user: 'Ann' })
    })
  })

  routes.post('/logout', (req, res, next) => {
    sessionOf(req).destroy(answer(res, next))
  })

  routes.get('/user', (req, res) => {
    res.json({ user: sessionOf(req)['user'] ?? null })
  })

  // Begins before the logout and ends after it.
  routes.post('/slow', async (req, res) => {
    sessionOf(req)['started'] = Date.now()
    await delay(WORK_MS)
    res.json({})
  })

  routes.post('/race', (req, res) => {
    const session = sessionOf(req)
    for (const name of racersIn(session)) delete session[name]
    session['racing'] = true
    res.json({})
  })

  routes.post('/race/:racer', (req, res) => {
    const racer = Number(req.params.racer)
    if (!Number.isInteger(racer) || racer < 0 || racer >= RACERS) {
      res.sendStatus(400)
      return
    }
    sessionOf(req)[`racer-${racer}`] = true
    res.json({})
  })

  routes.get('/race', (req, res) => {
    const kept = racersIn(sessionOf(req)).map((name) => Number(name.slice('racer-'.length)))
    res.json({ kept })
  })

  // The page behind the redirect shows what was saved.
  routes.post('/save/:value', (req, res) => {
    sessionOf(req)['saved'] = req.params.value
    res.redirect(303, `${req.baseUrl}/saved`)
  })

  routes.get('/saved', (req, res) => {
    res.json({ saved: sessionOf(req)['saved'] ?? null })
  })

  return routes
}

// Browsers print an answer with a status of 400 or more on their console, as an error of the page. Here it is a result to
// show: it goes in the body.
export const tellError: ErrorRequestHandler = (error, _req, res, next) => {
  if (res.headersSent) next(error)
  else res.status(200).json({ refused: Number(error.status) || 500 })
}

function sessionOf(req: Request): AnySession {
  return req.session as unknown as AnySession
}

function racersIn(session: AnySession): string[] {
  return Object.keys(session).filter((name) => name.startsWith('racer-'))
}

function answer(res: Response, next: NextFunction): (error?: unknown) => void {
  return (error) => {
    if (error) next(error)
    else res.json({})
  }
}
