// Requests without a network: a middleware is called with real Node request and response objects that have no peer.
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'

const socket = new Socket()

/**
 * Runs one request through a middleware and a handler. Resolves, when the response ends, to its Set-Cookie pairs.
 * @param {Function} middleware
 * @param {{ url?: string, cookie?: string, method?: string, headers?: object, ip?: string, handler: (req: object) => void }} request; `ip` as Express has it
 */
export function exchange(middleware, { url = '/', cookie, method = 'GET', headers, ip, handler }) {
  return new Promise((resolve, reject) => {
    const req = new IncomingMessage(socket)
    req.url = url
    req.method = method
    if (cookie !== undefined) req.headers = { cookie, ...headers }
    else if (headers !== undefined) req.headers = { ...headers }
    if (ip !== undefined) req.ip = ip
    const res = new ServerResponse(req)
    res.socket = socket
    res.end = function end() {
      if (!this.headersSent) this.writeHead(200)
      resolve(
        [this.getHeader('set-cookie') ?? []]
          .flat()
          .map((line) => line.split(';')[0])
          .join('; '),
      )
      return this
    }
    middleware(req, res, (error) => {
      if (error) return reject(error)
      handler(req)
      res.end()
    })
  })
}
