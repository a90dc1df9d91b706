// One object, or the environment, as the options of `session()`: looked at as a whole, all mistakes named at once, no secret in
// any message. What an option means, and whether a value is one, only the core knows: it is asked.

import { didYouMean } from '../../did-you-mean.js'
import { invalidOption, isSessionError, type SessionError } from '../../errors.js'
import { SessionManager } from '../../manager/manager.js'
import type { SessionOptions } from '../../options/options.js'
import type { SessionCodec } from '../../record/codec.js'
import { MemorySessionStore } from '../../stores/memory.js'
import { RedisSessionStore } from '../../stores/redis.js'
import { sqlStore } from '../../stores/sql.js'
import { type EncryptionOptions, encrypted } from '../encryption/index.js'
import { VARIABLES } from './variables.js'

/** All that a session service is configured by: the options of `session()`, and where it keeps its sessions. */
export interface SessionManagerConfig extends Omit<SessionOptions, 'store'> {
  /**
   * Where sessions are kept: `'memory'`, for one process; `'redis'`, at `redisUrl`; `'database'`, SQLite, PostgreSQL or MySQL at
   * `databaseUrl`.
   * @default 'redis' with a `redisUrl`, else 'database' with a `databaseUrl`, else 'memory'
   */
  storage?: 'memory' | 'redis' | 'database' | undefined
  /** Such as `rediss://user:password@host:6379`. */
  redisUrl?: string | undefined
  /** Such as `postgres://user:password@host/database`, or `sqlite:./sessions.db`. */
  databaseUrl?: string | undefined
  /**
   * What every key in Redis begins with. Give each application on one Redis its own.
   * @default 'soj:'
   */
  prefix?: string | undefined
  /**
   * Encrypts each field: `keys`, newest first, and what else `encrypted()` of `sojourn/encryption` takes. Not beside a `codec`.
   * @default fields are stored as JSON
   */
  encryption?: Omit<EncryptionOptions, 'codec'> | undefined
}

/** One thing that is wrong with a configuration. */
interface Mistake {
  readonly name: string
  readonly message: string
}

const STORAGES = ['memory', 'redis', 'database'] as const
/** Passes the checks, and signs nothing. */
const PROBE_SECRET = 'only to look at other options, 0Zt5VbN7xLr2PfHs9'

/**
 * The options that the environment configures, for `session()` and `new SessionManager()`. The variables are `SOJOURN_` and the name of
 * the option, such as `SOJOURN_IDLE_TIMEOUT=30m`; `SESSION_SECRET`, `REDIS_URL` and `DATABASE_URL` count, too. The store is made,
 * and is closed by `manager.close()`.
 *
 * ```ts
 * app.use(session(sessionOptionsFromEnv()))
 * ```
 * @param env default `process.env`
 * @param more options that no variable can hold, such as `activity`; they go before the environment
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once, by their variables, and no secret
 */
export function sessionOptionsFromEnv(
  env: Readonly<Record<string, string | undefined>> = process.env,
  more: SessionManagerConfig | Omit<SessionManagerConfig, 'secret'> = {},
): SessionOptions {
  const { config, mistakes, names } = read(env)
  const given = Object.fromEntries(Object.entries(more).filter(([, value]) => value !== undefined))
  return resolved(
    { ...config, ...given } as SessionManagerConfig,
    mistakes,
    (option) => names.get(option) ?? variableOf(option),
  )
}

/**
 * The options that one object configures.
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once
 */
export function sessionOptions(config: SessionManagerConfig): SessionOptions {
  return resolved(config, [], (name) => name)
}

function resolved(
  config: SessionManagerConfig,
  before: readonly Mistake[],
  nameOf: (option: string) => string,
): SessionOptions {
  const mistakes = [...before]
  const unread = new Set(before.map(({ name }) => name))
  const note = (option: string, message: string): void => {
    if (!unread.has(nameOf(option))) mistakes.push({ name: nameOf(option), message })
  }
  const {
    storage: _storage,
    redisUrl: _redis,
    databaseUrl: _database,
    prefix: _prefix,
    encryption,
    ...options
  } = config
  if (encryption !== undefined) {
    const codec =
      config.codec === undefined ? codecOf(encryption) : 'codec is set, too: hand it to encrypted() instead.'
    if (typeof codec === 'string') note('encryption', codec)
    else options.codec = codec
  }
  if (config.secret === undefined) note('secret', 'it is missing: make one with openssl rand -base64 32.')
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined) continue
    for (const { name, message } of mistakesIn(option, value)) note(name, message)
  }
  const storage = storageOf(config)
  if (!STORAGES.includes(storage)) note('storage', `it is none of ${STORAGES.join(', ')}.`)
  if (storage === 'redis' && !isUrl(config.redisUrl, /^(rediss?|valkeys?):$/)) {
    note('redisUrl', 'storage redis needs the URL of a server: redis:// or rediss://, user, password, host and port.')
  }
  if (storage === 'database' && config.databaseUrl === undefined) {
    note('databaseUrl', 'storage database needs a URL: sqlite:FILE, postgres://… or mysql://…')
  }
  if (mistakes.length === 0) {
    const message = refusalOf(options)
    if (message !== undefined) mistakes.push({ name: 'together', message })
  }
  if (mistakes.length > 0) throw refused(mistakes)
  try {
    return { ...options, store: storeOf(storage, config) }
  } catch (cause) {
    // A message of a database's client may quote a URL.
    const why = isSessionError(cause, 'INVALID_OPTION') ? withoutUrl(cause.message, config) : 'it cannot be used.'
    throw refused([{ name: nameOf(storage === 'redis' ? 'redisUrl' : 'databaseUrl'), message: why }])
  }
}

/** A codec that encrypts, or why there is none. */
function codecOf(encryption: Omit<EncryptionOptions, 'codec'>): SessionCodec | string {
  try {
    return encrypted(encryption)
  } catch (error) {
    if (!isSessionError(error)) throw error
    return error.message
  }
}

function read(env: Readonly<Record<string, string | undefined>>): {
  config: Partial<Record<string, unknown>>
  mistakes: Mistake[]
  /** Of the options that were set: by which variable. */
  names: ReadonlyMap<string, string>
} {
  const config: Record<string, unknown> = {}
  const set = new Map<string, string>()
  const mistakes: Mistake[] = []
  for (const { names, path, parse } of VARIABLES) {
    const name = names.find((one) => (env[one] ?? '').trim() !== '')
    if (name === undefined) continue
    set.set(path.join('.'), name)
    const value = parse((env[name] as string).trim())
    if (value instanceof Error) mistakes.push({ name, message: value.message })
    else put(config, path, value)
  }
  const known = VARIABLES.flatMap(({ names }) => names)
  for (const name of Object.keys(env)) {
    if (!name.startsWith('SOJOURN_') || known.includes(name)) continue
    mistakes.push({ name, message: `there is no such variable.${didYouMean(name, known)}` })
  }
  return { config, mistakes, names: set }
}

function put(config: Record<string, unknown>, [first = '', second]: readonly string[], value: unknown): void {
  if (second === undefined) config[first] = value
  else config[first] = { ...(config[first] as object | undefined), [second]: value }
}

/** The variable that an option is set by, for messages. */
function variableOf(option: string): string {
  return VARIABLES.find(({ path }) => path.join('.') === option || path[0] === option)?.names[0] ?? option
}

/** What the core says of one option, each member of an object by itself. */
function mistakesIn(option: string, value: unknown): Mistake[] {
  const isGroup = ['cookie', 'limits'].includes(option) && typeof value === 'object' && value !== null
  const members = isGroup ? Object.entries(value) : []
  const single = members.map(([name, part]) => ({
    name: `${option}.${name}`,
    message: refusalOf({ [option]: { [name]: part } }),
  }))
  const mistakes = single.filter((one): one is Mistake => one.message !== undefined)
  // What says how something is archived means nothing without what archives it: that is looked at with all together.
  const beside = option === 'archiveEnded' ? { archive: () => {} } : {}
  const whole = mistakes.length > 0 ? undefined : refusalOf({ ...beside, [option]: value })
  return whole === undefined ? mistakes : [{ name: option, message: whole }]
}

/** Why the core refuses options, or `undefined`. */
function refusalOf(options: object): string | undefined {
  const store = new MemorySessionStore({ cleanupInterval: 0, warnInProduction: false })
  try {
    void new SessionManager({ secret: PROBE_SECRET, ...options, store }).close()
    return undefined
  } catch (error) {
    if (!isSessionError(error)) throw error
    return error.message
  }
}

function storageOf({ storage, redisUrl, databaseUrl }: SessionManagerConfig): 'memory' | 'redis' | 'database' {
  if (storage !== undefined) return storage
  return redisUrl !== undefined ? 'redis' : databaseUrl !== undefined ? 'database' : 'memory'
}

function storeOf(
  storage: 'memory' | 'redis' | 'database',
  { redisUrl, databaseUrl, prefix, clock }: SessionManagerConfig,
): NonNullable<SessionOptions['store']> {
  switch (storage) {
    case 'memory':
      return new MemorySessionStore({ clock })
    case 'redis':
      return new RedisSessionStore({ url: redisUrl, prefix })
    case 'database':
      return sqlStore(databaseUrl as string)
  }
}

function isUrl(text: string | undefined, protocol: RegExp): boolean {
  return text !== undefined && URL.canParse(text) && protocol.test(new URL(text).protocol)
}

function withoutUrl(message: string, { redisUrl, databaseUrl }: SessionManagerConfig): string {
  return [redisUrl, databaseUrl].reduce<string>((text, url) => (url ? text.replaceAll(url, '…') : text), message)
}

function refused(mistakes: readonly Mistake[]): SessionError {
  const lines = mistakes.map(({ name, message }) => `  ${name}: ${message}`)
  const count = mistakes.length === 1 ? 'a mistake' : `${mistakes.length} mistakes`
  return invalidOption(`There is ${count} in the configuration of sessions:\n${lines.join('\n')}`)
}
