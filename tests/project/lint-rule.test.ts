// What a linter finds of members that are read as flags, with the rule that the documentation names.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FILE = 'tests/types/flags.ts'

test('no-unnecessary-condition finds a member that is read as a flag where the compiler does not', async () => {
  const rule = /"([\w-]+\/no-unnecessary-condition)": "error"/.exec(
    readFileSync(join(ROOT, 'docs/guides/fields.md'), 'utf8'),
  )?.[1]
  expect(rule).toBe('typescript/no-unnecessary-condition')
  const directory = mkdtempSync(join(tmpdir(), 'sojourn-lint-'))
  try {
    const config = join(directory, 'oxlint.json')
    writeFileSync(
      config,
      JSON.stringify({ plugins: ['typescript'], categories: {}, rules: { [rule as string]: 'error' } }),
    )
    const args = ['node_modules/oxlint/bin/oxlint', '--type-aware', '--format=unix', '-c', config, FILE]
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT }).catch(
      (failed: { stdout: string }) => failed,
    )
    const found = [...stdout.matchAll(/flags\.ts:(\d+):/g)].map(([, line]) => Number(line))
    const marked = readFileSync(join(ROOT, FILE), 'utf8')
      .split('\n')
      .flatMap((line, index) => (line.endsWith('// found') ? [index + 1] : []))
    expect(marked).toHaveLength(2)
    expect(found).toEqual(expect.arrayContaining(marked))
  } finally {
    rmSync(directory, { recursive: true })
  }
}, 120_000)
