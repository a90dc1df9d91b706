// Holds a response back until something is done. Knows nothing of what that something is.
//
// The calls that could put bytes on the wire (`write`, `end`, `flushHeaders`) pass through a gate: the first of them asks
// `beforeHead`, the one that would complete a response whose head is out asks `beforeEnd`. A hook that returns nothing
// lets the call through at once; one that returns a promise holds it, and all later calls in order, until it resolves.
// `writeHead` sends nothing in Node either, so it is only noted, and a changed mind about the head stays possible.
//
// While a head is noted or held, `headersSent` says `true`, so that code after it sees what it would see without us; while
// it is held, it can no more be changed than one that has left.
import type { OutgoingHttpHeader, ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'

/** A response of `node:http`, `node:https` or the compatibility API of `node:http2`. */
export type HttpResponse = ServerResponse | Http2ServerResponse

/** Runs something that sets headers, also while the response is held and nobody else can. */
export type ChangeHead = (change: () => void) => void

/** What to do before a response goes on. */
export interface ResponseHooks {
  /** The head is about to leave. `isLast`: so is the whole response. The last moment to set headers, by `ChangeHead`. */
  beforeHead(isLast: boolean): Promise<void> | undefined
  /** The head is out, the last byte is not. May be asked more than once. */
  beforeEnd(): Promise<void> | undefined
  /**
   * A hook failed. If no byte had left, the response is as it was when the hold began (status, headers, methods) and
   * waits for another answer; otherwise the connection has been cut, so that the client sees a broken response.
   */
  onError(error: unknown, canAnswer: boolean): void
}

type Kind = 'write' | 'end' | 'flushHeaders'
interface Call {
  readonly kind: Kind
  readonly args: readonly unknown[]
}
type Method = (...args: unknown[]) => unknown

/** The members that are called here, without the overloads in which the two kinds of response differ. */
interface Target {
  statusCode: number
  statusMessage: string
  readonly headersSent: boolean
  readonly writableEnded: boolean
  writeHead: Method
  write: Method
  end: Method
  flushHeaders: Method
  getHeader(name: string): unknown
  getHeaders(): Record<string, OutgoingHttpHeader | undefined>
  getHeaderNames(): string[]
  setHeader(name: string, value: unknown): unknown
  appendHeader(name: string, value: unknown): unknown
  removeHeader(name: string): void
  emit(event: string): boolean
  on(event: 'pipe', listener: (source: NodeJS.ReadableStream) => void): unknown
  destroy(): unknown
  readonly socket: Socket | null
  readonly stream?: { close(code: number): void }
}

const HTTP2_INTERNAL_ERROR = 2

/** Puts the gate on a response, until it has ended. */
export function holdResponse(response: HttpResponse, hooks: ResponseHooks): ChangeHead {
  const res = response as unknown as Target
  const original = { writeHead: res.writeHead, write: res.write, end: res.end, flushHeaders: res.flushHeaders }
  const entry = { headers: res.getHeaders(), statusCode: res.statusCode, statusMessage: res.statusMessage }

  let phase: 'open' | 'held' | 'streaming' | 'done' | 'given up' = res.headersSent ? 'streaming' : 'open'
  let isHeadOut = res.headersSent
  let isHeadNoted = false
  let isPretending = false
  let heldCall: Call | null = null
  let queue: Call[] = []
  let owesDrain = false
  let lastWriteFlowed = true
  let bytesLeft = Number.POSITIVE_INFINITY
  let unseal: (() => void) | null = null
  const sources = new Set<NodeJS.ReadableStream>()

  res.on('pipe', (source) => sources.add(source))
  res.writeHead = function writeHead(...args: unknown[]) {
    if (phase === 'given up') return res
    if (isHeadOut || phase === 'done') return original.writeHead.apply(res, args)
    if (isHeadNoted || phase === 'held') {
      // Wrappers ask for an implicit head again as long as they see none; anything else is the caller's mistake.
      if (args.length === 1 && args[0] === res.statusCode) return res
      throw headersSentError('write')
    }
    noteHead(res, args)
    isHeadNoted = true
    pretendHeadersSent()
    return res
  }
  res.write = (...args: unknown[]) => dispatch({ kind: 'write', args })
  res.end = (...args: unknown[]) => dispatch({ kind: 'end', args })
  res.flushHeaders = () => dispatch({ kind: 'flushHeaders', args: [] })
  return (change) => {
    const wasSealed = openHead()
    change()
    if (wasSealed) unseal = sealHead(res)
  }

  function dispatch(call: Call): unknown {
    switch (phase) {
      case 'open':
        return gate(call, () => hooks.beforeHead(call.kind === 'end'))
      case 'held':
        queue.push(call)
        return heldResult(call)
      case 'streaming':
        return isCompleting(call) ? gate(call, () => hooks.beforeEnd()) : pass(call)
      case 'done':
        return run(call)
      case 'given up':
        return heldResult(call)
    }
  }

  function gate(call: Call, ask: () => Promise<void> | undefined): unknown {
    let waiting: Promise<void> | undefined
    try {
      waiting = ask()
    } catch (error) {
      fail(error)
      return res
    }
    if (waiting === undefined) return pass(call)
    phase = 'held'
    heldCall = call
    if (!isHeadOut) unseal = sealHead(res)
    pretendHeadersSent()
    waiting.then(resume).catch(fail)
    return heldResult(call)
  }

  function resume(): void {
    const call = heldCall as Call
    heldCall = null
    pass(call)
    // A later call may be held in its turn; the rest then stays in the queue.
    while (queue.length > 0 && (phase as string) !== 'held') dispatch(queue.shift() as Call)
    if (owesDrain && phase === 'streaming' && lastWriteFlowed) {
      owesDrain = false
      res.emit('drain')
    }
  }

  /** Lets a call through, and the head with it. */
  function pass(call: Call): unknown {
    stopPretending()
    openHead()
    if (!isHeadOut) {
      isHeadOut = true
      bytesLeft = contentLength(res)
    }
    phase = call.kind === 'end' ? 'done' : 'streaming'
    return run(call)
  }

  function run(call: Call): unknown {
    const result = original[call.kind].apply(res, call.args as unknown[])
    if (call.kind === 'write') {
      lastWriteFlowed = result !== false
      if (Number.isFinite(bytesLeft)) bytesLeft -= byteLength(call)
    }
    return result
  }

  /** With a known length, the last byte may come in a `write`. */
  function isCompleting(call: Call): boolean {
    if (call.kind !== 'write') return call.kind === 'end'
    return Number.isFinite(bytesLeft) && bytesLeft <= byteLength(call)
  }

  function heldResult(call: Call): unknown {
    if (call.kind === 'write') {
      owesDrain = true
      return false
    }
    return call.kind === 'end' ? res : undefined
  }

  function fail(error: unknown): void {
    stopPretending()
    openHead()
    phase = 'given up'
    heldCall = null
    queue = []
    // Not isHeadOut: a head that Node refused to write has not left.
    const canAnswer = !res.headersSent
    if (canAnswer) reset()
    else cut(res)
    hooks.onError(error, canAnswer)
  }

  /**
   * Undoes what came after the hold began, wrappers of `end` and `write` included: they belong to the answer that was
   * given up, and some of them answer only once.
   */
  function reset(): void {
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of Object.entries(entry.headers)) if (value !== undefined) res.setHeader(name, value)
    res.statusCode = entry.statusCode
    if (res.statusMessage !== entry.statusMessage) res.statusMessage = entry.statusMessage
    res.writeHead = original.writeHead
    res.flushHeaders = original.flushHeaders
    // What was piped into the answer given up must not become part of the other one, nor break it when it comes late.
    for (const source of sources) source.unpipe(res as unknown as NodeJS.WritableStream)
    res.write = (...args) => (res.writableEnded ? true : original.write.apply(res, args))
    res.end = (...args) => (res.writableEnded ? res : original.end.apply(res, args))
  }

  function openHead(): boolean {
    if (unseal === null) return false
    unseal()
    unseal = null
    return true
  }

  function pretendHeadersSent(): void {
    if (isHeadOut || isPretending) return
    isPretending = true
    Object.defineProperty(res, 'headersSent', { configurable: true, get: () => true })
  }

  function stopPretending(): void {
    if (!isPretending) return
    isPretending = false
    delete (res as { headersSent?: boolean }).headersSent
  }
}

/** Makes every change of the head what it is after a head has left: an error for headers, of no effect for the status. */
function sealHead(res: Target): () => void {
  const { setHeader, appendHeader, removeHeader, statusCode, statusMessage } = res
  const refuse = (): never => {
    throw headersSentError('change')
  }
  Object.assign(res, { setHeader: refuse, appendHeader: refuse, removeHeader: refuse })
  return () => {
    Object.assign(res, { setHeader, appendHeader, removeHeader })
    if (res.statusCode !== statusCode) res.statusCode = statusCode
    if (res.statusMessage !== statusMessage) res.statusMessage = statusMessage
  }
}

/** Breaks the connection, so that what has been sent does not look complete. */
function cut(res: Target): void {
  if (res.stream) {
    res.stream.close(HTTP2_INTERNAL_ERROR)
    return
  }
  // Under HTTP/1.0 a closed connection is how a response ends; only a reset says otherwise. TLS has its own end mark, and
  // a Unix socket cannot be reset.
  const { socket } = res
  if (socket?.remoteAddress !== undefined && !('encrypted' in socket)) socket.resetAndDestroy()
  else res.destroy()
}

/** Does now what `writeHead(status, reason?, headers?)` would do, but for the sending. */
function noteHead(res: Target, args: readonly unknown[]): void {
  const [status, second, third] = args
  const headers = typeof second === 'string' ? third : (third ?? second)
  if (typeof status === 'number') res.statusCode = status
  if (typeof second === 'string') res.statusMessage = second
  if (Array.isArray(headers)) {
    const pairs = Array.isArray(headers[0]) ? (headers as unknown[][]) : inPairs(headers)
    for (const [name] of pairs) res.removeHeader(String(name))
    for (const [name, value] of pairs) res.appendHeader(String(name), value)
  } else if (typeof headers === 'object' && headers !== null) {
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) res.setHeader(name, value)
  }
}

function inPairs(flat: unknown[]): unknown[][] {
  const pairs: unknown[][] = []
  for (let index = 0; index < flat.length; index += 2) pairs.push([flat[index], flat[index + 1]])
  return pairs
}

function contentLength(res: Target): number {
  const value = res.getHeader('content-length')
  const length = value === undefined ? Number.NaN : Number(value)
  return Number.isNaN(length) ? Number.POSITIVE_INFINITY : length
}

function byteLength({ args: [chunk, encoding] }: Call): number {
  if (typeof chunk === 'string') {
    return Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
  }
  return chunk instanceof Uint8Array ? chunk.byteLength : 0
}

/** The error that Node throws at the same mistake. */
function headersSentError(what: string): Error {
  return Object.assign(new Error(`Cannot ${what} headers after they are sent to the client`), {
    code: 'ERR_HTTP_HEADERS_SENT',
  })
}
