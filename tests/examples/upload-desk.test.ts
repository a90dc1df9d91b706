// The example examples/upload-desk in a real browser: files come, stay through the login, can be taken back, and are gone from the
// disk with the session.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import type { Browser } from 'playwright-core'
import { startBrowser } from '../support/browser.js'
import { type Program, startProgram } from '../support/processes.js'

// For a machine that does much else at the same time. All of it takes some seconds.
jest.setTimeout(180_000)

let root = ''
let desk: Program
let browser: Browser

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'sojourn-upload-desk-'))
  desk = await startProgram('examples/upload-desk/server.ts', [], { PORT: '0', WORKSPACES: root })
  browser = await startBrowser()
})
afterAll(async () => {
  await browser?.close()
  await desk?.stop()
  rmSync(root, { recursive: true, force: true })
})

const onDisk = (): string[] => readdirSync(join(root, 'workspaces'))

test('files come, stay through the login, are taken back, and go with the logout', async () => {
  const page = await (await browser.newContext({ acceptDownloads: true })).newPage()
  page.setDefaultTimeout(60_000)
  const leave = async (...files: [name: string, content: string][]): Promise<void> => {
    const payloads = files.map(([name, content]) => ({ name, mimeType: 'text/plain', buffer: Buffer.from(content) }))
    await page.setInputFiles('input[type=file]', payloads)
    await page.click('text=Leave them')
    await page.waitForSelector('h1')
  }
  const seen = (): Promise<string[]> => page.locator('li').allInnerTexts()

  await page.goto(desk.url)
  expect([await seen(), onDisk()]).toEqual([[], []])
  await leave(['<b>Ärger</b>.txt', 'hello'], ['b.txt', 'x'])
  // What a client's name must not hold has become something else, and the rest is shown as text.
  expect((await seen()).toSorted()).toEqual(['b_.txt, 5 bytes', 'b.txt, 1 bytes'].toSorted())

  await page.click('text=Log in')
  await page.waitForSelector('text=Hello, ann.')
  expect(await seen()).toHaveLength(2)
  await leave(['b.txt', 'second'])
  expect(await seen()).toContain('b (2).txt, 6 bytes')
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('text=b (2).txt')])
  expect(download.suggestedFilename()).toBe('b (2).txt')
  expect(await readFile(await download.path(), 'utf8')).toBe('second')

  await leave(['big.bin', 'x'.repeat(1_100_000)])
  expect(await page.innerText('[role=status]')).toMatch(/may have 1000000 bytes together/)
  await page.click('text=Home')
  await page.waitForSelector('li')
  expect(await seen()).toHaveLength(3)
  expect(onDisk()).toHaveLength(1)

  await page.click('text=Log out')
  await page.waitForSelector('text=Hello, stranger.')
  expect(await seen()).toEqual([])
  expect(onDisk()).toEqual([])
  await page.context().close()
})
