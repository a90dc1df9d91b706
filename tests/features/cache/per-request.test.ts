// One load in a request, whoever asks for it: in every place that a request reaches, and never across two of them.
import { once } from 'node:events'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { Readable } from 'node:stream'
import { afterEach, describe, expect, test } from '@jest/globals'
import express, { type Request, type Response } from 'express'
import { getSession, type SessionOptions, session, withSession } from 'sojourn'
import { perRequest, requestContext } from 'sojourn/cache'
import { Client, listen, SECRET, type TestServer } from '../../support/http.js'

const running: TestServer[] = []
afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})

async function serve(
  handler: (req: Request, res: Response) => unknown,
  options: Partial<SessionOptions> | null = {},
): Promise<Client> {
  const app = express()
  app.set('env', 'test')
  app.use(options === null ? requestContext : session({ secret: SECRET, ...options }))
  app.use(async (req, res, next) => {
    try {
      const body = await handler(req, res)
      if (!res.writableEnded && body !== undefined) res.json(body)
    } catch (error) {
      next(error)
    }
  })
  const server = await listen(app)
  running.push(server)
  return new Client(server)
}

/** A loader that counts, and gives its number and what it was asked for. */
function counting(): { load: (...args: unknown[]) => Promise<string>; loads: () => number } {
  let count = 0
  return {
    load: async (...args) => {
      const number = ++count
      await Promise.resolve()
      return `load ${number} of ${args.filter((arg) => typeof arg !== 'object').join()}`
    },
    loads: () => count,
  }
}

describe('in a request', () => {
  test.each([
    ['without a session', {}],
    ['where no session middleware runs', null],
  ] as const)('ten askers, one after the other and at once, make one load, %s', async (_name, options) => {
    const { load, loads } = counting()
    const info = perRequest(load)
    const client = await serve(async () => {
      const found = new Set<string>()
      for (let asker = 0; asker < 10; asker++) found.add(await info())
      for (const value of await Promise.all(Array.from({ length: 10 }, () => info()))) found.add(value)
      return [...found]
    }, options)
    expect((await client.get('/')).json()).toEqual(['load 1 of '])
    expect(loads()).toBe(1)
    expect((await client.get('/')).json()).toEqual(['load 2 of '])
  })

  test('arguments are keys: by value, objects by identity, or as key says', async () => {
    const { load, loads } = counting()
    const byArguments = perRequest(load)
    const byKey = perRequest(load, { key: (query) => (query as { id: number }).id })
    const shared = { id: 1 }
    const client = await serve(async () => {
      await Promise.all([byArguments('a'), byArguments('a', 'b'), byArguments('a'), byArguments(1), byArguments('1')])
      const texts = loads()
      await Promise.all([byArguments(shared), byArguments(shared), byArguments({ id: 1 })])
      const objects = loads() - texts
      await Promise.all([byKey({ id: 1 }), byKey({ id: 1 }), byKey({ id: 2 })])
      return { texts, objects, keys: loads() - texts - objects }
    })
    expect((await client.get('/')).json()).toEqual({ texts: 4, objects: 2, keys: 2 })
  })

  test('a hundred requests at once never see each other’s values', async () => {
    const path = perRequest(async (req: Request) => {
      await new Promise((resolve) => setImmediate(resolve))
      return req.path
    })
    const later = perRequest(async () => getSession()?.get('path'))
    const client = await serve(async (req) => {
      req.session.set('path', req.path)
      return [await path(req), await path(req), await later(), await later()]
    })
    const paths = Array.from({ length: 100 }, (_, n) => `/of/${n}`)
    const answers = await Promise.all(paths.map((one) => client.clone().get(one)))
    expect(answers.map((answer) => answer.json())).toEqual(paths.map((one) => [one, one, one, one]))
  })

  test('a failed load fails all who share it, and is not kept', async () => {
    let loads = 0
    const info = perRequest(() => {
      loads++
      if (loads === 1) throw new Error('the database is away')
      return Promise.resolve(loads)
    })
    const client = await serve(async () => {
      const shared = await Promise.allSettled([info(), info(), info()])
      return { shared: shared.map(({ status }) => status), next: await info(), again: await info() }
    })
    expect((await client.get('/')).json()).toEqual({
      shared: ['rejected', 'rejected', 'rejected'],
      next: 2,
      again: 2,
    })
  })

  test('clear() forgets all or one, prime() sets one, and a load under way does not come back after clear()', async () => {
    const { load } = counting()
    const info = perRequest(load)
    const client = await serve(async () => {
      await info('a')
      await info('b')
      info.clear('a')
      const afterOne = [await info('a'), await info('b')]
      const underWay = info('c')
      info.clear()
      const afterAll = [await info('c'), await underWay]
      info.prime('primed', 'd')
      return { afterOne, afterAll, kept: await info('c'), primed: await info('d') }
    })
    expect((await client.get('/')).json()).toEqual({
      afterOne: ['load 3 of a', 'load 2 of b'],
      afterAll: ['load 5 of c', 'load 4 of c'],
      kept: 'load 5 of c',
      primed: 'primed',
    })
  })

  test('with or without the request, also behind withSession(), it is the same load', async () => {
    const { load, loads } = counting()
    const info = perRequest(load)
    const client = await serve(async (req) => {
      await Promise.all([info(), info(req), info.for(req)(), withSession(req, () => info())])
      await req.session.regenerate()
      await info()
      return loads()
    })
    expect((await client.get('/')).json()).toBe(1)
  })

  test('with context: false, the request is passed, or bound', async () => {
    const { load, loads } = counting()
    const info = perRequest(load)
    const client = await serve(
      async (req) => {
        const found = [await info(req, 'a'), await info(req, 'a'), await info.for(req)('a')]
        const alone = await info('a')
        info.for(req).clear('a')
        return [...found, alone, await info(req, 'a')]
      },
      { context: false },
    )
    expect((await client.get('/')).json()).toEqual([
      'load 1 of a',
      'load 1 of a',
      'load 1 of a',
      'load 2 of a',
      'load 3 of a',
    ])
    expect(loads()).toBe(3)
  })

  test('it is the same in a stream, and after the response', async () => {
    const { load, loads } = counting()
    const info = perRequest(load)
    let after: Promise<string> | undefined
    const client = await serve(async (_req, res) => {
      await info()
      res.once('close', () => {
        after = info()
      })
      Readable.from(
        (async function* () {
          yield await info()
          await new Promise((resolve) => setImmediate(resolve))
          yield ` and ${await info()}`
        })(),
      ).pipe(res)
    })
    expect((await client.get('/')).body).toBe('load 1 of  and load 1 of ')
    for (const server of running.splice(0)) await server.close()
    expect(await after).toBe('load 1 of ')
    expect(loads()).toBe(1)
  })

  test('HTTP/2 is no other', async () => {
    const { load, loads } = counting()
    const info = perRequest(load)
    const server = createHttp2Server((req, res) => {
      requestContext(req, res, () => {
        info().then(
          async () => res.end(await info(req)),
          () => res.end('failed'),
        )
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const peer = connectHttp2(`http://127.0.0.1:${(server.address() as { port: number }).port}`)
    const chunks: Buffer[] = []
    for await (const chunk of peer.request({ ':path': '/' })) chunks.push(chunk as Buffer)
    peer.close()
    server.close()
    expect([Buffer.concat(chunks).toString(), loads()]).toEqual(['load 1 of ', 1])
  })
})

test('outside of a request the loader is called each time, and clear() and prime() do nothing', async () => {
  const { load } = counting()
  const info = perRequest(load)
  info.prime('primed')
  info.clear()
  expect([await info(), await info()]).toEqual(['load 1 of ', 'load 2 of '])
})

test('what was loaded goes with its request', async () => {
  const { setFlagsFromString } = await import('node:v8')
  const { runInNewContext } = await import('node:vm')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const info = perRequest(async (_req: object) => ({}))
  const ask = async (): Promise<WeakRef<object>> => {
    const { IncomingMessage } = await import('node:http')
    const { Socket } = await import('node:net')
    return new WeakRef(await info(new IncomingMessage(new Socket())))
  }
  const ref = await ask()
  for (let turn = 0; turn < 20 && ref.deref() !== undefined; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
    collect()
  }
  expect(ref.deref()).toBeUndefined()
})

test('what is no loader, no key and no request is refused', () => {
  expect(() => perRequest(5 as never)).toThrow('perRequest() needs the function that loads.')
  expect(() => perRequest(async () => 1, { key: 'id' as never })).toThrow('key must be a function')
  expect(() => perRequest(async () => 1).for(null as never)).toThrow('for() needs a request.')
})
