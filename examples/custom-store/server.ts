// A session store of one's own: three methods, here on JSON files in a directory. With --check it runs the conformance
// suite on the store and prints what it guarantees, instead of serving.
//
//   npx tsx examples/custom-store/server.ts
//   npx tsx examples/custom-store/server.ts --check
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync } from 'node:fs'
import { readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import { SessionData, SessionStore, session } from 'sojourn'
import { checkStore } from 'sojourn/testing'

/** Keeps each session in a file. The methods that are not here come from SessionStore, built on these three. */
class FileStore extends SessionStore {
  readonly #directory: string

  constructor(directory: string) {
    super()
    this.#directory = directory
    // Fields are stored as they are, so the files are for this user only. Tokens are not in them, only their hashes.
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  }

  /** Absent is `null`; unreadable is an error, for which fromJSON() uses the code CORRUPT_RECORD. */
  async get(id: string): Promise<SessionData | null> {
    try {
      return SessionData.fromJSON(await readFile(this.#file(id), 'utf8'))
    } catch (error) {
      if (isMissing(error)) return null
      throw error
    }
  }

  /**
   * A store with a TTL of its own would use `ttlSeconds`. Here the file's time says until when it is kept, which is
   * longer than the session lives: for a while after its end, it can be told how it ended.
   */
  async set(id: string, data: SessionData, ttlSeconds: number): Promise<void> {
    // Renaming is atomic: a reader finds the old record or the new one, never half of one.
    const draft = join(this.#directory, `${randomUUID()}.draft`)
    await writeFile(draft, JSON.stringify(data), { mode: 0o600 })
    const keptUntil = Date.now() / 1000 + ttlSeconds
    await utimes(draft, keptUntil, keptUntil)
    await rename(draft, this.#file(id))
  }

  async delete(id: string): Promise<void> {
    await rm(this.#file(id), { force: true })
  }

  /** A fourth method, since nothing else removes old files. Nobody calls it but the timer below. */
  override async clearExpired(): Promise<number> {
    let removed = 0
    for (const file of await readdir(this.#directory)) {
      if (!file.endsWith('.json')) continue
      const path = join(this.#directory, file)
      // Another process may have been faster.
      const times = await stat(path).catch(ignoreMissing)
      if (!times || times.mtimeMs > Date.now()) continue
      await rm(path, { force: true })
      removed++
    }
    return removed
  }

  /** IDs are UUIDs that this application made and signed, so they are safe as file names. */
  #file(id: string): string {
    return join(this.#directory, `${id}.json`)
  }
}

if (process.argv.includes('--check')) void check()
else serve()

/** In a test, give each of conformanceChecks() to the runner instead. */
async function check(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'sessions-check-'))
  const report = await checkStore({
    createStore: () => new FileStore(directory),
    // A second store on the same files is what another process would have. The defaults of SessionStore take turns
    // within one process only, so the guarantee 'shared' is not to be had without a lock or transaction of one's own.
    createPeer: () => new FileStore(directory),
  })
  await rm(directory, { recursive: true })
  for (const name of report.passed) console.log(`pass  ${name}`)
  for (const { name, error } of report.failed) console.log(`FAIL  ${name}: ${(error as Error).message}`)
  console.log(`Guarantees: ${report.guarantees.join(', ')}`)
  if (!report.guarantees.includes('atomic')) process.exitCode = 1
}

function serve(): void {
  const store = new FileStore(process.env['SESSION_DIR'] ?? mkdtempSync(join(tmpdir(), 'sessions-')))
  setInterval(() => void store.clearExpired(), 60_000).unref()

  const app = express()
  // A random secret makes every cookie void at the next start. In production set one that stays.
  app.use(session({ secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'), store }))
  app.get('/', async (req, res) => {
    const views = await req.session.update('views', (n) => Number(n ?? 0) + 1)
    res.send(`You have seen this page ${views} times.\n`)
  })

  const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
    if (error) stop(error)
    console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  })
  process.once('SIGTERM', () => server.close())
}

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

function ignoreMissing(error: unknown): null {
  if (isMissing(error)) return null
  throw error
}
