// The SQL sink: activities in one table of PostgreSQL or SQLite, through the application's own Kysely instance.
import { createHash } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { isDate } from 'node:util/types'
import type { SelectQueryBuilder } from 'kysely'
import type { Activity, ActivityRequest } from '../activity-hook.js'
import { SessionError } from '../errors.js'
import type { ActivityArchive, ActivityPage, ActivityQuery } from './sink.js'
import {
  type ActivityRow,
  activityTable,
  explained,
  type SqlDatabase,
  type SqlTableOptions,
  type Tables,
} from './sql-table.js'

/** What `sqlSink()` takes. */
export interface SqlSinkOptions extends SqlTableOptions {
  /** A Kysely instance, 0.28 or later, for PostgreSQL or SQLite. It stays yours: the sink never closes it. */
  readonly db: SqlDatabase
}

const DEFAULT_LIMIT = 100
const MAX_LIMIT = 1000
/** Ten values a row, of which PostgreSQL takes 65,535 in a statement and SQLite 32,766. */
const ROWS_PER_INSERT = 1000
/** So few that the locks of one portion are gone in some milliseconds. */
const ROWS_PER_PRUNE = 1000
/** An index of PostgreSQL takes 2,704 bytes for all columns of a row, and a character up to three. */
const MAX_TEXT_LENGTH = 255
const READABLE_LENGTH = 200
const SUBSTITUTED = /~sha256:[\w-]{43}$/

/**
 * An archive in a table of PostgreSQL or SQLite. The table has to be there: run `migrateActivities(db)` first.
 *
 * A batch is one insert (of at most 1,000 rows), and what is there already under the same ID is left as it is. At run time
 * the role needs `INSERT`, `SELECT` to read and `DELETE` to prune. What the database rejects comes as a `SessionError`
 * `STORE_UNAVAILABLE`, with the database's error as its `cause`; wrong queries as `INVALID_ARGUMENT`.
 *
 * ```ts
 * await migrateActivities(db)
 * app.use(session({ secret, activity: new ActivityLog({ sinks: [sqlSink({ db })] }) }))
 * ```
 * @throws {SessionError} `INVALID_OPTION`
 */
export function sqlSink({ db: database, table: name }: SqlSinkOptions): ActivityArchive {
  const table = activityTable(database, { table: name })
  const { db } = table

  return {
    name: 'sql',

    async write(activities) {
      for (let start = 0; start < activities.length; start += ROWS_PER_INSERT) {
        const rows = activities.slice(start, start + ROWS_PER_INSERT).map(rowOf)
        await explained(table, 'be written', () =>
          // Without a column, for which PostgreSQL would ask for the right to read.
          db
            .insertInto(table.name)
            .values(rows)
            .onConflict((conflict) => conflict.doNothing())
            .execute(),
        )
      }
    },

    async page(query): Promise<ActivityPage> {
      const { limit = DEFAULT_LIMIT, after, order = 'oldest-first' } = query
      checkPage({ limit, order })
      const start = after === undefined ? undefined : positionOf(after)
      const selection = selectionOf(query)
      if (selection === undefined) return { activities: [], next: undefined }
      const [direction, beyond] = order === 'oldest-first' ? (['asc', '>'] as const) : (['desc', '<'] as const)

      let select = matching(db.selectFrom(table.name), selection)
      if (start !== undefined) {
        select = select.where(({ eb, refTuple, tuple }) => eb(refTuple('at', 'id'), beyond, tuple(start.at, start.id)))
      }
      const rows = await explained(table, 'be read', () =>
        select
          .select(['id', 'at', 'type', 'logical_id', 'session_id', 'user_id', 'user_id_type'])
          .select(['details', 'request', 'originals'])
          .orderBy('at', direction)
          .orderBy('id', direction)
          // One more tells whether there is another page.
          .limit(limit + 1)
          .execute(),
      )
      const last = rows.length > limit ? rows[limit - 1] : undefined
      return { activities: rows.slice(0, limit).map(activityOf), next: last && cursorOf(last) }
    },

    async countByType(query): Promise<Readonly<Record<string, number>>> {
      const selection = selectionOf(query)
      if (selection === undefined) return {}
      const rows = await explained(table, 'be read', () =>
        matching(db.selectFrom(table.name), selection)
          .select(({ fn }) => ['type', fn.countAll().as('count')])
          .groupBy('type')
          .execute(),
      )
      const counts: [type: string, count: number][] = []
      for (const { type, count } of rows) counts.push([await typeOf(type), Number(count)])
      // Defines its members, so that no type is taken for the prototype.
      return Object.fromEntries(counts)
    },

    async prune(before) {
      const end = timeOf(before, 'before')
      let total = 0
      while (true) {
        const { numDeletedRows } = await explained(table, 'be pruned', () =>
          db
            .deleteFrom(table.name)
            .where('id', 'in', (eb) =>
              eb
                .selectFrom(table.name)
                .select('id')
                .where('at', '<', end)
                .orderBy('at')
                .orderBy('id')
                .limit(ROWS_PER_PRUNE),
            )
            .executeTakeFirstOrThrow(),
        )
        if (numDeletedRows === 0n) return total
        total += Number(numDeletedRows)
        // A driver of SQLite works without a pause; requests and other writers get their turn here.
        await turn()
      }
    },
  }

  /** A type that was too long for its column is read from one of its rows. */
  async function typeOf(stored: string): Promise<string> {
    if (!SUBSTITUTED.test(stored)) return stored
    const row = await explained(table, 'be read', () =>
      db.selectFrom(table.name).select('originals').where('type', '=', stored).limit(1).executeTakeFirst(),
    )
    return originalsOf(row?.originals ?? null).type ?? stored
  }
}

/** The conditions of a query in terms of the table. */
interface Selection {
  readonly equal: Partial<Pick<ActivityRow, 'logical_id' | 'session_id' | 'user_id' | 'user_id_type'>>
  readonly types: readonly string[] | undefined
  readonly since: number | undefined
  readonly until: number | undefined
}

/** Checks a query; `undefined` when nothing can match it. */
function selectionOf({ logicalId, sessionId, userId, type, since, until }: ActivityQuery): Selection | undefined {
  for (const [name, value] of Object.entries({ logicalId, sessionId })) {
    if (value !== undefined && typeof value !== 'string') throw invalid(`${name} is not text.`)
  }
  if (userId !== undefined && typeof userId !== 'string' && typeof userId !== 'number') {
    throw invalid('userId is neither text nor a number.')
  }
  const types: readonly unknown[] | undefined = type === undefined || Array.isArray(type) ? type : [type]
  if (types?.some((one) => typeof one !== 'string')) throw invalid('type is neither text nor a list of texts.')
  if (types?.length === 0) return undefined
  return {
    equal: {
      ...(logicalId !== undefined && { logical_id: storedText(logicalId) }),
      ...(sessionId !== undefined && { session_id: storedText(sessionId) }),
      ...(userId !== undefined && { user_id: storedText(String(userId)), user_id_type: typeof userId }),
    },
    types: types && [...new Set(types as readonly string[])].map(storedText),
    since: since === undefined ? undefined : timeOf(since, 'since'),
    until: until === undefined ? undefined : timeOf(until, 'until'),
  }
}

function matching<O>(
  select: SelectQueryBuilder<Tables, 'activities', O>,
  { equal, types, since, until }: Selection,
): SelectQueryBuilder<Tables, 'activities', O> {
  let query = select
  for (const [column, value] of Object.entries(equal)) query = query.where(column as keyof typeof equal, '=', value)
  if (types !== undefined) query = query.where('type', 'in', types)
  if (since !== undefined) query = query.where('at', '>=', since)
  if (until !== undefined) query = query.where('at', '<', until)
  return query
}

function rowOf(activity: Activity): ActivityRow {
  const originals: Originals = {}
  const stored = (name: keyof Originals, text: string): string => {
    const value = storedText(text)
    if (value !== text) originals[name] = text
    return value
  }
  const { id, at, type, logicalId, sessionId, userId, details, request } = activity
  return {
    id: stored('id', id),
    at: timeOf(at, 'at'),
    type: stored('type', type),
    logical_id: logicalId === undefined ? null : stored('logicalId', logicalId),
    session_id: sessionId === undefined ? null : stored('sessionId', sessionId),
    user_id: userId === undefined ? null : stored('userId', String(userId)),
    user_id_type: userId === undefined ? null : typeof userId,
    details: details === undefined ? null : jsonOf(details),
    request: request === undefined ? null : jsonOf(request),
    originals: Object.keys(originals).length === 0 ? null : JSON.stringify(originals),
  }
}

function activityOf(row: ActivityRow): Activity {
  const originals = originalsOf(row.originals)
  const userId = originals.userId ?? row.user_id ?? undefined
  return {
    id: originals.id ?? row.id,
    at: new Date(Number(row.at)),
    type: originals.type ?? row.type,
    logicalId: originals.logicalId ?? row.logical_id ?? undefined,
    sessionId: originals.sessionId ?? row.session_id ?? undefined,
    userId: userId !== undefined && row.user_id_type === 'number' ? Number(userId) : userId,
    details: row.details === null ? undefined : (objectOf(row.details) ?? { unreadable: row.details }),
    request: row.request === null ? undefined : requestOf(row.request),
  }
}

/** The texts of an activity that its columns hold something else for. */
type Originals = Partial<Record<'id' | 'type' | 'logicalId' | 'sessionId' | 'userId', string>>

function originalsOf(json: string | null): Originals {
  return json === null ? {} : (objectOf(json) ?? {})
}

function requestOf(json: string): ActivityRequest | undefined {
  const request = objectOf(json) as Partial<ActivityRequest> | undefined
  return request && { ...request, method: request.method ?? '', path: request.path ?? '', ip: request.ip }
}

/**
 * What a column holds for a text: the text, or what can be read of it and a hash when it is too long for an index or has
 * characters that PostgreSQL cannot store (NUL, halves of a pair). One text has always the same, and no two share one.
 */
function storedText(text: string): string {
  if (text.length <= MAX_TEXT_LENGTH && isStorable(text) && !SUBSTITUTED.test(text)) return text
  // UTF-16, since UTF-8 has one and the same text for all ill-formed ones.
  const hash = createHash('sha256').update(text, 'utf16le').digest('base64url')
  const start = text.slice(0, READABLE_LENGTH).replaceAll('\0', '\u{fffd}')
  return `${start.toWellFormed()}~sha256:${hash}`
}

function isStorable(text: unknown): text is string {
  return typeof text === 'string' && text.isWellFormed() && !text.includes('\0')
}

/** JSON text escapes what PostgreSQL cannot store. */
function jsonOf(value: object): string | null {
  try {
    return JSON.stringify(value) ?? null
  } catch (cause) {
    throw new SessionError('INVALID_ARGUMENT', 'The details of an activity are not data that JSON can hold.', { cause })
  }
}

/** An object from JSON; `undefined` when somebody else has put something there. */
function objectOf(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isObject ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

interface Position {
  readonly at: number
  readonly id: string
}

function cursorOf({ at, id }: ActivityRow): string {
  return Buffer.from(JSON.stringify([Number(at), id])).toString('base64url')
}

function positionOf(cursor: unknown): Position {
  try {
    const [at, id]: unknown[] = JSON.parse(Buffer.from(String(cursor), 'base64url').toString())
    if (Number.isSafeInteger(at) && isStorable(id)) return { at: at as number, id }
  } catch {
    // Told below.
  }
  throw invalid('after is not the `next` of a page.')
}

function checkPage({ limit, order }: { limit: unknown; order: unknown }): void {
  if (!Number.isInteger(limit) || (limit as number) < 1 || (limit as number) > MAX_LIMIT) {
    throw invalid(`limit is not a whole number from 1 to ${MAX_LIMIT}.`)
  }
  if (order !== 'oldest-first' && order !== 'newest-first') {
    throw invalid(`order is neither 'oldest-first' nor 'newest-first'.`)
  }
}

function timeOf(date: unknown, name: string): number {
  const time = isDate(date) ? date.getTime() : Number.NaN
  if (Number.isNaN(time)) throw invalid(`${name} is not a valid Date.`)
  return time
}

function invalid(message: string): SessionError {
  return new SessionError('INVALID_ARGUMENT', message)
}
