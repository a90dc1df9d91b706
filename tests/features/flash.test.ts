// What is kept for the next request that takes it: `sojourn/flash`.
import { describe, expect, test } from '@jest/globals'
import type { Session } from 'sojourn'
import { flash, takeFlash } from 'sojourn/flash'
import { GROUNDS, Rig, refusal, useGround } from '../support/rig.js'

describe.each(GROUNDS)('flash, on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  const take = (s: Session): Promise<unknown> => takeFlash(s, 'notice')

  test('a value is taken once, and is none of the fields', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => flash(s, 'notice', 'Saved.'))
    expect(await rig.ask((s) => [{ ...s }, s.keys(), s.has('flash')])).toEqual([{}, [], false])
    expect(await rig.ask(take)).toBe('Saved.')
    expect(await rig.ask(take)).toBeUndefined()
  })

  test('of 20 requests at once, in two processes, one takes it', async () => {
    const rig = await Rig.start(ground)
    const other = await Rig.start(ground, {}, rig.clock)
    await rig.ask((s) => flash(s, 'notice', 'once'))
    const taken = await Promise.all(
      Array.from({ length: 20 }, (_, n) => {
        const there = n % 2 === 0 ? rig : other
        return there.ask(take, there.stranger(rig.client.cookies))
      }),
    )
    expect(taken.filter((value) => value !== undefined)).toEqual(['once'])
  })

  test('names stand beside each other, and the later value of one name counts', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => {
      flash(s, 'notice', 'first')
      flash(s, 'notice', 'second')
      flash(s, 'error', 'bad')
    })
    expect(await rig.ask((s) => takeFlash(s, 'error'))).toBe('bad')
    expect(await rig.ask(take)).toBe('second')
  })

  test('it can be taken in the request that flashed it, and goes along with a login', async () => {
    const rig = await Rig.start(ground)
    expect(
      await rig.ask(async (s) => {
        flash(s, 'notice', 'now')
        return [await take(s), await take(s)]
      }),
    ).toEqual(['now', undefined])
    await rig.ask((s) => flash(s, 'notice', 'Welcome.'))
    await rig.ask((s) => s.login('ann'))
    expect(await rig.ask(take)).toBe('Welcome.')
  })

  test('with a time to live it is gone after that, taken or not', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => flash(s, 'notice', 'late', { ttl: '1m' }))
    rig.clock.advance(60_000)
    expect(await rig.ask(take)).toBeUndefined()
  })

  test('where nothing was flashed no store is asked, and no session begins', async () => {
    const rig = await Rig.start(ground)
    expect(await rig.ask(take)).toBeUndefined()
    expect(rig.client.cookies.size).toBe(0)
    expect(rig.store.calls).toMatchObject({ get: 0, create: 0, update: 0 })
  })

  test('a name that is none is refused', async () => {
    const rig = await Rig.start(ground)
    expect((await refusal(rig.ask((s) => flash(s, 'n'.repeat(101), 1)))).code).toBe('INVALID_ARGUMENT')
  })
})
