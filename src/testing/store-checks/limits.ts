// What every store promises of the size of a session: the bound holds in the step that writes.
import { isSessionError } from '../../errors.js'
import { newToken } from '../../ids.js'
import type { RegenerateResult, SessionChange, UpdateResult } from '../../record/changes.js'
import { sizeOf } from '../../record/limits.js'
import {
  type Check,
  changeOf,
  concurrently,
  equal,
  HOSTILE,
  must,
  pick,
  regenerationOf,
  same,
  sameFields,
  sameResult,
  sample,
  successor,
} from '../samples.js'

/** Promises that hold without any two calls at the same time. */
export const BASIC_LIMITS: Record<string, Check> = {
  'update() makes no session larger than its limits, and leaves it as it is instead': async (store) => {
    const limits = { maxBytes: 2_000, maxFields: 5 }
    const record = sample({ fields: { a: '1', é: HOSTILE, long: 'x'.repeat(900) }, userId: 1 })
    await store.create(record.id, record, 60)
    const { bytes: present } = sizeOf(record.fields)
    const left = limits.maxBytes - present
    const write = (...fields: [string, string][]): Promise<UpdateResult> =>
      store.update(record.id, changeOf(record, { set: new Map(fields), metadata: { userId: 2 }, limits }), 60)
    // One byte too many: of plain letters, of what a format may escape, and of what fits by its characters alone.
    for (const text of [
      'y'.repeat(left),
      `\n${'\t'.repeat(left - 1)}`,
      '\u001b'.repeat(left),
      `ü${'y'.repeat(left - 2)}`,
    ]) {
      sameResult(await write(['b', text]), { status: 'too-large', bytes: limits.maxBytes + 1, fields: 4 })
    }
    sameResult(await write(['b', ''], ['c', ''], ['d', '']), { status: 'too-large', bytes: present + 3, fields: 6 })
    same(await store.get(record.id), record)

    equal((await write(['b', `\n${'\u001b'.repeat(left - 2)}`])).status, 'updated', 'up to the last byte')
    equal((await write(['long', 'y'.repeat(900)])).status, 'updated', 'another text of the same size')
    equal((await write(['c', ''])).status, 'too-large', 'one byte more')
    const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 1_000 }
    const others = changeOf(record, { metadata: { userId: 3 }, renew, limits })
    equal((await store.update(record.id, others, 60)).status, 'updated', 'a change of no field')
  },
  'update() may make a session smaller that is over its limits, and not larger': async (store) => {
    const limits = { maxBytes: 100, maxFields: 2 }
    const record = sample({ fields: { a: '1', b: 'x'.repeat(3_000), c: 'y'.repeat(3_000), d: '4' } })
    await store.create(record.id, record, 60)
    const attempt = async (parts: Partial<SessionChange>): Promise<string> =>
      (await store.update(record.id, changeOf(record, { ...parts, limits }), 60)).status
    equal(await attempt({ set: new Map([['a', '12']]) }), 'too-large', 'a byte more')
    equal(await attempt({ set: new Map([['e', '']]), delete: ['b'] }), 'updated', 'a field for a larger one')
    equal(await attempt({ set: new Map([['f', '']]) }), 'too-large', 'a field more')
    equal(await attempt({ delete: ['c', 'e'] }), 'updated', 'fewer fields')
    sameFields(await must(store, record.id), { a: '1', d: '4' })
  },
  'regenerate() makes no session larger than its limits, and ends nothing then': async (store) => {
    const limits = { maxBytes: 1_000, maxFields: 3 }
    const record = sample({ fields: { a: '\n'.repeat(300), b: '2' } })
    await store.create(record.id, record, 60)
    const { bytes } = sizeOf(record.fields)
    const attempt = (fields: Record<string, string>): Promise<RegenerateResult> => {
      const next = successor(record, { fields })
      return store.regenerate(record.id, regenerationOf(record, next, { limits }), 60)
    }
    const text = 'x'.repeat(1_000 - bytes)
    sameResult(await attempt({ c: text }), { status: 'too-large', bytes: 1_001, fields: 3 })
    sameResult(await attempt({ c: '', d: '' }), { status: 'too-large', bytes: bytes + 2, fields: 4 })
    same(await store.get(record.id), record)
    equal((await attempt({ c: text.slice(1) })).status, 'regenerated', 'up to the last byte')
  },
  'get() with bounds: what is within them comes, of what is not all or CORRUPT_RECORD': async (store) => {
    const record = sample({ fields: { a: 'x'.repeat(1_000), b: 'y' } })
    await store.create(record.id, record, 60)
    const under = { maxBytes: 900, maxFields: 10 }
    const fewer = { maxBytes: 100_000, maxFields: 1 }
    same(await store.get(record.id, { maxBytes: 100_000, maxFields: 2 }), record)
    for (const bounds of [under, fewer]) {
      const found = await store.get(record.id, bounds).catch((error: unknown) => {
        if (isSessionError(error, 'CORRUPT_RECORD')) return record
        throw error
      })
      same(found, record)
    }
  },
}

/** Promises on calls at the same time, on one store or on two. */
export const ATOMIC_LIMITS: Record<string, Check> = {
  'of concurrent changes that do not fit together those that fit are applied, and the others change nothing': async (
    store,
    peer,
  ) => {
    const limits = { maxBytes: 10_000, maxFields: 1_000 }
    const record = sample({ fields: { small: '1' } })
    await store.create(record.id, record, 60)
    const read = await must(store, record.id)
    const results = await concurrently(20, (index) => {
      const set = new Map([[`f${index}`, 'x'.repeat(3_000)]])
      return pick(index, store, peer).update(record.id, changeOf(record, { set, limits, madeOn: read }), 60)
    })
    equal(results.filter(({ status }) => status === 'updated').length, 3, 'applied')
    equal(results.filter(({ status }) => status === 'too-large').length, 17, 'refused')
    const after = await must(peer, record.id)
    for (const [index, { status }] of results.entries()) {
      equal(after.fields.has(`f${index}`), status === 'updated', `whether there is field ${index}`)
    }
    equal(after.fields.get('small'), '1', 'what was there before')
  },
}
