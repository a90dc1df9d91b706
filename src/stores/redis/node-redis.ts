// A client of node-redis 5 or 6 in the form that the store calls. One server, a cluster and Sentinel differ in how a command
// is sent; each is known by its shape. Every command goes to a primary, whatever the client does with reads.

import { setMaxListeners } from 'node:events'
import {
  READY_WAIT_MS,
  type RedisClient,
  type RedisReplicationClient,
  type RedisScanner,
  type RedisSubscriber,
} from './connection.js'
import { type NodeRedisDuplicable, nodeRedisLine } from './near-cache/node-redis-line.js'
import { oneServer } from './near-cache/one-server.js'
import type { MakeLine } from './near-cache/tracker.js'
import type { Servers } from './near-cache/trackers.js'
import { slotOfKey } from './slots.js'

type Arguments = readonly (string | number)[]
type ScanArguments = Parameters<RedisScanner['scan']>

/** What a command is sent with. */
interface CommandOptions {
  /** How long a command may wait to be sent, in milliseconds. Afterwards it is dropped, and not sent later. 0: no bound. */
  readonly timeout: number
  /** Drops a command that has not been sent by then. */
  readonly abortSignal?: AbortSignal
  /** Replies as text, whatever the client has as its default. */
  readonly typeMapping: Record<number, never>
}

/** What a client, cluster or Sentinel of node-redis 5 or 6 is known by: `createClient()`, `createCluster()`, `createSentinel()`. */
export interface NodeRedisClient {
  readonly isOpen: boolean
  sendCommand(...command: never[]): Promise<unknown>
  on(...listener: never[]): unknown
}

interface Emitter {
  on(event: string, listener: (error: Error) => void): unknown
  off(event: string, listener: (error: Error) => void): unknown
  readonly isOpen: boolean
  /** A cluster of node-redis 5 has none. */
  readonly isReady?: boolean
}

interface Subscribing {
  subscribe(channel: string, listener: (text: string, channel: string) => void): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
}

interface One extends Emitter {
  sendCommand(args: string[], options: CommandOptions): Promise<unknown>
  duplicate(): One & Subscribing
  connect(): Promise<unknown>
  destroy(): void
}

interface Cluster extends Emitter, Subscribing {
  sendCommand(key: string, isReadonly: boolean, args: string[], options: CommandOptions): Promise<unknown>
  readonly masters: readonly ClusterNode[]
  readonly replicas: readonly ClusterNode[]
  readonly slots: readonly ({ readonly master: ClusterNode; readonly replicas?: readonly ClusterNode[] } | undefined)[]
  nodeClient(node: unknown): One | Promise<One>
}

interface ClusterNode {
  readonly address: string
  readonly host: string
  readonly port: number
}

interface Sentinel extends Emitter, Subscribing {
  sendCommand(isReadonly: boolean, args: string[], options: CommandOptions): Promise<unknown>
}

/**
 * A client that is not ready keeps commands and sends them when it is, however late: after whoever called has given up. The
 * bound makes it drop them instead.
 */
const OPTIONS: CommandOptions = { timeout: READY_WAIT_MS, typeMapping: {} }
/** So many commands share a signal: to listen to one takes longer with each that does. */
const MAX_SHARED = 50
/** What the three emit when they can be used again. */
const READY_EVENTS = ['ready', 'connect', 'node-ready'] as const

/** Whether `client` was made by node-redis 5 or 6. */
export function isNodeRedis(client: object): client is NodeRedisClient {
  return 'sendCommand' in client && 'isOpen' in client && !('status' in client)
}

/** The client in the form that the store calls. */
export function fromNodeRedis(client: NodeRedisClient): RedisClient {
  const known: unknown = client
  if ('nodeClient' in client) return new ClusterClient(known as Cluster)
  if ('acquire' in client) return new SentinelClient(known as Sentinel)
  return new OneClient(known as One)
}

/** Of the commands that are sent in this turn of the event loop. */
let shared: { readonly options: CommandOptions; count: number } | null = null

/**
 * The bound of `OPTIONS` for one connection. The client's own would also drop what it has not come to send while the event loop stood
 * still. Not for commands that wait for a connection first, as in a pool.
 */
function inTime(): CommandOptions {
  if (shared === null) {
    setImmediate(() => {
      shared = null
    })
  }
  if (shared === null || shared.count === MAX_SHARED) {
    const controller = new AbortController()
    // Node 20 takes more than ten for a leak.
    setMaxListeners(MAX_SHARED, controller.signal)
    // A client sends in the phase of the event loop that comes after the timers.
    setTimeout(() => setImmediate(() => controller.abort()), READY_WAIT_MS).unref()
    shared = { options: { abortSignal: controller.signal, timeout: 0, typeMapping: {} }, count: 0 }
  }
  shared.count++
  return shared.options
}

abstract class AnyClient<Client extends Emitter> implements RedisClient {
  readonly closed = 'the client is not open. Call await client.connect() before it is used.'
  protected readonly client: Client

  constructor(client: Client) {
    this.client = client
  }

  /** Sends a command to the primary that has the key. */
  protected abstract send(key: string, args: Arguments): Promise<unknown>

  get status(): string {
    const { isOpen, isReady = isOpen } = this.client
    return isReady ? 'ready' : isOpen ? 'connecting' : 'end'
  }

  async hgetall(key: string): Promise<Record<string, string>> {
    const reply = await this.send(key, ['HGETALL', key])
    if (!Array.isArray(reply)) return reply as Record<string, string>
    // The second version of the protocol has no maps.
    const pairs: Record<string, string> = {}
    for (let index = 0; index < reply.length; index += 2) pairs[reply[index]] = reply[index + 1]
    return pairs
  }

  get(key: string): Promise<string | null> {
    return this.send(key, ['GET', key]) as Promise<string | null>
  }

  getrange(key: string, start: number, end: number): Promise<string> {
    return this.send(key, ['GETRANGE', key, start, end]) as Promise<string>
  }

  strlen(key: string): Promise<number> {
    return this.send(key, ['STRLEN', key]) as Promise<number>
  }

  del(key: string): Promise<number> {
    return this.send(key, ['DEL', key]) as Promise<number>
  }

  evalsha(sha: string, keys: number, ...args: Arguments): Promise<unknown> {
    return this.send(String(args[0]), ['EVALSHA', sha, keys, ...args])
  }

  eval(script: string, keys: number, ...args: Arguments): Promise<unknown> {
    return this.send(String(args[0]), ['EVAL', script, keys, ...args])
  }

  publish(channel: string, text: string): Promise<unknown> {
    return this.send(channel, ['PUBLISH', channel, text])
  }

  once(_event: 'ready', listener: () => void): void {
    onceReady(this.client, listener)
  }
}

class SentinelClient extends AnyClient<Sentinel> {
  servers(): string {
    return 'createSentinel() of node-redis, which opens no further connections: take ioredis.'
  }

  protected send(_key: string, args: Arguments): Promise<unknown> {
    return this.client.sendCommand(false, args.map(String), OPTIONS)
  }

  openSubscriber(): RedisSubscriber {
    return new Subscriber(this.client)
  }

  async scan(...args: ScanArguments): Promise<[string, string[]]> {
    return (await this.send('', ['SCAN', ...args])) as [string, string[]]
  }
}

class ClusterClient extends AnyClient<Cluster> {
  protected send(key: string, args: Arguments): Promise<unknown> {
    return this.client.sendCommand(key, false, args.map(String), OPTIONS)
  }

  openSubscriber(): RedisSubscriber {
    return new Subscriber(this.client)
  }

  servers(prefix: string): Servers {
    return {
      all: () => {
        const { masters, replicas } = this.client
        const beside = (node: unknown) => async (): Promise<NodeRedisDuplicable> =>
          (await this.client.nodeClient(node)) as unknown as NodeRedisDuplicable
        const nodes = [...masters, ...replicas]
        return new Map(nodes.map((node): [string, MakeLine] => [node.address, nodeRedisLine(beside(node), prefix)]))
      },
      holdersOf: (key) => {
        const shard = this.client.slots[slotOfKey(key)]
        return shard === undefined ? key : [shard.master, ...(shard.replicas ?? [])].map((node) => node.address).join()
      },
    }
  }

  nodes(): readonly RedisScanner[] {
    return this.client.masters.map((node) => ({
      scan: async (...args) => scan(await this.client.nodeClient(node), args),
    }))
  }
}

class OneClient extends AnyClient<One> {
  readonly #isPool: boolean

  constructor(client: One) {
    super(client)
    this.#isPool = typeof client.duplicate !== 'function'
  }

  servers(prefix: string): Servers | string {
    if (this.#isPool) {
      return 'createClientPool() of node-redis, which opens no further connections: take createClient().'
    }
    return oneServer(nodeRedisLine(() => this.client as unknown as NodeRedisDuplicable, prefix))
  }

  protected send(_key: string, args: Arguments): Promise<unknown> {
    return this.client.sendCommand(args.map(String), this.#isPool ? OPTIONS : inTime())
  }

  scan(...args: ScanArguments): Promise<[string, string[]]> {
    return scan(this.client, args)
  }

  openSubscriber(): RedisSubscriber {
    const own = this.client.duplicate()
    own.connect().catch(() => {})
    return new Subscriber(own, () => own.destroy())
  }

  duplicate(): RedisReplicationClient {
    return new SecondClient(this.client.duplicate())
  }
}

/** The second connection that the option `wait` takes. Commands of one connection are answered in their order. */
class SecondClient extends OneClient implements RedisReplicationClient {
  constructor(client: One) {
    super(client)
    client.connect().catch(() => {})
  }

  // As long as it is being opened it is not closed.
  override get status(): string {
    return this.client.isReady ? 'ready' : 'connecting'
  }

  on(event: 'error', listener: (error: Error) => void): void {
    this.client.on(event, listener)
  }

  pipeline(): ReturnType<RedisReplicationClient['pipeline']> {
    const commands: Arguments[] = []
    return {
      asking: () => commands.push(['ASKING']),
      eval: (script, keys, ...args) => commands.push(['EVAL', script, keys, ...args]),
      wait: (replicas, timeoutMs) => commands.push(['WAIT', replicas, timeoutMs]),
      exec: async () => {
        const sent = commands.map((args) => this.client.sendCommand(args.map(String), inTime()))
        const settled = await Promise.allSettled(sent)
        return settled.map((each) =>
          each.status === 'fulfilled' ? [null, each.value] : [each.reason as Error, undefined],
        )
      },
    }
  }

  async quit(): Promise<void> {
    this.disconnect()
  }

  disconnect(): void {
    if (this.client.isOpen) this.client.destroy()
  }
}

/** A cluster and Sentinel have a connection for it themselves, which they look after. */
class Subscriber implements RedisSubscriber {
  readonly #client: Emitter & Subscribing
  readonly #destroy: () => void
  #told: (channel: string, text: string) => void = () => {}

  constructor(client: Emitter & Subscribing, destroy: () => void = () => {}) {
    this.#client = client
    this.#destroy = destroy
  }

  get status(): string {
    const { isOpen, isReady = isOpen } = this.#client
    return isReady ? 'ready' : 'connecting'
  }

  subscribe(channel: string): Promise<unknown> {
    return this.#client.subscribe(channel, (text) => this.#told(channel, text))
  }

  unsubscribe(channel: string): Promise<unknown> {
    return this.#client.unsubscribe(channel)
  }

  on(event: 'message', listener: (channel: string, text: string) => void): void
  on(event: 'error', listener: (error: Error) => void): void
  on(event: string, listener: ((channel: string, text: string) => void) | ((error: Error) => void)): void {
    if (event === 'message') this.#told = listener as (channel: string, text: string) => void
    else this.#client.on('error', listener as (error: Error) => void)
  }

  once(_event: 'ready', listener: () => void): void {
    onceReady(this.#client, listener)
  }

  disconnect(): void {
    if (this.#client.isOpen) this.#destroy()
  }
}

function onceReady(client: Emitter, listener: () => void): void {
  const told = (): void => {
    for (const event of READY_EVENTS) client.off(event, told)
    listener()
  }
  for (const event of READY_EVENTS) client.on(event, told)
}

async function scan(client: One, args: ScanArguments): Promise<[string, string[]]> {
  return (await client.sendCommand(['SCAN', ...args.map(String)], OPTIONS)) as [string, string[]]
}
