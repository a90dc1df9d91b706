// What a store keeps of a session, and when it ends. Pure: no clock, no I/O.
import { SessionError } from '../errors.js'

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
  /**
   * Whether it cannot be told any more when the user proved who they are: a clock that ran ahead wrote it down. Until the next
   * login or `reauthenticate()`, which begin another record.
   */
  readonly unproven?: true | undefined
  /** The application's own correlation ID, once it differs from the one that the session ID stands for. */
  readonly logicalId?: string | undefined
  /** What was known of the client when the session began. */
  readonly context?: SessionContext | undefined
  /** How often all sessions had been revoked when this one began; default 0. */
  readonly epoch?: number | undefined
  /** How the session ended. A record that has this is a tombstone: never alive again, and without fields unless it is `unarchived`. */
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
  /** Whether the tombstone has its fields and context still, for `archive` to be given them: see `archiveEnded`. */
  readonly unarchived?: true | undefined
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
  unproven?: true
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
  readonly unproven: true | undefined
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
    this.unproven = init.unproven
    this.logicalId = init.logicalId
    this.context = frozen(init.context)
    this.epoch = init.epoch ?? 0
    this.ended = frozen(init.ended)
    this.fields = init.fields instanceof FieldMap ? init.fields : FieldMap.of(init.fields)
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
      ...(this.unproven && { unproven: true as const }),
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
    const { previousToken, tokenSince, fields, idleTimeoutMs, persistent, userId, unproven, ...rest } = record
    const { logicalId, context, epoch, ended } = rest
    if (!isObject(fields)) throw corrupt('fields is not an object')
    const entries = Object.entries(fields)
    for (const [, text] of entries) if (typeof text !== 'string') throw corrupt('a field is not a string')
    if (previousToken !== undefined && !isObject(previousToken)) throw corrupt('previousToken is not an object')
    if (persistent !== undefined && typeof persistent !== 'boolean') throw corrupt('persistent is not a boolean')
    // A session whose user cannot be read must not go on as nobody's.
    if (userId !== undefined && !isUserId(userId)) throw corrupt('userId is neither text nor a number')
    if (unproven !== undefined && unproven !== true) throw corrupt('unproven is not true')
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
      unproven,
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
  const { unarchived } = value
  if (unarchived !== undefined && unarchived !== true) throw corrupt('unarchived is not true')
  return {
    reason: value['reason'] as EndReason,
    at: value['at'],
    by,
    detail,
    successor,
    ...(unarchived && { unarchived }),
  }
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

/** What nobody can change any more, so that records can be shared. */
function frozen<T extends object>(value: T | undefined): T | undefined {
  return value === undefined || Object.isFrozen(value) ? value : Object.freeze({ ...value })
}

/** A read-only map, so that records can be shared without copies. */
class FieldMap extends Map<string, string> {
  /** The UTF-16 units of all names and texts; `NaN` when something is no text. */
  #units = 0

  static of(fields: Iterable<readonly [string, string]>): FieldMap {
    const map = new FieldMap()
    for (const [name, text] of fields) FieldMap.#put(map, name, text)
    return map
  }

  /** The map without the fields `remove`, and with those of `set` laid over it. */
  merged(set: ReadonlyMap<string, string> | undefined, remove: readonly string[] | undefined): FieldMap {
    const map = new FieldMap()
    this.forEach((text, name) => {
      PUT.call(map, name, text)
    })
    map.#units = this.#units
    if (remove) for (const name of remove) FieldMap.#drop(map, name)
    if (set) for (const [name, text] of set) FieldMap.#put(map, name, text)
    return map
  }

  static unitsOf(fields: ReadonlyMap<string, string>): number {
    if (#units in fields) return (fields as FieldMap).#units
    let units = 0
    for (const [name, text] of fields) units += unitsOf(name, text)
    return units
  }

  // No methods: each instance would be marked for those that are private.
  static #put(map: FieldMap, name: string, text: string): void {
    const before = map.get(name)
    if (before !== undefined) map.#units -= unitsOf(name, before)
    map.#units += unitsOf(name, text)
    PUT.call(map, name, text)
  }

  static #drop(map: FieldMap, name: string): void {
    const before = map.get(name)
    if (before === undefined) return
    map.#units -= unitsOf(name, before)
    DROP.call(map, name)
  }

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

const PUT = Map.prototype.set
const DROP = Map.prototype.delete

function unitsOf(name: string, text: string): number {
  return typeof text === 'string' ? name.length + text.length : Number.NaN
}

/**
 * The UTF-16 units of all names and texts, `NaN` when something is no text. Of the fields of a record it is known: to ask takes no
 * look at each.
 */
export function unitsOfFields(fields: ReadonlyMap<string, string>): number {
  return FieldMap.unitsOf(fields)
}

/** `base` without the fields `remove`, and with those of `set` laid over it. */
export function mergeFields(
  base: Iterable<readonly [string, string]>,
  set: ReadonlyMap<string, string> | undefined,
  remove: readonly string[] | undefined,
): FieldMap {
  return (base instanceof FieldMap ? base : FieldMap.of(base)).merged(set, remove)
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
