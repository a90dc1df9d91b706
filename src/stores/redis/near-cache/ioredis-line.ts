// A line by ioredis or iovalkey: a second connection like that of the client, on the second version of the protocol, which sends
// what the server tells to itself, as messages. What is told in the third version, ioredis drops without a word.
import type { Line, LineListener, MakeLine } from './tracker.js'

/** The members of an ioredis `Redis` that are called on a connection that is told of changes. */
export interface TrackingClient {
  connect(): Promise<unknown>
  call(command: string, ...args: string[]): Promise<unknown>
  subscribe(channel: string): Promise<unknown>
  ping(): Promise<unknown>
  /** With the raw message, a list of keys: as text it would be one text of all of them. */
  on(event: 'messageBuffer', listener: (channel: Uint8Array, message: unknown) => void): unknown
  on(event: 'error' | 'close', listener: (error?: Error) => void): unknown
  disconnect(): void
  readonly stream?: { unref?(): unknown } | null
}

/** Options of ioredis for such a connection: it is used once, for as long as its socket lives. */
export const LINE_OPTIONS = {
  protocol: 2,
  lazyConnect: true,
  keyPrefix: '',
  readOnly: false,
  enableReadyCheck: false,
  enableOfflineQueue: false,
  enableAutoPipelining: false,
  autoResubscribe: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 5_000,
  socketTimeout: undefined,
  commandTimeout: undefined,
  retryStrategy: () => null,
  sentinelRetryStrategy: () => null,
  reconnectOnError: null,
} as const

const CHANNEL = '__redis__:invalidate'

/** @param prefix what the keys begin with that are told */
export function ioredisLine(open: () => Promise<TrackingClient>, prefix: string): MakeLine {
  return (listener) => new IoredisLine(open, prefix, listener)
}

class IoredisLine implements Line {
  readonly #opening: () => Promise<TrackingClient>
  readonly #prefix: string
  readonly #listener: LineListener
  #client: TrackingClient | null = null
  #isClosed = false

  constructor(open: () => Promise<TrackingClient>, prefix: string, listener: LineListener) {
    this.#opening = open
    this.#prefix = prefix
    this.#listener = listener
  }

  async open(): Promise<void> {
    const client = await this.#opening()
    if (this.#isClosed) {
      client.disconnect()
      return
    }
    this.#client = client
    // What is wrong is told by what fails of it.
    client.on('error', () => {})
    client.on('close', (error) => this.#listener.lost(error))
    client.on('messageBuffer', (_channel, message) => {
      this.#listener.changed(Array.isArray(message) ? message.map(String) : null)
    })
    await client.connect()
    // It is there for others, and keeps no process alive.
    client.stream?.unref?.()
    const id = await client.call('CLIENT', 'ID')
    await client.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', String(id), 'BCAST', 'PREFIX', this.#prefix)
    await client.subscribe(CHANNEL)
  }

  heartbeat(): Promise<unknown> {
    return this.#client?.ping() ?? Promise.reject(new Error('The connection is closed.'))
  }

  close(): void {
    this.#isClosed = true
    this.#client?.disconnect()
  }
}
