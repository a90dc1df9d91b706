// What becomes of `req.session = …` and `delete req.session`, which other session middleware have as a habit.
import { createRequire } from 'node:module'
import { afterEach, describe, expect, test } from '@jest/globals'
import connect from 'connect'
import express5 from 'express'
import { MemorySessionStore, type SessionOptions, session } from 'sojourn'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'
import { endOf } from '../support/records.js'

const express4 = createRequire(import.meta.url)('express4') as typeof express5

let server: TestServer | undefined
afterEach(() => server?.close())

const FRAMEWORKS: [name: string, make: () => unknown][] = [
  ['Express 4', () => express4()],
  ['Express 5', () => express5()],
  ['Connect', () => connect()],
]

describe.each(FRAMEWORKS)('on %s', (_name, make) => {
  async function start(options: Partial<SessionOptions> = {}): Promise<{ client: Client; store: MemorySessionStore }> {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const app = make() as express5.Express
    if (typeof app.set === 'function') app.set('env', 'test')
    app.use(session({ secret: SECRET, store, ...options }))
    const acts: Record<string, (req: { session: unknown }) => void> = {
      '/null': (req) => (req.session = null),
      '/object': (req) => (req.session = {}),
      '/undefined': (req) => (req.session = undefined),
      '/deleted': (req) => delete req.session,
    }
    app.use((req, res) => {
      const act = acts[req.url]
      if (req.url === '/fill') req.session.set('user', 'ann')
      if (act) act(req as { session: unknown })
      res.end(act ? 'done' : JSON.stringify(req.session))
    })
    server = await listen(app)
    const client = new Client(server)
    await client.get('/fill')
    return { client, store }
  }

  test.each(['before-response', 'after-response'] as const)('null ends the session (commit: %s)', async (commit) => {
    const { client, store } = await start({ commit })
    const copy = client.clone()
    const [id = ''] = (client.cookies.get('sid') ?? '').split('.')
    const answer = await client.get('/null')
    expect(answer).toMatchObject({ status: 200, body: 'done', setCookies: [expect.stringContaining('Max-Age=0')] })
    expect(await endOf(store, id)).toMatchObject({ reason: 'logout' })
    expect((await copy.get('/read')).body).toBe('{}')
  })

  test.each(['/object', '/undefined', '/deleted'])('%s is an error, and the session stays as it was', async (path) => {
    const { client } = await start()
    const answer = await client.get(path)
    expect(answer).toMatchObject({ status: 500, setCookies: [] })
    expect(answer.body).not.toBe('done')
    expect((await client.get('/read')).body).toBe('{"user":"ann"}')
  })
})
