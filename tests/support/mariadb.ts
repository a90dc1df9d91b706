// A real MariaDB for tests: one of our own on a free port, or the one that MYSQL_URL names.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createConnection } from 'mysql2/promise'
import { freePort, withFreePorts } from './redis.js'

/** Where packages put the server, which may not be in the path. */
const PACKAGED = '/usr/sbin/mariadbd'
const START_MS = 30_000

/** A MariaDB process that a test may kill and start again; what it has stored stays. */
export class MariadbServer {
  readonly port: number
  readonly url: string
  readonly #directory: string
  readonly #settings: readonly string[]
  #process: ChildProcess | undefined

  private constructor(port: number, directory: string, settings: readonly string[]) {
    this.port = port
    this.url = `mysql://root@127.0.0.1:${port}/test`
    this.#directory = directory
    this.#settings = settings
  }

  /** Starts a server on a free port, with an empty database `test`. */
  static start(...settings: string[]): Promise<MariadbServer> {
    const directory = mkdtempSync(join(tmpdir(), 'sojourn-mariadb-'))
    const { uid } = owner() ?? {}
    if (uid !== undefined) chownSync(directory, uid, -1)
    const make = ['--no-defaults', `--datadir=${join(directory, 'data')}`, '--auth-root-authentication-method=normal']
    execFileSync('mariadb-install-db', make, { stdio: 'pipe', ...owner(), cwd: directory })
    return withFreePorts(async () => {
      const server = new MariadbServer(await freePort(), directory, settings)
      try {
        await server.restart()
        return server
      } catch (error) {
        await server.kill()
        throw error
      }
    })
  }

  /** Starts the process, again if it was killed. */
  async restart(): Promise<void> {
    const fixed = [
      '--no-defaults',
      `--datadir=${join(this.#directory, 'data')}`,
      `--port=${this.port}`,
      '--bind-address=127.0.0.1',
      `--socket=${join(this.#directory, 'socket')}`,
      `--pid-file=${join(this.#directory, 'pid')}`,
      '--skip-name-resolve',
      '--innodb-buffer-pool-size=32M',
      // What is committed outlives the process, as far as the system is concerned.
      '--innodb-flush-log-at-trx-commit=2',
    ]
    const command = existsSync(PACKAGED) ? PACKAGED : 'mariadbd'
    this.#process = spawn(command, [...fixed, ...this.#settings], { stdio: 'ignore', ...owner(), cwd: this.#directory })
    this.#process.on('error', () => {})
    await this.#accepts()
  }

  /** Stops it as a crash would. */
  async kill(): Promise<void> {
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  async stop(): Promise<void> {
    await this.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #accepts(): Promise<void> {
    const end = Date.now() + START_MS
    while (true) {
      try {
        const client = await createConnection({ uri: this.url })
        await client.end()
        return
      } catch (error) {
        const code = this.#process?.exitCode
        if (Date.now() > end || (code !== null && code !== undefined)) throw error
      }
      await sleep(20)
    }
  }
}

/** The server for tests that only need one to be there: MYSQL_URL, which may hold what others left, or a new one. */
export async function sharedMariadb(): Promise<{ url: string; stop(): Promise<void> }> {
  const url = process.env['MYSQL_URL']
  return url ? { url, stop: async () => {} } : MariadbServer.start()
}

/** Whose process it is to be: MariaDB refuses root. The package has made a user for it. */
function owner(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'mysql'], { encoding: 'utf8' })))
  return { uid: uid as number, gid: gid as number }
}
