// One workspace: the files of one session. Which session it belongs to, and when it goes, is for others.

import type { ReadStream } from 'node:fs'
import { lstat, unlink } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import type { Readable } from 'node:stream'
import { invalidArgument } from '../../errors.js'
import { type FileContent, FileWriter, type Staged, toldOf, type WriteLimits } from './file-writer.js'
import { filesIn } from './files.js'
import { checkFileName, partsOfPath } from './names.js'
import { type Place, requirePlace } from './places.js'
import { checkedPath, isWithin, openWithin } from './safe-paths.js'
import { type RangeOfFile, rangeOf, servingHeaders } from './serving.js'
import { unlessMissing } from './storage-errors.js'

/** How long an open file may wait for somebody to read it. */
const UNREAD_MS = 60_000

/** A file in a workspace. */
export interface WorkspaceFile {
  /** In a folder that the application made in `dataDir`, with the path from there. */
  readonly name: string
  readonly bytes: number
  readonly modifiedAt: Date
}

/** A file that is read: for `res.writeHead(file.status, file.headers)` and `pipeline(file.stream, res)`. */
export interface OpenedFile extends WorkspaceFile {
  /** 200, or 206 for a part. */
  readonly status: 200 | 206
  /**
   * What a response with it should say: length and range, and, since anybody may have made it, that it is to be kept rather than
   * shown (`Content-Disposition: attachment`, `X-Content-Type-Options: nosniff`; OWASP ASVS 5.4.1, 3.2.1).
   */
  readonly headers: Readonly<Record<string, string>>
  /** The first and last byte that the stream gives; `undefined` for a file without any. */
  readonly range: RangeOfFile | undefined
  /** To be read to its end or destroyed. */
  readonly stream: Readable
}

/** How a file is saved. */
export interface SaveOptions {
  /**
   * What if there is a file of that name, by whatever spelling a file system may take for the same: `'refuse'` rejects with
   * `FILE_EXISTS`, `'replace'` puts this one in its place in one step, `'number'` saves it as `photo (2).png`.
   * @default 'refuse'
   */
  readonly whenTaken?: 'refuse' | 'replace' | 'number' | undefined
}

/** What a workspace holds. */
export interface WorkspaceUsage {
  readonly bytes: number
  readonly files: number
  readonly maxBytes: number
  readonly maxFiles: number
}

/** Who is told of what happens to files. */
export type TellFile = (type: 'file.saved' | 'file.removed', details: { name: string; bytes?: number }) => void

/**
 * The files of one session: they go where it goes, and with it. Rejects with `SESSION_ENDED` when they have gone,
 * `STORAGE_FULL` (507) and `STORAGE_UNAVAILABLE` (503) for what the disk says; nothing is left half.
 */
export class Workspace {
  /** Its own ID, a UUID: of the workspace, not of the session. It names the folder, and opens nothing. */
  readonly id: string
  /** Where files lie. What the application writes there by itself counts for the quota of what follows. */
  readonly dataDir: string
  /** For files of the application's that are of no use later. They go with the workspace and count for nothing. */
  readonly tempDir: string
  /** Begins the keys of whatever else is cached for this session. */
  readonly cachePrefix: string
  readonly #place: Place
  readonly #writer: FileWriter
  readonly #limits: WriteLimits
  readonly #tell: TellFile

  /** @internal */
  constructor(parts: { id: string; place: Place; limits: WriteLimits; tell: TellFile }) {
    this.id = parts.id
    this.dataDir = parts.place.dataDir
    this.tempDir = parts.place.tempDir
    this.cachePrefix = `workspace:${parts.id}:`
    this.#place = parts.place
    this.#limits = parts.limits
    this.#writer = new FileWriter(parts.place, parts.limits)
    this.#tell = parts.tell
  }

  /**
   * Saves a file. It is written aside and appears in one step when all of it is there; what is cut off, too large or fails leaves
   * nothing. A stream is read to its end in any case, so that a client can be answered.
   * @param name a safe name (`safeFileName()` makes one of any text); kept in Unicode's form NFC
   * @throws {SessionError} `INVALID_FILE_NAME` (400), `FILE_EXISTS` (409), `QUOTA_EXCEEDED` (413)
   */
  async save(name: string, content: FileContent, options: SaveOptions = {}): Promise<WorkspaceFile> {
    const upload = this.upload()
    await upload.add(name, content, options)
    const [saved] = await upload.commit()
    return saved as WorkspaceFile
  }

  /** Several files that are saved together or not at all: what receivers of forms stand on. */
  upload(): Upload {
    return new Upload(this.#writer, this.#tell)
  }

  /** The files, by name, those in folders of the application's, too. Links are left out. */
  async list(): Promise<WorkspaceFile[]> {
    return this.#explained(async () => {
      const files = await filesIn(this.dataDir)
      return files.sort((a, b) => (a.name < b.name ? -1 : 1))
    })
  }

  /** What it holds, and how much it may. */
  async usage(): Promise<WorkspaceUsage> {
    const files = await this.list()
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
    const { maxBytes, maxFiles } = this.#limits
    return { bytes, files: files.length, maxBytes, maxFiles }
  }

  /**
   * Opens a file for reading, or resolves to `null` when there is none. It is the file in the workspace, whatever is put in the
   * place of its folders meanwhile.
   * Its stream is to be read or destroyed; one that nobody begins to read is closed after a minute.
   * @param range the value of a `Range` header (RFC 9110), or the first and last byte. A header that means nothing, or several
   *   ranges, gives the whole file.
   * @throws {SessionError} `INVALID_FILE_NAME`, for links, too; `RANGE_NOT_SATISFIABLE` (416)
   */
  async open(
    name: string,
    { range }: { range?: string | { readonly start: number; readonly end?: number | undefined } | undefined } = {},
  ): Promise<OpenedFile | null> {
    const parts = partsOfPath(name)
    return this.#explained(async () => {
      const handle = await openWithin(this.dataDir, parts, this.#place.asides)
      if (handle === null) {
        await requirePlace(this.#place)
        return null
      }
      try {
        const { size: bytes, mtimeMs } = await handle.stat()
        const modifiedAt = new Date(mtimeMs)
        const part = rangeOf(range, bytes)
        const whole = { start: 0, end: bytes - 1 }
        const given = part ?? (bytes === 0 ? undefined : whole)
        // A stream of no bytes cannot be asked for by its first and last.
        const stream = handle.createReadStream({ ...(given ?? { start: 0, end: 0 }), autoClose: true })
        closeUnread(stream)
        const headers = servingHeaders({ name: parts.at(-1) as string, bytes, part })
        return { name, bytes, modifiedAt, status: part ? 206 : 200, headers, range: given, stream }
      } catch (error) {
        await handle.close()
        throw error
      }
    })
  }

  /** Removes a file. Resolves to whether there was one. */
  async remove(name: string): Promise<boolean> {
    const parts = partsOfPath(name)
    return this.#explained(async () => {
      const path = await checkedPath(this.dataDir, parts)
      const found = await unlessMissing(lstat(path))
      if (found === undefined || !found.isFile()) return false
      if ((await unlessMissing(unlink(path).then(() => true))) === undefined) return false
      this.#tell('file.removed', { name })
      return true
    })
  }

  /**
   * The absolute path of a file or folder in `dataDir`, for libraries that want one. It need not exist; what of it exists is no
   * link. Whoever may write here could still exchange a folder before the path is used: `open()` stands even against that.
   * @throws {SessionError} `INVALID_FILE_NAME` for absolute paths, `..`, links, other spellings, and names that are not safe
   */
  async resolve(path: string): Promise<string> {
    const parts = partsOfPath(path)
    return this.#explained(() => checkedPath(this.dataDir, parts))
  }

  /** Whether a path, relative to `dataDir` or absolute, is really within this workspace, all links followed. */
  async owns(path: string): Promise<boolean> {
    if (typeof path !== 'string') throw invalidArgument('owns() takes a path.')
    if (path.split(/[/\\]/).includes('..')) return false
    const absolute = isAbsolute(path) ? path : join(this.dataDir, path)
    return this.#explained(() => isWithin([this.dataDir, this.tempDir], absolute))
  }

  async #explained<T>(task: () => Promise<T>): Promise<T> {
    try {
      return await task()
    } catch (error) {
      throw await toldOf(this.#place, error)
    }
  }
}

/** Files on their way into a workspace: nothing of them is seen until `commit()`, which saves all or none. */
export class Upload {
  readonly #writer: FileWriter
  readonly #tell: TellFile
  readonly #staged: Staged[] = []
  /** Why nothing of it is saved. */
  #failure: unknown

  /** @internal */
  constructor(writer: FileWriter, tell: TellFile) {
    this.#writer = writer
    this.#tell = tell
  }

  /** Writes a file aside. When it fails, all that was added goes, and so does what comes after. */
  async add(name: string, content: FileContent, options: SaveOptions = {}): Promise<{ readonly bytes: number }> {
    const { whenTaken = 'refuse' } = options
    if (!['refuse', 'replace', 'number'].includes(whenTaken)) {
      throw invalidArgument(`whenTaken is ${String(whenTaken)}; use 'refuse', 'replace' or 'number'.`)
    }
    try {
      const staged = await this.#writer.stage({ name: () => this.#checked(name), content, whenTaken })
      this.#staged.push(staged)
      // Another one may have failed while this one was written.
      this.#requireNoFailure()
      return { bytes: staged.bytes }
    } catch (error) {
      this.#failure ??= error
      await this.abort()
      throw error
    }
  }

  /** Saves what was added. Each file appears in one step; when one cannot, none does. */
  async commit(): Promise<WorkspaceFile[]> {
    const saved = await this.#writer.place(this.#staged.splice(0))
    for (const { name, bytes } of saved) this.#tell('file.saved', { name, bytes })
    return saved
  }

  /** Forgets what was added. */
  async abort(): Promise<void> {
    await Promise.all(this.#staged.splice(0).map((staged) => this.#writer.drop(staged)))
  }

  #checked(name: string): string {
    this.#requireNoFailure()
    return checkFileName(name)
  }

  #requireNoFailure(): void {
    if (this.#failure !== undefined) throw this.#failure
  }
}

/** A file that nobody reads, as for a HEAD request, is not open for ever. */
function closeUnread(stream: ReadStream): void {
  const timer = setTimeout(() => {
    if (!stream.readableDidRead) stream.destroy()
  }, UNREAD_MS)
  timer.unref()
  stream.once('close', () => clearTimeout(timer))
}
