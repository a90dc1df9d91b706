// A near cache in a world that is made up, with a clock of its own: one session that two processes write, and a network that delays,
// drops and cuts at random. A million reads, of which none is older than it may be.
import { afterEach, expect, jest, test } from '@jest/globals'
import { SessionData } from 'sojourn'
import { NearCache } from '../../../../src/stores/redis/near-cache/near-cache.js'
import type { Line, LineListener } from '../../../../src/stores/redis/near-cache/tracker.js'

const READS = 1_000_000
const OWN_WRITE_MS = 50
const ID = 'abcd0000'
const KEY = 'soj:{abcd}0000'

afterEach(() => {
  jest.useRealTimers()
})

/** The same numbers for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** How the network is. */
interface Weather {
  /** The longest way there, or back, in ms. */
  readonly delayMs: number
  /** How often a connection is cut, or falls silent, in a step. */
  readonly trouble: number
  /** Whether changes may be told to nobody, though heartbeats are answered. */
  readonly liesAboutChanges: boolean
}

class World {
  now = 0
  /** When each version was written; the last one is what is stored. */
  readonly writtenAt = [0]
  readonly random: () => number
  readonly weather: Weather
  readonly cache: NearCache
  readonly #events: { at: number; run: () => void }[] = []
  #lines: SimulatedLine[] = []

  constructor(seed: number, weather: Weather, maxAgeMs: number) {
    this.random = randomFrom(seed)
    this.weather = weather
    const makeLine = (listener: LineListener): Line => {
      const line = new SimulatedLine(this, listener)
      this.#lines.push(line)
      return line
    }
    this.cache = new NearCache({
      maxAgeMs,
      maxBytes: 1_000_000,
      prefix: 'soj:',
      keyOf: () => KEY,
      servers: { all: () => new Map([['one', makeLine]]), holdersOf: () => 'one' },
      failed: () => {},
      now: () => this.now,
    })
  }

  get version(): number {
    return this.writtenAt.length - 1
  }

  delay(): number {
    return this.random() * this.weather.delayMs
  }

  later(ms: number, run: () => void): void {
    const at = this.now + ms
    const before = this.#events.findLastIndex((event) => event.at <= at)
    this.#events.splice(before + 1, 0, { at, run })
  }

  /** Time passes. What to wait for, if something happens meanwhile. */
  pass(ms: number): Promise<void> | undefined {
    const end = this.now + ms
    if ((this.#events[0]?.at ?? Number.POSITIVE_INFINITY) > end) {
      this.now = end
      return undefined
    }
    return this.#happen(end)
  }

  async #happen(end: number): Promise<void> {
    for (let next = this.#events[0]; next !== undefined && next.at <= end; next = this.#events[0]) {
      this.#events.shift()
      this.now = next.at
      next.run()
      await heard()
    }
    this.now = end
  }

  write(): void {
    this.writtenAt.push(this.now)
    const isTold = !this.weather.liesAboutChanges || this.random() < 0.5
    if (isTold) for (const line of this.#lines) line.tell(() => line.listener.changed([KEY]))
  }

  /** One reading by Redis, with two ways and perhaps no answer. */
  ask(): Promise<SessionData> {
    return new Promise((resolve, reject) => {
      const isLost = this.random() < this.weather.trouble
      this.later(this.delay(), () => {
        const record = recordOf(this.version)
        this.later(this.delay(), () => (isLost ? reject(new Error('lost')) : resolve(record)))
      })
    })
  }

  /** One write by the process that has the cache. Resolves to the version, if it was based on what was stored. */
  change(based: number): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const isLost = this.random() < this.weather.trouble
      this.later(this.delay(), () => {
        const isAsRead = this.version === based
        this.write()
        const { version } = this
        this.later(this.delay(), () => (isLost ? reject(new Error('lost')) : resolve(isAsRead ? version : undefined)))
      })
    })
  }

  trouble(): void {
    if (this.random() >= this.weather.trouble) return
    const line = this.#lines.at(-1)
    if (this.random() < 0.5) line?.cut()
    else line?.fallSilent()
    this.#lines = this.#lines.filter((each) => each.isOpen)
  }
}

/** What is told comes in order, late, or not at all. */
class SimulatedLine implements Line {
  isOpen = true
  #isHeard = true
  #isSubscribed = false
  #lastAt = 0
  readonly #world: World

  constructor(
    world: World,
    readonly listener: LineListener,
  ) {
    this.#world = world
  }

  open(): Promise<void> {
    return this.#answer(() => {
      this.#isSubscribed = true
    })
  }

  heartbeat(): Promise<void> {
    return this.#answer(() => {})
  }

  close(): void {
    this.isOpen = false
  }

  cut(): void {
    this.isOpen = false
    this.listener.lost(new Error('cut'))
  }

  fallSilent(): void {
    this.#isHeard = false
  }

  tell(run: () => void): void {
    if (!this.#isSubscribed) return
    const at = Math.max(this.#lastAt, this.#world.now + this.#world.delay())
    this.#lastAt = at
    this.#world.later(at - this.#world.now, () => {
      if (this.isOpen && this.#isHeard) run()
    })
  }

  #answer(onArrival: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#world.later(this.#world.delay(), () => {
        onArrival()
        this.tell(resolve)
      })
    })
  }
}

function recordOf(version: number): SessionData {
  return new SessionData({
    id: ID,
    tokenHash: 'hash',
    generation: version,
    createdAt: 0,
    updatedAt: 0,
    lastAccessedAt: 0,
    expiresAt: 1e12,
    absoluteExpiresAt: 1e12,
    fields: [],
  })
}

async function heard(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await Promise.resolve()
}

const CALM: Weather = { delayMs: 3, trouble: 0, liesAboutChanges: false }
const WEATHERS: readonly (readonly [string, Weather, maxAgeMs: number, lateMs: number])[] = [
  // The way of what is told, and what this process wrote itself.
  ['a calm network: nothing is later than the way that changes take', CALM, 1_000, OWN_WRITE_MS + 3],
  ['a slow network', { ...CALM, delayMs: 400 }, 1_000, 1_000],
  ['connections that are cut and fall silent', { delayMs: 60, trouble: 0.01, liesAboutChanges: false }, 1_000, 1_000],
  ['a server that keeps changes to itself', { delayMs: 5, trouble: 0, liesAboutChanges: true }, 1_000, 1_000],
  ['all of it, with a short maxAge', { delayMs: 80, trouble: 0.01, liesAboutChanges: true }, 100, 100],
]

test.each(WEATHERS)(
  'no answer is older than its bound: %s',
  async (_name, weather, maxAgeMs, lateMs) => {
    jest.useFakeTimers()
    const world = new World(20_261_128, weather, maxAgeMs)
    const { cache } = world
    const beatMs = Math.min(250, maxAgeMs / 4)
    let nextBeat = 0
    let reads = 0
    let hits = 0
    let worstMs = 0
    let ownMissed = 0
    /** What this process has been told that it wrote. */
    let acknowledged = 0
    while (reads < READS / WEATHERS.length) {
      if (world.now >= nextBeat) {
        cache.beat()
        nextBeat = world.now + beatMs
      }
      const what = world.random()
      if (what < 0.03) world.write()
      else if (what < 0.06) {
        const based = cache.read(ID)?.generation ?? world.version
        const writing = cache.write(
          ID,
          () => world.change(based),
          (made) => (made === undefined ? undefined : recordOf(made)),
        )
        const { version } = world
        writing.then(
          (made) => {
            acknowledged = Math.max(acknowledged, made ?? version)
          },
          () => {},
        )
      } else if (what < 0.4 && cache.read(ID) === undefined) cache.load(ID, () => world.ask()).catch(() => {})
      else world.trouble()
      await heard()
      for (let step = 0; step < 20; step++) {
        const passing = world.pass(world.random() * 2)
        if (passing !== undefined) await passing
        reads++
        const record = cache.read(ID)
        if (record === undefined) continue
        hits++
        // Its own writes a process reads at once.
        if (record.generation < acknowledged) ownMissed++
        const supersededAt = world.writtenAt[record.generation + 1]
        if (supersededAt !== undefined) worstMs = Math.max(worstMs, world.now - supersededAt)
      }
    }
    cache.close()
    expect(worstMs).toBeLessThanOrEqual(lateMs)
    expect(ownMissed).toBe(0)
    // And it is a cache.
    expect(hits).toBeGreaterThan(reads / 50)
    // Seen to be late at all, or the test would say nothing.
    expect(worstMs).toBeGreaterThan(0)
  },
  60_000,
)
