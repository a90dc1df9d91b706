// A handler that dies of an error of ours where nobody looks at its promise.
import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test } from '@jest/globals'
import { MemorySessionStore, session } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { listen, SECRET, send } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'

async function withProgram(listens: string[], task: (program: Program) => Promise<void>): Promise<void> {
  const program = await startProgram('tests/support/abandoned-process.ts', listens)
  try {
    await task(program)
  } finally {
    await program.stop()
  }
}

test.each(['unhandledRejection', 'uncaughtException'])(
  'is answered with 503 where the application lives on by a listener for %s',
  async (name) => {
    await withProgram([name], async ({ url, output }) => {
      const answer = await send(`${url}/login`)
      expect([answer.status, answer.headers['retry-after'], answer.setCookies]).toEqual([503, '1', []])
      // The application hears of it as before.
      expect(output()).toContain(`heard ${name}: `)
      // One that only takes its time is left alone.
      expect(await send(`${url}/slow`)).toMatchObject({ status: 200, body: 'in the end' })
      // And no listener of ours is left.
      const count = name === 'unhandledRejection' ? 1 : 0
      expect((await send(`${url}/fine`)).body).toBe(`fine, ${count} and 0`)
    })
  },
)

test('ends the process where it would without us', async () => {
  await withProgram([], async ({ url, process }) => {
    const exit = once(process, 'exit')
    await expect(send(`${url}/login`)).rejects.toThrow()
    expect(await exit).toEqual([1, null])
  })
})

test('of a client that has gone nothing is kept', async () => {
  const store = new FaultyStore(new MemorySessionStore())
  const middleware = session({ secret: SECRET, store })
  let tellFailed = (): void => {}
  const failed = new Promise<void>((resolve) => {
    tellFailed = resolve
  })
  const server = await listen((req, res) =>
    middleware(req, res, () => {
      res.on('close', () => {
        store.fail({ kind: 'error', operations: ['create'], times: 1 })
        req.session.set('step', 1)
        req.session.save().catch(tellFailed)
      })
      socket.destroy()
    }),
  )
  const before = process.listenerCount('uncaughtExceptionMonitor')
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n')
  await failed
  const after = process.listenerCount('uncaughtExceptionMonitor')
  await server.close()
  expect(after).toBe(before)
})
