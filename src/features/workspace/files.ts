// What lies in a folder and those in it: files only, no links.

import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, unlessMissing } from './storage-errors.js'

export interface FoundFile {
  readonly name: string
  readonly bytes: number
  readonly modifiedAt: Date
}

/** Every file below `folder`, with its path from there. One that goes meanwhile may be missing. */
export async function filesIn(folder: string, prefix = ''): Promise<FoundFile[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  const files: FoundFile[] = []
  for (const entry of entries) {
    const path = join(folder, entry.name)
    const name = prefix + entry.name
    if (entry.isDirectory()) {
      files.push(...((await unlessMissing(filesIn(path, `${name}/`))) ?? []))
      continue
    }
    if (!entry.isFile()) continue
    const found = await lstat(path).catch((error) => {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    })
    if (found?.isFile()) files.push({ name, bytes: found.size, modifiedAt: new Date(found.mtimeMs) })
  }
  return files
}
