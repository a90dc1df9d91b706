// The examples on SQL databases: each is killed as a crash would, started again, and goes on.
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from '@jest/globals'
import { Client, SECRET, until } from '../support/http.js'
import { sharedPostgres } from '../support/postgres.js'
import { type Program, startProgram } from '../support/processes.js'

const DIRECTORY = mkdtempSync(join(tmpdir(), 'sojourn-sql-examples-'))
const started: Program[] = []
afterAll(async () => {
  await Promise.all(started.map((program) => program.stop()))
  rmSync(DIRECTORY, { recursive: true, force: true })
})

async function start(name: string, env: Record<string, string>): Promise<Program> {
  const program = await startProgram(`examples/${name}/server.ts`, [], { PORT: '0', ...env })
  started.push(program)
  return program
}

async function kill({ process: child }: Program): Promise<void> {
  child.kill('SIGKILL')
  await once(child, 'exit')
}

function isRefused(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const attempt = connect(socket, () => {
      attempt.destroy()
      resolve(false)
    })
    attempt.once('error', () => resolve(true))
  })
}

/** A form, as a browser sends it. */
async function submit(client: Client, url: string, path: string, fields: Record<string, string>): Promise<number> {
  const cookie = client.cookieHeader
  const answer = await fetch(`${url}${path}`, {
    method: 'POST',
    body: new URLSearchParams(fields),
    headers: cookie === '' ? {} : { cookie },
    redirect: 'manual',
  })
  for (const line of answer.headers.getSetCookie()) {
    const [pair = ''] = line.split(';')
    client.cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
  }
  await answer.arrayBuffer()
  return answer.status
}

/** The same browser in front of a program that was started anew. */
function moved(client: Client, program: Program): Client {
  return new Client(program.url, client.cookies)
}

test('sqlite: what was acknowledged is there after kill -9, and the user is still logged in', async () => {
  const env = { SESSION_FILE: join(DIRECTORY, 'sessions.db'), SESSION_SECRET: SECRET }
  const first = await start('sqlite', env)
  const before = new Client(first.url)
  expect(await submit(before, first.url, '/notes', { note: 'milk' })).toBe(303)
  expect(await submit(before, first.url, '/login', { name: 'Ann' })).toBe(303)
  expect(await submit(before, first.url, '/notes', { note: 'tea' })).toBe(303)
  await kill(first)
  const second = await start('sqlite', env)
  const after = moved(before, second)
  expect((await after.get('/')).json()).toEqual({ user: 'Ann', notes: ['milk', 'tea'] })
}, 60_000)

test('postgres: two processes share the sessions, and one goes on when the other was killed', async () => {
  const server = await sharedPostgres()
  const env = { DATABASE_URL: server.url, SESSION_SECRET: SECRET }
  const [first, second] = (await Promise.all([start('postgres', env), start('postgres', env)])) as [Program, Program]
  const client = new Client(first.url)
  await submit(client, first.url, '/login', { name: 'Ann' })
  expect((await client.get('/')).json()).toMatchObject({ user: 'Ann', views: 1 })
  await kill(first)
  const other = moved(client, second)
  expect((await other.get('/')).json()).toMatchObject({ user: 'Ann', views: 2 })
  await submit(new Client(second.url), second.url, '/end', { name: 'Ann' })
  expect((await other.get('/')).json()).toMatchObject({ user: 'nobody', views: 1 })
  await Promise.all(started.map((program) => program.stop()))
  await server.stop()
}, 60_000)

test('app: without any set-up, a visit survives kill -9 of the program', async () => {
  const env = { DATA_DIR: join(DIRECTORY, 'app'), TMPDIR: DIRECTORY }
  const first = await start('app', env)
  const client = new Client(first.url)
  expect((await client.get('/')).body).toContain('SQLite')
  const [demo = ''] = readdirSync(DIRECTORY).filter((name) => name.startsWith('sojourn-demo-'))
  await kill(first)
  // Its redis-server has ended with it.
  await until(() => isRefused(join(DIRECTORY, demo, 'redis.sock')))
  const second = moved(client, await start('app', env))
  const cookies = second.cookieHeader
  expect((await second.get('/')).status).toBe(200)
  // The same session: it was given no other cookie.
  expect(second.cookieHeader).toBe(cookies)
}, 60_000)
