// What is configured besides the sessions themselves: features that the application mounts or makes, each where it belongs.
// Whether their options are right, they are asked.

import { isSessionError, type SessionError } from '../../errors.js'
import { resolveNearCache } from '../../stores/redis/near-cache/options.js'
import type { RedisSessionStoreOptions } from '../../stores/redis.js'
import { type ActivityLogOptions, resolveOptions as resolveActivityLog } from '../activity/log-options.js'
import { type ClientBindingOptions, clientBinding } from '../client-binding/index.js'
import { type CsrfOptions, resolveCsrf } from '../csrf/options.js'
import { type RecoveryOptions, resolveRecoveryOptions } from '../recovery/options.js'

/** What features are configured by. Each member goes to what its comment names. */
export interface PartsConfig {
  /**
   * For `csrf()` of `sojourn/csrf`.
   * @default {}
   */
  csrf?: CsrfOptions | undefined
  /**
   * For `clientBinding()` of `sojourn/client-binding`: what follows when another network, browser or language uses a session.
   * @default {}
   */
  clientBinding?: ClientBindingOptions | undefined
  /**
   * For `recovery()` of `sojourn/recovery`.
   * @default {}
   */
  recovery?: RecoveryOptions | undefined
  /**
   * For `new ActivityLog()` of `sojourn/activity`, besides its sinks: `retention` is how long activities are kept.
   * @default {}
   */
  activityLog?: Omit<ActivityLogOptions, 'sinks'> | undefined
}

/** The features, and which function takes the options of each. */
export const PARTS = {
  csrf: 'csrf()',
  clientBinding: 'clientBinding()',
  recovery: 'recovery()',
  activityLog: 'new ActivityLog()',
} as const satisfies Record<keyof PartsConfig, string>

/** Throws for options that their feature, or their store, does not take. */
const CHECKS: Readonly<Record<string, (options: object) => unknown>> = {
  csrf: resolveCsrf,
  clientBinding,
  recovery: (options) => resolveRecoveryOptions(options, 'any'),
  activityLog: (options) => resolveActivityLog({ ...options, sinks: [() => {}] }),
  // A store would begin to connect.
  nearCache: resolveNearCache,
}

/** One thing that is wrong with a configuration. */
export interface Mistake {
  readonly name: string
  readonly message: string
}

/** What is wrong with the options of each feature and of the near cache: every member by itself, then all of one together. */
export function mistakesInParts(config: PartsConfig & Pick<RedisSessionStoreOptions, 'nearCache'>): Mistake[] {
  return Object.entries(CHECKS).flatMap(([name, check]) => {
    const options: unknown = config[name as keyof typeof config]
    if (options === undefined) return []
    if (typeof options !== 'object' || options === null || Array.isArray(options)) {
      return [{ name, message: 'it is no object of options.' }]
    }
    return mistakesInGroup(name, options, (given) => refusalOf(() => check(given)))
  })
}

/** What is wrong with an object of options: each member by itself; with none, all of it together. */
export function mistakesInGroup(
  name: string,
  options: object,
  refusal: (options: object) => string | undefined,
): Mistake[] {
  const single = Object.entries(options).map(([member, value]) => ({
    name: `${name}.${member}`,
    message: refusal({ [member]: value }),
  }))
  const mistakes = single.filter((one): one is Mistake => one.message !== undefined)
  const whole = mistakes.length > 0 ? undefined : refusal(options)
  return whole === undefined ? mistakes : [{ name, message: whole }]
}

/** Why what is tried refuses its options, or `undefined`. */
export function refusalOf(attempt: () => unknown): SessionError['message'] | undefined {
  try {
    attempt()
    return undefined
  } catch (error) {
    if (!isSessionError(error)) throw error
    return error.message
  }
}
