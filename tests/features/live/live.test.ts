// Endings that are heard in every process, and what they close there: sockets of two servers on one Redis.
import { once } from 'node:events'
import { get } from 'node:http'
import { PassThrough } from 'node:stream'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { io } from 'socket.io-client'
import { MemorySessionStore, requireSession, type SessionEvent, SessionManager } from 'sojourn'
import { closeOnEnd, isSameOrigin, watchEndings } from 'sojourn/live'
import { RedisSessionStore } from 'sojourn/redis'
import { FaultyStore } from 'sojourn/testing'
import { WebSocket } from 'ws'
import { openSocketsOf } from '../../../src/features/live/watch.js'
import { Client, listen, SECRET, until } from '../../support/http.js'
import { type Program, startProgram } from '../../support/processes.js'
import { RedisServer } from '../../support/redis.js'

type Told = { id: string; reason: string; isRemote: boolean }

describe('two processes on one Redis', () => {
  let redis: RedisServer
  let here: Program
  let there: Program
  beforeAll(async () => {
    redis = await RedisServer.start()
    const start = (): Promise<Program> => startProgram('tests/support/live-process.ts', [redis.url])
    ;[here, there] = await Promise.all([start(), start()])
  }, 60_000)
  afterAll(async () => {
    await Promise.all([here.stop(), there.stop()])
    await redis.stop()
  })

  async function visitor(user?: string): Promise<{ client: Client; id: string }> {
    const client = new Client(here.url)
    let { id } = (await client.get('/')).json<{ id: string }>()
    if (user !== undefined) id = (await client.post(`/login?user=${user}`)).json<{ id: string }>().id
    return { client, id }
  }

  /** A socket of each kind to each of the two; resolves when all are open. */
  async function openSockets(client: Client): Promise<Promise<string>[]> {
    const headers = { cookie: client.cookieHeader as string }
    const sockets = await Promise.all(
      [here, there].flatMap((program) => [
        openWebSocket(program, headers),
        openSocketIo(program, headers),
        openStream(program, headers),
      ]),
    )
    return sockets.map(({ closed }) => closed)
  }

  const ALL_CLOSED = ['ws 1008', 'io server disconnect', 'stream', 'ws 1008', 'io server disconnect', 'stream']

  test.each<[string, (client: Client, id: string) => Promise<unknown>]>([
    ['a logout', (client) => client.post('/logout')],
    ['a revocation by its ID', (_client, id) => new Client(here.url).post(`/revoke?id=${id}`)],
    ['a revocation of its user', () => new Client(there.url).post('/revoke-user?user=bob')],
    ['a revocation of all', () => new Client(there.url).post('/revoke-all')],
  ])('%s closes the sockets of every kind in both', async (_what, end) => {
    const { client, id } = await visitor('bob')
    const closed = await openSockets(client)
    await end(client, id)
    expect(await Promise.all(closed)).toEqual(ALL_CLOSED)
  })

  test('an ending is told once in each process, as remote in the other one', async () => {
    const { client, id } = await visitor('ann')
    const bystander = await visitor('cem')
    const closed = await openSockets(client)
    const others = await openSockets(bystander.client)
    await client.post('/logout')
    await Promise.all(closed)
    const told = async (program: Program): Promise<Told[]> =>
      (await new Client(program.url).get('/heard')).json<Told[]>().filter((event) => event.id === id)
    await until(async () => (await told(there)).length > 0)
    expect(await told(here)).toEqual([{ id, reason: 'logout', isRemote: false }])
    expect(await told(there)).toEqual([{ id, reason: 'logout', isRemote: true }])
    const open = Symbol('open')
    expect(await Promise.race([...others, Promise.resolve(open)])).toBe(open)
    await bystander.client.post('/logout')
    await Promise.all(others)
  })

  test('a login takes the sockets along, and the end of what it made closes them', async () => {
    const { client } = await visitor()
    const closed = await openSockets(client)
    const { id } = (await client.post('/login?user=dot')).json<{ id: string }>()
    await new Client(here.url).post(`/revoke?id=${id}`)
    expect(await Promise.all(closed)).toEqual(ALL_CLOSED)
  })

  test('a timeout closes them, though no request comes', async () => {
    const { client } = await visitor()
    await client.post('/idle?after=1s')
    const closed = await openSockets(client)
    expect(await Promise.all(closed)).toEqual(ALL_CLOSED)
  })

  test('a socket under a session that has ended is closed at once', async () => {
    const { client } = await visitor()
    const cookie = client.cookieHeader as string
    await client.post('/logout')
    const opened = await Promise.all([openWebSocket(there, { cookie }), openStream(there, { cookie })])
    expect(await Promise.all(opened.map(({ closed }) => closed))).toEqual(['ws 1008', 'stream'])
  })

  test('what ended while signals were lost is made up', async () => {
    const { client, id } = await visitor('eve')
    const closed = await openSockets(client)
    const store = new RedisSessionStore({ url: redis.url })
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '10s' })
    // A process that tells nobody, as one that is killed before it does.
    await manager.revoke(id)
    // Both lose the connection on which they listen.
    const admin = new Redis(redis.url)
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    // Long enough for both to notice, and no signal of theirs arrives meanwhile.
    await admin.call('CLIENT', 'PAUSE', '600', 'WRITE')
    admin.disconnect()
    expect(await Promise.all(closed)).toEqual(ALL_CLOSED)
    await store.close()
  })
})

interface OpenSocket {
  readonly closed: Promise<string>
}

async function openWebSocket(program: Program, headers: Record<string, string>): Promise<OpenSocket> {
  const socket = new WebSocket(`${program.url.replace('http', 'ws')}/ws`, { headers })
  const closed = once(socket, 'close').then(([code]) => `ws ${code}`)
  await once(socket, 'message')
  return { closed }
}

async function openSocketIo(program: Program, extraHeaders: Record<string, string>): Promise<OpenSocket> {
  const socket = io(program.url, { transports: ['websocket'], extraHeaders, forceNew: true, reconnection: false })
  const closed = new Promise<string>((resolve) => socket.once('disconnect', resolve))
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('connect_error', reject)
  })
  return { closed: closed.then((reason) => reason) }
}

async function openStream(program: Program, headers: Record<string, string>): Promise<OpenSocket> {
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    get(`${program.url}/events`, { headers, agent: false }, resolve).once('error', reject)
  })
  const closed = new Promise<string>((resolve) => response.once('close', () => resolve('stream')))
  response.on('error', () => {})
  await once(response, 'data')
  response.resume()
  return { closed }
}

describe('in one process', () => {
  const stops: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop()
  })

  async function pair(): Promise<[SessionManager, SessionManager, FaultyStore]> {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const managers = [0, 1].map(() => new SessionManager({ secret: SECRET, store })) as [SessionManager, SessionManager]
    for (const manager of managers) {
      const watch = await watchEndings(manager, { heartbeat: '50ms', onError: () => {} })
      stops.push(() => watch.stop())
    }
    return [...managers, store]
  }

  test('what ends in one turn is told by one signal, whatever its number', async () => {
    const [first, second, store] = await pair()
    const heard: SessionEvent<'ended'>[] = []
    second.events.on('ended', (event) => heard.push(event))
    const sessions = await Promise.all(Array.from({ length: 150 }, () => first.create({ userId: 'ann' })))
    store.calls['signals.send'] = 0
    const sent: number[] = []
    first.events.on('storeCall', ({ operation }) => {
      if (operation === 'signals.send') sent.push(1)
    })
    await Promise.all(sessions.map(({ id }) => first.revoke(id)))
    await until(() => heard.length === 150)
    expect(heard.every(({ isRemote }) => isRemote)).toBe(true)
    expect(new Set(heard.map(({ id }) => id))).toEqual(new Set(sessions.map(({ id }) => id)))
    expect(sent.length).toBeLessThan(50)
  })

  test('an end that could not be told is made up when signals arrive again', async () => {
    const [first, , store] = await pair()
    const { id } = await first.create()
    let closed = false
    openSocketsOf(first.events).add(id, () => {
      closed = true
    })
    store.fail({ kind: 'error', operations: ['signals.send'] })
    await store.end(id, { reason: 'logout', at: Date.now() }, 60)
    await until(() => closed)
    store.repair()
  })

  test('is refused twice for one manager', async () => {
    const [first] = await pair()
    await expect(watchEndings(first)).rejects.toThrow(/called for this manager already/)
  })

  test('asks a store without signals about the sessions at hand', async () => {
    const store = new (class extends MemorySessionStore {})({ cleanupInterval: 0 })
    Object.defineProperty(store, 'signals', { value: undefined })
    const [here, there] = [new SessionManager({ secret: SECRET, store }), new SessionManager({ secret: SECRET, store })]
    const watch = await watchEndings(here, { pollInterval: '20ms' })
    stops.push(() => watch.stop())
    const { id } = await here.create()
    const closed = new Promise<void>((resolve) => openSocketsOf(here.events).add(id, resolve))
    await there.revoke(id)
    await closed
  })

  test('closeOnEnd() says what it needs', async () => {
    expect(() => closeOnEnd({} as never, { destroy() {}, once() {} })).toThrow(/needs a session/)
  })
})

test.each<[string, Record<string, string>, boolean]>([
  ['no Origin', { host: 'shop.example' }, true],
  ['its own', { host: 'shop.example', origin: 'https://shop.example' }, true],
  [
    'its own, in capitals and with the default port',
    { host: 'SHOP.example:443', origin: 'https://shop.example' },
    true,
  ],
  ['one that is trusted', { host: 'shop.example', origin: 'https://app.example' }, true],
  ['another one', { host: 'shop.example', origin: 'https://evil.example' }, false],
  ['another port', { host: 'shop.example', origin: 'https://shop.example:8443' }, false],
  ['null', { host: 'shop.example', origin: 'null' }, false],
  ['junk', { host: 'shop.example', origin: 'shop.example' }, false],
])('an upgrade with %s as its Origin', (_what, headers, allowed) => {
  expect(isSameOrigin({ headers } as never, { trustedOrigins: ['https://app.example'] })).toBe(allowed)
})

test('what could begin to listen in part only does not listen at all', async () => {
  const store = new MemorySessionStore({ cleanupInterval: 0 })
  const sessions = new SessionManager({ secret: SECRET, store })
  let open = 0
  let left = 1
  const { listen } = sessions.signals
  const signals = {
    send: async () => {},
    listen: async (...args: Parameters<typeof listen>) => {
      if (left-- === 0) throw new Error('away')
      const stop = await listen.call(sessions.signals, ...args)
      open++
      return async () => {
        open--
        await stop()
      }
    },
  }
  Object.defineProperty(sessions, 'signals', { value: signals })
  await expect(watchEndings(sessions)).rejects.toThrow('away')
  expect(open).toBe(0)
  await sessions.close()
})

test('signals that are lost are warned of where nobody else is told', async () => {
  const sessions = new SessionManager({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
  const { listen } = sessions.signals
  Object.defineProperty(sessions, 'signals', {
    value: { send: async () => {}, listen: (...args: Parameters<typeof listen>) => listen(...args) },
  })
  const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const watch = await watchEndings(sessions, { heartbeat: '20ms' })
  try {
    await until(() => warnings.mock.calls.length > 0)
    expect(warnings.mock.calls[0]?.[0]).toContain('Signals of endings do not arrive')
  } finally {
    warnings.mockRestore()
    await watch.stop()
    await sessions.close()
  }
})

test('a stream that has closed before is not kept', async () => {
  const sessions = new SessionManager({ secret: SECRET, store: new MemorySessionStore({ cleanupInterval: 0 }) })
  const watch = await watchEndings(sessions)
  const add = jest.spyOn(openSocketsOf(sessions.events), 'add')
  const middleware = sessions.middleware()
  const server = await listen((req, res) => {
    middleware(req, res, () => {
      const stream = new PassThrough()
      closeOnEnd(requireSession(req), stream)()
      stream.destroy()
      stream.once('close', () => {
        closeOnEnd(requireSession(req), stream)()
        res.end()
      })
    })
  })
  await new Client(server.url).get('/')
  expect(add).toHaveBeenCalledTimes(1)
  await Promise.all([server.close(), watch.stop(), sessions.close()])
})
