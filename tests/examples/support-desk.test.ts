// The example examples/support-desk as people use it, in a real browser.
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals'
import type { Browser, BrowserContext, BrowserContextOptions, Page } from 'playwright-core'
import { startBrowser } from '../support/browser.js'
import { SECRET } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'
import { sharedRedis } from '../support/redis.js'

// For a machine that does much else at the same time. All of it takes some seconds.
jest.setTimeout(180_000)
const WAIT_MS = 60_000

const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/
const SCRIPT = '<script>alert("here")</script>'
const IMAGE = `<img src=x onerror='alert("here")'>`

/** What has to be ended, whatever happens. */
const endings: (() => Promise<void>)[] = []
let browser: Browser
let deskInMemory: Program
let deskOnRedis: Program

beforeAll(async () => {
  const starts = [
    async () => {
      browser = await startBrowser()
      endings.push(() => browser.close())
    },
    async () => {
      deskInMemory = await start({ REDIS_URL: '' })
    },
    async () => {
      const redis = await sharedRedis()
      endings.push(() => redis.stop())
      deskOnRedis = await start({ REDIS_URL: redis.url, SESSION_SECRET: SECRET })
    },
  ]
  // All of them have started or not when the first failure is told, so that nothing starts behind the endings.
  const outcomes = await Promise.allSettled(starts.map((begin) => begin()))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
})

afterAll(async () => {
  // The last one first: the programs before the server that they use.
  for (const end of endings.toReversed()) await end()
})

/** People at their browsers, whose pages are closed after each test. */
const people: Person[] = []

afterEach(async () => {
  const troubles = people.flatMap((person) => person.troubles)
  await Promise.all(people.splice(0).map(({ page }) => page.context().close()))
  expect(troubles).toEqual([])
})

describe('the support desk', () => {
  test.each([
    ['memory', () => deskInMemory],
    ['Redis', () => deskOnRedis],
  ])(
    'on %s: an application fails with its ID, goes through when tried again, and support sees all of it',
    async (_, desk) => {
      const applicant = await person(desk())
      await applicant.submitVehicle({ name: 'Ann', plate: 'ab 123' })
      const firstStepAt = Date.now()
      await applicant.submitProof('T-4711')
      await applicant.sees('Check and pay')
      await applicant.click('Pay')
      await applicant.sees('Something went wrong')
      const id = await applicant.shownId()
      // What it was is for support.
      expect(await applicant.page.content()).not.toContain('did not answer')
      const retryAt = Date.now()
      await applicant.click('Try again')
      await applicant.sees('Your permit is valid')
      const doneAt = Date.now()
      expect(await applicant.page.locator('main').textContent()).toContain('AB 123')
      expect(await applicant.shownId()).toBe(id)
      // It is no credential.
      const cookies = await applicant.page.context().cookies()
      expect(cookies).toEqual([expect.objectContaining({ httpOnly: true, sameSite: 'Lax' })])
      expect(cookies[0]?.value).not.toContain(id)

      const supporter = await person(desk())
      await supporter.logIn()
      await supporter.lookUp(`It says "Session ID: ${id.toUpperCase()}."`)
      await supporter.sees('What happened')
      const report = await supporter.report()
      expect(report.timeline.filter((type) => !type.startsWith('session.'))).toEqual([
        'permit.vehicle',
        'permit.proof',
        'payment.requested',
        'payment.failed',
        'payment.requested',
        'permit.issued',
      ])
      expect(report.timeline.at(-1)).toBe('session.continued')
      expect(report.marked).toEqual(['payment.failed'])
      expect(report.counts).toMatchObject({ 'payment.requested': '2', 'payment.failed': '1', 'permit.issued': '1' })
      expect(report.failures).toEqual([expect.stringMatching(/payment\.failed.*attempt 1.*did not answer within 5 s/)])
      expect(report.summary).toMatchObject({ Ended: 'session.continued (completed)', User: 'not logged in' })
      expect(report.seconds).toBeGreaterThanOrEqual((retryAt - firstStepAt) / 1_000 - 0.1)
      expect(report.seconds).toBeLessThanOrEqual((doneAt - applicant.arrivedAt) / 1_000 + 0.1)
      // What support has no need of.
      const shown = await supporter.page.content()
      expect(shown).toContain('[redacted]')
      for (const secret of ['T-4711', 'Ann', cookies[0]?.value]) expect(shown).not.toContain(secret)
    },
  )

  test('support follows a user to what came before and after', async () => {
    const applicant = await person(deskInMemory)
    const first = await applicant.failAndPay('FIRST 1')
    await applicant.page.getByRole('link', { name: 'Apply for another permit' }).click()
    const second = await applicant.fail('SECOND 2')
    await applicant.click('Start over')
    await applicant.sees('Apply for a permit')
    expect(await applicant.page.getByLabel('Number plate').inputValue()).toBe('')
    const third = await applicant.fail('THIRD 3')
    expect(new Set([first, second, third]).size).toBe(3)

    const supporter = await supporterOf(deskInMemory)
    await supporter.lookUp(second)
    await supporter.sees('What happened')
    const report = await supporter.report()
    expect(report.summary).toMatchObject({ Before: first, After: third, Ended: 'session.continued (restart)' })
    expect(report.failures).toHaveLength(1)
    expect(await supporter.page.content()).toContain('SECOND 2')
    await supporter.page.getByRole('link', { name: third }).click()
    await supporter.sees('What happened', 'THIRD 3')
    expect((await supporter.report()).summary).toMatchObject({ Before: second, After: 'nothing yet', Ended: 'not yet' })
    await supporter.page.getByRole('link', { name: second }).click()
    await supporter.sees('What happened', 'SECOND 2')
    await supporter.page.getByRole('link', { name: first }).click()
    await supporter.sees('What happened', 'FIRST 1')
    expect((await supporter.report()).summary).toMatchObject({ Before: 'nothing', After: second })
  })

  test('two people at the same time do not mix', async () => {
    const both = await Promise.all([person(deskInMemory), person(deskInMemory)])
    const ids = await Promise.all(both.map((applicant, n) => applicant.fail(`CAR ${n}`)))
    const supporter = await supporterOf(deskInMemory)
    for (const [n, id] of ids.entries()) {
      await supporter.lookUp(id)
      await supporter.sees('What happened', `CAR ${n}`)
      expect(await supporter.page.content()).not.toContain(`CAR ${1 - n}`)
      expect((await supporter.report()).counts).toMatchObject({ 'permit.vehicle': '1', 'payment.failed': '1' })
    }
    await Promise.all(both.map((applicant) => applicant.click('Try again')))
    await Promise.all(both.map((applicant, n) => applicant.sees('Your permit is valid', `CAR ${n}`)))
    expect(await Promise.all(both.map((applicant) => applicant.shownId()))).toEqual(ids)
  })

  test('markup that people and their browsers send is shown as text', async () => {
    const applicant = await person(deskInMemory, IMAGE)
    await applicant.submitVehicle({ name: SCRIPT, plate: '<b>"&\'' })
    await applicant.sees('Apply for a permit', 'Enter a plate of 2 to 10 letters and digits.')
    expect(await applicant.page.getByLabel('Your name').inputValue()).toBe(SCRIPT)
    expect(await applicant.page.getByLabel('Number plate').inputValue()).toBe('<B>"&\'')
    await applicant.submitVehicle({ name: SCRIPT, plate: 'AB 123' })
    await applicant.submitProof(`"'${SCRIPT}`)
    await applicant.sees('Check and pay', `"'${SCRIPT}`)
    await applicant.click('Pay')
    await applicant.sees('Something went wrong', SCRIPT)

    const supporter = await supporterOf(deskInMemory)
    await supporter.lookUp(await applicant.shownId())
    await supporter.sees('What happened', IMAGE)
    for (const { page } of [applicant, supporter]) expect(await page.locator('script, img, b').count()).toBe(0)
  })

  test('an ID that is none, or that nobody has, gets an answer that says so', async () => {
    const supporter = await supporterOf(deskInMemory)
    for (const [id, answer] of [
      ['', 'Enter a session ID.'],
      ['   ', 'Enter a session ID.'],
      ['42', 'There is no session ID in this.'],
      [`">${SCRIPT}`, 'There is no session ID in this.'],
      ['00000000-0000-4000-8000-000000000000', 'Nothing is known of this session. Activities are kept for 30 days.'],
    ] as const) {
      await supporter.lookUp(id)
      await supporter.sees('Support desk', answer)
      const asked = supporter.page.getByLabel('Session ID')
      expect(await asked.inputValue()).toBe(id)
      expect(await asked.getAttribute('aria-invalid')).toBe('true')
      expect(await supporter.page.locator('script').count()).toBe(0)
    }
  })

  test('nobody sees a timeline without the password, nor after a logout', async () => {
    const applicant = await person(deskInMemory)
    const id = await applicant.fail('SECRET 1')
    const timeline = `${deskInMemory.url}/support?id=${id}`
    await applicant.page.goto(timeline)
    await applicant.sees('Log in to the support desk')

    const supporter = await person(deskInMemory)
    await supporter.logIn('wrong')
    await supporter.sees('Log in to the support desk', 'Name or password is wrong.')
    await supporter.page.goto(timeline)
    await supporter.sees('Log in to the support desk')
    await supporter.logIn()
    await supporter.page.goto(timeline)
    await supporter.sees('What happened', 'SECRET 1')
    await supporter.click('Log out')
    await supporter.sees('Log in to the support desk')
    await supporter.page.goto(timeline)
    await supporter.sees('Log in to the support desk')
  })

  test('steps cannot be left out', async () => {
    const applicant = await person(deskInMemory)
    for (const path of ['/proof', '/payment', '/receipt']) {
      await applicant.page.goto(deskInMemory.url + path)
      await applicant.sees('Apply for a permit')
    }
    await applicant.submitVehicle({ name: 'Ann', plate: 'AB 123' })
    await applicant.page.goto(`${deskInMemory.url}/payment`)
    await applicant.sees('Prove your address')
    await applicant.submitProof('')
    await applicant.sees('Prove your address', 'Choose a document and enter its number.')
  })

  test('a script in a page is refused, and these tests would notice', async () => {
    const applicant = await person(deskInMemory)
    await expect(applicant.page.addScriptTag({ content: 'globalThis.ran = true' })).rejects.toThrow()
    expect(await applicant.page.evaluate('globalThis.ran')).toBeUndefined()
    expect(applicant.troubles.splice(0)).toEqual([expect.stringContaining('Content Security Policy')])
  })
})

async function start(env: Record<string, string>): Promise<Program> {
  const program = await startProgram('examples/support-desk/server.ts', [], { PORT: '0', ...env })
  endings.push(() => program.stop())
  return program
}

/** Somebody who has the first page open, in a browser of their own. */
async function person(desk: Program, userAgent?: string): Promise<Person> {
  const found = await newPerson(desk, userAgent === undefined ? {} : { userAgent })
  await found.page.goto(desk.url)
  await found.sees('Apply for a permit')
  return found
}

/** Somebody who has the support desk open: logs in the first time, and comes with the same cookie later. */
async function supporterOf(desk: Program): Promise<Person> {
  const known = logins.get(desk)
  const found = await newPerson(desk, known === undefined ? {} : { storageState: known })
  if (known === undefined) {
    await found.logIn()
    logins.set(desk, await found.page.context().storageState())
  } else await found.page.goto(`${desk.url}/support`)
  await found.sees('Support desk')
  return found
}

const logins = new Map<Program, Awaited<ReturnType<BrowserContext['storageState']>>>()

async function newPerson(desk: Program, options: BrowserContextOptions): Promise<Person> {
  const context = await browser.newContext(options)
  context.setDefaultTimeout(WAIT_MS)
  const found = new Person(await context.newPage(), desk.url)
  people.push(found)
  return found
}

class Person {
  readonly page: Page
  readonly arrivedAt = Date.now()
  /** Errors of scripts, refused resources, and dialogs. There must be none. */
  readonly troubles: string[] = []
  readonly #url: string

  constructor(page: Page, url: string) {
    this.page = page
    this.#url = url
    page.on('pageerror', (error) => this.troubles.push(`error: ${error.message}`))
    page.on('dialog', (dialog) => {
      this.troubles.push(`dialog: ${dialog.message()}`)
      dialog.dismiss().catch(() => {})
    })
    page.on('console', (message) => {
      // Chromium's word on a page that comes with an error status.
      const isStatus = /the server responded with a status of (400|401|404|502) /.test(message.text())
      if (!isStatus || message.location().url.endsWith('.css')) {
        this.troubles.push(`${message.type()}: ${message.text()}`)
      }
    })
  }

  /** Waits for the page with this heading, and this text in or outside of a field; checks that everybody can use it. */
  async sees(heading: string, text?: string): Promise<void> {
    await this.page.getByRole('heading', { level: 1, name: heading, exact: true }).waitFor()
    if (text !== undefined) await this.page.getByText(text).first().waitFor()
    expect(await this.page.title()).toBe(`${heading} – Parking permits`)
    expect(await this.page.locator('html[lang=en] h1').count()).toBe(1)
    // What a screen reader is told: nothing to use without a name, and what is wrong beside it.
    const controls = (await this.page.locator('body').ariaSnapshot()).match(/(textbox|combobox|button|link|table).*/g)
    for (const control of controls ?? []) expect(control).toMatch(/^\w+ "/)
    for (const field of await this.page.locator('[aria-invalid]').all()) {
      const described = this.page.locator(`#${await field.getAttribute('aria-describedby')}`)
      expect(await described.textContent()).not.toBe('')
    }
  }

  /** Follows a button to the page behind it. */
  async click(name: string): Promise<void> {
    await Promise.all([this.page.waitForEvent('load'), this.page.getByRole('button', { name, exact: true }).click()])
  }

  async submitVehicle({ name, plate }: { name: string; plate: string }): Promise<void> {
    await this.page.getByLabel('Your name').fill(name)
    await this.page.getByLabel('Number plate').fill(plate)
    await this.click('Continue')
  }

  async submitProof(documentNumber: string): Promise<void> {
    await this.sees('Prove your address')
    await this.page.getByLabel('Document', { exact: true }).selectOption('Utility bill')
    await this.page.getByLabel('Number of the document').fill(documentNumber)
    await this.click('Continue')
  }

  /** Applies up to the payment that fails. Resolves to the ID. */
  async fail(plate: string): Promise<string> {
    await this.submitVehicle({ name: 'Somebody', plate })
    await this.submitProof('42')
    await this.click('Pay')
    await this.sees('Something went wrong')
    return this.shownId()
  }

  async failAndPay(plate: string): Promise<string> {
    const id = await this.fail(plate)
    await this.click('Try again')
    await this.sees('Your permit is valid')
    return id
  }

  async shownId(): Promise<string> {
    const id = await this.page.locator('#session-id').textContent()
    expect(id).toMatch(UUID)
    return id as string
  }

  async logIn(password = 'north star'): Promise<void> {
    await this.page.goto(`${this.#url}/support`)
    await this.sees('Log in to the support desk')
    await this.page.getByLabel('Name').fill('robin')
    await this.page.getByLabel('Password').fill(password)
    await this.click('Log in')
  }

  async lookUp(id: string): Promise<void> {
    await this.page.getByLabel('Session ID').fill(id)
    await this.click('Look up')
  }

  /** What the page of a report shows. */
  async report(): Promise<{
    summary: Record<string, string>
    seconds: number
    counts: Record<string, string>
    failures: string[]
    timeline: string[]
    /** The types in the timeline that are marked as failures. */
    marked: string[]
  }> {
    const region = (name: string | RegExp) =>
      this.page.locator('section').filter({
        has: this.page.getByRole('heading', { level: 2, name }),
      })
    const pairs = async (name: string): Promise<Record<string, string>> => {
      const names = await region(name).locator('dt').allTextContents()
      const values = await region(name).locator('dd').allTextContents()
      return Object.fromEntries(names.map((text, index) => [text, values[index] as string]))
    }
    const summary = await pairs('Summary')
    const [, minutes = '0', seconds] = /^(?:(\d+) min )?(\d+\.\d) s$/.exec(summary['Took'] ?? '') ?? []
    return {
      summary,
      seconds: Number(minutes) * 60 + Number(seconds),
      counts: await pairs('Counts'),
      failures: await region(/^Failures: \d+$/)
        .getByRole('listitem')
        .allTextContents(),
      timeline: await region('Timeline').getByRole('rowheader').allTextContents(),
      marked: await region('Timeline').locator('tr.failure').getByRole('rowheader').allTextContents(),
    }
  }
}
