// What the manager is told of a client, and by what it knows it again; and of sessions that are asked for by a filter.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { closeRigs, GROUNDS, type Ground, Rig, refusal } from '../support/rig.js'

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground: Ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  describe('the context that create() is given', () => {
    test('is cut and cleaned as that of a request', async () => {
      const { manager } = await Rig.start(ground)
      const { context } = await manager.create({
        context: {
          ip: '::ffff:192.0.2.7',
          userAgent: `${'A'.repeat(300)}`,
          referrer: 'https://example.org/a\r\nb?token=secret',
          locale: '\u001b[31mde',
        },
      })
      expect(context).toEqual({
        ip: '192.0.2.7',
        userAgent: 'A'.repeat(256),
        referrer: 'https://example.org/a  b',
        locale: '[31mde',
      })
    })

    test('is that of the same client afterwards, however much it says of itself', async () => {
      const { manager } = await Rig.start(ground)
      const userAgent = `Browser\t${'x'.repeat(300)}`
      const { id } = await manager.create({ context: { userAgent } })
      expect(await manager.validate(id, { userAgent })).toMatchObject({ isValid: true })
    })
  })

  test('two ways to write an IPv6 address are one network, and another network is told', async () => {
    const { manager } = await Rig.start(ground)
    const isSame = async (then: string, now: string): Promise<boolean> => {
      const { id } = await manager.create({ context: { ip: then } })
      return (await manager.validate(id, { ip: now })).isValid
    }
    expect(await isSame('2001:0:2:3:4:5:6:7', '2001::2:3:4:5:6:7')).toBe(true)
    expect(await isSame('0:db8:1::1', '::db8:1:0:0:0:0:2')).toBe(true)
    expect(await isSame('2001:0:2::1', '2001::1')).toBe(false)
  })

  test('a filter that does not exist is refused: it would let all sessions through', async () => {
    const { manager } = await Rig.start(ground)
    await manager.create({ userId: 'ann' })
    const { code, message } = await refusal(manager.count({ user: 'bob' } as object))
    expect({ code, message }).toEqual({ code: 'INVALID_ARGUMENT', message: 'There is no filter "user".' })
  })
})
