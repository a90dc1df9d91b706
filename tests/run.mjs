// The whole test suite: makes sure that there is a redis-server and, for tests in a browser, Chromium, then runs Jest with
// the arguments given.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome']
const jest = ['node_modules/jest/bin/jest.js', ...process.argv.slice(2)]
const env = {
  ...process.env,
  NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --no-warnings=ExperimentalWarning`.trim(),
}

const given = process.env.CHROMIUM_PATH
const missing = []
// Also with a REDIS_URL: some tests freeze, kill and fill servers, and start their own for that.
if (!works('redis-server')) missing.push('redis-server')
if (!browser() && needsBrowser()) {
  if (given) stop(`CHROMIUM_PATH is ${given}, which does not start.`)
  missing.push('chromium')
}
if (missing.length > 0) install(missing)

const CHROMIUM_PATH = browser() ?? ''
const { status } = spawnSync(process.execPath, jest, { stdio: 'inherit', env: { ...env, CHROMIUM_PATH } })
process.exit(status ?? 1)

/** The path of a browser: that of CHROMIUM_PATH, or the first that PATH has. */
function browser() {
  return (given ? [given] : BROWSERS.flatMap(pathsOf)).find(works)
}

function pathsOf(name) {
  const paths = (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, name))
  return paths.filter((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Whether one of the test files that the arguments choose drives a browser. */
function needsBrowser() {
  const { stdout } = spawnSync(process.execPath, [...jest, '--listTests'], { encoding: 'utf8', env })
  const files = stdout.split('\n').filter((line) => line.endsWith('.test.ts'))
  return files.some((file) => readFileSync(file, 'utf8').includes("support/browser.js'"))
}

/** Ubuntu has a chromium-browser that only says how to get one. */
function works(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
}

function install(packages) {
  const isRoot = process.getuid?.() === 0
  const sudo = isRoot ? [] : ['sudo', '-n']
  if (works('apt-get') && (isRoot || works('sudo'))) {
    console.log(`Installing with apt-get, since it is not there: ${packages.join(', ')}.`)
    // No server is started: the tests start their own.
    const options = {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
    }
    // Each by itself, so that one that is not to be had does not keep the other away. What fails is told below.
    const steps = [
      ['update', '-q'],
      ...packages.map((name) => ['install', '-y', '-q', '--no-install-recommends', name]),
    ]
    for (const step of steps) {
      const [command, ...args] = [...sudo, 'apt-get', ...step]
      spawnSync(command, args, options)
    }
  }
  if (!works('redis-server')) {
    stop(
      'The tests need redis-server and redis-cli: install them with your package manager (Debian: apt-get install redis-server).',
    )
  }
  if (packages.includes('chromium') && !browser()) {
    stop(
      'Some tests need Chromium: install it with your package manager (Debian: apt-get install chromium), or set CHROMIUM_PATH to one that starts.',
    )
  }
}

function stop(message) {
  console.error(message)
  process.exit(1)
}
