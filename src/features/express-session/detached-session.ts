// `session.Session`: a session of express-session outside of a request, as a store's `load()` gives it.
import type { Cookie, CookieData } from './cookie.js'

/** Called with an error, or with what was asked for. */
export type Callback<T = void> = (error?: unknown, value?: T) => void

/** A session as stores of express-session keep it: a cookie, and the fields beside it. */
export interface StoredFields {
  cookie: Partial<CookieData> | Cookie
  [field: string]: unknown
}

/** What stands for the request of such a session. */
export interface Holder {
  readonly sessionID: string
  readonly sessionStore: {
    get(sid: string, callback: Callback<StoredFields | null | undefined>): unknown
    set(sid: string, session: StoredFields, callback?: Callback): unknown
    destroy(sid: string, callback?: Callback): unknown
    regenerate(req: object, callback: Callback): void
    createSession(req: object, stored: StoredFields): DetachedSession
  }
}

/** The fields of a session as plain properties, and the members that act on the store. */
export class DetachedSession {
  [field: string]: unknown
  declare cookie: Cookie
  declare readonly id: string
  declare readonly req: Holder

  constructor(req: Holder, fields: object) {
    Object.defineProperty(this, 'req', { value: req })
    Object.defineProperty(this, 'id', { value: req.sessionID })
    for (const [name, value] of Object.entries(fields)) {
      // What members are called by is theirs.
      if (name in this && name !== 'cookie') continue
      Object.defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true })
    }
  }
}

const METHODS = {
  touch(this: DetachedSession): DetachedSession {
    return METHODS.resetMaxAge.call(this)
  },
  resetMaxAge(this: DetachedSession): DetachedSession {
    if (this.cookie.originalMaxAge !== null) this.cookie.maxAge = this.cookie.originalMaxAge
    return this
  },
  save(this: DetachedSession, callback: Callback = ignore): DetachedSession {
    this.req.sessionStore.set(this.id, this as StoredFields, callback)
    return this
  },
  reload(this: DetachedSession, callback: Callback = ignore): DetachedSession {
    this.req.sessionStore.get(this.id, (error, stored) => {
      if (error || !stored) return callback(error ?? new Error('failed to load session'))
      this.req.sessionStore.createSession(this.req, stored)
      return callback()
    })
    return this
  },
  destroy(this: DetachedSession, callback: Callback = ignore): DetachedSession {
    this.req.sessionStore.destroy(this.id, callback)
    return this
  },
  regenerate(this: DetachedSession, callback: Callback = ignore): DetachedSession {
    this.req.sessionStore.regenerate(this.req, callback)
    return this
  },
}
for (const [name, value] of Object.entries(METHODS)) {
  Object.defineProperty(DetachedSession.prototype, name, { value, writable: true, configurable: true })
}

function ignore(): void {}
