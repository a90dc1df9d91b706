// The seam holds: a feature that another package could have written keeps a drawer, survives a login, gives each code to one
// taker, and leaves nothing behind whatever ends a session.
import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Session } from 'sojourn'
import { closeRigs, GROUNDS, type Ground, idOf, Rig, type RigOptions, refusal } from '../support/rig.js'
import { Handoff } from './handoff.js'

const HOUR = 3_600_000

test('it imports nothing but what is public', () => {
  const source = readFileSync(new URL('handoff.ts', import.meta.url), 'utf8')
  const imported = [...source.matchAll(/\bfrom '([^']+)'/g)].map(([, name]) => name)
  expect(imported).toEqual(['node:crypto', 'sojourn', 'sojourn/inside'])
})

/** A process: its rig, and the feature in it. */
interface Place {
  readonly rig: Rig
  readonly handoff: Handoff
}

describe.each(GROUNDS)('hand-off, on %s', (_name, makeGround) => {
  let ground: Ground
  const places: Place[] = []

  async function start(options: RigOptions = {}, clock?: Rig['clock']): Promise<Place> {
    const rig = await Rig.start(ground, options, clock)
    const place = { rig, handoff: new Handoff(rig.manager) }
    places.push(place)
    return place
  }

  /** A session with a field, and the code that it offers. */
  async function offering({ rig, handoff }: Place): Promise<string> {
    return rig.ask(async (s) => {
      s.set('basket', ['book'])
      return handoff.offer(s)
    })
  }

  function accept({ rig, handoff }: Place, code: string, client = rig.stranger()): Promise<boolean> {
    return rig.ask((s) => handoff.accept(s, code), client)
  }

  beforeAll(async () => {
    ground = makeGround()
    await ground.start()
  })
  afterEach(async () => {
    await Promise.all(places.splice(0).map(({ handoff }) => handoff.close()))
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())

  test('a code hands the fields to another device, once', async () => {
    const place = await start()
    const code = await offering(place)
    const phone = place.rig.stranger()
    expect(await accept(place, code, phone)).toBe(true)
    expect(await place.rig.ask((s) => ({ ...s }), phone)).toEqual({ basket: ['book'] })
    expect(await accept(place, code)).toBe(false)
    expect(await place.rig.ask((s) => place.handoff.offered(s))).toBeUndefined()
  })

  test('of 20 devices that try one code at once, on two processes, one gets it', async () => {
    const place = await start()
    const other = await start({}, place.rig.clock)
    const code = await offering(place)
    const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => accept(n % 2 === 0 ? place : other, code)))
    expect(answers.filter(Boolean)).toHaveLength(1)
  })

  test('an offer takes the place of the one before, and of many at once one is left', async () => {
    const place = await start()
    const first = await offering(place)
    const codes = await Promise.all(
      Array.from({ length: 10 }, () => place.rig.ask((s) => place.handoff.offer(s), place.rig.client)),
    )
    const taken = await Promise.all([first, ...codes].map((code) => accept(place, code)))
    expect(taken.filter(Boolean)).toHaveLength(1)
    expect(taken[0]).toBe(false)
  })

  test.each([
    ['login()', (s: Session) => s.login('ann')],
    ['login() and reauthenticate()', (s: Session) => s.login('ann').then(() => s.reauthenticate())],
    ['regenerate({ keep: true })', (s: Session) => s.regenerate({ keep: true })],
    ['renew()', (s: Session) => s.renew()],
    ['clear()', (s: Session) => s.clear()],
  ] as [string, (s: Session) => unknown][])('goes on with the session through %s', async (_way, act) => {
    const place = await start()
    const code = await offering(place)
    const before = idOf(place.rig.client)
    await place.rig.ask(act)
    await place.handoff.settled()
    expect(await place.rig.ask((s) => place.handoff.offered(s))).toBe(code)
    // Nothing is left under the old ID, and the end of the new one takes it along.
    await place.rig.ask((s) => s.destroy())
    await place.handoff.settled()
    expect(await notesOf(place, code, before)).toEqual([null, null])
    expect(await accept(place, code)).toBe(false)
  })

  const within =
    (act: (session: Session) => unknown) =>
    ({ rig }: Place): Promise<unknown> =>
      rig.ask(act)
  const ENDS: Record<string, { options?: RigOptions; end: (place: Place, id: string) => unknown }> = {
    'logout()': { end: within((s) => s.logout()) },
    'destroy()': { end: within((s) => s.destroy()) },
    'regenerate()': { end: within((s) => s.regenerate()) },
    'regenerate({ keep: [basket] })': { end: within((s) => s.regenerate({ keep: ['basket'] })) },
    'revoke()': { end: ({ rig }, id) => rig.manager.revoke(id) },
    'revokeUser()': { end: ({ rig }) => rig.manager.revokeUser('ann') },
    'a login over the limit': { options: { maxSessionsPerUser: 1 }, end: ({ rig }) => rig.login('ann') },
    'the idle timeout': {
      end({ rig }) {
        rig.clock.advance(2 * HOUR)
        return rig.manager.cleanUp()
      },
    },
    'the absolute timeout': {
      options: { idleTimeout: '50m', absoluteTimeout: '1h' },
      async end({ rig }) {
        rig.clock.advance(HOUR / 2)
        await rig.ask((s) => s.touch())
        rig.clock.advance(HOUR / 2)
        return rig.manager.cleanUp()
      },
    },
  }

  test.each(Object.entries(ENDS))('is over with the session by %s', async (_way, { options, end }) => {
    const place = await start(options)
    await place.rig.ask((s) => s.login('ann'))
    const code = await offering(place)
    const id = idOf(place.rig.client)
    await end(place, id)
    await place.handoff.settled()
    expect(await notesOf(place, code, id)).toEqual([null, null])
    expect(await place.rig.ask((s) => place.handoff.offered(s))).toBeUndefined()
    expect(await accept(place, code)).toBe(false)
  })

  test('an offer of a session that ends meanwhile leaves nothing behind', async () => {
    const place = await start()
    await offering(place)
    const id = idOf(place.rig.client)
    const refused = place.rig.ask(async (s) => {
      // Read before the end, offered after it.
      s.get('basket')
      await place.rig.manager.revoke(id)
      await place.handoff.settled()
      await place.handoff.offer(s)
    })
    expect((await refusal(refused)).code).toBe('SESSION_ENDED')
    expect(await place.rig.manager.notes.get('handoff-offers', id)).toBeNull()
  })

  function notesOf({ rig }: Place, code: string, id: string): Promise<(string | null)[]> {
    const { notes } = rig.manager
    return Promise.all([notes.get('handoff-codes', code), notes.get('handoff-offers', id)])
  }
})
