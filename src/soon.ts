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
