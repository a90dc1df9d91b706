// What the default codec keeps, what it refuses, and how changes of fields merge with what is stored.
// Compares with node:assert: Jest's own comparison takes a key named "constructor" for the constructor.
import { deepStrictEqual } from 'node:assert/strict'
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { isSessionError, jsonCodec, type SessionError } from 'sojourn'
import { Fields } from '../../src/session/fields.js'

const codec = jsonCodec()
const roundTrip = (value: unknown): unknown => codec.decode(codec.encode(value, 'field'))

function refusalOf(value: unknown, path = 'field'): SessionError {
  try {
    codec.encode(value, path)
  } catch (error) {
    if (isSessionError(error)) return error
    throw error
  }
  throw new Error('The codec accepted the value.')
}

const HOSTILE_KEYS = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', 'then', '', '0']
const key = fc.oneof(fc.constantFrom(...HOSTILE_KEYS), fc.string({ unit: 'binary' }), fc.string())

/** Any tree that JSON can hold, with keys that are special to JavaScript. */
const { tree } = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.constant(null),
    fc.boolean(),
    // JSON knows no -0.
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
    fc.string({ unit: 'binary' }),
  ),
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    tie('leaf'),
    fc.array(tie('tree'), { maxLength: 5 }),
    fc.array(fc.tuple(key, tie('tree')), { maxLength: 5 }).map((entries) => Object.fromEntries(entries)),
  ),
}))

describe('what JSON keeps comes back exactly', () => {
  test('any JSON value', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        deepStrictEqual(roundTrip(value), JSON.parse(JSON.stringify(value)))
      }),
    )
  })

  test('objects with keys that are special to JavaScript, at any depth', () => {
    fc.assert(
      fc.property(tree, (value) => {
        deepStrictEqual(roundTrip(value), value)
      }),
    )
  })

  test('dictionaries with such keys', () => {
    fc.assert(
      fc.property(fc.dictionary(key, fc.jsonValue()), (dictionary) => {
        const back = roundTrip(dictionary) as object
        deepStrictEqual(Object.keys(back), Object.keys(dictionary))
        deepStrictEqual(back, JSON.parse(JSON.stringify(dictionary)))
      }),
    )
  })

  test('a key named __proto__ is a key, also beside a value with toJSON', () => {
    const time = new Date(0)
    const value: unknown = JSON.parse('{"__proto__":{"admin":true},"other":1}')
    Object.assign(value as object, { time })
    const back = roundTrip(value) as Record<string, unknown>
    expect(Object.keys(back)).toEqual(['__proto__', 'other', 'time'])
    expect(Object.getPrototypeOf(back)).toBe(Object.prototype)
    expect(back['admin']).toBeUndefined()
    expect(back['time']).toBe('1970-01-01T00:00:00.000Z')

    const nested: unknown = JSON.parse('{"__proto__":{}}')
    Object.defineProperty(nested, '__proto__', { value: time, enumerable: true })
    expect(codec.encode(nested, 'field')).toBe('{"__proto__":"1970-01-01T00:00:00.000Z"}')
  })

  test('the same value always gives the same text', () => {
    fc.assert(
      fc.property(tree, (value) => {
        const text = codec.encode(value, 'field')
        expect(codec.encode(codec.decode(text), 'field')).toBe(text)
      }),
    )
  })

  test('-0 becomes 0', () => {
    expect(Object.is(roundTrip(-0), 0)).toBe(true)
  })

  test('a lone surrogate in a value comes back', () => {
    expect(roundTrip({ '\uD800': 'a\uDFFF' })).toStrictEqual({ '\uD800': 'a\uDFFF' })
  })

  test('a property that is undefined is absent', () => {
    expect(roundTrip({ a: undefined, b: 1 })).toStrictEqual({ b: 1 })
  })

  test('null-prototype objects, class instances, frozen objects and objects of another realm are plain afterwards', () => {
    class Point {
      x = 1
      get length(): number {
        return 1
      }
    }
    const bare = Object.assign(Object.create(null) as object, { a: [1] })
    expect(roundTrip(bare)).toStrictEqual({ a: [1] })
    expect(roundTrip(new Point())).toStrictEqual({ x: 1 })
    expect(roundTrip(Object.freeze({ a: Object.freeze([1]) }))).toStrictEqual({ a: [1] })
    expect(roundTrip(runInNewContext('({ a: [1, { b: new Date(0) }] })'))).toStrictEqual({
      a: [1, { b: '1970-01-01T00:00:00.000Z' }],
    })
  })

  test('boxed primitives become what they hold', () => {
    expect(roundTrip([Object(1), Object('a'), Object(true)])).toStrictEqual([1, 'a', true])
    expect(roundTrip({ n: Object(1) })).toStrictEqual({ n: 1 })
  })

  test('the same object in two places is kept twice', () => {
    const shared = { a: 1 }
    expect(roundTrip({ left: shared, right: shared, list: [shared, shared] })).toStrictEqual({
      left: { a: 1 },
      right: { a: 1 },
      list: [{ a: 1 }, { a: 1 }],
    })
  })

  test('encoding does not alter the value', () => {
    const value = { at: new Date(0), list: [new Date(0)], boxed: Object(1) as unknown }
    codec.encode(value, 'field')
    expect(value.at).toBeInstanceOf(Date)
    expect(value.list[0]).toBeInstanceOf(Date)
    expect(typeof value.boxed).toBe('object')
  })
})

describe('toJSON', () => {
  test('a Date is its ISO text, a Buffer what Buffer says', () => {
    expect(roundTrip(new Date(0))).toBe('1970-01-01T00:00:00.000Z')
    expect(roundTrip({ bytes: Buffer.from('hi') })).toStrictEqual({ bytes: { type: 'Buffer', data: [104, 105] } })
  })

  test('an invalid Date is null, as it says itself', () => {
    expect(roundTrip(new Date(Number.NaN))).toBeNull()
  })

  test('is called once for each value', () => {
    let calls = 0
    const value = {
      toJSON() {
        calls++
        return { n: calls, inner: { a: 1 } }
      },
    }
    expect(roundTrip({ value })).toStrictEqual({ value: { n: 1, inner: { a: 1 } } })
    expect(roundTrip([value])).toStrictEqual([{ n: 2, inner: { a: 1 } }])
    expect(roundTrip(value)).toStrictEqual({ n: 3, inner: { a: 1 } })
    expect(calls).toBe(3)
  })

  test('works where it is inherited, and may hide what could not be kept', () => {
    class Money {
      #cents = 5n
      toJSON(): string {
        return String(this.#cents)
      }
    }
    class Tags extends Set<string> {
      toJSON(): string[] {
        return [...this]
      }
    }
    expect(roundTrip({ price: new Money(), tags: new Tags(['a']) })).toStrictEqual({ price: '5', tags: ['a'] })
  })

  test('what it returns is checked too', () => {
    expect(refusalOf({ a: { toJSON: () => ({ b: 1n }) } }).message).toContain('field.a.b')
    expect(refusalOf({ toJSON: () => undefined }).code).toBe('INVALID_VALUE')
  })

  test('an object that always returns another one with toJSON is refused, not followed for ever', () => {
    const endless = (): object => ({ toJSON: endless })
    expect(refusalOf(endless()).message).toMatch(/nests deeper than 100/)
  })
})

describe('what JSON would lose in silence is refused, with the path', () => {
  const cycle: { self?: unknown } = {}
  cycle.self = { again: [cycle] }
  const cases: [kind: string, value: unknown, path: string][] = [
    ['BigInt', { a: { b: [0, 1n] } }, 'field.a.b[1]'],
    ['boxed BigInt', { a: Object(1n) as unknown }, 'field.a'],
    ['boxed symbol', { a: Object(Symbol('s')) as unknown }, 'field.a'],
    ['NaN', { a: Number.NaN }, 'field.a'],
    ['boxed NaN', { a: Object(Number.NaN) as unknown }, 'field.a'],
    ['Infinity', [Number.POSITIVE_INFINITY], 'field[0]'],
    ['-Infinity', Number.NEGATIVE_INFINITY, 'field'],
    ['Map', { a: new Map([[1, 2]]) }, 'field.a'],
    ['Map of another realm', { a: runInNewContext('new Map()') as unknown }, 'field.a'],
    ['subclass of Map', { a: new (class Sub extends Map {})() }, 'field.a'],
    ['Set', { a: new Set([1]) }, 'field.a'],
    ['WeakMap', { a: new WeakMap() }, 'field.a'],
    ['WeakSet', { a: new WeakSet() }, 'field.a'],
    ['WeakRef', { a: new WeakRef({}) }, 'field.a'],
    ['RegExp', { a: /x/ }, 'field.a'],
    ['Error', { a: new RangeError('x') }, 'field.a'],
    ['Promise', { a: Promise.resolve(1) }, 'field.a'],
    ['ArrayBuffer', { a: new ArrayBuffer(1) }, 'field.a'],
    ['DataView', { a: new DataView(new ArrayBuffer(1)) }, 'field.a'],
    ['Uint8Array', { a: new Uint8Array(1) }, 'field.a'],
    ['Float64Array', { a: new Float64Array(1) }, 'field.a'],
    ['BigInt64Array', { a: new BigInt64Array(1) }, 'field.a'],
    ['generator', { a: (function* () {})() }, 'field.a'],
    ['function', { a: () => 1 }, 'field.a'],
    ['class', { a: class {} }, 'field.a'],
    ['symbol', { a: Symbol('x') }, 'field.a'],
    ['undefined in an array', { a: [1, undefined] }, 'field.a[1]'],
    ['hole in an array', { a: Object.assign([1], { 2: 3 }) }, 'field.a[1]'],
    ['cycle', { a: cycle }, 'field.a.self.again[0]'],
  ]

  test.each(cases)('%s', (_kind, value, path) => {
    const error = refusalOf(value)
    expect(error.code).toBe('INVALID_VALUE')
    expect(`${error.message} `).toContain(` ${path} `)
  })

  test('an array that holds itself', () => {
    const list: unknown[] = []
    list.push(list)
    expect(refusalOf(list).message).toContain('field[0]')
  })

  test('the value itself is not in the message', () => {
    expect(refusalOf({ a: 123456789n }).message).not.toContain('123456789')
  })
})

describe('depth', () => {
  const nested = (levels: number): unknown => {
    let value: unknown = 1
    for (let level = 0; level < levels; level++) value = level % 2 ? [value] : { a: value }
    return value
  }

  test('100 levels are kept, 101 are refused', () => {
    expect(roundTrip(nested(100))).toStrictEqual(nested(100))
    const error = refusalOf(nested(101))
    expect(error.code).toBe('INVALID_VALUE')
    expect(error.message).toMatch(/^Field field.* nests deeper than 100 levels/)
  })

  test('maxDepth moves the bound, for both directions', () => {
    const shallow = jsonCodec({ maxDepth: 2 })
    expect(shallow.decode(shallow.encode([[1]], 'field'))).toStrictEqual([[1]])
    expect(() => shallow.encode([[[1]]], 'field')).toThrow(/deeper than 2/)
    expect(() => shallow.decode('[[[1]]]')).toThrow(/deeper than 2/)
  })

  test('a value of 200,000 levels is refused without exhausting the stack', () => {
    expect(refusalOf(nested(200_000)).code).toBe('INVALID_VALUE')
  })

  test.each([
    ['arrays', '['.repeat(200_000) + ']'.repeat(200_000)],
    ['objects', '{"a":'.repeat(200_000) + 1 + '}'.repeat(200_000)],
    ['unclosed', '['.repeat(200_000)],
  ])('text of 200,000 levels is refused without exhausting the stack: %s', (_kind, text) => {
    let caught: unknown
    try {
      codec.decode(text)
    } catch (error) {
      caught = error
    }
    expect(isSessionError(caught, 'CORRUPT_RECORD')).toBe(true)
  })

  test('brackets inside of text are no levels', () => {
    const text = `${'['.repeat(500)}"\\"{`
    expect(roundTrip({ text, list: ['{'.repeat(500)] })).toStrictEqual({ text, list: ['{'.repeat(500)] })
  })

  test('text that is not JSON throws', () => {
    for (const text of ['', '{', 'undefined', '{"a":1}x', '\u0000']) expect(() => codec.decode(text)).toThrow()
  })
})

describe('fields', () => {
  const NAMES = ['a', 'b', 'c', '__proto__', 'constructor', '']
  const stored = fc
    .array(fc.tuple(fc.constantFrom(...NAMES), tree), { maxLength: 6 })
    .map((entries) => new Map(entries.map(([name, value]) => [name, codec.encode(value, name)])))
  const step = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), name: fc.constantFrom(...NAMES), value: tree }),
    fc.record({ kind: fc.constantFrom('delete' as const, 'read' as const), name: fc.constantFrom(...NAMES) }),
    fc.record({ kind: fc.constant('push' as const), name: fc.constantFrom(...NAMES), value: tree }),
    fc.constant({ kind: 'clear' as const, name: '' }),
  )
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

  function fieldsOf(map: ReadonlyMap<string, string>): Fields {
    return new Fields({
      codec,
      limits: { maxBytes: 1_000_000, maxFields: 1_000 },
      stored: map,
      onCorrupt(_field, cause) {
        throw cause
      },
    })
  }

  function perform(fields: Fields, steps: readonly Step[]): void {
    for (const taken of steps) {
      switch (taken.kind) {
        case 'set':
          fields.set(taken.name, taken.value)
          break
        case 'delete':
          fields.delete(taken.name)
          break
        case 'read':
          fields.get(taken.name)
          break
        case 'clear':
          fields.clear()
          break
        case 'push': {
          const value = fields.get(taken.name)
          // A copy: the tree may be shared with another step.
          if (Array.isArray(value)) value.push(roundTrip(taken.value))
          break
        }
      }
    }
  }

  const view = (fields: Fields): Map<string, unknown> => new Map(fields.names().map((name) => [name, fields.get(name)]))

  function applied(base: ReadonlyMap<string, string>, fields: Fields): Map<string, string> {
    const changes = fields.changes()
    const result = new Map(base)
    for (const name of changes?.delete ?? []) result.delete(name)
    for (const [name, text] of changes?.set ?? []) result.set(name, text)
    return result
  }

  test('the changes, applied to what is stored, give what the request saw', () => {
    fc.assert(
      fc.property(stored, fc.array(step, { maxLength: 20 }), (base, steps) => {
        const fields = fieldsOf(base)
        perform(fields, steps)
        const result = applied(base, fields)
        const expected = new Map([...view(fields)].map(([name, value]) => [name, codec.encode(value, name)]))
        deepStrictEqual(result, expected)
      }),
    )
  })

  test('two requests with different fields merge to what both saw, in either order', () => {
    const step1 = step.filter(({ kind, name }) => kind !== 'clear' && NAMES.indexOf(name) < 3)
    const step2 = step.filter(({ kind, name }) => kind !== 'clear' && NAMES.indexOf(name) >= 3)
    fc.assert(
      fc.property(stored, fc.array(step1), fc.array(step2), (base, first, second) => {
        const one = fieldsOf(base)
        const two = fieldsOf(base)
        perform(one, first)
        perform(two, second)
        const oneFirst = applied(applied(base, one), two)
        const twoFirst = applied(applied(base, two), one)
        deepStrictEqual(oneFirst, twoFirst)
        for (const name of NAMES) {
          const seen = (NAMES.indexOf(name) < 3 ? one : two).get(name)
          deepStrictEqual(fieldsOf(oneFirst).get(name), seen)
        }
      }),
    )
  })

  test('once committed there is nothing left to write, and later changes count again', () => {
    fc.assert(
      fc.property(stored, fc.array(step), fc.array(step), (base, before, after) => {
        const fields = fieldsOf(base)
        perform(fields, before)
        const middle = applied(base, fields)
        const changes = fields.changes()
        if (changes) fields.committed(changes, middle)
        expect(fields.changes()).toBeNull()
        perform(fields, after)
        const expected = new Map([...view(fields)].map(([name, value]) => [name, codec.encode(value, name)]))
        deepStrictEqual(applied(middle, fields), expected)
      }),
    )
  })

  test('what is altered while a commit is under way is a change of its own', () => {
    const fields = fieldsOf(new Map([['list', '[1]']]))
    const list = fields.get('list') as number[]
    list.push(2)
    const changes = fields.changes()
    list.push(3)
    if (changes) fields.committed(changes, new Map([['list', '[1,2]']]))
    expect(fields.changes()?.set).toEqual(new Map([['list', '[1,2,3]']]))
  })
})
