// How files come into a workspace: written aside, within the quota while they stream, and put in their place in one step. Several
// processes may write to one workspace at once; what is decided here holds for all of them.

import { randomUUID } from 'node:crypto'
import { type FileHandle, link, lstat, open, readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { invalidArgument, SessionError } from '../../errors.js'
import { type FoundFile, filesIn } from './files.js'
import { nameKey, numbered, refused } from './names.js'
import { type Place, requirePlace } from './places.js'
import { codeOf, explained, unlessMissing } from './storage-errors.js'

/** What a file is saved from: text, bytes, a `Blob` or `File`, a stream of Node or the web, or anything that gives bytes. */
export type FileContent =
  | string
  | Uint8Array
  | Blob
  | Readable
  | ReadableStream<Uint8Array>
  | AsyncIterable<Uint8Array | string>

/** The quota of one workspace. */
export interface WriteLimits {
  readonly maxBytes: number
  readonly maxFiles: number
}

/** A file that has been written aside. */
export interface Staged {
  readonly name: string
  readonly bytes: number
  readonly whenTaken: 'refuse' | 'replace' | 'number'
  path: string
}

/** What is written to one workspace in this process and has no place yet. */
interface Flow {
  bytes: number
  files: number
  /** The last one in the queue for a place. */
  turn: Promise<unknown>
}

/** What has been written whole: other processes count it, since it is about to get its place. */
const DONE = '.done'
/** Of what was left so by a crash, nobody need take account. */
const DONE_COUNTS_MS = 60_000

const flows = new Map<string, Flow>()

export class FileWriter {
  readonly #place: Place
  readonly #limits: WriteLimits

  constructor(place: Place, limits: WriteLimits) {
    this.#place = place
    this.#limits = limits
  }

  /** Writes a file aside. What `content` streams is read to its end in any case. */
  async stage(file: {
    /** Checks the name: what it throws comes after the stream is taken care of. */
    name: () => string
    content: FileContent
    whenTaken: Staged['whenTaken']
  }): Promise<Staged> {
    const source = sourceOf(file.content)
    try {
      const name = file.name()
      const held = await filesIn(this.#place.dataDir)
      const present = held.find((one) => nameKey(one.name) === nameKey(name))
      if (present !== undefined && file.whenTaken === 'refuse') throw taken()
      const replaced = file.whenTaken === 'replace' ? present : undefined
      const { maxBytes, maxFiles } = this.#limits
      const coming = flows.get(this.#place.asides)?.files ?? 0
      if (replaced === undefined && held.length + coming >= maxFiles) throw tooMany(maxFiles)
      const room = maxBytes - sizeOf(held) + (replaced?.bytes ?? 0)
      const path = join(this.#place.asides, randomUUID())
      return { name, path, bytes: await this.#write(path, source.chunks, room), whenTaken: file.whenTaken }
    } catch (error) {
      source.drain()
      throw await toldOf(this.#place, error)
    }
  }

  /** Puts files in their places: each in one step, and all or none. */
  async place(staged: readonly Staged[]): Promise<FoundFile[]> {
    if (staged.length === 0) return []
    const flow = this.#flow()
    const turn = flow.turn.then(() => this.#placeAll(staged))
    flow.turn = turn.catch(() => {})
    try {
      return await turn
    } catch (error) {
      throw await toldOf(this.#place, error)
    } finally {
      for (const one of staged) await this.drop(one)
    }
  }

  /** Forgets what was written aside. */
  async drop({ path, bytes }: Staged): Promise<void> {
    // What cannot be removed now is removed by the sweep.
    await unlink(path).catch(() => {})
    this.#leave(bytes)
  }

  async #write(path: string, chunks: AsyncIterable<unknown>, room: number): Promise<number> {
    const flow = this.#flow()
    flow.files++
    let bytes = 0
    try {
      const handle = await open(path, 'wx', 0o600)
      try {
        for await (const chunk of chunks) {
          const buffer = bufferOf(chunk)
          if (flow.bytes + buffer.length > room) throw tooLarge(this.#limits.maxBytes)
          flow.bytes += buffer.length
          bytes += buffer.length
          await writeWhole(handle, buffer)
        }
        await handle.sync()
      } finally {
        await handle.close()
      }
      return bytes
    } catch (error) {
      await unlink(path).catch(() => {})
      this.#leave(bytes)
      throw error
    }
  }

  async #placeAll(staged: readonly Staged[]): Promise<FoundFile[]> {
    for (const one of staged) {
      await rename(one.path, one.path + DONE)
      one.path += DONE
    }
    // In this order: what another process puts in its place meanwhile counts twice rather than not at all.
    const others = await this.#doneByOthers(staged)
    const { dataDir } = this.#place
    const held = await filesIn(dataDir)
    const names = new Map((await readdir(dataDir)).map((name) => [nameKey(name), name]))
    this.#requireRoom(staged, [...held, ...others])
    for (const { name, whenTaken } of staged) {
      if (whenTaken === 'replace') await requireNoFolder(join(dataDir, names.get(nameKey(name)) ?? name))
    }

    const placed: { one: Staged; name: string }[] = []
    try {
      for (const one of staged.filter(({ whenTaken }) => whenTaken !== 'replace')) {
        placed.push({ one, name: await this.#placeNew(one, names) })
      }
    } catch (error) {
      for (const { name } of placed) await unlink(join(dataDir, name)).catch(() => {})
      throw error
    }
    for (const one of staged.filter(({ whenTaken }) => whenTaken === 'replace')) {
      await this.#replace(one, names)
      placed.push({ one, name: one.name })
    }
    await syncFolder(dataDir)
    const modifiedAt = new Date()
    return staged.map((one) => {
      const name = placed.find((entry) => entry.one === one)?.name as string
      return { name, bytes: one.bytes, modifiedAt }
    })
  }

  /** @throws {SessionError} `QUOTA_EXCEEDED` */
  #requireRoom(staged: readonly Staged[], held: readonly FoundFile[]): void {
    const replacing = new Set(
      staged.filter(({ whenTaken }) => whenTaken === 'replace').map(({ name }) => nameKey(name)),
    )
    const stays = held.filter(({ name }) => !replacing.has(nameKey(name)))
    const others = staged.filter(({ whenTaken }) => whenTaken !== 'replace')
    const { maxBytes, maxFiles } = this.#limits
    if (sizeOf(stays) + sizeOf(staged) > maxBytes) throw tooLarge(maxBytes)
    if (stays.length + replacing.size + others.length > maxFiles) throw tooMany(maxFiles)
  }

  /** What other processes have written whole, and not put in its place yet. */
  async #doneByOthers(staged: readonly Staged[]): Promise<FoundFile[]> {
    const own = new Set(staged.map(({ path }) => path))
    const found: FoundFile[] = []
    for (const name of await readdir(this.#place.asides)) {
      const path = join(this.#place.asides, name)
      if (!name.endsWith(DONE) || own.has(path)) continue
      const file = await unlessMissing(lstat(path))
      if (file === undefined || Date.now() - file.ctimeMs > DONE_COUNTS_MS) continue
      found.push({ name: path, bytes: file.size, modifiedAt: new Date(file.mtimeMs) })
    }
    return found
  }

  /** Puts a file where none is; `names` are those that are taken. Resolves to the name that it got. */
  async #placeNew({ name: wanted, path, whenTaken }: Staged, names: Map<string, string>): Promise<string> {
    for (let number = 1; ; number++) {
      const name = number === 1 ? wanted : numbered(wanted, number)
      const isTaken = names.has(nameKey(name)) || !(await linkNew(path, join(this.#place.dataDir, name)))
      names.set(nameKey(name), name)
      if (!isTaken) return name
      if (whenTaken === 'refuse') throw taken()
    }
  }

  async #replace({ name, path }: Staged, names: Map<string, string>): Promise<void> {
    const { dataDir } = this.#place
    const present = names.get(nameKey(name))
    await rename(path, join(dataDir, name))
    // Another spelling of the same name, on a file system that tells them apart.
    if (present !== undefined && present !== name) await unlessMissing(unlink(join(dataDir, present)))
  }

  #flow(): Flow {
    const key = this.#place.asides
    let flow = flows.get(key)
    if (flow === undefined) {
      flow = { bytes: 0, files: 0, turn: Promise.resolve() }
      flows.set(key, flow)
    }
    return flow
  }

  #leave(bytes: number): void {
    const flow = this.#flow()
    flow.bytes -= bytes
    flow.files--
    if (flow.files <= 0) flows.delete(this.#place.asides)
  }
}

/** An error as the caller is to have it: what is missing has gone with its session, or with its disk. */
export async function toldOf(place: Place, error: unknown): Promise<unknown> {
  if (codeOf(error) === 'ENOENT') {
    try {
      await requirePlace(place)
    } catch (gone) {
      return gone
    }
  }
  return explained(error)
}

/** A hard link fails where a name is taken, in one step. Resolves to whether the name was free. */
async function linkNew(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(codeOf(error))) throw error
  }
  // A file system without links: the name is taken first, by an empty file.
  try {
    await (await open(to, 'wx', 0o600)).close()
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  }
  await rename(from, to)
  return true
}

/** @throws {SessionError} `INVALID_FILE_NAME` */
async function requireNoFolder(path: string): Promise<void> {
  if ((await unlessMissing(lstat(path)))?.isDirectory()) throw refused('there is a folder of that name')
}

async function writeWhole(handle: FileHandle, buffer: Uint8Array): Promise<void> {
  let offset = 0
  while (offset < buffer.length) {
    const { bytesWritten } = await handle.write(buffer, offset, buffer.length - offset)
    offset += bytesWritten
  }
}

/** So that a name outlives a loss of power as its file does. Not every system lets a folder be opened. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch {
    // The file itself has been written.
  }
}

/** The chunks of what is saved, and what lets a stream go on that nobody wants any more. */
function sourceOf(content: FileContent): { chunks: AsyncIterable<unknown>; drain: () => void } {
  const nothing = (): void => {}
  if (typeof content === 'string' || content instanceof Uint8Array) return { chunks: once(content), drain: nothing }
  if (content instanceof Readable) {
    // Destroyed, a request would take its connection with it, and with that the answer.
    const chunks = { [Symbol.asyncIterator]: () => content.iterator({ destroyOnReturn: false }) }
    return { chunks, drain: () => void content.on('error', nothing).resume() }
  }
  if (content instanceof Blob) return { chunks: content.stream() as AsyncIterable<unknown>, drain: nothing }
  if (typeof (content as AsyncIterable<unknown> | null)?.[Symbol.asyncIterator] === 'function') {
    return { chunks: content as AsyncIterable<unknown>, drain: nothing }
  }
  throw invalidArgument('A file is saved from text, bytes, a Blob, or a stream of them.')
}

async function* once<T>(chunk: T): AsyncGenerator<T, void, undefined> {
  yield chunk
}

function bufferOf(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk
  if (typeof chunk === 'string') return Buffer.from(chunk)
  throw invalidArgument('A file is saved from text, bytes, a Blob, or a stream of them.')
}

function sizeOf(files: readonly { readonly bytes: number }[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0)
}

function taken(): SessionError {
  return new SessionError('FILE_EXISTS', "There is a file of that name; see whenTaken: 'replace' and 'number'.")
}

function tooLarge(maxBytes: number): SessionError {
  return new SessionError('QUOTA_EXCEEDED', `The files of a session may have ${maxBytes} bytes together.`)
}

function tooMany(maxFiles: number): SessionError {
  return new SessionError('QUOTA_EXCEEDED', `A session may have ${maxFiles} files.`)
}
