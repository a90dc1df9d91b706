// What is loaded once in a request, whoever asks for it and how often.
//
// The request is the key of a `WeakMap`: what was loaded goes with it, and no other request can find it.
import { IncomingMessage } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import { invalidArgument } from '../../errors.js'
import { presentRequestObject, requestScope, runWithSession } from '../../request-scope.js'

/** A function that loads once in a request for the same arguments, as `perRequest()` makes it. */
export interface PerRequest<Args extends readonly unknown[], T> {
  /**
   * What the loader gives for these arguments: from the load that this request has made or is making, or from one that begins
   * now. Outside of a request the loader is called directly, and nothing is kept.
   */
  (...args: Args): Promise<T>
  /**
   * Forgets what this request has loaded: for these arguments, or, without any, for all. Who asks next loads afresh; who waits
   * for a load under way still gets it. Nothing happens outside of a request.
   */
  clear(...args: Args | []): void
  /** Makes `value` what this request gets for these arguments. Nothing happens outside of a request. */
  prime(value: T, ...args: Args): void
  /**
   * The same function for a given request: for code behind `context: false`, and for callbacks that lose theirs. A request among
   * the arguments has the same effect, and is handed to the loader.
   * @throws {SessionError} `INVALID_ARGUMENT` for what is no object.
   */
  for(req: object): PerRequest<Args, T>
}

/** How `perRequest()` tells arguments apart. */
export interface PerRequestOptions<Args extends readonly unknown[]> {
  /**
   * What stands for the arguments: two calls with the same key are one load. Compared as the keys of a `Map`.
   * @default each argument by itself: text and numbers by their value, objects by their identity
   */
  readonly key?: ((...args: Args) => unknown) | undefined
}

/**
 * Makes of a loader a function that loads once in a request: ten components that ask for the login information make one query.
 *
 * ```ts
 * const loginInfo = perRequest(async () => db.userOf(getSession()?.get('userId')))
 * await loginInfo()   // anywhere in a request: one load
 * ```
 *
 * Who asks while a load is under way shares it. A load that fails is not kept: all who share it get its error, and who asks
 * later loads again. No request sees what another one has loaded, and the next one loads afresh. A request is known where
 * `session()` or `requestContext` has run, whether it has a session or not; with `context: false`, pass it.
 *
 * All who ask get the same object: who changes it changes it for all of the request.
 * @throws {SessionError} `INVALID_ARGUMENT` when `load` is no function.
 */
export function perRequest<Args extends readonly unknown[], T>(
  load: (...args: Args) => T | PromiseLike<T>,
  { key }: PerRequestOptions<Args> = {},
): PerRequest<Args, T> {
  if (typeof load !== 'function') throw invalidArgument('perRequest() needs the function that loads.')
  if (key !== undefined && typeof key !== 'function') {
    throw invalidArgument('perRequest(): key must be a function of the arguments, or be left out.')
  }
  const requests = new WeakMap<object, Loads<T>>()
  const partsOf = (args: readonly unknown[]): readonly unknown[] =>
    key === undefined ? args : [key(...(args as unknown as Args))]

  /** The function for a request that is known, or for the one at hand. */
  function bind(known: object | undefined): PerRequest<Args, T> {
    const requestOf = (args: readonly unknown[]): object | undefined =>
      requestAmong(args) ?? known ?? presentRequestObject()

    const ask = (...args: Args): Promise<T> => {
      const request = requestOf(args)
      if (request === undefined) return begin(load, args)
      let loads = requests.get(request)
      if (loads === undefined) {
        loads = new Loads()
        requests.set(request, loads)
      }
      const place = args.length === 0 && key === undefined ? loads : loads.at(partsOf(args))
      if (place.promise !== undefined) return place.promise
      const promise = begin(load, args)
      place.keep(promise)
      return promise
    }
    const clear = (...args: Args | []): void => {
      const request = requestOf(args)
      if (request === undefined) return
      const given = args.filter((arg) => nodeRequestOf(arg) === undefined)
      if (given.length === 0) requests.delete(request)
      else requests.get(request)?.at(partsOf(args)).forget()
    }
    const prime = (value: T, ...args: Args): void => {
      const request = requestOf(args)
      if (request === undefined) return
      const loads = requests.get(request) ?? new Loads<T>()
      requests.set(request, loads)
      loads.at(partsOf(args)).keep(Promise.resolve(value))
    }
    const bindTo = (req: object): PerRequest<Args, T> => {
      if (typeof req !== 'object' || req === null) throw invalidArgument('for() needs a request.')
      return bind(nodeRequestOf(req) ?? req)
    }
    return Object.assign(ask, { clear, prime, for: bindTo })
  }
  return bind(undefined)
}

/**
 * Middleware that makes the request known to `perRequest()` and `SessionCache` in an application, or a part of one, where
 * `session()` does not run. Where it does, this changes nothing.
 */
export function requestContext(req: object, _res: object, next: () => void): void {
  if (requestScope() !== undefined) next()
  else runWithSession({ session: undefined, request: req }, next)
}

/** What one request has loaded for a row of arguments, and the rows that begin with it. */
class Loads<T> {
  promise: Promise<T> | undefined
  #next: Map<unknown, Loads<T>> | undefined

  /** The place of these arguments. A request is no part of it: it is where they are kept. */
  at(parts: readonly unknown[]): Loads<T> {
    return parts.reduce<Loads<T>>(
      (place, part) => (nodeRequestOf(part) === undefined ? place.#step(part) : place),
      this,
    )
  }

  #step(part: unknown): Loads<T> {
    this.#next ??= new Map()
    let next = this.#next.get(part)
    if (next === undefined) {
      next = new Loads()
      this.#next.set(part, next)
    }
    return next
  }

  /** Keeps a load until it fails, unless it has been cleared or replaced until then. */
  keep(promise: Promise<T>): void {
    this.promise = promise
    promise.catch(() => {
      if (this.promise === promise) this.promise = undefined
    })
  }

  forget(): void {
    this.promise = undefined
  }
}

/** A loader that throws at once fails as one that rejects. */
function begin<Args extends readonly unknown[], T>(
  load: (...args: Args) => T | PromiseLike<T>,
  args: Args,
): Promise<T> {
  return new Promise((resolve) => resolve(load(...args)))
}

function requestAmong(args: readonly unknown[]): object | undefined {
  for (const arg of args) {
    const request = nodeRequestOf(arg)
    if (request !== undefined) return request
  }
  return undefined
}

/** Node's request that a value is or that a framework's request or context stands for: `raw` of Fastify's, `req` of Koa's. */
function nodeRequestOf(value: unknown): object | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (isNodeRequest(value)) return value
  const { raw, req } = value as { raw?: unknown; req?: unknown }
  if (isNodeRequest(raw)) return raw
  return isNodeRequest(req) ? req : undefined
}

function isNodeRequest(value: unknown): value is object {
  return value instanceof IncomingMessage || value instanceof Http2ServerRequest
}
