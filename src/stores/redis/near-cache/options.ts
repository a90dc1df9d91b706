// What can be chosen of the near cache, and its checks.
import { type Duration, milliseconds, textOfMs } from '../../../duration.js'
import { invalidOption } from '../../../errors.js'

/** What `nearCache` takes: `{}` is all defaults. */
export interface RedisNearCacheOptions {
  /**
   * How old an answer from memory may be: a session that ends elsewhere is refused here so much later at the latest. As a rule it
   * is some milliseconds. At least `'50ms'`, at most `'1m'`.
   * @default '1s'
   */
  maxAge?: Duration | undefined
  /**
   * How many bytes the sessions in memory may take, about. One more, and the one that was read longest ago goes.
   * @default 32_000_000
   */
  maxBytes?: number | undefined
}

const LEAST_MS = 50
const MOST_MS = 60_000
const NAME = 'RedisSessionStore: nearCache'

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveNearCache(options: RedisNearCacheOptions): { maxAgeMs: number; maxBytes: number } {
  if (typeof options !== 'object' || options === null) {
    throw invalidOption(`${NAME} is not an object: write nearCache: {} for the defaults, and leave it out for none.`)
  }
  const { maxAge = '1s', maxBytes = 32_000_000, ...others } = options
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw invalidOption(`${NAME} has no option "${unknown}", only maxAge and maxBytes.`)
  const maxAgeMs = milliseconds(maxAge, `${NAME}.maxAge`)
  if (maxAgeMs < LEAST_MS || maxAgeMs > MOST_MS) {
    throw invalidOption(`${NAME}.maxAge is ${textOfMs(maxAgeMs)}; use ${LEAST_MS}ms to ${textOfMs(MOST_MS)}.`)
  }
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) {
    throw invalidOption(`${NAME}.maxBytes is ${String(maxBytes)}; use a whole number of at least 1.`)
  }
  return { maxAgeMs, maxBytes }
}
