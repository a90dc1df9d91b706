// `req.sessionStore` over a store of ours: what express-session users call by the ID of a session.
import { LONGEST_MS } from '../../duration.js'
import type { IssuedToken } from '../../ids.js'
import type { SessionManager } from '../../manager/manager.js'
import type { SessionCodec } from '../../record/codec.js'
import { SessionData, type SessionData as Stored } from '../../record/session-data.js'
import { Cookie, type CookieOptions } from './cookie.js'
import type { Callback, StoredFields } from './detached-session.js'
import { attributesOf } from './record-format.js'
import { Store } from './store.js'

interface ViewOptions {
  readonly manager: SessionManager
  readonly codec: SessionCodec
  readonly token: IssuedToken
  readonly cookie: CookieOptions
  readonly isPersistent: boolean
  readonly idleTimeoutMs: number
}

/** The sessions of a middleware by their IDs, with callbacks and as promises. */
export class StoreView extends Store {
  readonly #options: ViewOptions

  constructor(options: ViewOptions) {
    super()
    this.#options = options
  }

  override get(sid: string, callback?: Callback<StoredFields | null>): Promise<StoredFields | null> {
    return told(this.#read(sid), callback)
  }

  override set(sid: string, session: StoredFields, callback?: Callback): Promise<void> {
    return told(this.#write(sid, session), callback)
  }

  override destroy(sid: string, callback?: Callback): Promise<void> {
    const { manager } = this.#options
    return told(
      manager.revoke(sid).then(() => {}),
      callback,
    )
  }

  override touch(sid: string, _session: unknown, callback?: Callback): Promise<void> {
    const { manager } = this.#options
    return told(
      manager.refresh(sid).then(() => {}),
      callback,
    )
  }

  /** All live sessions by ID. Takes time in proportion to the store. */
  all(callback?: Callback<Record<string, StoredFields>>): Promise<Record<string, StoredFields>> {
    return told(this.#all(), callback)
  }

  ids(callback?: Callback<string[]>): Promise<string[]> {
    return told(this.#ids(), callback)
  }

  length(callback?: Callback<number>): Promise<number> {
    return told(this.#options.manager.count(), callback)
  }

  clear(callback?: Callback): Promise<void> {
    return told(this.#clear(), callback)
  }

  async #read(sid: string): Promise<StoredFields | null> {
    const { manager, cookie, isPersistent, idleTimeoutMs } = this.#options
    const found = await manager.get(sid)
    if (found === null) return null
    const shown = new Cookie(attributesOf(cookie))
    if (isPersistent) {
      shown.expires = found.expiresAt
      shown.originalMaxAge = idleTimeoutMs
    }
    return { ...found.fields, cookie: shown }
  }

  async #write(sid: string, session: StoredFields): Promise<void> {
    const { cookie: _cookie, ...fields } = session
    const { manager, codec, token, idleTimeoutMs } = this.#options
    const before = await manager.get(sid)
    if (before === null) {
      const now = Date.now()
      const texts = Object.entries(fields)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => [name, codec.encode(value, name)] as const)
      const times = { createdAt: now, updatedAt: now, lastAccessedAt: now, expiresAt: now + idleTimeoutMs }
      const absoluteExpiresAt = now + LONGEST_MS
      const { tokenHash } = token
      const record: Stored = new SessionData({
        id: sid,
        tokenHash,
        generation: 1,
        ...times,
        absoluteExpiresAt,
        fields: texts,
      })
      await manager.store.create(sid, record, Math.ceil(idleTimeoutMs / 1000))
      return
    }
    const gone = Object.keys(before.fields).filter((name) => !(name in fields))
    await manager.update(sid, { ...fields, ...Object.fromEntries(gone.map((name) => [name, undefined])) })
  }

  async #ids(): Promise<string[]> {
    const ids: string[] = []
    for await (const { id } of this.#options.manager.list()) ids.push(id)
    return ids
  }

  async #all(): Promise<Record<string, StoredFields>> {
    const all: Record<string, StoredFields> = Object.create(null)
    for (const id of await this.#ids()) {
      const found = await this.#read(id)
      if (found !== null) all[id] = found
    }
    return all
  }

  async #clear(): Promise<void> {
    for (const id of await this.#ids()) await this.#options.manager.revoke(id)
  }
}

function told<T>(promise: Promise<T>, callback: Callback<T> | undefined): Promise<T> {
  if (callback !== undefined) {
    promise.then(
      (value) => process.nextTick(callback, null, value),
      (error) => process.nextTick(callback, error),
    )
  }
  return promise
}
