// Starts sql-process.ts, as a program that is bundled once: it is killed many times.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** A process, and what it says. */
export interface SqlProcess {
  readonly process: ChildProcess
  /** The next line; `null` when it has ended. */
  line(): Promise<string | null>
}

/** The program, and how to be done with it: `remove()` also ends what a test that failed has left running. */
export function sqlProgram(): { start(...args: string[]): SqlProcess; remove(): void } {
  // Where packages are found.
  mkdirSync(join(ROOT, 'node_modules/.cache'), { recursive: true })
  const directory = mkdtempSync(join(ROOT, 'node_modules/.cache/sql-process-'))
  const file = join(directory, 'main.mjs')
  buildSync({
    entryPoints: [join(ROOT, 'tests/support/sql-process.ts')],
    outfile: file,
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    alias: { sojourn: join(ROOT, 'src/index.ts'), 'sojourn/sql': join(ROOT, 'src/stores/sql.ts') },
  })
  const children: ChildProcess[] = []
  return {
    start(...args) {
      const { NODE_OPTIONS: _jestOptions, ...env } = process.env
      const child = spawn(process.execPath, ['--no-warnings', file, ...args], {
        env,
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      children.push(child)
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      return {
        process: child,
        async line() {
          const { done, value } = await lines.next()
          return done ? null : value
        },
      }
    },
    remove() {
      for (const child of children) child.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Ends it as a crash would, and waits until it has. */
export async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}
