// A redis-server of our own on a free port, without persistence: that of the path, or the binary that `REDIS_SERVER` names.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

/** @returns {Promise<{ url: string, client: Redis, cpuUs(): Promise<number>, stop(): Promise<void> }>} */
export async function startRedis() {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-bench-'))
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', directory]
  const child = spawn(process.env.REDIS_SERVER || 'redis-server', args.map(String), { stdio: 'ignore' })
  const failed = new Promise((_resolve, reject) => {
    child.once('error', () => reject(new Error('The benchmarks of Redis need redis-server: install it.')))
    child.once('exit', (code) => reject(new Error(`redis-server ended with code ${code}`)))
  })
  const client = new Redis(port, '127.0.0.1', { retryStrategy: () => 20, maxRetriesPerRequest: null })
  client.on('error', () => {})
  await Promise.race([client.ping(), failed])
  failed.catch(() => {})
  return {
    url: `redis://127.0.0.1:${port}`,
    client,
    /** CPU time that the server has used, in microseconds. */
    async cpuUs() {
      const info = await client.info('cpu')
      const seconds = ['used_cpu_user', 'used_cpu_sys'].map((name) =>
        Number(new RegExp(`${name}:([\\d.]+)`).exec(info)[1]),
      )
      return (seconds[0] + seconds[1]) * 1e6
    },
    async stop() {
      client.disconnect()
      child.kill('SIGKILL')
      await once(child, 'exit')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}
