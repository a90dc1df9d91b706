// The first thing that a reader of the README tries, with the client that most Express users test with.
import { describe, expect, test } from '@jest/globals'
import express from 'express'
import session from 'sojourn'
import request from 'supertest'
import { SECRET } from '../support/http.js'

function counter(): express.Express {
  const app = express()
  app.use(session({ secret: SECRET }))
  app.get('/', (req, res) => {
    const views = (req.session.get('views', 0) as number) + 1
    req.session.set('views', views)
    res.send(`You were here ${views} times.`)
  })
  return app
}

describe('the ten-line start', () => {
  test('counts the visits of each browser', async () => {
    const app = counter()
    const first = request.agent(app)
    const second = request.agent(app)
    await first.get('/').expect(200, 'You were here 1 times.')
    await first.get('/').expect(200, 'You were here 2 times.')
    await second.get('/').expect(200, 'You were here 1 times.')
    await first.get('/').expect(200, 'You were here 3 times.')
  })

  test('sets the cookie once', async () => {
    const agent = request.agent(counter())
    await agent.get('/').expect('set-cookie', /^sid=.+; Path=\/; HttpOnly; Priority=High; SameSite=Lax$/)
    const { headers } = await agent.get('/')
    expect(headers).not.toHaveProperty('set-cookie')
  })
})
