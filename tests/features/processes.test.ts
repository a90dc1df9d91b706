// State and recovery across processes of the system: what is counted, and what is given once, while one of them is killed.
import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { Client } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { RedisServer } from '../support/redis.js'

let redis: RedisServer
let programs: Program[] = []
beforeAll(async () => {
  redis = await RedisServer.start()
  programs = await Promise.all(
    Array.from({ length: 3 }, () => startProgram('tests/support/state-process.ts', [redis.url])),
  )
}, 60_000)
afterAll(async () => {
  await Promise.all(programs.map((program) => program.stop()))
  await redis.stop()
})

/** The client of a session, at another process. */
function at(program: Program | undefined, client?: Client): Client {
  return new Client((program as Program).url, client?.cookies)
}

async function said(client: Client, path: string): Promise<unknown> {
  const { status, body } = await client.get(path)
  expect(status).toBe(200)
  return JSON.parse(body)
}

test('a recovery point is redeemed once, of 30 requests to three processes', async () => {
  const client = at(programs[0])
  await said(client, '/count')
  const token = (await said(client, '/save')) as string
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, n) => said(at(programs[n % 3]), `/recover/${encodeURIComponent(token)}`)),
  )
  expect(answers.filter((status) => status === 'recovered')).toHaveLength(1)
  expect(answers.filter((status) => status === 'refused')).toHaveLength(29)
}, 60_000)

test('changes in three processes get a version each, and what was acknowledged is there when one of them is killed', async () => {
  const client = at(programs[0])
  await said(client, '/count')
  const acknowledged: number[] = []
  let asked = 1
  const count = async (program: Program | undefined, times: number): Promise<void> => {
    for (let n = 0; n < times; n++) {
      asked++
      const answer = await at(program, client)
        .get('/count')
        .catch(() => undefined)
      if (answer?.status === 200) acknowledged.push(Number(answer.body))
    }
  }
  const killed = programs[2] as Program
  const isOver = once(killed.process, 'exit')
  const dying = count(killed, 5).then(() => {
    const last = count(killed, 5)
    killed.process.kill('SIGKILL')
    return last
  })
  await Promise.all([count(programs[0], 15), count(programs[1], 15), dying])
  await isOver

  expect(new Set(acknowledged).size).toBe(acknowledged.length)
  expect(acknowledged.length).toBeGreaterThanOrEqual(20)
  const { n, versions } = (await said(at(programs[1], client), '/state')) as { n: number; versions: number[] }
  expect(versions).toEqual(Array.from({ length: n }, (_, index) => n - index))
  expect(versions).toEqual(expect.arrayContaining(acknowledged))
  // One that was under way when its process died may have been stored; none was twice.
  expect(n).toBeLessThanOrEqual(asked)
}, 60_000)
