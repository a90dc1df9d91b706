// The example examples/app as people use it, in a real browser: each promise is tried beside express-session. And every
// page of it and of the support desk, narrow and wide, light and dark.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals'
import type { Browser, Page } from 'playwright-core'
import { startBrowser } from '../support/browser.js'
import { type Program, startProgram } from '../support/processes.js'
import { runRace } from '../support/race.js'
import { racePicture } from '../support/race-picture.js'
import { LOOKS, walkShop, walkSupportDesk } from '../support/walks.js'

// For a machine that does much else at the same time. All of it takes some seconds.
jest.setTimeout(180_000)
const WAIT_MS = 60_000

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const endings: (() => Promise<void>)[] = []
let browser: Browser
let demo: Program
let demoWithoutRedis: Program
let desk: Program

beforeAll(async () => {
  const starts = [
    async () => {
      browser = await startBrowser()
      endings.push(() => browser.close())
    },
    async () => {
      demo = await start('app')
    },
    async () => {
      // A path with no program on it.
      demoWithoutRedis = await start('app', { PATH: tmpdir(), REDIS_SERVER: '' })
    },
    async () => {
      desk = await start('support-desk')
    },
  ]
  // All of them have started or not when the first failure is told, so that nothing starts behind the endings.
  const outcomes = await Promise.allSettled(starts.map((begin) => begin()))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
})

afterAll(async () => {
  for (const end of endings.toReversed()) await end()
})

describe('beside express-session, each at the press of a button', () => {
  let page: Watched
  beforeAll(async () => {
    page = await open(demo)
  })
  afterAll(() => page.close())

  test('50 requests at once: every field is kept, and of the others not', async () => {
    const [ours, theirs] = await page.run('race')
    expect(ours).toMatchObject({ isRight: true, verdict: '✓ 50 of 50 fields kept', right: 50, wrong: 0 })
    expect(theirs).toMatchObject({ isRight: false, right: keptIn(theirs), wrong: 50 - keptIn(theirs) })
    expect(keptIn(theirs)).toBeLessThan(50)
  })

  test('a logout under a slow request stays one, and is undone on the other side', async () => {
    const [ours, theirs] = await page.run('logout')
    expect(ours).toMatchObject({ isRight: true, verdict: '✓ Nobody is logged in' })
    expect(theirs).toMatchObject({ isRight: false, verdict: '✗ Ann is logged in again' })
    // The one is told that it was not stored; the other was told that it was.
    expect(ours.lines[1]).toMatch(/^409 after \d+ ms$/)
    expect(theirs.lines[1]).toMatch(/^200 after \d+ ms$/)
  })

  test('a redirect after a slow save shows what was saved, and on the other side something older', async () => {
    const [ours, theirs] = await page.run('redirect')
    expect(ours).toMatchObject({ isRight: true, verdict: '✓ 10 of 10 pages up to date', right: 10 })
    expect(theirs).toMatchObject({ isRight: false, right: keptIn(theirs) })
    expect(keptIn(theirs)).toBeLessThan(10)
  })

  test('a frozen Redis is answered for within its deadline, logs nobody out, and hangs the other side', async () => {
    const [ours, theirs] = await page.run('frozen')
    expect(ours).toMatchObject({ isRight: true, lines: ['503: try again', 'Ann is logged in'] })
    expect(theirs).toMatchObject({ isRight: false, lines: ['no answer', 'Ann is logged in'] })
    expect(secondsIn(ours)).toBeLessThan(secondsIn(theirs))
    expect(secondsIn(theirs)).toBeGreaterThanOrEqual(3.9)
  })

  test('they can be tried again, and what came of it is told to screen readers', async () => {
    const [ours] = await page.run('race')
    expect(ours.isRight).toBe(true)
    const told = await page.trial('race').getByRole('status').textContent()
    expect(told).toMatch(/^Sojourn: 50 of 50 fields kept\. express-session: \d+ of 50 fields kept\.$/)
  })

  test('the page stays as it is when results come, and the browser has nothing to complain of', async () => {
    expect(await page.shifts()).toEqual([])
    expect(page.heights.size).toBe(1)
    expect(page.troubles).toEqual([])
  })
})

test('on a narrow page nothing moves either, and everybody can read what came of it', async () => {
  const page = await open(demo, 390)
  for (const trial of ['race', 'logout', 'redirect', 'frozen'] as const) await page.run(trial)
  expect(await page.shifts()).toEqual([])
  expect(page.heights.size).toBe(1)
  await page.check('demo-promises')
  expect(page.troubles).toEqual([])
  await page.close()
})

test('without a redis-server it says so, and shows the other three on memory', async () => {
  const page = await open(demoWithoutRedis)
  const frozen = page.trial('frozen')
  expect(await frozen.getByRole('button').isDisabled()).toBe(true)
  expect(await frozen.textContent()).toContain('There is no redis-server on this machine.')
  for (const trial of ['race', 'logout', 'redirect'] as const) {
    expect((await page.run(trial)).map(({ isRight }) => isRight)).toEqual([true, false])
  }
  expect(page.troubles).toEqual([])
  await page.close()
})

test('the shop shows prices, pictures and a total', async () => {
  const page = await open(demo)
  await walkShop(page.page, demo.url, async () => {})
  const lines = await page.page.locator('#cart li').allInnerTexts()
  expect(lines.map((line) => line.replace(/\s+/g, ' '))).toEqual([
    '2 × Tea €9.60 Remove Tea',
    '1 × Honey €7.50 Remove Honey',
    '1 × Biscuits €3.20 Remove Biscuits',
  ])
  expect(await page.page.locator('#total').textContent()).toBe('€20.30')
  expect(await page.page.locator('#cart-count').textContent()).toBe('4')
  // A picture that is not there has no size of its own.
  const sizes = await page.page.evaluate('Array.from(document.images, (image) => image.naturalWidth)')
  expect(sizes).not.toContain(0)
  expect(page.troubles).toEqual([])
  await page.close()
})

test('every page can be used by everybody, narrow and wide, light and dark', async () => {
  const page = await open(demo)
  const seen: string[] = []
  const look = async (name: string): Promise<void> => {
    seen.push(name)
    await page.check(name)
  }
  await walkShop(page.page, demo.url, look)
  await page.page.goto(demoWithoutRedis.url)
  await look('demo-without-redis')
  await walkSupportDesk(page.page, desk.url, look)
  expect(seen).toHaveLength(12)
  expect(page.troubles).toEqual([])
  await page.close()
})

test('by keyboard: the button of a trial keeps the focus while it runs', async () => {
  const page = await open(demo)
  const button = page.trial('redirect').getByRole('button')
  await button.focus()
  await page.page.keyboard.press('Enter')
  expect(await button.getAttribute('aria-disabled')).toBe('true')
  await page.trial('redirect').getByText('Done.', { exact: true }).waitFor()
  expect(await page.page.evaluate('document.activeElement.textContent')).toBe('Save 10 times')
  expect(await button.getAttribute('aria-disabled')).toBe('false')
  await page.close()
})

test('the picture of the race shows what a run of it kept', async () => {
  const results = await runRace(demo.url)
  const [ours, theirs] = results as [(typeof results)[number], (typeof results)[number]]
  expect(ours.kept).toHaveLength(50)
  expect(theirs.kept.length).toBeLessThan(50)
  const picture = racePicture(results)
  expect(picture.match(/class="kept"/g)).toHaveLength(50 + theirs.kept.length)
  expect(picture.match(/class="lost"/g)).toHaveLength(50 - theirs.kept.length)
  expect(picture).toContain(`✗ ${theirs.kept.length} of 50 kept`)
})

interface Half {
  isRight: boolean
  /** Such as "✓ 50 of 50 fields kept". */
  verdict: string
  lines: string[]
  right: number
  wrong: number
}

function keptIn({ verdict }: Half): number {
  return Number(/(\d+) of/.exec(verdict)?.[1])
}

function secondsIn({ verdict }: Half): number {
  return Number(/([\d.]+) s/.exec(verdict)?.[1])
}

async function start(name: string, env: Record<string, string> = {}): Promise<Program> {
  const program = await startProgram(`examples/${name}/server.ts`, [], {
    PORT: '0',
    REDIS_URL: '',
    STORE: 'memory',
    ...env,
  })
  endings.push(() => program.stop())
  return program
}

async function open(program: Program, width = 1280): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width, height: 800 } })
  context.setDefaultTimeout(WAIT_MS)
  const watched = new Watched(await context.newPage())
  await watched.page.goto(program.url)
  return watched
}

/** A page whose faults are noticed. */
class Watched {
  readonly page: Page
  /** Errors of scripts, and all that stands on the console. */
  readonly troubles: string[] = []
  /** How high the page was while trials ran. */
  readonly heights = new Set<unknown>()

  constructor(page: Page) {
    this.page = page
    page.on('pageerror', (error) => this.troubles.push(`error: ${error.message}`))
    page.on('console', (message) => {
      // The support desk refuses with a status; Chromium has a word on each.
      const isRefusal = /the server responded with a status of (400|502) /.test(message.text())
      if (!isRefusal) this.troubles.push(`${message.type()}: ${message.text()}`)
    })
  }

  close(): Promise<void> {
    return this.page.context().close()
  }

  trial(name: string) {
    return this.page.locator(`[data-trial=${name}]`)
  }

  /** Presses the button, and waits for what comes of it. */
  async run(name: 'race' | 'logout' | 'redirect' | 'frozen'): Promise<[Half, Half]> {
    const trial = this.trial(name)
    this.heights.add(await this.page.evaluate('document.documentElement.scrollHeight'))
    await trial.getByRole('button').click()
    await trial.getByText('Running …', { exact: true }).waitFor()
    await trial
      .getByText(/^(?!Running)./)
      .and(trial.locator('.state'))
      .waitFor()
    expect(await trial.locator('.state').textContent()).toBe('Done.')
    this.heights.add(await this.page.evaluate('document.documentElement.scrollHeight'))
    const halves = await Promise.all(
      (await trial.locator('.side').all()).map(async (side): Promise<Half> => {
        const verdict = side.locator('.verdict')
        return {
          isRight: /\bright\b/.test((await verdict.getAttribute('class')) ?? ''),
          verdict: ((await verdict.textContent()) ?? '').trim(),
          lines: await side.locator('dd').allTextContents(),
          right: await side.locator('.squares .right').count(),
          wrong: await side.locator('.squares .wrong').count(),
        }
      }),
    )
    return halves as [Half, Half]
  }

  /** What has moved by itself since the page was opened. */
  shifts(): Promise<unknown> {
    return this.page.evaluate(`new Promise((resolve) => {
      const shifts = []
      const observer = new PerformanceObserver((list) => shifts.push(...list.getEntries().map((entry) => entry.value)))
      observer.observe({ type: 'layout-shift', buffered: true })
      // Buffered entries come before the next frame but one.
      requestAnimationFrame(() => requestAnimationFrame(() => resolve(shifts)))
    })`)
  }

  /** Whether everybody can use the page, and it is no wider than the window. */
  async check(name: string): Promise<void> {
    for (const { width, colorScheme } of LOOKS) {
      await this.page.setViewportSize({ width, height: 800 })
      await this.page.emulateMedia({ colorScheme })
      const found = { name, width, colorScheme, ...(await this.#faults()) }
      expect(found).toEqual({ name, width, colorScheme, violations: [], overflow: 0 })
    }
  }

  /** What axe-core finds, and how many pixels the page is too wide. */
  async #faults(): Promise<object> {
    // As the page's own scripts, axe-core would be kept out by its policy.
    await this.page.evaluate(AXE)
    return this.page.evaluate<object>(`axe.run().then(({ violations }) => ({
      violations: violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' ')),
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    }))`)
  }
}
