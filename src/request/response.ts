// Holds a response back until something is done. Knows nothing of what that something is.
//
// The calls that could put bytes on the wire (`write`, `end`, `flushHeaders`) pass through a gate: the first of them asks
// `beforeHead`, the one that would complete a response whose head is out asks `beforeEnd`. A hook that returns nothing
// lets the call through at once; one that returns a promise holds it, and all later calls in order, until it resolves.
// `writeHead` sends nothing in Node either, so it is only noted, and a changed mind about the head stays possible.
//
// While a head is noted or held, `headersSent` says `true`, so that code after it sees what it would see without us; while
// it is held, it can no more be changed than one that has left.
import { type OutgoingHttpHeader, OutgoingMessage, ServerResponse } from 'node:http'
import { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import { getDefaultHighWaterMark } from 'node:stream'

/** A response of `node:http`, `node:https` or the compatibility API of `node:http2`. */
export type HttpResponse = ServerResponse | Http2ServerResponse

/** What to do before a response goes on. */
export interface ResponseHooks {
  /** The head is about to leave. `isLast`: so is the whole response. The last moment to set headers, by `changeHead()`. */
  beforeHead(isLast: boolean): Promise<void> | undefined
  /** The head is out, the last byte is not. May be asked more than once. */
  beforeEnd(): Promise<void> | undefined
  /**
   * A hook failed. If no byte had left, the headers are those of when the `HeldResponse` was made, and the response
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
type Methods = Pick<Target, Kind | 'writeHead'>

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
const HIGH_WATER_MARK = getDefaultHighWaterMark(false)

/**
 * A response that can be held.
 *
 * Nothing is put on it until `hold()` asks for it. Express gives every response a hidden class of its own, so each
 * property that is read from one is a cache miss, and each that is added copies that class: work is kept off it.
 */
export class HeldResponse {
  readonly #res: Target
  readonly #hooks: ResponseHooks
  /** The headers when this was made: what `hold()` goes back to when a hook fails. */
  readonly #entryHeaders: Record<string, OutgoingHttpHeader | undefined>
  #inner: Methods | null = null
  #phase: 'open' | 'held' | 'streaming' | 'done' | 'given up' = 'open'
  #isHeadOut = false
  #isHeadNoted = false
  #unseal: (() => void) | null = null
  #heldCall: Call | null = null
  #queue: Call[] = []
  #heldBytes = 0
  #owesDrain = false
  #lastWriteFlowed = true
  #bytesLeft = Number.POSITIVE_INFINITY
  #sources: Set<NodeJS.ReadableStream> | null = null

  constructor(response: HttpResponse, hooks: ResponseHooks) {
    this.#res = response as unknown as Target
    if (!isPlain(response)) {
      keepInDictionary(response, 'req')
      keepInDictionary(response.req, 'url')
    }
    this.#hooks = hooks
    this.#entryHeaders = this.#res.getHeaders()
  }

  get isHolding(): boolean {
    return this.#inner !== null
  }

  /** Whether the head has left; known only of a response that is held. */
  get isHeadOut(): boolean {
    return this.#isHeadOut
  }

  /** Puts the gate on the response, until it has ended. */
  hold(): void {
    if (this.#inner !== null) return
    const res = this.#res
    const isGated = hasGate(res)
    this.#inner = methodsOf(isGated ? NODE_RESPONSE : res)
    this.#isHeadOut = res.headersSent
    this.#phase = this.#isHeadOut ? 'streaming' : 'open'
    // How much has been written is not known then: any write may be the one that completes the response.
    if (this.#isHeadOut && Number.isFinite(contentLength(res))) this.#bytesLeft = 0
    if (isGated) (res as Gated)[HELD] = this
    else {
      res.writeHead = (...args: unknown[]) => this.writeHead(args)
      res.write = (...args: unknown[]) => this.call({ kind: 'write', args })
      res.end = (...args: unknown[]) => this.call({ kind: 'end', args })
      res.flushHeaders = () => this.call({ kind: 'flushHeaders', args: [] })
    }
    res.on('pipe', (source) => {
      this.#sources ??= new Set()
      this.#sources.add(source)
    })
  }

  /** Runs something that sets headers, also while the response is held and nobody else can. */
  changeHead(change: () => void): void {
    const wasSealed = this.#openHead()
    change()
    if (wasSealed) this.#sealHead()
  }

  /** What the gate makes of `res.writeHead()`. */
  writeHead(args: unknown[]): unknown {
    const res = this.#res
    if (this.#phase === 'given up') return res
    if (this.#isHeadOut || this.#phase === 'done') return (this.#inner as Methods).writeHead.apply(res, args)
    if (this.#isHeadNoted || this.#phase === 'held') {
      // Wrappers ask for an implicit head again as long as they see none; anything else is the caller's mistake.
      if (args.length === 1 && args[0] === res.statusCode) return res
      throw headersSentError('write')
    }
    noteHead(res, args)
    this.#isHeadNoted = true
    this.#sealHead()
    return res
  }

  /** What the gate makes of another call. */
  call(call: Call): unknown {
    switch (this.#phase) {
      case 'open':
        return this.#gate(call)
      case 'held':
        this.#queue.push(call)
        return this.#heldResult(call)
      case 'streaming':
        return this.#isCompleting(call) ? this.#gate(call) : this.#pass(call)
      case 'done':
        return this.#run(call)
      case 'given up':
        return this.#heldResult(call)
    }
  }

  #gate(call: Call): unknown {
    let waiting: Promise<void> | undefined
    try {
      waiting = this.#phase === 'open' ? this.#hooks.beforeHead(call.kind === 'end') : this.#hooks.beforeEnd()
    } catch (error) {
      this.#fail(error)
      return this.#res
    }
    if (waiting === undefined) return this.#pass(call)
    this.#phase = 'held'
    this.#heldCall = call
    this.#sealHead()
    waiting.then(() => this.#resume()).catch((error) => this.#fail(error))
    return this.#heldResult(call)
  }

  #resume(): void {
    const call = this.#heldCall as Call
    this.#heldCall = null
    this.#heldBytes = 0
    this.#pass(call)
    // A later call may be held in its turn; the rest then stays in the queue.
    while (this.#queue.length > 0 && (this.#phase as string) !== 'held') this.call(this.#queue.shift() as Call)
    if (this.#owesDrain && this.#phase === 'streaming' && this.#lastWriteFlowed) {
      this.#owesDrain = false
      this.#res.emit('drain')
    }
  }

  /** Lets a call through, and the head with it. */
  #pass(call: Call): unknown {
    this.#openHead()
    if (!this.#isHeadOut) {
      this.#isHeadOut = true
      if (call.kind !== 'end') this.#bytesLeft = contentLength(this.#res)
    }
    this.#phase = call.kind === 'end' ? 'done' : 'streaming'
    return this.#run(call)
  }

  #run(call: Call): unknown {
    const result = (this.#inner as Methods)[call.kind].apply(this.#res, call.args as unknown[])
    if (call.kind === 'write') {
      this.#lastWriteFlowed = result !== false
      if (Number.isFinite(this.#bytesLeft)) this.#bytesLeft -= byteLength(call)
    }
    return result
  }

  /** With a known length, the last byte may come in a `write`. */
  #isCompleting(call: Call): boolean {
    if (call.kind !== 'write') return call.kind === 'end'
    return Number.isFinite(this.#bytesLeft) && this.#bytesLeft <= byteLength(call)
  }

  /**
   * A held write says no more than Node's own would: stop when more than the usual high-water mark is waiting. Whoever
   * stops then is resumed by the stream underneath, which gets more than its mark, too; that matters where a wrapper
   * (compression) has put the listeners for `drain` on a stream of its own.
   */
  #heldResult(call: Call): unknown {
    if (call.kind !== 'write') return call.kind === 'end' ? this.#res : undefined
    if (this.#phase === 'given up') return false
    this.#heldBytes += byteLength(call)
    if (this.#heldBytes < HIGH_WATER_MARK) return true
    this.#owesDrain = true
    return false
  }

  #fail(error: unknown): void {
    this.#openHead()
    this.#phase = 'given up'
    this.#heldCall = null
    this.#queue = []
    // Not isHeadOut: a head that Node refused to write has not left.
    const canAnswer = !this.#res.headersSent
    if (canAnswer) this.#reset()
    else cut(this.#res)
    this.#hooks.onError(error, canAnswer)
  }

  /**
   * Undoes what came after the hold began, wrappers of `end` and `write` included: they belong to the answer that was
   * given up, and some of them answer only once.
   */
  #reset(): void {
    const res = this.#res
    const inner = this.#inner as Methods
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of Object.entries(this.#entryHeaders)) if (value !== undefined) res.setHeader(name, value)
    if (res.statusMessage) res.statusMessage = ''
    res.writeHead = inner.writeHead
    res.flushHeaders = inner.flushHeaders
    // What was piped into the answer given up must not become part of the other one, nor break it when it comes late.
    for (const source of this.#sources ?? []) source.unpipe(res as unknown as NodeJS.WritableStream)
    res.write = (...args) => (res.writableEnded ? true : inner.write.apply(res, args))
    res.end = (...args) => (res.writableEnded ? res : inner.end.apply(res, args))
  }

  /** From here on the head is to everybody as if it had left. */
  #sealHead(): void {
    if (this.#isHeadOut || this.#unseal !== null) return
    this.#unseal = this.#res instanceof OutgoingMessage ? sealHttp1(this.#res) : sealHttp2(this.#res)
  }

  #openHead(): boolean {
    if (this.#unseal === null) return false
    this.#unseal()
    this.#unseal = null
    return true
  }
}

/** Whether the response is Node's own, not one that a framework has given another prototype. */
export function isPlain(res: HttpResponse): boolean {
  const prototype: unknown = Object.getPrototypeOf(res)
  return prototype === ServerResponse.prototype || prototype === Http2ServerResponse.prototype
}

const V8_MAJOR = Number.parseInt(process.versions.v8, 10)

/**
 * Express gives every request and response another prototype. Up to V8 12 (Node 22) such an object gets a hidden class of
 * its own, with a copy of all descriptors, for each property that anybody adds: 3 us, and 1 KB that lives until the next
 * full collection. Adding to an object that V8 keeps as a dictionary costs nothing of that. Changing an attribute of any
 * property makes it one; changing it back leaves no trace.
 */
function keepInDictionary(object: object, property: string): void {
  if (V8_MAJOR > 12 || !Object.prototype.propertyIsEnumerable.call(object, property)) return
  if (Reflect.defineProperty(object, property, { enumerable: false })) {
    Reflect.defineProperty(object, property, { enumerable: true })
  }
}

/** Where a gated response keeps what holds it. */
const HELD: unique symbol = Symbol('sojourn.held')

type Gated = Target & { [HELD]?: HeldResponse }

const NODE_RESPONSE = ServerResponse.prototype as unknown as Target

/** The gate that a framework's prototype gets: a response that is not held passes as if it were not there. */
const GATE: Methods = {
  writeHead(this: Gated, ...args: unknown[]): unknown {
    const held = this[HELD]
    return held === undefined ? NODE_RESPONSE.writeHead.apply(this, args) : held.writeHead(args)
  },
  write(this: Gated, ...args: unknown[]): unknown {
    return passGate(this, 'write', args)
  },
  end(this: Gated, ...args: unknown[]): unknown {
    return passGate(this, 'end', args)
  },
  flushHeaders(this: Gated, ...args: unknown[]): unknown {
    return passGate(this, 'flushHeaders', args)
  },
}

function passGate(res: Gated, kind: Kind, args: unknown[]): unknown {
  const held = res[HELD]
  return held === undefined ? NODE_RESPONSE[kind].apply(res, args) : held.call({ kind, args })
}

/** Prototypes that have been looked at. */
const frameworks = new WeakSet<object>()

/**
 * Whether calls on `res` come to `GATE`. Four methods on every single response cost 20 us under Express (see
 * `keepInDictionary`), so they are put, once, where Express itself has its own: on the prototype that stands above Node's
 * (`express.response`). A response on which anybody has put another method is gated by methods of its own, over those.
 */
function hasGate(res: Target): boolean {
  let prototype: object | null = Object.getPrototypeOf(res)
  if (prototype === ServerResponse.prototype) return false
  if (prototype !== null && !frameworks.has(prototype)) {
    frameworks.add(prototype)
    let above = Object.getPrototypeOf(prototype)
    while (above !== null && above !== ServerResponse.prototype) {
      prototype = above as object
      above = Object.getPrototypeOf(prototype)
    }
    if (above === ServerResponse.prototype) installGate(prototype as object)
  }
  return (
    (res as Gated)[HELD] === undefined &&
    res.end === GATE.end &&
    res.write === GATE.write &&
    res.writeHead === GATE.writeHead &&
    res.flushHeaders === GATE.flushHeaders
  )
}

/** Only where nobody has put methods of that name, and where it is allowed. */
function installGate(prototype: object): void {
  const names = Object.keys(GATE) as (keyof Methods)[]
  if (!Object.isExtensible(prototype) || names.some((name) => Object.hasOwn(prototype, name))) return
  for (const name of names) {
    Object.defineProperty(prototype, name, { value: GATE[name], configurable: true, writable: true })
  }
}

/** The methods as they are under the gate: own ones, from wrappers, or those of the prototype, read where that is cheap. */
function methodsOf(res: Target): Methods {
  const prototype = Object.getPrototypeOf(res) as Target
  return {
    writeHead: Object.hasOwn(res, 'writeHead') ? res.writeHead : prototype.writeHead,
    write: Object.hasOwn(res, 'write') ? res.write : prototype.write,
    end: Object.hasOwn(res, 'end') ? res.end : prototype.end,
    flushHeaders: Object.hasOwn(res, 'flushHeaders') ? res.flushHeaders : prototype.flushHeaders,
  }
}

/**
 * Node decides by `_header`, the rendered head, whether the head has left: with a stand-in there, `headersSent` is true,
 * and changing a header is an error. A status that is set now is without effect, as it would be.
 */
function sealHttp1(res: OutgoingMessage): () => void {
  const sealed = res as unknown as Target & { _header: string | null }
  const { statusCode, statusMessage } = sealed
  sealed._header = ' '
  return () => {
    sealed._header = null
    if (sealed.statusCode !== statusCode) sealed.statusCode = statusCode
    if (sealed.statusMessage !== statusMessage) sealed.statusMessage = statusMessage
  }
}

/** The same for HTTP/2, where the state is out of reach. */
function sealHttp2(res: Target): () => void {
  const { setHeader, appendHeader, removeHeader, statusCode } = res
  const refuse = (): never => {
    throw headersSentError('change')
  }
  Object.assign(res, { setHeader: refuse, appendHeader: refuse, removeHeader: refuse })
  Object.defineProperty(res, 'headersSent', { configurable: true, get: () => true })
  return () => {
    delete (res as { headersSent?: boolean }).headersSent
    Object.assign(res, { setHeader, appendHeader, removeHeader })
    if (res.statusCode !== statusCode) res.statusCode = statusCode
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
