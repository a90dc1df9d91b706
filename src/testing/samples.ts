// Records to check a store with, and what the checks say when it breaks a promise. Free of any test runner.
import { isSessionError } from '../errors.js'
import { newSessionId, newToken } from '../ids.js'
import type { Regeneration, SessionChange } from '../record/changes.js'
import { type SessionContext, SessionData, type SessionEnd } from '../record/session-data.js'
import type { SessionStore } from '../record/store.js'

/** One check: rejects when a store breaks the promise. `peer` is another store on the same data, or `store` itself. */
export type Check = (store: SessionStore, peer: SessionStore) => Promise<void>

export const ONE_FIELD: ReadonlyMap<string, string> = new Map([['late', 'true']])
export const HOUR_MS = 3_600_000

/** Text that a store may neither interpret nor alter. */
export const HOSTILE = 'ü "\\ \' {a} * ? $1 %s \r\n \u0000 \uFFFF \u{1F36A} __proto__'

export interface SampleOptions {
  fields?: Record<string, string>
  userId?: string | number | undefined
  unproven?: true
  generation?: number
  idleTimeoutMs?: number
  persistent?: boolean
  previousToken?: { hash: string; until: number }
  logicalId?: string
  context?: SessionContext
  epoch?: number
  /** Milliseconds since it was made and last used. */
  age?: number
  /** Milliseconds from its making to its end. */
  life?: number
}

export function sample({
  fields = {},
  generation = 1,
  age = 0,
  life = HOUR_MS,
  ...rest
}: SampleOptions = {}): SessionData {
  const createdAt = Date.now() - age
  return new SessionData({
    ...rest,
    id: newSessionId(),
    tokenHash: newToken().tokenHash,
    generation,
    createdAt,
    updatedAt: createdAt,
    lastAccessedAt: createdAt,
    expiresAt: createdAt + life,
    absoluteExpiresAt: createdAt + 12 * HOUR_MS,
    fields: Object.entries(fields),
  })
}

export function changeOf(record: SessionData, parts: Partial<SessionChange> = {}): SessionChange {
  const at = Date.now()
  return { generation: record.generation, at, expiresAt: at + HOUR_MS, ...parts }
}

export function successor(record: SessionData, options: Pick<SampleOptions, 'fields' | 'userId'> = {}): SessionData {
  return sample({ ...options, generation: record.generation + 1 }).with({ id: newSessionId(record.id) })
}

export function regenerationOf(
  record: SessionData,
  next: SessionData,
  parts: Partial<Regeneration> = {},
): Regeneration {
  return { generation: record.generation, at: Date.now(), next, keep: 'all', tombstoneSeconds: 60, ...parts }
}

export function endOf(parts: Partial<SessionEnd> = {}): SessionEnd {
  return { reason: 'revoked', at: Date.now(), ...parts }
}

export function concurrently<T>(count: number, task: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_unused, index) => task(index)))
}

/** Runs `task` after the event loop has turned so often. */
export async function afterTurns<T>(turns: number, task: () => Promise<T>): Promise<T> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
  return task()
}

export function pick(index: number, store: SessionStore, peer: SessionStore): SessionStore {
  return index % 2 === 0 ? store : peer
}

export async function must(store: SessionStore, id: string): Promise<SessionData> {
  const record = await store.get(id)
  if (record === null) throw new Error('Expected a record; get() resolved to null.')
  return record
}

export function attempt(action: () => void): void {
  try {
    action()
  } catch {
    // Refusing is as good as ignoring.
  }
}

/** A call that comes too late has to say so: whoever waits for it must not take it for done, nor for not done by chance. */
export async function tooLate(what: string, call: Promise<unknown>): Promise<void> {
  const answer = await call.then(
    () => 'an answer',
    (error: unknown) => (isSessionError(error) ? error.code : String(error)),
  )
  equal(answer, 'STORE_TIMEOUT', `${what} that comes after "notAfter" (see requireInTime())`)
}

export function equal(found: unknown, expected: unknown, what: string): void {
  if (!Object.is(found, expected)) {
    throw new Error(`Expected ${what} to be ${String(expected)}, found ${String(found)}.`)
  }
}

export function sameResult(found: unknown, expected: unknown): void {
  equal(canonical(found), canonical(expected), 'the result')
}

export function same(found: SessionData | null, expected: SessionData): void {
  equal(canonical(found?.toJSON()), canonical(expected.toJSON()), 'the record')
}

export function sameFields(record: SessionData, expected: Record<string, string>): void {
  equal(canonical(Object.fromEntries(record.fields)), canonical(expected), 'the fields')
}

/** JSON with keys in order, since a store may return fields in any. */
function canonical(value: unknown): string {
  return JSON.stringify(value ?? null, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}
