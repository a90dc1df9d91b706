// The example examples/order-form as people use it, in a real browser that is closed in the middle.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import type { BrowserContext, Page } from 'playwright-core'
import { startProfile } from '../support/browser.js'
import { type Program, startProgram } from '../support/processes.js'

// For a machine that does much else at the same time.
jest.setTimeout(180_000)
const WAIT_MS = 60_000

const profile = mkdtempSync(join(tmpdir(), 'sojourn-profile-'))
let program: Program
let browser: BrowserContext | undefined

beforeAll(async () => {
  program = await startProgram('examples/order-form/server.ts', [], { PORT: '0' })
})
afterAll(async () => {
  await browser?.close()
  await program?.stop()
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
})

async function open(): Promise<Page> {
  browser = await startProfile(profile)
  const page = browser.pages()[0] ?? (await browser.newPage())
  page.setDefaultTimeout(WAIT_MS)
  await page.goto(program.url)
  return page
}

async function close(): Promise<void> {
  await browser?.close()
  browser = undefined
}

async function step(page: Page, fields: Record<string, string>): Promise<void> {
  for (const [label, text] of Object.entries(fields)) await page.getByLabel(label).fill(text)
  await press(page, 'Next')
}

async function press(page: Page, name: string): Promise<void> {
  await Promise.all([page.waitForEvent('load'), page.getByRole('button', { name }).click()])
}

const title = (page: Page): Promise<string | null> => page.locator('h1').textContent()

test('a form is filled, undone, redone, left by closing the browser, resumed and sent', async () => {
  let page = await open()
  await page.getByRole('link', { name: 'Begin' }).click()
  await step(page, { Name: 'Ann' })
  await step(page, { Street: 'Main Street 1', City: 'Bergen' })
  expect(await title(page)).toBe('Which tea?')
  await press(page, 'Undo')
  await page.goBack()
  await page.goto(`${program.url}/step/2`)
  expect(await page.getByLabel('City').inputValue()).toBe('')
  await press(page, 'Redo')
  expect(await page.getByLabel('City').inputValue()).toBe('Bergen')
  expect(await page.getByRole('button', { name: 'Redo' }).isDisabled()).toBe(true)
  await page.goto(`${program.url}/step/3`)
  await close()

  page = await open()
  const names = (await (browser as BrowserContext).cookies()).map(({ name }) => name)
  expect(names).toContain('recovery')
  await press(page, 'Go on where you were')
  expect(await title(page)).toBe('Which tea?')
  // What was entered is there, and so is the way back.
  await page.goto(`${program.url}/step/2`)
  expect(await page.getByLabel('City').inputValue()).toBe('Bergen')
  await press(page, 'Undo')
  expect(await page.getByLabel('City').inputValue()).toBe('')
  await press(page, 'Redo')
  await page.goto(`${program.url}/step/3`)
  await step(page, { Tea: 'Assam' })
  expect(await page.locator('dd').allTextContents()).toEqual(['Ann', 'Main Street 1', 'Bergen', 'Assam'])
  await press(page, 'Order')
  expect(await page.getByRole('status').textContent()).toBe('Thank you. Your tea is on its way.')
  // Shown once, and nothing is left of the order.
  await page.reload()
  expect(await page.getByRole('status').count()).toBe(0)
  await page.goto(`${program.url}/check`)
  expect(await page.locator('dd').allTextContents()).toEqual(['', '', '', ''])
})

test('a token that was used offers nothing a second time', async () => {
  const page = browser?.pages()[0] as Page
  const [before] = await (browser as BrowserContext).cookies()
  await (browser as BrowserContext).clearCookies()
  await (browser as BrowserContext).addCookies([
    { name: 'recovery', value: 'x'.repeat(43), url: program.url, httpOnly: true, sameSite: 'Lax' },
  ])
  expect(before).toBeDefined()
  await page.goto(program.url)
  await press(page, 'Go on where you were')
  expect(await page.getByRole('status').textContent()).toBe('There is nothing left to go on with.')
  expect(await page.getByRole('button', { name: 'Go on where you were' }).count()).toBe(0)
})
