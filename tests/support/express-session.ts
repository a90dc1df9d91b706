// A server on the drop-in for express-session, for tests of how it behaves.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import session, { type ExpressSessionMiddleware, type ExpressSessionOptions } from 'sojourn/express-session'
import { Client, SECRET } from './http.js'

/** What express-session puts on a request, for tests that read and write it freely. */
// biome-ignore lint/suspicious/noExplicitAny: the fields of a session are whatever a test makes of them
export type DropInRequest = Omit<IncomingMessage, 'session'> & { session: any; sessionID: any; sessionStore: any }

export interface DropIn {
  readonly client: Client
  readonly middleware: ExpressSessionMiddleware
  readonly url: string
  [Symbol.asyncDispose](): Promise<void>
}

/** Serves `handler` behind the drop-in; what goes to `next` as an error is answered as text, with its status or 500. */
export async function dropIn(
  options: ExpressSessionOptions,
  handler: (req: DropInRequest, res: ServerResponse) => unknown,
  before?: (req: DropInRequest) => void,
): Promise<DropIn> {
  const middleware = session({
    secret: SECRET,
    resave: false,
    saveUninitialized: false,
    storeTimeout: '10s',
    ...options,
  })
  const server = createServer((req, res) => {
    const request = req as unknown as DropInRequest
    before?.(request)
    middleware(request, res, (error?: { status?: number; message: string }) => {
      if (error) {
        res.statusCode = error.status ?? 500
        res.end(error.message)
        return
      }
      Promise.resolve(handler(request, res)).catch((failure: Error) => {
        res.statusCode = 500
        res.end(`thrown: ${failure.message}`)
      })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    client: new Client(url),
    middleware,
    url,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await middleware.manager.close()
    },
  }
}

/** The attributes of the session cookie in an answer, by lower-case name; `undefined` without one. */
export function cookieIn(
  answer: { setCookies: readonly string[] },
  name = 'connect.sid',
): Record<string, string> | undefined {
  const line = answer.setCookies.find((text) => text.startsWith(`${name}=`))
  if (line === undefined) return undefined
  const parts = line.split(/; ?/).map((part) => {
    const at = part.indexOf('=')
    return at === -1 ? [part.toLowerCase(), ''] : [part.slice(0, at).toLowerCase(), part.slice(at + 1)]
  })
  const [first = [], ...attributes] = parts
  return { value: decodeURIComponent(first[1] ?? ''), ...Object.fromEntries(attributes) }
}
