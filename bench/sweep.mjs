// How long the clean-up of many expired sessions stops the event loop. Prints JSON.
//   argv: directory of the package, number of sessions
import { load } from './contenders.mjs'
import { fill } from './fill.mjs'

const [, , packageDirectory, count] = process.argv
const library = await load(packageDirectory)
let now = Date.now()
const store = new library.MemorySessionStore({ maxSessions: Number(count), cleanupInterval: 0, clock: () => now })
await fill(store, library, Number(count), { now })
now += 24 * 3_600_000

// The garbage of the filling is not the sweep's.
globalThis.gc()
let longestMs = 0
let last = performance.now()
let isRunning = true
const watch = () => {
  const present = performance.now()
  longestMs = Math.max(longestMs, present - last)
  last = present
  if (isRunning) setImmediate(watch)
}
watch()
const start = performance.now()
const removed = await store.clearExpired()
// What the sweep leaves to the next turn counts as well.
await new Promise(setImmediate)
await new Promise(setImmediate)
isRunning = false
console.log(JSON.stringify({ removed, longestStallMs: longestMs, tookMs: performance.now() - start }))
