// Starts TypeScript programs as processes of their own.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** A program that has printed the URL it listens on. */
export interface Program {
  readonly url: string
  readonly process: ChildProcess
  /** What it has printed so far, standard error included. */
  output(): string
  stop(): Promise<void>
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Runs `file` (relative to the repository) with tsx, and waits for a line with its URL. */
export async function startProgram(
  file: string,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<Program> {
  const { NODE_OPTIONS: _jestOptions, ...inherited } = process.env
  const child = spawn(process.execPath, ['--import', 'tsx', file, ...args], {
    cwd: ROOT,
    env: { ...inherited, NODE_ENV: 'development', ...env },
    stdio: 'pipe',
  })
  let output = ''
  const url = await new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk.toString()
      const found = /https?:\/\/[\w.:[\]-]+/.exec(output)
      if (found) resolve(found[0])
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('exit', (code) => reject(new Error(`${file} ended with code ${code}:\n${output}`)))
  })
  return {
    url,
    process: child,
    output: () => output,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}
