// What every store promises of a change: that it is applied in one step, to a live record of the same generation.
import { newSessionId, newToken } from '../../ids.js'
import type { UpdateResult } from '../../record/changes.js'
import {
  type Check,
  changeOf,
  equal,
  HOSTILE,
  HOUR_MS,
  must,
  ONE_FIELD,
  same,
  sameFields,
  sameResult,
  sample,
} from '../samples.js'

/** Promises of `update()` and `touch()`. */
export const CHANGES: Record<string, Check> = {
  'context and epoch stay when a session changes': async (store) => {
    const record = sample({ context: { ip: '127.0.0.1', userAgent: HOSTILE }, epoch: 3, userId: 1 })
    await store.create(record.id, record, 60)
    const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 10_000 }
    await store.update(record.id, changeOf(record, { set: ONE_FIELD, renew, metadata: { userId: 2 } }), 60)
    await store.touch(record.id, 60)
    const after = await must(store, record.id)
    sameResult(after.context, record.context)
    equal(after.epoch, 3, 'epoch')
  },
  'update() writes and removes fields and leaves the others': async (store) => {
    const record = sample({ fields: { keep: '1', change: '2', drop: '3' } })
    await store.create(record.id, record, 60)
    const change = changeOf(record, {
      set: new Map([
        ['change', '20'],
        ['add', '4'],
      ]),
      delete: ['drop'],
    })
    const result = await store.update(record.id, change, 60)
    equal(result.status, 'updated', 'status')
    const updated = await must(store, record.id)
    if (result.status === 'updated' && result.record) same(result.record, updated)
    sameFields(updated, { keep: '1', change: '20', add: '4' })
    equal(updated.updatedAt, change.at, 'updatedAt')
    equal(updated.lastAccessedAt, change.at, 'lastAccessedAt')
    equal(updated.expiresAt, change.expiresAt, 'expiresAt')
    equal(updated.createdAt, record.createdAt, 'createdAt')
    equal(updated.tokenHash, record.tokenHash, 'tokenHash')
  },
  'update() writes and removes metadata': async (store) => {
    const record = sample({ userId: 1 })
    await store.create(record.id, record, 60)
    const cookieEndsAt = record.expiresAt - 1
    const metadata = {
      idleTimeoutMs: 5_000,
      persistent: true,
      cookieEndsAt,
      absoluteExpiresAt: record.absoluteExpiresAt + 1_000,
    }
    await store.update(record.id, { ...changeOf(record), metadata, expiresAt: record.lastAccessedAt + 5_000 }, 5)
    let updated = await must(store, record.id)
    equal(updated.idleTimeoutMs, 5_000, 'idleTimeoutMs')
    equal(updated.persistent, true, 'persistent')
    equal(updated.cookieEndsAt, cookieEndsAt, 'cookieEndsAt')
    equal(updated.absoluteExpiresAt, record.absoluteExpiresAt + 1_000, 'absoluteExpiresAt')
    equal(updated.expiresAt, record.lastAccessedAt + 5_000, 'expiresAt, which an own idle timeout may move back')
    equal(updated.userId, 1, 'userId')
    await store.update(
      record.id,
      changeOf(updated, { metadata: { userId: undefined, idleTimeoutMs: undefined, cookieEndsAt: undefined } }),
      60,
    )
    updated = await must(store, record.id)
    equal(updated.userId, undefined, 'removed userId')
    equal(updated.idleTimeoutMs, undefined, 'removed idleTimeoutMs')
    equal(updated.cookieEndsAt, undefined, 'removed cookieEndsAt')
  },
  'update() that is no activity writes fields and metadata, and moves neither last access nor end': async (store) => {
    const record = sample({ fields: { a: '1' }, age: 10_000 })
    await store.create(record.id, record, 60)
    const change = changeOf(record, { set: new Map([['a', '2']]), isPassive: true, metadata: { userId: 5 } })
    equal((await store.update(record.id, change, 60)).status, 'updated', 'status')
    const passive = record.withField('a', '2').with({ userId: 5, updatedAt: change.at })
    same(await store.get(record.id), passive)
    // What the metadata says of the end counts all the same.
    const absoluteExpiresAt = record.expiresAt - 1_000
    await store.update(record.id, changeOf(record, { isPassive: true, metadata: { absoluteExpiresAt } }), 60)
    same(await store.get(record.id), passive.with({ absoluteExpiresAt, expiresAt: absoluteExpiresAt }))
    const own = changeOf(record, { isPassive: true, metadata: { idleTimeoutMs: 20_000 } })
    await store.update(record.id, { ...own, expiresAt: record.lastAccessedAt + 20_000 }, 60)
    same(
      await store.get(record.id),
      passive.with({ absoluteExpiresAt, idleTimeoutMs: 20_000, expiresAt: record.lastAccessedAt + 20_000 }),
    )
  },
  'update() never creates': async (store) => {
    const record = sample()
    equal((await store.update(record.id, changeOf(record, { set: ONE_FIELD }), 60)).status, 'ended', 'status')
    equal(await store.get(record.id), null, 'get')
  },
  'update() of another generation is not applied': async (store) => {
    const record = sample({ fields: { a: '1' }, generation: 2 })
    await store.create(record.id, record, 60)
    const stale = { ...changeOf(record, { set: ONE_FIELD }), generation: 1 }
    equal((await store.update(record.id, stale, 60)).status, 'ended', 'status')
    same(await store.get(record.id), record)
  },
  'update() and touch() of an expired record are not applied': async (store) => {
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    equal((await store.update(expired.id, changeOf(expired, { set: ONE_FIELD }), 60)).status, 'ended', 'update')
    equal(await store.touch(expired.id, 60), false, 'touch')
    equal(await store.exists(expired.id), false, 'exists')
  },
  'update() by an own idle timeout counts as expired when that has passed': async (store) => {
    const idle = sample({ age: 10_000, life: 60_000, idleTimeoutMs: 5_000 })
    await store.create(idle.id, idle, 60)
    equal((await store.update(idle.id, changeOf(idle, { set: ONE_FIELD }), 60)).status, 'ended', 'update')
    equal(await store.touch(idle.id, 60), false, 'touch')
  },
  'an end never moves back, nor beyond the absolute one': async (store) => {
    const record = sample({ life: 60_000 })
    await store.create(record.id, record, 60)
    await store.update(record.id, { ...changeOf(record), expiresAt: record.createdAt + 1_000 }, 1)
    equal((await must(store, record.id)).expiresAt, record.expiresAt, 'after an earlier end')
    await store.touch(record.id, 10 * 86_400, record.createdAt)
    equal((await must(store, record.id)).expiresAt, record.absoluteExpiresAt, 'after a far touch')
  },
  'a clock that was set back moves no time back': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const past = record.lastAccessedAt - 3_600_000
    await store.touch(record.id, 60, past)
    await store.update(record.id, { ...changeOf(record, { set: ONE_FIELD }), at: past }, 60)
    const after = await must(store, record.id)
    equal(after.lastAccessedAt, record.lastAccessedAt, 'lastAccessedAt')
    equal(after.updatedAt >= record.updatedAt, true, 'updatedAt')
  },
  'update() that settles a clock moves back the times that lie ahead, and keeps the length of a life': async (
    store,
  ) => {
    for (const isReadFirst of [true, false]) {
      const begun = sample({ fields: { a: '1' }, userId: 1, age: -86_400_000, life: 2 * HOUR_MS })
      // Used an hour after it began: it is as old afterwards.
      const ahead = begun.with({ lastAccessedAt: begun.createdAt + HOUR_MS })
      await store.create(ahead.id, ahead, 60)
      const held = isReadFirst ? await must(store, ahead.id) : undefined
      const metadata = { unproven: true } as const
      const change = changeOf(ahead, { settlesClock: true, metadata, ...(held && { madeOn: held }) })
      equal((await store.update(ahead.id, change, 60)).status, 'updated', 'status')
      const { at, expiresAt } = change
      const settled = {
        createdAt: at - HOUR_MS,
        updatedAt: at - HOUR_MS,
        lastAccessedAt: at,
        expiresAt,
        absoluteExpiresAt: at + 11 * HOUR_MS,
      }
      same(await store.get(ahead.id), ahead.with({ ...settled, unproven: true }))
      // What has happened stays as it was.
      const again = { ...change, at: at + 1_000, expiresAt: at + 500, metadata: undefined }
      equal((await store.update(ahead.id, again, 60)).status, 'updated', 'status of the second')
      same(await store.get(ahead.id), ahead.with({ ...settled, unproven: true, expiresAt: at + 500 }))
    }
  },
  'touch() moves the idle timeout and nothing else': async (store) => {
    const record = sample({ fields: { a: '1' }, userId: 3, age: 10_000, life: 20_000 })
    await store.create(record.id, record, 60)
    const now = record.lastAccessedAt + 10_000
    equal(await store.touch(record.id, 60, now), true, 'touch')
    same(await store.get(record.id), record.with({ lastAccessedAt: now, expiresAt: now + 60_000 }))
    equal(await store.touch(record.id, 60, now, 3_600), true, 'touch with a time to be kept for after the end')
    same(await store.get(record.id), record.with({ lastAccessedAt: now, expiresAt: now + 60_000 }))
  },
  'an expectation that fails stops the whole change and tells the present text': async (store) => {
    const record = sample({ fields: { n: '1' } })
    await store.create(record.id, record, 60)
    const attempt = (field: string, text: string | undefined): Promise<UpdateResult> =>
      store.update(record.id, changeOf(record, { set: new Map([['n', '9']]), expect: { field, text } }), 60)
    sameResult(await attempt('n', '2'), { status: 'conflict', text: '1' })
    sameResult(await attempt('n', undefined), { status: 'conflict', text: '1' })
    sameResult(await attempt('absent', '1'), { status: 'conflict', text: undefined })
    sameFields(await must(store, record.id), { n: '1' })
    equal((await attempt('n', '1')).status, 'updated', 'status')
    sameFields(await must(store, record.id), { n: '9' })
    equal((await attempt('absent', undefined)).status, 'updated', 'status')
  },
  'a logical ID is replaced when it is still what the change expects, with all of the change or nothing': async (
    store,
  ) => {
    const record = sample({ fields: { n: '1' } })
    await store.create(record.id, record, 60)
    const [first, second] = [newSessionId(), newSessionId()]
    const replace = (from: string | undefined, to: string): Promise<UpdateResult> => {
      const parts = { set: new Map([['n', to]]), metadata: { logicalId: to }, expect: { logicalId: from } }
      return store.update(record.id, changeOf(record, parts), 60)
    }
    equal((await replace(undefined, first)).status, 'updated', 'status')
    sameResult(await replace(undefined, second), { status: 'conflict', text: first })
    sameResult(await replace(second, second), { status: 'conflict', text: first })
    sameFields(await must(store, record.id), { n: first })
    equal((await replace(first, second)).status, 'updated', 'status')
    equal((await must(store, record.id)).logicalId, second, 'logicalId')
  },
  'a renewal replaces the token it was made for, once, and keeps the old one for its grace': async (store) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 10_000 }
    equal((await store.update(record.id, changeOf(record, { renew }), 60)).status, 'updated', 'first')
    const again = { ...renew, to: newToken().tokenHash }
    equal((await store.update(record.id, changeOf(record, { renew: again }), 60)).status, 'renewed', 'second')
    const renewed = await must(store, record.id)
    equal(renewed.tokenHash, renew.to, 'tokenHash')
    sameResult(renewed.previousToken, { hash: renew.from, until: renew.graceUntil })
  },
}
