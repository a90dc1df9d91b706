// Proof that fits what is at stake: a password for the account, a code on top of it for a payment, and both again from a client that
// is not the one that gave them.
//
//   npx tsx examples/step-up/server.ts
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request, type Response } from 'express'
import { privatePages, requireLevel, requireRecentAuth, session } from 'sojourn'
import { clientBinding } from 'sojourn/client-binding'
import { csrf, csrfField } from 'sojourn/csrf'

// A program of yours has its users in a database, with hashes of their passwords. This one shows the secret of the code on its page.
const PASSWORD = 'correct horse'
const OTP_SECRET = Buffer.from('only for this example')

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})
sessions.events.on('clientChanged', ({ id, userId, changed, outcome }) => {
  console.log(`Session ${id} of ${userId}: another ${changed.join(', ')} (${outcome}).`)
})

const app = express()
app.use(sessions)
app.use(express.urlencoded({ extended: false }))
app.use(csrf())
app.use(clientBinding({ policy: 'challenge' }))
// Nobody sees the statement by the browser's Back after the logout.
app.use(privatePages())

app.get('/', (req, res) => {
  const { userId, authentication } = req.session.metadata
  if (userId === undefined) {
    res.send(page('Log in', form(req, '/login', 'Log in', PASSWORD_INPUT)))
    return
  }
  const { level = 0, methods = [] } = authentication ?? {}
  res.send(
    page(
      `Hello, ${escaped(String(userId))}`,
      `<p>Level ${level}: ${escaped(methods.join(' and ')) || 'nothing that counts here'}.</p>
       <p><a href="/statement">The statement</a></p>
       ${form(req, '/transfer', 'Pay 10 coins')}${form(req, '/logout', 'Log out')}`,
    ),
  )
})

app.post('/login', async (req, res) => {
  if (!isSame(field(req, 'password'), PASSWORD)) return wrong(res)
  await req.session.login('ann', { methods: ['pwd'] })
  res.redirect(303, '/')
})

// Whoever has to prove something more is asked for it, and comes back.
app.get('/prove', requireUser, (req, res) => {
  const inputs = `${PASSWORD_INPUT}<label>Code <input name="code" autocomplete="one-time-code"></label>
    <p>A telephone would show ${codeNow()} now.</p>`
  res.send(page('Is it you?', form(req, '/prove', 'It is me', inputs)))
})

app.post('/prove', requireUser, async (req, res) => {
  const hasPassword = isSame(field(req, 'password'), PASSWORD)
  const hasCode = isSame(field(req, 'code'), codeNow())
  if (!hasPassword || !hasCode) return wrong(res)
  await req.session.reauthenticate({ methods: ['pwd', 'otp'] })
  res.redirect(303, '/')
})

app.get('/statement', requireRecentAuth('30m', { onRequired: askForProof }), (_req, res) => {
  res.send(page('The statement', '<p>90 coins.</p>'))
})

app.post('/transfer', requireLevel(2, { maxAge: '5m', onRequired: askForProof }), (_req, res) => {
  res.send(page('Paid', '<p>10 coins are on their way.</p>'))
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})

app.use(((error, _req, res, next) => {
  if (error.expose) res.status(error.status).send(page('That cannot be done', escaped(error.message)))
  else next(error)
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => server.close())

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}

function requireUser(req: Request, res: Response, next: () => void): void {
  if (req.session.metadata.userId === undefined) res.redirect(303, '/')
  else next()
}

function askForProof(_req: unknown, res: object): void {
  ;(res as Response).redirect(303, '/prove')
}

function wrong(res: Response): void {
  res.status(401).send(page('That is not right', '<p><a href="/">Try again</a></p>'))
}

/** A code of six digits, another one each half minute (RFC 6238). */
function codeNow(): string {
  const step = Buffer.alloc(8)
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)))
  const hash = createHmac('sha1', OTP_SECRET).update(step).digest()
  const number = hash.readUInt32BE((hash.at(-1) as number) & 15) & 0x7fffffff
  return String(number % 1_000_000).padStart(6, '0')
}

function field(req: Request, name: string): string {
  const value = (req.body as Record<string, unknown> | undefined)?.[name]
  return typeof value === 'string' ? value : ''
}

/** In a time that tells nothing of where they differ. */
function isSame(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => createHmac('sha256', 'compared').update(text).digest())
  return timingSafeEqual(a as Buffer, b as Buffer)
}

const PASSWORD_INPUT = '<label>Password <input name="password" type="password" value="correct horse"></label>'

function form(req: Request, action: string, label: string, inputs = ''): string {
  return `<form method="post" action="${action}">${csrfField(req)}${inputs}<button>${label}</button></form>`
}

function page(title: string, body: string): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}
