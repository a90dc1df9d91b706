// What becomes of a record: changes, touches, regenerations and ends, and how each is applied. Every store does what these
// functions do, in one step. Pure: no clock, no I/O.
import { excessOf, type SessionLimits, type SessionSize } from './limits.js'
import { mergeFields, type PreviousToken, type SessionData, type SessionEnd } from './session-data.js'

/** The part of a record that a change may set; `undefined` as a value removes the entry. */
export interface MetadataChange {
  readonly idleTimeoutMs?: number | undefined
  readonly absoluteExpiresAt?: number
  readonly persistent?: boolean | undefined
  readonly cookieEndsAt?: number | undefined
  readonly userId?: string | number | undefined
  readonly logicalId?: string
  readonly previousToken?: PreviousToken | undefined
  readonly tokenSince?: number
  readonly unproven?: true | undefined
}

/** What `SessionStore.update()` applies to a record, all of it or nothing. */
export interface SessionChange {
  /** The generation that the change was made on. */
  readonly generation: number
  /** When the change was made. The record must be alive at that time. */
  readonly at: number
  /** The new end. An end never moves back, unless `metadata` sets `idleTimeoutMs`. */
  readonly expiresAt: number
  /** Fields to write, encoded. */
  readonly set?: ReadonlyMap<string, string> | undefined
  /** Fields to remove. */
  readonly delete?: readonly string[] | undefined
  /** Apply only if this field, the logical ID or the token hash still holds this text (`undefined`: is still absent). */
  readonly expect?: Expectation
  /** Replace the token, if it is still `from`; the old one becomes the `previousToken`, good until `graceUntil`. */
  readonly renew?: {
    readonly from: string
    readonly to: string
    readonly graceUntil: number
    readonly sealed?: string | undefined
  }
  readonly metadata?: MetadataChange | undefined
  /** The change is no activity: last access and end stay, except for what `metadata` sets. */
  readonly isPassive?: boolean | undefined
  /**
   * The record was written by a clock that ran ahead: what it says of the past becomes `at` where it is later, and `expiresAt`
   * is its end even if that is earlier than before. A session that began later than `at` moves back as a whole: see `msToSettle()`.
   */
  readonly settlesClock?: boolean | undefined
  /** What the session may be at most with it, judged on what is stored when it is applied. Default: no limit. */
  readonly limits?: SessionLimits | undefined
  /** The record that the change was made on. A store that still holds it as it was may spare itself some work. */
  readonly madeOn?: SessionData | undefined
}

/** What a change stands on. */
export type Expectation =
  | { readonly field: string; readonly text: string | undefined }
  | { readonly logicalId: string | undefined }
  | { readonly tokenHash: string }

/** What became of a change. */
export type UpdateResult =
  /** Applied as a whole. `record` is what the session is now, if the store knows that it was as `madeOn` until then. */
  | { readonly status: 'updated'; readonly record?: SessionData }
  /** Not applied: there is no live record of that ID and generation. */
  | { readonly status: 'ended' }
  /** Not applied: `expect` did not hold; `text` is what the field, the logical ID or the token hash is now. */
  | { readonly status: 'conflict'; readonly text: string | undefined }
  /** Not applied: the token was renewed by another request. */
  | { readonly status: 'renewed' }
  /** Not applied: the session would be over its limits, and larger than it is. Its size would be this. */
  | ({ readonly status: 'too-large' } & SessionSize)

/** What became of an ending. */
export type EndResult =
  /** The session was alive, as far as the store can tell, and is over now. */
  | { readonly status: 'ended' }
  /** There was nothing to end. `successor` is the session that took the place of this one, if one did. */
  | { readonly status: 'over'; readonly successor?: string | undefined }

/** What became of a regeneration. */
export type RegenerateResult =
  | { readonly status: 'regenerated'; readonly record: SessionData }
  /** Not done: there is no live record of that ID and generation. */
  | { readonly status: 'ended' }
  /** Not done: the new ID is in use. */
  | { readonly status: 'taken' }
  /** Not done: the new session would be over its limits, and larger than the old one. Its size would be this. */
  | ({ readonly status: 'too-large' } & SessionSize)

/** How one session takes the place of another, in `SessionStore.regenerate()`. */
export interface Regeneration {
  /** The generation of the session that ends. */
  readonly generation: number
  readonly at: number
  /** The session that begins, with the fields that it sets itself. */
  readonly next: SessionData
  /**
   * Which stored fields of the old session go over to the new one, before `next.fields` are laid over them. With `'all'` so
   * does the logical ID, unless `next` has its own.
   */
  readonly keep: 'all' | readonly string[]
  /** Fields not to take over. */
  readonly delete?: readonly string[]
  /** How many seconds the old session's tombstone is kept; it names `next.id` as the successor. */
  readonly tombstoneSeconds: number
  /** Whether that tombstone keeps fields and context, for `archive` to be given them: see `endOfRegenerated()`. */
  readonly unarchived?: true | undefined
  /** What the new session may be at most, with the fields that go over. Default: no limit. */
  readonly limits?: SessionLimits | undefined
  /** When the caller gives up, by `performance.now()`. A store that does it later has logged the client out: see `requireInTime()`. */
  readonly notAfter?: number | undefined
}

/**
 * Applies a change to a record as every store must: all of it to a live record of the same generation, or nothing.
 * Stores that keep `SessionData` call this inside their own lock; a store with scripts says the same in its script.
 */
export function applyChange(
  record: SessionData | null,
  change: SessionChange,
): { result: UpdateResult; record: SessionData | null } {
  if (record === null || record.generation !== change.generation || record.isExpired(change.at)) {
    return { result: { status: 'ended' }, record: null }
  }
  const { expect, renew, metadata } = change
  if (expect) {
    const [wanted, held] = expectation(expect, record)
    if (held !== wanted) return { result: { status: 'conflict', text: held }, record }
  }
  if (renew && record.tokenHash !== renew.from) return { result: { status: 'renewed' }, record }

  let { fields } = record
  if (changesFields(change)) {
    fields = mergeFields(record.fields, change.set, change.delete)
    const excess = excessOf(fields, record.fields, change.limits)
    if (excess !== null) return { result: { status: 'too-large', ...excess }, record }
  }
  const times = timesAfter(record, change)
  const changed =
    metadata === undefined && renew === undefined
      ? record.with({ ...times, fields })
      : record.with({
          ...metadata,
          ...(renew && { tokenHash: renew.to, previousToken: replacedToken(renew) }),
          ...times,
          fields,
        })
  const isAsRead = record === change.madeOn
  return { result: isAsRead ? { status: 'updated', record: changed } : { status: 'updated' }, record: changed }
}

/** What a change stands on, and what the record has there. */
function expectation(expect: Expectation, record: SessionData): [wanted: string | undefined, held: string | undefined] {
  if ('field' in expect) return [expect.text, record.fields.get(expect.field)]
  if ('tokenHash' in expect) return [expect.tokenHash, record.tokenHash]
  return [expect.logicalId, record.logicalId]
}

/** The token that a renewal replaces, as the record keeps it. */
export function replacedToken({ from, graceUntil, sealed }: NonNullable<SessionChange['renew']>): PreviousToken {
  return sealed === undefined ? { hash: from, until: graceUntil } : { hash: from, until: graceUntil, sealed }
}

/** The times of a live record after a change. */
export function timesAfter(
  record: SessionData,
  change: SessionChange,
): Pick<SessionData, 'createdAt' | 'updatedAt' | 'lastAccessedAt' | 'expiresAt' | 'absoluteExpiresAt'> {
  if (change.settlesClock) return settledTimes(record, change)
  const { metadata, isPassive } = change
  const at = record.effectiveNow(change.at)
  const absoluteExpiresAt = metadata?.absoluteExpiresAt ?? record.absoluteExpiresAt
  const mayShorten = metadata !== undefined && 'idleTimeoutMs' in metadata
  const movesEnd = mayShorten || (!isPassive && change.expiresAt > record.expiresAt)
  return {
    createdAt: record.createdAt,
    updatedAt: changesFields(change) ? at : record.updatedAt,
    lastAccessedAt: isPassive ? record.lastAccessedAt : at,
    expiresAt: Math.min(movesEnd ? change.expiresAt : record.expiresAt, absoluteExpiresAt),
    absoluteExpiresAt,
  }
}

/**
 * How far the times of a record move back, all by the same, when its clock is settled: only where it began later than
 * `at`, and then so far that it is as old at `at` as it was at its last access.
 */
export function msToSettle({ createdAt, lastAccessedAt }: SessionData, at: number): number {
  return createdAt > at ? Math.max(createdAt, lastAccessedAt) - at : 0
}

/** The times of a record that a clock has written which ran ahead, as they would be by the clock of `at`. */
function settledTimes(record: SessionData, { at, expiresAt }: SessionChange): ReturnType<typeof timesAfter> {
  const backMs = msToSettle(record, at)
  const absoluteExpiresAt = record.absoluteExpiresAt - backMs
  return {
    createdAt: record.createdAt - backMs,
    updatedAt: Math.min(record.updatedAt - backMs, at),
    lastAccessedAt: Math.min(record.lastAccessedAt - backMs, at),
    expiresAt: Math.min(expiresAt, absoluteExpiresAt),
    absoluteExpiresAt,
  }
}

export function changesFields(change: SessionChange): boolean {
  return (change.set?.size ?? 0) + (change.delete?.length ?? 0) > 0
}

/** Moves the idle timeout of a live record forward to `now + ttlSeconds`, never beyond its absolute end. */
export function applyTouch(record: SessionData | null, ttlSeconds: number, now: number): SessionData | null {
  if (record === null || record.isExpired(now)) return null
  const at = record.effectiveNow(now)
  const expiresAt = Math.min(at + ttlSeconds * 1000, record.absoluteExpiresAt)
  return record.with({ lastAccessedAt: at, expiresAt: Math.max(record.expiresAt, expiresAt) })
}

/** What becomes of a regeneration of `record`, but for an ID that is taken. */
export function applyRegeneration(
  record: SessionData | null,
  regeneration: Regeneration,
): Exclude<RegenerateResult, { status: 'taken' }> {
  const { next, keep } = regeneration
  if (record === null || record.generation !== regeneration.generation || record.isExpired(regeneration.at)) {
    return { status: 'ended' }
  }
  const kept = keep === 'all' ? record.fields : [...record.fields].filter(([name]) => keep.includes(name))
  const logicalId = next.logicalId ?? (keep === 'all' ? record.logicalId : undefined)
  const fields = mergeFields(kept, next.fields, regeneration.delete)
  const excess = excessOf(fields, record.fields, regeneration.limits)
  if (excess !== null) return { status: 'too-large', ...excess }
  return { status: 'regenerated', record: next.with({ logicalId, fields }) }
}

/**
 * The tombstone of a session: what it was, without what only a live session needs; and without its fields and context, unless
 * they are to be archived.
 */
export function applyEnd(record: SessionData, ended: SessionEnd): SessionData {
  const gone = { previousToken: undefined, tokenSince: undefined, cookieEndsAt: undefined, unproven: undefined }
  const { context, fields } = record
  return record.with({
    ended,
    ...gone,
    ...(ended.unarchived ? { context, fields } : { context: undefined, fields: [] }),
  })
}

/** The end of a session that `regeneration` puts another one in the place of. */
export function endOfRegenerated({ at, next, unarchived }: Regeneration): SessionEnd {
  const end = { reason: 'regenerated', at, successor: next.id } as const
  return unarchived ? { ...end, unarchived } : end
}
