// The suite that every activity sink must pass, ours and yours: what is written comes back, in order, whole and once. Free
// of any test runner.

import type { Activity } from '../events/activity-hook.js'
import type { ActivityArchive, ActivityPageQuery, ActivitySink } from '../features/activity/sinks/sink.js'
import { isArchive } from '../features/activity/sinks/sink.js'
import { newActivityId, newLogicalId, newSessionId } from '../ids.js'
import { concurrently, equal, HOSTILE, sameResult } from './samples.js'

/** One check of the suite for sinks. Run it with any test runner: `test(check.name, check.run)`. */
export interface SinkCheck {
  readonly name: string
  /** `'sink'`: takes activities. `'archive'`: gives them back; `run()` does nothing when the sink cannot be read. */
  readonly kind: 'sink' | 'archive'
  /** Rejects, saying what was expected and what was found, when the sink breaks the promise. */
  readonly run: () => Promise<void>
}

/** What the suite needs of a sink. */
export interface SinkConformanceOptions {
  /**
   * Makes a sink that keeps activities of any age; called once a check. The data may be shared: the suite uses fresh IDs
   * and types, times around the present, and times before 1990 for what it prunes.
   */
  readonly createSink: () => ActivitySink | Promise<ActivitySink>
  /**
   * For a sink that is no archive: what it has kept, in its order. Without it nothing that such a sink keeps is checked.
   * An activity that it says again after a batch was written twice may be there twice.
   */
  readonly read?: ((sink: ActivitySink) => readonly Activity[] | Promise<readonly Activity[]>) | undefined
  /** Makes a second sink on the same data, as another process would have it. */
  readonly createPeer?: ((sink: ActivitySink) => ActivitySink | Promise<ActivitySink>) | undefined
  /** Called after each check with every sink made for it. Default: `sink.close()`. */
  readonly destroySink?: ((sink: ActivitySink) => Promise<void>) | undefined
}

/** What `checkSink()` found. */
export interface SinkReport {
  readonly passed: readonly string[]
  readonly failed: readonly { readonly name: string; readonly error: unknown }[]
  /** Whether the sink can be read. The checks of archives are in the report only then. */
  readonly isArchive: boolean
}

/** Runs the whole suite. */
export async function checkSink(options: SinkConformanceOptions): Promise<SinkReport> {
  const sink = await options.createSink()
  const canBeRead = isArchive(sink)
  await destroyerOf(options)(sink)

  const passed: string[] = []
  const failed: { name: string; error: unknown }[] = []
  for (const { name, kind, run } of sinkChecks(options)) {
    if (kind === 'archive' && !canBeRead) continue
    try {
      await run()
      passed.push(name)
    } catch (error) {
      failed.push({ name, error })
    }
  }
  return { passed, failed, isArchive: canBeRead }
}

/** The checks, for a test runner that wants them one by one. */
export function sinkChecks(options: SinkConformanceOptions): SinkCheck[] {
  const destroy = destroyerOf(options)
  const plain = Object.entries(PLAIN).map(
    ([name, check]): SinkCheck => ({
      name,
      kind: 'sink',
      async run() {
        const sink = await options.createSink()
        try {
          const { read } = options
          await check(sink, read && (() => Promise.resolve(read(sink))))
        } finally {
          await destroy(sink)
        }
      },
    }),
  )
  const archive = (prefix: string, isShared: boolean): SinkCheck[] =>
    Object.entries(isShared ? SHARED : { ...ARCHIVE, ...SHARED }).map(([name, check]) => ({
      name: prefix + name,
      kind: 'archive',
      async run() {
        const sink = await options.createSink()
        try {
          if (!isArchive(sink)) return
          const peer = isShared && options.createPeer ? await options.createPeer(sink) : sink
          try {
            await check(sink, peer as ActivityArchive)
          } finally {
            if (peer !== sink) await destroy(peer)
          }
        } finally {
          await destroy(sink)
        }
      },
    }))
  return [...plain, ...archive('', false), ...(options.createPeer ? archive('across processes: ', true) : [])]
}

function destroyerOf(options: SinkConformanceOptions): (sink: ActivitySink) => Promise<void> {
  return options.destroySink ?? (async (sink) => sink.close?.())
}

type Read = () => Promise<readonly Activity[]>
type ArchiveCheck = (archive: ActivityArchive, peer: ActivityArchive) => Promise<void>

/** Promises of every sink. */
const PLAIN: Record<string, (sink: ActivitySink, read: Read | undefined) => Promise<void>> = {
  'has a name': async (sink) => {
    equal(typeof sink.name === 'string' && sink.name !== '', true, 'whether there is a name')
  },
  'takes a batch of one, of many, and an empty one': async (sink) => {
    await sink.write([])
    await sink.write([activity()])
    await sink.write(series(250))
  },
  'leaves activities and the batch as they are': async (sink) => {
    const batch = Object.freeze(series(3).map(deepFreeze))
    const before = JSON.stringify(batch)
    await sink.write(batch)
    equal(JSON.stringify(batch), before, 'the batch')
  },
  'takes hostile text and large details': async (sink) => {
    await sink.write([hostileActivity(), activity({ details: { text: 'x'.repeat(100_000) } })])
  },
  'takes a batch a second time': async (sink) => {
    const batch = series(5)
    await sink.write(batch)
    await sink.write(batch)
  },
  'what was written comes out, in order': async (sink, read) => {
    if (read === undefined) return
    const batch = series(120)
    await sink.write(batch.slice(0, 100))
    await sink.write(batch.slice(100))
    const wanted = new Set(batch.map(({ id }) => id))
    const found = (await read()).filter(({ id }) => wanted.has(id))
    sameResult(found.map(({ id }) => id).join(), batch.map(({ id }) => id).join())
  },
}

/** Promises of an archive. */
const ARCHIVE: Record<string, ArchiveCheck> = {
  'an activity comes back exactly': async (archive) => {
    const sessionId = newSessionId()
    const written = [
      activity({ sessionId }),
      activity({ sessionId, userId: 0, details: {} }),
      activity({ sessionId, userId: -1.5, details: { nested: { list: [1, 'two', null, true, { deep: [[]] }] } } }),
      activity({ sessionId, userId: '42', request: { method: 'GET', path: '/', ip: undefined } }),
      activity({ sessionId, userId: 42, request: { method: 'POST', path: '/a b?', ip: '::1' }, logicalId: undefined }),
      activity({ sessionId, userId: '', details: { '': '', constructor: 1, toString: 2, '0': 3 } }),
    ]
    await archive.write(written)
    const { activities } = await archive.page({ sessionId })
    equal(activities.length, written.length, 'the number of activities')
    activities.forEach((found, index) => {
      sameActivity(found, written[index] as Activity)
    })
  },
  'what is not known is undefined': async (archive) => {
    const type = newType()
    const written = { ...activity({ type }), sessionId: undefined, logicalId: undefined, userId: undefined }
    await archive.write([{ ...written, details: undefined, request: undefined }])
    const [found] = await all(archive, { type })
    if (found === undefined) throw new Error('Expected an activity without session; there is none.')
    for (const name of ['sessionId', 'logicalId', 'userId', 'details', 'request'] as const) {
      equal(found[name], undefined, name)
    }
  },
  'hostile text comes back exactly': async (archive) => {
    const written = hostileActivity()
    await archive.write([written])
    for (const query of [
      { sessionId: written.sessionId },
      { logicalId: written.logicalId },
      { sessionId: written.sessionId, type: written.type, userId: written.userId },
    ]) {
      const found = (await all(archive, query)).filter(({ id }) => id === written.id)
      equal(found.length, 1, `the number of activities by ${Object.keys(query).join(' and ')}`)
      sameActivity(found[0] as Activity, written)
    }
    equal(({} as Record<string, unknown>)['polluted'], undefined, 'Object.prototype')
  },
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
  'times are exact to the millisecond, long ago and far away': async (archive) => {
    const sessionId = newSessionId()
    const times = [0, 1, 999, recently(), Date.UTC(2100, 1, 29), Date.UTC(9999, 11, 31, 23, 59, 59, 999)]
    const written = times.map((time) => activity({ sessionId, at: new Date(time) }))
    await archive.write(written)
    const found = await all(archive, { sessionId })
    sameResult(found.map(({ at }) => at.getTime()).join(), times.join())
    await archive.prune(new Date(1_000))
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
  'prune() removes what is older, everywhere, and says how many': async (archive) => {
    const [sessionId, logicalId, type] = [newSessionId(), newLogicalId(), newType()]
    await archive.prune(new Date(LONG_AGO + 100))
    const old = Array.from({ length: 30 }, (_, n) =>
      activity({ sessionId, logicalId, type, at: new Date(LONG_AGO + n) }),
    )
    const recent = activity({ sessionId, logicalId, type })
    await archive.write([...old, recent])
    equal(await archive.prune(new Date(LONG_AGO + 10)), 10, 'the number of pruned activities')
    for (const query of [{ sessionId }, { logicalId }, { type }]) {
      sameIds(await all(archive, query), [...old.slice(10), recent])
    }
    equal(await archive.prune(new Date(LONG_AGO + 10)), 0, 'the number of activities pruned again')
    equal(await archive.prune(new Date(LONG_AGO + 100)), 20, 'the number of the others')
    sameResult(await archive.countByType({ sessionId }), { [type]: 1 })
  },
  'a batch that comes twice, or in part, is kept once': async (archive) => {
    const [sessionId, logicalId] = [newSessionId(), newLogicalId()]
    const batch = Array.from({ length: 20 }, () => activity({ sessionId, logicalId, type: 'twice' }))
    await archive.write(batch.slice(0, 5))
    await archive.write(batch)
    await archive.write(batch)
    await archive.write([...batch.slice(0, 2), ...batch.slice(0, 2)])
    equal((await all(archive, { sessionId })).length, 20, 'the activities of the session')
    equal((await all(archive, { logicalId })).length, 20, 'the activities of the logical ID')
    sameResult(await archive.countByType({ logicalId }), { twice: 20 })
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

/** Promises that are checked a second time between two sinks on the same data. */
const SHARED: Record<string, ArchiveCheck> = {
  'what one has written, the other reads': async (archive, peer) => {
    const sessionId = newSessionId()
    const written = Array.from({ length: 10 }, (_, n) => activity({ sessionId, at: new Date(recently() + n) }))
    for (const [index, one] of written.entries()) await (index % 2 === 0 ? archive : peer).write([one])
    sameIds((await archive.page({ sessionId })).activities, written)
    sameIds((await peer.page({ sessionId })).activities, written)
  },
  'batches at the same time are all kept, and once': async (archive, peer) => {
    const [sessionId, logicalId] = [newSessionId(), newLogicalId()]
    const batches = Array.from({ length: 10 }, () =>
      Array.from({ length: 20 }, () => activity({ sessionId, logicalId })),
    )
    // Each of them on both, as when an answer was lost and another process took over.
    await concurrently(20, async (n) => (n % 2 === 0 ? archive : peer).write(batches[n >> 1] as Activity[]))
    const found = await all(archive, { sessionId, limit: 33 })
    equal(found.length, 200, 'the number of activities')
    equal(new Set(found.map(({ id }) => id)).size, 200, 'the number of distinct ones')
    equal((await all(peer, { logicalId })).length, 200, 'the activities of the logical ID')
  },
  'of several that prune at once, each activity is counted by one': async (archive, peer) => {
    await archive.prune(new Date(LONG_AGO + 100_000))
    const sessionId = newSessionId()
    await archive.write(Array.from({ length: 50 }, (_, n) => activity({ sessionId, at: new Date(LONG_AGO + n) })))
    const counts = await concurrently(4, (n) => (n % 2 === 0 ? archive : peer).prune(new Date(LONG_AGO + 100_000)))
    equal(
      counts.reduce((sum, count) => sum + count, 0),
      50,
      'the sum of what was pruned',
    )
    equal((await all(archive, { sessionId })).length, 0, 'what is left')
  },
}

const HOUR_MS = 3_600_000
/** Before whatever else an archive holds. */
const LONG_AGO = Date.UTC(1985, 0, 1)

/** A time that is over, and not older than any sensible retention. */
function recently(): number {
  return Date.now() - HOUR_MS
}

let made = 0

function newType(): string {
  return `check.${newLogicalId()}`
}

function activity(parts: Partial<Activity> = {}): Activity {
  const at = parts.at ?? new Date(recently() + (made % 1_000))
  return {
    id: newActivityId(at),
    at,
    type: 'check',
    logicalId: newLogicalId(),
    sessionId: newSessionId(),
    userId: undefined,
    details: { n: made++ },
    request: undefined,
    ...parts,
  }
}

/** Activities of one session, a millisecond apart. */
function series(count: number): Activity[] {
  const [sessionId, at] = [newSessionId(), recently()]
  return Array.from({ length: count }, (_, n) => activity({ sessionId, at: new Date(at + n) }))
}

function hostileActivity(): Activity {
  const lone = '\ud800 \udc00'
  return activity({
    type: HOSTILE,
    sessionId: `${HOSTILE}${lone}`,
    logicalId: `${lone}${'x'.repeat(5_000)}${HOSTILE}`,
    userId: `${HOSTILE}${lone}`,
    details: JSON.parse(
      JSON.stringify({ [HOSTILE]: [HOSTILE, lone], '\u2028': '\u2029' }).replace(
        '{',
        '{"__proto__":{"polluted":true},',
      ),
    ) as Record<string, unknown>,
    request: { method: HOSTILE, path: `/${HOSTILE}${lone}`, ip: HOSTILE },
  })
}

async function all(archive: ActivityArchive, query: ActivityPageQuery): Promise<Activity[]> {
  const found: Activity[] = []
  let after: string | undefined
  do {
    const page: Awaited<ReturnType<ActivityArchive['page']>> = await archive.page({ ...query, after })
    if (page.next !== undefined)
      equal(page.activities.length, query.limit ?? 100, 'the length of a page before the last')
    found.push(...page.activities)
    after = page.next
  } while (after !== undefined)
  return found
}

function sameActivity(found: Activity, expected: Activity): void {
  equal(found.at instanceof Date, true, 'whether `at` is a Date')
  equal(typeof found.userId, typeof expected.userId, 'the kind of the user ID')
  sameResult(parts(found), parts(expected))
}

/** Everything as JSON, with what is undefined said as null. */
function parts({ id, at, type, logicalId, sessionId, userId, details, request }: Activity): unknown {
  const { method, path, ip } = request ?? {}
  return {
    id,
    at: at.getTime(),
    type,
    logicalId: logicalId ?? null,
    sessionId: sessionId ?? null,
    userId: userId ?? null,
    // As text, so that a key `__proto__` is not lost here.
    details: details === undefined ? null : JSON.stringify(details),
    request: request === undefined ? null : { method, path, ip: ip ?? null },
  }
}

function sameIds(found: readonly Activity[], expected: readonly Activity[]): void {
  equal(found.map(({ id }) => id).join(' '), expected.map(({ id }) => id).join(' '), 'the IDs')
}

async function refused(call: Promise<unknown>, what: string): Promise<void> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  equal((error as { code?: unknown } | undefined)?.code, 'INVALID_ARGUMENT', `the code of the error of ${what}`)
}

function deepFreeze(value: Activity): Activity {
  Object.freeze(value.details)
  return Object.freeze(value)
}
