// Paths within a workspace, against everything that could lead out of it: `..`, links, another spelling of a name, and whatever
// is put in the place of a folder between a look at it and its use.

import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readdir, realpath } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { refused } from './names.js'
import { codeOf, unlessMissing } from './storage-errors.js'

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants
/** Linux names open files by their descriptors: from there on, nobody can exchange what the path went through. */
const DESCRIPTORS = process.platform === 'linux' ? '/proc/self/fd' : undefined

/**
 * The path of `parts` below `base`. What of it exists holds no link, and has the very names that were given. Its end need not
 * exist.
 * @throws {SessionError} `INVALID_FILE_NAME`
 */
export async function checkedPath(base: string, parts: readonly string[]): Promise<string> {
  const home = await realpath(base)
  let path = home
  for (const [index, part] of parts.entries()) {
    path = join(path, part)
    const found = await unlessMissing(lstat(path))
    if (found === undefined) return join(path, ...parts.slice(index + 1))
    if (found.isSymbolicLink()) throw isLink()
    if ((await realpath(path)) !== path) throw refused('it is spelt differently')
  }
  return path
}

/** Whether a path, or as much of it as exists, is really in one of these folders. */
export async function isWithin(folders: readonly string[], path: unknown): Promise<boolean> {
  if (typeof path !== 'string' || path === '' || path.includes('\0') || !isAbsolute(path)) return false
  // Where a link stands before it, `..` is another folder than it looks.
  if (path.split(/[/\\]/).includes('..')) return false
  let existing = resolve(path)
  let rest = ''
  for (;;) {
    const found = await unlessMissing(lstat(existing))
    if (found !== undefined) break
    rest = join(relative(dirname(existing), existing), rest)
    existing = dirname(existing)
  }
  // A link that leads nowhere yet may lead anywhere later.
  const real = await unlessMissing(realpath(existing))
  if (real === undefined) return false
  const target = join(real, rest)
  for (const folder of folders) {
    const home = await unlessMissing(realpath(folder))
    if (home !== undefined && target.startsWith(home + sep)) return true
  }
  return false
}

/**
 * Opens a file below `base` for reading: the very file in the workspace, whatever is exchanged meanwhile. `null` when there is
 * none.
 * @throws {SessionError} `INVALID_FILE_NAME` for links, folders, devices, and second names of files elsewhere
 */
export async function openWithin(base: string, parts: readonly string[], asides: string): Promise<FileHandle | null> {
  const handle = await unlessMissing(opened(base, parts)).catch((error) => {
    // ELOOP and, of a folder, ENOTDIR: a link where none may be. EMLINK: the same on FreeBSD.
    if (['ELOOP', 'EMLINK', 'EFTYPE'].includes(codeOf(error))) throw isLink()
    throw error
  })
  if (handle === undefined) return null
  try {
    const found = await handle.stat()
    if (!found.isFile()) throw refused('it is no file')
    if (found.nlink > 1 && !(await isBeingPlaced(found.ino, asides)) && (await handle.stat()).nlink > 1) throw isLink()
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function opened(base: string, parts: readonly string[]): Promise<FileHandle> {
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK
  return DESCRIPTORS === undefined ? openAndCompare(base, parts, flags) : openStepwise(base, parts, flags)
}

/** As openat(2) would: from one open folder to the next. */
async function openStepwise(base: string, parts: readonly string[], flags: number): Promise<FileHandle> {
  let folder = await open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    for (const part of parts.slice(0, -1)) {
      const next = await openFolder(`${DESCRIPTORS}/${folder.fd}/${part}`)
      await folder.close()
      folder = next
    }
    return await open(`${DESCRIPTORS}/${folder.fd}/${parts.at(-1)}`, flags)
  } finally {
    await folder.close()
  }
}

async function openFolder(path: string): Promise<FileHandle> {
  try {
    return await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  } catch (error) {
    if (codeOf(error) === 'ENOTDIR' && (await unlessMissing(lstat(path)))?.isSymbolicLink()) throw isLink()
    throw error
  }
}

/** Where that cannot be: what was opened has to be what a path without links leads to afterwards. */
async function openAndCompare(base: string, parts: readonly string[], flags: number): Promise<FileHandle> {
  const handle = await open(await checkedPath(base, parts), flags)
  try {
    const [is, shouldBe] = [await handle.stat(), await lstat(await checkedPath(base, parts))]
    if (is.dev !== shouldBe.dev || is.ino !== shouldBe.ino) throw isLink()
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** A file has two names of ours for a moment, which may just be over; one that a crash left is removed by the sweep. */
async function isBeingPlaced(ino: number, asides: string): Promise<boolean> {
  for (const name of await readdir(asides)) {
    if ((await unlessMissing(lstat(join(asides, name))))?.ino === ino) return true
  }
  return false
}

function isLink(): Error {
  return refused('there is a link in it')
}
