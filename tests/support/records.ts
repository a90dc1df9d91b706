// What a store keeps of a session and what it was asked, as tests look at it.
import { createHash, randomUUID } from 'node:crypto'
import { SessionData, type SessionDataInit, type SessionEnd, type SessionStore } from 'sojourn'
import type { FaultyStore, StoreOperation } from 'sojourn/testing'

/** A live record of one hour, as a store is given it. */
export function recordOf(parts: Partial<SessionDataInit> = {}): SessionData {
  const now = Date.now()
  const times = { createdAt: now, updatedAt: now, lastAccessedAt: now, expiresAt: now + 3_600_000 }
  return new SessionData({
    id: randomUUID(),
    tokenHash: createHash('sha256').update(randomUUID()).digest('base64url'),
    generation: 1,
    ...times,
    absoluteExpiresAt: now + 12 * 3_600_000,
    fields: [],
    ...parts,
  })
}

/** The decoded fields of a session that has not been ended; `null` when there is none. */
export async function fieldsOf(store: SessionStore, id: string | undefined): Promise<Record<string, unknown> | null> {
  const record = id === undefined ? null : await store.get(id)
  if (record === null || record.ended) return null
  return Object.fromEntries([...record.fields].map(([name, text]) => [name, JSON.parse(text)]))
}

/** How a session ended; `null` when it has not, or when nothing is known of it. Its fields must be gone. */
export async function endOf(store: SessionStore, id: string | undefined): Promise<SessionEnd | null> {
  const record = id === undefined ? null : await store.get(id)
  if (!record?.ended) return null
  if (record.fields.size > 0) throw new Error('The tombstone of a session still holds fields.')
  return record.ended
}

/**
 * The calls of a store, but for those that read the epoch: they come once a second in a process, whatever the requests, and
 * so belong to none of them.
 */
export function callsOf(store: FaultyStore): Record<Exclude<StoreOperation, 'epoch'>, number> {
  const { epoch: _epoch, ...calls } = store.calls
  return calls
}

/** The number of these calls. */
export function countCalls(store: FaultyStore): number {
  return store.totalCalls - store.calls.epoch
}
