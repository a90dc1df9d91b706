// Codecs of the application's: what has only been read is not written, whatever the texts look like.
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { SessionCodec } from 'sojourn'
import { closeRigs, GROUNDS, Rig } from '../support/rig.js'

const KEY = createHash('sha256').update('a key for tests').digest()

/** What anybody writes first: AES-GCM under a nonce that is drawn each time, bound to the field's name. */
const encrypting: SessionCodec = {
  encode(value, name) {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', KEY, nonce).setAAD(Buffer.from(name))
    const text = Buffer.concat([cipher.update(JSON.stringify(value)), cipher.final()])
    return Buffer.concat([nonce, cipher.getAuthTag(), text]).toString('base64')
  },
  decode(text, name) {
    const bytes = Buffer.from(text, 'base64')
    const cipher = createDecipheriv('aes-256-gcm', KEY, bytes.subarray(0, 12))
      .setAAD(Buffer.from(name))
      .setAuthTag(bytes.subarray(12, 28))
    return JSON.parse(Buffer.concat([cipher.update(bytes.subarray(28)), cipher.final()]).toString())
  },
}

interface Item {
  sku: string
  qty: number
}

describe.each(GROUNDS)('an encrypting codec, on %s', (_name, makeGround) => {
  const ground = makeGround()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  async function begun(): Promise<Rig> {
    const rig = await Rig.start(ground, { codec: encrypting, touchInterval: 3600 })
    await rig.ask((session) =>
      session
        .set('basket', [{ sku: 'a', qty: 1 }])
        .set('views', 1)
        .set('note', 'text'),
    )
    return rig
  }

  const writes = ({ store }: Rig): number => store.calls.update + store.calls.create

  test('reading writes nothing, be it objects or not', async () => {
    const rig = await begun()
    const before = writes(rig)
    for (let n = 0; n < 5; n++) {
      await rig.ask((session) => {
        expect({ ...session }).toEqual({ basket: [{ sku: 'a', qty: 1 }], views: 1, note: 'text' })
        expect(session.isModified).toBe(false)
      })
    }
    expect(writes(rig)).toBe(before)
  })

  test('nor does assigning what is there already', async () => {
    const rig = await begun()
    const before = writes(rig)
    await rig.ask((session) =>
      session
        .set('basket', [{ qty: 1, sku: 'a' }])
        .set('views', 1)
        .set('note', 'text'),
    )
    expect(writes(rig)).toBe(before)
  })

  test('a request that only reads undoes nothing that another one writes meanwhile', async () => {
    const rig = await begun()
    await rig.ask(async (session) => {
      expect(session.get('basket')).toHaveLength(1)
      await rig.ask((other) => (other.get('basket') as Item[])?.push({ sku: 'b', qty: 2 }))
    })
    expect(await rig.ask((session) => session.get('basket'))).toHaveLength(2)
  })

  test('a nested change is written, once, also when it is saved in between', async () => {
    const rig = await begun()
    const before = writes(rig)
    await rig.ask(async (session) => {
      Object.assign((session.get('basket') as Item[])?.[0] ?? {}, { qty: 3, at: new Date(0) })
      await session.save()
      expect(session.isModified).toBe(false)
    })
    expect(writes(rig)).toBe(before + 1)
    expect(await rig.ask((session) => session.get('basket'))).toEqual([
      { sku: 'a', qty: 3, at: '1970-01-01T00:00:00.000Z' },
    ])
  })

  test('a text that was moved to another field does not open there', async () => {
    const rig = await begun()
    const id = await rig.ask((session) => session.id)
    const record = await rig.store.get(id)
    if (record === null) throw new Error('There is no record.')
    await rig.store.set(id, record.withField('basket', record.fields.get('note')), 60)
    expect(await rig.ask((session) => [session.get('basket'), session.get('note')])).toEqual([undefined, 'text'])
    expect(rig.heard('corruptRecord')).toMatchObject([{ id, field: 'basket' }])
  })

  test('update() counts as ever', async () => {
    const rig = await begun()
    await Promise.all(
      Array.from({ length: 20 }, () => rig.ask((session) => session.update('n', (n) => Number(n ?? 0) + 1))),
    )
    expect(await rig.ask((session) => session.get('n'))).toBe(20)
  })
})

test('a codec that says that it is deterministic is asked for texts, not for copies', async () => {
  let decoded = 0
  const codec: SessionCodec = {
    isDeterministic: true,
    encode: (value) => JSON.stringify(value),
    decode: (text) => {
      decoded++
      return JSON.parse(text)
    },
  }
  const ground = GROUNDS[0]?.[1]()
  if (ground === undefined) throw new Error('There is no ground.')
  const rig = await Rig.start(ground, { codec })
  await rig.ask((session) => session.set('basket', [{ sku: 'a', qty: 1 }]))
  await rig.ask((session) => session.get('basket'))
  expect(decoded).toBe(1)
  await closeRigs()
})
