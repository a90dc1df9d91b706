// Every sink of ours passes the suite for sinks, and does what is its own.
import { afterAll, beforeAll, describe, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { memorySink, redisStreamSink } from 'sojourn/activity'
import { sinkChecks } from 'sojourn/testing'
import { sharedRedis } from './support/redis.js'

describe('the suite for sinks: memory', () => {
  for (const { name, run } of sinkChecks({ createSink: () => memorySink() })) test(name, run)
})

describe('Redis', () => {
  let redis: Awaited<ReturnType<typeof sharedRedis>>
  let client: Redis
  beforeAll(async () => {
    redis = await sharedRedis()
    client = new Redis(redis.url)
  })
  afterAll(async () => {
    client.disconnect()
    await redis.stop()
  })
  const createSink = () => redisStreamSink({ client, prefix: `test-${process.pid}:` })
  for (const { name, run } of sinkChecks({ createSink, createPeer: createSink })) test(name, run)
})
