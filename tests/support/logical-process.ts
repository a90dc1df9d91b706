// `logicalApp` as a process of its own, on the Redis that argv[2] names, with the key prefix argv[3]. Prints its URL; SIGTERM
// ends it. argv[4] is JSON: options of the middleware.
import type { SessionOptions } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { listen } from './http.js'
import { logicalApp } from './logical-app.js'

const [, , url, prefix, json = '{}'] = process.argv as [string, string, string, string, string?]
const store = new RedisSessionStore({ url, prefix })
const { app } = logicalApp({ store, ...(JSON.parse(json) as Partial<SessionOptions>) })
const server = await listen(app)
process.on('SIGTERM', () => {
  void server
    .close()
    .then(() => store.close())
    .then(() => process.exit(0))
})
console.log(server.url)
