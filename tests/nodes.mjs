// The test suite on the other Node versions that are supported: `npm run test:nodes [-- 22 24]`. The npm package `node`
// brings the binaries.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

const versions = process.argv.length > 2 ? process.argv.slice(2) : ['22', '24']
const directory = mkdtempSync(join(tmpdir(), 'sojourn-nodes-'))
let failures = 0
try {
  writeFileSync(join(directory, 'package.json'), '{}')
  const wanted = versions.map((version) => `n${version}@npm:node-linux-${process.arch}@${version}`)
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--silent']
  execFileSync('npm', ['install', ...options, ...wanted], { cwd: directory, stdio: 'inherit' })
  for (const version of versions) {
    const bin = join(directory, 'node_modules', `n${version}`, 'bin')
    const env = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` }
    const node = join(bin, 'node')
    console.log(`Node ${spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim()}`)
    const { status } = spawnSync(node, ['tests/run.mjs'], { env, stdio: 'inherit' })
    if (status !== 0) failures++
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}
process.exit(failures === 0 ? 0 : 1)
