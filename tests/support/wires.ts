// One server and one client for each kind of connection that responses travel on, so that a promise is tested on all.
import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage } from 'node:http'
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  createSecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
} from 'node:http2'
import { createServer as createHttpsServer, request as httpsRequest } from 'node:https'
import { type AddressInfo, connect, type Server, type Socket } from 'node:net'
import express from 'express'
import type { HttpRequest, HttpResponse } from 'sojourn'

export type Handler = (req: HttpRequest, res: HttpResponse) => void

/** What a client got, whole or not. */
export interface Got {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | number | undefined>>
  readonly setCookies: readonly string[]
  readonly body: string
  readonly trailers: Readonly<Record<string, unknown>>
  /** The statuses of the 1xx responses before. */
  readonly interim: readonly number[]
  /** Whether the response was cut off. */
  readonly isTruncated: boolean
}

/** A request that is under way. */
export interface Exchange {
  /** Whether the head of the response has arrived. */
  isAnswered(): boolean
  /** The body so far. */
  body(): string
  /** Goes away, as a browser does when its tab is closed. */
  abort(): void
  readonly done: Promise<Got>
}

export interface RequestParts {
  readonly path?: string
  readonly method?: string
  readonly cookie?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
}

/** A server and how to reach it. */
export interface WireServer {
  readonly port: number
  start(parts?: RequestParts): Exchange
  request(parts?: RequestParts): Promise<Got>
  close(): Promise<void>
}

export interface Wire {
  readonly isHttp2: boolean
  /** The session cookie's default name on this kind of connection. */
  readonly cookieName: 'sid' | '__Host-sid'
  listen(handler: Handler): Promise<WireServer>
}

/** For tests only: a self-signed certificate for localhost, worth nothing to anybody. */
export const TEST_CERTIFICATE = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJ5UIOdI9ax5/DH7g
90vqQV8lN68pgN1sRkKC1BWZAaihRANCAAR7arB9Z8Y96fXr4Scnqtok7T9pxCmT
igbDCZ4fGYwtYFmJIBvhZQPYvsh6XwPf0N4zZMHt1h+wZd1QMOU/EJPO
-----END PRIVATE KEY-----`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUaa9e70Bk6Wnc7xMxjSIvI1bP9lswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTAxMDEzMloYDzIxMjYxMDI4
MDEwMTMyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR7arB9Z8Y96fXr4Scnqtok7T9pxCmTigbDCZ4fGYwtYFmJIBvhZQPY
vsh6XwPf0N4zZMHt1h+wZd1QMOU/EJPOo28wbTAdBgNVHQ4EFgQUQsjolWO5tF5T
ITFmFN0ranM3rtUwHwYDVR0jBBgwFoAUQsjolWO5tF5TITFmFN0ranM3rtUwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgdMS2gPwu+zWEvufZSemiU1gWrOni29qQRk7xTYsYEn0CIDZa
dhmVLc7/44raElUI1+thU6KcbleBvEaL6ig2nL4H
-----END CERTIFICATE-----`,
}

export const WIRES: readonly (readonly [name: string, wire: Wire])[] = [
  ['http', http1Wire(false)],
  ['http under Express', underExpress(http1Wire(false))],
  ['https', http1Wire(true)],
  ['HTTP/2', http2Wire(true)],
  ['HTTP/2 without TLS', http2Wire(false)],
]

export const HTTP = http1Wire(false)

function http1Wire(isSecure: boolean): Wire {
  return {
    isHttp2: false,
    cookieName: isSecure ? '__Host-sid' : 'sid',
    async listen(handler) {
      const server = isSecure ? createHttpsServer(TEST_CERTIFICATE, handler) : createServer(handler)
      const { port, close } = await opened(server)
      const start = (parts?: RequestParts): Exchange => startHttp1(isSecure, port, parts)
      return { port, close, start, request: (parts) => start(parts).done }
    },
  }
}

/** The same, with the prototypes that Express gives to requests and responses. */
function underExpress(wire: Wire): Wire {
  return {
    ...wire,
    listen(handler) {
      const app = express()
      app.disable('x-powered-by')
      app.set('env', 'test')
      app.use((req, res) => handler(req, res))
      return wire.listen(app as unknown as Handler)
    },
  }
}

function http2Wire(isSecure: boolean): Wire {
  return {
    isHttp2: true,
    cookieName: isSecure ? '__Host-sid' : 'sid',
    async listen(handler) {
      const server: Http2Server = isSecure ? createSecureServer(TEST_CERTIFICATE, handler) : createHttp2Server(handler)
      const { port, close } = await opened(server)
      const url = `${isSecure ? 'https' : 'http'}://127.0.0.1:${port}`
      const client = connectHttp2(url, { rejectUnauthorized: false })
      client.on('error', () => {})
      return {
        port,
        async close() {
          client.destroy()
          await close()
        },
        start: (parts) => startHttp2(client, parts),
        request: (parts) => startHttp2(client, parts).done,
      }
    },
  }
}

async function opened(server: Server | Http2Server): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

function startHttp1(isSecure: boolean, port: number, parts: RequestParts = {}): Exchange {
  const { path = '/', method = 'GET', cookie, headers } = parts
  const request = isSecure ? httpsRequest : httpRequest
  const req = request({
    host: '127.0.0.1',
    port,
    path,
    method,
    headers: { ...headers, ...(cookie !== undefined && { cookie }) },
    agent: false,
    rejectUnauthorized: false,
  })
  let isAnswered = false
  let body = ''
  const interim: number[] = []
  req.on('information', ({ statusCode }: { statusCode: number }) => interim.push(statusCode))
  const done = new Promise<Got>((resolve) => {
    const settle = (res?: IncomingMessage): void => {
      resolve({
        status: res?.statusCode ?? 0,
        headers: res?.headers ?? {},
        setCookies: res?.headers['set-cookie'] ?? [],
        body,
        trailers: res?.trailers ?? {},
        interim,
        isTruncated: !res?.complete,
      })
    }
    req.on('error', () => settle())
    req.on('response', (res) => {
      isAnswered = true
      res.setEncoding('utf8')
      res.on('data', (text: string) => {
        body += text
      })
      res.on('error', () => {})
      res.on('close', () => settle(res))
    })
  })
  req.end()
  return { isAnswered: () => isAnswered, body: () => body, abort: () => void req.destroy(), done }
}

function startHttp2(client: ClientHttp2Session, parts: RequestParts = {}): Exchange {
  const { path = '/', method = 'GET', cookie, headers } = parts
  const stream = client.request(
    { ':path': path, ':method': method, ...headers, ...(cookie !== undefined && { cookie }) },
    { endStream: true },
  )
  let head: IncomingHttpHeaders | undefined
  let body = ''
  let trailers = {}
  let isEnded = false
  const interim: number[] = []
  stream.setEncoding('utf8')
  stream.on('headers', (headers) => interim.push(Number(headers[':status'])))
  stream.on('response', (headers) => {
    head = headers
  })
  stream.on('data', (text: string) => {
    body += text
  })
  stream.on('trailers', (headers) => {
    trailers = headers
  })
  stream.on('end', () => {
    isEnded = true
  })
  stream.on('error', () => {})
  const done = new Promise<Got>((resolve) => {
    stream.on('close', () => {
      resolve({
        status: Number((head as Record<string, unknown> | undefined)?.[':status'] ?? 0),
        headers: head ?? {},
        setCookies: head?.['set-cookie'] ?? [],
        body,
        trailers,
        interim,
        isTruncated: !isEnded || stream.rstCode !== 0,
      })
    })
  })
  return { isAnswered: () => head !== undefined, body: () => body, abort: () => stream.close(8), done }
}

/** A bare TCP connection, for what only the order of bytes can tell. */
export class RawClient {
  readonly #socket: Socket
  #received = ''
  #isClosed = false
  #errorCode: string | undefined

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1')
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', (text: string) => {
      this.#received += text
    })
    this.#socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      this.#errorCode = code
    })
    this.#socket.on('close', () => {
      this.#isClosed = true
    })
  }

  /** Everything that came, one character a byte. */
  get received(): string {
    return this.#received
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** How the connection broke, if it did. */
  get errorCode(): string | undefined {
    return this.#errorCode
  }

  /** Sends one request of a keep-alive connection. */
  send(path: string, { method = 'GET', cookie }: RequestParts = {}): void {
    const cookieLine = cookie === undefined ? '' : `Cookie: ${cookie}\r\n`
    this.sendText(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${cookieLine}\r\n`)
  }

  sendText(text: string): void {
    this.#socket.write(text)
  }

  /** Stops taking bytes off the connection, so that the server's writes back up. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}
