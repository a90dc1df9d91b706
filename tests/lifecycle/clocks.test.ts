// Clocks that were set back, that run ahead, and that differ a little from process to process.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { requireRecentAuth, type SessionOptions } from 'sojourn'
import { FakeClock } from 'sojourn/testing'
import { closeRigs, GROUNDS, type Ground, idOf, RedisGround, Rig } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe.each(GROUNDS)('clocks on %s', (_name, makeGround) => {
  const ground: Ground = makeGround()
  beforeAll(() => ground.start())
  beforeEach(() => ground.reset())
  afterEach(closeRigs)
  afterAll(() => ground.stop())

  /** A rig whose client is ann. */
  async function begin(options: Partial<SessionOptions> = {}, clock = new FakeClock()): Promise<Rig> {
    const rig = await Rig.start(ground, options, clock)
    await rig.ask((session) => session.login('ann'))
    return rig
  }

  function isRecent(rig: Rig): Promise<boolean> {
    return rig.ask((_session, req, res) => {
      let error: unknown
      requireRecentAuth('1h')(req, res, (given) => {
        error = given
      })
      return error === undefined
    })
  }

  /** How long Redis keeps a session, in ms; for memory, what our clock says. */
  async function keptFor(rig: Rig, id: string): Promise<number> {
    if (ground instanceof RedisGround) return ground.raw.pttl(`${ground.prefix}{${id.slice(0, 4)}}${id.slice(4)}`)
    const record = await rig.store.get(id)
    return (record?.expiresAt ?? 0) - rig.clock.now()
  }

  test('an hour back: the session goes on, and the store keeps it with each touch', async () => {
    const rig = await begin({ idleTimeout: '30m', touchInterval: '1m' })
    const id = idOf(rig.client)
    rig.clock.advance(-HOUR)
    for (let n = 0; n < 4; n++) {
      // As if Redis had forgotten it by its own clock, which was not set back.
      if (ground instanceof RedisGround)
        await ground.raw.pexpire(`${ground.prefix}{${id.slice(0, 4)}}${id.slice(4)}`, 5_000)
      rig.clock.advance(20 * MINUTE)
      expect(await rig.whoIs()).toBe('ann')
      expect(await keptFor(rig, id)).toBeGreaterThan(29 * MINUTE)
    }
    expect(rig.heard('clockSkew')).toMatchObject([{ id, userId: 'ann', aheadMs: 40 * MINUTE }])
    rig.clock.advance(30 * MINUTE)
    expect(await rig.whoIs()).toBeNull()
  })

  test('half a minute back: no event, and a touch is due in a session that is touched more often', async () => {
    const rig = await begin({ idleTimeout: '2m', touchInterval: '10s' })
    rig.clock.advance(-30 * SECOND)
    const before = rig.store.calls.touch
    expect(await rig.whoIs()).toBe('ann')
    expect(rig.store.calls.touch).toBe(before + 1)
    expect(rig.heard('clockSkew')).toEqual([])
  })

  test('a login made a day ahead is settled once, and never counts as a recent one', async () => {
    const ahead = new FakeClock()
    ahead.advance(DAY)
    const before = await begin({ absoluteTimeout: '12h', idleTimeout: '1h' }, ahead)
    const rig = await begin(
      { absoluteTimeout: '12h', idleTimeout: '1h', touchInterval: '1m' },
      new FakeClock(ahead.now() - DAY),
    )
    rig.client = rig.stranger(before.client.cookies)
    const id = idOf(rig.client)
    const start = rig.clock.now()

    expect(await isRecent(rig)).toBe(false)
    expect(rig.heard('clockSkew')).toMatchObject([{ id, userId: 'ann', aheadMs: DAY }])
    const record = await rig.store.get(id)
    expect(record).toMatchObject({ createdAt: start, lastAccessedAt: start, updatedAt: start, unproven: true })
    expect(record).toMatchObject({ expiresAt: start + HOUR, absoluteExpiresAt: start + 12 * HOUR })
    // With the time for which its end can be told.
    expect(await keptFor(rig, id)).toBeLessThanOrEqual(HOUR + 15 * MINUTE)

    for (let minutes = 0; minutes < 11 * 60; minutes += 30) {
      rig.clock.advance(30 * MINUTE)
      expect(await isRecent(rig)).toBe(false)
    }
    expect(rig.heard('clockSkew')).toHaveLength(1)
    expect(await rig.ask((session) => session.metadata.authenticatedAt)).toBeUndefined()
    rig.clock.advance(30 * MINUTE)
    expect(await rig.whoIs()).toBe('ann')
    rig.clock.advance(30 * MINUTE)
    expect(await rig.whoIs()).toBeNull()
  })

  test.each(['reauthenticate', 'login'] as const)(
    '%s ends the doubt, and what keeps the proof keeps the doubt',
    async (act) => {
      const rig = await begin()
      rig.clock.advance(-2 * HOUR)
      expect(await isRecent(rig)).toBe(false)
      await rig.ask((session) => session.regenerate({ keep: true }))
      expect(await isRecent(rig)).toBe(false)
      await rig.ask((session) => session.renew())
      expect(await isRecent(rig)).toBe(false)
      await rig.ask((session) => (act === 'login' ? session.login('ann') : session.reauthenticate()))
      expect(await isRecent(rig)).toBe(true)
      expect(rig.heard('clockSkew')).toHaveLength(1)
    },
  )

  test.each([
    ['get()', async (rig: Rig, id: string) => expect(await rig.manager.get(id)).not.toBeNull()],
    ['validate()', async (rig: Rig, id: string) => expect((await rig.manager.validate(id)).isValid).toBe(true)],
    ['a passive request', async (rig: Rig) => void (await rig.client.get('/passive'))],
  ])('%s settles, too', async (_what, look) => {
    const rig = await begin({ passivePaths: ['/passive'], idleTimeout: '30m' })
    const id = idOf(rig.client)
    rig.clock.advance(-HOUR)
    await look(rig, id)
    expect(rig.heard('clockSkew')).toHaveLength(1)
    const now = rig.clock.now()
    expect(await rig.store.get(id)).toMatchObject({ lastAccessedAt: now, expiresAt: now + 30 * MINUTE, unproven: true })
    rig.clock.advance(29 * MINUTE)
    expect(await rig.whoIs()).toBe('ann')
    expect(rig.heard('clockSkew')).toHaveLength(1)
  })

  test('what cannot be settled is settled for its request, and by the next one', async () => {
    const rig = await begin()
    rig.clock.advance(-HOUR)
    rig.store.fail({ kind: 'error', operations: ['update'], times: 1 })
    expect(await isRecent(rig)).toBe(false)
    expect(await rig.whoIs()).toBe('ann')
    expect(rig.heard('clockSkew')).toHaveLength(2)
    expect(await isRecent(rig)).toBe(false)
    expect(rig.heard('clockSkew')).toHaveLength(2)
  })

  test('a token that was renewed by a clock ahead is renewed in time, and the one before it ends', async () => {
    const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
    await rig.ask((session) => session.renew())
    const old = rig.client.clone()
    await rig.ask((session) => session.renew())
    await rig.whoIs()
    rig.clock.advance(-HOUR)
    expect(await rig.whoIs()).toBe('ann')
    rig.clock.advance(11 * SECOND)
    expect(await rig.whoIs(old)).toBeNull()
    rig.clock.advance(5 * MINUTE)
    const before = rig.client.cookieHeader
    expect(await rig.whoIs()).toBe('ann')
    expect(rig.client.cookieHeader).not.toBe(before)
  })

  test('two processes within the minute write as if they had one clock', async () => {
    const behind = new FakeClock()
    const rig = await begin({ touchInterval: '5m' })
    rig.clock.advance(50 * SECOND)
    const other = await Rig.start(ground, { touchInterval: '5m' }, behind)
    const client = other.stranger(rig.client.cookies)
    await rig.ask((session) => session.set('n', 1))
    const before = other.store.totalCalls
    expect(await other.whoIs(client)).toBe('ann')
    expect(other.store.totalCalls - before).toBeLessThanOrEqual(2)
    expect(other.store.calls.touch + other.store.calls.update).toBe(0)
    expect(other.heard('clockSkew')).toEqual([])
    await other.ask((session) => session.set('m', 1), client)
    expect(await rig.ask((session) => session.keys().sort())).toEqual(['m', 'n'])
  })
})
