// The logical ID: one for all requests of a session, kept, replaced at boundaries that can be followed, and no credential.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { sign } from 'cookie-signature'
import { MemorySessionStore, type SessionEvent, type SessionOptions } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { type Answer, Client, listen, SECRET, type TestServer, until } from '../support/http.js'
import { type LogicalApp, logicalApp, peek } from '../support/logical-app.js'
import { startProgram } from '../support/processes.js'
import { sharedRedis } from '../support/redis.js'
import { memoryKit, STORES } from '../support/stores.js'

const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const MINUTE_MS = 60_000

type Boundary = Pick<SessionEvent<'boundary'>, 'id' | 'from' | 'to' | 'cause' | 'userId'>

/** The servers of this test. */
const running: { close(): Promise<void> }[] = []

afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})

/** An app of its own for one test. */
async function start(options: Partial<SessionOptions> = {}): Promise<LogicalApp & { client: Client; url: string }> {
  const app = logicalApp(options)
  const server = await serve(app.app)
  return { ...app, client: new Client(server), url: server.url }
}

async function serve(handler: Parameters<typeof listen>[0]): Promise<TestServer> {
  const server = await listen(handler)
  running.push(server)
  return server
}

/** What a route of the app answered. */
async function ask(
  answer: Promise<Answer>,
): Promise<{ logicalId: string; id: string; before?: string; peeked?: string }> {
  const { status, body } = await answer
  expect({ status, body }).toMatchObject({ status: 200 })
  return JSON.parse(body) as { logicalId: string; id: string }
}

/** The boundaries as steps: `cause: from → to`, with names for the IDs. */
function steps(boundaries: readonly Boundary[], names: Record<string, string | undefined>): string[] {
  const nameOf = (id: string | undefined): string =>
    Object.keys(names).find((name) => names[name] === id) ?? (id === undefined ? '-' : 'unknown')
  return boundaries.map(({ cause, from, to }) => `${cause}: ${nameOf(from)} → ${nameOf(to)}`)
}

function times<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index))
}

describe.each(STORES)('on %s', (_name, kitOf) => {
  const kit = kitOf()
  beforeAll(() => kit.start())
  afterAll(() => kit.stop())
  const begin = (options: Partial<SessionOptions> = {}): ReturnType<typeof start> =>
    start({ store: kit.create(), ...options })

  describe('is kept', () => {
    test('as a UUID v4, the same in the next request, also when nothing else is in the session', async () => {
      const { client, boundaries } = await begin()
      const first = await ask(client.get('/id'))
      expect(first.logicalId).toMatch(UUID_V4)
      expect(first.logicalId).not.toBe(first.id)
      expect(client.cookies.size).toBe(1)
      expect(await ask(client.get('/id'))).toEqual(first)
      expect((await client.get('/fields')).json()).toEqual({})
      expect(steps(boundaries, { first: first.logicalId })).toEqual(['start: - → first'])
      expect(boundaries[0]).toMatchObject({ id: first.id, userId: undefined })
    })

    test('in a session that was there before', async () => {
      const { client, boundaries } = await begin()
      const { id } = await ask(client.post('/set?a=1'))
      const { logicalId } = await ask(client.get('/id'))
      expect(logicalId).toMatch(UUID_V4)
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
      expect((await client.get('/fields')).json()).toEqual({ a: '1' })
      expect(boundaries).toMatchObject([{ id, cause: 'start', from: undefined, to: logicalId }])
    })

    test('through renew(), login() and regenerate({ keep }), asked for before or not', async () => {
      for (const path of ['/renew', '/login', '/regenerate?keep=true', '/regenerate?keep=a']) {
        for (const isAsked of [true, false]) {
          const { client, boundaries } = await begin()
          await ask(client.post('/set?a=1'))
          const { logicalId } = await ask(client.get(isAsked ? '/id' : '/peek'))
          const turned = await ask(client.post(path))
          expect({ path, isAsked, logicalId: turned.logicalId }).toEqual({ path, isAsked, logicalId })
          if (turned.before !== undefined) expect(turned.before).toBe(logicalId)
          expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
          expect(steps(boundaries, { first: logicalId })).toEqual(['start: - → first'])
        }
      }
    })

    test('through a login that creates the session', async () => {
      const { client, boundaries } = await begin()
      const { before, logicalId } = await ask(client.post('/login'))
      expect(logicalId).toBe(before)
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
      expect(boundaries).toMatchObject([{ cause: 'start', to: logicalId, userId: 'ann' }])
    })

    test('through a change of ID before the session is stored', async () => {
      const { app, client } = await begin()
      app.post('/regenerate-unstored', async (req, res) => {
        const before = peek()
        await req.session.regenerate({ keep: true })
        req.session.set('a', 1)
        res.json({ before, logicalId: peek() })
      })
      const { before, logicalId } = await ask(client.post('/regenerate-unstored'))
      expect(logicalId).toBe(before)
      expect(await ask(client.get('/peek'))).toEqual({ logicalId })
    })
  })

  describe('is a new one', () => {
    test('after logout and after regenerate() without keep; a session that follows says which one it follows', async () => {
      for (const path of ['/logout?flash', '/regenerate']) {
        const { client, boundaries } = await begin()
        await ask(client.post('/login'))
        const { logicalId: first } = await ask(client.get('/id'))
        const { logicalId: second } = await ask(client.post(path))
        expect(second).not.toBe(first)
        expect((await ask(client.get('/id'))).logicalId).toBe(second)
        expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'start: first → second'])
      }
    })

    test('after the session expired, and says which one it follows although nobody asks at first', async () => {
      const { client, boundaries, clock } = await begin({ idleTimeout: '5m' })
      const { logicalId: first } = await ask(client.get('/id'))
      clock.advance(6 * MINUTE_MS)
      const { logicalId: second } = await ask(client.post('/set?a=1'))
      expect(second).not.toBe(first)
      expect((await ask(client.get('/id'))).logicalId).toBe(second)
      expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'start: first → second'])
    })

    test('after the session expired and the login regenerates the empty one, as Passport does', async () => {
      const { app, client, boundaries, clock } = await begin({ idleTimeout: '5m' })
      app.post('/passport', async (req, res) => {
        const fresh = await req.session.regenerate()
        fresh.set('passport', { user: 'ann' })
        res.json({ logicalId: peek() })
      })
      const { logicalId: first } = await ask(client.get('/id'))
      clock.advance(6 * MINUTE_MS)
      const { logicalId: second } = await ask(client.post('/passport'))
      expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'start: first → second'])
    })

    test('and the chain of one client can be followed across workflow, logout, expiry and login again', async () => {
      const { client, boundaries, clock, middleware } = await begin({ idleTimeout: '20m', logicalIdTimeout: '10m' })
      const ends: (string | undefined)[] = []
      middleware.events.on('logout', ({ logicalId }) => ends.push(logicalId))
      const { logicalId: a } = await ask(client.get('/id'))
      await ask(client.post('/login'))
      const { logicalId: b } = await ask(client.post('/complete'))
      clock.advance(11 * MINUTE_MS)
      const { logicalId: c } = await ask(client.get('/peek'))
      clock.advance(21 * MINUTE_MS)
      const { logicalId: d } = await ask(client.post('/login'))
      await ask(client.post('/logout'))
      expect(ends).toEqual([d])
      // Without a cookie the user is what both have in common.
      const { logicalId: e } = await ask(client.post('/login'))
      await ask(client.get('/id'))
      expect(steps(boundaries, { a, b, c, d, e })).toEqual([
        'start: - → a',
        'completed: a → b',
        'timeout: b → c',
        'start: c → d',
        'start: - → e',
      ])
      expect(boundaries.slice(1).map(({ userId }) => userId)).toEqual(['ann', 'ann', 'ann', 'ann'])
    })

    test('after restart(), with the fields gone but for the initial ones', async () => {
      let visits = 0
      const { client, boundaries } = await begin({ initialFields: () => ({ theme: 'light', visit: ++visits }) })
      await ask(client.post('/login'))
      await ask(client.post('/set?cart=full&theme=dark'))
      const { logicalId: first, id } = await ask(client.get('/id'))
      const restarted = await ask(client.post('/restart'))
      expect(restarted).toEqual({ id, logicalId: expect.stringMatching(UUID_V4) })
      expect(restarted.logicalId).not.toBe(first)
      expect((await client.get('/fields')).json()).toEqual({ theme: 'light', visit: visits })
      expect((await ask(client.get('/id'))).logicalId).toBe(restarted.logicalId)
      expect(steps(boundaries, { first, second: restarted.logicalId })).toEqual([
        'start: - → first',
        'restart: first → second',
      ])
      expect(boundaries[1]).toMatchObject({ id, userId: 'ann' })
    })

    test('after completeWorkflow(), with the fields as they are, changes of the same request included', async () => {
      const { app, client, boundaries } = await begin()
      app.post('/order', async (req, res) => {
        req.session.set('order', 7)
        res.json({ logicalId: await req.session.completeWorkflow(), now: req.session.logicalId })
      })
      await ask(client.post('/set?cart=full'))
      const { logicalId: first } = await ask(client.get('/id'))
      const answer = await client.post('/order')
      const { logicalId: second, now } = answer.json<{ logicalId: string; now: string }>()
      expect(second).toMatch(UUID_V4)
      expect(now).toBe(second)
      expect((await client.get('/fields')).json()).toEqual({ cart: 'full', order: 7 })
      expect((await ask(client.get('/id'))).logicalId).toBe(second)
      expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'completed: first → second'])
    })

    test.each(['/restart', '/complete'])('after %s in a session that is not stored yet', async (path) => {
      const { client, boundaries } = await begin()
      const { logicalId: second } = await ask(client.post(path))
      expect((await ask(client.get('/id'))).logicalId).toBe(second)
      expect(boundaries).toHaveLength(2)
      expect(boundaries[0]).toMatchObject({ cause: 'start', from: undefined })
      expect(boundaries[1]).toMatchObject({ from: boundaries[0]?.to, to: second })
    })

    test.each(['/restart', '/complete'])('after %s although nobody has asked for the first', async (path) => {
      const { client, boundaries } = await begin()
      await ask(client.post('/set?a=1'))
      const { logicalId: first } = await ask(client.get('/peek'))
      const { logicalId: second } = await ask(client.post(path))
      expect(second).not.toBe(first)
      expect(boundaries).toMatchObject([{ from: first, to: second }])
    })

    test('after logicalIdTimeout, by itself, as soon as a request comes', async () => {
      const { client, boundaries, clock } = await begin({ logicalIdTimeout: '10m' })
      await ask(client.post('/set?a=1'))
      const { logicalId: first } = await ask(client.get('/id'))
      clock.advance(10 * MINUTE_MS - 1)
      await client.get('/plain')
      clock.advance(10 * MINUTE_MS)
      const plain = await client.get('/plain')
      expect(plain.headers['vary']).toBeUndefined()
      const { logicalId: second } = await ask(client.get('/peek'))
      expect(second).toMatch(UUID_V4)
      expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'timeout: first → second'])
      expect((await client.get('/fields')).json()).toEqual({ a: '1' })
    })

    test('after logicalIdTimeout although nobody but a logger has seen the first', async () => {
      const { client, boundaries, clock } = await begin({ logicalIdTimeout: '10m' })
      await ask(client.post('/set?a=1'))
      const { logicalId: first } = await ask(client.get('/peek'))
      clock.advance(10 * MINUTE_MS)
      const { logicalId: second } = await ask(client.get('/id'))
      expect(second).not.toBe(first)
      expect(steps(boundaries, { first, second })).toEqual(['timeout: first → second'])
    })

    test('never while the session is used, even with a touchInterval that is longer than the timeout', async () => {
      const { client, clock, boundaries } = await begin({ logicalIdTimeout: '30s', touchInterval: '5m' })
      const { logicalId } = await ask(client.get('/id'))
      for (let step = 0; step < 4; step++) {
        clock.advance(20_000)
        expect((await ask(client.get('/peek'))).logicalId).toBe(logicalId)
      }
      expect(boundaries).toHaveLength(1)
    })

    test('not by passive requests: they see the old one and leave the end to the next active one', async () => {
      const { client, clock, boundaries } = await begin({ logicalIdTimeout: '10m', passivePaths: ['/peek', '/plain'] })
      const { logicalId: first } = await ask(client.get('/id'))
      clock.advance(11 * MINUTE_MS)
      await client.get('/plain')
      expect(await ask(client.get('/peek'))).toEqual({ logicalId: first })
      expect(boundaries).toHaveLength(1)
      const { logicalId: second } = await ask(client.get('/id'))
      expect(steps(boundaries, { first, second })).toEqual(['start: - → first', 'timeout: first → second'])
    })

    test('not by a clock that is set back', async () => {
      const { client, clock, boundaries } = await begin({ logicalIdTimeout: '10m' })
      const { logicalId } = await ask(client.get('/id'))
      clock.advance(-60 * MINUTE_MS)
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
      expect(boundaries).toHaveLength(1)
    })

    test.each(['/restart', '/complete', '/login', '/regenerate', '/update', '/set?b=2', '/renew'])(
      'by %s of a request that comes after the timeout: the chain has every link',
      async (path) => {
        const { client, clock, boundaries } = await begin({ logicalIdTimeout: '10m' })
        const { logicalId: first } = await ask(client.get('/id'))
        clock.advance(11 * MINUTE_MS)
        await ask(client.post(path))
        const { logicalId: last } = await ask(client.get('/id'))
        const links = boundaries.map(({ from, to }) => [from, to])
        for (const [index, [from]] of links.entries()) expect(from).toBe(links[index - 1]?.[1])
        expect(links[1]?.[0]).toBe(first)
        expect(links.at(-1)?.[1]).toBe(last)
      },
    )
  })
})

describe.each([
  ['memory, one process', memoryPlace],
  ['Redis, two processes', redisPlace],
] as const)('20 parallel requests on %s', (_name, startPlace) => {
  let place: Place
  beforeAll(async () => {
    place = await startPlace({ logicalIdTimeout: '10m' })
  })
  afterAll(() => place.stop())

  /** A stored session, and 20 clients of it, spread over the processes. */
  async function crowd(isAsked: boolean): Promise<{ first: string; id: string; clients: Client[] }> {
    const client = place.client(0)
    const { id } = await ask(client.post('/set?a=1'))
    const { logicalId: first } = await ask(client.get(isAsked ? '/id' : '/peek'))
    return { first, id, clients: times(20, (index) => place.client(index, client.cookies)) }
  }

  /** All of them have loaded the session before the first goes on. */
  async function together(
    clients: readonly Client[],
    path: (index: number) => string,
  ): Promise<Awaited<ReturnType<typeof ask>>[]> {
    const requests = clients.map((client, index) => {
      const target = path(index)
      const method = /^\/(id|peek|plain)/.test(target) ? 'GET' : 'POST'
      return client.request(method, `${target}${target.includes('?') ? '&' : '?'}wait`)
    })
    await place.letGo(clients.length / place.size)
    return Promise.all(requests.map(ask))
  }

  const boundariesOf = async (id: string): Promise<Boundary[]> =>
    (await place.boundaries()).filter((boundary) => boundary.id === id)

  test('that ask first get the same ID, then and later, and one start is told', async () => {
    const { first, id, clients } = await crowd(false)
    const answers = await together(clients, () => '/id')
    expect(new Set(answers.map(({ logicalId }) => logicalId))).toEqual(new Set([first]))
    const later = await Promise.all(clients.map((client) => ask(client.get('/id'))))
    expect(new Set(later.map(({ logicalId }) => logicalId))).toEqual(new Set([first]))
    expect(await boundariesOf(id)).toEqual([expect.objectContaining({ cause: 'start', to: first })])
  })

  test('after the timeout go on with one new ID, and one boundary is told; field changes all survive', async () => {
    const { first, id, clients } = await crowd(true)
    await place.advance(11 * MINUTE_MS)
    const kinds = ['/id', '/set?f', '/peek', '/update']
    const answers = await together(clients, (index) => {
      const kind = kinds[index % kinds.length] as string
      return kind === '/set?f' ? `/set?f${index}=x` : kind
    })
    const ids = new Set(answers.map(({ logicalId }) => logicalId))
    expect(ids.size).toBe(1)
    expect(ids).not.toContain(first)
    const [second] = ids
    expect((await ask(place.client(1, clients[0]?.cookies).get('/id'))).logicalId).toBe(second)
    expect((await boundariesOf(id)).filter(({ cause }) => cause === 'timeout')).toMatchObject([
      { from: first, to: second },
    ])
    const { n, ...fields } = (await (clients[0] as Client).get('/fields')).json()
    expect(n).toBe(5)
    expect(fields).toEqual({
      a: '1',
      ...Object.fromEntries(times(5, (index) => [`f${index * 4 + 1}`, 'x'])),
    })
  })

  test('that complete one workflow complete it once, and all name the one that follows', async () => {
    const { first, id, clients } = await crowd(true)
    const answers = await together(clients, () => '/complete')
    const ids = new Set(answers.flatMap(({ logicalId, peeked }) => [logicalId, peeked]))
    expect(ids.size).toBe(1)
    const [second] = ids
    expect((await boundariesOf(id)).filter(({ cause }) => cause === 'completed')).toMatchObject([
      { from: first, to: second },
    ])
  })

  test('that complete a workflow while others ask for its ID for the first time end it all the same', async () => {
    const { first, id, clients } = await crowd(false)
    const answers = await together(clients, (index) => (index % 2 === 0 ? '/id' : '/complete'))
    const { logicalId: last } = await ask((clients[0] as Client).get('/id'))
    expect(last).not.toBe(first)
    for (const [index, { logicalId }] of answers.entries()) expect(logicalId).toBe(index % 2 === 0 ? first : last)
    expect((await boundariesOf(id)).filter(({ cause }) => cause === 'completed')).toMatchObject([
      { from: first, to: last },
    ])
  })

  test.each([true, false])(
    'that restart do so one after the other: the boundaries are one chain (fields: %s)',
    async (hasFields) => {
      const { first, id, clients } = await crowd(true)
      if (!hasFields) await ask((clients[0] as Client).post('/restart'))
      const from = (await ask((clients[0] as Client).get('/id'))).logicalId
      const answers = await together(clients, () => '/restart')
      expect(new Set(answers.map(({ logicalId }) => logicalId)).size).toBe(20)
      const { logicalId: last } = await ask((clients[0] as Client).get('/id'))
      const links = new Map(
        (await boundariesOf(id)).filter(({ cause }) => cause === 'restart').map((each) => [each.from, each.to]),
      )
      expect(hasFields).toBe(from === first)
      let at = from
      const seen: string[] = []
      for (let next = links.get(at); next !== undefined; next = links.get(at)) {
        seen.push(next)
        at = next
      }
      expect(at).toBe(last)
      expect(seen.toSorted()).toEqual(answers.map(({ logicalId }) => logicalId).toSorted())
    },
  )
})

describe('when it cannot be kept', () => {
  test('it is there all the same after the response, and the next request sees the one of its session', async () => {
    const { app, client } = await start({ store: memoryKit().create() })
    let late: string | undefined
    app.get('/late', (req, res) => {
      res.on('close', () => {
        late = req.session.logicalId
      })
      res.json({ id: req.session.id })
    })
    // Without a session there is nothing to keep it in.
    const { cookies } = client
    await client.get('/late')
    await until(() => late !== undefined)
    expect(late).toMatch(UUID_V4)
    expect(cookies.size).toBe(0)

    await ask(client.post('/set?a=1'))
    late = undefined
    await client.get('/late')
    await until(() => late !== undefined)
    expect((await ask(client.get('/id'))).logicalId).toBe(late)
  })

  test('it is there in a new session whose headers are out, or whose connection is not secure', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const { app, client, middleware } = await start({ store })
    const told: string[] = []
    middleware.events.on('lateChange', ({ reason }) => told.push(reason))
    app.get('/headers-sent', (req, res) => {
      res.write(' ')
      res.end(JSON.stringify({ logicalId: req.session.logicalId, again: req.session.logicalId }))
    })
    const { logicalId, again } = (await client.get('/headers-sent')).json()
    expect(logicalId).toMatch(UUID_V4)
    expect(again).toBe(logicalId)

    const secure = await start({ store, cookie: { secure: true } })
    expect((await ask(secure.client.get('/id'))).logicalId).toMatch(UUID_V4)
    expect(store.calls.create).toBe(0)
    expect(told).toEqual([])
  })

  test('restart() and completeWorkflow() of a session that cannot begin any more say so', async () => {
    const { app, client } = await start({ store: memoryKit().create() })
    app.post('/too-late', async (req, res) => {
      res.write(' ')
      const codes = []
      for (const task of [() => req.session.restart(), () => req.session.completeWorkflow()]) {
        codes.push(
          await task().then(
            () => 'done',
            (error: { code: string }) => error.code,
          ),
        )
      }
      res.end(JSON.stringify(codes))
    })
    expect((await client.post('/too-late')).json()).toEqual(['HEADERS_SENT', 'HEADERS_SENT'])
  })

  test('a streamed response keeps it in a session that is stored already', async () => {
    const { app, client, boundaries } = await start({ store: memoryKit().create() })
    app.get('/stream', (req, res) => {
      res.write(' ')
      res.end(JSON.stringify({ logicalId: req.session.logicalId }))
    })
    await ask(client.post('/set?a=1'))
    const { logicalId } = (await client.get('/stream')).json()
    expect(boundaries).toMatchObject([{ to: logicalId }])
  })

  test('with commit: "after-response" it is the same in the next request, too', async () => {
    for (const path of ['/id', '/complete', '/restart']) {
      const { client, boundaries } = await start({ store: memoryKit().create(), commit: 'after-response' })
      const { logicalId } = await ask(path === '/id' ? client.get(path) : client.post(path))
      await until(() => boundaries.length > 0)
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
    }
  })

  test('with the store out of reach, public pages have one that nothing is kept of', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const { client, boundaries, middleware } = await start({ store, onStoreError: 'anonymous' })
    middleware.events.on('storeError', () => {})
    await ask(client.post('/set?a=1'))
    store.fail({ kind: 'error', operations: ['get'] })
    expect((await ask(client.get('/id'))).logicalId).toMatch(UUID_V4)
    expect(boundaries).toEqual([])
  })
})

describe('when the store fails', () => {
  async function faulty(
    options: Partial<SessionOptions> = {},
  ): Promise<Awaited<ReturnType<typeof start>> & { store: FaultyStore }> {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const started = await start({ store, ...options })
    started.middleware.events.on('storeError', () => {})
    return { ...started, store }
  }

  test('a first ID whose session was not stored is told of nowhere', async () => {
    const { client, boundaries, store } = await faulty()
    store.fail({ kind: 'error', operations: ['create'] })
    expect((await client.get('/id')).status).toBe(503)
    expect(boundaries).toEqual([])
    expect(client.cookies.size).toBe(0)
  })

  test.each(['/restart', '/complete'])(
    '%s that was not stored is an error, and changes and tells nothing',
    async (path) => {
      const { client, boundaries, store } = await faulty()
      await ask(client.post('/set?a=1'))
      const { logicalId } = await ask(client.get('/id'))
      store.fail({ kind: 'error', operations: ['update'] })
      expect((await client.post(path)).status).toBe(503)
      store.repair()
      expect(boundaries).toHaveLength(1)
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
      expect((await client.get('/fields')).json()).toEqual({ a: '1' })
    },
  )

  test('a restart() that failed and was caught leaves fields and ID as they were', async () => {
    const { app, client, boundaries, store } = await faulty()
    app.post('/try', async (req, res) => {
      store.fail({ kind: 'error', operations: ['update'], times: 1 })
      await req.session.restart().catch(() => {})
      res.json({ logicalId: req.session.logicalId })
    })
    await ask(client.post('/set?a=1'))
    const { logicalId } = await ask(client.get('/id'))
    expect((await ask(client.post('/try'))).logicalId).toBe(logicalId)
    expect((await client.get('/fields')).json()).toEqual({ a: '1' })
    expect(boundaries).toHaveLength(1)
  })

  test('a request that changed nothing is answered although its logical ID could not be kept; the next one has the same', async () => {
    for (const isTimedOut of [true, false]) {
      const { client, boundaries, store, clock } = await faulty({ logicalIdTimeout: '10m', idleTimeout: '1h' })
      await ask(client.post('/set?a=1'))
      if (isTimedOut) {
        await ask(client.get('/id'))
        clock.advance(11 * MINUTE_MS)
      }
      const told = boundaries.length
      store.fail({ kind: 'error', operations: ['update'] })
      const { logicalId } = await ask(client.get('/id'))
      expect(boundaries).toHaveLength(told)
      store.repair()
      expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
      expect(boundaries.slice(told)).toMatchObject([{ to: logicalId }])
    }
  })

  test('a request under way while the session is logged out elsewhere is answered, and brings nothing back', async () => {
    const { app, client, boundaries } = await faulty()
    const { logicalId, id } = await ask(client.post('/set?a=1'))
    app.get('/slow', async (req, res) => {
      const asked = req.session.logicalId
      await client.clone().post('/logout')
      res.json({ logicalId: asked, id: req.session.id })
    })
    expect(await ask(client.get('/slow'))).toEqual({ logicalId, id })
    expect(boundaries).toEqual([])
    expect((await client.get('/fields')).json()).toEqual({})
  })

  test('an ID whose reply was lost is found again by the next request', async () => {
    const { client, store } = await faulty()
    await ask(client.post('/set?a=1'))
    await ask(client.get('/id'))
    store.fail({ kind: 'lost-reply', operations: ['update'], times: 1 })
    expect((await client.post('/complete')).status).toBe(503)
    const { logicalId } = await ask(client.get('/id'))
    expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
  })
})

describe('operations of one request', () => {
  test('reload() goes by what other requests did, and tells no boundary that they told', async () => {
    const { app, client, boundaries, clock } = await start({ store: memoryKit().create(), logicalIdTimeout: '10m' })
    app.get('/reload', async (req, res) => {
      const mine = peek()
      const { logicalId: theirs } = await ask(client.clone().get('/id'))
      await ask(client.clone().post('/complete'))
      await req.session.reload()
      res.json({ mine, theirs, logicalId: peek() })
    })
    const { logicalId: first } = await ask(client.get('/id'))
    clock.advance(11 * MINUTE_MS)
    const { mine, theirs, logicalId: last } = (await client.get('/reload')).json<Record<string, string>>()
    expect(mine).toBe(theirs)
    expect((await ask(client.get('/id'))).logicalId).toBe(last)
    expect(steps(boundaries, { first, mine, last })).toEqual([
      'start: - → first',
      'timeout: first → mine',
      'completed: mine → last',
    ])
  })

  test('a touch() or update() that moves the last access keeps the new ID first, so that others see it', async () => {
    for (const action of ['touch', 'update'] as const) {
      const { app, client, clock } = await start({ store: memoryKit().create(), logicalIdTimeout: '10m' })
      app.get('/act', async (req, res) => {
        if (action === 'touch') await req.session.touch()
        else await req.session.update('n', () => 1)
        const other = await ask(client.clone().get('/peek'))
        res.json({ mine: req.session.logicalId, theirs: other.logicalId })
      })
      await ask(client.get('/id'))
      clock.advance(11 * MINUTE_MS)
      const { mine, theirs } = (await client.get('/act')).json()
      expect({ action, theirs }).toEqual({ action, theirs: mine })
    }
  })

  test('a login of a request that saw the timeout tells nothing that another request has told', async () => {
    const { app, client, boundaries, clock } = await start({ store: memoryKit().create(), logicalIdTimeout: '10m' })
    app.post('/slow-login', async (req, res) => {
      await ask(client.clone().get('/peek'))
      await req.session.login('ann')
      res.json({ logicalId: peek(), id: req.session.id })
    })
    // Nobody has asked for it, so the session does not hold it yet.
    await ask(client.post('/set?a=1'))
    const { logicalId: first } = await ask(client.get('/peek'))
    clock.advance(11 * MINUTE_MS)
    const { logicalId: second } = await ask(client.post('/slow-login'))
    expect((await ask(client.get('/id'))).logicalId).toBe(second)
    expect(steps(boundaries, { first, second })).toEqual(['timeout: first → second'])
  })

  test('two workflows that one request completes are two', async () => {
    const { app, client, boundaries } = await start({ store: memoryKit().create() })
    app.post('/twice', async (req, res) => {
      const [first, second] = await Promise.all([req.session.completeWorkflow(), req.session.completeWorkflow()])
      res.json({ first, second, logicalId: req.session.logicalId })
    })
    await ask(client.get('/id'))
    const { first, second, logicalId } = (await client.post('/twice')).json<Record<string, string>>()
    expect(first).not.toBe(second)
    expect(logicalId).toBe(second)
    expect(steps(boundaries.slice(1), { start: boundaries[0]?.to, first, second })).toEqual([
      'completed: start → first',
      'completed: first → second',
    ])
  })
})

describe('a logger that peeks', () => {
  test('creates no session, sets no Vary and makes no store call, and sees what would be kept', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const { client, boundaries } = await start({ store })
    const stranger = await client.get('/peek')
    expect(stranger.json()).toEqual({ logicalId: expect.stringMatching(UUID_V4) })
    expect(stranger.setCookies).toEqual([])
    expect(stranger.headers['vary']).toBeUndefined()
    expect(store.totalCalls).toBe(0)

    await ask(client.post('/set?a=1'))
    const before = store.totalCalls
    const guest = await client.get('/peek')
    expect(guest.headers['vary']).toBeUndefined()
    expect(store.totalCalls).toBe(before + 1)
    expect(boundaries).toEqual([])
    expect((await ask(client.get('/id'))).logicalId).toBe(guest.json()['logicalId'])
  })
})

describe('is no credential', () => {
  test('as the value of a cookie, signed or not, with the token or without', async () => {
    const { client, url } = await start({ store: memoryKit().create() })
    await ask(client.post('/login'))
    const { logicalId, id } = await ask(client.get('/id'))
    const [[name = '', cookie = ''] = []] = client.cookies
    const [, token = ''] = decodeURIComponent(cookie).split('.')
    // Base64 without what a cookie would have to escape.
    const signed = (value: string): string =>
      sign(`${name}=${value}`, SECRET)
        .slice(name.length + 1)
        .replaceAll('+', '-')
        .replaceAll('/', '_')
    expect(cookie).toBe(signed(`${id}.${token}`))
    const forged = [
      logicalId,
      signed(logicalId),
      signed(`${logicalId}.${logicalId}`),
      signed(`${logicalId}.${token}`),
      signed(`${id}.${logicalId}`),
    ]
    for (const value of forged) {
      const answer = await new Client(url, [[name, value]]).get('/id')
      expect(answer.json()['id']).not.toBe(id)
      expect(answer.json()['logicalId']).not.toBe(logicalId)
    }
    expect(cookie).not.toContain(logicalId)
  })

  test('for the manager, which finds nothing by it', async () => {
    const store = memoryKit().create()
    const { client, middleware } = await start({ store })
    await ask(client.post('/login'))
    const { logicalId, id } = await ask(client.get('/id'))
    const { manager } = middleware
    expect(await manager.get(id)).not.toBeNull()
    expect(await manager.get(logicalId)).toBeNull()
    expect(await store.get(logicalId)).toBeNull()
    expect(await manager.revoke(logicalId)).toBe(false)
    expect((await ask(client.get('/id'))).logicalId).toBe(logicalId)
  })
})

interface Place {
  readonly size: number
  client(index: number, cookies?: Iterable<readonly [string, string]>): Client
  advance(ms: number): Promise<void>
  /** Lets waiting requests go on once so many wait in each process. */
  letGo(perProcess: number): Promise<void>
  /** Those of one process after those of the other. */
  boundaries(): Promise<Boundary[]>
  stop(): Promise<void>
}

async function memoryPlace(options: Partial<SessionOptions>): Promise<Place> {
  const server = await listen(logicalApp({ store: memoryKit().create(), ...options }).app)
  return placeOf([server.url], () => server.close())
}

async function redisPlace(options: Partial<SessionOptions>): Promise<Place> {
  const redis = await sharedRedis()
  const args = [redis.url, `logical-${process.pid}:`, JSON.stringify(options)]
  const programs = await Promise.all(times(2, () => startProgram('tests/support/logical-process.ts', args)))
  return placeOf(
    programs.map(({ url }) => url),
    async () => {
      await Promise.all(programs.map((program) => program.stop()))
      await redis.stop()
    },
  )
}

function placeOf(urls: readonly string[], stop: () => Promise<void>): Place {
  const clients = urls.map((url) => new Client(url))
  return {
    size: urls.length,
    client: (index, cookies) => new Client(urls[index % urls.length] as string, cookies),
    async advance(ms) {
      await Promise.all(clients.map((client) => client.post(`/advance?ms=${ms}`)))
    },
    async letGo(perProcess) {
      await Promise.all(clients.map((client) => client.get(`/waiting?n=${perProcess}`)))
      await Promise.all(clients.map((client) => client.post('/go')))
    },
    async boundaries() {
      const told = await Promise.all(
        clients.map(async (client) => (await client.get('/boundaries')).json<Boundary[]>()),
      )
      return told.flat()
    },
    stop,
  }
}
