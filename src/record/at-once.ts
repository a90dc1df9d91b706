// Methods of a store that need not be waited for. The contract of a store is promises; beside such a method stands a twin that
// does the same and answers at once.
//
// The twin hangs on the method itself: who overrides, wraps or watches the method leaves the twin behind, and is called.

/** One symbol for all copies of this package: the store may come from the other build. */
const TWIN: unique symbol = Symbol.for('sojourn.atOnce')

type Method<Args extends unknown[], T> = (...args: Args) => Promise<T>

/** Does what a method does. `undefined`: this time it takes a promise, so the method is to be called. Throws where that rejects. */
type Twin<Args extends unknown[], T, Store = unknown> = (this: Store, ...args: Args) => T | undefined

/** Gives a method of a store its twin, which is called on the same store. */
export function answersAtOnce<Args extends unknown[], T, Store>(
  method: Method<Args, T>,
  twin: Twin<Args, T, Store>,
): void {
  Object.defineProperty(method, TWIN, { value: twin })
}

export function twinOf<Args extends unknown[], T>(method: Method<Args, T>): Twin<Args, T> | undefined {
  return (method as { [TWIN]?: Twin<Args, T> })[TWIN]
}
