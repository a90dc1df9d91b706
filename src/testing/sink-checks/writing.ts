// What every sink promises: that it takes what it is given, and keeps it in order.

import type { ActivitySink } from '../../features/activity/sinks/sink.js'
import { equal, sameResult } from '../samples.js'
import { activity, deepFreeze, hostileActivity, type Read, series } from './samples.js'

/** Promises of every sink. */
export const WRITING: Record<string, (sink: ActivitySink, read: Read | undefined) => Promise<void>> = {
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
