// The ways through the examples on which each page is seen: by the tests, and by who makes pictures of them.
import type { Page } from 'playwright-core'

/** What each page has to look right in. */
export const LOOKS = [390, 1280].flatMap((width) =>
  (['light', 'dark'] as const).map((colorScheme) => ({ width, colorScheme })),
)

type Look = (name: string) => Promise<void>

/** The shop of the demo: as a stranger finds it, and with a cart and a login. */
export async function walkShop(page: Page, url: string, look: Look): Promise<void> {
  await page.goto(url)
  await look('demo-new')
  for (const product of ['Tea', 'Honey', 'Tea', 'Biscuits']) await press(page, `Add ${product}`)
  await page.getByLabel('Your name').fill('Ann')
  await press(page, 'Log in')
  await look('demo-shop')
}

/** Runs each trial of the demo's page, one after the other. Those that cannot be tried here are left out. */
export async function runTrials(page: Page): Promise<void> {
  for (const trial of await page.locator('[data-trial]').all()) {
    const button = trial.getByRole('button')
    if (await button.isDisabled()) continue
    await button.click()
    await trial.getByText('Done.', { exact: true }).waitFor()
  }
}

/** All pages of the support desk, those with a problem included. */
export async function walkSupportDesk(page: Page, url: string, look: Look): Promise<void> {
  await page.goto(url)
  await look('desk-vehicle')
  await press(page, 'Continue')
  await look('desk-vehicle-problem')
  await page.getByLabel('Your name').fill('Ann Example')
  await page.getByLabel('Number plate').fill('AB 123')
  await press(page, 'Continue')
  await look('desk-proof')
  await page.getByLabel('Number of the document').fill('T-4711')
  await press(page, 'Continue')
  await look('desk-payment')
  await press(page, 'Pay')
  await look('desk-failure')
  const id = (await page.locator('#session-id').textContent()) ?? ''
  await press(page, 'Try again')
  await look('desk-receipt')
  await page.goto(`${url}/support`)
  await look('desk-login')
  await page.getByLabel('Name').fill('robin')
  await page.getByLabel('Password').fill('north star')
  await press(page, 'Log in')
  await page.getByLabel('Session ID').fill('42')
  await press(page, 'Look up')
  await look('desk-search-problem')
  await page.getByLabel('Session ID').fill(id)
  await press(page, 'Look up')
  await look('desk-report')
}

/** Follows a button to the page behind it. */
async function press(page: Page, name: string): Promise<void> {
  await Promise.all([page.waitForEvent('load'), page.getByRole('button', { name, exact: true }).click()])
}
