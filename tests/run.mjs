// The tests: `npm test [-- arguments of Jest]` makes sure that there are a redis-server, PostgreSQL, MariaDB and, for tests
// in a browser, Chromium, then runs Jest. `npm run test:quick` runs the files that need neither, nor another program; with
// `--library`, `npm test` leaves out what is the same on each version of Node.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join, relative, resolve } from 'node:path'

const { REDIS_SERVER } = process.env
const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome']
/** A test file that imports one of these, itself or through others, is not quick. */
const PROGRAMS = ['redis', 'proxy', 'postgres', 'mariadb', 'browser', 'processes', 'package'].map((name) =>
  resolve(`tests/support/${name}.ts`),
)
/** Not the library, but what is made with it and written about it; tests in a browser belong to that, too. */
const AROUND_IT = ['tests/examples', 'tests/project/architecture', 'tests/project/docs', 'tests/project/lint-rule']
/** On two cores that do nothing else. */
const USUAL = { quick: 'less than a minute', whole: 'about seven minutes' }

const [isQuick, isLibrary] = ['--quick', '--library'].map((flag) => process.argv.includes(flag))
const given = process.argv.slice(2).filter((argument) => !['--quick', '--library'].includes(argument))
const NODE_OPTIONS =
  `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --no-warnings=ExperimentalWarning`.trim()
const env = { ...process.env, NODE_OPTIONS }
// Half of their time tests wait for servers and clocks.
const workers = given.some((argument) => /^(-i|-w|--maxWorkers|--runInBand)/.test(argument))
  ? []
  : [`--maxWorkers=${Math.min(8, availableParallelism() + 1)}`]
// A run of CI ends, whatever a test that failed has left behind.
const ending = process.env.CI ? ['--forceExit'] : []
const jest = ['node_modules/jest/bin/jest.js', ...workers, ...ending, ...given]

const files = isLibrary ? listFiles().filter(isOfLibrary) : listFiles()
const [slow, quick] = [files.filter(needsPrograms), files.filter((file) => !needsPrograms(file))]
if (isQuick) runQuickOnes()
else if (given.includes('--listTests')) prepare()
else runAll()

function runQuickOnes() {
  console.log(
    `Node ${process.versions.node}: ${quick.length} of ${count(files)}, those that start no Redis, browser or other program. ` +
      `That takes ${USUAL.quick} on two cores. Left out, and run by npm test:`,
  )
  for (const file of slow) console.log(`  ${relative('.', file)}`)
  run(['--runTestsByPath', ...quick])
}

function runAll() {
  prepare()
  const isWhole = !isLibrary && given.every((argument) => argument.startsWith('-'))
  const time = isWhole ? ` That takes ${USUAL.whole} on two cores; npm run test:quick takes ${USUAL.quick}.` : ''
  const programs = slow.length === 0 ? '' : ', with servers of their own and a browser where they need them'
  console.log(`Node ${process.versions.node}: ${count(files)}${programs}.${time}`)
  run(isLibrary ? ['--runTestsByPath', ...files] : [])
}

function run(more) {
  const setting = { stdio: 'inherit', env: { ...env, CHROMIUM_PATH: browser() ?? '' } }
  const { status } = spawnSync(process.execPath, [...jest, ...more], setting)
  if (status === 0 || !process.env.CI) process.exit(status ?? 1)
  console.log('\nRed. In CI what was red is run once more, one file at a time with nothing beside it:')
  const again = [...jest.filter((argument) => !argument.startsWith('--maxWorkers')), '-i', '--onlyFailures', ...more]
  // Set in, since these results are not to be counted once more.
  const piped = { ...setting, stdio: 'pipe', encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 }
  const { status: second, output } = spawnSync(process.execPath, again, piped)
  console.log(output.join('').replace(/^/gm, '  '))
  const isGreen = second === 0 && /^Tests: .*\d passed/m.test(output.join(''))
  if (isGreen) console.log('Red beside others, green alone: a fault of the test that is to be mended.')
  process.exit(isGreen ? 0 : 1)
}

function count({ length }) {
  return length === 1 ? '1 test file' : `${length} test files`
}

/** The test files that the arguments choose. */
function listFiles() {
  const { stdout } = spawnSync(process.execPath, [...jest, '--listTests'], { encoding: 'utf8', env })
  return stdout
    .split('\n')
    .filter((line) => line.endsWith('.test.ts'))
    .sort()
}

function isOfLibrary(file) {
  const isAround = AROUND_IT.some((path) => relative('.', file).startsWith(path))
  return !isAround && !importsOf(file).includes(resolve('tests/support/browser.ts'))
}

function needsPrograms(file) {
  return importsOf(file).some((path) => PROGRAMS.includes(path))
}

/** The files of this project that a file imports, and those that they do. */
function importsOf(file, seen = new Set()) {
  for (const [, specifier] of readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)'/g)) {
    const path = resolve(dirname(file), specifier.replace(/\.js$/, '.ts'))
    if (seen.has(path) || !existsSync(path)) continue
    seen.add(path)
    importsOf(path, seen)
  }
  return [...seen]
}

/** Sees to it that the programs are there which the files need. */
function prepare() {
  const needs = (name) => files.some((file) => importsOf(file).includes(resolve(`tests/support/${name}.ts`)))
  const missing = []
  // Also with a REDIS_URL: some tests freeze, kill and fill servers, and start their own for that.
  if (needs('redis') && !works(REDIS_SERVER || 'redis-server')) {
    if (REDIS_SERVER) stop(`REDIS_SERVER is ${REDIS_SERVER}, which does not start.`)
    missing.push('redis-server')
  }
  // Also with a POSTGRES_URL, MYSQL_URL or DATABASE_URL, for the same reason.
  if (needs('postgres') && !hasPostgres()) missing.push('postgresql')
  if (needs('mariadb') && !hasMariadb()) missing.push('mariadb-server')
  if (needs('browser') && !browser()) {
    if (process.env.CHROMIUM_PATH) stop(`CHROMIUM_PATH is ${process.env.CHROMIUM_PATH}, which does not start.`)
    missing.push('chromium')
  }
  if (missing.length > 0) install(missing)
}

/** Packages put the programs where the path does not lead. */
function hasPostgres() {
  const packaged = '/usr/lib/postgresql'
  const versions = existsSync(packaged) ? readdirSync(packaged) : []
  return versions.some((version) => existsSync(join(packaged, version, 'bin/initdb'))) || works('initdb')
}

function hasMariadb() {
  const isThere = existsSync('/usr/sbin/mariadbd') || works('mariadbd')
  return isThere && pathsOf('mariadb-install-db').length > 0
}

/** The path of a browser: that of CHROMIUM_PATH, or the first that PATH has. */
function browser() {
  const { CHROMIUM_PATH } = process.env
  return (CHROMIUM_PATH ? [CHROMIUM_PATH] : BROWSERS.flatMap(pathsOf)).find(works)
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
  if (packages.includes('redis-server') && !works('redis-server')) {
    stop(
      'The tests need redis-server and redis-cli: install them with your package manager (Debian: apt-get install redis-server).',
    )
  }
  if (packages.includes('postgresql') && !hasPostgres()) {
    stop(
      'Some tests need PostgreSQL 14 or later (initdb, postgres): install it with your package manager (Debian: apt-get install postgresql).',
    )
  }
  if (packages.includes('mariadb-server') && !hasMariadb()) {
    stop(
      'Some tests need MariaDB (mariadb-install-db, mariadbd): install it with your package manager (Debian: apt-get install mariadb-server).',
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
