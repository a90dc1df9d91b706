// A real MariaDB for tests: one of our own on a free port, or the one that MYSQL_URL or DATABASE_URL names.
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createConnection } from 'mysql2/promise'
import {
  DatabaseServer,
  namedUrl,
  newHome,
  type Owner,
  type SharedServer,
  sharedAt,
  started,
} from './database-server.js'

/** Where packages put the server, which may not be in the path. */
const PACKAGED = '/usr/sbin/mariadbd'

/** A MariaDB process that a test may kill and start again; what it has stored stays. */
export class MariadbServer extends DatabaseServer {
  readonly url: string
  readonly #settings: readonly string[]

  private constructor(home: { port: number; directory: string; owner: Owner }, settings: readonly string[]) {
    super(home)
    this.url = `mysql://root@127.0.0.1:${home.port}/test`
    this.#settings = settings
  }

  /** Starts a server on a free port, with an empty database `test`. */
  static async start(...settings: string[]): Promise<MariadbServer> {
    const home = newHome('mysql')
    const make = [
      '--no-defaults',
      `--datadir=${join(home.directory, 'data')}`,
      '--auth-root-authentication-method=normal',
    ]
    execFileSync('mariadb-install-db', make, { stdio: 'pipe', ...home.owner, cwd: home.directory })
    return started((port) => new MariadbServer({ ...home, port }, settings))
  }

  async restart(): Promise<void> {
    const fixed = [
      '--no-defaults',
      `--datadir=${join(this.directory, 'data')}`,
      `--port=${this.port}`,
      '--bind-address=127.0.0.1',
      `--socket=${join(this.directory, 'socket')}`,
      `--pid-file=${join(this.directory, 'pid')}`,
      '--skip-name-resolve',
      '--innodb-buffer-pool-size=32M',
      // What is committed outlives the process, as far as the system is concerned.
      '--innodb-flush-log-at-trx-commit=2',
    ]
    const command = existsSync(PACKAGED) ? PACKAGED : 'mariadbd'
    await this.run(command, [...fixed, ...this.#settings], async () => {
      const client = await createConnection({ uri: this.url })
      await client.end()
    })
  }
}

/** The URL of a server that others have started, which may hold what they left; `undefined` when none is named. */
export function namedMariadb(): string | undefined {
  return namedUrl('MYSQL_URL', /^(mysql|mariadb):/)
}

/** The server for tests that only need one to be there: the one that is named, or a new one. */
export async function sharedMariadb(): Promise<SharedServer> {
  const url = namedMariadb()
  return url === undefined ? MariadbServer.start() : sharedAt(url)
}
