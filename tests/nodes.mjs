// The test suite on the other Node versions that are supported: `npm run test:nodes [-- 22 26]`, whole on the last of them, and
// on those before it what tests the library. The npm package `node` brings the binaries. One run after the other, so that none
// is slowed down by the next, and each in a copy of the project, since tests build in it. What a run prints comes when it is over.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

const versions = process.argv.length > 2 ? process.argv.slice(2) : ['22', '24', '26']
const directory = mkdtempSync(join(tmpdir(), 'sojourn-nodes-'))
const results = []
console.log(
  `The suite on Node ${versions.join(', ')}, one after the other and whole on the last: about ${5 * versions.length} minutes on two cores.`,
)
try {
  writeFileSync(join(directory, 'package.json'), '{}')
  const wanted = versions.map((version) => `n${version}@npm:node-linux-${process.arch}@${version}`)
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--silent']
  execFileSync('npm', ['install', ...options, ...wanted], { cwd: directory, stdio: 'inherit' })
  // Installs what the tests need, once.
  spawnSync(process.execPath, ['tests/run.mjs', '--listTests'], { stdio: ['ignore', 'ignore', 'inherit'] })
  for (const version of versions) results.push(await run(version))
} finally {
  rmSync(directory, { recursive: true, force: true })
}
process.exit(results.every((isGreen) => isGreen) ? 0 : 1)

async function run(version) {
  const bin = join(directory, 'node_modules', `n${version}`, 'bin')
  const cwd = join(directory, `sojourn-${version}`)
  execFileSync('cp', ['-R', '.', cwd])
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` }
  const node = join(bin, 'node')
  const which = version === versions.at(-1) ? [] : ['--library']
  const suite = spawn(node, ['tests/run.mjs', ...which], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = []
  for (const stream of [suite.stdout, suite.stderr]) stream.on('data', (chunk) => output.push(chunk))
  const [status] = await once(suite, 'close')
  console.log(`Node ${spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()}`)
  process.stdout.write(Buffer.concat(output))
  return status === 0
}
