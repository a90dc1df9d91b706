// Lengths of time as options take them, and in the milliseconds that everything else counts in.
import { invalidOption } from './errors.js'

/**
 * A length of time: a number of seconds, or text such as `'500ms'`, `'90s'`, `'30m'`, `'12h'`, `'7d'`. A number of more than
 * two days has to be a whole number of days, at most 400: others are milliseconds by mistake, and refused. Text means
 * what it says.
 */
export type Duration = number | string

/** What a timer and a cookie's Max-Age can hold, with room to spare: ten years. */
export const LONGEST_MS = 3_653 * 86_400_000

/**
 * A duration in milliseconds.
 * @throws {SessionError} `INVALID_OPTION` when it is not one, or shorter than `leastMs` or longer than ten years.
 */
export function milliseconds(duration: Duration, name: string, leastMs = 1): number {
  let ms = Number.NaN
  if (typeof duration === 'number') ms = duration * 1000
  else if (typeof duration === 'string') {
    const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(duration.trim()) ?? []
    if (amount !== undefined && unit !== undefined) ms = Number(amount) * (UNITS[unit] as number)
  }
  if (!Number.isFinite(ms) || ms < leastMs || ms > LONGEST_MS) {
    const shown = typeof duration === 'string' ? JSON.stringify(duration.slice(0, 40)) : String(duration)
    throw invalidOption(`${name} is ${shown}; use seconds as a number, or text such as '90s', '30m', '12h', '7d'.`)
  }
  if (typeof duration === 'number' && isTakenForMilliseconds(duration)) {
    throw invalidOption(
      `${name} is ${duration}, and numbers are seconds: that is ${textOfMs(ms)}. If it was meant as milliseconds, write ` +
        `${duration / 1000} or '${textOfMs(duration)}'; if not, write it as text, such as '${Math.round(ms / 3_600_000)}h'.`,
    )
  }
  return Math.round(ms)
}

/** Nobody writes 1800000 for 20.8 days, but many write it for half an hour. */
function isTakenForMilliseconds(seconds: number): boolean {
  const days = seconds / 86_400
  return days > 400 || (days > 2 && !Number.isInteger(days))
}

/** A duration for people, in the largest unit that it fills: `'30m'`, `'20.8d'`. */
export function textOfMs(ms: number): string {
  const [unit, size] = Object.entries(UNITS).findLast(([, unitMs]) => ms >= unitMs) ?? ['ms', 1]
  return `${Number((ms / size).toFixed(1))}${unit}`
}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
