// Ends that are told, and clean-up: what is left of a session that is over, on memory and on a real Redis.
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import {
  type EndedSession,
  MemorySessionStore,
  type SessionData,
  SessionManager,
  type SessionOptions,
  type StoredSession,
} from 'sojourn'
import { userKey } from '../../src/ids.js'
import { cookieOf } from '../support/cookies.js'
import { type Client, SECRET, until } from '../support/http.js'
import { closeRigs, collect, GROUNDS, idOf, RedisGround, Rig, refusal } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    jest.restoreAllMocks()
    await closeRigs()
    await ground.reset()
  })

  describe('the next use of a session that is over', () => {
    const ENDINGS: readonly (readonly [reason: string, details: object, act: (rig: Rig, client: Client) => unknown])[] =
      [
        ['logout', {}, (rig, client) => rig.ask((session) => session.logout(), client)],
        ['destroyed', {}, (rig, client) => rig.ask((session) => session.destroy(), client)],
        [
          'regenerated',
          { successor: expect.any(String) },
          (rig, client) => rig.ask(async (session) => void (await session.regenerate()), client),
        ],
        [
          'regenerated',
          { successor: expect.any(String) },
          (rig, client) => rig.ask((session) => session.login('bob'), client),
        ],
        [
          'revoked',
          { by: 'admin', detail: 'stolen' },
          (rig, client) => rig.manager.revoke(idOf(client), { by: 'admin', detail: 'stolen' }),
        ],
        ['revoked', { by: 'user' }, (rig) => rig.manager.revokeUser('ann', { by: 'user' })],
        ['limit', {}, (rig) => rig.login('ann')],
        ['idle', {}, (rig) => rig.clock.advance(30 * MINUTE)],
        [
          'idle',
          {},
          async (rig) => {
            rig.clock.advance(40 * MINUTE)
            await rig.manager.cleanUp()
          },
        ],
        [
          'absolute',
          {},
          async (rig, client) => {
            for (let n = 0; n < 24; n++) {
              rig.clock.advance(29 * MINUTE)
              await rig.whoIs(client)
            }
            rig.clock.advance(24 * MINUTE)
          },
        ],
      ]

    test.each(ENDINGS)(
      'tells %s %j: once as an event, to the hook, and to the handler',
      async (reason, details, act) => {
        const hooked: [EndedSession, string | undefined, boolean][] = []
        const rig = await Rig.start(ground, {
          maxSessionsPerUser: 1,
          onEnded: (ended, req, res) => hooked.push([ended, req.url, 'setHeader' in res]),
        })
        const client = await rig.login('ann')
        const old = client.clone()
        const id = idOf(old)
        rig.clock.advance(SECOND)
        await act(rig, client)
        rig.told.splice(0)
        const end = { reason, at: expect.any(Number), ...details }
        const previousEnd = await rig.ask((session) => session.metadata.previousEnd, old, { path: '/page' })
        expect(previousEnd).toEqual(expect.objectContaining(end))
        expect(hooked).toEqual([[{ id, userId: 'ann', end: previousEnd }, '/page', true]])
        const expected = ['idle', 'absolute'].includes(reason)
          ? { name: 'expired', id, userId: 'ann', reason }
          : { name: 'usedAfterEnd', id, userId: 'ann', end: previousEnd, ip: '127.0.0.1' }
        expect(rig.told).toEqual([{ ...expected, at: rig.clock.now() }])
        expect(await rig.manager.validate(id)).toMatchObject({ isValid: false, end: previousEnd as object })
        // What comes after is a session like any other.
        expect(await rig.ask((session) => [session.isNew, { ...session }, session.metadata.userId], old)).toEqual([
          true,
          {},
          undefined,
        ])
      },
    )

    test('is told apart from an unknown cookie, and from a token that was never good for it', async () => {
      const rig = await Rig.start(ground)
      const client = await rig.login('ann')
      const other = await rig.login('bob')
      await rig.manager.revoke(idOf(client))
      // A cookie that is well signed, with the ID of one session and the token of another.
      const [, token] = (other.cookies.get('sid') as string).split('.') as [string, string]
      rig.told.splice(0)
      await rig.client.get('/plain', { cookie: cookieOf(idOf(client), token) })
      await rig.client.get('/plain', { cookie: cookieOf('00000000-0000-4000-8000-000000000000', token) })
      expect(rig.told.map(({ name }) => name)).toEqual(['tokenMismatch', 'unknownSession'])
    })

    test('is forgotten after endedRetention', async () => {
      const rig = await Rig.start(ground, { endedRetention: '1s' })
      const client = await rig.login('ann')
      await rig.manager.revoke(idOf(client))
      await until(() => isUnknown(rig, client))
      rig.told.splice(0)
      expect(await rig.ask((session) => session.metadata.previousEnd, client)).toBeUndefined()
      expect(rig.told.map(({ name }) => name)).toEqual(['unknownSession'])
    })

    async function isUnknown(rig: Rig, client: Client): Promise<boolean> {
      const found = await rig.manager.validate(idOf(client))
      return !found.isValid && found.reason === 'not-found'
    }

    test('finds neither fields nor anything of the client in what is left', async () => {
      const rig = await Rig.start(ground)
      const client = rig.stranger()
      await rig.ask((session) => session.set('marker', 'MARKER'), client, { headers: { 'user-agent': 'MARKER' } })
      await rig.ask((session) => session.renew(), client)
      await rig.manager.revoke(idOf(client))
      const record = (await rig.store.get(idOf(client))) as SessionData
      expect(record.ended).toMatchObject({ reason: 'revoked' })
      expect([record.context, record.previousToken, [...record.fields]]).toEqual([undefined, undefined, []])
      expect(JSON.stringify([record, await ground.dump()])).not.toContain('MARKER')
      if (ground instanceof RedisGround) {
        const ttl = await ground.raw.ttl(`rig:{${record.id.slice(0, 4)}}${record.id.slice(4)}`)
        expect(ttl).toBeGreaterThan(0)
        expect(ttl).toBeLessThanOrEqual(15 * 60)
      }
    })

    test.each([
      ['rejects', () => Promise.reject(new Error('hook')), 1],
      [
        'throws',
        () => {
          throw new Error('hook')
        },
        1,
      ],
      ['never resolves', () => new Promise<void>(() => {}), 0],
    ])('goes on when the hook %s', async (_what, hook, warnings) => {
      const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const rig = await Rig.start(ground, { onEnded: hook as unknown as NonNullable<SessionOptions['onEnded']> })
      const client = await rig.login('ann')
      await rig.manager.revoke(idOf(client))
      expect(await rig.ask((session) => session.metadata.previousEnd?.reason, client)).toBe('revoked')
      expect(rig.answer?.status).toBe(200)
      await new Promise((resolve) => setImmediate(resolve))
      const messages = warned.mock.calls
        .map(([message]) => String(message))
        .filter((message) => message.includes('hook'))
      expect(messages).toEqual(Array(warnings).fill('onEnded failed: hook'))
    })
  })

  describe('Clear-Site-Data', () => {
    const headerOf = (rig: Rig): unknown => rig.answer?.headers['clear-site-data']

    test('is not sent unless it is asked for', async () => {
      const rig = await Rig.start(ground)
      const client = await rig.login('ann')
      const old = client.clone()
      await rig.ask((session) => session.logout(), client)
      expect(headerOf(rig)).toBeUndefined()
      await rig.whoIs(old)
      expect(headerOf(rig)).toBeUndefined()
    })

    test.each([
      [true, '"cache", "storage"'],
      [['storage'], '"storage"'],
      [['cache', 'storage', 'executionContexts'], '"cache", "storage", "executionContexts"'],
    ] as const)('with %j is sent when the user ends the session', async (clearSiteData, header) => {
      const rig = await Rig.start(ground, { clearSiteData })
      const client = await rig.login('ann')
      expect(headerOf(rig)).toBeUndefined()
      const other = client.clone()
      await rig.ask((session) => session.logout(), client)
      expect(headerOf(rig)).toBe(header)
      expect(client.cookies.size).toBe(0)
      await rig.whoIs(client)
      expect(headerOf(rig)).toBeUndefined()
      // What was a logout to its own browser is nothing to one that only has the old cookie.
      await rig.whoIs(other)
      expect(headerOf(rig)).toBeUndefined()
      const third = await rig.login('ann')
      await rig.ask((session) => session.destroy(), third)
      expect(headerOf(rig)).toBe(header)
    })

    test('is sent to the cookie of a session that was revoked, whether or not the handler looks at the session', async () => {
      const rig = await Rig.start(ground, { clearSiteData: true })
      const [first, second, third] = (await rig.logins('ann', 3)) as [Client, Client, Client]
      await rig.manager.revokeUser('ann')
      await rig.whoIs(first)
      expect(headerOf(rig)).toBe('"cache", "storage"')
      expect((await second.get('/plain')).headers['clear-site-data']).toBe('"cache", "storage"')
      await rig.ask((session) => session.login('ann'), third)
      expect(headerOf(rig)).toBe('"cache", "storage"')
      // It is over with the old cookie.
      await rig.whoIs(third)
      expect(headerOf(rig)).toBeUndefined()
    })

    test('is not sent for a session that ran out or went on under another ID', async () => {
      const rig = await Rig.start(ground, { clearSiteData: true })
      const client = await rig.login('ann')
      const old = client.clone()
      await rig.ask((session) => session.reauthenticate(), client)
      await rig.whoIs(old)
      expect(headerOf(rig)).toBeUndefined()
      rig.clock.advance(HOUR)
      await rig.whoIs(client)
      expect(headerOf(rig)).toBeUndefined()
    })
  })

  describe('clean-up', () => {
    test('archives what ran out before it is removed, takes it off the list of its user, and tells it', async () => {
      const archived: StoredSession[] = []
      const states: (string | undefined)[] = []
      const rig = await Rig.start(ground, {
        idleTimeout: '1h',
        absoluteTimeout: '3h',
        archive: async (session) => {
          archived.push(session)
          states.push((await rig.store.get(session.id))?.ended?.reason)
        },
      })
      const start = rig.clock.now()
      const idle = await rig.manager.create({ userId: 'ann', fields: { cart: ['book'] }, context: { ip: '192.0.2.1' } })
      const live = await rig.manager.create({ userId: 'ann' })
      const revoked = await rig.manager.create({ userId: 'ann' })
      await rig.manager.revoke(revoked.id)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
      rig.clock.set(start + 50 * MINUTE)
      await rig.manager.refresh(live.id)
      rig.clock.set(start + HOUR)
      rig.told.splice(0)

      expect(await rig.manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
      const end = { reason: 'idle', at: start + HOUR }
      expect(archived).toEqual([{ ...idle, end }])
      // It was still there.
      expect(states).toEqual([undefined])
      expect(rig.told).toEqual([
        { name: 'expired', at: rig.clock.now(), id: idle.id, userId: 'ann', reason: 'idle' },
        { name: 'cleaned', at: rig.clock.now(), removed: 1, failed: 0 },
      ])
      const record = (await rig.store.get(idle.id)) as SessionData
      expect([record.ended, record.fields.size]).toEqual([expect.objectContaining(end), 0])
      const entries = (await rig.store.users?.list(userKey('ann'), rig.clock.now())) ?? []
      expect(entries.map(({ id }) => id)).toEqual([live.id])
      expect(await rig.manager.validate(idle.id)).toMatchObject({ reason: 'idle', end })

      // Once is enough.
      expect(await rig.manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
      expect(archived).toHaveLength(1)
      for (let minute = 90; minute < 180; minute += 30) {
        rig.clock.set(start + minute * MINUTE)
        await rig.manager.refresh(live.id)
      }
      rig.clock.set(start + 4 * HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
      expect(archived[1]).toMatchObject({ id: live.id, end: { reason: 'absolute', at: start + 3 * HOUR } })
      expect(await rig.store.users?.list(userKey('ann'), rig.clock.now())).toEqual([])
    })

    test('without archive removes all the same, and tells it', async () => {
      const rig = await Rig.start(ground)
      const clients = await rig.logins('ann', 3)
      rig.clock.advance(HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 3, failed: 0 })
      expect(
        rig
          .heard('expired')
          .map(({ id }) => id)
          .sort(),
      ).toEqual(clients.map(idOf).sort())
      expect(await rig.store.users?.list(userKey('ann'), 0)).toEqual([])
      expect(rig.store.calls.clearExpired).toBe(1)
    })

    test('ends what revokeAll() ended, without archiving it', async () => {
      const archive = jest.fn()
      const rig = await Rig.start(ground, { archive })
      await rig.logins('ann', 3)
      const revoked = rig.manager.revokeAll()
      await until(() => rig.heard('allRevoked').length === 1)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 3, failed: 0 })
      expect(archive).not.toHaveBeenCalled()
      const infos = await collect(rig.manager.list({ status: 'all' }))
      expect(infos.map(({ end }) => end?.reason)).toEqual(['revoked', 'revoked', 'revoked'])
      expect(await rig.store.users?.list(userKey('ann'), 0)).toEqual([])
      await revoked
    })

    test('keeps a session that cannot be archived for the next time, and goes on with the others', async () => {
      const archived: string[] = []
      let isBroken = true
      const rig = await Rig.start(ground, {
        archive: ({ id, fields }) => {
          if (isBroken && fields['n'] === 7) throw new Error('disk full')
          if (isBroken && fields['n'] === 8) return Promise.reject(new Error('disk full'))
          archived.push(id)
          return undefined
        },
      })
      const made = await Promise.all(
        Array.from({ length: 20 }, (_, n) => rig.manager.create({ userId: n, fields: { n } })),
      )
      rig.clock.advance(HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 18, failed: 2 })
      const failed = [made[7]?.id, made[8]?.id]
      expect(rig.heard('archiveFailed')).toHaveLength(2)
      expect(rig.heard('archiveFailed')).toEqual(
        expect.arrayContaining([
          expect.objectContaining({
            id: failed[0],
            userId: 7,
            cause: expect.objectContaining({ message: 'disk full' }),
          }),
        ]),
      )
      for (const id of failed) expect((await rig.store.get(id as string))?.ended).toBeUndefined()
      expect(archived).toHaveLength(18)
      isBroken = false
      expect(await rig.manager.cleanUp()).toEqual({ removed: 2, failed: 0 })
      expect(archived.sort()).toEqual(made.map(({ id }) => id).sort())
    })

    test.each([['error'], ['lost-reply']] as const)(
      'archives at least once when the store fails at the end (%s)',
      async (kind) => {
        const archived: string[] = []
        const rig = await Rig.start(ground, { archive: ({ id }) => archived.push(id) })
        const made = await Promise.all(Array.from({ length: 5 }, () => rig.manager.create()))
        rig.clock.advance(HOUR)
        rig.store.fail({ kind, operations: ['end'], times: 1 })
        expect(await rig.manager.cleanUp()).toEqual({ removed: 4, failed: 1 })
        expect(await rig.manager.cleanUp()).toEqual({ removed: kind === 'error' ? 1 : 0, failed: 0 })
        expect([...new Set(archived)].sort()).toEqual(made.map(({ id }) => id).sort())
        expect(archived).toHaveLength(kind === 'error' ? 6 : 5)
      },
    )

    test('is not held up by an archive that never ends', async () => {
      const rig = await Rig.start(ground, {
        archive: ({ fields }) => (typeof fields['n'] === 'number' ? new Promise(() => {}) : undefined),
      })
      await Promise.all(Array.from({ length: 12 }, (_, n) => rig.manager.create({ fields: { n } })))
      await Promise.all(Array.from({ length: 12 }, () => rig.manager.create({ fields: { n: 'fine' } })))
      rig.clock.advance(HOUR)
      const waits: (() => void)[] = []
      const real = globalThis.setTimeout
      jest.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms?: number, ...args: unknown[]) => {
        // The patience of the clean-up, and nothing else, is over at once.
        const isPatience = (ms ?? 0) >= 15 * SECOND
        if (isPatience) waits.push(run)
        return real(run, isPatience ? 1 : ms, ...(args as []))
      }) as typeof setTimeout)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 12, failed: 12 })
      expect(waits.length).toBeGreaterThanOrEqual(12)
      expect(rig.heard('archiveFailed')).toHaveLength(12)
    })

    test('ten at once archive every session once', async () => {
      const archived: string[] = []
      const rig = await Rig.start(ground)
      const options: SessionOptions = {
        secret: SECRET,
        clock: rig.clock.now,
        archive: async ({ id }) => {
          archived.push(id)
          await new Promise((resolve) => setImmediate(resolve))
        },
      }
      const managers = Array.from({ length: 10 }, () => new SessionManager({ ...options, store: ground.store() }))
      const made = await Promise.all(Array.from({ length: 100 }, (_, n) => rig.manager.create({ userId: n % 7 })))
      rig.clock.advance(HOUR)
      const results = await Promise.all([...managers, ...managers].map((manager) => manager.cleanUp()))
      expect(archived.sort()).toEqual(made.map(({ id }) => id).sort())
      expect(results.some((result) => result === null)).toBe(true)
      // Two calls of one manager at the same time are one run.
      const runs = results.slice(0, 10)
      expect(runs.reduce((sum, result) => sum + (result?.removed ?? 0), 0)).toBe(100)
      await Promise.all(managers.map((manager) => manager.close()))
    })

    test('is done by one process at a time, and by another one when that has died', async () => {
      const rig = await Rig.start(ground)
      await rig.manager.create()
      rig.clock.advance(HOUR)
      // A process that died in the middle of it.
      expect(await rig.store.lease?.('cleanup', 'somebody', 60_000)).toBe(true)
      expect(await rig.manager.cleanUp()).toBeNull()
      await rig.store.lease?.('cleanup', 'somebody', 1)
      await until(async () => (await rig.manager.cleanUp()) !== null)
      expect(rig.heard('cleaned')).toMatchObject([{ removed: 1 }])
      // It gives the right back when it is done.
      const other = await Rig.start(ground, {}, rig.clock)
      await until(async () => (await other.manager.cleanUp()) !== null)
    })

    test('leaves alone what is used while it runs', async () => {
      const waiting: (() => void)[] = []
      const archived: string[] = []
      let isOpen = false
      const rig = await Rig.start(ground, {
        archive: async ({ id }) => {
          archived.push(id)
          if (!isOpen) await new Promise<void>((resolve) => waiting.push(resolve))
        },
      })
      await Promise.all(Array.from({ length: 30 }, () => rig.manager.create()))
      rig.clock.advance(20 * MINUTE)
      const used = await Promise.all(Array.from({ length: 10 }, () => rig.manager.create()))
      // These have a minute left when the clean-up reads them.
      rig.clock.advance(29 * MINUTE)
      const running = rig.manager.cleanUp()
      await until(() => waiting.length === 10)
      for (const { id } of used) expect(await rig.manager.refresh(id)).toBe(true)
      rig.clock.advance(5 * MINUTE)
      isOpen = true
      for (const go of waiting.splice(0)) go()
      expect(await running).toEqual({ removed: 30, failed: 0 })
      for (const { id } of used) expect(await rig.manager.validate(id)).toMatchObject({ isValid: true })
      expect(archived).toHaveLength(30)
    })

    test('leaves alone what was used at the last moment, though that is stored only while it is being archived', async () => {
      const rig = await Rig.start(ground, {
        storeTimeout: '10s',
        touchInterval: 0,
        archive: () => {
          rig.store.release()
          return touched
        },
      })
      const client = await rig.login('ann')
      rig.clock.advance(30 * MINUTE - 1)
      rig.store.fail({ kind: 'delay', operations: ['touch'], times: 1 })
      const touched = rig.ask((session) => session.touch(), client)
      await until(() => rig.store.heldCalls === 1)
      rig.clock.advance(1)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
      expect(await rig.whoIs(client)).toBe('ann')
    })

    test('is stopped by close() after the sessions at hand; the rest waits for another process', async () => {
      const archived: string[] = []
      const waiting: (() => void)[] = []
      const archive = async ({ id }: StoredSession): Promise<void> => {
        archived.push(id)
        await new Promise<void>((resolve) => waiting.push(resolve))
      }
      const rig = await Rig.start(ground, { archive })
      await Promise.all(Array.from({ length: 30 }, () => rig.manager.create()))
      rig.clock.advance(HOUR)
      const running = rig.manager.cleanUp()
      await until(() => waiting.length === 10)
      const closed = rig.manager.close()
      for (const go of waiting.splice(0)) go()
      expect(await running).toEqual({ removed: 10, failed: 0 })
      await closed
      const other = await Rig.start(ground, { archive: ({ id }) => archived.push(id) }, rig.clock)
      await until(async () => (await other.manager.cleanUp()) !== null)
      expect(new Set(archived).size).toBe(30)
      expect(archived).toHaveLength(30)
    })

    test('rejects when the store fails, and works again when the store does', async () => {
      const rig = await Rig.start(ground)
      await rig.manager.create()
      rig.clock.advance(HOUR)
      for (const operation of ['lease', 'scan', 'clearExpired'] as const) {
        rig.store.fail({ kind: 'error', operations: [operation], times: 1 })
        expect((await refusal(rig.manager.cleanUp())).code).toBe('STORE_UNAVAILABLE')
      }
      expect(rig.heard('storeError').map(({ operation }) => operation)).toEqual(['lease', 'scan', 'clearExpired'])
      // The right of the run before runs out.
      await until(async () => (await rig.manager.cleanUp()) !== null)
    })

    test('runs by itself at cleanupInterval, and survives a failure of the store', async () => {
      const rig = await Rig.start(ground, { cleanupInterval: '5ms' })
      rig.store.fail({ kind: 'error', operations: ['lease'], times: 2 })
      const { id } = await rig.manager.create()
      await until(() => rig.heard('storeError').length === 2)
      rig.clock.advance(HOUR)
      await until(() => rig.heard('expired').some((event) => event.id === id))
      await rig.close()
      const count = rig.store.calls.lease
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(rig.store.calls.lease).toBe(count)
    })

    test('does not need keyspace notifications, and switches none on', async () => {
      const rig = await Rig.start(ground, { archive: () => {} })
      await rig.logins('ann', 2)
      rig.clock.advance(HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 2, failed: 0 })
      if (ground instanceof RedisGround) {
        expect(await ground.raw.config('GET', 'notify-keyspace-events')).toEqual(['notify-keyspace-events', ''])
        expect(await ground.raw.info('commandstats')).not.toMatch(/subscribe/)
      }
    })

    test('passes over records that cannot be read', async () => {
      if (!(ground instanceof RedisGround)) return expect(await ground.dump()).toEqual([])
      const rig = await Rig.start(ground)
      const made = await Promise.all(Array.from({ length: 5 }, () => rig.manager.create()))
      const keys = made.map(({ id }) => `rig:{${id.slice(0, 4)}}${id.slice(4)}`)
      await ground.raw.set(keys[0] as string, 'm\tjunk\n')
      await ground.raw.set(keys[1] as string, 'no lines')
      rig.clock.advance(HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 3, failed: 0 })
      expect(rig.heard('cleaned')).toHaveLength(1)
    })
  })
})

describe('the timer of the clean-up', () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length

  test('does not keep the process alive', async () => {
    const before = timers()
    const other = setInterval(() => {}, HOUR)
    expect(timers()).toBe(before + 1)
    clearInterval(other)
    const store = new MemorySessionStore()
    const manager = new SessionManager({ secret: SECRET, store, archive: () => {}, cleanupInterval: '1m' })
    expect(timers()).toBe(before)
    await manager.close()
  })

  test('is there once a minute with archive, and never without', () => {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const intervals: unknown[] = []
    const spy = jest.spyOn(globalThis, 'setInterval')
    for (const options of [
      {},
      { archive: () => {} },
      { cleanupInterval: '5m' },
      { archive: () => {}, cleanupInterval: 0 },
    ]) {
      const manager = new SessionManager({ secret: SECRET, store, ...options })
      intervals.push(manager.describe()['cleanupIntervalMs'])
      void manager.close()
    }
    expect(intervals).toEqual([0, MINUTE, 5 * MINUTE, 0])
    expect(spy.mock.calls.map(([, ms]) => ms)).toEqual([MINUTE, 5 * MINUTE])
    spy.mockRestore()
  })

  test('with archive, ended sessions are kept for at least a day, so that none is forgotten before it', () => {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const retentionOf = (options: Partial<SessionOptions>): unknown =>
      new SessionManager({ secret: SECRET, store, cleanupInterval: 0, ...options }).describe()['retentionSeconds']
    expect(retentionOf({})).toBe(15 * 60)
    expect(retentionOf({ archive: () => {} })).toBe(DAY / SECOND)
    expect(retentionOf({ archive: () => {}, endedRetention: '2d' })).toBe((2 * DAY) / SECOND)
    expect(retentionOf({ endedRetention: '1h' })).toBe(HOUR / SECOND)
  })
})
