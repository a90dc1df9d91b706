// The record of a session: its end, its JSON, and how changes apply to it.
import { deepStrictEqual } from 'node:assert/strict'
import { describe, expect, test } from '@jest/globals'
import fc from 'fast-check'
import {
  applyChange,
  applyEnd,
  applyRegeneration,
  applyTouch,
  type EndReason,
  endOfRegenerated,
  isSessionError,
  type SessionChange,
  type SessionContext,
  SessionData,
  type SessionDataInit,
  type SessionEnd,
} from 'sojourn'
import { readContext, readEnd } from '../../src/record/session-data.js'

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5, 678)
const MINUTE = 60_000

function record(members: Partial<SessionDataInit> = {}): SessionData {
  return new SessionData({
    id: '3b241101-e2bb-4255-8caf-4136c566a962',
    tokenHash: 'hash',
    generation: 1,
    createdAt: NOW,
    updatedAt: NOW,
    lastAccessedAt: NOW,
    expiresAt: NOW + 30 * MINUTE,
    absoluteExpiresAt: NOW + 720 * MINUTE,
    fields: [['a', '1']],
    ...members,
  })
}

function change(members: Partial<SessionChange> = {}): SessionChange {
  return { generation: 1, at: NOW + MINUTE, expiresAt: NOW + 31 * MINUTE, ...members }
}

/** The record after a change that must apply. */
function changed(before: SessionData, members: Partial<SessionChange>): SessionData {
  const { result, record: after } = applyChange(before, change(members))
  expect(result).toEqual({ status: 'updated' })
  return after as SessionData
}

const REASONS: readonly EndReason[] = ['idle', 'absolute', 'logout', 'destroyed', 'regenerated', 'revoked', 'limit']
const ENDED: SessionEnd = { reason: 'revoked', at: NOW + 1, by: 'admin', detail: 'lost device', successor: 'next' }

const entries = (map: ReadonlyMap<string, string>): object => Object.fromEntries(map)

describe('the end', () => {
  test.each([
    ['before either end', 0, null],
    ['one millisecond before the idle end', 30 * MINUTE - 1, null],
    ['at the idle end', 30 * MINUTE, 'idle'],
    ['between the ends', 31 * MINUTE, 'idle'],
    ['at the absolute end', 720 * MINUTE, 'absolute'],
    ['long after', 10_000 * MINUTE, 'absolute'],
    ['when the clock was set back', -10_000 * MINUTE, null],
  ] as const)('%s', (_when, after, reason) => {
    expect(record().expiryReason(NOW + after)).toBe(reason)
    expect(record().isExpired(NOW + after)).toBe(reason !== null)
  })

  test("the record's own idle timeout counts from its last access", () => {
    const own = record({ idleTimeoutMs: MINUTE })
    expect(own.expiryReason(NOW + MINUTE - 1)).toBeNull()
    expect(own.expiryReason(NOW + MINUTE)).toBe('idle')
  })

  test('the absolute end counts even when the idle end is written as later', () => {
    expect(record({ expiresAt: NOW + 10, absoluteExpiresAt: NOW + 5 }).expiryReason(NOW + 5)).toBe('absolute')
  })

  test('isExpired without a time uses the present', () => {
    expect(record().isExpired()).toBe(record().isExpired(Date.now()))
    expect(record({ expiresAt: Date.now() + MINUTE, absoluteExpiresAt: Date.now() + MINUTE }).isExpired()).toBe(false)
    expect(record({ expiresAt: Date.now() - 1 }).isExpired()).toBe(true)
  })

  test('a record that was ended is over at any time, though it ran into no timeout', () => {
    const tombstone = record({ ended: ENDED })
    expect(tombstone.isExpired(NOW - 10_000 * MINUTE)).toBe(true)
    expect(tombstone.expiryReason(NOW)).toBeNull()
  })

  test('a clock that was set back counts from the last access', () => {
    expect(record().effectiveNow(NOW - MINUTE)).toBe(NOW)
    expect(record().effectiveNow(NOW + MINUTE)).toBe(NOW + MINUTE)
  })
})

describe('a record is immutable', () => {
  test('its members and its fields', () => {
    const data = record()
    expect(() => Object.assign(data, { userId: 'mallory' })).toThrow(TypeError)
    const fields = data.fields as Map<string, string>
    for (const act of [() => fields.set('a', '2'), () => fields.delete('a'), () => fields.clear()]) {
      expect(act).toThrow(/read-only/)
    }
    expect(entries(data.fields)).toEqual({ a: '1' })
  })

  test('and does not share the map that it was made of', () => {
    const fields = new Map([['a', '1']])
    const data = record({ fields })
    fields.set('a', '2')
    expect(data.fields.get('a')).toBe('1')
  })

  test('and what it is made of: context, end, previous token', () => {
    const context = { ip: '127.0.0.1' }
    const ended = { ...ENDED }
    const previousToken = { hash: 'old', until: NOW }
    const data = record({ context, ended, previousToken })
    Object.assign(context, { ip: 'mallory' })
    Object.assign(ended, { reason: 'idle' })
    Object.assign(previousToken, { hash: 'mallory' })
    expect(data).toMatchObject({ context: { ip: '127.0.0.1' }, ended: ENDED, previousToken: { hash: 'old' } })
    for (const part of [data.context, data.ended, data.previousToken]) {
      expect(() => Object.assign(part as object, { ip: '', reason: '', hash: '' })).toThrow(TypeError)
    }
  })

  test('with() and withField() make copies', () => {
    const data = record({ userId: 7 })
    expect(data.with({ userId: undefined }).userId).toBeUndefined()
    expect(entries(data.withField('b', '2').fields)).toEqual({ a: '1', b: '2' })
    expect(entries(data.withField('a', undefined).fields)).toEqual({})
    expect([data.userId, entries(data.fields)]).toEqual([7, { a: '1' }])
  })
})

describe('JSON', () => {
  const time = fc.integer({ min: -8_640_000_000_000_000, max: 8_640_000_000_000_000 })
  const anyText = fc.oneof(fc.constantFrom('', '__proto__', '\u0000', '\ud800'), fc.string({ unit: 'binary' }))
  const anyRecord = fc
    .record(
      {
        id: fc.uuid(),
        tokenHash: fc.string({ minLength: 1 }),
        previousToken: fc.record({ hash: fc.string({ minLength: 1 }), until: time }, { noNullPrototype: true }),
        generation: fc.nat(),
        createdAt: time,
        updatedAt: time,
        lastAccessedAt: time,
        expiresAt: time,
        absoluteExpiresAt: time,
        idleTimeoutMs: fc.nat(),
        persistent: fc.boolean(),
        userId: fc.oneof(
          fc.string(),
          fc.integer(),
          fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => n + 0),
        ),
        context: fc.record(
          { ip: anyText, userAgent: anyText, referrer: anyText, locale: anyText },
          { requiredKeys: [], noNullPrototype: true },
        ),
        epoch: fc.nat(),
        ended: fc.record(
          { reason: fc.constantFrom(...REASONS), at: time, by: anyText, detail: anyText, successor: fc.uuid() },
          { requiredKeys: ['reason', 'at'], noNullPrototype: true },
        ),
        fields: fc.array(
          fc.tuple(
            fc.oneof(fc.constantFrom('__proto__', 'constructor', '', '0', 'toJSON'), fc.string({ unit: 'binary' })),
            fc.string({ unit: 'binary' }),
          ),
        ),
      },
      {
        requiredKeys: [
          ...(['id', 'tokenHash', 'generation', 'createdAt', 'updatedAt', 'lastAccessedAt'] as const),
          ...(['expiresAt', 'absoluteExpiresAt', 'fields'] as const),
        ],
      },
    )
    .map((init) => new SessionData(init))

  /** Without the difference between what is absent and what is there as undefined. */
  const comparable = (data: SessionData): object => ({
    ...data,
    ended: data.ended && Object.fromEntries(Object.entries(data.ended).filter(([, value]) => value !== undefined)),
    fields: new Map(data.fields),
  })

  test('every record comes back, from the object and from its text', () => {
    fc.assert(
      fc.property(anyRecord, (data) => {
        deepStrictEqual(comparable(SessionData.fromJSON(data.toJSON())), comparable(data))
        deepStrictEqual(comparable(SessionData.fromJSON(JSON.stringify(data))), comparable(data))
      }),
    )
  })

  test('times are ISO 8601 in UTC, and what is absent is not there', () => {
    expect(JSON.parse(JSON.stringify(record({ previousToken: { hash: 'old', until: NOW } })))).toEqual({
      id: '3b241101-e2bb-4255-8caf-4136c566a962',
      tokenHash: 'hash',
      previousToken: { hash: 'old', until: '2026-01-02T03:04:05.678Z' },
      generation: 1,
      createdAt: '2026-01-02T03:04:05.678Z',
      updatedAt: '2026-01-02T03:04:05.678Z',
      lastAccessedAt: '2026-01-02T03:04:05.678Z',
      expiresAt: '2026-01-02T03:34:05.678Z',
      absoluteExpiresAt: '2026-01-02T15:04:05.678Z',
      fields: { a: '1' },
    })
  })

  test('context, epoch and end are there when there is something to say', () => {
    const told = record({ context: { ip: '::1', locale: 'de' }, epoch: 3, ended: ENDED }).toJSON()
    expect(told).toMatchObject({ context: { ip: '::1', locale: 'de' }, epoch: 3 })
    expect(told.ended).toEqual({ ...ENDED, at: '2026-01-02T03:04:05.679Z' })
    expect(Object.keys(record({ epoch: 0 }).toJSON())).not.toEqual(expect.arrayContaining(['epoch']))
    expect(SessionData.fromJSON(record().toJSON())).toMatchObject({ context: undefined, epoch: 0, ended: undefined })
  })

  test('of context and end nothing comes back that does not belong there', () => {
    const json = { ...record().toJSON(), context: { ip: '::1', admin: 'yes' }, ended: { ...END_JSON, admin: 'yes' } }
    const read = SessionData.fromJSON(json)
    expect(read.context).toEqual({ ip: '::1' })
    expect(read.ended).toEqual({ reason: 'revoked', at: NOW })
  })

  const END_JSON = { reason: 'revoked', at: '2026-01-02T03:04:05.678Z' }
  const REQUIRED = ['id', 'tokenHash', 'generation', 'createdAt', 'updatedAt', 'lastAccessedAt', 'expiresAt']
  const bad: [what: string, json: unknown][] = [
    ['undefined', undefined],
    ['null', null],
    ['an array', []],
    ['a number', 5],
    ['empty text', ''],
    ['text that is not JSON', '{'],
    ['JSON that is no object', '[1]'],
    ...[...REQUIRED, 'absoluteExpiresAt', 'fields'].flatMap((name): [string, unknown][] => [
      [`no ${name}`, { ...record().toJSON(), [name]: undefined }],
      [`${name}: null`, { ...record().toJSON(), [name]: null }],
      [`${name}: an array`, { ...record().toJSON(), [name]: ['2026-01-02T03:04:05.678Z'] }],
    ]),
    ...['createdAt', 'expiresAt', 'absoluteExpiresAt'].flatMap((name): [string, unknown][] => [
      [`${name}: a number`, { ...record().toJSON(), [name]: 2026 }],
      [`${name}: a loose time`, { ...record().toJSON(), [name]: '5' }],
      [`${name}: a day that does not exist`, { ...record().toJSON(), [name]: '2026-13-41T00:00:00.000Z' }],
    ]),
    ['an empty ID', { ...record().toJSON(), id: '' }],
    ['a generation below 0', { ...record().toJSON(), generation: -1 }],
    ['a generation that is text', { ...record().toJSON(), generation: '1' }],
    ['a generation that is no whole number', { ...record().toJSON(), generation: 1.5 }],
    ['an idle timeout that is text', { ...record().toJSON(), idleTimeoutMs: '60000' }],
    ['persistent as text', { ...record().toJSON(), persistent: 'yes' }],
    ['a user that is an object', { ...record().toJSON(), userId: { admin: true } }],
    ['a user that is null', { ...record().toJSON(), userId: null }],
    ['a previous token that is text', { ...record().toJSON(), previousToken: 'hash' }],
    ['a previous token without its end', { ...record().toJSON(), previousToken: { hash: 'hash' } }],
    ['a context that is text', { ...record().toJSON(), context: '127.0.0.1' }],
    ['a context that is null', { ...record().toJSON(), context: null }],
    ['a context that is an array', { ...record().toJSON(), context: ['127.0.0.1'] }],
    ...['ip', 'userAgent', 'referrer', 'locale'].flatMap((name): [string, unknown][] => [
      [`a context whose ${name} is a number`, { ...record().toJSON(), context: { [name]: 1 } }],
      [`a context whose ${name} is null`, { ...record().toJSON(), context: { [name]: null } }],
    ]),
    ['an epoch below 0', { ...record().toJSON(), epoch: -1 }],
    ['an epoch that is text', { ...record().toJSON(), epoch: '1' }],
    ['an epoch that is null', { ...record().toJSON(), epoch: null }],
    ['an epoch that is no whole number', { ...record().toJSON(), epoch: 0.5 }],
    ['an end that is text', { ...record().toJSON(), ended: 'revoked' }],
    ['an end that is null', { ...record().toJSON(), ended: null }],
    ['an end that is an array', { ...record().toJSON(), ended: [END_JSON] }],
    ['an end that is false', { ...record().toJSON(), ended: false }],
    ['an end without a reason', { ...record().toJSON(), ended: { ...END_JSON, reason: undefined } }],
    ['an end for an unknown reason', { ...record().toJSON(), ended: { ...END_JSON, reason: 'toString' } }],
    ['an end without a time', { ...record().toJSON(), ended: { ...END_JSON, at: undefined } }],
    ['an end whose time is a number', { ...record().toJSON(), ended: { ...END_JSON, at: NOW } }],
    ['an end by something', { ...record().toJSON(), ended: { ...END_JSON, by: { id: 1 } } }],
    ['an end with a detail that is a number', { ...record().toJSON(), ended: { ...END_JSON, detail: 7 } }],
    ['an end with a successor that is null', { ...record().toJSON(), ended: { ...END_JSON, successor: null } }],
    ['a field that is not encoded', { ...record().toJSON(), fields: { a: 1 } }],
    ['a field that is an object', { ...record().toJSON(), fields: { a: {} } }],
  ]
  test.each(bad)('refused: %s', (_what, json) => {
    for (const input of [json, JSON.stringify(json) ?? '']) {
      let caught: unknown
      try {
        SessionData.fromJSON(input)
      } catch (error) {
        caught = error
      }
      expect(isSessionError(caught, 'CORRUPT_RECORD')).toBe(true)
    }
  })

  test('no text, however broken, does anything but give a record or CORRUPT_RECORD', () => {
    fc.assert(
      fc.property(anyRecord, fc.nat(), fc.nat(20), fc.string(), (data, at, length, junk) => {
        const text = JSON.stringify(data)
        const start = at % text.length
        try {
          SessionData.fromJSON(text.slice(0, start) + junk + text.slice(start + length))
        } catch (error) {
          expect(isSessionError(error, 'CORRUPT_RECORD')).toBe(true)
        }
      }),
    )
  })
})

describe('context and end in a store’s own format', () => {
  test('come back', () => {
    const context: SessionContext = { ip: '::1', userAgent: '', locale: 'de' }
    expect(readContext(JSON.parse(JSON.stringify(context)))).toEqual(context)
    expect(readEnd(JSON.parse(JSON.stringify(ENDED)))).toEqual(ENDED)
    for (const reason of REASONS) expect(readEnd({ reason, at: NOW })).toEqual({ reason, at: NOW })
  })

  test.each([
    null,
    'text',
    5,
    [],
    { at: NOW },
    { reason: 'revoked' },
    { reason: 'no', at: NOW },
    { ...ENDED, at: '5' },
  ])('an end is refused: %j', (value) => {
    expect(() => readEnd(value)).toThrow(expect.objectContaining({ code: 'CORRUPT_RECORD' }))
  })

  test.each([null, 'text', 5, [], { ip: 1 }, { locale: {} }])('a context is refused: %j', (value) => {
    expect(() => readContext(value)).toThrow(expect.objectContaining({ code: 'CORRUPT_RECORD' }))
  })
})

describe('applyChange', () => {
  test.each([
    ['no record', null, {}],
    ['a tombstone', record({ ended: ENDED }), {}],
    ['a tombstone, of before it ended', record({ ended: ENDED }), { at: NOW - MINUTE }],
    ['no activity on a tombstone', record({ ended: ENDED }), { isPassive: true }],
    ['another generation', record({ generation: 2 }), {}],
    ['a record past its idle end', record(), { at: NOW + 30 * MINUTE }],
    ['a record past its absolute end', record({ absoluteExpiresAt: NOW + 1 }), {}],
  ])('%s: ended, and nothing to store', (_what, before, members) => {
    expect(applyChange(before, change(members))).toEqual({ result: { status: 'ended' }, record: null })
  })

  test('writes, removes and keeps fields, and sets the times', () => {
    const before = record({ fields: Object.entries({ a: '1', b: '2', c: '3' }) })
    const after = changed(before, {
      set: new Map([
        ['b', '20'],
        ['d', '4'],
      ]),
      delete: ['c', 'absent'],
    })
    expect(entries(after.fields)).toEqual({ a: '1', b: '20', d: '4' })
    expect(after.updatedAt).toBe(NOW + MINUTE)
    expect(after.lastAccessedAt).toBe(NOW + MINUTE)
    expect(after.expiresAt).toBe(NOW + 31 * MINUTE)
    expect(entries(before.fields)).toEqual({ a: '1', b: '2', c: '3' })
  })

  test('a field that is both removed and set is set', () => {
    expect(entries(changed(record(), { set: new Map([['a', '2']]), delete: ['a'] }).fields)).toEqual({ a: '2' })
  })

  test('updatedAt stays when no field is concerned', () => {
    expect(changed(record(), { set: new Map(), delete: [], metadata: { userId: 7 } }).updatedAt).toBe(NOW)
  })

  test('expect holds or conflicts, with what is there', () => {
    const set = new Map([['a', '2']])
    expect(changed(record(), { set, expect: { field: 'a', text: '1' } }).fields.get('a')).toBe('2')
    expect(changed(record(), { set, expect: { field: 'b', text: undefined } }).fields.get('a')).toBe('2')
    const conflict = applyChange(record(), change({ set, expect: { field: 'a', text: '0' } }))
    expect(conflict.result).toEqual({ status: 'conflict', text: '1' })
    expect(conflict.record?.fields.get('a')).toBe('1')
    expect(applyChange(record(), change({ expect: { field: 'b', text: '1' } })).result).toEqual({
      status: 'conflict',
      text: undefined,
    })
  })

  test('a renewal replaces the token that it knows, and no other', () => {
    const renew = { from: 'hash', to: 'next', graceUntil: NOW + 10_000 }
    const after = changed(record(), { renew })
    expect(after.tokenHash).toBe('next')
    expect(after.previousToken).toEqual({ hash: 'hash', until: NOW + 10_000 })
    expect(applyChange(after, change({ renew })).result).toEqual({ status: 'renewed' })
  })

  test('an end never moves back, nor beyond the absolute one', () => {
    expect(changed(record(), { expiresAt: NOW + 2 * MINUTE }).expiresAt).toBe(NOW + 30 * MINUTE)
    expect(changed(record(), { expiresAt: NOW + 9_999 * MINUTE }).expiresAt).toBe(NOW + 720 * MINUTE)
  })

  test('a new idle timeout may shorten, a new absolute end moves along', () => {
    const short = changed(record(), { expiresAt: NOW + 2 * MINUTE, metadata: { idleTimeoutMs: MINUTE } })
    expect([short.expiresAt, short.idleTimeoutMs]).toEqual([NOW + 2 * MINUTE, MINUTE])
    const absoluteExpiresAt = NOW + 9_999 * MINUTE
    const long = changed(record(), {
      expiresAt: absoluteExpiresAt,
      metadata: { idleTimeoutMs: 9_998 * MINUTE, absoluteExpiresAt },
    })
    expect([long.expiresAt, long.absoluteExpiresAt]).toEqual([absoluteExpiresAt, absoluteExpiresAt])
  })

  test('undefined in the metadata removes, and what is not named stays', () => {
    const before = record({ userId: 7, persistent: true })
    expect(changed(before, { metadata: { userId: undefined } }).userId).toBeUndefined()
    expect(changed(before, { metadata: { userId: undefined } }).persistent).toBe(true)
  })

  test('no activity: fields and metadata are written, last access and end stay', () => {
    const after = changed(record(), { set: new Map([['b', '2']]), metadata: { userId: 7 }, isPassive: true })
    expect(after).toEqual(record({ fields: Object.entries({ a: '1', b: '2' }), userId: 7, updatedAt: NOW + MINUTE }))
    expect(changed(record(), { isPassive: true })).toEqual(record())
  })

  test('no activity: what the metadata says of the end counts all the same', () => {
    const sooner = changed(record(), { metadata: { absoluteExpiresAt: NOW + MINUTE }, isPassive: true })
    expect([sooner.absoluteExpiresAt, sooner.expiresAt, sooner.lastAccessedAt]).toEqual([
      NOW + MINUTE,
      NOW + MINUTE,
      NOW,
    ])
    const own = changed(record(), {
      expiresAt: NOW + 5 * MINUTE,
      metadata: { idleTimeoutMs: 5 * MINUTE },
      isPassive: true,
    })
    expect([own.idleTimeoutMs, own.expiresAt, own.lastAccessedAt]).toEqual([5 * MINUTE, NOW + 5 * MINUTE, NOW])
  })

  test('context and epoch stay', () => {
    const after = changed(record({ context: { ip: '::1' }, epoch: 2 }), { set: new Map([['a', '2']]) })
    expect([after.context, after.epoch]).toEqual([{ ip: '::1' }, 2])
  })

  test('a clock that was set back moves neither the last access nor the update', () => {
    const after = changed(record(), { at: NOW - MINUTE, set: new Map([['a', '2']]) })
    expect([after.lastAccessedAt, after.updatedAt]).toEqual([NOW, NOW])
  })
})

describe('applyTouch', () => {
  test('moves the idle end, and nothing else', () => {
    const touched = applyTouch(record(), 1800, NOW + MINUTE)
    expect(touched).toEqual(record({ lastAccessedAt: NOW + MINUTE, expiresAt: NOW + 31 * MINUTE }))
  })

  test('never beyond the absolute end, and never back', () => {
    expect(applyTouch(record(), 999_999, NOW)?.expiresAt).toBe(NOW + 720 * MINUTE)
    expect(applyTouch(record(), 1, NOW)?.expiresAt).toBe(NOW + 30 * MINUTE)
  })

  test('a clock that was set back extends from the last access', () => {
    const touched = applyTouch(record(), 1800, NOW - 10 * MINUTE)
    expect([touched?.lastAccessedAt, touched?.expiresAt]).toEqual([NOW, NOW + 30 * MINUTE])
  })

  test('what is over stays over', () => {
    expect(applyTouch(null, 1800, NOW)).toBeNull()
    expect(applyTouch(record(), 1800, NOW + 30 * MINUTE)).toBeNull()
    expect(applyTouch(record({ ended: ENDED }), 1800, NOW - MINUTE)).toBeNull()
  })
})

function regenerated(...args: Parameters<typeof applyRegeneration>): SessionData | undefined {
  const result = applyRegeneration(...args)
  return result.status === 'regenerated' ? result.record : undefined
}

describe('applyRegeneration', () => {
  const before = record({ fields: Object.entries({ a: '1', b: '2', c: '3' }), userId: 7 })
  const next = record({ id: 'next', generation: 2, tokenHash: 'next', fields: [['b', '20']], userId: 8 })
  const regeneration = { generation: 1, at: NOW, next, keep: 'all' as const, tombstoneSeconds: 300 }

  test('keeps all fields, lays its own over them, and leaves out what is deleted', () => {
    const after = regenerated(before, { ...regeneration, delete: ['a', 'b'] })
    expect(entries(after?.fields ?? new Map())).toEqual({ b: '20', c: '3' })
    expect([after?.id, after?.tokenHash, after?.generation, after?.userId]).toEqual(['next', 'next', 2, 8])
  })

  test('keeps only the named fields', () => {
    const after = regenerated(before, { ...regeneration, keep: ['c', 'absent'] })
    expect(entries(after?.fields ?? new Map())).toEqual({ b: '20', c: '3' })
    expect(entries(regenerated(before, { ...regeneration, keep: [] })?.fields ?? new Map())).toEqual({ b: '20' })
  })

  test('makes no session larger than the limits, nor one that is larger already larger yet', () => {
    const limits = { maxBytes: 9, maxFields: 3 }
    const add = (name: string, text: string): SessionData => next.with({ fields: [[name, text]] })
    expect(applyRegeneration(before, { ...regeneration, limits }).status).toBe('regenerated')
    expect(applyRegeneration(before, { ...regeneration, next: add('d', '4'), limits })).toEqual({
      status: 'too-large',
      bytes: 8,
      fields: 4,
    })
    const wide = { ...regeneration, next: add('b', 'éééé'), limits }
    expect(applyRegeneration(before, wide)).toEqual({ status: 'too-large', bytes: 13, fields: 3 })
    const shrinking = { ...regeneration, delete: ['a'], limits: { maxBytes: 1, maxFields: 1 } }
    expect(applyRegeneration(before, shrinking).status).toBe('regenerated')
  })

  test('of what is over, or of another generation, is nothing', () => {
    expect(applyRegeneration(null, regeneration)).toEqual({ status: 'ended' })
    expect(applyRegeneration(before, { ...regeneration, generation: 2 })).toEqual({ status: 'ended' })
    expect(applyRegeneration(before, { ...regeneration, at: NOW + 30 * MINUTE })).toEqual({ status: 'ended' })
    expect(applyRegeneration(before.with({ ended: ENDED }), regeneration)).toEqual({ status: 'ended' })
  })

  test('takes context and epoch from the successor', () => {
    const old = before.with({ context: { ip: '127.0.0.1' }, epoch: 1 })
    const after = regenerated(old, { ...regeneration, next: next.with({ context: { ip: '::1' }, epoch: 2 }) })
    expect([after?.context, after?.epoch]).toEqual([{ ip: '::1' }, 2])
    expect(regenerated(old, regeneration)?.context).toBeUndefined()
  })

  test('ends the old session for the new one', () => {
    expect(endOfRegenerated(regeneration)).toEqual({ reason: 'regenerated', at: NOW, successor: 'next' })
  })
})

describe('applyEnd', () => {
  const alive = record({
    userId: 7,
    persistent: true,
    idleTimeoutMs: MINUTE,
    epoch: 3,
    context: { ip: '::1' },
    previousToken: { hash: 'old', until: NOW + MINUTE },
  })

  test('keeps whose session it was, which token opened it and when it was; no field, no client, no grace', () => {
    const tombstone = applyEnd(alive, ENDED)
    expect(tombstone).toEqual(alive.with({ ended: ENDED, fields: [], context: undefined, previousToken: undefined }))
    expect([tombstone.userId, tombstone.tokenHash, tombstone.generation, tombstone.epoch]).toEqual([7, 'hash', 1, 3])
    expect(tombstone.isExpired(NOW)).toBe(true)
  })

  test('leaves the record that it was made of as it is', () => {
    applyEnd(alive, ENDED)
    expect([alive.ended, entries(alive.fields)]).toEqual([undefined, { a: '1' }])
  })

  test('nothing brings it back: no change, touch or regeneration applies', () => {
    const tombstone = applyEnd(alive, ENDED)
    const at = NOW - MINUTE
    expect(applyChange(tombstone, change({ at })).result).toEqual({ status: 'ended' })
    expect(applyTouch(tombstone, 1800, at)).toBeNull()
    const next = record({ id: 'next', generation: 2 })
    expect(applyRegeneration(tombstone, { generation: 1, at, next, keep: 'all', tombstoneSeconds: 1 })).toEqual({
      status: 'ended',
    })
  })
})
