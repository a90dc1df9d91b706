// The table of faults: each of its cells is what happens, in memory and in a Redis whose replies get lost on the way. The cells are
// those of the documentation.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import type { Session, SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import type { StoreFault, StoreOperation } from 'sojourn/testing'
import { newSessionId, userKey } from '../../src/ids.js'
import * as SCRIPTS from '../../src/stores/redis/scripts.js'
import * as USER_SCRIPTS from '../../src/stores/redis/users.js'
import { Deadlines } from '../support/deadlines.js'
import { until } from '../support/http.js'
import { RedisProxy, type WireFault } from '../support/redis-proxy.js'
import {
  closeRigs,
  collect,
  type Ground,
  idOf,
  MemoryGround,
  RedisGround,
  Rig,
  type RigOptions,
} from '../support/rig.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const MINUTE = 60_000
const FAULTS = ['fails', 'answer lost', 'late', 'unknown answer'] as const satisfies readonly WireFault['kind'][]
type Fault = (typeof FAULTS)[number]

// --- The table ---

const rows = readFileSync(join(ROOT, 'docs/operations/faults.md'), 'utf8')
  .split('\n')
  .filter((line) => /^\| (?!operation|---)/.test(line))
  .map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim().replaceAll('`', '')),
  )

/** One cell: what happens, and where that differs, what on Redis. */
interface Outcome {
  readonly memory: string
  readonly redis: string
}

const cells = rows.flatMap(([operation = '', call = '', ...outcomes]) =>
  outcomes.map((text, index): [string, string, Fault, Outcome] => {
    const [, memory = '', redis = memory] = /^(.*?)(?: \(Redis: (.*)\))?$/.exec(text) ?? []
    return [operation, call, FAULTS[index] as Fault, { memory, redis }]
  }),
)

// --- What goes wrong ---

/** A ground whose calls can be disturbed one by one. */
interface FaultyGround extends Ground {
  /** Disturbs the call of that operation that comes after so many others of it. */
  fail(rig: Rig, operation: StoreOperation, kind: Fault, after: number): void
  heldCalls(rig: Rig): number
  /** Whether nothing is under way but held calls. */
  isStuck(rig: Rig): boolean
  /** A call that has missed its deadline holds up nothing else. */
  passBy(): void
  /** Lets held calls go on, and waits until the store has done what it does of them. */
  release(rig: Rig): Promise<void>
}

const KINDS: Record<Fault, StoreFault['kind']> = {
  fails: 'error',
  'answer lost': 'lost-reply',
  late: 'delay',
  'unknown answer': 'unknown-answer',
}

class FaultyMemory extends MemoryGround implements FaultyGround {
  fail(rig: Rig, operation: StoreOperation, kind: Fault, after: number): void {
    if (after > 0) rig.store.fail({ kind: 'delay', delayMs: 0, operations: [operation], times: after })
    rig.store.fail({ kind: KINDS[kind], operations: [operation], times: 1 })
  }
  heldCalls(rig: Rig): number {
    return rig.store.heldCalls
  }
  isStuck(rig: Rig): boolean {
    return this.heldCalls(rig) > 0
  }
  passBy(): void {}
  async release(rig: Rig): Promise<void> {
    rig.store.release()
    await turns()
  }
}

class FaultyRedis extends RedisGround implements FaultyGround {
  #proxy!: RedisProxy

  override async start(): Promise<void> {
    await super.start()
    this.#proxy = await RedisProxy.start(this.server.port)
    // Or the first call of a script would be refused, and held in place of the one that counts.
    const scripts = [...Object.values(SCRIPTS), ...Object.values(USER_SCRIPTS)].filter(
      (each): each is SCRIPTS.Script => typeof each === 'object',
    )
    for (const { lua } of scripts) await this.raw.script('LOAD', lua)
  }
  override store(): SessionStore {
    return new RedisSessionStore({ url: this.#proxy.url, prefix: this.prefix })
  }
  fail(_rig: Rig, operation: StoreOperation, kind: Fault, after: number): void {
    this.#proxy.fail({ operation, kind }, after)
  }
  isStuck(): boolean {
    return this.#proxy.isStuck
  }
  passBy(): void {
    this.#proxy.giveUp()
  }
  heldCalls(): number {
    return this.#proxy.heldCalls
  }
  async release(): Promise<void> {
    this.#proxy.release(deadlines.laterMs)
    await until(() => this.#proxy.isIdle)
  }
  override async reset(): Promise<void> {
    this.#proxy.reset()
    await super.reset()
  }
  override async stop(): Promise<void> {
    await this.#proxy.stop()
    await super.stop()
  }
}

const deadlines = new Deadlines()

/** For what comes without an event, and needs nothing but the event loop. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
}

// --- What is done ---

interface Scene {
  readonly rig: Rig
  /** The ID of the client's session before, if it had one. */
  readonly id: string
}

interface Operation {
  readonly options?: RigOptions
  /** Gives `rig.client` what it has before. */
  readonly begin: (rig: Rig) => Promise<unknown>
  readonly run: (scene: Scene) => Promise<unknown>
  /** Whether the store holds what the operation is for. */
  readonly isDone: (scene: Scene) => Promise<boolean>
}

const nobody = async (): Promise<void> => {}
const anonymous = (rig: Rig): Promise<unknown> => rig.ask((session) => void session.set('kept', 1))
const ann = async (rig: Rig): Promise<void> => {
  await anonymous(rig)
  await rig.ask((session) => session.login('ann'))
}
const handler =
  (run: (session: Session) => unknown): Operation['run'] =>
  ({ rig }) =>
    rig.ask(async (session) => void (await run(session)))

const liveOf = async ({ rig }: Scene, user: string): Promise<string[]> =>
  (await collect(rig.manager.list())).filter(({ userId }) => userId === user).map(({ id }) => id)
const storedOf = ({ rig, id }: Scene): ReturnType<SessionStore['get']> => rig.store.get(id)
const isOver = async (scene: Scene): Promise<boolean> => (await storedOf(scene))?.ended !== undefined
const isWritten = async (scene: Scene): Promise<boolean> => (await storedOf(scene))?.fields.get('m') === '1'
const isAnnIn = async (scene: Scene): Promise<boolean> => (await liveOf(scene, 'ann')).length > 0

const OPERATIONS: Record<string, Operation> = {
  'a request': { begin: ann, run: handler((session) => session.get('kept')), isDone: async () => true },
  'a new session': {
    begin: nobody,
    run: handler((session) => session.set('m', 1)),
    isDone: async ({ rig }) => (await rig.manager.count()) === 1,
  },
  'a changed session': { begin: ann, run: handler((session) => session.set('m', 1)), isDone: isWritten },
  'save()': {
    begin: ann,
    run: handler((session) => {
      session.set('m', 1)
      return session.save()
    }),
    isDone: isWritten,
  },
  'update()': { begin: ann, run: handler((session) => session.update('m', () => 1)), isDone: isWritten },
  'touch()': {
    begin: async (rig) => {
      await ann(rig)
      rig.clock.advance(5_000)
    },
    run: handler((session) => session.touch({ force: true })),
    isDone: async (scene) => (await storedOf(scene))?.lastAccessedAt === scene.rig.clock.now(),
  },
  'setExpiry()': {
    begin: ann,
    run: handler((session) => session.setExpiry('20h', { absoluteTimeout: '20h' })),
    isDone: async (scene) => {
      const record = await storedOf(scene)
      return record !== null && record.absoluteExpiresAt - record.createdAt === 20 * 60 * MINUTE
    },
  },
  'login()': { begin: anonymous, run: handler((session) => session.login('ann')), isDone: isAnnIn },
  'login() without a session': { begin: nobody, run: handler((session) => session.login('ann')), isDone: isAnnIn },
  'login() once more': { begin: ann, run: handler((session) => session.login('ann')), isDone: isOver },
  'login() as another': { begin: ann, run: handler((session) => session.login('bob')), isDone: isOver },
  'login() over the limit': {
    options: { maxSessionsPerUser: 1 },
    begin: async (rig) => {
      await rig.login('ann')
      rig.clock.advance(1_000)
      await anonymous(rig)
    },
    run: handler((session) => session.login('ann')),
    isDone: isOver,
  },
  'reauthenticate()': { begin: ann, run: handler((session) => session.reauthenticate()), isDone: isOver },
  'regenerate({ keep: true })': {
    begin: ann,
    run: handler((session) => session.regenerate({ keep: true })),
    isDone: isOver,
  },
  'regenerate()': { begin: ann, run: handler((session) => session.regenerate()), isDone: isOver },
  'renew()': {
    begin: ann,
    run: handler((session) => session.renew()),
    isDone: async (scene) => (await storedOf(scene))?.previousToken !== undefined,
  },
  'a renewal by age': {
    options: { renewAfter: '10m' },
    begin: async (rig) => {
      await ann(rig)
      rig.clock.advance(11 * MINUTE)
    },
    run: handler((session) => session.get('kept')),
    isDone: async (scene) => (await storedOf(scene))?.previousToken !== undefined,
  },
  'the first use of a renewed token': {
    begin: async (rig) => {
      await ann(rig)
      await rig.ask((session) => session.renew())
    },
    run: handler((session) => session.get('kept')),
    isDone: async (scene) => (await storedOf(scene))?.previousToken?.sealed === undefined,
  },
  'logout()': { begin: ann, run: handler((session) => session.logout()), isDone: isOver },
  'destroy()': { begin: ann, run: handler((session) => session.destroy()), isDone: isOver },
  'manager.create()': {
    begin: nobody,
    run: ({ rig }) => rig.manager.create({ userId: 'ann' }),
    isDone: isAnnIn,
  },
  'manager.update()': { begin: ann, run: ({ rig, id }) => rig.manager.update(id, { m: 1 }), isDone: isWritten },
  'manager.sessionsOf()': { begin: ann, run: ({ rig }) => rig.manager.sessionsOf('ann'), isDone: async () => true },
  'manager.revoke()': { begin: ann, run: ({ rig, id }) => rig.manager.revoke(id), isDone: isOver },
  'manager.revokeUser()': { begin: ann, run: ({ rig }) => rig.manager.revokeUser('ann'), isDone: isOver },
  'manager.revokeAll()': {
    begin: ann,
    run: ({ rig }) => rig.manager.revokeAll(),
    isDone: async ({ rig }) => (await rig.store.epoch?.()) === 1,
  },
}

/** What comes of it: what the client is told, what it holds, and whether the store holds what it was for. */
async function outcomeOf(ground: FaultyGround, operation: string, what: string, fault: Fault): Promise<string> {
  const [call, again] = what.split(', ') as [StoreOperation, string?]
  const { options, begin, run, isDone } = OPERATIONS[operation] as Operation
  const rig = await Rig.start(ground, { storeTimeout: Deadlines.storeTimeout, ...options })
  await begin(rig)
  // This process knows the epoch, as one does that has served a request.
  await rig.manager.get(newSessionId())
  const cookie = rig.client.cookieHeader
  const before = rig.client.clone()
  const scene = { rig, id: cookie === '' ? '' : idOf(rig.client) }
  // Whatever is known for a while is asked for again.
  deadlines.advance(1_100)
  rig.told.splice(0)
  rig.answer = undefined
  ground.fail(rig, call, fault, again === undefined ? 0 : 1)

  let isSettled = false
  const asked = run(scene).then(
    () => 'resolves',
    () => 'rejects',
  )
  void asked.finally(() => {
    isSettled = true
  })
  if (fault === 'late') {
    await until(() => isSettled || ground.isStuck(rig))
    await turns()
    // The session is read beside the epoch, on the same connection, and is not to be late as well.
    const isAlone = call !== 'epoch' || ground instanceof FaultyMemory
    if (isAlone) deadlines.pass()
    await turns()
    ground.passBy()
  }
  const settled = await asked
  const answer = operation.startsWith('manager.')
    ? settled
    : String((rig.answer as { status: number } | undefined)?.status)
  const held = rig.client.cookieHeader
  if (ground.heldCalls(rig) > 0) await ground.release(rig)
  if (isToldOf(ground, call, fault))
    await until(() => rig.heard('storeError').some(({ operation: name }) => name === call))
  await until(() => rig.store.get('').then(isTrue, isFalse))
  await turns()

  // What the store has done of it is done.
  deadlines.advance(1_100)
  const isDoneNow = await isDone(scene)
  const isIn = cookie === '' ? true : await rig.ask((session) => !session.isNew)
  const isMoved = held !== cookie
  const client = !isIn
    ? 'out'
    : isMoved
      ? 'new cookie'
      : rig.client.cookieHeader === cookie
        ? 'as before'
        : 'new cookie next'
  if (client === 'new cookie' && cookie !== '' && (await isOver(scene)))
    expect(await rig.ask((session) => session.isNew, before)).toBe(true)
  await expectSound(rig, options?.maxSessionsPerUser)
  return `${answer}, ${client}, ${isDoneNow ? 'done' : 'not done'}`
}

/** In memory there is no answer to know, and what only reads from Redis asks once more when its connection was lost. */
function isToldOf(ground: FaultyGround, call: string, fault: Fault): boolean {
  if (ground instanceof FaultyRedis) return fault !== 'answer lost' || (call !== 'get' && call !== 'users.list')
  return call !== 'users.remove' || fault !== 'unknown answer'
}

const isTrue = (): boolean => true
const isFalse = (): boolean => false

/** Whatever went wrong, lists are what is live, a limit holds for the next login, and a user's sessions end when they are to. */
async function expectSound(rig: Rig, limit: number | undefined): Promise<void> {
  rig.clock.advance(2 * MINUTE)
  const { clock, manager, store } = rig
  const scene = { rig, id: '' }
  await rig.login('ann')
  for (const user of ['ann', 'bob']) {
    const live = (await liveOf(scene, user)).sort()
    expect((await manager.sessionsOf(user)).map(({ id }) => id).sort()).toEqual(live)
    if (limit !== undefined) expect(live.length).toBeLessThanOrEqual(limit)
    await manager.revokeUser(user)
    expect(await liveOf(scene, user)).toEqual([])
    expect(await store.users?.list(userKey(user), clock.now())).toEqual([])
  }
}

describe.each([
  ['memory', () => new FaultyMemory()],
  ['Redis', () => new FaultyRedis()],
] as const)('a fault of the store on %s', (_name, makeGround) => {
  const ground: FaultyGround = makeGround()
  beforeAll(() => ground.start())
  beforeEach(async () => {
    deadlines.install()
    await ground.reset()
  })
  afterEach(async () => {
    await closeRigs()
    deadlines.restore()
  })
  afterAll(() => ground.stop())
  test.each(cells)('%s, %s, %s', async (operation, call, fault, outcome) => {
    expect(await outcomeOf(ground, operation, call, fault)).toBe(
      ground instanceof FaultyRedis ? outcome.redis : outcome.memory,
    )
  })
})

describe('the table', () => {
  const ground = new FaultyMemory()
  afterEach(closeRigs)

  test('has every operation of these tests, and no other', () => {
    expect(new Set(rows.map(([operation]) => operation))).toEqual(new Set(Object.keys(OPERATIONS)))
  })

  test.each(Object.entries(OPERATIONS))('has every store call of %s', async (name, { options, begin, run }) => {
    const rig = await Rig.start(ground, options)
    await begin(rig)
    const before = { ...rig.store.calls }
    await run({ rig, id: rig.client.cookieHeader === '' ? '' : idOf(rig.client) })
    const calls = (Object.keys(before) as StoreOperation[]).filter((call) => rig.store.calls[call] > before[call])
    // That a request reads its session, and the epoch now and then, stands there once.
    const ofAll = name.startsWith('manager.') ? ['epoch'] : ['get', 'epoch']
    const listed = rows.filter(([operation]) => operation === name).map(([, call]) => call)
    expect(listed).toEqual(expect.arrayContaining(calls.filter((call) => !ofAll.includes(call))))
  })
})
