// The example that is configured from outside: what a variable says is in force, and mistakes keep it from starting.
import { execFile } from 'node:child_process'
import { afterAll, expect, test } from '@jest/globals'
import { Client, SECRET } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'

const PROGRAM = 'examples/configured/server.ts'
let program: Program | undefined
afterAll(() => program?.stop())

test('configured: forms need tokens, a ticket is good once, and a stranger is shown out, as the variables say', async () => {
  program = await startProgram(PROGRAM, [], {
    PORT: '0',
    SESSION_SECRET: SECRET,
    SOJOURN_CSRF_TOKENS: 'always',
    SOJOURN_CLIENT_BINDING_ON: 'language',
    SOJOURN_CLIENT_BINDING_POLICY: 'end',
  })
  const browser = new Client(program.url)
  const page = async (): Promise<string> => (await browser.get('/')).body
  const post = async (path: string, fields: object = {}): Promise<{ status: number; body: string }> => {
    const [, token = ''] = /name="_csrf" value="([\w-]+)"/.exec(await page()) ?? []
    return browser.submit(path, { ...fields, _csrf: token }, { 'sec-fetch-site': 'same-origin' })
  }
  expect((await browser.submit('/note', {}, { 'sec-fetch-site': 'same-origin' })).status).toBe(403)
  for (let note = 0; note < 2; note++) expect((await post('/note')).status).toBe(303)
  expect(await page()).toContain('2 notes')

  const { body: ticket } = await post('/leave')
  expect((await post('/note')).status).toBe(303)
  expect((await post('/back', { ticket })).status).toBe(303)
  expect(await page()).toContain('2 notes')
  expect((await post('/back', { ticket })).status).toBe(410)

  const stranger = browser.clone()
  expect((await stranger.get('/', { 'accept-language': 'tlh' })).body).toContain('0 notes')
  expect(await page()).toContain('0 notes')
}, 60_000)

test('configured: with mistakes it does not start, and names all of them', async () => {
  const { NODE_OPTIONS: _jest, ...env } = process.env
  const mistaken = { ...env, SOJOURN_CSRF_TOKENS: 'sometimes', SOJOURN_RECOVERY_WINDOW: 'x' }
  const [code, errors] = await new Promise<[unknown, string]>((resolve) => {
    execFile(process.execPath, ['--import', 'tsx', PROGRAM], { env: mistaken }, (error, _out, told) =>
      resolve([error?.code, told]),
    )
  })
  expect([
    code,
    errors
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(':')[0]),
  ]).toEqual([1, ['SOJOURN_CSRF_TOKENS', 'SOJOURN_RECOVERY_WINDOW']])
}, 60_000)
