// A session in Redis as it is written: lines of a name, a tab and a text. What would break a line is left to the store.
import type { Redis } from 'ioredis'

/** The texts at a key, by name; `{}` when there are none. */
export async function linesAt(redis: Redis, key: string): Promise<Record<string, string>> {
  const text = (await redis.get(key)) ?? ''
  return Object.fromEntries(text.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t')]))) as Record<
    string,
    string
  >
}

/** Writes and removes (`null`) texts at a key, past the store, and leaves the rest as it is. */
export async function putLines(redis: Redis, key: string, changes: Record<string, string | null>): Promise<void> {
  const lines = new Map(Object.entries(await linesAt(redis, key)))
  for (const name of Object.getOwnPropertyNames(changes)) {
    const text = changes[name]
    if (text === null || text === undefined) lines.delete(name)
    else lines.set(name, text)
  }
  const text = Array.from(lines, ([name, value]) => `${name}\t${value}\n`).join('')
  await redis.set(key, text, 'KEEPTTL')
}
