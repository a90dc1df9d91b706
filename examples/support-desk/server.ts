// An application for a parking permit in three steps, and the desk that helps when one goes wrong. The first payment of
// each application fails: copy the session ID from the error, open /support, log in as "robin" with the password "north
// star", and paste it. Sessions and activities are in memory, or in Redis when REDIS_URL is set.
//
//   npx tsx examples/support-desk/server.ts
//   REDIS_URL=redis://127.0.0.1:6379 SESSION_SECRET="$(openssl rand -base64 32)" npx tsx examples/support-desk/server.ts
import { randomBytes, scrypt, scryptSync, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import express, { type Request, type Response } from 'express'
import { Redis } from 'ioredis'
import { MemorySessionStore, requireRecentAuth, requireSessionId, session } from 'sojourn'
import { ActivityLog, logActivity, memorySink, redisStreamSink, sessionErrorHandler } from 'sojourn/activity'
import { RedisSessionStore } from 'sojourn/redis'
import { type Permit, PROOFS, paymentPage, permitPage, proofPage, receiptPage } from './permit-pages.js'
import { loginPage, reportPage, searchPage } from './support-pages.js'

declare module 'sojourn' {
  interface SessionFields {
    permit?: Permit
    payments?: number
    receipt?: { plate: string; sessionId: string }
  }
}

const { PORT = '3000', REDIS_URL, SESSION_SECRET } = process.env
if (REDIS_URL && !SESSION_SECRET) {
  console.warn(
    'No SESSION_SECRET: logins end with this program. To keep them, set it to the output of openssl rand -base64 32',
  )
}
// A dead connection is noticed after so many ms. Calls that fail say so themselves; without a listener ioredis prints it.
const redis = REDIS_URL ? new Redis(REDIS_URL, { socketTimeout: 5_000 }).on('error', () => {}) : undefined

const log = new ActivityLog({
  sinks: [redis ? redisStreamSink({ client: redis }) : memorySink()],
  // Passwords, tokens and the like are blanked anyway.
  redact: ['documentNumber'],
  retention: '30d',
})
const sessions = session({
  // Without SESSION_SECRET every start makes its own and no longer knows the cookies from before.
  secret: SESSION_SECRET ?? randomBytes(32).toString('base64'),
  store: redis ? new RedisSessionStore({ client: redis }) : new MemorySessionStore(),
  activity: log,
})

const app = express()
app.use((_req, res, next) => {
  res.set('Content-Security-Policy', "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
  next()
})
app.use(express.static(fileURLToPath(new URL('public', import.meta.url)), { index: false }))
app.use(sessions)

// The cookie is SameSite=Lax: a form on another site that posts here comes without it. That leaves other hosts of the
// same site, which the browser's own word keeps out. For browsers that do not send it, add a token (csrf-sync).
app.use((req, res, next) => {
  const sender = req.get('Sec-Fetch-Site') ?? 'same-origin'
  if (req.method === 'POST' && !['same-origin', 'none'].includes(sender)) res.sendStatus(403)
  else next()
})
app.use(express.urlencoded({ extended: false }))

// --- The application: three steps, each of which is an activity ---

app.get('/', (req, res) => {
  res.send(permitPage(req.session.permit))
})

app.post('/', (req, res) => {
  const details = { name: field(req.body, 'name'), plate: field(req.body, 'plate').toUpperCase() }
  const problems = {
    ...(!details.name && { name: 'Enter your name.' }),
    ...(!/^[A-Z0-9 -]{2,10}$/.test(details.plate) && { plate: 'Enter a plate of 2 to 10 letters and digits.' }),
  }
  if (Object.keys(problems).length > 0) {
    logActivity('permit.refused', { fields: Object.keys(problems) })
    res.status(400).send(permitPage(details, problems))
    return
  }
  req.session.permit = { ...req.session.permit, ...details }
  // What support needs, and no more: not the name.
  logActivity('permit.vehicle', { plate: details.plate, browser: req.get('User-Agent') })
  res.redirect(303, '/proof')
})

app.get('/proof', (req, res) => {
  if (req.session.permit) res.send(proofPage(req.session.permit))
  else res.redirect(303, '/')
})

app.post('/proof', (req, res) => {
  const { permit } = req.session
  if (!permit) {
    res.redirect(303, '/')
    return
  }
  const proof = { kind: field(req.body, 'kind'), documentNumber: field(req.body, 'documentNumber') }
  if (!PROOFS.includes(proof.kind) || !proof.documentNumber) {
    logActivity('permit.refused', { fields: ['proof'] })
    res.status(400).send(proofPage({ ...permit, proof }, { documentNumber: 'Choose a document and enter its number.' }))
    return
  }
  permit.proof = proof
  logActivity('permit.proof', proof)
  res.redirect(303, '/payment')
})

app.get('/payment', (req, res) => {
  if (req.session.permit?.proof) res.send(paymentPage(req.session.permit))
  else res.redirect(303, '/proof')
})

app.post('/payment', async (req, res) => {
  const { permit } = req.session
  if (!permit?.proof) {
    res.redirect(303, '/proof')
    return
  }
  const attempt = await req.session.update('payments', (count = 0) => count + 1)
  try {
    await pay({ idempotencyKey: requireSessionId(), attempt })
  } catch (error) {
    // A type that ends in ".failed" counts as an error in reports. The user sees the ID, not the reason.
    logActivity('payment.failed', { attempt, error })
    res.status(502).send(paymentPage(permit, requireSessionId()))
    return
  }
  logActivity('permit.issued', { plate: permit.plate })
  req.session.receipt = { plate: permit.plate, sessionId: requireSessionId() }
  delete req.session.permit
  delete req.session.payments
  // Whatever comes next has another logical ID; the timeline of this one tells which.
  await req.session.completeWorkflow()
  res.redirect(303, '/receipt')
})

app.get('/receipt', (req, res) => {
  if (req.session.receipt) res.send(receiptPage(req.session.receipt))
  else res.redirect(303, '/')
})

app.post('/restart', async (req, res) => {
  // No fields any more, and another logical ID.
  await req.session.restart()
  res.redirect(303, '/')
})

/** Stands for a payment service. With the key it takes the money once, however often the button is clicked. */
async function pay({ attempt }: { idempotencyKey: string; attempt: number }): Promise<void> {
  // Nobody handed the request down to here.
  logActivity('payment.requested', { attempt })
  if (attempt === 1) throw new Error('The payment service did not answer within 5 s.')
}

// --- The support desk ---

const support = express.Router()
app.use('/support', support)

// The only account. In an application it is in a database, and attempts are limited (express-rate-limit).
const salt = randomBytes(16)
const passwordHash = scryptSync('north star', salt, 32)
const hashPassword = promisify(scrypt) as (password: string, salt: Buffer, bytes: number) => Promise<Buffer>

support.get('/login', (_req, res) => {
  res.send(loginPage())
})

support.post('/login', async (req, res) => {
  const name = field(req.body, 'name')
  const isRight = timingSafeEqual(await hashPassword(field(req.body, 'password'), salt, 32), passwordHash)
  if (!isRight || name !== 'robin') {
    res.status(401).send(loginPage('Name or password is wrong.'))
    return
  }
  // A new session ID and token; also an activity, without our doing.
  await req.session.login(name)
  res.redirect(303, '/support')
})

// Everything below is for who has logged in within the last hour. Nobody but support has an account here; where customers
// have one, check the role of the user, too.
const toLogin = (_req: Request, res: Response): void => res.redirect(303, '/support/login')
support.use(requireRecentAuth('1h', { onRequired: toLogin }))

support.get('/', async (req, res) => {
  const { id } = req.query
  if (typeof id !== 'string') {
    res.send(searchPage())
    return
  }
  // People paste more than the ID: "Session ID: 3f2b….", or a whole line of the log.
  const logicalId = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/i.exec(id)?.[0].toLowerCase()
  if (logicalId === undefined) {
    res.status(400).send(searchPage(id, id.trim() ? 'There is no session ID in this.' : 'Enter a session ID.'))
    return
  }
  const report = await log.report({ logicalId })
  if (report.total === 0) {
    res.status(404).send(searchPage(id, 'Nothing is known of this session. Activities are kept for 30 days.'))
    return
  }
  // Who looked at whom is an activity of the support person's own session.
  logActivity('support.viewed', { logicalId })
  res.send(reportPage(logicalId, report))
})

support.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/support/login')
})

// Errors that nobody expected get an answer with the session ID as well, and are an activity and a line of the log.
app.use(sessionErrorHandler({ logger: console }))

const server = app.listen(Number(PORT), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void finish())
  // Browsers open connections ahead of need, and those count as busy.
  setTimeout(() => server.closeAllConnections(), 1_000).unref()
})

async function finish(): Promise<void> {
  // Writes what is still queued.
  await log.close()
  await sessions.manager.close()
  redis?.disconnect()
}

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  const isTaken = error.code === 'EADDRINUSE'
  console.error(
    isTaken ? `Port ${PORT} is taken. Choose another one, for example PORT=3001 before the command.` : error,
  )
  process.exit(1)
}

/** A text of a form; empty when it is missing. */
function field(body: unknown, name: string): string {
  const value = (body as Record<string, unknown> | undefined)?.[name]
  return typeof value === 'string' ? value.trim().slice(0, 100) : ''
}
