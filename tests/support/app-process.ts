// `testApp` as a process of its own, on the Redis that argv[2] names, with the key prefix argv[3]. Prints its URL; SIGTERM
// ends it. argv[4] is JSON: options of the middleware, with our own default of `storeTimeout`, and `maxPending` and `ownClient`
// for the store.
// "release" on standard input lets the requests in its /slow routes go on.
import { Redis } from 'ioredis'
import type { SessionOptions } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { testApp } from './app.js'
import { listen } from './http.js'

export interface AppProcessOptions
  extends Pick<
    SessionOptions,
    'onStoreError' | 'storeTimeout' | 'touchInterval' | 'maxSessionsPerUser' | 'onSessionLimit'
  > {
  maxPending?: number
  /** An ioredis client as `new Redis(url)` makes it, with the error listener that each program has. */
  ownClient?: boolean
}

const [, , url, prefix, json = '{}'] = process.argv as [string, string, string, string, string?]
const { ownClient = false, maxPending, ...options } = JSON.parse(json) as AppProcessOptions
const client = ownClient ? new Redis(url) : undefined
client?.on('error', () => {})
const store = new RedisSessionStore({
  ...(client ? { client } : { url }),
  prefix,
  ...(maxPending !== undefined && { maxPending }),
})
const { app, middleware, release } = testApp({ store, storeTimeout: undefined, ...options }, () => ({
  ...storeErrors,
  ...limits,
  ...(client && { queued: queueLength(client, 'commandQueue') + queueLength(client, 'offlineQueue') }),
}))
const storeErrors = { timeouts: 0, refusals: 0 }
middleware.events.on('storeError', ({ error }) => {
  if (error.code === 'STORE_TIMEOUT') storeErrors.timeouts++
  else storeErrors.refusals++
})
const limits = { ended: 0, refused: 0 }
middleware.events.on('limit', ({ outcome, ended }) => {
  if (outcome === 'refused') limits.refused++
  else limits.ended += ended.length
})
const server = await listen(app)
process.stdin.on('data', release)
process.on('SIGTERM', () => {
  void server
    .close()
    .then(() => store.close())
    .then(() => process.exit(0))
})
console.log(server.url)

/** ioredis does not tell the length of its queues in its types. */
function queueLength(redis: Redis, name: 'commandQueue' | 'offlineQueue'): number {
  return (redis as unknown as Record<typeof name, { length: number }>)[name].length
}
