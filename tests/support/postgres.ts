// A PostgreSQL for tests: the one that POSTGRES_URL names, or PGlite (PostgreSQL in WebAssembly) behind a socket. Tests
// speak to both with the ordinary pg driver.
import { PGlite } from '@electric-sql/pglite'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'

/** Where the database is, and how to be done with it. */
export interface PostgresServer {
  readonly url: string
  /** How many connections a test may use at once. */
  readonly connections: number
  stop(): Promise<void>
}

/**
 * Starts one on a free port, empty; the one of POSTGRES_URL may hold what others left. PGlite is one session, whoever
 * connects: messages of two connections at once get mixed up, and `set role` has to be `local` to a transaction.
 */
export async function sharedPostgres(): Promise<PostgresServer> {
  const given = process.env['POSTGRES_URL']
  if (given) return { url: given, connections: 10, stop: async () => {} }
  const db = await PGlite.create()
  const server = new PGLiteSocketServer({ db, host: '127.0.0.1', port: 0, maxConnections: 50 })
  await server.start()
  return {
    url: `postgres://postgres@${server.getServerConn()}/postgres`,
    connections: 1,
    async stop() {
      await server.stop()
      await db.close()
    },
  }
}
