// The tests that packages have of themselves, before and after `sojourn/express-session` takes the place of the session in them:
// `npm run build && npm run peers`. Clones their repositories, or takes them from the folder that argv names; what is packed with its
// tests comes from the registry. Not in CI.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const PRELOAD = resolve('tests/peers/drop-in.cjs')
const DROP_IN = resolve('dist/cjs/features/express-session')
const QUIET = ['--no-audit', '--no-fund', '--silent', '--ignore-scripts']

/** Where each is, what is run, how that tells its count, and how the session of the drop-in gets in. */
const PEERS = [
  {
    name: 'connect-redis',
    url: 'https://github.com/tj/connect-redis.git',
    tag: 'v9.0.0',
    install: [],
    test: ['npx', 'vitest', 'run'],
    count: /Tests .*?(\d+) passed \((\d+)\)/,
    prepare: replaceExpressSession,
  },
  {
    name: 'connect-redis',
    tag: 'v10.0.0',
    // Its package has its tests in it, but for what starts their server.
    packed: 'connect-redis@10.0.0',
    complete: (directory) => cpSync('tests/peers/redis-server.mjs', join(directory, 'testdata/server.mjs')),
    install: [],
    test: ['npx', 'vitest', 'run'],
    count: /Tests .*?(\d+) passed \((\d+)\)/,
    prepare: replaceExpressSession,
  },
  {
    name: 'passport',
    url: 'https://github.com/jaredhanson/passport.git',
    tag: 'v0.7.0',
    install: [],
    test: ['npm', 'test', '--silent'],
    count: /(\d+) passing/,
  },
  {
    name: 'connect-flash',
    url: 'https://github.com/jaredhanson/connect-flash.git',
    tag: 'v0.1.1',
    // The one that it names does not run on Node of today.
    install: ['vows@0.8'],
    test: ['npm', 'test', '--silent'],
    count: /(\d+) honored/g,
  },
  {
    name: 'csrf-sync',
    url: 'https://github.com/Psifi-Solutions/csrf-sync.git',
    tag: 'v4.2.1',
    install: [],
    test: ['npx', 'vitest', 'run', '--pool=forks'],
    count: /Tests .*?(\d+) passed \((\d+)\)/,
    // A literal, which no setter sees.
    prepare(directory) {
      const file = join(directory, 'src/tests/utils/mock.ts')
      const text = readFileSync(file, 'utf8')
      writeFileSync(file, text.replace(/session: (\{[^}]*\})/, 'session: (globalThis as any).dropInSession($1)'))
    },
  },
]

const sources = process.argv[2]
const workspace = mkdtempSync(join(tmpdir(), 'sojourn-peers-'))
let isGreen = true
try {
  for (const peer of PEERS) {
    const directory = join(workspace, `${peer.name}-${peer.tag}`)
    if (peer.packed) unpack(peer.packed, directory)
    else if (sources) cpSync(join(sources, peer.name), directory, { recursive: true })
    else execFileSync('git', ['clone', '--quiet', '--depth', '1', '--branch', peer.tag, peer.url, directory])
    peer.complete?.(directory)
    execFileSync('npm', ['install', ...QUIET, ...peer.install], {
      cwd: directory,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const before = passed(peer, directory, {})
    peer.prepare?.(directory)
    const after = passed(peer, directory, { NODE_OPTIONS: `--require ${PRELOAD}` })
    isGreen &&= after === before && before > 0
    console.log(`| ${peer.name} ${peer.tag.slice(1)} | ${before} | ${after} |`)
  }
} finally {
  rmSync(workspace, { recursive: true, force: true })
}
process.exit(isGreen ? 0 : 1)

function unpack(name, directory) {
  mkdirSync(directory)
  const pack = ['pack', name, '--silent', '--pack-destination', workspace]
  const file = execFileSync('npm', pack, { encoding: 'utf8' }).trim()
  execFileSync('tar', ['-xzf', join(workspace, file), '--strip-components=1', '-C', directory])
}

/** For tests that import it. */
function replaceExpressSession(directory) {
  const place = join(directory, 'node_modules/express-session')
  rmSync(place, { recursive: true })
  mkdirSync(place)
  writeFileSync(join(place, 'package.json'), '{ "name": "express-session", "main": "index.cjs" }')
  writeFileSync(join(place, 'index.cjs'), `module.exports = require(${JSON.stringify(DROP_IN)})\n`)
}

/** How many of its tests pass; 0 when one fails. */
function passed({ test: [command, ...args], count }, cwd, env) {
  const settings = { ...process.env, NO_COLOR: '1', ...env }
  const { status, stdout } = spawnSync(command, args, { cwd, env: settings, encoding: 'utf8' })
  if (status !== 0) {
    console.error(stdout)
    return 0
  }
  // vows runs its files one after the other, and counts each.
  const all = count.global ? [...stdout.matchAll(count)] : [count.exec(stdout)].filter((found) => found !== null)
  return all.reduce((sum, [, number]) => sum + Number(number), 0)
}
