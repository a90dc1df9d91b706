// Activities: what happened under a session, told to one hook. The core makes them; what keeps them is a feature.

import { SessionError } from '../errors.js'
import { newActivityId } from '../ids.js'
import { presentRequest } from '../request-scope.js'
import { warnOfFailure } from '../warn.js'
import type { SessionEvents } from './events.js'

/** Something that happened under a session. Holds no secret of ours; what is in `details` is the application's choice. */
export interface Activity {
  /** A UUID v7 (RFC 9562): sorts by time. */
  readonly id: string
  /** When it happened. */
  readonly at: Date
  /** What happened, such as `'order.placed'`; names that begin with `session.` are ours, see `SessionActivityType`. */
  readonly type: string
  /** The logical ID that it happened under, if the session had one. */
  readonly logicalId: string | undefined
  readonly sessionId: string | undefined
  readonly userId: string | number | undefined
  /** More about it: data that JSON can hold. */
  readonly details: Readonly<Record<string, unknown>> | undefined
  /** The request that it happened in, if it was in one. */
  readonly request: ActivityRequest | undefined
}

/** What an activity tells of its request. */
export interface ActivityRequest {
  readonly method: string
  /** The path, without the query. */
  readonly path: string
  /** The client's address, when that is recorded (`clientContext`). */
  readonly ip: string | undefined
}

/** Activities that a session makes by itself. */
export type SessionActivityType =
  | 'session.started'
  | 'session.login'
  | 'session.reauthenticated'
  | 'session.logout'
  | 'session.renewed'
  | 'session.regenerated'
  | 'session.timed-out'
  | 'session.revoked'
  | 'session.destroyed'
  | 'session.used-after-end'
  | 'session.limit'
  | 'session.forgotten'
  | 'session.boundary'
  | 'session.forged-cookie'
  | 'session.csrf-refused'
  | 'session.device-bound'
  | 'session.device-refused'
  | 'session.client-changed'
  | 'session.recovered'
  | 'session.recovery-refused'
  | 'session.request'

/** What `session({ activity })` takes: called with each activity, at once. */
export type ActivityHook = ((activity: Activity) => unknown) | ActivityRecorder

/** An `ActivityHook` that is an object. */
export interface ActivityRecorder {
  /** Takes one activity. What it throws or rejects with becomes a process warning. */
  record(activity: Activity): unknown
  /**
   * Whether each finished request is an activity (`'session.request'`, with status and duration), too.
   * @default false
   */
  readonly wantsRequests?: boolean
}

/** What is known of an activity before it has an ID and a time. */
export type ActivityFacts = Pick<Activity, 'type' | 'sessionId' | 'logicalId' | 'userId'> &
  Partial<Pick<Activity, 'details' | 'request'>>

const MAX_TYPE_LENGTH = 200

/**
 * Checks what an application says of an activity.
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export function checkActivity(type: unknown, details: unknown): void {
  if (typeof type !== 'string' || type === '' || type.length > MAX_TYPE_LENGTH) {
    throw new SessionError('INVALID_ARGUMENT', `The type of an activity is text of 1 to ${MAX_TYPE_LENGTH} characters.`)
  }
  if (details !== undefined && (typeof details !== 'object' || details === null || Array.isArray(details))) {
    throw new SessionError('INVALID_ARGUMENT', 'The details of an activity are an object, such as { orderId }.')
  }
}

/** What records activities, if anything does, and the clock that they go by. */
export interface ActivitySource {
  readonly recorder: ActivityRecorder | undefined
  now(): number
}

/** Gives an activity to the hook, which can harm nothing. Returns it, or `undefined` when there is no hook. */
export function recordActivity(source: ActivitySource, facts: ActivityFacts): Activity | undefined {
  const { recorder } = source
  if (recorder === undefined) return undefined
  const { type, sessionId, logicalId, userId, details, request } = facts
  const at = new Date(source.now())
  const activity: Activity = Object.freeze({
    id: newActivityId(at),
    at,
    type,
    logicalId,
    sessionId,
    userId,
    details,
    request,
  })
  try {
    const returned: unknown = recorder.record(activity)
    if (returned instanceof Promise) returned.catch((error) => warnOfFailure('The activity hook', error))
  } catch (error) {
    warnOfFailure('The activity hook', error)
  }
  return activity
}

/** Makes activities of what a session goes through. */
export function recordEvents(source: ActivitySource, events: SessionEvents): void {
  if (source.recorder === undefined) return
  const tell = (
    type: SessionActivityType,
    about: { id?: string | undefined; userId?: string | number | undefined; logicalId?: string | undefined },
    details?: Readonly<Record<string, unknown>>,
  ): void => {
    const { id: sessionId, userId, logicalId } = about
    const request = presentRequest() as ActivityRequest | undefined
    recordActivity(source, { type, sessionId, logicalId, userId, details, request })
  }
  events.on('created', (event) => tell('session.started', event))
  events.on('login', (event) => tell('session.login', event, { previousSessionId: event.previousId }))
  events.on('reauthenticated', (event) =>
    tell('session.reauthenticated', event, { previousSessionId: event.previousId }),
  )
  events.on('logout', (event) => tell('session.logout', event))
  events.on('renewed', (event) => tell('session.renewed', event))
  events.on('regenerated', (event) => tell('session.regenerated', event, { previousSessionId: event.previousId }))
  events.on('expired', (event) => tell('session.timed-out', event, { reason: event.reason }))
  events.on('revoked', (event) => tell('session.revoked', event, { by: event.by, detail: event.detail }))
  events.on('destroyed', (event) => tell('session.destroyed', event))
  events.on('usedAfterEnd', (event) => tell('session.used-after-end', event, { reason: event.end.reason }))
  events.on('limit', (event) => tell('session.limit', event, { outcome: event.outcome, ended: event.ended }))
  // Not of the request that it made room for, which is another client's.
  events.on('forgotten', ({ id: sessionId, userId, logicalId }) => {
    recordActivity(source, { type: 'session.forgotten', sessionId, logicalId, userId })
  })
  events.on('badCookie', ({ reason }) => tell('session.forged-cookie', {}, { reason }))
  events.on('tokenMismatch', (event) => tell('session.forged-cookie', event, { reason: 'token' }))
  events.on('csrfRefused', (event) => tell('session.csrf-refused', event, { reason: event.reason }))
  events.on('deviceBound', (event) => tell('session.device-bound', event, { algorithm: event.algorithm }))
  events.on('deviceRefused', (event) => tell('session.device-refused', event, { reason: event.reason }))
  events.on('clientChanged', (event) =>
    tell('session.client-changed', event, { changed: event.changed, outcome: event.outcome }),
  )
  events.on('recovered', (event) => tell('session.recovered', event, { from: event.from, how: event.how }))
  events.on('recoveryRefused', (event) => tell('session.recovery-refused', event, { reason: event.reason }))
  events.on('boundary', ({ id, userId, from, to, cause }) =>
    tell('session.boundary', { id, userId, logicalId: to }, { from, to, cause }),
  )
}
