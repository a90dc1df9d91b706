// Ten processes that save, log in, log out, revoke and sweep at once, killed at random points: no live session loses its files, and
// after a sweep nothing is left of sessions that are over. WORKSPACE_KILLS says how many are killed.
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { buildSync } from 'esbuild'
import { Redis } from 'ioredis'
import { SessionManager } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'
import { workspaces } from 'sojourn/workspace'
import { SECRET } from '../../support/http.js'
import { RedisServer } from '../../support/redis.js'
import { collect } from '../../support/rig.js'

const KILLS = Number(process.env['WORKSPACE_KILLS'] ?? 12)
const PROCESSES = 10

let server: RedisServer
let directory = ''
beforeAll(async () => {
  server = await RedisServer.start()
  directory = mkdtempSync(join(tmpdir(), 'sojourn-kills-'))
  // A program of one file begins in a fraction of the time.
  buildSync({
    entryPoints: ['tests/support/workspace-process.ts'],
    outfile: join(directory, 'process.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)" },
    logLevel: 'error',
  })
})
const closing: (() => Promise<unknown>)[] = []
afterAll(async () => {
  for (const close of closing) await close()
  await server.stop()
  rmSync(directory, { recursive: true, force: true })
})

test(
  'no live workspace is lost, and after a sweep no dead one is left',
  async () => {
    const root = join(directory, 'root')
    let left = KILLS
    async function killOneAfterAnother(): Promise<void> {
      while (left-- > 0) {
        const { NODE_OPTIONS: _jest, ...env } = process.env
        const child = spawn(process.execPath, [join(directory, 'process.mjs'), server.url, root], {
          env: { ...env, NODE_NO_WARNINGS: '1' },
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        const exit = once(child, 'exit')
        for (let saves = randomInt(5); saves >= 0 && child.exitCode === null; saves--) {
          await Promise.race([once(child.stdout, 'data'), exit])
        }
        await new Promise((resolve) => setTimeout(resolve, randomInt(100)))
        child.kill('SIGKILL')
        const [code] = await exit
        if (code !== null) throw new Error(`A process ended by itself, with code ${String(code)}.`)
      }
    }
    await Promise.all(Array.from({ length: PROCESSES }, killOneAfterAnother))

    const manager = new SessionManager({
      secret: SECRET,
      store: new RedisSessionStore({ url: server.url, prefix: 'kills:' }),
      storeTimeout: '20s',
    })
    const files = workspaces(manager, { root, sweepInterval: 0 })
    closing.push(
      () => files.close(),
      () => manager.close(),
    )
    const alive = async (): Promise<string[]> => {
      const ids = new Set((await collect(manager.list())).map(({ id }) => id))
      const drawers = await collect(manager.drawers.scan<string>('sojourn.workspace'))
      return drawers.filter(({ id }) => ids.has(id)).map(({ value }) => value)
    }
    // Some are forgotten as what ran out while no process ran.
    for (const { id } of await collect(manager.list())) if (randomInt(4) === 0) await manager.store.delete(id)

    const removed = await files.sweep()
    const redis = new Redis(server.url)
    const saved = new Set(await redis.smembers('saved'))
    redis.disconnect()
    const live = await alive()
    const onDisk = readdirSync(join(root, 'workspaces'))
    const lost = live.filter((id) => saved.has(id) && !hasFiles(join(root, 'workspaces', id, 'data')))
    console.log(
      `${KILLS} kills, ${saved.size} workspaces saved to, ${live.length} alive, ${removed.removed} found dead by the last sweep`,
    )
    expect({ lost, dead: onDisk.filter((id) => !live.includes(id)) }).toEqual({ lost: [], dead: [] })
    expect(readdirSync(join(root, 'removed'))).toEqual([])
    expect(saved.size).toBeGreaterThan(0)
  },
  30_000 + KILLS * 3_000,
)

function hasFiles(folder: string): boolean {
  return existsSync(folder) && readdirSync(folder).length > 0
}
