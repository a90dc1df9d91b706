// One object, or the environment, as the options of `session()`: looked at as a whole, all mistakes named at once, no secret in
// any message. What an option means, and whether a value is one, only the core knows: it is asked.

import { didYouMean } from '../../did-you-mean.js'
import { invalidOption, isSessionError, type SessionError } from '../../errors.js'
import { SessionManager } from '../../manager/manager.js'
import type { SessionOptions } from '../../options/options.js'
import type { SessionCodec } from '../../record/codec.js'
import { MemorySessionStore } from '../../stores/memory.js'
import { type RedisNearCacheOptions, RedisSessionStore } from '../../stores/redis.js'
import { sqlStore } from '../../stores/sql.js'
import { type EncryptionOptions, encrypted } from '../encryption/index.js'
import { type Mistake, mistakesInGroup, mistakesInParts, PARTS, type PartsConfig, refusalOf } from './parts.js'
import { VARIABLES } from './variables.js'

/** All that sessions are configured by: the options of `session()`, and where they are kept. */
export interface SessionConfig extends Omit<SessionOptions, 'store'> {
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
   * Answers reads of sessions in Redis from memory: `maxAge`, `maxBytes`. See `nearCache` of `RedisSessionStore`.
   * @default none: every read asks Redis
   */
  nearCache?: RedisNearCacheOptions | undefined
  /**
   * Encrypts each field: `keys`, newest first, and what else `encrypted()` of `sojourn/encryption` takes. Not beside a `codec`.
   * @default fields are stored as JSON
   */
  encryption?: Omit<EncryptionOptions, 'codec'> | undefined
}

/** All that a session service is configured by: its sessions, and the features that the application mounts. */
export interface SessionManagerConfig extends SessionConfig, PartsConfig {}

/** The options of each part of a session service. What is not configured is empty, which is all defaults. */
export interface ServiceOptions extends Required<{ [Part in keyof PartsConfig]: NonNullable<PartsConfig[Part]> }> {
  /** For `session()` and `new SessionManager()`, with the store. */
  readonly session: SessionOptions
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
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once, by their variables, and no secret. A variable of a
 * feature, such as `SOJOURN_CSRF_TOKENS`, is one: it would have no effect, see `serviceOptionsFromEnv()`
 */
export function sessionOptionsFromEnv(
  env: Environment = process.env,
  more: SessionConfig | Omit<SessionConfig, 'secret'> = {},
): SessionOptions {
  return resolved(ofEnvironment(env, more), 'sessionOptionsFromEnv').session
}

/**
 * The options that one object configures.
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once
 */
export function sessionOptions(config: SessionConfig): SessionOptions {
  return resolved(ofObject(config), 'sessionOptions').session
}

/**
 * The options that the environment configures, of sessions and of features: for `session()`, `csrf()`, `clientBinding()`, `recovery()` and
 * `new ActivityLog()`. What is in force is what you mount.
 *
 * ```ts
 * const options = serviceOptionsFromEnv()
 * app.use(session(options.session), express.urlencoded(), csrf(options.csrf))
 * ```
 * @param env default `process.env`
 * @param more options that no variable can hold, such as `csrf: { tokenOf }`; they go before the environment
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once, by their variables, and no secret
 */
export function serviceOptionsFromEnv(
  env: Environment = process.env,
  more: SessionManagerConfig | Omit<SessionManagerConfig, 'secret'> = {},
): ServiceOptions {
  return resolved(ofEnvironment(env, more))
}

/**
 * The options that one object configures, of sessions and of features.
 * @throws {SessionError} `INVALID_OPTION`, which names all mistakes at once
 */
export function serviceOptions(config: SessionManagerConfig): ServiceOptions {
  return resolved(ofObject(config))
}

type Environment = Readonly<Record<string, string | undefined>>

/** A configuration as it came, and how messages name what is in it. */
interface Source {
  readonly config: SessionManagerConfig
  /** What could not be read. */
  readonly mistakes: readonly Mistake[]
  readonly nameOf: (option: string) => string
}

function ofObject(config: SessionManagerConfig): Source {
  return { config, mistakes: [], nameOf: (name) => name }
}

function ofEnvironment(env: Environment, more: object): Source {
  const { config, mistakes, names } = read(env)
  for (const [option, value] of Object.entries(more)) {
    if (value === undefined) continue
    const before = config[option]
    config[option] = isPlain(before) && isPlain(value) ? { ...before, ...value } : value
  }
  return {
    config: config as unknown as SessionManagerConfig,
    mistakes,
    nameOf: (option) => names.get(option) ?? firstOf(option, names) ?? variableOf(option),
  }
}

/** For `sessionsOnly`, the function of that name: what is of features has no effect there, and is refused. */
function resolved({ config, mistakes: unreadable, nameOf }: Source, sessionsOnly?: string): ServiceOptions {
  const mistakes = [...unreadable]
  const unread = new Set(unreadable.map(({ name }) => name))
  const note = (option: string, message: string): void => {
    if (!unread.has(nameOf(option))) mistakes.push({ name: nameOf(option), message })
  }
  const { storage: _storage, redisUrl: _redis, databaseUrl: _database, prefix: _prefix, nearCache, ...others } = config
  const { encryption, csrf = {}, clientBinding = {}, recovery = {}, activityLog = {}, ...options } = others
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
  for (const { name, message } of mistakesInParts(config)) note(name, message)
  for (const [part, taker] of Object.entries(PARTS)) {
    if (sessionsOnly === undefined || config[part as keyof PartsConfig] === undefined) continue
    const whole = sessionsOnly.replace('session', 'service')
    note(part, `${sessionsOnly}() has nowhere to put it: take ${whole}(), and hand its ${part} to ${taker}.`)
  }
  const storage = storageOf(config)
  if (!STORAGES.includes(storage)) note('storage', `it is none of ${STORAGES.join(', ')}.`)
  if (storage === 'redis' && !isUrl(config.redisUrl, /^(rediss?|valkeys?):$/)) {
    note('redisUrl', 'storage redis needs the URL of a server: redis:// or rediss://, user, password, host and port.')
  }
  if (nearCache !== undefined && storage !== 'redis' && config.redisUrl === undefined) {
    note('nearCache', 'it is of sessions in Redis, of which there is no URL.')
  }
  if (storage === 'database' && config.databaseUrl === undefined) {
    note('databaseUrl', 'storage database needs a URL: sqlite:FILE, postgres://… or mysql://…')
  }
  if (mistakes.length === 0) {
    const message = refusalOfCore(options)
    if (message !== undefined) mistakes.push({ name: 'together', message })
  }
  if (mistakes.length > 0) throw refused(mistakes)
  try {
    return { session: { ...options, store: storeOf(storage, config) }, csrf, clientBinding, recovery, activityLog }
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

function read(env: Environment): {
  config: Record<string, unknown>
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

/** Of an object of options: the first variable that has set one of them. */
function firstOf(option: string, names: ReadonlyMap<string, string>): string | undefined {
  return [...names].find(([path]) => path.startsWith(`${option}.`))?.[1]
}

/** An object of options, and nothing that was made of one. */
function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

/** The variable that an option could be set by. */
function variableOf(option: string): string {
  return VARIABLES.find(({ path }) => path.join('.') === option || path[0] === option)?.names[0] ?? option
}

/** What the core says of one option, each member of an object by itself. */
function mistakesIn(option: string, value: unknown): Mistake[] {
  if (['cookie', 'limits'].includes(option) && typeof value === 'object' && value !== null) {
    return mistakesInGroup(option, value, (group) => refusalOfCore({ [option]: group }))
  }
  // What says how something is archived means nothing without what archives it: that is looked at with all together.
  const beside = option === 'archiveEnded' ? { archive: () => {} } : {}
  const message = refusalOfCore({ ...beside, [option]: value })
  return message === undefined ? [] : [{ name: option, message }]
}

function refusalOfCore(options: object): string | undefined {
  const store = new MemorySessionStore({ cleanupInterval: 0, warnInProduction: false })
  return refusalOf(() => void new SessionManager({ secret: PROBE_SECRET, ...options, store }).close())
}

function storageOf({ storage, redisUrl, databaseUrl }: SessionManagerConfig): 'memory' | 'redis' | 'database' {
  if (storage !== undefined) return storage
  return redisUrl !== undefined ? 'redis' : databaseUrl !== undefined ? 'database' : 'memory'
}

function storeOf(
  storage: 'memory' | 'redis' | 'database',
  { redisUrl, databaseUrl, prefix, nearCache, clock }: SessionManagerConfig,
): NonNullable<SessionOptions['store']> {
  switch (storage) {
    case 'memory':
      return new MemorySessionStore({ clock })
    case 'redis':
      return new RedisSessionStore({ url: redisUrl, prefix, nearCache })
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
  const count = mistakes.length === 1 ? 'is a mistake' : `are ${mistakes.length} mistakes`
  return invalidOption(`There ${count} in the configuration of sessions:\n${lines.join('\n')}`)
}
