// Sessions that can be resumed, and handed over: `sojourn/recovery`.
//
// A recovery point holds what a session held, for who has its token: 256 random bits, of which the store knows the hash alone. It is
// redeemed once, in time, by its user, into a new session. A hand-off is one that is made on purpose, for another device or domain.

import { createHmac, type KeyObject, randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Duration } from '../../duration.js'
import { milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption, isSessionError } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import type { EndReason } from '../../record/session-data.js'
import { requireSession } from '../../request/current-session.js'
import { type Drawer, type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { warnOfFailure } from '../../warn.js'
import { type HeaderResponse, setRecoveryCookie, tokenInCookie } from './cookie.js'
import { type RecoveryOptions, type ResolvedRecoveryOptions, resolveRecoveryOptions } from './options.js'
import { isRecoveryToken, type Line, newRecoveryToken, type Point, Points } from './points.js'

export type { RecoveryOptions } from './options.js'

/** What the application notes with a point, such as the page the user was on: any object that JSON can keep. */
export type RecoveryInfo = Readonly<Record<string, unknown>>

/** What a session was recovered from. */
export interface RecoveredFrom {
  /** The ID of the session that the point was made of. */
  readonly sessionId: string
  readonly how: 'recovery' | 'hand-off'
  readonly savedAt: Date
  readonly recoveredAt: Date
  /** What `save()` or `handOff()` was given. */
  readonly info: RecoveryInfo
}

/** What became of a token. */
export type Recovery =
  /** `session`, which is `req.session` now, holds what was saved. */
  | { readonly status: 'recovered'; readonly session: Session; readonly from: RecoveredFrom }
  /** It is that of a user, and nobody is logged in: log in as that user, and try it again. It is still good. */
  | { readonly status: 'login-required' }
  /** There is nothing for it. Why, the event `recoveryRefused` says, and nobody else. */
  | { readonly status: 'refused' }

/** When points are made without being asked for. */
export interface AutomaticPoints {
  /**
   * By time: in a request, when the last automatic point is that old.
   * @default never
   */
  readonly every?: Duration | undefined
  /**
   * On routes: with each request whose path is one of these, or for which the function says so.
   * @default none
   */
  readonly routes?: readonly (string | RegExp)[] | ((req: IncomingMessage) => boolean) | undefined
  /**
   * What to note with a point.
   * @default the path, as `page`
   */
  readonly info?: ((req: IncomingMessage) => RecoveryInfo) | undefined
}

/** What the drawer of a session holds for recovery. */
interface Kept {
  readonly line?: string
  /** The notes of its points, oldest first; with an automatic one, when that was made. */
  readonly points?: readonly (readonly [key: string, automaticAt?: number])[]
  readonly from?: {
    readonly sessionId: string
    readonly how: 'recovery' | 'hand-off'
    readonly savedAt: number
    readonly recoveredAt: number
    readonly info: RecoveryInfo
  }
}

type Refusal = 'unknown' | 'used' | 'expired' | 'foreign' | 'ended' | 'malformed' | 'locked'

const REFUSED: Recovery = Object.freeze({ status: 'refused' })
const LOGIN_REQUIRED: Recovery = Object.freeze({ status: 'login-required' })
const PURPOSE = 'sojourn.recovery'
const DRAWER = 'recovery'
/** The drawers that go over: the state of `sojourn/state`. */
const GROUPS = ['state']
/** Ends that somebody meant. */
const MEANT: readonly EndReason[] = ['logout', 'destroyed', 'revoked', 'regenerated']
/** What says who a user is, where applications keep it in fields. */
const IDENTITY = ['passport', 'user', 'userId']

/**
 * Recovery points and hand-offs for the sessions of a manager. The store needs `notes`: those in memory, Redis and SQL have them.
 *
 * ```ts
 * const sessions = new SessionManager({ secret, store })
 * const recoveries = recovery(sessions, { window: '60m' })
 * app.use(sessions.middleware())
 * const token = await recoveries.save(req.session, { page: '/checkout/2' })
 * const { status } = await recoveries.recover(token, req)
 * ```
 * @throws {SessionError} `INVALID_OPTION`; `NOT_SUPPORTED` when the store has no notes
 */
export function recovery(manager: SessionManager, options: RecoveryOptions = {}): Recoveries {
  if (typeof manager?.onRevocation !== 'function') {
    throw invalidOption('recovery() needs the SessionManager, which session() has as its member manager.')
  }
  const cookie = manager.describe()['cookie'] as { secureName: string }
  return new Recoveries(manager, resolveRecoveryOptions(options, cookie.secureName))
}

/** What `recovery()` gives. */
export class Recoveries {
  readonly #manager: SessionManager
  readonly #options: ResolvedRecoveryOptions
  readonly #points: Points
  readonly #stops: readonly (() => void)[]
  readonly #underWay = new Set<Promise<void>>()
  /** Where the cookie of a request can be removed. */
  readonly #responses = new WeakMap<IncomingMessage, HeaderResponse>()

  constructor(manager: SessionManager, options: ResolvedRecoveryOptions) {
    this.#manager = manager
    this.#options = options
    const { windowMs, handOffWindowMs, application } = options
    // Asked for now, so that a store without notes is told at once.
    const { notes } = manager
    const longestWindowMs = Math.max(windowMs, handOffWindowMs)
    this.#points = new Points({ notes: () => notes, application, longestWindowMs })
    this.#stops = [
      manager.events.on('ended', ({ id, reason, successor, goesOn }) => {
        this.#follow(this.#afterEnd(id, reason, goesOn ? successor : undefined))
      }),
      manager.onRevocation((userId) => this.#points.revoke(userId, Date.now())),
    ]
  }

  // --- To make them ---

  /**
   * Makes a recovery point of what the session holds now, fields and `sojourn/state`, and resolves to its token, once it is stored: give
   * it to the user, in a cookie, a link or a mail, and keep it nowhere. It is good for `window`. It survives a crash, a timeout and a
   * closed browser; a logout, `destroy()`, a revocation, and a `regenerate()` that keeps not all, end it.
   * @throws {SessionError} `SESSION_TOO_LARGE` for what is more than a note can hold; `INVALID_ARGUMENT` for `info` that is no object;
   *   and as `session.save()`.
   */
  save(session: Session, info: RecoveryInfo = {}): Promise<string> {
    return this.#make(session, { how: 'recovery', info }).then(required)
  }

  /**
   * Makes a token that gives another device, or another domain of the same application, a session of the same user with the same contents:
   * a sibling with an ID and an end of its own, never this session. Whoever has it within `handOffWindow` is logged in by it, once: show it to
   * the user alone. In the sibling the user has proved nothing yet, so `requireRecentAuth()` asks.
   * @throws {SessionError} as `save()`
   */
  handOff(session: Session, info: RecoveryInfo = {}): Promise<string> {
    return this.#make(session, { how: 'hand-off', info }).then(required)
  }

  /**
   * A middleware, to be mounted behind `session()`, that makes points by itself and gives the browser their tokens in a cookie
   * (`__Host-recovery`; `HttpOnly`, `SameSite=Lax`), which `recover(undefined, req)` takes. A point is what the session held when the request
   * came in, and takes the place of the automatic one before.
   * @throws {SessionError} `INVALID_OPTION`
   */
  automatic(
    points: AutomaticPoints,
  ): (req: IncomingMessage, res: HeaderResponse, next: (error?: unknown) => void) => void {
    const { every, routes = [], info = (req) => ({ page: pathOf(req) }) } = points
    const everyMs = every === undefined ? undefined : milliseconds(every, 'every', 1000)
    if (typeof routes !== 'function' && !Array.isArray(routes)) {
      throw invalidOption('routes is neither a list of paths nor a function.')
    }
    const isChosen = typeof routes === 'function' ? routes : (req: IncomingMessage) => isOneOf(pathOf(req), routes)
    const make = async (req: IncomingMessage, res: HeaderResponse): Promise<void> => {
      const session = requireSession(req)
      if (session.isNew) return
      const within = inside(session)
      const since = automaticOf(drawerOf(within).get())
      const isDue = everyMs !== undefined && (since === undefined || within.now() - since >= everyMs)
      if (!isDue && !isChosen(req)) return
      const token = await this.#make(session, { how: 'recovery', info: info(req), since })
      const maxAgeSeconds = Math.floor(this.#options.windowMs / 1000)
      if (token !== null) setRecoveryCookie(res, { token, maxAgeSeconds, isHttps: within.isHttps() })
    }
    return (req, res, next) => {
      this.#responses.set(req, res)
      // Outside of the promise, so that what the handler throws is nobody's rejection.
      make(req, res).then(
        () => process.nextTick(next),
        (error) => process.nextTick(next, error),
      )
    }
  }

  // --- To redeem them ---

  /**
   * Redeems a token, that of the request's cookie when it is `undefined`: `req.session` is a new session then, under a new ID, with what was saved
   * in it and nothing of the one before. Of all who try one token at once, in one process or many, one succeeds.
   *
   * A point of a user is for that user alone, who must be logged in. One of nobody is not for who is logged in: recover first,
   * and log in then. To whoever has no right to it, all answers are alike; the event `recoveryRefused` says why.
   * @throws {SessionError} `HEADERS_SENT`, `INSECURE_CONNECTION`, and as `session.login()`: the token is good as before then
   */
  async recover(token: string | undefined, req: IncomingMessage): Promise<Recovery> {
    const session = requireSession(req)
    const within = inside(session)
    const isFromCookie = token === undefined
    const given = isFromCookie ? tokenInCookie(req, within.isHttps()) : token
    const recovery = await this.#redeem(given, session, req)
    const res = this.#responses.get(req)
    if (isFromCookie && res !== undefined && recovery.status !== 'login-required') {
      setRecoveryCookie(res, { maxAgeSeconds: 0, isHttps: within.isHttps() })
    }
    return recovery
  }

  /**
   * Whether the browser has the token of an automatic point: whether to offer to resume. Asks no store, so the token may be good no
   * more.
   */
  hasToken(req: IncomingMessage): boolean {
    return tokenInCookie(req, inside(requireSession(req)).isHttps()) !== undefined
  }

  /** What a session was recovered from, as long as it goes on; `undefined` for one that began otherwise. */
  recoveredFrom(session: Session): RecoveredFrom | undefined {
    const from = drawerOf(inside(session)).get()?.from
    return from && { ...from, savedAt: new Date(from.savedAt), recoveredAt: new Date(from.recoveredAt) }
  }

  /** Waits until what sessions that have ended leave behind is gone. */
  async settled(): Promise<void> {
    await Promise.all(this.#underWay)
  }

  /** Stops listening to the manager, and waits as `settled()` does. */
  async close(): Promise<void> {
    for (const stop of this.#stops) stop()
    await this.settled()
  }

  // --- How they are made ---

  /**
   * @param how `since`: the automatic point that this one is to follow, if it is automatic
   * @returns `null` when another request has made an automatic one meanwhile
   */
  async #make(
    session: Session,
    how: { how: Point['how']; info: RecoveryInfo; since?: number | undefined },
  ): Promise<string | null> {
    if (typeof how.info !== 'object' || how.info === null || Array.isArray(how.info)) {
      throw invalidArgument('What is noted with a recovery point is an object.')
    }
    const within = inside(session)
    const [key] = within.sharedKeys(PURPOSE) as [KeyObject]
    const drawer = drawerOf(within)
    // One that is stored has an end that takes its points along.
    if (session.isNew) await session.save()
    const savedAt = within.now()
    const { userId } = session.metadata
    const line = drawer.get()?.line ?? randomUUID()
    const token = newRecoveryToken()
    const note = this.#points.keyOf(token, key)
    const windowMs = how.how === 'hand-off' ? this.#options.handOffWindowMs : this.#options.windowMs
    const standing = await this.#points.standing(userId, Date.now())
    const isAutomatic = 'since' in how
    await this.#points.put(token, key, {
      how: how.how,
      from: session.id,
      line,
      userId,
      logicalId: session.metadata.logicalId,
      savedAt,
      until: savedAt + windowMs,
      info: how.info,
      texts: this.#textsOf(within, userId),
      standing,
    })
    const known = namesOf(drawer.get())
    let dropped: string[] = []
    let isLate = false
    try {
      await this.#points.putLine(session.id, { line, keys: [...known, note] })
      // Last, and at once: it fails when the session has ended, and then nobody would take the point back.
      await drawer.update((before = {}) => {
        isLate = isAutomatic && automaticOf(before) !== how.since
        // Another request has made the line, or the automatic point.
        if (isLate || (before.line !== undefined && before.line !== line)) {
          isLate = true
          return before
        }
        const others = (before.points ?? []).filter(([, at]) => !isAutomatic || at === undefined)
        const kept = others.slice(-(this.#options.maxPoints - 1) || others.length)
        const points = [...kept, isAutomatic ? ([note, savedAt] as const) : ([note] as const)]
        dropped = (before.points ?? []).filter((each) => !points.includes(each)).map(([name]) => name)
        return { ...before, line, points }
      })
      await session.save()
      const kept = drawer.get()
      // Another request has been quicker: its points are to end with the session, too.
      if (kept?.line !== undefined && namesOf(kept).join() !== [...known, note].join()) {
        await this.#points.putLine(session.id, { line: kept.line, keys: namesOf(kept) })
      }
    } catch (error) {
      await this.#points.forget([note]).catch(() => {})
      throw error
    }
    if (isLate) {
      await this.#points.forget([note])
      // A point that was asked for is made again, on what the other request has left.
      return isAutomatic ? null : this.#make(session, how)
    }
    await this.#points.forget(dropped)
    return token
  }

  #textsOf(within: Inside, userId: string | number | undefined): [string, string][] {
    const isMeant = this.#options.fields ?? ((name: string) => userId !== undefined || !IDENTITY.includes(name))
    const fields = new Set(within.texts().keys())
    return [...within.carried(GROUPS)].filter(([name]) => !fields.has(name) || isMeant(name))
  }

  // --- How they are redeemed ---

  async #redeem(token: unknown, session: Session, req: IncomingMessage): Promise<Recovery> {
    const within = inside(session)
    const { userId } = session.metadata
    const refuse = (reason: Refusal, redeemedAs?: string): Recovery => {
      const { ip } = within.request()
      within.events.emit('recoveryRefused', { id: session.id, userId, reason, redeemedAs, ip })
      return REFUSED
    }
    if (!isRecoveryToken(token)) return refuse('malformed')
    const { maxGuesses } = this.#options
    const keys = within.sharedKeys(PURPOSE)
    const client = clientOf(req, keys[0] as KeyObject)
    if (maxGuesses !== false && (await this.#points.isLocked(client, maxGuesses))) return refuse('locked')

    const found = await this.#points.find(token, keys)
    if (found === null) {
      const redeemed = await this.#points.redeemed(token, keys)
      if (redeemed === null) {
        if (maxGuesses !== false) await this.#points.countGuess(client, maxGuesses)
        return refuse('unknown')
      }
      if (this.#options.endOnReuse) {
        await this.#points.endLine({ line: redeemed.line, keys: [] })
        await this.#manager.revoke(redeemed.as, { by: 'recovery', detail: 'its token was used again' })
      }
      return refuse('used', redeemed.as)
    }
    const { point, key } = found
    if (within.now() >= point.until) {
      await this.#points.forget([this.#points.keyOf(token, key)])
      return refuse('expired')
    }
    // A hand-off logs its user in; a recovery is for who has logged in.
    const isOpen = userId === undefined && (point.how === 'hand-off' || point.userId === undefined)
    if (!isOpen && userId !== undefined && userId !== point.userId) return refuse('foreign')
    if (!isOpen && userId === undefined) return (await this.#isGood(point)) ? LOGIN_REQUIRED : refuse('ended')
    if (!(await this.#points.redeem(token, key))) return refuse('used')
    // Looked at last: what ends meanwhile is seen.
    if (!(await this.#isGood(point))) return refuse('ended')
    return this.#begin({ token, key, point, within, req })
  }

  async #begin(parts: {
    token: string
    key: KeyObject
    point: Point
    within: Inside
    req: IncomingMessage
  }): Promise<Recovery> {
    const { token, key, point, within, req } = parts
    const { from: sessionId, how, savedAt, userId, logicalId, line } = point
    const from = { sessionId, how, savedAt, recoveredAt: within.now(), info: point.info as RecoveryInfo }
    try {
      const drawers = { [DRAWER]: { from } satisfies Kept }
      await within.replaceWith({ texts: new Map(point.texts), userId, logicalId, drawers })
    } catch (error) {
      // Nobody has got anything for it.
      await this.#points.put(token, key, point).catch(() => {})
      throw error
    }
    const session = requireSession(req)
    await this.#points.noteRedeemed(token, key, { line, as: session.id }).catch((error: unknown) => {
      warnOfFailure('Noting a recovery token as used', error)
    })
    within.events.emit('recovered', { id: session.id, userId, from: sessionId, savedAt, how })
    return {
      status: 'recovered',
      session,
      from: { ...from, savedAt: new Date(savedAt), recoveredAt: new Date(from.recoveredAt) },
    }
  }

  /** Whether nothing has ended a point: neither its session's end, by whom it was meant, nor a revocation. */
  async #isGood(point: Point): Promise<boolean> {
    const [isEnded, stands, source] = await Promise.all([
      this.#points.isEnded(point.line),
      this.#points.stillStands(point),
      this.#manager.drawers.find<Kept>(point.from, DRAWER),
    ])
    if (isEnded || !stands) return false
    // The end itself says so as well, if whoever ended the session could not.
    if (source.status === 'live') return source.value?.line === point.line
    return source.status !== 'ended' || !MEANT.includes(source.end.reason)
  }

  // --- Ends ---

  async #afterEnd(id: string, reason: EndReason, successor: string | undefined): Promise<void> {
    const line: Line | null = await this.#points.takeLine(id)
    if (line === null) return
    if (successor !== undefined) await this.#points.moveLine(line, successor)
    else if (MEANT.includes(reason)) await this.#points.endLine(line)
  }

  #follow(work: Promise<void>): void {
    const done: Promise<void> = work
      .catch((error: unknown) => {
        // What the store does not answer is told as a storeError; the session's own end keeps its points from being redeemed.
        if (!isSessionError(error)) warnOfFailure('Ending recovery points', error)
      })
      .finally(() => this.#underWay.delete(done))
    this.#underWay.add(done)
  }
}

function drawerOf(within: Inside): Drawer<Kept> {
  return within.drawer<Kept>(DRAWER)
}

function namesOf(kept: Kept | undefined): string[] {
  return (kept?.points ?? []).map(([name]) => name)
}

/** When the automatic point of a session was made. */
function automaticOf(kept: Kept | undefined): number | undefined {
  return kept?.points?.findLast(([, at]) => at !== undefined)?.[1]
}

function required(token: string | null): string {
  if (token === null) throw new Error('A point that was asked for was not made.')
  return token
}

function pathOf(req: IncomingMessage): string {
  const { originalUrl = req.url ?? '/' } = req as { originalUrl?: string }
  return originalUrl.split('?', 1)[0] as string
}

function isOneOf(path: string, routes: readonly (string | RegExp)[]): boolean {
  return routes.some((route) => (typeof route === 'string' ? route === path : route.test(path)))
}

/** Who asks, as far as it can be told, and as the store may know it. Express's `req.ip` is what trusted proxies say. */
function clientOf(req: IncomingMessage, key: KeyObject): string {
  const { ip } = req as { ip?: string }
  return createHmac('sha256', key)
    .update(`client ${ip ?? req.socket.remoteAddress ?? ''}`)
    .digest('base64url')
}
