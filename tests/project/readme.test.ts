// The README's code compiles as it stands, its links lead somewhere, and its tables name what there is.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, test } from '@jest/globals'
import type { SessionErrorCode, SessionOptions } from 'sojourn'
import { ALL_EVENT_NAMES } from '../support/event-names.js'

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

  test('every link within the page leads to a heading', () => {
    const headings = [...readme.matchAll(/^#+ (.+)$/gm)].map(([, text]) => slug(text as string))
    const anchors = [...readme.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor as string)
    expect(anchors.length).toBeGreaterThan(3)
    expect(anchors.filter((anchor) => !headings.includes(anchor))).toEqual([])
  })

  // Every name, so that one that is new fails to compile here until it is added.
  test('the table of options names every option', () => {
    const options: Record<keyof Required<SessionOptions>, true> = {
      secret: true,
      store: true,
      cookie: true,
      preset: true,
      idleTimeout: true,
      absoluteTimeout: true,
      touchInterval: true,
      renewGrace: true,
      renewAfter: true,
      passivePaths: true,
      maxSessionsPerUser: true,
      onSessionLimit: true,
      clientContext: true,
      initialFields: true,
      endedRetention: true,
      onEnded: true,
      clearSiteData: true,
      cacheControl: true,
      archive: true,
      cleanupInterval: true,
      storeTimeout: true,
      onStoreError: true,
      commit: true,
      codec: true,
      limits: true,
      trustProxy: true,
      context: true,
      activity: true,
      logicalIdTimeout: true,
      clock: true,
    }
    expect(namesIn('## Options').toSorted()).toEqual(expect.arrayContaining(Object.keys(options)))
  })

  test('the table of events names every event, and no other', () => {
    expect(namesIn('## Events').toSorted()).toEqual(ALL_EVENT_NAMES.toSorted())
  })

  test('the table of errors names every code, and no other', () => {
    const codes: Record<SessionErrorCode, true> = {
      INVALID_OPTION: true,
      INVALID_ARGUMENT: true,
      INVALID_FIELD: true,
      INVALID_VALUE: true,
      VALIDATION_FAILED: true,
      SESSION_TOO_LARGE: true,
      SESSION_ENDED: true,
      SESSION_READ_ONLY: true,
      SESSION_LIMIT: true,
      REAUTHENTICATION_REQUIRED: true,
      UPDATE_CONFLICT: true,
      HEADERS_SENT: true,
      INSECURE_CONNECTION: true,
      CORRUPT_RECORD: true,
      STORE_UNAVAILABLE: true,
      STORE_TIMEOUT: true,
      MISSING_DEPENDENCY: true,
      NOT_SUPPORTED: true,
    }
    expect(namesIn('## When things go wrong').toSorted()).toEqual(Object.keys(codes).toSorted())
  })
})

/** The code words in the first column of the tables of a section, its subsections included, without their heads. */
function namesIn(heading: string): string[] {
  const [, section = ''] = new RegExp(`^${heading}\\n([\\s\\S]*?)^## `, 'm').exec(readme) ?? []
  const rows = [...section.matchAll(/^\| (`[^|]+) \|.*\n(?!\| ---)/gm)].map(([, cell]) => cell as string)
  return rows.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name as string))
}

/** The anchor that GitHub gives a heading. */
function slug(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')
}
