// What can be chosen of recovery, and the checks.
import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidOption } from '../../errors.js'

/** What `recovery()` takes besides the manager. */
export interface RecoveryOptions {
  /**
   * How long a recovery point can be redeemed.
   * @default '60m'
   */
  readonly window?: Duration | undefined
  /**
   * How long a hand-off can be redeemed: at most ten minutes are what OWASP ASVS 6.5.5 allows for what logs somebody in.
   * @default '10m'
   */
  readonly handOffWindow?: Duration | undefined
  /**
   * How many recovery points a session has at once: the oldest is forgotten for one more. At most 20.
   * @default 5
   */
  readonly maxPoints?: number | undefined
  /**
   * The name of this application. A token is worth nothing in one of another name, of other secrets, or with another store.
   * @default the name of the session cookie
   */
  readonly application?: string | undefined
  /**
   * Which fields a point holds. What protects forms is never among them.
   * @default all; in a session of which `login()` knows no user, all but `passport`, `user` and `userId`
   */
  readonly fields?: ((name: string) => boolean) | undefined
  /**
   * Whether a token that is used again ends the session that it was redeemed as, and all points of the session that it came from: either
   * use may have been a thief's. A link that is opened twice does so as well.
   * @default false
   */
  readonly endOnReuse?: boolean | undefined
  /**
   * How many unknown tokens of one client address within ten minutes lock that address out for as long (OWASP ASVS 6.6.3); `false` for
   * no limit.
   * @default 5
   */
  readonly maxGuesses?: number | false | undefined
}

/** The options with their defaults. */
export interface ResolvedRecoveryOptions {
  readonly windowMs: number
  readonly handOffWindowMs: number
  readonly maxPoints: number
  readonly application: string
  readonly fields: ((name: string) => boolean) | undefined
  readonly endOnReuse: boolean
  readonly maxGuesses: number | false
}

const NAMES = ['window', 'handOffWindow', 'maxPoints', 'application', 'fields', 'endOnReuse', 'maxGuesses']
const MOST_POINTS = 20

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveRecoveryOptions(options: RecoveryOptions, cookieName: string): ResolvedRecoveryOptions {
  const { window = '60m', handOffWindow = '10m', maxPoints = 5, application = cookieName, ...others } = options
  const { fields, endOnReuse = false, maxGuesses = 5, ...unknown } = others
  for (const name of Object.keys(unknown)) {
    throw invalidOption(`There is no option "${name}" of recovery().${didYouMean(name, NAMES)}`)
  }
  if (!isCount(maxPoints) || maxPoints > MOST_POINTS) {
    throw invalidOption(`maxPoints is ${String(maxPoints)}; use a whole number from 1 to ${MOST_POINTS}.`)
  }
  if (maxGuesses !== false && (!isCount(maxGuesses) || maxGuesses > 100)) {
    throw invalidOption(`maxGuesses is ${String(maxGuesses)}; use a whole number from 1 to 100, or false.`)
  }
  if (typeof application !== 'string' || application === '') throw invalidOption('application is no text.')
  if (fields !== undefined && typeof fields !== 'function') throw invalidOption('fields is not a function.')
  if (typeof endOnReuse !== 'boolean') throw invalidOption('endOnReuse is not true or false.')
  return {
    windowMs: milliseconds(window, 'window', 1000),
    handOffWindowMs: milliseconds(handOffWindow, 'handOffWindow', 1000),
    maxPoints,
    application,
    fields,
    endOnReuse,
    maxGuesses,
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1
}
