// Passport's users are the users of the session, whatever the strategy.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import express, { type NextFunction, type Request, type Response } from 'express'
import passportModule from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { requireRecentAuth } from 'sojourn'
import { type PassportUsersOptions, passportUsers } from 'sojourn/passport'
import type { Client } from '../support/http.js'
import { closeRigs, GROUNDS, Rig, type RigOptions } from '../support/rig.js'

interface Account {
  readonly name: string
  readonly number: number
}

describe.each(GROUNDS)('in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())

  interface Setup extends RigOptions {
    keepSessionInfo?: boolean
    bridge?: PassportUsersOptions | null
    serialized?: (user: Account) => unknown
  }

  /** The routes stand behind those of the rig, which answer what has a handler. */
  async function start({ keepSessionInfo = false, bridge = {}, serialized, ...options }: Setup = {}): Promise<Rig> {
    const passport = new passportModule.Passport()
    passport.use(
      new LocalStrategy((name, password, done) => done(null, password === 'right' && { name, number: name.length })),
    )
    passport.serializeUser((user, done) => {
      const account = user as Account
      done(null, serialized === undefined ? account.name : (serialized(account) as string))
    })
    passport.deserializeUser((found, done) => {
      done(null, { name: typeof found === 'string' ? found : (found as Account).name })
    })
    const router = express.Router()
    if (bridge !== null) router.use(passportUsers(passport, bridge))
    router.use(passport.session(), express.json())
    router.post('/login', passport.authenticate('local', { keepSessionInfo }), (req, res) => void res.json(req.user))
    router.post('/logout', (req, res, next) => {
      req.logout({ keepSessionInfo }, (error) => (error ? next(error) : res.json(req.user ?? null)))
    })
    router.post('/revoke-and-logout', async (req, res, next) => {
      await rig.manager.revoke(req.session.id)
      req.logout((error) => (error ? next(error) : res.json(null)))
    })
    router.post('/token', (req, res, next) => {
      req.login({ name: 'tom', number: 3 } as Express.User, { session: false }, (error) => {
        if (error) next(error)
        else res.json({ user: req.user, keys: req.session.keys() })
      })
    })
    router.get('/danger', requireRecentAuth('1h'), (_req, res) => void res.send('done'))
    router.get('/who', (req, res) => {
      const { userId } = req.session.metadata
      res.json({ passport: req.user ?? null, session: userId ?? null, fields: req.session })
    })
    router.use((error: Error & { status?: number }, _req: Request, res: Response, _next: NextFunction) => {
      res.status(error.status ?? 500).end(error.message)
    })
    const rig: Rig = await Rig.start(ground, options, undefined, router)
    return rig
  }

  const login = (client: Client, username = 'ann', password = 'right') => client.post('/login', { username, password })
  const who = async (client: Client): Promise<Record<string, unknown>> => (await client.get('/who')).json()

  test.each([false, true])(
    'a login is one of the session, in one write (keepSessionInfo: %s)',
    async (keepSessionInfo) => {
      const rig = await start({ keepSessionInfo })
      await rig.ask((session) => session.set('list', ['tea']).set('csrfToken', 'known'))
      const planted = rig.client.clone()
      const before = { ...rig.store.calls }
      expect(await login(rig.client)).toMatchObject({ status: 200, setCookies: [expect.any(String)] })
      expect([rig.store.calls.regenerate - before.regenerate, rig.store.calls.update - before.update]).toEqual([1, 0])
      const fields = { passport: { user: 'ann' }, ...(keepSessionInfo && { list: ['tea'] }) }
      expect(await who(rig.client)).toEqual({ passport: { name: 'ann' }, session: 'ann', fields })
      expect(await rig.whoIs(planted)).toBeNull()
      expect(await rig.manager.sessionsOf('ann')).toHaveLength(1)
      expect(rig.heard('login')).toHaveLength(1)
      expect((await rig.client.get('/danger')).status).toBe(200)
      rig.clock.advance(2 * 3_600_000 - 1)
      expect((await rig.client.get('/danger')).status).toBe(401)
    },
  )

  test('a login of a client without a session is one, too', async () => {
    const rig = await start()
    await login(rig.client)
    expect(await who(rig.client)).toMatchObject({ passport: { name: 'ann' }, session: 'ann' })
  })

  test('revokeUser() ends what Passport has logged in', async () => {
    const rig = await start()
    await login(rig.client)
    expect(await rig.manager.revokeUser('ann')).toBe(1)
    expect(await who(rig.client)).toMatchObject({ passport: null, session: null })
  })

  test.each([false, true])('a login that is refused is no login (keepSessionInfo: %s)', async (keepSessionInfo) => {
    const rig = await start({ keepSessionInfo, maxSessionsPerUser: 1, onSessionLimit: 'refuse' })
    await login(rig.stranger())
    await rig.ask((session) => session.set('list', ['tea']))
    expect(await login(rig.client)).toMatchObject({ status: 409 })
    expect(await who(rig.client)).toEqual({ passport: null, session: null, fields: { list: ['tea'] } })
    expect(await rig.manager.sessionsOf('ann')).toHaveLength(1)
  })

  test('a login that the store cannot keep is no login', async () => {
    const rig = await start({ keepSessionInfo: true })
    await rig.ask((session) => session.set('list', ['tea']))
    rig.manager.events.on('storeError', () => {})
    rig.store.fail({ kind: 'error', operations: ['regenerate'] })
    expect(await login(rig.client)).toMatchObject({ status: 503 })
    rig.store.repair()
    expect(await who(rig.client)).toEqual({ passport: null, session: null, fields: { list: ['tea'] } })
  })

  test.each([false, true])(
    'of another user’s session nothing goes over (keepSessionInfo: %s)',
    async (keepSessionInfo) => {
      const rig = await start({ keepSessionInfo })
      await login(rig.client)
      await rig.ask((session) => session.set('list', ['ann’s']))
      const anns = rig.client.clone()
      await login(rig.client, 'bob')
      expect(await who(rig.client)).toEqual({
        passport: { name: 'bob' },
        session: 'bob',
        fields: { passport: { user: 'bob' } },
      })
      expect(await who(anns)).toMatchObject({ passport: null, session: null })
    },
  )

  test('two logins at once leave the user logged in', async () => {
    const rig = await start()
    await rig.ask((session) => session.set('list', ['tea']))
    const [first, second] = [rig.client.clone(), rig.client.clone()]
    expect((await Promise.all([login(first), login(second)])).map(({ status }) => status)).toEqual([200, 200])
    const found = await Promise.all([who(first), who(second)])
    expect(found.filter(({ session }) => session === 'ann').length).toBeGreaterThan(0)
  })

  test('a logout ends the session and clears the cookie', async () => {
    const rig = await start()
    await login(rig.client)
    const copy = rig.client.clone()
    const answer = await rig.client.post('/logout')
    expect(answer).toMatchObject({ status: 200, setCookies: [expect.stringContaining('Max-Age=0')] })
    expect(await who(copy)).toMatchObject({ passport: null, session: null })
    expect(rig.heard('logout')).toHaveLength(1)
    expect(await rig.manager.sessionsOf('ann')).toEqual([])
  })

  test('a logout with keepSessionInfo keeps the fields, and nobody is logged in', async () => {
    const rig = await start({ keepSessionInfo: true })
    await login(rig.client)
    await rig.ask((session) => session.set('list', ['tea']))
    const copy = rig.client.clone()
    expect((await rig.client.post('/logout')).status).toBe(200)
    expect(await who(rig.client)).toEqual({ passport: null, session: null, fields: { list: ['tea'] } })
    expect(await who(copy)).toMatchObject({ passport: null, session: null })
    expect(await rig.manager.sessionsOf('ann')).toEqual([])
  })

  test('a user ID may be another thing than what is serialized', async () => {
    const serialized = (user: Account): unknown => ({ name: user.name })
    const rig = await start({ serialized, bridge: { userId: (user: Account) => user.number } })
    await login(rig.client, 'bob')
    expect(await who(rig.client)).toEqual({
      passport: { name: 'bob' },
      session: 3,
      fields: { passport: { user: { name: 'bob' } } },
    })
  })

  test('what is no user ID says what to write', async () => {
    const rig = await start({ serialized: (user) => ({ name: user.name }) })
    expect(await login(rig.client)).toMatchObject({
      status: 500,
      body: expect.stringContaining('userId: (user) => user.id'),
    })
    expect(await who(rig.client)).toMatchObject({ passport: null, session: null })
  })

  test('session: false logs in for one request', async () => {
    const rig = await start()
    expect((await rig.client.post('/token')).json()).toEqual({ user: { name: 'tom', number: 3 }, keys: [] })
    expect(rig.client.cookies.size).toBe(0)
  })

  test('a wrong password logs nobody in', async () => {
    const rig = await start()
    expect((await login(rig.client, 'ann', 'wrong')).status).toBe(401)
    expect(await who(rig.client)).toMatchObject({ passport: null, session: null })
  })

  test.each([{}, null])('a session that its request has revoked can be logged out of (bridge: %j)', async (bridge) => {
    const rig = await start({ bridge })
    await login(rig.client)
    const copy = rig.client.clone()
    const answer = await rig.client.post('/revoke-and-logout')
    expect(answer).toMatchObject({ status: 200, setCookies: [expect.stringContaining('Max-Age=0')] })
    expect(await who(copy)).toMatchObject({ passport: null })
  })

  test('without the bridge two logins at once log in, too', async () => {
    const rig = await start({ bridge: null })
    await rig.ask((session) => session.set('list', ['tea']))
    const [first, second] = [rig.client.clone(), rig.client.clone()]
    expect((await Promise.all([login(first), login(second)])).map(({ status }) => status)).toEqual([200, 200])
  })
})

test('passportUsers() says what it needs', () => {
  expect(() => passportUsers({} as never)).toThrow(/needs the object that is passport/)
})
