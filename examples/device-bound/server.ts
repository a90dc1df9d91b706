// A login that a copy of its cookies does not take over: in Chromium the session is bound to a key of the device. Browsers do that
// over HTTPS only, so this needs a proxy that ends TLS in front of it, such as `caddy reverse-proxy --to :3000`. The only user is
// "alice", whose password is "correct horse".
//
//   npx tsx examples/device-bound/server.ts
import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request } from 'express'
import { isSessionError, session } from 'sojourn'
import { csrf, csrfField } from 'sojourn/csrf'
import { deviceBound, deviceOf, requireDevice } from 'sojourn/device-bound'

const app = express()
app.set('trust proxy', 'loopback')
// A random secret makes every cookie void at the next start. In production set one that stays.
const secret = process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64')
// First of all: the browser asks two routes of it that nothing else may answer.
const sessions = deviceBound(session({ secret }), { except: ['/login', '/logout'] })
app.use(sessions)
app.use(express.urlencoded({ extended: false }), csrf())

app.get('/', async (req, res) => {
  const { userId } = req.session.metadata
  res.type('html').send(userId === undefined ? loginForm(req) : await devicesPage(req, userId))
})

app.get('/login', (req, res) => {
  res.type('html').send(loginForm(req))
})

app.post('/login', async (req, res) => {
  const { name, password } = req.body as { name?: string; password?: string }
  if (!isRight(name, password)) {
    res.status(401).send('That name and password do not belong together.')
    return
  }
  await req.session.login('alice', { methods: ['pwd'] })
  res.redirect(303, '/')
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})

app.post('/transfer', requireDevice(), (_req, res) => {
  res.send('Paid, from the device that has logged in.')
})

app.use(((error, _req, res, next) => {
  if (isSessionError(error, 'DEVICE_UNPROVEN', 'CSRF_REFUSED')) res.status(error.status).send(error.message)
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

async function devicesPage(req: Request, userId: string | number): Promise<string> {
  const found = await sessions.manager.sessionsOf(userId, { current: req.session })
  const devices = found.map(
    ({ createdAt, isDeviceBound, isCurrent }) =>
      `<li>since ${createdAt.toISOString()}, ${isDeviceBound ? 'bound to its device' : 'not bound'}${isCurrent ? ' (this one)' : ''}`,
  )
  return `<p>Hello, alice. This session is <b>${deviceOf(req).status}</b>.</p><ul>${devices.join('')}</ul>
<form method="post" action="/transfer">${csrfField(req)}<button>Pay 10</button></form>
<form method="post" action="/logout">${csrfField(req)}<button>Log out</button></form>`
}
