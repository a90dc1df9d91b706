// What a store promises of calls at the same time, on one store or on two.
import { newToken } from '../../ids.js'
import type { SessionData } from '../../record/session-data.js'
import {
  afterTurns,
  type Check,
  changeOf,
  concurrently,
  endOf,
  equal,
  must,
  ONE_FIELD,
  pick,
  regenerationOf,
  sameFields,
  sameResult,
  sample,
  successor,
} from '../samples.js'

/** Promises that are checked within a process, and across two. */
export const CONCURRENCY: Record<string, Check> = {
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
