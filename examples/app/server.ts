// A small shop: visits, a cart, login and logout, and fifty requests at once, all on one session. It keeps sessions in
// memory, or in Redis when REDIS_URL is set; with SESSION_SECRET set as well, they survive a restart.
//
//   npx tsx examples/app/server.ts
//   REDIS_URL=redis://127.0.0.1:6379 SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/app/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import express, { type ErrorRequestHandler } from 'express'
import { isSessionError, MemorySessionStore, session } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { page } from './page.js'

interface CartItem {
  product: string
  quantity: number
}

// The types of req.session's fields.
declare module 'sojourn' {
  interface SessionFields {
    visits?: number
    cart?: CartItem[]
    raceCounter?: number
  }
}

const PRODUCTS = ['Tea', 'Biscuits', 'Honey']
const RACERS = 50

// Signs the cookies. Without SESSION_SECRET every start makes its own and no longer knows the cookies from before. In
// production, set one that stays (openssl rand -base64 32), the same for all processes.
const secret = process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64')
const redisUrl = process.env['REDIS_URL']
const store = redisUrl ? new RedisSessionStore({ url: redisUrl }) : new MemorySessionStore()

const app = express()
app.use((_req, res, next) => {
  res.set('Content-Security-Policy', "default-src 'self'; form-action 'self'; frame-ancestors 'none'")
  next()
})
// Before the sessions: files need none.
app.use(express.static(fileURLToPath(new URL('public', import.meta.url)), { index: false }))
app.use(session({ secret, store, idleTimeout: '30m', absoluteTimeout: '12h' }))

// The cookie is SameSite=Lax: a form on another site that posts here comes without it. That leaves other hosts of the
// same site, which the browser's own word keeps out. For browsers that do not send it, add a token (csrf-sync).
app.use((req, res, next) => {
  const sender = req.get('Sec-Fetch-Site') ?? 'same-origin'
  if (req.method === 'POST' && !['same-origin', 'none'].includes(sender)) res.sendStatus(403)
  else next()
})
app.use(express.urlencoded({ extended: false }))

app.get('/', async (req, res) => {
  // Atomic: two tabs that load at once count as two.
  await req.session.update('visits', (visits = 0) => visits + 1)
  res.send(page({ session: req.session, store: describeStore(), products: PRODUCTS, racers: RACERS }))
})

app.post('/cart/add', (req, res) => {
  const product = field(req.body, 'product')
  if (!PRODUCTS.includes(product)) {
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

// The race: the page's script posts to /race, then to /race/0 … /race/49 at once, and reads /race.
app.post('/race', (req, res) => {
  for (const name of req.session.keys()) if (name.startsWith('racer-')) req.session.delete(name)
  req.session.raceCounter = 0
  res.json({ racers: RACERS })
})

app.post('/race/:racer', async (req, res) => {
  const racer = Number(req.params.racer)
  if (!Number.isInteger(racer) || racer < 0 || racer >= RACERS) {
    res.sendStatus(400)
    return
  }
  // Everybody has loaded the session before anybody stores it.
  await delay(50)
  await req.session.update('raceCounter', (count = 0) => count + 1)
  req.session.set(`racer-${racer}`, true)
  res.json({ racer })
})

app.get('/race', (req, res) => {
  const arrived = req.session.keys().filter((name) => name.startsWith('racer-')).length
  res.json({ counter: req.session.get('raceCounter', 0), fields: arrived, racers: RACERS })
})

app.use(((error, _req, res, next) => {
  if (!isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT') || res.headersSent) next(error)
  // The cookie was left alone: when the store is back, so is the session.
  else res.status(503).send('The session store does not answer. Please try again in a moment.')
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) throw error
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void store.close())
  // Browsers open connections ahead of need, and those count as busy.
  setTimeout(() => server.closeAllConnections(), 1_000).unref()
})

function describeStore(): { name: string; survives: string } {
  if (!redisUrl) return { name: 'memory', survives: 'gone when the process ends; set REDIS_URL to keep sessions' }
  const survives = process.env['SESSION_SECRET']
    ? 'kept when the process ends'
    : 'but cookies end with the process; set SESSION_SECRET'
  return { name: 'Redis', survives }
}

/** A text of a form; empty when it is missing. */
function field(body: unknown, name: string): string {
  const value = (body as Record<string, unknown> | undefined)?.[name]
  return typeof value === 'string' ? value : ''
}
