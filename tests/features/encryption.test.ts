// Fields that only the application can read: what a dump shows, what cannot be moved, and how keys change.
import { createSecretKey, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, test } from '@jest/globals'
import { jsonCodec, type ReencryptProgress, type SessionData, type SessionStore } from 'sojourn'
import { type EncryptionKeys, type EncryptionOptions, encrypted } from 'sojourn/encryption'
import { inside } from 'sojourn/inside'
import { closeRigs, GROUNDS, idOf, Rig, type RigOptions, useGround } from '../support/rig.js'

const newKey = (): string => randomBytes(32).toString('base64')
const KEY = newKey()
const NEW_KEY = newKey()
const MARKER = 'a marker that no dump may show'

describe.each(GROUNDS)('in %s', (_name, make) => {
  const ground = useGround(make)

  const start = (options: RigOptions = {}, keys: EncryptionKeys = KEY): Promise<Rig> =>
    Rig.start(ground, { codec: encrypted({ keys }), ...options })

  async function recordOf(rig: Rig, id = idOf(rig.client)): Promise<SessionData> {
    return (await rig.manager.store.get(id)) as SessionData
  }

  /** Puts texts into a record as somebody would who can write to the store. */
  async function tamper(rig: Rig, id: string, fields: Record<string, string | undefined>): Promise<void> {
    const { store } = rig.manager
    let record = (await store.get(id)) as SessionData
    for (const [name, text] of Object.entries(fields)) record = record.withField(name, text)
    await store.set(id, record, 1_000)
  }

  async function dumpOf(rig: Rig): Promise<string> {
    const dump = 'dump' in ground ? await (ground as { dump(): Promise<unknown> }).dump() : []
    return inspect([dump, (await recordOf(rig)).toJSON()], { depth: null, maxStringLength: null })
  }

  test('a dump shows no value, of a field, a drawer or the client, nor that two values are equal (ASVS 11.3.2)', async () => {
    const rig = await start({ codec: encrypted({ keys: KEY, clientContext: true }) })
    const headers = { 'user-agent': `Browser ${MARKER}`, referer: `https://example.org/${MARKER}` }
    await rig.ask(
      (session) => {
        session.set('one', MARKER)
        session.set('two', MARKER)
        inside(session).drawer<string>('acme.kept').set(MARKER)
      },
      rig.client,
      { headers },
    )
    expect(await dumpOf(rig)).not.toContain('marker')
    const { fields, context } = await recordOf(rig)
    const texts = [...fields].filter(([name]) => name !== 'sojourn::binding').map(([, text]) => text)
    expect(texts).toHaveLength(3)
    expect(new Set(texts).size).toBe(3)
    for (const text of [...texts, ...Object.values(context ?? {})]) expect(text).toMatch(/^e1\.[\w-]{6}\.[\w-]{38,}$/)

    const seen = { ip: expect.any(String), userAgent: headers['user-agent'], referrer: headers.referer }
    const read = await rig.ask((session) => ({
      fields: { ...session },
      drawer: inside(session).drawer('acme.kept').get(),
      context: session.metadata.context,
    }))
    expect(read).toMatchObject({ fields: { one: MARKER, two: MARKER }, drawer: MARKER, context: seen })
    const stored = await rig.manager.get(idOf(rig.client))
    expect(stored).toMatchObject({ fields: { one: MARKER, two: MARKER }, context: seen })
    expect(await rig.manager.drawers.find(idOf(rig.client), 'acme.kept')).toMatchObject({ value: MARKER })
    expect(await rig.manager.validate(idOf(rig.client), { userAgent: 'Another' })).toMatchObject({
      reason: 'security-violation',
      violation: 'user-agent',
    })
    await rig.ask((session) => session.login('ann'), rig.client, { headers })
    expect((await rig.manager.sessionsOf('ann'))[0]?.context).toMatchObject(seen)
    expect(await dumpOf(rig)).not.toContain('marker')
  })

  test('fields go along wherever they go: login, regenerate, restart, update, the manager, archive', async () => {
    const archived: unknown[] = []
    const rig = await start({
      archive: ({ fields }) => void archived.push(fields),
      initialFields: () => ({ lang: 'en' }),
    })
    await rig.ask((session) => session.set('goods', ['tea']))
    const binding = (await recordOf(rig)).fields.get('sojourn::binding')
    const read = (): Promise<object> => rig.ask((session) => ({ ...session }))
    await rig.ask((session) => session.login('ann', { fields: { role: 'editor' } }))
    expect(await read()).toEqual({ lang: 'en', goods: ['tea'], role: 'editor' })
    await rig.ask((session) => session.update('n', (n = 0) => Number(n) + 1))
    await rig.ask((session) => session.reauthenticate())
    await rig.ask((session) => session.renew())
    await rig.ask((session) => session.regenerate({ keep: true }))
    await rig.manager.update(idOf(rig.client), { note: 'from outside' })
    expect(await read()).toEqual({ lang: 'en', goods: ['tea'], role: 'editor', n: 1, note: 'from outside' })
    await rig.ask((session) => session.login('ann', { keep: ['goods'], fields: { role: 'reader' } }))
    expect(await read()).toEqual({ goods: ['tea'], role: 'reader' })
    expect((await recordOf(rig)).fields.get('sojourn::binding')).toBe(binding)
    await rig.ask((session) => session.restart())
    expect(await read()).toEqual({ lang: 'en' })
    // What begins afresh is bound to something else.
    await rig.ask((session) => session.login('bob', { fields: { role: 'guest' } }))
    expect(await read()).toEqual({ lang: 'en', role: 'guest' })
    expect((await recordOf(rig)).fields.get('sojourn::binding')).not.toBe(binding)
    await rig.ask(async (session, req) => {
      await session.regenerate()
      req.session.set('after', 1)
    })
    expect(await read()).toEqual({ lang: 'en', after: 1 })
    const made = await rig.manager.create({ fields: { job: 1 } })
    expect((await rig.manager.get(made.id))?.fields).toEqual({ job: 1 })
    rig.clock.advance(13 * 3_600_000)
    await rig.manager.cleanUp()
    expect(archived).toEqual(expect.arrayContaining([{ lang: 'en', after: 1 }, { job: 1 }]))
    expect(rig.heard('corruptRecord')).toEqual([])
  })

  test('a session that begins by its logical ID or an empty login binds what is set later', async () => {
    const rig = await start()
    await rig.ask(async (session) => {
      await session.login('ann', { keep: false })
      session.set('a', 1)
    })
    expect(await rig.ask((session) => session.get('a'))).toBe(1)
    const other = rig.stranger()
    await rig.ask(async (session) => {
      expect(session.logicalId).toEqual(expect.any(String))
      await session.save()
      session.set('b', 2)
    }, other)
    expect(await rig.ask((session) => session.get('b'), other)).toBe(2)
    expect((await recordOf(rig)).fields.has('sojourn::binding')).toBe(true)
    expect(rig.heard('corruptRecord')).toEqual([])
  })

  test('parallel requests of one session merge field by field, also those that set its first ones', async () => {
    const rig = await start()
    await rig.ask((session) => session.login('ann'))
    await Promise.all(
      Array.from({ length: 20 }, (_, index) => rig.ask((session) => session.set(`n${index}`, index), rig.client)),
    )
    const fields = await rig.ask((session) => ({ ...session }))
    expect(Object.keys(fields)).toHaveLength(20)
    expect(rig.heard('corruptRecord')).toEqual([])
  })

  test('a text that is moved, altered, cut, or not encrypted reads as absent, and is told (ASVS 11.3.3, 11.2.5)', async () => {
    const rig = await start()
    await rig.ask((session) => {
      session.set('a', 1)
      session.set('role', 'user')
    })
    const other = rig.stranger()
    await rig.ask((session) => session.set('role', 'admin'), other)
    const id = idOf(rig.client)
    const own = (await recordOf(rig)).fields
    const foreign = (await recordOf(rig, idOf(other))).fields.get('role') as string
    const text = own.get('role') as string
    const altered = text.slice(0, -3) + (text.at(-3) === 'A' ? 'B' : 'A') + text.slice(-2)
    const unknown = `e1.AAAAAA.${text.slice(10)}`
    for (const [wrong, why] of [
      [own.get('a'), 'altered, or moved'],
      [foreign, 'altered, or moved'],
      [altered, 'altered, or moved'],
      [text.slice(0, 20), 'cut off'],
      [text.slice(0, -1), 'altered, or moved'],
      ['"admin"', 'not encrypted'],
      ['', 'not encrypted'],
      [unknown, 'not among the keys'],
    ] as const) {
      await tamper(rig, id, { role: wrong })
      rig.told.length = 0
      expect(await rig.ask((session) => session.get('role'))).toBeUndefined()
      expect(rig.heard('corruptRecord')).toMatchObject([
        { id, field: 'role', cause: { code: 'CORRUPT_RECORD', message: expect.stringContaining(why) } },
      ])
      expect(await rig.ask((session) => session.get('a'))).toBe(1)
      // Set aside: it stays as it is until the field is set.
      expect((await recordOf(rig)).fields.get('role')).toBe(wrong)
    }
    await rig.ask((session) => session.set('role', 'user'))
    expect(await rig.ask((session) => session.get('role'))).toBe('user')
  })

  test('a read writes nothing, and a change writes the field that it is in and no other', async () => {
    const rig = await start()
    await rig.ask((session) => {
      session.set('small', { n: 1 })
      session.set('large', 'x'.repeat(20_000))
    })
    const before = (await recordOf(rig)).fields
    rig.told.length = 0
    await rig.ask((session) => ({ ...session }))
    expect(rig.heard('committed')).toEqual([])
    expect((await recordOf(rig)).fields).toEqual(before)
    await rig.ask((session) => {
      const small = session.get('small') as { n: number }
      small.n++
    })
    const after = (await recordOf(rig)).fields
    expect(after.get('large')).toBe(before.get('large'))
    expect(after.get('small')).not.toBe(before.get('small'))
  })

  test('texts() of a session can be set in another, and are encrypted on the way', async () => {
    const rig = await start()
    const texts = await rig.ask((session) => {
      session.set('a', MARKER)
      return inside(session).texts()
    })
    expect(texts.get('a')).toMatch(/^e1\./)
    const other = rig.stranger()
    await rig.ask((session) => inside(session).restore(texts), other)
    expect(await rig.ask((session) => session.get('a'), other)).toBe(MARKER)
    // As a text of a session they are worth nothing.
    await tamper(rig, idOf(other), { a: texts.get('a') })
    expect(await rig.ask((session) => session.get('a'), other)).toBeUndefined()
  })

  describe('keys', () => {
    /** The same sessions, in a process with other keys. */
    async function over(rig: Rig, options: Partial<EncryptionOptions> & { keys: EncryptionKeys }): Promise<Rig> {
      const store: SessionStore = rig.store
      const next = await Rig.start(ground, { store, codec: encrypted(options) }, rig.clock)
      next.client = next.stranger(rig.client.cookies)
      return next
    }

    test('the newest encrypts, all decrypt; a field is encrypted anew when it is written, and not before (ASVS 11.2.2)', async () => {
      const rig = await start()
      await rig.ask((session) => {
        session.set('a', 1)
        session.set('b', 1)
      })
      const old = (await recordOf(rig)).fields
      const both = await over(rig, { keys: [NEW_KEY, KEY] })
      expect(await both.ask((session) => [session.get('a'), session.get('b')])).toEqual([1, 1])
      expect((await recordOf(both)).fields).toEqual(old)
      await both.ask((session) => session.set('a', 2))
      const only = await over(both, { keys: NEW_KEY })
      expect(await only.ask((session) => [session.get('a'), session.get('b')])).toEqual([2, undefined])
      expect(only.heard('corruptRecord')).toMatchObject([{ field: 'b' }])
    })

    test('reencrypt() goes through all sessions, tells how far it is, and afterwards the old key may go', async () => {
      const rig = await start()
      const clients = Array.from({ length: 120 }, () => rig.stranger())
      for (const client of [rig.client, ...clients]) {
        await rig.ask((session) => {
          session.set('a', 1)
          session.set('b', [2])
        }, client)
      }
      await tamper(rig, idOf(rig.client), { broken: 'e1.AAAAAA.AAAA' })
      rig.clock.advance(60_000)
      const both = await over(rig, { keys: [NEW_KEY, KEY] })
      const accessedAt = (await recordOf(both)).lastAccessedAt
      const steps: ReencryptProgress[] = []
      const result = await both.manager.reencrypt({ onProgress: (progress) => void steps.push(progress) })
      expect(result).toEqual({ sessions: 121, rewritten: 242, unreadable: 1, failed: 0, isWhole: true })
      expect(steps.map(({ sessions }) => sessions)).toEqual([100, 121])
      expect(both.heard('corruptRecord')).toMatchObject([{ field: 'broken' }])
      expect((await recordOf(both)).lastAccessedAt).toBe(accessedAt)
      expect(await both.manager.reencrypt()).toMatchObject({ rewritten: 0, unreadable: 1 })
      const only = await over(both, { keys: NEW_KEY })
      for (const client of [rig.client, ...clients.slice(0, 5)]) {
        const read = await only.ask((session) => [session.get('a'), session.get('b')], only.stranger(client.cookies))
        expect(read).toEqual([1, [2]])
      }
    })

    test('reencrypt() overwrites nothing that a request writes meanwhile, and stops when it is told', async () => {
      const rig = await start()
      await rig.ask((session) => session.set('a', 1))
      const both = await over(rig, { keys: [NEW_KEY, KEY] })
      const { store } = both.manager
      const { update } = store
      let raced = false
      store.update = async (...args) => {
        if (!raced) {
          raced = true
          await both.ask((session) => session.set('a', 2))
        }
        return update.apply(store, args)
      }
      expect(await both.manager.reencrypt()).toMatchObject({ sessions: 1, rewritten: 0, failed: 0 })
      store.update = update
      expect(await both.ask((session) => session.get('a'))).toBe(2)
      const controller = new AbortController()
      controller.abort()
      expect(await both.manager.reencrypt({ signal: controller.signal })).toMatchObject({ sessions: 0, isWhole: false })
    })

    test('fields from before encryption are read until a set date, then never; reencrypt() encrypts them', async () => {
      const rig = await start({ codec: jsonCodec() })
      await rig.ask((session) => {
        session.set('a', MARKER)
        session.set('b', MARKER)
      })
      const strict = await over(rig, { keys: KEY })
      expect(await strict.ask((session) => session.get('a'))).toBeUndefined()
      const lenient = await over(rig, { keys: KEY, readPlainUntil: new Date(Date.now() + 600_000) })
      expect(await lenient.ask((session) => session.get('a'))).toBe(MARKER)
      await lenient.ask((session) => session.set('c', MARKER))
      expect(await lenient.manager.reencrypt()).toMatchObject({ rewritten: 2 })
      expect(await dumpOf(lenient)).not.toContain('marker')
      expect(await strict.ask((session) => ({ ...session }))).toEqual({ a: MARKER, b: MARKER, c: MARKER })
      const late = await over(rig, { keys: KEY, readPlainUntil: new Date(Date.now() - 1) })
      await tamper(late, idOf(rig.client), { a: '"forged"' })
      expect(await late.ask((session) => session.get('a'))).toBeUndefined()
    })
  })
})

describe('keys that are refused, with advice', () => {
  const letters = 'abcdefghijklmnopqrstuvwxyz012345'
  test.each<[string, unknown, RegExp]>([
    ['none', undefined, /keys\[0\] is missing.*openssl rand -base64 32/],
    ['an empty text', '', /keys is empty/],
    ['an empty list', [], /keys is empty/],
    ['null', null, /keys\[0\] is of type null/],
    ['a number', 5, /keys\[0\] is of type number/],
    ['a password', 'correct horse', /has \d+ bytes/],
    ['a short key', randomBytes(16).toString('base64'), /keys\[0\] has 16 bytes/],
    ['a long one behind a good one', [KEY, randomBytes(64)], /keys\[1\] has 64 bytes/],
    ['letters', Buffer.from(letters), /keys\[0\] has a pattern/],
    ['letters in base64', Buffer.from(letters).toString('base64'), /keys\[0\] has a pattern/],
    ['zeros', Buffer.alloc(32), /keys\[0\] has a pattern/],
    ['counting', Buffer.from(Array.from({ length: 32 }, (_, index) => 200 + index)), /keys\[0\] has a pattern/],
    ['one half twice', Buffer.concat(Array(2).fill(randomBytes(16))), /keys\[0\] has a pattern/],
    ['one key twice', [KEY, Buffer.from(KEY, 'base64')], /keys\[1\] is there twice/],
  ])('%s', (_name, keys, message) => {
    const make = (): unknown => encrypted({ keys: keys as EncryptionKeys })
    expect(make).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    expect(make).toThrow(message)
    if (typeof keys === 'string' && keys !== '') expect(make).not.toThrow(keys)
  })

  test('other options are checked, too', () => {
    const options = (rest: object): EncryptionOptions => ({ keys: KEY, ...rest }) as EncryptionOptions
    expect(() => encrypted(options({ key: 1 }))).toThrow(/no option "key"/)
    expect(() => encrypted(options({ readPlainUntil: 'soon' }))).toThrow(/not a valid Date/)
    expect(() => encrypted(options({ clientContext: 'yes' }))).toThrow(/not true or false/)
    expect(() => encrypted(options({ codec: encrypted({ keys: KEY }) }))).toThrow(/does not seal by itself/)
    expect(() => encrypted(undefined as never)).toThrow(/keys\[0\] is missing/)
  })
})

test('a key may be base64, base64url or hex text, bytes or a KeyObject, and a text may hold several', () => {
  const bytes = randomBytes(32)
  const sealed = encrypted({ keys: bytes }).seal?.('text', 'a') as string
  for (const keys of [
    bytes.toString('base64'),
    bytes.toString('base64url'),
    bytes.toString('hex').toUpperCase(),
    createSecretKey(bytes),
    new Uint8Array(bytes),
    [NEW_KEY, bytes],
    `${NEW_KEY}, ${bytes.toString('base64')}\n`,
  ]) {
    expect(encrypted({ keys }).open?.(sealed, 'a')).toBe('text')
  }
})

test('100,000 texts have as many nonces (ASVS 11.3.4)', () => {
  const codec = encrypted({ keys: KEY })
  const nonces = new Set<string>()
  for (let index = 0; index < 100_000; index++) nonces.add(codec.seal?.('', 'a').slice(10, 26) as string)
  expect(nonces.size).toBe(100_000)
})

test('no key is seen by who looks at the codec or at the settings', async () => {
  const codec = encrypted({ keys: KEY })
  const seen = inspect([codec, codec.forSession?.('x')], { showHidden: true, depth: null }) + JSON.stringify(codec)
  expect(seen).not.toContain(KEY.slice(0, 10))
  expect(seen).not.toContain(Buffer.from(KEY, 'base64').toString('hex').slice(0, 16))
})

test('reencrypt() needs a codec that says what is due', async () => {
  const [, make] = GROUNDS[0] as (typeof GROUNDS)[number]
  const ground = make()
  await ground.start()
  const rig = await Rig.start(ground)
  await expect(rig.manager.reencrypt()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' })
  await closeRigs()
})
