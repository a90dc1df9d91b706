// What every process here has in common, the script that only looks on included: one store and the same rules. Processes
// with different options would judge one session differently.
import { SessionManager } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'

declare module 'sojourn' {
  interface SessionFields {
    visits?: number
  }
}

export function openSessions(secret: string): SessionManager {
  const { REDIS_URL: url = 'redis://127.0.0.1:6379' } = process.env
  return new SessionManager({
    secret,
    // The prefix keeps this program apart from others on the same Redis.
    store: new RedisSessionStore({ url, prefix: 'demo:' }),
    idleTimeout: '30m',
    absoluteTimeout: '12h',
    // Counted by Redis, so logins on two workers at the same instant leave five as well.
    maxSessionsPerUser: 5,
    // A session that is over is remembered for so long: its next request is told why.
    endedRetention: '15m',
  })
}
