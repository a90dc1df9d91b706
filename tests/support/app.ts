// One Express app with the routes that the promises are tested by, for this process and for others (app-process.ts).
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import express, { type Express } from 'express'
import { type SessionMiddleware, type SessionOptions, session } from 'sojourn'
import { SECRET } from './http.js'

/**
 * `GET /peek` reads, `POST /set?k=v` writes, `POST /login?user=`, `POST /logout`; `POST /slow/*` wait before they act.
 *
 * With `?gate=NAME` a slow request waits at a gate of its own: `GET /gate/NAME` answers once it is there, `POST
 * /gate/NAME` lets it through. Both, and `GET /stats`, know nothing of sessions.
 */
export function testApp(
  options: Partial<SessionOptions> = {},
  stats: () => Record<string, number> = () => ({}),
): {
  app: Express
  middleware: SessionMiddleware
  /** Lets the requests go on that wait in a `/slow` route. */
  release(): void
  /** How many requests wait. */
  waiting(): number
} {
  const app = express()
  app.set('env', 'test')
  // A machine under load must not look like a store that fails. `storeTimeout: undefined` is our own default.
  const middleware = session({ secret: SECRET, storeTimeout: '10s', ...options })
  let held: (() => void)[] = []
  const released = (): Promise<void> => new Promise((resolve) => held.push(resolve))
  const gates = new Map<string, Gate>()
  const gateOf = (name: string): Gate => {
    const gate = gates.get(name) ?? { arrival: signal(), opening: signal() }
    gates.set(name, gate)
    return gate
  }
  const pass = async (name: string): Promise<void> => {
    gateOf(name).arrival.give()
    await gateOf(name).opening.given
    gates.delete(name)
  }

  app.get('/gate/:name', async (req, res) => {
    await gateOf(req.params.name).arrival.given
    res.json({})
  })
  app.post('/gate/:name', (req, res) => {
    gateOf(req.params.name).opening.give()
    res.json({})
  })
  app.get('/stats', (_req, res) => {
    setFlagsFromString('--expose-gc')
    ;(runInNewContext('gc') as () => void)()
    res.json({ heapBytes: process.memoryUsage().heapUsed, ...stats() })
  })
  app.use(middleware)
  app.get('/peek', (req, res) => {
    res.json({ id: req.session.id, fields: req.session, userId: req.session.metadata.userId ?? null })
  })
  app.get('/plain', (_req, res) => {
    res.send('plain')
  })
  app.post('/set', (req, res) => {
    for (const [name, value] of Object.entries(req.query)) req.session.set(name, value)
    res.json({ id: req.session.id })
  })
  app.post('/update', async (req, res) => {
    res.json(await req.session.update('n', (n) => ((n as number | undefined) ?? 0) + 1))
  })
  app.post('/login', async (req, res) => {
    await req.session.login(textOf(req.query['user'], 'ann'))
    res.json({ id: req.session.id })
  })
  app.post('/logout', async (req, res) => {
    await req.session.logout()
    res.json({})
  })
  app.post('/destroy', async (req, res) => {
    await req.session.destroy()
    res.json({})
  })
  app.post('/regenerate', async (req, res) => {
    await req.session.regenerate({ keep: req.query['keep'] === 'true' })
    res.json({ id: req.session.id })
  })
  app.post('/renew', async (req, res) => {
    await req.session.renew()
    res.json({ id: req.session.id })
  })
  app.post('/redirect', (req, res) => {
    req.session.set('seen', req.query['value'])
    res.redirect('/peek')
  })
  app.post('/slow/:action', async (req, res) => {
    req.session.get('anything')
    await (typeof req.query['gate'] === 'string' ? pass(req.query['gate']) : released())
    switch (req.params.action) {
      case 'write':
        req.session.set(textOf(req.query['name'], 'late'), req.query['value'] ?? true)
        break
      case 'touch':
        await req.session.touch({ force: true })
        break
      case 'renew':
        await req.session.renew()
        break
      case 'regenerate':
        await req.session.regenerate({ keep: true })
        break
      case 'login':
        await req.session.login('late')
        break
      case 'update':
        await req.session.update('n', () => 1)
        break
      default:
        break
    }
    res.json({ id: req.session.id })
  })
  return {
    app,
    middleware,
    release() {
      for (const go of held.splice(0)) go()
      held = []
    },
    waiting: () => held.length,
  }
}

interface Signal {
  readonly given: Promise<void>
  give(): void
}

interface Gate {
  readonly arrival: Signal
  readonly opening: Signal
}

function signal(): Signal {
  let give = (): void => {}
  const given = new Promise<void>((resolve) => {
    give = resolve
  })
  return { given, give }
}

function textOf(value: unknown, fallback: string): string {
  return typeof value === 'string' ? value : fallback
}
