// A real application on Bun and Deno, driven over HTTP: `npm run test:runtimes [-- bun deno node]`, after `npm run build`. Their
// packages of npm bring the binaries. With the store in memory, with that in Redis, and with that in a file of SQLite.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CHECKS, SQLITE_CHECKS } from './runtimes/checks.mjs'

const APP = 'tests/runtimes/app.mjs'
/** What is installed, where its binary is then, and how it runs a file. */
const RUNTIMES = {
  bun: {
    package: `@oven/bun-linux-${process.arch === 'arm64' ? 'aarch64' : 'x64-baseline'}`,
    version: '1.4.5',
    binary: 'bin/bun',
    args: [],
  },
  deno: {
    package: `@deno/linux-${process.arch}-glibc`,
    version: '2.9.6',
    binary: 'deno',
    args: ['run', '--allow-all', '--node-modules-dir=manual', '--no-lock', '--v8-flags=--expose-gc'],
  },
  node: { args: ['--expose-gc'] },
}
const names = process.argv.length > 2 ? process.argv.slice(2) : ['bun', 'deno']
const directory = mkdtempSync(join(tmpdir(), 'sojourn-runtimes-'))
let failures = 0
let passed = 0
const redis = await startRedis()
try {
  for (const name of names) {
    const runtime = RUNTIMES[name]
    if (runtime === undefined) throw new Error(`There is no runtime "${name}": bun, deno or node.`)
    const binary = install(runtime)
    const version = execFileSync(binary, ['--version'], { encoding: 'utf8' }).split('\n')[0]
    for (const { store, url, checks } of [
      { store: 'memory', url: '', checks: CHECKS },
      { store: 'Redis', url: redis.url, checks: CHECKS },
      { store: 'SQLite', url: `sqlite:${join(directory, `${name}.db`)}`, checks: [...CHECKS, ...SQLITE_CHECKS] },
    ]) {
      console.log(`${name} ${version}, store in ${store}`)
      await checkAll([binary, ...runtime.args, APP, url], checks)
    }
  }
} finally {
  redis.stop()
  rmSync(directory, { recursive: true, force: true })
}
console.log(`Tests: ${failures} failed, ${passed} passed`)
process.exit(failures === 0 && passed > 0 ? 0 : 1)

function install({ package: name, version, binary }) {
  if (name === undefined) return process.execPath
  const place = join(directory, name.replaceAll('/', '-'))
  execFileSync('mkdir', ['-p', place])
  writeFileSync(join(place, 'package.json'), '{}')
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--silent']
  execFileSync('npm', ['install', ...options, `${name}@${version}`], { cwd: place, stdio: 'inherit' })
  return join(place, 'node_modules', name, binary)
}

async function checkAll([binary, ...args], checks) {
  let app = await start(binary, args)
  const restart = async () => {
    await app.stop('SIGKILL')
    app = await start(binary, args)
    return app.url
  }
  // Until the store is connected.
  while (!(await fetch(`${app.url}/login`, { method: 'POST' })).ok) if (app.hasEnded()) break
  for (const [what, check] of checks) {
    try {
      await check(app.url, restart)
      if (app.hasEnded()) throw new Error('the process has ended')
      passed++
    } catch (error) {
      failures++
      console.log(`  failed: ${what}: ${error.message}`)
      if (app.hasEnded()) {
        console.log(app.output())
        return
      }
    }
  }
  await app.stop()
}

async function start(binary, args) {
  const child = spawn(binary, args, { stdio: 'pipe', env: { ...process.env, NODE_ENV: 'test' } })
  let output = ''
  const url = await new Promise((resolve, reject) => {
    const read = (chunk) => {
      output += chunk
      const found = /http:\/\/[\d.:]+/.exec(output)
      if (found) resolve(found[0])
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`It ended with code ${code}:\n${output}`)))
  })
  return {
    url,
    output: () => output,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    async stop(signal) {
      child.kill(signal)
      await once(child, 'exit')
    },
  }
}

async function startRedis() {
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory]
  const child = spawn(process.env.REDIS_SERVER || 'redis-server', args, { stdio: 'ignore' })
  await once(child, 'spawn')
  await accepts(port)
  return { url: `redis://127.0.0.1:${port}`, stop: () => child.kill() }
}

async function accepts(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'close').then(() => false),
    ]).catch(() => false)
    socket.destroy()
    if (isOpen) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}
