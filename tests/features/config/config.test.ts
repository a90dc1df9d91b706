// Configuration from the environment and from one object: what each variable sets, all mistakes at once, and no secret in any.
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from '@jest/globals'
import { jsonCodec, MemorySessionStore, SessionManager } from 'sojourn'
import { sessionOptions, sessionOptionsFromEnv } from 'sojourn/config'
import { RedisSessionStore } from 'sojourn/redis'
import { VARIABLES } from '../../../src/features/config/variables.js'
import { OTHER_SECRET, SECRET } from '../../support/http.js'

type Env = Record<string, string>

/** The settings in force. */
async function inForce(env: Env): Promise<Record<string, unknown>> {
  const manager = new SessionManager(sessionOptionsFromEnv(env))
  const settings = manager.describe()
  await manager.close()
  return settings
}

function refusal(env: Env): string {
  try {
    sessionOptionsFromEnv(env)
  } catch (error) {
    expect(error).toMatchObject({ name: 'SessionError', code: 'INVALID_OPTION' })
    return (error as Error).message
  }
  throw new Error('It was not refused.')
}

describe('from the environment', () => {
  test('keys encrypt fields, a key of before reads them, and nothing prints a key', async () => {
    const [newer, older] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')]
    const store = new MemorySessionStore({ cleanupInterval: 0 })
    const managerWith = (keys: string): SessionManager =>
      new SessionManager({ ...sessionOptionsFromEnv({ SESSION_SECRET: SECRET, SOJOURN_ENCRYPTION_KEYS: keys }), store })
    const before = managerWith(older)
    const { id } = await before.create({ fields: { note: 'a secret' } })
    expect(JSON.stringify((await store.get(id))?.toJSON())).not.toContain('a secret')
    const after = managerWith(`${newer}, ${older}`)
    expect((await after.get(id))?.fields).toEqual({ note: 'a secret' })
    expect(JSON.stringify(after.describe())).not.toContain(newer)
    await store.close()
  })

  test('what is wrong with keys is said by their variable, and without them', () => {
    const short = randomBytes(16).toString('base64')
    const message = refusal({ SESSION_SECRET: SECRET, SOJOURN_ENCRYPTION_KEYS: short })
    expect(message).toMatch(/SOJOURN_ENCRYPTION_KEYS: /)
    expect(message).not.toContain(short)
    const key = randomBytes(32).toString('base64')
    const wrong = { SESSION_SECRET: SECRET, SOJOURN_ENCRYPTION_KEYS: key, SOJOURN_ENCRYPTION_READ_PLAIN_UNTIL: 'soon' }
    expect(refusal(wrong)).toMatch(/SOJOURN_ENCRYPTION_READ_PLAIN_UNTIL: it is no date/)
    const both = { secret: SECRET, encryption: { keys: key }, codec: jsonCodec() }
    expect(() => sessionOptions(both)).toThrow(/encryption: codec is set, too/)
  })

  test('archiveEnded goes with archive, and not without', () => {
    const archive = (): void => {}
    expect(sessionOptions({ secret: SECRET, archive, archiveEnded: true })).toMatchObject({ archiveEnded: true })
    expect(() => sessionOptions({ secret: SECRET, archiveEnded: true })).toThrow(/archiveEnded needs archive/)
  })

  test('a secret is enough, and its list may replace it', async () => {
    expect(await inForce({ SESSION_SECRET: SECRET })).toMatchObject({
      store: 'MemorySessionStore',
      idleTimeoutMs: 1_800_000,
    })
    const two = await inForce({ SESSION_SECRET: 'x', SOJOURN_SECRET: `${SECRET}, ${OTHER_SECRET}` })
    expect(two).toMatchObject({ cookie: { secrets: 2 } })
  })

  test.each<[env: Env, settings: object]>([
    [
      { SOJOURN_IDLE_TIMEOUT: '10m', SOJOURN_ABSOLUTE_TIMEOUT: '3600' },
      { idleTimeoutMs: 600_000, absoluteTimeoutMs: 3_600_000 },
    ],
    [{ SOJOURN_PRESET: 'aal2' }, { absoluteTimeoutMs: 86_400_000 }],
    [
      { SOJOURN_MAX_SESSIONS_PER_USER: '3', SOJOURN_ON_SESSION_LIMIT: 'refuse' },
      { maxSessionsPerUser: 3, onSessionLimit: 'refuse' },
    ],
    [{ SOJOURN_MAX_BYTES: '5000' }, { limits: { maxBytes: 5_000, maxFields: 1_000 } }],
    [
      {
        SOJOURN_COOKIE_DOMAIN: 'example.com',
        SOJOURN_COOKIE_SECURE: 'yes',
        SOJOURN_COOKIE_SAME_SITE: 'strict',
        SOJOURN_COOKIE_PERSISTENT: '1',
      },
      { cookie: { domain: 'example.com', secure: true, sameSite: 'strict', persistent: true } },
    ],
    [{ SOJOURN_COOKIE_SECURE: 'when-https' }, { cookie: { secure: 'when-https' } }],
    [
      { SOJOURN_TRUST_PROXY: 'true', SOJOURN_CLIENT_CONTEXT: 'off' },
      { trustProxy: true, clientContext: { ip: false } },
    ],
    [{ SOJOURN_PASSIVE_PATHS: '/poll /health' }, { hasPassivePaths: true }],
    [
      { SOJOURN_STORE_TIMEOUT: '2', SOJOURN_CLEANUP_INTERVAL: '0' },
      { storeTimeoutMs: 2_000, cleanupIntervalMs: 0 },
    ],
    [{ SOJOURN_IDLE_TIMEOUT: ' ' }, { idleTimeoutMs: 1_800_000 }],
  ])('%j', async (env, settings) => {
    expect(await inForce({ SESSION_SECRET: SECRET, ...env })).toMatchObject(settings)
  })

  test.each<[env: Env, store: string]>([
    [{}, 'MemorySessionStore'],
    [{ REDIS_URL: 'redis://127.0.0.1:1' }, 'RedisSessionStore'],
    [{ REDIS_URL: 'redis://127.0.0.1:1', DATABASE_URL: 'sqlite:/tmp/never.db' }, 'RedisSessionStore'],
    [{ DATABASE_URL: 'sqlite:/tmp/never.db' }, 'SqlSessionStore'],
    [{ REDIS_URL: 'redis://127.0.0.1:1', SOJOURN_STORAGE: 'memory' }, 'MemorySessionStore'],
  ])('%j keeps sessions in %s', async (env, store) => {
    expect(await inForce({ SESSION_SECRET: SECRET, ...env })).toMatchObject({ store })
  })

  test('every option of a variable is one', () => {
    for (const { path, parse } of VARIABLES) {
      expect(path.length).toBeGreaterThan(0)
      expect(parse('x')).toBeDefined()
    }
    const names = VARIABLES.flatMap(({ names: all }) => all)
    expect(names).toEqual([...new Set(names)])
  })

  test('all mistakes are named at once, each by its variable', () => {
    const message = refusal({
      SESSION_SECRET: 'short',
      SOJOURN_IDLE_TIMEOUT: 'soon',
      SOJOURN_COOKIE_SAME_SITE: 'sometimes',
      SOJOURN_COOKIE_NAME: 'a b',
      SOJOURN_MAX_BYTES: 'many',
      SOJOURN_TRUST_PROXY: 'perhaps',
      SOJOURN_IDEL_TIMEOUT: '5m',
      SOJOURN_STORAGE: 'tape',
    })
    expect(message.split('\n')).toHaveLength(9)
    for (const line of [
      /8 mistakes/,
      /SOJOURN_COOKIE_NAME: /,
      /SESSION_SECRET: secret.* 5 /,
      /SOJOURN_IDLE_TIMEOUT: idleTimeout is "soon"/,
      /SOJOURN_COOKIE_SAME_SITE: /,
      /SOJOURN_MAX_BYTES: it is no whole number/,
      /SOJOURN_TRUST_PROXY: it is neither true nor false/,
      /SOJOURN_IDEL_TIMEOUT: there is no such variable\. Did you mean SOJOURN_IDLE_TIMEOUT/,
      /SOJOURN_STORAGE: it is none of memory, redis, database/,
    ]) {
      expect(message).toMatch(line)
    }
  })

  test('what only goes wrong together is told as well', () => {
    const env = { SESSION_SECRET: SECRET, SOJOURN_IDLE_TIMEOUT: '5h', SOJOURN_ABSOLUTE_TIMEOUT: '1h' }
    expect(refusal(env)).toMatch(/idleTimeout \(5h\) is longer than absoluteTimeout \(1h\)/)
    expect(refusal({})).toMatch(/SOJOURN_SECRET: it is missing/)
    expect(refusal({ SESSION_SECRET: SECRET, SOJOURN_STORAGE: 'redis' })).toMatch(
      /SOJOURN_REDIS_URL: storage redis needs/,
    )
    expect(refusal({ SESSION_SECRET: SECRET, SOJOURN_STORAGE: 'database' })).toMatch(/SOJOURN_DATABASE_URL/)
  })

  test('no message holds a secret, a password or a URL', () => {
    const secret = 'hunter2-hunter2'
    for (const env of [
      { SESSION_SECRET: secret },
      { SESSION_SECRET: SECRET, REDIS_URL: `http://user:${secret}@host` },
      { SESSION_SECRET: SECRET, REDIS_URL: `redis://user:${secret}@[` },
      { SESSION_SECRET: SECRET, DATABASE_URL: `oracle://user:${secret}@host/db` },
      { SESSION_SECRET: SECRET, DATABASE_URL: secret },
    ]) {
      const message = refusal(env)
      expect(message).not.toContain(secret)
    }
  })

  test('looking at it warns of nothing: no store is used that the application does not have', async () => {
    const warned: Error[] = []
    const hear = (warning: Error): void => void warned.push(warning)
    const { NODE_ENV } = process.env
    process.env['NODE_ENV'] = 'production'
    process.on('warning', hear)
    const { store } = sessionOptionsFromEnv({ SESSION_SECRET: SECRET, REDIS_URL: 'redis://127.0.0.1:1' })
    await new Promise(setImmediate)
    process.off('warning', hear)
    process.env['NODE_ENV'] = NODE_ENV
    await store?.close()
    expect(warned).toEqual([])
  })

  test('options that no variable can hold go beside, and before', async () => {
    const archive = (): void => {}
    const options = sessionOptionsFromEnv(
      { SESSION_SECRET: SECRET, SOJOURN_IDLE_TIMEOUT: '5m' },
      { archive, idleTimeout: '7m' },
    )
    const manager = new SessionManager(options)
    expect(manager.describe()).toMatchObject({ archives: true, idleTimeoutMs: 420_000 })
    await manager.close()
  })
})

describe('from one object', () => {
  test('storage and options', async () => {
    const redis = sessionOptions({
      secret: SECRET,
      redisUrl: 'redis://127.0.0.1:1',
      prefix: 'shop:',
      idleTimeout: '5m',
    })
    expect(redis.store).toBeInstanceOf(RedisSessionStore)
    await redis.store?.close()
    expect(sessionOptions({ secret: SECRET, storage: 'memory' }).store).toBeInstanceOf(MemorySessionStore)
  })

  test('mistakes are named by their options', () => {
    const wrong = {
      secret: SECRET,
      idleTimeout: 'soon',
      idelTimeout: 5,
      limits: { maxBytes: 0, maxFields: -1 },
    } as never
    expect(() => sessionOptions(wrong)).toThrow(
      /4 mistakes.*idleTimeout: .*idelTimeout: There is no option.*limits.maxBytes: .*limits.maxFields: /s,
    )
  })
})
