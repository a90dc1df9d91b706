// Where workspaces lie on the disk, and whose they are:
//
//   root/workspaces/<id>/data/      what was saved
//                       temp/       the application's own temporary files
//                       asides/     what is being written
//                       owner       the ID of the session, as far as it is known here
//   root/owners/<session ID>        the ID of its workspace
//   root/removed/<id>.<random>      on its way out
//
// The session itself says which workspace it has; the notes here only spare a walk through the store. So they may be late, or
// missing, and a name here is never a proof.

import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { lstat, mkdir, readdir, readFile, rename, rm, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invalidOption, SessionError } from '../../errors.js'
import { codeOf, explained, unlessMissing, vanished } from './storage-errors.js'

/** The folders of one workspace. */
export interface Place {
  readonly dataDir: string
  readonly tempDir: string
  readonly asides: string
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/
/** For nobody but the user that the server runs as. */
const PRIVATE = { mode: 0o700 }
const PRIVATE_FILE = { mode: 0o600 }
/** What is being written, and got no byte for so long, is a crash's. */
const STALE_ASIDE_MS = 3_600_000

/** Whether a text is an ID as we make them: nothing else becomes part of a path. */
export function isId(text: unknown): text is string {
  return typeof text === 'string' && UUID.test(text)
}

export class Places {
  readonly #workspaces: string
  readonly #owners: string
  readonly #removed: string
  readonly #stamp: string

  /**
   * Makes the folders, once: a root that vanishes later, with its disk perhaps, is not made again in its place.
   * @throws {SessionError} `INVALID_OPTION`
   */
  constructor(root: string) {
    this.#workspaces = join(root, 'workspaces')
    this.#owners = join(root, 'owners')
    this.#removed = join(root, 'removed')
    this.#stamp = join(root, 'swept')
    try {
      for (const folder of [this.#workspaces, this.#owners, this.#removed]) {
        mkdirSync(folder, { recursive: true, ...PRIVATE })
      }
    } catch (error) {
      const { message } = error as Error
      throw invalidOption(`root cannot be used: ${message}. Name a folder that this process may write to.`)
    }
  }

  of(id: string): Place {
    if (!isId(id)) throw new TypeError('That is no ID of a workspace.')
    const home = join(this.#workspaces, id)
    return { dataDir: join(home, 'data'), tempDir: join(home, 'temp'), asides: join(home, 'asides') }
  }

  /** Whether the folders of a workspace are there. */
  async exists(id: string): Promise<boolean> {
    return (await unlessMissing(lstat(this.of(id).asides))) !== undefined
  }

  /** Makes the folders of a workspace; to do it again is no error. */
  async make(id: string): Promise<void> {
    const { dataDir, tempDir, asides } = this.of(id)
    try {
      await mkdir(join(this.#workspaces, id), PRIVATE).catch(unlessThere)
      for (const folder of [dataDir, tempDir, asides]) await mkdir(folder, PRIVATE).catch(unlessThere)
    } catch (error) {
      throw codeOf(error) === 'ENOENT' ? vanished(error) : explained(error)
    }
  }

  // --- Whose they are ---

  /** The session that a workspace is known to belong to. */
  async ownerOf(id: string): Promise<string | undefined> {
    const owner = await unlessMissing(readFile(join(this.#workspaces, id, 'owner'), 'utf8'))
    return isId(owner) ? owner : undefined
  }

  /** The workspace of a session, as far as it is known. */
  async ownedBy(sessionId: string): Promise<string | undefined> {
    if (!isId(sessionId)) return undefined
    const id = await unlessMissing(readFile(join(this.#owners, sessionId), 'utf8'))
    return isId(id) ? id : undefined
  }

  /** Notes whose a workspace is. */
  async own(id: string, sessionId: string): Promise<void> {
    if (!isId(sessionId) || (await this.ownedBy(sessionId)) === id) return
    try {
      await writeFile(join(this.#workspaces, id, 'owner'), sessionId, PRIVATE_FILE)
      await writeFile(join(this.#owners, sessionId), id, PRIVATE_FILE)
    } catch (error) {
      // The workspace went meanwhile: whoever uses it next is told.
      if (codeOf(error) !== 'ENOENT') throw explained(error)
    }
  }

  async disown(sessionId: string): Promise<void> {
    if (isId(sessionId)) await unlessMissing(unlink(join(this.#owners, sessionId)))
  }

  // --- The end ---

  /** Removes a workspace with all that is in it. From the first step on it is not there any more. */
  async remove(id: string): Promise<boolean> {
    const { dataDir } = this.of(id)
    const trash = join(this.#removed, `${id}.${randomUUID()}`)
    const isMoved = await unlessMissing(rename(join(dataDir, '..'), trash).then(() => true))
    if (isMoved === undefined) {
      await this.requireRoot()
      return false
    }
    await erase(trash)
    return true
  }

  /** Removes what a crash has left of removals. */
  async emptyTrash(): Promise<void> {
    for (const name of await this.#list(this.#removed)) await erase(join(this.#removed, name))
  }

  /** Removes what a crash has left of the writing of files. */
  async clearAsides(id: string, now = Date.now()): Promise<void> {
    const { asides } = this.of(id)
    for (const name of (await unlessMissing(readdir(asides))) ?? []) {
      const path = join(asides, name)
      const found = await unlessMissing(lstat(path))
      if (found !== undefined && now - found.mtimeMs > STALE_ASIDE_MS) await unlessMissing(unlink(path))
    }
  }

  // --- All of them ---

  /** The IDs of all workspaces on this disk. */
  async all(): Promise<string[]> {
    return (await this.#list(this.#workspaces)).filter(isId)
  }

  /** The sessions that have a note here. */
  async owners(): Promise<string[]> {
    return (await this.#list(this.#owners)).filter(isId)
  }

  /**
   * Whether a sweep is due: the last one that began, of whatever process on this disk, is longer ago than that. It counts as
   * begun then.
   */
  async takeTurn(intervalMs: number, now = Date.now()): Promise<boolean> {
    const last = await unlessMissing(lstat(this.#stamp))
    if (last !== undefined && Math.abs(now - last.mtimeMs) < intervalMs) return false
    await writeFile(this.#stamp, '', PRIVATE_FILE).catch((error) => {
      throw codeOf(error) === 'ENOENT' ? vanished(error) : explained(error)
    })
    return true
  }

  /** @throws {SessionError} `STORAGE_UNAVAILABLE` when the root is gone */
  async requireRoot(): Promise<void> {
    await this.#list(this.#workspaces)
  }

  async #list(folder: string): Promise<string[]> {
    try {
      return await readdir(folder)
    } catch (error) {
      throw codeOf(error) === 'ENOENT' ? vanished(error) : explained(error)
    }
  }
}

/**
 * For who found nothing where a workspace should be: it may be empty, or gone.
 * @throws {SessionError} `SESSION_ENDED` when the workspace has gone, `STORAGE_UNAVAILABLE` when all of them have
 */
export async function requirePlace({ asides }: Place): Promise<void> {
  if ((await unlessMissing(lstat(asides))) !== undefined) return
  if ((await unlessMissing(lstat(join(asides, '..', '..')))) === undefined) throw vanished()
  throw new SessionError('SESSION_ENDED', 'The workspace has gone with its session; nothing was stored.')
}

/** Several may do it at once. */
async function erase(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 3, retryDelay: 20 })
}

function unlessThere(error: unknown): void {
  if (codeOf(error) !== 'EEXIST') throw error
}
