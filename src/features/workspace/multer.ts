// A storage engine for multer: what it is given goes into the workspace of the request's session.

import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { requireSession } from '../../request/current-session.js'
import { safeFileName } from './names.js'
import type { SaveOptions } from './workspace.js'
import { workspaceOf } from './workspaces.js'

/** What multer, 1.4 and 2, says of a file that comes. */
export interface MulterFile {
  readonly originalname: string
  readonly stream: Readable
}

/** What is known of a file that was saved: multer adds it to `req.file` or `req.files`. */
export interface MulterSaved {
  /** The name in the workspace. */
  readonly filename: string
  readonly size: number
}

/** A storage engine as multer calls it. */
export interface MulterStorage {
  _handleFile(req: IncomingMessage, file: MulterFile, done: (error?: unknown, info?: MulterSaved) => void): void
  _removeFile(req: IncomingMessage, file: object, done: (error: Error | null) => void): void
}

/**
 * Where multer keeps files: `multer({ storage: workspaceStorage(), defParamCharset: 'utf8' })`, behind `session()`. A client's name
 * is made safe, and `req.file.filename` is what became of it. Over the quota, the error is `QUOTA_EXCEEDED` (413).
 *
 * When one file of a form fails, multer removes those that came before it. What they replaced is gone then: with `'replace'`,
 * `receiveFiles()` is the better choice, which saves all files of a form or none.
 * @param options `whenTaken`: default `'number'`, since clients call their files what they like
 */
export function workspaceStorage({ whenTaken = 'number' }: SaveOptions = {}): MulterStorage {
  async function handle(req: IncomingMessage, file: MulterFile): Promise<MulterSaved> {
    const workspace = await workspaceOf(requireSession(req))
    const saved = await workspace.save(safeFileName(file.originalname), file.stream, { whenTaken })
    return { filename: saved.name, size: saved.bytes }
  }

  async function remove(req: IncomingMessage, file: object): Promise<void> {
    const { filename } = file as Partial<MulterSaved>
    if (filename === undefined) return
    await (await workspaceOf(requireSession(req), { create: false }))?.remove(filename)
  }

  return {
    _handleFile(req, file, done) {
      handle(req, file).then(
        (info) => process.nextTick(done, null, info),
        (error) => {
          // Multer waits for the rest of the form.
          file.stream.resume()
          process.nextTick(done, error)
        },
      )
    },
    _removeFile(req, file, done) {
      remove(req, file).then(
        () => process.nextTick(done, null),
        (error) => process.nextTick(done, error),
      )
    },
  }
}
