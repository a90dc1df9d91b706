// The first look at a session: half-way through a body, before the handler sets Vary, at one that is not loaded or not ours.
import { afterEach, describe, expect, test } from '@jest/globals'
import type express from 'express'
import type { ErrorRequestHandler } from 'express'
import { getSession, MemorySessionStore, session } from 'sojourn'
import { Client, listen, SECRET, until } from '../support/http.js'
import { closeApps, closers, serve } from '../support/small-app.js'

afterEach(closeApps)

describe('a body of known length', () => {
  test('does not come whole before the commit, also when the session is first looked at half-way', async () => {
    let isStored = false
    const { client, store } = await serve((req, res) => {
      res.set('Content-Length', '10')
      res.write('12345')
      req.session.set('b', 2)
      res.write('67890')
      res.end()
    })
    await client.get('/fill')
    store.fail({ kind: 'delay', operations: ['update'] })
    const answer = client.get('/').then((got) => ({ ...got, wasStored: isStored }))
    await until(() => store.heldCalls === 1)
    isStored = true
    store.release()
    expect(await answer).toMatchObject({ body: '1234567890', isTruncated: false, wasStored: true })
    expect((await client.get('/peek')).json()).toEqual({ filled: true, b: 2 })
  })
})

describe('Vary', () => {
  test.each<[string, (res: express.Response) => void]>([
    ['set()', (res) => void res.set('Vary', 'Accept').end()],
    ['writeHead()', (res) => void res.writeHead(200, { Vary: 'Accept' }).end()],
  ])('has Cookie also when the handler sets it by %s after it read the session', async (_how, answer) => {
    const { client } = await serve((req, res) => {
      req.session.get('filled')
      answer(res)
    })
    await client.get('/fill')
    expect((await client.get('/')).headers.vary).toBe('Accept, Cookie')
  })
})

describe('a session that cannot be loaded', () => {
  test('is there, empty, for the error handler, by req and by getSession()', async () => {
    const { app, client, store } = await serve((_req, res) => void res.end())
    const onError: ErrorRequestHandler = (_error, req, res, _next) => {
      res.status(503).json({ same: getSession() === req.session, fields: req.session })
    }
    app.use(onError)
    await client.get('/fill')
    store.fail({ kind: 'error' })
    expect((await client.get('/')).json()).toEqual({ same: true, fields: {} })
  })
})

describe('a req.session of somebody else', () => {
  test.each([{ a: 1 }, Object.create(null)])('is an error, not an exception', async (foreign) => {
    const middleware = session({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
    const server = await listen((req, res) => {
      Object.assign(req, { session: foreign })
      middleware(req, res, (error) => res.end((error as { code: string }).code))
    })
    closers.push(server.close)
    expect((await new Client(server).get('/')).body).toBe('INVALID_OPTION')
  })
})
