// A small shop on one session, and four promises that can be tried beside express-session (sides.ts, trial.ts). The shop
// keeps its sessions in a file of SQLite, or in Redis when REDIS_URL is set (keeping.ts); STORE=memory keeps them in memory.
//
//   npx tsx examples/app/server.ts
//   REDIS_URL=redis://127.0.0.1:6379 SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/app/server.ts
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import express, { type ErrorRequestHandler } from 'express'
import { isSessionError, session } from 'sojourn'
import { openKeeping } from './keeping.js'
import { page } from './page.js'
import { type CartItem, findProduct } from './products.js'
import { OwnRedis } from './redis-server.js'
import { expressSessionSide, sojournSide } from './sides.js'

// The types of req.session's fields.
declare module 'sojourn' {
  interface SessionFields {
    visits?: number
    cart?: CartItem[]
  }
}

/** How long Redis is frozen in the last trial. */
const FREEZE_MS = 4_000

const { PORT = '3000', REDIS_URL, SESSION_SECRET } = process.env
if (REDIS_URL && !SESSION_SECRET) {
  console.warn(
    'No SESSION_SECRET: logins end with this program. To keep them, set it to the output of openssl rand -base64 32',
  )
}
const keeping = await openKeeping()
const { store, secret } = keeping

const app = express()
app.use((_req, res, next) => {
  res.set('Content-Security-Policy', "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
  next()
})
// Before the sessions: files need none.
app.use(express.static(fileURLToPath(new URL('public', import.meta.url)), { index: false }))

// The cookie is SameSite=Lax: a form on another site that posts here comes without it. That leaves other hosts of the
// same site, which the browser's own word keeps out. For browsers that do not send it, add a token (csrf-sync).
app.use((req, res, next) => {
  const sender = req.get('Sec-Fetch-Site') ?? 'same-origin'
  if (req.method === 'POST' && !['same-origin', 'none'].includes(sender)) res.sendStatus(403)
  else next()
})

// --- The trials: two servers in this one, with sessions of their own ---

const redis = await OwnRedis.start()
const sides = {
  '/sojourn': await sojournSide({ secret, path: '/sojourn', socket: redis?.socket }),
  '/express-session': await expressSessionSide({ secret, path: '/express-session', socket: redis?.socket }),
}
for (const [path, { routes }] of Object.entries(sides)) app.use(path, routes)

app.post('/freeze', (_req, res) => {
  if (!redis) {
    res.status(501).send('There is no redis-server on this machine.')
    return
  }
  redis.freeze(FREEZE_MS)
  res.json({ ms: FREEZE_MS })
})

// --- The shop ---

app.use(session({ secret, store, idleTimeout: '30m', absoluteTimeout: '12h' }))
app.use(express.urlencoded({ extended: false }))

app.get('/', async (req, res) => {
  // Atomic: two tabs that load at once count as two.
  await req.session.update('visits', (visits = 0) => visits + 1)
  res.send(page({ session: req.session, store: keeping, hasRedis: redis !== null, freezeMs: FREEZE_MS }))
})

app.post('/cart/add', (req, res) => {
  const product = field(req.body, 'product')
  if (!findProduct(product)) {
    res.status(400).send('There is no such product.')
    return
  }
  req.session.cart ??= []
  const item = req.session.cart.find((candidate) => candidate.product === product)
  // A nested change is noticed. When requests change one field in the same instant, the last wins; update() merges.
  if (item) item.quantity += 1
  else req.session.cart.push({ product, quantity: 1 })
  // The redirect leaves after the cart is stored, so the page that follows shows it.
  res.redirect(303, '/')
})

app.post('/cart/remove', (req, res) => {
  const product = field(req.body, 'product')
  const left = req.session.get('cart', []).filter((item) => item.product !== product)
  if (left.length > 0) req.session.cart = left
  else delete req.session.cart
  res.redirect(303, '/')
})

app.post('/login', async (req, res) => {
  const name = field(req.body, 'name').trim().slice(0, 40)
  if (name === '') {
    res.status(400).send('A name is needed.')
    return
  }
  // A demo: an application checks a password first. The session gets a new ID and token and keeps its fields, so
  // whoever knew the old cookie does not become logged in.
  await req.session.login(name)
  res.redirect(303, '/')
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})

app.use(((error, _req, res, next) => {
  if (!isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT') || res.headersSent) next(error)
  // The cookie was left alone: when the store is back, so is the session.
  else res.status(503).send('The session store does not answer. Please try again in a moment.')
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    server.close(() => void finish())
    // Browsers open connections ahead of need, and those count as busy.
    setTimeout(() => server.closeAllConnections(), 1_000).unref()
  })
}

async function finish(): Promise<void> {
  await Promise.all([store.close(), ...Object.values(sides).map((side) => side.close())])
  // Ends our redis-server, too.
  process.exit()
}

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  const isTaken = error.code === 'EADDRINUSE'
  console.error(isTaken ? `Port ${PORT} is taken. Choose another one: PORT=3001 npm start` : error)
  process.exit(1)
}

/** A text of a form; empty when it is missing. */
function field(body: unknown, name: string): string {
  const value = (body as Record<string, unknown> | undefined)?.[name]
  return typeof value === 'string' ? value : ''
}
