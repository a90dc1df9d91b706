// The examples examples/step-up and examples/rotating-secrets, as programs of their own.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import { type Answer, Client, OTHER_SECRET, SECRET, until } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'

// For a machine that does much else at the same time.
jest.setTimeout(120_000)

let directory = ''
let stepUp: Program
let rotating: Program

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sojourn-protection-'))
  putSecrets([SECRET])
  const env = { PORT: '0' }
  ;[stepUp, rotating] = await Promise.all([
    startProgram('examples/step-up/server.ts', [], env),
    startProgram('examples/rotating-secrets/server.ts', [], { ...env, SECRETS_FILE: secretsFile() }),
  ])
})
afterAll(async () => {
  await Promise.all([stepUp?.stop(), rotating?.stop()])
  rmSync(directory, { recursive: true, force: true })
})

const secretsFile = (): string => join(directory, 'secrets.txt')

/** In one step, as whoever keeps them should. */
function putSecrets(secrets: readonly string[]): void {
  const next = join(directory, 'next.txt')
  writeFileSync(next, secrets.join('\n'))
  renameSync(next, secretsFile())
}

test('step-up: a payment asks for a code, once, and another browser for everything again', async () => {
  const client = new Client(stepUp.url)
  const from = { 'user-agent': 'Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0' }
  const elsewhere: typeof from = { 'user-agent': 'curl/8.0' }
  const get = (path: string, headers: Record<string, string> = from): Promise<Answer> => client.get(path, headers)
  const submit = (path: string, fields: Record<string, string> = {}, headers = from): Promise<Answer> =>
    client.submit(path, fields, { ...headers, 'sec-fetch-site': 'same-origin' })
  const prove = async (headers = from): Promise<Answer> => {
    const code = /show (\d{6}) now/.exec((await get('/prove', headers)).body)?.[1] as string
    return submit('/prove', { password: 'correct horse', code }, headers)
  }
  expect((await submit('/login', { password: 'wrong' })).status).toBe(401)
  await submit('/login', { password: 'correct horse' })
  expect((await get('/')).body).toContain('Level 1: pwd.')
  const statement = await get('/statement')
  expect([statement.body, statement.headers['cache-control']]).toEqual([
    expect.stringContaining('90 coins'),
    'no-store',
  ])
  expect((await submit('/transfer')).headers.location).toBe('/prove')
  expect((await submit('/prove', { password: 'correct horse', code: 'no' })).status).toBe(401)
  // The code of this half minute may be that of the last one by now.
  await until(async () => (await prove()).status === 303, 60_000)
  expect((await get('/')).body).toContain('Level 2: pwd and otp.')
  expect((await submit('/transfer')).body).toContain('on their way')

  expect((await get('/statement', elsewhere)).headers.location).toBe('/prove')
  expect((await submit('/transfer', {}, elsewhere)).headers.location).toBe('/prove')
  expect((await submit('/transfer')).body).toContain('on their way')
  await until(() => /of ann: another browser \(challenged\)/.test(stepUp.output()), 30_000)
  await until(async () => (await prove(elsewhere)).status === 303, 60_000)
  expect((await get('/statement', elsewhere)).body).toContain('90 coins')
  expect((await submit('/logout', {}, elsewhere)).headers['clear-site-data']).toBe('"cache"')
  expect((await get('/')).body).toContain('Log in')
})

test('rotating-secrets: a new secret signs, the old one goes, and nobody is logged out', async () => {
  const client = new Client(rotating.url)
  let visits = 0
  const visit = async (): Promise<void> => {
    visits++
    expect((await client.get('/')).body).toBe(`You have been here ${visits} times.\n`)
  }
  const visitUntil = (printed: string): Promise<void> =>
    until(async () => {
      await visit()
      return rotating.output().includes(printed)
    }, 60_000)
  const signature = (): string | undefined => client.cookies.get('sid')?.split('.')[2]
  await visit()
  const before = signature()
  putSecrets([OTHER_SECRET, SECRET])
  await visitUntil('2 secrets hold now, and cookies are signed with another one.')
  await visit()
  expect(signature()).not.toBe(before)
  putSecrets([OTHER_SECRET])
  await visitUntil('1 secrets hold now.')
  putSecrets(['too short'])
  await visitUntil('The secrets were not changed')
  await visit()
})
