// A redis-server of our own, which can be frozen: what a machine looks like that is stuck, and whose connections stay open.
// `REDIS_SERVER` names the binary of another version, or of Valkey.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Waiting so long for a server that has just been started is waiting for none. */
const START_MS = 5_000

/** However this process ends, by `kill -9` too, the pipe to the shell is closed then, and the server ends with it. */
const WITH_US = 'command -v "$0" >/dev/null || exit 1; "$0" "$@" >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -9 $!'

export class OwnRedis {
  readonly socket: string
  readonly #pid: number

  private constructor(socket: string, pid: number) {
    this.socket = socket
    this.#pid = pid
  }

  /** Resolves to `null` when this machine has no redis-server. */
  static async start(): Promise<OwnRedis | null> {
    const directory = mkdtempSync(join(tmpdir(), 'sojourn-demo-'))
    const socket = join(directory, 'redis.sock')
    // No port, nothing on disk: nobody else notices it.
    const args = ['--port', '0', '--unixsocket', socket, '--dir', directory, '--save', '', '--appendonly', 'no']
    const child = spawn('sh', ['-c', WITH_US, process.env['REDIS_SERVER'] || 'redis-server', ...args], {
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
    const ended = new AbortController()
    child.once('error', () => ended.abort())
    child.once('exit', () => ended.abort())
    let pid = 0
    child.stdout.once('data', (text) => {
      pid = Number(text)
    })
    const patience = AbortSignal.any([ended.signal, AbortSignal.timeout(START_MS)])
    return (await accepts(socket, patience)) ? new OwnRedis(socket, pid) : null
  }

  /** No answer for `ms`; then it goes on as if nothing had been. */
  freeze(ms: number): void {
    process.kill(this.#pid, 'SIGSTOP')
    setTimeout(() => process.kill(this.#pid, 'SIGCONT'), ms)
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
