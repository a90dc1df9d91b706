// Taking over the sessions of what was there before: `sojourn/adopt`. Who is logged in by a cookie of express-session,
// cookie-session or iron-session stays so, in a session of ours with a cookie and an ID of ours.
import { createHmac } from 'node:crypto'
import { hasCookie, isInScope, writeCookie } from '../../cookie/cookie.js'
import { invalidOption, SessionError } from '../../errors.js'
import { hashToken } from '../../ids.js'
import type { Lifecycle } from '../../lifecycle/lifecycle.js'
import { SessionManager, type SessionMiddleware } from '../../manager/manager.js'
import { Recent } from '../../recent.js'
import type { SessionNotes } from '../../record/notes.js'
import { type HttpRequest, isEncrypted, type SessionRequest } from '../../request/http-request.js'
import type { HttpResponse } from '../../request/http-response.js'
import { Fields } from '../../session/fields.js'
import { StoreCalls } from '../../stores/connect/store-calls.js'
import { warn, warnOnce } from '../../warn.js'
import type { OldStore } from './old-store.js'
import {
  cookieSessionSource,
  expressSource,
  ironSource,
  type OldSecret,
  type OldSession,
  type OldSource,
} from './sources.js'

export { type OldStore, type RedisLike, redisSessions } from './old-store.js'
export type { OldSecret } from './sources.js'

/** What is taken over, and how. */
export interface AdoptOptions {
  /** Whose cookies they are. @default 'express-session' */
  from?: 'express-session' | 'cookie-session' | 'iron-session' | undefined
  /** What signed or sealed them: all that are still in use. For iron-session, the passwords. */
  secret: OldSecret | readonly OldSecret[]
  /** The store of express-session. `redisSessions(client)` is that of connect-redis by an ioredis client. */
  store?: OldStore | undefined
  /** The name of the cookie. @default 'connect.sid' of express-session, 'session' of cookie-session */
  name?: string | undefined
  /** Path and domain of the old cookie, so that it can be cleared. @default path '/', and no domain */
  cookie?: { path?: string | undefined; domain?: string | undefined } | undefined
  /**
   * Who is logged in by these fields, for lists, limits and `revokeUser()`; `undefined` for nobody.
   * @default nobody: the fields go over, and what your application makes of them is as before
   */
  // biome-ignore lint/suspicious/noExplicitAny: the fields that the application has put there
  userId?: ((fields: any) => string | number | undefined) | undefined
  /**
   * The fields to go over. @default all
   */
  // biome-ignore lint/suspicious/noExplicitAny: the fields that the application has put there
  fields?: ((fields: any) => Record<string, unknown>) | undefined
  /**
   * Until when the old deployment runs beside this one, and may be gone back to: until then old sessions and their cookies
   * stay, and a logout here ends the old one, too. What is changed here is not written there.
   * @default not at all: the old session ends when it is taken over
   */
  sideBySideUntil?: Date | undefined
}

/** What `dryRun()` counted. */
export interface DryRun {
  readonly total: number
  /** Those that would be taken over. */
  readonly adoptable: number
  /** How many users would be logged in by them, as far as `userId` says. */
  readonly users: number
  /** The rest, by why not. */
  readonly refused: Readonly<Record<'expired' | 'unreadable' | 'too-large', number>>
}

/** The middleware, for Express, Connect and plain Node servers. */
export type AdoptMiddleware = (req: HttpRequest, res: HttpResponse | object, next: (error?: unknown) => void) => void

/** How long it is remembered that a session was taken over, so that its old cookie opens nothing again: as long as a cookie may live. */
const REMEMBERED_SECONDS = 400 * 86_400
const PURPOSE = 'adopted'
const UNREADABLE = 'A session of the old store cannot be read, and is not taken over.'

/**
 * Mount it in place of the middleware that it is given: `app.use(adopt(session({ … }), { secret, store }))`. A request that has
 * a cookie of the old kind, and none of ours, goes on in a session made of the old one, with a new cookie; the old one ends.
 * Parallel first requests, also to several processes, get the same session.
 *
 * For `requireRecentAuth()` the user has proved nothing until the next login. While the old store cannot be asked, a request with
 * an old cookie fails with 503 and keeps it.
 * @throws {SessionError} `INVALID_OPTION`
 */
export function adopt(sessions: SessionMiddleware, options: AdoptOptions): AdoptMiddleware {
  const adopter = new Adopter(sessions, options)
  return function adoptMiddleware(req, res, next) {
    adopter.handle(req, res, next)
  }
}

/**
 * Goes through the old store, changes nothing, and says how many sessions could be taken over. Needs a store with `all()`.
 * @throws {SessionError} `INVALID_OPTION`; what the store fails with
 */
export async function dryRun(
  sessions: SessionMiddleware,
  options: Pick<AdoptOptions, 'store' | 'userId' | 'fields'>,
): Promise<DryRun> {
  const { store } = options
  if (typeof store?.all !== 'function')
    throw invalidOption('dryRun() needs a store with all(), to go through its sessions.')
  const found: unknown = await new Promise((resolve, reject) => {
    store.all?.((error, all) => (error ? reject(error) : resolve(all)))
  })
  const lifecycle = SessionManager.lifecycleOf(sessions.manager)
  const users = new Set<string | number>()
  const refused = { expired: 0, unreadable: 0, 'too-large': 0 }
  const all = Object.values(found ?? {})
  for (const stored of all) {
    const fields = fieldsOf(stored)
    if (fields === null) refused.unreadable++
    else if (isOver(stored, lifecycle.now())) refused.expired++
    else {
      try {
        const { userId } = converted(lifecycle, fields, options)
        if (userId !== undefined) users.add(userId)
      } catch (error) {
        refused[(error as { code?: string }).code === 'SESSION_TOO_LARGE' ? 'too-large' : 'unreadable']++
      }
    }
  }
  const notTaken = Object.values(refused).reduce((sum, count) => sum + count, 0)
  return { total: all.length, adoptable: all.length - notTaken, users: users.size, refused }
}

/** A session of ours that a request is to go on in. */
interface Claim {
  readonly id: string
  readonly token: string
}

interface Exchange {
  readonly req: HttpRequest
  readonly res: HttpResponse | object
  readonly next: (error?: unknown) => void
  readonly isSecure: boolean
}

class Adopter {
  readonly #sessions: SessionMiddleware
  readonly #lifecycle: Lifecycle
  readonly #options: AdoptOptions
  readonly #name: string
  readonly #source: OldSource
  readonly #calls: StoreCalls | undefined
  /** Those that are under way in this process. */
  readonly #running = new Map<string, Promise<Claim | null>>()
  /** The old sessions that run beside ours, by the ID of ours. */
  readonly #links = new Recent<string>()

  constructor(sessions: SessionMiddleware, options: AdoptOptions) {
    const { from = 'express-session', secret, store, sideBySideUntil } = options
    this.#sessions = sessions
    this.#lifecycle = SessionManager.lifecycleOf(sessions.manager)
    this.#options = options
    this.#name = nameOf(options)
    const secrets = (Array.isArray(secret) ? secret : [secret]) as OldSecret[]
    if (
      secrets.length === 0 ||
      !secrets.every((one) => (typeof one === 'string' && one !== '') || Buffer.isBuffer(one))
    ) {
      throw invalidOption('adopt() needs the secret of the old cookies: text or a Buffer, or a list of them.')
    }
    if (sideBySideUntil !== undefined && !(sideBySideUntil instanceof Date)) {
      throw invalidOption('sideBySideUntil is not a Date.')
    }
    this.#source = sourceOf(from, this.#name, secrets, () => this.#lifecycle.now())
    if (from === 'express-session') {
      if (typeof store?.get !== 'function' || typeof store.destroy !== 'function') {
        throw invalidOption(
          'adopt() needs the store of express-session, with get() and destroy(); redisSessions(client) for connect-redis.',
        )
      }
      this.#calls = new StoreCalls(store as never, undefined)
    }
    const { secureName, plainName } = this.#lifecycle.options.cookie
    if (this.#name === secureName || this.#name === plainName) {
      throw invalidOption(
        `The old cookie and ours are both named ${this.#name}: give ours another name, with cookie: { name }.`,
      )
    }
    sessions.events.on('ended', ({ id, successor, goesOn }) => this.#follow(id, goesOn ? successor : undefined))
  }

  handle(req: HttpRequest, res: HttpResponse | object, next: (error?: unknown) => void): void {
    const header = req.headers.cookie
    const { cookie } = this.#lifecycle.options
    const request = req as SessionRequest
    if (header === undefined || !hasCookie(header, this.#name) || !isInScope(cookie, request.originalUrl ?? req.url)) {
      this.#sessions(req, res, next)
      return
    }
    const isSecure = cookie.secure !== false && isEncrypted(request, this.#lifecycle.options.trustProxy)
    const ours = isSecure ? cookie.secureName : cookie.plainName
    const needsHttps = cookie.secure === true || (cookie.secure === 'auto' && process.env['NODE_ENV'] === 'production')
    const old = needsHttps && !isSecure ? null : this.#source(header)
    if (old === null) {
      this.#sessions(req, res, next)
      return
    }
    if (hasCookie(header, ours)) {
      this.#sessions(req, res, (error) => {
        if (error === undefined && old.sid !== undefined && this.#isSideBySide())
          this.#links.set(request.session?.id ?? '', old.sid)
        next(error)
      })
      return
    }
    const goOn = (claim: Claim | null): void => {
      if (claim !== null && old.sid !== undefined && this.#isSideBySide()) this.#links.set(claim.id, old.sid)
      this.#goOn(claim, { req, res, next, isSecure })
    }
    const fail = (error: unknown): void => {
      const told = new SessionError('STORE_UNAVAILABLE', 'The store of the old sessions failed.', { cause: error })
      process.nextTick(next, error instanceof SessionError ? error : told)
    }
    this.#takenOver(old).then(goOn, fail)
  }

  #goOn(claim: Claim | null, { req, res, next, isSecure }: Exchange): void {
    if (claim === null) {
      this.#sessions(req, res, next)
      return
    }
    const [pair] = writeCookie(this.#lifecycle.options.cookie, { ...claim, isSecure }).split(';', 1)
    req.headers.cookie = `${req.headers.cookie}; ${pair}`
    this.#sessions(req, res, (error) => {
      if (error === undefined) this.#sendCookies(req as SessionRequest, res)
      next(error)
    })
  }

  /** Of all that ask for one old session, one makes the new one. */
  #takenOver(old: OldSession): Promise<Claim | null> {
    const running = this.#running.get(old.key)
    if (running !== undefined) return running
    const taking = this.#takeOver(old).finally(() => this.#running.delete(old.key))
    this.#running.set(old.key, taking)
    return taking
  }

  async #takeOver(old: OldSession): Promise<Claim | null> {
    const claim = this.#claimOf(old)
    const before = await this.#isAlive(claim)
    if (before !== undefined) return before ? claim : null
    const noteKey = hashToken(old.key)
    if ((await this.#notes?.get(PURPOSE, noteKey)) != null) return null
    const stored = await this.#load(old)
    const fields = fieldsOf(stored)
    if (fields === null && stored !== null && stored !== undefined) warnOnce(this.#lifecycle, 'adopt', UNREADABLE)
    // Another process may have been quicker, and have ended the old one.
    if (fields === null || isOver(stored, this.#lifecycle.now())) return (await this.#isAlive(claim)) ? claim : null
    if (!(await this.#create(claim, fields))) return null
    await this.#notes?.put(PURPOSE, noteKey, '1', { ttlSeconds: REMEMBERED_SECONDS, ifAbsent: true })
    if (this.#isSideBySide()) await this.#prolong(old, stored as StoredSession)
    else if (old.sid !== undefined) await this.#calls?.destroy(old.sid)
    return claim
  }

  async #create({ id, token }: Claim, fields: Record<string, unknown>): Promise<boolean> {
    let session: ReturnType<typeof converted>
    try {
      session = converted(this.#lifecycle, fields, this.#options)
    } catch (error) {
      warn(`A session could not be taken over: ${(error as Error).message}`, 'adopt')
      return false
    }
    const { texts, userId } = session
    await this.#lifecycle.create({
      id,
      fields: texts,
      token: { token, tokenHash: hashToken(token) },
      // Nobody knows when they logged in.
      metadata: userId === undefined ? {} : { userId, unproven: true },
    })
    return true
  }

  /** ID and token follow from the old session: whoever takes it over, in whichever process, makes the same one. */
  #claimOf({ key }: OldSession): Claim {
    const [secret] = this.#lifecycle.options.cookie.keys
    const bytes = createHmac('sha512', secret as never)
      .update(`sojourn adopt 1\n${this.#name}\n${key}`)
      .digest()
    bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40
    bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
    const id = bytes.toString('hex', 0, 16).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
    return { id, token: bytes.toString('base64url', 16, 48) }
  }

  /** Whether the session is alive; `undefined` when there is none. */
  async #isAlive({ id }: Claim): Promise<boolean | undefined> {
    const record = await this.#lifecycle.peek(id)
    if (record === null) return undefined
    return record !== 'corrupt' && this.#lifecycle.endOf(record) === null
  }

  async #load(old: OldSession): Promise<unknown> {
    return old.sid === undefined ? { ...old.fields } : this.#calls?.get(old.sid, (stored) => stored)
  }

  get #notes(): SessionNotes | undefined {
    return this.#lifecycle.options.store.notes === undefined ? undefined : this.#lifecycle.ability('notes')
  }

  // --- Side by side ---

  #isSideBySide(): boolean {
    return this.#lifecycle.now() < (this.#options.sideBySideUntil?.getTime() ?? 0)
  }

  /** The old session is there to go back to, although only the new one is used. */
  async #prolong({ sid }: OldSession, stored: StoredSession): Promise<void> {
    if (sid === undefined || typeof this.#options.store?.set !== 'function') return
    const expires = this.#options.sideBySideUntil as Date
    const maxAge = expires.getTime() - this.#lifecycle.now()
    const { cookie } = stored
    if (!cookie?.expires || new Date(cookie.expires) > expires) return
    await this.#calls?.set(sid, { ...stored, cookie: { ...cookie, expires, maxAge } })
  }

  /** A logout here is one there. */
  #follow(id: string, successor: string | undefined): void {
    const sid = this.#links.get(id)
    if (sid === undefined) return
    this.#links.delete(id)
    if (successor !== undefined) this.#links.set(successor, sid)
    else
      this.#calls?.destroy(sid).catch((error: Error) => warn(`An old session was not ended: ${error.message}`, 'adopt'))
  }

  // --- Cookies ---

  #sendCookies({ session }: SessionRequest, res: HttpResponse | object): void {
    if (session === undefined) return
    // Choosing an attribute sends the cookie again.
    const { httpOnly } = session.cookie
    session.cookie.httpOnly = httpOnly
    if (this.#isSideBySide() || !('appendHeader' in res)) return
    const { path = '/', domain } = this.#options.cookie ?? {}
    const attributes = `Path=${path}${domain === undefined ? '' : `; Domain=${domain}`}; Expires=Thu, 01 Jan 1970 00:00:00 GMT`
    const names = this.#options.from === 'cookie-session' ? [this.#name, `${this.#name}.sig`] : [this.#name]
    for (const name of names)
      (res as { appendHeader(name: string, value: string): void }).appendHeader('Set-Cookie', `${name}=; ${attributes}`)
  }
}

interface StoredSession {
  cookie?: { expires?: string | Date | null } | null
}

function nameOf({ from, name }: AdoptOptions): string {
  if (name !== undefined) return name
  if (from === 'iron-session')
    throw invalidOption('adopt() needs the name of the cookie of iron-session: its cookieName.')
  return from === 'cookie-session' ? 'session' : 'connect.sid'
}

function sourceOf(from: string, name: string, secrets: readonly OldSecret[], now: () => number): OldSource {
  if (from === 'express-session') return expressSource(name, secrets)
  if (from === 'cookie-session') return cookieSessionSource(name, secrets)
  if (from === 'iron-session') return ironSource(name, secrets, now)
  throw invalidOption(
    `adopt() knows no cookies of "${from}": use 'express-session', 'cookie-session' or 'iron-session'.`,
  )
}

/** The application's fields of what an old store has; `null` for what is no session. */
function fieldsOf(stored: unknown): Record<string, unknown> | null {
  if (typeof stored !== 'object' || stored === null || Array.isArray(stored)) return null
  const { cookie: _cookie, ...fields } = stored as Record<string, unknown>
  return fields
}

function isOver(stored: unknown, now: number): boolean {
  const expires = (stored as StoredSession).cookie?.expires
  return expires !== undefined && expires !== null && new Date(expires).getTime() <= now
}

/** The fields as ours are stored, and whose they are. */
function converted(
  { options }: Lifecycle,
  old: Record<string, unknown>,
  { userId, fields: choose }: Pick<AdoptOptions, 'userId' | 'fields'>,
): { texts: ReadonlyMap<string, string>; userId: string | number | undefined } {
  const { codec, limits } = options
  const fields = new Fields({ codec, limits, onCorrupt: () => {} })
  // As JSON has them: a store that keeps objects may hand out Dates.
  fields.setAll(JSON.parse(JSON.stringify(choose === undefined ? old : choose(old))))
  const user = userId?.(old)
  return { texts: fields.changes()?.set ?? new Map(), userId: user ?? undefined }
}
