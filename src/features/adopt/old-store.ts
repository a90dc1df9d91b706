// The store that sessions are taken over from: one that was written for express-session, or the keys of connect-redis.

/** The members that are called of the store of express-session. */
export interface OldStore {
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for sessions
  get(sid: string, callback: (error?: any, session?: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for errors
  destroy(sid: string, callback?: (error?: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for sessions
  set?(sid: string, session: any, callback?: (error?: any) => void): unknown
  // biome-ignore lint/suspicious/noExplicitAny: each store has a type of its own for sessions
  all?(callback: (error?: any, sessions?: any) => void): unknown
}

/** The members that are called of an ioredis client. */
export interface RedisLike {
  get(key: string): Promise<string | null>
  del(key: string): Promise<unknown>
  scan(cursor: string, match: 'MATCH', pattern: string, count: 'COUNT', size: number): Promise<[string, string[]]>
}

/** The sessions that connect-redis has written, read by an ioredis client: JSON under `sess:` and the ID. */
export function redisSessions(client: RedisLike, { prefix = 'sess:' }: { prefix?: string } = {}): OldStore {
  return {
    get(sid, callback) {
      tell(client.get(prefix + sid).then(parsed), callback)
    },
    destroy(sid, callback) {
      tell(client.del(prefix + sid), callback)
    },
    all(callback) {
      tell(
        everything(client, prefix).then((texts) => texts.map(parsed)),
        callback,
      )
    },
  }
}

/** What is no JSON is no session: the text itself, which nobody takes for one. */
function parsed(text: string | null): unknown {
  if (text === null) return null
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

async function everything(client: RedisLike, prefix: string): Promise<(string | null)[]> {
  const pattern = `${prefix.replace(/[*?[\]\\]/g, '\\$&')}*`
  const texts = new Map<string, string | null>()
  let cursor = '0'
  do {
    const [next, keys] = await client.scan(cursor, 'MATCH', pattern, 'COUNT', 500)
    for (const key of keys) texts.set(key, await client.get(key))
    cursor = next
  } while (cursor !== '0')
  return [...texts.values()]
}

function tell(promise: Promise<unknown>, done: (error?: unknown, value?: unknown) => void = () => {}): void {
  promise.then(
    (value) => process.nextTick(done, null, value),
    (error) => process.nextTick(done, error),
  )
}
