// Both caches on one page: three components that ask for the login information and make one load, the prices of a tenant that is chosen,
// and the rates of an API that can be broken.
//
//   npx tsx examples/cache/server.ts
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import express from 'express'
import { getSession, session } from 'sojourn'
import { MemoryCacheStorage, perRequest, SessionCache, sessionNamespace } from 'sojourn/cache'

declare module 'sojourn' {
  interface SessionFields {
    tenant?: string
    visits?: number
  }
}

/** What was really done, for the page. */
const done = { logins: 0, prices: 0, rates: 0 }

// --- Once in a request ---

/** Stands for a query: who is logged in? */
const loginInfo = perRequest(async () => {
  done.logins++
  await delay(20)
  return { name: `visitor ${getSession()?.id.slice(0, 4)}` }
})

/** A part of the page. It is handed nothing, and asks for what it needs. */
async function component(title: string): Promise<string> {
  const { name } = await loginInfo()
  return `<li>${title} for ${name}</li>`
}

// --- Once in a namespace ---

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})
const cache = new SessionCache({ storage: new MemoryCacheStorage(), ttl: '10m', maxNamespaces: 100 })
cache.follow(sessions.manager)

async function loadPrices(): Promise<{ query: number }> {
  await delay(20)
  return { query: ++done.prices }
}

// --- An API that can be down ---

let isBroken = false
const api = createServer((_req, res) => {
  done.rates++
  res.statusCode = isBroken ? 503 : 200
  res.end(isBroken ? 'down' : `1 EUR is ${(1 + done.rates / 100).toFixed(2)} USD`)
}).listen(0, '127.0.0.1')
cache.registerDomain('127.0.0.1', { ttl: '1m', onError: 'return-cached', timeout: '2s' })

const app = express()
app.use(sessions)
app.use(cache.forRequest((req: express.Request) => req.session.tenant ?? sessionNamespace(req.session)))
app.use(express.urlencoded({ extended: false }))

app.get('/', async (req, res) => {
  req.session.visits = (req.session.visits ?? 0) + 1
  const before = { ...done }
  const components = await Promise.all(['A greeting', 'A cart', 'A menu'].map(component))
  const prices = await cache.getOrLoad('prices', loadPrices)
  const { port } = api.address() as AddressInfo
  // All tenants see the same rates.
  const headers = 'reload' in req.query ? { 'cache-control': 'no-cache' } : {}
  const rates = await cache.within('rates', () => cache.fetch(`http://127.0.0.1:${port}/rates`, { headers }))
  const text = await rates.text()
  res.send(
    page(`
      <section><h2>Three components</h2>
        <ul>${components.join('')}</ul>
        <p><output id="logins">${done.logins - before.logins}</output> load of the login information</p></section>
      <section><h2>Prices of ${req.session.tenant ?? 'nobody yet'}</h2>
        <p id="prices">from query ${prices.query}: ${done.prices === before.prices ? 'a hit' : 'a load'}</p>
        ${button('/tenant/acme', 'Acme')} ${button('/tenant/globex', 'Globex')} ${button('/clear', 'Clear this tenant’s cache')}</section>
      <section><h2>Rates of an API</h2>
        <p id="rates">${rates.status}: ${text}</p>
        <p><code id="status">${rates.headers.get('cache-status')}</code></p>
        <p><output id="asked">${done.rates}</output> requests to the API so far. It is ${isBroken ? 'down' : 'up'}.</p>
        <form><button name="reload">Reload from the API</button></form>
        ${button('/break', isBroken ? 'Mend the API' : 'Break the API')}</section>
    `),
  )
})
app.post('/tenant/:name', (req, res) => {
  req.session.tenant = req.params.name === 'acme' ? 'acme' : 'globex'
  res.redirect(303, '/')
})
app.post('/clear', async (_req, res) => {
  await cache.clear()
  res.redirect(303, '/')
})
app.post('/break', (_req, res) => {
  isBroken = !isBroken
  res.redirect(303, '/')
})

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => {
  api.close()
  server.close()
})

function button(action: string, label: string): string {
  return `<form method="post" action="${action}"><button>${label}</button></form>`
}

function page(body: string): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Hits and loads</title>
    <meta name="viewport" content="width=device-width">
    <style>body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
      form { display: inline } output { font-weight: bold } code { overflow-wrap: anywhere }</style>
    <main><h1>Hits and loads</h1>${body}</main></html>`
}

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
