// A redis-server of our own, which can be frozen: what a machine looks like that is stuck, and whose connections stay open.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Waiting so long for a server that has just been started is waiting for none. */
const START_MS = 5_000

export class OwnRedis {
  readonly socket: string
  readonly #process: ChildProcess

  private constructor(socket: string, child: ChildProcess) {
    this.socket = socket
    this.#process = child
  }

  /** Resolves to `null` when this machine has no redis-server. */
  static async start(): Promise<OwnRedis | null> {
    const directory = mkdtempSync(join(tmpdir(), 'sojourn-demo-'))
    const socket = join(directory, 'redis.sock')
    // No port, nothing on disk: nobody else notices it.
    const args = ['--port', '0', '--unixsocket', socket, '--dir', directory, '--save', '', '--appendonly', 'no']
    const child = spawn('redis-server', args, { stdio: 'ignore' })
    // However this process ends, the server ends with it.
    process.once('exit', () => {
      child.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
    })
    const ended = new AbortController()
    child.once('error', () => ended.abort())
    child.once('exit', () => ended.abort())
    const patience = AbortSignal.any([ended.signal, AbortSignal.timeout(START_MS)])
    return (await accepts(socket, patience)) ? new OwnRedis(socket, child) : null
  }

  /** No answer for `ms`; then it goes on as if nothing had been. */
  freeze(ms: number): void {
    this.#process.kill('SIGSTOP')
    setTimeout(() => this.#process.kill('SIGCONT'), ms)
  }
}

async function accepts(socket: string, patience: AbortSignal): Promise<boolean> {
  while (!patience.aborted) {
    if (await canConnect(socket)) return true
    await delay(10)
  }
  return false
}

function canConnect(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const attempt = connect(socket)
    attempt.once('connect', () => {
      attempt.destroy()
      resolve(true)
    })
    attempt.once('error', () => resolve(false))
  })
}
