// Fields whose texts are sealed: what the store keeps, when that is made anew, and what cannot be opened.
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { afterEach, expect, test } from '@jest/globals'
import { jsonCodec, type SessionCodec } from 'sojourn'
import { closeRigs, GROUNDS, idOf, Rig } from '../support/rig.js'

/** Encrypts each text under a nonce of its own, bound to the name of its field, and counts. */
class Sealing {
  sealed = 0
  opened = 0
  readonly #key = randomBytes(32)
  readonly codec: SessionCodec = {
    ...jsonCodec(),
    seal: (text, name) => {
      this.sealed++
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(name))
      const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
      return Buffer.concat([nonce, body, cipher.getAuthTag()]).toString('base64url')
    },
    open: (text, name) => {
      this.opened++
      const bytes = Buffer.from(text, 'base64url')
      const cipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, 12)).setAAD(Buffer.from(name))
      cipher.setAuthTag(bytes.subarray(-16))
      return Buffer.concat([cipher.update(bytes.subarray(12, -16)), cipher.final()]).toString('utf8')
    },
  }
}

const ground = (GROUNDS[0] as (typeof GROUNDS)[number])[1]()
afterEach(closeRigs)

async function begin(): Promise<{ rig: Rig; sealing: Sealing }> {
  await ground.reset()
  const sealing = new Sealing()
  const rig = await Rig.start(ground, { codec: sealing.codec })
  await rig.ask((session) => {
    session.set('name', 'ann')
    session.set('goods', [{ id: 1 }])
    session.set('n', 1)
  })
  return { rig, sealing }
}

async function textsOf(rig: Rig): Promise<ReadonlyMap<string, string>> {
  return (await rig.manager.store.get(idOf(rig.client)))?.fields ?? new Map()
}

test('the store keeps sealed texts, and everybody reads what was set', async () => {
  const { rig } = await begin()
  // Nonce and tag alone are 28 bytes. A search for parts of the values would find them by chance now and then.
  for (const text of (await textsOf(rig)).values()) expect(text).toMatch(/^[\w-]{38,}$/)
  expect(await rig.ask((session) => ({ ...session }))).toEqual({ name: 'ann', goods: [{ id: 1 }], n: 1 })
  expect((await rig.manager.get(idOf(rig.client)))?.fields).toEqual({ name: 'ann', goods: [{ id: 1 }], n: 1 })
})

test('a field is opened when it is touched and sealed once when it has changed, the others stay as they are', async () => {
  const { rig, sealing } = await begin()
  const before = await textsOf(rig)
  Object.assign(sealing, { sealed: 0, opened: 0 })
  await rig.ask((session) => {
    const goods = session.get('goods') as { id: number }[]
    goods.push({ id: 2 })
    expect(session.isModified).toBe(true)
  })
  expect([sealing.opened, sealing.sealed]).toEqual([1, 1])
  const after = await textsOf(rig)
  expect(after.get('name')).toBe(before.get('name'))
  expect(after.get('n')).toBe(before.get('n'))
  expect(after.get('goods')).not.toBe(before.get('goods'))
})

test('reading writes nothing, and neither does setting what is there', async () => {
  const { rig, sealing } = await begin()
  const before = await textsOf(rig)
  const updates = rig.store.calls.update
  sealing.sealed = 0
  await rig.ask((session) => {
    session.get('goods')
    session.set('n', 1)
    session.set('goods', [{ id: 1 }])
  })
  expect(sealing.sealed).toBe(0)
  expect(rig.store.calls.update).toBe(updates)
  expect(await textsOf(rig)).toEqual(before)
})

test('update(), restart(), login() and a schema work on what was sealed', async () => {
  const { rig } = await begin()
  expect(
    await Promise.all([1, 2, 3].map(() => rig.ask((session) => session.update('n', (n) => Number(n) + 1)))),
  ).toEqual(expect.arrayContaining([2, 3, 4]))
  await rig.ask((session) => session.login('ann'))
  expect(await rig.ask((session) => ({ ...session }))).toEqual({ name: 'ann', goods: [{ id: 1 }], n: 4 })
  await rig.ask((session) => session.restart())
  expect(await rig.ask((session) => ({ ...session }))).toEqual({})
})

test('initial fields are sealed as others are', async () => {
  await ground.reset()
  const { codec } = new Sealing()
  const rig = await Rig.start(ground, { codec, initialFields: () => ({ theme: 'dark' }) })
  expect(await rig.ask((session) => session.get('theme'))).toBe('dark')
  await rig.ask((session) => session.set('n', 1))
  expect(await rig.ask((session) => ({ ...session }))).toEqual({ theme: 'dark', n: 1 })
  await rig.ask((session) => session.restart())
  expect(await rig.ask((session) => ({ ...session }))).toEqual({ theme: 'dark' })
})

test('a text that was moved to another field is set aside, told, and can be replaced or deleted', async () => {
  const { rig } = await begin()
  const record = await rig.manager.store.get(idOf(rig.client))
  if (record === null) throw new Error('no record')
  const name = record.fields.get('name') as string
  await rig.manager.store.set(record.id, record.withField('goods', name).withField('n', name), 600)
  const told: unknown[] = []
  rig.manager.events.on('corruptRecord', ({ field }) => told.push(field))

  expect(await rig.ask((session) => [session.get('goods'), session.get('name')])).toEqual([undefined, 'ann'])
  expect(told).toEqual(['goods'])
  await rig.ask((session) => {
    session.set('goods', [])
    session.delete('n')
  })
  expect(await rig.ask((session) => ({ ...session }))).toEqual({ name: 'ann', goods: [] })
  expect([...(await textsOf(rig)).keys()].sort()).toEqual(['goods', 'name'])
})

test('without seal() and open() nothing is asked of them', async () => {
  await ground.reset()
  const rig = await Rig.start(ground)
  await rig.ask((session) => session.set('name', 'ann'))
  expect((await textsOf(rig)).get('name')).toBe('"ann"')
})
