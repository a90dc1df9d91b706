// Random sequences of calls on a response, once on plain Node and once behind the middleware: what the client and the handler
// see must be the same, but for what docs/limits.md names. `SEQUENCES=100000 npm test -- tests/request/response-model.test.ts`
// runs more of them, `SEED=…` those of an earlier run.
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, test } from '@jest/globals'
import fc from 'fast-check'
import { type HttpRequest, MemorySessionStore, type Session, type SessionMiddleware, session } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { SECRET } from '../support/http.js'
import { type Program, programs, type Response, Run, type Seen } from '../support/response-programs.js'
import { HTTP, WIRES, type WireServer } from '../support/wires.js'

const SEQUENCES = Number(process.env['SEQUENCES'] ?? 2000)
const AT_ONCE = 250

interface Client {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
  readonly isTruncated: boolean
}

type Side = 'plain' | 'ours' | 'failing'
interface Job {
  readonly program: Program
  readonly side: Side
  readonly done: (seen: Seen) => void
}

const jobs = new Map<string, Job>()
const middlewares = new Map<string, SessionMiddleware>()
let http1: WireServer
let http2: WireServer

beforeAll(async () => {
  for (const storeMs of [0, 5, 50]) {
    for (const side of ['ours', 'failing'] as const) {
      const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
      const operations = ['create', 'update'] as const
      if (side === 'failing') store.fail({ kind: 'error', operations })
      else if (storeMs > 0) store.fail({ kind: 'delay', delayMs: storeMs, operations })
      middlewares.set(`${side} ${storeMs}`, session({ secret: SECRET, store, storeTimeout: '20s' }))
    }
  }
  http1 = await HTTP.listen((req, res) => serve(req, res as Response))
  const [, wire] = WIRES.find(([name]) => name === 'HTTP/2 without TLS') as (typeof WIRES)[number]
  http2 = await wire.listen((req, res) => serve(req, res as Response))
})

afterAll(async () => {
  await Promise.all([http1.close(), http2.close()])
})

function serve(req: HttpRequest, res: Response): void {
  const { program, side, done } = jobs.get(String(req.url)) as Job
  const run = new Run(program, res)
  const closed = new Promise((resolve) => res.once('close', resolve))
  const handle = (session: Session | null): void => {
    void Promise.all([run.handle(session), closed]).then(() => setImmediate(() => done(run.seen)))
  }
  const middleware = middlewares.get(`${side} ${program.storeMs}`)
  if (middleware === undefined) {
    handle(null)
    return
  }
  middleware(req, res, (error?: unknown) => {
    if (error === undefined) handle((req as HttpRequest & { session: Session }).session)
    else if (!res.headersSent) res.end(`error ${(error as { code?: string }).code}`)
  })
}

let count = 0

async function runOn(side: Side, program: Program): Promise<Outcome> {
  const path = `/${count++}`
  const { promise: handled, resolve: done } = withResolvers<Seen>()
  jobs.set(path, { program, side, done })
  const { method } = program
  const asked =
    program.wire === 'HTTP/1.0'
      ? requestHttp10(http1.port, method, path)
      : (program.wire === 'HTTP/2' ? http2 : http1).request({ path, method })
  const [client, seen] = await Promise.all([asked, handled])
  jobs.delete(path)
  return { client, seen }
}

/** What a client without chunks and without a second request on its connection gets. */
async function requestHttp10(port: number, method: string, path: string): Promise<Client> {
  const socket = connect(port, '127.0.0.1').setEncoding('latin1')
  let text = ''
  let isTruncated = false
  socket.on('data', (chunk: string) => {
    text += chunk
  })
  socket.on('error', () => {
    isTruncated = true
  })
  socket.write(`${method} ${path} HTTP/1.0\r\n\r\n`)
  await once(socket, 'close').catch(() => {})
  const at = text.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = text.slice(0, at).split('\r\n')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(': ')
    const name = line.slice(0, colon).toLowerCase()
    headers[name] = `${name in headers ? `${headers[name]}, ` : ''}${line.slice(colon + 2)}`
  }
  const body = text.slice(at + 4)
  return { status: Number(statusLine.split(' ')[1]), headers, body, isTruncated: isTruncated || at < 0 }
}

function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}

const OF_THE_SESSION = new Set(['set-cookie', 'cache-control', 'vary', 'date', 'keep-alive', 'connection'])

function comparable({ status, headers, body, isTruncated }: Client): unknown {
  const others = Object.entries(headers).filter(([name]) => !OF_THE_SESSION.has(name))
  return { status, headers: Object.fromEntries(others.sort(([a], [b]) => (a < b ? -1 : 1))), body, isTruncated }
}

/** What is wrong with a run of the program; `null` when nothing is. */
async function fault(program: Program): Promise<unknown> {
  const [plain, ours] = await Promise.all([runOn('plain', program), runOn('ours', program)])
  if (ours.seen.errors.length > 0) return { errors: ours.seen.errors }
  const difference = differenceOf(program, plain, ours)
  // What plain Node does itself now and then, as when it is busy, is no fault of ours.
  if (difference !== null && !(await isDoneByNode(program, ours))) return difference
  const isWhole = !plain.client.isTruncated && !plain.seen.wasDestroyed
  if (!plain.seen.changedInTime || !isWhole) return null
  const { headers } = ours.client
  if (!headers['set-cookie'] || !/no-store/.test(String(headers['cache-control']))) return { cookie: headers }
  return failureFault(program)
}

interface Outcome {
  readonly client: Client
  readonly seen: Seen
}

function differenceOf({ method }: Program, plain: Outcome, ours: Outcome): { wanted: unknown; got: unknown } | null {
  const { seen } = plain
  const facts = ({ steps, callbacks, lateCallbacks }: Seen): unknown =>
    // Callbacks of a response that was destroyed, or whose client was served with the head, depend on when that was noticed.
    seen.wasDestroyed || seen.wasDestroyedLate || method === 'HEAD'
      ? { steps }
      : { steps, callbacks, lateCallbacks: [...lateCallbacks].sort() }
  // How much of an answer a client gets that was destroyed before its end is a matter of time.
  const isWhole = !plain.client.isTruncated && !seen.wasDestroyed
  // Destroyed after its end, plain Node may send less of it than we do, or nothing at all.
  const isLess = isWhole && seen.wasDestroyedLate && ours.client.body.startsWith(plain.client.body)
  const head = plain.client.status === 0 ? ours.client : plain.client
  const expected = isLess ? { ...head, body: ours.client.body } : plain.client
  const wanted = [facts(seen), isWhole && comparable(expected)]
  const got = [facts(ours.seen), isWhole && comparable(ours.client)]
  return JSON.stringify(wanted) === JSON.stringify(got) ? null : { wanted, got }
}

async function isDoneByNode(program: Program, ours: Outcome): Promise<boolean> {
  const runs = await Promise.all(Array.from({ length: 50 }, () => runOn('plain', program)))
  return runs.some((plain) => differenceOf(program, plain, ours) === null)
}

/** The same when the commit fails: the client gets the error, and nothing of the answer. */
async function failureFault(program: Program): Promise<unknown> {
  const { client, seen } = await runOn('failing', program)
  // Listeners from before the session was first used belong to the error as well.
  const steps = [...program.before, ...program.steps]
  const isMarked = client.status === 207 && steps.some((step) => step.do === 'listen' && step.status === 207)
  const body = program.method === 'HEAD' ? '' : 'error STORE_UNAVAILABLE'
  const isAnswered = !client.isTruncated && client.body.replaceAll('!', '') === body
  const isError = (client.status === 503 || isMarked) && !client.headers['set-cookie']
  const isClean = !Object.keys(client.headers).some((name) => /^x-[abcd]$/.test(name))
  return isAnswered && isError && isClean && seen.errors.length === 0 ? null : { failing: client, errors: seen.errors }
}

/** The program without what the fault does not need. */
async function smallest(program: Program): Promise<Program> {
  for (const part of ['steps', 'before'] as const) {
    for (let at = program[part].length - 1; at >= 0; at--) {
      const smaller = { ...program, [part]: program[part].filter((_step, index) => index !== at) }
      if ((await fault(smaller)) !== null) return smallest(smaller)
    }
  }
  return program
}

const random = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31))

test.each([
  ['a fixed seed', 20_261_127],
  ['another seed', random],
])(
  'sequences of %s are to client and handler what they are on plain Node',
  async (what, seed) => {
    const sequences = fc.sample(programs, { numRuns: Math.ceil(SEQUENCES / 2), seed })
    for (let at = 0; at < sequences.length; at += AT_ONCE) {
      const batch = sequences.slice(at, at + AT_ONCE)
      const faults = await Promise.all(batch.map(fault))
      const index = faults.findIndex((found) => found !== null)
      if (index < 0) continue
      const program = await smallest(batch[index] as Program)
      throw new Error(JSON.stringify({ seed, program, fault: (await fault(program)) ?? faults[index] }))
    }
    process.stdout.write(
      `${sequences.length} sequences of ${what} (${seed}) on Node ${process.versions.node}: the same\n`,
    )
  },
  60_000 + SEQUENCES * 50,
)
