// A real PostgreSQL for tests: one of our own on a free port, or the one that POSTGRES_URL names.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { freePort, withFreePorts } from './redis.js'

/** Where packages put the programs, which are not in the path. */
const PACKAGED = '/usr/lib/postgresql'
const START_MS = 30_000

/** A PostgreSQL process that a test may kill and start again; what it has stored stays. */
export class PostgresServer {
  readonly port: number
  readonly url: string
  readonly #directory: string
  readonly #settings: readonly string[]
  #process: ChildProcess | undefined

  private constructor(port: number, directory: string, settings: readonly string[]) {
    this.port = port
    this.url = `postgres://postgres@127.0.0.1:${port}/postgres`
    this.#directory = directory
    this.#settings = settings
  }

  /**
   * Starts a server on a free port. It stores what it acknowledges as far as the system is concerned, which outlives the
   * process; for the disk, give `fsync=on`.
   */
  static start(...settings: string[]): Promise<PostgresServer> {
    const directory = mkdtempSync(join(tmpdir(), 'sojourn-postgres-'))
    const { uid } = owner() ?? {}
    if (uid !== undefined) chownSync(directory, uid, -1)
    const make = [
      '-D',
      join(directory, 'data'),
      '-U',
      'postgres',
      '--auth=trust',
      '--no-sync',
      '--no-locale',
      '-E',
      'UTF8',
    ]
    execFileSync(program('initdb'), make, { stdio: 'pipe', ...owner(), cwd: directory })
    return withFreePorts(async () => {
      const server = new PostgresServer(await freePort(), directory, settings)
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
      `port=${this.port}`,
      'listen_addresses=127.0.0.1',
      `unix_socket_directories=${this.#directory}`,
      'fsync=off',
      'max_connections=200',
    ]
    const args = [
      '-D',
      join(this.#directory, 'data'),
      ...[...fixed, ...this.#settings].flatMap((setting) => ['-c', setting]),
    ]
    this.#process = spawn(program('postgres'), args, { stdio: 'ignore', ...owner(), cwd: this.#directory })
    this.#process.on('error', () => {})
    await this.#accepts()
  }

  /** Stops it as a crash would. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
    // Those that it has started notice, and let go of the shared memory.
    rmSync(join(this.#directory, 'data/postmaster.pid'), { force: true })
  }

  /** Stops it, and removes all that it has stored. */
  async stop(): Promise<void> {
    // Ends its own processes with it, and writes nothing.
    await this.#end('SIGQUIT')
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    await once(child, 'exit')
  }

  async #accepts(): Promise<void> {
    const end = Date.now() + START_MS
    while (true) {
      const client = new pg.Client({ connectionString: this.url })
      client.on('error', () => {})
      try {
        await client.connect()
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

/** The server for tests that only need one to be there: POSTGRES_URL, which may hold what others left, or a new one. */
export async function sharedPostgres(): Promise<{ url: string; stop(): Promise<void> }> {
  const url = process.env['POSTGRES_URL']
  return url ? { url, stop: async () => {} } : PostgresServer.start()
}

/** Whose process it is to be: PostgreSQL refuses root. The package has made a user for it. */
function owner(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })))
  return { uid: uid as number, gid: gid as number }
}

/** A program of the newest version that is there. */
function program(name: string): string {
  const versions = existsSync(PACKAGED) ? readdirSync(PACKAGED).sort((a, b) => Number(b) - Number(a)) : []
  const found = versions.map((version) => join(PACKAGED, version, 'bin', name)).find(existsSync)
  return found ?? name
}
