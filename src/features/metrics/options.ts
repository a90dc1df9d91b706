// What both adapters of metrics take, and whose sessions they measure.

import { type Duration, milliseconds } from '../../duration.js'
import { invalidOption } from '../../errors.js'
import type { SessionManager, SessionMiddleware } from '../../manager/manager.js'
import { ActiveSessions } from './active-sessions.js'

/** Whose sessions are measured: a `SessionManager`, or the middleware that `session()` returns. */
export type MeasuredSessions = SessionManager | SessionMiddleware

/** What both adapters take. */
export interface MetricsOptions {
  /**
   * How the live sessions are counted: by going through the whole store, whatever the number of processes. `false` in all of
   * them but one spares the store. A store that cannot be gone through (`scan`) has no such metric.
   * @default { interval: '1m', max: 100_000 }
   */
  readonly activeSessions?: false | ActiveSessionsOptions | undefined
  /**
   * Upper bounds of the histogram of store calls, in seconds, ascending.
   * @default [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
   */
  readonly buckets?: readonly number[] | undefined
}

/** How live sessions are counted. */
export interface ActiveSessionsOptions {
  /**
   * How long a count is good for. A count that takes long is good for nine times as long as it took, at least. Nothing is
   * counted unless somebody collects.
   * @default '1m'
   */
  readonly interval?: Duration | undefined
  /**
   * Where counting stops: this number stands for itself and for all above it.
   * @default 100_000
   */
  readonly max?: number | undefined
}

const DEFAULT_BUCKETS: readonly number[] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** The manager of the sessions that are measured. */
export function managerOf(sessions: MeasuredSessions): SessionManager {
  const manager = 'manager' in sessions ? sessions.manager : sessions
  // By shape, not by class: the manager may come from the package's other build.
  if (!isFunction(manager?.events?.on) || !isFunction(manager.list)) {
    throw invalidOption('The sessions are a SessionManager, or the middleware that session() returned.')
  }
  return manager
}

/** Checks the options. `active` is `null` where live sessions are not counted. */
export function resolveOptions(
  manager: SessionManager,
  { activeSessions = {}, buckets = DEFAULT_BUCKETS }: MetricsOptions,
): { buckets: readonly number[]; active: ActiveSessions | null } {
  const areAscending =
    Array.isArray(buckets) && buckets.every((bound, index) => bound > (buckets[index - 1] ?? 0) && bound < Infinity)
  if (!areAscending) throw invalidOption('buckets are seconds above 0, ascending, such as [0.001, 0.01, 0.1, 1].')
  if (activeSessions === false) return { buckets, active: null }
  if (typeof activeSessions !== 'object' || activeSessions === null) {
    throw invalidOption("activeSessions is false, or an object such as { interval: '1m', max: 100_000 }.")
  }
  const { interval = '1m', max = 100_000 } = activeSessions
  const intervalMs = milliseconds(interval, 'activeSessions.interval')
  if (!Number.isSafeInteger(max) || max < 1) throw invalidOption('activeSessions.max is a whole number, at least 1.')
  if (manager.store.scan === undefined) return { buckets, active: null }
  return { buckets, active: new ActiveSessions(manager, { intervalMs, max }) }
}

export function isFunction(value: unknown): boolean {
  return typeof value === 'function'
}
