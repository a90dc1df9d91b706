// The published conformance suite against our stores, against a store of three methods, and against broken ones.
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type SessionChange, type SessionData, SessionStore, type UpdateResult } from 'sojourn'
import { checkStore, conformanceChecks } from 'sojourn/testing'
import { memoryKit, redisKit } from './support/stores.js'

/** The least that is a store. */
class ThreeMethodStore extends SessionStore {
  readonly texts = new Map<string, string>()

  async get(id: string): Promise<SessionData | null> {
    await yieldToOthers()
    const text = this.texts.get(id)
    return text === undefined ? null : readRecord(text)
  }
  async set(id: string, data: SessionData): Promise<void> {
    await yieldToOthers()
    this.texts.set(id, JSON.stringify(data))
  }
  async delete(id: string): Promise<void> {
    await yieldToOthers()
    this.texts.delete(id)
  }
}

const { SessionData: Data } = await import('sojourn')
const readRecord = (text: string): SessionData => Data.fromJSON(text)
const yieldToOthers = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('MemorySessionStore', () => {
  const kit = memoryKit()
  for (const { name, run } of conformanceChecks({ createStore: kit.create })) test(name, run)
})

describe('a store of three methods', () => {
  for (const { name, run } of conformanceChecks({ createStore: () => new ThreeMethodStore() })) test(name, run)

  test('is reported as atomic within one process, and nothing is said of several', async () => {
    const report = await checkStore({ createStore: () => new ThreeMethodStore() })
    expect(report.failed).toEqual([])
    expect(report.guarantees).toEqual(['basic', 'atomic'])
  })

  test('is not reported as shared when two of them work on the same data', async () => {
    const report = await checkStore({
      createStore: () => new ThreeMethodStore(),
      createPeer: (store) => {
        const peer = new ThreeMethodStore()
        Object.assign(peer, { texts: (store as ThreeMethodStore).texts })
        return peer
      },
    })
    expect(report.guarantees).toEqual(['basic', 'atomic'])
    expect(report.failed.length).toBeGreaterThan(0)
  })
})

describe('RedisSessionStore', () => {
  const kit = redisKit()
  beforeAll(kit.start)
  afterAll(kit.stop)
  for (const { name, run } of conformanceChecks({ createStore: kit.create, createPeer: kit.create })) test(name, run)

  test('is reported as shared', async () => {
    const report = await checkStore({ createStore: kit.create, createPeer: kit.create })
    expect(report.failed).toEqual([])
    expect(report.guarantees).toEqual(['basic', 'atomic', 'shared'])
  })
})

describe('the suite finds a store that', () => {
  class Careless extends ThreeMethodStore {
    /** Replaces the whole record, as most session stores do. */
    override async update(id: string, change: SessionChange): Promise<UpdateResult> {
      const record = await this.get(id)
      if (record === null) return { status: 'ended' }
      await this.set(id, record.with({ fields: new Map([...record.fields, ...(change.set ?? [])]) }))
      return { status: 'updated' }
    }
  }
  class Resurrecting extends ThreeMethodStore {
    override async end(id: string): Promise<boolean> {
      const existed = this.texts.has(id)
      await this.delete(id)
      return existed
    }
  }
  class Forgetful extends ThreeMethodStore {
    override async get(id: string): Promise<SessionData | null> {
      const record = await super.get(id)
      return record === null ? null : record.with({ userId: undefined })
    }
  }

  test('loses updates', async () => {
    const report = await checkStore({ createStore: () => new Careless() })
    expect(report.failed.map(({ name }) => name)).toContain('100 concurrent changes of different fields all survive')
    expect(report.guarantees).toEqual([])
  })

  test('brings back what ended', async () => {
    const report = await checkStore({ createStore: () => new Resurrecting() })
    expect(report.failed.map(({ name }) => name)).toEqual([
      'ended stays ended: no update, touch, renewal or regeneration brings a session back',
    ])
    expect(report.guarantees).toEqual(['basic'])
  })

  test('forgets metadata', async () => {
    const report = await checkStore({ createStore: () => new Forgetful() })
    expect(report.failed.map(({ name }) => name)).toContain('a user ID keeps its type')
  })
})
