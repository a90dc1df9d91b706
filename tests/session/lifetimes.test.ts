// Fields that are gone after a time: `session.set(name, value, { ttl })`.
import { describe, expect, test } from '@jest/globals'
import { jsonCodec, type Session, type SessionCodec } from 'sojourn'
import { inside } from 'sojourn/inside'
import superjson from 'superjson'
import { z } from 'zod'
import { GROUNDS, idOf, Rig, refusal, useGround } from '../support/rig.js'

/** Texts that begin like those of a field that ends, and are sealed anew each time. */
let nonce = 0
const TWISTED: SessionCodec = {
  encode: (value) => `~${superjson.stringify(value)}`,
  decode: (text) => superjson.parse(text.slice(1)),
  seal: (text) => `~~${nonce++}~${text}`,
  open: (text) => text.replace(/^~~\d+~/, ''),
}
const CODECS: [name: string, codec: SessionCodec][] = [
  ['JSON', jsonCodec()],
  ['a codec with a seal', TWISTED],
]

describe.each(GROUNDS)('on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  const fieldsOf = async (rig: Rig): Promise<string[]> => [
    ...((await rig.manager.store.get(idOf(rig.client)))?.fields.keys() ?? []),
  ]

  describe.each(CODECS)('with %s', (_codec, codec) => {
    test('a field is there until its time is over, and for nobody after', async () => {
      const rig = await Rig.start(ground, { codec })
      await rig.ask((s) => s.set('code', '1234', { ttl: '5m' }).set('name', 'ann'))
      rig.clock.advance(299_999)
      expect(await rig.ask((s) => ({ ...s }))).toEqual({ code: '1234', name: 'ann' })
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ code: '1234', name: 'ann' })
      rig.clock.advance(1)
      expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ name: 'ann' })
      const seen = await rig.ask((s) => [
        { ...s },
        s.keys(),
        s.get('code', 'none'),
        s.has('code'),
        'code' in s,
        s['code' as 'id'],
        JSON.stringify(s),
        [...inside(s).texts().keys()],
        s.isModified,
      ])
      expect(seen).toEqual([
        { name: 'ann' },
        ['name'],
        'none',
        false,
        false,
        undefined,
        '{"name":"ann"}',
        ['name'],
        false,
      ])
    })

    test('it is over within a request, too', async () => {
      const rig = await Rig.start(ground, { codec })
      await rig.ask(async (s) => {
        s.set('code', { n: 1 }, { ttl: 60 })
        await s.save()
        expect(s.get('code')).toEqual({ n: 1 })
        rig.clock.advance(60_000)
        expect([s.get('code'), s.has('code'), s.keys()]).toEqual([undefined, false, []])
      })
    })

    test('the same value with another end is written, and without an end stays', async () => {
      const rig = await Rig.start(ground, { codec })
      await rig.ask((s) => s.set('code', '1', { ttl: '1m' }))
      await rig.ask((s) => s.set('code', '1', { ttl: '10m' }))
      rig.clock.advance(300_000)
      expect(await rig.ask((s) => s.get('code'))).toBe('1')
      await rig.ask((s) => s.set('code', '1'))
      rig.clock.advance(600_000)
      expect(await rig.ask((s) => s.get('code'))).toBe('1')
      await rig.ask((s) => s.set('code', '1', { ttl: '1m' }))
      rig.clock.advance(60_000)
      expect(await rig.ask((s) => s.get('code'))).toBeUndefined()
    })

    test.each([
      ['update()', (s: Session) => s.update('tries', (n = [0]) => [...(n as number[]), 1])],
      ['a change inside', (s: Session) => (s.get('tries') as number[]).push(1)],
      ['a view through a schema', (s: Session) => s.typed(z.object({ tries: z.array(z.number()) })).tries.push(1)],
      ['login()', (s: Session) => s.login('ann')],
      ['texts and restore', (s: Session) => inside(s).restore(inside(s).texts())],
    ] as [string, (s: Session) => unknown][])('%s leaves the end as it is', async (_way, act) => {
      const rig = await Rig.start(ground, { codec })
      await rig.ask((s) => s.set('tries', [0], { ttl: '1m' }))
      rig.clock.advance(30_000)
      await rig.ask(act)
      expect(await rig.ask((s) => s.has('tries'))).toBe(true)
      rig.clock.advance(30_000)
      expect(await rig.ask((s) => s.get('tries'))).toBeUndefined()
    })

    test('it is compared as any field: what was only read is not written', async () => {
      const rig = await Rig.start(ground, { codec })
      await rig.ask((s) => s.set('code', { n: 1 }, { ttl: '1m' }))
      const before = rig.store.calls.update
      await rig.ask((s) => expect(s.get('code')).toEqual({ n: 1 }))
      await rig.ask(async (s) => {
        ;(s.get('code') as { n: number }).n = 2
        await s.save()
        expect(s.isModified).toBe(false)
      })
      expect(rig.store.calls.update - before).toBe(1)
    })
  })

  test('what is over is removed by the next write of a request that meets one', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.set('a', 1, { ttl: '1m' }).set('b', 1, { ttl: '1m' }).set('stays', 1))
    rig.clock.advance(60_000)
    await rig.ask((s) => s.set('c', 1, { ttl: '1m' }))
    expect((await fieldsOf(rig)).sort()).toEqual(['c', 'stays'])
  })

  test('a field that another request has set anew is not removed with it', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.set('a', 1, { ttl: '1m' }))
    rig.clock.advance(60_000)
    await rig.ask(async (s) => {
      s.set('b', 1, { ttl: '1m' })
      await rig.ask((other) => other.set('a', 2, { ttl: '1m' }), rig.client)
    })
    expect(await rig.ask((s) => ({ ...s }))).toEqual({ a: 2, b: 1 })
  })

  test('a lifetime that is none is refused, and the old value stays', async () => {
    const rig = await Rig.start(ground)
    const refused = rig.ask((s) => s.set('a', 1).set('a', 2, { ttl: 'soon' }))
    expect(await refusal(refused)).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining("'30m'") })
    const misspelt = rig.ask((s) => s.set('a', 2, { tll: 5 } as object))
    expect((await refusal(misspelt)).message).toBe('There is no option "tll" of set(). Did you mean ttl?')
  })
})
