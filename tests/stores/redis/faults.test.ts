// Redis in trouble, over HTTP: the app is a process of its own, with a proxy between it and a Redis of its own.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { testApp } from '../../support/app.js'
import type { AppProcessOptions } from '../../support/app-process.js'
import { type Answer, Client, listen, until } from '../../support/http.js'
import { type Program, startProgram } from '../../support/processes.js'
import { TcpProxy } from '../../support/proxy.js'
import { RedisServer } from '../../support/redis.js'

/** What an answer may take beyond the deadline. */
const MARGIN_MS = 100
const DEFAULT_DEADLINE_MS = 1_000
/** Deadlines that a request may wait for: it loads its session and changes it. */
const LONGEST = 2

/** One app with its Redis, and the proxy between them. */
class Scene {
  readonly redis: RedisServer
  readonly proxy: TcpProxy
  readonly app: Program
  readonly deadlineMs: number

  private constructor(redis: RedisServer, proxy: TcpProxy, app: Program, deadlineMs: number) {
    this.redis = redis
    this.proxy = proxy
    this.app = app
    this.deadlineMs = deadlineMs
  }

  static async start(options: AppProcessOptions & { deadlineMs?: number; isDown?: boolean } = {}): Promise<Scene> {
    const { deadlineMs, isDown = false, ...rest } = options
    const redis = await RedisServer.start()
    const proxy = await TcpProxy.start(redis.port)
    if (isDown) await redis.kill()
    const json = JSON.stringify({ ...rest, ...(deadlineMs !== undefined && { storeTimeout: deadlineMs / 1000 }) })
    const url = `redis://127.0.0.1:${proxy.port}`
    const app = await startProgram('tests/support/app-process.ts', [url, 'faults:', json])
    return new Scene(redis, proxy, app, deadlineMs ?? DEFAULT_DEADLINE_MS)
  }

  client(): Client {
    return new Client(this.app.url)
  }

  /** A client with a session that holds `kept`. */
  async begun(): Promise<{ client: Client; id: string }> {
    const client = this.client()
    let id = ''
    await until(async () => {
      const answer = await client.post('/set?kept=1')
      if (answer.status === 200) id = answer.json<{ id: string }>().id
      return answer.status === 200
    })
    return { client, id }
  }

  async stats(): Promise<{ heapBytes: number; timeouts: number; refusals: number; queued?: number }> {
    return (await this.client().get('/stats')).json()
  }

  /** Nothing was left unhandled: the process lives, and has said no more than it should. */
  expectQuiet(): void {
    expect(this.app.process.exitCode).toBeNull()
    expect(this.app.process.signalCode).toBeNull()
    // The URL, and the warnings that are meant.
    const lines = this.app.output().split('\n')
    const meant = /^(http:.*|\(node:\d+\) \[SOJOURN_PLAIN_HTTP\] .*|\(Use `node --trace-warnings .*|)$/
    expect(lines.filter((line) => !meant.test(line))).toEqual([])
  }

  async stop(): Promise<void> {
    await this.proxy.stop()
    await this.app.stop()
    await this.redis.stop()
  }
}

/**
 * Runs `work`, and tells how long a request that knows nothing of sessions took meanwhile, at worst: on a busy machine an
 * answer may be as much later, once when it begins and once when its deadline has come.
 */
async function withLag<T>(scene: Scene, work: () => Promise<T>): Promise<{ result: T; lagMs: number }> {
  let isDone = false
  let worstMs = 0
  const probe = async (): Promise<void> => {
    while (!isDone) {
      const { headAfterMs } = await scene.client().post('/gate/lag')
      worstMs = Math.max(worstMs, headAfterMs)
    }
  }
  const working = work().finally(() => {
    isDone = true
  })
  const [result] = await Promise.all([working, probe()])
  return { result, lagMs: 2 * worstMs }
}

function expectUnavailable(answer: Answer, deadlineMs: number): void {
  const { headAfterMs } = answer
  const latestMs = deadlineMs + MARGIN_MS
  expect({
    status: answer.status,
    retryAfter: answer.headers['retry-after'],
    setCookies: answer.setCookies,
    isInTime: headAfterMs <= latestMs || { headAfterMs, latestMs },
  }).toEqual({ status: 503, retryAfter: '1', setCookies: [], isInTime: true })
}

/** While the store cannot be asked: 20 requests with a cookie, and some without. */
async function expectOutage(scene: Scene, client: Client): Promise<void> {
  const cookies = [...client.cookies]
  const paths = ['/peek', '/set?a=1', '/login', '/logout', '/update']
  const { result, lagMs } = await withLag(scene, async () => {
    const withCookie = Array.from({ length: 20 }, (_unused, index) => {
      const path = paths[index % paths.length] as string
      return path === '/peek' ? client.get(path) : client.post(path)
    })
    const without = [scene.client().get('/plain'), scene.client().get('/peek'), scene.client().post('/logout')]
    withCookie.push(scene.client().post('/set?a=1'))
    return { answers: await Promise.all(withCookie), others: await Promise.all(without) }
  })
  for (const answer of result.answers) expectUnavailable(answer, LONGEST * scene.deadlineMs + lagMs)
  // What needs no store waits for none.
  expect(result.others.map(({ status }) => status)).toEqual([200, 200, 200])
  for (const { headAfterMs } of result.others)
    expect(headAfterMs).toBeLessThan(0.8 * LONGEST * scene.deadlineMs + lagMs)
  expect([...client.cookies]).toEqual(cookies)
}

/** The cookie works again, without anybody's help, and so do writes. */
async function expectRecovery(scene: Scene, client: Client, id: string): Promise<void> {
  await until(async () => (await client.get('/peek')).status === 200)
  const answer = await client.get('/peek')
  expect(answer.json()).toMatchObject({ id, fields: { kept: '1' } })
  expect((await client.post('/set?after=1')).status).toBe(200)
  scene.expectQuiet()
}

const FAULTS: readonly (readonly [string, (scene: Scene) => void, (scene: Scene) => void])[] = [
  ['frozen', ({ redis }) => redis.freeze(), ({ redis }) => redis.thaw()],
  ['5 s slow', ({ proxy }) => proxy.delayReplies(5_000), ({ proxy }) => proxy.repair()],
  ['cut off', ({ proxy }) => proxy.refuse(), ({ proxy }) => proxy.repair()],
]

const MAX_PENDING = 60

describe.each<[string, AppProcessOptions]>([
  ['by URL', {}],
  ["by the user's own default client", { ownClient: true }],
])('a store %s', (_name, options) => {
  let scene: Scene
  beforeAll(async () => {
    scene = await Scene.start({ ...options, deadlineMs: 300, maxPending: MAX_PENDING })
  })
  afterAll(() => scene.stop())

  test.each(FAULTS)('with a Redis that is %s answers in time and works again by itself', async (_what, begin, end) => {
    const { client, id } = await scene.begun()
    begin(scene)
    await expectOutage(scene, client).finally(() => end(scene))
    await expectRecovery(scene, client, id)
  })

  test('with a Redis that is killed under load and comes back empty starts new sessions', async () => {
    const { client } = await scene.begun()
    let killedAt = 0
    try {
      const { result, lagMs } = await withLag(scene, async () => {
        const underLoad = Array.from({ length: 40 }, async () => {
          const answer = await client.post('/update')
          return { answer, at: performance.now() }
        })
        await Promise.race(underLoad)
        killedAt = performance.now()
        await scene.redis.kill()
        return Promise.all(underLoad)
      })
      for (const { answer, at } of result) {
        // Several store calls belong to one such request, so its time counts from the kill.
        const headAfterMs = at - killedAt
        if (answer.status !== 200) expectUnavailable({ ...answer, headAfterMs }, LONGEST * scene.deadlineMs + lagMs)
      }
      await expectOutage(scene, client)
    } finally {
      await scene.redis.restart()
    }
    await until(async () => (await client.get('/peek')).status === 200)
    const answer = await client.get('/peek')
    expect(answer.json()).toMatchObject({ fields: {}, userId: null })
    expect(answer.setCookies).toEqual([])
    expect((await client.post('/set?kept=new')).setCookies).toHaveLength(1)
    expect((await client.get('/peek')).json()).toMatchObject({ fields: { kept: 'new' } })
    scene.expectQuiet()
  })

  test('with a connection that flaps answers each request in time', async () => {
    const { client, id } = await scene.begun()
    const flapping = setInterval(() => scene.proxy.cut(), 40)
    const end = performance.now() + 800
    const { result, lagMs } = await withLag(scene, async () => {
      const answers: Answer[] = []
      const visit = async (): Promise<void> => {
        while (performance.now() < end) answers.push(await client.get('/peek'))
      }
      await Promise.all(Array.from({ length: 5 }, visit))
      return answers
    }).finally(() => clearInterval(flapping))
    for (const answer of result)
      if (answer.status !== 200) expectUnavailable(answer, LONGEST * scene.deadlineMs + lagMs)
    expect(result.map(({ status }) => status)).toContain(200)
    await expectRecovery(scene, client, id)
  })

  test('that is frozen under load refuses calls beyond maxPending at once, and holds no more', async () => {
    const { client, id } = await scene.begun()
    await expectRecovery(scene, client, id)
    const before = await scene.stats()
    const wave = (): Promise<Answer[]> => Promise.all(Array.from({ length: 200 }, () => client.get('/peek')))
    scene.redis.freeze()
    const frozenAt = performance.now()
    try {
      for (const answer of await wave()) expect(answer.status).toBe(503)
      const afterFirst = await scene.stats()
      const waiting = afterFirst.timeouts - before.timeouts
      expect(waiting).toBeGreaterThan(0)
      expect(waiting).toBeLessThanOrEqual(MAX_PENDING)
      for (let round = 0; round < 2; round++) {
        for (const answer of await wave()) expect(answer.status).toBe(503)
      }
      const during = await scene.stats()
      // Each that has no answer keeps its place, so nobody waits any more: until our own connection has been silent for 5 s.
      const isSameConnection = options.ownClient === true || performance.now() - frozenAt < 4_500
      if (isSameConnection) expect(during.timeouts).toBe(afterFirst.timeouts)
      // A request may be refused two calls: its own, and the one for the epoch.
      expect(during.refusals - before.refusals).toBeGreaterThanOrEqual(600 - MAX_PENDING)
      expect(during.refusals - before.refusals).toBeLessThanOrEqual(2 * 600)
      if (options.ownClient) {
        expect(during.queued).toBeGreaterThan(0)
        expect(during.queued).toBeLessThanOrEqual(MAX_PENDING)
      }
      expect(during.heapBytes - before.heapBytes).toBeLessThan(4_000_000)
    } finally {
      scene.redis.thaw()
    }
    await expectRecovery(scene, client, id)
  })
})

test('a Redis that is down at the start is found when it comes', async () => {
  const scene = await Scene.start({ isDown: true })
  try {
    // Signed with the same secret, so the store has to be asked.
    const memory = await listen(testApp().app)
    const elsewhere = new Client(memory)
    await elsewhere.post('/set?kept=1')
    await memory.close()
    await expectOutage(scene, new Client(scene.app.url, elsewhere.cookies))
    await scene.redis.restart()
    const { client, id } = await scene.begun()
    await expectRecovery(scene, client, id)
    expect((await new Client(scene.app.url, elsewhere.cookies).get('/peek')).json()).toMatchObject({ fields: {} })
  } finally {
    await scene.stop()
  }
})

test('the default deadline is a second', async () => {
  const scene = await Scene.start()
  try {
    const { client, id } = await scene.begun()
    scene.redis.freeze()
    const { result: answer, lagMs } = await withLag(scene, () => client.get('/peek'))
    expectUnavailable(answer, DEFAULT_DEADLINE_MS + lagMs)
    expect(answer.headAfterMs).toBeGreaterThanOrEqual(DEFAULT_DEADLINE_MS - 5)
    scene.redis.thaw()
    await expectRecovery(scene, client, id)
  } finally {
    await scene.stop()
  }
})

test("onStoreError: 'anonymous' serves public pages during the outage, and knows the user after it", async () => {
  const scene = await Scene.start({ deadlineMs: 200, onStoreError: 'anonymous' })
  try {
    const { client, id } = await scene.begun()
    scene.redis.freeze()
    const { result, lagMs } = await withLag(scene, () =>
      Promise.all([client.get('/plain'), client.get('/peek'), client.post('/set?a=1'), client.post('/login')]),
    )
    const [plain, peeked, written, loggedIn] = result
    expect(plain.body).toBe('plain')
    expect(peeked.json()).toMatchObject({ fields: {}, userId: null })
    for (const answer of [plain, peeked]) expect(answer.status).toBe(200)
    // A page that needs the session is no success.
    for (const answer of [written, loggedIn]) expect(answer.status).toBe(503)
    for (const answer of [plain, peeked, written, loggedIn]) {
      expect(answer.setCookies).toEqual([])
      expect(answer.headAfterMs).toBeLessThan(200 + MARGIN_MS + lagMs)
    }
    scene.redis.thaw()
    await expectRecovery(scene, client, id)
  } finally {
    await scene.stop()
  }
})

// Takes five seconds of waiting, which the other tests may use.
let replacement: Promise<number>
beforeAll(() => {
  replacement = replaceSilentConnection()
  replacement.catch(() => {})
})

test('a connection that gives no more replies is replaced', async () => {
  // Five seconds of silence, and what a busy machine takes.
  expect(await replacement).toBeLessThan(10_000)
})

/** How long it took, in milliseconds. */
async function replaceSilentConnection(): Promise<number> {
  const scene = await Scene.start({ deadlineMs: 200 })
  try {
    const { client, id } = await scene.begun()
    scene.proxy.swallowReplies()
    const began = performance.now()
    expect((await client.get('/peek')).status).toBe(503)
    await until(async () => (await client.get('/peek')).status === 200, 12_000)
    await expectRecovery(scene, client, id)
    return performance.now() - began
  } finally {
    await scene.stop()
  }
}
