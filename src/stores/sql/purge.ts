// Removes what is to be forgotten, a few rows at a time, so that neither requests nor other writers wait for it.
import { setImmediate as turn } from 'node:timers/promises'
import type { Calls } from './names.js'
import { numberOf } from './rows.js'
import type { Forgetting, SqlTables } from './statements.js'

/** Pages of PostgreSQL that one step looks at. */
const PAGES_PER_STEP = 64
/** Rows that one step looks at in the others. */
const ROWS_PER_STEP = 250

/** What is not worth a thread of its own, in rows. */
const FEW_ROWS = 2_000

/** Goes through all tables once. Resolves to the number of sessions that were removed. */
export async function purge(calls: Calls, tables: SqlTables, signal: AbortSignal): Promise<number> {
  const all: readonly Forgetting[] = [
    { table: tables.sessions, key: 'id', when: 'forget_at' },
    { table: tables.users, key: 'id', when: 'forget_at' },
    { table: tables.names, key: 'name', when: 'until' },
  ]
  const removed = (await purgeAside(calls, all, signal)) ?? []
  for (const of of removed.length > 0 ? [] : all) removed.push(await purgeTable(calls, of, () => signal.aborted))
  return removed[0] ?? 0
}

/** In a thread of its own, where there is one: what SQLite does here holds the event loop. */
async function purgeAside(
  { query, statements, removeAside, dialect }: Calls,
  all: readonly Forgetting[],
  signal: AbortSignal,
): Promise<number[] | null> {
  if (dialect !== 'sqlite' || all[0] === undefined) return null
  const { rows } = await query(statements.size(all[0]), [FEW_ROWS + 1])
  if (rows[0] === undefined || numberOf(rows[0], 'size') <= FEW_ROWS) return null
  const removals = all.map((of) => ({
    end: statements.purgeEnd(of),
    some: statements.purgeSome(of),
    all: statements.purge(of),
  }))
  const removed = await removeAside(removals, signal)
  return removed && [...removed]
}

function purgeTable(calls: Calls, of: Forgetting, isStopped: () => boolean): Promise<number> {
  return calls.dialect === 'postgres' ? purgeByPages(calls, of, isStopped) : purgeByKeys(calls, of, isStopped)
}

/** By where rows lie: no index is needed, and what moves meanwhile is alive. */
async function purgeByPages({ query, statements }: Calls, of: Forgetting, isStopped: () => boolean): Promise<number> {
  const { rows } = await query(statements.pages(of), [])
  const pages = rows[0] === undefined ? 0 : numberOf(rows[0], 'pages')
  let removed = 0
  for (let page = 0; page <= pages && !isStopped(); page += PAGES_PER_STEP) {
    const { count } = await query(statements.purge(of), [`(${page},0)`, `(${page + PAGES_PER_STEP},0)`])
    removed += count
    await turn()
  }
  return removed
}

async function purgeByKeys(
  { query, statements, dialect }: Calls,
  of: Forgetting,
  isStopped: () => boolean,
): Promise<number> {
  const [first, end] = dialect === 'sqlite' ? [-1, Number.MAX_SAFE_INTEGER] : ['', LAST_KEY]
  let removed = 0
  for (let start: string | number | undefined = first; start !== undefined && !isStopped(); ) {
    const { rows } = await query(statements.purgeEnd(of), [start, ROWS_PER_STEP - 1])
    const last = rows[0]?.['last'] as string | number | undefined
    const { count } = await query(statements.purge(of), [start, last ?? end])
    removed += count
    start = last
    await turn()
  }
  return removed
}

/** Behind every key: of letters, digits and signs below it. */
const LAST_KEY = '\u{10ffff}'
