// The event of each store call, which costs nothing unless somebody listens.
import { randomUUID } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import { MemorySessionStore, SessionManager } from 'sojourn'
import { FaultyStore } from 'sojourn/testing'
import { testApp } from '../support/app.js'
import { Client, listen, SECRET } from '../support/http.js'
import { closeAll, closing, rigOn } from '../support/metrics.js'

afterEach(async () => {
  await closeAll()
  jest.restoreAllMocks()
})

describe('the event of a store call', () => {
  test('is not made when nobody listens', async () => {
    const { app, middleware } = testApp()
    const server = await listen(app)
    closing.push(() => server.close())
    const emit = jest.spyOn(middleware.events, 'emit')
    const client = new Client(server)
    await client.post('/set?a=1')
    await client.post('/logout')
    const told = emit.mock.calls.map(([name]) => name)
    expect(told).toContain('created')
    expect(told).not.toContain('storeCall')
    expect(told).not.toContain('ended')
    const stop = middleware.events.on('storeCall', () => {})
    await client.post('/set?a=1')
    stop()
    await client.post('/set?a=2')
    expect(emit.mock.calls.filter(([name]) => name === 'storeCall')).toHaveLength(1)
  })

  test('tells operation, time and the code of a failure', async () => {
    const store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0 }))
    const manager = new SessionManager({ secret: SECRET, store, storeTimeout: '50ms' })
    closing.push(() => manager.close())
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const calls: { operation: string; durationMs: number; error?: string | undefined }[] = []
    manager.events.on('storeCall', (call) => calls.push(call))
    store.fail({ kind: 'hang', operations: ['get'], times: 1 })
    await expect(manager.get(randomUUID())).rejects.toMatchObject({ code: 'STORE_TIMEOUT' })
    await manager.get(randomUUID())
    const [failed, done] = calls.filter(({ operation }) => operation === 'get')
    expect(failed).toMatchObject({ operation: 'get', error: 'STORE_TIMEOUT' })
    expect(failed?.durationMs).toBeGreaterThanOrEqual(45)
    expect(done).toMatchObject({ operation: 'get', error: undefined })
  })

  test('tells of a scan once, without the time of its reader', async () => {
    const manager = new SessionManager({ secret: SECRET })
    closing.push(() => manager.close())
    for (let session = 0; session < 5; session++) await manager.create()
    const calls: { operation: string; durationMs: number }[] = []
    manager.events.on('storeCall', (call) => calls.push(call))
    const startedAt = performance.now()
    for await (const _ of manager.list()) {
      const until = performance.now() + 20
      while (performance.now() < until);
    }
    const scans = calls.filter(({ operation }) => operation === 'scan')
    expect(scans).toHaveLength(1)
    expect(scans[0]?.durationMs).toBeLessThan(performance.now() - startedAt - 95)
  })

  test('leaves the warning of store errors that nobody hears', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { client, faults } = await rigOn()
    await client.post('/set?a=1')
    faults.fail({ kind: 'error', operations: ['get'], times: 1 })
    await client.get('/peek')
    expect(warnings.mock.calls.map(([text]) => String(text)).join()).toContain('storeError')
  })

  test('reaches an observer that knows nothing of the sessions', async () => {
    const operations: string[] = []
    const endings: string[] = []
    const onCall = (message: unknown): unknown => operations.push((message as { operation: string }).operation)
    const onEnd = (message: unknown): unknown => endings.push((message as { reason: string }).reason)
    subscribe('sojourn:storeCall', onCall)
    subscribe('sojourn:ended', onEnd)
    closing.push(
      () => unsubscribe('sojourn:storeCall', onCall),
      () => unsubscribe('sojourn:ended', onEnd),
    )
    const server = await listen(testApp().app)
    closing.push(() => server.close())
    const client = new Client(server)
    await client.post('/set?a=1')
    await client.post('/logout')
    expect(operations).toEqual(expect.arrayContaining(['create', 'get', 'end']))
    expect(endings).toEqual(['logout'])
  })
})
