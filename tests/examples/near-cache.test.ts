// The example of the near cache: two processes, one of which hears what the other does.
import { afterAll, expect, test } from '@jest/globals'
import { Client, SECRET, until } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { sharedRedis } from '../support/redis.js'

const started: Program[] = []
let redis: Awaited<ReturnType<typeof sharedRedis>> | undefined
afterAll(async () => {
  await Promise.all(started.map((program) => program.stop()))
  await redis?.stop()
})

interface Page {
  user: string
  memory: { hits: number; misses: number }
}

test('near-cache: reads are answered from memory, and a logout at the other process is heard', async () => {
  redis = await sharedRedis()
  const env = { PORT: '0', REDIS_URL: redis.url, SESSION_SECRET: SECRET }
  const start = (): Promise<Program> => startProgram('examples/near-cache/server.ts', [], env)
  const [first, second] = await Promise.all([start(), start()])
  started.push(first, second)
  const here = new Client(first.url)
  const login = await fetch(`${second.url}/login`, {
    method: 'POST',
    body: new URLSearchParams({ name: 'Ann' }),
    redirect: 'manual',
  })
  const [pair = ''] = login.headers.getSetCookie()[0]?.split(';') ?? []
  here.cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
  const there = new Client(second.url, here.cookies)
  const page = async (): Promise<Page> => (await here.get('/')).json<Page>()
  expect((await page()).user).toBe('Ann')
  await until(async () => (await page()).memory.hits > 2, 20_000)
  expect((await there.post('/logout')).status).toBe(303)
  await until(async () => (await page()).user === 'nobody', 20_000)
}, 60_000)
