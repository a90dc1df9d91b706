// Login with Passport's local strategy. passportUsers() makes it a login of the session: that gets a new ID and token in one step
// and knows its user, who may have three at once, and a logout ends it. The only account is "alice", whose password is
// "correct horse".
//
//   npx tsx examples/passport-login/server.ts
import { randomBytes, scrypt, scryptSync, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { callbackify, promisify } from 'node:util'
import express from 'express'
import passport from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { SessionManager } from 'sojourn'
import { passportUsers } from 'sojourn/passport'

interface Account {
  name: string
  salt: Buffer
  hash: Buffer
}

const hashPassword = promisify(scrypt) as (password: string, salt: Buffer, bytes: number) => Promise<Buffer>

// An application has these in a database.
const accounts = new Map([['alice', newAccount('alice', 'correct horse')]])
const nobody = newAccount('nobody', randomBytes(32).toString('hex'))

passport.use(new LocalStrategy(callbackify(verify)))
// What Passport keeps in the session, as req.session.passport.user: the name, not the account.
passport.serializeUser((user, done) => done(null, (user as Account).name))
passport.deserializeUser((name: string, done) => done(null, accounts.get(name) ?? false))

const app = express()
// A random secret makes every cookie void at the next start. In production set one that stays.
const sessions = new SessionManager({
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
  maxSessionsPerUser: 3,
})
app.use(sessions.middleware())
app.use(passportUsers(passport))
// After the session, which is where it finds the user. passport.initialize() is not needed since Passport 0.6.
app.use(passport.session())
app.use(express.urlencoded({ extended: false }))

app.get('/', (req, res) => {
  const user = req.user as Account | undefined
  res.type('html').send(user ? `<p>Hello, ${user.name}.</p>${LOGOUT_FORM}` : `<p>Hello, stranger.</p>${LOGIN_FORM}`)
})

// keepSessionInfo carries what was in the session before, a cart for example, over to the new one.
app.post('/login', passport.authenticate('local', { keepSessionInfo: true }), (_req, res) => {
  res.redirect(303, '/')
})

app.post('/logout', (req, res, next) => {
  req.logout((error) => {
    if (error) next(error)
    else res.redirect(303, '/')
  })
})

app.post('/logout-everywhere', async (req, res) => {
  const { userId } = req.session.metadata
  // This session is one of them: it is logged out as by logout().
  if (userId !== undefined) await sessions.revokeUser(userId, { by: 'the user' })
  res.redirect(303, '/')
})

app.get('/account', (req, res) => {
  if (req.isAuthenticated()) res.json({ name: (req.user as Account).name, session: req.session.id })
  else res.status(401).json({ error: 'Log in first.' })
})

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

function newAccount(name: string, password: string): Account {
  const salt = randomBytes(16)
  return { name, salt, hash: scryptSync(password, salt, 32) }
}

/** Hashes whether there is such an account or not, so that the time it takes does not tell. */
async function verify(name: string, password: string): Promise<Account | false> {
  const account = accounts.get(name)
  const { salt, hash } = account ?? nobody
  const isRight = timingSafeEqual(await hashPassword(password, salt, 32), hash)
  return account !== undefined && isRight ? account : false
}

const LOGIN_FORM = `<form method="post" action="/login">
  <input name="username" aria-label="Name" required autocomplete="username">
  <input name="password" aria-label="Password" type="password" required autocomplete="current-password">
  <button>Log in</button>
</form>`
const LOGOUT_FORM = `<form method="post" action="/logout"><button>Log out</button></form>
<form method="post" action="/logout-everywhere"><button>Log out everywhere</button></form>`
