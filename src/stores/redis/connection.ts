// One connection of the Redis store: waits for it within bounds, sends commands and scripts, and cleans its errors. It
// knows nothing of sessions.
import { isSessionError, SessionError } from '../../errors.js'
import type { Servers } from './near-cache/trackers.js'
import type { Script } from './scripts.js'
import { reasonOf } from './setup.js'

/** The members of an ioredis `Redis` or `Cluster` that are called. */
export interface RedisClient {
  /** `'ready'` when commands can be sent. A client without it is taken to be always ready. */
  readonly status?: string
  /** Said when `status` is `'end'`: what is wrong, and what to do. */
  readonly closed?: string
  hgetall(key: string): Promise<Record<string, string>>
  get(key: string): Promise<string | null>
  getrange(key: string, start: number, end: number): Promise<string>
  strlen(key: string): Promise<number>
  del(key: string): Promise<number>
  evalsha(sha: string, keys: number, ...args: (string | number)[]): Promise<unknown>
  eval(script: string, keys: number, ...args: (string | number)[]): Promise<unknown>
  once(event: 'ready', listener: () => void): unknown
  connect?(): Promise<void>
  /** The socket, so that all that is sent in one turn of the event loop goes out in one write. */
  readonly stream?: CorkableStream | null
  /** Called by `scan()`. */
  scan?: RedisScanner['scan']
  /** Called by `scan()`: the primaries of a cluster, each of which has to be asked. */
  nodes?(role: 'master'): readonly RedisScanner[]
  /** Read by `scan()`: what the client puts before every key, but not into a pattern. */
  readonly options?: { readonly keyPrefix?: string | undefined }
  /** Read of a cluster: the addresses that hold each slot, the primary first. */
  readonly slots?: readonly (readonly string[] | undefined)[]
  /** Called by signals. */
  publish?(channel: string, text: string): Promise<unknown>
  /** Called for signals, where a duplicate is not what listens: opens what does, which the store closes. */
  openSubscriber?(): RedisSubscriber
  /** Called for `nearCache`, where a duplicate is not what tells of changes: a text says why nothing does. */
  servers?(prefix: string): Servers | string
  /** Called for signals and for the options `wait` and `nearCache`: opens a second connection like this one, which the store closes. */
  duplicate?(): RedisReplicationClient
}

/** What is called on the connection that listens for signals. */
export interface RedisSubscriber {
  readonly status?: string
  subscribe(channel: string): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
  on(event: 'message', listener: (channel: string, text: string) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  once(event: 'ready', listener: () => void): unknown
  disconnect(): void
}

/** The one member of an ioredis `Redis` that is called on each primary of a cluster. */
export interface RedisScanner {
  scan(cursor: string, match: 'MATCH', pattern: string, count: 'COUNT', n: number): Promise<[string, string[]]>
}

/** A client that the store opened itself. */
export interface OwnClient extends RedisClient {
  on(event: 'error', listener: (error: Error) => void): unknown
  /** Called once, for warnings at start. */
  info?(section: string): Promise<string>
  quit(): Promise<unknown>
  disconnect(): void
}

/** What the option `wait` calls on the second connection. */
export interface RedisReplicationClient extends OwnClient {
  pipeline(): RedisPipeline
  /** The nodes of a cluster: one is asked by itself about a key that is just moving to it. */
  nodes?(role: 'master'): readonly (RedisScanner & RedisNode)[]
}

/** The members of an ioredis `Redis` that are called on one node of a cluster. */
interface RedisNode {
  readonly options: { readonly host?: string | undefined; readonly port?: number | undefined }
  pipeline(): RedisPipeline
}

/** The members of an ioredis pipeline that are called. */
export interface RedisPipeline {
  asking(): unknown
  eval(script: string, keys: number, ...args: (string | number)[]): unknown
  wait(replicas: number, timeoutMs: number): unknown
  exec(): Promise<[error: Error | null, result: unknown][] | null>
}

/** How long a call waits for a connection that is being made; less than any sensible deadline. */
export const READY_WAIT_MS = 500
const CLOSED = 'the store has been closed.'

/** What `new RedisConnection()` takes: a client of somebody else's, or a way to open one of our own. */
export interface RedisConnectionOptions<Client extends RedisClient> {
  readonly client?: Client | undefined
  readonly open?: (() => Promise<Client & OwnClient>) | undefined
  readonly maxPending: number
  /** Called when a connection of our own is ready for the first time. */
  readonly onReady?: ((client: Client & OwnClient) => void) | undefined
}

/** What is called of the stream under a client. */
interface CorkableStream {
  cork(): void
  uncork(): void
}

/** How many calls are sent at once at most, while requests arrive without a pause. */
const MAX_HELD = 50

/** What is done with a client. It never throws, but may reject. */
type Operation<Client, T> = (client: Client) => Promise<T>
/** What is done about a failure. */
type Rescue<Client, T> = (error: unknown, client: Client) => Promise<T>

export class RedisConnection<Client extends RedisClient = RedisClient> {
  readonly #maxPending: number
  readonly #opening: Promise<Client & OwnClient> | null
  #client: Client | null
  #lastError: Error | null = null
  /** Calls that wait for the connection. */
  readonly #waiting = new Set<(failure?: string) => void>()
  #awaitsReady = false
  #pending = 0
  /** The stream on which what is sent is held back, and how many calls that is. */
  #corked: CorkableStream | null = null
  #held = 0
  #isClosed = false

  constructor({ client, open, maxPending, onReady }: RedisConnectionOptions<Client>) {
    this.#maxPending = maxPending
    this.#client = client ?? null
    this.#opening = open === undefined ? null : this.#open(open, onReady)
    // A failure is told to every call; here it must only not count as unhandled.
    this.#opening?.catch(() => {})
  }

  /** Runs one operation once the connection is ready, within the bounds on waiting and on open calls. */
  run<T>(operation: Operation<Client, T>): Promise<T> {
    return this.#start(operation, raise)
  }

  /** Runs an operation that may be done twice: again, when our connection was lost under it. */
  read<T>(operation: Operation<Client, T>): Promise<T> {
    return this.#start(operation, async (error, client) => {
      // A reply is an answer. Another failure of our client, which queues nothing, means a lost connection.
      if (this.#opening === null || this.#isClosed || (error as Error).name === 'ReplyError') throw error
      await this.#becomesReady(client)
      return operation(client)
    })
  }

  /** Runs a script, which the server may have to be told first. `explain` makes of its failure what is to be thrown. */
  script(
    { lua, sha }: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    explain: (error: unknown) => unknown = asItIs,
  ): Promise<unknown> {
    return this.#start<unknown>(
      (client) => client.evalsha(sha, keys.length, ...keys, ...args),
      async (error, client) => {
        // The server has been restarted, or its scripts flushed.
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw explain(withoutArguments(error))
        try {
          return await client.eval(lua, keys.length, ...keys, ...args)
        } catch (failure) {
          throw explain(withoutArguments(failure))
        }
      },
    )
  }

  /** Without a step more than it takes while the connection is ready: this is on the path of every request. */
  #start<T>(operation: Operation<Client, T>, rescue: Rescue<Client, T>): Promise<T> {
    const client = this.#client
    if (client === null || this.#isClosed || this.#pending >= this.#maxPending || !isReady(client)) {
      return this.#startLater(operation, rescue)
    }
    this.#pending++
    this.#cork(client)
    return operation(client).then(this.#answered, (error) => this.#failed(error, client, rescue))
  }

  async #startLater<T>(operation: Operation<Client, T>, rescue: Rescue<Client, T>): Promise<T> {
    if (this.#pending >= this.#maxPending) throw unavailable(`${this.#pending} calls are without an answer.`)
    this.#pending++
    let client: Client
    try {
      if (this.#isClosed) throw unavailable(CLOSED)
      client = this.#client ?? (await (this.#opening as Promise<Client>))
      if (!isReady(client)) await this.#becomesReady(client)
    } catch (error) {
      this.#pending--
      throw withoutArguments(error)
    }
    return operation(client).then(this.#answered, (error) => this.#failed(error, client, rescue))
  }

  readonly #answered = <T>(answer: T): T => {
    this.#pending--
    return answer
  }

  async #failed<T>(error: unknown, client: Client, rescue: Rescue<Client, T>): Promise<T> {
    try {
      return await rescue(error, client)
    } catch (failure) {
      throw explained(failure)
    } finally {
      this.#pending--
    }
  }

  /**
   * Holds back what is sent until all requests that have arrived by now have been begun: one write for all of them instead of one
   * for each. While a great many arrive, Redis gets its work in between.
   */
  #cork({ stream }: Client): void {
    if (!stream) return
    if (this.#corked === null) {
      this.#corked = stream
      this.#held = 0
      stream.cork()
      setImmediate(() => {
        this.#corked = null
        stream.uncork()
      })
    } else if (this.#corked === stream && ++this.#held === MAX_HELD) {
      this.#held = 0
      stream.uncork()
      stream.cork()
    }
  }

  /** Ends what waits, and the connection if it is our own. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const go of this.#waiting) go(CLOSED)
    if (this.#opening === null) return
    const client = await this.#opening.catch(() => null)
    if (client === null) return
    // Lets the answers under way come in, but not for longer than a call would wait.
    const timer = setTimeout(() => client.disconnect(), READY_WAIT_MS)
    if (client.status === 'ready') await client.quit().catch(() => {})
    clearTimeout(timer)
    client.disconnect()
  }

  async #open(
    open: () => Promise<Client & OwnClient>,
    onReady: RedisConnectionOptions<Client>['onReady'],
  ): Promise<Client & OwnClient> {
    const client = await open()
    if (onReady !== undefined) client.once('ready', () => onReady(client))
    client.on('error', (error) => {
      this.#lastError = withoutArguments(error)
    })
    this.#client = client
    return client
  }

  async #becomesReady(client: RedisClient): Promise<void> {
    if (this.#isClosed) throw unavailable(CLOSED)
    if (client.status === 'end') throw unavailable(client.closed ?? 'the connection has been closed.', this.#lastError)
    if (client.status === 'wait') client.connect?.().catch(() => {})
    if (!this.#awaitsReady) {
      this.#awaitsReady = true
      client.once('ready', () => {
        this.#awaitsReady = false
        for (const go of this.#waiting) go()
      })
    }
    // Not Promise.race: against a promise that outlives an outage it would keep every call of that outage in memory.
    await new Promise<void>((resolve, reject) => {
      const go = (failure?: string): void => {
        clearTimeout(timer)
        this.#waiting.delete(go)
        if (failure === undefined) resolve()
        else reject(unavailable(failure, this.#lastError))
      }
      const timer = setTimeout(() => go('there is no connection.'), READY_WAIT_MS)
      this.#waiting.add(go)
    })
  }
}

function isReady({ status }: RedisClient): boolean {
  return status === undefined || status === 'ready'
}

function asItIs(error: unknown): unknown {
  return error
}

function raise(error: unknown): never {
  throw error
}

/** ioredis puts the command on its errors, passwords and session data and all, and error logs print it. */
function withoutArguments<T>(error: T): T {
  if (error instanceof Error && 'command' in error) Reflect.deleteProperty(error, 'command')
  return error
}

/** What is known to be wrong with the server or its set-up is said in words; all else stays as it is. */
function explained(error: unknown): unknown {
  const cleaned = withoutArguments(error)
  const reason = isSessionError(cleaned) ? null : reasonOf(cleaned)
  return reason === null ? cleaned : unavailable(reason, cleaned)
}

export function unavailable(reason: string, cause?: unknown): SessionError {
  if (isSessionError(cause)) return cause
  const known = reasonOf(cause)
  const why = known === null || known === reason ? reason : `${reason} ${known}`
  return new SessionError('STORE_UNAVAILABLE', `Redis cannot be used: ${why}${why.endsWith('.') ? '' : '.'}`, { cause })
}
