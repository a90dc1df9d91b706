// Redis as several machines have it: a cluster of six nodes, and a primary with a replica behind three sentinels. All on
// loopback, with time limits that make a failover quick.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Cluster, Redis } from 'ioredis'
import { until } from './http.js'
import { freePort, RedisServer, redisCli, redisServer, withFreePorts } from './redis.js'

/** After so long without an answer a node counts as lost. */
const LOST_AFTER_MS = 500

export interface RedisCluster {
  /** Three primaries and three replicas, in no order. */
  readonly nodes: readonly RedisServer[]
  /** A new client, as an application would make it, that has found all nodes: a busy machine takes its time for that. */
  connect(options?: { username?: string; password?: string; socketTimeout?: number }): Promise<Cluster>
  /** The nodes that hold a key, as far as the others know. */
  holdersOf(key: string): Promise<{ primary: RedisServer; replicas: RedisServer[] }>
  /**
   * Moves the slot of a key to another primary, in the steps and the order of `redis-cli`. `meanwhile` runs three times: when
   * both nodes know of the move, when the keys have moved one by one, and when it is done.
   */
  moveSlotOf(key: string, meanwhile: (state: MoveState) => Promise<void>): Promise<void>
  /** Resolves when every slot is served, every node is back, and all know it. */
  settled(): Promise<void>
  stop(): Promise<void>
}

/** How far the move of a slot has come, and how many keys moved with it. */
export interface MoveState {
  readonly step: 'announced' | 'keys moved' | 'done'
  readonly movedKeys: number
}

export async function startCluster(): Promise<RedisCluster> {
  const nodes = await Promise.all(Array.from({ length: 6 }, startNode))
  const clients: Cluster[] = []
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
  await promisify(execFile)(redisCli(), [
    '--cluster',
    'create',
    ...addresses,
    '--cluster-replicas',
    '1',
    '--cluster-yes',
  ])
  const settled = async (): Promise<void> => {
    // A node that is just coming back refuses some questions.
    const isSettled = (node: RedisServer): Promise<boolean> => ask(node, knowsTheCluster).catch(() => false)
    await Promise.all(nodes.map(async (node) => until(() => isSettled(node), 20_000)))
  }
  await settled()
  return {
    nodes,
    settled,
    async connect(redisOptions = {}) {
      const client = new Cluster(
        nodes.map(({ port }) => ({ host: '127.0.0.1', port })),
        { redisOptions },
      )
      clients.push(client)
      return ready(client)
    },
    async holdersOf(key) {
      for (const node of nodes) {
        // One that is frozen takes connections, and answers nothing.
        const found = await ask(node, (redis) => holders(redis, key), { commandTimeout: 1_000 }).catch(() => null)
        if (found === null) continue
        const [primary, ...replicas] = found.map((port) => nodes.find((each) => each.port === port) as RedisServer)
        return { primary: primary as RedisServer, replicas }
      }
      throw new Error('No node of the cluster answers.')
    },
    moveSlotOf: (key, meanwhile) => moveSlot(nodes, key, meanwhile),
    async stop() {
      for (const client of clients) client.disconnect()
      await Promise.all(nodes.map((node) => node.stop()))
    },
  }
}

async function startNode(): Promise<RedisServer> {
  // A replica is told of only once it has had something to copy, and a ping is enough.
  const limits = [
    '--cluster-node-timeout',
    String(LOST_AFTER_MS),
    '--repl-diskless-sync-delay',
    '0',
    '--repl-ping-replica-period',
    '1',
  ]
  return withFreePorts(async () => {
    // The bus has a port of its own; the default, ten thousand above, is beyond the last port as often as not.
    const bus = String(await freePort())
    return RedisServer.start('--cluster-enabled', 'yes', '--cluster-port', bus, ...limits)
  })
}

/** Every slot is served, and every primary has its replica, in the eyes of this node. */
async function knowsTheCluster(redis: Redis): Promise<boolean> {
  const [info, slots] = [await redis.cluster('INFO'), await redis.cluster('SLOTS')]
  const isServed = /cluster_state:ok/.test(String(info))
  const isLinked = (await redis.info('replication')).match(/role:master|master_link_status:up/) !== null
  return isServed && isLinked && slots.every((range) => range.length === 4)
}

async function holders(redis: Redis, key: string): Promise<number[]> {
  const slot = await redis.cluster('KEYSLOT', key)
  const ranges = await redis.cluster('SLOTS')
  const range = ranges.find(([first, last]) => slot >= first && slot <= last)
  if (!range) throw new Error(`Nobody serves slot ${slot}.`)
  const [, , ...nodes] = range
  return nodes.map(([, port]) => port)
}

async function moveSlot(
  nodes: readonly RedisServer[],
  key: string,
  meanwhile: (state: MoveState) => Promise<void>,
): Promise<void> {
  const clients = nodes.map(({ port }) => new Redis(port, '127.0.0.1'))
  try {
    const all = await Promise.all(
      clients.map(async (redis) => ({
        redis,
        id: String(await redis.cluster('MYID')),
        isPrimary: (await redis.role())[0] === 'master',
      })),
    )
    const slot = await all[0]?.redis.cluster('KEYSLOT', key)
    const [port] = await holders(clients[0] as Redis, key)
    const from = all.find(({ redis }) => redis.options.port === port)
    const to = all.find((node) => node.isPrimary && node !== from)
    if (slot === undefined || !from || !to) throw new Error('There is nothing to move, or nowhere to move it.')
    await to.redis.cluster('SETSLOT', slot, 'IMPORTING', from.id)
    await from.redis.cluster('SETSLOT', slot, 'MIGRATING', to.id)
    let movedKeys = 0
    await meanwhile({ step: 'announced', movedKeys })
    for (;;) {
      const [first] = (await from.redis.cluster('GETKEYSINSLOT', slot, 1)) as string[]
      if (first === undefined) break
      await from.redis.migrate('127.0.0.1', to.redis.options.port as number, first, 0, 5_000)
      movedKeys++
    }
    await meanwhile({ step: 'keys moved', movedKeys })
    // The new owner first, or nobody may own it for a moment.
    await to.redis.cluster('SETSLOT', slot, 'NODE', to.id)
    await from.redis.cluster('SETSLOT', slot, 'NODE', to.id)
    for (const node of all) {
      if (node.isPrimary && node !== from && node !== to) await node.redis.cluster('SETSLOT', slot, 'NODE', to.id)
    }
    await meanwhile({ step: 'done', movedKeys })
  } finally {
    for (const client of clients) client.disconnect()
  }
}

export interface RedisSentinel {
  /** The primary of the beginning. */
  readonly primary: RedisServer
  readonly replica: RedisServer
  /** Under which name the sentinels watch them. */
  readonly name: string
  /** Of the sentinels. */
  readonly ports: readonly number[]
  /** A new client, as an application would make it, that has found the primary. */
  connect(login?: { username: string; password: string }): Promise<Redis>
  /** Which of the two is which now. */
  roles(): Promise<{ primary: RedisServer; replica: RedisServer }>
  /** Starts a primary that was lost again, as the replica of the other, and resolves when it is one. */
  rejoin(lost: RedisServer): Promise<void>
  stop(): Promise<void>
}

const GROUP = 'sessions'

export async function startSentinel(): Promise<RedisSentinel> {
  const primary = await RedisServer.start('--repl-diskless-sync-delay', '0')
  const replicaOf = ['--replicaof', '127.0.0.1', String(primary.port)]
  const replica = await RedisServer.start('--repl-diskless-sync-delay', '0', ...replicaOf)
  await until(
    () => ask(replica, async (redis) => /master_link_status:up/.test(await redis.info('replication'))),
    10_000,
  )
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-sentinel-'))
  const ports = await Promise.all([freePort(), freePort(), freePort()])
  const processes = ports.map((port) => startSentinelProcess(directory, port, primary.port))
  const isReady = async (redis: Redis): Promise<boolean> => {
    const [state] = (await redis.call('SENTINEL', 'MASTERS')) as unknown[]
    const facts = toRecord(state)
    return facts['num-slaves'] === '1' && facts['num-other-sentinels'] === '2'
  }
  await Promise.all(ports.map((port) => until(() => ask({ port }, isReady), 10_000)))
  const clients: Redis[] = []
  return {
    primary,
    replica,
    name: GROUP,
    ports,
    async roles() {
      const [role] = await ask(primary, (redis) => redis.role())
      return role === 'master' ? { primary, replica } : { primary: replica, replica: primary }
    },
    async rejoin(lost) {
      const other = lost === primary ? replica : primary
      await lost.restart()
      // Sentinel would do so by itself, after eight seconds.
      await ask(lost, async (redis) => {
        await redis.replicaof('127.0.0.1', other.port)
        await until(async () => /master_link_status:up/.test(await redis.info('replication')), 20_000)
      })
    },
    async connect(login) {
      const sentinels = ports.map((port) => ({ host: '127.0.0.1', port }))
      const client = new Redis({ sentinels, name: GROUP, ...login })
      clients.push(client)
      return ready(client)
    },
    async stop() {
      for (const client of clients) client.disconnect()
      await Promise.all([primary.stop(), replica.stop(), ...processes.map(stopProcess)])
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Cuts a replica off from its primary: what is written from now on does not reach it. Undone by `attach()`. */
export async function detach(replica: RedisServer): Promise<void> {
  await ask(replica, async (redis) => {
    await redis.config('SET', 'masteruser', 'nobody')
    await redis.config('SET', 'masterauth', 'nothing')
    await redis.call('CLIENT', 'KILL', 'TYPE', 'master')
    await until(async () => /master_link_status:down/.test(await redis.info('replication')))
  })
}

export async function attach(replica: RedisServer): Promise<void> {
  await ask(replica, async (redis) => {
    await redis.config('SET', 'masteruser', '')
    await redis.config('SET', 'masterauth', '')
  })
}

/** Resolves when all that has been written to a primary so far is on its replica, too. `slotKey` is a key of its own. */
export async function replicated(primary: RedisServer, slotKey: string): Promise<void> {
  await ask(primary, async (redis) => {
    await redis.set(`{${slotKey}}replicated`, '1')
    await until(async () => (await redis.wait(1, 1_000)) === 1)
  })
}

function startSentinelProcess(directory: string, port: number, primaryPort: number): ChildProcess {
  // A sentinel writes what it learns into its file.
  const file = join(directory, `${port}.conf`)
  writeFileSync(
    file,
    `port ${port}
bind 127.0.0.1
dir ${directory}
sentinel monitor ${GROUP} 127.0.0.1 ${primaryPort} 2
sentinel down-after-milliseconds ${GROUP} ${LOST_AFTER_MS}
sentinel failover-timeout ${GROUP} 3000
`,
  )
  return spawn(redisServer(), [file, '--sentinel'], { stdio: 'ignore' })
}

async function ready<C extends Redis | Cluster>(client: C): Promise<C> {
  client.on('error', () => {})
  await new Promise((resolve) => client.once('ready', resolve))
  return client
}

async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

/** Asks one server something, on a connection for this question. Rejects or resolves to what `question` does. */
export async function ask<T>(
  server: { readonly port: number },
  question: (redis: Redis) => Promise<T>,
  options: { readonly commandTimeout?: number } = {},
): Promise<T> {
  const ours = { lazyConnect: true, retryStrategy: () => 20, maxRetriesPerRequest: 5, connectTimeout: 1_000 }
  const redis = new Redis(server.port, '127.0.0.1', { ...ours, ...options })
  redis.on('error', () => {})
  try {
    return await question(redis)
  } finally {
    redis.disconnect()
  }
}

/** Names and values in turn, or a map already: it depends on the protocol's version. */
function toRecord(reply: unknown): Record<string, unknown> {
  if (!Array.isArray(reply)) return reply as Record<string, unknown>
  const record: Record<string, unknown> = {}
  for (let index = 0; index < reply.length; index += 2) record[String(reply[index])] = reply[index + 1]
  return record
}
