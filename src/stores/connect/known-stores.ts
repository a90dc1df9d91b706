// What is known of single stores that no adapter can make good: said when the store is given, by the name of its class.
import { warn } from '../../warn.js'

interface Knowledge {
  /** The longest time to live that it takes. */
  readonly longestMs?: number
  /** What the application has to see to. */
  readonly warning?: string
}

const DAY_MS = 86_400_000
const OWN_OPTION =
  'forgets sessions by an option of its own, whatever they say: make that at least as long as the longest session.'

const KNOWN: Readonly<Record<string, Knowledge>> = {
  MemcachedStore: { longestMs: 30 * DAY_MS },
  LokiStore: { warning: OWN_OPTION },
  LowdbStore: { warning: OWN_OPTION },
  CacheManagerStore: { warning: OWN_OPTION },
  PrismaSessionStore: {
    warning: 'says that there is no session while its database is away: users are logged out then.',
  },
}

/** Tells what is to be known of this store, and the longest time to live that it takes. */
export function knowledgeOf(store: object): { longestMs: number } {
  const { name } = store.constructor
  const known = Object.hasOwn(KNOWN, name) ? KNOWN[name] : undefined
  if (known?.warning !== undefined) warn(`${name} ${known.warning}`, 'connect_store')
  return { longestMs: known?.longestMs ?? Number.POSITIVE_INFINITY }
}
