// What one session may choose of its end, from within its request or from outside: the arguments of `setExpiry()`.
import { didYouMean } from '../did-you-mean.js'
import { type Duration, milliseconds } from '../duration.js'
import { invalidOption } from '../errors.js'

/** What `setExpiry()` takes besides the idle timeout. */
export interface ExpiryOptions {
  /**
   * This session's own absolute timeout, counted from its creation or login, longer or shorter than that of all. A preset's
   * is the longest.
   * @default as it is
   */
  absoluteTimeout?: Duration | undefined
  /**
   * Whether the cookie outlives the browser window: `true` for "remember me".
   * @default as it is
   */
  persistent?: boolean | undefined
}

/** The timeouts that one session chose, in ms; `null` for the idle timeout of all. */
export interface ResolvedExpiry {
  readonly idleMs: number | null
  readonly absoluteMs?: number | undefined
  readonly persistent?: boolean | undefined
}

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveExpiry(idle: Duration, options: ExpiryOptions): ResolvedExpiry {
  const { absoluteTimeout, persistent, ...others } = options
  for (const name of Object.keys(others)) {
    throw invalidOption(
      `There is no option "${name}" of setExpiry().${didYouMean(name, ['absoluteTimeout', 'persistent'])}`,
    )
  }
  if (persistent !== undefined && typeof persistent !== 'boolean')
    throw invalidOption('persistent is not true or false.')
  return {
    idleMs: milliseconds(idle, 'setExpiry()'),
    absoluteMs: absoluteTimeout === undefined ? undefined : milliseconds(absoluteTimeout, 'absoluteTimeout'),
    persistent,
  }
}
