// The session and authentication tests of real applications, before and after `sojourn/express-session` takes the place of
// express-session in them by one import: `npm run build && npm run apps`, or `npm run apps etherpad`. Not in CI.
// Each is cloned at its tag, or taken from the folder that its variable names.
import { execFileSync, spawnSync } from 'node:child_process'
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
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'

const INSTALL = ['--no-save', '--legacy-peer-deps', '--no-audit', '--no-fund', '--silent', '--ignore-scripts']
const PATIENCE_MS = 1_200_000
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
const workspace = mkdtempSync(join(tmpdir(), 'sojourn-apps-'))
let isGreen = true
try {
  for (const app of APPS.filter(({ name }) => names.length === 0 || names.includes(name))) {
    const directory = join(workspace, app.name)
    isGreen = obtain(app, directory) && compare(app, join(directory, app.home)) && isGreen
  }
} finally {
  rmSync(workspace, { recursive: true, force: true })
}
process.exit(isGreen ? 0 : 1)

/** Puts its sources there. */
function obtain({ name, url, tag, variable }, directory) {
  const source = process.env[variable]
  if (source && existsSync(join(source, 'package.json'))) {
    cpSync(source, directory, { recursive: true, filter: (path) => !path.endsWith('/node_modules') })
    return true
  }
  if (!source) {
    const clone = ['clone', '--quiet', '--depth', '1', '--branch', tag, url, directory]
    if (spawnSync('git', clone, { stdio: 'ignore' }).status === 0) return true
  }
  const problem = source ? `${variable} is no folder with a package.json` : `${url} cannot be cloned`
  console.error(`${name} is not tested: ${problem}. Set ${variable} to a folder with the sources of ${tag}.`)
  return false
}

/** Runs its tests twice, prints a row with both counts, and tells whether what passed before passes after. */
function compare(app, home) {
  app.prepare(home)
  symlinkSync(resolve('.'), join(home, 'node_modules/sojourn'))
  const before = run(app, home)
  changeImport(join(home, app.file))
  appendFileSync(join(home, 'node_modules/express-session/index.js'), RETIRED)
  const after = run(app, home)
  const { version } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  const lost = before.passed.filter((title) => !after.passed.includes(title))
  for (const title of lost) console.error(`${app.name}, not any more: ${title}\n${after.reasons.get(title) ?? ''}`)
  console.log(
    `| ${app.name} ${version} | ${before.passed.length} of ${before.all} | ${after.passed.length} of ${after.all} |`,
  )
  // Titles may be there twice.
  return lost.length === 0 && before.passed.length > 0 && after.passed.length >= before.passed.length
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
function run({ mocha, tests, testFile, env }, cwd) {
  const output = join(workspace, 'report.json')
  rmSync(output, { force: true })
  const args = [
    ...mocha,
    '--exit',
    '--reporter',
    'json',
    '--reporter-option',
    `output=${output}`,
    ...tests.map(testFile),
  ]
  const programs = join(cwd, 'node_modules/.bin')
  const { stdout, stderr } = spawnSync(join(programs, 'mocha'), args, {
    cwd,
    env: { ...process.env, NODE_ENV: 'production', ...env, PATH: `${programs}${delimiter}${process.env.PATH}` },
    encoding: 'utf8',
    maxBuffer: Number.POSITIVE_INFINITY,
    timeout: PATIENCE_MS,
  })
  if (!existsSync(output)) {
    console.error(stdout, stderr)
    return { passed: [], all: 0, reasons: new Map() }
  }
  const { passes, failures, stats } = JSON.parse(readFileSync(output, 'utf8'))
  return {
    passed: passes.map(({ fullTitle }) => fullTitle),
    all: stats.tests,
    reasons: new Map(failures.map(({ fullTitle, err }) => [fullTitle, err.stack])),
  }
}

function npmInstall(cwd, ...packages) {
  execFileSync('npm', ['install', ...INSTALL, ...packages], { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
}
