// Socket.IO on the session of the page: io.engine.use() runs the middleware on the request that opens a connection. The
// session is that of the handshake from then on, so a handler reloads it before it reads and saves what it changes.
//
//   npx tsx examples/socket-io/server.ts
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { Server } from 'socket.io'
import { requireSession, session } from 'sojourn'
import { closeOnEnd, isSameOrigin, watchEndings } from 'sojourn/live'

declare module 'sojourn' {
  interface SessionFields {
    messages?: string[]
  }
}

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})
const app = express()
const server = createServer(app)
const io = new Server(server, {
  // A page of another site can open a socket to this one, with the user's cookie: the browser says which page it was.
  allowRequest: (req, done) => done(null, isSameOrigin(req)),
})

await watchEndings(sessions.manager)

app.use(sessions)
io.engine.use(sessions)

app.get('/', (req, res) => {
  // The page makes the session: a WebSocket has no response that could carry a new cookie.
  req.session.messages ??= []
  res.type('html').send(PAGE)
})
app.get('/messages', (req, res) => {
  res.json(req.session.get('messages', []))
})
app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.redirect(303, '/')
})
app.get('/client.js', (_req, res) => {
  res.type('js').send(CLIENT)
})

io.use((socket, next) => {
  // Without a session there is nothing to share.
  next(requireSession(socket.request).isNew ? new Error('Load the page first.') : undefined)
})

io.on('connection', (socket) => {
  const session = requireSession(socket.request)
  // Whoever ends it, by a logout, a revocation, a limit, in this process or in another one; and when its time is over.
  closeOnEnd(session, socket)

  socket.on('say', async (text: unknown, done: (answer: { messages?: string[]; error?: string }) => void) => {
    try {
      // As it is now: other requests have gone on. Rejects when the session has ended.
      await session.reload()
      const messages = [...session.get('messages', []), String(text).slice(0, 200)]
      session.messages = messages
      // No response carries the change, so nothing else stores it. update() would do all three in one atomic step.
      await session.save()
      done({ messages })
    } catch (error) {
      done({ error: (error as Error).message })
      socket.disconnect()
    }
  })
})

server.once('error', stop)
server.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => void io.close())

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}

const PAGE = `<!doctype html>
<title>Socket.IO and Sojourn</title>
<script src="/socket.io/socket.io.js" defer></script>
<script src="/client.js" defer></script>
<form id="say"><input name="text" aria-label="Message" required> <button>Say</button></form>
<form method="post" action="/logout"><button>Log out</button></form>
<pre id="messages"></pre>
`

const CLIENT = `const socket = io()
document.querySelector('#say').addEventListener('submit', async (event) => {
  event.preventDefault()
  const answer = await socket.emitWithAck('say', event.target.elements.text.value)
  document.querySelector('#messages').textContent = answer.error ?? answer.messages.join('\\n')
  event.target.reset()
})
socket.on('disconnect', (reason) => { document.querySelector('#messages').textContent = 'Disconnected: ' + reason })
`
