// Async handlers where the framework does not look at their promise.
import { createRequire } from 'node:module'
import { afterEach, expect, test } from '@jest/globals'
import connect from 'connect'
import express5 from 'express'
import { asyncHandler, MemorySessionStore, session } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express5

let server: TestServer | undefined
afterEach(() => server?.close())

const FRAMEWORKS: [name: string, make: () => unknown][] = [
  ['Express 4', () => express4()],
  ['Express 5', () => express5()],
  ['Connect', () => connect()],
]

test.each(FRAMEWORKS)(
  'a rejection of the session’s is answered with 503 on %s, and the process goes on',
  async (_name, make) => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const middleware = session({ secret: SECRET, store })
    middleware.events.on('storeError', () => {})
    const app = make() as express5.Express
    if (typeof app.set === 'function') app.set('env', 'test')
    app.use(middleware)
    app.use(
      asyncHandler(async (req, res) => {
        await req.session.login('ann')
        res.end('done')
      }),
    )
    server = await listen(app)
    const client = new Client(server)
    store.fail({ kind: 'error' })
    expect((await client.get('/')).status).toBe(503)
    store.repair()
    expect(await client.get('/')).toMatchObject({ status: 200, body: 'done' })
  },
)

test('what a handler throws before it is async goes to next as well, and is told once', () => {
  const told: unknown[] = []
  const handler = asyncHandler((_req: object, _res: object, _next: (error?: unknown) => void) => {
    throw new Error('at once')
  })
  return new Promise<void>((resolve) => {
    handler({}, {}, (error) => {
      told.push(error)
      setImmediate(() => {
        expect(told).toEqual([new Error('at once')])
        resolve()
      })
    })
  })
})
