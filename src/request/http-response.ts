// A response of Node, and the members of it that are called here.
import type { OutgoingHttpHeader, ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'

/** A response of `node:http`, `node:https` or the compatibility API of `node:http2`. */
export type HttpResponse = ServerResponse | Http2ServerResponse

export type Method = (...args: unknown[]) => unknown

/** The members that are called here, without the overloads in which the two kinds of response differ. */
export interface Target {
  statusCode: number
  statusMessage: string
  readonly headersSent: boolean
  readonly writableEnded: boolean
  /** Whether everything has been handed to the system. HTTP/2 has no such member. */
  readonly writableFinished?: boolean
  writeHead: Method
  /** Another name of `writeHead`, up to Node 24. */
  writeHeader?: Method
  write: Method
  end: Method
  flushHeaders: Method
  getHeader(name: string): unknown
  getHeaders(): Record<string, OutgoingHttpHeader | undefined>
  getHeaderNames(): string[]
  setHeader: Method
  appendHeader: Method
  removeHeader: Method
  emit(event: string): boolean
  on(event: 'pipe', listener: (source: NodeJS.ReadableStream) => void): unknown
  on(event: 'finish', listener: () => void): unknown
  off(event: 'finish', listener: () => void): unknown
  destroy: Method
  shouldKeepAlive?: boolean
  readonly socket: Socket | null
  readonly stream?: { readonly destroyed: boolean; readonly closed: boolean; close(code: number): void }
}
