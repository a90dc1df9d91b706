// Which clients the Redis store takes, found by their shape.
import { SessionError } from '../../errors.js'
import type { RedisClient, RedisSubscriber } from './connection.js'
import { fromNodeRedis, isNodeRedis, type NodeRedisClient } from './node-redis.js'

const NEEDED = ['get', 'getrange', 'strlen', 'hgetall', 'del', 'evalsha', 'eval', 'once'] as const
const TAKEN = 'Give an ioredis or iovalkey Redis or Cluster, or a client, cluster or Sentinel of node-redis 5 or 6'

/**
 * The client in the form that the store calls.
 *
 * @throws {SessionError} `INVALID_OPTION` for what it does not take, and for a `wait` that the client cannot do.
 */
export function clientOf(given: RedisClient | NodeRedisClient, waits: boolean): RedisClient {
  if (typeof given !== 'object' || given === null) throw refused(`client must be a client of Redis. ${TAKEN}.`)
  if ('invokeScript' in given || 'customCommand' in given) {
    throw refused(`client looks like one of @valkey/valkey-glide, which the store does not take. ${TAKEN}.`)
  }
  if ('v4' in given || 'legacyMode' in given) {
    throw refused(`client looks like one of node-redis 4 or in its legacy mode. ${TAKEN}.`)
  }
  const client: RedisClient = isNodeRedis(given) ? fromNodeRedis(given) : given
  const members = client as unknown as Record<string, unknown>
  const missing = NEEDED.filter((name) => typeof members[name] !== 'function')
  if (missing.length > 0) throw refused(`client has no ${missing.join(', ')}. ${TAKEN}.`)
  if (waits && client.duplicate === undefined) {
    throw refused(
      'wait needs a second connection of which the commands keep their order: take ioredis, or a node-redis client of one server.',
    )
  }
  return client
}

/**
 * A connection that listens for signals, beside that of the client.
 *
 * @throws {SessionError} `NOT_SUPPORTED` for a client that has no way to open one.
 */
export function subscriberOf(client: RedisClient): RedisSubscriber {
  const subscriber = client.openSubscriber?.() ?? (client.duplicate?.() as unknown as RedisSubscriber | undefined)
  if (typeof subscriber?.subscribe === 'function') return subscriber
  const message = 'RedisSessionStore: client has no duplicate(), which listening for signals needs.'
  throw new SessionError('NOT_SUPPORTED', message)
}

function refused(reason: string): SessionError {
  return new SessionError('INVALID_OPTION', `RedisSessionStore: ${reason}`)
}
