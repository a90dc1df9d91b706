// What is said of how soon endings are heard: the table, and the goals.
const MEDIAN_MS = 100
const MAX_MS = 1_000
const CLOSED_MS = 1_000

/** @param {object} live what live.mjs printed @param {Function} table */
export function liveReport({ latency, sockets }, table) {
  const lines = [
    [`ended in one process, heard in another, ${latency.count} times: median`, ms(latency.median)],
    ['99 of 100', ms(latency.p99)],
    ['the longest', ms(latency.max)],
    [`revokeUser() of ${sockets.revoked.toLocaleString('en')} sessions`, ms(sockets.revokedMs)],
    [`from its call until the last of ${sockets.count.toLocaleString('en')} sockets was closed`, ms(sockets.closedMs)],
    ['CPU time of the process that held them', ms(sockets.cpuMs)],
    ['connections that are subscribed, both processes', `${sockets.subscribers}`],
  ]
  return table(['what', 'found'], lines)
}

export function* liveGoals(live) {
  if (!live) return
  const { latency, sockets } = live
  yield goal('an ending is heard elsewhere: median', MEDIAN_MS, latency.median)
  yield goal('an ending is heard elsewhere: at most', MAX_MS, latency.max)
  const what = `${sockets.count.toLocaleString('en')} sockets are closed after revokeUser()`
  yield goal(what, CLOSED_MS, sockets.closedMs - sockets.revokedMs)
}

function goal(what, bound, found) {
  return { what, goal: `≤ ${bound} ms`, found: ms(found), isMet: found <= bound }
}

function ms(value) {
  return `${value.toFixed(1)} ms`
}
