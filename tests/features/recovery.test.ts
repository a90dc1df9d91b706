// Sessions that can be resumed, and handed over: `sojourn/recovery`.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Request, Response } from 'express'
import { requireRecentAuth, type Session, type SessionEvent } from 'sojourn'
import { type Recoveries, type Recovery, type RecoveryOptions, recovery } from 'sojourn/recovery'
import { sessionState } from 'sojourn/state'
import type { Client } from '../support/http.js'
import {
  closeRigs,
  GROUNDS,
  type Ground,
  idOf,
  outside,
  partsOf,
  Rig,
  type RigOptions,
  refusal,
} from '../support/rig.js'

/** A process: its rig, and the feature in it. */
interface Place {
  readonly rig: Rig
  readonly recoveries: Recoveries
  readonly refused: SessionEvent<'recoveryRefused'>[]
}

describe.each(GROUNDS)('recovery, on %s', (_name, makeGround) => {
  let ground: Ground
  const places: Place[] = []

  async function start(options: RecoveryOptions & { rig?: RigOptions; clock?: Rig['clock'] } = {}): Promise<Place> {
    const { rig: rigOptions = {}, clock, ...rest } = options
    const rig = await Rig.start(ground, rigOptions, clock)
    const refused: Place['refused'] = []
    rig.manager.events.on('recoveryRefused', (event) => void refused.push(event))
    const place = { rig, recoveries: recovery(rig.manager, rest), refused }
    places.push(place)
    return place
  }

  /** A point of a session with a field and a state. */
  function saved({ rig, recoveries }: Place, userId?: string, act: 'save' | 'handOff' = 'save'): Promise<string> {
    return rig.ask(async (s) => {
      if (userId !== undefined) await s.login(userId)
      s.set('basket', ['book'])
      await sessionState(s).update('form', 'name', 'Ann')
      return recoveries[act](s, { page: '/checkout/2' })
    })
  }

  function recover(
    { rig, recoveries }: Place,
    token: string | undefined,
    client = rig.stranger(),
  ): Promise<Recovery['status']> {
    return rig.ask(async (_s, req) => (await recoveries.recover(token, req)).status, client)
  }

  const contentsOf = ({ rig }: Place, client: Client): Promise<unknown> =>
    rig.ask((s) => [{ ...s }, sessionState(s).get('form' as never)], client)
  const CONTENTS = [{ basket: ['book'] }, { name: 'Ann' }]

  beforeAll(async () => {
    ground = makeGround()
    await ground.start()
  })
  afterEach(async () => {
    await Promise.all(places.splice(0).map(({ recoveries }) => recoveries.close()))
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())

  test('a point is redeemed into a new session, which says what it was recovered from and when', async () => {
    const place = await start()
    const { rig, recoveries } = place
    const savedAt = new Date(rig.clock.now())
    const token = await saved(place)
    const sessionId = idOf(rig.client)
    rig.clock.advance(60_000)
    const phone = rig.stranger()
    const from = {
      sessionId,
      how: 'recovery',
      savedAt,
      recoveredAt: new Date(rig.clock.now()),
      info: { page: '/checkout/2' },
    }
    const events: unknown[] = []
    rig.manager.events.on('recovered', (event) => events.push(event))
    await rig.ask(async (_s, req) => {
      expect(await recoveries.recover(token, req)).toEqual({ status: 'recovered', session: req.session, from })
    }, phone)
    expect(await contentsOf(place, phone)).toEqual(CONTENTS)
    expect(await rig.ask((s) => recoveries.recoveredFrom(s), phone)).toEqual(from)
    expect(idOf(phone)).not.toBe(sessionId)
    expect(events).toMatchObject([{ id: idOf(phone), from: sessionId, how: 'recovery', savedAt: savedAt.getTime() }])
    expect(await rig.ask((s) => recoveries.recoveredFrom(s))).toBeUndefined()
  })

  test('what it takes the place of is over, and nothing of that goes over', async () => {
    const place = await start()
    const token = await saved(place)
    const client = place.rig.stranger()
    await place.rig.ask((s) => s.set('mine', 1), client)
    const before = client.clone()
    expect(await recover(place, token, client)).toBe('recovered')
    expect(await contentsOf(place, client)).toEqual(CONTENTS)
    expect(await contentsOf(place, before)).toEqual([{}, {}])
  })

  describe('security, by row', () => {
    test('ASVS 6.5.1: of 50 parallel redemptions, in two processes, exactly one succeeds', async () => {
      const place = await start()
      const other = await start({ clock: place.rig.clock })
      const token = await saved(place)
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, n) => recover(n % 2 === 0 ? place : other, token)),
      )
      expect(answers.filter((status) => status === 'recovered')).toHaveLength(1)
      expect(answers.filter((status) => status === 'refused')).toHaveLength(49)
    })

    test('ASVS 6.5.2: a dump of the store has no token, and nothing of what it stands for', async () => {
      const place = await start()
      const token = await place.rig.ask(async (s) => {
        await s.save()
        return place.recoveries.save(s, { page: '/MARKER' })
      })
      const dump = JSON.stringify(await ground.dump())
      if (dump !== '[]') expect(dump).toContain('recovery')
      expect(dump).not.toContain(token)
      expect(dump).not.toContain('MARKER')
      expect(await place.rig.manager.notes.get('recovery', token)).toBeNull()
    })

    test('ASVS 6.5.3: tokens have 256 bits and no two are alike', async () => {
      const place = await start({ maxPoints: 20 })
      const tokens = await place.rig.ask(async (s) => {
        s.set('a', 1)
        const all: string[] = []
        for (let n = 0; n < 10; n++) all.push(await place.recoveries.save(s))
        return all
      })
      expect(new Set(tokens).size).toBe(10)
      for (const token of tokens) expect(Buffer.from(token, 'base64url')).toHaveLength(32)
    })

    test.each([
      ['a recovery point, the window', 'save', 3_600_000],
      ['a hand-off, ten minutes', 'handOff', 600_000],
    ] as const)('ASVS 6.5.5: of %s: good until then, refused a second after it', async (_what, act, windowMs) => {
      const place = await start()
      const [first, second] = [await saved(place, undefined, act), await saved(place, undefined, act)]
      place.rig.clock.advance(windowMs - 1)
      expect(await recover(place, first)).toBe('recovered')
      place.rig.clock.advance(1001)
      expect(await recover(place, second)).toBe('refused')
      expect(place.refused.map(({ reason }) => reason)).toEqual(['expired'])
    })

    test('ASVS 6.6.2: bound to its user: nobody has to log in first, another is refused as with a wrong token', async () => {
      const place = await start()
      const token = await saved(place, 'ann')
      const [ann, bob] = [place.rig.stranger(), await place.rig.login('bob')]
      const wrong = `${token.startsWith('A') ? 'B' : 'A'}${token.slice(1)}`
      expect(await recover(place, token, bob)).toBe('refused')
      expect(await contentsOf(place, bob)).toEqual([{}, {}])
      expect(await recover(place, token, ann)).toBe('login-required')
      expect(await contentsOf(place, ann)).toEqual([{}, {}])
      await place.rig.ask((s) => s.login('ann'), ann)
      expect(await recover(place, wrong, ann)).toBe('refused')
      expect(await recover(place, token, ann)).toBe('recovered')
      expect(await contentsOf(place, ann)).toEqual(CONTENTS)
      expect(await place.rig.whoIs(ann)).toBe('ann')
      expect(place.refused.map(({ reason }) => reason)).toEqual(['foreign', 'unknown'])
    })

    test('ASVS 6.6.2: a point of nobody is not for who is logged in', async () => {
      const place = await start()
      const token = await saved(place)
      expect(await recover(place, token, await place.rig.login('bob'))).toBe('refused')
      expect(place.refused[0]?.reason).toBe('foreign')
    })

    test('ASVS 6.6.3: the sixth guess is locked, also in another process, and the right token with it', async () => {
      const place = await start()
      const other = await start({ clock: place.rig.clock })
      const token = await saved(place)
      for (let n = 0; n < 5; n++) expect(await recover(place, `${n}`.repeat(43))).toBe('refused')
      expect(await recover(other, '9'.repeat(43))).toBe('refused')
      expect(await recover(other, token)).toBe('refused')
      expect(place.refused.map(({ reason }) => reason)).toEqual(Array(5).fill('unknown'))
      expect(other.refused.map(({ reason }) => reason)).toEqual(['locked', 'locked'])
    })

    test('FP: redeeming gives a new ID and does not stand for a login', async () => {
      const place = await start()
      const { rig } = place
      const token = await saved(place, 'ann')
      const ann = await rig.login('ann')
      const [id, secret] = partsOf(ann)
      rig.clock.advance(600_000)
      expect(await recover(place, token, ann)).toBe('recovered')
      expect(partsOf(ann)[0]).not.toBe(id)
      expect(partsOf(ann)[1]).not.toBe(secret)
      // The proof is as old as it was.
      const guarded = rig.ask((_s, req, res) => guard(req, res, '5m'), ann)
      expect((await refusal(guarded)).code).toBe('REAUTHENTICATION_REQUIRED')
    })

    test('FP: a session that was handed over has proved nothing', async () => {
      const place = await start()
      const token = await saved(place, 'ann', 'handOff')
      const phone = place.rig.stranger()
      expect(await recover(place, token, phone)).toBe('recovered')
      expect(await place.rig.ask((s) => s.metadata.authenticatedAt, phone)).toBeUndefined()
      const guarded = place.rig.ask((_s, req, res) => guard(req, res, '5m'), phone)
      expect((await refusal(guarded)).code).toBe('REAUTHENTICATION_REQUIRED')
    })

    test('ASVS 6.3.8: lost, used, expired, foreign and malformed tokens have one answer and different events', async () => {
      const place = await start()
      const client = place.rig.stranger()
      const used = await saved(place)
      await recover(place, used)
      const expired = await saved(place)
      place.rig.clock.advance(3_600_000)
      const foreign = await place.rig.ask(async (s) => {
        await s.login('ann')
        return place.recoveries.save(s)
      })
      const bob = await place.rig.login('bob')
      const answers: unknown[] = []
      for (const token of ['0'.repeat(43), used, expired, 'x', '', {} as string]) {
        answers.push(await place.rig.ask((_s, req) => place.recoveries.recover(token, req), client))
      }
      answers.push(await place.rig.ask((_s, req) => place.recoveries.recover(foreign, req), bob))
      expect(answers).toEqual(Array(7).fill({ status: 'refused' }))
      const reasons = place.refused.map(({ reason }) => reason)
      expect(reasons).toEqual(['unknown', 'used', 'expired', 'malformed', 'malformed', 'malformed', 'foreign'])
    })

    test('SM/VOC: a second use is told, with the session that it was redeemed as; with endOnReuse, that ends, and the family', async () => {
      const place = await start({ endOnReuse: true })
      const [token, sister] = [await saved(place), await saved(place)]
      const thief = place.rig.stranger()
      await recover(place, token, thief)
      const redeemedAs = idOf(thief)
      expect(await recover(place, token)).toBe('refused')
      expect(place.refused).toMatchObject([{ reason: 'used', redeemedAs }])
      expect(await contentsOf(place, thief)).toEqual([{}, {}])
      expect(await recover(place, sister)).toBe('refused')
      expect(place.refused[1]?.reason).toBe('ended')
    })

    test('ASVS 8.4.1: nothing from another application on the same store, by its secret or by its name', async () => {
      const place = await start()
      const token = await saved(place)
      const other = await start({ rig: { secret: 'another secret of more than 32 characters' } })
      expect(await recover(other, token)).toBe('refused')
      const third = await start({ application: 'third' })
      expect(await recover(third, token)).toBe('refused')
      expect([...other.refused, ...third.refused].map(({ reason }) => reason)).toEqual(['unknown', 'unknown'])
      expect(await recover(place, token)).toBe('recovered')
    })

    test('a rotated secret leaves points good', async () => {
      const [old, next] = ['an old secret of more than 32 characters', 'a new secret of more than 32 characters!']
      const token = await saved(await start({ rig: { secret: old } }))
      const place = await start({ rig: { secret: [next, old] } })
      expect(await recover(place, token)).toBe('recovered')
    })
  })

  describe('ends', () => {
    const HOUR = 3_600_000
    const within =
      (act: (session: Session) => unknown) =>
      ({ rig }: Place): Promise<unknown> =>
        rig.ask(act)
    const DEADLY: Record<string, (place: Place, id: string) => unknown> = {
      'logout()': within((s) => s.logout()),
      'destroy()': within((s) => s.destroy()),
      'regenerate()': within((s) => s.regenerate()),
      'revoke()': ({ rig }, id) => rig.manager.revoke(id),
      'revokeUser()': ({ rig }) => rig.manager.revokeUser('ann'),
      'a login and a logout': async ({ rig }) => {
        await rig.ask((s) => s.login('ann'))
        await rig.ask((s) => s.logout())
      },
    }

    test.each(Object.entries(DEADLY))('a point dies with %s', async (_way, end) => {
      const place = await start()
      const token = await saved(place, 'ann')
      await end(place, idOf(place.rig.client))
      await place.recoveries.settled()
      expect(await recover(place, token, await place.rig.login('ann'))).toBe('refused')
    })

    test.each(Object.entries(DEADLY))('also where nobody listened to %s', async (_way, end) => {
      const place = await start()
      const token = await saved(place, 'ann')
      // Another process, without the feature, as after a crash in between.
      const other = await Rig.start(ground, {}, place.rig.clock)
      other.client = other.stranger(place.rig.client.cookies)
      await end({ ...place, rig: other }, idOf(place.rig.client))
      expect(await recover(place, token, await place.rig.login('ann'))).toBe('refused')
      expect(place.refused[0]?.reason).toBe('ended')
    })

    const SURVIVED: Record<string, { options?: RigOptions; end: (place: Place) => unknown }> = {
      'a closed browser': { end() {} },
      'the idle timeout': { options: { idleTimeout: '10m' }, end: ({ rig }) => rig.clock.advance(HOUR / 2) },
      'a clean-up': {
        options: { idleTimeout: '10m', endedRetention: '1s' },
        async end({ rig }) {
          rig.clock.advance(HOUR / 2)
          await rig.manager.cleanUp()
        },
      },
      'renew(), login() and regenerate({ keep: true })': {
        async end({ rig }) {
          await rig.ask((s) => s.renew())
          await rig.ask((s) => s.login('ann'))
          await rig.ask((s) => s.regenerate({ keep: true }))
        },
      },
      'the limit of sessions': { options: { maxSessionsPerUser: 1 }, end: ({ rig }) => rig.login('ann') },
    }
    test.each(Object.entries(SURVIVED))('a point survives %s', async (_way, { options = {}, end }) => {
      const place = await start({ rig: options })
      const token = await saved(place, 'ann')
      await end(place)
      await place.recoveries.settled()
      const client = await place.rig.login('ann')
      expect(await recover(place, token, client)).toBe('recovered')
      expect(await contentsOf(place, client)).toEqual(CONTENTS)
    })

    test('a user who was revoked after the session ran out has no point left, others have', async () => {
      const place = await start({ rig: { idleTimeout: '10m', endedRetention: '1s' } })
      const token = await saved(place, 'ann')
      place.rig.client = place.rig.stranger()
      const others = await saved(place, 'bob')
      place.rig.clock.advance(HOUR / 2)
      await place.rig.manager.cleanUp()
      await place.rig.manager.revokeUser('ann')
      expect(await recover(place, token, await place.rig.login('ann'))).toBe('refused')
      expect(await recover(place, others, await place.rig.login('bob'))).toBe('recovered')
      const later = await place.rig.ask(async (s) => {
        await s.login('ann')
        return place.recoveries.save(s)
      })
      expect(await recover(place, later, await place.rig.login('ann'))).toBe('recovered')
    })

    test('after revokeAll() no point counts', async () => {
      const place = await start()
      const token = await saved(place)
      await outside(() => place.rig.manager.revokeAll())
      expect(await recover(place, token)).toBe('refused')
    })

    test('a point of a session that ends meanwhile is refused, and leaves nothing behind', async () => {
      const place = await start()
      await place.rig.ask((s) => s.set('a', 1))
      const late = place.rig.ask(async (s) => {
        s.get('a')
        await place.rig.manager.revoke(s.id)
        await place.recoveries.save(s)
      })
      expect((await refusal(late)).code).toBe('SESSION_ENDED')
    })

    test('a session keeps so many points, the oldest goes first', async () => {
      const place = await start({ maxPoints: 2 })
      const tokens = [await saved(place), await saved(place), await saved(place)]
      const answers: string[] = []
      for (const token of tokens) answers.push(await recover(place, token))
      expect(answers).toEqual(['refused', 'recovered', 'recovered'])
    })

    test('points that are made at once all end with the session', async () => {
      const place = await start({ maxPoints: 10 })
      await place.rig.ask((s) => s.set('a', 1))
      const tokens = await Promise.all(
        Array.from({ length: 5 }, () => place.rig.ask((s) => place.recoveries.save(s), place.rig.client)),
      )
      expect(await recover(place, tokens[0])).toBe('recovered')
      await place.rig.ask((s) => s.logout())
      await place.recoveries.settled()
      for (const token of tokens.slice(1)) expect(await recover(place, token)).toBe('refused')
    })
  })

  describe('what goes over', () => {
    test('the logical ID, and with it what lasts until the workflow ends', async () => {
      const place = await start()
      const orderOf = (s: Session) => sessionState(s, { categories: { order: { until: 'workflow' } } })
      const [token, logicalId] = await place.rig.ask(async (s) => {
        await orderOf(s).update('order', 'tea', 'Assam')
        return [await place.recoveries.save(s), s.logicalId]
      })
      const client = place.rig.stranger()
      await recover(place, token, client)
      expect(await place.rig.ask((s) => [s.logicalId, orderOf(s).get('order')], client)).toEqual([
        logicalId,
        { tea: 'Assam' },
      ])
    })

    test('not what protects forms, and of an anonymous session not what says who the user is', async () => {
      const place = await start()
      const token = await place.rig.ask(async (s) => {
        s.set('csrfToken', 'x').set('passport', { user: 1 }).set('userId', 1).set('basket', 1)
        return place.recoveries.save(s)
      })
      const client = place.rig.stranger()
      await recover(place, token, client)
      expect(await place.rig.ask((s) => ({ ...s }), client)).toEqual({ basket: 1 })
    })

    test('what the option says', async () => {
      const place = await start({ fields: (name) => name !== 'secret' })
      const token = await place.rig.ask(async (s) => {
        s.set('secret', 1).set('passport', { user: 1 })
        return place.recoveries.save(s)
      })
      const client = place.rig.stranger()
      await recover(place, token, client)
      expect(await place.rig.ask((s) => ({ ...s }), client)).toEqual({ passport: { user: 1 } })
    })

    test('a session of 300 KB of text; more than a note holds is refused', async () => {
      const place = await start()
      const token = await place.rig.ask(async (s) => {
        s.set('text', 'lorem ipsum '.repeat(25_000))
        return place.recoveries.save(s)
      })
      expect(await recover(place, token)).toBe('recovered')
      const tooLarge = place.rig.ask(async (s) => {
        s.set(
          'text',
          Array.from({ length: 12_000 }, (_, n) => Math.sin(n)),
        )
        await place.recoveries.save(s)
      })
      expect((await refusal(tooLarge)).code).toBe('SESSION_TOO_LARGE')
    })
  })

  describe('a hand-off', () => {
    test('gives a sibling session of the same user, which ends by itself', async () => {
      const place = await start()
      const token = await saved(place, 'ann', 'handOff')
      const phone = place.rig.stranger()
      expect(await recover(place, token, phone)).toBe('recovered')
      expect(await contentsOf(place, phone)).toEqual(CONTENTS)
      expect([await place.rig.whoIs(phone), await place.rig.whoIs()]).toEqual(['ann', 'ann'])
      expect(idOf(phone)).not.toBe(idOf(place.rig.client))
      expect(await place.rig.manager.sessionsOf('ann')).toHaveLength(2)
      await place.rig.ask((s) => s.logout())
      expect(await place.rig.whoIs(phone)).toBe('ann')
      await place.rig.manager.revokeUser('ann')
      expect(await place.rig.whoIs(phone)).toBeNull()
    })

    test('counts towards the limit of the user, and takes the place of an anonymous session', async () => {
      const place = await start({ rig: { maxSessionsPerUser: 1, onSessionLimit: 'refuse' } })
      const token = await saved(place, 'ann', 'handOff')
      const phone = place.rig.stranger()
      await place.rig.ask((s) => s.set('old', 1), phone)
      expect((await refusal(recover(place, token, phone))).code).toBe('SESSION_LIMIT')
      // Nobody has got anything for it, so it is still good.
      await place.rig.ask((s) => s.destroy())
      expect(await place.rig.ask((s) => s.get('old'), phone)).toBe(1)
    })
  })

  describe('automatic points', () => {
    test('by time and on routes, with the token in a cookie that outlives the session', async () => {
      const place = await start()
      const { rig, recoveries } = place
      const points = recoveries.automatic({ every: '5m', routes: ['/checkout', /^\/pay\//] })
      const visit = (path: string, client = rig.client): Promise<string | undefined> =>
        rig
          .ask(
            async (s, req, res) => {
              await new Promise<void>((resolve, reject) =>
                points(req, res, (error) => (error ? reject(error as Error) : resolve())),
              )
              s.set('at', path)
              return undefined
            },
            client,
            { path },
          )
          .then(() => client.cookies.get('recovery'))

      expect(await visit('/')).toBeUndefined()
      const first = await visit('/')
      expect(first).toMatch(/^[\w-]{43}$/)
      expect(rig.answer?.headers['set-cookie']?.toString()).toMatch(
        /recovery=.*Max-Age=3600; Path=\/; HttpOnly; SameSite=Lax/,
      )
      expect(await visit('/')).toBe(first)
      const onRoute = await visit('/checkout')
      expect(onRoute).not.toBe(first)
      rig.clock.advance(300_000)
      const byTime = await visit('/other')
      expect(byTime).not.toBe(onRoute)
      expect(await recover(place, onRoute)).toBe('refused')

      // The browser was closed: only the cookie of recovery is left.
      const browser = rig.stranger([['recovery', byTime as string]])
      const info = await rig.ask(async (_s, req, res) => {
        await new Promise<void>((resolve) => points(req, res, () => resolve()))
        const recovered = await recoveries.recover(undefined, req)
        return recovered.status === 'recovered' ? recovered.from.info : recovered
      }, browser)
      expect(info).toEqual({ page: '/other' })
      expect(await rig.ask((s) => s.get('at'), browser)).toBe('/checkout')
      expect(browser.cookies.get('recovery') ?? '').toBe('')
    })

    test('of requests at once one makes the point', async () => {
      const place = await start()
      await place.rig.ask((s) => s.set('a', 1))
      const points = place.recoveries.automatic({ every: '5m' })
      const tokens = await Promise.all(
        Array.from({ length: 6 }, async () => {
          const client = place.rig.client.clone()
          await place.rig.ask(
            (_s, req: Request, res: Response) => new Promise<void>((resolve) => points(req, res, () => resolve())),
            client,
          )
          return client.cookies.get('recovery')
        }),
      )
      expect(tokens.filter((token) => token !== undefined)).toHaveLength(1)
    })
  })

  test('what it costs in store calls', async () => {
    const place = await start()
    await saved(place, 'ann')
    const calls: string[] = []
    place.rig.manager.events.on('storeCall', ({ operation }) => calls.push(operation))
    const counted = async <T>(act: () => Promise<T>): Promise<[T, number]> => {
      calls.length = 0
      return [await act(), calls.length]
    }
    const save = (): Promise<string> => place.rig.ask((s) => place.recoveries.save(s))
    const [, idle] = await counted(() => place.rig.ask(() => {}))
    const [token, saving] = await counted(save)
    const ann = await place.rig.login('ann')
    const [, recovering] = await counted(() => recover(place, token, ann))
    await place.recoveries.settled()
    expect({ idle, saving: saving - idle, recovering: recovering - idle }).toEqual({
      idle: 1,
      saving: 5,
      recovering: 12,
    })
  })

  test('what is wrong is told with what to do', async () => {
    const { rig, recoveries } = await start()
    const bad = (options: object) => () => recovery(rig.manager, options)
    expect(bad({ windows: '1h' })).toThrow('There is no option "windows" of recovery(). Did you mean window?')
    expect(bad({ maxPoints: 0 })).toThrow(/maxPoints is 0; use a whole number from 1/)
    expect(bad({ window: 'long' })).toThrow(/window is "long"/)
    expect(() => recovery({} as never)).toThrow(/needs the SessionManager/)
    expect(() => recoveries.automatic({ routes: '/a' as never })).toThrow(/routes is neither/)
    const refused = rig.ask(async (s) => void (await recoveries.save(s, [] as never)))
    expect((await refusal(refused)).code).toBe('INVALID_ARGUMENT')
  })
})

function guard(req: Request, res: Response, maxAge: string): Promise<void> {
  return new Promise((resolve, reject) => {
    requireRecentAuth(maxAge)(req, res, (error) => (error ? reject(error as Error) : resolve()))
  })
}
