// Sessions that are bound to a device: `sojourn/device-bound`, the server's side of Device Bound Session Credentials (W3C draft).
//
// After a login the browser makes a key that does not leave the device, and registers its public half. From then on the session takes
// a second cookie, which lives for minutes, and which the browser gets anew for a proof that it has the key. Who copies all cookies
// is in until that cookie is over.
import { invalidArgument, invalidOption, SessionError } from '../../errors.js'
import type { SessionManager, SessionMiddleware } from '../../manager/manager.js'
import { Recent } from '../../recent.js'
import { getSession } from '../../request/current-session.js'
import { type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { answerInstead } from '../../soon.js'
import { type Device, deviceIn, isDeviceUnreadable, registrationIn } from './device.js'
import {
  type DeviceBoundOptions,
  type DeviceRequest,
  type DeviceRules,
  originOf,
  pathnameOf,
  resolveRules,
} from './options.js'
import type { DeviceAlgorithm } from './proof.js'
import {
  GRACE_MS,
  type RouteAnswer,
  refresh,
  register,
  registeringOrigins,
  registrationOffer,
  UNKNOWN,
  UNPROVEN,
} from './routes.js'
import { BoundCookies, PURPOSE } from './sealed.js'

export type { DeviceBoundOptions, DeviceRequest } from './options.js'
export type { DeviceAlgorithm } from './proof.js'

/**
 * What a request proves. `'unbound'`: its session has no key, because it is no login's, its browser knows nothing of keys, or has
 * not registered one yet. `'bound'`: it has a key, and the request comes with the bound cookie. `'unproven'`: it has a key, and the
 * request comes without.
 */
export type DeviceStatus = 'unbound' | 'bound' | 'unproven'

/** What is known of the device that a session is bound to. */
export interface BoundDevice {
  readonly status: DeviceStatus
  /** When the key was registered; `undefined` when there is none. */
  readonly boundAt: Date | undefined
  /** When the browser last proved that it has the key. */
  readonly provedAt: Date | undefined
  readonly algorithm: DeviceAlgorithm | undefined
}

/** What `requireDevice()` takes. */
export interface RequireDeviceOptions {
  /**
   * What becomes of a session without a key: that of a browser that knows nothing of keys, for example. `'pass'` lets it through.
   * @default 'refuse'
   */
  unbound?: 'refuse' | 'pass' | undefined
  /**
   * Called instead of `next(error)` when a request is refused, to answer it. It may be `async`.
   * @default an error `DEVICE_UNPROVEN` with status 401 goes to `next`
   */
  // A method, so that Express's own type of request fits.
  onRefused?(req: DeviceRequest, res: object, next: (error?: unknown) => void): unknown
}

/** Middleware that lets a request through or does not. */
export type DeviceGuard = (req: DeviceRequest, res: object, next: (error?: unknown) => void) => void

/** The rules of the sessions that tell these events. */
const rulesOf = new WeakMap<object, Rules>()

interface Rules extends DeviceRules {
  readonly cookies: BoundCookies
}

/**
 * Sessions that a copy of the cookies does not take over, in browsers that can do that (Chromium). Mount it in the place of
 * `session()`, before everything else: it answers two routes of its own, which no rate limit, no CSRF check and no redirect to a
 * login page may answer.
 *
 * ```ts
 * app.use(deviceBound(session({ secret }), { except: ['/login', '/logout'] }))
 * ```
 *
 * Over HTTPS, the response to a `login()` offers the browser to register a key. A session is `unbound` until it has done so, and
 * never again afterwards; a second key is refused. The key ends with the session and with the next `login()`, and goes along with
 * `renew()`, `reauthenticate()` and `regenerate({ keep: true })`. Browsers that cannot do that go on as they are.
 * @param sessions what `session()` returned, or a `SessionManager`
 * @throws {SessionError} `INVALID_OPTION`
 */
export function deviceBound(
  sessions: SessionMiddleware | SessionManager,
  options: DeviceBoundOptions = {},
): SessionMiddleware {
  const manager = 'manager' in sessions ? sessions.manager : sessions
  if (typeof manager?.middleware !== 'function') {
    throw invalidOption('deviceBound() needs what session() returned, or a SessionManager.')
  }
  const rules: Rules = { ...resolveRules(options, manager), cookies: new BoundCookies() }
  const { events, store } = manager
  if (rulesOf.has(events)) throw invalidOption('deviceBound() has been called for these sessions already.')
  rulesOf.set(events, rules)
  const attach = manager.middleware()
  const logins = new Recent<true>()
  events.on('login', ({ id }) => logins.set(id, true))

  const offer = (req: DeviceRequest, res: object): void => {
    const session = getSession(req)
    if (session === undefined || logins.get(session.id) === undefined) return
    logins.delete(session.id)
    if (!inside(session).isHttps() || rules.origins?.has(originOf(req) ?? '') === false) return
    ;(res as Response).setHeader('Secure-Session-Registration', registrationOffer(session, rules))
    events.emit('deviceOffered', { id: session.id, userId: session.metadata.userId })
  }

  const deviceBoundMiddleware: DeviceGuard = (req, res, next) => {
    if (rules.origins !== undefined && isWellKnown(req) && isAnswerable(req, res)) {
      answerWith(res as Response, registeringOrigins(rules.origins))
      return
    }
    const route = isAnswerable(req, res) ? routeOf(req, rules) : null
    if (route !== null) {
      const answer = (given: RouteAnswer): void => answerWith(res as Response, given)
      // Not to `next`, whatever fails: an error page might make the browser forget its key.
      attach(req, res, (error) => {
        const session = getSession(req)
        if (error !== undefined || session === undefined) answer(UNKNOWN)
        else route(session, req, { rules, manager }).then(answer, () => answer(UNKNOWN))
      })
      return
    }
    attach(req, res, (error) => {
      const session = error === undefined ? getSession(req) : undefined
      if (session === undefined) {
        next(error)
        return
      }
      let isRefused: boolean
      try {
        const within = inside(session)
        within.beforeHead(() => offer(req, res))
        // Asked for in any case: it also makes known which drawer ends with a login.
        const isUnproven = statusOf(req, session, within, rules) === 'unproven'
        isRefused = isUnproven && rules.refuses && !rules.isExcepted(req)
      } catch (failure) {
        // A function of the application failed.
        next(failure)
        return
      }
      if (isRefused) refuse({ req, res, next, onRefused: rules.onRefused }, session, 'no-proof')
      else next()
    })
  }
  return Object.freeze(Object.assign(deviceBoundMiddleware, { events, store, manager }))
}

/**
 * Lets a request through when its session is bound to a device and the request proves it: for what no browser may do without. Mount
 * it behind `deviceBound()`.
 *
 * Otherwise `next` gets a `SessionError` `DEVICE_UNPROVEN` with status 401.
 *
 * ```ts
 * app.post('/transfer', requireDevice(), transfer)
 * ```
 * @throws {SessionError} `INVALID_OPTION`
 */
export function requireDevice(options: RequireDeviceOptions = {}): DeviceGuard {
  const { unbound = 'refuse', onRefused, ...others } = options
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw invalidOption(`requireDevice() has no option "${unknown}".`)
  if (unbound !== 'refuse' && unbound !== 'pass') {
    throw invalidOption(`unbound is ${JSON.stringify(unbound)}; use 'refuse' or 'pass'.`)
  }
  if (onRefused !== undefined && typeof onRefused !== 'function') throw invalidOption('onRefused is not a function.')
  return function deviceGuard(req, res, next) {
    const session = getSession(req)
    const rules = session && rulesOf.get(inside(session).events)
    if (session === undefined || rules === undefined) {
      next(invalidOption('requireDevice() runs behind deviceBound(); its session is not there.'))
      return
    }
    const status = statusOf(req, session, inside(session), rules)
    if (status === 'bound' || (status === 'unbound' && unbound === 'pass')) next()
    else refuse({ req, res, next, onRefused }, session, status === 'unbound' ? 'unbound' : 'no-proof')
  }
}

/**
 * What is known of the device that the session of a request is bound to.
 * @throws {SessionError} `INVALID_ARGUMENT` for a request that did not come through `deviceBound()`
 */
export function deviceOf(req: DeviceRequest): BoundDevice {
  const session = getSession(req)
  const rules = session && rulesOf.get(inside(session).events)
  if (session === undefined || rules === undefined) {
    throw invalidArgument('deviceOf() needs a request behind deviceBound(), such as req.')
  }
  const within = inside(session)
  const device = deviceIn(within)
  return {
    status: statusOf(req, session, within, rules),
    boundAt: device && new Date(device.boundAt),
    provedAt: device && new Date(device.provedAt),
    algorithm: device?.algorithm,
  }
}

/** Whether there is a response to answer with: a WebSocket's handshake, whatever its method, has none, or a stand-in. */
function isAnswerable(req: DeviceRequest, res: object): boolean {
  return (req as { upgrade?: boolean }).upgrade !== true && typeof (res as Partial<Response>).end === 'function'
}

function isWellKnown(req: DeviceRequest): boolean {
  return req.method === 'GET' && pathnameOf(req) === '/.well-known/device-bound-sessions'
}

function routeOf(req: DeviceRequest, { registrationPath, refreshPath }: DeviceRules): typeof refresh | null {
  if (req.method !== 'POST') return null
  switch (pathnameOf(req)) {
    case registrationPath:
      return register
    case refreshPath:
      return refresh
    default:
      return null
  }
}

/** The members of a response that are called here. */
interface Response {
  statusCode: number
  readonly headersSent: boolean
  setHeader(name: string, value: string): unknown
  appendHeader(name: string, value: string): unknown
  end(body?: string): unknown
}

function answerWith(res: Response, { status, headers, body }: RouteAnswer): void {
  if (res.headersSent) return
  res.statusCode = status
  res.setHeader('Cache-Control', 'no-store')
  for (const [name, value] of Object.entries(headers)) {
    if (name === 'Set-Cookie') res.appendHeader(name, value)
    else res.setHeader(name, value)
  }
  res.end(body)
}

function statusOf(req: DeviceRequest, session: Session, within: Inside, { cookieName, cookies }: Rules): DeviceStatus {
  if (session.isNew) return 'unbound'
  const device = registrationIn(within)
  // What cannot be read was bound.
  if (device === undefined) return isDeviceUnreadable(within) ? 'unproven' : 'unbound'
  const now = within.now()
  const keys = within.sharedKeys(PURPOSE)
  for (const value of cookiesIn(req.headers.cookie, cookieName)) {
    if (cookies.isGood(keys, device.id, value, now)) return 'bound'
  }
  return isUnderWay(device, now) ? 'unbound' : 'unproven'
}

/** Requests race ahead of a registration, and come when it is done. */
function isUnderWay({ boundAt }: Pick<Device, 'boundAt'>, now: number): boolean {
  return now - boundAt < GRACE_MS
}

/** More are not looked at: each may take a hash. */
const MAX_COOKIES = 10

/**
 * The cookies of that name. Where subdomains can set it, too (`cookie.domain`), one of another may stand before ours; with the prefix
 * `__Host-` there is one at most.
 */
function* cookiesIn(header: string | undefined, name: string): Generator<string> {
  if (header === undefined) return
  const needle = `${name}=`
  let found = 0
  for (let at = header.indexOf(needle); at !== -1; at = header.indexOf(needle, at + 1)) {
    const isStart = at === 0 || header.charAt(at - 1) === ' ' || header.charAt(at - 1) === ';'
    if (!isStart) continue
    const end = header.indexOf(';', at)
    yield header.slice(at + needle.length, end === -1 ? undefined : end)
    if (++found === MAX_COOKIES) return
  }
}

interface Refused {
  readonly req: DeviceRequest
  readonly res: object
  readonly next: (error?: unknown) => void
  readonly onRefused: DeviceBoundOptions['onRefused']
}

function refuse({ req, res, next, onRefused }: Refused, session: Session, reason: 'no-proof' | 'unbound'): void {
  const within = inside(session)
  const id = session.isNew ? undefined : session.id
  within.events.emit('deviceRefused', { id, userId: session.metadata.userId, reason, ...within.request() })
  if (onRefused !== undefined) {
    answerInstead(() => onRefused(req, res, next), next)
    return
  }
  const response = res as Partial<Response>
  if (!response.headersSent) response.setHeader?.('WWW-Authenticate', UNPROVEN)
  next(new SessionError('DEVICE_UNPROVEN', MESSAGES[reason]))
}

const MESSAGES = {
  'no-proof':
    'This session is bound to a device, and the request does not prove that it comes from there. Load the page again; if that does ' +
    'not help, log in again.',
  unbound: 'This needs a session that is bound to a device: log in with a browser that can do that.',
} as const
