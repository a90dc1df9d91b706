// The README's code compiles as it stands, its links lead somewhere, and its tables name what there is.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, test } from '@jest/globals'
import { resolveOptions } from '../src/options.js'
import { SECRET } from './support/http.js'

const readme = readFileSync('README.md', 'utf8')
const blocks = [...readme.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code]) => code as string)
// Below node_modules, so that imports resolve as in the project.
const directory = resolve('node_modules/.cache/sojourn-readme')

afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** What a block takes for granted from the ones before it. */
function preamble(code: string): string {
  const lines = ["import 'sojourn'"]
  if (!/import express/.test(code) && /\bapp\b/.test(code)) lines.push("declare const app: import('express').Express")
  if (!/import .*\bsession\b.* from 'sojourn'/.test(code) && /\bsession\(\{/.test(code)) {
    lines.push("import { session } from 'sojourn'")
  }
  if (!/class MapStore/.test(code) && /MapStore/.test(code)) {
    lines.push("declare const MapStore: new () => import('sojourn').SessionStore")
  }
  return `${lines.join('\n')}\n`
}

describe('the README', () => {
  test('every code block compiles', () => {
    mkdirSync(directory, { recursive: true })
    expect(blocks.length).toBeGreaterThan(10)
    for (const [index, code] of blocks.entries()) {
      writeFileSync(join(directory, `block-${index}.ts`), `${preamble(code)}${code}\nexport {}\n`)
    }
    writeFileSync(
      join(directory, 'superjson.d.ts'),
      `declare module 'superjson' {
         const superjson: { stringify(value: unknown): string; parse(text: string): unknown }
         export default superjson
       }`,
    )
    writeFileSync(
      join(directory, 'tsconfig.json'),
      JSON.stringify({
        extends: resolve('tsconfig.json'),
        compilerOptions: { rootDir: resolve('.'), noUnusedLocals: false, noPropertyAccessFromIndexSignature: false },
        include: ['*.ts'],
        exclude: [],
      }),
    )
    const tsc = resolve('node_modules/typescript/bin/tsc')
    try {
      execFileSync(process.execPath, [tsc, '-p', directory], { encoding: 'utf8', stdio: 'pipe' })
    } catch (error) {
      throw new Error(String((error as { stdout: string }).stdout))
    }
  })

  test('every relative link leads to a file', () => {
    const links = [...readme.matchAll(/\]\(([^)#:]+)\)/g)].map(([, link]) => link as string)
    expect(links.length).toBeGreaterThan(3)
    expect(links.filter((link) => !existsSync(link))).toEqual([])
  })

  test('the table of options names every option', () => {
    const named = new Set([...readme.matchAll(/^\| `([a-zA-Z]+)` \|/gm)].map(([, name]) => name))
    const { cookie: _cookie, ...resolved } = resolveOptions({ secret: SECRET })
    for (const name of Object.keys(resolved)) expect(named).toContain(name.replace(/Ms$/, ''))
  })
})
