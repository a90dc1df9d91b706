// What a process of sql-process.ts was told by its store, and whether a database still has it.
import type { SessionData } from 'sojourn'
import { sqlStore } from 'sojourn/sql'
import type { SqlProcess } from './sql-processes.js'

/** What a process was told: the counter that each session has at least, and by which one it was replaced. */
export interface Acknowledged {
  readonly counts: Map<string, number>
  readonly successors: Map<string, string>
}

export async function readLines(
  writer: SqlProcess,
  lines: number,
  { counts, successors }: Acknowledged,
): Promise<void> {
  for (let n = 0; n < lines; n++) {
    const [word, id = '', rest = ''] = (await writer.line())?.split(' ') ?? []
    if (word === undefined) return
    if (word === 'stored') counts.set(id, Number(rest))
    else successors.set(id, rest)
  }
}

/** Each record is whole, and what was acknowledged of it holds. */
export async function problemsOf(url: string, { counts, successors }: Acknowledged): Promise<string[]> {
  const store = sqlStore(url, { cleanupInterval: 0, timeout: 10_000 })
  const records = new Map<string, SessionData>()
  for await (const record of store.scan()) records.set(record.id, record)
  await store.close()
  const problems: string[] = []
  for (const [id, count] of counts) {
    const record = records.get(id)
    const found = Number(record?.fields.get('count') ?? -1)
    // One that is over may have been replaced after its last line.
    if (record === undefined || (!record.ended && found < count)) problems.push(`${id} is ${found}, was ${count}`)
  }
  for (const [id, next] of successors) {
    if (records.get(id)?.ended?.successor !== next || records.get(next)?.ended) problems.push(`${id} was replaced`)
  }
  for (const record of records.values()) {
    const count = record.fields.get('count')
    if (!record.ended && record.fields.get('large') !== count?.repeat(6_000)) problems.push(`${record.id} is torn`)
    const next = record.ended?.successor
    if (next !== undefined && !records.has(next)) problems.push(`${record.id} has no successor`)
  }
  return problems
}
