// Holds a response back until something is done. Knows nothing of what that something is.
//
// The calls that could put bytes on the wire (`write`, `end`, `flushHeaders`) pass through a gate: the first of them asks
// `beforeHead`, the one that would complete a response whose head is out asks `beforeEnd`. A hook that returns nothing
// lets the call through at once; one that returns a promise holds it, and all later calls in order, until it resolves.
// `writeHead` sends nothing in Node either, so it is only noted (note-head.ts).
//
// The gate is over everything that was on the response when it was put there, and under everything that comes later. What is
// below is looked up when it is called: a framework may give a response another prototype at any time. What the code above
// sees while it waits is what it would see without us (seal.ts): the head has left, an answer that has ended has ended.
import { type OutgoingHttpHeader, OutgoingMessage, ServerResponse } from 'node:http'
import { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import { getDefaultHighWaterMark, Writable } from 'node:stream'
import { isUint8Array } from 'node:util/types'
import { keepInDictionaries } from './dictionaries.js'
import type { HttpResponse, Method, Target } from './http-response.js'
import { noteHead } from './note-head.js'
import {
  destroyAfterAnswer,
  headersSentError,
  sealEnd,
  sealHead,
  whenHeadIsRendered,
  writeAfterEndError,
} from './seal.js'

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
  /** What is below the gate that was called, at that time. */
  readonly method: Method
}
type Methods = Pick<Target, Kind | 'writeHead'>
type Held = Target & { [FIRST]?: HeldResponse }
type Wrappers = Partial<Methods>

/** Where a response has the first that holds it. */
const FIRST: unique symbol = Symbol('sojourn.held')
const NOTHING_BELOW: Wrappers = {}

const HTTP2_INTERNAL_ERROR = 2
const HIGH_WATER_MARK = getDefaultHighWaterMark(false)

/**
 * A response that is held when it has to be. The gate is on it from the beginning, as calls do not wait for it: in
 * `res.end(JSON.stringify(req.session))` the method is read before the session is.
 */
export class HeldResponse {
  readonly #res: Held
  readonly #hooks: ResponseHooks
  /** The headers when this was made: what is gone back to when a hook fails. */
  readonly #entryHeaders: readonly (readonly [name: string, value: OutgoingHttpHeader])[]
  /** What is below the gate: the methods that others had put on this one response before. */
  #below: Wrappers = NOTHING_BELOW
  /** The same of the first gate. */
  #firstBelow: Wrappers = NOTHING_BELOW
  #gate: Methods | undefined
  #isPassing = false
  #phase: 'open' | 'held' | 'streaming' | 'done' | 'given up' = 'open'
  #isHeadOut = false
  #isHeadNoted = false
  #revealHead: (() => void) | null = null
  #revealEnd: (() => void) | null = null
  #heldCall: Call | null = null
  #isAnnouncing = false
  #queue: Call[] = []
  #heldBytes = 0
  #owesDrain = false
  #lastWriteFlowed = true
  #bytesLeft = Number.POSITIVE_INFINITY
  #sources: Set<NodeJS.ReadableStream> | null = null
  /** What is to be destroyed once the answer, which had ended before, has gone. */
  #destroyLater: (() => void)[] | null = null

  constructor(response: HttpResponse, hooks: ResponseHooks) {
    this.#res = response as unknown as Held
    keepInDictionaries(response)
    this.#hooks = hooks
    this.#entryHeaders = headersOf(this.#res)
    this.#isHeadOut = this.#res.headersSent
    this.#phase = this.#isHeadOut ? 'streaming' : 'open'
    // How much has been written is not known then: any write may be the one that completes the response.
    if (this.#isHeadOut && Number.isFinite(contentLength(this.#res))) this.#bytesLeft = 0
    this.#install()
    if (this.#gate === HeldResponse.firstGate) this.#res.on('pipe', HeldResponse.firstListener)
    else this.#res.on('pipe', (source) => this.#noteSource(source))
  }

  /** The listener for what is piped into it, likewise shared: see `firstGate`. */
  static readonly firstListener = function (this: Held, source: NodeJS.ReadableStream): void {
    const held = this[FIRST]
    if (held !== undefined) held.#noteSource(source)
  }

  #noteSource(source: NodeJS.ReadableStream): void {
    this.#sources ??= new Set()
    this.#sources.add(source)
  }

  /** Whether calls wait for a hook now. */
  get isWaiting(): boolean {
    return this.#phase === 'held'
  }

  /** Puts the gate over what has been put on the response since: there are wrappers that go past all that is below. */
  coverWrappers(): void {
    const res = this.#res
    const gate = this.#gate as Methods
    const isOnTop =
      res.end === gate.end &&
      res.write === gate.write &&
      res.writeHead === gate.writeHead &&
      res.flushHeaders === gate.flushHeaders
    if (!isOnTop && this.#phase === 'open') this.#install()
  }

  #install(): void {
    const res = this.#res
    let below = NOTHING_BELOW
    for (const name of METHODS) {
      if (!Object.hasOwn(res, name)) continue
      const hasPassed = res[name] === this.#gate?.[name] || (name === 'writeHead' && this.#isHeadNoted)
      const method = hasPassed ? this.#below[name] : res[name]
      if (method === undefined) continue
      if (below === NOTHING_BELOW) below = {}
      below[name] = method
    }
    this.#below = below
    const gate = this.#gate === undefined && !(FIRST in res) ? HeldResponse.firstGate : this.#anotherGate(below)
    if (gate === HeldResponse.firstGate) {
      res[FIRST] = this
      this.#firstBelow = below
    }
    this.#gate = gate
    res.writeHead = gate.writeHead
    if (HAS_WRITE_HEADER) res.writeHeader = gate.writeHead
    res.write = gate.write
    res.end = gate.end
    res.flushHeaders = gate.flushHeaders
  }

  /** Methods of this response alone: those of the first gate are shared by all, and a response may get more. */
  #anotherGate(below: Wrappers): Methods {
    const pass = (kind: Kind, args: unknown[]): unknown => this.#come(kind, args, below)
    return {
      writeHead: (...args) => this.#comeToHead(args, below),
      write: (...args) => pass('write', args),
      end: (...args) => pass('end', args),
      flushHeaders: () => pass('flushHeaders', []),
    }
  }

  /** A call comes to the gate that has `below` below it. */
  #come(kind: Kind, args: readonly unknown[], below: Wrappers): unknown {
    const method = this.#inner(kind, below)
    return this.#isOpen(below) ? method.apply(this.#res, args as unknown[]) : this.#call({ kind, args, method })
  }

  #comeToHead(args: unknown[], below: Wrappers): unknown {
    return this.#isOpen(below) ? this.#inner('writeHead', below).apply(this.#res, args) : this.#writeHead(args)
  }

  /** The gate that most responses have: methods that find their response by what they are called on. */
  static readonly firstGate: Methods = {
    writeHead(this: Held, ...args) {
      const held = this[FIRST] as HeldResponse
      return held.#comeToHead(args, held.#firstBelow)
    },
    write(this: Held, ...args) {
      const held = this[FIRST] as HeldResponse
      return held.#come('write', args, held.#firstBelow)
    },
    end(this: Held, ...args) {
      const held = this[FIRST] as HeldResponse
      return held.#come('end', args, held.#firstBelow)
    },
    flushHeaders(this: Held) {
      const held = this[FIRST] as HeldResponse
      return held.#come('flushHeaders', [], held.#firstBelow)
    },
  }

  /** Whether a gate that has been covered lets through: what comes to it then has passed the one above. */
  #isOpen(below: Wrappers): boolean {
    return below !== this.#below && (this.#isPassing || this.#isHeadOut || this.#phase === 'given up')
  }

  /** Runs something that sets headers, also while the response is held and nobody else can. */
  changeHead(change: () => void): void {
    const wasSealed = this.#openHead()
    change()
    if (wasSealed) this.#sealHead()
  }

  /** Runs something that sets headers at the very last moment, when nobody else can any more. */
  whenHeadIsRendered(look: () => void): void {
    whenHeadIsRendered(this.#res, look)
  }

  #inner(name: keyof Methods, below = this.#below): Method {
    return below[name] ?? (Object.getPrototypeOf(this.#res) as Target)[name]
  }

  #writeHead(args: unknown[]): unknown {
    const res = this.#res
    if (this.#phase === 'given up') return res
    if (this.#isHeadOut || this.#phase === 'done') return this.#inner('writeHead').apply(res, args)
    if (res.stream?.destroyed || res.stream?.closed) return res
    if (this.#isHeadNoted || this.#phase === 'held') throw headersSentError(res, 'write')
    noteHead(res, args)
    if (this.#isAnnouncing) return res
    this.#isHeadNoted = true
    this.#sealHead()
    return res
  }

  #call(call: Call): unknown {
    if (this.#revealEnd !== null || (this.#phase === 'done' && this.#res.writableEnded)) return this.#refuse(call)
    switch (this.#phase) {
      case 'open':
        this.#check(call)
        return this.#ask(call)
      case 'held':
        this.#check(call)
        this.#queue.push(call)
        if (call.kind === 'end') this.#sealEnd()
        return this.#heldResult(call)
      case 'streaming':
        return this.#isCompleting(call) ? this.#ask(call) : this.#pass(call)
      case 'done':
        return this.#run(call)
      case 'given up':
        return this.#heldResult(call)
    }
  }

  #ask(call: Call): unknown {
    if (this.#phase === 'open') this.#announceHead()
    let waiting: Promise<void> | undefined
    try {
      waiting = this.#phase === 'open' ? this.#hooks.beforeHead(call.kind === 'end') : this.#hooks.beforeEnd()
    } catch (error) {
      // As any other: who writes on in this turn writes to the answer that is given up.
      waiting = Promise.reject(error)
    }
    if (waiting === undefined) return this.#pass(call)
    this.#phase = 'held'
    this.#heldCall = call
    this.#sealHead()
    if (call.kind === 'end') this.#sealEnd()
    waiting.then(() => this.#resume()).catch((error) => this.#fail(error))
    return this.#heldResult(call)
  }

  #resume(): void {
    const call = this.#heldCall as Call
    this.#heldCall = null
    this.#heldBytes = 0
    this.#openEnd()
    this.#pass(call)
    // A later call may be held in its turn; the rest then stays in the queue.
    while (this.#queue.length > 0 && !this.isWaiting) this.#call(this.#queue.shift() as Call)
    if (this.isWaiting) {
      if (this.#queue.at(-1)?.kind === 'end') this.#sealEnd()
      return
    }
    if (this.#destroyLater !== null) destroyAfterAnswer(this.#res, this.#destroyLater)
    if (this.#owesDrain && this.#phase === 'streaming' && this.#lastWriteFlowed) {
      this.#owesDrain = false
      // What a listener throws is nobody's here.
      process.nextTick(() => this.#phase === 'streaming' && this.#res.emit('drain'))
    }
  }

  /** Lets a call through, and the head with it. */
  #pass(call: Call): unknown {
    this.#openHead()
    this.#phase = call.kind === 'end' ? 'done' : 'streaming'
    return this.#isHeadOut ? this.#run(call) : this.#runWithHead(call)
  }

  #runWithHead(call: Call): unknown {
    const res = this.#res
    this.#isHeadOut = true
    if (this.#isHeadNoted) this.#inner('writeHead').call(res, res.statusCode)
    if (call.kind !== 'end') this.#bytesLeft = contentLength(res)
    const { writeHead } = res
    const gate = (this.#gate as Methods).writeHead
    // The wrappers above have seen the head leave.
    if (writeHead !== gate) res.writeHead = gate
    const result = this.#run(call)
    if (writeHead !== gate) res.writeHead = writeHead
    return result
  }

  /** Lets wrappers of `writeHead` that are above the gate see the head leave when it does so for the handler. */
  #announceHead(): void {
    const res = this.#res
    if (this.#isHeadNoted || res.writeHead === this.#gate?.writeHead) return
    this.#isAnnouncing = true
    try {
      res.writeHead(res.statusCode)
    } finally {
      this.#isAnnouncing = false
    }
  }

  #run(call: Call): unknown {
    const wasPassing = this.#isPassing
    this.#isPassing = true
    let result: unknown
    try {
      result = call.method.apply(this.#res, call.args as unknown[])
    } finally {
      this.#isPassing = wasPassing
    }
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

  /** Throws what Node would throw at a chunk of another type. A wrapper may know what to do with it. */
  #check({ kind, args: [chunk], method }: Call): void {
    if (typeof chunk === 'string' || isUint8Array(chunk) || kind === 'flushHeaders') return
    const isHttp1 = this.#res instanceof OutgoingMessage
    if (kind === 'end' && (typeof chunk === 'function' || (isHttp1 ? !chunk : chunk == null))) return
    const node = (isHttp1 ? ServerResponse : Http2ServerResponse).prototype as unknown as Target
    if (method !== node[kind]) return
    if (isHttp1) SPENT.write(chunk)
    else new Writable({ write: (_chunk, _encoding, written) => written() }).write(chunk)
  }

  /**
   * A call after `end()`, which does what it does in Node once the answer has left: nothing, but for its callback. So nobody
   * gets an `error` event for a late answer, however long the first one is held.
   */
  #refuse(call: Call): unknown {
    const res = this.#res
    const { kind, args } = call
    const callback = args.find((value) => typeof value === 'function') as Method | undefined
    if (kind === 'flushHeaders') return undefined
    if (kind === 'write') {
      if (res instanceof OutgoingMessage) this.#check(call)
      if (callback) process.nextTick(callback, writeAfterEndError())
      return false
    }
    if (callback === undefined) return res
    if (!(res instanceof OutgoingMessage)) process.nextTick(callback)
    else if (args[0] && args[0] !== callback) process.nextTick(callback, writeAfterEndError())
    else (ServerResponse.prototype as unknown as Target).end.call(res, callback)
    return res
  }

  #fail(error: unknown): void {
    this.#openEnd()
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
   * Undoes what came after the gate, wrappers of `end` and `write` included: they belong to the answer that was
   * given up, and some of them answer only once.
   */
  #reset(): void {
    const res = this.#res
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of this.#entryHeaders) res.setHeader(name, value)
    if (res.statusMessage) res.statusMessage = ''
    // Whoever wanted the connection closed after the answer gets that after the other one.
    if (this.#destroyLater !== null) res.shouldKeepAlive = false
    res.writeHead = (...args) => this.#inner('writeHead').apply(res, args)
    if (HAS_WRITE_HEADER) res.writeHeader = res.writeHead
    res.flushHeaders = () => this.#inner('flushHeaders').call(res)
    // What was piped into the answer given up must not become part of the other one, nor break it when it comes late.
    for (const source of this.#sources ?? []) source.unpipe(res as unknown as NodeJS.WritableStream)
    const answer = (kind: Kind, args: unknown[]): unknown => {
      const method = this.#inner(kind)
      return res.writableEnded ? this.#refuse({ kind, args, method }) : method.apply(res, args)
    }
    res.write = (...args) => answer('write', args)
    res.end = (...args) => answer('end', args)
  }

  /** From here on the head is to everybody as if it had left. */
  #sealHead(): void {
    if (this.#isHeadOut || this.#revealHead !== null) return
    this.#revealHead = sealHead(this.#res)
  }

  #openHead(): boolean {
    if (this.#revealHead === null) return false
    this.#revealHead()
    this.#revealHead = null
    return true
  }

  /** From here on the end is to everybody as if it had been written. */
  #sealEnd(): void {
    this.#revealEnd = sealEnd(this.#res, (destroy) => {
      this.#destroyLater ??= []
      this.#destroyLater.push(destroy)
    })
  }

  #openEnd(): void {
    this.#revealEnd?.()
    this.#revealEnd = null
  }
}

function headersOf(res: Target): (readonly [name: string, value: OutgoingHttpHeader])[] {
  const headers: (readonly [string, OutgoingHttpHeader])[] = []
  for (const name of res.getHeaderNames()) {
    const value = res.getHeader(name) as OutgoingHttpHeader
    // Node appends to a list in its place.
    headers.push([name, Array.isArray(value) ? [...value] : value])
  }
  return headers
}

const HAS_WRITE_HEADER = 'writeHeader' in ServerResponse.prototype

/** A message to which nothing can be written, but which looks at what it is given as every message does. */
const SPENT = Object.assign(new OutgoingMessage(), { finished: true, destroyed: true }) as unknown as Target

const METHODS = ['writeHead', 'write', 'end', 'flushHeaders'] as const

/** Breaks the connection, so that what has been sent does not look complete. */
function cut(res: Target): void {
  if (res.stream) {
    res.stream.close(HTTP2_INTERNAL_ERROR)
    return
  }
  // Under HTTP/1.0 a closed connection is how a response ends; only a reset says otherwise. TLS has its own end mark, and
  // a Unix socket cannot be reset. In Bun each socket has `encrypted`.
  const socket = res.socket as (Socket & { readonly encrypted?: boolean }) | null
  if (socket?.remoteAddress !== undefined && !socket.encrypted) socket.resetAndDestroy()
  else res.destroy()
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
  return isUint8Array(chunk) ? chunk.byteLength : 0
}
