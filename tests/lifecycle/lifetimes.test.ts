// How long a session lives when its requests choose something, or begin it afresh.
import { afterEach, describe, expect, test } from '@jest/globals'
import { closeApps, serve } from '../support/small-app.js'

afterEach(closeApps)

const MINUTE = 60_000

describe("commit: 'after-response'", () => {
  test('a persistent cookie moves with the session, also with one that was chosen in the request', async () => {
    const { client, clock } = await serve(
      (req, res) => {
        if (req.query['days']) req.session.cookie.maxAge = Number(req.query['days']) * 86_400_000
        res.end()
      },
      { commit: 'after-response', cookie: { persistent: true }, idleTimeout: '30m', absoluteTimeout: '2d' },
    )
    const first = await client.get('/fill')
    expect(first.setCookies[0]).toMatch(/Max-Age=1800/)
    for (let request = 0; request < 4; request++) {
      clock.advance(20 * MINUTE)
      expect((await client.get('/')).setCookies[0]).toMatch(/Max-Age=1800/)
    }
    expect((await client.get('/')).setCookies).toEqual([])
    // Two days from now would be beyond the absolute timeout: two days from the creation of the session, 80 minutes ago.
    expect((await client.get('/?days=2')).setCookies[0]).toMatch(/Max-Age=168000/)
  })
})

describe('the absolute timeout', () => {
  test('is not pushed on by a maxAge that is set in every request', async () => {
    const { client, clock } = await serve(
      (req, res) => {
        req.session.cookie.maxAge = 30 * MINUTE
        res.json(req.session)
      },
      { absoluteTimeout: '2h' },
    )
    await client.get('/fill')
    for (let elapsed = 0; elapsed < 110; elapsed += 10) {
      clock.advance(10 * MINUTE)
      expect((await client.get('/')).json()).toEqual({ filled: true })
    }
    clock.advance(10 * MINUTE)
    expect((await client.get('/')).json()).toEqual({})
  })

  test('starts afresh with the empty session that regenerate() begins', async () => {
    const { client, clock } = await serve(
      async (req, res) => {
        await req.session.regenerate()
        req.session.set('again', true)
        res.end()
      },
      { absoluteTimeout: '1h', idleTimeout: '1h' },
    )
    await client.get('/fill')
    clock.advance(50 * MINUTE)
    await client.get('/')
    clock.advance(50 * MINUTE)
    expect((await client.get('/peek')).json()).toEqual({ again: true })
  })
})
