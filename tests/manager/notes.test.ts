import { describe, expect, test } from '@jest/globals'
import { MemorySessionStore, SessionManager, SessionStore } from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'

const SECRET = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'

function managerOn(store: SessionStore): SessionManager {
  return new SessionManager({ secret: SECRET, store, storeTimeout: '5s' })
}

describe('notes of the manager', () => {
  test('are written, read, taken once and deleted, under any text as a key', async () => {
    const { notes } = managerOn(new MemorySessionStore())
    const key = 'any {text} * \n at all'
    expect(await notes.put('recovery', key, 'point', { ttlSeconds: 60 })).toBe(true)
    expect(await notes.put('recovery', key, 'other', { ttlSeconds: 60, ifAbsent: true })).toBe(false)
    expect(await notes.get('recovery', key)).toBe('point')
    expect(await notes.take('recovery', key)).toBe('point')
    expect(await notes.take('recovery', key)).toBeNull()
    await notes.put('recovery', key, 'again', { ttlSeconds: 60 })
    await notes.delete('recovery', key)
    expect(await notes.get('recovery', key)).toBeNull()
  })

  test('the store never sees the key', async () => {
    const store = new MemorySessionStore()
    await managerOn(store).notes.put('recovery', 'secret-token', 'text', { ttlSeconds: 60 })
    expect(await store.notes.get('recovery', 'secret-token')).toBeNull()
  })

  test('are gone when their time is over, and a flood of them drops the oldest', async () => {
    const clock = new FakeClock()
    const store = new MemorySessionStore({ maxSessions: 1, clock: clock.now })
    const { notes } = managerOn(store)
    await notes.put('a', 'k', 'text', { ttlSeconds: 2 })
    clock.advance(1_999)
    expect(await notes.get('a', 'k')).toBe('text')
    clock.advance(1)
    expect(await notes.get('a', 'k')).toBeNull()

    for (let n = 0; n < 1_500; n++) await notes.put('a', `k${n}`, 'text', { ttlSeconds: 60 })
    expect(await notes.get('a', 'k0')).toBeNull()
    expect(await notes.get('a', 'k1499')).toBe('text')
  })

  test.each([
    ['a purpose with a space', () => ['a b', 'k', '', { ttlSeconds: 1 }]],
    ['no purpose', () => ['', 'k', '', { ttlSeconds: 1 }]],
    ['no key', () => ['a', '', '', { ttlSeconds: 1 }]],
    ['a key that is a number', () => ['a', 1, '', { ttlSeconds: 1 }]],
    ['a text that is an object', () => ['a', 'k', {}, { ttlSeconds: 1 }]],
    ['a text that is too long', () => ['a', 'k', 'x'.repeat(100_001), { ttlSeconds: 1 }]],
    ['no time to live', () => ['a', 'k', '']],
    ['a time to live of 0', () => ['a', 'k', '', { ttlSeconds: 0 }]],
    ['a time to live of half a second', () => ['a', 'k', '', { ttlSeconds: 0.5 }]],
  ])('%s is refused', async (_what, args) => {
    const { notes } = managerOn(new MemorySessionStore())
    const put = notes.put as (...args: unknown[]) => Promise<boolean>
    await expect(put(...args())).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })

  test('a failure of the store is one of ours, and told', async () => {
    const store = new FaultyStore(new MemorySessionStore())
    const manager = managerOn(store)
    const told: string[] = []
    manager.events.on('storeError', ({ operation }) => told.push(operation))
    store.fail({ kind: 'error', operations: ['notes.take'], error: new Error('gone') })
    await expect(manager.notes.take('a', 'k')).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
    expect(told).toEqual(['notes.take'])
  })

  test('a store without notes is named', () => {
    class Plain extends SessionStore {
      get = async () => null
      set = async () => {}
      delete = async () => {}
    }
    expect(() => managerOn(new Plain()).notes).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }))
  })
})
