// The contract over HTTP: no lost updates, ended stays ended, regenerating is atomic, acknowledged means stored.
import { once } from 'node:events'
import { request } from 'node:http'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import type { NextFunction, Request, Response } from 'express'
import { type EndReason, isSessionError, type SessionData, type SessionError, type SessionMiddleware } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { FaultyStore, type StoreFault } from 'sojourn/testing'
import { testApp } from '../support/app.js'
import { type Answer, Client, listen, type TestServer, until } from '../support/http.js'
import type { Program } from '../support/processes.js'
import { RedisServer, sharedRedis } from '../support/redis.js'
import { lookAt, SITES, type Site, startApps } from '../support/sites.js'
import { STORES, type StoreKit } from '../support/stores.js'

interface Peeked {
  id: string
  fields: Record<string, unknown>
  userId: string | null
}

async function peek(client: Client): Promise<Peeked> {
  const answer = await client.get('/peek')
  expect(answer.status).toBe(200)
  return answer.json<Peeked>()
}

/** A client whose session holds `kept`. */
async function begun(client: Client, kept = '1'): Promise<{ client: Client; id: string }> {
  const answer = await client.post(`/set?kept=${kept}`)
  expect(answer.status).toBe(200)
  return { client, id: answer.json<{ id: string }>().id }
}

/** The IDs of the live sessions that `id` has become: those of its first digits that hold the same `kept`. */
async function heirs(site: Pick<Site, 'store' | 'liveIds'>, id: string, kept: string): Promise<string[]> {
  const found: string[] = []
  for (const each of await site.liveIds(id.slice(0, 4))) {
    const record = await site.store.get(each)
    if (record?.fields.get('kept') === JSON.stringify(kept)) found.push(each)
  }
  return found
}

/** How a session ended, and how many fields are left of it; `null` for one that is not over. */
function overOf(record: SessionData | null): { reason: EndReason; fields: number } | null {
  return record?.ended ? { reason: record.ended.reason, fields: record.fields.size } : null
}

function range<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_unused, index) => make(index))
}

describe.each(SITES)('%s', (_name, start) => {
  let site: Site
  beforeAll(async () => {
    site = await start()
  })
  afterAll(() => site.stop())

  /** The `index`th process, as the same browser. */
  const elsewhere = (client: Client, index: number): Client => site.client(index, client.cookies)

  test('100 parallel requests that each set another field leave 100 fields', async () => {
    const { client } = await begun(site.client())
    const answers = await Promise.all(range(100, (index) => elsewhere(client, index).post(`/set?f${index}=${index}`)))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(100)
    const { fields } = await peek(client)
    expect(fields).toEqual({ kept: '1', ...Object.fromEntries(range(100, (index) => [`f${index}`, `${index}`])) })
  })

  test('100 parallel update() of one field count to 100', async () => {
    const { client } = await begun(site.client())
    const answers = await Promise.all(range(100, (index) => elsewhere(client, index).post('/update')))
    expect(answers.map(({ body }) => Number(body)).sort((a, b) => a - b)).toEqual(range(100, (index) => index + 1))
    expect((await peek(client)).fields).toEqual({ kept: '1', n: 100 })
  })

  test('of two requests that write one field the later writer wins, and other fields stay', async () => {
    const { client, id } = await begun(site.client())
    const gate = `later-${id}`
    const later = client.clone().post(`/slow/write?name=v&value=later&gate=${gate}`)
    await site.arrived(0, gate)
    expect((await elsewhere(client, 1).post('/set?v=earlier&other=1')).status).toBe(200)
    await site.open(0, gate)
    expect((await later).status).toBe(200)
    expect((await peek(client)).fields).toEqual({ kept: '1', v: 'later', other: '1' })
  })

  test.each(['/login', '/regenerate?keep=true'])('the old cookie is dead when %s answers', async (path) => {
    const { client, id } = await begun(site.client(), path)
    const old = client.clone()
    const answer = await client.post(path)
    expect(answer.status).toBe(200)
    expect(overOf(await site.store.get(id))).toEqual({ reason: 'regenerated', fields: 0 })
    for (const index of [0, 1]) {
      expect((await peek(elsewhere(old, index))).fields).toEqual({})
      expect((await peek(elsewhere(client, index))).fields).toEqual({ kept: path })
    }
    expect(await heirs(site, id, path)).toEqual([answer.json<{ id: string }>().id])
  })

  test('of 20 parallel logins of one session each is answered with success, and one session is left', async () => {
    const { client, id } = await begun(site.client(), 'crowd')
    const clients = range(20, (index) => elsewhere(client, index))
    const logins = clients.map((each, index) => each.post(`/slow/login?gate=crowd-${id}-${index}`))
    // All have loaded the session before the first goes on: who comes later would log in to a session of its own.
    await Promise.all(clients.map((_each, index) => site.arrived(index, `crowd-${id}-${index}`)))
    await Promise.all(clients.map((_each, index) => site.open(index, `crowd-${id}-${index}`)))
    const statuses = (await Promise.all(logins)).map(({ status }) => status)
    expect(statuses).toEqual(range(20, () => 200))
    expect(await heirs(site, id, 'crowd')).toHaveLength(1)
  })

  test('200 random interleavings: a slow request never brings back what another one ended', async () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
    const random = randomFrom(seed)
    const rounds = range(200, (number) => ({
      number,
      gate: `race-${seed}-${number}`,
      ending: pick(random, ['logout', 'destroy', 'regenerate?keep=true', 'login']),
      action: pick(random, ['write', 'touch', 'renew', 'regenerate', 'login', 'update']),
      isAfter: random() < 0.5,
      endsAfterMs: random() * 3,
      actsAfterMs: random() * 3,
    }))
    try {
      for (let first = 0; first < rounds.length; first += 10) {
        await Promise.all(rounds.slice(first, first + 10).map(race))
      }
    } catch (error) {
      throw new Error(`With SEED=${seed}: ${(error as Error).message}`, { cause: error })
    }
  })

  interface Round {
    number: number
    gate: string
    ending: 'logout' | 'destroy' | 'regenerate?keep=true' | 'login'
    action: 'write' | 'touch' | 'renew' | 'regenerate' | 'login' | 'update'
    /** Whether the slow request goes on only when the ending has been answered, or at about the same time. */
    isAfter: boolean
    endsAfterMs: number
    actsAfterMs: number
  }

  async function race(round: Round): Promise<void> {
    const { number, gate, ending, action, isAfter } = round
    const { client, id } = await begun(site.client(number), gate)
    const old = client.clone()
    const slow = client.clone().post(`/slow/${action}?gate=${gate}`)
    await site.arrived(number, gate)
    const end = (): Promise<Answer> => elsewhere(old, number + 1).post(`/${ending}`)
    if (isAfter) {
      expect((await end()).status).toBe(200)
      await site.open(number, gate)
    } else {
      await Promise.all([later(round.endsAfterMs, end), later(round.actsAfterMs, () => site.open(number, gate))])
    }
    const slowAnswer = await slow

    const made = reasonOf(action)
    const over = overOf(await site.store.get(id))
    const left = (await heirs(site, id, gate)).length
    const makesSuccessor = ending === 'regenerate?keep=true' || ending === 'login'
    // A login over a session that went on is one over its successor, or beside it when that is somebody else's.
    const goesOn = action === 'login' && makesSuccessor
    const outcome = {
      round,
      slow: isAfter || slowAnswer.status !== 200 ? slowAnswer.status : 'either',
      cookies: slowAnswer.status === 200 ? 'either' : slowAnswer.setCookies.length,
      over,
      fields: [(await peek(elsewhere(old, 0))).fields, (await peek(elsewhere(old, 1))).fields],
      left,
    }
    const slowMadeOne = slowAnswer.status === 200 && made !== undefined
    // A slow request that was quicker has ended the session itself.
    const isSlowFirst = !isAfter && slowMadeOne && over?.reason === made
    // A logout ends what the session has become, if it had found it before that, and nothing if it came after.
    const isEither = isSlowFirst && !makesSuccessor && left === 0
    expect(outcome).toEqual({
      round,
      slow: isAfter || slowAnswer.status !== 200 ? (goesOn ? 200 : 409) : 'either',
      cookies: slowAnswer.status === 200 ? 'either' : 0,
      over: { reason: isSlowFirst ? made : reasonOf(ending), fields: 0 },
      fields: [{}, {}],
      left: isEither ? 0 : makesSuccessor || slowMadeOne ? 1 : 0,
    })
  }
})

/** How a session is over after a request, if that ends it. */
function reasonOf(path: string): EndReason | undefined {
  switch (path) {
    case 'logout':
      return 'logout'
    case 'destroy':
      return 'destroyed'
    case 'login':
    case 'regenerate':
    case 'regenerate?keep=true':
      return 'regenerated'
    default:
      return undefined
  }
}

/** Runs `action` after so many milliseconds: the races need different distances. */
async function later<T>(ms: number, action: () => Promise<T>): Promise<T> {
  await new Promise((resolve) => setTimeout(resolve, ms))
  return action()
}

/** Mulberry32: the same numbers for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function pick<const T>(random: () => number, values: readonly T[]): T {
  return values[Math.floor(random() * values.length)] as T
}

describe('at every instant on Redis', () => {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let look: ReturnType<typeof lookAt>
  let server: TestServer
  beforeAll(async () => {
    redis = await sharedRedis()
    look = lookAt(redis.url)
    server = await listen(testApp({ store: look.store }).app)
  })
  afterAll(async () => {
    await server.close()
    await look.close()
    await redis.stop()
  })

  test.each(['/regenerate?keep=true', '/regenerate', '/login'])(
    'exactly one session is live while %s runs 50 times',
    async (path) => {
      const { client, id } = await begun(new Client(server))
      let isOver = false
      const counts: unknown[] = []
      const observer = (async () => {
        while (!isOver) counts.push(await look.countAtOnce(id.slice(0, 4)))
      })()
      for (let round = 0; round < 50; round++) expect((await client.post(path)).status).toBe(200)
      isOver = true
      await observer
      expect(counts.length).toBeGreaterThan(50)
      expect([...new Set(counts)]).toEqual([1])
    },
  )
})

describe('when the process is killed', () => {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let look: ReturnType<typeof lookAt>
  let programs: Program[] = []
  beforeAll(async () => {
    redis = await sharedRedis()
    look = lookAt(redis.url)
  })
  afterEach(() => {
    for (const program of programs) program.process.kill('SIGKILL')
  })
  afterAll(async () => {
    await look.close()
    await redis.stop()
  })

  test('while it regenerates, each session is left exactly once', async () => {
    programs = await startApps(2, redis.url, look.prefix)
    for (const [number, program] of programs.entries()) {
      const sessions = await Promise.all(range(10, (index) => begun(new Client(program.url), `${number}-${index}`)))
      let answered = 0
      const loops = sessions.map(async ({ client }) => {
        while (program.process.signalCode === null) {
          await client.post(answered % 2 === 0 ? '/regenerate?keep=true' : '/login')
          answered++
          if (answered === 100 + 37 * number) program.process.kill('SIGKILL')
        }
      })
      await Promise.allSettled(loops)
      if (program.process.signalCode === null) await once(program.process, 'exit')
      for (const [index, { id }] of sessions.entries()) {
        expect(await heirs(look, id, `${number}-${index}`)).toHaveLength(1)
      }
    }
  })

  test('right after the head of an answer, what was answered is stored', async () => {
    programs = await startApps(3, redis.url, look.prefix)
    for (const program of programs) {
      const { client, id } = await begun(new Client(program.url))
      const answered: string[] = []
      let left = 40
      const heads = range(left, (index) => {
        const name = `f${index}`
        return new Promise<void>((resolve) => {
          const options = { method: 'POST', headers: { cookie: client.cookieHeader }, agent: false }
          const req = request(`${program.url}/set?${name}=1`, options, (res) => {
            if (res.statusCode === 200) answered.push(name)
            // In the middle of the crowd: some are answered, some are stored, some have only begun.
            left--
            if (left === 30) program.process.kill('SIGKILL')
            res.resume().on('error', () => {})
            resolve()
          })
          req.on('error', () => resolve())
          req.end()
        })
      })
      await Promise.all(heads)
      if (program.process.signalCode === null) await once(program.process, 'exit')
      expect(answered.length).toBeGreaterThanOrEqual(10)
      const stored = await look.store.get(id)
      expect([...(stored?.fields.keys() ?? [])]).toEqual(expect.arrayContaining(answered))
    }
  })

  test('right after a first answer, a cookie that was sent opens its session', async () => {
    programs = await startApps(2, redis.url, look.prefix)
    const [program, next] = programs as [Program, Program]
    const { client } = await begun(new Client(program.url))
    program.process.kill('SIGKILL')
    expect((await peek(new Client(next.url, client.cookies))).fields).toEqual({ kept: '1' })
  })
})

/** An app on a store, and the errors that reach its error handlers. */
async function appOn(
  store: FaultyStore | RedisSessionStore,
  storeTimeout = '10s',
): Promise<{
  server: TestServer
  middleware: SessionMiddleware
  errors: SessionError[]
}> {
  const errors: SessionError[] = []
  const { app, middleware } = testApp({ store, storeTimeout, touchInterval: 0 })
  middleware.events.on('storeError', () => {})
  app.post('/revoke-others', async (req, res) => {
    const { userId = '' } = req.session.metadata
    res.json(await middleware.manager.revokeUser(userId, { except: req.session }))
  })
  app.use((error: SessionError, _req: Request, _res: Response, next: NextFunction) => {
    errors.push(error)
    next(error)
  })
  return { server: await listen(app), middleware, errors }
}

/** What an answer must be when the store could not do its part. */
function expectFailure(answer: Answer): void {
  expect({
    status: answer.status,
    setCookies: answer.setCookies,
    retryAfter: answer.headers['retry-after'],
    location: answer.headers['location'],
    type: answer.headers['content-type'],
  }).toEqual({ status: 503, setCookies: [], retryAfter: '1', location: undefined, type: 'text/html; charset=utf-8' })
}

const WRITES = [
  ['a new session', '/set?a=1', false],
  ['a first login', '/login', false],
  ['a changed session', '/set?a=1', true],
  ['a redirect after a change', '/redirect?value=1', true],
  ['update()', '/update', true],
  ['renew()', '/renew', true],
  ['regenerate()', '/regenerate', true],
  ['regenerate({ keep: true })', '/regenerate?keep=true', true],
  ['login()', '/login', true],
  ['logout()', '/logout', true],
  ['destroy()', '/destroy', true],
] as const

const WRITING = ['create', 'update', 'regenerate', 'end'] as const
const FAULTS: readonly (readonly [string, StoreFault, SessionError['code']])[] = [
  ['fails', { kind: 'error', operations: WRITING, error: new Error('disk full') }, 'STORE_UNAVAILABLE'],
  ['does it and fails', { kind: 'lost-reply', operations: WRITING, error: new Error('reset') }, 'STORE_UNAVAILABLE'],
  ['misses the deadline', { kind: 'hang', operations: WRITING }, 'STORE_TIMEOUT'],
]

describe.each(STORES)('two requests on one session in %s', (_name, createKit) => {
  test('lose no update() when one of them has read the field before and stored another since', async () => {
    const kit = createKit()
    await kit.start()
    const { app, middleware } = testApp({ store: kit.create() })
    const { manager } = middleware
    app.post('/mixed', async (req: Request, res: Response) => {
      expect(req.session.get('n')).toBe(1)
      await manager.update(req.session.id, { n: 2 })
      req.session.set('other', true)
      await req.session.save()
      await req.session.update('n', (n) => Number(n) + 1)
      res.json({})
    })
    const server = await listen(app)
    const client = new Client(server)
    await client.post('/update')
    expect((await client.post('/mixed')).status).toBe(200)
    expect((await peek(client)).fields).toEqual({ n: 3, other: true })
    await server.close()
    await kit.stop()
  })
})

describe.each(STORES)('a commit to %s', (_name, createKit) => {
  let kit: StoreKit
  let store: FaultyStore
  let server: TestServer
  let errors: SessionError[]
  /** The same app with a deadline of 50 ms, for requests that are to miss it. */
  let hasty: Awaited<ReturnType<typeof appOn>>
  beforeAll(async () => {
    kit = createKit()
    await kit.start()
    store = new FaultyStore(kit.create())
    ;({ server, errors } = await appOn(store))
    hasty = await appOn(store, '50ms')
  })
  beforeEach(() => store.repair())
  afterAll(async () => {
    await server.close()
    await hasty.server.close()
    await kit.stop()
  })

  for (const [how, fault, code] of FAULTS) {
    describe(`that ${how}`, () => {
      test.each(WRITES)('is no success: %s', async (_what, path, hasSession) => {
        const client = new Client(server)
        const id = hasSession ? (await begun(client)).id : null
        const asked = fault.kind === 'hang' ? hasty : { server, errors }
        const failing = new Client(asked.server, client.cookies)
        asked.errors.splice(0)

        store.fail(fault)
        if (fault.kind === 'lost-reply' && hasSession && /^.(login|regenerate)/.test(path)) {
          // The old session is over: what took its place is found, and goes on.
          expect(await failing.post(path)).toMatchObject({ status: 200, setCookies: [expect.any(String)] })
          store.repair()
          expect(await peek(client)).toMatchObject({ fields: {}, userId: null })
          expect((await peek(failing)).id).not.toBe(id)
          return
        }
        expectFailure(await failing.post(path))
        expect(asked.errors.map((error) => error.code)).toEqual([code])
        expect(isSessionError(asked.errors[0])).toBe(true)
        if (fault.error) expect(asked.errors[0]?.cause).toBe(fault.error)
        expect([...failing.cookies]).toEqual([...client.cookies])

        store.repair()
        if (id === null) return
        const after = await peek(client)
        if (fault.kind !== 'lost-reply') expect(after).toEqual({ id, fields: { kept: '1' }, userId: null })
        // The store did it: a session that goes on has its old data, one that was ended has none.
        else if (after.id === id) expect(after.fields).toMatchObject({ kept: '1' })
        else expect(after.fields).toEqual({})
      })
    })
  }

  test('that misses the deadline is answered at the deadline', async () => {
    const { client } = await begun(new Client(server))
    store.fail({ kind: 'hang', operations: WRITING })
    const answer = await new Client(hasty.server, client.cookies).post('/set?a=1')
    expect(answer.headAfterMs).toBeGreaterThanOrEqual(45)
    // By its own deadline, not by that of the other app, however busy the machine is.
    expect(answer.headAfterMs).toBeLessThan(8_000)
  })

  test('that fails leaves a touch unmade, and the answer that changed nothing is unharmed', async () => {
    const { client } = await begun(new Client(server))
    store.fail({ kind: 'error', operations: ['touch'] })
    expect((await peek(client)).fields).toEqual({ kept: '1' })
  })

  test.each([
    ['a first login', false],
    ['login()', true],
  ])("that fails before %s is on the user's list changes nothing", async (_what, hasSession) => {
    const client = new Client(server)
    const id = hasSession ? (await begun(client)).id : null
    const calls = store.calls.create + store.calls.regenerate
    store.fail({ kind: 'error', operations: ['users.add'] })
    expectFailure(await client.post('/login'))
    expect(store.calls.create + store.calls.regenerate).toBe(calls)
    store.repair()
    if (id !== null) expect(await peek(client)).toEqual({ id, fields: { kept: '1' }, userId: null })
  })

  test("that fails when a login is stored but not settled on the user's list logs in: the old session is over", async () => {
    const { client, id } = await begun(new Client(server))
    const old = client.clone()
    store.fail({ kind: 'error', operations: ['users.settle'] })
    expect((await client.post('/login')).status).toBe(200)
    store.repair()
    expect((await peek(client)).userId).not.toBeNull()
    expect(overOf(await store.get(id))).toEqual({ reason: 'regenerated', fields: 0 })
    expect((await peek(old)).fields).toEqual({})
  })

  test.each(['/logout', '/destroy'])("that cannot take a session off its user's list still does %s", async (path) => {
    const client = new Client(server)
    await client.post('/login')
    const old = client.clone()
    store.fail({ kind: 'error', operations: ['users.remove'] })
    const answer = await client.post(path)
    expect(answer.status).toBe(200)
    expect(answer.setCookies[0]).toMatch(/Max-Age=0/)
    expect((await peek(old)).userId).toBeNull()
  })

  test.each(['/regenerate?keep=true', '/login'])(
    'that logs out ends what %s has made of the session since the request began',
    async (path) => {
      const { client, id } = await begun(new Client(server))
      store.fail({ kind: 'delay', operations: ['end'], times: 1 })
      const logout = client.clone().post('/logout')
      await until(() => store.heldCalls === 1)
      const answer = await client.post(path)
      expect((await peek(client)).fields).toEqual({ kept: '1' })
      store.release()
      expect((await logout).status).toBe(200)
      expect(overOf(await store.get(id))).toEqual({ reason: 'regenerated', fields: 0 })
      expect(overOf(await store.get(answer.json<{ id: string }>().id))).toEqual({ reason: 'logout', fields: 0 })
      expect((await peek(client)).fields).toEqual({})
    },
  )
})

describe('a Redis that is out of memory', () => {
  let redis: RedisServer
  let store: RedisSessionStore
  let server: TestServer
  let middleware: SessionMiddleware
  let errors: SessionError[]
  let look: ReturnType<typeof lookAt>
  beforeAll(async () => {
    redis = await RedisServer.start('--maxmemory-policy', 'noeviction')
    look = lookAt(redis.url)
    store = new RedisSessionStore({ url: redis.url })
    ;({ server, middleware, errors } = await appOn(store))
  })
  afterAll(async () => {
    await server.close()
    await store.close()
    await look.close()
    await redis.stop()
  })

  async function whileFull(action: () => Promise<void>): Promise<void> {
    await look.redis.config('SET', 'maxmemory', '1')
    try {
      await action()
    } finally {
      await look.redis.config('SET', 'maxmemory', '0')
    }
  }

  /** A client that is logged in with a session that holds `kept`. */
  async function loggedIn(user: string): Promise<{ client: Client; id: string }> {
    const { client } = await begun(new Client(server))
    const answer = await client.post(`/login?user=${user}`)
    expect(answer.status).toBe(200)
    return { client, id: answer.json<{ id: string }>().id }
  }

  async function sessionsOf(user: string): Promise<string[]> {
    return (await middleware.manager.sessionsOf(user)).map(({ id }) => id).sort()
  }

  const NEEDS_NO_MEMORY = /^\/(logout|destroy|regenerate|login)/
  test.each(WRITES.filter(([, path, hasSession]) => !(hasSession && NEEDS_NO_MEMORY.test(path))))(
    'fails a commit without success, and a session loaded earlier is unharmed: %s',
    async (_what, path, hasSession) => {
      const client = new Client(server)
      const id = hasSession ? (await begun(client)).id : null
      await whileFull(async () => {
        errors.splice(0)
        expectFailure(await client.post(path))
        expect(errors.map((error) => error.code)).toEqual(['STORE_UNAVAILABLE'])
        expect(String(errors[0]?.cause)).toMatch(/OOM/)
      })
      const after = await peek(client)
      expect(after.fields).toEqual(id === null ? {} : { kept: '1' })
      if (id !== null) expect(after.id).toBe(id)
    },
  )

  test('refuses a first login as a whole, and the user is none the worse for it', async () => {
    const { client, id } = await loggedIn('carl')
    const other = new Client(server)
    await whileFull(async () => {
      expectFailure(await other.post('/login?user=carl'))
      expect(await sessionsOf('carl')).toEqual([id])
    })
    expect(other.cookies.size).toBe(0)
    const second = await other.post('/login?user=carl')
    expect(await sessionsOf('carl')).toEqual([id, second.json<{ id: string }>().id].sort())
    expect((await peek(client)).userId).toBe('carl')
  })

  test('still reads, also when a touch is due', async () => {
    const { client } = await begun(new Client(server))
    await whileFull(async () => {
      expect((await peek(client)).fields).toEqual({ kept: '1' })
    })
  })

  // A script that has ended the old session is not stopped half-way.
  test.each([
    ['/regenerate?keep=true', undefined, null],
    ['/regenerate?keep=true', 'dora', 'dora'],
    ['/regenerate', 'dora', null],
    ['/login?user=dora', undefined, 'dora'],
    ['/login?user=dora', 'dora', 'dora'],
    ['/login?user=dora', 'emil', 'dora'],
  ])('still does %s of the user %s, as a whole', async (path, user, goesOnAs) => {
    const { client, id } = user === undefined ? await begun(new Client(server)) : await loggedIn(user)
    const old = client.clone()
    const others = user === undefined ? [] : (await sessionsOf(user)).filter((each) => each !== id)
    await whileFull(async () => {
      expect((await client.post(path)).status).toBe(200)
      const keepsNothing = path === '/regenerate' || user === 'emil'
      expect((await peek(client)).fields).toEqual(keepsNothing ? {} : { kept: '1' })
      expect((await peek(old)).fields).toEqual({})
      expect(overOf(await store.get(id))).toEqual({ reason: 'regenerated', fields: 0 })
    })
    const after = await peek(client)
    expect(after.userId).toBe(goesOnAs)
    if (after.userId !== null) expect(await sessionsOf(after.userId)).toContain(after.id)
    if (user !== undefined) {
      expect(await sessionsOf(user)).toEqual([...others, ...(after.userId === user ? [after.id] : [])].sort())
    }
  })

  test.each([
    ['/logout', undefined, 'logout'],
    ['/destroy', undefined, 'destroyed'],
    ['/logout', 'fred', 'logout'],
    ['/destroy', 'fred', 'destroyed'],
  ])('still does %s of the user %s', async (path, user, reason) => {
    const { client, id } = user === undefined ? await begun(new Client(server)) : await loggedIn(user)
    const old = client.clone()
    await whileFull(async () => {
      const answer = await client.post(path)
      expect(answer.status).toBe(200)
      expect(answer.setCookies[0]).toMatch(/Max-Age=0/)
      expect((await peek(old)).fields).toEqual({})
      expect(overOf(await store.get(id))).toEqual({ reason, fields: 0 })
      if (user !== undefined) expect(await sessionsOf(user)).toEqual([])
    })
    expect((await peek(old)).fields).toEqual({})
  })

  test('still revokes a session', async () => {
    const { client, id } = await loggedIn('gina')
    await whileFull(async () => {
      expect(await middleware.manager.revoke(id, { by: 'admin' })).toBe(true)
      expect((await store.get(id))?.ended).toMatchObject({ reason: 'revoked', by: 'admin' })
      expect(await sessionsOf('gina')).toEqual([])
      expect(await peek(client)).toMatchObject({ fields: {}, userId: null })
    })
  })

  test('still revokes the sessions of a user', async () => {
    const sessions = await Promise.all([loggedIn('hans'), loggedIn('hans'), loggedIn('hans')])
    await whileFull(async () => {
      expect(await middleware.manager.revokeUser('hans')).toBe(3)
      for (const { client, id } of sessions) {
        expect(overOf(await store.get(id))).toEqual({ reason: 'revoked', fields: 0 })
        expect((await peek(client)).userId).toBeNull()
      }
      expect(await sessionsOf('hans')).toEqual([])
    })
  })

  test('still revokes the other sessions of a user, and gives this one a new ID and token', async () => {
    const [mine, ...others] = await Promise.all([loggedIn('ines'), loggedIn('ines'), loggedIn('ines')])
    const { client, id } = mine
    const old = client.clone()
    await whileFull(async () => {
      const answer = await client.post('/revoke-others')
      expect([answer.status, answer.json()]).toEqual([200, 2])
      for (const other of others) {
        expect(overOf(await store.get(other.id))).toEqual({ reason: 'revoked', fields: 0 })
        expect((await peek(other.client)).userId).toBeNull()
      }
      expect(overOf(await store.get(id))).toEqual({ reason: 'regenerated', fields: 0 })
      expect((await peek(old)).userId).toBeNull()
      const after = await peek(client)
      expect(after).toEqual({ id: expect.any(String), fields: { kept: '1' }, userId: 'ines' })
      expect(after.id).not.toBe(id)
      expect(await sessionsOf('ines')).toEqual([after.id])
    })
  })

  test('still revokes all sessions', async () => {
    const { client } = await loggedIn('jana')
    await whileFull(async () => {
      await middleware.manager.revokeAll()
      expect((await peek(client)).userId).toBeNull()
      expect(await sessionsOf('jana')).toEqual([])
    })
    const { client: next } = await loggedIn('jana')
    expect((await peek(next)).userId).toBe('jana')
  })
})

describe('a Redis that became a read-only replica', () => {
  let primary: RedisServer
  let redis: RedisServer
  let store: RedisSessionStore
  let server: TestServer
  let errors: SessionError[]
  let look: ReturnType<typeof lookAt>
  beforeAll(async () => {
    ;[primary, redis] = await Promise.all([RedisServer.start(), RedisServer.start()])
    look = lookAt(redis.url)
    store = new RedisSessionStore({ url: redis.url })
    ;({ server, errors } = await appOn(store))
  })
  afterAll(async () => {
    await server.close()
    await store.close()
    await look.close()
    await Promise.all([primary.stop(), redis.stop()])
  })

  test('fails every commit without success, still reads, and goes on when it is promoted', async () => {
    const sessions = await Promise.all(WRITES.map(async ([, path]) => ({ path, ...(await begun(new Client(server))) })))
    await look.redis.replicaof('127.0.0.1', 1)
    errors.splice(0)
    for (const { path, client, id } of sessions) {
      expectFailure(await client.post(path))
      expect(await peek(client)).toEqual({ id, fields: { kept: '1' }, userId: null })
    }
    expectFailure(await new Client(server).post('/set?a=1'))
    expect([...new Set(errors.map((error) => (error.cause as Error).message.split(' ')[0]))]).toEqual(['READONLY'])

    await look.redis.replicaof('NO', 'ONE')
    for (const { client } of sessions) {
      expect((await client.post('/set?a=1')).status).toBe(200)
      expect((await peek(client)).fields).toEqual({ kept: '1', a: '1' })
    }
  })

  test('of another server fails every commit the same way', async () => {
    await look.redis.replicaof('127.0.0.1', primary.port)
    const answer = await new Client(server).post('/set?a=1')
    expectFailure(answer)
    await look.redis.replicaof('NO', 'ONE')
    expect((await new Client(server).post('/set?a=1')).status).toBe(200)
  })
})
