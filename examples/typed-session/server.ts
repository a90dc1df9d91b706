// Types for the session, in two ways. Module augmentation tells the compiler what the fields are, and is believed. A
// schema, here zod's, checks while the program runs what is read and what is assigned.
//
//   npx tsx examples/typed-session/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler } from 'express'
import { isSessionError, type Session, session } from 'sojourn'
import { z } from 'zod'

// For fields that only this program writes.
declare module 'sojourn' {
  interface SessionFields {
    searches?: string[]
    searchCount?: number
  }
}

// For fields that come from outside, or that an older version of the program may have stored in another shape.
const Settings = z.object({
  theme: z.enum(['light', 'dark']).default('light'),
  pageSize: z.coerce.number().int().min(10).max(100).default(20),
  pinned: z.array(z.string().max(100)).max(5).default([]),
})

/** A view of the same session. Fields that the schema does not name stay as they are. */
function settingsOf({ session }: { session: Session }) {
  return session.typed(Settings)
}

const app = express()
// A random secret makes every cookie void at the next start. In production set one that stays.
app.use(session({ secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64') }))
app.use(express.json())

app.get('/settings', (req, res) => {
  // Defaults are filled in and not stored: a visitor who chose nothing still has no session.
  res.json(settingsOf(req))
})

app.patch('/settings', (req, res) => {
  const settings = settingsOf(req)
  // A claim, not a fact. The assignments check it: the error that they throw lists what is wrong, and that is not stored.
  const { theme, pageSize } = (req.body ?? {}) as Partial<z.infer<typeof Settings>>
  if (theme !== undefined) settings.theme = theme
  if (pageSize !== undefined) settings.pageSize = pageSize
  res.json(settings)
})

app.post('/pinned/:name', (req, res) => {
  const settings = settingsOf(req)
  // `string[]` to the compiler, and noticed as a nested change. Assigning a new list has it checked by the schema.
  settings.pinned = [...settings.pinned, req.params.name]
  res.json(settings.pinned)
})

app.post('/search/:text', async (req, res) => {
  req.session.searches ??= []
  req.session.searches.push(req.params.text)
  // `count` is a number here; req.session.searchCount = 'many' would not compile.
  const count = await req.session.update('searchCount', (count = 0) => count + 1)
  res.json({ count, searches: req.session.searches })
})

app.use(((error, _req, res, next) => {
  if (isSessionError(error, 'VALIDATION_FAILED')) {
    res.status(400).json({ issues: error.issues?.map(({ path, message }) => ({ path, message })) })
  } else next(error)
}) satisfies ErrorRequestHandler)

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
