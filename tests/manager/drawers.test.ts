// What features keep in sessions, read without a request: found by the ID of any session that it was in, said to be over only
// when it is for good, and missed by no walk through the store.
import { describe, expect, test } from '@jest/globals'
import { type Session, type SessionCodec, SessionManager } from 'sojourn'
import { inside } from 'sojourn/inside'
import { SECRET } from '../support/http.js'
import { collect, GROUNDS, idOf, Rig, refusal, useGround } from '../support/rig.js'

const NAME = 'acme.list'
const put = (session: Session, value: unknown): void => inside(session).drawer(NAME).set(value)

describe.each(GROUNDS)('drawers without a request, on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  test('are found by the ID of a session, and by IDs that it had before', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => put(s, [1]))
    const first = idOf(rig.client)
    await rig.ask((s) => s.login('ann'))
    await rig.ask((s) => s.regenerate({ keep: true }))
    const found = { status: 'live', id: idOf(rig.client), value: [1] }
    expect(await rig.manager.drawers.find(idOf(rig.client), NAME)).toEqual(found)
    expect(await rig.manager.drawers.find(first, NAME)).toEqual(found)
    expect(await rig.manager.drawers.find(first, 'acme.other')).toEqual({ ...found, value: undefined })
    expect(await collect(rig.manager.drawers.scan(NAME))).toContainEqual({ id: idOf(rig.client), value: [1] })
  })

  test('are changed without a request as one atomic step, also of a session that goes on under another ID', async () => {
    const rigs = [await Rig.start(ground), await Rig.start(ground)] as const
    const [rig] = rigs
    await rig.ask((s) => s.login('ann'))
    const id = idOf(rig.client)
    const end = await rig.ask((s) => s.expiresAt.getTime())
    rig.clock.advance(60_000)
    const add = (n = 0): number => n + 1
    await Promise.all(
      Array.from({ length: 20 }, async (_, n) => rigs[n % 2]?.manager.drawers.update<number>(id, NAME, add)),
    )
    expect(await rig.manager.drawers.find(id, NAME)).toEqual({ status: 'live', id, value: 20 })
    expect((await rig.manager.get(id))?.expiresAt.getTime()).toBe(end)
    expect(await rig.ask((s) => inside(s).drawer(NAME).get())).toBe(20)
    await rig.ask((s) => s.regenerate({ keep: true }))
    const now = idOf(rig.client)
    const changed = { status: 'live', id: now, value: 21, hasChanged: true }
    expect(await rig.manager.drawers.update<number>(id, NAME, add)).toEqual(changed)
    for (const nothing of [(n?: number) => n, () => undefined]) {
      expect(await rig.manager.drawers.update<number>(id, NAME, nothing)).toEqual({ ...changed, hasChanged: false })
    }
    await rig.ask((s) => s.logout())
    expect(await rig.manager.drawers.update<number>(id, NAME, add)).toMatchObject({
      status: 'ended',
      hasChanged: false,
    })
    const unknown = '00000000-0000-4000-8000-000000000000'
    expect(await rig.manager.drawers.update(unknown, NAME, () => 1)).toEqual({ status: 'absent', hasChanged: false })
  })

  test('are over with their session, and absent where there never was one', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => put(s, [1]))
    const id = idOf(rig.client)
    await rig.ask((s) => s.logout())
    expect(await rig.manager.drawers.find(id, NAME)).toMatchObject({ status: 'ended', end: { reason: 'logout' } })
    expect(await rig.manager.drawers.find('00000000-0000-4000-8000-000000000000', NAME)).toEqual({ status: 'absent' })
    expect(await collect(rig.manager.drawers.scan(NAME))).toEqual([])
  })

  test('of a session that ran out are over for good: no clock that is set back brings it back', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => put(s, [1]))
    const id = idOf(rig.client)
    rig.clock.advance(31 * 60_000)
    expect(await rig.manager.drawers.find(id, NAME)).toMatchObject({ status: 'ended', end: { reason: 'idle' } })
    rig.clock.advance(-31 * 60_000)
    expect(await rig.ask((s) => inside(s).drawer(NAME).get())).toBeUndefined()
  })

  test('of a session that is to be archived are there until that is done', async () => {
    const archived: unknown[] = []
    const rig = await Rig.start(ground, { archive: ({ id }) => void archived.push(id), cleanupInterval: 0 })
    await rig.ask((s) => put(s, [1]))
    const id = idOf(rig.client)
    rig.clock.advance(31 * 60_000)
    expect(await rig.manager.drawers.find(id, NAME)).toMatchObject({ status: 'live' })
    await rig.manager.cleanUp()
    expect(archived).toEqual([id])
    expect(await rig.manager.drawers.find(id, NAME)).toMatchObject({ status: 'ended' })
  })

  test('are not missed by a walk in which a session goes on under another ID', async () => {
    const rig = await Rig.start(ground)
    const clients = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const client = rig.stranger()
        await rig.ask((s) => put(s, n), client)
        return client
      }),
    )
    const seen = new Set<unknown>()
    let moved = 0
    for await (const { value } of rig.manager.drawers.scan(NAME)) {
      seen.add(value)
      for (const client of clients.slice(moved, moved + 3)) await rig.ask((s) => s.login('ann'), client)
      moved += 3
    }
    expect(seen).toEqual(new Set(clients.map((_, n) => n)))
  })

  test('that cannot be read are told, and passed for nothing', async () => {
    const open = { ...plainCodec(), open: (text: string) => text.slice(1), seal: (text: string) => `x${text}` }
    const rig = await Rig.start(ground, { codec: open })
    await rig.ask((s) => put(s, [1]))
    const id = idOf(rig.client)
    const lost: SessionCodec = {
      ...open,
      open() {
        throw new Error('no key')
      },
    }
    const manager = new SessionManager({ secret: SECRET, store: ground.store(), codec: lost, clock: rig.clock.now })
    expect(await manager.drawers.find(id, NAME)).toEqual({ status: 'unreadable' })
    expect((await refusal(collect(manager.drawers.scan(NAME)))).code).toBe('CORRUPT_RECORD')
    await manager.close()
  })
})

function plainCodec(): SessionCodec {
  return { encode: (value) => JSON.stringify(value), decode: (text) => JSON.parse(text) as unknown }
}
