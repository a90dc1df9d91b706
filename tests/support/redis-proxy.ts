// A proxy in front of Redis that knows which call of a store a command is, for faults that meet a single call.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { StoreOperation } from 'sojourn/testing'
import {
  CREATE,
  END,
  EPOCH,
  MERGE,
  REGENERATE,
  REPLACE,
  REPLACE_FRONT,
  type Script,
  TOUCH,
} from '../../src/stores/redis/scripts.js'
import { ADD, EVICT, REMOVE, SETTLE } from '../../src/stores/redis/users.js'

/** What happens to one call on its way: Redis refuses it, does it and the connection is lost, does it later, answers nonsense. */
export interface WireFault {
  readonly kind: 'fails' | 'answer lost' | 'late' | 'unknown answer'
  readonly operation: StoreOperation
}

/** A command that the client waits for. */
interface Command {
  readonly operation: StoreOperation | undefined
  readonly parts: readonly Buffer[]
  /** What the client gets, once it is there: replies leave in the order of the commands. */
  reply: Buffer | null
  fault: WireFault | undefined
}

/** One connection through the proxy. */
interface Line {
  readonly client: Socket
  readonly upstream: Socket
  /** What the client has sent and was not answered yet. */
  readonly open: Command[]
  /** Of these, what Redis has been sent. */
  readonly sent: Command[]
  fromClient: Buffer
  fromRedis: Buffer
}

const OPERATION_OF = new Map<string, StoreOperation>(
  (
    [
      ['create', CREATE],
      ['update', MERGE],
      ['update', REPLACE],
      ['update', REPLACE_FRONT],
      ['touch', TOUCH],
      ['regenerate', REGENERATE],
      ['end', END],
      ['epoch', EPOCH],
      ['users.add', ADD],
      ['users.settle', SETTLE],
      ['users.evict', EVICT],
      ['users.remove', REMOVE],
    ] satisfies [StoreOperation, Script][]
  ).map(([operation, { sha }]) => [sha, operation]),
)
const UNKNOWN_REPLY = Buffer.from('*1\r\n:7\r\n')

/** A proxy in front of Redis that disturbs single calls of a `RedisSessionStore`. */
export class RedisProxy {
  readonly url: string
  readonly #server: Server
  readonly #lines = new Set<Line>()
  readonly #sockets = new Set<Socket>()
  #fault: WireFault | undefined
  #held: { line: Line; command: Command }[] = []
  #after = 0
  #laterMs = 0

  private constructor(server: Server, targetPort: number) {
    this.#server = server
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('connection', (client) => this.#join(client, targetPort))
  }

  static async start(targetPort: number): Promise<RedisProxy> {
    // Or each answer waits for 40 ms until the one before was acknowledged.
    const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new RedisProxy(server, targetPort)
  }

  /** Disturbs the next call of that operation, or the one after so many others of it. */
  fail(fault: WireFault, after = 0): void {
    this.#fault = fault
    this.#after = after
  }

  /** How many calls are on their way and do not get on. */
  get heldCalls(): number {
    return this.#held.length
  }

  /** Whether Redis owes no answer, and some calls have not come to it. */
  get isStuck(): boolean {
    return this.#held.length > 0 && [...this.#lines].every(({ sent }) => sent.length === 0)
  }

  /** Whether every command has been answered. */
  get isIdle(): boolean {
    return [...this.#lines].every(({ open, sent }) => open.length + sent.length === 0)
  }

  /** Answers held calls with an error, as a proxy does that has waited long enough: what comes behind them gets on. */
  giveUp(): void {
    for (const { line, command } of this.#held) {
      command.reply = Buffer.from('-ERR the proxy has waited long enough\r\n')
      this.#flush(line)
    }
  }

  /** Lets held calls go on to Redis, whose clock is then further by so much, as far as they can tell. */
  release(laterMs: number): void {
    this.#laterMs = laterMs
    for (const { line, command } of this.#held.splice(0)) this.#forward(line, command)
  }

  /** No fault is left, and nobody waits. */
  reset(): void {
    this.#fault = undefined
    this.#held = []
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #join(client: Socket, targetPort: number): void {
    const upstream = connect({ port: targetPort, host: '127.0.0.1', noDelay: true })
    const line: Line = {
      client,
      upstream,
      open: [],
      sent: [],
      fromClient: Buffer.alloc(0),
      fromRedis: Buffer.alloc(0),
    }
    this.#lines.add(line)
    const close = (): void => {
      // What Redis was sent it does, also for a client that has gone.
      client.destroy()
      upstream.end()
      this.#lines.delete(line)
    }
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket)
      socket.on('error', close).on('close', () => {
        this.#sockets.delete(socket)
        close()
      })
    }
    client.on('data', (chunk: Buffer) => {
      line.fromClient = Buffer.concat([line.fromClient, chunk])
      for (let value = valueAt(line.fromClient); value !== null; value = valueAt(line.fromClient)) {
        line.fromClient = line.fromClient.subarray(value.end)
        this.#take(line, value.parts)
      }
    })
    upstream.on('data', (chunk: Buffer) => {
      line.fromRedis = Buffer.concat([line.fromRedis, chunk])
      for (let value = valueAt(line.fromRedis); value !== null; value = valueAt(line.fromRedis)) {
        const reply = line.fromRedis.subarray(0, value.end)
        line.fromRedis = line.fromRedis.subarray(value.end)
        this.#answer(line, reply)
      }
    })
  }

  #take(line: Line, parts: readonly Buffer[]): void {
    const operation = operationOf(parts)
    const command: Command = { operation, parts, reply: null, fault: undefined }
    line.open.push(command)
    if (this.#fault !== undefined && this.#fault.operation === operation && this.#after-- <= 0) {
      command.fault = this.#fault
      this.#fault = undefined
    }
    switch (command.fault?.kind) {
      case 'fails':
        command.reply = Buffer.from('-ERR it was told to fail\r\n')
        this.#flush(line)
        return
      case 'late':
        this.#held.push({ line, command })
        return
      default:
        this.#forward(line, command)
    }
  }

  #forward(line: Line, command: Command): void {
    line.sent.push(command)
    const { operation, parts, fault } = command
    const isTimed = fault?.kind === 'late' && (operation === 'create' || operation === 'regenerate')
    line.upstream.write(encoded(isTimed ? this.#sooner(parts) : parts))
  }

  /** What the call says of the clock of Redis, in the first argument of its script, so that it is as late as it would be then. */
  #sooner(parts: readonly Buffer[]): Buffer[] {
    const first = 3 + Number(parts[2])
    return parts.map((part, index) => (index === first ? Buffer.from(String(Number(part) - this.#laterMs)) : part))
  }

  #answer(line: Line, reply: Buffer): void {
    const command = line.sent.shift()
    if (command === undefined) return
    command.reply = reply
    // The server is told the script first: this was not the call.
    if (command.fault !== undefined && reply.toString().startsWith('-NOSCRIPT')) this.fail(command.fault)
    else if (command.fault?.kind === 'answer lost') {
      line.client.destroy()
      return
    } else if (command.fault?.kind === 'unknown answer') command.reply = UNKNOWN_REPLY
    this.#flush(line)
  }

  #flush(line: Line): void {
    for (let first = line.open[0]; first?.reply; first = line.open[0]) {
      line.open.shift()
      if (!line.client.destroyed) line.client.write(first.reply)
    }
  }
}

function operationOf([name, script]: readonly Buffer[]): StoreOperation | undefined {
  const command = name?.toString().toLowerCase()
  if (command === 'getrange') return 'get'
  if (command === 'hgetall') return 'users.list'
  if (command === 'evalsha') return OPERATION_OF.get(String(script))
  if (command === 'eval')
    return OPERATION_OF.get(
      createHash('sha1')
        .update(script as Buffer)
        .digest('hex'),
    )
  return undefined
}

function encoded(parts: readonly Buffer[]): Buffer {
  const texts = parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from('\r\n')])
  return Buffer.concat([Buffer.from(`*${parts.length}\r\n`), ...texts])
}

/** The first value of RESP in a text, if all of it is there: where it ends, and the texts in it. */
function valueAt(text: Buffer, at = 0): { end: number; parts: Buffer[] } | null {
  const stop = text.indexOf('\r\n', at)
  if (stop === -1) return null
  const end = stop + 2
  const kind = String.fromCharCode(text[at] as number)
  const length = Number(text.toString('latin1', at + 1, stop))
  if ((kind === '$' || kind === '=') && length >= 0) {
    return text.length < end + length + 2 ? null : { end: end + length + 2, parts: [text.subarray(end, end + length)] }
  }
  // A list, or in RESP3 a map of so many pairs.
  const count = kind === '%' ? 2 * length : kind === '*' ? length : 0
  if (count <= 0) return { end, parts: [] }
  const parts: Buffer[] = []
  let next = end
  for (let index = 0; index < count; index++) {
    const value = valueAt(text, next)
    if (value === null) return null
    parts.push(...value.parts)
    next = value.end
  }
  return { end: next, parts }
}
