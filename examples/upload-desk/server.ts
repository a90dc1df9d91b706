// An upload desk: whoever comes may leave files, within a quota, and take them back. They belong to the session: they stay through
// the login, and are gone from the disk with the logout.
//
//   npx tsx examples/upload-desk/server.ts
import { randomBytes } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import busboy from 'busboy'
import express, { type ErrorRequestHandler } from 'express'
import { isSessionError, session } from 'sojourn'
import { receiveFiles, type WorkspaceFile, workspaceOf, workspaces } from 'sojourn/workspace'

// In production a folder that stays, for the workspaces alone.
const root = process.env['WORKSPACES'] ?? mkdtempSync(join(tmpdir(), 'upload-desk-'))

const sessions = session({
  // A random secret makes every cookie void at the next start. In production set one that stays.
  secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64'),
})
const files = workspaces(sessions, { root, maxBytes: 1_000_000, maxFiles: 5 })

const app = express()
app.use(sessions)

app.get('/', async (req, res) => {
  const workspace = await workspaceOf(req.session, { create: false })
  res.send(page({ files: (await workspace?.list()) ?? [], userId: req.session.metadata.userId }))
})

app.post('/files', async (req, res) => {
  await receiveFiles(req, await workspaceOf(req.session), { busboy })
  res.redirect(303, '/')
})

app.get('/files/:name', async (req, res) => {
  const workspace = await workspaceOf(req.session, { create: false })
  const file = await workspace?.open(req.params.name, { range: req.headers.range })
  if (!file) {
    res.sendStatus(404)
    return
  }
  res.writeHead(file.status, { ...file.headers })
  await pipeline(file.stream, res)
})

app.post('/login', async (req, res) => {
  // A real one asks for more than a click.
  await req.session.login('ann')
  res.redirect(303, '/')
})

app.post('/logout', async (req, res) => {
  await req.session.logout()
  // The example shows at once what would be so a moment later.
  await files.settled()
  res.redirect(303, '/')
})

app.use(((error, _req, res, next) => {
  if (!isSessionError(error) || !error.expose) next(error)
  else res.status(error.status).send(page({ files: [], message: error.message }))
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error?: NodeJS.ErrnoException) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}, files in ${root}`)
})

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}

process.once('SIGTERM', () => {
  server.close(() => void files.close().then(() => sessions.manager.close()))
  server.closeAllConnections()
})

function page(desk: {
  files: readonly WorkspaceFile[]
  userId?: string | number | undefined
  message?: string
}): string {
  const rows = desk.files.map(({ name, bytes }) => {
    return `<li><a href="/files/${encodeURIComponent(name)}">${escaped(name)}</a>, ${bytes} bytes</li>`
  })
  const turn = desk.userId === undefined ? ['/login', 'Log in'] : ['/logout', 'Log out']
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Upload desk</title>
<h1>Upload desk</h1>
<p role="status">${escaped(desk.message ?? (desk.userId === undefined ? 'Hello, stranger.' : `Hello, ${desk.userId}.`))}</p>
<ul>${rows.join('')}</ul>
<form method="post" action="/files" enctype="multipart/form-data">
  <label>Files <input type="file" name="files" multiple></label> <button>Leave them</button>
</form>
<form method="post" action="${turn[0]}"><button>${turn[1]}</button></form>
<p><a href="/">Home</a></p></html>`
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
