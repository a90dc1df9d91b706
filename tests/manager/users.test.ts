// The sessions of a user: logging in and out, listing, limiting and revoking them, on memory and on a real Redis, and with a
// crash at every step.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { type Session, type SessionData, SessionManager, type SessionStore, type UserEntry } from 'sojourn'
import { FakeClock, type StoreOperation } from 'sojourn/testing'
import { userKey } from '../../src/ids.js'
import { type Client, SECRET, until } from '../support/http.js'
import { closeRigs, collect, GROUNDS, type Ground, idOf, partsOf, RedisGround, Rig, refusal } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

/** IDs of live sessions with a user that the index does not know: nobody could end them. */
async function strays(store: SessionStore, now: number): Promise<string[]> {
  const found: string[] = []
  for await (const { id, userId, ended, expiresAt } of (store as Required<SessionStore>).scan()) {
    if (userId === undefined || ended || now >= expiresAt) continue
    const entries = await entriesOf(store, userId, now)
    if (!entries.some((entry) => entry.id === id)) found.push(id)
  }
  return found
}

async function entriesOf(store: SessionStore, userId: string | number, now: number): Promise<readonly UserEntry[]> {
  return (await store.users?.list(userKey(userId), now)) ?? []
}

/** IDs of the live sessions of a user, by going through the store. */
async function liveOf(rig: Rig, userId: string | number): Promise<string[]> {
  const live: string[] = []
  for await (const info of rig.manager.list()) if (info.userId === userId) live.push(info.id)
  return live.sort()
}

async function idsOf(rig: Rig, userId: string | number): Promise<string[]> {
  return (await rig.manager.sessionsOf(userId)).map(({ id }) => id).sort()
}

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  describe('login() and logout()', () => {
    test('bind and free a user, under a new ID and token each time, and tell it in order', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('basket', ['book']))
      const first = partsOf(rig.client)
      await rig.ask((session) => session.login('ann'))
      const second = partsOf(rig.client)
      expect(await rig.ask((session) => [session.metadata.userId, session.get('basket')])).toEqual(['ann', ['book']])
      await rig.ask((session) => session.login('bob'))
      const third = partsOf(rig.client)
      expect(new Set([first, second, third].map(([id]) => id)).size).toBe(3)
      expect(new Set([first, second, third].map(([, token]) => token)).size).toBe(3)
      // Of the session of another user nothing goes over.
      expect(await rig.ask((session) => [session.metadata.userId, session.keys()])).toEqual(['bob', []])
      expect(await idsOf(rig, 'ann')).toEqual([])
      expect(await idsOf(rig, 'bob')).toEqual([third[0]])
      await rig.ask((session) => session.logout())
      expect(await idsOf(rig, 'bob')).toEqual([])
      expect(rig.heard('created', 'login', 'logout')).toEqual([
        { name: 'created', at: rig.clock.now(), id: first[0], userId: undefined },
        { name: 'login', at: rig.clock.now(), id: second[0], previousId: first[0], userId: 'ann' },
        { name: 'login', at: rig.clock.now(), id: third[0], previousId: second[0], userId: 'bob' },
        { name: 'logout', at: rig.clock.now(), id: third[0], userId: 'bob' },
      ])
      // Nothing is left on any list.
      for (const user of ['ann', 'bob']) expect(await entriesOf(rig.store, user, rig.clock.now())).toEqual([])
    })

    test('keep the kind of the user ID: 1 and "1" are two users', async () => {
      const rig = await Rig.start(ground)
      const number = await rig.login(1)
      const text = await rig.login('1')
      expect([await rig.whoIs(number), await rig.whoIs(text)]).toEqual([1, '1'])
      expect(await idsOf(rig, 1)).toEqual([idOf(number)])
      expect(await idsOf(rig, '1')).toEqual([idOf(text)])
      expect(await rig.manager.revokeUser('1')).toBe(1)
      expect([await rig.whoIs(number), await rig.whoIs(text)]).toEqual([1, null])
    })

    test.each([[''], [Number.NaN], [Number.POSITIVE_INFINITY], [null], [undefined], [true], [{}], [['ann']], [1n]])(
      'refuse %p as a user, and nothing changes',
      async (userId) => {
        const rig = await Rig.start(ground)
        await rig.ask((session) => session.set('a', 1))
        const before = rig.client.cookieHeader
        const error = await refusal(rig.ask((session) => session.login(userId as string)))
        expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('user ID') })
        expect(rig.client.cookieHeader).toBe(before)
        expect(await rig.ask((session) => [session.get('a'), session.metadata.userId])).toEqual([1, undefined])
      },
    )

    test.each(['error', 'lost-reply'] as const)(
      'log in, as one session, when users.settle fails (%s)',
      async (kind) => {
        const rig = await Rig.start(ground, { maxSessionsPerUser: 1, onSessionLimit: 'refuse', storeTimeout: '10s' })
        await rig.ask((session) => session.set('a', 1))
        rig.store.fail({ kind, operations: ['users.settle'] })
        await rig.ask((session) => session.login('ann'))
        expect(await rig.whoIs()).toBe('ann')
        rig.store.repair()
        expect(await liveOf(rig, 'ann')).toEqual([idOf(rig.client)])
        expect(await idsOf(rig, 'ann')).toEqual([idOf(rig.client)])
        expect((await refusal(rig.login('ann'))).code).toBe('SESSION_LIMIT')
        await rig.manager.revokeUser('ann')
        expect(await rig.whoIs()).toBeNull()
      },
    )

    test('log in when one over the limit cannot be ended, which is ended by whoever comes next', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, storeTimeout: '10s' })
      const oldest = await rig.login('ann')
      rig.store.fail({ kind: 'error', operations: ['end'] })
      const later = await rig.login('ann')
      expect(await rig.whoIs(later)).toBe('ann')
      rig.store.repair()
      const last = await rig.login('ann')
      expect([await rig.whoIs(oldest), await rig.whoIs(later), await rig.whoIs(last)]).toEqual([null, null, 'ann'])
      expect(await liveOf(rig, 'ann')).toEqual([idOf(last)])
    })

    test('try again by themselves to end one over the limit', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, storeTimeout: '10s' })
      const oldest = await rig.login('ann')
      rig.store.fail({ kind: 'error', operations: ['end'], times: 1 })
      const later = await rig.login('ann')
      await until(async () => (await rig.whoIs(oldest)) === null)
      expect(await rig.whoIs(later)).toBe('ann')
      expect(rig.heard('limit')).toMatchObject([{ outcome: 'ended-oldest', ended: [idOf(oldest)] }])
    })

    test('cost no other session of the user its place when they fail on the way to the list', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 3, storeTimeout: '10s' })
      const [oldest, ...others] = (await rig.logins('ann', 3)) as [Client, ...Client[]]
      // The first call is told that the list is full, the second makes room there.
      rig.store.fail({ kind: 'delay', delayMs: 0, operations: ['users.add'], times: 1 })
      rig.store.fail({ kind: 'lost-reply', operations: ['users.add'], times: 1 })
      expect((await refusal(rig.login('ann'))).code).toBe('STORE_UNAVAILABLE')
      await rig.login('ann')
      expect(await rig.whoIs(oldest)).toBeNull()
      for (const client of others) expect(await rig.whoIs(client)).toBe('ann')
    })

    test('log in, as one session, when the answer to regenerate is lost', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, onSessionLimit: 'refuse', storeTimeout: '10s' })
      await rig.ask((session) => session.set('a', 1))
      rig.store.fail({ kind: 'lost-reply', operations: ['regenerate'], times: 1 })
      await rig.ask((session) => session.login('ann'))
      expect(await rig.whoIs()).toBe('ann')
      expect(await liveOf(rig, 'ann')).toEqual([idOf(rig.client)])
    })

    test('leave exactly one of old and new alive whenever one looks', async () => {
      const rig = await Rig.start(ground, { storeTimeout: '10s' })
      rig.client = await rig.login('ann')
      const old = rig.client.clone()
      for (const operation of ['users.add', 'regenerate', 'users.settle'] as const) {
        const before = idOf(rig.client)
        rig.store.fail({ kind: 'delay', operations: [operation], times: 1 })
        const pending = rig.ask((session) => session.login('ann'))
        await until(() => rig.store.heldCalls === 1)
        const other = new SessionManager({ secret: SECRET, store: ground.store(), clock: rig.clock.now })
        const live = await collect(other.list())
        expect([operation, live.length]).toEqual([operation, 1])
        expect(live[0]?.id === before).toBe(operation !== 'users.settle')
        expect((await other.sessionsOf('ann')).map(({ id }) => id)).toEqual([live[0]?.id])
        rig.store.release()
        await pending
        expect(await liveOf(rig, 'ann')).toEqual([idOf(rig.client)])
      }
      expect(await rig.whoIs(old)).toBeNull()
    })
  })

  describe('sessionsOf()', () => {
    test('shows devices, times and which one is current, the last active first', async () => {
      const rig = await Rig.start(ground, { touchInterval: 0, idleTimeout: '1h' })
      const start = rig.clock.now()
      const phone = await rig.login('ann', { 'user-agent': 'Phone', 'accept-language': 'fr' })
      rig.clock.advance(MINUTE)
      const laptop = await rig.login('ann', { 'user-agent': 'Laptop' })
      rig.clock.advance(MINUTE)
      const old = await rig.login('ann', { 'user-agent': 'Old' })
      await rig.login('bob')
      rig.clock.advance(MINUTE)
      expect(await rig.whoIs(phone)).toBe('ann')
      await rig.ask((session) => session.logout(), old.clone())

      const times = (created: number, active: number) => ({
        createdAt: new Date(start + created * MINUTE),
        authentication: { methods: [], level: 1, at: new Date(start + created * MINUTE) },
        isDeviceBound: false,
        updatedAt: new Date(start + created * MINUTE),
        lastAccessedAt: new Date(start + active * MINUTE),
        expiresAt: new Date(start + (active + 60) * MINUTE),
        absoluteExpiresAt: new Date(start + (created + 720) * MINUTE),
      })
      const expected = [
        {
          id: idOf(phone),
          userId: 'ann',
          ...times(0, 3),
          context: { ip: '127.0.0.1', userAgent: 'Phone', locale: 'fr' },
          end: undefined,
          isCurrent: false,
        },
        {
          id: idOf(laptop),
          userId: 'ann',
          ...times(1, 1),
          context: { ip: '127.0.0.1', userAgent: 'Laptop' },
          end: undefined,
          isCurrent: true,
        },
      ]
      expect(await rig.manager.sessionsOf('ann', { current: idOf(laptop) })).toEqual(expected)
      const own = await rig.ask((session) => rig.manager.sessionsOf('ann', { current: session }), phone)
      expect(own.map(({ id, isCurrent }) => [id, isCurrent])).toEqual([
        [idOf(phone), true],
        [idOf(laptop), false],
      ])
      expect((await rig.manager.sessionsOf('ann')).map(({ isCurrent }) => isCurrent)).toEqual([false, false])
      expect(await rig.manager.sessionsOf('nobody')).toEqual([])
    })

    test('leaves out what ran out, and takes it off the list', async () => {
      const rig = await Rig.start(ground, { idleTimeout: '10m' })
      const [first, second] = (await rig.logins('ann', 2)) as [Client, Client]
      rig.clock.advance(9 * MINUTE)
      expect(await rig.whoIs(second)).toBe('ann')
      rig.clock.advance(2 * MINUTE)
      expect(await entriesOf(rig.store, 'ann', rig.clock.now())).toHaveLength(2)
      expect(await idsOf(rig, 'ann')).toEqual([idOf(second)])
      expect((await entriesOf(rig.store, 'ann', rig.clock.now())).map(({ id }) => id)).toEqual([idOf(second)])
      expect(await rig.whoIs(first)).toBeNull()
    })

    test('follows a session through renewal and regeneration, and outlives a longer absolute timeout', async () => {
      const rig = await Rig.start(ground, { absoluteTimeout: '2h' })
      rig.client = await rig.login('ann')
      await rig.ask((session) => session.renew())
      expect(await idsOf(rig, 'ann')).toEqual([idOf(rig.client)])
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      expect(await idsOf(rig, 'ann')).toEqual([idOf(rig.client)])
      await rig.ask((session) => session.setExpiry('10h', { absoluteTimeout: '10h' }))
      rig.clock.advance(9 * HOUR)
      expect(await rig.whoIs()).toBe('ann')
      expect(await idsOf(rig, 'ann')).toEqual([idOf(rig.client)])
      expect(await rig.manager.revokeUser('ann')).toBe(1)
      expect(await rig.whoIs()).toBeNull()
    })
  })

  describe('hostile user IDs', () => {
    const HOSTILE: readonly (readonly [name: string, userId: string | number])[] = [
      ['a glob', '*[?'],
      ['another glob', 'a*'],
      ['a hash tag', '{}'],
      ['a hash tag that is open', '}{a'],
      ['line breaks', 'a\r\nDEL rig:*\r\n'],
      ['NUL', '\u0000'],
      ['NUL behind a name', 'ann\u0000'],
      ['10 KB', 'x'.repeat(10_240)],
      ['10 KB that differ at the end', `${'x'.repeat(10_239)}y`],
      ['__proto__', '__proto__'],
      ['constructor', 'constructor'],
      ['a lone surrogate', '\ud800'],
      ['another lone surrogate', '\udfff'],
      ['what UTF-8 makes of both', '\ufffd'],
      ['a blank', ' '],
      ['a name', 'ann'],
      ['a name in other letters', 'Ann'],
      ['a composed letter', '\u00e9'],
      ['the same letter, decomposed', 'e\u0301'],
      ['JSON', '{"a":1}'],
      ['a kind and a value', 'number:1'],
      ['1', 1],
      ['"1"', '1'],
      ['1.5', 1.5],
      ['-1', -1],
      ['1e21', 1e21],
      ['"1e+21"', '1e+21'],
      ['the largest number', Number.MAX_VALUE],
      ['the smallest number', Number.MIN_VALUE],
      ['0', 0],
    ]

    test('never meet the sessions of another user, and are in no key', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2 })
      const clients = new Map<string | number, Client[]>()
      // Logging in once too often ends the own first session and no other.
      for (const [, userId] of HOSTILE) clients.set(userId, await rig.logins(userId, 3))
      for (const [name, userId] of HOSTILE) {
        const [first, ...others] = clients.get(userId) as [Client, Client, Client]
        expect([name, await rig.whoIs(first)]).toEqual([name, null])
        for (const client of others) expect(await rig.whoIs(client)).toBe(userId)
        expect(await idsOf(rig, userId)).toEqual(others.map(idOf).sort())
        expect(await collect(rig.manager.list({ userId }))).toHaveLength(2)
      }
      if (ground instanceof RedisGround) {
        for (const [key] of await ground.dump()) {
          expect(key).toMatch(/^rig:(\{[0-9a-f]{4}\}[0-9a-f-]{32}|u:\{[\w-]{43}\}|epoch)$/)
        }
      }
      let left = HOSTILE.length * 2
      for (const [name, userId] of HOSTILE) {
        expect([name, await rig.manager.revokeUser(userId)]).toEqual([name, 2])
        left -= 2
        expect(await rig.manager.count()).toBe(left)
      }
    })

    test('0 and -0 are one user', async () => {
      const rig = await Rig.start(ground)
      await rig.login(0)
      await rig.login(-0)
      expect(await rig.manager.sessionsOf(0)).toHaveLength(2)
      expect(await rig.manager.count({ userId: -0 })).toBe(2)
      expect(await rig.manager.revokeUser(-0)).toBe(2)
    })
  })

  describe('revoke()', () => {
    test('ends what became of a session that was regenerated in the meantime', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('a', 1))
      const listed = idOf(rig.client)
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      await rig.ask((session) => session.login('ann'))
      await rig.ask((session) => session.reauthenticate())
      expect(await rig.whoIs()).toBe('ann')
      expect(await rig.manager.revoke(listed, { by: 'admin' })).toBe(true)
      expect(await rig.whoIs()).toBeNull()
      expect(await rig.manager.count()).toBe(0)
      expect(await idsOf(rig, 'ann')).toEqual([])
      expect(await rig.manager.validate(listed)).toMatchObject({ reason: 'ended', end: { reason: 'regenerated' } })
      expect(await rig.manager.revoke(listed)).toBe(false)
    })

    test('holds at once in every process', async () => {
      const here = await Rig.start(ground)
      const there = await Rig.start(ground, {}, here.clock)
      const client = await there.login('ann')
      expect(await there.whoIs(client)).toBe('ann')
      expect(await here.manager.revoke(idOf(client))).toBe(true)
      expect(await there.whoIs(client)).toBeNull()
      expect(await there.manager.sessionsOf('ann')).toEqual([])
    })

    test('is not undone by what was under way', async () => {
      const rig = await Rig.start(ground, { storeTimeout: '10s' })
      const acts = {
        update: (client: Client) => rig.ask((session) => session.set('late', true), client),
        touch: (client: Client) => rig.ask((session) => session.touch({ force: true }), client),
        regenerate: (client: Client) => rig.ask((session) => session.login('ann'), client),
      }
      for (const [operation, act] of Object.entries(acts) as [StoreOperation, (client: Client) => Promise<void>][]) {
        const client = await rig.login('ann')
        rig.store.fail({ kind: 'delay', operations: [operation], times: 1 })
        const pending = act(client)
        await until(() => rig.store.heldCalls === 1)
        expect(await rig.manager.revoke(idOf(client))).toBe(true)
        rig.store.release()
        expect((await refusal(pending)).code).toBe('SESSION_ENDED')
        expect(await rig.whoIs(client)).toBeNull()
        expect(await rig.manager.count()).toBe(0)
        expect(await idsOf(rig, 'ann')).toEqual([])
      }
      expect(rig.heard('lateWrite').length).toBeGreaterThan(0)
    })
  })

  describe('revokeUser()', () => {
    test('ends all sessions of a user in all processes, and no other', async () => {
      const here = await Rig.start(ground)
      const there = await Rig.start(ground, {}, here.clock)
      const doomed = [...(await here.logins('ann', 3)), ...(await there.logins('ann', 2))]
      const others = [await here.login('bob'), await there.login('bob')]
      const guest = here.stranger()
      await here.ask((session) => session.set('a', 1), guest)
      expect(await here.manager.revokeUser('ann', { by: 'admin', detail: 'left the company' })).toBe(5)
      for (const rig of [here, there]) {
        for (const client of doomed) expect(await rig.whoIs(rig.stranger(client.cookies))).toBeNull()
        for (const client of others) expect(await rig.whoIs(rig.stranger(client.cookies))).toBe('bob')
      }
      expect(await here.ask((session) => session.get('a'), guest)).toBe(1)
      expect(await idsOf(here, 'ann')).toEqual([])
      expect(
        here
          .heard('revoked')
          .map(({ id }) => id)
          .sort(),
      ).toEqual(doomed.map(idOf).sort())
      expect(here.heard('revoked')[0]).toMatchObject({ userId: 'ann', by: 'admin', detail: 'left the company' })
      expect(await here.manager.validate(idOf(doomed[0] as Client))).toMatchObject({
        end: { reason: 'revoked', by: 'admin', detail: 'left the company' },
      })
      expect(await here.manager.revokeUser('ann')).toBe(0)
      // The user may come back.
      expect(await here.whoIs(await here.login('ann'))).toBe('ann')
    })

    test('but the session that asks: it goes on under a new ID and token, and its old cookie is dead', async () => {
      const rig = await Rig.start(ground)
      const [first, second, asks] = (await rig.logins('ann', 3)) as [Client, Client, Client]
      await rig.ask((session) => session.set('draft', 'text'), asks)
      const old = asks.clone()
      const ended = await rig.ask((session) => rig.manager.revokeUser('ann', { except: session }), asks)
      expect(ended).toBe(2)
      expect(idOf(asks)).not.toBe(idOf(old))
      expect(partsOf(asks)[1]).not.toBe(partsOf(old)[1])
      expect(await rig.ask((session) => [session.metadata.userId, session.get('draft')], asks)).toEqual(['ann', 'text'])
      for (const client of [first, second, old]) expect(await rig.whoIs(client)).toBeNull()
      expect(await idsOf(rig, 'ann')).toEqual([idOf(asks)])
      expect(await liveOf(rig, 'ann')).toEqual([idOf(asks)])
    })

    test('but one by its ID, which stays as it is', async () => {
      const rig = await Rig.start(ground)
      const [first, spared, last] = (await rig.logins('ann', 3)) as [Client, Client, Client]
      expect(await rig.manager.revokeUser('ann', { except: idOf(spared) })).toBe(2)
      expect(await rig.whoIs(spared)).toBe('ann')
      for (const client of [first, last]) expect(await rig.whoIs(client)).toBeNull()
      expect(await idsOf(rig, 'ann')).toEqual([idOf(spared)])
    })

    test('an ID of another user as except spares none', async () => {
      const rig = await Rig.start(ground)
      const ann = await rig.login('ann')
      const bob = await rig.login('bob')
      expect(await rig.manager.revokeUser('ann', { except: idOf(bob) })).toBe(1)
      expect([await rig.whoIs(ann), await rig.whoIs(bob)]).toEqual([null, 'bob'])
    })

    test.each(['users.add', 'create', 'users.settle'] as const)(
      'no login slips past it that waits at %s',
      async (operation) => {
        const here = await Rig.start(ground, { storeTimeout: '10s' })
        const there = await Rig.start(ground, {}, here.clock)
        here.store.fail({ kind: 'delay', operations: [operation], times: 1 })
        const client = here.stranger()
        const login = here.ask((session) => session.login('ann'), client)
        await until(() => here.store.heldCalls === 1)
        await there.manager.revokeUser('ann')
        here.store.release()
        if (operation === 'users.add') {
          // It comes after.
          await login
          expect(await here.whoIs(client)).toBe('ann')
        } else {
          expect((await refusal(login)).code).toBe('SESSION_ENDED')
          expect(client.cookies.size).toBe(0)
          expect(await there.manager.count()).toBe(0)
        }
        expect(await strays(there.store, here.clock.now())).toEqual([])
      },
    )

    test('rejects when one session could not be ended, ends the others, and can be called again', async () => {
      const rig = await Rig.start(ground)
      const clients = await rig.logins('ann', 4)
      rig.store.fail({ kind: 'error', operations: ['end'], times: 1 })
      expect((await refusal(rig.manager.revokeUser('ann'))).code).toBe('STORE_UNAVAILABLE')
      expect(await rig.manager.count()).toBe(1)
      expect(await idsOf(rig, 'ann')).toHaveLength(1)
      expect(await rig.manager.revokeUser('ann')).toBe(1)
      for (const client of clients) expect(await rig.whoIs(client)).toBeNull()
      expect(await entriesOf(rig.store, 'ann', rig.clock.now())).toEqual([])
    })
  })

  describe('revokeAll()', () => {
    test('ends every session of every process, whoever it belongs to, and those of later live', async () => {
      const here = await Rig.start(ground)
      const there = await Rig.start(ground, {}, here.clock)
      const clients = [await here.login('ann'), await there.login('bob'), there.stranger()]
      await there.ask((session) => session.set('a', 1), clients[2])
      for (const client of clients) expect(await there.manager.validate(idOf(client))).toMatchObject({ isValid: true })

      const done = here.manager.revokeAll({ by: 'admin', detail: 'breach' })
      // In this process at once, even before it resolves.
      await until(() => here.heard('allRevoked').length === 1)
      for (const client of clients) expect(await here.whoIs(here.stranger(client.cookies))).toBeNull()
      await done
      for (const rig of [here, there]) {
        for (const client of clients) {
          const known = rig.stranger(client.cookies)
          expect(await rig.ask((session) => ({ ...session, user: session.metadata.userId }), known)).toEqual({})
          expect(await rig.manager.get(idOf(client))).toBeNull()
          expect(await rig.manager.refresh(idOf(client))).toBe(false)
          expect(await rig.manager.update(idOf(client), { a: 2 })).toBe(false)
        }
        expect(await rig.manager.count()).toBe(0)
        expect(await rig.manager.sessionsOf('ann')).toEqual([])
      }
      expect(here.heard('allRevoked')).toMatchObject([{ by: 'admin', detail: 'breach' }])
      expect(there.heard('usedAfterEnd').map(({ end }) => end.reason)).toEqual(['revoked', 'revoked', 'revoked'])
      const later = await here.login('ann')
      expect(await there.whoIs(there.stranger(later.cookies))).toBe('ann')
      expect(await there.manager.count()).toBe(1)
    })

    test('is not outlived by what an old session was about to become, in this process or another', async () => {
      const here = await Rig.start(ground, { storeTimeout: '20s' })
      const there = await Rig.start(ground, { storeTimeout: '20s' }, here.clock)
      const pending: Promise<unknown>[] = []
      const clients: Client[] = []
      for (const rig of [here, there]) {
        const acts = [
          (client: Client) => rig.ask((session) => session.login('ann'), client),
          (client: Client) => rig.ask((session) => session.reauthenticate(), client),
          (client: Client) => rig.ask(async (session) => void (await session.regenerate({ keep: true })), client),
          (client: Client) => rig.ask((session) => session.renew(), client),
          (client: Client) => rig.ask((session) => session.set('a', 1), client),
        ]
        const own = await rig.logins('ann', acts.length)
        rig.store.fail({ kind: 'delay', operations: ['regenerate', 'update'] })
        pending.push(...acts.map((act, n) => act(own[n] as Client)))
        clients.push(...own)
        await until(() => rig.store.heldCalls === acts.length)
      }
      await here.manager.revokeAll()
      for (const rig of [here, there]) {
        rig.store.repair()
        rig.store.release()
      }
      await Promise.allSettled(pending)
      for (const rig of [here, there]) {
        for (const client of clients) expect(await rig.whoIs(rig.stranger(client.cookies))).toBeNull()
        expect(await rig.manager.count()).toBe(0)
        expect(await rig.manager.sessionsOf('ann')).toEqual([])
      }
    })

    test('is not outlived by a request that had loaded its session before', async () => {
      const rig = await Rig.start(ground)
      const acts = [
        (session: Session) => session.login('ann'),
        (session: Session) => session.reauthenticate(),
        (session: Session) => session.regenerate({ keep: true }),
        // Takes nothing along, so there is nothing to refuse.
        (session: Session) => session.regenerate(),
      ]
      const outcomes = ['SESSION_ENDED', 'SESSION_ENDED', 'SESSION_ENDED', 'done']
      const clients = await rig.logins('ann', acts.length)
      const waiting: (() => void)[] = []
      const asked = acts.map((act, n) =>
        rig.ask(async (session) => {
          expect(session.metadata.userId).toBe('ann')
          await new Promise<void>((resolve) => waiting.push(resolve))
          await act(session)
        }, clients[n]),
      )
      await until(() => waiting.length === acts.length)
      const revoked = rig.manager.revokeAll()
      await until(() => rig.heard('allRevoked').length === 1)
      for (const go of waiting) go()
      const settled = asked.map((each) =>
        each.then(
          () => 'done',
          (error) => error.code,
        ),
      )
      expect(await Promise.all(settled)).toEqual(outcomes)
      for (const client of clients) expect(await rig.whoIs(client)).toBeNull()
      expect(await rig.manager.count()).toBe(0)
      await revoked
    })

    test('of 10,000 sessions takes two calls of the store', async () => {
      const rig = await Rig.start(ground)
      const client = await rig.login('ann')
      const record = (await rig.store.get(idOf(client))) as SessionData
      const ids = await fill(rig.store, record, 9_999)
      expect(await rig.manager.count()).toBe(10_000)
      const before = { ...rig.store.calls }
      await rig.manager.revokeAll()
      const after = Object.entries(rig.store.calls).filter(([name, count]) => count !== before[name as StoreOperation])
      expect(after).toEqual([['epoch', before.epoch + 2]])
      expect(await rig.manager.count()).toBe(0)
      for (const id of [idOf(client), ids[0], ids[5_000], ids[9_998]]) {
        expect(await rig.manager.validate(id as string)).toMatchObject({ reason: 'ended', end: { reason: 'revoked' } })
      }
    })
  })

  describe('a limit per user', () => {
    test('ends the session that logged in first, and tells so', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 3 })
      const clients = await rig.logins('ann', 5)
      const other = await rig.login('bob')
      const who = await Promise.all(clients.map((client) => rig.whoIs(client)))
      expect(who).toEqual([null, null, 'ann', 'ann', 'ann'])
      expect(await rig.whoIs(other)).toBe('bob')
      const [first, second, , fourth, fifth] = clients.map(idOf)
      expect(rig.heard('limit')).toMatchObject([
        { id: fourth, userId: 'ann', outcome: 'ended-oldest', ended: [first] },
        { id: fifth, userId: 'ann', outcome: 'ended-oldest', ended: [second] },
      ])
      expect(await rig.manager.validate(first as string)).toMatchObject({ reason: 'ended', end: { reason: 'limit' } })
    })

    test('refuses with an error, an event, and everything else as it was', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2, onSessionLimit: 'refuse' })
      const clients = await rig.logins('ann', 2)
      await rig.ask((session) => session.set('basket', 1))
      const before = rig.client.cookieHeader
      const error = await refusal(rig.ask((session) => session.login('ann')))
      expect(error).toMatchObject({
        code: 'SESSION_LIMIT',
        status: 409,
        message: expect.stringContaining('2 sessions'),
      })
      expect(rig.answer?.setCookies).toEqual([])
      expect(rig.client.cookieHeader).toBe(before)
      expect(await rig.ask((session) => [session.get('basket'), session.metadata.userId])).toEqual([1, undefined])
      for (const client of clients) expect(await rig.whoIs(client)).toBe('ann')
      // A new session that was refused is not stored with the fields that were set for it, nor as anybody's.
      const stranger = rig.stranger()
      await refusal(rig.ask((session) => session.set('a', 1).login('ann'), stranger))
      expect(await rig.whoIs(stranger)).toBeNull()
      await expect(rig.manager.create({ userId: 'ann' })).rejects.toMatchObject({ code: 'SESSION_LIMIT' })
      expect(rig.heard('limit')).toHaveLength(3)
      for (const event of rig.heard('limit'))
        expect(event).toMatchObject({ userId: 'ann', outcome: 'refused', ended: [] })
      expect(await idsOf(rig, 'ann')).toEqual(clients.map(idOf).sort())

      await rig.ask((session) => session.logout(), clients[0])
      await rig.ask((session) => session.login('ann'))
      expect(await rig.whoIs()).toBe('ann')
    })

    test.each(['end-oldest', 'refuse'] as const)(
      'with %s counts no session that is over, however it ended',
      async (onSessionLimit) => {
        const rig = await Rig.start(ground, { maxSessionsPerUser: 3, onSessionLimit, idleTimeout: '10m' })
        const [idle, destroyed, revoked] = (await rig.logins('ann', 3)) as [Client, Client, Client]
        rig.clock.advance(9 * MINUTE)
        expect(await rig.whoIs(destroyed)).toBe('ann')
        expect(await rig.whoIs(revoked)).toBe('ann')
        rig.clock.advance(2 * MINUTE)
        const clients = [await rig.login('ann')]
        expect(await rig.whoIs(destroyed)).toBe('ann')
        await rig.ask((session) => session.destroy(), destroyed)
        clients.push(await rig.login('ann'))
        // The store took it, and its list was never told.
        await rig.store.end(idOf(revoked), { reason: 'revoked', at: rig.clock.now() }, 60)
        clients.push(await rig.login('ann'))
        for (const client of clients) expect(await rig.whoIs(client)).toBe('ann')
        expect(await rig.whoIs(idle)).toBeNull()
        expect(rig.heard('limit')).toEqual([])
      },
    )

    test.each(['end-oldest', 'refuse'] as const)(
      'with %s does not count the session that logs in, proves itself or is regenerated again',
      async (onSessionLimit) => {
        const rig = await Rig.start(ground, { maxSessionsPerUser: 2, onSessionLimit })
        const [first, second] = (await rig.logins('ann', 2)) as [Client, Client]
        for (let n = 0; n < 3; n++) {
          await rig.ask((session) => session.login('ann'), first)
          await rig.ask((session) => session.reauthenticate(), second)
          await rig.ask(async (session) => void (await session.regenerate({ keep: true })), first)
        }
        expect([await rig.whoIs(first), await rig.whoIs(second)]).toEqual(['ann', 'ann'])
        expect(rig.heard('limit')).toEqual([])
        expect(await idsOf(rig, 'ann')).toEqual([idOf(first), idOf(second)].sort())
      },
    )

    test.each(['end-oldest', 'refuse'] as const)(
      'with %s ends none when all sessions log in again at once',
      async (onSessionLimit) => {
        const rig = await Rig.start(ground, { maxSessionsPerUser: 3, onSessionLimit, storeTimeout: '10s' })
        const clients = await rig.logins('ann', 3)
        rig.store.fail({ kind: 'delay', operations: ['regenerate'], times: 3 })
        const again = clients.map((client) => rig.ask((session) => session.login('ann'), client))
        await until(() => rig.store.heldCalls === 3)
        rig.store.release()
        await Promise.all(again)
        for (const client of clients) expect(await rig.whoIs(client)).toBe('ann')
        expect(rig.heard('limit')).toEqual([])
      },
    )

    test('that was made lower holds for the next login, and ends nobody who logs in again', async () => {
      const before = await Rig.start(ground, { maxSessionsPerUser: 5 })
      const clients = await before.logins('ann', 5)
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2 }, before.clock)
      const oldest = rig.stranger((clients[0] as Client).cookies)
      await rig.ask((session) => session.login('ann'), oldest)
      expect(await rig.whoIs(oldest)).toBe('ann')
      const latest = await rig.login('ann')
      expect(await idsOf(rig, 'ann')).toEqual([idOf(oldest), idOf(latest)].sort())
    })

    test('does not let in a login that was pushed out before it was stored, even if its process ends there', async () => {
      const here = await Rig.start(ground, { maxSessionsPerUser: 1, storeTimeout: '10s' })
      const there = await Rig.start(ground, { maxSessionsPerUser: 1 }, here.clock)
      here.store.fail({ kind: 'delay', operations: ['create'], times: 1 })
      here.store.fail({ kind: 'error', operations: ['users.settle'] })
      const pushedOut = here.ask((session) => session.login('ann'))
      await until(() => here.store.heldCalls === 1)
      const client = await there.login('ann')
      here.store.release()
      // From here on nothing is done about it in its own process.
      await pushedOut
      expect(await there.whoIs(client)).toBe('ann')
      expect(await strays(there.store, here.clock.now())).toEqual([])
      // Whoever comes next sees it and ends it.
      const next = await there.login('ann')
      expect(await liveOf(there, 'ann')).toEqual([idOf(next)])
    })
  })

  describe('a process that ends between two steps', () => {
    type Act = readonly [name: string, steps: readonly StoreOperation[], act: (rig: Rig) => Promise<unknown>]
    const ACTS: readonly Act[] = [
      [
        'the login of a new session',
        ['users.add', 'create', 'users.settle'],
        (rig) => rig.ask((session) => session.login('ann'), rig.stranger()),
      ],
      [
        'the login of a session that is there',
        ['users.add', 'regenerate', 'users.settle'],
        async (rig) => rig.ask((session) => session.login('ann'), rig.client),
      ],
      [
        'a login over the limit',
        ['users.add', 'create', 'users.settle', 'end', 'users.remove'],
        (rig) => rig.ask((session) => session.login('full'), rig.stranger()),
      ],
      [
        'a login as somebody else',
        ['users.add', 'regenerate', 'users.settle', 'users.remove'],
        (rig) => rig.ask((session) => session.login('ann'), rig.client.clone()),
      ],
      ['a logout', ['end', 'users.remove'], (rig) => rig.ask((session) => session.logout())],
      ['revokeUser()', ['users.evict', 'end', 'users.remove'], (rig) => rig.manager.revokeUser('bob')],
      [
        'a longer life',
        ['users.add', 'update'],
        (rig) => rig.ask((session) => session.setExpiry('20h', { absoluteTimeout: '20h' })),
      ],
    ]
    const CASES = ACTS.flatMap(([name, steps, act]) => steps.map((step) => [name, step, act] as const))

    /** A process with a session of bob, and a user who has as many as there may be. */
    async function begin(clock = new FakeClock()): Promise<Rig> {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2, storeTimeout: '10s' }, clock)
      rig.client = await rig.login('bob')
      await rig.logins('full', 2)
      return rig
    }

    /** What holds whatever happened: nobody is logged in unknown to the list, and what it knows too much goes away. */
    async function expectSound(other: Rig): Promise<void> {
      const { clock, store, manager } = other
      expect(await strays(store, clock.now())).toEqual([])
      for (const user of ['ann', 'bob', 'full']) {
        expect(await idsOf(other, user)).toEqual(await liveOf(other, user))
        expect((await manager.sessionsOf(user)).length).toBeLessThanOrEqual(3)
      }
      // What a login may still become is waited for, no longer than it can.
      clock.advance(MINUTE)
      for (const user of ['ann', 'bob', 'full']) {
        const live = await idsOf(other, user)
        const entries = await entriesOf(store, user, clock.now())
        expect(entries.map(({ id }) => id).sort()).toEqual(live)
      }
      // A login puts in order what is over the limit.
      await other.login('full')
      expect(await manager.sessionsOf('full')).toHaveLength(2)
      for (const user of ['ann', 'bob', 'full']) await manager.revokeUser(user)
      expect(await manager.count()).toBe(0)
      for (const user of ['ann', 'bob', 'full']) expect(await entriesOf(store, user, clock.now())).toEqual([])
    }

    test.each(CASES)('in %s, before %s, leaves nothing that the others do not see', async (_act, step, act) => {
      const rig = await begin()
      const other = await Rig.start(ground, { maxSessionsPerUser: 2 }, rig.clock)
      rig.store.fail({ kind: 'delay', operations: [step], times: 1 })
      const pending = act(rig).catch(() => {})
      await until(() => rig.store.heldCalls === 1)
      await expectSound(other)
      rig.store.release()
      await pending
      // It has been there, after all.
      expect(await strays(other.store, rig.clock.now())).toEqual([])
      expect(await liveOf(other, 'ann')).toEqual(await idsOf(other, 'ann'))
    })

    test.each(CASES)('when %s fails at %s, the same', async (_act, step, act) => {
      const rig = await begin()
      rig.store.fail({ kind: 'error', operations: [step], times: 1 })
      await act(rig).catch(() => {})
      rig.store.repair()
      await expectSound(rig)
    })

    test.each(CASES)('when the reply is lost, in %s, of %s, the same', async (_act, step, act) => {
      const rig = await begin()
      rig.store.fail({ kind: 'lost-reply', operations: [step], times: 1 })
      await act(rig).catch(() => {})
      rig.store.repair()
      await expectSound(rig)
    })

    test.each(['users.add', 'regenerate'] as const)(
      'a login that fails at %s logs nobody in with the old cookie',
      async (step) => {
        // What is lost of regenerate is only the answer, and that is found out.
        const kinds = step === 'regenerate' ? (['error'] as const) : (['error', 'lost-reply'] as const)
        for (const kind of kinds) {
          const rig = await Rig.start(ground)
          await rig.ask((session) => session.set('a', 1))
          const old = rig.client.clone()
          rig.store.fail({ kind, operations: [step], times: 1 })
          expect((await refusal(rig.ask((session) => session.login('ann')))).status).toBe(503)
          expect(rig.answer?.setCookies).toEqual([])
          expect(await rig.whoIs(old)).toBeNull()
        }
      },
    )

    test('a logout whose reply is lost is an error, and has happened; one that failed has not', async () => {
      const rig = await Rig.start(ground)
      rig.client = await rig.login('ann')
      rig.store.fail({ kind: 'error', operations: ['end'], times: 1 })
      expect((await refusal(rig.ask((session) => session.logout()))).status).toBe(503)
      expect(await rig.whoIs()).toBe('ann')
      rig.store.fail({ kind: 'lost-reply', operations: ['end'], times: 1 })
      expect((await refusal(rig.ask((session) => session.logout()))).status).toBe(503)
      expect(await rig.whoIs()).toBeNull()
      expect(await idsOf(rig, 'ann')).toEqual([])
    })
  })
})

/** So many copies of a record under other IDs. */
async function fill(store: SessionStore, record: SessionData, count: number): Promise<string[]> {
  const { randomUUID } = await import('node:crypto')
  const ids = Array.from({ length: count }, () => randomUUID() as string)
  for (let index = 0; index < ids.length; index += 1_000) {
    await Promise.all(ids.slice(index, index + 1_000).map((id) => store.create(id, record.with({ id }), 3_600)))
  }
  return ids
}

describe('a Redis that has lost the epoch', () => {
  const ground: Ground & RedisGround = new RedisGround()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  test.each([
    ['no number', (redis: RedisGround) => redis.raw.del('rig:epoch')],
    ['a smaller one', (redis: RedisGround) => redis.raw.set('rig:epoch', '0')],
  ])('and holds %s brings no revoked session back while a process lives that knew it', async (_what, lose) => {
    const rig = await Rig.start(ground)
    const client = await rig.login('ann')
    // The wait for other processes is not what this is about.
    const revoked = rig.manager.revokeAll()
    await until(() => rig.heard('allRevoked').length === 1)
    await lose(ground)
    // It goes by what it knows, and tells Redis as soon as it asks.
    await until(async () => {
      expect(await rig.whoIs(client)).toBeNull()
      return (await ground.raw.get('rig:epoch')) === '1'
    })
    const late = await Rig.start(ground, {}, rig.clock)
    expect(await late.whoIs(late.stranger(client.cookies))).toBeNull()
    expect(await late.whoIs(await late.login('ann'))).toBe('ann')
    await revoked
  })
})
