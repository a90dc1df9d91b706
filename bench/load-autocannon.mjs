// For machines without wrk: each connection sends one of the cookies. argv: URL, file of cookies, milliseconds.
import { readFileSync } from 'node:fs'
import autocannon from 'autocannon'
import { CONNECTIONS } from './load.mjs'

const [, , url, file, ms] = process.argv
const cookies = readFileSync(file, 'utf8').split('\n').slice(0, -1)
let next = 0
const result = await autocannon({
  url,
  connections: CONNECTIONS,
  duration: Math.max(1, Number(ms) / 1000),
  setupClient(client) {
    const cookie = cookies[next++ % cookies.length]
    if (cookie !== '') client.setHeaders({ cookie })
  },
})
console.log(
  JSON.stringify({
    requests: result.requests.total,
    us: result.duration * 1e6,
    p50Us: result.latency.p50 * 1000,
    p99Us: result.latency.p99 * 1000,
    failed: result.errors + result.timeouts + result.non2xx,
  }),
)
