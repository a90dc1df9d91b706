// The SQL sink: activities in one table of PostgreSQL, MySQL or SQLite, through the application's own Kysely instance.
import { createHash } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import type { Expression, ExpressionBuilder, SelectQueryBuilder, SqlBool } from 'kysely'
import { invalidArgument, SessionError } from '../../../errors.js'
import type { Activity, ActivityRequest } from '../../../events/activity-hook.js'
import { countsOf, cursorOf, pageSelectionOf, type Selection, selectionOf, timeOf } from '../query.js'
import { Summing, TURNS, turnOf } from '../sums.js'
import type { ActivityArchive, ActivityPage, ActivitySums, SessionTurn } from './sink.js'
import {
  type ActivityRow,
  activityTable,
  explained,
  MAX_TEXT_LENGTH,
  type SqlDatabase,
  type SqlTableOptions,
  type Tables,
} from './sql-table.js'

/** What `sqlSink()` takes. */
export interface SqlSinkOptions extends SqlTableOptions {
  /** A Kysely instance, 0.28 or later, for PostgreSQL, MySQL, MariaDB or SQLite. It stays yours: the sink never closes it. */
  readonly db: SqlDatabase
}

/** Ten values a row, of which PostgreSQL takes 65,535 in a statement and SQLite 32,766. */
const ROWS_PER_INSERT = 1000
/** So few that the locks of one portion are gone in some milliseconds. */
const ROWS_PER_PRUNE = 250
const READABLE_LENGTH = 200
/** So many are summed up by one query. SQLite sorts them in memory, and holds up this process meanwhile: for some milliseconds. */
const ROWS_PER_PART = { sqlite: 5_000, postgres: 250_000, mysql: 250_000 } as const
const SUBSTITUTED = /~sha256:[\w-]{43}$/

/**
 * An archive in a table of PostgreSQL, MySQL, MariaDB or SQLite. The table has to be there: run `migrateActivities(db)` first.
 *
 * A batch is one insert (of at most 1,000 rows), and what is there already under the same ID is left as it is. At run time
 * the role needs `INSERT` (in MySQL with `UPDATE`), `SELECT` to read and `DELETE` to prune. What the database rejects comes as a `SessionError`
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
        const insert = db.insertInto(table.name).values(rows)
        const orNothing =
          table.dialect === 'mysql'
            ? // Its `ignore` would also let pass what it has to shorten.
              insert.onDuplicateKeyUpdate(({ ref }) => ({ id: ref('id') }))
            : // Without a column, for which PostgreSQL would ask for the right to read.
              insert.onConflict((conflict) => conflict.doNothing())
        await explained(table, 'be written', () => orNothing.execute())
      }
    },

    async page(query): Promise<ActivityPage> {
      const { limit, after, isNewestFirst, ...selection } = pageSelectionOf(query)
      // PostgreSQL would refuse such text; no page has ended there.
      if (after !== undefined && !isStorable(after.id)) throw invalidArgument('after is not the `next` of a page.')
      if (selection.types?.size === 0) return { activities: [], next: undefined }
      const [direction, beyond] = isNewestFirst ? (['desc', '<'] as const) : (['asc', '>'] as const)

      let select = matching(db.selectFrom(table.name), selection)
      if (after !== undefined) {
        select = select.where(placed(beyond, after))
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
      return {
        activities: rows.slice(0, limit).map(activityOf),
        next: last && cursorOf({ at: Number(last.at), id: last.id }),
      }
    },

    async countByType(query): Promise<Readonly<Record<string, number>>> {
      const selection = selectionOf(query)
      if (selection.types?.size === 0) return {}
      const { logicalId, sessionId, userId, since, until } = selection
      const counts = new Map<string, number>()
      const isOfAll = [logicalId, sessionId, userId].every((id) => id === undefined)
      // What an ID has is little, and found by its own index.
      for await (const part of isOfAll ? partsOf({ since, until }) : [{ since, until }]) {
        await count({ ...selection, ...part }, counts)
      }
      return countsOf(counts)
    },

    async *sums(query): AsyncGenerator<ActivitySums, void, undefined> {
      for await (const part of partsOf(query)) {
        const { sessions, counts } = await summedUp(part)
        const turns = TURNS.some((type) => counts.has(type)) ? await turnsIn(part) : []
        yield { at: part.since, sessions, counts, turns }
      }
    },

    async prune(before) {
      const end = timeOf(before, 'before')
      let total = 0
      while (true) {
        const rest = db.selectFrom(table.name).select(['at', 'id']).where('at', '<', end).orderBy('at').orderBy('id')
        const last = await explained(table, 'be pruned', () =>
          rest
            .limit(1)
            .offset(ROWS_PER_PRUNE - 1)
            .executeTakeFirst(),
        )
        // A stretch of one index: several that prune at once lock rows in the same order, and never wait in a circle.
        const portion =
          last === undefined
            ? db.deleteFrom(table.name).where('at', '<', end)
            : db.deleteFrom(table.name).where(placed('<=', { at: Number(last.at), id: last.id }))
        const { numDeletedRows } = await explained(table, 'be pruned', () => portion.executeTakeFirstOrThrow())
        total += Number(numDeletedRows)
        if (last === undefined) return total
        // A driver of SQLite works without a pause; requests and other writers get their turn here.
        await turn()
      }
    },
  }

  /** Rows on one side of a place in the order by time and ID, found by the index. */
  function placed(side: '<' | '>' | '<=', { at, id }: { readonly at: number; readonly id: string }) {
    return (builder: ExpressionBuilder<Tables, 'activities'>): Expression<SqlBool> => {
      const { eb, refTuple, tuple } = builder
      if (table.dialect !== 'mysql') return eb(refTuple('at', 'id'), side, tuple(at, id))
      // It would compare each pair of the table.
      const beyond = side === '>' ? '>' : '<'
      return eb.and([eb('at', side === '>' ? '>=' : '<=', at), eb.or([eb('at', beyond, at), eb('id', side, id)])])
    }
  }

  /** Cuts a window into parts, none of which is empty or takes the database long. */
  async function* partsOf({
    since,
    until,
    everyMs,
  }: Part & { readonly everyMs?: number | undefined }): AsyncGenerator<Part> {
    let from = since
    while (from < until) {
      const first = await timeOfNth({ since: from, until }, 0)
      if (first === undefined) return
      const end = everyMs === undefined ? until : Math.min(until, (Math.floor(first / everyMs) + 1) * everyMs)
      const next = await timeOfNth({ since: first, until: end }, ROWS_PER_PART[table.dialect])
      // What happened within one millisecond stays together.
      from = next === undefined ? end : Math.max(next, first + 1)
      yield { since: first, until: from }
      // A driver of SQLite works without a pause; requests get their turn here.
      await turn()
    }
  }

  async function timeOfNth(part: Part, nth: number): Promise<number | undefined> {
    const select = matching(db.selectFrom(table.name), { ...ANY, ...part })
      .select('at')
      .orderBy('at')
      .limit(1)
    const row = await explained(table, 'be read', () => (nth === 0 ? select : select.offset(nth)).executeTakeFirst())
    return row && Number(row.at)
  }

  async function count(selection: Selection, counts: Map<string, number>): Promise<void> {
    const rows = await explained(table, 'be read', () =>
      matching(db.selectFrom(table.name), selection)
        .select(({ fn }) => ['type', fn.countAll().as('count')])
        .groupBy('type')
        .execute(),
    )
    for (const row of rows) {
      const type = await typeOf(row.type)
      counts.set(type, (counts.get(type) ?? 0) + Number(row.count))
    }
  }

  async function summedUp(part: Part): Promise<Summing> {
    const rows = await explained(table, 'be read', () =>
      matching(db.selectFrom(table.name), { ...ANY, ...part })
        .select(['session_id', 'user_id', 'user_id_type', 'type'])
        .select(({ fn }) => [fn.min('at').as('first'), fn.max('at').as('last'), fn.countAll().as('count')])
        .groupBy(['session_id', 'user_id', 'user_id_type', 'type'])
        .execute(),
    )
    const summing = new Summing()
    for (const row of rows) {
      summing.add({
        type: SUBSTITUTED.test(row.type) ? await typeOf(row.type) : row.type,
        sessionId: row.session_id ?? undefined,
        userId: row.user_id_type === 'number' ? Number(row.user_id) : (row.user_id ?? undefined),
        firstAt: Number(row.first),
        lastAt: Number(row.last),
        count: Number(row.count),
      })
    }
    return summing
  }

  async function turnsIn(part: Part): Promise<SessionTurn[]> {
    const rows = await explained(table, 'be read', () =>
      matching(db.selectFrom(table.name), { ...ANY, ...part, types: new Set(TURNS) })
        .selectAll()
        .execute(),
    )
    return rows.map((row) => {
      const { at, previousSessionId, ended } = turnOf(activityOf(row))
      return {
        at,
        sessionId: row.session_id ?? undefined,
        previousSessionId: previousSessionId && storedText(previousSessionId),
        ended: ended.map(storedText),
      }
    })
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

/** A stretch of time, in ms since the epoch. */
type Part = Pick<Selection, 'since' | 'until'>

const ANY = { logicalId: undefined, sessionId: undefined, userId: undefined, types: undefined } as const

function matching<O>(
  select: SelectQueryBuilder<Tables, 'activities', O>,
  { logicalId, sessionId, userId, types, since, until }: Selection,
): SelectQueryBuilder<Tables, 'activities', O> {
  let query = select
  if (logicalId !== undefined) query = query.where('logical_id', '=', storedText(logicalId))
  if (sessionId !== undefined) query = query.where('session_id', '=', storedText(sessionId))
  if (userId !== undefined) {
    query = query.where('user_id', '=', storedText(String(userId))).where('user_id_type', '=', typeof userId)
  }
  if (types !== undefined) query = query.where('type', 'in', [...types].map(storedText))
  if (Number.isFinite(since)) query = query.where('at', '>=', since)
  if (Number.isFinite(until)) query = query.where('at', '<', until)
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
