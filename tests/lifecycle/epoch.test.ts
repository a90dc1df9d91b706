// The epoch that cannot be read: who is logged in goes on for a while, and nobody is let in who was logged out.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals'
import { userKey } from '../../src/ids.js'
import { EPOCH_LEASE_MS, EPOCH_PATIENCE_MS } from '../../src/lifecycle/epoch.js'
import { type Client, until } from '../support/http.js'
import { closeRigs, GROUNDS, type Ground, idOf, RedisGround, Rig, refusal } from '../support/rig.js'

let shiftMs = 0
beforeEach(() => {
  shiftMs = 0
  const real = performance.now.bind(performance)
  jest.spyOn(performance, 'now').mockImplementation(() => real() + shiftMs)
})
afterEach(() => {
  jest.restoreAllMocks()
})

describe.each(GROUNDS)('an epoch that cannot be read, on %s', (_name, makeGround) => {
  const ground: Ground = makeGround()
  beforeAll(() => ground.start())
  beforeEach(() => ground.reset())
  afterEach(closeRigs)
  afterAll(() => ground.stop())

  test('a process goes on by the last one for a minute, then answers 503, and goes on when it can be read', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((session) => session.login('ann'))
    rig.store.fail({ kind: 'error', operations: ['epoch'] })
    for (let n = 1; n < EPOCH_PATIENCE_MS / EPOCH_LEASE_MS / 10; n++) {
      shiftMs += 10 * EPOCH_LEASE_MS
      expect(await rig.whoIs()).toBe('ann')
    }
    // A login is as good.
    await rig.ask((session) => session.login('ann'))
    const asked = rig.store.calls.epoch
    for (let n = 0; n < 5; n++) expect(await rig.whoIs()).toBe('ann')
    expect(rig.store.calls.epoch).toBe(asked)
    shiftMs += 11 * EPOCH_LEASE_MS
    const { cookieHeader } = rig.client
    for (let n = 0; n < 2; n++) {
      await expect(rig.whoIs()).rejects.toMatchObject({ status: 503 })
      expect(rig.answer?.setCookies).toEqual([])
    }
    rig.store.repair()
    expect(await rig.whoIs()).toBe('ann')
    expect(rig.client.cookieHeader).toBe(cookieHeader)
  })

  test('a process that never read it answers 503', async () => {
    const before = await Rig.start(ground)
    await before.ask((session) => session.login('ann'))
    const rig = await Rig.start(ground)
    rig.store.fail({ kind: 'error', operations: ['epoch'] })
    await expect(rig.whoIs(rig.stranger(before.client.cookies))).rejects.toMatchObject({ status: 503 })
  })

  test('what was revoked by this process stays so', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((session) => session.login('ann'))
    await rig.manager.revokeAll()
    rig.store.fail({ kind: 'error', operations: ['epoch'] })
    shiftMs += EPOCH_LEASE_MS
    expect(await rig.whoIs()).toBeNull()
  })
})

describe('keys of Redis that hold junk', () => {
  const ground = new RedisGround()
  beforeAll(() => ground.start())
  beforeEach(() => ground.reset())
  afterEach(closeRigs)
  afterAll(() => ground.stop())

  test.each(['a text', 'a list'])(
    'the epoch is %s: told with its name, and mended by a process that knows it',
    async (kind) => {
      const rig = await Rig.start(ground)
      await rig.manager.revokeAll()
      await rig.ask((session) => session.login('ann'))
      const key = `${ground.prefix}epoch`
      await ground.raw.del(key)
      await (kind === 'a list' ? ground.raw.rpush(key, 'x') : ground.raw.set(key, 'nonsense'))
      shiftMs += EPOCH_LEASE_MS
      expect(await rig.whoIs()).toBe('ann')
      const [told] = rig.heard('corruptKey')
      expect(told).toMatchObject({ operation: 'epoch', cause: { message: expect.stringContaining(key) } })
      const refused = await refusal(rig.manager.revokeAll())
      expect(refused).toMatchObject({ code: 'STORE_UNAVAILABLE', status: 503 })

      shiftMs += EPOCH_PATIENCE_MS
      await expect(rig.whoIs()).rejects.toMatchObject({ status: 503 })
      await ground.raw.del(key)
      expect(await rig.whoIs()).toBe('ann')
      expect(await ground.raw.get(key)).toBe('1')
    },
  )

  test('Redis refuses the key of the epoch alone', async () => {
    await ground.raw.acl('SETUSER', 'app', 'on', '>secret', '~rig:*', '+@all')
    const rig = await Rig.start(ground)
    await rig.ask((session) => session.login('ann'))
    const { RedisSessionStore } = await import('sojourn/redis')
    const url = ground.server.url.replace('//', '//app:secret@')
    const limited = await Rig.start(
      { ...ground, store: () => new RedisSessionStore({ url, prefix: ground.prefix }) } as unknown as Ground,
      {},
      rig.clock,
    )
    limited.client = limited.stranger(rig.client.cookies)
    expect(await limited.whoIs()).toBe('ann')
    await ground.raw.acl('SETUSER', 'app', 'resetkeys', '~rig:{*', '~rig:u:*')
    shiftMs += EPOCH_LEASE_MS
    expect(await limited.whoIs()).toBe('ann')
    expect(limited.heard('storeError')).toMatchObject([{ operation: 'epoch' }])
    shiftMs += EPOCH_PATIENCE_MS
    await expect(limited.whoIs()).rejects.toMatchObject({ status: 503 })
  })

  describe('the list of a user', () => {
    async function begin(options = {}): Promise<{ rig: Rig; ann: Client; key: string }> {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2, ...options })
      const ann = await rig.login('ann')
      const [key = ''] = await ground.raw.keys(`${ground.prefix}u:*`)
      await rig.login('bob')
      rig.clock.advance(1_000)
      await ground.raw.set(key, 'junk')
      return { rig, ann, key }
    }
    const idsOf = async (rig: Rig): Promise<string[]> => (await rig.manager.sessionsOf('ann')).map(({ id }) => id)

    test('is told, and made anew from the sessions of that user by the next who needs it', async () => {
      const { rig, ann, key } = await begin()
      expect(await rig.whoIs(ann)).toBe('ann')
      const second = await rig.login('ann')
      for (const { cause } of rig.heard('corruptKey')) expect(cause.message).toContain(key)
      expect(rig.heard('corruptKey').map(({ operation }) => operation)).toEqual(['users.add'])
      expect((await idsOf(rig)).sort()).toEqual([idOf(ann), idOf(second)].sort())
      // The limit holds for what was there before.
      rig.clock.advance(1_000)
      const third = await rig.login('ann')
      expect([await rig.whoIs(ann), await rig.whoIs(second), await rig.whoIs(third)]).toEqual([null, 'ann', 'ann'])
      // It goes when its last session does.
      expect(await ground.raw.pttl(key)).toBeGreaterThan(0)
    })

    test('does not keep revokeUser() from any session', async () => {
      const { rig, ann } = await begin()
      expect(await rig.manager.revokeUser('ann')).toBe(1)
      expect(await rig.whoIs(ann)).toBeNull()
    })

    test('is made anew once, and in no process over what another has written since', async () => {
      const { rig } = await begin({ maxSessionsPerUser: 10 })
      const other = await Rig.start(ground, { maxSessionsPerUser: 10 }, rig.clock)
      await Promise.all([rig, other, rig, other, rig].map((each) => each.login('ann')))
      expect(await idsOf(rig)).toHaveLength(6)
      expect(rig.store.calls.scan).toBe(1)
      const user = userKey('ann')
      const entries = await rig.store.users?.list(user, rig.clock.now())
      await rig.store.users?.restore?.(user, [], rig.clock.now())
      expect(await rig.store.users?.list(user, rig.clock.now())).toEqual(entries)
    })

    test('is waited for no longer than a deadline: 503, and it is there for the next', async () => {
      const { rig, ann } = await begin()
      const hasty = await Rig.start(ground, { storeTimeout: 0.3 }, rig.clock)
      hasty.store.fail({ kind: 'delay', operations: ['users.restore'], times: 1 })
      // Of a store with so many sessions that to go through them takes longer.
      expect(await refusal(hasty.login('ann'))).toMatchObject({ status: 503 })
      expect(await rig.whoIs(ann)).toBe('ann')
      hasty.store.release()
      await until(() =>
        hasty.login('ann').then(
          () => true,
          () => false,
        ),
      )
      expect(await rig.whoIs(ann)).toBe('ann')
    })

    test('fails with its own failure, for that user alone, while it cannot be made anew', async () => {
      const { rig } = await begin()
      rig.store.fail({ kind: 'error', operations: ['users.restore'] })
      for (const call of [rig.login('ann'), rig.manager.sessionsOf('ann'), rig.manager.revokeUser('ann')]) {
        expect(await refusal(call)).toMatchObject({ status: 503 })
      }
      expect(await rig.whoIs(await rig.login('bob'))).toBe('bob')
      rig.store.repair()
      expect(await idsOf(rig)).toHaveLength(1)
    })
  })
})
