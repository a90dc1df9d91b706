// Which servers are behind a client, and how each is listened to.
import { invalidOption } from '../../../errors.js'
import type { RedisClient } from '../connection.js'
import { nodeOf } from '../replication.js'
import { ioredisLine, LINE_OPTIONS, type TrackingClient } from './ioredis-line.js'
import { oneServer } from './one-server.js'
import type { Servers } from './trackers.js'

/** A `Redis` of ioredis or iovalkey, or one node of a `Cluster`. */
interface Duplicable {
  duplicate(options: object): TrackingClient
}

/** What is asked of a `Cluster`. */
interface NodesOfCluster extends Pick<RedisClient, 'slots' | 'options'> {
  nodes(role: 'all'): readonly (Duplicable & { readonly options: { readonly host?: string; readonly port?: number } })[]
}

/**
 * @param prefix what the keys begin with that are to be told
 * @throws {SessionError} `INVALID_OPTION` for a client that has no way to be told of changes.
 */
export function serversOf(client: RedisClient, prefix: string): Servers {
  const own = client.servers?.(prefix)
  if (typeof own === 'string') throw invalidOption(`RedisSessionStore: nearCache cannot be had with ${own}`)
  if (own !== undefined) return own
  const known: unknown = client
  if (client.nodes !== undefined && client.slots !== undefined) return nodesOf(known as NodesOfCluster, prefix)
  if (client.duplicate !== undefined) {
    return oneServer(ioredisLine(async () => (known as Duplicable).duplicate(LINE_OPTIONS), prefix))
  }
  throw invalidOption(
    'RedisSessionStore: nearCache needs a second connection to every server, which this client does not open. Take a ' +
      'url, or a client of ioredis, iovalkey or node-redis.',
  )
}

function nodesOf(cluster: NodesOfCluster, prefix: string): Servers {
  return {
    all: () =>
      new Map(
        cluster
          .nodes('all')
          .map((node) => [
            `${node.options.host}:${node.options.port}`,
            ioredisLine(async () => node.duplicate(LINE_OPTIONS), prefix),
          ]),
      ),
    holdersOf: (key) => nodeOf(cluster, key),
  }
}
