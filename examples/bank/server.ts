// An account that is worth protecting. csrf() refuses what another site sends, and every form has a token for browsers that do
// not say who sent a request. The only user is "alice", whose password is "correct horse".
//
//   npx tsx examples/bank/server.ts
import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request } from 'express'
import { isSessionError, session } from 'sojourn'
import { csrf, csrfField } from 'sojourn/csrf'

declare module 'sojourn' {
  interface SessionFields {
    balance?: number
  }
}

const app = express()
// A random secret makes every cookie void at the next start. In production set one that stays.
app.use(session({ secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64') }))
app.use(express.urlencoded({ extended: false }))
app.use(csrf())

app.get('/', (req, res) => {
  const { userId } = req.session.metadata
  res.type('html').send(userId === undefined ? loginForm(req) : accountPage(req))
})

app.post('/login', async (req, res) => {
  const { name, password } = req.body as { name?: string; password?: string }
  if (!isRight(name, password)) {
    res.status(401).send('That name and password do not belong together.')
    return
  }
  await req.session.login('alice', { fields: { balance: 100 } })
  res.redirect(303, '/')
})

app.post('/transfer', async (req, res) => {
  if (req.session.metadata.userId === undefined) {
    res.redirect(303, '/')
    return
  }
  await req.session.update('balance', (balance = 0) => balance - 10)
  res.redirect(303, '/')
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})

app.use(((error, _req, res, next) => {
  if (isSessionError(error, 'CSRF_REFUSED')) res.status(error.status).send(error.message)
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

function isRight(name = '', password = ''): boolean {
  const salt = 'made once by a random generator'
  const isPassword = timingSafeEqual(scryptSync(password, salt, 32), scryptSync('correct horse', salt, 32))
  return name === 'alice' && isPassword
}

function loginForm(req: Request): string {
  return `<form method="post" action="/login">${csrfField(req)}
  <input name="name" aria-label="Name" required autocomplete="username">
  <input name="password" aria-label="Password" type="password" required autocomplete="current-password">
  <button>Log in</button>
</form>`
}

function accountPage(req: Request): string {
  return `<p>Hello, alice. You have <b>${req.session.balance}</b> coins.</p>
<form method="post" action="/transfer">${csrfField(req)}<button>Pay 10</button></form>
<form method="post" action="/logout">${csrfField(req)}<button>Log out</button></form>`
}
