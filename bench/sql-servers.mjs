// A PostgreSQL and a MariaDB of our own on free ports, with the settings that they have by default, and a directory for files of SQLite.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from './redis.mjs'
import { openClient } from './sql-clients.mjs'

/** Where packages put the programs, which are not in the path. */
const POSTGRES_PACKAGED = '/usr/lib/postgresql'
const MARIADB_PACKAGED = '/usr/sbin/mariadbd'
const START_MS = 30_000

/**
 * @typedef {{ postgres: string, mariadb: string, sqlite: string }} Databases two URLs, and a directory
 * @returns {Promise<{ databases: Databases, stop(): Promise<void> }>}
 */
export async function startDatabases() {
  const sqlite = mkdtempSync(join(tmpdir(), 'sojourn-bench-sqlite-'))
  const servers = await Promise.all([startPostgres(), startMariadb()])
  const [postgres, mariadb] = servers.map(({ url }) => url)
  return {
    databases: { postgres, mariadb, sqlite },
    async stop() {
      await Promise.all(servers.map((server) => server.stop()))
      rmSync(sqlite, { recursive: true, force: true })
    },
  }
}

/** @returns {Promise<{ url: string, stop(): Promise<void> }>} */
export async function startPostgres() {
  const { directory, owner } = place('postgres')
  const data = join(directory, 'data')
  const make = ['-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', '--no-locale', '-E', 'UTF8']
  execFileSync(postgresProgram('initdb'), make, { stdio: 'pipe', ...owner, cwd: directory })
  const port = await freePort()
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${directory}`,
    'max_connections=200',
  ]
  const child = spawn(postgresProgram('postgres'), ['-D', data, ...settings.flatMap((setting) => ['-c', setting])], {
    stdio: 'ignore',
    ...owner,
    cwd: directory,
  })
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  return started(child, { kind: 'pg', url, directory, signal: 'SIGQUIT' })
}

async function startMariadb() {
  const { directory, owner } = place('mysql')
  const data = `--datadir=${join(directory, 'data')}`
  const make = ['--no-defaults', data, '--auth-root-authentication-method=normal']
  execFileSync('mariadb-install-db', make, { stdio: 'pipe', ...owner, cwd: directory })
  const port = await freePort()
  const args = [
    '--no-defaults',
    data,
    `--port=${port}`,
    '--bind-address=127.0.0.1',
    `--socket=${join(directory, 'socket')}`,
    `--pid-file=${join(directory, 'pid')}`,
    '--skip-name-resolve',
  ]
  const command = existsSync(MARIADB_PACKAGED) ? MARIADB_PACKAGED : 'mariadbd'
  const child = spawn(command, args, { stdio: 'ignore', ...owner, cwd: directory })
  return started(child, { kind: 'mysql2', url: `mysql://root@127.0.0.1:${port}/test`, directory, signal: 'SIGKILL' })
}

/** A directory, and whose process it is to be: both servers refuse root, and their packages have made users for them. */
function place(user) {
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-bench-'))
  if (process.getuid?.() !== 0) return { directory, owner: {} }
  const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, user], { encoding: 'utf8' })))
  chownSync(directory, uid, -1)
  return { directory, owner: { uid, gid } }
}

async function started(child, { kind, url, directory, signal }) {
  const failed = new Promise((_resolve, reject) => {
    child.once('error', () => reject(new Error('The benchmarks of SQL need PostgreSQL and MariaDB: install them.')))
    child.once('exit', (code) => reject(new Error(`${child.spawnfile} ended with code ${code}`)))
  })
  failed.catch(() => {})
  await Promise.race([accepts(kind, url), failed])
  return {
    url,
    async stop() {
      child.kill(signal)
      await once(child, 'exit')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

async function accepts(kind, url) {
  const end = Date.now() + START_MS
  while (true) {
    try {
      const client = await openClient(kind, url)
      await client.rows('select 1').finally(() => client.close())
      return
    } catch (error) {
      if (Date.now() > end) throw error
      await delay(50)
    }
  }
}

/** A program of the newest version that is there. */
function postgresProgram(name) {
  const versions = existsSync(POSTGRES_PACKAGED) ? readdirSync(POSTGRES_PACKAGED) : []
  const found = versions
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => join(POSTGRES_PACKAGED, version, 'bin', name))
    .find(existsSync)
  return found ?? name
}
