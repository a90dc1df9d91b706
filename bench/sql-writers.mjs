// Writers of one session, each of a field of its own. Started by sql.mjs, which talks to it over IPC.
//   argv: directory of the package, client, where its database is, ID of the session, number of this process, writers, milliseconds
import { load } from './contenders.mjs'
import { openClient } from './sql-clients.mjs'

const [, , packageDirectory, kind, where, id, index, count, ms] = process.argv
const { SqlSessionStore } = await load(packageDirectory, './sql')
let statements = 0
const client = await openClient(kind, where, () => statements++)
const store = new SqlSessionStore({ database: client.database, cleanupInterval: 0, timeout: 30_000 })
const HOUR_MS = 3_600_000

const latencies = []
const counters = {}
await write('warm', 200)
process.send('ready')
process.once('message', async () => {
  statements = 0
  latencies.length = 0
  await Promise.all(Array.from({ length: Number(count) }, (_, n) => write(`w${n}`, Number(ms))))
  process.send({ latencies, statements, counters }, () => process.exit(0))
})

/** Reads the session, and counts one up, as a request does. */
async function write(writer, forMs) {
  const name = `${writer}-${index}`
  const end = performance.now() + forMs
  for (let n = 1; performance.now() < end; n++) {
    const started = performance.now()
    const record = await store.get(id)
    const at = Date.now()
    const change = {
      generation: record.generation,
      at,
      expiresAt: at + HOUR_MS,
      set: new Map([[name, String(n)]]),
      madeOn: record,
    }
    const { status } = await store.update(id, change, HOUR_MS / 1000)
    if (status !== 'updated') throw new Error(`The change was not made: ${status}`)
    latencies.push(performance.now() - started)
    counters[name] = n
  }
}
