// The variables of the environment, and how their texts are read. What may be in them, the options say.

/** One variable, or several names of it, the first of which goes before the others. */
export interface Variable {
  readonly names: readonly string[]
  /** The option, and its member. */
  readonly path: readonly string[]
  readonly parse: (text: string) => unknown
}

/** In the order in which `sojourn check` shows them. */
export const VARIABLES: readonly Variable[] = [
  { names: ['SOJOURN_SECRET', 'SESSION_SECRET'], path: ['secret'], parse: list },
  { names: ['SOJOURN_STORAGE'], path: ['storage'], parse: text },
  { names: ['SOJOURN_REDIS_URL', 'REDIS_URL'], path: ['redisUrl'], parse: text },
  { names: ['SOJOURN_DATABASE_URL', 'DATABASE_URL'], path: ['databaseUrl'], parse: text },
  { names: ['SOJOURN_PREFIX'], path: ['prefix'], parse: text },
  ...['preset', 'onSessionLimit', 'onStoreError', 'commit', 'cacheControl'].map((name) => variable(name, text)),
  ...[
    'idleTimeout',
    'absoluteTimeout',
    'touchInterval',
    'renewAfter',
    'renewGrace',
    'logicalIdTimeout',
    'endedRetention',
    'cleanupInterval',
    'storeTimeout',
  ].map((name) => variable(name, duration)),
  variable('maxSessionsPerUser', number),
  ...['trustProxy', 'context', 'clientContext', 'clearSiteData'].map((name) => variable(name, flag)),
  ...['passivePaths', 'fresh'].map((name) => variable(name, list)),
  ...['maxBytes', 'maxFields'].map((name) => ({ ...variable(name, number), path: ['limits', name] })),
  member('encryption', 'keys', list),
  member('encryption', 'clientContext', flag),
  member('encryption', 'readPlainUntil', date),
  ...['name', 'domain', 'path'].map((name) => member('cookie', name, text)),
  ...['secure', 'sameSite'].map((name) => member('cookie', name, flagOrText)),
  ...['persistent', 'partitioned'].map((name) => member('cookie', name, flag)),
  member('nearCache', 'maxAge', duration),
  member('nearCache', 'maxBytes', number),
  member('csrf', 'trustedOrigins', list),
  member('csrf', 'tokens', text),
  member('clientBinding', 'on', list),
  member('clientBinding', 'policy', text),
  ...['window', 'handOffWindow'].map((name) => member('recovery', name, duration)),
  member('recovery', 'maxPoints', number),
  member('recovery', 'application', text),
  member('recovery', 'endOnReuse', flag),
  member('recovery', 'maxGuesses', numberOrOff),
  ...['retention', 'pruneInterval'].map((name) => member('activityLog', name, duration)),
  ...['requests', 'requestFacts'].map((name) => member('activityLog', name, flag)),
]

function variable(option: string, parse: Variable['parse']): Variable {
  return { names: [`SOJOURN_${upperCase(option)}`], path: [option], parse }
}

function member(option: string, name: string, parse: Variable['parse']): Variable {
  return { names: [`SOJOURN_${upperCase(option)}_${upperCase(name)}`], path: [option, name], parse }
}

function upperCase(option: string): string {
  return option.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()
}

function text(value: string): string {
  return value
}

/** Digits alone are seconds, as in code. */
function duration(value: string): number | string {
  return /^\d+(?:\.\d+)?$/.test(value) ? Number(value) : value
}

function number(value: string): number | Error {
  return /^\d+$/.test(value) ? Number(value) : new Error('it is no whole number.')
}

/** A number, or `false` for no limit. */
function numberOrOff(value: string): number | false | Error {
  if (/^\d+$/.test(value)) return Number(value)
  return flag(value) === false ? false : new Error('it is neither a whole number nor false.')
}

function flag(value: string): boolean | Error {
  if (/^(?:true|1|yes|on)$/i.test(value)) return true
  if (/^(?:false|0|no|off)$/i.test(value)) return false
  return new Error('it is neither true nor false.')
}

/** An ISO 8601 date, or a date and time. */
function date(value: string): Date | Error {
  const read = /^\d{4}-\d{2}-\d{2}/.test(value) ? new Date(value) : new Date(Number.NaN)
  return Number.isNaN(read.getTime()) ? new Error('it is no date, such as 2026-12-31.') : read
}

function flagOrText(value: string): boolean | string {
  const read = flag(value)
  return read instanceof Error ? value : read
}

/** With commas or white space between. */
function list(value: string): string[] {
  return value.split(/[\s,]+/).filter((item) => item !== '')
}
