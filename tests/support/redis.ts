// A real redis-server for tests: one of our own on a free port, or the one that REDIS_URL names.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

/** The binary of the servers that tests start: `REDIS_SERVER` names that of another version, or of Valkey. */
export function redisServer(): string {
  return process.env['REDIS_SERVER'] || 'redis-server'
}

/** The client that came with it, beside it and under the same name, as `valkey-cli`; else `redis-cli`. */
export function redisCli(): string {
  return redisServer().endsWith('-server') ? redisServer().replace(/server$/, 'cli') : 'redis-cli'
}

/** A redis-server process that a test may freeze, kill and start again. */
export class RedisServer {
  readonly port: number
  readonly url: string
  readonly #args: readonly string[]
  readonly #directory = mkdtempSync(join(tmpdir(), 'sojourn-redis-'))
  #process: ChildProcess | undefined

  private constructor(port: number, args: readonly string[]) {
    this.port = port
    this.url = `redis://127.0.0.1:${port}`
    this.#args = args
  }

  /** Starts a server on a free port. */
  static start(...args: string[]): Promise<RedisServer> {
    return withFreePorts(async () => {
      const server = new RedisServer(await freePort(), args)
      try {
        await server.restart()
        return server
      } catch (error) {
        await server.stop()
        throw error
      }
    })
  }

  /** Starts the process, again if it was killed; empty, since nothing is kept on disk. */
  async restart(): Promise<void> {
    const fixed = ['--port', String(this.port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
    const child = spawn(redisServer(), [...fixed, '--dir', this.#directory, ...this.#args], { stdio: 'ignore' })
    this.#process = child
    child.on('error', () => {})
    await this.#accepts()
  }

  /** Stops it as a crash would. */
  async kill(): Promise<void> {
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGCONT')
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  /** The process stops answering; connections stay open. */
  freeze(): void {
    this.#process?.kill('SIGSTOP')
  }

  thaw(): void {
    this.#process?.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    await this.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #accepts(): Promise<void> {
    const client = new Redis(this.port, '127.0.0.1', { retryStrategy: () => 10, lazyConnect: true })
    client.on('error', () => {})
    await new Promise<void>((resolve, reject) => {
      client.once('ready', resolve)
      this.#process?.once('exit', (code) => reject(new Error(`${redisServer()} ended with code ${code}`)))
      client.connect().catch(() => {})
    }).finally(() => client.disconnect())
  }
}

/** The server for tests that only need one to be there: REDIS_URL, or a new one. */
export async function sharedRedis(): Promise<{ url: string; stop(): Promise<void> }> {
  const url = process.env['REDIS_URL']
  return url ? { url, stop: async () => {} } : RedisServer.start()
}

/** Tries a few times: a port that was free may be taken by somebody else before it is used. */
export async function withFreePorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start()
    } catch (error) {
      if (attempt === 3) throw error
    }
  }
}

/**
 * A port that nobody listens on. None of those that the system hands out itself (from 32,768 on Linux): some server would get it
 * between being found and being used, which may be long. Each of Jest's workers has its own, so that no two find the same.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST_PORT + WORKER * PORTS_EACH + (nextPort++ % PORTS_EACH)
    if (await isFree(port)) return port
  }
}

const FIRST_PORT = 10_000
const PORTS_EACH = 2_750
/** At most eight of them run at a time. */
const WORKER = Number(process.env['JEST_WORKER_ID'] ?? 0) % 8
let nextPort = randomInt(PORTS_EACH)

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening')
  } catch {
    return false
  }
  await once(server.close(), 'close')
  return true
}
