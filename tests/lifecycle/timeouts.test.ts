// When a session ends by itself, and what moves that: idle, absolute and renewal timeouts, presets, the session's own
// timeout, requests that are no activity, and proving again who one is. On memory and on a real Redis.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import {
  MemorySessionStore,
  requireLevel,
  requireRecentAuth,
  type Session,
  type SessionData,
  SessionManager,
  type SessionOptions,
} from 'sojourn'
import { Client, SECRET, until } from '../support/http.js'
import {
  closeRigs,
  GROUNDS,
  type Ground,
  idOf,
  partsOf,
  RedisGround,
  Rig,
  type RigOptions,
  refusal,
} from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** A manager that keeps nothing, for what options come to. */
function describeOptions(options: Partial<SessionOptions>): Readonly<Record<string, unknown>> {
  const store = new MemorySessionStore({ cleanupInterval: 0 })
  return new SessionManager({ secret: SECRET, store, ...options }).describe()
}

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground: Ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  /** A process with one session, which holds `n: 1` and was just begun. */
  async function begin(options: RigOptions = {}): Promise<Rig> {
    const rig = await Rig.start(ground, options)
    await rig.ask((session) => session.set('n', 1))
    return rig
  }

  const isAlive = (rig: Rig, client?: Client, path?: string): Promise<boolean> =>
    rig.ask((session) => session.get('n') === 1, client, path === undefined ? {} : { path })

  const recordOf = async (rig: Rig, client = rig.client): Promise<SessionData> =>
    (await rig.store.get(idOf(client))) as SessionData

  describe('the idle timeout', () => {
    test('counts from the last request, to within the touch interval', async () => {
      const rig = await begin({ idleTimeout: '10m', touchInterval: '1m' })
      for (let n = 0; n < 5; n++) {
        rig.clock.advance(9 * MINUTE)
        expect(await isAlive(rig)).toBe(true)
      }
      // Seen again within the interval: that is not recorded.
      rig.clock.advance(MINUTE - 1)
      expect(await isAlive(rig)).toBe(true)
      rig.clock.advance(9 * MINUTE)
      expect(await isAlive(rig, rig.client.clone())).toBe(true)
      rig.clock.advance(10 * MINUTE)
      expect(await isAlive(rig)).toBe(false)
    })

    test('moves with a write as well, and with a forced touch() at once', async () => {
      const rig = await begin({ idleTimeout: '10m', touchInterval: '5m' })
      rig.clock.advance(MINUTE)
      await rig.ask((session) => session.set('m', 1))
      expect((await recordOf(rig)).lastAccessedAt).toBe(rig.clock.now())
      rig.clock.advance(MINUTE)
      await isAlive(rig)
      expect((await recordOf(rig)).lastAccessedAt).toBe(rig.clock.now() - MINUTE)
      await rig.ask((session) => session.touch())
      expect((await recordOf(rig)).lastAccessedAt).toBe(rig.clock.now() - MINUTE)
      await rig.ask((session) => session.touch({ force: true }))
      expect((await recordOf(rig)).lastAccessedAt).toBe(rig.clock.now())
    })
  })

  describe('the absolute timeout', () => {
    test('counts from creation, and neither activity nor a new token or ID moves it', async () => {
      const rig = await begin({ idleTimeout: '1h', absoluteTimeout: '2h', renewAfter: '15m' })
      const start = rig.clock.now()
      const acts: ((session: Session) => Promise<unknown> | unknown)[] = [
        (session) => session.set('m', Math.random()),
        (session) => session.touch(),
        (session) => session.renew(),
        (session) => session.regenerate({ keep: true }),
      ]
      for (let minute = 10; minute < 120; minute += 10) {
        rig.clock.set(start + minute * MINUTE)
        await rig.ask(async (session) => void (await acts[(minute / 10) % acts.length]?.(session)))
        expect((await recordOf(rig)).absoluteExpiresAt).toBe(start + 2 * HOUR)
      }
      rig.clock.set(start + 2 * HOUR - 1)
      expect(await isAlive(rig)).toBe(true)
      rig.clock.set(start + 2 * HOUR)
      expect(await isAlive(rig)).toBe(false)
    })

    test('is the end of a session without an idle timeout before it', async () => {
      const rig = await begin({ idleTimeout: '1d', absoluteTimeout: '1d' })
      expect((await recordOf(rig)).expiresAt).toBe(rig.clock.now() + DAY)
      rig.clock.advance(DAY)
      expect(await rig.ask((session) => session.metadata.previousEnd?.reason)).toBe('absolute')
    })
  })

  describe('renewal after a time', () => {
    test('gives the token a successor with the next response, and none before', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s', idleTimeout: '1h' })
      const first = rig.client.clone()
      rig.clock.advance(5 * MINUTE - 1)
      await isAlive(rig)
      expect(rig.client.cookieHeader).toBe(first.cookieHeader)
      rig.clock.advance(1)
      await isAlive(rig)
      expect(idOf(rig.client)).toBe(idOf(first))
      expect(partsOf(rig.client)[1]).not.toBe(partsOf(first)[1])
      expect(rig.heard('renewed')).toMatchObject([{ id: idOf(first) }])

      // Once the client has shown the new one, the old one is good for requests that were under way, and these make no third.
      await isAlive(rig)
      rig.clock.advance(10 * SECOND - 1)
      expect(await isAlive(rig, first.clone())).toBe(true)
      expect(rig.answer?.setCookies).toEqual([])
      rig.clock.advance(1)
      expect(await isAlive(rig, first)).toBe(false)
      expect(rig.heard('tokenMismatch')).toHaveLength(1)
      expect(await isAlive(rig)).toBe(true)

      // And so on, five minutes after the last one.
      const second = rig.client.clone()
      rig.clock.advance(5 * MINUTE - 10 * SECOND - 1)
      await isAlive(rig)
      expect(rig.client.cookieHeader).toBe(second.cookieHeader)
      rig.clock.advance(1)
      await isAlive(rig)
      expect(rig.client.cookieHeader).not.toBe(second.cookieHeader)
      expect(rig.heard('renewed')).toHaveLength(2)
    })

    test('happens in a response whose handler never looks at the session', async () => {
      const rig = await begin({ renewAfter: '5m' })
      const before = rig.client.cookieHeader
      rig.clock.advance(5 * MINUTE)
      const answer = await rig.client.get('/plain')
      expect([answer.status, answer.body, answer.setCookies.length]).toEqual([200, 'plain', 1])
      expect(rig.client.cookieHeader).not.toBe(before)
    })

    test('together with a change stores both', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: 0 })
      const before = rig.client.clone()
      rig.clock.advance(5 * MINUTE)
      await rig.ask((session) => session.set('m', 2))
      expect(await rig.ask((session) => ({ ...session }))).toEqual({ n: 1, m: 2 })
      expect(rig.client.cookieHeader).not.toBe(before.cookieHeader)
      expect(await isAlive(rig, before)).toBe(false)
    })

    test('in ten requests at once happens once', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      rig.clock.advance(5 * MINUTE)
      const clients = Array.from({ length: 10 }, () => rig.client.clone())
      const waiting: (() => void)[] = []
      const asked = clients.map((client) =>
        rig.ask(() => new Promise<void>((resolve) => waiting.push(resolve)), client),
      )
      await until(() => waiting.length === 10)
      for (const go of waiting) go()
      await Promise.all(asked)
      expect(rig.heard('renewed')).toHaveLength(1)
      const renewed = clients.filter(({ cookieHeader }) => cookieHeader !== rig.client.cookieHeader)
      expect(renewed).toHaveLength(1)
      // The others are given the same new token with their next request.
      for (const client of clients) if (client !== renewed[0]) expect(await isAlive(rig, client)).toBe(true)
      expect(new Set(clients.map(({ cookieHeader }) => cookieHeader)).size).toBe(1)
      expect(rig.heard('renewed')).toHaveLength(1)
    })

    test('does not happen by itself', async () => {
      const rig = await begin({ idleTimeout: '11h' })
      const before = rig.client.cookieHeader
      rig.clock.advance(10 * HOUR)
      await isAlive(rig)
      expect(rig.client.cookieHeader).toBe(before)
      expect(describeOptions({})['renewAfterMs']).toBe(Number.POSITIVE_INFINITY)
    })

    test('gives no grace to the token before a login, a regenerate() or a reauthenticate()', async () => {
      const acts: ((session: Session) => Promise<unknown>)[] = [
        (session) => session.login('ann'),
        (session) => session.regenerate({ keep: true }),
        (session) => session.reauthenticate(),
      ]
      const rig = await begin({ renewAfter: '5m', renewGrace: '10m' })
      for (const act of acts) {
        rig.clock.advance(5 * MINUTE)
        const oldest = rig.client.clone()
        await isAlive(rig)
        const renewed = rig.client.clone()
        expect(renewed.cookieHeader).not.toBe(oldest.cookieHeader)
        expect(await isAlive(rig, oldest.clone())).toBe(true)
        await rig.ask(async (session) => void (await act(session)))
        expect(await isAlive(rig, oldest)).toBe(false)
        expect(await isAlive(rig, renewed)).toBe(false)
        expect(await isAlive(rig)).toBe(true)
      }
    })

    test('that the store fails at leaves the response and the old token as they are', async () => {
      const rig = await begin({ renewAfter: '5m' })
      rig.clock.advance(5 * MINUTE)
      const before = rig.client.cookieHeader
      rig.store.fail({ kind: 'error', operations: ['update'], times: 1 })
      expect(await isAlive(rig)).toBe(true)
      expect(rig.answer?.status).toBe(200)
      expect(rig.client.cookieHeader).toBe(before)
      await isAlive(rig)
      expect(rig.client.cookieHeader).not.toBe(before)
    })
  })

  describe("a session's own timeout", () => {
    test('holds for it alone, longer or shorter than the rule', async () => {
      const rig = await begin({ idleTimeout: '30m', absoluteTimeout: '12h' })
      const short = rig.stranger()
      await rig.ask((session) => session.set('n', 1).setExpiry('5m'), short)
      const long = rig.stranger()
      await rig.ask((session) => session.set('n', 1).setExpiry('2d', { absoluteTimeout: '2d' }), long)
      rig.clock.advance(5 * MINUTE - 1)
      expect(await isAlive(rig, short.clone())).toBe(true)
      rig.clock.advance(5 * MINUTE)
      expect(await isAlive(rig, short)).toBe(false)
      rig.clock.advance(21 * MINUTE)
      expect(await isAlive(rig)).toBe(false)
      rig.clock.advance(DAY)
      expect(await isAlive(rig, long)).toBe(true)
      rig.clock.advance(DAY)
      expect(await isAlive(rig, long)).toBe(false)
    })

    test.each<[string, (session: Session) => unknown]>([
      ['setExpiry()', (session) => session.setExpiry('60d')],
      [
        'cookie.maxAge',
        (session) => {
          session.cookie.maxAge = 60 * DAY
        },
      ],
      [
        'cookie.expires',
        (session) => {
          session.cookie.expires = new Date(Date.now() + 60 * DAY)
        },
      ],
    ])('by %s cannot pass the absolute timeout, and says what to write', async (_how, choose) => {
      const rig = await begin({ absoluteTimeout: '12h', clock: undefined as never })
      const refused = await refusal(rig.ask(async (session) => void (await choose(session))))
      expect(refused).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(/longer than the absolute timeout, 12h.*absoluteTimeout: '60d'/),
      })
      const { createdAt, absoluteExpiresAt, expiresAt } = await recordOf(rig)
      expect(absoluteExpiresAt - createdAt).toBe(12 * HOUR)
      expect(expiresAt).toBeLessThanOrEqual(absoluteExpiresAt)
    })

    test('with an absolute timeout of its own ends then, whatever happens', async () => {
      const rig = await begin({ idleTimeout: '30m', absoluteTimeout: '12h' })
      const start = rig.clock.now()
      const chooses = (session: Session): Promise<void> =>
        session.setExpiry('30d', { absoluteTimeout: '60d', persistent: true })
      await rig.ask(chooses)
      expect(rig.answer?.setCookies[0]).toMatch(/Max-Age=2592000(;|$)/)
      for (let day = 20; day < 60; day += 20) {
        rig.clock.set(start + day * DAY)
        // Asked for in every request, it still counts from the beginning.
        await rig.ask(chooses)
        expect((await recordOf(rig)).absoluteExpiresAt).toBe(start + 60 * DAY)
      }
      rig.clock.set(start + 60 * DAY - 1)
      expect(await isAlive(rig)).toBe(true)
      rig.clock.set(start + 60 * DAY)
      expect(await isAlive(rig)).toBe(false)
    })

    test('may be given by the manager, longer or shorter, and a login begins it anew', async () => {
      const rig = await begin({ idleTimeout: '30m', absoluteTimeout: '12h' })
      const start = rig.clock.now()
      expect(await rig.manager.setExpiry(idOf(rig.client), '20d', { absoluteTimeout: '40d' })).toBe(true)
      expect(await recordOf(rig)).toMatchObject({ absoluteExpiresAt: start + 40 * DAY, expiresAt: start + 20 * DAY })
      rig.clock.advance(10 * DAY)
      await rig.ask((session) => session.login('ann'))
      expect((await recordOf(rig)).absoluteExpiresAt).toBe(start + 50 * DAY)
      expect(await rig.manager.setExpiry(idOf(rig.client), '5m', { absoluteTimeout: '10m' })).toBe(true)
      rig.clock.advance(5 * MINUTE)
      expect(await isAlive(rig)).toBe(false)
      expect(await rig.manager.setExpiry(idOf(rig.client), '5m')).toBe(false)
    })

    test('is refused by name when it is misspelt', async () => {
      const rig = await begin()
      const misspelt = { absolutetimeout: '1d' } as object
      const refused = await refusal(rig.ask((session) => session.setExpiry('1h', misspelt)))
      expect(refused.message).toMatch(/Did you mean absoluteTimeout\?/)
    })

    test('reaches cookie and store alike, at once', async () => {
      const rig = await begin({ cookie: { persistent: true }, idleTimeout: '30m', endedRetention: '1s' })
      await rig.ask((session) => session.setExpiry('5m'))
      expect(rig.answer?.setCookies[0]).toMatch(/Max-Age=300(;|$)/)
      expect(await recordOf(rig)).toMatchObject({ idleTimeoutMs: 5 * MINUTE, expiresAt: rig.clock.now() + 5 * MINUTE })
      if (ground instanceof RedisGround) {
        const id = idOf(rig.client)
        const ttl = await ground.raw.ttl(`rig:{${id.slice(0, 4)}}${id.slice(4)}`)
        expect(ttl).toBeGreaterThan(290)
        expect(ttl).toBeLessThanOrEqual(302)
      }
    })

    test('goes over to what a login, a regenerate() or a reauthenticate() makes of the session', async () => {
      const rig = await begin({ idleTimeout: '30m' })
      await rig.ask((session) => session.setExpiry('2h'))
      await rig.ask((session) => session.login('ann'))
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      await rig.ask((session) => session.reauthenticate())
      rig.clock.advance(2 * HOUR - 1)
      expect(await isAlive(rig)).toBe(true)
      rig.clock.advance(2 * HOUR)
      expect(await isAlive(rig)).toBe(false)
    })

    test('is seen by the manager: list, validate, clean-up', async () => {
      const rig = await begin({ idleTimeout: '30m' })
      await rig.ask((session) => session.setExpiry('2h'))
      rig.clock.advance(HOUR)
      expect(await rig.manager.count()).toBe(1)
      expect(await rig.manager.validate(idOf(rig.client))).toMatchObject({ isValid: true })
      expect(await rig.manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
      expect(await isAlive(rig)).toBe(true)
    })

    test.each([['0'], [0], [-1], ['soon'], ['11000d'], [Number.NaN]])('cannot be %p', async (duration) => {
      const rig = await begin()
      expect((await refusal(rig.ask((session) => session.setExpiry(duration)))).code).toBe('INVALID_OPTION')
      expect(await isAlive(rig)).toBe(true)
    })
  })

  describe('requests that are no activity', () => {
    const options: RigOptions = {
      idleTimeout: '10m',
      touchInterval: 0,
      passivePaths: ['/poll', '/api/status'],
    }

    test('see the session and do not keep it alive', async () => {
      const rig = await begin(options)
      for (let n = 0; n < 9; n++) {
        rig.clock.advance(MINUTE)
        for (const path of ['/poll', '/poll?x=/', '/poll/deep', '/api/status']) {
          expect(await isAlive(rig, rig.client, path)).toBe(true)
        }
      }
      expect((await recordOf(rig)).lastAccessedAt).toBe(rig.clock.now() - 9 * MINUTE)
      rig.clock.advance(MINUTE)
      expect(await isAlive(rig, rig.client, '/poll')).toBe(false)
    })

    test.each([['/'], ['/pollution'], ['/api/statuses'], ['/api'], ['/x/poll'], ['/?/poll'], ['//poll']])(
      'are not those of %s',
      async (path) => {
        const rig = await begin(options)
        rig.clock.advance(9 * MINUTE)
        expect(await isAlive(rig, rig.client, path)).toBe(true)
        rig.clock.advance(9 * MINUTE)
        expect(await isAlive(rig)).toBe(true)
      },
    )

    test('store what they write, and still do not keep it alive', async () => {
      const rig = await begin(options)
      rig.clock.advance(9 * MINUTE)
      await rig.ask((session) => session.set('m', 2), rig.client, { path: '/poll' })
      await rig.ask(async (session) => void (await session.update('k', () => 3)), rig.client, { path: '/poll' })
      await rig.ask((session) => session.set('l', 4).save(), rig.client, { path: '/poll' })
      const record = await recordOf(rig)
      expect([record.lastAccessedAt, record.expiresAt]).toEqual([
        rig.clock.now() - 9 * MINUTE,
        rig.clock.now() + MINUTE,
      ])
      expect(await rig.ask((session) => ({ ...session }), rig.client, { path: '/poll' })).toEqual({
        n: 1,
        m: 2,
        k: 3,
        l: 4,
      })
      rig.clock.advance(MINUTE)
      expect(await isAlive(rig, rig.client, '/poll')).toBe(false)
    })

    test('do not keep it alive by renewing its token either', async () => {
      const rig = await begin({ ...options, renewAfter: '3m' })
      const start = rig.clock.now()
      for (let minute = 1; minute < 10; minute++) {
        rig.clock.set(start + minute * MINUTE)
        expect(await isAlive(rig, rig.client, '/poll')).toBe(true)
      }
      expect(rig.heard('renewed').length).toBeGreaterThan(0)
      expect((await recordOf(rig)).expiresAt).toBe(start + 10 * MINUTE)
      rig.clock.set(start + 10 * MINUTE)
      expect(await isAlive(rig, rig.client, '/poll')).toBe(false)
    })

    test('keep it alive when they say so themselves', async () => {
      const rig = await begin(options)
      rig.clock.advance(9 * MINUTE)
      await rig.ask((session) => session.touch(), rig.client, { path: '/poll' })
      rig.clock.advance(9 * MINUTE)
      expect(await isAlive(rig, rig.client, '/poll')).toBe(true)
    })

    test('may be told by a function, for each request', async () => {
      const rig = await begin({ ...options, passivePaths: (req) => req.headers['x-background'] === '1' })
      for (const isPassive of [true, false]) {
        rig.clock.advance(4 * MINUTE)
        await rig.client.get('/plain', isPassive ? { 'x-background': '1' } : {})
        const idleMs = rig.clock.now() - (await recordOf(rig)).lastAccessedAt
        expect(idleMs).toBe(isPassive ? 4 * MINUTE : 0)
      }
    })

    test('fail when that function does', async () => {
      let isBroken = false
      const rig = await begin({
        ...options,
        passivePaths: () => {
          if (isBroken) throw new Error('no idea')
          return false
        },
      })
      isBroken = true
      expect((await rig.client.get('/plain')).status).toBe(500)
      isBroken = false
      expect(await isAlive(rig)).toBe(true)
    })
  })

  describe('reauthenticate()', () => {
    test('starts both timeouts afresh; activity only the idle one', async () => {
      const rig = await Rig.start(ground, { idleTimeout: '1h', absoluteTimeout: '2h' })
      rig.client = await rig.login('ann')
      const start = rig.clock.now()
      for (const minute of [50, 100]) {
        rig.clock.set(start + minute * MINUTE)
        expect(await rig.whoIs()).toBe('ann')
        expect((await recordOf(rig)).absoluteExpiresAt).toBe(start + 2 * HOUR)
      }
      await rig.ask((session) => session.reauthenticate())
      const record = await recordOf(rig)
      expect(record.absoluteExpiresAt).toBe(rig.clock.now() + 2 * HOUR)
      expect(record.expiresAt).toBe(rig.clock.now() + HOUR)
      for (const minute of [150, 200]) {
        rig.clock.set(start + minute * MINUTE)
        expect(await rig.whoIs()).toBe('ann')
      }
      rig.clock.set(start + 220 * MINUTE)
      expect(await rig.whoIs()).toBeNull()
    })

    test('gives a new ID and token to the same user with the same fields, ends the old ones, and tells it', async () => {
      const rig = await Rig.start(ground)
      await rig.ask(async (session) => {
        session.set('draft', 'text')
        await session.login('ann')
      })
      const old = rig.client.clone()
      rig.clock.advance(MINUTE)
      await rig.ask(async (session) => {
        session.set('late', true)
        await session.reauthenticate()
      })
      expect(await rig.ask((session) => [session.metadata.userId, { ...session }])).toEqual([
        'ann',
        { draft: 'text', late: true },
      ])
      expect(await rig.ask((session) => session.metadata.authenticatedAt)).toEqual(new Date(rig.clock.now()))
      expect(idOf(rig.client)).not.toBe(idOf(old))
      expect(await rig.whoIs(old)).toBeNull()
      expect(rig.heard('reauthenticated')).toEqual([
        { name: 'reauthenticated', at: rig.clock.now(), id: idOf(rig.client), previousId: idOf(old), userId: 'ann' },
      ])
      expect(rig.heard('login')).toHaveLength(1)
    })

    test('without a user is an error, and changes nothing', async () => {
      const rig = await begin()
      const before = rig.client.cookieHeader
      expect((await refusal(rig.ask((session) => session.reauthenticate()))).code).toBe('INVALID_ARGUMENT')
      expect((await refusal(rig.ask((session) => session.reauthenticate(), rig.stranger()))).code).toBe(
        'INVALID_ARGUMENT',
      )
      expect(rig.client.cookieHeader).toBe(before)
      expect(await isAlive(rig)).toBe(true)
    })
  })

  describe('requireRecentAuth()', () => {
    const options: RigOptions = { idleTimeout: '5h', touchInterval: 0 }
    const enter = (rig: Rig, guard = requireRecentAuth('10m'), client = rig.client): Promise<string> =>
      rig.ask(
        (_session, req, res) =>
          new Promise<string>((resolve, reject) => {
            guard(req, res, (error) => (error === undefined ? resolve('inside') : reject(error as Error)))
          }),
        client,
      )

    test('lets in who logged in or proved who they are lately, and nobody else', async () => {
      const rig = await Rig.start(ground, options)
      expect((await refusal(enter(rig))).code).toBe('REAUTHENTICATION_REQUIRED')
      await rig.ask((session) => session.set('n', 1))
      expect((await refusal(enter(rig))).code).toBe('REAUTHENTICATION_REQUIRED')

      await rig.ask((session) => session.login('ann'))
      expect(await enter(rig)).toBe('inside')
      rig.clock.advance(10 * MINUTE - 1)
      expect(await enter(rig)).toBe('inside')
      rig.clock.advance(1)
      const error = await refusal(enter(rig))
      expect([error.code, error.status]).toEqual(['REAUTHENTICATION_REQUIRED', 401])
      expect(rig.answer?.status).toBe(401)
      expect(rig.answer?.headers['www-authenticate']).toBe(
        'Session error="insufficient_user_authentication", max_age="600"',
      )
      // The session itself is as good as before.
      expect(await rig.whoIs()).toBe('ann')
      await rig.ask((session) => session.reauthenticate())
      expect(await enter(rig)).toBe('inside')
    })

    test('is not fooled by activity, renewal or regenerate()', async () => {
      const rig = await Rig.start(ground, options)
      rig.client = await rig.login('ann')
      rig.clock.advance(11 * MINUTE)
      await rig.ask((session) => session.set('n', 1))
      await rig.ask((session) => session.renew())
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      await rig.manager.refresh(idOf(rig.client))
      expect((await refusal(enter(rig))).code).toBe('REAUTHENTICATION_REQUIRED')
      await rig.ask((session) => session.logout())
      expect((await refusal(enter(rig))).code).toBe('REAUTHENTICATION_REQUIRED')
    })

    test('leaves the answer to onRequired, when that is given', async () => {
      const rig = await Rig.start(ground)
      rig.client = await rig.login('ann')
      const guard = requireRecentAuth(60, {
        onRequired: (_req, _res, next) => next(new Error('go to the login page')),
      })
      expect(await enter(rig, guard)).toBe('inside')
      rig.clock.advance(61 * SECOND)
      await expect(enter(rig, guard)).rejects.toThrow('go to the login page')
      expect(rig.answer?.headers['www-authenticate']).toBeUndefined()
    })

    test('is an error of the request when onRequired fails, at once or later', async () => {
      const rig = await Rig.start(ground)
      const fail = (): never => {
        throw new Error('failed')
      }
      for (const onRequired of [fail, async () => fail()]) {
        await expect(enter(rig, requireRecentAuth(60, { onRequired }))).rejects.toThrow('failed')
        await expect(enter(rig, requireLevel(2, { onRequired }))).rejects.toThrow('failed')
      }
    })
  })
})

describe('presets by NIST SP 800-63B-4', () => {
  test.each([
    ['none', {}, 30 * MINUTE, 12 * HOUR],
    ['aal1', { preset: 'aal1' }, 30 * MINUTE, 30 * DAY],
    ['aal2', { preset: 'aal2' }, HOUR, DAY],
    ['aal3', { preset: 'aal3' }, 15 * MINUTE, 12 * HOUR],
    ['aal2 with an idle timeout', { preset: 'aal2', idleTimeout: '20m' }, 20 * MINUTE, DAY],
    ['aal2 with an absolute timeout', { preset: 'aal2', absoluteTimeout: '8h' }, HOUR, 8 * HOUR],
    ['aal1 with longer ones', { preset: 'aal1', idleTimeout: '40d', absoluteTimeout: '60d' }, 40 * DAY, 60 * DAY],
    ['aal3 with shorter ones', { preset: 'aal3', idleTimeout: '5m', absoluteTimeout: '4h' }, 5 * MINUTE, 4 * HOUR],
    ['aal3 with its own', { preset: 'aal3', idleTimeout: '15m', absoluteTimeout: '12h' }, 15 * MINUTE, 12 * HOUR],
  ] as const)('%s', (_name, options, idleTimeoutMs, absoluteTimeoutMs) => {
    expect(describeOptions(options)).toMatchObject({ idleTimeoutMs, absoluteTimeoutMs })
  })

  test('aal3 refuses longer timeouts, naming which', () => {
    expect(() => describeOptions({ preset: 'aal3', idleTimeout: '16m' })).toThrow(/idleTimeout.*15m.*AAL3/)
    expect(() => describeOptions({ preset: 'aal3', absoluteTimeout: '13h' })).toThrow(/absoluteTimeout.*12h.*AAL3/)
  })

  test.each([
    ['aal1', '31d', '30d'],
    ['aal2', '25h', '1d'],
    ['aal3', '13h', '12h'],
  ] as const)(
    '%s refuses an absolute timeout of %s for one session, from within and from outside',
    async (preset, longer, longest) => {
      const ground = GROUNDS[0]?.[1]() as Ground
      const rig = await Rig.start(ground, { preset })
      rig.client = await rig.login('ann')
      const id = idOf(rig.client)
      const refused = { code: 'INVALID_ARGUMENT', message: expect.stringContaining(`absolute timeout of ${longest}`) }
      const end = (await rig.manager.get(id))?.absoluteExpiresAt
      const within = rig.ask((session) => session.setExpiry('15m', { absoluteTimeout: longer }))
      expect(await refusal(within)).toMatchObject(refused)
      await expect(rig.manager.setExpiry(id, '15m', { absoluteTimeout: longer })).rejects.toMatchObject(refused)
      await expect(rig.manager.setExpiry(id, '60d')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
      expect((await rig.manager.get(id))?.absoluteExpiresAt).toEqual(end)
      await closeRigs()
    },
  )

  test('aal3 holds for the expiry that a session chooses, too', async () => {
    const ground = GROUNDS[0]?.[1]() as Ground
    const rig = await Rig.start(ground, { preset: 'aal3' })
    rig.client = await rig.login('ann')
    await rig.ask((session) => session.setExpiry('15m'))
    expect(await refusal(rig.ask((session) => session.setExpiry('16m')))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/preset.*idle timeout of 15m/),
    })
    const maxAge = rig.ask((session) => {
      session.cookie.maxAge = HOUR
    })
    expect((await refusal(maxAge)).code).toBe('INVALID_ARGUMENT')
    rig.clock.advance(15 * MINUTE)
    expect(await rig.whoIs()).toBeNull()
    await closeRigs()
  })

  test('there are no others', () => {
    for (const preset of ['aal4', 'AAL2', '', 2]) {
      expect(() => describeOptions({ preset: preset as 'aal1' })).toThrow(/preset/)
    }
  })

  test('hold for a session', async () => {
    const ground = GROUNDS[0]?.[1]() as Ground
    const rig = await Rig.start(ground, { preset: 'aal3' })
    rig.client = await rig.login('ann')
    rig.clock.advance(14 * MINUTE)
    expect(await rig.whoIs()).toBe('ann')
    rig.clock.advance(15 * MINUTE)
    expect(await rig.whoIs()).toBeNull()
    await closeRigs()
  })
})

describe('the touch interval', () => {
  test.each([
    ['a tenth of the idle timeout', { idleTimeout: '5m' }, 30 * SECOND],
    ['but at most a minute', { idleTimeout: '5h' }, MINUTE],
    ['or what the option says', { touchInterval: '3m' }, 3 * MINUTE],
    ['which may be nothing', { touchInterval: 0 }, 0],
  ] as const)('is %s', (_name, options, touchIntervalMs) => {
    expect(describeOptions(options)).toMatchObject({ touchIntervalMs })
  })
})

describe('options of timeouts', () => {
  test.each([
    [{ renewAfter: 0 }, 'renewAfter'],
    [{ renewAfter: 'never' }, 'renewAfter'],
    [{ renewGrace: -1 }, 'renewGrace'],
    [{ idleTimeout: 0 }, 'idleTimeout'],
    [{ absoluteTimeout: '11y' }, 'absoluteTimeout'],
    [{ endedRetention: '10ms' }, 'endedRetention'],
    [{ cleanupInterval: '2d' }, 'cleanupInterval'],
    [{ passivePaths: 'poll' }, 'passivePaths'],
    [{ passivePaths: ['poll'] }, 'passivePaths'],
    [{ passivePaths: [/poll/] }, 'passivePaths'],
  ])('%j is refused by name', (options, name) => {
    expect(() => describeOptions(options as unknown as Partial<SessionOptions>)).toThrow(name)
  })

  test.each([[0], ['soon'], [undefined]])('requireRecentAuth(%p) is refused', (maxAge) => {
    expect(() => requireRecentAuth(maxAge as string)).toThrow(/requireRecentAuth/)
  })

  test('so is an onRequired that is no function', () => {
    expect(() => requireRecentAuth('1m', { onRequired: 'login' as never })).toThrow(/onRequired/)
  })

  test('requireRecentAuth() in front of session() says where it belongs', () => {
    const told: unknown[] = []
    requireRecentAuth('1m')({} as never, {}, (error) => told.push(error))
    expect(told).toMatchObject([{ code: 'INVALID_OPTION', message: expect.stringContaining('session()') }])
  })
})

describe('without Express', () => {
  test('requireRecentAuth() and passivePaths work on a plain server', async () => {
    let now = Date.now()
    const manager = new SessionManager({
      secret: SECRET,
      store: new MemorySessionStore({ cleanupInterval: 0 }),
      clock: () => now,
      idleTimeout: '10m',
      touchInterval: 0,
      passivePaths: ['/poll'],
    })
    const attach = manager.middleware()
    const guard = requireRecentAuth('5m')
    const server = createServer((req, res) => {
      attach(req, res, () => {
        const { session } = req as typeof req & { session: Session }
        if (req.url === '/login') void session.login('ann').then(() => res.end())
        else if (req.url === '/vault') {
          guard(req, res, (error) => {
            if (error) res.statusCode = (error as { status: number }).status
            res.end(error ? 'refused' : 'inside')
          })
        } else res.end(String(session.metadata.userId))
      })
    }).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    await client.get('/login')
    expect((await client.get('/vault')).body).toBe('inside')
    now += 6 * MINUTE
    expect((await client.get('/poll')).body).toBe('ann')
    const refused = await client.get('/vault')
    expect([refused.status, refused.headers['www-authenticate']]).toEqual([
      401,
      expect.stringContaining('max_age="300"'),
    ])
    now += 9 * MINUTE
    expect((await client.get('/poll')).body).toBe('ann')
    now += 2 * MINUTE
    expect((await client.get('/poll')).body).toBe('undefined')
    server.closeAllConnections()
    server.close()
    await manager.close()
  })
})
