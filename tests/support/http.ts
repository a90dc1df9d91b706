// Servers and clients for tests over HTTP.
import { once } from 'node:events'
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type RequestListener,
  type Server,
} from 'node:http'
import type { AddressInfo } from 'node:net'

/** A secret that passes our own checks. */
export const SECRET = 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja'
export const OTHER_SECRET = 'Q1wE9rT7yU3iO5pA2sD8fG4hJ6kL0zXc'

/** A server that listens on a free port of the loopback interface. */
export interface TestServer {
  readonly url: string
  readonly port: number
  readonly server: Server
  close(): Promise<void>
}

export async function listen(handler: RequestListener): Promise<TestServer> {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    server,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** A whole answer, with the raw times that tests of order need. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly setCookies: readonly string[]
  readonly body: string
  /** Milliseconds from sending the request to the first byte of the head. */
  readonly headAfterMs: number
  /** Whether the answer was cut off. */
  readonly isTruncated: boolean
  json<T = Record<string, unknown>>(): T
}

/** A browser's worth of client: keeps cookies, follows no redirect. */
export class Client {
  readonly #base: string
  readonly cookies = new Map<string, string>()

  constructor(base: string | TestServer, cookies?: Iterable<readonly [string, string]>) {
    this.#base = typeof base === 'string' ? base : base.url
    for (const [name, value] of cookies ?? []) this.cookies.set(name, value)
  }

  /** A client with the same cookies as this one has now. */
  clone(): Client {
    return new Client(this.#base, this.cookies)
  }

  get cookieHeader(): string {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ')
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.request('GET', path, { headers })
  }

  post(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.request('POST', path, { body, headers })
  }

  /** Sends a form, as a browser does. */
  async submit(
    path: string,
    fields: Record<string, string> = {},
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const answer = await send(`${this.#base}${path}`, {
      method: 'POST',
      payload: new URLSearchParams(fields).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded', cookie: this.cookieHeader, ...headers },
    })
    this.keep(answer.setCookies)
    return answer
  }

  async request(
    method: string,
    path: string,
    { body, headers = {} }: { body?: unknown; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const cookie = this.cookieHeader
    const payload = body === undefined ? undefined : JSON.stringify(body)
    const answer = await send(`${this.#base}${path}`, {
      method,
      payload,
      headers: {
        ...(cookie && { cookie }),
        ...(payload !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
    })
    this.keep(answer.setCookies)
    return answer
  }

  /** Takes the cookies of an answer. */
  keep(setCookies: readonly string[]): void {
    for (const line of setCookies) {
      const [pair = '', ...attributes] = line.split(';')
      const equals = pair.indexOf('=')
      const name = pair.slice(0, equals).trim()
      if (attributes.some((attribute) => /^\s*max-age=0$/i.test(attribute))) this.cookies.delete(name)
      else this.cookies.set(name, pair.slice(equals + 1).trim())
    }
  }
}

export function send(
  url: string,
  {
    method = 'GET',
    headers = {},
    payload,
  }: { method?: string; headers?: Record<string, string>; payload?: string | undefined } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sentAt = performance.now()
    const req = httpRequest(url, { method, headers, agent: false }, (res) => {
      const headAfterMs = performance.now() - sentAt
      const chunks: Buffer[] = []
      let isTruncated = false
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', () => {
        isTruncated = true
      })
      res.on('close', () => {
        const body = Buffer.concat(chunks).toString()
        resolve({
          status: res.statusCode ?? 0,
          headers: res.headers,
          setCookies: res.headers['set-cookie'] ?? [],
          body,
          headAfterMs,
          isTruncated: isTruncated || !res.complete,
          json: <T>() => JSON.parse(body) as T,
        })
      })
    })
    req.on('error', reject)
    req.end(payload)
  })
}

/** Waits until `condition` holds, looking again whenever the event loop has turned. For things without an event. */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error('The condition did not come true in time.')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
