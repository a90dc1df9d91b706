// What is asked of an origin: one request with a deadline, and its body within bounds.
import { SessionError } from '../../errors.js'

/** What is taken over of the request that somebody made. */
export interface OriginRequest {
  readonly request: Request
  /** The `dispatcher` of undici, by which a request may take a proxy or a pool of its own. */
  readonly dispatcher: unknown
}

/**
 * The response of one step: redirects are for the caller.
 * @throws {SessionError} `LOAD_TIMEOUT`; as `fetch`
 */
export async function timedFetch(
  url: URL,
  { request, dispatcher }: OriginRequest,
  { host: _host, ...headers }: Record<string, string>,
  timeoutMs: number,
): Promise<Response> {
  const controller = new AbortController()
  const timer = setTimeout(() => {
    controller.abort(new SessionError('LOAD_TIMEOUT', `${url.host} gave no answer in ${timeoutMs} ms.`))
  }, timeoutMs)
  try {
    const init = {
      headers,
      redirect: 'manual',
      signal: controller.signal,
      referrer: request.referrer,
      referrerPolicy: request.referrerPolicy,
      ...(dispatcher !== undefined && { dispatcher }),
    }
    return await fetch(url, init as RequestInit)
  } finally {
    clearTimeout(timer)
  }
}

/** A body that has been read whole, or a response that hands through what was read and what is to come. */
export type ReadBody =
  | { readonly isWhole: true; readonly body: Uint8Array }
  | { readonly isWhole: false; readonly response: Response }

/** Reads a body of at most so many bytes, for so long. No more than `maxBytes` and one chunk are held. */
export async function bodyUpTo(
  response: Response,
  { maxBytes, timeoutMs }: { maxBytes: number; timeoutMs: number },
): Promise<ReadBody> {
  if (response.body === null) return { isWhole: true, body: new Uint8Array() }
  const declared = response.headers.has('content-encoding') ? 0 : Number(response.headers.get('content-length') ?? 0)
  if (declared > maxBytes) return { isWhole: false, response }
  const reader = response.body.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, 'late')
  })
  try {
    while (true) {
      const reading = reader.read()
      const result = await Promise.race([reading, deadline])
      if (result === 'late') return { isWhole: false, response: handedThrough(response, chunks, reader, reading) }
      if (result.done) return { isWhole: true, body: Buffer.concat(chunks) }
      chunks.push(result.value)
      size += result.value.byteLength
      if (size > maxBytes) return { isWhole: false, response: handedThrough(response, chunks, reader) }
    }
  } finally {
    clearTimeout(timer)
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>

/** The response with what has been read of its body and, as it is asked for, the rest. */
function handedThrough(
  { status, statusText, headers }: Response,
  chunks: Uint8Array[],
  reader: Reader,
  pending?: ReturnType<Reader['read']>,
): Response {
  let next = pending
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const chunk = chunks.shift()
      if (chunk !== undefined) {
        controller.enqueue(chunk)
        return
      }
      const result = await (next ?? reader.read())
      next = undefined
      if (result.done) controller.close()
      else controller.enqueue(result.value)
    },
    cancel: (reason) => reader.cancel(reason),
  })
  return new Response(body, { status, statusText, headers })
}
