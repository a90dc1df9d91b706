// What login() takes along of the session before, and what a request finds after it has ended its own session by ID.

import { createRequire } from 'node:module'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { RequestHandler } from 'express'
import type { Session } from 'sojourn'
import { inside } from 'sojourn/inside'
import { closeRigs, GROUNDS, idOf, Rig, refusal } from '../support/rig.js'

type Act = (session: Session) => Promise<unknown>
type Bag = Record<string, unknown>

/** Its own types name express-session, which is not here. */
interface CsrfSync {
  readonly csrfSynchronisedProtection: RequestHandler
  readonly generateToken: (req: object) => string
}
const { csrfSync } = createRequire(import.meta.url)('csrf-sync') as { csrfSync(): CsrfSync }

/** Where packages keep what protects forms. */
const PROTECTION = ['csrfToken', 'csrfSecret', '_csrfSecret', '_csrf', '_csrfToken']

describe.each(GROUNDS)('in %s', (_name, make) => {
  const ground = make()
  beforeAll(() => ground.start())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())

  const fieldsOf = (rig: Rig): Promise<Bag> => rig.ask((session) => ({ ...session }) as Bag)

  describe('what goes over', () => {
    /** A session with a list, and with what protects forms, which is known to who planted it. */
    async function planted(): Promise<Rig> {
      const rig = await Rig.start(ground)
      await rig.ask((session) => {
        session.set('list', ['tea'])
        for (const name of PROTECTION) session.set(name, 'known')
      })
      return rig
    }

    const BOUNDARIES: Record<string, Act> = {
      'login()': (session) => session.login('ann'),
      'login(), after the token was read': (session) => {
        for (const name of PROTECTION) session.get(name)
        return session.login('ann')
      },
      'login(), after it was made anew': (session) => {
        for (const name of PROTECTION) session.set(name, 'known as well')
        return session.login('ann')
      },
      'regenerate({ keep: true })': (session) => session.regenerate({ keep: true }),
    }
    test.each(Object.entries(BOUNDARIES))('with %s: all but what protects forms', async (_act, act) => {
      const rig = await planted()
      await rig.ask(async (session) => {
        await act(session)
        expect({ ...session }).toEqual({ list: ['tea'] })
      })
      expect(await fieldsOf(rig)).toEqual({ list: ['tea'] })
    })

    test('with reauthenticate(): the same, and the user', async () => {
      const rig = await planted()
      await rig.ask((session) => session.login('ann'))
      await rig.ask((session) => session.set('csrfToken', 'stolen'))
      await rig.ask((session) => session.reauthenticate())
      expect(await fieldsOf(rig)).toEqual({ list: ['tea'] })
      expect(await rig.whoIs()).toBe('ann')
    })

    test('to a login in a session that was not stored: all but what protects forms', async () => {
      const rig = await Rig.start(ground)
      await rig.ask(async (session) => {
        session.set('list', ['tea']).set('csrfToken', 'early')
        await session.login('ann')
        expect(session.get('csrfToken')).toBeUndefined()
      })
      expect(await fieldsOf(rig)).toEqual({ list: ['tea'] })
    })

    test('what is made after the login stays', async () => {
      const rig = await planted()
      await rig.ask(async (session) => {
        await session.login('ann')
        session.set('csrfToken', 'new')
      })
      expect(await fieldsOf(rig)).toEqual({ list: ['tea'], csrfToken: 'new' })
    })

    test.each([
      [false, {}],
      [[], {}],
      [['list'], { list: ['tea'] }],
      [['csrfToken'], { csrfToken: 'known' }],
      [true, { list: ['tea'] }],
    ] as const)('is the application’s choice: login(userId, { keep: %j })', async (keep, kept) => {
      for (const isStored of [true, false]) {
        const rig = isStored ? await planted() : await Rig.start(ground)
        await rig.ask(async (session) => {
          if (!isStored) session.set('list', ['tea']).set('csrfToken', 'known')
          await session.login('ann', { keep })
          expect({ ...session }).toEqual(kept)
        })
        expect(await fieldsOf(rig)).toEqual(kept)
        expect(await rig.whoIs()).toBe('ann')
      }
    })

    test('a login that fails leaves the session as it was', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, onSessionLimit: 'refuse' })
      await rig.login('ann')
      await rig.ask((session) => session.set('csrfToken', 'mine'))
      await rig.ask(async (session) => {
        expect((await refusal(session.login('ann', { keep: false }))).code).toBe('SESSION_LIMIT')
        expect(session.get('csrfToken')).toBe('mine')
      })
      expect(await fieldsOf(rig)).toEqual({ csrfToken: 'mine' })
    })

    test('a token that another request plants while the login is under way does not go over', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('list', ['tea']))
      const attacker = rig.client.clone()
      await rig.ask(async (session) => {
        void session.id
        await rig.ask((theirs) => {
          theirs.set('csrfToken', 'planted')
          inside(theirs).drawer('test.forms', { staysBehind: true }).set('planted')
        }, attacker)
        await session.login('ann')
      })
      await rig.ask((session) => {
        expect({ ...session }).toEqual({ list: ['tea'] })
        expect(inside(session).drawer('test.forms', { staysBehind: true }).get()).toBeUndefined()
      })
    })

    test('a feature’s drawer goes over, unless it is one that stays behind', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => {
        inside(session).drawer('test.goes').set(1)
        inside(session).drawer('test.stays', { staysBehind: true }).set(1)
      })
      const drawers = (session: Session): unknown[] =>
        ['test.goes', 'test.stays'].map((name) => inside(session).drawer(name).get())
      await rig.ask(async (session) => {
        expect(drawers(session)).toEqual([1, 1])
        await session.login('ann')
        expect(drawers(session)).toEqual([1, undefined])
      })
      expect(await rig.ask(drawers)).toEqual([1, undefined])
    })
  })

  test('a feature’s drawer that belongs to a login goes over with all but the next one', async () => {
    const rig = await Rig.start(ground)
    const drawer = (session: Session) => inside(session).drawer('test.key', { endsWithLogin: true })
    const turns: [string, (session: Session) => Promise<unknown>][] = [
      ['renew', (session) => session.renew()],
      ['reauthenticate', (session) => session.reauthenticate()],
      ['regenerate', (session) => session.regenerate({ keep: true })],
    ]
    await rig.ask((session) => session.login('ann'))
    await rig.ask((session) => drawer(session).set(1))
    for (const [name, turn] of turns) {
      await rig.ask(turn)
      expect({ name, value: await rig.ask((session) => drawer(session).get()) }).toEqual({ name, value: 1 })
    }
    await rig.ask(async (session) => {
      await session.login('ann')
      expect(drawer(session).get()).toBeUndefined()
    })
    expect(await rig.ask((session) => drawer(session).get())).toBeUndefined()
  })

  describe('a login over another user’s session', () => {
    test.each([undefined, true, ['list']])('takes nothing of it along, with keep: %j', async (keep) => {
      const rig = await Rig.start(ground, { initialFields: () => ({ theme: 'light' }) })
      await rig.ask(async (session) => {
        session.set('list', ['ann’s']).set('theme', 'dark')
        await session.login('ann')
        inside(session).drawer('test.goes').set('ann’s')
        await session.setExpiry('20m')
      })
      const anns = rig.client.clone()
      const before = idOf(anns)
      await rig.ask(async (session) => {
        ;(session.get('list') as string[]).push('altered')
        session.set('note', 'by the request of ann’s session')
        await session.login('bob', { keep })
        expect({ ...session }).toEqual({ theme: 'light' })
        expect(inside(session).drawer('test.goes').get()).toBeUndefined()
        expect(session.expiresAt.getTime() - rig.clock.now()).toBe(30 * 60_000)
        session.set('list', ['bob’s'])
      })
      expect(await fieldsOf(rig)).toEqual({ theme: 'light', list: ['bob’s'] })
      expect(await rig.whoIs()).toBe('bob')
      expect(await rig.whoIs(anns)).toBeNull()
      expect(await rig.manager.sessionsOf('ann')).toEqual([])
      expect(await rig.manager.sessionsOf('bob')).toHaveLength(1)
      expect(rig.heard('login').at(-1)).toMatchObject({ previousId: before, userId: 'bob' })
    })

    test('gives another logical ID, and tells so', async () => {
      const rig = await Rig.start(ground)
      const anns = await rig.ask(async (session) => {
        await session.login('ann')
        return session.logicalId
      })
      const bobs = await rig.ask(async (session) => {
        await session.login('bob')
        return session.logicalId
      })
      expect(bobs).not.toBe(anns)
      expect(await rig.ask((session) => session.logicalId)).toBe(bobs)
    })

    test('of the same user keeps the fields', async () => {
      const rig = await Rig.start(ground)
      await rig.ask(async (session) => {
        session.set('list', ['tea'])
        await session.login('ann')
      })
      await rig.ask((session) => session.login('ann'))
      expect(await fieldsOf(rig)).toEqual({ list: ['tea'] })
    })

    test('that is refused leaves it as it was', async () => {
      const rig = await Rig.start(ground, { maxSessionsPerUser: 1, onSessionLimit: 'refuse' })
      await rig.login('bob')
      await rig.ask(async (session) => {
        session.set('list', ['ann’s'])
        await session.login('ann')
      })
      await rig.ask(async (session) => {
        expect((await refusal(session.login('bob'))).code).toBe('SESSION_LIMIT')
      })
      expect(await rig.whoIs()).toBe('ann')
      expect(await fieldsOf(rig)).toEqual({ list: ['ann’s'] })
    })
  })

  test('csrf-sync: a token from before the login is worth nothing after it', async () => {
    const { csrfSynchronisedProtection, generateToken } = csrfSync()
    const rig = await Rig.start(ground)
    const token = await rig.ask((_session, req) => generateToken(req))
    await rig.ask((session) => session.login('ann'))
    const error = await rig.ask(
      (_session, req, res) =>
        new Promise((resolve) => {
          Object.assign(req, { method: 'POST' })
          req.headers['x-csrf-token'] = token
          csrfSynchronisedProtection(req, res, resolve)
        }),
    )
    expect(error).toMatchObject({ status: 403 })
  })

  describe('a request that ends its own session by ID or user', () => {
    const ENDINGS: Record<string, (rig: Rig, session: Session) => Promise<unknown>> = {
      'manager.revoke(session.id)': (rig, session) => rig.manager.revoke(session.id),
      'manager.terminate(session.id)': (rig, session) => rig.manager.terminate(session.id),
      'manager.revokeUser(userId)': (rig) => rig.manager.revokeUser('ann'),
    }
    const NEXT: Record<string, Act> = {
      'nothing more': async () => {},
      'regenerate()': (session) => session.regenerate(),
      'regenerate(callback)': (session) =>
        new Promise<void>((done, failed) => session.regenerate(callback(done, failed))),
      'save(callback)': (session) => new Promise<void>((done, failed) => session.save(callback(done, failed))),
      'logout()': (session) => session.logout(),
      'destroy()': (session) => session.destroy(),
    }
    const cases = Object.keys(ENDINGS).flatMap((ending) => Object.keys(NEXT).map((next) => [ending, next] as const))

    test.each(cases)('by %s may go on with %s, and the cookie is cleared', async (ending, next) => {
      const rig = await Rig.start(ground)
      await rig.ask(async (session) => {
        session.set('list', ['ann’s'])
        await session.login('ann')
      })
      const copy = rig.client.clone()
      await rig.ask(async (session, req) => {
        await ENDINGS[ending]?.(rig, session)
        expect(req.session).not.toBe(session)
        expect(req.session.keys()).toEqual([])
        expect(req.session.metadata.userId).toBeUndefined()
        await NEXT[next]?.(req.session)
      })
      expect(rig.answer).toMatchObject({ status: 200, setCookies: [expect.stringMatching(/^sid=;.*Max-Age=0/)] })
      expect(await rig.whoIs(copy)).toBeNull()
    })

    test('by another ID goes on as it was', async () => {
      const rig = await Rig.start(ground)
      const other = await rig.login('ann')
      await rig.ask((session) => session.login('ann'))
      await rig.ask(async (session, req) => {
        await rig.manager.revoke(idOf(other))
        expect(req.session).toBe(session)
        await rig.manager.revokeUser('ann', { except: session })
        expect(req.session).toBe(session)
      })
      expect(await rig.whoIs()).toBe('ann')
    })
  })

  describe('regenerate() without keep', () => {
    test('of a session that somebody has ended gives an empty one', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('list', ['tea']))
      const other = rig.client.clone()
      await rig.ask(async (session, req) => {
        void session.id
        await rig.ask((theirs) => theirs.logout(), other)
        await session.regenerate()
        expect(req.session.keys()).toEqual([])
        req.session.set('mine', 1)
      })
      expect(await fieldsOf(rig)).toEqual({ mine: 1 })
    })

    test('of a session that went on ends what it became', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('list', ['tea']))
      const other = rig.client.clone()
      await rig.ask(async (session) => {
        void session.id
        await rig.ask((theirs) => theirs.login('ann'), other)
        await session.regenerate()
      })
      expect(await rig.whoIs(other)).toBeNull()
      expect(await fieldsOf(rig)).toEqual({})
    })
  })
})

function callback(done: () => void, failed: (error: unknown) => void): (error?: unknown) => void {
  return (error) => (error === undefined ? done() : failed(error))
}
