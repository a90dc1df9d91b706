// The examples as programs of their own, driven over HTTP.
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { get, request as httpRequest, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { io, type Socket } from 'socket.io-client'
import { type Answer, Client, SECRET, send, until } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { freePort, sharedRedis } from '../support/redis.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const sessionFiles = mkdtempSync(join(tmpdir(), 'sojourn-examples-'))
const started: Program[] = []
let redis: Awaited<ReturnType<typeof sharedRedis>>
let shopInMemory: Program
let shopOnRedis: Program
let shopWithoutRedis: Program
let bank: Program
let clusterOfWorkers: Program
let customStore: Program
let passportLogin: Program
let plainHttp: Program
let socketIo: Program
let streaming: Program
let supportDesk: Program
let supportDeskWithoutRedis: Program
let typedSession: Program

beforeAll(async () => {
  redis = await sharedRedis()
  const closedPort = await freePort()
  ;[
    shopInMemory,
    shopOnRedis,
    shopWithoutRedis,
    bank,
    clusterOfWorkers,
    customStore,
    passportLogin,
    plainHttp,
    socketIo,
    streaming,
    supportDesk,
    supportDeskWithoutRedis,
    typedSession,
  ] = await Promise.all([
    start('app'),
    start('app', { REDIS_URL: redis.url, SESSION_SECRET: SECRET }),
    start('app', { REDIS_URL: `redis://127.0.0.1:${closedPort}` }),
    start('bank'),
    start('cluster', { REDIS_URL: redis.url }),
    start('custom-store', { SESSION_DIR: sessionFiles, SESSION_SECRET: SECRET }),
    start('passport-login'),
    start('plain-http'),
    start('socket-io'),
    start('streaming'),
    start('support-desk'),
    start('support-desk', { REDIS_URL: `redis://127.0.0.1:${closedPort}` }),
    start('typed-session'),
    start('postgres', { SESSION_SECRET: SECRET }),
    start('sqlite', { SESSION_FILE: join(sessionFiles, 'sessions.db'), SESSION_SECRET: SECRET }),
  ])
  // Each is a compiler and a program, and a machine may do much else at the same time.
}, 120_000)

test.each(
  readdirSync(join(ROOT, 'examples'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name),
)(
  '%s says in one line what to do when its port is taken',
  async (name) => {
    const { code, lines } = await runOnTakenPort(name)
    expect(code).toBe(1)
    expect(lines).toEqual([expect.stringMatching(/^(The port|Port \d+) is taken\. Choose another one.*PORT=3001/)])
  },
  60_000,
)

afterAll(async () => {
  await Promise.all(started.map((program) => program.stop()))
  await redis.stop()
  rmSync(sessionFiles, { recursive: true })
  // Every example, and every start of it, has closed what it had open and ended by itself.
  expect(started.map((program) => program.process.exitCode)).toEqual(started.map(() => 0))
})

test('every example is run by a test of this folder', () => {
  const names = readdirSync(join(ROOT, 'examples'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  const here = started.map((program) => program.process.spawnargs.join(' '))
  const others = readdirSync(join(ROOT, 'tests/examples')).map((file) =>
    readFileSync(join(ROOT, 'tests/examples', file), 'utf8'),
  )
  const isRun = (name: string): boolean =>
    [...here, ...others].some((text) => text.includes(`examples/${name}/server.ts`) || text.includes(`'${name}'`))
  expect(names.map(({ name }) => name).filter((name) => !isRun(name))).toEqual([])
})

describe('bank', () => {
  test('pays by its own form, and not by that of another site or without a token', async () => {
    const browser = new Client(bank.url)
    const tokenOf = async (): Promise<string> =>
      /name="_csrf" value="([\w-]+)"/.exec((await browser.get('/')).body)?.[1] as string
    const coins = async (): Promise<string> => /<b>(\d+)<\/b>/.exec((await browser.get('/')).body)?.[1] as string
    const before = await tokenOf()
    const login = { name: 'alice', password: 'correct horse', _csrf: before }
    expect((await browser.submit('/login', { ...login, password: 'wrong' })).status).toBe(401)
    expect((await browser.submit('/login', login)).status).toBe(303)
    expect(await coins()).toBe('100')
    expect((await browser.submit('/transfer', { _csrf: await tokenOf() })).status).toBe(303)
    expect(await coins()).toBe('90')
    const forged = await browser.request('POST', '/transfer', { headers: { 'sec-fetch-site': 'cross-site' } })
    expect([forged.status, forged.body]).toEqual([403, expect.stringContaining('Sec-Fetch-Site')])
    expect((await browser.submit('/transfer', {})).status).toBe(403)
    expect((await browser.submit('/transfer', { _csrf: before })).status).toBe(403)
    expect(await coins()).toBe('90')
    expect((await browser.submit('/logout', { _csrf: await tokenOf() })).status).toBe(303)
    expect((await browser.get('/')).body).toContain('Log in')
  })
})

describe.each([
  ['memory', () => shopInMemory],
  ['Redis', () => shopOnRedis],
])('app on %s', (storeName, shop) => {
  test('a page counts visits and tells user, session ID, end and store', async () => {
    const browser = new Client(shop().url)
    const first = shown(await browser.get('/'))
    expect(first).toMatchObject({ visits: 1, user: 'nobody is logged in', store: storeName, cart: [] })
    const second = shown(await browser.get('/'))
    expect(second).toMatchObject({ visits: 2, sessionId: first.sessionId })
    const minutesLeft = (Date.parse(second.endsAt) - Date.now()) / 60_000
    expect(minutesLeft).toBeGreaterThan(29)
    expect(minutesLeft).toBeLessThanOrEqual(30)
  })

  test('the page behind the redirect has what was put in the cart, and what was taken out', async () => {
    const browser = new Client(shop().url)
    for (const product of ['Tea', 'Honey', 'Tea']) {
      expect(await browser.submit('/cart/add', { product })).toMatchObject({ status: 303, headers: { location: '/' } })
    }
    expect(shown(await browser.get('/')).cart).toEqual(['2 × Tea', '1 × Honey'])
    await browser.submit('/cart/remove', { product: 'Tea' })
    expect(shown(await browser.get('/')).cart).toEqual(['1 × Honey'])
    await browser.submit('/cart/remove', { product: 'Honey' })
    expect(shown(await browser.get('/')).cart).toEqual([])
    expect((await browser.submit('/cart/add', { product: 'Gold' })).status).toBe(400)
  })

  test('a login keeps the cart under a new session ID, and the cookie from before is worth nothing', async () => {
    const browser = new Client(shop().url)
    await browser.submit('/cart/add', { product: 'Tea' })
    const before = shown(await browser.get('/'))
    const stolen = new Client(shop().url, browser.cookies)
    await browser.submit('/login', { name: 'Ann' })
    const after = shown(await browser.get('/'))
    expect(after).toMatchObject({ user: 'Ann', cart: ['1 × Tea'], visits: 2 })
    expect(after.sessionId).not.toBe(before.sessionId)
    expect(shown(await stolen.get('/'))).toMatchObject({ user: 'nobody is logged in', cart: [], visits: 1 })
  })

  test('a logout ends the session, also for a copy of its cookie', async () => {
    const browser = new Client(shop().url)
    await browser.submit('/login', { name: 'Ann' })
    const copy = new Client(shop().url, browser.cookies)
    await browser.submit('/logout')
    expect(browser.cookies.size).toBe(0)
    expect(shown(await copy.get('/'))).toMatchObject({ user: 'nobody is logged in', visits: 1 })
  })
})

describe('app', () => {
  test('a session on Redis survives a restart of the program', async () => {
    const env = { REDIS_URL: redis.url, SESSION_SECRET: SECRET }
    const before = await start('app', env)
    const browser = new Client(before.url)
    await browser.submit('/cart/add', { product: 'Honey' })
    await browser.submit('/login', { name: 'Ann' })
    const { sessionId } = shown(await browser.get('/'))
    await before.stop()
    const after = await start('app', env)
    const page = shown(await new Client(after.url, browser.cookies).get('/'))
    expect(page).toMatchObject({ sessionId, user: 'Ann', cart: ['1 × Honey'], visits: 2, store: 'Redis' })
  })

  test('a name is shown as text, whatever it is made of', async () => {
    const browser = new Client(shopInMemory.url)
    await browser.submit('/login', { name: `<img src=x onerror='alert("1")'>` })
    const { body } = await browser.get('/')
    expect(body).not.toContain('<img src=x')
    expect(body).toContain('&#60;img src=x onerror=&#39;alert(&#34;1&#34;)')
  })

  test('a form of another site changes nothing', async () => {
    const browser = new Client(shopInMemory.url)
    await browser.get('/')
    for (const sender of ['cross-site', 'same-site']) {
      expect((await browser.submit('/login', { name: 'Mallory' }, { 'sec-fetch-site': sender })).status).toBe(403)
    }
    expect(shown(await browser.get('/')).user).toBe('nobody is logged in')
    expect((await browser.submit('/login', { name: 'Ann' }, { 'sec-fetch-site': 'same-origin' })).status).toBe(303)
  })

  test('what the page loads is there, and asks for no session', async () => {
    const browser = new Client(shopInMemory.url)
    const { body, headers } = await browser.get('/')
    expect(headers['content-security-policy']).toContain("default-src 'self'")
    // Nothing inline, which that policy would refuse.
    expect(body).not.toMatch(/<style|<script(?![^>]* src=)| style=| on\w+=/)
    const paths = new Set([...body.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path as string))
    const files = ['biscuits.svg', 'honey.svg', 'icon.svg', 'jam.svg', 'style.css', 'tea.svg', 'trials.js']
    expect([...paths].toSorted()).toEqual(files.map((file) => `/${file}`))
    for (const path of paths) expect(await browser.get(path)).toMatchObject({ status: 200, setCookies: [] })
  })

  test('a slow request revives no session for a copy of its cookie, as it does behind express-session', async () => {
    const outcomes = ['sojourn', 'express-session'].map(async (side) => {
      const browser = new Client(`${shopInMemory.url}/${side}`)
      await browser.post('/login')
      const copy = new Client(`${shopInMemory.url}/${side}`, browser.cookies)
      const slow = copy.clone().post('/slow')
      await until(async () => (await copy.get('/user')).json<{ user: unknown }>().user === 'Ann')
      await browser.post('/logout')
      const { refused } = (await slow).json<{ refused?: number }>()
      return { refused, ...(await copy.get('/user')).json() }
    })
    expect(await Promise.all(outcomes)).toEqual([{ refused: 409, user: null }, { user: 'Ann' }])
  })

  test('sessions that would outlive the program, and a secret that does not, are one line, which says what to do', () => {
    expect(shopWithoutRedis.output()).toMatch(/^No SESSION_SECRET: .* openssl rand -base64 32\nhttp:\S+\n$/)
  })

  test('without its Redis it answers 503 in plain words', async () => {
    const answer = await new Client(shopWithoutRedis.url).get('/')
    expect(answer).toMatchObject({ status: 503, setCookies: [] })
    expect(answer.body).toBe('The session store does not answer. Please try again in a moment.')
  })
})

describe('cluster', () => {
  const login = async (client: Client, name: string): Promise<Answer> => {
    const answer = await client.post('/login', { name })
    expect(answer.status).toBe(200)
    return answer
  }

  test('its story: a session goes on when its worker is killed, and is listed and revoked from outside', async () => {
    const { NODE_OPTIONS: _jestOptions, ...env } = process.env
    const args = ['--import', 'tsx', 'examples/cluster/story.ts', clusterOfWorkers.url]
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, {
      cwd: ROOT,
      env: { ...env, REDIS_URL: redis.url },
    })
    expect(stderr).toBe('')
    const lines = stdout.trimEnd().split('\n')
    const [, user, session, killed] =
      /^Laptop: (\S+) is logged in\. Session (\S+), answered by worker (\d+)\.$/.exec(lines[0] as string) ?? []
    expect(killed).toBeDefined()
    expect(lines[1]).toBe(`Worker ${killed} is killed.`)
    const [, sameUser, sameSession, other] =
      /^Laptop: still (\S+)\. Session (\S+), answered by worker (\d+)\.$/.exec(lines[2] as string) ?? []
    expect([sameUser, sameSession]).toEqual([user, session])
    expect(other).not.toBe(killed)
    const devices = lines.slice(3, 5).map((line) => /^Listed: \S+, (.+)\.$/.exec(line)?.[1])
    expect(new Set(devices)).toEqual(new Set(['Laptop at 127.0.0.1', 'Phone at 127.0.0.1']))
    expect(lines.slice(5)).toEqual(['Phone: nobody. revoked by story: The phone is lost.', 'Ended: 1 more. Left: 0.'])
    await until(() => clusterOfWorkers.output().includes(`Worker ${killed} has ended (SIGKILL).`))
  })

  test('logins at once on several workers leave as many sessions as a user may have', async () => {
    const name = randomUUID()
    const clients = Array.from({ length: 8 }, () => new Client(clusterOfWorkers.url))
    const answers = await Promise.all(clients.map((client) => client.post('/login', { name })))
    // One that gave way while it began is told so.
    expect(answers.filter(({ status }) => ![200, 409].includes(status))).toEqual([])
    const users = await Promise.all(
      clients.map(async (client) => (await client.get('/')).json<{ user?: string }>().user),
    )
    expect(users.filter((user) => user === name)).toHaveLength(5)
  })

  test('a user sees where they are logged in, and ends all sessions but this one', async () => {
    const name = randomUUID()
    const [here, elsewhere] = [new Client(clusterOfWorkers.url), new Client(clusterOfWorkers.url)]
    await login(elsewhere, name)
    await login(here, name)
    const copy = here.clone()
    const list = (await here.get('/sessions')).json<{ isCurrent: boolean }[]>()
    expect(list).toHaveLength(2)
    expect(list.filter(({ isCurrent }) => isCurrent)).toHaveLength(1)
    expect((await here.post('/logout-elsewhere')).json()).toEqual({ ended: 1 })
    expect((await elsewhere.get('/')).json()).toMatchObject({ previousEnd: { reason: 'revoked', by: name } })
    // What was left goes on under a new ID and token.
    expect((await here.get('/')).json()).toMatchObject({ user: name })
    expect((await copy.get('/sessions')).status).toBe(401)
  })

  test('on SIGTERM what was asked is answered and stored, and every process ends', async () => {
    const env = { REDIS_URL: redis.url, SESSION_SECRET: SECRET }
    const name = randomUUID()
    const body = JSON.stringify({ name })
    const before = await start('cluster', env)
    const request = httpRequest(`${before.url}/login`, {
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'application/json', 'content-length': body.length, expect: '100-continue' },
    })
    request.flushHeaders()
    // A worker has the request, and waits for its body.
    await once(request, 'continue')
    const stopped = before.stop()
    await until(() => refusesConnections(Number(new URL(before.url).port)), 20_000)
    request.end(body)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(response.statusCode).toBe(200)
    response.resume()
    await stopped
    const [cookie = ''] = response.headers['set-cookie'] ?? []
    const after = await start('cluster', env)
    const answer = await send(after.url, { headers: { cookie: cookie.split(';', 1)[0] as string } })
    expect(answer.json()).toMatchObject({ user: name })
  })
})

describe('custom-store', () => {
  test('requests at once lose no update, and the files hold no token', async () => {
    const client = new Client(customStore.url)
    expect((await client.get('/')).body).toBe('You have seen this page 1 times.\n')
    await Promise.all(Array.from({ length: 20 }, () => client.get('/')))
    expect((await client.get('/')).body).toBe('You have seen this page 22 times.\n')
    const [id, token] = (client.cookies.get('sid') as string).split('.') as [string, string]
    const stored = readFileSync(join(sessionFiles, `${id}.json`), 'utf8')
    expect(JSON.parse(stored)).toMatchObject({ id, fields: { views: '22' } })
    expect(stored).not.toContain(token)
    expect(readdirSync(sessionFiles).filter((file) => file.endsWith('.draft'))).toEqual([])
  })

  test('another start on the same files finds the session', async () => {
    const client = new Client(customStore.url)
    await client.get('/')
    const other = await start('custom-store', { SESSION_DIR: sessionFiles, SESSION_SECRET: SECRET })
    expect((await new Client(other.url, client.cookies).get('/')).body).toBe('You have seen this page 2 times.\n')
  })

  test('with --check it reports what the store guarantees, and what not', async () => {
    const { NODE_OPTIONS: _jestOptions, ...env } = process.env
    const args = ['--import', 'tsx', 'examples/custom-store/server.ts', '--check']
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT, env })
    const lines = stdout.trimEnd().split('\n')
    expect(lines.at(-1)).toBe('Guarantees: basic, atomic')
    expect(lines.filter((line) => line.startsWith('pass  ')).length).toBeGreaterThan(25)
    const failed = lines.filter((line) => line.startsWith('FAIL  '))
    expect(failed.filter((line) => !line.startsWith('FAIL  across processes: '))).toEqual([])
  })
})

describe('typed-session', () => {
  test('defaults are filled in without a session, and values are stored as the schema makes them', async () => {
    const client = new Client(typedSession.url)
    const first = await client.get('/settings')
    expect(first.json()).toEqual({ theme: 'light', pageSize: 20, pinned: [] })
    expect(first.setCookies).toEqual([])
    const body = { theme: 'dark', pageSize: '50' }
    expect((await client.request('PATCH', '/settings', { body })).json()).toMatchObject({ theme: 'dark', pageSize: 50 })
    expect((await client.get('/settings')).json()).toEqual({ theme: 'dark', pageSize: 50, pinned: [] })
  })

  test('what does not fit is refused with the issues of the schema, and not stored', async () => {
    const client = new Client(typedSession.url)
    await client.request('PATCH', '/settings', { body: { theme: 'dark' } })
    const refused = await client.request('PATCH', '/settings', { body: { theme: 'pink' } })
    expect(refused.status).toBe(400)
    expect(refused.json()).toMatchObject({ issues: [{ path: ['theme'] }] })
    for (let name = 1; name <= 6; name++) {
      expect((await client.post(`/pinned/${name}`)).status).toBe(name <= 5 ? 200 : 400)
    }
    expect((await client.get('/settings')).json()).toMatchObject({ theme: 'dark', pinned: ['1', '2', '3', '4', '5'] })
  })

  test('fields beside the schema stay', async () => {
    const client = new Client(typedSession.url)
    await client.post('/search/tea')
    await client.post('/pinned/tea')
    expect((await client.post('/search/honey')).json()).toEqual({ count: 2, searches: ['tea', 'honey'] })
  })
})

describe('passport-login', () => {
  test('a wrong password and an unknown name get 401 and no session', async () => {
    const browser = new Client(passportLogin.url)
    for (const fields of [
      { username: 'alice', password: 'wrong' },
      { username: 'bob', password: 'correct horse' },
      { username: 'nobody', password: '' },
    ]) {
      expect((await browser.submit('/login', fields)).status).not.toBe(303)
      expect((await browser.get('/account')).status).toBe(401)
    }
    expect(browser.cookies.size).toBe(0)
  })

  test('each login gives a new session, and cookies from before it and from before the logout are dead', async () => {
    const browser = new Client(passportLogin.url)
    const login = { username: 'alice', password: 'correct horse' }
    expect(await browser.submit('/login', login)).toMatchObject({ status: 303, headers: { location: '/' } })
    const first = (await browser.get('/account')).json<{ name: string; session: string }>()
    const beforeSecond = new Client(passportLogin.url, browser.cookies)
    await browser.submit('/login', login)
    const second = (await browser.get('/account')).json<{ name: string; session: string }>()
    expect([first.name, second.name]).toEqual(['alice', 'alice'])
    expect(second.session).not.toBe(first.session)
    expect((await beforeSecond.get('/account')).status).toBe(401)

    const beforeLogout = new Client(passportLogin.url, browser.cookies)
    expect((await browser.get('/')).body).toContain('Hello, alice.')
    expect((await browser.submit('/logout')).status).toBe(303)
    expect((await browser.get('/')).body).toContain('Hello, stranger.')
    expect((await beforeLogout.get('/account')).status).toBe(401)
  })
})

describe('socket-io', () => {
  const sockets: Socket[] = []
  afterAll(() => {
    for (const socket of sockets) socket.close()
  })

  function open(client: Client, transports: string[]): Socket {
    const extraHeaders: Record<string, string> = client.cookieHeader ? { cookie: client.cookieHeader } : {}
    const socket = io(socketIo.url, { transports, extraHeaders, forceNew: true, reconnection: false })
    sockets.push(socket)
    return socket
  }

  test('the page and sockets of every transport share one session', async () => {
    const client = new Client(socketIo.url)
    await client.get('/')
    const overWebSocket = open(client, ['websocket'])
    const overPolling = open(client, ['polling', 'websocket'])
    expect(await overWebSocket.emitWithAck('say', 'one')).toEqual({ messages: ['one'] })
    expect(await overPolling.emitWithAck('say', 'two')).toEqual({ messages: ['one', 'two'] })
    expect(await overWebSocket.emitWithAck('say', 'three')).toEqual({ messages: ['one', 'two', 'three'] })
    expect((await client.get('/messages')).json()).toEqual(['one', 'two', 'three'])
    // What a socket saves is not too late.
    expect(socketIo.output()).not.toContain('LATECHANGE')
  })

  test('a logout closes the sockets of that session and no others', async () => {
    const [client, other] = [new Client(socketIo.url), new Client(socketIo.url)]
    await Promise.all([client.get('/'), other.get('/')])
    const [socket, bystander] = [open(client, ['websocket']), open(other, ['websocket'])]
    await Promise.all([socket.emitWithAck('say', 'hello'), bystander.emitWithAck('say', 'hello')])
    const closed = new Promise((resolve) => socket.once('disconnect', resolve))
    await client.post('/logout')
    expect(await closed).toBe('io server disconnect')
    expect(await bystander.emitWithAck('say', 'still here')).toEqual({ messages: ['hello', 'still here'] })
  })

  test('a page of another site opens no socket, one of this site does', async () => {
    const client = new Client(socketIo.url)
    await client.get('/')
    const connect = (origin: string): Promise<string> =>
      new Promise((resolve) => {
        const extraHeaders = { cookie: client.cookieHeader, origin }
        const options = { transports: ['websocket'], extraHeaders, forceNew: true, reconnection: false }
        const socket = io(socketIo.url, options)
        const told = (outcome: string): void => {
          socket.disconnect()
          resolve(outcome)
        }
        socket.once('connect', () => told('open'))
        socket.once('connect_error', () => told('refused'))
      })
    expect(await connect('https://other.example')).toBe('refused')
    expect(await connect('null')).toBe('refused')
    expect(await connect(socketIo.url)).toBe('open')
  })

  test('a connection without a session is refused', async () => {
    const socket = open(new Client(socketIo.url), ['websocket'])
    const error = await new Promise<Error>((resolve) => socket.once('connect_error', resolve))
    expect(error.message).toBe('Load the page first.')
  })

  test('the page loads its scripts', async () => {
    const client = new Client(socketIo.url)
    const { body } = await client.get('/')
    const scripts = [...body.matchAll(/src="([^"]+)"/g)].map(([, path]) => path as string)
    expect(scripts).toEqual(['/socket.io/socket.io.js', '/client.js'])
    for (const path of scripts) {
      const { status, headers } = await client.get(path)
      expect([status, headers['content-type']]).toEqual([200, expect.stringContaining('javascript')])
    }
  })
})

describe('streaming', () => {
  test('a new session has its cookie in the head, and its last change at the last byte', async () => {
    const client = new Client(streaming.url)
    const answer = await client.get('/events')
    expect(answer.headers['content-type']).toBe('text/event-stream')
    expect(answer.setCookies).toHaveLength(1)
    expect(answer.body.match(/^id: \d$/gm)).toEqual(['id: 1', 'id: 2', 'id: 3', 'id: 4', 'id: 5'])
    expect((await client.get('/')).json()).toEqual({ isNew: false, fields: { streams: 1, lastEvent: 5 } })
  })

  test('when the client leaves, what had changed is stored', async () => {
    const client = new Client(streaming.url)
    await client.get('/events')
    const request = get(`${streaming.url}/events`, { headers: { cookie: client.cookieHeader }, agent: false })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    for await (const chunk of response) if (String(chunk).includes('id: 2')) break
    request.destroy()
    // 5 is from the stream before; the first byte of this one stores 1, only the save after it any other.
    let lastEvent = 0
    await until(async () => {
      lastEvent = (await client.get('/')).json<{ fields: { lastEvent: number } }>().fields.lastEvent
      return lastEvent !== 5 && lastEvent !== 1
    })
    expect([2, 3]).toContain(lastEvent)
  })

  test('after the headers a known session can change; a new one is told as lost, and the response is whole', async () => {
    const stranger = await new Client(streaming.url).get('/too-late')
    expect(stranger.setCookies).toEqual([])
    expect(stranger).toMatchObject({ status: 200, isTruncated: false })
    expect(stranger.body).toContain('The response itself is whole.')
    await until(() => /was changed too late \(headers-sent\)/.test(streaming.output()))

    const client = new Client(streaming.url)
    await client.get('/events')
    await client.get('/too-late')
    expect((await client.get('/')).json()).toMatchObject({ fields: { tooLate: true } })
  })
})

// In a browser: support-desk.test.ts.
describe('support-desk', () => {
  const vehicle = { name: 'Ann', plate: 'AB 123' }
  const login = { name: 'robin', password: 'north star' }

  test('a form of another site changes nothing', async () => {
    const browser = new Client(supportDesk.url)
    await browser.submit('/', vehicle)
    for (const [path, fields] of Object.entries({
      '/': vehicle,
      '/payment': {},
      '/restart': {},
      '/support/login': login,
    })) {
      for (const sender of ['cross-site', 'same-site']) {
        expect((await browser.submit(path, fields, { 'sec-fetch-site': sender })).status).toBe(403)
      }
    }
    expect((await browser.get('/')).body).toContain('value="AB 123"')
    expect((await browser.get('/support')).status).toBe(303)
  })

  test('what the page loads is there, nothing is inline, and who only looks has no session', async () => {
    const browser = new Client(supportDesk.url)
    const { body, headers } = await browser.get('/')
    expect(headers['content-security-policy']).toContain("default-src 'self'")
    expect(body).not.toMatch(/<style|<script| style=| on\w+=/)
    for (const path of ['/icon.svg', '/style.css']) {
      expect(body).toContain(`href="${path}"`)
      expect((await browser.get(path)).status).toBe(200)
    }
    expect(browser.cookies.size).toBe(0)
  })

  test('a login gives a new session, and the cookie from before it sees nothing', async () => {
    const browser = new Client(supportDesk.url)
    await browser.submit('/', vehicle)
    const before = new Client(supportDesk.url, browser.cookies)
    expect((await browser.submit('/support/login', login)).headers['location']).toBe('/support')
    expect((await browser.get('/support')).status).toBe(200)
    expect((await before.get('/support')).status).toBe(303)
  })

  test('on Redis, what happened is known to a program that is started later', async () => {
    const env = { REDIS_URL: redis.url, SESSION_SECRET: SECRET }
    const before = await start('support-desk', env)
    const browser = new Client(before.url)
    await browser.submit('/', vehicle)
    await browser.submit('/proof', { kind: 'Utility bill', documentNumber: '42' })
    const failure = await browser.submit('/payment')
    expect(failure.status).toBe(502)
    const [, id] = /id="session-id">([^<]+)/.exec(failure.body) as unknown as [string, string]
    // At once: what is still queued is written on the way out.
    await before.stop()
    const after = await start('support-desk', env)
    const supporter = new Client(after.url, browser.cookies)
    await supporter.submit('/support/login', login)
    const report = await supporter.get(`/support?id=${id}`)
    expect(report.status).toBe(200)
    expect(report.body).toContain('payment.failed')
    expect((await supporter.submit('/payment')).headers['location']).toBe('/receipt')
  })

  test('without its Redis it answers 503', async () => {
    const answer = await new Client(supportDeskWithoutRedis.url).submit('/', vehicle)
    expect(answer).toMatchObject({ status: 503, setCookies: [] })
    expect(answer.headers['retry-after']).toBeDefined()
  })
})

describe('plain-http', () => {
  test('views are counted, forgotten, and counted again', async () => {
    const client = new Client(plainHttp.url)
    expect((await client.get('/')).body).toBe('You have seen this page 1 times.\n')
    expect((await client.get('/')).body).toBe('You have seen this page 2 times.\n')
    expect(await client.post('/forget')).toMatchObject({ status: 303, headers: { location: '/' } })
    expect(client.cookies.size).toBe(0)
    expect((await client.get('/')).body).toBe('You have seen this page 1 times.\n')
    expect((await client.get('/elsewhere')).status).toBe(404)
  })
})

/** Starts an example, which prints its URL and nothing else, unless sessions outlive it and its secret does not. */
/** Runs an example on a port that is taken; resolves to how it ended and all that it printed. */
async function runOnTakenPort(name: string): Promise<{ code: unknown; lines: string[] }> {
  const blocker = createServer().listen(0, '127.0.0.1')
  await once(blocker, 'listening')
  const { port } = blocker.address() as AddressInfo
  const env = { ...process.env, NODE_OPTIONS: '', NODE_ENV: 'development', REDIS_URL: '', PORT: String(port) }
  try {
    const program = promisify(execFile)(process.execPath, ['--import', 'tsx', `examples/${name}/server.ts`], {
      cwd: ROOT,
      env: name === 'cluster' ? { ...env, REDIS_URL: redis.url } : env,
    })
    const { code, stdout, stderr } = await program.then(
      (printed) => ({ code: 0, ...printed }),
      (error: { code: unknown; stdout: string; stderr: string }) => error,
    )
    return { code, lines: `${stdout}${stderr}`.split('\n').filter((line) => line !== '') }
  } finally {
    blocker.close()
  }
}

async function start(name: string, env: Record<string, string> = {}): Promise<Program> {
  const program = await startProgram(`examples/${name}/server.ts`, [], {
    PORT: '0',
    REDIS_URL: '',
    STORE: 'memory',
    ...env,
  })
  started.push(program)
  if (!env['REDIS_URL'] || env['SESSION_SECRET']) expect(program.output()).toBe(`${program.url}\n`)
  return program
}

/** Asks nothing: a connection that comes while a cluster closes may never get an answer. */
async function refusesConnections(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

/** What the page of `app` shows. */
function shown({ body }: Answer) {
  const element = (id: string): string => new RegExp(`id="${id}">([^<]*)<`).exec(body)?.[1] ?? ''
  return {
    visits: Number(element('visits')),
    user: element('user'),
    sessionId: element('session-id'),
    store: element('store'),
    endsAt: /datetime="([^"]+)"/.exec(body)?.[1] ?? '',
    cart: [...body.matchAll(/<span>(\d+ × [^<]*)</g)].map(([, item]) => item),
  }
}
