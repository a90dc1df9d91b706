// Sequences of calls on a response: drawn at random, run by a handler, and what the handler sees of them.
import { ServerResponse } from 'node:http'
import { Http2ServerResponse } from 'node:http2'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import type { Session } from 'sojourn'

export type Response = ServerResponse
type Method = (...args: unknown[]) => unknown
type Methods = Record<'writeHead' | 'write' | 'end' | 'flushHeaders', Method>

type Bare = 'flushHeaders' | 'destroy' | 'tick' | 'pause' | 'read' | 'change' | 'pipe' | 'log' | 'suffix' | 'prototype'

/** One step of a handler. What is not JSON (buffers, callbacks) has a name. */
export type Step =
  | { do: 'set' | 'append'; name: string; value: string | string[] }
  | { do: 'remove'; name: string }
  | { do: 'status'; status: number }
  | { do: 'writeHead'; args: unknown[] }
  | { do: 'write' | 'end'; chunk?: unknown; isBuffer?: boolean; encoding?: string; hasCallback?: boolean }
  | { do: Bare }
  | { do: 'listen'; status?: number; cacheControl?: string }

export interface Program {
  readonly wire: 'HTTP/1.1' | 'HTTP/1.0' | 'HTTP/2'
  readonly method: 'GET' | 'HEAD'
  readonly storeMs: 0 | 5 | 50
  /** What is done to the response before the middleware has it. */
  readonly before: readonly Step[]
  readonly steps: readonly Step[]
}

/** What the handler saw. */
export interface Seen {
  /** Of each step: its result or the code of what it threw, and what the response says of itself then. */
  readonly steps: unknown[]
  /** The callbacks of the first answer, in the order in which they were called. */
  readonly callbacks: string[]
  /** Those of what came after it. */
  readonly lateCallbacks: string[]
  readonly errors: string[]
  /** Whether the session was changed while there was a head to put a cookie in. */
  changedInTime: boolean
  wasDestroyed: boolean
  /** Whether it was destroyed after its end. */
  wasDestroyedLate: boolean
}

// --- Programs at random ---

const NAMES = ['x-a', 'X-B', 'x-c']
const name = fc.constantFrom(...NAMES)
const value = fc.constantFrom<string | string[]>('1', '2', ['1', '2'])
const status = fc.constantFrom(200, 201, 404)
const callback = { hasCallback: fc.boolean() }

/** Where there are headers already, Node 20 keeps the last of these. */
const TWICE: unknown[] = [200, ['x-d', 'h', 'x-d', 'i']]
const HEADS: readonly unknown[][] = [
  [201],
  ['202'],
  [203, { 'x-a': 'h' }],
  [203, { 'X-A': 'h', 'x-c': ['h', 'i'] }],
  [404, undefined, { 'x-b': 'h' }],
  [200, ['x-a', 'h', 'x-d', 'i']],
  TWICE,
  [200, []],
  [200, { 'content-type': 'text/plain', 'cache-control': 'public' }],
]
/** Some versions of Node refuse the first of these. */
const BAD_HEADS: readonly unknown[][] = [
  [200, [['x-d', 'h']]],
  [200, ['x-d']],
  [200, { 'x-a': undefined }],
  [200, { 'x a': 'h' }],
  [99],
  ['text'],
  [1000],
]
const HEADS_HTTP1 = [...HEADS, [200, 'Fine'], [200, 'Fine', { 'x-a': 'h' }], [204], [304], ...BAD_HEADS]

function step(isHttp1: boolean): fc.Arbitrary<Step> {
  // Over HTTP/2, Node 20 sends something else for an empty text among others.
  const empty = isHttp1 ? [''] : []
  const write = fc.oneof(
    fc.record({ do: fc.constant('write' as const), chunk: fc.constantFrom('ab', 'c', ...empty), ...callback }),
    fc.record({
      do: fc.constant('write' as const),
      chunk: fc.constant('de'),
      isBuffer: fc.constant(true),
      ...callback,
    }),
    fc.record({
      do: fc.constant('write' as const),
      chunk: fc.constant('Zg=='),
      encoding: fc.constant('base64'),
      ...callback,
    }),
  )
  const end = fc.oneof(
    fc.record({ do: fc.constant('end' as const), ...callback }),
    fc.record({ do: fc.constant('end' as const), chunk: fc.constantFrom('yz', ...empty), ...callback }),
    fc.record({ do: fc.constant('end' as const), chunk: fc.constant('x'), isBuffer: fc.constant(true), ...callback }),
    fc.record({
      do: fc.constant('end' as const),
      chunk: fc.constant('dw=='),
      encoding: fc.constant('base64'),
      ...callback,
    }),
  )
  const plain = (...names: Bare[]): fc.Arbitrary<Step> => fc.constantFrom(...names.map((it) => ({ do: it })))
  const all: { weight: number; arbitrary: fc.Arbitrary<Step> }[] = [
    { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('set' as const, 'append' as const), name, value }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), name }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('status' as const), status }) },
    {
      weight: 4,
      arbitrary: fc
        .constantFrom(...(isHttp1 ? HEADS_HTTP1 : HEADS))
        .map((args) => ({ do: 'writeHead' as const, args })),
    },
    { weight: 7, arbitrary: write },
    { weight: 5, arbitrary: end },
    { weight: 2, arbitrary: plain('flushHeaders') },
    { weight: 1, arbitrary: plain('destroy') },
    { weight: 5, arbitrary: plain('tick', 'tick', 'tick', 'pause') },
    { weight: 6, arbitrary: plain('read', 'change', 'change') },
    { weight: 2, arbitrary: plain('pipe') },
    { weight: 4, arbitrary: wrapper() },
  ]
  if (isHttp1)
    all.push({
      weight: 1,
      arbitrary: fc.constantFrom<Step>(...[5, null, undefined].map((chunk) => ({ do: 'write' as const, chunk }))),
    })
  return fc.oneof(...all)
}

function wrapper(): fc.Arbitrary<Step> {
  return fc.oneof(
    fc.constantFrom<Step>({ do: 'log' }, { do: 'suffix' }, { do: 'prototype' }),
    fc.constantFrom<Step>(
      { do: 'listen' },
      { do: 'listen', status: 207 },
      { do: 'listen', cacheControl: 'public, max-age=60' },
    ),
  )
}

export const programs: fc.Arbitrary<Program> = fc
  .constantFrom('HTTP/1.1' as const, 'HTTP/1.1' as const, 'HTTP/1.0' as const, 'HTTP/2' as const)
  .chain((wire) =>
    fc.record({
      wire: fc.constant(wire),
      method:
        wire === 'HTTP/2'
          ? fc.constant('GET' as const)
          : fc.constantFrom('GET' as const, 'GET' as const, 'HEAD' as const),
      storeMs: fc.constantFrom(0 as const, 5 as const, 50 as const),
      before: fc.array(fc.oneof(wrapper(), fc.constant<Step>({ do: 'set', name: 'x-before', value: '1' })), {
        maxLength: 2,
      }),
      steps: fc.array(step(wire !== 'HTTP/2'), { minLength: 1, maxLength: 9 }),
    }),
  )
  .map((program) => ({ ...program, steps: program.steps.filter((step, at) => !isApart(step, at, program)) }))

/** What docs/limits.md says that wrappers see otherwise. */
function isApart(step: Step, at: number, { before, steps }: Program): boolean {
  if (step.do === 'prototype') return steps.slice(0, at).some((other) => other.do === 'log' || other.do === 'suffix')
  if (step.do !== 'writeHead' || ![...BAD_HEADS, TWICE].includes(step.args)) return false
  return [...before, ...steps].some((other) => other.do === 'listen')
}

// --- A run ---

export class Run {
  readonly seen: Seen = {
    steps: [],
    callbacks: [],
    lateCallbacks: [],
    errors: [],
    changedInTime: false,
    wasDestroyed: false,
    wasDestroyedLate: false,
  }
  readonly #program: Program
  readonly #res: Response
  readonly #isHttp2: boolean

  constructor(program: Program, res: Response) {
    this.#program = program
    this.#res = res
    this.#isHttp2 = program.wire === 'HTTP/2'
    res.on('error', (error: { code?: string }) => this.seen.errors.push(String(error.code)))
    for (const step of program.before) this.#take(step, null)
  }

  /** The handler; without a session on plain Node. Ends the response if the steps do not. */
  async handle(session: Session | null): Promise<void> {
    const { seen } = this
    for (const [index, step] of this.#program.steps.entries()) {
      if (seen.wasDestroyed) break
      let result: unknown
      try {
        result = this.#take(step, session, index)
        if (result instanceof Promise) result = await result
      } catch (error) {
        result = (error as { code?: string }).code ?? String(error)
      }
      // The client of a HEAD request is served with the head: what a write finds depends on when it hangs up.
      if (this.#program.method === 'HEAD' && typeof result === 'boolean') result = null
      this.#note(step, result)
    }
    if (!seen.wasDestroyed && !this.#res.writableEnded) this.#note('end', this.#res.end('.'))
  }

  #note(step: unknown, result: unknown): void {
    const { headersSent, writableEnded, finished } = this.#res
    const said = result === this.#res ? 'res' : typeof result === 'object' ? 'object' : result
    this.seen.steps.push(JSON.stringify([step, said, headersSent, writableEnded, finished]))
  }

  #take(given: Step, session: Session | null, index = -1): unknown {
    const res = this.#res
    // Node appends to the lists that it is given.
    const step = structuredClone(given)
    switch (step.do) {
      case 'set':
        return void res.setHeader(step.name, step.value)
      case 'append':
        return void res.appendHeader(step.name, step.value)
      case 'remove':
        return res.removeHeader(step.name)
      case 'status':
        // After the head it is without effect, but plain Node remembers it.
        if (!res.headersSent) res.statusCode = step.status
        return undefined
      case 'writeHead':
        // Over HTTP/2 it depends on the time whether Node throws then.
        if (this.#isHttp2 && res.writableEnded) return undefined
        return (res.writeHead as Method)(...step.args)
      case 'write':
      case 'end':
        return this.#send(step, index)
      case 'flushHeaders':
        return res.flushHeaders()
      case 'destroy':
        // Of a response that has ended, plain Node has sent what there is, or as much as the connection took.
        if (res.writableEnded) this.seen.wasDestroyedLate = true
        else this.seen.wasDestroyed = true
        return void res.destroy()
      case 'tick':
        return new Promise<void>((resolve) => setImmediate(resolve))
      case 'pause':
        return new Promise<void>((resolve) => setTimeout(resolve, 2))
      case 'read':
        session?.get('any')
        return undefined
      case 'change':
        if (!res.headersSent) this.seen.changedInTime = true
        session?.set('changed', index)
        return undefined
      case 'pipe':
        return this.#pipe()
      case 'log':
        return this.#wrap('end', (end, args) => end(...args))
      case 'suffix':
        return this.#wrap('end', (end, args) => {
          if (res.writableEnded) return end(...args)
          const at = args.findIndex((arg) => typeof arg === 'function')
          const given = at < 0 ? args : args.slice(0, at)
          if (given[0]) (res.write as Method)(...given)
          return at < 0 ? end('!') : end('!', args[at])
        })
      case 'prototype':
        return this.#changePrototype()
      case 'listen':
        return this.#listen(step)
    }
  }

  #send(step: Extract<Step, { do: 'write' | 'end' }>, index: number): unknown {
    const res = this.#res
    const args: unknown[] = []
    if ('chunk' in step) args.push(step.isBuffer ? Buffer.from(String(step.chunk)) : step.chunk)
    if (step.encoding !== undefined) args.push(step.encoding)
    const wasEnded = res.writableEnded
    if (step.hasCallback) args.push((error?: { code?: string }) => this.#called(index, step, wasEnded, error))
    // Plain Node breaks the stream of a response that has left.
    if (this.#isHttp2 && wasEnded && (step.do === 'write' || step.chunk)) return step.do === 'write' ? false : res
    return (res[step.do] as Method)(...args)
  }

  #called(index: number, step: { do: string; chunk?: unknown }, wasEnded: boolean, error?: { code?: string }): void {
    if (!wasEnded) this.seen.callbacks.push(`${index} ${step.do} ${error?.code}`)
    // With a chunk, it depends on the time whether plain Node calls it; without, whether it calls it an error.
    else if (step.do === 'write') this.seen.lateCallbacks.push(`${index} ${error?.code}`)
    else if (!step.chunk) this.seen.lateCallbacks.push(`${index}`)
  }

  /** Small chunks, and the end. */
  async #pipe(): Promise<void> {
    const res = this.#res
    if (res.writableEnded) return
    const source = Readable.from(['p', 'q'])
    source.on('error', () => {})
    source.pipe(res)
    for (let turn = 0; turn < 20 && !res.writableEnded; turn++)
      await new Promise<void>((resolve) => setImmediate(resolve))
  }

  #wrap(name: keyof Methods, wrap: (method: Method, args: unknown[]) => unknown): void {
    const res = this.#res as unknown as Methods
    const method = res[name]
    res[name] = function (this: unknown, ...args: unknown[]) {
      return wrap((...given) => method.apply(this, given), args)
    }
  }

  /** As the package on-headers does. */
  #listen({ status, cacheControl }: Extract<Step, { do: 'listen' }>): void {
    const res = this.#res
    let hasFired = false
    this.#wrap('writeHead', (writeHead, args) => {
      if (hasFired) return writeHead(...args)
      hasFired = true
      if (res.headersSent) return writeHead(...args)
      res.setHeader('x-listener', '1')
      if (cacheControl !== undefined) res.setHeader('cache-control', cacheControl)
      if (status === undefined) return writeHead(...args)
      return writeHead(status, ...args.slice(1))
    })
  }

  #changePrototype(): void {
    const node = (this.#isHttp2 ? Http2ServerResponse : ServerResponse).prototype as unknown as Methods
    const prototype = Object.create(node) as Methods
    prototype.end = function (this: Response, ...args: unknown[]) {
      if (!this.headersSent) this.setHeader('x-prototype', '1')
      return node.end.apply(this, args)
    }
    Object.setPrototypeOf(this.#res, prototype)
  }
}
