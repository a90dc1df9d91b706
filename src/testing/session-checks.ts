// What every store promises of one session: that it is kept whole, changed in one step, and stays ended.
import { newSessionId, newToken } from '../ids.js'
import { applyEnd, END_REASONS, endOfRegenerated, type SessionData, type UpdateResult } from '../record/session-data.js'
import {
  afterTurns,
  attempt,
  type Check,
  changeOf,
  concurrently,
  endOf,
  equal,
  HOSTILE,
  must,
  ONE_FIELD,
  pick,
  regenerationOf,
  same,
  sameFields,
  sameResult,
  sample,
  successor,
} from './samples.js'

/** Promises that hold without any two calls at the same time. */
export const BASIC: Record<string, Check> = {
  'get() of an unknown ID is null': async (store) => {
    equal(await store.get(newSessionId()), null, 'get')
  },
  'what create() wrote, get() returns': async (store) => {
    const record = sample()
    equal(await store.create(record.id, record, 60), true, 'create')
    same(await store.get(record.id), record)
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
  'exists() tells live records from expired and absent ones': async (store) => {
    const live = sample()
    await store.create(live.id, live, 60)
    const expired = sample({ age: 120_000, life: 60_000 })
    await store.create(expired.id, expired, 60)
    equal(await store.exists(live.id), true, 'live')
    equal(await store.exists(expired.id), false, 'expired')
    equal(await store.exists(newSessionId()), false, 'absent')
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
  'regenerate() never overwrites': async (store) => {
    const record = sample()
    const other = successor(record, { fields: { other: '1' } })
    await store.create(record.id, record, 60)
    await store.create(other.id, other, 60)
    equal((await store.regenerate(record.id, regenerationOf(record, other), 60)).status, 'taken', 'status')
    same(await store.get(record.id), record)
    same(await store.get(other.id), other)
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

/** Promises on calls at the same time, on one store or on two. */
export const ATOMIC: Record<string, Check> = {
  '100 concurrent changes of different fields all survive': async (store, peer) => {
    const record = sample()
    await store.create(record.id, record, 60)
    await concurrently(100, (index) =>
      pick(index, store, peer).update(record.id, changeOf(record, { set: new Map([[`f${index}`, `${index}`]]) }), 60),
    )
    const after = await must(peer, record.id)
    equal(after.fields.size, 100, 'number of fields')
  },
  '100 concurrent read-modify-writes of one field all count': async (store, peer) => {
    const record = sample({ fields: { n: '0' } })
    await store.create(record.id, record, 60)
    await concurrently(100, async (index) => {
      const mine = pick(index, store, peer)
      for (let text: string | undefined = '0'; ; ) {
        const change = changeOf(record, {
          set: new Map([['n', String(Number(text) + 1)]]),
          expect: { field: 'n', text },
        })
        const result = await mine.update(record.id, change, 60)
        if (result.status === 'updated') return
        if (result.status !== 'conflict') throw new Error(`update() of a live session resolved to ${result.status}`)
        text = result.text
      }
    })
    equal((await must(peer, record.id)).fields.get('n'), '100', 'n')
  },
  'of 20 concurrent create() of one ID exactly one wins': async (store, peer) => {
    const record = sample()
    const results = await concurrently(20, (index) =>
      pick(index, store, peer).create(record.id, record.withField('n', String(index)), 60),
    )
    equal(results.filter(Boolean).length, 1, 'winners')
    equal((await must(peer, record.id)).fields.get('n'), String(results.indexOf(true)), 'content')
  },
  'of 20 concurrent renewals exactly one wins': async (store, peer) => {
    const record = sample()
    await store.create(record.id, record, 60)
    const results = await concurrently(20, (index) => {
      const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 1_000 }
      return pick(index, store, peer).update(record.id, changeOf(record, { renew }), 60)
    })
    equal(results.filter(({ status }) => status === 'updated').length, 1, 'winners')
  },
  'of 20 concurrent regenerations exactly one wins, and exactly one session is left': async (store, peer) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const successors = Array.from({ length: 20 }, () => successor(record))
    const results = await concurrently(20, (index) =>
      pick(index, store, peer).regenerate(record.id, regenerationOf(record, successors[index] as SessionData), 60),
    )
    equal(results.filter(({ status }) => status === 'regenerated').length, 1, 'winners')
    const left = await Promise.all([record, ...successors].map(({ id }) => peer.exists(id)))
    equal(left.filter(Boolean).length, 1, 'sessions')
    equal(left[0], false, 'the old session')
    const winner = successors[results.findIndex(({ status }) => status === 'regenerated')]
    equal((await must(peer, record.id)).ended?.successor, winner?.id, 'the successor')
  },
  'of 20 concurrent end() exactly one ends the session, and its reason stands': async (store, peer) => {
    const record = sample({ fields: { a: '1' } })
    await store.create(record.id, record, 60)
    const results = await concurrently(20, (index) =>
      pick(index, store, peer).end(record.id, endOf({ by: String(index) }), 60),
    )
    equal(results.filter(({ status }) => status === 'ended').length, 1, 'winners')
    const winner = results.findIndex(({ status }) => status === 'ended')
    equal((await must(peer, record.id)).ended?.by, String(winner), 'who ended it')
  },
  'of an end and a regeneration at once one wins, and the end is told of the successor': async (store, peer) => {
    for (let round = 0; round < 20; round++) {
      const record = sample()
      await store.create(record.id, record, 60)
      const next = successor(record)
      const [ended, regenerated] = await Promise.all([
        afterTurns(round % 4, () => store.end(record.id, endOf(), 60)),
        afterTurns((round >> 2) % 3, () => peer.regenerate(record.id, regenerationOf(record, next), 60)),
      ])
      const isNext = regenerated.status === 'regenerated'
      sameResult(ended, isNext ? { status: 'over', successor: next.id } : { status: 'ended' })
      equal(await store.exists(next.id), isNext, `whether there is a successor, round ${round}`)
      equal((await must(peer, record.id)).ended?.successor, isNext ? next.id : undefined, 'the successor')
    }
  },
  'ended stays ended: no update, touch, renewal or regeneration brings a session back': async (store, peer) => {
    for (let round = 0; round < 40; round++) {
      const record = sample({ fields: { a: '1' } })
      await store.create(record.id, record, 60)
      const next = successor(record)
      const renew = { from: record.tokenHash, to: newToken().tokenHash, graceUntil: Date.now() + 1_000 }
      // The end comes at every distance from each of the others.
      await Promise.all([
        afterTurns(round % 8, () => store.end(record.id, endOf(), 60)),
        afterTurns((round >> 1) % 3, () => peer.update(record.id, changeOf(record, { set: ONE_FIELD }), 60)),
        afterTurns((round >> 2) % 3, () => peer.touch(record.id, 60)),
        afterTurns((round >> 3) % 3, () => peer.update(record.id, changeOf(record, { renew }), 60)),
        afterTurns((round >> 4) % 3, async () => {
          if (round % 2 === 0) await peer.regenerate(record.id, regenerationOf(record, next), 60)
        }),
      ])
      const tombstone = await must(peer, record.id)
      equal(tombstone.ended === undefined, false, `whether the session is alive, round ${round}`)
      sameFields(tombstone, {})
    }
  },
}
