// The near cache by itself, under a clock that the test moves: which reads it answers, and that no answer is too old, whatever the
// network does. The servers are made up here; real ones are in the tests beside this.
import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals'
import { SessionData } from 'sojourn'
import { NearCache } from '../../../../src/stores/redis/near-cache/near-cache.js'
import type { Line, LineListener, MakeLine } from '../../../../src/stores/redis/near-cache/tracker.js'

const MAX_AGE_MS = 1_000
const OWN_WRITE_MS = 50
const PREFIX = 'soj:'

const ID = randomUUID()

function keyOf(id: string): string {
  return `${PREFIX}{${id.slice(0, 4)}}${id.slice(4)}`
}

/** A record that says which version of the session it is. */
function recordOf(version: number, id = ID, text = ''): SessionData {
  return new SessionData({
    id,
    tokenHash: 'hash',
    generation: 1,
    createdAt: 0,
    updatedAt: 0,
    lastAccessedAt: 0,
    expiresAt: 1e12,
    absoluteExpiresAt: 1e12,
    fields: [
      ['version', String(version)],
      ['text', text],
    ],
  })
}

function versionOf(record: SessionData | null | undefined): number | undefined {
  return record ? Number(record.fields.get('version')) : undefined
}

/** All that was said has been heard. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await Promise.resolve()
}

/** A server that does what it is asked at once, until it is told otherwise. */
class StubServer {
  lines: { listener: LineListener; isOpen: boolean }[] = []
  answers = true
  opens = true

  readonly makeLine: MakeLine = (listener) => {
    const line = { listener, isOpen: true }
    this.lines.push(line)
    const answer = (isGood: boolean): Promise<void> => (isGood ? Promise.resolve() : new Promise(() => {}))
    return {
      open: () => (this.opens ? answer(true) : Promise.reject(new Error('refused'))),
      heartbeat: () => answer(this.answers),
      close() {
        line.isOpen = false
      },
    } satisfies Line
  }

  tell(...keys: string[]): void {
    for (const { listener } of this.lines) listener.changed(keys)
  }

  flush(): void {
    for (const { listener } of this.lines) listener.changed(null)
  }

  cut(): void {
    for (const { listener } of this.lines) listener.lost(new Error('cut'))
  }
}

let now = 0
const caches: NearCache[] = []
beforeEach(() => {
  now = 10_000
  // The timer never fires: the tests say when it is time.
  jest.useFakeTimers()
})
afterEach(() => {
  for (const cache of caches.splice(0)) cache.close()
  jest.useRealTimers()
})

/** A cache whose trackers live. */
async function begin(servers: Record<string, StubServer>, holders = Object.keys(servers).join()): Promise<NearCache> {
  const cache = new NearCache({
    maxAgeMs: MAX_AGE_MS,
    maxBytes: 10_000,
    prefix: PREFIX,
    keyOf,
    servers: {
      all: () => new Map(Object.entries(servers).map(([name, { makeLine }]) => [name, makeLine])),
      holdersOf: () => holders,
    },
    failed: () => {},
    now: () => now,
  })
  caches.push(cache)
  await cache.load(ID, async () => null)
  await settled()
  return cache
}

async function read(cache: NearCache, version: number): Promise<void> {
  await cache.load(ID, async () => recordOf(version))
}

/** Time passes, and heartbeats with it. */
async function pass(cache: NearCache, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 250) {
    now += Math.min(250, left)
    cache.beat()
    await settled()
  }
}

describe('a session that was read', () => {
  test('is answered from memory until it is maxAge old, however often its server proves alive', async () => {
    const cache = await begin({ one: new StubServer() })
    await read(cache, 1)
    expect(versionOf(cache.read(ID))).toBe(1)
    await pass(cache, MAX_AGE_MS - 1)
    expect(versionOf(cache.read(ID))).toBe(1)
    now += 1
    expect(cache.read(ID)).toBeUndefined()
    cache.beat()
    expect(cache.facts).toMatchObject({ sessions: 0, bytes: 0, hits: 2 })
  })

  test('is as old as the question, not as its answer', async () => {
    const cache = await begin({ one: new StubServer() })
    const reading = cache.load(ID, async () => {
      await pass(cache, 900)
      return recordOf(1)
    })
    await reading
    now += 99
    expect(versionOf(cache.read(ID))).toBe(1)
    now += 1
    expect(cache.read(ID)).toBeUndefined()
  })

  test('is forgotten when its key changes, and no other is', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    await read(cache, 1)
    server.tell(keyOf(randomUUID()), 'soj:u:{ann}', 'soj:epoch', 'other', 'soj:{', '')
    expect(versionOf(cache.read(ID))).toBe(1)
    server.tell('soj:epoch', keyOf(ID))
    expect(cache.read(ID)).toBeUndefined()
  })

  test('is forgotten with all others when all keys may have changed', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    await read(cache, 1)
    server.flush()
    expect(cache.read(ID)).toBeUndefined()
    expect(cache.facts.bytes).toBe(0)
  })

  test('is not answered from memory while its server does not prove alive, and is again when it does', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    server.answers = false
    await pass(cache, 500)
    await read(cache, 1)
    expect(versionOf(cache.read(ID))).toBe(1)
    await pass(cache, 750)
    expect(cache.read(ID)).toBeUndefined()
    // Nor is anything kept.
    await read(cache, 2)
    expect(cache.read(ID)).toBeUndefined()
    // In the end its connection is replaced.
    server.answers = true
    await pass(cache, 5_000)
    expect(server.lines.map(({ isOpen }) => isOpen)).toEqual([false, true])
    await read(cache, 3)
    expect(versionOf(cache.read(ID))).toBe(3)
  })

  test('is forgotten when the connection that would tell of it is lost', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    await read(cache, 1)
    server.cut()
    expect(cache.read(ID)).toBeUndefined()
    await read(cache, 2)
    expect(cache.read(ID)).toBeUndefined()
    await pass(cache, 250)
    expect(server.lines.length).toBe(2)
    await read(cache, 3)
    expect(versionOf(cache.read(ID))).toBe(3)
    // What an old connection says late, nobody believes.
    server.lines[0]?.listener.changed(null)
    expect(versionOf(cache.read(ID))).toBe(3)
  })

  test('is not kept when there is nobody to tell of it', async () => {
    const server = new StubServer()
    server.opens = false
    const cache = await begin({ one: server })
    await read(cache, 1)
    expect(cache.read(ID)).toBeUndefined()
    const other = await begin({ one: new StubServer() }, 'unknown')
    await read(other, 1)
    expect(other.read(ID)).toBeUndefined()
  })

  test('stands on all servers that hold it', async () => {
    const [primary, replica] = [new StubServer(), new StubServer()]
    const cache = await begin({ primary, replica })
    await read(cache, 1)
    expect(versionOf(cache.read(ID))).toBe(1)
    replica.tell(keyOf(ID))
    expect(cache.read(ID)).toBeUndefined()
    await read(cache, 2)
    replica.cut()
    expect(cache.read(ID)).toBeUndefined()
  })

  test('is forgotten for others when there is no more room', async () => {
    const cache = await begin({ one: new StubServer() })
    const ids = Array.from({ length: 6 }, () => randomUUID())
    for (const id of ids) await cache.load(id, async () => recordOf(1, id, 'x'.repeat(500)))
    expect(ids.map((id) => cache.read(id) !== undefined)).toEqual([false, false, true, true, true, true])
    expect(cache.facts.bytes).toBeLessThanOrEqual(10_000)
    // One that has no room by itself drives nobody out.
    await cache.load(ID, async () => recordOf(1, ID, 'x'.repeat(10_000)))
    expect(cache.read(ID)).toBeUndefined()
    expect(cache.facts.sessions).toBe(4)
  })

  test('is not kept once the cache is closed', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    cache.close()
    await read(cache, 1)
    expect(cache.read(ID)).toBeUndefined()
    expect(server.lines.map(({ isOpen }) => isOpen)).toEqual([false])
  })
})

describe('a reading that overlaps a change', () => {
  /** A reading that is under way while `meanwhile` runs. */
  async function readDuring(cache: NearCache, meanwhile: () => unknown): Promise<void> {
    const reading = cache.load(ID, async () => {
      await settled()
      return recordOf(1)
    })
    await meanwhile()
    expect(versionOf(await reading)).toBe(1)
  }

  test('elsewhere is not kept', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    await readDuring(cache, () => server.tell(keyOf(ID)))
    expect(cache.read(ID)).toBeUndefined()
    await readDuring(cache, () => server.flush())
    expect(cache.read(ID)).toBeUndefined()
    await readDuring(cache, () => server.cut())
    expect(cache.read(ID)).toBeUndefined()
  })

  test('by this process is not kept, whether the write began before or after it', async () => {
    const cache = await begin({ one: new StubServer() })
    await readDuring(cache, () => void cache.write(ID, async () => {}))
    expect(cache.read(ID)).toBeUndefined()
    let finish = (): void => {}
    const write = cache.write(ID, () => new Promise<void>((resolve) => (finish = resolve)))
    await read(cache, 1)
    expect(cache.read(ID)).toBeUndefined()
    finish()
    await write
    expect(cache.read(ID)).toBeUndefined()
  })

  test('is not kept by those who read with it either, and the next one is', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    const second = cache.load(ID, async () => {
      await settled()
      await settled()
      return recordOf(1)
    })
    await readDuring(cache, () => server.tell(keyOf(ID)))
    await second
    expect(cache.read(ID)).toBeUndefined()
    await read(cache, 2)
    expect(versionOf(cache.read(ID))).toBe(2)
  })

  test('one of many that overlap each other is kept', async () => {
    const cache = await begin({ one: new StubServer() })
    const slow = cache.load(ID, () => new Promise(() => {}))
    await read(cache, 1)
    expect(versionOf(cache.read(ID))).toBe(1)
    expect(slow).toBeInstanceOf(Promise)
  })
})

describe('a write of this process', () => {
  test('leaves what it made for a moment, and what is told of it meanwhile counts for nothing', async () => {
    const server = new StubServer()
    const cache = await begin({ one: server })
    await cache.write(
      ID,
      async () => 2,
      (version) => recordOf(version),
    )
    server.tell(keyOf(ID))
    now += OWN_WRITE_MS - 1
    expect(versionOf(cache.read(ID))).toBe(2)
    now += 1
    expect(cache.read(ID)).toBeUndefined()
  })

  test('leaves nothing when it took longer than that moment', async () => {
    const cache = await begin({ one: new StubServer() })
    const slow = async (): Promise<number> => {
      now += OWN_WRITE_MS
      return 2
    }
    await cache.write(ID, slow, (version) => recordOf(version))
    expect(cache.read(ID)).toBeUndefined()
  })

  test('leaves nothing when another one went on at the same time, or when it failed', async () => {
    const cache = await begin({ one: new StubServer() })
    const write = (version: number): Promise<number> =>
      cache.write(
        ID,
        async () => version,
        (made) => recordOf(made),
      )
    await Promise.all([write(2), write(3)])
    expect(cache.read(ID)).toBeUndefined()
    await write(4)
    await expect(cache.write(ID, () => Promise.reject(new Error('lost')))).rejects.toThrow('lost')
    expect(cache.read(ID)).toBeUndefined()
  })
})
