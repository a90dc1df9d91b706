// The signals of the Redis store: PUBLISH on its connection, SUBSCRIBE on one of their own, since a connection that subscribes
// does nothing else. It is opened by the first who listens.
import { SessionError } from '../../errors.js'
import type { SessionSignals } from '../../record/signals.js'
import { READY_WAIT_MS, type RedisConnection, type RedisSubscriber } from './connection.js'

type Listener = (text: string) => void

/** Who listens to a channel. All of them wait until Redis has said that it sends it. */
interface Channel {
  readonly listeners: Set<Listener>
  readonly subscribed: Promise<unknown>
}

export class RedisSignals implements SessionSignals {
  readonly #prefix: string
  readonly #connection: RedisConnection
  readonly #open: () => Promise<RedisSubscriber>
  readonly #channels = new Map<string, Channel>()
  #subscriber: Promise<RedisSubscriber> | undefined

  constructor(prefix: string, connection: RedisConnection, open: () => Promise<RedisSubscriber>) {
    this.#prefix = prefix
    this.#connection = connection
    this.#open = open
  }

  async send(channel: string, text: string): Promise<void> {
    await this.#connection.run(async (client) => {
      if (client.publish === undefined) throw notSupported('publish')
      return client.publish(`${this.#prefix}s:${channel}`, text)
    })
  }

  async listen(channel: string, listener: Listener): Promise<() => Promise<void>> {
    const name = `${this.#prefix}s:${channel}`
    this.#subscriber ??= this.#openSubscriber()
    const subscriber = await this.#subscriber
    let heard = this.#channels.get(name)
    if (heard === undefined) {
      heard = { listeners: new Set(), subscribed: subscriber.subscribe(name) }
      this.#channels.set(name, heard)
    }
    const { listeners, subscribed } = heard
    listeners.add(listener)
    try {
      await subscribed
    } catch (error) {
      if (this.#channels.get(name) === heard) this.#channels.delete(name)
      throw error
    }
    return async () => {
      if (!listeners.delete(listener) || listeners.size > 0) return
      this.#channels.delete(name)
      await subscriber.unsubscribe(name).catch(() => {})
    }
  }

  async close(): Promise<void> {
    const subscriber = await this.#subscriber?.catch(() => undefined)
    subscriber?.disconnect()
  }

  async #openSubscriber(): Promise<RedisSubscriber> {
    const subscriber = await this.#open()
    // A failure is told to who listens; the client connects, and subscribes, again by itself.
    subscriber.on('error', () => {})
    subscriber.on('message', (name, text) => {
      for (const listener of this.#channels.get(name)?.listeners ?? []) listener(text)
    })
    try {
      await becomesReady(subscriber)
      return subscriber
    } catch (error) {
      this.#subscriber = undefined
      subscriber.disconnect()
      throw error
    }
  }
}

function notSupported(name: string): SessionError {
  return new SessionError('NOT_SUPPORTED', `RedisSessionStore: client has no ${name}, which signals need.`)
}

/** Many clients refuse what is sent before. */
function becomesReady(subscriber: RedisSubscriber): Promise<void> {
  if (subscriber.status === undefined || subscriber.status === 'ready') return Promise.resolve()
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new SessionError('STORE_UNAVAILABLE', 'Redis cannot be used: there is no connection for signals.'))
    }, READY_WAIT_MS)
    subscriber.once('ready', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
