// Reading activities back: the same answers from memory, Redis and SQL, for scripted days and for real sessions.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals'
import express, { type Express } from 'express'
import { Redis } from 'ioredis'
import { Kysely, SqliteDialect } from 'kysely'
import Database from 'libsql'
import { type SessionOptions, session } from 'sojourn'
import {
  type Activity,
  type ActivityArchive,
  ActivityLog,
  type ActivityPageQuery,
  type ActivityTotals,
  activitiesOf,
  isErrorActivity,
  logActivity,
  memorySink,
  migrateActivities,
  redisStreamSink,
  type SqlDatabase,
  sqlSink,
} from 'sojourn/activity'
import { FakeClock } from 'sojourn/testing'
import { Client, listen, SECRET } from '../../support/http.js'
import { sharedRedis } from '../../support/redis.js'

interface ArchiveKit {
  start(): Promise<void>
  create(): Promise<ActivityArchive>
  stop(): Promise<void>
}

const ARCHIVES: [name: string, kit: ArchiveKit][] = [
  ['memory', { start: async () => {}, create: async () => memorySink(), stop: async () => {} }],
  ['Redis', redisKit()],
  ['SQL', sqlKit()],
]

function redisKit(): ArchiveKit {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let client: Redis
  let count = 0
  return {
    async start() {
      redis = await sharedRedis()
      client = new Redis(redis.url)
    },
    create: async () => redisStreamSink({ client, prefix: `reports-${process.pid}-${count++}:` }),
    async stop() {
      client.disconnect()
      await redis.stop()
    },
  }
}

function sqlKit(): ArchiveKit {
  const opened: Kysely<Record<string, never>>[] = []
  return {
    start: async () => {},
    async create() {
      const database = new Database(':memory:') as unknown as ConstructorParameters<typeof SqliteDialect>[0]['database']
      const db = new Kysely<Record<string, never>>({ dialect: new SqliteDialect({ database }) })
      opened.push(db)
      await migrateActivities(db as SqlDatabase)
      return sqlSink({ db: db as SqlDatabase })
    },
    async stop() {
      await Promise.all(opened.map((db) => db.destroy()))
    },
  }
}

/** Where nothing is a page view, an API call or a file, and nothing has a price. */
const NO_FIGURES = { pageViews: 0, apiCalls: 0, filesSaved: 0, cost: 0 }

const MIDNIGHT = Date.UTC(2026, 2, 10)
const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** `'10:30'` or `'10:30:15'` of a day in 2026, in UTC; later days as `'+1 10:30'`. */
function time(text: string): number {
  const [, days = '0', hours, minutes, seconds = '0'] = /^(?:\+(\d+) )?(\d+):(\d+)(?::(\d+))?$/.exec(text) ?? []
  return MIDNIGHT + ((Number(days) * 24 + Number(hours)) * 60 + Number(minutes)) * MINUTE + Number(seconds) * 1_000
}

let made = 0

type Line = [at: string, type: string, sessionId?: string | undefined, more?: Partial<Activity>]

function activitiesFrom(lines: readonly Line[]): Activity[] {
  return lines.map(([at, type, sessionId, more]) => ({
    id: `00000000-0000-7000-8000-${String(made++).padStart(12, '0')}`,
    at: new Date(time(at)),
    type,
    logicalId: undefined,
    sessionId,
    userId: undefined,
    details: undefined,
    request: undefined,
    ...more,
  }))
}

/** Some hundred sessions that begin, act, log in and end as chance has it: the same chance each time. */
function randomDay(seed: number): Line[] {
  let state = seed
  const chance = (below: number): number => {
    state = (state * 48_271) % 2_147_483_647
    return state % below
  }
  const at = (minute: number): string => `${Math.floor(minute / 60)}:${String(minute % 60).padStart(2, '0')}`
  const lines: [number, Line][] = []
  for (let n = 0; n < 200; n++) {
    let [id, minute] = [`s${n}`, chance(1_200)]
    const userId = [n % 17, `${n % 17}`, undefined][chance(3)]
    const log = (type: string, more: Partial<Activity> = {}): void => {
      lines.push([minute, [at(minute), type, id, { userId, ...more }]])
    }
    log('session.started')
    for (let m = chance(12); m > 0; m--) {
      minute += chance(15)
      log(['page.viewed', 'api.called', 'x'][chance(3)] as string)
    }
    if (chance(2) === 0) {
      const details = { previousSessionId: id }
      id = `${id}b`
      log('session.login', { details })
      if (chance(4) === 0) log('session.limit', { details: { ended: [`s${chance(200)}`, `s${chance(200)}b`] } })
    }
    minute += chance(20)
    const end = ['session.logout', 'session.revoked', 'session.timed-out', 'session.used-after-end', 'x'][chance(5)]
    log(end as string)
  }
  for (let n = 0; n < 50; n++) lines.push([n * 20, [at(n * 20), 'job', undefined, { userId: n % 9 }]])
  return lines.sort(([a], [b]) => a - b).map(([, line]) => line)
}

beforeEach(() => {
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
})
const opened: { close(): unknown }[] = []
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close()
  jest.restoreAllMocks()
})

describe.each(ARCHIVES)('from %s', (_name, kit) => {
  beforeAll(() => kit.start())
  afterAll(() => kit.stop())

  async function logOf(lines: readonly Line[], now = '+1 0:00'): Promise<ActivityLog> {
    const archive = await kit.create()
    await archive.write(activitiesFrom(lines))
    return logOn(archive, () => time(now))
  }

  function logOn(archive: ActivityArchive, clock: () => number = Date.now, requests = false): ActivityLog {
    const log = new ActivityLog({ sinks: [archive], clock, requests, flushInterval: '1ms' })
    opened.push(log)
    return log
  }

  async function site(
    log: ActivityLog,
    options: Partial<SessionOptions>,
    routes: (app: Express) => void,
  ): Promise<Client> {
    const app = express()
    app.set('env', 'test')
    app.use(session({ secret: SECRET, activity: log, ...options }))
    routes(app)
    const server = await listen(app)
    opened.push(server)
    return new Client(server)
  }

  describe('report()', () => {
    const DAY: Line[] = [
      ['9:00', 'session.started', 's1', { logicalId: 'l1' }],
      ['9:05', 'form.sent', 's1', { logicalId: 'l1', details: { step: 1 } }],
      ['9:06', 'payment.failed', 's1', { logicalId: 'l1', userId: 7 }],
      ['9:07', 'form.sent', 's1', { logicalId: 'l1', userId: 7, details: { error: 'too long' } }],
      ['9:10', 'other', 's2', { logicalId: 'l2' }],
      ['9:30', 'session.logout', 's1', { logicalId: 'l1', userId: 7 }],
      ['11:00', 'session.used-after-end', 's1', { logicalId: 'l1', userId: 7 }],
    ]

    test.each([{ logicalId: 'l1' }, { sessionId: 's1' }])('tells it all in one call: %j', async (query) => {
      const log = await logOf(DAY)
      const report = await log.report(query)
      expect(report).toMatchObject({
        logicalId: undefined,
        sessionId: undefined,
        ...query,
        total: 6,
        counts: {
          'session.started': 1,
          'form.sent': 2,
          'payment.failed': 1,
          'session.logout': 1,
          'session.used-after-end': 1,
        },
        startedAt: new Date(time('9:00')),
        lastActivityAt: new Date(time('9:30')),
        durationMs: 30 * MINUTE,
        errorCount: 2,
        boundaries: [],
        sessionIds: ['s1'],
        logicalIds: ['l1'],
        userIds: [7],
      })
      expect(report.activities.map(({ type }) => type)).toEqual(
        DAY.filter(([, , id]) => id === 's1').map(([, type]) => type),
      )
      expect(report.errors.map(({ at }) => at)).toEqual([new Date(time('9:06')), new Date(time('9:07'))])
      expect(report.end).toMatchObject({ type: 'session.logout', at: new Date(time('9:30')) })
    })

    test('of what nobody knows is empty', async () => {
      const log = await logOf(DAY)
      for (const id of ['', 'unknown', '%', '\u0000', 'x'.repeat(100_000), '\ud800']) {
        expect(await log.report({ sessionId: id })).toEqual({
          logicalId: undefined,
          sessionId: id,
          activities: [],
          total: 0,
          counts: {},
          ...NO_FIGURES,
          files: [],
          startedAt: undefined,
          lastActivityAt: undefined,
          durationMs: 0,
          end: undefined,
          errors: [],
          errorCount: 0,
          boundaries: [],
          sessionIds: [],
          logicalIds: [],
          userIds: [],
        })
      }
    })

    test('lists the first `limit` activities and errors, and counts all of them', async () => {
      const lines = Array.from({ length: 2_300 }, (_, n): Line => ['9:00', n % 2 === 0 ? 'a' : 'a.failed', 's'])
      const log = await logOf(lines)
      const report = await log.report({ sessionId: 's', limit: 3 })
      expect([report.activities.length, report.errors.length]).toEqual([3, 3])
      expect([report.total, report.errorCount, report.counts]).toEqual([2_300, 1_150, { a: 1_150, 'a.failed': 1_150 }])
      expect((await log.report({ sessionId: 's' })).activities.length).toBe(500)
    })

    test('a time-out ends it, but it was last active before', async () => {
      const log = await logOf([
        ['9:00', 'session.started', 's'],
        ['9:10', 'a', 's'],
        ['12:00', 'session.timed-out', 's', { details: { reason: 'idle' } }],
      ])
      const report = await log.report({ sessionId: 's' })
      expect(report.durationMs).toBe(10 * MINUTE)
      expect(report.end?.type).toBe('session.timed-out')
    })

    test.each([
      {},
      { sessionId: 'a', logicalId: 'b' },
      { sessionId: 5 },
      { sessionId: 'a', limit: 0 },
      { sessionId: 'a', limit: 10_001 },
    ])('%j is an INVALID_ARGUMENT', async (query) => {
      const log = await logOf([])
      await expect(log.report(query as object)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    })

    test('follows a user over logical IDs: each report names the next and the one before', async () => {
      const log = logOn(await kit.create())
      const client = await site(log, {}, (app) => {
        app.post('/step', async (req, res) => {
          logActivity('step')
          res.json(req.session.logicalId)
        })
        app.post('/done', async (req, res) => {
          logActivity('order.placed')
          const before = req.session.logicalId
          res.json([before, await req.session.completeWorkflow()])
        })
        app.post('/restart', async (req, res) => {
          await req.session.restart()
          logActivity('again')
          res.json(req.session.logicalId)
        })
        app.post('/logout', async (req, res) => {
          await req.session.logout()
          logActivity('after logout')
          res.json(req.session.logicalId)
        })
      })
      const first = (await client.post('/step')).json<string>() as unknown as string
      const [same, second] = (await client.post('/done')).json<string[]>() as unknown as [string, string]
      const third = (await client.post('/restart')).json<string>() as unknown as string
      const fourth = (await client.post('/logout')).json<string>() as unknown as string
      expect(same).toBe(first)
      expect(new Set([first, second, third, fourth]).size).toBe(4)

      const next: string[] = []
      let id: string | undefined = first
      while (id !== undefined) {
        const report: Awaited<ReturnType<ActivityLog['report']>> = await log.report({ logicalId: id })
        const onward: string | undefined = report.boundaries.find(({ from }) => from === id)?.to
        if (onward !== undefined) next.push(onward)
        id = onward
      }
      expect(next).toEqual([second, third, fourth])

      const report = await log.report({ logicalId: second })
      expect(report.boundaries.map(({ from, to, cause }) => ({ from, to, cause }))).toEqual([
        { from: first, to: second, cause: 'completed' },
        { from: second, to: third, cause: 'restart' },
      ])
      expect(report.end?.type).toBe('session.continued')
      expect(report.logicalIds).toEqual([first, second, third])
    })

    test('names the sessions that a session has replaced', async () => {
      const log = logOn(await kit.create())
      const client = await site(log, {}, (app) => {
        app.post('/start', (req, res) => {
          req.session.set('a', 1)
          res.json(req.session.id)
        })
        app.post('/login', async (req, res) => {
          await req.session.login('ann')
          res.json([req.session.id, req.session.logicalId])
        })
      })
      const anonymous = (await client.post('/start')).json<string>() as unknown as string
      const [known, logicalId] = (await client.post('/login')).json<string[]>() as unknown as [string, string]
      expect((await log.report({ sessionId: known })).sessionIds).toEqual([anonymous, known])
      expect((await log.report({ logicalId })).userIds).toEqual(['ann'])
    })
  })

  describe('timeline() and activities()', () => {
    const LINES = Array.from(
      { length: 2_500 },
      (_, n): Line => ['9:00', `type ${n}`, n % 2 === 0 ? 'even' : 'odd', { at: new Date(MIDNIGHT + n) }],
    )

    test('timeline() gives pages, activities() all of them, a page in memory at a time', async () => {
      const archive = await kit.create()
      await archive.write(activitiesFrom(LINES))
      const queries: ActivityPageQuery[] = []
      const spied: ActivityArchive = {
        ...archive,
        page(query) {
          queries.push(query)
          return archive.page(query)
        },
      }
      const log = logOn(spied)
      const page = await log.timeline({ sessionId: 'odd', limit: 10, order: 'newest-first' })
      expect(page.activities.map(({ type }) => type)).toEqual(
        Array.from({ length: 10 }, (_, n) => `type ${2_499 - 2 * n}`),
      )
      queries.length = 0
      const types: string[] = []
      for await (const { type } of log.activities({ sessionId: 'even' })) types.push(type)
      expect(types).toEqual(Array.from({ length: 1_250 }, (_, n) => `type ${2 * n}`))
      expect(queries.map(({ limit }) => limit)).toEqual([1_000, 1_000])
    })

    test('who stops early reads no further', async () => {
      const archive = await kit.create()
      await archive.write(activitiesFrom(LINES))
      let pages = 0
      const spied: ActivityArchive = {
        ...archive,
        page(query) {
          pages++
          return archive.page(query)
        },
      }
      for await (const _activity of activitiesOf(spied, {})) break
      expect(pages).toBe(1)
    })

    test('what is still queued in this process is there', async () => {
      const log = new ActivityLog({ sinks: [await kit.create()], flushInterval: '1h' })
      opened.push(log)
      log.log('a', {}, { sessionId: 's' })
      expect((await log.timeline({ sessionId: 's' })).activities.length).toBe(1)
      log.log('b', {}, { sessionId: 's' })
      expect(await log.countByType({ sessionId: 's' })).toEqual({ a: 1, b: 1 })
    })
  })

  describe('totals()', () => {
    test('a scripted day: started, durations, peak, users, active now, in total and by the hour', async () => {
      const log = await logOf(
        [
          // From 9:00 to 9:30.
          ['9:00', 'session.started', 'a'],
          ['9:10', 'x', 'a', { userId: 1 }],
          ['9:30', 'session.logout', 'a', { userId: 1 }],
          // From 9:20 to 10:20, over a login.
          ['9:20', 'session.started', 'b'],
          ['9:40', 'session.login', 'b2', { userId: 2, details: { previousSessionId: 'b' } }],
          ['10:20', 'x', 'b2', { userId: 2 }],
          // From 10:10 to 10:20, timed out long after that.
          ['10:10', 'session.started', 'c', { userId: 2 }],
          ['10:20', 'x', 'c'],
          ['11:50', 'session.timed-out', 'c'],
          // From 11:40 on.
          ['11:40', 'session.started', 'd', { userId: '1' }],
          ['11:45', 'x', 'd', { userId: '1' }],
          // No session.
          ['11:46', 'job', undefined, { userId: 9 }],
        ].sort(([a], [b]) => time(a as string) - time(b as string)) as Line[],
        '12:00',
      )
      const totals = await log.totals({ since: new Date(time('9:00')), by: 'hour' })
      expect(totals).toEqual({
        since: new Date(time('9:00')),
        until: new Date(time('12:00')),
        started: 4,
        active: 4,
        activeNow: 1,
        peakConcurrent: 2,
        averageDurationMs: ((30 + 60 + 10 + 5) / 4) * MINUTE,
        medianDurationMs: 20 * MINUTE,
        uniqueUsers: 4,
        activities: 12,
        counts: { 'session.started': 4, x: 4, 'session.logout': 1, 'session.login': 1, 'session.timed-out': 1, job: 1 },
        ...NO_FIGURES,
        periods: [
          {
            since: new Date(time('9:00')),
            until: new Date(time('10:00')),
            started: 2,
            active: 2,
            peakConcurrent: 2,
            averageDurationMs: 45 * MINUTE,
            medianDurationMs: 45 * MINUTE,
            uniqueUsers: 2,
            activities: 5,
            counts: { 'session.started': 2, x: 1, 'session.logout': 1, 'session.login': 1 },
            ...NO_FIGURES,
          },
          {
            since: new Date(time('10:00')),
            until: new Date(time('11:00')),
            started: 1,
            active: 2,
            peakConcurrent: 2,
            averageDurationMs: 10 * MINUTE,
            medianDurationMs: 10 * MINUTE,
            uniqueUsers: 1,
            activities: 3,
            counts: { x: 2, 'session.started': 1 },
            ...NO_FIGURES,
          },
          {
            since: new Date(time('11:00')),
            until: new Date(time('12:00')),
            started: 1,
            active: 1,
            peakConcurrent: 1,
            averageDurationMs: 5 * MINUTE,
            medianDurationMs: 5 * MINUTE,
            uniqueUsers: 2,
            activities: 4,
            counts: { 'session.started': 1, x: 1, job: 1, 'session.timed-out': 1 },
            ...NO_FIGURES,
          },
        ],
      } satisfies ActivityTotals)
    })

    test('what the archive sums up is what reading each activity gives, for a day as it comes', async () => {
      const archive = await kit.create()
      const lines = randomDay(7)
      for (let start = 0; start < lines.length; start += 700) {
        await archive.write(activitiesFrom(lines.slice(start, start + 700)))
      }
      const { write, page, countByType, prune } = archive
      const read: ActivityArchive = { name: 'read', write, page, countByType, prune }
      const [summed, readOneByOne] = [archive, read].map((each) => logOn(each, () => time('+1 0:00')))
      for (const query of [
        {},
        { by: 'hour' },
        { by: 'day', since: new Date(time('3:07')), until: new Date(time('21:11')) },
        { by: 'hour', since: new Date(time('3:07')), until: new Date(time('21:11')), activeWithin: '2h' },
      ] as const) {
        const expected = await readOneByOne?.totals(query)
        expect(await summed?.totals(query)).toEqual(expected)
        expect(expected?.activities).toBeGreaterThan(1_000)
        const { since, until } = expected as ActivityTotals
        expect(await summed?.countByType({ since, until })).toEqual(expected?.counts)
      }
    })

    test('page views, API calls, files and their cost, in total, by the hour and of a session', async () => {
      const archive = await kit.create()
      await archive.write(
        activitiesFrom([
          ['9:00', 'page.viewed', 'a'],
          ['9:10', 'page.viewed', 'b'],
          ['9:20', 'api.called', 'a'],
          ['10:20', 'api.called', 'a'],
          ['10:30', 'api.maps.called', 'a'],
          ['10:40', 'file.saved', 'a', { details: { name: 'x', bytes: 5 } }],
          ['10:50', 'mail.sent', undefined],
        ]),
      )
      const log = new ActivityLog({
        sinks: [archive],
        clock: () => time('11:00'),
        analytics: { apiCalls: ['api.*'], prices: { 'api.*': 2, 'api.called': 0.5, 'mail.sent': 0.25 } },
      })
      opened.push(log)
      const totals = await log.totals({ since: new Date(time('9:00')), by: 'hour' })
      expect(totals).toMatchObject({ activities: 7, pageViews: 2, apiCalls: 3, filesSaved: 1, cost: 3.25 })
      expect(totals.periods).toMatchObject([
        { activities: 3, counts: { 'page.viewed': 2, 'api.called': 1 }, pageViews: 2, apiCalls: 1, cost: 0.5 },
        { activities: 4, pageViews: 0, apiCalls: 2, filesSaved: 1, cost: 2.75 },
      ])
      expect(await log.report({ sessionId: 'a' })).toMatchObject({ pageViews: 1, apiCalls: 3, filesSaved: 1, cost: 3 })
    })

    test('of an empty window: zeroes, and no average', async () => {
      const log = await logOf([])
      expect(await log.totals()).toEqual({
        since: new Date(time('0:00')),
        until: new Date(time('+1 0:00')),
        started: 0,
        active: 0,
        activeNow: 0,
        peakConcurrent: 0,
        averageDurationMs: undefined,
        medianDurationMs: undefined,
        uniqueUsers: 0,
        activities: 0,
        counts: {},
        ...NO_FIGURES,
        periods: [],
      })
    })

    test('active now: not ended, and seen within activeWithin', async () => {
      const log = await logOf(
        [
          ['9:00', 'session.started', 'old'],
          ['9:50', 'session.started', 'quiet'],
          ['9:55', 'session.started', 'gone'],
          ['9:56', 'session.revoked', 'gone'],
          ['9:57', 'session.started', 'pushed out'],
          ['9:58', 'session.limit', 'new', { details: { outcome: 'ended-oldest', ended: ['pushed out'] } }],
        ],
        '10:00',
      )
      expect((await log.totals()).activeNow).toBe(2)
      expect((await log.totals({ activeWithin: '5m' })).activeNow).toBe(1)
      expect((await log.totals({ activeWithin: '2h' })).activeNow).toBe(3)
      expect((await log.totals({ until: new Date(time('9:56')) })).activeNow).toBe(2)
    })

    test('a session from before the window is active in it, but neither started nor measured', async () => {
      const log = await logOf([
        ['8:00', 'session.started', 'a'],
        ['9:10', 'x', 'a'],
        ['9:20', 'x', 'a'],
      ])
      const totals = await log.totals({ since: new Date(time('9:00')), until: new Date(time('10:00')) })
      expect(totals).toMatchObject({ started: 0, active: 1, peakConcurrent: 1, averageDurationMs: undefined })
    })

    test('what a session logs before it is stored belongs to it', async () => {
      const log = await logOf([
        ['9:00', 'x', 'a'],
        ['9:01', 'session.started', 'a'],
      ])
      expect(await log.totals()).toMatchObject({ started: 1, averageDurationMs: MINUTE })
    })

    test('what only tells of an end makes no session', async () => {
      const log = await logOf([
        ['9:00', 'session.timed-out', 'a', { userId: 1 }],
        ['9:01', 'session.used-after-end', 'b', { userId: 2 }],
        ['9:02', 'session.revoked', 'c', { userId: 3 }],
      ])
      expect(await log.totals()).toMatchObject({ active: 0, peakConcurrent: 0, uniqueUsers: 1, activities: 3 })
    })

    test('sessions that meet only in passing were there together, those that do not were not', async () => {
      const at = (...times: [string, string][]): Line[] =>
        times
          .flatMap(([from, to], n): Line[] => [
            [from, 'session.started', `s${n}`],
            [to, 'x', `s${n}`],
          ])
          .sort(([a], [b]) => time(a) - time(b))
      const peak = async (...times: [string, string][]): Promise<number> =>
        (await (await logOf(at(...times))).totals()).peakConcurrent
      expect(await peak(['9:00', '9:10'], ['9:10', '9:20'])).toBe(2)
      expect(await peak(['9:00', '9:10'], ['9:11', '9:20'], ['9:21', '9:30'])).toBe(1)
      expect(await peak(['9:00', '9:30'], ['9:01', '9:02'], ['9:03', '9:20'], ['9:04', '9:05'])).toBe(3)
    })

    test('a peak that reaches over midnight counts for both days', async () => {
      const log = await logOf(
        [
          ['23:00', 'session.started', 'a'],
          ['23:30', 'session.started', 'b'],
          ['+1 1:00', 'x', 'a'],
          ['+1 1:30', 'x', 'b'],
          ['+1 2:00', 'session.started', 'c'],
        ],
        '+2 0:00',
      )
      const { periods } = await log.totals({ since: new Date(MIDNIGHT), by: 'day' })
      expect(periods.map(({ started, active, peakConcurrent }) => [started, active, peakConcurrent])).toEqual([
        [2, 2, 2],
        [1, 3, 2],
      ])
    })

    test('periods are hours and days of UTC, cut to the window', async () => {
      const log = await logOf([])
      const edges = async (since: number, until: number, by: 'hour' | 'day'): Promise<string[]> => {
        const { periods } = await log.totals({ since: new Date(since), until: new Date(until), by })
        return periods.map((period) => `${period.since.toISOString()} ${period.until.toISOString()}`)
      }
      expect(await edges(time('9:30'), time('11:00'), 'hour')).toEqual([
        '2026-03-10T09:30:00.000Z 2026-03-10T10:00:00.000Z',
        '2026-03-10T10:00:00.000Z 2026-03-10T11:00:00.000Z',
      ])
      expect(await edges(time('23:00'), time('+2 1:00'), 'day')).toEqual([
        '2026-03-10T23:00:00.000Z 2026-03-11T00:00:00.000Z',
        '2026-03-11T00:00:00.000Z 2026-03-12T00:00:00.000Z',
        '2026-03-12T00:00:00.000Z 2026-03-12T01:00:00.000Z',
      ])
      expect(await edges(-HOUR / 2, HOUR / 2, 'hour')).toEqual([
        '1969-12-31T23:30:00.000Z 1970-01-01T00:00:00.000Z',
        '1970-01-01T00:00:00.000Z 1970-01-01T00:30:00.000Z',
      ])
      expect((await log.totals({ by: 'day' })).periods.length).toBe(30)
      expect((await log.totals({ by: 'hour' })).periods.length).toBe(24)
    })

    test('users are one by their ID and its type, in each period', async () => {
      const log = await logOf([
        ['9:00', 'x', 'a', { userId: 1 }],
        ['9:10', 'x', 'b', { userId: 1 }],
        ['9:20', 'x', 'c', { userId: '1' }],
        ['10:20', 'x', 'c', { userId: '1' }],
      ])
      const totals = await log.totals({ by: 'hour' })
      expect(totals.uniqueUsers).toBe(2)
      expect(totals.periods.map(({ uniqueUsers }) => uniqueUsers).filter((count) => count > 0)).toEqual([2, 1])
    })

    test.each([
      { since: new Date(5), until: new Date(5) },
      { since: new Date(6), until: new Date(5) },
      { since: new Date(Number.NaN) },
      { until: 'now' },
      { by: 'week' },
      { since: new Date(0), by: 'hour' },
    ])('%j is an INVALID_ARGUMENT', async (query) => {
      const log = await logOf([])
      await expect(log.totals(query as object)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    })

    test('real sessions: login, logout and requests make the day', async () => {
      const clock = new FakeClock(time('9:00'))
      const log = logOn(await kit.create(), clock.now, true)
      const client = await site(log, { clock: clock.now }, (app) => {
        app.post('/start', (req, res) => {
          req.session.set('a', 1)
          res.json({})
        })
        app.post('/login', async (req, res) => {
          await req.session.login(1)
          res.json({})
        })
        app.post('/logout', async (req, res) => {
          await req.session.logout()
          res.json({})
        })
      })
      await client.post('/start')
      clock.advance(5 * MINUTE)
      await client.post('/login')
      clock.advance(5 * MINUTE)
      await client.clone().post('/start')
      expect((await log.totals()).activeNow).toBe(1)
      clock.advance(5 * MINUTE)
      await client.post('/logout')
      clock.advance(1)
      expect(await log.totals()).toMatchObject({
        started: 1,
        activeNow: 0,
        averageDurationMs: 15 * MINUTE,
        peakConcurrent: 1,
        uniqueUsers: 1,
      })
    })
  })
})

describe('without an archive', () => {
  test.each([
    (log: ActivityLog) => log.timeline({}),
    (log: ActivityLog) => log.activities().next(),
    (log: ActivityLog) => log.countByType(),
    (log: ActivityLog) => log.report({ sessionId: 's' }),
    (log: ActivityLog) => log.totals(),
  ])('there is nothing to read, which is said: %p', async (read) => {
    const log = new ActivityLog({ sinks: [() => {}] })
    await expect(read(log)).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
    expect(log.archive).toBeUndefined()
    await log.close()
  })

  test('the first archive of several sinks is read', async () => {
    const [first, second] = [memorySink(), memorySink()]
    const log = new ActivityLog({ sinks: [() => {}, first, second] })
    expect(log.archive).toBe(first)
    await log.close()
  })
})

describe('when the archive fails', () => {
  test('a report rejects with its error; one that hangs on writing is read all the same', async () => {
    const archive = { ...memorySink(), page: () => Promise.reject(new Error('gone')) }
    const log = new ActivityLog({ sinks: [archive] })
    await expect(log.report({ sessionId: 's' })).rejects.toThrow('gone')
    await log.close()

    const stuck = { ...memorySink(), write: () => new Promise<void>(() => {}) }
    const other = new ActivityLog({ sinks: [stuck], onDropped: () => {}, onError: () => {} })
    other.log('a')
    expect((await other.timeline({})).activities).toEqual([])
    await other.close({ timeout: 0 })
  })
})

test.each([
  ['error', undefined, true],
  ['request.error', undefined, true],
  ['payment.failed', undefined, true],
  ['failed', undefined, false],
  ['login.failed.twice', undefined, false],
  ['errors.listed', undefined, false],
  ['a', { error: 'no' }, true],
  ['a', { error: { message: 'no' } }, true],
  ['a', { error: 0 }, true],
  ['a', { error: '' }, false],
  ['a', { error: null }, false],
  ['a', { error: false }, false],
  ['a', { nested: { error: 'no' } }, false],
])('whether %j with %j is an error: %p', (type, details, isError) => {
  expect(isErrorActivity({ type, details } as Activity)).toBe(isError)
})
