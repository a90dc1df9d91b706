// Pictures of the examples, to be looked at: each page of the demo and of the support desk, narrow and wide, light and
// dark, in shots/; and the race, as a real run of it went, in docs/pictures/race.svg.
//
//   npm run shots
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Page } from 'playwright-core'
import { startBrowser } from './support/browser.js'
import { startProgram } from './support/processes.js'
import { runRace } from './support/race.js'
import { racePicture } from './support/race-picture.js'
import { LOOKS, runTrials, walkShop, walkSupportDesk } from './support/walks.js'

const SHOTS = fileURLToPath(new URL('../shots/', import.meta.url))
const PICTURE = fileURLToPath(new URL('../docs/pictures/race.svg', import.meta.url))

process.env['CHROMIUM_PATH'] ??= execFileSync('sh', [
  '-c',
  'command -v chromium || command -v chromium-browser || command -v google-chrome || true',
])
  .toString()
  .trim()
mkdirSync(SHOTS, { recursive: true })
const env = { PORT: '0', REDIS_URL: '' }
const browser = await startBrowser()
const demo = await startProgram('examples/app/server.ts', [], env)
// Nothing on its path, so no redis-server.
const bareDemo = await startProgram('examples/app/server.ts', [], { ...env, PATH: SHOTS, REDIS_SERVER: '' })
const desk = await startProgram('examples/support-desk/server.ts', [], env)
try {
  const page = await browser.newPage()
  await walkShop(page, demo.url, (name) => shoot(page, name))
  await runTrials(page)
  await shoot(page, 'demo-promises')
  await page.goto(bareDemo.url)
  await shoot(page, 'demo-without-redis')
  await walkSupportDesk(page, desk.url, (name) => shoot(page, name))
  writeFileSync(PICTURE, racePicture(await runRace(demo.url)))
} finally {
  await Promise.all([browser.close(), demo.stop(), bareDemo.stop(), desk.stop()])
}

async function shoot(page: Page, name: string): Promise<void> {
  for (const { width, colorScheme } of LOOKS) {
    await page.setViewportSize({ width, height: 800 })
    await page.emulateMedia({ colorScheme })
    const path = `${SHOTS}${name}-${width}-${colorScheme}.png`
    await page.screenshot({ path, fullPage: true })
    console.log(path)
  }
}
