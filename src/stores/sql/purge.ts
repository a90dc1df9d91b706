// Removes what is to be forgotten, a few rows at a time, so that neither requests nor other writers wait for it.
import { setImmediate as turn } from 'node:timers/promises'
import type { Calls } from './names.js'
import { numberOf } from './rows.js'
import type { Forgetting, SqlTables } from './statements.js'

/** Pages of PostgreSQL that one step looks at. */
const PAGES_PER_STEP = 64
/** Rows that one step looks at in the others. */
const ROWS_PER_STEP = 250

/** Goes through all tables once. Resolves to the number of sessions that were removed. */
export async function purge(
  calls: Calls,
  { sessions, users, names }: SqlTables,
  isStopped: () => boolean,
): Promise<number> {
  const removed = await purgeTable(calls, { table: sessions, key: 'id', when: 'forget_at' }, isStopped)
  await purgeTable(calls, { table: users, key: 'id', when: 'forget_at' }, isStopped)
  await purgeTable(calls, { table: names, key: 'name', when: 'until' }, isStopped)
  return removed
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
