// What options say when they are not what was meant: durations that cannot be, names that are misspelt, calls left out.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import express from 'express'
import { MemorySessionStore, SessionManager, type SessionOptions, session } from 'sojourn'
import { ActivityLog, memorySink } from 'sojourn/activity'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'

const servers: TestServer[] = []
afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all(servers.splice(0).map((server) => server.close()))
})

async function serve(app: express.Express): Promise<Client> {
  app.set('env', 'test')
  const server = await listen(app)
  servers.push(server)
  return new Client(server)
}

/** A manager that keeps nothing, for what options come to. */
function describeOptions(options: object): Readonly<Record<string, unknown>> {
  const store = new MemorySessionStore({ cleanupInterval: 0 })
  return new SessionManager({ secret: SECRET, store, ...options } as SessionOptions).describe()
}

describe('milliseconds that were written where seconds are meant', () => {
  test.each([
    ['half an hour', { idleTimeout: 1_800_000 }, /idleTimeout is 1800000, .*seconds: that is 20\.8d.*1800 or '30m'/],
    ['a quarter of an hour', { idleTimeout: 900_000 }, /10\.4d.*900 or '15m'.*'250h'/],
    ['twelve hours', { absoluteTimeout: 12 * 3_600_000 }, /absoluteTimeout.*43200 or '12h'/],
    ['a grace', { renewGrace: 300_000 }, /renewGrace.*300 or '5m'/],
    ['a deadline', { storeTimeout: 5_000 }, /storeTimeout is 5000.*seconds: write 5 for 5000 milliseconds/],
  ])('%s is refused, with what to write', (_what, options, message) => {
    expect(() => describeOptions(options)).toThrow(message)
  })

  test('days are no milliseconds, and text means what it says', () => {
    const month = 30 * 86_400
    expect(describeOptions({ idleTimeout: month, absoluteTimeout: month })).toMatchObject({
      idleTimeoutMs: month * 1_000,
    })
    expect(describeOptions({ idleTimeout: '1800000s', absoluteTimeout: '500h' })).toMatchObject({
      idleTimeoutMs: 1_800_000_000,
    })
    expect(describeOptions({ storeTimeout: '2m' })).toMatchObject({ storeTimeoutMs: 120_000 })
  })
})

describe('an idle timeout beyond the absolute one', () => {
  test.each([
    [{ idleTimeout: '30d' }, /idleTimeout \(30d\) is longer than absoluteTimeout \(12h\).*as long/],
    [{ idleTimeout: '2h', absoluteTimeout: '1h' }, /idleTimeout \(2h\).*absoluteTimeout \(1h\)/],
    [{ idleTimeout: '25h', preset: 'aal2' }, /idleTimeout \(1d\) is longer|idleTimeout/],
  ])('%j is refused', (options, message) => {
    expect(() => describeOptions(options)).toThrow(message)
  })

  test('as long as it, there is none; and the default gives way to a short absolute timeout', () => {
    expect(describeOptions({ idleTimeout: '1d', absoluteTimeout: '1d' })).toMatchObject({ idleTimeoutMs: 86_400_000 })
    expect(describeOptions({ absoluteTimeout: '10m' })).toMatchObject({ idleTimeoutMs: 600_000 })
  })
})

describe('a name that does not exist', () => {
  test.each([
    [{ idletimeout: '30m' }, /no option "idletimeout"\. Did you mean idleTimeout\?/],
    [{ idle_timeout: '30m' }, /Did you mean idleTimeout\?/],
    [{ absolutTimeout: '30m' }, /Did you mean absoluteTimeout\?/],
    [{ onStoreErorr: 'fail' }, /Did you mean onStoreError\?/],
    [{ cookie: { samesite: 'lax' } }, /no option cookie\.samesite\. Did you mean sameSite\?/],
    [{ clientContext: { userAgents: true } }, /clientContext\.userAgents\. Did you mean userAgent\?/],
    [{ secrets: [SECRET] }, /Use secret: \[newest, older\]/],
    [{ ttl: 60 }, /Use idleTimeout and absoluteTimeout/],
    [{ secure: true }, /Use cookie: \{ secure \}/],
  ])('%j is told with the one that was meant', (options, message) => {
    expect(() => describeOptions(options)).toThrow(message)
  })

  test('that is like no other gets no guess', () => {
    expect(() => describeOptions({ banana: 1 })).toThrow(/no option "banana"\.$/)
  })

  test('is told by the activity log, too', () => {
    expect(() => new ActivityLog({ sinks: [memorySink()], onfull: 'wait' } as never)).toThrow(/Did you mean onFull\?/)
  })
})

describe('a call that was left out', () => {
  test('app.use(session) says what to write, in one line', async () => {
    const app = express()
    app.use(session as unknown as express.RequestHandler)
    const errors: Error[] = []
    app.use(((error, _req, res, _next) => {
      errors.push(error)
      res.sendStatus(500)
    }) as express.ErrorRequestHandler)
    await (await serve(app)).get('/')
    expect(errors).toMatchObject([
      { code: 'INVALID_OPTION', message: expect.stringContaining('app.use(session({ secret }))') },
    ])
    expect(errors[0]?.message).not.toContain('\n')
  })

  test('so does app.use(manager.middleware)', async () => {
    const manager = new SessionManager({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
    const app = express()
    app.use(manager.middleware as unknown as express.RequestHandler)
    const errors: Error[] = []
    app.use(((error, _req, res, _next) => {
      errors.push(error)
      res.sendStatus(500)
    }) as express.ErrorRequestHandler)
    await (await serve(app)).get('/')
    expect(errors).toMatchObject([{ message: expect.stringContaining('app.use(manager.middleware())') }])
  })
})

describe('a Date.now() that a test puts in place of the real one', () => {
  test('is the clock of sessions, events, activities and the memory store, also when all of them were made before', async () => {
    const log = new ActivityLog({ sinks: [memorySink()] })
    const middleware = session({ secret: SECRET, activity: log })
    const told: number[] = []
    middleware.events.on('created', ({ at }) => told.push(at))
    const app = express()
    app.use(middleware)
    app.get('/', (req, res) => {
      const views = req.session.get('views', 0) as number
      req.session.set('views', views + 1)
      res.json(views)
    })
    const client = await serve(app)
    expect((await client.get('/')).json()).toBe(0)
    expect((await client.get('/')).json()).toBe(1)
    const later = Date.now() + 2 * 3_600_000
    jest.spyOn(Date, 'now').mockReturnValue(later)
    expect((await client.get('/')).json()).toBe(0)
    expect(told.at(-1)).toBe(later)
    // The first one has been forgotten.
    expect((middleware.store as MemorySessionStore).size).toBe(1)
    await log.close()
    await middleware.manager.close()
  })
})
