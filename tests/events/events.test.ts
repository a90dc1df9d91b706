// What is told, when, and to whom: every event of the map by what causes it, the same on diagnostics channels, and
// listeners that misbehave.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import type { RequestHandler } from 'express'
import {
  requireLevel,
  requireRecentAuth,
  type SessionData,
  SessionError,
  type SessionEventName,
  SessionManager,
} from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { cookieOf } from '../support/cookies.js'
import { OTHER_SECRET, SECRET, until } from '../support/http.js'
import {
  closeRigs,
  EVENT_NAMES,
  GROUNDS,
  idOf,
  MemoryGround,
  outside,
  partsOf,
  Rig,
  type RigOptions,
  refusal,
} from '../support/rig.js'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const NOBODY = '00000000-0000-4000-8000-000000000000'
const TOKEN = 'A'.repeat(43)
const IP = '127.0.0.1'

/** What a case tells, in order; `at` is the time of the clock then. */
type Expected = readonly (readonly [name: SessionEventName, facts: object])[]

interface Case {
  readonly of: SessionEventName
  readonly when: string
  readonly options?: RigOptions
  /** What comes before, and is not looked at. */
  readonly before?: (rig: Rig) => Promise<unknown>
  /** Acts, and returns what must have been told for it. */
  readonly act: (rig: Rig) => Promise<Expected>
}

const begin = (rig: Rig): Promise<unknown> => rig.ask((session) => session.set('n', 1))
const login = (rig: Rig): Promise<unknown> => rig.ask((session) => session.login('ann'))

const CASES: readonly Case[] = [
  {
    of: 'created',
    when: 'a request fills a session',
    async act(rig) {
      await begin(rig)
      return [['created', { id: idOf(rig.client), userId: undefined }]]
    },
  },
  {
    of: 'created',
    when: 'the manager makes a session',
    async act(rig) {
      const { id } = await rig.manager.create({ userId: 7 })
      return [['created', { id, userId: 7 }]]
    },
  },
  {
    of: 'loaded',
    when: 'a cookie opens a session, though the handler never looks at it',
    before: login,
    async act(rig) {
      await rig.client.get('/plain')
      return [['loaded', { id: idOf(rig.client), userId: 'ann' }]]
    },
  },
  {
    of: 'committed',
    when: 'a request stores a change',
    before: login,
    async act(rig) {
      await begin(rig)
      const of = { id: idOf(rig.client), userId: 'ann' }
      return [
        ['loaded', of],
        ['committed', of],
      ]
    },
  },
  {
    of: 'committed',
    when: 'the manager stores a change',
    before: login,
    async act(rig) {
      await rig.manager.update(idOf(rig.client), { n: 2 })
      return [['committed', { id: idOf(rig.client), userId: 'ann' }]]
    },
  },
  {
    of: 'renewed',
    when: 'renew() is called',
    before: login,
    async act(rig) {
      await rig.ask((session) => session.renew())
      const of = { id: idOf(rig.client), userId: 'ann' }
      return [
        ['loaded', of],
        ['renewed', of],
      ]
    },
  },
  {
    of: 'renewed',
    when: 'its time has come',
    options: { renewAfter: '5m' },
    before: login,
    async act(rig) {
      rig.clock.advance(5 * MINUTE)
      await rig.client.get('/plain')
      const of = { id: idOf(rig.client), userId: 'ann' }
      return [
        ['loaded', of],
        ['renewed', of],
      ]
    },
  },
  {
    of: 'regenerated',
    when: 'regenerate() keeps the fields',
    before: login,
    async act(rig) {
      const previousId = idOf(rig.client)
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      return [
        ['loaded', { id: previousId, userId: 'ann' }],
        ['regenerated', { id: idOf(rig.client), previousId, userId: 'ann' }],
      ]
    },
  },
  {
    of: 'regenerated',
    when: 'regenerate() begins anew',
    before: login,
    async act(rig) {
      const previousId = idOf(rig.client)
      await rig.ask(async (session) => void (await session.regenerate()))
      return [
        ['loaded', { id: previousId, userId: 'ann' }],
        ['regenerated', { id: idOf(rig.client), previousId, userId: undefined }],
      ]
    },
  },
  {
    of: 'login',
    when: 'a user logs in without a session',
    async act(rig) {
      await login(rig)
      const id = idOf(rig.client)
      return [
        ['created', { id, userId: 'ann' }],
        ['login', { id, previousId: undefined, userId: 'ann' }],
      ]
    },
  },
  {
    of: 'login',
    when: 'a user logs in with one',
    before: begin,
    async act(rig) {
      const previousId = idOf(rig.client)
      await login(rig)
      return [
        ['loaded', { id: previousId, userId: undefined }],
        ['login', { id: idOf(rig.client), previousId, userId: 'ann' }],
      ]
    },
  },
  {
    of: 'reauthenticated',
    when: 'a user proves again who they are',
    before: login,
    async act(rig) {
      const previousId = idOf(rig.client)
      await rig.ask((session) => session.reauthenticate())
      return [
        ['loaded', { id: previousId, userId: 'ann' }],
        ['reauthenticated', { id: idOf(rig.client), previousId, userId: 'ann' }],
      ]
    },
  },
  {
    of: 'reauthenticationRequired',
    when: 'a guard does not let a request through, which says why',
    before: login,
    async act(rig) {
      const id = idOf(rig.client)
      rig.clock.advance(2 * MINUTE)
      const meet = (guard: RequestHandler, client = rig.client): Promise<unknown> =>
        rig.ask((_session, req, res) => new Promise<void>((resolve) => guard(req, res, () => resolve())), client)
      await meet(requireRecentAuth('1m'))
      await meet(requireLevel(2))
      await meet(requireRecentAuth('5m'))
      await meet(requireLevel(1), rig.stranger())
      const request = { method: 'GET', path: expect.stringMatching(/^\/[^?]*$/), ip: IP }
      const loaded = ['loaded', { id, userId: 'ann' }] as const
      return [
        loaded,
        ['reauthenticationRequired', { id, userId: 'ann', reason: 'age', ...request }],
        loaded,
        ['reauthenticationRequired', { id, userId: 'ann', reason: 'level', ...request }],
        loaded,
        ['reauthenticationRequired', { id: undefined, userId: undefined, reason: 'nobody', ...request }],
      ]
    },
  },
  {
    of: 'logout',
    when: 'a user logs out, once however often',
    before: login,
    async act(rig) {
      const of = { id: idOf(rig.client), userId: 'ann' }
      await rig.ask(async (session, req) => {
        await session.logout()
        await req.session.logout()
      })
      return [
        ['loaded', of],
        ['logout', of],
      ]
    },
  },
  {
    of: 'destroyed',
    when: 'a session is destroyed, once however often',
    before: login,
    async act(rig) {
      const of = { id: idOf(rig.client), userId: 'ann' }
      await rig.ask(async (session) => {
        await session.destroy()
        await session.destroy()
      })
      return [
        ['loaded', of],
        ['destroyed', of],
      ]
    },
  },
  {
    of: 'revoked',
    when: 'the manager ends a session, once however often',
    before: login,
    async act(rig) {
      const id = idOf(rig.client)
      await rig.manager.revoke(id, { by: 'admin', detail: 'why' })
      await rig.manager.revoke(id)
      await rig.manager.revokeUser('ann')
      return [['revoked', { id, userId: 'ann', by: 'admin', detail: 'why' }]]
    },
  },
  {
    of: 'revoked',
    when: 'the manager ends the sessions of a user',
    before: login,
    async act(rig) {
      await rig.manager.revokeUser('ann', { by: 'admin' })
      return [['revoked', { id: idOf(rig.client), userId: 'ann', by: 'admin', detail: undefined }]]
    },
  },
  {
    of: 'allRevoked',
    when: 'the manager ends all sessions',
    before: login,
    async act(rig) {
      void rig.manager.revokeAll({ by: 'admin', detail: 'why' })
      await until(() => rig.heard('allRevoked').length > 0)
      return [['allRevoked', { by: 'admin', detail: 'why' }]]
    },
  },
  {
    of: 'limit',
    when: 'a login makes the oldest session end',
    options: { maxSessionsPerUser: 1 },
    before: login,
    async act(rig) {
      const client = await rig.login('ann')
      const id = idOf(client)
      return [
        ['limit', { id, userId: 'ann', outcome: 'ended-oldest', ended: [idOf(rig.client)] }],
        ['created', { id, userId: 'ann' }],
        ['login', { id, previousId: undefined, userId: 'ann' }],
      ]
    },
  },
  {
    of: 'limit',
    when: 'a login is refused',
    options: { maxSessionsPerUser: 1, onSessionLimit: 'refuse' },
    before: login,
    async act(rig) {
      await refusal(rig.login('ann'))
      return [['limit', { id: expect.any(String), userId: 'ann', outcome: 'refused', ended: [] }]]
    },
  },
  {
    of: 'expired',
    when: 'the cookie of a session comes after the idle timeout',
    before: login,
    async act(rig) {
      rig.clock.advance(30 * MINUTE)
      await rig.whoIs()
      return [['expired', { id: idOf(rig.client), userId: 'ann', reason: 'idle' }]]
    },
  },
  {
    of: 'expired',
    when: 'the cookie of a session comes after the absolute timeout',
    options: { absoluteTimeout: '20m' },
    before: login,
    async act(rig) {
      rig.clock.advance(30 * MINUTE)
      await rig.whoIs()
      return [['expired', { id: idOf(rig.client), userId: 'ann', reason: 'absolute' }]]
    },
  },
  {
    of: 'expired',
    when: 'a clean-up meets it',
    before: login,
    async act(rig) {
      rig.clock.advance(30 * MINUTE)
      await rig.manager.cleanUp()
      return [
        ['expired', { id: idOf(rig.client), userId: 'ann', reason: 'idle' }],
        ['cleaned', { removed: 1, failed: 0 }],
      ]
    },
  },
  {
    of: 'usedAfterEnd',
    when: 'the cookie of a session that was ended comes',
    async before(rig) {
      await login(rig)
      await rig.manager.revoke(idOf(rig.client), { by: 'admin' })
    },
    async act(rig) {
      await rig.whoIs()
      const end = expect.objectContaining({ reason: 'revoked', by: 'admin', at: rig.clock.now() })
      return [['usedAfterEnd', { id: idOf(rig.client), userId: 'ann', end, ip: IP }]]
    },
  },
  {
    of: 'badCookie',
    when: 'a cookie has no shape, or another signature',
    async act(rig) {
      await rig.client.get('/plain', { cookie: 'sid=junk' })
      await rig.client.get('/plain', { cookie: cookieOf(NOBODY, TOKEN, OTHER_SECRET) })
      return [
        ['badCookie', { reason: 'malformed', ip: IP }],
        ['badCookie', { reason: 'signature', ip: IP }],
      ]
    },
  },
  {
    of: 'cookieConflict',
    when: 'a request has cookies of two live sessions',
    async before(rig) {
      await login(rig)
      const planted = await rig.login('bob')
      rig.client.cookies.set('a', `1; ${planted.cookieHeader}`)
    },
    async act(rig) {
      await rig.client.get('/plain')
      const ids = [...rig.client.cookieHeader.matchAll(/sid=([^.]+)/g)].map(([, id]) => id)
      expect(ids).toHaveLength(2)
      return [['cookieConflict', { ids, ip: IP }]]
    },
  },
  {
    of: 'unknownSession',
    when: 'the store does not have what a cookie names',
    async act(rig) {
      await rig.client.get('/plain', { cookie: cookieOf(NOBODY, TOKEN) })
      return [['unknownSession', { id: NOBODY, ip: IP }]]
    },
  },
  {
    of: 'tokenMismatch',
    when: 'a cookie holds another token',
    before: login,
    async act(rig) {
      await rig.client.get('/plain', { cookie: cookieOf(idOf(rig.client), TOKEN) })
      return [['tokenMismatch', { id: idOf(rig.client), userId: 'ann', ip: IP }]]
    },
  },
  {
    of: 'corruptKey',
    when: 'the list of a user cannot be read',
    async act(rig) {
      const cause = new SessionError('CORRUPT_RECORD', 'junk')
      rig.store.fail({ kind: 'error', operations: ['users.list'], times: 1, error: cause })
      await rig.manager.sessionsOf('ann').catch(() => {})
      const error = expect.objectContaining({ code: 'STORE_UNAVAILABLE', cause })
      return [
        ['corruptKey', { operation: 'users.list', cause }],
        ['storeError', { id: undefined, operation: 'users.list', error }],
      ]
    },
  },
  {
    of: 'corruptRecord',
    when: 'a record cannot be read',
    before: login,
    async act(rig) {
      const error = new SessionError('CORRUPT_RECORD', 'not today')
      rig.store.fail({ kind: 'error', operations: ['get'], times: 1, error })
      await rig.client.get('/plain')
      return [['corruptRecord', { id: idOf(rig.client), cause: error }]]
    },
  },
  {
    of: 'corruptRecord',
    when: 'a field cannot be read',
    before: begin,
    async act(rig) {
      const id = idOf(rig.client)
      const record = (await rig.store.get(id)) as SessionData
      await rig.store.set(id, record.withField('n', '{'), 60)
      await rig.ask((session) => session.get('n'))
      return [
        ['loaded', { id, userId: undefined }],
        ['corruptRecord', { id, field: 'n', cause: expect.any(Error) }],
      ]
    },
  },
  {
    of: 'clockSkew',
    when: 'a session comes from a clock that is ahead',
    before: login,
    async act(rig) {
      rig.clock.advance(-60_001)
      await rig.client.get('/plain')
      const of = { id: idOf(rig.client), userId: 'ann' }
      return [
        ['clockSkew', { ...of, aheadMs: 60_001 }],
        ['loaded', of],
      ]
    },
  },
  {
    of: 'conflict',
    when: 'another request writes a field during update()',
    before: begin,
    async act(rig) {
      const of = { id: idOf(rig.client), userId: undefined }
      let isFirst = true
      await rig.ask((session) =>
        session.update('n', async (n) => {
          if (isFirst) await rig.manager.update(of.id, { n: 5 })
          isFirst = false
          return Number(n) + 1
        }),
      )
      return [
        ['loaded', of],
        ['committed', of],
        ['conflict', { ...of, field: 'n' }],
        ['committed', of],
      ]
    },
  },
  {
    of: 'lateWrite',
    when: 'a write comes after the end of its session',
    before: login,
    async act(rig) {
      const of = { id: idOf(rig.client), userId: 'ann' }
      await refusal(
        rig.ask(async (session) => {
          await outside(() => rig.manager.revoke(of.id))
          session.set('n', 2)
          await session.save()
        }),
      )
      return [
        ['loaded', of],
        ['revoked', { ...of, by: undefined, detail: undefined }],
        ['lateWrite', of],
      ]
    },
  },
  {
    of: 'lateWrite',
    when: 'a login comes after the end of its session',
    before: login,
    async act(rig) {
      const of = { id: idOf(rig.client), userId: 'ann' }
      await refusal(
        rig.ask(async (session) => {
          await outside(() => rig.manager.revoke(of.id))
          await session.login('bob')
        }),
      )
      return [
        ['loaded', of],
        ['revoked', { ...of, by: undefined, detail: undefined }],
        ['lateWrite', of],
      ]
    },
  },
  {
    of: 'lateChange',
    when: 'a field is set after the response',
    before: begin,
    async act(rig) {
      const id = idOf(rig.client)
      await rig.ask((session, _req, res) => {
        res.on('close', () => session.set('n', 2))
      })
      await until(() => rig.heard('lateChange').length > 0)
      return [
        ['loaded', { id, userId: undefined }],
        ['lateChange', { id, reason: 'after-response' }],
      ]
    },
  },
  {
    of: 'lateChange',
    when: 'a new session is filled after the head',
    async act(rig) {
      const id = await rig.ask((session, _req, res) => {
        res.write('begun')
        session.set('n', 2)
        res.end()
        return session.id
      })
      return [['lateChange', { id, reason: 'headers-sent' }]]
    },
  },
  {
    of: 'storeError',
    when: 'a store call fails',
    before: login,
    async act(rig) {
      rig.store.fail({ kind: 'error', operations: ['get'], times: 1, error: new Error('down') })
      await rig.client.get('/plain')
      const error = expect.objectContaining({ code: 'STORE_UNAVAILABLE', cause: expect.any(Error) })
      return [['storeError', { id: idOf(rig.client), operation: 'get', error }]]
    },
  },
  {
    of: 'storeError',
    when: 'a store call misses its deadline',
    options: { storeTimeout: '1s' },
    before: login,
    async act(rig) {
      rig.store.fail({ kind: 'hang', operations: ['get'], times: 1 })
      await rig.client.get('/plain')
      const error = expect.objectContaining({ code: 'STORE_TIMEOUT' })
      return [['storeError', { id: idOf(rig.client), operation: 'get', error }]]
    },
  },
  {
    of: 'archiveFailed',
    when: 'archive fails',
    options: {
      archive: () => {
        throw new Error('disk full')
      },
    },
    before: login,
    async act(rig) {
      rig.clock.advance(HOUR)
      await rig.manager.cleanUp()
      const cause = expect.objectContaining({ message: 'disk full' })
      return [
        ['archiveFailed', { id: idOf(rig.client), userId: 'ann', cause }],
        ['cleaned', { removed: 0, failed: 1 }],
      ]
    },
  },
  {
    of: 'cleaned',
    when: 'a clean-up has nothing to do',
    before: login,
    async act(rig) {
      await rig.manager.cleanUp()
      return [['cleaned', { removed: 0, failed: 0 }]]
    },
  },
]

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  test.each(CASES.map((each) => [each.of, each.when, each] as const))(
    '%s is told when %s, and nothing else is',
    async (of, _when, { options, before, act }) => {
      const rig = await Rig.start(ground, options)
      await before?.(rig)
      rig.told.splice(0)
      const expected = await act(rig)
      expect(expected.map(([name]) => name)).toContain(of)
      expect(rig.told).toEqual(expected.map(([name, facts]) => ({ name, at: rig.clock.now(), ...facts })))
    },
  )
})

test('every event of the map has a case', () => {
  expect(new Set(CASES.map((each) => each.of))).toEqual(new Set(EVENT_NAMES))
})

describe('an event', () => {
  const ground = new MemoryGround()
  afterEach(async () => {
    jest.restoreAllMocks()
    await closeRigs()
    await ground.reset()
  })

  test('is the same frozen object for every listener', async () => {
    const rig = await Rig.start(ground)
    const seen: object[] = []
    rig.manager.events.on('created', (event) => seen.push(event))
    rig.manager.events.on('created', (event) => {
      seen.push(event)
      expect(() => {
        ;(event as { id: string }).id = 'other'
      }).toThrow(TypeError)
    })
    await begin(rig)
    expect(seen).toHaveLength(2)
    expect(seen[0]).toBe(seen[1])
    expect(seen[0]).toEqual({ id: idOf(rig.client), userId: undefined, at: rig.clock.now() })
  })

  test('has no address when addresses are not to be kept', async () => {
    const rig = await Rig.start(ground, { clientContext: { ip: false } })
    await login(rig)
    const old = rig.client.clone()
    await rig.ask((session) => session.logout())
    await rig.whoIs(old)
    await rig.client.get('/plain', { cookie: 'sid=junk' })
    await rig.client.get('/plain', { cookie: cookieOf(NOBODY, TOKEN) })
    expect(rig.heard('usedAfterEnd', 'badCookie', 'unknownSession')).toMatchObject([
      { ip: undefined },
      { ip: undefined },
      { ip: undefined },
    ])
  })

  describe('on a diagnostics channel', () => {
    test('is the same as that of events, for every name, and for observers that know no manager', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, archive: () => {} })
      const observed: unknown[] = []
      const observers = EVENT_NAMES.map((name) => {
        const observe = (event: unknown): void => void observed.push({ name, ...(event as object) })
        subscribe(`sojourn:${name}`, observe)
        return () => unsubscribe(`sojourn:${name}`, observe)
      })
      await begin(rig)
      await login(rig)
      const old = rig.client.clone()
      await rig.ask((session) => session.renew())
      await rig.ask(async (session) => void (await session.regenerate({ keep: true })))
      await rig.ask((session) => session.reauthenticate())
      await rig.whoIs(old)
      await rig.login('ann')
      await rig.client.get('/plain', { cookie: 'sid=junk' })
      await rig.client.get('/plain', { cookie: cookieOf(NOBODY, TOKEN) })
      await rig.manager.revokeUser('ann')
      await rig.login('bob')
      rig.clock.advance(HOUR)
      await rig.manager.cleanUp()
      expect(new Set(rig.told.map(({ name }) => name)).size).toBeGreaterThan(12)
      expect(observed).toEqual(rig.told)

      for (const stop of observers) stop()
      const count = observed.length
      await login(rig)
      expect(observed).toHaveLength(count)
    })

    test('comes without a listener, of any manager, with the object itself', async () => {
      const observed: unknown[] = []
      const observe = (event: unknown): void => void observed.push(event)
      for (const name of ['created', 'revoked', 'committed'] as const) subscribe(`sojourn:${name}`, observe)
      const make = () => new SessionManager({ secret: SECRET, store: ground.store(), clock: () => 5_000_000_000_000 })
      const [first, second] = [make(), make()]
      const own: unknown[] = []
      first.events.on('created', (event) => own.push(event))
      const { id } = await first.create()
      await second.update(id, { n: 1 })
      await second.revoke(id, { by: 'x' })
      for (const name of ['created', 'revoked', 'committed'] as const) unsubscribe(`sojourn:${name}`, observe)
      expect(observed).toEqual([
        { id, userId: undefined, at: 5_000_000_000_000 },
        { id, userId: undefined, at: 5_000_000_000_000 },
        { id, userId: undefined, by: 'x', detail: undefined, at: 5_000_000_000_000 },
      ])
      expect(observed[0]).toBe(own[0])
    })
  })

  describe('with listeners that misbehave', () => {
    const misbehave: Record<string, (name: string) => unknown> = {
      throw(name) {
        throw new Error(`${name} thrown`)
      },
      reject: (name) => Promise.reject(new Error(`${name} rejected`)),
      'never resolve': () => new Promise(() => {}),
    }

    test.each(Object.entries(misbehave))('that %s harms no request, no job and no ending', async (what, listener) => {
      const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const rig = await Rig.start(ground, { maxSessionsPerUser: 2 })
      for (const name of EVENT_NAMES) rig.manager.events.on(name, () => listener(name) as void)
      await begin(rig)
      await login(rig)
      const [first, second, third] = [await rig.login('ann'), await rig.login('ann'), await rig.login('ann')]
      expect(await rig.whoIs(first)).toBeNull()
      expect(await rig.whoIs(second)).toBe('ann')
      await rig.ask((session) => session.logout(), second)
      await rig.ask((session) => session.reauthenticate(), third)
      expect(await rig.manager.revokeUser('ann')).toBe(1)
      for (const client of [rig.client, second, third]) expect(await rig.whoIs(client)).toBeNull()
      await rig.login('bob')
      const { id } = await rig.manager.create()
      expect(await rig.manager.revoke(id)).toBe(true)
      rig.clock.advance(HOUR)
      expect(await rig.manager.cleanUp()).toEqual({ removed: 1, failed: 0 })
      await rig.client.get('/plain', { cookie: 'sid=junk' })
      // Each of them was also told to the listener that behaves.
      const names = new Set(rig.told.map(({ name }) => name))
      expect(names.size).toBeGreaterThan(10)
      const messages = warned.mock.calls.map(([message]) => String(message))
      if (what === 'never resolve') return expect(messages.join()).not.toContain('listener')
      for (const name of names) {
        expect(messages).toContain(
          `A listener for "${name}" failed: ${name} ${what === 'throw' ? 'thrown' : 'rejected'}`,
        )
      }
    })

    test('that add and remove listeners while they are called', async () => {
      const rig = await Rig.start(ground)
      const heard: string[] = []
      const { events } = rig.manager
      const stop = events.on('created', () => {
        stop()
        heard.push('once')
        events.on('created', () => heard.push('later'))
      })
      events.on('created', () => heard.push('second'))
      await rig.manager.create()
      expect(heard).toEqual(['once', 'second'])
      await rig.manager.create()
      expect(heard).toEqual(['once', 'second', 'second', 'later'])
    })

    test('that call the manager from within', async () => {
      const rig = await Rig.start(ground)
      const inside: Promise<unknown>[] = []
      rig.manager.events.on('usedAfterEnd', ({ userId }) => {
        if (userId !== undefined) inside.push(rig.manager.revokeUser(userId, { by: 'reuse' }))
      })
      const [first, second] = [await rig.login('ann'), await rig.login('ann')]
      const stolen = first.clone()
      await rig.ask((session) => session.reauthenticate(), first)
      await rig.whoIs(stolen)
      expect(await Promise.all(inside)).toEqual([2])
      expect([await rig.whoIs(first), await rig.whoIs(second)]).toEqual([null, null])
    })
  })

  test('that must not go unnoticed is a process warning, once a kind, when nobody listens', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    let now = Date.now()
    const store = new FaultyStore(ground.store())
    const manager = new SessionManager({
      secret: SECRET,
      store,
      clock: () => now,
      cleanupInterval: 0,
      archive: () => Promise.reject(new Error('disk full')),
    })
    const { id } = await manager.create()
    store.fail({ kind: 'error', operations: ['get'], times: 2 })
    await refusal(manager.get(id))
    await refusal(manager.get(id))
    store.fail({ kind: 'error', operations: ['get'], times: 2, error: new SessionError('CORRUPT_RECORD', 'junk') })
    await manager.validate(id)
    await manager.validate(id)
    now += HOUR
    await manager.cleanUp()
    await manager.cleanUp()
    const codes = warned.mock.calls.map(([, options]) => (options as { code?: string } | undefined)?.code)
    expect(codes).toEqual(['SOJOURN_STOREERROR', 'SOJOURN_CORRUPTRECORD', 'SOJOURN_ARCHIVEFAILED'])
    for (const [message] of warned.mock.calls) expect(String(message)).not.toContain(id)
  })

  test('is a warning also where somebody watches it, and none where somebody listens', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const watched: unknown[] = []
    for (const isHeard of [false, true]) {
      const manager = new SessionManager({ secret: SECRET, store: ground.store() })
      const stop = manager.events.watch('corruptRecord', ({ id }) => watched.push(id))
      if (isHeard) manager.events.on('corruptRecord', () => {})
      manager.events.emit('corruptRecord', { id: 'x', cause: 'junk' })
      expect(warned).toHaveBeenCalledTimes(1)
      stop()
      manager.events.emit('corruptRecord', { id: 'y', cause: 'junk' })
    }
    expect(watched).toEqual(['x', 'x'])
  })

  test('of a session is named by its public ID only', async () => {
    const rig = await Rig.start(ground)
    await login(rig)
    const [id, token, signature] = partsOf(rig.client)
    await rig.ask((session) => session.set('password', 'SECRET-VALUE'))
    await rig.ask((session) => session.logout())
    const text = JSON.stringify(rig.told)
    expect(text).toContain(id)
    for (const secret of [token, signature, 'SECRET-VALUE']) expect(text).not.toContain(secret)
  })
})
