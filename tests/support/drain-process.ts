// `testApp` as a process that ends as an application should: on SIGTERM it lets the server answer what it has begun, then
// closes the manager, and then has nothing left to stay for. argv: the URL of Redis, the prefix, options as JSON.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { SessionChange, SessionData, SessionOptions, UpdateResult } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { testApp } from './app.js'

/** On the way to Redis a write takes so long: there is always one to wait for. */
const DELAY_MS = 40

class SlowStore extends RedisSessionStore {
  override async create(id: string, data: SessionData, ttlSeconds: number): Promise<boolean> {
    await delay()
    return super.create(id, data, ttlSeconds)
  }

  override async update(id: string, change: SessionChange, ttlSeconds: number): Promise<UpdateResult> {
    await delay()
    return super.update(id, change, ttlSeconds)
  }
}

const [, , url = '', prefix = '', json = '{}'] = process.argv
const store = new SlowStore({ url, prefix })
const { app, middleware } = testApp({ store, ...(JSON.parse(json) as Partial<SessionOptions>) })
const server = createServer(app).listen(0, '127.0.0.1')
await once(server, 'listening')
process.once('SIGTERM', () => {
  server.close(() => void middleware.manager.close())
})
console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)

function delay(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, DELAY_MS))
}
