// A real PostgreSQL for tests: one of our own on a free port, or the one that POSTGRES_URL or DATABASE_URL names.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import {
  DatabaseServer,
  namedUrl,
  newHome,
  type Owner,
  type SharedServer,
  sharedAt,
  started,
} from './database-server.js'

/** Where packages put the programs, which are not in the path. */
const PACKAGED = '/usr/lib/postgresql'

/** A PostgreSQL process that a test may kill and start again; what it has stored stays. */
export class PostgresServer extends DatabaseServer {
  readonly url: string
  readonly #settings: readonly string[]

  private constructor(home: { port: number; directory: string; owner: Owner }, settings: readonly string[]) {
    super(home)
    this.url = `postgres://postgres@127.0.0.1:${home.port}/postgres`
    this.#settings = settings
  }

  /**
   * Starts a server on a free port. It stores what it acknowledges as far as the system is concerned, which outlives the
   * process; for the disk, give `fsync=on`.
   */
  static async start(...settings: string[]): Promise<PostgresServer> {
    const home = newHome('postgres')
    const make = ['-D', join(home.directory, 'data'), '-U', 'postgres', '--auth=trust', '--no-sync', '--no-locale']
    const options = { stdio: 'pipe', ...home.owner, cwd: home.directory } as const
    execFileSync(program('initdb'), [...make, '-E', 'UTF8'], options)
    return started((port) => new PostgresServer({ ...home, port }, settings))
  }

  /** Starts a standby of another one, which is asked for each commit of it from when this resolves. */
  static async standbyOf(primary: PostgresServer): Promise<PostgresServer> {
    const home = newHome('postgres')
    const copy = ['-D', join(home.directory, 'data'), '-R', '-X', 'stream', '-c', 'fast', '-d', primary.url]
    execFileSync(program('pg_basebackup'), copy, { stdio: 'pipe', ...home.owner, cwd: home.directory })
    const standby = await started((port) => new PostgresServer({ ...home, port }, []))
    const client = new pg.Client({ connectionString: primary.url })
    await client.connect()
    try {
      await client.query("alter system set synchronous_standby_names = '*'")
      await client.query('select pg_reload_conf()')
      const isAsked = "select 1 from pg_stat_replication where sync_state = 'sync'"
      while ((await client.query(isAsked)).rowCount === 0) await sleep(20)
    } finally {
      await client.end()
    }
    return standby
  }

  /** Makes a standby the primary. */
  async promote(): Promise<void> {
    const client = new pg.Client({ connectionString: this.url })
    await client.connect()
    await client.query('select pg_promote()')
    await client.end()
  }

  async restart(): Promise<void> {
    const fixed = [
      `port=${this.port}`,
      'listen_addresses=127.0.0.1',
      `unix_socket_directories=${this.directory}`,
      'fsync=off',
      'max_connections=200',
    ]
    const settings = [...fixed, ...this.#settings].flatMap((setting) => ['-c', setting])
    await this.run(program('postgres'), ['-D', join(this.directory, 'data'), ...settings], async () => {
      const client = new pg.Client({ connectionString: this.url })
      client.on('error', () => {})
      await client.connect()
      await client.end()
    })
  }

  override async kill(): Promise<void> {
    await super.kill()
    // Those that it has started notice, and let go of the shared memory.
    rmSync(join(this.directory, 'data/postmaster.pid'), { force: true })
    // Until they have, they hold its port.
    const end = Date.now() + 10_000
    while (Date.now() < end && (await isOpen(this.port))) await sleep(20)
  }

  override async stop(): Promise<void> {
    // Ends its own processes with it, and writes nothing.
    await this.end('SIGQUIT')
    await super.stop()
  }
}

/** The URL of a server that others have started, which may hold what they left; `undefined` when none is named. */
export function namedPostgres(): string | undefined {
  return namedUrl('POSTGRES_URL', /^postgres(ql)?:/)
}

/** The server for tests that only need one to be there: the one that is named, or a new one. */
export async function sharedPostgres(): Promise<SharedServer> {
  const url = namedPostgres()
  return url === undefined ? PostgresServer.start() : sharedAt(url)
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => resolve(true))
    socket.on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

/** A program of the newest version that is there. */
function program(name: string): string {
  const versions = existsSync(PACKAGED) ? readdirSync(PACKAGED).sort((a, b) => Number(b) - Number(a)) : []
  const found = versions.map((version) => join(PACKAGED, version, 'bin', name)).find(existsSync)
  return found ?? name
}
