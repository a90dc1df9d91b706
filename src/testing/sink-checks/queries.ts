// What an archive promises of its answers: order, pages, conditions and counts.

import type { Activity } from '../../events/activity-hook.js'
import type { ActivityPageQuery, ActivitySums } from '../../features/activity/sinks/sink.js'
import { earlier, later, sumsOfPages } from '../../features/activity/sums.js'
import { newLogicalId, newSessionId } from '../../ids.js'
import { equal, HOSTILE, sameResult } from '../samples.js'
import { type ArchiveCheck, activity, all, LONG_AGO, newType, recently, refused, sameIds } from './samples.js'

/** Promises of an archive on its answers. */
export const QUERIES: Record<string, ArchiveCheck> = {
  'unknown and hostile IDs match nothing': async (archive) => {
    const written = activity()
    await archive.write([written])
    const { sessionId, logicalId } = written
    for (const id of [
      '',
      ' ',
      '%',
      '*',
      `${sessionId}%`,
      `{${sessionId}}`,
      '\u0000',
      '\ud800',
      "' OR 1=1 --",
      HOSTILE,
    ]) {
      const queries: ActivityPageQuery[] = [
        { sessionId: id, logicalId },
        { logicalId: id, sessionId },
      ]
      if (id !== HOSTILE) queries.push({ sessionId: id, userId: newType() })
      for (const query of queries) {
        const { activities, next } = await archive.page(query)
        sameResult({ count: activities.length, next: next ?? null }, { count: 0, next: null })
        sameResult(await archive.countByType(query), {})
      }
    }
    const long = await archive.page({ sessionId: 'x'.repeat(1_000_000) })
    equal(long.activities.length, 0, 'the number of activities of an endless ID')
  },
  'a page is in order of time, and of IDs within one millisecond': async (archive) => {
    const logicalId = newLogicalId()
    const at = new Date(recently())
    const together = Array.from({ length: 5 }, () => activity({ logicalId, at }))
    const earlier = activity({ logicalId, at: new Date(at.getTime() - 1) })
    const later = activity({ logicalId, at: new Date(at.getTime() + 1) })
    const expected = [earlier, ...together.sort((a, b) => (a.id < b.id ? -1 : 1)), later]
    // Neither in order nor in one batch, as several processes write.
    await archive.write([later, ...together.slice(2).reverse()])
    await archive.write([...together.slice(0, 2), earlier])
    sameIds((await archive.page({ logicalId })).activities, expected)
    const newestFirst = await archive.page({ logicalId, order: 'newest-first' })
    sameIds(newestFirst.activities, expected.toReversed())
  },
  'pages follow each other without a gap or a repeat, in both orders': async (archive) => {
    const sessionId = newSessionId()
    const at = recently()
    // Several in one millisecond, and a page that ends among them.
    const written = Array.from({ length: 25 }, (_, n) => activity({ sessionId, at: new Date(at + Math.floor(n / 4)) }))
    await archive.write(written)
    const expected = written.toSorted((a, b) => a.at.getTime() - b.at.getTime() || (a.id < b.id ? -1 : 1))
    for (const limit of [1, 3, 24, 25, 26, 1_000]) {
      sameIds(await all(archive, { sessionId, limit }), expected)
      sameIds(await all(archive, { sessionId, limit, order: 'newest-first' }), expected.toReversed())
    }
    const whole = await archive.page({ sessionId, limit: 25 })
    equal(whole.next, undefined, 'next of the last page')
    sameIds((await archive.page({ sessionId })).activities, expected)
  },
  'pages have no gap and no repeat while writes go on': async (archive) => {
    const logicalId = newLogicalId()
    const at = recently()
    const at0 = (n: number): Date => new Date(at + n)
    const written = Array.from({ length: 60 }, (_, n) => activity({ logicalId, at: at0(n) }))
    await archive.write(written)
    const found: Activity[] = []
    let after: string | undefined
    let page = 0
    do {
      const answer = await archive.page({ logicalId, limit: 7, after })
      found.push(...answer.activities)
      after = answer.next
      // One in what was read already, one at the end, of this and of another.
      if (page++ < 5) {
        await archive.write([
          activity({ logicalId, at: at0(-page) }),
          activity({ logicalId, at: at0(1_000 + page) }),
          activity(),
        ])
      }
    } while (after !== undefined)
    equal(new Set(found.map(({ id }) => id)).size, found.length, 'the number of distinct activities')
    const ids = new Set(found.map(({ id }) => id))
    sameIds(
      written.filter(({ id }) => ids.has(id)),
      written,
    )
    equal(found.length, 65, 'the number of activities, later ones included')
  },
  'a place to go on from stays good when its activity is gone': async (archive) => {
    const sessionId = newSessionId()
    const old = Array.from({ length: 4 }, (_, n) => activity({ sessionId, at: new Date(LONG_AGO + n) }))
    const recent = activity({ sessionId })
    await archive.write([...old, recent])
    const { next } = await archive.page({ sessionId, limit: 2 })
    await archive.prune(new Date(LONG_AGO + 10))
    sameIds((await archive.page({ sessionId, after: next })).activities, [recent])
  },
  'conditions hold together': async (archive) => {
    const [sessionId, logicalId, type] = [newSessionId(), newLogicalId(), newType()]
    const at = recently()
    const wanted = activity({ sessionId, logicalId, type, userId: 7, at: new Date(at) })
    const others = [
      { logicalId: newLogicalId() },
      { sessionId: newSessionId() },
      { type: newType() },
      { userId: '7' },
      { userId: 8 },
      { at: new Date(at + 1) },
      { at: new Date(at - 1) },
    ].map((other) => activity({ sessionId, logicalId, type, userId: 7, at: new Date(at), ...other }))
    await archive.write([...others, wanted])
    const query = { sessionId, logicalId, type, userId: 7, since: new Date(at), until: new Date(at + 1) }
    sameIds(await all(archive, query), [wanted])
    sameIds(await all(archive, { ...query, order: 'newest-first' }), [wanted])
    sameResult(await archive.countByType(query), { [type]: 1 })
    equal((await all(archive, { type, userId: '7' })).length, 1, 'the activities of the user "7"')
  },
  'since is inclusive, until is not': async (archive) => {
    const logicalId = newLogicalId()
    const at = recently()
    const written = [0, 1, 2, 3].map((n) => activity({ logicalId, at: new Date(at + n) }))
    await archive.write(written)
    const between = async (since?: number, until?: number): Promise<string> =>
      (
        await all(archive, {
          logicalId,
          since: since === undefined ? undefined : new Date(at + since),
          until: until === undefined ? undefined : new Date(at + until),
        })
      )
        .map((each) => each.at.getTime() - at)
        .join()
    equal(await between(1, 3), '1,2', 'what is between')
    equal(await between(1), '1,2,3', 'what is since')
    equal(await between(undefined, 1), '0', 'what is until')
    equal(await between(2, 2), '', 'what is in no time')
    equal(await between(3, 1), '', 'what is in less than no time')
  },
  'several types are any of them, an empty list is none': async (archive) => {
    const sessionId = newSessionId()
    const [a, b, c] = [newType(), newType(), newType()]
    await archive.write([a, b, c, a].map((type) => activity({ sessionId, type })))
    equal((await all(archive, { sessionId, type: [a, b] })).length, 3, 'the activities of two types')
    equal((await all(archive, { sessionId, type: [a, a] })).length, 2, 'the activities of a type named twice')
    equal((await all(archive, { sessionId, type: [] })).length, 0, 'the activities of no type')
    sameResult(await archive.countByType({ sessionId, type: [] }), {})
  },
  'counts are by type, whatever a type is called': async (archive) => {
    const sessionId = newSessionId()
    const types = ['a', 'b', 'a', '__proto__', 'constructor', '__proto__', HOSTILE, 'x'.repeat(200)]
    await archive.write(types.map((type) => activity({ sessionId, type })))
    const counts = new Map(Object.entries(await archive.countByType({ sessionId })))
    const expected = { a: 2, b: 1, ['__proto__']: 2, constructor: 1, [HOSTILE]: 1, ['x'.repeat(200)]: 1 }
    equal(counts.size, 6, 'the number of types')
    for (const [type, count] of Object.entries(expected)) equal(counts.get(type), count, `the number of ${type}`)
    for (const count of counts.values()) equal(typeof count, 'number', 'the kind of a count')
    equal(({} as Record<string, unknown>)['polluted'], undefined, 'Object.prototype')
  },
  'sums, where it makes them, are what its activities say': async (archive) => {
    if (archive.sums === undefined) return
    const { written, window } = aBusyDay()
    await archive.write(written)
    await archive.write(written.slice(0, 10))
    const own = new Set<unknown>(written.flatMap(({ sessionId, userId, type }) => [sessionId, userId, type]))
    const whole = { since: window.since - HOUR_MS, until: window.until + HOUR_MS }
    const part = { since: window.since + 1_234_567, until: window.until - 1_234_567 }
    for (const query of [whole, part]) {
      for (const everyMs of [undefined, HOUR_MS, 600_000]) {
        const found = await gathered(archive.sums({ ...query, everyMs }), own, everyMs)
        const expected = await gathered(sumsOfPages(archive, { ...query, everyMs }), own, everyMs)
        for (const [n, line] of expected.entries()) equal(found[n], line, 'one of the sums')
        equal(found.length, expected.length, 'the number of sums')
      }
    }
    const nobody = { since: window.until + 1e12, until: window.until + 2e12, everyMs: undefined }
    equal((await gathered(archive.sums(nobody), own, undefined)).length, 0, 'the number of sums of nothing')
  },
  'wrong queries are refused': async (archive) => {
    const never = new Date(Number.NaN)
    const wrong: Record<string, unknown>[] = [
      { limit: 0 },
      { limit: 1_001 },
      { limit: 1.5 },
      { limit: '10' },
      { limit: Number.NaN },
      { order: 'sideways' },
      { after: 'nonsense' },
      { after: '' },
      { after: HOSTILE },
      { since: never },
      { until: never },
      { since: 5 },
      { until: '2020-01-01' },
      { sessionId: 5 },
      { logicalId: {} },
      { userId: {} },
      { type: 5 },
      { type: [5] },
    ]
    for (const query of wrong) await refused(archive.page(query), `page(${JSON.stringify(query)})`)
    await refused(archive.countByType({ since: never }), 'countByType()')
    await refused(archive.prune(never), 'prune()')
  },
}

const HOUR_MS = 3_600_000

/** Activities of all kinds: sessions that begin, go on for others, are pushed out and end; users, and nobody. */
function aBusyDay(): { written: Activity[]; window: { since: number; until: number } } {
  const until = recently()
  const since = until - 3 * HOUR_MS
  const types = ['page.viewed', 'session.logout', 'session.timed-out', 'session.used-after-end'].concat(
    newType(),
    HOSTILE,
  )
  const ids = Array.from({ length: 12 }, newSessionId)
  const written = Array.from({ length: 300 }, (_, n) => {
    const sessionId = n % 9 === 8 ? undefined : ids[(n * 7) % ids.length]
    const userId = [undefined, 7, '7', userIds[n % userIds.length]][n % 4]
    // Not in order, and several in one millisecond.
    const at = new Date(since + ((n * 7_919) % 100) * 108_000)
    return activity({ sessionId, userId, at, type: types[n % types.length] as string })
  })
  for (const [n, sessionId] of ids.entries()) {
    const at = new Date(since + n * 600_000)
    const previousSessionId = ids[n - 1]
    const details = n % 3 === 0 ? { outcome: 'ended-oldest', ended: ids.slice(0, n) } : { previousSessionId }
    const type = n % 3 === 0 ? 'session.limit' : 'session.login'
    written.push(activity({ sessionId, at, type: 'session.started' }), activity({ sessionId, at, type, details }))
  }
  return { written, window: { since, until } }
}

const userIds = Array.from({ length: 5 }, newLogicalId)

/** All sums of a window put together, of what is known, as texts in one order. */
async function gathered(
  all: AsyncIterable<ActivitySums>,
  own: ReadonlySet<unknown>,
  everyMs: number | undefined,
): Promise<string[]> {
  const lines = new Map<string, unknown>()
  for await (const { at, sessions, counts, turns } of all) {
    const stretch = everyMs === undefined ? 0 : Math.floor(at / everyMs)
    for (const [type, count] of counts) {
      const key = JSON.stringify([stretch, type])
      if (own.has(type)) lines.set(key, ((lines.get(key) as number | undefined) ?? 0) + count)
    }
    for (const { sessionId, userId, begunAt, lastAt, isStarted, endedAt } of sessions) {
      const isOfNobody = sessionId === undefined && userId === undefined
      if (isOfNobody || !own.has(sessionId) || !own.has(userId)) continue
      const key = JSON.stringify([stretch, sessionId ?? null, userId ?? null])
      const before = (lines.get(key) ?? {}) as Partial<Record<string, number>>
      lines.set(key, {
        begunAt: earlier(before['begunAt'], begunAt),
        lastAt: later(before['lastAt'], lastAt),
        isStarted: isStarted || (before['isStarted'] ?? false),
        endedAt: earlier(before['endedAt'], endedAt),
      })
    }
    for (const turn of turns) if (own.has(turn.sessionId)) lines.set(JSON.stringify([stretch, turn]), true)
  }
  return [...lines].map((line) => JSON.stringify(line)).sort()
}
