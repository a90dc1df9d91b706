// Waits until what the Redis store has written is on replicas, with `WAIT`, on a connection of its own: `WAIT` holds up
// everything behind it on its connection.
//
// `WAIT` speaks for the writes of one connection to one node, so each thing to confirm is written again there, just
// before it, by a script that says whether it is still so. One `WAIT` speaks for all that wait for the same node, so
// that replicas that are away hold up an ending for twice the timeout at most, however many there are.
import { isSessionError, SessionError } from '../../errors.js'
import type { RedisConnection, RedisReplicationClient } from './connection.js'
import { slotOfKey } from './slots.js'

/** How long to wait for how many replicas. */
export interface RedisWaitOptions {
  /** How many replicas must have an ending. */
  replicas: number
  /**
   * How long to wait for them, in milliseconds, at most 4000. Keep it well below the deadline for store calls.
   * @default 500
   */
  timeoutMs?: number | undefined
}

/** Something written that has to be on replicas: `script` writes it again and replies what `isThere` takes for an answer. */
export interface Confirmation {
  readonly key: string
  readonly script: string
  readonly args: readonly (string | number)[]
  readonly isThere: (reply: unknown) => boolean
}

interface Waiting extends Confirmation {
  redirections: number
  /** The address that has the key already while its slot moves there: it answers who says `ASKING`. */
  movesTo: string | undefined
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** How many confirmations one `WAIT` may speak for, and how often one may be sent to another node. */
const MAX_BATCH = 500
const MAX_REDIRECTIONS = 3

export class RedisReplication {
  readonly #connection: RedisConnection<RedisReplicationClient>
  readonly #replicas: number
  readonly #timeoutMs: number
  /** What waits, by the node that it has been written to. A node that has an entry is being asked. */
  readonly #nodes = new Map<string, Waiting[]>()

  constructor(connection: RedisConnection<RedisReplicationClient>, { replicas, timeoutMs = 500 }: RedisWaitOptions) {
    this.#connection = connection
    this.#replicas = replicas
    this.#timeoutMs = timeoutMs
  }

  /** @throws {SessionError} `STORE_UNAVAILABLE` when too few replicas have it in time. */
  async confirm(confirmation: Confirmation): Promise<void> {
    try {
      await this.#connection.run(
        (client) =>
          new Promise<void>((resolve, reject) =>
            this.#enqueue(client, { ...confirmation, redirections: 0, movesTo: undefined, resolve, reject }),
          ),
      )
    } catch (error) {
      throw isUnconfirmed(error) ? error : unconfirmed('they could not be asked', error)
    }
  }

  close(): Promise<void> {
    return this.#connection.close()
  }

  #enqueue(client: RedisReplicationClient, waiting: Waiting): void {
    const node = placeOf(client, waiting)
    const queue = this.#nodes.get(node)
    if (queue) {
      queue.push(waiting)
      return
    }
    const own = [waiting]
    this.#nodes.set(node, own)
    void this.#ask(client, node, own)
  }

  async #ask(client: RedisReplicationClient, node: string, queue: Waiting[]): Promise<void> {
    while (queue.length > 0) {
      // Slots may have moved since they were put here, and a pipeline of keys on two nodes is refused as a whole.
      const batch = queue.splice(0, MAX_BATCH).filter((waiting) => {
        if (placeOf(client, waiting) === node) return true
        this.#enqueue(client, waiting)
        return false
      })
      if (batch.length === 0) continue
      try {
        const pipeline = nodeAt(client, batch[0]?.movesTo).pipeline()
        for (const { script, key, args, movesTo } of batch) {
          if (movesTo !== undefined) pipeline.asking()
          pipeline.eval(script, 1, key, ...args)
        }
        pipeline.wait(this.#replicas, this.#timeoutMs)
        const replies = (await pipeline.exec()) ?? []
        const acknowledged = replies.pop() ?? [new Error('There is no reply to WAIT.'), null]
        const each = replies.length / batch.length
        for (const [index, waiting] of batch.entries()) {
          this.#settle(client, waiting, replies[(index + 1) * each - 1] ?? [null, null], acknowledged)
        }
      } catch (error) {
        for (const { reject } of batch) reject(unconfirmed('they could not be asked', error))
      }
    }
    this.#nodes.delete(node)
  }

  #settle(
    client: RedisReplicationClient,
    waiting: Waiting,
    [error, reply]: readonly [Error | null, unknown],
    [failure, acknowledged]: readonly [Error | null, unknown],
  ): void {
    const { key, script, args, isThere, resolve, reject } = waiting
    if (
      error &&
      /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN)\b/.test(error.message) &&
      ++waiting.redirections <= MAX_REDIRECTIONS
    ) {
      waiting.movesTo = /^ASK \d+ (\S+)/.exec(error.message)?.[1]
      // The client follows the redirection of a command, but not that of a pipeline, and knows the node from then on.
      client.eval(script, 1, key, ...args).then(() => this.#enqueue(client, waiting), reject)
      // A primary that has become a replica says no to WAIT, and to the rest who is primary now: that is what counts.
    } else if (error ?? failure) reject(unconfirmed('they could not be asked', error ?? failure))
    else if (!isThere(reply)) reject(unconfirmed('it is not there any more: a failover may have undone it'))
    else if (!(Number(acknowledged) >= this.#replicas)) {
      reject(
        unconfirmed(`${Number(acknowledged) || 0} of ${this.#replicas} replicas have it after ${this.#timeoutMs} ms`),
      )
    } else resolve()
  }
}

const UNCONFIRMED = 'What was ended has ended in Redis, but is not confirmed by its replicas: '

function unconfirmed(reason: string, cause?: unknown): SessionError {
  return new SessionError('STORE_UNAVAILABLE', `${UNCONFIRMED}${reason}. A failover may bring it back.`, { cause })
}

function isUnconfirmed(error: unknown): boolean {
  return isSessionError(error) && error.message.startsWith(UNCONFIRMED)
}

/** Where to confirm it: the node that its key moves to, or else the nodes that hold it. */
function placeOf(client: RedisReplicationClient, { key, movesTo }: Waiting): string {
  return movesTo === undefined ? nodeOf(client, key) : `to ${movesTo}`
}

/** A name for the nodes that hold a key, the same for all keys that one pipeline may have. */
export function nodeOf({ slots, options }: Pick<RedisReplicationClient, 'slots' | 'options'>, key: string): string {
  if (slots === undefined) return ''
  return slots[slotOfKey(`${options?.keyPrefix ?? ''}${key}`)]?.join() ?? key
}

/** The client for one node, if it knows that by this address. */
function nodeAt(client: RedisReplicationClient, address: string | undefined): Pick<RedisReplicationClient, 'pipeline'> {
  if (address === undefined) return client
  return client.nodes?.('master').find(({ options }) => `${options.host}:${options.port}` === address) ?? client
}
