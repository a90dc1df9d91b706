// The event `forgotten`: a live session that a full store gave up for another one is told, and is nobody's doing.
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals'
import { type Activity, MemorySessionStore, type SessionEvent, SessionManager } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { testApp } from '../support/app.js'
import { Client, listen, SECRET } from '../support/http.js'

const warnings = jest.spyOn(process, 'emitWarning')
beforeEach(() => {
  warnings.mockReset()
})
const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

function managerOf(store: MemorySessionStore | FaultyStore): SessionManager {
  const manager = new SessionManager({ secret: SECRET, store })
  closing.push(() => manager.close())
  return manager
}

const smallStore = (): MemorySessionStore => new MemorySessionStore({ maxSessions: 2, cleanupInterval: 0 })

test.each([
  ['by number', () => smallStore()],
  ['by bytes', () => new MemorySessionStore({ maxBytes: 50_000, cleanupInterval: 0 })],
  ['through FaultyStore', () => new FaultyStore(smallStore())],
])('tells whose session a full store gave up, %s', async (_how, makeStore) => {
  const manager = managerOf(makeStore())
  const told: SessionEvent<'forgotten'>[] = []
  manager.events.on('forgotten', (event) => told.push(event))
  const fields = { text: 'x'.repeat(20_000) }
  const first = await manager.create({ userId: 'ann', fields })
  for (const userId of ['bob', 'eve']) await manager.create({ userId, fields })
  expect(told).toMatchObject([{ id: first.id, userId: 'ann', at: expect.any(Number) }])
  expect(await manager.validate(first.id)).toMatchObject({ isValid: false })
  expect(warnings).not.toHaveBeenCalled()
})

test('is an activity of the session, and not of the request that it made room for', async () => {
  const activities: Activity[] = []
  const { app, middleware } = testApp({ store: smallStore(), activity: (activity) => activities.push(activity) })
  const server = await listen(app)
  closing.push(server.close)
  const clients = [1, 2, 3].map(() => new Client(server))
  for (const [index, client] of clients.entries()) await client.post(`/login?user=user-${index}`)
  const [first] = activities.filter(({ type }) => type === 'session.login')
  const forgotten = activities.filter(({ type }) => type === 'session.forgotten')
  expect(forgotten).toMatchObject([{ sessionId: first?.sessionId, userId: 'user-0' }])
  expect(forgotten[0]?.request).toBeUndefined()
  await middleware.manager.close()
})

test('of one that is over is not told, nor after the manager has closed', async () => {
  const store = smallStore()
  const manager = managerOf(store)
  const told = jest.fn<() => void>()
  manager.events.on('forgotten', told)
  const { id } = await manager.create({ userId: 'ann' })
  await manager.revoke(id)
  await manager.create()
  await manager.create()
  expect(told).not.toHaveBeenCalled()
  await manager.close()
  await managerOf(store).create()
  expect(told).not.toHaveBeenCalled()
})

test('becomes a process warning when nobody listens, once', async () => {
  const manager = managerOf(smallStore())
  for (let count = 0; count < 5; count++) await manager.create()
  expect(warnings.mock.calls.map(([text]) => String(text))).toEqual([
    expect.stringMatching(/^forgotten: the store is full.* raise its maxSessions or maxBytes/),
  ])
})
