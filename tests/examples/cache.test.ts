// The example examples/cache in a real browser: what is a hit there, and what is a load.
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import type { Browser, Page } from 'playwright-core'
import { startBrowser } from '../support/browser.js'
import { type Program, startProgram } from '../support/processes.js'

// For a machine that does much else at the same time. All of it takes some seconds.
jest.setTimeout(120_000)

let browser: Browser
let program: Program

beforeAll(async () => {
  program = await startProgram('examples/cache/server.ts', [], { PORT: '0' })
  browser = await startBrowser()
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await program?.stop()
})

/** What the page says. */
async function shown(page: Page): Promise<Record<'logins' | 'prices' | 'rates' | 'status' | 'asked', string>> {
  const textOf = async (id: string): Promise<string> => (await page.locator(`#${id}`).textContent()) ?? ''
  return {
    logins: await textOf('logins'),
    prices: await textOf('prices'),
    rates: await textOf('rates'),
    status: await textOf('status'),
    asked: await textOf('asked'),
  }
}

async function press(page: Page, label: string): Promise<void> {
  await page.getByRole('button', { name: label }).click()
  await page.waitForLoadState()
}

test('three components make one load, tenants share nothing, and an API that is down leaves a copy', async () => {
  const page = await (await browser.newContext()).newPage()
  await page.goto(program.url)
  expect(await shown(page)).toMatchObject({ logins: '1', prices: 'from query 1: a load', asked: '1' })
  await page.reload()
  expect(await shown(page)).toMatchObject({ logins: '1', prices: 'from query 1: a hit', asked: '1' })
  expect((await shown(page)).status).toMatch(/^sojourn; hit; ttl=\d+$/)

  await press(page, 'Acme')
  expect((await shown(page)).prices).toBe('from query 2: a load')
  await press(page, 'Globex')
  expect((await shown(page)).prices).toBe('from query 3: a load')
  await press(page, 'Acme')
  expect((await shown(page)).prices).toBe('from query 2: a hit')
  await press(page, 'Clear this tenant’s cache')
  expect((await shown(page)).prices).toBe('from query 4: a load')
  await press(page, 'Globex')
  expect(await shown(page)).toMatchObject({ prices: 'from query 3: a hit', asked: '1' })

  await press(page, 'Break the API')
  await press(page, 'Reload from the API')
  expect(await shown(page)).toMatchObject({ rates: '200: 1 EUR is 1.01 USD', asked: '2' })
  expect((await shown(page)).status).toMatch(/fwd-status=503; ttl=\d+; detail=origin-error$/)
  await press(page, 'Mend the API')
  await press(page, 'Reload from the API')
  expect(await shown(page)).toMatchObject({ rates: '200: 1 EUR is 1.03 USD', asked: '3' })

  // Another visitor: an own session, the same tenant.
  const other = await (await browser.newContext()).newPage()
  await other.goto(program.url)
  expect((await shown(other)).prices).toBe('from query 5: a load')
  await press(other, 'Acme')
  expect(await shown(other)).toMatchObject({ logins: '1', prices: 'from query 4: a hit', asked: '3' })
})
