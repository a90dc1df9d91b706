// What an archive promises of what it keeps: that it comes back exactly, once, until it is pruned.

import type { Activity } from '../../events/activity-hook.js'
import { newLogicalId, newSessionId } from '../../ids.js'
import { equal, sameResult } from '../samples.js'
import {
  type ArchiveCheck,
  activity,
  all,
  hostileActivity,
  LONG_AGO,
  newType,
  recently,
  sameActivity,
  sameIds,
} from './samples.js'

/** Promises of an archive on single activities. */
export const CONTENTS: Record<string, ArchiveCheck> = {
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
  'times are exact to the millisecond, long ago and far away': async (archive) => {
    const sessionId = newSessionId()
    const times = [0, 1, 999, recently(), Date.UTC(2100, 1, 29), Date.UTC(9999, 11, 31, 23, 59, 59, 999)]
    const written = times.map((time) => activity({ sessionId, at: new Date(time) }))
    await archive.write(written)
    const found = await all(archive, { sessionId })
    sameResult(found.map(({ at }) => at.getTime()).join(), times.join())
    await archive.prune(new Date(1_000))
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
}
