// A tracker for every server that has sessions or may come to have them: in a cluster all nodes, replicas included, so that the
// promotion of one leaves no gap.
import { type MakeLine, Tracker, type TrackerOptions, type Watch } from './tracker.js'

/** The servers behind a client, as it knows them now. */
export interface Servers {
  /** Each by a name without commas. */
  all(): ReadonlyMap<string, MakeLine>
  /** The names of those that have a key, with commas between. */
  holdersOf(key: string): string
}

export class Trackers {
  readonly #servers: Servers
  readonly #options: Omit<TrackerOptions, 'makeLine'>
  readonly #trackers = new Map<string, Tracker>()
  readonly #watches = new Map<string, Watch>()

  constructor(servers: Servers, options: Omit<TrackerOptions, 'makeLine'>) {
    this.#servers = servers
    this.#options = options
  }

  /** Who tells of changes of a key; `null` while one of its servers has nobody. */
  watchOf(key: string): Watch | null {
    const names = this.#servers.holdersOf(key)
    const known = this.#watches.get(names)
    if (known !== undefined) return known
    const trackers = names.split(',').map((name) => this.#trackers.get(name))
    const there = trackers.filter((tracker) => tracker !== undefined)
    if (there.length < trackers.length) return null
    const watch = there.length === 1 ? (there[0] as Watch) : new Several(there)
    this.#watches.set(names, watch)
    return watch
  }

  /** To be called now and then. */
  beat(): void {
    const servers = this.#servers.all()
    for (const [name, makeLine] of servers) {
      if (!this.#trackers.has(name)) this.#trackers.set(name, new Tracker({ ...this.#options, makeLine }))
    }
    for (const [name, tracker] of this.#trackers) {
      if (servers.has(name)) tracker.beat()
      else this.#drop(name, tracker)
    }
  }

  close(): void {
    for (const [name, tracker] of this.#trackers) this.#drop(name, tracker)
  }

  #drop(name: string, tracker: Tracker): void {
    tracker.close()
    this.#trackers.delete(name)
    this.#watches.clear()
  }
}

class Several implements Watch {
  readonly #watches: readonly Watch[]

  constructor(watches: readonly Watch[]) {
    this.#watches = watches
  }

  isProven(now: number): boolean {
    for (const watch of this.#watches) if (!watch.isProven(now)) return false
    return true
  }
}
