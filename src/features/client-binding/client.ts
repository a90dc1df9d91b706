// What is looked at of a client, made so coarse that what changes by itself does not count: another address of the same network,
// another version of the same browser.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { Recent } from '../../recent.js'
import { networkOf, preferredLanguage } from '../../request/client.js'

/**
 * What of a client is looked at: its network (the /24 of an IPv4 address, the /48 of an IPv6 one), the family of its browser and
 * the platform that it runs on, or the language that it prefers.
 */
export type ClientTrait = 'network' | 'browser' | 'language'

/** A request that `clientBinding()` looks at. */
export type ClientRequest = (IncomingMessage | Http2ServerRequest) & { ip?: string | undefined }

/** All that there are, in the order in which they are kept. */
export const TRAITS: readonly ClientTrait[] = ['network', 'browser', 'language']

/** What a client says of itself, as it came. */
export interface RawClient {
  readonly address: string | undefined
  readonly userAgent: string
  readonly language: string
}

/** By its text, what a user agent is: parsing takes some microseconds, and there are few of them. */
const browsers = new Recent<string>()

export function rawClient(req: ClientRequest, addressOf: ((req: never) => string | undefined) | undefined): RawClient {
  const { headers } = req
  return {
    address: addressOf === undefined ? (req.ip ?? req.socket?.remoteAddress) : addressOf(req as never),
    userAgent: headers['user-agent'] ?? '',
    language: headers['accept-language'] ?? '',
  }
}

/** The value of a trait; `undefined` where nothing is known of it. A header that is missing is a value, too. */
export function traitOf(trait: ClientTrait, { address, userAgent, language }: RawClient): string | undefined {
  switch (trait) {
    case 'network':
      return address === undefined ? undefined : networkOf(address)
    case 'browser':
      return browserOf(userAgent)
    case 'language':
      return preferredLanguage(language)?.split('-', 1)[0]?.toLowerCase() ?? ''
  }
}

function browserOf(userAgent: string): string {
  const known = browsers.get(userAgent)
  if (known !== undefined) return known
  const text = userAgent.slice(0, MAX_TEXT)
  const family = named(FAMILIES, text) ?? text.replace(VERSIONS, '')
  const browser = `${family}/${named(PLATFORMS, text) ?? ''}`
  if (userAgent.length <= MAX_TEXT) browsers.set(userAgent, browser)
  return browser
}

/** What is longer is cut, and not kept: no browser says so much. */
const MAX_TEXT = 256
const VERSIONS = /\d+(?:[._]\d+)*/g

/** The first that fits: most browsers name others, too. */
const FAMILIES: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['edge', /\bEdg(?:e|A|iOS)?\//],
  ['opera', /\bOPR\/|\bOPT\/|\bOpera\b/],
  ['samsung', /\bSamsungBrowser\//],
  ['firefox', /\b(?:Firefox|FxiOS)\//],
  ['chrome', /\b(?:Chrome|HeadlessChrome|Chromium|CriOS)\//],
  ['safari', /\bVersion\/\S+ (?:Mobile\/\S+ )?Safari\//],
]
const PLATFORMS: typeof FAMILIES = [
  ['android', /\bAndroid\b/],
  ['ios', /\b(?:iPhone|iPad|iPod)\b/],
  ['windows', /\bWindows\b/],
  ['macos', /\bMacintosh\b/],
  ['chromeos', /\bCrOS\b/],
  ['linux', /\bLinux\b/],
]

function named(list: typeof FAMILIES, text: string): string | undefined {
  return list.find(([, pattern]) => pattern.test(text))?.[0]
}
