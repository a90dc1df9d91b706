// The object that stands for the request that is being handled, for code that is handed none.
import { AsyncLocalStorage } from 'node:async_hooks'

/** One for all copies of this package: a program may load both builds. */
const SHARED: unique symbol = Symbol.for('sojourn.context')
const shared = globalThis as { [SHARED]?: AsyncLocalStorage<object | undefined> }
shared[SHARED] ??= new AsyncLocalStorage()
const current = shared[SHARED]

/** The object of the request that is being handled, or `undefined` outside of one: a key for a `WeakMap`. */
export function requestScope(): object | undefined {
  return current.getStore()
}

/**
 * The request that is being handled, or `undefined` outside of one: the same object wherever in it, and the one that code with
 * a request in its hands has.
 */
export function presentRequestObject(): object | undefined {
  const scope = current.getStore() as { readonly request?: object } | undefined
  return scope?.request ?? scope
}

/** Runs `task`, and everything that it starts, with `scope` as the object of the request. */
export function runWithSession<T>(scope: object, task: () => T): T {
  return current.run(scope, task)
}

/**
 * Runs `task`, and everything that it starts, outside of any request: for calls of the store, which knows none.
 *
 * Up to Node 22 a promise keeps the context in which it was made, here the whole request. When a store's client makes many,
 * V8 may come to take what they hold for long-lived (pretenuring), and from then on only full collections free a request.
 */
export function runWithoutSession<Arg, T>(task: (arg: Arg) => T, arg: Arg): T {
  return current.getStore() === undefined ? task(arg) : current.run(undefined, task, arg)
}

/** What an activity tells of the request in which it happens. Only where activities are recorded. */
const requests = new AsyncLocalStorage<() => object>()

/** Runs `task`, and everything that it starts, so that `presentRequest()` is what `facts` says. */
export function runForRequest<T>(facts: () => object, task: () => T): T {
  return requests.run(facts, task)
}

/** The facts of the request that is being handled, or `undefined`. */
export function presentRequest(): object | undefined {
  return requests.getStore()?.()
}
