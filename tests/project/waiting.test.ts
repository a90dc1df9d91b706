// What a request makes others wait for, counted: promises, timers, turns of the event loop. Times are for bench/. Who lets one of
// these numbers grow raises it here, on purpose.
import { AsyncLocalStorage, createHook } from 'node:async_hooks'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals'
import {
  MemorySessionStore,
  type SessionChange,
  type SessionData,
  type SessionMiddleware,
  type SessionStore,
  session,
  type UpdateResult,
} from 'sojourn'
import { sqlStore } from 'sojourn/sql'
import { SECRET } from '../support/http.js'

const REQUESTS = 100

/** The same sessions, behind promises, as any store has them that is somewhere else. */
class DistantStore extends MemorySessionStore {
  override async get(id: string): Promise<SessionData | null> {
    return super.get(id)
  }
  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    return super.update(id, change, ttlSeconds)
  }
}

type Handler = (req: IncomingMessage) => void

const HANDLERS: Readonly<Record<string, Handler>> = {
  ignores: () => {},
  reads: (req) => req.session.get('views'),
  changes: (req) => req.session.set('views', Number(req.session.get('views') ?? 0) + 1),
}

beforeEach(() => {
  // No second passes: each asks once for the epoch.
  jest.spyOn(performance, 'now').mockReturnValue(1_000_000)
})
afterEach(() => {
  jest.restoreAllMocks()
})

/** One request without a network, answered by the handler at once. */
function send(middleware: SessionMiddleware, cookie: string | undefined, handler: Handler): ServerResponse {
  const req = new IncomingMessage(new Socket())
  req.method = 'GET'
  req.url = '/'
  if (cookie !== undefined) req.headers = { cookie }
  const res = new ServerResponse(req)
  middleware(req, res, (error?: unknown) => {
    if (error) throw error
    handler(req)
    res.end('done')
  })
  return res
}

/** A middleware, and the cookie of a session in its store. */
async function begin(store: SessionStore): Promise<{ middleware: SessionMiddleware; cookie: string }> {
  const middleware = session({ secret: SECRET, store, cookie: { secure: false } })
  const res = send(middleware, undefined, (req) => req.session.set('views', 1))
  await until(() => isRendered(res))
  const [cookie = ''] = String(res.getHeader('Set-Cookie')).split(';')
  // What is asked for once is asked for now.
  await until(() => isRendered(send(middleware, cookie, HANDLERS['changes'] as Handler)) || true)
  await turns(10)
  return { middleware, cookie }
}

function isRendered(res: ServerResponse): boolean {
  return String((res as unknown as { _header: string | null })._header).startsWith('HTTP')
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await turns(1)
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** What is made while a task runs, by kind. */
function madeBy(task: () => void): { promises: number; timers: number; immediates: number } {
  const made = { promises: 0, timers: 0, immediates: 0 }
  const hook = createHook({
    init(_id, type) {
      if (type === 'PROMISE') made.promises++
      else if (type === 'Timeout') made.timers++
      else if (type === 'Immediate') made.immediates++
    },
  })
  // Node keeps the text of the date for a second, with a timer of its own.
  new ServerResponse(new IncomingMessage(new Socket())).end('bare')
  hook.enable()
  task()
  hook.disable()
  return made
}

describe.each<[string, () => SessionStore]>([
  ['the memory store', () => new MemorySessionStore({ cleanupInterval: 0 })],
  ['SQLite', () => sqlStore('sqlite::memory:', { cleanupInterval: 0 })],
])('a request on %s', (_store, createStore) => {
  test.each(Object.entries(HANDLERS))(
    'that %s its session takes no promise, no timer and no turn',
    async (_does, handler) => {
      const store = createStore()
      const { middleware, cookie } = await begin(store)
      let answered = 0
      const made = madeBy(() => {
        for (let n = 0; n < REQUESTS; n++) if (isRendered(send(middleware, cookie, handler))) answered++
      })
      expect(made).toEqual({ promises: 0, timers: 0, immediates: 0 })
      // In the turn in which it was made.
      expect(answered).toBe(REQUESTS)
      await store.close()
    },
  )
})

describe('a request on the memory store', () => {
  test('without a cookie takes none either', async () => {
    const { middleware } = await begin(new MemorySessionStore({ cleanupInterval: 0 }))
    const made = madeBy(() => {
      for (let n = 0; n < REQUESTS; n++) send(middleware, undefined, HANDLERS['reads'] as Handler)
    })
    expect(made).toEqual({ promises: 0, timers: 0, immediates: 0 })
  })

  test('that is watched is asked as every other store is', async () => {
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const { middleware, cookie } = await begin(store)
    const get = jest.spyOn(store, 'get')
    const res = send(middleware, cookie, HANDLERS['reads'] as Handler)
    await until(() => isRendered(res))
    expect(get).toHaveBeenCalledTimes(1)
  })
})

describe('requests on a store that is somewhere else', () => {
  test('share one timer for all deadlines, and leave none behind', async () => {
    const { middleware, cookie } = await begin(new DistantStore({ cleanupInterval: 0 }))
    const active = (): number => process.getActiveResourcesInfo().filter((type) => type === 'Timeout').length
    const before = active()
    const responses: ServerResponse[] = []
    const made = madeBy(() => {
      for (let n = 0; n < REQUESTS; n++) responses.push(send(middleware, cookie, HANDLERS['changes'] as Handler))
    })
    expect(made.timers).toBeLessThanOrEqual(1)
    await until(() => responses.every(isRendered))
    // It does not keep the process alive. What others had under way before may have ended.
    expect(active()).toBeLessThanOrEqual(before)
  })

  // Those of the store are counted, too.
  test.each([
    ['ignores', 12],
    ['reads', 12],
    ['changes', 26],
  ])('that %s its session: at most %i promises', async (does, most) => {
    const { middleware, cookie } = await begin(new DistantStore({ cleanupInterval: 0 }))
    let promises = 0
    // Not what others in this process do meanwhile.
    const request = new AsyncLocalStorage<true>()
    const hook = createHook({
      init(_id, type) {
        if (type === 'PROMISE' && request.getStore()) promises++
      },
    })
    await new Promise<void>((resolve) => {
      hook.enable()
      const res = request.run(true, () => send(middleware, cookie, HANDLERS[does] as Handler))
      // Without a promise of its own.
      const look = (): void => {
        if (isRendered(res)) resolve()
        else setImmediate(look)
      }
      look()
    })
    hook.disable()
    expect(promises).toBeGreaterThan(0)
    expect(promises).toBeLessThanOrEqual(most)
  })
})
