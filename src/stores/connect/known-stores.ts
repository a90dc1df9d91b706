// What is known of single stores that no adapter can make good: said when the store is given, by the name of its class.
import { warn } from '../../warn.js'

interface Knowledge {
  /** The longest time to live that it takes. */
  readonly longestMs?: number
  /** Whether its sessions are in the memory of this process, so that no other can write to them. */
  readonly isInProcess?: boolean
  /** What the application has to see to. */
  readonly warning?: string
}

const DAY_MS = 86_400_000
const OWN_OPTION =
  'forgets sessions by an option of its own, whatever they say: make that at least as long as the longest session.'

const KNOWN: Readonly<Record<string, Knowledge>> = {
  MemoryStore: { isInProcess: true },
  MemcachedStore: { longestMs: 30 * DAY_MS },
  LokiStore: { warning: OWN_OPTION },
  LowdbStore: { warning: OWN_OPTION },
  CacheManagerStore: { warning: OWN_OPTION },
  PrismaSessionStore: {
    warning: 'says that there is no session while its database is away: users are logged out then.',
  },
}

/**
 * express-session's MemoryStore and ours, by what they keep sessions in: their `set()` is done when it returns, though it calls back
 * a turn of the event loop later.
 */
export function sessionsInMemory(store: object): Readonly<Record<string, unknown>> | undefined {
  const { sessions } = store as { sessions?: object | null }
  const isPlain = typeof sessions === 'object' && sessions !== null && Object.getPrototypeOf(sessions) === null
  return isPlain && store.constructor.name === 'MemoryStore' ? (sessions as Record<string, unknown>) : undefined
}

/** Tells what is to be known of this store; the longest time to live that it takes, and whether it is in this process alone. */
export function knowledgeOf(store: object): { longestMs: number; isInProcess: boolean } {
  const { name } = store.constructor
  const known = Object.hasOwn(KNOWN, name) ? KNOWN[name] : undefined
  if (known?.warning !== undefined) warn(`${name} ${known.warning}`, 'connect_store')
  return { longestMs: known?.longestMs ?? Number.POSITIVE_INFINITY, isInProcess: known?.isInProcess ?? false }
}
