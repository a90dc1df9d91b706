// The session and authentication tests of real applications, before and after `sojourn/express-session` takes the place of
// express-session in them by one import: `npm run build && npm run apps`, or `npm run apps etherpad`. Not in CI.
// Each is cloned at its tag, or taken from the folder that its variable names.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'

const INSTALL = ['--no-save', '--legacy-peer-deps', '--no-audit', '--no-fund', '--silent', '--ignore-scripts']
const PATIENCE_MS = 1_200_000
const REDIS_SERVER = process.env.REDIS_SERVER || 'redis-server'
const LEFT_OUT_OF_NODEBB = 'install/upgrade plugin|load (client|admin).css|service worker|user data export'
/** Added to express-session: its classes are there for stores, and its middleware must not be in use any more. */
const RETIRED = `
module.exports = Object.assign(() => { throw new Error('express-session is still in use') }, module.exports)
`

/** Where each is, what is changed in it, which of its tests are about sessions, and what these need. */
const APPS = [
  {
    name: 'etherpad',
    url: 'https://github.com/ether/etherpad-lite.git',
    tag: 'v2.5.3',
    variable: 'ETHERPAD_SOURCE',
    /** Where its package is, in which the tests are run. */
    home: 'src',
    file: 'node/hooks/express.ts',
    mocha: ['--import=tsx', '--timeout', '120000'],
    tests: [
      'SessionStore',
      'SecretRotator',
      'webaccess',
      'specialpages',
      'socketio',
      'health',
      'api/sessionsAndGroups',
    ],
    testFile: (name) => `tests/backend/specs/${name}.ts`,
    prepare(home) {
      // It asks pnpm for its plugins, and is one of them itself.
      npmInstall(home, 'pnpm@9')
      mkdirSync(join(home, '../node_modules'), { recursive: true })
      symlinkSync('../src', join(home, '../node_modules/ep_etherpad-lite'))
    },
  },
  {
    name: 'nodebb',
    url: 'https://github.com/NodeBB/NodeBB.git',
    tag: 'v4.11.2',
    variable: 'NODEBB_SOURCE',
    home: '.',
    file: 'src/webserver.js',
    oldestNode: 22,
    programs: [REDIS_SERVER],
    // Left out are tests that need its registry of plugins or all of its assets, and those that race the processes they start.
    mocha: ['--no-config', '--timeout', '60000', '--invert', '--grep', LEFT_OUT_OF_NODEBB],
    tests: ['authentication', 'middleware', 'socket.io', 'controllers', 'user', 'api'],
    testFile: (name) => `test/${name}.js`,
    // They demand that a response which sets the cookie says nothing to caches. It says no-store.
    otherwise: ['regular', 'api'].map(
      (kind) => `Middlewares cache-control header should be absent on ${kind} routes, for guests`,
    ),
    async prepare(home) {
      cpSync(join(home, 'install/package.json'), join(home, 'package.json'))
      npmInstall(home)
      const redis = { host: '127.0.0.1', port: await freePort() }
      const url = `http://127.0.0.1:${await freePort()}/forum`
      const admin = {
        username: 'admin',
        email: 'admin@example.org',
        password: 'hAN3Eg8W',
        'password:confirm': 'hAN3Eg8W',
      }
      const setup = { url, secret: 'abcdef', database: 'redis', ...under('admin', admin), ...under('redis', redis) }
      startRedis(redis.port, join(workspace, 'redis'))
      const ci = { ...redis, database: 1 }
      node(home, 'app', `--setup=${JSON.stringify(setup)}`, `--ci=${JSON.stringify(ci)}`, '--skip-build')
      node(home, 'nodebb', 'build', 'tpl', 'lang')
    },
  },
]

const names = process.argv.slice(2)
const unknown = names.filter((name) => !APPS.some((app) => app.name === name))
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(', ')} here, only ${APPS.map(({ name }) => name).join(', ')}.`)
  process.exit(1)
}
if (!existsSync('dist/cjs/features/express-session/index.js')) {
  console.error('There is nothing to test yet: run "npm run build" first.')
  process.exit(1)
}
const started = []
const workspace = mkdtempSync(join(tmpdir(), 'sojourn-apps-'))
let isGreen = true
try {
  for (const app of APPS.filter(({ name }) => names.length === 0 || names.includes(name))) {
    const directory = join(workspace, app.name)
    isGreen = canRun(app) && obtain(app, directory) && (await compare(app, join(directory, app.home))) && isGreen
  }
} finally {
  for (const server of started) server.kill('SIGKILL')
  rmSync(workspace, { recursive: true, force: true })
}
process.exit(isGreen ? 0 : 1)

/** What the machine must have for it. */
function canRun({ name, oldestNode = 20, programs = [] }) {
  const missing = programs.find((program) => spawnSync(program, ['--version']).error)
  const isOld = Number.parseInt(process.versions.node, 10) < oldestNode
  if (isOld) console.error(`${name} is not tested: it needs Node.js ${oldestNode} or newer. Run this with one.`)
  else if (missing)
    console.error(`${name} is not tested: there is no ${missing}. Install it, so that it is on the PATH.`)
  return !isOld && !missing
}

/** Puts its sources there. */
function obtain({ name, url, tag, variable, home, file }, directory) {
  const source = process.env[variable]
  if (source && existsSync(join(source, home, file))) {
    cpSync(source, directory, { recursive: true, filter: (path) => !path.endsWith('/node_modules') })
    return true
  }
  if (!source) {
    const clone = ['clone', '--quiet', '--depth', '1', '--branch', tag, url, directory]
    if (spawnSync('git', clone, { stdio: 'ignore' }).status === 0) return true
  }
  const problem = source ? `the folder ${variable} has no ${join(home, file)}` : `${url} cannot be cloned`
  console.error(`${name} is not tested: ${problem}. Set ${variable} to a folder with the sources of ${tag}.`)
  return false
}

/** Runs its tests twice, prints a row with both counts, and tells whether what passed before passes after. */
async function compare(app, home) {
  await app.prepare(home)
  symlinkSync(resolve('.'), join(home, 'node_modules/sojourn'))
  const before = run(app, home)
  changeImport(join(home, app.file))
  appendFileSync(join(home, 'node_modules/express-session/index.js'), RETIRED)
  const after = run(app, home)
  const { version } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  const lost = without(without(before.passed, after.passed), app.otherwise ?? [])
  for (const [title, reason = ''] of before.reasons) {
    console.error(`${app.name}, not before either: ${title}\n${reason.split('\n', 1)[0].slice(0, 200)}`)
  }
  for (const title of lost) console.error(`${app.name}, not any more: ${title}\n${after.reasons.get(title) ?? ''}`)
  console.log(
    `| ${app.name} ${version} | ${before.passed.length} of ${before.all} | ${after.passed.length} of ${after.all} |`,
  )
  return before.passed.length > 0 && lost.length === 0
}

/** What is in the list more often than in the other one. */
function without(list, others) {
  const rest = [...others]
  return list.filter((one) => {
    const at = rest.indexOf(one)
    if (at >= 0) rest.splice(at, 1)
    return at < 0
  })
}

/** The whole diff. */
function changeImport(file) {
  const lines = readFileSync(file, 'utf8').split('\n')
  const at = lines.findIndex((line) => /(from |require\()'express-session'/.test(line))
  if (at < 0) throw new Error(`${file} does not import express-session: are these the sources of the tag?`)
  lines[at] = lines[at].replace("'express-session'", "'sojourn/express-session'")
  writeFileSync(file, lines.join('\n'))
}

/** The titles of the tests that pass, how many there are, and why the others do not. */
function run({ mocha, tests, testFile }, cwd) {
  const result = { passed: [], all: 0, reasons: new Map() }
  const programs = join(cwd, 'node_modules/.bin')
  const env = { ...process.env, NODE_ENV: 'production', PATH: `${programs}${delimiter}${process.env.PATH}` }
  const output = join(workspace, 'report.json')
  // Each in a process of its own: they expect a server that has just begun.
  for (const file of tests.map(testFile)) {
    rmSync(output, { force: true })
    const args = [...mocha, '--exit', '--reporter', 'json', '--reporter-option', `output=${output}`, file]
    const settings = { cwd, env, encoding: 'utf8', maxBuffer: Number.POSITIVE_INFINITY, timeout: PATIENCE_MS }
    const { stdout, stderr } = spawnSync(process.execPath, [join(programs, 'mocha'), ...args], settings)
    if (!existsSync(output)) throw new Error(`${file} told nothing of its tests.\n${stdout}\n${stderr}`)
    const { passes, failures, stats } = JSON.parse(readFileSync(output, 'utf8'))
    result.passed.push(...passes.map(({ fullTitle }) => fullTitle))
    result.all += stats.tests
    for (const { fullTitle, err } of failures) result.reasons.set(fullTitle, err.stack)
  }
  return result
}

function node(cwd, ...args) {
  execFileSync(process.execPath, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
}

function startRedis(port, directory) {
  mkdirSync(directory)
  const settings = ['--port', port, '--bind', '127.0.0.1', '--dir', directory, '--save', '', '--appendonly', 'no']
  started.push(spawn(REDIS_SERVER, settings, { stdio: 'ignore' }))
}

/** Members under names as a configuration has them that is one level deep. */
function under(prefix, members) {
  return Object.fromEntries(Object.entries(members).map(([name, value]) => [`${prefix}:${name}`, value]))
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

function npmInstall(cwd, ...packages) {
  execFileSync('npm', ['install', ...INSTALL, ...packages], { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
}
