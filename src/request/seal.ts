// What everybody but the gate sees of a response while its head or its end waits behind the gate: what they would see if it
// had left. Each function returns what takes the pretence away.
import { OutgoingMessage } from 'node:http'
import type { Target } from './http-response.js'

/** From here on the head is to everybody as if it had left: `headersSent` is true, changing it is an error. */
export function sealHead(res: Target): () => void {
  return res instanceof OutgoingMessage ? sealHeadHttp1(res) : sealHeadHttp2(res)
}

/**
 * Node decides by `_header`, the rendered head, whether the head has left: with a stand-in there, `headersSent` is true,
 * and changing a header is an error. A status that is set now is without effect, as it would be. In Bun the stand-in makes changing
 * a header an error, but `headersSent` goes by something else.
 */
function sealHeadHttp1(res: OutgoingMessage): () => void {
  const sealed = res as unknown as Target & { _header: string | null }
  const { statusCode, statusMessage } = sealed
  sealed._header = ' '
  const reveal = sealed.headersSent ? undefined : feign(res, 'headersSent')
  return () => {
    sealed._header = null
    reveal?.()
    if (sealed.statusCode !== statusCode) sealed.statusCode = statusCode
    if (sealed.statusMessage !== statusMessage) sealed.statusMessage = statusMessage
  }
}

/** The same for HTTP/2, where the state is out of reach. */
function sealHeadHttp2(res: Target): () => void {
  const { statusCode } = res
  const refuse = (): never => {
    throw headersSentError(res, 'set')
  }
  const reveal = [
    cover(res, 'setHeader', () => refuse),
    cover(res, 'appendHeader', () => refuse),
    cover(res, 'removeHeader', () => refuse),
    feign(res, 'headersSent'),
  ]
  return () => {
    for (const undo of reveal) undo()
    if (res.statusCode !== statusCode) res.statusCode = statusCode
  }
}

/**
 * From here on the end is to everybody as if it had been written: `writableEnded` and `finished` are true, and whoever
 * destroys the response or its connection now finds the answer gone ahead: `defer` gets what is to be done after it.
 */
export function sealEnd(res: Target, defer: (destroy: () => void) => void): () => void {
  return res instanceof OutgoingMessage ? sealEndHttp1(res, defer) : sealEndHttp2(res, defer)
}

function sealEndHttp1(res: OutgoingMessage, defer: (destroy: () => void) => void): () => void {
  const sealed = res as unknown as Target & { finished: boolean; destroyed: boolean; closed: boolean }
  const { socket } = sealed
  let isDestroyAsked = false
  sealed.finished = true
  const reveal = [
    cover(sealed, 'destroy', (destroy) => (error) => {
      if (!sealed.destroyed) {
        isDestroyAsked = true
        sealed.destroyed = true
        defer(() => destroy.call(sealed, error))
      }
      return sealed
    }),
    socket === null
      ? // An earlier answer is still on the connection. Node takes one that is finished off it when its turn comes.
        cover(sealed as unknown as { _finish: Method }, '_finish', () => () => {})
      : // Also the final handlers of Express and Connect do that, when an error comes after the answer.
        cover(socket as unknown as { destroy: Method }, 'destroy', (destroy) => (error) => {
          if (error) destroy.call(socket, error)
          else defer(() => destroy.call(socket))
          return socket
        }),
  ]
  return () => {
    for (const undo of reveal) undo()
    sealed.finished = false
    if (isDestroyAsked && !sealed.closed) sealed.destroyed = false
  }
}

function sealEndHttp2(res: Target, defer: (destroy: () => void) => void): () => void {
  const reveal = [
    feign(res, 'writableEnded'),
    feign(res, 'finished'),
    cover(res, 'destroy', (destroy) => (error) => defer(() => destroy.call(res, error))),
  ]
  return () => {
    for (const undo of reveal) undo()
  }
}

/** How long a response that was destroyed after its end may take to leave. */
const LINGER_MS = 1_000

/** Does what was deferred: an answer that has ended is given the time to leave, unless its client does not read it. */
export function destroyAfterAnswer(res: Target, tasks: readonly (() => void)[]): void {
  const destroy = (): void => {
    clearTimeout(timer)
    res.off('finish', destroy)
    for (const task of tasks) task()
  }
  const timer = setTimeout(destroy, LINGER_MS).unref()
  if (res.writableFinished) destroy()
  else res.on('finish', destroy)
}

/** Calls `look` at the very last moment for headers: when Node renders the head, after whoever else has such a moment. */
export function whenHeadIsRendered(res: Target, look: () => void): void {
  const isHttp1 = res instanceof OutgoingMessage
  const renderer = (isHttp1 ? res : res.stream) as unknown as Record<string, Method>
  const uncover = cover(renderer, isHttp1 ? '_storeHeader' : 'respond', (render) => (...args) => {
    uncover()
    look()
    return render.apply(renderer, args)
  })
}

type Method = (...args: unknown[]) => unknown

/**
 * Puts another method over one. What is returned takes it away: a cover that somebody has covered in turn stays, and lets through.
 * An object that had no such method of its own keeps one that does what its prototype says: V8 makes an object from which
 * something is deleted slow for good, and a socket lives on.
 */
function cover<Name extends string>(
  target: Record<Name, Method> | Target,
  name: Name,
  make: (covered: Method) => Method,
): () => void {
  const object = target as Record<string, Method>
  const covered = Object.hasOwn(object, name) ? (object[name] as Method) : inheritedMethod(name)
  let current = make(covered)
  const method = function (this: unknown, ...args: unknown[]): unknown {
    return current.apply(this, args)
  }
  object[name] = method
  return () => {
    current = covered
    if (object[name] === method) object[name] = covered
  }
}

const inheritedMethods = new Map<string, Method>()

/** Does what the prototype of the object says at that time. */
function inheritedMethod(name: string): Method {
  let method = inheritedMethods.get(name)
  if (method === undefined) {
    method = function (this: object, ...args: unknown[]): unknown {
      let from = Object.getPrototypeOf(this) as Record<string, Method>
      // `this` may be an object that was made of the one that has this method.
      while (Object.hasOwn(from, name) && from[name] === method) from = Object.getPrototypeOf(from)
      return from[name]?.apply(this, args)
    }
    inheritedMethods.set(name, method)
  }
  return method
}

/** Makes a getter that the prototype has say `true`. */
function feign(target: object, name: string): () => void {
  Object.defineProperty(target, name, { configurable: true, get: () => true })
  return () => delete (target as Record<string, unknown>)[name]
}

/** The error that Node throws for a head that has left. */
export function headersSentError(res: Target, what: 'set' | 'write'): Error {
  return res instanceof OutgoingMessage
    ? coded('ERR_HTTP_HEADERS_SENT', `Cannot ${what} headers after they are sent to the client`)
    : coded('ERR_HTTP2_HEADERS_SENT', 'Response has already been initiated.')
}

/** The error that Node gives to the callback of what is written after `end()`. */
export function writeAfterEndError(): Error {
  return coded('ERR_STREAM_WRITE_AFTER_END', 'write after end')
}

function coded(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}
