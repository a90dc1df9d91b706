// What PostgreSQL notifies of, through pg: over one connection that does nothing else, and comes back by itself.
import { setTimeout as sleep } from 'node:timers/promises'
import { ignore } from '../driver.js'

/** The members of a `Client` that are called. */
export interface ListeningClient {
  connect(): Promise<unknown>
  query(text: string): Promise<unknown>
  on(event: string, listener: (argument: { channel: string; payload?: string }) => void): unknown
  end(): Promise<unknown>
  unref?(): void
  readonly connection?: { readonly stream?: { destroy(): unknown } }
}

type Listener = (payload: string) => void

/** How often it is asked whether the connection is still one: a lost one may say nothing. */
const CHECK_MS = 10_000
/** How long a connection may take until it listens. */
const CONNECT_MS = 5_000
const SHORTEST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 5_000

/** Listens to channels. The connection is opened for the first, and closed behind the last. */
export class PgListener {
  readonly #open: () => ListeningClient
  readonly #listeners = new Map<string, Set<Listener>>()
  #client: Promise<ListeningClient> | undefined

  constructor(open: () => ListeningClient) {
    this.#open = open
  }

  /** Resolves when what is sent from then on is heard, to what stops it. */
  async listen(channel: string, listener: Listener): Promise<() => Promise<void>> {
    const listeners = this.#listeners.get(channel) ?? new Set()
    listeners.add(listener)
    this.#listeners.set(channel, listeners)
    try {
      const client = await this.#connected()
      await client.query(`listen "${channel}"`)
    } catch (error) {
      await this.#stop(channel, listener)
      throw error
    }
    return () => this.#stop(channel, listener)
  }

  async #stop(channel: string, listener: Listener): Promise<void> {
    const listeners = this.#listeners.get(channel)
    if (!listeners?.delete(listener) || listeners.size > 0) return
    this.#listeners.delete(channel)
    const open = this.#client
    if (this.#listeners.size === 0) this.#client = undefined
    const client = await open?.catch(ignore)
    // Somebody listens again.
    if (!client || this.#listeners.has(channel)) return
    if (this.#client === open) await client.query(`unlisten "${channel}"`).catch(ignore)
    else await client.end().catch(ignore)
  }

  #connected(): Promise<ListeningClient> {
    if (this.#client === undefined) {
      const connecting = this.#connect(() => this.#lost(connecting))
      connecting.catch(() => {
        if (this.#client === connecting) this.#client = undefined
      })
      this.#client = connecting
    }
    return this.#client
  }

  async #connect(onLost: () => void): Promise<ListeningClient> {
    const client = this.#open()
    client.on('notification', ({ channel, payload = '' }) => {
      for (const listener of this.#listeners.get(channel) ?? []) listener(payload)
    })
    // Until it is there, who waits for it hears of its loss.
    client.on('error', ignore)
    let isLost = false
    client.on('end', () => {
      isLost = true
    })
    const deadline = setTimeout(() => client.connection?.stream?.destroy(), CONNECT_MS)
    deadline.unref()
    try {
      await client.connect()
      // Who only listens does not keep the process alive.
      client.unref?.()
      for (const channel of this.#listeners.keys()) await client.query(`listen "${channel}"`)
      if (isLost) throw new Error('The connection has been lost.')
    } catch (error) {
      // Not waited for: a server that hangs lets go of nothing.
      client.end().catch(ignore)
      throw error
    } finally {
      clearTimeout(deadline)
    }
    client.on('error', onLost)
    client.on('end', onLost)
    watch(client, onLost)
    return client
  }

  /** What is sent until it is back is lost. */
  #lost(connection: Promise<ListeningClient>): void {
    if (this.#client !== connection) return
    this.#client = undefined
    void this.#comeBack()
  }

  async #comeBack(): Promise<void> {
    let pause = SHORTEST_PAUSE_MS
    while (this.#listeners.size > 0) {
      try {
        await this.#connected()
        return
      } catch {
        await sleep(pause * (0.5 + Math.random()), undefined, { ref: false })
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS)
      }
    }
  }
}

/** Asks now and then, and gives up a connection that has not answered until the next time. */
function watch(client: ListeningClient, onLost: () => void): void {
  let isAnswered = true
  const timer = setInterval(() => {
    if (!isAnswered) {
      clearInterval(timer)
      client.connection?.stream?.destroy()
      onLost()
      return
    }
    isAnswered = false
    client.query('select 1').then(() => {
      isAnswered = true
    }, ignore)
  }, CHECK_MS)
  timer.unref()
  client.on('end', () => clearInterval(timer))
}
