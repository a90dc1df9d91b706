// What an archive promises of writers, readers and pruners at the same time.

import type { Activity } from '../../events/activity-hook.js'
import { newLogicalId, newSessionId } from '../../ids.js'
import { concurrently, equal } from '../samples.js'
import { type ArchiveCheck, activity, all, LONG_AGO, recently, sameIds } from './samples.js'

/** Promises that are checked a second time between two sinks on the same data. */
export const CONCURRENCY: Record<string, ArchiveCheck> = {
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
