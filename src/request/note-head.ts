// `writeHead()` without the writing: the status and the headers are put on the response, and what Node would throw is thrown.
import { OutgoingMessage, ServerResponse } from 'node:http'
import type { Target } from './http-response.js'

/** Does now what `writeHead(...args)` would do, but for the sending. */
export function noteHead(res: Target, args: readonly unknown[]): void {
  if (res instanceof OutgoingMessage) noteHttp1(res, args)
  else noteHttp2(res, args)
}

interface Internals {
  _storeHeader(statusLine: string, headers: unknown): void
}
const NODE = ServerResponse.prototype as unknown as Target & Internals

/**
 * Versions of Node differ in what they make of headers given twice, and in what they throw. So Node itself does it, on a
 * double of the response that shares its headers and keeps everything else for itself.
 */
function noteHttp1(res: OutgoingMessage, args: readonly unknown[]): void {
  const target = res as unknown as Target
  let rendered: unknown
  const double = Object.create(res, {
    _storeHeader: {
      value(statusLine: string, headers: unknown): void {
        rendered = headers
        NODE._storeHeader.call(double, statusLine, headers)
      },
    },
    _send: { value: () => true },
  }) as Target
  try {
    NODE.writeHead.apply(double, args as unknown[])
  } finally {
    if (Object.hasOwn(double, 'statusCode')) target.statusCode = double.statusCode
    if (Object.hasOwn(double, 'statusMessage')) target.statusMessage = double.statusMessage
  }
  // To a response without headers Node writes those of writeHead() as they are.
  if (rendered && (rendered === args[1] || rendered === args[2])) addHeaders(target, rendered)
}

function noteHttp2(res: Target, args: readonly unknown[]): void {
  const [status, second, third] = args
  const headers = third === undefined && typeof second === 'object' ? second : third
  if (Array.isArray(headers)) for (const [name] of pairsOf(headers)) res.removeHeader(String(name))
  if (typeof headers === 'object' && headers !== null) addHeaders(res, headers)
  if (status !== undefined) res.statusCode = status as number
}

function addHeaders(res: Target, headers: object): void {
  if (Array.isArray(headers)) for (const [name, value] of pairsOf(headers)) res.appendHeader(name as string, value)
  else for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
}

/** Of `[name, value, name, value]` and of `[[name, value], [name, value]]`. */
function pairsOf(headers: readonly unknown[]): (readonly unknown[])[] {
  if (Array.isArray(headers[0])) return headers as unknown[][]
  return Array.from({ length: headers.length / 2 }, (_, at) => headers.slice(2 * at, 2 * at + 2))
}
