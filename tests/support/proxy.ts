// A TCP proxy in front of a server, for the faults that lie between it and its clients.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

interface Pair {
  readonly client: Socket
  readonly upstream: Socket
  /** Replies that are late, in order. */
  readonly held: Buffer[]
  isBlackHole: boolean
}

/** Passes everything on, until it is told otherwise. */
export class TcpProxy {
  readonly port: number
  readonly #server: Server
  readonly #pairs = new Set<Pair>()
  #delayMs = 0
  #refuses = false

  private constructor(server: Server, targetPort: number) {
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    server.on('connection', (client) => this.#join(client, targetPort))
  }

  static async start(targetPort: number): Promise<TcpProxy> {
    // Or each answer waits for 40 ms until the one before was acknowledged.
    const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new TcpProxy(server, targetPort)
  }

  /** Each reply comes so much later. */
  delayReplies(ms: number): void {
    this.#delayMs = ms
  }

  /** No reply comes on the connections of now any more; they stay open, and new ones work. */
  swallowReplies(): void {
    for (const pair of this.#pairs) pair.isBlackHole = true
  }

  /** Cuts all connections. */
  cut(): void {
    for (const { client, upstream } of this.#pairs) {
      client.destroy()
      upstream.destroy()
    }
  }

  /** Cuts all connections, and each new one. */
  refuse(): void {
    this.#refuses = true
    this.cut()
  }

  /** Goes back to passing everything on; late replies come now. */
  repair(): void {
    this.#delayMs = 0
    this.#refuses = false
    for (const pair of this.#pairs) for (const reply of pair.held.splice(0)) pair.client.write(reply)
  }

  async stop(): Promise<void> {
    this.cut()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #join(client: Socket, targetPort: number): void {
    if (this.#refuses) {
      client.destroy()
      return
    }
    const upstream = connect({ port: targetPort, host: '127.0.0.1', noDelay: true })
    const pair: Pair = { client, upstream, held: [], isBlackHole: false }
    this.#pairs.add(pair)
    const close = (): void => {
      client.destroy()
      upstream.destroy()
      this.#pairs.delete(pair)
    }
    for (const socket of [client, upstream]) socket.on('error', close).on('close', close)
    client.on('data', (chunk) => upstream.write(chunk))
    upstream.on('data', (chunk: Buffer) => this.#reply(pair, chunk))
  }

  #reply(pair: Pair, chunk: Buffer): void {
    if (pair.isBlackHole) return
    if (this.#delayMs === 0 && pair.held.length === 0) {
      pair.client.write(chunk)
      return
    }
    pair.held.push(chunk)
    setTimeout(() => {
      const first = pair.held.shift()
      if (first !== undefined && !pair.client.destroyed) pair.client.write(first)
    }, this.#delayMs).unref()
  }
}
