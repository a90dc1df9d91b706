// Every sink of ours passes the suite for sinks, and does what is its own. The SQL sink has a file of its own.
import { Writable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type Cluster, Redis } from 'ioredis'
import pino from 'pino'
import { createClient } from 'redis'
import { session } from 'sojourn'
import {
  type Activity,
  type ActivityArchive,
  ActivityLog,
  type ActivitySink,
  activitiesOf,
  functionSink,
  isArchive,
  memorySink,
  pinoSink,
  redisStreamSink,
} from 'sojourn/activity'
import { RedisSessionStore } from 'sojourn/redis'
import { checkSink, type SinkConformanceOptions, sinkChecks } from 'sojourn/testing'
import { SECRET, until } from '../../../support/http.js'
import { RedisServer, sharedRedis } from '../../../support/redis.js'
import { type RedisCluster, startCluster } from '../../../support/redis-topologies.js'
import { TestSink } from '../../../support/sinks.js'

const NOW = Date.now()

function activity(parts: Partial<Activity> = {}): Activity {
  return {
    id: crypto.randomUUID(),
    at: new Date(NOW),
    type: 'test',
    logicalId: undefined,
    sessionId: undefined,
    userId: undefined,
    details: undefined,
    request: undefined,
    ...parts,
  }
}

function suite(options: SinkConformanceOptions): void {
  for (const { name, run } of sinkChecks(options)) test(name, run)
}

describe('the suite for sinks: memory', () => {
  suite({ createSink: () => memorySink() })
})

describe('the suite for sinks: a function', () => {
  const kept = new WeakMap<ActivitySink, Activity[]>()
  suite({
    createSink() {
      const list: Activity[] = []
      const sink = functionSink((one) => list.push(one))
      kept.set(sink, list)
      return sink
    },
    read: (sink) => kept.get(sink) ?? [],
  })
})

describe('the suite for sinks: pino', () => {
  const lines = new WeakMap<ActivitySink, string[]>()
  suite({
    createSink() {
      const { logger, written } = pinoLogger()
      const sink = pinoSink(logger)
      lines.set(sink, written)
      return sink
    },
    read: (sink) => (lines.get(sink) ?? []).map((line) => (JSON.parse(line) as { activity: Activity }).activity),
  })
})

describe('the suite for sinks', () => {
  const broken: [what: string, failing: string, breakIt: (archive: ActivityArchive) => Partial<ActivityArchive>][] = [
    [
      'keeps a batch twice',
      'a batch that comes twice, or in part, is kept once',
      (archive) => ({
        write: (activities) => archive.write(activities.map((one) => ({ ...one, id: crypto.randomUUID() }))),
      }),
    ],
    [
      'loses the last of a batch',
      'an activity comes back exactly',
      (archive) => ({ write: (activities) => archive.write(activities.slice(0, -1)) }),
    ],
    ['sorts by arrival', 'a page is in order of time, and of IDs within one millisecond', byArrival],
    [
      'forgets the type of user IDs',
      'an activity comes back exactly',
      (archive) => ({
        write: (activities) =>
          archive.write(
            activities.map((one) => ({ ...one, userId: one.userId === undefined ? undefined : String(one.userId) })),
          ),
      }),
    ],
    [
      'replaces lone surrogates',
      'hostile text comes back exactly',
      (archive) => ({
        write: (activities) =>
          archive.write(activities.map((one) => ({ ...one, sessionId: one.sessionId?.toWellFormed() }))),
      }),
    ],
    [
      'ignores a condition',
      'conditions hold together',
      (archive) => ({ page: ({ userId: _userId, ...query }) => archive.page(query) }),
    ],
    [
      'takes until for inclusive',
      'since is inclusive, until is not',
      (archive) => ({
        page: ({ until, ...query }) => archive.page({ ...query, until: until && new Date(until.getTime() + 1) }),
      }),
    ],
    [
      'takes no type for any type',
      'several types are any of them, an empty list is none',
      (archive) => ({
        page: ({ type, ...query }) => archive.page({ ...query, type: type?.length === 0 ? undefined : type }),
      }),
    ],
    [
      'says that there is another page when there is none',
      'pages follow each other without a gap or a repeat, in both orders',
      (archive) => ({
        async page(query) {
          const page = await archive.page(query)
          return page.activities.length === query.limit ? { ...page, next: page.next ?? 'W10' } : page
        },
      }),
    ],
    ['pages by number', 'pages have no gap and no repeat while writes go on', byOffset],
    [
      'loses its place when what was there is pruned',
      'a place to go on from stays good when its activity is gone',
      byOffset,
    ],
    [
      'prunes nothing',
      'prune() removes what is older, everywhere, and says how many',
      () => ({ prune: async () => 0 }),
    ],
    [
      'does not check queries',
      'wrong queries are refused',
      (archive) => ({ page: ({ limit: _limit, ...query }) => archive.page(query) }),
    ],
    [
      'counts into an object that has a prototype',
      'counts are by type, whatever a type is called',
      (archive) => ({
        async countByType(query) {
          const counts: Record<string, number> = {}
          for (const [type, count] of Object.entries(await archive.countByType(query))) counts[type] = count
          return counts
        },
      }),
    ],
    [
      'alters what it is given',
      'leaves activities and the batch as they are',
      (archive) => ({
        write(activities) {
          const [first] = activities
          if (first) (first as { type: string }).type = 'altered'
          return archive.write(activities)
        },
      }),
    ],
  ]

  function byArrival(archive: ActivityArchive): Partial<ActivityArchive> {
    const arrived: string[] = []
    return {
      write(activities) {
        arrived.push(...activities.map(({ id }) => id))
        return archive.write(activities)
      },
      async page(query) {
        const { activities, next } = await archive.page(query)
        return { activities: activities.toSorted((a, b) => arrived.indexOf(a.id) - arrived.indexOf(b.id)), next }
      },
    }
  }

  function byOffset(archive: ActivityArchive): Partial<ActivityArchive> {
    return {
      async page({ after = '0', limit = 100, ...query }) {
        const all = (await archive.page({ ...query, limit: 1_000 })).activities
        const end = Number(after) + limit
        return { activities: all.slice(Number(after), end), next: end < all.length ? String(end) : undefined }
      },
    }
  }

  test.each(broken)('finds a sink that %s', async (_what, failing, breakIt) => {
    const createSink = (): ActivitySink => {
      const archive = memorySink()
      return { ...archive, ...breakIt(archive) } as ActivitySink
    }
    const report = await checkSink({ createSink })
    expect(report.isArchive).toBe(true)
    expect(report.failed.map(({ name }) => name)).toContain(failing)
  })

  test('finds a sink that mixes up the order, by what it reads of it', async () => {
    const sinks = new WeakMap<ActivitySink, TestSink>()
    const createSink = (): ActivitySink => {
      const sink = new TestSink()
      sinks.set(sink, sink)
      return sink
    }
    const read = (sink: ActivitySink): Activity[] => sinks.get(sink)?.kept.toReversed() ?? []
    const report = await checkSink({ createSink, read })
    expect(report.isArchive).toBe(false)
    expect(report.failed.map(({ name }) => name)).toEqual(['what was written comes out, in order'])
    expect(report.passed.length).toBe(5)
  })

  test('has nothing to say against the memory sink', async () => {
    const report = await checkSink({ createSink: () => memorySink() })
    expect(report.failed).toEqual([])
    expect(report.passed.length).toBeGreaterThan(20)
  })
})

describe('memorySink()', () => {
  test('is bounded: the oldest make room, in every timeline', async () => {
    const sink = memorySink({ maxActivities: 1_500 })
    for (let n = 0; n < 5_000; n++) {
      await sink.write([activity({ at: new Date(NOW + n), sessionId: n < 3_000 ? 'early' : 'late', logicalId: 'l' })])
    }
    expect(sink.size).toBe(1_500)
    expect((await sink.page({ sessionId: 'early' })).activities).toEqual([])
    expect((await sink.page({ logicalId: 'l', limit: 1 })).activities[0]?.at).toEqual(new Date(NOW + 3_500))
    expect(await sink.countByType({ sessionId: 'late' })).toEqual({ test: 1_500 })
  })

  test('what comes late finds its place, or is the oldest and goes', async () => {
    const sink = memorySink({ maxActivities: 3 })
    await sink.write([10, 30, 20, 5].map((n) => activity({ at: new Date(n), sessionId: 's' })))
    const { activities } = await sink.page({ sessionId: 's' })
    expect(activities.map(({ at }) => at.getTime())).toEqual([10, 20, 30])
  })

  test('clear() forgets all', async () => {
    const sink = memorySink()
    await sink.write([activity({ sessionId: 's', logicalId: 'l' })])
    sink.clear()
    expect(sink.size).toBe(0)
    expect((await sink.page({ sessionId: 's' })).activities).toEqual([])
  })

  test.each([0, -1, 1.5, '5'])('maxActivities: %p is refused', (maxActivities) => {
    expect(() => memorySink({ maxActivities: maxActivities as number })).toThrow(/maxActivities/)
  })
})

describe('functionSink()', () => {
  test('waits for each call, and after a failure goes on with the same activity', async () => {
    const calls: string[] = []
    let failures = 2
    const sink = functionSink(async ({ type }) => {
      calls.push(type)
      await new Promise((resolve) => setImmediate(resolve))
      if (type === 'b' && failures-- > 0) throw new Error('not now')
    })
    const log = new ActivityLog({ sinks: [sink], retryDelay: '1ms', onError: () => {} })
    for (const type of ['a', 'b', 'c']) log.log(type)
    await log.close()
    expect(calls).toEqual(['a', 'b', 'b', 'b', 'c'])
  })

  test('a function in the list of sinks is one', async () => {
    const given: string[] = []
    const log = new ActivityLog({ sinks: [({ type }) => given.push(type)] })
    log.log('a')
    await log.close()
    expect([given, log.stats.sinks[0]?.name]).toEqual([['a'], 'function'])
  })

  test('has the name that it is given, and needs a function', () => {
    expect(functionSink(() => {}, { name: 'queue' }).name).toBe('queue')
    expect(() => functionSink(5 as never)).toThrow(/function/)
    expect(() => functionSink(() => {}, { name: '' })).toThrow(/name/)
  })
})

describe('pinoSink()', () => {
  test('writes one line an activity: sessionId as in other lines, and the whole of it', async () => {
    const { logger, written } = pinoLogger()
    const one = activity({
      type: 'order.placed',
      logicalId: 'logical',
      sessionId: 'session',
      userId: 7,
      details: { orderId: 3 },
      request: { method: 'GET', path: '/', ip: '::1' },
    })
    await pinoSink(logger).write([one, activity()])
    expect(written.map((line) => JSON.parse(line) as object)).toEqual([
      expect.objectContaining({
        level: 30,
        msg: 'order.placed',
        sessionId: 'logical',
        activity: { ...one, at: one.at.toISOString() },
      }),
      expect.not.objectContaining({ sessionId: expect.anything() }),
    ])
  })

  test('at a level, or at one by activity', async () => {
    const { logger, written } = pinoLogger()
    await pinoSink(logger, { level: 'debug' }).write([activity()])
    await pinoSink(logger, { level: ({ type }) => (type.endsWith('.failed') ? 'error' : 'info') }).write([
      activity({ type: 'payment.failed' }),
      activity(),
    ])
    expect(written.map((line) => (JSON.parse(line) as { level: number }).level)).toEqual([20, 50, 30])
  })

  test('knows custom levels by their types', async () => {
    const { logger, written } = pinoLogger({ customLevels: { audit: 35 } })
    await pinoSink(logger, { level: 'audit' }).write([activity()])
    expect(written.length).toBe(1)
  })

  test('hostile text stays in one line, and breaks none in a pretty printer', async () => {
    const { logger, written } = pinoLogger()
    const text = 'a\r\n{"level":60,"msg":"forged"}\u0000\u001b[31m\u2028b'
    await pinoSink(logger).write([activity({ type: text, logicalId: text, details: { [text]: text } })])
    expect(written.length).toBe(1)
    expect(written[0]?.trimEnd()).not.toMatch(/\p{Cc}/u)
    expect((JSON.parse(written[0] as string) as { msg: string }).msg).not.toMatch(/[\p{Cc}\u2028]/u)
  })

  test('is no archive, and refuses what is no logger', () => {
    expect(isArchive(pinoSink(pinoLogger().logger))).toBe(false)
    expect(() => pinoSink({} as never)).toThrow(/level "info"/)
    expect(() => pinoSink(null as never)).toThrow(/level "info"/)
    expect(() => pinoSink(pinoLogger().logger, { level: 'loud' as 'info' })).toThrow(/level "loud"/)
  })
})

describe('Redis', () => {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let client: Redis
  let count = 0
  const newPrefix = (): string => `test-${process.pid}-${count++}:`

  beforeAll(async () => {
    redis = await sharedRedis()
    client = new Redis(redis.url)
  })
  afterAll(async () => {
    client.disconnect()
    await redis.stop()
  })

  describe('the suite for sinks', () => {
    const prefix = newPrefix()
    const createSink = (): ActivitySink => redisStreamSink({ client, prefix })
    suite({ createSink, createPeer: createSink })
  })

  describe('the suite for sinks, on a client of node-redis', () => {
    let own: ReturnType<typeof createClient>
    beforeAll(async () => {
      own = createClient({ url: redis.url })
      await own.connect()
    })
    afterAll(() => own.destroy())
    const prefix = newPrefix()
    const createSink = (): ActivitySink => redisStreamSink({ client: own, prefix })
    suite({ createSink, createPeer: createSink })
  })

  describe('the suite for sinks, with a keyPrefix of the client', () => {
    const own: Redis[] = []
    afterAll(() => {
      for (const each of own) each.disconnect()
    })
    const createSink = (): ActivitySink => {
      const prefixed = new Redis(redis.url, { keyPrefix: 'k:' })
      own.push(prefixed)
      return redisStreamSink({ client: prefixed, prefix: newPrefix() })
    }
    suite({ createSink })
  })

  async function keysOf(prefix: string): Promise<string[]> {
    return (await client.keys(`${prefix}*`)).map((key) => key.slice(prefix.length)).sort()
  }

  test('the stream has one entry an activity, for consumers to follow', async () => {
    const prefix = newPrefix()
    const one = activity({ sessionId: 's', logicalId: 'l', details: { a: 1 } })
    const sink = redisStreamSink({ client, prefix })
    await sink.write([one])
    await sink.write([one, activity()])
    const read = await client.xread('STREAMS', `${prefix}act:{log}`, '0')
    const entries = read?.[0]?.[1] ?? []
    expect(entries.length).toBe(2)
    const [, fields = []] = entries[0] ?? []
    expect(fields.slice(0, 1).concat(fields.slice(2))).toEqual(['activity', 'logical', 'l', 'session', 's'])
    expect(JSON.parse(fields[1] as string)).toMatchObject({ id: one.id, at: NOW, type: 'test', details: { a: 1 } })
    const quarter = Math.floor(NOW / 900_000)
    const sums = [`act:{log}:n:${quarter}`, `act:{log}:s:${quarter}`]
    expect(await keysOf(prefix)).toEqual(['act:l:{l}', 'act:s:{s}', 'act:{log}', 'act:{log}:at', ...sums])
  })

  test('maxLength trims the oldest everywhere, and leaves no key behind', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix, maxLength: 10 })
    for (let n = 0; n < 50; n++) {
      await sink.write([activity({ at: new Date(NOW + n), sessionId: `s${n % 25}`, logicalId: `l${n}` })])
    }
    expect(await client.xlen(`${prefix}act:{log}`)).toBe(10)
    const { activities } = await sink.page({})
    expect(activities.map(({ logicalId }) => logicalId)).toEqual(Array.from({ length: 10 }, (_, n) => `l${n + 40}`))
    expect((await sink.page({ logicalId: 'l0' })).activities).toEqual([])
    expect((await keysOf(prefix)).length).toBe(2 + 10 + 10)
  })

  test('counts are right where some of a quarter of an hour is gone, or came from an older version', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix, maxLength: 100 })
    const counts = async (): Promise<unknown> => {
      const byOne: Record<string, number> = {}
      for await (const { type } of activitiesOf(sink, {})) byOne[type] = (byOne[type] ?? 0) + 1
      const found = await sink.countByType({})
      expect(found).toEqual(byOne)
      return found
    }
    const minutes = async (from: number, to: number): Promise<void> => {
      const at = (n: number): Date => new Date(NOW + n * 60_000)
      await sink.write(Array.from({ length: to - from }, (_, n) => activity({ at: at(from + n), type: `t${n % 3}` })))
    }
    await minutes(0, 90)
    expect(await counts()).toEqual({ t0: 30, t1: 30, t2: 30 })
    // The oldest twenty make room.
    await minutes(90, 120)
    expect(await counts()).toEqual({ t0: 33, t1: 33, t2: 34 })
    await sink.prune(new Date(NOW + 33 * 60_000))
    expect(await counts()).toEqual({ t0: 29, t1: 29, t2: 29 })
    // What no script of this version has counted.
    const entry = await client.xadd(`${prefix}act:{log}`, '*', 'activity', JSON.stringify({ ...activity(), at: NOW }))
    const place = `${String(NOW + 8.64e15).padStart(17, '0')}:x`
    await client.zadd(`${prefix}act:{log}:at`, 0, `${place}:${entry}`)
    expect(await counts()).toEqual({ t0: 29, t1: 29, t2: 29, test: 1 })
    await minutes(0, 2)
    expect(await counts()).toEqual({ t0: 30, t1: 30, t2: 29, test: 1 })
  })

  test('a batch that is longer than maxLength leaves its newest', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix, maxLength: 3 })
    await sink.write(Array.from({ length: 20 }, (_, n) => activity({ at: new Date(NOW + n), sessionId: 's' })))
    expect((await sink.page({ sessionId: 's' })).activities.map(({ at }) => at.getTime() - NOW)).toEqual([17, 18, 19])
  })

  test('retention removes what is older with the next write, and everything some time after the last', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix, retention: '1h' })
    const old = activity({ at: new Date(Date.now() - 3_700_000), sessionId: 's', logicalId: 'old' })
    const recent = activity({ at: new Date(Date.now() - 3_500_000), sessionId: 's' })
    await sink.write([old, recent])
    expect((await sink.page({})).activities.map(({ id }) => id)).toEqual([recent.id])
    expect((await sink.page({ sessionId: 's' })).activities.map(({ id }) => id)).toEqual([recent.id])
    for (const key of await keysOf(prefix)) {
      const ttl = await client.pttl(prefix + key)
      expect([key, ttl > 3_500_000 && ttl <= 3_600_000]).toEqual([key, true])
    }
  })

  test('prune() leaves no key behind when nothing is left', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix })
    await sink.write(Array.from({ length: 1_200 }, (_, n) => activity({ sessionId: `s${n % 7}`, logicalId: `l${n}` })))
    expect(await sink.prune(new Date(NOW))).toBe(0)
    expect(await sink.prune(new Date(NOW + 1))).toBe(1_200)
    expect((await keysOf(prefix)).filter((key) => key !== 'act:{log}')).toEqual([])
    expect(await client.xlen(`${prefix}act:{log}`)).toBe(0)
  })

  test('a timeline costs the same however long the log is', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix })
    const stats = async (): Promise<number> => {
      await client.config('RESETSTAT')
      await sink.page({ sessionId: 'mine' })
      const info = await client.info('commandstats')
      return [...info.matchAll(/calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0)
    }
    await sink.write(Array.from({ length: 10 }, () => activity({ sessionId: 'mine' })))
    const before = await stats()
    for (let n = 0; n < 10; n++) {
      await sink.write(Array.from({ length: 500 }, () => activity({ sessionId: 'others', logicalId: 'others' })))
    }
    expect(await stats()).toBeLessThanOrEqual(before)
  })

  test('shares a prefix with the session store, which does not take it for sessions', async () => {
    const prefix = newPrefix()
    const store = new RedisSessionStore({ client, prefix })
    const sink = redisStreamSink({ client, prefix })
    await sink.write([activity({ sessionId: 's', logicalId: 'l' })])
    const found: string[] = []
    for await (const { id } of store.scan()) found.push(id)
    expect(found).toEqual([])
  })

  test('what somebody else has put into the stream is passed over', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix })
    const one = activity({ sessionId: 's' })
    await sink.write([one])
    for (const text of ['{', '[]', 'null', '{"id":5}']) {
      const entry = await client.xadd(`${prefix}act:{log}`, '*', 'activity', text)
      await client.zadd(`${prefix}act:{log}:at`, 0, `00008641000000000:x:${entry}`)
      await client.zadd(`${prefix}act:s:{s}`, 0, '00008641000000000:x')
    }
    await client.xadd(`${prefix}act:{log}`, '*', 'other', 'fields')
    expect((await sink.page({})).activities.map(({ id }) => id)).toEqual([one.id])
    expect((await sink.page({ sessionId: 's' })).activities.map(({ id }) => id)).toEqual([one.id])
  })

  test('close() leaves the client alone', async () => {
    const sink = redisStreamSink({ client, prefix: newPrefix() })
    await sink.close?.()
    expect(await client.ping()).toBe('PONG')
  })

  test('an error of Redis is a SessionError with its cause, without what was to be written', async () => {
    const prefix = newPrefix()
    const sink = redisStreamSink({ client, prefix })
    await client.set(`${prefix}act:{log}:at`, 'no set')
    const error = (await Promise.resolve(sink.write([activity({ details: { a: 'marker' } })])).catch(
      (reason: unknown) => reason,
    )) as Error & { code: string; cause: Error }
    expect(error.code).toBe('STORE_UNAVAILABLE')
    expect(error.cause.message).toContain('WRONGTYPE')
    expect(JSON.stringify([error.message, error.cause.message, Object.values(error.cause)])).not.toContain('marker')
  })

  test.each([
    [undefined, /client/],
    [{}, /client/],
    [{ client: {} }, /evalsha/],
    [{ prefix: '{a}' }, /prefix/],
    [{ prefix: 5 }, /prefix/],
    [{ maxLength: 0 }, /maxLength/],
    [{ maxLength: '5' }, /maxLength/],
    [{ retention: 'long' }, /retention/],
    [{ retention: '10ms' }, /retention/],
  ])('%j is refused', (options, message) => {
    const isWhole = options === undefined || 'client' in options || Object.keys(options).length === 0
    const given = isWhole ? options : { client, ...options }
    expect(() => redisStreamSink(given as never)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(message) }),
    )
  })

  test('survives an outage: what was queued is written when Redis is back, and nothing twice', async () => {
    const server = await RedisServer.start()
    const own = new Redis(server.port, '127.0.0.1', { retryStrategy: () => 10, maxRetriesPerRequest: 0 })
    own.on('error', () => {})
    const log = new ActivityLog({
      sinks: [redisStreamSink({ client: own })],
      flushInterval: '1ms',
      retryDelay: '10ms',
      maxRetries: 1_000,
      onError: () => {},
    })
    try {
      log.log('before')
      await log.flush()
      await server.kill()
      log.log('meanwhile')
      await until(() => (log.stats.sinks[0]?.failures ?? 0) > 0)
      await server.restart()
      await log.flush()
      log.log('after')
      expect((await log.timeline({})).activities.map(({ type }) => type)).toEqual(['meanwhile', 'after'])
    } finally {
      await log.close({ timeout: '1s' })
      own.disconnect()
      await server.stop()
    }
  })

  test('a frozen Redis delays no request, and its batch is kept once when it thaws', async () => {
    const server = await RedisServer.start()
    const own = new Redis(server.port, '127.0.0.1')
    own.on('error', () => {})
    const log = new ActivityLog({
      sinks: [redisStreamSink({ client: own })],
      flushInterval: '1ms',
      retryDelay: '1ms',
      writeTimeout: '50ms',
      maxRetries: 1_000,
      onError: () => {},
    })
    try {
      log.log('before')
      await log.flush()
      server.freeze()
      log.log('frozen', {}, { sessionId: 's' })
      await until(() => (log.stats.sinks[0]?.failures ?? 0) >= 3)
      server.thaw()
      await log.flush()
      expect(await log.countByType()).toEqual({ before: 1, frozen: 1 })
      expect(await log.countByType({ sessionId: 's' })).toEqual({ frozen: 1 })
    } finally {
      server.thaw()
      await log.close({ timeout: '1s' })
      own.disconnect()
      await server.stop()
    }
  })
})

describe('a Redis Cluster', () => {
  let cluster: RedisCluster
  let client: Cluster
  beforeAll(async () => {
    cluster = await startCluster()
    client = await cluster.connect()
  })
  afterAll(() => cluster.stop())

  const createSink = (): ActivitySink => redisStreamSink({ client })
  suite({ createSink, createPeer: createSink })

  test('spreads timelines over the nodes', async () => {
    const sink = redisStreamSink({ client })
    await sink.write(Array.from({ length: 50 }, () => activity({ sessionId: crypto.randomUUID() })))
    const sizes = await Promise.all(client.nodes('master').map((node) => node.dbsize()))
    expect(sizes.length).toBe(3)
    expect(Math.min(...sizes)).toBeGreaterThan(0)
  })
})

test('a log of all sinks is an option of session()', async () => {
  const log = new ActivityLog({ sinks: [memorySink(), pinoSink(pinoLogger().logger), () => {}] })
  expect(session({ secret: SECRET, activity: log })).toBeInstanceOf(Function)
  await log.close()
})

function pinoLogger<Custom extends string = never>(
  options: pino.LoggerOptions<Custom> = {},
): { logger: pino.Logger<Custom>; written: string[] } {
  const written: string[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      written.push(String(chunk))
      done()
    },
  })
  return { logger: pino<Custom>({ level: 'debug', ...options }, stream), written }
}
