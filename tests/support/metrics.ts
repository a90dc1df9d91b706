// An app whose metrics are read back, from a Prometheus scrape or from an exporter of OpenTelemetry.
import { expect } from '@jest/globals'
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
  type SessionManager,
  type SessionMiddleware,
  type SessionOptions,
  type SessionStore,
} from 'sojourn'
import { type MeasuredSessions, type MetricsOptions, otelMetrics, prometheusMetrics } from 'sojourn/metrics'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { testApp } from './app.js'
import { Client, listen, send, type TestServer } from './http.js'
import { outside } from './rig.js'

/** Values by name and labels, both as the system spells them. */
export type Samples = Readonly<Record<string, number>>

export interface Collector {
  attach(sessions: MeasuredSessions, options?: MetricsOptions): () => void
  read(): Promise<Samples>
  close(): Promise<void>
}

export type System = 'prometheus' | 'otel'

export const COLLECTORS: Readonly<Record<System, () => Promise<Collector>>> = {
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

export function memoryStore(clock: () => number): SessionStore {
  return new MemorySessionStore({ cleanupInterval: 0, clock })
}

/** What is to be closed after the test, the last one first. */
export const closing: (() => unknown)[] = []

export async function closeAll(): Promise<void> {
  for (const close of closing.splice(0).reverse()) await close()
}

export interface MetricsRig {
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
export async function rigOn({
  store = memoryStore,
  system = 'prometheus',
  options = {},
  metrics = { activeSessions: false },
}: {
  store?: (clock: () => number) => SessionStore
  system?: System
  options?: Partial<SessionOptions>
  metrics?: MetricsOptions
} = {}): Promise<MetricsRig> {
  const clock = new FakeClock()
  const faults = new FaultyStore(store(clock.now))
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
    await outside(() => manager.revoke(id))
    req.session.set('late', true)
    res.end()
  })
  app.post('/end-twice', async (req, res) => {
    await outside(() => manager.revoke(req.session.id))
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

export async function begin({ client }: MetricsRig): Promise<string> {
  const answer = await client.post('/set?a=1')
  expect(answer.status).toBe(200)
  return answer.json<{ id: string }>().id
}

export function codeOf(task: () => unknown): string | undefined {
  try {
    task()
  } catch (error) {
    if (isSessionError(error)) return error.code
    throw error
  }
  return undefined
}
