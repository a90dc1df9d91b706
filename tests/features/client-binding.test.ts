// A session that another client uses is noticed, and what follows is what was chosen.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import express from 'express'
import { type Activity, requireLevel, requireRecentAuth, type SessionData, session } from 'sojourn'
import { type ClientBindingOptions, clientBinding } from 'sojourn/client-binding'
import { inside } from 'sojourn/inside'
import { Recent } from '../../src/recent.js'
import { Client, listen, OTHER_SECRET, SECRET, send } from '../support/http.js'
import { closeRigs, GROUNDS, type Ground, idOf, MemoryGround, Rig, type RigOptions, useGround } from '../support/rig.js'

const FIREFOX = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0'
const CHROME =
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36'

/** What a client sends; each request may say otherwise. */
type Headers = Readonly<Record<string, string>>
const AT_HOME: Headers = {
  'user-agent': FIREFOX,
  'accept-language': 'de-AT,de;q=0.9,en;q=0.5',
  'x-forwarded-for': '192.0.2.7',
}
const ELSEWHERE: Headers = { ...AT_HOME, 'x-forwarded-for': '198.51.100.9' }
const THIEF: Headers = { 'user-agent': CHROME, 'accept-language': 'en-US', 'x-forwarded-for': '203.0.113.5' }

interface Told {
  readonly changed: readonly string[]
  readonly outcome: string
}

interface Visitors {
  readonly rig: Rig
  readonly told: Told[]
  /** One request of the client `headers`, with the cookie of `client`. */
  ask<T>(handler: Parameters<Rig['ask']>[0], headers?: Headers, client?: Client, path?: string): Promise<T>
}

async function visitors(
  ground: Ground,
  binding: ClientBindingOptions | ((app: express.Router) => void) = {},
  options: RigOptions = {},
): Promise<Visitors> {
  const told: Told[] = []
  const routes = express.Router()
  if (typeof binding === 'function') binding(routes)
  else routes.use(clientBinding(binding))
  for (const [path, guard] of [
    ['/recent', requireRecentAuth('10m')],
    ['/level', requireLevel(1)],
  ] as const) {
    routes.use(path, guard)
  }
  const prepare: RigOptions['prepare'] = (app) => void app.set('trust proxy', 1)
  const rig = await Rig.start(ground, { prepare, ...options }, undefined, routes)
  rig.manager.events.on('clientChanged', (event) => void told.push(event))
  const ask: Visitors['ask'] = async (handler, headers = AT_HOME, client = rig.client, path = '/') =>
    (await rig.ask(handler, client, { headers, path })) as never
  return { rig, told, ask }
}

const login = (s: { login(userId: string): Promise<void> }): Promise<void> => s.login('ann')
const look = (): string => 'seen'
const isLoggedIn = (s: { metadata: { userId: unknown } }): boolean => s.metadata.userId !== undefined

describe.each(GROUNDS)('in %s', (_name, make) => {
  const ground = useGround(make)

  test('another network, browser or language is told of, once for each client, and nobody is logged out (ASVS 8.2.4)', async () => {
    const { rig, told, ask } = await visitors(ground)
    await ask(login)
    await ask(look)
    const updates = rig.store.calls.update ?? 0
    for (const same of [AT_HOME, { ...AT_HOME, 'x-forwarded-for': '192.0.2.200' }]) await ask(look, same)
    expect(told).toEqual([])
    expect(rig.store.calls.update ?? 0).toBe(updates)

    await ask(look, ELSEWHERE)
    await ask(look, ELSEWHERE)
    await ask(look)
    await ask(look, ELSEWHERE)
    expect(told).toMatchObject([
      {
        id: idOf(rig.client),
        userId: 'ann',
        changed: ['network'],
        outcome: 'told',
        method: 'GET',
        path: '/',
        ip: '198.51.100.9',
      },
    ])
    await ask(look, { ...AT_HOME, 'user-agent': CHROME })
    await ask(look, { ...AT_HOME, 'accept-language': 'fr' })
    await ask(look, THIEF)
    expect(told.map(({ changed }) => changed)).toEqual([
      ['network'],
      ['browser'],
      ['language'],
      ['network', 'browser', 'language'],
    ])
    expect(await ask(isLoggedIn, THIEF)).toBe(true)
    expect(rig.heard('logout', 'destroyed', 'revoked')).toEqual([])
    // In another process, too.
    const other = await visitors(ground)
    await other.ask(look, THIEF, other.rig.stranger(rig.client.cookies))
    expect(other.told).toEqual([])
  })

  test('what is far longer than what a browser says of itself is not kept in memory', async () => {
    const kept = jest.spyOn(Recent.prototype, 'set')
    const { ask, told } = await visitors(ground)
    const long = { ...AT_HOME, 'user-agent': 'x'.repeat(5_000), 'accept-language': `de, ${'x'.repeat(5_000)}` }
    await ask(login, long)
    await ask(look, long)
    await ask(look, { ...long, 'user-agent': `y${long['user-agent']}` })
    expect(told).toMatchObject([{ changed: ['browser'] }])
    expect(Math.max(...kept.mock.calls.map(([key]) => key.length))).toBeLessThan(1_001)
    kept.mockRestore()
  })

  test('with "challenge" recent proof is asked for again, from this client alone, until it is given (ASVS 7.5.1)', async () => {
    const { rig, told, ask } = await visitors(ground, { policy: 'challenge' })
    await ask(login)
    expect(await ask(look, AT_HOME, rig.client, '/recent')).toBe('seen')
    const statusAt = async (path: string, headers: Headers, client = rig.client): Promise<number> =>
      (await client.get(path, { ...headers, 'x-handler': 'none' })).status
    // Let through, no handler answers.
    for (const path of ['/recent', '/level']) expect(await statusAt(path, THIEF)).toBe(401)
    expect(await ask((s) => [s.metadata.authenticatedAt, s.metadata.authentication?.level], THIEF)).toEqual([
      undefined,
      0,
    ])
    expect(await ask(isLoggedIn, THIEF)).toBe(true)
    expect(told).toMatchObject([{ outcome: 'challenged' }])
    expect(told).toHaveLength(1)
    // A new ID is no proof, and the first client needs none.
    await ask((s) => s.regenerate({ keep: true }), THIEF)
    expect(await statusAt('/recent', THIEF)).toBe(401)
    expect(await statusAt('/recent', AT_HOME)).toBe(404)

    rig.clock.advance(1_000)
    const proved = await ask(async (s) => {
      await s.reauthenticate()
      return s.metadata.authenticatedAt !== undefined
    }, THIEF)
    expect(proved).toBe(true)
    expect(await statusAt('/recent', THIEF)).toBe(404)
    // Now it is the other one that is strange.
    expect(await statusAt('/recent', AT_HOME)).toBe(401)
  })

  test('with "end" the session is revoked, with the reason, and the request goes on without one', async () => {
    const ended: unknown[] = []
    const { rig, told, ask } = await visitors(ground, { policy: 'end' }, { onEnded: ({ end }) => void ended.push(end) })
    await ask(login)
    const victim = rig.client.clone()
    const after = await ask(async (s) => ({ userId: s.metadata.userId, isNew: s.isNew }), THIEF)
    expect(after).toEqual({ userId: undefined, isNew: true })
    expect(rig.client.cookies.size).toBe(0)
    expect(told).toMatchObject([{ outcome: 'ended', userId: 'ann' }])
    const why = { by: 'client-binding', detail: 'another network and browser and language' }
    expect(rig.heard('revoked')).toMatchObject([{ userId: 'ann', ...why }])
    expect(await ask(isLoggedIn, AT_HOME, victim)).toBe(false)
    expect(ended).toMatchObject([{ reason: 'revoked', ...why }])
    expect(await rig.manager.sessionsOf('ann')).toEqual([])
  })

  test('a function chooses, at once or later, and a path may be stricter than the rest', async () => {
    const asked: unknown[] = []
    const { rig, told, ask } = await visitors(ground, (app) => {
      app.use(clientBinding())
      app.use(
        '/admin',
        clientBinding({
          async policy({ changed, session: { metadata } }, req: express.Request) {
            asked.push([changed, metadata.userId, req.originalUrl])
            return changed.includes('browser') ? 'end' : 'ignore'
          },
        }),
      )
    })
    await ask(login)
    expect(await ask(isLoggedIn, ELSEWHERE, rig.client, '/admin/x')).toBe(true)
    expect(await ask(isLoggedIn, THIEF)).toBe(true)
    expect(await ask(isLoggedIn, THIEF, rig.client, '/admin/y')).toBe(false)
    expect(asked).toEqual([
      [['network'], 'ann', '/admin/x'],
      [['network', 'browser', 'language'], 'ann', '/admin/y'],
    ])
    expect(told.map(({ outcome }) => outcome)).toEqual(['told', 'told', 'ended'])
  })

  test('two that look at different things each keep what the other one has bound', async () => {
    const { rig, told, ask } = await visitors(ground, (app) => {
      app.use(clientBinding({ on: ['browser'], policy: 'end' }))
      app.use(clientBinding({ on: ['network'] }))
    })
    await ask(login)
    await ask(look)
    await ask(look, ELSEWHERE)
    expect(told).toMatchObject([{ changed: ['network'], outcome: 'told' }])
    const thief = rig.stranger(rig.client.cookies)
    expect(await ask(isLoggedIn, THIEF, thief)).toBe(false)
    expect(told).toMatchObject([{ changed: ['network'] }, { changed: ['browser'], outcome: 'ended' }])
  })

  test('a client that was told of is told of again when it is challenged, and once', async () => {
    const { rig, told, ask } = await visitors(ground, (app) => {
      app.use(clientBinding())
      app.use('/account', clientBinding({ policy: 'challenge' }))
    })
    await ask(login)
    for (const path of ['/', '/account', '/', '/account']) await ask(look, THIEF, rig.client, path)
    expect(told.map(({ outcome }) => outcome)).toEqual(['told', 'challenged'])
  })

  test('a login and another proof bind the session to who sends them, as it goes on', async () => {
    const { told, ask } = await visitors(ground)
    await ask((s) => s.set('note', 'tea'))
    await ask(look)
    await ask(login, ELSEWHERE)
    await ask(look, ELSEWHERE)
    expect(told.map(({ changed }) => changed)).toEqual([['network']])
    await ask(look)
    expect(told).toHaveLength(2)
    await ask((s) => s.logout(), ELSEWHERE)
    await ask((s) => s.login('bob'), THIEF)
    await ask(look, THIEF)
    expect(told).toHaveLength(2)
  })

  test('the store has keyed hashes, of which no two sessions of one client have the same (NIST 800-63B 5.3)', async () => {
    const { rig, ask } = await visitors(ground, {}, { clientContext: false })
    const texts: string[] = []
    for (const client of [rig.stranger(), rig.stranger()]) {
      await ask(login, AT_HOME, client)
      const record = (await rig.manager.store.get(idOf(client))) as SessionData
      const all = JSON.stringify(record)
      for (const value of ['192.0.2', 'Firefox', 'firefox', 'windows', 'de-AT', '"de']) expect(all).not.toContain(value)
      texts.push(record.fields.get('sojourn:client-binding') as string)
    }
    expect(texts[0]).toMatch(/^"[\w-]{12}\.[\w-]{6}(\.[\w-]{22}){3}\."$/)
    const [one, other] = texts.map((text) => text.split('.').slice(2, 5))
    expect(one?.filter((hash) => other?.includes(hash))).toEqual([])
  })

  test('nothing is stored for a visitor with an empty session, and a session that begins is bound in the same write', async () => {
    const { rig, ask } = await visitors(ground)
    await ask(look)
    expect(rig.store.totalCalls).toBe(0)
    await ask((s) => s.set('a', 1))
    expect(rig.store.calls).toMatchObject({ create: 1 })
    expect(rig.store.calls.update ?? 0).toBe(0)
    await ask(look)
    expect(rig.store.calls.update ?? 0).toBe(0)
    expect(await ask((s) => s.keys())).toEqual(['a'])
  })

  test('a session from before is bound at its next request, once', async () => {
    const before = await Rig.start(ground)
    await before.ask((s) => s.login('ann'))
    const { rig, told, ask } = await visitors(ground)
    const client = rig.stranger(before.client.cookies)
    await ask(look, AT_HOME, client)
    await ask(look, AT_HOME, client)
    expect(rig.store.calls.update).toBe(1)
    await ask(look, THIEF, client)
    expect(told).toHaveLength(1)
  })

  test('a new secret changes nothing, nor does it when the old one goes (ASVS 13.3.4)', async () => {
    const secrets = [SECRET]
    const { told, ask } = await visitors(ground, {}, { secret: secrets })
    await ask(login)
    secrets.unshift(OTHER_SECRET)
    await ask(look)
    expect(told).toEqual([])
    await ask(look, ELSEWHERE)
    expect(told).toHaveLength(1)
    secrets.pop()
    // It was bound with the new one while both were there.
    await ask(look, THIEF)
    expect(told).toHaveLength(2)
    await ask(look)
    expect(told).toHaveLength(2)
    // What was bound with a key that nobody has says nothing.
    await ask((s) => inside(s).drawer('client-binding').set('AAAAAAAAAAAA.AAAAAA.a.b.c.'))
    await ask(look, ELSEWHERE)
    await ask(look, ELSEWHERE)
    expect(told).toHaveLength(2)
    await ask(look)
    expect(told).toHaveLength(3)
  })
})

describe('what is the same client:', () => {
  const ground = useGround(() => new MemoryGround())

  test.each<[what: string, before: Headers, after: Headers, changed: string[]]>([
    ['an address of the same /24', { 'x-forwarded-for': '192.0.2.1' }, { 'x-forwarded-for': '192.0.2.254' }, []],
    ['one of the next /24', { 'x-forwarded-for': '192.0.2.1' }, { 'x-forwarded-for': '192.0.3.1' }, ['network']],
    ['an IPv4 address as IPv6', { 'x-forwarded-for': '192.0.2.1' }, { 'x-forwarded-for': '::ffff:192.0.2.9' }, []],
    [
      'an address of the same /48',
      { 'x-forwarded-for': '2001:db8:1:2::1' },
      { 'x-forwarded-for': '2001:db8:1:ff::9' },
      [],
    ],
    ['one of another /48', { 'x-forwarded-for': '2001:db8:1::1' }, { 'x-forwarded-for': '2001:db8:2::1' }, ['network']],
    ['IPv6 after IPv4', { 'x-forwarded-for': '192.0.2.1' }, { 'x-forwarded-for': '2001:db8:1::1' }, ['network']],
    ['a newer version', { 'user-agent': FIREFOX }, { 'user-agent': FIREFOX.replaceAll('140', '141') }, []],
    ['another family', { 'user-agent': CHROME }, { 'user-agent': `${CHROME} Edg/150.0.0.0` }, ['browser']],
    [
      'another platform',
      { 'user-agent': FIREFOX },
      { 'user-agent': FIREFOX.replace('Windows NT 10.0', 'X11; Linux') },
      ['browser'],
    ],
    ['a newer version of what is unknown', { 'user-agent': 'acme-app/1.2.3' }, { 'user-agent': 'acme-app/1.10.0' }, []],
    ['another one of these', { 'user-agent': 'acme-app/1.2.3' }, { 'user-agent': 'curl/8.0' }, ['browser']],
    ['no user agent at all', { 'user-agent': FIREFOX }, { 'user-agent': '' }, ['browser']],
    ['a dialect', { 'accept-language': 'en-US,en;q=0.5' }, { 'accept-language': 'EN-GB' }, []],
    ['the same one preferred', { 'accept-language': 'de,en;q=0.5' }, { 'accept-language': 'fr;q=0.2,de;q=0.8' }, []],
    ['another language', { 'accept-language': 'de,en;q=0.5' }, { 'accept-language': 'en,de;q=0.5' }, ['language']],
    ['no language', { 'accept-language': 'de' }, { 'accept-language': '' }, ['language']],
  ])('%s', async (_what, before, after, changed) => {
    const { told, ask } = await visitors(ground)
    await ask(login, { ...AT_HOME, ...before })
    await ask(look, { ...AT_HOME, ...after })
    expect(told.map((event) => event.changed)).toEqual(changed.length === 0 ? [] : [changed])
  })

  test('the address is that of hops which are trusted: what a client writes itself has no effect (ASVS 15.3.4)', async () => {
    const { told, ask } = await visitors(ground, { on: ['network'] }, { prepare: () => {} })
    await ask(login, { 'x-forwarded-for': '192.0.2.1' })
    await ask(look, { 'x-forwarded-for': '203.0.113.5' })
    expect(told).toEqual([])
  })

  test('addressOf says another address, and undefined that none is known', async () => {
    const { told, ask } = await visitors(ground, {
      on: ['network'],
      addressOf: (req: express.Request) => req.get('cf-connecting-ip'),
    })
    await ask(login, { 'cf-connecting-ip': '192.0.2.1' })
    await ask(look, {})
    expect(told).toEqual([])
    await ask(look, { 'cf-connecting-ip': '203.0.113.5' })
    expect(told).toHaveLength(1)
  })

  test('what is looked at later is bound then, and what is looked at no more does not count', async () => {
    const first = await visitors(ground, { on: ['browser'] })
    await first.ask(login)
    const all = await visitors(ground)
    const client = all.rig.stranger(first.rig.client.cookies)
    await all.ask(look, ELSEWHERE, client)
    expect(all.told).toEqual([])
    await all.ask(look, AT_HOME, client)
    expect(all.told).toMatchObject([{ changed: ['network'] }])
    await first.ask(look, { ...AT_HOME, 'accept-language': 'fr' })
    expect(first.told).toEqual([])
  })
})

describe('without Express', () => {
  test('an upgrade is judged as well, and a session that ends under it is told', async () => {
    const sessions = session({ secret: SECRET })
    const outcomes: string[] = []
    sessions.events.on('clientChanged', ({ outcome }) => void outcomes.push(outcome))
    const guard = clientBinding({ on: ['browser'], policy: 'end' })
    const server = await listen((req, res) => {
      sessions(req, res, () =>
        guard(req, res, () => {
          const end = (): void => void res.end(String(req.session.metadata.userId))
          if (req.url === '/login') req.session.login('ann').then(end, end)
          else end()
        }),
      )
    })
    server.server.on('upgrade', (req, socket) => {
      const end = (userId: unknown): void =>
        void socket.end(`HTTP/1.1 401 ${String(userId)}\r\nConnection: close\r\n\r\n`)
      sessions(req, {}, () => guard(req, {}, () => end(req.session.metadata.userId)))
    })
    const client = new Client(server)
    await client.get('/login', { 'user-agent': FIREFOX })
    expect((await client.get('/', { 'user-agent': FIREFOX })).body).toBe('ann')
    const upgrade = { connection: 'Upgrade', upgrade: 'websocket', cookie: client.cookieHeader }
    expect((await send(server.url, { headers: { ...upgrade, 'user-agent': FIREFOX } })).status).toBe(401)
    expect(outcomes).toEqual([])
    await send(server.url, { headers: { ...upgrade, 'user-agent': CHROME } })
    expect(outcomes).toEqual(['ended'])
    expect((await client.get('/', { 'user-agent': FIREFOX })).body).toBe('undefined')
    await server.close()
  })

  test('it says where it belongs, and which options it does not know', async () => {
    const errors: unknown[] = []
    clientBinding()({ headers: {}, socket: {} } as never, {}, (error) => void errors.push(error))
    expect(errors).toMatchObject([{ code: 'INVALID_OPTION', message: expect.stringContaining('behind session()') }])
    for (const [options, message] of [
      [{ on: [] }, /list of what to look at/],
      [{ on: 'browser' }, /list of what to look at/],
      [{ on: ['netwrok'] }, /Did you mean network/],
      [{ policy: 'kill' }, /use 'tell', 'challenge', 'end' or 'ignore'/],
      [{ polcy: 'end' }, /no option "polcy".*Did you mean policy/],
      [{ addressOf: 'ip' }, /addressOf is not a function/],
    ] as const) {
      expect(() => clientBinding(options as never)).toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(message) }),
      )
    }
  })
})

describe('what goes wrong', () => {
  const ground = new MemoryGround()
  afterEach(async () => {
    jest.restoreAllMocks()
    await closeRigs()
    await ground.reset()
  })

  test('a policy that throws, rejects or returns anything else is an error of the request', async () => {
    const answers = [
      () => {
        throw new Error('no')
      },
      async () => {
        throw new Error('no')
      },
      () => 'kill',
      async () => 'kill',
    ]
    for (const answer of answers) {
      const { ask } = await visitors(ground, { policy: answer as never })
      await ask(login)
      await expect(ask(look, THIEF)).rejects.toThrow(/no|policy is kill/)
    }
  })

  test('a store that fails refuses the client whose session it was to end', async () => {
    const { rig, ask } = await visitors(ground, { policy: 'end' })
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await ask(login)
    rig.store.fail({ kind: 'error', operations: ['end'] })
    await expect(ask(look, THIEF)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    rig.store.repair()
    expect(await ask(isLoggedIn)).toBe(true)
  })

  test('a text that is none of ours is no binding: the session gets one', async () => {
    const { told, ask } = await visitors(ground)
    await ask(login)
    for (const junk of ['', 'junk', '.....', 7, null]) {
      await ask((s) => inside(s).drawer('client-binding').set(junk))
      await ask(look, THIEF)
      await ask(look, THIEF)
      await ask(look, AT_HOME)
    }
    expect(told).toHaveLength(5)
  })

  test('a session that ends in its handler, or that cannot be written, is bound to nobody, without an error', async () => {
    const { rig, ask } = await visitors(ground, {}, { onStoreError: 'anonymous' })
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await ask(login)
    await ask((s) => s.destroy(), THIEF)
    await ask(async (s) => {
      s.set('a', 1)
      await s.destroy()
    })
    await ask(login)
    rig.store.fail({ kind: 'error', operations: ['get'] })
    expect(await ask(isLoggedIn, THIEF)).toBe(false)
    rig.store.repair()
    expect(await ask(isLoggedIn)).toBe(true)
  })

  test('it is an activity, and where nobody listens a warning, once', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const warnings = (): unknown[] =>
      warned.mock.calls.flat().filter((text) => typeof text === 'string' && text.startsWith('clientChanged: '))
    const activities: Activity[] = []
    const routes = express.Router()
    routes.use(clientBinding())
    const prepare: RigOptions['prepare'] = (app) => void app.set('trust proxy', 1)
    const unheard = await Rig.start(ground, { prepare }, undefined, routes)
    const activity = (told: Activity): void => void activities.push(told)
    const heard = await Rig.start(ground, { prepare, activity }, undefined, routes)
    for (const rig of [heard, unheard]) {
      await rig.ask(login, rig.client, { headers: AT_HOME })
      for (const headers of [THIEF, ELSEWHERE]) await rig.ask(look, rig.client, { headers })
      expect(warnings()).toHaveLength(rig === heard ? 0 : 1)
    }
    expect(activities.filter(({ type }) => type === 'session.client-changed')).toMatchObject([
      { userId: 'ann', details: { changed: ['network', 'browser', 'language'], outcome: 'told' } },
      { userId: 'ann', details: { changed: ['network'], outcome: 'told' } },
    ])
  })
})
