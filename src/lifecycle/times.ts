// All arithmetic of time: idle and absolute end, touch, renewal, what the store is told to keep. Nobody else adds
// milliseconds to a session.
import { textOfMs } from '../duration.js'
import { invalidArgument, type SessionError } from '../errors.js'
import type { ResolvedSessionOptions } from '../options/options.js'
import { type MetadataChange, msToSettle, type SessionChange } from '../record/changes.js'
import type { ExpiryReason, SessionData, SessionEnd } from '../record/session-data.js'
import { secondsLeft } from '../record/store.js'

/** How a session ran out. */
export type Expiry = SessionEnd & { readonly reason: ExpiryReason }

/** What the times of a session are reckoned with. */
type TimeOptions = Pick<
  ResolvedSessionOptions,
  | 'clock'
  | 'idleTimeoutMs'
  | 'absoluteTimeoutMs'
  | 'longestIdleMs'
  | 'longestAbsoluteMs'
  | 'touchIntervalMs'
  | 'logicalIdTimeoutMs'
  | 'renewAfterMs'
  | 'renewGraceMs'
  | 'retentionSeconds'
>

/** How far the clocks of two processes, or one clock before and after it is set, may be apart without being told of. */
export const CLOCK_SKEW_MS = 60_000

/** When things happen to a session. Milliseconds since the epoch, unless a name says otherwise. */
export class Times {
  readonly #options: TimeOptions

  constructor(options: TimeOptions) {
    this.#options = options
  }

  /** The present, in whole milliseconds since the epoch. */
  now(): number {
    return Math.floor(this.#options.clock())
  }

  /** How a session ran out, by the record's own times and by the idle timeout in force, which may be shorter than when it was written. */
  expiryOf(record: SessionData): Expiry | null {
    const now = this.now()
    const idleMs = record.idleTimeoutMs ?? this.#options.idleTimeoutMs
    const reason = record.expiryReason(now) ?? (now - record.lastAccessedAt >= idleMs ? 'idle' : null)
    if (reason === 'absolute') return { reason, at: record.absoluteExpiresAt }
    return reason && { reason, at: Math.min(record.expiresAt, record.lastAccessedAt + idleMs) }
  }

  /** When a session that began at `start` is over whatever happens. */
  absoluteEnd(start: number, ownMs?: number): number {
    return start + (ownMs ?? this.#options.absoluteTimeoutMs)
  }

  /** The same for a session that begins again at `start` with the settings of `before`: timeouts of its own go over. */
  absoluteEndLike(before: SessionData, start: number): number {
    if (before.idleTimeoutMs === undefined) return this.absoluteEnd(start)
    return start + Math.min(before.absoluteExpiresAt - before.createdAt, this.#options.longestAbsoluteMs)
  }

  /**
   * What gives one session timeouts of its own. `null` goes back to the idle timeout of all. The absolute timeout counts from
   * creation or login: choosing it in every request makes no session that never ends. Nothing else moves it.
   * @throws {SessionError} `INVALID_ARGUMENT` for what a preset forbids, and an idle timeout beyond the absolute one.
   */
  ownTimeouts(
    { createdAt, absoluteExpiresAt }: Pick<SessionData, 'createdAt' | 'absoluteExpiresAt'>,
    idleMs: number | null,
    absoluteMs?: number,
  ): Pick<MetadataChange, 'idleTimeoutMs' | 'absoluteExpiresAt'> {
    const { longestIdleMs, longestAbsoluteMs } = this.#options
    if (absoluteMs !== undefined && absoluteMs > longestAbsoluteMs) throw forbidden('absolute', longestAbsoluteMs)
    if (idleMs !== null && idleMs > longestIdleMs) throw forbidden('idle', longestIdleMs)
    const wholeMs = absoluteMs ?? absoluteExpiresAt - createdAt
    if (idleMs !== null && idleMs > wholeMs) {
      const [idle, whole] = [textOfMs(idleMs), textOfMs(wholeMs)]
      throw invalidArgument(
        `setExpiry() and cookie.maxAge: ${idle} is longer than the absolute timeout, ${whole}, which ends a session whatever ` +
          `happens. For a session that lives so long, write setExpiry('${idle}', { absoluteTimeout: '${idle}' }); with ` +
          'persistent: true, its cookie outlives the browser window. For all sessions, set the option absoluteTimeout.',
      )
    }
    return {
      idleTimeoutMs: idleMs ?? undefined,
      ...(absoluteMs !== undefined && { absoluteExpiresAt: createdAt + absoluteMs }),
    }
  }

  /** When a session that was active at `at` ends if nothing more happens. */
  nextEnd(record: Pick<SessionData, 'idleTimeoutMs' | 'absoluteExpiresAt'>, at: number): number {
    return Math.min(at + (record.idleTimeoutMs ?? this.#options.idleTimeoutMs), record.absoluteExpiresAt)
  }

  /** When this session would end if it were used now. */
  endAfter(record: SessionData): number {
    return this.nextEnd(record, record.effectiveNow(this.now()))
  }

  /** How many seconds the store keeps a record: so that its end can be told, longer than it lives. */
  ttlSeconds(record: Pick<SessionData, 'expiresAt'>, now: number): number {
    return secondsLeft(record, now) + this.#options.retentionSeconds
  }

  /** Whether the session was not used for so long that its logical ID has ended. */
  isLogicalIdOver({ lastAccessedAt }: SessionData): boolean {
    return this.now() - lastAccessedAt >= this.#options.logicalIdTimeoutMs
  }

  /**
   * Whether a record was written by a clock that runs ahead of ours by more than is usual, or ours was set back since. It would
   * be of just now until we have caught up, however old it is.
   */
  isAhead({ createdAt, lastAccessedAt }: SessionData, now: number): boolean {
    return Math.max(createdAt, lastAccessedAt) - now > CLOCK_SKEW_MS
  }

  /** What brings such a record back to our time: the session goes on, and lives no longer for it. */
  settlement(record: SessionData): Pick<SessionChange, 'at' | 'expiresAt' | 'metadata' | 'settlesClock'> {
    const at = this.now()
    const { idleTimeoutMs, userId, tokenSince, cookieEndsAt } = record
    const absoluteEnd = record.absoluteExpiresAt - msToSettle(record, at)
    const { previousToken } = record
    const until = previousToken?.sealed === undefined ? this.graceUntil(at) : absoluteEnd
    return {
      at,
      expiresAt: this.nextEnd({ idleTimeoutMs, absoluteExpiresAt: absoluteEnd }, at),
      metadata: {
        ...(userId !== undefined && { unproven: true }),
        ...(tokenSince !== undefined && { tokenSince: Math.min(tokenSince, at) }),
        ...(cookieEndsAt !== undefined && { cookieEndsAt: Math.min(cookieEndsAt, at) }),
        ...(previousToken && { previousToken: { ...previousToken, until: Math.min(previousToken.until, until) } }),
      },
      settlesClock: true,
    }
  }

  /**
   * Whether the recorded last access is old enough to be moved, or the client's cookie lags behind as far. One that is to come
   * is as old: the store forgets by its own clock, which goes on when ours is set back.
   */
  isTouchDue(record: SessionData): boolean {
    const intervalMs = this.#touchIntervalMs(record)
    if (Math.abs(this.now() - record.lastAccessedAt) >= intervalMs) return true
    return record.cookieEndsAt !== undefined && record.expiresAt - record.cookieEndsAt >= intervalMs
  }

  /**
   * Whether a write from `before` to `after` has to move a persistent cookie, too. A write moves the last access, so no
   * touch comes due while a session is written to; the cookie then moves with one write in each touch interval.
   */
  movesCookie(before: SessionData, after: SessionData): boolean {
    const intervalMs = this.#touchIntervalMs(after)
    const nth = (at: number): number => Math.floor((at - after.createdAt) / intervalMs)
    return intervalMs === 0 || nth(after.lastAccessedAt) > nth(before.lastAccessedAt)
  }

  /** Whether the token has reached the age at which it is replaced. */
  isRenewalDue({ tokenSince, createdAt }: SessionData): boolean {
    return this.now() - (tokenSince ?? createdAt) >= this.#options.renewAfterMs
  }

  /** Until when a token that has given way stays good, once the client has shown at `at` that it has the next one. */
  graceUntil(at: number): number {
    return at + this.#options.renewGraceMs
  }

  /** A session with a short timeout of its own or of its logical ID is touched more often, or activity would not count. */
  #touchIntervalMs(record: SessionData): number {
    const { touchIntervalMs, logicalIdTimeoutMs } = this.#options
    const shortestMs = Math.min(record.idleTimeoutMs ?? Number.POSITIVE_INFINITY, logicalIdTimeoutMs)
    return Math.min(touchIntervalMs, shortestMs / 10)
  }
}

function forbidden(which: 'idle' | 'absolute', longestMs: number): SessionError {
  return invalidArgument(
    `setExpiry() and cookie.maxAge: the preset allows an ${which} timeout of ${textOfMs(longestMs)} at most.`,
  )
}
