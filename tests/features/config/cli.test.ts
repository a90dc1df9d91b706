// `npx sojourn`: says what is in force, whether the store works, and works on its sessions, by the variables of the application.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { SessionManager } from 'sojourn'
import { sessionOptionsFromEnv } from 'sojourn/config'
import { main } from '../../../src/features/config/cli.js'
import { SECRET } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'

interface Outcome {
  readonly code: number
  readonly printed: string
  readonly complained: string
}

async function run(env: Record<string, string>, ...args: string[]): Promise<Outcome> {
  const printed: string[] = []
  const complained: string[] = []
  const code = await main({
    args,
    env,
    print: (line) => void printed.push(line),
    complain: (line) => void complained.push(line),
  })
  return { code, printed: printed.join('\n'), complained: complained.join('\n') }
}

let redis: RedisServer
let directory = ''
const envs: Record<string, Record<string, string>> = {}
beforeAll(async () => {
  redis = await RedisServer.start()
  directory = mkdtempSync(join(tmpdir(), 'sojourn-cli-'))
  envs['Redis'] = { SESSION_SECRET: SECRET, REDIS_URL: redis.url, SOJOURN_STORE_TIMEOUT: '10s' }
  envs['SQLite'] = {
    SESSION_SECRET: SECRET,
    DATABASE_URL: `sqlite:${join(directory, 'a.db')}`,
    SOJOURN_STORE_TIMEOUT: '10s',
  }
})
afterAll(async () => {
  await redis.stop()
  rmSync(directory, { recursive: true, force: true })
})

describe.each(['Redis', 'SQLite'])('on %s', (name) => {
  test('sessions are listed, exported, counted and revoked', async () => {
    const env = envs[name] as Record<string, string>
    const application = new SessionManager(sessionOptionsFromEnv(env))
    const context = { ip: '192.0.2.7', userAgent: 'Evil\u001b[2J' }
    const ann = await application.create({ userId: 'ann', fields: { cart: ['book'] }, context })
    const seven = await application.create({ userId: 7 })
    await application.create({})

    const all = await run(env, 'sessions', 'list')
    expect([all.code, all.printed.split('\n').length]).toEqual([0, 3])
    expect(all.printed).toContain(`${ann.id}  ann  active `)
    expect(all.printed).toContain('192.0.2.7')
    expect(all.printed).not.toContain('\u001b')
    const own = await run(env, 'sessions', 'list', '--user', '7', '--json')
    expect(JSON.parse(own.printed)).toMatchObject({ id: seven.id, userId: 7 })
    expect((await run(env, 'sessions', 'user', 'ann')).printed).toContain(ann.id)

    const exported = (await run(env, 'sessions', 'export')).printed
      .split('\n')
      .map((line) => JSON.parse(line) as object)
    expect(exported).toContainEqual(expect.objectContaining({ id: ann.id, fields: { cart: ['book'] } }))
    expect(JSON.stringify(exported)).not.toMatch(/token/i)

    expect(await run(env, 'sessions', 'revoke', ann.id, '--detail', 'lost phone')).toMatchObject({ code: 0 })
    expect(await application.validate(ann.id)).toMatchObject({ end: { by: 'sojourn', detail: 'lost phone' } })
    expect(await run(env, 'sessions', 'revoke', ann.id)).toMatchObject({ code: 1 })
    expect((await run(env, 'sessions', 'user', '7', '--revoke')).printed).toBe('revoked 1 session')
    const { printed } = await run(env, 'sessions', 'stats')
    expect(printed).toBe('live: 1\nwith a user: 0\nended: 2\nusers: 0\n  ended, revoked: 2')
    await application.close()
  })

  test('check tells what is in force, without a secret, and tries the store', async () => {
    const env = envs[name] as Record<string, string>
    const { code, printed } = await run({ ...env, SOJOURN_IDLE_TIMEOUT: '10m' }, 'check')
    expect(code).toBe(0)
    expect(printed).toContain('idleTimeoutMs: 600000')
    expect(printed).toContain('SOJOURN_IDLE_TIMEOUT')
    expect(printed).toContain('The store answers.')
    expect(printed).not.toContain(SECRET)
  })
})

describe('check', () => {
  test('tells how features are configured, and the near cache', async () => {
    const { code, printed } = await run(
      {
        ...envs['Redis'],
        SOJOURN_CSRF_TOKENS: 'always',
        SOJOURN_ACTIVITY_LOG_RETENTION: '90d',
        SOJOURN_NEAR_CACHE_MAX_AGE: '2s',
      },
      'check',
    )
    expect(code).toBe(0)
    for (const line of [
      '  nearCache: {"maxAgeMs":2000,"maxBytes":32000000}',
      '  csrf: {"tokens":"always"}',
      '  recovery: defaults',
      '  activityLog: {"retention":"90d"}',
    ]) {
      expect(printed.split('\n')).toContain(line)
    }
    expect(printed).toMatch(/From: .*SOJOURN_NEAR_CACHE_MAX_AGE, SOJOURN_CSRF_TOKENS, SOJOURN_ACTIVITY_LOG_RETENTION/)
    const wrong = await run({ SESSION_SECRET: SECRET, SOJOURN_RECOVERY_WINDOW: 'x' }, 'check')
    expect([wrong.code, wrong.complained]).toEqual([
      1,
      expect.stringContaining('SOJOURN_RECOVERY_WINDOW: window is "x"'),
    ])
  })

  test('warns of what a production server should not have', async () => {
    const env = { SESSION_SECRET: SECRET, SOJOURN_COOKIE_SECURE: 'false', NODE_ENV: 'production' }
    const { code, printed } = await run(env, 'check')
    expect(code).toBe(0)
    for (const warning of [/storage is memory/, /cookie.secure is false/, /trustProxy is off/])
      expect(printed).toMatch(warning)
    expect(printed.match(/memory:/g)).toHaveLength(1)
  })

  test('fails on mistakes, and on a store that does not answer, and prints no secret', async () => {
    const wrong = await run({ SESSION_SECRET: 'hunter2', SOJOURN_IDLE_TIMEOUT: 'x' }, 'check')
    expect([wrong.code, wrong.complained.split('\n').length]).toEqual([1, 3])
    expect(wrong.complained).not.toContain('hunter2')
    const away = await run({ SESSION_SECRET: SECRET, REDIS_URL: 'redis://u:hunter2@127.0.0.1:1' }, 'check')
    expect(away.code).toBe(1)
    expect(away.complained).toMatch(/ECONNREFUSED/)
    expect(away.complained).not.toContain('hunter2')
  })

  test('as a program, it warns of a Redis that drops sessions', async () => {
    const evicting = await RedisServer.start('--maxmemory', '50mb', '--maxmemory-policy', 'allkeys-lru')
    const { NODE_OPTIONS: _jest, ...own } = process.env
    const env = { ...own, SESSION_SECRET: SECRET, REDIS_URL: evicting.url, SOJOURN_STORE_TIMEOUT: '10s' }
    const printed = await new Promise<string>((resolve, reject) => {
      execFile(
        process.execPath,
        ['--import', 'tsx', 'src/features/config/bin.ts', 'check'],
        { env },
        (error, out, errors) => (error ? reject(new Error(errors)) : resolve(out)),
      )
    })
    expect(printed).toMatch(/warning: .*maxmemory-policy is allkeys-lru/)
    await evicting.stop()
  })
})

test('what is no command is told, with those that are', async () => {
  for (const args of [[], ['chekc'], ['sessions'], ['sessions', 'drop'], ['check', '--all'], ['sessions', 'revoke']]) {
    expect((await run({ SESSION_SECRET: SECRET }, ...args)).code).toBe(2)
  }
  const help = await run({}, '--help')
  expect([help.code, help.printed]).toEqual([0, expect.stringContaining('sojourn sessions list')])
})
