// Sessions without a framework: the middleware is a function of request, response and next. Errors of the session, such
// as a store that does not answer, come to `next`.
//
//   npx tsx examples/plain-http/server.ts
import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { requireSession, session } from 'sojourn'

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})

const server = createServer((req, res) => {
  sessions(req, res, (error) => {
    if (error) fail(res, error)
    else handle(req, res).catch((reason: unknown) => fail(res, reason))
  })
})

async function handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
  // The same object as req.session, which the types of node:http do not know.
  const session = requireSession(req)
  switch (`${req.method} ${req.url}`) {
    case 'GET /': {
      const views = await session.update('views', (n) => Number(n ?? 0) + 1)
      res.end(`You have seen this page ${views} times.\n`)
      return
    }
    case 'POST /forget':
      await session.destroy()
      res.writeHead(303, { Location: '/' }).end()
      return
    default:
      res.writeHead(404).end()
  }
}

/** Called at most twice: by the handler, and, when its answer was held back because the commit failed, by `next`. */
function fail(res: ServerResponse, error: unknown): void {
  console.error(error)
  if (res.headersSent) {
    res.destroy()
    return
  }
  res.statusCode = (error as { status?: number }).status ?? 500
  res.end('Something went wrong.\n')
}

server.once('error', stop)
server.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => server.close())

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
