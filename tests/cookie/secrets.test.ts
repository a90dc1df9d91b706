// Secrets that change while the process runs: nobody is logged out, and what is no good does not count.
import { afterEach, expect, jest, test } from '@jest/globals'
import express from 'express'
import { type Secret, type SessionEvent, type SessionMiddleware, session } from 'sojourn'
import { csrf } from 'sojourn/csrf'
import { Client, listen, OTHER_SECRET, SECRET, type TestServer, until } from '../support/http.js'

const THIRD = 'zP4kV9sB2mX7cQ1wE6rT0yU5iO8aD3fG'
const open: TestServer[] = []
afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all(open.splice(0).map((server) => server.close()))
})

interface Site {
  readonly client: Client
  readonly stranger: () => Client
  readonly middleware: SessionMiddleware
  readonly changed: SessionEvent<'secretsChanged'>[]
  readonly refused: SessionEvent<'secretsRefused'>[]
}

async function site(secret: Secret): Promise<Site> {
  const middleware = session({ secret })
  const changed: SessionEvent<'secretsChanged'>[] = []
  const refused: SessionEvent<'secretsRefused'>[] = []
  middleware.events.on('secretsChanged', (event) => void changed.push(event))
  middleware.events.on('secretsRefused', (event) => void refused.push(event))
  const app = express()
  app.use(middleware, csrf())
  app.get('/token', (req, res) => void res.send(req.csrfToken()))
  app.post('/login', async (req, res) => {
    await req.session.login('ann')
    res.json({})
  })
  app.post('/add', async (req, res) => {
    res.json(await req.session.update('n', (n = 0) => Number(n) + 1))
  })
  app.get('/', (req, res) => void res.json({ userId: req.session.metadata.userId ?? null }))
  const server = await listen(app)
  open.push(server)
  return { client: new Client(server), stranger: () => new Client(server), middleware, changed, refused }
}

const who = async (client: Client): Promise<unknown> => (await client.get('/')).json()['userId']
const signature = (client: Client): string | undefined => client.cookies.get('sid')?.split('.')[2]

test('a list that is changed in place counts from the next request on; cookies are reissued under the first', async () => {
  const secrets = [SECRET]
  const { client, stranger, changed } = await site(secrets)
  await client.post('/login')
  const before = signature(client)
  const idle = client.clone()
  expect(await who(client)).toBe('ann')

  secrets.unshift(OTHER_SECRET)
  expect(await who(client)).toBe('ann')
  expect(signature(client)).not.toBe(before)
  expect(changed).toMatchObject([{ count: 2, isNewest: true }])
  // The old cookie is good for as long as its secret is in the list.
  expect(await who(idle.clone())).toBe('ann')
  secrets.pop()
  expect(await who(client)).toBe('ann')
  expect(await who(idle)).toBeNull()
  expect(changed).toMatchObject([{ count: 2 }, { count: 1, isNewest: false }])
  const next = stranger()
  await next.post('/login')
  expect(await who(next)).toBe('ann')
})

test('a secret is taken in last by all processes, and then signs: nobody is logged out in between', async () => {
  const lists = [[SECRET], [SECRET]] as [string[], string[]]
  const one = await site(lists[0])
  const other = session({ secret: lists[1], store: one.middleware.store })
  const app = express()
  app.use(other)
  app.get('/', (req, res) => void res.json({ userId: req.session.metadata.userId ?? null }))
  const server = await listen(app)
  open.push(server)
  await one.client.post('/login')
  const onOther = async (): Promise<unknown> => who(new Client(server, one.client.cookies))
  for (const step of [0, 1] as const) {
    lists[step].push(OTHER_SECRET)
    expect([await who(one.client), await onOther()]).toEqual(['ann', 'ann'])
  }
  for (const step of [0, 1] as const) {
    lists[step].reverse()
    expect([await who(one.client), await onOther()]).toEqual(['ann', 'ann'])
  }
  for (const step of [0, 1] as const) {
    lists[step].pop()
    expect([await who(one.client), await onOther()]).toEqual(['ann', 'ann'])
  }
})

test('a function is asked once a second at most, when a request comes', async () => {
  let now = performance.now()
  jest.spyOn(performance, 'now').mockImplementation(() => now)
  let secrets: string | string[] = SECRET
  const ask = jest.fn(() => secrets)
  const { client, changed } = await site(ask)
  await client.post('/login')
  expect(ask).toHaveBeenCalledTimes(1)
  secrets = [OTHER_SECRET, SECRET]
  const before = signature(client)
  expect([await who(client), signature(client)]).toEqual(['ann', before])
  now += 1_000
  expect(await who(client)).toBe('ann')
  expect(signature(client)).not.toBe(before)
  expect(await who(client)).toBe('ann')
  expect(ask).toHaveBeenCalledTimes(2)
  expect(changed).toMatchObject([{ count: 2, isNewest: true }])
})

test('what is no good does not count: those of before go on, and it is told once', async () => {
  const secrets: unknown[] = [SECRET]
  const { client, refused, changed } = await site(secrets as string[])
  await client.post('/login')
  for (const [wrong, message] of [
    [['short'], /secret 0 is 5 characters/],
    [[SECRET, 'keyboard cat keyboard cat keyboard cat'], /secret 1 is well known/],
    [[5], /secret 0 is of type number/],
    [[], /not text or a list of texts/],
  ] as const) {
    refused.length = 0
    secrets.splice(0, secrets.length, ...wrong)
    expect([await who(client), await who(client)]).toEqual(['ann', 'ann'])
    expect(refused.map(({ error }) => error.message)).toEqual([expect.stringMatching(message)])
    for (const text of wrong) if (typeof text === 'string') expect(refused[0]?.error.message).not.toContain(text)
  }
  expect(changed).toEqual([])
  secrets.splice(0, secrets.length, OTHER_SECRET, SECRET)
  expect(await who(client)).toBe('ann')
  expect(changed).toMatchObject([{ count: 2 }])
})

test('a function that fails, or gives a promise, leaves those of before; at the start both are errors', async () => {
  let now = performance.now()
  jest.spyOn(performance, 'now').mockImplementation(() => now)
  let answer: () => unknown = () => SECRET
  const { client, refused } = await site(() => answer() as string)
  await client.post('/login')
  const failing: (() => unknown)[] = [
    () => {
      throw new Error(`the KMS said ${SECRET}`)
    },
    () => Promise.resolve(SECRET),
  ]
  for (const next of failing) {
    answer = next
    now += 1_000
    expect(await who(client)).toBe('ann')
  }
  expect(refused.map(({ error }) => error.message)).toEqual([
    expect.stringMatching(/function that gives the secrets failed/),
    expect.stringMatching(/a promise, and nobody waits for it/),
  ])
  expect(JSON.stringify(refused)).not.toContain(SECRET)
  expect(() => session({ secret: () => Promise.resolve(SECRET) as never })).toThrow(/a promise/)
  // One that fails is not an unhandled rejection beside that.
  const rejecting = async (): Promise<never> => {
    throw new Error('failed')
  }
  expect(() => session({ secret: rejecting as never })).toThrow(/a promise/)
  await new Promise((resolve) => setImmediate(resolve))
  expect(() => session({ secret: () => 'short' })).toThrow(/secret 0 is 5 characters/)
  expect(() => session({ secret: () => [] })).toThrow(/not text or a list of texts/)
})

test('under load nobody is logged out, nothing is lost, and forms go on', async () => {
  const secrets = [OTHER_SECRET, SECRET]
  const { client, stranger, changed } = await site(secrets)
  const clients = [client, ...Array.from({ length: 7 }, () => stranger())]
  await Promise.all(clients.map((each) => each.post('/login')))
  const counts = clients.map(() => 0)
  let isOver = false
  const counting = clients.map(async (each, index) => {
    while (!isOver) {
      const token = (await each.get('/token')).body
      const answer = await each.request('POST', '/add', { headers: { 'x-csrf-token': token } })
      counts[index] = (counts[index] as number) + 1
      expect([answer.status, answer.body]).toEqual([200, String(counts[index])])
    }
  })
  const ring = [THIRD, SECRET, OTHER_SECRET]
  const rotating = (async () => {
    for (let turn = 0; turn < 6; turn++) {
      // The newest comes in front; the one that goes has signed nothing that a client still shows.
      secrets.splice(0, secrets.length, ring[turn % 3] as string, ring[(turn + 2) % 3] as string)
      const before = [...counts]
      await until(() => counts.every((count, index) => count >= (before[index] as number) + 2), 60_000)
    }
  })().finally(() => {
    isOver = true
  })
  await Promise.all([rotating, ...counting])
  expect(await Promise.all(clients.map(who))).toEqual(clients.map(() => 'ann'))
  expect(changed.length).toBe(6)
}, 90_000)
