// What every store promises of a record: that it comes back whole, or not at all.
import { newSessionId, newToken } from '../../ids.js'
import { attempt, type Check, endOf, equal, HOSTILE, must, same, sample, tooLate } from '../samples.js'

/** Promises of keeping and forgetting. */
export const KEEPING: Record<string, Check> = {
  'get() of an unknown ID is null': async (store) => {
    equal(await store.get(newSessionId()), null, 'get')
  },
  'what create() wrote, get() returns': async (store) => {
    const record = sample()
    equal(await store.create(record.id, record, 60), true, 'create')
    same(await store.get(record.id), record)
  },
  'create() that comes after its deadline is not done': async (store) => {
    const record = sample()
    await tooLate('create()', store.create(record.id, record, 60, performance.now() - 1))
    equal(await store.get(record.id), null, 'get')
    equal(await store.create(record.id, record, 60, performance.now() + 60_000), true, 'create')
  },
  'what set() wrote, get() returns, whole': async (store) => {
    const first = sample({ fields: { a: '1', b: '2' }, userId: 7 })
    await store.set(first.id, first, 60)
    const second = first.with({ fields: [['c', '3']], userId: undefined })
    await store.set(first.id, second, 60)
    same(await store.get(first.id), second)
  },
  'metadata and any field name and text come back exactly': async (store) => {
    const record = sample({
      userId: HOSTILE,
      idleTimeoutMs: 5_000,
      persistent: true,
      previousToken: { hash: newToken().tokenHash, until: Date.now() + 1_000 },
      logicalId: newSessionId(),
      context: { ip: '::ffff:127.0.0.1', userAgent: HOSTILE, referrer: '', locale: 'x'.repeat(2_000) },
      epoch: 7,
      fields: {
        '': '""',
        constructor: '1',
        toString: '2',
        hasOwnProperty: '3',
        t: '4',
        m: '5',
        'user.name with {braces} * ? \r\n \u0000 \u{1F36A}': JSON.stringify('\u0000\uFFFF\u{1F36A}\n'),
        empty: '',
        long: 'x'.repeat(20_000),
      },
    })
    const withProto = record.withField('__proto__', '{"polluted":true}')
    await store.create(record.id, withProto, 60)
    same(await store.get(record.id), withProto)
    equal(({} as Record<string, unknown>)['polluted'], undefined, 'Object.prototype')
  },
  'context and epoch come back as they were, or not at all': async (store) => {
    for (const parts of [{}, { context: {} }, { context: { locale: 'de' } }, { epoch: 1 }, { epoch: 2 ** 40 }]) {
      const record = sample(parts)
      await store.create(record.id, record, 60)
      same(await store.get(record.id), record)
    }
  },
  'a user ID keeps its type': async (store) => {
    for (const userId of [0, 42, -1.5, '42', '0']) {
      const record = sample({ userId })
      await store.create(record.id, record, 60)
      equal((await store.get(record.id))?.userId, userId, 'userId')
    }
  },
  'create() never overwrites': async (store) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    equal(await store.create(record.id, record.withField('a', '2'), 60), false, 'second create')
    same(await store.get(record.id), record)
  },
  'delete() forgets, and is harmless when there is nothing': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    await store.delete(record.id)
    equal(await store.get(record.id), null, 'get')
    await store.delete(record.id)
  },
  'exists() tells live records from expired and absent ones': async (store) => {
    const live = sample()
    await store.create(live.id, live, 60)
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    equal(await store.exists(live.id), true, 'live')
    equal(await store.exists(expired.id), false, 'expired')
    equal(await store.exists(newSessionId()), false, 'absent')
  },
  'records are isolated from what callers do with them': async (store) => {
    const record = sample({ fields: { a: '1' }, context: { ip: '127.0.0.1' } })
    await store.create(record.id, record, 60)
    const got = await must(store, record.id)
    attempt(() => (got.fields as Map<string, string>).set('a', '2'))
    attempt(() => Object.assign(got, { userId: 'intruder' }))
    attempt(() => Object.assign(got.context ?? {}, { ip: 'intruder' }))
    same(await store.get(record.id), record)
    const ended = { ...endOf() }
    await store.end(record.id, ended, 60)
    attempt(() => Object.assign(ended, { reason: 'idle' }))
    const tombstone = await must(store, record.id)
    attempt(() => Object.assign(tombstone.ended ?? {}, { reason: 'idle' }))
    equal((await must(store, record.id)).ended?.reason, 'revoked', 'reason')
  },
}
