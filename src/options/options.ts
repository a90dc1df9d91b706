// The options of session(): what they mean and their defaults. `resolve-options.ts` checks them.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { ResolvedCookie } from '../cookie/cookie.js'
import type { CookieOptions } from '../cookie/cookie-options.js'
import type { Secret } from '../cookie/secrets.js'
import type { Duration } from '../duration.js'
import type { ActivityHook, ActivityRecorder } from '../events/activity-hook.js'
import type { SessionCodec } from '../record/codec.js'
import type { SessionLimits } from '../record/limits.js'
import type { SessionContext } from '../record/session-data.js'
import type { EndedSession, StoredSession } from '../record/session-info.js'
import type { SessionStore } from '../record/store.js'

/** What `session()` takes. Only `secret` is required. */
export interface SessionOptions {
  /**
   * The key that signs cookies: at least 32 characters of random text, for example from `openssl rand -base64 32`. With
   * a list, the first signs and all verify; a cookie signed with an older one is reissued under the first.
   *
   * A list that is changed in place counts from the next request on. A function is asked again once a second, when a request
   * comes. Others that are no good are refused by an event, and those of before go on.
   */
  secret: Secret
  /**
   * Where sessions are kept.
   * @default a new `MemorySessionStore()`: one process only, gone when it ends
   */
  store?: SessionStore | undefined
  /** Name and attributes of the cookie. */
  cookie?: CookieOptions | undefined
  /**
   * Timeouts by the authenticator assurance level of NIST SP 800-63B-4: `'aal1'` 30 days overall (and 30 minutes idle,
   * our default: the standard asks for none), `'aal2'` 24 hours and 1 hour idle, `'aal3'` 12 hours and 15 minutes idle.
   * `idleTimeout` and `absoluteTimeout` go before it, but cannot be longer than those of `'aal3'`, where the standard
   * requires the 12 hours and recommends the 15 minutes.
   * @default none
   */
  preset?: 'aal1' | 'aal2' | 'aal3' | undefined
  /**
   * A session ends after this time without a request. OWASP: 15–30 minutes for low-risk applications.
   * @default '30m', or by the preset
   */
  idleTimeout?: Duration | undefined
  /**
   * A session ends this long after its creation or login, whatever its activity. Only `setExpiry()` with an
   * `absoluteTimeout` of its own gives one session another.
   * @default '12h', or by the preset
   */
  absoluteTimeout?: Duration | undefined
  /**
   * How old the recorded last access may grow before a request that changes nothing moves it forward, at the price of
   * one store call. A session may end this much earlier than `idleTimeout` after its last request.
   * @default a tenth of `idleTimeout`, at most '1m'
   */
  touchInterval?: Duration | undefined
  /**
   * How long the token before a renewal stays good once the client has shown that it has the new one, for requests that were
   * under way. Until then it stays good as well, and each response to it carries the new one again: a client that lost the
   * response is not logged out. Never applies to `login()` or `regenerate()`.
   * @default '10s'
   */
  renewGrace?: Duration | undefined
  /**
   * A token older than this is replaced with the next response that can carry a cookie; `renewGrace` says how long the old
   * one stays good. Costs one write, and one more with the first use of the new token.
   * @default none: tokens change at login and on `renew()`
   */
  renewAfter?: Duration | undefined
  /**
   * The logical ID of a session ends when the session was not used for this long: its next request gets another one.
   * @default none: it changes by `restart()` and `completeWorkflow()` only
   */
  logicalIdTimeout?: Duration | undefined
  /**
   * Told of each activity: what `logActivity()` says, and logins, logouts and other turns of a session by themselves. A
   * function, or an `ActivityLog` of `sojourn/activity`. It cannot delay or fail a request.
   * @default none
   */
  activity?: ActivityHook | undefined
  /**
   * Requests that are no activity, such as polling: their paths, matched by whole segments, or a function that says so.
   * They use the session, but do not keep it alive.
   * @default none
   */
  passivePaths?: readonly string[] | ((req: IncomingMessage | Http2ServerRequest) => boolean) | undefined
  /**
   * Requests whose session is read from where it is kept, also when the store could answer from a copy, as with `nearCache` of
   * Redis: their paths, matched by whole segments, or a function that says so. What it throws becomes a warning, and counts as yes.
   * @default none
   */
  fresh?: readonly string[] | ((req: IncomingMessage | Http2ServerRequest) => boolean) | undefined
  /**
   * How many sessions one user may have at once, in all processes together: `login()` and `manager.create()` keep to it.
   * Needs a store with an index of users, as memory and Redis have.
   * @default none: any number
   */
  maxSessionsPerUser?: number | undefined
  /**
   * What a login does that would be one too many: `'end-oldest'` ends the session that logged in first, with the reason
   * `limit`; `'refuse'` rejects with `SESSION_LIMIT` (409), and the session goes on as it was.
   * @default 'end-oldest'
   */
  onSessionLimit?: 'end-oldest' | 'refuse' | undefined
  /**
   * What is kept of the client that begins a session: its address (by Express's `req.ip`, so by `trust proxy`), user agent,
   * referrer and preferred language. `false` keeps nothing; an object switches single facts off.
   * @default true
   */
  clientContext?:
    | boolean
    | {
        ip?: boolean | undefined
        userAgent?: boolean | undefined
        referrer?: boolean | undefined
        locale?: boolean | undefined
      }
    | undefined
  /**
   * The fields that a new session begins with. They are stored as soon as the handler sets any other.
   * @default none
   */
  initialFields?: ((req: IncomingMessage | Http2ServerRequest) => Record<string, unknown>) | undefined
  /**
   * How long the store remembers sessions that are over, so that the next use of their cookie is told apart from an unknown
   * one. With `archive`, at least a day.
   * @default '15m'
   */
  endedRetention?: Duration | undefined
  /**
   * Called when a request's cookie names a session that is over, before the handler: the place to note why, for the user.
   * Also when it was regenerated, as for a second tab that was asking while the first logged in: its next request has the
   * new cookie. Nobody waits for what it returns; what it throws or rejects with becomes a process warning.
   * `req.session.metadata.previousEnd` says the same.
   * @default none
   */
  onEnded?: ((ended: EndedSession, req: IncomingMessage | Http2ServerRequest, res: object) => void) | undefined
  /**
   * Send `Clear-Site-Data` with the response that ends a session, by `logout()` or `destroy()`, and with those to a cookie
   * whose session was revoked, until another begins: `true` for cache and storage, or the types of data. Browsers heed it
   * over HTTPS only.
   * @default false
   */
  clearSiteData?: boolean | readonly ('cache' | 'storage' | 'executionContexts')[] | undefined
  /**
   * What a response says to caches when its handler looked at the session, it sets no cookie, and the application itself says
   * nothing of who may keep it (`private`, `public`, `s-maxage`, `no-store`). `'private'`: `Cache-Control: private`, since
   * there are shared caches that do not heed `Vary: Cookie`. `'none'`: only `Vary: Cookie`, and such a cache may show one
   * user's page to another. With a cookie it is always `no-store`.
   * @default 'private'
   */
  cacheControl?: 'private' | 'none'
  /**
   * Called with each session that ran out before it is removed, at least once, by whichever process cleans up. A session
   * for which it fails, or takes longer than 20 seconds, is kept for the next time, for a day at least. Sessions that
   * somebody ended come here with `archiveEnded` only. Needs a store that can be gone through, as ours can.
   * @default none
   */
  archive?: ((session: StoredSession) => unknown) | undefined
  /**
   * Whether what somebody ended comes to `archive`, too: by a logout, `destroy()`, a revocation, for the limit, or by a `regenerate()`
   * that kept none or some of its fields. Such a session is over at once, and its fields stay in the store until a clean-up has
   * archived them, a day at most. One that goes on as another, as after a login or `regenerate({ keep: true })`, does not come.
   * @default false
   */
  archiveEnded?: boolean | undefined
  /**
   * How often the store is cleaned up, at most a day, by whichever of the processes gets to it. 0 never does. The timer does
   * not keep the process alive.
   * @default '1m' with `archive`, else 0: stores forget by themselves
   */
  cleanupInterval?: Duration | undefined
  /**
   * The deadline of each store call. A call that misses it fails the request with 503.
   * @default '1s'
   */
  storeTimeout?: Duration | undefined
  /**
   * When the store cannot be asked who a request belongs to: `'fail'` hands an error with status 503 to `next`;
   * `'anonymous'` goes on with an empty session that cannot be written. The cookie is left alone in both cases.
   * @default 'fail'
   */
  onStoreError?: 'fail' | 'anonymous' | undefined
  /**
   * `'before-response'`: no byte of a response leaves before the session's changes are stored. `'after-response'`
   * answers first and stores then: faster by one store call, but the client may see old data, and a failed write is
   * only an event.
   * @default 'before-response'
   */
  commit?: 'before-response' | 'after-response' | undefined
  /**
   * How field values become text.
   * @default jsonCodec()
   */
  codec?: SessionCodec | undefined
  /**
   * Bounds of one session.
   * @default { maxBytes: 1_000_000, maxFields: 1_000 }
   */
  limits?: { readonly [Name in keyof SessionLimits]?: SessionLimits[Name] | undefined } | undefined
  /**
   * Believe `X-Forwarded-Proto` from any client. Only for servers without Express whose proxy sets that header; under
   * Express, use `app.set('trust proxy', …)`, which says whom to believe.
   * @default false
   */
  trustProxy?: boolean | undefined
  /**
   * Make the session available to code that is handed no request, through `getSession()`.
   * @default true
   */
  context?: boolean | undefined
  /**
   * The time in milliseconds since the epoch, for tests.
   * @default `Date.now()`, looked up each time, so that fake timers count
   */
  clock?: (() => number) | undefined
}

/** `SessionOptions` after checks, with every default filled in. */
export interface ResolvedSessionOptions {
  readonly store: SessionStore
  readonly cookie: ResolvedCookie
  readonly idleTimeoutMs: number
  readonly absoluteTimeoutMs: number
  /** The longest timeouts that a session may choose for itself; `Infinity` when there is no preset that says so. */
  readonly longestIdleMs: number
  readonly longestAbsoluteMs: number
  readonly touchIntervalMs: number
  readonly renewGraceMs: number
  readonly renewAfterMs: number
  /** `Infinity` when there is none. */
  readonly logicalIdTimeoutMs: number
  readonly activity: ActivityRecorder | undefined
  readonly isPassive: ((req: IncomingMessage | Http2ServerRequest) => boolean) | undefined
  readonly isFresh: ((req: IncomingMessage | Http2ServerRequest) => boolean) | undefined
  readonly maxSessionsPerUser: number | undefined
  readonly onSessionLimit: 'end-oldest' | 'refuse'
  readonly clientContext: Readonly<Record<keyof SessionContext, boolean>>
  readonly initialFields: SessionOptions['initialFields']
  readonly retentionSeconds: number
  readonly onEnded: SessionOptions['onEnded']
  /** The header's value, or `null`. */
  readonly clearSiteData: string | null
  readonly cacheControl: 'private' | 'none'
  readonly archive: SessionOptions['archive']
  readonly archiveEnded: boolean
  readonly cleanupIntervalMs: number
  readonly storeTimeoutMs: number
  readonly onStoreError: 'fail' | 'anonymous'
  readonly commit: 'before-response' | 'after-response'
  readonly codec: SessionCodec
  readonly limits: SessionLimits
  readonly trustProxy: boolean
  readonly context: boolean
  readonly clock: () => number
}
