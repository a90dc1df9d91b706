// What the runs need beside this tree: other versions of Node, and another commit of this project.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const QUIET = ['--ignore-scripts', '--no-audit', '--no-fund', '--silent']
const created = []

/** The binaries of these versions: `'24'`, as the npm package `node` brings it, or a path. */
export function nodeBinaries(versions) {
  const wanted = versions.filter((version) => /^\d+(\.\d+)*$/.test(version) && !isRunning(version))
  const directory = temporary('nodes')
  if (wanted.length > 0) {
    writeFileSync(join(directory, 'package.json'), '{}')
    const packages = wanted.map((version) => `n${version}@npm:node-linux-${process.arch}@${version}`)
    execFileSync('npm', ['install', ...QUIET, ...packages], { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] })
  }
  return versions.map((version) => {
    if (isRunning(version)) return process.execPath
    return wanted.includes(version) ? join(directory, 'node_modules', `n${version}`, 'bin/node') : version
  })
}

/** The Node that runs this is taken for its version. */
function isRunning(version) {
  return `${process.versions.node}.`.startsWith(`${version}.`)
}

/** Builds another commit of this project with what it depends on, and tells where it is. */
export function buildCommit(ref) {
  const directory = join(temporary('commit'), 'sojourn')
  const run = (command, args, cwd) => execFileSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  run('git', ['worktree', 'add', '--detach', '--quiet', directory, ref], ROOT)
  created.push(() => run('git', ['worktree', 'remove', '--force', directory], ROOT))
  run('npm', ['ci', ...QUIET, '--prefer-offline'], directory)
  run('npm', ['run', '--silent', 'build'], directory)
  return directory
}

/** Removes all of it. */
export function removeBuilds() {
  for (const remove of created.splice(0).reverse()) remove()
}

function temporary(name) {
  const directory = mkdtempSync(join(tmpdir(), `sojourn-bench-${name}-`))
  created.push(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}
