// A persistent cookie follows the session's end, also when that moves where no cookie can be sent.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Request } from 'express'
import type { Session } from 'sojourn'
import { type Client, until } from '../support/http.js'
import { closeRigs, GROUNDS, idOf, Rig, type RigOptions } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const TEN_MINUTES = { cookie: { persistent: true }, idleTimeout: '10m', touchInterval: '1m' } as const

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  /** Lets a connection without a response, as that of a WebSocket, work on the session of this client. */
  async function onSocket(rig: Rig, act: (session: Session) => unknown, client = rig.client): Promise<void> {
    const { cookieHeader } = client
    await rig.ask(async (_session, { socket, httpVersionMajor }) => {
      const request = { headers: { cookie: cookieHeader }, method: 'GET', url: '/', socket, httpVersionMajor }
      await new Promise<void>((resolve, reject) => {
        rig.manager.middleware()(request as unknown as Request, {}, (error) => (error ? reject(error) : resolve()))
      })
      await act((request as unknown as Request).session)
    }, rig.stranger())
  }

  async function begin(options: RigOptions = TEN_MINUTES): Promise<Rig> {
    const rig = await Rig.start(ground, options)
    await rig.ask((session) => session.set('a', 1))
    return rig
  }

  const maxAge = async (client: Client): Promise<string | undefined> => {
    const { setCookies } = await client.get('/plain')
    expect(setCookies.length).toBeLessThan(2)
    return setCookies[0] === undefined ? 'none' : /max-age=(\d+)/i.exec(setCookies[0])?.[1]
  }

  const MOVES: readonly (readonly [string, (rig: Rig) => Promise<unknown>])[] = [
    ["a socket's touch()", (rig) => onSocket(rig, (session) => session.touch())],
    [
      "a socket's save()",
      (rig) =>
        onSocket(rig, async (session) => {
          session.set('b', rig.clock.now())
          await session.save()
        }),
    ],
    ["a socket's update()", (rig) => onSocket(rig, (session) => session.update('n', () => rig.clock.now()))],
    ['manager.refresh()', (rig) => rig.manager.refresh(idOf(rig.client))],
  ]
  describe.each(MOVES)('%s that moves the end', (_how, move) => {
    test('is followed by the cookie of the next response, once', async () => {
      const rig = await begin()
      rig.clock.advance(MINUTE)
      await move(rig)
      rig.clock.advance(SECOND)
      const before = rig.store.totalCalls
      expect(await maxAge(rig.client)).toBe('600')
      // The session, and what is due.
      expect(rig.store.totalCalls - before).toBe(2)
      expect(await maxAge(rig.client)).toBe('none')
      expect(rig.store.totalCalls - before).toBe(3)
    })

    test('again and again never leaves the cookie behind', async () => {
      const rig = await begin()
      let endsAt = rig.clock.now() + 10 * MINUTE
      for (let n = 0; n < 40; n++) {
        rig.clock.advance(30 * SECOND)
        await move(rig)
        rig.clock.advance(SECOND)
        expect(rig.clock.now()).toBeLessThan(endsAt)
        const age = await maxAge(rig.client)
        if (age !== 'none') endsAt = rig.clock.now() + Number(age) * SECOND
      }
      // Twenty minutes have gone.
      expect(endsAt - rig.clock.now()).toBeGreaterThan(8 * MINUTE)
    })
  })

  test('a touch() of a stream whose head has left is followed by the cookie of the next response, once', async () => {
    const rig = await begin()
    await rig.ask(async (session, _req, res) => {
      session.get('a')
      res.write('.')
      rig.clock.advance(2 * MINUTE)
      await session.touch()
      res.end()
    })
    expect(rig.answer?.setCookies).toEqual([])
    expect(await maxAge(rig.client)).toBe('600')
    expect(await maxAge(rig.client)).toBe('none')
  })

  test('an end that has moved by less than touchInterval is no reason to send the cookie', async () => {
    const rig = await begin()
    rig.clock.advance(59 * SECOND)
    await rig.manager.refresh(idOf(rig.client))
    expect(await maxAge(rig.client)).toBe('none')
  })

  test('a cookie that ends with the browser window is not sent for it', async () => {
    const rig = await begin({ idleTimeout: '10m', touchInterval: '1m' })
    rig.clock.advance(5 * MINUTE)
    await rig.manager.refresh(idOf(rig.client))
    const before = rig.store.totalCalls
    expect(await maxAge(rig.client)).toBe('none')
    expect(rig.store.totalCalls - before).toBe(1)
  })

  test('a session that is persistent by its own choice is followed as well', async () => {
    const rig = await Rig.start(ground, { touchInterval: '1m' })
    await rig.ask((session) => {
      session.cookie.maxAge = 10 * MINUTE
      session.set('a', 1)
    })
    rig.clock.advance(2 * MINUTE)
    await onSocket(rig, (session) => session.touch())
    expect(await maxAge(rig.client)).toBe('600')
    expect(await maxAge(rig.client)).toBe('none')
  })

  test('a response that does not wait for the store follows, too', async () => {
    const rig = await begin({ ...TEN_MINUTES, commit: 'after-response' })
    await until(async () => (await rig.manager.get(idOf(rig.client))) !== null)
    rig.clock.advance(2 * MINUTE)
    await rig.manager.refresh(idOf(rig.client))
    expect(await maxAge(rig.client)).toBe('600')
  })
})
