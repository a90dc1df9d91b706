// What the servers of databases that tests start have in common: a process of our own on a free port, in a temporary folder, as
// an unprivileged user; and servers that the environment names.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, withFreePorts } from './redis.js'

const START_MS = 30_000

/** A user and its group. */
export interface Owner {
  readonly uid?: number
  readonly gid?: number
}

/** A server that tests may use: its URL, and what ends it, if it is ours. */
export interface SharedServer {
  readonly url: string
  stop(): Promise<void>
}

/** A process that a test may kill and start again; what it has stored stays. */
export abstract class DatabaseServer implements SharedServer {
  readonly port: number
  abstract readonly url: string
  readonly directory: string
  readonly #owner: Owner
  #process: ChildProcess | undefined

  constructor({ port, directory, owner }: { port: number; directory: string; owner: Owner }) {
    this.port = port
    this.directory = directory
    this.#owner = owner
  }

  /** Starts the process, again if it was killed, and waits until it takes connections. */
  abstract restart(): Promise<void>

  /** Stops it as a crash would. */
  kill(): Promise<void> {
    return this.end('SIGKILL')
  }

  /** Stops it, and removes all that it has stored. */
  async stop(): Promise<void> {
    await this.kill()
    rmSync(this.directory, { recursive: true, force: true })
  }

  protected async run(command: string, args: readonly string[], connect: () => Promise<unknown>): Promise<void> {
    const isAgain = this.#process !== undefined
    let child = this.#spawn(command, args)
    const end = Date.now() + START_MS
    while (true) {
      try {
        await connect()
        return
      } catch (error) {
        const hasEnded = child.exitCode !== null || child.signalCode !== null
        if (Date.now() > end || (hasEnded && !isAgain)) throw error
        // What the one before has started may be there for a moment longer than that itself, and keeps its place.
        if (hasEnded) child = this.#spawn(command, args)
      }
      await sleep(20)
    }
  }

  #spawn(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, { stdio: 'ignore', ...this.#owner, cwd: this.directory })
    child.on('error', () => {})
    this.#process = child
    return child
  }

  protected async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    await once(child, 'exit')
  }
}

/** A folder for a server, of the user whose process it is to be: these servers refuse root. Their packages have made a user. */
export function newHome(user: string): { directory: string; owner: Owner } {
  const directory = mkdtempSync(join(tmpdir(), `sojourn-${user}-`))
  if (process.getuid?.() !== 0) return { directory, owner: {} }
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, user], { encoding: 'utf8' })))
  chownSync(directory, uid as number, -1)
  return { directory, owner: { uid: uid as number, gid: gid as number } }
}

/** Starts what `make` makes of a free port. */
export function started<Server extends DatabaseServer>(make: (port: number) => Server): Promise<Server> {
  return withFreePorts(async () => {
    const server = make(await freePort())
    try {
      await server.restart()
      return server
    } catch (error) {
      await server.kill()
      throw error
    }
  })
}

/** The URL of a server that the environment names: by a variable of its kind, or by DATABASE_URL if that is of the kind. */
export function namedUrl(variable: string, scheme: RegExp): string | undefined {
  const url = process.env['DATABASE_URL'] ?? ''
  return process.env[variable] || (scheme.test(url) ? url : undefined)
}

/** What others have started, and others end. */
export function sharedAt(url: string): SharedServer {
  return { url, stop: async () => {} }
}
