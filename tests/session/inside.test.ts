// What features may do with a session: drawers that the application does not see, fields as texts, keys, and its logical ID.
import { createHmac, hkdfSync, type KeyObject } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, test } from '@jest/globals'
import { type Activity, type Session, type SessionCodec, session as sessions } from 'sojourn'
import { type Drawer, INSIDE, inside } from 'sojourn/inside'
import { z } from 'zod'
import { OTHER_SECRET, SECRET } from '../support/http.js'
import { GROUNDS, idOf, MemoryGround, Rig, refusal, useGround } from '../support/rig.js'

const drawerOf = (session: Session): Drawer<number[]> => inside(session).drawer<number[]>('acme.list')

describe.each(GROUNDS)('a drawer, on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  test('is stored with the response, and a change inside of its value is noticed', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => drawerOf(s).set([1]))
    await rig.ask((s) => drawerOf(s).get()?.push(2))
    expect(await rig.ask((s) => drawerOf(s).get())).toEqual([1, 2])
    expect(await rig.ask((s) => drawerOf(s).delete())).toBe(true)
    expect(await rig.ask((s) => [drawerOf(s).get(), drawerOf(s).delete()])).toEqual([undefined, false])
  })

  test('is seen by nothing that shows the fields', async () => {
    const archived: unknown[] = []
    const rig = await Rig.start(ground, { archive: ({ fields }) => void archived.push(fields) })
    await rig.ask((s) => {
      s.set('own', 1)
      drawerOf(s).set([1])
    })
    const id = idOf(rig.client)
    const seen = await rig.ask((s) => ({
      keys: s.keys(),
      values: s.values(),
      entries: s.entries(),
      ownKeys: Object.keys(s),
      spread: { ...s },
      json: JSON.parse(JSON.stringify(s)),
      forIn: namesIn(s),
      texts: [...inside(s).texts()],
      text: inspect(s),
    }))
    expect(seen).toEqual({
      keys: ['own'],
      values: [1],
      entries: [['own', 1]],
      ownKeys: ['own'],
      spread: { own: 1 },
      json: { own: 1 },
      forIn: ['own'],
      texts: [['own', '1']],
      text: `Session ${id} { own }`,
    })
    const schema = z.looseObject({ own: z.number() })
    expect(await rig.ask((s) => ({ ...s.typed(schema) }))).toEqual({ own: 1 })
    expect((await rig.manager.get(id))?.fields).toEqual({ own: 1 })
    rig.clock.advance(24 * 3_600_000)
    await rig.manager.cleanUp()
    expect(archived).toEqual([{ own: 1 }])
  })

  test('of parallel requests merges as a field does: different ones all stay, and update() loses nothing', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.set('own', 1))
    const counter = (s: Session): Drawer<number> => inside(s).drawer('acme.counter')
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        rig.ask(async (s) => {
          inside(s).drawer(`acme.${n}`).set(n)
          await counter(s).update((count = 0) => count + 1)
        }),
      ),
    )
    expect(await rig.ask((s) => counter(s).get())).toBe(20)
    const kept = await rig.ask((s) => Array.from({ length: 20 }, (_, n) => inside(s).drawer(`acme.${n}`).get()))
    expect(kept).toEqual(Array.from({ length: 20 }, (_, n) => n))
  })

  test('goes where all fields go, and no further', async () => {
    const WAYS: Record<string, { go: (s: Session) => unknown; stays: boolean }> = {
      'clear()': { go: (s) => s.clear(), stays: true },
      'restart()': { go: (s) => s.restart(), stays: true },
      'renew()': { go: (s) => s.renew(), stays: true },
      'login()': { go: (s) => s.login('ann'), stays: true },
      'reauthenticate()': { go: (s) => s.login('ann').then(() => s.reauthenticate()), stays: true },
      'regenerate({ keep: true })': { go: (s) => s.regenerate({ keep: true }), stays: true },
      'regenerate({ keep: [own] })': { go: (s) => s.regenerate({ keep: ['own'] }), stays: false },
      'regenerate()': { go: (s) => s.regenerate(), stays: false },
      'logout()': { go: (s) => s.logout(), stays: false },
      'destroy()': { go: (s) => s.destroy(), stays: false },
    }
    for (const [way, { go, stays }] of Object.entries(WAYS)) {
      for (const isStored of [true, false]) {
        const rig = await Rig.start(ground)
        const fill = (s: Session): void => {
          s.set('own', 1)
          drawerOf(s).set([1])
        }
        if (isStored) await rig.ask(fill)
        // reauthenticate() and its like need a session that is stored; login() stores it.
        await rig.ask(async (s, req) => {
          if (!isStored) fill(s)
          await go(s)
          if (way !== 'destroy()') req.session.set('after', 1)
        })
        const kept = await rig.ask((s) => drawerOf(s).get())
        expect({ way, isStored, kept }).toEqual({ way, isStored, kept: stays ? [1] : undefined })
        await rig.close()
      }
    }
  })

  test('counts towards the limits, and what is too large for them leaves the old value', async () => {
    const rig = await Rig.start(ground, { limits: { maxBytes: 1_000, maxFields: 2 } })
    await rig.ask((s) => {
      s.set('own', 1)
      drawerOf(s).set([1])
    })
    expect((await refusal(rig.ask((s) => s.set('third', 1)))).code).toBe('SESSION_TOO_LARGE')
    expect((await refusal(rig.ask((s) => inside(s).drawer('acme.third').set(1)))).code).toBe('SESSION_TOO_LARGE')
    const large = rig.ask((s) => inside(s).drawer('acme.list').set('x'.repeat(1_000)))
    expect((await refusal(large)).code).toBe('SESSION_TOO_LARGE')
    expect(await rig.ask((s) => drawerOf(s).get())).toEqual([1])
  })
})

describe('the names of drawers', () => {
  const ground = useGround(() => new MemoryGround())
  const NAME = 'sojourn:acme.list'

  test.each([
    ['set()', (s: Session) => s.set(NAME, 1)],
    ['delete()', (s: Session) => s.delete(NAME)],
    ['update()', (s: Session) => s.update(NAME, () => 1)],
    ['an assignment', (s: Session) => Object.assign(s, { [NAME]: 1 })],
    ['delete as a property', (s: Session) => delete (s as unknown as Record<string, unknown>)[NAME]],
    ['defineProperty', (s: Session) => Object.defineProperty(s, NAME, { value: 1 })],
    ['typed()', (s: Session) => Object.assign(s.typed(z.looseObject({})), { [NAME]: 1 })],
    ['restore()', (s: Session) => inside(s).restore(new Map([[NAME, '1']]))],
  ])('cannot be written by an application: %s says so', async (_way, write) => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => drawerOf(s).set([1]))
    const error = await refusal(rig.ask((s) => write(s) as unknown))
    expect(error).toMatchObject({ code: 'INVALID_FIELD', message: expect.stringContaining('"sojourn:"') })
    expect(await rig.ask((s) => drawerOf(s).get())).toEqual([1])
  })

  test('nor by initialFields or the manager', async () => {
    const rig = await Rig.start(ground, { initialFields: () => ({ [NAME]: 1 }) })
    expect((await refusal(rig.ask(() => {}))).code).toBe('INVALID_FIELD')
    await rig.close()
    const other = await Rig.start(ground)
    const { manager, client } = other
    expect((await refusal(manager.create({ fields: { [NAME]: 1 } }))).code).toBe('INVALID_FIELD')
    await other.ask((s) => drawerOf(s).set([1]))
    expect((await refusal(manager.update(idOf(client), { [NAME]: 1 }))).code).toBe('INVALID_FIELD')
    expect(await manager.update(idOf(client), { own: 1 })).toBe(true)
    expect(await other.ask((s) => drawerOf(s).get())).toEqual([1])
  })

  test('read as no field of the application', async () => {
    const rig = await Rig.start(ground)
    const seen = await rig.ask((s) => {
      drawerOf(s).set([1])
      const fields = s as unknown as Record<string, unknown>
      return [
        s.get(NAME),
        s.get(NAME, 7),
        s.has(NAME),
        NAME in s,
        fields[NAME],
        Object.getOwnPropertyDescriptor(s, NAME),
      ]
    })
    expect(seen).toEqual([undefined, 7, false, false, undefined, undefined])
  })

  test('are text of 1 to 100 characters', async () => {
    const rig = await Rig.start(ground)
    for (const name of ['', 'x'.repeat(101), '\ud800', 7, undefined] as string[]) {
      expect((await refusal(rig.ask((s) => void inside(s).drawer(name)))).code).toBe('INVALID_ARGUMENT')
      expect((await refusal(rig.ask((s) => void inside(s).keys(name)))).code).toBe('INVALID_ARGUMENT')
    }
  })
})

describe('the rest of the inside', () => {
  const ground = useGround(() => new MemoryGround())

  test('texts() are the fields as they are now, and restore() sets them in another session', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => {
      s.set('books', ['book'])
      s.set('gone', 1)
    })
    const texts = await rig.ask((s) => {
      s.set('name', 'Ann')
      s.delete('gone')
      ;(s.get('books') as string[]).push('pen')
      return inside(s).texts()
    })
    expect(Object.fromEntries(texts)).toEqual({ books: '["book","pen"]', name: '"Ann"' })
    const other = rig.stranger()
    await rig.ask((s) => {
      s.set('name', 'Bob')
      s.set('stays', true)
    }, other)
    await rig.ask((s) => inside(s).restore(texts), other)
    expect(await rig.ask((s) => ({ ...s }), other)).toEqual({ books: ['book', 'pen'], name: 'Ann', stays: true })
  })

  test('restore() sets nothing when one of the texts is not of the codec', async () => {
    const rig = await Rig.start(ground)
    const restore = rig.ask((s) => {
      const texts = new Map([
        ['good', '1'],
        ['bad', '{'],
      ])
      expect(() => inside(s).restore(texts)).toThrow()
      return s.keys()
    })
    expect(await restore).toEqual([])
  })

  test('texts() and restore() go through the codec of the application', async () => {
    const codec: SessionCodec = {
      encode: (value) => `enc${JSON.stringify(value)}`,
      decode: (text) => JSON.parse(text.slice(3)),
    }
    const rig = await Rig.start(ground, { codec })
    const texts = await rig.ask((s) => {
      s.set('a', 1)
      return inside(s).texts()
    })
    expect([...texts]).toEqual([['a', 'enc1']])
    await rig.ask((s) => inside(s).restore(texts), rig.stranger())
    expect(await rig.ask((s) => s.get('a'))).toBe(1)
  })

  test('keys() are one for each secret, newest first, bound to the purpose and to the session', async () => {
    const rig = await Rig.start(ground, { secret: [SECRET, OTHER_SECRET] })
    const keysOf = (purpose: string, client = rig.client): Promise<string[]> =>
      rig.ask((s) => {
        s.set('n', 1)
        return inside(s).keys(purpose).map(exported)
      }, client)
    const first = await keysOf('acme.a')
    expect(first).toHaveLength(2)
    // RFC 5869, by Node's own hand.
    const info = JSON.stringify(['acme.a', idOf(rig.client)])
    for (const [index, secret] of [SECRET, OTHER_SECRET].entries()) {
      expect(first[index]).toBe(Buffer.from(hkdfSync('sha256', secret, 'sojourn keys 1', info, 32)).toString('hex'))
    }
    expect(await keysOf('acme.a')).toEqual(first)
    const others = [...(await keysOf('acme.b')), ...(await keysOf('acme.a', rig.stranger()))]
    expect(new Set([...first, ...others]).size).toBe(6)
    await rig.ask((s) => s.login('ann'))
    expect(first).not.toEqual(expect.arrayContaining(await keysOf('acme.a')))

    // A new secret comes first; what the one before it signed is verified still.
    const rotated = await Rig.start(ground, { secret: ['new secret of thirty-two chars.!', SECRET] })
    const client = rotated.stranger(rig.client.cookies)
    const [signing, verifying] = await rotated.ask((s) => inside(s).keys('acme.a').map(exported), client)
    const before = await keysOf('acme.a')
    expect(before[0]).toBe(verifying)
    expect(before).not.toContain(signing)
  })

  test('sharedKeys() are the same in every session, one for each secret, and differ by purpose', async () => {
    const rig = await Rig.start(ground, { secret: [SECRET, OTHER_SECRET] })
    const read = (purpose: string): Promise<string[]> =>
      rig.ask((s) => inside(s).sharedKeys(purpose).map(exported), rig.stranger())
    const keys = await read('acme.form')
    expect(keys).toHaveLength(2)
    expect(new Set([...keys, ...(await read('acme.other'))]).size).toBe(4)
    expect(await read('acme.form')).toEqual(keys)
    expect(await rig.ask((s) => inside(s).keys('acme.form').map(exported)[0])).not.toBe(keys[0])
  })

  test('keys() sign and verify, and do not show what they are', async () => {
    const rig = await Rig.start(ground)
    const [key] = await rig.ask((s) => inside(s).keys('acme.a'))
    expect(
      createHmac('sha256', key as KeyObject)
        .update('x')
        .digest('hex'),
    ).toHaveLength(64)
    expect(inspect(key, { showHidden: true, depth: null })).not.toContain(exported(key as KeyObject))
    expect(JSON.stringify(key)).toBe('{}')
  })

  test('what depends on a session depends on its cookie; showing the logical ID does not', async () => {
    const rig = await Rig.start(ground)
    const varies = async (act: (s: Session) => unknown): Promise<boolean> => {
      await rig.ask((_s, req) => void act(req.session))
      return String(rig.answer?.headers['vary'] ?? '').includes('Cookie')
    }
    expect(await varies((s) => inside(s).showLogicalId())).toBe(false)
    expect(await varies((s) => inside(s).drawer('acme.a').get())).toBe(true)
    expect(await varies((s) => inside(s).keys('acme.a'))).toBe(true)
    expect(await varies((s) => inside(s).texts())).toBe(true)
  })

  test('showLogicalId() stores nothing, and is what session.logicalId says', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => inside(s).showLogicalId())
    expect(rig.client.cookies.size).toBe(0)
    const [shown, asked] = await rig.ask((s) => [inside(s).showLogicalId(), s.logicalId])
    expect(shown).toBe(asked)
  })

  test('recordActivity() tells the hook, with the logical ID kept or only shown', async () => {
    const told: Activity[] = []
    const rig = await Rig.start(ground, { activity: (activity) => void told.push(activity) })
    await rig.ask((s) => inside(s).recordActivity('acme.seen', { n: 1 }, { keepsLogicalId: false }))
    expect(rig.client.cookies.size).toBe(0)
    const activity = await rig.ask((s) => inside(s).recordActivity('acme.done'))
    expect(activity).toMatchObject({ type: 'acme.done', sessionId: idOf(rig.client), request: { path: '/' } })
    expect(told.map(({ type }) => type)).toEqual(expect.arrayContaining(['acme.seen', 'acme.done']))
    expect((await refusal(rig.ask((s) => inside(s).recordActivity('')))).code).toBe('INVALID_ARGUMENT')
    const silent = await Rig.start(ground)
    expect(await silent.ask((s) => inside(s).recordActivity('acme.done'))).toBeUndefined()
  })

  test('is found by one symbol, which no enumeration shows, and by nothing in what is no session', async () => {
    expect(INSIDE).toBe(Symbol.for('sojourn.inside'))
    const rig = await Rig.start(ground)
    const names = await rig.ask((s) => [Reflect.ownKeys(s), Object.getOwnPropertySymbols(s), INSIDE in s])
    expect(names).toEqual([[], [], false])
    for (const thing of [{}, null, undefined, 'text', sessions] as object[]) {
      expect(() => inside(thing)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    }
  })

  test('of a session whose store is out of reach reads, and does not write', async () => {
    const rig = await Rig.start(ground, { onStoreError: 'anonymous' })
    await rig.ask((s) => drawerOf(s).set([1]))
    rig.store.fail({ kind: 'error', operations: ['get'] })
    expect(await rig.ask((s) => drawerOf(s).get())).toBeUndefined()
    expect((await refusal(rig.ask((s) => drawerOf(s).set([2])))).code).toBe('SESSION_READ_ONLY')
    rig.store.repair()
    expect(await rig.ask((s) => drawerOf(s).get())).toEqual([1])
  })
})

function exported(key: KeyObject): string {
  return key.export().toString('hex')
}

function namesIn(thing: object): string[] {
  const names: string[] = []
  for (const name in thing) names.push(name)
  return names
}

describe('the response, for features', () => {
  const ground = useGround(() => new MemoryGround())

  test('is told of before its head leaves, when all is stored, also the head of an error', async () => {
    const rig = await Rig.start(ground)
    for (const failing of [false, true]) {
      const asked = rig.ask(async (session, _req, res) => {
        inside(session).beforeHead(() => res.setHeader('X-User', String(session.metadata.userId)))
        await session.login('ann')
        if (failing) throw new Error('after the login')
      })
      await asked.catch(() => {})
      expect(rig.answer?.headers['x-user']).toBe('ann')
    }
    await rig.ask(() => {})
    expect(rig.answer?.headers['x-user']).toBeUndefined()
  })

  test('a request that a feature says is no activity does not keep the session alive, whatever it writes', async () => {
    const rig = await Rig.start(ground, { idleTimeout: '10m' })
    await rig.ask((session) => session.set('n', 0))
    const end = await rig.ask((session) => session.expiresAt.getTime())
    rig.clock.advance(5 * 60_000)
    await rig.ask(async (session) => {
      inside(session).passive()
      await inside(session)
        .drawer<number>('acme.count')
        .update((n = 0) => n + 1)
    })
    expect(
      await rig.ask((session) => {
        inside(session).passive()
        return session.expiresAt.getTime()
      }),
    ).toBe(end)
  })
})
