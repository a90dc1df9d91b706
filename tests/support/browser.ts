// A real browser for tests: Chromium, which tests/run.mjs finds or installs for the runs that import this file.
import { createHash, X509Certificate } from 'node:crypto'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { TEST_CERTIFICATE } from './wires.js'

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

/**
 * One that makes keys for device-bound sessions, in software, and finds every host of `.example` here, by our test certificate.
 * @param port where the servers of these hosts are that have no port in their URL
 */
export async function startBrowserWithKeys(port?: number): Promise<Browser> {
  const { publicKey } = new X509Certificate(TEST_CERTIFICATE.cert)
  const pin = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64')
  // It makes a few signatures in ten minutes, else.
  const features = [
    'DeviceBoundSessions:RefreshQuota/false',
    'EnableBoundSessionCredentialsSoftwareKeysForManualTesting',
  ]
  return startBrowser([
    `--host-resolver-rules=MAP *.example 127.0.0.1${port === undefined ? '' : `:${port}`}`,
    `--ignore-certificate-errors-spki-list=${pin}`,
    `--enable-features=${features.join(',')}`,
  ])
}

/** What a browser says of its keys. */
export interface KeyEvent {
  readonly succeeded: boolean
  readonly creationEventDetails?: object
  readonly refreshEventDetails?: { readonly refreshResult: string }
  readonly terminationEventDetails?: object
}

/** What becomes of the keys of a window, from now on. */
export async function watchKeys(page: Page): Promise<readonly KeyEvent[]> {
  const events: KeyEvent[] = []
  const devtools = (await page.context().newCDPSession(page)) as unknown as {
    send(method: string, params?: object): Promise<unknown>
    on(event: string, listener: (event: KeyEvent) => void): void
  }
  await devtools.send('Network.enable')
  await devtools.send('Network.enableDeviceBoundSessions', { enable: true })
  devtools.on('Network.deviceBoundSessionEventOccurred', (event) => void events.push(event))
  return events
}

/** How many keys were registered: from then on the browser refreshes. */
export function registeredKeys(events: readonly KeyEvent[]): number {
  return events.filter((event) => event.succeeded && event.creationEventDetails !== undefined).length
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
