// Memory per session of a memory store, on the JavaScript heap and in buffers. Prints bytes. Needs --expose-gc.
//   argv: "sojourn" or "express-session", directory of the package, number of sessions
import { CONTENDERS } from './contenders.mjs'
import { sessionData } from './data.mjs'
import { exchange } from './in-process.mjs'

const [, , who, packageDirectory, count] = process.argv
const name = { sojourn: 'sojourn-memory', 'express-session': 'express-session' }[who]
const { middleware } = await CONTENDERS[name].create({ packageDirectory })

// The first sessions bring what the store has once for all of them.
await makeSessions(1_000)
const before = heap()
await makeSessions(Number(count))
console.log(Math.round((heap() - before) / Number(count)))
// The store lives until here.
middleware.toString()

async function makeSessions(number) {
  for (let n = 0; n < number; n++) {
    // A turn of the event loop, so that what a request defers does not pile up.
    if (n % 100 === 0) await new Promise(setImmediate)
    await exchange(middleware, { handler: (req) => Object.assign(req.session, sessionData('0.2', n)) })
  }
}

function heap() {
  for (let times = 0; times < 3; times++) globalThis.gc()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
