// `npx sojourn`: what is in force, whether the store works, and the sessions in it, from the variables that the application has.

import { parseArgs } from 'node:util'
import { isSessionError } from '../../errors.js'
import { SessionManager } from '../../manager/manager.js'
import type { SessionInfo } from '../../record/session-info.js'
import { RedisSessionStore } from '../../stores/redis.js'
import { type ServiceOptions, serviceOptionsFromEnv } from './config.js'
import { VARIABLES } from './variables.js'

/** What the command line stands on. */
export interface Terminal {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  print(line: string): void
  complain(line: string): void
}

const USAGE = `sojourn check                        what is in force, whether the store works, and what is unsafe
sojourn sessions list [--user ID] [--ended] [--json]
sojourn sessions user ID [--revoke]  the sessions of a user, and their end
sojourn sessions revoke ID… [--detail TEXT]
sojourn sessions stats
sojourn sessions export              all sessions with their fields, one JSON object a line

Configured by SESSION_SECRET, REDIS_URL or DATABASE_URL, and SOJOURN_*. Node reads a file: node --env-file=.env.`

const FLAGS = {
  user: { type: 'string' },
  detail: { type: 'string' },
  revoke: { type: 'boolean' },
  ended: { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean' },
} as const

type Flags = { [Name in keyof typeof FLAGS]?: (typeof FLAGS)[Name]['type'] extends 'string' ? string : boolean }

/** Runs a command. Resolves to the exit code: 0; 1 when something is wrong; 2 when it was called wrongly. */
export async function main(terminal: Terminal): Promise<number> {
  let words: string[]
  let flags: Flags
  try {
    const parsed = parseArgs({ args: [...terminal.args], options: FLAGS, allowPositionals: true })
    words = parsed.positionals
    flags = parsed.values as Flags
  } catch (error) {
    terminal.complain(`${(error as Error).message}\n\n${USAGE}`)
    return 2
  }
  const [topic, verb, ...rest] = words
  if (flags.help || topic === undefined) {
    terminal.print(USAGE)
    return flags.help ? 0 : 2
  }
  const command = topic === 'check' ? check : topic === 'sessions' ? COMMANDS[verb ?? ''] : undefined
  if (command === undefined) {
    terminal.complain(`There is no command "${words.join(' ')}".\n\n${USAGE}`)
    return 2
  }
  let manager: SessionManager | undefined
  try {
    // No clean-up of ours, and no waiting of minutes for a store that is away.
    const options = serviceOptionsFromEnv(terminal.env, { cleanupInterval: 0 })
    manager = new SessionManager(options.session)
    manager.events.on('storeError', () => {})
    return await command({ ...terminal, manager, options, words: rest, flags })
  } catch (error) {
    terminal.complain(`error: ${reasonOf(error)}`)
    return 1
  } finally {
    await manager?.close().catch(() => {})
  }
}

interface Call extends Terminal {
  readonly manager: SessionManager
  readonly options: ServiceOptions
  readonly words: readonly string[]
  readonly flags: Flags
}

const COMMANDS: Readonly<Record<string, (call: Call) => Promise<number>>> = {
  list,
  user,
  revoke,
  stats,
  export: exportAll,
}

// --- check ---

async function check({ manager, options, env, print }: Call): Promise<number> {
  const { cookie, limits, clientContext, abilities, ...settings } = manager.describe()
  const rows = { ...settings, cookie, limits, clientContext, abilities, nearCache: boundsOf(manager) }
  print('In force (times in milliseconds):')
  for (const [name, value] of Object.entries(rows)) print(`  ${name}: ${JSON.stringify(value) ?? 'none'}`)
  const { session: _session, ...parts } = options
  print('Where the application mounts it:')
  for (const [name, given] of Object.entries(parts)) {
    print(`  ${name}: ${Object.keys(given).length === 0 ? 'defaults' : JSON.stringify(given)}`)
  }
  const set = VARIABLES.flatMap(({ names }) => names).filter((name) => (env[name] ?? '') !== '')
  print(`From: ${set.join(', ')}`)
  const warnings = await tried(manager, env)
  for (const warning of warnings) print(`warning: ${warning}`)
  print(`The store answers. ${warnings.length === 0 ? 'Nothing to warn of.' : `${warnings.length} to look at.`}`)
  return 0
}

/** What bounds the near cache; `undefined` for none. */
function boundsOf({ store }: SessionManager): object | undefined {
  const near = store instanceof RedisSessionStore ? store.nearCache : undefined
  return near && { maxAgeMs: near.maxAgeMs, maxBytes: near.maxBytes }
}

/** Calls the store as requests do. What a store has to say of how it is set up comes as process warnings, in production. */
async function tried(manager: SessionManager, env: Call['env']): Promise<string[]> {
  const warnings: string[] = []
  const hear = (warning: Error): void => {
    const { code } = warning as { code?: unknown }
    // Of memory, more is told below.
    if (warning.name === 'SojournWarning' && code !== 'SOJOURN_MEMORY_STORE') warnings.push(warning.message)
  }
  process.on('warning', hear)
  try {
    const { id } = await manager.create({ fields: { check: true } })
    const isThere = (await manager.get(id)) !== null
    await manager.revoke(id, { by: 'sojourn check' })
    if (!isThere) throw new Error('a session that was stored could not be read')
    // They are told in turns of their own.
    await new Promise((resolve) => setTimeout(resolve, WARNINGS_MS))
  } finally {
    process.off('warning', hear)
  }
  const { store, trustProxy, cookie } = manager.describe() as { store: string; trustProxy: boolean; cookie: Cookie }
  if (store === 'MemorySessionStore') {
    warnings.push('storage is memory: one process only, and gone when it ends. Set REDIS_URL or DATABASE_URL.')
  }
  if (cookie.secure === false) warnings.push('cookie.secure is false: who is on the path can take any session over.')
  if (!trustProxy && env['NODE_ENV'] === 'production') {
    warnings.push(
      "trustProxy is off: behind a proxy that ends TLS, Express needs app.set('trust proxy', 1), others SOJOURN_TRUST_PROXY=true.",
    )
  }
  return warnings
}

const WARNINGS_MS = 200

interface Cookie {
  readonly secure: unknown
}

// --- sessions ---

async function list({ manager, flags, print }: Call): Promise<number> {
  const status = flags.ended ? 'all' : 'live'
  const users = flags.user === undefined ? [undefined] : userIds(flags.user)
  for (const userId of users) {
    for await (const info of manager.list({ status, ...(userId !== undefined && { userId }) }))
      print(lineOf(info, flags))
  }
  return 0
}

async function user({ manager, words: [id], flags, print, complain }: Call): Promise<number> {
  if (id === undefined) {
    complain('Which user? sojourn sessions user ID')
    return 2
  }
  for (const userId of userIds(id)) {
    if (flags.revoke) {
      const count = await manager.revokeUser(userId, { by: 'sojourn', detail: flags.detail })
      if (count > 0) print(`revoked ${count} ${count === 1 ? 'session' : 'sessions'}`)
    } else for (const info of await manager.sessionsOf(userId)) print(lineOf(info, flags))
  }
  return 0
}

async function revoke({ manager, words, flags, print, complain }: Call): Promise<number> {
  if (words.length === 0) {
    complain('Which session? sojourn sessions revoke ID')
    return 2
  }
  let code = 0
  for (const id of words) {
    const wasAlive = await manager.revoke(id, { by: 'sojourn', detail: flags.detail })
    print(`${id}: ${wasAlive ? 'revoked' : 'was over, or never there'}`)
    if (!wasAlive) code = 1
  }
  return code
}

async function stats({ manager, print }: Call): Promise<number> {
  const counts = { live: 0, 'with a user': 0, ended: 0 }
  const users = new Set<unknown>()
  const reasons = new Map<string, number>()
  for await (const { end, userId } of manager.list({ status: 'all' })) {
    if (end !== undefined) {
      counts.ended++
      reasons.set(end.reason, (reasons.get(end.reason) ?? 0) + 1)
    } else {
      counts.live++
      if (userId === undefined) continue
      counts['with a user']++
      users.add(userId)
    }
  }
  for (const [name, count] of Object.entries({ ...counts, users: users.size })) print(`${name}: ${count}`)
  for (const [reason, count] of [...reasons].toSorted(([a], [b]) => (a < b ? -1 : 1)))
    print(`  ended, ${reason}: ${count}`)
  return 0
}

async function exportAll({ manager, print }: Call): Promise<number> {
  for await (const { id } of manager.list()) {
    const stored = await manager.get(id)
    if (stored !== null) print(JSON.stringify(stored))
  }
  return 0
}

function lineOf(info: SessionInfo, { json }: Flags): string {
  if (json) return JSON.stringify(info)
  const { id, userId, lastAccessedAt, expiresAt, context, end } = info
  const until = end === undefined ? `until ${expiresAt.toISOString()}` : `ended: ${end.reason}`
  return [
    id,
    userId ?? '-',
    `active ${lastAccessedAt.toISOString()}`,
    until,
    shown(context.ip),
    shown(context.userAgent),
  ].join('  ')
}

/** What a client said of itself may hold what turns a terminal. */
function shown(text: string | undefined): string {
  return (text ?? '-').replace(/\p{Cc}|\p{Bidi_Control}/gu, '�').slice(0, MAX_SHOWN)
}

const MAX_SHOWN = 100

/** On a command line, a number and the text of it look the same, and are two users. */
function userIds(text: string): (string | number)[] {
  const number = Number(text)
  return text.trim() !== '' && String(number) === text ? [text, number] : [text]
}

function reasonOf(error: unknown): string {
  const { message, cause } = error as Error
  return isSessionError(error) && isSessionError(cause) ? `${message} ${cause.message}` : message
}
