// What belongs to a session or a user goes with it: by the event of its end, and by a look at all namespaces for what no event removed.
import { type Duration, milliseconds } from '../../duration.js'
import type { SessionManager } from '../../manager/manager.js'
import type { CacheTrouble } from './guarded-storage.js'
import { ownerOf, sessionNamespace, userNamespace } from './namespaces.js'
import type { CacheNamespace } from './storage.js'

/** How `follow()` looks for what no event removed. */
export interface FollowOptions {
  /** How often this process looks through all namespaces for those whose session or user is gone. @default '10m' */
  sweepInterval?: Duration | undefined
}

/** What is called of the cache. */
interface FollowedCache {
  namespaces(): Promise<readonly CacheNamespace[]>
  clear(selection: { namespace: string }): Promise<void>
}

interface FollowerParts {
  readonly cache: FollowedCache
  readonly manager: SessionManager
  readonly options: FollowOptions
  readonly move: (from: string, to: string) => Promise<void>
  readonly onError: (error: unknown, trouble: CacheTrouble) => void
}

/** The cache of one manager's sessions. */
export class Follower {
  readonly #parts: FollowerParts
  readonly #timer: NodeJS.Timeout
  readonly #stopListening: () => void
  #isSweeping = false

  constructor(parts: FollowerParts) {
    this.#parts = parts
    const intervalMs = milliseconds(parts.options.sweepInterval ?? '10m', 'sweepInterval', 10)
    this.#stopListening = parts.manager.events.on('ended', ({ id, userId, successor, goesOn }) => {
      void (goesOn && successor !== undefined ? this.#move(id, successor) : this.#remove(id, userId))
    })
    this.#timer = setInterval(() => void this.sweep(), intervalMs)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#stopListening()
  }

  /** Removes the namespaces of sessions that are gone and of users without a session. One at a time. */
  async sweep(): Promise<void> {
    if (this.#isSweeping) return
    this.#isSweeping = true
    const { cache, manager } = this.#parts
    try {
      for (const { name } of await cache.namespaces()) {
        const owner = ownerOf(name)
        if (owner === undefined) continue
        const isThere =
          'sessionId' in owner
            ? (await manager.get(owner.sessionId)) !== null
            : (await manager.sessionsOf(owner.userId)).length > 0
        if (!isThere) await cache.clear({ namespace: name })
      }
    } catch (error) {
      // What is left is found by the next one.
      this.#parts.onError(error, { operation: 'follow', namespace: '' })
    } finally {
      this.#isSweeping = false
    }
  }

  async #move(id: string, successor: string): Promise<void> {
    await this.#try(sessionNamespace(id), () => this.#parts.move(sessionNamespace(id), sessionNamespace(successor)))
  }

  async #remove(id: string, userId: string | number | undefined): Promise<void> {
    const { cache, manager } = this.#parts
    await this.#try(sessionNamespace(id), () => cache.clear({ namespace: sessionNamespace(id) }))
    if (userId === undefined) return
    await this.#try(userNamespace(userId), async () => {
      const others = (await manager.sessionsOf(userId)).filter((session) => session.id !== id)
      if (others.length === 0) await cache.clear({ namespace: userNamespace(userId) })
    })
  }

  async #try(namespace: string, task: () => Promise<void>): Promise<void> {
    try {
      await task()
    } catch (error) {
      this.#parts.onError(error, { operation: 'follow', namespace })
    }
  }
}
