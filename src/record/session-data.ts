// What a store keeps of a session, how a change is applied to it, and when it ends. Pure: no clock, no I/O.
import { SessionError } from '../errors.js'
import { excessOf, type SessionLimits, type SessionSize } from './limits.js'

/** Everything a `SessionData` is made of. All times are milliseconds since the epoch, as `Date.now()` gives them. */
export interface SessionDataInit {
  /** The public session ID, a UUID. */
  readonly id: string
  /** SHA-256 of the token, base64url. The token itself is never stored. */
  readonly tokenHash: string
  /** The token before the last `renew()`, still good until `until`. */
  readonly previousToken?: PreviousToken | undefined
  /** When the present token was issued, if that was after the session began. */
  readonly tokenSince?: number | undefined
  /** Counts regenerations, from 1. A change made on another generation is not applied. */
  readonly generation: number
  readonly createdAt: number
  /** When fields last changed. */
  readonly updatedAt: number
  /** When the session was last active, to within the touch interval. */
  readonly lastAccessedAt: number
  /** When the session ends if nothing more happens: the idle timeout, or the absolute one when that comes first. */
  readonly expiresAt: number
  /** When the session ends whatever happens. */
  readonly absoluteExpiresAt: number
  /** This session's own idle timeout in milliseconds, when `setExpiry()` gave it one. */
  readonly idleTimeoutMs?: number | undefined
  /** Whether the cookie outlives the browser session, when this session has its own answer. */
  readonly persistent?: boolean | undefined
  /**
   * When the client's persistent cookie ends, as far as it was told, once the session's end has moved without it: by a socket,
   * a stream, or the manager.
   */
  readonly cookieEndsAt?: number | undefined
  /** Who is logged in. */
  readonly userId?: string | number | undefined
  /** The application's own correlation ID, once it differs from the one that the session ID stands for. */
  readonly logicalId?: string | undefined
  /** What was known of the client when the session began. */
  readonly context?: SessionContext | undefined
  /** How often all sessions had been revoked when this one began; default 0. */
  readonly epoch?: number | undefined
  /** How the session ended. A record that has this is a tombstone: no fields, and never alive again. */
  readonly ended?: SessionEnd | undefined
  /** The application's fields, each already encoded to text. */
  readonly fields: Iterable<readonly [string, string]>
}

/** A token that has been replaced. */
export interface PreviousToken {
  /** SHA-256, base64url. */
  readonly hash: string
  readonly until: number
  /**
   * The present token as only who has this one can read it, until the client has shown that it has the present one. A client
   * that lost the response with it is given it again.
   */
  readonly sealed?: string | undefined
}

/** What was known of the client when a session began. */
export interface SessionContext {
  /** The client's address, as far as trusted proxies tell it. */
  readonly ip?: string
  readonly userAgent?: string
  readonly referrer?: string
  /** The language that the client asked for first, as a tag of BCP 47. */
  readonly locale?: string
}

/** Why a session is over: it ran out (`idle`, `absolute`), or something ended it. */
export type EndReason = ExpiryReason | 'logout' | 'destroyed' | 'regenerated' | 'revoked' | 'limit'

/** Which of its timeouts a session ran into. */
export type ExpiryReason = 'idle' | 'absolute'

/** How a session ended. */
export interface SessionEnd {
  readonly reason: EndReason
  readonly at: number
  /** Who ended it, as the caller named them. */
  readonly by?: string | undefined
  /** More on the reason, in the caller's words. */
  readonly detail?: string | undefined
  /** The ID of the session that took its place. */
  readonly successor?: string | undefined
}

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
  /** What the new session may be at most, with the fields that go over. Default: no limit. */
  readonly limits?: SessionLimits | undefined
}

/** `SessionData` as JSON, times in ISO 8601 (UTC). */
export interface SessionDataJSON {
  id: string
  tokenHash: string
  previousToken?: { hash: string; until: string; sealed?: string | undefined }
  tokenSince?: string
  generation: number
  createdAt: string
  updatedAt: string
  lastAccessedAt: string
  expiresAt: string
  absoluteExpiresAt: string
  idleTimeoutMs?: number
  persistent?: boolean
  cookieEndsAt?: string
  userId?: string | number
  logicalId?: string
  context?: SessionContext
  epoch?: number
  ended?: Omit<SessionEnd, 'at'> & { at: string }
  fields: Record<string, string>
}

/**
 * The record of one session: metadata and encoded fields. Immutable, so a store may hand out the instance it keeps.
 *
 * Times are milliseconds since the epoch; `toJSON()` writes them as ISO 8601 and `fromJSON()` reads them back.
 */
export class SessionData {
  readonly id: string
  readonly tokenHash: string
  readonly previousToken: PreviousToken | undefined
  readonly tokenSince: number | undefined
  readonly generation: number
  readonly createdAt: number
  readonly updatedAt: number
  readonly lastAccessedAt: number
  readonly expiresAt: number
  readonly absoluteExpiresAt: number
  readonly idleTimeoutMs: number | undefined
  readonly persistent: boolean | undefined
  readonly cookieEndsAt: number | undefined
  readonly userId: string | number | undefined
  readonly logicalId: string | undefined
  readonly context: SessionContext | undefined
  readonly epoch: number
  readonly ended: SessionEnd | undefined
  readonly fields: ReadonlyMap<string, string>

  constructor(init: SessionDataInit) {
    this.id = init.id
    this.tokenHash = init.tokenHash
    this.previousToken = frozen(init.previousToken)
    this.tokenSince = init.tokenSince
    this.generation = init.generation
    this.createdAt = init.createdAt
    this.updatedAt = init.updatedAt
    this.lastAccessedAt = init.lastAccessedAt
    this.expiresAt = init.expiresAt
    this.absoluteExpiresAt = init.absoluteExpiresAt
    this.idleTimeoutMs = init.idleTimeoutMs
    this.persistent = init.persistent
    this.cookieEndsAt = init.cookieEndsAt
    this.userId = init.userId
    this.logicalId = init.logicalId
    this.context = frozen(init.context)
    this.epoch = init.epoch ?? 0
    this.ended = frozen(init.ended)
    this.fields = init.fields instanceof FieldMap ? init.fields : readOnly(new Map(init.fields))
    Object.freeze(this)
  }

  /** Whether the session is over at `now` (milliseconds since the epoch, default: the present), for whatever reason. */
  isExpired(now = Date.now()): boolean {
    return this.ended !== undefined || this.expiryReason(now) !== null
  }

  /** Which timeout the session has run into at `now`, or `null`. The later of two ends never counts. */
  expiryReason(now: number): ExpiryReason | null {
    if (now >= this.absoluteExpiresAt) return 'absolute'
    const idleSince = this.idleTimeoutMs === undefined ? 0 : now - this.lastAccessedAt
    if (now >= this.expiresAt || (this.idleTimeoutMs !== undefined && idleSince >= this.idleTimeoutMs)) return 'idle'
    return null
  }

  /**
   * The moment a change made at `now` counts as. The record proves that its own last access has happened, so a clock
   * that was set back extends nothing.
   */
  effectiveNow(now: number): number {
    return Math.max(now, this.lastAccessedAt)
  }

  /** A copy with some members replaced. */
  with(members: Partial<SessionDataInit>): SessionData {
    return new SessionData({ ...this, ...members })
  }

  /** A copy in which one field holds `text`, or is absent. */
  withField(name: string, text: string | undefined): SessionData {
    const set = text === undefined ? undefined : new Map([[name, text]])
    return this.with({ fields: mergeFields(this.fields, set, text === undefined ? [name] : undefined) })
  }

  toJSON(): SessionDataJSON {
    return {
      id: this.id,
      tokenHash: this.tokenHash,
      ...(this.previousToken && {
        previousToken: { ...this.previousToken, until: iso(this.previousToken.until) },
      }),
      ...(this.tokenSince !== undefined && { tokenSince: iso(this.tokenSince) }),
      generation: this.generation,
      createdAt: iso(this.createdAt),
      updatedAt: iso(this.updatedAt),
      lastAccessedAt: iso(this.lastAccessedAt),
      expiresAt: iso(this.expiresAt),
      absoluteExpiresAt: iso(this.absoluteExpiresAt),
      ...(this.idleTimeoutMs !== undefined && { idleTimeoutMs: this.idleTimeoutMs }),
      ...(this.persistent !== undefined && { persistent: this.persistent }),
      ...(this.cookieEndsAt !== undefined && { cookieEndsAt: iso(this.cookieEndsAt) }),
      ...(this.userId !== undefined && { userId: this.userId }),
      ...(this.logicalId !== undefined && { logicalId: this.logicalId }),
      ...(this.context !== undefined && { context: this.context }),
      ...(this.epoch !== 0 && { epoch: this.epoch }),
      ...(this.ended !== undefined && { ended: { ...this.ended, at: iso(this.ended.at) } }),
      fields: Object.fromEntries(this.fields),
    }
  }

  /**
   * Reads what `toJSON()` wrote, from the object or from its text.
   * @throws {SessionError} `CORRUPT_RECORD` when anything is missing or of the wrong type.
   */
  static fromJSON(json: unknown): SessionData {
    const record = typeof json === 'string' ? parse(json) : json
    if (!isObject(record)) throw corrupt('it is not an object')
    const { previousToken, tokenSince, fields, idleTimeoutMs, persistent, userId, logicalId, context, epoch, ended } =
      record
    if (!isObject(fields)) throw corrupt('fields is not an object')
    const entries = Object.entries(fields)
    for (const [, text] of entries) if (typeof text !== 'string') throw corrupt('a field is not a string')
    if (previousToken !== undefined && !isObject(previousToken)) throw corrupt('previousToken is not an object')
    if (persistent !== undefined && typeof persistent !== 'boolean') throw corrupt('persistent is not a boolean')
    // A session whose user cannot be read must not go on as nobody's.
    if (userId !== undefined && !isUserId(userId)) throw corrupt('userId is neither text nor a number')
    return new SessionData({
      id: text(record, 'id'),
      tokenHash: text(record, 'tokenHash'),
      previousToken: previousToken && {
        hash: text(previousToken, 'hash'),
        until: time(previousToken, 'until'),
        ...(previousToken['sealed'] !== undefined && { sealed: text(previousToken, 'sealed') }),
      },
      tokenSince: tokenSince === undefined ? undefined : time(record, 'tokenSince'),
      generation: count(record, 'generation'),
      createdAt: time(record, 'createdAt'),
      updatedAt: time(record, 'updatedAt'),
      lastAccessedAt: time(record, 'lastAccessedAt'),
      expiresAt: time(record, 'expiresAt'),
      absoluteExpiresAt: time(record, 'absoluteExpiresAt'),
      idleTimeoutMs: idleTimeoutMs === undefined ? undefined : count(record, 'idleTimeoutMs'),
      persistent,
      cookieEndsAt: record['cookieEndsAt'] === undefined ? undefined : time(record, 'cookieEndsAt'),
      userId,
      logicalId: logicalId === undefined ? undefined : text(record, 'logicalId'),
      context: context === undefined ? undefined : readContext(context),
      epoch: epoch === undefined ? 0 : count(record, 'epoch'),
      ended: ended === undefined ? undefined : readEnd(isObject(ended) ? { ...ended, at: time(ended, 'at') } : ended),
      fields: entries as [string, string][],
    })
  }
}

/**
 * A context from a store's own format.
 * @throws {SessionError} `CORRUPT_RECORD` when it is not one.
 */
export function readContext(value: unknown): SessionContext {
  if (!isObject(value)) throw corrupt('context is not an object')
  return texts(value, ['ip', 'userAgent', 'referrer', 'locale'])
}

/**
 * An end from a store's own format, its time in milliseconds.
 * @throws {SessionError} `CORRUPT_RECORD` when it is not one.
 */
export function readEnd(value: unknown): SessionEnd {
  if (!isObject(value) || typeof value['at'] !== 'number') throw corrupt('ended is not an end')
  if (!END_REASONS.includes(value['reason'] as EndReason)) throw corrupt('ended has an unknown reason')
  const { by, detail, successor } = texts<Pick<SessionEnd, 'by' | 'detail' | 'successor'>>(value, [
    'by',
    'detail',
    'successor',
  ])
  return { reason: value['reason'] as EndReason, at: value['at'], by, detail, successor }
}

/** All of them. */
export const END_REASONS: readonly EndReason[] = [
  'idle',
  'absolute',
  'logout',
  'destroyed',
  'regenerated',
  'revoked',
  'limit',
]

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
  const changed = record.with({
    ...metadata,
    ...(renew && { tokenHash: renew.to, previousToken: replacedToken(renew) }),
    ...timesAfter(record, change),
    fields,
  })
  const isAsRead = record === change.madeOn
  return { result: { status: 'updated', ...(isAsRead && { record: changed }) }, record: changed }
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
): Pick<SessionData, 'updatedAt' | 'lastAccessedAt' | 'expiresAt' | 'absoluteExpiresAt'> {
  const { metadata, isPassive } = change
  const at = record.effectiveNow(change.at)
  const absoluteExpiresAt = metadata?.absoluteExpiresAt ?? record.absoluteExpiresAt
  const mayShorten = metadata !== undefined && 'idleTimeoutMs' in metadata
  const movesEnd = mayShorten || (!isPassive && change.expiresAt > record.expiresAt)
  return {
    updatedAt: changesFields(change) ? at : record.updatedAt,
    lastAccessedAt: isPassive ? record.lastAccessedAt : at,
    expiresAt: Math.min(movesEnd ? change.expiresAt : record.expiresAt, absoluteExpiresAt),
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

/** The tombstone of a session: what it was, without its fields and without what only a live session needs. */
export function applyEnd(record: SessionData, ended: SessionEnd): SessionData {
  const gone = { previousToken: undefined, tokenSince: undefined, cookieEndsAt: undefined, context: undefined }
  return record.with({ ended, ...gone, fields: [] })
}

/** The end of a session that `regeneration` puts another one in the place of. */
export function endOfRegenerated({ at, next }: Regeneration): SessionEnd {
  return { reason: 'regenerated', at, successor: next.id }
}

/** What nobody can change any more, so that records can be shared. */
function frozen<T extends object>(value: T | undefined): T | undefined {
  return value === undefined || Object.isFrozen(value) ? value : Object.freeze({ ...value })
}

/** A read-only map, so that records can be shared without copies. */
class FieldMap extends Map<string, string> {
  override set(): never {
    throw new TypeError('The fields of a SessionData are read-only; change them through SessionStore.update().')
  }
  override delete(): never {
    return this.set()
  }
  override clear(): never {
    return this.set()
  }
}

/** Nobody may have seen the map yet. A constructor that fills a map of a subclass takes six times as long. */
function readOnly(fields: Map<string, string>): FieldMap {
  return Object.setPrototypeOf(fields, FieldMap.prototype) as FieldMap
}

function mergeFields(
  base: Iterable<readonly [string, string]>,
  set: ReadonlyMap<string, string> | undefined,
  remove: readonly string[] | undefined,
): FieldMap {
  const merged = new Map(base)
  if (remove) for (const name of remove) merged.delete(name)
  if (set) for (const [name, text] of set) merged.set(name, text)
  return readOnly(merged)
}

/** What `Date.prototype.toISOString` writes; `Date.parse` alone takes much more for a time. */
const ISO_TIME = /^([+-]\d{2})?\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/

function iso(time: number): string {
  return new Date(time).toISOString()
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    throw corrupt('it is not JSON')
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isUserId(value: unknown): value is string | number {
  return typeof value === 'string' || typeof value === 'number'
}

/** Those of the named members that are there, all of them text. */
function texts<T extends object>(record: Record<string, unknown>, names: readonly (keyof T & string)[]): T {
  const found: Record<string, string> = {}
  for (const name of names) {
    const value = record[name]
    if (typeof value === 'string') found[name] = value
    else if (value !== undefined) throw corrupt(`${name} is not text`)
  }
  return found as T
}

function text(record: Record<string, unknown>, name: string): string {
  const value = record[name]
  if (typeof value !== 'string' || value === '') throw corrupt(`${name} is not a string`)
  return value
}

function count(record: Record<string, unknown>, name: string): number {
  const value = record[name]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw corrupt(`${name} is not a count`)
  return value
}

function time(record: Record<string, unknown>, name: string): number {
  const value = record[name]
  const time = typeof value === 'string' && ISO_TIME.test(value) ? Date.parse(value) : Number.NaN
  if (Number.isNaN(time)) throw corrupt(`${name} is not a time`)
  return time
}

function corrupt(reason: string): SessionError {
  return new SessionError('CORRUPT_RECORD', `The session record cannot be read: ${reason}.`)
}
