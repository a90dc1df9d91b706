// What an operator is told of a Redis that was set up wrong: the reason of a failure, and warnings at start.
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { Redis } from 'ioredis'
import { session } from 'sojourn'
import { RedisSessionStore, type RedisSessionStoreOptions } from 'sojourn/redis'
import { SECRET, until } from '../../support/http.js'
import { commandsWhile } from '../../support/monitor.js'
import { freePort, RedisServer } from '../../support/redis.js'

const PASSWORD = 'hunter2-hunter2'
/** Refused before a name server is asked, which takes its time, since none of its parts may be longer than 63 (RFC 1035). */
const NO_HOST = `${'x'.repeat(64)}.invalid`

let guarded: RedisServer
let open: RedisServer
beforeAll(async () => {
  open = await RedisServer.start()
  guarded = await RedisServer.start()
  const admin = new Redis(guarded.url)
  await admin.config('SET', 'requirepass', PASSWORD)
  admin.disconnect()
})
afterAll(async () => {
  await Promise.all([open.stop(), guarded.stop()])
})

const stores: RedisSessionStore[] = []
function storeAt(options: RedisSessionStoreOptions): RedisSessionStore {
  const store = new RedisSessionStore(options)
  stores.push(store)
  return store
}
afterEach(async () => {
  jest.restoreAllMocks()
  process.env['NODE_ENV'] = 'test'
  await Promise.all(stores.splice(0).map((store) => store.close()))
})

/** The message that the event of a failed call carries, and the warning when nobody listens. */
async function toldOf(url: string): Promise<{ event: string; warning: string }> {
  const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const unheard = session({ secret: SECRET, store: storeAt({ url }) })
  await expect(unheard.manager.get('x')).rejects.toThrow()
  const heard = session({ secret: SECRET, store: unheard.store })
  let event = ''
  heard.events.on('storeError', ({ error }) => {
    event = error.message
  })
  await expect(heard.manager.get('x')).rejects.toThrow()
  return { event, warning: warnings.mock.calls.map(([text]) => String(text)).join('\n') }
}

describe('a failure of set-up is told with its reason', () => {
  test.each<[string, () => string | Promise<string>, RegExp]>([
    ['no password', () => guarded.url, /NOAUTH: the server wants a password/],
    [
      'a wrong password',
      () => guarded.url.replace('//', `//:wrong-${PASSWORD}@`),
      /WRONGPASS: the server does not know this user and password/,
    ],
    [
      'a port where nothing listens',
      async () => `redis://127.0.0.1:${await freePort()}`,
      /ECONNREFUSED: nothing listens/,
    ],
    ['a host that is not there', () => `redis://:${PASSWORD}@${NO_HOST}`, /host name is not known/],
  ])('%s', async (_what, urlOf, reason) => {
    const { event, warning } = await toldOf(await urlOf())
    expect(event).toMatch(reason)
    expect(warning).toMatch(reason)
    expect(event + warning).not.toContain(PASSWORD)
  })

  test.each([
    // What a TLS server says to somebody who does not begin a handshake: an alert, and the end of the connection.
    ['with TLS that was taken for one without', 'redis', Buffer.from([0x15, 3, 1, 0, 2, 2, 0x46]), /use rediss:\/\//],
    ['without TLS that was taken for one with', 'rediss', '-ERR unknown command\r\n', /Use redis:\/\//],
  ])('a port %s', async (_what, scheme, answer, advice) => {
    const server: Server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.end(answer))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { event } = await toldOf(`${scheme}://127.0.0.1:${(server.address() as { port: number }).port}`)
    expect(event).toMatch(advice)
    server.close()
  })

  test('a client of yours whose server wants a password', async () => {
    const refuse = async (): Promise<never> => {
      throw new Error('NOAUTH Authentication required.')
    }
    const once = (): void => {}
    const client = {
      status: 'ready',
      get: refuse,
      getrange: refuse,
      strlen: refuse,
      hgetall: refuse,
      del: refuse,
      evalsha: refuse,
      eval: refuse,
      once,
    }
    const heard = session({ secret: SECRET, store: storeAt({ client }) })
    let event = ''
    heard.events.on('storeError', ({ error }) => {
      event = error.message
    })
    await expect(heard.manager.get('x')).rejects.toThrow()
    expect(event).toMatch(/NOAUTH: the server wants a password/)
  })
})

describe('in production', () => {
  let warnings: jest.SpiedFunction<typeof process.emitWarning>
  const told = (): string[] => warnings.mock.calls.map(([text]) => String(text))

  function inProduction(): void {
    process.env['NODE_ENV'] = 'production'
    warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  }

  test.each([
    ['redis://:hunter2@cache.example.invalid:6379/0', 1],
    ['valkey://10.0.0.7', 1],
    ['redis://user:p%40ss@[2001:db8::1]:6379', 1],
    ['rediss://cache.example.invalid', 0],
    ['redis://127.0.0.1:1', 0],
    ['redis://user:secret@localhost:1/2', 0],
    ['redis://[::1]:1', 0],
  ])('%s gives %i warning of plain text, without its password', (url, count) => {
    inProduction()
    storeAt({ url })
    expect(told().filter((text) => text.includes('without TLS'))).toHaveLength(count)
    expect(told().join()).not.toMatch(/hunter2|p%40ss|p@ss|secret@/)
  })

  test('warnInProduction: false says nothing, nor does any other environment', () => {
    inProduction()
    storeAt({ url: 'redis://cache.example.invalid', warnInProduction: false })
    process.env['NODE_ENV'] = 'development'
    storeAt({ url: 'redis://cache.example.invalid' })
    expect(told()).toEqual([])
  })

  test.each([
    ['allkeys-lru', '100mb', true],
    ['volatile-ttl', '100mb', true],
    ['noeviction', '100mb', false],
    // Without a bound nothing is dropped.
    ['allkeys-lru', '0', false],
  ])('maxmemory-policy %s with maxmemory %s: warned of is %p, once', async (policy, memory, isWarned) => {
    const admin = new Redis(open.url)
    await admin.config('SET', 'maxmemory-policy', policy)
    await admin.config('SET', 'maxmemory', memory)
    inProduction()
    const store = storeAt({ url: open.url })
    await store.get('x')
    if (isWarned) await until(() => told().length > 0)
    // The answer to INFO has come in, since answers come in order.
    await store.get('x')
    expect(told().filter((text) => text.includes(`maxmemory-policy is ${policy}`))).toHaveLength(isWarned ? 1 : 0)
    await admin.config('SET', 'maxmemory-policy', 'noeviction')
    admin.disconnect()
  })

  test('a user without the right to ask, and a client of yours, are left alone', async () => {
    const admin = new Redis(open.url)
    await admin.acl('SETUSER', 'narrow', 'on', '>pw', '~*', '+@all', '-info')
    inProduction()
    jest.spyOn(console, 'warn').mockImplementation(() => {})
    expect(await storeAt({ url: open.url.replace('//', '//narrow:pw@') }).get('x')).toBeNull()
    const commands = await commandsWhile(admin, async () => {
      await storeAt({ client: admin }).get('x')
    })
    expect(commands.some(({ args }) => /^(info|config)$/i.test(args[0] ?? ''))).toBe(false)
    expect(told()).toEqual([])
    admin.disconnect()
  })
})
