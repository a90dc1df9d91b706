// A client that is on one server.
import type { MakeLine } from './tracker.js'
import type { Servers } from './trackers.js'

/** One server, whose address does not matter. */
export function oneServer(makeLine: MakeLine): Servers {
  const all = new Map([['', makeLine]])
  return { all: () => all, holdersOf: () => '' }
}
