// Everything is set from outside: where notes are kept, how long, and what protects them. `npx sojourn check` says what is in force.
//
//   SESSION_SECRET="$(openssl rand -base64 32)" SOJOURN_CSRF_TOKENS=always npx tsx examples/configured/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request } from 'express'
import { isSessionError, SessionManager } from 'sojourn'
import { ActivityLog, logActivity, memorySink } from 'sojourn/activity'
import { clientBinding } from 'sojourn/client-binding'
import { serviceOptionsFromEnv } from 'sojourn/config'
import { csrf, csrfField } from 'sojourn/csrf'
import { recovery } from 'sojourn/recovery'

declare module 'sojourn' {
  interface SessionFields {
    noteCount?: number
  }
}

const options = optionsOrMistakes()
const log = new ActivityLog({ ...options.activityLog, sinks: [memorySink()] })
const sessions = new SessionManager({ ...options.session, activity: log })
const recoveries = recovery(sessions, options.recovery)

const app = express()
app.use(sessions.middleware())
app.use(clientBinding(options.clientBinding))
app.use(express.urlencoded({ extended: false }))
app.use(csrf(options.csrf))

app.get('/', (req, res) => {
  res.send(`<p>${req.session.noteCount ?? 0} notes</p>
${form(req, '/note', 'Take a note')}
${form(req, '/leave', 'Leave')}
${form(req, '/back', 'Come back', '<input name="ticket" aria-label="Ticket">')}`)
})

app.post('/note', async (req, res) => {
  await req.session.update('noteCount', (count = 0) => count + 1)
  logActivity('note.taken')
  res.redirect(303, '/')
})

app.post('/leave', async (req, res) => {
  res.type('text').send(await recoveries.save(req.session, { page: '/' }))
})

app.post('/back', async (req, res) => {
  const { ticket = '' } = req.body as { ticket?: string }
  const { status } = await recoveries.recover(ticket, req)
  if (status === 'recovered') res.redirect(303, '/')
  else res.status(410).send('There is nothing for that ticket.')
})

app.use(((error, _req, res, next) => {
  if (isSessionError(error, 'CSRF_REFUSED')) res.status(error.status).send(error.message)
  else next(error)
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) stop(error.message.includes('EADDRINUSE') ? 'The port is taken. Choose another one: PORT=3001' : error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => {
  server.close(() => void sessions.close().then(() => log.close()))
  server.closeIdleConnections()
})

/** A program that is configured wrongly says so, all of it, and does not begin. */
function optionsOrMistakes(): ReturnType<typeof serviceOptionsFromEnv> {
  try {
    // A random secret makes every cookie void at the next start. In production set one that stays.
    return serviceOptionsFromEnv({ SESSION_SECRET: randomBytes(32).toString('base64'), ...process.env })
  } catch (error) {
    if (isSessionError(error, 'INVALID_OPTION')) stop(error.message)
    throw error
  }
}

function stop(reason: unknown): never {
  console.error(reason)
  process.exit(1)
}

function form(req: Request, action: string, button: string, inputs = ''): string {
  return `<form method="post" action="${action}">${csrfField(req)}${inputs}<button>${button}</button></form>`
}
