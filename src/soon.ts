// Answers that may be there at once. What waits for nothing takes no promise, no timer and no turn of the event loop.

/** A value, or a promise of it. */
export type Soon<T> = T | Promise<T>

/** Whether there is something to wait for. */
export function isPromise<T>(answer: Soon<T>): answer is Promise<T> {
  return answer instanceof Promise
}

/** What comes of an answer: at once, if it is there. */
export function after<T, R>(answer: Soon<T>, take: (value: T) => Soon<R>): Soon<R> {
  return isPromise(answer) ? answer.then(take) : take(answer)
}

/** Calls a function of the application that answers instead of `next(error)`: what it throws, or rejects with, goes to `next` as well. */
export function answerInstead(answer: () => unknown, next: (error?: unknown) => void): void {
  try {
    const returned = answer()
    // Not from within the promise, which would take what `next` throws.
    if (returned instanceof Promise) returned.catch((failure) => process.nextTick(next, failure))
  } catch (failure) {
    next(failure)
  }
}
