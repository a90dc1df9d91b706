// How many sessions are live: when they are counted, and what is told when they cannot be.
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import * as prometheus from 'prom-client'
import { MemorySessionStore, type SessionData, SessionManager, SessionStore } from 'sojourn'
import { prometheusMetrics } from 'sojourn/metrics'
import { Client, SECRET, until } from '../../support/http.js'
import { begin, closeAll, closing, rigOn } from '../../support/metrics.js'

afterEach(async () => {
  await closeAll()
  jest.restoreAllMocks()
})

describe('the number of active sessions', () => {
  const NAME = 'sojourn_active_sessions'

  test('is counted once in an interval, and by one count at a time', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { interval: '1h' } } })
    await begin(rig)
    const all = await Promise.all([rig.read(), rig.read(), rig.read()])
    expect(all.map((samples) => samples[NAME])).toEqual([1, 1, 1])
    await new Client(rig.server).post('/set?a=1')
    expect((await rig.read())[NAME]).toBe(1)
    expect(rig.faults.calls.scan).toBe(1)
  })

  test('is counted again after the interval', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    expect((await rig.read())[NAME]).toBe(1)
    await new Client(rig.server).post('/set?a=1')
    await until(async () => (await rig.read())[NAME] === 2)
  })

  test('is counted up to a bound', async () => {
    const rig = await rigOn({ metrics: { activeSessions: { max: 2 } } })
    for (let session = 0; session < 4; session++) await rig.manager.create()
    expect((await rig.read())[NAME]).toBe(2)
  })

  test('is counted only when somebody collects', async () => {
    const rig = await rigOn({ metrics: {} })
    await begin(rig)
    expect(rig.faults.calls.scan).toBe(0)
  })

  test('is unknown, not 0, when the store fails', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const rig = await rigOn({ metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    expect((await rig.read())[NAME]).toBe(1)
    rig.faults.fail({ kind: 'error', operations: ['scan'] })
    await until(async () => !(NAME in (await rig.read())))
    rig.faults.repair()
    await until(async () => (await rig.read())[NAME] === 1)
  })

  test('does not hold up who collects', async () => {
    const rig = await rigOn({ options: { storeTimeout: '30s' }, metrics: { activeSessions: { interval: 0.001 } } })
    await begin(rig)
    rig.faults.fail({ kind: 'delay', operations: ['scan'] })
    expect(NAME in (await rig.read())).toBe(false)
    rig.faults.repair()
    rig.faults.release()
    await until(async () => (await rig.read())[NAME] === 1)
  })

  test('is given up when it is detached meanwhile', async () => {
    let isBegun = false
    let read = 0
    let open = (): void => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    class Slow extends MemorySessionStore {
      override async *scan(): AsyncGenerator<SessionData, void, undefined> {
        for await (const record of super.scan()) {
          isBegun = true
          await gate
          read++
          yield record
        }
      }
    }
    const manager = new SessionManager({ secret: SECRET, store: new Slow() })
    closing.push(() => manager.close())
    for (let session = 0; session < 5; session++) await manager.create()
    const register = new prometheus.Registry()
    const detach = prometheusMetrics(manager, { client: prometheus, register })
    const scrape = register.metrics()
    await until(() => isBegun)
    detach()
    open()
    await scrape
    expect(read).toBe(1)
  })

  test('can be switched off, and is off on a store that cannot be gone through', async () => {
    const off = await rigOn({ metrics: { activeSessions: false } })
    await begin(off)
    expect(NAME in (await off.read())).toBe(false)
    class Simple extends SessionStore {
      readonly #records = new Map<string, SessionData>()
      async get(id: string): Promise<SessionData | null> {
        return this.#records.get(id) ?? null
      }
      async set(id: string, data: SessionData): Promise<void> {
        this.#records.set(id, data)
      }
      async delete(id: string): Promise<void> {
        this.#records.delete(id)
      }
    }
    const register = new prometheus.Registry()
    const manager = new SessionManager({ secret: SECRET, store: new Simple() })
    prometheusMetrics(manager, { client: prometheus, register })
    await manager.create()
    const text = await register.metrics()
    expect(text).not.toContain(NAME)
    expect(text).toContain('sojourn_session_started_total 1\n')
    await manager.close()
  })
})
