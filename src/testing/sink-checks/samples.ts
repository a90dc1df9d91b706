// Activities to check a sink with, and what the checks say when it breaks a promise.

import type { Activity } from '../../events/activity-hook.js'
import type { ActivityArchive, ActivityPageQuery } from '../../features/activity/sinks/sink.js'
import { newActivityId, newLogicalId, newSessionId } from '../../ids.js'
import { equal, HOSTILE, sameResult } from '../samples.js'

/** Reads what a sink that is no archive has kept. */
export type Read = () => Promise<readonly Activity[]>
/** One check of an archive. `peer` is another sink on the same data, or the archive itself. */
export type ArchiveCheck = (archive: ActivityArchive, peer: ActivityArchive) => Promise<void>

const HOUR_MS = 3_600_000
/** Before whatever else an archive holds. */
export const LONG_AGO = Date.UTC(1985, 0, 1)

/** A time that is over, and not older than any sensible retention. */
export function recently(): number {
  return Date.now() - HOUR_MS
}

let made = 0

export function newType(): string {
  return `check.${newLogicalId()}`
}

export function activity(parts: Partial<Activity> = {}): Activity {
  const at = parts.at ?? new Date(recently() + (made % 1_000))
  return {
    id: newActivityId(at),
    at,
    type: 'check',
    logicalId: newLogicalId(),
    sessionId: newSessionId(),
    userId: undefined,
    details: { n: made++ },
    request: undefined,
    ...parts,
  }
}

/** Activities of one session, a millisecond apart. */
export function series(count: number): Activity[] {
  const [sessionId, at] = [newSessionId(), recently()]
  return Array.from({ length: count }, (_, n) => activity({ sessionId, at: new Date(at + n) }))
}

export function hostileActivity(): Activity {
  const lone = '\ud800 \udc00'
  return activity({
    type: HOSTILE,
    sessionId: `${HOSTILE}${lone}`,
    logicalId: `${lone}${'x'.repeat(5_000)}${HOSTILE}`,
    userId: `${HOSTILE}${lone}`,
    details: JSON.parse(
      JSON.stringify({ [HOSTILE]: [HOSTILE, lone], '\u2028': '\u2029' }).replace(
        '{',
        '{"__proto__":{"polluted":true},',
      ),
    ) as Record<string, unknown>,
    request: { method: HOSTILE, path: `/${HOSTILE}${lone}`, ip: HOSTILE },
  })
}

export async function all(archive: ActivityArchive, query: ActivityPageQuery): Promise<Activity[]> {
  const found: Activity[] = []
  let after: string | undefined
  do {
    const page: Awaited<ReturnType<ActivityArchive['page']>> = await archive.page({ ...query, after })
    if (page.next !== undefined)
      equal(page.activities.length, query.limit ?? 100, 'the length of a page before the last')
    found.push(...page.activities)
    after = page.next
  } while (after !== undefined)
  return found
}

export function sameActivity(found: Activity, expected: Activity): void {
  equal(found.at instanceof Date, true, 'whether `at` is a Date')
  equal(typeof found.userId, typeof expected.userId, 'the kind of the user ID')
  sameResult(parts(found), parts(expected))
}

/** Everything as JSON, with what is undefined said as null. */
function parts({ id, at, type, logicalId, sessionId, userId, details, request }: Activity): unknown {
  const { method, path, ip } = request ?? {}
  return {
    id,
    at: at.getTime(),
    type,
    logicalId: logicalId ?? null,
    sessionId: sessionId ?? null,
    userId: userId ?? null,
    // As text, so that a key `__proto__` is not lost here.
    details: details === undefined ? null : JSON.stringify(details),
    request: request === undefined ? null : { method, path, ip: ip ?? null },
  }
}

export function sameIds(found: readonly Activity[], expected: readonly Activity[]): void {
  equal(found.map(({ id }) => id).join(' '), expected.map(({ id }) => id).join(' '), 'the IDs')
}

export async function refused(call: Promise<unknown>, what: string): Promise<void> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  equal((error as { code?: unknown } | undefined)?.code, 'INVALID_ARGUMENT', `the code of the error of ${what}`)
}

export function deepFreeze(value: Activity): Activity {
  Object.freeze(value.details)
  return Object.freeze(value)
}
