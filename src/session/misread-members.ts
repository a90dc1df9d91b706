// In development: tells of members that were meant as fields. A method that is read as a flag, as in `if (!req.session.login)`, is
// true for everybody, and nothing else would say so. In production (`NODE_ENV`) nothing of this runs.
import { warn } from '../warn.js'
import { type SessionHost, type SessionState, STATE } from './state.js'

/** Whether reading a member is watched at all. */
export const WATCHES_MEMBERS = process.env['NODE_ENV'] !== 'production'

type Method = (...args: unknown[]) => unknown

/** A method that was read in one request. */
interface Reading {
  /** Times that it was read and not called yet. */
  count: number
  /** Where it was read last. */
  readonly at: { stack?: string }
}

const readings = new WeakMap<SessionHost, Map<string, Reading>>()
const standIns = new WeakMap<object, Method>()
/** One warning for a name: code that is wrong is so each time. */
const told = new Set<string>()

/** Notes that `method` was read, by the code that called `trap`. Returns what to give for it, which notes that it is called. */
export function watched(state: SessionState, name: string, method: object, trap: () => unknown): unknown {
  if (told.has(name)) return method
  let ofRequest = readings.get(state.host)
  if (ofRequest === undefined) {
    ofRequest = new Map()
    readings.set(state.host, ofRequest)
  }
  const at = {}
  Error.captureStackTrace(at, trap)
  ofRequest.set(name, { count: (ofRequest.get(name)?.count ?? 0) + 1, at })
  return standInFor(name, method as Method)
}

/** The same function for all sessions, as the method is. */
function standInFor(name: string, method: Method): Method {
  let standIn = standIns.get(method)
  if (standIn === undefined) {
    standIn = function (this: unknown, ...args: unknown[]): unknown {
      const reading = readings
        .get((this as { [STATE]?: SessionState } | undefined)?.[STATE]?.host as SessionHost)
        ?.get(name)
      if (reading !== undefined) reading.count--
      return method.apply(this, args)
    }
    Object.defineProperty(standIn, 'name', { value: name })
    standIns.set(method, Object.freeze(standIn))
  }
  return standIn
}

/**
 * Warns of the methods that this request has read and not called. To be called when it has been answered with success: an
 * error may have come between reading a method and calling it, as in `session.set('user', await find())`.
 */
export function tellUncalled(host: SessionHost): void {
  for (const [name, { count, at }] of readings.get(host) ?? []) {
    if (count <= 0) continue
    tellOnce(
      name,
      `req.session.${name} was read, and not called: it is a method of every session, so it is true for everybody. ` +
        `${instead(name)}${callerOf(at)}`,
    )
  }
}

/** Warns that a member was read by the code that called `trap`, where the session has a field of that name, too. */
export function tellShadowed(name: string, trap: () => unknown): void {
  if (told.has(name)) return
  const at = {}
  Error.captureStackTrace(at, trap)
  tellOnce(
    name,
    `req.session.${name} is a member of every session, not the field of that name. ${instead(name)}${callerOf(at)}`,
  )
}

function tellOnce(name: string, message: string): void {
  if (told.has(name)) return
  told.add(name)
  warn(message, 'misread_member')
}

function instead(name: string): string {
  const field = `A field "${name}" is read by req.session.get('${name}').`
  const isOfUser = name === 'login' || name === 'logout' || name === 'id'
  return isOfUser ? `Who is logged in says req.session.metadata.userId. ${field}` : field
}

function callerOf({ stack }: { stack?: string }): string {
  const frame = stack?.split('\n').find((line) => /^\s+at /.test(line))
  return frame === undefined ? '' : ` Read ${frame.trim()}`
}
