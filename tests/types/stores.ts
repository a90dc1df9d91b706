// A store is a class of three methods.
import {
  type EndResult,
  MemorySessionStore,
  type SessionChange,
  type SessionData,
  type SessionEnd,
  SessionStore,
  session,
  type UpdateResult,
  type UserIndex,
} from 'sojourn'
import { exactly } from './assert.js'

export class ThreeMethods extends SessionStore {
  async get(_id: string): Promise<SessionData | null> {
    return null
  }
  async set(_id: string, _data: SessionData, _ttlSeconds: number): Promise<void> {}
  async delete(_id: string): Promise<void> {}
}
session({ secret: 'a', store: new ThreeMethods() })

// Parameters may be left out.
export class Nothing extends SessionStore {
  async get(): Promise<null> {
    return null
  }
  async set(): Promise<void> {}
  async delete(): Promise<void> {}
}

// @ts-expect-error without get
export class WithoutGet extends SessionStore {
  async set(): Promise<void> {}
  async delete(): Promise<void> {}
}

// @ts-expect-error without set
export class WithoutSet extends SessionStore {
  async get(): Promise<null> {
    return null
  }
  async delete(): Promise<void> {}
}

// @ts-expect-error without delete
export class WithoutDelete extends SessionStore {
  async get(): Promise<null> {
    return null
  }
  async set(): Promise<void> {}
}

// @ts-expect-error abstract
new SessionStore()

export class WithMore extends ThreeMethods {
  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    exactly<ReadonlyMap<string, string> | undefined>()(change.set)
    return super.update(id, change, ttlSeconds)
  }
  // @ts-expect-error resolves to whether it was created
  override async create(): Promise<void> {}
}

export async function use(store: SessionStore, data: SessionData): Promise<void> {
  exactly<SessionData | null>()(await store.get('id'))
  exactly<boolean>()(await store.create('id', data, 60))
  exactly<boolean>()(await store.touch('id', 60))
  exactly<boolean>()(await store.exists('id'))
  exactly<EndResult>()(await store.end('id', { reason: 'revoked', at: 0 }, 300))
  // @ts-expect-error no such reason
  await store.end('id', { reason: 'bored', at: 0 }, 300)
  // @ts-expect-error an end says how and for how long it is told
  await store.end('id')
  exactly<number>()(await store.clearExpired())
  exactly<ReadonlyMap<string, string>>()(data.fields)
  exactly<SessionEnd | undefined>()(data.ended)
  // @ts-expect-error a record is immutable
  data.userId = 1
  // @ts-expect-error so are its fields
  data.fields.set('a', '1')
}

/** What a store may lack must be asked for; the one in memory has it all. */
export async function abilities(store: SessionStore, memory: MemorySessionStore): Promise<void> {
  exactly<UserIndex | undefined>()(store.users)
  // @ts-expect-error perhaps there is none
  store.scan()
  // @ts-expect-error perhaps there is none
  await store.epoch(1)
  // @ts-expect-error perhaps there is none
  await store.lease('name', 'owner', 1_000)
  for await (const record of memory.scan()) exactly<SessionData>()(record)
  exactly<UserIndex>()(memory.users)
  exactly<number>()(await memory.epoch())
  exactly<boolean>()(await memory.lease('name', 'owner', 1_000))
}

export class WithAbilities extends ThreeMethods {
  override readonly users = new MemorySessionStore().users
  override async *scan(): AsyncGenerator<SessionData> {}
  override async epoch(): Promise<number> {
    return 0
  }
  override async lease(): Promise<boolean> {
    return true
  }
}

/** A store of express-session is not one of ours. */
declare const foreign: { get(id: string, callback: () => void): void; set(): void; destroy(): void }
// @ts-expect-error no SessionStore
session({ secret: 'a', store: foreign })
