// A server with sockets of every kind, each closed when its session is over, on the Redis that argv[2] names. Prints its URL.
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { Server } from 'socket.io'
import { requireSession, session } from 'sojourn'
import { closeOnEnd, isSameOrigin, watchEndings } from 'sojourn/live'
import { RedisSessionStore } from 'sojourn/redis'
import { WebSocketServer } from 'ws'
import { SECRET } from './http.js'

const store = new RedisSessionStore({ url: process.argv[2] as string })
const sessions = session({ secret: SECRET, store, storeTimeout: '10s' })
await watchEndings(sessions.manager, { heartbeat: '200ms', onError: () => {} })
const heard: { id: string; reason: string; isRemote: boolean }[] = []
sessions.events.on('ended', ({ id, reason, isRemote = false }) => heard.push({ id, reason, isRemote }))

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

const app = express()
const server = createServer(app)
const io = new Server(server, { allowRequest: (req, done) => done(null, isSameOrigin(req)) })
const webSockets = new WebSocketServer({ noServer: true })
app.use(sessions)
io.engine.use(sessions)
app.get('/', (req, res) => {
  req.session.set('seen', true)
  res.json({ id: req.session.id })
})
app.post('/login', async (req, res) => {
  await req.session.login(textOf(req.query['user']))
  res.json({ id: req.session.id })
})
app.post('/logout', async (req, res) => {
  await req.session.logout()
  res.json({})
})
app.post('/revoke', async (req, res) => {
  res.json(await sessions.manager.revoke(textOf(req.query['id'])))
})
app.post('/revoke-user', async (req, res) => {
  res.json(await sessions.manager.revokeUser(textOf(req.query['user'])))
})
app.post('/revoke-all', async (_req, res) => {
  await sessions.manager.revokeAll()
  res.json({})
})
app.post('/idle', async (req, res) => {
  await req.session.setExpiry(textOf(req.query['after']))
  res.json({})
})
app.get('/heard', (_req, res) => {
  res.json(heard)
})
app.get('/events', (req, res) => {
  res.type('text/event-stream').flushHeaders()
  res.write('data: open\n\n')
  closeOnEnd(req.session, res)
})
server.on('upgrade', (req, socket, head) => {
  if (!req.url?.startsWith('/ws')) return
  // A client may be gone before its session is known.
  socket.on('error', () => socket.destroy())
  // An upgrade has no response.
  sessions(req, {} as ServerResponse, () => {
    webSockets.handleUpgrade(req, socket, head, (webSocket) => {
      closeOnEnd(requireSession(req), webSocket)
      webSocket.send('open')
    })
  })
})
io.on('connection', (socket) => {
  closeOnEnd(requireSession(socket.request), socket)
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
