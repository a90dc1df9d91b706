// Receives a form with files, of Node's or the web's requests, by busboy: streamed, within the quota, all files or none.

import type { IncomingMessage } from 'node:http'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { invalidArgument, isSessionError, SessionError } from '../../errors.js'
import { safeFileName } from './names.js'
import type { SaveOptions, Upload, Workspace, WorkspaceFile } from './workspace.js'

/** What is called of busboy, version 1: the module itself. */
export type BusboyLike = (config: {
  headers: Record<string, string | string[] | undefined>
  limits?: ReceiveLimits
  defParamCharset?: string
  // biome-ignore lint/suspicious/noExplicitAny: busboy has overloads of its own for each event
}) => Writable & { on(event: string, listener: (...args: any[]) => void): unknown }

/** Limits of a form, as busboy takes them. */
export interface ReceiveLimits {
  /** @default 100 */
  readonly fields?: number | undefined
  /** In bytes. @default 100_000 */
  readonly fieldSize?: number | undefined
  /** @default 100 */
  readonly files?: number | undefined
  /** In bytes. Default: what the quota allows. */
  readonly fileSize?: number | undefined
  /** Fields and files. @default 200 */
  readonly parts?: number | undefined
}

/** What `receiveFiles()` takes. */
export interface ReceiveOptions extends SaveOptions {
  /** The module: `import busboy from 'busboy'`. */
  readonly busboy: BusboyLike
  readonly limits?: ReceiveLimits | undefined
}

/** A form that has been received. */
export interface ReceivedForm {
  /** The files, in the order of the form, as they were saved. */
  readonly files: readonly ReceivedFile[]
  /** The other fields, in the order of the form: a name may come several times. */
  readonly fields: readonly (readonly [name: string, value: string])[]
}

/** A file of a form. */
export interface ReceivedFile extends WorkspaceFile {
  /** The field of the form that it came in. */
  readonly field: string
  /** What the client called it; not to be trusted. */
  readonly originalName: string
  /** What the client says it is; not to be trusted. */
  readonly type: string
}

const DEFAULT_LIMITS = { fields: 100, fieldSize: 100_000, files: 100, parts: 200 }

/**
 * Receives a form (`multipart/form-data`) and saves its files: all of them when the form is complete, or none. It streams, and no
 * more than the quota allows lies on the disk meanwhile. A form that is refused is read to its end, so that its client gets the
 * answer.
 *
 * ```ts
 * const { files, fields } = await receiveFiles(req, await workspaceOf(req.session), { busboy })
 * ```
 * @param request of Node's `http`, or a `Request` of the web
 * @throws {SessionError} `INVALID_FORM` (400) when it is no form, malformed or cut off; `QUOTA_EXCEEDED` (413), also for its own
 *   limits; as `workspace.save()`
 */
export async function receiveFiles(
  request: IncomingMessage | Request,
  workspace: Workspace,
  { busboy, limits, whenTaken = 'number' }: ReceiveOptions,
): Promise<ReceivedForm> {
  if (typeof busboy !== 'function') throw invalidArgument("receiveFiles() needs busboy: import busboy from 'busboy'.")
  const { headers, body } = sourceOf(request)
  const parser = parserOf(busboy, headers, { ...DEFAULT_LIMITS, ...withoutUndefined(limits) })
  const upload = workspace.upload()
  const form = new Form(upload, whenTaken)
  parser.on('field', (name: string, value: string, { valueTruncated = false } = {}) => {
    if (valueTruncated) form.refuse(tooMuch('a field'))
    else form.fields.push([name, value])
  })
  parser.on('file', (name: string, stream: Truncatable, info: FileInfo) => form.take(name, stream, info))
  for (const what of ['fields', 'files', 'parts']) parser.on(`${what}Limit`, () => form.refuse(tooMuch(`its ${what}`)))
  try {
    // A client that hangs up ends the parser, too, which by itself would wait for ever.
    await pipeline(body, parser)
    return await form.complete()
  } catch (error) {
    await form.abandon(error)
    if (isSessionError(form.refusal)) throw form.refusal
    throw new SessionError('INVALID_FORM', 'The form is malformed, or was cut off; nothing of it was saved.', {
      cause: error,
    })
  }
}

interface FileInfo {
  readonly filename?: string | undefined
  readonly mimeType: string
}

/** What a client says of a file. */
type Described = Pick<ReceivedFile, 'field' | 'originalName' | 'type'>

type Truncatable = Readable & { readonly truncated?: boolean }

/** A form while it comes. What is wrong with it is told when it has been read. */
class Form {
  readonly fields: [string, string][] = []
  refusal: unknown
  readonly #upload: Upload
  readonly #whenTaken: NonNullable<SaveOptions['whenTaken']>
  readonly #files: Described[] = []
  /** One file after the other, as they come. */
  #writing: Promise<void> = Promise.resolve()

  constructor(upload: Upload, whenTaken: NonNullable<SaveOptions['whenTaken']>) {
    this.#upload = upload
    this.#whenTaken = whenTaken
  }

  take(field: string, stream: Truncatable, { filename, mimeType }: FileInfo): void {
    // A file field that nobody filled in comes without a name.
    if (filename === undefined || filename === '' || this.refusal !== undefined) {
      stream.resume()
      return
    }
    // It may be destroyed before anybody reads it.
    stream.on('error', () => {})
    this.#writing = this.#writing.then(async () => {
      if (this.refusal !== undefined) {
        stream.resume()
        return
      }
      try {
        await this.#upload.add(safeFileName(filename), stream, { whenTaken: this.#whenTaken })
        if (stream.truncated) throw tooMuch('a file')
        this.#files.push({ field, originalName: filename, type: mimeType })
      } catch (error) {
        this.refuse(error)
      }
    })
  }

  refuse(error: unknown): void {
    this.refusal ??= error
  }

  async complete(): Promise<ReceivedForm> {
    await this.#writing
    if (this.refusal !== undefined) throw this.refusal
    const saved = await this.#upload.commit()
    const files = saved.map((file, index) => ({ ...file, ...(this.#files[index] as Described) }))
    return { files, fields: this.fields }
  }

  async abandon(error: unknown): Promise<void> {
    this.refuse(error)
    await this.#writing
    await this.#upload.abort()
  }
}

function sourceOf(request: IncomingMessage | Request): {
  headers: Record<string, string | string[] | undefined>
  body: Readable
} {
  if (request instanceof Readable) return { headers: request.headers, body: request }
  const { headers, body } = request as Request
  if (typeof headers?.entries !== 'function') throw invalidArgument('receiveFiles() takes a request.')
  const readable = body === null ? Readable.from([]) : Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0])
  return { headers: Object.fromEntries(headers.entries()), body: readable }
}

function parserOf(
  busboy: BusboyLike,
  headers: Record<string, string | string[] | undefined>,
  limits: ReceiveLimits,
): ReturnType<BusboyLike> {
  try {
    // Browsers write names of files in UTF-8.
    return busboy({ headers, limits, defParamCharset: 'utf8' })
  } catch (cause) {
    throw new SessionError('INVALID_FORM', 'The request is no form with files (multipart/form-data).', { cause })
  }
}

function withoutUndefined(limits: ReceiveLimits = {}): ReceiveLimits {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined))
}

function tooMuch(what: string): SessionError {
  return new SessionError('QUOTA_EXCEEDED', `The form is larger than is allowed: ${what}.`)
}
