// What is counted, in one table, and the events that count it. Both adapters take the names from here, each in its spelling.

import type { SessionErrorCode } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import { END_REASONS } from '../../record/session-data.js'

/** Which operation of the store was called, for OpenTelemetry. */
export const OPERATION = 'sojourn.store.operation'
/** Of the general semantic conventions. */
export const ERROR_TYPE = 'error.type'

interface CounterFacts {
  /** Below `sojourn.`, in the spelling of OpenTelemetry. */
  readonly name: string
  /** UCUM, as the conventions of OpenTelemetry want it. */
  readonly unit: string
  readonly help: string
  readonly labels: readonly {
    /** For Prometheus. */
    readonly label: string
    /** For OpenTelemetry. */
    readonly attribute: string
    /** All that there are, when that is known. */
    readonly values?: readonly string[]
  }[]
}

/** What is counted. */
export type CounterName =
  | 'started'
  | 'ended'
  | 'logins'
  | 'reauthentications'
  | 'requiredProofs'
  | 'renewals'
  | 'commits'
  | 'conflicts'
  | 'lateWrites'
  | 'rejectedCookies'
  | 'refusedRequests'
  | 'devicesOffered'
  | 'devicesBound'
  | 'deviceProofs'
  | 'refusedDevices'
  | 'changedClients'
  | 'secretChanges'
  | 'secretRefusals'
  | 'unreadable'
  | 'storeErrors'

/** The table. */
export const COUNTERS: Readonly<Record<CounterName, CounterFacts>> = {
  started: {
    name: 'session.started',
    unit: '{session}',
    help: 'New sessions that were stored.',
    labels: [],
  },
  ended: {
    name: 'session.ended',
    unit: '{session}',
    help: 'Sessions that are over. A regenerated one goes on under another ID.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.session.end_reason',
        values: END_REASONS,
      },
    ],
  },
  logins: { name: 'session.logins', unit: '{login}', help: 'Logins of users.', labels: [] },
  reauthentications: {
    name: 'session.reauthentications',
    unit: '{proof}',
    help: 'Users who proved again who they are.',
    labels: [],
  },
  requiredProofs: {
    name: 'session.required_proofs',
    unit: '{request}',
    help: 'Requests that requireRecentAuth() and requireLevel() did not let through.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.proof.required_reason',
        values: ['nobody', 'age', 'level'],
      },
    ],
  },
  renewals: {
    name: 'session.renewals',
    unit: '{renewal}',
    help: 'Tokens that were replaced by a new one.',
    labels: [],
  },
  commits: { name: 'session.commits', unit: '{commit}', help: 'Changes of sessions that were stored.', labels: [] },
  conflicts: {
    name: 'session.conflicts',
    unit: '{conflict}',
    help: 'Runs of update() that another request was quicker than.',
    labels: [],
  },
  lateWrites: {
    name: 'session.late_writes',
    unit: '{write}',
    help: 'Writes that were dropped because their session had ended.',
    labels: [],
  },
  rejectedCookies: {
    name: 'session.rejected_cookies',
    unit: '{cookie}',
    help: 'Session cookies that opened nothing, but for those of sessions that ran out.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.cookie.rejection_reason',
        values: ['malformed', 'signature', 'unknown-session', 'token-mismatch', 'used-after-end', 'conflict'],
      },
    ],
  },
  refusedRequests: {
    name: 'session.refused_requests',
    unit: '{request}',
    help: 'Requests that csrf() refused.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.csrf.refusal_reason',
        values: ['fetch-metadata', 'origin', 'referer', 'token-missing', 'token-wrong'],
      },
    ],
  },
  secretChanges: {
    name: 'secrets.changes',
    unit: '{change}',
    help: 'Times that the secrets were changed at run time.',
    labels: [],
  },
  secretRefusals: {
    name: 'secrets.refusals',
    unit: '{change}',
    help: 'Times that new secrets were no good, and those of before went on.',
    labels: [],
  },
  changedClients: {
    name: 'session.changed_clients',
    unit: '{client}',
    help: 'Clients that used a session which is bound to another one.',
    labels: [
      {
        label: 'outcome',
        attribute: 'sojourn.client.outcome',
        values: ['told', 'challenged', 'ended'],
      },
    ],
  },
  devicesOffered: {
    name: 'session.devices_offered',
    unit: '{login}',
    help: 'Logins that offered the browser to register a key.',
    labels: [],
  },
  devicesBound: {
    name: 'session.devices_bound',
    unit: '{session}',
    help: 'Sessions that were bound to a device.',
    labels: [],
  },
  deviceProofs: {
    name: 'session.device_proofs',
    unit: '{proof}',
    help: 'Proofs of a device that were right, and gave another bound cookie.',
    labels: [],
  },
  refusedDevices: {
    name: 'session.refused_devices',
    unit: '{request}',
    help: 'Requests that deviceBound() and requireDevice() refused.',
    labels: [
      {
        label: 'reason',
        attribute: 'sojourn.device.refusal_reason',
        values: ['no-proof', 'unbound', 'malformed', 'signature', 'challenge', 'second-key', 'no-login'],
      },
    ],
  },
  unreadable: {
    name: 'store.unreadable',
    unit: '{reading}',
    help: 'Times that a record, a field or a key was there and could not be read.',
    labels: [
      {
        label: 'what',
        attribute: 'sojourn.store.unreadable',
        values: ['record', 'field', 'key'],
      },
    ],
  },
  storeErrors: {
    name: 'store.errors',
    unit: '{error}',
    help: 'Store calls that failed or missed their deadline.',
    labels: [
      { label: 'operation', attribute: OPERATION },
      { label: 'code', attribute: ERROR_TYPE },
    ],
  },
}

export const COUNTER_NAMES = Object.keys(COUNTERS) as readonly CounterName[]

export const STORE_CALLS = { name: 'store.call.duration', help: 'How long store calls took.' }
export const ACTIVE_SESSIONS = { name: 'active_sessions', help: 'Live sessions in the store.' }

/** One of whatever `make` makes for each counter. */
export function forEachCounter<T>(make: (key: CounterName) => T): Readonly<Record<CounterName, T>> {
  return Object.fromEntries(COUNTER_NAMES.map((key) => [key, make(key)])) as Record<CounterName, T>
}

/** What a metrics system counts with. */
interface Instruments {
  count(key: CounterName, ...values: readonly string[]): void
  storeCall(operation: string, seconds: number, error: SessionErrorCode | undefined): void
}

/** Counts events, until the function that it returns is called. */
export function listen(manager: SessionManager, { count, storeCall }: Instruments): () => void {
  const { events } = manager
  const noticed = new RecentIds()
  const stops = [
    events.on('created', () => count('started')),
    events.on('ended', ({ id, reason, isRemote }) => {
      // What another process ended, that counts.
      if (!isRemote && !noticed.has(id)) count('ended', reason)
    }),
    events.on('login', () => count('logins')),
    events.on('reauthenticated', () => count('reauthentications')),
    events.on('reauthenticationRequired', ({ reason }) => count('requiredProofs', reason)),
    events.on('renewed', () => count('renewals')),
    events.on('committed', () => count('commits')),
    events.on('conflict', () => count('conflicts')),
    events.on('lateWrite', () => count('lateWrites')),
    events.on('badCookie', ({ reason }) => count('rejectedCookies', reason)),
    events.on('unknownSession', () => count('rejectedCookies', 'unknown-session')),
    events.on('tokenMismatch', () => count('rejectedCookies', 'token-mismatch')),
    events.on('usedAfterEnd', () => count('rejectedCookies', 'used-after-end')),
    events.watch('cookieConflict', () => count('rejectedCookies', 'conflict')),
    events.on('csrfRefused', ({ reason }) => count('refusedRequests', reason)),
    events.on('deviceOffered', () => count('devicesOffered')),
    events.on('deviceBound', () => count('devicesBound')),
    events.on('deviceProved', () => count('deviceProofs')),
    events.on('deviceRefused', ({ reason }) => count('refusedDevices', reason)),
    events.on('secretsChanged', () => count('secretChanges')),
    events.watch('secretsRefused', () => count('secretRefusals')),
    events.watch('clientChanged', ({ outcome }) => count('changedClients', outcome)),
    events.watch('corruptRecord', ({ field }) => count('unreadable', field === undefined ? 'record' : 'field')),
    events.watch('corruptKey', () => count('unreadable', 'key')),
    events.on('storeCall', ({ operation, durationMs, error }) => {
      storeCall(operation, durationMs / 1000, error)
      if (error !== undefined) count('storeErrors', operation, error)
    }),
  ]
  // A clean-up ends each session that ran out, once. Without one only cookies tell, and the same one may come again.
  if (!(Number(manager.describe()['cleanupIntervalMs']) > 0)) {
    const stop = events.on('expired', ({ id, reason }) => {
      if (noticed.add(id)) count('ended', reason)
    })
    stops.push(stop)
  }
  return () => {
    for (const stop of stops) stop()
  }
}

/** The last IDs that were added. */
class RecentIds {
  static readonly #MAX = 10_000
  readonly #ids = new Set<string>()

  has(id: string): boolean {
    return this.#ids.has(id)
  }

  /** Whether it is a new one. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false
    this.#ids.add(id)
    if (this.#ids.size > RecentIds.#MAX) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest)
        break
      }
    }
    return true
  }
}
