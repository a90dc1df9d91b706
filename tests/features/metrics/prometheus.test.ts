// The metrics in a registry of prom-client.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import * as prometheus from 'prom-client'
import { SessionManager, session } from 'sojourn'
import { prometheusMetrics } from 'sojourn/metrics'
import { SECRET } from '../../support/http.js'
import { closeAll, closing, codeOf, rigOn } from '../../support/metrics.js'

afterEach(async () => {
  await closeAll()
  jest.restoreAllMocks()
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
    expect(text.match(/# HELP sojourn_\S+ \S.+/g)).toHaveLength(22)
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
