// The Redis store beside the memory store: whatever happens to a session, in whatever order and from whatever reading, both
// answer the same and keep the same. Sizes lie around the bounds of what is small and large.
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import {
  type Expectation,
  MemorySessionStore,
  type SessionChange,
  SessionData,
  type SessionDataInit,
  type SessionStore,
} from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { RedisServer } from '../../support/redis.js'

const START = 1_700_000_000_000
const HOUR_MS = 3_600_000
/** The clock of the stores stands still; changes bring their own times. */
const STEP_MS = 1_000

let server: RedisServer
let redis: Redis
let store: RedisSessionStore
/** Another process's, which has written nothing itself. */
let reader: RedisSessionStore
beforeAll(async () => {
  server = await RedisServer.start()
  redis = new Redis(server.url)
  store = new RedisSessionStore({ url: server.url })
  reader = new RedisSessionStore({ url: server.url })
})
afterAll(async () => {
  await store.close()
  await reader.close()
  redis.disconnect()
  await server.stop()
})
afterEach(() => redis.flushall())

const name = fc.constantFrom('a', 'b', 'c', 'm', '', 'line\nbreak', 'tab\t', '__proto__')
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 6 }).filter((each) => each.isWellFormed()),
  fc.constantFrom(255, 256, 257, 1_500, 3_900, 4_200).map((length) => 'x'.repeat(length)),
  fc.constant(`é\u001b${'\n'.repeat(300)}`),
)
const fields = fc.array(fc.tuple(name, text), { maxLength: 4 })

/** Which reading of the session a change is made on: so many steps ago, or none. */
const reading = fc.option(fc.nat(3), { nil: undefined })

type Step =
  | { kind: 'update'; set: [string, string][]; remove: string[]; on: number | undefined; how: How; isPassive: boolean }
  | { kind: 'touch'; seconds: number }
  | { kind: 'regenerate'; keep: 'all' | string[]; remove: string[]; set: [string, string][] }
  | { kind: 'end' }
type How = 'plain' | 'renew' | 'expect' | 'expect the wrong text' | 'logical ID' | 'settings' | 'no change'

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('update' as const),
      set: fields,
      remove: fc.array(name, { maxLength: 2 }),
      on: reading,
      how: fc.constantFrom<How>(
        'plain',
        'plain',
        'renew',
        'expect',
        'expect the wrong text',
        'logical ID',
        'settings',
        'no change',
      ),
      isPassive: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('touch' as const), seconds: fc.nat(7_200) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('regenerate' as const),
      keep: fc.oneof(fc.constant('all' as const), fc.uniqueArray(name, { maxLength: 3 })),
      remove: fc.array(name, { maxLength: 2 }),
      set: fields,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('end' as const) }) },
)

/** One session in two stores. What was read of it is kept, for changes that come late. */
class Twins {
  readonly memory = new MemorySessionStore({ clock: () => START, warnInProduction: false })
  id: string
  generation = 1
  now = START
  #readings: [memory: SessionData, redis: SessionData][] = []

  constructor(readonly init: SessionDataInit) {
    this.id = init.id
  }

  async start(): Promise<void> {
    const record = new SessionData(this.init)
    for (const each of this.#stores()) expect(await each.create(this.id, record, 3_600)).toBe(true)
    await this.compare()
  }

  async run(step: Step): Promise<void> {
    this.now += STEP_MS
    switch (step.kind) {
      case 'update':
        await this.#update(step)
        break
      case 'touch':
        await this.#both((each) => each.touch(this.id, step.seconds, this.now))
        break
      case 'regenerate': {
        const id = this.id.slice(0, 4) + randomUUID().slice(4)
        const generation = this.generation
        const next = new SessionData({
          ...this.init,
          id,
          generation: generation + 1,
          tokenHash: randomUUID(),
          lastAccessedAt: this.now,
          fields: step.set,
        })
        const regeneration = {
          generation,
          at: this.now,
          next,
          keep: step.keep,
          delete: step.remove,
          tombstoneSeconds: 9,
        }
        const result = await this.#both((each) => each.regenerate(this.id, regeneration, 3_600))
        const old = this.id
        if ((result as { status: string }).status === 'regenerated') {
          this.id = id
          this.generation++
        }
        await this.compare(old)
        break
      }
      case 'end':
        await this.#both((each) => each.end(this.id, { reason: 'logout', at: this.now }, 60))
    }
    await this.compare()
  }

  async #update({ set, remove, on, how, isPassive }: Step & { kind: 'update' }): Promise<void> {
    const readings = on === undefined ? undefined : this.#readings.at(-1 - on)
    const madeOn = readings ?? [undefined, undefined]
    const seen = readings?.[0] ?? (await this.memory.get(this.id))
    const names = new Set(set.map(([each]) => each))
    const [first = 'a'] = names
    const expectation = (): Expectation => ({ field: first, text: seen?.fields.get(first) })
    const change: SessionChange = {
      generation: seen?.generation ?? 1,
      at: this.now,
      expiresAt: this.now + HOUR_MS,
      ...(how !== 'no change' && { set: new Map(set), delete: remove.filter((each) => !names.has(each)) }),
      ...(how === 'renew' && {
        renew: { from: seen?.tokenHash ?? '', to: randomUUID(), graceUntil: this.now + STEP_MS },
      }),
      ...(how === 'expect' && { expect: expectation() }),
      ...(how === 'expect the wrong text' && { expect: { field: first, text: 'never\nwritten' } }),
      ...(how === 'logical ID' && {
        expect: { logicalId: seen?.logicalId },
        metadata: { logicalId: randomUUID() },
      }),
      ...(how === 'settings' && {
        metadata: { idleTimeoutMs: 2 * HOUR_MS, persistent: true, absoluteExpiresAt: this.now + 20 * HOUR_MS },
      }),
      isPassive,
    }
    await this.#both((each, index) => each.update(this.id, { ...change, madeOn: madeOn[index] }, 3_600))
  }

  /** Does the same to both, and compares what they say. */
  async #both(action: (store: SessionStore, index: 0 | 1) => Promise<unknown>): Promise<unknown> {
    const said: unknown[] = []
    for (const index of [0, 1] as const) {
      const result = await action(this.#stores()[index], index)
      // The record of an update is told by the store that knows it.
      said.push(hasStatus(result, 'updated') ? { status: 'updated' } : result)
    }
    expect(said[1]).toEqual(said[0])
    return said[0]
  }

  async compare(id = this.id): Promise<void> {
    const [memory, inRedis, decoded] = await Promise.all([...this.#stores(), reader].map((each) => each.get(id)))
    expect(inRedis).toEqual(memory)
    expect(decoded).toEqual(memory)
    if (memory && inRedis) this.#readings.push([memory, inRedis])
  }

  #stores(): [SessionStore, SessionStore] {
    return [this.memory, store]
  }
}

function hasStatus(result: unknown, status: string): boolean {
  return typeof result === 'object' && result !== null && (result as { status?: unknown }).status === status
}

test('the Redis store and the memory store answer the same and keep the same, whatever happens', async () => {
  await fc.assert(
    fc.asyncProperty(fields, fc.array(step, { minLength: 1, maxLength: 12 }), async (initial, steps) => {
      await redis.flushall()
      const twins = new Twins({
        id: randomUUID(),
        tokenHash: randomUUID(),
        generation: 1,
        createdAt: START,
        updatedAt: START,
        lastAccessedAt: START,
        expiresAt: START + HOUR_MS,
        absoluteExpiresAt: START + 12 * HOUR_MS,
        userId: 'ann',
        context: { ip: '127.0.0.1', locale: 'en' },
        epoch: 3,
        fields: new Map(initial),
      })
      await twins.start()
      for (const each of steps) await twins.run(each)
    }),
    { numRuns: 200 },
  )
}, 60_000)
