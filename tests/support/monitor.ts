// What a Redis server does meanwhile, by MONITOR on a connection of its own: ioredis mistakes lines that come with the
// answer to MONITOR for answers.
import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import type { Redis } from 'ioredis'

/** One command: its name and arguments, and who sent it: `'lua'` for what a script calls, else a client's address. */
export interface MonitoredCommand {
  readonly args: readonly string[]
  readonly source: string
}

/** Every command that the server of `redis` runs while `task` does. */
export async function commandsWhile(redis: Redis, task: () => Promise<unknown>): Promise<MonitoredCommand[]> {
  const { host = '127.0.0.1', port = 6379 } = redis.options
  const socket = connect(port, host)
  await once(socket, 'connect')
  const lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY })
  const commands: MonitoredCommand[] = []
  const end = randomUUID()
  const answers = new EventEmitter()
  const begun = once(answers, 'begun')
  const ended = once(answers, 'ended')
  // Whichever is waited for rejects with it.
  socket.on('error', (error) => answers.emit('error', error))
  lines.on('line', (line) => {
    if (line === '+OK') {
      answers.emit('begun')
      return
    }
    const command = parse(line)
    if (command?.args[1] === end) answers.emit('ended')
    else if (command !== null) commands.push(command)
  })
  try {
    socket.write('MONITOR\r\n')
    await begun
    await task()
    await redis.echo(end)
    await ended
    return commands
  } finally {
    lines.close()
    socket.destroy()
  }
}

/** `+1700000000.000000 [0 127.0.0.1:50000] "get" "key"`, texts escaped as in C. */
function parse(line: string): MonitoredCommand | null {
  const [, source, rest] = /^\+[\d.]+ \[\d+ ([^\]]+)\] (.*)$/.exec(line) ?? []
  if (source === undefined || rest === undefined) return null
  return { source, args: [...rest.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) => unescaped(text)) }
}

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t', a: '\u0007', b: '\b' }

/** The escapes stand for bytes, of UTF-8 as we write it. */
function unescaped(text: string): string {
  const bytes = text.replace(/\\(?:x([0-9a-f]{2})|(.))/gi, (_all, hex?: string, one: string = '') =>
    hex === undefined ? (ESCAPES[one] ?? one) : String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Buffer.from(bytes, 'latin1').toString()
}
