// Prints how many bytes a request allocates in the middleware, by what it does, on the memory store and on a distant one. To be
// run with --expose-gc and a young generation in which all measured requests find room: then nothing is collected meanwhile.
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { PerformanceObserver } from 'node:perf_hooks'
import { MemorySessionStore, type SessionChange, type SessionData, session, type UpdateResult } from 'sojourn'

/** Until then V8 has compiled what runs, and allocates no more than that needs. */
const WARM_UP = 8_000
const REQUESTS = 1_000

type Send = (cookie: string | undefined, handler: (req: IncomingMessage) => void) => Promise<ServerResponse>

/** The same sessions, behind promises. */
class DistantStore extends MemorySessionStore {
  override async get(id: string): Promise<SessionData | null> {
    return super.get(id)
  }
  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return super.update(id, change, ttlSeconds)
  }
}

const HANDLERS: Readonly<Record<string, (req: IncomingMessage) => void>> = {
  ignores: () => {},
  reads: (req) => req.session.get('views'),
  changes: (req) => req.session.set('views', Number(req.session.get('views') ?? 0) + 1),
}

const socket = new Socket()

function sender(middleware: (req: IncomingMessage, res: ServerResponse, next: () => void) => void): Send {
  return (cookie, handler) =>
    new Promise((resolve) => {
      const req = new IncomingMessage(socket)
      req.method = 'GET'
      req.url = '/'
      if (cookie !== undefined) req.headers = { cookie }
      const res = new ServerResponse(req)
      res.end = () => {
        if (!res.headersSent) res.writeHead(200)
        resolve(res)
        return res
      }
      middleware(req, res, () => {
        handler(req)
        res.end()
      })
    })
}

async function bytesOf(
  send: Send,
  cookie: string | undefined,
  handler: (req: IncomingMessage) => void,
): Promise<number> {
  for (let n = 0; n < WARM_UP; n++) await send(cookie, handler)
  const counts: number[] = []
  for (let time = 0; time < 3; time++) {
    globalThis.gc?.()
    let collections = 0
    const observer = new PerformanceObserver((list) => {
      collections += list.getEntries().length
    })
    const before = process.memoryUsage().heapUsed
    observer.observe({ entryTypes: ['gc'] })
    for (let n = 0; n < REQUESTS; n++) await send(cookie, handler)
    const bytes = (process.memoryUsage().heapUsed - before) / REQUESTS
    await new Promise((resolve) => setImmediate(resolve))
    observer.disconnect()
    if (collections > 0) throw new Error('Something was collected meanwhile: the young generation is too small.')
    counts.push(bytes)
  }
  // What else was compiled meanwhile comes on top.
  return Math.min(...counts)
}

const result: Record<string, Record<string, number>> = {}
const bare = sender((_req, _res, next) => next())
const none = await bytesOf(bare, 'sid=x', HANDLERS['ignores'] as () => void)
for (const [name, store] of [
  ['memory', new MemorySessionStore({ cleanupInterval: 0 })],
  ['distant', new DistantStore({ cleanupInterval: 0 })],
] as const) {
  const send = sender(session({ secret: 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe', cookie: { secure: false }, store }))
  const first = await send(undefined, (req) => req.session.set('views', 1))
  const cookie = String(first.getHeader('set-cookie')).split(';')[0]
  result[name] = {}
  for (const [does, handler] of Object.entries(HANDLERS)) {
    result[name][does] = Math.round((await bytesOf(send, cookie, handler)) - none)
  }
}
console.log(JSON.stringify(result))
