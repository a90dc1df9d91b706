// `req.session` as express-session users know it: fields as properties, `cookie` among them, and the few members that
// express-session has. All others are names of fields.
import { LONGEST_MS } from '../../duration.js'
import { inherited } from '../../session/inherited.js'
import * as life from '../../session/life.js'
import { chooseExpiry, expiresAt, idleTimeoutMs, isPersistent } from '../../session/response-cookie.js'
import type { SessionState } from '../../session/state.js'
import { Cookie, type CookieOptions, OWN_ATTRIBUTES } from './cookie.js'
import { type Callback, DetachedSession } from './detached-session.js'
import { attributesOf, COOKIE_FIELD } from './record-format.js'

/** What a session has to know of its request. */
export interface Attachment {
  readonly req: { session?: unknown; sessionID?: unknown }
  /** Attributes and time of the cookies of this request. */
  readonly cookie: CookieOptions
  /** How long a session without `maxAge` lives, in milliseconds. */
  readonly windowMs: number
  readonly isSecure: boolean
}

/** Where the parts of a session are found behind its proxy. */
const PARTS: unique symbol = Symbol('sojourn.express-session')

/** What stands behind `req.session`. */
export class Parts {
  readonly state: SessionState
  readonly attachment: Attachment
  /** The cookie, once the handler has looked at it, and what it was then. */
  #cookie: Cookie | undefined
  #before = ''
  #expiresBefore: number | null = null
  wantsTouch = false
  /** What JSON has no text for, such as functions: it is there in this request and not stored, as in express-session. */
  passing: Map<string, unknown> | undefined

  constructor(state: SessionState, attachment: Attachment) {
    this.state = state
    this.attachment = attachment
  }

  get cookie(): Cookie {
    if (this.#cookie === undefined) this.#take(this.storedCookie())
    return this.#cookie as Cookie
  }

  /** The handler puts another cookie in its place. */
  replaceCookie(cookie: CookieOptions): void {
    const { cookie: before } = this
    for (const name of OWN_ATTRIBUTES) if (cookie[name] !== undefined) Object.assign(before, { [name]: cookie[name] })
    if (cookie.expires !== undefined) before.expires = cookie.expires ? new Date(cookie.expires) : null
    else if (cookie.maxAge !== undefined) before.maxAge = cookie.maxAge
  }

  /** The cookie as this session has it: the attributes of the middleware, its own, and its end. */
  storedCookie(): Cookie {
    const { state, attachment } = this
    const own = state.fields.get(COOKIE_FIELD) as CookieOptions | undefined
    const cookie = new Cookie({ ...attributesOf(attachment.cookie), ...own })
    if (attachment.cookie.encode) cookie.encode = attachment.cookie.encode
    if (cookie.secure === 'auto') cookie.secure = attachment.isSecure
    if (cookie.sameSite === 'auto') cookie.sameSite = attachment.isSecure ? 'none' : 'lax'
    if (isPersistent(state)) {
      cookie.expires = new Date(expiresAt(state))
      cookie.originalMaxAge = idleTimeoutMs(state)
    }
    return cookie
  }

  /** The cookie that the response is to carry. */
  finalCookie(): Cookie {
    const cookie = this.storedCookie()
    const chosen = this.#cookie?._expires
    // The session ends with its response: the client is told the very time.
    if (chosen && chosen.getTime() <= Date.now()) cookie.expires = chosen
    return cookie
  }

  /** Brings the session in line with what the handler did to the cookie. */
  settleCookie(): void {
    const { state } = this
    const cookie = this.#cookie
    if (cookie === undefined || state.standing !== 'live') return
    const ms = cookie._expires?.getTime() ?? null
    if (ms !== this.#expiresBefore) this.#chooseEnd(cookie)
    const own = JSON.stringify(attributesOf(cookie as CookieOptions))
    if (own !== this.#before) state.fields.set(COOKIE_FIELD, JSON.parse(own))
    this.#remember(cookie)
  }

  /** What was read is no more what is stored. */
  forgetCookie(): void {
    this.#cookie = undefined
  }

  #take(cookie: Cookie): void {
    this.#cookie = cookie
    this.#remember(cookie)
  }

  #remember(cookie: Cookie): void {
    this.#before = JSON.stringify(attributesOf(cookie as CookieOptions))
    this.#expiresBefore = cookie._expires?.getTime() ?? null
  }

  #chooseEnd(cookie: Cookie): void {
    const { originalMaxAge, _expires } = cookie
    if (_expires === null) chooseExpiry(this.state, { idleMs: this.attachment.windowMs, persistent: false })
    else {
      const idleMs = Math.min(Math.max(0, Math.round(originalMaxAge ?? _expires.getTime() - Date.now())), LONGEST_MS)
      chooseExpiry(this.state, { idleMs, persistent: true })
    }
  }
}

/** The fields of a session and their types: `declare module 'sojourn/express-session' { interface SessionData { … } }`. */
export interface SessionData {
  cookie: Cookie
}

// biome-ignore lint/suspicious/noExplicitAny: callers say what errors they know of, as with express-session
type Failure = any

/** The members of `req.session`. Those that take a callback give a promise without one. */
export interface SessionMembers {
  /** The same as `req.sessionID`. */
  readonly id: string
  readonly req: object
  /** Attributes and end of this session's cookie. */
  cookie: Cookie
  /** Moves the end of the session with this response. */
  touch(): this
  resetMaxAge(): this
  /** Stores what has changed, now. */
  save(): Promise<void>
  save(callback: (error?: Failure) => void): this
  /** Reads the session from the store again. */
  reload(): Promise<void>
  reload(callback: (error?: Failure) => void): this
  /** Ends the session; `req.session` is `undefined` afterwards. */
  destroy(): Promise<void>
  destroy(callback: (error?: Failure) => void): this
  /** Ends the session and puts an empty one with a new ID in its place. */
  regenerate(): Promise<void>
  regenerate(callback: (error?: Failure) => void): this
}

/** With what stands behind it. */
export interface RequestSession extends SessionMembers {
  readonly [PARTS]: Parts
}

const MEMBERS = {
  get id(): string {
    return (this as unknown as RequestSession)[PARTS].state.id
  },
  get req(): object {
    return (this as unknown as RequestSession)[PARTS].attachment.req
  },
  get cookie(): Cookie {
    return (this as unknown as RequestSession)[PARTS].cookie
  },
  touch(this: RequestSession): RequestSession {
    return this.resetMaxAge()
  },
  resetMaxAge(this: RequestSession): RequestSession {
    this[PARTS].wantsTouch = true
    return this
  },
  save(this: RequestSession, callback?: Callback): unknown {
    const { state } = this[PARTS]
    return settled(this, callback, async () => {
      this[PARTS].settleCookie()
      state.isWanted = true
      await life.save(state)
    })
  },
  reload(this: RequestSession, callback?: Callback): unknown {
    const { state } = this[PARTS]
    return settled(this, callback, async () => {
      if (state.record === null) throw new Error('failed to load session')
      try {
        await life.reload(state)
      } catch (cause) {
        const isGone = (cause as { code?: unknown }).code === 'SESSION_ENDED'
        throw isGone ? new Error('failed to load session', { cause }) : cause
      }
      this[PARTS].forgetCookie()
    })
  },
  destroy(this: RequestSession, callback?: Callback): unknown {
    const { state, attachment } = this[PARTS]
    return settled(this, callback, async () => {
      await life.destroy(state)
      attachment.req.session = undefined
    })
  },
  regenerate(this: RequestSession, callback?: Callback): unknown {
    const { state } = this[PARTS]
    return settled(this, callback, async () => {
      await life.replaceWithEmpty(state)
    })
  },
}

// `instanceof session.Session` holds for both kinds.
const prototype: object = Object.create(
  DetachedSession.prototype,
  Object.getOwnPropertyDescriptors(MEMBERS) as PropertyDescriptorMap,
)
for (const name of Object.keys(MEMBERS)) Object.defineProperty(prototype, name, { enumerable: false })
const NAMES: ReadonlySet<PropertyKey> = new Set(Object.keys(MEMBERS))

/** What stands behind the proxy. Its parts are private: `inspect()` shows what a proxy stands before. */
class Target {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  static partsOf(target: Target): Parts {
    return target.#parts
  }
}
Object.setPrototypeOf(Target.prototype, prototype)
const { partsOf } = Target

/** What a handler holds as `req.session`. */
export function requestSession(parts: Parts): RequestSession {
  return new Proxy(new Target(parts), HANDLER) as unknown as RequestSession
}

const HANDLER: ProxyHandler<Target> = {
  get(target, name, receiver) {
    if (name === PARTS) return partsOf(target)
    if (typeof name === 'symbol') return Reflect.get(target, name, receiver)
    const { state, passing } = partsOf(target)
    state.use()
    if (NAMES.has(name)) return Reflect.get(target, name, receiver)
    const value = state.get(name)
    return value === undefined ? (passing?.get(name) ?? inherited(name)) : value
  },
  set(target, name, value) {
    if (typeof name === 'symbol') return Reflect.set(target, name, value)
    const parts = partsOf(target)
    parts.state.use()
    if (name === 'cookie') parts.replaceCookie(value)
    else if (name === 'id' || name === 'req') return false
    else if (NAMES.has(name)) Object.defineProperty(target, name, { value, writable: true, configurable: true })
    else assign(parts, name, value)
    return true
  },
  has(target, name) {
    const { state, passing } = partsOf(target)
    state.use()
    return NAMES.has(name) || (typeof name === 'string' && (state.has(name) || passing?.has(name) === true))
  },
  deleteProperty(target, name) {
    const { state, passing } = partsOf(target)
    state.use()
    if (typeof name === 'string' && !NAMES.has(name)) {
      passing?.delete(name)
      state.delete(name)
      return true
    }
    return Reflect.deleteProperty(target, name)
  },
  ownKeys(target) {
    const { state, passing } = partsOf(target)
    state.use()
    const fields = state.fields.names().filter((name) => !NAMES.has(name))
    // Last, members that somebody has put others in the place of.
    return [...new Set(['cookie', ...fields, ...(passing?.keys() ?? []), ...Reflect.ownKeys(target)])]
  },
  getOwnPropertyDescriptor(target, name) {
    const { state, passing, cookie } = partsOf(target)
    state.use()
    const shown = { writable: true, enumerable: true, configurable: true }
    if (name === 'cookie') return { value: cookie, ...shown }
    if (typeof name !== 'string' || NAMES.has(name)) return Reflect.getOwnPropertyDescriptor(target, name)
    if (state.has(name)) return { value: state.get(name), ...shown }
    return passing?.has(name) ? { value: passing.get(name), ...shown } : undefined
  },
  defineProperty(target, name, descriptor) {
    if (typeof name === 'symbol' || NAMES.has(name)) return Reflect.defineProperty(target, name, descriptor)
    partsOf(target).state.use()
    assign(partsOf(target), name, 'value' in descriptor ? descriptor.value : descriptor.get?.())
    return true
  },
}

function assign(parts: Parts, name: string, value: unknown): void {
  if (typeof value === 'function' || typeof value === 'symbol') {
    parts.state.delete(name)
    parts.passing ??= new Map()
    parts.passing.set(name, value)
    return
  }
  parts.passing?.delete(name)
  parts.state.set(name, value)
}

/** Calls back, or gives a promise where there is no callback; a failure that nobody asks for fails the response, not the process. */
function settled(session: RequestSession, callback: Callback | undefined, act: () => Promise<void>): unknown {
  const done = act()
  if (typeof callback !== 'function') {
    done.catch(() => {})
    return done
  }
  done.then(
    () => process.nextTick(callback),
    (error) => process.nextTick(callback, unwrapped(error)),
  )
  return session
}

/** The error as the store threw it. */
export function unwrapped(error: unknown): unknown {
  const { code, cause } = (error ?? {}) as { code?: unknown; cause?: unknown }
  return code === 'STORE_UNAVAILABLE' && cause !== undefined ? cause : error
}
