// A PostgreSQL of our own on a free port, in a temporary folder.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Where packages put the programs, which are not in the path. */
const PACKAGED = '/usr/lib/postgresql'
const START_MS = 30_000

/** @returns {Promise<{ url: string, stop(): Promise<void> }>} */
export async function startPostgres() {
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-bench-'))
  const owner = ownerOf(directory)
  const data = join(directory, 'data')
  const make = ['-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', '--no-locale', '-E', 'UTF8']
  execFileSync(program('initdb'), make, { stdio: 'ignore', ...owner, cwd: directory })
  const port = await freePort()
  const settings = ['listen_addresses=127.0.0.1', `port=${port}`, `unix_socket_directories=${directory}`, 'fsync=off']
  const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]
  const child = spawn(program('postgres'), args, { stdio: 'ignore', ...owner, cwd: directory })
  const end = Date.now() + START_MS
  while (!isReady(port)) {
    if (Date.now() > end || child.exitCode !== null) throw new Error('PostgreSQL did not start.')
    await sleep(50)
  }
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    async stop() {
      child.kill('SIGQUIT')
      await once(child, 'exit')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function isReady(port) {
  try {
    execFileSync(program('pg_isready'), ['-h', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** PostgreSQL refuses root. */
function ownerOf(directory) {
  if (process.getuid?.() !== 0) return {}
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })))
  chownSync(directory, uid, gid)
  return { uid, gid }
}

function program(name) {
  const versions = existsSync(PACKAGED) ? readdirSync(PACKAGED).sort((a, b) => Number(b) - Number(a)) : []
  return versions.map((version) => join(PACKAGED, version, 'bin', name)).find(existsSync) ?? name
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}
