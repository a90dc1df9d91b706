// The session manager: sessions without a request, what is known of their clients, and the end of a process.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import {
  MemorySessionStore,
  type SessionData,
  type SessionFilter,
  SessionManager,
  SessionStore,
  session,
  type Validation,
} from 'sojourn'
import { hashToken } from '../../src/ids.js'
import { SECRET, until } from '../support/http.js'
import { closeRigs, collect, GROUNDS, idOf, partsOf, RedisGround, Rig, refusal, viewsOf } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const NOBODY = '00000000-0000-4000-8000-000000000000'
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  describe('one session', () => {
    test('is created, read, changed, refreshed and ended without a request', async () => {
      const { manager, clock, told } = await Rig.start(ground)
      const start = clock.now()
      const made = await manager.create({ userId: 7, fields: { cart: ['book'], n: 1 }, context: { ip: '192.0.2.1' } })
      expect(made).toEqual({
        id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
        userId: 7,
        createdAt: new Date(start),
        updatedAt: new Date(start),
        lastAccessedAt: new Date(start),
        expiresAt: new Date(start + 30 * MINUTE),
        absoluteExpiresAt: new Date(start + 12 * HOUR),
        context: { ip: '192.0.2.1' },
        authentication: { methods: [], level: 1, at: new Date(start) },
        isDeviceBound: false,
        end: undefined,
        fields: { cart: ['book'], n: 1 },
      })
      const { id } = made
      expect(await manager.get(id)).toEqual(made)

      clock.advance(MINUTE)
      expect(await manager.update(id, { n: 2, cart: undefined, more: null })).toBe(true)
      expect(await manager.get(id)).toMatchObject({
        fields: { n: 2, more: null },
        updatedAt: new Date(start + MINUTE),
        // What a script does is no activity of the user.
        lastAccessedAt: new Date(start),
        expiresAt: new Date(start + 30 * MINUTE),
      })
      expect((await manager.get(id))?.fields).not.toHaveProperty('cart')

      expect(await manager.refresh(id)).toBe(true)
      expect(await manager.get(id)).toMatchObject({
        lastAccessedAt: new Date(start + MINUTE),
        expiresAt: new Date(start + 31 * MINUTE),
      })

      expect(await manager.terminate(id, 'moved house')).toBe(true)
      expect(await manager.get(id)).toBeNull()
      expect(await manager.update(id, { n: 3 })).toBe(false)
      expect(await manager.refresh(id)).toBe(false)
      expect(await manager.terminate(id)).toBe(false)
      expect(told.filter(({ name }) => name !== 'committed')).toEqual([
        { name: 'created', at: start, id, userId: 7 },
        { name: 'revoked', at: start + MINUTE, id, userId: 7, by: undefined, detail: 'moved house' },
      ])
    })

    test('of an ID that was never issued is nothing', async () => {
      const { manager, told } = await Rig.start(ground)
      expect(await manager.get(NOBODY)).toBeNull()
      expect(await manager.validate(NOBODY)).toEqual({ isValid: false, reason: 'not-found' })
      expect(await manager.update(NOBODY, { a: 1 })).toBe(false)
      expect(await manager.refresh(NOBODY)).toBe(false)
      expect(await manager.revoke(NOBODY)).toBe(false)
      for (const id of ['}{', '*', 'epoch', 'u:{x}', '../../x', 'a\r\nDEL x', 'x'.repeat(5_000)]) {
        expect(await manager.get(id)).toBeNull()
        expect(await manager.revoke(id)).toBe(false)
      }
      expect(told).toEqual([])
    })

    test('that a request began is the same one, and what is changed here is seen there', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('n', 1))
      const id = idOf(rig.client)
      expect(await rig.manager.get(id)).toMatchObject({ id, fields: { n: 1 } })
      expect(await rig.manager.update(id, { m: 2 })).toBe(true)
      expect(await rig.ask((session) => ({ ...session }))).toEqual({ n: 1, m: 2 })
    })

    test('loses no field that a request writes while update() is under way', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('n', 1))
      const id = idOf(rig.client)
      rig.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
      const updated = rig.manager.update(id, { ours: true })
      await until(() => rig.store.heldCalls === 1)
      await rig.ask((session) => session.set('theirs', true))
      rig.store.release()
      expect(await updated).toBe(true)
      expect((await rig.manager.get(id))?.fields).toEqual({ n: 1, ours: true, theirs: true })
    })

    test('refuses values that cannot be kept, and keeps those that it has', async () => {
      const { manager } = await Rig.start(ground, { limits: { maxBytes: 100 } })
      const { id } = await manager.create({ fields: { a: 1 } })
      expect((await refusal(manager.update(id, { a: 2, b: () => 1 }))).code).toBe('INVALID_VALUE')
      expect((await refusal(manager.update(id, { a: 2, b: 'x'.repeat(100) }))).code).toBe('SESSION_TOO_LARGE')
      expect((await refusal(manager.create({ fields: { a: Symbol('x') } }))).code).toBe('INVALID_VALUE')
      expect((await manager.get(id))?.fields).toEqual({ a: 1 })
      expect(await manager.count()).toBe(1)
    })

    test('may have fields of any name', async () => {
      const { manager } = await Rig.start(ground)
      const fields = JSON.parse('{"__proto__": {"isAdmin": true}, "constructor": 1, "id": 2, "": 3}') as Record<
        string,
        unknown
      >
      const { id } = await manager.create({ fields })
      const found = await manager.get(id)
      expect(new Map(Object.entries(found?.fields ?? {}))).toEqual(new Map(Object.entries(fields)))
      expect(({} as { isAdmin?: boolean }).isAdmin).toBeUndefined()
    })

    test('that cannot be decoded in part is told, and the rest is there', async () => {
      const { manager, store, heard } = await Rig.start(ground).then((rig) => ({
        manager: rig.manager,
        store: rig.store,
        heard: () => rig.heard('corruptRecord'),
      }))
      const { id } = await manager.create({ fields: { good: 1 } })
      const record = (await store.get(id)) as SessionData
      await store.set(id, record.withField('bad', '{'), 60)
      expect((await manager.get(id))?.fields).toEqual({ good: 1 })
      expect(heard()).toEqual([expect.objectContaining({ id, field: 'bad' })])
    })
  })

  describe('validate()', () => {
    const reasonOf = (found: Validation): string => (found.isValid ? 'valid' : found.reason)

    test('says that a session is alive, with its fields, and does not count as activity', async () => {
      const { manager, clock } = await Rig.start(ground)
      const { id } = await manager.create({ userId: 'ann', fields: { a: 1 } })
      clock.advance(10 * MINUTE)
      const before = await manager.get(id)
      expect(await manager.validate(id)).toEqual({ isValid: true, session: before })
      expect(before?.lastAccessedAt.getTime()).toBe(clock.now() - 10 * MINUTE)
    })

    test('tells the idle timeout from the absolute one, whichever came first', async () => {
      const { manager, clock } = await Rig.start(ground, { idleTimeout: '10m', absoluteTimeout: '1h' })
      const start = clock.now()
      const idle = await manager.create()
      const busy = await manager.create()
      clock.advance(9 * MINUTE)
      await manager.refresh(busy.id)
      clock.set(start + 10 * MINUTE - 1)
      expect(reasonOf(await manager.validate(idle.id))).toBe('valid')
      clock.advance(1)
      const end = { reason: 'idle', at: start + 10 * MINUTE }
      expect(await manager.validate(idle.id)).toEqual({ isValid: false, reason: 'idle', end })
      for (let minute = 18; minute < 60; minute += 9) {
        clock.set(start + minute * MINUTE)
        expect(await manager.refresh(busy.id)).toBe(true)
      }
      clock.set(start + HOUR)
      expect(await manager.validate(busy.id)).toEqual({
        isValid: false,
        reason: 'expired',
        end: { reason: 'absolute', at: start + HOUR },
      })
    })

    test('says by whom and why a session was ended, until that is forgotten', async () => {
      const { manager, clock } = await Rig.start(ground)
      const { id } = await manager.create({ userId: 'ann' })
      clock.advance(MINUTE)
      await manager.revoke(id, { by: 'admin-7', detail: 'stolen phone' })
      const end = { reason: 'revoked', at: clock.now(), by: 'admin-7', detail: 'stolen phone' }
      expect(await manager.validate(id)).toMatchObject({ isValid: false, reason: 'ended', end })
      // The first ending stands.
      await manager.revoke(id, { by: 'somebody else' })
      expect(await manager.validate(id)).toMatchObject({ reason: 'ended', end })
    })

    test.each([
      ['logout', (rig: Rig) => rig.ask((session) => session.logout())],
      ['destroyed', (rig: Rig) => rig.ask((session) => session.destroy())],
      ['regenerated', (rig: Rig) => rig.ask((session) => session.regenerate().then(() => {}))],
      ['revoked', (rig: Rig) => rig.manager.revokeUser('ann').then(() => {})],
      ['limit', (rig: Rig) => rig.login('ann').then(() => {})],
    ] as const)('says that a session was ended by %s', async (reason, act) => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1 })
      rig.client = await rig.login('ann')
      const id = idOf(rig.client)
      rig.clock.advance(SECOND)
      await act(rig)
      expect(await rig.manager.validate(id)).toMatchObject({
        isValid: false,
        reason: 'ended',
        end: { reason, at: rig.clock.now() },
      })
    })

    test('after revokeAll() says that the session was revoked', async () => {
      const { manager } = await Rig.start(ground)
      const { id } = await manager.create()
      await manager.revokeAll()
      expect(await manager.validate(id)).toMatchObject({ isValid: false, reason: 'ended', end: { reason: 'revoked' } })
    })

    test.each([
      ['the same address', '203.0.113.7', '203.0.113.7', true],
      ['another one of the same /24', '203.0.113.7', '203.0.113.250', true],
      ['one of the neighbouring /24', '203.0.113.7', '203.0.114.7', false],
      ['IPv4 mapped into IPv6', '203.0.113.7', '::ffff:203.0.113.9', true],
      ['another one of the same /48', '2001:db8:1::7', '2001:0DB8:1:ffff::1', true],
      ['one of another /48', '2001:db8:1::7', '2001:db8:2::7', false],
      ['a short form that is another /48', '2001:db8::7', '2001:db8:7::', false],
      ['zeros at the beginning', '::1', '0:0:0:0:0:0:0:1', true],
      ['IPv6 instead of IPv4', '203.0.113.7', '2001:db8:1::7', false],
      ['no address at all', '203.0.113.7', undefined, true],
    ])('by network: a session of %s', async (_what, then, now, isValid) => {
      const { manager } = await Rig.start(ground)
      const { id } = await manager.create({ context: { ip: then } })
      const found = await manager.validate(id, { ip: now })
      if (isValid) expect(found).toMatchObject({ isValid: true, session: { id } })
      else expect(found).toEqual({ isValid: false, reason: 'security-violation', violation: 'ip' })
      // It only says so.
      expect(reasonOf(await manager.validate(id))).toBe('valid')
    })

    test.each([
      ['the same', FIREFOX, true],
      ['a newer version of it', FIREFOX.replaceAll('140.0', '141.0.2'), true],
      ['another browser', 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36', false],
      ['nothing', undefined, true],
      ['an empty one', '', false],
    ])('by user agent: a client with %s', async (_what, userAgent, isValid) => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('a', 1), rig.client, { headers: { 'user-agent': FIREFOX } })
      const found = await rig.manager.validate(idOf(rig.client), { userAgent })
      if (isValid) expect(found.isValid).toBe(true)
      else expect(found).toEqual({ isValid: false, reason: 'security-violation', violation: 'user-agent' })
    })

    test('of a session whose client is not known has nothing to compare', async () => {
      const { manager } = await Rig.start(ground)
      const { id } = await manager.create()
      expect(reasonOf(await manager.validate(id, { ip: '192.0.2.1', userAgent: FIREFOX }))).toBe('valid')
    })
  })

  describe('list() and count()', () => {
    test('have every session that matches, live ones by default', async () => {
      const { manager, clock } = await Rig.start(ground, { idleTimeout: '1h' })
      const start = clock.now()
      const at = (minutes: number): Date => new Date(start + minutes * MINUTE)
      const names = new Map<string, string>()
      const make = async (name: string, userId?: string): Promise<string> => {
        const { id } = await manager.create(userId === undefined ? {} : { userId })
        names.set(id, name)
        return id
      }
      const early = await make('early', 'ann')
      const ended = await make('ended', 'ann')
      await make('idle', 'bob')
      clock.set(start + 30 * MINUTE)
      await make('late', 'ann')
      await make('guest')
      await manager.refresh(early)
      await manager.revoke(ended, { by: 'test' })
      clock.set(start + 60 * MINUTE)

      const found = async (filter?: SessionFilter): Promise<string[]> => {
        const infos = await collect(manager.list(filter))
        expect(await manager.count(filter)).toBe(infos.length)
        return infos.map(({ id }) => names.get(id) ?? 'unknown').sort()
      }
      expect(await found()).toEqual(['early', 'guest', 'late'])
      expect(await found({ status: 'live' })).toEqual(['early', 'guest', 'late'])
      expect(await found({ status: 'ended' })).toEqual(['ended', 'idle'])
      expect(await found({ status: 'all' })).toEqual(['early', 'ended', 'guest', 'idle', 'late'])
      expect(await found({ userId: 'ann' })).toEqual(['early', 'late'])
      expect(await found({ userId: 'bob' })).toEqual([])
      expect(await found({ userId: 'ann', status: 'ended' })).toEqual(['ended'])
      expect(await found({ userId: 'ann', status: 'all' })).toEqual(['early', 'ended', 'late'])
      expect(await found({ userId: 'bob', status: 'all' })).toEqual(['idle'])
      expect(await found({ createdSince: at(30) })).toEqual(['guest', 'late'])
      expect(await found({ createdBefore: at(30) })).toEqual(['early'])
      expect(await found({ activeSince: at(30), status: 'all' })).toEqual(['early', 'guest', 'late'])
      expect(await found({ activeBefore: at(30), status: 'all' })).toEqual(['ended', 'idle'])
      expect(await found({ userId: 'ann', createdBefore: at(30), activeSince: at(1) })).toEqual(['early'])
      expect(await found({ createdSince: at(10), createdBefore: at(20) })).toEqual([])

      const infos = await collect(manager.list({ status: 'all' }))
      const byName = new Map(infos.map((info) => [names.get(info.id), info]))
      expect(byName.get('late')).toMatchObject({ userId: 'ann', createdAt: at(30), lastAccessedAt: at(30) })
      expect(byName.get('late')?.end).toBeUndefined()
      expect(byName.get('ended')?.end).toMatchObject({ reason: 'revoked', by: 'test', at: start + 30 * MINUTE })
      expect(byName.get('idle')?.end).toEqual({ reason: 'idle', at: start + 60 * MINUTE })
    })

    test('go on while sessions end and begin, and can be left early', async () => {
      const { manager } = await Rig.start(ground)
      const made = await Promise.all(Array.from({ length: 120 }, () => manager.create()))
      const seen = new Set<string>()
      for await (const { id } of manager.list()) {
        seen.add(id)
        if (seen.size === 10) await Promise.all([manager.create(), manager.revoke(id)])
      }
      expect(made.filter(({ id }) => !seen.has(id))).toEqual([])
      for await (const _ of manager.list()) break
      expect(await manager.count()).toBe(120)
    })

    test('pass over what cannot be read', async () => {
      const { manager, store } = await Rig.start(ground)
      const { id } = await manager.create()
      const broken = await manager.create()
      if (!(ground instanceof RedisGround)) return expect(await store.get(broken.id)).not.toBeNull()
      await ground.raw.set(`${ground.prefix}{${broken.id.slice(0, 4)}}${broken.id.slice(4)}`, 'm\tjunk\n')
      expect((await collect(manager.list())).map((info) => info.id)).toEqual([id])
      expect(await manager.validate(broken.id)).toEqual({
        isValid: false,
        reason: 'security-violation',
        violation: 'corrupt-record',
      })
      expect(await manager.get(broken.id)).toBeNull()
      expect(await manager.revoke(broken.id)).toBe(true)
      expect(await manager.validate(broken.id)).toEqual({ isValid: false, reason: 'not-found' })
    })
  })

  describe('bad arguments', () => {
    const bad = (value: unknown): never => value as never
    const ID = 'session ID'
    const calls: [name: string, names: string, call: (manager: SessionManager) => Promise<unknown>][] = [
      ['get(undefined)', ID, (m) => m.get(bad(undefined))],
      ['get("")', ID, (m) => m.get('')],
      ['validate(7)', ID, (m) => m.validate(bad(7))],
      ['update(["a"])', ID, (m) => m.update(bad(['a']), {})],
      ['refresh({})', ID, (m) => m.refresh(bad({}))],
      ['revoke(null)', ID, (m) => m.revoke(bad(null))],
      ['terminate(undefined)', ID, (m) => m.terminate(bad(undefined))],
      ['update(id, null)', 'fields', (m) => m.update(NOBODY, bad(null))],
      ['update(id, "a")', 'fields', (m) => m.update(NOBODY, bad('a'))],
      ['create({ fields: null })', 'fields', (m) => m.create({ fields: bad(null) })],
      ['create({ fields: [] })', 'fields', (m) => m.create({ fields: bad([1]) })],
      ['create({ userId: "" })', 'user ID', (m) => m.create({ userId: '' })],
      ['create({ userId: null })', 'user ID', (m) => m.create({ userId: bad(null) })],
      ['create({ context: "x" })', 'context', (m) => m.create({ context: bad('x') })],
      ['create({ context: { ip: 5 } })', 'context', (m) => m.create({ context: { ip: bad(5) } })],
      ['list({ userId: NaN })', 'user ID', (m) => collect(m.list({ userId: Number.NaN }))],
      ['count({ userId: {} })', 'user ID', (m) => m.count({ userId: bad({}) })],
      ['count({ status: "dead" })', 'status', (m) => m.count({ status: bad('dead') })],
      ['count({ createdSince: 5 })', 'createdSince', (m) => m.count({ createdSince: bad(5) })],
      ['count({ createdBefore })', 'createdBefore', (m) => m.count({ createdBefore: new Date(Number.NaN) })],
      ['count({ activeSince: "x" })', 'activeSince', (m) => m.count({ activeSince: bad('yesterday') })],
      ['count({ activeBefore: null })', 'activeBefore', (m) => m.count({ activeBefore: bad(null) })],
      ['sessionsOf(undefined)', 'user ID', (m) => m.sessionsOf(bad(undefined))],
      ['sessionsOf(Infinity)', 'user ID', (m) => m.sessionsOf(Number.POSITIVE_INFINITY)],
      ['sessionsOf("a", { current: 5 })', ID, (m) => m.sessionsOf('a', { current: bad(5) })],
      ['revokeUser(true)', 'user ID', (m) => m.revokeUser(bad(true))],
      ['revokeUser("a", { except: "" })', ID, (m) => m.revokeUser('a', { except: '' })],
      ['revokeUser("a", { by: 5 })', 'by', (m) => m.revokeUser('a', { by: bad(5) })],
      ['revoke(id, { detail: {} })', 'detail', (m) => m.revoke(NOBODY, { detail: bad({}) })],
      ['revoke(id, { by: 501 characters })', 'by', (m) => m.revoke(NOBODY, { by: 'x'.repeat(501) })],
      ['terminate(id, 5)', 'reason', (m) => m.terminate(NOBODY, bad(5))],
      ['revokeAll({ by: 5 })', 'by', (m) => m.revokeAll({ by: bad(5) })],
    ]
    test.each(calls)('%s is refused by the name of the argument, and nothing is done', async (_name, names, call) => {
      const { manager, store } = await Rig.start(ground)
      await manager.create({ userId: 'a' })
      const calls = store.totalCalls
      const error = await refusal(call(manager))
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(names) })
      expect(store.totalCalls).toBe(calls)
    })
  })

  test('nothing that the manager returns or tells holds a token or its hash', async () => {
    const rig = await Rig.start(ground, { maxSessionsPerUser: 5, archive: async (session) => seen.push(session) })
    const { manager } = rig
    const seen: unknown[] = []
    const secrets: string[] = []
    const note = async (client = rig.client): Promise<void> => {
      const [id, token, signature] = partsOf(client)
      const record = (await rig.store.get(id)) as SessionData
      expect(record.tokenHash).toBe(hashToken(token))
      secrets.push(token, signature, record.tokenHash)
      if (record.previousToken) secrets.push(record.previousToken.hash)
    }
    rig.client = await rig.login('ann')
    await note()
    await rig.ask((session) => session.renew())
    await note()
    const id = idOf(rig.client)
    const made = await manager.create({ userId: 'ann', fields: { a: 1 } })
    secrets.push(((await rig.store.get(made.id)) as SessionData).tokenHash)
    seen.push(made, await manager.get(id), await manager.validate(id))
    seen.push(await collect(manager.list()), await collect(manager.list({ userId: 'ann' })))
    seen.push(await manager.sessionsOf('ann', { current: id }), manager.describe(), manager)
    await rig.ask(async (session) => {
      seen.push(await manager.sessionsOf('ann', { current: session }))
      await manager.revokeUser('ann', { except: session })
    })
    await note()
    await manager.revoke(made.id, { by: 'x' })
    seen.push(await manager.validate(made.id), await collect(manager.list({ status: 'all' })))
    rig.clock.advance(HOUR)
    await manager.cleanUp()
    seen.push(await manager.validate(idOf(rig.client)), rig.told)
    expect(rig.heard('cleaned')).toMatchObject([{ removed: 1 }])
    secrets.push(SECRET)
    const text = seen.map(viewsOf).join('\n')
    expect(text).toContain(id)
    expect(secrets.length).toBeGreaterThan(10)
    for (const secret of secrets) expect(text).not.toContain(secret)
  })

  describe('what is known of the client', () => {
    const headers = {
      'user-agent': FIREFOX,
      referer: 'https://example.org/start?token=abc#part',
      'accept-language': 'de;q=0.7, en-GB, fr;q=0.9',
    }
    const contextWith = async (clientContext?: NonNullable<Parameters<typeof Rig.start>[1]>['clientContext']) => {
      const rig = await Rig.start(ground, clientContext === undefined ? {} : { clientContext })
      await rig.ask((session) => session.set('a', 1), rig.client, { headers })
      const inside = await rig.ask((session) => session.metadata.context)
      const info = await rig.manager.get(idOf(rig.client))
      expect(info?.context).toEqual(inside)
      return inside
    }
    const all = { ip: '127.0.0.1', userAgent: FIREFOX, referrer: 'https://example.org/start', locale: 'en-GB' }

    test('is kept when the session begins: address, user agent, referrer without query, language', async () => {
      expect(await contextWith()).toEqual(all)
      expect(await contextWith(true)).toEqual(all)
    })

    test.each(['ip', 'userAgent', 'referrer', 'locale'] as const)(
      'but not %s when that is switched off',
      async (name) => {
        const { [name]: _, ...others } = all
        expect(await contextWith({ [name]: false })).toEqual(others)
      },
    )

    test('but nothing at all with false', async () => {
      expect(await contextWith(false)).toEqual({})
    })

    test('stays what it was at the beginning, and is taken anew at login', async () => {
      const rig = await Rig.start(ground)
      const ask = (userAgent: string, act: Parameters<typeof rig.ask>[0]) =>
        rig.ask(act, rig.client, { headers: { 'user-agent': userAgent } })
      const known = (): Promise<unknown> => rig.ask((session) => session.metadata.context.userAgent)
      await ask('first', (session) => session.set('a', 1))
      await ask('second', (session) => session.set('a', 2))
      await ask('second', (session) => session.renew())
      expect(await known()).toBe('first')
      await ask('third', (session) => session.login('ann'))
      expect(await known()).toBe('third')
      await ask('fourth', (session) => session.regenerate({ keep: true }).then(() => {}))
      expect(await known()).toBe('third')
      await ask('fifth', (session) => session.reauthenticate())
      expect(await known()).toBe('fifth')
      await ask('sixth', (session) => session.regenerate().then(() => {}))
      expect(await known()).toBe('sixth')
    })

    test('is cut and has no line breaks, escapes or lone surrogates, whatever the client sends', async () => {
      const rig = await Rig.start(ground)
      const nasty = `a\t\u0085b${'\u00e9'.repeat(400)}`
      await rig.ask((session) => session.set('a', 1), rig.client, {
        headers: {
          'user-agent': nasty,
          referer: `https://x/${'y'.repeat(2_000)}`,
          'accept-language': 'x,'.repeat(500),
        },
      })
      const { userAgent = '', referrer = '', locale } = await rig.ask((session) => session.metadata.context)
      expect(userAgent).toMatch(/^a {2}b\u00e9+$/)
      expect(userAgent).toHaveLength(256)
      expect(referrer).toHaveLength(256)
      expect(locale).toBe('x')
    })
  })

  describe('initial fields', () => {
    test('are there from the first request on, and stored as soon as another one is set', async () => {
      const asked: string[] = []
      const rig = await Rig.start(ground, {
        initialFields: (req) => {
          asked.push(req.url ?? '')
          return { theme: 'dark', list: [] as number[], language: req.headers['accept-language'] }
        },
      })
      expect(await rig.ask((session) => ({ ...session }))).toEqual({ theme: 'dark', list: [] })
      expect(rig.answer?.setCookies).toEqual([])
      expect(await rig.manager.count()).toBe(0)

      await rig.ask((session) => session.set('n', 1), rig.client, { headers: { 'accept-language': 'de' } })
      expect(await rig.ask((session) => ({ ...session }))).toEqual({ theme: 'dark', list: [], language: 'de', n: 1 })
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({
        theme: 'dark',
        list: [],
        language: 'de',
        n: 1,
      })
      const count = asked.length
      await rig.ask((session) => session.delete('theme'))
      expect(await rig.ask((session) => session.has('theme'))).toBe(false)
      // A session that exists is not asked for.
      expect(asked).toHaveLength(count)
    })

    test('are stored when one of them is changed, by a login, and for what follows a logout or a regenerate()', async () => {
      const rig = await Rig.start(ground, { initialFields: () => ({ list: [1] }) })
      await rig.ask((session) => (session.get('list') as number[]).push(2))
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ list: [1, 2] })
      await rig.ask(async (session) => void (await session.regenerate()))
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ list: [1] })

      rig.client = await rig.login('ann')
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ list: [1] })
      const after = await rig.ask(async (session, req) => {
        session.set('list', [9])
        await session.logout()
        return { ...req.session }
      })
      expect(after).toEqual({ list: [1] })
      expect(rig.client.cookies.size).toBe(0)
    })

    test('that cannot be made or kept fail the request, not the process', async () => {
      let fields = (): Record<string, unknown> => ({ bad: () => 1 })
      const rig = await Rig.start(ground, { initialFields: () => fields() })
      const work = (): Promise<unknown> => rig.ask((session) => session.set('a', 1))
      await rig.client.get('/plain')
      expect((await rig.client.get('/plain')).status).toBe(500)
      fields = () => {
        throw new Error('no defaults today')
      }
      expect((await rig.client.get('/plain')).status).toBe(500)
      fields = () => ({ good: 1 })
      await work()
      expect(await rig.ask((session) => ({ ...session }))).toEqual({ good: 1, a: 1 })
    })
  })

  describe('close()', () => {
    test('waits until what was answered is stored, with commit: after-response', async () => {
      const rig = await Rig.start(ground, { commit: 'after-response', storeTimeout: '10s' })
      await rig.ask((session) => session.set('first', true))
      const id = idOf(rig.client)
      await until(async () => (await rig.manager.get(id)) !== null)
      rig.store.fail({ kind: 'delay', operations: ['update', 'create'] })
      const clients = Array.from({ length: 5 }, (_, n) => (n < 3 ? rig.client.clone() : rig.stranger()))
      await Promise.all(clients.map((client, n) => rig.ask((session) => session.set(`n${n}`, n), client)))
      // All of them are answered, and nothing of that is stored.
      await until(() => rig.store.heldCalls === 5)
      const ids = clients.map(idOf)
      const look = ground.store()
      let isClosed = false
      const closed = rig.close().then(() => {
        isClosed = true
      })
      await new Promise((resolve) => setImmediate(resolve))
      expect(isClosed).toBe(false)
      rig.store.repair()
      rig.store.release()
      await closed
      const names = async (of: string | undefined): Promise<string[]> => [
        ...((await look.get(of ?? ''))?.fields.keys() ?? []),
      ]
      expect((await names(id)).sort()).toEqual(['first', 'n0', 'n1', 'n2'])
      expect(await names(ids[3])).toEqual(['n3'])
      expect(await names(ids[4])).toEqual(['n4'])
    })

    test('waits for what has not begun to be stored when the answer leaves', async () => {
      const rig = await Rig.start(ground, { commit: 'after-response' })
      const closing = new Promise<void>((resolve) => {
        void rig.ask((session, _req, res) => {
          session.set('n', 1)
          res.on('finish', () => resolve(rig.manager.close()))
        })
      })
      await closing
      const look = ground.store()
      await until(() => rig.client.cookies.size === 1)
      expect((await look.get(idOf(rig.client)))?.fields.get('n')).toBe('1')
    })

    test('ends clean-up: none begins any more', async () => {
      const rig = await Rig.start(ground)
      await rig.close()
      expect(await rig.manager.cleanUp()).toBeNull()
    })
  })
})

describe('a store that lacks an ability', () => {
  class PlainStore extends SessionStore {
    readonly #records = new Map<string, SessionData>()
    async get(id: string): Promise<SessionData | null> {
      return this.#records.get(id) ?? null
    }
    async set(id: string, data: SessionData): Promise<void> {
      this.#records.set(id, data)
    }
    async delete(id: string): Promise<void> {
      this.#records.delete(id)
    }
  }

  test('serves one session at a time, and says what it cannot do', async () => {
    const manager = new SessionManager({ secret: SECRET, store: new PlainStore() })
    const { id } = await manager.create({ userId: 'ann', fields: { a: 1 } })
    expect(await manager.update(id, { a: 2 })).toBe(true)
    expect(await manager.refresh(id)).toBe(true)
    expect(await manager.get(id)).toMatchObject({ userId: 'ann', fields: { a: 2 } })
    expect(manager.describe()).toMatchObject({ abilities: [], store: 'PlainStore' })
    for (const call of [
      () => collect(manager.list()),
      () => collect(manager.list({ userId: 'ann' })),
      () => manager.count(),
      () => manager.sessionsOf('ann'),
      () => manager.revokeUser('ann'),
      () => manager.revokeAll(),
    ]) {
      expect((await refusal(call())).code).toBe('NOT_SUPPORTED')
    }
    expect(await manager.cleanUp()).toEqual({ removed: 0, failed: 0 })
    expect(await manager.revoke(id)).toBe(true)
    expect(await manager.validate(id)).toMatchObject({ reason: 'ended' })
  })

  test('is refused for what the options ask of it', () => {
    const store = new PlainStore()
    expect(() => new SessionManager({ secret: SECRET, store, maxSessionsPerUser: 3 })).toThrow(/maxSessionsPerUser/)
    expect(() => new SessionManager({ secret: SECRET, store, archive: () => {} })).toThrow(/archive/)
  })
})

describe('the middleware', () => {
  test('of a manager is one and the same, and session() is the short form of it', () => {
    const manager = new SessionManager({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
    const middleware = manager.middleware()
    expect(manager.middleware()).toBe(middleware)
    expect(middleware.manager).toBe(manager)
    expect(middleware.events).toBe(manager.events)
    expect(middleware.store).toBe(manager.store)
    const short = session({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
    expect(short.manager).toBeInstanceOf(SessionManager)
    expect(short.manager.middleware()).toBe(short)
  })
})
