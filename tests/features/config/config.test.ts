// Configuration from the environment and from one object: what each variable sets, all mistakes at once, and no secret in any.
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from '@jest/globals'
import { jsonCodec, MemorySessionStore, SessionManager } from 'sojourn'
import { ActivityLog, memorySink } from 'sojourn/activity'
import { clientBinding } from 'sojourn/client-binding'
import { serviceOptions, serviceOptionsFromEnv, sessionOptions, sessionOptionsFromEnv } from 'sojourn/config'
import { csrf } from 'sojourn/csrf'
import { recovery } from 'sojourn/recovery'
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

function refusal(env: Env, options: (from: Env) => unknown = sessionOptionsFromEnv): string {
  try {
    options(env)
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

describe('of features', () => {
  const env = {
    SESSION_SECRET: SECRET,
    SOJOURN_CSRF_TOKENS: 'always',
    SOJOURN_CSRF_TRUSTED_ORIGINS: 'https://admin.example.com https://app.example.com:8443',
    SOJOURN_CLIENT_BINDING_ON: 'network, language',
    SOJOURN_CLIENT_BINDING_POLICY: 'challenge',
    SOJOURN_RECOVERY_WINDOW: '2h',
    SOJOURN_RECOVERY_HAND_OFF_WINDOW: '120',
    SOJOURN_RECOVERY_MAX_POINTS: '3',
    SOJOURN_RECOVERY_APPLICATION: 'shop',
    SOJOURN_RECOVERY_END_ON_REUSE: 'yes',
    SOJOURN_RECOVERY_MAX_GUESSES: 'off',
    SOJOURN_ACTIVITY_LOG_RETENTION: '90d',
    SOJOURN_ACTIVITY_LOG_PRUNE_INTERVAL: '10m',
    SOJOURN_ACTIVITY_LOG_REQUESTS: 'true',
    SOJOURN_ACTIVITY_LOG_REQUEST_FACTS: 'false',
  }
  const parts = {
    csrf: { tokens: 'always', trustedOrigins: ['https://admin.example.com', 'https://app.example.com:8443'] },
    clientBinding: { on: ['network', 'language'], policy: 'challenge' },
    recovery: {
      window: '2h',
      handOffWindow: 120,
      maxPoints: 3,
      application: 'shop',
      endOnReuse: true,
      maxGuesses: false,
    },
    activityLog: { retention: '90d', pruneInterval: '10m', requests: true, requestFacts: false },
  } as const

  test('the environment configures them beside sessions, and what it hands out, they take', async () => {
    const { session, ...others } = serviceOptionsFromEnv(env)
    expect(others).toEqual(parts)
    const manager = new SessionManager(session)
    csrf(others.csrf)
    clientBinding(others.clientBinding)
    await recovery(manager, others.recovery).close()
    await new ActivityLog({ ...others.activityLog, sinks: [memorySink()] }).close()
    await manager.close()
  })

  test('without variables everything is empty, which is all defaults', () => {
    const { session: _session, ...others } = serviceOptionsFromEnv({ SESSION_SECRET: SECRET })
    expect(others).toEqual({ csrf: {}, clientBinding: {}, recovery: {}, activityLog: {} })
  })

  test('one object does the same', () => {
    const { session, ...others } = serviceOptions({ secret: SECRET, idleTimeout: '5m', ...parts })
    expect(others).toEqual(parts)
    expect(session).toMatchObject({ secret: SECRET, idleTimeout: '5m' })
    expect(Object.keys(session).toSorted()).toEqual(['idleTimeout', 'secret', 'store'])
  })

  test('what no variable can hold goes beside, and undoes nothing that a variable says', () => {
    const tokenOf = (): undefined => undefined
    const { csrf: both, session } = serviceOptionsFromEnv(
      { ...env, SOJOURN_COOKIE_SAME_SITE: 'strict' },
      { csrf: { tokenOf }, cookie: { name: 'sid' } },
    )
    expect(both).toEqual({ ...parts.csrf, tokenOf })
    expect(session.cookie).toEqual({ sameSite: 'strict', name: 'sid' })
    const { csrf: weaker } = serviceOptionsFromEnv(env, { csrf: { tokens: 'when-sent' } })
    expect(weaker.tokens).toBe('when-sent')
  })

  test('all mistakes are named at once, those of features and of sessions, each by its variable', () => {
    const message = refusal(
      {
        SESSION_SECRET: SECRET,
        SOJOURN_IDLE_TIMEOUT: 'soon',
        SOJOURN_CSRF_TOKENS: 'sometimes',
        SOJOURN_CSRF_TRUSTED_ORIGINS: 'admin.example.com',
        SOJOURN_CLIENT_BINDING_ON: 'network weather',
        SOJOURN_CLIENT_BINDING_POLICY: 'shout',
        SOJOURN_RECOVERY_WINDOW: 'long',
        SOJOURN_RECOVERY_MAX_POINTS: '400',
        SOJOURN_RECOVERY_MAX_GUESSES: 'few',
        SOJOURN_ACTIVITY_LOG_RETENTION: '10ms',
        SOJOURN_ACTIVITY_LOG_PRUNE_INTERVAL: '2d',
        SOJOURN_CSRF_TOKEN: 'always',
      },
      serviceOptionsFromEnv,
    )
    for (const line of [
      /There are 11 mistakes/,
      /SOJOURN_IDLE_TIMEOUT: idleTimeout is "soon"/,
      /SOJOURN_CSRF_TOKENS: tokens is sometimes/,
      /SOJOURN_CSRF_TRUSTED_ORIGINS: trustedOrigins\[0\] is no origin/,
      /SOJOURN_CLIENT_BINDING_ON: on has "weather"/,
      /SOJOURN_CLIENT_BINDING_POLICY: policy is shout/,
      /SOJOURN_RECOVERY_WINDOW: window is "long"/,
      /SOJOURN_RECOVERY_MAX_POINTS: maxPoints is 400/,
      /SOJOURN_RECOVERY_MAX_GUESSES: it is neither a whole number nor false/,
      /SOJOURN_ACTIVITY_LOG_RETENTION: retention is "10ms"/,
      /SOJOURN_ACTIVITY_LOG_PRUNE_INTERVAL: pruneInterval is longer than a day/,
      /SOJOURN_CSRF_TOKEN: there is no such variable\. Did you mean SOJOURN_CSRF_TOKENS/,
    ]) {
      expect(message).toMatch(line)
    }
    expect(message.split('\n')).toHaveLength(12)
  })

  test('a misspelt member, and what is no object, are told by their names', () => {
    const wrong = { secret: SECRET, csrf: { tokns: 'always' }, recovery: true, nearCache: null } as never
    expect(() => serviceOptions(wrong)).toThrow(
      /4 mistakes.*csrf.tokns: csrf\(\) has no option "tokns"\. Did you mean tokens.*recovery: it is no object.*nearCache: it is no/s,
    )
  })

  test('options of sessions alone refuse what would have no effect, and say where it has', () => {
    const message = refusal(env)
    expect(message).toMatch(/4 mistakes/)
    expect(message).toMatch(
      /SOJOURN_CSRF_T\w+: sessionOptionsFromEnv\(\) has nowhere to put it: take serviceOptionsFromEnv\(\), and hand its csrf to csrf\(\)/,
    )
    expect(message).toMatch(/SOJOURN_ACTIVITY_LOG_\w+: .* hand its activityLog to new ActivityLog\(\)/)
    const config = { secret: SECRET, clientBinding: {} }
    expect(() => sessionOptions(config)).toThrow(/clientBinding: sessionOptions\(\) .* take serviceOptions\(\)/)
  })
})

describe('the near cache', () => {
  const env = { SESSION_SECRET: SECRET, REDIS_URL: 'redis://127.0.0.1:1' }

  test.each<[more: Env, bounds: object | undefined]>([
    [{}, undefined],
    [{ SOJOURN_NEAR_CACHE_MAX_AGE: '250ms' }, { maxAgeMs: 250, maxBytes: 32_000_000 }],
    [{ SOJOURN_NEAR_CACHE_MAX_BYTES: '1000000' }, { maxAgeMs: 1_000, maxBytes: 1_000_000 }],
  ])('%j', async (more, bounds) => {
    const { store } = sessionOptionsFromEnv({ ...env, ...more })
    const { nearCache } = store as RedisSessionStore
    if (bounds === undefined) expect(nearCache).toBeUndefined()
    else expect(nearCache).toMatchObject(bounds)
    await store?.close()
  })

  test('its mistakes are told with the others, by their variables', () => {
    const wrong = { SOJOURN_NEAR_CACHE_MAX_AGE: '1h', SOJOURN_NEAR_CACHE_MAX_BYTES: '0', SOJOURN_IDLE_TIMEOUT: 'x' }
    expect(refusal({ ...env, ...wrong })).toMatch(
      /3 mistakes.*SOJOURN_NEAR_CACHE_MAX_AGE: .*maxAge is 1h.*SOJOURN_NEAR_CACHE_MAX_BYTES: .*maxBytes is 0/s,
    )
  })

  test('without a Redis it is a mistake; beside one that is not used for the moment it waits', async () => {
    const { REDIS_URL: _, ...without } = { ...env, SOJOURN_NEAR_CACHE_MAX_AGE: '1s' }
    expect(refusal(without)).toMatch(/SOJOURN_NEAR_CACHE_MAX_AGE: it is of sessions in Redis/)
    const { store } = sessionOptionsFromEnv({ ...env, SOJOURN_NEAR_CACHE_MAX_AGE: '1s', SOJOURN_STORAGE: 'memory' })
    expect(store).toBeInstanceOf(MemorySessionStore)
    await store?.close()
  })
})
