// A dump of Redis that is restored: what it brings back, and what ends that.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from '@jest/globals'
import { Redis } from 'ioredis'
import type { SessionStore } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { SECRET } from '../support/http.js'
import { RedisServer } from '../support/redis.js'
import { closeRigs, type Ground, Rig } from '../support/rig.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** The line of the page, as a shell gets it. */
function oneLiner(): string {
  const page = readFileSync(join(ROOT, 'docs/operations/restore.md'), 'utf8')
  const [, line] = /^\$ (node --input-type=module .*)$/m.exec(page) ?? []
  if (line === undefined) throw new Error('The page has no one-liner.')
  return line
}

function groundOf(url: string): Ground {
  const store = (): SessionStore => new RedisSessionStore({ url })
  return { store } as Ground
}

const servers: RedisServer[] = []
const directories: string[] = []

/** A server that begins with the dump in a folder of ours, and writes it there. */
async function serve(from?: string): Promise<{ server: RedisServer; dump: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-dump-'))
  directories.push(directory)
  const dump = join(directory, 'dump.rdb')
  if (from !== undefined) copyFileSync(from, dump)
  const server = await RedisServer.start('--dir', directory, '--dbfilename', 'dump.rdb')
  servers.push(server)
  return { server, dump }
}

afterEach(async () => {
  await closeRigs()
  await Promise.all(servers.splice(0).map((server) => server.stop()))
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

test('logged-out and revoked sessions are alive in it, and the line on the page ends them all', async () => {
  const { server, dump } = await serve()
  const before = await Rig.start(groundOf(server.url))
  const loggedOut = await before.login('ann')
  const revoked = await before.login('bob')
  const kept = await before.login('cay')
  const raw = new Redis(server.url)
  await raw.save()
  raw.disconnect()
  const copies = [loggedOut.clone(), revoked.clone(), kept.clone()]
  await before.ask((session) => session.logout(), loggedOut)
  await before.manager.revokeUser('bob')
  for (const client of copies.slice(0, 2)) expect(await before.whoIs(client)).toBeNull()
  await before.close()
  await server.kill()

  // Another server, and processes that know nothing of before.
  const restored = (await serve(dump)).server
  const after = await Rig.start(groundOf(restored.url), {}, before.clock)
  const clients = copies.map(({ cookies }) => after.stranger(cookies))
  expect(await Promise.all(clients.map((client) => after.whoIs(client)))).toEqual(['ann', 'bob', 'cay'])

  const child = spawn('sh', ['-c', oneLiner()], {
    cwd: ROOT,
    env: { ...process.env, NODE_OPTIONS: '--import tsx', REDIS_URL: restored.url, SESSION_SECRET: String(SECRET) },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(await Promise.all(clients.map((client) => after.whoIs(client.clone())))).toEqual([null, null, null])
  expect(await after.whoIs(await after.login('ann'))).toBe('ann')
})
