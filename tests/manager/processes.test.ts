// The sessions of a user in two processes at once: the limit holds, and an ending holds at once.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { SessionManager } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { Client, SECRET } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { idOf, RedisGround } from '../support/rig.js'

describe('two processes on one Redis', () => {
  const LIMIT = 3
  const ground = new RedisGround()
  const programs: Record<'end-oldest' | 'refuse', Program[]> = { 'end-oldest': [], refuse: [] }

  beforeAll(async () => {
    await ground.start()
    const start = (onSessionLimit: 'end-oldest' | 'refuse'): Promise<Program> => {
      const options = JSON.stringify({ maxSessionsPerUser: LIMIT, onSessionLimit, storeTimeout: '10s' })
      return startProgram('tests/support/app-process.ts', [ground.server.url, `${onSessionLimit}:`, options])
    }
    const policies = ['end-oldest', 'end-oldest', 'refuse', 'refuse'] as const
    const started = await Promise.all(policies.map(start))
    for (const [index, policy] of policies.entries()) programs[policy].push(started[index] as Program)
  }, 60_000)
  afterAll(async () => {
    await Promise.all([...programs['end-oldest'], ...programs.refuse].map((program) => program.stop()))
    await ground.stop()
  })

  /** A client of one of the two processes in turn. */
  const client = (policy: 'end-oldest' | 'refuse', index: number, of?: Client): Client =>
    new Client((programs[policy][index % 2] as Program).url, of?.cookies)

  const told = async (policy: 'end-oldest' | 'refuse'): Promise<{ ended: number; refused: number }> => {
    const answers = await Promise.all([0, 1].map((index) => client(policy, index).get('/stats')))
    const stats = answers.map((answer) => answer.json<{ ended: number; refused: number }>())
    return {
      ended: stats.reduce((sum, { ended }) => sum + ended, 0),
      refused: stats.reduce((sum, { refused }) => sum + refused, 0),
    }
  }

  test.each(['end-oldest', 'refuse'] as const)(
    '20 logins at the same instant leave exactly the limit, with %s',
    async (policy) => {
      const store = new RedisSessionStore({ url: ground.server.url, prefix: `${policy}:` })
      const manager = new SessionManager({ secret: SECRET, store })
      for (const user of ['ann', 'bob', 'cem', 'dot']) {
        const before = await told(policy)
        const clients = Array.from({ length: 20 }, (_, index) => client(policy, index))
        const answers = await Promise.all(clients.map((each) => each.post(`/login?user=${user}`)))
        const statuses = answers.map(({ status }) => status)
        const who = await Promise.all(clients.map(async (each) => (await each.get('/peek')).json()['userId']))
        const live = clients.filter((_, index) => who[index] === user)
        expect(live).toHaveLength(LIMIT)
        expect((await manager.sessionsOf(user)).map(({ id }) => id).sort()).toEqual(live.map(idOf).sort())
        expect(await manager.count()).toBe(LIMIT)
        for (const [index, status] of statuses.entries()) if (who[index] === user) expect(status).toBe(200)
        const after = await told(policy)
        if (policy === 'refuse') {
          expect(statuses.sort((a, b) => a - b)).toEqual([...Array(LIMIT).fill(200), ...Array(17).fill(409)])
          expect(after).toEqual({ ended: before.ended, refused: before.refused + 17 })
        } else {
          // Who was answered and pushed out later was told of; who was pushed out before had no session yet.
          expect(new Set(statuses)).toEqual(
            new Set([...new Set(statuses)].filter((status) => [200, 409].includes(status))),
          )
          const pushedOut = statuses.filter((status, index) => status === 200 && who[index] !== user).length
          expect(after.ended - before.ended).toBeGreaterThanOrEqual(pushedOut)
          expect(after.ended - before.ended).toBeLessThanOrEqual(17)
          expect(after.refused).toBe(0)
        }

        // Two of them log in again, each in the other process.
        const again = live.slice(0, 2).map((each, index) => client(policy, index, each))
        const repeated = await Promise.all(again.map((each) => each.post(`/login?user=${user}`)))
        expect(repeated.map(({ status }) => status)).toEqual([200, 200])
        expect((await manager.sessionsOf(user)).map(({ id }) => id).sort()).toEqual(
          [...again, live[2] as Client].map(idOf).sort(),
        )
        expect(await told(policy)).toEqual(after)
        expect(await manager.revokeUser(user)).toBe(LIMIT)
      }
      await manager.close()
    },
  )

  test('a session that one process revokes is refused by the other at once', async () => {
    const store = new RedisSessionStore({ url: ground.server.url, prefix: 'refuse:' })
    const manager = new SessionManager({ secret: SECRET, store })
    const clients = [client('refuse', 0), client('refuse', 1)]
    for (const each of clients) expect((await each.post('/login?user=eve')).status).toBe(200)
    expect(await manager.revokeUser('eve')).toBe(2)
    for (const [index, each] of clients.entries()) {
      for (const process of [index, index + 1]) {
        expect((await client('refuse', process, each).get('/peek')).json()['userId']).toBeNull()
      }
    }
    const again = client('refuse', 0)
    await again.post('/login?user=eve')
    expect((await client('refuse', 1, again).get('/peek')).json()['userId']).toBe('eve')
    await manager.revokeAll()
    for (const process of [0, 1]) {
      expect((await client('refuse', process, again).get('/peek')).json()['userId']).toBeNull()
    }
    await manager.close()
  })
})
