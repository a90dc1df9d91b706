// The whole test suite: makes sure that there is a redis-server, then runs Jest with the arguments given.
import { execFileSync, spawnSync } from 'node:child_process'

// Also with a REDIS_URL: some tests freeze, kill and fill servers, and start their own for that.
if (!has('redis-server')) install()

const { status } = spawnSync(process.execPath, ['node_modules/jest/bin/jest.js', ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: {
    ...process.env,
    NODE_OPTIONS:
      `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --no-warnings=ExperimentalWarning`.trim(),
  },
})
process.exit(status ?? 1)

function has(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
}

function install() {
  const isRoot = process.getuid?.() === 0
  const sudo = isRoot ? [] : ['sudo', '-n']
  if (has('apt-get') && (isRoot || has('sudo'))) {
    console.log('There is no redis-server: installing it with apt-get.')
    try {
      // No server is started: the tests start their own.
      const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
      for (const args of [
        ['update', '-q'],
        ['install', '-y', '-q', '--no-install-recommends', 'redis-server'],
      ]) {
        const [command, ...rest] = [...sudo, 'apt-get', ...args]
        execFileSync(command, rest, { stdio: ['ignore', 'ignore', 'inherit'], env })
      }
    } catch {
      // Told below.
    }
  }
  if (has('redis-server')) return
  console.error(
    'The tests need redis-server and redis-cli: install them with your package manager (Debian: apt-get install redis-server).',
  )
  process.exit(1)
}
