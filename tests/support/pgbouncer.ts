// A real pgbouncer in front of a PostgreSQL, which gives each transaction whichever connection is free.
import { existsSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import pg from 'pg'
import { DatabaseServer, newHome, type Owner, started } from './database-server.js'

const PACKAGED = '/usr/sbin'

/** Where it is, if it is installed. */
export function pgbouncerProgram(): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), PACKAGED]
  return directories.map((directory) => join(directory, 'pgbouncer')).find(existsSync)
}

/** One in transaction mode. */
export class Pgbouncer extends DatabaseServer {
  readonly url: string
  readonly #program: string

  private constructor(home: { port: number; directory: string; owner: Owner }, program: string) {
    super(home)
    this.url = `postgres://postgres@127.0.0.1:${home.port}/postgres`
    this.#program = program
  }

  /** Starts one in front of the server at a port, to which it has so many connections. */
  static start(program: string, { server, connections }: { server: number; connections: number }): Promise<Pgbouncer> {
    const home = newHome('postgres')
    return started((port) => {
      const settings = [
        '[databases]',
        `postgres = host=127.0.0.1 port=${server} dbname=postgres user=postgres`,
        '[pgbouncer]',
        'listen_addr = 127.0.0.1',
        `listen_port = ${port}`,
        'unix_socket_dir =',
        'auth_type = any',
        'pool_mode = transaction',
        `default_pool_size = ${connections}`,
        '',
      ]
      writeFileSync(join(home.directory, 'pgbouncer.ini'), settings.join('\n'))
      return new Pgbouncer({ ...home, port }, program)
    })
  }

  restart(): Promise<void> {
    return this.run(this.#program, ['-q', join(this.directory, 'pgbouncer.ini')], async () => {
      const client = new pg.Client({ connectionString: this.url })
      client.on('error', () => {})
      await client.connect()
      await client.end()
    })
  }
}
