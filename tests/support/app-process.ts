// `testApp` as a process of its own, on the Redis that argv[2] names. Prints its URL; SIGTERM ends it.
// "release" on standard input lets the requests in its /slow routes go on.
import { RedisSessionStore } from 'sojourn/redis'
import { testApp } from './app.js'
import { listen } from './http.js'

const [, , url, prefix] = process.argv as [string, string, string, string]
const store = new RedisSessionStore({ url, prefix })
const { app, release } = testApp({ store })
const server = await listen(app)
process.stdin.on('data', release)
process.on('SIGTERM', () => {
  void server
    .close()
    .then(() => store.close())
    .then(() => process.exit(0))
})
console.log(server.url)
