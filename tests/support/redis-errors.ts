// The errors of a Redis or Valkey that the store tells apart, each as a real server says it.
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './http.js'
import { freePort, RedisServer } from './redis.js'

interface RedisError {
  /** What the server says it about. */
  readonly when: string
  /** Makes a server say it, and resolves to what it says. */
  readonly provoke: () => Promise<string>
}

/** An address at which there is no primary. */
const NOBODY = ['127.0.0.1', '1']

/** By the word that the error begins with. */
export const REDIS_ERRORS: Readonly<Record<string, RedisError>> = {
  NOSCRIPT: {
    when: 'a script that the server does not have',
    provoke: () => onServer([], ({ port }) => answer(port, 'EVALSHA', 'f'.repeat(40), '0')),
  },
  BUSY: {
    when: 'a script has run for too long',
    provoke: () =>
      onServer(['--busy-reply-threshold', '1'], ({ port }) => {
        send(port, 'EVAL', 'while true do end', '0')
        return refusal(port, 'GET', 'x')
      }),
  },
  LOADING: {
    when: 'the server reads its data from disk',
    provoke: () =>
      onServer(['--enable-debug-command', 'yes', '--rdbcompression', 'no'], async ({ port }) => {
        for (let key = 0; key < 20; key++) await answer(port, 'SET', `key${key}`, 'x'.repeat(2_000))
        // Ten seconds for all of them, and others are heard after each kilobyte.
        await answer(port, 'CONFIG', 'SET', 'key-load-delay', '500000')
        await answer(port, 'CONFIG', 'SET', 'loading-process-events-interval-bytes', '1024')
        send(port, 'DEBUG', 'RELOAD')
        return refusal(port, 'GET', 'x')
      }),
  },
  OOM: {
    when: 'a write without memory for it',
    provoke: () => onServer(['--maxmemory', '1'], ({ port }) => answer(port, 'SET', 'x', '1')),
  },
  MISCONF: {
    when: 'a write while data cannot be saved to disk',
    async provoke() {
      const directory = mkdtempSync(join(tmpdir(), 'sojourn-misconf-'))
      return onServer(['--save', '3600', '1', '--dir', directory], async ({ port }) => {
        rmSync(directory, { recursive: true })
        await answer(port, 'BGSAVE')
        return refusal(port, 'SET', 'x', '1')
      })
    },
  },
  READONLY: {
    when: 'a write to a replica',
    provoke: () => onServer(['--replicaof', ...NOBODY], ({ port }) => answer(port, 'SET', 'x', '1')),
  },
  MASTERDOWN: {
    when: 'a replica without its primary, with `replica-serve-stale-data no`',
    provoke: () =>
      onServer(['--replicaof', ...NOBODY, '--replica-serve-stale-data', 'no'], ({ port }) => answer(port, 'GET', 'x')),
  },
  NOREPLICAS: {
    when: 'a write with fewer replicas than `min-replicas-to-write`',
    provoke: () => onServer(['--min-replicas-to-write', '1'], ({ port }) => answer(port, 'SET', 'x', '1')),
  },
  CLUSTERDOWN: {
    when: 'a slot that no node serves',
    async provoke() {
      const bus = String(await freePort())
      return onServer(['--cluster-enabled', 'yes', '--cluster-port', bus], ({ port }) => answer(port, 'GET', 'x'))
    },
  },
  NOAUTH: {
    when: 'a command without a password',
    provoke: () =>
      onServer([], async ({ port }) => {
        await answer(port, 'CONFIG', 'SET', 'requirepass', 'secret')
        return answer(port, 'GET', 'x')
      }),
  },
  WRONGPASS: {
    when: 'a password that is wrong',
    provoke: () => onServer([], ({ port }) => answer(port, 'AUTH', 'ann', 'wrong')),
  },
  NOPERM: {
    when: 'a command that the user has no right to',
    provoke: () =>
      onServer([], async ({ port }) => {
        await answer(port, 'ACL', 'SETUSER', 'default', '-get')
        return answer(port, 'GET', 'x')
      }),
  },
}

/** What a server says that is started for it, without the sign of an error. */
async function onServer(args: readonly string[], provoke: (server: RedisServer) => Promise<string>): Promise<string> {
  const server = await RedisServer.start(...args)
  try {
    return (await provoke(server)).replace(/^-/, '')
  } finally {
    await server.stop()
  }
}

/** Asks until there is an error. */
async function refusal(port: number, ...command: string[]): Promise<string> {
  let said = ''
  await until(async () => {
    said = await answer(port, ...command)
    return said.startsWith('-')
  }, 30_000)
  return said
}

/** The first line of what a server answers, as it comes: a client would put it into words of its own. */
async function answer(port: number, ...command: string[]): Promise<string> {
  const socket = send(port, ...command)
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  while (!text.includes('\r\n')) await once(socket, 'data')
  socket.destroy()
  return text.slice(0, text.indexOf('\r\n'))
}

function send(port: number, ...command: string[]): ReturnType<typeof connect> {
  const socket = connect(port, '127.0.0.1')
  // The end of a server that is killed with a command under way.
  socket.on('error', () => {})
  const parts = command.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`)
  socket.write(`*${command.length}\r\n${parts.join('')}`)
  return socket
}
