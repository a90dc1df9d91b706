// Secrets that change while the program runs: they stand in a file, one a line, newest first, which whoever keeps the secrets writes
// anew. Nobody is logged out, and nothing is restarted.
//
//   npx tsx examples/rotating-secrets/server.ts
//   cd examples/rotating-secrets/.data
//   (openssl rand -base64 32; cat secrets.txt) > next.txt && mv next.txt secrets.txt
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { session } from 'sojourn'

const FILE = process.env['SECRETS_FILE'] ?? fileURLToPath(new URL('.data/secrets.txt', import.meta.url))
if (!existsSync(FILE)) {
  mkdirSync(dirname(FILE), { recursive: true })
  writeFileSync(FILE, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 })
}

/** Asked again once a second, when a request comes. */
function secrets(): string[] {
  return readFileSync(FILE, 'utf8').trim().split('\n')
}

const sessions = session({ secret: secrets })
sessions.events.on('secretsChanged', ({ count, isNewest }) => {
  console.log(`${count} secrets hold now${isNewest ? ', and cookies are signed with another one' : ''}.`)
})
// An empty file, or a secret that can be guessed, must not stop the shop: those of before go on.
sessions.events.on('secretsRefused', ({ error }) => console.error(`The secrets were not changed: ${error.message}`))

const app = express()
app.use(sessions)

app.get('/', async (req, res) => {
  const visits = await req.session.update('visits', (n) => Number(n ?? 0) + 1)
  res.send(`You have been here ${visits} times.\n`)
})

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => server.close())

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}
