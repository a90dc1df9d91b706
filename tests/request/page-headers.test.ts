// What a page says to caches of the session behind it, when it sets no cookie.
import { afterEach, describe, expect, test } from '@jest/globals'
import type { Request, Response } from 'express'
import { type SessionOptions, session } from 'sojourn'
import { testApp } from '../support/app.js'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'

let server: TestServer | undefined

afterEach(async () => {
  await server?.close()
  server = undefined
})

async function client(handler: (req: Request, res: Response) => unknown, options: Partial<SessionOptions> = {}) {
  const { app } = testApp(options)
  app.all('/page', (req, res) => void handler(req, res))
  server = await listen(app)
  return new Client(server)
}

describe('a page that shows what is in the session', () => {
  test('is private, and varies by cookie', async () => {
    const visitor = await client((req, res) => res.json(req.session))
    await visitor.post('/set?a=1')
    const { headers, setCookies } = await visitor.get('/page')
    expect([headers['cache-control'], headers.vary, setCookies]).toEqual(['private', 'Cookie', []])
  })

  test('is private for a visitor without a session, too: it may show a session ID or initial fields', async () => {
    const visitor = await client((req, res) => res.json(req.session), { initialFields: () => ({ theme: 'dark' }) })
    expect((await visitor.get('/page')).headers['cache-control']).toBe('private')
  })

  test('is private when it is streamed', async () => {
    const visitor = await client((req, res) => {
      res.write(JSON.stringify(req.session))
      res.end()
    })
    expect((await visitor.get('/page')).headers['cache-control']).toBe('private')
  })

  test('is private when it answers first and stores later', async () => {
    const visitor = await client((req, res) => res.json(req.session), { commit: 'after-response' })
    await visitor.post('/set?a=1')
    expect((await visitor.get('/page')).headers['cache-control']).toBe('private')
  })

  test.each([
    ['max-age=60', 'max-age=60, private'],
    ['no-cache', 'no-cache, private'],
    ['max-age=60, x-public-ish', 'max-age=60, x-public-ish, private'],
    ['', 'private'],
    ['public, max-age=60', 'public, max-age=60'],
    ['max-age=0, s-maxage=60', 'max-age=0, s-maxage=60'],
    ['Private, max-age=60', 'Private, max-age=60'],
    ['private="set-cookie"', 'private="set-cookie"'],
    ['no-store', 'no-store'],
  ])('that says "%s" says "%s": who may keep it is the choice of the application', async (own, sent) => {
    const visitor = await client((req, res) => res.set('Cache-Control', own).json(req.session))
    await visitor.post('/set?a=1')
    const { headers } = await visitor.get('/page')
    expect([headers['cache-control'], headers.vary]).toEqual([sent, 'Cookie'])
  })

  test('says nothing of the kind by choice, but for Vary, and no-store with a cookie', async () => {
    const visitor = await client((req, res) => res.json(req.session), { cacheControl: 'none' })
    expect((await visitor.post('/set?a=1')).headers['cache-control']).toBe('no-store')
    const { headers } = await visitor.get('/page')
    expect([headers['cache-control'], headers.vary]).toEqual([undefined, 'Cookie'])
  })

  test('cannot be chosen to say anything else', () => {
    expect(() => session({ secret: SECRET, cacheControl: 'public' as never })).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
  })
})

test('a page that does not look at the session says nothing to caches', async () => {
  const visitor = await client((_req, res) => res.send('same for all'))
  await visitor.post('/set?a=1')
  const { headers } = await visitor.get('/page')
  expect([headers['cache-control'], headers.vary]).toEqual([undefined, undefined])
})
