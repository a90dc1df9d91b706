// A real browser for tests: Chromium, which tests/run.mjs finds or installs for the runs that import this file.
import { type Browser, type BrowserContext, chromium } from 'playwright-core'

declare global {
  // The types of playwright-core name these of a page, whose lib would bring the rest of a browser into our code.
  interface Node {
    readonly nodeType: number
  }
  interface HTMLElement extends Node {
    readonly tagName: string
  }
  interface SVGElement extends Node {
    readonly tagName: string
  }
  type HTMLElementTagNameMap = Record<string, HTMLElement>
}

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/**
 * @param args for Chromium, besides the usual ones
 * @param without what Playwright adds to them, and this one is not to have
 */
export async function startBrowser(args: readonly string[] = [], without: readonly string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath: pathOfBrowser(),
    args: [...ARGS, ...args],
    ignoreDefaultArgs: [...without],
    timeout: 90_000,
  })
}

/** One that keeps its profile in `directory`, as a person's does: closed and started again, it has what outlives its window. */
export async function startProfile(directory: string): Promise<BrowserContext> {
  return chromium.launchPersistentContext(directory, { executablePath: pathOfBrowser(), args: ARGS, timeout: 90_000 })
}

function pathOfBrowser(): string {
  const executablePath = process.env['CHROMIUM_PATH']
  if (!executablePath) throw new Error('CHROMIUM_PATH names no browser: run the tests with npm test.')
  return executablePath
}
