// `session.Store` and `session.MemoryStore`: the base class that stores for express-session extend, and the store in memory.
import { EventEmitter } from 'node:events'
import { Cookie } from './cookie.js'
import { type Callback, DetachedSession, type StoredFields } from './detached-session.js'

/** The base class of stores for express-session: a function, since older ones call it without `new`. */
export interface Store extends EventEmitter {
  get(sid: string, callback: Callback<StoredFields | null | undefined>): unknown
  set(sid: string, session: StoredFields, callback?: Callback): unknown
  destroy(sid: string, callback?: Callback): unknown
  touch?(sid: string, session: StoredFields, callback?: Callback): unknown
  /** Puts a new session in the place of the one of a request. Set by the middleware that the store is given to. */
  generate?(req: object): void
  /** Ends the session of a request and puts a new one in its place. */
  regenerate(req: object, callback: Callback): void
  /** The session of this ID outside of a request, or `undefined`. */
  load(sid: string, callback: Callback<DetachedSession>): void
  /** Makes a session of what the store has. */
  createSession(req: object, stored: StoredFields): DetachedSession
}

// The constructor that `Store.call(this)` reaches.
function StoreBase(this: EventEmitter): void {
  EventEmitter.call(this as never)
}
StoreBase.prototype = Object.create(EventEmitter.prototype, {
  constructor: { value: StoreBase, writable: true, configurable: true },
})

const METHODS = {
  regenerate(this: Store, req: { sessionID?: string }, callback: Callback): void {
    this.destroy(req.sessionID ?? '', (error) => {
      this.generate?.(req)
      callback(error)
    })
  },
  load(this: Store, sid: string, callback: Callback<DetachedSession>): void {
    this.get(sid, (error, stored) => {
      if (error) callback(error)
      else if (!stored) callback()
      else callback(null, this.createSession({ sessionID: sid, sessionStore: this }, stored))
    })
  },
  createSession(
    this: Store,
    req: { sessionID?: string; session?: unknown },
    stored: Partial<StoredFields>,
  ): DetachedSession {
    const { cookie = {}, ...fields } = stored
    const { expires, originalMaxAge = null } = cookie
    const restored = new Cookie({ ...attributesOf(cookie), expires: expires ? new Date(expires) : null })
    restored.originalMaxAge = originalMaxAge
    const session = new DetachedSession(req as never, { ...fields, cookie: restored })
    req.session = session
    return session
  },
}
for (const [name, value] of Object.entries(METHODS)) {
  Object.defineProperty(StoreBase.prototype, name, { value, writable: true, configurable: true })
}

/** The base class of stores for express-session. */
export const Store = StoreBase as unknown as { new (): Store; prototype: Store }

function attributesOf(cookie: object): object {
  const data: object = cookie instanceof Cookie ? cookie.data : cookie
  const {
    expires: _expires,
    maxAge: _maxAge,
    originalMaxAge: _original,
    ...attributes
  } = data as Record<string, unknown>
  return attributes
}

/** Sessions in the memory of this process, for development and tests. Keeps JSON, so that nobody shares an object with it. */
export class MemoryStore extends (Store as { new (): EventEmitter }) {
  readonly sessions: Record<string, string> = Object.create(null)

  /** What is stored under this ID and has not run out; by callback, or as a promise. */
  get(sid: string, callback?: Callback<StoredFields | undefined>): Promise<StoredFields | undefined> | undefined {
    return answered(this.#read(sid), callback)
  }

  set(sid: string, session: StoredFields, callback?: Callback): Promise<void> | undefined {
    this.sessions[sid] = JSON.stringify(session)
    return answered(undefined, callback)
  }

  destroy(sid: string, callback?: Callback): Promise<void> | undefined {
    delete this.sessions[sid]
    return answered(undefined, callback)
  }

  touch(sid: string, session: StoredFields, callback?: Callback): Promise<void> | undefined {
    const stored = this.#read(sid)
    if (stored) this.sessions[sid] = JSON.stringify({ ...stored, cookie: session.cookie })
    return answered(undefined, callback)
  }

  /** All that is alive, by ID. */
  all(
    callback?: Callback<Record<string, StoredFields>>,
  ): Promise<Record<string, StoredFields> | undefined> | undefined {
    const found: Record<string, StoredFields> = Object.create(null)
    for (const sid of Object.keys(this.sessions)) {
      const stored = this.#read(sid)
      if (stored && !isTombstone(stored)) found[sid] = stored
    }
    return answered(found, callback)
  }

  ids(callback?: Callback<string[]>): Promise<string[] | undefined> | undefined {
    return answered(this.#live(), callback)
  }

  length(callback?: Callback<number>): Promise<number | undefined> | undefined {
    return answered(this.#live().length, callback)
  }

  clear(callback?: Callback): Promise<void> | undefined {
    for (const sid of Object.keys(this.sessions)) delete this.sessions[sid]
    return answered(undefined, callback)
  }

  #live(): string[] {
    return Object.keys(this.sessions).filter((sid) => {
      const stored = this.#read(sid)
      return stored !== undefined && !isTombstone(stored)
    })
  }

  #read(sid: string): StoredFields | undefined {
    const text = this.sessions[sid]
    if (text === undefined) return undefined
    const stored = JSON.parse(text) as StoredFields
    const { expires } = stored.cookie ?? {}
    if (!expires || new Date(expires).getTime() > Date.now()) return stored
    delete this.sessions[sid]
    return undefined
  }
}

/** What is kept of a session that has ended. */
function isTombstone({ sojourn }: StoredFields): boolean {
  return typeof sojourn === 'string' && /"ended":\{/.test(sojourn)
}

/** The answer of a call: later, to the callback, or as a promise where there is none. */
export function answered<T>(value: T, callback: Callback<T> | undefined): Promise<T> | undefined {
  if (callback === undefined) return Promise.resolve(value)
  setImmediate(callback, null, value)
  return undefined
}
