// A session manager with an Express app in front of it, for describe.each(GROUNDS): memory and a real Redis.
import { once } from 'node:events'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll } from '@jest/globals'
import express, { type Express, type Request, type RequestHandler, type Response } from 'express'
import { Redis } from 'ioredis'
import {
  isSessionError,
  MemorySessionStore,
  type Session,
  type SessionError,
  type SessionEventMap,
  type SessionEventName,
  SessionManager,
  type SessionOptions,
  type SessionStore,
} from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { ALL_EVENT_NAMES } from '../../src/events/events.js'
import { runWithoutSession } from '../../src/request-scope.js'
import { type Answer, Client, listen, SECRET } from './http.js'
import { RedisServer } from './redis.js'

/** What stores of one kind stand on. Each test has the data to itself. */
export interface Ground {
  start(): Promise<void>
  /** A store on the data of this test; in memory always the same one. */
  store(): SessionStore
  /** The same data, as it is kept: every key of Redis with its value. Nothing for memory. */
  dump(): Promise<readonly (readonly [key: string, value: unknown])[]>
  /** Closes the stores and forgets the data. */
  reset(): Promise<void>
  stop(): Promise<void>
}

/** A ground for the tests of a block, started before the first of them and emptied after each. */
export function useGround(make: () => Ground): Ground {
  const ground = make()
  beforeAll(() => ground.start())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })
  afterAll(() => ground.stop())
  return ground
}

export class MemoryGround implements Ground {
  #store = new MemorySessionStore({ cleanupInterval: 0 })

  async start(): Promise<void> {}
  store(): SessionStore {
    return this.#store
  }
  async dump(): Promise<[]> {
    return []
  }
  async reset(): Promise<void> {
    this.#store = new MemorySessionStore({ cleanupInterval: 0 })
  }
  async stop(): Promise<void> {}
}

export class RedisGround implements Ground {
  server!: RedisServer
  /** A connection that the library knows nothing of. */
  raw!: Redis
  readonly prefix = 'rig:'
  #stores: SessionStore[] = []

  async start(): Promise<void> {
    this.server = await RedisServer.start()
    this.raw = new Redis(this.server.url)
    await once(this.raw, 'ready')
  }
  store(): SessionStore {
    const store = new RedisSessionStore({ url: this.server.url, prefix: this.prefix })
    this.#stores.push(store)
    return store
  }
  async dump(): Promise<[string, unknown][]> {
    const found: [string, unknown][] = []
    for (const key of (await this.raw.keys('*')).sort()) {
      found.push([key, (await this.raw.type(key)) === 'hash' ? await this.raw.hgetall(key) : await this.raw.get(key)])
    }
    return found
  }
  async reset(): Promise<void> {
    await Promise.all(this.#stores.splice(0).map((store) => store.close()))
    await this.raw.flushall()
  }
  async stop(): Promise<void> {
    this.raw.disconnect()
    await this.server.stop()
  }
}

export const GROUNDS: readonly (readonly [name: string, make: () => Ground])[] = [
  ['memory', () => new MemoryGround()],
  ['Redis', () => new RedisGround()],
]

/** Not those that come with others, nor what a store does by itself: tests of their own listen to them. */
const BESIDE_OTHERS: readonly SessionEventName[] = [
  'storeCall',
  'ended',
  'boundary',
  'forgotten',
  'csrfRefused',
  'deviceOffered',
  'deviceBound',
  'deviceProved',
  'deviceRefused',
  'clientChanged',
  'recovered',
  'recoveryRefused',
  'secretsChanged',
  'secretsRefused',
]

/** The names of the events that stand for themselves. */
export const EVENT_NAMES = ALL_EVENT_NAMES.filter((name) => !BESIDE_OTHERS.includes(name))

/** An event as it was told, with its name. */
export type Told<Name extends SessionEventName = SessionEventName> = {
  [N in Name]: { readonly name: N; readonly at: number } & SessionEventMap[N]
}[Name]

type Handler<T> = (session: Session, req: Request, res: Response) => T | Promise<T>

export interface RigOptions extends Partial<SessionOptions> {
  /** Called with the app before the routes are added. */
  prepare?: (app: Express, manager: SessionManager) => void
}

/** One process: a manager, its store, which counts and fails on demand, and an app with a client. */
export class Rig {
  readonly clock: FakeClock
  readonly store: FaultyStore
  readonly manager: SessionManager
  /** Everything that was told, in order. */
  readonly told: Told[] = []
  /** The answer to the last request that ended. */
  answer: Answer | undefined
  client!: Client
  url = ''
  readonly #handlers = new Map<string, (req: Request, res: Response) => Promise<void>>()
  readonly #errors = new Map<string, unknown>()
  #close: () => Promise<void> = async () => {}

  private constructor(options: Partial<SessionOptions>, store: SessionStore, clock: FakeClock) {
    this.clock = clock
    this.store = new FaultyStore(store)
    // A machine under load must not look like a store that fails.
    const patience = { storeTimeout: '10s' }
    this.manager = new SessionManager({ secret: SECRET, store: this.store, clock: clock.now, ...patience, ...options })
    for (const name of EVENT_NAMES) {
      this.manager.events.on(name, (event) => {
        this.told.push({ name, ...event } as unknown as Told)
      })
    }
  }

  static async start(
    ground: Ground,
    { prepare, ...options }: RigOptions = {},
    clock: FakeClock = new FakeClock(),
    /** Routes behind the session. */
    routes?: RequestHandler,
  ): Promise<Rig> {
    const rig = new Rig(options, ground.store(), clock)
    const app = express()
    app.set('env', 'test')
    prepare?.(app, rig.manager)
    app.use(rig.manager.middleware())
    app.get('/plain', (_req, res) => {
      res.send('plain')
    })
    if (routes !== undefined) app.use(routes)
    app.get(/.*/, (req, res, next) => {
      const run = rig.#handlers.get(req.get('x-handler') ?? '')
      return run ? run(req, res) : next()
    })
    app.use((error: unknown, req: Request, res: Response, _next: (error?: unknown) => void) => {
      rig.#errors.set(req.get('x-handler') ?? '', error)
      res.status((error as Partial<SessionError>).status ?? 500).end('failed')
    })
    const server = await listen(app)
    rig.url = server.url
    rig.client = rig.stranger()
    rig.#close = async () => {
      await server.close()
      await rig.manager.close()
    }
    open.push(rig)
    return rig
  }

  /**
   * Sends one request, runs `handler` in it, and resolves to what the handler returned when the answer has arrived.
   * Rejects with what reached the error handler.
   */
  async ask<T>(
    handler: Handler<T>,
    client = this.client,
    { path = '/', headers = {} }: { path?: string; headers?: Record<string, string> } = {},
  ): Promise<T> {
    const name = String(this.#handlers.size)
    let result: T | undefined
    this.#handlers.set(name, async (req, res) => {
      result = await handler(req.session, req, res)
      if (!res.headersSent && !res.writableEnded) res.end('done')
    })
    this.answer = await client.get(path, { 'x-handler': name, ...headers })
    if (this.#errors.has(name)) throw this.#errors.get(name)
    return result as T
  }

  /** A client without cookies. */
  stranger(cookies?: Iterable<readonly [string, string]>): Client {
    return new Client(this.url, cookies)
  }

  /** A client with a session of this user. */
  async login(userId: string | number, headers: Record<string, string> = {}): Promise<Client> {
    const client = this.stranger()
    await this.ask((session) => session.login(userId), client, { headers })
    return client
  }

  /** Clients with so many sessions of this user, one after the other and a second apart. */
  async logins(userId: string | number, count: number): Promise<Client[]> {
    const clients: Client[] = []
    for (let n = 0; n < count; n++) {
      clients.push(await this.login(userId))
      this.clock.advance(1_000)
    }
    return clients
  }

  /** Who a client's cookie makes it. */
  async whoIs(client = this.client): Promise<string | number | null> {
    return this.ask((session) => session.metadata.userId ?? null, client)
  }

  /** What was told under these names. */
  heard<Name extends SessionEventName>(...names: Name[]): Told<Name>[] {
    return this.told.filter(({ name }) => (names as SessionEventName[]).includes(name)) as unknown as Told<Name>[]
  }

  /** Stops the server and the manager, with its store. */
  async close(): Promise<void> {
    const index = open.indexOf(this)
    if (index !== -1) open.splice(index, 1)
    await this.#close()
  }
}

const open: Rig[] = []

/** For afterEach: closes the rigs of the test. */
export async function closeRigs(): Promise<void> {
  await Promise.all([...open].map((rig) => rig.close()))
}

/** Runs `task` in a handler as somebody else would: to end the session that is at hand is no logout then. */
export function outside<T>(task: () => T): T {
  return runWithoutSession(task, undefined)
}

/** The public session ID in a client's cookie. */
export function idOf(client: Client): string {
  return partsOf(client)[0]
}

/** Session ID, token and signature of a client's cookie. */
export function partsOf(client: Client): [id: string, token: string, signature: string] {
  const [id, token, signature] = decodeURIComponent(client.cookies.get('sid') ?? '').split('.')
  if (id === undefined || token === undefined || signature === undefined) throw new Error('The client has no cookie.')
  return [id, token, signature]
}

/** The error that a promise rejects with; fails when it does not. */
export async function refusal(promise: Promise<unknown>): Promise<SessionError> {
  try {
    await promise
  } catch (error) {
    if (isSessionError(error)) return error
    throw error
  }
  throw new Error('It was not refused.')
}

/** Everything that a log could show of a thing. */
export function viewsOf(thing: unknown): string {
  const everything = { showHidden: true, showProxy: true, depth: null, maxStringLength: null, getters: true } as const
  return [inspect(thing), inspect(thing, everything), JSON.stringify(thing) ?? ''].join('\n')
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
