// State by category, with versions: `sojourn/state`.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Session } from 'sojourn'
import { type StateOptions, sessionState } from 'sojourn/state'
import superjson from 'superjson'
import * as v from 'valibot'
import { z } from 'zod'
import { closeRigs, GROUNDS, type Ground, idOf, Rig, refusal } from '../../support/rig.js'

const Form = z.object({
  name: z.string().optional(),
  tags: z.array(z.string()).optional(),
  age: z.coerce.number().optional(),
})
const OPTIONS = {
  categories: { form: Form, view: {}, draft: { ttl: '10m' }, cart: { until: 'login' }, order: { until: 'workflow' } },
  defaults: { view: { step: 1, panels: { left: true, right: false } } },
} as const

const stateOf = (session: Session) => sessionState(session, OPTIONS)
/** Without categories: any name, any value. */
const free = (session: Session, options: StateOptions = {}) => sessionState<Record<string, object>>(session, options)

describe.each(GROUNDS)('on %s', (_name, makeGround) => {
  let ground: Ground
  let rig: Rig
  beforeAll(async () => {
    ground = makeGround()
    await ground.start()
  })
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())

  describe('values', () => {
    test('a category is set by key or by a recipe, and read from the next request on', async () => {
      rig = await Rig.start(ground)
      const versions = await rig.ask(async (s) => {
        const state = stateOf(s)
        return [
          await state.update('form', 'name', 'Ann'),
          await state.update('form', (form) => {
            form.tags = ['new']
          }),
          await state.update('view', (view) => ({ ...view, step: 2 })),
          state.version,
        ]
      })
      expect(versions).toEqual([1, 2, 3, 3])
      expect(
        await rig.ask((s) => {
          const state = stateOf(s)
          return [state.get(), state.get('form'), state.get('form', 'name'), state.get('form', 'age'), state.version]
        }),
      ).toEqual([
        {
          form: { name: 'Ann', tags: ['new'] },
          view: { step: 2, panels: { left: true, right: false } },
          draft: {},
          cart: {},
          order: {},
        },
        { name: 'Ann', tags: ['new'] },
        'Ann',
        undefined,
        3,
      ])
    })

    test('reading begins no session, and nothing of it is a field', async () => {
      rig = await Rig.start(ground)
      expect(await rig.ask((s) => [stateOf(s).get('view'), stateOf(s).version])).toEqual([OPTIONS.defaults.view, 0])
      expect(rig.client.cookies.size).toBe(0)
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
      expect(await rig.ask((s) => [{ ...s }, s.keys()])).toEqual([{}, []])
    })

    test('defaults are not stored, and stand where nothing else was written', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update('view', 'step', 2))
      const fields = (await rig.manager.store.get(idOf(rig.client)))?.fields
      expect(fields?.get('sojourn:state.view')).toBe('{"d":{"step":2}}')
      await rig.ask((s) => stateOf(s).update('view', 'step', undefined))
      expect(await rig.ask((s) => stateOf(s).get('view'))).toEqual(OPTIONS.defaults.view)
    })

    test('what is read cannot be altered, what was given can, and neither changes what is stored', async () => {
      rig = await Rig.start(ground)
      const tags = ['a']
      await rig.ask(async (s) => {
        const state = stateOf(s)
        await state.update('form', 'tags', tags)
        tags.push('later')
        expect(() => (state.get('form', 'tags') as string[]).push('b')).toThrow(TypeError)
        expect(() => Object.assign(state.get('view', 'panels') as object, { left: false })).toThrow(TypeError)
      })
      expect(OPTIONS.defaults.view).toEqual({ step: 1, panels: { left: true, right: false } })
      expect(await rig.ask((s) => stateOf(s).get('form'))).toEqual({ tags: ['a'] })
    })

    test('a change that changes nothing makes no version and writes nothing', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
      const { update } = rig.store.calls
      expect(await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))).toBe(1)
      expect(await rig.ask((s) => stateOf(s).update('form', () => {}))).toBe(1)
      expect(rig.store.calls.update).toBe(update)
    })

    test.each([
      ['zod', Form],
      ['valibot', v.object({ name: v.optional(v.string()), age: v.optional(v.pipe(v.any(), v.transform(Number))) })],
    ])('a schema of %s judges what is written, and what it makes of that is kept', async (_library, form) => {
      rig = await Rig.start(ground)
      const of = (s: Session) => sessionState(s, { categories: { form } })
      await rig.ask((s) => of(s).update('form', 'age', '42' as unknown as number))
      const wrong = rig.ask(async (s) => {
        await of(s).update('form', 'name', 7 as unknown as string)
      })
      expect(await refusal(wrong)).toMatchObject({
        code: 'VALIDATION_FAILED',
        message: 'The category "form" does not fit its schema at name.',
      })
      expect(await rig.ask((s) => [of(s).get('form'), of(s).version])).toEqual([{ age: 42 }, 1])
    })

    test('values of a richer codec are kept, compared and undone as such', async () => {
      rig = await Rig.start(ground, { codec: { encode: superjson.stringify, decode: (text) => superjson.parse(text) } })
      const first = new Date('2026-01-01')
      await rig.ask((s) => free(s).update('form', 'at' as never, first as never))
      await rig.ask((s) => free(s).update('form', 'at' as never, new Date('2027-01-01') as never))
      expect(await rig.ask((s) => free(s).update('form', 'at' as never, new Date('2027-01-01') as never))).toBe(2)
      await rig.ask((s) => free(s).undo())
      expect(await rig.ask((s) => free(s).get('form'))).toEqual({ at: first })
    })

    test('keys that mean something to objects are keys', async () => {
      rig = await Rig.start(ground)
      const value = JSON.parse('{"__proto__":{"polluted":1},"constructor":2,"":3}') as object
      await rig.ask((s) => free(s).update('form', '__proto__' as never, value as never))
      await rig.ask((s) => free(s).update('form', () => ({})))
      await rig.ask((s) => free(s).undo())
      const read = await rig.ask((s) => free(s).get('form'))
      expect(JSON.stringify(read)).toBe('{"__proto__":{"__proto__":{"polluted":1},"constructor":2,"":3}}')
      expect(({} as { polluted?: number }).polluted).toBeUndefined()
    })
  })

  describe('undo and redo', () => {
    const KEYS = ['a', 'b', 'c']

    test('take changes back and forth, each as a version of its own', async () => {
      rig = await Rig.start(ground)
      for (const key of KEYS) await rig.ask((s) => free(s).update('form', key as never, key as never))
      const seen = async (act: (state: ReturnType<typeof free>) => Promise<number | null>): Promise<unknown[]> => {
        const version = await rig.ask((s) => act(free(s)))
        return rig.ask((s) => [
          version,
          Object.keys(free(s).get('form') as object).join(''),
          free(s).canUndo,
          free(s).canRedo,
        ])
      }
      expect(await seen((state) => state.undo())).toEqual([4, 'ab', true, true])
      expect(await seen((state) => state.undo())).toEqual([5, 'a', true, true])
      expect(await seen((state) => state.redo())).toEqual([6, 'ab', true, true])
      expect(await seen((state) => state.undo())).toEqual([7, 'a', true, true])
      expect(await seen((state) => state.undo())).toEqual([8, '', false, true])
      expect(await seen((state) => state.undo())).toEqual([null, '', false, true])
      for (const [version, keys] of [
        [9, 'a'],
        [10, 'ab'],
        [11, 'abc'],
      ]) {
        expect(await seen((state) => state.redo())).toEqual([version, keys, true, version !== 11])
      }
      expect(await seen((state) => state.redo())).toEqual([null, 'abc', true, false])
    })

    test('a change after an undo leaves nothing to redo', async () => {
      rig = await Rig.start(ground)
      for (const key of KEYS) await rig.ask((s) => free(s).update('form', key as never, key as never))
      await rig.ask((s) => free(s).undo())
      await rig.ask((s) => free(s).update('form', 'd' as never, 1 as never))
      expect(await rig.ask((s) => free(s).redo())).toBeNull()
      await rig.ask((s) => free(s).undo())
      await rig.ask((s) => free(s).undo())
      expect(await rig.ask((s) => free(s).get('form'))).toEqual({ a: 'a' })
    })

    test('restore goes to a version or a label, and can be undone', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
      await rig.ask((s) => stateOf(s).snapshot('ready'))
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Bob'))
      await rig.ask((s) => stateOf(s).update('view', 'step', 3))
      expect(await rig.ask((s) => stateOf(s).restore('ready'))).toBe(4)
      const read = (): Promise<unknown> =>
        rig.ask((s) => [stateOf(s).get('form', 'name'), stateOf(s).get('view', 'step')])
      expect(await read()).toEqual(['Ann', 1])
      await rig.ask((s) => stateOf(s).undo())
      expect(await read()).toEqual(['Bob', 3])
      expect(await rig.ask((s) => stateOf(s).restore(0))).toBe(6)
      expect(await read()).toEqual([undefined, 1])
      expect(await rig.ask((s) => stateOf(s).restore(2))).toBe(7)
      expect(await read()).toEqual(['Bob', 1])
      expect(
        await rig.ask((s) => [stateOf(s).restore(99), stateOf(s).restore('none')]).then((all) => Promise.all(all)),
      ).toEqual([null, null])
      expect(await rig.ask((s) => stateOf(s).restore(7))).toBe(7)
    })

    test('the history says when, what and who', async () => {
      rig = await Rig.start(ground)
      const start = rig.clock.now()
      await rig.ask((s) => stateOf(s).update('form', (form) => void Object.assign(form, { name: 'Ann', age: 1 })))
      rig.clock.advance(1000)
      await rig.ask((s) => s.login('ann'))
      await rig.ask((s) => stateOf(s).update('view', 'step', 2))
      await rig.ask((s) => stateOf(s).snapshot('here'))
      await rig.ask((s) => stateOf(s).undo({ by: 'support: eve' }))
      expect(await rig.ask((s) => stateOf(s).history())).toEqual([
        {
          version: 3,
          at: new Date(start + 1000),
          kind: 'undo',
          of: 2,
          by: 'support: eve',
          changed: [{ category: 'view', key: 'step' }],
          labels: [],
        },
        {
          version: 2,
          at: new Date(start + 1000),
          kind: 'update',
          of: undefined,
          by: 'ann',
          changed: [{ category: 'view', key: 'step' }],
          labels: ['here'],
        },
        {
          version: 1,
          at: new Date(start),
          kind: 'update',
          of: undefined,
          by: undefined,
          changed: [
            { category: 'form', key: 'name' },
            { category: 'form', key: 'age' },
          ],
          labels: [],
        },
      ])
    })
  })

  describe('at once', () => {
    const COUNT = 10

    test('requests in two processes that change at once get a version each, all in the history, and nothing is lost', async () => {
      rig = await Rig.start(ground)
      const other = await Rig.start(ground, {}, rig.clock)
      await rig.ask((s) => free(s).update('form', 'first' as never, 1 as never))
      const versions = await Promise.all(
        Array.from({ length: COUNT }, (_, n) => {
          const there = n % 2 === 0 ? rig : other
          return there.ask(
            (s) => free(s, { keep: 50 }).update(`category ${n % 3}`, `key ${n}` as never, n as never),
            there.stranger(rig.client.cookies),
          )
        }),
      )
      expect(versions.sort((a, b) => a - b)).toEqual(Array.from({ length: COUNT }, (_, n) => n + 2))
      const { values, history } = await rig.ask((s) => ({ values: free(s).get(), history: free(s).history() }))
      const { form: _form, ...others } = values as Record<string, object>
      expect(
        Object.values(others)
          .flatMap((value) => Object.values(value) as number[])
          .sort((a, b) => a - b),
      ).toEqual(Array.from({ length: COUNT }, (_, n) => n))
      expect(history.map(({ version }) => version)).toEqual(Array.from({ length: COUNT + 1 }, (_, n) => COUNT + 1 - n))
    })

    test('a recipe counts exactly, and undo takes back one change each', async () => {
      rig = await Rig.start(ground)
      const other = await Rig.start(ground, {}, rig.clock)
      await rig.ask((s) => s.set('x', 1))
      const each = (act: (s: Session) => unknown): Promise<unknown> =>
        Promise.all(
          Array.from({ length: COUNT }, (_, n) => {
            const there = n % 2 === 0 ? rig : other
            return there.ask(async (s) => void (await act(s)), there.stranger(rig.client.cookies))
          }),
        )
      const count = (draft: object): object => ({ n: ((draft as { n?: number }).n ?? 0) + 1 })
      await each((s) => free(s).update('form', count))
      expect(await rig.ask((s) => free(s).get('form'))).toEqual({ n: COUNT })
      await each((s) => free(s).undo())
      expect(await rig.ask((s) => [free(s).get('form'), free(s).version])).toEqual([{}, 2 * COUNT])
    })

    test('other fields that a request has read and changed are its own', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => s.set('a', 1).set('b', 1))
      await rig.ask(async (s) => {
        s.set('a', 2)
        await rig.ask(async (o) => {
          o.set('b', 2)
          await free(o).update('form', 'theirs' as never, 1 as never)
        }, rig.client)
        await free(s).update('form', 'ours' as never, 1 as never)
        expect(free(s).get('form')).toEqual({ theirs: 1, ours: 1 })
      })
      expect(await rig.ask((s) => [{ ...s }, free(s).version])).toEqual([{ a: 2, b: 2 }, 2])
    })

    test('a recipe that throws leaves all as it was', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
      await rig.ask(async (s) => {
        const failing = stateOf(s).update('form', (form) => {
          form.name = 'Bob'
          throw new Error('no')
        })
        await expect(failing).rejects.toThrow('no')
        expect(stateOf(s).get('form')).toEqual({ name: 'Ann' })
      })
      expect(await rig.ask((s) => [stateOf(s).get('form'), stateOf(s).version])).toEqual([{ name: 'Ann' }, 1])
    })

    test('a session that has ended takes no change', async () => {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
      const late = rig.ask(async (s) => {
        await rig.manager.revoke(s.id)
        await stateOf(s).update('form', 'name', 'Bob')
      })
      expect((await refusal(late)).code).toBe('SESSION_ENDED')
    })
  })

  describe('temporary categories', () => {
    const read = (name: 'draft' | 'cart' | 'order'): Promise<unknown> => rig.ask((s) => stateOf(s).get(name))
    async function fill(name: 'draft' | 'cart' | 'order'): Promise<void> {
      rig = await Rig.start(ground)
      await rig.ask((s) => stateOf(s).update(name, 'x', 'SECRET'))
      await rig.ask((s) => stateOf(s).update(name, 'x', 'LATER'))
      await rig.ask((s) => stateOf(s).update('form', 'name', 'Ann'))
    }
    /** Gone for reading, for undo, and with the next change from the store. */
    async function expectGone(name: 'draft' | 'cart' | 'order'): Promise<void> {
      expect(await read(name)).toEqual({})
      expect(
        await rig.ask((s) =>
          stateOf(s)
            .restore(1)
            .then(() => stateOf(s).get()),
        ),
      ).toMatchObject({ [name]: {}, form: {} })
      const fields = [...((await rig.manager.store.get(idOf(rig.client)))?.fields ?? [])]
      expect(JSON.stringify(fields)).not.toMatch(/SECRET|LATER/)
    }

    test('one with a time is gone that long after its last change, with what the history knows of it', async () => {
      await fill('draft')
      rig.clock.advance(599_999)
      expect(await read('draft')).toEqual({ x: 'LATER' })
      rig.clock.advance(1)
      await expectGone('draft')
    })

    test('one until the login is gone with it, and with the next', async () => {
      await fill('cart')
      await rig.ask((s) => s.regenerate({ keep: true }))
      expect(await read('cart')).toEqual({ x: 'LATER' })
      await rig.ask((s) => s.login('ann'))
      await expectGone('cart')
      await rig.ask((s) => stateOf(s).update('cart', 'x', 'again'))
      await rig.ask((s) => s.regenerate({ keep: true }))
      expect(await read('cart')).toEqual({ x: 'again' })
      rig.clock.advance(1)
      await rig.ask((s) => s.login('ann'))
      expect(await read('cart')).toEqual({})
    })

    test('one until the workflow ends is gone when that is complete, and not at the login', async () => {
      await fill('order')
      await rig.ask((s) => s.login('ann'))
      expect(await read('order')).toEqual({ x: 'LATER' })
      await rig.ask((s) => s.completeWorkflow())
      await expectGone('order')
    })
  })

  describe('cost', () => {
    const texts = async (): Promise<ReadonlyMap<string, string>> =>
      (await rig.manager.store.get(idOf(rig.client)))?.fields ?? new Map()
    const bytesOf = async (): Promise<number> =>
      [...(await texts())].reduce((sum, [name, text]) => sum + Buffer.byteLength(name) + Buffer.byteLength(text), 0)

    test('a history of 20 changes of one key in a state of 20 KB takes at most 2 KB', async () => {
      rig = await Rig.start(ground)
      const big = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`field ${n}`, 'x'.repeat(1000)]))
      await rig.ask((s) => s.login('b5a4c2de-3f1a-4f6e-9a53-0f8f6f1f0c11'))
      await rig.ask((s) =>
        free(s, { keep: 0 }).update('form', () => ({ ...big, deep: { step: 'step 0', list: [big] } })),
      )
      const before = await bytesOf()
      expect(before).toBeGreaterThan(20_000)
      for (let n = 1; n <= 20; n++) {
        await rig.ask((s) =>
          free(s).update('form', (form) => {
            ;(form as { deep: { step: string } }).deep.step = `step ${n}`
          }),
        )
      }
      expect(await rig.ask((s) => free(s).history().length)).toBe(20)
      expect((await bytesOf()) - before).toBeLessThanOrEqual(2048)
    })

    test('an item that joins or leaves a long list costs that item', async () => {
      rig = await Rig.start(ground)
      const list = Array.from({ length: 200 }, (_, id) => ({ id, name: `item ${id}` }))
      await rig.ask((s) => free(s, { keep: 0 }).update('form', () => ({ list })))
      const changes: ((items: { id: number; name: string }[]) => void)[] = [
        (items) => void items.push({ id: 200, name: 'last' }),
        (items) => void items.unshift({ id: -1, name: 'first' }),
        (items) => void items.splice(100, 1),
        (items) => void Object.assign(items[50] as object, { name: 'other' }),
      ]
      for (const change of changes) {
        await rig.ask((s) => free(s).update('form', (form) => change((form as { list: typeof list }).list)))
      }
      expect((await texts()).get('sojourn:state')?.length).toBeLessThan(400)
      await rig.ask((s) => free(s).restore(1))
      expect(await rig.ask((s) => free(s).get('form'))).toEqual({ list })
    })

    test('the bounds on versions and bytes hold, the oldest goes first', async () => {
      rig = await Rig.start(ground)
      const options: StateOptions = { keep: 5, maxBytes: 1000 }
      for (let n = 1; n <= 8; n++) await rig.ask((s) => free(s, options).update('form', 'n' as never, n as never))
      const versions = (): Promise<number[]> =>
        rig.ask((s) =>
          free(s)
            .history()
            .map(({ version }) => version),
        )
      expect(await versions()).toEqual([8, 7, 6, 5, 4])
      expect(await rig.ask((s) => free(s).restore(2))).toBeNull()
      expect(
        await rig.ask((s) =>
          free(s, options)
            .restore(3)
            .then(() => free(s).get('form')),
        ),
      ).toEqual({ n: 3 })
      await rig.ask((s) => free(s, options).update('form', 'big' as never, 'x'.repeat(940) as never))
      await rig.ask((s) => free(s, options).update('form', 'big' as never, 1 as never))
      expect(await versions()).toEqual([11])
      await rig.ask((s) => free(s, { ...options, maxBytes: 10 }).update('form', 'n' as never, 0 as never))
      expect(await rig.ask((s) => [free(s).canUndo, free(s).version])).toEqual([false, 12])
    })

    test('reading one category opens no other, nor the history; changing it opens the history', async () => {
      const opened: string[] = []
      const codec = {
        encode: JSON.stringify as (value: unknown) => string,
        decode(text: string, name: string): unknown {
          opened.push(name)
          return JSON.parse(text)
        },
      }
      rig = await Rig.start(ground, { codec })
      await rig.ask(async (s) => {
        await stateOf(s).update('form', 'name', 'Ann')
        await stateOf(s).update('view', 'step', 2)
      })
      opened.length = 0
      await rig.ask((s) => stateOf(s).get('form', 'name'))
      expect(new Set(opened)).toEqual(new Set(['sojourn:state.form']))
      await rig.ask((s) => stateOf(s).update('view', 'step', 3))
      expect(opened).not.toContain('sojourn:state.draft')
      const { update } = rig.store.calls
      await rig.ask((s) => stateOf(s).get())
      expect(rig.store.calls.update).toBe(update)
    })
  })

  test('what is wrong is told with what to do', async () => {
    rig = await Rig.start(ground)
    const message = async (act: (s: Session) => unknown): Promise<string> => {
      const { code, message: text } = await refusal(rig.ask(async (s) => void (await act(s))))
      return `${code}: ${text}`
    }
    const bad = (options: unknown) => (s: Session) => sessionState(s, options as StateOptions)
    expect(await message(bad({ keeps: 1 }))).toBe(
      'INVALID_OPTION: There is no option "keeps" of sessionState(). Did you mean keep?',
    )
    expect(await message(bad({ keep: 1.5 }))).toMatch(/^INVALID_OPTION: keep is 1.5; use a whole number/)
    expect(await message(bad({ categories: { form: 1 } }))).toMatch(/^INVALID_OPTION: categories.form is neither/)
    expect(await message(bad({ categories: { form: { until: 'friday' } } }))).toMatch(/use 'login' or 'workflow'/)
    expect(await message(bad({ categories: {}, defaults: { form: {} } }))).toMatch(/"form" that categories has not/)
    expect(await message((s) => stateOf(s).get('forms' as 'form'))).toBe(
      'INVALID_ARGUMENT: There is no category "forms". Did you mean form?',
    )
    expect(await message((s) => free(s).update('form', () => [] as never))).toMatch(/holds an object with keys/)
    expect(await message((s) => free(s).restore(-1))).toMatch(/^INVALID_ARGUMENT: restore\(\) takes/)
    expect(await message((s) => free(s).undo({ by: '' }))).toMatch(/^INVALID_ARGUMENT: by is text/)
    expect(await message((s) => free(s).snapshot(''))).toMatch(/^INVALID_ARGUMENT: A label/)
    expect(await message((s) => free(s).update('form', 'f' as never, (() => 1) as never))).toMatch(/^INVALID_VALUE/)
    expect(() => sessionState({} as Session)).toThrow('inside() needs a session')
  })
})
