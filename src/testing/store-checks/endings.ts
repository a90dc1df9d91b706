// What every store promises of an end: that it leaves a tombstone, which nothing changes; or a successor.
import { newSessionId, newToken } from '../../ids.js'
import { applyEnd, endOfRegenerated } from '../../record/changes.js'
import { END_REASONS } from '../../record/session-data.js'
import {
  type Check,
  changeOf,
  endOf,
  equal,
  HOSTILE,
  must,
  ONE_FIELD,
  regenerationOf,
  same,
  sameFields,
  sameResult,
  sample,
  successor,
  tooLate,
} from '../samples.js'

/** Promises of `end()`. */
export const ENDINGS: Record<string, Check> = {
  'end() leaves a tombstone: how it ended, whose it was, and no field': async (store) => {
    const record = sample({
      fields: { a: '1', b: '2' },
      userId: HOSTILE,
      persistent: true,
      idleTimeoutMs: 9_000,
      previousToken: { hash: newToken().tokenHash, until: Date.now() + 1_000 },
      logicalId: newSessionId(),
      context: { ip: '127.0.0.1', userAgent: HOSTILE },
      epoch: 2,
    })
    await store.create(record.id, record, 60)
    const ended = endOf({ by: HOSTILE, detail: `${HOSTILE}${'x'.repeat(2_000)}`, successor: newSessionId() })
    equal((await store.end(record.id, ended, 60)).status, 'ended', 'status')
    const tombstone = await must(store, record.id)
    sameResult(tombstone.ended, ended)
    same(tombstone, applyEnd(record, ended))
    equal(await store.exists(record.id), false, 'exists')
  },
  'end() of what is to be archived keeps fields and context, until the tombstone is written anew': async (store) => {
    for (const size of [10, 20_000, 200_000]) {
      const record = sample({
        fields: { a: '1', large: JSON.stringify('x'.repeat(size)), [HOSTILE]: JSON.stringify(HOSTILE) },
        userId: 'ann',
        previousToken: { hash: newToken().tokenHash, until: Date.now() + 1_000 },
        context: { ip: '127.0.0.1', userAgent: HOSTILE },
      })
      await store.create(record.id, record, 60)
      const ended = endOf({ by: HOSTILE, unarchived: true })
      equal((await store.end(record.id, ended, 60)).status, 'ended', 'status')
      const tombstone = await must(store, record.id)
      sameResult(tombstone.ended, ended)
      same(tombstone, applyEnd(record, ended))
      equal(tombstone.fields.size, 3, 'the number of fields')
      equal(await store.exists(record.id), false, 'exists')
      equal((await store.end(record.id, endOf(), 60)).status, 'over', 'status of a second end')
      const { unarchived: _, ...archived } = ended
      await store.set(record.id, applyEnd(tombstone, archived), 60)
      const bare = await must(store, record.id)
      sameResult(bare.ended, archived)
      same(bare, applyEnd(record, archived))
      equal(bare.fields.size, 0, 'the number of fields that are left')
    }
  },
  'every reason of an end comes back, with nothing that was not said': async (store) => {
    for (const reason of END_REASONS) {
      const record = sample()
      await store.create(record.id, record, 60)
      await store.end(record.id, endOf({ reason, at: record.createdAt - 1 }), 60)
      const { ended } = await must(store, record.id)
      sameResult(ended, { reason, at: record.createdAt - 1 })
      equal(ended?.by ?? ended?.detail ?? ended?.successor, undefined, 'what was not said')
    }
  },
  'a second end() is told that it is over, and by whom it was followed': async (store) => {
    const [plain, followed] = [sample(), sample()]
    const first = endOf({ reason: 'logout' })
    await store.create(plain.id, plain, 60)
    await store.end(plain.id, first, 60)
    const second = await store.end(plain.id, endOf({ reason: 'revoked', by: 'another', successor: newSessionId() }), 60)
    equal(second.status, 'over', 'status')
    equal(second.status === 'over' && second.successor, undefined, 'successor')
    sameResult((await must(store, plain.id)).ended, first)

    const nextId = newSessionId(followed.id)
    await store.create(followed.id, followed, 60)
    await store.end(followed.id, endOf({ reason: 'regenerated', successor: nextId }), 60)
    sameResult(await store.end(followed.id, endOf(), 60), { status: 'over', successor: nextId })
  },
  'end() of an unknown ID is over, and leaves nothing': async (store) => {
    const id = newSessionId()
    sameResult(await store.end(id, endOf(), 60), { status: 'over' })
    equal(await store.get(id), null, 'get')
  },
  'end() of an expired session leaves a tombstone': async (store) => {
    const record = sample({ age: 120_000, life: 60_000, fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const ended = endOf({ reason: 'idle' })
    equal((await store.end(record.id, ended, 60)).status, 'ended', 'status')
    same(await store.get(record.id), applyEnd(record, ended))
  },
  'nothing changes a tombstone but delete()': async (store) => {
    const record = sample({ fields: { a: '1' }, userId: 1 })
    await store.create(record.id, record, 60)
    await store.end(record.id, endOf({ by: 'admin' }), 60)
    const tombstone = await must(store, record.id)

    equal(await store.create(record.id, record, 60), false, 'create')
    const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 10_000 }
    for (const parts of [{ set: ONE_FIELD }, { renew }, { metadata: { userId: 2 } }, { isPassive: true }]) {
      equal((await store.update(record.id, changeOf(record, parts), 60)).status, 'ended', 'update')
    }
    const past = { ...changeOf(record, { set: ONE_FIELD }), at: record.createdAt - 1_000 }
    equal((await store.update(record.id, past, 60)).status, 'ended', 'update from before the end')
    equal(await store.touch(record.id, 60), false, 'touch')
    equal(await store.touch(record.id, 60, record.createdAt - 1_000), false, 'touch from before the end')
    const next = successor(record)
    equal((await store.regenerate(record.id, regenerationOf(record, next), 60)).status, 'ended', 'regenerate')
    equal(await store.get(next.id), null, 'the successor')
    const other = sample().with({ id: newSessionId(record.id) })
    await store.create(other.id, other, 60)
    const onto = { ...regenerationOf(other, record), generation: other.generation }
    equal((await store.regenerate(other.id, onto, 60)).status, 'taken', 'regenerate onto it')
    same(await store.get(record.id), tombstone)

    await store.delete(record.id)
    equal(await store.get(record.id), null, 'get after delete()')
  },
  'a record stays readable after its end, for as long as it was told to be kept': async (store) => {
    const record = sample({ age: 120_000, life: 60_000, fields: { a: '1' }, userId: 1 })
    await store.create(record.id, record, 60)
    same(await store.get(record.id), record)
    const second = record.withField('a', '2')
    await store.set(record.id, second, 60)
    same(await store.get(record.id), second)
    // A change of before the end, as from a machine whose clock is behind.
    const at = record.createdAt + 1_000
    const change = { ...changeOf(record, { set: ONE_FIELD }), at, expiresAt: at + 1_000 }
    equal((await store.update(record.id, change, 60)).status, 'updated', 'update')
    const updated = await must(store, record.id)
    sameFields(updated, { a: '2', late: 'true' })
    equal(updated.expiresAt, record.expiresAt, 'expiresAt')
    equal(await store.exists(record.id), false, 'exists')
  },
  'clearExpired() removes nothing that is to be kept: live records, expired ones, tombstones': async (store) => {
    const live = sample()
    await store.create(live.id, live, 60)
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    const ended = sample()
    await store.create(ended.id, ended, 60)
    const end = endOf()
    await store.end(ended.id, end, 60)
    equal(typeof (await store.clearExpired()), 'number', 'result')
    same(await store.get(live.id), live)
    same(await store.get(expired.id), expired)
    same(await store.get(ended.id), applyEnd(ended, end))
  },
}

/** Promises of `regenerate()`. */
export const REGENERATIONS: Record<string, Check> = {
  'the logical ID goes over to the new session with all fields, and not without': async (store) => {
    for (const keep of ['all', []] as const) {
      const record = sample({ logicalId: newSessionId() })
      await store.create(record.id, record, 60)
      const next = successor(record)
      await store.regenerate(record.id, regenerationOf(record, next, { keep }), 60)
      equal((await must(store, next.id)).logicalId, keep === 'all' ? record.logicalId : undefined, 'logicalId')
    }
    const record = sample({ logicalId: newSessionId() })
    await store.create(record.id, record, 60)
    const next = successor(record).with({ logicalId: newSessionId() })
    await store.regenerate(record.id, regenerationOf(record, next), 60)
    equal((await must(store, next.id)).logicalId, next.logicalId, 'logicalId')
  },
  'regenerate() ends the old session and begins the new one with all fields': async (store) => {
    const record = sample({ fields: { a: '1', b: '2', c: '3' }, userId: 1, persistent: true, idleTimeoutMs: 9_000 })
    await store.create(record.id, record, 60)
    const next = successor(record, { fields: { b: '20' }, userId: 2 })
    const regeneration = regenerationOf(record, next, { keep: 'all', delete: ['c'] })
    const result = await store.regenerate(record.id, regeneration, 60)
    equal(result.status, 'regenerated', 'status')
    equal(await store.exists(record.id), false, 'the old session')
    const expected = next.with({ fields: Object.entries({ a: '1', b: '20' }) })
    same(await store.get(next.id), expected)
    if (result.status === 'regenerated') same(result.record, expected)
  },
  'a context of any length comes back, and gives way to another one whole': async (store) => {
    for (const length of [1, 64, 65, 200, 900, 2_000]) {
      const record = sample({ context: { ip: '127.0.0.1', userAgent: 'u'.repeat(length), locale: 'ü' } })
      const plain = record.with({ context: { userAgent: 'u'.repeat(length) } })
      await store.create(record.id, record, 60)
      same(await store.get(record.id), record)
      await store.set(record.id, plain, 60)
      same(await store.get(record.id), plain)
      const next = successor(record).with({ context: { ip: '::1' } })
      await store.regenerate(record.id, regenerationOf(record, next), 60)
      same(await store.get(next.id), next)
    }
  },
  'regenerate() leaves a tombstone that names the successor': async (store) => {
    const record = sample({ fields: { a: '1' }, userId: 1, context: { ip: '127.0.0.1' }, epoch: 1 })
    await store.create(record.id, record, 60)
    const next = successor(record, { userId: 2 }).with({ context: { ip: '::1' }, epoch: 4 })
    const regeneration = regenerationOf(record, next)
    await store.regenerate(record.id, regeneration, 60)
    same(await store.get(record.id), applyEnd(record, endOfRegenerated(regeneration)))
    same(await store.get(next.id), next.withField('a', '1'))
    sameResult(await store.end(record.id, endOf(), 60), { status: 'over', successor: next.id })
    equal(await store.exists(next.id), true, 'the successor after end() of the old session')
  },
  'regenerate() of what is to be archived keeps fields and context in the tombstone': async (store) => {
    for (const size of [10, 20_000, 200_000]) {
      const large = JSON.stringify('x'.repeat(size))
      const record = sample({ fields: { a: '1', large }, userId: 1, context: { userAgent: HOSTILE } })
      await store.create(record.id, record, 60)
      const regeneration = { ...regenerationOf(record, successor(record), { keep: ['a'] }), unarchived: true } as const
      await store.regenerate(record.id, regeneration, 60)
      const tombstone = await must(store, record.id)
      same(tombstone, applyEnd(record, endOfRegenerated(regeneration)))
      equal(tombstone.fields.size, 2, 'the number of fields')
      sameFields(await must(store, regeneration.next.id), { a: '1' })
      sameResult(await store.end(record.id, endOf(), 60), { status: 'over', successor: regeneration.next.id })
    }
  },
  'regenerate() keeps only the fields that it names': async (store) => {
    const record = sample({ fields: { a: '1', b: '2', c: '3' } })
    await store.create(record.id, record, 60)
    const next = successor(record, { fields: { d: '4' } })
    await store.regenerate(record.id, regenerationOf(record, next, { keep: ['a', 'absent'] }), 60)
    sameFields(await must(store, next.id), { a: '1', d: '4' })
    const last = successor(next)
    await store.regenerate(next.id, regenerationOf(next, last, { keep: [] }), 60)
    sameFields(await must(store, last.id), {})
  },
  'regenerate() of an ended session begins nothing': async (store) => {
    const record = sample()
    const next = successor(record)
    equal((await store.regenerate(record.id, regenerationOf(record, next), 60)).status, 'ended', 'status')
    equal(await store.get(next.id), null, 'the new session')
  },
  'regenerate() that comes after its deadline is not done': async (store) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const next = successor(record)
    const regeneration = regenerationOf(record, next, { notAfter: performance.now() - 1 })
    await tooLate('regenerate()', store.regenerate(record.id, regeneration, 60))
    same(await store.get(record.id), record)
    equal(await store.get(next.id), null, 'the new session')
    const inTime = regenerationOf(record, next, { notAfter: performance.now() + 60_000 })
    equal((await store.regenerate(record.id, inTime, 60)).status, 'regenerated', 'status')
  },
  'regenerate() never overwrites': async (store) => {
    const record = sample()
    const other = successor(record, { fields: { other: '1' } })
    await store.create(record.id, record, 60)
    await store.create(other.id, other, 60)
    equal((await store.regenerate(record.id, regenerationOf(record, other), 60)).status, 'taken', 'status')
    same(await store.get(record.id), record)
    same(await store.get(other.id), other)
  },
}
