// A line by node-redis 5 or 6: a second connection on the second version of the protocol, in which the server sends what it tells to
// this connection itself, as messages.
import type { Line, LineListener, MakeLine } from './tracker.js'

/** The members of a client of node-redis that are called on a connection that is told of changes. */
export interface NodeRedisTrackingClient {
  connect(): Promise<unknown>
  sendCommand(args: string[]): Promise<unknown>
  subscribe(channel: string, listener: (keys: unknown) => void): Promise<unknown>
  on(event: 'connect' | 'error' | 'end', listener: (error?: unknown) => void): unknown
  unref?(): void
  destroy(): void
}

/** What opens such a connection beside a client. */
export interface NodeRedisDuplicable {
  readonly options?: { readonly socket?: object | undefined } | undefined
  duplicate(options: object): NodeRedisTrackingClient
}

const CHANNEL = '__redis__:invalidate'

/**
 * @param open the client beside which it is opened
 * @param prefix what the keys begin with that are told
 */
export function nodeRedisLine(
  open: () => NodeRedisDuplicable | Promise<NodeRedisDuplicable>,
  prefix: string,
): MakeLine {
  return (listener) => new NodeRedisLine(open, prefix, listener)
}

class NodeRedisLine implements Line {
  readonly #beside: () => NodeRedisDuplicable | Promise<NodeRedisDuplicable>
  readonly #prefix: string
  readonly #listener: LineListener
  #client: NodeRedisTrackingClient | null = null
  /** Its socket is there, or will not come any more: `destroy()` does not reach one that is being made. */
  #isSettled = false
  #isClosed = false

  constructor(
    beside: () => NodeRedisDuplicable | Promise<NodeRedisDuplicable>,
    prefix: string,
    listener: LineListener,
  ) {
    this.#beside = beside
    this.#prefix = prefix
    this.#listener = listener
  }

  async open(): Promise<void> {
    const beside = await this.#beside()
    if (this.#isClosed) return
    const socket = { ...beside.options?.socket, connectTimeout: 5_000, reconnectStrategy: false }
    const client = beside.duplicate({ ...LINE_OPTIONS, socket })
    this.#client = client
    client.on('connect', () => this.#settle())
    client.on('error', (error) => {
      this.#settle()
      this.#listener.lost(error)
    })
    client.on('end', () => this.#listener.lost(undefined))
    await client.connect()
    // It is there for others, and keeps no process alive.
    client.unref?.()
    const id = await client.sendCommand(['CLIENT', 'ID'])
    const prefix = ['PREFIX', this.#prefix]
    await client.sendCommand(['CLIENT', 'TRACKING', 'ON', 'REDIRECT', String(id), 'BCAST', ...prefix])
    await client.subscribe(CHANNEL, (keys) => this.#listener.changed(Array.isArray(keys) ? keys.map(String) : null))
  }

  heartbeat(): Promise<unknown> {
    return this.#client?.sendCommand(['PING']) ?? Promise.reject(new Error('The connection is closed.'))
  }

  close(): void {
    this.#isClosed = true
    if (this.#isSettled) this.#destroy()
  }

  #settle(): void {
    this.#isSettled = true
    if (this.#isClosed) this.#destroy()
  }

  #destroy(): void {
    try {
      this.#client?.destroy()
    } catch {
      // Version 5 throws for one that has given up by itself.
    }
  }
}

const LINE_OPTIONS = {
  RESP: 2,
  url: undefined,
  clientSideCache: undefined,
  emitInvalidate: false,
  maintNotifications: 'disabled',
  disableOfflineQueue: true,
  readonly: false,
  pingInterval: undefined,
  commandOptions: {},
} as const
