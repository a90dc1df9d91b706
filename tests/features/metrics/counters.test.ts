// What is counted of sessions, over HTTP, by both systems and on both stores.
import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { SessionError, SessionManager, type SessionOptions, type SessionStore, session } from 'sojourn'
import { encrypted } from 'sojourn/encryption'
import type { MetricsOptions } from 'sojourn/metrics'
import { RedisSessionStore } from 'sojourn/redis'
import { Client, SECRET } from '../../support/http.js'
import {
  begin,
  COLLECTORS,
  closeAll,
  closing,
  codeOf,
  type MetricsRig,
  memoryStore,
  rigOn,
  type System,
} from '../../support/metrics.js'
import { sharedRedis } from '../../support/redis.js'

let redis: Awaited<ReturnType<typeof sharedRedis>>
beforeAll(async () => {
  redis = await sharedRedis()
})
afterAll(() => redis.stop())

function redisStore(): SessionStore {
  return new RedisSessionStore({ url: redis.url, prefix: `metrics-${randomUUID()}:` })
}

const STORES = { memory: memoryStore, Redis: redisStore }

afterEach(async () => {
  await closeAll()
  jest.restoreAllMocks()
})

const UNREADABLE_FIELD = 'sojourn.store.unreadable{sojourn.store.unreadable="field"}'

interface Row {
  readonly what: string
  readonly prometheus: string
  readonly otel: string
  readonly value?: number
  readonly options?: Partial<SessionOptions>
  readonly act: (rig: MetricsRig) => Promise<unknown>
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
    what: 'a user who proves again who they are',
    prometheus: 'sojourn_session_reauthentications_total',
    otel: 'sojourn.session.reauthentications',
    act: async ({ middleware }) =>
      middleware.events.emit('reauthenticated', { id: 'x', previousId: 'y', userId: 'ann' }),
  },
  {
    what: 'a request that a guard asks for proof',
    prometheus: 'sojourn_session_required_proofs_total{reason="level"}',
    otel: 'sojourn.session.required_proofs{sojourn.proof.required_reason="level"}',
    async act({ middleware }) {
      const request = { method: 'GET', path: '/', ip: undefined }
      middleware.events.emit('reauthenticationRequired', { id: 'x', userId: 'ann', reason: 'level', ...request })
    },
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
      // Until the new token has come back, the old one stays good.
      await rig.client.get('/peek')
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
    ...rejected('conflict'),
    act: async ({ middleware }) => middleware.events.emit('cookieConflict', { ids: ['x', 'y'], ip: undefined }),
  },
  {
    what: 'a request that csrf() refused',
    prometheus: 'sojourn_session_refused_requests_total{reason="fetch-metadata"}',
    otel: 'sojourn.session.refused_requests{sojourn.csrf.refusal_reason="fetch-metadata"}',
    async act({ middleware }) {
      middleware.events.emit('csrfRefused', {
        id: undefined,
        userId: undefined,
        reason: 'fetch-metadata',
        method: 'POST',
        path: '/',
        ip: undefined,
      })
    },
  },
  {
    what: 'secrets that are changed',
    prometheus: 'sojourn_secrets_changes_total',
    otel: 'sojourn.secrets.changes',
    act: async ({ middleware }) => middleware.events.emit('secretsChanged', { count: 2, isNewest: true }),
  },
  {
    what: 'secrets that are refused',
    prometheus: 'sojourn_secrets_refusals_total',
    otel: 'sojourn.secrets.refusals',
    act: async ({ middleware }) =>
      middleware.events.emit('secretsRefused', { error: new SessionError('INVALID_OPTION', 'too short') }),
  },
  ...(['record', 'field', 'key'] as const).map((what) => ({
    what: `a ${what} that cannot be read`,
    prometheus: `sojourn_store_unreadable_total{what="${what}"}`,
    otel: `sojourn.store.unreadable{sojourn.store.unreadable="${what}"}`,
    async act({ middleware: { events } }: MetricsRig) {
      const cause = new SessionError('CORRUPT_RECORD', 'junk')
      if (what === 'key') events.emit('corruptKey', { operation: 'notes', cause })
      else events.emit('corruptRecord', { id: 'x', field: what === 'field' ? 'a' : undefined, cause })
    },
  })),
  {
    what: 'a client that uses the session of another one',
    prometheus: 'sojourn_session_changed_clients_total{outcome="challenged"}',
    otel: 'sojourn.session.changed_clients{sojourn.client.outcome="challenged"}',
    async act({ middleware }) {
      middleware.events.emit('clientChanged', {
        id: randomUUID(),
        userId: 'ann',
        changed: ['network'],
        outcome: 'challenged',
        method: 'GET',
        path: '/',
        ip: undefined,
      })
    },
  },
  {
    what: 'a login that offers to register a key',
    prometheus: 'sojourn_session_devices_offered_total',
    otel: 'sojourn.session.devices_offered',
    act: async ({ middleware }) => middleware.events.emit('deviceOffered', { id: 'x', userId: 1 }),
  },
  {
    what: 'a session that is bound to a device',
    prometheus: 'sojourn_session_devices_bound_total',
    otel: 'sojourn.session.devices_bound',
    act: async ({ middleware }) => middleware.events.emit('deviceBound', { id: 'x', userId: 1, algorithm: 'ES256' }),
  },
  {
    what: 'a proof of a device',
    prometheus: 'sojourn_session_device_proofs_total',
    otel: 'sojourn.session.device_proofs',
    act: async ({ middleware }) => middleware.events.emit('deviceProved', { id: 'x' }),
  },
  {
    what: 'a request that does not prove its device',
    prometheus: 'sojourn_session_refused_devices_total{reason="no-proof"}',
    otel: 'sojourn.session.refused_devices{sojourn.device.refusal_reason="no-proof"}',
    async act({ middleware }) {
      middleware.events.emit('deviceRefused', {
        id: undefined,
        userId: undefined,
        reason: 'no-proof',
        method: 'GET',
        path: '/',
        ip: undefined,
      })
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
  describe.each(Object.entries(STORES))('with sessions in %s', (_name, store) => {
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
    known.push('outcome', 'what', 'sojourn.cookie.rejection_reason', 'sojourn.store.operation', 'error.type')
    expect(labels.filter((label) => !known.includes(label))).toEqual([])
  })

  test('counts a field that another key has encrypted, and nobody hushes the warning by counting', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const keys = [randomBytes(32), randomBytes(32)] as const
    const rig = await rigOn({ system, options: { codec: encrypted({ keys: keys[1] }) } })
    const before = new SessionManager({
      secret: SECRET,
      store: rig.faults,
      clock: rig.clock.now,
      codec: encrypted({ keys: keys[0] }),
    })
    const { id } = await before.create({ fields: { a: 1 } })
    expect((await rig.manager.get(id))?.fields).toEqual({})
    const name = { prometheus: 'sojourn_store_unreadable_total{what="field"}', otel: UNREADABLE_FIELD }[system]
    expect((await rig.read())[name]).toBe(1)
    const codes = warned.mock.calls.map(([, options]) => (options as { code?: string } | undefined)?.code)
    expect(codes).toEqual(['SOJOURN_CORRUPTRECORD'])
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
    const rig = await rigOn({ store: redisStore, options })
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
    const rig = await rigOn({ store: redisStore })
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
