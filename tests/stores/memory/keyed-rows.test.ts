// What the memory store is built of: tables and texts outside of the JavaScript heap, beside the plainest maps.
import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import { FIRST_ROW, KeyedRows, NONE } from '../../../src/stores/memory/keyed-rows.js'
import { LIST_COLUMNS, RowLists } from '../../../src/stores/memory/row-lists.js'
import { TextSlabs } from '../../../src/stores/memory/text-slabs.js'
import { bytesOfBuffers } from '../../support/garbage.js'

const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 50 }),
  // Halves of surrogate pairs too: a codec may write what it likes.
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
  fc.integer({ min: 0, max: 9_000 }).map((length) => 'ÿ'.repeat(length)),
)

function rowsOf(table: KeyedRows): number[] {
  const rows: number[] = []
  for (let row = FIRST_ROW; row < table.endRow; row++) if (table.has(row)) rows.push(row)
  return rows
}

describe('texts in slabs', () => {
  test('come back as they were, whatever is added and deleted between (properties)', () => {
    const act = fc.constantFrom('none', 'delete', 'tidy')
    const steps = fc.array(fc.record({ text: anyText, act, which: fc.nat() }), {
      maxLength: 200,
      size: 'max',
    })
    fc.assert(
      fc.property(steps, (list) => {
        const texts = new TextSlabs()
        const model = new Map<number, string>()
        for (const { text, act, which } of list) {
          const place = texts.add(text)
          expect([place > NONE, place < 2 ** 31, model.has(place)]).toEqual([true, true, false])
          model.set(place, text)
          const victim = [...model.keys()][which % model.size] as number
          if (act === 'none') continue
          const kept = model.get(victim) as string
          model.delete(victim)
          if (act === 'tidy') model.set(texts.tidy(victim), kept)
          else texts.delete(victim)
        }
        for (const [place, text] of model) expect(texts.get(place)).toBe(text)
      }),
    )
  })

  test('of every length about the sizes of slots and slabs', () => {
    const texts = new TextSlabs()
    const lengths = [0, 1, 27, 28, 29, 60, 61, 4_092, 4_093, 262_140, 262_141, 1_000_000]
    const places = lengths.map((length) => texts.add('x'.repeat(length)))
    expect(places.map((place) => texts.get(place).length)).toEqual(lengths)
    const wide = lengths.map((length) => texts.add('\u{1F36A}'.repeat(length)))
    expect(wide.map((place) => texts.get(place).length)).toEqual(lengths.map((length) => 2 * length))
    expect(new Set([...places, ...wide]).size).toBe(2 * lengths.length)
  })

  test('blocks that nothing is in are given back, but for one of a size', () => {
    const texts = new TextSlabs()
    const before = bytesOfBuffers()
    const places = Array.from({ length: 20_000 }, () => texts.add('x'.repeat(500)))
    expect(bytesOfBuffers() - before).toBeGreaterThan(10_000_000)
    const [first, ...others] = places
    for (const place of others) texts.delete(place)
    expect(texts.get(first as number)).toHaveLength(500)
    texts.delete(first as number)
    expect(bytesOfBuffers() - before).toBeLessThan(1_000_000)
    for (const length of [1, 2, 3, 4, 5]) texts.delete(texts.add('x'.repeat(length * 1_000_000)))
    expect(bytesOfBuffers() - before).toBeLessThan(1_000_000)
    // The numbers of the blocks that are gone are given again: places stay small.
    const again = Array.from({ length: 20_000 }, () => texts.add('y'.repeat(500)))
    expect(Math.max(...again)).toBeLessThan(1.1 * Math.max(...places))
  })
})

describe('keyed rows', () => {
  // Few keys, and hardly any bucket, so that rows meet; the last two have one hash.
  const KEYS = ['', 'a', 'b', 'ab', '\u{1F36A}', 'x'.repeat(300), 'kd0s27ke38', 'k36osjgs8f8']
  const key = fc.constantFrom(...KEYS)
  const steps = fc.array(
    fc.oneof(
      { weight: 30, arbitrary: fc.record({ call: fc.constant('add' as const), key, value: fc.double() }) },
      { weight: 20, arbitrary: fc.record({ call: fc.constant('delete' as const), which: fc.nat() }) },
      { weight: 10, arbitrary: fc.record({ call: fc.constant('move' as const), which: fc.nat(), key }) },
      { weight: 1, arbitrary: fc.constant({ call: 'clear' as const }) },
    ),
    { size: 'max', maxLength: 60 },
  )

  test.each([1, 3, 1_000])('are found and in order, for %i expected (properties)', (expected) => {
    fc.assert(
      fc.property(steps, (list) => {
        const rows = new KeyedRows({ expected, integerColumns: LIST_COLUMNS, numberColumns: 1 })
        const lists = new RowLists(rows, expected)
        // In the order in which they came to their list; each list has the key of the rows that began in it.
        let model: { row: number; key: string; list: string; value: number; n: number }[] = []
        let n = 0
        const listOf = (name: string): number => lists.find(name) || lists.add(name)
        for (const step of list) {
          const one = 'which' in step ? model[step.which % Math.max(1, model.length)] : undefined
          if (step.call === 'add') {
            const row = rows.add(step.key)
            expect(model.some((other) => other.row === row)).toBe(false)
            rows.setNumber(row, 0, step.value)
            lists.append(listOf(step.key), row)
            model.push({ row, key: step.key, list: step.key, value: step.value, n: n++ })
          } else if (step.call === 'clear') {
            rows.clear()
            lists.clear()
            model = []
          } else if (one) {
            lists.remove(one.row)
            model = model.filter((other) => other !== one)
            rows.tidy(one.row)
            if (step.call === 'move') {
              lists.append(listOf(step.key), one.row)
              model.push({ ...one, list: step.key })
            } else rows.delete(one.row)
          }
        }

        expect(rows.size).toBe(model.length)
        expect(rowsOf(rows)).toEqual(model.map(({ row }) => row).sort((a, b) => a - b))
        for (const { row, key: own, value } of model)
          expect([rows.keyOf(row), rows.number(row, 0)]).toEqual([own, value])
        for (const name of [...KEYS, 'another']) {
          const found: number[] = []
          for (let row = rows.find(name); row !== NONE; row = rows.findNext(row)) found.push(row)
          const newestFirst = model.filter((one) => one.key === name).sort((a, b) => b.n - a.n)
          expect(found).toEqual(newestFirst.map(({ row }) => row))

          const ordered: number[] = []
          const present = lists.find(name)
          if (present !== NONE) {
            for (let row = lists.oldest(present); row !== NONE; row = lists.newer(row)) ordered.push(row)
          }
          expect(ordered).toEqual(model.filter((one) => one.list === name).map(({ row }) => row))
        }
      }),
    )
  })

  test('a row that cannot be added leaves the table as it was', () => {
    const rows = new KeyedRows({ expected: 10, integerColumns: 0, numberColumns: 0 })
    for (let times = 0; times < 2; times++) expect(() => rows.add(5 as unknown as string)).toThrow()
    expect([rows.size, rows.endRow]).toEqual([0, FIRST_ROW])
    expect(rows.keyOf(rows.add('key'))).toBe('key')
  })

  test('of many thousands of keys each is found, and no more once they have gone', () => {
    const rows = new KeyedRows({ expected: 10_000, integerColumns: 0, numberColumns: 1 })
    for (let n = 0; n < 10_000; n++) rows.setNumber(rows.add(`key ${n}`), 0, n)
    for (let n = 0; n < 10_000; n++) expect(rows.number(rows.find(`key ${n}`), 0)).toBe(n)
    for (const row of rowsOf(rows)) rows.delete(row)
    expect([rows.size, rows.find('key 0'), rowsOf(rows)]).toEqual([0, NONE, []])
  })
})
