// Our errors on the error paths of frameworks, which tell the status by one name or another.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import createError from 'http-errors'
import {
  MemorySessionStore,
  type Session,
  SessionError,
  type SessionErrorCode,
  type SessionMiddleware,
  session,
} from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { Client, SECRET } from './support/http.js'

type Handler = (req: IncomingMessage & { session: Session }, res: ServerResponse) => void
interface Polka {
  readonly server: import('node:http').Server
  use(middleware: SessionMiddleware): Polka
  get(path: string, handler: Handler): Polka
  listen(port: number, host: string, done: () => void): Polka
}
const polka = createRequire(import.meta.url)('polka') as (options?: object) => Polka

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
  jest.restoreAllMocks()
})

describe('an error', () => {
  test.each<[SessionErrorCode, number]>([
    ['STORE_UNAVAILABLE', 503],
    ['STORE_TIMEOUT', 503],
    ['LOAD_TIMEOUT', 504],
    ['SESSION_ENDED', 409],
    ['REAUTHENTICATION_REQUIRED', 401],
    ['INVALID_OPTION', 500],
  ])('%s has its status under every name, and is for clients below 500', (code, status) => {
    const error = new SessionError(code, 'What happened.')
    expect(error).toMatchObject({ status, statusCode: status, expose: status < 500 })
    expect(createError.isHttpError(error)).toBe(true)
  })
})

describe('when the store fails', () => {
  function faulty(): { middleware: SessionMiddleware; store: FaultyStore } {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const middleware = session({ secret: SECRET, store, storeTimeout: '10s' })
    middleware.events.on('storeError', () => {})
    return { middleware, store }
  }

  const fill: Handler = (req, res) => {
    req.session.set('n', 1)
    res.end('stored')
  }

  test('Polka answers 503, whatever it takes for the status', async () => {
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { middleware, store } = faulty()
    const app = polka().use(middleware).get('/', fill)
    await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve))
    closers.push(() => app.server.close().closeAllConnections())
    const client = new Client(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
    expect((await client.get('/')).body).toBe('stored')
    store.fail({ kind: 'error' })
    const loading = await client.get('/')
    expect([loading.status, loading.headers['retry-after']]).toEqual([503, '1'])
    const committing = await new Client(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`).get('/')
    expect([committing.status, committing.setCookies]).toEqual([503, []])
    expect(committing.body).not.toContain('stored')
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('What answers errors failed'), expect.anything())
  })

  test.each([
    // The two forms in which frameworks read a status: NestJS's filter of last resort, and the newer Polka.
    ['statusCode and message', (error: SessionError) => (error.statusCode && error.message ? error.statusCode : 500)],
    ['a status that is a number', (error: SessionError) => (typeof error.status === 'number' ? error.status : 500)],
  ])('a framework that looks for %s answers 503', async (_what, statusOf) => {
    const { middleware, store } = faulty()
    const server = createServer((req, res) => {
      middleware(req, res, (error) => {
        if (error === undefined) return fill(req as never, res)
        res.statusCode = statusOf(error as SessionError)
        res.end()
      })
    }).listen(0, '127.0.0.1')
    closers.push(() => server.close().closeAllConnections())
    await once(server, 'listening')
    store.fail({ kind: 'error' })
    const client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    expect((await client.get('/')).status).toBe(503)
  })
})
