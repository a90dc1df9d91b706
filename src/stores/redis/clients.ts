// Which clients of Redis are taken, found by their shape: by the store, and by what features keep in Redis.
import { invalidOption, SessionError } from '../../errors.js'
import type { RedisClient, RedisSubscriber } from './connection.js'
import { fromNodeRedis, isNodeRedis, type NodeRedisClient } from './node-redis.js'

const TAKEN = 'Give an ioredis or iovalkey Redis or Cluster, or a client, cluster or Sentinel of node-redis 5 or 6'

/**
 * The client in the form that `RedisConnection` takes. `of` is who asks, for messages; `needs` are the members that are called.
 *
 * @throws {SessionError} `INVALID_OPTION` for what is not taken.
 */
export function clientOf(
  given: RedisClient | NodeRedisClient,
  of: string,
  needs: readonly (keyof RedisClient)[],
): RedisClient {
  const refused = (reason: string): SessionError => invalidOption(`${of}: ${reason}. ${TAKEN}.`)
  if (typeof given !== 'object' || given === null) throw refused('client must be a client of Redis')
  if ('invokeScript' in given || 'customCommand' in given) {
    throw refused('client looks like one of @valkey/valkey-glide, which is not taken')
  }
  if ('v4' in given || 'legacyMode' in given) {
    throw refused('client looks like one of node-redis 4 or in its legacy mode')
  }
  const client: RedisClient = isNodeRedis(given) ? fromNodeRedis(given) : given
  const missing = needs.filter((name) => typeof client[name] !== 'function')
  if (missing.length > 0) throw refused(`client has no ${missing.join(', ')}`)
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
