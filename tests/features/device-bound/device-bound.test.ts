// Sessions that are bound to a device, with a device that does what Chromium was seen to do; the browser itself is in browser.test.ts.
import { createSecretKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { describe, expect, test } from '@jest/globals'
import type { ErrorRequestHandler, Express, Response } from 'express'
import { MemorySessionStore, type SessionEvent, type SessionEventName, SessionManager, session } from 'sojourn'
import { type DeviceBoundOptions, deviceBound, deviceOf, requireDevice } from 'sojourn/device-bound'
import { encrypted } from 'sojourn/encryption'
import { FakeClock } from 'sojourn/testing'
import { resolveRules } from '../../../src/features/device-bound/options.js'
import { isSignedBy, readProof } from '../../../src/features/device-bound/proof.js'
import { BoundCookies, boundCookieValue } from '../../../src/features/device-bound/sealed.js'
import {
  type Algorithm,
  BOUND,
  challengeIn,
  DeviceBrowser,
  HTTPS,
  outcomeOf,
  REFRESH,
  REGISTRATION,
  TestDevice,
} from '../../support/device.js'
import { type Answer, OTHER_SECRET, SECRET, until } from '../../support/http.js'
import { GROUNDS, type Ground, MemoryGround, Rig, type RigOptions, useGround } from '../../support/rig.js'

const MINUTE = 60_000
const EXCEPT = ['/login', '/logout']

/** One process with `deviceBound()`, before everything else. */
async function start(
  ground: Ground,
  {
    devices = {},
    clock,
    ...options
  }: Omit<RigOptions, 'clock'> & { devices?: DeviceBoundOptions; clock?: FakeClock } = {},
): Promise<Rig> {
  return Rig.start(
    ground,
    {
      idleTimeout: '5h',
      ...options,
      prepare(app, manager) {
        app.set('trust proxy', true)
        app.use(deviceBound(manager, { except: EXCEPT, ...devices }))
        addRoutes(app)
        // A page for people, where something fails: a browser that gets it for a refresh forgets its key.
        app.use(((error, req, res, next) => {
          if (req.path === REFRESH || req.path === REGISTRATION) res.redirect('/login')
          else next(error)
        }) as ErrorRequestHandler)
      },
    },
    clock,
  )
}

function addRoutes(app: Express): void {
  app.get('/login', async (req, res) => {
    await req.session.login('ann')
    res.send('in')
  })
  app.get('/logout', async (req, res) => {
    await req.session.logout()
    res.send('out')
  })
  app.get('/status', (req, res) => void res.json(deviceOf(req)))
  app.get('/strict', requireDevice(), (_req, res) => void res.send('let in'))
  app.get('/lenient', requireDevice({ unbound: 'pass' }), (_req, res) => void res.send('let in'))
}

/** A browser that has logged in. */
async function loggedIn(rig: Rig): Promise<{ browser: DeviceBrowser; offer: Answer }> {
  const browser = new DeviceBrowser(rig.stranger())
  return { browser, offer: await browser.get('/login') }
}

/** A browser that has logged in and registered its key, some time ago. */
async function bound(rig: Rig): Promise<DeviceBrowser> {
  const { browser, offer } = await loggedIn(rig)
  expect((await browser.register(offer)).status).toBe(200)
  rig.clock.advance(11_000)
  return browser
}

function told<Name extends SessionEventName>(rig: Rig, name: Name): SessionEvent<Name>[] {
  const events: SessionEvent<Name>[] = []
  rig.manager.events.on(name, (event) => void events.push(event))
  return events
}

const statusOf = async (browser: DeviceBrowser): Promise<unknown> => {
  const answer = await browser.get('/status')
  return answer.status === 200 ? answer.json()['status'] : answer.status
}

describe.each(GROUNDS)('on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  test.each<Algorithm>(['ES256', 'RS256'])('a login is offered a key, which is registered: %s', async (algorithm) => {
    const rig = await start(ground)
    const events = told(rig, 'deviceBound')
    const browser = new DeviceBrowser(rig.stranger(), new TestDevice(algorithm))
    const offer = await browser.get('/login')
    expect(offer.headers['secure-session-registration']).toMatch(
      /^\(ES256 RS256\);path="\/device-bound\/registration";challenge="[\w.-]+"$/,
    )
    expect(await statusOf(browser)).toBe('unbound')
    const answer = await browser.register(offer)
    const attributes = 'Path=/; Secure; HttpOnly; SameSite=Lax'
    expect(answer.json()).toEqual({
      session_identifier: expect.stringMatching(/^[0-9a-f-]{36}\.[\w-]{22}$/),
      refresh_url: REFRESH,
      scope: { include_site: false },
      credentials: [{ type: 'cookie', name: BOUND, attributes }],
      allowed_refresh_initiators: ['*'],
    })
    expect(answer.setCookies.filter((line) => line.startsWith(`${BOUND}=`))).toEqual([
      expect.stringMatching(new RegExp(`^${BOUND}=[\\w.-]+; Max-Age=600; ${attributes}$`)),
    ])
    expect(answer.headers).toMatchObject({ 'content-type': 'application/json', 'cache-control': 'no-store' })
    expect((await browser.get('/status')).json()).toEqual({
      status: 'bound',
      algorithm,
      boundAt: new Date(rig.clock.now()).toISOString(),
      provedAt: new Date(rig.clock.now()).toISOString(),
    })
    expect(events).toMatchObject([{ userId: 'ann', algorithm }])
  })

  test('a proof gives another bound cookie, and its challenge is good once', async () => {
    const rig = await start(ground)
    const proved = told(rig, 'deviceProved')
    const browser = await bound(rig)
    browser.forgetChallenge()
    browser.loseCookie()
    const first = await browser.post()
    expect(outcomeOf(first)).toBe('signs again')
    expect(first.headers['secure-session-challenge']).toBe(`"${challengeIn(first)}";id="${browser.registration?.id}"`)
    const proof = browser.sign(challengeIn(first) ?? '')
    const second = await browser.post(proof)
    expect(outcomeOf(second)).toBe('goes on')
    expect(await statusOf(browser)).toBe('bound')
    // The same text again, as of a browser whose answer was lost, and as of somebody who has read it.
    const again = await browser.post(proof)
    expect(outcomeOf(again)).toBe('signs again')
    expect(again.setCookies).toEqual([])
    expect(outcomeOf(await browser.post(browser.sign(challengeIn(again) ?? '')))).toBe('goes on')
    expect(proved).toHaveLength(2)
  })

  test('of all who send one proof at once, to several processes, one gets a cookie', async () => {
    const rigs = [await start(ground), await start(ground)] as const
    const browser = await bound(rigs[0])
    const challenge = challengeIn(await browser.post()) ?? ''
    const proof = browser.sign(challenge)
    const { id } = browser.registration as { id: string }
    const elsewhere = new DeviceBrowser(rigs[1].stranger(browser.client.cookies), browser.device)
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) => (index % 2 === 0 ? browser : elsewhere).post(proof, id)),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter((answer) => outcomeOf(answer) === 'signs again')).toHaveLength(9)
  })

  test('a key goes along with renew(), reauthenticate() and regenerate({ keep: true }), and ends with a login', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const registered = browser.registration?.id
    for (const turn of ['renew', 'reauthenticate', 'regenerate'] as const) {
      await rig.ask(
        async (found) => void (await (turn === 'regenerate' ? found.regenerate({ keep: true }) : found[turn]())),
        browser.client,
        { headers: HTTPS },
      )
      expect(rig.answer?.headers['secure-session-registration']).toBeUndefined()
      browser.loseCookie()
      expect({ turn, status: await statusOf(browser) }).toEqual({ turn, status: 'bound' })
      // A refresh that a page of another site has caused brings no cookie.
      const bare = new DeviceBrowser(rig.stranger(), browser.device)
      const challenge = challengeIn(await bare.post(undefined, registered)) ?? ''
      expect((await bare.post(browser.sign(challenge), registered)).status).toBe(200)
    }
    const old = browser.client.clone()
    const offer = await browser.get('/login')
    expect(await statusOf(browser)).toBe('unbound')
    // The key of the login before is not asked for any more.
    expect(await browser.refresh()).toBe('forgets')
    expect((await browser.register(offer)).status).toBe(200)
    expect(browser.registration?.id).not.toBe(registered)
    expect(await statusOf(browser)).toBe('bound')
    expect((await old.get('/status', HTTPS)).json()['status']).toBe('unbound')
  })

  test('a session that has ended, in whatever way, is forgotten by the browser', async () => {
    const rig = await start(ground)
    const endings: Record<string, (browser: DeviceBrowser) => unknown> = {
      logout: (browser) => browser.client.get('/logout', HTTPS),
      destroyed: ({ client }) => rig.ask((found) => found.destroy(), client, { headers: HTTPS }),
      revoked: ({ registration }) => rig.manager.revoke(String(registration?.id).slice(0, 36)),
      'of the user': () => rig.manager.revokeUser('ann'),
      idle: () => rig.clock.advance(301 * MINUTE),
      all: () => rig.manager.revokeAll(),
    }
    for (const [how, end] of Object.entries(endings)) {
      const browser = await bound(rig)
      const thief = new DeviceBrowser(browser.client.clone(), browser.device)
      const challenge = challengeIn(await browser.post()) ?? ''
      await end(browser)
      for (const each of [browser, thief]) {
        const answer = await each.post(browser.sign(challenge), browser.registration?.id)
        expect({ how, outcome: outcomeOf(answer), cookies: answer.setCookies.join() }).toEqual({
          how,
          outcome: 'forgets',
          cookies: expect.not.stringContaining(BOUND),
        })
      }
    }
  })

  test('a logout under a refresh that is under way stays, and the browser forgets', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const other = browser.client.clone()
    const challenge = challengeIn(await browser.post()) ?? ''
    const before = rig.store.calls.update
    rig.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
    const answer = browser.post(browser.sign(challenge))
    await until(() => rig.store.calls.update > before)
    await other.get('/logout', HTTPS)
    rig.store.release()
    expect(outcomeOf(await answer)).toBe('forgets')
    expect((await browser.client.get('/status', HTTPS)).json()['status']).toBe('unbound')
    expect(await rig.whoIs(browser.client)).toBeNull()
  })

  test('of two keys that are registered at once one is, though neither saw the other', async () => {
    const [rig, other] = [await start(ground), await start(ground)] as const
    const { browser, offer } = await loggedIn(rig)
    const rival = new DeviceBrowser(other.stranger(browser.client.cookies))
    const before = rig.store.calls.update
    rig.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
    const first = browser.register(offer)
    await until(() => rig.store.calls.update > before)
    expect((await rival.register(offer)).status).toBe(200)
    rig.store.release()
    expect((await first).status).toBe(401)
    other.clock.advance(11_000)
    expect(await statusOf(rival)).toBe('bound')
    expect(await browser.refresh()).toBe('forgets')
  })

  test('a session that goes on under another ID while a refresh is under way keeps its key', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const challenge = challengeIn(await browser.post()) ?? ''
    const before = rig.store.calls.update
    rig.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
    const answer = browser.post(browser.sign(challenge))
    await until(() => rig.store.calls.update > before)
    await rig.ask((found) => found.reauthenticate(), browser.client, { headers: HTTPS })
    rig.store.release()
    expect(outcomeOf(await answer)).toBe('goes on')
    expect(await statusOf(browser)).toBe('bound')
  })

  test.each(['fail', 'anonymous'] as const)(
    'a store that does not answer never makes a browser forget its key, with onStoreError: %s',
    async (onStoreError) => {
      const rig = await start(ground, { onStoreError, storeTimeout: '300ms' })
      const refused = told(rig, 'deviceRefused')
      rig.manager.events.on('storeError', () => {})
      const browser = await bound(rig)
      const { browser: late, offer } = await loggedIn(rig)
      for (const kind of ['error', 'hang', 'unknown-answer', 'lost-reply'] as const) {
        rig.store.fail({ kind, operations: ['get'] })
        expect({ kind, status: (await late.register(offer)).status }).toEqual({ kind, status: 503 })
        rig.store.repair()
        for (const operation of ['get', 'update'] as const) {
          const challenge = challengeIn(await browser.post()) ?? ''
          rig.store.fail({ kind, operations: [operation] })
          const outcome = outcomeOf(await browser.post(browser.sign(challenge)))
          rig.store.repair()
          expect({ kind, operation, outcome }).toEqual({ kind, operation, outcome: 'tries later' })
        }
      }
      expect(refused).toEqual([])
      browser.loseCookie()
      expect(await statusOf(browser)).toBe('bound')
    },
  )

  test('a registration that may be stored gives the browser its key: none is stored that nobody has', async () => {
    const rig = await start(ground, { storeTimeout: '300ms' })
    rig.manager.events.on('storeError', () => {})
    for (const [kind, isStored] of [
      ['lost-reply', true],
      ['error', false],
      ['hang', false],
    ] as const) {
      const { browser, offer } = await loggedIn(rig)
      rig.store.fail({ kind, operations: ['update'] })
      const answer = await browser.register(offer)
      rig.store.repair()
      expect({ kind, status: answer.status }).toEqual({ kind, status: 200 })
      rig.clock.advance(11_000)
      expect({ kind, status: await statusOf(browser) }).toEqual({ kind, status: isStored ? 'bound' : 'unbound' })
      expect(await browser.refresh()).toBe(isStored ? 'goes on' : 'forgets')
    }
  })

  test('a refresh is no activity: it does not keep a session alive', async () => {
    const rig = await start(ground, { idleTimeout: '30m' })
    const browser = await bound(rig)
    for (let minutes = 0; minutes < 28; minutes += 7) {
      rig.clock.advance(7 * MINUTE)
      expect(await browser.refresh()).toBe('goes on')
    }
    rig.clock.advance(3 * MINUTE)
    expect(await browser.refresh()).toBe('forgets')
  })

  test('a device that cannot be read is none that anybody proves to be, nor is it none', async () => {
    const rig = await start(ground, { codec: encrypted({ keys: randomBytes(32) }) })
    const { browser, offer } = await loggedIn(rig)
    expect((await browser.register(offer)).status).toBe(200)
    rig.clock.advance(11_000)
    await rig.close()
    const blind = await start(ground, { codec: encrypted({ keys: randomBytes(32) }), clock: rig.clock })
    blind.manager.events.on('corruptRecord', () => {})
    const moved = new DeviceBrowser(blind.stranger(browser.client.cookies), browser.device)
    moved.registration = browser.registration
    expect(await statusOf(moved)).toBe(401)
    expect((await moved.client.get('/lenient', HTTPS)).status).toBe(401)
    expect(await moved.refresh()).toBe('tries later')
    // The offer is good for a minute; another key is not taken for it.
    expect((await new DeviceBrowser(moved.client.clone()).register(offer)).status).toBe(503)
    const again = await moved.client.get('/login', HTTPS)
    expect((await moved.register(again)).status).toBe(200)
    expect(await statusOf(moved)).toBe('bound')
  })

  test('lists say which sessions are bound, and nothing else shows it', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    await rig.login('ann')
    const listed = await rig.manager.sessionsOf('ann')
    expect(listed.map(({ isDeviceBound }) => isDeviceBound)).toEqual(expect.arrayContaining([false, true]))
    const id = listed.find(({ isDeviceBound }) => isDeviceBound)?.id as string
    expect((await rig.manager.get(id))?.fields).toEqual({})
    const dump = JSON.stringify(await ground.dump())
    expect(dump).not.toContain(browser.client.cookies.get(BOUND))
  })
})

describe('a request of a bound session', () => {
  const ground = useGround(() => new MemoryGround())

  test('comes with the bound cookie, or is refused: with an error, an event and a challenge of its own', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const browser = await bound(rig)
    const thief = browser.client.clone()
    expect((await thief.get('/status', HTTPS)).json()['status']).toBe('bound')
    rig.clock.advance(10 * MINUTE)
    browser.loseCookie()
    expect(await statusOf(browser)).toBe('bound')
    const answer = await thief.get('/status', HTTPS)
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toBe('Session error="device_unproven"')
    expect(refused).toMatchObject([{ userId: 'ann', reason: 'no-proof', method: 'GET', path: '/status' }])
  })

  test('is refused with any other value in the bound cookie', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const other = await bound(rig)
    const own = browser.client.cookies.get(BOUND) as string
    const later = `${(Number.parseInt(own, 36) + 60 * MINUTE).toString(36)}${own.slice(own.indexOf('.'))}`
    const values = [
      '',
      'x',
      own.slice(1),
      `${own}x`,
      own.toUpperCase(),
      later,
      other.client.cookies.get(BOUND) as string,
    ]
    for (const value of values) {
      const client = browser.client.clone()
      client.cookies.set(BOUND, value)
      expect({ value, status: (await client.get('/status', HTTPS)).status }).toEqual({ value, status: 401 })
    }
    const beside = browser.client.clone()
    beside.cookies.set(`x${BOUND}`, 'x')
    expect((await beside.get('/status', HTTPS)).json()['status']).toBe('bound')
  })

  test('is judged anew when its cookie is over, or the secrets are others, though it was good before', () => {
    const keysOf = (secret: string) => [createSecretKey(Buffer.from(secret))]
    const [old, newer] = [keysOf(SECRET), keysOf(OTHER_SECRET)]
    const cookies = new BoundCookies()
    const value = boundCookieValue(old, 'a', 2_000)
    const isGood = (keys = old, id = 'a', now = 1_999): boolean => cookies.isGood(keys, id, value, now)
    for (const _time of ['first', 'again']) {
      expect([isGood(), isGood(old, 'b'), isGood(old, 'a', 2_000), isGood()]).toEqual([true, false, false, true])
      expect([isGood([...newer, ...old]), isGood(newer)]).toEqual([true, false])
    }
  })

  test('that raced ahead of the registration goes on as one of an unbound session', async () => {
    const rig = await start(ground)
    const { browser, offer } = await loggedIn(rig)
    const ahead = browser.client.clone()
    await browser.register(offer)
    expect((await ahead.get('/status', HTTPS)).json()['status']).toBe('unbound')
    rig.clock.advance(9_000)
    expect((await ahead.get('/status', HTTPS)).status).toBe(200)
    expect((await ahead.get('/strict', HTTPS)).status).toBe(401)
    rig.clock.advance(1_000)
    expect((await ahead.get('/status', HTTPS)).status).toBe(401)
  })

  test('passes where it is excepted, so that who has lost the key can log in and out', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    browser.registration = undefined
    browser.loseCookie()
    expect(await statusOf(browser)).toBe(401)
    const offer = await browser.get('/login')
    expect(offer.status).toBe(200)
    expect((await browser.register(offer)).status).toBe(200)
    expect(await statusOf(browser)).toBe('bound')
    browser.loseCookie()
    browser.registration = undefined
    expect((await browser.get('/logout?x=1')).body).toBe('out')
    expect((await browser.get('/logoutx')).status).toBe(404)
  })

  test('does not pass by a path that walks out of what is excepted', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    browser.registration = undefined
    browser.loseCookie()
    expect((await browser.get('/login/x')).status).toBe(404)
    for (const path of ['/login/%2e%2e/strict', '/login/..%2fstrict', '/login/%5c..%5cstrict']) {
      expect([path, (await browser.get(path)).status]).toEqual([path, 401])
    }
  })

  test('is an error of the request when a function of the application fails', async () => {
    const fail = (): never => {
      throw new Error('failed')
    }
    const rejecting = async (): Promise<never> => fail()
    for (const devices of [{ except: fail }, { onRefused: fail }, { onRefused: rejecting }]) {
      const rig = await start(ground, { devices })
      const browser = await bound(rig)
      browser.registration = undefined
      browser.loseCookie()
      expect((await browser.get('/status')).status).toBe(500)
    }
  })

  test('is answered by onRefused, or passes everywhere but where a device is required', async () => {
    const rig = await start(ground, {
      devices: {
        except: (req) => req.url === '/open',
        onRefused: (_req, res) => (res as Response).redirect('/login'),
      },
    })
    const browser = await bound(rig)
    browser.loseCookie()
    const thief = browser.client
    expect(await thief.get('/status', HTTPS)).toMatchObject({ status: 302, headers: { location: '/login' } })
    expect((await thief.get('/open', HTTPS)).status).toBe(404)
    await rig.close()
    const open = await start(ground, { devices: { unproven: 'pass' } })
    const other = await bound(open)
    expect((await other.client.get('/strict', HTTPS)).body).toBe('let in')
    other.loseCookie()
    expect((await other.client.get('/status', HTTPS)).json()['status']).toBe('unproven')
    for (const path of ['/strict', '/lenient']) expect((await other.client.get(path, HTTPS)).status).toBe(401)
  })

  test('requireDevice() refuses sessions without a key, or lets them pass', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const { browser, offer } = await loggedIn(rig)
    for (const client of [rig.stranger(), browser.client]) {
      expect((await client.get('/strict', HTTPS)).status).toBe(401)
      expect((await client.get('/lenient', HTTPS)).body).toBe('let in')
    }
    expect(refused.map(({ reason }) => reason)).toEqual(['unbound', 'unbound'])
    await browser.register(offer)
    expect((await browser.get('/strict')).body).toBe('let in')
  })
})

describe('a registration', () => {
  const ground = useGround(() => new MemoryGround())

  test('is offered with a login over HTTPS, also with one that is answered by an error, and with nothing else', async () => {
    const rig = await start(ground)
    const offered = told(rig, 'deviceOffered')
    const offerOf = ({ headers }: Answer): unknown => headers['secure-session-registration']
    const client = rig.stranger()
    expect(offerOf(await client.get('/status', HTTPS))).toBeUndefined()
    expect(offerOf(await client.get('/login', HTTPS))).toBeDefined()
    expect(offerOf(await client.get('/status', HTTPS))).toBeUndefined()
    for (const turn of ['reauthenticate', 'renew', 'save'] as const) {
      await rig.ask((found) => found[turn](), client, { headers: HTTPS })
      expect(offerOf(rig.answer as Answer)).toBeUndefined()
    }
    const failed = rig.ask(
      async (found) => {
        await found.login('ann')
        throw new Error('after the login')
      },
      client,
      { headers: HTTPS },
    )
    await failed.catch(() => {})
    expect(offerOf(rig.answer as Answer)).toBeDefined()
    expect(offerOf(await rig.stranger().get('/login'))).toBeUndefined()
    expect(offered).toHaveLength(2)
  })

  test('of a second key is refused, whoever sends it, and the first one stays', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const { browser, offer } = await loggedIn(rig)
    const rival = new DeviceBrowser(browser.client.clone())
    const answers = await Promise.all([browser.register(offer), rival.register(offer)])
    expect([
      [200, 401],
      [401, 200],
    ]).toContainEqual(answers.map(({ status }) => status))
    const late = new DeviceBrowser(browser.client.clone())
    expect((await late.register(offer)).status).toBe(401)
    expect(refused.map(({ reason }) => reason)).toEqual(['second-key', 'second-key'])
  })

  test('is refused without a login, and for a challenge that is not its own or too old', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const { browser, offer } = await loggedIn(rig)
    const stranger = new DeviceBrowser(rig.stranger())
    expect((await stranger.register(offer)).status).toBe(401)
    const visitor = new DeviceBrowser(rig.stranger())
    await rig.ask((found) => found.set('n', 1), visitor.client, { headers: HTTPS })
    expect((await visitor.register(offer)).status).toBe(401)
    const { browser: other } = await loggedIn(rig)
    expect((await other.register(offer)).status).toBe(401)
    rig.clock.advance(60_001)
    expect((await browser.register(offer)).status).toBe(401)
    expect(refused.map(({ reason }) => reason)).toEqual(['no-login', 'no-login', 'challenge', 'challenge'])
    expect(await statusOf(browser)).toBe('unbound')
  })

  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const smallExponent = generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 3 })
  const otherCurve = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const device = new TestDevice()
  const rows: [string, TestDevice, (challenge: string) => string | undefined][] = [
    ['none at all', device, () => undefined],
    ['no JWT', device, () => 'a.b'],
    ['no JSON', device, () => 'YQ.YQ.YQ'],
    [
      'one of a size that no key has',
      device,
      (challenge) => device.registration(challenge, { payload: { x: 'x'.repeat(4_000) } }),
    ],
    ['no key', device, (challenge) => device.proof(challenge)],
    [
      'a key that is none',
      device,
      (challenge) => device.registration(challenge, { header: { jwk: { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' } } }),
    ],
    [
      'a symmetric key',
      device,
      (challenge) => device.registration(challenge, { header: { alg: 'HS256', jwk: { kty: 'oct', k: 'AAAA' } } }),
    ],
    ['the algorithm none', device, (challenge) => device.registration(challenge, { header: { alg: 'none' } })],
    [
      'the algorithm of another key',
      device,
      (challenge) => device.registration(challenge, { header: { alg: 'RS256' } }),
    ],
    ['another type', device, (challenge) => device.registration(challenge, { header: { typ: 'JWT' } })],
    ['no challenge', device, (challenge) => device.registration(challenge, { payload: { jti: undefined } })],
    [
      'RSA of 1,024 bits',
      new TestDevice('RS256', weak),
      (challenge) => new TestDevice('RS256', weak).registration(challenge),
    ],
    ['RSA with the exponent 3', device, (challenge) => new TestDevice('RS256', smallExponent).registration(challenge)],
    ['another curve', device, (challenge) => new TestDevice('ES256', otherCurve).registration(challenge)],
  ]
  test.each(rows)('is refused as malformed with %s', async (_what, _device, proofOf) => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const { browser, offer } = await loggedIn(rig)
    const proof = proofOf(challengeIn(offer) ?? '')
    const headers = { ...HTTPS, ...(proof !== undefined && { 'secure-session-response': proof }) }
    const answer = await browser.client.post(REGISTRATION, undefined, headers)
    expect(answer.status).toBe(401)
    expect(answer.setCookies).toEqual([])
    expect(refused).toMatchObject([{ reason: 'malformed' }])
    expect(await statusOf(browser)).toBe('unbound')
  })

  test('is refused when another key has signed it, or in another form', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const { browser, offer } = await loggedIn(rig)
    const challenge = challengeIn(offer) ?? ''
    const proofs = [
      browser.device.registration(challenge, { header: { jwk: new TestDevice().jwk } }),
      asDer(challenge),
      `${browser.device.registration(challenge).slice(0, -8)}AAAAAAAA`,
      browser.device.registration(challenge).replace(/[^.]+$/, 'AA'),
    ]
    for (const proof of proofs) {
      const answer = await browser.client.post(REGISTRATION, undefined, { ...HTTPS, 'secure-session-response': proof })
      expect(answer.status).toBe(401)
    }
    expect(refused.map(({ reason }) => reason)).toEqual(Array(4).fill('signature'))
  })

  /** With the signature that OpenSSL makes, which is not that of JOSE. */
  function asDer(challenge: string): string {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const text = new TestDevice('ES256', { publicKey, privateKey }).registration(challenge).replace(/\.[^.]+$/, '')
    return `${text}.${sign('sha256', Buffer.from(text), privateKey).toString('base64url')}`
  }

  test('that Chromium 156 has signed is read, and its signature is right', () => {
    const proof = readProof(CHROMIUM_REGISTRATION)
    expect(proof).toMatchObject({ algorithm: 'ES256', challenge: 'eH5mDZ4M_6x4VJezT7Li7agTRiMFULfR' })
    const key = proof?.key as string
    expect(isSignedBy(proof as never, key)).toBe(true)
    const refresh = readProof(CHROMIUM_REFRESH)
    expect(refresh).toMatchObject({ algorithm: 'ES256', key: undefined })
    expect(isSignedBy(refresh as never, key)).toBe(true)
    expect(isSignedBy({ ...(refresh as never as object), signed: 'x' } as never, key)).toBe(false)
  })
})

describe('a refresh', () => {
  const ground = useGround(() => new MemoryGround())

  test('signed by another key, with a key of its own, or by another algorithm is refused', async () => {
    const rig = await start(ground)
    const refused = told(rig, 'deviceRefused')
    const browser = await bound(rig)
    const challenge = challengeIn(await browser.post()) ?? ''
    const proofs = [
      new TestDevice().proof(challenge),
      browser.device.registration(challenge),
      new TestDevice('RS256').proof(challenge),
      browser.device.proof(challenge, { header: { alg: 'none' } }),
    ]
    for (const proof of proofs) expect(outcomeOf(await browser.post(proof))).toBe('forgets')
    expect(refused.map(({ reason }) => reason)).toEqual(['signature', 'malformed', 'malformed', 'malformed'])
    expect(outcomeOf(await browser.post(browser.sign(challenge)))).toBe('goes on')
  })

  test('of a registration that is not there is told to forget it, and so is one that names none', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const other = await bound(rig)
    const { id } = browser.registration as { id: string }
    for (const asked of [
      `${id}x`,
      `${id.slice(0, 37)}${'A'.repeat(22)}`,
      '',
      'x',
      `${'0'.repeat(36)}${id.slice(36)}`,
    ]) {
      expect({ asked, outcome: outcomeOf(await browser.post(undefined, asked)) }).toEqual({ asked, outcome: 'forgets' })
    }
    // A challenge of another registration is none, and the cookies of another session help nobody.
    const foreign = challengeIn(await other.post()) ?? ''
    expect(outcomeOf(await browser.post(browser.sign(foreign)))).toBe('signs again')
    expect(outcomeOf(await other.post(other.sign(foreign), id))).toBe('forgets')
    const bare = await browser.client.post(REFRESH, undefined, {
      ...HTTPS,
      'secure-session-response': browser.sign(foreign),
    })
    expect(outcomeOf(bare)).toBe('forgets')
  })

  test('signs a challenge that it was given ahead, once; one that is too old is replaced', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const { signatures } = browser
    expect(await browser.refresh()).toBe('goes on')
    expect(browser.signatures).toBe(signatures + 1)
    rig.clock.advance(12 * MINUTE)
    expect(await browser.refresh()).toBe('goes on')
    expect(browser.signatures).toBe(signatures + 3)
  })

  test('takes no challenge that is older than one that was used, and none is lost to who asks for many', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    const old = challengeIn(await browser.post()) ?? ''
    const thief = new DeviceBrowser(browser.client.clone())
    for (let times = 0; times < 20; times++) await thief.post(undefined, browser.registration?.id)
    const calls = rig.store.calls.update
    rig.clock.advance(1)
    const newer = challengeIn(await browser.post()) ?? ''
    expect(rig.store.calls.update).toBe(calls)
    expect(outcomeOf(await browser.post(browser.sign(newer)))).toBe('goes on')
    expect(outcomeOf(await browser.post(browser.sign(old)))).toBe('signs again')
  })

  test('goes on at a process whose clock is behind', async () => {
    const ahead = await start(ground, { clock: new FakeClock(Date.now() + 20_000) })
    const behind = await start(ground, { clock: new FakeClock() })
    const browser = await bound(ahead)
    expect(await browser.refresh()).toBe('goes on')
    const elsewhere = new DeviceBrowser(behind.stranger(browser.client.cookies), browser.device)
    elsewhere.registration = browser.registration
    expect(await elsewhere.refresh()).toBe('goes on')
    expect(await elsewhere.refresh()).toBe('goes on')
    expect(await statusOf(elsewhere)).toBe('bound')
  })

  test('goes on over a change of the secret, and signs anew when the old one is gone', async () => {
    const rig = await start(ground)
    const browser = await bound(rig)
    await rig.close()
    const both = await start(ground, { secret: [OTHER_SECRET, SECRET], clock: rig.clock })
    const moved = new DeviceBrowser(both.stranger(browser.client.cookies), browser.device)
    moved.registration = browser.registration
    expect(await statusOf(moved)).toBe('bound')
    const challenge = challengeIn(await moved.post()) ?? ''
    expect(await moved.refresh()).toBe('goes on')
    await both.close()
    const alone = await start(ground, { secret: OTHER_SECRET, clock: rig.clock })
    const last = new DeviceBrowser(alone.stranger(moved.client.cookies), browser.device)
    last.registration = browser.registration
    expect(await statusOf(last)).toBe('bound')
    expect(outcomeOf(await last.post(last.sign(challenge)))).toBe('signs again')
  })

  test('is answered before all that stands behind, whatever that says', async () => {
    const rig = await start(ground)
    const limited = await Rig.start(
      ground,
      {
        idleTimeout: '5h',
        prepare(app, manager) {
          app.set('trust proxy', true)
          app.use(deviceBound(manager, { except: EXCEPT }))
          app.use((req, res, next) => {
            if (req.path === '/status') next()
            else res.redirect('/login')
          })
          addRoutes(app)
        },
      },
      rig.clock,
    )
    const browser = await bound(rig)
    const behind = new DeviceBrowser(limited.stranger(browser.client.cookies), browser.device)
    behind.registration = browser.registration
    behind.loseCookie()
    expect(await statusOf(behind)).toBe('bound')
    expect((await behind.client.get(REFRESH, HTTPS)).status).toBe(302)
  })
})

describe('options', () => {
  const sessions = () => session({ secret: SECRET })
  test.each<[string, unknown, RegExp]>([
    ['a short lifetime', { lifetime: '4m' }, /lifetime is 240 seconds.*'5m' to '24h'/],
    ['a long lifetime', { lifetime: '25h' }, /lifetime is/],
    ['a lifetime that is none', { lifetime: 'long' }, /lifetime is "long"/],
    ['another policy', { unproven: 'ask' }, /unproven is "ask"/],
    ['exceptions that are no paths', { except: ['login'] }, /except is neither/],
    ['exceptions that are no list', { except: '/login' }, /except is neither/],
    ['a listener that is none', { onRefused: 1 }, /onRefused is not a function/],
    ['a path with a query', { path: '/x?y' }, /path is no path/],
    ['an unknown name', { lifeTime: '10m' }, /no option "lifeTime".*lifetime/],
  ])('refuses %s', (_what, options, message) => {
    expect(() => deviceBound(sessions(), options as DeviceBoundOptions)).toThrow(message)
  })

  test('refuses sessions of many hosts, two for one, and what is no sessions', () => {
    const shared = session({ secret: SECRET, cookie: { domain: 'example.com' } })
    expect(() => deviceBound(shared)).toThrow(/cookie.domain/)
    const one = sessions()
    const once = deviceBound(one)
    expect(() => deviceBound(one.manager)).toThrow(/already/)
    expect([once.manager, once.events, once.store]).toEqual([one.manager, one.events, one.store])
    expect(() => deviceBound((() => {}) as never)).toThrow(/needs what session\(\) returned/)
    expect(() => requireDevice({ unbound: 'x' } as never)).toThrow(/unbound is "x"/)
    expect(() => requireDevice({ bound: 'x' } as never)).toThrow(/no option "bound"/)
    expect(() => requireDevice({ onRefused: 1 } as never)).toThrow(/onRefused/)
    expect(() => deviceOf({ headers: {} } as never)).toThrow(/behind deviceBound/)
  })

  test.each([
    [{}, '/device-bound', '__Host-sid-bound', 'Path=/; Secure; HttpOnly; SameSite=Lax'],
    [{ path: '/app' }, '/app/device-bound', '__Secure-sid-bound', 'Path=/app; Secure; HttpOnly; SameSite=Lax'],
    [
      { name: '__Host-Http-me', sameSite: 'strict' },
      '/device-bound',
      '__Host-me-bound',
      'Path=/; Secure; HttpOnly; SameSite=Strict',
    ],
    [{ name: 'me', sameSite: false }, '/device-bound', '__Host-me-bound', 'Path=/; Secure; HttpOnly'],
  ] as const)('follow from the cookie of the sessions: %j', (cookie, path, cookieName, attributes) => {
    const manager = new SessionManager({ secret: SECRET, cookie, store: new MemorySessionStore() })
    expect(resolveRules({}, manager)).toMatchObject({
      registrationPath: `${path}/registration`,
      refreshPath: `${path}/refresh`,
      cookieName,
      attributes,
    })
  })

  test('has its routes elsewhere if that is under the path of the session cookie', () => {
    const manager = new SessionManager({ secret: SECRET, cookie: { path: '/app' }, store: new MemorySessionStore() })
    expect(() => deviceBound(manager, { path: '/elsewhere' })).toThrow(/path is not under \/app/)
    expect(resolveRules({ path: '/app/keys/' }, manager)).toMatchObject({ refreshPath: '/app/keys/refresh' })
  })

  test('a guard without deviceBound() says so', async () => {
    const errors: unknown[] = []
    requireDevice()({ headers: {} } as never, {}, (error) => void errors.push(error))
    expect(errors).toMatchObject([{ code: 'INVALID_OPTION' }])
  })
})

const CHROMIUM_REGISTRATION =
  'eyJhbGciOiJFUzI1NiIsImp3ayI6eyJjcnYiOiJQLTI1NiIsImt0eSI6IkVDIiwieCI6IlltamZMeHcyQWJ0emNmaFdXRmpMSHJRQlpTVjY5YkVmMVFYNW41MWdxaW8iLCJ5IjoiUXlWaU9KZ1haemlfRVhHc0xlYVV0Q2JMLUpHTjRiRGRPN2Z5UEw4NkdYRSJ9LCJ0eXAiOiJkYnNjK2p3dCJ9.eyJqdGkiOiJlSDVtRFo0TV82eDRWSmV6VDdMaTdhZ1RSaU1GVUxmUiJ9.L_qAIfOnJVAi4EY572oJ28hApvsA-el3XBJPGBxIF3_4e7ND6jBZQKzrP2Kg1y9hZZ90Gw6SpB1BZx3uyeSHKg'
const CHROMIUM_REFRESH =
  'eyJhbGciOiJFUzI1NiIsInR5cCI6ImRic2Mrand0In0.eyJqdGkiOiIxNzk1ODEyODU3MDg2LkZueFkyZzU4Lnp0UUYxNDNUUEstZ0pubVN2V3Z1WlgifQ.-z5lY9VJCTl_9XoLAY2PB24yR0hYMd2KkYmBfC1pMdyuLwSJfS2lj05wy_lcI1a-R8ktJhlHRuTOgpiNAYHDRg'
