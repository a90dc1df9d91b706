// The Redis of connect-redis's own tests, which its package leaves out: a process on a free port.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

const probe = createServer().listen(0, '127.0.0.1')
await once(probe, 'listening')
/** Where it listens, once it is connected. */
export const { port } = probe.address()
probe.close()
let server

export async function connect() {
  const settings = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  server = spawn(process.env.REDIS_SERVER || 'redis-server', settings, { stdio: ['ignore', 'pipe', 'inherit'] })
  let told = ''
  while (!told.includes('Ready to accept connections')) told += (await once(server.stdout, 'data'))[0]
}

export async function disconnect() {
  server.kill('SIGKILL')
  await once(server, 'exit')
}
