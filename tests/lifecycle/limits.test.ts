// The bounds of a session hold whatever is written at once: what would pass them is refused, and nobody is harmed.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { closeRigs, GROUNDS, Rig, refusal } from '../support/rig.js'

describe.each(GROUNDS)('on %s', (_name, makeGround) => {
  const ground = makeGround()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  /** A logged-in client, and so many requests of it that have read the session before any of them writes. */
  async function atOnce(count: number, write: (rig: Rig, n: number) => Promise<void>): Promise<[Rig, string[]]> {
    const rig = await Rig.start(ground)
    await rig.login('ann')
    rig.client = await rig.login('ann')
    await rig.ask((session) => session.set('kept', 1))
    const outcomes = await Promise.all(
      Array.from({ length: count }, async (_unused, n) =>
        write(rig, n).then(
          () => 'stored',
          (error: { code: string }) => error.code,
        ),
      ),
    )
    return [rig, outcomes]
  }

  test('20 requests that write 900 KB each, into fields of their own: one is stored, the others are refused', async () => {
    let waiting = 0
    let go = (): void => {}
    const allHaveRead = new Promise<void>((resolve) => {
      go = resolve
    })
    const [rig, outcomes] = await atOnce(20, (each, n) =>
      each.ask(async (session) => {
        session.get('kept')
        if (++waiting === 20) go()
        await allHaveRead
        session.set(`f${n}`, 'x'.repeat(900_000))
      }),
    )
    expect(outcomes.filter((outcome) => outcome === 'stored')).toHaveLength(1)
    expect(outcomes.filter((outcome) => outcome === 'SESSION_TOO_LARGE')).toHaveLength(19)
    const after = await rig.ask((session) => [session.metadata.userId, session.get('kept'), session.keys().length])
    expect(after).toEqual(['ann', 1, 2])
    expect(rig.heard('corruptRecord', 'storeError')).toEqual([])
  })

  test('a login whose fields would not fit is refused, and the session before it goes on', async () => {
    const rig = await Rig.start(ground, { limits: { maxBytes: 1_000 } })
    await rig.ask((session) => session.set('basket', 'x'.repeat(600)))
    const refused = rig.ask(async (session) => {
      session.get('basket')
      await rig.ask((other) => other.set('other', 'y'.repeat(300)))
      session.set('mine', 'z'.repeat(300))
      await session.login('ann')
    })
    expect((await refusal(refused)).code).toBe('SESSION_TOO_LARGE')
    expect(await rig.ask((session) => [session.keys().sort(), session.metadata.userId])).toEqual([
      ['basket', 'other'],
      undefined,
    ])
    expect(await rig.manager.sessionsOf('ann')).toEqual([])
  })

  test('the manager is refused as a request is', async () => {
    const rig = await Rig.start(ground, { limits: { maxFields: 2 } })
    const { id } = await rig.manager.create({ fields: { a: 1, b: 2 } })
    expect((await refusal(rig.manager.update(id, { c: 3 }))).code).toBe('SESSION_TOO_LARGE')
    expect(await rig.manager.update(id, { a: undefined, c: 3 })).toBe(true)
  })

  test('a session of when the limits were higher is read, and may be made smaller', async () => {
    const before = await Rig.start(ground)
    await before.ask((session) => session.set('a', 'x'.repeat(2_000)).set('b', 'y'))
    const rig = await Rig.start(ground, { limits: { maxBytes: 1_000 } }, before.clock)
    const client = rig.stranger(before.client.cookies)
    expect((await refusal(rig.ask((session) => session.set('c', 1), client))).code).toBe('SESSION_TOO_LARGE')
    await rig.ask((session) => session.set('a', 'x'), client)
    expect(await rig.ask((session) => ({ ...session }), client)).toEqual({ a: 'x', b: 'y' })
  })
})
