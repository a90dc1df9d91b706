// What must stay secret, what must not be guessed or forced, and when a session must be over: over HTTP, on memory and on
// a real Redis.
import * as crypto from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { format, inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { sign } from 'cookie-signature'
import type { ErrorRequestHandler, Express } from 'express'
import { Redis } from 'ioredis'
import {
  type EndReason,
  MemorySessionStore,
  SessionData,
  type SessionEvent,
  type SessionEventName,
  type SessionMiddleware,
  type SessionOptions,
  SessionStore,
  session,
} from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { ALL_EVENT_NAMES } from '../../src/events/events.js'
import { newSessionId, newToken } from '../../src/ids.js'
import { testApp } from '../support/app.js'
import { type Answer, Client, listen, OTHER_SECRET, SECRET, type TestServer, until } from '../support/http.js'
import { linesAt, putLines } from '../support/lines.js'
import { startProgram } from '../support/processes.js'
import { RedisServer } from '../support/redis.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const PREFIX = 'security:'

let redisServer: RedisServer
/** A connection that the library knows nothing of. */
let raw: Redis
const open: { close(): Promise<void> }[] = []

beforeAll(async () => {
  redisServer = await RedisServer.start()
  raw = new Redis(redisServer.url)
})

afterAll(async () => {
  raw.disconnect()
  await redisServer.stop()
})

afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all(open.splice(0).map((server) => server.close()))
  await raw.flushall()
})

/** A kind of store, and a look behind it. */
interface Kind {
  create(): SessionStore
  /** Everything that the store holds of these sessions; of all sessions where it can tell. */
  dump(store: SessionStore, ids: Iterable<string>): Promise<string>
  /** Takes from the store what makes it forget by itself. */
  persist(): Promise<void>
}

const memoryKind: Kind = {
  create: () => new MemorySessionStore({ cleanupInterval: 0 }),
  async dump(store, ids) {
    let text = ''
    for (const id of ids) {
      const record = await store.get(id)
      if (record !== null) text += `${JSON.stringify(record)}\n${inspect(record, EVERYTHING)}\n`
    }
    return text
  },
  async persist() {},
}

const redisKind: Kind = {
  create: () => new RedisSessionStore({ url: redisServer.url, prefix: PREFIX }),
  dump: async () => (await redisKeys()).map(({ key, value }) => `${key}\n${JSON.stringify(value)}\n`).join(''),
  async persist() {
    for (const { key } of await redisKeys()) {
      await raw.persist(key)
      expect(await raw.pttl(key)).toBe(-1)
    }
  },
}

/** For calls that hang: time enough for those that do not, on a busy machine too. */
const HASTY = '2s'

const KINDS: readonly (readonly [name: string, kind: Kind])[] = [
  ['memory', memoryKind],
  ['Redis', redisKind],
]

/** Every key and its value, of whatever type. */
async function redisKeys(): Promise<{ key: string; value: unknown }[]> {
  const found: { key: string; value: unknown }[] = []
  let cursor = '0'
  do {
    const [next, keys] = await raw.scan(cursor, 'COUNT', 1000)
    cursor = next
    for (const key of keys) found.push({ key, value: await redisValue(key) })
  } while (cursor !== '0')
  return found
}

async function redisValue(key: string): Promise<unknown> {
  switch (await raw.type(key)) {
    case 'hash':
      return raw.hgetall(key)
    case 'string':
      return raw.get(key)
    case 'list':
      return raw.lrange(key, 0, -1)
    case 'set':
      return raw.smembers(key)
    case 'zset':
      return raw.zrange(key, '0', '-1')
    default:
      throw new Error('A type of key that this test does not know.')
  }
}

/** The key of a session: others are those of tombstones and of users. */
async function keyOf(id: string): Promise<string> {
  const key = `${PREFIX}{${id.slice(0, 4)}}${id.slice(4)}`
  expect(await raw.exists(key)).toBe(1)
  return key
}

const EVERYTHING = { showHidden: true, showProxy: true, depth: null, maxStringLength: null, getters: true } as const

interface Site {
  readonly server: TestServer
  readonly app: Express
  readonly middleware: SessionMiddleware
  readonly store: FaultyStore
  readonly client: Client
  release(): void
  waiting(): number
}

/** The test app with `extend` on it, in front of a store that counts and fails on demand. */
async function site(
  kind: Kind,
  options: Partial<SessionOptions> = {},
  extend: (app: Express) => void = () => {},
): Promise<Site> {
  const store = new FaultyStore(options.store ?? kind.create())
  const built = testApp({ ...options, store })
  extend(built.app)
  const server = await listen(built.app)
  open.push(server, store)
  return { ...built, server, store, client: new Client(server) }
}

interface Told {
  name: SessionEventName
  event: object
}

function eventsOf(middleware: SessionMiddleware): Told[] {
  const events: Told[] = []
  // That of store calls names no session.
  for (const name of ALL_EVENT_NAMES.filter((each) => each !== 'storeCall')) {
    middleware.events.on(name, (event) => void events.push({ name, event }))
  }
  return events
}

/** An event with these facts and no others, at whatever time. */
function told(name: SessionEventName, facts: object): Told {
  return { name, event: { at: expect.any(Number), ...facts } }
}

/** What is told of every request that opens or stores a session says nothing of what went wrong. */
function isOutOfTheOrdinary({ name }: Told): boolean {
  return name !== 'loaded' && name !== 'committed'
}

/** How a session ended, and how many fields are left of it; `null` for one that is not over. */
function overOf(record: SessionData | null): { reason: EndReason; fields: number } | null {
  return record?.ended ? { reason: record.ended.reason, fields: record.fields.size } : null
}

const REGENERATED = { reason: 'regenerated', fields: 0 }

function idOf(client: Client): string {
  return client.cookies.get('sid')?.split('.')[0] as string
}

const fieldsOf = (answer: Answer): unknown => answer.json()['fields']

/** The value of a cookie for `sid` as we would sign it. */
function cookieValue(id: string, token: string, secret = SECRET): string {
  return sign(`sid=${id}.${token}`, secret).slice('sid='.length)
}

/** What came to light, and what must not have. */
class Ledger {
  readonly kinds = new Set<string>()
  readonly #texts: { kind: string; text: string }[] = []
  readonly #secrets = new Set<string>()

  constructor() {
    for (const secret of [SECRET, OTHER_SECRET]) {
      for (const format of ['utf8', 'base64', 'base64url', 'hex'] as const) {
        this.#secrets.add(Buffer.from(secret).toString(format))
      }
    }
  }

  get secretCount(): number {
    return this.#secrets.size
  }

  /** Takes the secrets from an answer's cookies. */
  issue({ setCookies }: Answer): void {
    for (const line of setCookies) {
      const value = line.slice(line.indexOf('=') + 1, line.indexOf(';'))
      const [id, token, signature] = value.split('.')
      if (id === undefined || token === undefined || signature === undefined) continue
      const bytes = Buffer.from(token, 'base64url')
      for (const secret of [value, token, signature, bytes.toString('hex'), bytes.toString('base64').slice(0, 43)]) {
        this.#secrets.add(secret)
      }
    }
  }

  /** Takes down everything that a log line could show of these things. */
  note(kind: string, ...things: unknown[]): void {
    this.kinds.add(kind)
    for (const thing of things) {
      const views = [
        inspect(thing),
        inspect(thing, EVERYTHING),
        inspect(thing, { ...EVERYTHING, customInspect: false }),
      ]
      views.push(JSON.stringify(thing) ?? '')
      for (let error = thing; error instanceof Error; error = error.cause) views.push(error.message, error.stack ?? '')
      for (const text of views) this.#texts.push({ kind, text })
    }
  }

  includes(part: string): boolean {
    return this.#texts.some(({ text }) => text.includes(part))
  }

  leaks(): string[] {
    const leaks = new Set<string>()
    for (const { kind, text } of this.#texts) {
      for (const secret of this.#secrets) if (text.includes(secret)) leaks.add(`${secret} in ${kind}`)
    }
    return [...leaks]
  }
}

/** Sends many requests over one connection, without waiting in between, and counts the answers by status. */
async function flood(server: TestServer, requests: readonly string[]): Promise<Record<string, number>> {
  const socket = connect(server.port, '127.0.0.1')
  await once(socket, 'connect')
  const statuses: Record<string, number> = {}
  let answered = 0
  let rest = ''
  const done = new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`The connection closed after ${answered} answers.`)))
    socket.on('data', (chunk: Buffer) => {
      const text = rest + chunk.toString('latin1')
      const end = text.lastIndexOf('\r\n')
      rest = end === -1 ? text : text.slice(end)
      for (const [, status = ''] of text.slice(0, Math.max(end, 0)).matchAll(/HTTP\/1\.1 (\d{3}) /g)) {
        statuses[status] = (statuses[status] ?? 0) + 1
        answered++
      }
      if (answered === requests.length) resolve()
    })
  })
  socket.write(requests.join(''))
  await done
  socket.destroy()
  return statuses
}

function rawRequest(method: string, path: string, cookie?: string): string {
  const cookieLine = cookie === undefined ? '' : `Cookie: ${cookie}\r\n`
  return `${method} ${path} HTTP/1.1\r\nHost: x\r\n${cookieLine}Content-Length: 0\r\n\r\n`
}

describe.each(KINDS)('with sessions in %s', (_name, kind) => {
  describe('secrets', () => {
    test('appear in no event, warning, error, inspect(), JSON, answer or store dump', async () => {
      const seen = new Ledger()
      for (const level of ['log', 'info', 'warn', 'error', 'debug'] as const) {
        jest.spyOn(console, level).mockImplementation((...args) => seen.note(`console.${level}`, ...args))
      }
      jest.spyOn(process, 'emitWarning').mockImplementation((...args) => seen.note('warning', ...args))
      const { client, server, middleware, store, release, waiting } = await site(
        kind,
        { secret: [SECRET, OTHER_SECRET], storeTimeout: HASTY },
        (app) => {
          app.all('/show', async (req, res) => {
            await req.session.update('n', () => 1)
            for (const thing of [req.session, req.session.metadata, req.session.cookie, middleware, middleware.store]) {
              seen.note('inspect', thing)
            }
            seen.note('text', { text: format('%s %o %O %j', ...Array(4).fill(req.session)) })
            res.json({ session: req.session, meta: req.session.metadata, cookie: req.session.cookie })
          })
          app.all('/throw', (req) => {
            throw new Error(`The handler failed with ${inspect(req.session, EVERYTHING)}`)
          })
          app.all('/huge', (req) => void req.session.set('huge', 'x'.repeat(1_000_001)))
          app.all('/late', (req, res) => {
            res.write('x')
            req.session.set('late', 1)
            res.end()
          })
          const handler: ErrorRequestHandler = (error, _req, _res, next) => {
            seen.note('error', error)
            next(error)
          }
          app.use(handler)
        },
      )
      const events = eventsOf(middleware)
      const ids = new Set<string>()
      const visit = async (method: string, path: string, visitor = client, cookie?: string): Promise<void> => {
        const answer = await visitor.request(method, path, { headers: cookie === undefined ? {} : { cookie } })
        const { 'set-cookie': _cookie, ...headers } = answer.headers
        seen.issue(answer)
        seen.note('answer', headers, { body: answer.body })
      }
      const stale: string[] = []
      for (const path of ['/set?a=1', '/login?user=ann', '/renew', '/regenerate?keep=true', '/login?user=bob']) {
        await visit('POST', path)
        stale.push(client.cookieHeader)
        ids.add(idOf(client))
        seen.note('dump', { text: await kind.dump(store, ids) })
      }
      for (const path of ['/show', '/peek', '/throw', '/huge', '/late']) await visit('GET', path)
      await visit('GET', '/late', new Client(server))
      for (const cookie of stale) {
        await visit('GET', '/peek', client, cookie)
        await visit('GET', '/peek', client, `${cookie.slice(0, -1)}!`)
        await visit('POST', '/renew', client, cookie.toUpperCase())
      }
      await visit('GET', '/peek', client, `sid=${cookieValue(newSessionId(), newToken().token, OTHER_SECRET)}`)
      for (const kindOfFault of ['error', 'lost-reply', 'hang'] as const) {
        store.fail({ kind: kindOfFault })
        const paths = ['/set?b=1', '/login', '/renew', '/logout']
        // At once: what hangs takes the whole deadline.
        await Promise.all([...paths.map((path) => visit('POST', path)), visit('POST', '/set?b=1', new Client(server))])
        store.repair()
      }
      const late = client.clone()
      const slow = visit('POST', '/slow/write', late)
      await until(() => waiting() === 1)
      await visit('POST', '/logout')
      release()
      await slow
      seen.note('events', ...events)
      seen.note('dump', { text: await kind.dump(store, ids) })

      expect(seen.secretCount).toBeGreaterThan(10)
      expect([...seen.kinds].sort()).toEqual(
        expect.arrayContaining(['answer', 'dump', 'error', 'events', 'inspect', 'text']),
      )
      expect(new Set(events.map(({ name }) => name)).size).toBeGreaterThan(12)
      expect(seen.includes(idOf(late))).toBe(true)
      expect(seen.leaks()).toEqual([])
    })

    test('appear in no error page, in development or in production, nor does anything of the store', async () => {
      for (const env of ['development', 'production']) {
        const { client, server, app, store } = await site(kind, { storeTimeout: HASTY })
        app.set('env', env)
        jest.spyOn(console, 'error').mockImplementation(() => {})
        await client.post('/set?a=1')
        const [id, token, signature] = (client.cookies.get('sid') as string).split('.') as [string, string, string]
        const hash = (await store.get(id))?.tokenHash as string
        const cause = Object.assign(new Error(`connect ECONNREFUSED 10.1.2.3:6379 HGETALL ${PREFIX}${id}`), {
          command: { name: 'get', args: ['payload'] },
        })
        for (const kindOfFault of ['error', 'hang'] as const) {
          store.fail({ kind: kindOfFault, error: cause })
          const requests = [client.get('/peek'), new Client(server).post('/set?secret=payload')]
          for (const answer of await Promise.all(requests)) {
            expect([answer.status, answer.headers['retry-after'], answer.setCookies]).toEqual([503, '1', []])
            for (const part of [id, token, signature, hash, SECRET, 'ECONNREFUSED', '10.1.2.3', PREFIX, 'payload']) {
              expect(answer.body).not.toContain(part)
            }
            if (env === 'production') expect(answer.body).toMatch(/<pre>Service Unavailable<\/pre>/)
          }
          store.repair()
        }
        // Express logs an error a moment after it has answered.
        await new Promise(setImmediate)
      }
    })

    test('cannot be made from a store dump, even by who knows the signing secret', async () => {
      const { client, server, store, middleware } = await site(kind)
      const events = eventsOf(middleware)
      await client.post('/login')
      await client.post('/renew')
      const id = idOf(client)
      const dump = await kind.dump(store, [id])
      const stolen = new Set([id, ...(dump.match(/[\w-]{43}/g) ?? [])])
      expect(stolen.size).toBeGreaterThan(2)
      for (const text of stolen) {
        for (const value of [
          text,
          id,
          `${id}.${text}`,
          cookieValue(id, text),
          cookieValue(id, Buffer.from(text).toString('base64url').slice(0, 43)),
          sign(id, SECRET),
          sign(`${id}.${text}`, SECRET),
          `s:${sign(id, SECRET)}`,
        ]) {
          const answer = await new Client(server).get('/peek', { cookie: `sid=${value}` })
          expect([answer.status, answer.json()['userId'], fieldsOf(answer)]).toEqual([200, null, {}])
        }
      }
      expect(events.map(({ name }) => name)).toContain('tokenMismatch')
      expect((await client.get('/peek')).json()['userId']).toBe('ann')
    })
  })

  describe('nothing is stored', () => {
    test('without a cookie, for forged cookies, or for logouts without a session, however many', async () => {
      const { server, store } = await site(kind, {}, (app) => {
        app.post('/end', async (req, res) => {
          await req.session.destroy()
          res.json({})
        })
        app.get('/read', (req, res) => {
          res.json({ ...req.session, n: req.session.get('n', 0), flash: Reflect.get(req.session, 'flash') ?? null })
        })
      })
      const [id, token] = [newSessionId(), newToken().token]
      const forged = cookieValue(id, token, OTHER_SECRET)
      const requests: string[] = []
      for (let n = 0; n < 300; n++) {
        for (const path of ['/peek', '/plain', '/read']) {
          requests.push(rawRequest('GET', path), rawRequest('GET', path, `sid=${forged}`))
        }
        for (const path of ['/logout', '/destroy', '/end']) {
          requests.push(rawRequest('POST', path), rawRequest('POST', path, `sid=${forged}; sid=junk`))
        }
      }
      await raw.config('RESETSTAT')
      expect(await flood(server, requests)).toEqual({ 200: requests.length })
      expect(store.totalCalls).toBe(0)
      expect(await raw.dbsize()).toBe(0)

      // An ID that is rightly signed is looked up, and that is all.
      const unknown = Array.from({ length: 200 }, () => `sid=${cookieValue(newSessionId(), newToken().token)}`)
      const lookups = unknown.flatMap((cookie) => [
        rawRequest('GET', '/peek', cookie),
        rawRequest('POST', '/logout', cookie),
      ])
      const began = performance.now()
      expect(await flood(server, lookups)).toEqual({ 200: lookups.length })
      expect(store.calls.get).toBe(lookups.length)
      // Besides, the epoch is asked once a second.
      expect(store.totalCalls - store.calls.epoch).toBe(lookups.length)
      expect(store.calls.epoch).toBeLessThanOrEqual(1 + (performance.now() - began) / SECOND)
      expect(await raw.dbsize()).toBe(0)
      const commands = (await raw.info('commandstats')).match(/(?<=cmdstat_)[^:]+/g) ?? []
      const reading = ['dbsize', 'info', 'config|resetstat', 'hello', 'client|setinfo', 'command|docs']
      // The script that asks for the epoch; what a script does counts by its own name as well.
      reading.push('evalsha', 'eval', 'get', 'getrange')
      expect(commands.filter((command) => !reading.includes(command))).toEqual([])
    })
  })

  describe('the ID', () => {
    test('is never one that we did not issue, however well it is signed', async () => {
      const { client, server, middleware } = await site(kind)
      const events = eventsOf(middleware)
      const [id, token] = [newSessionId(), newToken().token]
      client.cookies.set('sid', cookieValue(id, token))
      await client.post('/set?a=1')
      const [ownId, ownToken] = (client.cookies.get('sid') as string).split('.')
      expect(ownId).not.toBe(id)
      expect(ownToken).not.toBe(token)
      expect(events).toContainEqual(told('unknownSession', { id, ip: '127.0.0.1' }))
      const planted = await client.get('/peek', { cookie: `sid=${cookieValue(id, token)}` })
      expect(fieldsOf(planted)).toEqual({})
      for (const path of ['/login', '/renew', '/regenerate', '/regenerate?keep=true']) {
        const answer = await new Client(server).post(path, undefined, { cookie: `sid=${cookieValue(id, token)}` })
        expect(answer.json()['id']).not.toBe(id)
        for (const line of answer.setCookies) expect(line).not.toContain(id)
      }
    })

    test('comes from the cookie only: URL, body and other headers have no effect', async () => {
      const { client, server, store } = await site(kind)
      await client.post('/login')
      const value = client.cookies.get('sid') as string
      const id = idOf(client)
      const calls = store.totalCalls
      const stranger = new Client(server)
      const query = `sid=${value}&__Host-sid=${value}&session=${value}&id=${id}`
      const answers = [
        await stranger.get(`/peek?${query}`),
        await stranger.get(`/peek;sid=${value}`).then((answer) => (answer.status === 404 ? null : answer)),
        await stranger.request('GET', '/peek', { body: { sid: value, id, session: value } }),
        await stranger.get('/peek', {
          'x-session-id': value,
          'x-sid': value,
          sid: value,
          authorization: `Bearer ${value}`,
          cookie2: `sid=${value}`,
          'set-cookie': `sid=${value}`,
          referer: `${server.url}/?${query}`,
        }),
      ]
      for (const answer of answers) {
        if (answer === null) continue
        expect([answer.status, answer.json()['userId']]).toEqual([200, null])
        expect(answer.json()['id']).not.toBe(id)
      }
      expect(store.totalCalls).toBe(calls)
    })

    test('and the token leave in the Set-Cookie header only, never in a URL', async () => {
      const { client } = await site(kind)
      await client.post('/login')
      const answer = await client.post('/redirect?value=1')
      const created = client.cookies.get('sid') as string
      for (const part of created.split('.')) {
        expect(answer.headers.location).not.toContain(part)
        expect(answer.body).not.toContain(part)
      }
    })
  })

  describe('a login', () => {
    test('cannot be fixed beforehand: new ID, new token, same data, and the old cookie is dead at once', async () => {
      const { client, server, store } = await site(kind)
      await client.post('/set?cart=book')
      // The attacker knows the cookie that the victim logs in with.
      const attacker = client.clone()
      const before = idOf(client)
      await client.post('/login?user=ann')
      expect(idOf(client)).not.toBe(before)
      expect((await client.get('/peek')).json()).toMatchObject({ fields: { cart: 'book' }, userId: 'ann' })
      expect(overOf(await store.get(before))).toEqual(REGENERATED)
      expect((await attacker.get('/peek')).json()).toMatchObject({ fields: {}, userId: null })
      await attacker.post('/set?cart=evil')
      expect((await client.get('/peek')).json()).toMatchObject({ fields: { cart: 'book' }, userId: 'ann' })
      // The new ID with the old token, and the old ID with the new token, are nothing.
      const [newId, token] = (client.cookies.get('sid') as string).split('.') as [string, string]
      for (const value of [cookieValue(before, token), cookieValue(newId, newToken().token)]) {
        const answer = await new Client(server).get('/peek', { cookie: `sid=${value}` })
        expect(answer.json()).toMatchObject({ fields: {}, userId: null })
      }
    })

    test('of a new session, and a second login, get an ID of their own, too', async () => {
      const { client } = await site(kind)
      await client.post('/login?user=ann')
      const first = client.clone()
      await client.post('/login?user=bob')
      expect(idOf(client)).not.toBe(idOf(first))
      expect((await first.get('/peek')).json()['userId']).toBeNull()
      expect((await client.get('/peek')).json()['userId']).toBe('bob')
    })
  })

  describe('regenerate()', () => {
    test('with keep: true goes on with the data under a new ID; the old cookie is dead at once', async () => {
      const { client, store } = await site(kind)
      await client.post('/set?a=1')
      await client.post('/login?user=ann')
      const old = client.clone()
      await client.post('/regenerate?keep=true')
      expect(idOf(client)).not.toBe(idOf(old))
      expect((await client.get('/peek')).json()).toMatchObject({ fields: { a: '1' }, userId: 'ann' })
      expect((await old.get('/peek')).json()).toMatchObject({ fields: {}, userId: null })
      expect(overOf(await store.get(idOf(old)))).toEqual(REGENERATED)
    })

    test('without it goes on empty, and nobody is logged in', async () => {
      const { client, store } = await site(kind)
      await client.post('/set?a=1')
      await client.post('/login?user=ann')
      const old = client.clone()
      await client.post('/regenerate')
      expect(idOf(client)).not.toBe(idOf(old))
      expect((await client.get('/peek')).json()).toMatchObject({ fields: {}, userId: null })
      expect((await old.get('/peek')).json()).toMatchObject({ fields: {}, userId: null })
      expect(overOf(await store.get(idOf(old)))).toEqual(REGENERATED)
    })
  })

  describe('renew()', () => {
    test('keeps the ID and changes the token; once the new one was shown, the old one is good for the grace, and dead after it', async () => {
      const clock = new FakeClock()
      const { client, store, middleware } = await site(kind, { clock: clock.now, renewGrace: '10s' })
      const events = eventsOf(middleware)
      await client.post('/set?a=1')
      const old = client.clone()
      await client.post('/renew')
      expect(idOf(client)).toBe(idOf(old))
      expect(client.cookies.get('sid')).not.toBe(old.cookies.get('sid'))
      await client.get('/peek')
      clock.advance(10 * SECOND - 1)
      expect(fieldsOf(await old.get('/peek'))).toEqual({ a: '1' })
      clock.advance(1)
      expect(fieldsOf(await old.get('/peek'))).toEqual({})
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
      expect(events.filter(({ name }) => name === 'tokenMismatch')).toHaveLength(1)
      expect((await store.get(idOf(client)))?.generation).toBe(1)
    })

    test('has no grace with renewGrace: 0, once the new token was shown', async () => {
      const { client } = await site(kind, { renewGrace: 0 })
      await client.post('/set?a=1')
      const old = client.clone()
      await client.post('/renew')
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
      expect(fieldsOf(await old.get('/peek'))).toEqual({})
    })

    test('in many parallel requests makes exactly one new token', async () => {
      const clock = new FakeClock()
      const { client, middleware, release, waiting } = await site(kind, { clock: clock.now })
      const events = eventsOf(middleware)
      await client.post('/set?a=1')
      const clients = Array.from({ length: 30 }, () => client.clone())
      const answers = clients.map((each) => each.post('/slow/renew'))
      await until(() => waiting() === clients.length)
      release()
      const results = await Promise.all(answers)
      expect(results.map(({ status }) => status)).toEqual(results.map(() => 200))
      expect(results.flatMap(({ setCookies }) => setCookies)).toHaveLength(1)
      expect(events.filter(({ name }) => name === 'renewed')).toHaveLength(1)
      await clients[results.findIndex(({ setCookies }) => setCookies.length > 0)]?.get('/peek')
      clock.advance(MINUTE)
      const alive = await Promise.all(clients.map(async (each) => fieldsOf(await each.get('/peek'))))
      expect(alive.filter((fields) => 'a' in (fields as object))).toHaveLength(1)
    })

    test('by a request that comes with the old token makes no further one: it gets the same', async () => {
      const clock = new FakeClock()
      const { client, middleware } = await site(kind, { clock: clock.now })
      const events = eventsOf(middleware)
      await client.post('/set?a=1')
      const old = client.clone()
      const first = await client.post('/renew')
      const late = await old.post('/renew')
      expect([late.status, late.setCookies]).toEqual([200, first.setCookies])
      expect(events.filter(({ name }) => name === 'renewed')).toHaveLength(1)
      clock.advance(MINUTE)
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
    })
  })

  describe('time', () => {
    const options = { idleTimeout: '10m', absoluteTimeout: '1h', touchInterval: '1m' } as const

    test.each([
      ['with the TTL of the store', false],
      ['when the store has lost its TTL', true],
    ])('a session ends by itself after the idle timeout, %s', async (_what, isPersisted) => {
      const clock = new FakeClock()
      const { client, middleware } = await site(kind, { ...options, clock: clock.now })
      const expired: SessionEvent<'expired'>[] = []
      middleware.events.on('expired', (event) => expired.push(event))
      await client.post('/set?a=1')
      for (let n = 0; n < 3; n++) {
        if (isPersisted) await kind.persist()
        clock.advance(10 * MINUTE - 1)
        expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
      }
      if (isPersisted) await kind.persist()
      const id = idOf(client)
      clock.advance(10 * MINUTE)
      const dead = await client.get('/peek')
      expect(fieldsOf(dead)).toEqual({})
      expect(dead.json()['id']).not.toBe(id)
      expect(expired).toEqual([{ id, reason: 'idle', at: clock.now() }])
      // Whatever is done with the old cookie, it stays dead.
      for (const path of ['/renew', '/login', '/regenerate?keep=true']) {
        const answer = await client.clone().post(path)
        expect(answer.json()['id']).not.toBe(id)
      }
      expect(fieldsOf(await client.get('/peek'))).toEqual({})
    })

    test.each([
      ['with the TTL of the store', false],
      ['when the store has lost its TTL', true],
    ])('a session ends after the absolute timeout whatever its activity, %s', async (_what, isPersisted) => {
      const clock = new FakeClock()
      const { client, store, middleware } = await site(kind, { ...options, clock: clock.now })
      const expired: SessionEvent<'expired'>[] = []
      middleware.events.on('expired', (event) => expired.push(event))
      const start = clock.now()
      await client.post('/set?a=1')
      const activities = ['/set?a=2', '/renew', '/update', '/regenerate?keep=true', '/nowhere']
      for (let elapsed = 5 * MINUTE; elapsed < HOUR; elapsed += 5 * MINUTE) {
        clock.set(start + elapsed)
        if (isPersisted) await kind.persist()
        await client.post(activities[(elapsed / 5 / MINUTE) % activities.length] as string)
        expect(fieldsOf(await client.get('/peek'))).toHaveProperty('a')
        expect((await store.get(idOf(client)))?.expiresAt).toBeLessThanOrEqual(start + HOUR)
      }
      clock.set(start + HOUR - 1)
      expect(fieldsOf(await client.get('/peek'))).toHaveProperty('a')
      clock.set(start + HOUR)
      expect(fieldsOf(await client.get('/peek'))).toEqual({})
      expect(expired).toEqual([{ id: idOf(client), reason: 'absolute', at: clock.now() }])
    })

    test('regenerate() without the data does not restart the absolute timeout; login() does', async () => {
      const clock = new FakeClock()
      const { client } = await site(kind, { ...options, idleTimeout: '1h', clock: clock.now })
      await client.post('/set?a=1')
      const other = client.clone()
      clock.advance(50 * MINUTE)
      await other.post('/regenerate')
      await other.post('/set?b=1')
      clock.advance(9 * MINUTE)
      expect(fieldsOf(await other.get('/peek'))).toEqual({ b: '1' })
      const third = other.clone()
      await third.post('/login')
      clock.advance(MINUTE)
      expect(fieldsOf(await other.get('/peek'))).toEqual({})
      clock.advance(58 * MINUTE)
      expect(fieldsOf(await third.get('/peek'))).toEqual({ b: '1' })
      clock.advance(MINUTE)
      expect(fieldsOf(await third.get('/peek'))).toEqual({})
    })

    test('reading a session does not by itself move its end', async () => {
      const clock = new FakeClock()
      const { client, store } = await site(kind, { ...options, clock: clock.now })
      await client.post('/set?a=1')
      const { expiresAt } = (await store.get(idOf(client))) as SessionData
      for (let n = 0; n < 5; n++) {
        clock.advance(10 * SECOND)
        await client.get('/peek')
      }
      expect((await store.get(idOf(client)))?.expiresAt).toBe(expiresAt)
      expect(store.calls.touch).toBe(0)
    })

    test('an idle timeout that was made shorter holds for sessions of before', async () => {
      const clock = new FakeClock()
      const store = kind.create()
      const long = await site(kind, { store, clock: clock.now, idleTimeout: '1h' })
      await long.client.post('/set?a=1')
      const short = await site(kind, { store, clock: clock.now, idleTimeout: '5m' })
      clock.advance(5 * MINUTE)
      expect(fieldsOf(await new Client(short.server, long.client.cookies).get('/peek'))).toEqual({})
    })

    test.each([
      ['its beginning', 3 * HOUR],
      ['its last access', 2 * MINUTE],
      ['neither by more than clocks differ', MINUTE],
    ])('a clock that jumps back before %s extends no life beyond its own length', async (_what, backMs) => {
      const clock = new FakeClock()
      const { client, store } = await site(kind, { ...options, touchInterval: 0, clock: clock.now })
      const start = clock.now()
      await client.post('/set?a=1')
      clock.advance(8 * MINUTE)
      await client.get('/peek')
      const last = clock.now()
      clock.set(last - backMs)
      // Before its beginning, the session is as old as it was. Otherwise its absolute end stays where it was.
      const absoluteExpiresAt = backMs > 8 * MINUTE ? start + HOUR - backMs : start + HOUR
      const lastAccessedAt = backMs > MINUTE ? clock.now() : last
      for (const path of ['/update', '/set?a=2', '/renew', '/regenerate?keep=true', '/nowhere', '/set?a=3']) {
        await client.post(path)
        await client.get('/peek')
        const record = (await store.get(idOf(client))) as SessionData
        const { expiresAt } = record
        expect({ path, expiresAt, absoluteExpiresAt: record.absoluteExpiresAt }).toEqual({
          path,
          expiresAt: lastAccessedAt + 10 * MINUTE,
          absoluteExpiresAt,
        })
        if (kind === redisKind) {
          const ttlMs = await raw.pttl(await keyOf(idOf(client)))
          // Longer than the session lives by `endedRetention`.
          expect(ttlMs).toBeLessThanOrEqual(25 * MINUTE + backMs)
          expect(ttlMs).toBeGreaterThan(10 * MINUTE)
        }
      }
      clock.set(lastAccessedAt + 10 * MINUTE - 1)
      expect(fieldsOf(await client.get('/peek'))).toHaveProperty('a')
      while (clock.now() + 9 * MINUTE < absoluteExpiresAt) {
        clock.advance(9 * MINUTE)
        expect(fieldsOf(await client.get('/peek'))).toHaveProperty('a')
      }
      clock.set(absoluteExpiresAt)
      expect(fieldsOf(await client.get('/peek'))).toEqual({})
    })

    test('only the server decides: dates that the client sends have no effect', async () => {
      const clock = new FakeClock()
      const { client } = await site(kind, { ...options, clock: clock.now })
      await client.post('/set?a=1')
      clock.advance(10 * MINUTE)
      const past = new Date(0).toUTCString()
      const answer = await client.get('/peek', { date: past, expires: past, 'if-modified-since': past })
      expect(fieldsOf(answer)).toEqual({})
    })
  })

  describe('a random source that fails', () => {
    test('is an error, and no session, token or cookie comes of it', async () => {
      let isBroken = false
      const store = new FaultyStore(kind.create())
      const real = { ...crypto }
      let fallible: typeof testApp | undefined
      await jest.isolateModulesAsync(async () => {
        jest.unstable_mockModule('node:crypto', () => ({
          ...real,
          default: real,
          randomBytes(size: number) {
            if (isBroken) throw new Error('The random source is broken.')
            return real.randomBytes(size)
          },
        }))
        fallible = (await import('../support/app.js')).testApp
      })
      const { app } = (fallible as typeof testApp)({ store })
      const server = await listen(app)
      open.push(server, store)
      const client = new Client(server)
      await client.post('/set?a=1')
      const calls = store.calls.create + store.calls.update + store.calls.regenerate
      isBroken = true
      for (const path of ['/set?b=1', '/login']) {
        const answer = await new Client(server).post(path)
        expect([answer.status, answer.setCookies]).toEqual([500, []])
      }
      for (const path of ['/renew', '/login', '/regenerate', '/regenerate?keep=true']) {
        const answer = await client.post(path)
        expect([answer.status, answer.setCookies]).toEqual([500, []])
      }
      expect(store.calls.create + store.calls.update + store.calls.regenerate).toBe(calls)
      isBroken = false
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
    })
  })
})

describe('IDs and tokens', () => {
  test('of 1,000 clients, 50 at a time, are all different', async () => {
    const { server } = await site(memoryKind)
    const values: string[] = []
    for (let batch = 0; batch < 20; batch++) {
      const answers = Array.from({ length: 50 }, async () => {
        const client = new Client(server)
        await client.post('/set?a=1')
        return client.cookies.get('sid') as string
      })
      values.push(...(await Promise.all(answers)))
    }
    const parts = values.map((value) => value.split('.'))
    for (const part of [0, 1, 2]) expect(new Set(parts.map((each) => each[part])).size).toBe(1000)
  })

  test('are 20,000 times different, without a shared prefix, and every position is uniform', () => {
    const ids: string[] = []
    const tokens: Buffer[] = []
    for (let n = 0; n < 20_000; n++) {
      ids.push(newSessionId())
      const { token, tokenHash } = newToken()
      tokens.push(Buffer.from(token, 'base64url'))
      expect(crypto.createHash('sha256').update(token).digest('base64url')).toBe(tokenHash)
    }
    expect(new Set(ids).size).toBe(20_000)
    expect(new Set(tokens.map((token) => token.toString('hex'))).size).toBe(20_000)
    expect(new Set(tokens.map((token) => token.length))).toEqual(new Set([32]))
    // Limits that chance exceeds about once in ten million positions.
    for (let position = 0; position < 32; position++) {
      expect(
        chiSquare(
          tokens.map((token) => token[position] as number),
          256,
        ),
      ).toBeLessThan(400)
    }
    const fixed = [8, 13, 14, 18, 19, 23]
    for (let position = 0; position < 36; position++) {
      if (fixed.includes(position)) continue
      expect(
        chiSquare(
          ids.map((id) => Number.parseInt(id[position] as string, 16)),
          16,
        ),
      ).toBeLessThan(65)
    }
  })

  test('keep their first digits over a regeneration and nothing else', () => {
    const id = newSessionId()
    const next = Array.from({ length: 1000 }, () => newSessionId(id))
    expect(new Set(next.map((each) => each.slice(0, 4)))).toEqual(new Set([id.slice(0, 4)]))
    expect(new Set(next.map((each) => each.slice(4))).size).toBe(1000)
  })

  test('say nothing: the default cookie has a neutral name and no part that can be read', async () => {
    const { client } = await site(memoryKind)
    const answer = await client.post('/login?user=annabel')
    const [pair = ''] = answer.setCookies
    for (const part of (client.cookies.get('sid') as string).split('.')) {
      const readings = [part, Buffer.from(part, 'base64url').toString('latin1'), Buffer.from(part, 'hex').toString()]
      for (const reading of readings) expect(reading).not.toContain('annabel')
    }
    expect(pair).not.toMatch(/sojourn|connect|express|session/i)
    expect(Object.keys(answer.headers).join()).not.toMatch(/sojourn/i)
  })
})

function chiSquare(values: readonly number[], symbols: number): number {
  const counts = Array.from({ length: symbols }, () => 0)
  for (const value of values) counts[value] = (counts[value] as number) + 1
  const expected = values.length / symbols
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

describe('a corrupt record in Redis', () => {
  const DEEP = `${'['.repeat(200_000)}${']'.repeat(200_000)}`
  type Damage = (key: string) => Promise<unknown>
  const rewrite =
    (type: string, ...command: readonly string[]): Damage =>
    async (key) => {
      await raw.del(key)
      await raw.call(type, key, ...command)
    }
  const put =
    (name: string, text: string): Damage =>
    (key) =>
      putLines(raw, key, { [name]: text })
  const times =
    (edit: (parts: string[]) => string): Damage =>
    async (key) => {
      const { m: text = '' } = await linesAt(raw, key)
      await putLines(raw, key, { m: edit(text.split(' ')) })
    }
  const replace = (index: number, by: string): Damage => times((parts) => parts.with(index, by).join(' '))

  const records: readonly (readonly [what: string, damage: Damage])[] = [
    ['a list', rewrite('RPUSH', 'a')],
    ['a set', rewrite('SADD', 'a')],
    ['a sorted set', rewrite('ZADD', '1', 'a')],
    ['a stream', rewrite('XADD', '*', 'a', '1')],
    ['a hash', rewrite('HSET', 'm', '1')],
    ['some other text', rewrite('SET', '{"a":1}')],
    ['lines of something else', rewrite('SET', 'name\t1\n')],
    ['nothing but an end', rewrite('SET', 'x\t{"reason":"logout","at":1}\n')],
    ['cut in a line', async (key) => raw.set(key, ((await raw.get(key)) as string).slice(0, -1), 'KEEPTTL')],
    ['cut in a name', async (key) => raw.append(key, '.a')],
    ['without metadata', (key) => putLines(raw, key, { m: null })],
    ['without a token hash', (key) => putLines(raw, key, { t: null })],
    ['with nothing but fields', (key) => putLines(raw, key, { t: null, m: null })],
    ['with empty metadata', put('m', '')],
    ['with truncated metadata', times((parts) => parts.slice(0, 4).join(' '))],
    ['with metadata cut in a number', times((parts) => parts.join(' ').slice(0, 12))],
    ['with too much metadata', times((parts) => [...parts, '1', '1'].join(' '))],
    ['with an epoch that is no number', times((parts) => [...parts, '?'].join(' '))],
    ['with JSON for metadata', put('m', '{"generation":1}')],
    ['with a time that is no number', replace(1, 'yester-day')],
    ['with a time that is NaN', replace(4, 'NaN')],
    ['with a time that is infinite', replace(4, '1/0')],
    ['with a time in capitals', replace(4, 'FFFF')],
    ['with a negative time', replace(1, '-1')],
    ['with a fraction', replace(5, '1.5')],
    ['with a time beyond all numbers', replace(5, '9'.repeat(400))],
    ['with a generation that is no number', replace(0, '?')],
    ['with an idle timeout that is no number', put('i', 'soon')],
    ['with an infinite idle timeout', put('i', '1e999')],
    ['with a user ID that is broken JSON', put('u', '{"id":')],
    ['with a user ID that is an object', put('u', '{"id":1}')],
    ['with a user ID that is null', put('u', 'null')],
    ['with a context that is broken JSON', put('c', '{"ip":')],
    ['with a context that is no list', put('c', '{}')],
    ['with a context whose address is a number', put('c', '[1]')],
    ['with an end that is broken JSON', put('x', '{"reason":')],
    ['with an end that is an array', put('x', '[]')],
    ['with an end without a time', put('x', '{"reason":"logout"}')],
    ['with an end for no reason', put('x', '{"at":1}')],
    ['with an end for an unknown reason', put('x', '{"reason":"boredom","at":1}')],
    ['of five megabytes', put('.big', JSON.stringify('x'.repeat(5_000_000)))],
  ]

  test.each(records)('%s is told, set aside, and replaced by a new session', async (_what, damage) => {
    const { client, middleware } = await site(redisKind)
    const events = eventsOf(middleware)
    await client.post('/set?a=1')
    const id = idOf(client)
    await damage(await keyOf(id))
    events.length = 0
    for (let n = 0; n < 3; n++) {
      const answer = await client.get('/peek')
      expect([answer.status, fieldsOf(answer), answer.setCookies]).toEqual([200, {}, []])
      expect(answer.json()['id']).not.toBe(id)
    }
    expect(events).toEqual(
      Array.from({ length: 3 }, () =>
        told('corruptRecord', { id, cause: expect.objectContaining({ code: 'CORRUPT_RECORD' }) }),
      ),
    )
    expect((await client.post('/set?b=2')).status).toBe(200)
    expect(idOf(client)).not.toBe(id)
    expect(fieldsOf(await client.get('/peek'))).toEqual({ b: '2' })
    expect((await client.post('/logout')).status).toBe(200)
  })

  test.each(records)('%s does not stand in the way of who came before the damage', async (_what, damage) => {
    const { client, release, waiting } = await site(redisKind)
    await client.post('/set?a=1')
    const key = await keyOf(idOf(client))
    const late = client.clone()
    const slow = late.post('/slow/write')
    await until(() => waiting() === 1)
    await damage(key)
    release()
    // What it wrote may be lost, and then it is told so; the next request is well in any case.
    expect([200, 409, 500]).toContain((await slow).status)
    expect((await late.get('/peek')).status).toBe(200)
    expect((await late.post('/set?b=2')).status).toBe(200)
    expect(fieldsOf(await late.get('/peek'))).toMatchObject({ b: '2' })
  })

  test.each([
    ['broken JSON', '{"card": oops pin-xyz'],
    ['cut JSON', '{"card":"pin-xyz'],
    ['nothing', ''],
    ['no JSON at all', 'card pin-xyz'],
    ['arrays 200,000 deep', DEEP],
    ['objects 200,000 deep', `${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`.slice(0, 900_000)],
    ['brackets without an end', '['.repeat(200_000)],
  ])('in one field, %s, leaves the others readable', async (_what, text) => {
    const { client, middleware } = await site(redisKind)
    const events = eventsOf(middleware)
    await client.post('/set?a=1&bad=2')
    await client.post('/login?user=ann')
    const key = await keyOf(idOf(client))
    await putLines(raw, key, { '.bad': text })
    events.length = 0
    const answer = await client.get('/peek')
    expect(answer.json()).toEqual({ id: idOf(client), fields: { a: '1' }, userId: 'ann' })
    expect(events.filter(isOutOfTheOrdinary)).toEqual([
      told('corruptRecord', { id: idOf(client), field: 'bad', cause: expect.any(Error) }),
    ])
    // The cause tells nothing of the value.
    expect(inspect(events, { depth: null })).not.toMatch(/pin-xyz|oops/)
    // Other fields can be written, the broken one can be replaced, and nothing is a 500.
    expect((await client.post('/set?c=3')).status).toBe(200)
    expect((await linesAt(raw, key))['.bad']).toBe(text)
    expect((await client.post('/set?bad=4')).status).toBe(200)
    expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1', bad: '4', c: '3' })
  })

  test('in the token before the last renewal, only that is void', async () => {
    for (const text of ['', 'x', 'a b', `${newToken().tokenHash} soon`, '1 2 3']) {
      const { client } = await site(redisKind)
      await client.post('/set?a=1')
      await putLines(raw, await keyOf(idOf(client)), { p: text })
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
      expect((await client.post('/renew')).status).toBe(200)
      expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1' })
    }
  })

  test('cannot pollute a prototype', async () => {
    const { client } = await site(redisKind, {}, (app) => {
      app.get('/merge', (req, res) => {
        const merged = Object.assign({}, req.session, { ...req.session })
        for (const name in req.session) void Reflect.get(req.session, name)
        res.json({ keys: req.session.keys(), merged: Object.keys(merged), view: Object.entries(req.session).length })
      })
    })
    await client.post('/set?a=1')
    const key = await keyOf(idOf(client))
    const evil = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'
    const fields = { '.evil': evil, '.__proto__': '{"polluted":1}', '.constructor': evil, '.prototype': evil }
    await putLines(raw, key, { ...fields, ['__proto__']: 'x', constructor: 'x', hasOwnProperty: 'x' } as never)
    for (const path of ['/peek', '/merge']) expect((await client.get(path)).status).toBe(200)
    expect((await client.post('/set?b=2')).status).toBe(200)
    for (const subject of [{}, [], () => {}] as object[]) {
      expect((subject as { polluted?: unknown }).polluted).toBeUndefined()
    }
    expect((await client.get('/merge')).json()['keys']).toEqual(
      expect.arrayContaining(['a', 'b', 'evil', '__proto__', 'constructor', 'prototype']),
    )
  })
})

describe('a store of the application', () => {
  const now = Date.now()
  const good = (id: string): SessionData =>
    new SessionData({
      id,
      tokenHash: newToken().tokenHash,
      generation: 1,
      createdAt: now,
      updatedAt: now,
      lastAccessedAt: now,
      expiresAt: now + HOUR,
      absoluteExpiresAt: now + HOUR,
      fields: [['a', '1']],
    })

  /** Returns whatever it is told to, and keeps what is created besides. */
  class OddStore extends SessionStore {
    readonly records = new Map<string, SessionData>()
    answer: (id: string) => unknown = () => null

    async get(id: string): Promise<SessionData | null> {
      return this.records.get(id) ?? (this.answer(id) as SessionData | null)
    }
    async set(id: string, data: SessionData): Promise<void> {
      this.records.set(id, data)
    }
    async delete(id: string): Promise<void> {
      this.records.delete(id)
    }
  }

  const MEMBERS =
    'tokenHash generation createdAt expiresAt fields previousToken idleTimeoutMs userId context epoch ended'
  const DEEP_JSON = `${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`
  const noRecords: readonly (readonly [what: string, answer: (id: string) => unknown])[] = [
    ['an empty object', () => ({})],
    ['an array', () => []],
    ['a text', () => 'record'],
    ['a number', () => 42],
    ['true', () => true],
    ['a function', () => () => {}],
    ['a record as JSON', (id) => good(id).toJSON()],
    ['a record as text', (id) => JSON.stringify(good(id))],
    ['a record without its class', (id) => ({ ...good(id) })],
  ]

  test.each(noRecords)('that returns %s is at fault: 503, and the cookie is left alone', async (_what, answer) => {
    const store = new OddStore()
    const { client, middleware } = await site(memoryKind, { store })
    const events = eventsOf(middleware)
    const id = newSessionId()
    store.answer = answer
    client.cookies.set('sid', cookieValue(id, newToken().token))
    const { status, setCookies } = await client.get('/peek')
    expect([status, setCookies]).toEqual([503, []])
    expect(events).toEqual([
      told('storeError', { id, operation: 'get', error: expect.objectContaining({ code: 'STORE_UNAVAILABLE' }) }),
    ])
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })

  const wrong: readonly (readonly [what: string, answer: (id: string) => unknown])[] = [
    ['the record of another session', () => good(newSessionId())],
    ['a record without a token hash', (id) => good(id).with({ tokenHash: undefined as never })],
    ['a record whose token hash is a number', (id) => good(id).with({ tokenHash: 1 as never })],
    ['a record with times as text', (id) => good(id).with({ expiresAt: new Date(now).toISOString() as never })],
    ['a record with a Date', (id) => good(id).with({ lastAccessedAt: new Date(now) as never })],
    ['a record without times', (id) => good(id).with({ createdAt: undefined as never })],
    ['a record that never ends', (id) => good(id).with({ absoluteExpiresAt: Number.POSITIVE_INFINITY })],
    ['a record with an idle timeout that is no number', (id) => good(id).with({ idleTimeoutMs: Number.NaN })],
    ['a record with values that are not encoded', (id) => good(id).with({ fields: [['a', { b: 1 } as never]] })],
    ['a record with null for a value', (id) => good(id).with({ fields: [['a', null as never]] })],
    ['a record far beyond the limits', (id) => good(id).with({ fields: [['a', 'x'.repeat(4_000_001)]] })],
    ...['', '{', '[]', '{}', '"text"', 'null', '42', '{"cookie":null}', '{"id":1,"fields":[]}', DEEP_JSON].map(
      (text) => [`what fromJSON() refuses: ${text.slice(0, 20)}`, () => SessionData.fromJSON(text)] as const,
    ),
    ...MEMBERS.split(' ').map(
      (member) =>
        [
          `what fromJSON() refuses: an array for ${member}`,
          (id: string) => SessionData.fromJSON({ ...good(id).toJSON(), [member]: [] }),
        ] as const,
    ),
  ]

  test.each(wrong)('that returns %s gets an event and a new session, never a 500', async (_what, answer) => {
    const store = new OddStore()
    const { client, middleware } = await site(memoryKind, { store })
    const events = eventsOf(middleware)
    const id = newSessionId()
    store.answer = (asked) => (asked === id ? answer(id) : null)
    client.cookies.set('sid', cookieValue(id, newToken().token))
    for (let n = 0; n < 2; n++) {
      const { status, body } = await client.get('/peek')
      expect([status, fieldsOf({ json: () => JSON.parse(body) } as Answer)]).toEqual([200, {}])
    }
    expect(events).toEqual(
      Array.from({ length: 2 }, () =>
        told('corruptRecord', { id, cause: expect.objectContaining({ code: 'CORRUPT_RECORD' }) }),
      ),
    )
    expect((await client.post('/set?b=2')).status).toBe(200)
    expect(fieldsOf(await client.get('/peek'))).toEqual({ b: '2' })
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })

  test('that returns undefined for what it does not have is understood', async () => {
    const store = new OddStore()
    store.answer = () => undefined
    const { client, middleware } = await site(memoryKind, { store })
    const events = eventsOf(middleware)
    const id = newSessionId()
    client.cookies.set('sid', cookieValue(id, newToken().token))
    expect((await client.get('/peek')).status).toBe(200)
    expect(events).toEqual([told('unknownSession', { id, ip: '127.0.0.1' })])
    await client.post('/set?a=1')
    await client.post('/login')
    await client.post('/set?b=2')
    expect(fieldsOf(await client.get('/peek'))).toEqual({ a: '1', b: '2' })
    await client.post('/logout')
    expect([...store.records.values()].map((record) => overOf(record))).toEqual([
      { reason: 'regenerated', fields: 0 },
      { reason: 'logout', fields: 0 },
    ])
  })
})

describe('in the logs of a program', () => {
  test('with DEBUG=* there is no token, cookie value or secret', async () => {
    const program = await startProgram('tests/support/app-process.ts', [redisServer.url, PREFIX], { DEBUG: '*' })
    try {
      const seen = new Ledger()
      const client = new Client(program.url)
      for (const path of ['/set?a=1', '/login', '/renew', '/regenerate?keep=true', '/update', '/nowhere', '/logout']) {
        const before = client.cookieHeader
        seen.issue(await client.post(path))
        await client.get('/peek', { cookie: before })
        await client.get('/peek', { cookie: `${before}x` })
      }
      await raw.config('SET', 'maxmemory', '1')
      expect((await client.post('/set?a=1')).status).toBe(503)
      await raw.config('SET', 'maxmemory', '0')
      await program.stop()
      seen.note('log', { text: program.output() })
      expect(seen.secretCount).toBeGreaterThan(15)
      expect(program.output().length).toBeGreaterThan(1000)
      expect(seen.leaks()).toEqual([])
    } finally {
      await raw.config('SET', 'maxmemory', '0')
      await program.stop()
    }
  })

  test('an error of Redis shows no value of the session and no token hash', async () => {
    const errors: unknown[] = []
    const { client, server, middleware } = await site(redisKind, {}, (app) => {
      const handler: ErrorRequestHandler = (error, _req, res, _next) => {
        errors.push(error)
        res.status(503).end()
      }
      app.use(handler)
    })
    const events = eventsOf(middleware)
    await client.post('/set?a=1')
    const { t: hash } = await linesAt(raw, await keyOf(idOf(client)))
    expect(hash).toHaveLength(43)
    await raw.config('SET', 'maxmemory', '1')
    try {
      expect((await client.post('/set?card=4111111111111111')).status).toBe(503)
      expect((await new Client(server).post('/set?card=4111111111111111')).status).toBe(503)
      expect((await new Client(server).post('/login?user=4111111111111111')).status).toBe(503)
    } finally {
      await raw.config('SET', 'maxmemory', '0')
    }
    expect(errors).toHaveLength(3)
    const text = [errors, events].map((things) => inspect(things, EVERYTHING)).join() + JSON.stringify([errors, events])
    expect(text).toContain('OOM')
    expect(text).not.toContain('4111111111111111')
    expect(text).not.toContain(hash)
  })

  test('the store and its options show no password', () => {
    const store = new RedisSessionStore({ url: 'redis://user:p4ssw0rd@127.0.0.1:1' })
    const middleware = session({ secret: SECRET, store })
    try {
      for (const thing of [store, middleware, middleware.store]) {
        const text = inspect(thing, EVERYTHING) + inspect(thing, { ...EVERYTHING, customInspect: false })
        expect(text + JSON.stringify(thing)).not.toMatch(/p4ssw0rd/)
      }
    } finally {
      void store.close()
    }
  })
})
