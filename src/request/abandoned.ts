// A handler that has died of an error of ours, unanswered: Express 4 and Connect do not look at the promise of an `async`
// handler, so that its client would wait for ever. No timer can tell such a handler from a slow one; that nobody has taken the
// rejection can.
//
// Node asks `unhandledRejection` listeners what to do, and without any ends the process. That is the application's choice and
// stays so: we listen only while the application does, or hear of the exception that it survives, and never in between.
import type { HttpResponse } from './http-response.js'

interface Watch {
  readonly answers: Set<() => void>
  /** How many promises have been rejected with this error that nobody looks at. */
  unhandled: number
}

/** By error: several requests that waited for one store call fail with the same. */
const watched = new Map<unknown, Watch>()

/** Calls `answer`, a turn of the event loop later, if nobody handles a rejection with `error` until the response is closed. */
export function whenUnhandled(error: unknown, res: HttpResponse, answer: () => void): void {
  if (isClosed(res)) return
  const watch = watched.get(error) ?? { answers: new Set(), unhandled: 0 }
  watched.set(error, watch)
  watch.answers.add(answer)
  listen()
  res.once('close', () => {
    watch.answers.delete(answer)
    if (watch.answers.size === 0) watched.delete(error)
    if (watched.size === 0) stopListening()
  })
}

/** Of such a response nothing is told any more, and nobody waits for it. */
function isClosed(res: HttpResponse): boolean {
  const { destroyed, stream } = res as { destroyed?: boolean; stream?: { destroyed: boolean } }
  return destroyed === true || stream?.destroyed === true
}

function listen(): void {
  stopListening()
  process.on('uncaughtExceptionMonitor', onException)
  if (process.listenerCount('unhandledRejection') > 0) process.on('unhandledRejection', onRejection)
}

function stopListening(): void {
  process.off('uncaughtExceptionMonitor', onException)
  process.off('unhandledRejection', onRejection)
}

function onRejection(error: unknown): void {
  // The application has stopped listening meanwhile: what Node does then is to throw it.
  if (process.listenerCount('unhandledRejection') === 1) throw error
  tell(error)
}

/** Only observes. Where nobody catches the exception, the process ends, and its connections with it. */
function onException(error: unknown): void {
  if (process.listenerCount('uncaughtException') > 0) tell(error)
}

function tell(error: unknown): void {
  const watch = watched.get(error)
  if (watch === undefined) return
  watch.unhandled++
  // Whose promise it was cannot be said, but when they all are.
  if (watch.unhandled < watch.answers.size) return
  for (const answer of watch.answers) setImmediate(answer)
}
