// The signals of the Redis store, over a subscriber whose answers the test holds back.
import { expect, test } from '@jest/globals'
import type { RedisConnection, RedisSubscriber } from '../../../src/stores/redis/connection.js'
import { RedisSignals } from '../../../src/stores/redis/signals.js'

function heldSignals(): { signals: RedisSignals; asked: string[]; fail: (error: Error) => void } {
  const asked: string[] = []
  const waiting: ((error: Error) => void)[] = []
  const subscriber: RedisSubscriber = {
    status: 'ready',
    subscribe: (channel) => {
      asked.push(channel)
      return new Promise((_resolve, reject) => waiting.push(reject))
    },
    unsubscribe: async () => {},
    on: () => {},
    once: () => {},
    disconnect: () => {},
  }
  const signals = new RedisSignals('p:', {} as RedisConnection, async () => subscriber)
  const fail = (error: Error): void => {
    for (const reject of waiting.splice(0)) reject(error)
  }
  return { signals, asked, fail }
}

test('nobody is told to listen to a channel that Redis has refused, and the next one asks again', async () => {
  const { signals, asked, fail } = heldSignals()
  const both = [signals.listen('a', () => {}), signals.listen('a', () => {})].map((promise) =>
    promise.then(
      () => 'listens',
      (error: Error) => error.message,
    ),
  )
  await new Promise((resolve) => setImmediate(resolve))
  fail(new Error('refused'))
  expect(await Promise.all(both)).toEqual(['refused', 'refused'])
  signals.listen('a', () => {}).catch(() => {})
  await new Promise((resolve) => setImmediate(resolve))
  expect(asked).toEqual(['p:s:a', 'p:s:a'])
})
