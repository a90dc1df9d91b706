// Metrics: what happens over HTTP, read back from a Prometheus scrape and from an exporter of OpenTelemetry.
import { randomUUID } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import type { ErrorRequestHandler } from 'express'
import * as prometheus from 'prom-client'
import {
  isSessionError,
  MemorySessionStore,
  type SessionData,
  SessionManager,
  type SessionMiddleware,
  type SessionOptions,
  SessionStore,
  session,
} from 'sojourn'
import { type MeasuredSessions, type MetricsOptions, otelMetrics, prometheusMetrics } from 'sojourn/metrics'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { testApp } from '../support/app.js'
import { Client, listen, SECRET, send, type TestServer, until } from '../support/http.js'
import { sharedRedis } from '../support/redis.js'

/** Values by name and labels, both as the system spells them. */
type Samples = Readonly<Record<string, number>>

interface Collector {
  attach(sessions: MeasuredSessions, options?: MetricsOptions): () => void
  read(): Promise<Samples>
  close(): Promise<void>
}

type System = 'prometheus' | 'otel'

const COLLECTORS: Readonly<Record<System, () => Promise<Collector>>> = {
  async prometheus() {
    const register = new prometheus.Registry()
    const server = await listen((_req, res) => {
      register.metrics().then(
        (text) => res.end(text),
        (error) => res.writeHead(500).end(String(error)),
      )
    })
    return {
      attach: (sessions, options) => prometheusMetrics(sessions, { client: prometheus, register, ...options }),
      async read() {
        const { status, body } = await send(server.url)
        expect(status).toBe(200)
        const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
        const samples = lines.map((line) => {
          const [, name = '', value = ''] = /^(.+) (\S+)$/.exec(line) ?? []
          return [name, Number(value)] as const
        })
        return Object.fromEntries(samples)
      },
      close: () => server.close(),
    }
  },
  async otel() {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
    const provider = new MeterProvider({ readers: [reader] })
    const meter = provider.getMeter('sojourn')
    return {
      attach: (sessions, options) => otelMetrics(sessions, { meter, ...options }),
      async read() {
        exporter.reset()
        await provider.forceFlush()
        const metrics = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((all) => all.metrics))
        const samples: Record<string, number> = {}
        for (const { descriptor, dataPoints } of metrics) {
          for (const { attributes, value } of dataPoints) {
            const labels = Object.entries(attributes).map(([name, text]) => `${name}="${String(text)}"`)
            const key = labels.length === 0 ? descriptor.name : `${descriptor.name}{${labels.join(',')}}`
            if (typeof value === 'number') samples[key] = value
            else samples[`${key} count`] = value.count
          }
        }
        return samples
      },
      close: () => provider.shutdown(),
    }
  },
}

let redis: Awaited<ReturnType<typeof sharedRedis>>
beforeAll(async () => {
  redis = await sharedRedis()
})
afterAll(() => redis.stop())

const STORES: Readonly<Record<string, (clock: () => number) => SessionStore>> = {
  memory: (clock) => new MemorySessionStore({ cleanupInterval: 0, clock }),
  Redis: () => new RedisSessionStore({ url: redis.url, prefix: `metrics-${randomUUID()}:` }),
}

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
  jest.restoreAllMocks()
})

interface Rig {
  readonly middleware: SessionMiddleware
  readonly manager: SessionManager
  readonly server: TestServer
  readonly client: Client
  readonly clock: FakeClock
  readonly faults: FaultyStore
  readonly collector: Collector
  readonly detach: () => void
  read(): Promise<Samples>
}

/** An app, its metrics, and a browser. */
async function rigOn({
  store = 'memory',
  system = 'prometheus',
  options = {},
  metrics = { activeSessions: false },
}: {
  store?: keyof typeof STORES
  system?: System
  options?: Partial<SessionOptions>
  metrics?: MetricsOptions
} = {}): Promise<Rig> {
  const clock = new FakeClock()
  const faults = new FaultyStore((STORES[store] as (typeof STORES)[string])(clock.now))
  const { app, middleware } = testApp({ store: faults, clock: clock.now, ...options })
  const { manager } = middleware
  app.post('/race', async (req, res) => {
    let isFirst = true
    await req.session.update('n', async () => {
      if (isFirst) await manager.update(req.session.id, { n: 'in between' })
      isFirst = false
      return 1
    })
    res.end()
  })
  app.post('/late', async (req, res) => {
    const { id } = req.session
    await manager.revoke(id)
    req.session.set('late', true)
    res.end()
  })
  app.post('/end-twice', async (req, res) => {
    await manager.revoke(req.session.id)
    await req.session.logout()
    res.end()
  })
  const onError: ErrorRequestHandler = (error, _req, res, _next) => {
    res.status(isSessionError(error) ? error.status : 500).end()
  }
  app.use(onError)
  const collector = await COLLECTORS[system]()
  const detach = collector.attach(middleware, metrics)
  const server = await listen(app)
  closing.push(
    () => collector.close(),
    () => manager.close(),
    () => server.close(),
  )
  const client = new Client(server)
  return { middleware, manager, server, client, clock, faults, collector, detach, read: () => collector.read() }
}

interface Row {
  readonly what: string
  readonly prometheus: string
  readonly otel: string
  readonly value?: number
  readonly options?: Partial<SessionOptions>
  readonly act: (rig: Rig) => Promise<unknown>
}

async function begin({ client }: Rig): Promise<string> {
  const answer = await client.post('/set?a=1')
  expect(answer.status).toBe(200)
  return answer.json<{ id: string }>().id
}

const ended = (reason: string): Pick<Row, 'what' | 'prometheus' | 'otel'> => ({
  what: `an ending: ${reason}`,
  prometheus: `sojourn_session_ended_total{reason="${reason}"}`,
  otel: `sojourn.session.ended{sojourn.session.end_reason="${reason}"}`,
})

const rejected = (reason: string): Pick<Row, 'what' | 'prometheus' | 'otel'> => ({
  what: `a rejected cookie: ${reason}`,
  prometheus: `sojourn_session_rejected_cookies_total{reason="${reason}"}`,
  otel: `sojourn.session.rejected_cookies{sojourn.cookie.rejection_reason="${reason}"}`,
})

const ROWS: readonly Row[] = [
  {
    what: 'a session that begins',
    prometheus: 'sojourn_session_started_total',
    otel: 'sojourn.session.started',
    act: begin,
  },
  {
    ...ended('logout'),
    async act(rig) {
      await begin(rig)
      await rig.client.post('/logout')
    },
  },
  {
    ...ended('destroyed'),
    async act(rig) {
      await begin(rig)
      await rig.client.post('/destroy')
    },
  },
  { ...ended('revoked'), act: async (rig) => rig.manager.revoke(await begin(rig)) },
  {
    ...ended('limit'),
    options: { maxSessionsPerUser: 1 },
    async act({ client, server }) {
      await client.post('/login?user=ann')
      await new Client(server).post('/login?user=ann')
    },
  },
  {
    ...ended('idle'),
    async act(rig) {
      await begin(rig)
      rig.clock.advance(31 * 60_000)
      await rig.client.get('/peek')
    },
  },
  {
    ...ended('absolute'),
    options: { idleTimeout: '1h', absoluteTimeout: '1h' },
    async act(rig) {
      await begin(rig)
      rig.clock.advance(40 * 60_000)
      await rig.client.get('/peek')
      rig.clock.advance(30 * 60_000)
      await rig.client.get('/peek')
    },
  },
  {
    ...ended('regenerated'),
    async act(rig) {
      await begin(rig)
      await rig.client.post('/regenerate')
    },
  },
  {
    what: 'a login',
    prometheus: 'sojourn_session_logins_total',
    otel: 'sojourn.session.logins',
    act: ({ client }) => client.post('/login'),
  },
  {
    what: 'a renewal',
    prometheus: 'sojourn_session_renewals_total',
    otel: 'sojourn.session.renewals',
    async act(rig) {
      await begin(rig)
      await rig.client.post('/renew')
    },
  },
  {
    what: 'a commit',
    prometheus: 'sojourn_session_commits_total',
    otel: 'sojourn.session.commits',
    async act(rig) {
      await begin(rig)
      await rig.client.post('/set?a=2')
    },
  },
  {
    what: 'a conflict',
    prometheus: 'sojourn_session_conflicts_total',
    otel: 'sojourn.session.conflicts',
    async act(rig) {
      await begin(rig)
      expect((await rig.client.post('/race')).status).toBe(200)
    },
  },
  {
    what: 'a late write',
    prometheus: 'sojourn_session_late_writes_total',
    otel: 'sojourn.session.late_writes',
    async act(rig) {
      await begin(rig)
      expect((await rig.client.post('/late')).status).toBe(409)
    },
  },
  {
    ...rejected('malformed'),
    act: ({ client }) => client.get('/peek', { cookie: 'sid=junk' }),
  },
  {
    ...rejected('signature'),
    async act(rig) {
      await begin(rig)
      const last = rig.client.cookieHeader.at(-1) === 'A' ? 'E' : 'A'
      await rig.client.get('/peek', { cookie: rig.client.cookieHeader.slice(0, -1) + last })
    },
  },
  {
    ...rejected('unknown-session'),
    async act(rig) {
      await rig.middleware.store.delete(await begin(rig))
      await rig.client.get('/peek')
    },
  },
  {
    ...rejected('token-mismatch'),
    async act(rig) {
      await begin(rig)
      const thief = rig.client.clone()
      await rig.client.post('/renew')
      rig.clock.advance(11_000)
      await thief.get('/peek')
    },
  },
  {
    ...rejected('used-after-end'),
    async act(rig) {
      await begin(rig)
      const other = rig.client.clone()
      await rig.client.post('/logout')
      await other.get('/peek')
    },
  },
  {
    what: 'the time of a store call',
    prometheus: 'sojourn_store_call_duration_seconds_count{operation="get"}',
    otel: 'sojourn.store.call.duration{sojourn.store.operation="get"} count',
    async act(rig) {
      await begin(rig)
      await rig.client.get('/peek')
    },
  },
  {
    what: 'a store error',
    prometheus: 'sojourn_store_errors_total{operation="get",code="STORE_UNAVAILABLE"}',
    otel: 'sojourn.store.errors{sojourn.store.operation="get",error.type="STORE_UNAVAILABLE"}',
    async act(rig) {
      jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      await begin(rig)
      rig.faults.fail({ kind: 'error', operations: ['get'], times: 1 })
      expect((await rig.client.get('/peek')).status).toBe(503)
    },
  },
]

describe.each(Object.keys(COLLECTORS) as System[])('%s', (system) => {
  describe.each(Object.keys(STORES))('with sessions in %s', (store) => {
    test.each(ROWS)('counts $what', async ({ act, options = {}, value = 1, ...names }) => {
      const rig = await rigOn({ store, system, options })
      expect((await rig.read())[names[system]] ?? 0).toBe(0)
      await act(rig)
      expect((await rig.read())[names[system]]).toBe(value)
    })

    test('shows the live sessions of the store', async () => {
      const rig = await rigOn({ store, system, metrics: {} })
      await begin(rig)
      await new Client(rig.server).post('/set?a=1')
      const gone = new Client(rig.server)
      await gone.post('/set?a=1')
      await gone.post('/logout')
      const name = system === 'otel' ? 'sojourn.active_sessions' : 'sojourn_active_sessions'
      expect((await rig.read())[name]).toBe(2)
    })
  })

  test('counts nothing for requests without a session', async () => {
    const { server, read } = await rigOn({ system })
    await new Client(server).get('/plain')
    expect(Object.entries(await read()).filter(([, value]) => value !== 0)).toEqual([])
  })

  test('has no label that tells of one session, user or address', async () => {
    const rig = await rigOn({ system, metrics: {}, options: { maxSessionsPerUser: 1 } })
    const ids = [await begin(rig)]
    for (const path of ['/login?user=ann-of-the-test', '/regenerate?keep=true', '/late', '/set?a=1', '/logout']) {
      ids.push((await rig.client.post(path)).body)
    }
    const text = JSON.stringify(await rig.read())
    expect(text).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}/)
    expect(text).not.toContain('ann-of-the-test')
    expect(text).not.toContain('127.0.0.1')
    const labels = [...text.matchAll(/[\w.]+(?==\\")/g)].map(([name]) => name)
    const known = ['reason', 'operation', 'code', 'le', 'sojourn.session.end_reason']
    known.push('sojourn.cookie.rejection_reason', 'sojourn.store.operation', 'error.type')
    expect(labels.filter((label) => !known.includes(label))).toEqual([])
  })

  test('takes a manager as well as a middleware', async () => {
    const rig = await rigOn({ system })
    const manager = new SessionManager({ secret: SECRET })
    closing.push(() => manager.close())
    const collector = await COLLECTORS[system]()
    closing.push(() => collector.close())
    collector.attach(manager, { activeSessions: false })
    await manager.create()
    const samples = await collector.read()
    expect(samples[system === 'otel' ? 'sojourn.session.started' : 'sojourn_session_started_total']).toBe(1)
    expect(Object.values(await rig.read()).every((value) => value === 0)).toBe(true)
  })

  test('stops counting when it is detached, and can be attached again', async () => {
    const rig = await rigOn({ system, metrics: { activeSessions: { interval: 0.001 } } })
    const started = system === 'otel' ? 'sojourn.session.started' : 'sojourn_session_started_total'
    await begin(rig)
    await rig.read()
    rig.detach()
    rig.detach()
    const scans = rig.faults.calls.scan
    expect(scans).toBe(1)
    const { events } = rig.middleware
    const names = ['created', 'ended', 'expired', 'login', 'renewed', 'committed', 'conflict', 'lateWrite'] as const
    const more = ['badCookie', 'unknownSession', 'tokenMismatch', 'usedAfterEnd', 'storeCall'] as const
    expect([...names, ...more].filter((name) => events.isHeard(name))).toEqual([])
    await new Client(rig.server).post('/set?a=1')
    // prom-client forgets a metric, a meter keeps what it has.
    expect((await rig.read())[started]).toBe(system === 'otel' ? 1 : undefined)
    expect(rig.faults.calls.scan).toBe(scans)
    rig.collector.attach(rig.middleware)
    await new Client(rig.server).post('/set?a=1')
    expect((await rig.read())[started]).toBe(system === 'otel' ? 2 : 1)
  })

  test('refuses the same sessions twice, and goes on with the first', async () => {
    const rig = await rigOn({ system })
    expect(codeOf(() => rig.collector.attach(rig.middleware))).toBe('INVALID_OPTION')
    expect(codeOf(() => rig.collector.attach(rig.manager))).toBe('INVALID_OPTION')
    await begin(rig)
    const started = system === 'otel' ? 'sojourn.session.started' : 'sojourn_session_started_total'
    expect((await rig.read())[started]).toBe(1)
  })

  test.each<[string, MetricsOptions | object]>([
    ['an interval that is none', { activeSessions: { interval: 'soon' } }],
    ['a bound below one', { activeSessions: { max: 0 } }],
    ['a bound that is no whole number', { activeSessions: { max: 1.5 } }],
    ['active sessions that are neither off nor settings', { activeSessions: 'yes' }],
    ['buckets that do not ascend', { buckets: [0.1, 0.01] }],
    ['a bucket that is not above 0', { buckets: [0, 1] }],
    ['buckets that are no list', { buckets: '1' }],
  ])('refuses %s', async (_what, options) => {
    const collector = await COLLECTORS[system]()
    closing.push(() => collector.close())
    expect(codeOf(() => collector.attach(session({ secret: SECRET }), options))).toBe('INVALID_OPTION')
  })

  test('refuses sessions that are none', async () => {
    const collector = await COLLECTORS[system]()
    closing.push(() => collector.close())
    expect(codeOf(() => collector.attach({} as SessionManager))).toBe('INVALID_OPTION')
  })
})

describe('prometheusMetrics()', () => {
  test('uses the register of the client by default', async () => {
    const manager = new SessionManager({ secret: SECRET })
    closing.push(() => manager.close())
    const detach = prometheusMetrics(manager, { client: prometheus })
    expect(prometheus.register.getSingleMetric('sojourn_session_started_total')).toBeDefined()
    detach()
    expect(prometheus.register.getMetricsAsArray()).toEqual([])
  })

  test('keeps several kinds of sessions apart by a prefix', async () => {
    const register = new prometheus.Registry()
    const [shop, admin] = [new SessionManager({ secret: SECRET }), new SessionManager({ secret: SECRET })]
    prometheusMetrics(shop, { client: prometheus, register })
    expect(() => prometheusMetrics(admin, { client: prometheus, register })).toThrow(
      /sojourn_session_started_total already.*prefix/,
    )
    prometheusMetrics(admin, { client: prometheus, register, prefix: 'admin_' })
    await admin.create()
    const text = await register.metrics()
    expect(text).toContain('sojourn_session_started_total 0\n')
    expect(text).toContain('admin_session_started_total 1\n')
    await Promise.all([shop.close(), admin.close()])
  })

  test('registers nothing when a name is taken', async () => {
    const register = new prometheus.Registry()
    new prometheus.Gauge({ name: 'sojourn_active_sessions', help: 'mine', registers: [register] })
    expect(() => prometheusMetrics(session({ secret: SECRET }), { client: prometheus, register })).toThrow(
      /sojourn_active_sessions/,
    )
    expect(register.getMetricsAsArray().map(({ name }) => name)).toEqual(['sojourn_active_sessions'])
  })

  test('leaves metrics alone that took the place of its own', () => {
    const register = new prometheus.Registry()
    const [one, other] = [session({ secret: SECRET }), session({ secret: SECRET })]
    const detach = prometheusMetrics(one, { client: prometheus, register })
    register.clear()
    prometheusMetrics(other, { client: prometheus, register })
    detach()
    expect(register.getSingleMetric('sojourn_session_started_total')).toBeDefined()
  })

  test('gives OpenMetrics when the registry does', async () => {
    const register = new prometheus.Registry<prometheus.OpenMetricsContentType>()
    register.setContentType(prometheus.openMetricsContentType as prometheus.OpenMetricsContentType)
    const manager = new SessionManager({ secret: SECRET })
    prometheusMetrics(manager, { client: prometheus, register })
    await manager.create()
    const text = await register.metrics()
    expect(text).toContain('# TYPE sojourn_session_started counter\nsojourn_session_started_total 1\n')
    await manager.close()
  })

  test('shows every known reason from the beginning, with type and help', async () => {
    const register = new prometheus.Registry()
    prometheusMetrics(session({ secret: SECRET }), { client: prometheus, register, buckets: [0.1, 1] })
    const text = await register.metrics()
    for (const reason of ['logout', 'destroyed', 'revoked', 'limit', 'idle', 'absolute', 'regenerated']) {
      expect(text).toContain(`sojourn_session_ended_total{reason="${reason}"} 0\n`)
    }
    expect(text).toContain('# TYPE sojourn_session_ended_total counter\n')
    expect(text).toContain('# TYPE sojourn_store_call_duration_seconds histogram\n')
    expect(text).toContain('# TYPE sojourn_active_sessions gauge\n')
    expect(text.match(/# HELP sojourn_\S+ \S.+/g)).toHaveLength(11)
  })

  test('takes the buckets that it is given, in seconds', async () => {
    const { client, faults, read } = await rigOn({ metrics: { activeSessions: false, buckets: [0.001, 20] } })
    faults.fail({ kind: 'delay', operations: ['create'], delayMs: 30 })
    await client.post('/set?a=1')
    const samples = await read()
    const buckets = Object.entries(samples).filter(([name]) => /_bucket\{.*operation="create"/.test(name))
    expect(buckets).toEqual([
      [expect.stringContaining('le="0.001"'), 0],
      [expect.stringContaining('le="20"'), 1],
      [expect.stringContaining('le="+Inf"'), 1],
    ])
  })

  test.each([
    ['no client', {}],
    ['a client that is something else', { client: { Counter: 1 } }],
    ['a register that is something else', { client: prometheus, register: {} }],
    ['a prefix that makes no name', { client: prometheus, prefix: 'my-app.' }],
  ])('refuses %s', (_what, options) => {
    expect(codeOf(() => prometheusMetrics(session({ secret: SECRET }), options as never))).toBe('INVALID_OPTION')
  })
})

describe('otelMetrics()', () => {
  test('gives units, descriptions and bounds', async () => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
    const provider = new MeterProvider({ readers: [new PeriodicExportingMetricReader({ exporter })] })
    closing.push(() => provider.shutdown())
    const manager = new SessionManager({ secret: SECRET })
    closing.push(() => manager.close())
    otelMetrics(manager, { meter: provider.getMeter('sojourn'), buckets: [0.1, 1], attributes: { 'app.area': 'shop' } })
    const { id } = await manager.create({ userId: 'ann' })
    await manager.revoke(id)
    await provider.forceFlush()
    const metrics = exporter.getMetrics()[0]?.scopeMetrics[0]?.metrics ?? []
    const found = metrics.map(({ descriptor: { name, unit }, dataPoints }) => ({
      name,
      unit,
      areas: [...new Set(dataPoints.map(({ attributes }) => attributes['app.area']))],
    }))
    expect(found).toEqual([
      { name: 'sojourn.session.started', unit: '{session}', areas: ['shop'] },
      { name: 'sojourn.session.ended', unit: '{session}', areas: ['shop'] },
      { name: 'sojourn.store.call.duration', unit: 's', areas: ['shop'] },
      { name: 'sojourn.active_sessions', unit: '{session}', areas: ['shop'] },
    ])
    expect(metrics.every(({ descriptor }) => descriptor.description !== '')).toBe(true)
    const [duration] = metrics[2]?.dataPoints ?? []
    expect(duration?.value).toMatchObject({ buckets: { boundaries: [0.1, 1] } })
  })

  test('marks the time of a failed store call with its error', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { client, faults, read } = await rigOn({ system: 'otel' })
    await client.post('/set?a=1')
    faults.fail({ kind: 'error', operations: ['get'], times: 1 })
    await client.get('/peek')
    expect(await read()).toMatchObject({
      'sojourn.store.call.duration{sojourn.store.operation="get",error.type="STORE_UNAVAILABLE"} count': 1,
    })
  })

  test('measures other sessions on the same meter, and the same sessions on another', async () => {
    const provider = new MeterProvider()
    closing.push(() => provider.shutdown())
    const one = session({ secret: SECRET })
    otelMetrics(one, { meter: provider.getMeter('a') })
    otelMetrics(one, { meter: provider.getMeter('b') })
    otelMetrics(session({ secret: SECRET }), { meter: provider.getMeter('a') })
    expect(codeOf(() => otelMetrics(one, { meter: provider.getMeter('a') }))).toBe('INVALID_OPTION')
  })

  test.each([
    ['no meter', {}],
    ['a meter that is something else', { meter: { createCounter: 1 } }],
  ])('refuses %s', (_what, options) => {
    expect(codeOf(() => otelMetrics(session({ secret: SECRET }), options as never))).toBe('INVALID_OPTION')
  })
})

describe('sessions that ran out', () => {
  const IDLE = 'sojourn_session_ended_total{reason="idle"}'

  test('count once, however often their cookie comes', async () => {
    const rig = await rigOn()
    await begin(rig)
    const stale = rig.client.clone()
    rig.clock.advance(31 * 60_000)
    for (let time = 0; time < 3; time++) await stale.get('/plain', { cookie: rig.client.cookieHeader })
    expect((await rig.read())[IDLE]).toBe(1)
    await rig.manager.cleanUp()
    expect((await rig.read())[IDLE]).toBe(1)
  })

  test('count once in all processes together, where they are cleaned up', async () => {
    const options = { cleanupInterval: '1h', idleTimeout: '30m' } as const
    const rig = await rigOn({ store: 'Redis', options })
    const other = new SessionManager({ secret: SECRET, store: rig.faults, clock: rig.clock.now, ...options })
    const collector = await COLLECTORS.prometheus()
    closing.push(() => collector.close())
    collector.attach(other, { activeSessions: false })
    await begin(rig)
    rig.clock.advance(31 * 60_000)
    await rig.client.get('/plain')
    expect((await rig.read())[IDLE]).toBe(0)
    await Promise.all([rig.manager.cleanUp(), other.cleanUp()])
    await rig.manager.cleanUp()
    await rig.client.get('/plain')
    const counts = [await rig.read(), await collector.read()].map((samples) => samples[IDLE] as number)
    expect(counts.reduce((sum, count) => sum + count)).toBe(1)
  })
})

describe('endings', () => {
  test('count once when a session is ended again', async () => {
    const rig = await rigOn()
    await begin(rig)
    expect((await rig.client.post('/end-twice')).status).toBe(200)
    expect(await rig.read()).toMatchObject({
      'sojourn_session_ended_total{reason="revoked"}': 1,
      'sojourn_session_ended_total{reason="logout"}': 0,
    })
  })

  test('count once when several end the same session at once', async () => {
    const rig = await rigOn({ store: 'Redis' })
    const id = await begin(rig)
    const other = rig.client.clone()
    await Promise.all([rig.client.post('/logout'), other.post('/logout'), rig.manager.revoke(id)])
    const samples = await rig.read()
    const counts = Object.entries(samples).filter(([name]) => name.startsWith('sojourn_session_ended_total'))
    expect(counts.reduce((sum, [, value]) => sum + Number(value), 0)).toBe(1)
  })

  test('count the old ID of a login, and of proving again who one is', async () => {
    const rig = await rigOn()
    await begin(rig)
    await rig.client.post('/login')
    expect(await rig.read()).toMatchObject({
      sojourn_session_started_total: 1,
      'sojourn_session_ended_total{reason="regenerated"}': 1,
    })
  })

  test('count sessions that were revoked all at once, when they are cleaned up', async () => {
    const rig = await rigOn()
    await begin(rig)
    await new Client(rig.server).post('/set?a=1')
    await rig.manager.revokeAll()
    await rig.manager.cleanUp()
    expect((await rig.read())['sojourn_session_ended_total{reason="revoked"}']).toBe(2)
  })
})

describe('the number of active sessions', () => {
  const NAME = 'sojourn_active_sessions'

  test('is counted once in an interval, and by one count at a time', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { interval: '1h' } } })
    await begin(rig)
    const all = await Promise.all([rig.read(), rig.read(), rig.read()])
    expect(all.map((samples) => samples[NAME])).toEqual([1, 1, 1])
    await new Client(rig.server).post('/set?a=1')
    expect((await rig.read())[NAME]).toBe(1)
    expect(rig.faults.calls.scan).toBe(1)
  })

  test('is counted again after the interval', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    expect((await rig.read())[NAME]).toBe(1)
    await new Client(rig.server).post('/set?a=1')
    await until(async () => (await rig.read())[NAME] === 2)
  })

  test('is counted up to a bound', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { max: 2 } } })
    for (let session = 0; session < 4; session++) await rig.manager.create()
    expect((await rig.read())[NAME]).toBe(2)
  })

  test('is counted only when somebody collects', async () => {
    const rig = await rigOn({ metrics: {} })
    await begin(rig)
    expect(rig.faults.calls.scan).toBe(0)
  })

  test('is unknown, not 0, when the store fails', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const rig = await rigOn({ metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    expect((await rig.read())[NAME]).toBe(1)
    rig.faults.fail({ kind: 'error', operations: ['scan'] })
    await until(async () => !(NAME in (await rig.read())))
    rig.faults.repair()
    await until(async () => (await rig.read())[NAME] === 1)
  })

  test('does not hold up who collects', async () => {
    const rig = await rigOn({ options: { storeTimeout: '30s' }, metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    rig.faults.fail({ kind: 'delay', operations: ['scan'] })
    expect(NAME in (await rig.read())).toBe(false)
    rig.faults.repair()
    rig.faults.release()
    await until(async () => (await rig.read())[NAME] === 1)
  })

  test('is given up when it is detached meanwhile', async () => {
    let isBegun = false
    let read = 0
    let open = (): void => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    class Slow extends MemorySessionStore {
      override async *scan(): AsyncGenerator<SessionData, void, undefined> {
        for await (const record of super.scan()) {
          isBegun = true
          await gate
          read++
          yield record
        }
      }
    }
    const manager = new SessionManager({ secret: SECRET, store: new Slow() })
    closing.push(() => manager.close())
    for (let session = 0; session < 5; session++) await manager.create()
    const register = new prometheus.Registry()
    const detach = prometheusMetrics(manager, { client: prometheus, register })
    const scrape = register.metrics()
    await until(() => isBegun)
    detach()
    open()
    await scrape
    expect(read).toBe(1)
  })

  test('can be switched off, and is off on a store that cannot be gone through', async () => {
    const off = await rigOn({ metrics: { activeSessions: false } })
    await begin(off)
    expect(NAME in (await off.read())).toBe(false)
    class Simple extends SessionStore {
      readonly #records = new Map<string, SessionData>()
      async get(id: string): Promise<SessionData | null> {
        return this.#records.get(id) ?? null
      }
      async set(id: string, data: SessionData): Promise<void> {
        this.#records.set(id, data)
      }
      async delete(id: string): Promise<void> {
        this.#records.delete(id)
      }
    }
    const register = new prometheus.Registry()
    const manager = new SessionManager({ secret: SECRET, store: new Simple() })
    prometheusMetrics(manager, { client: prometheus, register })
    await manager.create()
    const text = await register.metrics()
    expect(text).not.toContain(NAME)
    expect(text).toContain('sojourn_session_started_total 1\n')
    await manager.close()
  })
})

describe('the event of a store call', () => {
  test('is not made when nobody listens', async () => {
    const { app, middleware } = testApp()
    const server = await listen(app)
    closing.push(() => server.close())
    const emit = jest.spyOn(middleware.events, 'emit')
    const client = new Client(server)
    await client.post('/set?a=1')
    await client.post('/logout')
    const told = emit.mock.calls.map(([name]) => name)
    expect(told).toContain('created')
    expect(told).not.toContain('storeCall')
    expect(told).not.toContain('ended')
    const stop = middleware.events.on('storeCall', () => {})
    await client.post('/set?a=1')
    stop()
    await client.post('/set?a=2')
    expect(emit.mock.calls.filter(([name]) => name === 'storeCall')).toHaveLength(1)
  })

  test('tells operation, time and the code of a failure', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '50ms' })
    closing.push(() => manager.close())
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const calls: { operation: string; durationMs: number; error?: string | undefined }[] = []
    manager.events.on('storeCall', (call) => calls.push(call))
    store.fail({ kind: 'hang', operations: ['get'], times: 1 })
    await expect(manager.get(randomUUID())).rejects.toMatchObject({ code: 'STORE_TIMEOUT' })
    await manager.get(randomUUID())
    const [failed, done] = calls.filter(({ operation }) => operation === 'get')
    expect(failed).toMatchObject({ operation: 'get', error: 'STORE_TIMEOUT' })
    expect(failed?.durationMs).toBeGreaterThanOrEqual(45)
    expect(done).toMatchObject({ operation: 'get', error: undefined })
  })

  test('tells of a scan once, without the time of its reader', async () => {
    const manager = new SessionManager({ secret: SECRET })
    closing.push(() => manager.close())
    for (let session = 0; session < 5; session++) await manager.create()
    const calls: { operation: string; durationMs: number }[] = []
    manager.events.on('storeCall', (call) => calls.push(call))
    const startedAt = performance.now()
    for await (const _ of manager.list()) {
      const until = performance.now() + 20
      while (performance.now() < until);
    }
    const scans = calls.filter(({ operation }) => operation === 'scan')
    expect(scans).toHaveLength(1)
    expect(scans[0]?.durationMs).toBeLessThan(performance.now() - startedAt - 95)
  })

  test('leaves the warning of store errors that nobody hears', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { client, faults } = await rigOn()
    await client.post('/set?a=1')
    faults.fail({ kind: 'error', operations: ['get'], times: 1 })
    await client.get('/peek')
    expect(warnings.mock.calls.map(([text]) => String(text)).join()).toContain('storeError')
  })

  test('reaches an observer that knows nothing of the sessions', async () => {
    const operations: string[] = []
    const endings: string[] = []
    const onCall = (message: unknown): unknown => operations.push((message as { operation: string }).operation)
    const onEnd = (message: unknown): unknown => endings.push((message as { reason: string }).reason)
    subscribe('sojourn:storeCall', onCall)
    subscribe('sojourn:ended', onEnd)
    closing.push(
      () => unsubscribe('sojourn:storeCall', onCall),
      () => unsubscribe('sojourn:ended', onEnd),
    )
    const server = await listen(testApp().app)
    closing.push(() => server.close())
    const client = new Client(server)
    await client.post('/set?a=1')
    await client.post('/logout')
    expect(operations).toEqual(expect.arrayContaining(['create', 'get', 'end']))
    expect(endings).toEqual(['logout'])
  })
})

function codeOf(task: () => unknown): string | undefined {
  try {
    task()
  } catch (error) {
    if (isSessionError(error)) return error.code
    throw error
  }
  return undefined
}
