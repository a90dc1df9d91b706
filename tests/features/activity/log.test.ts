// The activity log: `logActivity()` from anywhere, details made safe, and queues that harm neither requests nor each other.
import { EventEmitter } from 'node:events'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals'
import express, { type Express } from 'express'
import fc from 'fast-check'
import { isSessionError, type SessionOptions, session } from 'sojourn'
import {
  type Activity,
  type ActivityDrop,
  ActivityLog,
  type ActivityLogOptions,
  type ActivitySink,
  logActivity,
  memorySink,
  type SinkFailure,
} from 'sojourn/activity'
import { FakeClock } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer, until } from '../../support/http.js'
import { TestSink } from '../../support/sinks.js'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const opened: { close(): unknown }[] = []
let warnings: jest.SpiedFunction<typeof process.emitWarning>

beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
})

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close()
  jest.restoreAllMocks()
})

/** A log on one sink that a test rules, with short times. */
function logOn(
  sink: ActivitySink | readonly ActivitySink[] = new TestSink(),
  options: Partial<ActivityLogOptions> = {},
): ActivityLog {
  const sinks = Array.isArray(sink) ? sink : [sink as ActivitySink]
  const log = new ActivityLog({ sinks, flushInterval: '1ms', retryDelay: '1ms', ...options })
  opened.push({ close: () => log.close({ timeout: '50ms' }) })
  return log
}

async function site(
  options: Partial<SessionOptions>,
  routes: (app: Express) => void,
): Promise<{ client: Client; server: TestServer }> {
  const app = express()
  app.set('env', 'test')
  app.use(session({ secret: SECRET, ...options }))
  routes(app)
  const server = await listen(app)
  opened.push(server)
  return { client: new Client(server), server }
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('logActivity()', () => {
  test('records under the session, the logical ID, the user and the request of the moment', async () => {
    const sink = memorySink()
    const log = logOn(sink)
    const { client } = await site({ activity: log }, (app) => {
      app.post('/orders', async (req, res) => {
        await req.session.login(42)
        const activity = await placeOrder()
        res.json({ activity, id: req.session.id, logicalId: req.session.logicalId })
      })
    })
    // Knows of no request.
    async function placeOrder(): Promise<Activity | undefined> {
      await tick()
      return logActivity('order.placed', { orderId: 7, card: { number: '4111', cvv: '123' } })
    }
    const { activity, id, logicalId } = (await client.post('/orders?secret=1')).json<{
      activity: Activity
      id: string
      logicalId: string
    }>()
    const { activities } = await log.timeline({ logicalId, type: 'order.placed' })
    expect(activities).toEqual([
      {
        id: expect.stringMatching(UUID),
        at: expect.any(Date),
        type: 'order.placed',
        logicalId,
        sessionId: id,
        userId: 42,
        details: { orderId: 7, card: { number: '4111', cvv: '[redacted]' } },
        request: { method: 'POST', path: '/orders', ip: expect.stringContaining('127.0.0.1') },
      },
    ])
    expect(JSON.parse(JSON.stringify(activities[0]))).toEqual(activity)
  })

  test.each([true, false])(
    'what happens to a session names the request, with context: %p, and so does a forged cookie',
    async (context) => {
      const log = logOn(memorySink())
      const { client } = await site({ activity: log, context }, (app) => {
        app.post('/login', async (req, res) => {
          await req.session.login('ann')
          res.json({})
        })
        app.get('/', (req, res) => {
          res.json(req.session)
        })
      })
      await client.post('/login?secret=1')
      const [name = '', value = ''] = client.cookieHeader.split(/=(.*)/s)
      const forged = `${name}=${value.slice(0, -2)}${value.endsWith('AA') ? 'BB' : 'AA'}`
      await client.get('/account', { Cookie: forged })
      const all: Activity[] = []
      for await (const activity of log.activities()) all.push(activity)
      const ip = expect.stringContaining('127.0.0.1')
      expect(all.filter(({ type }) => type !== 'session.boundary')).toMatchObject([
        { type: 'session.started', request: { method: 'POST', path: '/login', ip } },
        { type: 'session.login', userId: 'ann', request: { method: 'POST', path: '/login', ip } },
        {
          type: 'session.forged-cookie',
          sessionId: undefined,
          details: { reason: 'signature' },
          request: { method: 'GET', path: '/account', ip },
        },
      ])
      expect(JSON.stringify(all)).not.toContain(value.slice(-20))
    },
  )

  test('what a session goes through is there by itself, with requests when wanted', async () => {
    const log = logOn(memorySink(), { requests: true, requestFacts: false })
    const { client } = await site({ activity: log }, (app) => {
      app.post('/login', async (req, res) => {
        req.session.set('a', 1)
        await req.session.save()
        await req.session.login('ann')
        logActivity('handled')
        res.status(201).json({})
      })
      app.post('/logout', async (req, res) => {
        await req.session.logout()
        res.json({})
      })
    })
    await client.post('/login')
    await client.post('/logout')
    await until(async () => (await log.countByType({ type: 'session.request' }))['session.request'] === 2)
    const all: Activity[] = []
    for await (const activity of log.activities()) all.push(activity)
    expect(all.map(({ type }) => type).filter((type) => type !== 'session.boundary')).toEqual([
      'session.started',
      'session.login',
      'handled',
      'session.request',
      'session.logout',
      'session.request',
    ])
    expect(all.filter(({ request }) => request !== undefined)).toEqual([])
    expect(all.find(({ type }) => type === 'session.request')?.details).toEqual({
      status: 201,
      durationMs: expect.any(Number),
      isWhole: true,
    })
  })

  test('without `requests`, a request is no activity', async () => {
    const sink = new TestSink()
    const { client } = await site({ activity: logOn(sink) }, (app) => {
      app.get('/', (_req, res) => void res.json({}))
    })
    await client.get('/')
    await client.get('/')
    expect(sink.kept).toEqual([])
  })

  test('outside of a request nothing is recorded, and it is told once', () => {
    const warned = (): number => warnings.mock.calls.filter(([text]) => String(text).includes('logActivity()')).length
    const before = warned()
    expect(logActivity('job.done')).toBeUndefined()
    expect(logActivity('job.done')).toBeUndefined()
    expect(warned() - before).toBe(1)
  })

  test('with the request it works where the context is lost, and with context: false', async () => {
    for (const context of [true, false]) {
      const sink = new TestSink()
      const log = logOn(sink)
      const elsewhere = new EventEmitter()
      let go = (): void => {}
      const { client } = await site({ activity: log, context }, (app) => {
        app.get('/', (req, res) => {
          elsewhere.once('event', () => {
            logActivity('lost')
            logActivity('found', {}, req)
            res.json(req.session.logicalId)
          })
          go()
        })
      })
      const arrived = new Promise<void>((resolve) => {
        go = resolve
      })
      const answer = client.get('/')
      await arrived
      elsewhere.emit('event')
      const logicalId = (await answer).json<unknown>()
      await log.flush()
      expect(sink.kept.find(({ type }) => type === 'found')?.logicalId).toBe(logicalId)
      expect(sink.types).not.toContain('lost')
    }
  })

  test('without a hook it returns undefined', async () => {
    const { client } = await site({}, (app) => {
      app.get('/', (_req, res) => void res.json(logActivity('nobody') === undefined))
    })
    expect((await client.get('/')).json()).toBe(true)
  })

  test('with a function for a hook it returns what the function was given', async () => {
    const given: Activity[] = []
    const { client } = await site({ activity: (activity) => void given.push(activity) }, (app) => {
      app.get('/', async (_req, res) => void res.json((await logActivity('told', { a: 1 }))?.id))
    })
    const id = (await client.get('/')).json<unknown>()
    expect(given.find(({ type }) => type === 'told')?.id).toBe(id)
  })

  test.each([
    ['a type that is no text', 5, {}],
    ['an empty type', '', {}],
    ['an endless type', 'x'.repeat(201), {}],
    ['a list for details', 'a', []],
    ['text for details', 'a', 'text'],
    ['null for details', 'a', null],
  ])('%s is an INVALID_ARGUMENT', async (_what, type, details) => {
    const log = logOn()
    const { client } = await site({ activity: log }, (app) => {
      app.get('/', (_req, res) => {
        let code: unknown
        try {
          logActivity(type as string, details as Record<string, unknown>)
        } catch (error) {
          code = isSessionError(error) ? error.code : error
        }
        res.json(code)
      })
    })
    expect((await client.get('/')).json()).toBe('INVALID_ARGUMENT')
    expect(() => log.log(type as string, details as Record<string, unknown>)).toThrow(/activity/)
  })

  test('hostile types are kept as they are, and do no harm', async () => {
    const sink = memorySink()
    const log = logOn(sink)
    const types = ['__proto__', 'a\r\nb', '\u0000', '\ud800', "'; DROP TABLE activities --", '{x}', '\u001b[31m']
    for (const type of types) log.log(type)
    await log.flush()
    expect(Object.entries(await log.countByType())).toEqual(types.map((type) => [type, 1]))
  })
})

describe('log.log()', () => {
  test('records for jobs, under the IDs that it is given, with the time of the clock', async () => {
    const clock = new FakeClock(Date.UTC(2030, 0, 1))
    const sink = new TestSink()
    const log = logOn(sink, { clock: clock.now })
    const subject = { logicalId: 'order 7', sessionId: 'session', userId: 5 }
    const activity = log.log('report.sent', { pages: 3 }, subject)
    clock.advance(1)
    log.log('report.read')
    await log.flush()
    expect(sink.kept[0]).toEqual({
      ...subject,
      id: activity.id,
      at: new Date(Date.UTC(2030, 0, 1)),
      type: 'report.sent',
      details: { pages: 3 },
      request: undefined,
    })
    expect(sink.kept[1]).toMatchObject({ at: new Date(Date.UTC(2030, 0, 1) + 1), sessionId: undefined })
  })

  test.each([
    { logicalId: '' },
    { logicalId: 5 },
    { sessionId: 'x'.repeat(1_001) },
    { sessionId: {} },
    { userId: Number.NaN },
    { userId: '' },
    { userId: true },
  ])('an ID that is none is an INVALID_ARGUMENT: %j', (subject) => {
    expect(() => logOn().log('a', {}, subject as object)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })

  test('what is returned is the activity: to print, to compare, and to await', async () => {
    const log = logOn()
    const activity = log.log('a', { token: 'x' })
    expect(JSON.parse(JSON.stringify(activity))).toMatchObject({ type: 'a', details: { token: '[redacted]' } })
    expect(Object.keys(activity)).not.toContain('then')
    const awaited = await activity
    expect(Object.entries(awaited)).toEqual(Object.entries(activity))
    expect('then' in awaited).toBe(false)
    expect(inspect(activity)).not.toContain('then')
  })

  test('of one millisecond, the order is that of the calls', async () => {
    const sink = memorySink()
    const log = logOn(sink, { clock: () => 1_000_000 })
    const types = Array.from({ length: 500 }, (_, n) => `type ${n}`)
    for (const type of types) log.log(type)
    const { activities } = await log.timeline({ limit: 1_000 })
    expect(activities.map(({ type }) => type)).toEqual(types)
  })

  test('a clock that jumps back is no error: what is told first may be later', async () => {
    const clock = new FakeClock()
    const log = logOn(memorySink(), { clock: clock.now })
    log.log('first')
    clock.advance(-3_600_000)
    log.log('second')
    clock.advance(7_200_000)
    log.log('third')
    expect((await log.timeline({})).activities.map(({ type }) => type)).toEqual(['second', 'first', 'third'])
  })
})

describe('details', () => {
  async function kept(details: object, options: Partial<ActivityLogOptions> = {}): Promise<unknown> {
    const sink = new TestSink()
    const log = logOn(sink, options)
    log.log('a', details as Record<string, unknown>)
    await log.flush()
    return sink.kept[0]?.details
  }
  let deep: object = {}
  for (let n = 0; n < 100_000; n++) deep = { inner: deep }
  const cyclic: Record<string, unknown> = { a: 1, list: [] as unknown[] }
  ;(cyclic['list'] as unknown[]).push(cyclic)
  const twice = { x: 1 }
  const revoked = Proxy.revocable({}, {})
  revoked.revoke()
  class Money {
    constructor(readonly amount: number) {}
    toJSON(): string {
      return `${this.amount} EUR`
    }
  }

  const cases: [what: string, given: object, kept: unknown][] = [
    ['plain data', { a: [1, 'b', null, true, { c: {} }] }, { a: [1, 'b', null, true, { c: {} }] }],
    ['numbers that JSON has not', { a: Number.NaN, b: -Infinity, c: -0 }, { a: 'NaN', b: '-Infinity', c: 0 }],
    ['a BigInt', { a: 10n ** 30n, b: 2n ** 100_000n }, { a: '1000000000000000000000000000000', b: '[bigint]' }],
    [
      'undefined, functions and symbols',
      { a: undefined, b: () => 1, c: Symbol('s') },
      { b: '[function]', c: '[symbol]' },
    ],
    ['what is not there in a list', { a: Object.assign(Array(3), { 2: 1 }) }, { a: [null, null, 1] }],
    ['dates', { a: new Date(0), b: new Date(Number.NaN) }, { a: '1970-01-01T00:00:00.000Z', b: '[invalid date]' }],
    [
      'an error, without its stack and what libraries put on it',
      { e: Object.assign(new TypeError('no', { cause: 'why' }), { code: 'E_NO', command: 'AUTH hunter2' }) },
      { e: { name: 'TypeError', message: 'no', code: 'E_NO', cause: 'why' } },
    ],
    ['an error as the details', new Error('all of it'), { name: 'Error', message: 'all of it' }],
    [
      'Map and Set',
      {
        a: new Map<unknown, unknown>([
          ['x', 1],
          [{}, 2],
        ]),
        b: new Set([1, 1, 2]),
      },
      { a: { x: 1, '[object]': 2 }, b: [1, 2] },
    ], // prettier-ignore
    [
      'bytes',
      { a: Buffer.from('secret'), b: new Float64Array(2), c: new ArrayBuffer(3) },
      { a: '[6 bytes]', b: '[16 bytes]', c: '[3 bytes]' },
    ],
    [
      'RegExp, URL, boxed values, a promise',
      { a: /x/g, b: new URL('http://h/p'), c: Object(1n), d: Object('t'), e: Promise.resolve() },
      { a: '/x/g', b: 'http://h/p', c: '1', d: 't', e: '[promise]' },
    ],
    [
      'toJSON()',
      { a: new Money(3), b: { toJSON: () => [new Money(4)] }, c: { toJSON: () => undefined } },
      { a: '3 EUR', b: ['4 EUR'] },
    ],
    [
      'toJSON() that throws',
      {
        a: {
          toJSON: () => {
            throw new Error('no')
          },
        },
        b: 1,
      },
      { a: '[unreadable]', b: 1 },
    ], // prettier-ignore
    ['toJSON() of the whole', { toJSON: () => 'text' }, { value: 'text' }],
    [
      'toJSON() that returns itself',
      {
        a: new (class {
          x = 1
          toJSON() {
            return this
          }
        })(),
      },
      { a: { x: 1 } },
    ], // prettier-ignore
    [
      'a getter that throws',
      {
        get a() {
          throw new Error('no')
        },
        b: 1,
      },
      { a: '[unreadable]', b: 1 },
    ], // prettier-ignore
    [
      'proxies that throw',
      {
        a: revoked.proxy,
        b: new Proxy(
          {},
          {
            ownKeys() {
              throw new Error('no')
            },
          },
        ),
        c: 1,
      },
      { a: '[unreadable]', b: '[unreadable]', c: 1 },
    ], // prettier-ignore
    ['a cycle', cyclic, { a: 1, list: ['[circular]'] }],
    ['one object twice', { a: [twice, twice] }, { a: [{ x: 1 }, { x: 1 }] }],
    [
      'symbol keys and inherited properties',
      Object.assign(Object.create({ inherited: 1 }), { [Symbol('s')]: 1, own: 2 }),
      { own: 2 },
    ],
    [
      'names of Object',
      { constructor: 1, toString: 2, hasOwnProperty: 3 },
      { constructor: 1, toString: 2, hasOwnProperty: 3 },
    ],
  ]

  test.each(cases)('%s', async (_what, given, expected) => {
    const found = await kept(given)
    expect(found).toEqual(expected)
    expect(JSON.parse(JSON.stringify(found))).toEqual(expected)
  })

  test('a key __proto__ is data', async () => {
    const found = await kept(JSON.parse('{"__proto__":{"polluted":true},"a":{"__proto__":1}}') as object)
    expect(JSON.stringify(found)).toBe('{"__proto__":{"polluted":true},"a":{"__proto__":1}}')
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  })

  test('what is changed later does not change what was recorded', async () => {
    const sink = new TestSink()
    const log = logOn(sink)
    const details = { list: [1], at: new Date(0) }
    const activity = log.log('a', details)
    details.list.push(2)
    details.at.setTime(1)
    await log.flush()
    expect(sink.kept[0]?.details).toEqual({ list: [1], at: '1970-01-01T00:00:00.000Z' })
    for (const part of [sink.kept[0], sink.kept[0]?.details, sink.kept[0]?.details?.['list'], activity]) {
      expect(Object.isFrozen(part)).toBe(true)
    }
  })

  test('100,000 levels deep is cut', async () => {
    expect(JSON.stringify(await kept({ deep }))).toMatch(/^(\{"(deep|inner)":)+"\[too deep\]"\}+$/)
  })

  test('10 MB are cut, say so, and leave what stands beside them', async () => {
    const found = (await kept({ first: 1, text: 'é'.repeat(5_000_000), last: 2 })) as Record<string, string>
    expect(found).toMatchObject({ first: 1, last: 2 })
    expect(found['text']).toMatch(/^é+… \[cut: 5000000 characters\]$/)
    expect(Buffer.byteLength(JSON.stringify(found))).toBeLessThanOrEqual(8_192)
  })

  test('lists and objects that are too long are cut, and say how much is missing', async () => {
    const { list } = (await kept({ list: Array(1_000_000).fill('item') })) as { list: string[] }
    expect(list.at(-1)).toBe(`[cut: ${1_000_001 - list.length} more]`)
    expect(list.length).toBeGreaterThan(1_000)
    const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, n) => [`key ${n}`, n]))
    const found = (await kept(many)) as Record<string, unknown>
    expect(found['[cut]']).toBe(`${5_001 - Object.keys(found).length} more`)
    expect(found['key 0']).toBe(0)
    const [name = ''] = Object.keys((await kept({ ['k'.repeat(10_000)]: 1 })) as object)
    expect(name).toBe(`${'k'.repeat(200)}…`)
  })

  test('no half of a character is left where text is cut', async () => {
    for (const start of ['', 'x', 'xx', 'xxx']) {
      const { text } = (await kept({ text: start + '\u{1F36A}'.repeat(10_000) })) as { text: string }
      expect(text.isWellFormed()).toBe(true)
    }
  })

  test('whatever they are: no error, plain frozen data, and JSON within the limit', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { maxDetailsBytes: 400 })
    const anything = fc.anything({
      maxDepth: 5,
      withBigInt: true,
      withBoxedValues: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withObjectString: true,
      withSet: true,
      withSparseArray: true,
      withTypedArray: true,
      withUnicodeString: true,
    })
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'binary' }), anything), (details) => {
        const found = log.log('a', details).details
        const json = JSON.stringify(found)
        expect(Buffer.byteLength(json)).toBeLessThanOrEqual(400)
        expect(JSON.stringify(JSON.parse(json))).toBe(json)
        expect(isFrozen(found)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })

  test('by their names, secrets are blanked at any depth', async () => {
    const secrets = {
      password: 'x',
      newPassword: 'x',
      'user-passwd': 'x',
      secret: 'x',
      client_secret: 'x',
      token: 'x',
      accessToken: 'x',
      refresh_tokens: ['x'],
      authorization: 'Bearer x',
      Cookie: 'x',
      'set-cookie': ['x'],
      apiKey: 'x',
      'x-api-key': 'x',
      privateKey: { pem: 'x' },
      credentials: { user: 'x' },
      jwt: 'x',
      PIN: 1234,
      otp: 'x',
      cvv: 123,
      csrf: 'x',
    }
    const harmless = { tokenCount: 5, hasPassword: true, token: null, spin: 1, description: 'a password', passed: 1 }
    const found = await kept({ ...secrets, nested: [{ headers: secrets }], harmless })
    const blank = Object.fromEntries(Object.keys(secrets).map((name) => [name, '[redacted]']))
    expect(found).toEqual({ ...blank, nested: [{ headers: blank }], harmless })
  })

  test('by paths, what an application says is blanked besides', async () => {
    const details = {
      iban: 'x',
      card: { number: 'x', brand: 'visa', holder: { iban: 'x' } },
      other: { number: 1, code: 'x' },
      list: [{ code: 'x', deep: { code: 'kept' } }],
      'card.number': 'x',
      token: 'x',
    }
    expect(await kept(details, { redact: ['iban', 'card.number', '*.code', 'list.*.code'] })).toEqual({
      iban: '[redacted]',
      card: { number: '[redacted]', brand: 'visa', holder: { iban: '[redacted]' } },
      other: { number: 1, code: '[redacted]' },
      list: [{ code: '[redacted]', deep: { code: 'kept' } }],
      'card.number': '[redacted]',
      token: '[redacted]',
    })
  })

  test('what is blanked is not even looked at', async () => {
    let reads = 0
    const details = {
      get iban() {
        reads++
        return 'x'
      },
    }
    expect(await kept(details, { redact: ['iban'] })).toEqual({ iban: '[redacted]' })
    expect(reads).toBe(0)
  })

  test('names that people write for passwords, keys and cards, and lists of headers, are blanked, too', async () => {
    const names = [
      'pass',
      'auth',
      'sid',
      'accessKey',
      'AWS_ACCESS_KEY',
      'passcode',
      'cardNumber',
      'card_number',
      'connect.sid',
    ]
    const named = Object.fromEntries(names.map((name) => [name, 'hunter2']))
    const details = {
      named,
      rawHeaders: ['Host', 'example.org', 'Cookie', 'sid=hunter2', 'Authorization', 'Basic hunter2'],
      pairs: [
        ['accept', '*/*'],
        ['set-cookie', ['sid=hunter2']],
      ],
      har: [
        { name: 'Cookie', value: 'sid=hunter2' },
        { key: 'host', value: 'example.org' },
      ],
      compass: 'north',
      author: 'ann',
      considered: 'yes',
    }
    expect(await kept(details)).toEqual({
      named: Object.fromEntries(names.map((name) => [name, '[redacted]'])),
      rawHeaders: ['Host', 'example.org', 'Cookie', '[redacted]', 'Authorization', '[redacted]'],
      pairs: [
        ['accept', '*/*'],
        ['set-cookie', '[redacted]'],
      ],
      har: [
        { name: 'Cookie', value: '[redacted]' },
        { key: 'host', value: 'example.org' },
      ],
      compass: 'north',
      author: 'ann',
      considered: 'yes',
    })
  })

  test('redact: false blanks nothing', async () => {
    const details = { password: 'x', nested: { token: 'y' } }
    expect(await kept(details, { redact: false })).toEqual(details)
  })

  test('hostile details do no harm to the request that they are logged in', async () => {
    const sink = new TestSink()
    const { client } = await site({ activity: logOn(sink) }, (app) => {
      app.get('/', (_req, res) => {
        for (const [, details] of cases) logActivity('a', details as Record<string, unknown>)
        logActivity('a', { deep, text: 'x'.repeat(10_000_000) })
        res.json('answered')
      })
    })
    expect((await client.get('/')).json()).toBe('answered')
    await until(() => sink.types.filter((type) => type === 'a').length === cases.length + 1)
    expect(warnings.mock.calls.map(([text]) => text).filter((text) => /hook/.test(String(text)))).toEqual([])
  })

  test('a path of the request is cut', async () => {
    const sink = new TestSink()
    const { client } = await site({ activity: logOn(sink) }, (app) => {
      app.use((_req, res) => void res.json(logActivity('a')?.request?.path.length))
    })
    expect((await client.get(`/${'x'.repeat(8_000)}`)).json()).toBe(1_025)
  })
})

describe('a queue', () => {
  test('writes what came in one turn as one batch, in order, and never more than batchSize', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { batchSize: 10 })
    for (let n = 0; n < 25; n++) log.log(`type ${n}`)
    expect(sink.batches).toEqual([])
    await log.flush()
    expect(sink.batches.map(({ length }) => length)).toEqual([10, 10, 5])
    expect(sink.types).toEqual(Array.from({ length: 25 }, (_, n) => `type ${n}`))
  })

  test('a full batch does not wait for flushInterval, the rest does', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { batchSize: 10, flushInterval: '1h' })
    for (let n = 0; n < 9; n++) log.log('a')
    await tick()
    await tick()
    expect(sink.batches.length).toBe(0)
    log.log('a')
    await until(() => sink.batches.length === 1)
    expect(sink.kept.length).toBe(10)
  })

  test('is written after flushInterval, without anybody asking', async () => {
    const sink = new TestSink()
    logOn(sink, { flushInterval: '5ms' }).log('a')
    await until(() => sink.kept.length === 1)
  })

  test('a sink has one batch at a time', async () => {
    const sink = new TestSink()
    let atOnce = 0
    let most = 0
    sink.behave = async () => {
      most = Math.max(most, ++atOnce)
      await tick()
      atOnce--
    }
    const log = logOn(sink, { batchSize: 2 })
    for (let n = 0; n < 20; n++) log.log('a')
    await Promise.all([log.flush(), log.flush()])
    expect([most, sink.kept.length]).toEqual([1, 20])
  })

  test('that is full drops the newest, which is counted and told, and goes on when there is room', async () => {
    const sink = new TestSink()
    const release = sink.hang()
    const drops: ActivityDrop[] = []
    const log = logOn(sink, { maxQueue: 5, batchSize: 2, onDropped: (drop) => drops.push(drop) })
    for (let n = 0; n < 8; n++) log.log(`type ${n}`)
    await until(() => sink.batches.length === 1)
    for (let n = 8; n < 10; n++) log.log(`type ${n}`)
    expect(log.stats).toEqual({
      recorded: 10,
      sinks: [{ name: 'test', queued: 5, written: 0, dropped: 5, failures: 0 }],
    })
    release()
    await log.flush()
    log.log('later')
    await log.flush()
    expect(sink.types).toEqual(['type 0', 'type 1', 'type 2', 'type 3', 'type 4', 'later'])
    expect(drops).toEqual([{ sink: 'test', count: 5, reason: 'full', error: undefined }])
    expect(log.stats.sinks).toEqual([{ name: 'test', queued: 0, written: 6, dropped: 5, failures: 0 }])
  })

  test('what is dropped, and what fails, is a process warning when nobody listens: once', async () => {
    const sink = new TestSink('shelf')
    sink.behave = () => {
      throw new Error('no room on it')
    }
    const log = logOn(sink, { maxQueue: 2, maxRetries: 1 })
    for (let n = 0; n < 10; n++) log.log('a')
    await log.flush()
    for (let n = 0; n < 10; n++) log.log('a')
    await log.flush()
    const told = warnings.mock.calls.map(([text, options]) => [text, options])
    expect(told).toEqual([
      [expect.stringContaining('"shelf" failed: no room on it'), expect.objectContaining({ type: 'SojournWarning' })],
      [expect.stringContaining('"shelf" did not get 8 activities: its queue is full'), expect.anything()],
      [expect.stringContaining('"shelf" did not get 2 activities: it failed too often'), expect.anything()],
    ])
  })

  test('tries a failed batch again, as it was, and later ones after it', async () => {
    const sink = new TestSink()
    let attempts = 0
    sink.behave = () => {
      if (++attempts <= 3) throw new Error(`attempt ${attempts}`)
    }
    const failures: SinkFailure[] = []
    const log = logOn(sink, { batchSize: 2, onError: (failure) => failures.push(failure) })
    for (let n = 0; n < 5; n++) log.log(`type ${n}`)
    await log.flush()
    expect(sink.types).toEqual(['type 0', 'type 1', 'type 2', 'type 3', 'type 4'])
    expect(new Set(sink.batches.slice(0, 4)).size).toBe(1)
    expect(failures).toEqual(
      [1, 2, 3].map((attempt) => ({
        sink: 'test',
        error: new Error(`attempt ${attempt}`),
        attempt,
        willRetry: true,
      })),
    )
    expect(log.stats.sinks[0]).toEqual({ name: 'test', queued: 0, written: 5, dropped: 0, failures: 3 })
  })

  test('gives a batch up after maxRetries, tells it, and goes on with the next', async () => {
    const sink = new TestSink()
    sink.behave = (batch) => {
      if (batch.some(({ type }) => type === 'poison')) throw new Error('poisoned')
    }
    const drops: ActivityDrop[] = []
    const failures: SinkFailure[] = []
    const log = logOn(sink, {
      batchSize: 2,
      maxRetries: 2,
      onError: (failure) => failures.push(failure),
      onDropped: (drop) => drops.push(drop),
    })
    for (const type of ['poison', 'innocent', 'third']) log.log(type)
    await log.flush()
    expect(sink.types).toEqual(['third'])
    expect(failures.map(({ attempt, willRetry }) => [attempt, willRetry])).toEqual([
      [1, true],
      [2, true],
      [3, false],
    ])
    expect(drops).toEqual([{ sink: 'test', count: 2, reason: 'failed', error: new Error('poisoned') }])
  })

  test('the waits between attempts double, up to a hundred times the first', async () => {
    const waits: number[] = []
    const real = globalThis.setTimeout
    jest.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms: number) => {
      waits.push(ms)
      return real(run, 0)
    }) as typeof setTimeout)
    const sink = new TestSink()
    sink.write = () => {
      throw new Error('no')
    }
    const log = logOn(sink, { retryDelay: '100ms', maxRetries: 10, onError: () => {}, onDropped: () => {} })
    log.log('a')
    await log.flush()
    const [, ...delays] = waits
    expect(delays.length).toBe(10)
    delays.forEach((ms, index) => {
      const longest = 100 * Math.min(2 ** index, 100)
      expect(ms).toBeGreaterThanOrEqual(longest / 2)
      expect(ms).toBeLessThanOrEqual(longest)
    })
  })

  test('a write that hangs fails at its deadline, and is tried again', async () => {
    const sink = new TestSink()
    sink.behave = () => (sink.batches.length === 1 ? new Promise(() => {}) : undefined)
    const failures: SinkFailure[] = []
    const log = logOn(sink, { writeTimeout: '20ms', onError: (failure) => failures.push(failure) })
    log.log('a')
    await log.flush()
    expect(sink.types).toEqual(['a'])
    expect(failures).toMatchObject([{ error: { code: 'STORE_TIMEOUT' }, attempt: 1, willRetry: true }])
  })

  test.each([
    [
      'throws',
      (sink: TestSink) => {
        sink.write = () => {
          throw new Error('no')
        }
      },
    ], // prettier-ignore
    [
      'rejects',
      (sink: TestSink) => {
        sink.behave = () => Promise.reject(new Error('no'))
      },
    ], // prettier-ignore
    ['hangs, until its queue is full', (sink: TestSink) => void sink.hang()],
    [
      'is slow',
      (sink: TestSink) => {
        sink.behave = () => new Promise((resolve) => setTimeout(resolve, 5_000).unref())
      },
    ], // prettier-ignore
  ])('a sink that %s harms neither the others nor a request', async (_what, breakIt) => {
    const broken = new TestSink('broken')
    breakIt(broken)
    const good = new TestSink('good')
    const log = logOn([broken, good], { maxQueue: 20, batchSize: 5, onError: () => {}, onDropped: () => {} })
    const { client } = await site({ activity: log }, (app) => {
      app.get('/', (_req, res) => {
        logActivity('seen')
        res.json({})
      })
    })
    for (let n = 0; n < 50; n++) expect((await client.get('/')).status).toBe(200)
    await until(() => good.types.filter((type) => type === 'seen').length === 50)
    const [brokenStats, goodStats] = log.stats.sinks
    expect(goodStats).toMatchObject({ dropped: 0, failures: 0 })
    expect(brokenStats?.written).toBe(0)
    expect(brokenStats?.queued).toBeLessThanOrEqual(20)
  })

  test('listeners that throw or reject become process warnings', async () => {
    const sink = new TestSink()
    sink.behave = () => {
      throw new Error('no')
    }
    const log = logOn(sink, {
      maxRetries: 0,
      onError() {
        throw new Error('onError is broken')
      },
      onDropped: (async () => {
        throw new Error('onDropped is broken')
      }) as () => void,
    })
    log.log('a')
    await log.flush()
    await tick()
    const told = warnings.mock.calls.map(([text]) => text)
    expect(told).toEqual([expect.stringContaining('onError is broken'), expect.stringContaining('onDropped is broken')])
  })

  test('two sinks of one name are told apart', async () => {
    const log = logOn([new TestSink('x'), new TestSink('x'), new TestSink('y')])
    expect(log.stats.sinks.map(({ name }) => name)).toEqual(['x', 'x-2', 'y'])
  })
})

describe("onFull: 'wait'", () => {
  test('who awaits is slowed down to the speed of the sink, and nothing is dropped', async () => {
    const sink = new TestSink()
    let written = 0
    sink.behave = async (batch) => {
      await tick()
      written += batch.length
    }
    const log = logOn(sink, { onFull: 'wait', maxQueue: 10, batchSize: 5 })
    let longest = 0
    for (let n = 0; n < 200; n++) {
      await log.log('a')
      longest = Math.max(longest, n - written)
    }
    await log.flush()
    expect(sink.kept.length).toBe(200)
    expect(longest).toBeLessThanOrEqual(15)
    expect(log.stats.sinks[0]?.dropped).toBe(0)
  })

  test('await logActivity() waits for room, in a request', async () => {
    const sink = new TestSink()
    const release = sink.hang()
    const log = logOn(sink, { onFull: 'wait', maxQueue: 2, batchSize: 1 })
    const steps: string[] = []
    const { client } = await site({ activity: log }, (app) => {
      app.get('/', async (_req, res) => {
        await logActivity('first')
        steps.push('room')
        const second = await logActivity('second')
        steps.push(`room again for ${second?.type}`)
        res.json({})
      })
    })
    const answer = client.get('/')
    await until(() => log.stats.sinks[0]?.queued === 2)
    await tick()
    expect(steps).toEqual(['room'])
    release()
    await answer
    expect(steps).toEqual(['room', 'room again for second'])
  })

  test('who does not await is queued all the same, up to twice maxQueue, and dropped beyond', async () => {
    const sink = new TestSink()
    const release = sink.hang()
    const log = logOn(sink, { onFull: 'wait', maxQueue: 5, onDropped: () => {} })
    for (let n = 0; n < 30; n++) void log.log('a')
    expect(log.stats.sinks[0]).toMatchObject({ queued: 10, dropped: 20 })
    release()
    await log.flush()
    expect(sink.kept.length).toBe(10)
  })

  test('room is the room of all sinks', async () => {
    const [slow, fast] = [new TestSink('slow'), new TestSink('fast')]
    const release = slow.hang()
    const log = logOn([slow, fast], { onFull: 'wait', maxQueue: 1 })
    let hasRoom = false
    const done = log.log('a').then(() => {
      hasRoom = true
    })
    await until(() => fast.kept.length === 1)
    expect(hasRoom).toBe(false)
    release()
    await done
  })

  test('who waits is let go when the log is closed', async () => {
    const sink = new TestSink()
    sink.hang()
    const log = logOn(sink, { onFull: 'wait', maxQueue: 1, onDropped: () => {}, onError: () => {} })
    const waiting = log.log('a')
    await log.close({ timeout: '10ms' })
    await waiting
  })

  test("with 'drop' nothing waits", async () => {
    const sink = new TestSink()
    sink.hang()
    const log = logOn(sink, { maxQueue: 1, onDropped: () => {} })
    for (let n = 0; n < 5; n++) await log.log('a')
  })
})

describe('flush() and close()', () => {
  test('flush() is done when what was queued before it is written', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { flushInterval: '1h' })
    await log.flush()
    log.log('a')
    await log.flush()
    expect(sink.types).toEqual(['a'])
  })

  test('flush() is done in spite of what is recorded meanwhile', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { batchSize: 1, maxQueue: 1_000_000 })
    let isDone = false
    sink.behave = () => {
      if (!isDone) log.log('another')
      return tick()
    }
    log.log('first')
    await log.flush()
    isDone = true
    expect(sink.types[0]).toBe('first')
  })

  test('close() writes what is queued and closes each sink, once', async () => {
    const sink = new TestSink()
    const log = logOn(sink, { flushInterval: '1h', batchSize: 10 })
    for (let n = 0; n < 25; n++) log.log('a')
    await Promise.all([log.close(), log.close()])
    expect([sink.kept.length, sink.closed]).toEqual([25, 1])
  })

  test('close() tells as dropped what it could not write in time, and closes the sink', async () => {
    const sink = new TestSink()
    sink.hang()
    const drops: ActivityDrop[] = []
    const log = logOn(sink, { batchSize: 10, onError: () => {}, onDropped: (drop) => drops.push(drop) })
    for (let n = 0; n < 25; n++) log.log('a')
    await log.close({ timeout: '30ms' })
    expect(drops.reduce((sum, { count }) => sum + count, 0)).toBe(25)
    expect(new Set(drops.map(({ reason }) => reason))).toEqual(new Set(['closed']))
    expect(log.stats.sinks[0]).toMatchObject({ queued: 0, written: 0, dropped: 25 })
    expect(sink.closed).toBe(1)
  })

  test('close() does not wait out the pause between two attempts', async () => {
    const sink = new TestSink()
    sink.behave = () => {
      if (sink.batches.length === 1) throw new Error('once')
    }
    const log = logOn(sink, { retryDelay: '1h', onError: () => {} })
    log.log('a')
    await until(() => log.stats.sinks[0]?.failures === 1)
    await log.close()
    expect(sink.types).toEqual(['a'])
  })

  test('what is recorded after close() is told as dropped', async () => {
    const sink = new TestSink()
    const drops: ActivityDrop[] = []
    const log = logOn(sink, { onDropped: (drop) => drops.push(drop) })
    await log.close()
    log.log('late')
    expect(drops).toEqual([{ sink: 'test', count: 1, reason: 'closed', error: undefined }])
    expect(sink.batches).toEqual([])
  })

  test('a sink that fails or hangs when it is closed is told, and close() ends', async () => {
    const failing = new TestSink('failing')
    failing.close = () => {
      throw new Error('jammed')
    }
    const hanging = new TestSink('hanging')
    hanging.close = (() => new Promise(() => {})) as () => void
    const failures: SinkFailure[] = []
    const log = logOn([failing, hanging], { onError: (failure) => failures.push(failure) })
    await log.close({ timeout: '20ms' })
    expect(failures.map(({ sink }) => sink).sort()).toEqual(['failing', 'hanging'])
  })
})

describe('retention', () => {
  test('prunes every archive at an interval, by a timer that does not hold the process', async () => {
    const unref = jest.spyOn(Object.getPrototypeOf(setTimeout(() => {}, 0)) as { unref(): unknown }, 'unref')
    const clock = new FakeClock()
    const [first, second] = [memorySink(), memorySink()]
    const before = unref.mock.calls.length
    const log = logOn([first, second, new TestSink()], { clock: clock.now, retention: '1h', pruneInterval: '5ms' })
    expect(unref.mock.calls.length).toBe(before + 1)
    log.log('old')
    await log.flush()
    clock.advance(3_600_001)
    log.log('new')
    await log.flush()
    await until(() => first.size === 1 && second.size === 1)
    expect((await log.timeline({})).activities.map(({ type }) => type)).toEqual(['new'])
  })

  test('a failure of one archive is told, and the others are pruned', async () => {
    const broken = { ...memorySink(), name: 'broken', prune: () => Promise.reject(new Error('stuck')) }
    const good = memorySink()
    const failures: SinkFailure[] = []
    const log = logOn([broken, good], { onError: (failure) => failures.push(failure), clock: () => 0 })
    log.log('old')
    await log.flush()
    await expect(log.prune(new Date(1))).rejects.toThrow('stuck')
    expect(good.size).toBe(0)
    expect(failures).toMatchObject([{ sink: 'broken', willRetry: false }])
  })

  test('prune() takes a time or a duration, and says how many', async () => {
    const clock = new FakeClock()
    const log = logOn(memorySink(), { clock: clock.now })
    for (let n = 0; n < 4; n++) {
      log.log('a')
      clock.advance(60_000)
    }
    await log.flush()
    expect(await log.prune('3m')).toBe(1)
    expect(await log.prune(new Date(clock.now() - 60_000))).toBe(2)
    await expect(log.prune(new Date(Number.NaN))).rejects.toThrow(/olderThan/)
    await expect(log.prune('soon')).rejects.toThrow(/olderThan/)
  })
})

describe('options', () => {
  test.each<[object | undefined, RegExp]>([
    [undefined, /sinks/],
    [{ sinks: undefined }, /sinks/],
    [{ sinks: [] }, /sinks/],
    [{ sinks: memorySink() }, /sinks/],
    [{ sinks: [null] }, /sinks\[0\]/],
    [{ sinks: [memorySink(), { name: 'x' }] }, /sinks\[1\]/],
    [{ sinks: [{ write() {} }] }, /name/],
    [{ requests: 1 }, /requests/],
    [{ requestFacts: 'yes' }, /requestFacts/],
    [{ redact: true }, /redact/],
    [{ redact: [''] }, /redact/],
    [{ redact: ['a..b'] }, /redact/],
    [{ redact: [5] }, /redact/],
    [{ maxDetailsBytes: 255 }, /maxDetailsBytes/],
    [{ maxDetailsBytes: '8kb' }, /maxDetailsBytes/],
    [{ batchSize: 0 }, /batchSize/],
    [{ flushInterval: 'soon' }, /flushInterval/],
    [{ flushInterval: '2d' }, /flushInterval/],
    [{ maxQueue: 0 }, /maxQueue/],
    [{ onFull: 'panic' }, /onFull/],
    [{ writeTimeout: 0 }, /writeTimeout/],
    [{ maxRetries: -1 }, /maxRetries/],
    [{ retryDelay: -1 }, /retryDelay/],
    [{ retention: '10ms' }, /retention/],
    [{ retention: '1h', pruneInterval: 0 }, /pruneInterval/],
    [{ analytics: 'all' }, /analytics/],
    [{ analytics: { price: {} } }, /"analytics.price". Did you mean prices/],
    [{ analytics: { pageViews: 'page.viewed' } }, /analytics.pageViews/],
    [{ analytics: { apiCalls: ['*.called'] } }, /analytics.apiCalls/],
    [{ analytics: { prices: { 'api.called': '2' } } }, /analytics.prices/],
    [{ analytics: { prices: { 'api.called': -2 } } }, /analytics.prices/],
    [{ onError: 'log' }, /onError/],
    [{ onDropped: 5 }, /onDropped/],
    [{ clock: new Date() }, /clock/],
    [{ unknown: 1 }, /"unknown"/],
  ])('%j is refused with what to do', (options, message) => {
    const make = (): unknown =>
      new ActivityLog((options && { sinks: [memorySink()], ...options }) as ActivityLogOptions)
    expect(make).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(message) }))
  })

  test('a long retention is pruned no less than once an hour, a short one as often as itself', () => {
    const timers = jest.spyOn(globalThis, 'setInterval')
    logOn(memorySink(), { retention: '90d' })
    logOn(memorySink(), { retention: '2s' })
    expect(timers.mock.calls.map(([, ms]) => ms)).toEqual([3_600_000, 2_000])
  })
})

function isFrozen(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  return Object.isFrozen(value) && Object.values(value).every(isFrozen)
}
