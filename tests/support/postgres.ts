// A PostgreSQL for tests: the one that POSTGRES_URL names, or PGlite (PostgreSQL in WebAssembly) behind a socket. Tests
// speak to both with the ordinary pg driver.

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
  const { PGlite, PGLiteSocketServer } = await pglite()
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

/** The few members that are used. The packages' own types need those of a browser. */
interface PGliteModules {
  readonly PGlite: { create(): Promise<{ close(): Promise<void> }> }
  readonly PGLiteSocketServer: new (options: {
    db: object
    host: string
    port: number
    maxConnections: number
  }) => { start(): Promise<void>; stop(): Promise<void>; getServerConn(): string }
}

async function pglite(): Promise<PGliteModules> {
  const names = ['@electric-sql/pglite', '@electric-sql/pglite-socket']
  const [main, socket] = await Promise.all(names.map((name) => import(name) as Promise<object>))
  return { ...main, ...socket } as PGliteModules
}
