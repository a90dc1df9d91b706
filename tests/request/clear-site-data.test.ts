// What the browser keeps of a site goes with the session, when that is wanted.
import { afterEach, describe, expect, test } from '@jest/globals'
import express from 'express'
import { SessionManager, type SessionOptions } from 'sojourn'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'

let server: TestServer
afterEach(() => server.close())

async function site(clearSiteData: SessionOptions['clearSiteData']): Promise<SessionManager> {
  const sessions = new SessionManager({ secret: SECRET, ...(clearSiteData !== undefined && { clearSiteData }) })
  const app = express()
  app.use(sessions.middleware())
  app.get('/login', async (req, res) => {
    await req.session.login('ann')
    res.send('')
  })
  app.get('/logout', async (req, res) => {
    await req.session.logout()
    res.send('')
  })
  app.get('/logout-with-message', async (req, res) => {
    await req.session.logout()
    req.session.set('flash', 'Goodbye.')
    res.send('')
  })
  app.get('/destroy', async (req, res) => {
    await req.session.destroy()
    res.send('')
  })
  app.get('/destroy-and-regenerate', async (req, res) => {
    await req.session.destroy()
    const next = await req.session.regenerate()
    next.set('flash', 'Goodbye.')
    res.send('')
  })
  app.get('/read', (req, res) => {
    res.send(String(req.session.get('flash')))
  })
  server = await listen(app)
  return sessions
}

describe('Clear-Site-Data', () => {
  test.each(['/logout', '/logout-with-message', '/destroy', '/destroy-and-regenerate'])(
    'goes with the response to %s, and with no other',
    async (path) => {
      await site(true)
      const client = new Client(server)
      expect((await client.get('/login')).headers).not.toHaveProperty('clear-site-data')
      expect((await client.get('/read')).headers).not.toHaveProperty('clear-site-data')
      expect((await client.get(path)).headers['clear-site-data']).toBe('"cache", "storage"')
      expect((await client.get('/read')).headers).not.toHaveProperty('clear-site-data')
    },
  )

  test('goes with the response to a cookie that was revoked, until another session begins', async () => {
    const sessions = await site(true)
    const client = new Client(server)
    await client.get('/login')
    await sessions.revokeUser('ann')
    expect((await client.get('/read')).headers['clear-site-data']).toBe('"cache", "storage"')
    await client.get('/login')
    expect((await client.get('/read')).headers).not.toHaveProperty('clear-site-data')
  })

  test('names the types that were chosen', async () => {
    await site(['executionContexts'])
    const client = new Client(server)
    await client.get('/login')
    expect((await client.get('/logout')).headers['clear-site-data']).toBe('"executionContexts"')
  })

  test('is not sent unless it is asked for', async () => {
    await site(undefined)
    const client = new Client(server)
    await client.get('/login')
    expect((await client.get('/logout')).headers).not.toHaveProperty('clear-site-data')
  })
})
