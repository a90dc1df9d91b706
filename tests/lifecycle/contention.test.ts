// Many who change one thing at once: each counts, and what that costs grows with their number and no faster.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { Turns } from '../../src/lifecycle/turns.js'
import { Client } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { closeRigs, MemoryGround, RedisGround, Rig } from '../support/rig.js'

const ground = new RedisGround()
beforeAll(() => ground.start())
afterAll(() => ground.stop())
afterEach(async () => {
  await closeRigs()
  await ground.reset()
})

/** Two processes that share nothing but Redis, and a client of each with the same session. */
async function twoProcesses(): Promise<[[Rig, Rig], (n: number) => [Rig, ReturnType<Rig['stranger']>]]> {
  const rigs: [Rig, Rig] = [await Rig.start(ground), await Rig.start(ground)]
  await rigs[0].ask((session) => session.set('n', 0))
  const clients = rigs.map((rig) => rig.stranger(rigs[0].client.cookies))
  return [rigs, (n) => [rigs[n % 2] as Rig, clients[n % 2] as ReturnType<Rig['stranger']>]]
}

/** How many scripts Redis has run. */
async function scriptsDuring(task: () => Promise<unknown>): Promise<number> {
  await ground.raw.config('RESETSTAT')
  await task()
  const stats = await ground.raw.info('commandstats')
  return [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0)
}

test.each([50, 500])(
  '%d update() of one field at once, on two processes, are exact, for four scripts each at most',
  async (count) => {
    const [rigs, of] = await twoProcesses()
    const scripts = await scriptsDuring(() =>
      Promise.all(
        Array.from({ length: count }, (_unused, n) => {
          const [rig, client] = of(n)
          return rig.ask((session) => session.update('n', (value) => Number(value) + 1), client)
        }),
      ),
    )
    expect(await rigs[0].ask((session) => session.get('n'))).toBe(count)
    expect(scripts).toBeLessThanOrEqual(4 * count)
  },
)

describe('processes of the operating system', () => {
  let programs: Program[]
  beforeAll(async () => {
    const options = JSON.stringify({ storeTimeout: '10s' })
    const start = (): Promise<Program> =>
      startProgram('tests/support/app-process.ts', [ground.server.url, 'two:', options])
    programs = await Promise.all([start(), start()])
  }, 60_000)
  afterAll(async () => {
    await Promise.all(programs.map((program) => program.stop()))
  })

  test('500 update() of one field at once, in two of them, are exact, for four scripts each at most', async () => {
    const count = 500
    const first = new Client((programs[0] as Program).url)
    await first.post('/set?other=1')
    const values: number[] = []
    const scripts = await scriptsDuring(async () => {
      const answers = await Promise.all(
        Array.from({ length: count }, (_unused, n) =>
          new Client((programs[n % 2] as Program).url, first.cookies).post('/update'),
        ),
      )
      for (const answer of answers) values.push(answer.json<number>())
    })
    expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_unused, n) => n + 1))
    expect((await first.get('/peek')).json()).toMatchObject({ fields: { n: count, other: '1' } })
    expect(scripts).toBeLessThanOrEqual(4 * count)
  })
})

test('100 restart() at once, on two processes, all begin anew, for four scripts each at most', async () => {
  const [, of] = await twoProcesses()
  const boundaries: string[] = []
  for (const n of [0, 1]) of(n)[0].manager.events.on('boundary', ({ from, to }) => boundaries.push(`${from} ${to}`))
  const scripts = await scriptsDuring(() =>
    Promise.all(
      Array.from({ length: 100 }, (_unused, n) => {
        const [rig, client] = of(n)
        return rig.ask((session) => session.restart(), client)
      }),
    ),
  )
  // Each leaves what another has begun: a chain without a fork.
  const left = boundaries.map((each) => each.split(' ')[0])
  expect(new Set(left).size).toBe(left.length)
  expect(scripts).toBeLessThanOrEqual(400)
})

describe('turns', () => {
  const after = (text: string): { value: string; left: { text: string } } => ({ value: text, left: { text } })

  test('come one after the other, in the order of the calls, each with what the last one left', async () => {
    const turns = new Turns(10_000)
    const seen: (string | undefined)[] = []
    const names = ['a', 'b', 'c']
    const values = await Promise.all(
      names.map((name) =>
        turns.run('key', async (left) => {
          seen.push(left?.text)
          await new Promise(setImmediate)
          return after(name)
        }),
      ),
    )
    expect([values, seen]).toEqual([names, [undefined, 'a', 'b']])
    expect(await turns.run('key', async (left) => ({ value: left, left: undefined }))).toBeUndefined()
  })

  test('one that fails gives its turn to the next, and leaves nothing', async () => {
    const turns = new Turns(10_000)
    const failing = turns.run('key', async () => {
      throw new Error('failed')
    })
    const next = turns.run('key', async (left) => ({ value: left, left: undefined }))
    await expect(failing).rejects.toThrow('failed')
    expect(await next).toBeUndefined()
  })

  test('one that takes too long holds up nobody for ever, and ends when it does', async () => {
    const turns = new Turns(1)
    let finish = (): void => {}
    const slow = turns.run('key', async () => {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      return after('slow')
    })
    expect(await turns.run('key', async () => after('second'))).toBe('second')
    finish()
    expect(await slow).toBe('slow')
    expect(await turns.run('key', async (left) => ({ value: left, left: undefined }))).toBeUndefined()
  })

  test('keys have nothing to do with each other', async () => {
    const turns = new Turns(10_000)
    const order: string[] = []
    const run = (key: string, waits: number): Promise<string> =>
      turns.run(key, async () => {
        for (let turn = 0; turn < waits; turn++) await new Promise(setImmediate)
        order.push(key)
        return after(key)
      })
    await Promise.all([run('a', 5), run('b', 0)])
    expect(order).toEqual(['b', 'a'])
  })
})

test('who waits for a turn fails with the one before, when the store fails that', async () => {
  const rig = await Rig.start(new MemoryGround(), { storeTimeout: '200ms' })
  await rig.ask((session) => session.set('n', 0))
  const before = rig.store.calls.update
  rig.store.fail({ kind: 'hang', operations: ['update'] })
  const asked = Array.from({ length: 20 }, () =>
    rig.ask((session) => session.update('n', (n) => Number(n) + 1), rig.client.clone()),
  )
  const results = await Promise.allSettled(asked)
  const codes = results.map((result) => result.status === 'rejected' && (result.reason as { code?: string }).code)
  expect(codes).toEqual(results.map(() => 'STORE_TIMEOUT'))
  // Not one deadline after the other. A request that comes later begins a line of its own.
  expect(rig.store.calls.update - before).toBeLessThan(5)
})
