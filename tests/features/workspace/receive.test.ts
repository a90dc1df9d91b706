// Files that come with a request: through multer, through busboy, and from the web's Request. All files of a form or none, 413 over
// the quota, and nothing left of a client that hangs up.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import busboy from 'busboy'
import express, { type ErrorRequestHandler } from 'express'
import multer from 'multer'
import { getSession, isSessionError, type SessionManager, type SessionMiddleware, session as sessions } from 'sojourn'
import {
  type ReceivedForm,
  receiveFiles,
  type Workspaces,
  workspaceOf,
  workspaceStorage,
  workspaces,
} from 'sojourn/workspace'
import { listen, SECRET, type TestServer, until } from '../../support/http.js'
import { refusal } from '../../support/rig.js'

let root = ''
let middleware: SessionMiddleware
let files: Workspaces
let server: TestServer
let cookie = ''
const failures: unknown[] = []

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'sojourn-receive-'))
  middleware = sessions({ secret: SECRET })
  files = workspaces(middleware, { root, maxBytes: 1_000, maxFiles: 5, sweepInterval: 0 })
  const app = express()
  app.set('env', 'test')
  app.use(middleware)
  app.post('/multer', multer({ storage: workspaceStorage(), defParamCharset: 'utf8' }).array('files'), (req, res) => {
    const saved = req.files as Express.Multer.File[]
    res.json({ files: saved.map(({ filename, size }) => ({ name: filename, size })), session: getSession(req)?.id })
  })
  app.post('/busboy', async (req, res) => {
    res.json(await receiveFiles(req, await workspaceOf(req.session), { busboy, limits: { fileSize: 500, fields: 2 } }))
  })
  app.put('/raw/:name', async (req, res) => {
    res.json(await (await workspaceOf(req.session)).save(req.params.name, req))
  })
  app.get('/files', async (req, res) => {
    res.json((await (await workspaceOf(req.session)).list()).map(({ name }) => name))
  })
  app.use(((error, _req, res, _next) => {
    failures.push(error)
    res.status((error as { status?: number }).status ?? 500).json({ code: (error as { code?: string }).code })
  }) satisfies ErrorRequestHandler)
  server = await listen(app)
  const first = await fetch(`${server.url}/files`)
  cookie = first.headers.get('set-cookie')?.split(';')[0] ?? ''
  failures.length = 0
})
afterEach(async () => {
  await server.close()
  await files.close()
  await middleware.manager.close()
  rmSync(root, { recursive: true, force: true })
})

const post = (path: string, form: FormData): Promise<Response> =>
  fetch(`${server.url}${path}`, { method: 'POST', body: form, headers: { cookie } })
const present = async (): Promise<unknown> => (await fetch(`${server.url}/files`, { headers: { cookie } })).json()
const asides = (): string[] => readdirSync(join(root, 'workspaces', workspaceId(), 'asides'))

function formOf(...entries: [name: string, content: string][]): FormData {
  const form = new FormData()
  for (const [name, content] of entries) form.append('files', new File([content], name, { type: 'text/plain' }))
  return form
}

describe.each(['/multer', '/busboy'])('%s', (path) => {
  test('saves what comes, under safe names that are free', async () => {
    const answer = await post(path, formOf(['../../Ärger.txt', 'one'], ['../../Ärger.txt', 'two']))
    expect(answer.status).toBe(200)
    expect(await present()).toEqual(['Ärger (2).txt', 'Ärger.txt'].sort())
    expect(asides()).toEqual([])
  })

  test('answers 413 over the quota, after the whole form was sent, and leaves the old files whole', async () => {
    await post(path, formOf(['old.txt', 'x'.repeat(400)]))
    for (const form of [
      formOf(['a.txt', 'x'.repeat(300)], ['b.txt', 'x'.repeat(400)]),
      formOf(['a.txt', 'x'.repeat(2_000_000)]),
      formOf(...Array.from({ length: 7 }, (_, n): [string, string] => [`${n}.txt`, 'x'])),
    ]) {
      const answer = await post(path, form)
      expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([413, 'QUOTA_EXCEEDED'])
      await until(async () => JSON.stringify(await present()) === '["old.txt"]')
    }
    expect(asides()).toEqual([])
  })

  test('leaves nothing of a client that hangs up', async () => {
    const boundary = 'xxxx'
    const request = httpRequest(`${server.url}${path}`, {
      method: 'POST',
      headers: { cookie, 'content-type': `multipart/form-data; boundary=${boundary}`, 'content-length': '100000' },
    })
    request.on('error', () => {})
    request.write(
      `--${boundary}\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\n${'x'.repeat(100)}`,
    )
    await until(() => asides().length > 0)
    request.destroy()
    await until(() => asides().length === 0)
    await until(() => failures.length > 0)
    expect(await present()).toEqual([])
  })
})

describe('receiveFiles()', () => {
  test('gives files and fields in the order of the form', async () => {
    const form = new FormData()
    form.append('title', 'holidays')
    form.append('files', new File(['one'], 'a.txt', { type: 'text/plain' }))
    form.append('title', 'again')
    form.append('empty', new File([], ''))
    const answer = (await (await post('/busboy', form)).json()) as ReceivedForm
    expect(answer.fields).toEqual([
      ['title', 'holidays'],
      ['title', 'again'],
    ])
    expect(answer.files).toMatchObject([
      { name: 'a.txt', bytes: 3, field: 'files', originalName: 'a.txt', type: 'text/plain' },
    ])
  })

  test('refuses a form that is larger than its limits, and one that is none', async () => {
    expect((await post('/busboy', formOf(['a.txt', 'x'.repeat(501)]))).status).toBe(413)
    const many = new FormData()
    for (const name of ['a', 'b', 'c']) many.append(name, '1')
    expect((await post('/busboy', many)).status).toBe(413)
    const json = await fetch(`${server.url}/busboy`, {
      method: 'POST',
      body: '{}',
      headers: { cookie, 'content-type': 'application/json' },
    })
    expect([json.status, await json.json()]).toEqual([400, { code: 'INVALID_FORM' }])
    const cut = await fetch(`${server.url}/busboy`, {
      method: 'POST',
      body: '--x\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhal',
      headers: { cookie, 'content-type': 'multipart/form-data; boundary=x' },
    })
    expect([cut.status, await cut.json()]).toEqual([400, { code: 'INVALID_FORM' }])
    expect(await present()).toEqual([])
  })

  test('takes a Request of the web', async () => {
    const workspace = await ofSession(middleware.manager)
    const request = new Request('http://localhost/', { method: 'POST', body: formOf(['a.txt', 'hello']) })
    const { files: saved } = await receiveFiles(request, workspace, { busboy })
    expect(saved).toMatchObject([{ name: 'a.txt', bytes: 5 }])
    const opened = await workspace.open('a.txt')
    expect(opened && (await text(opened.stream))).toBe('hello')
    const large = new Request('http://localhost/', { method: 'POST', body: formOf(['b.txt', 'x'.repeat(5_000)]) })
    expect(await refusal(receiveFiles(large, workspace, { busboy }))).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    const none = new Request('http://localhost/', { method: 'POST' })
    expect(await refusal(receiveFiles(none, workspace, { busboy }))).toMatchObject({ code: 'INVALID_FORM' })
  })
})

test('a body that is a file by itself is saved, and refused with an answer when it is too large', async () => {
  const put = (name: string, body: string): Promise<Response> =>
    fetch(`${server.url}/raw/${name}`, { method: 'PUT', body, headers: { cookie } })
  expect((await put('a.txt', 'hello')).status).toBe(200)
  expect((await put('b.txt', 'x'.repeat(1_000_000))).status).toBe(413)
  expect((await put('a.txt', 'hello')).status).toBe(409)
  expect((await put('%2e%2e%2fb', 'hello')).status).toBe(400)
  expect(await present()).toEqual(['a.txt'])
  expect(failures.every((error) => isSessionError(error))).toBe(true)
})

function workspaceId(): string {
  return readdirSync(join(root, 'workspaces'))[0] as string
}

/** The workspace of the one session that there is. */
async function ofSession(manager: SessionManager): Promise<NonNullable<Awaited<ReturnType<Workspaces['find']>>>> {
  for await (const { id } of manager.list()) {
    const found = await files.find(id)
    if (found !== null) return found
  }
  throw new Error('There is no session with a workspace.')
}
