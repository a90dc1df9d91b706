// Sessions and responses that are streamed. A change is stored before the last byte leaves, so a client that has read
// the stream to its end finds it. A new session is different: its cookie is a header, so it has to be there before the
// first byte.
//
//   npx tsx examples/streaming/server.ts
//   curl -N -c jar -b jar http://127.0.0.1:3000/events; curl -b jar http://127.0.0.1:3000/
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import express from 'express'
import { type Session, session } from 'sojourn'

declare module 'sojourn' {
  interface SessionFields {
    streams?: number
    lastEvent?: number
    tooLate?: boolean
  }
}

const EVENTS = 5

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})
sessions.events.on('lateChange', ({ id, reason }) => {
  console.error(`Session ${id} was changed too late (${reason}), and the change is lost.`)
})

const app = express()
app.use(sessions)

app.get('/', (req, res) => {
  res.json({ isNew: req.session.isNew, fields: req.session })
})

app.get('/events', async (req, res) => {
  // A field set here makes a new session before the headers go: the first write stores it and sends the cookie.
  await req.session.update('streams', (streams = 0) => streams + 1)
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  try {
    await pipeline(events(req.session), res)
  } catch {
    // The client left before the end, so no last byte brings the commit about.
    await req.session.save()
  }
})

/** Of an existing session, fields may change while the stream runs: they are stored together, before it ends. */
async function* events(session: Session): AsyncGenerator<string> {
  for (let event = 1; event <= EVENTS; event++) {
    session.lastEvent = event
    yield `id: ${event}\ndata: ${new Date().toISOString()}\n\n`
    await delay(100)
  }
}

app.get('/too-late', (req, res) => {
  res.write('The headers are gone with this line.\n')
  // Stored when the session existed before. A new one would get no cookie: it is not stored, and lateChange tells.
  req.session.tooLate = true
  res.end('The response itself is whole.\n')
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
