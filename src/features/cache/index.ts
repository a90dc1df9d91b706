// Two caches, `sojourn/cache`: one for a request, one for whoever the session belongs to.

export type { FollowOptions } from './follow.js'
export type { CacheTrouble } from './guarded-storage.js'
export { sessionNamespace, userNamespace } from './namespaces.js'
export { type PerRequest, type PerRequestOptions, perRequest, requestContext } from './per-request.js'
export type { DomainPolicy } from './policies.js'
export {
  type CacheLoadOptions,
  type CacheSelection,
  type CacheSetOptions,
  SessionCache,
  type SessionCacheOptions,
} from './session-cache.js'
export type { CacheEntry, CacheLease, CacheNamespace, CachePlace, CacheSize, CacheStorage } from './storage.js'
export { FileCacheStorage, type FileCacheStorageOptions } from './storages/files.js'
export { type KeyvLike, keyvCacheStorage, notesCacheStorage } from './storages/key-value.js'
export { MemoryCacheStorage, type MemoryCacheStorageOptions } from './storages/memory.js'
export { RedisCacheStorage, type RedisCacheStorageOptions } from './storages/redis.js'
