// Load from a process of its own: wrk if there is one, else autocannon.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const CONNECTIONS = 32

/** `'wrk'` or `'autocannon'`, and its version. */
export function findLoad(wanted) {
  const { status, stdout } = spawnSync('wrk', ['--version'], { encoding: 'utf8' })
  if (wanted !== 'autocannon' && status !== null) return { tool: 'wrk', version: stdout.split(' [')[0].trim() }
  if (wanted === 'wrk') throw new Error('There is no wrk.')
  return { tool: 'autocannon', version: 'autocannon' }
}

/**
 * Sends requests for `ms` milliseconds over 32 connections, with the given cookies in turn (`''`: none).
 * @returns {Promise<{ requests: number, us: number, p50Us: number, p99Us: number }>}
 */
export async function runLoad({ tool, url, cookies, ms }) {
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-load-'))
  try {
    const file = join(directory, 'cookies')
    writeFileSync(file, `${cookies.join('\n')}\n`)
    const run = tool === 'wrk' ? runWrk : runAutocannon
    // On a busy machine an interrupt may come before it is listened to.
    const result = await run({ url, file, ms }).catch(() => run({ url, file, ms: ms + 500 }))
    if (result.failed > 0) throw new Error(`${result.failed} requests to ${url} failed.`)
    return result
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runWrk({ url, file, ms }) {
  const script = fileURLToPath(new URL('load.lua', import.meta.url))
  const child = spawn('wrk', ['-t1', `-c${CONNECTIONS}`, '-d600s', '-s', script, url, '--', file])
  // wrk knows whole seconds only; an interrupt ends it in order. One that comes while it still starts does not wake it, so there
  // are more.
  let timer = setTimeout(() => {
    child.kill('SIGINT')
    timer = setInterval(() => child.kill('SIGINT'), 500)
  }, ms)
  const output = await outputOf(child).finally(() => clearTimeout(timer))
  return JSON.parse(/JSON(\{.*\})/.exec(output)[1])
}

async function runAutocannon({ url, file, ms }) {
  const script = fileURLToPath(new URL('load-autocannon.mjs', import.meta.url))
  return JSON.parse(await outputOf(spawn(process.execPath, [script, url, file, String(ms)])))
}

/** What a process printed. */
export async function outputOf(child) {
  let output = ''
  let errors = ''
  child.stdout.on('data', (chunk) => {
    output += chunk
  })
  child.stderr?.on('data', (chunk) => {
    errors += chunk
  })
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`${child.spawnfile} ended with code ${code}: ${errors}${output}`)
  return output
}
