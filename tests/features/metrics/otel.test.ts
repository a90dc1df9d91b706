// The metrics on a meter of OpenTelemetry.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { SessionManager, session } from 'sojourn'
import { otelMetrics } from 'sojourn/metrics'
import { SECRET } from '../../support/http.js'
import { closeAll, closing, codeOf, rigOn } from '../../support/metrics.js'

afterEach(async () => {
  await closeAll()
  jest.restoreAllMocks()
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
