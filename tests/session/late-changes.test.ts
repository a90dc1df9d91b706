// Changes that come late: after the answer, while the commit is under way, from operations that nobody waits for.
import { afterEach, describe, expect, test } from '@jest/globals'
import { until } from '../support/http.js'
import { countCalls } from '../support/records.js'
import { closeApps, serve } from '../support/small-app.js'

afterEach(closeApps)

describe('a change after the answer', () => {
  test('is told, even when the session was not looked at before', async () => {
    const { client, late, store } = await serve((req, res) => {
      res.send('answered')
      req.session.set('a', 1)
    })
    expect((await client.get('/')).body).toBe('answered')
    await until(() => late.length > 0)
    expect(late).toEqual(['after-response'])
    expect(store.calls.create).toBe(0)
  })

  test('is stored all the same while the commit is under way', async () => {
    const { client, late } = await serve((req, res) => {
      req.session.set('a', 1)
      res.send('answered')
      req.session.set('b', 2)
    })
    await client.get('/')
    expect((await client.get('/peek')).json()).toEqual({ a: 1, b: 2 })
    expect(late).toEqual([])
  })
})

describe('a codec that gives other text each time', () => {
  test('costs a few writes, and the response comes', async () => {
    let count = 0
    const codec = {
      encode: (value: unknown) => `${count++} ${JSON.stringify(value)}`,
      decode: (text: string): unknown => JSON.parse(text.slice(text.indexOf(' '))),
    }
    const { client, store } = await serve(
      (req, res) => {
        req.session.set('list', [1])
        res.send('answered')
      },
      { codec },
    )
    expect((await client.get('/')).body).toBe('answered')
    expect(countCalls(store)).toBeLessThan(5)
    expect((await client.get('/peek')).json()).toEqual({ list: [1] })
  })
})

describe('an operation that nobody waits for', () => {
  test.each(['logout', 'regenerate', 'setExpiry'] as const)(
    '%s fails the response and not the process',
    async (name) => {
      const unhandled: unknown[] = []
      const notice = (error: unknown): void => void unhandled.push(error)
      process.on('unhandledRejection', notice)
      const { client, store } = await serve((req, res) => {
        if (name === 'setExpiry') void req.session.setExpiry('1h')
        else void req.session[name]()
        res.send('done')
      })
      await client.get('/fill')
      store.fail({ kind: 'error', operations: ['end', 'regenerate', 'update'] })
      const answer = await client.get('/')
      await new Promise((resolve) => setImmediate(resolve))
      process.off('unhandledRejection', notice)
      expect(answer.status).toBe(503)
      expect(unhandled).toEqual([])
    },
  )
})

describe('update() of a session that is not stored', () => {
  test('after the response is told as late', async () => {
    const { client, late } = await serve((req, res) => {
      res.send('answered')
      setImmediate(() => {
        req.session.update('n', () => 1).catch(() => late.push('refused'))
      })
    })
    await client.get('/')
    await until(() => late.length > 0)
    expect(late).toEqual(['refused'])
  })
})
