// What proved who the user is: kept with the login, raised by another proof, gone with the login, and asked for by a guard.
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type RequestHandler } from 'express'
import { type ProofOptions, requireLevel, requireRecentAuth, session } from 'sojourn'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'
import { GROUNDS, idOf, Rig, useGround } from '../support/rig.js'

describe.each(GROUNDS)('in %s', (_name, make) => {
  const ground = useGround(make)

  const seen = (rig: Rig): Promise<unknown> =>
    rig.ask((s) => {
      const { authentication } = s.metadata
      return authentication && { methods: authentication.methods, level: authentication.level }
    })

  test('what login() is told stays until the login ends, wherever the session goes', async () => {
    const rig = await Rig.start(ground)
    expect(await seen(rig)).toBeUndefined()
    await rig.ask((s) => s.set('a', 1))
    await rig.ask((s) => s.login('ann', { methods: ['pwd', 'otp'] }))
    const proof = { methods: ['pwd', 'otp'], level: 2 }
    expect(await seen(rig)).toEqual(proof)
    await rig.ask((s) => s.renew())
    await rig.ask((s) => s.regenerate({ keep: true }))
    await rig.ask((s) => s.restart())
    await rig.ask((s) => s.clear())
    expect(await seen(rig)).toEqual(proof)
    expect(await rig.manager.sessionsOf('ann')).toMatchObject([
      { id: idOf(rig.client), authentication: { ...proof, at: expect.any(Date) } },
    ])
    expect(await rig.manager.get(idOf(rig.client))).toMatchObject({ authentication: proof })
    expect(rig.heard('login')).toMatchObject([{ userId: 'ann', ...proof }])
    expect(await rig.ask((s) => [s.keys(), { ...s }])).toEqual([[], {}])

    // Another login says for itself what it proved; without a word it is worth what any login is.
    await rig.ask((s) => s.login('ann'))
    expect(await seen(rig)).toEqual({ methods: [], level: 1 })
    await rig.ask((s) => s.login('ann', { methods: ['pwd', 'otp'], keep: false }))
    expect(await seen(rig)).toEqual(proof)
    await rig.ask((s) => s.login('bob'))
    expect(await seen(rig)).toEqual({ methods: [], level: 1 })
    await rig.ask((s) => s.login('bob', { methods: ['hwk'], level: 3, fields: { role: 'admin' } }))
    expect(await seen(rig)).toEqual({ methods: ['hwk'], level: 3 })
    await rig.ask((s) => s.logout())
    expect(await seen(rig)).toBeUndefined()
    await rig.ask((s) => s.login('ann', { methods: ['pwd'] }))
    await rig.ask((s) => s.regenerate({ keep: ['role'] }))
    expect(await seen(rig)).toBeUndefined()
    await rig.ask((s) => s.login('ann'))
    expect(await seen(rig)).toEqual({ methods: [], level: 1 })
  })

  test('reauthenticate() adds what was proved now, and the time starts afresh', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.login('ann', { methods: ['pwd'] }))
    const at = (): Promise<Date | undefined> => rig.ask((s) => s.metadata.authentication?.at)
    const before = await at()
    rig.clock.advance(60_000)
    await rig.ask((s) => s.reauthenticate({ methods: ['otp'] }))
    expect(await seen(rig)).toEqual({ methods: ['pwd', 'otp'], level: 2 })
    expect((await at())?.getTime()).toBe((before?.getTime() ?? 0) + 60_000)
    await rig.ask((s) => s.reauthenticate({ methods: ['pwd'] }))
    expect(await seen(rig)).toEqual({ methods: ['pwd', 'otp'], level: 2 })
    await rig.ask((s) => s.reauthenticate())
    expect(await seen(rig)).toEqual({ methods: ['pwd', 'otp'], level: 2 })
    await rig.ask((s) => s.reauthenticate({ level: 1 }))
    expect(await seen(rig)).toEqual({ methods: ['pwd', 'otp'], level: 1 })
    expect(rig.heard('reauthenticated')[0]).toMatchObject({ methods: ['pwd', 'otp'], level: 2 })
    await rig.ask((s) => s.login('carl'))
    await rig.ask((s) => s.reauthenticate({ methods: ['pwd', 'otp'] }))
    expect(await seen(rig)).toEqual({ methods: ['pwd', 'otp'], level: 2 })
  })

  test('what cannot be read proves nothing', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.login('ann', { methods: ['pwd', 'otp'] }))
    const { store } = rig.manager
    for (const junk of ['junk', '[]', '{}', '["2"]', '[99]', '[2,""]', '[2,5]', 'null']) {
      const record = await store.get(idOf(rig.client))
      if (record) await store.set(record.id, record.withField('sojourn::proof', junk), 1_000)
      expect({ junk, seen: await seen(rig) }).toEqual({ junk, seen: { methods: [], level: 0 } })
    }
  })
})

describe('the level', () => {
  test.each<[ProofOptions, number]>([
    [{ methods: ['pwd'] }, 1],
    [{ methods: ['pwd', 'pin'] }, 1],
    [{ methods: ['pwd', 'otp'] }, 2],
    [{ methods: ['mfa'] }, 2],
    [{ methods: ['hwk', 'fpt'] }, 2],
    [{ methods: ['pwd', 'sc', 'face'] }, 3],
    [{ methods: ['pwd', 'mfa'] }, 2],
    [{ methods: ['ours', 'constructor'] }, 1],
    [{ methods: [] }, 1],
    [{ methods: ['pwd'], level: 4 }, 4],
    [{ methods: ['pwd', 'otp'], level: 0 }, 0],
    [{ level: 2 }, 2],
  ])('of %j is %i', async (proof, level) => {
    const { client } = await site((app) => {
      app.post('/login', async (req, res) => {
        await req.session.login('ann', proof)
        res.json({})
      })
    })
    await client.post('/login')
    const { status } = await client.get(`/level/${level}`)
    expect([status, (await client.get(`/level/${level + 1}`)).status]).toEqual([200, 401])
  })

  test.each<[unknown, RegExp]>([
    [{ methods: 'pwd' }, /methods is a list/],
    [{ methods: [''] }, /methods is a list/],
    [{ methods: [5] }, /methods is a list/],
    [{ methods: ['x'.repeat(41)] }, /methods is a list/],
    [{ methods: Array(21).fill('pwd') }, /methods is a list/],
    [{ level: 1.5 }, /whole number from 0 to 9/],
    [{ level: -1 }, /whole number/],
    [{ level: 10 }, /whole number/],
    [{ level: '2' }, /whole number/],
  ])('%j is refused, and nobody is logged in', async (proof, message) => {
    const { client } = await site((app) => {
      app.post('/login', async (req, res) => {
        const failed = await req.session.login('ann', proof as ProofOptions).catch((error: unknown) => error)
        res.json({ message: (failed as Error).message, userId: req.session.metadata.userId ?? null })
      })
    })
    expect((await client.post('/login')).json()).toEqual({ message: expect.stringMatching(message), userId: null })
  })
})

describe('requireLevel()', () => {
  test('challenges in the terms of RFC 9470, with the age where one is asked for', async () => {
    const { client } = await site((app) => {
      app.post('/login', async (req, res) => {
        await req.session.login('ann', { methods: ['pwd'] })
        res.json({})
      })
      app.get('/named', requireLevel(2, { acr: 'urn:example:silver', maxAge: '10m' }), done)
      app.get('/recent', requireLevel(1, { maxAge: '10m' }), done)
      app.get('/own', requireLevel(2, { onRequired: (_req, res) => (res as express.Response).redirect('/otp') }), done)
      app.get('/both', requireRecentAuth('10m'), done)
    })
    const challenge = async (path: string): Promise<unknown[]> => {
      const { status, headers, body } = await client.get(path)
      return [status, headers['www-authenticate'], body]
    }
    const error = 'Session error="insufficient_user_authentication"'
    expect(await challenge('/level/1')).toEqual([401, `${error}, acr_values="1"`, 'Nobody is logged in.'])
    await client.post('/login')
    expect(await challenge('/level/1')).toEqual([200, undefined, 'done'])
    expect(await challenge('/level/2')).toEqual([
      401,
      `${error}, acr_values="2"`,
      'The user proved who they are at level 1; 2 is needed here.',
    ])
    expect(await challenge('/named')).toEqual([
      401,
      `${error}, acr_values="urn:example:silver", max_age="600"`,
      expect.any(String),
    ])
    expect(await challenge('/recent')).toEqual([200, undefined, 'done'])
    expect(await challenge('/both')).toEqual([200, undefined, 'done'])
    expect((await client.get('/own')).headers['location']).toBe('/otp')
  })

  test('with maxAge, a level that was proved too long ago is not enough', async () => {
    let now = Date.now()
    const { client } = await site(
      (app) => {
        app.post('/login', async (req, res) => {
          await req.session.login('ann', { methods: ['pwd', 'otp'] })
          res.json({})
        })
        app.get('/recent', requireLevel(2, { maxAge: '10m' }), done)
      },
      () => now,
    )
    await client.post('/login')
    expect((await client.get('/recent')).status).toBe(200)
    now += 600_000
    expect((await client.get('/recent')).headers['www-authenticate']).toContain('acr_values="2", max_age="600"')
    expect((await client.get('/level/2')).status).toBe(200)
  })

  test('is refused with what is no level, and says what it needs', async () => {
    expect(() => requireLevel(-1)).toThrow(/whole number from 0 to 9/)
    expect(() => requireLevel('2' as never)).toThrow(/whole number/)
    expect(() => requireLevel(2, { acr: 'a b' })).toThrow(/acr is text without spaces/)
    expect(() => requireLevel(2, { onRequired: 1 as never })).toThrow(/onRequired is not a function/)
    const app = express()
    app.use(requireLevel(2))
    app.use(((error, _req, res, _next) => void res.send(error.message)) as express.ErrorRequestHandler)
    const server = await listen(app)
    open.push(server)
    expect((await new Client(server).get('/')).body).toMatch(/requireLevel\(\) runs behind session\(\)/)
  })
})

const open: TestServer[] = []
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()))
})

const done: RequestHandler = (_req, res) => void res.send('done')

async function site(
  extend: (app: express.Express) => void,
  clock: () => number = () => Date.now(),
): Promise<{ client: Client }> {
  const app = express()
  app.use(session({ secret: SECRET, clock }))
  for (const level of [0, 1, 2, 3, 4, 5]) app.get(`/level/${level}`, requireLevel(level), done)
  extend(app)
  app.use(
    ((error, _req, res, _next) => void res.status(error.status).send(error.message)) as express.ErrorRequestHandler,
  )
  const server = await listen(app)
  open.push(server)
  return { client: new Client(server) }
}
