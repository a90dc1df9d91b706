// What comes to Redis after its caller has given up is not done: a server that stood still, a packet that was held up.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { newSessionId, newToken } from '../../../src/ids.js'
import { SessionData } from '../../../src/record/session-data.js'
import { RedisSessionStore } from '../../../src/stores/redis.js'
import { ServerClocks } from '../../../src/stores/server-clocks.js'
import { until } from '../../support/http.js'
import { commandsWhile } from '../../support/monitor.js'
import { closeRigs, idOf, RedisGround, Rig, refusal } from '../../support/rig.js'

const ground = new RedisGround()
beforeAll(() => ground.start())
beforeEach(() => ground.reset())
afterEach(closeRigs)
afterAll(() => ground.stop())

function recordOf(id = newSessionId(), generation = 1): SessionData {
  const now = Date.now()
  const times = { createdAt: now, updatedAt: now, lastAccessedAt: now, expiresAt: now + 60_000 }
  return new SessionData({
    id,
    generation,
    tokenHash: newToken().tokenHash,
    ...times,
    absoluteExpiresAt: now + 60_000,
    fields: [],
  })
}

/** Calls what has `ms` to be done while the server stands still for longer. */
async function whileFrozen<T>(ms: number, call: (notAfter: number) => Promise<T>): Promise<T> {
  ground.server.freeze()
  try {
    const notAfter = performance.now() + ms
    const answer = call(notAfter)
    answer.catch(() => {})
    await until(async () => performance.now() > notAfter)
    ground.server.thaw()
    return await answer
  } finally {
    ground.server.thaw()
  }
}

const LATE = { code: 'STORE_TIMEOUT' }

describe('a server that stands still until the deadline is over', () => {
  test('does not regenerate then', async () => {
    const store = ground.store()
    const record = recordOf()
    await store.create(record.id, record, 60, performance.now() + 10_000)
    const next = recordOf(newSessionId(record.id), 2)
    const parts = { generation: 1, at: Date.now(), next, keep: 'all', tombstoneSeconds: 60 } as const
    const late = whileFrozen(50, (notAfter) => store.regenerate(record.id, { ...parts, notAfter }, 60))
    expect(await refusal(late)).toMatchObject(LATE)
    expect(await store.get(record.id)).toMatchObject({ ended: undefined })
    expect(await store.get(next.id)).toBeNull()
    const inTime = { ...parts, notAfter: performance.now() + 10_000 }
    expect(await store.regenerate(record.id, inTime, 60)).toMatchObject({ status: 'regenerated' })
  })

  test('does not create then', async () => {
    const store = ground.store()
    const [first, late] = [recordOf(), recordOf()]
    await store.create(first.id, first, 60, performance.now() + 10_000)
    const creating = whileFrozen(50, (notAfter) => store.create(late.id, late, 60, notAfter))
    expect(await refusal(creating)).toMatchObject(LATE)
    expect(await store.get(late.id)).toBeNull()
  })

  test.each(['login', 'reauthenticate', 'regenerate'] as const)('logs nobody out who asked for %s()', async (name) => {
    const rig = await Rig.start(ground)
    await rig.ask((session) => session.login('ann'))
    const { cookieHeader } = rig.client
    const hasty = await Rig.start(ground, { storeTimeout: 0.7 })
    // From now on its store knows the clock over there.
    await until(async () =>
      hasty.login('bob').then(
        () => true,
        () => false,
      ),
    )
    const client = hasty.stranger(rig.client.cookies)
    const calls = { login: ['ann'], reauthenticate: [], regenerate: [{ keep: true }] } as const
    const asked = hasty.ask(async (session) => {
      // On its user's list the session has its place: the call that follows is the one that hands out the token.
      if (name !== 'regenerate') hasty.store.fail({ kind: 'delay', operations: ['regenerate'], times: 1 })
      else ground.server.freeze()
      const done = Reflect.apply(session[name], session, calls[name]) as Promise<void>
      done.catch(() => {})
      if (name !== 'regenerate') {
        await until(async () => hasty.store.heldCalls === 1)
        ground.server.freeze()
        hasty.store.release()
      }
      await done
    }, client)
    expect(await refusal(asked)).toMatchObject(LATE)
    ground.server.thaw()
    expect(hasty.answer?.status).toBe(503)
    expect(client.cookieHeader).toBe(cookieHeader)
    // Whatever was under way has been done by now, or never will be.
    expect(await rig.whoIs(rig.stranger(client.cookies))).toBe('ann')
    expect((await rig.manager.sessionsOf('ann')).map(({ id }) => id)).toEqual([idOf(client)])
  })
})

test('the clock of a server is learned from its answers: a first call asks for it, further ones do not', async () => {
  const store = ground.store()
  const scriptsOf = async (): Promise<number> => {
    const record = recordOf()
    const commands = await commandsWhile(ground.raw, () =>
      store.create(record.id, record, 60, performance.now() + 10_000),
    )
    return commands.filter(({ args, source }) => source !== 'lua' && /^eval/i.test(args[0] ?? '')).length
  }
  await scriptsOf()
  expect(await scriptsOf()).toBe(1)
})

test('a server whose clock was set does what comes in time', async () => {
  let aheadMs = 0
  let calls = 0
  const client = ground.raw
  /** Redis as it is, but for what its scripts say of the time. */
  const shifted = new Proxy(client, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== 'function') return member
      if (name !== 'eval' && name !== 'evalsha') return member.bind(target) as unknown
      return async (first: string, keys: number, ...args: (string | number)[]) => {
        calls++
        if (/^\d{13}$/.test(String(args[keys]))) args[keys] = Number(args[keys]) - aheadMs
        const reply: unknown = await Reflect.apply(member, target, [first, keys, ...args])
        if (Array.isArray(reply) && typeof reply[1] === 'number') reply[1] += aheadMs
        return reply
      }
    },
  })
  const store = new RedisSessionStore({ client: shifted, prefix: ground.prefix })
  const create = async (msLeft = 10_000): Promise<boolean> => {
    const record = recordOf()
    return store.create(record.id, record, 60, performance.now() + msLeft)
  }
  expect(await create()).toBe(true)
  for (const ms of [3_600_000, -7_200_000, 5_000, 0]) {
    aheadMs = ms
    expect(await create()).toBe(true)
    calls = 0
    expect(await create()).toBe(true)
    expect(calls).toBe(1)
  }
})

describe('what is known of the clock of a server', () => {
  const HERE = 'here'

  test('is nothing until it has told its time, and never more than it has shown', () => {
    const clocks = new ServerClocks()
    const now = performance.now()
    expect(clocks.timeAt(HERE, now + 1_000)).toBeNull()
    clocks.note(HERE, { time: 5_000_000, sentAt: now - 400 })
    // It was 5,000,000 at some time in the last 400 ms: a deadline of ours may come earlier over there, and never later.
    const [least, most] = [5_001_000, 5_001_400]
    const there = clocks.timeAt(HERE, performance.now() + 1_000) as number
    expect(there).toBeGreaterThanOrEqual(least - 2)
    expect(there).toBeLessThanOrEqual(most)
    // A closer answer counts, one that says less does not.
    clocks.note(HERE, { time: 5_000_300, sentAt: performance.now() - 1 })
    const closer = clocks.timeAt(HERE, performance.now() + 1_000) as number
    expect(closer).toBeGreaterThan(there + 200)
    clocks.note(HERE, { time: 5_000_100, sentAt: performance.now() - 900 })
    expect(clocks.timeAt(HERE, performance.now() + 1_000)).toBeGreaterThanOrEqual(closer - 2)
    expect(clocks.timeAt('another', now + 1_000)).toBeNull()
  })

  test('is given up when the clock was set back', () => {
    const clocks = new ServerClocks()
    clocks.note(HERE, { time: 5_000_000, sentAt: performance.now() })
    clocks.note(HERE, { time: 1_000_000, sentAt: performance.now() })
    expect(clocks.timeAt(HERE, performance.now() + 1_000)).toBeLessThan(1_100_000)
  })
})
